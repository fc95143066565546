/*
 * radix_edit.c - changing a tree of the roaring engine.  Floor 3.
 *
 * assign works in two passes over the two edges of its range.  The first makes every node on the
 * edges ours (copying, or opening a flat ref into a node of 64 such refs) and prepares the two edge
 * leaves; each of its steps keeps the members as they are, so it may fail anywhere.  The second
 * changes members, allocates nothing and cannot fail.  What lies between the edges is dropped
 * whole, whatever its size.
 */
#include "set/radix.h"

sp_status sp_radix_own(sp_edit *edit, sp_ref *ref, uint64_t level)
{
    sp_inner *inner;
    if (is_flat(*ref)) {
        inner = sp_edit_new(edit, SP_KIND_INNER, sizeof *inner);
        if (!inner)
            return SP_NOMEM;
        inner->pages = ref_pages(*ref, level);
        for (unsigned i = 0; i < FANOUT; i++)
            inner->child[i] = *ref;
    } else {
        if (sp_edit_owns(edit, sp_ref_node(*ref)))
            return SP_OK;
        inner = sp_edit_copy(edit, sp_ref_node(*ref));
        if (!inner)
            return SP_NOMEM;
        sp_edit_retire(edit, sp_ref_node(*ref));
    }
    *ref = sp_node_ref(inner);
    return SP_OK;
}

/* Pages [lo, hi] of the ref's span: all of it? */
static bool covers(uint64_t lo, uint64_t hi, uint64_t level)
{
    return lo == 0 && hi == level_span(level) - 1;
}

static bool settled(sp_ref ref, bool value) { return ref == (value ? SP_FULL : SP_EMPTY); }

/* One child's part of [lo, hi]. */
typedef struct part {
    uint64_t lo, hi;
} part;

static part part_of(unsigned i, uint64_t lo, uint64_t hi, uint64_t level)
{
    uint64_t span = level_span(level - 1), base = i * span;
    return (part){sp_max(lo, base) - base, sp_min(hi, base + span - 1) - base};
}

static sp_status prepare(sp_edit *edit, sp_ref *ref, uint64_t level, uint64_t lo, uint64_t hi,
                         bool value)
{
    if (settled(*ref, value) || covers(lo, hi, level))
        return SP_OK;
    if (!level)
        return sp_leaf_prepare(edit, ref, (uint32_t)lo, (uint32_t)hi, value);
    sp_status status = sp_radix_own(edit, ref, level);
    unsigned left = (unsigned)(lo >> level_bits(level - 1));
    unsigned right = (unsigned)(hi >> level_bits(level - 1));
    for (unsigned i = left; !status && i <= right; i += right > left ? right - left : 1) {
        part p = part_of(i, lo, hi, level);
        status = prepare(edit, &as_inner(*ref)->child[i], level - 1, p.lo, p.hi, value);
    }
    return status;
}

void sp_radix_collapse(sp_edit *edit, sp_ref *ref, uint64_t level)
{
    uint64_t pages = as_inner(*ref)->pages;
    if (pages == 0 || pages == level_span(level)) {
        sp_edit_retire(edit, sp_ref_node(*ref));
        *ref = pages ? SP_FULL : SP_EMPTY;
    }
}

static int64_t commit(sp_edit *edit, sp_ref *ref, uint64_t level, uint64_t lo, uint64_t hi,
                      bool value)
{
    if (settled(*ref, value))
        return 0;
    if (covers(lo, hi, level)) {
        int64_t before = (int64_t)ref_pages(*ref, level);
        sp_radix_drop(edit, *ref, level);
        *ref = value ? SP_FULL : SP_EMPTY;
        return (int64_t)ref_pages(*ref, level) - before;
    }
    if (!level)
        return sp_leaf_commit(edit, ref, (uint32_t)lo, (uint32_t)hi, value);
    sp_inner *inner = as_inner(*ref);
    int64_t delta = 0;
    for (unsigned i = (unsigned)(lo >> level_bits(level - 1)); i <= hi >> level_bits(level - 1);
         i++) {
        part p = part_of(i, lo, hi, level);
        delta += commit(edit, &inner->child[i], level - 1, p.lo, p.hi, value);
    }
    inner->pages += (uint64_t)delta;
    sp_radix_collapse(edit, ref, level);
    return delta;
}

void sp_radix_settle(sp_edit *edit, sp_ref *ref, uint64_t level, uint64_t lo, uint64_t hi)
{
    if (is_flat(*ref) || covers(lo, hi, level))
        return;
    if (!level) {
        sp_leaf_settle(edit, ref);
        return;
    }
    if (!sp_edit_owns(edit, sp_ref_node(*ref)))
        return;
    unsigned left = (unsigned)(lo >> level_bits(level - 1));
    unsigned right = (unsigned)(hi >> level_bits(level - 1));
    for (unsigned i = left; i <= right; i += right > left ? right - left : 1) {
        part p = part_of(i, lo, hi, level);
        sp_radix_settle(edit, &as_inner(*ref)->child[i], level - 1, p.lo, p.hi);
    }
    sp_radix_collapse(edit, ref, level);
}

void sp_radix_drop(sp_edit *edit, sp_ref ref, uint64_t level)
{
    if (is_flat(ref))
        return;
    if (!level) {
        sp_leaf_retire(edit, ref);
    } else if (sp_node_let_go(sp_ref_node(ref))) {
        for (unsigned i = 0; i < FANOUT; i++)
            sp_radix_drop(edit, as_inner(ref)->child[i], level - 1);
        sp_edit_retire(edit, sp_ref_node(ref));
    }
}

void sp_radix_lower(sp_edit *edit, sp_set *set)
{
    if (set->root == SP_EMPTY)
        set->height = 0;
    while (set->height && !is_flat(set->root)) {
        const sp_inner *root = as_inner(set->root);
        sp_ref first = root->child[0];
        if (ref_pages(first, set->height - 1) != root->pages)
            break;
        if (sp_node_is_counted(&root->head)) {
            sp_ref_hold(first);
            sp_radix_drop(edit, set->root, set->height);
        } else {
            sp_edit_retire(edit, sp_ref_node(set->root));
        }
        set->root = first;
        set->height--;
    }
}

sp_status sp_radix_heighten(sp_edit *edit, sp_set *set, uint64_t last)
{
    while (last >> level_bits(set->height)) {
        if (set->root != SP_EMPTY) {
            sp_inner *root = sp_edit_new(edit, SP_KIND_INNER, sizeof *root);
            if (!root)
                return SP_NOMEM;
            root->pages = ref_pages(set->root, set->height);
            root->child[0] = set->root;
            for (unsigned i = 1; i < FANOUT; i++)
                root->child[i] = SP_EMPTY;
            set->root = sp_node_ref(root);
        }
        set->height++;
    }
    return SP_OK;
}

/* assign for a range within one leaf, which most conversions are: one walk down, one up. */
static sp_status assign_in_leaf(sp_edit *edit, sp_set *set, uint64_t start, uint64_t last,
                                bool value)
{
    sp_ref *path[MAX_HEIGHT + 1], *ref = &set->root;
    sp_status status = SP_OK;
    int32_t delta = 0;
    for (uint64_t level = set->height; level && !status; level--) {
        path[level] = ref;
        if (settled(*ref, value))
            return SP_OK;
        status = sp_radix_own(edit, ref, level);
        if (!status)
            ref = &as_inner(*ref)->child[start >> level_bits(level - 1) & (FANOUT - 1)];
    }
    if (!status)
        status = sp_leaf_assign(edit, ref, start & (SP_LEAF_PAGES - 1), last & (SP_LEAF_PAGES - 1),
                                value, &delta);
    if (status) {
        uint64_t span = level_span(set->height);
        sp_radix_settle(edit, &set->root, set->height, start & (span - 1), last & (span - 1));
        return status;
    }
    for (uint64_t level = 1; level <= set->height; level++) {
        as_inner(*path[level])->pages += (uint64_t)(int64_t)delta;
        sp_radix_collapse(edit, path[level], level);
    }
    return SP_OK;
}

static sp_status assign_across(sp_edit *edit, sp_set *set, uint64_t start, uint64_t last,
                               bool value)
{
    sp_status status = prepare(edit, &set->root, set->height, start, last, value);
    if (!status)
        commit(edit, &set->root, set->height, start, last, value);
    else
        sp_radix_settle(edit, &set->root, set->height, start, last);
    return status;
}

sp_status sp_radix_assign(sp_edit *edit, sp_set *set, uint64_t start, uint64_t stop, bool value)
{
    uint64_t last = stop - 1;
    sp_status status = SP_OK;
    if (value)
        status = sp_radix_heighten(edit, set, last);
    else if (start >> level_bits(set->height))
        return SP_OK;
    else
        last = sp_min(last, level_span(set->height) - 1);
    if (!status && (start ^ last) >> SP_LEAF_BITS == 0)
        status = assign_in_leaf(edit, set, start, last, value);
    else if (!status)
        status = assign_across(edit, set, start, last, value);
    sp_radix_lower(edit, set);
    return status;
}

/* Makes the nodes of a path ours, which leads to a leaf and has no flat ref; false if memory is
 * short. */
static bool own_path(sp_edit *edit, sp_set *set, uint64_t gfn, sp_ref **path)
{
    sp_ref *ref = &set->root;
    for (uint64_t level = set->height; level; level--) {
        if (sp_radix_own(edit, ref, level) != SP_OK)
            return false;
        path[level] = ref;
        ref = &as_inner(*ref)->child[gfn >> level_bits(level - 1) & (FANOUT - 1)];
    }
    path[0] = ref;
    return true;
}

/* The leaf's page counts go up its path, which is ours. */
static void count_path(sp_edit *edit, sp_set *set, sp_ref **path, uint64_t delta)
{
    bool emptied = *path[0] == SP_EMPTY;
    for (uint64_t level = 1; level <= set->height; level++) {
        as_inner(*path[level])->pages += delta;
        sp_radix_collapse(edit, path[level], level);
    }
    if (emptied)
        sp_radix_lower(edit, set);
}

bool sp_radix_turn(sp_edit *edit, sp_set *set, uint64_t start, uint64_t stop, bool value,
                   sp_turned *turned)
{
    sp_ref *path[MAX_HEIGHT + 1], *ref = &set->root;
    uint64_t level = set->height, base = start & ~(uint64_t)(SP_LEAF_PAGES - 1);
    bool ours = true;
    if (stop - base > SP_LEAF_PAGES || start >> level_bits(level))
        return false;
    for (; level; level--) {
        if (is_flat(*ref))
            return false;
        ours &= sp_edit_owns(edit, sp_ref_node(*ref));
        path[level] = ref;
        ref = &as_inner(*ref)->child[start >> level_bits(level - 1) & (FANOUT - 1)];
    }
    path[0] = ref;
    uint32_t first = (uint32_t)(start - base), last = (uint32_t)(stop - 1 - base);
    if (!ours) {
        turned->pages = turned->n = 0;
        if (sp_leaf_count_range(*ref, first, last) == (value ? last - first + 1 : 0))
            return true;
        if (!own_path(edit, set, start, path))
            return false;
    }
    if (!sp_leaf_turn(edit, path[0], first, last, value, turned))
        return false;
    for (uint32_t i = 0; i < turned->n; i++) {
        turned->range[i].start += base;
        turned->range[i].stop += base;
    }
    if (turned->pages)
        count_path(edit, set, path, value ? turned->pages : 0 - turned->pages);
    return true;
}
