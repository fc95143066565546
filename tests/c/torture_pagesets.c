/* tier: torture
 *
 * torture_pagesets.c - threads combine and release page sets that share nodes.
 *
 * Sets wait on a shelf, each beside the record of its pages.  A thread takes references from there,
 * combines what it has in hand, checks the result against the records' words, and puts it on the
 * shelf for the others, whose results are then made of its nodes.  Locks guard the shelf alone:
 * sets are combined, read and released while others do the same with sets of the same nodes.
 */
#include <pthread.h>
#include <stdlib.h>
#include <string.h>

#include "support_alloc.h"
#include "support_tracker.h"

#define THREADS 4
#define SHELF 6
#define HANDS 5
#define STEPS 15000 /* of each thread */
#define WINDOWS 4
#define WIDTH 80 /* words of a window: enough for a bitmap */
#define WORDS (WINDOWS * WIDTH)

static const uint64_t starts[WINDOWS] = {0, (UINT64_C(1) << 16) + 640, UINT64_C(1) << 34,
                                         SP_GFN_LIMIT - 64 * WIDTH};

static const plots guest = {starts, WINDOWS, WIDTH};

/* A set and what it must hold. */
typedef struct item {
    sp_pageset *pages; /* NULL for none */
    uint64_t record[WORDS];
} item;

typedef struct place {
    pthread_mutex_t lock;
    item item;
} place;

typedef struct torture {
    test_alloc alloc;
    place shelf[SHELF];
    _Atomic uint64_t combined; /* relaxed: that something happened */
} torture;

typedef struct worker {
    torture *t;
    rng r;
    item hand[HANDS];
} worker;

/* ---- new sets ---- */

/* One window as a comb of some period, as noise, or as a few runs. */
static void paint(rng *r, uint64_t *words)
{
    static const uint64_t combs[] = {UINT64_C(0x3333333333333333), UINT64_C(0x0101010101010101),
                                     UINT64_C(0x5555555555555555), ~UINT64_C(0)};
    uint64_t texture = rng_below(r, 6), first = rng_below(r, WIDTH);
    for (uint64_t w = first; w < WIDTH; w++)
        words[w] = texture < 4 ? combs[texture] : texture == 4 ? rng_next(r) : 0;
    words[first] ^= rng_next(r);
}

/* Adds one window's bitmap to what is made so far. */
static sp_pageset *with_window(torture *t, sp_pageset *made, unsigned window, const item *it)
{
    sp_pageset *part = NULL, *sum = NULL;
    CHECK_EQ(sp_pageset_from_bitmap(&t->alloc.hook, test_engine, it->record + window * WIDTH,
                                    starts[window], 64 * WIDTH, &part),
             SP_OK);
    if (!made)
        return part;
    CHECK_EQ(
        sp_pageset_combine(&t->alloc.hook, SP_OR, sp_pageset_set(made), sp_pageset_set(part), &sum),
        SP_OK);
    sp_pageset_release(made);
    sp_pageset_release(part);
    return sum;
}

static item make(torture *t, rng *r)
{
    item made = {NULL, {0}};
    unsigned least = (unsigned)rng_below(r, WINDOWS);
    for (unsigned window = 0; window < WINDOWS; window++) {
        if (window != least && !rng_chance(r, 3))
            continue;
        paint(r, made.record + window * WIDTH);
        made.pages = with_window(t, made.pages, window, &made);
    }
    return made;
}

/* ---- what threads do ---- */

static void check_item(const item *it, bool thoroughly)
{
    const sp_set *set = sp_pageset_set(it->pages);
    uint64_t pages = 0;
    for (size_t w = 0; w < WORDS; w++)
        pages += sp_popcount(it->record[w]);
    CHECK_EQ(sp_set_count(set), pages);
    if (thoroughly) {
        plots_equal(&guest, set, it->record);
        CHECK_VALID(sp_set_validate(set));
    }
}

static void let_go(item *it)
{
    if (it->pages)
        check_item(it, false);
    sp_pageset_release(it->pages);
    it->pages = NULL;
}

/* A reference to what lies at a place. */
static void take(worker *w, item *to)
{
    place *from = &w->t->shelf[rng_below(&w->r, SHELF)];
    let_go(to);
    pthread_mutex_lock(&from->lock);
    *to = from->item;
    sp_pageset_retain(to->pages);
    pthread_mutex_unlock(&from->lock);
}

/* Leaves it at a place, and has what lay there. */
static void put(worker *w, item *from)
{
    place *to = &w->t->shelf[rng_below(&w->r, SHELF)];
    pthread_mutex_lock(&to->lock);
    item old = to->item;
    to->item = *from;
    pthread_mutex_unlock(&to->lock);
    *from = old;
}

static uint64_t word_op(sp_op op, uint64_t a, uint64_t b)
{
    return op == SP_OR ? a | b : op == SP_AND ? a & b : op == SP_ANDNOT ? a & ~b : a ^ b;
}

static void combine(worker *w, const item *a, const item *b, item *to)
{
    sp_op op = (sp_op)rng_below(&w->r, 4);
    item made = {NULL, {0}};
    REQUIRE_EQ(sp_pageset_combine(&w->t->alloc.hook, op, sp_pageset_set(a->pages),
                                  sp_pageset_set(b->pages), &made.pages),
               SP_OK);
    for (size_t i = 0; i < WORDS; i++)
        made.record[i] = word_op(op, a->record[i], b->record[i]);
    check_item(&made, rng_chance(&w->r, 8));
    CHECK(sp_pageset_bytes(made.pages) > 0);
    sp_add(&w->t->combined, 1, relaxed);
    let_go(to);
    *to = made;
}

static void step(worker *w)
{
    item *one = &w->hand[rng_below(&w->r, HANDS)], *two = &w->hand[rng_below(&w->r, HANDS)];
    uint64_t dice = rng_below(&w->r, 8);
    if (!one->pages || !two->pages || dice == 0) {
        take(w, one->pages ? two : one);
    } else if (dice == 1) {
        let_go(one);
        *one = make(w->t, &w->r);
    } else if (dice < 4) {
        put(w, one);
    } else {
        combine(w, one, two, &w->hand[rng_below(&w->r, HANDS)]);
    }
}

static void *work(void *context)
{
    worker *w = context;
    for (uint64_t steps = check_scaled(STEPS); steps && !check_failed(); steps--)
        step(w);
    for (unsigned i = 0; i < HANDS; i++)
        let_go(&w->hand[i]);
    return NULL;
}

static void test_sets_share_nodes_across_threads(void)
{
    torture *t = calloc(1, sizeof *t);
    worker *w = calloc(THREADS, sizeof *w);
    pthread_t thread[THREADS];
    rng r = rng_open(1);
    alloc_init(&t->alloc);
    for (unsigned i = 0; i < SHELF; i++) {
        pthread_mutex_init(&t->shelf[i].lock, NULL);
        t->shelf[i].item = make(t, &r);
    }
    for (unsigned i = 0; i < THREADS; i++) {
        w[i].t = t;
        w[i].r = rng_open(100 + i);
        REQUIRE(pthread_create(&thread[i], NULL, work, &w[i]) == 0);
    }
    for (unsigned i = 0; i < THREADS; i++)
        pthread_join(thread[i], NULL);
    for (unsigned i = 0; i < SHELF; i++) {
        check_item(&t->shelf[i].item, true);
        let_go(&t->shelf[i].item);
        pthread_mutex_destroy(&t->shelf[i].lock);
    }
    CHECK(sp_load(&t->combined, relaxed) > 0);
    CHECK_EQ(alloc_blocks(&t->alloc), 0);
    CHECK_EQ(alloc_bytes(&t->alloc), 0);
    free(w);
    free(t);
}

int main(void)
{
    RUN_ENGINES(test_sets_share_nodes_across_threads);
    return check_close();
}
