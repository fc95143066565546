/* tier: failure
 *
 * test_oom_dirty.c - dirty logs and merges when memory is short: for every call the n-th allocation
 * fails, for all n until it succeeds, once and from then on.  No page that was in is lost, none
 * that nobody added appears, and nothing leaks.
 */
#include "support_dirty.h"
#include "support_engine.h"

#define SMM (1u << 16) /* address space 1 */

static const sp_memslot slots[] = {{65436, 300, 3}, {65600, 64, SMM | 3}, {70000, 5000, 0}};
static const sp_range window = {65000, 76000};

/* Pages far apart and of every shape, in one leaf and in two. */
static const sp_range ranges[] = {{65530, 65540}, {65600, 65601}, {65602, 65603},
                                  {65604, 65605}, {65606, 65607}, {75000, 75001},
                                  {65001, 65002}, {69000, 74000}, {65010, 70000}};
enum { RANGES = sizeof ranges / sizeof *ranges };

typedef struct play {
    dirty_bench bench;
    model before, after; /* what is in the log, and what is once the call has succeeded */
} play;

static void open_play(play *p)
{
    dirty_open(&p->bench, slots, 3);
    model_init(&p->before, &window, 1);
    model_init(&p->after, &window, 1);
}

static void close_play(play *p)
{
    model_clear(&p->before);
    model_clear(&p->after);
    dirty_close(&p->bench);
}

static void note(model *m, size_t index, uint64_t page)
{
    model_assign(m, slots[index].gfn + page, slots[index].gfn + page + 1, true);
}

/* Puts something into the log: `which` says what. */
static void fill(play *p, unsigned which)
{
    size_t bad;
    if (which & 1) {
        dirty_page(&p->bench, 0, 299);
        note(&p->before, 0, 299);
    }
    if (which & 2) {
        CHECK_EQ(sp_log_add_ranges(p->bench.log, ranges + 3, 3, &bad), SP_OK);
        for (size_t i = 3; i < 6; i++)
            model_assign(&p->before, ranges[i].start, ranges[i].stop, true);
    }
}

/* ---- calls that add ---- */

static sp_status call(play *p, unsigned which)
{
    static const uint64_t gfns[] = {75999, 65535, 65536, 65001, 65003, 65005, 65007, 65010};
    static const sp_ring_entry entries[] = {{1, 0, 4999}, {1, 3, 0}, {3, SMM | 3, 63}, {1, 3, 1},
                                            {1, 3, 5},    {1, 3, 9}, {1, 3, 13}};
    sp_bits *loan = NULL;
    sp_status status;
    size_t bad;
    model_combine(&p->after, SP_OR, &p->after, &p->before);
    switch (which) {
    case 0:
        note(&p->after, 2, 4097);
        return sp_log_add_bitmap(p->bench.log, &slots[2], "\1", 4097, 1);
    case 1: note(&p->after, 0, 7); return sp_log_add_bitmap(p->bench.log, &slots[0], "\1", 7, 1);
    case 2:
        note(&p->after, 1, 9);
        status = sp_log_lend(p->bench.log, &slots[1], &loan);
        if (loan) {
            sp_loan_words(loan)[0] = 1 << 9;
            sp_loan_end(loan);
        }
        return status;
    case 3:
        for (size_t i = 0; i < RANGES; i++)
            model_assign(&p->after, ranges[i].start, ranges[i].stop, true);
        return sp_log_add_ranges(p->bench.log, ranges, RANGES, &bad);
    case 4:
        for (size_t i = 0; i < sizeof gfns / sizeof *gfns; i++)
            model_assign(&p->after, gfns[i], gfns[i] + 1, true);
        return sp_log_add_pages(p->bench.log, gfns, sizeof gfns / sizeof *gfns, &bad);
    default:
        for (size_t i = 0; i < sizeof entries / sizeof *entries; i++)
            note(&p->after, entries[i].slot == 0 ? 2 : entries[i].slot >> 16, entries[i].offset);
        return sp_log_add_ring(p->bench.log, entries, sizeof entries / sizeof *entries, &bad);
    }
}

/* The harvest has all of `least`, and nothing that `most` has not. */
static void lies_between(const sp_harvest *harvest, const model *least, const model *most)
{
    model got, sum;
    model_copy(&got, least);
    model_assign(&got, 0, SP_GFN_LIMIT, false);
    model_add_harvest(&got, harvest);
    model_copy(&sum, &got);
    model_add(&sum, &got, least);
    CHECK(model_same(&sum, &got));
    model_add(&sum, &got, most);
    CHECK(model_same(&sum, most));
    model_clear(&got);
    model_clear(&sum);
}

/* True once the call has succeeded. */
static bool a_call_fails_at(unsigned which, unsigned filled, uint64_t n, bool onwards)
{
    play p;
    bool sparse = which >= 3;
    open_play(&p);
    fill(&p, filled);
    uint64_t bytes = sp_log_bytes(p.bench.log);
    alloc_arm(&p.bench.alloc, n, onwards);
    sp_status status = call(&p, which);
    CHECK_EQ(status, alloc_failed(&p.bench.alloc) ? SP_NOMEM : SP_OK);
    alloc_arm(&p.bench.alloc, 0, 0);
    CHECK(!status || sparse || sp_log_bytes(p.bench.log) == bytes);
    CHECK_EQ(sp_log_bytes(p.bench.log) + p.bench.memory_bytes, alloc_bytes(&p.bench.alloc));
    if (status && n % 2)
        CHECK_EQ(call(&p, which), SP_OK); /* as if nothing had been */
    sp_harvest *harvest = dirty_take(&p.bench);
    if (!status || n % 2)
        harvest_is(harvest, &p.after);
    else
        lies_between(harvest, &p.before, sparse ? &p.after : &p.before);
    sp_harvest_release(harvest);
    close_play(&p);
    return status == SP_OK;
}

static void calls_that_add_fail_at_every_allocation(void)
{
    for (unsigned which = 0; which < 6; which++)
        for (unsigned filled = 0; filled < 8; filled++) {
            bool done = false;
            for (uint64_t n = 1; !done && !check_failed(); n++) {
                check_case("call %u on log %u, allocation %d", which, filled, (int)n);
                done = a_call_fails_at(which, filled & 3, n, filled & 4);
            }
        }
}

/* ---- taking ---- */

/* Two harvests given back, pages in the log, a loan that ended and two that have not. */
static void prepare_take(play *p, sp_bits *loan[3])
{
    sp_harvest *harvest[2];
    for (unsigned i = 0; i < 2; i++) {
        fill(p, 3);
        dirty_page(&p->bench, 2, i);
        note(&p->before, 2, i);
        harvest[i] = dirty_take(&p->bench);
    }
    for (unsigned i = 0; i < 2; i++)
        sp_log_give_back(p->bench.log, harvest[i]);
    CHECK_EQ(call(p, 5), SP_OK);
    model_add(&p->before, &p->before, &p->after);
    for (unsigned i = 0; i < 3; i++) {
        loan[i] = NULL;
        REQUIRE_EQ(sp_log_lend(p->bench.log, &slots[i], &loan[i]), SP_OK);
        sp_loan_words(loan[i])[0] = UINT64_C(1) << (20 + i);
        note(&p->before, i, 20 + i);
    }
    sp_loan_end(loan[0]);
}

/* What a borrower writes between a take that failed and the one that does not is not lost. */
static bool a_take_fails_at(bool only_look, uint64_t n, bool onwards)
{
    play p;
    sp_bits *loan[3];
    sp_harvest *harvest = NULL;
    open_play(&p);
    prepare_take(&p, loan);
    alloc_arm(&p.bench.alloc, n, onwards);
    sp_status status = only_look ? sp_log_peek(p.bench.log, &harvest)
                                 : sp_log_take(p.bench.log, &harvest);
    CHECK_EQ(status, alloc_failed(&p.bench.alloc) ? SP_NOMEM : SP_OK);
    alloc_arm(&p.bench.alloc, 0, 0);
    CHECK_EQ(harvest == NULL, status == SP_NOMEM);
    if (status) {
        CHECK_EQ(sp_log_bytes(p.bench.log) + p.bench.memory_bytes, alloc_bytes(&p.bench.alloc));
        for (unsigned i = 1; i < 3; i++) {
            sp_loan_words(loan[i])[0] |= UINT64_C(1) << 33;
            note(&p.before, i, 33);
        }
        harvest = n % 3 ? dirty_take(&p.bench) : NULL; /* else the log goes as it is */
    }
    if (harvest)
        harvest_is(harvest, &p.before);
    sp_harvest_release(harvest);
    for (unsigned i = 1; i < 3; i++)
        sp_loan_end(loan[i]);
    close_play(&p);
    return status == SP_OK;
}

static void a_take_fails_at_every_allocation(void)
{
    for (unsigned how = 0; how < 4; how++) {
        bool done = false;
        for (uint64_t n = 1; !done && !check_failed(); n++) {
            check_case("%s, allocation %d%s", how & 2 ? "peek" : "take", (int)n,
                       how & 1 ? " and on" : "");
            done = a_take_fails_at(how & 2, n, how & 1);
        }
    }
}

/* ---- making memories and logs ---- */

static void a_memory_and_its_log_fail_at_every_allocation(void)
{
    for (unsigned onwards = 0; onwards < 2; onwards++) {
        sp_log *log = NULL;
        for (uint64_t n = 1; !log && !check_failed(); n++) {
            test_alloc alloc;
            sp_memory *memory = NULL;
            size_t bad, other;
            check_case("allocation %d%s", (int)n, onwards ? " and on" : "");
            alloc_init(&alloc);
            alloc_arm(&alloc, n, onwards);
            sp_status status = sp_memory_new(&alloc.hook, &sp_engine_roaring, slots, 3, &memory,
                                             &bad, &other);
            CHECK_EQ(memory == NULL, status == SP_NOMEM);
            if (memory)
                status = sp_log_new(&alloc.hook, memory, &log);
            CHECK_EQ(log == NULL, status == SP_NOMEM);
            sp_log_free(log);
            sp_memory_release(memory);
            CHECK_EQ(alloc_blocks(&alloc), 0);
        }
    }
}

/* ---- merging ---- */

enum { LEAVES = 40 };

typedef struct pair {
    sp_harvest *harvest;
    sp_pageset *extra, *shared;
} pair;

/* Merges with an allocator of its own; true once that has succeeded. */
static bool a_merge_fails_at(const pair *in, uint64_t n, bool onwards)
{
    test_alloc alloc;
    sp_merge *merge = NULL;
    sp_list shared = {0}, private = {0};
    sp_mem mem;
    alloc_init(&alloc);
    sp_mem_init(&mem, &alloc.hook);
    alloc_arm(&alloc, n, onwards);
    sp_status status = sp_merge_new(&alloc.hook, in->harvest, sp_pageset_set(in->extra),
                                    sp_pageset_set(in->shared), &merge);
    CHECK_EQ(merge == NULL, status == SP_NOMEM);
    CHECK(merge || alloc_blocks(&alloc) == 0);
    if (merge)
        status = sp_merge_all(merge, 1, &mem, &shared, &private);
    CHECK_EQ(status, alloc_failed(&alloc) ? SP_NOMEM : SP_OK);
    if (status) {
        CHECK(!shared.ranges && !shared.n && !shared.pages);
        CHECK(!private.ranges && !private.n && !private.pages);
    } else { /* by hand: 2000 pages two by two, the even ones shared, and page 65436 beside them */
        CHECK_EQ(shared.n, 2000);
        CHECK_EQ(private.n, 2000 + 1);
        CHECK_EQ(shared.pages + private.pages, 4001);
        CHECK_EQ(private.ranges[0].start, 65436);
        CHECK_EQ(shared.ranges[1999].start, 70000 + 3998);
    }
    sp_list_free(&mem, &shared);
    sp_list_free(&mem, &private);
    sp_merge_free(merge);
    CHECK_EQ(alloc_blocks(&alloc), 0);
    return status == SP_OK;
}

/* The same by several threads.  How many allocations there are depends on who is faster, and one
 * that only a thread more wanted fails nobody. */
static bool a_shared_merge_fails_at(const pair *in, size_t threads, uint64_t n, bool onwards)
{
    test_alloc alloc;
    sp_merge *merge = NULL;
    sp_list shared, private;
    sp_mem mem;
    alloc_init(&alloc);
    sp_mem_init(&mem, &alloc.hook);
    CHECK_EQ(sp_merge_new(&alloc.hook, in->harvest, sp_pageset_set(in->extra),
                          sp_pageset_set(in->shared), &merge),
             SP_OK);
    alloc_arm(&alloc, n, onwards);
    sp_status status = sp_merge_all(merge, threads, &mem, &shared, &private);
    bool failed = alloc_failed(&alloc);
    CHECK(status == SP_OK || (status == SP_NOMEM && failed));
    CHECK_EQ(shared.n, status ? 0 : LEAVES);
    CHECK_EQ(shared.pages, status ? 0 : 100 * LEAVES);
    CHECK_EQ(private.n, status ? 0 : LEAVES);
    CHECK_EQ(private.pages, status ? 0 : 20 * LEAVES);
    CHECK(!status || (!shared.ranges && !private.ranges));
    sp_list_free(&mem, &shared);
    sp_list_free(&mem, &private);
    sp_merge_free(merge);
    CHECK_EQ(alloc_blocks(&alloc), 0);
    return !failed;
}

static bool a_count_fails_at(const pair *in, uint64_t n, bool onwards)
{
    test_alloc alloc;
    uint64_t pages = 99;
    alloc_init(&alloc);
    alloc_arm(&alloc, n, onwards);
    sp_status status = sp_merge_count(&alloc.hook, in->harvest, &pages);
    CHECK_EQ(status, alloc_failed(&alloc) ? SP_NOMEM : SP_OK);
    CHECK_EQ(pages, status ? 99 : 4001);
    CHECK_EQ(alloc_blocks(&alloc), 0);
    return status == SP_OK;
}

/* Pages 70000..73999 dirty as pairs of a bitmap's, every second one shared, in another space's slot
 * over the first one too. */
static void open_pair(pair *in, dirty_bench *b)
{
    uint64_t gfns[2000], from = 5;
    size_t bad;
    dirty_open(b, (sp_memslot[]){{70000, 5000, 0}, {65436, 300, 3}, {65430, 20, SMM}}, 3);
    for (uint64_t page = 0; page < 4000; page += 2) {
        CHECK_EQ(sp_log_add_bitmap(b->log, &slots[2], "\3", page, 2), SP_OK);
        gfns[page / 2] = 70000 + page;
    }
    dirty_page(b, 0, 6);
    dirty_page(b, 1, 0);
    CHECK_EQ(sp_log_add_pages(b->log, &(uint64_t){65436}, 1, &bad), SP_OK);
    in->harvest = dirty_take(b);
    REQUIRE_EQ(sp_pageset_from_pages(NULL, test_engine, gfns, 2000, &in->shared, &bad), SP_OK);
    REQUIRE_EQ(sp_pageset_from_pages(NULL, test_engine, &from, 0, &in->extra, &bad), SP_OK);
}

static void merges_fail_at_every_allocation(void)
{
    for (unsigned onwards = 0; onwards < 2; onwards++) {
        pair in = {0};
        dirty_bench b;
        open_pair(&in, &b);
        bool done = false;
        for (uint64_t n = 1; !done && !check_failed(); n++) {
            check_case("merge, allocation %d%s", (int)n, onwards ? " and on" : "");
            done = a_merge_fails_at(&in, n, onwards);
        }
        done = false;
        for (uint64_t n = 1; !done && !check_failed(); n++) {
            check_case("count, allocation %d%s", (int)n, onwards ? " and on" : "");
            done = a_count_fails_at(&in, n, onwards);
        }
        sp_harvest_release(in.harvest);
        sp_pageset_release(in.extra);
        sp_pageset_release(in.shared);
        dirty_close(&b);
    }
}

/* In each of many leaves 120 pages, the first 100 of them shared. */
static void open_leaves(pair *in, dirty_bench *b)
{
    sp_range dirty[LEAVES], shared[LEAVES];
    size_t bad;
    for (uint64_t i = 0; i < LEAVES; i++) {
        dirty[i] = (sp_range){i * 65536 + 7, i * 65536 + 127};
        shared[i] = (sp_range){i * 65536, i * 65536 + 107};
    }
    dirty_open(b, &(sp_memslot){0, LEAVES * 65536, 0}, 1);
    CHECK_EQ(sp_log_add_ranges(b->log, dirty, LEAVES, &bad), SP_OK);
    dirty_page(b, 0, 10);
    in->harvest = dirty_take(b);
    REQUIRE_EQ(sp_pageset_from_ranges(NULL, test_engine, shared, LEAVES, &in->shared, &bad), SP_OK);
    REQUIRE_EQ(sp_pageset_from_ranges(NULL, test_engine, shared, 0, &in->extra, &bad), SP_OK);
}

static void shared_merges_fail_at_every_allocation(void)
{
    for (unsigned variant = 0; variant < 4; variant++) {
        pair in = {0};
        dirty_bench b;
        bool done = false;
        open_leaves(&in, &b);
        for (uint64_t n = 1; !done && !check_failed(); n++) {
            check_case("variant %u, allocation %d", variant, (int)n);
            done = a_shared_merge_fails_at(&in, variant & 2 ? 7 : 2, n, variant & 1);
        }
        sp_pageset_release(in.shared);
        sp_pageset_release(in.extra);
        sp_harvest_release(in.harvest);
        dirty_close(&b);
    }
}

int main(void)
{
    RUN(calls_that_add_fail_at_every_allocation);
    RUN(a_take_fails_at_every_allocation);
    RUN(a_memory_and_its_log_fail_at_every_allocation);
    RUN_ENGINES(merges_fail_at_every_allocation);
    RUN_ENGINES(shared_merges_fail_at_every_allocation);
    return check_close();
}
