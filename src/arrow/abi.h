/*
 * abi.h - the three structures by which libraries hand Arrow data to each other.  Floor 5.
 *
 * Names, fields and their order are the published ABI, which never changes; the guards are its own,
 * so that another header that has it may be included beside this one.  Whoever holds a structure
 * calls its release once, or moves it: copies the bytes and sets release of the source to NULL,
 * which marks it as released.
 *
 * Source: https://arrow.apache.org/docs/format/CDataInterface.html and CStreamInterface.html.
 */
#ifndef SP_ARROW_ABI_H
#define SP_ARROW_ABI_H

#include <stdint.h>

#ifndef ARROW_C_DATA_INTERFACE
#define ARROW_C_DATA_INTERFACE

struct ArrowSchema {
    const char *format, *name, *metadata;
    int64_t flags, n_children;
    struct ArrowSchema **children, *dictionary;
    void (*release)(struct ArrowSchema *);
    void *private_data;
};

struct ArrowArray {
    int64_t length, null_count, offset, n_buffers, n_children;
    const void **buffers;
    struct ArrowArray **children, *dictionary;
    void (*release)(struct ArrowArray *);
    void *private_data;
};

#endif

#ifndef ARROW_C_STREAM_INTERFACE
#define ARROW_C_STREAM_INTERFACE

/* Calls return 0 or an errno; an array that comes out released is the end of the stream. */
struct ArrowArrayStream {
    int (*get_schema)(struct ArrowArrayStream *, struct ArrowSchema *out);
    int (*get_next)(struct ArrowArrayStream *, struct ArrowArray *out);
    const char *(*get_last_error)(struct ArrowArrayStream *);
    void (*release)(struct ArrowArrayStream *);
    void *private_data;
};

#endif
#endif
