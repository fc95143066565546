/*
 * support_census.c - a walk over many sets at once, level by level.
 */
#include "support_census.h"

#include <stdlib.h>

#include "leaf/kinds.h"
#include "set/interval.h"
#include "set/radix.h"

/* Levels of a tree of either engine. */
enum { LEVELS = TALLEST + 1 };

typedef struct entry {
    sp_ref ref;
    uint64_t holders;
} entry;

/* Nodes of one level, or all. */
typedef struct list {
    entry *entry;
    size_t n, room;
} list;

static void name(list *l, sp_ref ref, uint64_t holders)
{
    if (!sp_ref_is_node(ref))
        return;
    if (l->n == l->room) {
        l->room = 2 * l->room + 256;
        l->entry = realloc(l->entry, l->room * sizeof *l->entry);
    }
    l->entry[l->n++] = (entry){ref, holders};
}

static int by_ref(const void *a, const void *b)
{
    sp_ref x = ((const entry *)a)->ref, y = ((const entry *)b)->ref;
    return (x > y) - (x < y);
}

/* One entry for each ref, its holders added up. */
static void fold(list *l)
{
    size_t used = 0;
    if (l->n)
        qsort(l->entry, l->n, sizeof *l->entry, by_ref);
    for (size_t i = 0; i < l->n; i++) {
        if (used && l->entry[used - 1].ref == l->entry[i].ref)
            l->entry[used - 1].holders += l->entry[i].holders;
        else
            l->entry[used++] = l->entry[i];
    }
    l->n = used;
}

/* Names what a node of this level holds: the nodes below it, or a leaf's blocks. */
static void name_children(sp_ref ref, uint64_t level, list *below, list *all)
{
    unsigned kind = sp_node_kind(sp_ref_node(ref));
    if (kind == SP_KIND_BRANCH) {
        for (unsigned i = 0; i < inner_of(ref)->n; i++)
            name(below, inner_of(ref)->child[i].ref, 1);
    } else if (level) {
        for (unsigned i = 0; i < FANOUT; i++)
            name(below, as_inner(ref)->child[i], 1);
    } else if (kind == SP_KIND_BITMAP && !sp_bitmap_is_whole(sp_as_bitmap(ref))) {
        for (unsigned b = 0; b < SP_BLOCKS; b++)
            if (sp_block_is_real(sp_as_bitmap(ref)->block[b]))
                name(all, sp_node_ref(sp_block_node(sp_as_bitmap(ref)->block[b])), 1);
    }
}

uint64_t census(const sp_set *const *sets, size_t n)
{
    list at[LEVELS] = {{NULL, 0, 0}}, all = {NULL, 0, 0};
    for (size_t i = 0; i < n; i++)
        name(&at[sets[i]->height], sets[i]->root, 1);
    for (uint64_t level = LEVELS; level-- > 0;) {
        fold(&at[level]);
        for (size_t i = 0; i < at[level].n; i++) {
            name(&all, at[level].entry[i].ref, at[level].entry[i].holders);
            name_children(at[level].entry[i].ref, level, level ? &at[level - 1] : NULL, &all);
        }
        free(at[level].entry);
    }
    fold(&all);
    for (size_t i = 0; i < all.n; i++) {
        const sp_node *node = sp_ref_node(all.entry[i].ref);
        if (sp_node_is_counted(node))
            CHECK_EQ(sp_load(&node->holders, relaxed), all.entry[i].holders);
    }
    uint64_t nodes = all.n;
    free(all.entry);
    return nodes;
}
