/*
 * report.h - what sources report, read and checked: as runs of loose pages.  Floor 4.
 *
 * The arrays belong to others, who may write them meanwhile (a dirty ring is guest-visible memory
 * that a vCPU fills): each element is read once, and checked as read.  On SP_RANGE, SP_INVALID and
 * SP_UNKNOWN *bad is the index of the element; what was written to `runs` then means nothing.
 */
#ifndef SP_DIRTY_REPORT_H
#define SP_DIRTY_REPORT_H

#include "dirty/log.h"

/* Write at most n runs, in the order given, neighbours joined, and how many to *used. */
SP_MUST_CHECK sp_status sp_report_ring(const sp_memory *memory, const sp_ring_entry *entries,
                                       size_t n, uint64_t *runs, size_t *used, size_t *bad);
SP_MUST_CHECK sp_status sp_report_pages(const uint64_t *gfns, size_t n, uint64_t *runs,
                                        size_t *used, size_t *bad);

/* The same for ranges; those too long for a run go, as they are, to the end of `runs`, which has
 * room for 2 n words: runs + 2 n is the end of *nlong ranges. */
SP_MUST_CHECK sp_status sp_report_ranges(const sp_range *ranges, size_t n, uint64_t *runs,
                                         size_t *used, size_t *nlong, size_t *bad);

#endif
