/*
 * epoch.h - generations: versions of one changing structure, their readers and their garbage.
 * Floor 3.  Knows nodes by their header alone; the proof stands atop epoch.c.
 *
 * Published means immutable; one private open version is changed in place under one writer lock.
 * acquire pins the newest version with one atomic add.  A version's garbage is found by birth and
 * retire intervals: a node is freed as soon as no live version can reach it, and never before.
 *
 * What a version means is its owner's business: a root of three opaque words, and a trail, an
 * opaque list that kills pass on from version to version through the owner's hooks.
 *
 * Lifetime: the domain lives until it is closed and its last version is released, whichever is
 * later; then hooks->destroy is called by the thread that leaves last.
 */
#ifndef SP_EPOCH_EPOCH_H
#define SP_EPOCH_EPOCH_H

#include "base/lock.h"
#include "node/node.h"

typedef struct sp_root {
    const void *engine;
    sp_ref ref;
    uint64_t height;
} sp_root;

/* A list of the owner's; the room only moves it. */
typedef struct sp_trail {
    void *head;
    void *tail;
    uint64_t count;
} sp_trail;

typedef struct sp_epoch sp_epoch;

typedef struct sp_epoch_hooks {
    /* Appends *from to *into and empties *from.  Under the lock; cannot fail. */
    void (*splice)(sp_epoch *epoch, sp_trail *into, sp_trail *from);
    void (*drop)(sp_epoch *epoch, sp_trail *trail);
    /* Calls visit for every node below root born after floor, children first. */
    void (*walk)(const sp_root *root, uint64_t floor, sp_node_fn visit, void *context);
    /* The domain is closed and empty: frees what holds it. */
    void (*destroy)(sp_epoch *epoch);
} sp_epoch_hooks;

/* Index into the version table; what a reader holds. */
typedef uint32_t sp_slot;

#define SP_SLOT_BITS 16
#define SP_SLOT_NONE 0xffffu /* no version; also the head of a closed domain */

/* The version table grows by chunks of 16, 32, 64 ... slots, which never move. */
#define SP_FIRST_CHUNK_BITS 4
#define SP_CHUNKS (SP_SLOT_BITS - SP_FIRST_CHUNK_BITS + 1)

typedef struct sp_version {
    _Atomic int64_t refs;     /* readers and, while current, BIAS */
    uint32_t dead_next;       /* releaser to zero, before the push; then under the lock */
    uint64_t generation, seq; /* under the lock before publication, then constant */
    sp_root root;             /* likewise */
    sp_slot prev, next;       /* under the lock */
    sp_deadlist dead;         /* retired in this version, born at or before prev; under the lock */
    sp_trail trail;           /* under the lock */
} sp_version;

/* A version being killed, over several slices; under the lock. */
typedef struct sp_kill {
    sp_slot slot;     /* SP_SLOT_NONE: none */
    sp_deadlist rest; /* of its successor's deadlist, not yet sifted */
    sp_deadlist kept; /* sifted, still reachable from its predecessor */
} sp_kill;

struct sp_epoch {
    /* head is alone on its cache line, by padding: an allocation hook need not align to lines. */
    char before[SP_CACHE_LINE - sizeof(uint64_t)];
    _Atomic uint64_t head; /* acquisitions:48 | slot:16 */
    char after[SP_CACHE_LINE - sizeof(uint64_t)];
    sp_lock lock;
    _Atomic uint32_t dead_top;   /* slot + 1 of the newest dead version; releasers push */
    _Atomic uint64_t done_seq;   /* changes committed; the writer, read by snapshot() */
    _Atomic uint64_t owners;     /* the domain's owner, and each version not yet left */
    sp_mem nodes;                /* the nodes of all versions; changed under the lock */
    sp_mem mem;                  /* the version table, and what the owner keeps beside the nodes */
    const sp_epoch_hooks *hooks; /* constant */
    /* all below: under the lock */
    sp_edit open;                  /* generation to be, floor, retired so far */
    sp_version *chunks[SP_CHUNKS]; /* each written once, before its slots are published */
    uint32_t made;                 /* slots ever handed out */
    sp_slot free, newest;          /* free list through next; newest linked version */
    uint32_t todo;                 /* slot + 1 of dead versions taken off the stack */
    sp_kill kill;
};

/* A saved open version; see sp_epoch_savepoint. */
typedef struct sp_savepoint {
    uint64_t floor;
    sp_deadlist dead;
} sp_savepoint;

/* Publishes `root`, which has no nodes, as the first version, with seq 0.  SP_NOMEM leaves nothing
 * to free.  The struct's memory is the caller's until hooks->destroy gives it back. */
SP_MUST_CHECK sp_status sp_epoch_init(sp_epoch *epoch, const sp_allocator *allocator,
                                      const sp_epoch_hooks *hooks, const sp_root *root);

/* Closes the domain, with the lock held: gives up the open version, whose root this is, frees the
 * nodes that no reader's version holds, and unlocks.  From then on acquire finds nothing. */
void sp_epoch_close(sp_epoch *epoch, const sp_root *root, sp_trail *trail);

/* Gives up the owner's share of a closed domain, which must not be touched afterwards. */
void sp_epoch_leave(sp_epoch *epoch);

/* ---- readers: any thread, no lock ---- */

/* Pins the newest version: one atomic add.  SP_SLOT_NONE if the domain is closed; *crowded is set
 * when so many acquisitions have hit this version that a publish should come soon. */
sp_slot sp_epoch_acquire(sp_epoch *epoch, bool *crowded);

/* Another pin of a version that the caller holds. */
void sp_epoch_retain(sp_epoch *epoch, sp_slot slot);

/* Gives a pin back.  Never waits; may free up to a slice of nodes - or, once the domain is closed,
 * all that the newest version alone reaches, or the domain. */
void sp_epoch_release(sp_epoch *epoch, sp_slot slot);

/* The version in a slot that the caller holds, or any while it holds the lock. */
static inline sp_version *sp_epoch_version(const sp_epoch *epoch, sp_slot slot)
{
    uint32_t at = slot + (1u << SP_FIRST_CHUNK_BITS);
    unsigned top = 31 - (unsigned)__builtin_clz(at);
    return &epoch->chunks[top - SP_FIRST_CHUNK_BITS][at - (1u << top)];
}

/* ---- the writer: with the lock held (sp_lock_try or sp_lock_wait on epoch->lock) ---- */

/* Unlocks, doing the work that was posted meanwhile (at most a slice). */
void sp_epoch_unlock(sp_epoch *epoch);

/* Frees all garbage there is, however much. */
void sp_epoch_collect(sp_epoch *epoch);

/* Makes the open version the newest one; *trail moves into it.  SP_LIMIT, SP_NOMEM: nothing
 * changed. */
SP_MUST_CHECK sp_status sp_epoch_publish(sp_epoch *epoch, const sp_root *root, uint64_t seq,
                                         sp_trail *trail);

/* True if a reader has pinned the newest version since it was published. */
bool sp_epoch_is_watched(sp_epoch *epoch);

/* Begins a transaction: from here on nothing of the open version is changed in place, so that it
 * can be had again.  Ended by one of the two below. */
sp_savepoint sp_epoch_savepoint(sp_epoch *epoch);
void sp_epoch_keep(sp_epoch *epoch, sp_savepoint *savepoint);
/* `root` is what the transaction had made; its nodes are freed. */
void sp_epoch_undo(sp_epoch *epoch, sp_savepoint *savepoint, const sp_root *root);

#endif
