/*
 * seek.c - ranks and members by the array, and what lies next to a gfn.  Floor 3.
 *
 * Engine-neutral: made of rank, select and cursors.  Where an answer must be read out of the set,
 * a cursor yields two toggles at most; where it lies behind, ranks close in on it, since cursors
 * do not walk backwards.  Allocates nothing and cannot fail.
 */
#include "set/set.h"

size_t sp_set_rank_many(const sp_set *set, const uint64_t *gfns, size_t n, uint64_t *ranks)
{
    for (size_t i = 0; i < n; i++) {
        uint64_t gfn = SP_READ_ONCE(gfns[i]);
        if (gfn > SP_GFN_LIMIT)
            return i;
        ranks[i] = sp_set_rank(set, gfn);
    }
    return n;
}

size_t sp_set_select_many(const sp_set *set, const uint64_t *indexes, size_t n, uint64_t *gfns)
{
    uint64_t count = sp_set_count(set);
    for (size_t i = 0; i < n; i++) {
        uint64_t index = SP_READ_ONCE(indexes[i]);
        if (index >= count)
            return i;
        gfns[i] = sp_set_select(set, index);
    }
    return n;
}

/* The end of the run that begins at or before gfn, or gfn where there is none. */
static uint64_t run_stop(const sp_kernels *k, const sp_set *set, uint64_t gfn)
{
    sp_cursor cursor = sp_cursor_open(set, gfn, SP_GFN_LIMIT);
    uint64_t toggles[2 * SP_TOGGLES_ROOM];
    size_t n = sp_cursor_toggles(k, &cursor, toggles, 2 * SP_TOGGLES_ROOM);
    if (!n || toggles[0] != gfn)
        return gfn;
    if (n < 2)
        sp_cursor_toggles(k, &cursor, toggles + 1, 2 * SP_TOGGLES_ROOM - 1);
    return toggles[1];
}

uint64_t sp_set_next(const sp_kernels *k, const sp_set *set, uint64_t gfn, bool member)
{
    SP_ASSERT(gfn < SP_GFN_LIMIT);
    if (!member)
        return run_stop(k, set, gfn);
    uint64_t rank = sp_set_rank(set, gfn);
    return rank < sp_set_count(set) ? sp_set_select(set, rank) : SP_GFN_LIMIT;
}

/* True if every gfn of [start, stop) is a member. */
static bool is_whole(const sp_set *set, uint64_t start, uint64_t stop)
{
    return sp_set_count_range(set, start, stop) == stop - start;
}

/* The start of the run that `gfn` is a member of: steps twice as long each time, until one holds a
 * gap; then the gap is closed in on by halves. */
static uint64_t run_start(const sp_set *set, uint64_t gfn)
{
    uint64_t whole = gfn, step = 1;
    while (whole && is_whole(set, whole - sp_min(step, whole), whole)) {
        whole -= sp_min(step, whole);
        step *= 2;
    }
    uint64_t gap = whole - sp_min(step, whole);
    while (gap < whole) {
        uint64_t middle = gap + (whole - gap) / 2;
        if (is_whole(set, middle, whole))
            whole = middle;
        else
            gap = middle + 1;
    }
    return whole;
}

uint64_t sp_set_prev(const sp_set *set, uint64_t gfn, bool member)
{
    SP_ASSERT(gfn < SP_GFN_LIMIT);
    if (member) {
        uint64_t rank = sp_set_rank(set, gfn + 1);
        return rank ? sp_set_select(set, rank - 1) : SP_GFN_LIMIT;
    }
    if (!sp_set_contains(set, gfn))
        return gfn;
    uint64_t start = run_start(set, gfn);
    return start ? start - 1 : SP_GFN_LIMIT;
}
