/*
 * radix_algebra.c - set operations on trees of the roaring engine.  Floor 3.
 *
 * Where one side is flat, the operation becomes a unary one on the other: nothing, everything, a
 * copy or a complement.  Four operations and two flat values thus need no table of cases, and the
 * cost is that of the parts in which both sides have structure, plus copying.
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

/* Retires the children [0, n) made so far at level - 1 and passes the status on. */
static sp_status give_up(sp_edit *edit, const sp_ref *child, unsigned n, uint64_t level,
                         sp_status status)
{
    for (unsigned i = 0; i < n; i++) {
        sp_set dropped = {&sp_engine_roaring, child[i], level - 1};
        sp_set_retire(edit, &dropped);
    }
    return status;
}

/* The inner node, or flat ref, of these children, which are retired on failure. */
static sp_status join(sp_edit *edit, const sp_ref child[FANOUT], uint64_t level, sp_ref *out)
{
    uint64_t pages = 0;
    for (unsigned i = 0; i < FANOUT; i++)
        pages += ref_pages(child[i], level - 1);
    if (pages == 0 || pages == level_span(level)) {
        *out = pages ? SP_FULL : SP_EMPTY;
        return SP_OK;
    }
    sp_inner *inner = sp_edit_new(edit, SP_KIND_INNER, sizeof *inner);
    if (!inner)
        return give_up(edit, child, FANOUT, level, SP_NOMEM);
    inner->pages = pages;
    memcpy(inner->child, child, sizeof inner->child);
    *out = sp_node_ref(inner);
    return SP_OK;
}

/* *out = a copy of v, or its complement within a span at `level`. */
static sp_status duplicate(sp_edit *edit, view v, uint64_t level, bool complement, sp_ref *out)
{
    if (flat_at(v, level)) {
        *out = (v.ref == SP_FULL) != complement ? SP_FULL : SP_EMPTY;
        return SP_OK;
    }
    if (!level)
        return complement ? sp_leaf_combine(edit, SP_XOR, v.ref, SP_FULL, out)
                          : sp_leaf_clone(edit, v.ref, out);
    sp_ref child[FANOUT];
    for (unsigned i = 0; i < FANOUT; i++) {
        sp_status status = duplicate(edit, child_of(v, level, i), level - 1, complement, &child[i]);
        if (status)
            return give_up(edit, child, i, level, status);
    }
    return join(edit, child, level, out);
}

/* v combined with a flat value f(.) whose truth for absent and present members is given. */
static sp_status unary(sp_edit *edit, view v, uint64_t level, bool absent, bool present,
                       sp_ref *out)
{
    if (absent != present)
        return duplicate(edit, v, level, absent, out);
    *out = present ? SP_FULL : SP_EMPTY;
    return SP_OK;
}

static sp_status combine(sp_edit *edit, sp_op op, view a, view b, uint64_t level, sp_ref *out)
{
    if (flat_at(a, level)) {
        bool all = a.ref == SP_FULL;
        return unary(edit, b, level, sp_op_truth(op, all, false), sp_op_truth(op, all, true), out);
    }
    if (flat_at(b, level)) {
        bool all = b.ref == SP_FULL;
        return unary(edit, a, level, sp_op_truth(op, false, all), sp_op_truth(op, true, all), out);
    }
    if (!level)
        return sp_leaf_combine(edit, op, a.ref, b.ref, out);
    sp_ref child[FANOUT];
    for (unsigned i = 0; i < FANOUT; i++) {
        sp_status status = combine(edit, op, child_of(a, level, i), child_of(b, level, i),
                                   level - 1, &child[i]);
        if (status)
            return give_up(edit, child, i, level, status);
    }
    return join(edit, child, level, out);
}

sp_status sp_radix_combine(sp_edit *edit, sp_op op, const sp_set *a, const sp_set *b, sp_set *out)
{
    sp_set made = {&sp_engine_roaring, SP_EMPTY, sp_max(a->height, b->height)};
    view va = {a->root, a->height}, vb = {b->root, b->height};
    sp_status status = combine(edit, op, va, vb, made.height, &made.root);
    if (status)
        return status;
    sp_radix_lower(edit, &made);
    *out = made;
    return SP_OK;
}

static uint64_t view_pages(view v) { return ref_pages(v.ref, v.level); }

static uint64_t intersection(const sp_kernels *k, view a, view b, uint64_t level)
{
    if (flat_at(a, level))
        return a.ref == SP_FULL ? view_pages(b) : 0;
    if (flat_at(b, level))
        return b.ref == SP_FULL ? view_pages(a) : 0;
    if (!level)
        return sp_leaf_intersection(k, a.ref, b.ref);
    uint64_t pages = 0;
    for (unsigned i = 0; i < FANOUT; i++)
        pages += intersection(k, child_of(a, level, i), child_of(b, level, i), level - 1);
    return pages;
}

uint64_t sp_radix_intersection(const sp_kernels *k, const sp_set *a, const sp_set *b)
{
    view va = {a->root, a->height}, vb = {b->root, b->height};
    return intersection(k, va, vb, sp_max(a->height, b->height));
}
