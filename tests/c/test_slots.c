/* tier: model
 *
 * test_slots.c - slots of a guest come and go while its dirty logs are filled, taken from and given
 * back to: two logs at a time, against a byte a page; and the same when memory is short.
 */
#include "support_dirty.h"

#define SMM (1u << 16) /* address space 1 */

enum { TABLES = 8, MOST = 4, LOGS = 2, HELD = 2, LOANS = 3, STEPS = 16 };

static const sp_range window = {900, 1500};

/* Slots stay, go, shrink, move, split, change their number, and lie over those of another space. */
static const sp_memslot tables[TABLES][MOST] = {
    {{1000, 70, 0}, {1070, 64, 1}, {1010, 100, SMM}},
    {{1000, 70, 0}, {1070, 64, 1}},
    {{1000, 70, 0}, {1010, 100, SMM}, {1200, 200, 7}},
    {{1000, 70, 0}, {1071, 64, 1}, {1005, 300, SMM}},
    {{1000, 35, 0}, {1035, 35, 5}, {1070, 64, 2}, {1010, 100, SMM}},
    {{950, 400, 3}, {1010, 100, SMM}},
    {{1300, 65, 0}},
    {{0}},
};

static size_t count_of(const sp_memslot *table)
{
    size_t n = 0;
    while (n < MOST && table[n].npages)
        n++;
    return n;
}

typedef struct loan {
    sp_bits *bits;
    sp_memslot slot;
    size_t log;
    bool is_seen; /* what is written to it now is in the next harvest */
} loan;

typedef struct play {
    test_alloc alloc;
    sp_memory *memory[TABLES];
    size_t now;
    sp_log *log[LOGS];
    model ram[TABLES];
    model in_log[LOGS];
    sp_harvest *held[HELD];
    model of[HELD];
    size_t taken_from[HELD], taken_at[HELD]; /* the log, and the memory then */
    loan loans[LOANS];
} play;

static void assign_slot(model *m, const sp_memslot *slot)
{
    model_assign(m, slot->gfn, slot->gfn + slot->npages, true);
}

static void open_play(play *p)
{
    *p = (play){0};
    alloc_init(&p->alloc);
    for (size_t t = 0; t < TABLES; t++) {
        size_t n = count_of(tables[t]), bad, other;
        CHECK_EQ(sp_memory_new(&p->alloc.hook, &sp_engine_roaring, tables[t], n, &p->memory[t],
                               &bad, &other),
                 SP_OK);
        model_init(&p->ram[t], &window, 1);
        for (size_t i = 0; i < n; i++)
            assign_slot(&p->ram[t], &tables[t][i]);
    }
    for (size_t l = 0; l < LOGS; l++) {
        CHECK_EQ(sp_log_new(&p->alloc.hook, p->memory[0], &p->log[l]), SP_OK);
        model_init(&p->in_log[l], &window, 1);
    }
}

static void close_play(play *p)
{
    for (size_t i = 0; i < HELD; i++) {
        sp_harvest_release(p->held[i]);
        if (p->held[i])
            model_clear(&p->of[i]);
    }
    for (size_t i = 0; i < LOANS; i++)
        if (p->loans[i].bits)
            sp_loan_end(p->loans[i].bits);
    for (size_t l = 0; l < LOGS; l++) {
        sp_log_free(p->log[l]);
        model_clear(&p->in_log[l]);
    }
    for (size_t t = 0; t < TABLES; t++) {
        sp_memory_release(p->memory[t]);
        model_clear(&p->ram[t]);
    }
    CHECK_EQ(alloc_blocks(&p->alloc), 0);
}

/* ---- reporting ---- */

static void add_bit(play *p, size_t l, rng *r)
{
    size_t n = sp_memory_count(p->memory[p->now]);
    if (!n)
        return;
    const sp_memslot *slot = sp_memory_at(p->memory[p->now], rng_below(r, n));
    uint64_t page = rng_below(r, slot->npages);
    CHECK_EQ(sp_log_add_bitmap(p->log[l], slot, "\1", page, 1), SP_OK);
    model_assign(&p->in_log[l], slot->gfn + page, slot->gfn + page + 1, true);
}

/* What nobody would look at any more is added, by gfn: what is no memory is ignored. */
static void settle(play *p, rng *r)
{
    loan *it = &p->loans[rng_below(r, LOANS)];
    if (!it->bits)
        return;
    CHECK_EQ(sp_log_settle(p->log[it->log], &it->slot, it->bits), SP_OK);
    for (uint64_t i = 0; i < it->slot.npages && !it->is_seen; i++) {
        uint64_t gfn = it->slot.gfn + i;
        if (sp_loan_words(it->bits)[i / 64] >> (i % 64) & 1 && model_contains(&p->ram[p->now], gfn))
            model_assign(&p->in_log[it->log], gfn, gfn + 1, true);
    }
}

static void borrow(play *p, size_t l, rng *r)
{
    loan *it = &p->loans[rng_below(r, LOANS)];
    size_t n = sp_memory_count(p->memory[p->now]);
    if (it->bits)
        sp_loan_end(it->bits);
    it->bits = NULL;
    if (!n)
        return;
    it->slot = *sp_memory_at(p->memory[p->now], rng_below(r, n));
    it->log = l;
    it->is_seen = true;
    CHECK_EQ(sp_log_lend(p->log[l], &it->slot, &it->bits), SP_OK);
}

/* Writes all loans, also those that nobody looks at any more. */
static void write_loans(play *p, rng *r)
{
    for (size_t i = 0; i < LOANS; i++) {
        loan *it = &p->loans[i];
        if (!it->bits)
            continue;
        uint64_t page = rng_below(r, it->slot.npages), gfn = it->slot.gfn + page;
        sp_loan_words(it->bits)[page / 64] |= UINT64_C(1) << (page % 64);
        if (it->is_seen)
            model_assign(&p->in_log[it->log], gfn, gfn + 1, true);
    }
}

static void add(play *p, rng *r)
{
    size_t l = rng_below(r, LOGS), bad;
    uint64_t start = rng_between(r, window.start, window.stop - 1);
    sp_range range = {start, rng_between(r, start + 1, window.stop)};
    switch (rng_below(r, 6)) {
    case 0:
        CHECK_EQ(sp_log_add_pages(p->log[l], &start, 1, &bad), SP_OK);
        model_assign(&p->in_log[l], start, start + 1, true);
        break;
    case 1:
        CHECK_EQ(sp_log_add_ranges(p->log[l], &range, 1, &bad), SP_OK);
        model_assign(&p->in_log[l], range.start, range.stop, true);
        break;
    case 2: add_bit(p, l, r); break;
    case 3: settle(p, r); break;
    case 4: borrow(p, l, r); break;
    default: write_loans(p, r);
    }
}

/* ---- other slots, and taking ---- */

/* Drops from m what was memory then and is not now. */
static void drop_left(const play *p, model *m, size_t then)
{
    model left;
    model_copy(&left, &p->ram[then]);
    model_combine(&left, SP_ANDNOT, &left, &p->ram[p->now]);
    model_combine(m, SP_ANDNOT, m, &left);
    model_clear(&left);
}

static bool has_slot(const sp_memory *memory, const sp_memslot *slot)
{
    size_t index;
    return sp_memory_find_same(memory, slot, &index) == SP_OK;
}

static void note_change(play *p, size_t to)
{
    size_t then = p->now;
    p->now = to;
    for (size_t l = 0; l < LOGS; l++)
        drop_left(p, &p->in_log[l], then);
    for (size_t i = 0; i < count_of(tables[to]); i++)
        if (!has_slot(p->memory[then], &tables[to][i]))
            assign_slot(&p->in_log[0], &tables[to][i]);
    for (size_t i = 0; i < LOANS; i++)
        if (p->loans[i].bits && !has_slot(p->memory[to], &p->loans[i].slot))
            p->loans[i].is_seen = false;
}

static void set_memory(play *p, rng *r)
{
    size_t to = rng_below(r, TABLES);
    CHECK_EQ(sp_log_set_memory(p->log, LOGS, p->memory[to]), SP_OK);
    note_change(p, to);
}

static void take(play *p, size_t i, size_t l)
{
    REQUIRE_EQ(sp_log_take(p->log[l], &p->held[i]), SP_OK);
    p->taken_from[i] = l;
    p->taken_at[i] = p->now;
    model_copy(&p->of[i], &p->in_log[l]);
    model_assign(&p->in_log[l], 0, SP_GFN_LIMIT, false);
    for (size_t n = 0; n < LOANS; n++)
        p->loans[n].is_seen &= p->loans[n].log != l;
    CHECK(sp_harvest_memory(p->held[i]) == p->memory[p->now]);
    harvest_is(p->held[i], &p->of[i]);
}

static void end(play *p, size_t i, bool give_back)
{
    sp_log *log = p->log[p->taken_from[i]];
    model *m = &p->in_log[p->taken_from[i]];
    if (give_back) {
        sp_log_give_back(log, p->held[i]);
        drop_left(p, &p->of[i], p->taken_at[i]);
        model_add(m, m, &p->of[i]);
    } else {
        sp_harvest_release(p->held[i]);
    }
    p->held[i] = NULL;
    model_clear(&p->of[i]);
}

static void step(play *p, rng *r)
{
    size_t i = rng_below(r, HELD);
    if (rng_chance(r, 2))
        add(p, r);
    else if (rng_chance(r, 2))
        set_memory(p, r);
    else if (!p->held[i])
        take(p, i, rng_below(r, LOGS));
    else
        end(p, i, !rng_chance(r, 4));
    for (i = 0; i < HELD; i++)
        if (p->held[i])
            harvest_is(p->held[i], &p->of[i]);
}

/* Takes all that is left of each log. */
static void check_rest(play *p)
{
    for (size_t l = 0; l < LOGS; l++) {
        if (p->held[0])
            end(p, 0, false);
        take(p, 0, l);
    }
}

static void slots_come_and_go_in_any_order(void)
{
    rng r = rng_open(1);
    for (uint64_t n = 0; n < check_scaled(3000) && !check_failed(); n++) {
        play p;
        check_case("play %d", (int)n);
        open_play(&p);
        for (unsigned i = 0; i < STEPS; i++)
            step(&p, &r);
        check_rest(&p);
        close_play(&p);
    }
}

static void what_no_slot_has_is_refused(void)
{
    play p;
    sp_bits *bits;
    open_play(&p);
    CHECK_EQ(sp_log_set_memory(p.log, LOGS, p.memory[3]), SP_OK);
    note_change(&p, 3);
    for (size_t i = 0; i < 3; i++) {
        bool is_there = i == 0; /* 1 has moved, SMM 0 has moved and grown */
        sp_status want = is_there ? SP_OK : SP_UNKNOWN;
        CHECK_EQ(sp_log_add_bitmap(p.log[1], &tables[0][i], "\1", 0, 1), want);
        CHECK_EQ(sp_log_lend(p.log[1], &tables[0][i], &bits), want);
        if (is_there)
            sp_loan_end(bits);
    }
    model_assign(&p.in_log[1], 1000, 1001, true);
    check_rest(&p);
    close_play(&p);
}

/* ---- when memory is short ---- */

/* Something of everything: bitmaps, loans, lists, sets, what was given back under another memory. */
static void prepare(play *p, rng *r)
{
    open_play(p);
    for (unsigned i = 0; i < 8; i++)
        add(p, r);
    borrow(p, 0, r);
    take(p, 0, 0);
    take(p, 1, 1);
    end(p, 1, true);
    set_memory(p, r);
    end(p, 0, true);
    for (unsigned i = 0; i < 8; i++)
        add(p, r);
}

/* True once the change has succeeded. */
static bool a_change_fails_at(uint64_t seed, size_t to, uint64_t n, bool onwards)
{
    play p;
    rng r = rng_open(seed);
    prepare(&p, &r);
    alloc_arm(&p.alloc, n, onwards);
    sp_status status = sp_log_set_memory(p.log, LOGS, p.memory[to]);
    CHECK_EQ(status, alloc_failed(&p.alloc) ? SP_NOMEM : SP_OK);
    alloc_arm(&p.alloc, 0, 0);
    if (!status)
        note_change(&p, to);
    write_loans(&p, &r);
    check_rest(&p);
    close_play(&p);
    return status == SP_OK;
}

static void a_change_fails_at_every_allocation(void)
{
    for (uint64_t seed = 0; seed < check_scaled(6); seed++)
        for (size_t to = 0; to < TABLES; to++)
            for (unsigned onwards = 0; onwards < 2; onwards++) {
                bool done = false;
                for (uint64_t n = 1; !done && !check_failed(); n++) {
                    check_case("seed %d, to %d, allocation %d", (int)seed, (int)to, (int)n);
                    done = a_change_fails_at(seed, to, n, onwards);
                }
            }
}

/* True once the harvest, of another memory, has been folded in by a take. */
static bool a_fold_fails_at(uint64_t seed, uint64_t n, bool onwards)
{
    play p;
    rng r = rng_open(seed);
    sp_harvest *harvest = NULL;
    prepare(&p, &r);
    take(&p, 0, 0);
    set_memory(&p, &r);
    end(&p, 0, true);
    alloc_arm(&p.alloc, n, onwards);
    sp_status status = sp_log_peek(p.log[0], &harvest);
    CHECK_EQ(status, alloc_failed(&p.alloc) ? SP_NOMEM : SP_OK);
    alloc_arm(&p.alloc, 0, 0);
    if (!status) {
        harvest_is(harvest, &p.in_log[0]);
        sp_harvest_release(harvest);
    }
    check_rest(&p);
    close_play(&p);
    return status == SP_OK;
}

static void folding_what_comes_back_fails_at_every_allocation(void)
{
    for (uint64_t seed = 0; seed < check_scaled(40); seed++)
        for (unsigned onwards = 0; onwards < 2; onwards++) {
            bool done = false;
            for (uint64_t n = 1; !done && !check_failed(); n++) {
                check_case("seed %d, allocation %d", (int)seed, (int)n);
                done = a_fold_fails_at(seed, n, onwards);
            }
        }
}

int main(void)
{
    RUN(slots_come_and_go_in_any_order);
    RUN(what_no_slot_has_is_refused);
    RUN(a_change_fails_at_every_allocation);
    RUN(folding_what_comes_back_fails_at_every_allocation);
    return check_close();
}
