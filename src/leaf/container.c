/*
 * container.c - leaves to and from containers of the Roaring format.  Floor 2.
 *
 * An array leaf is the file's list of values as it stands, and a bitmap leaf its bitmap; runs
 * differ in their second number.  So writing is mostly copying, and reading is copying and looking.
 */
#include "leaf/container.h"

#include <string.h>

#include "leaf/build.h"

_Static_assert(__BYTE_ORDER__ == __ORDER_LITTLE_ENDIAN__, "containers are little-endian");
_Static_assert(SP_CONTAINER_BITMAP_BYTES == SP_LEAF_WORDS * sizeof(uint64_t), "2^16 bits");

/* ---- writing ---- */

static sp_container shortest(uint32_t pages, uint32_t runs)
{
    sp_container as_runs = {SP_CONTAINER_RUNS, pages, runs};
    sp_container other = {SP_CONTAINER_BITMAP, pages, 0};
    if (pages <= SP_CONTAINER_MAX_VALUES)
        other.kind = SP_CONTAINER_VALUES;
    return sp_container_bytes(as_runs) < sp_container_bytes(other) ? as_runs : other;
}

/* Runs of a bitmap leaf, or some number that is more than a container of runs is worth. */
static uint32_t bitmap_runs(const sp_kernels *k, sp_ref leaf)
{
    const sp_bitmap *bitmap = sp_as_bitmap(leaf);
    if (bitmap->least_runs >= SP_CONTAINER_BITMAP_BYTES / sizeof(sp_run))
        return bitmap->least_runs;
    uint64_t carry = 0, toggles = sp_leaf_toggles_count(k, leaf, &carry);
    return (uint32_t)(toggles + carry) / 2;
}

sp_container sp_container_of(const sp_kernels *k, sp_ref leaf)
{
    switch (sp_leaf_shape(leaf)) {
    case SP_HELD: return shortest(sp_held_pages(leaf), (leaf & 3) == 3 ? 2 : 1);
    case SP_ARRAY: return (sp_container){SP_CONTAINER_VALUES, sp_as_small(leaf)->pages, 0};
    case SP_RUNS: return shortest(sp_as_small(leaf)->pages, sp_as_small(leaf)->n);
    case SP_BITMAP: break;
    }
    return shortest(sp_as_bitmap(leaf)->pages, bitmap_runs(k, leaf));
}

static uint8_t *put_value(uint8_t *out, uint32_t page)
{
    memcpy(out, &(uint16_t){(uint16_t)page}, sizeof(uint16_t));
    return out + sizeof(uint16_t);
}

static void write_bitmap_values(sp_ref leaf, uint8_t *out)
{
    uint64_t scratch[SP_LEAF_WORDS];
    const uint64_t *words = sp_leaf_view(leaf, scratch);
    for (uint32_t w = 0; w < SP_LEAF_WORDS; w++)
        for (uint64_t left = words[w]; left; left &= left - 1)
            out = put_value(out, w * 64 + sp_lowest(left));
}

static void write_run_values(const sp_run *runs, uint32_t n, uint8_t *out)
{
    for (uint32_t i = 0; i < n; i++)
        for (uint32_t page = runs[i].first; page <= runs[i].last; page++)
            out = put_value(out, page);
}

static void write_values(sp_ref leaf, uint8_t *out)
{
    sp_run held[2];
    switch (sp_leaf_shape(leaf)) {
    case SP_HELD: write_run_values(held, sp_held_get(leaf, held), out); break;
    case SP_ARRAY:
        memcpy(out, sp_values(sp_as_small(leaf)), sp_as_small(leaf)->n * sizeof(uint16_t));
        break;
    case SP_RUNS: write_run_values(sp_runs(sp_as_small(leaf)), sp_as_small(leaf)->n, out); break;
    case SP_BITMAP: write_bitmap_values(leaf, out); break;
    }
}

static void write_run_list(const sp_run *runs, uint32_t n, uint8_t *out)
{
    memcpy(out, &(uint16_t){(uint16_t)n}, 2);
    for (uint32_t i = 0; i < n; i++) {
        sp_run run = {runs[i].first, (uint16_t)(runs[i].last - runs[i].first)};
        memcpy(out + 2 + i * sizeof run, &run, sizeof run);
    }
}

/* Of a bitmap leaf with n runs, fewer than a bitmap has room for. */
static void write_bitmap_runs(const sp_kernels *k, sp_ref leaf, uint32_t n, uint8_t *out)
{
    uint64_t toggles[SP_CONTAINER_BITMAP_BYTES / sizeof(sp_run) * 2 + SP_TOGGLES_ROOM];
    sp_run runs[SP_CONTAINER_BITMAP_BYTES / sizeof(sp_run)];
    uint64_t carry = 0;
    size_t used = 0;
    uint32_t end = sp_leaf_toggles(k, leaf, 0, 0, SP_LEAF_PAGES, &carry, toggles, &used,
                                   sizeof toggles / sizeof *toggles);
    SP_ASSERT(end == SP_LEAF_PAGES && (used + carry) / 2 == n);
    (void)end;
    if (carry)
        toggles[used] = SP_LEAF_PAGES;
    for (uint32_t i = 0; i < n; i++)
        runs[i] = (sp_run){(uint16_t)toggles[2 * i], (uint16_t)(toggles[2 * i + 1] - 1)};
    write_run_list(runs, n, out);
}

static void write_runs(const sp_kernels *k, sp_ref leaf, uint32_t n, uint8_t *out)
{
    sp_run held[2];
    switch (sp_leaf_shape(leaf)) {
    case SP_HELD: write_run_list(held, sp_held_get(leaf, held), out); break;
    case SP_BITMAP: write_bitmap_runs(k, leaf, n, out); break;
    default: write_run_list(sp_runs(sp_as_small(leaf)), n, out);
    }
}

static void write_bitmap(sp_ref leaf, uint8_t *out)
{
    uint64_t words[SP_LEAF_WORDS];
    memcpy(out, sp_leaf_view(leaf, words), SP_CONTAINER_BITMAP_BYTES);
}

void sp_container_write(const sp_kernels *k, sp_ref leaf, sp_container how, uint8_t *out)
{
    switch (how.kind) {
    case SP_CONTAINER_VALUES: write_values(leaf, out); break;
    case SP_CONTAINER_RUNS: write_runs(k, leaf, how.runs, out); break;
    case SP_CONTAINER_BITMAP: write_bitmap(leaf, out); break;
    }
}

/* ---- reading ---- */

static sp_status blame(size_t *used, size_t offset, const char **why, const char *what)
{
    *used = offset;
    *why = what;
    return SP_INVALID;
}

/* A leaf of ascending values that are so many runs. */
static sp_status from_values(sp_edit *edit, const uint16_t *values, uint32_t n, uint32_t nruns,
                             sp_ref *leaf)
{
    if (sp_leaf_pick(n, nruns) == SP_ARRAY && nruns > 2)
        return sp_array_new(edit, values, n, leaf);
    if (sp_leaf_pick(n, nruns) == SP_BITMAP) {
        uint64_t words[SP_LEAF_WORDS] = {0};
        for (uint32_t i = 0; i < n; i++)
            words[values[i] >> 6] |= UINT64_C(1) << (values[i] & 63);
        return sp_leaf_from_words(edit, words, leaf);
    }
    sp_run runs[SP_MAX_VALUES];
    uint32_t used = 0;
    for (uint32_t i = 0; i < n; i++) {
        if (i && values[i] == runs[used - 1].last + 1u)
            runs[used - 1].last = values[i];
        else
            runs[used++] = (sp_run){values[i], values[i]};
    }
    return sp_leaf_from_runs(edit, runs, used, leaf);
}

static sp_status read_values(sp_edit *edit, uint32_t pages, const uint8_t *data, sp_ref *leaf,
                             size_t *used, const char **why)
{
    uint16_t values[SP_CONTAINER_MAX_VALUES];
    memcpy(values, data, pages * sizeof *values);
    uint32_t breaks = 0, falls = 0;
    for (uint32_t i = 1; i < pages; i++) {
        breaks += values[i] != values[i - 1] + 1u;
        falls += values[i] <= values[i - 1];
    }
    if (falls) {
        uint32_t i = 1;
        while (values[i] > values[i - 1])
            i++;
        return blame(used, i * sizeof *values, why, "a value is not above the one before it");
    }
    *used = pages * sizeof *values;
    return from_values(edit, values, pages, breaks + 1, leaf);
}

static sp_status read_bitmap(sp_edit *edit, uint32_t pages, const uint8_t *data, sp_ref *leaf,
                             size_t *used, const char **why)
{
    uint64_t words[SP_LEAF_WORDS];
    memcpy(words, data, sizeof words);
    sp_tally tally = sp_tally_pages(edit->kernels, words);
    if (tally.pages != pages)
        return blame(used, 0, why, "a bitmap has more or fewer bits set than its header says");
    *used = sizeof words;
    return sp_leaf_from_tally(edit, words, &tally, leaf);
}

/* Runs as they are read: a list, until they are more than a list is made of. */
typedef struct gathered {
    uint32_t n, pages;
    bool in_words;
    sp_run runs[SP_MAX_VALUES];
    uint64_t words[SP_LEAF_WORDS];
} gathered;

static void gather(gathered *all, uint32_t first, uint32_t last)
{
    all->pages += last - first + 1;
    if (all->n && first == all->runs[all->n - 1].last + 1u && !all->in_words) {
        all->runs[all->n - 1].last = (uint16_t)last;
        return;
    }
    if (!all->in_words && all->n < SP_MAX_VALUES) {
        all->runs[all->n++] = (sp_run){(uint16_t)first, (uint16_t)last};
        return;
    }
    if (!all->in_words) {
        memset(all->words, 0, sizeof all->words);
        for (uint32_t i = 0; i < all->n; i++)
            sp_words_fill(all->words, all->runs[i].first, all->runs[i].last, true);
        all->in_words = true;
    }
    sp_words_fill(all->words, first, last, true);
}

static sp_status read_runs(sp_edit *edit, uint32_t pages, const uint8_t *data, size_t size,
                           sp_ref *leaf, size_t *used, const char **why)
{
    gathered all;
    uint16_t n, run[2];
    uint32_t next = 0; /* the least first page of the next run */
    all.n = all.pages = 0;
    all.in_words = false;
    if (size < sizeof n)
        return blame(used, size, why, "the end, where a count of runs begins");
    memcpy(&n, data, sizeof n);
    if (size < sizeof n + n * sizeof run)
        return blame(used, size, why, "the end, before the last of a container's runs");
    for (uint32_t i = 0; i < n; i++) {
        size_t at = sizeof n + i * sizeof run;
        memcpy(run, data + at, sizeof run);
        if (run[0] < next)
            return blame(used, at, why, "a run begins before the end of the one before it");
        next = (uint32_t)run[0] + run[1] + 1;
        if (next > SP_LEAF_PAGES)
            return blame(used, at + 2, why, "a run ends beyond its container's 65,536 pages");
        gather(&all, run[0], next - 1);
    }
    if (all.pages != pages)
        return blame(used, 0, why, "runs have more or fewer pages than their header says");
    *used = sizeof n + n * sizeof run;
    return all.in_words ? sp_leaf_from_words(edit, all.words, leaf)
                        : sp_leaf_from_runs(edit, all.runs, all.n, leaf);
}

sp_status sp_container_read(sp_edit *edit, sp_container_kind kind, uint32_t pages,
                            const uint8_t *data, size_t size, sp_ref *leaf, size_t *used,
                            const char **why)
{
    if (kind == SP_CONTAINER_RUNS)
        return read_runs(edit, pages, data, size, leaf, used, why);
    if (size < sp_container_bytes((sp_container){kind, pages, 0}))
        return blame(used, size, why, "the end, within a container");
    if (kind == SP_CONTAINER_VALUES)
        return read_values(edit, pages, data, leaf, used, why);
    return read_bitmap(edit, pages, data, leaf, used, why);
}
