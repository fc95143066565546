/* tier: model */
/*
 * Page sets that hold nodes in common, against models: a pool of sets that are combined and
 * released at random; what results share, by hand; allocations that fail.
 *
 * A census of the pool says that each node has just the holders that name it, and that nothing is
 * live that no set reaches.
 */
#include <stdlib.h>
#include <string.h>

#include "base/bits.h"
#include "set/pageset.h"
#include "set/radix.h"
#include "support_census.h"
#include "support_set.h"

enum { POOL = 10, WIDTH = 9000, WINDOWS = 5 };

/* Sets that end in window i have height 0, 1, 2, 5 or 6. */
static const sp_range windows[WINDOWS] = {
    {0, WIDTH},
    {65536 - WIDTH / 2, 65536 + WIDTH / 2},
    {(1 << 22) - WIDTH / 2, (1 << 22) + WIDTH / 2},
    {(UINT64_C(1) << 40) - WIDTH / 2, (UINT64_C(1) << 40) + WIDTH / 2},
    {SP_GFN_LIMIT - WIDTH, SP_GFN_LIMIT}};

/* A page set, or the set of a plain edit, as a snapshot has it. */
typedef struct member {
    sp_pageset *pages;
    sp_set plain;
    model model;
} member;

typedef struct pool {
    test_alloc alloc;
    sp_mem mem;
    sp_edit edit; /* of the plain sets */
    member member[POOL];
    unsigned n;
} pool;

static void pool_open(pool *p)
{
    alloc_init(&p->alloc);
    sp_mem_init(&p->mem, &p->alloc.hook);
    p->edit = sp_edit_private(&p->mem, sp_kernels_active());
    p->n = 0;
}

static const sp_set *set_of(const member *m)
{
    return m->pages ? sp_pageset_set(m->pages) : &m->plain;
}

static void pool_release(pool *p, unsigned i)
{
    member *gone = &p->member[i];
    model_matches(&gone->model, set_of(gone));
    if (gone->pages)
        sp_pageset_release(gone->pages);
    else
        sp_set_retire(&p->edit, &gone->plain);
    model_clear(&gone->model);
    *gone = p->member[--p->n];
}

static void pool_close(pool *p, rng *r)
{
    while (p->n)
        pool_release(p, (unsigned)rng_below(r, p->n));
    CHECK_EQ(alloc_blocks(&p->alloc), 0);
    CHECK_EQ(alloc_bytes(&p->alloc), 0);
}

/* Every node has its holders, and what is live is reached. */
static void check_holders(const pool *p)
{
    const sp_set *sets[POOL];
    uint64_t headers = 0;
    for (unsigned i = 0; i < p->n; i++) {
        sets[i] = set_of(&p->member[i]);
        headers += p->member[i].pages != NULL;
    }
    CHECK_EQ(census(sets, p->n) + headers, alloc_blocks(&p->alloc));
}

/* ---- random sets ---- */

/* A window full of short runs of one length, in one period: leaves of every kind. */
static void paint_comb(rng *r, model *m, sp_range window)
{
    static const uint64_t lengths[] = {1, 1, 2, 2, 3, 30};
    uint64_t length = lengths[rng_below(r, 6)], period = length + rng_between(r, 1, 40);
    if (rng_chance(r, 2))
        period = 2 * length;
    for (uint64_t at = window.start; at + length < window.stop; at += period)
        model_assign(m, at, at + length, true);
}

/* Pages in some of the first windows, and between them. */
static void paint(rng *r, model *m)
{
    unsigned reach = 1 + (unsigned)rng_below(r, WINDOWS);
    for (unsigned w = 0; w < reach; w++) {
        uint64_t texture = rng_below(r, 4);
        uint64_t start = rng_between(r, windows[w].start, windows[w].stop - 1);
        if (texture == 1)
            model_assign(m, start, windows[w].stop, true);
        else if (texture == 2)
            paint_comb(r, m, windows[w]);
        else if (texture == 3)
            paint_comb(r, m, (sp_range){start, windows[w].stop});
        if (w && rng_chance(r, 5))
            model_assign(m, windows[w - 1].stop, windows[w].start, true);
    }
}

static void build(pool *p, member *made, bool plain)
{
    size_t n, bad;
    sp_range *ranges = model_ranges(&made->model, 0, SP_GFN_LIMIT, &n);
    made->pages = NULL;
    made->plain = sp_set_empty(test_engine);
    if (plain)
        CHECK_EQ(sp_set_add_sorted(&p->edit, &made->plain, ranges, n), SP_OK);
    else
        CHECK_EQ(sp_pageset_from_ranges(&p->alloc.hook, test_engine, ranges, n, &made->pages, &bad),
                 SP_OK);
    free(ranges);
}

/* Edits leave blocks as nothing else does: bitmaps that would be built as something smaller. */
static void edit_plain(pool *p, rng *r, member *m)
{
    for (unsigned edits = (unsigned)rng_below(r, 20); edits--;) {
        sp_range range = random_range(&m->model, r);
        bool value = rng_chance(r, 2);
        CHECK_EQ(sp_set_assign(&p->edit, &m->plain, range.start, range.stop, value), SP_OK);
        model_assign(&m->model, range.start, range.stop, value);
    }
}

static void pool_add(pool *p, rng *r)
{
    member *made = &p->member[p->n++];
    bool plain = rng_chance(r, 3);
    model_init(&made->model, windows, WINDOWS);
    paint(r, &made->model);
    build(p, made, plain);
    if (plain)
        edit_plain(p, r, made);
}

static void pool_combine(pool *p, rng *r)
{
    sp_op op = (sp_op)rng_below(r, 4);
    const member *a = &p->member[rng_below(r, p->n)], *b = &p->member[rng_below(r, p->n)];
    member *made = &p->member[p->n];
    made->pages = NULL;
    check_case("op %d of members %d and %d", (int)op, (int)(a - p->member), (int)(b - p->member));
    REQUIRE_EQ(sp_pageset_combine(&p->alloc.hook, op, set_of(a), set_of(b), &made->pages), SP_OK);
    p->n++;
    model_init(&made->model, windows, WINDOWS);
    model_combine(&made->model, op, &a->model, &b->model);
    model_matches(&made->model, set_of(made));
    model_matches(&a->model, set_of(a));
    model_matches(&b->model, set_of(b));
}

static void sets_come_and_go(void)
{
    pool p;
    rng r = rng_open(1);
    pool_open(&p);
    for (uint64_t step = 0; step < check_scaled(600) && !check_failed(); step++) {
        uint64_t dice = rng_below(&r, 10);
        if (p.n == POOL || (p.n && dice < 2))
            pool_release(&p, (unsigned)rng_below(&r, p.n));
        else if (p.n < 2 || dice < 4)
            pool_add(&p, &r);
        else
            pool_combine(&p, &r);
        check_holders(&p);
    }
    pool_close(&p, &r);
}

/* ---- what is shared, by hand ---- */

enum { LEAF = 65536 };

static sp_pageset *range_set(pool *p, uint64_t start, uint64_t stop)
{
    sp_range range = {start, stop};
    sp_pageset *made = NULL;
    size_t bad;
    CHECK_EQ(sp_pageset_from_ranges(&p->alloc.hook, test_engine, &range, 1, &made, &bad), SP_OK);
    return made;
}

/* Every third page of two leaves, each of them a node. */
static sp_pageset *comb_set(pool *p, uint64_t start)
{
    static uint64_t gfns[2 * LEAF / 3];
    size_t n = sizeof gfns / sizeof *gfns, bad;
    sp_pageset *made = NULL;
    for (size_t i = 0; i < n; i++)
        gfns[i] = start + 3 * i;
    CHECK_EQ(sp_pageset_from_pages(&p->alloc.hook, test_engine, gfns, n, &made, &bad), SP_OK);
    return made;
}

static sp_ref root(const sp_pageset *pages) { return sp_pageset_set(pages)->root; }

static sp_ref child(const sp_pageset *pages, unsigned i) { return as_inner(root(pages))->child[i]; }

static uint64_t holders(sp_ref ref) { return sp_load(&sp_ref_node(ref)->holders, relaxed); }

/* The result, and a check of how many allocations it took. */
static sp_pageset *combined(pool *p, sp_op op, const sp_pageset *a, const sp_pageset *b,
                            uint64_t allocations)
{
    sp_pageset *made = NULL;
    alloc_arm(&p->alloc, 0, 0);
    CHECK_EQ(sp_pageset_combine(&p->alloc.hook, op, sp_pageset_set(a), sp_pageset_set(b), &made),
             SP_OK);
    CHECK_EQ(sp_load(&p->alloc.calls, relaxed), allocations);
    CHECK_VALID(sp_set_validate(sp_pageset_set(made)));
    return made;
}

enum { COMB, NONE, ALL, SIDES }; /* operands */

static void a_side_that_is_flat_or_the_same_costs_a_header(void)
{
    static const struct {
        sp_op op;
        unsigned a, b;
        bool is_comb; /* else it is empty */
    } cases[] = {{SP_OR, COMB, NONE, true},      {SP_OR, NONE, COMB, true},
                 {SP_XOR, COMB, NONE, true},     {SP_XOR, NONE, COMB, true},
                 {SP_ANDNOT, COMB, NONE, true},  {SP_OR, COMB, COMB, true},
                 {SP_AND, COMB, COMB, true},     {SP_AND, COMB, ALL, true},
                 {SP_AND, ALL, COMB, true},      {SP_AND, COMB, NONE, false},
                 {SP_AND, NONE, COMB, false},    {SP_ANDNOT, NONE, COMB, false},
                 {SP_ANDNOT, COMB, COMB, false}, {SP_XOR, COMB, COMB, false},
                 {SP_ANDNOT, COMB, ALL, false}};
    enum { CASES = sizeof cases / sizeof *cases };
    pool p;
    pool_open(&p);
    sp_pageset *side[SIDES] = {comb_set(&p, 0), range_set(&p, 7, 7),
                               range_set(&p, 0, SP_GFN_LIMIT)};
    sp_pageset *result[CASES];
    sp_ref comb = root(side[COMB]);
    uint64_t held = 1;
    for (unsigned i = 0; i < CASES; i++) {
        check_case("case %u", i);
        result[i] = combined(&p, cases[i].op, side[cases[i].a], side[cases[i].b], 1);
        held += cases[i].is_comb;
        CHECK_EQ(root(result[i]), cases[i].is_comb ? comb : SP_EMPTY);
        CHECK_EQ(sp_pageset_set(result[i])->height, cases[i].is_comb ? 1 : 0);
        CHECK_EQ(holders(comb), held);
    }
    for (unsigned i = 0; i < SIDES; i++)
        sp_pageset_release(side[i]);
    CHECK_EQ(holders(comb), held - 1);
    for (unsigned i = 0; i < CASES; i++) {
        CHECK_EQ(sp_set_count(sp_pageset_set(result[i])), cases[i].is_comb ? 43690 : 0);
        sp_pageset_release(result[i]);
    }
    pool_close(&p, NULL);
}

static void a_result_takes_the_leaves_of_both(void)
{
    pool p;
    pool_open(&p);
    sp_pageset *a = comb_set(&p, 0), *b = comb_set(&p, 3 * LEAF);
    sp_pageset *both = combined(&p, SP_OR, a, b, 2);
    CHECK(child(both, 0) == child(a, 0) && child(both, 1) == child(a, 1));
    CHECK(child(both, 3) == child(b, 3) && child(both, 4) == child(b, 4));
    CHECK(child(both, 2) == SP_EMPTY && holders(child(a, 1)) == 2);
    sp_pageset *again = combined(&p, SP_OR, both, a, 1), *part = combined(&p, SP_AND, both, b, 1);
    CHECK(root(again) == root(both) && root(part) == root(b));
    sp_pageset *rest = combined(&p, SP_ANDNOT, both, b, 2);
    CHECK(root(rest) != root(a) && child(rest, 1) == child(a, 1));
    CHECK_EQ(holders(child(a, 1)), 3);
    sp_pageset_release(a);
    sp_pageset_release(both);
    sp_pageset_release(b);
    CHECK_EQ(holders(child(rest, 1)), 2);
    CHECK_EQ(sp_set_count(sp_pageset_set(again)), 2 * 43690);
    sp_pageset_release(again);
    CHECK_EQ(holders(child(rest, 1)), 1);
    CHECK_EQ(sp_set_count(sp_pageset_set(rest)), 43690);
    CHECK_EQ(sp_set_count(sp_pageset_set(part)), 43690);
    sp_pageset_release(rest);
    sp_pageset_release(part);
    pool_close(&p, NULL);
}

/* Members far away come, which takes five nodes above the low set's root, and go. */
static void a_set_sinks_to_a_root_that_others_hold(void)
{
    pool p;
    pool_open(&p);
    sp_pageset *low = comb_set(&p, 0), *far = range_set(&p, SP_GFN_LIMIT - 5, SP_GFN_LIMIT);
    sp_pageset *near = range_set(&p, 0, UINT64_C(1) << 40);
    sp_pageset *both = combined(&p, SP_OR, low, far, 6);
    sp_ref comb = root(low);
    CHECK_EQ(sp_pageset_set(both)->height, 6);
    CHECK_EQ(holders(comb), 2);
    uint64_t blocks = alloc_blocks(&p.alloc);
    sp_pageset *rest = combined(&p, SP_ANDNOT, both, far, 2);
    sp_pageset *part = combined(&p, SP_AND, both, near, 1);
    CHECK_EQ(alloc_blocks(&p.alloc), blocks + 2);
    CHECK(root(rest) == comb && sp_pageset_set(rest)->height == 1);
    CHECK(root(part) == comb && sp_pageset_set(part)->height == 1);
    CHECK_EQ(holders(comb), 4);
    sp_pageset_release(both);
    sp_pageset_release(far);
    sp_pageset_release(near);
    sp_pageset_release(low);
    CHECK_EQ(holders(comb), 2);
    sp_pageset_release(rest);
    CHECK_EQ(sp_set_count(sp_pageset_set(part)), 43690);
    sp_pageset_release(part);
    pool_close(&p, NULL);
}

/* ---- failure ---- */

/* Fails at every allocation; whatever was held or made by then is given back. */
static void combine_fails_everywhere(pool *p, sp_op op, const member *a, const member *b,
                                     bool onwards)
{
    sp_pageset *made = NULL;
    uint64_t blocks = alloc_blocks(&p->alloc), bytes = alloc_bytes(&p->alloc);
    for (uint64_t n = 1; !made && !check_failed(); n++) {
        check_case("op %d, allocation %d%s", (int)op, (int)n, onwards ? " and on" : "");
        alloc_arm(&p->alloc, n, onwards);
        sp_status status = sp_pageset_combine(&p->alloc.hook, op, set_of(a), set_of(b), &made);
        CHECK_EQ(status, alloc_failed(&p->alloc) ? SP_NOMEM : SP_OK);
        CHECK_EQ(status, made ? SP_OK : SP_NOMEM);
        alloc_arm(&p->alloc, 0, 0);
        sp_pageset_release(made);
        CHECK_EQ(alloc_blocks(&p->alloc), blocks);
        CHECK_EQ(alloc_bytes(&p->alloc), bytes);
        check_holders(p);
    }
}

static void combines_fail_at_every_allocation(void)
{
    pool p;
    rng r = rng_open(2);
    pool_open(&p);
    for (uint64_t step = 0; step < check_scaled(60) && !check_failed(); step++) {
        while (p.n < 3)
            pool_add(&p, &r);
        while (p.n < 6 && !check_failed())
            pool_combine(&p, &r);
        const member *a = &p.member[rng_below(&r, p.n)], *b = &p.member[rng_below(&r, p.n)];
        combine_fails_everywhere(&p, (sp_op)(step & 3), a, b, step >> 2 & 1);
        for (unsigned gone = 0; gone < 3; gone++)
            pool_release(&p, (unsigned)rng_below(&r, p.n));
    }
    pool_close(&p, &r);
}

int main(void)
{
    RUN_ENGINES(sets_come_and_go);
    RUN(a_side_that_is_flat_or_the_same_costs_a_header);
    RUN(a_result_takes_the_leaves_of_both);
    RUN(a_set_sinks_to_a_root_that_others_hold);
    RUN_ENGINES(combines_fail_at_every_allocation);
    return check_close();
}
