/*
 * part.h - a merge led over parts of the gfns; private to dirty/.  Floor 4.
 *
 * A merge that nothing was taken from can be led over the span between two seams, and then over the
 * next one.  A range that crosses a seam stops there in one part and starts there in the next.
 * Merges that share a harvest and sets may be led over parts on different threads.
 */
#ifndef SP_DIRTY_PART_H
#define SP_DIRTY_PART_H

#include "dirty/merge.h"

/* The i-th slot of the harvest's memory, NULL past the last. */
const sp_memslot *sp_merge_slot(const sp_merge *merge, size_t i);
/* The first slot from the i-th on that has a bitmap and begins at or after gfn: with gfn the end of
 * the one before, the next whose bitmap is read as it is. */
size_t sp_merge_next_slot(const sp_merge *merge, size_t i, uint64_t gfn);
/* What is sent beside those bitmaps: a set, and a list or NULL. */
const sp_set *sp_merge_extra(const sp_merge *merge);
const sp_loose *sp_merge_loose(const sp_merge *merge);

/* Another merge of the same, which `merge` must outlive. */
SP_MUST_CHECK sp_status sp_merge_share(const sp_merge *merge, sp_merge **out);

/* Makes [start, stop) what is read next, a part below.  O(h), and the slots since what was read
 * before; from the first slot if it went back. */
void sp_merge_lead(sp_merge *merge, uint64_t start, uint64_t stop);

/* Spans that make up all gfns, in order. */
typedef struct sp_parts {
    sp_range *at;
    size_t n, room; /* parts; entries of the block */
} sp_parts;

/* Cuts a merge into parts of about equal work, many for each thread: one if there is little to do.
 * O(slots and parts). */
SP_MUST_CHECK sp_status sp_parts_init(sp_parts *parts, const sp_merge *merge, size_t threads,
                                      sp_mem *mem);
void sp_parts_clear(sp_parts *parts, sp_mem *mem);

#endif
