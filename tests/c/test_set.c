/* tier: model */
/*
 * Sets of each engine against a byte a page over windows at the borders of every level, with
 * uniform gaps of up to 2^51 pages between them.
 */
#include <stdlib.h>
#include <string.h>

#include "base/bits.h"
#include "set/radix.h"
#include "support_set.h"

enum { NARROW = 600, TIB = 1 << 28 /* pages */ };

static void an_empty_set_answers(void)
{
    sp_set set = sp_set_empty(test_engine);
    sp_set_stats stats;
    sp_set_measure(&set, &stats);
    CHECK_STR(sp_set_engine_name(&set), test_engine == &sp_engine_roaring ? "roaring" : "interval");
    CHECK_VALID(sp_set_validate(&set));
    CHECK_EQ(sp_set_count(&set), 0);
    CHECK_EQ(sp_set_nranges(sp_kernels_active(), &set), 0);
    CHECK_EQ(sp_set_rank(&set, SP_GFN_LIMIT), 0);
    CHECK_EQ(sp_set_count_range(&set, 7, 3), 0);
    CHECK(!sp_set_contains(&set, 0));
    CHECK(!sp_set_contains(&set, SP_GFN_LIMIT - 1));
    CHECK_EQ(stats.nodes + stats.bytes + stats.pages + stats.packed, 0);
}

/* By hand: what 24 TiB cost, and what is in them. */
static void terabytes_are_one_range(void)
{
    set_bench b;
    sp_range windows[BORDER_WINDOWS];
    sp_set_stats stats;
    border_windows(NARROW, windows);
    set_bench_open(&b, windows, BORDER_WINDOWS);
    uint64_t start = (UINT64_C(1) << 28) - 1, stop = start + 24 * (uint64_t)TIB;
    CHECK_EQ(sp_set_assign(&b.edit, &b.set, start, stop, true), SP_OK);
    CHECK_EQ(sp_set_count(&b.set), UINT64_C(6442450944));
    CHECK_EQ(sp_set_nranges(sp_kernels_active(), &b.set), 1);
    CHECK_EQ(sp_set_rank(&b.set, UINT64_C(1) << 32), (UINT64_C(1) << 32) - start);
    CHECK_EQ(sp_set_select(&b.set, UINT64_C(6442450943)), stop - 1);
    CHECK_EQ(sp_set_count_range(&b.set, 0, stop - 5), UINT64_C(6442450939));
    CHECK(!sp_set_contains(&b.set, start - 1));
    CHECK(!sp_set_contains(&b.set, stop));
    sp_set_measure(&b.set, &stats);
    CHECK(stats.nodes <= 10);
    CHECK_EQ(sp_set_assign(&b.edit, &b.set, start, stop, false), SP_OK);
    CHECK_EQ(alloc_blocks(&b.alloc), 0);
    set_bench_close(&b);
}

static void everything_is_no_node(void)
{
    set_bench b;
    sp_range windows[BORDER_WINDOWS];
    border_windows(NARROW, windows);
    set_bench_open(&b, windows, BORDER_WINDOWS);
    set_bench_fill(&b, &(rng){1}, 50);
    set_bench_assign(&b, 0, SP_GFN_LIMIT, true);
    CHECK_EQ(sp_set_count(&b.set), SP_GFN_LIMIT);
    CHECK_EQ(alloc_blocks(&b.alloc), 0);
    set_bench_matches(&b);
    set_bench_assign(&b, 0, SP_GFN_LIMIT, false);
    CHECK_EQ(b.set.height, 0);
    set_bench_matches(&b);
    set_bench_close(&b);
}

static void heights_rise_and_fall(void)
{
    set_bench b;
    sp_range windows[BORDER_WINDOWS];
    border_windows(NARROW, windows);
    set_bench_open(&b, windows, BORDER_WINDOWS);
    set_bench_assign(&b, 1, 2, true);
    for (unsigned height = 1; height <= 6; height++) {
        uint64_t at = UINT64_C(1) << (10 + 6 * height);
        CHECK_EQ(b.set.height, height - 1);
        set_bench_assign(&b, at, at + 1, true);
        CHECK_EQ(b.set.height, height);
        set_bench_matches(&b);
    }
    for (unsigned height = 6; height; height--) {
        uint64_t at = UINT64_C(1) << (10 + 6 * height);
        set_bench_assign(&b, at, at + 1, false);
        CHECK_EQ(b.set.height, height - 1);
        set_bench_matches(&b);
    }
    CHECK_EQ(alloc_blocks(&b.alloc), 0);
    set_bench_assign(&b, SP_GFN_LIMIT - 1, SP_GFN_LIMIT, true);
    CHECK_EQ(b.set.height, 6);
    set_bench_assign(&b, SP_GFN_LIMIT - 2, SP_GFN_LIMIT, false);
    CHECK_EQ(b.set.height, 0);
    set_bench_matches(&b);
    set_bench_close(&b);
}

static void random_edits_over(const sp_range *windows, size_t n, uint64_t stream, uint64_t steps)
{
    set_bench b;
    rng r = rng_open(stream);
    set_bench_open(&b, windows, n);
    for (uint64_t step = 0; step < steps && !check_failed(); step++) {
        sp_range range = random_range(&b.model, &r);
        bool value = rng_chance(&r, 2);
        check_case("step %d, [%#llx, %#llx) to %d", (int)step, (unsigned long long)range.start,
                   (unsigned long long)range.stop, value);
        set_bench_assign(&b, range.start, range.stop, value);
        set_bench_matches(&b);
    }
    set_bench_close(&b);
}

static void edits_match_the_model(void)
{
    sp_range windows[BORDER_WINDOWS];
    border_windows(NARROW, windows);
    random_edits_over(windows, BORDER_WINDOWS, 1, check_scaled(3000));
    for (unsigned low = 0; low < BORDER_WINDOWS; low++)
        random_edits_over(windows + low, 1 + (low < BORDER_WINDOWS - 1), 10 + low,
                          check_scaled(150));
    border_windows(20000, windows);
    random_edits_over(windows, BORDER_WINDOWS, 2, check_scaled(60));
}

/* Scattered pages: leaves of every kind below several inner nodes. */
static void scattered_pages_match_the_model(void)
{
    set_bench b;
    rng r = rng_open(3);
    sp_range windows[] = {{(UINT64_C(1) << 22) - 100000, (UINT64_C(1) << 22) + 100000}};
    set_bench_open(&b, windows, 1);
    for (uint64_t step = 0; step < check_scaled(12000) && !check_failed(); step++) {
        uint64_t at = rng_between(&r, windows[0].start, windows[0].stop - 40);
        set_bench_assign(&b, at, at + rng_between(&r, 1, 3), step < 9000 || rng_chance(&r, 3));
        if (step % 400 == 0)
            set_bench_matches(&b);
    }
    set_bench_matches(&b);
    set_bench_close(&b);
}

/* ---- algebra ---- */

static void check_algebra(set_bench *a, set_bench *b, const sp_range *windows, size_t n)
{
    const sp_kernels *k = sp_kernels_active();
    for (unsigned op = SP_OR; op <= SP_XOR; op++) {
        set_bench out;
        set_bench_open(&out, windows, n);
        model_combine(&out.model, (sp_op)op, &a->model, &b->model);
        CHECK_EQ(sp_set_combine(&out.edit, (sp_op)op, &a->set, &b->set, &out.set), SP_OK);
        set_bench_matches(&out);
        if (op == SP_AND) {
            CHECK_EQ(sp_set_intersection(k, &a->set, &b->set), sp_set_count(&out.set));
            CHECK_EQ(sp_set_intersection(k, &b->set, &a->set), sp_set_count(&out.set));
        }
        set_bench_fill(&out, &(rng){op}, 3);
        set_bench_matches(&out);
        set_bench_close(&out);
    }
    set_bench_matches(a);
    set_bench_matches(b);
}

static void sets_of_any_height_combine(void)
{
    sp_range windows[BORDER_WINDOWS];
    rng r = rng_open(4);
    border_windows(NARROW, windows);
    for (uint64_t step = 0; step < check_scaled(150) && !check_failed(); step++) {
        check_case("pair %d", (int)step);
        set_bench a, b;
        set_bench_open(&a, windows, BORDER_WINDOWS);
        set_bench_open(&b, windows, BORDER_WINDOWS);
        set_bench_fill(&a, &r, (unsigned)rng_below(&r, 30));
        set_bench_fill(&b, &r, (unsigned)rng_below(&r, 30));
        if (rng_chance(&r, 2)) {
            uint64_t cut = windows[rng_below(&r, BORDER_WINDOWS)].start;
            if (cut)
                set_bench_assign(&a, cut, SP_GFN_LIMIT, false);
        }
        if (rng_chance(&r, 6))
            set_bench_assign(&b, 0, UINT64_C(1) << (16 + 6 * rng_below(&r, 7)), true);
        check_algebra(&a, &b, windows, BORDER_WINDOWS);
        set_bench_close(&a);
        set_bench_close(&b);
    }
}

/* ---- words ---- */

static void random_words(rng *r, uint64_t words[SP_LEAF_WORDS])
{
    unsigned texture = (unsigned)rng_below(r, 6);
    for (unsigned i = 0; i < SP_LEAF_WORDS; i++) {
        uint64_t a = rng_next(r);
        words[i] = texture == 0   ? 0
                   : texture == 1 ? ~UINT64_C(0)
                   : texture == 2 ? a
                   : texture == 3 ? (rng_chance(r, 30) ? a : 0)
                   : texture == 4 ? UINT64_C(1) << (a & 63)
                                  : (i & 8 ? ~UINT64_C(0) : 0);
    }
}

static void words_replace_what_was_there(void)
{
    static uint64_t words[SP_LEAF_WORDS];
    static const uint64_t middles[] = {UINT64_C(1) << 16, UINT64_C(1) << 22, UINT64_C(1) << 32,
                                       SP_GFN_LIMIT - 65536};
    sp_range windows[4];
    set_bench b;
    rng r = rng_open(5);
    for (unsigned i = 0; i < 4; i++)
        windows[i] = (sp_range){middles[i] - 65536, middles[i] + 65536};
    set_bench_open(&b, windows, 4);
    for (uint64_t step = 0; step < check_scaled(120) && !check_failed(); step++) {
        uint64_t base = windows[rng_below(&r, 4)].start + 65536 * rng_below(&r, 2);
        check_case("step %d, base %#llx", (int)step, (unsigned long long)base);
        random_words(&r, words);
        CHECK_EQ(sp_set_put_words(&b.edit, &b.set, base, words), SP_OK);
        model_put_words(&b.model, base, words);
        if (rng_chance(&r, 3))
            set_bench_fill(&b, &r, 2);
        if (rng_chance(&r, 20))
            set_bench_assign(&b, 0, SP_GFN_LIMIT, rng_chance(&r, 2));
        set_bench_matches(&b);
    }
    set_bench_close(&b);
}

/* ---- reading parts ---- */

/* Arrays of exactly the size needed, so that an entry past their end shows. */
static void check_ranges(const set_bench *b, uint64_t start, uint64_t stop, const sp_range *want,
                         size_t n, size_t seed)
{
    const sp_kernels *k = sp_kernels_active();
    REQUIRE_EQ(sp_set_ranges_count(k, &b->set, start, stop), n);
    sp_range *got = malloc(n * sizeof *got + 1);
    sp_set_ranges_into(k, &b->set, start, stop, got, n);
    CHECK(memcmp(got, want, n * sizeof *got) == 0);
    free(got);
    size_t at = 0, room = seed % 3 == 0 ? 1 : seed % 700 + 1;
    sp_cursor cursor = sp_cursor_open(&b->set, start, stop);
    got = malloc(room * sizeof *got);
    for (size_t used; (used = sp_cursor_ranges(k, &cursor, got, room)) && !check_failed();) {
        REQUIRE(used <= room && at + used <= n);
        CHECK(memcmp(got, want + at, used * sizeof *got) == 0);
        at += used;
    }
    CHECK_EQ(at, n);
    free(got);
}

static void check_cursor(const set_bench *b, uint64_t start, uint64_t stop, size_t room)
{
    uint64_t *toggles = malloc(room * sizeof *toggles);
    size_t n, at = 0;
    sp_range *want = model_ranges(&b->model, start, stop, &n);
    sp_cursor cursor = sp_cursor_open(&b->set, start, stop);
    for (size_t used; (used = sp_cursor_toggles(sp_kernels_active(), &cursor, toggles, room));)
        for (size_t t = 0; t < used && !check_failed(); t++, at++)
            CHECK(at < 2 * n && toggles[t] == (at & 1 ? want[at / 2].stop : want[at / 2].start));
    CHECK_EQ(at, 2 * n);
    CHECK_EQ(sp_cursor_toggles(sp_kernels_active(), &cursor, toggles, room), 0);
    check_ranges(b, start, stop, want, n, room);
    uint64_t below = sp_set_rank(&b->set, start), pages = 0;
    for (size_t i = 0; i < n; i++)
        pages += want[i].stop - want[i].start;
    CHECK_EQ(sp_set_count_range(&b->set, start, stop), pages);
    CHECK_EQ(sp_set_rank(&b->set, stop), below + pages);
    free(want);
    free(toggles);
}

/* Few enough pages to list one by one. */
static void check_pages(const set_bench *b, uint64_t start, uint64_t stop)
{
    const sp_kernels *k = sp_kernels_active();
    uint64_t npages = stop - start, members = sp_set_count_range(&b->set, start, stop), at = 0;
    uint64_t *pages = malloc(members * sizeof *pages + 1), *gfns = malloc(npages * sizeof *gfns);
    uint64_t *words = malloc((npages + 63) / 64 * 8);
    uint8_t *found = malloc(npages);
    sp_set_pages_into(k, &b->set, start, stop, pages);
    sp_set_bitmap_into(k, &b->set, start, npages, words);
    for (uint64_t i = 0; i < npages; i++)
        gfns[i] = start + i;
    sp_set_contains_many(&b->set, gfns, npages, found);
    for (uint64_t i = 0; i < npages && !check_failed(); i++) {
        bool in = model_contains(&b->model, start + i);
        CHECK_EQ(words[i / 64] >> (i % 64) & 1, in);
        CHECK_EQ(found[i], in);
        if (in)
            CHECK_EQ(pages[at++], start + i);
    }
    CHECK_EQ(at, members);
    if (npages % 64)
        CHECK_EQ(words[npages / 64] >> (npages % 64), 0);
    free(pages);
    free(gfns);
    free(words);
    free(found);
}

/* More toggles in one leaf than a batch holds. */
static void comb(set_bench *b, uint64_t first)
{
    for (uint64_t i = 0; i < 300; i++)
        set_bench_assign(b, first + 2 * i, first + 2 * i + 1, i % 50 != 0);
}

static void parts_match_the_model(void)
{
    sp_range windows[BORDER_WINDOWS];
    set_bench b;
    rng r = rng_open(6);
    border_windows(6000, windows);
    set_bench_open(&b, windows, BORDER_WINDOWS);
    for (uint64_t step = 0; step < check_scaled(400) && !check_failed(); step++) {
        set_bench_fill(&b, &r, 1);
        if (step % 8 == 0)
            comb(&b, windows[rng_below(&r, BORDER_WINDOWS)].start + step);
        sp_range part = random_range(&b.model, &r);
        check_case("step %d, [%#llx, %#llx)", (int)step, (unsigned long long)part.start,
                   (unsigned long long)part.stop);
        check_cursor(&b, part.start, part.stop, 2 * SP_TOGGLES_ROOM + rng_below(&r, 300));
        if (part.stop - part.start < 20000)
            check_pages(&b, part.start, part.stop);
    }
    set_bench_matches(&b);
    set_bench_close(&b);
}

static void stats_count_leaves_by_kind(void)
{
    static uint64_t words[SP_LEAF_WORDS];
    sp_range windows[] = {{0, 1 << 20}};
    sp_set_stats stats;
    set_bench b;
    set_bench_open(&b, windows, 1);
    set_bench_assign(&b, 5, 9, true);
    set_bench_assign(&b, 65536, 131072, true);
    for (uint64_t i = 0; i < 10; i++) {
        set_bench_assign(&b, 131072 + 9 * i, 131073 + 9 * i, true);
        set_bench_assign(&b, 196608 + 90 * i, 196608 + 90 * i + 50, true);
    }
    for (unsigned i = 0; i < 2 * 64; i++)
        words[i] = UINT64_C(0x5555555555555555);
    CHECK_EQ(sp_set_put_words(&b.edit, &b.set, 262144, words), SP_OK);
    sp_set_measure(&b.set, &stats);
    CHECK_EQ(stats.inner, 1);
    CHECK_EQ(stats.packed, 1);
    CHECK_EQ(stats.arrays, 1);
    CHECK_EQ(stats.runs, 1);
    CHECK_EQ(stats.bitmaps, 1);
    CHECK_EQ(stats.blocks, 2);
    CHECK_EQ(stats.pages, 4 + 65536 + 10 + 500 + 4096);
    set_bench_close(&b);
}

static void the_checker_names_what_is_broken(void)
{
    sp_range windows[] = {{0, 1 << 20}};
    set_bench b;
    set_bench_open(&b, windows, 1);
    set_bench_assign(&b, 5, 9, true);
    set_bench_assign(&b, 1 << 19, (1 << 19) + 1, true);
    sp_inner *root = as_inner(b.set.root);
    root->pages++;
    CHECK_STR(sp_set_validate(&b.set), "an inner node miscounts its pages");
    root->pages -= 2;
    root->child[8] = SP_EMPTY;
    CHECK_STR(sp_set_validate(&b.set), "a root has members in its first child only");
    root->child[0] = SP_EMPTY;
    root->pages = 0;
    CHECK_STR(sp_set_validate(&b.set), "an empty or full inner node");
    b.set.height = 2;
    root->child[0] = 2;
    CHECK_STR(sp_set_validate(&b.set),
              "a child of an inner node is neither flat nor an inner node");
    b.set.height = MAX_HEIGHT + 1;
    CHECK_STR(sp_set_validate(&b.set), "a set is higher than 52 bits of gfn");
    CHECK_STR(sp_set_validate(&(sp_set){&sp_engine_roaring, SP_EMPTY, 1}),
              "an empty set has a height");
    b.set.height = 1;
    set_bench_close(&b);
}

int main(void)
{
    RUN_ENGINES(an_empty_set_answers);
    RUN_ENGINES(terabytes_are_one_range);
    RUN_ENGINES(everything_is_no_node);
    RUN(heights_rise_and_fall);
    RUN_ENGINES(edits_match_the_model);
    RUN_ENGINES(scattered_pages_match_the_model);
    RUN_ENGINES(sets_of_any_height_combine);
    RUN_ENGINES(words_replace_what_was_there);
    RUN_ENGINES(parts_match_the_model);
    RUN(stats_count_leaves_by_kind);
    RUN(the_checker_names_what_is_broken);
    return check_close();
}
