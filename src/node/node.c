/*
 * node.c - making, copying and retiring nodes.  Floor 1.
 */
#include "node/node.h"

#include <string.h>

void *sp_edit_new(sp_edit *edit, unsigned kind, size_t bytes)
{
    size_t units = (bytes + SP_NODE_UNIT - 1) / SP_NODE_UNIT;
    SP_ASSERT(units <= 4095 && kind < 16);
    sp_node *node = sp_mem_alloc(edit->mem, units * SP_NODE_UNIT);
    if (node) {
        node->tag = edit->generation << 16 | (uint64_t)kind << 12 | units;
        if (sp_edit_is_counted(edit))
            atomic_init(&node->holders, 1);
        else
            node->dead_link = NULL;
    }
    return node;
}

void *sp_edit_copy(sp_edit *edit, const sp_node *node)
{
    size_t bytes = sp_node_bytes(node);
    sp_node *copy = sp_edit_new(edit, sp_node_kind(node), bytes);
    if (copy)
        memcpy(copy + 1, node + 1, bytes - sizeof *node);
    return copy;
}

void sp_node_free(sp_mem *mem, sp_node *node) { sp_mem_free(mem, node, sp_node_bytes(node)); }

void sp_edit_retire(sp_edit *edit, sp_node *node)
{
    if (sp_edit_owns(edit, node))
        sp_node_free(edit->mem, node);
    else
        sp_deadlist_push(&edit->dead, node);
}

void sp_edit_retire_node(void *edit, sp_node *node) { sp_edit_retire(edit, node); }

void sp_deadlist_push(sp_deadlist *list, sp_node *node)
{
    node->dead_link = list->head;
    list->head = node;
    if (!list->tail)
        list->tail = node;
    list->count++;
}

sp_node *sp_deadlist_pop(sp_deadlist *list)
{
    sp_node *node = list->head;
    if (!node)
        return NULL;
    list->head = node->dead_link;
    if (!list->head)
        list->tail = NULL;
    list->count--;
    return node;
}

void sp_deadlist_splice(sp_deadlist *to, sp_deadlist *from)
{
    if (!from->head)
        return;
    from->tail->dead_link = to->head;
    to->head = from->head;
    if (!to->tail)
        to->tail = from->tail;
    to->count += from->count;
    *from = (sp_deadlist){0};
}
