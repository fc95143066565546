/*
 * lock.c - the writer mutex over a futex.  Floor 0.
 *
 * The three-state futex mutex (free, locked, locked with sleepers) of Drepper, "Futexes Are
 * Tricky", with the PENDING and POISONED bits of lock.h beside it.  A thread that has slept takes
 * the lock with WAITERS set, since it cannot know whether others still sleep; the price is one
 * needless wake.
 */
#define _GNU_SOURCE
#include "base/lock.h"

#include <linux/futex.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

enum { LOCKED = 1, PENDING = 2, WAITERS = 4, POISONED = 8 };

void sp_lock_init(sp_lock *lock) { atomic_init(&lock->word, 0); }

/* Tries once to add `bits` to a word that has no LOCKED. */
static sp_status grab(sp_lock *lock, uint32_t bits)
{
    uint32_t word = sp_load(&lock->word, relaxed);
    for (;;) {
        if (word & POISONED)
            return SP_FORKED;
        if (word & LOCKED)
            return SP_BUSY;
        /* acquire: pairs with sp_lock_release, whose protected writes we are about to read */
        if (sp_cas(&lock->word, &word, word | bits, acquire))
            return SP_OK;
    }
}

sp_status sp_lock_try(sp_lock *lock) { return grab(lock, LOCKED); }

sp_status sp_lock_wait(sp_lock *lock)
{
    sp_status status = grab(lock, LOCKED);
    while (status == SP_BUSY) {
        uint32_t word = sp_load(&lock->word, relaxed);
        if ((word & LOCKED) && !(word & POISONED)) {
            /* relaxed: only asks the holder to wake us, carries no data */
            if ((word & WAITERS) || sp_cas(&lock->word, &word, word | WAITERS, relaxed))
                (void)!sp_word_wait(&lock->word, word | WAITERS, -1);
        }
        status = grab(lock, LOCKED | WAITERS);
    }
    return status;
}

bool sp_lock_release(sp_lock *lock)
{
    uint32_t word = sp_load(&lock->word, relaxed);
    for (;;) {
        if (word & PENDING) {
            /* acquire: pairs with sp_lock_post, whose posted work we are about to do */
            sp_and(&lock->word, ~(uint32_t)PENDING, acquire);
            return false;
        }
        /* release: pairs with grab; what was done under the lock is seen by the next holder */
        if (sp_cas(&lock->word, &word, 0, release))
            break;
    }
    if (word & WAITERS)
        sp_word_wake(&lock->word, false);
    return true;
}

bool sp_lock_post(sp_lock *lock)
{
    /* acq_rel: the release half pairs with sp_lock_release's acquire of PENDING, so the holder sees
     * the work we posted before; the acquire half pairs with a former holder's release */
    uint32_t word = sp_or(&lock->word, PENDING, acq_rel);
    if (word & (LOCKED | POISONED))
        return false;
    return grab(lock, LOCKED) == SP_OK;
}

void sp_lock_leave(sp_lock *lock)
{
    /* release: pairs with sp_lock_release's acquire of PENDING */
    sp_or(&lock->word, PENDING, release);
}

bool sp_lock_after_fork(sp_lock *lock)
{
    /* relaxed: the child has one thread */
    uint32_t word = sp_load(&lock->word, relaxed);
    if (word & LOCKED)
        sp_store(&lock->word, word | POISONED, relaxed);
    return (word & LOCKED) != 0;
}

#define SECOND_NS 1000000000

int64_t sp_deadline_ns(int64_t timeout_ns)
{
    struct timespec now;
    if (timeout_ns < 0)
        return -1;
    clock_gettime(CLOCK_MONOTONIC, &now);
    int64_t now_ns = now.tv_sec * (int64_t)SECOND_NS + now.tv_nsec;
    return timeout_ns > INT64_MAX - now_ns ? -1 : now_ns + timeout_ns;
}

sp_status sp_word_wait(_Atomic uint32_t *word, uint32_t seen, int64_t deadline_ns)
{
    struct timespec limit = {deadline_ns / SECOND_NS, deadline_ns % SECOND_NS};
    /* Unlike FUTEX_WAIT, FUTEX_WAIT_BITSET takes a point in time. */
    long result = syscall(SYS_futex, word, FUTEX_WAIT_BITSET_PRIVATE, seen,
                          deadline_ns < 0 ? NULL : &limit, NULL, FUTEX_BITSET_MATCH_ANY);
    /* A futex that fails because the word moved (EAGAIN) has done its job; nothing else is
     * distinguished, every caller looks again. */
    return result == 0 || sp_load(word, relaxed) != seen ? SP_OK : SP_AGAIN;
}

void sp_word_wake(_Atomic uint32_t *word, bool all)
{
    syscall(SYS_futex, word, FUTEX_WAKE_PRIVATE, all ? INT32_MAX : 1, NULL, NULL, 0);
}
