/*
 * rmp_table.c - the reverse map table of an SEV-SNP host, and the walk that finds a guest's pages.
 *
 * Layout: AMD's Processor Programming Reference of family 19h, where it is not architectural.  The
 * entry at the start of a 2 MiB page speaks for all of it; the other 511 stay empty.
 *
 * A guest's frames are the host's from first_pfn on, moved by a permutation of blocks: affine,
 * modulo the number of blocks, by a factor near the golden section that is coprime to it.
 */
#include <stdlib.h>
#include <sys/mman.h>

#include "split.h"

#define BOOKKEEPING 0x4000
#define HUGE_PAGES 512

#define ASSIGNED UINT64_C(1)
#define HUGE (UINT64_C(1) << 1)
#define VALIDATED (UINT64_C(1) << 62)
#define GFN_SHIFT 12
#define GFN_MASK ((UINT64_C(1) << 39) - 1)
#define ASID_SHIFT 51
#define ASID_MASK ((uint64_t)RIVAL_RMP_MAX_ASID << ASID_SHIFT)

typedef struct entry {
    uint64_t low, high;
} entry;

_Static_assert(sizeof(entry) == 16, "an entry of the table");

struct rival_rmp {
    char *table;
    entry *entries; /* in the table, after the bookkeeping */
    uint64_t npages;
    uint64_t block, nblocks, factor; /* block 0: no permutation */
};

static uint64_t gcd(uint64_t a, uint64_t b)
{
    while (b) {
        uint64_t rest = a % b;
        a = b;
        b = rest;
    }
    return a;
}

size_t rival_rmp_bytes(const rival_rmp *rmp)
{
    return BOOKKEEPING + (size_t)rmp->npages * sizeof(entry);
}

rival_rmp *rival_rmp_new(uint64_t npages, uint64_t scatter)
{
    rival_rmp *rmp = calloc(1, sizeof *rmp);
    if (!rmp)
        return NULL;
    rmp->npages = npages;
    size_t bytes = rival_rmp_bytes(rmp);
    rmp->table = mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (rmp->table == MAP_FAILED) {
        free(rmp);
        return NULL;
    }
    madvise(rmp->table, bytes, MADV_HUGEPAGE);
    rmp->entries = (entry *)(void *)(rmp->table + BOOKKEEPING);
    rmp->block = scatter;
    rmp->nblocks = scatter ? npages / scatter : 0;
    rmp->factor = rmp->nblocks * 618 / 1000 | 1;
    while (gcd(rmp->factor, rmp->nblocks) > 1)
        rmp->factor++;
    return rmp;
}

void rival_rmp_free(rival_rmp *rmp)
{
    munmap(rmp->table, rival_rmp_bytes(rmp));
    free(rmp);
}

/* Where a host frame of the unpermuted order is; what is past the last whole block stays. */
static inline uint64_t permuted(const rival_rmp *rmp, uint64_t pfn)
{
    if (!rmp->block || pfn >= rmp->nblocks * rmp->block)
        return pfn;
    return pfn / rmp->block * rmp->factor % rmp->nblocks * rmp->block + pfn % rmp->block;
}

/* True if the 2 MiB from gfn on, whose host frames begin at first + gfn, can be one entry. */
static bool is_huge(const rival_rmp *rmp, uint64_t gfn, uint64_t stop, uint64_t first)
{
    return gfn % HUGE_PAGES == 0 && stop - gfn >= HUGE_PAGES && rmp->block % HUGE_PAGES == 0 &&
           permuted(rmp, first + gfn) % HUGE_PAGES == 0;
}

static void assign(rival_rmp *rmp, unsigned asid, uint64_t first, uint64_t start, uint64_t stop,
                   bool huge)
{
    uint64_t status = ASSIGNED | VALIDATED | (uint64_t)asid << ASID_SHIFT;
    for (uint64_t gfn = start; gfn < stop;) {
        entry *e = &rmp->entries[permuted(rmp, first + gfn)];
        bool whole = huge && is_huge(rmp, gfn, stop, first);
        e->low = status | gfn << GFN_SHIFT | (whole ? HUGE : 0);
        gfn += whole ? HUGE_PAGES : 1;
    }
}

void rival_rmp_place(rival_rmp *rmp, unsigned asid, uint64_t first_pfn, uint64_t npages,
                     const rival_range *ranges, size_t n, bool huge)
{
    uint64_t start = 0;
    for (size_t i = 0; i < n; i++) {
        assign(rmp, asid, first_pfn, start, ranges[i].start, huge);
        start = ranges[i].stop;
    }
    assign(rmp, asid, first_pfn, start, npages, huge);
}

/* Entries from `first` on that say what it says of ever higher pages; the one at first counts. */
static uint64_t run_length(const entry *first, const entry *end)
{
    const entry *e = first;
    uint64_t expected = first->low;
    do {
        e++;
        expected += UINT64_C(1) << GFN_SHIFT;
    } while (e < end && e->low == expected);
    return (uint64_t)(e - first);
}

static void set_bits(uint64_t *words, uint64_t first, uint64_t stop)
{
    for (uint64_t end; first < stop; first = end) {
        end = (first | 63) + 1;
        end = end < stop ? end : stop;
        words[first / 64] |= bits_between(first % 64, (unsigned)(end - 1) % 64 + 1);
    }
}

/* Where neighbours in the guest are neighbours in the host, a comparison an entry. */
void rival_rmp_walk(const rival_rmp *rmp, unsigned asid, uint64_t *private, size_t nwords)
{
    uint64_t wanted = ASSIGNED | (uint64_t)asid << ASID_SHIFT, limit = nwords * 64;
    const entry *end = rmp->entries + rmp->npages;
    for (const entry *e = rmp->entries; e < end;) {
        if ((e->low & (ASSIGNED | ASID_MASK)) != wanted) {
            e++;
            continue;
        }
        uint64_t gfn = e->low >> GFN_SHIFT & GFN_MASK;
        uint64_t npages = e->low & HUGE ? HUGE_PAGES : run_length(e, end);
        uint64_t stop = gfn + npages < limit ? gfn + npages : limit;
        set_bits(private, gfn, stop);
        e += npages;
    }
}

static inline uint64_t shared_word(void *context, size_t word)
{
    const uint64_t *private = context;
    return ~private[word];
}

static inline bool line_is(void *context, size_t word, bool shared)
{
    const uint64_t *private = context;
    return is_flat(private + word, shared ? 0 : ~UINT64_C(0));
}

bool rival_rmp_merge(const rival_rmp *rmp, unsigned asid, const uint64_t *dirty, size_t nwords,
                     rival_split *out)
{
    uint64_t *private = calloc(nwords ? nwords : 1, sizeof *private);
    if (!private)
        return false;
    rival_rmp_walk(rmp, asid, private, nwords);
    bool done = split_words(dirty, nwords, shared_word, line_is, private, out);
    free(private);
    return done;
}
