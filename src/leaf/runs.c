/*
 * runs.c - sorted lists of runs, the common currency of small leaves.  Floor 2.
 *
 * A list is disjoint, sorted and never adjacent.  Everything here is O(length), or O(log length)
 * where it only searches; lists are at most SP_MAX_VALUES long.
 */
#include <string.h>

#include "leaf/kinds.h"

uint32_t sp_runs_find(const sp_run *runs, uint32_t n, uint32_t page)
{
    uint32_t low = 0;
    while (n) {
        uint32_t half = n / 2;
        bool right = runs[low + half].last < page;
        low = right ? low + half + 1 : low;
        n = right ? n - half - 1 : half;
    }
    return low;
}

uint32_t sp_values_find(const uint16_t *values, uint32_t n, uint32_t page)
{
    uint32_t low = 0;
    while (n) {
        uint32_t half = n / 2;
        bool right = values[low + half] < page;
        low = right ? low + half + 1 : low;
        n = right ? n - half - 1 : half;
    }
    return low;
}

void sp_runs_splice(const sp_run *runs, uint32_t n, uint32_t first, uint32_t last, bool value,
                    sp_splice *out)
{
    /* Setting joins the neighbours that touch [first, last]; clearing leaves them alone. */
    uint32_t reach = value ? 1 : 0, puts = 0;
    uint32_t i = sp_runs_find(runs, n, first >= reach ? first - reach : 0), j = i;
    int32_t delta = 0;
    for (; j < n && runs[j].first <= last + reach; j++)
        delta -= (int32_t)sp_run_pages(runs[j]);
    bool any = j > i;
    if (value) {
        uint32_t left = any ? (uint32_t)sp_min(first, runs[i].first) : first;
        uint32_t right = any ? (uint32_t)sp_max(last, runs[j - 1].last) : last;
        out->put[puts++] = (sp_run){(uint16_t)left, (uint16_t)right};
        delta += (int32_t)(right - left + 1);
    } else if (any) {
        if (runs[i].first < first) {
            out->put[puts++] = (sp_run){runs[i].first, (uint16_t)(first - 1)};
            delta += (int32_t)(first - runs[i].first);
        }
        if (runs[j - 1].last > last) {
            out->put[puts++] = (sp_run){(uint16_t)(last + 1), runs[j - 1].last};
            delta += (int32_t)(runs[j - 1].last - last);
        }
    }
    out->i = i;
    out->j = j;
    out->puts = puts;
    out->delta = delta;
}

uint32_t sp_runs_apply(sp_run *runs, uint32_t n, const sp_splice *splice)
{
    uint32_t after = splice->i + splice->puts;
    if (n != splice->j && after != splice->j)
        memmove(runs + after, runs + splice->j, (n - splice->j) * sizeof *runs);
    for (uint32_t p = 0; p < splice->puts; p++)
        runs[splice->i + p] = splice->put[p];
    return n - splice->j + after;
}

static uint32_t values_to_runs(const uint16_t *values, uint32_t n, sp_run *out)
{
    uint32_t runs = 0;
    for (uint32_t i = 0; i < n; i++) {
        if (runs && values[i] == out[runs - 1].last + 1)
            out[runs - 1].last = values[i];
        else
            out[runs++] = (sp_run){values[i], values[i]};
    }
    return runs;
}

uint32_t sp_leaf_runs(sp_ref leaf, const sp_run **runs, sp_run scratch[SP_MAX_VALUES])
{
    *runs = scratch;
    switch (sp_leaf_shape(leaf)) {
    case SP_HELD: return sp_held_get(leaf, scratch);
    case SP_ARRAY:
        return values_to_runs(sp_values(sp_as_small(leaf)), sp_as_small(leaf)->n, scratch);
    case SP_RUNS: *runs = sp_runs(sp_as_small(leaf)); return sp_as_small(leaf)->n;
    case SP_BITMAP: break;
    }
    SP_ASSERT(!"a bitmap has no list");
    return 0;
}

/* a AND b for a list that is much shorter than the other. */
static uint32_t intersect_short(const sp_run *a, uint32_t na, const sp_run *b, uint32_t nb,
                                sp_run *out)
{
    uint32_t n = 0, j = 0;
    for (uint32_t i = 0; i < na; i++) {
        for (j += sp_runs_find(b + j, nb - j, a[i].first); j < nb && b[j].first <= a[i].last; j++) {
            out[n].first = a[i].first > b[j].first ? a[i].first : b[j].first;
            out[n++].last = a[i].last < b[j].last ? a[i].last : b[j].last;
            if (b[j].last > a[i].last)
                break;
        }
    }
    return n;
}

/* a AND NOT b for a list that is much shorter than the other. */
static uint32_t subtract_from_short(const sp_run *a, uint32_t na, const sp_run *b, uint32_t nb,
                                    sp_run *out)
{
    uint32_t n = 0, j = 0;
    for (uint32_t i = 0; i < na; i++) {
        uint32_t from = a[i].first, stop = a[i].last + 1u;
        for (j += sp_runs_find(b + j, nb - j, from); j < nb && b[j].first < stop; j++) {
            if (b[j].first > from)
                out[n++] = (sp_run){(uint16_t)from, (uint16_t)(b[j].first - 1)};
            from = b[j].last + 1u;
            if (from >= stop)
                break;
        }
        if (from < stop)
            out[n++] = (sp_run){(uint16_t)from, (uint16_t)(stop - 1)};
    }
    return n;
}

/* A long list with the runs of a much shorter one set or cleared. */
static uint32_t edit_long(const sp_run *a, uint32_t na, const sp_run *b, uint32_t nb, bool value,
                          sp_run *out)
{
    uint32_t n = na;
    memcpy(out, a, na * sizeof *a);
    for (uint32_t i = 0; i < nb; i++) {
        sp_splice s;
        sp_runs_splice(out, n, b[i].first, b[i].last, value, &s);
        n = sp_runs_apply(out, n, &s);
    }
    return n;
}

/* The position of a list's t-th toggle, or one past the leaf. */
static uint32_t toggle_at(const sp_run *runs, uint32_t n, uint32_t t)
{
    if (t / 2 >= n)
        return SP_LEAF_PAGES;
    return t & 1 ? runs[t / 2].last + 1u : runs[t / 2].first;
}

/* a op b by one walk over both. */
static uint32_t walk_both(sp_op op, const sp_run *a, uint32_t na, const sp_run *b, uint32_t nb,
                          sp_run *out)
{
    uint32_t ta = 0, tb = 0, n = 0;
    uint32_t pa = toggle_at(a, na, 0), pb = toggle_at(b, nb, 0);
    bool in = false;
    while (pa < SP_LEAF_PAGES || pb < SP_LEAF_PAGES) {
        uint32_t at = pa < pb ? pa : pb;
        if (pa == at)
            pa = toggle_at(a, na, ++ta);
        if (pb == at)
            pb = toggle_at(b, nb, ++tb);
        if (sp_op_truth(op, ta & 1, tb & 1) == in)
            continue;
        in = !in;
        if (in)
            out[n].first = (uint16_t)at;
        else
            out[n++].last = (uint16_t)(at - 1);
    }
    if (in)
        out[n++].last = SP_LEAF_PAGES - 1;
    return n;
}

uint32_t sp_runs_combine(sp_op op, const sp_run *a, uint32_t na, const sp_run *b, uint32_t nb,
                         sp_run *out)
{
    bool short_a = na * SP_GALLOP < nb, short_b = nb * SP_GALLOP < na;
    if (short_a && op == SP_AND)
        return intersect_short(a, na, b, nb, out);
    if (short_b && op == SP_AND)
        return intersect_short(b, nb, a, na, out);
    if (short_a && op == SP_ANDNOT)
        return subtract_from_short(a, na, b, nb, out);
    if (short_a && op == SP_OR)
        return edit_long(b, nb, a, na, true, out);
    if (short_b && (op == SP_OR || op == SP_ANDNOT))
        return edit_long(a, na, b, nb, op == SP_OR, out);
    return walk_both(op, a, na, b, nb, out);
}
