/* tier: model
 *
 * test_protocol.c - every interleaving of acquire, clone, release, publish and drain.
 *
 * A model of epoch.c and lock.c in which each atomic access is one step, explored exhaustively and
 * sequentially consistent: two readers, one writer, a version table so small that slots are used
 * again.  Whatever the order, no reader may hold a version that was killed, no version may die
 * twice, nobody may be stuck, and at the end only the newest version may be left.
 *
 * The same with one step broken at a time: each of these mutants must be caught, or the model
 * would show nothing.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "support_check.h"

#define SLOTS 4
#define BIAS 64
#define READERS 2
#define ACTORS 3 /* the readers, and the writer as the last */
#define READS 2  /* acquisitions of each reader */
#define WRITES 3 /* publications */

enum { LOCKED = 1, PENDING = 2 };

/* Where an actor stands: the access it makes next. */
enum {
    START,
    ANNOUNCE, /* mutant: the second half of an acquire that loads, then counts */
    HOLD,     /* reads, clones or releases */
    PUSH,     /* has loaded the top of the dead stack, will swap itself in */
    POST,
    GRAB,
    FILL,    /* the writer holds the lock and takes a slot */
    SWAP,    /* the new version becomes the head */
    STORE,   /* mutant: the second half of a swap that loads, then stores */
    RETIRE,  /* acquisitions of the old one move into its refs */
    RECHECK, /* mutant: the second half of a retire that adds, then looks */
    UNLOCK,
    LET_GO, /* mutant: the second half of an unlock that looks, then stores */
    DRAIN,
    KILL,
    DONE
};

typedef enum variant {
    CORRECT,
    NO_BIAS,
    LOAD_THEN_COUNT,
    LOAD_THEN_STORE,
    ADD_THEN_LOOK,
    LOOK_THEN_UNLOCK,
    UNLOCK_BLINDLY,
    POST_BEFORE_PUSH,
    PUSH_WITHOUT_CAS,
    RELEASE_WITHOUT_POST,
    VARIANTS
} variant;

typedef struct version {
    int8_t refs;
    uint8_t name; /* which publication it is of */
    bool is_live;
    uint8_t dead_next; /* slot + 1 */
} version;

typedef struct actor {
    uint8_t at;
    uint8_t rounds; /* left */
    uint8_t slot;   /* held, or being published */
    uint8_t name;   /* of the version it was when acquired */
    uint8_t pins;
    uint8_t cloned;
    uint8_t seen;  /* what was loaded: a top, a slot */
    uint8_t count; /* acquisitions taken from the head; mutant: was the lock free? */
} actor;

/* Bytes only: compared and hashed as memory. */
typedef struct state {
    version v[SLOTS];
    actor a[ACTORS];
    uint8_t head_slot, head_count;
    uint8_t lock;
    uint8_t dead_top; /* slot + 1 */
    uint8_t todo;     /* slot + 1; under the lock */
    uint8_t names;    /* versions published */
    uint8_t fault;
} state;

_Static_assert(sizeof(state) == SLOTS * 4 + ACTORS * 8 + 7, "no padding");

enum { NO_FAULT, USED_AFTER_KILL, KILLED_TWICE, STUCK, LOST };

/* ---- steps ---- */

static void finish_round(actor *a) { a->at = --a->rounds ? START : DONE; }

static void acquire(state *s, actor *a, variant what)
{
    a->slot = s->head_slot;
    a->name = s->v[a->slot].name;
    a->pins = 1;
    a->cloned = 0;
    a->at = HOLD;
    if (what == LOAD_THEN_COUNT)
        a->at = ANNOUNCE;
    else
        s->head_count++;
}

static void release(state *s, actor *a, variant what)
{
    bool last = --s->v[a->slot].refs == 0;
    if (--a->pins)
        return;
    if (!last) {
        finish_round(a);
    } else if (what == POST_BEFORE_PUSH) {
        a->at = POST;
    } else {
        a->at = PUSH;
        a->seen = s->dead_top;
    }
}

static void push(state *s, actor *a, variant what)
{
    if (s->dead_top != a->seen && what != PUSH_WITHOUT_CAS) {
        a->seen = s->dead_top;
        return;
    }
    s->v[a->slot].dead_next = a->seen;
    s->dead_top = (uint8_t)(a->slot + 1);
    a->at = what == POST_BEFORE_PUSH ? GRAB : POST;
    if (what == RELEASE_WITHOUT_POST || (what == POST_BEFORE_PUSH && !a->count))
        finish_round(a);
}

static void post(state *s, actor *a, variant what)
{
    bool is_free = !(s->lock & LOCKED);
    s->lock |= PENDING;
    if (what == POST_BEFORE_PUSH) {
        a->at = PUSH;
        a->seen = s->dead_top;
        a->count = is_free;
    } else if (is_free) {
        a->at = GRAB;
    } else {
        finish_round(a);
    }
}

static void grab(state *s, actor *a)
{
    if (s->lock & LOCKED) {
        finish_round(a);
    } else {
        s->lock |= LOCKED;
        a->at = UNLOCK;
    }
}

static void fill(state *s, actor *a, variant what)
{
    uint8_t slot = 0;
    while (slot < SLOTS && s->v[slot].is_live)
        slot++;
    if (slot == SLOTS) { /* all are pinned: the limit */
        a->at = UNLOCK;
        return;
    }
    s->v[slot] = (version){what == NO_BIAS ? 0 : BIAS, ++s->names, true, 0};
    a->slot = slot;
    a->at = SWAP;
}

static void swap(state *s, actor *a, variant what)
{
    a->seen = s->head_slot;
    a->count = s->head_count;
    a->at = what == LOAD_THEN_STORE ? STORE : RETIRE;
    if (what == LOAD_THEN_STORE)
        return;
    s->head_slot = a->slot;
    s->head_count = 0;
}

static void give_to_kill(state *s, uint8_t slot)
{
    s->v[slot].dead_next = s->todo;
    s->todo = (uint8_t)(slot + 1);
}

static void retire(state *s, actor *a, variant what)
{
    version *old = &s->v[a->seen];
    old->refs = (int8_t)(old->refs + a->count - (what == NO_BIAS ? 0 : BIAS));
    a->at = what == ADD_THEN_LOOK ? RECHECK : DRAIN;
    if (a->at == DRAIN && old->refs == 0)
        give_to_kill(s, a->seen);
}

static void unlock(state *s, actor *a, variant what)
{
    if (s->lock & PENDING && what != UNLOCK_BLINDLY) {
        s->lock &= (uint8_t)~PENDING;
        a->at = DRAIN;
    } else if (what == LOOK_THEN_UNLOCK) {
        a->at = LET_GO;
    } else {
        s->lock = 0;
        finish_round(a);
    }
}

static void drain(state *s, actor *a)
{
    if (!s->todo) {
        s->todo = s->dead_top;
        s->dead_top = 0;
    }
    a->at = s->todo ? KILL : UNLOCK;
}

static void kill(state *s, actor *a)
{
    uint8_t slot = (uint8_t)(s->todo - 1);
    if (!s->v[slot].is_live)
        s->fault = KILLED_TWICE;
    s->todo = s->v[slot].dead_next;
    s->v[slot] = (version){0};
    a->at = DRAIN;
}

/* Makes actor i's next step; of two possible ones the `other`.  False if there is none. */
static bool step(state *s, unsigned i, bool other, variant what)
{
    actor *a = &s->a[i];
    bool clones = a->at == HOLD && !a->cloned;
    if (a->at == DONE || (other && !clones))
        return false;
    if (i == READERS && a->at == START && s->lock & LOCKED)
        return false; /* asleep */
    switch (a->at) {
    case START:
        if (i < READERS) {
            acquire(s, a, what);
        } else {
            s->lock |= LOCKED;
            a->at = FILL;
        }
        break;
    case ANNOUNCE:
        s->v[a->slot].refs++;
        a->at = HOLD;
        break;
    case HOLD:
        if (other) {
            s->v[a->slot].refs++;
            a->pins++;
            a->cloned = 1;
        } else {
            release(s, a, what);
        }
        break;
    case PUSH: push(s, a, what); break;
    case POST: post(s, a, what); break;
    case GRAB: grab(s, a); break;
    case FILL: fill(s, a, what); break;
    case SWAP: swap(s, a, what); break;
    case STORE:
        s->head_slot = a->slot;
        s->head_count = 0;
        a->at = RETIRE;
        break;
    case RETIRE: retire(s, a, what); break;
    case RECHECK:
        if (s->v[a->seen].refs == 0)
            give_to_kill(s, a->seen);
        a->at = DRAIN;
        break;
    case UNLOCK: unlock(s, a, what); break;
    case LET_GO:
        s->lock &= (uint8_t)~LOCKED;
        finish_round(a);
        break;
    case DRAIN: drain(s, a); break;
    default: kill(s, a);
    }
    return true;
}

/* ---- what must hold ---- */

static uint8_t fault_of(const state *s)
{
    for (unsigned i = 0; i < READERS; i++) {
        const actor *a = &s->a[i];
        if (a->at == HOLD && (!s->v[a->slot].is_live || s->v[a->slot].name != a->name))
            return USED_AFTER_KILL;
    }
    return s->fault;
}

/* Nobody can move. */
static uint8_t fault_at_end(const state *s)
{
    unsigned live = 0;
    for (unsigned i = 0; i < ACTORS; i++)
        if (s->a[i].at != DONE)
            return STUCK;
    for (unsigned slot = 0; slot < SLOTS; slot++)
        live += s->v[slot].is_live;
    return live == 1 && s->v[s->head_slot].is_live && !s->lock ? NO_FAULT : LOST;
}

/* ---- exploration ---- */

/* States seen, each once, in the order found; an open hash table over them. */
typedef struct space {
    state *seen;
    uint32_t *table; /* index + 1 */
    size_t n, room, table_size;
} space;

static uint64_t hash(const state *s)
{
    const uint8_t *byte = (const uint8_t *)s;
    uint64_t h = UINT64_C(0xcbf29ce484222325);
    for (size_t i = 0; i < sizeof *s; i++)
        h = (h ^ byte[i]) * UINT64_C(0x100000001b3);
    return h ^ h >> 29;
}

static void place(space *p, uint32_t index)
{
    size_t at = hash(&p->seen[index]) & (p->table_size - 1);
    while (p->table[at])
        at = (at + 1) & (p->table_size - 1);
    p->table[at] = index + 1;
}

static void grow(space *p)
{
    p->room = p->room ? 2 * p->room : 1024;
    p->seen = realloc(p->seen, p->room * sizeof *p->seen);
    p->table_size = 4 * p->room;
    free(p->table);
    p->table = calloc(p->table_size, sizeof *p->table);
    for (uint32_t i = 0; i < p->n; i++)
        place(p, i);
}

static void add(space *p, const state *s)
{
    if (p->n == p->room)
        grow(p);
    size_t mask = p->table_size - 1;
    for (size_t at = hash(s) & mask; p->table[at]; at = (at + 1) & mask)
        if (memcmp(&p->seen[p->table[at] - 1], s, sizeof *s) == 0)
            return;
    p->seen[p->n++] = *s;
    place(p, (uint32_t)(p->n - 1));
}

static state first_state(variant what)
{
    state s = {0};
    s.v[0] = (version){what == NO_BIAS ? 0 : BIAS, 0, true, 0};
    for (unsigned i = 0; i < ACTORS; i++)
        s.a[i].rounds = i < READERS ? READS : WRITES;
    return s;
}

/* Explores all there is, or until a fault; returns the fault, and the number of states. */
static uint8_t explore(variant what, size_t *states)
{
    space p = {0};
    state s = first_state(what);
    uint8_t fault = NO_FAULT;
    add(&p, &s);
    for (size_t i = 0; i < p.n && !fault; i++) {
        bool moved = false;
        for (unsigned choice = 0; choice < 2 * ACTORS && !fault; choice++) {
            s = p.seen[i];
            if (!step(&s, choice / 2, choice & 1, what))
                continue;
            moved = true;
            fault = fault_of(&s);
            add(&p, &s);
        }
        if (!moved)
            fault = fault_at_end(&p.seen[i]);
    }
    *states = p.n;
    free(p.seen);
    free(p.table);
    return fault;
}

static void test_every_interleaving(void)
{
    size_t states;
    CHECK_EQ(explore(CORRECT, &states), NO_FAULT);
    CHECK(states >= 100000);
    printf("%zu states\n", states);
}

/* What each mutant is first caught at, breadth first. */
static void test_every_mutant_is_caught(void)
{
    for (variant what = CORRECT + 1; what < VARIANTS; what++) {
        size_t states;
        check_case("mutant %d", (int)what);
        uint8_t fault = explore(what, &states);
        CHECK(fault != NO_FAULT);
        printf("mutant %d: fault %d after %zu states\n", (int)what, fault, states);
    }
}

int main(void)
{
    RUN(test_every_interleaving);
    RUN(test_every_mutant_is_caught);
    return check_close();
}
