/*
 * choose.c - a tracker whose engine is chosen by bytes.  Floor 4.
 *
 * Such a tracker begins with runs.  At a publication, once it has converted an eighth as many times
 * as it has runs, or its nodes have doubled or halved, it estimates what the other engine would
 * take, and changes if that is clearly less.  The new tree is made beside the old one, of nodes of
 * the open version; the old one is retired as any node is, so versions that are held keep it, and
 * their engine.
 */
#include "set/choice.h"
#include "tracker/state.h"

/* Conversions before the first look, and between any two: a look at a few runs takes as long as a
 * few conversions. */
#define LEAST_TURNS 64

/* Events of a batch from which on, and for each run of the set half of one, the roaring engine makes
 * the changes, in a half to a quarter of the time: it is worth going there and back. */
#define LONG_BATCH 1024
/* So many events for each lowest inner node of its tree, or there may be more nodes than pages. */
#define NODE_EVENTS 16

/* A set that either engine holds about as well goes to and fro as it changes, and each time costs
 * what a few thousand conversions do.  Each change of engine doubles the time to the next look,
 * until that is two conversions for each run, or the set has become another one. */
#define MOST_PATIENCE 4u

/* Conversions after which to look at a set of so many runs again. */
static uint64_t due_of(const sp_tracker *tracker, uint64_t runs)
{
    return sp_max(runs / 8, LEAST_TURNS) << tracker->patience;
}

void sp_tracker_chosen(sp_tracker *tracker, uint64_t weight)
{
    tracker->turns = 0;
    tracker->due = due_of(tracker, sp_set_nranges(tracker->epoch.open.kernels, &tracker->set));
    tracker->weight = weight;
    tracker->size = sp_set_count(&tracker->set);
}

/* Fewer runs than there were, which are counted without a walk: the nodes of versions that are held
 * hide that those of the open one are few. */
static bool has_shrunk(const sp_tracker *tracker)
{
    const sp_set *set = &tracker->set;
    return set->engine == &sp_engine_interval && tracker->turns >= LEAST_TURNS &&
           tracker->turns >= due_of(tracker, sp_set_nranges(tracker->epoch.open.kernels, set));
}

bool sp_tracker_is_due(const sp_tracker *tracker)
{
    if (!tracker->automatic)
        return false;
    uint64_t weight = sp_tracker_weight(tracker);
    return tracker->turns >= tracker->due || sp_set_count(&tracker->set) < tracker->size / 2 ||
           weight < tracker->weight / 2 || weight > 2 * tracker->weight + 1024 ||
           has_shrunk(tracker);
}

/* Holds the open version by another engine, if memory allows; *weight is that of its nodes. */
static bool change_engine(sp_tracker *tracker, const sp_engine *engine, uint64_t *weight)
{
    sp_edit *edit = &tracker->epoch.open;
    uint64_t before = sp_tracker_weight(tracker);
    sp_set made;
    if (sp_set_convert(edit, &tracker->set, engine, &made) != SP_OK)
        return false;
    *weight = sp_tracker_weight(tracker) - before;
    sp_set_retire(edit, &tracker->set);
    tracker->set = made;
    return true;
}

void sp_tracker_choose(sp_tracker *tracker)
{
    const sp_engine *engine = sp_set_choose(tracker->epoch.open.kernels, &tracker->set);
    if (tracker->turns < tracker->due)
        tracker->patience = 0; /* looked at because its size is another */
    uint64_t weight = sp_tracker_weight(tracker);
    if (engine != tracker->set.engine && change_engine(tracker, engine, &weight))
        tracker->patience += tracker->patience < MOST_PATIENCE;
    sp_tracker_chosen(tracker, weight);
}

/* The last gfn that is of another status than the one before it; 0 if all are of one. */
static uint64_t last_flip(const sp_set *set)
{
    uint64_t last = SP_GFN_LIMIT - 1;
    uint64_t other = sp_set_prev(set, last, !sp_set_contains(set, last));
    return other == SP_GFN_LIMIT ? 0 : other + 1;
}

/* True if the lowest inner nodes up to the last page in question are few beside the batch. */
static bool is_dense(const sp_set *set, const sp_event *events, size_t n)
{
    enum { NODE_BITS = 22 };
    uint64_t most = (uint64_t)n / NODE_EVENTS << NODE_BITS, stop = last_flip(set);
    for (size_t i = 0; i < n && stop <= most; i++)
        stop = sp_max(stop, SP_READ_ONCE(events[i].start));
    return stop <= most;
}

bool sp_tracker_hasten(sp_tracker *tracker, const sp_event *events, size_t n)
{
    const sp_set *set = &tracker->set;
    uint64_t weight;
    if (!tracker->automatic || set->engine != &sp_engine_interval || n < LONG_BATCH)
        return false;
    return sp_set_nranges(tracker->epoch.open.kernels, set) <= 2 * (uint64_t)n &&
           is_dense(set, events, n) && change_engine(tracker, &sp_engine_roaring, &weight);
}

void sp_tracker_settle(sp_tracker *tracker)
{
    unsigned patience = tracker->patience;
    sp_tracker_choose(tracker);
    tracker->patience = patience; /* going there and back was no change of mind */
}
