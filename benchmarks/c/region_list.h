/*
 * region_list.h - the linked list that KVM's and QEMU's rivals both are.
 *
 * A circle through the head, which is no region; regions ascend, disjoint and never adjacent.
 */
#ifndef RIVALS_REGION_LIST_H
#define RIVALS_REGION_LIST_H

#include "rivals.h"

typedef struct region {
    struct region *next, *prev;
    uint64_t start, stop;
} region;

struct rival_list {
    region head;
    size_t n;
};

#endif
