/* tier: torture
 *
 * torture_dirty.c - threads report dirty pages by every way there is while others take them, look
 * at them, merge them, give them back or drop them.
 *
 * Every page is reported once, by one thread.  So, of the harvests that are held or were dropped,
 * exactly one has it; and that as soon as somebody has taken from the log after the report.
 *
 * Takers keep what they know, and take, under a lock of their own: reporters never see it.  They do
 * meet takers at one more lock, as a loan must be filled before the log is taken from.
 */
#include <pthread.h>
#include <sched.h>

#include "base/bits.h"
#include "support_dirty.h"

#define REPORTERS 3
#define TAKERS 2
#define STRIPE 50     /* pages: reporters share words, but no page */
#define REPORTS 16000 /* pages of a reporter */
#define PAGES (REPORTERS * REPORTS)
#define FIRST UINT64_C(65501) /* gfn */
#define ROUNDS 25
#define HELD 4

/* Two slots over the same gfns, in the order of their indices: pages are reported by either. */
static const sp_memslot slots[] = {{FIRST - 7, PAGES + 9, 1u << 16}, {FIRST, PAGES, 0}};

typedef struct torture {
    dirty_bench bench;
    sp_pageset *shared;
    pthread_rwlock_t loans;               /* to read: a loan is being filled; to write: taking */
    _Atomic uint64_t reported[REPORTERS]; /* pages of each that the log has had */
    _Atomic uint32_t reporting;           /* threads that still do */
    pthread_mutex_t lock;                 /* of the takers, for all below */
    uint8_t seen[PAGES];                  /* harvests, held or dropped, that have the page */
    sp_harvest *held[HELD];
    unsigned returning; /* harvests no longer held and not yet given back */
} torture;

typedef struct worker {
    torture *t;
    rng r;
    unsigned number;
} worker;

/* ---- reporting ---- */

/* The i-th page of a reporter. */
static uint64_t page_of(unsigned reporter, uint64_t i)
{
    return (i / STRIPE * REPORTERS + reporter) * STRIPE + i % STRIPE;
}

static void by_loan(torture *t, size_t index, uint64_t first, uint64_t n)
{
    sp_bits *loan = NULL;
    pthread_rwlock_rdlock(&t->loans);
    CHECK_EQ(sp_log_lend(t->bench.log, &slots[index], &loan), SP_OK);
    if (loan)
        sp_words_fill(sp_loan_words(loan), first, first + n - 1, true);
    pthread_rwlock_unlock(&t->loans);
    sched_yield(); /* others may take, and add to this slot */
    if (loan)
        sp_loan_end(loan);
}

/* Pages [page, page + n) from FIRST, n at most STRIPE. */
static void report(worker *w, uint64_t page, uint64_t n)
{
    static const uint64_t ones = ~UINT64_C(0);
    sp_log *log = w->t->bench.log;
    size_t index = rng_below(&w->r, 2), bad;
    uint64_t gfn = FIRST + page, first = gfn - slots[index].gfn, gfns[STRIPE];
    sp_ring_entry entries[STRIPE];
    for (uint64_t i = 0; i < n; i++) {
        gfns[i] = gfn + n - 1 - i;
        entries[i] = (sp_ring_entry){1, slots[index].id, first + i};
    }
    switch (rng_below(&w->r, 5)) {
    case 0: CHECK_EQ(sp_log_add_bitmap(log, &slots[index], &ones, first, n), SP_OK); break;
    case 1: CHECK_EQ(sp_log_add_ranges(log, &(sp_range){gfn, gfn + n}, 1, &bad), SP_OK); break;
    case 2: CHECK_EQ(sp_log_add_pages(log, gfns, n, &bad), SP_OK); break;
    case 3: CHECK_EQ(sp_log_add_ring(log, entries, n, &bad), SP_OK); break;
    default: by_loan(w->t, index, first, n);
    }
}

static void *work(void *context)
{
    worker *w = context;
    for (uint64_t i = 0; i < REPORTS;) {
        uint64_t n = rng_between(&w->r, 1, STRIPE - i % STRIPE);
        report(w, page_of(w->number, i), n);
        i += n;
        /* release: pairs with take; the log has had these pages */
        sp_store(&w->t->reported[w->number], i, release);
        if (rng_chance(&w->r, 3))
            sched_yield();
    }
    sp_sub(&w->t->reporting, 1, relaxed);
    return NULL;
}

/* ---- taking; with the takers' lock held but where another is said ---- */

/* Adds `step` to what is seen of each page of a list, which then is `want`. */
static void mark(torture *t, const sp_list *list, bool shared, int step, int want)
{
    for (size_t i = 0; i < list->n && !check_failed(); i++) {
        sp_range range = list->ranges[i];
        REQUIRE(range.start >= FIRST && range.stop <= FIRST + PAGES);
        CHECK_EQ(sp_set_contains(sp_pageset_set(t->shared), range.start), shared);
        for (uint64_t gfn = range.start; gfn < range.stop; gfn++) {
            t->seen[gfn - FIRST] = (uint8_t)(t->seen[gfn - FIRST] + step);
            CHECK_EQ(t->seen[gfn - FIRST], want);
        }
    }
}

static void mark_harvest(torture *t, sp_harvest *harvest, int step, int want)
{
    enum { ROOM = 60 };
    sp_range rooms[2][ROOM];
    sp_list shared = {rooms[0], 0, ROOM, 0}, private = {rooms[1], 0, ROOM, 0};
    sp_set none = sp_set_empty(&sp_engine_roaring);
    sp_merge *merge;
    REQUIRE_EQ(sp_merge_new(NULL, harvest, &none, sp_pageset_set(t->shared), &merge), SP_OK);
    for (bool over = false; !over;) {
        over = sp_merge_next(merge, &shared, &private);
        mark(t, &shared, true, step, want);
        mark(t, &private, false, step, want);
        shared.n = private.n = 0;
    }
    sp_merge_free(merge);
}

static void take(torture *t, size_t i)
{
    uint64_t floor[REPORTERS];
    for (unsigned n = 0; n < REPORTERS; n++)
        floor[n] = sp_load(&t->reported[n], acquire); /* pairs with work */
    pthread_rwlock_wrlock(&t->loans);
    t->held[i] = dirty_take(&t->bench);
    pthread_rwlock_unlock(&t->loans);
    if (!t->held[i])
        return;
    mark_harvest(t, t->held[i], 1, 1);
    for (unsigned n = 0; n < REPORTERS && !t->returning; n++)
        for (uint64_t page = 0; page < floor[n] && !check_failed(); page++)
            CHECK_EQ(t->seen[page_of(n, page)], 1);
}

/* Gives back with the lock released: another taker takes meanwhile. */
static void give_back(torture *t, size_t i)
{
    sp_harvest *harvest = t->held[i];
    t->held[i] = NULL;
    mark_harvest(t, harvest, -1, 0);
    t->returning++;
    pthread_mutex_unlock(&t->lock);
    sched_yield();
    sp_log_give_back(t->bench.log, harvest);
    pthread_mutex_lock(&t->lock);
    t->returning--;
}

static void drop(torture *t, size_t i)
{
    sp_harvest_release(t->held[i]);
    t->held[i] = NULL;
}

/* Counts a harvest twice with the lock released, while another taker may end it. */
static void count(torture *t, size_t i)
{
    sp_harvest *harvest = sp_harvest_retain(t->held[i]);
    uint64_t first = 0, second = 1;
    pthread_mutex_unlock(&t->lock);
    CHECK_EQ(sp_merge_count(NULL, harvest, &first), SP_OK);
    CHECK(sp_log_bytes(t->bench.log) > 0);
    CHECK_EQ(sp_merge_count(NULL, harvest, &second), SP_OK);
    CHECK_EQ(first, second);
    sp_harvest_release(harvest);
    pthread_mutex_lock(&t->lock);
}

/* Looks into the log with the lock released: a take beside it misses nothing. */
static void peek(torture *t)
{
    sp_harvest *harvest = NULL;
    pthread_mutex_unlock(&t->lock);
    pthread_rwlock_wrlock(&t->loans);
    CHECK_EQ(sp_log_peek(t->bench.log, &harvest), SP_OK);
    pthread_rwlock_unlock(&t->loans);
    sp_harvest_release(harvest);
    pthread_mutex_lock(&t->lock);
}

static void *collect(void *context)
{
    worker *w = context;
    torture *t = w->t;
    while (sp_load(&t->reporting, relaxed) && !check_failed()) {
        size_t i = rng_below(&w->r, HELD);
        uint64_t what = rng_below(&w->r, 5);
        pthread_mutex_lock(&t->lock);
        if (what == 4)
            peek(t);
        else if (!t->held[i])
            take(t, i);
        else if (what < 2)
            give_back(t, i);
        else if (what == 2)
            drop(t, i);
        else
            count(t, i);
        pthread_mutex_unlock(&t->lock);
        for (uint64_t n = rng_below(&w->r, 20); n; n--)
            sched_yield();
    }
    return NULL;
}

/* ---- rounds ---- */

/* Ends what is held, and takes what is left: every page has been seen. */
static void settle(torture *t, rng *r)
{
    pthread_mutex_lock(&t->lock);
    for (size_t i = 0; i < HELD; i++) {
        if (t->held[i] && rng_chance(r, 2))
            give_back(t, i);
        else if (t->held[i])
            drop(t, i);
    }
    take(t, 0);
    drop(t, 0);
    pthread_mutex_unlock(&t->lock);
    for (uint64_t page = 0; page < PAGES && !check_failed(); page++)
        CHECK_EQ(t->seen[page], 1);
}

static void open_round(torture *t)
{
    sp_range stripes[PAGES / 100];
    size_t bad;
    *t = (torture){0};
    dirty_open(&t->bench, slots, 2);
    pthread_rwlock_init(&t->loans, NULL);
    pthread_mutex_init(&t->lock, NULL);
    sp_store(&t->reporting, REPORTERS, relaxed);
    for (size_t i = 0; i < PAGES / 100; i++)
        stripes[i] = (sp_range){FIRST + 100 * i, FIRST + 100 * i + 33};
    CHECK_EQ(
        sp_pageset_from_ranges(NULL, &sp_engine_roaring, stripes, PAGES / 100, &t->shared, &bad),
        SP_OK);
}

static void run_round(uint64_t seed)
{
    static torture t;
    worker w[REPORTERS + TAKERS];
    pthread_t thread[REPORTERS + TAKERS];
    rng r = rng_open(seed);
    open_round(&t);
    for (unsigned i = 0; i < REPORTERS + TAKERS; i++) {
        w[i] = (worker){&t, rng_open(1000 + seed * (REPORTERS + TAKERS) + i), i};
        REQUIRE(pthread_create(&thread[i], NULL, i < REPORTERS ? work : collect, &w[i]) == 0);
    }
    for (unsigned i = 0; i < REPORTERS + TAKERS; i++)
        pthread_join(thread[i], NULL);
    settle(&t, &r);
    sp_pageset_release(t.shared);
    pthread_rwlock_destroy(&t.loans);
    pthread_mutex_destroy(&t.lock);
    dirty_close(&t.bench);
}

static void every_page_is_in_exactly_one_harvest(void)
{
    uint64_t rounds = check_scaled(ROUNDS);
    for (uint64_t seed = 0; seed < rounds && !check_failed(); seed++) {
        check_case("round %d", (int)seed);
        run_round(seed);
    }
}

int main(void)
{
    RUN(every_page_is_in_exactly_one_harvest);
    return check_close();
}
