/*
 * turn.c - giving pages a value and saying which of them changed, in one search.  Floor 2.
 *
 * Most conversions end here.  A guest shares a buffer that is private, or takes the same buffer
 * back: then a run that touches no other is put into a list or taken out of it by one move of what
 * follows.  Which of the two it is, a processor cannot guess, so nothing on that way branches on
 * it.  Whatever else a list is asked for, the search has found as well: where the list changes, and
 * between which of its runs the pages are that do.
 *
 * Left to sp_leaf_prepare and sp_leaf_commit: a list that becomes a bitmap, a bitmap that is not
 * ours, and what changes in more pieces than the caller has room for.
 */
#include <stdlib.h>
#include <string.h>

#include "leaf/build.h"

static void add_piece(sp_turned *turned, uint32_t first, uint32_t stop)
{
    if (first < stop)
        turned->range[turned->n++] = (sp_range){first, stop};
}

/* Says which of [first, last] a splice changes; false if they may be too many pieces. */
static bool tell(const sp_run *runs, const sp_splice *s, uint32_t first, uint32_t last, bool value,
                 sp_turned *turned)
{
    turned->pages = (uint32_t)abs(s->delta);
    turned->n = 0;
    if (!turned->pages || turned->pages == last - first + 1)
        return true;
    if (s->j - s->i >= turned->most)
        return false;
    uint32_t at = first;
    for (uint32_t r = s->i; r < s->j; r++) {
        uint32_t start = (uint32_t)sp_max(runs[r].first, first);
        uint32_t stop = (uint32_t)sp_min(runs[r].last, last) + 1;
        if (value)
            add_piece(turned, at, start);
        else
            add_piece(turned, start, stop);
        at = stop;
    }
    if (value)
        add_piece(turned, at, last + 1);
    return true;
}

/* Replaces *leaf by a list of so many pages; false if that is a bitmap or memory is short. */
static bool hold(sp_edit *edit, sp_ref *leaf, const sp_run *runs, uint32_t n, uint32_t pages)
{
    sp_ref made;
    if (!sp_held_put(runs, n, &made)) {
        sp_shape shape = sp_leaf_pick(pages, n);
        uint32_t room = sp_small_slack(shape == SP_ARRAY ? pages : n, shape);
        if (shape == SP_BITMAP || sp_small_new(edit, shape, runs, n, pages, room, &made) != SP_OK)
            return false;
    }
    sp_leaf_retire(edit, *leaf);
    *leaf = made;
    return true;
}

static bool turn_held(sp_edit *edit, sp_ref *leaf, uint32_t first, uint32_t last, bool value,
                      sp_turned *turned)
{
    sp_run list[4];
    sp_splice s;
    uint32_t n = sp_held_get(*leaf, list);
    sp_runs_splice(list, n, first, last, value, &s);
    if (!tell(list, &s, first, last, value, turned))
        return false;
    if (!turned->pages)
        return true;
    n = sp_runs_apply(list, n, &s);
    return sp_held_put(list, n, leaf) ||
           hold(edit, leaf, list, n, sp_leaf_count(*leaf) + (uint32_t)s.delta);
}

/* Replaces *leaf by a copy of its list, spliced; false as above. */
static bool splice_copy(sp_edit *edit, sp_ref *leaf, const sp_run *runs, uint32_t n,
                        const sp_splice *s)
{
    sp_run list[SP_MAX_VALUES + 1];
    uint32_t pages = sp_leaf_count(*leaf) + (uint32_t)s->delta, tail = n - s->j;
    uint32_t after = s->i + s->puts + tail;
    if (after <= 2 || sp_leaf_pick(pages, after) != SP_RUNS) {
        memcpy(list, runs, n * sizeof *runs);
        return hold(edit, leaf, list, sp_runs_apply(list, n, s), pages);
    }
    size_t bytes = SP_SMALL_HEAD + sp_small_slack(after, SP_RUNS) * sizeof *runs;
    sp_small *made = sp_edit_new(edit, SP_KIND_RUNS, bytes);
    if (!made)
        return false;
    made->pages = pages;
    made->n = after;
    memcpy(sp_runs(made), runs, s->i * sizeof *runs);
    memcpy(sp_runs(made) + s->i, s->put, s->puts * sizeof *runs);
    memcpy(sp_runs(made) + s->i + s->puts, runs + s->j, tail * sizeof *runs);
    sp_leaf_retire(edit, *leaf);
    *leaf = sp_node_ref(made);
    return true;
}

/* Any change of a list of runs or values. */
static bool turn_list(sp_edit *edit, sp_ref *leaf, uint32_t first, uint32_t last, bool value,
                      sp_turned *turned)
{
    sp_small *list = sp_as_small(*leaf);
    sp_run scratch[SP_MAX_VALUES];
    const sp_run *runs;
    sp_splice s;
    uint32_t n = sp_leaf_runs(*leaf, &runs, scratch);
    sp_runs_splice(runs, n, first, last, value, &s);
    if (!tell(runs, &s, first, last, value, turned))
        return false;
    if (!turned->pages)
        return true;
    if (runs == scratch || !sp_edit_owns(edit, &list->head) ||
        n - (s.j - s.i) + s.puts > sp_small_room(list, SP_RUNS))
        return splice_copy(edit, leaf, runs, n, &s);
    list->n = sp_runs_apply(sp_runs(list), n, &s);
    list->pages += (uint32_t)s.delta;
    sp_small_tidy(edit, leaf);
    return true;
}

/* Puts a run that touches no other into a list of ours, or takes one out that is just [first,
 * last]; false if that is not what is to be done. */
static bool flip_run(sp_edit *edit, sp_ref *leaf, uint32_t first, uint32_t last, bool value,
                     sp_turned *turned)
{
    sp_small *list = sp_as_small(*leaf);
    sp_run *runs = sp_runs(list);
    uint32_t n = list->n, pages = last - first + 1;
    uint32_t i = sp_runs_find(runs, n, first - (value && first));
    sp_run next = i < n ? runs[i] : (sp_run){UINT16_MAX, 0};
    bool apart = (next.first > last + 1) | (i == n);
    bool same = (next.first == first) & (next.last == last);
    if (((apart != value) | (same == value)) || n + value > sp_small_room(list, SP_RUNS))
        return false;
    memmove(runs + i + value, runs + i + !value, (n - i - !value) * sizeof *runs);
    uint32_t put = 0 - (uint32_t)value; /* all ones, or none */
    runs[i].first = (uint16_t)((first & put) | (runs[i].first & ~put));
    runs[i].last = (uint16_t)((last & put) | (runs[i].last & ~put));
    list->n = n + 2 * (uint32_t)value - 1;
    list->pages += (pages ^ ~put) - ~put;
    turned->pages = pages;
    turned->n = 0;
    if (sp_small_is_sparse(list) || list->n <= 2)
        sp_small_tidy(edit, leaf);
    return true;
}

/* Adds pages to an array of ours that has none of them, takes them out if it has them all, or finds
 * that nothing is to be done. */
static bool flip_values(sp_edit *edit, sp_ref *leaf, uint32_t first, uint32_t last, bool value,
                        sp_turned *turned)
{
    sp_small *array = sp_as_small(*leaf);
    uint16_t *values = sp_values(array);
    uint32_t n = array->n, pages = last - first + 1, i = sp_values_find(values, n, first), j = i;
    while (j < n && values[j] <= last)
        j++;
    uint32_t after = value ? n + pages : n - pages, puts = value ? pages : 0;
    turned->n = 0;
    turned->pages = value ? pages - (j - i) : j - i;
    if (turned->pages != pages || after > sp_small_room(array, SP_ARRAY))
        return !turned->pages;
    memmove(values + i + puts, values + j, (n - j) * sizeof *values);
    for (uint32_t p = 0; p < puts; p++)
        values[i + p] = (uint16_t)(first + p);
    array->n = array->pages = after;
    sp_small_tidy(edit, leaf);
    return true;
}

bool sp_leaf_turn(sp_edit *edit, sp_ref *leaf, uint32_t first, uint32_t last, bool value,
                  sp_turned *turned)
{
    sp_shape shape = sp_leaf_shape(*leaf);
    if (shape == SP_HELD)
        return turn_held(edit, leaf, first, last, value, turned);
    if (shape == SP_BITMAP)
        return sp_bitmap_turn(edit, leaf, first, last, value, turned);
    bool done = false;
    if (sp_edit_owns(edit, sp_ref_node(*leaf)))
        done = shape == SP_RUNS ? flip_run(edit, leaf, first, last, value, turned)
                                : flip_values(edit, leaf, first, last, value, turned);
    return done || turn_list(edit, leaf, first, last, value, turned);
}
