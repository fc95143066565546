/* tier: differential */
/*
 * Every kernel table of this CPU, the scalar one too, against loops over single bits: all lengths
 * up to 70 words and some about the batches of the tables, both carries, every room, guard pages on
 * both sides of input and output.
 */
#include <string.h>

#include "base/bits.h"
#include "kernels/kernels.h"
#include "support_check.h"
#include "support_guard.h"

enum { MAX_WORDS = 70, LONG_WORDS = 600, MAX_TOGGLES = LONG_WORDS * 64, PATTERNS = 9 };

static bool bit_of(const uint64_t *words, uint64_t i) { return words[i / 64] >> (i % 64) & 1; }

static uint64_t slow_toggles(const uint64_t *words, size_t count, uint64_t base, uint64_t *carry,
                             uint64_t *out)
{
    uint64_t n = 0;
    for (uint64_t i = 0; i < count * 64; i++) {
        if (bit_of(words, i) != *carry)
            out[n++] = base + i;
        *carry = bit_of(words, i);
    }
    return n;
}

static bool slow_truth(sp_op op, bool a, bool b)
{
    return op == SP_OR ? a || b : op == SP_AND ? a && b : op == SP_ANDNOT ? a && !b : a != b;
}

/* Words of many textures; 8 changes texture from word to word. */
static void paint(rng *r, unsigned pattern, uint64_t *words, size_t count)
{
    for (size_t i = 0; i < count; i++) {
        uint64_t a = rng_next(r), b = rng_next(r), c = rng_next(r);
        switch (pattern == 8 ? rng_below(r, 8) : pattern) {
        case 0: words[i] = 0; break;
        case 1: words[i] = ~UINT64_C(0); break;
        case 2: words[i] = UINT64_C(0x5555555555555555); break;
        case 3: words[i] = UINT64_C(0xaaaaaaaaaaaaaaaa); break;
        case 4: words[i] = a; break;
        case 5: words[i] = a & b & c; break;
        case 6: words[i] = a | b | c; break;
        default: words[i] = rng_chance(r, 8) ? UINT64_C(1) << (a & 63) : 0 - (uint64_t)(b & 1);
        }
    }
}

/* One call of toggles with the output ending at a guard page. */
static void check_toggles(const sp_kernels *k, const uint64_t *words, size_t count, uint64_t carry,
                          size_t used, size_t room, guarded output)
{
    uint64_t want[MAX_TOGGLES], base = (UINT64_C(1) << 51) + 64 * count;
    uint64_t *out = guarded_place(output, room * sizeof *out, 1);
    memset(out, 0xee, room * sizeof *out);
    size_t now = used;
    uint64_t got_carry = carry, want_carry = carry;
    size_t words_read = k->toggles(words, count, base, &got_carry, out, &now, room);
    CHECK(words_read <= count);
    CHECK(words_read == count || room - now < SP_TOGGLES_ROOM);
    uint64_t n = slow_toggles(words, words_read, base, &want_carry, want);
    CHECK_EQ(got_carry, want_carry);
    REQUIRE_EQ(now - used, n);
    CHECK(memcmp(out + used, want, n * sizeof *want) == 0);
    for (size_t i = 0; i < room; i++)
        if (i < used || i >= now + 64)
            CHECK_EQ(out[i], UINT64_C(0xeeeeeeeeeeeeeeee));
}

/* All of it in many calls, each with little room. */
static void check_resumed(const sp_kernels *k, const uint64_t *words, size_t count, uint64_t carry,
                          size_t room)
{
    uint64_t want[MAX_TOGGLES], out[MAX_TOGGLES + SP_TOGGLES_ROOM];
    uint64_t want_carry = carry;
    uint64_t n = slow_toggles(words, count, 0, &want_carry, want), at = 0;
    for (size_t i = 0; i < count;) {
        size_t used = 0, done = k->toggles(words + i, count - i, i * 64, &carry, out, &used, room);
        REQUIRE(done > 0 && at + used <= n);
        CHECK(memcmp(out, want + at, used * sizeof *want) == 0);
        at += used;
        i += done;
    }
    CHECK_EQ(at, n);
    CHECK_EQ(carry, want_carry);
}

static void each_toggles(const sp_kernels *k, const uint64_t *words, size_t count, uint64_t carry,
                         guarded output)
{
    static const size_t rooms[] = {0,   1,   64,  127, 128,  129,  191,
                                   192, 200, 256, 300, 1000, 4480, MAX_TOGGLES + SP_TOGGLES_ROOM};
    for (size_t i = 0; i < sizeof rooms / sizeof *rooms; i++) {
        check_toggles(k, words, count, carry, 0, rooms[i], output);
        check_toggles(k, words, count, carry, rooms[i] / 3, rooms[i], output);
    }
    check_resumed(k, words, count, carry, SP_TOGGLES_ROOM);
    check_resumed(k, words, count, carry, SP_TOGGLES_ROOM + 65);
}

static void each_count(const sp_kernels *k, const uint64_t *words, size_t count, uint64_t carry)
{
    uint64_t unused[MAX_TOGGLES], set = 0, want_carry = carry;
    uint64_t want = slow_toggles(words, count, 0, &want_carry, unused);
    CHECK_EQ(k->toggles_count(words, count, &carry), want);
    CHECK_EQ(carry, want_carry);
    for (uint64_t i = 0; i < count * 64; i++)
        set += bit_of(words, i);
    CHECK_EQ(k->popcount(words, count), set);
}

static void each_table(void (*test)(const sp_kernels *k))
{
    for (size_t i = 0; sp_kernels_at(i); i++)
        test(sp_kernels_at(i));
}

static void lists_of_length(const sp_kernels *k, rng *r, size_t count, guarded input,
                            guarded output)
{
    for (unsigned pattern = 0; pattern < PATTERNS; pattern++)
        for (unsigned variant = 0; variant < 4; variant++) {
            check_case("%s, %zu words, pattern %u, variant %u", k->name, count, pattern, variant);
            uint64_t *words = guarded_place(input, count * 8, variant & 1);
            paint(r, pattern, words, count);
            each_toggles(k, words, count, variant >> 1, output);
            each_count(k, words, count, variant >> 1);
        }
}

static void lists_of(const sp_kernels *k)
{
    static const size_t lengths[] = {255, 256, 257, 287, 288, 289, 511, 512, 513, LONG_WORDS};
    rng r = rng_open(1);
    guarded input = guarded_open(LONG_WORDS * 8), output = guarded_open((MAX_TOGGLES + 128) * 8);
    for (size_t count = 0; count <= MAX_WORDS && !check_failed(); count++)
        lists_of_length(k, &r, count, input, output);
    for (size_t i = 0; i < sizeof lengths / sizeof *lengths && !check_failed(); i++)
        lists_of_length(k, &r, lengths[i], input, output);
    guarded_close(input);
    guarded_close(output);
}

static void toggles_match_single_bits(void) { each_table(lists_of); }

/* An input that starts anywhere in a cache line. */
static void offsets_of(const sp_kernels *k)
{
    rng r = rng_open(2);
    guarded output = guarded_open((MAX_TOGGLES + 128) * 8);
    uint64_t words[MAX_WORDS];
    for (size_t offset = 0; offset < 16; offset++)
        for (unsigned pattern = 0; pattern < PATTERNS; pattern++) {
            check_case("%s, offset %zu, pattern %u", k->name, offset, pattern);
            paint(&r, pattern, words, MAX_WORDS);
            check_toggles(k, words + offset, MAX_WORDS - offset, pattern & 1, 3, 4500, output);
            each_count(k, words + offset, MAX_WORDS - offset, pattern & 1);
        }
    guarded_close(output);
}

static void toggles_match_at_every_offset(void) { each_table(offsets_of); }

/* The single flip of an otherwise uniform bitmap, at every place. */
static void flips_of(const sp_kernels *k)
{
    enum { WORDS = 18 };
    uint64_t words[WORDS], out[256];
    for (unsigned fill = 0; fill < 2; fill++)
        for (uint64_t bit = 0; bit < WORDS * 64; bit++) {
            check_case("%s, fill %u, bit %d", k->name, fill, (int)bit);
            memset(words, fill ? 0xff : 0, sizeof words);
            words[bit / 64] ^= UINT64_C(1) << (bit % 64);
            uint64_t carry = fill;
            size_t used = 0;
            CHECK_EQ(k->toggles(words, WORDS, 1000, &carry, out, &used, 256), WORDS);
            CHECK_EQ(out[0], 1000 + bit);
            if (bit < WORDS * 64 - 1) {
                CHECK_EQ(used, 2);
                CHECK_EQ(out[1], 1001 + bit);
                CHECK_EQ(carry, fill);
            } else {
                CHECK_EQ(used, 1);
                CHECK_EQ(carry, !fill);
            }
        }
}

static void a_single_flip_is_found_everywhere(void) { each_table(flips_of); }

/* Every number of ranges, at both ends of guarded memory. */
static void moves_of(const sp_kernels *k)
{
    enum { MOST = 70 };
    rng r = rng_open(4);
    guarded input = guarded_open(MOST * 16), output = guarded_open(MOST * 16);
    for (size_t n = 0; n <= MOST && !check_failed(); n++)
        for (int at_end = 0; at_end < 2; at_end++) {
            check_case("%s, %zu ranges", k->name, n);
            uint64_t *toggles = guarded_place(input, n * 16, at_end);
            uint64_t *out = guarded_place(output, n * 16, at_end);
            uint64_t at = 0, pages = 0;
            for (size_t i = 0; i < 2 * n; i++) {
                uint64_t step = rng_between(&r, 1, UINT64_C(1) << (n % 45));
                toggles[i] = at += step;
                pages += i & 1 ? step : 0;
            }
            CHECK_EQ(k->move(toggles, n, out), pages);
            CHECK(memcmp(out, toggles, n * 16) == 0);
        }
    guarded_close(input);
    guarded_close(output);
}

static void moved_ranges_are_counted(void) { each_table(moves_of); }

/* ---- positions ---- */

enum { SLACK = 64, PLACES = 1024 };

/* One call with a guard page after the entries that may be written. */
static void check_positions(const sp_kernels *k, const uint64_t *words, const uint16_t *places,
                            size_t count, guarded output)
{
    static uint16_t want[MAX_TOGGLES];
    size_t n = 0;
    for (uint64_t i = 0; i < count * 64; i++)
        if (bit_of(words, i))
            want[n++] = (uint16_t)(places[i / 64] + i % 64);
    uint16_t *out = guarded_place(output, (n + SLACK) * sizeof *out, 1);
    out[-1] = 0xeeee;
    k->positions(words, places, count, out);
    CHECK(memcmp(out, want, n * sizeof *want) == 0);
    CHECK_EQ(out[-1], 0xeeee);
}

/* Ascending places: neighbours from 0 on, neighbours up to the last one, or with holes. */
static void choose_places(rng *r, unsigned texture, uint16_t *places, size_t count)
{
    uint64_t at = texture == 1 ? PLACES - count : 0;
    for (size_t i = 0; i < count; i++, at++) {
        if (texture == 2)
            at += rng_below(r, (PLACES - at) / (count - i));
        places[i] = (uint16_t)(at * 64);
    }
}

static void positions_of(const sp_kernels *k)
{
    rng r = rng_open(4);
    guarded input = guarded_open(MAX_WORDS * 8), beside = guarded_open(MAX_WORDS * 2);
    guarded output = guarded_open((1 + MAX_TOGGLES + SLACK) * 2);
    for (size_t count = 0; count <= MAX_WORDS && !check_failed(); count++)
        for (unsigned pattern = 0; pattern < PATTERNS; pattern++)
            for (unsigned variant = 0; variant < 6; variant++) {
                check_case("%s, %zu words, pattern %u, variant %u", k->name, count, pattern,
                           variant);
                uint64_t *words = guarded_place(input, count * 8, variant & 1);
                uint16_t *places = guarded_place(beside, count * 2, variant & 1);
                paint(&r, pattern, words, count);
                choose_places(&r, variant >> 1, places, count);
                check_positions(k, words, places, count, output);
            }
    guarded_close(input);
    guarded_close(beside);
    guarded_close(output);
}

static void positions_match_single_bits(void) { each_table(positions_of); }

/* A word with just so many bits: the lowest, the highest, or any. */
static uint64_t word_of(rng *r, unsigned bits, unsigned texture)
{
    uint64_t low = bits == 64 ? ~UINT64_C(0) : (UINT64_C(1) << bits) - 1, word = 0;
    if (texture < 2 || !bits)
        return texture == 1 && bits ? low << (64 - bits) : low;
    while (sp_popcount(word) < bits)
        word |= UINT64_C(1) << rng_below(r, 64);
    return word;
}

/* A word alone, and before a full one, of every density at every place. */
static void densities_of(const sp_kernels *k)
{
    rng r = rng_open(5);
    guarded output = guarded_open((1 + MAX_TOGGLES + SLACK) * 2);
    for (unsigned at = 0; at < PLACES && !check_failed(); at++)
        for (unsigned bits = 0; bits <= 64; bits++) {
            uint64_t words[] = {word_of(&r, bits, (at + bits) % 3), ~UINT64_C(0)};
            uint16_t places[] = {(uint16_t)(at * 64), (uint16_t)((PLACES - 1) * 64)};
            check_case("%s, %u bits at place %u", k->name, bits, at);
            check_positions(k, words, places, 1, output);
            check_positions(k, words, places, at + 1 < PLACES ? 2 : 1, output);
        }
    guarded_close(output);
}

static void positions_match_at_every_density(void) { each_table(densities_of); }

static void combines_of(const sp_kernels *k)
{
    rng r = rng_open(3);
    guarded ga = guarded_open(MAX_WORDS * 8), gb = guarded_open(MAX_WORDS * 8);
    guarded gout = guarded_open(MAX_WORDS * 8);
    for (size_t count = 0; count <= MAX_WORDS && !check_failed(); count++)
        for (unsigned variant = 0; variant < 4 * 2 * 3; variant++) {
            sp_op op = (sp_op)(variant & 3);
            int at_end = variant >> 2 & 1;
            unsigned place = variant >> 3; /* of the output: apart, a, b */
            check_case("%s, %zu words, op %d, output %u", k->name, count, (int)op, place);
            uint64_t *a = guarded_place(ga, count * 8, at_end);
            uint64_t *b = guarded_place(gb, count * 8, at_end);
            uint64_t *apart = guarded_place(gout, count * 8, at_end);
            uint64_t *out = place == 0 ? apart : place == 1 ? a : b;
            uint64_t want[MAX_WORDS] = {0}, set = 0;
            paint(&r, 8, a, count);
            paint(&r, 8, b, count);
            for (uint64_t i = 0; i < count * 64; i++) {
                bool in = slow_truth(op, bit_of(a, i), bit_of(b, i));
                want[i / 64] |= (uint64_t)in << (i % 64);
                set += in;
            }
            CHECK_EQ(k->combine_count(op, a, b, count), set);
            CHECK_EQ(k->combine(op, a, b, out, count), set);
            CHECK(memcmp(out, want, count * 8) == 0);
        }
    guarded_close(ga);
    guarded_close(gb);
    guarded_close(gout);
}

static void combine_matches_single_bits(void) { each_table(combines_of); }

static void tables_are_found_by_name(void)
{
    CHECK_STR(sp_kernels_at(0)->name, "scalar");
    CHECK(sp_kernels_find("no such table") == NULL);
#ifdef __aarch64__
    CHECK(sp_kernels_find("neon") != NULL);
#endif
    for (size_t i = 0; sp_kernels_at(i); i++) {
        const sp_kernels *table = sp_kernels_at(i);
        CHECK(sp_kernels_find(table->name) == table);
        sp_kernels_use(table);
        CHECK(sp_kernels_active() == table);
    }
}

static void the_fastest_table_is_the_default(void)
{
    size_t last = 0;
    while (sp_kernels_at(last + 1))
        last++;
    CHECK(sp_kernels_active() == sp_kernels_at(last));
}

int main(void)
{
    RUN(the_fastest_table_is_the_default);
    RUN(tables_are_found_by_name);
    RUN(toggles_match_single_bits);
    RUN(toggles_match_at_every_offset);
    RUN(a_single_flip_is_found_everywhere);
    RUN(moved_ranges_are_counted);
    RUN(positions_match_single_bits);
    RUN(positions_match_at_every_density);
    RUN(combine_matches_single_bits);
    return check_close();
}
