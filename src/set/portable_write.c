/*
 * portable_write.c - a set as bytes of the portable Roaring format.  Floor 3.
 *
 * A part is the members of 2^32 gfns: all of a 32-bit file, or one of several in a 64-bit one.  The
 * set is walked twice: once to count what each part needs, since counts stand before contents, and
 * once to write.  A flat subtree is one call of either walk, and full containers by the number.
 */
#include <string.h>

#include "set/portable.h"

#include "leaf/container.h"
#include "set/radix.h"

typedef struct part {
    uint32_t high, containers;
    bool has_runs;
    uint64_t bytes; /* of the containers */
} part;

struct sp_portable {
    sp_mem mem;
    const sp_kernels *kernels;
    sp_set set;
    bool wide;
    size_t n, room;
    part *parts;
};

static const sp_container full_container = {SP_CONTAINER_RUNS, SP_LEAF_PAGES, 1};

/* ---- the layout of a part ---- */

static uint64_t flags_bytes(const part *p) { return p->has_runs ? (p->containers + 7) / 8 : 0; }

static uint64_t cookie_bytes(const part *p) { return p->has_runs ? 4 : 8; }

static bool has_offsets(const part *p) { return !p->has_runs || p->containers >= SP_PORTABLE_FEW; }

static uint64_t header_bytes(const part *p)
{
    return cookie_bytes(p) + flags_bytes(p) + (uint64_t)p->containers * (has_offsets(p) ? 8 : 4);
}

/* ---- counting ---- */

/* The part of a gfn, which is in the last one or beyond it; NULL if memory is short. */
static part *part_of(sp_portable *all, uint64_t gfn)
{
    uint32_t high = (uint32_t)(gfn >> 32);
    if (all->n && all->parts[all->n - 1].high == high)
        return &all->parts[all->n - 1];
    if (all->n == all->room) {
        size_t room = all->room ? all->room * 2 : 4;
        part *parts = sp_mem_alloc(&all->mem, room * sizeof *parts);
        if (!parts)
            return NULL;
        if (all->n)
            memcpy(parts, all->parts, all->n * sizeof *parts);
        sp_mem_free(&all->mem, all->parts, all->room * sizeof *parts);
        all->parts = parts;
        all->room = room;
    }
    all->parts[all->n] = (part){.high = high};
    return &all->parts[all->n++];
}

static sp_status count_full(sp_portable *all, uint64_t start, uint64_t stop)
{
    while (start < stop) {
        uint64_t end = sp_min(stop, (start | (SP_PORTABLE_SPAN - 1)) + 1);
        part *p = part_of(all, start);
        if (!p)
            return SP_NOMEM;
        uint32_t n = (uint32_t)((end - start) >> SP_LEAF_BITS);
        p->containers += n;
        p->bytes += (uint64_t)n * sp_container_bytes(full_container);
        p->has_runs = true;
        start = end;
    }
    return SP_OK;
}

static sp_status count(void *context, uint64_t start, uint64_t stop, sp_ref leaf)
{
    sp_portable *all = context;
    if (leaf == SP_FULL)
        return count_full(all, start, stop);
    part *p = part_of(all, start);
    if (!p)
        return SP_NOMEM;
    sp_container c = sp_container_of(all->kernels, leaf);
    p->containers++;
    p->bytes += sp_container_bytes(c);
    p->has_runs |= c.kind == SP_CONTAINER_RUNS;
    return SP_OK;
}

sp_status sp_portable_new(const sp_allocator *allocator, const sp_set *set, bool wide,
                          sp_portable **out)
{
    uint64_t pages = sp_set_count(set);
    if (!wide && pages && sp_set_select(set, pages - 1) >= SP_PORTABLE_SPAN)
        return SP_RANGE;
    sp_mem mem;
    sp_mem_init(&mem, allocator);
    sp_portable *all = sp_mem_zalloc(&mem, sizeof *all);
    if (!all)
        return SP_NOMEM;
    sp_mem_init(&all->mem, allocator);
    all->kernels = sp_kernels_active();
    all->set = *set;
    all->wide = wide;
    sp_status status = sp_radix_leaves(set->root, set->height, 0, count, all);
    if (!status && !wide && !part_of(all, 0))
        status = SP_NOMEM;
    if (status)
        sp_portable_free(all);
    else
        *out = all;
    return status;
}

void sp_portable_free(sp_portable *all)
{
    if (!all)
        return;
    sp_mem_free(&all->mem, all->parts, all->room * sizeof *all->parts);
    sp_mem mem = {.allocator = all->mem.allocator};
    sp_mem_free(&mem, all, sizeof *all);
}

uint64_t sp_portable_bytes(const sp_portable *all)
{
    uint64_t bytes = all->wide ? 8 : 0;
    for (size_t i = 0; i < all->n; i++)
        bytes += header_bytes(&all->parts[i]) + all->parts[i].bytes + (all->wide ? 4 : 0);
    return bytes;
}

/* ---- writing ---- */

typedef struct writer {
    const sp_kernels *kernels;
    const part *part; /* the one being written; before the first, the first */
    bool wide;
    uint32_t i;            /* containers of it that are written */
    uint8_t *start;        /* of the part, from which offsets count */
    uint8_t *flags;        /* or NULL */
    uint8_t *key, *offset; /* the next container's; offset NULL: there are none */
    uint8_t *body;
} writer;

static void put_u16(uint8_t *out, uint32_t value) { memcpy(out, &(uint16_t){(uint16_t)value}, 2); }
static void put_u32(uint8_t *out, uint64_t value) { memcpy(out, &(uint32_t){(uint32_t)value}, 4); }

static void begin_part(writer *w)
{
    const part *p = w->part;
    if (w->wide) {
        put_u32(w->body, p->high);
        w->body += 4;
    }
    w->i = 0;
    w->start = w->body;
    w->key = w->start + cookie_bytes(p) + flags_bytes(p);
    w->offset = has_offsets(p) ? w->key + 4 * (uint64_t)p->containers : NULL;
    w->flags = p->has_runs ? w->start + cookie_bytes(p) : NULL;
    w->body += header_bytes(p);
    if (p->has_runs) {
        put_u32(w->start, SP_PORTABLE_RUNS_COOKIE | (p->containers - 1) << 16);
        memset(w->flags, 0, flags_bytes(p));
    } else {
        put_u32(w->start, SP_PORTABLE_COOKIE);
        put_u32(w->start + 4, p->containers);
    }
}

static void put_container(writer *w, uint64_t gfn, sp_ref leaf)
{
    if (w->i == w->part->containers) {
        w->part++;
        begin_part(w);
    }
    sp_container c = leaf == SP_FULL ? full_container : sp_container_of(w->kernels, leaf);
    put_u16(w->key, (uint32_t)(gfn >> SP_LEAF_BITS));
    put_u16(w->key + 2, c.pages - 1);
    w->key += 4;
    if (w->offset) {
        put_u32(w->offset, (uint64_t)(w->body - w->start));
        w->offset += 4;
    }
    if (c.kind == SP_CONTAINER_RUNS)
        w->flags[w->i / 8] |= (uint8_t)(1u << w->i % 8);
    sp_container_write(w->kernels, leaf, c, w->body);
    w->body += sp_container_bytes(c);
    w->i++;
}

static sp_status put_leaves(void *context, uint64_t start, uint64_t stop, sp_ref leaf)
{
    for (; start < stop; start += SP_LEAF_PAGES)
        put_container(context, start, leaf);
    return SP_OK;
}

void sp_portable_write(const sp_portable *all, uint8_t *out)
{
    writer w = {.kernels = all->kernels, .part = all->parts, .wide = all->wide, .body = out};
    if (all->wide) {
        memcpy(out, &(uint64_t){all->n}, 8);
        w.body += 8;
    }
    if (!all->n)
        return;
    begin_part(&w);
    sp_status status = sp_radix_leaves(all->set.root, all->set.height, 0, put_leaves, &w);
    SP_ASSERT(status == SP_OK);
    (void)status; /* nothing above can fail */
}
