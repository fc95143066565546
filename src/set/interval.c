/*
 * interval.c - reading the interval engine's trees, and its table.  Floor 3.
 *
 * A look-up is a binary search in each node of a way down.  Rank and select add up the counts of
 * the children that they pass.  Listing walks the leaves below one lowest inner node in a loop and
 * descends anew only when it leaves that node.
 */
#include "set/interval.h"

uint64_t sp_interval_count(const sp_set *set)
{
    if (!sp_ref_is_node(set->root))
        return set->root == SP_FULL ? SP_GFN_LIMIT : 0;
    return set->height ? inner_of(set->root)->pages : leaf_of(set->root)->pages;
}

uint64_t sp_interval_runs(const sp_set *set)
{
    if (!sp_ref_is_node(set->root))
        return set->root == SP_FULL;
    if (!set->height)
        return leaf_of(set->root)->n;
    uint64_t runs = 0;
    for (unsigned i = 0; i < inner_of(set->root)->n; i++)
        runs += inner_of(set->root)->child[i].runs;
    return runs;
}

/* ---- ways down ---- */

uint64_t sp_interval_seek(const sp_set *set, uint64_t gfn, sp_interval_path *path)
{
    uint64_t end = NO_LEAF;
    sp_ref ref = set->root;
    for (uint64_t level = set->height; level; level--) {
        const sp_interval_inner *inner = inner_of(ref);
        unsigned at = child_at(inner, gfn);
        path->node[level] = ref;
        path->at[level] = at;
        if (at + 1 < inner->n)
            end = inner->child[at + 1].first;
        ref = inner->child[at].ref;
    }
    path->node[0] = ref;
    return end;
}

bool sp_interval_forth(sp_interval_path *path, uint64_t height, unsigned level)
{
    unsigned l = level + 1;
    while (l <= height && path->at[l] + 1 == inner_of(path->node[l])->n)
        l++;
    if (l > height)
        return false;
    path->at[l]++;
    for (; l > level; l--) {
        path->node[l - 1] = inner_of(path->node[l])->child[path->at[l]].ref;
        if (l - 1 > level)
            path->at[l - 1] = 0;
    }
    return true;
}

bool sp_interval_back(sp_interval_path *path, uint64_t height, unsigned level)
{
    unsigned l = level + 1;
    while (l <= height && path->at[l] == 0)
        l++;
    if (l > height)
        return false;
    path->at[l]--;
    for (; l > level; l--) {
        path->node[l - 1] = inner_of(path->node[l])->child[path->at[l]].ref;
        if (l - 1 > level)
            path->at[l - 1] = (uint32_t)inner_of(path->node[l - 1])->n - 1;
    }
    return true;
}

/* ---- questions ---- */

static bool contains(const sp_set *set, uint64_t gfn)
{
    sp_ref ref = set->root;
    if (!sp_ref_is_node(ref))
        return ref == SP_FULL;
    for (uint64_t level = set->height; level; level--)
        ref = inner_of(ref)->child[child_at(inner_of(ref), gfn)].ref;
    const sp_interval_leaf *leaf = leaf_of(ref);
    unsigned i = sp_interval_find(leaf, gfn);
    return i < leaf->n && sp_interval_run(leaf, i).start <= gfn;
}

uint64_t sp_interval_rank(const sp_set *set, uint64_t gfn)
{
    sp_ref ref = set->root;
    uint64_t pages = 0;
    if (!sp_ref_is_node(ref))
        return ref == SP_FULL ? gfn : 0;
    for (uint64_t level = set->height; level; level--) {
        const sp_interval_inner *inner = inner_of(ref);
        unsigned at = child_at(inner, gfn);
        for (unsigned i = 0; i < at; i++)
            pages += inner->child[i].pages;
        ref = inner->child[at].ref;
    }
    return pages + sp_interval_below(leaf_of(ref), gfn);
}

static uint64_t count_range(const sp_set *set, uint64_t start, uint64_t stop)
{
    if (!sp_ref_is_node(set->root))
        return set->root == SP_FULL ? stop - start : 0;
    return sp_interval_rank(set, stop) - sp_interval_rank(set, start);
}

static uint64_t select(const sp_set *set, uint64_t i)
{
    sp_ref ref = set->root;
    if (!sp_ref_is_node(ref))
        return i;
    for (uint64_t level = set->height; level; level--) {
        const sp_interval_child *child = inner_of(ref)->child;
        for (; i >= child->pages; child++)
            i -= child->pages;
        ref = child->ref;
    }
    return sp_interval_member(leaf_of(ref), i);
}

static uint64_t toggles_count(const sp_kernels *k, const sp_set *set)
{
    (void)k;
    return 2 * sp_interval_runs(set);
}

/* ---- listing ---- */

/* Appends the runs of a leaf within [cursor->at, cursor->stop), until fewer than SP_TOGGLES_ROOM
 * entries are left.  True: the next leaf may have more, and there is room. */
static bool list_leaf(const sp_interval_leaf *leaf, sp_cursor *cursor, uint64_t *out, size_t *used,
                      size_t room)
{
    unsigned first = sp_interval_find(leaf, cursor->at);
    unsigned n = leaf->n - first,
             most = (unsigned)sp_min(n, (room - *used - SP_TOGGLES_ROOM) / 2 + 1);
    if (!n)
        return true;
    sp_range *to = (sp_range *)(out + *used);
    sp_interval_copy(leaf, first, most, to);
    to[0].start = sp_max(to[0].start, cursor->at);
    if (to[most - 1].stop < cursor->stop) {
        *used += (size_t)2 * most;
        cursor->at = to[most - 1].stop;
        return room - *used >= SP_TOGGLES_ROOM;
    }
    while (most && to[most - 1].start >= cursor->stop)
        most--;
    *used += (size_t)2 * most;
    if (most && to[most - 1].stop > cursor->stop)
        to[most - 1].stop = cursor->stop;
    cursor->at = cursor->stop;
    return false;
}

static void list_everything(sp_cursor *cursor, uint64_t *out, size_t *used)
{
    out[(*used)++] = cursor->at;
    out[(*used)++] = cursor->stop;
    cursor->at = cursor->stop;
}

/* No batch ends inside a run, so the cursor's carry is always 0. */
static void toggles(const sp_kernels *k, sp_cursor *cursor, uint64_t *out, size_t *used,
                    size_t room)
{
    (void)k;
    const sp_set *set = &cursor->set;
    sp_interval_path path;
    if (set->root == SP_FULL)
        list_everything(cursor, out, used);
    if (!sp_ref_is_node(set->root))
        cursor->at = cursor->stop;
    while (cursor->at < cursor->stop && room - *used >= SP_TOGGLES_ROOM) {
        sp_interval_seek(set, cursor->at, &path);
        if (!list_leaf(leaf_of(path.node[0]), cursor, out, used, room))
            return;
        if (set->height) {
            const sp_interval_inner *inner = inner_of(path.node[1]);
            for (unsigned i = path.at[1] + 1; i < inner->n; i++)
                if (!list_leaf(leaf_of(inner->child[i].ref), cursor, out, used, room))
                    return;
            path.at[1] = (uint32_t)inner->n - 1;
        }
        cursor->at = sp_interval_forth(&path, set->height, 0)
                         ? sp_min(sp_interval_run(leaf_of(path.node[0]), 0).start, cursor->stop)
                         : cursor->stop;
    }
}

/* ---- accounting ---- */

static void walk_below(sp_ref ref, uint64_t level, uint64_t floor, sp_node_fn visit, void *context)
{
    if (sp_node_birth(sp_ref_node(ref)) <= floor)
        return;
    for (unsigned i = 0; level && i < inner_of(ref)->n; i++)
        walk_below(inner_of(ref)->child[i].ref, level - 1, floor, visit, context);
    visit(context, sp_ref_node(ref));
}

static void walk(const sp_set *set, uint64_t floor, sp_node_fn visit, void *context)
{
    if (sp_ref_is_node(set->root))
        walk_below(set->root, set->height, floor, visit, context);
}

void sp_interval_drop(sp_edit *edit, sp_ref ref, uint64_t level)
{
    if (!sp_node_let_go(sp_ref_node(ref)))
        return;
    for (unsigned i = 0; level && i < inner_of(ref)->n; i++)
        sp_interval_drop(edit, inner_of(ref)->child[i].ref, level - 1);
    sp_edit_retire(edit, sp_ref_node(ref));
}

void sp_interval_drop_set(sp_edit *edit, const sp_set *set)
{
    if (sp_ref_is_node(set->root))
        sp_interval_drop(edit, set->root, set->height);
}

static void measure_node(void *context, sp_node *node)
{
    sp_set_stats *stats = context;
    stats->nodes++;
    stats->bytes += sp_node_bytes(node);
    switch (sp_node_kind(node)) {
    case SP_KIND_NARROW: stats->narrow++; break;
    case SP_KIND_WIDE: stats->wide++; break;
    default: stats->inner++;
    }
}

static void measure(const sp_set *set, sp_set_stats *stats) { walk(set, 0, measure_node, stats); }

/* What a checker has seen so far: `end` is where the last run stopped. */
typedef struct seen {
    uint64_t end;
    bool any;
} seen;

static const char *validate_below(const sp_interval_child *child, uint64_t level, bool is_root,
                                  seen *s);

static const char *validate_leaf(const sp_interval_child *child, bool is_root, seen *s)
{
    const sp_interval_leaf *leaf = leaf_of(child->ref);
    const char *reason = sp_interval_leaf_validate(leaf);
    if (reason)
        return reason;
    if (!is_root && leaf->n < SP_LEAST_RUNS)
        return "a leaf of runs has too few";
    if (s->any && sp_interval_run(leaf, 0).start <= s->end)
        return "two leaves of runs touch or are out of order";
    if (sp_interval_run(leaf, 0).start != child->first || leaf->n != child->runs ||
        leaf->pages != child->pages)
        return "an inner node miscounts a leaf of runs";
    *s = (seen){sp_interval_end(leaf), true};
    return NULL;
}

static const char *validate_inner(const sp_interval_child *child, uint64_t level, bool is_root,
                                  seen *s)
{
    const sp_interval_inner *inner = inner_of(child->ref);
    uint64_t pages = 0, runs = 0;
    if (sp_node_kind(&inner->head) != SP_KIND_BRANCH)
        return "an inner node of runs is of another kind";
    if (inner->n < (is_root ? 2 : LEAST_CHILDREN) || inner->n > MOST_CHILDREN)
        return "an inner node of runs has too few children or too many";
    for (unsigned i = 0; i < inner->n; i++) {
        const char *reason = validate_below(&inner->child[i], level - 1, false, s);
        if (reason)
            return reason;
        pages += inner->child[i].pages;
        runs += inner->child[i].runs;
    }
    return pages == child->pages && pages == inner->pages && runs == child->runs &&
                   inner->child[0].first == child->first
               ? NULL
               : "an inner node miscounts an inner node of runs";
}

static const char *validate_below(const sp_interval_child *child, uint64_t level, bool is_root,
                                  seen *s)
{
    if (!sp_ref_is_node(child->ref))
        return "a child of an inner node of runs is no node";
    return level ? validate_inner(child, level, is_root, s) : validate_leaf(child, is_root, s);
}

static const char *validate(const sp_set *set)
{
    if (set->height > TALLEST)
        return "a set of runs is higher than 52 bits of gfn";
    if (!sp_ref_is_node(set->root))
        return set->height || set->root > SP_FULL ? "a flat set of runs has a height" : NULL;
    sp_interval_child root = {0, set->root, sp_interval_count(set), sp_interval_runs(set)};
    if (root.pages == SP_GFN_LIMIT)
        return "a set of runs is full and has a node";
    root.first = set->height ? inner_of(set->root)->child[0].first
                             : sp_interval_run(leaf_of(set->root), 0).start;
    return validate_below(&root, set->height, true, &(seen){0, false});
}

const sp_engine sp_engine_interval = {
    .name = "interval",
    .count = sp_interval_count,
    .contains = contains,
    .rank = sp_interval_rank,
    .count_range = count_range,
    .select = select,
    .toggles_count = toggles_count,
    .intersection = sp_interval_intersection,
    .toggles = toggles,
    .measure = measure,
    .walk = walk,
    .validate = validate,
    .drop = sp_interval_drop_set,
    .assign = sp_interval_assign,
    .turn = sp_interval_turn,
    .put_words = sp_interval_put_words,
    .add_sorted = sp_interval_add_sorted,
    .load = sp_interval_load,
    .combine = sp_interval_combine,
};
