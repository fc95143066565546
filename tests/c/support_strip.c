/*
 * support_strip.c - the slow model of a tracker.
 */
#include "support_strip.h"

#include <stdlib.h>
#include <string.h>

static void add_cell(strip *s, uint64_t start, uint64_t stop)
{
    if (start < stop)
        s->cell[s->n++] = (strip_cell){.start = start, .stop = stop};
}

void strip_init(strip *s, const sp_range *windows, size_t n, uint64_t bound)
{
    uint64_t cells = n + 1, at = 0;
    for (size_t w = 0; w < n; w++)
        cells += windows[w].stop - windows[w].start;
    *s = (strip){.cell = malloc(cells * sizeof *s->cell)};
    for (size_t w = 0; w < n; w++) {
        add_cell(s, at, windows[w].start);
        for (at = windows[w].start; at < windows[w].stop; at++)
            add_cell(s, at, at + 1);
    }
    add_cell(s, at, bound);
}

void strip_copy(strip *to, const strip *from)
{
    *to = (strip){malloc(from->n * sizeof *from->cell), from->n};
    memcpy(to->cell, from->cell, from->n * sizeof *from->cell);
}

void strip_clear(strip *s)
{
    free(s->cell);
    *s = (strip){0};
}

sp_range strip_range(const strip *s, rng *r)
{
    uint64_t most = rng_chance(r, 8) ? s->n : rng_chance(r, 2) ? 80 : 3;
    uint64_t first = rng_below(r, s->n), last = first + rng_below(r, most);
    return (sp_range){s->cell[first].start, s->cell[last < s->n ? last : s->n - 1].stop};
}

static uint64_t flip(strip_cell *cell, bool shared, uint64_t epoch)
{
    if (cell->shared == shared)
        return 0;
    cell->shared = shared;
    cell->last = epoch;
    return cell->stop - cell->start;
}

uint64_t strip_convert(strip *s, sp_range range, bool shared, uint64_t epoch)
{
    uint64_t changed = 0;
    for (size_t i = 0; i < s->n; i++)
        if (range.start <= s->cell[i].start && s->cell[i].stop <= range.stop)
            changed += flip(&s->cell[i], shared, epoch);
    return changed;
}

uint64_t strip_replace(strip *s, const sp_range *ranges, size_t n, uint64_t epoch)
{
    uint64_t changed = 0;
    for (size_t i = 0; i < s->n; i++) {
        bool shared = false;
        for (size_t k = 0; k < n; k++)
            shared |= ranges[k].start <= s->cell[i].start && s->cell[i].stop <= ranges[k].stop;
        changed += flip(&s->cell[i], shared, epoch);
    }
    return changed;
}

uint64_t strip_count(const strip *s)
{
    uint64_t pages = 0;
    for (size_t i = 0; i < s->n; i++)
        if (s->cell[i].shared)
            pages += s->cell[i].stop - s->cell[i].start;
    return pages;
}

/* Compares with the cells that are shared or, if `converted`, last converted after `older`. */
static bool compare(const strip *s, bool converted, uint64_t older, const sp_set *set)
{
    uint64_t toggle[2 * SP_TOGGLES_ROOM], end = s->cell[s->n - 1].stop;
    sp_cursor cursor = sp_cursor_open(set, 0, SP_GFN_LIMIT);
    size_t n = sp_cursor_toggles(sp_kernels_active(), &cursor, toggle, 2 * SP_TOGGLES_ROOM), at = 0;
    bool in = false, good = CHECK_VALID(sp_set_validate(set));
    for (size_t i = 0; good && i <= s->n; i++) {
        bool want = i < s->n && (converted ? s->cell[i].last > older : s->cell[i].shared);
        if (want == in)
            continue;
        in = want;
        good = CHECK(at < n) && CHECK_EQ(toggle[at], i < s->n ? s->cell[i].start : end);
        if (++at == n) {
            n = sp_cursor_toggles(sp_kernels_active(), &cursor, toggle, 2 * SP_TOGGLES_ROOM);
            at = 0;
        }
    }
    return good && CHECK_EQ(n, 0);
}

bool strip_is(const strip *s, const sp_set *set) { return compare(s, false, 0, set); }

bool strip_converted_is(const strip *s, uint64_t older, const sp_set *set)
{
    return compare(s, true, older, set);
}
