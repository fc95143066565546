/* tier: unit */
/*
 * The rooms base/ and node/: word primitives, counted allocation, the lock word, deadlists, and who
 * owns a node.
 */
#include <pthread.h>
#include <sched.h>
#include <string.h>

#include "base/bits.h"
#include "base/lock.h"
#include "node/node.h"
#include "support_alloc.h"
#include "support_check.h"

static void words_are_counted_and_masked(void)
{
    CHECK_EQ(sp_popcount(0), 0);
    CHECK_EQ(sp_popcount(~UINT64_C(0)), 64);
    CHECK_EQ(sp_popcount(UINT64_C(0x8000000000000001)), 2);
    CHECK_EQ(sp_popcount(UINT64_C(0x0123456789abcdef)), 32);
    CHECK_EQ(sp_lowest(1), 0);
    CHECK_EQ(sp_lowest(UINT64_C(1) << 63), 63);
    CHECK_EQ(sp_lowest(0x30), 4);
    CHECK_EQ(sp_mask(0, 63), ~UINT64_C(0));
    CHECK_EQ(sp_mask(0, 0), 1);
    CHECK_EQ(sp_mask(63, 63), UINT64_C(1) << 63);
    CHECK_EQ(sp_mask(4, 7), 0xf0);
    CHECK_EQ(sp_min(3, 4), 3);
    CHECK_EQ(sp_max(3, ~UINT64_C(0)), ~UINT64_C(0));
}

static void fill_touches_its_bits_only(void)
{
    uint64_t words[3] = {0};
    sp_words_fill(words, 60, 130, true);
    CHECK_EQ(words[0], UINT64_C(0xf) << 60);
    CHECK_EQ(words[1], ~UINT64_C(0));
    CHECK_EQ(words[2], 7);
    sp_words_fill(words, 64, 127, false);
    CHECK_EQ(words[1], 0);
    CHECK_EQ(words[0], UINT64_C(0xf) << 60);
    CHECK_EQ(words[2], 7);
    sp_words_fill(words, 63, 63, false);
    CHECK_EQ(words[0], UINT64_C(7) << 60);
}

static void memory_is_counted(void)
{
    test_alloc alloc;
    sp_mem mem;
    alloc_init(&alloc);
    sp_mem_init(&mem, &alloc.hook);
    char *a = sp_mem_alloc(&mem, 100);
    char *b = sp_mem_zalloc(&mem, 28);
    for (int i = 0; i < 28; i++)
        CHECK_EQ(b[i], 0);
    CHECK_EQ(sp_load(&mem.bytes, relaxed), 128);
    CHECK_EQ(sp_load(&mem.blocks, relaxed), 2);
    alloc_arm(&alloc, 1, 0);
    CHECK(sp_mem_alloc(&mem, 1) == NULL);
    CHECK_EQ(sp_load(&mem.bytes, relaxed), 128);
    sp_mem_free(&mem, a, 100);
    sp_mem_free(&mem, NULL, 55);
    CHECK_EQ(sp_load(&mem.bytes, relaxed), 28);
    CHECK_EQ(sp_load(&mem.blocks, relaxed), 1);
    sp_mem_free(&mem, b, 28);
    CHECK_EQ(alloc_blocks(&alloc), 0);
}

/* The same numbers, kept without atomic adds. */
static void a_locked_account_counts_alike(void)
{
    test_alloc alloc;
    sp_mem mem;
    alloc_init(&alloc);
    sp_mem_init_locked(&mem, &alloc.hook);
    char *a = sp_mem_alloc(&mem, 100), *b = sp_mem_zalloc(&mem, 28);
    CHECK_EQ(sp_load(&mem.bytes, relaxed), 128);
    CHECK_EQ(sp_load(&mem.blocks, relaxed), 2);
    a = sp_mem_resize(&mem, a, 100, 50);
    CHECK_EQ(sp_load(&mem.bytes, relaxed), 78);
    CHECK_EQ(sp_load(&mem.blocks, relaxed), 2);
    sp_mem_free(&mem, a, 50);
    sp_mem_free(&mem, b, 28);
    CHECK_EQ(sp_load(&mem.bytes, relaxed), 0);
    CHECK_EQ(sp_load(&mem.blocks, relaxed), 0);
    CHECK_EQ(alloc_blocks(&alloc), 0);
}

static void memory_comes_from_the_system_by_default(void)
{
    sp_mem mem;
    sp_mem_init(&mem, NULL);
    CHECK(mem.allocator == &sp_system_allocator);
    unsigned char *block = sp_mem_zalloc(&mem, 10), *plain = sp_mem_alloc(&mem, 10);
    CHECK_EQ(block[0] | block[9], 0);
    plain[9] = 1;
    CHECK_EQ(sp_load(&mem.bytes, relaxed), 20);
    sp_mem_free(&mem, block, 10);
    sp_mem_free(&mem, plain, 10);
    CHECK_EQ(sp_load(&mem.blocks, relaxed), 0);
}

/* Sizes on both sides of where blocks become mappings of their own. */
static void a_resized_block_keeps_its_bytes(void)
{
    static const size_t sizes[] = {100, 3 << 20, 5 << 20, 9 << 20, (4 << 20) + 1, 4 << 20, 70, 200};
    sp_mem mem;
    sp_mem_init(&mem, NULL);
    size_t held = 40;
    unsigned char *block = sp_mem_alloc(&mem, held);
    for (size_t i = 0; i < sizeof sizes / sizeof *sizes; i++) {
        size_t kept = sp_min(held, sizes[i]);
        memset(block, (int)i + 1, held);
        block = sp_mem_resize(&mem, block, held, sizes[i]);
        held = sizes[i];
        REQUIRE(block != NULL);
        CHECK(block[0] == i + 1 && !memcmp(block, block + 1, kept - 1));
        CHECK_EQ(sp_load(&mem.bytes, relaxed), held);
        CHECK_EQ(sp_load(&mem.blocks, relaxed), 1);
    }
    CHECK(sp_mem_resize(&mem, block, held, SIZE_MAX) == NULL);
    CHECK_EQ(sp_load(&mem.bytes, relaxed), held);
    sp_mem_free(&mem, block, held);
    CHECK_EQ(sp_load(&mem.blocks, relaxed), 0);
}

static void large_blocks_are_zeroed(void)
{
    sp_mem mem;
    sp_mem_init(&mem, NULL);
    for (size_t bytes = 3 << 20; bytes <= 6 << 20; bytes += 1 << 20) {
        unsigned char *block = sp_mem_zalloc(&mem, bytes);
        CHECK(block[0] == 0 && !memcmp(block, block + 1, bytes - 1));
        memset(block, 0xff, bytes);
        sp_mem_free(&mem, block, bytes);
    }
    CHECK(sp_mem_alloc(&mem, SIZE_MAX) == NULL);
    CHECK_EQ(sp_load(&mem.bytes, relaxed), 0);
}

static void a_hook_that_cannot_resize_copies(void)
{
    test_alloc alloc;
    sp_mem mem;
    alloc_init(&alloc);
    sp_mem_init(&mem, &alloc.hook);
    char *block = sp_mem_alloc(&mem, 8), *larger;
    memcpy(block, "abcdefg", 8);
    alloc_arm(&alloc, 1, 0);
    CHECK(sp_mem_resize(&mem, block, 8, 100) == NULL);
    CHECK_STR(block, "abcdefg");
    CHECK_EQ(sp_load(&mem.bytes, relaxed), 8);
    larger = sp_mem_resize(&mem, block, 8, 100);
    CHECK_STR(larger, "abcdefg");
    CHECK_EQ(sp_load(&mem.bytes, relaxed), 100);
    CHECK_EQ(alloc_bytes(&alloc), 100);
    block = sp_mem_resize(&mem, larger, 100, 3);
    CHECK(memcmp(block, "abc", 3) == 0);
    sp_mem_free(&mem, block, 3);
    CHECK_EQ(alloc_blocks(&alloc), 0);
    CHECK_EQ(sp_load(&mem.blocks, relaxed), 0);
}

static void pending_work_is_seen_by_the_holder(void)
{
    sp_lock lock;
    sp_lock_init(&lock);
    CHECK_EQ(sp_lock_try(&lock), SP_OK);
    CHECK(!sp_lock_post(&lock));
    CHECK(!sp_lock_release(&lock));
    CHECK_EQ(sp_lock_try(&lock), SP_BUSY);
    CHECK(sp_lock_release(&lock));
    CHECK(sp_lock_post(&lock));
    CHECK_EQ(sp_lock_try(&lock), SP_BUSY);
    CHECK(!sp_lock_release(&lock));
    CHECK(sp_lock_release(&lock));
    sp_lock_leave(&lock);
    CHECK_EQ(sp_lock_try(&lock), SP_OK);
    CHECK(!sp_lock_release(&lock));
    CHECK(sp_lock_release(&lock));
}

static void a_lock_held_across_a_fork_is_poisoned(void)
{
    sp_lock held, idle;
    sp_lock_init(&held);
    sp_lock_init(&idle);
    CHECK_EQ(sp_lock_try(&held), SP_OK);
    CHECK(sp_lock_after_fork(&held));
    CHECK(!sp_lock_after_fork(&idle));
    CHECK_EQ(sp_lock_try(&held), SP_FORKED);
    CHECK_EQ(sp_lock_wait(&held), SP_FORKED);
    CHECK(!sp_lock_post(&held));
    CHECK_EQ(sp_lock_try(&idle), SP_OK);
}

enum { THREADS = 4, TURNS = 20000 };
static sp_lock shared_lock;
static uint64_t guarded_by_lock;
static _Atomic uint64_t posted, drained;

static void let_go(void)
{
    while (!sp_lock_release(&shared_lock))
        sp_store(&drained, sp_load(&posted, relaxed), relaxed);
}

static void *take_turns(void *unused)
{
    (void)unused;
    for (int i = 0; i < TURNS; i++) {
        if (sp_lock_wait(&shared_lock) == SP_OK) {
            guarded_by_lock++;
            let_go();
        }
        sp_add(&posted, 1, relaxed);
        if (sp_lock_post(&shared_lock))
            let_go();
    }
    return NULL;
}

static void threads_exclude_each_other_and_lose_no_work(void)
{
    pthread_t thread[THREADS];
    sp_lock_init(&shared_lock);
    for (int i = 0; i < THREADS; i++)
        CHECK_EQ(pthread_create(&thread[i], NULL, take_turns, NULL), 0);
    for (int i = 0; i < THREADS; i++)
        pthread_join(thread[i], NULL);
    CHECK_EQ(guarded_by_lock, (uint64_t)THREADS * TURNS);
    CHECK_EQ(sp_load(&drained, relaxed), sp_load(&posted, relaxed));
    CHECK_EQ(sp_lock_try(&shared_lock), SP_OK);
}

static void *take_once(void *result)
{
    *(sp_status *)result = sp_lock_wait(&shared_lock);
    return NULL;
}

/* The holder lets go only when the other has left its mark in the word, on its way to sleep. */
static void a_sleeper_is_woken(void)
{
    for (int round = 0; round < 20; round++) {
        pthread_t thread;
        sp_status status = SP_BUSY;
        sp_lock_init(&shared_lock);
        CHECK_EQ(sp_lock_try(&shared_lock), SP_OK);
        uint32_t held = sp_load(&shared_lock.word, relaxed);
        CHECK_EQ(pthread_create(&thread, NULL, take_once, &status), 0);
        while (sp_load(&shared_lock.word, relaxed) == held)
            sched_yield();
        CHECK(sp_lock_release(&shared_lock));
        pthread_join(thread, NULL);
        CHECK_EQ(status, SP_OK);
        CHECK_EQ(sp_lock_try(&shared_lock), SP_BUSY);
        CHECK(sp_lock_release(&shared_lock));
        CHECK_EQ(sp_load(&shared_lock.word, relaxed), 0);
    }
}

static void a_word_wait_ends(void)
{
    _Atomic uint32_t word;
    atomic_init(&word, 7);
    CHECK_EQ(sp_word_wait(&word, 6, -1), SP_OK);
    CHECK_EQ(sp_word_wait(&word, 7, sp_deadline_ns(1000000)), SP_AGAIN);
    CHECK_EQ(sp_word_wait(&word, 7, sp_deadline_ns(0)), SP_AGAIN);
    CHECK_EQ(sp_word_wait(&word, 7, 0), SP_AGAIN);
    sp_word_wake(&word, true);
}

static void a_deadline_too_far_is_none(void)
{
    CHECK(sp_deadline_ns(-1) < 0);
    CHECK(sp_deadline_ns(INT64_MIN) < 0);
    CHECK(sp_deadline_ns(INT64_MAX) < 0);
    int64_t sooner = sp_deadline_ns(0), later = sp_deadline_ns(1000000000000);
    CHECK(sooner > 0 && later >= sooner + 1000000000000);
}

static void nodes_know_their_birth_kind_and_size(void)
{
    test_alloc alloc;
    sp_mem mem;
    alloc_init(&alloc);
    sp_mem_init(&mem, &alloc.hook);
    sp_edit edit = sp_edit_private(&mem, NULL);
    edit.generation = (UINT64_C(1) << 48) - 1;
    edit.floor = edit.generation - 1;
    sp_node *node = sp_edit_new(&edit, 15, SP_NODE_MAX_BYTES);
    CHECK_EQ(sp_node_birth(node), (UINT64_C(1) << 48) - 1);
    CHECK_EQ(sp_node_kind(node), 15);
    CHECK_EQ(sp_node_bytes(node), 65520);
    CHECK(sp_edit_owns(&edit, node));
    sp_edit_retire(&edit, node);
    CHECK_EQ(alloc_blocks(&alloc), 0);
    node = sp_edit_new(&edit, 1, 17);
    CHECK_EQ(sp_node_bytes(node), 32);
    memset(node + 1, 0x42, 16);
    edit.floor = edit.generation;
    CHECK(!sp_edit_owns(&edit, node));
    sp_node *copy = sp_edit_copy(&edit, node);
    CHECK(memcmp(copy + 1, node + 1, 16) == 0);
    CHECK_EQ(copy->tag, node->tag);
    sp_edit_retire(&edit, node);
    CHECK_EQ(alloc_blocks(&alloc), 2);
    CHECK(sp_deadlist_pop(&edit.dead) == node);
    alloc_arm(&alloc, 1, 1);
    CHECK(sp_edit_copy(&edit, node) == NULL);
    CHECK(sp_edit_new(&edit, 1, 16) == NULL);
    sp_node_free(&mem, node);
    sp_node_free(&mem, copy);
    CHECK_EQ(alloc_bytes(&alloc), 0);
}

static void refs_tell_nodes_from_values(void)
{
    CHECK(!sp_ref_is_node(SP_EMPTY));
    CHECK(!sp_ref_is_node(SP_FULL));
    CHECK(!sp_ref_is_node(0x12342));
    CHECK(!sp_ref_is_node(0x12343));
    CHECK(sp_ref_is_node(0x12340));
}

static void deadlists_splice_in_order(void)
{
    sp_node node[5] = {{0}};
    sp_deadlist a = {0}, b = {0}, none = {0};
    CHECK(sp_deadlist_pop(&none) == NULL);
    sp_deadlist_splice(&a, &none);
    CHECK_EQ(a.count, 0);
    sp_deadlist_push(&a, &node[0]);
    sp_deadlist_push(&a, &node[1]);
    sp_deadlist_splice(&a, &none);
    CHECK_EQ(a.count, 2);
    sp_deadlist_push(&b, &node[2]);
    sp_deadlist_push(&b, &node[3]);
    sp_deadlist_splice(&a, &b);
    CHECK(b.head == NULL && b.tail == NULL && b.count == 0);
    CHECK_EQ(a.count, 4);
    sp_deadlist_splice(&none, &a);
    CHECK(none.tail == &node[0]);
    CHECK(sp_deadlist_pop(&none) == &node[3]);
    CHECK(sp_deadlist_pop(&none) == &node[2]);
    CHECK(sp_deadlist_pop(&none) == &node[1]);
    CHECK(sp_deadlist_pop(&none) == &node[0]);
    CHECK(none.head == NULL && none.tail == NULL && none.count == 0);
    sp_deadlist_push(&none, &node[4]);
    CHECK(none.tail == &node[4]);
}

int main(void)
{
    RUN(words_are_counted_and_masked);
    RUN(fill_touches_its_bits_only);
    RUN(memory_is_counted);
    RUN(a_locked_account_counts_alike);
    RUN(memory_comes_from_the_system_by_default);
    RUN(a_resized_block_keeps_its_bytes);
    RUN(large_blocks_are_zeroed);
    RUN(a_hook_that_cannot_resize_copies);
    RUN(pending_work_is_seen_by_the_holder);
    RUN(a_lock_held_across_a_fork_is_poisoned);
    RUN(threads_exclude_each_other_and_lose_no_work);
    RUN(a_sleeper_is_woken);
    RUN(a_word_wait_ends);
    RUN(a_deadline_too_far_is_none);
    RUN(nodes_know_their_birth_kind_and_size);
    RUN(refs_tell_nodes_from_values);
    RUN(deadlists_splice_in_order);
    return check_close();
}
