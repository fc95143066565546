/*
 * bitmap.c - leaves that are bitmaps of sixteen 512-byte blocks.  Floor 2.
 *
 * Only leaves of block nodes are edited, and whole ones are opened for it: changing one bit after a
 * snapshot copies 192 + 528 bytes instead of 8 KiB.  A block that becomes uniform turns into EMPTY
 * or FULL; the leaf is then measured again, as it is when its pages become few: it may fit a
 * smaller kind.
 */
#include <string.h>

#include "leaf/build.h"

/* Going back to a small kind waits for half of what made a bitmap, so a leaf does not flap. */
#define SMALL_AGAIN (SP_SMALL_MAX_BYTES / 2)
#define AGAIN_PAGES (SMALL_AGAIN / sizeof(uint16_t))

static uint16_t pages_in(const uint64_t *words)
{
    unsigned pages = 0;
    for (unsigned i = 0; i < SP_BLOCK_WORDS; i++)
        pages += sp_popcount(words[i]);
    return (uint16_t)pages;
}

static void drop(sp_edit *edit, sp_bitmap *leaf)
{
    for (unsigned b = 0; b < SP_BLOCKS; b++)
        if (sp_block_is_real(leaf->block[b]))
            sp_edit_retire(edit, sp_block_node(leaf->block[b]));
    sp_edit_retire(edit, &leaf->head);
}

static bool is_uniform(uint32_t pages) { return pages == 0 || pages == SP_BLOCK_PAGES; }

/* What a tally says of a leaf; its real blocks are still to be set. */
static void describe(sp_bitmap *leaf, const sp_tally *tally)
{
    leaf->pages = tally->pages;
    leaf->real = leaf->least_runs = 0;
    for (unsigned b = 0; b < SP_BLOCKS; b++) {
        leaf->in_block[b] = tally->in_block[b];
        leaf->block[b] = tally->in_block[b] == SP_BLOCK_PAGES ? SP_FULL : SP_EMPTY;
        leaf->real = (uint16_t)(leaf->real + !is_uniform(tally->in_block[b]));
    }
}

/* A whole leaf with words to be written, and then to be described. */
static sp_bitmap *whole_new(sp_edit *edit)
{
    return sp_edit_new(edit, SP_KIND_BITMAP, sizeof(sp_bitmap) + SP_LEAF_WORDS * sizeof(uint64_t));
}

static sp_ref describe_whole(sp_bitmap *leaf, const sp_tally *tally)
{
    describe(leaf, tally);
    leaf->least_runs = (uint16_t)sp_max(tally->least_runs, 1);
    for (unsigned b = 0; b < SP_BLOCKS; b++)
        if (!is_uniform(leaf->in_block[b]))
            leaf->block[b] = (sp_ref)(uintptr_t)(leaf->words + b * SP_BLOCK_WORDS);
    return sp_node_ref(leaf);
}

static sp_status whole_from_words(sp_edit *edit, const uint64_t words[SP_LEAF_WORDS],
                                  const sp_tally *tally, sp_ref *out)
{
    sp_bitmap *leaf = whole_new(edit);
    if (!leaf)
        return SP_NOMEM;
    memcpy(leaf->words, words, SP_LEAF_WORDS * sizeof *words);
    *out = describe_whole(leaf, tally);
    return SP_OK;
}

static sp_status blocks_from_words(sp_edit *edit, const uint64_t words[SP_LEAF_WORDS],
                                   const sp_tally *tally, sp_ref *out)
{
    sp_bitmap *leaf = sp_edit_new(edit, SP_KIND_BITMAP, sizeof *leaf);
    if (!leaf)
        return SP_NOMEM;
    describe(leaf, tally);
    for (unsigned b = 0; b < SP_BLOCKS; b++) {
        if (is_uniform(leaf->in_block[b]))
            continue;
        sp_block *block = sp_edit_new(edit, SP_KIND_BLOCK, sizeof *block);
        if (!block) {
            drop(edit, leaf);
            return SP_NOMEM;
        }
        memcpy(block->words, words + b * SP_BLOCK_WORDS, sizeof block->words);
        leaf->block[b] = sp_block_ref(block);
    }
    *out = sp_node_ref(leaf);
    return SP_OK;
}

sp_status sp_bitmap_from_words(sp_edit *edit, const uint64_t words[SP_LEAF_WORDS],
                               const sp_tally *tally, sp_ref *out)
{
    if (sp_edit_is_counted(edit))
        return whole_from_words(edit, words, tally, out);
    return blocks_from_words(edit, words, tally, out);
}

/* The runs of words, or so many of them, from the first on, that a list of runs is out of question:
 * twice as many as one may have. */
static uint32_t runs_or_many(const sp_kernels *k, const uint64_t *words)
{
    uint64_t carry = 0, toggles = 0;
    for (unsigned w = 0; w < SP_LEAF_WORDS && toggles < 4 * SP_MAX_RUNS; w += SP_LEAF_WORDS / 4)
        toggles += k->toggles_count(words + w, SP_LEAF_WORDS / 4, &carry);
    return (uint32_t)(toggles + carry) / 2;
}

/* The words are copied to where a whole leaf, which is likely, has them. */
sp_status sp_leaf_from_bytes(sp_edit *edit, const uint8_t *bytes, uint32_t pages, sp_ref *out)
{
    sp_bitmap *leaf = whole_new(edit);
    if (!leaf)
        return SP_NOMEM;
    /* Not memcpy of a constant, which becomes a string instruction: slow where addresses differ in
     * their last bits, as a file's and a node's do. */
    sp_bits_copy(bytes, 0, SP_LEAF_PAGES, leaf->words);
    sp_tally tally = sp_tally_pages(edit->kernels, leaf->words);
    sp_status status = SP_OK;
    if (tally.pages == pages)
        tally.least_runs = runs_or_many(edit->kernels, leaf->words);
    else
        status = SP_INVALID;
    if (!status && sp_edit_is_counted(edit) && sp_leaf_pick(pages, tally.least_runs) == SP_BITMAP) {
        *out = describe_whole(leaf, &tally);
        return SP_OK;
    }
    if (!status)
        status = sp_leaf_from_tally(edit, leaf->words, &tally, out);
    sp_node_free(edit->mem, &leaf->head);
    return status;
}

sp_status sp_bitmap_clone(sp_edit *edit, sp_ref ref, sp_ref *out)
{
    const sp_bitmap *from = sp_as_bitmap(ref);
    uint64_t scratch[SP_LEAF_WORDS];
    sp_tally tally = {.pages = from->pages, .least_runs = from->least_runs};
    memcpy(tally.in_block, from->in_block, sizeof tally.in_block);
    return sp_bitmap_from_words(edit, sp_leaf_view(ref, scratch), &tally, out);
}

/* Where the result is sure to be a bitmap, its words are made in place. */
static sp_status alter_whole(sp_edit *edit, sp_op op, sp_ref bitmap, const sp_run *runs, uint32_t n,
                             uint32_t least_runs, sp_ref *out)
{
    sp_bitmap *leaf = whole_new(edit);
    if (!leaf)
        return SP_NOMEM;
    memcpy(leaf->words, sp_as_bitmap(bitmap)->words, SP_LEAF_WORDS * sizeof *leaf->words);
    sp_mixed_apply(op, runs, n, leaf->words);
    sp_tally tally = sp_tally_pages(edit->kernels, leaf->words);
    tally.least_runs = least_runs;
    *out = describe_whole(leaf, &tally);
    return SP_OK;
}

sp_status sp_bitmap_alter(sp_edit *edit, sp_op op, sp_ref bitmap, const sp_run *runs, uint32_t n,
                          uint32_t least_runs, sp_ref *out)
{
    uint64_t words[SP_LEAF_WORDS];
    uint32_t pages = sp_as_bitmap(bitmap)->pages, most = sp_runs_pages(runs, n);
    uint32_t least_pages = pages > most ? pages - most : 0;
    if (sp_edit_is_counted(edit) && sp_bitmap_is_whole(sp_as_bitmap(bitmap)) &&
        sp_leaf_pick(least_pages, least_runs) == SP_BITMAP)
        return alter_whole(edit, op, bitmap, runs, n, least_runs, out);
    sp_leaf_words(bitmap, words);
    sp_mixed_apply(op, runs, n, words);
    sp_tally tally = sp_tally_pages(edit->kernels, words);
    tally.least_runs = least_runs;
    return sp_leaf_from_tally(edit, words, &tally, out);
}

sp_status sp_bitmap_open(sp_edit *edit, sp_ref *leaf)
{
    uint64_t scratch[SP_LEAF_WORDS];
    const uint64_t *words = sp_leaf_view(*leaf, scratch);
    sp_tally tally = sp_tally_pages(edit->kernels, words);
    sp_ref opened;
    sp_status status = blocks_from_words(edit, words, &tally, &opened);
    if (status)
        return status;
    sp_leaf_retire(edit, *leaf);
    *leaf = opened;
    return SP_OK;
}

/* True if [first, last] covers part of block b but not all of it. */
static bool is_edge(unsigned b, uint32_t first, uint32_t last)
{
    uint32_t start = b * SP_BLOCK_PAGES, end = start + SP_BLOCK_PAGES - 1;
    return first > start || last < end;
}

/* Makes block b a node of ours with the pages it has. */
static sp_status own_block(sp_edit *edit, sp_bitmap *leaf, unsigned b)
{
    sp_ref old = leaf->block[b];
    sp_block *block;
    if (sp_block_is_real(old)) {
        if (sp_edit_owns(edit, sp_block_node(old)))
            return SP_OK;
        block = sp_edit_copy(edit, sp_block_node(old));
    } else {
        block = sp_edit_new(edit, SP_KIND_BLOCK, sizeof *block);
        if (block)
            memset(block->words, old == SP_FULL ? 0xff : 0, sizeof block->words);
    }
    if (!block)
        return SP_NOMEM;
    if (sp_block_is_real(old))
        sp_edit_retire(edit, sp_block_node(old));
    else
        leaf->real++;
    leaf->block[b] = sp_block_ref(block);
    return SP_OK;
}

sp_status sp_bitmap_prepare(sp_edit *edit, sp_ref *ref, uint32_t first, uint32_t last, bool value)
{
    sp_bitmap *leaf = sp_as_bitmap(*ref);
    if (sp_bitmap_is_whole(leaf)) {
        sp_status status = sp_bitmap_open(edit, ref);
        if (status)
            return status;
        leaf = sp_as_bitmap(*ref);
    } else if (!sp_edit_owns(edit, &leaf->head)) {
        sp_bitmap *copy = sp_edit_copy(edit, &leaf->head);
        if (!copy)
            return SP_NOMEM;
        sp_edit_retire(edit, &leaf->head);
        leaf = copy;
        *ref = sp_node_ref(leaf);
    }
    unsigned edges[2] = {first / SP_BLOCK_PAGES, last / SP_BLOCK_PAGES};
    for (unsigned e = 0; e < 2; e++) {
        bool settled = leaf->block[edges[e]] == (value ? SP_FULL : SP_EMPTY);
        if (is_edge(edges[e], first, last) && !settled) {
            sp_status status = own_block(edit, leaf, edges[e]);
            if (status)
                return status;
        }
    }
    return SP_OK;
}

/* Turns block b into EMPTY or FULL. */
static void flatten(sp_edit *edit, sp_bitmap *leaf, unsigned b, bool value)
{
    if (sp_block_is_real(leaf->block[b])) {
        sp_edit_retire(edit, sp_block_node(leaf->block[b]));
        leaf->real--;
    }
    leaf->block[b] = value ? SP_FULL : SP_EMPTY;
    leaf->in_block[b] = value ? SP_BLOCK_PAGES : 0;
}

static void commit_edge(sp_edit *edit, sp_bitmap *leaf, unsigned b, uint32_t first, uint32_t last,
                        bool value)
{
    if (leaf->block[b] == (value ? SP_FULL : SP_EMPTY))
        return;
    uint64_t *words = sp_block_words(leaf->block[b]);
    uint32_t start = b * SP_BLOCK_PAGES, end = start + SP_BLOCK_PAGES - 1;
    uint32_t lo = (uint32_t)sp_max(first, start) - start, hi = (uint32_t)sp_min(last, end) - start;
    if (lo == hi) {
        bool had = words[lo >> 6] >> (lo & 63) & 1;
        leaf->in_block[b] = (uint16_t)(leaf->in_block[b] + (value && !had) - (!value && had));
        sp_words_fill(words, lo, lo, value);
    } else {
        sp_words_fill(words, lo, hi, value);
        leaf->in_block[b] = pages_in(words);
    }
    if (is_uniform(leaf->in_block[b]))
        flatten(edit, leaf, b, leaf->in_block[b] != 0);
}

void sp_bitmap_tidy(sp_edit *edit, sp_ref *ref)
{
    sp_bitmap *leaf = sp_as_bitmap(*ref);
    uint64_t carry = 0, toggles = sp_leaf_toggles_count(edit->kernels, *ref, &carry);
    uint32_t runs = (uint32_t)(toggles + carry) / 2;
    for (unsigned b = 0; b < SP_BLOCKS; b++)
        if (is_uniform(leaf->in_block[b]))
            flatten(edit, leaf, b, leaf->in_block[b] != 0);
    if (leaf->pages > AGAIN_PAGES && runs * sizeof(sp_run) > SMALL_AGAIN)
        return;
    uint64_t words[SP_LEAF_WORDS];
    sp_ref smaller;
    sp_leaf_words(*ref, words);
    if (sp_leaf_from_words(edit, words, &smaller) != SP_OK)
        return;
    sp_leaf_retire(edit, *ref);
    *ref = smaller;
}

int32_t sp_bitmap_commit(sp_edit *edit, sp_ref *ref, uint32_t first, uint32_t last, bool value)
{
    sp_bitmap *leaf = sp_as_bitmap(*ref);
    uint32_t before = leaf->pages, real = leaf->real, pages = 0;
    for (unsigned b = first / SP_BLOCK_PAGES; b <= last / SP_BLOCK_PAGES; b++) {
        if (is_edge(b, first, last))
            commit_edge(edit, leaf, b, first, last, value);
        else
            flatten(edit, leaf, b, value);
    }
    for (unsigned b = 0; b < SP_BLOCKS; b++)
        pages += leaf->in_block[b];
    leaf->pages = pages;
    if (pages == 0 || pages == SP_LEAF_PAGES) {
        drop(edit, leaf);
        *ref = pages ? SP_FULL : SP_EMPTY;
    } else if (leaf->real < real || (before > AGAIN_PAGES && pages <= AGAIN_PAGES)) {
        sp_bitmap_tidy(edit, ref);
    }
    return (int32_t)pages - (int32_t)before;
}

/* Pages of a block that are looked at as one word. */
#define ONE_WORD 64

/* The ranges of a word whose bit 0 is page `at`; false if they are more than `most`. */
static bool tell_word(uint64_t word, uint32_t at, sp_turned *turned)
{
    turned->n = 0;
    for (uint32_t shift; word; word = shift < 64 ? word >> shift << shift : 0) {
        if (turned->n == turned->most)
            return false;
        uint32_t start = sp_lowest(word);
        uint64_t after = ~(word | (word - 1));
        shift = after ? sp_lowest(after) : 64;
        turned->range[turned->n++] = (sp_range){at + start, at + shift};
    }
    return true;
}

bool sp_bitmap_turn(sp_edit *edit, sp_ref *ref, uint32_t first, uint32_t last, bool value,
                    sp_turned *turned)
{
    sp_bitmap *leaf = sp_as_bitmap(*ref);
    unsigned b = first / SP_BLOCK_PAGES;
    uint32_t count = last - first + 1, lo = first % SP_BLOCK_PAGES, hi = lo + count - 1;
    sp_ref block = leaf->block[b];
    if (count > ONE_WORD || hi >= SP_BLOCK_PAGES || !sp_edit_owns(edit, &leaf->head) ||
        sp_bitmap_is_whole(leaf) || !sp_block_is_real(block) ||
        !sp_edit_owns(edit, sp_block_node(block)))
        return false;
    uint64_t *words = sp_block_words(block);
    uint64_t bits = words[lo >> 6] >> (lo & 63);
    if (lo >> 6 != hi >> 6)
        bits |= words[hi >> 6] << (64 - (lo & 63));
    bits = (value ? ~bits : bits) & sp_mask(0, count - 1);
    uint32_t pages = sp_popcount(bits), in = leaf->in_block[b];
    turned->pages = pages;
    turned->n = 0;
    if (!pages)
        return true;
    uint32_t in_after = value ? in + pages : in - pages;
    bool few = !value && leaf->pages - pages <= AGAIN_PAGES;
    if (in_after == 0 || in_after == SP_BLOCK_PAGES || few ||
        (pages < count && !tell_word(bits, first, turned)))
        return false;
    sp_words_fill(words, lo, hi, value);
    leaf->in_block[b] = (uint16_t)in_after;
    leaf->pages += value ? pages : 0 - pages;
    return true;
}
