/*
 * avx2.c - the kernel table for AVX2 with BMI and POPCNT (Haswell, Zen 1 and later).  Floor 1.
 * Compiled with those flags alone; reached only through the table, after CPUID.
 *
 * toggles reads a batch of words and notes which of them have flips, without a branch on it, before
 * it writes any position: where pages are dirty at random, a branch a word costs more than the
 * rest.  Flat stretches are skipped 128 bytes at a test.  Positions come one by one from tzcnt,
 * four of them without a branch.  pdep and pext are avoided: they are slow before Zen 3.
 */
#include <immintrin.h>

#include "base/bits.h"
#include "kernels/kernels.h"

#define WIDTH 4   /* words a vector */
#define STRIDE 16 /* words at a test */
#define BATCH 256 /* words whose flips are noted before they are written: what fits the L1 */
#define AHEAD 256 /* words that are prefetched: 2 KiB, measured against 0.5 and 1 */

static inline __m256i load(const uint64_t *words)
{
    return _mm256_loadu_si256((const __m256i *)words);
}

/* Words [0, 16) that are all `fill`? */
static inline bool is_flat(const uint64_t *words, __m256i fill)
{
    __m256i a = _mm256_xor_si256(load(words), fill);
    __m256i b = _mm256_xor_si256(load(words + 4), fill);
    __m256i c = _mm256_xor_si256(load(words + 8), fill);
    __m256i d = _mm256_xor_si256(load(words + 12), fill);
    __m256i any = _mm256_or_si256(_mm256_or_si256(a, b), _mm256_or_si256(c, d));
    return _mm256_testz_si256(any, any);
}

/* Appends the positions of t's set bits; up to 4 entries past the result may be written. */
static inline size_t emit(uint64_t t, uint64_t base, uint64_t *out)
{
    size_t n = (size_t)_mm_popcnt_u64(t);
    for (size_t i = 0; i < n; i += WIDTH)
        for (unsigned j = 0; j < WIDTH; j++, t = _blsr_u64(t))
            out[i + j] = base + _tzcnt_u64(t);
    return n;
}

/* The flips of a batch of words, and which of these have any. */
typedef struct hits {
    uint64_t flips[BATCH]; /* defined where `at` says so */
    uint8_t at[BATCH];
    size_t n; /* of `at` */
} hits;

/* Notes which of words[from..to) of a batch have flips, given the membership before them; returns
 * that of the last page. */
static inline uint64_t note_words(hits *h, const uint64_t *words, size_t from, size_t to,
                                  uint64_t in)
{
    for (size_t i = from; i < to; i++) {
        uint64_t t = words[i] ^ (words[i] << 1 | in);
        in = words[i] >> 63;
        h->flips[i] = t;
        h->at[h->n] = (uint8_t)i;
        h->n += t != 0;
    }
    return in;
}

/* Notes words that have flips, given the membership before the batch. */
static inline void note_batch(hits *h, const uint64_t *words, size_t count, uint64_t in)
{
    size_t i = 0;
    h->n = 0;
    for (; i + STRIDE <= count; i += STRIDE) {
        _mm_prefetch((const char *)(words + i + AHEAD), _MM_HINT_T0);
        _mm_prefetch((const char *)(words + i + AHEAD + 8), _MM_HINT_T0);
        if (!is_flat(words + i, _mm256_set1_epi64x(-(long long)in)))
            in = note_words(h, words, i, i + STRIDE, in);
    }
    note_words(h, words, i, count, in);
}

static size_t toggles(const uint64_t *words, size_t count, uint64_t base, uint64_t *carry,
                      uint64_t *out, size_t *used, size_t room)
{
    hits h;
    size_t i = 0, n = *used;
    while (i < count && room - n >= SP_TOGGLES_ROOM) {
        size_t end = sp_min(i + BATCH, count);
        note_batch(&h, words + i, end - i, *carry);
        for (size_t hit = 0; hit < h.n; hit++) {
            size_t at = h.at[hit];
            if (room - n < SP_TOGGLES_ROOM) {
                end = i + at;
                break;
            }
            n += emit(h.flips[at], base + (i + at) * 64, out + n);
        }
        *carry = end > i ? words[end - 1] >> 63 : *carry;
        i = end;
    }
    *used = n;
    return i;
}

static uint64_t toggles_count(const uint64_t *words, size_t count, uint64_t *carry)
{
    uint64_t total = 0, in = *carry;
    for (size_t i = 0; i < count; i++) {
        total += (uint64_t)_mm_popcnt_u64(words[i] ^ (words[i] << 1 | in));
        in = words[i] >> 63;
    }
    *carry = in;
    return total;
}

static void runs_toggles(const uint16_t *runs, size_t n, uint64_t base, uint64_t *out)
{
    __m256i from = _mm256_add_epi64(_mm256_set1_epi64x((long long)base),
                                    _mm256_set_epi64x(1, 0, 1, 0));
    size_t i = 0;
    for (; i + 2 <= n; i += 2) {
        __m256i wide = _mm256_cvtepu16_epi64(_mm_loadl_epi64((const __m128i *)(runs + 2 * i)));
        _mm256_storeu_si256((__m256i *)(out + 2 * i), _mm256_add_epi64(wide, from));
    }
    if (i < n) {
        out[2 * i] = base + runs[2 * i];
        out[2 * i + 1] = base + runs[2 * i + 1] + 1;
    }
}

static void positions(const uint64_t *words, const uint16_t *places, size_t count, uint16_t *out)
{
    for (size_t i = 0; i < count; i++)
        for (uint64_t word = words[i]; word; word &= word - 1)
            *out++ = (uint16_t)(places[i] + _tzcnt_u64(word));
}

static uint64_t move(const uint64_t *toggles, size_t n, uint64_t *out)
{
    __m256i sum = _mm256_setzero_si256();
    size_t i = 0;
    for (; i + 2 <= n; i += 2) {
        __m256i two = load(toggles + 2 * i);
        _mm256_storeu_si256((__m256i *)(out + 2 * i), two);
        sum = _mm256_add_epi64(sum, two);
    }
    uint64_t sums[WIDTH];
    _mm256_storeu_si256((__m256i *)sums, sum);
    uint64_t pages = sums[1] + sums[3] - sums[0] - sums[2];
    if (i < n) {
        out[2 * i] = toggles[2 * i];
        out[2 * i + 1] = toggles[2 * i + 1];
        pages += out[2 * i + 1] - out[2 * i];
    }
    return pages;
}

static uint64_t popcount(const uint64_t *words, size_t count)
{
    uint64_t total = 0;
    for (size_t i = 0; i < count; i++)
        total += (uint64_t)_mm_popcnt_u64(words[i]);
    return total;
}

static inline uint64_t word_op(sp_op op, uint64_t a, uint64_t b)
{
    switch (op) {
    case SP_OR: return a | b;
    case SP_AND: return a & b;
    case SP_ANDNOT: return a & ~b;
    case SP_XOR: break;
    }
    return a ^ b;
}

/* The loop of both combines; op and out are constants where it is inlined. */
static inline __attribute__((always_inline)) uint64_t combine_as(sp_op op, const uint64_t *a,
                                                                 const uint64_t *b, uint64_t *out,
                                                                 size_t count)
{
    uint64_t total = 0;
    for (size_t i = 0; i < count; i++) {
        uint64_t x = word_op(op, a[i], b[i]);
        if (out)
            out[i] = x;
        total += (uint64_t)_mm_popcnt_u64(x);
    }
    return total;
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

const sp_kernels sp_kernels_avx2 = {
    .name = "avx2",
    .toggles = toggles,
    .toggles_count = toggles_count,
    .runs_toggles = runs_toggles,
    .positions = positions,
    .move = move,
    .popcount = popcount,
    .combine_count = combine_count,
    .combine = combine,
};
