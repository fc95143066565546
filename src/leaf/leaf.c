/*
 * leaf.c - reading leaves of every kind.  Floor 2.
 *
 * Each question is answered by shape: a list of runs (packed or in a node), an array, or a bitmap.
 * Packed refs are unpacked into two runs on the stack, so they need no code of their own.
 */
#include <string.h>

#include "leaf/build.h"

/* The runs of a packed ref or a runs node. */
static uint32_t list_of(sp_ref leaf, const sp_run **runs, sp_run held[2])
{
    if (!sp_ref_is_node(leaf)) {
        *runs = held;
        return sp_held_get(leaf, held);
    }
    *runs = sp_runs(sp_as_small(leaf));
    return sp_as_small(leaf)->n;
}

uint32_t sp_leaf_count(sp_ref leaf)
{
    switch (sp_leaf_shape(leaf)) {
    case SP_HELD: return sp_held_pages(leaf);
    case SP_BITMAP: return sp_as_bitmap(leaf)->pages;
    default: return sp_as_small(leaf)->pages;
    }
}

bool sp_leaf_contains(sp_ref leaf, uint32_t page)
{
    const sp_run *runs;
    sp_run held[2];
    uint32_t i, n;
    switch (sp_leaf_shape(leaf)) {
    case SP_ARRAY:
        i = sp_values_find(sp_values(sp_as_small(leaf)), sp_as_small(leaf)->n, page);
        return i < sp_as_small(leaf)->n && sp_values(sp_as_small(leaf))[i] == page;
    case SP_BITMAP: {
        sp_ref block = sp_as_bitmap(leaf)->block[page / SP_BLOCK_PAGES];
        uint32_t bit = page % SP_BLOCK_PAGES;
        if (!sp_block_is_real(block))
            return block == SP_FULL;
        return sp_block_words(block)[bit >> 6] >> (bit & 63) & 1;
    }
    default:
        n = list_of(leaf, &runs, held);
        i = sp_runs_find(runs, n, page);
        return i < n && runs[i].first <= page;
    }
}

static uint32_t block_rank(sp_ref block, uint32_t bit)
{
    if (!sp_block_is_real(block))
        return block == SP_FULL ? bit : 0;
    const uint64_t *words = sp_block_words(block);
    uint32_t rank = 0;
    for (uint32_t w = 0; w < bit >> 6; w++)
        rank += sp_popcount(words[w]);
    return bit & 63 ? rank + sp_popcount(words[bit >> 6] & sp_mask(0, (bit & 63) - 1)) : rank;
}

uint32_t sp_leaf_rank(sp_ref leaf, uint32_t page)
{
    const sp_run *runs;
    sp_run held[2];
    uint32_t rank = 0, n;
    switch (sp_leaf_shape(leaf)) {
    case SP_ARRAY: return sp_values_find(sp_values(sp_as_small(leaf)), sp_as_small(leaf)->n, page);
    case SP_BITMAP: {
        const sp_bitmap *bitmap = sp_as_bitmap(leaf);
        uint32_t b = 0;
        for (; b < page / SP_BLOCK_PAGES; b++)
            rank += bitmap->in_block[b];
        return b < SP_BLOCKS ? rank + block_rank(bitmap->block[b], page % SP_BLOCK_PAGES) : rank;
    }
    default:
        n = list_of(leaf, &runs, held);
        for (uint32_t i = 0; i < n && runs[i].first < page; i++)
            rank += (uint32_t)sp_min(page, runs[i].last + 1u) - runs[i].first;
        return rank;
    }
}

uint32_t sp_leaf_count_range(sp_ref leaf, uint32_t first, uint32_t last)
{
    const sp_run *runs;
    sp_run held[2];
    sp_shape shape = sp_leaf_shape(leaf);
    if (shape == SP_ARRAY || shape == SP_BITMAP)
        return sp_leaf_rank(leaf, last + 1) - sp_leaf_rank(leaf, first);
    uint32_t n = list_of(leaf, &runs, held), pages = 0;
    for (uint32_t i = sp_runs_find(runs, n, first); i < n && runs[i].first <= last; i++)
        pages += (uint32_t)(sp_min(runs[i].last, last) - sp_max(runs[i].first, first)) + 1;
    return pages;
}

static uint32_t block_select(sp_ref block, uint32_t i)
{
    if (!sp_block_is_real(block))
        return i;
    const uint64_t *words = sp_block_words(block);
    uint32_t w = 0;
    for (unsigned in; i >= (in = sp_popcount(words[w])); w++)
        i -= in;
    uint64_t word = words[w];
    while (i--)
        word &= word - 1;
    return w * 64 + sp_lowest(word);
}

uint32_t sp_leaf_select(sp_ref leaf, uint32_t i)
{
    const sp_run *runs;
    sp_run held[2];
    switch (sp_leaf_shape(leaf)) {
    case SP_ARRAY: return sp_values(sp_as_small(leaf))[i];
    case SP_BITMAP: {
        const sp_bitmap *bitmap = sp_as_bitmap(leaf);
        uint32_t b = 0;
        for (; i >= bitmap->in_block[b]; b++)
            i -= bitmap->in_block[b];
        return b * SP_BLOCK_PAGES + block_select(bitmap->block[b], i);
    }
    default:
        list_of(leaf, &runs, held);
        for (; i >= sp_run_pages(*runs); runs++)
            i -= sp_run_pages(*runs);
        return runs->first + i;
    }
}

/* ---- toggles ---- */

/* Where toggles go, and the membership of the page before the next one. */
typedef struct sink {
    uint64_t base;
    uint64_t *out;
    size_t used, room;
    uint64_t carry;
} sink;

static inline bool has_room(const sink *s) { return s->room - s->used >= SP_TOGGLES_ROOM; }

/* Membership from `page` on is `value`. */
static inline void turn(sink *s, uint32_t page, uint64_t value)
{
    s->out[s->used] = s->base + page;
    s->used += s->carry != value;
    s->carry = value;
}

/* Runs from which a vector kernel pays. */
#define LONG_LIST 4

/* A whole leaf's list, with room for all of it: one pass, but for what joins at its two ends. */
static void list_toggles(const sp_kernels *k, sink *s, const sp_run *runs, uint32_t n)
{
    uint64_t *out = s->out + s->used, before = s->used ? out[-1] : 0;
    bool joins = s->carry && runs[0].first == 0, ends = runs[n - 1].last == SP_LEAF_PAGES - 1;
    if (s->carry && !joins)
        *out++ = s->base;
    /* The first run's start is no toggle if it joins: it is written over the entry before. */
    out -= joins;
    k->runs_toggles(&runs[0].first, n, s->base, out);
    if (joins)
        *out = before;
    s->used = (size_t)(out - s->out) + 2 * n - ends;
    s->carry = ends;
}

static uint32_t runs_toggles(const sp_kernels *k, sink *s, const sp_run *runs, uint32_t n,
                             uint32_t first, uint32_t stop)
{
    bool whole = first == 0 && stop == SP_LEAF_PAGES && n >= LONG_LIST;
    if (whole && (s->used || !s->carry) && s->room - s->used >= 2 * n + SP_TOGGLES_ROOM) {
        list_toggles(k, s, runs, n);
        return stop;
    }
    uint32_t i = sp_runs_find(runs, n, first), at = first;
    for (; i < n && runs[i].first < stop && has_room(s); i++) {
        uint32_t start = (uint32_t)sp_max(runs[i].first, first);
        uint32_t end = (uint32_t)sp_min(runs[i].last + 1u, stop);
        if (start > at)
            turn(s, at, 0);
        turn(s, start, 1);
        at = end;
    }
    if (i < n && runs[i].first < stop)
        return at;
    if (at < stop)
        turn(s, at, 0);
    return stop;
}

static uint32_t array_toggles(sink *s, const uint16_t *values, uint32_t n, uint32_t first,
                              uint32_t stop)
{
    uint32_t i = sp_values_find(values, n, first), at = first;
    for (; i < n && values[i] < stop && has_room(s); i++) {
        if (values[i] > at)
            turn(s, at, 0);
        turn(s, values[i], 1);
        at = values[i] + 1u;
    }
    if (i < n && values[i] < stop)
        return at;
    if (at < stop)
        turn(s, at, 0);
    return stop;
}

/* Toggles of part [lo, hi) of a word, the word's bit 0 being page `at`: what lies outside is filled
 * with its neighbour's membership, so that only the part flips. */
static void part_toggles(const sp_kernels *k, sink *s, uint64_t word, uint32_t at, unsigned lo,
                         unsigned hi)
{
    uint64_t part = sp_mask(lo, hi - 1);
    uint64_t below = lo ? sp_mask(0, lo - 1) : 0, above = hi < 64 ? sp_mask(hi, 63) : 0;
    word = (word & part) | (s->carry ? below : 0) | (word >> (hi - 1) & 1 ? above : 0);
    k->toggles(&word, 1, s->base + at, &s->carry, s->out, &s->used, s->room);
}

/* Pages [lo, hi) of the block that starts at page `at`.  Returns how far it came. */
static uint32_t block_toggles(const sp_kernels *k, sink *s, const uint64_t *words, uint32_t at,
                              uint32_t lo, uint32_t hi)
{
    uint32_t w = lo >> 6;
    if (lo & 63 || hi < (w + 1) * 64) {
        unsigned end = (unsigned)sp_min(hi - w * 64, 64);
        part_toggles(k, s, words[w], at + w * 64, lo & 63, end);
        if (w * 64 + end == hi)
            return hi;
        w++;
    }
    w += (uint32_t)k->toggles(words + w, (hi >> 6) - w, s->base + at + w * 64, &s->carry, s->out,
                              &s->used, s->room);
    if (w < hi >> 6 || !(hi & 63) || !has_room(s))
        return w * 64;
    part_toggles(k, s, words[w], at + w * 64, 0, hi & 63);
    return hi;
}

static uint32_t bitmap_toggles(const sp_kernels *k, sink *s, const sp_bitmap *leaf, uint32_t first,
                               uint32_t stop)
{
    for (uint32_t page = first; page < stop;) {
        uint32_t b = page / SP_BLOCK_PAGES, at = b * SP_BLOCK_PAGES;
        uint32_t end = (uint32_t)sp_min(at + SP_BLOCK_PAGES, stop);
        if (!has_room(s))
            return page;
        if (sp_block_is_real(leaf->block[b])) {
            const uint64_t *words = sp_block_words(leaf->block[b]);
            page = at + block_toggles(k, s, words, at, page - at, end - at);
        } else {
            turn(s, page, leaf->block[b] == SP_FULL);
            page = end;
        }
    }
    return stop;
}

uint32_t sp_leaf_toggles(const sp_kernels *k, sp_ref leaf, uint64_t base, uint32_t first,
                         uint32_t stop, uint64_t *carry, uint64_t *out, size_t *used, size_t room)
{
    sink s = {base, out, *used, room, *carry};
    sp_run held[2];
    const sp_run *runs;
    uint32_t end = first, n;
    if (first >= stop || !has_room(&s))
        return first;
    switch (sp_leaf_shape(leaf)) {
    case SP_ARRAY:
        end = array_toggles(&s, sp_values(sp_as_small(leaf)), sp_as_small(leaf)->n, first, stop);
        break;
    case SP_BITMAP: end = bitmap_toggles(k, &s, sp_as_bitmap(leaf), first, stop); break;
    default: n = list_of(leaf, &runs, held); end = runs_toggles(k, &s, runs, n, first, stop);
    }
    *used = s.used;
    *carry = s.carry;
    return end;
}

/* Toggles of a list of n runs [first, last], and the membership at its end. */
static uint64_t list_toggles_count(uint32_t runs, uint32_t first, uint32_t last, uint64_t *carry)
{
    uint64_t joins = *carry && first == 0, ends = last == SP_LEAF_PAGES - 1;
    uint64_t closes = *carry && first != 0;
    *carry = ends;
    return 2 * (uint64_t)runs - joins - ends + closes;
}

static uint64_t bitmap_toggles_count(const sp_kernels *k, const sp_bitmap *leaf, uint64_t *carry)
{
    uint64_t total = 0;
    if (sp_bitmap_is_whole(leaf))
        return k->toggles_count(leaf->words, SP_LEAF_WORDS, carry);
    for (unsigned b = 0; b < SP_BLOCKS; b++) {
        if (sp_block_is_real(leaf->block[b])) {
            total += k->toggles_count(sp_block_words(leaf->block[b]), SP_BLOCK_WORDS, carry);
        } else {
            uint64_t value = leaf->block[b] == SP_FULL;
            total += value != *carry;
            *carry = value;
        }
    }
    return total;
}

uint64_t sp_leaf_toggles_count(const sp_kernels *k, sp_ref leaf, uint64_t *carry)
{
    const sp_run *runs;
    sp_run scratch[SP_MAX_VALUES];
    if (sp_leaf_shape(leaf) == SP_BITMAP)
        return bitmap_toggles_count(k, sp_as_bitmap(leaf), carry);
    uint32_t n = sp_leaf_runs(leaf, &runs, scratch);
    if (n)
        return list_toggles_count(n, runs[0].first, runs[n - 1].last, carry);
    uint64_t closes = *carry;
    *carry = 0;
    return closes;
}

void sp_leaf_words(sp_ref leaf, uint64_t words[SP_LEAF_WORDS])
{
    if (sp_leaf_shape(leaf) == SP_BITMAP) {
        const sp_bitmap *bitmap = sp_as_bitmap(leaf);
        for (unsigned b = 0; b < SP_BLOCKS; b++) {
            uint64_t *to = words + b * SP_BLOCK_WORDS;
            if (sp_block_is_real(bitmap->block[b]))
                memcpy(to, sp_block_words(bitmap->block[b]), SP_BLOCK_WORDS * sizeof *to);
            else
                memset(to, bitmap->block[b] == SP_FULL ? 0xff : 0, SP_BLOCK_WORDS * sizeof *to);
        }
        return;
    }
    const sp_run *runs;
    sp_run scratch[SP_MAX_VALUES];
    uint32_t n = sp_leaf_runs(leaf, &runs, scratch);
    memset(words, 0, SP_LEAF_WORDS * sizeof *words);
    for (uint32_t i = 0; i < n; i++)
        sp_words_fill(words, runs[i].first, runs[i].last, true);
}

const uint64_t *sp_leaf_view(sp_ref leaf, uint64_t scratch[SP_LEAF_WORDS])
{
    if (sp_leaf_shape(leaf) == SP_BITMAP && sp_bitmap_is_whole(sp_as_bitmap(leaf)))
        return sp_as_bitmap(leaf)->words;
    sp_leaf_words(leaf, scratch);
    return scratch;
}
