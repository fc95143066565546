/*
 * support_dirty.h - a guest's memory and its dirty log, and harvests as models.
 */
#ifndef SP_TESTS_SUPPORT_DIRTY_H
#define SP_TESTS_SUPPORT_DIRTY_H

#include "dirty/loose.h"
#include "dirty/merge.h"
#include "support_alloc.h"
#include "support_model.h"

typedef struct dirty_bench {
    test_alloc alloc; /* of the memory, the log and its harvests */
    sp_memory *memory;
    uint64_t memory_bytes;
    sp_log *log;
} dirty_bench;

/* Checks that both can be made; if not, log is NULL. */
void dirty_open(dirty_bench *b, const sp_memslot *slots, size_t n);
/* Frees both and checks that nothing is live: harvests and loans have ended. */
void dirty_close(dirty_bench *b);

/* Everything in the log, checked to succeed. */
sp_harvest *dirty_take(dirty_bench *b);

/* Adds one page of a slot by way of a bitmap, checked to succeed. */
void dirty_page(dirty_bench *b, size_t index, uint64_t page);

/* Adds the pages of a harvest, bit by bit, to a model whose windows hold them all; checks that no
 * bit lies past its slot's end. */
void model_add_harvest(model *m, const sp_harvest *harvest);

/* A page that came as a page, in a range or in a ring; O(what did). */
bool harvest_has(const sp_harvest *harvest, uint64_t gfn);
/* It has no page and no bitmap. */
bool harvest_is_empty(const sp_harvest *harvest);

/* out = a or b; all over the same windows, out may be either. */
void model_add(model *out, const model *a, const model *b);
bool model_same(const model *a, const model *b);

/* The harvest holds exactly the pages of the model. */
bool harvest_is(const sp_harvest *harvest, const model *m);

#endif
