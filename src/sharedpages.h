/*
 * sharedpages.h - the public header of the C core; all that a binding includes.  Floor 6.
 *
 * pageset   immutable sets of gfns, and everything that can be asked of a set
 * portable  sets in the portable Roaring format
 * tracker   the set that changes, its snapshots, what was converted between them
 * dirty     dirty logs and rings, harvests, and the merge
 * arrow     ranges as Arrow data, out and in
 */
#ifndef SHAREDPAGES_H
#define SHAREDPAGES_H

#include "arrow/columns.h"
#include "arrow/rows.h"
#include "dirty/log.h"
#include "dirty/memory.h"
#include "dirty/merge.h"
#include "dirty/ring.h"
#include "kernels/kernels.h"
#include "set/pageset.h"
#include "set/portable.h"
#include "tracker/tracker.h"

#endif
