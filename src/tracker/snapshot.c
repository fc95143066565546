/*
 * snapshot.c - versions of a tracker as readers see them.  Floor 4.
 *
 * snapshot() is linearizable: it reads done_seq, pins the newest version, and returns it if it
 * holds every change counted then.  Otherwise it publishes the open version under the lock and
 * pins that.
 */
#include "tracker/state.h"

/* Makes the open version the newest one, whether or not it differs; with the lock held. */
static sp_status publish(sp_tracker *tracker)
{
    if (sp_tracker_is_due(tracker))
        sp_tracker_choose(tracker);
    sp_status status = sp_changes_flush(&tracker->changes, &tracker->keeper);
    if (status)
        return status;
    sp_root root = sp_root_of(&tracker->set);
    status = sp_epoch_publish(&tracker->epoch, &root, tracker->seq, &tracker->changes.trail);
    if (!status)
        tracker->published = tracker->seq;
    return status;
}

sp_status sp_tracker_publish(sp_tracker *tracker)
{
    return tracker->published == tracker->seq ? SP_OK : publish(tracker);
}

static sp_status pin(sp_tracker *tracker, sp_snapshot *out)
{
    bool crowded;
    sp_slot slot = sp_epoch_acquire(&tracker->epoch, &crowded);
    if (slot == SP_SLOT_NONE)
        return SP_CLOSED;
    *out = (sp_snapshot){tracker, slot};
    if (crowded && sp_tracker_enter(tracker, false) == SP_OK) {
        /* 2^46 pins of one version: publish it anew before the count runs over. */
        (void)!publish(tracker);
        sp_tracker_leave(tracker, 0);
    }
    return SP_OK;
}

sp_status sp_tracker_latest(sp_tracker *tracker, sp_snapshot *out) { return pin(tracker, out); }

sp_status sp_tracker_snapshot(sp_tracker *tracker, bool wait, sp_snapshot *out)
{
    /* acquire: pairs with the store in sp_tracker_leave; a change that had returned before this
     * call is counted in it */
    uint64_t seen = sp_load(&tracker->epoch.done_seq, acquire);
    sp_status status = pin(tracker, out);
    if (status || sp_epoch_version(&tracker->epoch, out->slot)->seq >= seen)
        return status;
    sp_epoch_release(&tracker->epoch, out->slot);
    status = sp_tracker_enter(tracker, wait);
    if (status)
        return status;
    status = sp_tracker_publish(tracker);
    if (!status)
        status = pin(tracker, out);
    sp_tracker_leave(tracker, 0);
    return status;
}

sp_snapshot sp_snapshot_retain(const sp_snapshot *snapshot)
{
    sp_epoch_retain(&snapshot->tracker->epoch, snapshot->slot);
    return *snapshot;
}

void sp_snapshot_release(sp_snapshot *snapshot)
{
    sp_epoch_release(&snapshot->tracker->epoch, snapshot->slot);
    snapshot->tracker = NULL;
}

sp_set sp_snapshot_set(const sp_snapshot *snapshot)
{
    return sp_set_of(&sp_epoch_version(&snapshot->tracker->epoch, snapshot->slot)->root);
}

uint64_t sp_snapshot_epoch(const sp_snapshot *snapshot)
{
    return sp_epoch_version(&snapshot->tracker->epoch, snapshot->slot)->seq;
}

/* ---- what was converted ---- */

/* Retains the cells of all versions after `older` up to `newer`, whether their versions are still
 * held or only not yet killed; with the lock held. */
static sp_status gather(sp_epoch *epoch, sp_slot newer, sp_slot older, sp_cell ***out, size_t *n)
{
    uint64_t count = 0;
    for (sp_slot s = newer; s != older; s = sp_epoch_version(epoch, s)->prev)
        count += sp_epoch_version(epoch, s)->trail.count;
    sp_cell **cells = sp_mem_alloc(&epoch->mem, (count + 1) * sizeof *cells);
    if (!cells)
        return SP_NOMEM;
    *n = 0;
    for (sp_slot s = newer; s != older; s = sp_epoch_version(epoch, s)->prev) {
        for (sp_cell *cell = sp_epoch_version(epoch, s)->trail.head; cell; cell = cell->next) {
            sp_add(&cell->refs, 1, relaxed); /* relaxed: the trail's own reference holds it */
            cells[(*n)++] = cell;
        }
    }
    *out = cells;
    return SP_OK;
}

sp_status sp_snapshot_converted(const sp_snapshot *newer, const sp_snapshot *older,
                                sp_pageset **out)
{
    sp_tracker *tracker = newer->tracker;
    sp_epoch *epoch = &tracker->epoch;
    sp_cell **cells;
    size_t n;
    if (older->tracker != tracker || sp_epoch_version(epoch, older->slot)->generation >
                                         sp_epoch_version(epoch, newer->slot)->generation)
        return SP_INVALID;
    sp_status status = sp_lock_wait(&epoch->lock);
    if (status)
        return status;
    status = gather(epoch, newer->slot, older->slot, &cells, &n);
    sp_epoch_unlock(epoch);
    if (status)
        return status;
    status = sp_cells_unite(&tracker->keeper, cells, n, out);
    sp_mem_free(&epoch->mem, cells, (n + 1) * sizeof *cells);
    return status;
}
