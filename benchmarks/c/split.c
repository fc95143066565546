/*
 * split.c - the lists of ranges that a split fills.
 */
#include "split.h"

#include <stdlib.h>

bool rival_ranges_grow(rival_ranges *list, size_t more)
{
    size_t room = list->room * 2;
    if (room < list->n + more)
        room = list->n + more;
    uint64_t *gfns = realloc(list->gfns, room * sizeof *gfns);
    if (!gfns)
        return false;
    list->gfns = gfns;
    list->room = room;
    return true;
}

void rival_free(void *memory) { free(memory); }
