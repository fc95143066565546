/*
 * support_alloc.c - malloc with a header that remembers the size, a fault and counters.
 *
 * All atomics are relaxed: they count, and guard nothing.
 */
#include "support_alloc.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

typedef struct header {
    uint64_t bytes;
    uint64_t mark;
} header;

#define LIVE UINT64_C(0x6c697665626c6f63)
#define GONE UINT64_C(0x676f6e65626c6f63)

static void *take(void *context, size_t bytes, int zeroed)
{
    test_alloc *it = context;
    uint64_t nth = sp_add(&it->calls, 1, relaxed) + 1;
    if (it->fail_at && (nth == it->fail_at || (it->onwards && nth > it->fail_at))) {
        sp_add(&it->failed, 1, relaxed);
        return NULL;
    }
    header *block = malloc(sizeof *block + bytes);
    if (!block)
        return NULL;
    *block = (header){bytes, LIVE};
    memset(block + 1, zeroed ? 0 : 0xa5, bytes);
    sp_add(&it->blocks, 1, relaxed);
    sp_add(&it->bytes, bytes, relaxed);
    return block + 1;
}

static void give_back(void *context, void *memory, size_t bytes)
{
    test_alloc *it = context;
    header *block = (header *)memory - 1;
    if (block->mark != LIVE || block->bytes != bytes) {
        const char *what = block->mark == LIVE ? "a block" : "no live block";
        fprintf(stderr, "freed as %zu bytes: %s of %llu bytes\n", bytes, what,
                (unsigned long long)block->bytes);
        abort();
    }
    block->mark = GONE;
    sp_sub(&it->blocks, 1, relaxed);
    sp_sub(&it->bytes, bytes, relaxed);
    free(block);
}

void alloc_init(test_alloc *it)
{
    it->hook = (sp_allocator){take, give_back, it, NULL};
    atomic_init(&it->calls, 0);
    atomic_init(&it->failed, 0);
    atomic_init(&it->blocks, 0);
    atomic_init(&it->bytes, 0);
    it->fail_at = 0;
    it->onwards = 0;
}

void alloc_arm(test_alloc *it, uint64_t n, int onwards)
{
    it->fail_at = n;
    it->onwards = onwards;
    sp_store(&it->calls, 0, relaxed);
    sp_store(&it->failed, 0, relaxed);
}

uint64_t alloc_failed(const test_alloc *it) { return sp_load(&it->failed, relaxed); }

uint64_t alloc_blocks(const test_alloc *it) { return sp_load(&it->blocks, relaxed); }

uint64_t alloc_bytes(const test_alloc *it) { return sp_load(&it->bytes, relaxed); }
