/*
 * support_toy.c - the toy structure: its tree, its trail and what must be live.
 */
#include "support_toy.h"

#include <stdlib.h>
#include <string.h>

#define TOY_KIND 1
#define TOY_DEPTH 3 /* inner nodes on a path that random writes make */

typedef struct toy_node {
    sp_node head;
    uint64_t counted; /* the round in which a walk came by */
    sp_ref child[TOY_FANOUT];
} toy_node;

/* ---- blocks ---- */

/* Before each block; a block put aside links to the next. */
typedef struct tag {
    struct tag *next;
    uint64_t is_gone;
    uint64_t bytes;
    uint64_t unused;
} tag;

static void *take(void *context, size_t bytes, int zeroed)
{
    toy *t = context;
    tag *block = t->alloc.hook.alloc(&t->alloc, bytes + sizeof *block, zeroed);
    if (!block)
        return NULL;
    *block = (tag){.bytes = bytes};
    return block + 1;
}

static void put_aside(void *context, void *memory, size_t bytes)
{
    toy *t = context;
    tag *block = (tag *)memory - 1;
    CHECK(!block->is_gone);
    CHECK_EQ(block->bytes, bytes);
    block->is_gone = 1;
    block->next = t->gone;
    t->gone = block;
}

static void empty_aside(toy *t)
{
    for (tag *block = t->gone, *next; block; block = next) {
        next = block->next;
        t->alloc.hook.free(&t->alloc, block, block->bytes + sizeof *block);
    }
    t->gone = NULL;
}

/* ---- hooks ---- */

static void splice(sp_epoch *epoch, sp_trail *into, sp_trail *from)
{
    (void)epoch;
    if (!from->head)
        return;
    if (into->tail)
        ((toy_token *)into->tail)->next = from->head;
    else
        into->head = from->head;
    into->tail = from->tail;
    into->count += from->count;
    *from = (sp_trail){0};
}

static void drop(sp_epoch *epoch, sp_trail *trail)
{
    for (toy_token *token = trail->head, *next; token; token = next) {
        next = token->next;
        sp_mem_free(&epoch->mem, token, sizeof *token);
    }
    *trail = (sp_trail){0};
}

static toy_node *node_of(sp_ref ref) { return (toy_node *)sp_ref_node(ref); }

static void visit_below(sp_ref ref, uint64_t floor, sp_node_fn visit, void *context)
{
    if (!sp_ref_is_node(ref) || sp_node_birth(sp_ref_node(ref)) <= floor)
        return;
    for (unsigned i = 0; i < TOY_FANOUT; i++)
        visit_below(node_of(ref)->child[i], floor, visit, context);
    visit(context, sp_ref_node(ref));
}

static void walk(const sp_root *root, uint64_t floor, sp_node_fn visit, void *context)
{
    visit_below(root->ref, floor, visit, context);
}

static void destroy(sp_epoch *epoch) { ((toy *)epoch)->is_destroyed = true; }

static const sp_epoch_hooks hooks = {splice, drop, walk, destroy};

/* ---- the tree ---- */

static sp_root root_of(sp_ref ref) { return (sp_root){.ref = ref}; }

static sp_ref full_tree(toy *t, unsigned depth)
{
    if (!depth)
        return SP_FULL;
    toy_node *node = sp_edit_new(&t->epoch.open, TOY_KIND, sizeof *node);
    node->counted = 0;
    for (unsigned i = 0; i < TOY_FANOUT; i++)
        node->child[i] = full_tree(t, depth - 1);
    return sp_node_ref(node);
}

static void retire_node(void *edit, sp_node *node) { sp_edit_retire(edit, node); }

/* Makes the node ours, as every engine does. */
static toy_node *own(toy *t, sp_ref *ref)
{
    sp_edit *edit = &t->epoch.open;
    if (!sp_edit_owns(edit, sp_ref_node(*ref))) {
        toy_node *copy = sp_edit_copy(edit, sp_ref_node(*ref));
        sp_edit_retire(edit, sp_ref_node(*ref));
        *ref = sp_node_ref(copy);
    }
    return node_of(*ref);
}

static void change(toy *t, sp_ref *ref, unsigned depth, rng *r)
{
    if (!sp_ref_is_node(*ref)) {
        *ref = full_tree(t, (unsigned)rng_below(r, depth + 1));
    } else if (rng_chance(r, 6)) {
        visit_below(*ref, 0, retire_node, &t->epoch.open);
        *ref = rng_chance(r, 2) ? SP_EMPTY : full_tree(t, depth);
    } else {
        change(t, &own(t, ref)->child[rng_below(r, TOY_FANOUT)], depth - 1, r);
    }
}

/* Notes a write in the open version, or in the transaction. */
static void note(toy *t)
{
    sp_trail *trail = t->in_transaction ? &t->pending : &t->trail;
    toy_token *token = sp_mem_alloc(&t->epoch.mem, sizeof *token);
    *token = (toy_token){.number = ++t->seq};
    sp_trail one = {token, token, 1};
    splice(&t->epoch, trail, &one);
}

static void enter(toy *t) { CHECK_EQ(sp_lock_try(&t->epoch.lock), SP_OK); }

void toy_write(toy *t, rng *r)
{
    enter(t);
    change(t, &t->root, TOY_DEPTH, r);
    note(t);
    sp_epoch_unlock(&t->epoch);
}

void toy_drop(toy *t)
{
    enter(t);
    visit_below(t->root, 0, retire_node, &t->epoch.open);
    t->root = SP_EMPTY;
    note(t);
    sp_epoch_unlock(&t->epoch);
}

void toy_grow(toy *t, unsigned depth)
{
    toy_drop(t);
    enter(t);
    t->root = full_tree(t, depth);
    note(t);
    sp_epoch_unlock(&t->epoch);
}

void toy_publish(toy *t)
{
    sp_root root = root_of(t->root);
    enter(t);
    CHECK_EQ(sp_epoch_publish(&t->epoch, &root, t->seq, &t->trail), SP_OK);
    CHECK_EQ(t->trail.count, 0);
    t->current = (toy_pin){t->epoch.newest, root, t->seq, ++t->order};
    sp_epoch_unlock(&t->epoch);
}

void toy_begin(toy *t)
{
    enter(t);
    t->savepoint = sp_epoch_savepoint(&t->epoch);
    t->saved_root = t->root;
    t->in_transaction = true;
    sp_epoch_unlock(&t->epoch);
}

void toy_commit(toy *t, bool keep)
{
    sp_root made = root_of(t->root);
    enter(t);
    t->in_transaction = false;
    if (keep) {
        sp_epoch_keep(&t->epoch, &t->savepoint);
        splice(&t->epoch, &t->trail, &t->pending);
    } else {
        sp_epoch_undo(&t->epoch, &t->savepoint, &made);
        t->root = t->saved_root;
        t->seq -= t->pending.count;
        drop(&t->epoch, &t->pending);
    }
    sp_epoch_unlock(&t->epoch);
}

void toy_close(toy *t)
{
    sp_root root = root_of(t->root);
    enter(t);
    t->is_closed = true;
    t->root = SP_EMPTY;
    sp_epoch_close(&t->epoch, &root, &t->trail);
}

void toy_acquire(toy *t)
{
    bool crowded;
    if (t->pins == TOY_MAX_PINS)
        return;
    sp_slot slot = sp_epoch_acquire(&t->epoch, &crowded);
    CHECK(!crowded);
    CHECK_EQ(slot, t->current.slot);
    t->pin[t->pins++] = t->current;
}

void toy_retain(toy *t, unsigned pin)
{
    if (t->pins == TOY_MAX_PINS)
        return;
    sp_epoch_retain(&t->epoch, t->pin[pin].slot);
    t->pin[t->pins++] = t->pin[pin];
}

void toy_release(toy *t, unsigned pin)
{
    sp_slot slot = t->pin[pin].slot;
    t->pin[pin] = t->pin[--t->pins];
    sp_epoch_release(&t->epoch, slot);
}

/* ---- life ---- */

void toy_open(toy *t)
{
    sp_root root = root_of(SP_EMPTY);
    memset(t, 0, sizeof *t);
    alloc_init(&t->alloc);
    t->aside = (sp_allocator){.alloc = take, .free = put_aside, .context = t};
    CHECK_EQ(sp_epoch_init(&t->epoch, &t->aside, &hooks, &root), SP_OK);
    t->current = (toy_pin){t->epoch.newest, root, 0, 0};
}

void toy_end(toy *t)
{
    CHECK(t->is_destroyed);
    CHECK_EQ(sp_load(&t->epoch.nodes.blocks, relaxed), 0);
    CHECK_EQ(sp_load(&t->epoch.mem.blocks, relaxed), 0);
    empty_aside(t);
    CHECK_EQ(alloc_blocks(&t->alloc), 0);
}

/* ---- what must be ---- */

uint64_t toy_live(const toy *t) { return sp_load(&t->epoch.nodes.blocks, relaxed); }

/* Nodes below ref not counted in this round; checks that all are live. */
static uint64_t count_below(const toy *t, sp_ref ref)
{
    if (!sp_ref_is_node(ref))
        return 0;
    toy_node *node = node_of(ref);
    if (!CHECK(!((const tag *)(const void *)node - 1)->is_gone) || node->counted == t->round)
        return 0;
    node->counted = t->round;
    uint64_t total = 1;
    for (unsigned i = 0; i < TOY_FANOUT; i++)
        total += count_below(t, node->child[i]);
    return total;
}

/* The versions still linked are the newest one and those pinned; no deadlist holds a node too
 * young, and the oldest version has no trail. */
static void verify_versions(const toy *t)
{
    uint64_t linked = 0, wanted = t->is_closed ? 0 : 1;
    for (unsigned i = 0; i < t->pins; i++) {
        bool again = !t->is_closed && t->pin[i].slot == t->current.slot;
        for (unsigned j = 0; j < i; j++)
            again |= t->pin[j].slot == t->pin[i].slot;
        wanted += !again;
    }
    for (sp_slot s = t->epoch.newest; s != SP_SLOT_NONE; linked++) {
        const sp_version *v = sp_epoch_version(&t->epoch, s);
        uint64_t nodes = 0, reached = 0;
        if (v->prev != SP_SLOT_NONE)
            reached = sp_epoch_version(&t->epoch, v->prev)->generation;
        for (const sp_node *x = v->dead.head; x; x = x->dead_link, nodes++)
            CHECK(sp_node_birth(x) <= reached);
        CHECK_EQ(v->dead.count, nodes);
        if (v->prev == SP_SLOT_NONE)
            CHECK_EQ(v->trail.count, 0); /* nobody is left to ask */
        s = v->prev;
    }
    CHECK_EQ(linked, wanted);
}

/* Between two pins lie exactly the tokens committed between them. */
static void verify_trail(const toy *t, const toy_pin *newer, const toy_pin *older)
{
    uint64_t tokens = 0, sum = 0, low = older->seq, high = newer->seq;
    for (sp_slot s = newer->slot; s != older->slot; s = sp_epoch_version(&t->epoch, s)->prev) {
        const sp_trail *trail = &sp_epoch_version(&t->epoch, s)->trail;
        for (const toy_token *token = trail->head; token; token = token->next, tokens++) {
            CHECK(token->number > low && token->number <= high);
            sum += token->number;
        }
    }
    CHECK_EQ(tokens, high - low);
    CHECK_EQ(sum, (high * (high + 1) - low * (low + 1)) / 2);
}

void toy_verify(toy *t)
{
    t->round++;
    uint64_t reachable = count_below(t, t->root);
    if (t->in_transaction)
        reachable += count_below(t, t->saved_root);
    if (!t->is_closed)
        reachable += count_below(t, t->current.root.ref);
    for (unsigned i = 0; i < t->pins; i++)
        reachable += count_below(t, t->pin[i].root.ref);
    CHECK_EQ(toy_live(t), reachable);
    verify_versions(t);
    for (unsigned i = 0; i + 1 < t->pins; i++) {
        const toy_pin *a = &t->pin[i], *b = &t->pin[i + 1];
        verify_trail(t, a->order > b->order ? a : b, a->order > b->order ? b : a);
    }
}
