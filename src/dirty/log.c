/*
 * log.c - collecting dirty pages and handing them out.  Floor 4.
 *
 * The log's present content is itself a harvest, `open`, that nobody else sees: taking swaps it for
 * an empty one.  A harvest that is given back goes on a list as it is - so that cannot fail - and
 * is folded in when the log is next taken from.
 *
 * A slot may have several bitmaps at a time, one it owns and those it has lent; they are folded
 * into one when the log is taken from.
 */
#include "dirty/log.h"

#include "base/lock.h"
#include "base/sort.h"
#include "dirty/harvest.h"

struct sp_log {
    _Atomic uint64_t refs; /* the owner, and every harvest that may come back */
    sp_lock lock;
    const sp_allocator *allocator;
    sp_memory *memory;
    sp_harvest *open; /* under the lock, as is all below */
    sp_harvest *returned;
};

/* ---- the log ---- */

sp_status sp_log_new(const sp_allocator *allocator, sp_memory *memory, sp_log **out)
{
    sp_mem mem;
    sp_mem_init(&mem, allocator);
    sp_log *log = sp_mem_zalloc(&mem, sizeof *log);
    if (!log)
        return SP_NOMEM;
    atomic_init(&log->refs, 1);
    sp_lock_init(&log->lock);
    log->allocator = mem.allocator;
    log->open = sp_harvest_new(log->allocator, memory);
    if (!log->open) {
        sp_mem_free(&mem, log, sizeof *log);
        return SP_NOMEM;
    }
    log->memory = sp_memory_retain(memory);
    *out = log;
    return SP_OK;
}

sp_log *sp_log_retain(sp_log *log)
{
    sp_add(&log->refs, 1, relaxed); /* relaxed: the caller already holds a reference */
    return log;
}

void sp_log_free(sp_log *log)
{
    /* acq_rel: the last release pairs with all others, whose accesses must be over */
    if (!log || sp_sub(&log->refs, 1, acq_rel) != 1)
        return;
    for (sp_harvest *harvest = log->returned, *next; harvest; harvest = next) {
        next = harvest->next;
        sp_harvest_release(harvest);
    }
    sp_harvest_release(log->open);
    sp_memory_release(log->memory);
    sp_mem mem = {.allocator = log->allocator};
    sp_mem_free(&mem, log, sizeof *log);
}

static void unlock(sp_log *log)
{
    /* Nobody posts work to this lock; the loop is the lock's contract. */
    while (!sp_lock_release(&log->lock))
        ;
}

void sp_log_after_fork(sp_log *log) { (void)sp_lock_after_fork(&log->lock); }

uint64_t sp_log_bytes(const sp_log *log)
{
    sp_lock *lock = (sp_lock *)&log->lock;
    if (sp_lock_wait(lock) != SP_OK)
        return 0;
    uint64_t bytes = sizeof *log + sp_harvest_bytes(log->open);
    for (const sp_harvest *harvest = log->returned; harvest; harvest = harvest->next)
        bytes += sp_harvest_bytes(harvest);
    unlock((sp_log *)log);
    return bytes;
}

/* Adds a bitmap to slot `index`, in front of those it has; with the lock held. */
static sp_status push_bits(sp_log *log, size_t index, sp_bits **out)
{
    sp_bits *bits = sp_bits_new(log->allocator, sp_memory_at(log->memory, index)->npages);
    if (!bits)
        return SP_NOMEM;
    bits->next = log->open->bits[index];
    log->open->bits[index] = bits;
    *out = bits;
    return SP_OK;
}

/* A bitmap of slot `index` that is not lent, or NULL; with the lock held. */
static sp_bits *find_own(const sp_log *log, size_t index)
{
    sp_bits *bits = log->open->bits[index];
    while (bits && sp_bits_is_lent(bits))
        bits = bits->next;
    return bits;
}

/* The same, made where there is none. */
static sp_status own_bits(sp_log *log, size_t index, sp_bits **out)
{
    *out = find_own(log, index);
    return *out ? SP_OK : push_bits(log, index, out);
}

sp_status sp_log_add_bitmap(sp_log *log, size_t index, const void *bitmap, uint64_t first_page,
                            uint64_t npages)
{
    const sp_memslot *slot = sp_memory_at(log->memory, index);
    if (first_page > slot->npages)
        return SP_RANGE;
    npages = sp_min(npages, slot->npages - first_page);
    sp_bits *bits;
    sp_status status = sp_lock_wait(&log->lock);
    if (status)
        return status;
    status = own_bits(log, index, &bits);
    uint64_t chunk[1024], shift = first_page & 63;
    for (uint64_t at = 0; !status && at < npages;) {
        uint64_t n = sp_min(npages - at, sizeof chunk * 8);
        uint64_t *to = bits->words + (first_page + at) / 64, nwords = (n + 63) / 64;
        sp_bits_copy(bitmap, at, n, chunk);
        for (uint64_t w = 0; w < nwords; w++) {
            to[w] |= chunk[w] << shift;
            if (shift && chunk[w] >> (64 - shift))
                to[w + 1] |= chunk[w] >> (64 - shift);
        }
        at += n;
    }
    unlock(log);
    return status;
}

sp_status sp_log_lend(sp_log *log, size_t index, sp_bits **loan)
{
    sp_status status = sp_lock_wait(&log->lock);
    if (status)
        return status;
    status = push_bits(log, index, loan);
    if (!status)
        sp_add(&(*loan)->refs, 1, relaxed); /* relaxed: handed over under the lock */
    unlock(log);
    return status;
}

/* ---- sparse pages ---- */

static sp_status check_range(sp_range range)
{
    if (range.start > SP_GFN_LIMIT || range.stop > SP_GFN_LIMIT)
        return SP_RANGE;
    return range.stop < range.start ? SP_INVALID : SP_OK;
}

/* The range of a ring entry's page. */
static sp_status resolve(const sp_log *log, sp_ring_entry entry, sp_range *range)
{
    size_t index;
    if (!(entry.flags & 1))
        return SP_INVALID;
    sp_status status = sp_memory_find(log->memory, entry.slot, &index);
    if (status)
        return status;
    const sp_memslot *slot = sp_memory_at(log->memory, index);
    if (entry.offset >= slot->npages)
        return SP_RANGE;
    *range = (sp_range){slot->gfn + entry.offset, slot->gfn + entry.offset + 1};
    return SP_OK;
}

/* The i-th element of a caller's array, as a range. */
typedef sp_status (*read_fn)(const sp_log *log, const void *array, size_t i, sp_range *range);

static sp_status read_range(const sp_log *log, const void *array, size_t i, sp_range *range)
{
    (void)log;
    const sp_range *from = (const sp_range *)array + i;
    *range = (sp_range){SP_READ_ONCE(from->start), SP_READ_ONCE(from->stop)};
    return check_range(*range);
}

static sp_status read_page(const sp_log *log, const void *array, size_t i, sp_range *range)
{
    (void)log;
    uint64_t gfn = SP_READ_ONCE(((const uint64_t *)array)[i]);
    *range = (sp_range){gfn, gfn + 1};
    return gfn < SP_GFN_LIMIT ? SP_OK : SP_RANGE;
}

static sp_status read_entry(const sp_log *log, const void *array, size_t i, sp_range *range)
{
    const sp_ring_entry *from = (const sp_ring_entry *)array + i;
    sp_ring_entry entry = {SP_READ_ONCE(from->flags), SP_READ_ONCE(from->slot),
                           SP_READ_ONCE(from->offset)};
    return resolve(log, entry, range);
}

/* Reads and checks a caller's array once, into ranges of our own, neighbours joined. */
static sp_status copy(const sp_log *log, read_fn read, const void *array, size_t n, sp_range *out,
                      size_t *used, size_t *bad)
{
    *used = 0;
    for (size_t i = 0; i < n; i++) {
        sp_range range;
        sp_status status = read(log, array, i, &range);
        *bad = i;
        if (status)
            return status;
        if (range.start == range.stop)
            continue;
        if (*used && out[*used - 1].stop == range.start)
            out[*used - 1].stop = range.stop;
        else
            out[(*used)++] = range;
    }
    return SP_OK;
}

static sp_status add(sp_log *log, read_fn read, const void *array, size_t n, size_t *bad)
{
    sp_mem mem = {.allocator = log->allocator};
    sp_range *ranges = sp_mem_alloc(&mem, (2 * n + 1) * sizeof *ranges);
    if (!ranges)
        return SP_NOMEM;
    size_t used;
    sp_status status = copy(log, read, array, n, ranges, &used, bad);
    if (!status)
        status = sp_lock_wait(&log->lock);
    if (!status) {
        sp_edit edit = sp_harvest_edit(log->open);
        sp_sort_ranges(ranges, ranges + used, used);
        status = sp_set_add_sorted(&edit, &log->open->sparse, ranges, used);
        unlock(log);
    }
    sp_mem_free(&mem, ranges, (2 * n + 1) * sizeof *ranges);
    return status;
}

sp_status sp_log_add_ranges(sp_log *log, const sp_range *ranges, size_t n, size_t *bad)
{
    return add(log, read_range, ranges, n, bad);
}

sp_status sp_log_add_pages(sp_log *log, const uint64_t *gfns, size_t n, size_t *bad)
{
    return add(log, read_page, gfns, n, bad);
}

sp_status sp_log_add_ring(sp_log *log, const sp_ring_entry *entries, size_t n, size_t *bad)
{
    return add(log, read_entry, entries, n, bad);
}

/* ---- taking ---- */

static void or_words(uint64_t *to, const uint64_t *from, uint64_t nwords)
{
    for (uint64_t w = 0; w < nwords; w++)
        to[w] |= from[w];
}

/* Makes slot `index`, if it has bitmaps, have one that no borrower can still write. */
static sp_status prepare_fold(sp_log *log, size_t index)
{
    sp_bits *own;
    return log->open->bits[index] ? own_bits(log, index, &own) : SP_OK;
}

/* Leaves a prepared slot of the open harvest that one bitmap, bits past the slot's end zero. */
static void fold_bits(sp_log *log, size_t index)
{
    sp_bits *own = find_own(log, index);
    if (!own)
        return;
    for (sp_bits *bits = log->open->bits[index], *next; bits; bits = next) {
        next = bits->next;
        if (bits != own) {
            or_words(own->words, bits->words, bits->nwords);
            sp_bits_release(bits);
        }
    }
    own->next = NULL;
    log->open->bits[index] = own;
    uint64_t over = sp_memory_at(log->memory, index)->npages & 63;
    if (over)
        own->words[own->nwords - 1] &= sp_mask(0, (unsigned)over - 1);
}

/* Adds a harvest's pages to the open one.  SP_NOMEM: some may be in, the harvest is as it was. */
static sp_status fold_harvest(sp_log *log, const sp_harvest *harvest)
{
    sp_edit edit = sp_harvest_edit(log->open);
    sp_set sum;
    for (size_t i = 0; i < sp_memory_count(log->memory); i++) {
        if (!harvest->bits[i])
            continue;
        sp_bits *bits;
        sp_status status = own_bits(log, i, &bits);
        if (status)
            return status;
        or_words(bits->words, harvest->bits[i]->words, bits->nwords);
    }
    if (!sp_set_count(&harvest->sparse))
        return SP_OK;
    sp_status status = sp_set_combine(&edit, SP_OR, &log->open->sparse, &harvest->sparse, &sum);
    if (!status) {
        sp_set_retire(&edit, &log->open->sparse);
        log->open->sparse = sum;
    }
    return status;
}

/* Empties the log into *out; puts it back at once if `keep`, so that nobody sees an empty log. */
static sp_status take(sp_log *log, bool keep, sp_harvest **out)
{
    sp_harvest *empty = sp_harvest_new(log->allocator, log->memory);
    if (!empty)
        return SP_NOMEM;
    sp_status status = sp_lock_wait(&log->lock);
    if (status) {
        sp_harvest_release(empty);
        return status;
    }
    while (!status && log->returned) {
        sp_harvest *harvest = log->returned;
        status = fold_harvest(log, harvest);
        if (!status) {
            log->returned = harvest->next;
            sp_harvest_release(harvest);
        }
    }
    for (size_t i = 0; !status && i < sp_memory_count(log->memory); i++)
        status = prepare_fold(log, i);
    if (!status) {
        for (size_t i = 0; i < sp_memory_count(log->memory); i++)
            fold_bits(log, i);
        *out = log->open;
        if (keep) {
            log->open->next = log->returned;
            log->returned = sp_harvest_retain(log->open);
        }
        log->open = empty;
        empty = NULL;
    }
    unlock(log);
    sp_harvest_release(empty);
    return status;
}

sp_status sp_log_take(sp_log *log, sp_harvest **out) { return take(log, false, out); }

sp_status sp_log_peek(sp_log *log, sp_harvest **out) { return take(log, true, out); }

void sp_log_give_back(sp_log *log, sp_harvest *harvest)
{
    if (sp_lock_wait(&log->lock) != SP_OK) {
        sp_harvest_release(harvest); /* a forked child: its log can never be taken from again */
        return;
    }
    harvest->next = log->returned;
    log->returned = harvest;
    unlock(log);
}
