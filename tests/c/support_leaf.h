/*
 * support_leaf.h - leaves of every kind, beside a byte a page, and the comparison of the two.
 */
#ifndef SP_TESTS_SUPPORT_LEAF_H
#define SP_TESTS_SUPPORT_LEAF_H

#include "leaf/build.h"
#include "support_alloc.h"
#include "support_check.h"

typedef struct leaf_model {
    uint8_t in[SP_LEAF_PAGES];
} leaf_model;

/* Textures that lead to every kind of leaf, and to the limits of each. */
enum { LEAF_TEXTURES = 18 };
void leaf_paint(rng *r, unsigned texture, leaf_model *m);

void leaf_assign(leaf_model *m, uint32_t first, uint32_t last, bool value);
void leaf_model_words(const leaf_model *m, uint64_t words[SP_LEAF_WORDS]);

/* An owner of leaves: an allocator that counts, and an edit. */
typedef struct leaf_bench {
    test_alloc alloc;
    sp_mem mem;
    sp_edit edit;
} leaf_bench;

void leaf_bench_open(leaf_bench *bench);
/* Frees what is on the deadlist and checks that nothing is live. */
void leaf_bench_close(leaf_bench *bench);
/* Leaves made from now on are those of page sets, of counted nodes and whole bitmaps, or those of
 * trackers (as at first). */
void leaf_bench_count(leaf_bench *bench, bool counted);
/* A leaf of these pages in the kind of fewest bytes. */
sp_ref leaf_make(leaf_bench *bench, const leaf_model *m);

/* A bitmap with its words in a row, as page sets have them. */
bool leaf_is_whole(sp_ref leaf);

/* The same pages; the bitmap, and nothing else, is asked. */
bool leaf_holds(sp_ref leaf, const leaf_model *m);
/* Every reader says what the model says, and the checker is content. */
bool leaf_matches(sp_ref leaf, const leaf_model *m, rng *r);

#endif
