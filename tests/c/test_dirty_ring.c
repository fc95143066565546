/* tier: differential
 *
 * test_dirty_ring.c - what comes by rings, pages and ranges, merged from a log's list, against the
 * same pages merged as a set; and lists that grow too long to stay one.
 */
#include <stdlib.h>
#include <string.h>

#include "base/bits.h"
#include "support_dirty.h"

#define SMM (1u << 16) /* address space 1 */
#define TIB (UINT64_C(1) << 28)
#define LONGEST_LIST (1u << 18) /* of a small guest, but for what the last report added */

enum { SLOTS = 4, MOST = 30000, TEXTURES = 6 };

/* The second overlaps the first; the fourth begins where the third ends, at no word's border. */
static const sp_memslot slots[SLOTS] = {
    {100, 1 << 20, 0}, {5000, 70000, SMM}, {1 << 21, TIB + 13, 1}, {(1 << 21) + TIB + 13, 999, 7}};

typedef struct scene {
    dirty_bench guest;
    sp_pageset *dirty, *extra, *shared;
    uint64_t gfns[MOST]; /* what was reported */
    size_t n;
} scene;

static sp_pageset *set_of(const uint64_t *gfns, size_t n)
{
    sp_pageset *made = NULL;
    size_t bad;
    CHECK_EQ(sp_pageset_from_pages(NULL, &sp_engine_roaring, gfns, n, &made, &bad), SP_OK);
    return made;
}

/* ---- reports ---- */

static sp_ring_entry random_entry(rng *r, unsigned texture, size_t i)
{
    const sp_memslot *slot = &slots[texture == 5 ? rng_below(r, SLOTS) : i / 3000 % SLOTS];
    uint64_t offset = 0;
    switch (texture) {
    case 0: offset = rng_below(r, slot->npages); break;
    case 1: offset = rng_below(r, 3000); break; /* several in a word */
    case 2: offset = i; break;
    case 3: offset = slot->npages - 1 - i; break;
    case 4: offset = 77; break;
    default: offset = i / 7 * 64 + (rng_chance(r, 3) ? 63 : 0);
    }
    return (sp_ring_entry){1, slot->id, offset % slot->npages};
}

/* Reports n pages by rings of at most `most` entries, and sometimes by the other calls. */
static void report(scene *s, rng *r, unsigned texture, size_t n, size_t most)
{
    static sp_ring_entry entries[MOST];
    size_t index, bad, first = s->n;
    for (size_t i = 0; i < n; i++) {
        entries[i] = random_entry(r, texture, i);
        REQUIRE_EQ(sp_memory_find(s->guest.memory, entries[i].slot, &index), SP_OK);
        s->gfns[s->n++] = sp_memory_at(s->guest.memory, index)->gfn + entries[i].offset;
    }
    for (size_t i = 0, count; i < n; i += count) {
        count = (size_t)sp_min(rng_between(r, 1, most), n - i);
        const uint64_t *gfns = s->gfns + first + i;
        sp_range range = {gfns[0], gfns[0] + 1};
        if (rng_chance(r, 9))
            CHECK_EQ(sp_log_add_pages(s->guest.log, gfns, count, &bad), SP_OK);
        else if (rng_chance(r, 9) && (count = 1))
            CHECK_EQ(sp_log_add_ranges(s->guest.log, &range, 1, &bad), SP_OK);
        else
            CHECK_EQ(sp_log_add_ring(s->guest.log, entries + i, count, &bad), SP_OK);
    }
}

/* ---- the comparison ---- */

typedef struct lists {
    sp_mem mem;
    sp_list shared, private;
} lists;

static void merge(lists *out, sp_harvest *harvest, const sp_pageset *extra,
                  const sp_pageset *shared, size_t threads)
{
    sp_merge *m = NULL;
    sp_mem_init(&out->mem, NULL);
    CHECK_EQ(sp_merge_new(NULL, harvest, sp_pageset_set(extra), sp_pageset_set(shared), &m), SP_OK);
    CHECK_EQ(sp_merge_all(m, threads, &out->mem, &out->shared, &out->private), SP_OK);
    sp_merge_free(m);
}

static void same_list(const sp_list *got, const sp_list *want)
{
    REQUIRE_EQ(got->n, want->n);
    CHECK_EQ(got->pages, want->pages);
    CHECK(memcmp(got->ranges, want->ranges, want->n * sizeof *want->ranges) == 0);
}

static void clear(lists *l)
{
    sp_list_free(&l->mem, &l->shared);
    sp_list_free(&l->mem, &l->private);
}

/* By one thread and by three. */
static void check_merge(sp_harvest *harvest, const sp_pageset *extra, const sp_pageset *all,
                        const sp_pageset *shared)
{
    lists want;
    merge(&want, NULL, all, shared, 1);
    for (size_t threads = 1; threads <= 3; threads += 2) {
        lists got;
        merge(&got, harvest, extra, shared, threads);
        same_list(&got.shared, &want.shared);
        same_list(&got.private, &want.private);
        clear(&got);
    }
    clear(&want);
}

static void check_scene(scene *s, sp_harvest *harvest)
{
    sp_pageset *none = set_of(s->gfns, 0), *both = NULL;
    uint64_t pages = 0;
    s->dirty = set_of(s->gfns, s->n);
    CHECK_EQ(
        sp_pageset_combine(NULL, SP_OR, sp_pageset_set(s->dirty), sp_pageset_set(s->extra), &both),
        SP_OK);
    check_merge(harvest, none, s->dirty, s->shared);
    check_merge(harvest, s->extra, both, s->shared);
    CHECK_EQ(sp_merge_count(NULL, harvest, &pages), SP_OK);
    CHECK_EQ(pages, sp_set_count(sp_pageset_set(s->dirty)));
    sp_pageset_release(none);
    sp_pageset_release(both);
    sp_pageset_release(s->dirty);
}

static void scene_open(scene *s, rng *r)
{
    static uint64_t gfns[4000];
    s->n = 0;
    dirty_open(&s->guest, slots, SLOTS);
    for (size_t i = 0; i < 4000; i++)
        gfns[i] = rng_chance(r, 2) ? rng_below(r, 9000) : rng_below(r, TIB);
    s->shared = set_of(gfns, rng_below(r, 4000));
    for (size_t i = 0; i < 4000; i++)
        gfns[i] = rng_chance(r, 2) ? rng_below(r, 9000) : rng_below(r, TIB);
    s->extra = set_of(gfns, rng_below(r, 4000));
}

static void scene_close(scene *s)
{
    sp_pageset_release(s->extra);
    sp_pageset_release(s->shared);
    dirty_close(&s->guest);
}

static void rings_merge_as_sets_do(void)
{
    static scene s;
    rng r = rng_open(1);
    for (uint64_t step = 0; step < check_scaled(60) && !check_failed(); step++) {
        size_t n = rng_below(&r, step % 2 ? 300 : MOST - 10);
        unsigned texture = (unsigned)rng_below(&r, TEXTURES);
        check_case("step %d, texture %u, %zu entries", (int)step, texture, n);
        scene_open(&s, &r);
        report(&s, &r, texture, n, step % 5 ? MOST : 500);
        if (step % 3 == 1) { /* a slot with a bitmap too, its last page in it */
            dirty_page(&s.guest, 0, 1000);
            dirty_page(&s.guest, 3, 998);
            const sp_memslot *first = sp_memory_at(s.guest.memory, 0);
            const sp_memslot *last = sp_memory_at(s.guest.memory, 3);
            s.gfns[s.n++] = first->gfn + 1000;
            s.gfns[s.n++] = last->gfn + 998;
        }
        sp_harvest *harvest = dirty_take(&s.guest);
        check_scene(&s, harvest);
        if (step % 2) { /* and once more, with what comes after it */
            sp_log_give_back(s.guest.log, harvest);
            report(&s, &r, (unsigned)rng_below(&r, TEXTURES), sp_min(100, MOST - s.n), 60);
            harvest = dirty_take(&s.guest);
            check_scene(&s, harvest);
        }
        sp_harvest_release(harvest);
        scene_close(&s);
    }
}

/* ---- lists that grow long ---- */

enum { CHUNK = 50000, PAGES = 300001 };

static const sp_range all_pages = {0, PAGES};

/* The first holds all pages, the second none, and the third some, in two slots. */
static const struct {
    sp_memslot slots[2];
    size_t n;
} guests[] = {
    {{{0, PAGES, 0}}, 1}, {{{PAGES, 70, 0}}, 1}, {{{100, 65001, 0}, {150000, 90000, SMM}}, 2}};

/* Reports CHUNK pages, each 7 after the one before, the nth time; half of them by ranges of 3. */
static sp_status report_chunk(dirty_bench *b, model *m, unsigned nth)
{
    static uint64_t gfns[CHUNK];
    static sp_range ranges[CHUNK];
    size_t bad;
    for (uint64_t i = 0; i < CHUNK; i++) {
        gfns[i] = (nth * (uint64_t)CHUNK + i) * 7 % (PAGES - 3);
        ranges[i] = (sp_range){gfns[i], gfns[i] + 3};
        model_assign(m, gfns[i], gfns[i] + (nth & 1 ? 3 : 1), true);
    }
    return nth & 1 ? sp_log_add_ranges(b->log, ranges, CHUNK, &bad)
                   : sp_log_add_pages(b->log, gfns, CHUNK, &bad);
}

/* What a slot holds moves to its bitmap, and what none does to a set; the list is bounded. */
static void long_lists_are_made_shorter(void)
{
    for (size_t guest = 0; guest < 3; guest++) {
        dirty_bench b;
        model m;
        check_case("guest %zu", guest);
        dirty_open(&b, guests[guest].slots, guests[guest].n);
        model_init(&m, &all_pages, 1);
        for (unsigned i = 0; i < 14; i++)
            CHECK_EQ(report_chunk(&b, &m, i), SP_OK);
        sp_harvest *harvest = dirty_take(&b);
        CHECK(sp_harvest_loose(harvest)->n <= LONGEST_LIST + CHUNK);
        CHECK_EQ(sp_harvest_words(harvest, 0) != NULL, guest != 1);
        CHECK_EQ(sp_set_count(sp_harvest_sparse(harvest)) > 0, guest != 0);
        harvest_is(harvest, &m);
        sp_harvest_release(harvest);
        model_clear(&m);
        dirty_close(&b);
    }
}

/* A run that leaves its slot, then one within it, then one within the slot behind. */
static void runs_across_slots_stay_in_long_lists(void)
{
    static const sp_memslot adjoining[] = {{0, 150000, 0}, {150000, 70, 1}};
    static const sp_range ends[] = {{149998, 150002}, {3, 5}, {150060, 150075}, {150010, 150011}};
    dirty_bench b;
    model m;
    size_t bad;
    dirty_open(&b, adjoining, 2);
    model_init(&m, &all_pages, 1);
    for (unsigned i = 0; i < 8; i++) {
        for (size_t n = 0; n < 4; n++) {
            CHECK_EQ(sp_log_add_ranges(b.log, &ends[n], 1, &bad), SP_OK);
            model_assign(&m, ends[n].start, ends[n].stop, true);
        }
        CHECK_EQ(report_chunk(&b, &m, i), SP_OK);
    }
    sp_harvest *harvest = dirty_take(&b);
    harvest_is(harvest, &m);
    sp_harvest_release(harvest);
    model_clear(&m);
    dirty_close(&b);
}

static void a_long_list_leaves_no_room_behind(void)
{
    dirty_bench b;
    model m;
    dirty_open(&b, guests[0].slots, guests[0].n);
    model_init(&m, &all_pages, 1);
    uint64_t bytes = sp_log_bytes(b.log);
    for (unsigned i = 0; i < 6; i++)
        CHECK_EQ(report_chunk(&b, &m, i), SP_OK);
    sp_harvest *harvest = dirty_take(&b);
    CHECK(sp_harvest_loose(harvest)->n > LONGEST_LIST);
    CHECK_EQ(sp_log_bytes(b.log), bytes);
    harvest_is(harvest, &m);
    sp_harvest_release(harvest);
    model_clear(&m);
    dirty_close(&b);
}

/* True once the call that makes the list shorter has succeeded.  No page is lost if it fails. */
static bool shortening_fails_at(size_t guest, uint64_t n)
{
    dirty_bench b;
    model before, after;
    dirty_open(&b, guests[guest].slots, guests[guest].n);
    model_init(&before, &all_pages, 1);
    for (unsigned i = 0; i < 6; i++)
        CHECK_EQ(report_chunk(&b, &before, i), SP_OK);
    model_copy(&after, &before);
    alloc_arm(&b.alloc, n, 0);
    sp_status status = report_chunk(&b, &after, 6);
    CHECK_EQ(status, alloc_failed(&b.alloc) ? SP_NOMEM : SP_OK);
    alloc_arm(&b.alloc, 0, 0);
    CHECK_EQ(sp_log_bytes(b.log) + b.memory_bytes, alloc_bytes(&b.alloc));
    sp_harvest *harvest = dirty_take(&b);
    harvest_is(harvest, status ? &before : &after);
    sp_harvest_release(harvest);
    model_clear(&before);
    model_clear(&after);
    dirty_close(&b);
    return !status;
}

static void making_lists_shorter_fails_at_every_allocation(void)
{
    for (size_t guest = 0; guest < 3; guest++) {
        bool done = false;
        for (uint64_t n = 1; !done && !check_failed(); n++) {
            check_case("guest %zu, allocation %d", guest, (int)n);
            done = shortening_fails_at(guest, n);
        }
    }
}

int main(void)
{
    RUN(rings_merge_as_sets_do);
    RUN(long_lists_are_made_shorter);
    RUN(runs_across_slots_stay_in_long_lists);
    RUN(a_long_list_leaves_no_room_behind);
    RUN(making_lists_shorter_fails_at_every_allocation);
    return check_close();
}
