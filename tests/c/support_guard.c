/*
 * support_guard.c - guard pages by mmap and mprotect.
 */
#include "support_guard.h"

#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <unistd.h>

static size_t page_bytes(void) { return (size_t)sysconf(_SC_PAGESIZE); }

guarded guarded_open(size_t bytes)
{
    size_t page = page_bytes();
    guarded g = {NULL, (bytes + page - 1) / page * page};
    char *all = mmap(NULL, g.bytes + 2 * page, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (all == MAP_FAILED || mprotect(all + page, g.bytes, PROT_READ | PROT_WRITE)) {
        perror("guard pages");
        abort();
    }
    g.block = all + page;
    return g;
}

void guarded_close(guarded g)
{
    size_t page = page_bytes();
    munmap(g.block - page, g.bytes + 2 * page);
}

void *guarded_place(guarded g, size_t bytes, int at_end)
{
    return at_end ? g.block + (g.bytes - bytes) : g.block;
}
