/*
 * feed.c - reading ahead.  Floor 4.
 */
#include "dirty/feed.h"

#include <string.h>

#define WANT_FIRST 2

void sp_feed_open_set(sp_feed *feed, const sp_set *set, uint64_t start)
{
    feed->cursor = sp_cursor_open(set, start, SP_GFN_LIMIT);
    feed->loose.runs = NULL;
    feed->at = feed->n = 0;
    feed->want = WANT_FIRST;
}

void sp_feed_open_loose(sp_feed *feed, const sp_loose *loose, uint64_t start)
{
    feed->loose = sp_loose_open(loose, start);
    feed->cursor.at = feed->cursor.stop = feed->cursor.carry = 0;
    feed->at = feed->n = 0;
    feed->want = WANT_FIRST;
}

static size_t read(sp_feed *feed, const sp_kernels *k, uint64_t *out, size_t room)
{
    return feed->loose.runs ? sp_loose_toggles(&feed->loose, out, room)
                            : sp_cursor_toggles(k, &feed->cursor, out, room);
}

bool sp_feed_fill(sp_feed *feed, const sp_kernels *k)
{
    feed->at = 0;
    feed->n = read(feed, k, feed->toggles, SP_TOGGLES_ROOM + feed->want);
    feed->want = (size_t)sp_min(feed->want * 2, SP_FEED_AHEAD);
    return feed->n;
}

size_t sp_feed_move(sp_feed *feed, const sp_kernels *k, uint64_t *out, size_t room)
{
    if (feed->at == feed->n)
        return read(feed, k, out, room);
    size_t n = (size_t)sp_min(feed->n - feed->at, room);
    memcpy(out, feed->toggles + feed->at, n * sizeof *out);
    feed->at += n;
    return n;
}

/* ---- looking ---- */

/* A jump takes about as long as reading so many toggles, or so many pages of a dense bitmap; and a
 * toggle as long as passing so many pages in which there is none. */
#define FEW 32
#define NEAR 512
#define BARE 8192

/* Pages past what was read that are read through rather than jumped over: those in which the next
 * batch of toggles lies, if the set goes on as it was. */
static uint64_t reach(const sp_feed *feed)
{
    uint64_t span = feed->n ? feed->cursor.at - feed->toggles[0] : 0;
    return sp_max(NEAR, span * sp_min(feed->want, FEW) / (feed->n + span / BARE + 1));
}

void sp_look_open(sp_look *look, const sp_set *set, uint64_t start)
{
    sp_feed_open_set(&look->feed, set, start);
    look->flip = 0;
    look->member = true; /* turned at once: flip is 0 */
}

/* Reads from gfn on. */
static void jump(sp_look *look, const sp_kernels *k, uint64_t gfn)
{
    sp_set set = look->feed.cursor.set;
    sp_feed_open_set(&look->feed, &set, gfn);
    look->flip = sp_feed_next(&look->feed, k);
    look->member = look->flip == gfn;
    if (look->member)
        look->flip = sp_feed_next(&look->feed, k);
}

void sp_look_move(sp_look *look, const sp_kernels *k, uint64_t gfn)
{
    sp_feed *feed = &look->feed;
    while (look->flip <= gfn) {
        if (feed->at == feed->n && gfn > feed->cursor.at + reach(feed)) {
            jump(look, k, gfn);
            return;
        }
        look->member = !look->member;
        look->flip = sp_feed_next(feed, k);
    }
}

/* ---- two as one ---- */

void sp_pair_open(sp_pair *pair, const sp_kernels *k, const sp_set *set, const sp_loose *loose,
                  uint64_t start)
{
    static const sp_loose none;
    sp_feed_open_set(&pair->feed[0], set, start);
    sp_feed_open_loose(&pair->feed[1], loose ? loose : &none, start);
    for (unsigned i = 0; i < 2; i++)
        pair->head[i] = sp_feed_range(&pair->feed[i], k);
}

/* A range that begins at or after the start of another does so before its end, or at it. */
static bool touches(sp_range head, sp_range range) { return head.stop && head.start <= range.stop; }

sp_range sp_pair_next(sp_pair *pair, const sp_kernels *k)
{
    sp_range *head = pair->head;
    unsigned i = !head[0].stop || (head[1].stop && head[1].start < head[0].start);
    sp_range range = head[i];
    if (!range.stop)
        return range;
    head[i] = sp_feed_range(&pair->feed[i], k);
    while ((i = touches(head[0], range) ? 0 : 1), touches(head[i], range)) {
        range.stop = sp_max(range.stop, head[i].stop);
        head[i] = sp_feed_range(&pair->feed[i], k);
    }
    return range;
}
