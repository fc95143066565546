/* tier: model */
/*
 * The two engines against each other: the same changes to a set of each, published now and then,
 * and after every change the same questions.  With SP_TEST_SCALE=25 it is a million changes.
 */
#include <stdlib.h>
#include <string.h>

#include "base/bits.h"
#include "leaf/leaf.h"
#include "set/pageset.h"
#include "support_alloc.h"
#include "support_engine.h"

enum { ENGINES = 2, PLACES = 5, STEPS = 40000 };

/* Where pages are changed: narrow leaves, wide ones, and the ends of what there is. */
static const uint64_t places[PLACES] = {0, 1 << 20, UINT64_C(1) << 32, UINT64_C(5) << 40,
                                        SP_GFN_LIMIT - (1 << 20)};

/* A set of one engine under edit, and the one last published. */
typedef struct fighter {
    test_alloc alloc;
    sp_mem mem;
    sp_edit edit;
    sp_set set, published, other;
} fighter;

typedef struct duel {
    fighter f[ENGINES];
    rng r;
} duel;

static void open_fighter(fighter *f, const sp_engine *engine)
{
    alloc_init(&f->alloc);
    sp_mem_init(&f->mem, &f->alloc.hook);
    f->edit = sp_edit_private(&f->mem, sp_kernels_active());
    f->set = f->published = f->other = sp_set_empty(engine);
}

static void free_dead(fighter *f)
{
    for (sp_node *node; (node = sp_deadlist_pop(&f->edit.dead));)
        sp_node_free(&f->mem, node);
}

static void close_fighter(fighter *f)
{
    f->edit.floor = 0;
    free_dead(f);
    sp_set_retire(&f->edit, &f->set);
    sp_set_retire(&f->edit, &f->other);
    CHECK_EQ(alloc_blocks(&f->alloc), 0);
}

/* ---- asking ---- */

static void list_the_same(const sp_set *a, const sp_set *b, uint64_t start, uint64_t stop)
{
    enum { ROOM = 300 };
    const sp_kernels *k = sp_kernels_active();
    sp_cursor one = sp_cursor_open(a, start, stop), two = sp_cursor_open(b, start, stop);
    sp_range got[ROOM], want[ROOM];
    for (size_t n = 1; n && !check_failed();) {
        n = sp_cursor_ranges(k, &one, got, ROOM);
        REQUIRE_EQ(sp_cursor_ranges(k, &two, want, ROOM), n);
        CHECK(memcmp(got, want, n * sizeof *got) == 0);
    }
}

static void are_the_same(const sp_set *a, const sp_set *b)
{
    const sp_kernels *k = sp_kernels_active();
    CHECK_VALID(sp_set_validate(a));
    CHECK_VALID(sp_set_validate(b));
    CHECK_EQ(sp_set_count(a), sp_set_count(b));
    CHECK_EQ(sp_set_nranges(k, a), sp_set_nranges(k, b));
    CHECK_EQ(sp_set_intersection(k, a, b), sp_set_count(a));
    CHECK_EQ(sp_set_intersection(k, b, a), sp_set_count(a));
    list_the_same(a, b, 0, SP_GFN_LIMIT);
}

static uint64_t somewhere(rng *r)
{
    if (rng_chance(r, 12))
        return rng_below(r, SP_GFN_LIMIT);
    return sp_min(places[rng_below(r, PLACES)] + rng_below(r, 1 << 20), SP_GFN_LIMIT - 1);
}

static void answer_the_same(duel *d)
{
    const sp_set *a = &d->f[0].set, *b = &d->f[1].set;
    uint64_t gfn = somewhere(&d->r), stop = sp_min(gfn + rng_below(&d->r, 4000), SP_GFN_LIMIT);
    CHECK_EQ(sp_set_count(a), sp_set_count(b));
    CHECK_EQ(sp_set_contains(a, gfn), sp_set_contains(b, gfn));
    CHECK_EQ(sp_set_rank(a, gfn), sp_set_rank(b, gfn));
    CHECK_EQ(sp_set_count_range(a, gfn, stop), sp_set_count_range(b, gfn, stop));
    if (sp_set_count(a)) {
        uint64_t i = rng_below(&d->r, sp_set_count(a));
        CHECK_EQ(sp_set_select(a, i), sp_set_select(b, i));
    }
    if (rng_chance(&d->r, 16))
        list_the_same(a, b, gfn, stop);
}

/* ---- changing ---- */

static sp_range some_range(rng *r)
{
    uint64_t start = somewhere(r), dice = rng_below(r, 20000);
    uint64_t most = dice < 19000 ? 12 : dice < 19970 ? 900 : dice < 19998 ? 1 << 17 : SP_GFN_LIMIT;
    return (sp_range){start, sp_min(start + rng_between(r, 1, most), SP_GFN_LIMIT)};
}

/* One engine's change, some with no memory at first; the members stay if it fails. */
static void assign(fighter *f, sp_range range, bool value, uint64_t failing, bool by_turn)
{
    sp_turned turned = {.most = SP_TURNED_RANGES};
    uint64_t before = sp_set_count(&f->set);
    alloc_arm(&f->alloc, failing, 1);
    if (by_turn && sp_set_turn(&f->edit, &f->set, range.start, range.stop, value, &turned)) {
        alloc_arm(&f->alloc, 0, 0);
        CHECK_EQ(sp_set_count(&f->set), value ? before + turned.pages : before - turned.pages);
        return;
    }
    sp_status status = sp_set_assign(&f->edit, &f->set, range.start, range.stop, value);
    alloc_arm(&f->alloc, 0, 0);
    if (status) {
        CHECK_EQ(status, SP_NOMEM);
        CHECK_EQ(sp_set_count(&f->set), before);
        CHECK_EQ(sp_set_assign(&f->edit, &f->set, range.start, range.stop, value), SP_OK);
    }
}

static void change(duel *d, bool filling)
{
    sp_range range = some_range(&d->r);
    bool value = filling ? !rng_chance(&d->r, 5) : rng_chance(&d->r, 3);
    bool by_turn = rng_chance(&d->r, 2);
    uint64_t failing = rng_chance(&d->r, 20) ? rng_between(&d->r, 1, 4) : 0;
    check_case("[%#llx, %#llx) to %d", (unsigned long long)range.start,
               (unsigned long long)range.stop, value);
    for (unsigned i = 0; i < ENGINES; i++)
        assign(&d->f[i], range, value, failing, by_turn);
}

static void put_words(duel *d)
{
    static uint64_t words[SP_LEAF_WORDS];
    uint64_t base = somewhere(&d->r) & ~(uint64_t)(SP_LEAF_PAGES - 1);
    uint64_t sparse = rng_below(&d->r, 40);
    for (unsigned w = 0; w < SP_LEAF_WORDS; w++)
        words[w] = sparse && rng_below(&d->r, 40) < sparse ? 0 : rng_next(&d->r);
    check_case("words at %#llx", (unsigned long long)base);
    for (unsigned i = 0; i < ENGINES; i++)
        CHECK_EQ(sp_set_put_words(&d->f[i].edit, &d->f[i].set, base, words), SP_OK);
}

static void add_many(duel *d)
{
    static sp_range ranges[400];
    size_t n = rng_between(&d->r, 1, 400);
    uint64_t at = sp_min(somewhere(&d->r), SP_GFN_LIMIT - 400 * 100);
    for (size_t i = 0; i < n; i++, at += rng_below(&d->r, 80))
        ranges[i] = (sp_range){at, at + rng_between(&d->r, 1, 60)};
    check_case("%zu ranges from %#llx", n, (unsigned long long)ranges[0].start);
    for (unsigned i = 0; i < ENGINES; i++)
        CHECK_EQ(sp_set_add_sorted(&d->f[i].edit, &d->f[i].set, ranges, n), SP_OK);
}

/* What was published is read once more, and then goes. */
static void publish(duel *d)
{
    are_the_same(&d->f[0].published, &d->f[1].published);
    for (unsigned i = 0; i < ENGINES; i++) {
        fighter *f = &d->f[i];
        free_dead(f);
        f->edit.floor = f->edit.generation++;
        f->published = f->set;
    }
}

/* The set becomes a op b, and what it was the next b. */
static void combine(duel *d)
{
    sp_op op = (sp_op)rng_below(&d->r, 4);
    publish(d);
    for (unsigned i = 0; i < ENGINES; i++) {
        fighter *f = &d->f[i];
        sp_set made;
        CHECK_EQ(sp_set_combine(&f->edit, op, &f->set, &f->other, &made), SP_OK);
        sp_set_retire(&f->edit, &f->other);
        f->other = f->set;
        f->set = made;
    }
    publish(d);
    for (unsigned i = 0; i < ENGINES; i++)
        CHECK_EQ(sp_set_intersection(sp_kernels_active(), &d->f[i].set, &d->f[i].other),
                 sp_set_intersection(sp_kernels_active(), &d->f[!i].set, &d->f[i].other));
}

static void engines_agree(void)
{
    static duel d;
    d.r = rng_open(1);
    open_fighter(&d.f[0], &sp_engine_interval);
    open_fighter(&d.f[1], &sp_engine_roaring);
    uint64_t steps = check_scaled(STEPS);
    for (uint64_t step = 0; step < steps && !check_failed(); step++) {
        uint64_t dice = rng_below(&d.r, 2000);
        if (dice == 0)
            put_words(&d);
        else if (dice < 3)
            combine(&d);
        else if (dice < 8)
            add_many(&d);
        else if (dice < 30)
            publish(&d);
        else
            change(&d, step % 20000 < 14000);
        answer_the_same(&d);
        if (step % 1000 == 999)
            are_the_same(&d.f[0].set, &d.f[1].set);
    }
    publish(&d);
    close_fighter(&d.f[0]);
    close_fighter(&d.f[1]);
}

/* ---- sets of both that meet ---- */

/* Sets of two engines, in either order, give what two of one engine do. */
static void meet(fighter *f, const sp_set *runs, const sp_set *bits, const sp_set *more_runs,
                 const sp_set *more_bits)
{
    for (unsigned op = SP_OR; op <= SP_XOR; op++) {
        sp_set want, got, other;
        check_case("op %u", op);
        CHECK_EQ(sp_set_combine(&f->edit, (sp_op)op, bits, more_bits, &want), SP_OK);
        CHECK_EQ(sp_set_combine(&f->edit, (sp_op)op, runs, more_bits, &got), SP_OK);
        CHECK_EQ(sp_set_combine(&f->edit, (sp_op)op, bits, more_runs, &other), SP_OK);
        CHECK_STR(sp_set_engine_name(&got), "roaring");
        are_the_same(&got, &want);
        are_the_same(&other, &want);
        sp_set_retire(&f->edit, &want);
        sp_set_retire(&f->edit, &got);
        sp_set_retire(&f->edit, &other);
    }
    const sp_kernels *k = sp_kernels_active();
    uint64_t common = sp_set_intersection(k, bits, more_bits);
    CHECK_EQ(sp_set_intersection(k, runs, more_bits), common);
    CHECK_EQ(sp_set_intersection(k, bits, more_runs), common);
    CHECK_EQ(sp_set_intersection(k, more_runs, runs), common);
}

static void fill(fighter *f, rng *r, sp_set *set)
{
    uint64_t n = rng_below(r, 300);
    bool everything = rng_chance(r, 8);
    *set = sp_set_empty(&sp_engine_roaring);
    if (everything)
        CHECK_EQ(sp_set_assign(&f->edit, set, 0, SP_GFN_LIMIT, true), SP_OK);
    for (; n; n--) {
        sp_range range = some_range(r);
        CHECK_EQ(sp_set_assign(&f->edit, set, range.start, range.stop, !rng_chance(r, 4)), SP_OK);
    }
}

static void sets_of_two_engines_meet(void)
{
    rng r = rng_open(3);
    for (uint64_t round = 0; round < check_scaled(60) && !check_failed(); round++) {
        fighter f;
        sp_set a, b, a_runs, b_runs;
        open_fighter(&f, &sp_engine_roaring);
        fill(&f, &r, &a);
        fill(&f, &r, &b);
        CHECK_EQ(sp_set_convert(&f.edit, &a, &sp_engine_interval, &a_runs), SP_OK);
        CHECK_EQ(sp_set_convert(&f.edit, &b, &sp_engine_interval, &b_runs), SP_OK);
        meet(&f, &a_runs, &a, &b_runs, &b);
        sp_set_retire(&f.edit, &a);
        sp_set_retire(&f.edit, &b);
        sp_set_retire(&f.edit, &a_runs);
        sp_set_retire(&f.edit, &b_runs);
        close_fighter(&f);
    }
}

/* As page sets, with a failure at every allocation. */
static void page_sets_of_two_engines_meet(void)
{
    rng r = rng_open(4);
    for (uint64_t round = 0; round < check_scaled(40) && !check_failed(); round++) {
        test_alloc alloc;
        sp_range ranges[200];
        sp_pageset *side[2], *made = NULL;
        size_t bad;
        const sp_engine *engine[] = {&sp_engine_interval, &sp_engine_roaring};
        alloc_init(&alloc);
        for (unsigned i = 0; i < 2; i++) {
            for (unsigned n = 0; n < 200; n++)
                ranges[n] = some_range(&r);
            CHECK_EQ(sp_pageset_from_ranges(&alloc.hook, engine[i ^ (round & 1)], ranges, 200,
                                            &side[i], &bad),
                     SP_OK);
        }
        uint64_t blocks = alloc_blocks(&alloc);
        for (uint64_t n = 1; !made && !check_failed(); n++) {
            alloc_arm(&alloc, n, round >> 1 & 1);
            sp_status status = sp_pageset_combine(&alloc.hook, (sp_op)(round >> 2 & 3),
                                                  sp_pageset_set(side[0]), sp_pageset_set(side[1]),
                                                  &made);
            CHECK_EQ(status, made ? SP_OK : SP_NOMEM);
            CHECK(made || alloc_blocks(&alloc) == blocks);
        }
        CHECK_VALID(sp_set_validate(sp_pageset_set(made)));
        sp_pageset_release(made);
        CHECK_EQ(alloc_blocks(&alloc), blocks);
        sp_pageset_release(side[0]);
        sp_pageset_release(side[1]);
        CHECK_EQ(alloc_blocks(&alloc), 0);
    }
}

/* ---- either as the other ---- */

static void sets_convert_both_ways(void)
{
    rng r = rng_open(2);
    for (uint64_t round = 0; round < check_scaled(40) && !check_failed(); round++) {
        fighter f;
        sp_set runs, back;
        open_fighter(&f, &sp_engine_roaring);
        for (uint64_t n = rng_below(&r, 400); n--;) {
            sp_range range = some_range(&r);
            CHECK_EQ(sp_set_assign(&f.edit, &f.set, range.start, range.stop, !rng_chance(&r, 4)),
                     SP_OK);
        }
        sp_status status = SP_NOMEM;
        uint64_t blocks = alloc_blocks(&f.alloc);
        for (uint64_t n = 1; status && !check_failed(); n++) {
            alloc_arm(&f.alloc, n, round & 1);
            status = sp_set_convert(&f.edit, &f.set, &sp_engine_interval, &runs);
            CHECK(!status || alloc_blocks(&f.alloc) == blocks);
        }
        blocks = alloc_blocks(&f.alloc);
        status = SP_NOMEM;
        for (uint64_t n = 1; status && !check_failed(); n++) {
            alloc_arm(&f.alloc, n, round & 1);
            status = sp_set_convert(&f.edit, &runs, &sp_engine_roaring, &back);
            CHECK(!status || alloc_blocks(&f.alloc) == blocks);
        }
        alloc_arm(&f.alloc, 0, 0);
        are_the_same(&f.set, &runs);
        are_the_same(&back, &f.set);
        sp_set_retire(&f.edit, &runs);
        sp_set_retire(&f.edit, &back);
        close_fighter(&f);
    }
}

int main(void)
{
    RUN(engines_agree);
    RUN(sets_of_two_engines_meet);
    RUN(page_sets_of_two_engines_meet);
    RUN(sets_convert_both_ways);
    return check_close();
}
