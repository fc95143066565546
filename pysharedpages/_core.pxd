# What _core uses of sharedpages.h, transcribed; nothing else.

from libc.stdint cimport int64_t, uint8_t, uint32_t, uint64_t, uintptr_t

cdef extern from "<stdbool.h>" nogil:
    ctypedef unsigned char cbool "bool"

cdef extern from "sharedpages.h" nogil:
    ctypedef enum sp_status:
        SP_OK
        SP_NOMEM
        SP_RANGE
        SP_INVALID
        SP_CLOSED
        SP_LIMIT
        SP_UNKNOWN
        SP_FORKED
        SP_BUSY
        SP_AGAIN

    ctypedef enum sp_op:
        SP_OR
        SP_AND
        SP_ANDNOT
        SP_XOR

    uint64_t SP_GFN_LIMIT

    ctypedef struct sp_range:
        uint64_t start
        uint64_t stop

    ctypedef struct sp_allocator:
        pass

    ctypedef struct sp_mem:
        pass

    void sp_mem_init(sp_mem *mem, const sp_allocator *allocator)

    ctypedef struct sp_kernels:
        const char *name
        uint64_t (*popcount)(const uint64_t *words, size_t count)

    const sp_kernels *sp_kernels_active()
    const sp_kernels *sp_kernels_find(const char *name)
    const sp_kernels *sp_kernels_at(size_t i)
    void sp_kernels_use(const sp_kernels *table)

    # sets
    ctypedef struct sp_engine:
        pass

    const sp_engine sp_engine_roaring
    const sp_engine sp_engine_interval

    ctypedef struct sp_set:
        const sp_engine *engine

    ctypedef struct sp_set_stats:
        uint64_t pages, nodes, bytes, inner, packed, arrays, runs, bitmaps, blocks, narrow, wide

    ctypedef struct sp_cursor:
        pass

    uint64_t sp_set_count(const sp_set *)
    bint sp_set_contains(const sp_set *, uint64_t gfn)
    uint64_t sp_set_rank(const sp_set *, uint64_t gfn)
    uint64_t sp_set_count_range(const sp_set *, uint64_t start, uint64_t stop)
    uint64_t sp_set_select(const sp_set *, uint64_t i)
    uint64_t sp_set_nranges(const sp_kernels *, const sp_set *)
    uint64_t sp_set_intersection(const sp_kernels *, const sp_set *, const sp_set *)
    void sp_set_contains_many(const sp_set *, const uint64_t *gfns, size_t n, uint8_t *found)
    size_t sp_set_rank_many(const sp_set *, const uint64_t *gfns, size_t n, uint64_t *ranks)
    size_t sp_set_select_many(const sp_set *, const uint64_t *indexes, size_t n, uint64_t *gfns)
    uint64_t sp_set_next(const sp_kernels *, const sp_set *, uint64_t gfn, bint member)
    uint64_t sp_set_prev(const sp_set *, uint64_t gfn, bint member)
    void sp_set_pages_into(const sp_kernels *, const sp_set *, uint64_t start, uint64_t stop,
                           uint64_t *out)
    void sp_set_bitmap_into(const sp_kernels *, const sp_set *, uint64_t start, uint64_t npages,
                            uint64_t *words)
    uint64_t sp_set_ranges_count(const sp_kernels *, const sp_set *, uint64_t start, uint64_t stop)
    void sp_set_ranges_into(const sp_kernels *, const sp_set *, uint64_t start, uint64_t stop,
                            sp_range *out, uint64_t n)
    sp_cursor sp_cursor_open(const sp_set *, uint64_t start, uint64_t stop)
    size_t sp_cursor_ranges(const sp_kernels *, sp_cursor *, sp_range *out, size_t room)
    void sp_set_measure(const sp_set *, sp_set_stats *)
    bint sp_set_combine_is_short(sp_op, const sp_set *, const sp_set *)

    ctypedef struct sp_pageset:
        pass

    sp_status sp_pageset_from_ranges(const sp_allocator *, const sp_engine *, const sp_range *,
                                     size_t n, sp_pageset **out, size_t *bad)
    sp_status sp_pageset_from_pages(const sp_allocator *, const sp_engine *, const uint64_t *gfns,
                                    size_t n, sp_pageset **out, size_t *bad)
    sp_status sp_pageset_from_bitmap(const sp_allocator *, const sp_engine *, const void *bitmap,
                                     uint64_t first, uint64_t npages, sp_pageset **out)
    sp_status sp_pageset_combine(const sp_allocator *, sp_op, const sp_set *, const sp_set *,
                                 sp_pageset **out)
    sp_status sp_pageset_shift(const sp_allocator *, const sp_set *, uint64_t distance, bint down,
                               sp_pageset **out)
    void sp_pageset_release(sp_pageset *)

    ctypedef struct sp_portable:
        pass

    cbool sp_portable_is_short(const sp_set *)
    sp_status sp_portable_plan(sp_portable *, const sp_allocator *, const sp_set *, cbool wide)
    uint64_t sp_portable_bytes(const sp_portable *)
    void sp_portable_write(const sp_portable *, uint8_t *out)
    void sp_portable_close(sp_portable *)
    sp_status sp_portable_read(const sp_allocator *, const void *, size_t, unsigned bits, sp_pageset **out,
                               size_t *offset, const char **why)
    const sp_set *sp_pageset_set(const sp_pageset *)

    # trackers
    ctypedef struct sp_tracker:
        pass

    ctypedef struct sp_event:
        uint64_t start
        uint64_t npages
        uint8_t shared

    ctypedef struct sp_snapshot:
        sp_tracker *tracker

    ctypedef struct sp_tracker_stats:
        sp_set_stats set
        const char *engine
        uint64_t epoch, ranges, live_nodes, live_bytes, versions, trail

    sp_status sp_tracker_new(const sp_allocator *, const sp_engine *, uint64_t npages, bint shared,
                             sp_tracker **out)
    sp_status sp_tracker_close(sp_tracker *)
    void sp_tracker_free(sp_tracker *)
    sp_status sp_tracker_convert(sp_tracker *, uint64_t start, uint64_t npages, bint shared,
                                 bint wait, uint64_t *changed)
    sp_status sp_tracker_convert_list(sp_tracker *, uint64_t start, uint64_t npages, bint shared,
                                      uint64_t *changed, sp_pageset **pages)
    sp_status sp_tracker_apply(sp_tracker *, const sp_event *, size_t n, uint64_t *changed,
                               size_t *bad)
    sp_status sp_tracker_set_list(sp_tracker *, const sp_range *, size_t n, uint64_t *changed,
                                  size_t *bad)
    sp_status sp_tracker_contains(sp_tracker *, uint64_t gfn, bint wait, cbool *shared)
    uint64_t sp_tracker_count(const sp_tracker *)
    uint64_t sp_tracker_epoch(const sp_tracker *)
    uint64_t sp_tracker_bound(const sp_tracker *)
    uint64_t sp_tracker_bytes(const sp_tracker *)
    bint sp_tracker_is_closed(const sp_tracker *)
    sp_status sp_tracker_measure(sp_tracker *, sp_tracker_stats *)
    sp_status sp_tracker_snapshot(sp_tracker *, bint wait, sp_snapshot *out)
    sp_status sp_tracker_latest(sp_tracker *, sp_snapshot *out)
    void sp_snapshot_release(sp_snapshot *)
    sp_set sp_snapshot_set(const sp_snapshot *)
    uint64_t sp_snapshot_epoch(const sp_snapshot *)
    sp_status sp_snapshot_converted(const sp_snapshot *newer, const sp_snapshot *older,
                                    sp_pageset **out)
    sp_status sp_tracker_fd(sp_tracker *, int *fd)
    sp_status sp_tracker_wait(sp_tracker *, uint64_t epoch, int64_t timeout_ns, uint64_t *now)
    void sp_tracker_after_fork(sp_tracker *)

    # dirty logs and the merge
    ctypedef struct sp_memslot:
        uint64_t gfn, npages
        uint32_t id

    ctypedef struct sp_memory:
        pass

    sp_status sp_memory_new(const sp_allocator *, const sp_engine *, const sp_memslot *, size_t n,
                            sp_memory **out, size_t *bad, size_t *other)
    sp_memory *sp_memory_retain(sp_memory *)
    void sp_memory_release(sp_memory *)
    size_t sp_memory_count(const sp_memory *)
    const sp_memslot *sp_memory_at(const sp_memory *, size_t i)
    sp_status sp_memory_find(const sp_memory *, uint32_t id, size_t *index)
    const sp_set *sp_memory_pages(const sp_memory *)

    ctypedef struct sp_log:
        pass

    ctypedef struct sp_harvest:
        pass

    ctypedef struct sp_bits:
        pass

    ctypedef struct sp_ring_entry:
        pass

    sp_status sp_log_new(const sp_allocator *, sp_memory *, sp_log **out)
    void sp_log_free(sp_log *)
    sp_status sp_log_set_memory(sp_log *const *logs, size_t n, sp_memory *)
    sp_status sp_log_add_bitmap(sp_log *, const sp_memslot *, const void *bitmap, uint64_t first,
                                uint64_t npages)
    sp_status sp_log_lend(sp_log *, const sp_memslot *, sp_bits **loan)
    sp_status sp_log_settle(sp_log *, const sp_memslot *, sp_bits *loan)
    uint64_t *sp_loan_words(sp_bits *)
    void sp_loan_end(sp_bits *)
    sp_status sp_log_add_ranges(sp_log *, const sp_range *, size_t n, size_t *bad)
    sp_status sp_log_add_pages(sp_log *, const uint64_t *, size_t n, size_t *bad)
    sp_status sp_log_add_ring(sp_log *, const sp_ring_entry *, size_t n, size_t *bad)
    size_t sp_ring_harvest(sp_ring_entry *ring, uint32_t size, uint32_t *next, sp_ring_entry *out,
                           size_t room)
    cbool sp_ring_find(sp_ring_entry *ring, uint32_t size, uint32_t *next)
    sp_log *sp_log_retain(sp_log *)
    sp_status sp_log_take(sp_log *, sp_harvest **out)
    sp_status sp_log_peek(sp_log *, sp_harvest **out)
    void sp_log_give_back(sp_log *, sp_harvest *)
    uint64_t sp_log_bytes(const sp_log *)
    void sp_log_after_fork(sp_log *)
    sp_harvest *sp_harvest_retain(sp_harvest *)
    void sp_harvest_release(sp_harvest *)
    sp_memory *sp_harvest_memory(const sp_harvest *)
    sp_status sp_harvest_unite(const sp_allocator *, sp_harvest *const *, size_t n,
                               sp_harvest **out)
    uint64_t sp_bitmap_count(const void *bitmap, uint64_t npages)

    ctypedef struct sp_merge:
        pass

    ctypedef struct sp_list:
        sp_range *ranges
        size_t n, room
        uint64_t pages

    sp_status sp_merge_new(const sp_allocator *, sp_harvest *, const sp_set *extra,
                           const sp_set *shared, sp_merge **out)
    void sp_merge_free(sp_merge *)
    bint sp_merge_next(sp_merge *, sp_list *shared, sp_list *private)
    enum:
        SP_THREADS_MOST
    sp_status sp_merge_all(sp_merge *, size_t threads, sp_mem *, sp_list *shared, sp_list *private)
    sp_status sp_merge_count(const sp_allocator *, sp_harvest *, uint64_t *pages)
    sp_status sp_merge_pages(const sp_allocator *, sp_harvest *, sp_pageset **out)
    void sp_list_free(sp_mem *, sp_list *)

    # Arrow data
    cdef struct ArrowSchema:
        void (*release)(ArrowSchema *) noexcept nogil

    cdef struct ArrowArray:
        void (*release)(ArrowArray *) noexcept nogil

    cdef struct ArrowArrayStream:
        void (*release)(ArrowArrayStream *) noexcept nogil

    sp_status sp_arrow_schema(const sp_allocator *, ArrowSchema *out)
    sp_status sp_arrow_array(const sp_allocator *, const sp_set *, ArrowArray *out)
    sp_status sp_arrow_stream(const sp_allocator *, const sp_set *, sp_pageset *,
                              const sp_snapshot *, ArrowArrayStream *out)
    uint64_t sp_arrow_held()

    ctypedef enum sp_arrow_blame:
        SP_ARROW_TYPE
        SP_ARROW_FORMAT
        SP_ARROW_BOUND
        SP_ARROW_PRODUCER

    ctypedef struct sp_arrow_rows:
        sp_arrow_blame blame
        const char *why

    void sp_arrow_rows_open(sp_arrow_rows *, const sp_allocator *)
    void sp_arrow_rows_close(sp_arrow_rows *)
    sp_status sp_arrow_rows_type(sp_arrow_rows *, const ArrowSchema *, unsigned width)
    sp_status sp_arrow_rows_add(sp_arrow_rows *, const ArrowArray *)
    sp_status sp_arrow_rows_begin(sp_arrow_rows *, ArrowArrayStream *, unsigned width)
    sp_status sp_arrow_rows_next(sp_arrow_rows *, ArrowArrayStream *, cbool *more)
    sp_status sp_arrow_rows_set(const sp_arrow_rows *, const sp_engine *, sp_pageset **out)
