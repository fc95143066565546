/*
 * support_engine.c - the engine under test.
 */
#include "support_engine.h"

#include <stdio.h>

const sp_engine *test_engine = &sp_engine_roaring;

static void run_with(const sp_engine *engine, const char *name, void (*test)(void))
{
    char full[128];
    sp_set empty = sp_set_empty(engine);
    snprintf(full, sizeof full, "%s (%s)", name, engine ? sp_set_engine_name(&empty) : "auto");
    test_engine = engine;
    check_run(full, test);
    test_engine = &sp_engine_roaring;
}

void run_engines(const char *name, void (*test)(void))
{
    run_with(&sp_engine_interval, name, test);
    run_with(&sp_engine_roaring, name, test);
}

void run_trackers(const char *name, void (*test)(void))
{
    run_engines(name, test);
    run_with(NULL, name, test);
}
