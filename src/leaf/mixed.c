/*
 * mixed.c - a list of runs and a bitmap.  Floor 2.
 *
 * The list says which words matter: a run of a normal guest lies in one word or two, so each is
 * looked at alone, and the rest of the bitmap's 8 KiB is not.
 */
#include "leaf/build.h"

/* 64 pages of a bitmap leaf. */
static inline uint64_t word_of(const sp_bitmap *leaf, uint32_t w)
{
    if (sp_bitmap_is_whole(leaf))
        return leaf->words[w];
    sp_ref block = leaf->block[w / SP_BLOCK_WORDS];
    if (!sp_block_is_real(block))
        return block == SP_FULL ? ~UINT64_C(0) : 0;
    return sp_block_words(block)[w % SP_BLOCK_WORDS];
}

/* The words of a bitmap that lie under a list's runs, in order, with what lies beside cleared. */
typedef struct gathered {
    uint32_t n;
    uint64_t word[SP_LEAF_WORDS];
    uint16_t place[SP_LEAF_WORDS]; /* of bit 0 */
} gathered;

/* Appends part of word w, or adds it to the last where that is of the same word. */
static inline void add_part(gathered *g, uint32_t w, uint64_t part)
{
    uint32_t same = g->n && g->place[g->n - 1] == w * 64, at = g->n - same;
    g->word[at] = part | (same ? g->word[at] : 0);
    g->place[at] = (uint16_t)(w * 64);
    g->n = at + 1;
}

static void gather(const sp_bitmap *bitmap, const sp_run *runs, uint32_t n, bool keep,
                   gathered *out)
{
    uint64_t flip = keep ? 0 : ~UINT64_C(0);
    out->n = 0;
    for (uint32_t i = 0; i < n; i++) {
        sp_run run = runs[i];
        uint32_t w = run.first >> 6, last = run.last >> 6;
        uint64_t from = ~UINT64_C(0) << (run.first & 63);
        for (; w < last; w++, from = ~UINT64_C(0))
            add_part(out, w, (word_of(bitmap, w) ^ flip) & from);
        add_part(out, w, (word_of(bitmap, w) ^ flip) & from & sp_mask(0, run.last & 63));
    }
}

uint32_t sp_mixed_count(const sp_kernels *k, const sp_bitmap *bitmap, const sp_run *runs,
                        uint32_t n)
{
    gathered found;
    gather(bitmap, runs, n, true, &found);
    return (uint32_t)k->popcount(found.word, found.n);
}

/* Runs of what was gathered.  Words that are not neighbours count as if they were, which joins two
 * runs only if one ends and the other begins at the seam. */
static uint32_t runs_of(const sp_kernels *k, const gathered *g)
{
    uint64_t carry = 0, toggles = k->toggles_count(g->word, g->n, &carry);
    uint32_t runs = (uint32_t)(toggles + carry) / 2;
    for (uint32_t i = 1; i < g->n; i++)
        runs += g->place[i] != g->place[i - 1] + 64 && g->word[i - 1] >> 63 && g->word[i] & 1;
    return runs;
}

/* Appends the runs of a word, the first joined to a last one that it touches.  Returns how many
 * there are then. */
static inline uint32_t append_runs(uint64_t word, uint32_t base, sp_run *out, uint32_t n)
{
    while (word) {
        uint32_t first = sp_lowest(word);
        uint64_t filled = word | (word - 1);
        uint32_t stop = ~filled ? sp_lowest(~filled) : 64;
        word &= filled + 1;
        if (n && out[n - 1].last + 1u == base + first)
            n--;
        else
            out[n].first = (uint16_t)(base + first);
        out[n++].last = (uint16_t)(base + stop - 1);
    }
    return n;
}

static sp_status list_of(sp_edit *edit, const gathered *g, uint32_t pages, sp_ref *out)
{
    sp_run list[SP_MAX_RUNS + 1];
    uint32_t n = 0;
    for (uint32_t i = 0; i < g->n; i++)
        n = append_runs(g->word[i], g->place[i], list, n);
    return sp_small_new(edit, SP_RUNS, list, n, pages, 0, out);
}

static sp_status array_of(sp_edit *edit, const gathered *g, uint32_t pages, sp_ref *out)
{
    uint16_t values[SP_MAX_VALUES + 64];
    edit->kernels->positions(g->word, g->place, g->n, values);
    return sp_array_new(edit, values, pages, out);
}

static sp_status bitmap_of(sp_edit *edit, const gathered *g, uint32_t runs, sp_ref *out)
{
    uint64_t words[SP_LEAF_WORDS] = {0};
    for (uint32_t i = 0; i < g->n; i++)
        words[g->place[i] / 64] = g->word[i];
    sp_tally tally = sp_tally_pages(edit->kernels, words);
    tally.least_runs = runs;
    return sp_bitmap_from_words(edit, words, &tally, out);
}

sp_status sp_mixed_cut(sp_edit *edit, const sp_bitmap *bitmap, const sp_run *runs, uint32_t n,
                       bool keep, sp_ref *out)
{
    gathered found;
    gather(bitmap, runs, n, keep, &found);
    uint32_t pages = (uint32_t)edit->kernels->popcount(found.word, found.n);
    uint32_t left = runs_of(edit->kernels, &found);
    if (left <= 2)
        return list_of(edit, &found, pages, out);
    switch (sp_leaf_pick(pages, left)) {
    case SP_ARRAY: return array_of(edit, &found, pages, out);
    case SP_BITMAP: return bitmap_of(edit, &found, left, out);
    default: return list_of(edit, &found, pages, out);
    }
}

/* `op` is a constant where this is inlined. */
static inline void apply_as(sp_op op, uint64_t *word, uint64_t mask)
{
    if (op == SP_OR)
        *word |= mask;
    else if (op == SP_ANDNOT)
        *word &= ~mask;
    else
        *word ^= mask;
}

static inline void apply_all(sp_op op, const sp_run *runs, uint32_t n, uint64_t *words)
{
    for (uint32_t i = 0; i < n; i++) {
        uint32_t w = runs[i].first >> 6, last = runs[i].last >> 6;
        uint64_t from = ~UINT64_C(0) << (runs[i].first & 63);
        for (; w < last; w++, from = ~UINT64_C(0))
            apply_as(op, words + w, from);
        apply_as(op, words + w, from & sp_mask(0, runs[i].last & 63));
    }
}

void sp_mixed_apply(sp_op op, const sp_run *runs, uint32_t n, uint64_t words[SP_LEAF_WORDS])
{
    switch (op) {
    case SP_OR: apply_all(SP_OR, runs, n, words); return;
    case SP_ANDNOT: apply_all(SP_ANDNOT, runs, n, words); return;
    default: apply_all(SP_XOR, runs, n, words);
    }
}
