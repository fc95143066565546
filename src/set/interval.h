/*
 * interval.h - the nodes of the interval engine; private to it.  Floor 3.
 *
 * A B+tree of disjoint runs that do not touch, in order.  A ref at level 0 is a leaf of runs
 * (interval_leaf.h), at level l an inner node, which holds for each child its first gfn, its pages
 * and its runs.  A root is a node, or EMPTY, or FULL, which is every gfn below 2^52; the set's
 * height is the level of its root.
 *
 * Invariants: nodes are filled as the constants below say, a root excepted: an inner root has two
 * children at least, a leaf one run.  `first` is the start of a child's first run, exactly.  A set
 * of one run that is every gfn is FULL.  What is below a node of ours may be another's, what is
 * above it is ours.
 */
#ifndef SP_SET_INTERVAL_H
#define SP_SET_INTERVAL_H

#include "set/engine.h"
#include "set/interval_leaf.h"
#include "set/interval_search.h"

/* An inner node of 32 children is 1,056 bytes: what the first write after a snapshot copies at each
 * level.  Twice as many would save half a byte a run. */
#define MOST_CHILDREN 32u
#define LEAST_CHILDREN 8u

/* 2^51 runs, 15 in each leaf, 8 leaves or nodes in each node. */
#define TALLEST 17u

typedef struct sp_interval_child {
    uint64_t first;
    sp_ref ref;
    uint64_t pages, runs;
} sp_interval_child;

typedef struct sp_interval_inner {
    sp_node head;
    uint64_t n;
    uint64_t pages; /* of all children */
    sp_interval_child child[];
} sp_interval_inner;

static inline sp_interval_inner *inner_of(sp_ref ref)
{
    return (sp_interval_inner *)sp_ref_node(ref);
}

static inline sp_interval_leaf *leaf_of(sp_ref ref) { return (sp_interval_leaf *)sp_ref_node(ref); }

/* The child that gfn is in, or after, or before if it is the first. */
static inline unsigned child_at(const sp_interval_inner *inner, uint64_t gfn)
{
    uint32_t stride = sizeof *inner->child / sizeof inner->child->first;
    unsigned at = sp_search_64(&inner->child->first, stride, (uint32_t)inner->n, gfn);
    return at ? at - 1 : 0;
}

/* A way from the root to a leaf. */
typedef struct sp_interval_path {
    sp_ref node[TALLEST + 1]; /* by level */
    uint32_t at[TALLEST + 1]; /* at[l], l > 0: which child of node[l] is node[l - 1] */
} sp_interval_path;

#define NO_LEAF UINT64_MAX

/* The way to the leaf that gfn is in, or after, or before if it is the first.  Returns where the
 * next leaf begins, or NO_LEAF.  The root is a node. */
uint64_t sp_interval_seek(const sp_set *set, uint64_t gfn, sp_interval_path *path);
/* Leads on to the next node of a level, or the one before; false, and the same path, if there is
 * none.  The path below that level is left as it was. */
bool sp_interval_forth(sp_interval_path *path, uint64_t height, unsigned level);
bool sp_interval_back(sp_interval_path *path, uint64_t height, unsigned level);

uint64_t sp_interval_count(const sp_set *set);
uint64_t sp_interval_runs(const sp_set *set);
uint64_t sp_interval_rank(const sp_set *set, uint64_t gfn);

/* Takes every node below and at ref out of the set; of counted ones, what nobody else holds. */
void sp_interval_drop(sp_edit *edit, sp_ref ref, uint64_t level);
void sp_interval_drop_set(sp_edit *edit, const sp_set *set);

/* ---- making nodes: at most so many children, of n items; NULL or SP_NOMEM leaves nothing ---- */

/* Leaves of one list of runs in a change: 60 of either edge and 2 between, held wide. */
#define MOST_SPLIT 5u
#define MOST_ITEMS (2u * SP_NARROW_MOST + 2u)

SP_MUST_CHECK sp_status sp_interval_leaves(sp_edit *edit, const sp_range *runs, unsigned n,
                                           sp_interval_child *made, unsigned *count);
SP_MUST_CHECK sp_status sp_interval_inners(sp_edit *edit, const sp_interval_child *children,
                                           unsigned n, sp_interval_child *made, unsigned *count);

/* ---- the rest of the table ---- */

sp_status sp_interval_assign(sp_edit *edit, sp_set *set, uint64_t start, uint64_t stop, bool value);
bool sp_interval_turn(sp_edit *edit, sp_set *set, uint64_t start, uint64_t stop, bool value,
                      sp_turned *turned);
/* assign for what changes more than one leaf, or the tree. */
sp_status sp_interval_rebuild(sp_edit *edit, sp_set *set, uint64_t start, uint64_t stop,
                              bool value);
sp_status sp_interval_put_words(sp_edit *edit, sp_set *set, uint64_t base, const uint64_t *words);
sp_status sp_interval_add_sorted(sp_edit *edit, sp_set *set, const sp_range *ranges, size_t n);
sp_status sp_interval_load(sp_edit *edit, sp_cursor *from, sp_set *out);
sp_status sp_interval_combine(sp_edit *edit, sp_op op, const sp_set *a, const sp_set *b,
                              sp_set *out);
uint64_t sp_interval_intersection(const sp_kernels *k, const sp_set *a, const sp_set *b);

#endif
