/* tier: unit
 *
 * test_tracker_calls.c - what each call of a tracker says and leaves behind: counts, epochs, bad
 * input, conversions between snapshots, closing, the lag of latest.
 */
#include <poll.h>

#include "support_tracker.h"

static sp_snapshot latest(sp_tracker *tracker)
{
    sp_snapshot made = {0};
    CHECK_EQ(sp_tracker_latest(tracker, &made), SP_OK);
    return made;
}

/* Pages converted after older up to newer, and whether `gfn` is among them. */
static uint64_t converted(const sp_snapshot *newer, const sp_snapshot *older, uint64_t gfn,
                          bool *in)
{
    sp_pageset *pages = NULL;
    CHECK_EQ(sp_snapshot_converted(newer, older, &pages), SP_OK);
    uint64_t count = sp_set_count(sp_pageset_set(pages));
    *in = sp_set_contains(sp_pageset_set(pages), gfn);
    sp_pageset_release(pages);
    return count;
}

/* ---- counts ---- */

static void test_a_new_tracker(void)
{
    sp_tracker *tracker = NULL;
    CHECK_EQ(sp_tracker_new(NULL, test_engine, SP_GFN_LIMIT + 1, false, &tracker), SP_RANGE);
    CHECK(!tracker);
    static const uint64_t sizes[] = {0, 1, 65536, 65537, SP_GFN_LIMIT};
    for (int i = 0; i < 5; i++) {
        tracker = tracker_new(sizes[i], true);
        CHECK_EQ(sp_tracker_count(tracker), sizes[i]);
        CHECK_EQ(sp_tracker_bound(tracker), sizes[i]);
        CHECK_EQ(sp_tracker_epoch(tracker), 0);
        sp_snapshot first = latest(tracker);
        sp_set set = sp_snapshot_set(&first);
        CHECK_EQ(sp_set_count(&set), sizes[i]);
        CHECK_EQ(sp_snapshot_epoch(&first), 0);
        sp_snapshot_release(&first);
        sp_tracker_free(tracker);
    }
}

static void test_epochs_count_changes(void)
{
    sp_tracker *tracker = tracker_new(1000, false);
    CHECK_EQ(tracker_convert(tracker, 10, 20, true), 20);
    CHECK_EQ(sp_tracker_epoch(tracker), 1);
    CHECK_EQ(tracker_convert(tracker, 0, 20, true), 10);
    CHECK_EQ(sp_tracker_epoch(tracker), 2);
    CHECK_EQ(tracker_convert(tracker, 0, 1000, false), 30);
    CHECK_EQ(sp_tracker_epoch(tracker), 3);
    sp_event events[] = {{0, 4, 1}, {2, 4, 1}, {0, 3, 0}, {0, 3, 0}};
    uint64_t changed;
    size_t bad;
    CHECK_EQ(sp_tracker_apply(tracker, events, 4, &changed, &bad), SP_OK);
    CHECK_EQ(changed, 4 + 2 + 3);
    CHECK_EQ(sp_tracker_epoch(tracker), 4);
    CHECK_EQ(sp_tracker_count(tracker), 3);
    bool shared;
    CHECK_EQ(sp_tracker_contains(tracker, 3, true, &shared), SP_OK);
    CHECK(shared);
    CHECK_EQ(sp_tracker_contains(tracker, 2, true, &shared), SP_OK);
    CHECK(!shared);
    sp_tracker_free(tracker);
}

static void test_calls_that_change_nothing(void)
{
    sp_tracker *tracker = tracker_new(SP_GFN_LIMIT, false);
    uint64_t changed;
    size_t bad;
    int fd;
    tracker_convert(tracker, 100, 200000, true);
    sp_snapshot held = tracker_take(tracker);
    CHECK_EQ(sp_tracker_fd(tracker, &fd), SP_OK);
    uint64_t bytes = sp_tracker_bytes(tracker);
    CHECK_EQ(tracker_convert(tracker, 100, 200000, true), 0);
    CHECK_EQ(tracker_convert(tracker, 500, 1, true), 0);
    CHECK_EQ(tracker_convert(tracker, 0, 100, false), 0);
    CHECK_EQ(tracker_convert(tracker, 7, 0, true), 0);
    CHECK_EQ(tracker_convert(tracker, SP_GFN_LIMIT, 0, true), 0);
    sp_event events[] = {{100, 9, 1}, {0, 50, 0}, {3, 0, 1}};
    CHECK_EQ(sp_tracker_apply(tracker, events, 3, &changed, &bad), SP_OK);
    CHECK_EQ(changed, 0);
    CHECK_EQ(sp_tracker_apply(tracker, NULL, 0, &changed, &bad), SP_OK);
    sp_range same[] = {{70000, 200100}, {90, 90}, {100, 80000}};
    CHECK_EQ(sp_tracker_set_list(tracker, same, 3, &changed, &bad), SP_OK);
    CHECK_EQ(changed, 0);
    sp_pageset *pages;
    CHECK_EQ(sp_tracker_convert_list(tracker, 200, 40, true, &changed, &pages), SP_OK);
    CHECK_EQ(changed + sp_set_count(sp_pageset_set(pages)), 0);
    sp_pageset_release(pages);
    CHECK_EQ(sp_tracker_convert_list(tracker, 9, 0, true, &changed, &pages), SP_OK);
    CHECK_EQ(changed + sp_set_count(sp_pageset_set(pages)), 0);
    sp_pageset_release(pages);
    CHECK_EQ(sp_tracker_bytes(tracker), bytes);
    CHECK_EQ(sp_tracker_epoch(tracker), 1);
    struct pollfd ready = {fd, POLLIN, 0};
    CHECK_EQ(poll(&ready, 1, 0), 0);
    sp_snapshot again = tracker_take(tracker);
    CHECK_EQ(again.slot, held.slot);
    sp_snapshot_release(&again);
    sp_snapshot_release(&held);
    sp_tracker_free(tracker);
}

/* 4,096 times 2^52 pages are 2^64: the count must not come out as "nothing changed". */
static void test_the_count_does_not_wrap(void)
{
    enum { FLIPS = 4096 };
    static sp_event events[FLIPS];
    sp_tracker *tracker = tracker_new(SP_GFN_LIMIT, false);
    uint64_t changed;
    size_t bad;
    bool in;
    sp_snapshot before = tracker_take(tracker);
    for (int i = 0; i < FLIPS; i++)
        events[i] = (sp_event){0, SP_GFN_LIMIT, (uint8_t)(i % 2 == 0)};
    CHECK_EQ(sp_tracker_apply(tracker, events, FLIPS, &changed, &bad), SP_OK);
    CHECK_EQ(changed, UINT64_MAX);
    CHECK_EQ(sp_tracker_epoch(tracker), 1);
    sp_snapshot after = tracker_take(tracker);
    CHECK_EQ(converted(&after, &before, 5, &in), SP_GFN_LIMIT);
    sp_snapshot_release(&before);
    sp_snapshot_release(&after);
    sp_tracker_free(tracker);
}

/* ---- bad input ---- */

static void test_bad_ranges(void)
{
    static const uint64_t bad[][2] = {{1001, 0},
                                      {1000, 1},
                                      {0, 1001},
                                      {999, 2},
                                      {UINT64_MAX, 1},
                                      {1, UINT64_MAX},
                                      {UINT64_MAX, UINT64_MAX}};
    sp_tracker *tracker = tracker_new(1000, false);
    tracker_convert(tracker, 5, 5, true);
    for (int i = 0; i < 7; i++) {
        uint64_t changed = 99;
        size_t at = 99;
        sp_pageset *pages;
        sp_event events[] = {{0, 100, 1}, {bad[i][0], bad[i][1], 0}};
        CHECK_EQ(sp_tracker_convert(tracker, bad[i][0], bad[i][1], true, true, &changed), SP_RANGE);
        CHECK_EQ(sp_tracker_convert_list(tracker, bad[i][0], bad[i][1], true, &changed, &pages),
                 SP_RANGE);
        CHECK_EQ(sp_tracker_apply(tracker, events, 2, &changed, &at), SP_RANGE);
        CHECK_EQ(at, 1);
        CHECK_EQ(changed, 0);
    }
    CHECK_EQ(sp_tracker_count(tracker), 5);
    CHECK_EQ(sp_tracker_epoch(tracker), 1);
    sp_tracker_free(tracker);
}

static void test_bad_events_and_lists(void)
{
    sp_tracker *tracker = tracker_new(1000, false);
    uint64_t changed = 99;
    size_t at = 99;
    sp_event events[] = {{0, 100, 1}, {0, 0, 2}, {0, 5000, 1}};
    CHECK_EQ(sp_tracker_apply(tracker, events, 3, &changed, &at), SP_INVALID);
    CHECK_EQ(at, 1);
    sp_range inverted[] = {{0, 9}, {20, 10}};
    CHECK_EQ(sp_tracker_set_list(tracker, inverted, 2, &changed, &at), SP_INVALID);
    CHECK_EQ(at, 1);
    sp_range beyond[] = {{0, SP_GFN_LIMIT + 1}, {0, 9}};
    CHECK_EQ(sp_tracker_set_list(tracker, beyond, 2, &changed, &at), SP_RANGE);
    CHECK_EQ(at, 0);
    sp_range too_high[] = {{0, 9}, {990, 1001}};
    CHECK_EQ(sp_tracker_set_list(tracker, too_high, 2, &changed, &at), SP_RANGE);
    CHECK_EQ(sp_tracker_count(tracker) + sp_tracker_epoch(tracker) + changed, 0);
    sp_tracker_free(tracker);
}

/* ---- converted ---- */

static void test_converted_holds_flips(void)
{
    sp_tracker *tracker = tracker_new(SP_GFN_LIMIT, false);
    bool in;
    sp_snapshot a = tracker_take(tracker);
    tracker_convert(tracker, 1000, 10, true);
    tracker_convert(tracker, 1000, 10, false);
    sp_snapshot b = tracker_take(tracker);
    sp_set before = sp_snapshot_set(&a), after = sp_snapshot_set(&b);
    CHECK_EQ(sp_set_count(&before) + sp_set_count(&after), 0); /* same members, yet: */
    CHECK_EQ(converted(&b, &a, 1009, &in), 10);
    CHECK(in);
    tracker_convert(tracker, 5, 1, true);
    sp_snapshot dropped = tracker_take(tracker);
    sp_event twice[] = {{7, 2, 1}, {8, 1, 0}};
    uint64_t changed;
    size_t bad;
    CHECK_EQ(sp_tracker_apply(tracker, twice, 2, &changed, &bad), SP_OK);
    sp_snapshot c = tracker_take(tracker);
    CHECK_EQ(converted(&c, &dropped, 8, &in), 2);
    CHECK(in);
    sp_snapshot_release(&dropped); /* what it held between b and c must stay */
    CHECK_EQ(converted(&c, &b, 5, &in), 3);
    CHECK(in);
    sp_snapshot_release(&b);
    CHECK_EQ(converted(&c, &a, 1000, &in), 13);
    CHECK(in);
    CHECK_EQ(converted(&c, &c, 5, &in), 0);
    sp_snapshot_release(&a);
    sp_snapshot_release(&c);
    sp_tracker_free(tracker);
}

/* While nobody has taken a snapshot, nobody can ask what was converted: the log stays short, or as
 * short as the number of nodes allows, each of which is copied when it is dropped. */
static void test_an_unasked_for_log_is_dropped(void)
{
    enum { CONVERSIONS = 100000 };
    sp_tracker *tracker = tracker_new(SP_GFN_LIMIT, false);
    uint64_t longest = 0;
    bool in;
    for (uint64_t i = 0; i < CONVERSIONS; i++) {
        tracker_convert(tracker, 3 * i, 1, true);
        longest = sp_max(longest, tracker->changes.trail.count);
    }
    CHECK(longest <= sp_max(64, 8 * tracker_live(tracker) / SP_LOG_RANGES + 1));
    CHECK(longest < SP_LONG_TRAIL);
    CHECK_EQ(tracker_live(tracker), tracker_reachable(tracker));
    sp_snapshot a = tracker_take(tracker);
    for (uint64_t i = 0; i < CONVERSIONS; i++)
        tracker_convert(tracker, 3 * i, 1, false);
    sp_snapshot b = tracker_take(tracker);
    CHECK_EQ(converted(&b, &a, 3, &in), CONVERSIONS); /* asked for: all of it is there */
    sp_snapshot_release(&a);
    sp_snapshot_release(&b);
    sp_tracker_free(tracker);
}

static void test_converted_refuses_strangers(void)
{
    sp_tracker *tracker = tracker_new(9, false), *other = tracker_new(9, false);
    sp_snapshot a = tracker_take(tracker), foreign = tracker_take(other);
    tracker_convert(tracker, 0, 1, true);
    sp_snapshot b = tracker_take(tracker);
    sp_pageset *pages = NULL;
    CHECK_EQ(sp_snapshot_converted(&a, &b, &pages), SP_INVALID);
    CHECK_EQ(sp_snapshot_converted(&b, &foreign, &pages), SP_INVALID);
    CHECK(!pages);
    sp_snapshot_release(&a);
    sp_snapshot_release(&b);
    sp_snapshot_release(&foreign);
    sp_tracker_free(tracker);
    sp_tracker_free(other);
}

/* ---- latest, close ---- */

static void test_latest_lags_until_it_was_looked_at(void)
{
    sp_tracker *tracker = tracker_new(100, false);
    tracker_convert(tracker, 0, 1, true); /* nobody looks: not published */
    sp_snapshot old = latest(tracker);
    CHECK_EQ(sp_snapshot_epoch(&old), 0);
    tracker_convert(tracker, 1, 1, true); /* somebody looked: published */
    sp_snapshot new = latest(tracker);
    CHECK_EQ(sp_snapshot_epoch(&new), 2);
    tracker_convert(tracker, 2, 1, true);
    sp_snapshot exact = tracker_take(tracker);
    CHECK_EQ(sp_snapshot_epoch(&exact), 3);
    sp_snapshot_release(&old);
    sp_snapshot_release(&new);
    sp_snapshot_release(&exact);
    sp_tracker_free(tracker);
}

/* As if one version had been pinned, and released again, so often that its count is half full. */
static void crowd(sp_tracker *tracker)
{
    int64_t pins = INT64_C(1) << 47;
    uint64_t word = sp_add(&tracker->epoch.head, (uint64_t)pins << SP_SLOT_BITS, relaxed);
    sp_slot slot = word & SP_SLOT_NONE;
    if (slot != SP_SLOT_NONE)
        sp_sub(&sp_epoch_version(&tracker->epoch, slot)->refs, pins, relaxed);
}

static void test_a_crowded_version_is_published_anew(void)
{
    sp_tracker *tracker = tracker_new(100, false);
    sp_tracker_stats stats;
    tracker_convert(tracker, 0, 2, true);
    sp_snapshot first = tracker_take(tracker);
    crowd(tracker);
    sp_snapshot second = latest(tracker), third = latest(tracker);
    CHECK_EQ(second.slot, first.slot);
    CHECK(third.slot != first.slot);
    CHECK_EQ(sp_snapshot_epoch(&third), 1);
    sp_set set = sp_snapshot_set(&third);
    CHECK_EQ(sp_set_count(&set), 2);
    sp_snapshot_release(&first);
    sp_snapshot_release(&second);
    sp_snapshot_release(&third);
    CHECK_EQ(sp_tracker_measure(tracker, &stats), SP_OK);
    CHECK_EQ(stats.versions, 1);
    CHECK_EQ(sp_tracker_close(tracker), SP_OK);
    crowd(tracker);
    CHECK_EQ(sp_tracker_latest(tracker, &first), SP_CLOSED);
    sp_tracker_free(tracker);
}

static void check_closed(sp_tracker *tracker)
{
    uint64_t n;
    size_t bad;
    bool in;
    int fd;
    const char *reason;
    sp_event event = {0, 1, 1};
    sp_range range = {0, 1};
    sp_pageset *pages;
    sp_snapshot none;
    sp_tracker_stats stats;
    CHECK_EQ(sp_tracker_convert(tracker, 0, 1, true, true, &n), SP_CLOSED);
    CHECK_EQ(sp_tracker_convert_list(tracker, 0, 1, true, &n, &pages), SP_CLOSED);
    CHECK_EQ(sp_tracker_apply(tracker, &event, 1, &n, &bad), SP_CLOSED);
    CHECK_EQ(sp_tracker_set_list(tracker, &range, 1, &n, &bad), SP_CLOSED);
    CHECK_EQ(sp_tracker_contains(tracker, 0, true, &in), SP_CLOSED);
    CHECK_EQ(sp_tracker_snapshot(tracker, true, &none), SP_CLOSED);
    CHECK_EQ(sp_tracker_latest(tracker, &none), SP_CLOSED);
    CHECK_EQ(sp_tracker_measure(tracker, &stats), SP_CLOSED);
    CHECK_EQ(sp_tracker_validate(tracker, &reason), SP_CLOSED);
    CHECK_EQ(sp_tracker_fd(tracker, &fd), SP_CLOSED);
    CHECK_EQ(sp_tracker_wait(tracker, 0, 0, &n), SP_CLOSED);
    CHECK_EQ(sp_tracker_close(tracker), SP_OK);
    CHECK(sp_tracker_is_closed(tracker));
}

static void test_snapshots_outlive_their_tracker(void)
{
    sp_tracker *tracker = tracker_new(SP_GFN_LIMIT, false);
    bool in;
    sp_snapshot a = tracker_take(tracker);
    tracker_convert(tracker, 3, 70000, true);
    sp_snapshot b = tracker_take(tracker);
    tracker_convert(tracker, 3, 1, false); /* never published */
    CHECK(!sp_tracker_is_closed(tracker));
    CHECK_EQ(sp_tracker_close(tracker), SP_OK);
    check_closed(tracker);
    sp_tracker_free(tracker);
    sp_set set = sp_snapshot_set(&b);
    CHECK_VALID(sp_set_validate(&set));
    CHECK_EQ(sp_set_count(&set), 70000);
    CHECK(sp_set_contains(&set, 3));
    sp_snapshot c = sp_snapshot_retain(&b);
    sp_snapshot_release(&b);
    CHECK_EQ(converted(&c, &a, 3, &in), 70000);
    sp_snapshot_release(&a);
    CHECK_EQ(sp_snapshot_epoch(&c), 1);
    sp_snapshot_release(&c);
    sp_tracker_free(NULL);
}

/* Calls that may not wait say so while another holds the lock; latest does not ask for it. */
static void test_calls_that_may_not_wait(void)
{
    sp_tracker *tracker = tracker_new(100, false);
    uint64_t n;
    bool in;
    sp_snapshot got;
    tracker_convert(tracker, 0, 1, true);
    REQUIRE_EQ(sp_lock_try(&tracker->epoch.lock), SP_OK);
    CHECK_EQ(sp_tracker_convert(tracker, 0, 1, false, false, &n), SP_BUSY);
    CHECK_EQ(sp_tracker_contains(tracker, 0, false, &in), SP_BUSY);
    CHECK_EQ(sp_tracker_snapshot(tracker, false, &got), SP_BUSY);
    got = latest(tracker);
    sp_snapshot_release(&got);
    CHECK_EQ(sp_tracker_count(tracker), 1);
    sp_epoch_unlock(&tracker->epoch);
    CHECK_EQ(sp_tracker_snapshot(tracker, false, &got), SP_OK);
    sp_snapshot_release(&got);
    sp_tracker_free(tracker);
}

/* ---- accounts ---- */

static void test_measure(void)
{
    sp_tracker *tracker = tracker_new(SP_GFN_LIMIT, false);
    sp_tracker_stats stats;
    for (uint64_t i = 0; i < 3000; i++)
        tracker_convert(tracker, i * 100, 7, true);
    CHECK_EQ(sp_tracker_measure(tracker, &stats), SP_OK);
    CHECK_EQ(stats.set.pages, 21000);
    CHECK_EQ(stats.ranges, 3000);
    CHECK_EQ(stats.epoch, 3000);
    CHECK_EQ(stats.versions, 1);
    CHECK_EQ(stats.live_nodes, stats.set.nodes);
    CHECK_EQ(stats.live_bytes, stats.set.bytes);
    CHECK_STR(stats.engine, "roaring");
    sp_snapshot held = tracker_take(tracker);
    tracker_convert(tracker, 0, SP_GFN_LIMIT, false);
    CHECK_EQ(sp_tracker_measure(tracker, &stats), SP_OK);
    CHECK_EQ(stats.versions, 2);
    CHECK_EQ(stats.set.nodes, 0);
    CHECK(stats.live_nodes > 0);
    sp_snapshot_release(&held);
    CHECK_EQ(sp_tracker_measure(tracker, &stats), SP_OK);
    CHECK_EQ(stats.live_nodes + stats.live_bytes + stats.trail, 0);
    sp_tracker_free(tracker);
}

int main(void)
{
    RUN_TRACKERS(test_a_new_tracker);
    RUN_TRACKERS(test_epochs_count_changes);
    RUN_TRACKERS(test_calls_that_change_nothing);
    RUN_TRACKERS(test_the_count_does_not_wrap);
    RUN_TRACKERS(test_bad_ranges);
    RUN_TRACKERS(test_bad_events_and_lists);
    RUN_TRACKERS(test_converted_holds_flips);
    RUN_TRACKERS(test_an_unasked_for_log_is_dropped);
    RUN_TRACKERS(test_converted_refuses_strangers);
    RUN_TRACKERS(test_latest_lags_until_it_was_looked_at);
    RUN_TRACKERS(test_a_crowded_version_is_published_anew);
    RUN_TRACKERS(test_snapshots_outlive_their_tracker);
    RUN_TRACKERS(test_calls_that_may_not_wait);
    RUN(test_measure);
    return check_close();
}
