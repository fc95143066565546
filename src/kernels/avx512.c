/*
 * avx512.c - the kernel table for AVX-512 with VBMI2 and VPOPCNTDQ (Ice Lake, Zen 4 and later).
 * Floor 1.  Compiled with those flags alone; reached only through the table, after CPUID.
 *
 * toggles reads a batch of words and notes which of them have flips, without a branch, before it
 * writes any position: each wrong guess would leave the memory idle while it waits.  (A test that
 * skips flat stretches was measured: 3 % faster where nothing is dirty, 6 % slower at one page in
 * 10,000.)  Positions are the bytes 0..63 compressed by the flips of a word and widened, eight
 * without a branch.  Compresses go into a register, merge-masked onto zero: to memory they are
 * microcoded on Zen 4, and zero-masked they carry a false dependency.
 */
#include <immintrin.h>

#include "base/bits.h"
#include "kernels/kernels.h"

#define WIDTH 8 /* words a vector */

static inline __m512i load(const uint64_t *words) { return _mm512_loadu_si512(words); }

#define STRIDE 32 /* words at a time: four vectors */
#define BATCH 256 /* words whose flips are noted before they are written: what fits the L1 */
#define AHEAD 256 /* words that are prefetched: 2 KiB, measured against 1 KiB */

/* The flips of a batch of words, and which of these have any. */
typedef struct hits {
    uint64_t flips[BATCH]; /* defined where `at` says so */
    uint8_t at[BATCH + STRIDE];
    size_t n; /* of `at` */
} hits;

static inline __m512i shifted(__m512i x, __m512i top, __m512i top_before)
{
    __m512i carry = _mm512_alignr_epi64(top, top_before, 7);
    return _mm512_xor_si512(x, _mm512_or_si512(_mm512_slli_epi64(x, 1), carry));
}

/* Flips of eight words; `in` is the membership before them. */
static inline __m512i flips(__m512i x, uint64_t in)
{
    return shifted(x, _mm512_srli_epi64(x, 63), _mm512_set1_epi64((long long)in));
}

/* The words 0..63 of a batch, or the bits of a word. */
static const uint8_t iota[64] = {0,  1,  2,  3,  4,  5,  6,  7,  8,  9,  10, 11, 12, 13, 14, 15,
                                 16, 17, 18, 19, 20, 21, 22, 23, 24, 25, 26, 27, 28, 29, 30, 31,
                                 32, 33, 34, 35, 36, 37, 38, 39, 40, 41, 42, 43, 44, 45, 46, 47,
                                 48, 49, 50, 51, 52, 53, 54, 55, 56, 57, 58, 59, 60, 61, 62, 63};

/* Notes what flips in 32 words from the i-th of a batch on, given the membership before them. */
static inline void note_stride(hits *h, size_t i, const uint64_t *words, uint64_t in)
{
    __m512i a = load(words), b = load(words + 8), c = load(words + 16), d = load(words + 24);
    __m512i top_a = _mm512_srli_epi64(a, 63), top_b = _mm512_srli_epi64(b, 63);
    __m512i top_c = _mm512_srli_epi64(c, 63), top_d = _mm512_srli_epi64(d, 63);
    a = shifted(a, top_a, _mm512_set1_epi64((long long)in));
    b = shifted(b, top_b, top_a);
    c = shifted(c, top_c, top_b);
    d = shifted(d, top_d, top_c);
    _mm512_store_si512(h->flips + i, a);
    _mm512_store_si512(h->flips + i + 8, b);
    _mm512_store_si512(h->flips + i + 16, c);
    _mm512_store_si512(h->flips + i + 24, d);
    uint32_t mask = (uint32_t)_mm512_test_epi64_mask(a, a) |
                    (uint32_t)_mm512_test_epi64_mask(b, b) << 8 |
                    (uint32_t)_mm512_test_epi64_mask(c, c) << 16 |
                    (uint32_t)_mm512_test_epi64_mask(d, d) << 24;
    __m256i all = _mm256_add_epi8(_mm256_loadu_si256((const __m256i *)iota),
                                  _mm256_set1_epi8((char)i));
    _mm256_storeu_si256((__m256i *)(h->at + h->n),
                        _mm256_mask_compress_epi8(_mm256_setzero_si256(), mask, all));
    h->n += (size_t)_mm_popcnt_u32(mask);
}

/* The places of a word's set bits, in as many bytes. */
static inline __m512i places_of(uint64_t word)
{
    return _mm512_mask_compress_epi8(_mm512_setzero_si512(), word, _mm512_loadu_si512(iota));
}

/* Appends the positions of t's set bits; up to 64 entries past the result may be written. */
static inline size_t emit(uint64_t t, uint64_t base, uint64_t *out)
{
    size_t n = (size_t)_mm_popcnt_u64(t);
    __m512i packed = places_of(t);
    __m512i from = _mm512_set1_epi64((long long)base);
    __m512i wide = _mm512_cvtepu8_epi64(_mm512_castsi512_si128(packed));
    _mm512_storeu_si512(out, _mm512_add_epi64(wide, from));
    if (n > WIDTH) {
        uint8_t places[64];
        _mm512_storeu_si512(places, packed);
        for (size_t i = WIDTH; i < n; i += WIDTH) {
            wide = _mm512_cvtepu8_epi64(_mm_loadl_epi64((const __m128i *)(places + i)));
            _mm512_storeu_si512(out + i, _mm512_add_epi64(wide, from));
        }
    }
    return n;
}

/* Notes what flips in a batch of words, given the membership before them. */
static inline void note_batch(hits *h, const uint64_t *words, size_t count, uint64_t in)
{
    size_t i = 0;
    h->n = 0;
    for (; i + STRIDE <= count; i += STRIDE) {
        for (size_t line = 0; line < STRIDE; line += WIDTH)
            _mm_prefetch((const char *)(words + i + AHEAD + line), _MM_HINT_T0);
        note_stride(h, i, words + i, in);
        in = words[i + STRIDE - 1] >> 63;
    }
    for (; i < count; i++) {
        h->flips[i] = words[i] ^ (words[i] << 1 | in);
        in = words[i] >> 63;
        h->at[h->n] = (uint8_t)i;
        h->n += h->flips[i] != 0;
    }
}

static size_t toggles(const uint64_t *words, size_t count, uint64_t base, uint64_t *carry,
                      uint64_t *out, size_t *used, size_t room)
{
    _Alignas(64) hits h;
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
    __m512i total = _mm512_setzero_si512();
    uint64_t in = *carry, rest = 0;
    size_t i = 0;
    for (; i + WIDTH <= count; i += WIDTH) {
        total = _mm512_add_epi64(total, _mm512_popcnt_epi64(flips(load(words + i), in)));
        in = words[i + WIDTH - 1] >> 63;
    }
    for (; i < count; i++) {
        rest += (uint64_t)_mm_popcnt_u64(words[i] ^ (words[i] << 1 | in));
        in = words[i] >> 63;
    }
    *carry = in;
    return rest + (uint64_t)_mm512_reduce_add_epi64(total);
}

static void runs_toggles(const uint16_t *runs, size_t n, uint64_t base, uint64_t *out)
{
    __m512i from = _mm512_add_epi64(_mm512_set1_epi64((long long)base),
                                    _mm512_set_epi64(1, 0, 1, 0, 1, 0, 1, 0));
    for (size_t i = 0; i < 2 * n; i += WIDTH) {
        size_t left = 2 * n - i;
        __mmask8 lanes = (__mmask8)(left < WIDTH ? (1u << left) - 1 : 0xffu);
        __m512i wide = _mm512_cvtepu16_epi64(_mm_maskz_loadu_epi16(lanes, runs + i));
        _mm512_mask_storeu_epi64(out + i, lanes, _mm512_add_epi64(wide, from));
    }
}

static void positions(const uint64_t *words, const uint16_t *places, size_t count, uint16_t *out)
{
    for (size_t i = 0; i < count; i++) {
        __m512i found = places_of(words[i]), from = _mm512_set1_epi16((short)places[i]);
        size_t n = (size_t)_mm_popcnt_u64(words[i]);
        __m512i low = _mm512_cvtepu8_epi16(_mm512_castsi512_si256(found));
        _mm512_storeu_si512(out, _mm512_add_epi16(low, from));
        if (n > 32) {
            __m512i high = _mm512_cvtepu8_epi16(_mm512_extracti64x4_epi64(found, 1));
            _mm512_storeu_si512(out + 32, _mm512_add_epi16(high, from));
        }
        out += n;
    }
}

static uint64_t move(const uint64_t *toggles, size_t n, uint64_t *out)
{
    __m512i sum = _mm512_setzero_si512();
    for (size_t i = 0; i < 2 * n; i += WIDTH) {
        size_t left = 2 * n - i;
        __mmask8 lanes = (__mmask8)(left < WIDTH ? (1u << left) - 1 : 0xffu);
        __m512i four = _mm512_maskz_loadu_epi64(lanes, toggles + i);
        _mm512_mask_storeu_epi64(out + i, lanes, four);
        sum = _mm512_add_epi64(sum, four);
    }
    return (uint64_t)_mm512_mask_reduce_add_epi64(0xaa, sum) -
           (uint64_t)_mm512_mask_reduce_add_epi64(0x55, sum);
}

static uint64_t popcount(const uint64_t *words, size_t count)
{
    __m512i total = _mm512_setzero_si512();
    uint64_t rest = 0;
    size_t i = 0;
    for (; i + WIDTH <= count; i += WIDTH)
        total = _mm512_add_epi64(total, _mm512_popcnt_epi64(load(words + i)));
    for (; i < count; i++)
        rest += (uint64_t)_mm_popcnt_u64(words[i]);
    return rest + (uint64_t)_mm512_reduce_add_epi64(total);
}

static inline __m512i vector_op(sp_op op, __m512i a, __m512i b)
{
    switch (op) {
    case SP_OR: return _mm512_or_si512(a, b);
    case SP_AND: return _mm512_and_si512(a, b);
    case SP_ANDNOT: return _mm512_andnot_si512(b, a);
    case SP_XOR: break;
    }
    return _mm512_xor_si512(a, b);
}

/* The loop of both combines; op and out are constants where it is inlined. */
static inline __attribute__((always_inline)) uint64_t combine_as(sp_op op, const uint64_t *a,
                                                                 const uint64_t *b, uint64_t *out,
                                                                 size_t count)
{
    __m512i total = _mm512_setzero_si512();
    for (size_t i = 0; i < count; i += WIDTH) {
        /* The last vector may be a part: what is beyond it is neither read nor written. */
        size_t left = count - i;
        __mmask8 lanes = (__mmask8)(left < WIDTH ? (1u << left) - 1 : 0xffu);
        __m512i x = vector_op(op, _mm512_maskz_loadu_epi64(lanes, a + i),
                              _mm512_maskz_loadu_epi64(lanes, b + i));
        if (out)
            _mm512_mask_storeu_epi64(out + i, lanes, x);
        total = _mm512_add_epi64(total, _mm512_popcnt_epi64(x));
    }
    return (uint64_t)_mm512_reduce_add_epi64(total);
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

const sp_kernels sp_kernels_avx512 = {
    .name = "avx512",
    .toggles = toggles,
    .toggles_count = toggles_count,
    .runs_toggles = runs_toggles,
    .positions = positions,
    .move = move,
    .popcount = popcount,
    .combine_count = combine_count,
    .combine = combine,
};
