/* tier: model
 *
 * test_sort.c - sorting ranges by their start, and words by some of their bits, against insertion
 * into a sorted list.
 *
 * The stop of a range is its place in the list as given: the sort keeps ranges of one start in
 * their order.  So do the bits of a word that it is not sorted by.
 */
#include <string.h>

#include "base/sort.h"
#include "support_check.h"
#include "support_guard.h"

enum { MOST = 700, TEXTURES = 12 };

static uint64_t start_of(rng *r, unsigned texture, size_t i, size_t n)
{
    static const unsigned shifts[] = {0, 11, 22, 33, 44, 55};
    switch (texture) {
    case 0: return rng_next(r);
    case 1: return rng_below(r, SP_GFN_LIMIT + 1);
    case 2: return i;
    case 3: return n - i;
    case 4: return 77;
    case 5: return rng_below(r, 2) ? UINT64_MAX : 0;
    case 6: return UINT64_C(1) << rng_below(r, 64);
    case 7: return i % 10;
    case 8: return rng_below(r, 2048) << shifts[n % 6]; /* one digit differs */
    case 9: return (rng_below(r, 2) << 51) + (rng_below(r, 2) << 30) + 5;
    case 10: return i == n - 1 ? 0 : 1000 + i; /* one step down, the last */
    default: return i / 3 * 4096;
    }
}

static void insert(sp_range *sorted, size_t n, sp_range range)
{
    size_t at = n;
    for (; at && sorted[at - 1].start > range.start; at--)
        sorted[at] = sorted[at - 1];
    sorted[at] = range;
}

/* Both arrays end at a guard, then begin at one. */
static void check_sort(rng *r, guarded list, guarded room, unsigned texture, size_t n, int at_end)
{
    static sp_range want[MOST];
    sp_range *a = guarded_place(list, n * sizeof *a, at_end);
    sp_range *b = guarded_place(room, n * sizeof *b, at_end);
    for (size_t i = 0; i < n; i++) {
        a[i] = (sp_range){start_of(r, texture, i, n), i};
        insert(want, i, a[i]);
    }
    sp_sort_ranges(a, b, n);
    CHECK(memcmp(a, want, n * sizeof *a) == 0);
}

static void lists_of_every_texture(void)
{
    guarded list = guarded_open(MOST * sizeof(sp_range));
    guarded room = guarded_open(MOST * sizeof(sp_range));
    rng r = rng_open(1);
    for (unsigned texture = 0; texture < TEXTURES && !check_failed(); texture++)
        for (size_t n = 0; n < MOST; n += n < 40 ? 1 : 1 + rng_below(&r, 60)) {
            check_case("texture %u, %zu ranges", texture, n);
            check_sort(&r, list, room, texture, n, n & 1);
        }
    guarded_close(list);
    guarded_close(room);
}

/* By hand: what an interval loses if starts are compared as signed, or by their low words. */
static void starts_are_unsigned_64_bit_numbers(void)
{
    sp_range list[] = {
        {UINT64_C(1) << 63, 0}, {UINT32_MAX, 1}, {UINT64_C(1) << 32, 2}, {1, 3}, {UINT64_MAX, 4}};
    static const uint64_t order[] = {3, 1, 2, 0, 4};
    sp_range room[5];
    sp_sort_ranges(list, room, 5);
    for (size_t i = 0; i < 5; i++)
        CHECK_EQ(list[i].stop, order[i]);
}

/* ---- words ---- */

enum { MOST_WORDS = 3000 };

static void insert_word(uint64_t *sorted, size_t n, uint64_t word, uint64_t mask)
{
    size_t low = 0, high = n;
    while (low < high) {
        size_t middle = low + (high - low) / 2;
        if ((sorted[middle] & mask) <= (word & mask))
            low = middle + 1;
        else
            high = middle;
    }
    memmove(sorted + low + 1, sorted + low, (n - low) * sizeof *sorted);
    sorted[low] = word;
}

static void check_words(rng *r, guarded list, guarded room, unsigned texture, size_t n)
{
    static uint64_t want[MOST_WORDS];
    unsigned low = (unsigned)rng_below(r, 64), high = low + 1 + (unsigned)rng_below(r, 64 - low);
    if (rng_chance(r, 2))
        low = 6, high = 52;
    uint64_t mask = ~UINT64_C(0) << low & ~UINT64_C(0) >> (64 - high);
    uint64_t *a = guarded_place(list, n * sizeof *a, n & 1);
    uint64_t *b = guarded_place(room, n * sizeof *b, n & 1);
    check_case("texture %u, %zu words by bits [%u, %u)", texture, n, low, high);
    for (size_t i = 0; i < n; i++) {
        a[i] = start_of(r, texture, i, n) ^ (rng_chance(r, 3) ? rng_next(r) & ~mask : 0);
        insert_word(want, i, a[i], mask);
    }
    sp_sort_words(a, b, n, low, high);
    CHECK(memcmp(a, want, n * sizeof *a) == 0);
}

static void words_of_every_texture(void)
{
    guarded list = guarded_open(MOST_WORDS * sizeof(uint64_t));
    guarded room = guarded_open(MOST_WORDS * sizeof(uint64_t));
    rng r = rng_open(2);
    for (unsigned texture = 0; texture < TEXTURES && !check_failed(); texture++)
        for (size_t n = 0; n < MOST_WORDS; n += n < 40 ? 1 : 1 + rng_below(&r, 300))
            check_words(&r, list, room, texture, n);
    guarded_close(list);
    guarded_close(room);
}

/* By hand: bits 0..3 and 60..63 do not count, and keep words of one middle in their order. */
static void only_the_bits_asked_for_count(void)
{
    uint64_t words[] = {0xf0000000000000a1, 0x00000000000000ff, 0x00000000000000a0, 0x01}, room[4];
    sp_sort_words(words, room, 4, 4, 60);
    CHECK_EQ(words[0], 0x01);
    CHECK_EQ(words[1], 0xf0000000000000a1);
    CHECK_EQ(words[2], 0xa0);
    CHECK_EQ(words[3], 0xff);
}

int main(void)
{
    RUN(lists_of_every_texture);
    RUN(starts_are_unsigned_64_bit_numbers);
    RUN(words_of_every_texture);
    RUN(only_the_bits_asked_for_count);
    return check_close();
}
