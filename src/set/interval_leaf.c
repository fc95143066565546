/*
 * interval_leaf.c - searching and splicing one list of runs.  Floor 3.
 */
#include "set/interval_leaf.h"

#include <string.h>

#include "set/interval_search.h"

unsigned sp_interval_find(const sp_interval_leaf *leaf, uint64_t gfn)
{
    if (sp_interval_is_wide(leaf))
        return sp_search_64(&sp_wide_runs(leaf)->stop, 2, leaf->n, gfn);
    if (gfn < leaf->base)
        return 0;
    /* Nothing narrow ends beyond 2^32 - 1. */
    return sp_search_32(&sp_narrow_runs(leaf)->stop, 2, leaf->n,
                        (uint32_t)sp_min(gfn - leaf->base, UINT32_MAX));
}

void sp_interval_copy(const sp_interval_leaf *leaf, unsigned i, unsigned n, sp_range *out)
{
    if (sp_interval_is_wide(leaf)) {
        memcpy(out, sp_wide_runs(leaf) + i, n * sizeof *out);
        return;
    }
    const uint32_t *from = (const uint32_t *)(sp_narrow_runs(leaf) + i);
    uint64_t *to = (uint64_t *)out;
    for (unsigned t = 0; t < 2 * n; t++)
        to[t] = leaf->base + from[t];
}

uint64_t sp_interval_below(const sp_interval_leaf *leaf, uint64_t gfn)
{
    uint64_t pages = 0;
    for (unsigned i = 0; i < leaf->n; i++) {
        sp_range run = sp_interval_run(leaf, i);
        if (run.start >= gfn)
            break;
        pages += sp_min(run.stop, gfn) - run.start;
    }
    return pages;
}

uint64_t sp_interval_member(const sp_interval_leaf *leaf, uint64_t i)
{
    sp_range run = sp_interval_run(leaf, 0);
    for (unsigned r = 1; i >= run.stop - run.start; r++) {
        i -= run.stop - run.start;
        run = sp_interval_run(leaf, r);
    }
    return run.start + i;
}

static size_t run_bytes(bool wide) { return wide ? sizeof(sp_range) : sizeof(sp_narrow_run); }

const char *sp_interval_leaf_validate(const sp_interval_leaf *leaf)
{
    unsigned kind = sp_node_kind(&leaf->head);
    if (kind != SP_KIND_NARROW && kind != SP_KIND_WIDE)
        return "a leaf of runs is of another kind";
    if (!leaf->n || leaf->n > sp_interval_room(leaf) ||
        sp_node_bytes(&leaf->head) > SP_INTERVAL_LEAF_BYTES)
        return "a leaf of runs has none or more than it has room for";
    uint64_t pages = 0, end = 0;
    for (unsigned i = 0; i < leaf->n; i++) {
        sp_range run = sp_interval_run(leaf, i);
        if (run.start >= run.stop || run.stop > SP_GFN_LIMIT)
            return "a run is empty or beyond 52 bits of gfn";
        if (i && run.start <= end)
            return "two runs of a leaf touch or are out of order";
        pages += run.stop - run.start;
        end = run.stop;
    }
    return pages == leaf->pages ? NULL : "a leaf of runs miscounts its pages";
}

/* ---- making ---- */

static void put(sp_interval_leaf *leaf, unsigned i, const sp_range *runs, unsigned n)
{
    if (sp_interval_is_wide(leaf)) {
        memcpy(sp_wide_runs(leaf) + i, runs, n * sizeof *runs);
        return;
    }
    uint32_t *to = (uint32_t *)(sp_narrow_runs(leaf) + i);
    const uint64_t *from = (const uint64_t *)runs;
    for (unsigned t = 0; t < 2 * n; t++)
        to[t] = (uint32_t)(from[t] - leaf->base);
}

sp_interval_leaf *sp_interval_leaf_new(sp_edit *edit, const sp_range *runs, unsigned n,
                                       unsigned room)
{
    unsigned most = sp_interval_most(runs[0].start, runs[n - 1].stop);
    bool wide = most == SP_WIDE_MOST;
    SP_ASSERT(n && n <= most);
    size_t bytes = sp_min(room, most) * run_bytes(wide);
    sp_interval_leaf *leaf = sp_edit_new(edit, wide ? SP_KIND_WIDE : SP_KIND_NARROW,
                                         sizeof *leaf + bytes);
    if (!leaf)
        return NULL;
    uint64_t pages = 0;
    for (unsigned i = 0; i < n; i++)
        pages += runs[i].stop - runs[i].start;
    leaf->base = wide ? 0 : runs[0].start;
    leaf->n = (uint8_t)n;
    leaf->pages = pages & (UINT64_MAX >> 8);
    put(leaf, 0, runs, n);
    return leaf;
}

sp_interval_leaf *sp_interval_leaf_resize(sp_edit *edit, const sp_interval_leaf *leaf,
                                          unsigned room)
{
    bool wide = sp_interval_is_wide(leaf);
    size_t bytes = run_bytes(wide);
    size_t most = sp_min(room, wide ? SP_WIDE_MOST : SP_NARROW_MOST) * bytes;
    sp_interval_leaf *copy = sp_edit_new(edit, sp_node_kind(&leaf->head), sizeof *copy + most);
    if (copy)
        memcpy(&copy->head + 1, &leaf->head + 1,
               sizeof *leaf - sizeof leaf->head + leaf->n * bytes);
    return copy;
}

/* ---- splicing ---- */

/* Adding: all that touches the range becomes one run. */
static void splice_in(const sp_interval_leaf *leaf, uint64_t start, uint64_t stop,
                      sp_interval_splice *s)
{
    sp_range sum = {start, stop};
    uint64_t gone = 0;
    s->i = s->j = sp_interval_find(leaf, start ? start - 1 : 0);
    for (; s->j < leaf->n; s->j++) {
        sp_range run = sp_interval_run(leaf, s->j);
        if (run.start > stop)
            break;
        sum.start = sp_min(sum.start, run.start);
        sum.stop = sp_max(sum.stop, run.stop);
        gone += run.stop - run.start;
    }
    s->n = 1;
    s->run[0] = sum;
    s->pages = (int64_t)(sum.stop - sum.start - gone);
}

/* Taking out: what is left of the first and the last run that the range meets. */
static void splice_out(const sp_interval_leaf *leaf, uint64_t start, uint64_t stop,
                       sp_interval_splice *s)
{
    uint64_t gone = 0, end = 0;
    s->n = 0;
    s->i = s->j = sp_interval_find(leaf, start);
    for (; s->j < leaf->n; s->j++) {
        sp_range run = sp_interval_run(leaf, s->j);
        if (run.start >= stop)
            break;
        if (run.start < start)
            s->run[s->n++] = (sp_range){run.start, start};
        gone += sp_min(run.stop, stop) - sp_max(run.start, start);
        end = run.stop;
    }
    if (end > stop)
        s->run[s->n++] = (sp_range){stop, end};
    s->pages = -(int64_t)gone;
}

void sp_interval_splice_of(const sp_interval_leaf *leaf, uint64_t start, uint64_t stop, bool value,
                           sp_interval_splice *s)
{
    if (value)
        splice_in(leaf, start, stop, s);
    else
        splice_out(leaf, start, stop, s);
}

static unsigned spliced_n(const sp_interval_leaf *leaf, const sp_interval_splice *s)
{
    return leaf->n - (s->j - s->i) + s->n;
}

bool sp_interval_keeps(const sp_interval_leaf *leaf, const sp_interval_splice *s)
{
    bool wide = sp_interval_is_wide(leaf);
    if (spliced_n(leaf, s) > (wide ? SP_WIDE_MOST : SP_NARROW_MOST))
        return false;
    if (!s->n || wide)
        return true;
    return s->run[0].start >= leaf->base && s->run[s->n - 1].stop - leaf->base <= UINT32_MAX;
}

void sp_interval_apply(sp_interval_leaf *leaf, const sp_interval_splice *s)
{
    size_t bytes = run_bytes(sp_interval_is_wide(leaf));
    char *runs = (char *)(leaf + 1);
    unsigned n = spliced_n(leaf, s);
    uint64_t pages = leaf->pages + (uint64_t)s->pages;
    if (s->i + s->n != s->j)
        memmove(runs + (s->i + s->n) * bytes, runs + s->j * bytes, (leaf->n - s->j) * bytes);
    put(leaf, s->i, s->run, s->n);
    leaf->n = (uint8_t)n;
    leaf->pages = pages & (UINT64_MAX >> 8);
}

unsigned sp_interval_spliced(const sp_interval_leaf *leaf, const sp_interval_splice *s,
                             sp_range *out)
{
    sp_interval_copy(leaf, 0, s->i, out);
    memcpy(out + s->i, s->run, s->n * sizeof *out);
    sp_interval_copy(leaf, s->j, leaf->n - s->j, out + s->i + s->n);
    return spliced_n(leaf, s);
}
