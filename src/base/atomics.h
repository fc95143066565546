/*
 * atomics.h - the atomics in use.  Floor 0; the only file that includes <stdatomic.h>.
 *
 * The names below are those of C11.  Each use elsewhere says which access it pairs with and why
 * its order suffices.  atomic_thread_fence is not used: ThreadSanitizer does not model it.
 */
#ifndef SP_BASE_ATOMICS_H
#define SP_BASE_ATOMICS_H

#include <stdatomic.h>
#include <stdint.h>

/* Two threads' words on one line would make every acquire of one a miss of the other. */
#define SP_CACHE_LINE 64

#define sp_load(p, order) atomic_load_explicit((p), memory_order_##order)
#define sp_store(p, v, order) atomic_store_explicit((p), (v), memory_order_##order)
#define sp_add(p, v, order) atomic_fetch_add_explicit((p), (v), memory_order_##order)
#define sp_sub(p, v, order) atomic_fetch_sub_explicit((p), (v), memory_order_##order)
#define sp_or(p, v, order) atomic_fetch_or_explicit((p), (v), memory_order_##order)
#define sp_and(p, v, order) atomic_fetch_and_explicit((p), (v), memory_order_##order)
#define sp_swap(p, v, order) atomic_exchange_explicit((p), (v), memory_order_##order)
#define sp_cas(p, expected, desired, order) \
    atomic_compare_exchange_strong_explicit((p), (expected), (desired), memory_order_##order, \
                                            memory_order_relaxed)

#endif
