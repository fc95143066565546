/*
 * support_strip.h - the slow model of a tracker: an array of cells, each with its status and the
 * epoch of its last conversion.
 *
 * A cell is a page, or all of a gap between the windows where pages are cells of their own.  What
 * was converted between two epochs is then what one look at each cell tells.
 */
#ifndef SP_TESTS_SUPPORT_STRIP_H
#define SP_TESTS_SUPPORT_STRIP_H

#include "support_check.h"
#include "tracker/tracker.h"

typedef struct strip_cell {
    uint64_t start, stop;
    uint64_t last; /* epoch of the last conversion, 0: never */
    bool shared;
} strip_cell;

typedef struct strip {
    strip_cell *cell; /* ascending, without holes, from 0 to the guest's end */
    size_t n;
} strip;

/* A private guest of `bound` pages whose pages within the windows are cells. */
void strip_init(strip *s, const sp_range *windows, size_t n, uint64_t bound);
void strip_copy(strip *to, const strip *from);
void strip_clear(strip *s);

/* A random range between cell borders, often short, never empty. */
sp_range strip_range(const strip *s, rng *r);

/* Converts at `epoch`; returns the pages that changed. */
uint64_t strip_convert(strip *s, sp_range range, bool shared, uint64_t epoch);
/* Makes the shared pages those of the ranges; returns the pages that changed. */
uint64_t strip_replace(strip *s, const sp_range *ranges, size_t n, uint64_t epoch);

uint64_t strip_count(const strip *s);

/* The set holds exactly the shared pages. */
bool strip_is(const strip *s, const sp_set *set);
/* The set holds exactly the pages converted after `older`, up to when the strip was copied. */
bool strip_converted_is(const strip *s, uint64_t older, const sp_set *set);

#endif
