/*
 * changes.c - logging conversions, and uniting the logs.  Floor 4.
 */
#include "tracker/changes.h"

#include <string.h>

#include "base/sort.h"

/* Cells of a trail that is shortened: of ranges, 1 MiB. */
#define LONG_TRAIL 256u

/* Cells of one tier that are united into one of the next, at a time: a writer waits for that. */
#define TIER_CELLS 8u
#define TIERS 16u

/* Sets of this tier come from 16,384 ranges: uniting eight takes milliseconds. */
#define LARGE_TIER 2u

/* ---- cells ---- */

static size_t cell_bytes(uint32_t n) { return sizeof(sp_cell) + n * sizeof(sp_range); }

static sp_cell *new_cell(const sp_keeper *keeper, uint32_t n)
{
    sp_cell *cell = sp_mem_alloc(keeper->mem, cell_bytes(n));
    if (cell) {
        *cell = (sp_cell){.keeper = keeper, .n = n};
        atomic_init(&cell->refs, 1);
    }
    return cell;
}

void sp_cell_release(sp_cell *cell)
{
    /* acq_rel: the last release pairs with all others, whose reads must be over */
    if (sp_sub(&cell->refs, 1, acq_rel) != 1)
        return;
    sp_mem *mem = cell->keeper->mem;
    if (cell->pages)
        sp_sub(&mem->bytes, sp_pageset_bytes(cell->pages), relaxed); /* relaxed: statistics */
    sp_pageset_release(cell->pages);
    sp_mem_free(mem, cell, cell_bytes(cell->n));
}

sp_status sp_cell_of(const sp_keeper *keeper, sp_pageset *pages, sp_cell **out)
{
    sp_cell *cell = new_cell(keeper, 0);
    if (!cell)
        return SP_NOMEM;
    cell->pages = pages;
    sp_add(&keeper->mem->bytes, sp_pageset_bytes(pages), relaxed); /* relaxed: statistics */
    *out = cell;
    return SP_OK;
}

/* ---- trails ---- */

static void append(sp_trail *trail, sp_cell *cell)
{
    cell->next = NULL;
    if (trail->tail)
        ((sp_cell *)trail->tail)->next = cell;
    else
        trail->head = cell;
    trail->tail = cell;
    trail->count++;
}

void sp_trail_drop(sp_trail *trail)
{
    for (sp_cell *cell = trail->head, *next; cell; cell = next) {
        next = cell->next;
        sp_cell_release(cell);
    }
    *trail = (sp_trail){0};
}

/* Unites the cells of one tier, if there are enough of them and memory for it. */
static void unite_tier(sp_trail *trail, uint32_t tier)
{
    sp_cell *chosen[TIER_CELLS];
    uint32_t n = 0;
    for (sp_cell *cell = trail->head; cell && n < TIER_CELLS; cell = cell->next)
        if (cell->tier == tier)
            chosen[n++] = cell;
    if (n < TIER_CELLS)
        return;
    const sp_keeper *keeper = chosen[0]->keeper;
    for (uint32_t i = 0; i < n; i++)
        sp_add(&chosen[i]->refs, 1, relaxed); /* relaxed: the trail's own reference holds it */
    sp_pageset *pages;
    sp_cell *united;
    if (sp_cells_unite(keeper, chosen, n, &pages) != SP_OK)
        return;
    if (sp_cell_of(keeper, pages, &united) != SP_OK) {
        sp_pageset_release(pages);
        return;
    }
    united->tier = tier + 1;
    sp_trail rest = {0};
    uint32_t passed = 0; /* chosen ones, which are in the trail's order */
    for (sp_cell *cell = trail->head, *next; cell; cell = next) {
        next = cell->next;
        if (passed < n && chosen[passed] == cell) {
            sp_cell_release(cell);
            passed++;
        } else {
            append(&rest, cell);
        }
    }
    append(&rest, united);
    *trail = rest;
}

/* Shortens a long trail by one group of each tier.  Large sets wait until it is longer still: a
 * writer waits for their union, and most trails are dropped before. */
static void compact(sp_trail *trail)
{
    for (uint32_t tier = 0; tier < TIERS; tier++) {
        if (trail->count < (tier < LARGE_TIER ? LONG_TRAIL : 2 * LONG_TRAIL))
            return;
        unite_tier(trail, tier);
    }
}

void sp_trail_splice(sp_trail *into, sp_trail *from)
{
    if (!from->head)
        return;
    if (into->tail)
        ((sp_cell *)into->tail)->next = from->head;
    else
        into->head = from->head;
    into->tail = from->tail;
    into->count += from->count;
    *from = (sp_trail){0};
    compact(into);
}

/* ---- the log ---- */

void sp_changes_add(sp_changes *changes, uint64_t start, uint64_t stop)
{
    if (changes->n) {
        sp_range *last = &changes->log[changes->n - 1];
        /* The same buffer again, or its continuation, is what guests do most. */
        if (start <= last->stop && last->start <= stop) {
            last->start = sp_min(last->start, start);
            last->stop = sp_max(last->stop, stop);
            return;
        }
    }
    SP_ASSERT(changes->n < SP_LOG_RANGES);
    changes->log[changes->n++] = (sp_range){start, stop};
}

sp_status sp_changes_reserve(sp_changes *changes, const sp_keeper *keeper, uint32_t n)
{
    return changes->n + n <= SP_LOG_RANGES ? SP_OK : sp_changes_flush(changes, keeper);
}

void sp_changes_add_cell(sp_changes *changes, sp_cell *cell)
{
    append(&changes->trail, cell);
    compact(&changes->trail);
}

sp_status sp_changes_flush(sp_changes *changes, const sp_keeper *keeper)
{
    if (!changes->n)
        return SP_OK;
    sp_cell *cell = new_cell(keeper, changes->n);
    if (!cell)
        return SP_NOMEM;
    memcpy(cell->ranges, changes->log, changes->n * sizeof *changes->log);
    changes->n = 0;
    sp_changes_add_cell(changes, cell);
    return SP_OK;
}

sp_status sp_changes_ready(const sp_changes *into, sp_changes *from, const sp_keeper *keeper)
{
    return from->n <= SP_LOG_RANGES - into->n ? SP_OK : sp_changes_flush(from, keeper);
}

void sp_changes_join(sp_changes *into, sp_changes *from)
{
    for (uint32_t i = 0; i < from->n; i++)
        sp_changes_add(into, from->log[i].start, from->log[i].stop);
    from->n = 0;
    sp_trail_splice(&into->trail, &from->trail);
}

void sp_changes_clear(sp_changes *changes)
{
    changes->n = 0;
    sp_trail_drop(&changes->trail);
}

/* ---- union ---- */

/* Adds the ranges of all cells that are bags of them, sorted. */
static sp_status unite_ranges(sp_pageset *made, const sp_keeper *keeper, sp_cell **cells, size_t n)
{
    size_t total = 0, used = 0;
    for (size_t i = 0; i < n; i++)
        total += cells[i]->n;
    if (!total)
        return SP_OK;
    size_t bytes = 2 * total * sizeof(sp_range);
    sp_range *list = sp_mem_alloc(keeper->mem, bytes);
    if (!list)
        return SP_NOMEM;
    for (size_t i = 0; i < n; i++) {
        memcpy(list + used, cells[i]->ranges, cells[i]->n * sizeof *list);
        used += cells[i]->n;
    }
    sp_sort_ranges(list, list + total, total);
    sp_edit edit = sp_pageset_edit(made);
    sp_status status = sp_set_add_sorted(&edit, sp_pageset_open(made), list, total);
    sp_mem_free(keeper->mem, list, bytes);
    return status;
}

static sp_status unite_set(sp_pageset *made, const sp_pageset *pages)
{
    sp_edit edit = sp_pageset_edit(made);
    sp_set *set = sp_pageset_open(made), sum;
    sp_status status = sp_set_combine(&edit, SP_OR, set, sp_pageset_set(pages), &sum);
    if (status)
        return status;
    sp_set_retire(&edit, set);
    *set = sum;
    return SP_OK;
}

/* A new set of all the cells hold. */
static sp_status unite(const sp_keeper *keeper, sp_cell **cells, size_t n, sp_pageset **out)
{
    sp_pageset *made;
    sp_status status = sp_pageset_new(keeper->mem->allocator, keeper->engine, &made);
    if (status)
        return status;
    status = unite_ranges(made, keeper, cells, n);
    for (size_t i = 0; !status && i < n; i++)
        if (cells[i]->pages)
            status = unite_set(made, cells[i]->pages);
    if (status)
        sp_pageset_release(made);
    else
        *out = made;
    return status;
}

sp_status sp_cells_unite(const sp_keeper *keeper, sp_cell **cells, size_t n, sp_pageset **out)
{
    sp_status status = SP_OK;
    if (n == 1 && cells[0]->pages)
        *out = sp_pageset_retain(cells[0]->pages);
    else
        status = unite(keeper, cells, n, out);
    for (size_t i = 0; i < n; i++)
        sp_cell_release(cells[i]);
    return status;
}
