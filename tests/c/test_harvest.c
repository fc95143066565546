/* tier: model
 *
 * test_harvest.c - taking from a dirty log, looking into it and giving back to it, in any order;
 * harvests that outlive their log; counting; and the child of a fork.
 */
#include <pthread.h>
#include <sched.h>
#include <sys/wait.h>
#include <unistd.h>

#include "support_dirty.h"

#define SMM (1u << 16) /* address space 1 */

static uint64_t first_word(const sp_harvest *harvest)
{
    const uint64_t *words = sp_harvest_words(harvest, 0);
    return words ? words[0] : 0;
}

/* ---- taking and giving back ---- */

enum { HELD = 3, STEPS = 14 };

static const sp_memslot slots[] = {{1000, 70, 0}, {1070, 64, 1}, {1010, 100, SMM}};
static const sp_range window = {900, 1300};

typedef struct play {
    dirty_bench bench;
    model in_log; /* what the next harvest must hold */
    sp_harvest *held[HELD];
    model of[HELD];
} play;

static void add(play *p, rng *r)
{
    uint64_t gfn = rng_between(r, window.start, window.stop - 1), page;
    size_t index = rng_below(r, 3), bad;
    const sp_memslot *slot = sp_memory_at(p->bench.memory, index);
    sp_bits *loan;
    switch (rng_below(r, 3)) {
    case 0: CHECK_EQ(sp_log_add_pages(p->bench.log, &gfn, 1, &bad), SP_OK); break;
    case 1:
        page = rng_below(r, slot->npages);
        gfn = slot->gfn + page;
        dirty_page(&p->bench, index, page);
        break;
    default:
        page = rng_below(r, slot->npages);
        gfn = slot->gfn + page;
        REQUIRE_EQ(sp_log_lend(p->bench.log, slot, &loan), SP_OK);
        sp_loan_words(loan)[page / 64] = UINT64_C(1) << (page % 64);
        sp_loan_end(loan);
    }
    model_assign(&p->in_log, gfn, gfn + 1, true);
}

static void take(play *p, size_t i)
{
    p->held[i] = dirty_take(&p->bench);
    model_copy(&p->of[i], &p->in_log);
    model_assign(&p->in_log, 0, SP_GFN_LIMIT, false);
}

static void give_back(play *p, size_t i)
{
    sp_log_give_back(p->bench.log, p->held[i]);
    p->held[i] = NULL;
    model_add(&p->in_log, &p->in_log, &p->of[i]);
    model_clear(&p->of[i]);
}

static void drop(play *p, size_t i)
{
    sp_harvest_release(p->held[i]);
    p->held[i] = NULL;
    model_clear(&p->of[i]);
}

static void peek(play *p)
{
    sp_harvest *harvest = NULL;
    REQUIRE_EQ(sp_log_peek(p->bench.log, &harvest), SP_OK);
    harvest_is(harvest, &p->in_log);
    sp_harvest_release(harvest);
}

static void step(play *p, rng *r)
{
    size_t i = rng_below(r, HELD);
    if (rng_chance(r, 2))
        add(p, r);
    else if (rng_chance(r, 4))
        peek(p);
    else if (!p->held[i])
        take(p, i);
    else if (rng_chance(r, 3))
        drop(p, i);
    else
        give_back(p, i);
    for (i = 0; i < HELD; i++)
        if (p->held[i])
            harvest_is(p->held[i], &p->of[i]);
}

static void open_play(play *p)
{
    *p = (play){0};
    dirty_open(&p->bench, slots, 3);
    model_init(&p->in_log, &window, 1);
}

/* What is held is given back or dropped, and all that is in the log taken: nothing is missing. */
static void close_play(play *p, rng *r)
{
    for (size_t i = 0; i < HELD; i++)
        if (p->held[i] && rng_chance(r, 2))
            give_back(p, i);
    for (size_t i = 0; i < HELD; i++)
        if (p->held[i])
            drop(p, i);
    if (!rng_chance(r, 4)) { /* else the log goes with what was given back */
        take(p, 0);
        harvest_is(p->held[0], &p->of[0]);
        drop(p, 0);
    }
    model_clear(&p->in_log);
    dirty_close(&p->bench);
}

static void harvests_come_and_go_in_any_order(void)
{
    rng r = rng_open(1);
    for (uint64_t n = 0; n < check_scaled(3000) && !check_failed(); n++) {
        play p;
        check_case("play %d", (int)n);
        open_play(&p);
        for (unsigned i = 0; i < STEPS; i++)
            step(&p, &r);
        close_play(&p, &r);
    }
}

/* By hand: two harvests with different pages, each dropped or given back, in both orders. */
static void two_harvests_at_once(void)
{
    for (unsigned order = 0; order < 8; order++) {
        dirty_bench b;
        size_t bad;
        check_case("order %u", order);
        dirty_open(&b, (sp_memslot[]){{100, 70, 0}}, 1);
        sp_harvest *held[2];
        for (uint64_t i = 0; i < 2; i++) {
            dirty_page(&b, 0, i);
            CHECK_EQ(sp_log_add_pages(b.log, &(uint64_t){5000 + i}, 1, &bad), SP_OK);
            held[i] = dirty_take(&b);
        }
        dirty_page(&b, 0, 2);
        uint64_t want = 4;
        for (unsigned n = 0; n < 2; n++) {
            unsigned i = order & 4 ? 1 - n : n;
            CHECK_EQ(first_word(held[i]), 1 << i);
            if (order >> i & 1) {
                sp_log_give_back(b.log, held[i]);
                want |= UINT64_C(1) << i;
            } else {
                sp_harvest_release(held[i]);
            }
        }
        sp_harvest *last = dirty_take(&b);
        CHECK_EQ(first_word(last), want);
        CHECK_EQ(harvest_has(last, 5000), want & 1);
        CHECK_EQ(harvest_has(last, 5001), want >> 1 & 1);
        sp_harvest_release(last);
        dirty_close(&b);
    }
}

static void a_harvest_outlives_its_log(void)
{
    dirty_bench b;
    size_t bad;
    dirty_open(&b, (sp_memslot[]){{100, 70, 0}}, 1);
    dirty_page(&b, 0, 3);
    CHECK_EQ(sp_log_add_pages(b.log, &(uint64_t){7}, 1, &bad), SP_OK);
    sp_harvest *harvest = dirty_take(&b);
    sp_log_free(b.log);
    sp_log_free(NULL);
    sp_memory_release(b.memory);
    b.log = NULL;
    b.memory = NULL;
    CHECK_EQ(first_word(harvest), 8);
    CHECK_EQ(sp_memory_at(sp_harvest_memory(harvest), 0)->gfn, 100);
    CHECK(harvest_has(harvest, 7));
    sp_harvest_release(harvest);
    sp_harvest_release(NULL);
    dirty_close(&b);
}

static void a_log_stays_while_somebody_has_it(void)
{
    dirty_bench b;
    dirty_open(&b, (sp_memslot[]){{100, 70, 0}}, 1);
    dirty_page(&b, 0, 3);
    sp_harvest *harvest = dirty_take(&b);
    CHECK(sp_log_retain(b.log) == b.log);
    sp_log_free(b.log);
    sp_log_give_back(b.log, harvest);
    harvest = dirty_take(&b);
    CHECK_EQ(first_word(harvest), 8);
    sp_harvest_release(harvest);
    dirty_close(&b);
}

/* By hand: the pages are seen twice, and once more with what came later; then they are gone. */
static void looking_into_a_log_leaves_it(void)
{
    dirty_bench b;
    sp_harvest *look[3] = {0};
    dirty_open(&b, (sp_memslot[]){{100, 70, 0}}, 1);
    dirty_page(&b, 0, 3);
    CHECK_EQ(sp_log_peek(b.log, &look[0]), SP_OK);
    CHECK_EQ(sp_log_peek(b.log, &look[1]), SP_OK);
    dirty_page(&b, 0, 4);
    CHECK_EQ(sp_log_peek(b.log, &look[2]), SP_OK);
    sp_harvest *taken = dirty_take(&b), *rest = dirty_take(&b);
    CHECK_EQ(first_word(look[0]), 8);
    CHECK_EQ(first_word(look[1]), 8);
    CHECK_EQ(first_word(look[2]), 24);
    CHECK_EQ(first_word(taken), 24);
    CHECK_EQ(first_word(rest), 0);
    for (unsigned i = 0; i < 3; i++)
        sp_harvest_release(look[i]);
    sp_harvest_release(taken);
    sp_harvest_release(rest);
    dirty_close(&b);
}

static void what_others_read_may_be_given_back(void)
{
    dirty_bench b;
    dirty_open(&b, (sp_memslot[]){{100, 70, 0}}, 1);
    dirty_page(&b, 0, 3);
    sp_harvest *harvest = dirty_take(&b);
    CHECK(sp_harvest_retain(harvest) == harvest);
    sp_log_give_back(b.log, harvest);
    dirty_page(&b, 0, 4);
    sp_harvest *next = dirty_take(&b);
    CHECK_EQ(first_word(harvest), 8);
    CHECK_EQ(first_word(next), 24);
    sp_harvest_release(harvest);
    sp_harvest_release(next);
    dirty_close(&b);
}

/* ---- counting ---- */

/* Pages 20..29 of the one slot are pages 0..9 of the other, and gfns 120..129. */
static void pages_count_once_wherever_they_came_from(void)
{
    dirty_bench b;
    size_t bad;
    uint64_t pages = 99;
    static const sp_memslot two[] = {{100, 30, 0}, {120, 70, SMM}};
    dirty_open(&b, two, 2);
    sp_harvest *none = dirty_take(&b);
    CHECK_EQ(sp_merge_count(&b.alloc.hook, none, &pages), SP_OK);
    CHECK_EQ(pages, 0);
    CHECK_EQ(sp_log_add_bitmap(b.log, &two[0], "\377\377\377\377", 0, 32), SP_OK); /* 100..129 */
    CHECK_EQ(sp_log_add_bitmap(b.log, &two[1], "\377\377", 4, 16), SP_OK);         /* 124..139 */
    CHECK_EQ(sp_log_add_ranges(b.log, &(sp_range){90, 101}, 1, &bad), SP_OK);
    CHECK_EQ(sp_log_add_ranges(b.log, &(sp_range){UINT64_C(1) << 40, SP_GFN_LIMIT}, 1, &bad),
             SP_OK);
    sp_harvest *harvest = dirty_take(&b);
    CHECK_EQ(sp_merge_count(&b.alloc.hook, harvest, &pages), SP_OK);
    CHECK_EQ(pages, 50 + SP_GFN_LIMIT - (UINT64_C(1) << 40));
    sp_harvest_release(none);
    sp_harvest_release(harvest);
    dirty_close(&b);
}

/* ---- fork ---- */

static const sp_memslot whole = {0, 64, 0};

/* An allocator whose next call after `armed` is set waits, with the log locked, until it is not. */
typedef struct gate {
    _Atomic int armed, inside;
    const sp_allocator *from;
} gate;

static void *gate_alloc(void *context, size_t bytes, int zeroed)
{
    gate *g = context;
    int wanted = 1;
    if (sp_cas(&g->armed, &wanted, 2, acq_rel)) {
        sp_store(&g->inside, 1, release);
        while (sp_load(&g->armed, acquire)) /* until the main thread has forked */
            sched_yield();
    }
    return g->from->alloc(g->from->context, bytes, zeroed);
}

static void gate_free(void *context, void *block, size_t bytes)
{
    gate *g = context;
    g->from->free(g->from->context, block, bytes);
}

static void *hold_the_log(void *log)
{
    CHECK_EQ(sp_log_add_bitmap(log, &whole, "\1", 5, 1), SP_OK);
    return NULL;
}

/* The exit status of a child: whether every call on its log returns `want`. */
static int use_in_child(sp_log *log, sp_harvest *held, sp_status want)
{
    sp_harvest *harvest = NULL;
    sp_bits *loan = NULL;
    size_t bad;
    sp_log_after_fork(log);
    bool good = sp_log_set_memory(&log, 1, sp_harvest_memory(held)) == want &&

                sp_log_add_bitmap(log, &whole, "\1", 0, 1) == want &&
                sp_log_add_pages(log, &(uint64_t){5}, 1, &bad) == want &&
                sp_log_add_ranges(log, &(sp_range){5, 6}, 1, &bad) == want &&
                sp_log_add_ring(log, &(sp_ring_entry){1, 0, 7}, 1, &bad) == want &&
                sp_log_lend(log, &whole, &loan) == want &&
                (sp_log_bytes(log) == 0) == (want != SP_OK);
    sp_log_give_back(log, held);
    good = good && sp_log_take(log, &harvest) == want;
    if (good && want == SP_OK)
        good = first_word(harvest) == (1 | 1 << 3);
    return good ? 0 : 1;
}

static int exit_of_child(sp_log *log, sp_harvest *held, sp_status want)
{
    int status = -1;
    pid_t child = fork();
    if (child == 0)
        _exit(use_in_child(log, held, want));
    CHECK_EQ(waitpid(child, &status, 0), child);
    return status;
}

static void a_log_held_across_a_fork_is_refused(void)
{
    test_alloc alloc;
    pthread_t thread;
    sp_memory *memory;
    sp_log *log;
    size_t bad, other;
    alloc_init(&alloc);
    gate g = {.from = &alloc.hook};
    const sp_allocator hook = {gate_alloc, gate_free, &g, NULL};
    REQUIRE_EQ(sp_memory_new(&hook, &sp_engine_roaring, &whole, 1, &memory, &bad, &other), SP_OK);
    REQUIRE_EQ(sp_log_new(&hook, memory, &log), SP_OK);
    CHECK_EQ(sp_log_add_bitmap(log, &whole, "\1", 3, 1), SP_OK);
    sp_harvest *held = NULL;
    CHECK_EQ(sp_log_take(log, &held), SP_OK);
    CHECK_EQ(exit_of_child(log, held, SP_OK), 0);
    sp_store(&g.armed, 1, release);
    REQUIRE(pthread_create(&thread, NULL, hold_the_log, log) == 0);
    while (!sp_load(&g.inside, acquire)) /* pairs with gate_alloc */
        sched_yield();
    CHECK_EQ(exit_of_child(log, held, SP_FORKED), 0);
    sp_store(&g.armed, 0, release);
    pthread_join(thread, NULL);
    sp_log_give_back(log, held);
    CHECK_EQ(sp_log_take(log, &held), SP_OK);
    CHECK_EQ(first_word(held), 1 << 5 | 1 << 3);
    sp_harvest_release(held);
    sp_log_free(log);
    sp_memory_release(memory);
    CHECK_EQ(alloc_blocks(&alloc), 0);
}

int main(void)
{
    RUN(harvests_come_and_go_in_any_order);
    RUN(two_harvests_at_once);
    RUN(a_harvest_outlives_its_log);
    RUN(a_log_stays_while_somebody_has_it);
    RUN(looking_into_a_log_leaves_it);
    RUN(what_others_read_may_be_given_back);
    RUN(pages_count_once_wherever_they_came_from);
    RUN(a_log_held_across_a_fork_is_refused);
    return check_close();
}
