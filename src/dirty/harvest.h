/*
 * harvest.h - what a log holds and a harvest is; private to dirty/.  Floor 4.
 *
 * A harvest is immutable once it was taken.  The log's present content is a harvest that nobody
 * else sees, changed under the log's lock.
 */
#ifndef SP_DIRTY_HARVEST_H
#define SP_DIRTY_HARVEST_H

#include "base/atomics.h"
#include "dirty/log.h"
#include "dirty/loose.h"

struct sp_bits {
    _Atomic uint64_t refs; /* the harvest, and a borrower */
    sp_bits *next;         /* of the same slot; under the log's lock, constant once taken */
    const sp_allocator *allocator;
    uint64_t nwords;
    uint64_t words[];
};

struct sp_harvest {
    _Atomic uint64_t refs;
    sp_harvest *next; /* in the list of those given back; under the log's lock */
    sp_memory *memory;
    sp_mem mem;
    sp_loose loose; /* in order once taken */
    sp_set sparse;
    sp_bits *bits[]; /* a slot each */
};

/* A bitmap of npages bits, all zero, with one reference; NULL if memory is short. */
sp_bits *sp_bits_new(const sp_allocator *allocator, uint64_t npages);
void sp_bits_release(sp_bits *bits);
bool sp_bits_is_lent(sp_bits *bits);

/* A bitmap of slot `index` of an open harvest that is not lent, or NULL. */
sp_bits *sp_harvest_find_own(const sp_harvest *open, size_t index);
/* The same, made where there is none. */
SP_MUST_CHECK sp_status sp_harvest_own_bits(sp_harvest *open, size_t index, sp_bits **out);
/* Adds a bitmap to a slot, in front of those it has. */
SP_MUST_CHECK sp_status sp_harvest_push_bits(sp_harvest *open, size_t index, sp_bits **out);

/* An empty harvest with one reference; NULL if memory is short. */
sp_harvest *sp_harvest_new(const sp_allocator *allocator, sp_memory *memory);
/* The edit of a harvest that nobody else sees. */
sp_edit sp_harvest_edit(sp_harvest *harvest);
uint64_t sp_harvest_bytes(const sp_harvest *harvest);

/* Puts the list of a harvest that nobody else sees in order.  The room for that is taken from, and
 * stays in, the list of an empty one: the next that fills.  SP_NOMEM: as they were. */
SP_MUST_CHECK sp_status sp_harvest_sort(sp_harvest *harvest, sp_harvest *empty);

#endif
