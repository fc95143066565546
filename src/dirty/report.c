/*
 * report.c - reading what sources report.  Floor 4.
 */
#include "dirty/report.h"

#include "base/bits.h"
#include "dirty/loose.h"
#include "kernels/kernels.h"

uint64_t sp_bitmap_count(const void *bitmap, uint64_t npages)
{
    const sp_kernels *k = sp_kernels_active();
    uint64_t chunk[512], bits = 0;
    for (uint64_t at = 0, n; at < npages; at += n) {
        n = sp_min(npages - at, sizeof chunk * 8);
        sp_bits_copy(bitmap, at, n, chunk);
        bits += k->popcount(chunk, (size_t)((n + 63) / 64));
    }
    return bits;
}

/* Puts down one page, or joins it to the run before, which ends at *stop. */
static inline size_t put_page(uint64_t *runs, size_t used, uint64_t *stop, uint64_t gfn)
{
    static const uint64_t one_more = UINT64_C(1) << SP_GFN_BITS;
    if (gfn == *stop && runs[used - 1] >> SP_GFN_BITS < SP_LOOSE_MOST - 1)
        runs[used - 1] += one_more;
    else
        runs[used++] = sp_loose_run(gfn, 1);
    *stop = gfn + 1;
    return used;
}

/* Nothing was put down yet. */
#define NO_STOP UINT64_MAX

/* Checks one ring entry against the slot of the one before it, or its own. */
static sp_status check_entry(const sp_memory *memory, const sp_ring_entry *entry, sp_memslot *slot)
{
    size_t index;
    if (!(entry->flags & 1))
        return SP_INVALID;
    if (entry->slot != slot->id || !slot->npages) {
        if (sp_memory_find(memory, entry->slot, &index) != SP_OK)
            return SP_UNKNOWN;
        *slot = *sp_memory_at(memory, index);
    }
    return entry->offset < slot->npages ? SP_OK : SP_RANGE;
}

sp_status sp_report_ring(const sp_memory *memory, const sp_ring_entry *entries, size_t n,
                         uint64_t *runs, size_t *used, size_t *bad)
{
    sp_memslot slot = {0};
    uint64_t stop = NO_STOP;
    size_t at = 0;
    for (size_t i = 0; i < n; i++) {
        sp_ring_entry entry = {SP_READ_ONCE(entries[i].flags), SP_READ_ONCE(entries[i].slot),
                               SP_READ_ONCE(entries[i].offset)};
        bool is_plain = entry.flags & 1 && entry.slot == slot.id && entry.offset < slot.npages;
        if (!is_plain) {
            sp_status status = check_entry(memory, &entry, &slot);
            *bad = i;
            if (status)
                return status;
        }
        at = put_page(runs, at, &stop, slot.gfn + entry.offset);
    }
    *used = at;
    return SP_OK;
}

sp_status sp_report_pages(const uint64_t *gfns, size_t n, uint64_t *runs, size_t *used, size_t *bad)
{
    uint64_t stop = NO_STOP;
    size_t at = 0;
    for (size_t i = 0; i < n; i++) {
        uint64_t gfn = SP_READ_ONCE(gfns[i]);
        if (gfn >= SP_GFN_LIMIT) {
            *bad = i;
            return SP_RANGE;
        }
        at = put_page(runs, at, &stop, gfn);
    }
    *used = at;
    return SP_OK;
}

sp_status sp_report_ranges(const sp_range *ranges, size_t n, uint64_t *runs, size_t *used,
                           size_t *nlong, size_t *bad)
{
    size_t at = 0, end = 2 * n;
    for (size_t i = 0; i < n; i++) {
        uint64_t start = SP_READ_ONCE(ranges[i].start), stop = SP_READ_ONCE(ranges[i].stop);
        *bad = i;
        if (start > SP_GFN_LIMIT || stop > SP_GFN_LIMIT)
            return SP_RANGE;
        if (stop < start)
            return SP_INVALID;
        if (stop - start > SP_LOOSE_MOST) {
            runs[--end] = stop;
            runs[--end] = start;
        } else if (start < stop) {
            runs[at++] = sp_loose_run(start, stop - start);
        }
    }
    *used = at;
    *nlong = n - end / 2;
    return SP_OK;
}
