/* tier: model
 *
 * test_loose.c - lists of loose pages against a byte a page: sorting, reading from anywhere in
 * batches of every size, and moving to a set.
 */
#include <stdlib.h>
#include <string.h>

#include "dirty/loose.h"
#include "support_set.h"

enum { MOST = 3000, TEXTURES = 7 };

typedef struct list {
    test_alloc alloc;
    sp_mem mem;
    sp_loose loose;
    model model;
} list;

static void list_open(list *l, const sp_range *windows, size_t n)
{
    *l = (list){0};
    alloc_init(&l->alloc);
    sp_mem_init(&l->mem, &l->alloc.hook);
    model_init(&l->model, windows, n);
}

static void list_close(list *l)
{
    sp_loose_clear(&l->loose, &l->mem);
    CHECK(!l->loose.runs && !l->loose.n && !l->loose.room);
    CHECK_EQ(alloc_blocks(&l->alloc), 0);
    model_clear(&l->model);
}

static void put(list *l, uint64_t start, uint64_t npages)
{
    if (!CHECK_EQ(sp_loose_reserve(&l->loose, &l->mem, 1), SP_OK))
        return;
    l->loose.runs[l->loose.n++] = sp_loose_run(start, npages);
    model_assign(&l->model, start, start + npages, true);
}

static void sort(list *l)
{
    uint64_t *room = malloc(l->loose.n * sizeof *room + 1);
    sp_loose_sort(&l->loose, room);
    CHECK(sp_loose_is_sorted(&l->loose));
    free(room);
}

/* A run within a window that does not end past it. */
static void put_random(list *l, rng *r, unsigned texture)
{
    const model_window *w = &l->model.window[rng_below(r, l->model.n)];
    uint64_t start = rng_between(r, w->start, w->stop - 1), npages = 1;
    switch (texture) {
    case 0: break;
    case 1: npages = rng_between(r, 1, 9); break;
    case 2: npages = rng_between(r, 1, SP_LOOSE_MOST); break;
    case 3: start = w->start + (start - w->start) % 200; break; /* several in a word */
    case 4: start = w->start + (start - w->start) / 64 * 64 + 63, npages = 2; break;
    case 5: start = w->start + (start - w->start) % 3 * 64, npages = 64; break;
    default: npages = rng_chance(r, 20) ? SP_LOOSE_MOST : 1;
    }
    start = sp_min(start, w->stop - 1);
    put(l, start, sp_min(npages, w->stop - start));
}

/* ---- what a walk yields ---- */

/* All ranges, read in batches of a room. */
static void check_walk(const list *l, size_t room)
{
    size_t n, got, used = 0;
    sp_range *want = model_ranges(&l->model, 0, SP_GFN_LIMIT, &n);
    uint64_t *all = malloc((2 * n + 1) * sizeof *all);
    uint64_t *batch = malloc(room * sizeof *batch);
    sp_loose_cursor c = sp_loose_open(&l->loose, 0);
    while ((got = sp_loose_toggles(&c, batch, room)) && CHECK(got <= room && used + got <= 2 * n)) {
        memcpy(all + used, batch, got * sizeof *all);
        used += got;
    }
    CHECK_EQ(used, 2 * n);
    CHECK(memcmp(all, want, used * sizeof *all) == 0);
    free(want);
    free(all);
    free(batch);
}

static void check_walks(const list *l)
{
    static const size_t rooms[] = {SP_TOGGLES_ROOM, SP_TOGGLES_ROOM + 1, SP_TOGGLES_ROOM + 77,
                                   100000};
    for (size_t i = 0; i < sizeof rooms / sizeof *rooms; i++)
        check_walk(l, rooms[i]);
}

static void check_set(const list *l, const sp_range *windows, size_t n)
{
    set_bench b;
    set_bench_open(&b, windows, n);
    model_combine(&b.model, SP_OR, &b.model, &l->model);
    CHECK_EQ(sp_loose_add_to(&l->loose, &b.edit, &b.set), SP_OK);
    set_bench_matches(&b);
    set_bench_close(&b);
}

static void lists_match_the_model(void)
{
    sp_range windows[BORDER_WINDOWS];
    rng r = rng_open(1);
    border_windows(9000, windows);
    for (uint64_t step = 0; step < check_scaled(150) && !check_failed(); step++) {
        list l;
        unsigned texture = (unsigned)(step % TEXTURES);
        size_t n = rng_below(&r, step % 3 ? 40 : MOST), few = rng_between(&r, 1, BORDER_WINDOWS);
        check_case("step %d, texture %u, %zu runs", (int)step, texture, n);
        list_open(&l, windows + BORDER_WINDOWS - few, few);
        for (size_t i = 0; i < n; i++)
            put_random(&l, &r, texture);
        check_set(&l, windows + BORDER_WINDOWS - few, few);
        sort(&l);
        check_walks(&l);
        list_close(&l);
    }
}

/* From `start` on the pages are those of the list; before it, there may be some of them. */
static void check_walk_from(const list *l, uint64_t start)
{
    uint64_t toggles[20000];
    model got;
    model_copy(&got, &l->model);
    model_assign(&got, 0, SP_GFN_LIMIT, false);
    sp_loose_cursor c = sp_loose_open(&l->loose, start);
    for (size_t i = 0, n = sp_loose_toggles(&c, toggles, 20000); i < n; i += 2)
        model_assign(&got, toggles[i], toggles[i + 1], true);
    for (uint64_t gfn = 0; gfn < l->model.window[0].stop && !check_failed(); gfn++) {
        bool want = model_contains(&l->model, gfn), has = model_contains(&got, gfn);
        CHECK(gfn < start ? !has || want : has == want);
    }
    model_clear(&got);
}

static void a_walk_begins_anywhere(void)
{
    const sp_range window = {0, 40000};
    rng r = rng_open(2);
    for (uint64_t step = 0; step < check_scaled(40) && !check_failed(); step++) {
        list l;
        list_open(&l, &window, 1);
        for (size_t i = 0; i < 1 + step; i++)
            put_random(&l, &r, (unsigned)(step % TEXTURES));
        sort(&l);
        for (unsigned i = 0; i < 40 && !check_failed(); i++) {
            uint64_t start = rng_below(&r, 41000);
            check_case("step %d from %d", (int)step, (int)start);
            check_walk_from(&l, start);
        }
        list_close(&l);
    }
}

/* ---- by hand ---- */

/* The toggles of a few runs, given as (start, pages), in the order given. */
static void check_runs(const uint64_t (*runs)[2], size_t n, const uint64_t *want, size_t nwant)
{
    uint64_t words[16], room[16], toggles[SP_TOGGLES_ROOM + 64];
    for (size_t i = 0; i < n; i++)
        words[i] = sp_loose_run(runs[i][0], runs[i][1]);
    sp_loose loose = {words, n, 16};
    sp_loose_sort(&loose, room);
    sp_loose_cursor c = sp_loose_open(&loose, 0);
    REQUIRE_EQ(sp_loose_toggles(&c, toggles, sizeof toggles / sizeof *toggles), nwant);
    for (size_t i = 0; i < nwant; i++)
        CHECK_EQ(toggles[i], want[i]);
}

#define RUNS(...) (const uint64_t[][2]){__VA_ARGS__}, sizeof((uint64_t[][2]){__VA_ARGS__}) / 16
#define TOGGLES(...) (const uint64_t[]){__VA_ARGS__}, sizeof((uint64_t[]){__VA_ARGS__}) / 8

static void runs_join_by_hand(void)
{
    const uint64_t last = SP_GFN_LIMIT - 1;
    check_runs(NULL, 0, NULL, 0);
    check_runs(RUNS({0, 1}), TOGGLES(0, 1));
    check_runs(RUNS({5, 1}, {3, 1}, {5, 1}, {4, 1}), TOGGLES(3, 6));
    check_runs(RUNS({64, 1}, {63, 1}), TOGGLES(63, 65));
    check_runs(RUNS({65, 1}, {63, 1}), TOGGLES(63, 64, 65, 66));
    check_runs(RUNS({60, 200}, {10, 1}, {250, 20}, {62, 1}), TOGGLES(10, 11, 60, 270));
    check_runs(RUNS({0, 4096}, {4096, 4096}, {8193, 1}), TOGGLES(0, 8192, 8193, 8194));
    check_runs(RUNS({100, 4096}, {200, 1}, {201, 1}, {300, 1}), TOGGLES(100, 4196));
    check_runs(RUNS({last, 1}, {0, 64}, {0, 1}), TOGGLES(0, 64, last, last + 1));
    check_runs(RUNS({last - 4095, 4096}, {last - 5000, 10}),
               TOGGLES(last - 5000, last - 4990, last - 4095, last + 1));
}

/* Runs of which the first is far above the others, and longer: only the gfn orders them. */
static void the_pages_of_a_run_do_not_order_it(void)
{
    check_runs(RUNS({UINT64_C(3) << 50, 1}, {UINT64_C(1) << 50, 4096}, {7, 4000}),
               TOGGLES(7, 4007, UINT64_C(1) << 50, (UINT64_C(1) << 50) + 4096, UINT64_C(3) << 50,
                       (UINT64_C(3) << 50) + 1));
}

static void room_is_bounded(void)
{
    test_alloc alloc;
    sp_mem mem;
    sp_loose loose = {0};
    alloc_init(&alloc);
    sp_mem_init(&mem, &alloc.hook);
    CHECK_EQ(sp_loose_reserve(&loose, &mem, 0), SP_OK);
    CHECK(!loose.runs);
    CHECK_EQ(sp_loose_reserve(&loose, &mem, SIZE_MAX), SP_NOMEM);
    CHECK_EQ(sp_loose_reserve(&loose, &mem, UINT64_C(1) << 32), SP_NOMEM);
    CHECK_EQ(alloc_blocks(&alloc), 0);
    CHECK_EQ(sp_loose_reserve(&loose, &mem, 3), SP_OK);
    CHECK(loose.room >= 3);
    loose.runs[loose.n++] = 77;
    alloc_arm(&alloc, 1, 1);
    CHECK_EQ(sp_loose_reserve(&loose, &mem, 100), SP_NOMEM);
    CHECK_EQ(loose.n, 1);
    CHECK_EQ(loose.runs[0], 77);
    CHECK_EQ(sp_loose_reserve(&loose, &mem, UINT32_MAX), SP_NOMEM);
    sp_loose_clear(&loose, &mem);
    CHECK_EQ(alloc_blocks(&alloc), 0);
}

int main(void)
{
    RUN(lists_match_the_model);
    RUN(a_walk_begins_anywhere);
    RUN(runs_join_by_hand);
    RUN(the_pages_of_a_run_do_not_order_it);
    RUN(room_is_bounded);
    return check_close();
}
