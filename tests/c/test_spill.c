/* tier: failure
 *
 * test_spill.c - reports much longer than a log may hold as a list: no page is lost on the way to
 * the bitmaps, memory short or not, and the room is given back.
 */
#include <stdlib.h>

#include "support_dirty.h"

enum { SLOT = 5000, PAGES = 6000, LIST = 1 << 18, LONG = 5 * LIST };

static const sp_memslot slots[] = {{100, SLOT, 0}};

/* Each of PAGES gfns many times, the last of them no memory, in an order that joins none. */
static uint64_t *long_report(void)
{
    uint64_t *gfns = malloc(LONG * sizeof *gfns);
    for (uint64_t i = 0; i < LONG; i++)
        gfns[i] = 100 + i * 7 % PAGES;
    return gfns;
}

static bool has_all(sp_log *log)
{
    sp_harvest *harvest = NULL;
    uint64_t pages = 0;
    CHECK_EQ(sp_log_take(log, &harvest), SP_OK);
    CHECK_EQ(sp_merge_count(NULL, harvest, &pages), SP_OK);
    bool all = CHECK_EQ(pages, PAGES);
    sp_harvest_release(harvest);
    return all;
}

static void a_long_report_leaves_little(void)
{
    uint64_t *gfns = long_report();
    dirty_bench b;
    size_t bad;
    dirty_open(&b, slots, 1);
    for (unsigned i = 0; i < 3; i++) {
        CHECK_EQ(sp_log_add_pages(b.log, gfns, LONG, &bad), SP_OK);
        CHECK(sp_log_bytes(b.log) < 4 * LIST * sizeof *gfns);
        gfns[LONG - 1] = SP_GFN_LIMIT;
        CHECK_EQ(sp_log_add_pages(b.log, gfns, LONG, &bad), SP_RANGE);
        CHECK(sp_log_bytes(b.log) < 4 * LIST * sizeof *gfns);
        gfns[LONG - 1] = 100;
    }
    has_all(b.log);
    dirty_close(&b);
    free(gfns);
}

static bool a_long_report_fails_at(const uint64_t *gfns, uint64_t n, bool onwards)
{
    dirty_bench b;
    size_t bad;
    dirty_open(&b, slots, 1);
    alloc_arm(&b.alloc, n, onwards);
    sp_status status = sp_log_add_pages(b.log, gfns, LONG, &bad);
    uint64_t failed = alloc_failed(&b.alloc);
    CHECK(failed || !status);
    alloc_arm(&b.alloc, 0, 0);
    if (status)
        CHECK_EQ(sp_log_add_pages(b.log, gfns, LONG, &bad), SP_OK);
    has_all(b.log);
    dirty_close(&b);
    return !failed;
}

static void a_long_report_loses_nothing_when_memory_is_short(void)
{
    uint64_t *gfns = long_report();
    for (unsigned onwards = 0; onwards < 2; onwards++) {
        bool done = false;
        for (uint64_t n = 1; !done && !check_failed(); n++) {
            check_case("allocation %d%s", (int)n, onwards ? " and on" : "");
            done = a_long_report_fails_at(gfns, n, onwards);
        }
    }
    free(gfns);
}

/* Two slots side by side, and a run over the end of the second: it stays in the list. */
static const sp_memslot sides[] = {{100, 50, 0}, {150, 50, 1}};
static const uint64_t reported[] = {110, 199, 200, 170};

static uint64_t *report_of_both_sides(void)
{
    uint64_t *gfns = malloc(LONG * sizeof *gfns);
    for (uint64_t i = 0; i < LONG; i++)
        gfns[i] = i < LONG / 2 ? reported[0] : reported[1 + i % 3];
    return gfns;
}

static void has_what_was_reported(sp_log *log)
{
    sp_harvest *harvest = NULL;
    sp_pageset *pages = NULL;
    REQUIRE_EQ(sp_log_take(log, &harvest), SP_OK);
    REQUIRE_EQ(sp_merge_pages(NULL, harvest, &pages), SP_OK);
    CHECK_EQ(sp_set_count(sp_pageset_set(pages)), 4);
    for (unsigned i = 0; i < 4; i++)
        CHECK(sp_set_contains(sp_pageset_set(pages), reported[i]));
    sp_pageset_release(pages);
    sp_harvest_release(harvest);
}

/* Memory is short at any allocation, and then at all: a list half of which has moved is whole. */
static void each_page_goes_to_the_bitmap_of_its_slot(void)
{
    uint64_t *gfns = report_of_both_sides();
    bool done = false;
    for (uint64_t n = 1; !done && !check_failed(); n++) {
        dirty_bench b;
        size_t bad;
        check_case("allocation %d and on", (int)n);
        dirty_open(&b, sides, 2);
        alloc_arm(&b.alloc, n, true);
        sp_status status = sp_log_add_pages(b.log, gfns, LONG, &bad);
        done = !alloc_failed(&b.alloc);
        alloc_arm(&b.alloc, 0, 0);
        if (status)
            CHECK_EQ(sp_log_add_pages(b.log, gfns, LONG, &bad), SP_OK);
        has_what_was_reported(b.log);
        dirty_close(&b);
    }
    free(gfns);
}

int main(void)
{
    RUN(a_long_report_leaves_little);
    RUN(a_long_report_loses_nothing_when_memory_is_short);
    RUN(each_page_goes_to_the_bitmap_of_its_slot);
    return check_close();
}
