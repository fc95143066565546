/*
 * tracker.h - which guest pages are shared, now and at every snapshot.  Floor 4; the only room that
 * knows sets and epochs both.
 *
 * A tracker is changed by one call at a time, under its lock; snapshots are taken and released by
 * any thread without it.  Functions with a `wait` argument return SP_BUSY at once instead of
 * sleeping on the lock when it is false, so that a caller can first let go of a lock of its own.
 *
 * Errors leave the tracker as it was: same members, same epoch.  SP_CLOSED after sp_tracker_close,
 * SP_FORKED in a child whose parent was changing the tracker at the fork, SP_RANGE for gfns at or
 * beyond the bound, SP_INVALID for an inverted range or an event that is neither 0 nor 1.
 * Arrays belong to the caller and may be written by others meanwhile: each element is read once.
 */
#ifndef SP_TRACKER_TRACKER_H
#define SP_TRACKER_TRACKER_H

#include "base/status.h"
#include "epoch/epoch.h"
#include "set/pageset.h"

typedef struct sp_tracker sp_tracker;

/* One conversion of [start, start + npages); the layout of EVENT_DTYPE. */
typedef struct sp_event {
    uint64_t start;
    uint64_t npages;
    uint8_t shared; /* 1: to shared, 0: to private */
} sp_event;

_Static_assert(sizeof(sp_event) == 24, "EVENT_DTYPE is 24 bytes");

/* A pinned version.  A value: copy it only with sp_snapshot_retain. */
typedef struct sp_snapshot {
    sp_tracker *tracker;
    sp_slot slot;
} sp_snapshot;

/* `npages` bounds the guest (at most 2^52); `shared` is the status of every page at first.  An
 * engine of NULL is the interval engine, until roaring's takes fewer bytes, and back: whichever
 * holds the set clearly smaller, as found out now and then when a version is published. */
SP_MUST_CHECK sp_status sp_tracker_new(const sp_allocator *allocator, const sp_engine *engine,
                                       uint64_t npages, bool shared, sp_tracker **out);
/* Ends the tracker for everybody; snapshots stay.  Closing twice is nothing. */
SP_MUST_CHECK sp_status sp_tracker_close(sp_tracker *tracker);
/* Closes, and gives the tracker up; its memory goes when the last snapshot does. */
void sp_tracker_free(sp_tracker *tracker);

/* ---- changes; *changed is the number of pages whose status changed ---- */

/* Converts [start, start + npages).  O(height) and what is dropped below the range; nothing is
 * copied if nothing changes. */
SP_MUST_CHECK sp_status sp_tracker_convert(sp_tracker *tracker, uint64_t start, uint64_t npages,
                                           bool shared, bool wait, uint64_t *changed);
/* The same, and *pages is the set of pages that changed. */
SP_MUST_CHECK sp_status sp_tracker_convert_list(sp_tracker *tracker, uint64_t start,
                                                uint64_t npages, bool shared, uint64_t *changed,
                                                sp_pageset **pages);
/* Converts in order, all or nothing, as one change.  On SP_RANGE and SP_INVALID *bad is the index
 * of the event.  A page converted twice counts twice; the count stops at 2^64 - 1. */
SP_MUST_CHECK sp_status sp_tracker_apply(sp_tracker *tracker, const sp_event *events, size_t n,
                                         uint64_t *changed, size_t *bad);
/* Makes the shared pages exactly those of the ranges, in any order. */
SP_MUST_CHECK sp_status sp_tracker_set_list(sp_tracker *tracker, const sp_range *ranges, size_t n,
                                            uint64_t *changed, size_t *bad);

/* ---- the present ---- */

SP_MUST_CHECK sp_status sp_tracker_contains(sp_tracker *tracker, uint64_t gfn, bool wait,
                                            bool *shared);
uint64_t sp_tracker_count(const sp_tracker *tracker); /* shared pages; wait-free */
uint64_t sp_tracker_epoch(const sp_tracker *tracker); /* committed changes; wait-free */
uint64_t sp_tracker_bound(const sp_tracker *tracker); /* constant */
uint64_t sp_tracker_bytes(const sp_tracker *tracker); /* live in all versions; wait-free */
bool sp_tracker_is_closed(const sp_tracker *tracker);

typedef struct sp_tracker_stats {
    sp_set_stats set; /* of the open version: reachable nodes */
    const char *engine;
    uint64_t epoch, ranges;
    uint64_t live_nodes, live_bytes; /* nodes of all versions */
    uint64_t versions;               /* linked: the newest and those held */
    uint64_t trail;                  /* elements of the logs of conversions */
} sp_tracker_stats;

/* Frees what garbage there is, then counts.  O(nodes), under the lock. */
SP_MUST_CHECK sp_status sp_tracker_measure(sp_tracker *tracker, sp_tracker_stats *stats);

/* *reason is NULL, or the first invariant that the open version breaks. */
SP_MUST_CHECK sp_status sp_tracker_validate(sp_tracker *tracker, const char **reason);

/* ---- snapshots ---- */

/* Everything that had returned before the call.  Wait-free unless something changed since the last
 * publication.  SP_LIMIT if 65,534 versions beside the newest are pinned. */
SP_MUST_CHECK sp_status sp_tracker_snapshot(sp_tracker *tracker, bool wait, sp_snapshot *out);
/* The newest published version; wait-free, may lag behind. */
SP_MUST_CHECK sp_status sp_tracker_latest(sp_tracker *tracker, sp_snapshot *out);
sp_snapshot sp_snapshot_retain(const sp_snapshot *snapshot);
/* Never waits. */
void sp_snapshot_release(sp_snapshot *snapshot);
sp_set sp_snapshot_set(const sp_snapshot *snapshot);
uint64_t sp_snapshot_epoch(const sp_snapshot *snapshot);

/* The pages converted after `older` and up to `newer`, flips there and back included.  SP_INVALID
 * if they are of two trackers or the wrong way round.  Proportional to what was converted; works on
 * snapshots of a closed tracker. */
SP_MUST_CHECK sp_status sp_snapshot_converted(const sp_snapshot *newer, const sp_snapshot *older,
                                              sp_pageset **out);

/* ---- notification ---- */

/* An eventfd that every later change writes; the same at every call.  SP_NOMEM if there is none. */
SP_MUST_CHECK sp_status sp_tracker_fd(sp_tracker *tracker, int *fd);
/* Sleeps until the epoch is beyond `epoch`, at most timeout_ns (negative: for ever).  *now is the
 * epoch then; SP_AGAIN when time is up or a signal came, SP_CLOSED when the tracker was closed. */
SP_MUST_CHECK sp_status sp_tracker_wait(sp_tracker *tracker, uint64_t epoch, int64_t timeout_ns,
                                        uint64_t *now);

/* To be called in the child after a fork: if another thread was changing the tracker, every later
 * change returns SP_FORKED. */
void sp_tracker_after_fork(sp_tracker *tracker);

#endif
