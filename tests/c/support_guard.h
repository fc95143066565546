/*
 * support_guard.h - memory between two pages that nobody may touch.
 *
 * What is placed at either end of the block faults at the first byte read or written outside it,
 * also by vector code that sanitizers do not see through.
 */
#ifndef SP_TESTS_SUPPORT_GUARD_H
#define SP_TESTS_SUPPORT_GUARD_H

#include <stddef.h>

typedef struct guarded {
    char *block; /* page aligned, between the guards */
    size_t bytes;
} guarded;

/* At least `bytes`, a whole number of pages; ends the process if there are none. */
guarded guarded_open(size_t bytes);
void guarded_close(guarded g);

/* Where `bytes` bytes begin that end at the upper guard, or that begin at the lower one. */
void *guarded_place(guarded g, size_t bytes, int at_end);

#endif
