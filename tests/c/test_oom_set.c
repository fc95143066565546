/* tier: failure */
/*
 * Sets when memory is short: for every operation the n-th allocation fails, for all n until it
 * succeeds, once and from then on.  And edits above a floor: what was published reads the same
 * whatever is done, and the deadlist is what the old tree has and the new one has not.
 */
#include <stdlib.h>

#include "base/bits.h"
#include "leaf/leaf.h"
#include "set/pageset.h"
#include "support_set.h"

enum { WIDTH = 9000 };

static sp_range windows[BORDER_WINDOWS];

/* A set with leaves of every kind at the borders of every level. */
static void open_rich(set_bench *b, rng *r)
{
    border_windows(WIDTH, windows);
    set_bench_open(b, windows, BORDER_WINDOWS);
    set_bench_fill(b, r, 12);
    for (unsigned w = 0; w < BORDER_WINDOWS; w++) {
        uint64_t step = rng_between(r, 2, 60), long_run = rng_below(r, 2) * (step - 2) + 1;
        if (rng_chance(r, 2))
            for (uint64_t at = windows[w].start; at + step < windows[w].stop; at += step)
                set_bench_assign(b, at, at + rng_between(r, 1, long_run), true);
    }
}

/* What one edge of a range may take more after a failure at its other edge: a small leaf that was
 * made ready and cannot be made small again without memory. */
#define EDGE_BYTES (16 * 528 + 192 + 64)

static void check_kept(const set_bench *b, const sp_set_stats *was, bool one_leaf)
{
    sp_set_stats now;
    set_bench_matches(b);
    sp_set_measure(&b->set, &now);
    CHECK_EQ(now.pages, was->pages);
    CHECK_EQ(now.inner, was->inner);
    CHECK_EQ(now.packed, was->packed);
    CHECK_EQ(now.arrays + now.runs + now.bitmaps, was->arrays + was->runs + was->bitmaps);
    CHECK_EQ(now.narrow + now.wide, was->narrow + was->wide);
    CHECK(now.bytes <= was->bytes + EDGE_BYTES);
    if (one_leaf) /* which may be of another kind since, if that is smaller */
        CHECK(now.bytes <= was->bytes);
}

static void an_assign_fails_everywhere(set_bench *b, sp_range range, bool value, bool onwards)
{
    sp_set_stats was;
    bool one_leaf = range.start >> 16 == (range.stop - 1) >> 16;
    sp_set_measure(&b->set, &was);
    for (uint64_t n = 1; !check_failed(); n++) {
        check_case("[%#llx, %#llx) to %d, allocation %d%s", (unsigned long long)range.start,
                   (unsigned long long)range.stop, value, (int)n, onwards ? " and on" : "");
        alloc_arm(&b->alloc, n, onwards);
        sp_status status = sp_set_assign(&b->edit, &b->set, range.start, range.stop, value);
        uint64_t refused = alloc_failed(&b->alloc);
        alloc_arm(&b->alloc, 0, 0);
        if (!status) {
            model_assign(&b->model, range.start, range.stop, value);
            set_bench_matches(b);
            return;
        }
        CHECK_EQ(status, SP_NOMEM);
        CHECK(refused > 0);
        check_kept(b, &was, one_leaf);
    }
}

static void assigns_fail_at_every_allocation(void)
{
    rng r = rng_open(1);
    for (uint64_t step = 0; step < check_scaled(400) && !check_failed(); step++) {
        set_bench b;
        open_rich(&b, &r);
        sp_range range = random_range(&b.model, &r);
        an_assign_fails_everywhere(&b, range, rng_chance(&r, 2), rng_chance(&r, 2));
        set_bench_close(&b);
    }
}

static void random_words(rng *r, uint64_t words[SP_LEAF_WORDS])
{
    unsigned sparse = (unsigned)rng_below(r, 6);
    for (unsigned i = 0; i < SP_LEAF_WORDS; i++)
        words[i] = sparse && rng_below(r, 6) < sparse ? 0 : rng_next(r);
}

static void words_fail_at_every_allocation(void)
{
    static uint64_t words[SP_LEAF_WORDS];
    sp_range leaves[] = {{0, 131072}, {UINT64_C(1) << 34, (UINT64_C(1) << 34) + 65536}};
    rng r = rng_open(2);
    for (uint64_t step = 0; step < check_scaled(40) && !check_failed(); step++) {
        set_bench b;
        sp_set_stats was;
        set_bench_open(&b, leaves, 2);
        set_bench_fill(&b, &r, (unsigned)rng_below(&r, 12));
        if (rng_chance(&r, 3))
            set_bench_assign(&b, 0, SP_GFN_LIMIT, true);
        uint64_t base = rng_chance(&r, 2) ? leaves[1].start : 65536 * rng_below(&r, 2);
        random_words(&r, words);
        sp_set_measure(&b.set, &was);
        sp_status status = SP_NOMEM;
        for (uint64_t n = 1; status && !check_failed(); n++) {
            check_case("step %d, base %#llx, allocation %d", (int)step, (unsigned long long)base,
                       (int)n);
            alloc_arm(&b.alloc, n, step & 1);
            status = sp_set_put_words(&b.edit, &b.set, base, words);
            alloc_arm(&b.alloc, 0, 0);
            if (!status)
                model_put_words(&b.model, base, words);
            if (status)
                check_kept(&b, &was, true);
            else
                set_bench_matches(&b);
        }
        set_bench_close(&b);
    }
}

static void combines_fail_at_every_allocation(void)
{
    rng r = rng_open(3);
    for (uint64_t step = 0; step < check_scaled(24) && !check_failed(); step++) {
        set_bench a, b, out;
        sp_op op = (sp_op)(step & 3);
        open_rich(&a, &r);
        open_rich(&b, &r);
        set_bench_open(&out, windows, BORDER_WINDOWS);
        model_combine(&out.model, op, &a.model, &b.model);
        sp_status status = SP_NOMEM;
        for (uint64_t n = 1; status && !check_failed(); n++) {
            check_case("pair %d, op %d, allocation %d", (int)step, (int)op, (int)n);
            alloc_arm(&out.alloc, n, step >> 2 & 1);
            status = sp_set_combine(&out.edit, op, &a.set, &b.set, &out.set);
            alloc_arm(&out.alloc, 0, 0);
            if (status) {
                CHECK_EQ(status, SP_NOMEM);
                CHECK(out.set.root == SP_EMPTY && out.set.height == 0);
                CHECK_EQ(alloc_blocks(&out.alloc), 0);
            }
        }
        set_bench_matches(&out);
        set_bench_matches(&a);
        set_bench_matches(&b);
        set_bench_close(&a);
        set_bench_close(&b);
        set_bench_close(&out);
    }
}

/* ---- sorted ranges ---- */

/* Ranges over two leaves and their border: runs enough for every kind of leaf, and single ones. */
static size_t many_ranges(rng *r, uint64_t start, sp_range *ranges, size_t room)
{
    uint64_t step = rng_between(r, 2, 40), far = rng_chance(r, 2) ? 70000 : 3000;
    size_t n = 0;
    for (uint64_t at = start; n < room && at < start + far; n++, at += rng_below(r, step))
        ranges[n] = (sp_range){at, at + rng_between(r, 1, rng_chance(r, 30) ? 900 : 3)};
    return n;
}

/* Some of the ranges may be in, whole or in part; and nothing that is in none of them. */
static void check_partly_in(const set_bench *b, const set_bench *whole)
{
    const sp_kernels *k = sp_kernels_active();
    sp_set_stats stats;
    size_t n;
    sp_range *was = model_ranges(&b->model, 0, SP_GFN_LIMIT, &n);
    CHECK_VALID(sp_set_validate(&b->set));
    for (size_t i = 0; i < n; i++)
        CHECK_EQ(sp_set_count_range(&b->set, was[i].start, was[i].stop),
                 was[i].stop - was[i].start);
    free(was);
    CHECK_EQ(sp_set_intersection(k, &b->set, &whole->set), sp_set_count(&b->set));
    sp_set_measure(&b->set, &stats);
    CHECK_EQ(stats.nodes, alloc_blocks(&b->alloc));
    CHECK_EQ(stats.bytes, alloc_bytes(&b->alloc));
}

static void sorted_ranges_fail_at_every_allocation(void)
{
    static sp_range ranges[3000];
    sp_range leaves[] = {{0, 200000}, {UINT64_C(1) << 34, (UINT64_C(1) << 34) + 131072}};
    rng r = rng_open(7);
    for (uint64_t step = 0; step < check_scaled(40) && !check_failed(); step++) {
        set_bench b, whole;
        rng same = r;
        set_bench_open(&b, leaves, 2);
        set_bench_open(&whole, leaves, 2);
        set_bench_fill(&whole, &same, 6);
        set_bench_fill(&b, &r, 6);
        uint64_t start = leaves[step % 3 == 0].start + rng_below(&r, 60000);
        size_t n = many_ranges(&r, start, ranges, 3000);
        for (size_t i = 0; i < n; i++)
            set_bench_assign(&whole, ranges[i].start, ranges[i].stop, true);
        sp_status status = SP_NOMEM;
        for (uint64_t at = 1; status && !check_failed(); at++) {
            check_case("step %d, %zu ranges, allocation %d", (int)step, n, (int)at);
            alloc_arm(&b.alloc, at, step & 1);
            status = sp_set_add_sorted(&b.edit, &b.set, ranges, n);
            CHECK_EQ(status, alloc_failed(&b.alloc) ? SP_NOMEM : SP_OK);
            alloc_arm(&b.alloc, 0, 0);
            check_partly_in(&b, &whole);
        }
        model_matches(&whole.model, &b.set);
        set_bench_close(&whole);
        set_bench_close(&b);
    }
}

/* ---- constructors of page sets ---- */

typedef struct input {
    sp_range ranges[8];
    uint64_t gfns[300];
    uint8_t bitmap[20000];
    const set_bench *a, *b;
} input;

static sp_status construct(unsigned which, const input *in, const sp_allocator *hook,
                           sp_pageset **out)
{
    const sp_engine *engine = test_engine;
    size_t bad;
    switch (which) {
    case 0: return sp_pageset_new(hook, engine, out);
    case 1: return sp_pageset_from_ranges(hook, engine, in->ranges, 8, out, &bad);
    case 2: return sp_pageset_from_pages(hook, engine, in->gfns, 300, out, &bad);
    case 3: return sp_pageset_from_bitmap(hook, engine, in->bitmap, 50000, 160000, out);
    default: return sp_pageset_combine(hook, (sp_op)(which - 4), &in->a->set, &in->b->set, out);
    }
}

static void a_constructor_fails_everywhere(unsigned which, const input *in, bool onwards)
{
    test_alloc alloc;
    sp_pageset *plain, *made = NULL;
    alloc_init(&alloc);
    REQUIRE_EQ(construct(which, in, NULL, &plain), SP_OK);
    for (uint64_t n = 1; !made && !check_failed(); n++) {
        check_case("constructor %u, allocation %d%s", which, (int)n, onwards ? " and on" : "");
        alloc_arm(&alloc, n, onwards);
        sp_status status = construct(which, in, &alloc.hook, &made);
        CHECK_EQ(status, made ? SP_OK : SP_NOMEM);
        CHECK(made || alloc_blocks(&alloc) == 0);
    }
    const sp_set *got = sp_pageset_set(made), *want = sp_pageset_set(plain);
    CHECK_VALID(sp_set_validate(got));
    CHECK_EQ(sp_set_count(got), sp_set_count(want));
    CHECK_EQ(sp_set_intersection(sp_kernels_active(), got, want), sp_set_count(want));
    sp_pageset_release(made);
    sp_pageset_release(plain);
    CHECK_EQ(alloc_blocks(&alloc), 0);
}

static void constructors_fail_at_every_allocation(void)
{
    static input in;
    set_bench a, b;
    rng r = rng_open(4);
    open_rich(&a, &r);
    open_rich(&b, &r);
    in.a = &a;
    in.b = &b;
    for (unsigned i = 0; i < 8; i++)
        in.ranges[i] = random_range(&a.model, &r);
    for (unsigned i = 0; i < 300; i++)
        in.gfns[i] = sp_min(model_border(&a.model, &r), SP_GFN_LIMIT - 1);
    for (unsigned i = 0; i < sizeof in.bitmap; i++)
        in.bitmap[i] = (uint8_t)(i < 9000 ? rng_next(&r) : i < 15000 ? 0 : 0xff);
    for (unsigned which = 0; which < 8; which++)
        for (unsigned onwards = 0; onwards < 2; onwards++)
            a_constructor_fails_everywhere(which, &in, onwards);
    set_bench_close(&a);
    set_bench_close(&b);
}

/* ---- above a floor ---- */

typedef struct node_list {
    sp_node **node;
    size_t n, room;
} node_list;

static void note(void *context, sp_node *node)
{
    node_list *list = context;
    if (list->n == list->room) {
        list->room = 2 * list->room + 64;
        list->node = realloc(list->node, list->room * sizeof *list->node);
    }
    list->node[list->n++] = node;
}

static int by_address(const void *a, const void *b)
{
    uintptr_t x = (uintptr_t)*(sp_node *const *)a, y = (uintptr_t)*(sp_node *const *)b;
    return (x > y) - (x < y);
}

static node_list nodes_of(const sp_set *set, uint64_t floor)
{
    node_list list = {0};
    sp_set_walk(set, floor, note, &list);
    if (list.n)
        qsort(list.node, list.n, sizeof *list.node, by_address);
    return list;
}

static bool has(const node_list *list, sp_node *node)
{
    return list->n && bsearch(&node, list->node, list->n, sizeof node, by_address);
}

/* The old tree reads as before; what is dead is what it has and the new one has not; what is alive
 * is the union of both; the young nodes are those of the new tree alone. */
static void check_versions(const set_bench *b, const sp_set *published, const model *was)
{
    node_list old = nodes_of(published, 0), now = nodes_of(&b->set, 0);
    node_list young = nodes_of(&b->set, b->edit.floor);
    size_t gone = 0, dead = 0;
    model_matches(was, published);
    model_matches(&b->model, &b->set);
    for (size_t i = 0; i < old.n; i++) {
        gone += !has(&now, old.node[i]);
        CHECK(sp_node_birth(old.node[i]) <= b->edit.floor);
    }
    for (sp_node *node = b->edit.dead.head; node; node = node->dead_link, dead++)
        CHECK(has(&old, node) && !has(&now, node));
    CHECK_EQ(dead, gone);
    CHECK_EQ(b->edit.dead.count, gone);
    for (size_t i = 0; i < now.n; i++)
        CHECK(has(&old, now.node[i]) != has(&young, now.node[i]));
    CHECK_EQ(alloc_blocks(&b->alloc), old.n + young.n);
    free(old.node);
    free(now.node);
    free(young.node);
}

/* One edit, perhaps with short memory; the model follows if it succeeded. */
static void edit_somehow(set_bench *b, rng *r, unsigned n)
{
    sp_range range = random_range(&b->model, r);
    bool value = rng_chance(r, 2);
    check_case("[%#llx, %#llx) to %d, allocation %u", (unsigned long long)range.start,
               (unsigned long long)range.stop, value, n);
    alloc_arm(&b->alloc, n, rng_chance(r, 2));
    sp_status status = sp_set_assign(&b->edit, &b->set, range.start, range.stop, value);
    alloc_arm(&b->alloc, 0, 0);
    CHECK(status == SP_OK || (status == SP_NOMEM && n));
    if (!status)
        model_assign(&b->model, range.start, range.stop, value);
}

static void what_is_published_stays(void)
{
    rng r = rng_open(5);
    for (uint64_t step = 0; step < check_scaled(150) && !check_failed(); step++) {
        set_bench b;
        model was;
        open_rich(&b, &r);
        for (unsigned version = 0; version < 3; version++) {
            b.edit.floor = b.edit.generation++;
            sp_set published = b.set;
            model_copy(&was, &b.model);
            for (unsigned edits = 1 + (unsigned)rng_below(&r, 5); edits--;) {
                edit_somehow(&b, &r, rng_chance(&r, 3) ? 1 + (unsigned)rng_below(&r, 12) : 0);
                check_versions(&b, &published, &was);
            }
            for (sp_node *node; (node = sp_deadlist_pop(&b.edit.dead));)
                sp_node_free(&b.mem, node);
            model_clear(&was);
        }
        set_bench_close(&b);
    }
}

static void words_leave_what_is_published(void)
{
    static uint64_t words[SP_LEAF_WORDS];
    sp_range leaves[] = {{0, 131072}, {UINT64_C(1) << 34, (UINT64_C(1) << 34) + 65536}};
    rng r = rng_open(6);
    for (uint64_t step = 0; step < check_scaled(30) && !check_failed(); step++) {
        set_bench b;
        model was;
        set_bench_open(&b, leaves, 2);
        set_bench_fill(&b, &r, (unsigned)rng_below(&r, 20));
        b.edit.floor = b.edit.generation++;
        sp_set published = b.set;
        model_copy(&was, &b.model);
        for (unsigned n = 0; n < 4; n++) {
            uint64_t base = rng_chance(&r, 2) ? leaves[1].start : 65536 * rng_below(&r, 2);
            random_words(&r, words);
            alloc_arm(&b.alloc, n, 0);
            if (sp_set_put_words(&b.edit, &b.set, base, words) == SP_OK)
                model_put_words(&b.model, base, words);
            alloc_arm(&b.alloc, 0, 0);
            check_versions(&b, &published, &was);
        }
        model_clear(&was);
        set_bench_close(&b);
    }
}

int main(void)
{
    RUN_ENGINES(assigns_fail_at_every_allocation);
    RUN_ENGINES(words_fail_at_every_allocation);
    RUN_ENGINES(combines_fail_at_every_allocation);
    RUN_ENGINES(sorted_ranges_fail_at_every_allocation);
    RUN_ENGINES(constructors_fail_at_every_allocation);
    RUN_ENGINES(what_is_published_stays);
    RUN_ENGINES(words_leave_what_is_published);
    return check_close();
}
