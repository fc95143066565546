/* tier: torture
 *
 * torture_slots.c - threads report dirty pages while slots come and go, and others take, give back
 * and drop.
 *
 * Every page is reported once, by one thread, by way of a slot that stays, of one over the same
 * gfns that comes and goes, or of none.  A report that is refused is made again by another way.  So
 * of the harvests that were dropped and what is left at least one has the page; exactly one, but
 * that the pages of a slot that comes are all dirty, and a loan that was settled may be in two.
 */
#include <pthread.h>
#include <sched.h>

#include "base/bits.h"
#include "support_dirty.h"

#define SMM (1u << 16) /* address space 1 */
#define REPORTERS 3
#define TAKERS 2
#define REPORTS 6000 /* pages of a reporter */
#define PAGES (REPORTERS * REPORTS)
#define FIRST UINT64_C(65501) /* gfn */
#define TWIN_FIRST (FIRST + PAGES / 2 - 37)
#define MOST 40 /* pages of a report */
#define ROUNDS 15
#define TABLES 3

/* The twin lies over a third of the pages; what lies elsewhere is never reported. */
static const sp_memslot steady = {FIRST, PAGES, 0}, twin = {TWIN_FIRST, PAGES / 3, SMM},
                        elsewhere = {UINT64_C(1) << 30, 500, 7};

typedef struct torture {
    dirty_bench bench;
    sp_memory *memory[TABLES];
    pthread_rwlock_t loans; /* to read: a loan is being written; to write: it may be read */
    _Atomic uint32_t reporting;
    pthread_mutex_t lock;
    uint8_t seen[PAGES];    /* dropped harvests that have the page; under the lock */
    uint8_t settled[PAGES]; /* reported by a loan; each byte its reporter's */
} torture;

typedef struct worker {
    torture *t;
    rng r;
    unsigned number;
} worker;

/* ---- reporting ---- */

/* Bits [first, first + n) of a loan of the slot. */
static sp_status by_loan(worker *w, const sp_memslot *slot, uint64_t first, uint64_t n)
{
    torture *t = w->t;
    sp_bits *loan = NULL;
    sp_status status = sp_log_lend(t->bench.log, slot, &loan);
    if (status)
        return status;
    for (uint64_t i = 0; i < n; i++)
        t->settled[slot->gfn + first + i - FIRST] = 1;
    sched_yield(); /* others may take, and slots go */
    pthread_rwlock_rdlock(&t->loans);
    sp_words_fill(sp_loan_words(loan), first, first + n - 1, true);
    pthread_rwlock_unlock(&t->loans);
    sched_yield();
    status = sp_log_settle(t->bench.log, slot, loan);
    sp_loan_end(loan);
    return status;
}

/* Pages [page, page + n) from FIRST, n at most MOST. */
static void report(worker *w, uint64_t page, uint64_t n)
{
    static const uint64_t ones = ~UINT64_C(0);
    sp_log *log = w->t->bench.log;
    uint64_t gfn = FIRST + page;
    bool in_twin = gfn >= twin.gfn && gfn + n <= twin.gfn + twin.npages;
    const sp_memslot *slot = in_twin && rng_chance(&w->r, 2) ? &twin : &steady;
    uint64_t first = gfn - slot->gfn;
    sp_ring_entry entries[MOST];
    sp_status status = SP_UNKNOWN;
    size_t bad;
    for (uint64_t i = 0; i < n; i++)
        entries[i] = (sp_ring_entry){1, slot->id, first + i};
    switch (rng_below(&w->r, 4)) {
    case 0: status = by_loan(w, slot, first, n); break;
    case 1: status = sp_log_add_bitmap(log, slot, &ones, first, n); break;
    case 2: status = sp_log_add_ring(log, entries, n, &bad); break;
    default: break;
    }
    if (status == SP_UNKNOWN)
        status = sp_log_add_ranges(log, &(sp_range){gfn, gfn + n}, 1, &bad);
    CHECK_EQ(status, SP_OK);
}

static void *work(void *context)
{
    worker *w = context;
    for (uint64_t i = 0, n; i < REPORTS; i += n) {
        n = sp_min(rng_between(&w->r, 1, MOST), REPORTS - i);
        report(w, w->number * REPORTS + i, n);
        if (rng_chance(&w->r, 3))
            sched_yield();
    }
    sp_sub(&w->t->reporting, 1, relaxed);
    return NULL;
}

/* ---- taking, and other slots ---- */

/* Notes the pages of a harvest and drops it. */
static void drop(torture *t, sp_harvest *harvest)
{
    sp_pageset *pages = NULL;
    REQUIRE_EQ(sp_merge_pages(NULL, harvest, &pages), SP_OK);
    pthread_mutex_lock(&t->lock);
    for (uint64_t page = 0; page < PAGES; page++)
        if (sp_set_contains(sp_pageset_set(pages), FIRST + page))
            t->seen[page] = (uint8_t)sp_min(t->seen[page] + 1, 200);
    pthread_mutex_unlock(&t->lock);
    sp_pageset_release(pages);
    sp_harvest_release(harvest);
}

static void *collect(void *context)
{
    worker *w = context;
    torture *t = w->t;
    while (sp_load(&t->reporting, relaxed) && !check_failed()) {
        pthread_rwlock_wrlock(&t->loans);
        sp_harvest *harvest = dirty_take(&t->bench);
        pthread_rwlock_unlock(&t->loans);
        for (uint64_t n = rng_below(&w->r, 20); n; n--)
            sched_yield();
        if (rng_chance(&w->r, 2))
            drop(t, harvest);
        else
            sp_log_give_back(t->bench.log, harvest);
    }
    return NULL;
}

static void *change(void *context)
{
    worker *w = context;
    torture *t = w->t;
    while (sp_load(&t->reporting, relaxed) && !check_failed()) {
        sp_memory *memory = t->memory[rng_below(&w->r, TABLES)];
        pthread_rwlock_wrlock(&t->loans);
        CHECK_EQ(sp_log_set_memory(&t->bench.log, 1, memory), SP_OK);
        pthread_rwlock_unlock(&t->loans);
        for (uint64_t n = rng_below(&w->r, 20); n; n--)
            sched_yield();
    }
    return NULL;
}

/* ---- rounds ---- */

static void open_round(torture *t)
{
    const sp_memslot tables[TABLES][3] = {{steady}, {steady, twin}, {steady, twin, elsewhere}};
    size_t bad, other;
    *t = (torture){0};
    dirty_open(&t->bench, tables[0], 1);
    for (size_t i = 0; i < TABLES; i++)
        CHECK_EQ(sp_memory_new(&t->bench.alloc.hook, &sp_engine_roaring, tables[i], i + 1,
                               &t->memory[i], &bad, &other),
                 SP_OK);
    pthread_rwlock_init(&t->loans, NULL);
    pthread_mutex_init(&t->lock, NULL);
    sp_store(&t->reporting, REPORTERS, relaxed);
}

static void close_round(torture *t)
{
    drop(t, dirty_take(&t->bench));
    for (uint64_t page = 0; page < PAGES && !check_failed(); page++) {
        bool in_twin = FIRST + page >= twin.gfn && FIRST + page < twin.gfn + twin.npages;
        CHECK(t->seen[page] >= 1);
        CHECK(t->seen[page] == 1 || in_twin || t->settled[page]);
    }
    for (size_t i = 0; i < TABLES; i++)
        sp_memory_release(t->memory[i]);
    pthread_rwlock_destroy(&t->loans);
    pthread_mutex_destroy(&t->lock);
    dirty_close(&t->bench);
}

static void run_round(uint64_t seed)
{
    enum { THREADS = REPORTERS + TAKERS + 1 };
    static torture t;
    worker w[THREADS];
    pthread_t thread[THREADS];
    open_round(&t);
    for (unsigned i = 0; i < THREADS; i++) {
        w[i] = (worker){&t, rng_open(1000 + seed * THREADS + i), i};
        void *(*body)(void *) = i < REPORTERS ? work : i < REPORTERS + TAKERS ? collect : change;
        REQUIRE(pthread_create(&thread[i], NULL, body, &w[i]) == 0);
    }
    for (unsigned i = 0; i < THREADS; i++)
        pthread_join(thread[i], NULL);
    close_round(&t);
}

static void no_page_is_lost_while_slots_come_and_go(void)
{
    uint64_t rounds = check_scaled(ROUNDS);
    for (uint64_t seed = 0; seed < rounds && !check_failed(); seed++) {
        check_case("round %d", (int)seed);
        run_round(seed);
    }
}

int main(void)
{
    RUN(no_page_is_lost_while_slots_come_and_go);
    return check_close();
}
