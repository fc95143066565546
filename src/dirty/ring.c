/*
 * ring.c - taking entries out of a vCPU's dirty ring.  Floor 4.
 *
 * The flags of an entry hand it from one side to the other, so they are the only part that is
 * accessed atomically.  Entries are never skipped: the kernel resets them in order and stops at the
 * first that is not harvested.
 */
#include "dirty/ring.h"

#include "base/atomics.h"

enum { RING_DIRTY = 1, RING_HARVESTED = 2, RING_STATE = 3 };

static bool is_dirty(sp_ring_entry *entry)
{
    _Atomic uint32_t *flags = (_Atomic uint32_t *)&entry->flags;
    /* acquire: pairs with the kernel's kvm_dirty_gfn_set_dirtied, which orders slot and offset, and
     * the entry before, ahead of the flag; an entry seen dirty is whole */
    return (sp_load(flags, acquire) & RING_STATE) == RING_DIRTY;
}

/* Dirty entries are one run, which may go on at the ring's start.  The kernel adds to its end
 * meanwhile, in order: the walk back sees what was added before an entry that was seen. */
bool sp_ring_find(sp_ring_entry *ring, uint32_t size, uint32_t *next)
{
    uint32_t at = 0;
    while (at < size && !is_dirty(&ring[at]))
        at++;
    if (at == size)
        return false;
    for (uint32_t back = 1; back < size && is_dirty(&ring[(at - 1) & (size - 1)]); back++)
        at--;
    *next = at;
    return true;
}

size_t sp_ring_harvest(sp_ring_entry *ring, uint32_t size, uint32_t *next, sp_ring_entry *out,
                       size_t room)
{
    size_t n = 0;
    for (; n < room; n++) {
        sp_ring_entry *entry = &ring[*next & (size - 1)];
        _Atomic uint32_t *flags = (_Atomic uint32_t *)&entry->flags;
        if (!is_dirty(entry))
            break;
        out[n] = (sp_ring_entry){RING_DIRTY, entry->slot, entry->offset};
        /* release: pairs with the kernel's acquire in kvm_dirty_gfn_harvested; it may fill the
         * entry anew only after the copy above */
        sp_store(flags, RING_HARVESTED, release);
        ++*next;
    }
    return n;
}
