/*
 * set.h - sets of gfns: the contract that every engine fulfils.  Floor 3.
 *
 * An sp_set is a small value: an engine, a root and a height.  Copying it copies nothing; whose
 * nodes it names is said by whoever holds it (a version of a tracker, or an sp_pageset).  Reading
 * functions take const sets and may run on any number of threads beside a writer, as long as the
 * nodes are published or owned; they allocate nothing and cannot fail.
 *
 * This header is the seam between the engines and everything above.  An engine is one const table
 * (engine.h); callers see only the functions here.  Sets of two engines may meet: counting what is
 * in both makes no node, and a result is of the engine that is not of runs (mixed.c).
 *
 * Complexity: h is the tree's height (at most 6 inner levels, of runs one for each factor of 8 to
 * 32), n the leaves in what is touched.  No operation is per page.
 */
#ifndef SP_SET_SET_H
#define SP_SET_SET_H

#include "kernels/kernels.h"
#include "node/node.h"

typedef struct sp_engine sp_engine;

typedef struct sp_set {
    const sp_engine *engine;
    sp_ref root;
    uint64_t height; /* the engine's; 0 for an empty set */
} sp_set;

/* A radix tree of 64-way nodes over leaves of 2^16 pages. */
extern const sp_engine sp_engine_roaring;
/* A B+tree of runs in leaves of 512 bytes. */
extern const sp_engine sp_engine_interval;

static inline sp_set sp_set_empty(const sp_engine *engine) { return (sp_set){engine, SP_EMPTY, 0}; }

const char *sp_set_engine_name(const sp_set *set);

/* ---- reading ---- */

uint64_t sp_set_count(const sp_set *set);                                      /* O(1) */
bool sp_set_contains(const sp_set *set, uint64_t gfn);                         /* O(h) */
uint64_t sp_set_rank(const sp_set *set, uint64_t gfn);                         /* members < gfn */
uint64_t sp_set_count_range(const sp_set *set, uint64_t start, uint64_t stop); /* O(h) and inside */
/* The i-th member; i < count. */
uint64_t sp_set_select(const sp_set *set, uint64_t i);
/* Maximal runs of members, counted without listing them; O(n). */
uint64_t sp_set_nranges(const sp_kernels *k, const sp_set *set);
uint64_t sp_set_intersection(const sp_kernels *k, const sp_set *a, const sp_set *b);

/* found[i] = gfns[i] is a member. */
void sp_set_contains_many(const sp_set *set, const uint64_t *gfns, size_t n, uint8_t *found);

/* ranks[i] = members < gfns[i]; gfns[i] = the member at indexes[i].  Each element is read once, so
 * others may write them meanwhile.  Returns how many were answered: fewer than n if the next gfn is
 * above 2^52, the next index not below the count. */
size_t sp_set_rank_many(const sp_set *set, const uint64_t *gfns, size_t n, uint64_t *ranks);
size_t sp_set_select_many(const sp_set *set, const uint64_t *indexes, size_t n, uint64_t *gfns);

/* The first gfn at or after `gfn`, the last at or before it, that is a member or is none;
 * SP_GFN_LIMIT where there is no such.  gfn < SP_GFN_LIMIT.  O(h); the last that is none takes a
 * rank for each doubling of the distance to it. */
uint64_t sp_set_next(const sp_kernels *k, const sp_set *set, uint64_t gfn, bool member);
uint64_t sp_set_prev(const sp_set *set, uint64_t gfn, bool member);

/* Writes the members in [start, stop) to out, which has room for exactly their number. */
void sp_set_pages_into(const sp_kernels *k, const sp_set *set, uint64_t start, uint64_t stop,
                       uint64_t *out);

/* Writes bits start..start+npages of the set, little-endian, to ceil(npages / 64) words. */
void sp_set_bitmap_into(const sp_kernels *k, const sp_set *set, uint64_t start, uint64_t npages,
                        uint64_t *words);

/* Writes the 2^16 bits from base (a multiple of 2^16), if the engine holds them as a bitmap: else
 * false, and cursors are the quicker way. */
bool sp_set_words(const sp_set *set, uint64_t base, uint64_t *words);

/* A walk over [start, stop) that yields toggles (kernels.h) in batches. */
typedef struct sp_cursor {
    sp_set set;
    uint64_t at, stop; /* what is left to read */
    uint64_t carry;    /* membership of at - 1, 0 at the start */
} sp_cursor;

static inline sp_cursor sp_cursor_open(const sp_set *set, uint64_t start, uint64_t stop)
{
    return (sp_cursor){*set, start, stop, 0};
}

/* Writes toggles until fewer than SP_TOGGLES_ROOM of `room` (more than that) are free, and one more
 * at the end of all, and returns how many: at least one, unless it is the end.  The
 * last toggle closes a range that reaches stop, so their total is even.  A batch may end inside a
 * range; the next begins with its stop. */
size_t sp_cursor_toggles(const sp_kernels *k, sp_cursor *cursor, uint64_t *out, size_t room);

/* Maximal runs of members within [start, stop), counted by a walk; O(n). */
uint64_t sp_set_ranges_count(const sp_kernels *k, const sp_set *set, uint64_t start, uint64_t stop);
/* Writes these n runs (as counted) to out. */
void sp_set_ranges_into(const sp_kernels *k, const sp_set *set, uint64_t start, uint64_t stop,
                        sp_range *out, uint64_t n);
/* Reads on from a cursor: writes up to `room` runs to out and returns how many; 0 is the end. */
size_t sp_cursor_ranges(const sp_kernels *k, sp_cursor *cursor, sp_range *out, size_t room);

/* ---- accounting ---- */

typedef struct sp_set_stats {
    uint64_t pages, nodes, bytes;
    uint64_t inner, packed, arrays, runs, bitmaps,
        blocks;            /* leaves by kind; packed ones have no node */
    uint64_t narrow, wide; /* of the interval engine */
} sp_set_stats;

void sp_set_measure(const sp_set *set, sp_set_stats *stats);

/* Calls visit for every node born after `floor`, children before parents; visit may free the node.
 * What was born at or before the floor is not looked into: nobody has changed it since. */
void sp_set_walk(const sp_set *set, uint64_t floor, sp_node_fn visit, void *context);

/* NULL, or the name of the first invariant that the set breaks; O(bytes). */
const char *sp_set_validate(const sp_set *set);

/* ---- editing ---- */

/* Makes [start, stop) members or not; start < stop <= SP_GFN_LIMIT.  SP_NOMEM leaves the same
 * members.  O(h) and what is dropped. */
SP_MUST_CHECK sp_status sp_set_assign(sp_edit *edit, sp_set *set, uint64_t start, uint64_t stop,
                                      bool value);

/* Tries what assign does, where it is quick, and says what changed.  True: done, and *turned (whose
 * `most` the caller has set) says which gfns were not so before.  False: the same members, and
 * nothing is known; assign does it.  Not for page sets.  O(h). */
bool sp_set_turn(sp_edit *edit, sp_set *set, uint64_t start, uint64_t stop, bool value,
                 sp_turned *turned);

/* Replaces the members among the 2^16 gfns from base (a multiple of 2^16) by a bitmap's.  SP_NOMEM
 * leaves the same members.  Of runs, a step for every leaf there is. */
SP_MUST_CHECK sp_status sp_set_put_words(sp_edit *edit, sp_set *set, uint64_t base,
                                         const uint64_t *words);

/* Adds ranges, sorted by start, in bounds, none of them empty; they may overlap.  SP_NOMEM leaves a
 * part of them in.  O(n), and the path to each leaf once; of runs, O(n) and a step a leaf. */
SP_MUST_CHECK sp_status sp_set_add_sorted(sp_edit *edit, sp_set *set, const sp_range *ranges,
                                          size_t n);

/* *out = the same members, held by another engine, in new nodes.  SP_NOMEM leaves *out alone.
 * O(n). */
SP_MUST_CHECK sp_status sp_set_convert(sp_edit *edit, const sp_set *set, const sp_engine *engine,
                                       sp_set *out);

/* Takes every node of *set out of what is being edited and leaves it empty; of counted nodes
 * (node.h), those that no other set holds. */
void sp_set_retire(sp_edit *edit, sp_set *set);

/* *out = a op b.  Its nodes are new; but an edit of counted nodes (node.h) takes counted nodes of a
 * and b as they are, where the result has just these.  SP_NOMEM leaves *out alone. */
SP_MUST_CHECK sp_status sp_set_combine(sp_edit *edit, sp_op op, const sp_set *a, const sp_set *b,
                                       sp_set *out);

/* True if a op b, made or counted, looks at 64 leaves at most: too little to drop a lock for. */
bool sp_set_combine_is_short(sp_op op, const sp_set *a, const sp_set *b);

#endif
