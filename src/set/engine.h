/*
 * engine.h - what an engine implements; included by the set room only.  Floor 3.
 *
 * Contracts are those of the functions of the same name in set.h.  Engines number their node kinds
 * from SP_KIND_LEAF_END so that no two kinds of the library share a number.
 */
#ifndef SP_SET_ENGINE_H
#define SP_SET_ENGINE_H

#include "leaf/leaf.h"
#include "set/set.h"

enum { SP_KIND_INNER = SP_KIND_LEAF_END, SP_KIND_NARROW, SP_KIND_WIDE, SP_KIND_BRANCH };

struct sp_engine {
    const char *name;
    uint64_t (*count)(const sp_set *set);
    bool (*contains)(const sp_set *set, uint64_t gfn);
    uint64_t (*rank)(const sp_set *set, uint64_t gfn);
    uint64_t (*count_range)(const sp_set *set, uint64_t start, uint64_t stop);
    uint64_t (*select)(const sp_set *set, uint64_t i);
    uint64_t (*toggles_count)(const sp_kernels *k, const sp_set *set);
    uint64_t (*intersection)(const sp_kernels *k, const sp_set *a, const sp_set *b);

    /* Appends toggles from cursor->at on to out[*used..room), moving the cursor; stops at
     * cursor->stop or when fewer than SP_TOGGLES_ROOM entries are left. */
    void (*toggles)(const sp_kernels *k, sp_cursor *cursor, uint64_t *out, size_t *used,
                    size_t room);

    /* NULL for an engine without bitmaps. */
    bool (*words)(const sp_set *set, uint64_t base, uint64_t *words);

    void (*measure)(const sp_set *set, sp_set_stats *stats);
    void (*walk)(const sp_set *set, uint64_t floor, sp_node_fn visit, void *context);
    const char *(*validate)(const sp_set *set);

    void (*drop)(sp_edit *edit, const sp_set *set);
    sp_status (*assign)(sp_edit *edit, sp_set *set, uint64_t start, uint64_t stop, bool value);
    bool (*turn)(sp_edit *edit, sp_set *set, uint64_t start, uint64_t stop, bool value,
                 sp_turned *turned);
    sp_status (*put_words)(sp_edit *edit, sp_set *set, uint64_t base, const uint64_t *words);
    sp_status (*add_sorted)(sp_edit *edit, sp_set *set, const sp_range *ranges, size_t n);
    /* *out = what is left to read of a cursor of another engine. */
    sp_status (*load)(sp_edit *edit, sp_cursor *from, sp_set *out);
    sp_status (*combine)(sp_edit *edit, sp_op op, const sp_set *a, const sp_set *b, sp_set *out);
};

#endif
