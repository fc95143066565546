/* tier: model */
/*
 * Trackers that choose their engine: they change it when the other is smaller and not before, keep
 * what is held by snapshots, and stay as they are when memory is short.
 */
#include <stdlib.h>

#include "base/bits.h"
#include "set/choice.h"
#include "support_alloc.h"
#include "support_tracker.h"

enum { COMB = 30000, LEAF = 65536 };

static const char *engine_of(sp_tracker *tracker)
{
    sp_tracker_stats stats = {0};
    CHECK_EQ(sp_tracker_measure(tracker, &stats), SP_OK);
    return stats.engine;
}

static sp_tracker *automatic(const test_alloc *alloc)
{
    sp_tracker *tracker = NULL;
    CHECK_EQ(sp_tracker_new(&alloc->hook, NULL, SP_GFN_LIMIT, false, &tracker), SP_OK);
    return tracker;
}

/* Every other page of a few leaves: a bit a page, or eight bytes. */
static void comb(sp_tracker *tracker, bool shared)
{
    for (uint64_t i = 0; i < COMB; i++)
        CHECK_EQ(tracker_convert(tracker, 2 * i + 1, 1, shared), 1);
}

static void hostile_sets_change_engine_and_back(void)
{
    test_alloc alloc;
    alloc_init(&alloc);
    sp_tracker *tracker = automatic(&alloc);
    CHECK_STR(engine_of(tracker), "interval");
    for (uint64_t i = 0; i < 300; i++)
        tracker_convert(tracker, i << 20, 1, true);
    sp_snapshot sparse = tracker_take(tracker);
    comb(tracker, true);
    sp_snapshot dense = tracker_take(tracker);
    CHECK_STR(engine_of(tracker), "roaring");
    comb(tracker, false);
    sp_snapshot again = tracker_take(tracker);
    CHECK_STR(engine_of(tracker), "interval");
    sp_set was = sp_snapshot_set(&sparse), then = sp_snapshot_set(&dense);
    sp_set now = sp_snapshot_set(&again);
    CHECK_STR(sp_set_engine_name(&was), "interval");
    CHECK_STR(sp_set_engine_name(&then), "roaring");
    CHECK_STR(sp_set_engine_name(&now), "interval");
    CHECK_EQ(sp_set_count(&was), 300);
    CHECK_EQ(sp_set_count(&then), COMB + 300);
    CHECK_EQ(sp_set_count(&now), 300);
    CHECK_EQ(sp_set_intersection(sp_kernels_active(), &was, &now), 300);
    CHECK_VALID(sp_set_validate(&then));
    CHECK_EQ(tracker_live(tracker), tracker_reachable(tracker));
    sp_pageset *converted;
    CHECK_EQ(sp_snapshot_converted(&again, &sparse, &converted), SP_OK);
    CHECK_EQ(sp_set_count(sp_pageset_set(converted)), COMB);
    sp_pageset_release(converted);
    sp_snapshot_release(&dense);
    sp_snapshot_release(&sparse);
    sp_snapshot_release(&again);
    CHECK_STR(engine_of(tracker), "interval");
    CHECK_EQ(tracker_live(tracker), tracker_reachable(tracker));
    sp_tracker_free(tracker);
    CHECK_EQ(alloc_blocks(&alloc), 0);
}

/* A list is held by the engine that suits it from the start, and one that suits the next list. */
static void lists_choose_at_once(void)
{
    static sp_range ranges[COMB];
    test_alloc alloc;
    uint64_t changed;
    size_t bad;
    alloc_init(&alloc);
    sp_tracker *tracker = automatic(&alloc);
    for (unsigned round = 0; round < 4; round++) {
        uint64_t step = round & 1 ? 4 * (uint64_t)LEAF : 2;
        for (uint64_t i = 0; i < COMB; i++)
            ranges[i] = (sp_range){step * i, step * i + 1};
        CHECK_EQ(sp_tracker_set_list(tracker, ranges, COMB, &changed, &bad), SP_OK);
        CHECK_STR(sp_set_engine_name(&tracker->set), round & 1 ? "interval" : "roaring");
        CHECK_EQ(sp_tracker_count(tracker), COMB);
    }
    sp_tracker_free(tracker);
    CHECK_EQ(alloc_blocks(&alloc), 0);
}

/* Nobody takes a snapshot, and the set shrinks by one call: it is small all the same. */
static void what_becomes_small_is_held_small(void)
{
    test_alloc alloc;
    alloc_init(&alloc);
    sp_tracker *tracker = automatic(&alloc);
    comb(tracker, true);
    CHECK_STR(engine_of(tracker), "roaring");
    tracker_convert(tracker, 40, SP_GFN_LIMIT - 40, false);
    for (uint64_t i = 0; i < 64; i++)
        tracker_convert(tracker, (UINT64_C(1) << 40) + (i << 30), 1, true);
    CHECK_STR(engine_of(tracker), "interval");
    sp_tracker_free(tracker);
    CHECK_EQ(alloc_blocks(&alloc), 0);
}

/* Without memory for the other engine it stays; nothing is lost, and it changes later. */
static void it_stays_where_memory_is_short(void)
{
    test_alloc alloc;
    sp_snapshot taken;
    alloc_init(&alloc);
    sp_tracker *tracker = automatic(&alloc);
    bool stayed = false;
    for (uint64_t i = 0; i < COMB && !check_failed(); i++) {
        const sp_engine *engine = tracker->set.engine;
        tracker_convert(tracker, 2 * i, 1, true);
        if (i % 500)
            continue;
        alloc_arm(&alloc, rng_below(&(rng){i}, 4) + 1, 0);
        sp_status status = sp_tracker_snapshot(tracker, true, &taken);
        stayed |= !status && alloc_failed(&alloc) && tracker->set.engine == engine;
        alloc_arm(&alloc, 0, 0);
        if (!status)
            sp_snapshot_release(&taken);
        CHECK_EQ(sp_set_count(&tracker->set), i + 1);
        CHECK_VALID(sp_set_validate(&tracker->set));
    }
    CHECK(stayed);
    for (uint64_t i = COMB; i < 2 * COMB; i++)
        tracker_convert(tracker, 2 * i, 1, true);
    CHECK_STR(engine_of(tracker), "roaring");
    CHECK_EQ(sp_tracker_count(tracker), 2 * COMB);
    CHECK_EQ(tracker_live(tracker), tracker_reachable(tracker));
    sp_tracker_free(tracker);
    CHECK_EQ(alloc_blocks(&alloc), 0);
}

/* A batch that alternates in far places, so that few runs stay in the end. */
static void scatter(sp_event *events, size_t n)
{
    for (size_t i = 0; i < n; i++)
        events[i] = (sp_event){.start = (i / 2 % 700) << 20, .npages = 1, .shared = !(i & 1)};
}

/* Whoever makes a long batch: the set is as if it were made one by one, held small, and untouched
 * where the batch fails, at its last event or for want of memory anywhere. */
static void long_batches_leave_no_trace_of_who_made_them(void)
{
    enum { N = 4 * COMB / 30, LAST = N - 1 };
    static sp_event events[N];
    test_alloc alloc;
    uint64_t changed;
    size_t bad;
    alloc_init(&alloc);
    sp_tracker *tracker = automatic(&alloc);
    tracker_convert(tracker, 5, 1, true);
    scatter(events, N);
    events[LAST] = (sp_event){.start = UINT64_C(1) << 29, .npages = SP_GFN_LIMIT, .shared = 1};
    CHECK_EQ(sp_tracker_apply(tracker, events, N, &changed, &bad), SP_RANGE);
    CHECK_EQ(bad, LAST);
    CHECK_STR(engine_of(tracker), "interval");
    CHECK_EQ(sp_tracker_count(tracker), 1);
    events[LAST].npages = 1;
    uint64_t refused = 0;
    for (uint64_t nth = 1; !check_failed(); nth++) {
        alloc_arm(&alloc, nth, 1);
        sp_status status = sp_tracker_apply(tracker, events, N, &changed, &bad);
        refused += alloc_failed(&alloc) != 0;
        alloc_arm(&alloc, 0, 0);
        CHECK_VALID(sp_set_validate(&tracker->set));
        if (status == SP_OK)
            break;
        CHECK_EQ(sp_tracker_count(tracker), 1);
        CHECK_EQ(tracker_live(tracker), tracker_reachable(tracker));
        nth += nth / 16;
    }
    CHECK(refused > 10);
    CHECK_EQ(changed, N);
    CHECK_STR(engine_of(tracker), "interval");
    CHECK_EQ(sp_tracker_count(tracker), 3);
    CHECK_EQ(tracker_live(tracker), tracker_reachable(tracker));
    sp_tracker_free(tracker);
    CHECK_EQ(alloc_blocks(&alloc), 0);
}

/* A set of many runs that melt together and of which another is made, while its old nodes are held:
 * it is looked at for what it is now. */
static void what_is_held_hides_nothing(void)
{
    enum { N = 100000 };
    static sp_range ranges[N];
    const uint64_t step = 200000;
    uint64_t changed;
    size_t bad;
    test_alloc alloc;
    alloc_init(&alloc);
    sp_tracker *tracker = automatic(&alloc);
    for (uint64_t i = 0; i < N; i++)
        ranges[i] = (sp_range){step * i, step * i + step / 2};
    CHECK_EQ(sp_tracker_set_list(tracker, ranges, N, &changed, &bad), SP_OK);
    CHECK_STR(engine_of(tracker), "interval");
    sp_snapshot held = tracker_take(tracker);
    tracker_convert(tracker, 0, step * N, true);
    for (uint64_t i = 0; i < N / 10; i++)
        tracker_convert(tracker, 2 * i, 1, false);
    sp_snapshot taken = tracker_take(tracker);
    CHECK_STR(engine_of(tracker), "roaring");
    sp_snapshot_release(&taken);
    sp_snapshot_release(&held);
    sp_tracker_free(tracker);
    CHECK_EQ(alloc_blocks(&alloc), 0);
}

/* A long batch that changes nothing leaves the nodes that the newest version shares. */
static void long_batches_of_nothing_copy_nothing(void)
{
    enum { N = 2000 };
    static sp_event events[N];
    uint64_t changed;
    size_t bad;
    test_alloc alloc;
    alloc_init(&alloc);
    sp_tracker *tracker = automatic(&alloc);
    for (uint64_t i = 0; i < N; i++) {
        events[i] = (sp_event){.start = i << 18, .npages = 1, .shared = 1};
        tracker_convert(tracker, i << 18, 1, true);
    }
    sp_snapshot taken = tracker_take(tracker);
    sp_set published = sp_snapshot_set(&taken);
    uint64_t bytes = alloc_bytes(&alloc);
    CHECK_EQ(sp_tracker_apply(tracker, events, N, &changed, &bad), SP_OK);
    CHECK_EQ(changed, 0);
    CHECK_EQ(tracker->set.root, published.root);
    CHECK_EQ(alloc_bytes(&alloc), bytes);
    sp_snapshot_release(&taken);
    sp_tracker_free(tracker);
    CHECK_EQ(alloc_blocks(&alloc), 0);
}

/* An allocator that remembers the most bytes live. */
typedef struct peak {
    test_alloc alloc;
    uint64_t bytes;
} peak;

static void *peak_alloc(void *context, size_t bytes, int zeroed)
{
    peak *p = context;
    void *block = p->alloc.hook.alloc(p->alloc.hook.context, bytes, zeroed);
    p->bytes = sp_max(p->bytes, alloc_bytes(&p->alloc));
    return block;
}

static void peak_free(void *context, void *block, size_t bytes)
{
    peak *p = context;
    p->alloc.hook.free(p->alloc.hook.context, block, bytes);
}

/* A page in every 2^40 takes roaring's engine some 2,500 bytes: such batches are made on runs, and
 * so are those that are put into a set of such pages. */
static void far_batches_are_made_on_runs(void)
{
    enum { N = 4000, BYTES = 400 };
    static sp_event events[N];
    for (unsigned far = 0; far < 2; far++) {
        peak p = {.bytes = 0};
        const sp_allocator hook = {.alloc = peak_alloc, .free = peak_free, .context = &p};
        uint64_t changed;
        size_t bad;
        sp_tracker *tracker = NULL;
        alloc_init(&p.alloc);
        CHECK_EQ(sp_tracker_new(&hook, NULL, SP_GFN_LIMIT, false, &tracker), SP_OK);
        for (uint64_t i = 0; far && i < N; i++)
            tracker_convert(tracker, i << 40, 1, true);
        for (uint64_t i = 0; i < N; i++)
            events[i] = (sp_event){.start = far ? 2 * i : i << 40, .npages = 1, .shared = 1};
        CHECK_EQ(sp_tracker_apply(tracker, events, N, &changed, &bad), SP_OK);
        CHECK_EQ(sp_tracker_count(tracker), far ? 2 * N - 1 : N);
        CHECK(p.bytes < (uint64_t)N * BYTES);
        sp_tracker_free(tracker);
        CHECK_EQ(alloc_blocks(&p.alloc), 0);
    }
}

/* ---- the estimate ---- */

static void add(sp_edit *edit, sp_set *set, rng *r, unsigned texture)
{
    uint64_t at = rng_below(r, 1 << 26);
    for (uint64_t n = rng_between(r, 1, 3000); n--;) {
        uint64_t npages = texture == 0   ? 1
                          : texture == 1 ? rng_between(r, 1, 16)
                                         : rng_between(r, 1, 4000);
        CHECK_EQ(sp_set_assign(edit, set, at, at + npages, true), SP_OK);
        at += npages + (texture == 0 ? 1 : rng_between(r, 1, 1 << rng_below(r, 17)));
    }
}

/* What is estimated is what it takes, within an eighth and a few nodes. */
static void estimates_are_near(void)
{
    const sp_kernels *k = sp_kernels_active();
    rng r = rng_open(1);
    for (uint64_t round = 0; round < check_scaled(60) && !check_failed(); round++) {
        const sp_engine *engines[] = {&sp_engine_interval, &sp_engine_roaring};
        sp_mem mem;
        sp_mem_init(&mem, NULL);
        sp_edit edit = sp_edit_private(&mem, k);
        sp_set set = sp_set_empty(engines[round & 1]), made;
        for (uint64_t n = rng_below(&r, 6); n--;)
            add(&edit, &set, &r, (unsigned)rng_below(&r, 3));
        for (unsigned i = 0; i < 2; i++) {
            sp_set_stats stats;
            CHECK_EQ(sp_set_convert(&edit, &set, engines[i], &made), SP_OK);
            sp_set_measure(&made, &stats);
            uint64_t guess = sp_set_estimate(k, &set, engines[i], UINT64_MAX);
            check_case("round %d, %s, %d bytes, estimate %d", (int)round,
                       i ? "roaring" : "interval", (int)stats.bytes, (int)guess);
            CHECK(guess <= stats.bytes + stats.bytes / 8 + 2500);
            CHECK(stats.bytes <= guess + guess / 8 + 2500);
            sp_set_retire(&edit, &made);
        }
        sp_set_retire(&edit, &set);
    }
}

int main(void)
{
    RUN(hostile_sets_change_engine_and_back);
    RUN(lists_choose_at_once);
    RUN(what_becomes_small_is_held_small);
    RUN(it_stays_where_memory_is_short);
    RUN(long_batches_leave_no_trace_of_who_made_them);
    RUN(what_is_held_hides_nothing);
    RUN(long_batches_of_nothing_copy_nothing);
    RUN(far_batches_are_made_on_runs);
    RUN(estimates_are_near);
    return check_close();
}
