/* tier: model
 *
 * test_retention.c - a thousand snapshots held at once across a million conversions, each compared
 * bit by bit with its own record when it is dropped, in random order, some after the tracker was
 * closed.  Once with conversions alone, once among applies that fail in their last event.
 */
#include <stdlib.h>
#include <string.h>

#include "support_alloc.h"
#include "support_tracker.h"

#define HELD 1000
#define CONVERSIONS 1000000
#define TURNOVER 97 /* conversions to each snapshot dropped and taken */
#define WORDS 256   /* of a record: 16,384 pages, small enough to keep a thousand */

/* Inside a leaf, across two, across inner nodes of three heights, at the end of the guest. */
static const uint64_t starts[] = {0,
                                  65536 - 2048,
                                  UINT64_C(3) << 16,
                                  (UINT64_C(1) << 22) - 2048,
                                  (UINT64_C(1) << 28) - 2048,
                                  UINT64_C(1) << 34,
                                  (UINT64_C(1) << 40) - 2048,
                                  SP_GFN_LIMIT - 2048};

static const plots guest = {starts, 8, WORDS / 8};

_Static_assert(WORDS % 8 == 0, "eight windows of whole words");

typedef struct held {
    sp_snapshot snapshot;
    uint64_t epoch;
    uint64_t record[WORDS];
} held;

typedef struct history {
    sp_tracker *tracker;
    test_alloc alloc;
    rng r;
    uint64_t now[WORDS];
    uint64_t epoch;
    held *held;
    unsigned n;
} history;

static void take(history *h)
{
    held *new = &h->held[h->n];
    REQUIRE_EQ(sp_tracker_snapshot(h->tracker, true, &new->snapshot), SP_OK);
    h->n++;
    new->epoch = h->epoch;
    memcpy(new->record, h->now, sizeof h->now);
}

/* Compares a random snapshot with its record, and gives it back. */
static void drop(history *h)
{
    held *old = &h->held[rng_below(&h->r, h->n)];
    sp_set set = sp_snapshot_set(&old->snapshot);
    CHECK_EQ(sp_snapshot_epoch(&old->snapshot), old->epoch);
    plots_equal(&guest, &set, old->record);
    sp_snapshot_release(&old->snapshot);
    *old = h->held[--h->n];
}

static void convert(history *h)
{
    plot_range range = plots_range(&guest, &h->r, rng_chance(&h->r, 16) ? 2048 : 24);
    bool shared = rng_chance(&h->r, 2);
    uint64_t changed, want = record_assign(h->now, range, shared);
    CHECK_EQ(sp_tracker_convert(h->tracker, range.start, range.npages, shared, true, &changed),
             SP_OK);
    CHECK_EQ(changed, want);
    h->epoch += want != 0;
}

/* An apply that converts for a while and then fails: nothing may show it. */
static void fail(history *h)
{
    sp_event event[48];
    size_t n = rng_between(&h->r, 1, 48), bad = 99;
    uint64_t changed, bytes = sp_tracker_bytes(h->tracker), nodes = tracker_live(h->tracker);
    for (size_t i = 0; i < n; i++) {
        plot_range range = plots_range(&guest, &h->r, 400);
        event[i] = (sp_event){range.start, range.npages, (uint8_t)rng_below(&h->r, 2)};
    }
    if (rng_chance(&h->r, 2))
        event[n - 1].shared = 7;
    else
        event[n - 1].start = SP_GFN_LIMIT;
    CHECK(sp_tracker_apply(h->tracker, event, n, &changed, &bad) != SP_OK);
    CHECK_EQ(bad, n - 1);
    CHECK_EQ(sp_tracker_epoch(h->tracker), h->epoch);
    CHECK_EQ(sp_tracker_bytes(h->tracker), bytes);
    CHECK_EQ(tracker_live(h->tracker), nodes);
    CHECK(plots_equal(&guest, &h->tracker->set, h->now));
}

/* Some snapshots go before the tracker is closed, some after, some after it was given up. */
static void end(history *h)
{
    const char *reason;
    CHECK_EQ(sp_tracker_validate(h->tracker, &reason), SP_OK);
    CHECK_VALID(reason);
    CHECK_EQ(tracker_live(h->tracker), tracker_reachable(h->tracker));
    while (h->n > HELD * 2 / 3)
        drop(h);
    CHECK_EQ(tracker_live(h->tracker), tracker_reachable(h->tracker));
    CHECK_EQ(sp_tracker_close(h->tracker), SP_OK);
    CHECK_EQ(tracker_live(h->tracker), tracker_reachable(h->tracker));
    while (h->n > HELD / 3)
        drop(h);
    CHECK_EQ(tracker_live(h->tracker), tracker_reachable(h->tracker));
    sp_tracker_free(h->tracker);
    while (h->n)
        drop(h);
    CHECK_EQ(alloc_blocks(&h->alloc), 0);
}

/* Runs a history in which `fail_one_in` conversions comes with a failing apply (0: none). */
static void run(uint64_t conversions, uint64_t fail_one_in)
{
    history *h = calloc(1, sizeof *h);
    h->held = calloc(HELD, sizeof *h->held);
    h->r = rng_open(fail_one_in);
    alloc_init(&h->alloc);
    CHECK_EQ(sp_tracker_new(&h->alloc.hook, test_engine, SP_GFN_LIMIT, false, &h->tracker), SP_OK);
    for (uint64_t i = 0; i < conversions && !check_failed(); i++) {
        check_case("conversion %llu", (unsigned long long)i);
        convert(h);
        if (fail_one_in && rng_chance(&h->r, fail_one_in))
            fail(h);
        if (h->n < HELD && i % 4 == 0)
            take(h);
        if (h->n == HELD && i % TURNOVER == 0)
            drop(h);
    }
    CHECK_EQ(sp_tracker_epoch(h->tracker), h->epoch);
    end(h);
    free(h->held);
    free(h);
}

static void test_snapshots_keep_their_pages(void) { run(check_scaled(CONVERSIONS), 0); }

static void test_failed_applies_leave_no_trace(void) { run(check_scaled(CONVERSIONS / 20), 10); }

int main(void)
{
    RUN_TRACKERS(test_snapshots_keep_their_pages);
    RUN_TRACKERS(test_failed_applies_leave_no_trace);
    return check_close();
}
