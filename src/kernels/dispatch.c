/*
 * dispatch.c - which kernel table serves.  Floor 1.
 *
 * The only mutable object of static storage in the library is the pointer below; it always points
 * to a const table, and any value it ever held stays valid.
 */
#include <string.h>

#include "base/atomics.h"
#include "kernels/kernels.h"

typedef struct entry {
    const sp_kernels *table;
    bool (*runs_here)(void);
} entry;

static bool always(void) { return true; }

#ifdef SP_HAVE_AVX2
/* Every feature that avx2.c is compiled with, in src/CMakeLists.txt. */
static bool has_avx2(void)
{
    __builtin_cpu_init();
    return __builtin_cpu_supports("avx2") && __builtin_cpu_supports("bmi") &&
           __builtin_cpu_supports("bmi2") && __builtin_cpu_supports("lzcnt") &&
           __builtin_cpu_supports("popcnt");
}
#endif

#ifdef SP_HAVE_AVX512
static bool has_avx512(void)
{
    return has_avx2() && __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
           __builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("avx512vl") &&
           __builtin_cpu_supports("avx512vbmi2") && __builtin_cpu_supports("avx512vpopcntdq");
}
#endif

/* Slowest first. */
static const entry entries[] = {
    {&sp_kernels_scalar, always},
#ifdef SP_HAVE_AVX2
    {&sp_kernels_avx2, has_avx2},
#endif
#ifdef SP_HAVE_AVX512
    {&sp_kernels_avx512, has_avx512},
#endif
#ifdef SP_HAVE_NEON
    {&sp_kernels_neon, always},
#endif
};

static _Atomic(const sp_kernels *) active;

const sp_kernels *sp_kernels_at(size_t i)
{
    for (size_t e = 0; e < sizeof entries / sizeof *entries; e++)
        if (entries[e].runs_here() && i-- == 0)
            return entries[e].table;
    return NULL;
}

const sp_kernels *sp_kernels_find(const char *name)
{
    for (size_t i = 0; sp_kernels_at(i); i++)
        if (strcmp(sp_kernels_at(i)->name, name) == 0)
            return sp_kernels_at(i);
    return NULL;
}

void sp_kernels_use(const sp_kernels *table)
{
    /* release: pairs with sp_kernels_active; tables are const, so nothing else is published */
    sp_store(&active, table, release);
}

const sp_kernels *sp_kernels_active(void)
{
    /* acquire: pairs with sp_kernels_use */
    const sp_kernels *table = sp_load(&active, acquire);
    if (!table) {
        for (size_t i = 0; sp_kernels_at(i); i++)
            table = sp_kernels_at(i);
        /* Two threads may both come here; they store the same pointer. */
        sp_kernels_use(table);
    }
    return table;
}
