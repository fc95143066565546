/* tier: unit, hostile, failure */
/*
 * Arrow data of others: every width, slices, nulls, structures that contradict themselves, streams
 * that fail; each thing given is released once.
 */
#include <errno.h>
#include <string.h>

#include "arrow/rows.h"
#include "support_alloc.h"
#include "support_check.h"

/* ---- a producer, whose every part can be set wrong ---- */

typedef struct producer {
    struct ArrowSchema field[2], *fields[2], schema;
    struct ArrowArray column[2], *columns[2], array;
    const void *buffers[2][2], *valid[1];
    int schemas, arrays; /* released */
    int batches, error;  /* of a stream: how many are left, and what comes then */
} producer;

static void release_schema(struct ArrowSchema *schema)
{
    producer *p = schema->private_data;
    p->schemas++;
    schema->release = NULL;
}

static void release_array(struct ArrowArray *array)
{
    producer *p = array->private_data;
    p->arrays++;
    array->release = NULL;
}

/* Columns `start` and `stop` of n values each, in a struct. */
static void produce(producer *p, const char *format, const void *starts, const void *stops,
                    int64_t n)
{
    static const char *const names[2] = {"start", "stop"};
    const void *values[2] = {starts, stops};
    memset(p, 0, sizeof *p);
    for (int i = 0; i < 2; i++) {
        p->field[i] = (struct ArrowSchema){
            .format = format, .name = names[i], .release = release_schema, .private_data = p};
        p->fields[i] = &p->field[i];
        p->buffers[i][1] = values[i];
        p->column[i] = (struct ArrowArray){.length = n,
                                           .n_buffers = 2,
                                           .buffers = p->buffers[i],
                                           .release = release_array,
                                           .private_data = p};
        p->columns[i] = &p->column[i];
    }
    p->schema = (struct ArrowSchema){.format = "+s",
                                     .n_children = 2,
                                     .children = p->fields,
                                     .release = release_schema,
                                     .private_data = p};
    p->array = (struct ArrowArray){.length = n,
                                   .n_buffers = 1,
                                   .buffers = p->valid,
                                   .n_children = 2,
                                   .children = p->columns,
                                   .release = release_array,
                                   .private_data = p};
}

static sp_arrow_rows rows;

static sp_status read_one(const producer *p, unsigned width)
{
    sp_arrow_rows_close(&rows);
    sp_arrow_rows_open(&rows, NULL);
    sp_status status = sp_arrow_rows_type(&rows, &p->schema, width);
    return status ? status : sp_arrow_rows_add(&rows, &p->array);
}

/* Refused, with these words in the reason, and nothing read. */
static void refused(const producer *p, sp_arrow_blame blame, const char *words)
{
    check_case("%s", words);
    CHECK_EQ(read_one(p, 0), SP_INVALID);
    CHECK_EQ(rows.blame, blame);
    if (!CHECK(strstr(rows.why, words) != NULL))
        CHECK_STR(rows.why, words);
    CHECK_EQ(rows.n, 0);
}

static const uint64_t from[4] = {1, 10, 100, UINT64_C(1) << 51};
static const uint64_t to[4] = {5, 10, 200, UINT64_C(1) << 52};

/* ---- what is read ---- */

static void structs_and_slices(void)
{
    producer p;
    produce(&p, "L", from, to, 4);
    REQUIRE_EQ(read_one(&p, 2), SP_OK);
    CHECK_EQ(rows.n, 4);
    CHECK_EQ(rows.words[7], UINT64_C(1) << 52);
    p.array.offset = 1;
    p.array.length = 2;
    REQUIRE_EQ(read_one(&p, 0), SP_OK);
    CHECK_EQ(rows.n, 2);
    CHECK_EQ(rows.words[0], 10);
    CHECK_EQ(rows.words[3], 200);
    p.column[1].offset = 1;
    p.column[1].length = 3;
    REQUIRE_EQ(read_one(&p, 0), SP_OK);
    CHECK_EQ(rows.words[1], 200);
    CHECK_EQ(rows.words[3], UINT64_C(1) << 52);
    produce(&p, "l", to, from, 3);
    p.field[0].name = "stop";
    p.field[1].name = "start";
    REQUIRE_EQ(read_one(&p, 0), SP_OK);
    CHECK_EQ(rows.words[0], 1);
    CHECK_EQ(rows.words[1], 5);
}

static void gfns_of_every_width(void)
{
    static const struct {
        const char *format;
        uint64_t first, second;
    } widths[] = {{"c", 1, 2},
                  {"C", 1, 2},
                  {"s", 0x201, 0x403},
                  {"S", 0x201, 0x403},
                  {"i", 0x4030201, 0x605},
                  {"I", 0x4030201, 0x605},
                  {"l", 0x60504030201, 0x807},
                  {"L", 0x60504030201, 0x807}};
    static const char bytes[] = "?\1\2\3\4\5\6\0\0\7\10\0\0\0\0\0\0";
    for (size_t i = 0; i < sizeof widths / sizeof *widths; i++) {
        producer p;
        /* An odd address: buffers need not be aligned. */
        produce(&p, widths[i].format, bytes + 1, NULL, 2);
        p.schema = p.field[0];
        p.array = p.column[0];
        check_case("format %s", widths[i].format);
        REQUIRE_EQ(read_one(&p, 1), SP_OK);
        CHECK_EQ(rows.words[0], widths[i].first);
        CHECK_EQ(rows.words[1], widths[i].second);
        sp_pageset *made;
        REQUIRE_EQ(sp_arrow_rows_set(&rows, &sp_engine_roaring, &made), SP_OK);
        CHECK_EQ(sp_set_count(sp_pageset_set(made)), 2);
        CHECK(sp_set_contains(sp_pageset_set(made), widths[i].second));
        sp_pageset_release(made);
    }
}

static void batches_become_a_set(void)
{
    producer p;
    sp_pageset *made;
    produce(&p, "L", from, to, 4);
    REQUIRE_EQ(read_one(&p, 2), SP_OK);
    REQUIRE_EQ(sp_arrow_rows_add(&rows, &p.array), SP_OK);
    p.array.length = 0;
    REQUIRE_EQ(sp_arrow_rows_add(&rows, &p.array), SP_OK);
    CHECK_EQ(rows.n, 8);
    REQUIRE_EQ(sp_arrow_rows_set(&rows, &sp_engine_roaring, &made), SP_OK);
    CHECK_EQ(sp_set_count(sp_pageset_set(made)), 4 + 100 + (UINT64_C(1) << 51));
    sp_pageset_release(made);
    p.array.length = 2;
    p.buffers[0][1] = to + 2; /* the second batch is inverted: the first stays */
    CHECK_EQ(sp_arrow_rows_add(&rows, &p.array), SP_INVALID);
    CHECK(strstr(rows.why, "row 8") != NULL);
    CHECK_EQ(rows.n, 8);
}

/* ---- what is refused ---- */

static void wrong_types(void)
{
    static const char *const formats[] = {"g", "u", "d:38,0", "tsu:UTC", "+l", "L2", "", "+s"};
    static const char *const names[] = {"float64",   "utf8", "decimal",      "timestamp",
                                        "list ('+l", "L2",   "another type", "struct"};
    producer p;
    for (unsigned i = 0; i < 8; i++) {
        produce(&p, formats[i], from, to, 4);
        refused(&p, SP_ARROW_TYPE, names[i]);
    }
    produce(&p, "L", from, to, 4);
    p.field[1].dictionary = &p.field[0];
    refused(&p, SP_ARROW_TYPE, "dictionary");
    produce(&p, "L", from, to, 4);
    p.field[1].name = "npages";
    refused(&p, SP_ARROW_FORMAT, "'start' and 'npages'");
    p.field[1].name = NULL;
    refused(&p, SP_ARROW_FORMAT, "'start' and ''");
    p.field[1].name = "start";
    refused(&p, SP_ARROW_FORMAT, "'start' and 'start'");
    produce(&p, "L", from, to, 4);
    p.schema.n_children = 3;
    refused(&p, SP_ARROW_FORMAT, "3 columns");
    p.schema.n_children = -1;
    refused(&p, SP_ARROW_FORMAT, "-1 columns");
    p.schema.n_children = 0;
    refused(&p, SP_ARROW_FORMAT, "0 columns");
    produce(&p, "L", from, to, 4);
    CHECK_EQ(read_one(&p, 1), SP_INVALID);
    CHECK(strstr(rows.why, "one, of gfns") != NULL);
}

static void broken_schemas(void)
{
    producer p;
    produce(&p, "L", from, to, 4);
    p.schema.children = NULL;
    refused(&p, SP_ARROW_FORMAT, "no list of its children");
    p.schema.children = p.fields;
    p.fields[1] = NULL;
    refused(&p, SP_ARROW_FORMAT, "column 1 has no format");
    produce(&p, NULL, from, to, 4);
    refused(&p, SP_ARROW_FORMAT, "column 0 has no format");
    p.schema.format = NULL;
    refused(&p, SP_ARROW_FORMAT, "no format");
    produce(&p, "L", from, to, 4);
    p.schema.release = NULL;
    refused(&p, SP_ARROW_FORMAT, "released");
}

static void values_out_of_bounds(void)
{
    static const int64_t negative[2] = {3, -1};
    static const uint64_t beyond[2] = {SP_GFN_LIMIT, SP_GFN_LIMIT + 1};
    producer p;
    produce(&p, "l", negative, to, 2);
    refused(&p, SP_ARROW_BOUND, "row 1: the start is -1, below 0");
    produce(&p, "L", from, beyond, 2);
    refused(&p, SP_ARROW_BOUND, "row 1: the stop is 4503599627370497, above 4503599627370496");
    produce(&p, "L", negative, to, 2);
    refused(&p, SP_ARROW_BOUND, "row 1: the start is 18446744073709551615");
    produce(&p, "L", to + 2, from + 1, 2);
    refused(&p, SP_ARROW_BOUND, "row 0: [200, 10) is inverted");
    produce(&p, "L", beyond, NULL, 1);
    p.schema = p.field[0];
    p.array = p.column[0];
    refused(&p, SP_ARROW_BOUND, "row 0: the gfn is 4503599627370496, above 4503599627370495");
}

static void nulls(void)
{
    static const uint8_t valid[8] = {0xff, 0x7f, 0xff, 0xff};
    static uint64_t many[32];
    for (int64_t bad = 0; bad < 32; bad++) {
        producer p;
        produce(&p, "L", many, many, 32);
        p.column[1].null_count = -1;
        p.buffers[1][0] = valid;
        p.array.offset = bad;
        p.array.length = 1 + (31 - bad) / 2;
        if (bad <= 15 && 15 < bad + p.array.length) {
            refused(&p, SP_ARROW_FORMAT, "of the Arrow stop is null");
            CHECK(strstr(rows.why, "row 0 ") == NULL || bad == 15);
        } else {
            CHECK_EQ(read_one(&p, 0), SP_OK);
        }
    }
    producer p;
    produce(&p, "L", many, many, 32);
    p.array.null_count = 1;
    refused(&p, SP_ARROW_FORMAT, "array has 1 nulls and no bitmap");
    p.valid[0] = valid;
    refused(&p, SP_ARROW_FORMAT, "row 15 of the Arrow array is null");
    p.array.null_count = 0; /* then the bitmap says nothing */
    CHECK_EQ(read_one(&p, 0), SP_OK);
}

/* One field of one array at a time takes a value that no array may have. */
static void broken_arrays(void)
{
    static const int64_t bad[] = {-1, -2, INT64_MIN, INT64_MAX, INT64_MAX / 8, INT64_MAX / 16};
    for (unsigned part = 0; part < 3; part++) {
        for (unsigned i = 0; i < sizeof bad / sizeof *bad; i++) {
            for (unsigned field = 0; field < 5; field++) {
                producer p;
                produce(&p, "L", from, to, 4);
                struct ArrowArray *array = part == 2 ? &p.array : &p.column[part];
                int64_t *fields[] = {&array->length, &array->offset, &array->null_count,
                                     &array->n_buffers, &array->n_children};
                if (field == 0 && part < 2 && bad[i] > 0)
                    continue; /* a child may be longer than is read */
                if (field == 1 && part < 2 && bad[i] == INT64_MAX / 16)
                    continue; /* an offset that only the producer knows to be wrong */
                if ((field == 2 && bad[i] == -1) || (field == 4 && part < 2))
                    continue;
                *fields[field] = bad[i];
                check_case("part %u, field %u, value %u", part, field, i);
                sp_status status = read_one(&p, 0);
                CHECK(status == SP_INVALID || status == SP_NOMEM);
                CHECK_EQ(rows.n, 0);
            }
        }
    }
}

static void missing_pointers(void)
{
    producer p;
    produce(&p, "L", from, to, 4);
    p.buffers[0][1] = NULL;
    refused(&p, SP_ARROW_FORMAT, "start has no values");
    p.array.length = 0;
    CHECK_EQ(read_one(&p, 0), SP_OK);
    produce(&p, "L", from, to, 4);
    p.column[1].buffers = NULL;
    refused(&p, SP_ARROW_FORMAT, "stop has 2 buffers");
    produce(&p, "L", from, to, 4);
    p.columns[1] = NULL;
    refused(&p, SP_ARROW_FORMAT, "stop is released");
    produce(&p, "L", from, to, 4);
    p.array.children = NULL;
    refused(&p, SP_ARROW_FORMAT, "2 children");
    produce(&p, "L", from, to, 4);
    p.column[0].release = NULL;
    refused(&p, SP_ARROW_FORMAT, "start is released");
    produce(&p, "L", from, to, 4);
    p.column[0].dictionary = &p.column[1];
    refused(&p, SP_ARROW_FORMAT, "dictionary");
    produce(&p, "L", from, to, 4);
    p.column[1].length = 3;
    refused(&p, SP_ARROW_FORMAT, "stop has 3 rows: 4 are needed");
}

/* ---- streams ---- */

static int get_schema(struct ArrowArrayStream *stream, struct ArrowSchema *out)
{
    producer *p = stream->private_data;
    *out = p->schema;
    return p->batches < 0 ? p->error : 0;
}

static int get_next(struct ArrowArrayStream *stream, struct ArrowArray *out)
{
    producer *p = stream->private_data;
    if (p->batches-- > 0)
        *out = p->array;
    return p->batches < 0 ? p->error : 0;
}

static const char *get_error(struct ArrowArrayStream *stream)
{
    (void)stream;
    return "the query failed";
}

static sp_status read_stream(producer *p)
{
    struct ArrowArrayStream stream = {get_schema, get_next, get_error,
                                      (void (*)(struct ArrowArrayStream *))(uintptr_t)1, p};
    bool more = true;
    sp_arrow_rows_close(&rows);
    sp_arrow_rows_open(&rows, NULL);
    sp_status status = sp_arrow_rows_begin(&rows, &stream, 0);
    while (!status && more)
        status = sp_arrow_rows_next(&rows, &stream, &more);
    return status;
}

static void streams(void)
{
    producer p;
    produce(&p, "L", from, to, 4);
    p.batches = 3;
    CHECK_EQ(read_stream(&p), SP_OK);
    CHECK_EQ(rows.n, 12);
    CHECK_EQ(p.schemas, 1);
    CHECK_EQ(p.arrays, 3);
    p.batches = 2;
    p.error = EIO;
    CHECK_EQ(read_stream(&p), SP_INVALID);
    CHECK_EQ(rows.blame, SP_ARROW_PRODUCER);
    CHECK(strstr(rows.why, "the query failed") != NULL);
    CHECK_EQ(p.arrays, 5);
    p.batches = 0;
    p.error = ENOMEM;
    CHECK_EQ(read_stream(&p), SP_NOMEM);
    p.batches = 1;
    p.column[0].n_buffers = 7; /* what is refused is released too */
    CHECK_EQ(read_stream(&p), SP_INVALID);
    CHECK_EQ(p.arrays, 6);
    CHECK_EQ(p.schemas, 4);
    p.batches = -1;
    p.error = EINVAL;
    CHECK_EQ(read_stream(&p), SP_INVALID);
    struct ArrowArrayStream released = {0};
    CHECK_EQ(sp_arrow_rows_begin(&rows, &released, 0), SP_INVALID);
}

static void every_allocation_fails(void)
{
    producer p;
    test_alloc alloc;
    produce(&p, "L", from, to, 4);
    sp_arrow_rows_close(&rows);
    alloc_init(&alloc);
    for (uint64_t n = 1; n <= 2; n++) {
        sp_arrow_rows_open(&rows, &alloc.hook);
        REQUIRE_EQ(sp_arrow_rows_type(&rows, &p.schema, 2), SP_OK);
        if (n == 2)
            REQUIRE_EQ(sp_arrow_rows_add(&rows, &p.array), SP_OK);
        alloc_arm(&alloc, 1, true);
        CHECK_EQ(sp_arrow_rows_add(&rows, &p.array), SP_NOMEM);
        CHECK_EQ(rows.n, n == 2 ? 4 : 0);
        alloc_arm(&alloc, 0, false);
        sp_arrow_rows_close(&rows);
        CHECK_EQ(alloc_blocks(&alloc), 0);
    }
    sp_arrow_rows_open(&rows, NULL);
}

int main(void)
{
    sp_arrow_rows_open(&rows, NULL);
    RUN(structs_and_slices);
    RUN(gfns_of_every_width);
    RUN(batches_become_a_set);
    RUN(wrong_types);
    RUN(broken_schemas);
    RUN(values_out_of_bounds);
    RUN(nulls);
    RUN(broken_arrays);
    RUN(missing_pointers);
    RUN(streams);
    RUN(every_allocation_fails);
    sp_arrow_rows_close(&rows);
    return check_close();
}
