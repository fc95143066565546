/*
 * spill.c - long lists of loose pages, moved into bitmaps.  Floor 4.
 */
#include "dirty/spill.h"

#include <string.h>

#include "base/bits.h"

/* Runs that the list holds before they are moved: in half the memory of a dense bitmap of the
 * guest, which is where they go, or of a few full rings, however small the guest. */
#define LEAST_RUNS (UINT64_C(1) << 18)

static uint64_t most_runs(const sp_harvest *open)
{
    uint64_t half = sp_set_count(sp_memory_pages(open->memory)) / 128;
    return sp_min(sp_max(half, LEAST_RUNS), UINT32_MAX / 2);
}

/* Whether slot `index` holds all of a run. */
static bool holds(const sp_memory *memory, size_t index, uint64_t run)
{
    if (index >= sp_memory_count(memory))
        return false;
    const sp_memslot *slot = sp_memory_at(memory, index);
    return slot->gfn <= sp_loose_start(run) && sp_loose_stop(run) <= slot->gfn + slot->npages;
}

/* Moves the list's pages to the bitmaps of their slots; what no slot holds stays. */
static sp_status move_to_bitmaps(sp_harvest *open)
{
    const sp_memory *memory = open->memory;
    sp_loose *loose = &open->loose;
    sp_status status = SP_OK;
    sp_bits *bits = NULL;
    size_t kept = 0, i = 0, index = SIZE_MAX;
    for (; i < loose->n; i++) {
        uint64_t run = loose->runs[i], start = sp_loose_start(run);
        if (!holds(memory, index, run)) {
            index = sp_memory_find_gfn(memory, start);
            if (!holds(memory, index, run)) {
                loose->runs[kept++] = run;
                index = SIZE_MAX; /* `bits` are of another slot */
                continue;
            }
            status = sp_harvest_own_bits(open, index, &bits);
            if (status)
                break;
        }
        uint64_t first = start - sp_memory_at(memory, index)->gfn;
        sp_words_fill(bits->words, first, first + (sp_loose_stop(run) - start) - 1, true);
    }
    memmove(loose->runs + kept, loose->runs + i, (loose->n - i) * sizeof *loose->runs);
    loose->n -= i - kept;
    return status;
}

/* Makes a long list shorter.  SP_NOMEM: the same pages. */
static sp_status shorten(sp_harvest *open, uint64_t most)
{
    sp_status status = move_to_bitmaps(open);
    if (status || open->loose.n <= most / 2)
        return status;
    sp_edit edit = sp_harvest_edit(open);
    status = sp_loose_add_to(&open->loose, &edit, &open->sparse);
    if (!status)
        sp_loose_clear(&open->loose, &open->mem);
    return status;
}

sp_status sp_harvest_reserve(sp_harvest *open, size_t more)
{
    uint64_t most = most_runs(open);
    sp_status status = open->loose.n > most ? shorten(open, most) : SP_OK;
    return status ? status : sp_loose_reserve(&open->loose, &open->mem, more);
}

/* Room that a list keeps, in lists that are just not too long: what doubling may make of one, and a
 * report as long as that. */
#define ROOM_LISTS 4

void sp_harvest_trim(sp_harvest *open)
{
    if (open->loose.room <= ROOM_LISTS * LEAST_RUNS) /* the usual case, and asked at every report */
        return;
    uint64_t most = most_runs(open);
    if (open->loose.room <= ROOM_LISTS * most)
        return;
    if (open->loose.n <= most || shorten(open, most) == SP_OK)
        sp_loose_trim(&open->loose, &open->mem);
}
