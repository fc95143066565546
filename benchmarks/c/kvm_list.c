/*
 * kvm_list.c - the merge with KVM's list, done as well as it can be.
 *
 * What KVM_GET_SHARED_PAGES_LIST hands out is a sorted array.  The sweep reads the dirty bitmap
 * once and moves through the array only where a word is dirty, by doubling steps: neither many
 * regions nor many dirty pages make it read what the other side does not touch.
 */
#include <stdlib.h>

#include "split.h"

/* Ends of the regions, start and stop in turn; those before `at` end before the words to come. */
typedef struct sweep {
    const uint64_t *gfns;
    size_t at, n;
} sweep;

/* Moves to the first region that ends past gfn. */
static void advance(sweep *s, uint64_t gfn)
{
    size_t low = s->at, step = 2;
    if (low >= s->n || s->gfns[low + 1] > gfn)
        return;
    while (step < s->n - low && s->gfns[low + step + 1] <= gfn) {
        low += step;
        step *= 2;
    }
    /* The region at low ends too early; the one step further does not, or is past the last. */
    size_t high = step < s->n - low ? low + step : s->n;
    while (high - low > 2) {
        size_t middle = low + (high - low) / 4 * 2;
        if (s->gfns[middle + 1] <= gfn)
            low = middle;
        else
            high = middle;
    }
    s->at = high;
}

static inline uint64_t shared_word(void *context, size_t word)
{
    sweep *s = context;
    uint64_t base = word * 64, shared = 0;
    advance(s, base);
    for (size_t i = s->at; i < s->n && s->gfns[i] < base + 64; i += 2) {
        unsigned first = s->gfns[i] > base ? (unsigned)(s->gfns[i] - base) : 0;
        unsigned stop = s->gfns[i + 1] < base + 64 ? (unsigned)(s->gfns[i + 1] - base) : 64;
        shared |= bits_between(first, stop);
    }
    return shared;
}

static inline bool line_is(void *context, size_t word, bool shared)
{
    sweep *s = context;
    uint64_t base = word * 64, end = base + WORDS_OF_LINE * 64;
    advance(s, base);
    if (s->at == s->n || s->gfns[s->at] >= end)
        return !shared;
    return shared && s->gfns[s->at] <= base && s->gfns[s->at + 1] >= end;
}

bool rival_kvm_merge(const rival_list *list, const uint64_t *dirty, size_t nwords, rival_split *out)
{
    rival_ranges regions = {0};
    bool done = rival_list_export(list, &regions);
    if (done) {
        sweep s = {.gfns = regions.gfns, .n = regions.n};
        done = split_words(dirty, nwords, shared_word, line_is, &s, out);
    }
    free(regions.gfns);
    return done;
}
