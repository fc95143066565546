/* tier: unit
 *
 * test_ring.c - harvesting a dirty ring: the entries and the flags left behind, by hand.
 */
#include "support_check.h"

#include "dirty/ring.h"

enum { SIZE = 8 };

static void fill(sp_ring_entry *ring, uint32_t from, uint32_t n)
{
    for (uint32_t i = from; i < from + n; i++)
        ring[i % SIZE] = (sp_ring_entry){1, 0x10002, 1000 + i};
}

static void an_empty_ring_gives_nothing(void)
{
    sp_ring_entry ring[SIZE] = {0}, out[SIZE] = {0};
    uint32_t next = 0;
    CHECK_EQ(sp_ring_harvest(ring, SIZE, &next, out, SIZE), 0);
    CHECK_EQ(next, 0);
}

static void entries_come_in_order_and_are_marked(void)
{
    sp_ring_entry ring[SIZE] = {0}, out[SIZE] = {0};
    uint32_t next = 0;
    fill(ring, 0, 3);
    CHECK_EQ(sp_ring_harvest(ring, SIZE, &next, out, SIZE), 3);
    CHECK_EQ(next, 3);
    for (uint64_t i = 0; i < 3; i++) {
        CHECK_EQ(out[i].flags, 1);
        CHECK_EQ(out[i].slot, 0x10002);
        CHECK_EQ(out[i].offset, 1000 + i);
        CHECK_EQ(ring[i].flags, 2);
    }
    CHECK_EQ(ring[3].flags, 0);
}

static void what_finds_no_room_is_left(void)
{
    sp_ring_entry ring[SIZE] = {0}, out[SIZE] = {0};
    uint32_t next = 0;
    fill(ring, 0, SIZE);
    CHECK_EQ(sp_ring_harvest(ring, SIZE, &next, out, 0), 0);
    CHECK_EQ(sp_ring_harvest(ring, SIZE, &next, out, 5), 5);
    CHECK_EQ(ring[5].flags, 1);
    CHECK_EQ(sp_ring_harvest(ring, SIZE, &next, out, SIZE), 3);
    CHECK_EQ(out[0].offset, 1005);
}

/* A harvested entry that the kernel has not reset yet ends the walk, as an empty one does. */
static void a_full_turn_stops_at_its_own_start(void)
{
    sp_ring_entry ring[SIZE] = {0}, out[2 * SIZE] = {0};
    uint32_t next = 0;
    fill(ring, 0, SIZE);
    CHECK_EQ(sp_ring_harvest(ring, SIZE, &next, out, 2 * SIZE), SIZE);
    CHECK_EQ(sp_ring_harvest(ring, SIZE, &next, out, 2 * SIZE), 0);
    ring[0].flags = 3;
    CHECK_EQ(sp_ring_harvest(ring, SIZE, &next, out, 2 * SIZE), 0);
}

static void positions_wrap_with_the_counter(void)
{
    sp_ring_entry ring[SIZE] = {0}, out[SIZE] = {0};
    uint32_t next = UINT32_MAX - 1; /* position 6 */
    fill(ring, 6, 4);
    CHECK_EQ(sp_ring_harvest(ring, SIZE, &next, out, SIZE), 4);
    CHECK_EQ(next, 2);
    for (uint64_t i = 0; i < 4; i++)
        CHECK_EQ(out[i].offset, 1006 + i);
}

static void the_oldest_dirty_entry_is_found(void)
{
    sp_ring_entry ring[SIZE] = {0};
    uint32_t next = 99;
    CHECK_EQ(sp_ring_find(ring, SIZE, &next), false);
    CHECK_EQ(next, 99);
    fill(ring, 5, 1);
    CHECK_EQ(sp_ring_find(ring, SIZE, &next), true);
    CHECK_EQ(next, 5);
    fill(ring, 6, 3); /* to position 0 */
    ring[4].flags = 2;
    CHECK_EQ(sp_ring_find(ring, SIZE, &next), true);
    CHECK_EQ(next % SIZE, 5);
    ring[5].flags = 2;
    CHECK_EQ(sp_ring_find(ring, SIZE, &next), true);
    CHECK_EQ(next % SIZE, 6);
}

static void a_ring_that_is_all_dirty_begins_anywhere(void)
{
    sp_ring_entry ring[SIZE] = {0}, out[SIZE] = {0};
    uint32_t next = 0;
    fill(ring, 0, SIZE);
    CHECK_EQ(sp_ring_find(ring, SIZE, &next), true);
    CHECK_EQ(sp_ring_harvest(ring, SIZE, &next, out, SIZE), SIZE);
}

int main(void)
{
    RUN(an_empty_ring_gives_nothing);
    RUN(entries_come_in_order_and_are_marked);
    RUN(what_finds_no_room_is_left);
    RUN(a_full_turn_stops_at_its_own_start);
    RUN(positions_wrap_with_the_counter);
    RUN(the_oldest_dirty_entry_is_found);
    RUN(a_ring_that_is_all_dirty_begins_anywhere);
    return check_close();
}
