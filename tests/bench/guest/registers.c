/* SPDX-License-Identifier: GPL-2.0-or-later */
/* What kernels do: control registers, MSRs, a switch of tasks. */

#include "bench.h"

#define CR4_TSD     (1ull << 2)
#define MSR_LSTAR   0xc0000082u

static void cr4_run(uint64_t count)
{
    /* A bit that costs no TLB flush, so that the write itself is seen */
    uint64_t cr4 = read_cr4();

    while (count--) {
        write_cr4(cr4 | CR4_TSD);
        write_cr4(cr4);
    }
}

static void cr4_flush_run(uint64_t count)
{
    uint64_t cr4 = read_cr4();

    while (count--) {
        write_cr4(cr4 | CR4_SMEP);
        write_cr4(cr4);
    }
}

static void cr0_run(uint64_t count)
{
    uint64_t cr0 = read_cr0();

    while (count--) {
        write_cr0(cr0 & ~CR0_AM);
        write_cr0(cr0);
    }
}

static void wrmsr_run(uint64_t count)
{
    while (count--) {
        wrmsr(MSR_LSTAR, count);
    }
}

/* --- Tasks --- */

#define PRIVATE         (1ull << 40)
#define PRIVATE_PAGES   8

asm(".pushsection .text\n"
    "bench_switch:\n\t"
    "push %rbx\n\t"
    "push %rbp\n\t"
    "push %r12\n\t"
    "push %r13\n\t"
    "push %r14\n\t"
    "push %r15\n\t"
    "mov %rsp, (%rdi)\n\t"
    "mov %rsi, %rsp\n\t"
    "mov %rdx, %cr3\n\t"
    "pop %r15\n\t"
    "pop %r14\n\t"
    "pop %r13\n\t"
    "pop %r12\n\t"
    "pop %rbp\n\t"
    "pop %rbx\n\t"
    "ret\n"
    ".popsection");

static Space space[2];
static uint64_t stack[2];

static void touch_private(void)
{
    for (unsigned i = 0; i < PRIVATE_PAGES; i++) {
        uint64_t *p = (void *)(PRIVATE + i * PAGE_SIZE);

        write64(p, read64(p) + 1);
    }
}

static void other_task(void)
{
    for (;;) {
        touch_private();
        bench_switch(&stack[1], stack[0], space[0].root);
    }
}

static void switch_prepare(void)
{
    uint64_t *top;

    for (int s = 0; s < 2; s++) {
        space[s] = space_new(kernel_space.levels);
        memcpy((void *)space[s].root, (void *)kernel_space.root, PAGE_SIZE);
        for (unsigned i = 0; i < PRIVATE_PAGES; i++) {
            *space_entry(&space[s], PRIVATE + i * PAGE_SIZE, LEVEL_4K) =
                (uint64_t)frame() | PTE_RW | PTE_A | PTE_D;
        }
    }
    top = (uint64_t *)((uint8_t *)frames(4) + 4 * PAGE_SIZE);
    /* Six registers, where to return to, and the alignment of a call */
    *(top - 2) = (uint64_t)other_task;
    stack[1] = (uint64_t)(top - 8);
}

static void switch_run(uint64_t count)
{
    uint64_t cr3 = read_cr3();

    write_cr3(space[0].root);
    while (count--) {
        touch_private();
        bench_switch(&stack[0], stack[1], space[1].root);
    }
    write_cr3(cr3);
}

const Loop loops[] = {
    { "cr0", NULL, cr0_run },
    { "cr4", NULL, cr4_run },
    { "cr4-flush", NULL, cr4_flush_run },
    { "wrmsr", NULL, wrmsr_run },
    { "switch", switch_prepare, switch_run },
    { NULL, NULL, NULL },
};
