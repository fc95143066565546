/*
 * support_set.c - building random sets beside their models.
 */
#include "support_set.h"

#include "base/bits.h"

void border_windows(uint64_t width, sp_range windows[BORDER_WINDOWS])
{
    static const unsigned borders[] = {16, 22, 28, 31, 32, 34, 40, 46};
    windows[0] = (sp_range){0, width};
    for (unsigned i = 0; i < 8; i++) {
        uint64_t border = UINT64_C(1) << borders[i];
        windows[i + 1] = (sp_range){border - width / 2, border + width / 2};
    }
    windows[9] = (sp_range){SP_GFN_LIMIT - width, SP_GFN_LIMIT};
}

void set_bench_open(set_bench *b, const sp_range *windows, size_t n)
{
    alloc_init(&b->alloc);
    sp_mem_init(&b->mem, &b->alloc.hook);
    b->edit = sp_edit_private(&b->mem, sp_kernels_active());
    b->set = sp_set_empty(test_engine);
    model_init(&b->model, windows, n);
}

void set_bench_close(set_bench *b)
{
    b->edit.floor = 0;
    sp_set_retire(&b->edit, &b->set);
    for (sp_node *node; (node = sp_deadlist_pop(&b->edit.dead));)
        sp_node_free(&b->mem, node);
    CHECK_EQ(alloc_blocks(&b->alloc), 0);
    CHECK_EQ(sp_load(&b->mem.bytes, relaxed), 0);
    model_clear(&b->model);
}

void set_bench_assign(set_bench *b, uint64_t start, uint64_t stop, bool value)
{
    CHECK_EQ(sp_set_assign(&b->edit, &b->set, start, stop, value), SP_OK);
    model_assign(&b->model, start, stop, value);
}

sp_range random_range(const model *m, rng *r)
{
    for (;;) {
        uint64_t a = model_border(m, r), b = model_border(m, r);
        bool far = rng_chance(r, 6);
        for (unsigned tries = 0; !far && tries < 50; tries++) {
            b = model_border(m, r);
            if (b - a < 10000 || a - b < 10000)
                break;
        }
        if (a != b)
            return (sp_range){sp_min(a, b), sp_max(a, b)};
    }
}

void set_bench_fill(set_bench *b, rng *r, unsigned n)
{
    while (n--) {
        sp_range range = random_range(&b->model, r);
        set_bench_assign(b, range.start, range.stop, !rng_chance(r, 3));
    }
}

bool set_bench_matches(const set_bench *b)
{
    sp_set_stats stats;
    sp_set_measure(&b->set, &stats);
    return model_matches(&b->model, &b->set) && CHECK_EQ(stats.nodes, alloc_blocks(&b->alloc)) &&
           CHECK_EQ(stats.bytes, alloc_bytes(&b->alloc)) &&
           CHECK_EQ(stats.pages, sp_set_count(&b->set)) &&
           CHECK_EQ(stats.nodes, stats.inner + stats.arrays + stats.runs + stats.bitmaps +
                                     stats.blocks + stats.narrow + stats.wide);
}
