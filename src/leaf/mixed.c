/*
 * mixed.c - a list of runs and a bitmap.  Floor 2.
 *
 * The list says which words matter: a run of a normal guest lies in one word or two, so each is
 * looked at alone, and the rest of the bitmap's 8 KiB is not.
 */
#include "leaf/kinds.h"

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

/* The part of a run within word w. */
static inline uint64_t mask_of(sp_run run, uint32_t w)
{
    return sp_mask(w == run.first >> 6 ? run.first & 63 : 0, w == run.last >> 6 ? run.last & 63 : 63);
}

/* Pages from which counts by block beat counting words. */
#define LONG_RUN 1024u

uint32_t sp_mixed_count(const sp_bitmap *bitmap, const sp_run *runs, uint32_t n)
{
    uint32_t pages = 0;
    for (uint32_t i = 0; i < n; i++) {
        sp_run run = runs[i];
        if (sp_run_pages(run) >= LONG_RUN) {
            pages += sp_leaf_count_range(sp_node_ref(bitmap), run.first, run.last);
            continue;
        }
        for (uint32_t w = run.first >> 6; w <= run.last >> 6; w++)
            pages += sp_popcount(word_of(bitmap, w) & mask_of(run, w));
    }
    return pages;
}

/* Appends the runs of a word, the first joined to a last one that it touches.  Returns how many
 * there are then; up to 32 more than before. */
static inline uint32_t word_runs(uint64_t word, uint32_t base, sp_run *out, uint32_t n)
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

bool sp_mixed_cut(const sp_bitmap *bitmap, const sp_run *runs, uint32_t n, bool keep,
                  sp_run out[SP_MAX_VALUES], uint32_t *made)
{
    uint64_t flip = keep ? 0 : ~UINT64_C(0);
    uint32_t used = 0;
    for (uint32_t i = 0; i < n; i++) {
        sp_run run = runs[i];
        for (uint32_t w = run.first >> 6; w <= run.last >> 6; w++) {
            if (used + 32 > SP_MAX_VALUES)
                return false;
            used = word_runs((word_of(bitmap, w) ^ flip) & mask_of(run, w), w * 64, out, used);
        }
    }
    *made = used;
    return true;
}

void sp_mixed_apply(sp_op op, const sp_run *runs, uint32_t n, uint64_t words[SP_LEAF_WORDS])
{
    for (uint32_t i = 0; i < n; i++) {
        sp_run run = runs[i];
        for (uint32_t w = run.first >> 6; w <= run.last >> 6; w++) {
            uint64_t mask = mask_of(run, w);
            if (op == SP_OR)
                words[w] |= mask;
            else if (op == SP_ANDNOT)
                words[w] &= ~mask;
            else
                words[w] ^= mask;
        }
    }
}
