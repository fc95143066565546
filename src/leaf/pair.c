/*
 * pair.c - whole leaves and pairs of leaves: copies, set operations, editing by shape, the checker.
 * Floor 2.
 *
 * Two lists are combined as lists, two bitmaps as words, and a list and a bitmap by the words under
 * the list.  (SIMD merges of short lists were measured elsewhere not to pay.)
 */
#include "leaf/build.h"

sp_status sp_leaf_clone(sp_edit *edit, sp_ref leaf, sp_ref *out)
{
    if (!sp_ref_is_node(leaf)) {
        *out = leaf;
        return SP_OK;
    }
    if (sp_leaf_shape(leaf) == SP_BITMAP)
        return sp_bitmap_clone(edit, leaf, out);
    void *copy = sp_edit_copy(edit, sp_ref_node(leaf));
    if (!copy)
        return SP_NOMEM;
    *out = sp_node_ref(copy);
    return SP_OK;
}

/* Runs of both lists from which words are faster: their cost is fixed, a walk mispredicts. */
#define MANY_RUNS 128

static sp_status combine_words(sp_edit *edit, sp_op op, sp_ref a, sp_ref b, sp_ref *out)
{
    uint64_t of_a[SP_LEAF_WORDS], of_b[SP_LEAF_WORDS];
    edit->kernels->combine(op, sp_leaf_view(a, of_a), sp_leaf_view(b, of_b), of_a, SP_LEAF_WORDS);
    return sp_leaf_from_words(edit, of_a, out);
}

static sp_status combine_lists(sp_edit *edit, sp_op op, sp_ref a, sp_ref b, sp_ref *out)
{
    sp_run in_a[SP_MAX_VALUES], in_b[SP_MAX_VALUES], result[2 * SP_MAX_VALUES + 1];
    const sp_run *runs_a, *runs_b;
    uint32_t na = sp_leaf_runs(a, &runs_a, in_a), nb = sp_leaf_runs(b, &runs_b, in_b);
    if (sp_min(na, nb) > MANY_RUNS)
        return combine_words(edit, op, a, b, out);
    uint32_t n = sp_runs_combine(op, runs_a, na, runs_b, nb, result);
    return sp_leaf_from_runs(edit, result, n, out);
}

/* list AND bitmap (keep), or list AND NOT bitmap. */
static sp_status cut(sp_edit *edit, sp_ref list, sp_ref bitmap, bool keep, sp_ref *out)
{
    sp_run scratch[SP_MAX_VALUES];
    const sp_run *runs;
    uint32_t n = sp_leaf_runs(list, &runs, scratch);
    return sp_mixed_cut(edit, sp_as_bitmap(bitmap), runs, n, keep, out);
}

/* bitmap op list, for OR, ANDNOT and XOR. */
static sp_status alter(sp_edit *edit, sp_op op, sp_ref bitmap, sp_ref list, sp_ref *out)
{
    sp_run scratch[SP_MAX_VALUES];
    const sp_run *runs;
    uint32_t n = sp_leaf_runs(list, &runs, scratch);
    /* A run of p pages joins or takes at most p / 2 + 1 runs. */
    uint32_t lost = sp_leaf_count(list) / 2 + n, had = sp_as_bitmap(bitmap)->least_runs;
    return sp_bitmap_alter(edit, op, bitmap, runs, n, had > lost ? had - lost : 0, out);
}

sp_status sp_leaf_combine(sp_edit *edit, sp_op op, sp_ref a, sp_ref b, sp_ref *out)
{
    bool wide_a = sp_leaf_shape(a) == SP_BITMAP, wide_b = sp_leaf_shape(b) == SP_BITMAP;
    if (wide_a && wide_b)
        return combine_words(edit, op, a, b, out);
    if (!wide_a && !wide_b)
        return combine_lists(edit, op, a, b, out);
    if (wide_b && (op == SP_AND || op == SP_ANDNOT))
        return cut(edit, a, b, op == SP_AND, out);
    if (op == SP_AND)
        return cut(edit, b, a, true, out);
    return wide_a ? alter(edit, op, a, b, out) : alter(edit, op, b, a, out);
}

/* Values that both arrays have.  No branch depends on them. */
static uint32_t arrays_intersection(const sp_small *a, const sp_small *b)
{
    const uint16_t *of_a = sp_values(a), *of_b = sp_values(b);
    uint32_t i = 0, j = 0, pages = 0;
    while (i < a->n && j < b->n) {
        uint16_t x = of_a[i], y = of_b[j];
        pages += x == y;
        i += x <= y;
        j += y <= x;
    }
    return pages;
}

uint32_t sp_leaf_intersection(const sp_kernels *k, sp_ref a, sp_ref b)
{
    bool wide_a = sp_leaf_shape(a) == SP_BITMAP, wide_b = sp_leaf_shape(b) == SP_BITMAP;
    if (wide_a && wide_b) {
        uint64_t of_a[SP_LEAF_WORDS], of_b[SP_LEAF_WORDS];
        return (uint32_t)k->combine_count(SP_AND, sp_leaf_view(a, of_a), sp_leaf_view(b, of_b),
                                          SP_LEAF_WORDS);
    }
    if (sp_leaf_shape(a) == SP_ARRAY && sp_leaf_shape(b) == SP_ARRAY)
        return arrays_intersection(sp_as_small(a), sp_as_small(b));
    sp_run in_a[SP_MAX_VALUES], in_b[SP_MAX_VALUES];
    const sp_run *runs_a, *runs_b;
    if (wide_a || wide_b) {
        uint32_t n = sp_leaf_runs(wide_a ? b : a, &runs_a, in_a);
        return sp_mixed_count(k, sp_as_bitmap(wide_a ? a : b), runs_a, n);
    }
    uint32_t na = sp_leaf_runs(a, &runs_a, in_a), nb = sp_leaf_runs(b, &runs_b, in_b);
    return sp_runs_intersection(runs_a, na, runs_b, nb);
}

void sp_leaf_walk(sp_ref leaf, uint64_t floor, sp_node_fn visit, void *context)
{
    if (!sp_ref_is_node(leaf) || sp_node_birth(sp_ref_node(leaf)) <= floor)
        return;
    if (sp_leaf_shape(leaf) == SP_BITMAP && !sp_bitmap_is_whole(sp_as_bitmap(leaf))) {
        for (unsigned b = 0; b < SP_BLOCKS; b++) {
            sp_ref block = sp_as_bitmap(leaf)->block[b];
            if (sp_block_is_real(block) && sp_node_birth(sp_block_node(block)) > floor)
                visit(context, sp_block_node(block));
        }
    }
    visit(context, sp_ref_node(leaf));
}

void sp_leaf_retire(sp_edit *edit, sp_ref leaf)
{
    if (sp_ref_is_node(leaf) && sp_node_let_go(sp_ref_node(leaf)))
        sp_leaf_walk(leaf, 0, sp_edit_retire_node, edit);
}

sp_status sp_leaf_prepare(sp_edit *edit, sp_ref *leaf, uint32_t first, uint32_t last, bool value)
{
    if (sp_leaf_shape(*leaf) == SP_BITMAP)
        return sp_bitmap_prepare(edit, leaf, first, last, value);
    return sp_small_prepare(edit, leaf, first, last, value);
}

int32_t sp_leaf_commit(sp_edit *edit, sp_ref *leaf, uint32_t first, uint32_t last, bool value)
{
    if (sp_leaf_shape(*leaf) == SP_BITMAP)
        return sp_bitmap_commit(edit, leaf, first, last, value);
    return sp_small_commit(edit, leaf, first, last, value);
}

sp_status sp_leaf_assign(sp_edit *edit, sp_ref *leaf, uint32_t first, uint32_t last, bool value,
                         int32_t *delta)
{
    if (sp_leaf_shape(*leaf) != SP_BITMAP && sp_small_try(edit, leaf, first, last, value, delta))
        return SP_OK;
    sp_status status = sp_leaf_prepare(edit, leaf, first, last, value);
    if (!status)
        *delta = sp_leaf_commit(edit, leaf, first, last, value);
    return status;
}

void sp_leaf_settle(sp_edit *edit, sp_ref *leaf)
{
    if (!sp_ref_is_node(*leaf) || !sp_edit_owns(edit, sp_ref_node(*leaf)))
        return;
    if (sp_leaf_shape(*leaf) == SP_BITMAP)
        sp_bitmap_tidy(edit, leaf);
    else
        sp_small_tidy(edit, leaf);
}

/* ---- the checker ---- */

static const char *validate_small(const sp_small *leaf, sp_shape shape)
{
    size_t element = shape == SP_ARRAY ? sizeof(uint16_t) : sizeof(sp_run);
    if (SP_SMALL_HEAD + leaf->n * element > sp_node_bytes(&leaf->head))
        return "a small leaf holds more than its node has room for";
    uint32_t pages = 0;
    for (uint32_t i = 0; i < leaf->n; i++) {
        if (shape == SP_ARRAY) {
            if (i && sp_values(leaf)[i] <= sp_values(leaf)[i - 1])
                return "an array is not ascending";
            pages++;
        } else {
            sp_run run = sp_runs(leaf)[i];
            if (run.first > run.last || (i && run.first <= sp_runs(leaf)[i - 1].last + 1u))
                return "runs are inverted, overlapping or adjacent";
            pages += sp_run_pages(run);
        }
    }
    return pages == leaf->pages ? NULL : "a small leaf miscounts its pages";
}

static bool could_be_packed(sp_ref leaf)
{
    const sp_run *runs;
    sp_run scratch[SP_MAX_VALUES];
    sp_ref unused;
    uint32_t n = sp_leaf_runs(leaf, &runs, scratch);
    return sp_held_put(runs, n, &unused);
}

static uint32_t block_pages(sp_ref block)
{
    if (!sp_block_is_real(block))
        return block == SP_FULL ? SP_BLOCK_PAGES : 0;
    uint32_t pages = 0;
    for (unsigned w = 0; w < SP_BLOCK_WORDS; w++)
        pages += sp_popcount(sp_block_words(block)[w]);
    return pages;
}

static const char *validate_bitmap(const sp_bitmap *leaf)
{
    uint32_t pages = 0, real = 0;
    for (unsigned b = 0; b < SP_BLOCKS; b++) {
        uint32_t in = block_pages(leaf->block[b]);
        if (in != leaf->in_block[b])
            return "a bitmap leaf miscounts a block";
        if (sp_block_is_real(leaf->block[b]) && (in == 0 || in == SP_BLOCK_PAGES))
            return "a uniform block is not flat";
        pages += in;
        real += sp_block_is_real(leaf->block[b]);
    }
    if (real != leaf->real)
        return "a bitmap leaf miscounts its blocks";
    if (sp_bitmap_is_whole(leaf) &&
        sp_words_runs(&sp_kernels_scalar, leaf->words) < leaf->least_runs)
        return "a whole leaf has fewer runs than it says";
    return pages == leaf->pages ? NULL : "a bitmap leaf miscounts its pages";
}

const char *sp_leaf_validate(sp_ref leaf)
{
    const char *reason = NULL;
    sp_run held[2];
    switch (sp_leaf_shape(leaf)) {
    case SP_HELD:
        if (sp_held_get(leaf, held) == 2 && held[1].first <= held[0].last + 1u)
            reason = "packed runs overlap or are adjacent";
        break;
    case SP_BITMAP: reason = validate_bitmap(sp_as_bitmap(leaf)); break;
    default: reason = validate_small(sp_as_small(leaf), sp_leaf_shape(leaf));
    }
    uint32_t pages = sp_leaf_count(leaf);
    if (!reason && sp_ref_is_node(leaf) && (pages == 0 || pages == SP_LEAF_PAGES))
        reason = "an empty or full leaf is a node";
    if (!reason && sp_ref_is_node(leaf) && sp_leaf_shape(leaf) != SP_BITMAP &&
        could_be_packed(leaf))
        reason = "a small leaf holds what a packed ref could";
    return reason;
}
