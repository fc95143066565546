/* tier: torture
 *
 * torture_snapshots.c - readers take, clone, compare and drop snapshots while a writer converts
 * and applies.
 *
 * The writer keeps, for each epoch, the hash of the set and the pages converted, in plain memory
 * that it fills before the call that commits the epoch: a reader may look at the entry of an epoch
 * that it was shown, and ThreadSanitizer would see if the tracker had not ordered the two.
 *
 * snapshot() is linearizable: it shows every change that had returned before it was called, none
 * that began after it returned, and nothing older than a snapshot that was complete when it began.
 * latest() never goes back.
 */
#include <pthread.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "support_alloc.h"
#include "support_tracker.h"

#define READERS 4
#define HELD 12
#define WORDS 40
#define MAX_GAP 400 /* epochs over which a reader adds up conversions */
#define EPOCHS 20000
#define PACE 6   /* snapshots that readers take to each epoch written, */
#define SLACK 64 /* give or take so many epochs */
#define LAGS 18  /* histogram: epochs behind the writer, by powers of two */

static const uint64_t starts[] = {0, 65536 - 256, (UINT64_C(1) << 22) - 64, UINT64_C(1) << 34,
                                  SP_GFN_LIMIT - 512};

static const plots guest = {starts, 5, WORDS / 5};

_Static_assert(WORDS / 5 == 8, "five windows of eight words");

typedef struct entry {
    uint64_t hash;             /* of the set */
    uint64_t converted[WORDS]; /* in this epoch */
} entry;

typedef struct torture {
    sp_tracker *tracker;
    entry *book;                /* by epoch; written before the epoch is committed */
    uint64_t epochs;            /* the last one to write */
    _Atomic uint64_t begun;     /* epochs whose call has begun */
    _Atomic uint64_t returned;  /* epochs whose call has returned */
    _Atomic uint64_t shown;     /* the newest epoch of a snapshot() that has returned */
    _Atomic uint64_t taken;     /* snapshots; relaxed, for the pace alone */
    _Atomic uint64_t lag[LAGS]; /* snapshots by how far the writer had gone on */
} torture;

/* ---- the writer ---- */

/* Converts in the record, and notes in the entry what changed. */
static void foretell(uint64_t *now, entry *next, plot_range range, bool shared)
{
    uint64_t before[WORDS];
    memcpy(before, now, sizeof before);
    record_assign(now, range, shared);
    for (size_t w = 0; w < WORDS; w++)
        next->converted[w] |= before[w] ^ now[w];
}

static bool is_empty(const entry *next)
{
    uint64_t any = 0;
    for (size_t w = 0; w < WORDS; w++)
        any |= next->converted[w];
    return !any;
}

/* One call of 1 to 100 events; the epoch it commits, if it changes anything, is at + 1. */
static uint64_t write_once(torture *t, uint64_t at, uint64_t *now, rng *r)
{
    static const uint64_t sizes[] = {1, 1, 1, 3, 12, 100};
    sp_event event[100];
    entry *next = &t->book[at + 1];
    uint64_t n = sizes[rng_below(r, 6)], changed;
    size_t bad;
    memset(next, 0, sizeof *next);
    for (uint64_t i = 0; i < n; i++) {
        plot_range range = plots_range(&guest, r, rng_chance(r, 8) ? 512 : 9);
        event[i] = (sp_event){range.start, range.npages, (uint8_t)rng_below(r, 2)};
        foretell(now, next, range, event[i].shared);
    }
    next->hash = record_hash(now, WORDS);
    if (is_empty(next))
        return at;
    sp_store(&t->begun, at + 1, seq_cst);
    if (n == 1)
        CHECK_EQ(sp_tracker_convert(t->tracker, event->start, event->npages, event->shared, true,
                                    &changed),
                 SP_OK);
    else
        CHECK_EQ(sp_tracker_apply(t->tracker, event, n, &changed, &bad), SP_OK);
    sp_store(&t->returned, at + 1, seq_cst);
    return at + 1;
}

static void write_on(torture *t)
{
    rng r = rng_open(1);
    uint64_t now[WORDS] = {0}, at = 0;
    while (at < t->epochs && !check_failed()) {
        if (at > sp_load(&t->taken, relaxed) / PACE + SLACK)
            sched_yield();
        else
            at = write_once(t, at, now, &r);
    }
    CHECK_EQ(sp_tracker_epoch(t->tracker), at);
}

/* ---- readers ---- */

typedef struct reader {
    torture *t;
    rng r;
    sp_snapshot held[HELD];
    unsigned n;
    uint64_t newest; /* epoch of the newest snapshot seen here */
} reader;

static void raise_shown(torture *t, uint64_t epoch)
{
    uint64_t shown = sp_load(&t->shown, relaxed);
    while (shown < epoch && !sp_cas(&t->shown, &shown, epoch, seq_cst))
        ;
}

static void check_content(const reader *d, const sp_snapshot *snapshot)
{
    uint64_t record[WORDS];
    sp_set set = sp_snapshot_set(snapshot);
    plots_read(&guest, &set, record);
    CHECK_EQ(record_hash(record, WORDS), d->t->book[sp_snapshot_epoch(snapshot)].hash);
}

static void take(reader *d)
{
    torture *t = d->t;
    bool exact = rng_chance(&d->r, 2);
    uint64_t least = sp_load(&t->returned, seq_cst), shown = sp_load(&t->shown, seq_cst);
    sp_snapshot *new = &d->held[d->n];
    sp_status status = exact ? sp_tracker_snapshot(t->tracker, true, new)
                             : sp_tracker_latest(t->tracker, new);
    uint64_t most = sp_load(&t->begun, seq_cst);
    REQUIRE_EQ(status, SP_OK);
    uint64_t epoch = sp_snapshot_epoch(new);
    CHECK(epoch <= most && epoch >= d->newest && epoch >= shown);
    CHECK(!exact || epoch >= least);
    d->newest = epoch;
    if (exact)
        raise_shown(t, epoch);
    unsigned lag = 0;
    while (lag + 1 < LAGS && (most - epoch) >> lag)
        lag++;
    sp_add(&t->lag[lag], 1, relaxed);
    if (rng_chance(&d->r, 4))
        check_content(d, new);
    sp_add(&t->taken, 1, relaxed);
    d->n++;
}

static void release(reader *d)
{
    sp_snapshot *old = &d->held[rng_below(&d->r, d->n)];
    check_content(d, old);
    sp_snapshot_release(old);
    *old = d->held[--d->n];
}

static void compare(reader *d)
{
    const sp_snapshot *a = &d->held[rng_below(&d->r, d->n)], *b = &d->held[rng_below(&d->r, d->n)];
    uint64_t low = sp_snapshot_epoch(a), high = sp_snapshot_epoch(b), want[WORDS] = {0};
    if (low > high) {
        const sp_snapshot *swap = a;
        a = b;
        b = swap;
        low = sp_snapshot_epoch(a);
        high = sp_snapshot_epoch(b);
    }
    if (high - low > MAX_GAP)
        return;
    for (uint64_t epoch = low + 1; epoch <= high; epoch++)
        for (size_t w = 0; w < WORDS; w++)
            want[w] |= d->t->book[epoch].converted[w];
    sp_pageset *pages;
    REQUIRE_EQ(sp_snapshot_converted(b, a, &pages), SP_OK);
    plots_equal(&guest, sp_pageset_set(pages), want);
    sp_pageset_release(pages);
}

static void step(reader *d)
{
    uint64_t dice = rng_below(&d->r, 8);
    if (d->n == HELD || (d->n && dice < 2)) {
        release(d);
    } else if (d->n && dice == 2) {
        d->held[d->n] = sp_snapshot_retain(&d->held[rng_below(&d->r, d->n)]);
        d->n++;
    } else if (d->n && dice == 3) {
        compare(d);
    } else {
        take(d);
    }
}

static void *read_on(void *context)
{
    reader *d = context;
    for (uint64_t at = 0; at < d->t->epochs && !check_failed();) {
        at = sp_load(&d->t->returned, relaxed);
        if (sp_load(&d->t->taken, relaxed) / PACE > at + SLACK)
            sched_yield();
        else
            step(d);
    }
    while (d->n)
        release(d);
    return NULL;
}

/* ---- the run ---- */

static void print_lags(const torture *t)
{
    printf("snapshots by epochs begun since:");
    for (unsigned lag = 0; lag < LAGS; lag++)
        if (sp_load(&t->lag[lag], relaxed))
            printf(" <%u: %llu", 1u << lag, (unsigned long long)sp_load(&t->lag[lag], relaxed));
    printf("\n");
}

static void test_readers_see_whole_epochs(void)
{
    test_alloc alloc;
    torture t = {.epochs = check_scaled(EPOCHS)};
    reader *d = calloc(READERS, sizeof *d);
    pthread_t thread[READERS];
    alloc_init(&alloc);
    t.book = calloc(t.epochs + 1, sizeof *t.book);
    t.book[0].hash = record_hash(t.book[0].converted, WORDS);
    REQUIRE_EQ(sp_tracker_new(&alloc.hook, test_engine, SP_GFN_LIMIT, false, &t.tracker), SP_OK);
    for (unsigned i = 0; i < READERS; i++) {
        d[i] = (reader){.t = &t, .r = rng_open(100 + i)};
        REQUIRE(pthread_create(&thread[i], NULL, read_on, &d[i]) == 0);
    }
    write_on(&t);
    for (unsigned i = 0; i < READERS; i++)
        pthread_join(thread[i], NULL);
    CHECK(sp_load(&t.taken, relaxed) > t.epochs);
    print_lags(&t);
    sp_tracker_stats stats;
    CHECK_EQ(sp_tracker_measure(t.tracker, &stats), SP_OK);
    CHECK(stats.versions <= 2);
    CHECK_EQ(tracker_live(t.tracker), tracker_reachable(t.tracker));
    sp_tracker_free(t.tracker);
    CHECK_EQ(alloc_blocks(&alloc), 0);
    free(t.book);
    free(d);
}

int main(void)
{
    RUN_TRACKERS(test_readers_see_whole_epochs);
    return check_close();
}
