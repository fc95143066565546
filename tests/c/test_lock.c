/* tier: unit
 *
 * test_lock.c - the writer mutex: exclusion, posted work that no unlock may miss, sleeping and
 * waking, and the child of a fork.
 */
#include <pthread.h>
#include <sched.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/lock.h"
#include "support_check.h"

#define THREADS 4

static void test_try_and_release(void)
{
    sp_lock lock;
    sp_lock_init(&lock);
    CHECK_EQ(sp_lock_try(&lock), SP_OK);
    CHECK_EQ(sp_lock_try(&lock), SP_BUSY);
    CHECK(sp_lock_release(&lock));
    CHECK_EQ(sp_lock_wait(&lock), SP_OK);
    CHECK(sp_lock_release(&lock));
    CHECK_EQ(sp_load(&lock.word, relaxed), 0);
}

static void test_post_takes_a_free_lock(void)
{
    sp_lock lock;
    sp_lock_init(&lock);
    REQUIRE(sp_lock_post(&lock));
    CHECK_EQ(sp_lock_try(&lock), SP_BUSY);
    CHECK(!sp_lock_release(&lock)); /* the work just posted */
    CHECK_EQ(sp_lock_try(&lock), SP_BUSY);
    CHECK(sp_lock_release(&lock));
    CHECK_EQ(sp_lock_try(&lock), SP_OK);
}

static void test_post_leaves_work_to_the_holder(void)
{
    sp_lock lock;
    sp_lock_init(&lock);
    REQUIRE(sp_lock_try(&lock) == SP_OK);
    CHECK(!sp_lock_post(&lock));
    CHECK(!sp_lock_post(&lock)); /* twice is once */
    CHECK(!sp_lock_release(&lock));
    CHECK(!sp_lock_post(&lock)); /* while the holder works it off */
    CHECK(!sp_lock_release(&lock));
    CHECK(sp_lock_release(&lock));
}

static void test_left_work_waits_for_the_next_holder(void)
{
    sp_lock lock;
    sp_lock_init(&lock);
    sp_lock_leave(&lock);
    CHECK_EQ(sp_lock_try(&lock), SP_OK);
    CHECK(!sp_lock_release(&lock));
    CHECK(sp_lock_release(&lock));
}

/* ---- threads ---- */

typedef struct shared {
    sp_lock lock;
    uint64_t counter;        /* under the lock, not atomic */
    uint64_t rounds;         /* constant */
    _Atomic uint64_t posted; /* work posted */
    uint64_t done;           /* work seen; under the lock */
} shared;

static void *count_up(void *context)
{
    shared *s = context;
    for (uint64_t i = 0; i < s->rounds; i++) {
        if (sp_lock_try(&s->lock) != SP_OK)
            CHECK_EQ(sp_lock_wait(&s->lock), SP_OK);
        s->counter++;
        while (!sp_lock_release(&s->lock))
            ;
    }
    return NULL;
}

static void run_threads(shared *s, void *(*body)(void *))
{
    pthread_t thread[THREADS];
    for (int t = 0; t < THREADS; t++)
        REQUIRE(pthread_create(&thread[t], NULL, body, s) == 0);
    for (int t = 0; t < THREADS; t++)
        pthread_join(thread[t], NULL);
}

static void test_one_holder_at_a_time(void)
{
    shared s = {.rounds = check_scaled(50000)};
    sp_lock_init(&s.lock);
    run_threads(&s, count_up);
    CHECK_EQ(s.counter, THREADS * s.rounds);
    CHECK_EQ(sp_load(&s.lock.word, relaxed), 0);
}

static void work_off(shared *s)
{
    while (!sp_lock_release(&s->lock))
        s->done = sp_load(&s->posted, relaxed); /* relaxed: PENDING orders it, as in epoch/ */
}

static void *post_work(void *context)
{
    shared *s = context;
    for (uint64_t i = 0; i < s->rounds; i++) {
        sp_add(&s->posted, 1, relaxed);
        if (sp_lock_post(&s->lock))
            work_off(s);
        if (i % 16 == 0 && sp_lock_try(&s->lock) == SP_OK)
            work_off(s);
    }
    return NULL;
}

/* Whatever was posted is seen without anyone looking again afterwards. */
static void test_no_posted_work_is_lost(void)
{
    for (uint64_t round = 0; round < 50 && !check_failed(); round++) {
        shared s = {.rounds = check_scaled(500)};
        sp_lock_init(&s.lock);
        run_threads(&s, post_work);
        CHECK_EQ(s.done, THREADS * s.rounds);
        CHECK_EQ(sp_load(&s.lock.word, relaxed), 0);
    }
}

static void *lock_once(void *context)
{
    shared *s = context;
    CHECK_EQ(sp_lock_wait(&s->lock), SP_OK);
    s->counter++;
    while (!sp_lock_release(&s->lock))
        ;
    return NULL;
}

static void test_every_sleeper_is_woken(void)
{
    shared s = {0};
    pthread_t thread[THREADS];
    sp_lock_init(&s.lock);
    REQUIRE(sp_lock_try(&s.lock) == SP_OK);
    for (int t = 0; t < THREADS; t++)
        REQUIRE(pthread_create(&thread[t], NULL, lock_once, &s) == 0);
    /* LOCKED alone is 1: any more means that somebody is about to sleep. */
    while (sp_load(&s.lock.word, relaxed) == 1)
        sched_yield();
    CHECK(sp_lock_release(&s.lock));
    for (int t = 0; t < THREADS; t++)
        pthread_join(thread[t], NULL);
    CHECK_EQ(s.counter, THREADS);
}

/* ---- words ---- */

static void test_word_wait_ends(void)
{
    _Atomic uint32_t word = 5;
    CHECK_EQ(sp_word_wait(&word, 4, -1), SP_OK); /* the word differs */
    CHECK_EQ(sp_word_wait(&word, 5, sp_deadline_ns(0)), SP_AGAIN);
    CHECK_EQ(sp_word_wait(&word, 5, sp_deadline_ns(2000000)), SP_AGAIN);
}

static void test_deadlines(void)
{
    CHECK(sp_deadline_ns(-7) < 0);
    CHECK(sp_deadline_ns(INT64_MAX) < 0); /* beyond the clock: no bound */
    int64_t first = sp_deadline_ns(0), second = sp_deadline_ns(0);
    CHECK(first > 0 && second >= first);
    CHECK(sp_deadline_ns(1000000000) - second >= 1000000000);
}

/* ---- fork ---- */

/* What the child finds: 0 if all is as it must be. */
static int child_of_holder(sp_lock *lock)
{
    bool held = sp_lock_after_fork(lock);
    bool refused = sp_lock_try(lock) == SP_FORKED && sp_lock_wait(lock) == SP_FORKED;
    return held && refused && !sp_lock_post(lock) && sp_lock_try(lock) == SP_FORKED ? 0 : 1;
}

static int child_of_nobody(sp_lock *lock)
{
    return !sp_lock_after_fork(lock) && sp_lock_try(lock) == SP_OK && sp_lock_release(lock) ? 0 : 1;
}

static int run_child(int (*body)(sp_lock *), sp_lock *lock)
{
    int status = -1;
    pid_t child = fork();
    if (child == 0)
        _exit(body(lock));
    return child > 0 && waitpid(child, &status, 0) == child ? status : -1;
}

static void test_fork(void)
{
    sp_lock lock;
    sp_lock_init(&lock);
    CHECK_EQ(run_child(child_of_nobody, &lock), 0);
    REQUIRE(sp_lock_try(&lock) == SP_OK);
    CHECK_EQ(run_child(child_of_holder, &lock), 0);
    CHECK(sp_lock_release(&lock)); /* the parent's is not poisoned */
    CHECK_EQ(sp_lock_try(&lock), SP_OK);
}

int main(void)
{
    RUN(test_try_and_release);
    RUN(test_post_takes_a_free_lock);
    RUN(test_post_leaves_work_to_the_holder);
    RUN(test_left_work_waits_for_the_next_holder);
    RUN(test_one_holder_at_a_time);
    RUN(test_no_posted_work_is_lost);
    RUN(test_every_sleeper_is_woken);
    RUN(test_word_wait_ends);
    RUN(test_deadlines);
    RUN(test_fork);
    return check_close();
}
