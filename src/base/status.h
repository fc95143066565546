/*
 * status.h - the one status type of the library.  Floor 0.
 *
 * Every function that can fail returns sp_status and is warn-unused; there is no errno, no last
 * error and no sentinel value.  What a status means to a caller is said here once; functions say
 * only which of them they return and what state they leave behind.
 */
#ifndef SP_BASE_STATUS_H
#define SP_BASE_STATUS_H

typedef enum sp_status {
    SP_OK = 0,
    SP_NOMEM,   /* an allocation failed; nothing changed */
    SP_RANGE,   /* a gfn, count or size is out of bounds */
    SP_INVALID, /* an argument contradicts itself or the object (an inverted range, say) */
    SP_CLOSED,  /* the object was closed */
    SP_LIMIT,   /* more versions are pinned than the version table holds */
    SP_UNKNOWN, /* a memory slot that the guest does not have */
    SP_FORKED,  /* the process forked while another thread held the writer lock */
    SP_BUSY,    /* the lock is taken and the caller asked not to wait */
    SP_AGAIN    /* a wait ended without the event: time is up, or a signal came */
} sp_status;

#define SP_MUST_CHECK __attribute__((warn_unused_result))

/* One gfn range, half-open; the element of every list of ranges that crosses the API. */
#include <stdint.h>
typedef struct sp_range {
    uint64_t start;
    uint64_t stop;
} sp_range;

/* gfns are below 2^52: 64-bit guest physical addresses of 4 KiB pages. */
#define SP_GFN_BITS 52
#define SP_GFN_LIMIT (UINT64_C(1) << SP_GFN_BITS)

#endif
