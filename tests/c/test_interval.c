/* tier: model */
/*
 * What is the interval engine's own: heights that rise and fall, bytes, leaves that results take
 * over, the checker.
 */
#include <stdlib.h>

#include "base/bits.h"
#include "set/interval.h"
#include "set/pageset.h"
#include "support_set.h"

enum { GAP = 10, MANY = 60000 };

static void open_bench(set_bench *b)
{
    static const sp_range window = {0, 1 << 20};
    test_engine = &sp_engine_interval;
    set_bench_open(b, &window, 1);
}

static void assign(set_bench *b, uint64_t start, uint64_t stop, bool value)
{
    CHECK_EQ(sp_set_assign(&b->edit, &b->set, start, stop, value), SP_OK);
}

static sp_set_stats stats_of(const sp_set *set)
{
    sp_set_stats stats;
    sp_set_measure(set, &stats);
    return stats;
}

/* Run i of a guest of pages that lie GAP apart. */
static void put(set_bench *b, uint64_t i, bool value) { assign(b, GAP * i, GAP * i + 1, value); }

static void check_many(const set_bench *b, uint64_t n)
{
    CHECK_VALID(sp_set_validate(&b->set));
    CHECK_EQ(sp_set_count(&b->set), n);
    CHECK_EQ(sp_set_nranges(b->edit.kernels, &b->set), n);
}

/* In order, from the end and at random: the tree is as high as its runs ask for, and goes. */
static void trees_rise_and_fall(void)
{
    rng r = rng_open(1);
    for (unsigned order = 0; order < 3 && !check_failed(); order++) {
        static uint32_t place[MANY];
        set_bench b;
        check_case("order %u", order);
        open_bench(&b);
        for (uint32_t i = 0; i < MANY; i++)
            place[i] = order == 1 ? MANY - 1 - i : i;
        for (uint32_t i = MANY - 1; order == 2 && i; i--) {
            uint32_t j = (uint32_t)rng_below(&r, i + 1), kept = place[i];
            place[i] = place[j];
            place[j] = kept;
        }
        for (uint32_t i = 0; i < MANY; i++) {
            put(&b, place[i], true);
            if (i % 9973 == 0)
                check_many(&b, i + 1);
        }
        check_many(&b, MANY);
        CHECK(b.set.height >= 2 && b.set.height <= 3);
        CHECK(stats_of(&b.set).bytes < 13 * MANY);
        for (uint32_t i = 0; i < MANY; i++) {
            put(&b, place[i], false);
            if (i % 9973 == 0)
                check_many(&b, MANY - 1 - i);
        }
        CHECK_EQ(b.set.root, SP_EMPTY);
        CHECK_EQ(b.set.height, 0);
        set_bench_close(&b);
    }
}

/* Whole subtrees go at once, wherever the edges lie, and what is left is as full as it should. */
static void wide_ranges_take_subtrees(void)
{
    rng r = rng_open(2);
    for (uint64_t round = 0; round < check_scaled(60) && !check_failed(); round++) {
        set_bench b;
        open_bench(&b);
        for (uint64_t i = 0; i < 6000; i++)
            put(&b, i, true);
        uint64_t left = 6000;
        for (unsigned step = 0; step < 12; step++) {
            uint64_t start = rng_below(&r, GAP * 6000), stop = start + rng_below(&r, 20000) + 1;
            uint64_t in = sp_set_count_range(&b.set, start, stop);
            check_case("round %d, [%d, %d)", (int)round, (int)start, (int)stop);
            assign(&b, start, stop, false);
            CHECK_VALID(sp_set_validate(&b.set));
            CHECK_EQ(sp_set_count(&b.set), left -= in);
        }
        CHECK_EQ(stats_of(&b.set).bytes, alloc_bytes(&b.alloc));
        set_bench_close(&b);
    }
}

/* By hand: a root that is a leaf grows with its runs; one that is wide, and everything. */
static void few_runs_take_few_bytes(void)
{
    set_bench b;
    open_bench(&b);
    put(&b, 0, true);
    CHECK_EQ(stats_of(&b.set).bytes, 48);
    for (uint64_t i = 1; i < 20; i++)
        put(&b, i, true);
    CHECK(stats_of(&b.set).bytes <= 32 + 24 * 8);
    CHECK_EQ(stats_of(&b.set).narrow, 1);
    assign(&b, SP_GFN_LIMIT - 1, SP_GFN_LIMIT, true);
    CHECK_EQ(stats_of(&b.set).wide, 1);
    CHECK(stats_of(&b.set).bytes <= 32 + 24 * 16);
    assign(&b, 0, SP_GFN_LIMIT, true);
    CHECK_EQ(b.set.root, SP_FULL);
    CHECK_EQ(alloc_blocks(&b.alloc), 0);
    assign(&b, 5, 6, false);
    CHECK_EQ(sp_set_nranges(b.edit.kernels, &b.set), 2);
    assign(&b, 5, 6, true);
    CHECK_EQ(b.set.root, SP_FULL);
    CHECK_EQ(alloc_blocks(&b.alloc), 0);
    set_bench_close(&b);
}

/* A change that a version cannot see is made where the nodes stand. */
static void our_nodes_change_in_place(void)
{
    set_bench b;
    open_bench(&b);
    for (uint64_t i = 0; i < 4000; i++)
        put(&b, i, true);
    b.edit.floor = b.edit.generation++;
    alloc_arm(&b.alloc, 0, 0);
    assign(&b, GAP * 1000, GAP * 1000 + 2, true);
    CHECK_EQ(sp_load(&b.alloc.calls, relaxed), b.set.height + 1);
    CHECK_EQ(b.edit.dead.count, b.set.height + 1);
    alloc_arm(&b.alloc, 1, 1);
    assign(&b, GAP * 1000, GAP * 1000 + 3, true);
    assign(&b, GAP * 1000, GAP * 1000 + 3, true);
    assign(&b, 5 * GAP + 3, 5 * GAP + 4, false); /* which changes nothing */
    CHECK_EQ(sp_load(&b.alloc.calls, relaxed), 0);
    set_bench_close(&b);
}

/* ---- leaves in common ---- */

static sp_pageset *comb(test_alloc *alloc, uint64_t start, uint64_t n)
{
    static sp_range ranges[6000];
    sp_pageset *made = NULL;
    size_t bad;
    for (uint64_t i = 0; i < n; i++)
        ranges[i] = (sp_range){start + GAP * i, start + GAP * i + 1};
    CHECK_EQ(sp_pageset_from_ranges(&alloc->hook, &sp_engine_interval, ranges, n, &made, &bad),
             SP_OK);
    return made;
}

/* What a result has of one operand alone it takes over; what it makes is a few inner nodes. */
static void results_take_leaves_over(void)
{
    test_alloc alloc;
    sp_pageset *both, *again;
    alloc_init(&alloc);
    sp_pageset *a = comb(&alloc, 0, 6000), *b = comb(&alloc, 1 << 20, 3000);
    sp_set_stats of_a = stats_of(sp_pageset_set(a)), of_b = stats_of(sp_pageset_set(b));
    CHECK_EQ(of_a.narrow, 100);
    alloc_arm(&alloc, 0, 0);
    CHECK_EQ(sp_pageset_combine(&alloc.hook, SP_OR, sp_pageset_set(a), sp_pageset_set(b), &both),
             SP_OK);
    CHECK_EQ(sp_load(&alloc.calls, relaxed), 1 + stats_of(sp_pageset_set(both)).inner);
    CHECK_EQ(stats_of(sp_pageset_set(both)).narrow, of_a.narrow + of_b.narrow);
    alloc_arm(&alloc, 0, 0);
    CHECK_EQ(
        sp_pageset_combine(&alloc.hook, SP_OR, sp_pageset_set(both), sp_pageset_set(both), &again),
        SP_OK);
    CHECK_EQ(sp_load(&alloc.calls, relaxed), 1);
    sp_pageset_release(a);
    sp_pageset_release(both);
    sp_pageset_release(b);
    CHECK_VALID(sp_set_validate(sp_pageset_set(again)));
    CHECK_EQ(sp_set_count(sp_pageset_set(again)), 9000);
    sp_pageset_release(again);
    CHECK_EQ(alloc_blocks(&alloc), 0);
}

/* ---- the checker ---- */

static void the_checker_names_what_is_broken(void)
{
    set_bench b;
    open_bench(&b);
    for (uint64_t i = 0; i < 200; i++)
        put(&b, i, true);
    CHECK_EQ(b.set.height, 1);
    sp_interval_inner *root = inner_of(b.set.root);
    sp_interval_leaf *leaf = leaf_of(root->child[1].ref);
    root->child[1].pages++;
    CHECK_STR(sp_set_validate(&b.set), "an inner node miscounts a leaf of runs");
    root->child[1].pages--;
    sp_narrow_runs(leaf)[1].stop++;
    CHECK_STR(sp_set_validate(&b.set), "a leaf of runs miscounts its pages");
    sp_narrow_runs(leaf)[1].stop = sp_narrow_runs(leaf)[2].start;
    CHECK_STR(sp_set_validate(&b.set), "two runs of a leaf touch or are out of order");
    sp_narrow_runs(leaf)[1].stop = sp_narrow_runs(leaf)[1].start;
    CHECK_STR(sp_set_validate(&b.set), "a run is empty or beyond 52 bits of gfn");
    sp_narrow_runs(leaf)[1].stop++;
    leaf->base--;
    CHECK_STR(sp_set_validate(&b.set), "an inner node miscounts a leaf of runs");
    leaf->base++;
    uint8_t n = leaf->n;
    leaf->n = 0;
    CHECK_STR(sp_set_validate(&b.set), "a leaf of runs has none or more than it has room for");
    leaf->n = n;
    uint64_t children = root->n;
    root->n = 1;
    CHECK_STR(sp_set_validate(&b.set), "an inner node of runs has too few children or too many");
    root->n = children;
    CHECK_VALID(sp_set_validate(&b.set));
    sp_set wrong = {&sp_engine_interval, SP_FULL, 1};
    CHECK_STR(sp_set_validate(&wrong), "a flat set of runs has a height");
    wrong.height = TALLEST + 1;
    CHECK_STR(sp_set_validate(&wrong), "a set of runs is higher than 52 bits of gfn");
    set_bench_close(&b);
}

int main(void)
{
    RUN(trees_rise_and_fall);
    RUN(wide_ranges_take_subtrees);
    RUN(few_runs_take_few_bytes);
    RUN(our_nodes_change_in_place);
    RUN(results_take_leaves_over);
    RUN(the_checker_names_what_is_broken);
    return check_close();
}
