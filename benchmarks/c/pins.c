/*
 * pins.c - pinning the newest version and letting go of it again, over and over, in C.  The one
 * file here that uses the core: from Python the calls themselves would be most of the figure.
 * Beside it, what a tracker without versions would have for readers, a lock, and the least that any
 * count of readers costs.
 */
#include <pthread.h>
#include <stdlib.h>

#include "rivals.h"
#include "tracker/state.h"

struct rival_pins {
    sp_tracker *tracker;
    pthread_rwlock_t lock;
    _Alignas(SP_CACHE_LINE) _Atomic uint64_t readers;
};

rival_pins *rival_pins_new(void)
{
    uint64_t changed;
    rival_pins *pins = aligned_alloc(SP_CACHE_LINE, sizeof *pins);
    if (!pins)
        return NULL;
    atomic_init(&pins->readers, 0);
    pthread_rwlock_init(&pins->lock, NULL);
    if (sp_tracker_new(NULL, &sp_engine_roaring, 1 << 28, false, &pins->tracker) == SP_OK) {
        if (sp_tracker_convert(pins->tracker, 1 << 18, 1 << 18, true, true, &changed) == SP_OK)
            return pins;
        sp_tracker_free(pins->tracker);
    }
    free(pins);
    return NULL;
}

void rival_pins_free(rival_pins *pins)
{
    sp_tracker_free(pins->tracker);
    pthread_rwlock_destroy(&pins->lock);
    free(pins);
}

void rival_pins_epoch(rival_pins *pins, uint64_t calls)
{
    sp_epoch *epoch = &pins->tracker->epoch;
    bool crowded;
    for (uint64_t i = 0; i < calls; i++)
        sp_epoch_release(epoch, sp_epoch_acquire(epoch, &crowded));
}

void rival_pins_snapshot(rival_pins *pins, uint64_t calls)
{
    sp_snapshot snapshot;
    for (uint64_t i = 0; i < calls; i++)
        if (sp_tracker_snapshot(pins->tracker, true, &snapshot) == SP_OK)
            sp_snapshot_release(&snapshot);
}

void rival_pins_lock(rival_pins *pins, uint64_t calls)
{
    for (uint64_t i = 0; i < calls; i++) {
        pthread_rwlock_rdlock(&pins->lock);
        pthread_rwlock_unlock(&pins->lock);
    }
}

void rival_pins_count(rival_pins *pins, uint64_t calls)
{
    for (uint64_t i = 0; i < calls; i++) {
        sp_add(&pins->readers, 1, acquire);
        sp_sub(&pins->readers, 1, release);
    }
}
