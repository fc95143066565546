/* tier: model */
/*
 * What lies next to a gfn, ranks and members by the array, and sets that are moved: against the
 * model, at the borders of every level, and by hand.
 */
#include <stdlib.h>
#include <string.h>

#include "set/pageset.h"
#include "support_set.h"

enum { WIDTH = 9000, LEAF = 65536 };

static sp_range windows[BORDER_WINDOWS];

/* A set with leaves of every kind: short runs in some windows, single pages in others. */
static void open_rich(set_bench *b, rng *r)
{
    border_windows(WIDTH, windows);
    set_bench_open(b, windows, BORDER_WINDOWS);
    set_bench_fill(b, r, (unsigned)rng_below(r, 16));
    for (unsigned w = 0; w < BORDER_WINDOWS; w++) {
        uint64_t step = rng_between(r, 2, 60);
        if (rng_chance(r, 3))
            for (uint64_t at = windows[w].start; at + step < windows[w].stop; at += step)
                set_bench_assign(b, at, at + rng_between(r, 1, step - 1), true);
    }
}

/* ---- neighbours ---- */

/* The answers read off a list of all ranges. */
static uint64_t listed_next(const sp_range *list, size_t n, uint64_t gfn, bool member)
{
    size_t i = 0;
    while (i < n && list[i].stop <= gfn)
        i++;
    if (member)
        return i == n ? SP_GFN_LIMIT : sp_max(list[i].start, gfn);
    return i < n && list[i].start <= gfn ? list[i].stop : gfn;
}

static uint64_t listed_prev(const sp_range *list, size_t n, uint64_t gfn, bool member)
{
    size_t i = n;
    while (i && list[i - 1].start > gfn)
        i--;
    if (member)
        return i ? sp_min(list[i - 1].stop - 1, gfn) : SP_GFN_LIMIT;
    if (!i || list[i - 1].stop <= gfn)
        return gfn;
    return list[i - 1].start ? list[i - 1].start - 1 : SP_GFN_LIMIT;
}

static void neighbours_are_those_of_the_list(void)
{
    const sp_kernels *k = sp_kernels_active();
    rng r = rng_open(1);
    for (uint64_t step = 0; step < check_scaled(60) && !check_failed(); step++) {
        set_bench b;
        size_t n;
        open_rich(&b, &r);
        sp_range *list = model_ranges(&b.model, 0, SP_GFN_LIMIT, &n);
        for (unsigned i = 0; i < 200; i++) {
            uint64_t gfn = sp_min(model_border(&b.model, &r), SP_GFN_LIMIT - 1);
            check_case("set %d, gfn %#llx", (int)step, (unsigned long long)gfn);
            for (int member = 0; member < 2; member++) {
                CHECK_EQ(sp_set_next(k, &b.set, gfn, member), listed_next(list, n, gfn, member));
                CHECK_EQ(sp_set_prev(&b.set, gfn, member), listed_prev(list, n, gfn, member));
            }
        }
        free(list);
        set_bench_close(&b);
    }
}

static void neighbours_by_hand(void)
{
    const sp_kernels *k = sp_kernels_active();
    const uint64_t last = SP_GFN_LIMIT - 1;
    set_bench b;
    border_windows(WIDTH, windows);
    set_bench_open(&b, windows, BORDER_WINDOWS);
    CHECK_EQ(sp_set_next(k, &b.set, 0, true), SP_GFN_LIMIT);
    CHECK_EQ(sp_set_prev(&b.set, last, true), SP_GFN_LIMIT);
    CHECK_EQ(sp_set_next(k, &b.set, 7, false), 7);
    CHECK_EQ(sp_set_prev(&b.set, last, false), last);
    set_bench_assign(&b, 0, SP_GFN_LIMIT, true);
    CHECK_EQ(sp_set_next(k, &b.set, 0, false), SP_GFN_LIMIT);
    CHECK_EQ(sp_set_prev(&b.set, last, false), SP_GFN_LIMIT);
    CHECK_EQ(sp_set_prev(&b.set, last, true), last);
    set_bench_assign(&b, 5, 6, false);
    CHECK_EQ(sp_set_prev(&b.set, last, false), 5);
    CHECK_EQ(sp_set_next(k, &b.set, 0, false), 5);
    CHECK_EQ(sp_set_next(k, &b.set, 5, true), 6);
    CHECK_EQ(sp_set_prev(&b.set, 4, false), SP_GFN_LIMIT);
    set_bench_close(&b);
}

static void arrays_of_ranks_and_members(void)
{
    enum { ASKED = 100 };
    rng r = rng_open(2);
    for (uint64_t step = 0; step < check_scaled(30) && !check_failed(); step++) {
        set_bench b;
        uint64_t gfns[ASKED], ranks[ASKED], members[ASKED];
        open_rich(&b, &r);
        uint64_t count = sp_set_count(&b.set);
        for (unsigned i = 0; i < ASKED; i++)
            gfns[i] = i ? model_border(&b.model, &r) : SP_GFN_LIMIT;
        CHECK_EQ(sp_set_rank_many(&b.set, gfns, ASKED, ranks), ASKED);
        for (unsigned i = 0; i < ASKED; i++)
            CHECK_EQ(ranks[i], model_rank(&b.model, gfns[i]));
        size_t below = 0;
        for (unsigned i = 0; i < ASKED; i++)
            if (ranks[i] < count)
                ranks[below++] = ranks[i];
        CHECK_EQ(sp_set_select_many(&b.set, ranks, below, members), below);
        for (unsigned i = 0; i < below; i++)
            CHECK(model_contains(&b.model, members[i]) &&
                  model_rank(&b.model, members[i]) == ranks[i]);
        set_bench_close(&b);
    }
}

static void what_is_beyond_is_not_answered(void)
{
    uint64_t gfns[] = {4, SP_GFN_LIMIT, SP_GFN_LIMIT + 1, 0}, indexes[] = {1, 2, 0}, out[4];
    sp_range ranges[] = {{3, 5}};
    sp_pageset *made;
    size_t bad;
    REQUIRE_EQ(sp_pageset_from_ranges(NULL, test_engine, ranges, 1, &made, &bad), SP_OK);
    memset(out, 0, sizeof out);
    CHECK_EQ(sp_set_rank_many(sp_pageset_set(made), gfns, 4, out), 2);
    CHECK_EQ(out[0], 1);
    CHECK_EQ(out[1], 2);
    CHECK_EQ(out[2], 0);
    CHECK_EQ(sp_set_select_many(sp_pageset_set(made), indexes, 3, out), 1);
    CHECK_EQ(out[0], 4);
    sp_pageset_release(made);
}

/* ---- shifts ---- */

/* True if `set` has just these ranges, moved by `by`, within [0, 2^52). */
static void check_moved(const sp_range *list, size_t n, int64_t by, const sp_set *set)
{
    sp_cursor cursor = sp_cursor_open(set, 0, SP_GFN_LIMIT);
    sp_range got;
    size_t left = 0;
    CHECK_VALID(sp_set_validate(set));
    for (size_t i = 0; i < n && !check_failed(); i++) {
        int64_t start = (int64_t)list[i].start + by, stop = (int64_t)list[i].stop + by;
        start = start < 0 ? 0 : start;
        stop = stop > (int64_t)SP_GFN_LIMIT ? (int64_t)SP_GFN_LIMIT : stop;
        if (start >= stop)
            continue;
        left++;
        REQUIRE_EQ(sp_cursor_ranges(sp_kernels_active(), &cursor, &got, 1), 1);
        CHECK_EQ(got.start, start);
        CHECK_EQ(got.stop, stop);
    }
    CHECK_EQ(sp_set_nranges(sp_kernels_active(), set), left);
}

static void check_shift(const set_bench *b, int64_t by)
{
    test_alloc alloc;
    sp_pageset *made;
    size_t n;
    sp_range *list = model_ranges(&b->model, 0, SP_GFN_LIMIT, &n);
    alloc_init(&alloc);
    check_case("%zu ranges by %lld", n, (long long)by);
    uint64_t distance = by < 0 ? 0 - (uint64_t)by : (uint64_t)by;
    if (CHECK_EQ(sp_pageset_shift(&alloc.hook, &b->set, distance, by < 0, &made), SP_OK)) {
        check_moved(list, n, by, sp_pageset_set(made));
        sp_pageset_release(made);
    }
    CHECK_EQ(alloc_blocks(&alloc), 0);
    free(list);
}

static void members_move_by_any_distance(void)
{
    static const int64_t borders[] = {
        0, 1, 63, 64, 4096, LEAF, 1 << 22, INT64_C(1) << 31, INT64_C(1) << 32, INT64_C(1) << 52};
    rng r = rng_open(3);
    for (uint64_t step = 0; step < check_scaled(30) && !check_failed(); step++) {
        set_bench b;
        open_rich(&b, &r);
        for (unsigned i = 0; i < 8 && !check_failed(); i++) {
            int64_t by = borders[rng_below(&r, 10)];
            by += rng_chance(&r, 2) ? 0 : (int64_t)rng_below(&r, 3 * LEAF) - LEAF;
            check_shift(&b, rng_chance(&r, 2) ? by : -by);
        }
        set_bench_close(&b);
    }
}

/* Leaves that are bitmaps beside leaves that are not, so that both ways meet in one leaf. */
static void bitmaps_and_lists_move_together(void)
{
    sp_range leaves[] = {{0, 6 * LEAF}, {SP_GFN_LIMIT - 3 * LEAF, SP_GFN_LIMIT}};
    rng r = rng_open(4);
    for (uint64_t step = 0; step < check_scaled(12) && !check_failed(); step++) {
        set_bench b;
        set_bench_open(&b, leaves, 2);
        for (unsigned l = 0; l < 9; l++) {
            uint64_t base = l < 6 ? l * LEAF : SP_GFN_LIMIT - (9 - l) * LEAF;
            unsigned texture = (unsigned)rng_below(&r, 4);
            uint64_t gap = texture == 0 ? 20 : 9000, part = rng_between(&r, LEAF / 3, LEAF);
            for (uint64_t at = base; texture < 3 && at + 10 < base + part; at += gap)
                set_bench_assign(&b, at, at + rng_between(&r, 1, 10), true);
        }
        for (unsigned i = 0; i < 6 && !check_failed(); i++) {
            int64_t by = (int64_t)rng_below(&r, 8 * LEAF) - 4 * LEAF;
            check_shift(&b, rng_chance(&r, 3) ? by / LEAF * LEAF : by);
        }
        set_bench_close(&b);
    }
}

static void a_shift_fails_at_every_allocation(void)
{
    rng r = rng_open(5);
    for (uint64_t step = 0; step < check_scaled(10) && !check_failed(); step++) {
        set_bench b;
        test_alloc alloc;
        sp_pageset *made = NULL;
        open_rich(&b, &r);
        alloc_init(&alloc);
        sp_status status = SP_NOMEM;
        for (uint64_t n = 1; status && !check_failed(); n++) {
            check_case("set %d, allocation %d", (int)step, (int)n);
            alloc_arm(&alloc, n, step & 1);
            status = sp_pageset_shift(&alloc.hook, &b.set, 12345, step & 2, &made);
            CHECK_EQ(status, alloc_failed(&alloc) ? SP_NOMEM : SP_OK);
            alloc_arm(&alloc, 0, 0);
            if (status)
                CHECK(made == NULL && alloc_blocks(&alloc) == 0);
        }
        sp_pageset_release(made);
        CHECK_EQ(alloc_blocks(&alloc), 0);
        set_bench_close(&b);
    }
}

int main(void)
{
    RUN_ENGINES(neighbours_are_those_of_the_list);
    RUN_ENGINES(neighbours_by_hand);
    RUN_ENGINES(arrays_of_ranks_and_members);
    RUN_ENGINES(what_is_beyond_is_not_answered);
    RUN_ENGINES(members_move_by_any_distance);
    RUN_ENGINES(bitmaps_and_lists_move_together);
    RUN_ENGINES(a_shift_fails_at_every_allocation);
    return check_close();
}
