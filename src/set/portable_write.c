/*
 * portable_write.c - a set as bytes of the portable Roaring format.  Floor 3.
 *
 * A header tells the number and size of what follows, so the set is walked first, and what each
 * leaf becomes is kept in a list of 16 bytes a container; those of a FULL subtree are one entry.
 * Writing goes along the list, for each part twice: its header, then its containers.
 */
#include <string.h>

#include "set/portable.h"

#include "set/radix.h"

/* ---- the layout of a part ---- */

static uint64_t flags_bytes(const sp_portable_part *p)
{
    return p->has_runs ? (p->containers + 7) / 8 : 0;
}

static uint64_t cookie_bytes(const sp_portable_part *p) { return p->has_runs ? 4 : 8; }

static bool has_offsets(const sp_portable_part *p)
{
    return !p->has_runs || p->containers >= SP_PORTABLE_FEW;
}

static uint64_t header_bytes(const sp_portable_part *p)
{
    return cookie_bytes(p) + flags_bytes(p) + (uint64_t)p->containers * (has_offsets(p) ? 8 : 4);
}

/* ---- planning ---- */

/* A list with room for more: the one given, or a larger one in its place; NULL if memory is short.
 * `inside` is where it lies in the plan. */
static void *grown(sp_portable *plan, void *list, const void *inside, size_t bytes, size_t wanted)
{
    if (list != inside)
        return sp_mem_resize(&plan->mem, list, bytes, wanted);
    void *moved = sp_mem_alloc(&plan->mem, wanted);
    if (moved)
        memcpy(moved, list, bytes);
    return moved;
}

static sp_status make_room(sp_portable *plan, size_t more)
{
    if (plan->room - plan->n >= more)
        return SP_OK;
    size_t room = plan->room * 4, each = sizeof *plan->list;
    void *list = grown(plan, plan->list, plan->few, plan->room * each, room * each);
    if (!list)
        return SP_NOMEM;
    plan->list = list;
    plan->room = room;
    return SP_OK;
}

/* The part of a gfn, which is in the last one or beyond it; NULL if memory is short. */
static sp_portable_part *part_of(sp_portable *plan, uint64_t gfn)
{
    uint32_t high = (uint32_t)(gfn >> 32);
    if (plan->nparts && plan->parts[plan->nparts - 1].high == high)
        return &plan->parts[plan->nparts - 1];
    if (plan->nparts == plan->parts_room) {
        size_t room = plan->parts_room * 4, each = sizeof *plan->parts;
        void *parts = grown(plan, plan->parts, plan->two, plan->parts_room * each, room * each);
        if (!parts)
            return NULL;
        plan->parts = parts;
        plan->parts_room = room;
    }
    sp_portable_part *p = &plan->parts[plan->nparts++];
    *p = (sp_portable_part){.high = high, .first = plan->n};
    return p;
}

static uint32_t key_of(uint64_t gfn) { return (uint32_t)(gfn >> SP_LEAF_BITS) & 0xffff; }

/* Adds `leaves` FULL ones to the last part, to which all of them belong. */
static sp_status plan_full(sp_portable *plan, sp_portable_part *p, uint64_t start, uint64_t leaves)
{
    const sp_ref full = SP_FULL;
    sp_status status = make_room(plan, 1);
    if (status)
        return status;
    sp_container *c = &plan->list[plan->n++];
    (void)sp_containers_of(plan->kernels, &full, 1, key_of(start), c);
    c->again = (uint16_t)(leaves - 1);
    p->containers += (uint32_t)leaves;
    p->bytes += leaves * sp_container_bytes(c);
    p->has_runs = true;
    return SP_OK;
}

static sp_status plan_full_leaves(sp_portable *plan, uint64_t start, uint64_t n)
{
    sp_status status = SP_OK;
    for (uint64_t stop = start + (n << SP_LEAF_BITS); !status && start < stop;) {
        uint64_t end = sp_min(stop, (start | (SP_PORTABLE_SPAN - 1)) + 1);
        sp_portable_part *p = part_of(plan, start);
        status = p ? plan_full(plan, p, start, (end - start) >> SP_LEAF_BITS) : SP_NOMEM;
        start = end;
    }
    return status;
}

/* What is in a row belongs to one part: 64 leaves at a multiple of their span. */
static sp_status plan_leaves(void *context, uint64_t start, const sp_ref *leaves, uint64_t n)
{
    sp_portable *plan = context;
    if (!plan->wide && start >= SP_PORTABLE_SPAN)
        return SP_RANGE;
    if (!leaves && !plan->wide && start + (n << SP_LEAF_BITS) > SP_PORTABLE_SPAN)
        return SP_RANGE;
    if (!leaves)
        return plan_full_leaves(plan, start, n);
    sp_portable_part *p = part_of(plan, start);
    if (!p || make_room(plan, n))
        return SP_NOMEM;
    sp_container *c = plan->list + plan->n;
    size_t more = sp_containers_of(plan->kernels, leaves, n, key_of(start), c);
    for (size_t i = 0; i < more; i++) {
        p->bytes += sp_container_bytes(&c[i]);
        p->has_runs |= c[i].runs != 0;
    }
    p->containers += (uint32_t)more;
    plan->n += more;
    return SP_OK;
}

sp_status sp_portable_plan(sp_portable *plan, const sp_allocator *allocator, const sp_set *set,
                           bool wide)
{
    SP_ASSERT(set->engine == &sp_engine_roaring);
    sp_mem_init(&plan->mem, allocator);
    plan->kernels = sp_kernels_active();
    plan->wide = wide;
    plan->n = plan->nparts = 0;
    plan->list = plan->few;
    plan->room = SP_PORTABLE_INLINE;
    plan->parts = plan->two;
    plan->parts_room = sizeof plan->two / sizeof *plan->two;
    if (!wide)
        (void)part_of(plan, 0);
    return sp_radix_leaves(set, plan_leaves, plan);
}

void sp_portable_close(sp_portable *plan)
{
    if (plan->list != plan->few)
        sp_mem_free(&plan->mem, plan->list, plan->room * sizeof *plan->list);
    if (plan->parts != plan->two)
        sp_mem_free(&plan->mem, plan->parts, plan->parts_room * sizeof *plan->parts);
}

uint64_t sp_portable_bytes(const sp_portable *plan)
{
    uint64_t bytes = plan->wide ? 8 : 0;
    for (size_t i = 0; i < plan->nparts; i++)
        bytes += header_bytes(&plan->parts[i]) + plan->parts[i].bytes + (plan->wide ? 4 : 0);
    return bytes;
}

bool sp_portable_is_short(const sp_set *set) { return set->height <= 1; }

/* ---- writing ---- */

static void put_u32(uint8_t *out, uint64_t value) { memcpy(out, &(uint32_t){(uint32_t)value}, 4); }

static uint8_t *write_cookie(const sp_portable_part *p, uint8_t *out)
{
    if (p->has_runs) {
        put_u32(out, SP_PORTABLE_RUNS_COOKIE | (p->containers - 1) << 16);
    } else {
        put_u32(out, SP_PORTABLE_COOKIE);
        put_u32(out + 4, p->containers);
    }
    return out + cookie_bytes(p);
}

static void write_flags(const sp_container *list, size_t n, uint8_t *out)
{
    uint32_t eight = 0, at = 0;
    for (size_t i = 0; i < n; i++)
        for (uint32_t times = 0; times <= list[i].again; times++) {
            eight |= (uint32_t)(list[i].runs != 0) << at;
            at = (at + 1) % 8;
            if (!at) {
                *out++ = (uint8_t)eight;
                eight = 0;
            }
        }
    if (at)
        *out = (uint8_t)eight;
}

static uint8_t *write_keys(const sp_container *list, size_t n, uint8_t *out)
{
    for (size_t i = 0; i < n; i++)
        for (uint32_t times = 0; times <= list[i].again; times++, out += 4)
            put_u32(out, list[i].key + times + ((uint32_t)list[i].most << 16));
    return out;
}

static void write_offsets(const sp_container *list, size_t n, uint64_t offset, uint8_t *out)
{
    for (size_t i = 0; i < n; i++)
        for (uint32_t times = 0; times <= list[i].again; times++, out += 4) {
            put_u32(out, offset);
            offset += sp_container_bytes(&list[i]);
        }
}

/* The part with the n entries of the list; returns where it ends. */
static uint8_t *write_part(const sp_portable *plan, const sp_portable_part *p, size_t n,
                           uint8_t *start)
{
    const sp_container *list = plan->list + p->first;
    uint8_t *out = write_cookie(p, start);
    if (p->has_runs) {
        write_flags(list, n, out);
        out += flags_bytes(p);
    }
    out = write_keys(list, n, out);
    if (has_offsets(p))
        write_offsets(list, n, header_bytes(p), out);
    return sp_containers_write(plan->kernels, list, n, start + header_bytes(p));
}

void sp_portable_write(const sp_portable *plan, uint8_t *out)
{
    if (plan->wide) {
        memcpy(out, &(uint64_t){plan->nparts}, 8);
        out += 8;
    }
    for (size_t i = 0; i < plan->nparts; i++) {
        const sp_portable_part *p = &plan->parts[i];
        size_t end = i + 1 < plan->nparts ? p[1].first : plan->n;
        if (plan->wide) {
            put_u32(out, p->high);
            out += 4;
        }
        out = write_part(plan, p, end - p->first, out);
    }
}
