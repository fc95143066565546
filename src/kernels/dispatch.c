/*
 * dispatch.c - which kernel table serves.  Floor 1.
 *
 * The only mutable object of static storage in the library is the pointer below; it always points
 * to a const table, and any value it ever held stays valid.
 */
#include <string.h>

#include "base/atomics.h"
#include "kernels/kernels.h"

static const sp_kernels *const tables[] = {&sp_kernels_scalar};

static _Atomic(const sp_kernels *) active;

const sp_kernels *sp_kernels_at(size_t i)
{
    return i < sizeof tables / sizeof *tables ? tables[i] : NULL;
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
        size_t last = sizeof tables / sizeof *tables - 1;
        table = sp_kernels_at(last);
        /* Two threads may both come here; they store the same pointer. */
        sp_kernels_use(table);
    }
    return table;
}
