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

#include "set/pageset.h"

/* What is to be written of a set, measured; the set outlives it. */
typedef struct sp_portable sp_portable;

/* SP_RANGE: 32 bits are too few for the set's last member.  O(leaves). */
SP_MUST_CHECK sp_status sp_portable_new(const sp_allocator *allocator, const sp_set *set, bool wide,
                                        sp_portable **out);
uint64_t sp_portable_bytes(const sp_portable *portable);
void sp_portable_write(const sp_portable *portable, uint8_t *out);
void sp_portable_free(sp_portable *portable); /* NULL is nothing */

/* Reads a set of either width, told apart by the cookie, from all of `size` bytes, which others may
 * write meanwhile.  SP_INVALID: *offset is that of the bytes to blame, *why says for what.
 * SP_NOMEM.  O(size). */
SP_MUST_CHECK sp_status sp_portable_read(const sp_allocator *allocator, const void *data,
                                         size_t size, sp_pageset **out, size_t *offset,
                                         const char **why);

/* Private to the two files of the format. */
#define SP_PORTABLE_COOKIE 12346u      /* no container is of runs; a count follows */
#define SP_PORTABLE_RUNS_COOKIE 12347u /* in the low half; the high one is the count less 1 */
#define SP_PORTABLE_FEW 4u             /* so many containers of such a set have offsets */
#define SP_PORTABLE_SPAN (UINT64_C(1) << 32)

#endif
