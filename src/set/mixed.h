/*
 * mixed.h - sets of different engines that meet; private to the set room.  Floor 3.
 */
#ifndef SP_SET_MIXED_H
#define SP_SET_MIXED_H

#include "set/set.h"

/* sp_set_combine and sp_set_intersection of two engines. */
SP_MUST_CHECK sp_status sp_mixed_combine(sp_edit *edit, sp_op op, const sp_set *a, const sp_set *b,
                                         sp_set *out);
uint64_t sp_mixed_intersection(const sp_kernels *k, const sp_set *a, const sp_set *b);

#endif
