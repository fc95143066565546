/* tier: model */
/*
 * The portable Roaring format: bytes by hand, round trips of every kind of leaf under every kernel
 * table, memory outside the buffers, damage, and allocations that fail.
 */
#include <stdlib.h>
#include <string.h>

#include "leaf/leaf.h"
#include "set/portable.h"
#include "support_alloc.h"
#include "support_guard.h"
#include "support_set.h"

enum { MOST_RANGES = 60000 };

/* ---- sets with leaves of every kind ---- */

typedef struct listing {
    sp_range *ranges;
    size_t n;
} listing;

static void add(listing *l, uint64_t start, uint64_t pages)
{
    if (l->n < MOST_RANGES)
        l->ranges[l->n++] = (sp_range){start, start + pages};
}

/* Something in the 2^16 pages from base: each kind of leaf, with few or many runs. */
static void add_leaf(listing *l, rng *r, uint64_t base)
{
    static const uint32_t steps[] = {2, 3, 8, 15, 16, 32, 64, 300, 30000};
    uint32_t step = steps[rng_below(r, sizeof steps / sizeof *steps)];
    uint64_t from = rng_below(r, 60000), room = rng_between(r, 1, 65536 - from);
    switch (rng_below(r, 5)) {
    case 0: add(l, base, 65536); break;
    case 1: add(l, base + from, room); break;
    case 2: add(l, base + 65535, 1); break;
    default:
        for (uint32_t at = (uint32_t)rng_below(r, step); at + step <= 65536; at += step)
            add(l, base + at, rng_between(r, 1, rng_chance(r, 2) ? step - 1 : 1));
    }
}

static listing random_listing(rng *r, uint64_t top)
{
    listing l = {malloc(MOST_RANGES * sizeof(sp_range)), 0};
    uint64_t base = 0, leaves = rng_below(r, 8);
    for (uint64_t i = 0; i < leaves; i++) {
        unsigned bits = (unsigned)rng_below(r, 34);
        base += (1 + rng_below(r, UINT64_C(1) << bits)) << SP_LEAF_BITS;
        if (base + SP_LEAF_PAGES > top)
            break;
        add_leaf(&l, r, base);
    }
    if (rng_chance(r, 4)) {
        uint64_t start = rng_below(r, top >> 22) << 22;
        add(&l, start, sp_min(top - start, rng_between(r, 1, 70) << 22));
    }
    return l;
}

static sp_pageset *made_of(const sp_allocator *hook, const listing *l)
{
    sp_pageset *made = NULL;
    size_t bad;
    CHECK_EQ(sp_pageset_from_ranges(hook, &sp_engine_roaring, l->ranges, l->n, &made, &bad), SP_OK);
    return made;
}

static bool same_members(const sp_set *a, const sp_set *b)
{
    const sp_kernels *k = sp_kernels_find("scalar");
    uint64_t n = sp_set_ranges_count(k, a, 0, SP_GFN_LIMIT);
    if (!CHECK_EQ(sp_set_ranges_count(k, b, 0, SP_GFN_LIMIT), n))
        return false;
    sp_range *of_a = malloc((n + 1) * sizeof *of_a), *of_b = malloc((n + 1) * sizeof *of_b);
    sp_set_ranges_into(k, a, 0, SP_GFN_LIMIT, of_a, n);
    sp_set_ranges_into(k, b, 0, SP_GFN_LIMIT, of_b, n);
    bool same = CHECK(!n || !memcmp(of_a, of_b, n * sizeof *of_a));
    free(of_a);
    free(of_b);
    return same;
}

/* ---- files ---- */

typedef struct file {
    uint8_t *bytes;
    size_t size;
} file;

/* What is written between two guards, with nothing written behind it. */
static file written(const sp_set *set, bool wide)
{
    sp_portable plan;
    file f = {NULL, 0};
    if (CHECK_EQ(sp_portable_plan(&plan, NULL, set, wide), SP_OK)) {
        f.size = sp_portable_bytes(&plan);
        f.bytes = malloc(f.size + 1);
        guarded g = guarded_open(f.size + 16);
        for (int at_end = 0; at_end < 2; at_end++) {
            uint8_t *out = guarded_place(g, f.size, at_end);
            memset(g.block, 0xee, g.bytes);
            sp_portable_write(&plan, out);
            for (char *at = g.block; at < g.block + g.bytes && !check_failed(); at++)
                if (at < (char *)out || at >= (char *)out + f.size)
                    CHECK_EQ((uint8_t)*at, 0xee);
            if (at_end)
                CHECK(!memcmp(f.bytes, out, f.size));
            memcpy(f.bytes, out, f.size);
        }
        guarded_close(g);
    }
    sp_portable_close(&plan);
    return f;
}

/* Reads from between guards: what begins at the lower one, then what ends at the upper one. */
static sp_status read_file(const sp_allocator *hook, const uint8_t *bytes, size_t size,
                           sp_pageset **out, size_t *offset)
{
    guarded g = guarded_open(size + 16);
    sp_status status = SP_OK;
    for (int at_end = 0; at_end < 2; at_end++) {
        const char *why = NULL;
        uint8_t *place = guarded_place(g, size, at_end);
        memcpy(place, bytes, size);
        if (at_end && !status)
            sp_pageset_release(*out);
        status = sp_portable_read(hook, place, size, 0, out, offset, &why);
        CHECK_EQ(status == SP_INVALID, why != NULL);
        CHECK(status != SP_INVALID || *offset <= size);
    }
    guarded_close(g);
    return status;
}

/* ---- tests ---- */

static void bytes_by_hand(void)
{
    static const uint8_t narrow[] = {0x3b, 0x30, 2,    0,    4, /* cookie, 3 containers, flags */
                                     0,    0,    1,    0,       /* key 0, 2 pages */
                                     1,    0,    0,    0,       /* key 1, 1 page */
                                     2,    0,    0xff, 0xff,    /* key 2, 65,536 pages */
                                     5,    0,    9,    0,       /* values 5 and 9 */
                                     7,    0,                   /* value 7 */
                                     1,    0,    0,    0,    0xff, 0xff}; /* one run */
    static const uint8_t wide[] = {2,    0,    0, 0, 0,  0, 0, 0,         /* parts */
                                   0,    0,    0, 0,                      /* high half */
                                   0x3a, 0x30, 0, 0, 1,  0, 0, 0,         /* cookie, 1 container */
                                   0,    0,    0, 0, 16, 0, 0, 0, 3, 0,   /* key, offset, value */
                                   1,    0,    0, 0,                      /* high half */
                                   0x3a, 0x30, 0, 0, 1,  0, 0, 0, 0, 0, 0, 0, 16, 0, 0, 0, 4, 0};
    sp_range of_narrow[] = {{5, 6}, {9, 10}, {65543, 65544}, {131072, 196608}};
    sp_range of_wide[] = {{3, 4}, {SP_PORTABLE_SPAN + 4, SP_PORTABLE_SPAN + 5}};
    listing lists[] = {{of_narrow, 4}, {of_wide, 2}};
    const uint8_t *bytes[] = {narrow, wide};
    size_t sizes[] = {sizeof narrow, sizeof wide};
    for (int i = 0; i < 2; i++) {
        size_t offset;
        sp_pageset *set = made_of(NULL, &lists[i]), *again;
        file f = written(sp_pageset_set(set), i);
        CHECK_EQ(f.size, sizes[i]);
        CHECK(f.size == sizes[i] && !memcmp(f.bytes, bytes[i], f.size));
        if (CHECK_EQ(read_file(NULL, bytes[i], sizes[i], &again, &offset), SP_OK)) {
            same_members(sp_pageset_set(set), sp_pageset_set(again));
            sp_pageset_release(again);
        }
        free(f.bytes);
        sp_pageset_release(set);
    }
}

static void check_round_trip(const sp_set *set, bool wide)
{
    test_alloc alloc;
    sp_pageset *again;
    size_t offset;
    alloc_init(&alloc);
    file f = written(set, wide);
    if (CHECK_EQ(read_file(&alloc.hook, f.bytes, f.size, &again, &offset), SP_OK)) {
        same_members(set, sp_pageset_set(again));
        CHECK_VALID(sp_set_validate(sp_pageset_set(again)));
        CHECK_EQ(sp_pageset_bytes(again), alloc_bytes(&alloc));
        file g = written(sp_pageset_set(again), wide);
        CHECK(f.size == g.size && !memcmp(f.bytes, g.bytes, f.size));
        free(g.bytes);
        sp_pageset_release(again);
    }
    CHECK_EQ(alloc_blocks(&alloc), 0);
    free(f.bytes);
}

/* Page sets have whole bitmaps, sets under edit those of blocks. */
static void round_trips_of(const sp_kernels *table)
{
    rng r = rng_open(3);
    sp_kernels_use(table);
    for (uint64_t step = 0; step < check_scaled(40) && !check_failed(); step++) {
        set_bench b;
        sp_range all = {0, 1};
        bool wide = rng_chance(&r, 2);
        uint64_t top = wide ? SP_GFN_LIMIT : SP_PORTABLE_SPAN;
        listing l = random_listing(&r, top);
        check_case("%s, set %d, %d bits", table->name, (int)step, wide ? 64 : 32);
        sp_pageset *set = made_of(NULL, &l);
        check_round_trip(sp_pageset_set(set), wide);
        set_bench_open(&b, &all, 1);
        for (size_t i = 0; i < l.n && !check_failed(); i++)
            CHECK_EQ(sp_set_assign(&b.edit, &b.set, l.ranges[i].start, l.ranges[i].stop, true),
                     SP_OK);
        check_round_trip(&b.set, wide);
        set_bench_close(&b);
        sp_pageset_release(set);
        free(l.ranges);
    }
}

static void round_trips(void)
{
    const sp_kernels *was = sp_kernels_active();
    for (size_t i = 0; sp_kernels_at(i); i++)
        round_trips_of(sp_kernels_at(i));
    sp_kernels_use(was);
}

static void thirty_two_bits_end_at_two_to_the_32(void)
{
    sp_range below = {SP_PORTABLE_SPAN - 70000, SP_PORTABLE_SPAN};
    sp_range cases[] = {below, {below.start, below.stop + 1}, {0, SP_GFN_LIMIT}};
    for (int i = 0; i < 3; i++) {
        sp_portable plan;
        listing l = {&cases[i], 1};
        sp_pageset *set = made_of(NULL, &l);
        check_case("up to %#llx", (unsigned long long)cases[i].stop);
        CHECK_EQ(sp_portable_plan(&plan, NULL, sp_pageset_set(set), false), i ? SP_RANGE : SP_OK);
        sp_portable_close(&plan);
        sp_pageset_release(set);
    }
}

/* What is cut off or has a bit flipped is another set, or blamed; nothing is leaked. */
static void damage(void)
{
    rng r = rng_open(4);
    for (uint64_t step = 0; step < check_scaled(10) && !check_failed(); step++) {
        test_alloc alloc;
        sp_pageset *read;
        size_t offset;
        bool wide = rng_chance(&r, 2);
        listing l = random_listing(&r, wide ? SP_GFN_LIMIT : SP_PORTABLE_SPAN);
        l.n = sp_min(l.n, 40);
        sp_pageset *set = made_of(NULL, &l);
        file f = written(sp_pageset_set(set), wide);
        alloc_init(&alloc);
        for (size_t size = 0; size < f.size; size += 1 + size / 200) {
            check_case("%zu bytes of %zu", size, f.size);
            CHECK_EQ(read_file(&alloc.hook, f.bytes, size, &read, &offset), SP_INVALID);
            CHECK_EQ(alloc_blocks(&alloc), 0);
        }
        for (int i = 0; i < 200 && !check_failed(); i++) {
            size_t bit = rng_below(&r, 8 * sp_min(f.size, 300));
            check_case("bit %zu of %zu bytes", bit, f.size);
            f.bytes[bit / 8] ^= (uint8_t)(1 << bit % 8);
            if (read_file(&alloc.hook, f.bytes, f.size, &read, &offset) == SP_OK) {
                CHECK_VALID(sp_set_validate(sp_pageset_set(read)));
                sp_pageset_release(read);
            }
            CHECK_EQ(alloc_blocks(&alloc), 0);
            f.bytes[bit / 8] ^= (uint8_t)(1 << bit % 8);
        }
        free(f.bytes);
        sp_pageset_release(set);
        free(l.ranges);
    }
}

static void memory_runs_out_while_reading(void)
{
    rng r = rng_open(5);
    for (uint64_t step = 0; step < check_scaled(15) && !check_failed(); step++) {
        listing l = random_listing(&r, SP_GFN_LIMIT);
        sp_pageset *set = made_of(NULL, &l), *read;
        file f = written(sp_pageset_set(set), true);
        sp_status status = SP_NOMEM;
        for (uint64_t n = 1; status && !check_failed(); n++) {
            test_alloc alloc;
            size_t offset;
            const char *why = NULL;
            alloc_init(&alloc);
            alloc_arm(&alloc, n, rng_chance(&r, 2));
            check_case("set %d, allocation %d", (int)step, (int)n);
            status = sp_portable_read(&alloc.hook, f.bytes, f.size, 64, &read, &offset, &why);
            CHECK_EQ(status, alloc_failed(&alloc) ? SP_NOMEM : SP_OK);
            if (!status) {
                same_members(sp_pageset_set(set), sp_pageset_set(read));
                sp_pageset_release(read);
            }
            CHECK_EQ(alloc_blocks(&alloc), 0);
        }
        free(f.bytes);
        sp_pageset_release(set);
        free(l.ranges);
    }
}

/* More containers, and more parts, than a plan has inside. */
static void memory_runs_out_while_planning(void)
{
    enum { N = 300 };
    sp_range ranges[N];
    listing l = {ranges, N};
    for (uint64_t i = 0; i < N; i++)
        ranges[i] = (sp_range){i << 33, (i << 33) + 4};
    sp_pageset *set = made_of(NULL, &l);
    sp_status status = SP_NOMEM;
    uint64_t n = 1;
    for (; status && !check_failed(); n++) {
        sp_portable plan;
        test_alloc alloc;
        alloc_init(&alloc);
        alloc_arm(&alloc, n, 0);
        status = sp_portable_plan(&plan, &alloc.hook, sp_pageset_set(set), true);
        CHECK_EQ(status, alloc_failed(&alloc) ? SP_NOMEM : SP_OK);
        sp_portable_close(&plan);
        CHECK_EQ(alloc_blocks(&alloc), 0);
    }
    CHECK(n > 4);
    check_round_trip(sp_pageset_set(set), true);
    sp_pageset_release(set);
}

int main(void)
{
    RUN(bytes_by_hand);
    RUN(round_trips);
    RUN(thirty_two_bits_end_at_two_to_the_32);
    RUN(damage);
    RUN(memory_runs_out_while_reading);
    RUN(memory_runs_out_while_planning);
    return check_close();
}
