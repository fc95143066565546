/* tier: model
 *
 * test_unite.c - several harvests as one, a harvest as a set, and the bits of a bitmap counted;
 * each also when memory is short.
 */
#include <stdlib.h>
#include <string.h>

#include "base/bits.h"
#include "set/pageset.h"
#include "support_dirty.h"

#define SMM (1u << 16) /* address space 1 */

enum { PARTS = 4 };

static const sp_range window = {900, 1500};
static const sp_memslot before[] = {{1000, 70, 0}, {1010, 100, SMM}, {1200, 65, 2}};
static const sp_memslot after[] = {{1000, 70, 0}, {1050, 90, SMM}};

typedef struct play {
    dirty_bench bench;
    sp_memory *after;
    sp_harvest *part[PARTS];
    model sum;
} play;

/* Something of each kind, and in the model what of it is memory afterwards, or never was. */
static void fill(play *p, rng *r, bool is_old)
{
    const sp_memslot *table = is_old ? before : after;
    size_t n = is_old ? 3 : 2, bad;
    model all, left;
    model_copy(&all, &p->sum);
    model_assign(&all, 0, SP_GFN_LIMIT, false);
    model_copy(&left, &all);
    for (unsigned i = rng_below(r, 6); i; i--) {
        const sp_memslot *slot = &table[rng_below(r, n)];
        uint64_t page = rng_below(r, slot->npages), start = rng_between(r, 900, 1499);
        sp_range range = {start, rng_between(r, start + 1, 1500)};
        CHECK_EQ(sp_log_add_bitmap(p->bench.log, slot, "\1", page, 1), SP_OK);
        CHECK_EQ(sp_log_add_ranges(p->bench.log, &range, rng_below(r, 2), &bad), SP_OK);
        model_assign(&all, slot->gfn + page, slot->gfn + page + 1, true);
    }
    sp_harvest *harvest = dirty_take(&p->bench);
    model_add_harvest(&all, harvest);
    if (is_old) /* what of `before` is not in `after` */
        model_assign(&left, 1200, 1265, true);
    model_combine(&all, SP_ANDNOT, &all, &left);
    model_add(&p->sum, &p->sum, &all);
    model_clear(&all);
    model_clear(&left);
    for (size_t i = 0; i < PARTS; i++)
        if (!p->part[i]) {
            p->part[i] = harvest;
            return;
        }
}

/* Parts of the old memory first; the last, and maybe more, of the new one. */
static void open_play(play *p, rng *r)
{
    size_t bad, other, old = rng_below(r, PARTS);
    *p = (play){0};
    dirty_open(&p->bench, before, 3);
    CHECK_EQ(
        sp_memory_new(&p->bench.alloc.hook, &sp_engine_roaring, after, 2, &p->after, &bad, &other),
        SP_OK);
    model_init(&p->sum, &window, 1);
    for (size_t i = 0; i < old; i++)
        fill(p, r, true);
    CHECK_EQ(sp_log_set_memory(&p->bench.log, 1, p->after), SP_OK);
    sp_harvest_release(dirty_take(&p->bench)); /* what is new */
    for (size_t i = old; i < PARTS; i++)
        fill(p, r, false);
}

static void close_play(play *p)
{
    for (size_t i = 0; i < PARTS; i++)
        sp_harvest_release(p->part[i]);
    sp_memory_release(p->after);
    model_clear(&p->sum);
    dirty_close(&p->bench);
}

static bool set_is(const sp_pageset *pages, const model *m)
{
    return CHECK(model_matches(m, sp_pageset_set(pages)));
}

static void harvests_are_united(void)
{
    rng r = rng_open(1);
    for (uint64_t n = 0; n < check_scaled(500) && !check_failed(); n++) {
        play p;
        sp_harvest *sum = NULL;
        sp_pageset *pages = NULL;
        check_case("play %d", (int)n);
        open_play(&p, &r);
        REQUIRE_EQ(sp_harvest_unite(&p.bench.alloc.hook, p.part, PARTS, &sum), SP_OK);
        CHECK(sp_harvest_memory(sum) == p.after);
        harvest_is(sum, &p.sum);
        REQUIRE_EQ(sp_merge_pages(&p.bench.alloc.hook, sum, &pages), SP_OK);
        set_is(pages, &p.sum);
        sp_pageset_release(pages);
        sp_harvest_release(sum);
        close_play(&p);
    }
}

static void uniting_fails_at_every_allocation(void)
{
    for (unsigned seed = 0; seed < 12; seed++) {
        sp_harvest *sum = NULL;
        sp_pageset *pages = NULL;
        play p;
        rng r = rng_open(seed);
        open_play(&p, &r);
        for (uint64_t n = 1; !sum && !check_failed(); n++) {
            alloc_arm(&p.bench.alloc, n, seed & 1);
            sp_status status = sp_harvest_unite(&p.bench.alloc.hook, p.part, PARTS, &sum);
            CHECK_EQ(status, alloc_failed(&p.bench.alloc) ? SP_NOMEM : SP_OK);
        }
        harvest_is(sum, &p.sum);
        for (uint64_t n = 1; !pages && !check_failed(); n++) {
            alloc_arm(&p.bench.alloc, n, seed & 1);
            sp_status status = sp_merge_pages(&p.bench.alloc.hook, sum, &pages);
            CHECK_EQ(status, alloc_failed(&p.bench.alloc) ? SP_NOMEM : SP_OK);
        }
        alloc_arm(&p.bench.alloc, 0, 0);
        set_is(pages, &p.sum);
        sp_pageset_release(pages);
        sp_harvest_release(sum);
        close_play(&p);
    }
}

/* More ranges than are added to the set at a time. */
static void many_ranges_are_a_set(void)
{
    enum { PAGES = 3000 };
    dirty_bench b;
    uint64_t gfns[PAGES];
    size_t bad;
    sp_pageset *pages = NULL;
    dirty_open(&b, before, 3);
    for (uint64_t i = 0; i < PAGES; i++)
        gfns[i] = 3 * i;
    CHECK_EQ(sp_log_add_pages(b.log, gfns, PAGES, &bad), SP_OK);
    sp_harvest *harvest = dirty_take(&b);
    REQUIRE_EQ(sp_merge_pages(&b.alloc.hook, harvest, &pages), SP_OK);
    CHECK_EQ(sp_set_count(sp_pageset_set(pages)), PAGES);
    for (uint64_t i = 0; i < PAGES; i++)
        CHECK(sp_set_contains(sp_pageset_set(pages), 3 * i));
    sp_pageset_release(pages);
    sp_harvest_release(harvest);
    dirty_close(&b);
}

static void bits_are_counted(void)
{
    enum { BITS = 100000 };
    uint64_t *words = calloc((BITS + 63) / 64 + 1, 8), count = 0;
    rng r = rng_open(3);
    for (uint64_t i = 0; i < BITS; i++) {
        if (rng_chance(&r, 500) || i % 4096 == 0)
            CHECK_EQ(sp_bitmap_count(words, i), count);
        if (rng_chance(&r, 3)) {
            words[i / 64] |= UINT64_C(1) << (i % 64);
            count++;
        }
    }
    memmove((char *)words + 1, words, BITS / 8); /* at any address */
    CHECK_EQ(sp_bitmap_count((char *)words + 1, BITS), count);
    free(words);
}

static void bits_are_copied_to_any_place(void)
{
    rng r = rng_open(4);
    for (unsigned n = 0; n < 2000 && !check_failed(); n++) {
        uint64_t from[40], to[42], want[42], a = rng_below(&r, 200), b = rng_below(&r, 200);
        uint64_t npages = rng_below(&r, 2200);
        for (size_t w = 0; w < 40; w++)
            from[w] = rng_next(&r);
        for (size_t w = 0; w < 42; w++)
            want[w] = to[w] = rng_next(&r) & rng_next(&r);
        for (uint64_t i = 0; i < npages; i++)
            if (from[(a + i) / 64] >> ((a + i) % 64) & 1)
                want[(b + i) / 64] |= UINT64_C(1) << ((b + i) % 64);
        sp_bits_or(from, a, npages, to, b);
        for (size_t w = 0; w < 42; w++)
            CHECK_EQ(to[w], want[w]);
    }
}

int main(void)
{
    RUN(harvests_are_united);
    RUN(uniting_fails_at_every_allocation);
    RUN(many_ranges_are_a_set);
    RUN(bits_are_counted);
    RUN(bits_are_copied_to_any_place);
    return check_close();
}
