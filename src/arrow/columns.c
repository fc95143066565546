/*
 * columns.c - ranges dealt into two columns, and the callbacks that own them.  Floor 5.
 *
 * What a structure needs lies in one block that its release frees.  Each column is a block of its
 * own, since a consumer may keep one and release the other.  Values are aligned and padded to 64
 * bytes, as Arrow advises.
 */
#include "arrow/columns.h"

#include <errno.h>
#include <string.h>

#include "base/atomics.h"

enum { START, STOP, COLUMNS };

static _Atomic uint64_t held; /* statistics, any thread */

uint64_t sp_arrow_held(void) { return sp_load(&held, relaxed); /* relaxed: guards nothing */ }

/* ---- blocks ---- */

typedef struct block {
    const sp_allocator *allocator;
    size_t bytes; /* all of it */
} block;

/* Memory that begins with its header. */
static void *block_new(const sp_allocator *allocator, size_t bytes)
{
    sp_mem mem;
    sp_mem_init(&mem, allocator);
    block *made = sp_mem_alloc(&mem, bytes);
    if (!made)
        return NULL;
    *made = (block){mem.allocator, bytes};
    sp_add(&held, 1, relaxed); /* relaxed: statistics */
    return made;
}

static void block_free(void *data)
{
    block *gone = data;
    sp_mem mem;
    sp_mem_init(&mem, gone->allocator);
    sp_sub(&held, 1, relaxed); /* relaxed: statistics */
    sp_mem_free(&mem, gone, gone->bytes);
}

/* ---- the schema ---- */

typedef struct schema_block {
    block block;
    struct ArrowSchema child[COLUMNS], *children[COLUMNS];
} schema_block;

static void release_field(struct ArrowSchema *field) { field->release = NULL; }

static void release_schema(struct ArrowSchema *schema)
{
    for (unsigned i = 0; i < COLUMNS; i++)
        if (schema->children[i]->release)
            schema->children[i]->release(schema->children[i]);
    block_free(schema->private_data);
    schema->release = NULL;
}

sp_status sp_arrow_schema(const sp_allocator *allocator, struct ArrowSchema *out)
{
    static const char *const names[COLUMNS] = {"start", "stop"};
    schema_block *made = block_new(allocator, sizeof *made);
    if (!made)
        return SP_NOMEM;
    for (unsigned i = 0; i < COLUMNS; i++) {
        made->child[i] = (struct ArrowSchema){
            .format = "L", .name = names[i], .release = release_field};
        made->children[i] = &made->child[i];
    }
    *out = (struct ArrowSchema){.format = "+s",
                                .name = "",
                                .n_children = COLUMNS,
                                .children = made->children,
                                .release = release_schema,
                                .private_data = made};
    return SP_OK;
}

/* ---- arrays ---- */

typedef struct column_block {
    block block;
    const void *buffers[2]; /* validity, of which there is none, and values */
} column_block;

typedef struct array_block {
    block block;
    struct ArrowArray child[COLUMNS], *children[COLUMNS];
    const void *buffers[1]; /* no validity */
} array_block;

static void release_column(struct ArrowArray *column)
{
    block_free(column->private_data);
    column->release = NULL;
}

static void release_array(struct ArrowArray *array)
{
    for (unsigned i = 0; i < COLUMNS; i++)
        if (array->children[i]->release)
            array->children[i]->release(array->children[i]);
    block_free(array->private_data);
    array->release = NULL;
}

/* A column of n values to be written; NULL if memory is short. */
static uint64_t *column_new(const sp_allocator *allocator, uint64_t n, struct ArrowArray *out)
{
    enum { LINE = 64 };
    if (n > SIZE_MAX / 16)
        return NULL;
    size_t values = ((size_t)n * sizeof(uint64_t) + LINE - 1) / LINE * LINE;
    column_block *made = block_new(allocator, sizeof *made + LINE + values);
    if (!made)
        return NULL;
    uintptr_t first = ((uintptr_t)(made + 1) + LINE - 1) / LINE * LINE;
    made->buffers[0] = NULL;
    made->buffers[1] = (void *)first;
    *out = (struct ArrowArray){.length = (int64_t)n,
                               .n_buffers = 2,
                               .buffers = made->buffers,
                               .release = release_column,
                               .private_data = made};
    return (uint64_t *)first;
}

/* An array of n ranges whose columns are to be written. */
static sp_status array_new(const sp_allocator *allocator, uint64_t n, uint64_t *columns[COLUMNS],
                           struct ArrowArray *out)
{
    array_block *made = block_new(allocator, sizeof *made);
    if (!made)
        return SP_NOMEM;
    *out = (struct ArrowArray){.length = (int64_t)n,
                               .n_buffers = 1,
                               .n_children = COLUMNS,
                               .buffers = made->buffers,
                               .children = made->children,
                               .release = release_array,
                               .private_data = made};
    made->buffers[0] = NULL;
    for (unsigned i = 0; i < COLUMNS; i++) {
        made->child[i].release = NULL;
        made->children[i] = &made->child[i];
    }
    for (unsigned i = 0; i < COLUMNS; i++) {
        columns[i] = column_new(allocator, n, &made->child[i]);
        if (!columns[i]) {
            release_array(out);
            return SP_NOMEM;
        }
    }
    return SP_OK;
}

/* ---- from toggles to columns ---- */

/* A cursor and the toggles that it is ahead. */
typedef struct dealer {
    sp_cursor cursor;
    size_t at, used;
    uint64_t toggles[1024];
} dealer;

static void dealer_open(dealer *d, const sp_set *set)
{
    d->cursor = sp_cursor_open(set, 0, SP_GFN_LIMIT);
    d->at = d->used = 0;
}

/* Writes toggle `to` and those after it, n in all, to their columns. */
static void split(const uint64_t *toggles, uint64_t to, size_t n, uint64_t *restrict starts,
                  uint64_t *restrict stops)
{
    size_t i = 0;
    if (n && to % COLUMNS == STOP)
        stops[(to + i++) / COLUMNS] = toggles[0];
    starts += (to + i) / COLUMNS;
    stops += (to + i) / COLUMNS;
    for (; i + 1 < n; i += COLUMNS) {
        *starts++ = toggles[i + START];
        *stops++ = toggles[i + STOP];
    }
    if (i < n)
        *starts = toggles[i];
}

/* Writes the next n ranges, which there are. */
static void deal(dealer *d, uint64_t *columns[COLUMNS], uint64_t n)
{
    enum { ROOM = sizeof d->toggles / sizeof *d->toggles };
    for (uint64_t to = 0; to < 2 * n;) {
        if (d->at == d->used) {
            d->at = 0;
            d->used = sp_cursor_toggles(sp_kernels_active(), &d->cursor, d->toggles, ROOM);
            SP_ASSERT(d->used);
        }
        size_t some = (size_t)sp_min(d->used - d->at, 2 * n - to);
        split(d->toggles + d->at, to, some, columns[START], columns[STOP]);
        d->at += some;
        to += some;
    }
}

static sp_status dealt(const sp_allocator *allocator, dealer *d, uint64_t n, struct ArrowArray *out)
{
    uint64_t *columns[COLUMNS];
    sp_status status = array_new(allocator, n, columns, out);
    if (!status)
        deal(d, columns, n);
    return status;
}

sp_status sp_arrow_array(const sp_allocator *allocator, const sp_set *set, struct ArrowArray *out)
{
    dealer d;
    struct ArrowArray made;
    dealer_open(&d, set);
    sp_status status = dealt(allocator, &d, sp_set_nranges(sp_kernels_active(), set), &made);
    if (!status)
        *out = made;
    return status;
}

/* ---- streams ---- */

typedef struct stream_block {
    block block;
    sp_pageset *pageset;  /* or NULL */
    sp_snapshot snapshot; /* or of no tracker */
    dealer dealer;
    uint64_t left; /* ranges to come */
    bool short_of_memory;
} stream_block;

static int answer(stream_block *source, sp_status status)
{
    source->short_of_memory = status != SP_OK;
    return status ? ENOMEM : 0;
}

static int stream_schema(struct ArrowArrayStream *stream, struct ArrowSchema *out)
{
    stream_block *source = stream->private_data;
    return answer(source, sp_arrow_schema(source->block.allocator, out));
}

static int stream_next(struct ArrowArrayStream *stream, struct ArrowArray *out)
{
    stream_block *source = stream->private_data;
    uint64_t n = sp_min(source->left, SP_ARROW_BATCH);
    if (!n) {
        out->release = NULL;
        return answer(source, SP_OK);
    }
    sp_status status = dealt(source->block.allocator, &source->dealer, n, out);
    if (!status)
        source->left -= n;
    return answer(source, status);
}

static const char *stream_error(struct ArrowArrayStream *stream)
{
    const stream_block *source = stream->private_data;
    return source->short_of_memory ? "out of memory" : NULL;
}

static void stream_release(struct ArrowArrayStream *stream)
{
    stream_block *source = stream->private_data;
    sp_pageset_release(source->pageset);
    if (source->snapshot.tracker)
        sp_snapshot_release(&source->snapshot);
    block_free(source);
    stream->release = NULL;
}

sp_status sp_arrow_stream(const sp_allocator *allocator, const sp_set *set, sp_pageset *pageset,
                          const sp_snapshot *snapshot, struct ArrowArrayStream *out)
{
    stream_block *made = block_new(allocator, sizeof *made);
    if (!made)
        return SP_NOMEM;
    made->pageset = pageset ? sp_pageset_retain(pageset) : NULL;
    made->snapshot = snapshot ? sp_snapshot_retain(snapshot) : (sp_snapshot){0};
    dealer_open(&made->dealer, set);
    made->left = sp_set_nranges(sp_kernels_active(), set);
    made->short_of_memory = false;
    *out = (struct ArrowArrayStream){.get_schema = stream_schema,
                                     .get_next = stream_next,
                                     .get_last_error = stream_error,
                                     .release = stream_release,
                                     .private_data = made};
    return SP_OK;
}
