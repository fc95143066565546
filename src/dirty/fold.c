/*
 * fold.c - adding harvests up.  Floor 4.
 */
#include "dirty/fold.h"

#include <string.h>

#include "base/bits.h"
#include "dirty/spill.h"

static void or_words(uint64_t *to, const uint64_t *from, uint64_t nwords)
{
    for (uint64_t w = 0; w < nwords; w++)
        to[w] |= from[w];
}

/* ---- bitmaps ---- */

/* Slots are in order of gfn, so each page goes to the first that holds it. */
sp_status sp_harvest_fold_bits(sp_harvest *open, uint64_t gfn, const void *bitmap, uint64_t npages)
{
    uint64_t at = gfn, stop = gfn + npages;
    for (size_t i = sp_memory_find_end(open->memory, gfn); i < sp_memory_count(open->memory); i++) {
        const sp_memslot *slot = sp_memory_at(open->memory, i);
        uint64_t start = sp_max(at, slot->gfn), end = sp_min(stop, slot->gfn + slot->npages);
        if (at >= stop || slot->gfn >= stop)
            break;
        if (start >= end)
            continue;
        sp_bits *bits;
        sp_status status = sp_harvest_own_bits(open, i, &bits);
        if (status)
            return status;
        sp_bits_or(bitmap, start - gfn, end - start, bits->words, start - slot->gfn);
        at = end;
    }
    return SP_OK;
}

/* The index in one memory of a slot of another, the same in all three numbers; SIZE_MAX if there is
 * none. */
static size_t find_same(const sp_memory *memory, const sp_memory *other, size_t index)
{
    size_t found;
    if (memory == other)
        return index;
    return sp_memory_find_same(memory, sp_memory_at(other, index), &found) == SP_OK ? found
                                                                                    : SIZE_MAX;
}

static sp_status fold_by_gfn(sp_harvest *open, const sp_harvest *from, size_t index)
{
    const sp_memslot *slot = sp_memory_at(from->memory, index);
    sp_status status = SP_OK;
    for (const sp_bits *bits = from->bits[index]; !status && bits; bits = bits->next)
        status = sp_harvest_fold_bits(open, slot->gfn, bits->words, slot->npages);
    return status;
}

/* ---- the list and the set ---- */

/* *set = *set op other. */
static sp_status change(sp_edit *edit, sp_set *set, sp_op op, const sp_set *other)
{
    sp_set made;
    if (!sp_set_count(other))
        return SP_OK;
    sp_status status = sp_set_combine(edit, op, set, other, &made);
    if (status)
        return status;
    sp_set_retire(edit, set);
    *set = made;
    return SP_OK;
}

/* Adds runs as they are. */
static sp_status fold_list(sp_harvest *open, const sp_loose *loose)
{
    sp_status status = sp_harvest_reserve(open, loose->n);
    if (!status && loose->n) {
        sp_loose *to = &open->loose;
        memcpy(to->runs + to->n, loose->runs, loose->n * sizeof *loose->runs);
        to->n += loose->n;
    }
    return status;
}

/* Adds what is in the list and in the set but not in `left`. */
static sp_status fold_without(sp_harvest *open, const sp_harvest *from, const sp_set *left)
{
    sp_edit edit = sp_harvest_edit(open);
    sp_set kept = sp_set_empty(from->sparse.engine);
    sp_status status = change(&edit, &kept, SP_OR, &from->sparse);
    if (!status)
        status = sp_loose_add_to(&from->loose, &edit, &kept);
    if (!status)
        status = change(&edit, &kept, SP_ANDNOT, left);
    if (!status)
        status = change(&edit, &open->sparse, SP_OR, &kept);
    sp_set_retire(&edit, &kept);
    return status;
}

static sp_status fold_loose(sp_harvest *open, const sp_harvest *from)
{
    sp_edit edit = sp_harvest_edit(open);
    sp_set left = sp_set_empty(from->sparse.engine);
    sp_status status = SP_OK;
    if (!from->loose.n && !sp_set_count(&from->sparse))
        return SP_OK;
    if (open->memory != from->memory)
        status = sp_set_combine(&edit, SP_ANDNOT, sp_memory_pages(from->memory),
                                sp_memory_pages(open->memory), &left);
    if (!status && sp_set_count(&left)) {
        status = fold_without(open, from, &left);
    } else if (!status) {
        status = fold_list(open, &from->loose);
        if (!status)
            status = change(&edit, &open->sparse, SP_OR, &from->sparse);
    }
    sp_set_retire(&edit, &left);
    return status;
}

/* ---- harvests ---- */

sp_status sp_harvest_fold(sp_harvest *open, const sp_harvest *taken)
{
    for (size_t i = 0; i < sp_memory_count(taken->memory); i++) {
        sp_bits *bits;
        sp_status status = SP_OK;
        if (!taken->bits[i])
            continue;
        size_t index = find_same(open->memory, taken->memory, i);
        if (index == SIZE_MAX)
            status = fold_by_gfn(open, taken, i);
        else if (!(status = sp_harvest_own_bits(open, index, &bits)))
            or_words(bits->words, taken->bits[i]->words, bits->nwords);
        if (status)
            return status;
    }
    return fold_loose(open, taken);
}

sp_status sp_harvest_prepare_move(sp_harvest *open, const sp_harvest *old)
{
    sp_status status = fold_loose(open, old);
    for (size_t i = 0; !status && i < sp_memory_count(old->memory); i++)
        if (old->bits[i] && find_same(open->memory, old->memory, i) == SIZE_MAX)
            status = fold_by_gfn(open, old, i);
    return status;
}

void sp_harvest_commit_move(sp_harvest *open, sp_harvest *old)
{
    for (size_t i = 0; i < sp_memory_count(old->memory); i++) {
        size_t index = old->bits[i] ? find_same(open->memory, old->memory, i) : SIZE_MAX;
        if (index == SIZE_MAX)
            continue;
        sp_bits **end = &open->bits[index];
        while (*end)
            end = &(*end)->next;
        *end = old->bits[i];
        old->bits[i] = NULL;
    }
}

sp_status sp_harvest_prepare_unite(sp_harvest *open)
{
    sp_status status = SP_OK;
    sp_bits *own;
    for (size_t i = 0; !status && i < sp_memory_count(open->memory); i++)
        if (open->bits[i])
            status = sp_harvest_own_bits(open, i, &own);
    return status;
}

/* Leaves slot `index` its own bitmap, bits past the slot's end zero. */
static void unite(sp_harvest *open, size_t index)
{
    sp_bits *own = sp_harvest_find_own(open, index);
    if (!own)
        return;
    for (sp_bits *bits = open->bits[index], *next; bits; bits = next) {
        next = bits->next;
        if (bits != own) {
            or_words(own->words, bits->words, bits->nwords);
            sp_bits_release(bits);
        }
    }
    own->next = NULL;
    open->bits[index] = own;
    uint64_t over = sp_memory_at(open->memory, index)->npages & 63;
    if (over)
        own->words[own->nwords - 1] &= sp_mask(0, (unsigned)over - 1);
}

void sp_harvest_commit_unite(sp_harvest *open)
{
    for (size_t i = 0; i < sp_memory_count(open->memory); i++)
        unite(open, i);
}

sp_status sp_harvest_unite(const sp_allocator *allocator, sp_harvest *const *harvests, size_t n,
                           sp_harvest **out)
{
    sp_memory *memory = harvests[n - 1]->memory;
    sp_harvest *sum = sp_harvest_new(allocator, memory), *room = sp_harvest_new(allocator, memory);
    sp_status status = sum && room ? SP_OK : SP_NOMEM;
    for (size_t i = 0; !status && i < n; i++)
        status = sp_harvest_fold(sum, harvests[i]);
    if (!status)
        status = sp_harvest_sort(sum, room);
    sp_harvest_release(room);
    if (status)
        sp_harvest_release(sum);
    else
        *out = sum;
    return status;
}
