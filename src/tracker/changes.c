/*
 * changes.c - logging conversions, and uniting the logs.  Floor 4.
 */
#include "tracker/changes.h"

#include <string.h>

#include "base/sort.h"

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

/* Retains the first n cells of one tier if there are TIER_CELLS at least; returns how many. */
static uint32_t choose(const sp_trail *trail, uint32_t tier, sp_cell **chosen, uint64_t n)
{
    uint32_t found = 0;
    for (sp_cell *cell = trail->head; cell && found < n; cell = cell->next)
        if (cell->tier == tier)
            chosen[found++] = cell;
    if (found < TIER_CELLS)
        return 0;
    for (uint32_t i = 0; i < found; i++)
        sp_add(&chosen[i]->refs, 1, relaxed); /* relaxed: the trail's own reference holds it */
    return found;
}

/* Puts `united` in the place of the first n cells of one tier. */
static void substitute(sp_trail *trail, uint32_t tier, uint32_t n, sp_cell *united)
{
    sp_trail rest = {0};
    for (sp_cell *cell = trail->head, *next; cell; cell = next) {
        next = cell->next;
        if (n && cell->tier == tier) {
            sp_cell_release(cell);
            n--;
        } else {
            append(&rest, cell);
        }
    }
    append(&rest, united);
    *trail = rest;
}

/* The tier of n cells of a tier when they are one. */
static uint32_t tier_above(uint32_t tier, uint32_t n)
{
    for (; n > 1; n /= TIER_CELLS)
        tier++;
    return (uint32_t)sp_min(tier, TIERS);
}

/* Unites up to n cells of one tier, if they are enough of them and memory for it. */
static void unite_tier(sp_trail *trail, uint32_t tier, uint64_t n)
{
    const sp_keeper *keeper = ((sp_cell *)trail->head)->keeper;
    sp_cell *united, **chosen = sp_mem_alloc(keeper->mem, n * sizeof *chosen);
    sp_pageset *pages;
    if (!chosen)
        return;
    uint32_t found = choose(trail, tier, chosen, n);
    sp_status status = found ? sp_cells_unite(keeper, chosen, found, &pages) : SP_AGAIN;
    sp_mem_free(keeper->mem, chosen, n * sizeof *chosen);
    if (status)
        return;
    if (sp_cell_of(keeper, pages, &united) != SP_OK) {
        sp_pageset_release(pages);
        return;
    }
    united->tier = tier_above(tier, found);
    substitute(trail, tier, found, united);
}

/* Unites cells of each tier while the trail is long: so many that it no longer is, but no more than
 * `most` at a time.  Large sets wait until it is longer still: a writer waits for their union, and
 * most trails are dropped before. */
static void compact(sp_trail *trail, uint64_t most)
{
    for (uint32_t tier = 0; tier < TIERS; tier++) {
        uint64_t limit = tier < LARGE_TIER ? SP_LONG_TRAIL : 2 * SP_LONG_TRAIL;
        if (trail->count < limit)
            return;
        unite_tier(trail, tier, sp_min(trail->count - limit + TIER_CELLS, most));
    }
}

void sp_trail_shorten(sp_trail *trail) { compact(trail, UINT32_MAX); }

static void link_trails(sp_trail *into, sp_trail *from)
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
}

void sp_trail_splice(sp_trail *into, sp_trail *from)
{
    link_trails(into, from);
    compact(into, TIER_CELLS);
}

/* ---- the log ---- */

void sp_changes_add(sp_changes *changes, uint64_t start, uint64_t stop)
{
    if (changes->n) {
        sp_range *last = &changes->log[changes->n - 1];
        /* The same buffer again, or its continuation, is what guests do most.  Elsewhere one of two
         * differences is negative, and which a processor cannot guess: so they are one branch. */
        if (!(((last->stop - start) | (stop - last->start)) >> 63)) {
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

void sp_changes_add_cell(sp_changes *changes, sp_cell *cell) { append(&changes->trail, cell); }

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
    link_trails(&into->trail, &from->trail);
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
