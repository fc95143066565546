/*
 * ring.h - taking entries out of a vCPU's dirty ring, which the kernel fills meanwhile.  Floor 4.
 *
 * Source: Documentation/virt/kvm/api.rst, 8.29.  An entry goes from empty to dirty by the kernel,
 * from dirty to harvested here, and back to empty by KVM_RESET_DIRTY_RINGS, in the ring's order.
 * Whether the entry names a page is for sp_log_add_ring to say.
 */
#ifndef SP_DIRTY_RING_H
#define SP_DIRTY_RING_H

#include "dirty/log.h"

/* Copies dirty entries from position *next of a ring of `size` entries, a power of two, until one
 * is not dirty or `room` are copied; marks each harvested once it is copied, and moves *next, which
 * counts on past the ring's end.  Returns how many.  One thread at a time a ring. */
size_t sp_ring_harvest(sp_ring_entry *ring, uint32_t size, uint32_t *next, sp_ring_entry *out,
                       size_t room);

/* Makes *next the position of the oldest dirty entry, for who does not know where another stopped
 * harvesting; false, and nothing changed, if none is dirty.  O(size). */
bool sp_ring_find(sp_ring_entry *ring, uint32_t size, uint32_t *next);

#endif
