/*
 * limits.c - what no merge can beat, a read of the bitmap and a copy of the output, and the heap.
 */
#include <malloc.h>
#include <stdlib.h>
#include <string.h>

#include "rivals.h"

#define LANES 4

/* Words that are prefetched ahead, as the kernels do: without, a pass is slower than a merge that
 * reads the same words. */
#define AHEAD 256

typedef uint64_t vector __attribute__((vector_size(LANES * 8), aligned(8), may_alias));

#if defined(__x86_64__) && defined(__gnu_linux__)
__attribute__((target_clones("avx2", "default")))
#endif
uint64_t rival_read_pass(const uint64_t *words, size_t nwords)
{
    vector a = {0}, b = {0}, c = {0}, d = {0};
    size_t w = 0;
    for (; nwords - w >= LANES * 4; w += LANES * 4) {
        const vector *next = (const vector *)(const void *)(words + w);
        __builtin_prefetch(words + w + AHEAD);
        __builtin_prefetch(words + w + AHEAD + 8);
        a |= next[0];
        b |= next[1];
        c |= next[2];
        d |= next[3];
    }
    uint64_t all = 0;
    for (; w < nwords; w++)
        all |= words[w];
    a |= b | c | d;
    for (unsigned lane = 0; lane < LANES; lane++)
        all |= a[lane];
    return all;
}

void *rival_copy(const void *from, size_t nbytes)
{
    void *copy = malloc(nbytes ? nbytes : 1);
    if (copy && nbytes)
        memcpy(copy, from, nbytes);
    return copy;
}

size_t rival_heap_bytes(void)
{
    struct mallinfo2 info = mallinfo2();
    return info.uordblks + info.hblkhd;
}
