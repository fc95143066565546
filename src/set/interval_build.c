/*
 * interval_build.c - packed interval trees, bottom up, and what is made by way of them.  Floor 3.
 */
#include "set/interval_build.h"

#include <string.h>

/* ---- nodes of a list ---- */

/* Cuts a list of n into `parts`; where part i begins. */
static unsigned cut(unsigned n, unsigned parts, unsigned i) { return n * i / parts; }

static sp_status give_up(sp_edit *edit, const sp_interval_child *made, unsigned n)
{
    for (unsigned i = 0; i < n; i++)
        sp_edit_retire(edit, sp_ref_node(made[i].ref));
    return SP_NOMEM;
}

sp_status sp_interval_leaves(sp_edit *edit, const sp_range *runs, unsigned n,
                             sp_interval_child *made, unsigned *count)
{
    unsigned most = n ? sp_interval_most(runs[0].start, runs[n - 1].stop) : 1;
    *count = (n + most - 1) / most;
    for (unsigned i = 0; i < *count; i++) {
        unsigned from = cut(n, *count, i), to = cut(n, *count, i + 1);
        sp_interval_leaf *leaf = sp_interval_leaf_new(edit, runs + from, to - from, to - from);
        if (!leaf)
            return give_up(edit, made, i);
        made[i] = (sp_interval_child){runs[from].start, sp_node_ref(leaf), leaf->pages, leaf->n};
    }
    return SP_OK;
}

static bool make_inner(sp_edit *edit, const sp_interval_child *children, unsigned n,
                       sp_interval_child *made)
{
    size_t bytes = n * sizeof *children;
    sp_interval_inner *inner = sp_edit_new(edit, SP_KIND_BRANCH, sizeof *inner + bytes);
    if (!inner)
        return false;
    inner->n = n;
    memcpy(inner->child, children, bytes);
    *made = (sp_interval_child){children->first, sp_node_ref(inner), 0, 0};
    for (unsigned i = 0; i < n; i++) {
        made->pages += children[i].pages;
        made->runs += children[i].runs;
    }
    inner->pages = made->pages;
    return true;
}

sp_status sp_interval_inners(sp_edit *edit, const sp_interval_child *children, unsigned n,
                             sp_interval_child *made, unsigned *count)
{
    *count = (n + MOST_CHILDREN - 1) / MOST_CHILDREN;
    for (unsigned i = 0; i < *count; i++) {
        unsigned from = cut(n, *count, i), to = cut(n, *count, i + 1);
        if (!make_inner(edit, children + from, to - from, &made[i]))
            return give_up(edit, made, i);
    }
    return SP_OK;
}

/* ---- building ---- */

void sp_interval_begin(sp_interval_builder *b, sp_edit *edit)
{
    b->edit = edit;
    b->status = SP_OK;
    b->n = b->top = 0;
    b->tier[0].n = 0;
}

/* Adds a node to a tier; one that is full gives the front of its nodes to a parent. */
static void push(sp_interval_builder *b, unsigned level, sp_interval_child child)
{
    for (;; level++) {
        sp_interval_tier *tier = &b->tier[level];
        if (level > b->top) {
            b->top = level;
            tier->n = 0;
        }
        tier->child[tier->n++] = child;
        if (tier->n < MOST_CHILDREN + LEAST_CHILDREN)
            return;
        if (!make_inner(b->edit, tier->child, MOST_CHILDREN, &child)) {
            b->status = SP_NOMEM;
            return;
        }
        tier->n -= MOST_CHILDREN;
        memmove(tier->child, tier->child + MOST_CHILDREN, tier->n * sizeof child);
    }
}

/* Adds nodes that were made together, or notes that they could not be. */
static void push_all(sp_interval_builder *b, sp_status status, unsigned level,
                     const sp_interval_child *made, unsigned n)
{
    b->status = status;
    for (unsigned i = 0; !status && i < n; i++) {
        if (b->status)
            sp_interval_drop(b->edit, made[i].ref, level);
        else
            push(b, level, made[i]);
    }
}

static void push_leaf(sp_interval_builder *b, sp_interval_leaf *leaf)
{
    if (!leaf) {
        b->status = SP_NOMEM;
        return;
    }
    push(b, 0,
         (sp_interval_child){sp_interval_run(leaf, 0).start, sp_node_ref(leaf), leaf->pages,
                             leaf->n});
}

static void flush(sp_interval_builder *b)
{
    if (b->n && !b->status)
        push_leaf(b, sp_interval_leaf_new(b->edit, b->run, b->n, b->n));
    b->n = 0;
}

void sp_interval_put(sp_interval_builder *b, uint64_t start, uint64_t stop)
{
    if (b->n == SP_NARROW_MOST ||
        (b->n >= SP_LEAST_RUNS && sp_interval_most(b->run[0].start, stop) != SP_NARROW_MOST))
        flush(b);
    b->run[b->n++] = (sp_range){start, stop};
}

void sp_interval_take(sp_interval_builder *b, const sp_interval_leaf *leaf)
{
    flush(b);
    if (b->status)
        return;
    if (sp_edit_may_hold(b->edit, sp_node_ref(leaf))) {
        sp_ref_hold(sp_node_ref(leaf));
        push_leaf(b, leaf_of(sp_node_ref(leaf)));
    } else {
        push_leaf(b, sp_edit_copy(b->edit, &leaf->head));
    }
}

/* The last runs, if they are too few for a leaf of their own, go into leaves with those before. */
static void flush_last(sp_interval_builder *b)
{
    sp_interval_tier *leaves = &b->tier[0];
    sp_range runs[SP_NARROW_MOST + SP_LEAST_RUNS];
    sp_interval_child made[MOST_SPLIT];
    unsigned n, count;
    if (b->n >= SP_LEAST_RUNS || !b->n || !leaves->n || b->status) {
        flush(b);
        return;
    }
    sp_ref before = leaves->child[--leaves->n].ref;
    n = leaf_of(before)->n;
    sp_interval_copy(leaf_of(before), 0, n, runs);
    memcpy(runs + n, b->run, b->n * sizeof *runs);
    sp_interval_drop(b->edit, before, 0);
    sp_status status = sp_interval_leaves(b->edit, runs, n + b->n, made, &count);
    b->n = 0;
    push_all(b, status, 0, made, count);
}

static sp_status abandon(sp_interval_builder *b)
{
    for (unsigned level = 0; level <= b->top; level++)
        for (unsigned i = 0; i < b->tier[level].n; i++)
            sp_interval_drop(b->edit, b->tier[level].child[i].ref, level);
    return b->status;
}

sp_status sp_interval_finish(sp_interval_builder *b, sp_set *out)
{
    if (b->n == 1 && b->run[0].stop - b->run[0].start == SP_GFN_LIMIT) {
        *out = (sp_set){&sp_engine_interval, SP_FULL, 0};
        return SP_OK;
    }
    flush_last(b);
    for (unsigned level = 0; !b->status; level++) {
        sp_interval_tier *tier = &b->tier[level];
        sp_interval_child made[2];
        unsigned count;
        if (level == b->top && tier->n <= 1) {
            *out = sp_set_empty(&sp_engine_interval);
            if (tier->n) {
                out->root = tier->child[0].ref;
                out->height = level;
            }
            return SP_OK;
        }
        sp_status status = sp_interval_inners(b->edit, tier->child, tier->n, made, &count);
        tier->n = status ? tier->n : 0;
        push_all(b, status, level + 1, made, count);
    }
    return abandon(b);
}

/* ---- sets from ranges and words ---- */

sp_status sp_interval_load(sp_edit *edit, sp_cursor *from, sp_set *out)
{
    enum { BATCH = 128 };
    const sp_kernels *k = edit->kernels;
    sp_interval_builder b;
    sp_range ranges[BATCH];
    sp_interval_begin(&b, edit);
    for (size_t n; !b.status && (n = sp_cursor_ranges(k, from, ranges, BATCH));)
        for (size_t i = 0; i < n; i++)
            sp_interval_put(&b, ranges[i].start, ranges[i].stop);
    return sp_interval_finish(&b, out);
}

/* *set |= *more, of the same edit, whose nodes are used up or given up. */
static sp_status unite(sp_edit *edit, sp_set *set, sp_set *more)
{
    sp_set sum;
    sp_status status = SP_OK;
    if (set->root == SP_EMPTY) {
        *set = *more;
        return SP_OK;
    }
    status = sp_interval_combine(edit, SP_OR, set, more, &sum);
    sp_interval_drop_set(edit, more);
    if (!status) {
        sp_interval_drop_set(edit, set);
        *set = sum;
    }
    return status;
}

/* Ranges that are few beside the set's are put in one by one: the way to so many leaves is shorter
 * than a step for every leaf there is. */
static bool are_few(const sp_set *set, size_t n) { return n <= sp_interval_runs(set) / 256; }

sp_status sp_interval_add_sorted(sp_edit *edit, sp_set *set, const sp_range *ranges, size_t n)
{
    sp_status status = SP_OK;
    sp_interval_builder b;
    sp_set made;
    if (are_few(set, n)) {
        for (size_t i = 0; !status && i < n; i++)
            status = sp_interval_assign(edit, set, ranges[i].start, ranges[i].stop, true);
        return status;
    }
    sp_interval_begin(&b, edit);
    for (size_t i = 0; !b.status && i < n;) {
        sp_range run = ranges[i++];
        for (; i < n && ranges[i].start <= run.stop; i++)
            run.stop = sp_max(run.stop, ranges[i].stop);
        sp_interval_put(&b, run.start, run.stop);
    }
    status = sp_interval_finish(&b, &made);
    return status ? status : unite(edit, set, &made);
}

/* The runs of 2^16 pages from base, given as words. */
static sp_status from_words(sp_edit *edit, uint64_t base, const uint64_t *words, sp_set *out)
{
    uint64_t toggles[512], carry = 0, start = base;
    sp_interval_builder b;
    bool open = false;
    sp_interval_begin(&b, edit);
    for (size_t at = 0; !b.status && at < SP_LEAF_WORDS;) {
        size_t n = 0;
        at += edit->kernels->toggles(words + at, SP_LEAF_WORDS - at, base + 64 * at, &carry,
                                     toggles, &n, 512);
        for (size_t t = 0; t < n; t++, open = !open) {
            if (open)
                sp_interval_put(&b, start, toggles[t]);
            start = toggles[t];
        }
    }
    if (open)
        sp_interval_put(&b, start, base + SP_LEAF_PAGES);
    return sp_interval_finish(&b, out);
}

sp_status sp_interval_put_words(sp_edit *edit, sp_set *set, uint64_t base, const uint64_t *words)
{
    sp_range window = {base, base + SP_LEAF_PAGES};
    sp_set made, whole, rest;
    sp_status status = from_words(edit, base, words, &made);
    if (status)
        return status;
    if (sp_interval_rank(set, window.stop) == sp_interval_rank(set, window.start))
        return unite(edit, set, &made);
    whole = sp_set_empty(set->engine);
    status = sp_interval_assign(edit, &whole, window.start, window.stop, true);
    if (!status) {
        status = sp_interval_combine(edit, SP_ANDNOT, set, &whole, &rest);
        sp_interval_drop_set(edit, &whole);
    }
    if (status) {
        sp_interval_drop_set(edit, &made);
        return status;
    }
    status = unite(edit, &rest, &made);
    if (status) {
        sp_interval_drop_set(edit, &rest);
    } else {
        sp_interval_drop_set(edit, set);
        *set = rest;
    }
    return status;
}
