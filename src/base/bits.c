/*
 * bits.c - copying bitmaps from any bit offset of any address.  Floor 0.
 */
#include "base/bits.h"

#include <string.h>

void sp_bits_copy(const void *bitmap, uint64_t from, uint64_t npages, uint64_t *words)
{
    const uint8_t *bytes = (const uint8_t *)bitmap + (from >> 3);
    unsigned shift = from & 7;
    uint64_t nwords = (npages + 63) / 64;
    if (!nwords)
        return;
    size_t held = (size_t)((shift + npages + 7) / 8); /* bytes that hold the bits */
    size_t plain = (size_t)sp_min(held, nwords * 8);
    words[nwords - 1] = 0;
    memcpy(words, bytes, plain);
    if (shift) {
        for (uint64_t w = 0; w + 1 < nwords; w++)
            words[w] = words[w] >> shift | words[w + 1] << (64 - shift);
        words[nwords - 1] >>= shift;
        if (held > plain)
            words[nwords - 1] |= (uint64_t)bytes[plain] << (64 - shift);
    }
    if (npages & 63)
        words[nwords - 1] &= sp_mask(0, (unsigned)(npages & 63) - 1);
}

void sp_bits_or(const void *bitmap, uint64_t from, uint64_t npages, uint64_t *words, uint64_t to)
{
    uint64_t chunk[1024], shift = to & 63;
    for (uint64_t at = 0; at < npages;) {
        uint64_t n = sp_min(npages - at, sizeof chunk * 8);
        uint64_t *into = words + (to + at) / 64, nwords = (n + 63) / 64;
        sp_bits_copy(bitmap, from + at, n, chunk);
        for (uint64_t w = 0; !shift && w < nwords; w++)
            into[w] |= chunk[w];
        for (uint64_t w = 0; shift && w < nwords; w++) {
            into[w] |= chunk[w] << shift;
            if (chunk[w] >> (64 - shift))
                into[w + 1] |= chunk[w] >> (64 - shift);
        }
        at += n;
    }
}
