/*
 * support_census.h - the nodes that sets reach, and who holds them.
 */
#ifndef SP_TESTS_SUPPORT_CENSUS_H
#define SP_TESTS_SUPPORT_CENSUS_H

#include "set/set.h"
#include "support_check.h"

/* The nodes that n sets reach, each counted once.  Checks that a counted node has just so many
 * holders as there are parents and sets that name it: these sets are all that there are. */
uint64_t census(const sp_set *const *sets, size_t n);

#endif
