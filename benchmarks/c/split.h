/*
 * split.h - splitting a dirty bitmap by status, shared by the rivals.
 *
 * Two ways in, by what a rival can answer.  split_words asks for the status of 64 pages at a time
 * and yields both lists by their toggles: t = x ^ (x << 1 | carry) has a bit wherever membership
 * flips, and lines of the cache that only continue what was before are skipped at a test, clean
 * ones without a question.  split_pages asks page by page.  The questions are functions known at
 * compile time and inlined.
 */
#ifndef RIVALS_SPLIT_H
#define RIVALS_SPLIT_H

#include "rivals.h"

/* A function made anew for each question it is called with. */
#define SPECIALIZED __attribute__((always_inline)) static inline

#define WORDS_OF_LINE 8
#define LIST_ROOM (WORDS_OF_LINE * 64) /* most toggles of one line */

/* Bits [first, stop) of a word, stop > first and at most 64. */
static inline uint64_t bits_between(unsigned first, unsigned stop)
{
    return (~UINT64_C(0) << first) & (~UINT64_C(0) >> (64 - stop));
}

/* Makes room for `more` gfns.  False: no memory, the list is as it was. */
bool rival_ranges_grow(rival_ranges *list, size_t more);

static inline bool has_room(rival_ranges *list, size_t more)
{
    return list->room - list->n >= more || rival_ranges_grow(list, more);
}

/* Appends the toggles of a word whose bit 0 is gfn `base`; room for 64 is there. */
static inline void append_toggles(rival_ranges *list, uint64_t word, uint64_t base, uint64_t *carry)
{
    uint64_t toggles = word ^ (word << 1 | *carry);
    uint64_t *out = list->gfns + list->n;
    *carry = word >> 63;
    for (; toggles; toggles &= toggles - 1)
        *out++ = base + (unsigned)__builtin_ctzll(toggles);
    list->n = (size_t)(out - list->gfns);
}

static inline bool append_range(rival_ranges *list, uint64_t start, uint64_t stop)
{
    if (list->n && list->gfns[list->n - 1] == start) {
        list->gfns[list->n - 1] = stop;
        return true;
    }
    if (!has_room(list, 2))
        return false;
    list->gfns[list->n++] = start;
    list->gfns[list->n++] = stop;
    return true;
}

/* True if all eight words are `fill`. */
static inline bool is_flat(const uint64_t *w, uint64_t fill)
{
    return !((((w[0] ^ fill) | (w[1] ^ fill)) | ((w[2] ^ fill) | (w[3] ^ fill))) |
             (((w[4] ^ fill) | (w[5] ^ fill)) | ((w[6] ^ fill) | (w[7] ^ fill))));
}

/* Bit i of the answer: gfn 64 * word + i is shared.  Words ascend, here and below, and some are
 * left out. */
typedef uint64_t shared_word_fn(void *context, size_t word);

/* True if all pages of the line that begins at a word have the status. */
typedef bool line_is_fn(void *context, size_t word, bool shared);

SPECIALIZED bool split_words(const uint64_t *dirty, size_t nwords, shared_word_fn *shared_word,
                             line_is_fn *line_is, void *context, rival_split *out)
{
    uint64_t in_shared = 0, in_private = 0;
    for (size_t w = 0; w < nwords;) {
        size_t end = nwords - w < WORDS_OF_LINE ? nwords : w + WORDS_OF_LINE;
        uint64_t in = in_shared | in_private;
        if (end - w == WORDS_OF_LINE && is_flat(dirty + w, 0 - in) &&
            (!in || line_is(context, w, in_shared))) {
            w = end;
            continue;
        }
        if (!has_room(&out->shared, LIST_ROOM) || !has_room(&out->private, LIST_ROOM))
            return false;
        for (; w < end; w++) {
            if (!(dirty[w] | in_shared | in_private))
                continue;
            uint64_t shared = shared_word(context, w);
            append_toggles(&out->shared, dirty[w] & shared, w * 64, &in_shared);
            append_toggles(&out->private, dirty[w] & ~shared, w * 64, &in_private);
        }
    }
    if (!has_room(&out->shared, 1) || !has_room(&out->private, 1))
        return false;
    if (in_shared)
        out->shared.gfns[out->shared.n++] = nwords * 64;
    if (in_private)
        out->private.gfns[out->private.n++] = nwords * 64;
    return true;
}

typedef bool shared_page_fn(const void *context, uint64_t gfn);

/* Every `every`-th dirty page alone, the first one included; adds their number to *looked_up. */
SPECIALIZED bool split_pages(const uint64_t *dirty, size_t nwords, uint64_t every,
                             shared_page_fn *is_shared, const void *context, rival_split *out,
                             uint64_t *looked_up)
{
    uint64_t skip = 0;
    for (size_t w = 0; w < nwords; w++) {
        for (uint64_t left = dirty[w]; left; left &= left - 1) {
            if (skip) {
                skip--;
                continue;
            }
            skip = every - 1;
            uint64_t gfn = w * 64 + (unsigned)__builtin_ctzll(left);
            rival_ranges *list = is_shared(context, gfn) ? &out->shared : &out->private;
            if (!append_range(list, gfn, gfn + 1))
                return false;
            ++*looked_up;
        }
    }
    return true;
}

#endif
