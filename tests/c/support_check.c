/*
 * support_check.c - counting and printing what the checks find.
 */
#include "support_check.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/atomics.h"

/* A loop that fails usually fails often; the first few say enough. */
#define MAX_PRINTED 8

static _Atomic uint64_t failures; /* of the running test function */
static unsigned passed, failed;   /* test functions, by the main thread */
static const char *running = "";
static char about[256];

static bool fail(const char *file, int line)
{
    uint64_t nth = sp_add(&failures, 1, relaxed);
    if (nth >= MAX_PRINTED)
        return false;
    const char *slash = strrchr(file, '/');
    fprintf(stderr, "%s:%d: %s (SP_TEST_SEED=%llu)%s%s\n    ", slash ? slash + 1 : file, line,
            running, (unsigned long long)check_seed(), *about ? ": " : "", about);
    return true;
}

bool check_that(bool holds, const char *file, int line, const char *text)
{
    if (!holds && fail(file, line))
        fprintf(stderr, "not true: %s\n", text);
    return holds;
}

bool check_equal(uint64_t got, uint64_t want, const char *file, int line, const char *got_text,
                 const char *want_text)
{
    if (got != want && fail(file, line))
        fprintf(stderr, "%s is %lld (0x%llx), %s is %lld (0x%llx)\n", got_text, (long long)got,
                (unsigned long long)got, want_text, (long long)want, (unsigned long long)want);
    return got == want;
}

bool check_text(const char *got, const char *want, const char *file, int line, const char *text)
{
    bool same = got && want ? strcmp(got, want) == 0 : got == want;
    if (!same && fail(file, line))
        fprintf(stderr, "%s is \"%s\", not \"%s\"\n", text, got ? got : "(null)",
                want ? want : "(null)");
    return same;
}

void check_case(const char *format, ...)
{
    va_list arguments;
    va_start(arguments, format);
    vsnprintf(about, sizeof about, format, arguments);
    va_end(arguments);
}

bool check_failed(void) { return sp_load(&failures, relaxed) != 0; }

void check_run(const char *name, void (*test)(void))
{
    running = name;
    about[0] = 0;
    sp_store(&failures, 0, relaxed);
    test();
    uint64_t found = sp_load(&failures, relaxed);
    if (found > MAX_PRINTED)
        fprintf(stderr, "%s: %llu failed checks in all\n", name, (unsigned long long)found);
    if (found)
        failed++;
    else
        passed++;
}

int check_close(void)
{
    printf("%u passed, %u failed\n", passed, failed);
    return failed ? EXIT_FAILURE : EXIT_SUCCESS;
}

uint64_t check_scaled(uint64_t n)
{
    const char *text = getenv("SP_TEST_SCALE");
    double scaled = (double)n * (text ? strtod(text, NULL) : 1.0);
    return scaled < 1 ? 1 : (uint64_t)scaled;
}

uint64_t check_seed(void)
{
    const char *text = getenv("SP_TEST_SEED");
    return text ? strtoull(text, NULL, 0) : 1;
}

rng rng_open(uint64_t stream)
{
    rng r = {check_seed() * UINT64_C(0x9e3779b97f4a7c15) + stream};
    r.state = rng_next(&r);
    return r;
}

uint64_t rng_next(rng *r)
{
    uint64_t z = r->state += UINT64_C(0x9e3779b97f4a7c15);
    z = (z ^ (z >> 30)) * UINT64_C(0xbf58476d1ce4e5b9);
    z = (z ^ (z >> 27)) * UINT64_C(0x94d049bb133111eb);
    return z ^ (z >> 31);
}

uint64_t rng_below(rng *r, uint64_t n) { return rng_next(r) % n; }

uint64_t rng_between(rng *r, uint64_t low, uint64_t high)
{
    return low + rng_below(r, high - low + 1);
}

bool rng_chance(rng *r, uint64_t one_in) { return rng_below(r, one_in) == 0; }
