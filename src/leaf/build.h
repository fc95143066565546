/*
 * build.h - making leaves, and changing them by shape; private to leaf/.  Floor 2.
 *
 * A leaf is built in the kind that holds it in the fewest bytes, from runs or from words.  What is
 * changed where it stands is ours (sp_edit_owns), and may stay in a kind that is not the smallest:
 * tidying looks for that.
 *
 * On SP_NOMEM nothing was made, and leaves hold the pages they did.
 */
#ifndef SP_LEAF_BUILD_H
#define SP_LEAF_BUILD_H

#include "leaf/lists.h"

/* ---- building (build.c) ---- */

/* The kind that holds so many pages in so many runs in the fewest bytes. */
sp_shape sp_leaf_pick(uint32_t pages, uint32_t runs);

/* A leaf of these runs, which are so many pages: packed where it fits and `room` is 0, else a node
 * of the given shape (array or runs) with room for at least `room` elements. */
SP_MUST_CHECK sp_status sp_small_new(sp_edit *edit, sp_shape shape, const sp_run *runs, uint32_t n,
                                     uint32_t pages, uint32_t room, sp_ref *out);

/* An array of these values, which are ascending. */
SP_MUST_CHECK sp_status sp_array_new(sp_edit *edit, const uint16_t *values, uint32_t n,
                                     sp_ref *out);

/* A leaf of these runs in the kind of fewest bytes. */
SP_MUST_CHECK sp_status sp_leaf_from_runs(sp_edit *edit, const sp_run *runs, uint32_t n,
                                          sp_ref *out);

/* What is to be known of a leaf's words before it is built. */
typedef struct sp_tally {
    uint32_t pages;
    uint32_t least_runs; /* at least so many, or exactly */
    uint16_t in_block[SP_BLOCKS];
} sp_tally;

/* Counts pages alone; least_runs is 0. */
sp_tally sp_tally_pages(const sp_kernels *k, const uint64_t words[SP_LEAF_WORDS]);
uint32_t sp_words_runs(const sp_kernels *k, const uint64_t words[SP_LEAF_WORDS]);

/* A leaf of words in the kind of fewest bytes, which is a bitmap if `tally` says so already. */
SP_MUST_CHECK sp_status sp_leaf_from_tally(sp_edit *edit, const uint64_t words[SP_LEAF_WORDS],
                                           const sp_tally *tally, sp_ref *out);

/* A bitmap leaf, whatever is smaller. */
SP_MUST_CHECK sp_status sp_bitmap_from_words(sp_edit *edit, const uint64_t words[SP_LEAF_WORDS],
                                             const sp_tally *tally, sp_ref *out);

/* A leaf of the bitmap's bytes, read once, in the kind of fewest bytes.  SP_INVALID if it has not
 * so many pages; SP_NOMEM. */
SP_MUST_CHECK sp_status sp_leaf_from_bytes(sp_edit *edit, const uint8_t *bytes, uint32_t pages,
                                           sp_ref *out);

/* bitmap op runs, for OR, ANDNOT and XOR, in the kind of fewest bytes; the result has least_runs or
 * more. */
SP_MUST_CHECK sp_status sp_bitmap_alter(sp_edit *edit, sp_op op, sp_ref bitmap, const sp_run *runs,
                                        uint32_t n, uint32_t least_runs, sp_ref *out);

/* Holds *leaf, whatever its kind, as block nodes of ours. */
SP_MUST_CHECK sp_status sp_bitmap_open(sp_edit *edit, sp_ref *leaf);

/* A leaf's words in a row: its own where it is whole, else written to scratch. */
const uint64_t *sp_leaf_view(sp_ref leaf, uint64_t scratch[SP_LEAF_WORDS]);

/* ---- editing by shape (small.c, bitmap.c), contracts as in leaf.h ---- */

SP_MUST_CHECK sp_status sp_small_prepare(sp_edit *edit, sp_ref *leaf, uint32_t first, uint32_t last,
                                         bool value);
int32_t sp_small_commit(sp_edit *edit, sp_ref *leaf, uint32_t first, uint32_t last, bool value);
/* Tries to change *leaf where it stands: in the ref, or in a list of ours that has room. */
bool sp_small_try(sp_edit *edit, sp_ref *leaf, uint32_t first, uint32_t last, bool value,
                  int32_t *delta);
SP_MUST_CHECK sp_status sp_bitmap_prepare(sp_edit *edit, sp_ref *leaf, uint32_t first,
                                          uint32_t last, bool value);
int32_t sp_bitmap_commit(sp_edit *edit, sp_ref *leaf, uint32_t first, uint32_t last, bool value);

/* Elements for which a list of n is given room: half as many to spare, so that one that grows page
 * by page is copied O(log n) times. */
uint32_t sp_small_slack(uint32_t n, sp_shape shape);
/* sp_leaf_turn for a bitmap: where it is ours, stays a bitmap, and the pages are few. */
bool sp_bitmap_turn(sp_edit *edit, sp_ref *leaf, uint32_t first, uint32_t last, bool value,
                    sp_turned *turned);

/* Hold *leaf in less where that is at hand: in the ref itself, in a smaller node, in another kind.
 * Optional, so short memory only means that it stays as it is. */
void sp_small_tidy(sp_edit *edit, sp_ref *leaf);
void sp_bitmap_tidy(sp_edit *edit, sp_ref *leaf);

SP_MUST_CHECK sp_status sp_bitmap_clone(sp_edit *edit, sp_ref leaf, sp_ref *out);

#endif
