/*
 * radix.h - the nodes of the roaring engine; private to it.  Floor 3.
 *
 * A ref at level 0 is a leaf (leaf.h), at level l an inner node of 64 refs at level l - 1, or EMPTY
 * or FULL at any level.  A set of height h covers [0, 2^(16 + 6 h)); gfns beyond are not members.
 *
 * Canonical form: an inner node is neither empty nor full, and a root has a member beyond its first
 * child (else the set would be lower).  Equal sets thus have equal trees above the leaves.
 */
#ifndef SP_SET_RADIX_H
#define SP_SET_RADIX_H

#include "set/engine.h"

#define FANOUT_BITS 6
#define FANOUT 64u
#define MAX_HEIGHT ((SP_GFN_BITS - SP_LEAF_BITS) / FANOUT_BITS)

typedef struct sp_inner {
    sp_node head;
    uint64_t pages; /* members below */
    sp_ref child[FANOUT];
} sp_inner;

static inline unsigned level_bits(uint64_t level)
{
    return SP_LEAF_BITS + FANOUT_BITS * (unsigned)level;
}

/* gfns that a ref at this level covers. */
static inline uint64_t level_span(uint64_t level) { return UINT64_C(1) << level_bits(level); }

static inline sp_inner *as_inner(sp_ref ref) { return (sp_inner *)sp_ref_node(ref); }

static inline bool is_flat(sp_ref ref) { return ref == SP_EMPTY || ref == SP_FULL; }

static inline uint64_t ref_pages(sp_ref ref, uint64_t level)
{
    if (is_flat(ref))
        return ref == SP_FULL ? level_span(level) : 0;
    return level ? as_inner(ref)->pages : sp_leaf_count(ref);
}

/* Calls visit for every node below and at ref that was born after `floor`, children first. */
void sp_radix_walk(sp_ref ref, uint64_t level, uint64_t floor, sp_node_fn visit, void *context);

/* Calls visit for the leaves of each lowest inner node below and at ref, by gfn: n in a row from
 * gfn `start`, empty ones too; NULL for n that are all FULL.  Stops at the first failure. */
typedef sp_status (*sp_leaves_fn)(void *context, uint64_t start, const sp_ref *leaves, uint64_t n);
SP_MUST_CHECK sp_status sp_radix_leaves(const sp_set *set, sp_leaves_fn visit, void *context);

/* Takes every node below and at ref out of the set; of counted ones, what nobody else holds. */
void sp_radix_drop(sp_edit *edit, sp_ref ref, uint64_t level);

/* Lowers a set whose root has members in its first child only.  Cannot fail. */
void sp_radix_lower(sp_edit *edit, sp_set *set);

/* ---- steps of an edit, none of which changes a member ---- */

/* Makes *ref an inner node of ours with the members it has.  SP_NOMEM. */
SP_MUST_CHECK sp_status sp_radix_own(sp_edit *edit, sp_ref *ref, uint64_t level);
/* Makes the set cover `last`.  SP_NOMEM. */
SP_MUST_CHECK sp_status sp_radix_heighten(sp_edit *edit, sp_set *set, uint64_t last);
/* Turns an inner node of ours that has become empty or full into a flat ref. */
void sp_radix_collapse(sp_edit *edit, sp_ref *ref, uint64_t level);
/* Undoes what a failed edit of pages [lo, hi] opened along its edges. */
void sp_radix_settle(sp_edit *edit, sp_ref *ref, uint64_t level, uint64_t lo, uint64_t hi);

/* ---- the engine's functions ---- */

sp_status sp_radix_assign(sp_edit *edit, sp_set *set, uint64_t start, uint64_t stop, bool value);
bool sp_radix_turn(sp_edit *edit, sp_set *set, uint64_t start, uint64_t stop, bool value,
                   sp_turned *turned);
sp_status sp_radix_put_words(sp_edit *edit, sp_set *set, uint64_t base, const uint64_t *words);
/* Puts 64 leaves, not all empty, from gfn `base` on, where the set has no members; takes them
 * over, on failure too. */
SP_MUST_CHECK sp_status sp_radix_put_leaves(sp_edit *edit, sp_set *set, uint64_t base,
                                            const sp_ref leaves[FANOUT]);
sp_status sp_radix_add_sorted(sp_edit *edit, sp_set *set, const sp_range *ranges, size_t n);
sp_status sp_radix_load(sp_edit *edit, sp_cursor *from, sp_set *out);
sp_status sp_radix_combine(sp_edit *edit, sp_op op, const sp_set *a, const sp_set *b, sp_set *out);
uint64_t sp_radix_intersection(const sp_kernels *k, const sp_set *a, const sp_set *b);

#endif
