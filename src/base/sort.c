/*
 * sort.c - least-significant-digit radix sorts.  Floor 0.
 */
#include "base/sort.h"

#include <string.h>

#include "base/bits.h"

#define DIGIT_BITS 11
#define DIGITS (1u << DIGIT_BITS)

static unsigned digit_of(uint64_t key, unsigned shift) { return key >> shift & (DIGITS - 1); }

/* ---- ranges ---- */

/* One stable pass from `from` to `to`. */
static void pass(const sp_range *from, sp_range *to, size_t n, unsigned shift)
{
    size_t place[DIGITS] = {0}, sum = 0;
    for (size_t i = 0; i < n; i++)
        place[digit_of(from[i].start, shift)]++;
    for (unsigned d = 0; d < DIGITS; d++) {
        size_t count = place[d];
        place[d] = sum;
        sum += count;
    }
    for (size_t i = 0; i < n; i++)
        to[place[digit_of(from[i].start, shift)]++] = from[i];
}

void sp_sort_ranges(sp_range *a, sp_range *b, size_t n)
{
    uint64_t differ = 0;
    size_t descents = 0;
    for (size_t i = 1; i < n; i++) {
        differ |= a[i].start ^ a[i - 1].start;
        descents += a[i].start < a[i - 1].start;
    }
    if (!descents)
        return;
    sp_range *from = a, *to = b;
    for (unsigned shift = 0; shift < 64 && differ >> shift; shift += DIGIT_BITS) {
        if (!digit_of(differ, shift))
            continue;
        pass(from, to, n, shift);
        sp_range *swap = from;
        from = to;
        to = swap;
    }
    if (from != a)
        memcpy(a, from, n * sizeof *a);
}

/* ---- words ---- */

/* Digits of 2^11 values leave room in the nearest cache for the places of two (16 KiB).  Lists so
 * short that summing these up would take longer than a pass more get digits of 2^8. */
#define LONG_LIST 2048
#define SHORT_DIGIT_BITS 8
#define MOST_DIGITS 8

/* How the bits in which words differ are cut into digits: the d-th has the bits of mask[d] above
 * shift[d]. */
typedef struct plan {
    unsigned n, shift[MOST_DIGITS];
    uint64_t mask[MOST_DIGITS];
} plan;

static plan plan_for(uint64_t differ, size_t n)
{
    unsigned most = n < LONG_LIST ? SHORT_DIGIT_BITS : DIGIT_BITS, low = sp_lowest(differ);
    unsigned width = 64 - (unsigned)__builtin_clzll(differ) - low;
    plan p = {.n = (width + most - 1) / most};
    for (unsigned d = 0; d < p.n; d++) {
        unsigned bits = (width + p.n - d - 1) / (p.n - d);
        p.shift[d] = low;
        p.mask[d] = (UINT64_C(1) << bits) - 1;
        low += bits;
        width -= bits;
    }
    return p;
}

/* The bits in which words differ.  Fetches the room on the way: the first pass writes all of it. */
static uint64_t difference(const uint64_t *words, const uint64_t *room, size_t n)
{
    uint64_t differ = 0, first = n ? words[0] : 0;
    size_t i = 0;
    for (; i + 4 <= n; i += 4) {
        __builtin_prefetch(room + i, 1);
        differ |= (words[i] ^ first) | (words[i + 1] ^ first) | (words[i + 2] ^ first) |
                  (words[i + 3] ^ first);
    }
    for (; i < n; i++)
        differ |= words[i] ^ first;
    return differ;
}

/* Counts the words by each digit, two digits at a time: the words are read half as often. */
static void count_words(const uint64_t *words, size_t n, const plan *p, uint32_t count[][DIGITS])
{
    for (unsigned d = 0; d < p->n; d++)
        memset(count[d], 0, (p->mask[d] + 1) * sizeof **count);
    for (unsigned d = 0; d < p->n; d += 2) {
        unsigned e = d + 1 < p->n ? d + 1 : d, low = p->shift[d], high = p->shift[e];
        uint64_t low_mask = p->mask[d], high_mask = p->mask[e];
        uint32_t *lows = count[d], *highs = count[e];
        for (size_t i = 0; e > d && i < n; i++) {
            lows[words[i] >> low & low_mask]++;
            highs[words[i] >> high & high_mask]++;
        }
        for (size_t i = 0; e == d && i < n; i++)
            lows[words[i] >> low & low_mask]++;
    }
}

/* Turns counts into the places of each digit's first word. */
static void sum_up(uint32_t *place, size_t digits)
{
    uint32_t sum = 0;
    for (size_t d = 0; d < digits; d++) {
        uint32_t count = place[d];
        place[d] = sum;
        sum += count;
    }
}

static void move_words(const uint64_t *from, uint64_t *to, size_t n, unsigned shift, uint64_t mask,
                       uint32_t *place)
{
    for (size_t i = 0; i < n; i++)
        to[place[from[i] >> shift & mask]++] = from[i];
}

void sp_sort_words(uint64_t *a, uint64_t *b, size_t n, unsigned low, unsigned high)
{
    uint64_t differ = difference(a, b, n) & sp_mask(low, high - 1), *from = a, *to = b;
    if (!differ)
        return;
    uint32_t place[MOST_DIGITS][DIGITS];
    plan p = plan_for(differ, n);
    count_words(a, n, &p, place);
    for (unsigned d = 0; d < p.n; d++) {
        if (place[d][a[0] >> p.shift[d] & p.mask[d]] == n)
            continue; /* all have this digit */
        sum_up(place[d], p.mask[d] + 1);
        move_words(from, to, n, p.shift[d], p.mask[d], place[d]);
        uint64_t *swap = from;
        from = to;
        to = swap;
    }
    if (from != a)
        memcpy(a, from, n * sizeof *a);
}
