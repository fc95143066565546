/*
 * interval_walk.c - walks over the runs of an interval tree.  Floor 3.
 */
#include "set/interval_walk.h"

static void stop(sp_walk *walk)
{
    walk->leaf = NULL;
    walk->run = (sp_range){NO_RUN, NO_RUN};
}

/* Stands at run i of the leaf at the end of the path, or at the next leaf's first. */
static void stand(sp_walk *walk, unsigned i)
{
    walk->leaf = leaf_of(walk->path.node[0]);
    walk->i = i;
    if (i < walk->leaf->n)
        walk->run = sp_interval_run(walk->leaf, i);
    else
        sp_walk_next_leaf(walk);
}

void sp_walk_open(sp_walk *walk, const sp_set *set)
{
    walk->set = set;
    if (set->root == SP_FULL) {
        walk->leaf = NULL;
        walk->run = (sp_range){0, SP_GFN_LIMIT};
    } else if (set->root == SP_EMPTY) {
        stop(walk);
    } else {
        sp_interval_seek(set, 0, &walk->path);
        stand(walk, 0);
    }
}

void sp_walk_next_leaf(sp_walk *walk)
{
    if (walk->leaf && sp_interval_forth(&walk->path, walk->set->height, 0))
        stand(walk, 0);
    else
        stop(walk);
}

void sp_walk_seek(sp_walk *walk, uint64_t gfn)
{
    if (walk->run.stop > gfn)
        return;
    if (walk->leaf && sp_interval_end(walk->leaf) <= gfn)
        sp_interval_seek(walk->set, gfn, &walk->path);
    if (walk->leaf)
        stand(walk, sp_interval_find(leaf_of(walk->path.node[0]), gfn));
    else
        stop(walk);
}
