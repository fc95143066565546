/*
 * merge.h - what to send, and how: dirty pages split by the status they have in a snapshot.
 * Floor 4.
 *
 * To send = dirty or extra, where dirty is a harvest and extra a set (what was converted, or a
 * dirty set that came as such).  Pages to send that are members of `shared` go to the shared list,
 * the others to the private one; both lists are sorted, disjoint and coalesced.
 *
 * One pass: each dirty bitmap is read once, a cache line or more at a test, and never made a set.
 * The result comes in batches of a bounded size, and the state between batches is bounded too; or
 * as a whole, by one thread or several.
 */
#ifndef SP_DIRTY_MERGE_H
#define SP_DIRTY_MERGE_H

#include "dirty/log.h"

typedef struct sp_merge sp_merge;

/* `harvest` may be NULL.  Retains the harvest; extra and shared must outlive the merge. */
SP_MUST_CHECK sp_status sp_merge_new(const sp_allocator *allocator, sp_harvest *harvest,
                                     const sp_set *extra, const sp_set *shared, sp_merge **out);
void sp_merge_free(sp_merge *merge); /* NULL is nothing */

/* A list of ranges and the pages in it. */
typedef struct sp_list {
    sp_range *ranges;
    size_t n, room;
    uint64_t pages;
} sp_list;

/* Appends to the two lists until the merge is over (true) or one of them is full (false).  A range
 * is never split between batches. */
bool sp_merge_next(sp_merge *merge, sp_list *shared, sp_list *private);

/* More threads than this are refused: a merge is bound by memory long before. */
#define SP_THREADS_MOST 256

/* The whole result of a merge that nothing was taken from, in lists that grow; the caller frees
 * them with sp_list_free.  The work is shared among up to `threads` threads, the caller's one of
 * them; the lists are the same for any number, and none of them runs any more when it returns.
 * SP_RANGE: no thread, or more than SP_THREADS_MOST; SP_NOMEM.  Both lists are empty then, and the
 * merge is spent. */
SP_MUST_CHECK sp_status sp_merge_all(sp_merge *merge, size_t threads, sp_mem *mem, sp_list *shared,
                                     sp_list *private);
/* The pages of a harvest, each counted once; O(its bitmaps). */
SP_MUST_CHECK sp_status sp_merge_count(const sp_allocator *allocator, sp_harvest *harvest,
                                       uint64_t *pages);
/* The pages of a harvest as a set.  O(its bitmaps and ranges). */
SP_MUST_CHECK sp_status sp_merge_pages(const sp_allocator *allocator, sp_harvest *harvest,
                                       sp_pageset **out);
void sp_list_free(sp_mem *mem, sp_list *list);

#endif
