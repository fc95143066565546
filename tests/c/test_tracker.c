/* tier: model
 *
 * test_tracker.c - every call of a tracker against an array of cells (support_strip), and its
 * snapshots and conversions against copies of that array.
 */
#include <stdlib.h>

#include "support_alloc.h"
#include "support_strip.h"
#include "support_tracker.h"

#define HELD 8

typedef struct held {
    sp_snapshot snapshot;
    strip record;
    uint64_t epoch;
} held;

typedef struct world {
    sp_tracker *tracker;
    strip now;
    uint64_t epoch;
    held held[HELD];
    unsigned n;
} world;

static const sp_range windows[] = {
    {0, 70},
    {65500, 65600},
    {(UINT64_C(1) << 22) - 40, (UINT64_C(1) << 22) + 200},
    {(UINT64_C(1) << 31) - 3, (UINT64_C(1) << 31) + 3},
    {(UINT64_C(1) << 32) - 65, (UINT64_C(1) << 32) + 1},
    {SP_GFN_LIMIT - 130, SP_GFN_LIMIT},
};

#define WINDOWS (sizeof windows / sizeof *windows)

/* ---- changes ---- */

static void committed(world *w, uint64_t changed, uint64_t want)
{
    CHECK_EQ(changed, want);
    w->epoch += want != 0;
    CHECK_EQ(sp_tracker_epoch(w->tracker), w->epoch);
    CHECK_EQ(sp_tracker_count(w->tracker), strip_count(&w->now));
}

static void do_convert(world *w, rng *r)
{
    sp_range range = strip_range(&w->now, r);
    bool shared = rng_chance(r, 2);
    uint64_t changed, want = strip_convert(&w->now, range, shared, w->epoch + 1);
    CHECK_EQ(sp_tracker_convert(w->tracker, range.start, range.stop - range.start, shared, true,
                                &changed),
             SP_OK);
    committed(w, changed, want);
}

static void do_convert_list(world *w, rng *r)
{
    sp_range range = strip_range(&w->now, r);
    bool shared = rng_chance(r, 2);
    uint64_t changed, want = strip_convert(&w->now, range, shared, w->epoch + 1);
    sp_pageset *pages;
    REQUIRE_EQ(sp_tracker_convert_list(w->tracker, range.start, range.stop - range.start, shared,
                                       &changed, &pages),
               SP_OK);
    if (want)
        strip_converted_is(&w->now, w->epoch, sp_pageset_set(pages));
    CHECK_EQ(sp_set_count(sp_pageset_set(pages)), want);
    sp_pageset_release(pages);
    committed(w, changed, want);
}

/* Applies up to `most` events; the last is bad if so wanted, and then nothing may change. */
static void do_apply(world *w, rng *r, uint64_t most, bool bad)
{
    size_t n = rng_between(r, 1, most), at;
    sp_event *event = calloc(n, sizeof *event);
    uint64_t changed, want = 0;
    strip before;
    strip_copy(&before, &w->now);
    for (size_t i = 0; i < n; i++) {
        sp_range range = strip_range(&w->now, r);
        event[i] = (sp_event){range.start, range.stop - range.start, (uint8_t)rng_below(r, 2)};
        want += strip_convert(&w->now, range, event[i].shared, w->epoch + 1);
    }
    if (bad && rng_chance(r, 2))
        event[n - 1].shared = 2;
    else if (bad)
        event[n - 1].npages = SP_GFN_LIMIT + 1;
    sp_status status = sp_tracker_apply(w->tracker, event, n, &changed, &at);
    if (bad) {
        CHECK_EQ(status, event[n - 1].shared > 1 ? SP_INVALID : SP_RANGE);
        CHECK_EQ(at, n - 1);
        strip_clear(&w->now);
        w->now = before;
        want = 0;
    } else {
        CHECK_EQ(status, SP_OK);
        strip_clear(&before);
    }
    free(event);
    committed(w, changed, want);
}

static void do_set_list(world *w, rng *r)
{
    sp_range ranges[5];
    size_t n = rng_below(r, 5), bad;
    for (size_t i = 0; i < n; i++)
        ranges[i] = strip_range(&w->now, r);
    uint64_t changed, want = strip_replace(&w->now, ranges, n, w->epoch + 1);
    CHECK_EQ(sp_tracker_set_list(w->tracker, ranges, n, &changed, &bad), SP_OK);
    committed(w, changed, want);
}

/* ---- snapshots ---- */

static void do_snapshot(world *w, rng *r)
{
    if (w->n == HELD)
        return;
    held *h = &w->held[w->n];
    REQUIRE_EQ(sp_tracker_snapshot(w->tracker, true, &h->snapshot), SP_OK);
    w->n++;
    h->epoch = w->epoch;
    CHECK_EQ(sp_snapshot_epoch(&h->snapshot), w->epoch);
    strip_copy(&h->record, &w->now);
    if (!rng_chance(r, 3))
        return;
    sp_snapshot latest;
    CHECK_EQ(sp_tracker_latest(w->tracker, &latest), SP_OK);
    CHECK_EQ(sp_snapshot_epoch(&latest), w->epoch); /* just published */
    sp_snapshot_release(&latest);
}

static void do_clone(world *w, rng *r)
{
    if (!w->n || w->n == HELD)
        return;
    const held *from = &w->held[rng_below(r, w->n)];
    held *to = &w->held[w->n++];
    to->snapshot = sp_snapshot_retain(&from->snapshot);
    to->epoch = from->epoch;
    strip_copy(&to->record, &from->record);
}

static void do_release(world *w, rng *r)
{
    if (!w->n)
        return;
    held *h = &w->held[rng_below(r, w->n)];
    sp_set set = sp_snapshot_set(&h->snapshot);
    strip_is(&h->record, &set);
    sp_snapshot_release(&h->snapshot);
    strip_clear(&h->record);
    *h = w->held[--w->n];
}

static void do_converted(world *w, rng *r)
{
    if (!w->n)
        return;
    const held *a = &w->held[rng_below(r, w->n)], *b = &w->held[rng_below(r, w->n)];
    const held *newer = a->epoch > b->epoch ? a : b, *older = newer == a ? b : a;
    sp_pageset *pages;
    REQUIRE_EQ(sp_snapshot_converted(&newer->snapshot, &older->snapshot, &pages), SP_OK);
    strip_converted_is(&newer->record, older->epoch, sp_pageset_set(pages));
    sp_pageset_release(pages);
}

static void step(world *w, rng *r)
{
    switch (rng_below(r, 12)) {
    case 0:
    case 1:
    case 2: do_convert(w, r); break;
    case 3: do_convert_list(w, r); break;
    case 4: do_apply(w, r, 6, rng_chance(r, 3)); break;
    case 5: do_apply(w, r, rng_chance(r, 8) ? 120 : 3, rng_chance(r, 3)); break;
    case 6: rng_chance(r, 4) ? do_set_list(w, r) : do_convert(w, r); break;
    case 7: do_snapshot(w, r); break;
    case 8: rng_chance(r, 4) ? do_clone(w, r) : do_snapshot(w, r); break;
    case 9: do_release(w, r); break;
    default: do_converted(w, r);
    }
}

/* ---- runs ---- */

static void verify(world *w)
{
    const char *reason;
    CHECK_EQ(sp_tracker_validate(w->tracker, &reason), SP_OK);
    CHECK_VALID(reason);
    strip_is(&w->now, &w->tracker->set);
    CHECK_EQ(tracker_live(w->tracker), tracker_reachable(w->tracker));
}

static void run(uint64_t seed)
{
    test_alloc alloc;
    alloc_init(&alloc);
    world w = {0};
    rng r = rng_open(seed);
    REQUIRE_EQ(sp_tracker_new(&alloc.hook, test_engine, SP_GFN_LIMIT, false, &w.tracker), SP_OK);
    strip_init(&w.now, windows, WINDOWS, SP_GFN_LIMIT);
    for (int i = 0; i < 300 && !check_failed(); i++) {
        check_case("run %llu, step %d", (unsigned long long)seed, i);
        step(&w, &r);
        if (i % 16 == 0)
            verify(&w);
    }
    bool free_first = rng_chance(&r, 2) && w.n;
    CHECK_EQ(sp_tracker_close(w.tracker), SP_OK);
    CHECK_EQ(tracker_live(w.tracker), tracker_reachable(w.tracker));
    if (free_first)
        sp_tracker_free(w.tracker);
    for (int i = 0; i < 4; i++)
        do_converted(&w, &r);
    while (w.n) {
        CHECK(alloc_blocks(&alloc) > 0);
        do_release(&w, &r);
    }
    if (!free_first)
        sp_tracker_free(w.tracker);
    strip_clear(&w.now);
    CHECK_EQ(alloc_blocks(&alloc), 0);
}

static void test_against_the_model(void)
{
    uint64_t runs = check_scaled(60);
    for (uint64_t seed = 0; seed < runs && !check_failed(); seed++)
        run(seed);
}

/* So many conversions between two snapshots, and so many dropped versions between them, that their
 * records are united. */
static void test_long_trails(void)
{
    world w = {0};
    rng r = rng_open(7777);
    REQUIRE_EQ(sp_tracker_new(NULL, test_engine, SP_GFN_LIMIT, false, &w.tracker), SP_OK);
    strip_init(&w.now, windows, WINDOWS, SP_GFN_LIMIT);
    do_snapshot(&w, &r);
    for (int i = 0; i < 2500 && !check_failed(); i++) {
        check_case("change %d", i);
        rng_chance(&r, 2) ? do_set_list(&w, &r) : do_convert(&w, &r);
        if (i % 300 == 299)
            do_snapshot(&w, &r);
    }
    CHECK_EQ(w.n, HELD);
    while (w.n > 1 && !check_failed()) {
        for (int i = 0; i < 10; i++)
            do_converted(&w, &r);
        /* The first goes last: all that the others held is then between it and the newest. */
        sp_snapshot_release(&w.held[1].snapshot);
        strip_clear(&w.held[1].record);
        w.held[1] = w.held[--w.n];
    }
    do_release(&w, &r);
    verify(&w);
    sp_tracker_free(w.tracker);
    strip_clear(&w.now);
}

int main(void)
{
    RUN_TRACKERS(test_against_the_model);
    RUN_TRACKERS(test_long_trails);
    return check_close();
}
