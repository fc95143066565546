/*
 * support_toy.h - a toy structure under the epoch room: three-way trees of numbered nodes.
 *
 * It knows nothing of sets, and nothing of when nodes may go: what must be live is found by walking
 * from every root that somebody may still read.  Freed nodes are kept aside, marked, so that a node
 * that went too early is seen when it is walked to, and one that went too late by the count.
 */
#ifndef SP_TESTS_SUPPORT_TOY_H
#define SP_TESTS_SUPPORT_TOY_H

#include "epoch/epoch.h"
#include "support_alloc.h"
#include "support_check.h"

#define TOY_FANOUT 3
#define TOY_MAX_PINS 64

/* One committed write, as an element of a trail. */
typedef struct toy_token {
    struct toy_token *next;
    uint64_t number;
} toy_token;

typedef struct toy_pin {
    sp_slot slot;
    sp_root root;
    uint64_t seq;
    uint64_t order; /* publications before it */
} toy_pin;

typedef struct toy {
    sp_epoch epoch; /* first: the hooks cast back */
    test_alloc alloc;
    sp_allocator aside; /* puts freed blocks aside; on top of alloc */
    void *gone;         /* the blocks put aside */
    uint64_t round;     /* of walks; marks what was counted */
    sp_ref root;        /* the open version */
    sp_trail trail;     /* tokens of the open version */
    sp_trail pending;   /* and of the transaction under way */
    uint64_t seq;       /* tokens committed */
    uint64_t order;     /* publications */
    toy_pin current;    /* the newest version, not a pin */
    toy_pin pin[TOY_MAX_PINS];
    unsigned pins;
    bool in_transaction, is_closed, is_destroyed;
    sp_savepoint savepoint;
    sp_ref saved_root;
} toy;

void toy_open(toy *t);
/* After close and the last release: checks that nothing is left. */
void toy_end(toy *t);

/* Each of these takes the lock and gives it back. */
void toy_write(toy *t, rng *r);        /* changes the tree at a random path */
void toy_grow(toy *t, unsigned depth); /* replaces it by a full tree */
void toy_drop(toy *t);                 /* replaces it by nothing */
void toy_publish(toy *t);
void toy_begin(toy *t);
void toy_commit(toy *t, bool keep);
void toy_close(toy *t);

void toy_acquire(toy *t);
void toy_retain(toy *t, unsigned pin);
void toy_release(toy *t, unsigned pin);

uint64_t toy_live(const toy *t);
/* Live nodes are the reachable ones; versions and deadlists are as the proof says; every pair of
 * pins has between it the tokens that were committed there. */
void toy_verify(toy *t);

#endif
