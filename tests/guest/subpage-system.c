/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The bypass matrix of sub-page protection, part two: what a CPU loads and
 * stores that is no operand of an instruction, other names of the same RAM,
 * and what must stay possible. Part one is subpage-matrix.c.
 *
 * A row prepares a situation, and then goes. It is run without protection;
 * with its sub-page protected and each action; and with the sub-pages beside
 * it protected, which must not matter.
 */

#include "rows.h"

GUEST_RUN("one-cpu", "-cpu max,+xo -append main");
GUEST_RUN("q35", "-machine q35 -cpu max,+xo -append main");
GUEST_RUN("four-threads",
          "accel=tcg,thread=multi timeout=120 -cpu max,+xo -smp 4 "
          "-append main");
GUEST_RUN("round-robin",
          "accel=tcg,thread=single timeout=120 -cpu max,+xo -smp 4 "
          "-append main");
GUEST_RUN("icount",
          "timeout=120 -cpu max,+xo -icount shift=1 -append main");
GUEST_RUN("one-insn", "accel=tcg,one-insn-per-tb=on timeout=120 "
          "-cpu max,+xo -append main");
GUEST_RUN("reset", "reboots -cpu max,+xo -append reset");
GUEST_RUN("unplug", "memory=128M,slots=1,maxmem=1G -cpu max -append unplug");

uint64_t sys_rsp, sys_rip;
uint8_t sys_other[4096] __attribute__((aligned(16)));

/* Back from a handler whose frame may have gone nowhere */
extern uint8_t sys_back[];
asm(".text\n.globl sys_back\n"
    "sys_back: mov sys_rsp, %rsp\n"
    "mov $0x10, %eax; mov %eax, %ss; mov %eax, %ds; mov %eax, %es\n"
    "jmp *sys_rip\n");

/* Runs @insn, which ends in sys_back; @before may change RSP */
#define DELIVER(before, insn)                                           \
    asm volatile("lea 1f(%%rip), %%rax; mov %%rax, sys_rip;"            \
                 "lea 2f(%%rip), %%rax; mov %%rax, row_insn;"           \
                 "mov %%rsp, sys_rsp; mov $sys_other + 4096, %%rsp;"    \
                 "cmp %%eax, %%eax;" before "; 2: " insn "; 1:"         \
                 : : : "rax", "rcx", "rdx", "rbx", "rsi", "rdi", "r8",  \
                 "r9", "r10", "r11", "r12", "r13", "r14", "r15",        \
                 "memory", "cc")

static uint8_t *stack_frame, *stack_va;
static struct gate old_gates[256];
static struct tss *own_tss;

/* --- Stacks --- */

/* An IST stack whose frames end with the sub-page */
static void stack(int bytes)
{
    if (!stack_frame) {
        stack_frame = frame();
        stack_va = map(stack_frame, PTE_RW);
        own_tss = &tss[0];
    }
    memset(stack_frame, 0x5a, PAGE_SIZE);
    own_tss->ist[6] = (uint64_t)stack_va + MIDDLE + SUBPAGE;
    own_tss->rsp[0] = (uint64_t)stack_va + MIDDLE + SUBPAGE;
    at = stack_frame + MIDDLE + SUBPAGE - bytes;
    linear = (uint64_t)stack_va + MIDDLE + SUBPAGE - bytes;
    size = bytes;
}

static void gate(int vec, int ist, int dpl)
{
    set_gate(&idt[vec], sys_back, ist, dpl);
}

static void prepare_int(void)
{
    stack(40);
    gate(0x81, 7, 0);
}

static void go_int(void)
{
    DELIVER("", "int $0x81");
}

static void prepare_ud(void)
{
    stack(40);
    gate(UD, 7, 0);
}

static void go_ud(void)
{
    DELIVER("", "ud2");
}

static void prepare_error_code(void)
{
    stack(48);
    gate(GP, 7, 0);
}

static void go_error_code(void)
{
    DELIVER("mov $0xfff8, %%ecx", "mov %%ecx, %%ds");
}

static void prepare_pf(void)
{
    stack(48);
    gate(PF, 7, 0);
}

static void go_pf(void)
{
    DELIVER("mov $0x7000000000, %%rcx", "mov (%%rcx), %%ecx");
}

USER uint64_t user_int(uint64_t unused);
uint64_t user_int(uint64_t unused)
{
    asm volatile("int $0x82");
    return unused;
}

static void prepare_inner(void)
{
    stack(40);
    gate(0x82, 0, 3);
}

static void go_inner(void)
{
    DELIVER("mov $user_int, %%rdi; xor %%esi, %%esi; mov $2, %%edx",
            "call user_flags");
}

/* 64-bit call gates, and a far call */
struct {
    uint64_t offset;
    uint16_t selector;
} __attribute__((packed)) far_pointer USER_DATA;
uint64_t sys_stack;

static void call_gate(int dpl)
{
    uint64_t a = (uint64_t)sys_back;

    gdt[SEL_FREE / 8] = (a & 0xffff) | SEL_CODE64 << 16 |
                        (0x8cull | dpl << 5) << 40 |
                        (a >> 16 & 0xffff) << 48;
    gdt[SEL_FREE / 8 + 1] = a >> 32;
    far_pointer.offset = a;
    far_pointer.selector = SEL_FREE | dpl;
}

static void prepare_gate(void)
{
    stack(16);
    call_gate(0);
    sys_stack = (uint64_t)stack_va + MIDDLE + SUBPAGE;
}

static void go_far_call(void)
{
    DELIVER("mov sys_stack, %%rsp", "rex.W lcall *far_pointer");
}

USER uint64_t user_far_call(uint64_t unused);
uint64_t user_far_call(uint64_t unused)
{
    asm volatile("rex.W lcall *far_pointer");
    return unused;
}

static void prepare_inner_gate(void)
{
    stack(32);
    call_gate(3);
}

static void go_inner_gate(void)
{
    DELIVER("mov $user_far_call, %%rdi; xor %%esi, %%esi; mov $2, %%edx",
            "call user_flags");
}

static void prepare_far_call(void)
{
    stack(16);
    far_pointer.offset = (uint64_t)sys_back;
    far_pointer.selector = SEL_CODE64;
    sys_stack = (uint64_t)stack_va + MIDDLE + SUBPAGE;
}

/* --- Descriptor tables --- */

static uint64_t *table;
static uint8_t *table_va;

static void new_table(void)
{
    if (!table) {
        table = frame();
        table_va = map(table, PTE_RW);
    }
    memset(table, 0, PAGE_SIZE);
}

/* A GDT in a page of its own; the selector is in the middle of the page */
static void new_gdt(void)
{
    struct dtr ptr;

    new_table();
    memcpy(table, gdt, gdt_ptr.limit + 1);
    ptr = (struct dtr) { PAGE_SIZE - 1, (uint64_t)table_va };
    asm volatile("lgdt %0" : : "m" (ptr));
}

#define SELECTOR (MIDDLE + 0x20)

static void aim_table(int offset, int bytes)
{
    at = (uint8_t *)table + SELECTOR + offset;
    linear = (uint64_t)table_va + SELECTOR + offset;
    size = bytes;
}

static void prepare_data_segment(void)
{
    new_gdt();
    table[SELECTOR / 8] = gdt[SEL_DATA / 8] & ~(1ull << 40);
    aim_table(4, 4);
}

static void go_mov_ds(void)
{
    asm volatile("lea 1f(%%rip), %%rax; mov %%rax, row_insn;"
                 "1: mov %1, %%ds; mov %2, %%ds"
                 : : "m" (row_insn), "c" (SELECTOR), "d" (SEL_DATA)
                 : "rax");
}

static void prepare_code_descriptor(void)
{
    new_gdt();
    table[SELECTOR / 8] = gdt[SEL_CODE64 / 8];
    aim_table(0, 4);
}

static void go_lret(void)
{
    asm volatile("lea 1f(%%rip), %%rax; mov %%rax, row_insn;"
                 "lea 2f(%%rip), %%rax; pushq %0; push %%rax;"
                 "1: lretq; 2: pushq %1; lea 3f(%%rip), %%rax;"
                 "push %%rax; lretq; 3:"
                 : : "i" (SELECTOR), "i" (SEL_CODE64) : "rax", "memory");
}

/* From a 32-bit code segment, where the stack has 32 bits as well */
extern uint8_t sys_compat[], sys_compat_insn[];
struct {
    uint32_t offset;
    uint16_t selector;
} __attribute__((packed)) sys_compat_ptr;
asm(".text\n"
    "sys_compat_enter: ljmpl *sys_compat_ptr\n"
    ".code32\n"
    "sys_compat:\n"
    "sys_compat_insn: mov %ecx, %ds\n"
    "mov %edx, %ds; ljmp $0x08, $1f\n"
    ".code64\n"
    "1: ret\n");

static void go_compat(void)
{
    sys_compat_ptr.offset = (uint32_t)(uint64_t)sys_compat;
    sys_compat_ptr.selector = SEL_CODE32;
    row_insn = (uint64_t)sys_compat_insn;
    asm volatile("call sys_compat_enter"
                 : : "c" (SELECTOR), "d" (SEL_DATA) : "memory");
}

/* An LDT in that page; its descriptor is in the ordinary GDT */
static void new_ldt(bool accessed)
{
    new_table();
    table[SELECTOR / 8] = gdt[SEL_DATA / 8] & ~(accessed ? 0 : 1ull << 40);
    set_descriptor16(gdt, SEL_LDT, 2, table_va, PAGE_SIZE - 1);
    asm volatile("lldt %w0" : : "r" (SEL_LDT));
}

static void prepare_ldt_accessed(void)
{
    new_ldt(false);
    aim_table(4, 4);
}

static void prepare_ldt_look(void)
{
    new_ldt(true);
    aim_table(0, 4);
}

static void go_mov_ldt(void)
{
    asm volatile("lea 1f(%%rip), %%rax; mov %%rax, row_insn;"
                 "1: mov %0, %%ds; mov %1, %%ds"
                 : : "c" (SELECTOR | 4), "d" (SEL_DATA) : "rax", "memory");
}

static void prepare_tss_descriptor(void)
{
    new_gdt();
    set_descriptor16(table, SELECTOR, 9, own_tss, sizeof(struct tss) - 1);
    aim_table(4, 4);
}

static void go_ltr(void)
{
    /* STR has to give what this_cpu() expects, also after a fault */
    asm volatile("lea 1f(%%rip), %%rax; mov %%rax, row_insn;"
                 "1: ltr %w0; andb $~2, %2; ltr %w1"
                 : : "c" (SELECTOR), "d" (SEL_TSS),
                     "m" (((uint8_t *)table)[SEL_TSS + 5]) : "rax");
}

static void prepare_descriptor(void)
{
    new_gdt();
    table[SELECTOR / 8] = gdt[SEL_DATA / 8];
    aim_table(0, 4);
}

static void go_lar(void)
{
    uint64_t rights = 0;

    asm volatile("lea 1f(%%rip), %%rdx; mov %%rdx, row_insn;"
                 "1: lar %k1, %k0" : "+a" (rights) : "c" (SELECTOR)
                 : "rdx", "cc");
    result[0] = rights;
}

static void prepare_ldt(void)
{
    new_gdt();
    set_descriptor16(table, SELECTOR, 2, gdt, 0x7f);
    aim_table(0, 4);
}

static void go_lldt(void)
{
    asm volatile("lea 1f(%%rip), %%rax; mov %%rax, row_insn;"
                 "1: lldt %w0" : : "c" (SELECTOR) : "rax");
    /* A selector of the LDT, which is the GDT */
    asm volatile("lar %k1, %k0; setz %b0" : "=&a" (result[0])
                 : "c" (SEL_DATA | 4) : "cc");
}

static void prepare_idt(void)
{
    struct dtr ptr;
    struct gate *g;

    stack(40);
    new_table();
    gate(0x81, 7, 0);
    g = (struct gate *)table;
    memcpy(g, idt, 32 * sizeof(*g));
    g[SELECTOR / 16] = idt[0x81];
    ptr = (struct dtr) { PAGE_SIZE - 1, (uint64_t)table_va };
    asm volatile("lidt %0" : : "m" (ptr));
    aim_table(0, 4);
}

static void go_idt(void)
{
    result[0] = 0;
    DELIVER("", "int $0x62");   /* SELECTOR / 16 */
    result[0] = 1;
}

/* A TSS whose RSP0 is in the sub-page, and its IST pointers behind it */
static struct tss *moved_tss(int offset)
{
    uint8_t *t;

    stack(40);
    new_table();
    t = (uint8_t *)table + MIDDLE + SUBPAGE - offset;
    memcpy(t, own_tss, sizeof(struct tss));
    set_descriptor16(gdt, SEL_TSS, 9, table_va + MIDDLE + SUBPAGE -
                     offset, sizeof(struct tss) + 63);
    asm volatile("ltr %w0" : : "r" (SEL_TSS));
    return (struct tss *)t;
}

static void prepare_rsp0(void)
{
    struct tss *t;

    gate(0x82, 0, 3);
    t = moved_tss(20);
    at = (uint8_t *)&t->rsp[0];
    linear = (uint64_t)table_va + (at - (uint8_t *)table);
    size = 8;
}

static USER uint64_t user_in(uint64_t port)
{
    uint8_t v;

    asm volatile("inb %1, %0" : "=a" (v) : "d" ((uint16_t)port));
    return v;
}

static void prepare_iomap(void)
{
    struct tss *t = moved_tss(SUBPAGE + 96);

    t->iomap = sizeof(struct tss);
    memset(t + 1, 0, 64);
    at = (uint8_t *)&t->iomap;
    /* The stacks are in front of the sub-page, the map is in it as well */
    linear = (uint64_t)table_va + (at - (uint8_t *)table);
    size = 2;
}

static void go_in(void)
{
    result[0] = user(user_in, 0x80);
}

/* --- Bounds of MPX --- */

#define MSR_BNDCFGS     0xd90

static bool mpx_on;
static uint8_t *bounds;
static uint64_t *bound_directory;

static bool mpx_present(void)
{
    return cpuid(7, 0).ebx >> 14 & 1;
}

/*
 * Two bounds in the sub-page; as an entry of a bound table too, which the
 * first entry of the directory leads to.
 */
static void prepare_bounds(int offset, int bytes)
{
    uint32_t features = cpuid(0xd, 0).eax & 0x1f;

    if (!bounds) {
        bounds = frame();
        bound_directory = frame();
        bound_directory[0] = (uint64_t)bounds | 1;
        /*
         * TCG takes the directory's address from bits 63 to 20 of BNDCFGS,
         * where it is in bits 63 to 12: have it where either way leads.
         */
        map_at((uint64_t)bound_directory << 8, bound_directory, LEVEL_4K,
               PTE_RW);
    }
    cpu_enable_simd();
    asm volatile("xsetbv" : : "a" (features), "d" (0), "c" (0));
    wrmsr(MSR_BNDCFGS, (uint64_t)bound_directory << 8 | 3);
    mpx_on = true;
    memset(bounds, 0x5a, PAGE_SIZE);
    /* The pointer that the entry is for */
    *(uint64_t *)(bounds + MIDDLE + 0x20 + 16) = 0x1234;
    at = bounds + MIDDLE + 0x20 + offset;
    linear = (uint64_t)at;
    size = bytes;
}

static void prepare_bndmov(void)
{
    prepare_bounds(0, 16);
}

static void prepare_bndmov_load(void)
{
    prepare_bounds(0, 8);
}

static void prepare_bndstx(void)
{
    prepare_bounds(0, 24);
}

static void go_bndmov(void)
{
    asm volatile("lea 1f(%%rip), %%rax; mov %%rax, row_insn;"
                 "bndmk 0x10(%%rdx), %%bnd0; 1: bndmov %%bnd0, (%%rdi)"
                 : : "D" (bounds + MIDDLE + 0x20), "d" (0x1000)
                 : "rax", "memory");
}

static void go_bndmov_load(void)
{
    asm volatile("lea 1f(%%rip), %%rax; mov %%rax, row_insn;"
                 "1: bndmov (%%rdi), %%bnd0; bndmov %%bnd0, (%%rdx)"
                 : : "D" (bounds + MIDDLE + 0x20), "d" (sys_other)
                 : "rax", "memory");
    memcpy(result, sys_other, 16);
}

/* An entry has 32 bytes, and is for 8 of addresses */
#define BOUND_OF    ((MIDDLE + 0x20) / 32 * 8)

static void go_bndstx(void)
{
    asm volatile("lea 1f(%%rip), %%rax; mov %%rax, row_insn;"
                 "bndmk 0x10(%%rdx), %%bnd0;"
                 "1: bndstx %%bnd0, (%%rdi, %%rsi)"
                 : : "D" (BOUND_OF), "S" (0x1234), "d" (0x1000)
                 : "rax", "memory");
}

static void go_bndldx(void)
{
    asm volatile("lea 1f(%%rip), %%rax; mov %%rax, row_insn;"
                 "1: bndldx (%%rdi, %%rsi), %%bnd0; bndmov %%bnd0, (%%rdx)"
                 : : "D" (BOUND_OF), "S" (0x1234), "d" (sys_other)
                 : "rax", "memory");
    memcpy(result, sys_other, 16);
}

/* --- Page walks --- */

static uint8_t *walked;
static uint64_t walk_va;

static void walk(int level, int leaf, bool dirty)
{
    uint64_t index = MIDDLE / 8 + 3, *e;

    if (!walked) {
        walked = frames(512);
    }
    walked[0] = 0x77;
    /* An address of its own for each size of the leaf */
    walk_va = (index - 16 * leaf) << 39 | index << 30 | index << 21 |
              index << 12;
    walk_va &= -(1ull << (3 + 9 * leaf));
    if (leaf == LEVEL_1G) {
        map_at(walk_va, NULL, leaf, PTE_RW | PTE_A | PTE_D);
        walk_va += (uint64_t)walked;
    } else {
        map_at(walk_va, walked, leaf, PTE_RW | PTE_A | PTE_D);
    }
    for (int l = leaf; l <= LEVEL_PML4; l++) {
        *entry((void *)walk_va, l) |= PTE_A;
    }
    e = entry((void *)walk_va, level);
    *e &= ~(dirty ? PTE_D : PTE_A);
    flush_tlb();
    at = (uint8_t *)e;
    size = 4;
    linear = 0;
}

#define WALK_ROW(name, level, leaf, dirty)                              \
    static void prepare_walk_##name(void)                               \
    {                                                                   \
        walk(level, leaf, dirty);                                       \
    }
WALK_ROW(pte_a, LEVEL_4K, LEVEL_4K, false)
WALK_ROW(pte_d, LEVEL_4K, LEVEL_4K, true)
WALK_ROW(pde_a, LEVEL_2M, LEVEL_4K, false)
WALK_ROW(pdpte_a, LEVEL_1G, LEVEL_4K, false)
WALK_ROW(pml4e_a, LEVEL_PML4, LEVEL_4K, false)
WALK_ROW(large_a, LEVEL_2M, LEVEL_2M, false)
WALK_ROW(large_d, LEVEL_2M, LEVEL_2M, true)
WALK_ROW(huge_d, LEVEL_1G, LEVEL_1G, true)

#define LOOK_ROW(name, level)                                           \
    static void prepare_look_##name(void)                               \
    {                                                                   \
        walk(level, LEVEL_4K, false);                                   \
        *(uint64_t *)at |= PTE_A;                                       \
        flush_tlb();                                                    \
        size = 8;                                                       \
    }
LOOK_ROW(pte, LEVEL_4K)
LOOK_ROW(pde, LEVEL_2M)
LOOK_ROW(pdpte, LEVEL_1G)
LOOK_ROW(pml4e, LEVEL_PML4)

/* A walk that reads the entry, and then sets a bit in it */
static void prepare_walk_both(void)
{
    walk(LEVEL_4K, LEVEL_4K, false);
    size = 8;
}

static void go_read(void)
{
    result[0] = read8((void *)walk_va);
}

static void go_write(void)
{
    write8((void *)walk_va, 0x78);
    result[0] = walked[0];
}

/* --- SVM --- */

static struct l2 guest;
static bool guest_ran;
static uint8_t *data, *data_va;

static void new_guest(bool nested)
{
    static uint8_t *vmcb[2], *hsave;
    static Space npt;
    static bool done[2];

    if (!done[nested]) {
        svm_init(&guest, nested);
        vmcb[nested] = guest.vmcb;
        npt = nested ? guest.npt : npt;
        hsave = (void *)rdmsr(0xc0010117);
        done[nested] = true;
    }
    guest.vmcb = vmcb[nested];
    /* A run on zeroes may have taken these away */
    VMCB32(&guest, 0x10) = 3;
    VMCB32(&guest, 0x58) = 1;
    VMCB32(&guest, 0x5c) = 1;
    guest.npt = npt;
    wrmsr(0xc0010117, (uint64_t)hsave);
    if (!data) {
        data = frame();
        /* Tables of its own, with the entry in the middle */
        data_va = (uint8_t *)0x7100000000ul + (MIDDLE / 8 + 3) * PAGE_SIZE;
    }
    map_at((uint64_t)data_va, data, LEVEL_4K, PTE_RW);
    memset(data, 0x5a, PAGE_SIZE);
    guest_ran = false;
    linear = 0;
}

static uint64_t l2_nothing(uint64_t unused)
{
    guest_ran = true;
    return unused;
}

static uint64_t l2_write(uint64_t p)
{
    inner = TRY(write32((void *)p, 0x12345678));
    return inner.vec;
}

static uint64_t l2_read(uint64_t p)
{
    volatile uint32_t v = 0;

    inner = TRY(v = read32((void *)p));
    result[0] = v;
    return v;
}

static uint64_t vmcb_address;

/* VMRUN, what it loads */
static void prepare_vmrun(void)
{
    new_guest(false);
    svm_run(&guest, l2_nothing, 0);
    guest_ran = false;
    at = guest.vmcb + 0x0c;     /* the first it wants: intercepts */
    size = 8;
}

extern uint8_t svm_guest_entry[];
uint64_t svm_enter(uint64_t vmcb, uint64_t (*fn)(uint64_t), uint64_t arg);

/* svm_run() would look at the VMCB by itself */
static void go_vmrun(void)
{
    VMCB64(&guest, 0x578) = (uint64_t)svm_guest_entry;
    VMCB64(&guest, 0x5d8) = (uint64_t)guest.stack + PAGE_SIZE;
    svm_enter((uint64_t)guest.vmcb, l2_nothing, 0);
    result[0] = guest_ran;
}

/* #VMEXIT, what it stores into the VMCB */
static void prepare_vmexit(void)
{
    prepare_vmrun();
    VMCB64(&guest, 0x70) = 0x5555;
    at = guest.vmcb + 0x70;     /* the exit code comes first */
    size = 8;
}

/* VMRUN, the host's state */
static void prepare_hsave(void)
{
    prepare_vmrun();
    at = (uint8_t *)rdmsr(0xc0010117) + 0x468;      /* GDTR */
    *(uint64_t *)at = 0x5555;
    size = 8;
}

static void prepare_vmsave(void)
{
    new_guest(false);
    memset(data, 0x5a, PAGE_SIZE);
    vmcb_address = (uint64_t)data;
    at = data + 0x440;          /* the selector of FS */
    size = 2;
}

static void go_vmsave(void)
{
    asm volatile("vmsave %0" : : "a" (vmcb_address) : "memory");
}

static void prepare_vmload(void)
{
    new_guest(false);
    wrmsr(0xc0000082, 0);
    asm volatile("vmsave %0" : : "a" ((uint64_t)data) : "memory");
    *(uint64_t *)(data + 0x608) = 0x1234;
    vmcb_address = (uint64_t)data;
    at = data + 0x620;          /* KERNEL_GS_BASE is the first */
    size = 8;
}

static void go_vmload(void)
{
    asm volatile("vmload %0" : : "a" (vmcb_address) : "memory");
    result[0] = rdmsr(0xc0000082);
}

static void aim_data(void)
{
    at = data + MIDDLE + 0x24;
    linear = (uint64_t)data_va + MIDDLE + 0x24;
    size = 4;
}

static void prepare_l2(void)
{
    new_guest(false);
    aim_data();
}

static void prepare_l2_nested(void)
{
    new_guest(true);
    aim_data();
}

static void go_l2_write(void)
{
    svm_run(&guest, l2_write, linear);
    result[1] = guest.exit_code;
}

static void go_l2_read(void)
{
    svm_run(&guest, l2_read, linear);
    result[1] = guest.exit_code;
}

/* The entry of the nested tables that maps the data */
static void prepare_npt_dirty(void)
{
    uint64_t *e;

    new_guest(true);
    aim_data();
    walk_va = linear;
    linear = 0;
    e = space_entry(&guest.npt, (uint64_t)data, LEVEL_4K);
    *e = (*e | PTE_A) & ~PTE_D;
    at = (uint8_t *)e;
    size = 4;
}

/* The guest's own entry, under nested paging */
static void prepare_l2_pte_dirty(void)
{
    uint64_t *e;

    new_guest(true);
    aim_data();
    walk_va = linear;
    linear = 0;
    e = entry(data_va, LEVEL_4K);
    *e = (*e | PTE_A) & ~PTE_D;
    flush_tlb();
    at = (uint8_t *)e;
    size = 4;
}

static void prepare_l2_look(void)
{
    uint64_t *e;

    new_guest(true);
    aim_data();
    walk_va = linear;
    linear = 0;
    e = entry(data_va, LEVEL_4K);
    *e |= PTE_A | PTE_D;
    flush_tlb();
    at = (uint8_t *)e;
    size = 8;
}

static void go_l2_walk_write(void)
{
    svm_run(&guest, l2_write, walk_va);
    result[0] = read32(data + MIDDLE + 0x24);
}

static void go_l2_walk_read(void)
{
    svm_run(&guest, l2_read, walk_va);
}

/* --- SMM --- */

extern uint8_t smi_start[], smi_end[];
static uint8_t *smbase;

static uint64_t smm_move(uint64_t base)
{
    write32((void *)0xaff00, base);
    return 0;
}

static uint64_t smm_nothing(uint64_t unused)
{
    return unused;
}

static uint64_t smm_write(uint64_t p)
{
    inner = TRY(write32((void *)p, 0x12345678));
    return inner.vec;
}

static void smm_setup(void)
{
    if (!smbase) {
        if (!smm_init()) {
            bail("SMRAM can't be opened");
        }
        smbase = frames(16);
        memcpy(smbase + 0x8000, smi_start, smi_end - smi_start);
        smm_run(smm_move, (uint64_t)smbase);
    }
    linear = 0;
}

/* The saved FS base, where no harm is done if it is not stored */
static void prepare_smi(void)
{
    smm_setup();
    at = smbase + 0xfe00;       /* the selector of ES is the first */
    *(uint64_t *)(smbase + 0xfe48) = 0x1234;
    size = 2;
}

static void go_smi(void)
{
    smm_run(smm_nothing, 0);
    wrmsr(0xc0000100, 0);
}

static void prepare_smm_data(void)
{
    new_guest(false);
    smm_setup();
    aim_data();
}

static void go_smm_write(void)
{
    smm_run(smm_write, linear);
}

/* --- The rows --- */

static const struct row rows[] = {
    { "INT n", "do_interrupt64, pushq", DELIVERY, true,
      prepare_int, go_int, 1, 0 },
    { "#UD", "do_interrupt64 of a fault", DELIVERY, true,
      prepare_ud, go_ud, 1, 0 },
    { "#GP, with error code", "do_interrupt64, has_error_code", DELIVERY,
      true, prepare_error_code, go_error_code, 1, 0 },
    { "#PF", "do_interrupt64 after tlb_fill", DELIVERY, true,
      prepare_pf, go_pf, 1, 0 },
    { "INT n at CPL 3", "do_interrupt64, stack of the TSS", DELIVERY, true,
      prepare_inner, go_inner, 1, NO_RIP },
    { "IDT gate", "do_interrupt64, cpu_ldl_kernel", DELIVERY, false,
      prepare_idt, go_idt, 3, 0 },
    { "RSP0 of the TSS", "get_rsp_from_tss", DELIVERY, false,
      prepare_rsp0, go_inner, 1, NO_RIP },
    { "call gate", "helper_lcall_protected, same stack", INSN, true,
      prepare_gate, go_far_call, 1, 0 },
    { "call gate, stack of the TSS", "helper_lcall_protected, inner", INSN,
      true, prepare_inner_gate, go_inner_gate, 1, NO_RIP },
    { "far call", "helper_lcall_protected, code segment", INSN, true,
      prepare_far_call, go_far_call, 1, 0 },
    { "accessed bit, data", "helper_load_seg", INSN, true,
      prepare_data_segment, go_mov_ds, 1, 0 },
    { "accessed bit, data, from 32-bit code", "helper_load_seg", INSN, true,
      prepare_data_segment, go_compat, 1, 0 },
    { "accessed bit, LDT", "helper_load_seg", INSN, true,
      prepare_ldt_accessed, go_mov_ldt, 1, 0 },
    { "MOV DS, LDT", "helper_load_seg", INSN, false, prepare_ldt_look,
      go_mov_ldt, 2, 0 },
    { "busy bit", "helper_ltr", INSN, true,
      prepare_tss_descriptor, go_ltr, 1, 0 },
    { "LAR", "load_segment_ra", INSN, false, prepare_descriptor, go_lar,
      2, 0 },
    { "MOV DS", "helper_load_seg, load_segment_ra", INSN, false,
      prepare_descriptor, go_mov_ds, 2, 0 },
    { "far return", "helper_ret_protected, load_segment_ra", INSN, false,
      prepare_code_descriptor, go_lret, 2, 0 },
    { "LLDT", "helper_lldt", INSN, false, prepare_ldt, go_lldt, 3, 0 },
    { "I/O permission map", "check_io", INSN, false, prepare_iomap, go_in,
      2, IN_USE | NO_RIP | ZERO_SAME },
    { "A in PTE", "ptw_setl", WALK, true, prepare_walk_pte_a, go_read,
      1, 0 },
    { "D in PTE", "ptw_setl", WALK, true, prepare_walk_pte_d, go_write,
      1, 0 },
    { "A in PDE", "ptw_setl", WALK, true, prepare_walk_pde_a, go_read,
      1, 0 },
    { "A in PDPTE", "ptw_setl", WALK, true, prepare_walk_pdpte_a, go_read,
      1, 0 },
    { "A in PML4E", "ptw_setl", WALK, true, prepare_walk_pml4e_a, go_read,
      1, 0 },
    { "A in a 2 MiB leaf", "ptw_setl", WALK, true, prepare_walk_large_a,
      go_read, 1, 0 },
    { "D in a 2 MiB leaf", "ptw_setl", WALK, true, prepare_walk_large_d,
      go_write, 1, 0 },
    { "D in a 1 GiB leaf", "ptw_setl", WALK, true, prepare_walk_huge_d,
      go_write, 1, 0 },
    { "walk, PTE", "ptw_ldq", WALK, false, prepare_look_pte, go_read, 1, 0 },
    { "walk, PDE", "ptw_ldq", WALK, false, prepare_look_pde, go_read, 1, 0 },
    { "walk, PDPTE", "ptw_ldq", WALK, false, prepare_look_pdpte, go_read,
      1, 0 },
    { "walk, PML4E", "ptw_ldq", WALK, false, prepare_look_pml4e, go_read,
      1, 0 },
    { "walk and A, PTE", "ptw_ldq, ptw_setl", WALK, false, prepare_walk_both,
      go_read, 2, 0 },
    { "VMRUN, VMCB", "x86_ldq_phys; the exit stores there too", STATE, false,
      prepare_vmrun, go_vmrun, 2, PARTIAL },
    { "#VMEXIT, VMCB", "do_vmexit, x86_stl_phys", STATE, true,
      prepare_vmexit, go_vmrun, 1, PARTIAL },
    { "VMRUN, host save area", "x86_stq_phys", STATE, true,
      prepare_hsave, go_vmrun, 1, PARTIAL | NO_DISCARD },
    { "VMSAVE", "svm_save_seg, cpu_stw_mmuidx", STATE, true, prepare_vmsave,
      go_vmsave, 1, PARTIAL },
    { "VMLOAD", "x86_ldq_phys", STATE, false, prepare_vmload,
      go_vmload, 1, PARTIAL },
    { "a store of an SVM guest", "do_st4_mmu", INSN, true, prepare_l2,
      go_l2_write, 1, 0 },
    { "a load of an SVM guest", "do_ld4_mmu", INSN, false, prepare_l2,
      go_l2_read, 1, 0 },
    { "a store under nested paging", "do_st4_mmu", INSN, true,
      prepare_l2_nested, go_l2_write, 1, 0 },
    { "a load under nested paging", "do_ld4_mmu", INSN, false,
      prepare_l2_nested, go_l2_read, 1, 0 },
    { "D in a nested PTE", "ptw_setl, MMU_PHYS_IDX", WALK, true,
      prepare_npt_dirty, go_l2_walk_write, 1, 0 },
    { "D in a guest's PTE under nested paging", "ptw_setl, MMU_NESTED_IDX",
      WALK, true, prepare_l2_pte_dirty, go_l2_walk_write, 1, 0 },
    { "walk of a guest's PTE under nested paging", "ptw_ldq", WALK, false,
      prepare_l2_look, go_l2_walk_read, 1, 0 },
    { "SMM entry", "do_smm_enter, x86_stw_phys", STATE, true, prepare_smi,
      go_smi, 1, PARTIAL },
    { "a store in SMM", "do_st4_mmu, other address space", INSN, true,
      prepare_smm_data, go_smm_write, 1, 0 },
};

static void tables_back(void)
{
    memcpy(idt, old_gates, sizeof(old_gates));
    asm volatile("lgdt %0; lidt %1" : : "m" (gdt_ptr), "m" (idt_ptr));
    set_descriptor16(gdt, SEL_TSS, 9, &tss[0], sizeof(struct tss) - 1);
    asm volatile("ltr %w0; lldt %w1" : : "r" (SEL_TSS), "r" (0));
    own_tss = &tss[0];
    if (mpx_on) {
        wrmsr(MSR_BNDCFGS, 0);
        mpx_on = false;
    }
}

static const struct row mpx_rows[] = {
    { "BNDMOV, store", "gen_BNDMOV, two stores", INSN, true, prepare_bndmov,
      go_bndmov, 1, 0 },
    { "BNDMOV, load", "gen_BNDMOV, two loads", INSN, false,
      prepare_bndmov_load, go_bndmov_load, 2, 0 },
    { "BNDSTX", "helper_bndstx64", INSN, true, prepare_bndstx, go_bndstx,
      1, 0 },
    { "BNDLDX", "helper_bndldx64", INSN, false, prepare_bndmov_load,
      go_bndldx, 3, 0 },
};

/* --- Strings that run into a protected sub-page --- */

static void strings(void)
{
    static const struct {
        const char *name;
        int step, kind;
        bool back;
    } all[] = {
        { "REP STOSB", 1, 0, false }, { "REP STOSQ", 8, 1, false },
        { "REP MOVSB", 1, 2, false }, { "REP MOVSD", 4, 3, false },
        { "REP STOSW, backwards", 2, 4, true },
        { "REP MOVSQ, backwards", 8, 5, true },
        { "REP INSB", 1, 6, false },
    };
    uint8_t *f = frame(), *p = map(f, PTE_RW), *from = frame();
    uint8_t want[PAGE_SIZE];
    uint64_t insn;

    for (unsigned i = 0; i < ARRAY_SIZE(all); i++) {
        int step = all[i].step, n = 6, pass = 3;
        int first = all[i].back ? MIDDLE + SUBPAGE + (pass - 1) * step
                                : MIDDLE - pass * step;

        for (int a = 0; a < 3; a++) {
            static const char *const actions[] = { "report", "discard",
                                                   "fault" };
            uint64_t di, si, c, stop;
            bool good;
            Fault t;
            Seen s;

            memset(f, 0x5a, PAGE_SIZE);
            memset(from, 0x77, PAGE_SIZE);
            memcpy(want, f, PAGE_SIZE);
            for (int k = 0; k < (a == 0 ? n : pass); k++) {
                memset(want + first + (all[i].back ? -k : k) * step,
                       all[i].kind == 6 ? 0xff : 0x77, step);
            }
            arm((uint64_t)f + MIDDLE, SUBPAGE, "read", actions[a], 0);
            di = (uint64_t)p + first;
            si = (uint64_t)from + 2048;
            c = n;
#define STRING(pre, text)                                               \
    asm volatile("lea 1f(%%rip), %0;" pre " 1: " text "; cld"           \
                 : "=&r" (insn), "+D" (di), "+S" (si), "+c" (c)         \
                 : "a" (0x7777777777777777ull), "d" (0x80)              \
                 : "memory", "cc")
            t = TRY(
                switch (all[i].kind) {
                case 0: STRING("", "rep stosb"); break;
                case 1: STRING("", "rep stosq"); break;
                case 2: STRING("", "rep movsb"); break;
                case 3: STRING("", "rep movsl"); break;
                case 4: STRING("std;", "rep stosw"); break;
                case 5: STRING("std;", "rep movsq"); break;
                case 6: STRING("", "rep insb"); break;
                });
            asm volatile("cld");
            s = disarm();
            stop = (uint64_t)f + first +
                   (all[i].back ? -pass : pass) * step;
            good = !memcmp(f, want, PAGE_SIZE);
            if (!good) {
                note("%s, %s: memory is not as it should be", all[i].name,
                     actions[a]);
            }
            if (a == 2) {
                good &= t.vec == GP && !t.err &&
                        t.gpr[RCX] == (uint64_t)n - pass &&
                        t.gpr[RDI] == (uint64_t)p + (stop - (uint64_t)f);
            } else {
                good &= t.vec == NONE;
            }
            good &= seen_first(s, a == 2 ? 1 : n - pass, stop, step, true,
                               0, a == 2 ? t.rip : 0,
                               (uint64_t)p + (stop - (uint64_t)f),
                               actions[a], all[i].name);
            ok(good, "%s runs into it, %s: %s, RCX %lu", all[i].name,
               actions[a], fault_text(t), a == 2 ? t.gpr[RCX] : 0);
        }
    }
}

/*
 * Loads that run into "none". All bytes are 0x77; a discarded load is zero,
 * which ends the comparisons and is what the others get.
 */
static void string_loads(void)
{
    static const struct {
        const char *name;
        int step, kind;
        bool back, compares, rdi;
    } all[] = {
        { "REP LODSB", 1, 0, false, false, false },
        { "REP LODSQ, backwards", 8, 1, true, false, false },
        { "REPE SCASB", 1, 2, false, true, true },
        { "REPE SCASL", 4, 3, false, true, true },
        { "REPE CMPSB, first operand", 1, 4, false, true, false },
        { "REPE CMPSQ, second operand", 8, 5, false, true, true },
        { "REP MOVSB, from", 1, 6, false, false, false },
        { "REP MOVSW, from, backwards", 2, 7, true, false, false },
        { "REP OUTSB", 1, 8, false, false, false },
    };
    static const char *const actions[] = { "report", "discard", "fault" };
    uint8_t *f = frame(), *p = map(f, PTE_RW), *other = frame();

    for (unsigned i = 0; i < ARRAY_SIZE(all); i++) {
        int step = all[i].step, n = 6, pass = 3;
        int first = all[i].back ? MIDDLE + SUBPAGE + (pass - 1) * step
                                : MIDDLE - pass * step;
        int stop = first + (all[i].back ? -pass : pass) * step;

        for (int a = 0; a < 3; a++) {
            bool discard = a == 1, fault = a == 2;
            int count = fault || (discard && all[i].compares) ? 1 : n - pass;
            uint64_t di, si, c, rax = 0x7777777777777777, here;
            bool good = true;
            Fault t;
            Seen s;

            memset(f, 0x77, PAGE_SIZE);
            memset(other, all[i].kind < 6 ? 0x77 : 0x33, PAGE_SIZE);
            arm((uint64_t)f + MIDDLE, SUBPAGE, "none", actions[a], 0);
            di = all[i].rdi ? (uint64_t)p + first : (uint64_t)other + 2048;
            si = all[i].rdi ? (uint64_t)other + 2048 : (uint64_t)p + first;
            c = n;
#define LOADING(pre, text)                                              \
    asm volatile("lea 1f(%%rip), %%r8; mov %%r8, row_insn;"             \
                 pre " 1: " text "; cld"                                \
                 : "+D" (di), "+S" (si), "+c" (c), "+a" (rax)           \
                 : "d" (0x80) : "r8", "memory", "cc")
            t = TRY(
                switch (all[i].kind) {
                case 0: LOADING("", "rep lodsb"); break;
                case 1: LOADING("std;", "rep lodsq"); break;
                case 2: LOADING("", "repe scasb"); break;
                case 3: LOADING("", "repe scasl"); break;
                case 4: LOADING("", "repe cmpsb"); break;
                case 5: LOADING("", "repe cmpsq"); break;
                case 6: LOADING("", "rep movsb"); break;
                case 7: LOADING("std;", "rep movsw"); break;
                case 8: LOADING("", "rep outsb"); break;
                });
            asm volatile("cld");
            s = disarm();
            if (fault) {
                here = t.gpr[all[i].rdi ? RDI : RSI];
                good &= t.vec == GP && !t.err && t.rip == row_insn &&
                        t.gpr[RCX] == (uint64_t)n - pass &&
                        here == (uint64_t)p + stop;
            } else {
                good &= t.vec == NONE &&
                        c == (discard && all[i].compares ?
                              (uint64_t)n - pass - 1 : 0);
            }
            if (all[i].kind < 2 && !fault) {
                uint64_t want = 0x7777777777777777;

                want = !discard ? want : all[i].kind ? 0 : want & ~0xffull;
                good &= rax == want;
            }
            for (int k = 0; all[i].kind / 2 == 3 && k < n; k++) {
                uint8_t want = k < pass ? 0x77 : fault ? 0x33 :
                               discard ? 0 : 0x77;

                good &= other[2048 + (all[i].back ? -k : k) * step] == want;
            }
            good &= seen_first(s, count, (uint64_t)f + stop, step, false, 0,
                               row_insn, (uint64_t)p + stop, actions[a],
                               all[i].name);
            ok(good, "%s runs into it, %s: %s, RCX %lu, RAX 0x%lx",
               all[i].name, actions[a], fault_text(t),
               fault ? t.gpr[RCX] : c, rax);
        }
    }
}

/* --- Other names of the RAM --- */

/*
 * 0xdc000 to 0xdffff: there is no option ROM. (The first one is kvmvapic's,
 * which stays RAM whatever PAM says: vapic_map_rom_writable().)
 */
static void pam(void)
{
    uint32_t id = pci_read32(0, 0, 0);
    int reg = id == 0x29c08086 ? 0x94 : 0x5d;
    uint8_t *p = (uint8_t *)0xdd000;
    uint8_t old = pci_read32(0, 0, reg) >> (reg & 3) * 8;
    uint8_t rest = old & 0xf, rom, v = 0;
    Fault t;
    Seen s;

    pci_write8(0, 0, reg, rest);
    rom = read8(p);
    pci_write8(0, 0, reg, 0x30 | rest);
    write8(p, rom ^ 0x11);
    ok(read8(p) == (rom ^ 0x11), "PAM: 0xdd000 is RAM");
    pci_write8(0, 0, reg, rest);
    write8(p, rom ^ 0x22);
    ok(read8(p) == rom, "PAM off: it is not");
    pci_write8(0, 0, reg, 0x30 | rest);
    ok(read8(p) == (rom ^ 0x11), "PAM on again: the RAM is as before");

    arm((uint64_t)p, SUBPAGE, "none", "fault", 0);
    expect(TRY(write8(p, rom ^ 0x33)), GP, 0, "PAM on: a store is stopped");
    s = seen_so_far();
    ok(seen_first(s, 1, (uint64_t)p, 1, true, 0, 0, (uint64_t)p, "fault",
                  "PAM on"), "PAM on: one event");

    pci_write8(0, 0, reg, rest);
    t = TRY(write8(p, rom ^ 0x44); v = read8(p));
    ok(t.vec == NONE && v == rom, "PAM off: what is there is not protected");
    s = seen_so_far();
    ok(seen_none(s, "PAM off"), "PAM off: no event");

    pci_write8(0, 0, reg, 0x10 | rest);
    expect(TRY(read8(p)), GP, 0, "PAM for reads: a load is stopped");
    pci_write8(0, 0, reg, 0x20 | rest);
    expect(TRY(write8(p, rom ^ 0x55)), GP, 0,
           "PAM for writes: a store is stopped");
    pci_write8(0, 0, reg, 0x30 | rest);
    expect(TRY(write8(p, rom ^ 0x66)), GP, 0,
           "PAM on again: a store is stopped");
    s = disarm();
    ok(seen_first(s, 3, (uint64_t)p, 1, false, 0, 0, (uint64_t)p, "fault",
                  "PAM"), "PAM: three events");
    ok(read8(p) == (rom ^ 0x11), "PAM: the byte is as before");
    pci_write8(0, 0, reg, old);
}

/*
 * With address line 20 off, an address whose bit 20 is set is that of other
 * RAM. Code, tables and data that are used meanwhile have to be where the bit
 * is clear.
 */
extern uint8_t a20_start[], a20_end[];
asm(".text\n"
    "a20_start: mov %cr3, %r8; mov %rsi, %cr3\n"
    "xor %eax, %eax; outb %al, $0x92\n"
    "mov (%rdi), %cl; movb $0x99, (%rdi)\n"
    "mov $2, %al; outb %al, $0x92\n"
    "mov %r8, %cr3; movzbl %cl, %eax; ret\n"
    "a20_end:\n");
static Space a20_space;
static uint8_t *a20_code, *a20_data, *a20_va;

/* Early, in the first MiB of frames */
static void a20_setup(void)
{
    uint64_t bit = 1ull << 20;

    a20_space = space_new(4);
    space_identity(&a20_space, PAGE_1G, PTE_RW);
    a20_code = frame();
    a20_data = frame();
    a20_va = (uint8_t *)window(PAGE_SIZE);
    *space_entry(&a20_space, (uint64_t)a20_va, LEVEL_4K) =
        ((uint64_t)a20_data | bit) | PTE_RW;
    memcpy(a20_code, a20_start, a20_end - a20_start);
    if ((uint64_t)frame() & bit) {
        bail("frames begin where address line 20 matters");
    }
}

static void a20(void)
{
    uint64_t (*run)(void *, uint64_t) = (void *)a20_code;
    uint8_t *p = a20_data;
    uint64_t other = (uint64_t)p | 1 << 20;
    Seen s;

    *p = 0x11;
    ok(run(a20_va, a20_space.root) == 0x11 && *p == 0x99,
       "A20: with the line off, the address is that of other RAM");
    *p = 0x11;
    arm((uint64_t)p, SUBPAGE, "read", "discard", 0);
    ok(run(a20_va, a20_space.root) == 0x11 && *p == 0x11,
       "A20: a store to it is discarded");
    s = disarm();
    ok(seen_first(s, 1, (uint64_t)p, 1, true, 0, 0, (uint64_t)a20_va,
                  "discard", "A20, read"), "A20: one event");
    arm((uint64_t)p, SUBPAGE, "none", "discard", 0);
    ok(run(a20_va, a20_space.root) == 0, "A20: so is a load");
    s = disarm();
    ok(seen_first(s, 2, (uint64_t)p, 1, false, 0, 0, (uint64_t)a20_va,
                  "discard", "A20, none") && *p == 0x11, "A20: two events");
    arm(other, SUBPAGE, "none", "discard", 0);
    ok(run(a20_va, a20_space.root) == 0x11 && *p == 0x99,
       "A20: where the bit is set does not matter");
    s = disarm();
    ok(seen_none(s, "A20, other"), "A20: no event");
}

static uint64_t smm_write_byte(uint64_t p)
{
    inner = TRY(write8((void *)p, 0x99));
    return inner.vec;
}

static void smram(void)
{
    uint32_t id = pci_read32(0, 0, 0);
    int reg = id == 0x29c08086 ? 0x9d : 0x72;
    uint8_t *p = (uint8_t *)0xa4000;
    Seen s;

    smm_setup();
    pci_write8(0, 0, reg, 0x4a);
    write8(p, 0x11);
    arm((uint64_t)p, SUBPAGE, "read", "fault", 0);
    expect(TRY(write8(p, 0x12)), GP, 0, "open SMRAM: a store is stopped");
    s = seen_so_far();
    ok(seen_first(s, 1, (uint64_t)p, 1, true, 0, 0, (uint64_t)p, "fault",
                  "SMRAM"), "open SMRAM: one event");
    pci_write8(0, 0, reg, 0x0a);
    smm_run(smm_write_byte, (uint64_t)p);
    expect(inner, GP, 0, "closed SMRAM: a store in SMM is stopped");
    s = seen_so_far();
    ok(s.events == 1 && s.counted == 1 && s.size == 1 && s.write,
       "closed SMRAM: one event, addr 0x%lx", s.addr);
    pci_write8(0, 0, reg, 0x4a);
    expect(TRY(write8(p, 0x13)), GP, 0, "opened again: a store is stopped");
    disarm();
    ok(read8(p) == 0x11, "SMRAM: the byte is as before");
    pci_write8(0, 0, reg, 0x0a);
}

/* --- A device --- */

/*
 * fw_cfg's DMA: the device reads a structure of 16 bytes, big-endian, writes
 * what was asked for, and last the structure's first four bytes.
 */
static void fw_cfg_prepare(uint8_t *request, uint8_t *to)
{
    uint32_t a = (uint32_t)(uint64_t)to;
    uint8_t bytes[] = {
        0, 5, 0, 0xa,           /* select item 5, the number of CPUs; read */
        0, 0, 0, 2, 0, 0, 0, 0, a >> 24, a >> 16, a >> 8, a,
    };

    memcpy(request, bytes, sizeof(bytes));
}

static void fw_cfg_start(uint8_t *request)
{
    outl(0x514, 0);
    outl(0x518, __builtin_bswap32((uint32_t)(uint64_t)request));
}

static bool seen_device(Seen s, uint8_t *p, uint64_t bytes, const char *action)
{
    bool good = s.events == 1 && s.counted == 1 && s.write && !s.stops &&
                s.addr == (uint64_t)p && s.size == bytes &&
                !strcmp(s.source, "device") && !strcmp(s.action, action);

    if (!good) {
        note("%d events, %d counted, %d stops; %s addr 0x%lx size %lu %s",
             s.events, s.counted, s.stops, s.source, s.addr, s.size,
             s.action);
    }
    return good;
}

static void device(void)
{
    static const char *const actions[] = { "report", "discard", "fault" };
    uint8_t *f = frame(), *request = frame();
    uint8_t *to = f + MIDDLE + 0x10, *across = f + MIDDLE - 2;

    fw_cfg_prepare(request, to);
    fw_cfg_start(request);
    ok(*to == cpus() && !request[3], "a device writes to RAM");
    for (unsigned a = 0; a < ARRAY_SIZE(actions); a++) {
        const char *action = a ? "discard" : "report";
        bool good;

        *to = 0x55;
        fw_cfg_prepare(request, to);
        arm((uint64_t)f + MIDDLE, SUBPAGE, "read", actions[a], 0);
        fw_cfg_start(request);
        good = seen_device(disarm(), to, 2, action);
        ok(good && *to == (a ? 0x55 : cpus()) && request[3] == !!a,
           "a device's write (flatview_write_continue), %s: 0x%x, status %d",
           actions[a], *to, request[3]);

        /* The device overwrites control bits 0xa with the status, or not */
        fw_cfg_prepare(across, request);
        arm((uint64_t)f + MIDDLE, SUBPAGE, "read", actions[a], 0);
        fw_cfg_start(across);
        good = seen_device(disarm(), across, 4, action);
        ok(good && across[1] == (a ? 5 : 0) && across[3] == (a ? 0xa : 0),
           "four bytes of a device across the edge (address_space_stl), %s: "
           "0x%x 0x%x", actions[a], across[1], across[3]);
    }
}

/* --- RSM --- */

/* What the handler does last: what is stored is stored by then */
static uint64_t smm_arm(uint64_t action)
{
    if (action) {
        arm((uint64_t)smbase + 0xff80, SUBPAGE, "none", (const char *)action,
            0);
    }
    return 0;
}

/* R15 after an SMI, whatever it did to the other registers */
static uint64_t r15_after_smi(const char *action)
{
    uint64_t r15;

    smm_prepare(smm_arm, (uint64_t)action);
    asm volatile("mov %%rsp, sys_rsp; push %%rbx; push %%rbp;"
                 "mov %%rsp, sys_rip; movabs $0x1515151515151515, %%r15;"
                 "mov $0x5a, %%al; outb %%al, $0xb2;"
                 "1: pause; cmpb $0, smi_done; je 1b;"
                 "mov sys_rip, %%rsp; pop %%rbp; pop %%rbx; mov %%r15, %0"
                 : "=a" (r15) : : "rcx", "rdx", "rsi", "rdi", "r8", "r9",
                 "r10", "r11", "r12", "r13", "r14", "r15", "memory", "cc");
    return r15;
}

/* The sub-page with the general registers, from RAX down to R15 */
static void rsm(void)
{
    static const char *const actions[] = { "report", "discard", "fault",
                                           "pause" };

    smm_setup();
    ok(r15_after_smi(NULL) == 0x1515151515151515, "RSM loads R15");
    for (unsigned a = 0; a < ARRAY_SIZE(actions); a++) {
        bool report = !a;
        uint64_t v = r15_after_smi(actions[a]);
        Seen s = disarm();

        ok((v == (report ? 0x1515151515151515 : 0)) &
           seen_first(s, 1, (uint64_t)smbase + 0xfff8, 8, false, 0, 0, 0,
                      report ? "report" : "discard", "RSM"),
           "RSM (helper_rsm, x86_ldq_phys), %s: R15 is 0x%lx", actions[a], v);
    }
}

/* --- Code --- */

static uint64_t code_at(const void *p)
{
    return ((uint64_t (*)(void))p)();
}

static void put_code(uint8_t *p, uint32_t value)
{
    p[0] = 0xb8;                        /* mov $value, %eax; ret */
    memcpy(p + 1, &value, 4);
    p[5] = 0xc3;
}

static void code(void)
{
    uint8_t *f = frame(), *p = map(f, PTE_RW), *q;
    uint64_t xo = xo_bit();
    Fault t;
    Seen s;

    put_code(f + MIDDLE, 11);
    put_code(f + MIDDLE + SUBPAGE, 21);
    ok(code_at(p + MIDDLE) == 11, "code: it runs");
    arm((uint64_t)f + MIDDLE, SUBPAGE, "none", "fault", 0);
    ok(code_at(p + MIDDLE) == 11, "code: it runs where data access is none");
    s = seen_so_far();
    ok(seen_none(s, "fetch"), "code: a fetch gives no event");
    expect(TRY(read8(p + MIDDLE)), GP, 0, "code: a load is stopped");
    expect(TRY(write8(p + MIDDLE + 1, 12)), GP, 0,
           "code: a store is stopped");
    ok(code_at(p + MIDDLE) == 11, "code: it is as it was");
    s = seen_so_far();
    ok(s.events == 2, "code: two events");
    /* The page has translated code: stores beside it are seen at once */
    for (int i = 0; i < 3; i++) {
        write8(p + MIDDLE + SUBPAGE + 1, 22 + i);
        ok(code_at(p + MIDDLE + SUBPAGE) == 22u + i,
           "code beside it: changed to %d and run", 22 + i);
    }
    s = disarm();
    ok(seen_none(s, "beside"), "code beside it: no event");

    arm((uint64_t)f + MIDDLE, SUBPAGE, "read", "discard", 0);
    write8(p + MIDDLE + 1, 13);
    ok(code_at(p + MIDDLE) == 11 && f[MIDDLE + 1] == 11,
       "code: a discarded store does not change what runs");
    s = disarm();
    ok(s.events == 1, "code: one event");
    arm((uint64_t)f + MIDDLE, SUBPAGE, "read", "report", 0);
    write8(p + MIDDLE + 1, 14);
    ok(code_at(p + MIDDLE) == 14, "code: a reported store does");
    s = disarm();
    ok(s.events == 1, "code: one event");

    if (!xo_present()) {
        skip("execute-only: not on this CPU model");
        return;
    }
    /* The mapping by XO, the frame by none: closed in fact */
    q = map(f, PTE_P | xo);
    put_code(f + MIDDLE, 31);
    arm((uint64_t)f + MIDDLE, SUBPAGE, "none", "fault", 0);
    ok(code_at(q + MIDDLE) == 31, "execute-only: it runs");
    expect_pf(TRY(read8(q + MIDDLE)), PF_P, q + MIDDLE,
              "execute-only: its mapping can't be read");
    expect(TRY(read8(p + MIDDLE)), GP, 0,
           "execute-only: nor can the frame through another");
    t = TRY(write8(p + MIDDLE, 0));
    expect(t, GP, 0, "execute-only: nor written");
    s = disarm();
    ok(s.events == 2 && s.linear == (uint64_t)p + MIDDLE,
       "execute-only: two events");
}

/* --- Debuggers see through --- */

static void debuggers(void)
{
    uint8_t *f = frame(), *p = map(f, PTE_RW);
    const char *r;
    Seen s;

    memset(f + MIDDLE, 0x77, SUBPAGE);
    arm((uint64_t)f + MIDDLE, SUBPAGE, "none", "fault", 0);
    r = host("call", "{\"name\": \"monitor\", \"line\": \"xp /1gx 0x%lx\"}",
             (uint64_t)f + MIDDLE);
    ok(json_is(r, "last", "0x7777777777777777"), "monitor, xp: %s", r);
    r = host("call", "{\"name\": \"monitor\", \"line\": \"x /1gx 0x%lx\"}",
             (uint64_t)p + MIDDLE);
    ok(json_is(r, "last", "0x7777777777777777"), "monitor, x: %s", r);
    r = host("call", "{\"name\": \"pmemsave\", \"addr\": %lu}",
             (uint64_t)f + MIDDLE);
    ok(json_is(r, "data", "7777777777777777"), "pmemsave: %s", r);
    r = host("call", "{\"name\": \"gdb\", \"read\": %lu, \"write\": %lu}",
             (uint64_t)p + MIDDLE, (uint64_t)p + MIDDLE + 8);
    ok(json_is(r, "data", "7777777777777777"), "gdb reads: %s", r);
    s = disarm();
    ok(seen_none(s, "debuggers"), "debuggers: no event");
    ok(f[MIDDLE + 8] == 0x99, "gdb writes");
}

/* --- Reset --- */

static void reset(void)
{
    uint8_t *p = (uint8_t *)0x3000000;
    const char *r;

    if (boot_number() == 1) {
        arm((uint64_t)p, SUBPAGE, "none", "fault", 0);
        expect(TRY(read8(p)), GP, 0, "protected before a reset");
        host("events", "{}");
        for (;;) {
            outb(0x64, 0xfe);
        }
    }
    expect_none(TRY(write8(p, 1)), "not protected after it");
    r = qmp("query-subpage-access", "{}");
    ok(json_length(r, "return") == 0, "nothing is listed");
    r = host("events", "{\"name\": \"SUBPAGE_CLEARED\"}");
    ok(json_is(r, "count", "1") &&
       json_is(r, "events.0.data.reason", "reset") &&
       json_is(r, "events.0.data.size", "128"), "one event says so");
}

/* --- RAM that goes --- */

#define DIMM_SIZE   (16ull << 20)

static bool command(const char *name, const char *arguments)
{
    const char *r = qmp(name, "%s", arguments);

    if (qmp_failed(r)) {
        note("%s: %s", name, r);
        return false;
    }
    return true;
}

static uint8_t *plug(bool backend)
{
    static uint8_t *va;
    const char *r;
    uint64_t gpa;

    if (backend && !command("object-add", "{\"qom-type\": "
                            "\"memory-backend-ram\", \"id\": \"m\", "
                            "\"size\": 16777216}")) {
        return NULL;
    }
    if (!command("device_add", "{\"driver\": \"pc-dimm\", "
                 "\"id\": \"d\", \"memdev\": \"m\"}")) {
        return NULL;
    }
    r = qmp("query-memory-devices", "{}");
    gpa = json_number(r, "return.0.data.addr", 0);
    va = va ? va : (uint8_t *)window(PAGE_SIZE);
    map_at((uint64_t)va, (void *)gpa, LEVEL_4K, PTE_RW);
    return gpa ? va : NULL;
}

/* Eject it, as the guest's ACPI code would */
static void unplug(bool backend)
{
    command("device_del", "{\"id\": \"d\"}");
    outl(0xa00, 0);
    outb(0xa14, 8);
    ok(json_is(host("events", "{\"name\": \"DEVICE_DELETED\", "
                    "\"wait\": 1}"), "events.0.data.device", "d"),
       "the DIMM is gone");
    if (backend) {
        ok(command("object-del", "{\"id\": \"m\"}"), "its RAM is gone");
    }
}

static int listed(void)
{
    return json_length(qmp("query-subpage-access", "{}"), "return");
}

/* Protections belong to the RAM, not to where it is mapped */
static void removal(void)
{
    uint8_t *p = plug(true);
    uint64_t gpa;
    const char *r;

    if (!p) {
        ok(false, "a DIMM is plugged");
        return;
    }
    gpa = *entry(p, LEVEL_4K) & ~(PAGE_SIZE - 1);
    expect_none(TRY(write8(p, 1)), "RAM that was plugged");
    arm(gpa, SUBPAGE, "read", "fault", 0);
    expect(TRY(write8(p, 2)), GP, 0, "it can be protected");
    unplug(false);
    ok(listed() == 1, "unplugged, it is protected still");
    p = plug(false);
    ok(p && (*entry(p, LEVEL_4K) & ~(PAGE_SIZE - 1)) == gpa,
       "plugged again, at the same place");
    expect(TRY(write8(p, 3)), GP, 0, "plugged again, it is protected");
    host("events", "{}");
    unplug(true);
    r = host("events", "{\"name\": \"SUBPAGE_CLEARED\", \"wait\": 1}");
    ok(json_is(r, "count", "1") &&
       json_is(r, "events.0.data.reason", "ram-removed") &&
       json_is(r, "events.0.data.size", "128"),
       "when the RAM goes, its protection does: %s", r);
    ok(listed() == 0, "nothing is listed");
    p = plug(true);
    expect_none(TRY(write8(p, 4)), "other RAM in its place is not protected");
}

static void nothing(void *unused)
{
    (void)unused;
}

void test(void)
{
    if (!strcmp(command_line(), "reset")) {
        reset();
        return;
    }
    if (!strcmp(command_line(), "unplug")) {
        removal();
        return;
    }
    a20_setup();
    memcpy(old_gates, idt, sizeof(idt));
    on_all(nothing, NULL);      /* the others are up, and wait */
    rows_run(rows, ARRAY_SIZE(rows), tables_back);
    if (mpx_present()) {
        rows_run(mpx_rows, ARRAY_SIZE(mpx_rows), tables_back);
    } else {
        skip("MPX: not on this CPU model");
    }
    strings();
    string_loads();
    pam();
    a20();
    smram();
    device();
    rsm();
    code();
    debuggers();
}
