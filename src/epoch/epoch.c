/*
 * epoch.c - the generation protocol.  Floor 3.
 *
 * Why it is right, step by step.  "Newest" is the version that head names; F is its generation and
 * E > F the open version's.  A node x with birth b that is retired while generation r is open is
 * reachable from exactly the versions with generation in [b, r).
 *
 *  1. A reader's pin cannot miss.  acquire reads the slot and counts itself in one fetch_add on
 *     head; publish takes the count with the same word by exchange.  An acquisition is therefore
 *     either in the count that publish moves to the old version, or on the new version.
 *  2. Zero is seen once.  A current version's refs are BIAS minus the releases; publish adds the
 *     acquisitions minus BIAS.  Whoever brings refs to 0 - a releaser after that, or publish
 *     itself - is unique, and no later acquisition can name the slot, since head no longer does.
 *  3. A dead version is not lost.  The releaser pushes it, then posts PENDING into the lock word.
 *     If the lock was free it takes it and drains; otherwise the holder cannot unlock without
 *     clearing PENDING first, and drains after that, when the push is visible (lock.h).
 *  4. Birth rule.  dead(n), n published, holds nodes retired while n was open; each was born at or
 *     before generation(prev(n)), because a younger one was nobody else's and was freed at once.
 *     When v dies, the versions that reach x of dead(next(v)) are those in [birth(x), r) without
 *     v: since kills keep the list of versions gapless, none is left iff birth(x) >
 *     generation(prev(v)).  Then x is freed; otherwise it stays on dead(next(v)), and dead(v),
 *     whose nodes were born at or before generation(prev(v)), joins it.  The rule of 4 holds again.
 *  5. In place is unseen.  The writer changes a node only if its birth > F: it was made after the
 *     newest version was published, so no version reaches it.  A savepoint sets F to E and E to
 *     E + 1: the version so far is then treated as if it had been published.
 *  6. The domain outlives its users.  owners counts the domain's owner and each version whose last
 *     releaser has not yet left; a releaser drops its version's share as its very last access.
 *     Everyone who holds the lock holds a share.
 *
 * The idea: Ben-David, Blelloch, Sun, Wei, "Multiversion Concurrency with Bounded Delay and Precise
 * Garbage Collection" (SPAA 2019); the linear birth rule is that of ZFS deadlists.
 */
#include "epoch/epoch.h"

#define BIAS (INT64_C(1) << 62)
#define ONE_ACQUIRE (UINT64_C(1) << SP_SLOT_BITS)

/* Nodes freed or sifted before the lock is given back. */
#define SLICE 4096

/* Acquisitions of one version before a publish is asked for; the count has 48 bits. */
#define CROWDED (UINT64_C(1) << 46)

/* ---- slots ---- */

static uint32_t chunk_slots(unsigned c) { return 1u << (c + SP_FIRST_CHUNK_BITS); }

static sp_status take_slot(sp_epoch *epoch, sp_slot *slot)
{
    /* Dead versions that slices have not come to yet must not count as pinned. */
    if (epoch->free == SP_SLOT_NONE && epoch->made == SP_SLOT_NONE)
        sp_epoch_collect(epoch);
    if (epoch->free != SP_SLOT_NONE) {
        *slot = epoch->free;
        epoch->free = sp_epoch_version(epoch, *slot)->next;
        return SP_OK;
    }
    if (epoch->made == SP_SLOT_NONE)
        return SP_LIMIT;
    unsigned c = 0;
    while (epoch->chunks[c] && epoch->made >= chunk_slots(c + 1) - chunk_slots(0))
        c++;
    if (!epoch->chunks[c]) {
        epoch->chunks[c] = sp_mem_zalloc(&epoch->mem, chunk_slots(c) * sizeof(sp_version));
        if (!epoch->chunks[c])
            return SP_NOMEM;
    }
    *slot = epoch->made++;
    return SP_OK;
}

static void give_slot(sp_epoch *epoch, sp_slot slot)
{
    sp_epoch_version(epoch, slot)->next = epoch->free;
    epoch->free = slot;
}

/* ---- killing ---- */

static uint64_t generation_of(const sp_epoch *epoch, sp_slot slot)
{
    return slot == SP_SLOT_NONE ? 0 : sp_epoch_version(epoch, slot)->generation;
}

/* Takes a version that is sifted out of the list. */
static void unlink_version(sp_epoch *epoch, sp_slot slot)
{
    sp_version *v = sp_epoch_version(epoch, slot);
    sp_version *n = v->next == SP_SLOT_NONE ? NULL : sp_epoch_version(epoch, v->next);
    if (n) {
        sp_deadlist_splice(&n->dead, &epoch->kill.kept);
        sp_deadlist_splice(&n->dead, &v->dead);
        epoch->hooks->splice(epoch, &n->trail, &v->trail);
        if (v->prev == SP_SLOT_NONE)
            epoch->hooks->drop(epoch, &n->trail); /* nobody is left to ask since when */
        n->prev = v->prev;
    } else {
        epoch->hooks->drop(epoch, &v->trail);
        epoch->newest = v->prev;
    }
    if (v->prev != SP_SLOT_NONE)
        sp_epoch_version(epoch, v->prev)->next = v->next;
    give_slot(epoch, slot);
}

static void free_node(void *epoch, sp_node *node)
{
    sp_node_free(&((sp_epoch *)epoch)->nodes, node);
}

/* Starts to kill the next dead version.  False if there is none. */
static bool begin_kill(sp_epoch *epoch)
{
    if (!epoch->todo)
        /* acquire: pairs with the push in sp_epoch_release, which wrote dead_next */
        epoch->todo = sp_swap(&epoch->dead_top, 0, acquire);
    if (!epoch->todo)
        return false;
    sp_slot slot = epoch->todo - 1;
    sp_version *v = sp_epoch_version(epoch, slot);
    epoch->todo = v->dead_next;
    epoch->kill = (sp_kill){.slot = slot};
    if (v->next != SP_SLOT_NONE) {
        sp_version *n = sp_epoch_version(epoch, v->next);
        epoch->kill.rest = n->dead;
        n->dead = (sp_deadlist){0};
    } else {
        /* The newest version of a closed domain: what its predecessor does not reach goes; what it
         * had retired is reachable from the predecessor's root, and goes with that. */
        epoch->hooks->walk(&v->root, generation_of(epoch, v->prev), free_node, epoch);
    }
    return true;
}

/* Works off dead versions; returns false when `budget` nodes were not enough. */
static bool drain(sp_epoch *epoch, uint64_t budget)
{
    sp_kill *kill = &epoch->kill;
    while (kill->slot != SP_SLOT_NONE || begin_kill(epoch)) {
        sp_version *v = sp_epoch_version(epoch, kill->slot);
        uint64_t reached = generation_of(epoch, v->prev);
        for (sp_node *node; (node = sp_deadlist_pop(&kill->rest));) {
            if (sp_node_birth(node) > reached)
                sp_node_free(&epoch->nodes, node);
            else
                sp_deadlist_push(&kill->kept, node);
            if (!--budget)
                return false;
        }
        unlink_version(epoch, kill->slot);
        kill->slot = SP_SLOT_NONE;
    }
    return true;
}

void sp_epoch_collect(sp_epoch *epoch) { (void)drain(epoch, UINT64_MAX); }

void sp_epoch_unlock(sp_epoch *epoch)
{
    bool done = true;
    while (!sp_lock_release(&epoch->lock))
        done = drain(epoch, SLICE);
    if (!done)
        sp_lock_leave(&epoch->lock);
}

/* Drops one share of the domain; the last one takes it down. */
void sp_epoch_leave(sp_epoch *epoch)
{
    /* acq_rel: the last one pairs with all others, whose accesses must be over */
    if (sp_sub(&epoch->owners, 1, acq_rel) != 1)
        return;
    sp_epoch_collect(epoch);
    for (unsigned c = 0; c < SP_CHUNKS; c++)
        sp_mem_free(&epoch->mem, epoch->chunks[c], chunk_slots(c) * sizeof(sp_version));
    epoch->hooks->destroy(epoch);
}

/* ---- readers ---- */

sp_slot sp_epoch_acquire(sp_epoch *epoch, bool *crowded)
{
    /* acquire: pairs with the exchange in sp_epoch_publish; the version's fields were written
     * before it and are constant since */
    uint64_t word = sp_add(&epoch->head, ONE_ACQUIRE, acquire);
    *crowded = word >> SP_SLOT_BITS > CROWDED;
    return word & SP_SLOT_NONE;
}

void sp_epoch_retain(sp_epoch *epoch, sp_slot slot)
{
    /* relaxed: the caller's own pin keeps the version from dying meanwhile */
    sp_add(&sp_epoch_version(epoch, slot)->refs, 1, relaxed);
}

/* Puts a version that nobody holds on the stack of the dead. */
static void push_dead(sp_epoch *epoch, sp_slot slot)
{
    sp_version *v = sp_epoch_version(epoch, slot);
    uint32_t top = sp_load(&epoch->dead_top, relaxed);
    do {
        v->dead_next = top;
        /* release: pairs with the exchange in begin_kill */
    } while (!sp_cas(&epoch->dead_top, &top, slot + 1, release));
}

void sp_epoch_release(sp_epoch *epoch, sp_slot slot)
{
    /* acq_rel: release, so that our reads are over before the version is taken apart; acquire, so
     * that whoever reaches 0 sees all of them over */
    if (sp_sub(&sp_epoch_version(epoch, slot)->refs, 1, acq_rel) != 1)
        return;
    push_dead(epoch, slot);
    if (sp_lock_post(&epoch->lock))
        sp_epoch_unlock(epoch);
    sp_epoch_leave(epoch);
}

/* ---- the writer ---- */

/* Retires the version that head named in `word`: moves its acquisitions into its refs. */
static void retire_version(sp_epoch *epoch, uint64_t word)
{
    sp_slot slot = word & SP_SLOT_NONE;
    int64_t k = (int64_t)(word >> SP_SLOT_BITS) - BIAS;
    /* acq_rel: as in sp_epoch_release, for the case that all readers have left */
    if (sp_add(&sp_epoch_version(epoch, slot)->refs, k, acq_rel) + k != 0)
        return;
    sp_epoch_version(epoch, slot)->dead_next = epoch->todo;
    epoch->todo = slot + 1;
    /* relaxed: never the last share, the domain's owner still has its own */
    sp_sub(&epoch->owners, 1, relaxed);
}

/* Fills and links a version made of the open one. */
static sp_status make_version(sp_epoch *epoch, const sp_root *root, uint64_t seq, sp_trail *trail,
                              sp_slot *slot)
{
    sp_status status = take_slot(epoch, slot);
    if (status)
        return status;
    sp_version *v = sp_epoch_version(epoch, *slot);
    v->generation = epoch->open.generation;
    v->seq = seq;
    v->root = *root;
    v->prev = epoch->newest;
    v->next = SP_SLOT_NONE;
    v->dead = epoch->open.dead;
    v->trail = *trail;
    /* relaxed: published by the exchange on head that follows */
    sp_store(&v->refs, BIAS, relaxed);
    sp_add(&epoch->owners, 1, relaxed);
    if (epoch->newest != SP_SLOT_NONE)
        sp_epoch_version(epoch, epoch->newest)->next = *slot;
    epoch->newest = *slot;
    epoch->open.dead = (sp_deadlist){0};
    epoch->open.floor = epoch->open.generation++;
    *trail = (sp_trail){0};
    return SP_OK;
}

sp_status sp_epoch_publish(sp_epoch *epoch, const sp_root *root, uint64_t seq, sp_trail *trail)
{
    sp_slot slot;
    sp_status status = make_version(epoch, root, seq, trail, &slot);
    if (status)
        return status;
    /* acq_rel: release pairs with sp_epoch_acquire; acquire takes over the old version's count */
    retire_version(epoch, sp_swap(&epoch->head, slot, acq_rel));
    if (!drain(epoch, SLICE))
        sp_lock_leave(&epoch->lock);
    return SP_OK;
}

bool sp_epoch_is_watched(sp_epoch *epoch)
{
    /* relaxed: a hint, and the caller holds the lock that orders publications */
    return sp_load(&epoch->head, relaxed) >> SP_SLOT_BITS != 0;
}

sp_savepoint sp_epoch_savepoint(sp_epoch *epoch)
{
    sp_savepoint saved = {epoch->open.floor, epoch->open.dead};
    epoch->open.floor = epoch->open.generation++;
    epoch->open.dead = (sp_deadlist){0};
    return saved;
}

void sp_epoch_keep(sp_epoch *epoch, sp_savepoint *savepoint)
{
    sp_deadlist retired = epoch->open.dead;
    epoch->open.floor = savepoint->floor;
    epoch->open.dead = savepoint->dead;
    /* One by one: what was born in the open version before the savepoint is nobody else's and must
     * go now; on the deadlist it would break the rule of 4. */
    for (sp_node *node; (node = sp_deadlist_pop(&retired));)
        sp_edit_retire(&epoch->open, node);
}

void sp_epoch_undo(sp_epoch *epoch, sp_savepoint *savepoint, const sp_root *root)
{
    epoch->hooks->walk(root, epoch->open.floor, free_node, epoch);
    epoch->open.floor = savepoint->floor;
    epoch->open.dead = savepoint->dead;
}

/* ---- beginning and end ---- */

sp_status sp_epoch_init(sp_epoch *epoch, const sp_allocator *allocator, const sp_epoch_hooks *hooks,
                        const sp_root *root)
{
    sp_trail empty = {0};
    sp_slot slot;
    *epoch = (sp_epoch){.hooks = hooks, .free = SP_SLOT_NONE, .newest = SP_SLOT_NONE};
    epoch->kill.slot = SP_SLOT_NONE;
    sp_lock_init(&epoch->lock);
    sp_mem_init_locked(&epoch->nodes, allocator);
    sp_mem_init(&epoch->mem, allocator);
    epoch->open = (sp_edit){.mem = &epoch->nodes, .generation = 1};
    atomic_init(&epoch->dead_top, 0);
    atomic_init(&epoch->done_seq, 0);
    atomic_init(&epoch->owners, 1);
    sp_status status = make_version(epoch, root, 0, &empty, &slot);
    if (!status)
        atomic_init(&epoch->head, slot);
    return status;
}

void sp_epoch_close(sp_epoch *epoch, const sp_root *root, sp_trail *trail)
{
    /* The open version goes like a transaction that failed: its own nodes are freed, and what it
     * had retired is again the newest version's. */
    epoch->hooks->walk(root, epoch->open.floor, free_node, epoch);
    epoch->hooks->drop(epoch, trail);
    epoch->open.dead = (sp_deadlist){0};
    /* acq_rel: as in sp_epoch_publish; later acquisitions find no version */
    retire_version(epoch, sp_swap(&epoch->head, SP_SLOT_NONE, acq_rel));
    sp_epoch_collect(epoch);
    sp_epoch_unlock(epoch);
}
