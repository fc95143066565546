/*
 * enc_bitmap.c - KVM's encryption bitmap: changed by whole words, merged in one pass over words.
 */
#include <malloc.h>
#include <stdlib.h>
#include <string.h>

#include "split.h"

struct rival_enc {
    uint64_t *words; /* bit 1: private; bits past the guest's end too */
    size_t nwords;
};

rival_enc *rival_enc_new(uint64_t npages)
{
    rival_enc *enc = malloc(sizeof *enc);
    if (!enc)
        return NULL;
    enc->nwords = (size_t)((npages + 63) / 64);
    enc->words = malloc(enc->nwords * sizeof *enc->words);
    if (!enc->words) {
        free(enc);
        return NULL;
    }
    rival_enc_load(enc, NULL, 0);
    return enc;
}

void rival_enc_free(rival_enc *enc)
{
    free(enc->words);
    free(enc);
}

static inline void mark(uint64_t *word, uint64_t mask, bool shared)
{
    *word = shared ? *word & ~mask : *word | mask;
}

void rival_enc_convert(rival_enc *enc, uint64_t start, uint64_t stop, bool shared)
{
    if (start == stop)
        return;
    size_t first = start / 64, last = (stop - 1) / 64;
    unsigned from = start % 64, to = (unsigned)((stop - 1) % 64) + 1;
    if (first == last) {
        mark(&enc->words[first], bits_between(from, to), shared);
        return;
    }
    mark(&enc->words[first], bits_between(from, 64), shared);
    memset(enc->words + first + 1, shared ? 0 : 0xff, (last - first - 1) * sizeof *enc->words);
    mark(&enc->words[last], bits_between(0, to), shared);
}

void rival_enc_load(rival_enc *enc, const rival_range *ranges, size_t n)
{
    memset(enc->words, 0xff, enc->nwords * sizeof *enc->words);
    for (size_t i = 0; i < n; i++)
        rival_enc_convert(enc, ranges[i].start, ranges[i].stop, true);
}

void rival_enc_apply(rival_enc *enc, const rival_event *events, size_t n)
{
    for (size_t i = 0; i < n; i++) {
        const rival_event *e = &events[i];
        rival_enc_convert(enc, e->start, e->start + e->npages, e->shared);
    }
}

size_t rival_enc_bytes(const rival_enc *enc) { return malloc_usable_size(enc->words); }

static inline uint64_t shared_word(void *context, size_t word)
{
    const uint64_t *private = context;
    return ~private[word];
}

static inline bool line_is(void *context, size_t word, bool shared)
{
    const uint64_t *private = context;
    return is_flat(private + word, shared ? 0 : ~UINT64_C(0));
}

bool rival_enc_merge(const rival_enc *enc, const uint64_t *dirty, size_t nwords, rival_split *out)
{
    return split_words(dirty, nwords, shared_word, line_is, enc->words, out);
}
