/*
 * small.c - editing leaves that are packed refs, arrays or runs.  Floor 2.
 *
 * prepare finds out how many elements the result will have and, where the leaf is not ours or has
 * no room for them, holds the *present* pages in a node that has.  The kind is chosen anew at that
 * point, since every element is copied anyway; a kind must suit the leaf before and after.
 */
#include <string.h>

#include "leaf/build.h"

uint32_t sp_small_slack(uint32_t n, sp_shape shape)
{
    return (uint32_t)sp_min(n + n / 2, sp_small_elements(SP_SMALL_MAX_BYTES, shape));
}

/* Elements that an array has after pages [first, last] become value. */
static uint32_t array_after(const sp_small *leaf, uint32_t first, uint32_t last, bool value)
{
    uint32_t i = sp_values_find(sp_values(leaf), leaf->n, first);
    uint32_t j = sp_values_find(sp_values(leaf), leaf->n, last + 1);
    return leaf->n - (j - i) + (value ? last - first + 1 : 0);
}

/* Holds *leaf in a node of ours that can become the list after `s` without another allocation. */
static sp_status regrow(sp_edit *edit, sp_ref *leaf, const sp_run *runs, uint32_t n,
                        const sp_splice *s, uint32_t first, uint32_t last, bool value)
{
    uint32_t pages = sp_leaf_count(*leaf);
    uint32_t pages_after = pages + (uint32_t)s->delta, n_after = n - (s->j - s->i) + s->puts;
    uint32_t most_pages = (uint32_t)sp_max(pages, pages_after);
    uint32_t most_runs = (uint32_t)sp_max(n, n_after);
    sp_shape shape = sp_leaf_pick(most_pages, most_runs);
    sp_ref grown;
    if (shape == SP_BITMAP) {
        sp_status status = sp_bitmap_open(edit, leaf);
        return status ? status : sp_bitmap_prepare(edit, leaf, first, last, value);
    }
    uint32_t room = sp_small_slack(shape == SP_ARRAY ? most_pages : most_runs, shape);
    sp_status status = sp_small_new(edit, shape, runs, n, pages, room, &grown);
    if (status)
        return status;
    sp_leaf_retire(edit, *leaf);
    *leaf = grown;
    return SP_OK;
}

sp_status sp_small_prepare(sp_edit *edit, sp_ref *leaf, uint32_t first, uint32_t last, bool value)
{
    sp_shape shape = sp_leaf_shape(*leaf);
    if (shape == SP_ARRAY) {
        const sp_small *array = sp_as_small(*leaf);
        if (sp_edit_owns(edit, &array->head) &&
            array_after(array, first, last, value) <= sp_small_room(array, SP_ARRAY))
            return SP_OK;
    }
    sp_run scratch[SP_MAX_VALUES];
    const sp_run *runs;
    uint32_t n = sp_leaf_runs(*leaf, &runs, scratch);
    sp_splice s;
    sp_runs_splice(runs, n, first, last, value, &s);
    if (shape == SP_RUNS) {
        const sp_small *list = sp_as_small(*leaf);
        uint32_t after = n - (s.j - s.i) + s.puts;
        if (sp_edit_owns(edit, &list->head) && after <= sp_small_room(list, SP_RUNS))
            return SP_OK;
    } else if (shape == SP_HELD) {
        sp_run result[4];
        sp_ref unused;
        memcpy(result, runs, n * sizeof *runs);
        if (sp_held_put(result, sp_runs_apply(result, n, &s), &unused))
            return SP_OK;
    }
    return regrow(edit, leaf, runs, n, &s, first, last, value);
}

/* True if the leaf is at most two runs, which a packed ref can most often hold. */
static bool is_few(const sp_small *leaf, sp_shape shape)
{
    if (shape == SP_RUNS)
        return leaf->n <= 2;
    const uint16_t *values = sp_values(leaf);
    unsigned runs = 0;
    for (uint32_t i = 0; i < leaf->n && runs <= 2; i++)
        runs += !i || values[i] != values[i - 1] + 1;
    return runs <= 2;
}

void sp_small_tidy(sp_edit *edit, sp_ref *leaf)
{
    if (!sp_ref_is_node(*leaf))
        return;
    sp_shape shape = sp_leaf_shape(*leaf);
    sp_small *node = sp_as_small(*leaf);
    sp_ref smaller;
    bool sparse = sp_small_is_sparse(node);
    if (!sparse && !is_few(node, shape))
        return;
    sp_run scratch[SP_MAX_VALUES];
    const sp_run *runs;
    uint32_t n = sp_leaf_runs(*leaf, &runs, scratch);
    if (!sp_held_put(runs, n, &smaller) &&
        (!sparse || sp_small_new(edit, shape, runs, n, sp_leaf_count(*leaf), 0, &smaller) != SP_OK))
        return;
    sp_edit_retire(edit, &node->head);
    *leaf = smaller;
}

static int32_t commit_array(sp_small *leaf, uint32_t first, uint32_t last, bool value)
{
    uint16_t *values = sp_values(leaf);
    uint32_t i = sp_values_find(values, leaf->n, first);
    uint32_t j = sp_values_find(values, leaf->n, last + 1), before = leaf->n;
    uint32_t puts = value ? last - first + 1 : 0;
    memmove(values + i + puts, values + j, (leaf->n - j) * sizeof *values);
    for (uint32_t p = 0; p < puts; p++)
        values[i + p] = (uint16_t)(first + p);
    leaf->n = leaf->pages = before - (j - i) + puts;
    return (int32_t)leaf->n - (int32_t)before;
}

bool sp_small_try(sp_edit *edit, sp_ref *leaf, uint32_t first, uint32_t last, bool value,
                  int32_t *delta)
{
    sp_shape shape = sp_leaf_shape(*leaf);
    sp_splice s;
    if (shape == SP_HELD) {
        sp_run list[4];
        uint32_t n = sp_held_get(*leaf, list);
        sp_runs_splice(list, n, first, last, value, &s);
        *delta = s.delta;
        return sp_held_put(list, sp_runs_apply(list, n, &s), leaf);
    }
    sp_small *node = sp_as_small(*leaf);
    if (shape != SP_RUNS || !sp_edit_owns(edit, &node->head))
        return false;
    sp_runs_splice(sp_runs(node), node->n, first, last, value, &s);
    if (node->n - (s.j - s.i) + s.puts > sp_small_room(node, SP_RUNS))
        return false;
    node->n = sp_runs_apply(sp_runs(node), node->n, &s);
    node->pages += (uint32_t)s.delta;
    *delta = s.delta;
    sp_small_tidy(edit, leaf);
    return true;
}

int32_t sp_small_commit(sp_edit *edit, sp_ref *leaf, uint32_t first, uint32_t last, bool value)
{
    int32_t delta;
    if (sp_small_try(edit, leaf, first, last, value, &delta))
        return delta;
    SP_ASSERT(sp_leaf_shape(*leaf) == SP_ARRAY);
    delta = commit_array(sp_as_small(*leaf), first, last, value);
    sp_small_tidy(edit, leaf);
    return delta;
}
