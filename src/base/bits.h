/*
 * bits.h - word primitives.  Floor 0.
 *
 * Plain C on uint64_t: what the compiler turns into one or a few instructions on a baseline
 * x86-64 or AArch64.  Bulk work on words belongs to kernels/, which may use wider instructions.
 */
#ifndef SP_BASE_BITS_H
#define SP_BASE_BITS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#ifdef SP_DEBUG
#include <assert.h>
#define SP_ASSERT(x) assert(x)
#else
#define SP_ASSERT(x) ((void)0)
#endif

/* Reads an element of memory that others may write meanwhile: once, and as it is then. */
#define SP_READ_ONCE(x) (*(const volatile __typeof__(x) *)&(x))

static inline unsigned sp_lowest(uint64_t word) { return (unsigned)__builtin_ctzll(word); }

/* Set bits of a word without the popcnt instruction, which a baseline x86-64 does not have. */
static inline unsigned sp_popcount(uint64_t x)
{
    x = x - ((x >> 1) & UINT64_C(0x5555555555555555));
    x = (x & UINT64_C(0x3333333333333333)) + ((x >> 2) & UINT64_C(0x3333333333333333));
    x = (x + (x >> 4)) & UINT64_C(0x0f0f0f0f0f0f0f0f);
    return (unsigned)((x * UINT64_C(0x0101010101010101)) >> 56);
}

/* Bits [first, last] of a word; both below 64. */
static inline uint64_t sp_mask(unsigned first, unsigned last)
{
    return (~UINT64_C(0) << first) & (~UINT64_C(0) >> (63 - last));
}

static inline uint64_t sp_min(uint64_t a, uint64_t b) { return a < b ? a : b; }
static inline uint64_t sp_max(uint64_t a, uint64_t b) { return a > b ? a : b; }

/* Set or clear bits [first, last] of a bitmap. */
static inline void sp_words_fill(uint64_t *words, size_t first, size_t last, bool value)
{
    size_t w = first >> 6, end = last >> 6;
    for (; w <= end; w++) {
        unsigned lo = w == first >> 6 ? first & 63 : 0, hi = w == end ? last & 63 : 63;
        uint64_t mask = sp_mask(lo, hi);
        words[w] = value ? words[w] | mask : words[w] & ~mask;
    }
}

/* Copies npages bits from bit `from` of a little-endian bitmap to words, the rest of the last word
 * zero.  Reads the bytes that hold these bits and no others. */
void sp_bits_copy(const void *bitmap, uint64_t from, uint64_t npages, uint64_t *words);

/* Sets bits of words from bit `to` on where they are set in such a bitmap. */
void sp_bits_or(const void *bitmap, uint64_t from, uint64_t npages, uint64_t *words, uint64_t to);

#endif
