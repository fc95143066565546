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

/* How a leaf that is not empty is written. */
typedef struct sp_container {
    sp_ref leaf;
    uint16_t key;   /* which 2^16 pages of 2^32 */
    uint16_t most;  /* its pages, less 1 */
    uint16_t runs;  /* 0: it is not of runs */
    uint16_t again; /* so many more like it follow, with the next keys */
} sp_container;

static inline uint32_t sp_container_bytes(const sp_container *c)
{
    if (c->runs)
        return 2 + 4 * (uint32_t)c->runs;
    return c->most < SP_CONTAINER_MAX_VALUES ? 2 * (c->most + 1u) : SP_CONTAINER_BITMAP_BYTES;
}

/* How those of n leaves that are not empty are written, the first of them of the given key.
 * Returns their number; out has room for n. */
size_t sp_containers_of(const sp_kernels *k, const sp_ref *leaves, size_t n, uint32_t key,
                        sp_container *out);
/* Writes n containers in a row.  Returns where they end. */
uint8_t *sp_containers_write(const sp_kernels *k, const sp_container *list, size_t n, uint8_t *out);

/* Reads a container of so many pages, as its header has it, from the first of `size` bytes: a new
 * leaf, and how many bytes it took.  SP_NOMEM; SP_INVALID: *used is the offset of the bytes to
 * blame, and *why says what is wrong with them. */
SP_MUST_CHECK sp_status sp_container_read(sp_edit *edit, sp_container_kind kind, uint32_t pages,
                                          const uint8_t *data, size_t size, sp_ref *leaf,
                                          size_t *used, const char **why);

#endif
