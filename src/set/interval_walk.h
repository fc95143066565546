/*
 * interval_walk.h - the runs of an interval tree one after the other, with jumps.  Floor 3, private
 * to the interval engine.
 */
#ifndef SP_SET_INTERVAL_WALK_H
#define SP_SET_INTERVAL_WALK_H

#include "set/interval.h"

#define NO_RUN UINT64_MAX

/* The present run, which ends the walk if its start is NO_RUN.  Its start may have been moved up by
 * sp_walk_pass; it is then no longer that of the leaf's run. */
typedef struct sp_walk {
    const sp_set *set;
    const sp_interval_leaf *leaf; /* NULL: the set has no node, or the walk is over */
    unsigned i;
    sp_range run;
    sp_interval_path path;
} sp_walk;

void sp_walk_open(sp_walk *walk, const sp_set *set);
void sp_walk_next_leaf(sp_walk *walk);

static inline void sp_walk_next(sp_walk *walk)
{
    if (walk->leaf && ++walk->i < walk->leaf->n)
        walk->run = sp_interval_run(walk->leaf, walk->i);
    else
        sp_walk_next_leaf(walk);
}

/* Goes on to the first run that ends after gfn, which may be the present one. */
void sp_walk_seek(sp_walk *walk, uint64_t gfn);

/* The same, and what of that run lies before gfn is passed over. */
static inline void sp_walk_pass(sp_walk *walk, uint64_t gfn)
{
    sp_walk_seek(walk, gfn);
    walk->run.start = sp_max(walk->run.start, gfn);
}

#endif
