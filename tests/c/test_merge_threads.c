/* tier: differential
 *
 * test_merge_threads.c - guests of many leaves merged by several threads against one: slots that
 * begin off every border, ranges across all seams, parts with nothing in them.
 */
#include <stdlib.h>
#include <string.h>

#include "base/bits.h"
#include "support_dirty.h"
#include "support_engine.h"

enum { LEAF = 65536, LEAVES = 9, MOST = 40 };

static const size_t threads_of[] = {2, 3, 7, SP_THREADS_MOST};

typedef struct scene {
    sp_harvest *harvest; /* NULL: nothing is dirty */
    sp_pageset *extra, *shared;
} scene;

static void merge(const scene *s, size_t threads, sp_list lists[2])
{
    sp_mem mem;
    sp_merge *merge;
    sp_mem_init(&mem, NULL);
    REQUIRE_EQ(
        sp_merge_new(NULL, s->harvest, sp_pageset_set(s->extra), sp_pageset_set(s->shared), &merge),
        SP_OK);
    CHECK_EQ(sp_merge_all(merge, threads, &mem, &lists[0], &lists[1]), SP_OK);
    sp_merge_free(merge);
}

static void clear(sp_list lists[2])
{
    sp_mem mem;
    sp_mem_init(&mem, NULL);
    for (unsigned side = 0; side < 2; side++)
        sp_list_free(&mem, &lists[side]);
}

static void check_scene(const scene *s)
{
    sp_list want[2], got[2];
    merge(s, 1, want);
    for (size_t i = 0; i < sizeof threads_of / sizeof *threads_of && !check_failed(); i++) {
        merge(s, threads_of[i], got);
        for (unsigned side = 0; side < 2; side++)
            if (CHECK_EQ(got[side].n, want[side].n) &&
                CHECK_EQ(got[side].pages, want[side].pages) && want[side].n)
                CHECK(memcmp(got[side].ranges, want[side].ranges,
                             want[side].n * sizeof *want[side].ranges) == 0);
        clear(got);
    }
    clear(want);
}

/* Up to MOST ranges, every second one across a border of leaves. */
static sp_pageset *some_ranges(rng *r)
{
    sp_range ranges[MOST];
    sp_pageset *made = NULL;
    size_t n = rng_below(r, 4) ? rng_below(r, MOST) : 0, bad;
    for (size_t i = 0; i < n; i++) {
        uint64_t at = rng_between(r, 1, LEAVES) * LEAF - rng_below(r, i & 1 ? LEAF : 70);
        uint64_t length = rng_chance(r, 4) ? rng_between(r, 1, 2 * LEAF) : rng_between(r, 1, 140);
        ranges[i] = (sp_range){at, at + length};
    }
    CHECK_EQ(sp_pageset_from_ranges(NULL, test_engine, ranges, n, &made, &bad), SP_OK);
    return made;
}

/* A leaf of a slot's bitmap: empty, full, a few pages, or many; its borders often dirty. */
static void paint(rng *r, uint8_t *bitmap, uint64_t leaf)
{
    uint64_t kind = rng_below(r, 5), pages = kind == 2 ? 9 : kind == 3 ? 5000 : 0;
    uint8_t *first = bitmap + leaf * LEAF / 8;
    memset(first, kind == 1 ? 0xff : 0, LEAF / 8);
    for (; pages; pages--)
        first[rng_below(r, LEAF / 8)] |= (uint8_t)(1u << rng_below(r, 8));
    if (rng_chance(r, 2)) {
        first[0] |= 1;
        first[LEAF / 8 - 1] |= 0x80;
    }
}

static void check_guest(rng *r, const uint64_t offsets[2])
{
    scene s = {.extra = some_ranges(r), .shared = some_ranges(r)};
    dirty_bench b;
    uint64_t split = (LEAVES / 2) * LEAF + offsets[1];
    sp_memslot slots[] = {{offsets[0], split - offsets[0] - rng_below(r, 2), 0},
                          {split, LEAVES * LEAF - split, 1}};
    uint8_t *bitmap = malloc((LEAVES + 1) * LEAF / 8);
    dirty_open(&b, slots, 2);
    for (size_t i = 0; i < 2; i++) {
        for (uint64_t leaf = 0; leaf <= slots[i].npages / LEAF; leaf++)
            paint(r, bitmap, leaf);
        if (!rng_chance(r, 5))
            CHECK_EQ(sp_log_add_bitmap(b.log, &slots[i], bitmap, 0, slots[i].npages), SP_OK);
    }
    s.harvest = dirty_take(&b);
    check_scene(&s);
    sp_harvest_release(s.harvest);
    sp_pageset_release(s.extra);
    sp_pageset_release(s.shared);
    dirty_close(&b);
    free(bitmap);
}

static void bitmaps_are_cut_anywhere(void)
{
    static const uint64_t offsets[] = {0, 1, 37, 64, LEAF - 1, LEAF / 2 + 3};
    rng r = rng_open(1);
    for (uint64_t n = 0; n < check_scaled(72) && !check_failed(); n++) {
        check_case("guest %d", (int)n);
        check_guest(&r, (uint64_t[]){offsets[n % 6], offsets[n / 6 % 6]});
    }
}

static void sets_alone_are_cut(void)
{
    rng r = rng_open(2);
    for (uint64_t n = 0; n < check_scaled(100) && !check_failed(); n++) {
        scene s = {NULL, some_ranges(&r), some_ranges(&r)};
        check_case("sets %d", (int)n);
        check_scene(&s);
        sp_pageset_release(s.extra);
        sp_pageset_release(s.shared);
    }
}

static void a_number_of_threads_is_bounded(void)
{
    static const size_t bad[] = {0, SP_THREADS_MOST + 1, SIZE_MAX};
    sp_set none = sp_set_empty(&sp_engine_roaring);
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        sp_mem mem;
        sp_merge *merge;
        sp_list shared, private;
        sp_mem_init(&mem, NULL);
        REQUIRE_EQ(sp_merge_new(NULL, NULL, &none, &none, &merge), SP_OK);
        CHECK_EQ(sp_merge_all(merge, bad[i], &mem, &shared, &private), SP_RANGE);
        CHECK(!shared.ranges && !shared.n && !private.ranges && !private.n);
        CHECK_EQ(sp_load(&mem.blocks, relaxed), 0);
        sp_merge_free(merge);
    }
}

int main(void)
{
    RUN_ENGINES(bitmaps_are_cut_anywhere);
    RUN_ENGINES(sets_alone_are_cut);
    RUN(a_number_of_threads_is_bounded);
    return check_close();
}
