/*
 * radix_algebra.c - set operations on trees of the roaring engine.  Floor 3.
 *
 * Where one side is flat, the operation becomes a unary one on the other: nothing, everything, the
 * same or a complement.  Four operations and two flat values thus need no table of cases, and the
 * cost is that of the parts in which both sides have structure.
 *
 * What comes out the same as an operand's subtree is that subtree, held once more, where its nodes
 * are counted; else a copy.  A result is first a `piece`, which may be lent by an operand, and is
 * held only by a parent that keeps it: most parents find that they are an operand's node again.
 *
 * A set lower than the other is looked at as if its root were the first child of taller ones.
 */
#include <string.h>

#include "set/radix.h"

/* A ref at `level`, seen from the same or a higher level. */
typedef struct view {
    sp_ref ref;
    uint64_t level;
} view;

static const view nothing = {SP_EMPTY, 0};

/* A result: made for it, or an operand's own. */
typedef struct piece {
    sp_ref ref;
    uint64_t pages;
    bool lent;
} piece;

/* The children of a node to be. */
typedef struct brood {
    sp_ref child[FANOUT];
    uint64_t lent; /* bit i: child i is an operand's */
    uint64_t pages;
} brood;

/* Of a view that is not flat at `level`. */
static view child_of(view v, uint64_t level, unsigned i)
{
    if (v.level < level)
        return i ? nothing : v;
    return (view){as_inner(v.ref)->child[i], level - 1};
}

/* The same membership over all of a span at `level`. */
static bool flat_at(view v, uint64_t level)
{
    return v.ref == SP_EMPTY || (v.ref == SP_FULL && v.level == level);
}

static piece flat_piece(bool value, uint64_t level)
{
    return (piece){value ? SP_FULL : SP_EMPTY, value ? level_span(level) : 0, false};
}

static void put(brood *all, unsigned i, piece p)
{
    all->child[i] = p.ref;
    all->pages += p.pages;
    all->lent |= (uint64_t)p.lent << i;
}

/* Retires the first n children, but for those of others, and passes the status on. */
static sp_status give_up(sp_edit *edit, const brood *all, unsigned n, uint64_t level,
                         sp_status status)
{
    for (unsigned i = 0; i < n; i++)
        if (!(all->lent >> i & 1))
            sp_radix_drop(edit, all->child[i], level - 1);
    return status;
}

/* The operand's node at `level` that has just these children, or EMPTY. */
static sp_ref same_as(const sp_edit *edit, view v, const brood *all, uint64_t level)
{
    if (v.level != level || !sp_edit_may_hold(edit, v.ref) || as_inner(v.ref)->pages != all->pages)
        return SP_EMPTY;
    return memcmp(as_inner(v.ref)->child, all->child, sizeof all->child) ? SP_EMPTY : v.ref;
}

/* The node, or flat ref, of these children, which are given up on failure. */
static sp_status join(sp_edit *edit, const brood *all, view a, view b, uint64_t level, piece *out)
{
    if (all->pages == 0 || all->pages == level_span(level)) {
        *out = flat_piece(all->pages, level);
        return SP_OK;
    }
    sp_ref old = same_as(edit, a, all, level);
    if (!old)
        old = same_as(edit, b, all, level);
    if (old) {
        *out = (piece){old, all->pages, true};
        return SP_OK;
    }
    sp_inner *inner = sp_edit_new(edit, SP_KIND_INNER, sizeof *inner);
    if (!inner)
        return give_up(edit, all, FANOUT, level, SP_NOMEM);
    inner->pages = all->pages;
    memcpy(inner->child, all->child, sizeof inner->child);
    for (uint64_t left = all->lent; left; left &= left - 1)
        sp_ref_hold(inner->child[sp_lowest(left)]);
    *out = (piece){sp_node_ref(inner), all->pages, false};
    return SP_OK;
}

static sp_status complement_leaf(sp_edit *edit, sp_ref leaf, piece *out)
{
    out->pages = SP_LEAF_PAGES - sp_leaf_count(leaf);
    out->lent = false;
    return sp_leaf_combine(edit, SP_XOR, leaf, SP_FULL, &out->ref);
}

static sp_status same_leaf(sp_edit *edit, sp_ref leaf, piece *out)
{
    out->pages = sp_leaf_count(leaf);
    out->lent = false;
    return sp_leaf_clone(edit, leaf, &out->ref);
}

/* *out = v's members, or its complement within a span at `level`. */
static sp_status duplicate(sp_edit *edit, view v, uint64_t level, bool complement, piece *out)
{
    if (flat_at(v, level)) {
        *out = flat_piece((v.ref == SP_FULL) != complement, level);
        return SP_OK;
    }
    if (!complement && v.level == level && sp_edit_may_hold(edit, v.ref)) {
        *out = (piece){v.ref, ref_pages(v.ref, level), true};
        return SP_OK;
    }
    if (!level)
        return complement ? complement_leaf(edit, v.ref, out) : same_leaf(edit, v.ref, out);
    brood all = {.lent = 0, .pages = 0};
    for (unsigned i = 0; i < FANOUT; i++) {
        piece p;
        sp_status status = duplicate(edit, child_of(v, level, i), level - 1, complement, &p);
        if (status)
            return give_up(edit, &all, i, level, status);
        put(&all, i, p);
    }
    return join(edit, &all, nothing, nothing, level, out);
}

/* v combined with a flat value f(.) whose truth for absent and present members is given. */
static sp_status unary(sp_edit *edit, view v, uint64_t level, bool absent, bool present, piece *out)
{
    if (absent != present)
        return duplicate(edit, v, level, absent, out);
    *out = flat_piece(present, level);
    return SP_OK;
}

static sp_status combine_leaves(sp_edit *edit, sp_op op, sp_ref a, sp_ref b, piece *out)
{
    sp_status status = sp_leaf_combine(edit, op, a, b, &out->ref);
    out->lent = false;
    if (!status)
        out->pages = sp_leaf_count(out->ref);
    return status;
}

static sp_status combine(sp_edit *edit, sp_op op, view a, view b, uint64_t level, piece *out);

/* The children of a view that is not flat, from the second on; a lower one has none there. */
static const sp_ref *children_of(view v, uint64_t level)
{
    static const sp_ref none[FANOUT];
    return v.level == level ? as_inner(v.ref)->child : none;
}

/* Children of two nodes at `level`.  Most have a side that is EMPTY: what is then left is the other
 * one or nothing. */
static sp_status combine_nodes(sp_edit *edit, sp_op op, view a, view b, uint64_t level, piece *out)
{
    brood all = {{SP_EMPTY}, 0, 0};
    const sp_ref *of_a = children_of(a, level), *of_b = children_of(b, level);
    sp_ref keeps_a = sp_op_truth(op, true, false) ? ~(sp_ref)0 : 0;
    sp_ref keeps_b = sp_op_truth(op, false, true) ? ~(sp_ref)0 : 0;
    piece p;
    sp_status status = combine(edit, op, child_of(a, level, 0), child_of(b, level, 0), level - 1,
                               &p);
    if (status)
        return status;
    put(&all, 0, p);
    for (unsigned i = 1; i < FANOUT; i++) {
        sp_ref x = of_a[i], y = of_b[i];
        if (x && y) {
            status = combine(edit, op, (view){x, level - 1}, (view){y, level - 1}, level - 1, &p);
        } else {
            sp_ref left = (x & keeps_a) | (y & keeps_b);
            if (!left)
                continue;
            status = duplicate(edit, (view){left, level - 1}, level - 1, false, &p);
        }
        if (status)
            return give_up(edit, &all, i, level, status);
        put(&all, i, p);
    }
    return join(edit, &all, a, b, level, out);
}

static sp_status combine(sp_edit *edit, sp_op op, view a, view b, uint64_t level, piece *out)
{
    if (flat_at(a, level)) {
        bool all = a.ref == SP_FULL;
        return unary(edit, b, level, sp_op_truth(op, all, false), sp_op_truth(op, all, true), out);
    }
    if (flat_at(b, level)) {
        bool all = b.ref == SP_FULL;
        return unary(edit, a, level, sp_op_truth(op, false, all), sp_op_truth(op, true, all), out);
    }
    if (a.ref == b.ref && a.level == b.level)
        return unary(edit, a, level, false, sp_op_truth(op, true, true), out);
    if (!level)
        return combine_leaves(edit, op, a.ref, b.ref, out);
    return combine_nodes(edit, op, a, b, level, out);
}

/* The part of a set that lies below another's height. */
static view trimmed(view v, uint64_t height)
{
    while (v.level > height) {
        v.level--;
        if (!is_flat(v.ref))
            v.ref = as_inner(v.ref)->child[0];
    }
    return v;
}

sp_status sp_radix_combine(sp_edit *edit, sp_op op, const sp_set *a, const sp_set *b, sp_set *out)
{
    view va = {a->root, a->height}, vb = {b->root, b->height};
    if (op == SP_AND)
        va = trimmed(va, vb.level);
    if (op == SP_AND || op == SP_ANDNOT)
        vb = trimmed(vb, va.level);
    piece made;
    sp_set result = {&sp_engine_roaring, SP_EMPTY, sp_max(va.level, vb.level)};
    sp_status status = combine(edit, op, va, vb, result.height, &made);
    if (status)
        return status;
    result.root = made.ref;
    if (made.lent)
        sp_ref_hold(made.ref);
    sp_radix_lower(edit, &result);
    *out = result;
    return SP_OK;
}

static uint64_t intersection(const sp_kernels *k, sp_ref a, sp_ref b, uint64_t level)
{
    if (a == SP_EMPTY || b == SP_EMPTY)
        return 0;
    if (a == b || b == SP_FULL)
        return ref_pages(a, level);
    if (a == SP_FULL)
        return ref_pages(b, level);
    if (!level)
        return sp_leaf_intersection(k, a, b);
    uint64_t pages = 0;
    for (unsigned i = 0; i < FANOUT; i++) {
        sp_ref x = as_inner(a)->child[i], y = as_inner(b)->child[i];
        if (x && y)
            pages += intersection(k, x, y, level - 1);
    }
    return pages;
}

uint64_t sp_radix_intersection(const sp_kernels *k, const sp_set *a, const sp_set *b)
{
    uint64_t height = sp_min(a->height, b->height);
    view va = {a->root, a->height}, vb = {b->root, b->height};
    return intersection(k, trimmed(va, height).ref, trimmed(vb, height).ref, height);
}
