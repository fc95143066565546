/*
 * log.c - collecting dirty pages and handing them out.  Floor 4.
 *
 * The log's present content is itself a harvest, `open`, that nobody else sees: taking swaps it for
 * an empty one.  A harvest that is given back goes on a list as it is - so that cannot fail - and
 * is folded in when the log is next taken from.
 *
 * A slot may have several bitmaps at a time, one it owns and those it has lent; they are united
 * when the log is taken from.
 *
 * Other slots make another harvest: what the open one holds is moved to one of the new memory.  A
 * harvest that was taken keeps its own, and is translated when it is folded in.
 *
 * Arrays are read under the lock, straight into the open harvest's list: what an array adds lies
 * behind the list's end until the last element of it was found good.
 */
#include "dirty/log.h"

#include "base/bits.h"
#include "base/lock.h"
#include "base/sort.h"
#include "dirty/fold.h"
#include "dirty/report.h"
#include "dirty/spill.h"

struct sp_log {
    _Atomic uint64_t refs; /* the owner, and every harvest that may come back */
    sp_lock lock;
    const sp_allocator *allocator;
    sp_harvest *open; /* under the lock, as is all below; of the log's memory */
    sp_harvest *returned;
    sp_harvest *moved; /* what `open` is to be, while sp_log_set_memory holds the lock */
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

/* ---- bitmaps ---- */

/* Takes the lock, if the log has the slot; on an error the lock is not held. */
static sp_status enter_slot(sp_log *log, const sp_memslot *slot, size_t *index)
{
    sp_status status = sp_lock_wait(&log->lock);
    if (status)
        return status;
    status = sp_memory_find_same(log->open->memory, slot, index);
    if (status)
        unlock(log);
    return status;
}

sp_status sp_log_add_bitmap(sp_log *log, const sp_memslot *slot, const void *bitmap,
                            uint64_t first_page, uint64_t npages)
{
    size_t index;
    sp_bits *bits;
    if (first_page > slot->npages)
        return SP_RANGE;
    sp_status status = enter_slot(log, slot, &index);
    if (status)
        return status;
    status = sp_harvest_own_bits(log->open, index, &bits);
    if (!status)
        sp_bits_or(bitmap, 0, sp_min(npages, slot->npages - first_page), bits->words, first_page);
    unlock(log);
    return status;
}

sp_status sp_log_lend(sp_log *log, const sp_memslot *slot, sp_bits **loan)
{
    size_t index;
    sp_status status = enter_slot(log, slot, &index);
    if (status)
        return status;
    status = sp_harvest_push_bits(log->open, index, loan);
    if (!status)
        sp_add(&(*loan)->refs, 1, relaxed); /* relaxed: handed over under the lock */
    unlock(log);
    return status;
}

sp_status sp_log_settle(sp_log *log, const sp_memslot *slot, sp_bits *loan)
{
    sp_status status = sp_lock_wait(&log->lock);
    if (status)
        return status;
    /* Who unites bitmaps, or drops a slot's, lets go of those lent.  One that is still held will be
     * read later, and after this unlock. */
    if (!sp_bits_is_lent(loan))
        status = sp_harvest_fold_bits(log->open, slot->gfn, loan->words, slot->npages);
    unlock(log);
    return status;
}

/* ---- lists ---- */

/* Takes the lock, and makes room for `more` runs; on an error the lock is not held. */
static sp_status enter(sp_log *log, size_t more, uint64_t **room)
{
    sp_status status = sp_lock_wait(&log->lock);
    if (status)
        return status;
    status = sp_harvest_reserve(log->open, more);
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
    if (status && !open->loose.n)
        sp_loose_clear(&open->loose, &open->mem); /* what is refused takes no memory */
    else
        sp_harvest_trim(open);
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
    status = sp_report_ring(log->open->memory, entries, n, runs, &used, bad);
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

/* Adds what was given back to what is there; with the lock held. */
static sp_status fold_returned(sp_log *log)
{
    sp_status status = SP_OK;
    while (!status && log->returned) {
        sp_harvest *harvest = log->returned;
        status = sp_harvest_fold(log->open, harvest);
        if (!status) {
            log->returned = harvest->next;
            sp_harvest_release(harvest);
        }
    }
    return status;
}

/* Makes what is there a harvest that may be seen, and *empty the one that will be filled next. */
static sp_status settle(sp_log *log, sp_harvest **empty)
{
    sp_status status = fold_returned(log);
    if (status)
        return status;
    *empty = sp_harvest_new(log->allocator, log->open->memory);
    if (!*empty)
        return SP_NOMEM;
    status = sp_harvest_prepare_unite(log->open);
    if (!status)
        status = sp_harvest_sort(log->open, *empty);
    if (status)
        sp_harvest_release(*empty);
    else
        sp_harvest_commit_unite(log->open);
    return status;
}

/* Empties the log into *out; puts it back at once if `keep`, so that nobody sees an empty log. */
static sp_status take(sp_log *log, bool keep, sp_harvest **out)
{
    sp_harvest *empty;
    sp_status status = sp_lock_wait(&log->lock);
    if (status)
        return status;
    status = settle(log, &empty);
    if (!status) {
        *out = log->open;
        if (keep) {
            log->open->next = log->returned;
            log->returned = sp_harvest_retain(log->open);
        }
        log->open = empty;
    }
    unlock(log);
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

/* ---- other slots ---- */

/* Makes all pages dirty of slots that the one memory has and the other has not. */
static sp_status add_new_slots(sp_harvest *open, const sp_memory *old)
{
    sp_edit edit = sp_harvest_edit(open);
    sp_status status = SP_OK;
    for (size_t i = 0, at; !status && i < sp_memory_count(open->memory); i++) {
        const sp_memslot *slot = sp_memory_at(open->memory, i);
        if (sp_memory_find_same(old, slot, &at) != SP_OK)
            status = sp_set_assign(&edit, &open->sparse, slot->gfn, slot->gfn + slot->npages, true);
    }
    return status;
}

/* Makes the harvest that the log is to fill next; with the lock held. */
static sp_status prepare_memory(sp_log *log, sp_memory *memory, bool add_new)
{
    sp_status status = fold_returned(log);
    if (status)
        return status;
    log->moved = sp_harvest_new(log->allocator, memory);
    if (!log->moved)
        return SP_NOMEM;
    if (add_new)
        status = add_new_slots(log->moved, log->open->memory);
    return status ? status : sp_harvest_prepare_move(log->moved, log->open);
}

/* Fills that harvest, or forgets it, and unlocks. */
static void finish_memory(sp_log *log, bool commit)
{
    sp_harvest *unused = log->moved;
    if (commit) {
        sp_harvest_commit_move(log->moved, log->open);
        unused = log->open;
        log->open = log->moved;
    }
    log->moved = NULL;
    sp_harvest_release(unused); /* lets go of loans: while the lock is held, see sp_log_settle */
    unlock(log);
}

sp_status sp_log_set_memory(sp_log *const *logs, size_t n, sp_memory *memory)
{
    sp_status status = SP_OK;
    size_t held = 0;
    while (!status && held < n) {
        status = sp_lock_wait(&logs[held]->lock);
        held += !status;
    }
    for (size_t i = 0; !status && i < n; i++)
        status = prepare_memory(logs[i], memory, i == 0);
    while (held--)
        finish_memory(logs[held], !status);
    return status;
}
