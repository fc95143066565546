/*
 * radix.c - reading the roaring engine's trees, and its table.  Floor 3.
 *
 * A root-to-leaf walk is h dependent loads.  Listing walks the children of a lowest inner node in a
 * loop and descends anew only when it leaves that node, so empty leaves cost one compare each.
 */
#include "set/radix.h"

static uint64_t count(const sp_set *set) { return ref_pages(set->root, set->height); }

/* The ref that decides about gfn: flat at *level, or a leaf at level 0. */
static inline sp_ref find(const sp_set *set, uint64_t gfn, uint64_t *level)
{
    sp_ref ref = set->root;
    uint64_t l = set->height;
    if (gfn >> level_bits(l)) {
        *level = MAX_HEIGHT;
        return SP_EMPTY;
    }
    for (; l && !is_flat(ref); l--)
        ref = as_inner(ref)->child[gfn >> level_bits(l - 1) & (FANOUT - 1)];
    *level = l;
    return ref;
}

static bool contains(const sp_set *set, uint64_t gfn)
{
    uint64_t level;
    sp_ref ref = find(set, gfn, &level);
    return is_flat(ref) ? ref == SP_FULL : sp_leaf_contains(ref, gfn & (SP_LEAF_PAGES - 1));
}

static uint64_t rank(const sp_set *set, uint64_t gfn)
{
    uint64_t level = set->height, total = 0;
    sp_ref ref = set->root;
    if (gfn >> level_bits(level))
        return count(set);
    for (; level && !is_flat(ref); level--) {
        unsigned at = gfn >> level_bits(level - 1) & (FANOUT - 1);
        for (unsigned i = 0; i < at; i++)
            total += ref_pages(as_inner(ref)->child[i], level - 1);
        ref = as_inner(ref)->child[at];
    }
    uint64_t below = gfn & (level_span(level) - 1);
    if (is_flat(ref))
        return ref == SP_FULL ? total + below : total;
    return total + sp_leaf_rank(ref, (uint32_t)below);
}

/* Members among pages [lo, hi] of the ref's span. */
static uint64_t count_part(sp_ref ref, uint64_t level, uint64_t lo, uint64_t hi)
{
    if (is_flat(ref))
        return ref == SP_FULL ? hi - lo + 1 : 0;
    if (!level)
        return sp_leaf_count_range(ref, (uint32_t)lo, (uint32_t)hi);
    if (lo == 0 && hi == level_span(level) - 1)
        return as_inner(ref)->pages;
    uint64_t span = level_span(level - 1), total = 0;
    for (uint64_t i = lo / span; i <= hi / span; i++) {
        uint64_t base = i * span;
        total += count_part(as_inner(ref)->child[i], level - 1, sp_max(lo, base) - base,
                            sp_min(hi, base + span - 1) - base);
    }
    return total;
}

static uint64_t count_range(const sp_set *set, uint64_t start, uint64_t stop)
{
    uint64_t span = level_span(set->height), level;
    if ((start ^ (stop - 1)) >> SP_LEAF_BITS == 0) {
        sp_ref ref = find(set, start, &level);
        if (is_flat(ref))
            return ref == SP_FULL ? stop - start : 0;
        return sp_leaf_count_range(ref, start & (SP_LEAF_PAGES - 1),
                                   (stop - 1) & (SP_LEAF_PAGES - 1));
    }
    return start < span ? count_part(set->root, set->height, start, sp_min(stop, span) - 1) : 0;
}

static uint64_t select(const sp_set *set, uint64_t i)
{
    sp_ref ref = set->root;
    uint64_t base = 0;
    for (uint64_t level = set->height; level && !is_flat(ref); level--) {
        unsigned c = 0;
        for (uint64_t in; i >= (in = ref_pages(as_inner(ref)->child[c], level - 1)); c++)
            i -= in;
        base += c * level_span(level - 1);
        ref = as_inner(ref)->child[c];
    }
    return base + (is_flat(ref) ? i : sp_leaf_select(ref, (uint32_t)i));
}

static bool words(const sp_set *set, uint64_t base, uint64_t *out)
{
    uint64_t level;
    sp_ref ref = find(set, base, &level);
    if (!sp_ref_is_node(ref) || sp_node_kind(sp_ref_node(ref)) != SP_KIND_BITMAP)
        return false;
    sp_leaf_words(ref, out);
    return true;
}

/* ---- listing ---- */

static inline void turn(sp_cursor *cursor, uint64_t value, uint64_t *out, size_t *used)
{
    out[*used] = cursor->at;
    *used += cursor->carry != value;
    cursor->carry = value;
}

/* Reads one ref that covers [base, base + span) and holds the cursor's position. */
static inline void read_ref(const sp_kernels *k, sp_cursor *cursor, sp_ref ref, uint64_t base,
                            uint64_t span, uint64_t *out, size_t *used, size_t room)
{
    uint64_t end = sp_min(base + span, cursor->stop);
    if (is_flat(ref)) {
        turn(cursor, ref == SP_FULL, out, used);
        cursor->at = end;
    } else {
        cursor->at = base + sp_leaf_toggles(k, ref, base, (uint32_t)(cursor->at - base),
                                            (uint32_t)(end - base), &cursor->carry, out, used,
                                            room);
    }
}

static void toggles(const sp_kernels *k, sp_cursor *cursor, uint64_t *out, size_t *used,
                    size_t room)
{
    const sp_set *set = &cursor->set;
    while (cursor->at < cursor->stop && room - *used >= SP_TOGGLES_ROOM) {
        sp_ref ref = set->root;
        uint64_t level = set->height;
        if (cursor->at >> level_bits(level)) {
            turn(cursor, 0, out, used);
            cursor->at = cursor->stop;
            return;
        }
        for (; level > 1 && !is_flat(ref); level--)
            ref = as_inner(ref)->child[cursor->at >> level_bits(level - 1) & (FANOUT - 1)];
        uint64_t span = level_span(level), base = cursor->at & ~(span - 1);
        if (level == 0 || is_flat(ref)) {
            read_ref(k, cursor, ref, base, span, out, used, room);
            continue;
        }
        uint64_t end = sp_min(base + span, cursor->stop);
        while (cursor->at < end && room - *used >= SP_TOGGLES_ROOM) {
            uint64_t leaf = cursor->at & ~(uint64_t)(SP_LEAF_PAGES - 1);
            read_ref(k, cursor, as_inner(ref)->child[(leaf - base) >> SP_LEAF_BITS], leaf,
                     SP_LEAF_PAGES, out, used, room);
        }
    }
}

static uint64_t count_below(const sp_kernels *k, sp_ref ref, uint64_t level, uint64_t *carry)
{
    if (is_flat(ref)) {
        uint64_t value = ref == SP_FULL, flips = value != *carry;
        *carry = value;
        return flips;
    }
    if (!level)
        return sp_leaf_toggles_count(k, ref, carry);
    uint64_t total = 0;
    for (unsigned i = 0; i < FANOUT; i++)
        total += count_below(k, as_inner(ref)->child[i], level - 1, carry);
    return total;
}

static uint64_t toggles_count(const sp_kernels *k, const sp_set *set)
{
    uint64_t carry = 0, total = count_below(k, set->root, set->height, &carry);
    return total + carry;
}

/* ---- accounting ---- */

void sp_radix_walk(sp_ref ref, uint64_t level, uint64_t floor, sp_node_fn visit, void *context)
{
    if (is_flat(ref))
        return;
    if (!level) {
        sp_leaf_walk(ref, floor, visit, context);
        return;
    }
    if (sp_node_birth(sp_ref_node(ref)) <= floor)
        return;
    for (unsigned i = 0; i < FANOUT; i++)
        sp_radix_walk(as_inner(ref)->child[i], level - 1, floor, visit, context);
    visit(context, sp_ref_node(ref));
}

static sp_status leaves_below(sp_ref ref, uint64_t level, uint64_t base, sp_leaves_fn visit,
                              void *context)
{
    if (ref == SP_FULL)
        return visit(context, base, NULL, level_span(level) >> SP_LEAF_BITS);
    if (!level)
        return visit(context, base, &ref, 1);
    const sp_ref *child = as_inner(ref)->child;
    if (level == 1)
        return visit(context, base, child, FANOUT);
    sp_status status = SP_OK;
    for (unsigned i = 0; !status && i < FANOUT; i++)
        if (child[i] != SP_EMPTY)
            status = leaves_below(child[i], level - 1, base + i * level_span(level - 1), visit,
                                  context);
    return status;
}

sp_status sp_radix_leaves(const sp_set *set, sp_leaves_fn visit, void *context)
{
    if (set->root == SP_EMPTY)
        return SP_OK;
    return leaves_below(set->root, set->height, 0, visit, context);
}

static void walk(const sp_set *set, uint64_t floor, sp_node_fn visit, void *context)
{
    sp_radix_walk(set->root, set->height, floor, visit, context);
}

static void drop(sp_edit *edit, const sp_set *set) { sp_radix_drop(edit, set->root, set->height); }

static void measure_node(void *context, sp_node *node)
{
    sp_set_stats *stats = context;
    stats->nodes++;
    stats->bytes += sp_node_bytes(node);
    switch (sp_node_kind(node)) {
    case SP_KIND_ARRAY: stats->arrays++; break;
    case SP_KIND_RUNS: stats->runs++; break;
    case SP_KIND_BITMAP: stats->bitmaps++; break;
    case SP_KIND_BLOCK: stats->blocks++; break;
    default: stats->inner++;
    }
}

static uint64_t packed_below(sp_ref ref, uint64_t level)
{
    if (is_flat(ref))
        return 0;
    if (!level)
        return !sp_ref_is_node(ref);
    uint64_t total = 0;
    for (unsigned i = 0; i < FANOUT; i++)
        total += packed_below(as_inner(ref)->child[i], level - 1);
    return total;
}

static void measure(const sp_set *set, sp_set_stats *stats)
{
    walk(set, 0, measure_node, stats);
    stats->packed = packed_below(set->root, set->height);
}

static const char *validate_below(sp_ref ref, uint64_t level)
{
    if (is_flat(ref))
        return NULL;
    if (!level)
        return sp_leaf_validate(ref);
    if (!sp_ref_is_node(ref) || sp_node_kind(sp_ref_node(ref)) != SP_KIND_INNER)
        return "a child of an inner node is neither flat nor an inner node";
    uint64_t pages = 0;
    for (unsigned i = 0; i < FANOUT; i++) {
        const char *reason = validate_below(as_inner(ref)->child[i], level - 1);
        if (reason)
            return reason;
        pages += ref_pages(as_inner(ref)->child[i], level - 1);
    }
    if (pages != as_inner(ref)->pages)
        return "an inner node miscounts its pages";
    return pages && pages != level_span(level) ? NULL : "an empty or full inner node";
}

static const char *validate(const sp_set *set)
{
    if (set->height > MAX_HEIGHT)
        return "a set is higher than 52 bits of gfn";
    const char *reason = validate_below(set->root, set->height);
    if (reason || !set->height)
        return reason;
    if (set->root == SP_EMPTY)
        return "an empty set has a height";
    if (is_flat(set->root))
        return NULL;
    return ref_pages(as_inner(set->root)->child[0], set->height - 1) == count(set)
               ? "a root has members in its first child only"
               : NULL;
}

const sp_engine sp_engine_roaring = {
    .name = "roaring",
    .count = count,
    .contains = contains,
    .rank = rank,
    .count_range = count_range,
    .select = select,
    .toggles_count = toggles_count,
    .intersection = sp_radix_intersection,
    .toggles = toggles,
    .words = words,
    .measure = measure,
    .walk = walk,
    .validate = validate,
    .drop = drop,
    .assign = sp_radix_assign,
    .turn = sp_radix_turn,
    .put_words = sp_radix_put_words,
    .add_sorted = sp_radix_add_sorted,
    .load = sp_radix_load,
    .combine = sp_radix_combine,
};
