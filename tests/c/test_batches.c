/* tier: differential
 *
 * test_batches.c - batches of events against the same events one by one, and what becomes of their
 * logs: long ones are united once, while memory lasts, or dropped where nobody can ask for them.
 */
#include <stdlib.h>

#include "support_alloc.h"
#include "support_tracker.h"

/* Conversions of 64 leaves' worth of buffers; starts are 40 pages apart, so runs stay runs. */
static sp_event random_event(rng *r)
{
    uint64_t start = rng_below(r, 100000) * 40;
    return (sp_event){start, rng_between(r, 1, 50), (uint8_t)rng_below(r, 2)};
}

static sp_event *random_events(rng *r, size_t n)
{
    sp_event *events = malloc(n * sizeof *events);
    for (size_t i = 0; i < n; i++)
        events[i] = random_event(r);
    return events;
}

static uint64_t apply(sp_tracker *tracker, const sp_event *events, size_t n)
{
    uint64_t changed = 0;
    size_t bad;
    CHECK_EQ(sp_tracker_apply(tracker, events, n, &changed, &bad), SP_OK);
    return changed;
}

static uint64_t one_by_one(sp_tracker *tracker, const sp_event *events, size_t n)
{
    uint64_t changed = 0;
    for (size_t i = 0; i < n; i++)
        changed += tracker_convert(tracker, events[i].start, events[i].npages, events[i].shared);
    return changed;
}

static bool same_set(const sp_set *a, const sp_set *b)
{
    sp_pageset *pages = NULL;
    CHECK_EQ(sp_pageset_combine(NULL, SP_XOR, a, b, &pages), SP_OK);
    bool same = CHECK_EQ(sp_set_count(sp_pageset_set(pages)), 0);
    sp_pageset_release(pages);
    return same;
}

/* What was converted between two snapshots of one tracker is what was between those of another. */
static void check_converted(const sp_snapshot *now, const sp_snapshot *then,
                            const sp_snapshot *other_now, const sp_snapshot *other_then)
{
    sp_pageset *a = NULL, *b = NULL;
    REQUIRE_EQ(sp_snapshot_converted(now, then, &a), SP_OK);
    if (CHECK_EQ(sp_snapshot_converted(other_now, other_then, &b), SP_OK))
        same_set(sp_pageset_set(a), sp_pageset_set(b));
    sp_pageset_release(a);
    sp_pageset_release(b);
}

static void check_at_rest(sp_tracker *tracker)
{
    const char *reason;
    CHECK_EQ(sp_tracker_validate(tracker, &reason), SP_OK);
    CHECK_VALID(reason);
    CHECK_EQ(tracker_live(tracker), tracker_reachable(tracker));
}

static void batches_do_what_single_calls_do(void)
{
    rng r = rng_open(1);
    sp_tracker *batched = tracker_new(SP_GFN_LIMIT, false),
               *single = tracker_new(SP_GFN_LIMIT, false);
    sp_snapshot then = tracker_take(batched), single_then = tracker_take(single);
    for (uint64_t round = 0; round < check_scaled(60) && !check_failed(); round++) {
        size_t n = rng_below(&r, rng_chance(&r, 8) ? 30000 : 600);
        sp_event *events = random_events(&r, n);
        CHECK_EQ(apply(batched, events, n), one_by_one(single, events, n));
        free(events);
        if (!rng_chance(&r, 3))
            continue;
        sp_snapshot now = tracker_take(batched), single_now = tracker_take(single);
        sp_set set = sp_snapshot_set(&now), single_set = sp_snapshot_set(&single_now);
        same_set(&set, &single_set);
        check_converted(&now, &then, &single_now, &single_then);
        sp_snapshot_release(&then);
        sp_snapshot_release(&single_then);
        then = now;
        single_then = single_now;
    }
    check_at_rest(batched);
    check_at_rest(single);
    sp_snapshot_release(&then);
    sp_snapshot_release(&single_then);
    sp_tracker_free(batched);
    sp_tracker_free(single);
}

enum { MANY = 100000 }; /* more than 256 cells hold */

static void a_long_log_is_united_once(void)
{
    rng r = rng_open(2);
    sp_event *events = random_events(&r, MANY);
    sp_tracker *tracker = tracker_new(SP_GFN_LIMIT, false),
               *single = tracker_new(SP_GFN_LIMIT, false);
    sp_snapshot then = tracker_take(tracker), single_then = tracker_take(single);
    apply(tracker, events, MANY);
    one_by_one(single, events, MANY);
    sp_snapshot now = tracker_take(tracker), single_now = tracker_take(single);
    sp_slot newest = tracker->epoch.newest;
    CHECK(sp_epoch_version(&tracker->epoch, newest)->trail.count <= 256);
    check_converted(&now, &then, &single_now, &single_then);
    check_at_rest(tracker);
    sp_snapshot_release(&then);
    sp_snapshot_release(&single_then);
    sp_snapshot_release(&now);
    sp_snapshot_release(&single_now);
    sp_tracker_free(tracker);
    sp_tracker_free(single);
    free(events);
}

/* An allocator that refuses large blocks from when it is told to: cells of the log can be had, the
 * lists that unite them cannot. */
typedef struct small_only {
    sp_allocator hook;
    test_alloc under;
    bool on;
} small_only;

static void *alloc_small(void *context, size_t bytes, int zeroed)
{
    small_only *it = context;
    return it->on && bytes > 8192 ? NULL : it->under.hook.alloc(&it->under, bytes, zeroed);
}

static void free_small(void *context, void *block, size_t bytes)
{
    small_only *it = context;
    it->under.hook.free(&it->under, block, bytes);
}

static void a_log_that_cannot_be_united_stays_whole(void)
{
    rng r = rng_open(3);
    small_only memory = {.on = false};
    alloc_init(&memory.under);
    memory.hook = (sp_allocator){alloc_small, free_small, &memory, NULL};
    sp_event *events = random_events(&r, MANY);
    sp_tracker *tracker = NULL, *single = tracker_new(SP_GFN_LIMIT, false);
    REQUIRE_EQ(sp_tracker_new(&memory.hook, test_engine, SP_GFN_LIMIT, false, &tracker), SP_OK);
    sp_snapshot then = tracker_take(tracker), single_then = tracker_take(single);
    memory.on = true;
    CHECK_EQ(apply(tracker, events, MANY), one_by_one(single, events, MANY));
    memory.on = false;
    sp_snapshot now = tracker_take(tracker), single_now = tracker_take(single);
    check_converted(&now, &then, &single_now, &single_then);
    check_at_rest(tracker);
    sp_snapshot_release(&then);
    sp_snapshot_release(&single_then);
    sp_snapshot_release(&now);
    sp_snapshot_release(&single_now);
    sp_tracker_free(tracker);
    sp_tracker_free(single);
    CHECK_EQ(alloc_blocks(&memory.under), 0);
    free(events);
}

/* Nobody has a snapshot: what a batch logged goes with it, and what single calls do, in time. */
static void a_log_nobody_can_ask_for_is_dropped(void)
{
    rng r = rng_open(4);
    sp_event *events = random_events(&r, MANY);
    sp_tracker *tracker = tracker_new(SP_GFN_LIMIT, false);
    uint64_t longest = 0;
    apply(tracker, events, MANY);
    CHECK_EQ(tracker->changes.trail.count, 0);
    for (size_t i = 0; i < MANY; i++) {
        tracker_convert(tracker, events[i].start, events[i].npages, !events[i].shared);
        longest = sp_max(longest, tracker->changes.trail.count);
    }
    CHECK(longest > 0 && longest <= 256);
    check_at_rest(tracker);
    sp_tracker_free(tracker);
    free(events);
}

int main(void)
{
    RUN_TRACKERS(batches_do_what_single_calls_do);
    RUN_TRACKERS(a_long_log_is_united_once);
    RUN_TRACKERS(a_log_that_cannot_be_united_stays_whole);
    RUN_TRACKERS(a_log_nobody_can_ask_for_is_dropped);
    return check_close();
}
