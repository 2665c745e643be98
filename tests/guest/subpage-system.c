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

#include "subpage.h"

GUEST_RUN("one-cpu", "-cpu max,+xo -append main");
GUEST_RUN("pc", "-machine pc -cpu max,+xo -append main");
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

/* Who makes the access, which decides what an action comes to */
enum { INSN, DELIVERY, WALK, STATE };

struct row {
    const char *name, *path;
    int source;
    bool write;
    void (*prepare)(void);
    void (*go)(void);
    int count;          /* events, but one for 'fault' */
    unsigned flags;
};
#define NO_DISCARD  1   /* the CPU is lost if it is not stored or loaded */
#define PARTIAL     2   /* more of the page may change */
#define IN_USE      4   /* the sub-page in front is in use as well */

/* What prepare() says: the access, and where the sub-page is */
static uint8_t *at;
static unsigned size;
static uint64_t linear;         /* 0: has none, or it doesn't matter */
static uint8_t *protected;      /* if not the sub-page of at */
/* What go() leaves */
static uint64_t result[2];
static Fault inner;             /* in an SVM guest or in SMM */
uint64_t sys_rsp, sys_rip, sys_insn;
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
                 "lea 2f(%%rip), %%rax; mov %%rax, sys_insn;"           \
                 "mov %%rsp, sys_rsp; mov $sys_other + 4096, %%rsp;"    \
                 "cmp %%eax, %%eax;" before "; 2: " insn "; 1:"         \
                 : : : "rax", "rcx", "rdx", "rbx", "rsi", "rdi", "r8",  \
                 "r9", "r10", "r11", "r12", "r13", "r14", "r15",        \
                 "memory", "cc")

#define MIDDLE  0x600           /* the sub-page in the page */

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
    sys_insn = 0;               /* that was the CALL, not the INT */
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
    sys_insn = 0;
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
    asm volatile("lea 1f(%%rip), %%rax; mov %%rax, sys_insn;"
                 "1: mov %1, %%ds; mov %2, %%ds"
                 : : "m" (sys_insn), "c" (SELECTOR), "d" (SEL_DATA)
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
    asm volatile("lea 1f(%%rip), %%rax; mov %%rax, sys_insn;"
                 "lea 2f(%%rip), %%rax; pushq %0; push %%rax;"
                 "1: lretq; 2: pushq %1; lea 3f(%%rip), %%rax;"
                 "push %%rax; lretq; 3:"
                 : : "i" (SELECTOR), "i" (SEL_CODE64) : "rax", "memory");
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
    asm volatile("lea 1f(%%rip), %%rax; mov %%rax, sys_insn;"
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

    asm volatile("lea 1f(%%rip), %%rdx; mov %%rdx, sys_insn;"
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
    asm volatile("lea 1f(%%rip), %%rax; mov %%rax, sys_insn;"
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
    sys_insn = (uint64_t)user_in;       /* starts with MOV EDX */
    result[0] = user(user_in, 0x80);
    sys_insn = 0;
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

/* --- Task switch: legacy protected mode with PAE paging --- */

struct tss32 {
    uint32_t link, esp0, ss0, esp1, ss1, esp2, ss2, cr3, eip, eflags;
    uint32_t eax, ecx, edx, ebx, esp, ebp, esi, edi;
    uint32_t es, cs, ss, ds, fs, gs, ldt, iomap;
};
static struct tss32 *task[2];
static uint8_t *task_code, *new_task;
static Space task_space;

static void set_tss32(int sel, struct tss32 *t)
{
    uint64_t a = (uint64_t)t;

    gdt[sel / 8] = (sizeof(*t) - 1) | (a & 0xffffff) << 16 | 0x89ull << 40 |
                   (a >> 24 & 0xff) << 56;
}

static void task_setup(int offset)
{
    static const uint8_t code[] = {
        0x31, 0xed, 0x31, 0xf6, 0x31, 0xff,     /* xor of ebp, esi, edi */
        0x89, 0x25, 0, 0, 0, 0,                 /* mov %esp, saved */
        0x89, 0x1d, 0, 0, 0, 0,                 /* mov %ebx, saved */
        0x9a, 0, 0, 0, 0, SEL_FREE, 0,          /* lcall $SEL_FREE, $0 */
        0x8b, 0x25, 0, 0, 0, 0,                 /* the new task */
        0x8b, 0x1d, 0, 0, 0, 0,
        0xb8, 0x42, 0, 0, 0,                    /* mov $0x42, %eax */
        0xc3,                                   /* ret */
    };
    struct mode32 m = { .kind = M32_READ, .addr = 0x100000 };

    if (!task_code) {
        task_space = pae_space();
        pae_access(&task_space, &m);            /* makes the first TSS */
        task_code = frame();
        memcpy(task_code, code, sizeof(code));
        write32(task_code + 8, (uint32_t)(uint64_t)task_code + 256);
        write32(task_code + 14, (uint32_t)(uint64_t)task_code + 260);
        write32(task_code + 27, (uint32_t)(uint64_t)task_code + 256);
        write32(task_code + 33, (uint32_t)(uint64_t)task_code + 260);
        task[0] = (struct tss32 *)((uint8_t *)frame() + MIDDLE);
        new_task = frame();
    }
    task[1] = (struct tss32 *)(new_task + offset);
    memset(new_task, 0, PAGE_SIZE);
    memset(task[0], 0, sizeof(*task[0]));
    *task[0] = (struct tss32) { .cr3 = task_space.root,
                                .eip = 0x5a5a5a5a };
    *task[1] = (struct tss32) {
        .cr3 = task_space.root, .eip = (uint32_t)(uint64_t)task_code + 25,
        .eflags = 2, .esp = (uint32_t)(uint64_t)task_code + 2048,
        .es = SEL_DATA, .cs = SEL_CODE32, .ss = SEL_DATA, .ds = SEL_DATA,
        .link = 0x5a5a,
    };
    set_tss32(SEL_TSS32, task[0]);
    set_tss32(SEL_FREE, task[1]);
}

static void prepare_old_task(void)
{
    task_setup(MIDDLE);
    at = (uint8_t *)task[0];
    linear = (uint64_t)at;
    size = sizeof(struct tss32);
}

static void prepare_new_task(void)
{
    task_setup(MIDDLE);
    at = (uint8_t *)task[1];
    linear = (uint64_t)at;
    size = 2;                   /* the link */
}

/* The link is in front of the sub-page */
static void prepare_new_task_read(void)
{
    task_setup(MIDDLE - 32);
    at = (uint8_t *)task[1];
    protected = new_task + MIDDLE;
    linear = (uint64_t)at;
    size = sizeof(struct tss32);
}

static void go_task(void)
{
    struct mode32 m = { .kind = M32_FETCH,
                        .addr = (uint32_t)(uint64_t)task_code };

    inner = pae_access(&task_space, &m);
    result[0] = m.result;
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
      prepare_inner, go_inner, 1, 0 },
    { "IDT gate", "do_interrupt64, cpu_ldl_kernel", DELIVERY, false,
      prepare_idt, go_idt, 3, 0 },
    { "RSP0 of the TSS", "get_rsp_from_tss", DELIVERY, false,
      prepare_rsp0, go_inner, 1, 0 },
    { "call gate", "helper_lcall_protected, same stack", INSN, true,
      prepare_gate, go_far_call, 1, 0 },
    { "call gate, stack of the TSS", "helper_lcall_protected, inner", INSN,
      true, prepare_inner_gate, go_inner_gate, 1, 0 },
    { "far call", "helper_lcall_protected, code segment", INSN, true,
      prepare_far_call, go_far_call, 1, 0 },
    { "accessed bit, data", "helper_load_seg", INSN, true,
      prepare_data_segment, go_mov_ds, 1, 0 },
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
      2, IN_USE },
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
    { "task switch, old TSS", "switch_tss_ra, access_stl", INSN, true,
      prepare_old_task, go_task, 1, 0 },
    { "task switch, link of the new TSS", "switch_tss_ra, access_stw", INSN,
      true, prepare_new_task, go_task, 1, 0 },
    { "task switch, new TSS", "switch_tss_ra, access_ldl", INSN, false,
      prepare_new_task_read, go_task, 1, NO_DISCARD | IN_USE },
};

struct outcome {
    Fault f, inner;
    uint64_t result[2];
    uint8_t mem[PAGE_SIZE];
};

static struct outcome before, control, zeroed, got;

static uint8_t *page_of(const uint8_t *p)
{
    return (uint8_t *)((uint64_t)p & -PAGE_SIZE);
}

static void tables_back(void)
{
    memcpy(idt, old_gates, sizeof(old_gates));
    asm volatile("lgdt %0; lidt %1" : : "m" (gdt_ptr), "m" (idt_ptr));
    set_descriptor16(gdt, SEL_TSS, 9, &tss[0], sizeof(struct tss) - 1);
    asm volatile("ltr %w0; lldt %w1" : : "r" (SEL_TSS), "r" (0));
}

static void reset_result(void)
{
    result[0] = result[1] = 0;
    inner = (Fault) { .vec = NONE };
}

static void keep(struct outcome *o)
{
    o->inner = inner;
    memcpy(o->result, result, sizeof(result));
    memcpy(o->mem, page_of(at), PAGE_SIZE);
}

static void prepare(const struct row *r)
{
    tables_back();
    reset_result();
    own_tss = &tss[0];
    linear = 0;
    sys_insn = 0;
    protected = NULL;
    r->prepare();
    if (!protected) {
        protected = at;
    }
    protected = (uint8_t *)((uint64_t)protected & -SUBPAGE);
}

static void alone(const struct row *r, bool zero, struct outcome *o)
{
    prepare(r);
    if (zero) {
        memset(protected, 0, SUBPAGE);
    }
    memcpy(before.mem, page_of(at), PAGE_SIZE);
    o->f = TRY(r->go());
    keep(o);
    tables_back();
}

static bool same_fault(Fault a, Fault b)
{
    return a.vec == b.vec && (a.vec == NONE || a.err == b.err);
}

static bool compare(const struct row *r, const struct outcome *o,
                    const struct outcome *want, const uint8_t *mem,
                    const char *what)
{
    unsigned from = r->flags & PARTIAL ? (uint64_t)at % PAGE_SIZE & -SUBPAGE
                                       : 0;
    unsigned to = r->flags & PARTIAL ? from + SUBPAGE : PAGE_SIZE;

    if (!same_fault(o->f, want->f) || !same_fault(o->inner, want->inner)) {
        note("%s, %s: %s, %s", r->name, what, fault_text(o->f),
             fault_text(o->inner));
        note("not %s, %s", fault_text(want->f), fault_text(want->inner));
        return false;
    }
    if (memcmp(o->result, want->result, sizeof(result))) {
        note("%s, %s: results 0x%lx 0x%lx, not 0x%lx 0x%lx", r->name, what,
             o->result[0], o->result[1], want->result[0], want->result[1]);
        return false;
    }
    for (unsigned i = from; i < to; i++) {
        if (o->mem[i] != mem[i]) {
            note("%s, %s: byte 0x%x of the page is 0x%x, not 0x%x", r->name,
                 what, i, o->mem[i], mem[i]);
            return false;
        }
    }
    return true;
}

static bool with_action(const struct row *r, const char *action)
{
    const char *taken = action;
    bool good, fault = false;
    uint64_t guard;
    int count = r->count;
    Fault f;
    Seen s;

    if (r->source != INSN && (!strcmp(action, "fault") ||
                              (r->source != DELIVERY &&
                               !strcmp(action, "pause")))) {
        taken = "discard";
    }
    if (!strcmp(taken, "discard") && r->flags & NO_DISCARD) {
        return true;
    }
    prepare(r);
    memcpy(before.mem, page_of(at), PAGE_SIZE);
    guard = (uint64_t)protected;
    arm(guard, SUBPAGE, r->write ? "read" : "none", action, 8);
    got.f = TRY(r->go());
    tables_back();
    s = disarm();
    keep(&got);

    if (!strcmp(taken, "fault")) {
        fault = true;
        count = 1;
        f = got.inner.vec != NONE ? got.inner : got.f;
        good = f.vec == GP && !f.err &&
               (!sys_insn || r->go == go_in || r->go == go_inner_gate ||
                f.rip == sys_insn) &&
               !memcmp(got.mem, before.mem, PAGE_SIZE);
        if (!good) {
            note("%s, fault: %s (wanted at 0x%lx), memory %s", r->name,
                 fault_text(f), sys_insn,
                 memcmp(got.mem, before.mem, PAGE_SIZE) ? "changed"
                                                        : "as before");
        }
    } else if (!strcmp(taken, "discard") ||
               (!strcmp(taken, "pause") && r->source == DELIVERY)) {
        good = compare(r, &got, r->write ? &control : &zeroed, before.mem,
                       action);
    } else {
        good = compare(r, &got, &control, control.mem, action);
    }
    if (!fault && !strcmp(taken, "discard") && !r->write) {
        /* What the zeroes led to may have been fewer loads */
        count = s.events >= 1 && s.events <= count ? s.events : count;
    }
    if (!strcmp(taken, "pause") && s.stops) {
        count = s.events;
        s.stops = count;
    }
    return good & seen_first(s, count, (uint64_t)at, size, r->write, 0,
                             r->source == WALK || r->source == STATE ||
                             r->go == go_inner || r->go == go_inner_gate ||
                             r->go == go_in ? 0 : sys_insn, linear, taken,
                             action);
}

static bool beside(const struct row *r, int distance)
{
    uint64_t guard;
    char what[40];
    Seen s;

    prepare(r);
    guard = (uint64_t)protected + distance;
    if (guard / PAGE_SIZE != (uint64_t)at / PAGE_SIZE) {
        return true;
    }
    format(what, sizeof(what), "%s beside it", r->write ? "read" : "none");
    arm(guard, SUBPAGE, r->write ? "read" : "none", "fault", 0);
    got.f = TRY(r->go());
    tables_back();
    s = disarm();
    keep(&got);
    return compare(r, &got, &control, control.mem, what) &
           seen_none(s, what);
}

static void each_row(void)
{
    static const char *const actions[] = { "report", "discard", "fault",
                                           "pause" };

    for (unsigned i = 0; i < ARRAY_SIZE(rows); i++) {
        const struct row *r = &rows[i];
        bool good = true;

        if (!r->write && !(r->flags & NO_DISCARD)) {
            alone(r, true, &zeroed);
        }
        alone(r, false, &control);
        if (control.f.vec != NONE || control.inner.vec != NONE) {
            note("%s: %s %s without protection", r->name,
                 fault_text(control.f), fault_text(control.inner));
            good = false;
        }
        if (r->write && !memcmp(before.mem, control.mem, PAGE_SIZE)) {
            note("%s: does not change memory", r->name);
            good = false;
        }
        if (!r->write && !(r->flags & NO_DISCARD) &&
            same_fault(zeroed.f, control.f) &&
            same_fault(zeroed.inner, control.inner) &&
            !memcmp(zeroed.result, control.result, sizeof(result)) &&
            r->go != go_in) {
            note("%s: zeroes would not be seen", r->name);
            good = false;
        }
        for (unsigned a = 0; good && a < ARRAY_SIZE(actions); a++) {
            good &= with_action(r, actions[a]);
        }
        if (good && !(r->flags & PARTIAL)) {
            good &= beside(r, SUBPAGE);
            good &= r->flags & IN_USE || beside(r, -SUBPAGE);
        }
        ok(good, "%s (%s)", r->name, r->path);
    }
}

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

/* --- Other names of the RAM --- */

static void pam(void)
{
    uint32_t id = pci_read32(0, 0, 0);
    int reg = id == 0x29c08086 ? 0x91 : 0x5a;   /* 0xc0000 to 0xc7fff */
    uint8_t *p = (uint8_t *)0xc1000;
    uint8_t old = pci_read32(0, 0, reg) >> (reg & 3) * 8;
    Seen s;
    Fault t;

    pci_write8(0, 0, reg, 0x33);
    write8(p, 0x11);
    ok(read8(p) == 0x11, "PAM: 0xc1000 is RAM");
    arm((uint64_t)p, SUBPAGE, "none", "fault", 0);
    expect(TRY(write8(p, 0x12)), GP, 0, "PAM: a store is stopped");
    pci_write8(0, 0, reg, 0);
    pci_write8(0, 0, reg, 0x11);
    expect(TRY(read8(p)), GP, 0,
           "PAM: RAM for reads only: a load is stopped");
    pci_write8(0, 0, reg, 0x33);
    t = TRY(write8(p, 0x14));
    expect(t, GP, 0, "PAM: away and back: a store is stopped");
    s = disarm();
    ok(seen_first(s, 3, (uint64_t)p, 1, true, 0, 0, (uint64_t)p, "fault",
                  "PAM"), "PAM: three events");
    ok(read8(p) == 0x11, "PAM: the byte is as before");
    pci_write8(0, 0, reg, old);
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
    memcpy(old_gates, idt, sizeof(idt));
    on_all(nothing, NULL);      /* the others are up, and wait */
    each_row();
    strings();
    pam();
    smram();
    code();
    debuggers();
}
