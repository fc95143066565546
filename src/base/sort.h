/*
 * sort.h - sorting ranges and keys.  Floor 0.
 *
 * Least-significant-digit radix sorts: stable, O(n) for each digit in which the elements differ.
 */
#ifndef SP_BASE_SORT_H
#define SP_BASE_SORT_H

#include <stddef.h>

#include "base/status.h"

/* Sorts a[0..n) by start, with b[0..n) as room; the result is in a.  One pass over a list that is
 * sorted already. */
void sp_sort_ranges(sp_range *a, sp_range *b, size_t n);

/* The same by bits [low, high) of words; low < high <= 64, n < 2^32.  A list that is sorted already
 * is better not brought here. */
void sp_sort_words(uint64_t *a, uint64_t *b, size_t n, unsigned low, unsigned high);

#endif
