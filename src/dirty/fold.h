/*
 * fold.h - one harvest's pages added to another's; private to dirty/.  Floor 4.
 *
 * The one added to is open: nobody else sees it.  Where the two are of different memories pages go
 * by gfn: those that were memory of the one and are not of the other are left out, those that were
 * none (MMIO that somebody reported) are kept.
 */
#ifndef SP_DIRTY_FOLD_H
#define SP_DIRTY_FOLD_H

#include "dirty/harvest.h"

/* Adds the pages of a harvest that was taken.  SP_NOMEM: some may be in. */
SP_MUST_CHECK sp_status sp_harvest_fold(sp_harvest *open, const sp_harvest *taken);

/* Adds npages bits of a bitmap, whose bit 0 is `gfn`; pages that no slot holds are ignored.
 * O(npages / 64) and the slots there.  SP_NOMEM: some may be in. */
SP_MUST_CHECK sp_status sp_harvest_fold_bits(sp_harvest *open, uint64_t gfn, const void *bitmap,
                                             uint64_t npages);

/* Moves what an open harvest holds to an empty one of another memory, in two steps.  After the
 * first, which may fail, the old one is as it was; after the second, which cannot, the new one has
 * its pages, and the bitmaps, lent or not, of the slots that both memories have. */
SP_MUST_CHECK sp_status sp_harvest_prepare_move(sp_harvest *open, const sp_harvest *old);
void sp_harvest_commit_move(sp_harvest *open, sp_harvest *old);

/* Leaves each slot of an open harvest one bitmap that nobody has borrowed, in two steps as above. */
SP_MUST_CHECK sp_status sp_harvest_prepare_unite(sp_harvest *open);
void sp_harvest_commit_unite(sp_harvest *open);

#endif
