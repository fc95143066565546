/*
 * support_model.h - the slow obvious set: a byte a page over chosen windows, uniform between them.
 *
 * Windows are disjoint and ascending; gap i lies before window i, the last gap after the last
 * window, up to 2^52.  A range to assign may begin and end anywhere inside a window or at a
 * window's border (or at 0 or 2^52), so gaps, of any size, are assigned whole or not at all.
 */
#ifndef SP_TESTS_SUPPORT_MODEL_H
#define SP_TESTS_SUPPORT_MODEL_H

#include <stdbool.h>
#include <stddef.h>

#include "kernels/kernels.h"
#include "set/set.h"
#include "support_check.h"

#define MODEL_MAX_WINDOWS 16

typedef struct model_window {
    uint64_t start, stop;
    uint8_t *in; /* 1 where a member, stop - start of them */
} model_window;

typedef struct model {
    size_t n;
    model_window window[MODEL_MAX_WINDOWS];
    bool gap[MODEL_MAX_WINDOWS + 1];
} model;

/* An empty set over these windows; model_clear frees it. */
void model_init(model *m, const sp_range *windows, size_t n);
void model_clear(model *m);
/* *to = *from, over the same windows; `to` was not initialised before. */
void model_copy(model *to, const model *from);

void model_assign(model *m, uint64_t start, uint64_t stop, bool value);
/* The 2^16 pages from base become those of the bitmap; they must lie in windows. */
void model_put_words(model *m, uint64_t base, const uint64_t *words);
/* out = a op b, elementwise; all over the same windows, out may be a or b. */
void model_combine(model *out, sp_op op, const model *a, const model *b);

bool model_contains(const model *m, uint64_t gfn);
uint64_t model_rank(const model *m, uint64_t gfn);
uint64_t model_count(const model *m);
/* The maximal ranges within [start, stop), which the caller frees; their number in *n. */
sp_range *model_ranges(const model *m, uint64_t start, uint64_t stop, size_t *n);

/* A gfn at which a range may begin or end: in a random window, often near a multiple of 64, 4096 or
 * 65536. */
uint64_t model_border(const model *m, rng *r);

/* Asks the set everything: validate, count, nranges, ranges by cursors of several rooms, rank,
 * select, contains at every border.  Checks by support_check.h; false if any fails. */
bool model_matches(const model *m, const sp_set *set);

#endif
