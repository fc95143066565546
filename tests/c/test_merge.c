/* tier: differential
 *
 * test_merge.c - the merge against bytes a page, for every kernel table: in one go by one thread
 * and by several, and in batches of every small room.
 *
 * A scene is a guest over a few windows of gfns with what is dirty, extra and shared there, each as
 * the merge gets it and as a model.
 */
#include <stdlib.h>
#include <string.h>

#include "base/bits.h"
#include "support_dirty.h"
#include "support_set.h"

#define SMM (1u << 16) /* address space 1 */

enum { MOST_SLOTS = 24 };

typedef struct scene {
    dirty_bench guest;
    model dirty;
    sp_harvest *harvest; /* NULL: nothing is dirty */
    set_bench extra, shared;
} scene;

static void scene_open(scene *s, const sp_range *windows, size_t n, const sp_memslot *slots,
                       size_t nslots)
{
    dirty_open(&s->guest, slots, nslots);
    model_init(&s->dirty, windows, n);
    s->harvest = NULL;
    set_bench_open(&s->extra, windows, n);
    set_bench_open(&s->shared, windows, n);
}

static void scene_close(scene *s)
{
    sp_harvest_release(s->harvest);
    dirty_close(&s->guest);
    model_clear(&s->dirty);
    set_bench_close(&s->extra);
    set_bench_close(&s->shared);
}

/* ---- the comparison ---- */

typedef struct expected {
    sp_range *ranges;
    size_t n;
    uint64_t pages;
} expected;

static expected expect(const scene *s, sp_op op)
{
    model m;
    model_copy(&m, &s->dirty);
    model_combine(&m, SP_OR, &m, &s->extra.model);
    model_combine(&m, op, &m, &s->shared.model);
    expected e = {.pages = model_count(&m)};
    e.ranges = model_ranges(&m, 0, SP_GFN_LIMIT, &e.n);
    model_clear(&m);
    return e;
}

static bool list_is(const sp_list *list, const expected *want)
{
    return CHECK_EQ(list->n, want->n) && CHECK_EQ(list->pages, want->pages) &&
           CHECK(memcmp(list->ranges, want->ranges, want->n * sizeof *want->ranges) == 0);
}

static sp_merge *open_merge(const scene *s, test_alloc *alloc)
{
    sp_merge *merge = NULL;
    alloc_init(alloc);
    CHECK_EQ(sp_merge_new(&alloc->hook, s->harvest, &s->extra.set, &s->shared.set, &merge), SP_OK);
    return merge;
}

static void check_all(const scene *s, size_t threads, const expected *shared,
                      const expected *private)
{
    test_alloc alloc;
    sp_mem mem;
    sp_list got_shared, got_private;
    sp_merge *merge = open_merge(s, &alloc);
    sp_mem_init(&mem, &alloc.hook);
    CHECK_EQ(sp_merge_all(merge, threads, &mem, &got_shared, &got_private), SP_OK);
    sp_merge_free(merge);
    list_is(&got_shared, shared);
    list_is(&got_private, private);
    sp_list_free(&mem, &got_shared);
    sp_list_free(&mem, &got_private);
    CHECK(!got_shared.ranges && !got_private.n);
    CHECK_EQ(alloc_blocks(&alloc), 0);
}

/* Moves a batch behind what came before it. */
static bool collect(expected *all, sp_list *batch, const expected *want)
{
    if (!CHECK(batch->n <= batch->room && all->n + batch->n <= want->n))
        return false;
    bool same = CHECK(
        memcmp(want->ranges + all->n, batch->ranges, batch->n * sizeof *batch->ranges) == 0);
    all->n += batch->n;
    batch->n = 0;
    return same;
}

/* Batches in arrays of exactly their room.  One that is not the last has filled a list. */
static void check_batches(const scene *s, size_t room_shared, size_t room_private,
                          const expected *shared, const expected *private)
{
    test_alloc alloc;
    expected all_shared = {0}, all_private = {0};
    sp_list a = {malloc(room_shared * sizeof(sp_range)), 0, room_shared, 0};
    sp_list b = {malloc(room_private * sizeof(sp_range)), 0, room_private, 0};
    sp_merge *merge = open_merge(s, &alloc);
    for (bool over = false; !over;) {
        over = sp_merge_next(merge, &a, &b);
        if (!CHECK(over || a.n == a.room || b.n == b.room) || !collect(&all_shared, &a, shared) ||
            !collect(&all_private, &b, private))
            break;
    }
    CHECK_EQ(all_shared.n, shared->n);
    CHECK_EQ(all_private.n, private->n);
    CHECK_EQ(a.pages, shared->pages);
    CHECK_EQ(b.pages, private->pages);
    CHECK(check_failed() || sp_merge_next(merge, &a, &b)); /* over is over */
    CHECK_EQ(a.n + b.n, 0);
    sp_merge_free(merge);
    CHECK_EQ(alloc_blocks(&alloc), 0);
    free(a.ranges);
    free(b.ranges);
}

static void check_count(const scene *s)
{
    test_alloc alloc;
    uint64_t pages;
    alloc_init(&alloc);
    if (!s->harvest)
        return;
    CHECK_EQ(sp_merge_count(&alloc.hook, s->harvest, &pages), SP_OK);
    CHECK_EQ(pages, model_count(&s->dirty));
    CHECK_EQ(alloc_blocks(&alloc), 0);
}

static const size_t some_threads[] = {2, 3, 7};

/* Every table, by one thread and by several, and rooms 1..most of either list. */
static void check_scene(const scene *s, size_t most)
{
    const sp_kernels *was = sp_kernels_active(), *table;
    expected shared = expect(s, SP_AND), private = expect(s, SP_ANDNOT);
    for (size_t i = 0; (table = sp_kernels_at(i)) && !check_failed(); i++) {
        sp_kernels_use(table);
        check_all(s, 1, &shared, &private);
        check_all(s, some_threads[(i + most + shared.n) % 3], &shared, &private);
        check_count(s);
        for (size_t a = 1; a <= most; a++)
            for (size_t b = 1; b <= most; b++)
                check_batches(s, a, b, &shared, &private);
        if (most)
            check_batches(s, 1, shared.n + private.n + 1, &shared, &private);
    }
    sp_kernels_use(was);
    free(shared.ranges);
    free(private.ranges);
}

/* ---- what is dirty ---- */

enum { CLEAN, ALL, RANDOM, SPARSE, ALTERNATE, STRETCHES, EDGES, TEXTURES };

static bool bit_at(rng *r, unsigned texture, uint64_t page, uint64_t npages)
{
    switch (texture) {
    case CLEAN: return false;
    case ALL: return true;
    case RANDOM: return rng_chance(r, 2);
    case SPARSE: return rng_chance(r, 90);
    case ALTERNATE: return page & 1;
    case STRETCHES: return page / 67 % 3 == 1 || rng_chance(r, 200);
    default: return page == 0 || page == npages - 1 || page % 64 == 63;
    }
}

static void dirty_slot(scene *s, rng *r, size_t index, unsigned texture)
{
    const sp_memslot *slot = sp_memory_at(s->guest.memory, index);
    size_t bytes = (slot->npages + 7) / 8;
    uint8_t *bitmap = calloc(1, bytes);
    for (uint64_t page = 0; page < slot->npages; page++) {
        if (!bit_at(r, texture, page, slot->npages))
            continue;
        bitmap[page / 8] |= (uint8_t)(1u << (page % 8));
        model_assign(&s->dirty, slot->gfn + page, slot->gfn + page + 1, true);
    }
    CHECK_EQ(sp_log_add_bitmap(s->guest.log, slot, bitmap, 0, slot->npages), SP_OK);
    free(bitmap);
}

static void dirty_range(scene *s, sp_range range)
{
    size_t bad;
    CHECK_EQ(sp_log_add_ranges(s->guest.log, &range, 1, &bad), SP_OK);
    model_assign(&s->dirty, range.start, range.stop, true);
}

/* Single pages and short runs by the hundred, near each other or anywhere: what a ring brings. */
static void dirty_pages(scene *s, rng *r)
{
    uint64_t at = model_border(&s->dirty, r), last = SP_GFN_LIMIT - 1;
    for (uint64_t n = rng_below(r, rng_chance(r, 4) ? 900 : 60); n; n--) {
        at = rng_chance(r, 9) ? model_border(&s->dirty, r) : at + rng_below(r, 40);
        for (size_t w = 0; w < s->dirty.n; w++) {
            const model_window *in = &s->dirty.window[w];
            if (at >= in->start && at < in->stop)
                dirty_range(s, (sp_range){at, sp_min(at + rng_between(r, 1, 3), in->stop)});
        }
        at = sp_min(at, last);
    }
}

/* ---- what is shared ---- */

enum { NONE, FULL, HALVES, RUNS, EVERY_OTHER, PACKED, SCATTERED, SHARINGS };

static void share(scene *s, rng *r, unsigned sharing, const sp_range *windows, size_t n)
{
    if (sharing == FULL)
        set_bench_assign(&s->shared, 0, SP_GFN_LIMIT, true);
    if (sharing == RUNS)
        set_bench_fill(&s->shared, r, 40);
    for (size_t w = 0; w < n; w++) {
        uint64_t start = windows[w].start, width = windows[w].stop - start;
        if (sharing == HALVES)
            set_bench_assign(&s->shared, start + width / 2, windows[w].stop, true);
        if (sharing == PACKED) {
            set_bench_assign(&s->shared, start + 3, start + width / 3, true);
            set_bench_assign(&s->shared, start + width / 2, start + width / 2 + 45, true);
        }
        for (uint64_t at = start; sharing == EVERY_OTHER && at < windows[w].stop; at += 2)
            set_bench_assign(&s->shared, at, at + 1, true);
        for (uint64_t at = start; sharing == SCATTERED && at + 40 < windows[w].stop;
             at += rng_between(r, 30, 1500))
            set_bench_assign(&s->shared, at, at + rng_between(r, 1, 29), true);
    }
}

/* ---- one slot, every alignment ---- */

static const uint64_t sizes[] = {1, 2, 63, 64, 65, 127, 128, 129, 191, 320, 500};

/* The n-th kind of extra pages about a slot; false when there are no more. */
static bool add_extra(set_bench *extra, const sp_memslot *slot, unsigned nth)
{
    uint64_t start = slot->gfn, stop = start + slot->npages, last_word = (slot->npages - 1) & ~63ul;
    const sp_range kinds[] = {
        {0, 0},
        {0, SP_GFN_LIMIT},
        {start - 1, start},
        {start, start + 1},
        {start - 2, start + 1},
        {stop - 1, stop},
        {stop, stop + 1},
        {stop - 1, stop + 2},
        {start - 1, stop + 1},
        {start + last_word, stop},
        {start + last_word, stop + 70},
        {start + 63, start + 64},
        {start + 64, start + 65},
        {start + 60, start + 200},
        {start - 70, start + 70},
        {stop + 5, SP_GFN_LIMIT},
        {SP_GFN_LIMIT - 1, SP_GFN_LIMIT},
    };
    if (nth >= sizeof kinds / sizeof *kinds)
        return false;
    if (kinds[nth].start < kinds[nth].stop)
        set_bench_assign(extra, kinds[nth].start, kinds[nth].stop, true);
    return true;
}

static void a_slot_begins_and_ends_anywhere(void)
{
    rng r = rng_open(1);
    bool more = true;
    for (unsigned kind = 0; more; kind++)
        for (uint64_t align = 0; align < 64; align++) {
            scene s;
            sp_memslot slot = {65536 - 256 + align, sizes[rng_below(&r, 11)], 0};
            sp_range windows[] = {{65000, 67000}, {SP_GFN_LIMIT - 100, SP_GFN_LIMIT}};
            unsigned texture = (unsigned)rng_below(&r, TEXTURES);
            unsigned sharing = (unsigned)rng_below(&r, SHARINGS);
            check_case("slot [%d, +%d), extra %u, texture %u, sharing %u", (int)slot.gfn,
                       (int)slot.npages, kind, texture, sharing);
            scene_open(&s, windows, 2, &slot, 1);
            more = add_extra(&s.extra, &slot, kind);
            dirty_slot(&s, &r, 0, texture);
            share(&s, &r, sharing, windows, 2);
            s.harvest = dirty_take(&s.guest);
            check_scene(&s, align % 8 ? 0 : 3);
            scene_close(&s);
            if (check_failed())
                return;
        }
}

/* ---- guests ---- */

typedef struct layout {
    sp_range windows[4];
    size_t n;
    sp_memslot slots[MOST_SLOTS];
    size_t nslots;
} layout;

static uint64_t some_pages(rng *r, uint64_t width)
{
    uint64_t npages = rng_chance(r, 3) ? 64 * rng_between(r, 1, 6) : rng_between(r, 1, 200);
    return rng_chance(r, 6) ? rng_between(r, 1, width / 2) : npages;
}

/* Slots of address space 0 one after the other, often without a page between them; those of two
 * more spaces anywhere, over and among them. */
static void lay_out(layout *l, rng *r, uint64_t width)
{
    static const uint64_t borders[] = {65536, UINT64_C(1) << 22, UINT64_C(1) << 32};
    uint32_t id = 0;
    *l = (layout){.n = rng_between(r, 1, 4)};
    for (size_t w = 0; w < 3; w++)
        l->windows[w] = (sp_range){borders[w] - width / 2, borders[w] + width / 2};
    l->windows[l->n - 1] = l->n == 4 || rng_chance(r, 3)
                               ? (sp_range){SP_GFN_LIMIT - width, SP_GFN_LIMIT}
                               : l->windows[l->n - 1];
    for (size_t w = 0; w < l->n; w++)
        for (uint32_t space = 0; space < 3; space++) {
            uint64_t at = l->windows[w].start + rng_below(r, 70);
            for (unsigned n = (unsigned)rng_below(r, space ? 2 : 5); n; n--) {
                uint64_t npages = some_pages(r, width);
                if (l->nslots == MOST_SLOTS || at >= l->windows[w].stop)
                    break;
                npages = sp_min(npages, l->windows[w].stop - at);
                l->slots[l->nslots++] = (sp_memslot){at, npages, space << 16 | id++};
                at += npages + (rng_chance(r, 2) ? 0 : rng_below(r, space ? width / 3 : 130));
            }
        }
}

/* Near the borders of a slot, or of one of its words. */
static void add_near(scene *s, rng *r, const layout *l)
{
    const sp_memslot *slot = &l->slots[rng_below(r, l->nslots)];
    uint64_t at = slot->gfn + rng_below(r, 2) * slot->npages;
    if (rng_chance(r, 2))
        at = slot->gfn + rng_below(r, slot->npages / 64 + 1) * 64;
    for (size_t w = 0; w < l->n; w++) {
        sp_range window = l->windows[w];
        if (at < window.start || at > window.stop)
            continue;
        uint64_t start = at - sp_min(at - window.start, rng_below(r, rng_chance(r, 3) ? 99 : 3));
        uint64_t stop = sp_min(at + rng_below(r, rng_chance(r, 3) ? 999 : 3), window.stop);
        if (start < stop && rng_chance(r, 4))
            dirty_range(s, (sp_range){start, stop});
        else if (start < stop)
            set_bench_assign(&s->extra, start, stop, true);
    }
}

static void check_guest(rng *r, uint64_t width, size_t rooms)
{
    scene s;
    layout l;
    lay_out(&l, r, width);
    scene_open(&s, l.windows, l.n, l.slots, l.nslots);
    unsigned only = (unsigned)rng_below(r, 3 * TEXTURES);
    uint64_t with_bitmap = rng_chance(r, 4) ? 0 : 4; /* of five slots; none: loose pages alone */
    for (size_t i = 0; i < l.nslots; i++)
        if (rng_below(r, 5) < with_bitmap)
            dirty_slot(&s, r, i, only < TEXTURES ? only : (unsigned)rng_below(r, TEXTURES));
    for (uint64_t n = l.nslots ? rng_below(r, 12) : 0; n; n--)
        add_near(&s, r, &l);
    for (uint64_t n = rng_below(r, 3); n; n--)
        dirty_range(&s, random_range(&s.dirty, r));
    if (rng_chance(r, 3))
        dirty_pages(&s, r);
    if (rng_chance(r, 3))
        set_bench_fill(&s.extra, r, 3);
    if (rng_chance(r, 12))
        set_bench_assign(&s.extra, 0, SP_GFN_LIMIT, true);
    share(&s, r, (unsigned)rng_below(r, SHARINGS), l.windows, l.n);
    s.harvest = dirty_take(&s.guest);
    check_scene(&s, rooms);
    scene_close(&s);
}

static void guests_of_many_slots(void)
{
    rng r = rng_open(2);
    for (uint64_t n = 0; n < check_scaled(1500) && !check_failed(); n++) {
        check_case("guest %d", (int)n);
        check_guest(&r, 1000, n % 10 ? 0 : 9);
    }
}

/* More toggles than stage 1 holds at a time, and slots longer than a mix of words. */
static void guests_of_large_slots(void)
{
    rng r = rng_open(3);
    for (uint64_t n = 0; n < check_scaled(25) && !check_failed(); n++) {
        check_case("guest %d", (int)n);
        check_guest(&r, 60000, n % 5 ? 0 : 2);
    }
}

/* ---- no harvest ---- */

static void sets_alone_are_split(void)
{
    sp_range windows[BORDER_WINDOWS];
    rng r = rng_open(4);
    border_windows(3000, windows);
    for (uint64_t n = 0; n < check_scaled(60) && !check_failed(); n++) {
        scene s;
        check_case("sets %d", (int)n);
        scene_open(&s, windows, BORDER_WINDOWS, NULL, 0);
        set_bench_fill(&s.extra, &r, (unsigned)rng_below(&r, 60));
        for (uint64_t at = windows[n % 10].start; n % 3 == 0 && at < windows[n % 10].stop; at += 2)
            set_bench_assign(&s.extra, at, at + 1, true);
        share(&s, &r, (unsigned)(n % SHARINGS), windows, BORDER_WINDOWS);
        check_scene(&s, n % 6 ? 0 : 4);
        scene_close(&s);
    }
}

int main(void)
{
    RUN(a_slot_begins_and_ends_anywhere);
    RUN(guests_of_many_slots);
    RUN(guests_of_large_slots);
    RUN(sets_alone_are_split);
    return check_close();
}
