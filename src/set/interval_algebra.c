/*
 * interval_algebra.c - set operations on interval trees.  Floor 3.
 *
 * Two walks are merged into a builder.  Where one operand decides alone, the other is passed over
 * by a jump; where one operand has nothing and the other's pages stay, its leaves go over whole,
 * held once more or copied.  The cost is that of the runs which meet, a jump for each stretch
 * passed over, and a step for each leaf that stays.
 */
#include "set/interval_build.h"
#include "set/interval_walk.h"

/* An operand on its way: whether the place reached is in its present run. */
typedef struct side {
    sp_walk walk;
    bool in;
} side;

/* Where its membership changes next. */
static uint64_t flip_of(const side *s) { return s->in ? s->walk.run.stop : s->walk.run.start; }

static void flip_at(side *s, uint64_t at)
{
    if (flip_of(s) != at)
        return;
    if (s->in)
        sp_walk_next(&s->walk);
    s->in = !s->in;
}

/* What an operation says of one page, the operands in either order. */
static bool truth(sp_op op, bool swapped, bool x, bool y)
{
    return swapped ? sp_op_truth(op, y, x) : sp_op_truth(op, x, y);
}

/* Moves the leaves over that begin here, end before `stop`, and stay as they are. */
static void take_leaves(sp_interval_builder *b, side *s, uint64_t stop)
{
    sp_walk *walk = &s->walk;
    while (walk->leaf && !walk->i && walk->leaf->n >= SP_LEAST_RUNS && sp_interval_may_take(b) &&
           sp_interval_end(walk->leaf) < stop &&
           walk->run.start == sp_interval_run(walk->leaf, 0).start) {
        sp_interval_take(b, walk->leaf);
        sp_walk_next_leaf(walk);
    }
}

/* Passes over what does not matter of one side until the other changes. */
static void pass(sp_op op, bool swapped, side *x, const side *y)
{
    if (!x->in && truth(op, swapped, true, y->in) == truth(op, swapped, false, y->in) &&
        x->walk.run.start < flip_of(y))
        sp_walk_pass(&x->walk, flip_of(y));
}

static sp_status merge(sp_edit *edit, sp_op op, const sp_set *a, const sp_set *b, sp_set *out)
{
    sp_interval_builder builder;
    side x = {.in = false}, y = {.in = false};
    uint64_t from = 0;
    bool in = false;
    sp_walk_open(&x.walk, a);
    sp_walk_open(&y.walk, b);
    sp_interval_begin(&builder, edit);
    while (!builder.status) {
        pass(op, false, &x, &y);
        pass(op, true, &y, &x);
        if (!x.in && !y.in) {
            if (sp_op_truth(op, true, false))
                take_leaves(&builder, &x, y.walk.run.start);
            if (sp_op_truth(op, false, true))
                take_leaves(&builder, &y, x.walk.run.start);
        }
        uint64_t at = sp_min(flip_of(&x), flip_of(&y));
        if (at == NO_RUN)
            break;
        flip_at(&x, at);
        flip_at(&y, at);
        if (sp_op_truth(op, x.in, y.in) == in)
            continue;
        in = !in;
        if (in)
            from = at;
        else
            sp_interval_put(&builder, from, at);
    }
    return sp_interval_finish(&builder, out);
}

/* Where the result has no runs of both: nothing, everything, or one operand as it is, if the edit
 * may hold its nodes. */
static bool without_merge(const sp_edit *edit, sp_op op, const sp_set *a, const sp_set *b,
                          sp_set *out)
{
    bool absent, present;
    const sp_set *left = a;
    if (a->root == b->root) {
        absent = false;
        present = sp_op_truth(op, true, true);
    } else if (!sp_ref_is_node(b->root)) {
        absent = sp_op_truth(op, false, b->root == SP_FULL);
        present = sp_op_truth(op, true, b->root == SP_FULL);
    } else if (!sp_ref_is_node(a->root)) {
        left = b;
        absent = sp_op_truth(op, a->root == SP_FULL, false);
        present = sp_op_truth(op, a->root == SP_FULL, true);
    } else {
        return false;
    }
    if (absent == present) {
        *out = (sp_set){&sp_engine_interval, present ? SP_FULL : SP_EMPTY, 0};
        return true;
    }
    if (absent || (sp_ref_is_node(left->root) && !sp_edit_may_hold(edit, left->root)))
        return false;
    sp_ref_hold(left->root);
    *out = *left;
    return true;
}

sp_status sp_interval_combine(sp_edit *edit, sp_op op, const sp_set *a, const sp_set *b,
                              sp_set *out)
{
    return without_merge(edit, op, a, b, out) ? SP_OK : merge(edit, op, a, b, out);
}

/* Members of a set from its present run on within a run that goes on past the present leaf; those
 * before have been counted. */
static uint64_t count_under(const sp_walk *walk, sp_range run)
{
    uint64_t start = sp_max(walk->run.start, run.start);
    return sp_interval_rank(walk->set, run.stop) - sp_interval_rank(walk->set, start);
}

static bool goes_past(sp_range run, const sp_walk *walk)
{
    return walk->leaf && run.stop > sp_interval_end(walk->leaf);
}

uint64_t sp_interval_intersection(const sp_kernels *k, const sp_set *a, const sp_set *b)
{
    (void)k;
    uint64_t pages = 0;
    sp_walk x, y;
    if (a->root == b->root || b->root == SP_FULL)
        return sp_interval_count(a);
    if (a->root == SP_FULL)
        return sp_interval_count(b);
    sp_walk_open(&x, a);
    sp_walk_open(&y, b);
    while (x.run.start != NO_RUN && y.run.start != NO_RUN) {
        if (x.run.stop <= y.run.start) {
            sp_walk_seek(&x, y.run.start);
        } else if (y.run.stop <= x.run.start) {
            sp_walk_seek(&y, x.run.start);
        } else if (goes_past(x.run, &y)) {
            pages += count_under(&y, x.run);
            sp_walk_seek(&y, x.run.stop);
            sp_walk_next(&x);
        } else if (goes_past(y.run, &x)) {
            pages += count_under(&x, y.run);
            sp_walk_seek(&x, y.run.stop);
            sp_walk_next(&y);
        } else {
            pages += sp_min(x.run.stop, y.run.stop) - sp_max(x.run.start, y.run.start);
            sp_walk *shorter = x.run.stop < y.run.stop ? &x : &y;
            sp_walk_next(shorter);
        }
    }
    return pages;
}
