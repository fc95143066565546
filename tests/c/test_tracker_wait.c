/* tier: unit
 *
 * test_tracker_wait.c - being told of changes: the eventfd and wait; and the child of a fork.
 */
#include <pthread.h>
#include <sys/wait.h>
#include <unistd.h>

#include "support_tracker.h"

#define MS INT64_C(1000000)

static uint64_t drain(int fd)
{
    uint64_t value = 0;
    return read(fd, &value, sizeof value) == sizeof value ? value : 0;
}

static void test_the_eventfd(void)
{
    sp_tracker *tracker = tracker_new(100, false);
    int fd, again;
    tracker_convert(tracker, 0, 1, true); /* before it was asked for */
    CHECK_EQ(sp_tracker_fd(tracker, &fd), SP_OK);
    CHECK_EQ(sp_tracker_fd(tracker, &again), SP_OK);
    CHECK_EQ(again, fd);
    CHECK_EQ(drain(fd), 0);
    tracker_convert(tracker, 1, 1, true);
    tracker_convert(tracker, 2, 1, true);
    tracker_convert(tracker, 2, 1, true);
    CHECK_EQ(drain(fd), 2);
    CHECK_EQ(drain(fd), 0);
    uint64_t full = UINT64_MAX - 1;
    CHECK(write(fd, &full, sizeof full) == sizeof full);
    CHECK_EQ(tracker_convert(tracker, 3, 1, true), 1); /* a full one holds nobody up */
    sp_tracker_free(tracker);
}

typedef struct waiter {
    sp_tracker *tracker;
    uint64_t beyond, now;
    sp_status status;
} waiter;

static void *wait_for(void *context)
{
    waiter *w = context;
    w->status = sp_tracker_wait(w->tracker, w->beyond, -1, &w->now);
    return NULL;
}

/* Until somebody has begun to wait. */
static void until_waiting(sp_tracker *tracker, uint32_t waiters)
{
    for (bool there = false; !there;) {
        REQUIRE_EQ(sp_lock_wait(&tracker->epoch.lock), SP_OK);
        there = tracker->waiting == waiters;
        sp_epoch_unlock(&tracker->epoch);
    }
}

static void test_wait(void)
{
    sp_tracker *tracker = tracker_new(100, false);
    uint64_t now = 99;
    CHECK_EQ(sp_tracker_wait(tracker, 0, 0, &now), SP_AGAIN);
    CHECK_EQ(sp_tracker_wait(tracker, 0, 2 * MS, &now), SP_AGAIN);
    CHECK_EQ(now, 0);
    tracker_convert(tracker, 0, 1, true);
    CHECK_EQ(sp_tracker_wait(tracker, 0, -1, &now), SP_OK);
    CHECK_EQ(now, 1);
    waiter w = {.tracker = tracker, .beyond = 3};
    pthread_t thread;
    REQUIRE(pthread_create(&thread, NULL, wait_for, &w) == 0);
    until_waiting(tracker, 1);
    for (uint64_t i = 1; i < 4; i++) /* epochs 2 and 3 are not beyond 3 */
        tracker_convert(tracker, i, 1, true);
    pthread_join(thread, NULL);
    CHECK_EQ(w.status, SP_OK);
    CHECK_EQ(w.now, 4);
    CHECK_EQ(tracker->waiting, 0);
    sp_tracker_free(tracker);
}

static void test_close_ends_waiting(void)
{
    sp_tracker *tracker = tracker_new(100, false);
    waiter w[2] = {{.tracker = tracker}, {.tracker = tracker, .beyond = 5}};
    pthread_t thread[2];
    for (int i = 0; i < 2; i++)
        REQUIRE(pthread_create(&thread[i], NULL, wait_for, &w[i]) == 0);
    until_waiting(tracker, 2);
    CHECK_EQ(sp_tracker_close(tracker), SP_OK);
    for (int i = 0; i < 2; i++) {
        pthread_join(thread[i], NULL);
        CHECK_EQ(w[i].status, SP_CLOSED);
    }
    sp_tracker_free(tracker);
}

/* ---- fork ---- */

static int child(sp_tracker *tracker, sp_snapshot *held, sp_status want)
{
    uint64_t n;
    size_t bad;
    sp_event event = {20, 1, 1};
    sp_snapshot now;
    sp_tracker_after_fork(tracker);
    bool good = sp_tracker_convert(tracker, 50, 1, true, true, &n) == want &&
                sp_tracker_apply(tracker, &event, 1, &n, &bad) == want &&
                sp_tracker_latest(tracker, &now) == SP_OK && sp_snapshot_epoch(held) == 1;
    sp_set set = sp_snapshot_set(held);
    good = good && sp_set_count(&set) == 3;
    sp_snapshot_release(&now);
    sp_snapshot_release(held);
    sp_tracker_free(tracker);
    return good ? 0 : 1;
}

static int run_child(sp_tracker *tracker, sp_snapshot *held, sp_status want)
{
    int status = -1;
    pid_t pid = fork();
    if (pid == 0)
        _exit(child(tracker, held, want));
    return pid > 0 && waitpid(pid, &status, 0) == pid ? status : -1;
}

static void test_fork(void)
{
    sp_tracker *tracker = tracker_new(100, false);
    tracker_convert(tracker, 0, 3, true);
    sp_snapshot held = tracker_take(tracker);
    CHECK_EQ(run_child(tracker, &held, SP_OK), 0);
    REQUIRE_EQ(sp_lock_try(&tracker->epoch.lock), SP_OK);
    CHECK_EQ(run_child(tracker, &held, SP_FORKED), 0);
    sp_epoch_unlock(&tracker->epoch);
    CHECK_EQ(tracker_convert(tracker, 50, 1, true), 1); /* the parent goes on as before */
    sp_snapshot_release(&held);
    sp_tracker_free(tracker);
}

int main(void)
{
    RUN(test_the_eventfd);
    RUN(test_wait);
    RUN(test_close_ends_waiting);
    RUN(test_fork);
    return check_close();
}
