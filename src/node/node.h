/*
 * node.h - the 16-byte header of every block of a set, and the edit context.  Floor 1.
 *
 * A node is born in a generation and is freed when no version can reach it; its header is all
 * that the epoch room needs to decide that.  A reference (sp_ref) to a child is one 64-bit word:
 * EMPTY and FULL are values, a node is its address, and words whose two low bits are not zero are
 * left to the room that defines the child (leaf/ packs short run lists into them).
 *
 * An edit context says what a writer may do in place.  A node with birth > floor was born since
 * the newest version (or savepoint): no reader can reach it, it is changed in place and freed at
 * once when retired.  Any other node is immutable: it is copied, and the original goes to the
 * deadlist.  A set that no tracker shares is edited with floor 0 and generation 1.
 *
 * Nodes of generation SP_COUNTED belong to no version: page sets hold them together, and the last
 * holder frees them.  They need no deadlist, so the count stands where its link would.  A set made
 * in that generation takes whole subtrees of its operands by raising one count.
 */
#ifndef SP_NODE_NODE_H
#define SP_NODE_NODE_H

#include "base/bits.h"
#include "base/mem.h"
#include "base/status.h"

typedef uint64_t sp_ref;

#define SP_EMPTY ((sp_ref)0)
#define SP_FULL ((sp_ref)1)

/* Blocks are a multiple of this; 12 bits of the header count them. */
#define SP_NODE_UNIT 16
#define SP_NODE_MAX_BYTES (SP_NODE_UNIT * 4095)

typedef struct sp_node {
    uint64_t tag; /* birth:48 | kind:4 | units:12; set when made, then constant */
    union {
        struct sp_node
            *dead_link; /* next on a deadlist; under the writer lock, readers never look */
        _Atomic uint64_t holders; /* of a counted node: parents and sets that name it; any thread */
    };
} sp_node;

/* The birth of counted nodes; trackers number theirs from below and never come here. */
#define SP_COUNTED ((UINT64_C(1) << 48) - 1)

_Static_assert(sizeof(sp_node) == 16, "the header is one SSE register");
_Static_assert(sizeof(void *) == 8, "an address fits an sp_ref");

/* Retired nodes that an older version may still reach, newest first. */
typedef struct sp_deadlist {
    sp_node *head;
    sp_node *tail;
    uint64_t count;
} sp_deadlist;

struct sp_kernels;

typedef struct sp_edit {
    sp_mem *mem;
    const struct sp_kernels *kernels; /* the table that the operation fetched */
    uint64_t generation;              /* stamped on nodes made */
    uint64_t floor;                   /* nodes born after it are ours */
    sp_deadlist dead;                 /* retired nodes born at or before the floor */
} sp_edit;

#define SP_TURNED_RANGES 8u

/* What a change of a range changed: `pages` of it, and unless that is none or all, which. */
typedef struct sp_turned {
    uint32_t most; /* set by the caller: ranges to be told of, at most SP_TURNED_RANGES */
    uint32_t n;
    uint64_t pages;
    sp_range range[SP_TURNED_RANGES];
} sp_turned;

static inline bool sp_ref_is_node(sp_ref ref) { return ref && !(ref & 3); }
static inline sp_node *sp_ref_node(sp_ref ref) { return (sp_node *)(uintptr_t)ref; }
typedef void (*sp_node_fn)(void *context, sp_node *node);
static inline sp_ref sp_node_ref(const void *node) { return (sp_ref)(uintptr_t)node; }

static inline uint64_t sp_node_birth(const sp_node *node) { return node->tag >> 16; }
static inline unsigned sp_node_kind(const sp_node *node) { return (node->tag >> 12) & 15; }
static inline size_t sp_node_bytes(const sp_node *node)
{
    return (node->tag & 4095) * SP_NODE_UNIT;
}

static inline bool sp_edit_owns(const sp_edit *edit, const sp_node *node)
{
    return sp_node_birth(node) > edit->floor;
}

/* An edit of a set of its own: every node may be changed in place. */
static inline sp_edit sp_edit_private(sp_mem *mem, const struct sp_kernels *kernels)
{
    return (sp_edit){.mem = mem, .kernels = kernels, .generation = 1, .floor = 0};
}

/* An edit that makes counted nodes; those of other sets are not changed, only held. */
static inline sp_edit sp_edit_counted(sp_mem *mem, const struct sp_kernels *kernels)
{
    return (sp_edit){.mem = mem, .kernels = kernels, .generation = SP_COUNTED, .floor = 0};
}

static inline bool sp_edit_is_counted(const sp_edit *edit)
{
    return edit->generation == SP_COUNTED;
}

static inline bool sp_node_is_counted(const sp_node *node)
{
    return sp_node_birth(node) == SP_COUNTED;
}

/* True if what is being made may name a node of another set instead of a copy.  All sets that share
 * nodes allocate with one hook. */
static inline bool sp_edit_may_hold(const sp_edit *edit, sp_ref ref)
{
    return sp_ref_is_node(ref) && sp_edit_is_counted(edit) && sp_node_is_counted(sp_ref_node(ref));
}

/* Another holder of a counted node, for someone who holds it already; nothing for other refs. */
static inline void sp_ref_hold(sp_ref ref)
{
    if (sp_ref_is_node(ref) && sp_node_is_counted(sp_ref_node(ref)))
        /* relaxed: the caller's own hold keeps the node alive */
        sp_add(&sp_ref_node(ref)->holders, 1, relaxed);
}

/* Gives up one hold of a node.  True if nobody else has one: the caller retires its children and
 * then the node.  Nodes that are not counted have one holder. */
static inline bool sp_node_let_go(sp_node *node)
{
    if (!sp_node_is_counted(node))
        return true;
    /* acquire: pairs with the others' release below, whose reads must be over before we free;
     * a count of one is ours and cannot rise */
    if (sp_load(&node->holders, acquire) == 1)
        return true;
    return sp_sub(&node->holders, 1, acq_rel) == 1;
}

/* A new node of `kind` and at least `bytes` (rounded up to units, at most SP_NODE_MAX_BYTES), its
 * header set and the rest undefined.  NULL if memory is short. */
void *sp_edit_new(sp_edit *edit, unsigned kind, size_t bytes);

/* A copy of `node`, born now.  The original is not retired.  NULL if memory is short. */
void *sp_edit_copy(sp_edit *edit, const sp_node *node);

/* Takes one node (not its children) out of the set being edited: freed if ours, else put on the
 * deadlist.  A counted one has no other holder.  Cannot fail. */
void sp_edit_retire(sp_edit *edit, sp_node *node);

/* The same as an sp_node_fn, for walks; `edit` is the sp_edit. */
void sp_edit_retire_node(void *edit, sp_node *node);

void sp_node_free(sp_mem *mem, sp_node *node);

void sp_deadlist_push(sp_deadlist *list, sp_node *node);
sp_node *sp_deadlist_pop(sp_deadlist *list);
/* Moves all of `from` to the front of `to`, in O(1). */
void sp_deadlist_splice(sp_deadlist *to, sp_deadlist *from);

#endif
