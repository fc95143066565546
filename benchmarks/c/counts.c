/*
 * counts.c - one job of the core, made to be counted: `counts JOB KERNELS` runs it once on a fixed
 * guest of 1 TiB and prints what it asked of the allocator.
 *
 * Whoever counts instructions collects them inside `counted` alone, or what the compiler makes of
 * it: callgrind's --toggle-collect='counted*'.
 * Nothing here depends on the time, on addresses or on the machine: the same compiler and kernels
 * give the same counts.  Exit status 2: no such job, or no such kernels here.
 */
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "dirty/merge.h"
#include "tracker/tracker.h"

enum { CONVERSIONS = 20000, DIRTY = 26844 };

#define NPAGES (UINT64_C(1) << 28)

typedef struct tally {
    uint64_t allocations, frees, bytes;
} tally;

typedef struct guest {
    sp_tracker *tracker;
    sp_log *log;
    sp_event events[CONVERSIONS];
    uint64_t calls; /* what a job did, in its own unit */
} guest;

typedef struct job {
    const char *name;
    bool converted; /* begins with all conversions made */
    void (*run)(guest *g);
} job;

static void *count_alloc(void *context, size_t bytes, int zeroed)
{
    tally *t = context;
    t->allocations++;
    t->bytes += bytes;
    return sp_system_allocator.alloc(NULL, bytes, zeroed);
}

static void count_free(void *context, void *block, size_t bytes)
{
    tally *t = context;
    t->frees++;
    sp_system_allocator.free(NULL, block, bytes);
}

static void *count_resize(void *context, void *block, size_t bytes, size_t wanted)
{
    tally *t = context;
    t->allocations++;
    t->bytes += wanted > bytes ? wanted - bytes : 0;
    return sp_system_allocator.resize(NULL, block, bytes, wanted);
}

static tally asked;
static const sp_allocator allocator = {count_alloc, count_free, &asked, count_resize};

static void need(sp_status status)
{
    if (status == SP_OK)
        return;
    fprintf(stderr, "counts: status %d\n", (int)status);
    exit(1);
}

/* The generator of Knuth's MMIX; its high bits. */
static uint64_t draw(uint64_t *state, uint64_t below)
{
    *state = *state * UINT64_C(6364136223846793005) + UINT64_C(1442695040888963407);
    return (*state >> 32) * below >> 32;
}

/* ---- the jobs ---- */

static void share(guest *g)
{
    uint64_t changed;
    for (g->calls = 0; g->calls < CONVERSIONS; g->calls++) {
        const sp_event *event = &g->events[g->calls];
        need(sp_tracker_convert(g->tracker, event->start, event->npages, true, true, &changed));
    }
}

static void apply(guest *g)
{
    uint64_t changed;
    size_t bad;
    need(sp_tracker_apply(g->tracker, g->events, CONVERSIONS, &changed, &bad));
    g->calls = CONVERSIONS;
}

static void snapshot(guest *g)
{
    for (g->calls = 0; g->calls < CONVERSIONS; g->calls++) {
        sp_snapshot taken;
        need(sp_tracker_snapshot(g->tracker, true, &taken));
        sp_snapshot_release(&taken);
    }
}

/* A conversion of one page, and a snapshot of it while the last one is held. */
static void write_and_snapshot(guest *g)
{
    sp_snapshot held, taken;
    uint64_t changed;
    need(sp_tracker_snapshot(g->tracker, true, &held));
    for (g->calls = 0; g->calls < CONVERSIONS; g->calls++) {
        uint64_t gfn = g->events[g->calls].start;
        need(sp_tracker_convert(g->tracker, gfn, 1, g->calls & 1, true, &changed));
        need(sp_tracker_snapshot(g->tracker, true, &taken));
        sp_snapshot_release(&held);
        held = taken;
    }
    sp_snapshot_release(&held);
}

static void merge(guest *g)
{
    sp_harvest *harvest;
    sp_snapshot taken;
    sp_merge *merging;
    sp_list shared = {0}, private = {0};
    sp_mem mem;
    sp_mem_init(&mem, &allocator);
    need(sp_log_take(g->log, &harvest));
    need(sp_tracker_snapshot(g->tracker, true, &taken));
    sp_set set = sp_snapshot_set(&taken), none = sp_set_empty(&sp_engine_roaring);
    need(sp_merge_new(&allocator, harvest, &none, &set, &merging));
    need(sp_merge_all(merging, 1, &mem, &shared, &private));
    g->calls = 1;
    sp_merge_free(merging);
    sp_list_free(&mem, &shared);
    sp_list_free(&mem, &private);
    sp_snapshot_release(&taken);
    sp_harvest_release(harvest);
}

static const job jobs[] = {
    {"share", false, share},      {"apply", false, apply},
    {"snapshot", true, snapshot}, {"write_and_snapshot", true, write_and_snapshot},
    {"merge", true, merge},
};

/* ---- the guest ---- */

static void make_dirty(guest *g)
{
    const sp_memslot slot = {0, NPAGES, 0};
    sp_memory *memory;
    sp_bits *loan;
    size_t bad, other;
    uint64_t state = 2;
    need(sp_memory_new(&allocator, &sp_engine_roaring, &slot, 1, &memory, &bad, &other));
    need(sp_log_new(&allocator, memory, &g->log));
    sp_memory_release(memory);
    need(sp_log_lend(g->log, &slot, &loan));
    uint64_t *words = sp_loan_words(loan);
    for (unsigned i = 0; i < DIRTY; i++) {
        uint64_t gfn = draw(&state, NPAGES);
        words[gfn / 64] |= UINT64_C(1) << (gfn % 64);
    }
    sp_loan_end(loan);
}

static void make_guest(guest *g, bool converted)
{
    uint64_t state = 1, changed;
    size_t bad;
    for (unsigned i = 0; i < CONVERSIONS; i++) {
        uint64_t npages = 1 + draw(&state, 16);
        g->events[i] = (sp_event){draw(&state, NPAGES - 16), npages, 1};
    }
    need(sp_tracker_new(&allocator, &sp_engine_roaring, NPAGES, false, &g->tracker));
    if (converted)
        need(sp_tracker_apply(g->tracker, g->events, CONVERSIONS, &changed, &bad));
    make_dirty(g);
}

__attribute__((noinline)) static void counted(const job *it, guest *g) { it->run(g); }

static const job *job_named(const char *name)
{
    for (size_t i = 0; i < sizeof jobs / sizeof *jobs; i++)
        if (strcmp(jobs[i].name, name) == 0)
            return &jobs[i];
    return NULL;
}

int main(int argc, char **argv)
{
    static guest g;
    const job *it = argc == 3 ? job_named(argv[1]) : NULL;
    const sp_kernels *kernels = argc == 3 ? sp_kernels_find(argv[2]) : NULL;
    if (!it || !kernels)
        return 2;
    sp_kernels_use(kernels);
    make_guest(&g, it->converted);
    asked = (tally){0};
    counted(it, &g);
    printf("calls %" PRIu64 " allocations %" PRIu64 " frees %" PRIu64 " bytes %" PRIu64 "\n",
           g.calls, asked.allocations, asked.frees, asked.bytes);
    sp_log_free(g.log);
    sp_tracker_free(g.tracker);
    return 0;
}
