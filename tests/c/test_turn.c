/* tier: model */
/*
 * Changes that say what they changed: sp_leaf_turn against a byte a page, sp_set_turn against the
 * model of a set, on nodes that are ours and on published ones, with memory and without.
 */
#include <string.h>

#include "support_leaf.h"
#include "support_set.h"

static leaf_model pages, painted;

typedef struct change {
    uint32_t first, last;
    bool value;
} change;

/* A change as guests make them, or one that just flips a run of the leaf. */
static change random_change(rng *r)
{
    static const uint32_t sizes[] = {1, 1, 2, 5, 16, 64, 65, 700, 5000, 65536};
    uint32_t first = (uint32_t)rng_below(r, SP_LEAF_PAGES), last = first;
    uint32_t most = (uint32_t)rng_between(r, 1, sizes[rng_below(r, 10)]);
    if (rng_chance(r, 3)) {
        while (first > 0 && pages.in[first - 1] == pages.in[first] && last - first < most)
            first--;
        while (last < SP_LEAF_PAGES - 1 && pages.in[last + 1] == pages.in[first])
            last++;
        return (change){first, last, !pages.in[first]};
    }
    return (change){first, (uint32_t)sp_min(first + most, SP_LEAF_PAGES) - 1, rng_chance(r, 2)};
}

/* *turned names exactly the pages of the change that differ from its value. */
static void check_told(const sp_turned *turned, change c)
{
    uint32_t differing = 0, told = 0;
    for (uint32_t i = c.first; i <= c.last; i++)
        differing += pages.in[i] != c.value;
    CHECK_EQ(turned->pages, differing);
    if (differing == 0 || differing == c.last - c.first + 1) {
        CHECK_EQ(turned->n, 0);
        return;
    }
    CHECK(turned->n >= 1 && turned->n <= turned->most);
    for (uint32_t i = 0; i < turned->n; i++) {
        sp_range range = turned->range[i];
        REQUIRE(range.start < range.stop && range.start >= c.first && range.stop <= c.last + 1);
        CHECK(!i || range.start > turned->range[i - 1].stop);
        for (uint64_t at = range.start; at < range.stop; at++)
            told += pages.in[at] != c.value;
    }
    CHECK_EQ(told, differing);
}

/* Tries a change; true if it was made. */
static bool turn(leaf_bench *bench, sp_ref *leaf, change c, uint32_t most)
{
    sp_turned turned = {.most = most};
    sp_ref was = *leaf;
    uint64_t calls = sp_load(&bench->alloc.calls, relaxed);
    bool done = sp_leaf_turn(&bench->edit, leaf, c.first, c.last, c.value, &turned);
    CHECK(sp_load(&bench->alloc.calls, relaxed) - calls <= 2); /* one, and one to shrink */
    if (done) {
        check_told(&turned, c);
        CHECK(turned.pages || *leaf == was);
        leaf_assign(&pages, c.first, c.last, c.value);
    } else {
        CHECK_EQ(*leaf, was);
    }
    leaf_holds(*leaf, &pages);
    CHECK_VALID(sp_leaf_validate(*leaf));
    return done;
}

static void leaves_turn_as_the_model_does(void)
{
    leaf_bench bench;
    rng r = rng_open(1);
    uint64_t done = 0, asked = 0;
    leaf_bench_open(&bench);
    for (uint64_t round = 0; round < check_scaled(120) && !check_failed(); round++) {
        unsigned texture = (unsigned)round % LEAF_TEXTURES;
        leaf_paint(&r, texture, &pages);
        sp_ref leaf = leaf_make(&bench, &pages);
        for (unsigned step = 0; step < 60 && !check_failed(); step++) {
            change c = random_change(&r);
            check_case("texture %u, step %u, [%u, %u] to %d", texture, step, c.first, c.last,
                       c.value);
            asked++;
            done += turn(&bench, &leaf, c, (uint32_t)rng_between(&r, 1, SP_TURNED_RANGES));
        }
        sp_leaf_retire(&bench.edit, leaf);
    }
    CHECK(done > asked / 4);
    leaf_bench_close(&bench);
}

/* What the lists are for: buffers shared and taken back, each as a whole. */
static void whole_runs_always_turn(void)
{
    leaf_bench bench;
    rng r = rng_open(2);
    sp_ref leaf = SP_EMPTY;
    leaf_bench_open(&bench);
    memset(&pages, 0, sizeof pages);
    for (uint64_t step = 0; step < check_scaled(8000) && !check_failed(); step++) {
        uint32_t buffer = (uint32_t)rng_below(&r, 500), first = buffer * 131;
        change c = {first, first + buffer % 130, !pages.in[first]};
        check_case("step %d, [%u, %u] to %d", (int)step, c.first, c.last, c.value);
        CHECK(turn(&bench, &leaf, c, 1));
    }
    for (uint32_t buffer = 0; buffer < 500; buffer++)
        turn(&bench, &leaf, (change){buffer * 131, buffer * 131 + buffer % 130, false}, 1);
    CHECK_EQ(leaf, SP_EMPTY);
    leaf_bench_close(&bench);
}

/* Page by page, a bitmap that thins out is left to the call that makes it a list again; no block
 * of it becomes empty. */
static void a_bitmap_that_thins_out_becomes_a_list(void)
{
    leaf_bench bench;
    leaf_bench_open(&bench);
    memset(&pages, 0, sizeof pages);
    for (uint32_t i = 0; i < 3000; i++)
        pages.in[20 * i] = 1;
    sp_ref leaf = leaf_make(&bench, &pages);
    CHECK_EQ(sp_leaf_shape(leaf), SP_BITMAP);
    for (uint32_t i = 0; i < 3000 && !check_failed(); i++) {
        if (i % 30 == 0)
            continue;
        change c = {20 * i, 20 * i, false};
        int32_t delta = 0;
        check_case("page %u", c.first);
        if (!turn(&bench, &leaf, c, 1)) {
            CHECK_EQ(sp_leaf_assign(&bench.edit, &leaf, c.first, c.last, false, &delta), SP_OK);
            CHECK_EQ(delta, -1);
            leaf_assign(&pages, c.first, c.last, false);
        }
    }
    CHECK_EQ(sp_leaf_shape(leaf), SP_ARRAY);
    sp_leaf_retire(&bench.edit, leaf);
    leaf_bench_close(&bench);
}

/* A published leaf stays as it was; one that is not told to change is not copied. */
static void published_leaves_stay(void)
{
    leaf_bench bench;
    rng r = rng_open(3);
    leaf_bench_open(&bench);
    for (uint64_t round = 0; round < check_scaled(300) && !check_failed(); round++) {
        leaf_paint(&r, (unsigned)round % LEAF_TEXTURES, &pages);
        painted = pages;
        sp_ref published = leaf_make(&bench, &pages), leaf = published;
        bench.edit.floor = bench.edit.generation++;
        for (unsigned step = 0; step < 4; step++)
            turn(&bench, &leaf, random_change(&r), SP_TURNED_RANGES);
        leaf_holds(published, &painted);
        bench.edit.floor = 0;
        for (sp_node *node; (node = sp_deadlist_pop(&bench.edit.dead));)
            sp_node_free(&bench.mem, node);
        sp_leaf_retire(&bench.edit, leaf);
    }
    leaf_bench_close(&bench);
}

/* Without memory a leaf changes where it stands, or not at all. */
static void leaves_without_memory(void)
{
    leaf_bench bench;
    rng r = rng_open(4);
    leaf_bench_open(&bench);
    for (uint64_t round = 0; round < check_scaled(300) && !check_failed(); round++) {
        leaf_paint(&r, (unsigned)round % LEAF_TEXTURES, &pages);
        sp_ref leaf = leaf_make(&bench, &pages);
        alloc_arm(&bench.alloc, 1, 1);
        for (unsigned step = 0; step < 10; step++)
            turn(&bench, &leaf, random_change(&r), SP_TURNED_RANGES);
        alloc_arm(&bench.alloc, 0, 0);
        sp_leaf_retire(&bench.edit, leaf);
    }
    leaf_bench_close(&bench);
}

/* ---- sets ---- */

/* The members of [start, stop) that are not `value` yet. */
static uint64_t differing(const model *m, sp_range range, bool value)
{
    uint64_t in = model_rank(m, range.stop) - model_rank(m, range.start);
    return value ? range.stop - range.start - in : in;
}

static bool turn_set(set_bench *b, sp_range range, bool value)
{
    sp_turned turned = {.most = SP_TURNED_RANGES};
    uint64_t want = differing(&b->model, range, value), told = 0;
    if (!sp_set_turn(&b->edit, &b->set, range.start, range.stop, value, &turned))
        return false;
    CHECK_EQ(turned.pages, want);
    for (uint32_t i = 0; i < turned.n; i++) {
        sp_range piece = turned.range[i];
        if (!CHECK(piece.start >= range.start && piece.start < piece.stop) ||
            !CHECK(piece.stop <= range.stop))
            break;
        CHECK_EQ(differing(&b->model, piece, value), piece.stop - piece.start);
        told += piece.stop - piece.start;
    }
    CHECK_EQ(told, want == range.stop - range.start ? 0 : want);
    model_assign(&b->model, range.start, range.stop, value);
    return true;
}

enum { WIDTH = 9000 };

/* A few pages of a window, around the borders of leaves and of higher levels. */
static sp_range short_range(const sp_range *windows, rng *r)
{
    sp_range window = windows[rng_below(r, BORDER_WINDOWS)];
    uint64_t start = rng_chance(r, 3) ? rng_between(r, window.start, window.stop - 1)
                                      : window.start + WIDTH / 2 - rng_below(r, 200);
    return (sp_range){start, sp_min(window.stop, start + rng_between(r, 1, 20))};
}

/* Short ranges, which may cross leaves, above a floor that now and then rises. */
static void sets_turn_as_the_model_does(void)
{
    sp_range windows[BORDER_WINDOWS];
    set_bench b;
    rng r = rng_open(5);
    uint64_t done = 0, asked = 0;
    border_windows(WIDTH, windows);
    set_bench_open(&b, windows, BORDER_WINDOWS);
    for (uint64_t step = 0; step < check_scaled(2000) && !check_failed(); step++) {
        bool few = rng_chance(&r, 2);
        sp_range range = few ? short_range(windows, &r) : random_range(&b.model, &r);
        bool value = rng_chance(&r, 2);
        check_case("step %d, [%#llx, %#llx) to %d", (int)step, (unsigned long long)range.start,
                   (unsigned long long)range.stop, value);
        bool turned = turn_set(&b, range, value);
        if (!turned)
            set_bench_assign(&b, range.start, range.stop, value);
        asked++;
        done += turned;
        if (rng_chance(&r, 30))
            b.edit.floor = b.edit.generation++;
        if (step % 32 == 0)
            model_matches(&b.model, &b.set);
    }
    CHECK(done > asked / 4);
    model_matches(&b.model, &b.set);
    set_bench_close(&b);
}

/* The n-th allocation fails: done all the same, or the same members; never a node too many. */
static void sets_turn_or_stay_without_memory(void)
{
    sp_range windows[BORDER_WINDOWS];
    rng r = rng_open(6);
    uint64_t refused = 0;
    border_windows(WIDTH, windows);
    for (uint64_t round = 0; round < check_scaled(60) && !check_failed(); round++) {
        set_bench b;
        set_bench_open(&b, windows, BORDER_WINDOWS);
        set_bench_fill(&b, &r, 12);
        for (unsigned step = 0; step < 40 && !check_failed(); step++) {
            sp_range range = short_range(windows, &r);
            b.edit.floor = b.edit.generation++;
            check_case("[%#llx, %#llx), step %u", (unsigned long long)range.start,
                       (unsigned long long)range.stop, step);
            alloc_arm(&b.alloc, 1 + step % 8, step & 1);
            turn_set(&b, range, rng_chance(&r, 2));
            refused += alloc_failed(&b.alloc);
            alloc_arm(&b.alloc, 0, 0);
            for (sp_node *node; (node = sp_deadlist_pop(&b.edit.dead));)
                sp_node_free(&b.mem, node);
            set_bench_matches(&b);
        }
        set_bench_close(&b);
    }
    CHECK(refused > 0);
}

int main(void)
{
    RUN(leaves_turn_as_the_model_does);
    RUN(whole_runs_always_turn);
    RUN(a_bitmap_that_thins_out_becomes_a_list);
    RUN(published_leaves_stay);
    RUN(leaves_without_memory);
    RUN_ENGINES(sets_turn_as_the_model_does);
    RUN_ENGINES(sets_turn_or_stay_without_memory);
    return check_close();
}
