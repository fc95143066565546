/*
 * kernels.h - one table of word operations.  Floor 1.
 *
 * Everything that reads or writes bitmaps in bulk goes through this table.  A table is const; which
 * one serves is chosen once, by the CPU or by name, and published through one atomic pointer.
 * Public operations fetch the table once and pass it down, so tests run any backend.
 *
 * Toggles.  The positions at which a bitmap's membership flips, in order, alternate between a
 * range's start and its stop: their sequence *is* the list of ranges.  Every reader of a set and
 * of a dirty log speaks in toggles; `carry` is the membership of the page before the next one
 * looked at, so lists coalesce across word, block, leaf and buffer borders by themselves.
 */
#ifndef SP_KERNELS_KERNELS_H
#define SP_KERNELS_KERNELS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* Free entries that `toggles` wants in its output; it stops reading when there are fewer. */
#define SP_TOGGLES_ROOM 128

typedef enum sp_op { SP_OR, SP_AND, SP_ANDNOT, SP_XOR } sp_op;

/* What the operation says of one page. */
static inline bool sp_op_truth(sp_op op, bool a, bool b)
{
    switch (op) {
    case SP_OR: return a || b;
    case SP_AND: return a && b;
    case SP_ANDNOT: return a && !b;
    case SP_XOR: break;
    }
    return a != b;
}

typedef struct sp_kernels {
    const char *name;

    /* Appends to out[*used..room) the toggles of words[0..count), whose bit 0 is position `base`,
     * given and updating *carry.  Returns the words read: fewer than count only when less than
     * SP_TOGGLES_ROOM entries are free.  May write (undefined values) up to 64 entries past
     * *used, never past room.  O(count + toggles). */
    size_t (*toggles)(const uint64_t *words, size_t count, uint64_t base, uint64_t *carry,
                      uint64_t *out, size_t *used, size_t room);

    /* Toggles of words[0..count) given and updating *carry, not written. */
    uint64_t (*toggles_count)(const uint64_t *words, size_t count, uint64_t *carry);

    /* The toggles of n runs given as (first, last) pairs of 16-bit positions from base: 2 n entries
     * of out, and nothing past them. */
    void (*runs_toggles)(const uint16_t *runs, size_t n, uint64_t base, uint64_t *out);

    /* Positions of the set bits of words[0..count), bit 0 of words[i] being places[i], which is a
     * multiple of 64: so many of out as there are bits, and undefined values in up to 64 entries
     * past them. */
    void (*positions)(const uint64_t *words, const uint16_t *places, size_t count, uint16_t *out);

    /* Copies n ranges, given as their 2 n toggles, to out, which does not overlap them, and returns
     * the pages in them. */
    uint64_t (*move)(const uint64_t *toggles, size_t n, uint64_t *out);

    /* Set bits of words[0..count). */
    uint64_t (*popcount)(const uint64_t *words, size_t count);

    /* Set bits of a op b; nothing is written. */
    uint64_t (*combine_count)(sp_op op, const uint64_t *a, const uint64_t *b, size_t count);

    /* out = a op b, elementwise; out may be a or b.  Returns the set bits of out. */
    uint64_t (*combine)(sp_op op, const uint64_t *a, const uint64_t *b, uint64_t *out,
                        size_t count);
} sp_kernels;

extern const sp_kernels sp_kernels_scalar;
extern const sp_kernels sp_kernels_avx2;   /* where the build has it: SP_HAVE_AVX2 */
extern const sp_kernels sp_kernels_avx512; /* SP_HAVE_AVX512 */
extern const sp_kernels sp_kernels_neon;   /* SP_HAVE_NEON: every AArch64 */

/* The table in use; chosen by CPUID at the first call.  Wait-free. */
const sp_kernels *sp_kernels_active(void);

/* The table named so, if it is compiled in and this CPU runs it; else NULL. */
const sp_kernels *sp_kernels_find(const char *name);

/* Publishes a table for all later operations.  Operations under way keep theirs. */
void sp_kernels_use(const sp_kernels *table);

/* The i-th table that runs on this CPU, slowest first; NULL past the last. */
const sp_kernels *sp_kernels_at(size_t i);

#endif
