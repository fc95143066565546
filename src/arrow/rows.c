/*
 * rows.c - foreign columns checked and copied, a batch at a time.  Floor 5.
 */
#include "arrow/rows.h"

#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

void sp_arrow_rows_open(sp_arrow_rows *rows, const sp_allocator *allocator)
{
    memset(rows, 0, sizeof *rows);
    sp_mem_init(&rows->mem, allocator);
}

static size_t bytes_of(const sp_arrow_rows *rows, size_t n)
{
    return n * rows->width * sizeof *rows->words;
}

void sp_arrow_rows_close(sp_arrow_rows *rows)
{
    sp_mem_free(&rows->mem, rows->words, bytes_of(rows, rows->room));
    rows->words = NULL;
    rows->n = rows->room = 0;
}

__attribute__((format(printf, 3, 4))) static sp_status
blame(sp_arrow_rows *rows, sp_arrow_blame whom, const char *text, ...)
{
    va_list rest;
    va_start(rest, text);
    rows->blame = whom;
    (void)vsnprintf(rows->why, sizeof rows->why, text, rest);
    va_end(rest);
    return SP_INVALID;
}

/* ---- types ---- */

static const char *type_name(const char *format)
{
    static const struct {
        const char *prefix, *name;
    } names[] = {
        {"n", "null"},      {"b", "bool"},
        {"e", "float16"},   {"f", "float32"},
        {"g", "float64"},   {"u", "utf8"},
        {"U", "utf8"},      {"vu", "utf8"},
        {"z", "binary"},    {"Z", "binary"},
        {"vz", "binary"},   {"w", "binary"},
        {"d", "decimal"},   {"td", "date"},
        {"tt", "time"},     {"ts", "timestamp"},
        {"tD", "duration"}, {"ti", "interval"},
        {"+l", "list"},     {"+L", "list"},
        {"+w", "list"},     {"+v", "list"},
        {"+s", "struct"},   {"+m", "map"},
        {"+u", "union"},    {"+r", "run-end encoded"},
    };
    for (size_t i = 0; i < sizeof names / sizeof *names; i++)
        if (strncmp(format, names[i].prefix, strlen(names[i].prefix)) == 0)
            return names[i].name;
    return "another type";
}

static bool is_integer(const char *format)
{
    return *format && strchr("cCsSiIlL", *format) && !format[1];
}

static const char *name_of(const struct ArrowSchema *schema)
{
    return schema->name ? schema->name : "";
}

static sp_status take_column(sp_arrow_rows *rows, const struct ArrowSchema *column, unsigned i)
{
    const char *format = column ? column->format : NULL;
    if (!format || !column->release)
        return blame(rows, SP_ARROW_FORMAT, "the Arrow schema's column %u has no format", i);
    if (column->dictionary)
        return blame(rows, SP_ARROW_TYPE,
                     "column '%.60s' is of Arrow type dictionary: integers"
                     " are needed",
                     name_of(column));
    if (!is_integer(format))
        return blame(rows, SP_ARROW_TYPE,
                     "column '%.60s' is of Arrow type %s ('%.20s'): integers"
                     " are needed",
                     name_of(column), type_name(format), format);
    rows->format[i] = *format;
    return SP_OK;
}

/* Two columns must say which is which: (start, npages) would be as good a pair of integers. */
static sp_status name_columns(sp_arrow_rows *rows, const struct ArrowSchema *schema)
{
    const char *first = name_of(schema->children[0]), *second = name_of(schema->children[1]);
    rows->swapped = !strcmp(first, "stop") && !strcmp(second, "start");
    if (!rows->swapped && (strcmp(first, "start") || strcmp(second, "stop")))
        return blame(rows, SP_ARROW_FORMAT,
                     "the columns are '%.60s' and '%.60s': 'start' and"
                     " 'stop' are needed",
                     first, second);
    return SP_OK;
}

sp_status sp_arrow_rows_type(sp_arrow_rows *rows, const struct ArrowSchema *schema, unsigned width)
{
    if (!schema->release || !schema->format)
        return blame(rows, SP_ARROW_FORMAT, "the Arrow schema is released or has no format");
    int64_t columns = 1;
    bool nested = !strcmp(schema->format, "+s") && !schema->dictionary;
    if (nested)
        columns = schema->n_children;
    if (nested && columns > 0 && !schema->children)
        return blame(rows, SP_ARROW_FORMAT, "the Arrow schema has no list of its children");
    if (columns < 1 || columns > 2 || (width && (unsigned)columns != width))
        return blame(rows, SP_ARROW_FORMAT, "the Arrow data has %lld columns: %s needed",
                     (long long)columns,
                     width == 2   ? "'start' and 'stop' are"
                     : width == 1 ? "one, of gfns, is"
                                  : "'start' and 'stop', or one of gfns, are");
    sp_status status = SP_OK;
    for (unsigned i = 0; !status && i < columns; i++)
        status = take_column(rows, nested ? schema->children[i] : schema, i);
    if (!status && columns == 2)
        status = name_columns(rows, schema);
    if (!status) {
        rows->nested = nested;
        rows->width = (unsigned)columns;
    }
    return status;
}

/* ---- arrays ---- */

/* Checks what the ABI says of every array: no offset into its buffers can overflow afterwards. */
static sp_status check_array(sp_arrow_rows *rows, const struct ArrowArray *array, const char *what,
                             int64_t buffers)
{
    enum { WIDEST = 8 };
    if (!array || !array->release)
        return blame(rows, SP_ARROW_FORMAT, "the Arrow %s is released", what);
    if (array->length < 0 || array->offset < 0 || array->null_count < -1)
        return blame(rows, SP_ARROW_FORMAT,
                     "the Arrow %s has length %lld, offset %lld and %lld"
                     " nulls",
                     what, (long long)array->length, (long long)array->offset,
                     (long long)array->null_count);
    if (array->length > INT64_MAX / WIDEST - array->offset)
        return blame(rows, SP_ARROW_FORMAT,
                     "the Arrow %s ends at row %lld + %lld, beyond all"
                     " memory",
                     what, (long long)array->offset, (long long)array->length);
    if (array->n_buffers != buffers || !array->buffers)
        return blame(rows, SP_ARROW_FORMAT, "the Arrow %s has %lld buffers: %lld are needed", what,
                     (long long)array->n_buffers, (long long)buffers);
    if (array->dictionary)
        return blame(rows, SP_ARROW_FORMAT, "the Arrow %s has a dictionary, its schema none", what);
    return SP_OK;
}

/* Refuses nulls among n rows from `from` on, counted from the buffers' start. */
static sp_status check_nulls(sp_arrow_rows *rows, const struct ArrowArray *array, const char *what,
                             int64_t from, int64_t n)
{
    const uint8_t *valid = array->buffers[0];
    if (!array->null_count || (!valid && array->null_count < 0))
        return SP_OK;
    if (!valid)
        return blame(rows, SP_ARROW_FORMAT, "the Arrow %s has %lld nulls and no bitmap of them",
                     what, (long long)array->null_count);
    for (int64_t i = from; i < from + n; i++) {
        if (i % 8 == 0 && from + n - i >= 8 && valid[i / 8] == 0xff)
            i += 7;
        else if (!(valid[i / 8] >> (i % 8) & 1))
            return blame(rows, SP_ARROW_FORMAT, "row %llu of the Arrow %s is null",
                         (unsigned long long)rows->n + (unsigned long long)(i - from), what);
    }
    return SP_OK;
}

/* A value as 64 bits, sign and all; buffers need not be aligned. */
static uint64_t load(char format, const char *values, int64_t i)
{
#define LOAD(type) \
    { \
        type value; \
        memcpy(&value, values + i * (int64_t)sizeof value, sizeof value); \
        return (uint64_t)(int64_t)value; \
    }
    switch (format) {
    case 'c': LOAD(int8_t)
    case 'C': LOAD(uint8_t)
    case 's': LOAD(int16_t)
    case 'S': LOAD(uint16_t)
    case 'i': LOAD(int32_t)
    case 'I': LOAD(uint32_t)
    default: LOAD(uint64_t)
    }
#undef LOAD
}

static bool is_signed(char format) { return format >= 'a'; }

/* Copies n values to every width-th word. */
static sp_status copy_values(sp_arrow_rows *rows, char format, const char *values, int64_t n,
                             uint64_t *out, const char *what)
{
    uint64_t most = rows->width == 1 ? SP_GFN_LIMIT - 1 : SP_GFN_LIMIT;
    for (int64_t i = 0; i < n; i++) {
        uint64_t value = load(format, values, i);
        if (value > most && is_signed(format) && value >> 63)
            return blame(rows, SP_ARROW_BOUND, "row %llu: the %s is %lld, below 0",
                         (unsigned long long)rows->n + (unsigned long long)i, what,
                         (long long)value);
        if (value > most)
            return blame(rows, SP_ARROW_BOUND, "row %llu: the %s is %llu, above %llu",
                         (unsigned long long)rows->n + (unsigned long long)i, what,
                         (unsigned long long)value, (unsigned long long)most);
        out[(uint64_t)i * rows->width] = value;
    }
    return SP_OK;
}

/* Copies column i, of which rows [from, from + n) are asked for. */
static sp_status copy_column(sp_arrow_rows *rows, const struct ArrowArray *column, unsigned i,
                             int64_t from, int64_t n)
{
    unsigned place = rows->swapped ? 1 - i : i;
    const char *what = rows->width == 1 ? "gfn" : place ? "stop" : "start";
    sp_status status = check_array(rows, column, what, 2);
    if (status)
        return status;
    if (column->length < from + n)
        return blame(rows, SP_ARROW_FORMAT, "the Arrow %s has %lld rows: %lld are needed", what,
                     (long long)column->length, (long long)(from + n));
    const char *values = column->buffers[1];
    if (n && !values)
        return blame(rows, SP_ARROW_FORMAT, "the Arrow %s has no values", what);
    int64_t first = column->offset + from;
    status = check_nulls(rows, column, what, first, n);
    if (status || !n)
        return status;
    static const char formats[] = "cCsSiIlL";
    int64_t size = INT64_C(1) << ((strchr(formats, rows->format[i]) - formats) / 2);
    uint64_t *out = rows->words + rows->n * rows->width + place;
    return copy_values(rows, rows->format[i], values + first * size, n, out, what);
}

static sp_status make_room(sp_arrow_rows *rows, uint64_t n)
{
    if (n > SIZE_MAX / 64 - rows->n)
        return SP_NOMEM;
    size_t need = rows->n + (size_t)n, room = sp_max(need, rows->room + rows->room / 2);
    if (need <= rows->room)
        return SP_OK;
    uint64_t *words = sp_mem_resize(&rows->mem, rows->words, bytes_of(rows, rows->room),
                                    bytes_of(rows, room));
    if (!words)
        return SP_NOMEM;
    rows->words = words;
    rows->room = room;
    return SP_OK;
}

static sp_status check_order(sp_arrow_rows *rows, uint64_t n)
{
    const uint64_t *words = rows->words + rows->n * rows->width;
    for (uint64_t i = 0; rows->width == 2 && i < n; i++)
        if (words[2 * i] > words[2 * i + 1])
            return blame(rows, SP_ARROW_BOUND, "row %llu: [%llu, %llu) is inverted",
                         (unsigned long long)(rows->n + i), (unsigned long long)words[2 * i],
                         (unsigned long long)words[2 * i + 1]);
    return SP_OK;
}

sp_status sp_arrow_rows_add(sp_arrow_rows *rows, const struct ArrowArray *array)
{
    SP_ASSERT(rows->width);
    sp_status status = check_array(rows, array, "array", rows->nested ? 1 : 2);
    if (status)
        return status;
    if (rows->nested && (array->n_children != (int64_t)rows->width || !array->children))
        return blame(rows, SP_ARROW_FORMAT, "the Arrow array has %lld children, its schema %u",
                     (long long)array->n_children, rows->width);
    int64_t n = array->length, from = rows->nested ? array->offset : 0;
    if (rows->nested)
        status = check_nulls(rows, array, "array", from, n);
    if (!status)
        status = make_room(rows, (uint64_t)n);
    for (unsigned i = 0; !status && i < rows->width; i++)
        status = copy_column(rows, rows->nested ? array->children[i] : array, i, from, n);
    if (!status)
        status = check_order(rows, (uint64_t)n);
    if (!status)
        rows->n += (size_t)n;
    return status;
}

/* ---- streams ---- */

static sp_status failed(sp_arrow_rows *rows, struct ArrowArrayStream *stream, int error)
{
    if (error == ENOMEM)
        return SP_NOMEM;
    const char *text = stream->get_last_error ? stream->get_last_error(stream) : NULL;
    return blame(rows, SP_ARROW_PRODUCER, "the Arrow stream failed with error %d: %.180s", error,
                 text ? text : "no reason given");
}

sp_status sp_arrow_rows_begin(sp_arrow_rows *rows, struct ArrowArrayStream *stream, unsigned width)
{
    struct ArrowSchema schema = {0};
    if (!stream->release || !stream->get_schema || !stream->get_next)
        return blame(rows, SP_ARROW_FORMAT, "the Arrow stream is released or has no callbacks");
    int error = stream->get_schema(stream, &schema);
    if (error)
        return failed(rows, stream, error);
    sp_status status = sp_arrow_rows_type(rows, &schema, width);
    if (schema.release)
        schema.release(&schema);
    return status;
}

sp_status sp_arrow_rows_next(sp_arrow_rows *rows, struct ArrowArrayStream *stream, bool *more)
{
    struct ArrowArray batch = {0};
    int error = stream->get_next(stream, &batch);
    if (error)
        return failed(rows, stream, error);
    *more = batch.release != NULL;
    if (!*more)
        return SP_OK;
    sp_status status = sp_arrow_rows_add(rows, &batch);
    batch.release(&batch);
    return status;
}

sp_status sp_arrow_rows_set(const sp_arrow_rows *rows, const sp_engine *engine, sp_pageset **out)
{
    size_t bad;
    const sp_allocator *allocator = rows->mem.allocator;
    if (rows->width == 1)
        return sp_pageset_from_pages(allocator, engine, rows->words, rows->n, out, &bad);
    return sp_pageset_from_ranges(allocator, engine, (const sp_range *)rows->words, rows->n, out,
                                  &bad);
}
