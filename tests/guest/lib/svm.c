/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * SVM guests. An L2 here is a function: it shares the tables, descriptors
 * and code of the CPU that runs it, so that TRY() works in it as well.
 */

#include "internal.h"

bool svm_used;

#define MSR_VM_CR       0xc0010114u
#define MSR_HSAVE       0xc0010117u

#define L2_STACK        16      /* frames */

#define VMCB_MISC2      0x010
#define VMCB_ASID       0x058
#define VMCB_TLB        0x05c
#define VMCB_EXIT_CODE  0x070
#define VMCB_INFO1      0x078
#define VMCB_INFO2      0x080
#define VMCB_NP         0x090
#define VMCB_NCR3       0x0b0

bool svm_present(void)
{
    return cpuid(0x80000001, 0).ecx >> 2 & 1;
}

static void segment(struct l2 *l2, int off, int sel, int attr, uint32_t limit,
                    uint64_t base)
{
    VMCB32(l2, off) = sel | attr << 16;
    VMCB32(l2, off + 4) = limit;
    VMCB64(l2, off + 8) = base;
}

void svm_init(struct l2 *l2, bool nested)
{
    *l2 = (struct l2) { .vmcb = frame(), .stack = frames(L2_STACK) };
    svm_used = true;
    wrmsr(MSR_EFER, rdmsr(MSR_EFER) | EFER_SVME);
    wrmsr(MSR_HSAVE, (uint64_t)frame());
    VMCB32(l2, VMCB_MISC2) = 3;         /* VMRUN, VMMCALL */
    VMCB32(l2, VMCB_ASID) = 1;
    VMCB32(l2, VMCB_TLB) = 1;           /* flush all at each VMRUN */
    if (nested) {
        l2->npt = space_new(4);
        space_identity(&l2->npt, 4 * PAGE_1G, PTE_RW | PTE_U);
        VMCB64(l2, VMCB_NP) = 1;
        VMCB64(l2, VMCB_NCR3) = l2->npt.root;
    }
}

uint64_t svm_run(struct l2 *l2, uint64_t (*fn)(uint64_t), uint64_t arg)
{
    unsigned cpu = this_cpu();

    segment(l2, 0x400, SEL_DATA, 0xc93, ~0u, 0);
    segment(l2, 0x410, SEL_CODE64, 0xa9b, ~0u, 0);
    segment(l2, 0x420, SEL_DATA, 0xc93, ~0u, 0);
    segment(l2, 0x430, SEL_DATA, 0xc93, ~0u, 0);
    segment(l2, 0x460, 0, 0, gdt_ptr.limit, gdt_ptr.base);
    segment(l2, 0x480, 0, 0, idt_ptr.limit, idt_ptr.base);
    segment(l2, 0x490, SEL_TSS + cpu * 16, 0x08b, sizeof(struct tss) - 1,
            (uint64_t)&tss[cpu]);
    VMCB64(l2, 0x4d0) = rdmsr(MSR_EFER);
    VMCB64(l2, 0x548) = read_cr4();
    VMCB64(l2, 0x550) = read_cr3();
    VMCB64(l2, 0x558) = read_cr0();
    VMCB64(l2, 0x560) = 0x400;
    VMCB64(l2, 0x568) = 0xffff0ff0;
    VMCB64(l2, 0x570) = 2;
    VMCB64(l2, 0x578) = (uint64_t)svm_guest_entry;
    VMCB64(l2, 0x5d8) = (uint64_t)l2->stack + L2_STACK * PAGE_SIZE - 16;
    VMCB64(l2, 0x668) = 0x0007040600070406ull;
    l2->result = svm_enter((uint64_t)l2->vmcb, fn, arg);
    l2->exit_code = VMCB64(l2, VMCB_EXIT_CODE);
    l2->info1 = VMCB64(l2, VMCB_INFO1);
    l2->info2 = VMCB64(l2, VMCB_INFO2);
    return l2->exit_code;
}
