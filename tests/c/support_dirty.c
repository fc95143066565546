/*
 * support_dirty.c - the slow way to read a harvest.
 */
#include "support_dirty.h"

#include <string.h>

void dirty_open(dirty_bench *b, const sp_memslot *slots, size_t n)
{
    size_t bad, other;
    alloc_init(&b->alloc);
    b->memory = NULL;
    b->log = NULL;
    if (!CHECK_EQ(
            sp_memory_new(&b->alloc.hook, &sp_engine_roaring, slots, n, &b->memory, &bad, &other),
            SP_OK))
        return;
    b->memory_bytes = alloc_bytes(&b->alloc);
    CHECK_EQ(sp_log_new(&b->alloc.hook, b->memory, &b->log), SP_OK);
}

void dirty_close(dirty_bench *b)
{
    sp_log_free(b->log);
    sp_memory_release(b->memory);
    CHECK_EQ(alloc_blocks(&b->alloc), 0);
    CHECK_EQ(alloc_bytes(&b->alloc), 0);
}

sp_harvest *dirty_take(dirty_bench *b)
{
    sp_harvest *harvest = NULL;
    CHECK_EQ(sp_log_take(b->log, &harvest), SP_OK);
    return harvest;
}

void dirty_page(dirty_bench *b, size_t index, uint64_t page)
{
    CHECK_EQ(sp_log_add_bitmap(b->log, sp_memory_at(b->memory, index), "\1", page, 1), SP_OK);
}

/* Run by run, as they lie in the list: ordered by words of 64 gfns. */
static void add_loose(model *m, const sp_loose *loose)
{
    CHECK(loose->n <= loose->room);
    for (size_t i = 0; i < loose->n; i++) {
        uint64_t start = sp_loose_start(loose->runs[i]), stop = sp_loose_stop(loose->runs[i]);
        CHECK(!i || sp_loose_start(loose->runs[i - 1]) / 64 <= start / 64);
        model_assign(m, start, stop, true);
        CHECK(model_contains(m, start) && model_contains(m, stop - 1));
    }
}

static void add_sparse(model *m, const sp_set *sparse)
{
    sp_range range;
    sp_cursor cursor = sp_cursor_open(sparse, 0, SP_GFN_LIMIT);
    CHECK_VALID(sp_set_validate(sparse));
    while (sp_cursor_ranges(sp_kernels_active(), &cursor, &range, 1)) {
        model_assign(m, range.start, range.stop, true);
        CHECK(model_contains(m, range.start) && model_contains(m, range.stop - 1));
    }
}

void model_add_harvest(model *m, const sp_harvest *harvest)
{
    const sp_memory *memory = sp_harvest_memory(harvest);
    for (size_t i = 0; i < sp_memory_count(memory); i++) {
        const sp_memslot *slot = sp_memory_at(memory, i);
        const uint64_t *words = sp_harvest_words(harvest, i);
        for (uint64_t page = 0; words && page < (slot->npages + 63) / 64 * 64; page++) {
            if (!(words[page / 64] >> (page % 64) & 1))
                continue;
            if (CHECK(page < slot->npages))
                model_assign(m, slot->gfn + page, slot->gfn + page + 1, true);
        }
    }
    add_loose(m, sp_harvest_loose(harvest));
    add_sparse(m, sp_harvest_sparse(harvest));
}

bool harvest_has(const sp_harvest *harvest, uint64_t gfn)
{
    const sp_loose *loose = sp_harvest_loose(harvest);
    bool found = sp_set_contains(sp_harvest_sparse(harvest), gfn);
    for (size_t i = 0; i < loose->n; i++)
        found |= gfn >= sp_loose_start(loose->runs[i]) && gfn < sp_loose_stop(loose->runs[i]);
    return found;
}

bool harvest_is_empty(const sp_harvest *harvest)
{
    bool empty = !sp_harvest_loose(harvest)->n && !sp_set_count(sp_harvest_sparse(harvest));
    for (size_t i = 0; i < sp_memory_count(sp_harvest_memory(harvest)); i++)
        empty = empty && !sp_harvest_words(harvest, i);
    return empty;
}

void model_add(model *out, const model *a, const model *b) { model_combine(out, SP_OR, a, b); }

bool model_same(const model *a, const model *b)
{
    bool same = memcmp(a->gap, b->gap, (a->n + 1) * sizeof *a->gap) == 0;
    for (size_t w = 0; w < a->n; w++)
        same = same && memcmp(a->window[w].in, b->window[w].in,
                              a->window[w].stop - a->window[w].start) == 0;
    return same;
}

bool harvest_is(const sp_harvest *harvest, const model *m)
{
    model got;
    model_copy(&got, m);
    model_assign(&got, 0, SP_GFN_LIMIT, false);
    model_add_harvest(&got, harvest);
    bool same = CHECK(model_same(&got, m));
    model_clear(&got);
    return same;
}
