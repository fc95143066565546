/*
 * changes.h - the pages converted in one version: a log, and a trail of sets.  Floor 4, private to
 * tracker/.
 *
 * While a version is open, its conversions are appended to a fixed log; a full log becomes a cell,
 * an immutable, reference-counted bag of ranges.  A version's trail is a list of cells; when the
 * version before it dies, that one's trail is spliced in.  A trail of 256 cells is shortened, a
 * little after each change: eight bags of ranges are united into one set, eight such sets into one
 * of the next tier; a change that made more cells pays for all of them at once.  Sets of 16,384
 * ranges and more wait until there are 512 cells: uniting those takes milliseconds.  So a trail
 * holds at most 1 MiB of ranges and some 512 sets, and most are dropped before that: putting a
 * range into a set costs ten times what appending it does.
 *
 * Cells are linked and unlinked under the tracker's lock; a reader retains the cells it wants under
 * the lock and unites them after.
 */
#ifndef SP_TRACKER_CHANGES_H
#define SP_TRACKER_CHANGES_H

#include "epoch/epoch.h"
#include "set/pageset.h"

#define SP_LOG_RANGES 256u

/* Cells of a trail that is shortened: of ranges, 1 MiB. */
#define SP_LONG_TRAIL 256u

/* Whose account cells are on, and the engine of the sets made of them; outlives every cell. */
typedef struct sp_keeper {
    sp_mem *mem;
    const sp_engine *engine;
} sp_keeper;

typedef struct sp_cell {
    _Atomic uint64_t refs;
    struct sp_cell *next;    /* in the trail; under the lock */
    const sp_keeper *keeper; /* this and all below: constant since it was made */
    sp_pageset *pages;       /* NULL: the ranges below instead */
    uint32_t tier, n;
    sp_range ranges[];
} sp_cell;

typedef struct sp_changes {
    sp_trail trail;
    uint32_t n;
    sp_range log[SP_LOG_RANGES];
} sp_changes;

/* Room for n more ranges, n <= SP_LOG_RANGES.  SP_NOMEM: as before. */
SP_MUST_CHECK sp_status sp_changes_reserve(sp_changes *changes, const sp_keeper *keeper,
                                           uint32_t n);
/* After a reserve; cannot fail. */
void sp_changes_add(sp_changes *changes, uint64_t start, uint64_t stop);

/* A cell that holds a set, whose reference it takes over on success. */
SP_MUST_CHECK sp_status sp_cell_of(const sp_keeper *keeper, sp_pageset *pages, sp_cell **out);
void sp_changes_add_cell(sp_changes *changes, sp_cell *cell);
void sp_cell_release(sp_cell *cell);

/* Moves the log into the trail.  SP_NOMEM: as before. */
SP_MUST_CHECK sp_status sp_changes_flush(sp_changes *changes, const sp_keeper *keeper);

/* Makes `from` addable to `into` without fail: moves its log out of the way if need be. */
SP_MUST_CHECK sp_status sp_changes_ready(const sp_changes *into, sp_changes *from,
                                         const sp_keeper *keeper);
/* Moves all of `from` into `into`, after ready.  Cannot fail. */
void sp_changes_join(sp_changes *into, sp_changes *from);
void sp_changes_clear(sp_changes *changes);

/* Appends *from to *into and, if that is long, unites a few cells where memory allows. */
void sp_trail_splice(sp_trail *into, sp_trail *from);
/* Unites cells of a long trail until it is no longer long, where memory allows. */
void sp_trail_shorten(sp_trail *trail);
void sp_trail_drop(sp_trail *trail);

/* The union of n cells.  Releases them, on failure too. */
SP_MUST_CHECK sp_status sp_cells_unite(const sp_keeper *keeper, sp_cell **cells, size_t n,
                                       sp_pageset **out);

#endif
