/*
 * harvest.c - bitmaps that are lent, and harvests.  Floor 4.
 */
#include "dirty/harvest.h"

/* ---- bitmaps ---- */

static size_t bits_bytes(uint64_t nwords) { return sizeof(sp_bits) + (size_t)nwords * 8; }

sp_bits *sp_bits_new(const sp_allocator *allocator, uint64_t npages)
{
    uint64_t nwords = (npages + 63) / 64;
    sp_mem mem = {.allocator = allocator};
    sp_bits *bits = sp_mem_zalloc(&mem, bits_bytes(nwords));
    if (bits) {
        atomic_init(&bits->refs, 1);
        bits->allocator = allocator;
        bits->nwords = nwords;
    }
    return bits;
}

void sp_bits_release(sp_bits *bits)
{
    /* acq_rel: the last release pairs with the other's, whose accesses must be over */
    if (sp_sub(&bits->refs, 1, acq_rel) != 1)
        return;
    sp_mem mem = {.allocator = bits->allocator};
    sp_mem_free(&mem, bits, bits_bytes(bits->nwords));
}

bool sp_bits_is_lent(sp_bits *bits)
{
    /* acquire: pairs with sp_bits_release of the borrower, whose writes we are about to read */
    return sp_load(&bits->refs, acquire) > 1;
}

/* ---- harvests ---- */

static size_t harvest_bytes(const sp_memory *memory)
{
    return sizeof(sp_harvest) + sp_memory_count(memory) * sizeof(sp_bits *);
}

sp_harvest *sp_harvest_new(const sp_allocator *allocator, sp_memory *memory)
{
    sp_mem mem;
    sp_mem_init(&mem, allocator);
    sp_harvest *harvest = sp_mem_zalloc(&mem, harvest_bytes(memory));
    if (harvest) {
        atomic_init(&harvest->refs, 1);
        harvest->memory = sp_memory_retain(memory);
        sp_mem_init(&harvest->mem, allocator);
        harvest->sparse = sp_set_empty(sp_memory_pages(memory)->engine);
    }
    return harvest;
}

sp_edit sp_harvest_edit(sp_harvest *harvest)
{
    return sp_edit_private(&harvest->mem, sp_kernels_active());
}

sp_status sp_harvest_push_bits(sp_harvest *open, size_t index, sp_bits **out)
{
    sp_bits *bits = sp_bits_new(open->mem.allocator, sp_memory_at(open->memory, index)->npages);
    if (!bits)
        return SP_NOMEM;
    bits->next = open->bits[index];
    open->bits[index] = bits;
    *out = bits;
    return SP_OK;
}

sp_bits *sp_harvest_find_own(const sp_harvest *open, size_t index)
{
    sp_bits *bits = open->bits[index];
    while (bits && sp_bits_is_lent(bits))
        bits = bits->next;
    return bits;
}

sp_status sp_harvest_own_bits(sp_harvest *open, size_t index, sp_bits **out)
{
    *out = sp_harvest_find_own(open, index);
    return *out ? SP_OK : sp_harvest_push_bits(open, index, out);
}

/* Runs for which a list that is empty keeps room: a few full rings. */
#define ROOM_TO_KEEP (UINT64_C(1) << 18)

sp_status sp_harvest_sort(sp_harvest *harvest, sp_harvest *empty)
{
    if (sp_loose_is_sorted(&harvest->loose))
        return SP_OK;
    sp_status status = sp_loose_reserve(&empty->loose, &empty->mem, harvest->loose.n);
    if (status)
        return status;
    sp_loose_sort(&harvest->loose, empty->loose.runs);
    if (empty->loose.room > ROOM_TO_KEEP)
        sp_loose_clear(&empty->loose, &empty->mem);
    return SP_OK;
}

sp_harvest *sp_harvest_retain(sp_harvest *harvest)
{
    sp_add(&harvest->refs, 1, relaxed); /* relaxed: the caller already holds a reference */
    return harvest;
}

void sp_harvest_release(sp_harvest *harvest)
{
    /* acq_rel: the last release pairs with all others, whose reads must be over */
    if (!harvest || sp_sub(&harvest->refs, 1, acq_rel) != 1)
        return;
    sp_edit edit = sp_harvest_edit(harvest);
    sp_set_retire(&edit, &harvest->sparse);
    sp_loose_clear(&harvest->loose, &harvest->mem);
    for (size_t i = 0; i < sp_memory_count(harvest->memory); i++) {
        for (sp_bits *bits = harvest->bits[i], *next; bits; bits = next) {
            next = bits->next;
            sp_bits_release(bits);
        }
    }
    sp_mem mem = {.allocator = harvest->mem.allocator};
    size_t bytes = harvest_bytes(harvest->memory);
    sp_memory_release(harvest->memory);
    sp_mem_free(&mem, harvest, bytes);
}

sp_memory *sp_harvest_memory(const sp_harvest *harvest) { return harvest->memory; }

const uint64_t *sp_harvest_words(const sp_harvest *harvest, size_t index)
{
    return harvest->bits[index] ? harvest->bits[index]->words : NULL;
}

const sp_loose *sp_harvest_loose(const sp_harvest *harvest) { return &harvest->loose; }

const sp_set *sp_harvest_sparse(const sp_harvest *harvest) { return &harvest->sparse; }

uint64_t sp_harvest_bytes(const sp_harvest *harvest)
{
    /* relaxed: statistics */
    uint64_t bytes = harvest_bytes(harvest->memory) + sp_load(&harvest->mem.bytes, relaxed);
    for (size_t i = 0; i < sp_memory_count(harvest->memory); i++)
        for (const sp_bits *bits = harvest->bits[i]; bits; bits = bits->next)
            bytes += bits_bytes(bits->nwords);
    return bytes;
}

uint64_t *sp_loan_words(sp_bits *loan) { return loan->words; }

void sp_loan_end(sp_bits *loan) { sp_bits_release(loan); }
