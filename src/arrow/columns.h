/*
 * columns.h - a set's ranges as Arrow data: struct<start: uint64, stop: uint64>.  Floor 5.
 *
 * A set has no list of its ranges, so one is made: once, by column, into memory that the consumer
 * then owns and reads in place.  Nothing is nullable.  Releasing anything made here frees C memory
 * alone, so any thread may do it; a child that was moved out lives on without its parent.
 *
 * An array is the whole set at once.  A stream is made of batches of up to SP_ARROW_BATCH ranges,
 * each listed when it is asked for: 1 MiB at a time, whatever the set.
 */
#ifndef SP_ARROW_COLUMNS_H
#define SP_ARROW_COLUMNS_H

#include "arrow/abi.h"
#include "set/pageset.h"
#include "tracker/tracker.h"

#define SP_ARROW_BATCH 65536

/* All set *out only on SP_OK; else SP_NOMEM. */
SP_MUST_CHECK sp_status sp_arrow_schema(const sp_allocator *allocator, struct ArrowSchema *out);
/* O(n + ranges); the set is not needed afterwards. */
SP_MUST_CHECK sp_status sp_arrow_array(const sp_allocator *allocator, const sp_set *set,
                                       struct ArrowArray *out);
/* The stream holds the page set or snapshot whose set it is until it is released; the other is
 * NULL, and both are if the set has no nodes.  Of one stream, one call at a time.  O(n). */
SP_MUST_CHECK sp_status sp_arrow_stream(const sp_allocator *allocator, const sp_set *set,
                                        sp_pageset *pageset, const sp_snapshot *snapshot,
                                        struct ArrowArrayStream *out);

/* Structures made here, children not counted, plus columns that are not yet released. */
uint64_t sp_arrow_held(void);

#endif
