/*
 * write.c - conversions.  Floor 4.
 *
 * Most changes lie in one leaf, and the set makes them in one search and says what they changed
 * (turn).  Every other is decided before it is made: how many pages of the range have the other
 * status, and which.  All that can fail - room in the log of conversions, the nodes of the new
 * state - comes before the first step that cannot be taken back.  A call that changes nothing
 * stops before it copies a node or moves the epoch.
 */
#include <string.h>

#include "set/choice.h"
#include "tracker/state.h"

/* The pages of [start, stop) whose status is not `shared`. */
static sp_status differing(sp_tracker *tracker, uint64_t start, uint64_t stop, bool shared,
                           sp_pageset **out)
{
    sp_range range = {start, stop};
    sp_pageset *all;
    size_t bad;
    const sp_allocator *allocator = tracker->allocator;
    sp_status status = sp_pageset_from_ranges(allocator, tracker->set.engine, &range, 1, &all,
                                              &bad);
    if (status)
        return status;
    status = sp_pageset_combine(allocator, shared ? SP_ANDNOT : SP_AND, sp_pageset_set(all),
                                &tracker->set, out);
    sp_pageset_release(all);
    return status;
}

/* Differing ranges up to which they are logged one by one instead of as a set. */
#define FEW 8

/* A conversion decided upon: how many pages change, and how that is logged. */
typedef struct conversion {
    uint64_t fresh;
    sp_cell *cell; /* the pages that change, where they are more than few ranges */
    uint32_t n;    /* else: these */
    sp_range ranges[FEW + 1];
} conversion;

/* Lists the pages of [start, stop) whose status is not `shared`, if they are few ranges. */
static bool list_few(const sp_tracker *tracker, uint64_t start, uint64_t stop, bool shared,
                     conversion *c)
{
    const sp_kernels *k = tracker->epoch.open.kernels;
    sp_cursor cursor = sp_cursor_open(&tracker->set, start, stop);
    sp_range members[FEW];
    uint32_t n = (uint32_t)sp_cursor_ranges(k, &cursor, members, FEW);
    if (n == FEW)
        return false;
    if (!shared) {
        memcpy(c->ranges, members, n * sizeof *members);
        c->n = n;
        return true;
    }
    for (uint32_t i = 0; i <= n; i++) {
        sp_range gap = {i ? members[i - 1].stop : start, i < n ? members[i].start : stop};
        if (gap.start < gap.stop)
            c->ranges[c->n++] = gap;
    }
    return true;
}

/* Finds out what converting [start, stop) changes, and readies its record in `changes`. */
static sp_status decide(sp_tracker *tracker, sp_changes *changes, uint64_t start, uint64_t stop,
                        bool shared, conversion *c)
{
    uint64_t members = sp_set_count_range(&tracker->set, start, stop);
    c->fresh = shared ? stop - start - members : members;
    c->cell = NULL;
    c->n = 0;
    if (!c->fresh)
        return SP_OK;
    if (c->fresh == stop - start)
        c->ranges[c->n++] = (sp_range){start, stop};
    if (c->n || list_few(tracker, start, stop, shared, c))
        return sp_changes_reserve(changes, &tracker->keeper, c->n);
    sp_pageset *pages;
    sp_status status = differing(tracker, start, stop, shared, &pages);
    if (status)
        return status;
    status = sp_cell_of(&tracker->keeper, pages, &c->cell);
    if (status)
        sp_pageset_release(pages);
    return status;
}

/* Converts [start, stop) and logs it, if the set can do that at once and the log has room. */
static bool turn(sp_tracker *tracker, sp_changes *changes, uint64_t start, uint64_t stop,
                 bool shared, uint64_t *fresh)
{
    sp_turned turned;
    turned.most = (uint32_t)sp_min(SP_LOG_RANGES - changes->n, SP_TURNED_RANGES);
    if (!turned.most ||
        !sp_set_turn(&tracker->epoch.open, &tracker->set, start, stop, shared, &turned))
        return false;
    *fresh = turned.pages;
    if (turned.pages == stop - start)
        sp_changes_add(changes, start, stop);
    for (uint32_t i = 0; i < turned.n; i++)
        sp_changes_add(changes, turned.range[i].start, turned.range[i].stop);
    return true;
}

/* Converts [start, stop), start < stop; with the lock held. */
static sp_status convert(sp_tracker *tracker, sp_changes *changes, uint64_t start, uint64_t stop,
                         bool shared, uint64_t *fresh)
{
    conversion c;
    tracker->turns++;
    if (turn(tracker, changes, start, stop, shared, fresh))
        return SP_OK;
    sp_status status = decide(tracker, changes, start, stop, shared, &c);
    *fresh = c.fresh;
    if (status || !c.fresh)
        return status;
    status = sp_set_assign(&tracker->epoch.open, &tracker->set, start, stop, shared);
    if (status) {
        if (c.cell)
            sp_cell_release(c.cell);
        return status;
    }
    if (c.cell)
        sp_changes_add_cell(changes, c.cell);
    for (uint32_t i = 0; i < c.n; i++)
        sp_changes_add(changes, c.ranges[i].start, c.ranges[i].stop);
    return SP_OK;
}

static sp_status check(const sp_tracker *tracker, uint64_t start, uint64_t npages)
{
    return start <= tracker->bound && npages <= tracker->bound - start ? SP_OK : SP_RANGE;
}

sp_status sp_tracker_convert(sp_tracker *tracker, uint64_t start, uint64_t npages, bool shared,
                             bool wait, uint64_t *changed)
{
    *changed = 0;
    sp_status status = check(tracker, start, npages);
    if (!status)
        status = sp_tracker_enter(tracker, wait);
    if (status)
        return status;
    if (npages)
        status = convert(tracker, &tracker->changes, start, start + npages, shared, changed);
    if (status)
        *changed = 0;
    sp_tracker_leave(tracker, *changed);
    return status;
}

sp_status sp_tracker_convert_list(sp_tracker *tracker, uint64_t start, uint64_t npages, bool shared,
                                  uint64_t *changed, sp_pageset **pages)
{
    sp_pageset *list = NULL;
    *changed = 0;
    sp_status status = check(tracker, start, npages);
    if (!status)
        status = sp_tracker_enter(tracker, true);
    if (status)
        return status;
    if (npages)
        status = differing(tracker, start, start + npages, shared, &list);
    else
        status = sp_pageset_new(tracker->allocator, tracker->set.engine, &list);
    if (!status && npages)
        status = convert(tracker, &tracker->changes, start, start + npages, shared, changed);
    if (status)
        *changed = 0;
    sp_tracker_leave(tracker, *changed);
    if (status)
        sp_pageset_release(list);
    else
        *pages = list;
    return status;
}

/* ---- all or nothing ---- */

/* Events up to which apply does not bother to publish what came before it. */
#define SHORT_APPLY 64

static sp_status apply_each(sp_tracker *tracker, const sp_event *events, size_t n,
                            uint64_t *changed, size_t *bad)
{
    for (size_t i = 0; i < n; i++) {
        uint64_t start = SP_READ_ONCE(events[i].start), fresh = 0;
        uint64_t npages = SP_READ_ONCE(events[i].npages);
        uint8_t shared = SP_READ_ONCE(events[i].shared);
        *bad = i;
        sp_status status = shared > 1 ? SP_INVALID : check(tracker, start, npages);
        if (!status && npages)
            status = convert(tracker, &tracker->pending, start, start + npages, shared, &fresh);
        if (status)
            return status;
        /* Enough whole-guest flips would wrap to 0, which means that nothing was done. */
        *changed = fresh > UINT64_MAX - *changed ? UINT64_MAX : *changed + fresh;
    }
    return SP_OK;
}

sp_status sp_tracker_apply(sp_tracker *tracker, const sp_event *events, size_t n, uint64_t *changed,
                           size_t *bad)
{
    *changed = 0;
    sp_status status = sp_tracker_enter(tracker, true);
    if (status)
        return status;
    /* So that snapshot() needs no lock while we hold it; if it cannot be had, it waits. */
    if (n > SHORT_APPLY)
        (void)!sp_tracker_publish(tracker);
    sp_set before = tracker->set;
    sp_savepoint savepoint = sp_epoch_savepoint(&tracker->epoch);
    bool hastened = sp_tracker_hasten(tracker, events, n);
    status = apply_each(tracker, events, n, changed, bad);
    if (!status)
        status = sp_changes_ready(&tracker->changes, &tracker->pending, &tracker->keeper);
    /* A batch that changed nothing may have changed the engine. */
    if (status || !*changed) {
        sp_root made = sp_root_of(&tracker->set);
        sp_epoch_undo(&tracker->epoch, &savepoint, &made);
        tracker->set = before;
        sp_changes_clear(&tracker->pending);
        *changed = 0;
    } else {
        sp_epoch_keep(&tracker->epoch, &savepoint);
        sp_changes_join(&tracker->changes, &tracker->pending);
        if (hastened)
            sp_tracker_settle(tracker);
    }
    sp_tracker_leave(tracker, *changed);
    return status;
}

/* A copy of a page set for the open version; of the engine that suits it, if any may do. */
static sp_status copy(sp_tracker *tracker, const sp_set *wanted, sp_set *out)
{
    sp_edit *edit = &tracker->epoch.open;
    sp_set nothing = sp_set_empty(wanted->engine);
    const sp_engine *engine = tracker->automatic ? sp_set_choose(edit->kernels, wanted)
                                                 : wanted->engine;
    return engine == wanted->engine ? sp_set_combine(edit, SP_OR, wanted, &nothing, out)
                                    : sp_set_convert(edit, wanted, engine, out);
}

/* Makes the open version hold what `target` holds; with the lock held. */
static sp_status replace(sp_tracker *tracker, const sp_pageset *target, uint64_t *changed)
{
    const sp_set *wanted = sp_pageset_set(target);
    sp_set made;
    sp_pageset *pages;
    sp_cell *cell;
    sp_status status = sp_pageset_combine(tracker->allocator, SP_XOR, &tracker->set, wanted,
                                          &pages);
    if (status)
        return status;
    uint64_t fresh = sp_set_count(sp_pageset_set(pages));
    if (fresh)
        status = sp_cell_of(&tracker->keeper, pages, &cell);
    if (!fresh || status) {
        sp_pageset_release(pages);
        return status;
    }
    uint64_t weight = sp_tracker_weight(tracker);
    status = copy(tracker, wanted, &made);
    if (status) {
        sp_cell_release(cell);
        return status;
    }
    weight = sp_tracker_weight(tracker) - weight;
    sp_set_retire(&tracker->epoch.open, &tracker->set);
    tracker->set = made;
    if (tracker->automatic)
        sp_tracker_chosen(tracker, weight);
    sp_changes_add_cell(&tracker->changes, cell);
    *changed = fresh;
    return SP_OK;
}

sp_status sp_tracker_set_list(sp_tracker *tracker, const sp_range *ranges, size_t n,
                              uint64_t *changed, size_t *bad)
{
    sp_pageset *target;
    *changed = 0;
    sp_status status = sp_pageset_from_ranges(tracker->allocator, tracker->keeper.engine, ranges, n,
                                              &target, bad);
    if (status)
        return status;
    uint64_t pages = sp_set_count(sp_pageset_set(target));
    if (pages && sp_set_select(sp_pageset_set(target), pages - 1) >= tracker->bound) {
        /* Which range it was, the caller finds out: the array may have changed meanwhile. */
        *bad = n;
        status = SP_RANGE;
    }
    if (!status)
        status = sp_tracker_enter(tracker, true);
    if (!status) {
        status = replace(tracker, target, changed);
        sp_tracker_leave(tracker, *changed);
    }
    sp_pageset_release(target);
    return status;
}
