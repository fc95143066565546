/*
 * memory.h - a guest's memory slots.  Floor 4.
 *
 * KVM numbers slots by (address space << 16 | id), and counts pages from the slot's start.  A
 * memory is immutable and reference counted: logs, harvests and merges hold it.
 *
 * Slots of one address space do not overlap.  Slots of two may name the same gfns (SMM does); the
 * pages of a guest are the union.
 */
#ifndef SP_DIRTY_MEMORY_H
#define SP_DIRTY_MEMORY_H

#include "set/pageset.h"

/* KVM_MEM_MAX_NR_PAGES: 2^31 - 1 pages a slot (virt/kvm/kvm_main.c). */
#define SP_SLOT_MAX_PAGES ((UINT64_C(1) << 31) - 1)

typedef struct sp_memslot {
    uint64_t gfn;
    uint64_t npages;
    uint32_t id; /* address space << 16 | slot */
} sp_memslot;

typedef struct sp_memory sp_memory;

/* SP_RANGE: slot *bad has no page, too many, or pages at or beyond 2^52.  SP_INVALID: it has the
 * id of an earlier one, or overlaps slot *other of its address space. */
SP_MUST_CHECK sp_status sp_memory_new(const sp_allocator *allocator, const sp_engine *engine,
                                      const sp_memslot *slots, size_t n, sp_memory **out,
                                      size_t *bad, size_t *other);
sp_memory *sp_memory_retain(sp_memory *memory);
void sp_memory_release(sp_memory *memory); /* NULL is nothing */

size_t sp_memory_count(const sp_memory *memory);
/* The i-th slot by gfn, then by id. */
const sp_memslot *sp_memory_at(const sp_memory *memory, size_t i);
/* The index of the slot with this id; SP_UNKNOWN if there is none.  O(log n). */
SP_MUST_CHECK sp_status sp_memory_find(const sp_memory *memory, uint32_t id, size_t *index);
/* The index of the last slot that begins at or before gfn; SIZE_MAX if there is none.  O(log n). */
size_t sp_memory_find_gfn(const sp_memory *memory, uint64_t gfn);
/* The index of the first slot that ends past gfn; the count if there is none.  O(log n). */
size_t sp_memory_find_end(const sp_memory *memory, uint64_t gfn);
/* The index of a slot that is the same in id, gfn and size; SP_UNKNOWN if there is none.
 * O(log n). */
SP_MUST_CHECK sp_status sp_memory_find_same(const sp_memory *memory, const sp_memslot *slot,
                                            size_t *index);
/* All pages of all slots. */
const sp_set *sp_memory_pages(const sp_memory *memory);

#endif
