/*
 * loose.c - lists of short runs, and reading them in order.  Floor 4.
 */
#include "dirty/loose.h"

#include "base/sort.h"

/* Runs are ordered by the word of 64 gfns that they begin in. */
#define WORD_BITS 6

static uint64_t word_of(uint64_t run) { return sp_loose_start(run) >> WORD_BITS; }

sp_status sp_loose_reserve(sp_loose *loose, sp_mem *mem, size_t more)
{
    if (loose->room - loose->n >= more)
        return SP_OK;
    if (more > UINT32_MAX - loose->n)
        return SP_NOMEM;
    size_t room = (size_t)sp_min(sp_max(loose->n + more, 2 * loose->room), UINT32_MAX);
    uint64_t *runs = sp_mem_resize(mem, loose->runs, loose->room * sizeof *runs,
                                   room * sizeof *runs);
    if (!runs)
        return SP_NOMEM;
    loose->runs = runs;
    loose->room = room;
    return SP_OK;
}

bool sp_loose_is_sorted(const sp_loose *loose)
{
    for (size_t i = 1; i < loose->n; i++)
        if (word_of(loose->runs[i]) < word_of(loose->runs[i - 1]))
            return false;
    return true;
}

void sp_loose_sort(sp_loose *loose, uint64_t *room)
{
    sp_sort_words(loose->runs, room, loose->n, WORD_BITS, SP_GFN_BITS);
}

void sp_loose_clear(sp_loose *loose, sp_mem *mem)
{
    sp_mem_free(mem, loose->runs, loose->room * sizeof *loose->runs);
    *loose = (sp_loose){0};
}

void sp_loose_trim(sp_loose *loose, sp_mem *mem)
{
    if (!loose->n) {
        sp_loose_clear(loose, mem);
        return;
    }
    uint64_t *runs = sp_mem_resize(mem, loose->runs, loose->room * sizeof *runs,
                                   loose->n * sizeof *runs);
    if (!runs)
        return;
    loose->runs = runs;
    loose->room = loose->n;
}

sp_status sp_loose_add_to(const sp_loose *loose, sp_edit *edit, sp_set *set)
{
    size_t n = loose->n, bytes = (2 * n + 1) * sizeof(sp_range);
    sp_range *ranges = sp_mem_alloc(edit->mem, bytes);
    if (!ranges)
        return SP_NOMEM;
    for (size_t i = 0; i < n; i++)
        ranges[i] = (sp_range){sp_loose_start(loose->runs[i]), sp_loose_stop(loose->runs[i])};
    sp_sort_ranges(ranges, ranges + n, n);
    sp_status status = sp_set_add_sorted(edit, set, ranges, n);
    sp_mem_free(edit->mem, ranges, bytes);
    return status;
}

/* ---- reading ---- */

sp_loose_cursor sp_loose_open(const sp_loose *loose, uint64_t start)
{
    uint64_t word = (start - sp_min(start, SP_LOOSE_MOST)) >> WORD_BITS;
    size_t low = 0, high = loose->n;
    while (low < high) {
        size_t middle = low + (high - low) / 2;
        if (word_of(loose->runs[middle]) < word)
            low = middle + 1;
        else
            high = middle;
    }
    return (sp_loose_cursor){loose->runs, low, loose->n, 0, false};
}

/* Begins the first range, as an empty one that the first run extends. */
static void begin(sp_loose_cursor *c, uint64_t *out, size_t *used)
{
    uint64_t start = sp_loose_start(c->runs[c->at]), word = word_of(start);
    for (size_t i = c->at + 1; i < c->n && word_of(c->runs[i]) == word; i++)
        start = sp_min(start, sp_loose_start(c->runs[i]));
    out[(*used)++] = c->stop = start;
    c->is_open = true;
}

/* Extends the range being read by [start, stop), or ends it and begins another. */
static inline uint64_t extend(uint64_t end, uint64_t start, uint64_t stop, uint64_t *out,
                              size_t *used)
{
    if (start <= end)
        return sp_max(end, stop);
    out[*used] = end;
    out[*used + 1] = start;
    *used += 2;
    return stop;
}

/* Reads the runs that begin in the next word: sets its bits, and lists them. */
static void read_word(sp_loose_cursor *c, uint64_t *out, size_t *used)
{
    uint64_t run = c->runs[c->at], word = word_of(run), base = word << WORD_BITS, bits = 0, far = 0;
    do {
        uint64_t start = sp_loose_start(run), stop = sp_loose_stop(run);
        bits |= sp_mask((unsigned)(start - base), (unsigned)sp_min(stop - 1 - base, 63));
        far = sp_max(far, stop);
    } while (++c->at < c->n && word_of(run = c->runs[c->at]) == word);
    while (bits) {
        unsigned first = sp_lowest(bits);
        uint64_t filled = bits | ((bits & -bits) - 1);
        unsigned past = ~filled ? sp_lowest(~filled) : 64;
        c->stop = extend(c->stop, base + first, base + past, out, used);
        bits = past < 64 ? bits & ~UINT64_C(0) << past : 0;
    }
    c->stop = sp_max(c->stop, far); /* past the word only if its last bit is set */
}

/* Reads runs that are alone in their word, as random pages of a large guest are, as far as there is
 * room; stops before two that are not, and before the last. */
static void read_single(sp_loose_cursor *c, uint64_t *out, size_t *used, size_t room)
{
    const uint64_t *at = c->runs + c->at;
    const uint64_t *last = at + sp_min(c->n - c->at - 1, (room - *used - SP_TOGGLES_ROOM) / 2);
    uint64_t run = *at, stop = c->stop;
    size_t n = *used;
    for (; at < last; at++) {
        uint64_t next = at[1];
        if (!word_of(run ^ next))
            break;
        stop = extend(stop, sp_loose_start(run), sp_loose_stop(run), out, &n);
        run = next;
    }
    c->stop = stop;
    c->at = (size_t)(at - c->runs);
    *used = n;
}

size_t sp_loose_toggles(sp_loose_cursor *c, uint64_t *out, size_t room)
{
    size_t used = 0;
    if (!c->is_open && c->at < c->n)
        begin(c, out, &used);
    while (c->at < c->n && room - used >= SP_TOGGLES_ROOM) {
        read_single(c, out, &used, room);
        read_word(c, out, &used); /* 64 toggles at most */
    }
    if (c->at == c->n && c->is_open) {
        out[used++] = c->stop;
        c->is_open = false;
    }
    return used;
}
