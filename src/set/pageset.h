/*
 * pageset.h - an immutable set that holds its nodes, alone or with other such sets.  Floor 3.
 *
 * What a PageSet is in Python, and what a tracker's log of conversions is made of.  Reference
 * counted; retain and release from any thread.  Every constructor returns a set with one reference,
 * sets *out only on SP_OK, and leaks nothing otherwise.
 *
 * Input arrays belong to the caller and may be written by others meanwhile: each element is read
 * once, and checked as read.  On SP_RANGE (a gfn at or beyond 2^52) and SP_INVALID (stop < start)
 * *bad is the index of the offending element.
 */
#ifndef SP_SET_PAGESET_H
#define SP_SET_PAGESET_H

#include "set/set.h"

typedef struct sp_pageset sp_pageset;

/* Ranges in any order, overlapping or empty. */
SP_MUST_CHECK sp_status sp_pageset_from_ranges(const sp_allocator *allocator,
                                               const sp_engine *engine, const sp_range *ranges,
                                               size_t n, sp_pageset **out, size_t *bad);
SP_MUST_CHECK sp_status sp_pageset_from_pages(const sp_allocator *allocator,
                                              const sp_engine *engine, const uint64_t *gfns,
                                              size_t n, sp_pageset **out, size_t *bad);
/* Bit i of the little-endian bitmap is gfn first + i; first + npages <= 2^52. */
SP_MUST_CHECK sp_status sp_pageset_from_bitmap(const sp_allocator *allocator,
                                               const sp_engine *engine, const void *bitmap,
                                               uint64_t first, uint64_t npages, sp_pageset **out);
/* Operands that are page sets were made with the same allocator. */
SP_MUST_CHECK sp_status sp_pageset_combine(const sp_allocator *allocator, sp_op op, const sp_set *a,
                                           const sp_set *b, sp_pageset **out);
/* The members moved down or up by `distance`, without those that leave [0, 2^52); of the engine of
 * `set`.  O(ranges), and memory for a batch of them beside the result. */
SP_MUST_CHECK sp_status sp_pageset_shift(const sp_allocator *allocator, const sp_set *set,
                                         uint64_t distance, bool down, sp_pageset **out);

/* An empty set to fill before anyone else sees it: edit its set with the edit given. */
SP_MUST_CHECK sp_status sp_pageset_new(const sp_allocator *allocator, const sp_engine *engine,
                                       sp_pageset **out);
sp_edit sp_pageset_edit(sp_pageset *pageset);
sp_set *sp_pageset_open(sp_pageset *pageset);

sp_pageset *sp_pageset_retain(sp_pageset *pageset);
void sp_pageset_release(sp_pageset *pageset); /* NULL is nothing */

const sp_set *sp_pageset_set(const sp_pageset *pageset);
/* Bytes of all that the set reaches, shared or not; O(n) once, then O(1). */
uint64_t sp_pageset_bytes(sp_pageset *pageset);

#endif
