/*
 * choice.c - estimating what a set would take.  Floor 3.
 */
#include "set/choice.h"

#include "leaf/kinds.h"
#include "set/interval.h"
#include "set/radix.h"

/* The tree of the roaring engine that the runs seen so far would make.  Only leaves in which a run
 * begins or ends count; others are EMPTY or FULL, and so is most of what is above them. */
typedef struct outline {
    uint64_t bytes; /* of the leaves before this one */
    uint64_t leaf;  /* the present one, and what it has: */
    uint64_t runs, pages, blocks;
    uint64_t block;                 /* the present 512-byte block of a bitmap, plus 1 */
    uint64_t node[MAX_HEIGHT + 1];  /* the present inner node of each level, plus 1 */
    uint64_t nodes[MAX_HEIGHT + 1]; /* so many in all */
} outline;

/* The present leaf, which is neither EMPTY nor FULL. */
static uint64_t leaf_bytes(const outline *o)
{
    enum { HEAD = 24, MOST_SMALL = 4096, BITMAP = 184, BLOCK = 528 };
    if (o->runs <= 2)
        return 0; /* in the word */
    uint64_t bytes = sp_min(2 * o->pages, 4 * o->runs);
    return bytes <= MOST_SMALL ? (HEAD + bytes + 15) / 16 * 16 : BITMAP + BLOCK * o->blocks;
}

static void enter_leaf(outline *o, uint64_t leaf)
{
    if (leaf == o->leaf && o->nodes[1])
        return;
    o->bytes += leaf_bytes(o);
    o->leaf = leaf;
    o->runs = o->pages = o->blocks = 0;
    for (unsigned level = 1; level <= MAX_HEIGHT; level++) {
        uint64_t node = (leaf >> (FANOUT_BITS * level)) + 1;
        if (node == o->node[level])
            break;
        o->node[level] = node;
        o->nodes[level]++;
    }
}

/* A block in which a run begins or ends. */
static void enter_block(outline *o, uint64_t gfn)
{
    uint64_t block = gfn / SP_BLOCK_PAGES + 1;
    o->blocks += block != o->block;
    o->block = block;
}

/* Pages [start, stop) of one leaf. */
static void add_part(outline *o, uint64_t start, uint64_t stop)
{
    enter_leaf(o, start >> SP_LEAF_BITS);
    enter_block(o, start);
    enter_block(o, stop - 1);
    o->runs++;
    o->pages += stop - start;
}

static void add_run(outline *o, uint64_t start, uint64_t stop)
{
    uint64_t last = (stop - 1) & ~(uint64_t)(SP_LEAF_PAGES - 1);
    if (start < last) {
        add_part(o, start, (start | (SP_LEAF_PAGES - 1)) + 1);
        add_part(o, last, stop);
    } else {
        add_part(o, start, stop);
    }
}

/* With the inner nodes up to the root; one leaf alone has none. */
static uint64_t outline_bytes(const outline *o)
{
    uint64_t bytes = o->bytes + leaf_bytes(o);
    for (unsigned level = 1; level <= MAX_HEIGHT && o->leaf >> (FANOUT_BITS * (level - 1)); level++)
        bytes += o->nodes[level] * sizeof(sp_inner);
    return bytes;
}

static uint64_t estimate_roaring(const sp_kernels *k, const sp_set *set, uint64_t limit)
{
    enum { BATCH = 256 };
    sp_cursor cursor = sp_cursor_open(set, 0, SP_GFN_LIMIT);
    sp_range ranges[BATCH];
    outline o = {0};
    for (size_t n; o.bytes <= limit && (n = sp_cursor_ranges(k, &cursor, ranges, BATCH));)
        for (size_t i = 0; i < n; i++)
            add_run(&o, ranges[i].start, ranges[i].stop);
    return outline_bytes(&o);
}

/* Packed full and narrow.  Runs so far apart that leaves are wide take more; but roaring, with nodes
 * on the way to each, takes more yet. */
static uint64_t estimate_interval(uint64_t runs)
{
    enum { RUN = sizeof(sp_narrow_run), LEAF = sizeof(sp_interval_leaf) };
    uint64_t leaves = (runs + SP_NARROW_MOST - 1) / SP_NARROW_MOST,
             bytes = RUN * runs + LEAF * leaves;
    return leaves > 1 ? bytes + sizeof(sp_interval_child) * leaves * 33 / 32 : bytes;
}

uint64_t sp_set_estimate(const sp_kernels *k, const sp_set *set, const sp_engine *engine,
                         uint64_t limit)
{
    return engine == &sp_engine_interval ? estimate_interval(sp_set_nranges(k, set))
                                         : estimate_roaring(k, set, limit);
}

/* Bytes that are not worth another engine. */
#define LEAST_GAIN 64u

const sp_engine *sp_set_choose(const sp_kernels *k, const sp_set *set)
{
    const sp_engine *other = set->engine == &sp_engine_interval ? &sp_engine_roaring
                                                                : &sp_engine_interval;
    sp_set_stats stats;
    sp_set_measure(set, &stats);
    if (stats.bytes <= LEAST_GAIN)
        return set->engine;
    uint64_t most = sp_min(stats.bytes / 10 * 9, stats.bytes - LEAST_GAIN);
    return sp_set_estimate(k, set, other, most) < most ? other : set->engine;
}
