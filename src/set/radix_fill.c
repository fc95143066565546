/*
 * radix_fill.c - putting whole leaves into a tree of the roaring engine.  Floor 3.
 *
 * For who has a leaf's members at once: a bitmap's words, 64 containers of a file, a sorted list.
 * The leaf is made first, then the path to its place, and then it is put there, which cannot fail;
 * what a failure has opened on the way is taken back.
 */
#include <string.h>

#include "set/radix.h"

/* Puts a leaf at base below *ref, whose path is ours. */
static int64_t put_leaf(sp_edit *edit, sp_ref *ref, uint64_t level, uint64_t base, sp_ref leaf)
{
    if (!level) {
        int64_t before = sp_leaf_count(*ref);
        sp_leaf_retire(edit, *ref);
        *ref = leaf;
        return (int64_t)sp_leaf_count(leaf) - before;
    }
    unsigned i = base >> level_bits(level - 1) & (FANOUT - 1);
    int64_t delta = put_leaf(edit, &as_inner(*ref)->child[i], level - 1, base, leaf);
    as_inner(*ref)->pages += (uint64_t)delta;
    sp_radix_collapse(edit, ref, level);
    return delta;
}

/* Makes the path to the leaf at base ours; *slot is where the leaf is. */
static sp_status open_leaf(sp_edit *edit, sp_set *set, uint64_t base, sp_ref **slot)
{
    sp_status status = sp_radix_heighten(edit, set, base);
    sp_ref *ref = &set->root;
    for (uint64_t level = set->height; !status && level; level--) {
        status = sp_radix_own(edit, ref, level);
        if (!status)
            ref = &as_inner(*ref)->child[base >> level_bits(level - 1) & (FANOUT - 1)];
    }
    *slot = ref;
    if (status && !(base >> level_bits(set->height)))
        sp_radix_settle(edit, &set->root, set->height, base, base);
    return status;
}

sp_status sp_radix_put_words(sp_edit *edit, sp_set *set, uint64_t base, const uint64_t *words)
{
    sp_ref leaf, *slot;
    sp_status status = sp_leaf_from_words(edit, words, &leaf);
    if (status)
        return status;
    status = open_leaf(edit, set, base, &slot);
    if (status)
        sp_leaf_retire(edit, leaf);
    else
        put_leaf(edit, &set->root, set->height, base, leaf);
    sp_radix_lower(edit, set);
    return status;
}

/* A node of 64 leaves, or what stands for it where it is full. */
static sp_status gather_leaves(sp_edit *edit, const sp_ref leaves[FANOUT], sp_ref *out)
{
    uint64_t pages = 0;
    for (unsigned i = 0; i < FANOUT; i++)
        pages += sp_leaf_count(leaves[i]);
    *out = SP_FULL;
    if (pages == level_span(1))
        return SP_OK;
    sp_inner *inner = sp_edit_new(edit, SP_KIND_INNER, sizeof *inner);
    if (!inner) {
        for (unsigned i = 0; i < FANOUT; i++)
            sp_leaf_retire(edit, leaves[i]);
        return SP_NOMEM;
    }
    inner->pages = pages;
    memcpy(inner->child, leaves, sizeof inner->child);
    *out = sp_node_ref(inner);
    return SP_OK;
}

sp_status sp_radix_put_leaves(sp_edit *edit, sp_set *set, uint64_t base,
                              const sp_ref leaves[FANOUT])
{
    sp_ref node, *path[MAX_HEIGHT + 1], *ref = &set->root;
    sp_status status = gather_leaves(edit, leaves, &node);
    if (status)
        return status;
    uint64_t last = base + level_span(1) - 1;
    status = sp_radix_heighten(edit, set, last);
    for (uint64_t level = set->height; !status && level > 1; level--) {
        path[level] = ref;
        status = sp_radix_own(edit, ref, level);
        if (!status)
            ref = &as_inner(*ref)->child[base >> level_bits(level - 1) & (FANOUT - 1)];
    }
    if (status) {
        sp_radix_drop(edit, node, 1);
        if (!(last >> level_bits(set->height)))
            sp_radix_settle(edit, &set->root, set->height, base, last);
    } else {
        *ref = node;
        for (uint64_t level = 2; level <= set->height; level++) {
            as_inner(*path[level])->pages += ref_pages(node, 1);
            sp_radix_collapse(edit, path[level], level);
        }
    }
    sp_radix_lower(edit, set);
    return status;
}

/* Adds ranges that lie within one leaf's span. */
static sp_status add_near(sp_edit *edit, sp_set *set, const sp_range *ranges, size_t n)
{
    uint64_t base = ranges[0].start & ~(uint64_t)(SP_LEAF_PAGES - 1);
    sp_ref leaf, sum, *slot;
    sp_status status = sp_leaf_from_ranges(edit, base, ranges, n, &leaf);
    if (status)
        return status;
    status = open_leaf(edit, set, base, &slot);
    if (!status && *slot != SP_EMPTY) {
        status = sp_leaf_combine(edit, SP_OR, *slot, leaf, &sum);
        if (!status) {
            sp_leaf_retire(edit, leaf);
            leaf = sum;
        }
    }
    if (status) {
        sp_leaf_retire(edit, leaf);
        if (!(base >> level_bits(set->height)))
            sp_radix_settle(edit, &set->root, set->height, base, base);
    } else {
        put_leaf(edit, &set->root, set->height, base, leaf);
    }
    sp_radix_lower(edit, set);
    return status;
}

/* Ranges at the front of a list that lie within the leaf of the first. */
static size_t near(const sp_range *ranges, size_t n)
{
    uint64_t leaf = ranges[0].start >> SP_LEAF_BITS;
    size_t i = 0;
    while (i < n && (ranges[i].stop - 1) >> SP_LEAF_BITS == leaf)
        i++;
    return i;
}

/* Ranges of one leaf from which building them as a leaf beats adding one by one. */
#define A_LEAFFUL 4

sp_status sp_radix_add_sorted(sp_edit *edit, sp_set *set, const sp_range *ranges, size_t n)
{
    sp_status status = SP_OK;
    for (size_t i = 0; !status && i < n;) {
        size_t count = near(ranges + i, n - i);
        if (count >= A_LEAFFUL) {
            status = add_near(edit, set, ranges + i, count);
            i += count;
        } else {
            status = sp_radix_assign(edit, set, ranges[i].start, ranges[i].stop, true);
            i++;
        }
    }
    return status;
}

sp_status sp_radix_load(sp_edit *edit, sp_cursor *from, sp_set *out)
{
    enum { BATCH = 256 };
    sp_range ranges[BATCH];
    sp_set made = sp_set_empty(&sp_engine_roaring);
    sp_status status = SP_OK;
    for (size_t n; !status && (n = sp_cursor_ranges(edit->kernels, from, ranges, BATCH));)
        status = sp_radix_add_sorted(edit, &made, ranges, n);
    if (status)
        sp_radix_drop(edit, made.root, made.height);
    else
        *out = made;
    return status;
}
