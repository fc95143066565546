/*
 * neon.c - the kernel table for AArch64, whose base instruction set has Advanced SIMD.  Floor 1.
 * Compiled where the target is AArch64, with no flags of its own; needs no question at run time.
 *
 * Flat stretches are skipped a cache line at a test: one horizontal maximum stands for eight
 * compares.  Set bits are counted by vcnt, a byte at a time, and summed four vectors at a time:
 * the base instruction set has no count for a general register.  The positions in a word that has
 * flips come one by one, as in scalar.c: there is no compress to write them by.
 */
#include <arm_neon.h>

#include "base/bits.h"
#include "kernels/kernels.h"

#define LINE 8 /* words at a test: four vectors */

/* Eight words. */
typedef struct line {
    uint64x2_t v[4];
} line;

static inline line load(const uint64_t *words)
{
    return (line){
        {vld1q_u64(words), vld1q_u64(words + 2), vld1q_u64(words + 4), vld1q_u64(words + 6)}};
}

static inline void store(uint64_t *out, line x)
{
    vst1q_u64(out, x.v[0]);
    vst1q_u64(out + 2, x.v[1]);
    vst1q_u64(out + 4, x.v[2]);
    vst1q_u64(out + 6, x.v[3]);
}

/* Adds the set bits of eight words, in 64-bit lanes.  Four counts of at most 8 fit a byte. */
static inline uint64x2_t add_bits(uint64x2_t total, line x)
{
    uint8x16_t a = vcntq_u8(vreinterpretq_u8_u64(x.v[0]));
    uint8x16_t b = vcntq_u8(vreinterpretq_u8_u64(x.v[1]));
    uint8x16_t c = vcntq_u8(vreinterpretq_u8_u64(x.v[2]));
    uint8x16_t d = vcntq_u8(vreinterpretq_u8_u64(x.v[3]));
    uint8x16_t bytes = vaddq_u8(vaddq_u8(a, b), vaddq_u8(c, d));
    return vpadalq_u32(total, vpaddlq_u16(vpaddlq_u8(bytes)));
}

static inline uint64_t bits_of(uint64_t word) { return vaddv_u8(vcnt_u8(vcreate_u8(word))); }

/* Words [0, 8) that are all `fill`? */
static inline bool is_flat(const uint64_t *words, uint64x2_t fill)
{
    line x = load(words);
    uint64x2_t low = vorrq_u64(veorq_u64(x.v[0], fill), veorq_u64(x.v[1], fill));
    uint64x2_t high = vorrq_u64(veorq_u64(x.v[2], fill), veorq_u64(x.v[3], fill));
    return vmaxvq_u32(vreinterpretq_u32_u64(vorrq_u64(low, high))) == 0;
}

static inline uint64_t flips(uint64_t word, uint64_t in) { return word ^ (word << 1 | in); }

static size_t toggles(const uint64_t *words, size_t count, uint64_t base, uint64_t *carry,
                      uint64_t *out, size_t *used, size_t room)
{
    size_t i = 0, n = *used;
    uint64_t in = *carry;
    while (i < count && room - n >= SP_TOGGLES_ROOM) {
        if (count - i >= LINE && is_flat(words + i, vdupq_n_u64(0 - in))) {
            i += LINE;
            continue;
        }
        size_t end = sp_min(i + LINE, count);
        for (; i < end && room - n >= SP_TOGGLES_ROOM; i++) {
            uint64_t t = flips(words[i], in);
            in = words[i] >> 63;
            for (; t; t &= t - 1)
                out[n++] = base + i * 64 + sp_lowest(t);
        }
    }
    *carry = in;
    *used = n;
    return i;
}

/* Flips of two words; the top bit of `before` is the membership ahead of them. */
static inline uint64x2_t pair_flips(uint64x2_t x, uint64x2_t before)
{
    uint64x2_t in = vshrq_n_u64(vextq_u64(before, x, 1), 63);
    return veorq_u64(x, vsliq_n_u64(in, x, 1));
}

static uint64_t toggles_count(const uint64_t *words, size_t count, uint64_t *carry)
{
    uint64x2_t total = vdupq_n_u64(0), before = vdupq_n_u64(*carry << 63);
    size_t i = 0;
    for (; count - i >= LINE; i += LINE) {
        line x = load(words + i);
        line flipped = {{pair_flips(x.v[0], before), pair_flips(x.v[1], x.v[0]),
                         pair_flips(x.v[2], x.v[1]), pair_flips(x.v[3], x.v[2])}};
        total = add_bits(total, flipped);
        before = x.v[3];
    }
    uint64_t rest = vaddvq_u64(total), in = vgetq_lane_u64(before, 1) >> 63;
    for (; i < count; i++) {
        rest += bits_of(flips(words[i], in));
        in = words[i] >> 63;
    }
    *carry = in;
    return rest;
}

static void runs_toggles(const uint16_t *runs, size_t n, uint64_t base, uint64_t *out)
{
    uint64x2_t from = {base, base + 1};
    size_t i = 0;
    for (; i + 2 <= n; i += 2) {
        uint32x4_t wide = vmovl_u16(vld1_u16(runs + 2 * i));
        vst1q_u64(out + 2 * i, vaddw_u32(from, vget_low_u32(wide)));
        vst1q_u64(out + 2 * i + 2, vaddw_u32(from, vget_high_u32(wide)));
    }
    if (i < n) {
        out[2 * i] = base + runs[2 * i];
        out[2 * i + 1] = base + runs[2 * i + 1] + 1;
    }
}

/* A bit at a time again: nothing wider to be had. */
static void positions(const uint64_t *words, const uint16_t *places, size_t count, uint16_t *out)
{
    sp_kernels_scalar.positions(words, places, count, out);
}

static uint64_t move(const uint64_t *toggles, size_t n, uint64_t *out)
{
    uint64x2_t sum = vdupq_n_u64(0); /* of the starts, and of the stops */
    for (size_t i = 0; i < n; i++) {
        uint64x2_t range = vld1q_u64(toggles + 2 * i);
        vst1q_u64(out + 2 * i, range);
        sum = vaddq_u64(sum, range);
    }
    return vgetq_lane_u64(sum, 1) - vgetq_lane_u64(sum, 0);
}

static uint64_t popcount(const uint64_t *words, size_t count)
{
    uint64x2_t total = vdupq_n_u64(0);
    size_t i = 0;
    for (; count - i >= LINE; i += LINE)
        total = add_bits(total, load(words + i));
    uint64_t rest = vaddvq_u64(total);
    for (; i < count; i++)
        rest += bits_of(words[i]);
    return rest;
}

static inline uint64x2_t vector_op(sp_op op, uint64x2_t a, uint64x2_t b)
{
    switch (op) {
    case SP_OR: return vorrq_u64(a, b);
    case SP_AND: return vandq_u64(a, b);
    case SP_ANDNOT: return vbicq_u64(a, b);
    case SP_XOR: break;
    }
    return veorq_u64(a, b);
}

static inline line line_op(sp_op op, line a, line b)
{
    return (line){{vector_op(op, a.v[0], b.v[0]), vector_op(op, a.v[1], b.v[1]),
                   vector_op(op, a.v[2], b.v[2]), vector_op(op, a.v[3], b.v[3])}};
}

/* The loop of both combines; op and out are constants where it is inlined. */
static inline __attribute__((always_inline)) uint64_t combine_as(sp_op op, const uint64_t *a,
                                                                 const uint64_t *b, uint64_t *out,
                                                                 size_t count)
{
    uint64x2_t total = vdupq_n_u64(0);
    size_t i = 0;
    for (; count - i >= LINE; i += LINE) {
        line x = line_op(op, load(a + i), load(b + i));
        if (out)
            store(out + i, x);
        total = add_bits(total, x);
    }
    uint64_t rest = vaddvq_u64(total);
    for (; i < count; i++) {
        uint64_t x = vgetq_lane_u64(vector_op(op, vdupq_n_u64(a[i]), vdupq_n_u64(b[i])), 0);
        if (out)
            out[i] = x;
        rest += bits_of(x);
    }
    return rest;
}

static uint64_t combine(sp_op op, const uint64_t *a, const uint64_t *b, uint64_t *out, size_t count)
{
    switch (op) {
    case SP_OR: return combine_as(SP_OR, a, b, out, count);
    case SP_AND: return combine_as(SP_AND, a, b, out, count);
    case SP_ANDNOT: return combine_as(SP_ANDNOT, a, b, out, count);
    case SP_XOR: break;
    }
    return combine_as(SP_XOR, a, b, out, count);
}

static uint64_t combine_count(sp_op op, const uint64_t *a, const uint64_t *b, size_t count)
{
    return combine(op, a, b, NULL, count);
}

const sp_kernels sp_kernels_neon = {
    .name = "neon",
    .toggles = toggles,
    .toggles_count = toggles_count,
    .runs_toggles = runs_toggles,
    .positions = positions,
    .move = move,
    .popcount = popcount,
    .combine_count = combine_count,
    .combine = combine,
};
