/* tier: model, failure */
/*
 * Sets as Arrow data: what arrays and streams hold, who owns it, and what is left when memory is
 * short.
 */
#include <errno.h>
#include <stdlib.h>

#include "arrow/columns.h"
#include "support_set.h"

static const uint64_t *column(const struct ArrowArray *array, unsigned i)
{
    return array->children[i]->buffers[1];
}

/* The structure of an array of n ranges, as the ABI wants it. */
static void check_shape(const struct ArrowArray *array, uint64_t n)
{
    CHECK_EQ(array->length, n);
    CHECK_EQ(array->n_buffers, 1);
    CHECK(array->buffers[0] == NULL);
    REQUIRE_EQ(array->n_children, 2);
    CHECK(!array->null_count && !array->offset && !array->dictionary);
    for (unsigned i = 0; i < 2; i++) {
        const struct ArrowArray *child = array->children[i];
        CHECK_EQ(child->length, n);
        CHECK_EQ(child->n_buffers, 2);
        CHECK(child->buffers[0] == NULL);
        CHECK_EQ((uintptr_t)child->buffers[1] % 64, 0);
        CHECK(!child->null_count && !child->offset && !child->n_children && !child->dictionary);
    }
}

static void check_ranges(const struct ArrowArray *array, const sp_range *ranges, uint64_t n)
{
    check_shape(array, n);
    for (uint64_t i = 0; i < n && !check_failed(); i++) {
        CHECK_EQ(column(array, 0)[i], ranges[i].start);
        CHECK_EQ(column(array, 1)[i], ranges[i].stop);
    }
}

static void an_array_has_the_ranges(void)
{
    sp_range windows[BORDER_WINDOWS];
    rng r = rng_open(1);
    border_windows(3000, windows);
    for (uint64_t step = 0; step < check_scaled(60) && !check_failed(); step++) {
        set_bench b;
        test_alloc alloc;
        struct ArrowArray array;
        size_t n;
        check_case("set %d", (int)step);
        set_bench_open(&b, windows, BORDER_WINDOWS);
        set_bench_fill(&b, &r, (unsigned)rng_below(&r, 40));
        alloc_init(&alloc);
        REQUIRE_EQ(sp_arrow_array(&alloc.hook, &b.set, &array), SP_OK);
        sp_range *ranges = model_ranges(&b.model, 0, SP_GFN_LIMIT, &n);
        check_ranges(&array, ranges, n);
        CHECK_EQ(alloc_blocks(&alloc), 3);
        array.release(&array);
        CHECK(array.release == NULL);
        CHECK_EQ(alloc_blocks(&alloc), 0);
        free(ranges);
        set_bench_close(&b);
    }
    CHECK_EQ(sp_arrow_held(), 0);
}

/* n ranges of two pages, three apart: some lie across two leaves. */
static sp_pageset *comb(const sp_allocator *allocator, size_t n)
{
    sp_pageset *made;
    size_t bad;
    sp_range *ranges = malloc((n + 1) * sizeof *ranges);
    for (size_t i = 0; i < n; i++)
        ranges[i] = (sp_range){3 * i, 3 * i + 2};
    sp_status status = sp_pageset_from_ranges(allocator, &sp_engine_roaring, ranges, n, &made,
                                              &bad);
    free(ranges);
    return status ? NULL : made;
}

static void a_stream_has_them_in_batches(void)
{
    static const size_t counts[] = {
        0, 1, SP_ARROW_BATCH - 1, SP_ARROW_BATCH, SP_ARROW_BATCH + 1, 3 * SP_ARROW_BATCH + 7};
    for (size_t c = 0; c < sizeof counts / sizeof *counts && !check_failed(); c++) {
        test_alloc alloc;
        struct ArrowArrayStream stream;
        struct ArrowArray batch;
        uint64_t at = 0;
        check_case("%zu ranges", counts[c]);
        alloc_init(&alloc);
        sp_pageset *pages = comb(&alloc.hook, counts[c]);
        REQUIRE_EQ(sp_arrow_stream(&alloc.hook, sp_pageset_set(pages), pages, NULL, &stream),
                   SP_OK);
        sp_pageset_release(pages); /* the stream holds it */
        uint64_t held = alloc_bytes(&alloc);
        while (!stream.get_next(&stream, &batch) && batch.release) {
            uint64_t n = sp_min(counts[c] - at, SP_ARROW_BATCH);
            check_shape(&batch, n);
            CHECK(alloc_bytes(&alloc) < held + 16 * SP_ARROW_BATCH + 1024);
            for (uint64_t i = 0; i < n && !check_failed(); i++, at++) {
                CHECK_EQ(column(&batch, 0)[i], 3 * at);
                CHECK_EQ(column(&batch, 1)[i], 3 * at + 2);
            }
            batch.release(&batch);
        }
        CHECK_EQ(at, counts[c]);
        CHECK_EQ(stream.get_next(&stream, &batch), 0);
        CHECK(batch.release == NULL);
        CHECK(stream.get_last_error(&stream) == NULL);
        stream.release(&stream);
        CHECK_EQ(alloc_blocks(&alloc), 0);
    }
}

static void a_stream_holds_its_snapshot(void)
{
    test_alloc alloc;
    sp_tracker *tracker;
    sp_snapshot snapshot;
    struct ArrowArrayStream stream;
    struct ArrowArray batch;
    uint64_t changed;
    alloc_init(&alloc);
    REQUIRE_EQ(sp_tracker_new(&alloc.hook, &sp_engine_roaring, SP_GFN_LIMIT, false, &tracker),
               SP_OK);
    REQUIRE_EQ(sp_tracker_convert(tracker, 7, 5, true, true, &changed), SP_OK);
    REQUIRE_EQ(sp_tracker_snapshot(tracker, true, &snapshot), SP_OK);
    sp_set set = sp_snapshot_set(&snapshot);
    REQUIRE_EQ(sp_arrow_stream(&alloc.hook, &set, NULL, &snapshot, &stream), SP_OK);
    sp_snapshot_release(&snapshot);
    REQUIRE_EQ(sp_tracker_convert(tracker, 0, 1 << 20, false, true, &changed), SP_OK);
    sp_tracker_free(tracker);
    REQUIRE_EQ(stream.get_next(&stream, &batch), 0);
    check_ranges(&batch, &(sp_range){7, 12}, 1);
    stream.release(&stream);
    check_ranges(&batch, &(sp_range){7, 12}, 1); /* a batch is its own */
    batch.release(&batch);
    CHECK_EQ(alloc_blocks(&alloc), 0);
}

static void children_outlive_their_parents(void)
{
    struct ArrowSchema schema, name;
    struct ArrowArray array, stops;
    sp_pageset *pages = comb(NULL, 3);
    REQUIRE_EQ(sp_arrow_schema(NULL, &schema), SP_OK);
    REQUIRE_EQ(sp_arrow_array(NULL, sp_pageset_set(pages), &array), SP_OK);
    sp_pageset_release(pages);
    CHECK_STR(schema.format, "+s");
    CHECK_EQ(schema.flags, 0);
    REQUIRE_EQ(schema.n_children, 2);
    CHECK_STR(schema.children[0]->name, "start");
    name = *schema.children[1];
    schema.children[1]->release = NULL;
    stops = *array.children[1];
    array.children[1]->release = NULL;
    schema.release(&schema);
    array.release(&array);
    CHECK_STR(name.name, "stop");
    CHECK_STR(name.format, "L");
    CHECK_EQ(name.flags, 0);
    CHECK_EQ(((const uint64_t *)stops.buffers[1])[2], 8);
    name.release(&name);
    stops.release(&stops);
    CHECK(name.release == NULL && stops.release == NULL);
    CHECK_EQ(sp_arrow_held(), 0);
}

static void every_allocation_fails(void)
{
    test_alloc alloc;
    struct ArrowSchema schema;
    struct ArrowArray array;
    struct ArrowArrayStream stream;
    sp_pageset *pages = comb(NULL, 100);
    const sp_set *set = sp_pageset_set(pages);
    alloc_init(&alloc);
    for (uint64_t n = 1; n <= 3; n++) {
        alloc_arm(&alloc, n, n % 2);
        CHECK_EQ(sp_arrow_array(&alloc.hook, set, &array), SP_NOMEM);
        CHECK_EQ(alloc_blocks(&alloc), 0);
    }
    alloc_arm(&alloc, 1, false);
    CHECK_EQ(sp_arrow_schema(&alloc.hook, &schema), SP_NOMEM);
    alloc_arm(&alloc, 1, false);
    CHECK_EQ(sp_arrow_stream(&alloc.hook, set, pages, NULL, &stream), SP_NOMEM);
    CHECK_EQ(alloc_blocks(&alloc), 0);
    REQUIRE_EQ(sp_arrow_stream(&alloc.hook, set, pages, NULL, &stream), SP_OK);
    for (uint64_t n = 1; n <= 3; n++) {
        alloc_arm(&alloc, n, false);
        CHECK_EQ(stream.get_next(&stream, &array), ENOMEM);
        CHECK_STR(stream.get_last_error(&stream), "out of memory");
    }
    alloc_arm(&alloc, 1, false);
    CHECK_EQ(stream.get_schema(&stream, &schema), ENOMEM);
    CHECK_EQ(stream.get_schema(&stream, &schema), 0);
    schema.release(&schema);
    REQUIRE_EQ(stream.get_next(&stream, &array), 0); /* a batch that failed is not skipped */
    CHECK_EQ(array.length, 100);
    CHECK_EQ(column(&array, 0)[0], 0);
    array.release(&array);
    stream.release(&stream);
    sp_pageset_release(pages);
    CHECK_EQ(alloc_blocks(&alloc), 0);
    CHECK_EQ(sp_arrow_held(), 0);
}

int main(void)
{
    RUN(an_array_has_the_ranges);
    RUN(a_stream_has_them_in_batches);
    RUN(a_stream_holds_its_snapshot);
    RUN(children_outlive_their_parents);
    RUN(every_allocation_fails);
    return check_close();
}
