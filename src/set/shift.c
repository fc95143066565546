/*
 * shift.c - a set with all of its members moved by one distance.  Floor 3.
 *
 * Engine-neutral: ranges are read by a cursor, moved, and added in order, a batch at a time, so
 * that a set of many ranges is never spelled out whole.  Where the engine holds a bitmap its words
 * are moved instead: they land in two bitmaps of the result, beside what is in there.
 *
 * The window that is read leaves out what would leave [0, 2^52), so sums of members do not wrap;
 * the base of a bitmap may, where all of its part beyond is empty.
 */
#include <string.h>

#include "leaf/leaf.h"
#include "set/pageset.h"

enum { BATCH = 512 };

typedef struct mover {
    const sp_set *from;
    uint64_t start, stop; /* what of it is moved */
    uint64_t by;          /* modulo 2^64 */
    sp_edit edit;
    sp_set *to;
    sp_range ranges[BATCH];
    uint64_t words[SP_LEAF_WORDS], there[SP_LEAF_WORDS], moved[2 * SP_LEAF_WORDS];
} mover;

/* Adds the bits from `base` on. */
static sp_status add_words(mover *m, uint64_t base, const uint64_t *words)
{
    if (!m->edit.kernels->popcount(words, SP_LEAF_WORDS))
        return SP_OK;
    if (!sp_set_words(m->to, base, m->there))
        sp_set_bitmap_into(m->edit.kernels, m->to, base, SP_LEAF_PAGES, m->there);
    for (size_t i = 0; i < SP_LEAF_WORDS; i++)
        m->there[i] |= words[i];
    return sp_set_put_words(&m->edit, m->to, base, m->there);
}

/* Moves m->words, the bits from `base` on. */
static sp_status move_bitmap(mover *m, uint64_t base)
{
    uint64_t places = (base + m->by) % SP_LEAF_PAGES, low = base + m->by - places;
    uint64_t *moved = m->moved + places / 64, bits = places % 64;
    if (base < m->start)
        sp_words_fill(m->words, 0, m->start - base - 1, false);
    if (base + SP_LEAF_PAGES > m->stop)
        sp_words_fill(m->words, m->stop - base, SP_LEAF_PAGES - 1, false);
    memset(m->moved, 0, sizeof m->moved);
    for (size_t i = 0; i < SP_LEAF_WORDS; i++) {
        moved[i] |= m->words[i] << bits;
        moved[i + 1] = m->words[i] >> 1 >> (63 - bits);
    }
    sp_status status = add_words(m, low, m->moved);
    if (!status)
        status = add_words(m, low + SP_LEAF_PAGES, m->moved + SP_LEAF_WORDS);
    return status;
}

/* Moves a batch of ranges; *at becomes the end of the last. */
static sp_status move_ranges(mover *m, uint64_t *at)
{
    sp_cursor cursor = sp_cursor_open(m->from, *at, m->stop);
    size_t n = sp_cursor_ranges(m->edit.kernels, &cursor, m->ranges, BATCH);
    *at = n < BATCH ? m->stop : m->ranges[n - 1].stop;
    for (size_t i = 0; i < n; i++) {
        m->ranges[i].start += m->by;
        m->ranges[i].stop += m->by;
    }
    return n ? sp_set_add_sorted(&m->edit, m->to, m->ranges, n) : SP_OK;
}

static sp_status move_all(mover *m)
{
    sp_status status = SP_OK;
    for (uint64_t at = m->start; !status && at < m->stop;) {
        at = sp_set_next(m->edit.kernels, m->from, at, true);
        if (at >= m->stop)
            break;
        uint64_t base = at & ~(uint64_t)(SP_LEAF_PAGES - 1);
        if (sp_set_words(m->from, base, m->words)) {
            status = move_bitmap(m, base);
            at = base + SP_LEAF_PAGES;
        } else {
            status = move_ranges(m, &at);
        }
    }
    return status;
}

sp_status sp_pageset_shift(const sp_allocator *allocator, const sp_set *set, uint64_t distance,
                           bool down, sp_pageset **out)
{
    sp_mem mem;
    sp_mem_init(&mem, allocator);
    sp_pageset *made;
    sp_status status = sp_pageset_new(allocator, set->engine, &made);
    if (status)
        return status;
    mover *m = sp_mem_alloc(&mem, sizeof *m);
    if (m) {
        distance = sp_min(distance, SP_GFN_LIMIT);
        m->from = set;
        m->start = down ? distance : 0;
        m->stop = down ? SP_GFN_LIMIT : SP_GFN_LIMIT - distance;
        m->by = down ? 0 - distance : distance;
        m->edit = sp_pageset_edit(made);
        m->to = sp_pageset_open(made);
        status = move_all(m);
    } else {
        status = SP_NOMEM;
    }
    sp_mem_free(&mem, m, sizeof *m);
    if (status)
        sp_pageset_release(made);
    else
        *out = made;
    return status;
}
