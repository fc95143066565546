/* tier: model
 *
 * test_epoch.c - the epoch room under a toy structure: after every step, what was freed is what
 * no root reaches.  The toy and the brute force are in support_toy.
 */
#include <stdlib.h>

#include "support_toy.h"

#define SLICE 4096 /* nodes that an unlock may work off at once; see epoch.c */

static toy *new_toy(void)
{
    toy *t = malloc(sizeof *t);
    toy_open(t);
    return t;
}

static void leave(toy *t)
{
    sp_epoch_leave(&t->epoch);
    toy_end(t);
    free(t);
}

/* ---- by hand ---- */

/* Five versions: a node born in each, one retired in each after its birth; every order of dying. */
static void die_in_order(const unsigned *order)
{
    toy *t = new_toy();
    for (int v = 0; v < 4; v++) {
        toy_grow(t, 2);
        toy_publish(t);
        toy_acquire(t);
        toy_verify(t);
    }
    CHECK_EQ(toy_live(t), 16); /* four trees of four nodes, nothing in common */
    toy_drop(t);
    toy_publish(t);
    for (unsigned i = 0; i < 4; i++) {
        unsigned at = 0;
        while (t->pin[at].order != order[i])
            at++;
        toy_release(t, at);
        CHECK_EQ(toy_live(t), 12 - 4 * i);
        toy_verify(t);
    }
    toy_close(t);
    leave(t);
}

static void test_versions_die_in_any_order(void)
{
    for (unsigned code = 0; code < 256; code++) {
        unsigned order[4], seen = 0;
        for (unsigned i = 0; i < 4; i++) {
            order[i] = 1 + (code >> 2 * i & 3);
            seen |= 1u << order[i];
        }
        if (seen == 0x1e)
            die_in_order(order);
    }
}

static void test_undo_gives_back_the_open_version(void)
{
    toy *t = new_toy();
    toy_grow(t, 2);
    sp_ref before = t->root;
    toy_begin(t);
    toy_grow(t, 3);
    toy_verify(t);
    toy_commit(t, false);
    CHECK_EQ(t->root, before);
    CHECK_EQ(toy_live(t), 4);
    CHECK_EQ(t->seq, 2);
    toy_verify(t);
    toy_begin(t);
    toy_grow(t, 1);
    CHECK_EQ(toy_live(t), 5);
    toy_commit(t, true);
    CHECK_EQ(toy_live(t), 1); /* the four were nobody else's */
    toy_verify(t);
    toy_close(t);
    CHECK_EQ(toy_live(t), 0);
    leave(t);
}

static void test_a_pin_is_of_the_version_then(void)
{
    toy *t = new_toy();
    CHECK(!sp_epoch_is_watched(&t->epoch));
    toy_acquire(t);
    CHECK(sp_epoch_is_watched(&t->epoch));
    toy_grow(t, 1);
    toy_publish(t);
    CHECK(!sp_epoch_is_watched(&t->epoch));
    CHECK_EQ(sp_epoch_version(&t->epoch, t->pin[0].slot)->seq, 0);
    CHECK_EQ(sp_epoch_version(&t->epoch, t->current.slot)->seq, 2);
    toy_release(t, 0);
    toy_close(t);
    bool crowded;
    CHECK_EQ(sp_epoch_acquire(&t->epoch, &crowded), SP_SLOT_NONE);
    leave(t);
}

/* ---- at random ---- */

static void step(toy *t, rng *r)
{
    uint64_t dice = rng_below(r, 16);
    if (dice < 6)
        toy_write(t, r);
    else if (dice < 9 && !t->in_transaction)
        toy_publish(t);
    else if (dice < 11 && !t->in_transaction)
        toy_begin(t);
    else if (dice < 11)
        toy_commit(t, rng_chance(r, 2));
    else if (dice < 13)
        toy_acquire(t);
    else if (t->pins && dice == 13)
        toy_retain(t, (unsigned)rng_below(r, t->pins));
    else if (t->pins)
        toy_release(t, (unsigned)rng_below(r, t->pins));
}

static void run_walk(uint64_t seed)
{
    toy *t = new_toy();
    rng r = rng_open(seed);
    uint64_t steps = rng_between(&r, 50, 500);
    for (uint64_t i = 0; i < steps && !check_failed(); i++) {
        check_case("walk %llu, step %llu", (unsigned long long)seed, (unsigned long long)i);
        step(t, &r);
        toy_verify(t);
    }
    if (t->in_transaction)
        toy_commit(t, false);
    bool owner_first = rng_chance(&r, 2) && t->pins;
    toy_close(t);
    toy_verify(t);
    if (owner_first)
        sp_epoch_leave(&t->epoch);
    while (t->pins) {
        CHECK(!t->is_destroyed);
        toy_release(t, (unsigned)rng_below(&r, t->pins));
        if (!t->is_destroyed)
            toy_verify(t);
    }
    CHECK_EQ(t->is_destroyed, owner_first);
    if (!owner_first)
        sp_epoch_leave(&t->epoch);
    toy_end(t);
    free(t);
}

static void test_freed_is_unreachable(void)
{
    uint64_t walks = check_scaled(200);
    for (uint64_t seed = 0; seed < walks && !check_failed(); seed++)
        run_walk(100 + seed);
}

/* ---- slices ---- */

#define BIG_DEPTH 9
#define BIG_NODES 9841 /* 1 + 3 + ... + 3^8 */

/* A version of BIG_NODES that nobody else reaches, pinned once. */
static toy *toy_with_garbage(void)
{
    toy *t = new_toy();
    toy_grow(t, BIG_DEPTH);
    toy_publish(t);
    toy_acquire(t);
    toy_drop(t);
    toy_publish(t);
    CHECK_EQ(toy_live(t), BIG_NODES);
    return t;
}

static void touch(toy *t)
{
    CHECK_EQ(sp_lock_try(&t->epoch.lock), SP_OK);
    sp_epoch_unlock(&t->epoch);
}

static void test_garbage_goes_in_slices(void)
{
    toy *t = toy_with_garbage();
    toy_release(t, 0);
    CHECK_EQ(toy_live(t), BIG_NODES - SLICE);
    touch(t);
    CHECK_EQ(toy_live(t), BIG_NODES - 2 * SLICE);
    touch(t);
    toy_verify(t);
    CHECK_EQ(toy_live(t), 0);
    toy_close(t);
    leave(t);
}

static void test_a_kill_under_way_stands_other_work(void)
{
    for (uint64_t seed = 0; seed < 40 && !check_failed(); seed++) {
        toy *t = toy_with_garbage();
        rng r = rng_open(1000 + seed);
        toy_release(t, 0);
        CHECK(toy_live(t) > 0);
        for (int i = 0; i < 3; i++)
            step(t, &r);
        if (t->in_transaction)
            toy_commit(t, rng_chance(&r, 2));
        CHECK_EQ(sp_lock_try(&t->epoch.lock), SP_OK);
        sp_epoch_collect(&t->epoch);
        sp_epoch_unlock(&t->epoch);
        toy_verify(t);
        toy_close(t);
        while (t->pins)
            toy_release(t, 0);
        leave(t);
    }
}

static void test_close_and_leave_amid_a_kill(void)
{
    toy *t = toy_with_garbage();
    toy_acquire(t);
    toy_release(t, 0);
    CHECK(toy_live(t) > 0);
    toy_close(t);
    CHECK_EQ(toy_live(t), 0);
    toy_release(t, 0);
    leave(t);
}

/* ---- limits ---- */

static sp_status publish_again(toy *t)
{
    sp_root root = {.ref = t->root};
    CHECK_EQ(sp_lock_try(&t->epoch.lock), SP_OK);
    sp_status status = sp_epoch_publish(&t->epoch, &root, 0, &t->trail);
    sp_epoch_unlock(&t->epoch);
    return status;
}

static sp_slot pin_newest(toy *t)
{
    bool crowded;
    return sp_epoch_acquire(&t->epoch, &crowded);
}

static void test_versions_are_limited(void)
{
    enum { LIMIT = 65535 };
    toy *t = new_toy();
    sp_slot *slot = malloc(LIMIT * sizeof *slot);
    unsigned n = 0;
    slot[n++] = pin_newest(t);
    while (n < LIMIT && CHECK_EQ(publish_again(t), SP_OK))
        slot[n++] = pin_newest(t);
    uint64_t generation = t->epoch.open.generation;
    CHECK_EQ(publish_again(t), SP_LIMIT);
    CHECK_EQ(t->epoch.open.generation, generation);
    CHECK_EQ(pin_newest(t), slot[n - 1]);
    sp_epoch_release(&t->epoch, slot[n - 1]);
    sp_epoch_release(&t->epoch, slot[0]);
    CHECK_EQ(publish_again(t), SP_OK);
    slot[0] = pin_newest(t);
    CHECK_EQ(publish_again(t), SP_LIMIT);
    /* One that is dead but not yet worked off does not count. */
    sp_root root = {.ref = SP_EMPTY};
    CHECK_EQ(sp_lock_try(&t->epoch.lock), SP_OK);
    sp_epoch_release(&t->epoch, slot[1]);
    CHECK_EQ(sp_epoch_publish(&t->epoch, &root, 0, &t->trail), SP_OK);
    sp_epoch_unlock(&t->epoch);
    slot[1] = slot[--n];
    toy_close(t);
    while (n)
        sp_epoch_release(&t->epoch, slot[--n]);
    free(slot);
    leave(t);
}

static void test_no_memory_for_a_version(void)
{
    toy *t = new_toy();
    sp_slot slot[16];
    for (unsigned i = 0; i < 16; i++) { /* the first chunk of the table */
        slot[i] = pin_newest(t);
        if (i < 15)
            CHECK_EQ(publish_again(t), SP_OK);
    }
    alloc_arm(&t->alloc, 1, 0);
    CHECK_EQ(publish_again(t), SP_NOMEM);
    CHECK_EQ(pin_newest(t), slot[15]);
    sp_epoch_release(&t->epoch, slot[15]);
    CHECK_EQ(publish_again(t), SP_OK);
    CHECK(pin_newest(t) != slot[15]);
    sp_epoch_release(&t->epoch, t->epoch.newest);
    for (unsigned i = 0; i < 16; i++)
        sp_epoch_release(&t->epoch, slot[i]);
    toy_close(t);
    leave(t);
}

static void test_no_memory_for_a_domain(void)
{
    static const sp_epoch_hooks none = {0};
    sp_epoch epoch;
    test_alloc alloc;
    sp_root root = {0};
    alloc_init(&alloc);
    alloc_arm(&alloc, 1, 0);
    CHECK_EQ(sp_epoch_init(&epoch, &alloc.hook, &none, &root), SP_NOMEM);
    CHECK_EQ(alloc_blocks(&alloc), 0);
}

int main(void)
{
    RUN(test_versions_die_in_any_order);
    RUN(test_undo_gives_back_the_open_version);
    RUN(test_a_pin_is_of_the_version_then);
    RUN(test_freed_is_unreachable);
    RUN(test_garbage_goes_in_slices);
    RUN(test_a_kill_under_way_stands_other_work);
    RUN(test_close_and_leave_amid_a_kill);
    RUN(test_versions_are_limited);
    RUN(test_no_memory_for_a_version);
    RUN(test_no_memory_for_a_domain);
    return check_close();
}
