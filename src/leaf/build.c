/*
 * build.c - leaves from runs and words, and the choice of their kind.  Floor 2.
 */
#include <string.h>

#include "leaf/build.h"

sp_shape sp_leaf_pick(uint32_t pages, uint32_t runs)
{
    size_t as_array = pages * sizeof(uint16_t), as_runs = runs * sizeof(sp_run);
    if (as_array > SP_SMALL_MAX_BYTES && as_runs > SP_SMALL_MAX_BYTES)
        return SP_BITMAP;
    return as_array < as_runs ? SP_ARRAY : SP_RUNS;
}

sp_status sp_small_new(sp_edit *edit, sp_shape shape, const sp_run *runs, uint32_t n,
                       uint32_t pages, uint32_t room, sp_ref *out)
{
    if (!room && sp_held_put(runs, n, out))
        return SP_OK;
    bool array = shape == SP_ARRAY;
    size_t need = sp_max(room, array ? pages : n);
    sp_small *leaf = sp_edit_new(edit, array ? SP_KIND_ARRAY : SP_KIND_RUNS,
                                 SP_SMALL_HEAD +
                                     need * (array ? sizeof(uint16_t) : sizeof(sp_run)));
    if (!leaf)
        return SP_NOMEM;
    leaf->pages = pages;
    leaf->n = array ? pages : n;
    if (!array) {
        memcpy(sp_runs(leaf), runs, n * sizeof *runs);
    } else {
        uint16_t *value = sp_values(leaf);
        for (uint32_t i = 0; i < n; i++)
            for (uint32_t page = runs[i].first; page <= runs[i].last; page++)
                *value++ = (uint16_t)page;
    }
    *out = sp_node_ref(leaf);
    return SP_OK;
}

sp_status sp_array_new(sp_edit *edit, const uint16_t *values, uint32_t n, sp_ref *out)
{
    sp_small *leaf = sp_edit_new(edit, SP_KIND_ARRAY, SP_SMALL_HEAD + n * sizeof *values);
    if (!leaf)
        return SP_NOMEM;
    leaf->pages = leaf->n = n;
    memcpy(sp_values(leaf), values, n * sizeof *values);
    *out = sp_node_ref(leaf);
    return SP_OK;
}

sp_status sp_leaf_from_runs(sp_edit *edit, const sp_run *runs, uint32_t n, sp_ref *out)
{
    uint32_t pages = sp_runs_pages(runs, n);
    sp_shape shape = sp_leaf_pick(pages, n);
    if (shape != SP_BITMAP)
        return sp_small_new(edit, shape, runs, n, pages, 0, out);
    uint64_t words[SP_LEAF_WORDS] = {0};
    for (uint32_t i = 0; i < n; i++)
        sp_words_fill(words, runs[i].first, runs[i].last, true);
    sp_tally tally = sp_tally_pages(edit->kernels, words);
    tally.least_runs = n;
    return sp_bitmap_from_words(edit, words, &tally, out);
}

sp_status sp_leaf_from_ranges(sp_edit *edit, uint64_t base, const sp_range *ranges, size_t n,
                              sp_ref *out)
{
    sp_run runs[SP_MAX_VALUES];
    uint32_t used = 0;
    for (size_t i = 0; i < n; i++) {
        sp_run run = {(uint16_t)(ranges[i].start - base), (uint16_t)(ranges[i].stop - 1 - base)};
        if (used && run.first <= runs[used - 1].last + 1u) {
            if (run.last > runs[used - 1].last)
                runs[used - 1].last = run.last;
        } else if (used < SP_MAX_VALUES) {
            runs[used++] = run;
        } else {
            uint64_t words[SP_LEAF_WORDS] = {0};
            for (size_t j = 0; j < n; j++)
                sp_words_fill(words, ranges[j].start - base, ranges[j].stop - 1 - base, true);
            return sp_leaf_from_words(edit, words, out);
        }
    }
    return sp_leaf_from_runs(edit, runs, used, out);
}

/* Word-wise to runs; the caller knows that they are at most SP_MAX_VALUES. */
static uint32_t words_to_runs(const sp_kernels *k, const uint64_t words[SP_LEAF_WORDS], sp_run *out)
{
    uint64_t toggles[1024];
    uint32_t n = 0;
    uint64_t carry = 0;
    for (size_t i = 0; i < SP_LEAF_WORDS;) {
        size_t used = 0;
        bool open = carry;
        i += k->toggles(words + i, SP_LEAF_WORDS - i, i * 64, &carry, toggles, &used,
                        sizeof toggles / sizeof *toggles);
        for (size_t t = 0; t < used; t++, open = !open) {
            if (open)
                out[n++].last = (uint16_t)(toggles[t] - 1);
            else
                out[n].first = (uint16_t)toggles[t];
        }
    }
    if (carry)
        out[n++].last = SP_LEAF_PAGES - 1;
    return n;
}

sp_tally sp_tally_pages(const sp_kernels *k, const uint64_t words[SP_LEAF_WORDS])
{
    sp_tally tally = {0};
    for (unsigned b = 0; b < SP_BLOCKS; b++) {
        tally.in_block[b] = (uint16_t)k->popcount(words + b * SP_BLOCK_WORDS, SP_BLOCK_WORDS);
        tally.pages += tally.in_block[b];
    }
    return tally;
}

uint32_t sp_words_runs(const sp_kernels *k, const uint64_t words[SP_LEAF_WORDS])
{
    uint64_t carry = 0, toggles = k->toggles_count(words, SP_LEAF_WORDS, &carry);
    return (uint32_t)(toggles + carry) / 2;
}

sp_status sp_leaf_from_tally(sp_edit *edit, const uint64_t words[SP_LEAF_WORDS],
                             const sp_tally *tally, sp_ref *out)
{
    sp_tally exact = *tally;
    if (sp_leaf_pick(tally->pages, tally->least_runs) == SP_BITMAP)
        return sp_bitmap_from_words(edit, words, tally, out);
    exact.least_runs = sp_words_runs(edit->kernels, words);
    sp_shape shape = sp_leaf_pick(tally->pages, exact.least_runs);
    if (shape == SP_BITMAP)
        return sp_bitmap_from_words(edit, words, &exact, out);
    sp_run list[SP_MAX_VALUES];
    uint32_t n = words_to_runs(edit->kernels, words, list);
    SP_ASSERT(n == exact.least_runs);
    return sp_small_new(edit, shape, list, n, tally->pages, 0, out);
}

sp_status sp_leaf_from_words(sp_edit *edit, const uint64_t words[SP_LEAF_WORDS], sp_ref *out)
{
    sp_tally tally = sp_tally_pages(edit->kernels, words);
    return sp_leaf_from_tally(edit, words, &tally, out);
}
