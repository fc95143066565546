/*
 * team.c - a merge as a whole: lists that grow, filled by one thread or by several.  Floor 4.
 *
 * Threads take parts in order.  What a part yields goes into lists of its own, small enough for the
 * second cache, and is copied once, to its place in the result.  Only the place depends on the
 * parts before: it is settled as soon as all of them have theirs, by whichever thread comes by.  So
 * nothing is counted beforehand, moved afterwards or guessed, no thread waits for a slow one before
 * there is no room for more parts, and the result is one thread's whatever the number of threads.
 *
 * Coalescing.  The last range so far is kept back: a part's first range may go on where it stops.
 * Each place in the result is therefore written once.
 *
 * One mutex guards all of it but the merging and the copying.  The result is made larger, and may
 * move, only while nobody copies into it.
 */
#include <pthread.h>
#include <signal.h>
#include <string.h>

#include "base/bits.h"
#include "dirty/part.h"

/* Parts that are at work or wait for their place, for each thread. */
#define JOBS 4

/* ---- lists ---- */

void sp_list_free(sp_mem *mem, sp_list *list)
{
    sp_mem_free(mem, list->ranges, list->room * sizeof *list->ranges);
    *list = (sp_list){0};
}

/* Ranges from which on a list is a mapping (mem.c) and grows without being copied; below it, few
 * large steps copy less. */
#define LARGE ((size_t)1 << 16)

/* Makes room for n more ranges. */
static sp_status reserve(sp_mem *mem, sp_list *list, size_t n)
{
    size_t room = list->room ? list->room : 128;
    if (list->room - list->n >= n)
        return SP_OK;
    do
        room *= room < LARGE ? 8 : 2;
    while (room - list->n < n);
    sp_range *ranges = sp_mem_resize(mem, list->ranges, list->room * sizeof *ranges,
                                     room * sizeof *ranges);
    if (!ranges)
        return SP_NOMEM;
    list->ranges = ranges;
    list->room = room;
    return SP_OK;
}

/* Appends all that a merge still yields. */
static sp_status gather(sp_merge *merge, sp_mem *mem, sp_list lists[2])
{
    sp_status status;
    do {
        status = reserve(mem, &lists[0], 1);
        if (!status)
            status = reserve(mem, &lists[1], 1);
    } while (!status && !sp_merge_next(merge, &lists[0], &lists[1]));
    return status;
}

/* ---- places ---- */

typedef enum state { FREE, BUSY, FOUND, PLACED } state;

typedef struct member member;

/* A part: merged (BUSY), waiting for its place (FOUND), for being copied there (PLACED; BUSY). */
typedef struct job {
    state state;
    const member *owner; /* whose cache the lists are likely to be in */
    size_t part;
    sp_list found[2];
    sp_range before[2]; /* what was kept back and now goes before the found; empty: nothing */
    sp_range place[2];  /* in the result: of that, and of all that was found but the last */
} job;

typedef struct team {
    sp_mem *mem;
    const sp_parts *parts;
    job *jobs;
    size_t njobs;
    pthread_mutex_t lock; /* guards what follows, and the state and place of jobs */
    pthread_cond_t news;  /* a job has another state, or the merge failed */
    sp_status status;
    size_t taken, placed, copied; /* parts */
    size_t copying;               /* threads that write to the result */
    sp_list result[2];            /* shared, private */
    sp_range last[2];             /* kept back; empty: none */
} team;

struct member {
    team *team;
    sp_merge *merge;
    pthread_t thread;
};

static bool is_empty(sp_range range) { return range.start == range.stop; }

/* Says where the ranges found go; there is room. */
static void place(team *t, unsigned side, job *j)
{
    sp_list *list = &t->result[side], *found = &j->found[side];
    sp_range *last = &t->last[side];
    j->place[side] = (sp_range){0};
    if (!found->n)
        return;
    j->before[side] = *last;
    if (!is_empty(*last) && last->stop == found->ranges[0].start) {
        found->ranges[0].start = last->start;
        j->before[side] = (sp_range){0};
    }
    *last = found->ranges[found->n - 1];
    j->place[side].start = list->n;
    list->n += found->n - is_empty(j->before[side]);
    j->place[side].stop = list->n;
    list->pages += found->pages;
}

/* The part that is to be placed next, if it is there. */
static job *find_next(team *t)
{
    for (size_t i = 0; i < t->njobs; i++)
        if (t->jobs[i].state == FOUND && t->jobs[i].part == t->placed)
            return &t->jobs[i];
    return NULL;
}

/* Places what can be placed. */
static void advance(team *t)
{
    for (job *j; (j = find_next(t));) {
        for (unsigned side = 0; side < 2; side++) {
            /* The range kept back, and its successor at the end. */
            size_t n = j->found[side].n + 2;
            if (t->copying && t->result[side].room - t->result[side].n < n)
                return; /* who is copying comes by again */
            t->status = reserve(t->mem, &t->result[side], n);
            if (t->status)
                return;
        }
        place(t, 0, j);
        place(t, 1, j);
        j->state = PLACED;
        t->placed++;
    }
}

/* ---- what to do next ---- */

/* A job that is to be copied, of this member or, for NULL, of any. */
static job *find_placed(team *t, const member *owner)
{
    for (size_t i = 0; i < t->njobs; i++) {
        job *j = &t->jobs[i];
        if (j->state == PLACED && (!owner || j->owner == owner))
            return j;
    }
    return NULL;
}

/* A job for the next part if there is one, if possible one whose lists this member has used. */
static job *find_free(team *t, const member *owner)
{
    job *found = NULL;
    for (size_t i = 0; i < t->njobs && t->taken < t->parts->n; i++) {
        job *j = &t->jobs[i];
        if (j->state == FREE && j->owner == owner)
            return j;
        if (j->state == FREE && !found)
            found = j;
    }
    return found;
}

/* ---- work: with the lock held, but for the work itself ---- */

static void search(member *m, job *j)
{
    team *t = m->team;
    sp_range part = t->parts->at[t->taken];
    j->part = t->taken++;
    j->owner = m;
    j->state = BUSY;
    pthread_mutex_unlock(&t->lock);
    for (unsigned side = 0; side < 2; side++)
        j->found[side].n = j->found[side].pages = 0;
    sp_merge_lead(m->merge, part.start, part.stop);
    sp_status status = gather(m->merge, t->mem, j->found);
    pthread_mutex_lock(&t->lock);
    j->state = FOUND;
    t->status = t->status ? t->status : status;
}

static void copy(team *t, job *j)
{
    sp_range *to[2];
    for (unsigned side = 0; side < 2; side++)
        to[side] = t->result[side].ranges + j->place[side].start;
    j->state = BUSY;
    t->copying++;
    pthread_mutex_unlock(&t->lock);
    for (unsigned side = 0; side < 2; side++) {
        if (!j->found[side].n)
            continue;
        if (!is_empty(j->before[side]))
            *to[side]++ = j->before[side];
        memcpy(to[side], j->found[side].ranges, (j->found[side].n - 1) * sizeof *to[side]);
    }
    pthread_mutex_lock(&t->lock);
    j->state = FREE;
    t->copying--;
    t->copied++;
}

static void *work(void *context)
{
    member *m = context;
    team *t = m->team;
    job *j;
    pthread_mutex_lock(&t->lock);
    while (!t->status && t->copied < t->parts->n) {
        if ((j = find_placed(t, m))) {
            copy(t, j);
        } else if ((j = find_free(t, m))) {
            search(m, j);
        } else if ((j = find_placed(t, NULL))) {
            copy(t, j);
        } else {
            pthread_cond_wait(&t->news, &t->lock);
            continue;
        }
        if (!t->status)
            advance(t);
        pthread_cond_broadcast(&t->news);
    }
    pthread_mutex_unlock(&t->lock);
    return NULL;
}

/* ---- members ---- */

/* Starts up to n threads, each with a merge of its own; returns how many there are.  A machine that
 * gives fewer gets its merge from fewer. */
static size_t start(team *t, const sp_merge *merge, member *members, size_t n)
{
    sigset_t all, mask;
    size_t i = 0;
    /* Signals are for the caller's threads. */
    sigfillset(&all);
    pthread_sigmask(SIG_SETMASK, &all, &mask);
    for (; i < n; i++) {
        members[i] = (member){.team = t};
        if (sp_merge_share(merge, &members[i].merge))
            break;
        if (pthread_create(&members[i].thread, NULL, work, &members[i])) {
            sp_merge_free(members[i].merge);
            break;
        }
    }
    pthread_sigmask(SIG_SETMASK, &mask, NULL);
    return i;
}

/* Fills the result by the caller and up to n members. */
static void run(team *t, sp_merge *merge, member *members, size_t n)
{
    member caller = {.team = t, .merge = merge};
    pthread_mutex_init(&t->lock, NULL);
    pthread_cond_init(&t->news, NULL);
    n = start(t, merge, members, n);
    work(&caller);
    for (size_t i = 0; i < n; i++) {
        pthread_join(members[i].thread, NULL);
        sp_merge_free(members[i].merge);
    }
    pthread_cond_destroy(&t->news);
    pthread_mutex_destroy(&t->lock);
    for (unsigned side = 0; side < 2; side++)
        if (!is_empty(t->last[side]))
            t->result[side].ranges[t->result[side].n++] = t->last[side];
}

/* Fills the lists from parts; what members need is freed whatever comes of it. */
static sp_status run_parts(sp_merge *merge, const sp_parts *parts, size_t n, sp_mem *mem,
                           sp_list lists[2])
{
    team t = {.mem = mem, .parts = parts, .njobs = JOBS * (n + 1)};
    member *members = sp_mem_alloc(mem, n * sizeof *members);
    t.jobs = sp_mem_zalloc(mem, t.njobs * sizeof *t.jobs);
    t.status = members && t.jobs ? SP_OK : SP_NOMEM;
    if (!t.status)
        run(&t, merge, members, n);
    for (size_t i = 0; t.jobs && i < t.njobs; i++) {
        sp_list_free(mem, &t.jobs[i].found[0]);
        sp_list_free(mem, &t.jobs[i].found[1]);
    }
    sp_mem_free(mem, t.jobs, t.njobs * sizeof *t.jobs);
    sp_mem_free(mem, members, n * sizeof *members);
    memcpy(lists, t.result, sizeof t.result);
    return t.status;
}

/* By up to `threads` threads, two or more. */
static sp_status gather_by(sp_merge *merge, size_t threads, sp_mem *mem, sp_list lists[2])
{
    sp_parts parts;
    sp_status status = sp_parts_init(&parts, merge, threads, mem);
    if (status)
        return status;
    if (parts.n == 1)
        status = gather(merge, mem, lists);
    else
        status = run_parts(merge, &parts, (size_t)sp_min(threads, parts.n) - 1, mem, lists);
    sp_parts_clear(&parts, mem);
    return status;
}

sp_status sp_merge_all(sp_merge *merge, size_t threads, sp_mem *mem, sp_list *shared,
                       sp_list *private)
{
    sp_list lists[2] = {{0}, {0}};
    sp_status status = SP_RANGE;
    if (threads == 1)
        status = gather(merge, mem, lists);
    else if (threads && threads <= SP_THREADS_MOST)
        status = gather_by(merge, threads, mem, lists);
    if (status) {
        sp_list_free(mem, &lists[0]);
        sp_list_free(mem, &lists[1]);
    }
    *shared = lists[0];
    *private = lists[1];
    return status;
}
