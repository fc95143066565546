/*
 * support_engine.h - tests that are run once for each engine.
 */
#ifndef SP_TESTS_SUPPORT_ENGINE_H
#define SP_TESTS_SUPPORT_ENGINE_H

#include "set/set.h"
#include "support_check.h"

/* The engine under test: what sets and trackers of the tests are made with. */
extern const sp_engine *test_engine;

#define RUN_ENGINES(test) run_engines(#test, test)

/* check_run with each engine in turn; afterwards it is roaring's again. */
void run_engines(const char *name, void (*test)(void));

#endif
