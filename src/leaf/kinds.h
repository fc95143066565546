/*
 * kinds.h - how leaves are held; private to leaf/.  Floor 2.
 *
 * Packed refs: the two low bits of a ref are 2 for one run, 3 for two.
 *     one run    first in bits 16..31, last in bits 32..47
 *     two runs   first 2..17, length-1 18..32, first 33..48, length-1 49..63
 * A run of the two-run form is at most 32768 pages long; a list that does not fit becomes a node.
 * Most leaves of a normal guest hold one or two runs, so its set is little more than inner nodes.
 *
 * Array and runs nodes share one struct: `n` elements in use, as many as the node's bytes allow.
 * Runs are disjoint and not adjacent.  Such a node never holds what a packed ref could, except
 * between prepare and commit.
 */
#ifndef SP_LEAF_KINDS_H
#define SP_LEAF_KINDS_H

#include "leaf/leaf.h"

typedef struct sp_run {
    uint16_t first;
    uint16_t last;
} sp_run;

typedef struct sp_small {
    sp_node head;
    uint32_t pages;
    uint32_t n;
} sp_small; /* the elements follow */

#define SP_SMALL_HEAD sizeof(sp_small)

/* Arrays and runs stop here; a larger leaf is a bitmap of blocks.  Copying 4 KiB is what the first
 * write after a snapshot may cost; a bitmap leaf copies 704 bytes. */
#define SP_SMALL_MAX_BYTES 4096u
#define SP_MAX_VALUES (SP_SMALL_MAX_BYTES / sizeof(uint16_t))
#define SP_MAX_RUNS (SP_SMALL_MAX_BYTES / sizeof(sp_run))

#define SP_BLOCKS 16u
#define SP_BLOCK_PAGES 4096u
#define SP_BLOCK_WORDS 64u

typedef struct sp_block {
    sp_node head;
    uint64_t words[SP_BLOCK_WORDS];
} sp_block;

/* Blocks are EMPTY, FULL or the address of their words: in a node of their own, which a tracker
 * copies alone, or in the leaf itself, which is then whole.  Sets that are never edited are made of
 * whole leaves: one allocation, and words in a row. */
typedef struct sp_bitmap {
    sp_node head;
    uint32_t pages;
    uint16_t real;       /* blocks that are neither EMPTY nor FULL */
    uint16_t least_runs; /* of a whole leaf: it has so many runs or more, at least 1; else 0 */
    uint16_t in_block[SP_BLOCKS];
    sp_ref block[SP_BLOCKS];
    uint64_t words[]; /* SP_LEAF_WORDS of a whole leaf, right for EMPTY and FULL blocks too */
} sp_bitmap;

/* ---- shapes ---- */

typedef enum sp_shape { SP_HELD, SP_ARRAY, SP_RUNS, SP_BITMAP } sp_shape;

static inline sp_shape sp_leaf_shape(sp_ref leaf)
{
    if (!sp_ref_is_node(leaf))
        return SP_HELD;
    switch (sp_node_kind(sp_ref_node(leaf))) {
    case SP_KIND_ARRAY: return SP_ARRAY;
    case SP_KIND_RUNS: return SP_RUNS;
    default: return SP_BITMAP;
    }
}

static inline sp_small *sp_as_small(sp_ref leaf) { return (sp_small *)sp_ref_node(leaf); }
static inline sp_bitmap *sp_as_bitmap(sp_ref leaf) { return (sp_bitmap *)sp_ref_node(leaf); }

static inline bool sp_bitmap_is_whole(const sp_bitmap *leaf) { return leaf->least_runs; }

/* Of a block that is neither EMPTY nor FULL. */
static inline bool sp_block_is_real(sp_ref block) { return sp_ref_is_node(block); }
static inline uint64_t *sp_block_words(sp_ref block) { return (uint64_t *)(uintptr_t)block; }
/* Where it is a node. */
static inline sp_node *sp_block_node(sp_ref block) { return (sp_node *)(uintptr_t)block - 1; }
static inline sp_ref sp_block_ref(const sp_block *block) { return (sp_ref)(uintptr_t)block->words; }

static inline uint16_t *sp_values(const sp_small *array) { return (uint16_t *)(array + 1); }
static inline sp_run *sp_runs(const sp_small *list) { return (sp_run *)(list + 1); }

/* Elements of a small leaf of at most `bytes`; lists on the stack rely on the bound. */
static inline uint32_t sp_small_elements(size_t bytes, sp_shape shape)
{
    size_t most = sp_min(bytes, SP_SMALL_MAX_BYTES);
    return (uint32_t)(most / (shape == SP_ARRAY ? sizeof(uint16_t) : sizeof(sp_run)));
}

static inline uint32_t sp_small_room(const sp_small *leaf, sp_shape shape)
{
    return sp_small_elements(sp_node_bytes(&leaf->head) - SP_SMALL_HEAD, shape);
}

/* True if a small leaf takes much more than its elements, held as runs, need. */
static inline bool sp_small_is_sparse(const sp_small *leaf)
{
    return (SP_SMALL_HEAD + leaf->n * sizeof(sp_run)) * 4 < sp_node_bytes(&leaf->head);
}

static inline uint32_t sp_run_pages(sp_run run) { return (uint32_t)run.last - run.first + 1; }

/* The runs of a ref that is not a node (EMPTY and FULL included); at most two. */
static inline uint32_t sp_held_get(sp_ref leaf, sp_run runs[2])
{
    if (leaf == SP_EMPTY)
        return 0;
    if (leaf == SP_FULL) {
        runs[0] = (sp_run){0, SP_LEAF_PAGES - 1};
        return 1;
    }
    if ((leaf & 3) == 2) {
        runs[0] = (sp_run){(uint16_t)(leaf >> 16), (uint16_t)(leaf >> 32)};
        return 1;
    }
    runs[0].first = (uint16_t)(leaf >> 2);
    runs[0].last = (uint16_t)(runs[0].first + (leaf >> 18 & 0x7fff));
    runs[1].first = (uint16_t)(leaf >> 33);
    runs[1].last = (uint16_t)(runs[1].first + (leaf >> 49));
    return 2;
}

static inline uint32_t sp_held_pages(sp_ref leaf)
{
    switch (leaf & 3) {
    case 2: return (uint32_t)(leaf >> 32) - (uint32_t)(leaf >> 16 & 0xffff) + 1;
    case 3: return (uint32_t)(leaf >> 18 & 0x7fff) + (uint32_t)(leaf >> 49) + 2;
    default: return leaf == SP_FULL ? SP_LEAF_PAGES : 0;
    }
}

/* The ref that holds these runs by itself; false if there is none. */
static inline bool sp_held_put(const sp_run *runs, uint32_t n, sp_ref *out)
{
    if (n == 0) {
        *out = SP_EMPTY;
    } else if (n == 1 && sp_run_pages(runs[0]) == SP_LEAF_PAGES) {
        *out = SP_FULL;
    } else if (n == 1) {
        *out = 2 | (sp_ref)runs[0].first << 16 | (sp_ref)runs[0].last << 32;
    } else if (n == 2 && sp_run_pages(runs[0]) <= 32768 && sp_run_pages(runs[1]) <= 32768) {
        *out = 3 | (sp_ref)runs[0].first << 2 | (sp_ref)(sp_run_pages(runs[0]) - 1) << 18 |
               (sp_ref)runs[1].first << 33 | (sp_ref)(sp_run_pages(runs[1]) - 1) << 49;
    } else {
        return false;
    }
    return true;
}

#endif
