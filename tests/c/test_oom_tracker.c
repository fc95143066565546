/* tier: failure
 *
 * test_oom_tracker.c - every allocation of every call of a tracker fails, once and from then on.
 *
 * The same past is built anew for each allocation.  A call that then reports SP_NOMEM has left the
 * members, the epoch and every snapshot as they were, and succeeds when repeated; one that succeeds
 * in spite of the failure has done all of its work.  Either way what was converted since the past's
 * snapshots is right, and nothing leaks.
 */
#include <stdlib.h>

#include "support_alloc.h"
#include "support_strip.h"
#include "support_tracker.h"

#define MAX_EVENTS 280

static const sp_range windows[] = {
    {0, 1500},
    {65500, 65600},
    {(UINT64_C(1) << 22) - 40, (UINT64_C(1) << 22) + 200},
    {SP_GFN_LIMIT - 70, SP_GFN_LIMIT},
};

#define WINDOWS (sizeof windows / sizeof *windows)

typedef struct past {
    sp_tracker *tracker;
    strip now;
    uint64_t epoch;
    sp_snapshot first, second;
    strip second_record;
    uint64_t second_epoch;
} past;

typedef sp_status (*call_fn)(past *p, uint64_t *changed);

/* A call under test, and what it does to the model. */
typedef struct trial {
    const char *name;
    call_fn call;
    uint64_t (*model)(past *p);
} trial;

/* ---- the past ---- */

static void convert(past *p, uint64_t start, uint64_t stop, bool shared)
{
    uint64_t changed;
    uint64_t want = strip_convert(&p->now, (sp_range){start, stop}, shared, p->epoch + 1);
    CHECK_EQ(sp_tracker_convert(p->tracker, start, stop - start, shared, true, &changed), SP_OK);
    CHECK_EQ(changed, want);
    p->epoch += want != 0;
}

/* What the open version is like when the call comes. */
typedef enum setting {
    OPEN,      /* nodes of its own, cells in the trail, and a log that is full */
    PUBLISHED, /* the same, but published since: nothing can be changed in place */
    LONG,      /* one cell more makes the trail so long that it is compacted */
    SETTINGS
} setting;

static void fill_log(past *p)
{
    for (uint64_t i = 0; i < 6; i++)
        convert(p, 90 * i, 90 * i + 60, false); /* twenty ranges: a cell */
    for (uint64_t page = 700; p->tracker->changes.n < SP_LOG_RANGES; page += 3)
        convert(p, page, page + 1, false);
}

static void lengthen(past *p)
{
    while (p->tracker->changes.trail.count < 255) {
        sp_range range = {10, 20 + p->epoch % 7};
        uint64_t changed, want = strip_replace(&p->now, &range, 1, p->epoch + 1);
        size_t bad;
        REQUIRE_EQ(sp_tracker_set_list(p->tracker, &range, 1, &changed, &bad), SP_OK);
        REQUIRE_EQ(changed, want);
        p->epoch++;
    }
}

/* Leaves of several kinds, two snapshots, and an open version after them. */
static void build(past *p, const sp_allocator *hook, setting how)
{
    *p = (past){0};
    REQUIRE_EQ(sp_tracker_new(hook, test_engine, SP_GFN_LIMIT, false, &p->tracker), SP_OK);
    strip_init(&p->now, windows, WINDOWS, SP_GFN_LIMIT);
    for (uint64_t page = 0; page < 1050; page += 3)
        convert(p, page, page + 1, true);
    CHECK_EQ(sp_tracker_snapshot(p->tracker, true, &p->first), SP_OK);
    convert(p, 65520, 65560, true);
    convert(p, 600, windows[1].start, true);
    CHECK_EQ(sp_tracker_snapshot(p->tracker, true, &p->second), SP_OK);
    p->second_epoch = p->epoch;
    strip_copy(&p->second_record, &p->now);
    if (how == LONG)
        lengthen(p);
    else
        fill_log(p);
    sp_snapshot now;
    if (how == PUBLISHED && CHECK(sp_tracker_snapshot(p->tracker, true, &now) == SP_OK))
        sp_snapshot_release(&now);
}

static void check_snapshots(past *p)
{
    sp_set set = sp_snapshot_set(&p->second);
    strip_is(&p->second_record, &set);
    CHECK_EQ(sp_snapshot_epoch(&p->second), p->second_epoch);
    sp_snapshot now;
    sp_pageset *pages;
    REQUIRE_EQ(sp_tracker_snapshot(p->tracker, true, &now), SP_OK);
    CHECK_EQ(sp_snapshot_epoch(&now), p->epoch);
    set = sp_snapshot_set(&now);
    strip_is(&p->now, &set);
    CHECK_EQ(sp_snapshot_converted(&now, &p->second, &pages), SP_OK);
    strip_converted_is(&p->now, p->second_epoch, sp_pageset_set(pages));
    sp_pageset_release(pages);
    CHECK_EQ(sp_snapshot_converted(&p->second, &p->first, &pages), SP_OK);
    strip_converted_is(&p->second_record, 350, sp_pageset_set(pages));
    sp_pageset_release(pages);
    sp_snapshot_release(&now);
}

static void check_present(const past *p)
{
    const char *reason;
    CHECK_EQ(sp_tracker_validate(p->tracker, &reason), SP_OK);
    CHECK_VALID(reason);
    CHECK_EQ(sp_tracker_epoch(p->tracker), p->epoch);
    CHECK_EQ(sp_tracker_count(p->tracker), strip_count(&p->now));
    strip_is(&p->now, &p->tracker->set);
    CHECK_EQ(tracker_live(p->tracker), tracker_reachable(p->tracker));
    CHECK_EQ(p->tracker->pending.trail.count + p->tracker->pending.n, 0);
}

static void tear_down(past *p)
{
    sp_snapshot_release(&p->first);
    sp_tracker_free(p->tracker);
    sp_snapshot_release(&p->second);
    strip_clear(&p->second_record);
    strip_clear(&p->now);
}

/* ---- the calls ---- */

static sp_status whole(past *p, uint64_t *changed)
{
    return sp_tracker_convert(p->tracker, 65570, 5, true, true, changed);
}

static uint64_t model_whole(past *p)
{
    return strip_convert(&p->now, (sp_range){65570, 65575}, true, p->epoch + 1);
}

static sp_status part(past *p, uint64_t *changed)
{
    return sp_tracker_convert(p->tracker, 3, windows[2].start + 77, false, true, changed);
}

static uint64_t model_part(past *p)
{
    return strip_convert(&p->now, (sp_range){3, windows[2].start + 80}, false, p->epoch + 1);
}

static sp_status listed(past *p, uint64_t *changed)
{
    sp_pageset *pages = NULL;
    sp_status status = sp_tracker_convert_list(p->tracker, 5, 900, true, changed, &pages);
    CHECK_EQ(status == SP_OK, pages != NULL);
    if (pages)
        CHECK_EQ(sp_set_count(sp_pageset_set(pages)), *changed);
    sp_pageset_release(pages);
    return status;
}

static uint64_t model_listed(past *p)
{
    return strip_convert(&p->now, (sp_range){5, 905}, true, p->epoch + 1);
}

/* The i-th event of an apply: single pages, overlaps and a great gap. */
static sp_event event(uint64_t i)
{
    uint64_t gap = windows[1].stop;
    if (i % 16 == 15)
        return (sp_event){gap, windows[2].start - gap, (uint8_t)(i / 16 % 2 == 0)};
    return (sp_event){7 * i % 1450, 1 + i % 5, (uint8_t)(i % 3 == 0)};
}

static sp_status apply(past *p, size_t n, uint64_t *changed)
{
    sp_event events[MAX_EVENTS];
    size_t bad;
    for (size_t i = 0; i < n; i++)
        events[i] = event(i);
    return sp_tracker_apply(p->tracker, events, n, changed, &bad);
}

static uint64_t model_apply(past *p, size_t n)
{
    uint64_t changed = 0;
    for (size_t i = 0; i < n; i++) {
        sp_event e = event(i);
        changed += strip_convert(&p->now, (sp_range){e.start, e.start + e.npages}, e.shared,
                                 p->epoch + 1);
    }
    return changed;
}

static sp_status apply_few(past *p, uint64_t *changed) { return apply(p, 20, changed); }
static uint64_t model_few(past *p) { return model_apply(p, 20); }
static sp_status apply_many(past *p, uint64_t *changed) { return apply(p, MAX_EVENTS, changed); }
static uint64_t model_many(past *p) { return model_apply(p, MAX_EVENTS); }

static const sp_range wanted[] = {{0, 50}, {SP_GFN_LIMIT - 30, SP_GFN_LIMIT - 2}, {40, 1490}};

static sp_status replace(past *p, uint64_t *changed)
{
    size_t bad;
    return sp_tracker_set_list(p->tracker, wanted, 3, changed, &bad);
}

static uint64_t model_replace(past *p) { return strip_replace(&p->now, wanted, 3, p->epoch + 1); }

static sp_status take(past *p, uint64_t *changed)
{
    sp_snapshot made;
    *changed = 0;
    sp_status status = sp_tracker_snapshot(p->tracker, true, &made);
    if (status == SP_OK)
        sp_snapshot_release(&made);
    return status;
}

static sp_status compare(past *p, uint64_t *changed)
{
    sp_pageset *pages = NULL;
    *changed = 0;
    sp_status status = sp_snapshot_converted(&p->second, &p->first, &pages);
    CHECK_EQ(status == SP_OK, pages != NULL);
    sp_pageset_release(pages);
    return status;
}

static sp_status measure(past *p, uint64_t *changed)
{
    sp_tracker_stats stats;
    *changed = 0;
    return sp_tracker_measure(p->tracker, &stats);
}

static uint64_t model_nothing(past *p)
{
    (void)p;
    return 0;
}

static const trial trials[] = {
    {"convert, whole range", whole, model_whole},
    {"convert, part of a range", part, model_part},
    {"convert_list", listed, model_listed},
    {"apply, short", apply_few, model_few},
    {"apply, long", apply_many, model_many},
    {"set_list", replace, model_replace},
    {"snapshot", take, model_nothing},
    {"converted", compare, model_nothing},
    {"measure", measure, model_nothing},
};

#define TRIALS (sizeof trials / sizeof *trials)

/* ---- runs ---- */

static void succeed(past *p, const trial *t, uint64_t changed)
{
    uint64_t want = t->model(p);
    CHECK_EQ(changed, want);
    p->epoch += want != 0;
}

/* Runs one call whose n-th allocation fails; false when it has fewer than n. */
static bool fail_at(const trial *t, uint64_t n, int onwards, setting how)
{
    test_alloc alloc;
    past p;
    uint64_t changed = 99;
    alloc_init(&alloc);
    build(&p, &alloc.hook, how);
    alloc_arm(&alloc, n, onwards);
    sp_status status = t->call(&p, &changed);
    bool failed = alloc_failed(&alloc) != 0;
    alloc_arm(&alloc, 0, 0);
    CHECK(status == SP_OK || (failed && status == SP_NOMEM));
    if (status == SP_OK) {
        succeed(&p, t, changed);
    } else {
        check_present(&p);
        check_snapshots(&p);
        CHECK_EQ(t->call(&p, &changed), SP_OK);
        succeed(&p, t, changed);
    }
    check_present(&p);
    check_snapshots(&p);
    tear_down(&p);
    CHECK_EQ(alloc_blocks(&alloc), 0);
    return failed;
}

static void run(int onwards)
{
    for (size_t t = 0; t < TRIALS; t++) {
        uint64_t most = 0; /* allocations of the call, in the setting in which it has most */
        for (setting how = OPEN; how < SETTINGS; how++) {
            uint64_t n = 1;
            check_case("%s, setting %d", trials[t].name, (int)how);
            for (; fail_at(&trials[t], n, onwards, how) && !check_failed(); n++)
                check_case("%s, setting %d, allocation %llu", trials[t].name, (int)how,
                           (unsigned long long)n + 1);
            most = sp_max(most, n - 1);
        }
        CHECK(most > 0);
    }
}

static void test_one_allocation_fails(void) { run(0); }

static void test_all_later_allocations_fail(void) { run(1); }

static void test_a_new_tracker(void)
{
    for (uint64_t n = 1;; n++) {
        test_alloc alloc;
        sp_tracker *tracker = NULL;
        alloc_init(&alloc);
        alloc_arm(&alloc, n, 0);
        sp_status status = sp_tracker_new(&alloc.hook, test_engine, 100000, true, &tracker);
        if (status == SP_OK) {
            CHECK(n > 2);
            CHECK_EQ(alloc_failed(&alloc), 0);
            CHECK_EQ(sp_tracker_count(tracker), 100000);
            sp_tracker_free(tracker);
            CHECK_EQ(alloc_blocks(&alloc), 0);
            return;
        }
        CHECK_EQ(status, SP_NOMEM);
        CHECK(!tracker);
        CHECK_EQ(alloc_blocks(&alloc), 0);
    }
}

/* Ending needs no memory. */
static void test_the_end_never_fails(void)
{
    test_alloc alloc;
    past p;
    alloc_init(&alloc);
    build(&p, &alloc.hook, OPEN);
    alloc_arm(&alloc, 1, 1);
    CHECK_EQ(sp_tracker_close(p.tracker), SP_OK);
    tear_down(&p);
    CHECK_EQ(alloc_blocks(&alloc), 0);
}

int main(void)
{
    RUN_TRACKERS(test_a_new_tracker);
    RUN_TRACKERS(test_one_allocation_fails);
    RUN_TRACKERS(test_all_later_allocations_fail);
    RUN_TRACKERS(test_the_end_never_fails);
    return check_close();
}
