/*
 * support_tracker.c - small guests with pages far apart, checked calls, and the nodes of a
 * tracker.
 */
#include "support_tracker.h"

#include <stdlib.h>
#include <string.h>

uint64_t plots_gfn(const plots *p, uint64_t at)
{
    uint64_t pages = p->words * 64;
    return p->start[at / pages] + at % pages;
}

plot_range plots_range(const plots *p, rng *r, uint64_t max_pages)
{
    uint64_t pages = p->words * 64, window = rng_below(r, p->windows);
    uint64_t at = rng_below(r, pages), most = sp_min(max_pages, pages - at);
    return (plot_range){p->start[window] + at, rng_between(r, 1, most), window * pages + at};
}

void plots_read(const plots *p, const sp_set *set, uint64_t *record)
{
    for (size_t w = 0; w < p->windows; w++)
        sp_set_bitmap_into(sp_kernels_active(), set, p->start[w], p->words * 64,
                           record + w * p->words);
}

bool plots_equal(const plots *p, const sp_set *set, const uint64_t *record)
{
    size_t words = plots_words(p);
    uint64_t *got = malloc(words * sizeof *got), count = 0;
    plots_read(p, set, got);
    for (size_t w = 0; w < words; w++)
        count += sp_popcount(record[w]);
    bool same = CHECK(memcmp(got, record, words * sizeof *got) == 0);
    free(got);
    /* Nothing lies outside the windows, either. */
    return CHECK_EQ(sp_set_count(set), count) && same;
}

uint64_t record_assign(uint64_t *record, plot_range range, bool value)
{
    uint64_t changed = 0;
    for (uint64_t at = range.first; at < range.first + range.npages; at++) {
        uint64_t bit = UINT64_C(1) << (at & 63);
        changed += !(record[at >> 6] & bit) == value;
        record[at >> 6] = value ? record[at >> 6] | bit : record[at >> 6] & ~bit;
    }
    return changed;
}

uint64_t word_hash(size_t at, uint64_t word)
{
    rng r = {word ^ (at + 1) * UINT64_C(0xd6e8feb86659fd93)};
    return rng_next(&r);
}

uint64_t record_hash(const uint64_t *record, size_t words)
{
    uint64_t hash = 0;
    for (size_t w = 0; w < words; w++)
        hash += word_hash(w, record[w]);
    return hash;
}

/* ---- calls ---- */

sp_tracker *tracker_new(uint64_t npages, bool shared)
{
    sp_tracker *tracker = NULL;
    CHECK_EQ(sp_tracker_new(NULL, test_engine, npages, shared, &tracker), SP_OK);
    return tracker;
}

uint64_t tracker_convert(sp_tracker *tracker, uint64_t start, uint64_t npages, bool shared)
{
    uint64_t changed = 99;
    CHECK_EQ(sp_tracker_convert(tracker, start, npages, shared, true, &changed), SP_OK);
    return changed;
}

sp_snapshot tracker_take(sp_tracker *tracker)
{
    sp_snapshot made = {0};
    CHECK_EQ(sp_tracker_snapshot(tracker, true, &made), SP_OK);
    return made;
}

/* ---- nodes ---- */

typedef struct node_list {
    const sp_node **node;
    size_t n, room;
} node_list;

static void list_node(void *context, sp_node *node)
{
    node_list *list = context;
    if (list->n == list->room) {
        list->room = 2 * list->room + 1024;
        list->node = realloc(list->node, list->room * sizeof *list->node);
    }
    list->node[list->n++] = node;
}

static int by_address(const void *a, const void *b)
{
    uintptr_t x = *(const uintptr_t *)a, y = *(const uintptr_t *)b;
    return (x > y) - (x < y);
}

uint64_t tracker_reachable(const sp_tracker *tracker)
{
    node_list list = {0};
    const sp_epoch *epoch = &tracker->epoch;
    sp_set_walk(&tracker->set, 0, list_node, &list);
    for (sp_slot s = epoch->newest; s != SP_SLOT_NONE; s = sp_epoch_version(epoch, s)->prev) {
        sp_set set = sp_set_of(&sp_epoch_version(epoch, s)->root);
        sp_set_walk(&set, 0, list_node, &list);
    }
    uint64_t reachable = 0;
    if (list.n)
        qsort(list.node, list.n, sizeof *list.node, by_address);
    for (size_t i = 0; i < list.n; i++)
        reachable += !i || list.node[i] != list.node[i - 1];
    free(list.node);
    return reachable;
}

uint64_t tracker_live(const sp_tracker *tracker)
{
    return sp_load(&tracker->epoch.nodes.blocks, relaxed);
}
