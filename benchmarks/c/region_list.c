/*
 * region_list.c - changing the list of shared regions: a first-fit walk from the head.
 */
#include "region_list.h"

#include <malloc.h>
#include <stdlib.h>

#include "split.h"

static bool insert_before(rival_list *list, region *next, uint64_t start, uint64_t stop)
{
    region *r = malloc(sizeof *r);
    if (!r)
        return false;
    *r = (region){.next = next, .prev = next->prev, .start = start, .stop = stop};
    next->prev->next = r;
    next->prev = r;
    list->n++;
    return true;
}

/* Returns the next region. */
static region *unlink_region(rival_list *list, region *r)
{
    region *next = r->next;
    r->prev->next = next;
    next->prev = r->prev;
    free(r);
    list->n--;
    return next;
}

static void clear(rival_list *list)
{
    for (region *r = list->head.next; r != &list->head;)
        r = unlink_region(list, r);
}

rival_list *rival_list_new(void)
{
    rival_list *list = calloc(1, sizeof *list);
    if (list)
        list->head.next = list->head.prev = &list->head;
    return list;
}

void rival_list_free(rival_list *list)
{
    clear(list);
    free(list);
}

bool rival_list_load(rival_list *list, const rival_range *ranges, size_t n)
{
    clear(list);
    for (size_t i = 0; i < n; i++) {
        if (!insert_before(list, &list->head, ranges[i].start, ranges[i].stop))
            return false;
    }
    return true;
}

static bool add(rival_list *list, uint64_t start, uint64_t stop)
{
    region *r = list->head.next;
    while (r != &list->head && r->stop < start)
        r = r->next;
    if (r == &list->head || r->start > stop)
        return insert_before(list, r, start, stop);
    if (start < r->start)
        r->start = start;
    if (stop > r->stop)
        r->stop = stop;
    for (region *next = r->next; next != &list->head && next->start <= r->stop;) {
        if (next->stop > r->stop)
            r->stop = next->stop;
        next = unlink_region(list, next);
    }
    return true;
}

static bool subtract(rival_list *list, uint64_t start, uint64_t stop)
{
    region *r = list->head.next;
    while (r != &list->head && r->stop <= start)
        r = r->next;
    while (r != &list->head && r->start < stop) {
        if (r->start < start && r->stop > stop) {
            if (!insert_before(list, r->next, stop, r->stop))
                return false;
            r->stop = start;
            return true;
        }
        if (r->start >= start && r->stop <= stop) {
            r = unlink_region(list, r);
        } else if (r->start < start) {
            r->stop = start;
            r = r->next;
        } else {
            r->start = stop;
            return true;
        }
    }
    return true;
}

bool rival_list_convert(rival_list *list, uint64_t start, uint64_t stop, bool shared)
{
    if (start == stop)
        return true;
    return shared ? add(list, start, stop) : subtract(list, start, stop);
}

bool rival_list_apply(rival_list *list, const rival_event *events, size_t n)
{
    for (size_t i = 0; i < n; i++) {
        const rival_event *e = &events[i];
        if (!rival_list_convert(list, e->start, e->start + e->npages, e->shared))
            return false;
    }
    return true;
}

bool rival_list_export(const rival_list *list, rival_ranges *out)
{
    if (!has_room(out, 2 * list->n))
        return false;
    for (const region *r = list->head.next; r != &list->head; r = r->next) {
        out->gfns[out->n++] = r->start;
        out->gfns[out->n++] = r->stop;
    }
    return true;
}

size_t rival_list_bytes(const rival_list *list)
{
    size_t bytes = 0;
    for (region *r = list->head.next; r != &list->head; r = r->next)
        bytes += malloc_usable_size(r);
    return bytes;
}
