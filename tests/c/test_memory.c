/* tier: unit
 *
 * test_memory.c - a guest's memory slots: their order, ids, and which are refused.
 */
#include "dirty/memory.h"
#include "support_alloc.h"
#include "support_check.h"

#define SMM (1u << 16) /* address space 1 */

static sp_status make(test_alloc *alloc, const sp_memslot *slots, size_t n, sp_memory **memory)
{
    size_t bad, other;
    alloc_init(alloc);
    return sp_memory_new(&alloc->hook, &sp_engine_roaring, slots, n, memory, &bad, &other);
}

static void slots_are_in_order_of_gfn_then_id(void)
{
    static const sp_memslot slots[] = {{4096, 10, 7},       {0, 160, SMM | 3}, {4106, 1, 2},
                                       {0, 160, 9},         {100, 1, SMM | 9}, {256, 100, 0},
                                       {4000, 200, SMM | 0}};
    static const uint32_t ids[] = {9, SMM | 3, 0, SMM | 0, 7, 2};
    static const uint32_t strangers[] = {1, 8, 10, SMM | 1, SMM | 10, 2 * SMM, UINT32_MAX};
    test_alloc alloc;
    sp_memory *memory;
    size_t at;
    CHECK_EQ(make(&alloc, slots, 7, &memory), SP_INVALID); /* slots 1 and 4 overlap */
    CHECK_EQ(alloc_blocks(&alloc), 0);
    sp_memslot good[6] = {slots[0], slots[1], slots[2], slots[3], slots[5], slots[6]};
    REQUIRE_EQ(make(&alloc, good, 6, &memory), SP_OK);
    REQUIRE_EQ(sp_memory_count(memory), 6);
    for (size_t i = 0; i < 6; i++) {
        CHECK_EQ(sp_memory_at(memory, i)->id, ids[i]);
        CHECK_EQ(sp_memory_find(memory, ids[i], &at), SP_OK);
        CHECK_EQ(at, i);
    }
    for (size_t i = 0; i < sizeof strangers / sizeof *strangers; i++)
        CHECK_EQ(sp_memory_find(memory, strangers[i], &at), SP_UNKNOWN);
    static const uint64_t gfns[][2] = {{0, 1},    {255, 1},  {256, 2},  {3999, 2},
                                       {4000, 3}, {4096, 4}, {4106, 5}, {SP_GFN_LIMIT, 5}};
    for (size_t i = 0; i < sizeof gfns / sizeof *gfns; i++)
        CHECK_EQ(sp_memory_find_gfn(memory, gfns[i][0]), gfns[i][1]);
    /* [0, 160) twice, [256, 356), [4000, 4200), and in that [4096, 4106) and 4106 */
    static const uint64_t ends[][2] = {{0, 0},    {159, 0},  {160, 2},  {255, 2},
                                       {355, 2},  {356, 3},  {4099, 3}, {4105, 3},
                                       {4106, 3}, {4199, 3}, {4200, 6}, {SP_GFN_LIMIT, 6}};
    for (size_t i = 0; i < sizeof ends / sizeof *ends; i++)
        CHECK_EQ(sp_memory_find_end(memory, ends[i][0]), ends[i][1]);
    CHECK_EQ(sp_memory_find_same(memory, &slots[5], &at), SP_OK);
    CHECK_EQ(at, 2);
    CHECK_EQ(sp_memory_find_same(memory, &(sp_memslot){257, 100, 0}, &at), SP_UNKNOWN);
    CHECK_EQ(sp_memory_find_same(memory, &(sp_memslot){256, 99, 0}, &at), SP_UNKNOWN);
    CHECK_EQ(sp_memory_find_same(memory, &(sp_memslot){256, 100, 1}, &at), SP_UNKNOWN);
    CHECK_EQ(sp_memory_at(memory, 3)->gfn, 4000);
    CHECK_EQ(sp_memory_at(memory, 3)->npages, 200);
    CHECK_EQ(sp_set_count(sp_memory_pages(memory)), 160 + 100 + 200);
    CHECK(sp_set_contains(sp_memory_pages(memory), 4199));
    CHECK(!sp_set_contains(sp_memory_pages(memory), 4200));
    sp_memory_release(memory);
    CHECK_EQ(alloc_blocks(&alloc), 0);
}

static void nothing_begins_before_the_first_slot(void)
{
    test_alloc alloc;
    sp_memory *memory;
    REQUIRE_EQ(make(&alloc, &(sp_memslot){100, 5, 0}, 1, &memory), SP_OK);
    CHECK_EQ(sp_memory_find_gfn(memory, 99), SIZE_MAX);
    CHECK_EQ(sp_memory_find_gfn(memory, 100), 0);
    sp_memory_release(memory);
    REQUIRE_EQ(make(&alloc, NULL, 0, &memory), SP_OK);
    CHECK_EQ(sp_memory_find_gfn(memory, 100), SIZE_MAX);
    sp_memory_release(memory);
}

static void no_slot_is_a_memory_too(void)
{
    test_alloc alloc;
    sp_memory *memory;
    size_t at;
    REQUIRE_EQ(make(&alloc, NULL, 0, &memory), SP_OK);
    CHECK_EQ(sp_memory_count(memory), 0);
    CHECK_EQ(sp_memory_find(memory, 0, &at), SP_UNKNOWN);
    CHECK_EQ(sp_set_count(sp_memory_pages(memory)), 0);
    sp_memory_release(memory);
    sp_memory_release(NULL);
    CHECK_EQ(alloc_blocks(&alloc), 0);
}

typedef struct refusal {
    sp_memslot slots[3];
    sp_status status;
    size_t bad, other;
} refusal;

static const sp_memslot far_away = {UINT64_C(1) << 40, 5, 77};

static void refused_slots_are_named(void)
{
    const refusal refusals[] = {
        {{far_away, {5, 0, 0}, {6, 0, 1}}, SP_RANGE, 1, 1},
        {{far_away, {5, 1, 0}, {6, SP_SLOT_MAX_PAGES + 1, 1}}, SP_RANGE, 2, 2},
        {{{5, UINT64_MAX, 0}, far_away, {6, 1, 1}}, SP_RANGE, 0, 0},
        {{far_away, {SP_GFN_LIMIT, 1, 0}, {6, 1, 1}}, SP_RANGE, 1, 1},
        {{far_away, {6, 1, 1}, {UINT64_MAX, 1, 0}}, SP_RANGE, 2, 2},
        {{far_away, {SP_GFN_LIMIT - 4, 5, 0}, {6, 1, 1}}, SP_RANGE, 1, 1},
        /* an id twice, wherever */
        {{{900, 5, 3}, far_away, {100, 5, 3}}, SP_INVALID, 2, 0},
        {{far_away, {100, 5, 3}, {900, 5, 3}}, SP_INVALID, 2, 1},
        {{{100, 5, SMM | 3}, {100, 5, SMM | 3}, far_away}, SP_INVALID, 1, 0},
        /* one page, the same pages, within, around; both in address space 1 */
        {{{100, 5, 3}, far_away, {104, 5, 2}}, SP_INVALID, 2, 0},
        {{{104, 5, 3}, {100, 5, 2}, far_away}, SP_INVALID, 1, 0},
        {{far_away, {100, 5, 3}, {100, 5, 2}}, SP_INVALID, 2, 1},
        {{{100, 50, 3}, far_away, {120, 1, 2}}, SP_INVALID, 2, 0},
        {{{120, 1, 3}, {100, 50, 2}, far_away}, SP_INVALID, 1, 0},
        {{{100, 50, SMM | 3}, {90, 50, 3}, {149, 50, SMM | 2}}, SP_INVALID, 2, 0},
        /* a size out of bounds counts before an overlap */
        {{{100, 50, 3}, {100, 50, 2}, {7, 0, 1}}, SP_RANGE, 2, 2},
    };
    for (size_t i = 0; i < sizeof refusals / sizeof *refusals; i++) {
        test_alloc alloc;
        sp_memory *memory = NULL;
        size_t bad = 99, other = 99;
        check_case("refusal %zu", i);
        alloc_init(&alloc);
        CHECK_EQ(sp_memory_new(&alloc.hook, &sp_engine_roaring, refusals[i].slots, 3, &memory, &bad,
                               &other),
                 refusals[i].status);
        CHECK_EQ(bad, refusals[i].bad);
        CHECK_EQ(other, refusals[i].other);
        CHECK(!memory);
        CHECK_EQ(alloc_blocks(&alloc), 0);
    }
}

static void slots_at_the_bounds_are_good(void)
{
    static const sp_memslot slots[] = {
        {0, SP_SLOT_MAX_PAGES, 0},          /* the largest */
        {SP_SLOT_MAX_PAGES, 1, UINT16_MAX}, /* begins where another ends */
        {SP_GFN_LIMIT - 1, 1, 1},           /* the last page */
        {SP_GFN_LIMIT - SP_SLOT_MAX_PAGES, SP_SLOT_MAX_PAGES, UINT32_MAX}, /* the last pages */
        {0, SP_SLOT_MAX_PAGES, SMM}, /* the first ones again, to SMM */
    };
    test_alloc alloc;
    sp_memory *memory;
    size_t at;
    REQUIRE_EQ(make(&alloc, slots, 5, &memory), SP_OK);
    CHECK_EQ(sp_set_count(sp_memory_pages(memory)), 2 * SP_SLOT_MAX_PAGES + 1);
    CHECK_EQ(sp_set_nranges(sp_kernels_active(), sp_memory_pages(memory)), 2);
    CHECK_EQ(sp_memory_find(memory, UINT32_MAX, &at), SP_OK);
    CHECK_EQ(at, 3);
    CHECK_EQ(sp_memory_find(memory, SMM, &at), SP_OK);
    CHECK_EQ(at, 1);
    sp_memory_release(memory);
    CHECK_EQ(alloc_blocks(&alloc), 0);
}

/* Ids that fall as gfns rise, and ids in no order. */
static void many_slots_are_found_by_id(void)
{
    enum { SLOTS = 600 };
    static sp_memslot slots[SLOTS];
    test_alloc alloc;
    sp_memory *memory;
    size_t at;
    for (uint32_t factor = 1; factor < 600; factor += 222) {
        for (uint32_t i = 0; i < SLOTS; i++)
            slots[i] = (sp_memslot){100 * i, 100, 10 * ((SLOTS - 1 - i) * factor % 601)};
        REQUIRE_EQ(make(&alloc, slots, SLOTS, &memory), SP_OK);
        for (uint32_t i = 0; i < SLOTS; i++) {
            CHECK_EQ(sp_memory_find(memory, slots[i].id, &at), SP_OK);
            CHECK_EQ(at, i);
            CHECK_EQ(sp_memory_find(memory, slots[i].id + 5, &at), SP_UNKNOWN);
        }
        sp_memory_release(memory);
        CHECK_EQ(alloc_blocks(&alloc), 0);
    }
}

static void references_keep_a_memory(void)
{
    static const sp_memslot slot = {3, 4, 5};
    test_alloc alloc;
    sp_memory *memory;
    REQUIRE_EQ(make(&alloc, &slot, 1, &memory), SP_OK);
    CHECK(sp_memory_retain(memory) == memory);
    sp_memory_release(memory);
    CHECK_EQ(sp_memory_at(memory, 0)->gfn, 3);
    sp_memory_release(memory);
    CHECK_EQ(alloc_blocks(&alloc), 0);
}

int main(void)
{
    RUN(slots_are_in_order_of_gfn_then_id);
    RUN(nothing_begins_before_the_first_slot);
    RUN(no_slot_is_a_memory_too);
    RUN(refused_slots_are_named);
    RUN(slots_at_the_bounds_are_good);
    RUN(many_slots_are_found_by_id);
    RUN(references_keep_a_memory);
    return check_close();
}
