/*
 * support_tracker.h - what tests of the tracker share: small guests with pages far apart, their
 * hash, and a count of the nodes that must be live.
 */
#ifndef SP_TESTS_SUPPORT_TRACKER_H
#define SP_TESTS_SUPPORT_TRACKER_H

#include "support_check.h"
#include "support_engine.h"
#include "tracker/state.h"

/* A guest of a few windows, each `words` words of pages long; a bitmap over them, window after
 * window, is the record of a set. */
typedef struct plots {
    const uint64_t *start; /* of each window, ascending, disjoint */
    size_t windows;
    size_t words; /* in each */
} plots;

static inline size_t plots_words(const plots *p) { return p->windows * p->words; }

/* Bit `at` of the record is this gfn. */
uint64_t plots_gfn(const plots *p, uint64_t at);

/* A random range within one window, in gfns and in bits of the record. */
typedef struct plot_range {
    uint64_t start, npages; /* gfns */
    uint64_t first;         /* bit of `start` */
} plot_range;

plot_range plots_range(const plots *p, rng *r, uint64_t max_pages);

/* The set over the windows as a record. */
void plots_read(const plots *p, const sp_set *set, uint64_t *record);
bool plots_equal(const plots *p, const sp_set *set, const uint64_t *record);

/* Sets the bits of a range in a record; returns how many changed. */
uint64_t record_assign(uint64_t *record, plot_range range, bool value);

/* 64 bits of a record: the sum of word_hash over its words, so that a writer can keep it up to date
 * word by word. */
uint64_t word_hash(size_t at, uint64_t word);
uint64_t record_hash(const uint64_t *record, size_t words);

/* The calls of the same names, checked to succeed: a tracker of the engine under test, the pages
 * that changed, a snapshot. */
sp_tracker *tracker_new(uint64_t npages, bool shared);
uint64_t tracker_convert(sp_tracker *tracker, uint64_t start, uint64_t npages, bool shared);
sp_snapshot tracker_take(sp_tracker *tracker);

/* Nodes that the open version or a linked one reaches, each counted once; no call under way. */
uint64_t tracker_reachable(const sp_tracker *tracker);
uint64_t tracker_live(const sp_tracker *tracker);

#endif
