/*
 * set.c - what is the same for every engine: dispatch, cursors, bulk queries.  Floor 3.
 */
#include "set/set.h"

#include <string.h>

#include "set/engine.h"
#include "set/mixed.h"

const char *sp_set_engine_name(const sp_set *set) { return set->engine->name; }

uint64_t sp_set_count(const sp_set *set) { return set->engine->count(set); }

bool sp_set_contains(const sp_set *set, uint64_t gfn) { return set->engine->contains(set, gfn); }

uint64_t sp_set_rank(const sp_set *set, uint64_t gfn) { return set->engine->rank(set, gfn); }

uint64_t sp_set_count_range(const sp_set *set, uint64_t start, uint64_t stop)
{
    return start < stop ? set->engine->count_range(set, start, stop) : 0;
}

uint64_t sp_set_select(const sp_set *set, uint64_t i) { return set->engine->select(set, i); }

uint64_t sp_set_nranges(const sp_kernels *k, const sp_set *set)
{
    return set->engine->toggles_count(k, set) / 2;
}

uint64_t sp_set_intersection(const sp_kernels *k, const sp_set *a, const sp_set *b)
{
    return a->engine == b->engine ? a->engine->intersection(k, a, b)
                                  : sp_mixed_intersection(k, a, b);
}

size_t sp_cursor_toggles(const sp_kernels *k, sp_cursor *cursor, uint64_t *out, size_t room)
{
    size_t used = 0;
    if (cursor->at < cursor->stop)
        cursor->set.engine->toggles(k, cursor, out, &used, room);
    if (cursor->at >= cursor->stop && cursor->carry) {
        out[used++] = cursor->stop;
        cursor->carry = 0;
    }
    return used;
}

void sp_set_contains_many(const sp_set *set, const uint64_t *gfns, size_t n, uint8_t *found)
{
    for (size_t i = 0; i < n; i++)
        found[i] = sp_set_contains(set, gfns[i]);
}

#define BATCH 1024

uint64_t sp_set_ranges_count(const sp_kernels *k, const sp_set *set, uint64_t start, uint64_t stop)
{
    if (start == 0 && stop == SP_GFN_LIMIT)
        return sp_set_nranges(k, set);
    sp_cursor cursor = sp_cursor_open(set, start, stop);
    uint64_t toggles[BATCH], total = 0;
    for (size_t n; (n = sp_cursor_toggles(k, &cursor, toggles, BATCH));)
        total += n;
    return total / 2;
}

void sp_set_ranges_into(const sp_kernels *k, const sp_set *set, uint64_t start, uint64_t stop,
                        sp_range *out, uint64_t n)
{
    sp_cursor cursor = sp_cursor_open(set, start, stop);
    uint64_t *to = (uint64_t *)out, tail[2 * SP_TOGGLES_ROOM];
    for (uint64_t left = 2 * n; left;) {
        size_t got;
        if (left > 2 * SP_TOGGLES_ROOM) {
            got = sp_cursor_toggles(k, &cursor, to, (size_t)left);
        } else {
            /* The kernels want room to spare, and the caller's array ends here. */
            got = sp_cursor_toggles(k, &cursor, tail, 2 * SP_TOGGLES_ROOM);
            memcpy(to, tail, got * sizeof *to);
        }
        to += got;
        left -= got;
    }
}

size_t sp_cursor_ranges(const sp_kernels *k, sp_cursor *cursor, sp_range *out, size_t room)
{
    /* Toggles that end inside a range are read again: the walk goes back to the range's start. */
    uint64_t toggles[BATCH];
    size_t n = 0;
    while (n < room) {
        size_t want = (size_t)sp_min(2 * (room - n), BATCH - SP_TOGGLES_ROOM);
        size_t got = sp_cursor_toggles(k, cursor, toggles, SP_TOGGLES_ROOM + want - 1);
        if (!got)
            break;
        size_t whole = sp_min(got, 2 * (room - n)) & ~(size_t)1;
        memcpy(out + n, toggles, whole * sizeof *toggles);
        n += whole / 2;
        if (whole < got) {
            cursor->at = toggles[whole];
            cursor->carry = 0;
        }
    }
    return n;
}

void sp_set_pages_into(const sp_kernels *k, const sp_set *set, uint64_t start, uint64_t stop,
                       uint64_t *out)
{
    sp_cursor cursor = sp_cursor_open(set, start, stop);
    uint64_t toggles[BATCH], from = 0;
    bool open = false;
    for (size_t n; (n = sp_cursor_toggles(k, &cursor, toggles, BATCH));) {
        for (size_t i = 0; i < n; i++, open = !open) {
            if (!open)
                from = toggles[i];
            else
                while (from < toggles[i])
                    *out++ = from++;
        }
    }
}

void sp_set_bitmap_into(const sp_kernels *k, const sp_set *set, uint64_t start, uint64_t npages,
                        uint64_t *words)
{
    memset(words, 0, (size_t)((npages + 63) / 64 * 8));
    sp_cursor cursor = sp_cursor_open(set, start, start + npages);
    uint64_t toggles[BATCH], from = 0;
    bool open = false;
    for (size_t n; (n = sp_cursor_toggles(k, &cursor, toggles, BATCH));) {
        for (size_t i = 0; i < n; i++, open = !open) {
            if (open)
                sp_words_fill(words, from - start, toggles[i] - start - 1, true);
            from = toggles[i];
        }
    }
}

bool sp_set_words(const sp_set *set, uint64_t base, uint64_t *words)
{
    SP_ASSERT(base < SP_GFN_LIMIT && base % SP_LEAF_PAGES == 0);
    return set->engine->words && set->engine->words(set, base, words);
}

void sp_set_measure(const sp_set *set, sp_set_stats *stats)
{
    *stats = (sp_set_stats){0};
    set->engine->measure(set, stats);
    stats->pages = sp_set_count(set);
}

void sp_set_walk(const sp_set *set, uint64_t floor, sp_node_fn visit, void *context)
{
    set->engine->walk(set, floor, visit, context);
}

const char *sp_set_validate(const sp_set *set) { return set->engine->validate(set); }

sp_status sp_set_assign(sp_edit *edit, sp_set *set, uint64_t start, uint64_t stop, bool value)
{
    SP_ASSERT(start < stop && stop <= SP_GFN_LIMIT);
    return set->engine->assign(edit, set, start, stop, value);
}

bool sp_set_turn(sp_edit *edit, sp_set *set, uint64_t start, uint64_t stop, bool value,
                 sp_turned *turned)
{
    SP_ASSERT(start < stop && stop <= SP_GFN_LIMIT && !sp_edit_is_counted(edit));
    return set->engine->turn(edit, set, start, stop, value, turned);
}

sp_status sp_set_put_words(sp_edit *edit, sp_set *set, uint64_t base, const uint64_t *words)
{
    SP_ASSERT(base < SP_GFN_LIMIT && base % SP_LEAF_PAGES == 0);
    return set->engine->put_words(edit, set, base, words);
}

sp_status sp_set_add_sorted(sp_edit *edit, sp_set *set, const sp_range *ranges, size_t n)
{
    return set->engine->add_sorted(edit, set, ranges, n);
}

void sp_set_retire(sp_edit *edit, sp_set *set)
{
    set->engine->drop(edit, set);
    *set = sp_set_empty(set->engine);
}

sp_status sp_set_combine(sp_edit *edit, sp_op op, const sp_set *a, const sp_set *b, sp_set *out)
{
    return a->engine == b->engine ? a->engine->combine(edit, op, a, b, out)
                                  : sp_mixed_combine(edit, op, a, b, out);
}

bool sp_set_combine_is_short(sp_op op, const sp_set *a, const sp_set *b)
{
    enum { LOW = 1 };
    if (a->engine != b->engine)
        return false;
    if (a->engine == &sp_engine_interval)
        return sp_max(a->height, b->height) <= LOW;
    switch (op) {
    case SP_AND: return sp_min(a->height, b->height) <= LOW;
    case SP_ANDNOT: return a->height <= LOW;
    default: return sp_max(a->height, b->height) <= LOW;
    }
}
