/*
 * portable.h - sets in the portable Roaring format, of 32 and of 64 bits.  Floor 3.
 *
 * The 32-bit format is a cookie, a header for every 2^16 gfns that have a member, and their
 * containers (leaf/container.h); the 64-bit format a count, and a 32-bit set for every 2^32 gfns,
 * behind the high halves of theirs.  What is written is canonical: equal sets are equal bytes.
 *
 * Reading is one pass that checks everything and allocates at most a constant times its input.  It
 * accepts whatever denotes a set: runs that touch, containers that are not the shortest.
 *
 * Source: github.com/RoaringBitmap/RoaringFormatSpec.
 */
#ifndef SP_SET_PORTABLE_H
#define SP_SET_PORTABLE_H

#include "leaf/container.h"
#include "set/pageset.h"

#define SP_PORTABLE_INLINE 64u /* containers of a plan without a block of its own */

/* The members of one span of 2^32 gfns: all of a 32-bit file, or one of several of a 64-bit one. */
typedef struct sp_portable_part {
    uint32_t high, containers;
    size_t first; /* of its entries in the list, which are fewer where many are FULL */
    uint64_t bytes;
    bool has_runs;
} sp_portable_part;

/* What is to be written of a set.  Short lists lie in it, so that it is not moved. */
typedef struct sp_portable {
    sp_mem mem;
    const sp_kernels *kernels;
    bool wide;
    size_t n, room, nparts, parts_room;
    sp_container *list;
    sp_portable_part *parts;
    sp_container few[SP_PORTABLE_INLINE];
    sp_portable_part two[2];
} sp_portable;

/* Looks at a set of the roaring engine, which then lives until the plan is closed.  SP_RANGE: 32
 * bits are too few for the last member; SP_NOMEM; close it in any case.  O(leaves). */
SP_MUST_CHECK sp_status sp_portable_plan(sp_portable *plan, const sp_allocator *allocator,
                                         const sp_set *set, bool wide);
uint64_t sp_portable_bytes(const sp_portable *plan);
/* Writes sp_portable_bytes. */
void sp_portable_write(const sp_portable *plan, uint8_t *out);
void sp_portable_close(sp_portable *plan);

/* True if planning and writing take less than letting go of the GIL is worth. */
bool sp_portable_is_short(const sp_set *set);

/* Reads a set of 32 or 64 bits, or with 0 of either, told apart by the cookie, from all of `size`
 * bytes, which others may write meanwhile.  SP_INVALID: *offset is that of the bytes to blame, and
 * *why says for what.  SP_NOMEM.  O(size). */
SP_MUST_CHECK sp_status sp_portable_read(const sp_allocator *allocator, const void *data,
                                         size_t size, unsigned bits, sp_pageset **out,
                                         size_t *offset, const char **why);

/* Private to the two files of the format. */
#define SP_PORTABLE_COOKIE 12346u      /* no container is of runs; a count follows */
#define SP_PORTABLE_RUNS_COOKIE 12347u /* in the low half; the high one is the count less 1 */
#define SP_PORTABLE_FEW 4u             /* so many containers of such a set have offsets */
#define SP_PORTABLE_SPAN (UINT64_C(1) << 32)

#endif
