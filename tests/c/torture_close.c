/* tier: torture
 *
 * torture_close.c - a tracker is closed and given up while others read it, hold its snapshots and
 * pass them on; whoever lets go last takes it down.
 *
 * A round: threads use one tracker, usually until it tells them that it is closed, and keep what
 * they hold.  Then the owner gives the tracker up while the threads, at the same time, swap
 * snapshots with each other and release them.  At the end of a round nothing may be left.
 */
#include <pthread.h>
#include <sched.h>
#include <stdlib.h>

#include "support_alloc.h"
#include "support_tracker.h"

#define THREADS 4
#define HELD 8
#define ROUNDS 400
#define USES 3000 /* calls of each thread in a round, unless the tracker is closed before */
#define SHELF 4   /* places at which snapshots wait for another thread */

typedef struct torture {
    sp_tracker *tracker;
    _Atomic uint32_t using;              /* threads that still call the tracker */
    _Atomic(sp_snapshot *) shelf[SHELF]; /* a snapshot and the duty to release it */
} torture;

typedef struct worker {
    torture *t;
    rng r;
    sp_snapshot *held[HELD];
    unsigned n;
} worker;

/* Every epoch e of this guest has pages [0, e) shared, whatever the thread that shared them. */
static void check_content(const sp_snapshot *snapshot)
{
    sp_set set = sp_snapshot_set(snapshot);
    uint64_t epoch = sp_snapshot_epoch(snapshot);
    CHECK_EQ(sp_set_count(&set), epoch);
    CHECK(!epoch || sp_set_contains(&set, epoch - 1));
    CHECK(!sp_set_contains(&set, epoch));
}

static void release(sp_snapshot *snapshot)
{
    check_content(snapshot);
    sp_snapshot_release(snapshot);
    free(snapshot);
}

static void keep(worker *w, sp_snapshot snapshot)
{
    if (w->n == HELD)
        release(w->held[--w->n]);
    w->held[w->n] = malloc(sizeof snapshot);
    *w->held[w->n++] = snapshot;
}

/* Puts one on the shelf, and takes what was there. */
static void swap(worker *w)
{
    if (!w->n)
        return;
    sp_snapshot **mine = &w->held[rng_below(&w->r, w->n)];
    /* acq_rel: the snapshot itself changes hands */
    sp_snapshot *other = sp_swap(&w->t->shelf[rng_below(&w->r, SHELF)], *mine, acq_rel);
    *mine = other ? other : w->held[--w->n];
}

static void compare(const worker *w)
{
    if (w->n < 2)
        return;
    const sp_snapshot *a = w->held[0], *b = w->held[w->n - 1];
    uint64_t low = sp_snapshot_epoch(a), high = sp_snapshot_epoch(b);
    sp_pageset *pages;
    if (low > high || sp_snapshot_converted(b, a, &pages) != SP_OK)
        return;
    CHECK_EQ(sp_set_count(sp_pageset_set(pages)), high - low);
    sp_pageset_release(pages);
}

/* One call of the tracker; false once it is closed. */
static bool use(worker *w)
{
    sp_snapshot taken;
    uint64_t changed;
    sp_status status = SP_OK;
    switch (rng_below(&w->r, 4)) {
    case 0: /* shares the lowest private page, whichever that is by then */
        status = sp_tracker_convert(w->t->tracker, sp_tracker_count(w->t->tracker), 1, true, true,
                                    &changed);
        break;
    case 1:
        status = sp_tracker_snapshot(w->t->tracker, true, &taken);
        if (!status)
            keep(w, taken);
        break;
    case 2:
        status = sp_tracker_latest(w->t->tracker, &taken);
        if (!status)
            keep(w, taken);
        break;
    default: swap(w);
    }
    CHECK(status == SP_OK || status == SP_CLOSED);
    return status == SP_OK;
}

static void *work(void *context)
{
    worker *w = context;
    for (unsigned i = 0; i < USES && use(w); i++)
        ;
    /* release: what we did with the tracker is over before its owner gives it up */
    sp_sub(&w->t->using, 1, release);
    while (w->n) {
        if (rng_chance(&w->r, 3))
            keep(w, sp_snapshot_retain(w->held[rng_below(&w->r, w->n)]));
        if (rng_chance(&w->r, 3))
            swap(w);
        if (rng_chance(&w->r, 3))
            compare(w);
        for (uint64_t n = rng_below(&w->r, 3); w->n && n; n--)
            release(w->held[--w->n]);
    }
    return NULL;
}

static void own(torture *t, rng *r)
{
    for (uint64_t n = rng_below(r, 300); n; n--)
        sched_yield();
    CHECK_EQ(sp_tracker_close(t->tracker), SP_OK);
    while (sp_load(&t->using, acquire)) /* pairs with work */
        sched_yield();
    for (uint64_t n = rng_below(r, 20); n; n--)
        sched_yield();
    sp_tracker_free(t->tracker);
}

static void run_round(uint64_t seed)
{
    test_alloc alloc;
    torture t = {0};
    worker w[THREADS];
    pthread_t thread[THREADS];
    rng r = rng_open(seed);
    alloc_init(&alloc);
    atomic_init(&t.using, THREADS);
    REQUIRE_EQ(sp_tracker_new(&alloc.hook, test_engine, SP_GFN_LIMIT, false, &t.tracker), SP_OK);
    for (unsigned i = 0; i < THREADS; i++) {
        w[i] = (worker){.t = &t, .r = rng_open(seed * THREADS + i)};
        REQUIRE(pthread_create(&thread[i], NULL, work, &w[i]) == 0);
    }
    own(&t, &r);
    for (unsigned i = 0; i < THREADS; i++)
        pthread_join(thread[i], NULL);
    for (unsigned i = 0; i < SHELF; i++) {
        sp_snapshot *left = sp_load(&t.shelf[i], acquire);
        if (left)
            release(left);
    }
    CHECK_EQ(alloc_blocks(&alloc), 0);
}

static void test_the_last_one_takes_it_down(void)
{
    uint64_t rounds = check_scaled(ROUNDS);
    for (uint64_t seed = 0; seed < rounds && !check_failed(); seed++) {
        check_case("round %llu", (unsigned long long)seed);
        run_round(seed);
    }
}

int main(void)
{
    RUN_TRACKERS(test_the_last_one_takes_it_down);
    return check_close();
}
