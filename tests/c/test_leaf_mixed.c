/* tier: model */
/*
 * A list and a bitmap against a byte a page: lists of every shape over bitmaps of every texture, of
 * page sets and of trackers; results of every kind; lower bounds of runs that go from result to
 * result.
 */
#include <string.h>

#include "support_leaf.h"

static leaf_model bitmap_pages, list_pages, want_pages;
static uint64_t want_words[SP_LEAF_WORDS];
static sp_shape want_shape;

static bool truth(sp_op op, bool a, bool b)
{
    return op == SP_OR ? a || b : op == SP_AND ? a && b : op == SP_ANDNOT ? a && !b : a != b;
}

/* The kind of fewest bytes of the pages wanted, counted page by page. */
static sp_shape shape_of_wanted(void)
{
    uint32_t pages = 0, runs = 0, longest = 0, length = 0;
    for (uint32_t i = 0; i < SP_LEAF_PAGES; i++) {
        bool in = want_pages.in[i];
        length = in ? length + 1 : 0;
        longest = (uint32_t)sp_max(longest, length);
        pages += in;
        runs += length == 1;
    }
    if (runs <= 1 || (runs == 2 && longest <= 32768))
        return SP_HELD;
    if (2 * pages > SP_SMALL_MAX_BYTES && 4 * runs > SP_SMALL_MAX_BYTES)
        return SP_BITMAP;
    return 2 * pages < 4 * runs ? SP_ARRAY : SP_RUNS;
}

static void expect(sp_op op, const leaf_model *a, const leaf_model *b)
{
    for (uint32_t i = 0; i < SP_LEAF_PAGES; i++)
        want_pages.in[i] = truth(op, a->in[i], b->in[i]);
    leaf_model_words(&want_pages, want_words);
    want_shape = shape_of_wanted();
}

/* Kinds of results that were seen. */
typedef struct seen {
    bool kind[SP_BITMAP + 1];
} seen;

static bool check_result(sp_ref out, bool counted, seen *kinds)
{
    uint64_t words[SP_LEAF_WORDS];
    sp_shape shape = sp_leaf_shape(out);
    kinds->kind[shape] = true;
    sp_leaf_words(out, words);
    return CHECK_VALID(sp_leaf_validate(out)) && CHECK_EQ(shape, want_shape) &&
           CHECK(memcmp(words, want_words, sizeof words) == 0) &&
           CHECK(memcmp(sp_leaf_view(out, words), want_words, sizeof words) == 0) &&
           CHECK_EQ(leaf_is_whole(out), counted && shape == SP_BITMAP);
}

static void check_seen(const seen *kinds)
{
    for (unsigned kind = SP_HELD; kind <= SP_BITMAP; kind++) {
        check_case("results of kind %u", kind);
        CHECK(kinds->kind[kind]);
    }
}

/* The models as leaves: a bitmap, whatever is smaller, and a list. */
typedef struct mixed {
    sp_ref bitmap, list;
} mixed;

static bool make_mixed(leaf_bench *bench, bool counted, mixed *out)
{
    uint64_t words[SP_LEAF_WORDS];
    leaf_bench_count(bench, counted);
    leaf_model_words(&bitmap_pages, words);
    sp_tally tally = sp_tally_pages(bench->edit.kernels, words);
    CHECK_EQ(sp_bitmap_from_words(&bench->edit, words, &tally, &out->bitmap), SP_OK);
    out->list = leaf_make(bench, &list_pages);
    return CHECK(sp_leaf_shape(out->list) != SP_BITMAP);
}

static void retire_mixed(leaf_bench *bench, const mixed *m)
{
    sp_leaf_retire(&bench->edit, m->bitmap);
    sp_leaf_retire(&bench->edit, m->list);
}

/* All operations, of operands and for results of both owners; pages as `expect` was told. */
static void check_op(leaf_bench *bench, const mixed by_owner[2], sp_op op, bool flipped,
                     seen *kinds)
{
    for (unsigned owners = 0; owners < 4 && !check_failed(); owners++) {
        const mixed *m = &by_owner[owners & 1];
        bool counted = owners & 2;
        sp_ref out;
        leaf_bench_count(bench, counted);
        REQUIRE_EQ(sp_leaf_combine(&bench->edit, op, flipped ? m->list : m->bitmap,
                                   flipped ? m->bitmap : m->list, &out),
                   SP_OK);
        check_result(out, counted, kinds);
        sp_leaf_retire(&bench->edit, out);
    }
}

static void check_counts(const mixed *m)
{
    const sp_kernels *k = sp_kernels_active();
    uint32_t both = 0;
    for (uint32_t i = 0; i < SP_LEAF_PAGES; i++)
        both += bitmap_pages.in[i] & list_pages.in[i];
    CHECK_EQ(sp_leaf_intersection(k, m->bitmap, m->list), both);
    CHECK_EQ(sp_leaf_intersection(k, m->list, m->bitmap), both);
}

/* Everything about the two models. */
static void check_models(leaf_bench *bench, seen *kinds)
{
    mixed by_owner[2];
    if (!make_mixed(bench, false, &by_owner[0]) || !make_mixed(bench, true, &by_owner[1]))
        return;
    for (unsigned op = SP_OR; op <= SP_XOR; op++) {
        expect((sp_op)op, &bitmap_pages, &list_pages);
        check_op(bench, by_owner, (sp_op)op, false, kinds);
        expect((sp_op)op, &list_pages, &bitmap_pages);
        check_op(bench, by_owner, (sp_op)op, true, kinds);
    }
    for (unsigned counted = 0; counted < 2; counted++) {
        check_counts(&by_owner[counted]);
        leaf_holds(by_owner[counted].bitmap, &bitmap_pages);
        leaf_holds(by_owner[counted].list, &list_pages);
        retire_mixed(bench, &by_owner[counted]);
    }
}

/* ---- random lists over random bitmaps ---- */

/* Runs that begin and end at multiples of `step`, up to `longest` steps long and as far apart. */
static void paint_list(rng *r, uint32_t step, uint32_t longest, uint32_t apart)
{
    memset(&list_pages, 0, sizeof list_pages);
    uint64_t at = rng_below(r, apart) * step;
    for (unsigned runs = 0; at < SP_LEAF_PAGES && runs < SP_MAX_RUNS; runs++) {
        uint64_t last = sp_min(at + rng_between(r, 1, longest) * step, SP_LEAF_PAGES) - 1;
        leaf_assign(&list_pages, (uint32_t)at, (uint32_t)last, true);
        at = last + 1 + rng_between(r, 1, apart) * step;
    }
}

/* Lists of single pages, of many runs in one word, of runs from word to word and from block to
 * block, of runs of many blocks. */
static const struct {
    uint32_t step, longest, apart;
} lists[] = {{1, 1, 60}, {1, 2, 2},   {1, 3, 120},  {1, 64, 64},  {1, 200, 60}, {1, 5000, 900},
             {64, 1, 1}, {64, 2, 14}, {64, 40, 40}, {4096, 1, 1}, {4096, 3, 3}, {32768, 2, 1}};

enum { LISTS = sizeof lists / sizeof *lists };

static void lists_meet_bitmaps(void)
{
    leaf_bench bench;
    seen kinds = {{false}};
    rng r = rng_open(1);
    leaf_bench_open(&bench);
    for (uint64_t round = 0; round < check_scaled(1); round++)
        for (unsigned t = 2; t < LEAF_TEXTURES; t++)
            for (unsigned l = 0; l < LISTS && !check_failed(); l++) {
                check_case("round %d, texture %u, list %u", (int)round, t, l);
                leaf_paint(&r, t, &bitmap_pages);
                paint_list(&r, lists[l].step, lists[l].longest, lists[l].apart);
                check_models(&bench, &kinds);
            }
    check_seen(&kinds);
    leaf_bench_close(&bench);
}

/* Runs that end with a word's last page, and that begin with the first page of a later word. */
static void words_far_apart_do_not_join(void)
{
    leaf_bench bench;
    seen kinds = {{false}};
    rng r = rng_open(2);
    leaf_bench_open(&bench);
    for (uint64_t round = 0; round < check_scaled(40) && !check_failed(); round++) {
        uint32_t apart = (uint32_t)rng_between(&r, 2, 4), words = round & 1 ? 1 : 2;
        check_case("round %d, every %u words", (int)round, apart);
        memset(&list_pages, 0, sizeof list_pages);
        for (uint32_t at = 0; at + 64 * words <= SP_LEAF_PAGES; at += 64 * (words + apart - 1))
            leaf_assign(&list_pages, at, at + 64 * words - 1, true);
        leaf_paint(&r, 12, &bitmap_pages);
        for (uint32_t at = 0; at < SP_LEAF_PAGES; at += 64) {
            bitmap_pages.in[at] = !rng_chance(&r, 3);
            bitmap_pages.in[at + 63] = !rng_chance(&r, 3);
            if (rng_chance(&r, 2))
                memset(bitmap_pages.in + at + 1, (int)(round >> 1 & 1), 62);
        }
        check_models(&bench, &kinds);
    }
    leaf_bench_close(&bench);
}

/* ---- by hand ---- */

/* Runs of 63 pages and single pages between them: what is left out is the longest list. */
static void paint_combs(void)
{
    memset(&list_pages, 0, sizeof list_pages);
    for (uint32_t at = 63; at < SP_LEAF_PAGES - 64; at += 64)
        list_pages.in[at] = 1;
    for (uint32_t i = 0; i < SP_LEAF_PAGES; i++)
        bitmap_pages.in[i] = !list_pages.in[i];
    leaf_assign(&bitmap_pages, SP_LEAF_PAGES - 64, SP_LEAF_PAGES - 2, false);
    leaf_assign(&list_pages, SP_LEAF_PAGES - 64, SP_LEAF_PAGES - 2, true);
}

static sp_ref result_of(leaf_bench *bench, sp_op op, sp_ref a, sp_ref b)
{
    sp_ref out = SP_EMPTY;
    CHECK_EQ(sp_leaf_combine(&bench->edit, op, a, b, &out), SP_OK);
    return out;
}

static void a_list_and_the_rest_are_everything(void)
{
    leaf_bench bench;
    leaf_bench_open(&bench);
    paint_combs();
    for (unsigned counted = 0; counted < 2; counted++) {
        mixed m;
        check_case("counted %u", counted);
        REQUIRE(make_mixed(&bench, counted, &m));
        CHECK(result_of(&bench, SP_OR, m.bitmap, m.list) == SP_FULL);
        CHECK(result_of(&bench, SP_XOR, m.list, m.bitmap) == SP_FULL);
        CHECK(result_of(&bench, SP_AND, m.list, m.bitmap) == SP_EMPTY);
        sp_ref rest = result_of(&bench, SP_ANDNOT, m.bitmap, m.list);
        leaf_holds(rest, &bitmap_pages);
        sp_leaf_retire(&bench.edit, rest);
        retire_mixed(&bench, &m);
    }
    leaf_bench_close(&bench);
}

/* Every second page of the leaf, and one or two long runs. */
static void a_long_run_takes_all_or_nothing(void)
{
    leaf_bench bench;
    leaf_bench_open(&bench);
    memset(&bitmap_pages, 0, sizeof bitmap_pages);
    memset(&list_pages, 0, sizeof list_pages);
    for (uint32_t i = 1; i < SP_LEAF_PAGES - 1; i += 2)
        bitmap_pages.in[i] = 1;
    leaf_assign(&list_pages, 1, SP_LEAF_PAGES - 2, true);
    for (unsigned counted = 0; counted < 2; counted++) {
        mixed m;
        REQUIRE(make_mixed(&bench, counted, &m));
        CHECK(result_of(&bench, SP_ANDNOT, m.bitmap, m.list) == SP_EMPTY);
        CHECK(result_of(&bench, SP_OR, m.bitmap, m.list) == m.list);
        sp_ref same = result_of(&bench, SP_AND, m.bitmap, m.list);
        leaf_holds(same, &bitmap_pages);
        sp_leaf_retire(&bench.edit, same);
        retire_mixed(&bench, &m);
    }
    leaf_bench_close(&bench);
}

/* Blocks that a list fills or empties are flat in the result, and the others are not. */
static void whole_blocks_turn_flat(void)
{
    leaf_bench bench;
    leaf_bench_open(&bench);
    leaf_bench_count(&bench, true);
    memset(&list_pages, 0, sizeof list_pages);
    for (uint32_t i = 0; i < SP_LEAF_PAGES; i++)
        bitmap_pages.in[i] = i % 2;
    leaf_assign(&list_pages, 4096, 2 * 4096 - 1, true);
    leaf_assign(&list_pages, 3 * 4096, 5 * 4096, true);
    mixed m;
    REQUIRE(make_mixed(&bench, true, &m));
    for (unsigned op = SP_OR; op <= SP_ANDNOT; op += SP_ANDNOT - SP_OR) {
        sp_ref flat = op == SP_OR ? SP_FULL : SP_EMPTY;
        sp_ref out = result_of(&bench, (sp_op)op, m.bitmap, m.list);
        const sp_bitmap *leaf = sp_as_bitmap(out);
        check_case("operation %u", op);
        REQUIRE(leaf_is_whole(out));
        CHECK(leaf->block[1] == flat && leaf->block[3] == flat && leaf->block[4] == flat);
        CHECK_EQ(leaf->real, 13);
        CHECK_EQ(leaf->in_block[5], op == SP_OR ? 2049 : 2048);
        expect((sp_op)op, &bitmap_pages, &list_pages);
        leaf_holds(out, &want_pages);
        CHECK_VALID(sp_leaf_validate(out));
        sp_leaf_retire(&bench.edit, out);
    }
    retire_mixed(&bench, &m);
    leaf_bench_close(&bench);
}

/* ---- from result to result ---- */

/* The list that joins the most runs, or takes the most away, or a random one. */
static void paint_thief(rng *r, unsigned kind)
{
    uint32_t at = (uint32_t)rng_below(r, SP_LEAF_PAGES), runs = 0;
    uint32_t last = (uint32_t)sp_min(at + rng_below(r, 6000), SP_LEAF_PAGES - 1);
    memset(&list_pages, 0, sizeof list_pages);
    if (kind == 2) {
        leaf_assign(&list_pages, at, last, true);
        return;
    }
    for (uint32_t i = at; i <= last && runs < SP_MAX_RUNS; i++)
        if (bitmap_pages.in[i] == (kind == 1)) {
            list_pages.in[i] = 1;
            runs += i == at || !list_pages.in[i - 1];
        }
}

/* A whole leaf of the most runs, altered until it is no bitmap any more: `least_runs` is never more
 * than there are (the checker counts them), and the kind is right whenever it is in doubt. */
static void least_runs_stay_a_lower_bound(void)
{
    leaf_bench bench;
    seen kinds = {{false}};
    rng r = rng_open(3);
    leaf_bench_open(&bench);
    leaf_bench_count(&bench, true);
    for (uint64_t round = 0; round < check_scaled(6) && !check_failed(); round++) {
        leaf_paint(&r, round & 1 ? 12 : 16, &bitmap_pages);
        sp_ref leaf = leaf_make(&bench, &bitmap_pages);
        for (unsigned step = 0; sp_leaf_shape(leaf) == SP_BITMAP && step < 3000; step++) {
            unsigned kind = rng_chance(&r, 5) ? 2 : (unsigned)(round >> 1) % 2;
            sp_op op = rng_chance(&r, 4) ? SP_XOR : kind == 1 ? SP_ANDNOT : SP_OR;
            check_case("round %d, step %u, kind %u, op %d", (int)round, step, kind, (int)op);
            paint_thief(&r, kind);
            sp_ref list = leaf_make(&bench, &list_pages);
            expect(op, &bitmap_pages, &list_pages);
            sp_ref out = result_of(&bench, op, leaf, list);
            sp_leaf_retire(&bench.edit, leaf);
            sp_leaf_retire(&bench.edit, list);
            leaf = out;
            REQUIRE(check_result(leaf, true, &kinds));
            bitmap_pages = want_pages;
        }
        CHECK(sp_leaf_shape(leaf) != SP_BITMAP);
        sp_leaf_retire(&bench.edit, leaf);
    }
    leaf_bench_close(&bench);
}

/* ---- failure ---- */

static void a_failed_result_leaves_nothing(void)
{
    leaf_bench bench;
    rng r = rng_open(4);
    leaf_bench_open(&bench);
    for (unsigned step = 0; step < 2 * LISTS && !check_failed(); step++) {
        mixed m;
        bool counted = step & 1;
        leaf_paint(&r, step & 2 ? 14 : 12, &bitmap_pages);
        paint_list(&r, lists[step / 2].step, lists[step / 2].longest, lists[step / 2].apart);
        REQUIRE(make_mixed(&bench, counted, &m));
        uint64_t blocks = alloc_blocks(&bench.alloc);
        for (unsigned op = SP_OR; op <= SP_XOR; op++) {
            sp_status status = SP_NOMEM;
            for (uint64_t n = 1; status && !check_failed(); n++) {
                sp_ref out = SP_EMPTY;
                check_case("list %u, op %u, allocation %d", step / 2, op, (int)n);
                alloc_arm(&bench.alloc, n, 0);
                status = sp_leaf_combine(&bench.edit, (sp_op)op, m.list, m.bitmap, &out);
                CHECK_EQ(status, alloc_failed(&bench.alloc) ? SP_NOMEM : SP_OK);
                sp_leaf_retire(&bench.edit, out);
                CHECK_EQ(alloc_blocks(&bench.alloc), blocks);
            }
            alloc_arm(&bench.alloc, 0, 0);
        }
        retire_mixed(&bench, &m);
    }
    leaf_bench_close(&bench);
}

int main(void)
{
    RUN(lists_meet_bitmaps);
    RUN(words_far_apart_do_not_join);
    RUN(a_list_and_the_rest_are_everything);
    RUN(a_long_run_takes_all_or_nothing);
    RUN(whole_blocks_turn_flat);
    RUN(least_runs_stay_a_lower_bound);
    RUN(a_failed_result_leaves_nothing);
    return check_close();
}
