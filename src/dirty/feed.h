/*
 * feed.h - toggles of a set or of loose pages, read ahead in small batches; what a set says of gfn
 * after gfn; and the ranges of a set and a list, united.  Floor 4.
 *
 * A reader that jumps about in a set, or takes a range now and then, pays for little more than it
 * takes.  The set and the list must outlive the feed.
 */
#ifndef SP_DIRTY_FEED_H
#define SP_DIRTY_FEED_H

#include "dirty/loose.h"

#define SP_FEED_AHEAD 384
#define SP_FEED_NONE UINT64_MAX

typedef struct sp_feed {
    sp_cursor cursor;      /* of a set */
    sp_loose_cursor loose; /* of a list; runs NULL: of a set */
    uint64_t toggles[SP_TOGGLES_ROOM + SP_FEED_AHEAD + 1];
    size_t at, n; /* toggles[at..n) are still to be taken */
    size_t want;  /* how many to read next */
} sp_feed;

void sp_feed_open_set(sp_feed *feed, const sp_set *set, uint64_t start);
/* The first range may begin before `start`. */
void sp_feed_open_loose(sp_feed *feed, const sp_loose *loose, uint64_t start);
/* Reads the next batch; false: there is nothing left. */
bool sp_feed_fill(sp_feed *feed, const sp_kernels *k);
/* Moves toggles to out, where SP_TOGGLES_ROOM of `room` are free at least; 0 is the end. */
size_t sp_feed_move(sp_feed *feed, const sp_kernels *k, uint64_t *out, size_t room);

/* The next toggle, or SP_FEED_NONE. */
static inline uint64_t sp_feed_next(sp_feed *feed, const sp_kernels *k)
{
    if (feed->at == feed->n && !sp_feed_fill(feed, k))
        return SP_FEED_NONE;
    return feed->toggles[feed->at++];
}

/* The next range; stop 0 if there is none. */
static inline sp_range sp_feed_range(sp_feed *feed, const sp_kernels *k)
{
    uint64_t start = sp_feed_next(feed, k);
    return (sp_range){start, start == SP_FEED_NONE ? 0 : sp_feed_next(feed, k)};
}

/* What a set says of gfns that ascend. */
typedef struct sp_look {
    sp_feed feed;
    uint64_t flip; /* the status is constant from the gfn last asked about to here */
    bool member;   /* and is this */
} sp_look;

/* To ask about gfns from `start` on. */
void sp_look_open(sp_look *look, const sp_set *set, uint64_t start);
/* Goes on to a gfn at or past flip. */
void sp_look_move(sp_look *look, const sp_kernels *k, uint64_t gfn);

static inline void sp_look_at(sp_look *look, const sp_kernels *k, uint64_t gfn)
{
    if (look->flip <= gfn)
        sp_look_move(look, k, gfn);
}

/* Two feeds and the range that each is at. */
typedef struct sp_pair {
    sp_feed feed[2];
    sp_range head[2];
} sp_pair;

void sp_pair_open(sp_pair *pair, const sp_kernels *k, const sp_set *set, const sp_loose *loose,
                  uint64_t start);
/* The next range of either, with all that overlap or touch it; stop 0 if there is none. */
sp_range sp_pair_next(sp_pair *pair, const sp_kernels *k);

#endif
