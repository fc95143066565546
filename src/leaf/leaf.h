/*
 * leaf.h - sets of 2^16 pages.  Floor 2.
 *
 * A leaf is named by an sp_ref: EMPTY, FULL, one or two runs packed into the word itself, or a node
 * of one of three kinds: a sorted array of pages, a sorted list of runs, or a bitmap of sixteen
 * 512-byte blocks, each of which may again be EMPTY or FULL.  Which kind holds a leaf is chosen by
 * bytes, whenever the leaf is built, grown or copied.
 *
 * Positions are 0..65535; ranges inside a leaf are [first, last] where they are edited (both ends
 * are 16-bit) and [first, stop) where they are read.
 *
 * Editing is in two steps.  sp_leaf_prepare may fail, and changes only how the leaf is held, never
 * what it holds; sp_leaf_commit then cannot fail.  A caller with several leaves to change prepares
 * them all first, so that a failure anywhere leaves every set as it was.
 *
 * Readers are const and may run beside any writer, as long as the ref came from a published node.
 */
#ifndef SP_LEAF_LEAF_H
#define SP_LEAF_LEAF_H

#include "kernels/kernels.h"
#include "node/node.h"

#define SP_LEAF_BITS 16
#define SP_LEAF_PAGES 65536u
#define SP_LEAF_WORDS (SP_LEAF_PAGES / 64)

/* Node kinds of this room, below SP_KIND_LEAF_END; engines number theirs from there. */
enum { SP_KIND_ARRAY = 1, SP_KIND_RUNS, SP_KIND_BITMAP, SP_KIND_BLOCK, SP_KIND_LEAF_END };

/* ---- reading ---- */

uint32_t sp_leaf_count(sp_ref leaf);
bool sp_leaf_contains(sp_ref leaf, uint32_t page);
/* Members below `page` (0..65536). */
uint32_t sp_leaf_rank(sp_ref leaf, uint32_t page);
/* Members among pages [first, last]. */
uint32_t sp_leaf_count_range(sp_ref leaf, uint32_t first, uint32_t last);
/* The i-th member; i < count. */
uint32_t sp_leaf_select(sp_ref leaf, uint32_t i);

/* Appends the toggles of pages [first, stop), as gfns from `base`, to out[*used..room), given and
 * updating *carry (kernels.h).  Returns the page up to which the leaf was read: `stop`, or earlier
 * if fewer than SP_TOGGLES_ROOM entries are left.  O(what is read + what is written). */
uint32_t sp_leaf_toggles(const sp_kernels *k, sp_ref leaf, uint64_t base, uint32_t first,
                         uint32_t stop, uint64_t *carry, uint64_t *out, size_t *used, size_t room);

/* The number of toggles of the whole leaf, given and updating *carry. */
uint64_t sp_leaf_toggles_count(const sp_kernels *k, sp_ref leaf, uint64_t *carry);

/* The leaf as a bitmap. */
void sp_leaf_words(sp_ref leaf, uint64_t words[SP_LEAF_WORDS]);

/* Calls visit for each node of the leaf born after `floor`, blocks before the node that holds them;
 * visit may free. */
void sp_leaf_walk(sp_ref leaf, uint64_t floor, sp_node_fn visit, void *context);

/* NULL, or the name of the first invariant that the leaf breaks. */
const char *sp_leaf_validate(sp_ref leaf);

/* ---- building: the result is new and owned, *out is set only on SP_OK ---- */

SP_MUST_CHECK sp_status sp_leaf_from_words(sp_edit *edit, const uint64_t words[SP_LEAF_WORDS],
                                           sp_ref *out);
/* The pages of ranges within [base, base + 2^16), sorted by start; they may overlap. */
SP_MUST_CHECK sp_status sp_leaf_from_ranges(sp_edit *edit, uint64_t base, const sp_range *ranges,
                                            size_t n, sp_ref *out);
SP_MUST_CHECK sp_status sp_leaf_clone(sp_edit *edit, sp_ref leaf, sp_ref *out);
SP_MUST_CHECK sp_status sp_leaf_combine(sp_edit *edit, sp_op op, sp_ref a, sp_ref b, sp_ref *out);
/* |a AND b|. */
uint32_t sp_leaf_intersection(const sp_kernels *k, sp_ref a, sp_ref b);

/* ---- editing ---- */

/* Makes *leaf such that commit with the same arguments cannot fail; the pages it holds stay the
 * same, on failure too.  SP_NOMEM. */
SP_MUST_CHECK sp_status sp_leaf_prepare(sp_edit *edit, sp_ref *leaf, uint32_t first, uint32_t last,
                                        bool value);

/* Sets pages [first, last] to value and returns how many pages *leaf holds more than before.
 * May hold the result in another kind; retires what it drops. */
int32_t sp_leaf_commit(sp_edit *edit, sp_ref *leaf, uint32_t first, uint32_t last, bool value);

/* Both at once, for a caller with one leaf to change; *delta is what commit returns.  SP_NOMEM: the
 * same pages, and a node that is ours may be larger than they need. */
SP_MUST_CHECK sp_status sp_leaf_assign(sp_edit *edit, sp_ref *leaf, uint32_t first, uint32_t last,
                                       bool value, int32_t *delta);

/* Tries to set pages [first, last] to value with no more than one allocation.  True: they are set,
 * and *turned says which of them were not, in at most turned->most ranges.  False: the same pages,
 * and nothing is known. */
bool sp_leaf_turn(sp_edit *edit, sp_ref *leaf, uint32_t first, uint32_t last, bool value,
                  sp_turned *turned);

/* Undoes what a prepare without a commit left: a larger node than the pages need.  For a leaf that
 * is ours. */
void sp_leaf_settle(sp_edit *edit, sp_ref *leaf);

/* Takes every node of the leaf out of the set being edited. */
void sp_leaf_retire(sp_edit *edit, sp_ref leaf);

#endif
