/*
 * lock.h - the writer mutex, in one atomic word.  Floor 0.
 *
 * Beside LOCKED and WAITERS the word carries PENDING: work that somebody left for the holder.  A
 * thread that must not block posts PENDING; either it then finds the lock free and takes it, or
 * the holder cannot unlock without seeing the bit.  A trylock beside a separate flag would lose
 * work posted between the holder's last look and its unlock.
 *
 * POISONED is set in the child of a fork in which another thread held the lock: nobody will ever
 * unlock it there, and what it protects may be half changed.
 */
#ifndef SP_BASE_LOCK_H
#define SP_BASE_LOCK_H

#include <stdbool.h>

#include "base/atomics.h"
#include "base/status.h"

typedef struct sp_lock {
    _Atomic uint32_t word;
} sp_lock;

void sp_lock_init(sp_lock *lock);

/* Takes the lock without waiting: SP_OK, SP_BUSY, or SP_FORKED. */
SP_MUST_CHECK sp_status sp_lock_try(sp_lock *lock);

/* Takes the lock, sleeping while others hold it: SP_OK or SP_FORKED. */
SP_MUST_CHECK sp_status sp_lock_wait(sp_lock *lock);

/* Unlocks and returns true; or, where work is pending, clears PENDING, keeps the lock and returns
 * false: the holder does the work and calls again. */
bool sp_lock_release(sp_lock *lock);

/* Posts PENDING.  True if the lock was free and the caller now holds it (PENDING still set); false
 * if another holder will see the bit, or the lock is poisoned.  Never waits. */
bool sp_lock_post(sp_lock *lock);

/* Sets PENDING for the next unlock to find, without taking the lock. */
void sp_lock_leave(sp_lock *lock);

/* To be called in the child after a fork by its only thread.  True if the lock was held. */
bool sp_lock_after_fork(sp_lock *lock);

/* The monotonic clock's time timeout_ns from now; negative, for no bound, if that is. */
int64_t sp_deadline_ns(int64_t timeout_ns);

/* Sleeps while *word == seen, at most until deadline_ns (negative: no bound).  May wake for no
 * reason, on a signal (SP_AGAIN) or when time is up (SP_AGAIN). */
SP_MUST_CHECK sp_status sp_word_wait(_Atomic uint32_t *word, uint32_t seen, int64_t deadline_ns);
void sp_word_wake(_Atomic uint32_t *word, bool all);

#endif
