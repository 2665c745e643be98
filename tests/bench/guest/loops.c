/* SPDX-License-Identifier: GPL-2.0-or-later */
/* What programs do: memory, branches, page faults, TLB misses. */

#include "bench.h"

INLINE void invlpg(void *p)
{
    asm volatile("invlpg (%0)" : : "r" (p) : "memory");
}

/* --- Memory --- */

#define BUFFER      (4 * 1024 * 1024)
#define WORDS       (BUFFER / 8)

static uint64_t *from, *to;

static void buffers_prepare(void)
{
    if (!from) {
        from = frames(BUFFER / PAGE_SIZE);
        to = frames(BUFFER / PAGE_SIZE);
    }
}

static void memory_run(uint64_t count)
{
    while (count--) {
        for (unsigned i = 0; i < WORDS; i++) {
            to[i] = from[i] + count;
        }
    }
}

static void copy_run(uint64_t count)
{
    while (count--) {
        const void *s = from;
        void *d = to;
        uint64_t n = WORDS;

        asm volatile("rep movsq" : "+S" (s), "+D" (d), "+c" (n)
                     : : "memory");
    }
}

/*
 * Stores alone, all of them to the first 128 bytes of one page: what stores
 * to a guarded page are compared with.
 */
static uint64_t *store_page;

static void store_prepare(void)
{
    store_page = frame();
}

static void store_run(uint64_t count)
{
    asm volatile("1:\n\t"
                 "mov %0, (%1)\n\t"
                 "mov %0, 16(%1)\n\t"
                 "mov %0, 32(%1)\n\t"
                 "mov %0, 48(%1)\n\t"
                 "mov %0, 64(%1)\n\t"
                 "mov %0, 80(%1)\n\t"
                 "mov %0, 96(%1)\n\t"
                 "mov %0, 112(%1)\n\t"
                 "dec %0\n\t"
                 "jnz 1b"
                 : "+r" (count) : "r" (store_page) : "memory", "cc");
}

/* --- Branches --- */

static __attribute__((noinline)) uint64_t odd(uint64_t x)
{
    asm volatile("" : "+r" (x));
    return x * 3 + 1;
}

static __attribute__((noinline)) uint64_t even(uint64_t x)
{
    asm volatile("" : "+r" (x));
    return x >> 1;
}

static void branch_run(uint64_t count)
{
    /* volatile: the calls are to stay indirect */
    static uint64_t (*volatile const steps[])(uint64_t) = { even, odd };
    uint64_t x = 0x9e3779b97f4a7c15, sum = 0;

    while (count--) {
        x ^= x << 13;
        x ^= x >> 7;
        x ^= x << 17;
        for (uint64_t bits = x; bits; bits >>= 8) {
            /* The empty statements keep the compiler from using CMOV */
            if (bits & 1) {
                asm volatile("" : "+r" (sum));
                sum += bits;
            }
            if (bits & 2) {
                asm volatile("" : "+r" (sum));
                sum ^= x;
            }
            if ((bits & 12) == 4) {
                asm volatile("" : "+r" (sum));
                sum -= count;
            }
        }
        sum += steps[x & 1](x);
        sum += odd(sum);
    }
    asm volatile("" : : "r" (sum));
}

/* --- Page faults --- */

static uint8_t *fault_page;
static uint64_t *fault_entry;
/* What the handler stores, and where: it has no other way to know */
uint64_t bench_leaf;
uint64_t *bench_entry;

/* Goes on behind the access, which is two bytes long */
asm(".pushsection .text\n"
    "bench_skip:\n\t"
    "add $8, %rsp\n\t"
    "addq $2, (%rsp)\n\t"
    "iretq\n"
    "bench_map:\n\t"
    "push %rax\n\t"
    "push %rcx\n\t"
    "mov bench_entry, %rax\n\t"
    "mov bench_leaf, %rcx\n\t"
    "mov %rcx, (%rax)\n\t"
    "pop %rcx\n\t"
    "pop %rax\n\t"
    "add $8, %rsp\n\t"
    "iretq\n"
    ".popsection");

INLINE void touch(uint8_t *p)
{
    /* mov (%rdi), %al */
    asm volatile(".byte 0x8a, 0x07" : : "D" (p) : "rax", "memory");
}

static void fault_prepare(void)
{
    void *f = frame();

    fault_page = (void *)window(PAGE_SIZE);
    fault_entry = entry(fault_page, LEVEL_4K);
    bench_entry = fault_entry;
    bench_leaf = (uint64_t)f | PTE_RW;
}

static void fault_run(uint64_t count)
{
    struct gate kept = idt[PF];

    write64(fault_entry, 0);
    flush_tlb();
    set_gate(&idt[PF], bench_skip, 1, 0);
    while (count--) {
        touch(fault_page);
    }
    idt[PF] = kept;
}

static void fault_map_run(uint64_t count)
{
    struct gate kept = idt[PF];

    set_gate(&idt[PF], bench_map, 1, 0);
    while (count--) {
        write64(fault_entry, 0);
        invlpg(fault_page);
        touch(fault_page);
    }
    idt[PF] = kept;
}

/* --- TLB misses --- */

/*
 * QEMU's TLB starts small and grows only when it is flushed while full, so a
 * walk without flushes goes on missing.
 */
#define WALK_PAGES  2048
#define FEW_PAGES   64

static uint8_t *walk;

static void walk_prepare(void)
{
    uint64_t f;

    if (walk) {
        return;
    }
    f = (uint64_t)frames(WALK_PAGES);
    walk = (void *)window(WALK_PAGES * PAGE_SIZE);
    for (unsigned i = 0; i < WALK_PAGES; i++) {
        *entry(walk + i * PAGE_SIZE, LEVEL_4K) =
            (f + i * PAGE_SIZE) | PTE_RW | PTE_A | PTE_D;
    }
    flush_tlb();
}

static void tlb_walk_run(uint64_t count)
{
    while (count--) {
        for (unsigned i = 0; i < WALK_PAGES; i++) {
            read64(walk + i * PAGE_SIZE);
        }
    }
}

static void tlb_cr3_run(uint64_t count)
{
    while (count--) {
        flush_tlb();
        for (unsigned i = 0; i < FEW_PAGES; i++) {
            write64(walk + i * PAGE_SIZE, i);
        }
    }
}

static void tlb_invlpg_run(uint64_t count)
{
    while (count--) {
        for (unsigned i = 0; i < FEW_PAGES; i++) {
            invlpg(walk + i * PAGE_SIZE);
            read64(walk + i * PAGE_SIZE);
        }
    }
}

const Loop loops[] = {
    { "memory", buffers_prepare, memory_run },
    { "copy", buffers_prepare, copy_run },
    { "store", store_prepare, store_run },
    { "branch", NULL, branch_run },
    { "fault", fault_prepare, fault_run },
    { "fault-map", fault_prepare, fault_map_run },
    { "tlb-walk", walk_prepare, tlb_walk_run },
    { "tlb-cr3", walk_prepare, tlb_cr3_run },
    { "tlb-invlpg", walk_prepare, tlb_invlpg_run },
    { NULL, NULL, NULL },
};
