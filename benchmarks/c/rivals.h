/*
 * rivals.h - what the benchmarks measure this project against: five ways in use or proposed for
 * remembering which guest pages are shared, and the physical limits.
 *
 * Each rival keeps the data structure, the cost of a change and the cost of a look-up of its model,
 * with the model's known defects corrected, so that results can be checked equal before they are
 * timed.  None of them locks, and where a model can be read in two ways the faster one was taken.
 * No rival uses the core (pins.c does, to measure it), and nothing here is part of the package.
 *
 * Conventions.  Ranges are half-open pairs of gfns; arrays of ranges handed in are sorted,
 * disjoint and coalesced.  Bit i of a dirty bitmap is gfn i, little-endian, in whole words; bits
 * past the guest's end are zero, as KVM leaves them.  A function that answers bool is false when
 * memory ran out: what it was building is then unusable, except for being freed.  No rival may be
 * used by two threads at once.
 */
#ifndef RIVALS_H
#define RIVALS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define RIVAL_API __attribute__((visibility("default")))

typedef struct rival_range {
    uint64_t start, stop;
} rival_range;

/* A conversion, as in the array that SharedPages.apply takes. */
typedef struct rival_event {
    uint64_t start, npages;
    uint8_t shared;
} rival_event;

/* Ranges as the gfns at which membership flips, start and stop in turn.  Starts out zeroed;
 * `gfns` is freed with rival_free. */
typedef struct rival_ranges {
    uint64_t *gfns;
    size_t n, room; /* gfns held, and gfns there is room for */
} rival_ranges;

/* Dirty pages by status. */
typedef struct rival_split {
    rival_ranges shared, private;
} rival_split;

RIVAL_API void rival_free(void *memory);

/* ---- a list of shared regions: KVM's proposal of 2021 (v10), and QEMU's (v4) ----
 * A sorted, doubly linked list of {gfn_start, gfn_end} nodes, walked from its head by every change.
 * Both models let overlapping nodes arise and lost pages at the ends of a removal; here nodes are
 * disjoint and coalesced. */
typedef struct rival_list rival_list;

RIVAL_API rival_list *rival_list_new(void);
RIVAL_API void rival_list_free(rival_list *list);
/* Replaces the list.  Nodes are allocated in order: neighbours in the list are so in memory. */
RIVAL_API bool rival_list_load(rival_list *list, const rival_range *ranges, size_t n);
/* O(nodes before stop). */
RIVAL_API bool rival_list_convert(rival_list *list, uint64_t start, uint64_t stop, bool shared);
RIVAL_API bool rival_list_apply(rival_list *list, const rival_event *events, size_t n);
RIVAL_API bool rival_list_export(const rival_list *list, rival_ranges *out);
/* Usable heap bytes of its nodes. */
RIVAL_API size_t rival_list_bytes(const rival_list *list);

/* KVM's list as a competent VMM uses it: exported once, then one sweep beside the dirty bitmap. */
RIVAL_API bool rival_kvm_merge(const rival_list *list, const uint64_t *dirty, size_t nwords,
                               rival_split *out);

/* How many pages were looked up, and how long that took. */
typedef struct rival_lookups {
    uint64_t pages, ns;
} rival_lookups;

/* QEMU's use of its list: a walk for each dirty page sent.  Of more than `limit` dirty pages it
 * looks up every k-th alone, the first included, with the least k that keeps the limit; out holds
 * these. */
RIVAL_API bool rival_qemu_merge(const rival_list *list, const uint64_t *dirty, size_t nwords,
                                uint64_t limit, rival_split *out, rival_lookups *lookups);

/* ---- KVM's encryption bitmap (v8): a bit a page of the whole guest, 1 is private ---- */
typedef struct rival_enc rival_enc;

/* All pages private; npages is above 0. */
RIVAL_API rival_enc *rival_enc_new(uint64_t npages);
RIVAL_API void rival_enc_free(rival_enc *enc);
/* Ranges, here and below, end within the guest. */
/* Replaces what is shared. */
RIVAL_API void rival_enc_load(rival_enc *enc, const rival_range *ranges, size_t n);
RIVAL_API void rival_enc_convert(rival_enc *enc, uint64_t start, uint64_t stop, bool shared);
RIVAL_API void rival_enc_apply(rival_enc *enc, const rival_event *events, size_t n);
RIVAL_API size_t rival_enc_bytes(const rival_enc *enc);
/* nwords is at most the guest's own words. */
RIVAL_API bool rival_enc_merge(const rival_enc *enc, const uint64_t *dirty, size_t nwords,
                               rival_split *out);

/* ---- KVM's memory attributes: an entry for each private page in an xarray ----
 * A radix tree of 64-way nodes of 576 bytes, the size of the kernel's; a page without an entry is
 * shared.  As KVM does it, a change first looks whether there is anything to change, then reserves
 * every page's slot, then stores every page's entry, each by a descent from the root. */
typedef struct rival_attr rival_attr;

/* Every page is shared.  `batched`: a change descends once a node rather than twice a page. */
RIVAL_API rival_attr *rival_attr_new(bool batched);
RIVAL_API void rival_attr_free(rival_attr *attr);
/* Makes pages below npages private unless a range has them.  For a new array; batched always. */
RIVAL_API bool rival_attr_load(rival_attr *attr, uint64_t npages, const rival_range *ranges,
                               size_t n);
RIVAL_API bool rival_attr_convert(rival_attr *attr, uint64_t start, uint64_t stop, bool shared);
RIVAL_API bool rival_attr_apply(rival_attr *attr, const rival_event *events, size_t n);
RIVAL_API bool rival_attr_is_private(const rival_attr *attr, uint64_t gfn);
/* Usable heap bytes of its nodes. */
RIVAL_API size_t rival_attr_bytes(const rival_attr *attr);
/* A look-up from the root for each dirty page. */
RIVAL_API bool rival_attr_merge(const rival_attr *attr, const uint64_t *dirty, size_t nwords,
                                rival_split *out);

/* ---- the RMP of an SEV-SNP host ----
 * 16 KiB of bookkeeping, then an entry of 16 bytes for each of the host's pages.  Its low word:
 * assigned 0, 2 MiB page 1, gpa 50:12, ASID 60:51, validated 62.  The table is indexed by host
 * frame and cannot be walked in guest order: a merge scans all of it. */
typedef struct rival_rmp rival_rmp;

#define RIVAL_RMP_MAX_PAGES (UINT64_C(1) << 32)
#define RIVAL_RMP_MAX_ASID 1023

/* A host of npages, at most RIVAL_RMP_MAX_PAGES, nothing assigned.  `scatter` 0: guests lie in host
 * memory in order; else in blocks of that many pages, the blocks permuted. */
RIVAL_API rival_rmp *rival_rmp_new(uint64_t npages, uint64_t scatter);
RIVAL_API void rival_rmp_free(rival_rmp *rmp);
/* Assigns to `asid` the private pages of a guest of npages: those that no range has.  The guest
 * takes the host's unpermuted frames from first_pfn on, which must be free.  `huge`: by an entry
 * for 2 MiB where guest and host are both aligned and all of it is private. */
RIVAL_API void rival_rmp_place(rival_rmp *rmp, unsigned asid, uint64_t first_pfn, uint64_t npages,
                               const rival_range *ranges, size_t n, bool huge);
RIVAL_API size_t rival_rmp_bytes(const rival_rmp *rmp);
/* Sets in private[0..nwords) the bits of the pages assigned to `asid`, by one pass over the table;
 * gfns past the end are left out.  The bitmap comes zeroed. */
RIVAL_API void rival_rmp_walk(const rival_rmp *rmp, unsigned asid, uint64_t *private,
                              size_t nwords);
/* The walk, then the merge of its bitmap. */
RIVAL_API bool rival_rmp_merge(const rival_rmp *rmp, unsigned asid, const uint64_t *dirty,
                               size_t nwords, rival_split *out);

/* ---- versions of the core's own, pinned and let go of `calls` times; by any threads ---- */
typedef struct rival_pins rival_pins;

/* A tracker of 1 TiB with 1 GiB shared, and a lock for readers. */
RIVAL_API rival_pins *rival_pins_new(void);
RIVAL_API void rival_pins_free(rival_pins *pins);
/* sp_epoch_acquire, sp_epoch_release. */
RIVAL_API void rival_pins_epoch(rival_pins *pins, uint64_t calls);
/* sp_tracker_snapshot, sp_snapshot_release. */
RIVAL_API void rival_pins_snapshot(rival_pins *pins, uint64_t calls);
/* pthread_rwlock_rdlock, pthread_rwlock_unlock. */
RIVAL_API void rival_pins_lock(rival_pins *pins, uint64_t calls);
/* One atomic word counted up and down. */
RIVAL_API void rival_pins_count(rival_pins *pins, uint64_t calls);

/* ---- physical limits, and the heap ---- */

/* The OR of all words: what reading a bitmap once costs at the least. */
RIVAL_API uint64_t rival_read_pass(const uint64_t *words, size_t nwords);
/* A fresh copy, freed with rival_free; NULL when memory ran out. */
RIVAL_API void *rival_copy(const void *from, size_t nbytes);
/* Bytes this process holds from malloc, large blocks included. */
RIVAL_API size_t rival_heap_bytes(void);

#endif
