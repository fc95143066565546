/* tier: model */
/*
 * Leaves of every kind, of page sets and of trackers, against a byte a page: readers, conversions,
 * pairs, the checker.
 */
#include <string.h>

#include "support_leaf.h"

static leaf_model model, other, before;

static void every_kind_is_painted(void)
{
    leaf_bench bench;
    rng r = rng_open(1);
    bool seen[SP_BITMAP + 1] = {false};
    leaf_bench_open(&bench);
    for (unsigned t = 0; t < LEAF_TEXTURES; t++) {
        leaf_paint(&r, t, &model);
        sp_ref leaf = leaf_make(&bench, &model);
        seen[sp_leaf_shape(leaf)] = true;
        sp_leaf_retire(&bench.edit, leaf);
    }
    for (unsigned shape = SP_HELD; shape <= SP_BITMAP; shape++)
        CHECK(seen[shape]);
    leaf_bench_close(&bench);
}

static void clone_as(leaf_bench *bench, sp_ref leaf, bool counted, rng *r)
{
    sp_ref copy;
    leaf_bench_count(bench, counted);
    REQUIRE_EQ(sp_leaf_clone(&bench->edit, leaf, &copy), SP_OK);
    CHECK_EQ(leaf_is_whole(copy), counted && sp_leaf_shape(leaf) == SP_BITMAP);
    leaf_matches(copy, &model, r);
    sp_leaf_retire(&bench->edit, copy);
}

static void every_kind_answers(void)
{
    leaf_bench bench;
    rng r = rng_open(2);
    leaf_bench_open(&bench);
    for (unsigned t = 0; t < 2 * LEAF_TEXTURES; t++) {
        check_case("texture %u, counted %u", t / 2, t & 1);
        leaf_bench_count(&bench, t & 1);
        leaf_paint(&r, t / 2, &model);
        sp_ref leaf = leaf_make(&bench, &model);
        CHECK_EQ(leaf_is_whole(leaf), t & 1 && sp_leaf_shape(leaf) == SP_BITMAP);
        leaf_matches(leaf, &model, &r);
        clone_as(&bench, leaf, false, &r);
        clone_as(&bench, leaf, true, &r);
        leaf_matches(leaf, &model, &r);
        sp_leaf_retire(&bench.edit, leaf);
    }
    leaf_bench_close(&bench);
}

/* The same pages in a kind that would not be chosen for them. */
static void an_unchosen_kind_answers(void)
{
    leaf_bench bench;
    rng r = rng_open(3);
    leaf_bench_open(&bench);
    for (unsigned t = 4; t < 2 * LEAF_TEXTURES; t++) {
        check_case("texture %u, counted %u", t / 2, t & 1);
        leaf_bench_count(&bench, t & 1);
        leaf_paint(&r, t / 2, &model);
        uint64_t words[SP_LEAF_WORDS];
        sp_ref leaf;
        leaf_model_words(&model, words);
        sp_tally tally = sp_tally_pages(bench.edit.kernels, words);
        CHECK_EQ(sp_bitmap_from_words(&bench.edit, words, &tally, &leaf), SP_OK);
        CHECK_EQ(leaf_is_whole(leaf), t & 1);
        leaf_matches(leaf, &model, &r);
        clone_as(&bench, leaf, false, &r);
        clone_as(&bench, leaf, true, &r);
        sp_leaf_settle(&bench.edit, &leaf);
        leaf_matches(leaf, &model, &r);
        sp_leaf_retire(&bench.edit, leaf);
    }
    leaf_bench_close(&bench);
}

/* ---- toggles of a part ---- */

/* The toggles of [first, stop) out of those of the whole leaf. */
static uint32_t part_of(const uint32_t *all, uint32_t n, uint32_t first, uint32_t stop,
                        uint64_t carry, uint32_t *out)
{
    uint32_t used = 0;
    if (first < stop && model.in[first] != carry)
        out[used++] = first;
    for (uint32_t i = 0; i < n; i++)
        if (all[i] > first && all[i] < stop)
            out[used++] = all[i];
    return used;
}

static void check_part(sp_ref leaf, uint32_t first, uint32_t stop, uint64_t carry, size_t room,
                       const uint32_t *want, uint32_t n)
{
    const sp_kernels *k = sp_kernels_active();
    static uint64_t out[SP_LEAF_PAGES];
    uint32_t at = first, total = 0;
    uint64_t last = first < stop ? model.in[stop - 1] : carry;
    do {
        size_t used = 0;
        uint32_t now = sp_leaf_toggles(k, leaf, 1000000, at, stop, &carry, out, &used, room);
        REQUIRE(used <= room && now <= stop && total + used <= n);
        REQUIRE(now > at || now == stop);
        CHECK(now == stop || room - used < SP_TOGGLES_ROOM);
        CHECK(now == at || carry == model.in[now - 1]);
        for (size_t i = 0; i < used; i++)
            REQUIRE_EQ(out[i], 1000000u + want[total + i]);
        total += (uint32_t)used;
        at = now;
    } while (at < stop);
    CHECK_EQ(total, n);
    CHECK_EQ(carry, last);
}

static void parts_are_listed_with_any_room(void)
{
    static const uint32_t near[] = {0,     1,     63,    64,    65,    127,   128,   2000,
                                    4031,  4032,  4095,  4096,  4097,  4160,  8191,  8192,
                                    12288, 12345, 16383, 16384, 32767, 32768, 40000, 61439,
                                    61440, 65471, 65472, 65473, 65534, 65535, 65536};
    static const size_t rooms[] = {SP_TOGGLES_ROOM, SP_TOGGLES_ROOM + 1, SP_TOGGLES_ROOM + 63, 400,
                                   SP_LEAF_PAGES};
    static uint32_t all[SP_LEAF_PAGES], want[SP_LEAF_PAGES];
    enum { NEAR = sizeof near / sizeof *near };
    leaf_bench bench;
    rng r = rng_open(4);
    leaf_bench_open(&bench);
    for (unsigned t = 0; t < 2 * LEAF_TEXTURES; t++) {
        leaf_bench_count(&bench, t & 1);
        leaf_paint(&r, t / 2, &model);
        sp_ref leaf = leaf_make(&bench, &model);
        uint32_t n = 0;
        for (uint32_t i = 0; i < SP_LEAF_PAGES; i++)
            if (model.in[i] != (i && model.in[i - 1]))
                all[n++] = i;
        for (unsigned pair = 0; pair < NEAR * NEAR && !check_failed(); pair++) {
            uint32_t first = near[pair / NEAR], stop = near[pair % NEAR];
            uint64_t carry = pair & 1;
            size_t room = rooms[rng_below(&r, sizeof rooms / sizeof *rooms)];
            check_case("texture %u, counted %u, [%u, %u), carry %u, room %zu", t / 2, t & 1, first,
                       stop, (unsigned)carry, room);
            if (first > stop)
                continue;
            uint32_t part = part_of(all, n, first, stop, carry, want);
            check_part(leaf, first, stop, carry, room, want, part);
            part = part_of(all, n, first, stop, !carry, want);
            check_part(leaf, first, stop, !carry, room, want, part);
        }
        sp_leaf_retire(&bench.edit, leaf);
    }
    leaf_bench_close(&bench);
}

static void no_room_reads_nothing(void)
{
    uint64_t carry = 1, out[SP_TOGGLES_ROOM];
    size_t used = 1;
    CHECK_EQ(
        sp_leaf_toggles(sp_kernels_active(), SP_FULL, 0, 5, 9, &carry, out, &used, SP_TOGGLES_ROOM),
        5);
    CHECK_EQ(used, 1);
    CHECK_EQ(carry, 1);
}

/* ---- pairs ---- */

static bool truth(sp_op op, bool a, bool b)
{
    return op == SP_OR ? a || b : op == SP_AND ? a && b : op == SP_ANDNOT ? a && !b : a != b;
}

/* The kind of fewest bytes, and the form of its owner. */
static void check_kind(sp_ref leaf, const uint64_t words[SP_LEAF_WORDS], bool counted)
{
    const sp_kernels *k = sp_kernels_active();
    if (sp_leaf_shape(leaf) != SP_HELD)
        CHECK_EQ(sp_leaf_shape(leaf), sp_leaf_pick((uint32_t)k->popcount(words, SP_LEAF_WORDS),
                                                   sp_words_runs(k, words)));
    CHECK_EQ(leaf_is_whole(leaf), counted && sp_leaf_shape(leaf) == SP_BITMAP);
}

/* Two leaves as trackers hold them, and as page sets do. */
typedef struct pair {
    sp_ref a[2], b[2];
} pair;

/* Bits of a mixture say whose leaves a, b and the result are. */
enum { A_COUNTED = 1, B_COUNTED = 2, RESULT_COUNTED = 4, MIXTURES = 8 };

static void check_op(leaf_bench *bench, const pair *p, sp_op op, unsigned mixture, rng *r)
{
    uint64_t got[SP_LEAF_WORDS], want[SP_LEAF_WORDS];
    sp_ref a = p->a[!!(mixture & A_COUNTED)], b = p->b[!!(mixture & B_COUNTED)], out;
    bool counted = mixture & RESULT_COUNTED;
    leaf_bench_count(bench, counted);
    REQUIRE_EQ(sp_leaf_combine(&bench->edit, op, a, b, &out), SP_OK);
    CHECK_VALID(sp_leaf_validate(out));
    sp_leaf_words(out, got);
    leaf_model_words(&before, want);
    CHECK(memcmp(got, want, sizeof got) == 0);
    check_kind(out, want, counted);
    if (rng_chance(r, 16))
        leaf_matches(out, &before, r);
    sp_leaf_retire(&bench->edit, out);
}

static void check_pair(leaf_bench *bench, const pair *p, rng *r)
{
    uint32_t both = 0;
    for (unsigned op = SP_OR; op <= SP_XOR; op++) {
        for (uint32_t i = 0; i < SP_LEAF_PAGES; i++)
            before.in[i] = truth((sp_op)op, model.in[i], other.in[i]);
        for (unsigned mixture = 0; mixture < MIXTURES; mixture++)
            check_op(bench, p, (sp_op)op, mixture, r);
    }
    for (uint32_t i = 0; i < SP_LEAF_PAGES; i++)
        both += model.in[i] & other.in[i];
    for (unsigned mixture = 0; mixture < RESULT_COUNTED; mixture++)
        CHECK_EQ(sp_leaf_intersection(sp_kernels_active(), p->a[!!(mixture & A_COUNTED)],
                                      p->b[!!(mixture & B_COUNTED)]),
                 both);
}

static void all_pairs_combine(void)
{
    leaf_bench bench;
    rng r = rng_open(5);
    leaf_bench_open(&bench);
    for (unsigned ta = 0; ta < LEAF_TEXTURES; ta++)
        for (unsigned tb = 0; tb < LEAF_TEXTURES && !check_failed(); tb++) {
            pair p;
            check_case("textures %u and %u", ta, tb);
            leaf_paint(&r, ta, &model);
            leaf_paint(&r, tb, &other);
            for (unsigned counted = 0; counted < 2; counted++) {
                leaf_bench_count(&bench, counted);
                p.a[counted] = leaf_make(&bench, &model);
                p.b[counted] = leaf_make(&bench, &other);
            }
            check_pair(&bench, &p, &r);
            for (unsigned counted = 0; counted < 2; counted++) {
                leaf_holds(p.a[counted], &model);
                leaf_holds(p.b[counted], &other);
                sp_leaf_retire(&bench.edit, p.a[counted]);
                sp_leaf_retire(&bench.edit, p.b[counted]);
            }
        }
    leaf_bench_close(&bench);
}

/* ---- the checker ---- */

static sp_ref small_of(leaf_bench *bench, sp_shape shape, const sp_run *runs, uint32_t n)
{
    sp_ref leaf = SP_EMPTY;
    CHECK_EQ(sp_small_new(&bench->edit, shape, runs, n, sp_runs_pages(runs, n), 8, &leaf), SP_OK);
    return leaf;
}

static void the_checker_names_what_is_broken(void)
{
    static const sp_run runs[] = {{1, 4}, {7, 7}, {9, 9}};
    leaf_bench bench;
    rng r = rng_open(10);
    leaf_bench_open(&bench);
    sp_ref list = small_of(&bench, SP_RUNS, runs, 3), array = small_of(&bench, SP_ARRAY, runs, 3);
    CHECK_VALID(sp_leaf_validate(list));
    CHECK_VALID(sp_leaf_validate(array));
    sp_as_small(list)->pages++;
    CHECK_STR(sp_leaf_validate(list), "a small leaf miscounts its pages");
    sp_runs(sp_as_small(list))[1].first = 5;
    CHECK_STR(sp_leaf_validate(list), "runs are inverted, overlapping or adjacent");
    sp_values(sp_as_small(array))[2] = 2;
    CHECK_STR(sp_leaf_validate(array), "an array is not ascending");
    sp_as_small(list)->n = sp_as_small(list)->pages = 0;
    CHECK_STR(sp_leaf_validate(list), "an empty or full leaf is a node");
    sp_as_small(array)->n = 1000;
    CHECK_STR(sp_leaf_validate(array), "a small leaf holds more than its node has room for");
    sp_ref few = small_of(&bench, SP_ARRAY, runs, 2);
    CHECK_STR(sp_leaf_validate(few), "a small leaf holds what a packed ref could");
    CHECK_STR(sp_leaf_validate(3 | (sp_ref)9 << 2 | (sp_ref)10 << 33),
              "packed runs overlap or are adjacent");
    leaf_paint(&r, 14, &model);
    sp_ref wide = leaf_make(&bench, &model);
    sp_bitmap *bitmap = sp_as_bitmap(wide);
    bitmap->real++;
    CHECK_STR(sp_leaf_validate(wide), "a bitmap leaf miscounts its blocks");
    bitmap->real--;
    bitmap->pages++;
    CHECK_STR(sp_leaf_validate(wide), "a bitmap leaf miscounts its pages");
    bitmap->in_block[0]++;
    CHECK_STR(sp_leaf_validate(wide), "a bitmap leaf miscounts a block");
    memset(sp_block_words(bitmap->block[0]), 0, SP_BLOCK_PAGES / 8);
    bitmap->in_block[0] = 0;
    CHECK_STR(sp_leaf_validate(wide), "a uniform block is not flat");
    sp_leaf_retire(&bench.edit, list);
    sp_leaf_retire(&bench.edit, array);
    sp_leaf_retire(&bench.edit, few);
    sp_leaf_retire(&bench.edit, wide);
    leaf_bench_count(&bench, true);
    leaf_paint(&r, 16, &model);
    sp_ref whole = leaf_make(&bench, &model);
    sp_as_bitmap(whole)->least_runs++;
    CHECK_STR(sp_leaf_validate(whole), "a whole leaf has fewer runs than it says");
    sp_leaf_retire(&bench.edit, whole);
    leaf_bench_close(&bench);
}

int main(void)
{
    RUN(every_kind_is_painted);
    RUN(every_kind_answers);
    RUN(an_unchosen_kind_answers);
    RUN(parts_are_listed_with_any_room);
    RUN(no_room_reads_nothing);
    RUN(all_pairs_combine);
    RUN(the_checker_names_what_is_broken);
    return check_close();
}
