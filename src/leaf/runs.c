/*
 * runs.c - sorted lists of runs, the common currency of small leaves.  Floor 2.
 *
 * A list is disjoint, sorted and never adjacent.  Everything here is O(length), or O(log length)
 * where it only searches; lists are at most SP_MAX_VALUES long.
 */
#include <string.h>

#include "leaf/lists.h"

/* Two runs at a time, in the halves of a word: neither sum overflows one, of any list. */
uint32_t sp_runs_pages(const sp_run *runs, uint32_t n)
{
    const uint64_t low = UINT64_C(0x0000ffff0000ffff);
    uint64_t firsts = 0, lasts = 0, two;
    uint32_t i = 0;
    for (; i + 2 <= n; i += 2) {
        memcpy(&two, runs + i, sizeof two);
        firsts += two & low;
        lasts += two >> 16 & low;
    }
    uint64_t pages = lasts - firsts;
    return (uint32_t)pages + (uint32_t)(pages >> 32) + (i < n ? sp_run_pages(runs[i]) : 0) + i;
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

uint32_t sp_runs_skip(const sp_run *runs, uint32_t n, uint32_t i, uint32_t page)
{
    enum { STRIDE = 8 };
    while (i + STRIDE <= n && runs[i + STRIDE - 1].last < page)
        i += STRIDE;
    while (i < n && runs[i].last < page)
        i++;
    return i;
}

/* One of two lists, and how far it is read. */
typedef struct reader {
    const sp_run *runs;
    uint32_t n, i;
    bool kept; /* pages of this list alone are in the result */
} reader;

/* Reads the runs that end before `page`. */
static uint32_t pass(reader *r, uint32_t page, sp_run *out)
{
    uint32_t from = r->i;
    r->i = sp_runs_skip(r->runs, r->n, from, page);
    uint32_t passed = r->kept ? r->i - from : 0;
    memcpy(out, r->runs + from, passed * sizeof *out);
    return passed;
}

/* The position of a list's t-th toggle, or one past the leaf. */
static uint32_t toggle_at(const reader *r, uint32_t t)
{
    if (t / 2 >= r->n)
        return SP_LEAF_PAGES + 1;
    return t & 1 ? r->runs[t / 2].last + 1u : r->runs[t / 2].first;
}

/* Reads on, toggle by toggle, until both lists are between two runs. */
static uint32_t tangle(sp_op op, reader *a, reader *b, sp_run *out)
{
    uint32_t ta = 2 * a->i, tb = 2 * b->i, n = 0;
    uint32_t pa = toggle_at(a, ta), pb = toggle_at(b, tb);
    bool in = false;
    do {
        uint32_t at = pa < pb ? pa : pb;
        if (pa == at)
            pa = toggle_at(a, ++ta);
        if (pb == at)
            pb = toggle_at(b, ++tb);
        if (sp_op_truth(op, ta & 1, tb & 1) == in)
            continue;
        in = !in;
        if (in)
            out[n].first = (uint16_t)at;
        else
            out[n++].last = (uint16_t)(at - 1);
    } while ((ta | tb) & 1);
    a->i = ta / 2;
    b->i = tb / 2;
    return n;
}

/* Stretches of one list that do not touch the other are passed over as they are, eight runs at a
 * test: most lists that meet are of very different lengths. */
uint32_t sp_runs_combine(sp_op op, const sp_run *a, uint32_t na, const sp_run *b, uint32_t nb,
                         sp_run *out)
{
    reader ra = {a, na, 0, sp_op_truth(op, true, false)};
    reader rb = {b, nb, 0, sp_op_truth(op, false, true)};
    uint32_t n = 0;
    while (ra.i < na && rb.i < nb) {
        if (a[ra.i].last + 1u < b[rb.i].first)
            n += pass(&ra, b[rb.i].first - 1u, out + n);
        else if (b[rb.i].last + 1u < a[ra.i].first)
            n += pass(&rb, a[ra.i].first - 1u, out + n);
        else
            n += tangle(op, &ra, &rb, out + n);
    }
    n += pass(&ra, SP_LEAF_PAGES, out + n);
    n += pass(&rb, SP_LEAF_PAGES, out + n);
    return n;
}

uint32_t sp_runs_intersection(const sp_run *a, uint32_t na, const sp_run *b, uint32_t nb)
{
    uint32_t i = 0, j = 0, pages = 0;
    while (i < na && j < nb) {
        uint32_t start = (uint32_t)sp_max(a[i].first, b[j].first);
        uint32_t last = (uint32_t)sp_min(a[i].last, b[j].last);
        if (start <= last) {
            pages += last - start + 1;
            if (a[i].last < b[j].last)
                i++;
            else
                j++;
        } else if (a[i].last < start) {
            i = sp_runs_skip(a, na, i, start);
        } else {
            j = sp_runs_skip(b, nb, j, start);
        }
    }
    return pages;
}
