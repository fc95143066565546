/*
 * loose.h - loose pages: short runs of gfns in a list, as they were reported.  Floor 4.
 *
 * What a ring or a list of pages reports is put down in 8 bytes a run, in any order and as often
 * as it comes, and sorted once, when it is looked at: a set would be edited at every page.  A run
 * is a word: the first gfn in the low 52 bits, the pages less one above; 4,096 pages at most.
 *
 * "In order" means by words of 64 gfns.  Within a word the reader orders runs by setting bits,
 * which takes 6 bits off the sort, and duplicates away.
 *
 * A list belongs to a harvest and is guarded as that is.
 */
#ifndef SP_DIRTY_LOOSE_H
#define SP_DIRTY_LOOSE_H

#include "set/set.h"

#define SP_LOOSE_MOST 4096 /* pages of a run */

typedef struct sp_loose {
    uint64_t *runs; /* NULL: no room */
    size_t n, room;
} sp_loose;

static inline uint64_t sp_loose_run(uint64_t start, uint64_t npages)
{
    return start | (npages - 1) << SP_GFN_BITS;
}

static inline uint64_t sp_loose_start(uint64_t run) { return run & (SP_GFN_LIMIT - 1); }

static inline uint64_t sp_loose_stop(uint64_t run)
{
    return sp_loose_start(run) + (run >> SP_GFN_BITS) + 1;
}

/* Makes room for `more` runs behind those there are.  SP_NOMEM, or if they were 2^32 or more. */
SP_MUST_CHECK sp_status sp_loose_reserve(sp_loose *loose, sp_mem *mem, size_t more);
bool sp_loose_is_sorted(const sp_loose *loose); /* O(n), or the first run out of order */
/* Puts the runs in order, with room[0..n) as room.  O(n). */
void sp_loose_sort(sp_loose *loose, uint64_t *room);
/* Adds the pages of a list, in any order, to a set.  SP_NOMEM leaves a part of them in. */
SP_MUST_CHECK sp_status sp_loose_add_to(const sp_loose *loose, sp_edit *edit, sp_set *set);
void sp_loose_clear(sp_loose *loose, sp_mem *mem);
/* Gives back the room that no run takes, if memory is there to do it. */
void sp_loose_trim(sp_loose *loose, sp_mem *mem);

/* A walk over an ordered list that yields toggles (kernels.h) in batches. */
typedef struct sp_loose_cursor {
    const uint64_t *runs;
    size_t at, n;
    uint64_t stop; /* of the range being read */
    bool is_open;  /* there is one */
} sp_loose_cursor;

/* Ranges from `start` on, the first of which may begin before it. */
sp_loose_cursor sp_loose_open(const sp_loose *loose, uint64_t start);
/* Writes toggles until fewer than SP_TOGGLES_ROOM of `room` are free (there are that many at
 * first), and returns how many: at least one, unless it is the end.  Their total is even. */
size_t sp_loose_toggles(sp_loose_cursor *cursor, uint64_t *out, size_t room);

#endif
