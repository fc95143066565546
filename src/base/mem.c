/*
 * mem.c - the allocation hook and its counters.  Floor 0.
 *
 * Large blocks - a slot's dirty bitmap, a long list of ranges - are mappings of their own, aligned
 * and advised for huge pages: filling one from 4 KiB pages spends more time in faults than in the
 * work (measured: 60 % of a merge with 2.6 million ranges out).  They grow by moving page
 * tables.
 */
#define _GNU_SOURCE
#include "base/mem.h"

#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

#define HUGE_BYTES ((size_t)2 << 20)

static int is_large(size_t bytes) { return bytes >= 2 * HUGE_BYTES; }

static size_t round_up(size_t bytes) { return (bytes + HUGE_BYTES - 1) & ~(HUGE_BYTES - 1); }

/* An aligned mapping; `protection` PROT_NONE only reserves the addresses. */
static void *map(size_t bytes, int protection)
{
    if (bytes > SIZE_MAX / 2)
        return NULL;
    size_t size = round_up(bytes), spare = size + HUGE_BYTES;
    char *start = mmap(NULL, spare, protection, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (start == MAP_FAILED)
        return NULL;
    size_t skip = round_up((uintptr_t)start) - (uintptr_t)start;
    if (skip)
        munmap(start, skip);
    if (skip < HUGE_BYTES)
        munmap(start + skip + size, HUGE_BYTES - skip);
    if (protection != PROT_NONE)
        (void)madvise(start + skip, size, MADV_HUGEPAGE); /* a hint */
    return start + skip;
}

static void *system_alloc(void *context, size_t bytes, int zeroed)
{
    (void)context;
    if (is_large(bytes))
        return map(bytes, PROT_READ | PROT_WRITE);
    return zeroed ? calloc(1, bytes) : malloc(bytes);
}

static void system_free(void *context, void *block, size_t bytes)
{
    (void)context;
    if (is_large(bytes))
        munmap(block, round_up(bytes));
    else
        free(block);
}

/* Moves a mapping to aligned addresses of another size, page tables and all. */
static void *remap(void *block, size_t bytes, size_t wanted)
{
    void *place = map(wanted, PROT_NONE);
    if (!place)
        return NULL;
    void *moved = mremap(block, round_up(bytes), round_up(wanted), MREMAP_MAYMOVE | MREMAP_FIXED,
                         place);
    if (moved == MAP_FAILED) {
        munmap(place, round_up(wanted));
        return NULL;
    }
    return moved;
}

static void *system_resize(void *context, void *block, size_t bytes, size_t wanted)
{
    if (is_large(bytes) && is_large(wanted))
        return remap(block, bytes, wanted);
    if (!is_large(bytes) && !is_large(wanted))
        return realloc(block, wanted);
    void *moved = system_alloc(context, wanted, 0);
    if (moved) {
        memcpy(moved, block, bytes < wanted ? bytes : wanted);
        system_free(context, block, bytes);
    }
    return moved;
}

const sp_allocator sp_system_allocator = {system_alloc, system_free, NULL, system_resize};

void sp_mem_init(sp_mem *mem, const sp_allocator *allocator)
{
    mem->allocator = allocator ? allocator : &sp_system_allocator;
    atomic_init(&mem->bytes, 0);
    atomic_init(&mem->blocks, 0);
    mem->locked = false;
}

void sp_mem_init_locked(sp_mem *mem, const sp_allocator *allocator)
{
    sp_mem_init(mem, allocator);
    mem->locked = true;
}

/* Counts what came or, modulo 2^64, went. */
static void count(sp_mem *mem, uint64_t bytes, uint64_t blocks)
{
    /* relaxed: statistics, they guard nothing; under a lock nobody else writes between the two */
    if (mem->locked) {
        sp_store(&mem->bytes, sp_load(&mem->bytes, relaxed) + bytes, relaxed);
        sp_store(&mem->blocks, sp_load(&mem->blocks, relaxed) + blocks, relaxed);
    } else {
        sp_add(&mem->bytes, bytes, relaxed);
        sp_add(&mem->blocks, blocks, relaxed);
    }
}

static void *take(sp_mem *mem, size_t bytes, int zeroed)
{
    void *block = mem->allocator->alloc(mem->allocator->context, bytes, zeroed);
    if (block)
        count(mem, bytes, 1);
    return block;
}

void *sp_mem_alloc(sp_mem *mem, size_t bytes) { return take(mem, bytes, 0); }

void *sp_mem_zalloc(sp_mem *mem, size_t bytes) { return take(mem, bytes, 1); }

void sp_mem_free(sp_mem *mem, void *block, size_t bytes)
{
    if (!block)
        return;
    count(mem, 0 - (uint64_t)bytes, UINT64_MAX);
    mem->allocator->free(mem->allocator->context, block, bytes);
}

void *sp_mem_resize(sp_mem *mem, void *block, size_t bytes, size_t wanted)
{
    const sp_allocator *allocator = mem->allocator;
    if (!block || !allocator->resize) {
        void *moved = sp_mem_alloc(mem, wanted);
        if (moved && block) {
            memcpy(moved, block, bytes < wanted ? bytes : wanted);
            sp_mem_free(mem, block, bytes);
        }
        return moved;
    }
    void *moved = allocator->resize(allocator->context, block, bytes, wanted);
    if (moved)
        count(mem, wanted - bytes, 0);
    return moved;
}
