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

enum { STRIDE = 16 }; /* of loops whose length the compiler knows: it makes vectors of them */

static inline uint32_t get_u32(const uint8_t *at)
{
    uint32_t value;
    memcpy(&value, at, sizeof value);
    return value;
}

static inline void put_u32(uint8_t *at, uint32_t value) { memcpy(at, &value, sizeof value); }

/* ---- writing ---- */

/* A container of so many pages in so many runs, in the shortest form. */
static inline sp_container shortest(sp_ref leaf, uint32_t key, uint32_t pages, uint32_t runs)
{
    uint32_t as_runs = 2 + 4 * runs;
    bool worth = as_runs < 2 * pages && as_runs < SP_CONTAINER_BITMAP_BYTES;
    return (sp_container){leaf, (uint16_t)key, (uint16_t)(pages - 1), (uint16_t)(worth ? runs : 0),
                          0};
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

static sp_container container_of_node(const sp_kernels *k, sp_ref leaf, uint32_t key)
{
    const sp_small *small = sp_as_small(leaf);
    switch (sp_leaf_shape(leaf)) {
    case SP_ARRAY: return (sp_container){leaf, (uint16_t)key, (uint16_t)(small->pages - 1), 0, 0};
    case SP_RUNS: return shortest(leaf, key, small->pages, small->n);
    default: return shortest(leaf, key, sp_as_bitmap(leaf)->pages, bitmap_runs(k, leaf));
    }
}

/* Without a branch, which would be guessed wrong for every other leaf; of EMPTY, anything. */
static inline sp_container container_of_held(sp_ref leaf, uint32_t key)
{
    uint32_t one = (uint32_t)(leaf >> 32) - (uint32_t)(leaf >> 16 & 0xffff) + 1;
    uint32_t two = (uint32_t)(leaf >> 18 & 0x7fff) + (uint32_t)(leaf >> 49) + 2;
    uint32_t pages = leaf & 2 ? (leaf & 1 ? two : one) : SP_LEAF_PAGES;
    return shortest(leaf, key, pages, 1 + ((leaf & 3) == 3));
}

static inline bool eight_are_empty(const sp_ref *leaf)
{
    return !(leaf[0] | leaf[1] | leaf[2] | leaf[3] | leaf[4] | leaf[5] | leaf[6] | leaf[7]);
}

size_t sp_containers_of(const sp_kernels *k, const sp_ref *leaves, size_t n, uint32_t key,
                        sp_container *out)
{
    size_t used = 0;
    for (size_t from = 0, to; from < n; from = to) {
        to = sp_min(from + 8, n);
        if (to == from + 8 && eight_are_empty(leaves + from))
            continue;
        for (size_t i = from; i < to; i++) {
            sp_ref node = leaves[i] & -(sp_ref) !(leaves[i] & 3);
            if (node)
                out[used] = container_of_node(k, node, key + (uint32_t)i);
            else
                out[used] = container_of_held(leaves[i], key + (uint32_t)i);
            used += leaves[i] != SP_EMPTY;
        }
    }
    return used;
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

/* (first, last) pairs as (first, last - first), which no borrow leaves. */
static inline void write_pairs(const uint8_t *runs, uint32_t n, uint8_t *out)
{
    for (uint32_t i = 0; i < n; i++) {
        uint32_t run = get_u32(runs + 4 * i);
        put_u32(out + 4 * i, run - (run << 16));
    }
}

static void write_run_list(const sp_run *list, uint32_t n, uint8_t *restrict out)
{
    const uint8_t *runs = (const uint8_t *)list;
    uint32_t i = 0;
    memcpy(out, &(uint16_t){(uint16_t)n}, 2);
    for (out += 2; i + STRIDE <= n; i += STRIDE)
        write_pairs(runs + 4 * i, STRIDE, out + 4 * i);
    write_pairs(runs + 4 * i, n - i, out + 4 * i);
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

/* Of a leaf that is a node. */
static void write_runs(const sp_kernels *k, sp_ref leaf, uint32_t n, uint8_t *out)
{
    if (sp_leaf_shape(leaf) == SP_BITMAP)
        write_bitmap_runs(k, leaf, n, out);
    else
        write_run_list(sp_runs(sp_as_small(leaf)), n, out);
}

static void write_bitmap(sp_ref leaf, uint32_t bytes, uint8_t *out)
{
    uint64_t words[SP_LEAF_WORDS];
    memcpy(out, sp_leaf_view(leaf, words), bytes);
}

static void write_container(const sp_kernels *k, const sp_container *c, uint32_t bytes,
                            uint8_t *out)
{
    sp_run held[2];
    if (!c->runs && c->most < SP_CONTAINER_MAX_VALUES)
        write_values(c->leaf, out);
    else if (!c->runs)
        write_bitmap(c->leaf, bytes, out);
    else if (sp_leaf_shape(c->leaf) == SP_HELD)
        write_run_list(held, sp_held_get(c->leaf, held), out);
    else
        write_runs(k, c->leaf, c->runs, out);
}

/* The values first, first + 1, ... + 3; of those that are not wanted, anything. */
static inline uint64_t four_values(uint64_t first)
{
    return first * UINT64_C(0x0001000100010001) + UINT64_C(0x0003000200010000);
}

/* Writes the container of a leaf that is packed into its ref, up to five values or two runs, and
 * up to HELD_ROOM bytes in all.  The forms are mixed at random in a guest: no branch asks which it
 * is. */
enum { HELD_ROOM = 18 };
static inline void write_held(const sp_container *c, uint8_t *out)
{
    bool two = (c->leaf & 3) == 3, runs = c->runs;
    uint64_t first = (two ? c->leaf >> 2 : c->leaf >> 16) & 0xffff;
    uint64_t more = two ? c->leaf >> 18 & 0x7fff : c->most;
    uint64_t second = c->leaf >> 33 & 0xffff, second_more = c->leaf >> 49;
    uint64_t list = (1u + two) | first << 16 | more << 32 | second << 48;
    uint64_t low = runs ? list : four_values(first);
    uint64_t high = runs ? second_more : four_values(second);
    memcpy(out, &low, sizeof low);
    memcpy(out + (runs ? 8 : 2 * (more + 1)), &high, sizeof high);
}

uint8_t *sp_containers_write(const sp_kernels *k, const sp_container *list, size_t n, uint8_t *out)
{
    for (size_t i = 0; i < n; i++) {
        const sp_container *c = &list[i];
        uint32_t bytes = sp_container_bytes(c);
        /* What is too much is written over by those that follow, of at least two bytes each. */
        if (c->leaf & 2 && n - i > HELD_ROOM / 2) {
            write_held(c, out);
            out += bytes;
            continue;
        }
        for (uint32_t times = 0; times <= c->again; times++, out += bytes)
            write_container(k, c, bytes, out);
    }
    return out;
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

/* How many of values[1..n) are not one more than the value before, and how many are not more. */
typedef struct steps {
    uint32_t breaks, falls;
} steps;

static steps steps_of(const uint16_t *values, uint32_t n)
{
    steps all = {0, 0};
    uint32_t i = 1;
    for (; i + STRIDE <= n; i += STRIDE) {
        uint16_t breaks = 0, falls = 0;
        for (uint32_t j = 0; j < STRIDE; j++) {
            uint16_t before = values[i + j - 1], value = values[i + j];
            breaks = (uint16_t)(breaks + (value != (uint16_t)(before + 1)));
            falls = (uint16_t)(falls + (value <= before));
        }
        all.breaks += breaks;
        all.falls += falls;
    }
    for (; i < n; i++) {
        all.breaks += values[i] != values[i - 1] + 1u;
        all.falls += values[i] <= values[i - 1];
    }
    return all;
}

static sp_status read_values(sp_edit *edit, uint32_t pages, const uint8_t *data, sp_ref *leaf,
                             size_t *used, const char **why)
{
    uint16_t values[SP_CONTAINER_MAX_VALUES];
    memcpy(values, data, pages * sizeof *values);
    steps found = steps_of(values, pages);
    if (found.falls) {
        uint32_t i = 1;
        while (values[i] > values[i - 1])
            i++;
        return blame(used, i * sizeof *values, why, "a value is not above the one before it");
    }
    *used = pages * sizeof *values;
    return from_values(edit, values, pages, found.breaks + 1, leaf);
}

static sp_status read_bitmap(sp_edit *edit, uint32_t pages, const uint8_t *data, sp_ref *leaf,
                             size_t *used, const char **why)
{
    sp_status status = sp_leaf_from_bytes(edit, data, pages, leaf);
    if (status == SP_INVALID)
        return blame(used, 0, why, "a bitmap has more or fewer bits set than its header says");
    *used = SP_CONTAINER_BITMAP_BYTES;
    return status;
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

/* Runs one by one, whatever they are. */
static sp_status read_any_runs(sp_edit *edit, uint32_t pages, const uint8_t *data, uint32_t n,
                               sp_ref *leaf, size_t *used, const char **why)
{
    gathered all;
    uint32_t next = 0; /* the least first page of the next run */
    all.n = all.pages = 0;
    all.in_words = false;
    for (uint32_t i = 0; i < n; i++) {
        uint16_t run[2];
        size_t at = sizeof(uint16_t) + i * sizeof run;
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
    *used = sizeof(uint16_t) + n * sizeof(sp_run);
    return all.in_words ? sp_leaf_from_words(edit, all.words, leaf)
                        : sp_leaf_from_runs(edit, all.runs, all.n, leaf);
}

/* What is to be known of (first, pages - 1) pairs. */
typedef struct fold {
    uint32_t more; /* the sum of what is less by 1 */
    int32_t room;  /* negative if one ends beyond the leaf, or behind the start of the next */
} fold;

/* Makes n pairs, which others follow, into (first, last). */
static inline void fold_runs(fold *f, const uint8_t *pairs, uint32_t n, uint8_t *out)
{
    int32_t room = f->room;
    uint32_t more = f->more;
    for (uint32_t j = 0; j < n; j++) {
        uint32_t pair = get_u32(pairs + 4 * j), next = get_u32(pairs + 4 * j + 4) & 0xffff;
        uint32_t first = pair & 0xffff, end = first + (pair >> 16);
        more += pair >> 16;
        room |= (int32_t)(next - end - 2) | (int32_t)(SP_LEAF_PAGES - 1 - end);
        put_u32(out + 4 * j, first | end << 16);
    }
    *f = (fold){more, room};
}

/* The n runs of a container, which is not empty, if they are few, in order and do not touch: false
 * if they are not. */
static bool fold_list(const uint8_t *data, uint32_t n, sp_run *runs, uint32_t *pages)
{
    uint8_t pairs[SP_SMALL_MAX_BYTES], *out = (uint8_t *)runs;
    fold f = {0, 0};
    uint32_t i = 0;
    if (!n || n > SP_MAX_RUNS)
        return false;
    memcpy(pairs, data, n * sizeof *runs);
    for (; i + STRIDE < n; i += STRIDE)
        fold_runs(&f, pairs + 4 * i, STRIDE, out + 4 * i);
    fold_runs(&f, pairs + 4 * i, n - 1 - i, out + 4 * i);
    uint32_t pair = get_u32(pairs + 4 * (n - 1)), first = pair & 0xffff, end = first + (pair >> 16);
    put_u32(out + 4 * (n - 1), first | end << 16);
    *pages = f.more + (pair >> 16) + n;
    return f.room >= 0 && end < SP_LEAF_PAGES;
}

static sp_status read_runs(sp_edit *edit, uint32_t pages, const uint8_t *data, size_t size,
                           sp_ref *leaf, size_t *used, const char **why)
{
    sp_run runs[SP_MAX_RUNS];
    uint32_t counted;
    uint16_t n;
    if (size < sizeof n)
        return blame(used, size, why, "the end, where a count of runs begins");
    memcpy(&n, data, sizeof n);
    if (size < sizeof n + n * sizeof *runs)
        return blame(used, size, why, "the end, before the last of a container's runs");
    if (!fold_list(data + sizeof n, n, runs, &counted) || counted != pages)
        return read_any_runs(edit, pages, data, n, leaf, used, why);
    *used = sizeof n + n * sizeof *runs;
    return sp_small_new(edit, sp_leaf_pick(pages, n), runs, n, pages, 0, leaf);
}

sp_status sp_container_read(sp_edit *edit, sp_container_kind kind, uint32_t pages,
                            const uint8_t *data, size_t size, sp_ref *leaf, size_t *used,
                            const char **why)
{
    if (kind == SP_CONTAINER_RUNS)
        return read_runs(edit, pages, data, size, leaf, used, why);
    if (size < (kind == SP_CONTAINER_VALUES ? 2 * pages : SP_CONTAINER_BITMAP_BYTES))
        return blame(used, size, why, "the end, within a container");
    if (kind == SP_CONTAINER_VALUES)
        return read_values(edit, pages, data, leaf, used, why);
    return read_bitmap(edit, pages, data, leaf, used, why);
}
