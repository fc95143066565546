/*
 * support_set.h - a set under edit beside its model, with an allocator that counts.
 */
#ifndef SP_TESTS_SUPPORT_SET_H
#define SP_TESTS_SUPPORT_SET_H

#include "support_alloc.h"
#include "support_engine.h"
#include "support_model.h"

typedef struct set_bench {
    test_alloc alloc;
    sp_mem mem;
    sp_edit edit;
    sp_set set;
    model model;
} set_bench;

/* Windows of `width` pages at 0, at the borders of every level of the tree (and at 2^31 and 2^32),
 * and before 2^52. */
enum { BORDER_WINDOWS = 10 };
void border_windows(uint64_t width, sp_range windows[BORDER_WINDOWS]);

void set_bench_open(set_bench *b, const sp_range *windows, size_t n);
/* Frees the set and what is on the deadlist, and checks that nothing is live. */
void set_bench_close(set_bench *b);

/* Assigns in the set and in the model, and checks that it worked. */
void set_bench_assign(set_bench *b, uint64_t start, uint64_t stop, bool value);
/* A range between two random borders, mostly within one window. */
sp_range random_range(const model *m, rng *r);
/* `n` random assigns. */
void set_bench_fill(set_bench *b, rng *r, unsigned n);

/* model_matches, and the allocator holds what sp_set_measure counts and no more. */
bool set_bench_matches(const set_bench *b);

#endif
