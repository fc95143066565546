/*
 * mem.h - allocation through one hook, counted exactly.  Floor 0.
 *
 * Every object that owns memory embeds an sp_mem: the hook it allocates with, and the bytes and
 * blocks it holds at this moment.  The size is given again when a block is freed, so the counts
 * need no headers.  Tests pass a hook that fails at the n-th call.
 *
 * Counters are atomic because the bytes of a tracker are read by any thread and a snapshot may be
 * released on any thread; they order nothing.  An account whose changes the owner orders by a lock
 * says so: adding under the lock needs no atomic add, which costs as much as a small malloc.
 */
#ifndef SP_BASE_MEM_H
#define SP_BASE_MEM_H

#include <stdbool.h>
#include <stddef.h>

#include "base/atomics.h"

/* alloc returns zeroed memory where zeroed is set, and NULL on failure; free takes what it gave.
 * resize moves a block's first bytes to one of another size, or returns NULL and leaves it; a NULL
 * resize stands for alloc, copy and free. */
typedef struct sp_allocator {
    void *(*alloc)(void *context, size_t bytes, int zeroed);
    void (*free)(void *context, void *block, size_t bytes);
    void *context;
    void *(*resize)(void *context, void *block, size_t bytes, size_t wanted);
} sp_allocator;

typedef struct sp_mem {
    const sp_allocator *allocator; /* set at init, then constant */
    _Atomic uint64_t bytes;        /* live bytes; any thread, relaxed */
    _Atomic uint64_t blocks;       /* live blocks; any thread, relaxed */
    bool locked;                   /* set at init, then constant: see sp_mem_init_locked */
} sp_mem;

/* malloc, and mappings of huge pages for large blocks; what NULL means wherever an allocator is
 * taken. */
extern const sp_allocator sp_system_allocator;

void sp_mem_init(sp_mem *mem, const sp_allocator *allocator);
/* An account that only the holder of a lock of the owner's allocates from and frees to. */
void sp_mem_init_locked(sp_mem *mem, const sp_allocator *allocator);

/* NULL on failure.  Thread-safe as far as the hook is. */
void *sp_mem_alloc(sp_mem *mem, size_t bytes);
void *sp_mem_zalloc(sp_mem *mem, size_t bytes);
/* The block with room for `wanted` bytes, its first bytes kept; NULL, and the block as it was, on
 * failure. */
void *sp_mem_resize(sp_mem *mem, void *block, size_t bytes, size_t wanted);
void sp_mem_free(sp_mem *mem, void *block, size_t bytes);

#endif
