/*
 * merge.c - the merge.  Floor 4.
 *
 * Two stages.  The first yields the toggles of what is to be sent, in batches that stay in the
 * nearest cache: words of a dirty bitmap go to the kernel as they are; where the extra set or the
 * harvest's list has pages, a copy of the words with those pages added does.  The second cuts these
 * ranges at the toggles of the shared set, which it reads through a cursor that jumps over what no
 * dirty range touches.
 *
 * Bitmaps of slots that overlap an earlier one (two address spaces with the same gfns) become part
 * of the extra set at the start: the first stage sees each gfn once.
 */
#include "dirty/merge.h"

#include <string.h>

#include "base/atomics.h"
#include "dirty/feed.h"
#include "dirty/part.h"

/* A batch fits the L1 beside what the kernel notes (measured: half of it is no faster, twice and
 * four times are slower at one dirty page in 100). */
#define SEND_TOGGLES 2048

#define MIXED_WORDS 256

struct sp_merge {
    sp_mem mem;
    const sp_kernels *kernels;
    sp_harvest *harvest;
    sp_pageset *folded;          /* what fold had to copy, or NULL */
    size_t nslots, slot;         /* of the harvest's memory; the one being read */
    uint64_t at, end;            /* stage 1 has read what is below `at`, and stops at `end` */
    uint64_t in;                 /* membership of at - 1 in what is to be sent */
    sp_set extra_set;            /* whose nodes the caller, the harvest or `folded` holds */
    sp_pair extra;               /* the extra set and the harvest's loose pages */
    sp_range pending;            /* the range of `extra` at or after `at`; stop 0: none is left */
    uint64_t mixed[MIXED_WORDS]; /* words of the slot with extra pages added */
    size_t mixed_at, nmixed;     /* of which [mixed_at, nmixed) are still to be read */
    bool straight;               /* the rest is the list of loose pages, toggle by toggle */
    bool over;                   /* stage 1 has said everything */
    uint64_t send[SEND_TOGGLES + 2];
    size_t sent, nsend; /* stage 2 has taken send[0..sent) */
    sp_range piece;     /* what is left of the range being cut; empty: none */
    sp_look shared;     /* at piece.start */
};

/* ---- slots ---- */

const sp_memslot *sp_merge_slot(const sp_merge *m, size_t i)
{
    return i < m->nslots ? sp_memory_at(sp_harvest_memory(m->harvest), i) : NULL;
}

size_t sp_merge_next_slot(const sp_merge *m, size_t i, uint64_t gfn)
{
    while (i < m->nslots && (!sp_harvest_words(m->harvest, i) || sp_merge_slot(m, i)->gfn < gfn))
        i++;
    return i;
}

const sp_set *sp_merge_extra(const sp_merge *merge) { return &merge->extra_set; }

const sp_loose *sp_merge_loose(const sp_merge *merge)
{
    return merge->harvest ? sp_harvest_loose(merge->harvest) : NULL;
}

/* ---- stage 1 ---- */

/* The list may begin with ranges below `at`. */
static void next_extra(sp_merge *m)
{
    do
        m->pending = sp_pair_next(&m->extra, m->kernels);
    while (m->pending.stop && m->pending.stop <= m->at);
}

static void turn(sp_merge *m, uint64_t gfn, uint64_t value)
{
    m->send[m->nsend] = gfn;
    m->nsend += m->in != value;
    m->in = value;
}

static bool has_room(const sp_merge *m) { return SEND_TOGGLES - m->nsend >= SP_TOGGLES_ROOM; }

/* Pages [at, stop) that no bitmap speaks of. */
static void send_extra(sp_merge *m, uint64_t stop)
{
    while (m->at < stop && has_room(m)) {
        if (!m->pending.stop || m->pending.start >= stop) {
            turn(m, m->at, 0);
            m->at = stop;
            return;
        }
        if (m->pending.start > m->at)
            turn(m, m->at, 0);
        turn(m, sp_max(m->pending.start, m->at), 1);
        m->at = sp_min(m->pending.stop, stop);
        if (m->pending.stop <= stop)
            next_extra(m);
    }
}

/* Of what is to be sent, the loose pages alone have not been looked at, and all of them are. */
static bool is_straight(const sp_merge *m, const sp_memslot *slot)
{
    return !slot && !m->extra.head[0].stop && m->end == SP_GFN_LIMIT;
}

/* Sends the ranges that were looked at, so that the list's next toggle is the next to be sent. */
static void straighten(sp_merge *m)
{
    const sp_range ahead[] = {m->pending, m->extra.head[1]};
    for (unsigned i = 0; i < 2 && ahead[i].stop; i++) {
        if (ahead[i].start > m->at)
            turn(m, m->at, 0);
        turn(m, sp_max(ahead[i].start, m->at), 1);
        m->at = ahead[i].stop;
    }
    turn(m, m->at, 0);
    m->straight = true;
}

static void send_loose(sp_merge *m)
{
    size_t n = sp_feed_move(&m->extra.feed[1], m->kernels, m->send + m->nsend,
                            SEND_TOGGLES - m->nsend);
    m->nsend += n;
    m->over = !n;
}

/* Adds the extra pages of [start, stop) to a copy of a bitmap whose bit 0 is start. */
static void overlay(sp_merge *m, uint64_t *words, uint64_t start, uint64_t stop)
{
    while (m->pending.stop && m->pending.start < stop) {
        uint64_t from = sp_max(m->pending.start, start), to = sp_min(m->pending.stop, stop);
        sp_words_fill(words, from - start, to - start - 1, true);
        if (m->pending.stop > stop)
            return;
        next_extra(m);
    }
}

/* The slot's words from `first` up to where they can no longer be read as they are: where extra
 * pages begin, or the last word is a partial one. */
static uint64_t plain_words(const sp_merge *m, const sp_memslot *slot, uint64_t first)
{
    uint64_t last = sp_min(slot->npages, m->end - slot->gfn) / 64;
    if (m->pending.stop && m->pending.start < slot->gfn + slot->npages)
        last = sp_min(last, (sp_max(m->pending.start, m->at) - slot->gfn) / 64);
    return last > first ? last - first : 0;
}

/* Copies words from `at` on and adds what the bitmap does not have: extra pages, and beyond the
 * slot's end the status of its last page, so that nothing flips there. */
static void mix(sp_merge *m, const sp_memslot *slot, const uint64_t *words, uint64_t first)
{
    uint64_t end = slot->gfn + slot->npages;
    m->nmixed = sp_min((sp_min(slot->npages, m->end - slot->gfn) + 63) / 64 - first, MIXED_WORDS);
    m->mixed_at = 0;
    memcpy(m->mixed, words + first, m->nmixed * sizeof *m->mixed);
    uint64_t stop = sp_min(m->at + m->nmixed * 64, end);
    overlay(m, m->mixed, m->at, stop);
    unsigned over = slot->npages & 63;
    if (stop == end && over) {
        uint64_t *tail = &m->mixed[m->nmixed - 1];
        *tail |= *tail >> (over - 1) & 1 ? sp_mask(over, 63) : 0;
    }
}

/* Pages of a slot's bitmap; `at` is on a word border of the slot. */
static void send_words(sp_merge *m, const sp_memslot *slot, const uint64_t *words)
{
    uint64_t first = (m->at - slot->gfn) / 64, n = 0;
    const uint64_t *from = words + first;
    bool is_mixed = m->mixed_at < m->nmixed || !(n = plain_words(m, slot, first));
    if (is_mixed) {
        if (m->mixed_at == m->nmixed)
            mix(m, slot, words, first);
        from = m->mixed + m->mixed_at;
        n = m->nmixed - m->mixed_at;
    }
    uint64_t read = m->kernels->toggles(from, n, m->at, &m->in, m->send, &m->nsend, SEND_TOGGLES);
    m->mixed_at += is_mixed ? read : 0;
    m->at = sp_min(m->at + read * 64, slot->gfn + slot->npages);
}

/* Fills `send` anew. */
static void refill(sp_merge *m)
{
    m->sent = m->nsend = 0;
    while (!m->over && has_room(m)) {
        const sp_memslot *slot = sp_merge_slot(m, m->slot);
        if (m->straight) {
            send_loose(m);
        } else if (m->at == m->end) {
            turn(m, m->at, 0);
            m->over = true;
        } else if (is_straight(m, slot)) {
            straighten(m);
        } else if (!slot || m->at < slot->gfn) {
            send_extra(m, slot ? sp_min(slot->gfn, m->end) : m->end);
        } else {
            send_words(m, slot, sp_harvest_words(m->harvest, m->slot));
            if (m->at == slot->gfn + slot->npages)
                m->slot = sp_merge_next_slot(m, m->slot + 1, m->at);
        }
    }
}

/* ---- stage 2 ---- */

/* The next toggle of what is to be sent, or SP_FEED_NONE. */
static uint64_t next_send(sp_merge *m)
{
    if (m->sent == m->nsend)
        refill(m);
    return m->sent < m->nsend ? m->send[m->sent++] : SP_FEED_NONE;
}

static void append(sp_list *list, uint64_t start, uint64_t stop)
{
    list->ranges[list->n++] = (sp_range){start, stop};
    list->pages += stop - start;
}

/* How many of n ranges end at or before gfn; they ascend, and the first one does. */
static size_t ending_by(const sp_range *ranges, size_t n, uint64_t gfn)
{
    for (size_t low = 0; ranges[n - 1].stop > gfn;) {
        size_t middle = low + (n - low) / 2;
        if (ranges[middle].stop <= gfn)
            low = middle;
        else
            n = middle;
    }
    return n;
}

/* Ranges that are moved one by one before it is worth while to look for more. */
#define SHORT 32

/* Moves the ranges at hand that end before the shared status changes. */
static void append_many(sp_merge *m, sp_list *list)
{
    const sp_range *from = (const sp_range *)(m->send + m->sent);
    size_t n = (size_t)sp_min((m->nsend - m->sent) / 2, list->room - list->n), i = 0;
    sp_range *to = list->ranges + list->n;
    uint64_t pages = 0, flip = m->shared.flip;
    for (; i < n && i < SHORT && from[i].stop <= flip; i++) {
        to[i] = from[i];
        pages += from[i].stop - from[i].start;
    }
    if (i == SHORT) {
        n = ending_by(from, n, flip);
        pages += m->kernels->move((const uint64_t *)(from + i), n - i, (uint64_t *)(to + i));
        i = n;
    }
    list->pages += pages;
    list->n += i;
    m->sent += 2 * i;
}

bool sp_merge_next(sp_merge *m, sp_list *shared, sp_list *private)
{
    for (;;) {
        if (m->piece.start == m->piece.stop) {
            uint64_t start = next_send(m);
            if (start == SP_FEED_NONE)
                return true;
            m->piece = (sp_range){start, next_send(m)};
        }
        while (m->piece.start < m->piece.stop) {
            if (shared->n == shared->room || private->n == private->room)
                return false;
            sp_look_at(&m->shared, m->kernels, m->piece.start);
            uint64_t end = sp_min(m->piece.stop, m->shared.flip);
            append(m->shared.member ? shared : private, m->piece.start, end);
            m->piece.start = end;
        }
        append_many(m, m->shared.member ? shared : private);
    }
}

/* ---- beginning and end ---- */

/* Adds a set to *sum, in a copy that is the merge's own; nothing if it is empty. */
static sp_status fold_in(sp_merge *m, const sp_set **sum, const sp_set *more)
{
    sp_pageset *united;
    if (!sp_set_count(more))
        return SP_OK;
    sp_status status = sp_pageset_combine(m->mem.allocator, SP_OR, *sum, more, &united);
    if (status)
        return status;
    sp_pageset_release(m->folded);
    m->folded = united;
    *sum = sp_pageset_set(united);
    return SP_OK;
}

/* Adds the bitmap of a slot that overlaps an earlier one to *sum. */
static sp_status fold_words(sp_merge *m, const sp_set **sum, const sp_memslot *slot,
                            const uint64_t *words)
{
    sp_pageset *pages;
    const sp_engine *engine = sp_harvest_sparse(m->harvest)->engine;
    sp_status status = sp_pageset_from_bitmap(m->mem.allocator, engine, words, slot->gfn,
                                              slot->npages, &pages);
    if (status)
        return status;
    status = fold_in(m, sum, sp_pageset_set(pages));
    sp_pageset_release(pages);
    return status;
}

/* Makes *extra what is sent beside the bitmaps that stage 1 reads: the caller's set, the harvest's
 * sparse pages, and overlapping bitmaps. */
static sp_status fold(sp_merge *m, const sp_set **extra)
{
    const sp_set *sparse = sp_harvest_sparse(m->harvest);
    sp_status status = SP_OK;
    if (sp_set_count(*extra))
        status = fold_in(m, extra, sparse);
    else
        *extra = sparse; /* the merge holds the harvest */
    size_t chosen = sp_merge_next_slot(m, 0, 0);
    for (size_t i = 0; !status && i < m->nslots; i++) {
        const sp_memslot *slot = sp_merge_slot(m, i);
        const uint64_t *words = sp_harvest_words(m->harvest, i);
        if (i == chosen)
            chosen = sp_merge_next_slot(m, i + 1, slot->gfn + slot->npages);
        else if (words)
            status = fold_words(m, extra, slot, words);
    }
    return status;
}

sp_status sp_merge_new(const sp_allocator *allocator, sp_harvest *harvest, const sp_set *extra,
                       const sp_set *shared, sp_merge **out)
{
    sp_mem mem;
    sp_mem_init(&mem, allocator);
    sp_merge *m = sp_mem_zalloc(&mem, sizeof *m);
    if (!m)
        return SP_NOMEM;
    sp_mem_init(&m->mem, allocator);
    m->kernels = sp_kernels_active();
    if (harvest) {
        m->harvest = sp_harvest_retain(harvest);
        m->nslots = sp_memory_count(sp_harvest_memory(harvest));
        sp_status status = fold(m, &extra);
        if (status) {
            sp_merge_free(m);
            return status;
        }
    }
    m->extra_set = *extra;
    m->shared.feed.cursor.set = *shared;
    m->slot = sp_merge_next_slot(m, 0, 0);
    sp_merge_lead(m, 0, SP_GFN_LIMIT);
    *out = m;
    return SP_OK;
}

void sp_merge_free(sp_merge *merge)
{
    if (!merge)
        return;
    sp_harvest_release(merge->harvest);
    sp_pageset_release(merge->folded);
    sp_mem mem = {.allocator = merge->mem.allocator};
    sp_mem_free(&mem, merge, sizeof *merge);
}

/* ---- parts ---- */

void sp_merge_lead(sp_merge *m, uint64_t start, uint64_t stop)
{
    const sp_memslot *slot;
    if (start < m->at)
        m->slot = sp_merge_next_slot(m, 0, 0);
    while ((slot = sp_merge_slot(m, m->slot)) && slot->gfn + slot->npages <= start)
        m->slot = sp_merge_next_slot(m, m->slot + 1, slot->gfn + slot->npages);
    sp_set shared = m->shared.feed.cursor.set;
    m->at = start;
    m->end = stop;
    m->in = 0;
    m->mixed_at = m->nmixed = 0;
    m->sent = m->nsend = 0;
    m->over = false;
    m->straight = false;
    sp_pair_open(&m->extra, m->kernels, &m->extra_set, sp_merge_loose(m), start);
    next_extra(m);
    sp_look_open(&m->shared, &shared, start);
}

sp_status sp_merge_share(const sp_merge *merge, sp_merge **out)
{
    sp_mem mem = {.allocator = merge->mem.allocator};
    sp_merge *m = sp_mem_zalloc(&mem, sizeof *m);
    if (!m)
        return SP_NOMEM;
    sp_mem_init(&m->mem, merge->mem.allocator);
    m->kernels = merge->kernels;
    m->harvest = merge->harvest ? sp_harvest_retain(merge->harvest) : NULL;
    m->nslots = merge->nslots;
    m->extra_set = merge->extra_set;
    m->shared.feed.cursor.set = merge->shared.feed.cursor.set;
    m->slot = sp_merge_next_slot(m, 0, 0);
    *out = m;
    return SP_OK;
}

sp_status sp_merge_count(const sp_allocator *allocator, sp_harvest *harvest, uint64_t *pages)
{
    sp_set none = sp_set_empty(sp_harvest_sparse(harvest)->engine);
    sp_range room[64];
    sp_list shared = {room, 0, 1, 0}, private = {room, 0, 64, 0};
    sp_merge *merge;
    sp_status status = sp_merge_new(allocator, harvest, &none, &none, &merge);
    if (status)
        return status;
    while (!sp_merge_next(merge, &shared, &private))
        private.n = 0;
    *pages = private.pages;
    sp_merge_free(merge);
    return SP_OK;
}
