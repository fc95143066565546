/*
 * qemu_list.c - the merge with QEMU's list: a walk for each dirty page sent.
 *
 * The walk ends at the first region past the page, which a sorted list allows.
 */
#include <time.h>

#include "region_list.h"
#include "split.h"

static inline bool is_shared(const void *context, uint64_t gfn)
{
    const rival_list *list = context;
    const region *r = list->head.next;
    while (r != &list->head && r->stop <= gfn)
        r = r->next;
    return r != &list->head && r->start <= gfn;
}

static uint64_t now_ns(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (uint64_t)t.tv_sec * UINT64_C(1000000000) + (uint64_t)t.tv_nsec;
}

bool rival_qemu_merge(const rival_list *list, const uint64_t *dirty, size_t nwords, uint64_t limit,
                      rival_split *out, rival_lookups *lookups)
{
    uint64_t npages = 0;
    for (size_t w = 0; w < nwords; w++)
        npages += (unsigned)__builtin_popcountll(dirty[w]);
    uint64_t every = npages > limit ? (npages - 1) / limit + 1 : 1;
    *lookups = (rival_lookups){0};
    uint64_t began = now_ns();
    bool done = split_pages(dirty, nwords, every, is_shared, list, out, &lookups->pages);
    lookups->ns = now_ns() - began;
    return done;
}
