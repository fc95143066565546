/*
 * mem.c - the allocation hook and its counters.  Floor 0.
 */
#include "base/mem.h"

#include <stdlib.h>

static void *system_alloc(void *context, size_t bytes, int zeroed)
{
    (void)context;
    return zeroed ? calloc(1, bytes) : malloc(bytes);
}

static void system_free(void *context, void *block, size_t bytes)
{
    (void)context;
    (void)bytes;
    free(block);
}

const sp_allocator sp_system_allocator = {system_alloc, system_free, NULL};

void sp_mem_init(sp_mem *mem, const sp_allocator *allocator)
{
    mem->allocator = allocator ? allocator : &sp_system_allocator;
    atomic_init(&mem->bytes, 0);
    atomic_init(&mem->blocks, 0);
}

static void *take(sp_mem *mem, size_t bytes, int zeroed)
{
    void *block = mem->allocator->alloc(mem->allocator->context, bytes, zeroed);
    if (block) {
        /* relaxed: statistics, they guard nothing */
        sp_add(&mem->bytes, bytes, relaxed);
        sp_add(&mem->blocks, 1, relaxed);
    }
    return block;
}

void *sp_mem_alloc(sp_mem *mem, size_t bytes) { return take(mem, bytes, 0); }

void *sp_mem_zalloc(sp_mem *mem, size_t bytes) { return take(mem, bytes, 1); }

void sp_mem_free(sp_mem *mem, void *block, size_t bytes)
{
    if (!block)
        return;
    sp_sub(&mem->bytes, bytes, relaxed);
    sp_sub(&mem->blocks, 1, relaxed);
    mem->allocator->free(mem->allocator->context, block, bytes);
}
