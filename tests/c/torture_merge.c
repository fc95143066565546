/* tier: torture
 *
 * torture_merge.c - merges by several threads each, side by side over one harvest and one shared
 * set: every list is the one that a single thread gets.
 */
#include <pthread.h>
#include <stdlib.h>
#include <string.h>

#include "support_dirty.h"
#include "support_engine.h"

enum { LEAF = 65536, LEAVES = 24, CALLERS = 3, ROUNDS = 12 };

static const size_t threads_of[CALLERS] = {2, 3, 7};

typedef struct scene {
    dirty_bench bench;
    sp_harvest *harvest;
    sp_pageset *shared;
    sp_mem mem;
    sp_list want[2];
} scene;

static void merge(const scene *s, size_t threads, sp_mem *mem, sp_list lists[2])
{
    sp_set none = sp_set_empty(&sp_engine_roaring);
    sp_merge *merge;
    REQUIRE_EQ(sp_merge_new(NULL, s->harvest, &none, sp_pageset_set(s->shared), &merge), SP_OK);
    CHECK_EQ(sp_merge_all(merge, threads, mem, &lists[0], &lists[1]), SP_OK);
    sp_merge_free(merge);
}

typedef struct caller {
    const scene *scene;
    size_t threads;
} caller;

static void *work(void *context)
{
    const caller *c = context;
    sp_list got[2] = {{0}, {0}};
    sp_mem mem;
    sp_mem_init(&mem, NULL);
    merge(c->scene, c->threads, &mem, got);
    for (unsigned side = 0; side < 2; side++) {
        const sp_list *want = &c->scene->want[side];
        if (CHECK_EQ(got[side].n, want->n) && CHECK_EQ(got[side].pages, want->pages) && want->n)
            CHECK(memcmp(got[side].ranges, want->ranges, want->n * sizeof *want->ranges) == 0);
        sp_list_free(&mem, &got[side]);
    }
    CHECK_EQ(sp_load(&mem.bytes, relaxed), 0);
    return NULL;
}

/* Pages at random, dense in some leaves, and ranges across their borders. */
static void open_scene(scene *s, rng *r)
{
    sp_range shared[4 * LEAVES], across;
    size_t bytes = LEAVES * LEAF / 8, bad;
    uint8_t *bitmap = calloc(1, bytes);
    *s = (scene){0};
    sp_mem_init(&s->mem, NULL);
    dirty_open(&s->bench, &(sp_memslot){37, LEAVES * LEAF, 0}, 1);
    for (uint64_t leaf = 0; leaf < LEAVES; leaf++)
        for (uint64_t n = rng_below(r, 3) ? rng_below(r, 20) : 3000; n; n--)
            bitmap[leaf * LEAF / 8 + rng_below(r, LEAF / 8)] |= (uint8_t)(1u << rng_below(r, 8));
    CHECK_EQ(
        sp_log_add_bitmap(s->bench.log, sp_memory_at(s->bench.memory, 0), bitmap, 0, LEAVES * LEAF),
        SP_OK);
    free(bitmap);
    for (uint64_t n = 0; n < 2 * LEAVES; n++) {
        across.start = rng_between(r, 1, LEAVES - 1) * LEAF - rng_below(r, 90);
        across.stop = across.start + rng_between(r, 1, 3 * LEAF / 2);
        across.stop = across.stop < LEAVES * LEAF ? across.stop : LEAVES * LEAF;
        if (n < 6)
            CHECK_EQ(sp_log_add_ranges(s->bench.log, &across, 1, &bad), SP_OK);
        shared[n] = (sp_range){across.start, across.start + rng_between(r, 1, 99)};
    }
    s->harvest = dirty_take(&s->bench);
    REQUIRE_EQ(sp_pageset_from_ranges(NULL, test_engine, shared, 2 * LEAVES, &s->shared, &bad),
               SP_OK);
    merge(s, 1, &s->mem, s->want);
    CHECK(s->want[0].n && s->want[1].n > 1000);
}

static void close_scene(scene *s)
{
    sp_list_free(&s->mem, &s->want[0]);
    sp_list_free(&s->mem, &s->want[1]);
    sp_pageset_release(s->shared);
    sp_harvest_release(s->harvest);
    dirty_close(&s->bench);
}

static void every_number_of_threads_gets_the_same(void)
{
    uint64_t rounds = check_scaled(ROUNDS);
    for (uint64_t seed = 0; seed < rounds && !check_failed(); seed++) {
        scene s;
        caller callers[CALLERS];
        pthread_t threads[CALLERS];
        rng r = rng_open(seed);
        check_case("round %d", (int)seed);
        open_scene(&s, &r);
        for (size_t i = 0; i < CALLERS; i++) {
            callers[i] = (caller){&s, threads_of[i]};
            REQUIRE(pthread_create(&threads[i], NULL, work, &callers[i]) == 0);
        }
        for (size_t i = 0; i < CALLERS; i++)
            pthread_join(threads[i], NULL);
        close_scene(&s);
    }
}

int main(void)
{
    RUN_ENGINES(every_number_of_threads_gets_the_same);
    return check_close();
}
