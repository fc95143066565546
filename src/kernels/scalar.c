/*
 * scalar.c - the kernel table in plain C: the reference that every other table is tested against.
 * Floor 1.
 *
 * t = x ^ (x << 1 | carry) has a bit wherever membership flips; walking its set bits yields the
 * toggles.  Stretches of equal membership are skipped eight words (one cache line) at a test.
 */
#include "base/bits.h"
#include "kernels/kernels.h"

static inline uint64_t flips(uint64_t word, uint64_t carry) { return word ^ (word << 1 | carry); }

/* True if eight words all hold the membership that carry says. */
static inline bool is_flat(const uint64_t *w, uint64_t fill)
{
    return !(((w[0] ^ fill) | (w[1] ^ fill)) | ((w[2] ^ fill) | (w[3] ^ fill)) |
             ((w[4] ^ fill) | (w[5] ^ fill)) | ((w[6] ^ fill) | (w[7] ^ fill)));
}

static size_t toggles(const uint64_t *words, size_t count, uint64_t base, uint64_t *carry,
                      uint64_t *out, size_t *used, size_t room)
{
    size_t i = 0, n = *used;
    uint64_t in = *carry;
    while (i < count && room - n >= SP_TOGGLES_ROOM) {
        if (count - i >= 8 && is_flat(words + i, 0 - in)) {
            i += 8;
            continue;
        }
        size_t end = sp_min(i + 8, count);
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

static uint64_t toggles_count(const uint64_t *words, size_t count, uint64_t *carry)
{
    uint64_t total = 0, in = *carry;
    for (size_t i = 0; i < count; i++) {
        total += sp_popcount(flips(words[i], in));
        in = words[i] >> 63;
    }
    *carry = in;
    return total;
}

static void runs_toggles(const uint16_t *runs, size_t n, uint64_t base, uint64_t *out)
{
    for (size_t i = 0; i < n; i++) {
        out[2 * i] = base + runs[2 * i];
        out[2 * i + 1] = base + runs[2 * i + 1] + 1;
    }
}

static void positions(const uint64_t *words, const uint16_t *places, size_t count, uint16_t *out)
{
    for (size_t i = 0; i < count; i++)
        for (uint64_t word = words[i]; word; word &= word - 1)
            *out++ = (uint16_t)(places[i] + sp_lowest(word));
}

static uint64_t move(const uint64_t *toggles, size_t n, uint64_t *out)
{
    uint64_t pages = 0;
    for (size_t i = 0; i < 2 * n; i += 2) {
        out[i] = toggles[i];
        out[i + 1] = toggles[i + 1];
        pages += toggles[i + 1] - toggles[i];
    }
    return pages;
}

static uint64_t popcount(const uint64_t *words, size_t count)
{
    uint64_t total = 0;
    for (size_t i = 0; i < count; i++)
        total += sp_popcount(words[i]);
    return total;
}

static inline uint64_t apply(sp_op op, uint64_t a, uint64_t b)
{
    switch (op) {
    case SP_OR: return a | b;
    case SP_AND: return a & b;
    case SP_ANDNOT: return a & ~b;
    case SP_XOR: break;
    }
    return a ^ b;
}

static uint64_t combine_count(sp_op op, const uint64_t *a, const uint64_t *b, size_t count)
{
    uint64_t total = 0;
    for (size_t i = 0; i < count; i++)
        total += sp_popcount(apply(op, a[i], b[i]));
    return total;
}

static uint64_t combine(sp_op op, const uint64_t *a, const uint64_t *b, uint64_t *out, size_t count)
{
    uint64_t total = 0;
    for (size_t i = 0; i < count; i++) {
        out[i] = apply(op, a[i], b[i]);
        total += sp_popcount(out[i]);
    }
    return total;
}

const sp_kernels sp_kernels_scalar = {
    .name = "scalar",
    .toggles = toggles,
    .toggles_count = toggles_count,
    .runs_toggles = runs_toggles,
    .positions = positions,
    .move = move,
    .popcount = popcount,
    .combine_count = combine_count,
    .combine = combine,
};
