/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Stores to a page of which one sub-page is guarded, and the same stores to
 * a page that is not.  The host guards the sub-page (cases.py).
 */

#include "bench.h"

/* Each CPU has a sub-page of its own; the guarded one is behind them. */
#define SUBPAGE     128
#define PLAIN       ((uint8_t *)BENCH_GUARDED - PAGE_SIZE)
#define BESIDE      ((uint8_t *)BENCH_GUARDED)
#define BLOCKED     ((uint8_t *)BENCH_GUARDED + BENCH_GUARDED_OFFSET)

/* One instruction at eight places of a sub-page, and again */
#define EIGHT_TIMES(insn, dest, count)                  \
    asm volatile("1:\n\t"                               \
                 insn "(%1)\n\t"                        \
                 insn "16(%1)\n\t"                      \
                 insn "32(%1)\n\t"                      \
                 insn "48(%1)\n\t"                      \
                 insn "64(%1)\n\t"                      \
                 insn "80(%1)\n\t"                      \
                 insn "96(%1)\n\t"                      \
                 insn "%c2(%1)\n\t"                     \
                 "dec %0\n\t"                           \
                 "jnz 1b"                               \
                 : "+r" (count) : "r" (dest), "i" (LAST) : "memory", "cc")

static inline __attribute__((always_inline))
void store(uint8_t *dest, uint64_t count)
{
    enum { LAST = 112 };

    EIGHT_TIMES("mov %0, ", dest, count);
}

/* 32 bytes: the last place is the last of them in the sub-page */
static inline __attribute__((always_inline))
void store32(uint8_t *dest, uint64_t count)
{
    enum { LAST = 96 };

    EIGHT_TIMES("vmovdqu %%ymm0, ", dest, count);
}

static inline __attribute__((always_inline))
void locked(uint8_t *dest, uint64_t count)
{
    enum { LAST = 112 };

    EIGHT_TIMES("lock incq ", dest, count);
}

/* Something to do @count times at @dest; same code wherever that is */
#define LOOP(name, operation, address)                  \
static void name(uint64_t count)                        \
{                                                       \
    uint8_t *dest = (address);                          \
                                                        \
    asm volatile("" : "+r" (dest));                     \
    operation(dest, count);                             \
}

LOOP(store_run, store, PLAIN)
LOOP(store_beside_run, store, BESIDE)
LOOP(store_blocked_run, store, BLOCKED)
LOOP(store32_run, store32, PLAIN)
LOOP(store32_beside_run, store32, BESIDE)
LOOP(store32_blocked_run, store32, BLOCKED)
LOOP(lock_run, locked, PLAIN)
LOOP(lock_beside_run, locked, BESIDE)

/* --- LOCK on all CPUs at once, each in a sub-page of its own --- */

static uint64_t shared_count;

static void lock_own(void *page)
{
    uint8_t *dest = (uint8_t *)page + this_cpu() * SUBPAGE;

    locked(dest, shared_count);
}

static void lock_all_run(uint64_t count)
{
    shared_count = count;
    on_all(lock_own, PLAIN);
}

static void lock_all_beside_run(uint64_t count)
{
    shared_count = count;
    on_all(lock_own, BESIDE);
}

/* --- A CPU that stores by itself while another one uses LOCK --- */

static bool stop, begun;

static void lock_forever(void *dest)
{
    while (!__atomic_load_n(&stop, __ATOMIC_ACQUIRE)) {
        locked(dest, 8);
        __atomic_store_n(&begun, true, __ATOMIC_RELEASE);
    }
}

static void witness(void *dest, uint64_t count)
{
    __atomic_store_n(&stop, false, __ATOMIC_RELEASE);
    __atomic_store_n(&begun, false, __ATOMIC_RELEASE);
    on_cpu(1, lock_forever, dest);
    while (!__atomic_load_n(&begun, __ATOMIC_ACQUIRE)) {
        pause();
    }
    store(PLAIN - PAGE_SIZE, count);
    __atomic_store_n(&stop, true, __ATOMIC_RELEASE);
    wait_cpu(1);
}

static void witness_run(uint64_t count)
{
    witness(PLAIN, count);
}

static void witness_beside_run(uint64_t count)
{
    witness(BESIDE, count);
}

/*
 * Across two blocks of 16 bytes, where QEMU stops all other CPUs: what it
 * looks like if the world is stopped.
 */
static void witness_stopped_run(uint64_t count)
{
    witness(PLAIN + 12, count);
}

const Loop loops[] = {
    { "store", NULL, store_run },
    { "store-beside", NULL, store_beside_run },
    { "store-blocked", NULL, store_blocked_run },
    { "store32", cpu_enable_simd, store32_run },
    { "store32-beside", cpu_enable_simd, store32_beside_run },
    { "store32-blocked", cpu_enable_simd, store32_blocked_run },
    { "lock", NULL, lock_run },
    { "lock-beside", NULL, lock_beside_run },
    { "lock-all", NULL, lock_all_run },
    { "lock-all-beside", NULL, lock_all_beside_run },
    { "witness", NULL, witness_run },
    { "witness-beside", NULL, witness_beside_run },
    { "witness-stopped", NULL, witness_stopped_run },
    { NULL, NULL, NULL },
};
