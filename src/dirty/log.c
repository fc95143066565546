/*
 * log.c - collecting dirty pages and handing them out.  Floor 4.
 *
 * The log's present content is itself a harvest, `open`, that nobody else sees: taking swaps it for
 * an empty one.  A harvest that is given back goes on a list as it is - so that cannot fail - and
 * is folded in when the log is next taken from.
 *
 * A slot may have several bitmaps at a time, one it owns and those it has lent; they are folded
 * into one when the log is taken from.
 *
 * Arrays are read under the lock, straight into the open harvest's list: what an array adds lies
 * behind the list's end until the last element of it was found good.
 */
#include "dirty/log.h"

#include <string.h>

#include "base/lock.h"
#include "base/sort.h"
#include "dirty/harvest.h"
#include "dirty/report.h"

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

/* Runs that the list holds before they are moved: in half the memory of a dense bitmap of the
 * guest, which is where they go, or of a few full rings, however small the guest. */
#define LEAST_RUNS (UINT64_C(1) << 18)

static uint64_t most_runs(const sp_log *log)
{
    uint64_t half = sp_set_count(sp_memory_pages(log->memory)) / 128;
    return sp_min(sp_max(half, LEAST_RUNS), UINT32_MAX / 2);
}

/* Whether slot `index` holds all of a run. */
static bool holds(const sp_log *log, size_t index, uint64_t run)
{
    if (index >= sp_memory_count(log->memory))
        return false;
    const sp_memslot *slot = sp_memory_at(log->memory, index);
    return slot->gfn <= sp_loose_start(run) && sp_loose_stop(run) <= slot->gfn + slot->npages;
}

/* Moves the list's pages to the bitmaps of their slots; what no slot holds stays. */
static sp_status move_to_bitmaps(sp_log *log)
{
    sp_loose *loose = &log->open->loose;
    sp_status status = SP_OK;
    sp_bits *bits = NULL;
    size_t kept = 0, i = 0, index = SIZE_MAX;
    for (; i < loose->n; i++) {
        uint64_t run = loose->runs[i], start = sp_loose_start(run);
        if (!holds(log, index, run)) {
            index = sp_memory_find_gfn(log->memory, start);
            if (!holds(log, index, run)) {
                loose->runs[kept++] = run;
                index = SIZE_MAX; /* `bits` are of another slot */
                continue;
            }
            status = own_bits(log, index, &bits);
            if (status)
                break;
        }
        uint64_t first = start - sp_memory_at(log->memory, index)->gfn;
        sp_words_fill(bits->words, first, first + (sp_loose_stop(run) - start) - 1, true);
    }
    memmove(loose->runs + kept, loose->runs + i, (loose->n - i) * sizeof *loose->runs);
    loose->n -= i - kept;
    return status;
}

/* Makes a long list shorter.  SP_NOMEM: the same pages. */
static sp_status shorten(sp_log *log, uint64_t most)
{
    sp_harvest *open = log->open;
    sp_status status = move_to_bitmaps(log);
    if (status || open->loose.n <= most / 2)
        return status;
    sp_edit edit = sp_harvest_edit(open);
    status = sp_loose_add_to(&open->loose, &edit, &open->sparse);
    if (!status)
        sp_loose_clear(&open->loose, &open->mem);
    return status;
}

/* Makes room for `more` runs in the open harvest's list. */
static sp_status reserve(sp_log *log, size_t more)
{
    uint64_t most = most_runs(log);
    sp_status status = log->open->loose.n > most ? shorten(log, most) : SP_OK;
    return status ? status : sp_loose_reserve(&log->open->loose, &log->open->mem, more);
}

/* Takes the lock, and makes room for `more` runs; on an error the lock is not held. */
static sp_status enter(sp_log *log, size_t more, uint64_t **room)
{
    sp_status status = sp_lock_wait(&log->lock);
    if (status)
        return status;
    status = reserve(log, more);
    if (status)
        unlock(log);
    else
        *room = more ? log->open->loose.runs + log->open->loose.n : NULL;
    return status;
}

/* Adds what was written behind the runs, unless it was refused, and unlocks. */
static sp_status leave(sp_log *log, sp_status status, size_t used)
{
    sp_harvest *open = log->open;
    if (!status)
        open->loose.n += used;
    else if (!open->loose.n)
        sp_loose_clear(&open->loose, &open->mem); /* what is refused takes no memory */
    unlock(log);
    return status;
}

sp_status sp_log_add_ring(sp_log *log, const sp_ring_entry *entries, size_t n, size_t *bad)
{
    uint64_t *runs;
    size_t used;
    sp_status status = enter(log, n, &runs);
    if (status)
        return status;
    status = sp_report_ring(log->memory, entries, n, runs, &used, bad);
    return leave(log, status, used);
}

sp_status sp_log_add_pages(sp_log *log, const uint64_t *gfns, size_t n, size_t *bad)
{
    uint64_t *runs;
    size_t used;
    sp_status status = enter(log, n, &runs);
    if (status)
        return status;
    status = sp_report_pages(gfns, n, runs, &used, bad);
    return leave(log, status, used);
}

/* Adds ranges too long for the list to the set; sorts them. */
static sp_status add_long(sp_log *log, sp_range *ranges, size_t n)
{
    sp_mem mem = {.allocator = log->allocator};
    sp_range *room = sp_mem_alloc(&mem, n * sizeof *room);
    if (!room)
        return SP_NOMEM;
    sp_edit edit = sp_harvest_edit(log->open);
    sp_sort_ranges(ranges, room, n);
    sp_mem_free(&mem, room, n * sizeof *room);
    return sp_set_add_sorted(&edit, &log->open->sparse, ranges, n);
}

sp_status sp_log_add_ranges(sp_log *log, const sp_range *ranges, size_t n, size_t *bad)
{
    uint64_t *runs;
    size_t used, nlong;
    sp_status status = n > SIZE_MAX / 2 ? SP_NOMEM : enter(log, 2 * n, &runs);
    if (status)
        return status;
    status = sp_report_ranges(ranges, n, runs, &used, &nlong, bad);
    if (!status && nlong)
        status = add_long(log, (sp_range *)(runs + 2 * (n - nlong)), nlong);
    return leave(log, status, used);
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

/* Adds a harvest's runs to those of the open one. */
static sp_status fold_loose(sp_log *log, const sp_loose *loose)
{
    sp_status status = reserve(log, loose->n);
    if (!status && loose->n) {
        sp_loose *to = &log->open->loose;
        memcpy(to->runs + to->n, loose->runs, loose->n * sizeof *loose->runs);
        to->n += loose->n;
    }
    return status;
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
    sp_status status = fold_loose(log, &harvest->loose);
    if (status || !sp_set_count(&harvest->sparse))
        return status;
    status = sp_set_combine(&edit, SP_OR, &log->open->sparse, &harvest->sparse, &sum);
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
    if (!status)
        status = sp_harvest_sort(log->open, empty);
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
