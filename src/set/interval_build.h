/*
 * interval_build.h - making interval trees whole, from runs in order.  Floor 3, private to the
 * interval engine.
 *
 * Runs gather to leaves, leaves to inner nodes, and so on up.  Each tier keeps back as many nodes
 * as a parent needs at least, so that the last parent of a tier is not too small.  Leaves are
 * packed full, with no room to spare.
 *
 * A builder notes that memory was short and then does nothing; finish says so, having given up all
 * that was made.
 */
#ifndef SP_SET_INTERVAL_BUILD_H
#define SP_SET_INTERVAL_BUILD_H

#include "set/interval.h"

typedef struct sp_interval_tier {
    uint32_t n;
    sp_interval_child child[MOST_CHILDREN + LEAST_CHILDREN];
} sp_interval_tier;

typedef struct sp_interval_builder {
    sp_edit *edit;
    sp_status status;
    uint32_t n;   /* runs of the next leaf */
    uint32_t top; /* the highest tier that has had a node */
    sp_range run[SP_NARROW_MOST];
    sp_interval_tier tier[TALLEST + 1]; /* by the level of its nodes; up to top */
} sp_interval_builder;

void sp_interval_begin(sp_interval_builder *b, sp_edit *edit);
/* Adds a run that begins past the end of the last one. */
void sp_interval_put(sp_interval_builder *b, uint64_t start, uint64_t stop);
/* True if a leaf of another tree may come next, as it is. */
static inline bool sp_interval_may_take(const sp_interval_builder *b)
{
    return !b->n || b->n >= SP_LEAST_RUNS;
}
/* Adds such a leaf, which begins past the end of the last run: held once more if both trees are of
 * counted nodes, else copied. */
void sp_interval_take(sp_interval_builder *b, const sp_interval_leaf *leaf);
/* SP_NOMEM leaves *out alone. */
SP_MUST_CHECK sp_status sp_interval_finish(sp_interval_builder *b, sp_set *out);

#endif
