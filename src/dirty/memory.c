/*
 * memory.c - a guest's memory slots.  Floor 4.
 */
#include "dirty/memory.h"

#include <stdlib.h>

#include "base/atomics.h"

typedef struct entry {
    sp_memslot slot;
    size_t given;  /* its index in the caller's list */
    uint64_t ends; /* the last gfn, and one, of this slot and those before */
} entry;

struct sp_memory {
    _Atomic uint64_t refs;
    sp_mem mem;
    size_t n;
    sp_pageset *pages;
    uint64_t *by_id; /* id << 32 | index into slots, ascending */
    entry slots[];   /* by gfn, then by id; constant since construction */
};

static size_t memory_bytes(size_t n) { return sizeof(sp_memory) + n * sizeof(entry); }

sp_memory *sp_memory_retain(sp_memory *memory)
{
    /* relaxed: the caller already holds a reference */
    sp_add(&memory->refs, 1, relaxed);
    return memory;
}

void sp_memory_release(sp_memory *memory)
{
    /* acq_rel: the last release pairs with all others, whose reads must be over */
    if (!memory || sp_sub(&memory->refs, 1, acq_rel) != 1)
        return;
    sp_pageset_release(memory->pages);
    sp_mem mem = {.allocator = memory->mem.allocator};
    sp_mem_free(&mem, memory->by_id, memory->n * sizeof *memory->by_id);
    sp_mem_free(&mem, memory, memory_bytes(memory->n));
}

static int by_place(const void *left, const void *right)
{
    const sp_memslot *a = &((const entry *)left)->slot, *b = &((const entry *)right)->slot;
    if (a->gfn != b->gfn)
        return a->gfn < b->gfn ? -1 : 1;
    return (a->id > b->id) - (a->id < b->id);
}

static int by_identity(const void *left, const void *right)
{
    const sp_memslot *a = &((const entry *)left)->slot, *b = &((const entry *)right)->slot;
    if (a->id >> 16 != b->id >> 16)
        return a->id >> 16 < b->id >> 16 ? -1 : 1;
    return by_place(left, right);
}

static bool is_sane(const sp_memslot *slot)
{
    return slot->npages && slot->npages <= SP_SLOT_MAX_PAGES && slot->gfn < SP_GFN_LIMIT &&
           slot->npages <= SP_GFN_LIMIT - slot->gfn;
}

/* Sorted by address space and place: finds two slots of one space that overlap. */
static sp_status check_overlaps(const entry *sorted, size_t n, size_t *bad, size_t *other)
{
    for (size_t i = 1; i < n; i++) {
        const sp_memslot *a = &sorted[i - 1].slot, *b = &sorted[i].slot;
        if (a->id >> 16 == b->id >> 16 && a->gfn + a->npages > b->gfn) {
            *bad = (size_t)sp_max(sorted[i - 1].given, sorted[i].given);
            *other = (size_t)sp_min(sorted[i - 1].given, sorted[i].given);
            return SP_INVALID;
        }
    }
    return SP_OK;
}

static int by_number(const void *left, const void *right)
{
    uint64_t a = *(const uint64_t *)left, b = *(const uint64_t *)right;
    return (a > b) - (a < b);
}

static sp_status index_ids(sp_memory *memory, size_t *bad, size_t *other)
{
    for (size_t i = 0; i < memory->n; i++)
        memory->by_id[i] = (uint64_t)memory->slots[i].slot.id << 32 | i;
    if (memory->n) /* else there is no array, which qsort does not allow */
        qsort(memory->by_id, memory->n, sizeof *memory->by_id, by_number);
    for (size_t i = 1; i < memory->n; i++) {
        if (memory->by_id[i] >> 32 != memory->by_id[i - 1] >> 32)
            continue;
        size_t one = memory->slots[(uint32_t)memory->by_id[i]].given;
        size_t two = memory->slots[(uint32_t)memory->by_id[i - 1]].given;
        *bad = (size_t)sp_max(one, two);
        *other = (size_t)sp_min(one, two);
        return SP_INVALID;
    }
    return SP_OK;
}

static void note_ends(sp_memory *memory)
{
    uint64_t ends = 0;
    for (size_t i = 0; i < memory->n; i++) {
        const sp_memslot *slot = &memory->slots[i].slot;
        ends = memory->slots[i].ends = sp_max(ends, slot->gfn + slot->npages);
    }
}

static sp_status fill(sp_memory *memory, const sp_engine *engine, const sp_memslot *slots,
                      size_t *bad, size_t *other)
{
    for (size_t i = 0; i < memory->n; i++) {
        memory->slots[i] = (entry){slots[i], i, 0};
        *bad = *other = i;
        if (!is_sane(&memory->slots[i].slot))
            return SP_RANGE;
    }
    qsort(memory->slots, memory->n, sizeof *memory->slots, by_identity);
    sp_status status = check_overlaps(memory->slots, memory->n, bad, other);
    if (status)
        return status;
    qsort(memory->slots, memory->n, sizeof *memory->slots, by_place);
    note_ends(memory);
    status = index_ids(memory, bad, other);
    if (!status)
        status = sp_pageset_new(memory->mem.allocator, engine, &memory->pages);
    for (size_t i = 0; !status && i < memory->n; i++) {
        sp_edit edit = sp_pageset_edit(memory->pages);
        const sp_memslot *slot = &memory->slots[i].slot;
        status = sp_set_assign(&edit, sp_pageset_open(memory->pages), slot->gfn,
                               slot->gfn + slot->npages, true);
    }
    return status;
}

sp_status sp_memory_new(const sp_allocator *allocator, const sp_engine *engine,
                        const sp_memslot *slots, size_t n, sp_memory **out, size_t *bad,
                        size_t *other)
{
    sp_mem mem;
    sp_mem_init(&mem, allocator);
    sp_memory *memory = sp_mem_zalloc(&mem, memory_bytes(n));
    if (!memory)
        return SP_NOMEM;
    atomic_init(&memory->refs, 1);
    sp_mem_init(&memory->mem, mem.allocator);
    memory->n = n;
    if (n && !(memory->by_id = sp_mem_alloc(&mem, n * sizeof *memory->by_id))) {
        sp_mem_free(&mem, memory, memory_bytes(n));
        return SP_NOMEM;
    }
    sp_status status = fill(memory, engine, slots, bad, other);
    if (status)
        sp_memory_release(memory);
    else
        *out = memory;
    return status;
}

size_t sp_memory_count(const sp_memory *memory) { return memory->n; }

const sp_memslot *sp_memory_at(const sp_memory *memory, size_t i) { return &memory->slots[i].slot; }

sp_status sp_memory_find(const sp_memory *memory, uint32_t id, size_t *index)
{
    size_t low = 0, high = memory->n;
    while (low < high) {
        size_t middle = low + (high - low) / 2;
        if (memory->by_id[middle] >> 32 < id)
            low = middle + 1;
        else
            high = middle;
    }
    if (low == memory->n || memory->by_id[low] >> 32 != id)
        return SP_UNKNOWN;
    *index = (uint32_t)memory->by_id[low];
    return SP_OK;
}

size_t sp_memory_find_gfn(const sp_memory *memory, uint64_t gfn)
{
    size_t low = 0, high = memory->n;
    while (low < high) {
        size_t middle = low + (high - low) / 2;
        if (memory->slots[middle].slot.gfn <= gfn)
            low = middle + 1;
        else
            high = middle;
    }
    return low - 1; /* SIZE_MAX before the first */
}

size_t sp_memory_find_end(const sp_memory *memory, uint64_t gfn)
{
    size_t low = 0, high = memory->n;
    while (low < high) {
        size_t middle = low + (high - low) / 2;
        if (memory->slots[middle].ends <= gfn)
            low = middle + 1;
        else
            high = middle;
    }
    return low;
}

sp_status sp_memory_find_same(const sp_memory *memory, const sp_memslot *slot, size_t *index)
{
    sp_status status = sp_memory_find(memory, slot->id, index);
    if (status)
        return status;
    const sp_memslot *found = sp_memory_at(memory, *index);
    return found->gfn == slot->gfn && found->npages == slot->npages ? SP_OK : SP_UNKNOWN;
}

const sp_set *sp_memory_pages(const sp_memory *memory) { return sp_pageset_set(memory->pages); }
