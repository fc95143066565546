/*
 * attr_array.c - an entry a private page in a radix tree, as KVM keeps memory attributes.
 *
 * The tree is the kernel's xarray without marks, locks and multi-index entries: KVM uses none of
 * the last, and stores page by page.  Nodes appear on demand and go when their last slot empties.
 * Kinder than KVM: making pages shared reserves nothing, because it cannot run out of memory.
 */
#include <malloc.h>
#include <stdlib.h>

#include "split.h"

#define SLOTS 64
#define SLOT_BITS 6

/* Entries: KVM_MEMORY_ATTRIBUTE_PRIVATE (8) as a value entry of an xarray, and a reserved slot. */
#define ENTRY_PRIVATE ((uintptr_t)8 << 1 | 1)
#define ENTRY_RESERVED ((uintptr_t)257 << 2 | 2)

/* Fields and size of the kernel's xa_node; those not used keep their room. */
typedef struct node {
    uint8_t shift, offset, count, nr_values;
    struct node *parent;
    void *array, *private_list[2];
    uintptr_t slots[SLOTS]; /* a node, or with shift 0 an entry; 0 is empty */
    uint64_t marks[3];
} node;

_Static_assert(sizeof(void *) != 8 || sizeof(node) == 576, "the size of the kernel's node");

struct rival_attr {
    node *root;
    size_t bytes; /* of all nodes */
    bool batched;
};

static inline unsigned slot_of(const node *n, uint64_t gfn)
{
    return gfn >> n->shift & (SLOTS - 1);
}

/* True if the tree below n, a root, has a place for gfn. */
static inline bool covers(const node *n, uint64_t gfn) { return !(gfn >> n->shift >> SLOT_BITS); }

static node *node_new(rival_attr *attr, node *parent, unsigned shift, unsigned offset)
{
    node *n = calloc(1, sizeof *n);
    if (!n)
        return NULL;
    n->shift = (uint8_t)shift;
    n->offset = (uint8_t)offset;
    n->parent = parent;
    n->array = attr;
    attr->bytes += malloc_usable_size(n);
    return n;
}

rival_attr *rival_attr_new(bool batched)
{
    rival_attr *attr = calloc(1, sizeof *attr);
    if (attr)
        attr->batched = batched;
    return attr;
}

static void node_free(node *n)
{
    for (unsigned i = 0; n->shift && i < SLOTS; i++) {
        if (n->slots[i])
            node_free((node *)n->slots[i]);
    }
    free(n);
}

void rival_attr_free(rival_attr *attr)
{
    if (attr->root)
        node_free(attr->root);
    free(attr);
}

/* The leaf that holds gfn, or NULL; *end is where it, or the empty subtree, ends. */
static node *find_leaf(const rival_attr *attr, uint64_t gfn, uint64_t *end)
{
    node *n = attr->root;
    if (!n || !covers(n, gfn)) {
        *end = UINT64_MAX;
        return NULL;
    }
    for (; n->shift; n = (node *)n->slots[slot_of(n, gfn)]) {
        if (!n->slots[slot_of(n, gfn)]) {
            *end = ((gfn >> n->shift) + 1) << n->shift;
            return NULL;
        }
    }
    *end = (gfn | (SLOTS - 1)) + 1;
    return n;
}

/* Adds roots until gfn has a place. */
static bool grow(rival_attr *attr, uint64_t gfn)
{
    if (!attr->root) {
        unsigned shift = 0;
        while (gfn >> shift >> SLOT_BITS)
            shift += SLOT_BITS;
        attr->root = node_new(attr, NULL, shift, 0);
    }
    while (attr->root && !covers(attr->root, gfn)) {
        node *old = attr->root;
        node *root = node_new(attr, NULL, old->shift + SLOT_BITS, 0);
        if (!root)
            return false;
        root->slots[0] = (uintptr_t)old;
        root->count = 1;
        old->parent = root;
        attr->root = root;
    }
    return attr->root != NULL;
}

/* The leaf that holds gfn, made where it is missing; NULL: no memory. */
static node *make_leaf(rival_attr *attr, uint64_t gfn)
{
    if (!grow(attr, gfn))
        return NULL;
    node *n = attr->root;
    while (n->shift) {
        unsigned slot = slot_of(n, gfn);
        if (!n->slots[slot]) {
            node *child = node_new(attr, n, n->shift - SLOT_BITS, slot);
            if (!child)
                return NULL;
            n->slots[slot] = (uintptr_t)child;
            n->count++;
        }
        n = (node *)n->slots[slot];
    }
    return n;
}

static inline void set_slot(node *leaf, unsigned slot, uintptr_t entry)
{
    leaf->count = (uint8_t)(leaf->count + !leaf->slots[slot]);
    leaf->slots[slot] = entry;
}

static inline void clear_slot(node *leaf, unsigned slot)
{
    leaf->count = (uint8_t)(leaf->count - !!leaf->slots[slot]);
    leaf->slots[slot] = 0;
}

/* Frees a node without entries, and what that empties above it. */
static void drop_if_empty(rival_attr *attr, node *n)
{
    while (!n->count) {
        node *parent = n->parent;
        if (parent)
            clear_slot(parent, n->offset);
        else
            attr->root = NULL;
        attr->bytes -= malloc_usable_size(n);
        free(n);
        if (!parent)
            return;
        n = parent;
    }
}

/* True if every page of a range has `entry`, 0 for none. */
static bool range_has(const rival_attr *attr, uint64_t start, uint64_t stop, uintptr_t entry)
{
    for (uint64_t gfn = start, end; gfn < stop; gfn = end) {
        const node *leaf = find_leaf(attr, gfn, &end);
        if (!leaf && entry)
            return false;
        for (uint64_t i = gfn; leaf && i < end && i < stop; i++) {
            if (leaf->slots[i % SLOTS] != entry)
                return false;
        }
    }
    return true;
}

/* Both ways to make pages private; a reservation that fails stays, as KVM's does. */
static bool store_batched(rival_attr *attr, uint64_t start, uint64_t stop)
{
    for (uint64_t gfn = start; gfn < stop;) {
        node *leaf = make_leaf(attr, gfn);
        if (!leaf)
            return false;
        do
            set_slot(leaf, gfn % SLOTS, ENTRY_PRIVATE);
        while (++gfn < stop && gfn % SLOTS);
    }
    return true;
}

static bool store_each(rival_attr *attr, uint64_t start, uint64_t stop)
{
    for (uint64_t gfn = start; gfn < stop; gfn++) {
        node *leaf = make_leaf(attr, gfn);
        if (!leaf)
            return false;
        if (!leaf->slots[gfn % SLOTS])
            set_slot(leaf, gfn % SLOTS, ENTRY_RESERVED);
    }
    for (uint64_t gfn = start; gfn < stop; gfn++)
        set_slot(make_leaf(attr, gfn), gfn % SLOTS, ENTRY_PRIVATE);
    return true;
}

static void erase(rival_attr *attr, uint64_t start, uint64_t stop)
{
    for (uint64_t gfn = start, end; gfn < stop;) {
        node *leaf = find_leaf(attr, gfn, &end);
        uint64_t until = !leaf || attr->batched ? end : gfn + 1;
        until = until < stop ? until : stop;
        for (uint64_t i = gfn; leaf && i < until; i++)
            clear_slot(leaf, i % SLOTS);
        if (leaf)
            drop_if_empty(attr, leaf);
        gfn = until;
    }
}

bool rival_attr_convert(rival_attr *attr, uint64_t start, uint64_t stop, bool shared)
{
    if (range_has(attr, start, stop, shared ? 0 : ENTRY_PRIVATE))
        return true;
    if (shared) {
        erase(attr, start, stop);
        return true;
    }
    return attr->batched ? store_batched(attr, start, stop) : store_each(attr, start, stop);
}

bool rival_attr_load(rival_attr *attr, uint64_t npages, const rival_range *ranges, size_t n)
{
    uint64_t start = 0;
    for (size_t i = 0; i < n; i++) {
        if (!store_batched(attr, start, ranges[i].start))
            return false;
        start = ranges[i].stop;
    }
    return store_batched(attr, start, npages);
}

bool rival_attr_apply(rival_attr *attr, const rival_event *events, size_t n)
{
    for (size_t i = 0; i < n; i++) {
        const rival_event *e = &events[i];
        if (!rival_attr_convert(attr, e->start, e->start + e->npages, e->shared))
            return false;
    }
    return true;
}

size_t rival_attr_bytes(const rival_attr *attr) { return attr->bytes; }

bool rival_attr_is_private(const rival_attr *attr, uint64_t gfn)
{
    const node *n = attr->root;
    if (!n || !covers(n, gfn))
        return false;
    while (n->shift) {
        n = (const node *)n->slots[slot_of(n, gfn)];
        if (!n)
            return false;
    }
    return n->slots[gfn % SLOTS] == ENTRY_PRIVATE;
}

static inline bool is_shared(const void *context, uint64_t gfn)
{
    return !rival_attr_is_private(context, gfn);
}

bool rival_attr_merge(const rival_attr *attr, const uint64_t *dirty, size_t nwords,
                      rival_split *out)
{
    uint64_t looked_up = 0;
    return split_pages(dirty, nwords, 1, is_shared, attr, out, &looked_up);
}
