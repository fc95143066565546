/*
 * pageset.c - building and sharing immutable sets.  Floor 3.
 */
#include "set/pageset.h"

#include <string.h>

#include "base/atomics.h"

struct sp_pageset {
    _Atomic uint64_t refs;
    sp_mem mem; /* holds the nodes and this struct */
    sp_set set; /* written until the constructor returns, then constant */
};

sp_status sp_pageset_new(const sp_allocator *allocator, const sp_engine *engine, sp_pageset **out)
{
    sp_mem mem;
    sp_mem_init(&mem, allocator);
    sp_pageset *pageset = sp_mem_alloc(&mem, sizeof *pageset);
    if (!pageset)
        return SP_NOMEM;
    atomic_init(&pageset->refs, 1);
    sp_mem_init(&pageset->mem, mem.allocator);
    /* relaxed: nobody else knows the object yet */
    sp_store(&pageset->mem.bytes, sizeof *pageset, relaxed);
    sp_store(&pageset->mem.blocks, 1, relaxed);
    pageset->set = sp_set_empty(engine);
    *out = pageset;
    return SP_OK;
}

sp_edit sp_pageset_edit(sp_pageset *pageset)
{
    return sp_edit_private(&pageset->mem, sp_kernels_active());
}

sp_set *sp_pageset_open(sp_pageset *pageset) { return &pageset->set; }

sp_pageset *sp_pageset_retain(sp_pageset *pageset)
{
    /* relaxed: the caller already holds a reference */
    sp_add(&pageset->refs, 1, relaxed);
    return pageset;
}

void sp_pageset_release(sp_pageset *pageset)
{
    /* acq_rel: the last release pairs with all others, whose reads must be over before we free */
    if (!pageset || sp_sub(&pageset->refs, 1, acq_rel) != 1)
        return;
    sp_edit edit = sp_pageset_edit(pageset);
    sp_set_retire(&edit, &pageset->set);
    sp_mem mem = {.allocator = pageset->mem.allocator};
    sp_mem_free(&mem, pageset, sizeof *pageset);
}

const sp_set *sp_pageset_set(const sp_pageset *pageset) { return &pageset->set; }

uint64_t sp_pageset_bytes(const sp_pageset *pageset)
{
    /* relaxed: constant since construction */
    return sp_load(&pageset->mem.bytes, relaxed);
}

/* Returns the finished set, or gives it up. */
static sp_status finish(sp_pageset *made, sp_status status, sp_pageset **out)
{
    if (status)
        sp_pageset_release(made);
    else
        *out = made;
    return status;
}

sp_status sp_pageset_from_ranges(const sp_allocator *allocator, const sp_engine *engine,
                                 const sp_range *ranges, size_t n, sp_pageset **out, size_t *bad)
{
    sp_pageset *made;
    sp_status status = sp_pageset_new(allocator, engine, &made);
    if (status)
        return status;
    sp_edit edit = sp_pageset_edit(made);
    for (size_t i = 0; !status && i < n; i++) {
        sp_range range = ranges[i];
        *bad = i;
        if (range.start > SP_GFN_LIMIT || range.stop > SP_GFN_LIMIT)
            status = SP_RANGE;
        else if (range.stop < range.start)
            status = SP_INVALID;
        else if (range.start < range.stop)
            status = sp_set_assign(&edit, &made->set, range.start, range.stop, true);
    }
    return finish(made, status, out);
}

sp_status sp_pageset_from_pages(const sp_allocator *allocator, const sp_engine *engine,
                                const uint64_t *gfns, size_t n, sp_pageset **out, size_t *bad)
{
    sp_pageset *made;
    sp_status status = sp_pageset_new(allocator, engine, &made);
    if (status)
        return status;
    sp_edit edit = sp_pageset_edit(made);
    for (size_t i = 0; !status && i < n;) {
        uint64_t start = gfns[i], stop = start;
        /* Neighbours in the list that are neighbours as pages go in as one range. */
        do {
            *bad = i;
            status = stop >= SP_GFN_LIMIT ? SP_RANGE : SP_OK;
            stop++;
            i++;
        } while (!status && i < n && gfns[i] == stop);
        if (!status)
            status = sp_set_assign(&edit, &made->set, start, stop, true);
    }
    return finish(made, status, out);
}

sp_status sp_pageset_from_bitmap(const sp_allocator *allocator, const sp_engine *engine,
                                 const void *bitmap, uint64_t first, uint64_t npages,
                                 sp_pageset **out)
{
    enum { SPAN = 65536 };
    sp_pageset *made;
    sp_status status = sp_pageset_new(allocator, engine, &made);
    if (status)
        return status;
    sp_edit edit = sp_pageset_edit(made);
    uint64_t words[SPAN / 64 + 1], shifted[SPAN / 64];
    for (uint64_t at = first, stop = first + npages; !status && at < stop;) {
        uint64_t base = at & ~(uint64_t)(SPAN - 1), end = sp_min(base + SPAN, stop);
        sp_bits_copy(bitmap, at - first, end - at, words);
        if (edit.kernels->popcount(words, (size_t)(end - at + 63) / 64)) {
            memset(shifted, 0, sizeof shifted);
            uint64_t skip = at - base;
            for (uint64_t w = 0; w < (end - at + 63) / 64; w++) {
                shifted[(skip >> 6) + w] |= words[w] << (skip & 63);
                if (skip & 63 && (skip >> 6) + w + 1 < SPAN / 64)
                    shifted[(skip >> 6) + w + 1] |= words[w] >> (64 - (skip & 63));
            }
            status = sp_set_put_words(&edit, &made->set, base, shifted);
        }
        at = end;
    }
    return finish(made, status, out);
}

sp_status sp_pageset_combine(const sp_allocator *allocator, sp_op op, const sp_set *a,
                             const sp_set *b, sp_pageset **out)
{
    sp_pageset *made;
    sp_status status = sp_pageset_new(allocator, a->engine, &made);
    if (status)
        return status;
    sp_edit edit = sp_pageset_edit(made);
    return finish(made, sp_set_combine(&edit, op, a, b, &made->set), out);
}
