/*
 * portable_read.c - a set from bytes of the portable Roaring format.  Floor 3.
 *
 * A number is copied out of the caller's bytes and then checked, so bytes that others write
 * meanwhile make at worst another set, or an error.  A container takes at least six bytes of the
 * input, and a part sixteen; what they cost beyond their members is nodes on the way down to them,
 * which is the constant in "a constant times the input".
 */
#include <string.h>

#include "set/portable.h"

#include "set/radix.h"

/* What is read goes into the set 64 leaves at a time, by nodes of the lowest level. */
typedef struct reader {
    const uint8_t *data;
    size_t size, at;
    const char *why; /* what is wrong with the bytes at `at` */
    sp_edit *edit;
    sp_set *set;
    uint64_t base;     /* of the leaves that are gathered */
    uint32_t gathered; /* so many are not EMPTY */
    sp_ref leaves[FANOUT];
} reader;

static sp_status blame(reader *r, size_t at, const char *why)
{
    r->at = at;
    r->why = why;
    return SP_INVALID;
}

static uint32_t get_u16(const uint8_t *at)
{
    uint16_t value;
    memcpy(&value, at, sizeof value);
    return value;
}

static uint32_t get_u32(const uint8_t *at)
{
    uint32_t value;
    memcpy(&value, at, sizeof value);
    return value;
}

static uint64_t get_u64(const uint8_t *at)
{
    uint64_t value;
    memcpy(&value, at, sizeof value);
    return value;
}

/* Passes over n bytes; *out is where they begin.  Blames the end of the input if they are not
 * there. */
static sp_status take(reader *r, uint64_t n, const uint8_t **out, const char *what)
{
    if (n > r->size - r->at)
        return blame(r, r->size, what);
    *out = r->data + r->at;
    r->at += n;
    return SP_OK;
}

/* The header of one 32-bit set. */
typedef struct header {
    size_t start; /* of the set, from which offsets count */
    uint32_t containers;
    const uint8_t *flags;   /* a bit a container, or NULL: none is of runs */
    const uint8_t *keys;    /* (key, pages - 1) a container */
    const uint8_t *offsets; /* or NULL */
} header;

static sp_status read_cookie(reader *r, header *h)
{
    const uint8_t *at;
    sp_status status = take(r, 4, &at, "the end, where a cookie begins");
    if (status)
        return status;
    uint32_t cookie = get_u32(at);
    h->flags = NULL;
    if ((cookie & 0xffff) == SP_PORTABLE_RUNS_COOKIE) {
        h->containers = (cookie >> 16) + 1;
        return take(r, (h->containers + 7) / 8, &h->flags, "the end, within the flags of runs");
    }
    if (cookie != SP_PORTABLE_COOKIE)
        return blame(r, h->start, "no cookie of the Roaring format");
    status = take(r, 4, &at, "the end, where a count of containers begins");
    if (status)
        return status;
    h->containers = get_u32(at);
    if (h->containers > 65536)
        return blame(r, h->start + 4, "more than 65,536 containers");
    return SP_OK;
}

static sp_status read_header(reader *r, header *h)
{
    h->start = r->at;
    h->offsets = NULL;
    sp_status status = read_cookie(r, h);
    if (!status)
        status = take(r, 4 * (uint64_t)h->containers, &h->keys, "the end, within the keys");
    if (!status && (!h->flags || h->containers >= SP_PORTABLE_FEW))
        status = take(r, 4 * (uint64_t)h->containers, &h->offsets, "the end, within the offsets");
    return status;
}

static sp_container_kind kind_of(const header *h, uint32_t i, uint32_t pages)
{
    if (h->flags && h->flags[i / 8] >> i % 8 & 1)
        return SP_CONTAINER_RUNS;
    return pages <= SP_CONTAINER_MAX_VALUES ? SP_CONTAINER_VALUES : SP_CONTAINER_BITMAP;
}

/* Puts the gathered leaves, if there are any, where they belong; they are the set's then. */
static sp_status put_gathered(reader *r)
{
    if (!r->gathered)
        return SP_OK;
    r->gathered = 0;
    return sp_radix_put_leaves(r->edit, r->set, r->base, r->leaves);
}

/* Container i, whose gfns are those from `gfn` on. */
static sp_status read_container(reader *r, const header *h, uint32_t i, uint64_t gfn)
{
    size_t used;
    uint64_t base = gfn & ~(level_span(1) - 1);
    uint32_t pages = get_u16(h->keys + 4 * i + 2) + 1;
    if (h->offsets && get_u32(h->offsets + 4 * i) != r->at - h->start)
        return blame(r, (size_t)(h->offsets - r->data) + 4 * i,
                     "an offset that is not where its container begins");
    sp_status status = SP_OK;
    if (base != r->base) {
        status = put_gathered(r);
        memset(r->leaves, 0, sizeof r->leaves);
        r->base = base;
    }
    if (status)
        return status;
    status = sp_container_read(r->edit, kind_of(h, i, pages), pages, r->data + r->at,
                               r->size - r->at, &r->leaves[(gfn - base) >> SP_LEAF_BITS], &used,
                               &r->why);
    if (status != SP_NOMEM)
        r->at += used;
    r->gathered += !status;
    return status;
}

/* The set of 32 bits that begins here, of gfns from `high` on. */
static sp_status read_part(reader *r, uint64_t high)
{
    header h;
    sp_status status = read_header(r, &h);
    int64_t before = -1;
    for (uint32_t i = 0; !status && i < h.containers; i++) {
        uint32_t key = get_u16(h.keys + 4 * i);
        if (key <= before)
            return blame(r, (size_t)(h.keys - r->data) + 4 * i,
                         "a key is not above the one before it");
        before = key;
        status = read_container(r, &h, i, high + ((uint64_t)key << SP_LEAF_BITS));
    }
    return status;
}

static sp_status read_wide(reader *r)
{
    const uint8_t *at;
    sp_status status = take(r, 8, &at, "the end, where a count of 32-bit sets begins");
    if (status)
        return status;
    uint64_t n = get_u64(at);
    int64_t before = -1;
    if (n > SP_GFN_LIMIT / SP_PORTABLE_SPAN)
        return blame(r, 0, "neither a cookie of the Roaring format nor a count of 32-bit sets");
    for (uint64_t i = 0; !status && i < n; i++) {
        status = take(r, 4, &at, "the end, where the high half of a 32-bit set begins");
        if (status)
            return status;
        uint32_t high = get_u32(at);
        if (high <= before)
            return blame(r, r->at - 4, "a high half is not above the one before it");
        if (high >= SP_GFN_LIMIT / SP_PORTABLE_SPAN)
            return blame(r, r->at - 4, "a high half beyond 2^52, where gfns end");
        before = high;
        status = read_part(r, (uint64_t)high << 32);
    }
    return status;
}

/* All of the bytes, as one width or the other. */
static sp_status read_all(reader *r, const sp_allocator *allocator, bool wide, sp_pageset **out)
{
    sp_pageset *made;
    sp_status status = sp_pageset_new(allocator, &sp_engine_roaring, &made);
    if (status)
        return status;
    sp_edit edit = sp_pageset_edit(made);
    r->edit = &edit;
    r->set = sp_pageset_open(made);
    r->at = r->base = r->gathered = 0;
    memset(r->leaves, 0, sizeof r->leaves);
    status = wide ? read_wide(r) : read_part(r, 0);
    if (!status && r->at != r->size)
        status = blame(r, r->at, "bytes beyond the end of the set");
    if (!status)
        status = put_gathered(r);
    for (unsigned i = 0; status && r->gathered && i < FANOUT; i++)
        sp_leaf_retire(&edit, r->leaves[i]);
    if (status)
        sp_pageset_release(made);
    else
        *out = made;
    return status;
}

static bool begins_with_cookie(const reader *r)
{
    uint32_t cookie = r->size < 4 ? 0 : get_u32(r->data);
    return cookie == SP_PORTABLE_COOKIE || (cookie & 0xffff) == SP_PORTABLE_RUNS_COOKIE;
}

/* A 64-bit file begins with a count of parts, which may look like a cookie: what fails as the one
 * is tried as the other, where the count is possible. */
sp_status sp_portable_read(const sp_allocator *allocator, const void *data, size_t size,
                           unsigned bits, sp_pageset **out, size_t *offset, const char **why)
{
    reader r;
    r.data = data;
    r.size = size;
    r.why = NULL;
    bool narrow = bits ? bits == 32 : begins_with_cookie(&r);
    sp_status status = read_all(&r, allocator, !narrow, out);
    *offset = r.at;
    *why = r.why;
    if (!bits && narrow && status == SP_INVALID && size >= 8 &&
        get_u64(r.data) <= SP_GFN_LIMIT / SP_PORTABLE_SPAN) {
        sp_status other = read_all(&r, allocator, true, out);
        return other == SP_INVALID ? status : other;
    }
    return status;
}
