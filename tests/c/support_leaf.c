/*
 * support_leaf.c - painting leaves and asking them everything.
 */
#include "support_leaf.h"

#include <string.h>

void leaf_assign(leaf_model *m, uint32_t first, uint32_t last, bool value)
{
    memset(m->in + first, value, last - first + 1);
}

/* Every step-th page from `first` on, `n` of them. */
static void comb(leaf_model *m, uint32_t first, uint32_t step, uint32_t n)
{
    for (uint32_t i = 0; i < n; i++)
        m->in[first + i * step] = 1;
}

static void noise(rng *r, leaf_model *m, uint32_t first, uint32_t pages, unsigned one_in)
{
    for (uint32_t i = 0; i < pages; i++)
        m->in[first + i] = rng_chance(r, one_in);
}

static void random_runs(rng *r, leaf_model *m, unsigned n, uint32_t longest)
{
    while (n--) {
        uint32_t first = (uint32_t)rng_below(r, SP_LEAF_PAGES);
        uint32_t last = (uint32_t)sp_min(first + rng_below(r, longest), SP_LEAF_PAGES - 1);
        leaf_assign(m, first, last, true);
    }
}

void leaf_paint(rng *r, unsigned texture, leaf_model *m)
{
    memset(m, 0, sizeof *m);
    switch (texture) {
    case 0: break;
    case 1: leaf_assign(m, 0, SP_LEAF_PAGES - 1, true); break;
    case 2: random_runs(r, m, 1, 60000); break;
    case 3: m->in[rng_below(r, SP_LEAF_PAGES)] = 1; break;
    case 4: /* two runs that fit a ref, at both ends */
        leaf_assign(m, 0, 99, true);
        leaf_assign(m, 32768, SP_LEAF_PAGES - 1, true);
        break;
    case 5: /* two runs that do not */
        leaf_assign(m, 3, 3, true);
        leaf_assign(m, 32767, SP_LEAF_PAGES - 1, true);
        break;
    case 6: random_runs(r, m, 40, 3000); break;
    case 7: comb(m, 5, 17, 700); break;
    case 8: comb(m, 0, 32, 2048); break;  /* the largest array */
    case 9: comb(m, 31, 32, 2048); break; /* another, with the last page */
    case 10:                              /* the most runs */
        for (uint32_t i = 0; i < 1024; i++)
            leaf_assign(m, i * 64 + 7, i * 64 + 50, true);
        break;
    case 11: comb(m, 1, 31, 2049); break; /* the smallest bitmap */
    case 12: noise(r, m, 0, SP_LEAF_PAGES, 2); break;
    case 13: noise(r, m, 4096 * 3, 4096, 2); break; /* one real block */
    case 14:                                        /* flat and real blocks in turns */
        for (uint32_t b = 0; b < 16; b += 4) {
            noise(r, m, b * 4096, 4096, 3);
            leaf_assign(m, (b + 1) * 4096, (b + 2) * 4096 - 1, true);
        }
        break;
    case 15: /* everything but noise */
        noise(r, m, 0, SP_LEAF_PAGES, 9);
        for (uint32_t i = 0; i < SP_LEAF_PAGES; i++)
            m->in[i] ^= 1;
        break;
    case 16: comb(m, 0, 2, 32768); break;
    default: /* everything but the ends */
        leaf_assign(m, 1, SP_LEAF_PAGES - 2, true);
        noise(r, m, 60000, 5000, 4);
    }
}

void leaf_model_words(const leaf_model *m, uint64_t words[SP_LEAF_WORDS])
{
    memset(words, 0, SP_LEAF_WORDS * sizeof *words);
    for (uint32_t i = 0; i < SP_LEAF_PAGES; i++)
        words[i / 64] |= (uint64_t)m->in[i] << (i % 64);
}

void leaf_bench_open(leaf_bench *bench)
{
    alloc_init(&bench->alloc);
    sp_mem_init(&bench->mem, &bench->alloc.hook);
    bench->edit = sp_edit_private(&bench->mem, sp_kernels_active());
}

void leaf_bench_close(leaf_bench *bench)
{
    for (sp_node *node; (node = sp_deadlist_pop(&bench->edit.dead));)
        sp_node_free(&bench->mem, node);
    CHECK_EQ(alloc_blocks(&bench->alloc), 0);
    CHECK_EQ(sp_load(&bench->mem.bytes, relaxed), 0);
}

void leaf_bench_count(leaf_bench *bench, bool counted)
{
    bench->edit.generation = counted ? SP_COUNTED : 1;
}

sp_ref leaf_make(leaf_bench *bench, const leaf_model *m)
{
    uint64_t words[SP_LEAF_WORDS];
    sp_ref leaf = SP_EMPTY;
    leaf_model_words(m, words);
    CHECK_EQ(sp_leaf_from_words(&bench->edit, words, &leaf), SP_OK);
    return leaf;
}

bool leaf_is_whole(sp_ref leaf)
{
    return sp_leaf_shape(leaf) == SP_BITMAP && sp_bitmap_is_whole(sp_as_bitmap(leaf));
}

bool leaf_holds(sp_ref leaf, const leaf_model *m)
{
    uint64_t got[SP_LEAF_WORDS], want[SP_LEAF_WORDS];
    sp_leaf_words(leaf, got);
    leaf_model_words(m, want);
    return CHECK(memcmp(got, want, sizeof got) == 0) &&
           CHECK(memcmp(sp_leaf_view(leaf, got), want, sizeof got) == 0);
}

static bool toggles_match(sp_ref leaf, const leaf_model *m, uint64_t carry)
{
    const sp_kernels *k = sp_kernels_active();
    static uint64_t want[SP_LEAF_PAGES], got[SP_LEAF_PAGES + SP_TOGGLES_ROOM];
    uint64_t in = carry, counted = carry, n = 0;
    size_t used = 0;
    for (uint32_t i = 0; i < SP_LEAF_PAGES; i++) {
        if (m->in[i] != in)
            want[n++] = (UINT64_C(1) << 50) + i;
        in = m->in[i];
    }
    return CHECK_EQ(sp_leaf_toggles_count(k, leaf, &counted), n) && CHECK_EQ(counted, in) &&
           CHECK_EQ(sp_leaf_toggles(k, leaf, UINT64_C(1) << 50, 0, SP_LEAF_PAGES, &carry, got,
                                    &used, sizeof got / sizeof *got),
                    SP_LEAF_PAGES) &&
           CHECK_EQ(carry, in) && CHECK_EQ(used, n) && CHECK(!memcmp(got, want, n * sizeof *got));
}

bool leaf_matches(sp_ref leaf, const leaf_model *m, rng *r)
{
    uint32_t below = 0, every = (uint32_t)rng_between(r, 1, 40);
    bool good = CHECK_VALID(sp_leaf_validate(leaf)) && leaf_holds(leaf, m);
    for (uint32_t i = 0; good && i < SP_LEAF_PAGES; i++) {
        if (i % 64 < 2 || i % 64 == 63 || i % every == 0)
            good = CHECK_EQ(sp_leaf_rank(leaf, i), below) &&
                   CHECK_EQ(sp_leaf_contains(leaf, i), m->in[i]) &&
                   (!m->in[i] || CHECK_EQ(sp_leaf_select(leaf, below), i));
        below += m->in[i];
    }
    return good && CHECK_EQ(sp_leaf_rank(leaf, SP_LEAF_PAGES), below) &&
           CHECK_EQ(sp_leaf_count(leaf), below) && toggles_match(leaf, m, 0) &&
           toggles_match(leaf, m, 1);
}
