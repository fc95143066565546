/*
 * support_alloc.h - an allocator that fails when told to and counts what is live.
 *
 * Pass &it->hook where an sp_allocator is taken.  Fresh memory is filled with a pattern, so that
 * use before writing shows; a block freed with another size than it was allocated with, or twice,
 * ends the process.  Any number of threads may use one; arming is for when they are at rest.
 */
#ifndef SP_TESTS_SUPPORT_ALLOC_H
#define SP_TESTS_SUPPORT_ALLOC_H

#include "base/mem.h"

typedef struct test_alloc {
    sp_allocator hook;
    _Atomic uint64_t calls;  /* allocations asked for since alloc_arm or alloc_init */
    _Atomic uint64_t failed; /* of these, refused */
    _Atomic uint64_t blocks; /* live */
    _Atomic uint64_t bytes;  /* live */
    uint64_t fail_at;        /* the call to fail, counted from 1; 0 for none */
    int onwards;             /* fail every later call too */
} test_alloc;

/* Starts with nothing live and nothing to fail; must stay at its address while in use. */
void alloc_init(test_alloc *it);

/* Makes the n-th allocation from now fail (1 is the next), and all after it if `onwards`.  0
 * disarms.  Counts calls and failed from 0 again. */
void alloc_arm(test_alloc *it, uint64_t n, int onwards);

uint64_t alloc_failed(const test_alloc *it); /* refused since armed */
uint64_t alloc_blocks(const test_alloc *it); /* live */
uint64_t alloc_bytes(const test_alloc *it);  /* live */

#endif
