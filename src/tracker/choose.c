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

void sp_tracker_chosen(sp_tracker *tracker)
{
    const sp_epoch *epoch = &tracker->epoch;
    tracker->turns = 0;
    tracker->due = sp_max(sp_set_nranges(epoch->open.kernels, &tracker->set) / 8, LEAST_TURNS);
    /* relaxed: the lock orders changes of the count */
    tracker->weight = sp_load(&epoch->nodes.bytes, relaxed);
    tracker->size = sp_set_count(&tracker->set);
}

void sp_tracker_choose(sp_tracker *tracker)
{
    sp_edit *edit = &tracker->epoch.open;
    const sp_engine *engine = sp_set_choose(edit->kernels, &tracker->set);
    sp_set made;
    if (engine != tracker->set.engine &&
        sp_set_convert(edit, &tracker->set, engine, &made) == SP_OK) {
        sp_set_retire(edit, &tracker->set);
        tracker->set = made;
    }
    sp_tracker_chosen(tracker);
}
