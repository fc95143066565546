/* tier: unit
 *
 * test_loan.c - bitmaps that a log lends: what is in them when it is taken from, and when they end.
 */
#include "support_dirty.h"

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

int main(void)
{
    RUN(several_loans_fold_into_one);
    RUN(a_harvest_is_not_lent);
    RUN(a_loan_that_ended_is_the_log_s);
    return check_close();
}
