/*
 * pages.c - a harvest made a set of pages.  Floor 4.
 *
 * A merge never does this: a set of random pages takes many times as long to make as to send.  It
 * is for who asks which pages a harvest has.
 */
#include "dirty/merge.h"

/* Ranges that are added to the set at a time. */
#define BATCH 512

static sp_status fill(sp_pageset *made, sp_merge *merge)
{
    sp_edit edit = sp_pageset_edit(made);
    sp_range room[BATCH + 1];
    sp_list none = {room + BATCH, 0, 1, 0}, pages = {room, 0, BATCH, 0};
    sp_status status = SP_OK;
    for (bool over = false; !status && !over; pages.n = 0) {
        over = sp_merge_next(merge, &none, &pages);
        status = sp_set_add_sorted(&edit, sp_pageset_open(made), pages.ranges, pages.n);
    }
    return status;
}

sp_status sp_merge_pages(const sp_allocator *allocator, sp_harvest *harvest, sp_pageset **out)
{
    sp_set none = sp_set_empty(sp_harvest_sparse(harvest)->engine);
    sp_pageset *made;
    sp_merge *merge;
    sp_status status = sp_pageset_new(allocator, none.engine, &made);
    if (status)
        return status;
    status = sp_merge_new(allocator, harvest, &none, &none, &merge);
    if (!status) {
        status = fill(made, merge);
        sp_merge_free(merge);
    }
    if (status)
        sp_pageset_release(made);
    else
        *out = made;
    return status;
}
