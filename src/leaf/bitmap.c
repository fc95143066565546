/*
 * bitmap.c - leaves that are bitmaps of sixteen 512-byte blocks.  Floor 2.
 *
 * Blocks are nodes of their own, so changing one bit after a snapshot copies 192 + 528 bytes
 * instead of 8 KiB.  A block that becomes uniform turns into EMPTY or FULL; the leaf is then
 * measured again, as it is when its pages become few: it may fit a smaller kind.
 */
#include <string.h>

#include "leaf/kinds.h"

/* Going back to a small kind waits for half of what made a bitmap, so a leaf does not flap. */
#define SMALL_AGAIN (SP_SMALL_MAX_BYTES / 2)
#define AGAIN_PAGES (SMALL_AGAIN / sizeof(uint16_t))

static bool is_uniform(const uint64_t *words, uint64_t *value)
{
    *value = words[0];
    if (*value != 0 && *value != ~UINT64_C(0))
        return false;
    for (unsigned i = 1; i < SP_BLOCK_WORDS; i++)
        if (words[i] != *value)
            return false;
    return true;
}

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
        if (sp_ref_is_node(leaf->block[b]))
            sp_edit_retire(edit, sp_ref_node(leaf->block[b]));
    sp_edit_retire(edit, &leaf->head);
}

sp_status sp_bitmap_from_words(sp_edit *edit, const uint64_t words[SP_LEAF_WORDS], sp_ref *out)
{
    sp_bitmap *leaf = sp_edit_new(edit, SP_KIND_BITMAP, sizeof *leaf);
    if (!leaf)
        return SP_NOMEM;
    leaf->pages = leaf->real = 0;
    memset(leaf->block, 0, sizeof leaf->block);
    for (unsigned b = 0; b < SP_BLOCKS; b++) {
        const uint64_t *from = words + b * SP_BLOCK_WORDS;
        uint64_t value;
        if (is_uniform(from, &value)) {
            leaf->block[b] = value ? SP_FULL : SP_EMPTY;
            leaf->in_block[b] = value ? SP_BLOCK_PAGES : 0;
        } else {
            sp_block *block = sp_edit_new(edit, SP_KIND_BLOCK, sizeof *block);
            if (!block) {
                drop(edit, leaf);
                return SP_NOMEM;
            }
            memcpy(block->words, from, sizeof block->words);
            leaf->block[b] = sp_node_ref(block);
            leaf->in_block[b] = pages_in(from);
            leaf->real++;
        }
        leaf->pages += leaf->in_block[b];
    }
    *out = sp_node_ref(leaf);
    return SP_OK;
}

sp_status sp_bitmap_clone(sp_edit *edit, sp_ref ref, sp_ref *out)
{
    const sp_bitmap *from = sp_as_bitmap(ref);
    sp_bitmap *leaf = sp_edit_copy(edit, &from->head);
    if (!leaf)
        return SP_NOMEM;
    for (unsigned b = 0; b < SP_BLOCKS; b++) {
        if (!sp_ref_is_node(from->block[b]))
            continue;
        sp_block *block = sp_edit_copy(edit, sp_ref_node(from->block[b]));
        if (!block) {
            memset(leaf->block + b, 0, (SP_BLOCKS - b) * sizeof leaf->block[0]);
            drop(edit, leaf);
            return SP_NOMEM;
        }
        leaf->block[b] = sp_node_ref(block);
    }
    *out = sp_node_ref(leaf);
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
    if (sp_ref_is_node(old)) {
        if (sp_edit_owns(edit, sp_ref_node(old)))
            return SP_OK;
        block = sp_edit_copy(edit, sp_ref_node(old));
    } else {
        block = sp_edit_new(edit, SP_KIND_BLOCK, sizeof *block);
        if (block)
            memset(block->words, old == SP_FULL ? 0xff : 0, sizeof block->words);
    }
    if (!block)
        return SP_NOMEM;
    if (sp_ref_is_node(old))
        sp_edit_retire(edit, sp_ref_node(old));
    else
        leaf->real++;
    leaf->block[b] = sp_node_ref(block);
    return SP_OK;
}

sp_status sp_bitmap_prepare(sp_edit *edit, sp_ref *ref, uint32_t first, uint32_t last, bool value)
{
    sp_bitmap *leaf = sp_as_bitmap(*ref);
    if (!sp_edit_owns(edit, &leaf->head)) {
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
    if (sp_ref_is_node(leaf->block[b])) {
        sp_edit_retire(edit, sp_ref_node(leaf->block[b]));
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
    uint64_t *words = sp_as_block(leaf->block[b])->words;
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
    if (leaf->in_block[b] == 0 || leaf->in_block[b] == SP_BLOCK_PAGES)
        flatten(edit, leaf, b, leaf->in_block[b] != 0);
}

void sp_bitmap_tidy(sp_edit *edit, sp_ref *ref)
{
    sp_bitmap *leaf = sp_as_bitmap(*ref);
    uint64_t carry = 0;
    uint32_t runs = (uint32_t)(sp_leaf_toggles_count(edit->kernels, *ref, &carry) + carry) / 2;
    for (unsigned b = 0; b < SP_BLOCKS; b++)
        if (leaf->in_block[b] == 0 || leaf->in_block[b] == SP_BLOCK_PAGES)
            flatten(edit, leaf, b, leaf->in_block[b] != 0);
    if (leaf->pages > AGAIN_PAGES && runs * sizeof(sp_run) > SMALL_AGAIN)
        return;
    uint64_t words[SP_LEAF_WORDS];
    sp_ref smaller;
    sp_leaf_words(*ref, words);
    if (sp_leaf_from_words(edit, words, &smaller) != SP_OK)
        return;
    drop(edit, leaf);
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
