/* tier: torture
 *
 * torture_ring.c - a thread that behaves as the kernel does fills a small ring and resets what was
 * harvested, while another harvests: every entry arrives once, whole and in order.
 */
#include <pthread.h>
#include <sched.h>

#include "base/atomics.h"
#include "dirty/ring.h"
#include "support_check.h"

enum { SIZE = 16, ENTRIES = 200000 };

static sp_ring_entry ring[SIZE];

static _Atomic uint32_t *flags_of(uint32_t position)
{
    return (_Atomic uint32_t *)&ring[position % SIZE].flags;
}

/* Slot and offset carry the same number: a torn entry shows. */
static void *kernel(void *unused)
{
    (void)unused;
    for (uint32_t pushed = 0, reset = 0; pushed < ENTRIES;) {
        /* acquire: pairs with the release in sp_ring_harvest, whose copy must be over */
        while (reset < pushed && sp_load(flags_of(reset), acquire) & 2) {
            sp_store(flags_of(reset), 0, relaxed); /* relaxed: only this thread fills it */
            reset++;
        }
        if (pushed - reset == SIZE) {
            sched_yield();
            continue;
        }
        ring[pushed % SIZE].slot = pushed;
        ring[pushed % SIZE].offset = pushed;
        sp_store(flags_of(pushed), 1, release); /* pairs with the acquire in sp_ring_harvest */
        pushed++;
    }
    return NULL;
}

static void every_entry_arrives_once_and_in_order(void)
{
    pthread_t thread;
    sp_ring_entry out[SIZE / 2];
    uint32_t next = 0;
    REQUIRE(pthread_create(&thread, NULL, kernel, NULL) == 0);
    for (uint64_t seen = 0; seen < ENTRIES;) {
        size_t n = sp_ring_harvest(ring, SIZE, &next, out, SIZE / 2);
        for (size_t i = 0; i < n; i++, seen++)
            if (out[i].slot != seen || out[i].offset != seen)
                CHECK_EQ(out[i].offset, seen);
        if (!n)
            sched_yield();
    }
    CHECK_EQ(next, ENTRIES);
    pthread_join(thread, NULL);
}

int main(void)
{
    RUN(every_entry_arrives_once_and_in_order);
    return check_close();
}
