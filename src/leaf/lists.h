/*
 * lists.h - leaves as lists of runs, and lists that meet bitmaps; private to leaf/.  Floor 2.
 *
 * Every leaf that is not a bitmap can be looked at as a list of runs, disjoint and not adjacent.  A
 * change of a list is a splice: what is to be put in the place of which runs.  It is found first,
 * and carried out after: between the two, room can be made for it, and what changes be told.
 *
 * Nothing here allocates but sp_mixed_cut.
 */
#ifndef SP_LEAF_LISTS_H
#define SP_LEAF_LISTS_H

#include "leaf/kinds.h"
#include "leaf/search.h"

/* ---- runs.c ---- */

/* What setting [first, last] to a value does to a list: put[0..puts) replace runs [i, j). */
typedef struct sp_splice {
    uint32_t i, j, puts;
    sp_run put[2];
    int32_t delta; /* pages gained */
} sp_splice;

void sp_runs_splice(const sp_run *runs, uint32_t n, uint32_t first, uint32_t last, bool value,
                    sp_splice *out);

/* Carries a splice out; runs has room for the result.  Returns the new length. */
uint32_t sp_runs_apply(sp_run *runs, uint32_t n, const sp_splice *splice);

uint32_t sp_runs_pages(const sp_run *runs, uint32_t n);

/* The index of the first run whose last is >= page. */
static inline uint32_t sp_runs_find(const sp_run *runs, uint32_t n, uint32_t page)
{
    return sp_count_below(&runs->last, 2, n, page);
}

/* The same from run i on, where it is likely to be near. */
uint32_t sp_runs_skip(const sp_run *runs, uint32_t n, uint32_t i, uint32_t page);

/* The index of the first value >= page. */
static inline uint32_t sp_values_find(const uint16_t *values, uint32_t n, uint32_t page)
{
    return sp_count_below(values, 1, n, page);
}

/* A leaf that is not a bitmap as a list of runs: a view where it is one, else written to scratch
 * (SP_MAX_VALUES entries). */
uint32_t sp_leaf_runs(sp_ref leaf, const sp_run **runs, sp_run scratch[SP_MAX_VALUES]);

/* out = a op b (up to na + nb + 1 runs).  Returns their number. */
uint32_t sp_runs_combine(sp_op op, const sp_run *a, uint32_t na, const sp_run *b, uint32_t nb,
                         sp_run *out);

/* |a AND b|. */
uint32_t sp_runs_intersection(const sp_run *a, uint32_t na, const sp_run *b, uint32_t nb);

/* ---- mixed.c ---- */

/* Pages of the runs that the bitmap has. */
uint32_t sp_mixed_count(const sp_kernels *k, const sp_bitmap *bitmap, const sp_run *runs,
                        uint32_t n);

/* A leaf of the pages of the runs that the bitmap has (keep) or has not. */
SP_MUST_CHECK sp_status sp_mixed_cut(sp_edit *edit, const sp_bitmap *bitmap, const sp_run *runs,
                                     uint32_t n, bool keep, sp_ref *out);

/* words op= runs, of OR, ANDNOT and XOR. */
void sp_mixed_apply(sp_op op, const sp_run *runs, uint32_t n, uint64_t words[SP_LEAF_WORDS]);

#endif
