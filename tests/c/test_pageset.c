/* tier: model */
/*
 * Page sets: the constructors, what they answer to bad input, references, and sp_bits_copy.
 */
#include <string.h>

#include "base/bits.h"
#include "set/pageset.h"
#include "support_guard.h"
#include "support_set.h"

/* ---- bits ---- */

static bool bit_of(const uint8_t *bytes, uint64_t i) { return bytes[i / 8] >> (i % 8) & 1; }

/* The bytes that hold bits [from, from + npages), and no byte more, lie between guards. */
static void check_bits(rng *r, guarded input, guarded output, uint64_t from, uint64_t npages,
                       int at_end)
{
    size_t skipped = from / 8, held = npages ? (from % 8 + npages + 7) / 8 : 0;
    uint8_t *bytes = guarded_place(input, held, at_end);
    size_t nwords = (npages + 63) / 64;
    uint64_t *words = guarded_place(output, nwords * 8, 1);
    for (size_t i = 0; i < held; i++)
        bytes[i] = (uint8_t)rng_next(r);
    memset(words, 0xee, nwords * 8);
    sp_bits_copy((const void *)((uintptr_t)bytes - skipped), from, npages, words);
    for (uint64_t i = 0; i < nwords * 64; i++)
        CHECK_EQ(words[i / 64] >> (i % 64) & 1, i < npages && bit_of(bytes, from % 8 + i));
}

static void bits_copy_from_any_bit(void)
{
    guarded input = guarded_open(64), output = guarded_open(64);
    rng r = rng_open(1);
    for (uint64_t from = 0; from < 72 && !check_failed(); from++)
        for (uint64_t npages = 0; npages <= 270; npages++)
            for (int at_end = 0; at_end < 2; at_end++) {
                check_case("%d bits from %d, at the %s", (int)npages, (int)from,
                           at_end ? "end" : "start");
                check_bits(&r, input, output, from, npages, at_end);
            }
    guarded_close(input);
    guarded_close(output);
}

/* ---- constructors ---- */

static void matches(const model *m, sp_pageset *pageset, const test_alloc *alloc)
{
    sp_set_stats stats;
    sp_set_measure(sp_pageset_set(pageset), &stats);
    model_matches(m, sp_pageset_set(pageset));
    CHECK_EQ(stats.nodes + 1, alloc_blocks(alloc));
    CHECK_EQ(sp_pageset_bytes(pageset), alloc_bytes(alloc));
}

static void ranges_in_any_order_overlapping_and_empty(void)
{
    enum { MOST = 60 };
    sp_range windows[BORDER_WINDOWS], ranges[MOST];
    rng r = rng_open(2);
    border_windows(600, windows);
    for (uint64_t step = 0; step < check_scaled(200) && !check_failed(); step++) {
        test_alloc alloc;
        model m;
        sp_pageset *made;
        size_t n = rng_below(&r, MOST), bad;
        alloc_init(&alloc);
        model_init(&m, windows, BORDER_WINDOWS);
        for (size_t i = 0; i < n; i++) {
            ranges[i] = random_range(&m, &r);
            if (rng_chance(&r, 9))
                ranges[i].stop = ranges[i].start;
            model_assign(&m, ranges[i].start, ranges[i].stop, true);
        }
        check_case("set %d, of %zu ranges", (int)step, n);
        REQUIRE_EQ(sp_pageset_from_ranges(&alloc.hook, test_engine, ranges, n, &made, &bad), SP_OK);
        matches(&m, made, &alloc);
        sp_pageset_release(made);
        CHECK_EQ(alloc_blocks(&alloc), 0);
        model_clear(&m);
    }
}

static void pages_in_any_order_and_twice(void)
{
    enum { MOST = 900 };
    sp_range windows[BORDER_WINDOWS];
    uint64_t gfns[MOST];
    rng r = rng_open(3);
    border_windows(600, windows);
    for (uint64_t step = 0; step < check_scaled(200) && !check_failed(); step++) {
        test_alloc alloc;
        model m;
        sp_pageset *made;
        size_t n = rng_below(&r, MOST), bad;
        alloc_init(&alloc);
        model_init(&m, windows, BORDER_WINDOWS);
        for (size_t i = 0; i < n; i++) {
            gfns[i] = sp_min(model_border(&m, &r), SP_GFN_LIMIT - 1);
            if (i && !rng_chance(&r, 3) && model_contains(&m, gfns[i - 1]))
                gfns[i] = sp_min(gfns[i - 1] + 1, windows[9].stop - 1);
            for (size_t w = 0; w < BORDER_WINDOWS; w++)
                if (gfns[i] == windows[w].stop)
                    gfns[i]--;
            model_assign(&m, gfns[i], gfns[i] + 1, true);
        }
        check_case("set %d, of %zu pages", (int)step, n);
        REQUIRE_EQ(sp_pageset_from_pages(&alloc.hook, test_engine, gfns, n, &made, &bad), SP_OK);
        matches(&m, made, &alloc);
        sp_pageset_release(made);
        CHECK_EQ(alloc_blocks(&alloc), 0);
        model_clear(&m);
    }
}

/* A bitmap of npages bits, at the upper guard; true bits in stretches or at random. */
static void check_bitmap(rng *r, guarded input, uint64_t first, uint64_t npages)
{
    test_alloc alloc;
    model m;
    sp_pageset *made;
    sp_range window = {first, first + npages};
    size_t bytes = (npages + 7) / 8;
    uint8_t *bitmap = guarded_place(input, bytes, 1);
    alloc_init(&alloc);
    model_init(&m, &window, 1);
    for (size_t i = 0, texture = 0; i < bytes; i++) {
        if (rng_chance(r, 3000))
            texture = rng_below(r, 4);
        bitmap[i] = (uint8_t)(texture == 0 ? 0 : texture == 1 ? 0xff : rng_next(r));
    }
    for (uint64_t i = 0; i < npages; i++)
        m.window[0].in[i] = bit_of(bitmap, i);
    REQUIRE_EQ(sp_pageset_from_bitmap(&alloc.hook, test_engine, bitmap, first, npages, &made),
               SP_OK);
    matches(&m, made, &alloc);
    sp_pageset_release(made);
    CHECK_EQ(alloc_blocks(&alloc), 0);
    model_clear(&m);
}

static void a_bitmap_begins_at_any_gfn(void)
{
    static const uint64_t sizes[] = {1, 63, 64, 65, 1000, 65535, 65536, 65537, 131072, 200000};
    static const uint64_t borders[] = {0, 1 << 16, 1 << 22, UINT64_C(1) << 32, UINT64_C(1) << 40};
    guarded input = guarded_open(200000 / 8);
    rng r = rng_open(4);
    for (uint64_t step = 0; step < check_scaled(150) && !check_failed(); step++) {
        uint64_t first = borders[rng_below(&r, 5)], npages = sizes[rng_below(&r, 10)];
        first -= sp_min(first, rng_chance(&r, 3) ? 0 : rng_below(&r, 70000));
        if (rng_chance(&r, 10))
            first = SP_GFN_LIMIT - npages;
        check_case("%d pages from %#llx", (int)npages, (unsigned long long)first);
        check_bitmap(&r, input, first, npages);
    }
    guarded_close(input);
}

static void no_bits_are_the_empty_set(void)
{
    sp_pageset *made;
    CHECK_EQ(sp_pageset_from_bitmap(NULL, test_engine, NULL, SP_GFN_LIMIT, 0, &made), SP_OK);
    CHECK_EQ(sp_set_count(sp_pageset_set(made)), 0);
    sp_pageset_release(made);
    size_t bad;
    CHECK_EQ(sp_pageset_from_pages(NULL, test_engine, NULL, 0, &made, &bad), SP_OK);
    CHECK_EQ(sp_set_count(sp_pageset_set(made)), 0);
    sp_pageset_release(made);
}

static void sets_combine_into_sets_of_their_own(void)
{
    sp_range windows[BORDER_WINDOWS];
    rng r = rng_open(5);
    border_windows(600, windows);
    set_bench a, b;
    set_bench_open(&a, windows, BORDER_WINDOWS);
    set_bench_open(&b, windows, BORDER_WINDOWS);
    set_bench_fill(&a, &r, 20);
    set_bench_fill(&b, &r, 20);
    for (unsigned op = SP_OR; op <= SP_XOR; op++) {
        test_alloc alloc;
        model m;
        sp_pageset *made;
        alloc_init(&alloc);
        model_init(&m, windows, BORDER_WINDOWS);
        model_combine(&m, (sp_op)op, &a.model, &b.model);
        REQUIRE_EQ(sp_pageset_combine(&alloc.hook, (sp_op)op, &a.set, &b.set, &made), SP_OK);
        matches(&m, made, &alloc);
        sp_pageset_release(made);
        CHECK_EQ(alloc_blocks(&alloc), 0);
        model_clear(&m);
    }
    set_bench_close(&a);
    set_bench_close(&b);
}

/* ---- sorted ranges ---- */

enum { LEAF = 65536, MOST_RANGES = 12000 };

/* Ranges from `start` on, sorted by start, at most `n`; returns how many fit before `stop`. */
static size_t sorted_ranges(rng *r, uint64_t start, uint64_t stop, sp_range *ranges, size_t n)
{
    unsigned texture = (unsigned)rng_below(r, 5);
    size_t used = 0;
    for (uint64_t at = start; used < n && at < stop; used++) {
        uint64_t pages = texture == 0   ? 1 /* thousands of runs in a leaf */
                         : texture == 1 ? rng_between(r, 1, 40)
                         : texture == 2
                             ? rng_between(r, 1, 3000) /* overlapping, into next leaves */
                         : texture == 3 ? rng_between(r, 1, LEAF / 2)
                                        : 5;
        ranges[used] = (sp_range){at, sp_min(at + pages, stop)};
        at += texture == 0   ? 2
              : texture == 1 ? rng_below(r, 60) /* some of them twice */
              : texture == 2 ? rng_below(r, 900)
              : texture == 3 ? rng_below(r, LEAF)
                             : 5; /* adjacent */
    }
    return used;
}

/* Ranges that end, and that begin, with a leaf's last and first page among many. */
static size_t ranges_about_borders(rng *r, uint64_t border, sp_range *ranges)
{
    size_t used = 0;
    for (uint64_t at = border - 10; at < border + 10; at++)
        for (uint64_t pages = 1; pages < 4; pages++)
            if (rng_chance(r, 2))
                ranges[used++] = (sp_range){at, at + pages};
    return used;
}

static void sorted_ranges_join_what_is_there(void)
{
    static sp_range ranges[MOST_RANGES];
    sp_range windows[] = {
        {0, 2 * LEAF}, {(1 << 22) - LEAF, (1 << 22) + LEAF}, {SP_GFN_LIMIT - LEAF, SP_GFN_LIMIT}};
    rng r = rng_open(6);
    for (uint64_t step = 0; step < check_scaled(150) && !check_failed(); step++) {
        set_bench b;
        set_bench_open(&b, windows, 3);
        set_bench_fill(&b, &r, (unsigned)rng_below(&r, 8));
        if (rng_chance(&r, 12))
            set_bench_assign(&b, 0, SP_GFN_LIMIT, true);
        for (unsigned calls = 0; calls < 2; calls++) {
            sp_range window = windows[rng_below(&r, 3)];
            uint64_t start = rng_between(&r, window.start, window.stop - 1);
            size_t n = rng_chance(&r, 3) ? rng_below(&r, 12) : MOST_RANGES;
            n = sorted_ranges(&r, start, window.stop, ranges, n);
            if (rng_chance(&r, 4))
                n = ranges_about_borders(&r, rng_chance(&r, 2) ? LEAF : 1 << 22, ranges);
            check_case("step %d, %zu ranges", (int)step, n);
            for (size_t i = 0; i < n; i++)
                model_assign(&b.model, ranges[i].start, ranges[i].stop, true);
            CHECK_EQ(sp_set_add_sorted(&b.edit, &b.set, ranges, n), SP_OK);
            set_bench_matches(&b);
        }
        set_bench_close(&b);
    }
}

/* By hand: one run more than a list of runs is made of, and the pages that fall between two. */
static void a_leaf_of_more_runs_than_a_list_holds(void)
{
    enum { RUNS = 2049 };
    static sp_range ranges[RUNS];
    test_alloc alloc;
    sp_pageset *made;
    size_t bad;
    for (size_t n = RUNS - 1; n <= RUNS; n++) {
        alloc_init(&alloc);
        for (size_t i = 0; i < n; i++)
            ranges[i] = (sp_range){LEAF + 3 * i, LEAF + 3 * i + 2};
        REQUIRE_EQ(sp_pageset_from_ranges(&alloc.hook, test_engine, ranges, n, &made, &bad), SP_OK);
        CHECK_VALID(sp_set_validate(sp_pageset_set(made)));
        CHECK_EQ(sp_set_count(sp_pageset_set(made)), 2 * n);
        CHECK_EQ(sp_set_nranges(sp_kernels_active(), sp_pageset_set(made)), n);
        CHECK_EQ(sp_set_select(sp_pageset_set(made), 2 * n - 1), LEAF + 3 * n - 2);
        sp_pageset_release(made);
        CHECK_EQ(alloc_blocks(&alloc), 0);
    }
}

/* ---- bad input and references ---- */

static void bad_elements_are_named(void)
{
    static const struct {
        sp_range bad;
        sp_status status;
    } ranges[] = {{{5, 4}, SP_INVALID},
                  {{SP_GFN_LIMIT, 0}, SP_INVALID},
                  {{SP_GFN_LIMIT - 1, SP_GFN_LIMIT + 1}, SP_RANGE},
                  {{SP_GFN_LIMIT + 1, SP_GFN_LIMIT + 1}, SP_RANGE},
                  {{0, UINT64_MAX}, SP_RANGE},
                  {{UINT64_MAX, 0}, SP_RANGE}};
    test_alloc alloc;
    sp_pageset *made = NULL;
    size_t bad;
    alloc_init(&alloc);
    for (size_t i = 0; i < sizeof ranges / sizeof *ranges; i++) {
        sp_range list[] = {{1, 2}, {70000, 80000}, {SP_GFN_LIMIT, SP_GFN_LIMIT}, ranges[i].bad};
        bad = 99;
        CHECK_EQ(sp_pageset_from_ranges(&alloc.hook, test_engine, list, 4, &made, &bad),
                 ranges[i].status);
        CHECK_EQ(bad, 3);
    }
    uint64_t alone[] = {3, 9, SP_GFN_LIMIT, 4}, most[] = {3, UINT64_MAX, 0};
    uint64_t joined[] = {SP_GFN_LIMIT - 2, SP_GFN_LIMIT - 1, SP_GFN_LIMIT, SP_GFN_LIMIT + 1};
    CHECK_EQ(sp_pageset_from_pages(&alloc.hook, test_engine, alone, 4, &made, &bad), SP_RANGE);
    CHECK_EQ(bad, 2);
    CHECK_EQ(sp_pageset_from_pages(&alloc.hook, test_engine, most, 3, &made, &bad), SP_RANGE);
    CHECK_EQ(bad, 1);
    CHECK_EQ(sp_pageset_from_pages(&alloc.hook, test_engine, joined, 4, &made, &bad), SP_RANGE);
    CHECK_EQ(bad, 2);
    CHECK_EQ(sp_pageset_from_pages(&alloc.hook, test_engine, joined, 2, &made, &bad), SP_OK);
    CHECK_EQ(sp_set_select(sp_pageset_set(made), 1), SP_GFN_LIMIT - 1);
    sp_pageset_release(made);
    CHECK_EQ(alloc_blocks(&alloc), 0);
}

static void references_keep_a_set(void)
{
    test_alloc alloc;
    sp_pageset *made;
    alloc_init(&alloc);
    sp_pageset_release(NULL);
    CHECK_EQ(sp_pageset_new(&alloc.hook, test_engine, &made), SP_OK);
    sp_edit edit = sp_pageset_edit(made);
    CHECK_EQ(sp_set_assign(&edit, sp_pageset_open(made), 3, 100000, true), SP_OK);
    CHECK(sp_pageset_retain(made) == made);
    sp_pageset_release(made);
    CHECK_EQ(sp_set_count(sp_pageset_set(made)), 99997);
    CHECK_EQ(sp_pageset_bytes(made), alloc_bytes(&alloc));
    sp_pageset_release(made);
    CHECK_EQ(alloc_blocks(&alloc), 0);
}

int main(void)
{
    RUN_ENGINES(bits_copy_from_any_bit);
    RUN_ENGINES(ranges_in_any_order_overlapping_and_empty);
    RUN_ENGINES(pages_in_any_order_and_twice);
    RUN_ENGINES(a_bitmap_begins_at_any_gfn);
    RUN_ENGINES(no_bits_are_the_empty_set);
    RUN_ENGINES(sets_combine_into_sets_of_their_own);
    RUN_ENGINES(sorted_ranges_join_what_is_there);
    RUN_ENGINES(a_leaf_of_more_runs_than_a_list_holds);
    RUN_ENGINES(bad_elements_are_named);
    RUN_ENGINES(references_keep_a_set);
    return check_close();
}
