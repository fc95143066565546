/*
 * pageset.c - building and sharing immutable sets.  Floor 3.
 *
 * Sets hold nodes in common: a result of two sets is mostly made of theirs.  Each set counts what
 * it reaches as its own bytes.
 */
#include "set/pageset.h"

#include <string.h>

#include "base/atomics.h"
#include "base/sort.h"

struct sp_pageset {
    _Atomic uint64_t refs;
    _Atomic uint64_t bytes; /* 0 until asked for; by any thread, all to the same value */
    sp_mem mem;             /* the hook; what it counts means nothing, as nodes are shared */
    sp_set set;             /* written until the constructor returns, then constant */
};

sp_status sp_pageset_new(const sp_allocator *allocator, const sp_engine *engine, sp_pageset **out)
{
    sp_mem mem;
    sp_mem_init(&mem, allocator);
    sp_pageset *pageset = sp_mem_alloc(&mem, sizeof *pageset);
    if (!pageset)
        return SP_NOMEM;
    atomic_init(&pageset->refs, 1);
    atomic_init(&pageset->bytes, 0);
    /* Its maker and, long after, its last holder are alone with it: no lock is needed. */
    sp_mem_init_locked(&pageset->mem, mem.allocator);
    pageset->set = sp_set_empty(engine);
    *out = pageset;
    return SP_OK;
}

sp_edit sp_pageset_edit(sp_pageset *pageset)
{
    return sp_edit_counted(&pageset->mem, sp_kernels_active());
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

uint64_t sp_pageset_bytes(sp_pageset *pageset)
{
    /* relaxed: whoever computes it comes to the same number */
    uint64_t bytes = sp_load(&pageset->bytes, relaxed);
    if (!bytes) {
        sp_set_stats stats;
        sp_set_measure(&pageset->set, &stats);
        bytes = stats.bytes + sizeof *pageset;
        sp_store(&pageset->bytes, bytes, relaxed);
    }
    return bytes;
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

/* Reads a caller's ranges once, checks them, and leaves out those that are empty. */
static sp_status copy_ranges(const sp_range *ranges, size_t n, sp_range *out, size_t *used,
                             size_t *bad)
{
    *used = 0;
    for (size_t i = 0; i < n; i++) {
        sp_range range = {SP_READ_ONCE(ranges[i].start), SP_READ_ONCE(ranges[i].stop)};
        *bad = i;
        if (range.start > SP_GFN_LIMIT || range.stop > SP_GFN_LIMIT)
            return SP_RANGE;
        if (range.stop < range.start)
            return SP_INVALID;
        out[*used] = range;
        *used += range.start < range.stop;
    }
    return SP_OK;
}

/* Reads a caller's gfns once, checks them, and joins neighbours in the list that are as pages. */
static sp_status copy_pages(const uint64_t *gfns, size_t n, sp_range *out, size_t *used,
                            size_t *bad)
{
    *used = 0;
    for (size_t i = 0; i < n; i++) {
        uint64_t gfn = SP_READ_ONCE(gfns[i]);
        *bad = i;
        if (gfn >= SP_GFN_LIMIT)
            return SP_RANGE;
        if (*used && out[*used - 1].stop == gfn)
            out[*used - 1].stop++;
        else
            out[(*used)++] = (sp_range){gfn, gfn + 1};
    }
    return SP_OK;
}

/* The set of n ranges, or of n gfns where ranges is NULL: copied, sorted, added. */
static sp_status from_list(const sp_allocator *allocator, const sp_engine *engine,
                           const sp_range *ranges, const uint64_t *gfns, size_t n, sp_pageset **out,
                           size_t *bad)
{
    sp_mem mem;
    sp_mem_init(&mem, allocator);
    sp_pageset *made;
    size_t used = 0, bytes = (2 * n + 1) * sizeof(sp_range);
    sp_status status = sp_pageset_new(allocator, engine, &made);
    if (status)
        return status;
    sp_range *list = n < SIZE_MAX / 64 ? sp_mem_alloc(&mem, bytes) : NULL;
    if (!list)
        status = SP_NOMEM;
    else if (ranges)
        status = copy_ranges(ranges, n, list, &used, bad);
    else
        status = copy_pages(gfns, n, list, &used, bad);
    if (!status) {
        sp_edit edit = sp_pageset_edit(made);
        sp_sort_ranges(list, list + used, used);
        status = sp_set_add_sorted(&edit, &made->set, list, used);
    }
    sp_mem_free(&mem, list, bytes);
    return finish(made, status, out);
}

sp_status sp_pageset_from_ranges(const sp_allocator *allocator, const sp_engine *engine,
                                 const sp_range *ranges, size_t n, sp_pageset **out, size_t *bad)
{
    static const sp_range none;
    return from_list(allocator, engine, n ? ranges : &none, NULL, n, out, bad);
}

sp_status sp_pageset_from_pages(const sp_allocator *allocator, const sp_engine *engine,
                                const uint64_t *gfns, size_t n, sp_pageset **out, size_t *bad)
{
    return from_list(allocator, engine, NULL, gfns, n, out, bad);
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
