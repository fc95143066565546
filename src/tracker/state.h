/*
 * state.h - what a tracker is made of; private to tracker/.  Floor 4.
 *
 * The open version - set, seq, changes - is the tracker's own; the epoch room keeps the published
 * ones.  Everything is under epoch.lock but the atomics and what is constant.
 */
#ifndef SP_TRACKER_STATE_H
#define SP_TRACKER_STATE_H

#include "tracker/changes.h"
#include "tracker/tracker.h"

struct sp_tracker {
    sp_epoch epoch;                /* first: the hooks cast back */
    const sp_allocator *allocator; /* constant */
    uint64_t bound;                /* constant: gfns are below it */
    sp_keeper keeper;              /* constant */
    sp_set set;                    /* the open version */
    bool automatic;                /* constant: its engine is chosen by bytes */
    uint64_t turns, due;           /* conversions since it was chosen, and before it is again */
    uint64_t weight, size;         /* bytes of nodes, and pages, when it was chosen */
    unsigned patience;             /* it was changed so often of late */
    uint64_t seq;                  /* changes committed; epoch.done_seq is its copy for readers */
    uint64_t published;            /* seq of the newest version */
    sp_changes changes;            /* converted since the newest version */
    sp_changes pending;            /* converted in the transaction under way; else empty */
    _Atomic uint64_t pages;        /* shared in the open version; written under the lock */
    _Atomic uint32_t closed;
    _Atomic uint32_t bell; /* futex of those who wait; rung under the lock */
    uint32_t waiting;      /* who sleeps on the bell */
    int fd;                /* the eventfd, or -1 */
};

static inline sp_root sp_root_of(const sp_set *set)
{
    return (sp_root){set->engine, set->root, set->height};
}

static inline sp_set sp_set_of(const sp_root *root)
{
    return (sp_set){root->engine, root->ref, root->height};
}

/* Takes the lock of a tracker that is open.  SP_BUSY, SP_CLOSED, SP_FORKED. */
SP_MUST_CHECK sp_status sp_tracker_enter(sp_tracker *tracker, bool wait);

/* Unlocks; if `changed` pages did, the change is committed first: counted, told to those who wait,
 * and published if a reader has pinned the newest version since it was published. */
void sp_tracker_leave(sp_tracker *tracker, uint64_t changed);

/* Bytes of the nodes of all versions. */
static inline uint64_t sp_tracker_weight(const sp_tracker *tracker)
{
    /* relaxed: the lock orders changes of the count */
    return sp_load(&tracker->epoch.nodes.bytes, relaxed);
}

/* True if the engine of the open version should be chosen anew: much was converted since, beside
 * what it has or had, or half of the pages or of the nodes are gone, or there are twice as many
 * nodes; one call may do that.  O(1). */
bool sp_tracker_is_due(const sp_tracker *tracker);

/* Lets the other engine hold the open version, if that takes clearly fewer bytes and memory allows.
 * What is published stays as it is.  With the lock held, and no transaction under way. */
void sp_tracker_choose(sp_tracker *tracker);
/* Lets the roaring engine make a batch of n changes, where it is chosen by bytes, and the batch is
 * long and its pages are not far apart; after it, settle chooses again.  The events are a hint: they
 * may be others when they are made.  False: it is as it was.  With the lock held. */
bool sp_tracker_hasten(sp_tracker *tracker, const sp_event *events, size_t n);
void sp_tracker_settle(sp_tracker *tracker);

/* Notes that the engine was chosen, for what the open version now holds; `weight` is that of all
 * nodes, or of its own where it was made anew, for the others are about to go. */
void sp_tracker_chosen(sp_tracker *tracker, uint64_t weight);

/* Publishes the open version if it differs from the newest one; with the lock held.  SP_NOMEM and
 * SP_LIMIT: nothing changed. */
SP_MUST_CHECK sp_status sp_tracker_publish(sp_tracker *tracker);

#endif
