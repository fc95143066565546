/*
 * support_engine.h - tests that are run once for each engine.
 */
#ifndef SP_TESTS_SUPPORT_ENGINE_H
#define SP_TESTS_SUPPORT_ENGINE_H

#include "set/set.h"
#include "support_check.h"

/* The engine under test: what sets and trackers of the tests are made with; for trackers alone it
 * may be NULL, that is automatic. */
extern const sp_engine *test_engine;

#define RUN_ENGINES(test) run_engines(#test, test)
#define RUN_TRACKERS(test) run_trackers(#test, test)

/* check_run with each engine in turn, and for trackers without one; afterwards it is roaring's. */
void run_engines(const char *name, void (*test)(void));
void run_trackers(const char *name, void (*test)(void));

#endif
