/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * A reserved bit written to CR3 or CR4 is #GP(0), and nothing changes: not
 * the register, and not the state that an SVM guest's exit would load.
 *
 * Without the fix QEMU carries out such an exit although no guest runs, so
 * that the run ends in a triple fault or a hang: each register has its own.
 */

#include "guest.h"

GUEST_RUN("cr3", "timeout=20 -cpu max -append cr3");
GUEST_RUN("cr4", "timeout=20 -cpu max -append cr4");
GUEST_RUN("cr3-svm-on", "timeout=20 -cpu max -append cr3+svm");
GUEST_RUN("cr4-svm-on", "timeout=20 -cpu max -append cr4+svm");
GUEST_RUN("cr3-in-l2", "timeout=20 -cpu max -append cr3+l2");
GUEST_RUN("cr4-in-l2", "timeout=20 -cpu max -append cr4+l2");
GUEST_RUN("cr3-xo", "timeout=20 -cpu max,+xo -append cr3");

static bool cr4;

/*
 * The general registers get their values in the same block of code as the
 * write, and must have them when #GP is delivered.
 */
static Fault write_reserved(uint64_t value)
{
#define SET                                                             \
    "mov $0x1111, %%ecx; mov $0x2222, %%edx; mov $0x3333, %%esi;"       \
    "mov $0x4444, %%edi; mov $0x5555, %%r8d; mov $0x6666, %%r15d;"
#define CLOBBERS "rcx", "rdx", "rsi", "rdi", "r8", "r15", "memory"
    if (cr4) {
        return TRY(asm volatile(SET "mov %0, %%cr4"
                                : : "a" (value) : CLOBBERS));
    }
    return TRY(asm volatile(SET "mov %0, %%cr3"
                            : : "a" (value) : CLOBBERS));
}

static uint64_t get(void)
{
    return cr4 ? read_cr4() : read_cr3();
}

static void reserved_bit(int bit)
{
    const char *name = cr4 ? "CR4" : "CR3";
    uint64_t before = get();
    uint64_t rsp, efer = rdmsr(MSR_EFER), cr0 = read_cr0();
    uint64_t value = before | 1ull << bit;
    Fault f = write_reserved(value);

    asm volatile("mov %%rsp, %0" : "=r" (rsp));
    ok(f.vec == GP && f.err == 0, "%s bit %d is #GP(0): %s", name, bit,
       fault_text(f));
    ok(get() == before && read_cr0() == cr0 && rdmsr(MSR_EFER) == efer &&
       (f.rsp & -PAGE_SIZE) <= rsp + PAGE_SIZE &&
       *(uint8_t *)f.rip == 0x0f && *(uint8_t *)(f.rip + 1) == 0x22,
       "%s bit %d: nothing has changed, RIP is at the MOV", name, bit);
    ok(f.gpr[RAX] == value && f.gpr[RCX] == 0x1111 &&
       f.gpr[RDX] == 0x2222 && f.gpr[RSI] == 0x3333 &&
       f.gpr[RDI] == 0x4444 && f.gpr[R8] == 0x5555 &&
       f.gpr[R15] == 0x6666,
       "%s bit %d: the general registers are those before the MOV", name,
       bit);
}

static uint64_t reserved_bits(uint64_t unused)
{
    (void)unused;
    if (!cr4) {
        for (int bit = phys_bits(); bit < 63; bit++) {
            reserved_bit(bit);
        }
        return 0;
    }
    /* No processor has these */
    reserved_bit(15);
    for (int bit = 33; bit < 64; bit++) {
        reserved_bit(bit);
    }
    /* This one may not have these */
    if (!(cpuid(1, 0).ecx >> 5 & 1)) {
        reserved_bit(13);       /* VMXE */
    }
    if (!(cpuid(1, 0).ecx >> 6 & 1)) {
        reserved_bit(14);       /* SMXE */
    }
    return 0;
}

void test(void)
{
    const char *how = command_line();
    struct l2 l2;
    uint64_t before;

    cr4 = how[2] == '4';
    before = get();
    if (!strcmp(how + 3, "+svm") || !strcmp(how + 3, "+l2")) {
        svm_init(&l2, true);
    }
    if (!strcmp(how + 3, "+l2")) {
        svm_run(&l2, reserved_bits, 0);
        ok(l2.exit_code == SVM_EXIT_VMMCALL,
           "the L2 guest goes on to its end: exit code 0x%lx", l2.exit_code);
    } else {
        reserved_bits(0);
    }
    ok(get() == before, "%s at the end: 0x%lx", cr4 ? "CR4" : "CR3", get());
}
