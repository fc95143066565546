/*
 * interval_edit.c - changing one leaf of an interval tree.  Floor 3.
 *
 * Most conversions put a run into a leaf, take one out or move its ends.  What that does to the
 * list is found first, then the nodes are made that it takes: the leaf, where it is not ours or has
 * no room, and copies of the way to it that a version may still reach.  None of that changes a
 * member; what follows - the list, the counts on the way up - cannot fail.  A change that needs
 * more leaves or fewer is left to interval_rebuild.c.
 */
#include "set/interval.h"

static void add_piece(sp_turned *turned, uint64_t start, uint64_t stop)
{
    if (start < stop)
        turned->range[turned->n++] = (sp_range){start, stop};
}

/* Says which of [start, stop) a splice changes; false if they may be too many pieces. */
static bool tell(const sp_interval_leaf *leaf, const sp_interval_splice *s, uint64_t start,
                 uint64_t stop, bool value, sp_turned *turned)
{
    turned->pages = (uint64_t)(value ? s->pages : -s->pages);
    turned->n = 0;
    if (!turned->pages || turned->pages == stop - start)
        return true;
    if (s->j - s->i >= turned->most)
        return false;
    uint64_t at = start;
    for (unsigned r = s->i; r < s->j; r++) {
        sp_range run = sp_interval_run(leaf, r);
        if (value)
            add_piece(turned, at, run.start);
        else
            add_piece(turned, sp_max(run.start, start), sp_min(run.stop, stop));
        at = run.stop;
    }
    if (value)
        add_piece(turned, at, stop);
    return true;
}

/* Room for n runs in a leaf that grows: an eighth more. */
static unsigned slack(unsigned n) { return n + n / 8 + 1; }

/* A leaf of other kind or base that has the runs.  SP_AGAIN: they are more than one leaf's. */
static sp_status remake(sp_edit *edit, const sp_interval_leaf *leaf, const sp_interval_splice *s,
                        sp_interval_leaf **out)
{
    sp_range list[SP_NARROW_MOST + 2];
    unsigned n = sp_interval_spliced(leaf, s, list);
    if (n > sp_interval_most(list[0].start, list[n - 1].stop))
        return SP_AGAIN;
    *out = sp_interval_leaf_new(edit, list, n, slack(n));
    return *out ? SP_OK : SP_NOMEM;
}

/* The leaf that takes a leaf's place, spliced; the leaf itself where it can be edited.  SP_AGAIN if
 * the runs are no single leaf of this tree. */
static sp_status replacement(sp_edit *edit, const sp_set *set, sp_interval_leaf *leaf,
                             const sp_interval_splice *s, sp_interval_leaf **out)
{
    unsigned n = leaf->n - (s->j - s->i) + s->n, room = sp_interval_room(leaf);
    bool ours = sp_edit_owns(edit, &leaf->head), sparse = room > 2 * n + 4;
    if (n < (set->height ? SP_LEAST_RUNS : 1))
        return SP_AGAIN;
    if (!set->height && s->n && s->run[0].stop - s->run[0].start == SP_GFN_LIMIT)
        return SP_AGAIN;
    if (!sp_interval_keeps(leaf, s))
        return remake(edit, leaf, s, out);
    if (ours && n <= room && !sparse) {
        *out = leaf;
    } else {
        unsigned wanted = n <= room && !sparse ? room : slack(n);
        *out = sp_interval_leaf_resize(edit, leaf, (unsigned)sp_max(wanted, leaf->n));
        if (!*out && ours && n <= room)
            *out = leaf; /* larger than it need be */
    }
    if (!*out)
        return SP_NOMEM;
    sp_interval_apply(*out, s);
    return SP_OK;
}

/* Makes the inner nodes of a way ours.  SP_NOMEM: some are. */
static sp_status own_path(sp_edit *edit, sp_set *set, sp_interval_path *path)
{
    sp_ref *ref = &set->root;
    for (uint64_t level = set->height; level; level--) {
        sp_node *node = sp_ref_node(*ref);
        if (!sp_edit_owns(edit, node)) {
            void *copy = sp_edit_copy(edit, node);
            if (!copy)
                return SP_NOMEM;
            sp_edit_retire(edit, node);
            *ref = sp_node_ref(copy);
        }
        path->node[level] = *ref;
        ref = &inner_of(*ref)->child[path->at[level]].ref;
    }
    return SP_OK;
}

/* Puts the leaf at the end of a way that is ours, and its counts into the nodes above. */
static void count_path(sp_set *set, const sp_interval_path *path, const sp_interval_leaf *leaf,
                       uint64_t pages, uint64_t runs)
{
    uint64_t first = sp_interval_run(leaf, 0).start;
    sp_ref ref = sp_node_ref(leaf);
    for (uint64_t level = 1; level <= set->height; level++) {
        sp_interval_child *child = &inner_of(path->node[level])->child[path->at[level]];
        child->first = first;
        child->ref = ref;
        child->pages += pages;
        child->runs += runs;
        inner_of(path->node[level])->pages += pages;
        ref = path->node[level];
        first = inner_of(ref)->child[0].first;
    }
    set->root = ref;
}

/* Makes the change if it is one of a single leaf.  SP_AGAIN: it is not, or *turned, where given,
 * has too little room; SP_NOMEM: the same members. */
static sp_status change(sp_edit *edit, sp_set *set, uint64_t start, uint64_t stop, bool value,
                        sp_turned *turned)
{
    sp_interval_path path;
    sp_interval_splice s;
    sp_interval_leaf *made;
    if (!sp_ref_is_node(set->root))
        return SP_AGAIN;
    uint64_t next = sp_interval_seek(set, start, &path);
    if (value ? stop >= next : stop > next)
        return SP_AGAIN;
    sp_interval_leaf *leaf = leaf_of(path.node[0]);
    sp_interval_splice_of(leaf, start, stop, value, &s);
    if (turned && !tell(leaf, &s, start, stop, value, turned))
        return SP_AGAIN;
    if (!s.pages)
        return SP_OK;
    sp_status status = replacement(edit, set, leaf, &s, &made);
    if (status)
        return status;
    if (made != leaf) {
        if (!sp_edit_owns(edit, &leaf->head) && own_path(edit, set, &path) != SP_OK) {
            sp_edit_retire(edit, &made->head);
            return SP_NOMEM;
        }
        sp_edit_retire(edit, &leaf->head);
    }
    count_path(set, &path, made, (uint64_t)s.pages, (uint64_t)s.n + s.i - s.j);
    return SP_OK;
}

bool sp_interval_turn(sp_edit *edit, sp_set *set, uint64_t start, uint64_t stop, bool value,
                      sp_turned *turned)
{
    return change(edit, set, start, stop, value, turned) == SP_OK;
}

sp_status sp_interval_assign(sp_edit *edit, sp_set *set, uint64_t start, uint64_t stop, bool value)
{
    sp_status status = change(edit, set, start, stop, value, NULL);
    return status == SP_AGAIN ? sp_interval_rebuild(edit, set, start, stop, value) : status;
}
