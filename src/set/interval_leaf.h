/*
 * interval_leaf.h - a leaf of the interval engine: a sorted list of runs in one node.  Floor 3.
 *
 * A narrow leaf has a base and, for each run, the distances of its start and stop from there, 32
 * bits each: 60 runs in 512 bytes, less than 16 TiB apart.  A wide leaf has 64-bit starts and
 * stops, and 30 runs.  A leaf is made narrow if its runs allow it; one that is wide stays so until
 * it is made anew.
 *
 * Runs are disjoint, do not touch, ascend, and `pages` is their sum.  A node is as large as its
 * runs need, and a little larger where it grew, so a guest of a few runs takes few bytes.
 */
#ifndef SP_SET_INTERVAL_LEAF_H
#define SP_SET_INTERVAL_LEAF_H

#include "set/engine.h"

#define SP_NARROW_MOST 60u
#define SP_WIDE_MOST 30u
/* A leaf with fewer takes in its neighbour; two halves of one run too many have as many. */
#define SP_LEAST_RUNS 15u

typedef struct sp_narrow_run {
    uint32_t start, stop;
} sp_narrow_run;

typedef struct sp_interval_leaf {
    sp_node head;
    uint64_t base; /* narrow: at or before the first run; wide: 0 */
    uint64_t n : 8;
    uint64_t pages : 56;
} sp_interval_leaf; /* the runs follow: sp_narrow_run or sp_range */

#define SP_INTERVAL_LEAF_BYTES 512u

_Static_assert(sizeof(sp_interval_leaf) + SP_NARROW_MOST * sizeof(sp_narrow_run) ==
                   SP_INTERVAL_LEAF_BYTES,
               "60 runs fill a leaf");
_Static_assert(sizeof(sp_interval_leaf) + SP_WIDE_MOST * sizeof(sp_range) == SP_INTERVAL_LEAF_BYTES,
               "30 wide runs fill a leaf");

/* How a change edits a list: runs [i, j) go, n others come in their place, and there are `pages`
 * more members; a change of none changes nothing. */
typedef struct sp_interval_splice {
    unsigned i, j, n;
    sp_range run[2];
    int64_t pages;
} sp_interval_splice;

static inline bool sp_interval_is_wide(const sp_interval_leaf *leaf)
{
    return sp_node_kind(&leaf->head) == SP_KIND_WIDE;
}

static inline sp_narrow_run *sp_narrow_runs(const sp_interval_leaf *leaf)
{
    return (sp_narrow_run *)(leaf + 1);
}
static inline sp_range *sp_wide_runs(const sp_interval_leaf *leaf)
{
    return (sp_range *)(leaf + 1);
}

static inline sp_range sp_interval_run(const sp_interval_leaf *leaf, unsigned i)
{
    if (sp_interval_is_wide(leaf))
        return sp_wide_runs(leaf)[i];
    sp_narrow_run run = sp_narrow_runs(leaf)[i];
    return (sp_range){leaf->base + run.start, leaf->base + run.stop};
}

/* The stop of its last run. */
static inline uint64_t sp_interval_end(const sp_interval_leaf *leaf)
{
    return sp_interval_run(leaf, leaf->n - 1u).stop;
}

/* The first run that ends after gfn; n if none does. */
unsigned sp_interval_find(const sp_interval_leaf *leaf, uint64_t gfn);
/* Copies runs [i, i + n) to out. */
void sp_interval_copy(const sp_interval_leaf *leaf, unsigned i, unsigned n, sp_range *out);
/* Members below gfn. */
uint64_t sp_interval_below(const sp_interval_leaf *leaf, uint64_t gfn);
/* The i-th member; i < pages. */
uint64_t sp_interval_member(const sp_interval_leaf *leaf, uint64_t i);
/* NULL, or what the leaf breaks. */
const char *sp_interval_leaf_validate(const sp_interval_leaf *leaf);

/* Runs that a leaf of one list can have which begins and ends so. */
static inline unsigned sp_interval_most(uint64_t start, uint64_t stop)
{
    return stop - start <= UINT32_MAX ? SP_NARROW_MOST : SP_WIDE_MOST;
}

/* A leaf of n runs, as many as it may have at most, with room for `room` at least.  NULL if memory
 * is short. */
sp_interval_leaf *sp_interval_leaf_new(sp_edit *edit, const sp_range *runs, unsigned n,
                                       unsigned room);

/* The same runs, with room for `room` at least, n included.  NULL if memory is short. */
sp_interval_leaf *sp_interval_leaf_resize(sp_edit *edit, const sp_interval_leaf *leaf,
                                          unsigned room);

/* What making [start, stop) members or not does to the leaf alone. */
void sp_interval_splice_of(const sp_interval_leaf *leaf, uint64_t start, uint64_t stop, bool value,
                           sp_interval_splice *s);
/* True if the runs are those of a leaf of the same kind and base, given room. */
bool sp_interval_keeps(const sp_interval_leaf *leaf, const sp_interval_splice *s);
void sp_interval_apply(sp_interval_leaf *leaf, const sp_interval_splice *s);
/* The runs of a spliced leaf, at most two more than it has; returns how many. */
unsigned sp_interval_spliced(const sp_interval_leaf *leaf, const sp_interval_splice *s,
                             sp_range *out);
/* Runs that the leaf's node has room for. */
static inline unsigned sp_interval_room(const sp_interval_leaf *leaf)
{
    size_t bytes = sp_node_bytes(&leaf->head) - sizeof *leaf;
    return (unsigned)(bytes /
                      (sp_interval_is_wide(leaf) ? sizeof(sp_range) : sizeof(sp_narrow_run)));
}

#endif
