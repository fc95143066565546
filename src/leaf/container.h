/*
 * container.h - leaves as containers of the Roaring format.  Floor 2.
 *
 * A container is the body of 2^16 pages in a file, in one of three kinds: ascending 16-bit values
 * (at most 4,096), a bitmap of 8 KiB, or runs of (first, pages - 1).  Numbers are little-endian, as
 * this library's hosts are.  Of the kinds that can hold a leaf the shortest is written, and values
 * or a bitmap before runs of the same length: what CRoaring makes of values whose runs it then
 * optimises.  (What was made as runs it leaves so where the lengths are equal.)
 *
 * A reader trusts nothing: a container is copied out of the caller's bytes before it is looked at,
 * since others may write them meanwhile, and every number in it is checked.  It allocates the leaf
 * and nothing else.
 *
 * Source: github.com/RoaringBitmap/RoaringFormatSpec, section 3.
 */
#ifndef SP_LEAF_CONTAINER_H
#define SP_LEAF_CONTAINER_H

#include "leaf/leaf.h"

#define SP_CONTAINER_MAX_VALUES 4096u
#define SP_CONTAINER_BITMAP_BYTES 8192u

typedef enum sp_container_kind {
    SP_CONTAINER_VALUES,
    SP_CONTAINER_BITMAP,
    SP_CONTAINER_RUNS
} sp_container_kind;

typedef struct sp_container {
    sp_container_kind kind;
    uint32_t pages; /* 1..65536 */
    uint32_t runs;  /* of SP_CONTAINER_RUNS */
} sp_container;

static inline uint32_t sp_container_bytes(sp_container c)
{
    switch (c.kind) {
    case SP_CONTAINER_VALUES: return 2 * c.pages;
    case SP_CONTAINER_RUNS: return 2 + 4 * c.runs;
    case SP_CONTAINER_BITMAP: break;
    }
    return SP_CONTAINER_BITMAP_BYTES;
}

/* How a leaf that is not empty is written. */
sp_container sp_container_of(const sp_kernels *k, sp_ref leaf);
/* Writes it: sp_container_bytes of out. */
void sp_container_write(const sp_kernels *k, sp_ref leaf, sp_container how, uint8_t *out);

/* Reads a container of so many pages, as its header has it, from the first of `size` bytes: a new
 * leaf, and how many bytes it took.  SP_NOMEM; SP_INVALID: *used is the offset of the bytes to
 * blame, and *why says what is wrong with them. */
SP_MUST_CHECK sp_status sp_container_read(sp_edit *edit, sp_container_kind kind, uint32_t pages,
                                          const uint8_t *data, size_t size, sp_ref *leaf,
                                          size_t *used, const char **why);

#endif
