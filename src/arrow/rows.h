/*
 * rows.h - ranges, or gfns, read out of Arrow data that another library made.  Floor 5.
 *
 * Two columns `start` and `stop`, in either order, are ranges; one column, alone or in a struct, is
 * gfns.  Columns are of integers of any width.  What is read is copied and checked row by row, so a
 * set can be made of it whatever the producer does next.
 *
 * Lengths, offsets, children and pointers are checked as far as the ABI lets a consumer: it does
 * not say how large a buffer is, so a producer that lies about that is believed.  What is given is
 * released once, by whoever owns it; only batches of a stream are released here.
 */
#ifndef SP_ARROW_ROWS_H
#define SP_ARROW_ROWS_H

#include "arrow/abi.h"
#include "set/pageset.h"

/* Whom SP_INVALID blames; rows.why says for what, in text that may quote the producer's bytes. */
typedef enum sp_arrow_blame {
    SP_ARROW_TYPE,    /* not columns that are taken here */
    SP_ARROW_FORMAT,  /* nulls, or structures that contradict themselves */
    SP_ARROW_BOUND,   /* a gfn that is none, or an inverted range */
    SP_ARROW_PRODUCER /* the stream failed by its own account */
} sp_arrow_blame;

typedef struct sp_arrow_rows {
    sp_mem mem;
    unsigned width; /* words a row: 2 of a range, 1 of a gfn; 0 until the type is known */
    bool nested;    /* the columns are children of a struct */
    bool swapped;   /* `stop` is the first */
    char format[2]; /* of the columns as they come */
    uint64_t *words;
    size_t n, room; /* rows */
    sp_arrow_blame blame;
    char why[240];
} sp_arrow_rows;

void sp_arrow_rows_open(sp_arrow_rows *rows, const sp_allocator *allocator);
void sp_arrow_rows_close(sp_arrow_rows *rows);

/* What the arrays will be.  `width` is what the caller can use, 0 for either.  SP_INVALID. */
SP_MUST_CHECK sp_status sp_arrow_rows_type(sp_arrow_rows *rows, const struct ArrowSchema *schema,
                                           unsigned width);
/* Appends an array's rows, or none of them.  SP_INVALID, SP_NOMEM.  O(length). */
SP_MUST_CHECK sp_status sp_arrow_rows_add(sp_arrow_rows *rows, const struct ArrowArray *array);

/* The same for a stream: its schema, and its next batch, of which *more says whether there was one.
 * Callbacks are the producer's and may take any lock of its own. */
SP_MUST_CHECK sp_status sp_arrow_rows_begin(sp_arrow_rows *rows, struct ArrowArrayStream *stream,
                                            unsigned width);
SP_MUST_CHECK sp_status sp_arrow_rows_next(sp_arrow_rows *rows, struct ArrowArrayStream *stream,
                                           bool *more);

/* The set of all rows.  SP_NOMEM. */
SP_MUST_CHECK sp_status sp_arrow_rows_set(const sp_arrow_rows *rows, const sp_engine *engine,
                                          sp_pageset **out);

#endif
