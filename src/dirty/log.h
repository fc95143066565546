/*
 * log.h - dirty pages from many sources, until a pass takes them.  Floor 4.
 *
 * A log collects; take empties it into a harvest; a harvest is dropped when its pages have arrived,
 * or given back when they have not.  Pages are kept as they come: a bitmap stays one dense bitmap a
 * slot (turning random dirty bits into a set is what makes other trackers slow), pages, ring
 * entries and short ranges a list that is sorted when it is taken.  What is too much for a list
 * goes to the slots' bitmaps; ranges of more than 4,096 pages, and too many pages that no slot
 * holds, go into a sparse set.
 *
 * All functions may be called from any thread.  A harvest is immutable.  On an error nothing was
 * added, except that a SP_NOMEM while adding ranges, pages, ring entries or a loan may leave
 * some of them in: more dirty pages, never fewer.
 */
#ifndef SP_DIRTY_LOG_H
#define SP_DIRTY_LOG_H

#include "dirty/memory.h"

typedef struct sp_log sp_log;
typedef struct sp_harvest sp_harvest;

/* struct kvm_dirty_gfn of <linux/kvm.h>. */
typedef struct sp_ring_entry {
    uint32_t flags;  /* bit 0: dirty, bit 1: harvested */
    uint32_t slot;   /* address space << 16 | id */
    uint64_t offset; /* page within the slot */
} sp_ring_entry;

_Static_assert(sizeof(sp_ring_entry) == 16, "struct kvm_dirty_gfn is 16 bytes");

SP_MUST_CHECK sp_status sp_log_new(const sp_allocator *allocator, sp_memory *memory, sp_log **out);
sp_log *sp_log_retain(sp_log *log);
void sp_log_free(sp_log *log); /* NULL is nothing; harvests stay */

/* Gives logs of one memory, each named once, another: all of them or, with SP_NOMEM, none.  A slot
 * that was not in the old one, the same in id, gfn and size, is new: all its pages become dirty, in
 * the first log.  Pages that were memory and are no longer are dropped; all others stay dirty, by
 * gfn, also those of harvests that are given back later.  Loans of slots that both memories have go
 * on; of others, what is in them now is kept.  One thread at a time may be in here.
 * O(slots log slots), and what the logs hold beside bitmaps of slots that stay. */
SP_MUST_CHECK sp_status sp_log_set_memory(sp_log *const *logs, size_t n, sp_memory *memory);

/* Adds npages bits from bit 0 of a little-endian bitmap, whose bit 0 is page first_page of a slot;
 * pages past the slot's end are ignored.  SP_UNKNOWN: the log's memory has no such slot, or no
 * longer.  O(npages / 64). */
SP_MUST_CHECK sp_status sp_log_add_bitmap(sp_log *log, const sp_memslot *slot, const void *bitmap,
                                          uint64_t first_page, uint64_t npages);
/* The set bits among the first npages of such a bitmap.  O(npages / 64). */
uint64_t sp_bitmap_count(const void *bitmap, uint64_t npages);

/* Lends the words of a bitmap of a slot, all zero, for a source to fill in place.  What is in them
 * when the log is taken from is dirty; what is written later is not seen.  Valid until sp_loan_end,
 * which saves the take a copy if it comes before; ceil(npages / 64) words.  SP_UNKNOWN as above. */
typedef struct sp_bits sp_bits;
SP_MUST_CHECK sp_status sp_log_lend(sp_log *log, const sp_memslot *slot, sp_bits **loan);
/* Has the log see what was written to a loan of that slot, whenever it was: adds it, by gfn and as
 * far as it is memory, where the log was taken from, or lost the slot, since it was lent.  The loan
 * goes on.  SP_NOMEM: some may be in. */
SP_MUST_CHECK sp_status sp_log_settle(sp_log *log, const sp_memslot *slot, sp_bits *loan);
uint64_t *sp_loan_words(sp_bits *loan);
void sp_loan_end(sp_bits *loan);

/* SP_RANGE, SP_INVALID (inverted range; a ring entry that is not marked dirty) and SP_UNKNOWN (a
 * slot the guest does not have): *bad is the index.  Ranges and pages need not be memory. */
SP_MUST_CHECK sp_status sp_log_add_ranges(sp_log *log, const sp_range *ranges, size_t n,
                                          size_t *bad);
SP_MUST_CHECK sp_status sp_log_add_pages(sp_log *log, const uint64_t *gfns, size_t n, size_t *bad);
SP_MUST_CHECK sp_status sp_log_add_ring(sp_log *log, const sp_ring_entry *entries, size_t n,
                                        size_t *bad);

/* Everything added so far; the log is empty then.  SP_NOMEM: nothing taken, nothing lost.  O(1),
 * but for what was given back, bitmaps still lent, and the list's sort. */
SP_MUST_CHECK sp_status sp_log_take(sp_log *log, sp_harvest **out);
/* The same, and the pages stay in the log: one step, so a take() beside it misses nothing.  To be
 * released, not given back. */
SP_MUST_CHECK sp_status sp_log_peek(sp_log *log, sp_harvest **out);
/* Puts a harvest's pages back into the log they came from, taking over the reference.  O(1), cannot
 * fail. */
void sp_log_give_back(sp_log *log, sp_harvest *harvest);

/* What n harvests hold together, as one that no log is owed; n > 0.  It is of the last one's memory,
 * and pages of the others go by gfn as in sp_log_set_memory: the newest of them comes last.
 * O(bitmaps), and the sort of the lists. */
SP_MUST_CHECK sp_status sp_harvest_unite(const sp_allocator *allocator, sp_harvest *const *harvests,
                                         size_t n, sp_harvest **out);

uint64_t sp_log_bytes(const sp_log *log);
/* In the child of a fork: if another thread held the log, every later call returns SP_FORKED. */
void sp_log_after_fork(sp_log *log);

sp_harvest *sp_harvest_retain(sp_harvest *harvest);
void sp_harvest_release(sp_harvest *harvest); /* NULL is nothing */
sp_memory *sp_harvest_memory(const sp_harvest *harvest);
/* The bitmap of slot `index`, bits past the slot's end zero, or NULL: none of its pages is kept
 * that way. */
const uint64_t *sp_harvest_words(const sp_harvest *harvest, size_t index);
/* The pages that came as pages, ranges or ring entries: in the list, in the set, or in both; or,
 * where they were too many for a list, among those of the bitmap. */
typedef struct sp_loose sp_loose;
const sp_loose *sp_harvest_loose(const sp_harvest *harvest);
const sp_set *sp_harvest_sparse(const sp_harvest *harvest);

#endif
