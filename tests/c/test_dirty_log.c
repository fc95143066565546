/* tier: model
 *
 * test_dirty_log.c - what comes into a dirty log: bitmaps at any bit, ranges, pages, ring entries,
 * each against a byte a page; and that what is refused adds nothing.
 */
#include <stdlib.h>

#include "base/bits.h"
#include "support_dirty.h"
#include "support_guard.h"
#include "support_set.h"

#define SMM (1u << 16) /* address space 1 */

/* ---- bitmaps ---- */

static bool bit_of(const uint8_t *bytes, uint64_t i) { return bytes[i / 8] >> (i % 8) & 1; }

/* The bytes that hold npages bits lie between guards; bits of the last byte past them are noise. */
static void check_bitmap(dirty_bench *b, rng *r, guarded input, uint64_t first, uint64_t npages,
                         int at_end)
{
    uint64_t slot = sp_memory_at(b->memory, 0)->npages, held = sp_min(npages, slot - first);
    uint8_t *bytes = guarded_place(input, (held + 7) / 8, at_end);
    for (uint64_t i = 0; i < (held + 7) / 8; i++)
        bytes[i] = (uint8_t)(rng_chance(r, 9) ? 0 : rng_next(r));
    CHECK_EQ(sp_log_add_bitmap(b->log, sp_memory_at(b->memory, 0), bytes, first, npages), SP_OK);
    sp_harvest *harvest = dirty_take(b);
    const uint64_t *words = sp_harvest_words(harvest, 0);
    REQUIRE(words != NULL);
    for (uint64_t page = 0; page < (slot + 63) / 64 * 64; page++) {
        bool want = page >= first && page - first < held && bit_of(bytes, page - first);
        CHECK_EQ(words[page / 64] >> (page % 64) & 1, want);
    }
    sp_harvest_release(harvest);
}

static void bitmaps_land_at_every_page(void)
{
    static const uint64_t lengths[] = {1, 7, 8, 63, 64, 65, 127, 128, 129, 192, 200, 201, 1000};
    dirty_bench b;
    guarded input = guarded_open(64);
    rng r = rng_open(1);
    dirty_open(&b, (sp_memslot[]){{1003, 200, 0}}, 1);
    for (uint64_t first = 0; first <= 200 && !check_failed(); first++)
        for (uint64_t npages = 0; npages <= 270; npages += first % 64 ? 1 + npages / 4 : 1) {
            check_case("%d pages at %d", (int)npages, (int)first);
            check_bitmap(&b, &r, input, first, npages, npages & 1);
        }
    for (uint64_t first = 0; first <= 200 && !check_failed(); first++)
        for (size_t i = 0; i < 2 * sizeof lengths / sizeof *lengths; i++) {
            check_case("%d pages at %d", (int)lengths[i / 2], (int)first);
            check_bitmap(&b, &r, input, first, lengths[i / 2], i & 1);
        }
    dirty_close(&b);
    guarded_close(input);
}

/* Longer than what is copied at a time. */
static void long_bitmaps_are_shifted_as_one(void)
{
    static const uint64_t lengths[] = {65472, 65535, 65536, 65537, 131072, 140000, 200000};
    static const uint64_t firsts[] = {0, 1, 63, 64, 100, 65535};
    dirty_bench b;
    guarded input = guarded_open(200000 / 8);
    rng r = rng_open(2);
    dirty_open(&b, (sp_memslot[]){{5, 200000, 0}}, 1);
    for (size_t i = 0; i < 6; i++)
        for (size_t n = 0; n < 7; n++) {
            check_case("%d pages at %d", (int)lengths[n], (int)firsts[i]);
            check_bitmap(&b, &r, input, firsts[i], lengths[n], 1);
        }
    dirty_close(&b);
    guarded_close(input);
}

/* By hand: pages 0, 9, 63, 64 and 129 of two slots, in several calls, one twice. */
static void bitmaps_add_up(void)
{
    dirty_bench b;
    static const sp_memslot slots[] = {{100, 130, 4}, {300, 65, 5}};
    dirty_open(&b, slots, 2);
    uint64_t words[3] = {UINT64_C(1) << 63 | 1, 1, 0};
    CHECK_EQ(sp_log_add_bitmap(b.log, &slots[0], words, 0, 130), SP_OK);
    uint64_t held = sp_log_bytes(b.log);
    dirty_page(&b, 0, 9);
    dirty_page(&b, 0, 9);
    dirty_page(&b, 0, 129);
    CHECK_EQ(sp_log_bytes(b.log), held);
    CHECK_EQ(sp_log_add_bitmap(b.log, &slots[1], words, 0, 64), SP_OK);
    CHECK(sp_log_bytes(b.log) > held);
    sp_harvest *harvest = dirty_take(&b);
    const uint64_t *first = sp_harvest_words(harvest, 0), *second = sp_harvest_words(harvest, 1);
    REQUIRE(first && second);
    CHECK_EQ(first[0], UINT64_C(1) << 63 | 1 << 9 | 1);
    CHECK_EQ(first[1], 1);
    CHECK_EQ(first[2], 2);
    CHECK_EQ(second[0], UINT64_C(1) << 63 | 1);
    CHECK_EQ(second[1], 0);
    CHECK_EQ(sp_harvest_loose(harvest)->n, 0);
    CHECK_EQ(sp_set_count(sp_harvest_sparse(harvest)), 0);
    CHECK(sp_harvest_memory(harvest) == b.memory);
    sp_harvest_release(harvest);
    dirty_close(&b);
}

static void a_bitmap_past_the_slot_adds_nothing(void)
{
    dirty_bench b;
    static const sp_memslot slots[] = {{100, 130, 4}};
    dirty_open(&b, slots, 1);
    uint64_t before = sp_log_bytes(b.log);
    CHECK_EQ(sp_log_add_bitmap(b.log, &slots[0], "\377", 131, 1), SP_RANGE);
    CHECK_EQ(sp_log_add_bitmap(b.log, &slots[0], "\377", UINT64_MAX, 1), SP_RANGE);
    CHECK_EQ(sp_log_bytes(b.log), before);
    CHECK_EQ(sp_log_add_bitmap(b.log, &slots[0], NULL, 130, UINT64_MAX), SP_OK);
    CHECK_EQ(sp_log_add_bitmap(b.log, &slots[0], NULL, 0, 0), SP_OK);
    CHECK_EQ(sp_log_add_bitmap(b.log, &slots[0], "\377", 127, UINT64_MAX), SP_OK);
    sp_harvest *harvest = dirty_take(&b);
    const uint64_t *words = sp_harvest_words(harvest, 0);
    REQUIRE(words != NULL);
    CHECK_EQ(words[0], 0);
    CHECK_EQ(words[1], UINT64_C(1) << 63);
    CHECK_EQ(words[2], 3);
    sp_harvest_release(harvest);
    dirty_close(&b);
}

/* ---- ranges, pages, ring entries ---- */

enum { LONGEST = 400, SLOTS = 4 };

/* Guests whose slots overlap, one of them at the last page there is. */
static const sp_memslot slots[SLOTS] = {{65436, 300, 3},
                                        {65536, 64, SMM | 3},
                                        {(UINT64_C(1) << 32) - 50, 150, 0},
                                        {SP_GFN_LIMIT - 100, 100, SMM | 9}};

/* What is in windows is counted page by page; slots 0 to 3 lie in windows 1, 5 and 9. */
static uint64_t into_window(const model *m, uint64_t gfn)
{
    for (size_t w = 0; w < m->n; w++)
        if (gfn == m->window[w].stop)
            return gfn - 1;
    return gfn;
}

static void add_ranges(dirty_bench *b, model *m, rng *r, size_t n)
{
    sp_range *ranges = malloc(n * sizeof *ranges + 1);
    size_t bad;
    for (size_t i = 0; i < n; i++) {
        ranges[i] = random_range(m, r);
        if (rng_chance(r, 9))
            ranges[i].stop = ranges[i].start;
        if (rng_chance(r, 40))
            ranges[i].start = ranges[i].stop = SP_GFN_LIMIT;
        if (ranges[i].start < ranges[i].stop)
            model_assign(m, ranges[i].start, ranges[i].stop, true);
    }
    CHECK_EQ(sp_log_add_ranges(b->log, ranges, n, &bad), SP_OK);
    free(ranges);
}

/* Upwards in places, which is when neighbours are joined. */
static void add_pages(dirty_bench *b, model *m, rng *r, size_t n)
{
    uint64_t *gfns = malloc(n * sizeof *gfns + 1);
    size_t bad;
    for (size_t i = 0; i < n; i++) {
        bool next = i && !rng_chance(r, 4);
        gfns[i] = into_window(m, next ? gfns[i - 1] + 1 : model_border(m, r));
        model_assign(m, gfns[i], gfns[i] + 1, true);
    }
    CHECK_EQ(sp_log_add_pages(b->log, gfns, n, &bad), SP_OK);
    free(gfns);
}

static void add_ring(dirty_bench *b, model *m, rng *r, size_t n)
{
    sp_ring_entry *entries = malloc(n * sizeof *entries + 1);
    size_t bad;
    for (size_t i = 0; i < n; i++) {
        const sp_memslot *slot = &slots[rng_below(r, SLOTS)];
        uint64_t offset = rng_below(r, slot->npages);
        entries[i] = (sp_ring_entry){rng_chance(r, 3) ? 3 : 1, slot->id, offset};
        model_assign(m, slot->gfn + offset, slot->gfn + offset + 1, true);
    }
    CHECK_EQ(sp_log_add_ring(b->log, entries, n, &bad), SP_OK);
    free(entries);
}

static void sparse_pages_match_the_model(void)
{
    sp_range windows[BORDER_WINDOWS];
    rng r = rng_open(3);
    border_windows(1000, windows);
    for (uint64_t step = 0; step < check_scaled(250) && !check_failed(); step++) {
        dirty_bench b;
        model m;
        dirty_open(&b, slots, SLOTS);
        model_init(&m, windows, BORDER_WINDOWS);
        for (uint64_t calls = rng_below(&r, 5); calls--;) {
            size_t n = rng_below(&r, rng_chance(&r, 2) ? 6 : LONGEST);
            check_case("step %d, %zu elements", (int)step, n);
            switch (rng_below(&r, 3)) {
            case 0: add_ranges(&b, &m, &r, rng_chance(&r, 4) ? n : n % 40); break;
            case 1: add_pages(&b, &m, &r, n); break;
            default: add_ring(&b, &m, &r, n);
            }
            CHECK_EQ(sp_log_bytes(b.log) + b.memory_bytes, alloc_bytes(&b.alloc));
        }
        sp_harvest *harvest = dirty_take(&b);
        harvest_is(harvest, &m);
        for (size_t i = 0; i < SLOTS; i++)
            CHECK(!sp_harvest_words(harvest, i));
        sp_harvest_release(harvest);
        model_clear(&m);
        dirty_close(&b);
    }
}

/* By hand: runs are joined as far as they go, 4,096 pages, and a new one begins after a gap. */
static void pages_in_a_row_are_few_runs(void)
{
    enum { ROW = 10000 };
    static uint64_t gfns[ROW];
    static sp_ring_entry entries[ROW];
    for (unsigned by_ring = 0; by_ring < 2; by_ring++) {
        dirty_bench b;
        size_t bad;
        uint64_t pages = 0;
        dirty_open(&b, (sp_memslot[]){{1000, 2 * ROW, 0}}, 1);
        for (uint64_t i = 0; i < ROW; i++) {
            uint64_t page = i + (i == ROW - 1);
            gfns[i] = 1000 + page;
            entries[i] = (sp_ring_entry){1, 0, page};
        }
        CHECK_EQ(by_ring ? sp_log_add_ring(b.log, entries, ROW, &bad)
                         : sp_log_add_pages(b.log, gfns, ROW, &bad),
                 SP_OK);
        sp_harvest *harvest = dirty_take(&b);
        const sp_loose *loose = sp_harvest_loose(harvest);
        REQUIRE_EQ(loose->n, 4);
        CHECK_EQ(loose->runs[0], sp_loose_run(1000, 4096));
        CHECK_EQ(loose->runs[1], sp_loose_run(5096, 4096));
        CHECK_EQ(loose->runs[2], sp_loose_run(9192, 1807));
        CHECK_EQ(loose->runs[3], sp_loose_run(11000, 1));
        CHECK_EQ(sp_merge_count(&b.alloc.hook, harvest, &pages), SP_OK);
        CHECK_EQ(pages, ROW);
        sp_harvest_release(harvest);
        dirty_close(&b);
    }
}

/* ---- what is refused ---- */

static void is_empty(dirty_bench *b)
{
    sp_harvest *harvest = dirty_take(b);
    CHECK(harvest_is_empty(harvest));
    sp_harvest_release(harvest);
}

static void bad_ranges_add_nothing(void)
{
    static const struct {
        sp_range bad;
        sp_status status;
    } refused[] = {{{5, 4}, SP_INVALID},
                   {{SP_GFN_LIMIT, 0}, SP_INVALID},
                   {{SP_GFN_LIMIT - 1, SP_GFN_LIMIT + 1}, SP_RANGE},
                   {{SP_GFN_LIMIT + 1, SP_GFN_LIMIT + 1}, SP_RANGE},
                   {{0, UINT64_MAX}, SP_RANGE},
                   {{UINT64_MAX, 0}, SP_RANGE}};
    dirty_bench b;
    dirty_open(&b, slots, SLOTS);
    for (size_t i = 0; i < sizeof refused / sizeof *refused; i++)
        for (size_t at = 0; at < 3; at++) {
            sp_range list[3] = {{1, 2}, {70000, 80000}, {SP_GFN_LIMIT - 1, SP_GFN_LIMIT}};
            size_t bad = 99;
            list[at] = refused[i].bad;
            check_case("range %zu at %zu", i, at);
            CHECK_EQ(sp_log_add_ranges(b.log, list, 3, &bad), refused[i].status);
            CHECK_EQ(bad, at);
        }
    is_empty(&b);
    dirty_close(&b);
}

static void bad_pages_add_nothing(void)
{
    static const uint64_t refused[] = {SP_GFN_LIMIT, SP_GFN_LIMIT + 1, UINT64_MAX};
    dirty_bench b;
    dirty_open(&b, slots, SLOTS);
    for (size_t i = 0; i < 3; i++)
        for (size_t at = 0; at < 4; at++) {
            uint64_t list[] = {7, SP_GFN_LIMIT - 2, SP_GFN_LIMIT - 1, 0};
            size_t bad = 99;
            list[at] = refused[i];
            check_case("gfn %zu at %zu", i, at);
            CHECK_EQ(sp_log_add_pages(b.log, list, 4, &bad), SP_RANGE);
            CHECK_EQ(bad, at);
        }
    is_empty(&b);
    dirty_close(&b);
}

static void bad_ring_entries_add_nothing(void)
{
    static const struct {
        sp_ring_entry bad;
        sp_status status;
    } refused[] = {{{0, 3, 5}, SP_INVALID},       {{2, 3, 5}, SP_INVALID},
                   {{0, 4, 999}, SP_INVALID},     {{1, 4, 5}, SP_UNKNOWN},
                   {{1, SMM, 5}, SP_UNKNOWN},     {{1, UINT32_MAX, 5}, SP_UNKNOWN},
                   {{1, 3, 300}, SP_RANGE},       {{1, SMM | 3, 64}, SP_RANGE},
                   {{3, SMM | 9, 100}, SP_RANGE}, {{1, 3, UINT64_C(1) << 32}, SP_RANGE},
                   {{1, 0, UINT64_MAX}, SP_RANGE}};
    dirty_bench b;
    dirty_open(&b, slots, SLOTS);
    for (size_t i = 0; i < sizeof refused / sizeof *refused; i++)
        for (size_t at = 0; at < 3; at++) {
            sp_ring_entry list[] = {{1, 3, 299}, {3, SMM | 3, 63}, {1, SMM | 9, 99}};
            size_t bad = 99;
            list[at] = refused[i].bad;
            check_case("entry %zu at %zu", i, at);
            CHECK_EQ(sp_log_add_ring(b.log, list, 3, &bad), refused[i].status);
            CHECK_EQ(bad, at);
        }
    is_empty(&b);
    dirty_close(&b);
}

static void nothing_is_added_to_nothing(void)
{
    dirty_bench b;
    size_t bad;
    dirty_open(&b, NULL, 0);
    CHECK_EQ(sp_log_add_ranges(b.log, NULL, 0, &bad), SP_OK);
    CHECK_EQ(sp_log_add_pages(b.log, NULL, 0, &bad), SP_OK);
    CHECK_EQ(sp_log_add_ring(b.log, NULL, 0, &bad), SP_OK);
    is_empty(&b);
    CHECK_EQ(sp_log_add_pages(b.log, &(uint64_t){SP_GFN_LIMIT - 1}, 1, &bad), SP_OK);
    sp_harvest *harvest = dirty_take(&b);
    CHECK(harvest_has(harvest, SP_GFN_LIMIT - 1));
    CHECK(!harvest_has(harvest, SP_GFN_LIMIT - 2));
    sp_harvest_release(harvest);
    dirty_close(&b);
}

int main(void)
{
    RUN(bitmaps_land_at_every_page);
    RUN(long_bitmaps_are_shifted_as_one);
    RUN(bitmaps_add_up);
    RUN(a_bitmap_past_the_slot_adds_nothing);
    RUN(sparse_pages_match_the_model);
    RUN(pages_in_a_row_are_few_runs);
    RUN(bad_ranges_add_nothing);
    RUN(bad_pages_add_nothing);
    RUN(bad_ring_entries_add_nothing);
    RUN(nothing_is_added_to_nothing);
    return check_close();
}
