/*
 * mixed.c - sets of different engines that meet.  Floor 3.
 *
 * To combine them, the one of runs is first made anew as the other's kind: its runs are counted
 * without a walk, and it holds no more than the other can.  Counting what is in both makes nothing:
 * the runs of the one are looked up in the other.
 */
#include "set/mixed.h"

#include "set/engine.h"

sp_status sp_set_convert(sp_edit *edit, const sp_set *set, const sp_engine *engine, sp_set *out)
{
    sp_cursor cursor = sp_cursor_open(set, 0, SP_GFN_LIMIT);
    return engine->load(edit, &cursor, out);
}

sp_status sp_mixed_combine(sp_edit *edit, sp_op op, const sp_set *a, const sp_set *b, sp_set *out)
{
    const sp_engine *engine = a->engine == &sp_engine_interval ? b->engine : a->engine;
    sp_set same;
    sp_status status = sp_set_convert(edit, a->engine == engine ? b : a, engine, &same);
    if (status)
        return status;
    if (a->engine == engine)
        status = engine->combine(edit, op, a, &same, out);
    else
        status = engine->combine(edit, op, &same, b, out);
    engine->drop(edit, &same);
    return status;
}

/* The gfns from the first member to past the last of a set that is not empty. */
static sp_range extent(const sp_set *set)
{
    return (sp_range){sp_set_select(set, 0), sp_set_select(set, sp_set_count(set) - 1) + 1};
}

uint64_t sp_mixed_intersection(const sp_kernels *k, const sp_set *a, const sp_set *b)
{
    enum { BATCH = 128 };
    const sp_set *listed = a->engine == &sp_engine_interval ? a : b, *asked = listed == a ? b : a;
    sp_range ranges[BATCH];
    uint64_t pages = 0;
    if (!sp_set_count(a) || !sp_set_count(b))
        return 0;
    sp_range part = extent(asked);
    sp_cursor cursor = sp_cursor_open(listed, part.start, part.stop);
    for (size_t n; (n = sp_cursor_ranges(k, &cursor, ranges, BATCH));)
        for (size_t i = 0; i < n; i++)
            pages += sp_set_count_range(asked, ranges[i].start, ranges[i].stop);
    return pages;
}
