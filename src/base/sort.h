/*
 * sort.h - sorting ranges by their start.  Floor 0.
 */
#ifndef SP_BASE_SORT_H
#define SP_BASE_SORT_H

#include <stddef.h>

#include "base/status.h"

/* Sorts a[0..n) by start, with b[0..n) as room; the result is in a.  Radix sort, as many passes
 * as the starts differ in digits; a list that is sorted already costs one. */
void sp_sort_ranges(sp_range *a, sp_range *b, size_t n);

#endif
