/*
 * search.h - where a number belongs in an ascending list; private to leaf/.  Floor 2.
 *
 * Every change of a list begins with one search, at a place that nobody can guess: a branch on what
 * is found is mispredicted every second time, and each step of a search by halves waits for the
 * load of the step before.  Numbers may be a field of something larger.
 */
#ifndef SP_LEAF_SEARCH_H
#define SP_LEAF_SEARCH_H

#include <stdint.h>

/* Numbers at the end of a search that are compared with one after the other; a multiple of 4. */
#define SP_TAIL 8u

/* How many of n ascending numbers, `stride` apart, are below `page`.  By quarters, then all of a
 * window of fixed width: no branch depends on a number, and few loads wait for another. */
static inline uint32_t sp_count_below(const uint16_t *numbers, uint32_t stride, uint32_t n,
                                      uint32_t page)
{
    uint32_t low = 0, left = n, below = 0;
    if (n < SP_TAIL) {
        for (uint32_t i = 0; i < n; i++)
            below += numbers[i * stride] < page;
        return below;
    }
    while (left > SP_TAIL) {
        uint32_t quarter = left / 4, step = quarter * stride;
        const uint16_t *at = numbers + (low + quarter - 1) * stride;
        low += quarter * (uint32_t)((at[0] < page) + (at[step] < page) + (at[2 * step] < page));
        left -= 3 * quarter;
    }
    /* All before `low` are below the page, and none from low + left on is. */
    low = low < n - SP_TAIL ? low : n - SP_TAIL;
    for (uint32_t i = 0; i < SP_TAIL; i += 4) {
        const uint16_t *at = numbers + (low + i) * stride;
        below += (uint32_t)((at[0] < page) + (at[stride] < page));
        below += (uint32_t)((at[2 * stride] < page) + (at[3 * stride] < page));
    }
    return low + below;
}

#endif
