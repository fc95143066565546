/*
 * sort.c - a least-significant-digit radix sort of ranges.  Floor 0.
 */
#include "base/sort.h"

#include <string.h>

#define DIGIT_BITS 11
#define DIGITS (1u << DIGIT_BITS)

static unsigned digit_of(uint64_t key, unsigned shift) { return key >> shift & (DIGITS - 1); }

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
