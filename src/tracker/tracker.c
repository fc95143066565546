/*
 * tracker.c - a tracker's life, its lock, its notifications and its accounts.  Floor 4.
 */
#define _GNU_SOURCE
#include "tracker/tracker.h"

#include <fcntl.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include "tracker/state.h"

/* ---- hooks of the epoch room ---- */

static void splice_trail(sp_epoch *epoch, sp_trail *into, sp_trail *from)
{
    (void)epoch;
    sp_trail_splice(into, from);
}

static void drop_trail(sp_epoch *epoch, sp_trail *trail)
{
    (void)epoch;
    sp_trail_drop(trail);
}

static void walk(const sp_root *root, uint64_t floor, sp_node_fn visit, void *context)
{
    sp_set set = sp_set_of(root);
    sp_set_walk(&set, floor, visit, context);
}

static void destroy(sp_epoch *epoch)
{
    sp_tracker *tracker = (sp_tracker *)epoch;
    sp_mem mem = {.allocator = tracker->allocator};
    sp_mem_free(&mem, tracker, sizeof *tracker);
}

static const sp_epoch_hooks hooks = {splice_trail, drop_trail, walk, destroy};

/* ---- life ---- */

/* Gives every page its first status, as if it had never been another. */
static sp_status begin(sp_tracker *tracker, bool shared)
{
    if (!shared || !tracker->bound)
        return SP_OK;
    sp_status status = sp_set_assign(&tracker->epoch.open, &tracker->set, 0, tracker->bound, true);
    if (status)
        return status;
    sp_root root = sp_root_of(&tracker->set);
    /* relaxed: nobody else knows the tracker yet */
    sp_store(&tracker->pages, tracker->bound, relaxed);
    return sp_epoch_publish(&tracker->epoch, &root, 0, &tracker->changes.trail);
}

sp_status sp_tracker_new(const sp_allocator *allocator, const sp_engine *engine, uint64_t npages,
                         bool shared, sp_tracker **out)
{
    if (npages > SP_GFN_LIMIT)
        return SP_RANGE;
    sp_mem mem;
    sp_mem_init(&mem, allocator);
    sp_tracker *tracker = sp_mem_zalloc(&mem, sizeof *tracker);
    if (!tracker)
        return SP_NOMEM;
    tracker->allocator = mem.allocator;
    tracker->bound = npages;
    tracker->automatic = !engine;
    tracker->set = sp_set_empty(engine ? engine : &sp_engine_interval);
    /* What was converted may be anything: without an engine it is kept by roaring's. */
    tracker->keeper = (sp_keeper){&tracker->epoch.mem, engine ? engine : &sp_engine_roaring};
    tracker->fd = -1;
    sp_root root = sp_root_of(&tracker->set);
    sp_status status = sp_epoch_init(&tracker->epoch, allocator, &hooks, &root);
    if (status) {
        sp_mem_free(&mem, tracker, sizeof *tracker);
        return status;
    }
    tracker->epoch.open.kernels = sp_kernels_active();
    status = begin(tracker, shared);
    if (status) {
        sp_tracker_free(tracker);
        return status;
    }
    *out = tracker;
    return SP_OK;
}

/* Wakes all who wait and writes the eventfd; with the lock held, so that neither is taken away
 * meanwhile.  An eventfd that is full is readable already. */
static void ring(sp_tracker *tracker)
{
    uint64_t one = 1;
    if (tracker->waiting) {
        sp_add(&tracker->bell, 1, relaxed); /* relaxed: a sleeper looks again under the lock */
        sp_word_wake(&tracker->bell, true);
    }
    if (tracker->fd >= 0)
        (void)!write(tracker->fd, &one, sizeof one);
}

sp_status sp_tracker_close(sp_tracker *tracker)
{
    sp_status status = sp_tracker_enter(tracker, true);
    if (status)
        return status == SP_CLOSED ? SP_OK : status;
    sp_store(&tracker->closed, 1, release); /* pairs with sp_tracker_is_closed */
    ring(tracker);
    if (tracker->fd >= 0)
        close(tracker->fd);
    tracker->fd = -1;
    sp_changes_clear(&tracker->changes);
    sp_root root = sp_root_of(&tracker->set);
    tracker->set = sp_set_empty(tracker->set.engine);
    sp_epoch_close(&tracker->epoch, &root, &tracker->changes.trail);
    return SP_OK;
}

void sp_tracker_free(sp_tracker *tracker)
{
    /* A child that may not change the tracker cannot take it apart either: it stays. */
    if (tracker && sp_tracker_close(tracker) == SP_OK)
        sp_epoch_leave(&tracker->epoch);
}

bool sp_tracker_is_closed(const sp_tracker *tracker)
{
    /* acquire: pairs with sp_tracker_close */
    return sp_load(&tracker->closed, acquire) != 0;
}

/* Puts an eventfd of our own in the place of the one that parent and child now share. */
static void own_fd(sp_tracker *tracker)
{
    int own = eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC);
    if (own < 0 || dup3(own, tracker->fd, O_CLOEXEC) < 0) {
        close(tracker->fd);
        tracker->fd = -1;
    }
    if (own >= 0)
        close(own);
}

void sp_tracker_after_fork(sp_tracker *tracker)
{
    if (!sp_lock_after_fork(&tracker->epoch.lock) && tracker->fd >= 0)
        own_fd(tracker);
}

/* ---- the lock ---- */

sp_status sp_tracker_enter(sp_tracker *tracker, bool wait)
{
    sp_lock *lock = &tracker->epoch.lock;
    sp_status status = sp_lock_try(lock);
    if (status == SP_BUSY && wait)
        status = sp_lock_wait(lock);
    if (!status && sp_tracker_is_closed(tracker)) {
        sp_epoch_unlock(&tracker->epoch);
        status = SP_CLOSED;
    }
    return status;
}

/* Cells of a log of conversions from which it is dropped if nobody can ask for it.  Every node is
 * then copied before it is changed again, so the log must also be COPY_COSTS times as long as there
 * are nodes, unless it is so long that its cells would have to be united. */
#define LONG_LOG 64
#define COPY_COSTS 8

static bool is_long(const sp_tracker *tracker)
{
    const sp_trail *trail = &tracker->changes.trail;
    const sp_cell *last = trail->tail;
    if (!last || (!last->pages && trail->count < LONG_LOG))
        return false;
    /* relaxed: the lock orders changes of the count */
    uint64_t nodes = sp_load(&tracker->epoch.nodes.blocks, relaxed);
    return last->pages || trail->count * SP_LOG_RANGES >= COPY_COSTS * nodes ||
           trail->count >= SP_LONG_TRAIL;
}

/* True if the log takes much memory, no reader holds an older version than the newest, and none has
 * ever pinned that: publishing anew then makes the log past, and it goes. */
static bool is_forgettable(sp_tracker *tracker)
{
    sp_epoch *epoch = &tracker->epoch;
    return is_long(tracker) && !sp_epoch_is_watched(epoch) &&
           sp_epoch_version(epoch, epoch->newest)->prev == SP_SLOT_NONE;
}

void sp_tracker_leave(sp_tracker *tracker, uint64_t changed)
{
    if (changed) {
        sp_epoch *epoch = &tracker->epoch;
        tracker->seq++;
        sp_store(&tracker->pages, sp_set_count(&tracker->set), relaxed); /* relaxed: a number */
        /* release: pairs with the load in sp_tracker_snapshot */
        sp_store(&epoch->done_seq, tracker->seq, release);
        bool forget = is_forgettable(tracker);
        if (!forget)
            sp_trail_shorten(&tracker->changes.trail);
        /* Bounds how far latest() lags.  If it cannot be had, the next snapshot() tries again. */
        if (forget || sp_epoch_is_watched(epoch))
            (void)!sp_tracker_publish(tracker);
        ring(tracker);
    }
    sp_epoch_unlock(&tracker->epoch);
}

/* ---- the present ---- */

sp_status sp_tracker_contains(sp_tracker *tracker, uint64_t gfn, bool wait, bool *shared)
{
    sp_status status = sp_tracker_enter(tracker, wait);
    if (status)
        return status;
    *shared = sp_set_contains(&tracker->set, gfn);
    sp_tracker_leave(tracker, 0);
    return SP_OK;
}

uint64_t sp_tracker_count(const sp_tracker *tracker)
{
    return sp_load(&tracker->pages, relaxed); /* relaxed: one number, ordered by nothing */
}

uint64_t sp_tracker_epoch(const sp_tracker *tracker)
{
    return sp_load(&tracker->epoch.done_seq, acquire); /* as in sp_tracker_snapshot */
}

uint64_t sp_tracker_bound(const sp_tracker *tracker) { return tracker->bound; }

uint64_t sp_tracker_bytes(const sp_tracker *tracker)
{
    /* relaxed: statistics */
    return sizeof *tracker + sp_load(&tracker->epoch.nodes.bytes, relaxed) +
           sp_load(&tracker->epoch.mem.bytes, relaxed);
}

sp_status sp_tracker_measure(sp_tracker *tracker, sp_tracker_stats *stats)
{
    sp_status status = sp_tracker_enter(tracker, true);
    if (status)
        return status;
    sp_epoch *epoch = &tracker->epoch;
    /* Drops what is only in the newest version because nothing was published since. */
    (void)!sp_tracker_publish(tracker);
    sp_epoch_collect(epoch);
    *stats = (sp_tracker_stats){.engine = sp_set_engine_name(&tracker->set), .epoch = tracker->seq};
    sp_set_measure(&tracker->set, &stats->set);
    stats->ranges = sp_set_nranges(epoch->open.kernels, &tracker->set);
    stats->live_nodes = sp_load(&epoch->nodes.blocks, relaxed); /* relaxed: statistics */
    stats->live_bytes = sp_load(&epoch->nodes.bytes, relaxed);
    stats->trail = tracker->changes.trail.count + tracker->changes.n;
    for (sp_slot s = epoch->newest; s != SP_SLOT_NONE; s = sp_epoch_version(epoch, s)->prev) {
        stats->versions++;
        stats->trail += sp_epoch_version(epoch, s)->trail.count;
    }
    sp_tracker_leave(tracker, 0);
    return SP_OK;
}

sp_status sp_tracker_validate(sp_tracker *tracker, const char **reason)
{
    sp_status status = sp_tracker_enter(tracker, true);
    if (status)
        return status;
    *reason = sp_set_validate(&tracker->set);
    if (!*reason && sp_set_count(&tracker->set) != sp_tracker_count(tracker))
        *reason = "a tracker miscounts its pages";
    sp_tracker_leave(tracker, 0);
    return SP_OK;
}

/* ---- notification ---- */

sp_status sp_tracker_fd(sp_tracker *tracker, int *fd)
{
    sp_status status = sp_tracker_enter(tracker, true);
    if (status)
        return status;
    if (tracker->fd < 0)
        tracker->fd = eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC);
    *fd = tracker->fd;
    sp_tracker_leave(tracker, 0);
    return *fd < 0 ? SP_NOMEM : SP_OK;
}

sp_status sp_tracker_wait(sp_tracker *tracker, uint64_t epoch, int64_t timeout_ns, uint64_t *now)
{
    int64_t deadline_ns = sp_deadline_ns(timeout_ns);
    sp_status slept = SP_OK, status = sp_tracker_enter(tracker, true);
    if (status)
        return status;
    tracker->waiting++;
    while (!status && tracker->seq <= epoch && !slept && !sp_tracker_is_closed(tracker)) {
        /* relaxed: rung under the lock that we hold, so a later change moves it */
        uint32_t seen = sp_load(&tracker->bell, relaxed);
        sp_epoch_unlock(&tracker->epoch);
        slept = sp_word_wait(&tracker->bell, seen, deadline_ns);
        status = sp_lock_wait(&tracker->epoch.lock);
    }
    if (status)
        return status;
    tracker->waiting--;
    *now = tracker->seq;
    if (sp_tracker_is_closed(tracker))
        status = SP_CLOSED;
    else if (*now <= epoch)
        status = SP_AGAIN;
    sp_epoch_unlock(&tracker->epoch);
    return status;
}
