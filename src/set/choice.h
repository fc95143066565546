/*
 * choice.h - which engine holds a set in fewer bytes.  Floor 3.
 *
 * Runs are smaller for a guest that shares little, or in long ranges, or far apart; bitmaps and
 * lists of 16-bit numbers for one that shares many pages close together.  What a set takes now is
 * measured, what it would take is estimated: from its runs, or from the leaves that they would
 * fill.  A change of engine must pay for itself, so the other one is chosen only if it is clearly
 * smaller.
 */
#ifndef SP_SET_CHOICE_H
#define SP_SET_CHOICE_H

#include "set/set.h"

/* Bytes of the set if it was made anew by the engine; the count may end once it is above `limit`.
 * O(n). */
uint64_t sp_set_estimate(const sp_kernels *k, const sp_set *set, const sp_engine *engine,
                         uint64_t limit);

/* The engine that should hold the set from now on: the other one, if its estimate is below nine
 * tenths of what the set takes, and 64 bytes below it.  O(n). */
const sp_engine *sp_set_choose(const sp_kernels *k, const sp_set *set);

#endif
