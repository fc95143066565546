/*
 * spill.h - what becomes of a list of loose pages that grew too long; private to dirty/.  Floor 4.
 *
 * The list of an open harvest is bounded by half the memory of a dense bitmap of the guest, its
 * room by twice that memory.  Past that its pages go to the bitmaps of their slots, where a page takes one bit however often it
 * comes; pages that no slot holds stay, and go to the set if they alone are too many.
 */
#ifndef SP_DIRTY_SPILL_H
#define SP_DIRTY_SPILL_H

#include "dirty/harvest.h"

/* Makes room for `more` runs in the list of a harvest that nobody else sees.  SP_NOMEM: the same
 * pages. */
SP_MUST_CHECK sp_status sp_harvest_reserve(sp_harvest *open, size_t more);

/* After a report: where it was many times what the list may hold, moves the pages now, and gives
 * the room back.  Where memory is short the list stays as it is. */
void sp_harvest_trim(sp_harvest *open);

#endif
