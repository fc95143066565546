/*
 * support_check.h - the harness of the C tests: checks, test functions, random numbers.
 *
 * A test file calls RUN for each of its test functions and returns check_close() from main.  A
 * failed check prints where, what and the seed, and fails the test function that runs; it does not
 * end it, REQUIRE does.  Checks may be made on any thread.
 */
#ifndef SP_TESTS_SUPPORT_CHECK_H
#define SP_TESTS_SUPPORT_CHECK_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define CHECK(condition) check_that((condition), __FILE__, __LINE__, #condition)
/* Two integers, compared and printed as uint64_t. */
#define CHECK_EQ(got, want) \
    check_equal((uint64_t)(got), (uint64_t)(want), __FILE__, __LINE__, #got, #want)
#define CHECK_STR(got, want) check_text((got), (want), __FILE__, __LINE__, #got)
/* The answer of a validator: NULL, or the reason to print. */
#define CHECK_VALID(reason) check_text((reason), NULL, __FILE__, __LINE__, #reason)

/* The same, and leaves the calling void function where it fails. */
#define REQUIRE(condition) \
    do { \
        if (!CHECK(condition)) \
            return; \
    } while (0)
#define REQUIRE_EQ(got, want) \
    do { \
        if (!CHECK_EQ(got, want)) \
            return; \
    } while (0)

#define RUN(test) check_run(#test, test)

bool check_that(bool holds, const char *file, int line, const char *text);
bool check_equal(uint64_t got, uint64_t want, const char *file, int line, const char *got_text,
                 const char *want_text);
bool check_text(const char *got, const char *want, const char *file, int line, const char *text);

/* What failed checks are to print beside themselves: the case under way.  One for all threads;
 * check_run clears it. */
void check_case(const char *format, ...) __attribute__((format(printf, 1, 2)));

void check_run(const char *name, void (*test)(void));

/* True if a check of the running test function has failed: a reason to stop a long loop. */
bool check_failed(void);

/* Prints "N passed, N failed"; the exit status for main. */
int check_close(void);

/* n times SP_TEST_SCALE (1 without it), at least 1. */
uint64_t check_scaled(uint64_t n);

/* SP_TEST_SEED (1 without it). */
uint64_t check_seed(void);

/* Random numbers (splitmix64): the same sequence for the same seed and stream. */
typedef struct rng {
    uint64_t state;
} rng;

rng rng_open(uint64_t stream);
uint64_t rng_next(rng *r);
uint64_t rng_below(rng *r, uint64_t n);                    /* 0..n-1; n > 0 */
uint64_t rng_between(rng *r, uint64_t low, uint64_t high); /* low..high, both included */
bool rng_chance(rng *r, uint64_t one_in);                  /* true once in so many */

#endif
