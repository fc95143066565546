/*
 * support_engine.c - the engine under test.
 */
#include "support_engine.h"

#include <stdio.h>

const sp_engine *test_engine = &sp_engine_roaring;

void run_engines(const char *name, void (*test)(void))
{
    static const sp_engine *const engines[] = {&sp_engine_interval, &sp_engine_roaring};
    for (unsigned i = 0; i < 2; i++) {
        char full[128];
        sp_set empty = sp_set_empty(engines[i]);
        snprintf(full, sizeof full, "%s (%s)", name, sp_set_engine_name(&empty));
        test_engine = engines[i];
        check_run(full, test);
    }
}
