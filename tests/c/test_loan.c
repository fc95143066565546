/* tier: unit
 *
 * test_loan.c - bitmaps that a log lends: what is in them when it is taken from, and when they end.
 */
#include "support_dirty.h"

#include <pthread.h>
#include <time.h>

static uint64_t first_word(const sp_harvest *harvest)
{
    const uint64_t *words = sp_harvest_words(harvest, 0);
    return words ? words[0] : 0;
}

static sp_bits *lend(dirty_bench *b)
{
    sp_bits *loan = NULL;
    CHECK_EQ(sp_log_lend(b->log, sp_memory_at(b->memory, 0), &loan), SP_OK);
    return loan;
}

/* Ended before the log is taken from, after that, or not even before the harvest has gone. */
static void several_loans_fold_into_one(void)
{
    enum { LOANS = 3 };
    for (unsigned order = 0; order < 27 * 2; order++) {
        dirty_bench b;
        sp_bits *loan[LOANS];
        unsigned when[LOANS] = {order % 3, order / 3 % 3, order / 9 % 3};
        check_case("order %u", order);
        dirty_open(&b, (sp_memslot[]){{100, 70, 0}}, 1);
        if (order >= 27)
            dirty_page(&b, 0, 60);
        for (unsigned i = 0; i < LOANS; i++) {
            loan[i] = lend(&b);
            CHECK_EQ(sp_loan_words(loan[i])[0], 0);
            CHECK_EQ(sp_loan_words(loan[i])[1], 0);
            sp_loan_words(loan[i])[0] = 1 | UINT64_C(2) << i;
            sp_loan_words(loan[i])[1] = ~UINT64_C(0) << (i + 3); /* most of it past the slot */
            CHECK_EQ(sp_log_bytes(b.log) + b.memory_bytes, alloc_bytes(&b.alloc));
        }
        for (unsigned i = 0; i < LOANS; i++)
            if (when[i] == 0)
                sp_loan_end(loan[i]);
        dirty_page(&b, 0, 61);
        sp_harvest *harvest = dirty_take(&b);
        CHECK_EQ(first_word(harvest), 15 | UINT64_C(1) << 61 | (uint64_t)(order >= 27) << 60);
        CHECK_EQ(sp_harvest_words(harvest, 0)[1], 0x38);
        for (unsigned i = 0; i < LOANS; i++)
            if (when[i] == 1)
                sp_loan_end(loan[i]);
        sp_harvest_release(harvest);
        sp_log_free(b.log);
        b.log = NULL;
        for (unsigned i = 0; i < LOANS; i++)
            if (when[i] == 2)
                sp_loan_end(loan[i]);
        dirty_close(&b);
    }
}

/* A borrower that writes late loses its pages; it does not change what was taken. */
static void a_harvest_is_not_lent(void)
{
    dirty_bench b;
    dirty_open(&b, (sp_memslot[]){{100, 70, 0}}, 1);
    sp_bits *early = lend(&b), *late = lend(&b);
    sp_loan_words(early)[0] = 1;
    sp_loan_words(late)[0] = 2;
    sp_harvest *harvest = dirty_take(&b);
    sp_loan_words(early)[0] = sp_loan_words(late)[0] = ~UINT64_C(0);
    sp_loan_words(early)[1] = sp_loan_words(late)[1] = ~UINT64_C(0);
    CHECK_EQ(first_word(harvest), 3);
    CHECK_EQ(sp_harvest_words(harvest, 0)[1], 0);
    sp_harvest *next = dirty_take(&b);
    CHECK(!sp_harvest_words(next, 0));
    sp_harvest_release(next);
    sp_loan_end(early);
    sp_loan_end(late);
    CHECK_EQ(first_word(harvest), 3);
    sp_harvest_release(harvest);
    dirty_close(&b);
}

static void a_loan_that_ended_is_the_log_s(void)
{
    dirty_bench b;
    dirty_open(&b, (sp_memslot[]){{100, 70, 0}}, 1);
    sp_bits *loan = lend(&b);
    sp_loan_words(loan)[0] = 1;
    uint64_t lent = sp_log_bytes(b.log);
    dirty_page(&b, 0, 1); /* into a bitmap beside the one that is lent */
    uint64_t both = sp_log_bytes(b.log);
    CHECK(both > lent);
    sp_loan_end(loan);
    loan = lend(&b);
    sp_loan_words(loan)[0] = 4;
    sp_loan_end(loan);
    dirty_page(&b, 0, 3); /* into any of the three */
    CHECK_EQ(sp_log_bytes(b.log), both + (both - lent));
    sp_harvest *harvest = dirty_take(&b);
    CHECK_EQ(first_word(harvest), 15);
    CHECK_EQ(sp_log_bytes(b.log), lent - (both - lent)); /* that of an empty one */
    sp_harvest_release(harvest);
    dirty_close(&b);
}

enum { LISTED = 100, TRIES = 20 };

/* A borrower that writes, and settles, at the very time when another thread drops its slot. */
static struct {
    dirty_bench b;
    sp_memslot slot;
    sp_bits *loan;
    void (*free)(void *context, void *block, size_t bytes);
    pthread_t thread;
    bool has_begun;
    _Atomic uint64_t is_done;
} late;

static void *write_late(void *nothing)
{
    sp_loan_words(late.loan)[0] |= 4;
    CHECK_EQ(sp_log_settle(late.b.log, &late.slot, late.loan), SP_OK);
    sp_store(&late.is_done, 1, release); /* pairs with free_old: shows nothing but itself */
    return nothing;
}

/* The list of the old slots' harvest goes: what it held was moved, and its loans are let go of. */
static void free_old(void *context, void *block, size_t bytes)
{
    if (bytes == LISTED * sizeof(uint64_t) && !late.has_begun) {
        late.has_begun = true;
        REQUIRE(pthread_create(&late.thread, NULL, write_late, NULL) == 0);
        for (unsigned i = 0; i < TRIES && !sp_load(&late.is_done, acquire); i++)
            nanosleep(&(struct timespec){0, 1000000}, NULL);
    }
    late.free(context, block, bytes);
}

static void what_is_settled_while_its_slot_goes_is_seen(void)
{
    sp_memslot slots[] = {{0, 1000, 0}, {100, 70, 1u << 16}};
    sp_memory *fewer;
    uint64_t gfns[LISTED];
    size_t bad, other;
    dirty_open(&late.b, slots, 2);
    CHECK_EQ(sp_memory_new(&late.b.alloc.hook, &sp_engine_roaring, slots, 1, &fewer, &bad, &other),
             SP_OK);
    for (size_t i = 0; i < LISTED; i++)
        gfns[i] = 200 + 2 * i;
    CHECK_EQ(sp_log_add_pages(late.b.log, gfns, LISTED, &bad), SP_OK);
    late.slot = slots[1];
    CHECK_EQ(sp_log_lend(late.b.log, &late.slot, &late.loan), SP_OK);
    late.free = late.b.alloc.hook.free;
    late.b.alloc.hook.free = free_old;
    CHECK_EQ(sp_log_set_memory(&late.b.log, 1, fewer), SP_OK);
    REQUIRE(late.has_begun);
    pthread_join(late.thread, NULL);
    sp_harvest *harvest = dirty_take(&late.b);
    CHECK_EQ(sp_harvest_words(harvest, 0) ? sp_harvest_words(harvest, 0)[102 / 64] : 0,
             UINT64_C(1) << 102 % 64);
    sp_harvest_release(harvest);
    sp_loan_end(late.loan);
    sp_memory_release(fewer);
    dirty_close(&late.b);
}

int main(void)
{
    RUN(several_loans_fold_into_one);
    RUN(a_harvest_is_not_lent);
    RUN(a_loan_that_ended_is_the_log_s);
    RUN(what_is_settled_while_its_slot_goes_is_seen);
    return check_close();
}
