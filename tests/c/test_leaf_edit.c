/* tier: model */
/*
 * Editing leaves of every kind, of page sets and of trackers, in place and beside a published
 * original, against a byte a page.
 */
#include <string.h>

#include "support_leaf.h"

static leaf_model model, before;

typedef struct change {
    uint32_t first, last;
    bool value;
} change;

static change random_change(rng *r)
{
    static const uint32_t sizes[] = {1, 1, 1, 2, 3, 64, 700, 4096, 4097, 9000, 40000, 65536};
    static const uint32_t steps[] = {1, 1, 64, 4096};
    uint32_t pages = (uint32_t)rng_between(r, 1, sizes[rng_below(r, 12)]);
    uint32_t step = steps[rng_below(r, 4)];
    uint32_t first = (uint32_t)rng_below(r, SP_LEAF_PAGES) / step * step;
    if (step > 1 && rng_chance(r, 2))
        pages = step;
    uint32_t last = (uint32_t)sp_min(first + pages, SP_LEAF_PAGES) - 1;
    return (change){first, last, rng_chance(r, 2)};
}

/* Prepares and commits a change to the leaf and the model. */
static bool apply(leaf_bench *bench, sp_ref *leaf, change c)
{
    int32_t delta = 0;
    for (uint32_t i = c.first; i <= c.last; i++)
        delta += c.value - model.in[i];
    if (!CHECK_EQ(sp_leaf_prepare(&bench->edit, leaf, c.first, c.last, c.value), SP_OK) ||
        !leaf_holds(*leaf, &model))
        return false;
    uint64_t calls = sp_load(&bench->alloc.calls, relaxed);
    leaf_assign(&model, c.first, c.last, c.value);
    return CHECK_EQ(sp_leaf_commit(&bench->edit, leaf, c.first, c.last, c.value), delta) &&
           CHECK(sp_load(&bench->alloc.calls, relaxed) - calls < 20) && leaf_holds(*leaf, &model) &&
           CHECK_VALID(sp_leaf_validate(*leaf));
}

static void random_edits_of(unsigned texture, bool counted, uint64_t steps)
{
    leaf_bench bench;
    rng r = rng_open(100 + texture);
    leaf_bench_open(&bench);
    leaf_bench_count(&bench, counted);
    leaf_paint(&r, texture, &model);
    sp_ref leaf = leaf_make(&bench, &model);
    for (uint64_t step = 0; step < steps && !check_failed(); step++) {
        change c = random_change(&r);
        check_case("texture %u, counted %d, step %d, [%u, %u] to %d", texture, counted, (int)step,
                   c.first, c.last, c.value);
        apply(&bench, &leaf, c);
        if (step % 16 == 0)
            leaf_matches(leaf, &model, &r);
        if (rng_chance(&r, 40)) {
            sp_leaf_retire(&bench.edit, leaf);
            leaf_paint(&r, (unsigned)rng_below(&r, LEAF_TEXTURES), &model);
            leaf = leaf_make(&bench, &model);
        }
    }
    sp_leaf_retire(&bench.edit, leaf);
    leaf_bench_close(&bench);
}

static void edits_match_the_model(void)
{
    for (unsigned t = 0; t < LEAF_TEXTURES; t++) {
        random_edits_of(t, false, check_scaled(150));
        random_edits_of(t, true, check_scaled(150));
    }
}

/* Two steps or one. */
static void edit_whole(leaf_bench *bench, sp_ref *leaf, change c, bool at_once)
{
    int32_t delta = 0;
    if (at_once) {
        CHECK_EQ(sp_leaf_assign(&bench->edit, leaf, c.first, c.last, c.value, &delta), SP_OK);
        leaf_assign(&model, c.first, c.last, c.value);
        return;
    }
    REQUIRE_EQ(sp_leaf_prepare(&bench->edit, leaf, c.first, c.last, c.value), SP_OK);
    CHECK(sp_leaf_shape(*leaf) == SP_BITMAP && !leaf_is_whole(*leaf));
    leaf_holds(*leaf, &model);
    leaf_assign(&model, c.first, c.last, c.value);
    sp_leaf_commit(&bench->edit, leaf, c.first, c.last, c.value);
}

/* Whoever else holds a whole leaf keeps it as it is: the change is made to blocks of its own. */
static void a_whole_leaf_is_opened_to_be_edited(void)
{
    leaf_bench bench;
    rng r = rng_open(10);
    leaf_bench_open(&bench);
    leaf_bench_count(&bench, true);
    for (uint64_t step = 0; step < check_scaled(200) && !check_failed(); step++) {
        static const unsigned bitmaps[] = {11, 12, 14, 15, 16};
        unsigned texture = bitmaps[rng_below(&r, 5)];
        bool held = rng_chance(&r, 2);
        change c = random_change(&r);
        leaf_paint(&r, texture, &model);
        before = model;
        sp_ref whole = leaf_make(&bench, &model), leaf = whole;
        check_case("texture %u, [%u, %u] to %d", texture, c.first, c.last, c.value);
        REQUIRE(leaf_is_whole(whole));
        if (held)
            sp_ref_hold(whole);
        edit_whole(&bench, &leaf, c, rng_chance(&r, 2));
        CHECK(!leaf_is_whole(leaf));
        leaf_matches(leaf, &model, &r);
        if (held) {
            CHECK_EQ(sp_load(&sp_ref_node(whole)->holders, relaxed), 1);
            leaf_matches(whole, &before, &r);
            sp_leaf_retire(&bench.edit, whole);
        }
        sp_leaf_retire(&bench.edit, leaf);
        CHECK_EQ(alloc_blocks(&bench.alloc), 0);
    }
    leaf_bench_close(&bench);
}

/* Page by page through every kind, up and down again. */
static void a_leaf_grows_and_shrinks_by_pages(void)
{
    leaf_bench bench;
    sp_ref leaf = SP_EMPTY;
    leaf_bench_open(&bench);
    memset(&model, 0, sizeof model);
    for (unsigned round = 0; round < 4 && !check_failed(); round++)
        for (uint32_t i = 0; i < 3000 && !check_failed(); i++) {
            uint32_t page = i * 20 + (round & 1) * 10;
            bool value = round < 2;
            check_case("round %u, page %u", round, page);
            REQUIRE_EQ(sp_leaf_prepare(&bench.edit, &leaf, page, page, value), SP_OK);
            CHECK_EQ(sp_leaf_commit(&bench.edit, &leaf, page, page, value), value ? 1 : -1);
            CHECK_VALID(sp_leaf_validate(leaf));
            model.in[page] = value;
            if (i % 100 == 0)
                leaf_holds(leaf, &model);
        }
    CHECK(leaf == SP_EMPTY);
    leaf_bench_close(&bench);
}

/* Clearing many pages at once leaves as small a kind as clearing them one by one. */
static void a_bitmap_that_thins_out_at_once_shrinks(void)
{
    leaf_bench bench;
    leaf_bench_open(&bench);
    memset(&model, 0, sizeof model);
    for (uint32_t i = 0; i < 2100; i++)
        model.in[i] = model.in[8192 + i] = i & 1;
    for (uint32_t i = 0; i < 200; i++)
        model.in[30000 + 2 * i] = 1;
    sp_ref leaf = leaf_make(&bench, &model);
    CHECK_EQ(sp_leaf_shape(leaf), SP_BITMAP);
    apply(&bench, &leaf, (change){10, 4090, false});
    apply(&bench, &leaf, (change){8200, 9000, false});
    CHECK_EQ(sp_leaf_count(leaf), 5 + 4 + 646 + 200);
    CHECK_EQ(sp_leaf_shape(leaf), SP_ARRAY);
    sp_leaf_retire(&bench.edit, leaf);
    leaf_bench_close(&bench);
}

/* An array whose pages have become one or two runs is a word again. */
static void an_array_of_few_runs_is_packed(void)
{
    leaf_bench bench;
    leaf_bench_open(&bench);
    memset(&model, 0, sizeof model);
    for (uint32_t i = 0; i < 800; i++)
        model.in[i < 400 ? 3 * i : 10000 + i] = 1;
    sp_ref leaf = leaf_make(&bench, &model);
    CHECK_EQ(sp_leaf_shape(leaf), SP_ARRAY);
    apply(&bench, &leaf, (change){0, 3000, false});
    CHECK_EQ(sp_leaf_shape(leaf), SP_HELD);
    sp_leaf_retire(&bench.edit, leaf);
    leaf_bench_close(&bench);
}

static void prepare_without_commit_settles(void)
{
    leaf_bench bench;
    rng r = rng_open(6);
    leaf_bench_open(&bench);
    for (uint64_t step = 0; step < check_scaled(600) && !check_failed(); step++) {
        unsigned texture = (unsigned)rng_below(&r, LEAF_TEXTURES);
        change c = random_change(&r);
        leaf_bench_count(&bench, step & 1);
        leaf_paint(&r, texture, &model);
        sp_ref leaf = leaf_make(&bench, &model);
        sp_shape shape = sp_leaf_shape(leaf);
        check_case("texture %u, [%u, %u] to %d", texture, c.first, c.last, c.value);
        CHECK_EQ(sp_leaf_prepare(&bench.edit, &leaf, c.first, c.last, c.value), SP_OK);
        leaf_holds(leaf, &model);
        sp_leaf_settle(&bench.edit, &leaf);
        leaf_matches(leaf, &model, &r);
        CHECK(shape != SP_HELD || !sp_ref_is_node(leaf));
        sp_leaf_retire(&bench.edit, leaf);
    }
    leaf_bench_close(&bench);
}

static void a_failed_prepare_keeps_the_pages(void)
{
    leaf_bench bench;
    rng r = rng_open(7);
    leaf_bench_open(&bench);
    for (uint64_t step = 0; step < check_scaled(300) && !check_failed(); step++) {
        unsigned texture = (unsigned)rng_below(&r, LEAF_TEXTURES);
        change c = random_change(&r);
        bool counted = rng_chance(&r, 2), onwards = rng_chance(&r, 2);
        leaf_bench_count(&bench, counted);
        leaf_paint(&r, texture, &model);
        sp_ref leaf = leaf_make(&bench, &model);
        sp_status status = SP_NOMEM;
        if (!counted) {
            bench.edit.floor = rng_below(&r, 2);
            bench.edit.generation = 2;
        }
        for (uint64_t n = 1; status != SP_OK && !check_failed(); n++) {
            check_case("texture %u, [%u, %u] to %d, allocation %d", texture, c.first, c.last,
                       c.value, (int)n);
            alloc_arm(&bench.alloc, n, onwards);
            status = sp_leaf_prepare(&bench.edit, &leaf, c.first, c.last, c.value);
            if (status) {
                CHECK_EQ(status, SP_NOMEM);
                leaf_holds(leaf, &model);
                sp_leaf_settle(&bench.edit, &leaf);
                leaf_matches(leaf, &model, &r);
            }
        }
        alloc_arm(&bench.alloc, 1, 1);
        sp_leaf_commit(&bench.edit, &leaf, c.first, c.last, c.value);
        alloc_arm(&bench.alloc, 0, 0);
        leaf_assign(&model, c.first, c.last, c.value);
        leaf_holds(leaf, &model);
        CHECK_VALID(sp_leaf_validate(leaf));
        bench.edit.floor = 0;
        sp_leaf_retire(&bench.edit, leaf);
    }
    leaf_bench_close(&bench);
}

/* ---- beside a published original ---- */

typedef struct node_list {
    size_t n;
    sp_node *node[64];
} node_list;

static void note(void *context, sp_node *node)
{
    node_list *list = context;
    list->node[list->n++] = node;
}

static bool has(const node_list *list, const sp_node *node)
{
    for (size_t i = 0; i < list->n; i++)
        if (list->node[i] == node)
            return true;
    return false;
}

static void a_published_leaf_stays_as_it_was(void)
{
    leaf_bench bench;
    rng r = rng_open(8);
    leaf_bench_open(&bench);
    for (uint64_t step = 0; step < check_scaled(300) && !check_failed(); step++) {
        node_list old = {0}, now = {0};
        unsigned texture = (unsigned)rng_below(&r, LEAF_TEXTURES);
        leaf_paint(&r, texture, &model);
        before = model;
        sp_ref published = leaf_make(&bench, &model), leaf = published;
        bench.edit.floor = bench.edit.generation++;
        for (unsigned edits = 1 + (unsigned)rng_below(&r, 4); edits--;) {
            change c = random_change(&r);
            check_case("texture %u, [%u, %u] to %d", texture, c.first, c.last, c.value);
            apply(&bench, &leaf, c);
        }
        leaf_holds(published, &before);
        CHECK_VALID(sp_leaf_validate(published));
        sp_leaf_walk(published, 0, note, &old);
        sp_leaf_walk(leaf, 0, note, &now);
        size_t gone = 0;
        for (size_t i = 0; i < old.n; i++)
            gone += !has(&now, old.node[i]);
        CHECK_EQ(bench.edit.dead.count, gone);
        for (sp_node *node = bench.edit.dead.head; node; node = node->dead_link)
            CHECK(has(&old, node) && !has(&now, node));
        for (sp_node *node; (node = sp_deadlist_pop(&bench.edit.dead));)
            sp_node_free(&bench.mem, node);
        bench.edit.floor = 0;
        sp_leaf_retire(&bench.edit, leaf);
        CHECK_EQ(alloc_blocks(&bench.alloc), 0);
    }
    leaf_bench_close(&bench);
}

static void count_visit(void *context, sp_node *node)
{
    (void)node;
    ++*(unsigned *)context;
}

static void a_walk_skips_what_is_older(void)
{
    leaf_bench bench;
    rng r = rng_open(9);
    leaf_bench_open(&bench);
    leaf_paint(&r, 12, &model);
    sp_ref leaf = leaf_make(&bench, &model), published = leaf;
    bench.edit.floor = bench.edit.generation++;
    apply(&bench, &leaf, (change){5000, 5000, !model.in[5000]});
    unsigned all = 0, young = 0;
    sp_leaf_walk(leaf, 0, count_visit, &all);
    sp_leaf_walk(leaf, bench.edit.floor, count_visit, &young);
    CHECK_EQ(all, 17);
    CHECK_EQ(young, 2);
    sp_leaf_walk(published, bench.edit.floor, count_visit, &young);
    CHECK_EQ(young, 2);
    bench.edit.floor = 0;
    sp_leaf_retire(&bench.edit, leaf);
    leaf_bench_close(&bench);
}

int main(void)
{
    RUN(edits_match_the_model);
    RUN(a_whole_leaf_is_opened_to_be_edited);
    RUN(a_leaf_grows_and_shrinks_by_pages);
    RUN(a_bitmap_that_thins_out_at_once_shrinks);
    RUN(an_array_of_few_runs_is_packed);
    RUN(prepare_without_commit_settles);
    RUN(a_failed_prepare_keeps_the_pages);
    RUN(a_published_leaf_stays_as_it_was);
    RUN(a_walk_skips_what_is_older);
    return check_close();
}
