/*
 * parts.c - where a merge is cut into parts.  Floor 4.
 *
 * Work is words of bitmaps to read, pages of a set to list and runs of a list to read.  Bitmaps are
 * cut every so many gfns, the set at equal shares of its pages and the list of its runs, all on
 * borders of leaves.  How many ranges a part yields nobody knows before it is read: so there are
 * more parts than threads, and who is done takes the next.
 *
 * A seam within a bitmap whose slot begins between two words' borders of gfns moves up to a border
 * of the bitmap's words: no part begins inside a word.
 */
#include "base/bits.h"
#include "base/sort.h"
#include "dirty/loose.h"
#include "dirty/part.h"

/* Parts a thread: the last to end is late by little. */
#define SHARES 64

/* Pages of bitmaps in a part: a leaf's at least, and at most so many that what a part yields stays
 * in the second cache up to some dirty pages in a hundred. */
#define LEAST (UINT64_C(1) << 16)
#define MOST (UINT64_C(1) << 20)

/* The bitmaps that are read as they are, in order. */
typedef struct walk {
    const sp_merge *merge;
    size_t next;
    uint64_t end; /* of the one before */
} walk;

static const sp_memslot *step(walk *w)
{
    size_t i = sp_merge_next_slot(w->merge, w->next, w->end);
    const sp_memslot *slot = sp_merge_slot(w->merge, i);
    w->next = i + 1;
    w->end = slot ? slot->gfn + slot->npages : w->end;
    return slot;
}

/* Appends the multiples of `pages` within bitmaps; returns how many. */
static size_t cut_bitmaps(const sp_merge *merge, uint64_t pages, sp_range *cuts)
{
    walk w = {merge, 0, 0};
    size_t n = 0;
    for (const sp_memslot *slot; (slot = step(&w));)
        for (uint64_t at = (slot->gfn | (pages - 1)) + 1; at < w.end; at += pages)
            cuts[n++].start = at;
    return n;
}

/* Appends the leaves at equal shares of a set; returns how many. */
static size_t cut_set(const sp_set *set, size_t shares, sp_range *cuts)
{
    uint64_t count = sp_set_count(set), share = count / shares + 1;
    size_t n = 0;
    for (uint64_t i = share; i < count; i += share)
        cuts[n++].start = sp_set_select(set, i) & ~(LEAST - 1);
    return n;
}

/* Runs of a list in a part at least: reading so many takes longer than beginning a part. */
#define LEAST_RUNS 4096

/* Appends the leaves at equal shares of a list; returns how many. */
static size_t cut_loose(const sp_loose *loose, size_t shares, sp_range *cuts)
{
    size_t count = loose ? loose->n : 0, n = 0;
    size_t share = (size_t)sp_max(count / shares + 1, LEAST_RUNS);
    for (size_t i = share; i < count; i += share)
        cuts[n++].start = sp_loose_start(loose->runs[i]) & ~(LEAST - 1);
    return n;
}

/* Turns sorted cuts into parts of all gfns; returns how many. */
static size_t join(const sp_merge *merge, sp_range *cuts, size_t ncuts)
{
    walk w = {merge, 0, 0};
    const sp_memslot *slot = step(&w);
    uint64_t start = 0;
    size_t n = 0;
    for (size_t i = 0; i < ncuts; i++) {
        uint64_t at = cuts[i].start;
        while (slot && w.end <= at)
            slot = step(&w);
        if (slot && slot->gfn < at)
            at = sp_min(slot->gfn + ((at - slot->gfn + 63) & ~UINT64_C(63)), w.end);
        if (at <= start)
            continue;
        cuts[n++] = (sp_range){start, at};
        start = at;
    }
    cuts[n++] = (sp_range){start, SP_GFN_LIMIT};
    return n;
}

sp_status sp_parts_init(sp_parts *parts, const sp_merge *merge, size_t threads, sp_mem *mem)
{
    size_t shares = threads * SHARES, nslots = 0;
    uint64_t total = 0, pages = LEAST;
    walk w = {merge, 0, 0};
    for (const sp_memslot *slot; (slot = step(&w)); nslots++)
        total += slot->npages;
    while (pages < MOST && pages * shares < total)
        pages *= 2;
    size_t room = (size_t)(total / pages) + nslots + 2 * shares + 1;
    sp_range *cuts = sp_mem_alloc(mem, 2 * room * sizeof *cuts);
    if (!cuts)
        return SP_NOMEM;
    size_t n = cut_bitmaps(merge, pages, cuts);
    n += cut_set(sp_merge_extra(merge), shares, cuts + n);
    n += cut_loose(sp_merge_loose(merge), shares, cuts + n);
    sp_sort_ranges(cuts, cuts + room, n);
    *parts = (sp_parts){cuts, join(merge, cuts, n), 2 * room};
    return SP_OK;
}

void sp_parts_clear(sp_parts *parts, sp_mem *mem)
{
    sp_mem_free(mem, parts->at, parts->room * sizeof *parts->at);
}
