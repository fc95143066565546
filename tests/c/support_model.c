/*
 * support_model.c - the model of a set, and the comparison of a set with it.
 */
#include "support_model.h"

#include <stdlib.h>
#include <string.h>

#include "base/bits.h"

void model_init(model *m, const sp_range *windows, size_t n)
{
    memset(m, 0, sizeof *m);
    m->n = n;
    for (size_t w = 0; w < n; w++) {
        uint64_t pages = windows[w].stop - windows[w].start;
        m->window[w] = (model_window){windows[w].start, windows[w].stop, calloc(pages, 1)};
    }
}

void model_clear(model *m)
{
    for (size_t w = 0; w < m->n; w++)
        free(m->window[w].in);
    m->n = 0;
}

void model_copy(model *to, const model *from)
{
    *to = *from;
    for (size_t w = 0; w < from->n; w++) {
        uint64_t pages = from->window[w].stop - from->window[w].start;
        to->window[w].in = malloc(pages);
        memcpy(to->window[w].in, from->window[w].in, pages);
    }
}

/* Gap g as a range; empty where two windows touch. */
static sp_range gap_range(const model *m, size_t g)
{
    return (sp_range){g ? m->window[g - 1].stop : 0, g < m->n ? m->window[g].start : SP_GFN_LIMIT};
}

void model_assign(model *m, uint64_t start, uint64_t stop, bool value)
{
    for (size_t w = 0; w < m->n; w++) {
        const model_window *window = &m->window[w];
        uint64_t from = sp_max(start, window->start), to = sp_min(stop, window->stop);
        if (from < to)
            memset(window->in + (from - window->start), value, to - from);
    }
    for (size_t g = 0; g <= m->n; g++) {
        sp_range gap = gap_range(m, g);
        if (start <= gap.start && gap.stop <= stop)
            m->gap[g] = value;
    }
}

void model_put_words(model *m, uint64_t base, const uint64_t *words)
{
    for (uint64_t page = 0; page < 65536; page++)
        model_assign(m, base + page, base + page + 1, words[page / 64] >> (page % 64) & 1);
}

static bool truth(sp_op op, bool a, bool b)
{
    return op == SP_OR ? a || b : op == SP_AND ? a && b : op == SP_ANDNOT ? a && !b : a != b;
}

void model_combine(model *out, sp_op op, const model *a, const model *b)
{
    for (size_t w = 0; w < a->n; w++)
        for (uint64_t i = 0; i < a->window[w].stop - a->window[w].start; i++)
            out->window[w].in[i] = truth(op, a->window[w].in[i], b->window[w].in[i]);
    for (size_t g = 0; g <= a->n; g++)
        out->gap[g] = truth(op, a->gap[g], b->gap[g]);
}

bool model_contains(const model *m, uint64_t gfn)
{
    size_t w = 0;
    while (w < m->n && gfn >= m->window[w].stop)
        w++;
    return w < m->n && gfn >= m->window[w].start ? m->window[w].in[gfn - m->window[w].start]
                                                 : m->gap[w];
}

uint64_t model_rank(const model *m, uint64_t gfn)
{
    uint64_t total = 0;
    for (size_t w = 0; w < m->n; w++)
        for (uint64_t at = m->window[w].start; at < sp_min(m->window[w].stop, gfn); at++)
            total += m->window[w].in[at - m->window[w].start];
    for (size_t g = 0; g <= m->n; g++) {
        sp_range gap = gap_range(m, g);
        if (m->gap[g] && gap.start < gfn)
            total += sp_min(gap.stop, gfn) - gap.start;
    }
    return total;
}

uint64_t model_count(const model *m) { return model_rank(m, SP_GFN_LIMIT); }

/* Ranges found so far; the last is open while `in`. */
typedef struct listing {
    sp_range *ranges;
    size_t n, room;
    bool in;
} listing;

static void turn(listing *l, uint64_t at, bool in)
{
    if (in == l->in)
        return;
    if (in) {
        if (l->n == l->room) {
            l->room *= 2;
            l->ranges = realloc(l->ranges, l->room * sizeof *l->ranges);
        }
        l->ranges[l->n].start = at;
    } else {
        l->ranges[l->n++].stop = at;
    }
    l->in = in;
}

sp_range *model_ranges(const model *m, uint64_t start, uint64_t stop, size_t *n)
{
    listing l = {malloc(64 * sizeof *l.ranges), 0, 64, false};
    for (size_t g = 0; g <= m->n; g++) {
        sp_range gap = gap_range(m, g);
        if (sp_max(gap.start, start) < sp_min(gap.stop, stop))
            turn(&l, sp_max(gap.start, start), m->gap[g]);
        if (g == m->n)
            break;
        const model_window *w = &m->window[g];
        for (uint64_t at = sp_max(w->start, start); at < sp_min(w->stop, stop); at++)
            turn(&l, at, w->in[at - w->start]);
    }
    turn(&l, stop, false);
    *n = l.n;
    return l.ranges;
}

uint64_t model_border(const model *m, rng *r)
{
    static const uint64_t steps[] = {1, 64, 4096, 65536};
    const model_window *w = &m->window[rng_below(r, m->n)];
    uint64_t step = steps[rng_below(r, 4)], at = rng_between(r, w->start, w->stop);
    at = at / step * step + rng_below(r, 3) - 1;
    return sp_min(sp_max(at, w->start), w->stop);
}

/* Lists [start, stop) of the set with a cursor, `room` toggles at a time. */
static bool lists(const sp_set *set, uint64_t start, uint64_t stop, size_t room,
                  const sp_range *want, size_t n)
{
    sp_cursor cursor = sp_cursor_open(set, start, stop);
    uint64_t *toggles = malloc(room * sizeof *toggles);
    size_t at = 0;
    const sp_kernels *k = sp_kernels_active();
    bool good = true;
    for (size_t used; good && (used = sp_cursor_toggles(k, &cursor, toggles, room));) {
        good = CHECK(used <= room);
        for (size_t t = 0; good && t < used; t++, at++)
            good = CHECK(at < 2 * n) &&
                   CHECK_EQ(toggles[t], at & 1 ? want[at / 2].stop : want[at / 2].start);
    }
    free(toggles);
    return good && CHECK_EQ(at, 2 * n);
}

/* Rank, select and contains at both ends of every range. */
static bool answers(const sp_set *set, const sp_range *want, size_t n)
{
    uint64_t below = 0;
    bool good = true;
    for (size_t i = 0; good && i < n; i++) {
        sp_range range = want[i];
        uint64_t pages = range.stop - range.start;
        good = CHECK(sp_set_contains(set, range.start)) &&
               CHECK(sp_set_contains(set, range.stop - 1)) &&
               CHECK(!range.start || !sp_set_contains(set, range.start - 1)) &&
               CHECK(range.stop == SP_GFN_LIMIT || !sp_set_contains(set, range.stop)) &&
               CHECK_EQ(sp_set_rank(set, range.start), below) &&
               CHECK_EQ(sp_set_rank(set, range.stop), below + pages) &&
               CHECK_EQ(sp_set_select(set, below), range.start) &&
               CHECK_EQ(sp_set_select(set, below + pages - 1), range.stop - 1);
        below += pages;
    }
    return good && CHECK_EQ(sp_set_count(set), below) &&
           CHECK_EQ(sp_set_rank(set, SP_GFN_LIMIT), below);
}

bool model_matches(const model *m, const sp_set *set)
{
    size_t n;
    sp_range *want = model_ranges(m, 0, SP_GFN_LIMIT, &n);
    bool good = CHECK_VALID(sp_set_validate(set)) && answers(set, want, n) &&
                CHECK_EQ(sp_set_nranges(sp_kernels_active(), set), n) &&
                lists(set, 0, SP_GFN_LIMIT, 2 * SP_TOGGLES_ROOM, want, n) &&
                lists(set, 0, SP_GFN_LIMIT, 2 * SP_TOGGLES_ROOM + 1 + n, want, n);
    free(want);
    return good;
}
