/*
 * interval_rebuild.c - changes of an interval tree that need more nodes or fewer.  Floor 3.
 *
 * The leaves at the two edges of the range give what is left of them to one list, with what the
 * range itself leaves between.  The list is cut into new leaves; they, and what is left of the two
 * nodes above the edges, are the list from which the next level is made, and so on to the root.  A
 * list too short for a node takes in that of a neighbour of the edges, which lies below the same
 * node or another one.  All of it is built beside the old tree.  When nothing can fail any more,
 * the old nodes that were taken apart are retired one by one, and what lies between the edges is
 * dropped whole, whatever its size.
 *
 * A set under edit holds its nodes alone, so what is taken apart has no other holder.  At each
 * level six nodes are taken apart at most, all in a row but for what lies between the edges: the
 * two edges, and those to which the taking in has come, before and after it comes to one more.
 */
#include <string.h>

#include "set/interval.h"

#define MOST_APART (6u * (TALLEST + 1))
#define MOST_MADE (MOST_SPLIT + 3u * (TALLEST + 1))

typedef struct change {
    sp_edit *edit;
    uint64_t height;
    sp_interval_path left, right; /* the edges */
    sp_interval_path first, last; /* what is taken apart */
    sp_ref apart[MOST_APART];     /* nodes taken apart */
    sp_node *made[MOST_MADE];
    unsigned napart, nmade;
} change;

/* The items of one level; at level 0 runs. */
typedef struct list {
    unsigned n;
    union {
        sp_range run[MOST_ITEMS];
        sp_interval_child child[2 * MOST_CHILDREN + MOST_SPLIT];
    };
} list;

static void take_apart(change *c, sp_ref ref)
{
    for (unsigned i = 0; i < c->napart; i++)
        if (c->apart[i] == ref)
            return;
    c->apart[c->napart++] = ref;
}

static void take_apart_level(change *c, uint64_t level)
{
    take_apart(c, c->left.node[level]);
    take_apart(c, c->right.node[level]);
    take_apart(c, c->first.node[level]);
    take_apart(c, c->last.node[level]);
}

/* True if there is nothing at this level but what is taken apart. */
static bool is_alone(const change *c, uint64_t level)
{
    for (uint64_t l = level + 1; l <= c->height; l++)
        if (c->first.at[l] || c->last.at[l] + 1 < inner_of(c->last.node[l])->n)
            return false;
    return true;
}

/* ---- lists ---- */

/* What remains of the runs of the two edge leaves, and of the range between. */
static void list_runs(const sp_interval_leaf *left, const sp_interval_leaf *right, uint64_t start,
                      uint64_t stop, bool value, list *items)
{
    sp_interval_splice s, t;
    sp_interval_splice_of(left, start, stop, value, &s);
    if (left == right) {
        items->n = sp_interval_spliced(left, &s, items->run);
        return;
    }
    sp_interval_splice_of(right, start, stop, value, &t);
    sp_interval_copy(left, 0, s.i, items->run);
    items->n = s.i;
    if (value) {
        items->run[items->n++] = (sp_range){sp_min(s.run[0].start, t.run[0].start),
                                            sp_max(s.run[0].stop, t.run[0].stop)};
    } else {
        if (s.n)
            items->run[items->n++] = s.run[0];
        if (t.n)
            items->run[items->n++] = t.run[0];
    }
    sp_interval_copy(right, t.j, (unsigned)right->n - t.j, items->run + items->n);
    items->n += (unsigned)right->n - t.j;
}

/* What remains of the children of the nodes of a level, with what was made between. */
static void list_children(const change *c, uint64_t level, const sp_interval_child *made,
                          unsigned n, list *items)
{
    const sp_interval_inner *first = inner_of(c->first.node[level]);
    const sp_interval_inner *last = inner_of(c->last.node[level]);
    unsigned before = c->first.at[level], at = c->last.at[level] + 1;
    memcpy(items->child, first->child, before * sizeof *made);
    memcpy(items->child + before, made, n * sizeof *made);
    memcpy(items->child + before + n, last->child + at, (last->n - at) * sizeof *made);
    items->n = before + n + (unsigned)last->n - at;
}

static size_t item_bytes(uint64_t level)
{
    return level ? sizeof(sp_interval_child) : sizeof(sp_range);
}

static unsigned copy_items(sp_ref ref, uint64_t level, void *out)
{
    if (!level) {
        sp_interval_copy(leaf_of(ref), 0, leaf_of(ref)->n, out);
        return leaf_of(ref)->n;
    }
    memcpy(out, inner_of(ref)->child, inner_of(ref)->n * sizeof(sp_interval_child));
    return (unsigned)inner_of(ref)->n;
}

/* Takes the items of a neighbour into a list, which has one. */
static void take_in(change *c, unsigned level, list *items)
{
    char *all = (char *)items->run;
    size_t bytes = item_bytes(level);
    if (sp_interval_forth(&c->last, c->height, level)) {
        items->n += copy_items(c->last.node[level], level, all + items->n * bytes);
        take_apart(c, c->last.node[level]);
    } else {
        list before;
        (void)sp_interval_back(&c->first, c->height, level);
        before.n = copy_items(c->first.node[level], level, before.run);
        memmove(all + before.n * bytes, all, items->n * bytes);
        memcpy(all, before.run, before.n * bytes);
        items->n += before.n;
        take_apart(c, c->first.node[level]);
    }
}

/* ---- nodes ---- */

static sp_status make(change *c, uint64_t level, const list *items, sp_interval_child *made,
                      unsigned *n)
{
    sp_status status = level ? sp_interval_inners(c->edit, items->child, items->n, made, n)
                             : sp_interval_leaves(c->edit, items->run, items->n, made, n);
    for (unsigned i = 0; !status && i < *n; i++)
        c->made[c->nmade++] = sp_ref_node(made[i].ref);
    return status;
}

/* Makes one root of n nodes of a level. */
static sp_status make_root(change *c, uint64_t level, sp_interval_child *made, unsigned n,
                           sp_set *out)
{
    sp_status status = SP_OK;
    *out = sp_set_empty(&sp_engine_interval);
    if (n > 1) {
        list items;
        items.n = n;
        memcpy(items.child, made, n * sizeof *made);
        status = make(c, ++level, &items, made, &n);
    }
    if (!status && n) {
        out->root = made->ref;
        out->height = level;
    }
    return status;
}

/* Makes the new tree from the runs at the edges. */
static sp_status build(change *c, list *items, sp_set *out)
{
    sp_interval_child made[MOST_SPLIT];
    unsigned n;
    for (unsigned level = 0;; level++) {
        if (items->n < (level ? LEAST_CHILDREN : SP_LEAST_RUNS) && !is_alone(c, level))
            take_in(c, level, items);
        sp_status status = make(c, level, items, made, &n);
        if (status)
            return status;
        if (is_alone(c, level))
            return make_root(c, level, made, n, out);
        take_apart_level(c, level + 1);
        list_children(c, level + 1, made, n, items);
    }
}

/* ---- the old tree ---- */

static void drop_between(change *c, uint64_t level, sp_ref ref, unsigned i, unsigned j)
{
    for (; i < j; i++)
        sp_interval_drop(c->edit, inner_of(ref)->child[i].ref, level - 1);
}

/* Drops what lies between the edges, and then the nodes that were taken apart. */
static void retire(change *c)
{
    for (uint64_t level = 1; level <= c->height; level++) {
        sp_ref left = c->left.node[level], right = c->right.node[level];
        unsigned after = c->left.at[level] + 1, before = c->right.at[level];
        if (left == right) {
            drop_between(c, level, left, after, before);
        } else {
            drop_between(c, level, left, after, (unsigned)inner_of(left)->n);
            drop_between(c, level, right, 0, before);
        }
        take_apart_level(c, level);
    }
    for (unsigned i = 0; i < c->napart; i++)
        sp_edit_retire(c->edit, sp_ref_node(c->apart[i]));
}

static bool is_everything(const list *items)
{
    return items->n == 1 && items->run[0].stop - items->run[0].start == SP_GFN_LIMIT;
}

/* A set that has no node: it becomes one of two runs at most, or another such set. */
static sp_status rebuild_flat(sp_edit *edit, sp_set *set, uint64_t start, uint64_t stop, bool value)
{
    sp_range run[2];
    unsigned n = 0;
    if (value == (set->root == SP_FULL))
        return SP_OK;
    if (value) {
        run[n++] = (sp_range){start, stop};
    } else {
        if (start)
            run[n++] = (sp_range){0, start};
        if (stop < SP_GFN_LIMIT)
            run[n++] = (sp_range){stop, SP_GFN_LIMIT};
    }
    if (!n || run[0].stop - run[0].start == SP_GFN_LIMIT) {
        set->root = n ? SP_FULL : SP_EMPTY;
        return SP_OK;
    }
    sp_interval_leaf *leaf = sp_interval_leaf_new(edit, run, n, n);
    if (!leaf)
        return SP_NOMEM;
    set->root = sp_node_ref(leaf);
    return SP_OK;
}

sp_status sp_interval_rebuild(sp_edit *edit, sp_set *set, uint64_t start, uint64_t stop, bool value)
{
    change c;
    list items;
    sp_set made;
    if (!sp_ref_is_node(set->root))
        return rebuild_flat(edit, set, start, stop, value);
    c.edit = edit;
    c.height = set->height;
    c.napart = c.nmade = 0;
    sp_interval_seek(set, start, &c.left);
    sp_interval_seek(set, value ? stop : stop - 1, &c.right);
    c.first = c.left;
    c.last = c.right;
    take_apart_level(&c, 0);
    list_runs(leaf_of(c.left.node[0]), leaf_of(c.right.node[0]), start, stop, value, &items);
    if (is_everything(&items)) {
        sp_interval_drop_set(edit, set);
        *set = (sp_set){&sp_engine_interval, SP_FULL, 0};
        return SP_OK;
    }
    sp_status status = build(&c, &items, &made);
    if (status) {
        for (unsigned i = 0; i < c.nmade; i++)
            sp_edit_retire(edit, c.made[i]);
        return status;
    }
    retire(&c);
    *set = made;
    return SP_OK;
}
