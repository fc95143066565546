/*
 * interval_search.h - where a number belongs in an ascending list of a node; private to the
 * interval engine.  Floor 3.
 *
 * By quarters, then all of a window of fixed width, as leaves of the roaring engine are searched
 * (leaf/search.h): no branch depends on a number, and few loads wait for another.  Numbers are a
 * field of something larger.
 */
#ifndef SP_SET_INTERVAL_SEARCH_H
#define SP_SET_INTERVAL_SEARCH_H

#include <stdint.h>

/* Numbers at the end of a search that are compared with one after the other. */
#define SEARCH_TAIL 8u

/* How many of n ascending numbers, `stride` apart, are at most `most`. */
#define DEFINE_SEARCH(name, type) \
    static inline uint32_t name(const type *numbers, uint32_t stride, uint32_t n, type most) \
    { \
        uint32_t low = 0, left = n, found = 0; \
        if (n < SEARCH_TAIL) { \
            for (uint32_t i = 0; i < n; i++) \
                found += numbers[i * stride] <= most; \
            return found; \
        } \
        while (left > SEARCH_TAIL) { \
            uint32_t quarter = left / 4, step = quarter * stride; \
            const type *at = numbers + (low + quarter - 1) * stride; \
            low += quarter * \
                   (uint32_t)((at[0] <= most) + (at[step] <= most) + (at[2 * step] <= most)); \
            left -= 3 * quarter; \
        } \
        low = low < n - SEARCH_TAIL ? low : n - SEARCH_TAIL; \
        const type *at = numbers + low * stride; \
        found = (uint32_t)((at[0] <= most) + (at[stride] <= most)); \
        found += (uint32_t)((at[2 * stride] <= most) + (at[3 * stride] <= most)); \
        found += (uint32_t)((at[4 * stride] <= most) + (at[5 * stride] <= most)); \
        found += (uint32_t)((at[6 * stride] <= most) + (at[7 * stride] <= most)); \
        return low + found; \
    }

DEFINE_SEARCH(sp_search_32, uint32_t)
DEFINE_SEARCH(sp_search_64, uint64_t)

#endif
