/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The bypass matrix of sub-page protection, part three: legacy protected
 * mode. Page walks of 32-bit and PAE paging; 16- and 32-bit frames of
 * interrupts and call gates, with parameters; interrupts in real and virtual
 * 8086 mode; task switches by CALL, by IRET, and by an interrupt. rows.h says
 * what a row is.
 *
 * All of it is mapped one to one. A fault needs a stack that nothing is done
 * to, so that what an instruction does to a stack is done outside of CPL 0:
 * gates lead to CPL 1.
 */

#include "rows.h"

GUEST_RUN("one-cpu", "-cpu max -append main");
GUEST_RUN("four-threads",
          "accel=tcg,thread=multi timeout=120 -cpu max -smp 4 -append main");
GUEST_RUN("icount", "timeout=120 -cpu max -icount shift=1 -append main");
GUEST_RUN("one-insn", "accel=tcg,one-insn-per-tb=on timeout=120 -cpu max "
          "-append main");
GUEST_RUN("task-link", "timeout=20 -cpu max -append task-link");

/* Free descriptors: a gate or a TSS, and segments for where gates lead */
#define SEL_GATE    SEL_FREE
#define SEL_CODE1   (SEL_FREE + 0x08)
#define SEL_DATA1   (SEL_FREE + 0x10)
#define SEL_BASED   (SEL_FREE + 0x18)   /* 16-bit offsets are from its base */

#define RESULT      0x42

/* What the code below knows; the last one is seen by CPL 3 as well */
uint32_t leg_esp, leg_ebx, leg_stack;
struct {
    uint16_t limit;
    uint32_t base;
} __attribute__((packed)) leg_idt_ptr;
uint32_t leg_user_stack USER_DATA;

asm(".text\n.code32\n"
    /* An interrupt on leg_stack; goes on however its frame fared */
    "leg_int: mov %esp, leg_esp; mov leg_stack, %esp\n"
    "leg_int_insn: int $0xc4\n"
    "leg_int_back: mov leg_esp, %esp; mov $0x42, %eax; ret\n"
    "leg_int_back16: ljmp $0x18, $leg_int_back\n"
    "leg_gp: mov %esp, leg_esp; mov leg_stack, %esp; mov $0xfff8, %eax\n"
    "leg_gp_insn: mov %eax, %ds\n"
    "leg_idt: mov %esp, leg_esp; lidt leg_idt_ptr; jmp leg_int_insn\n"
    /* At CPL 1, where gates lead */
    "leg_cpl1: int $0x80\n"
    "leg_cpl1_param: mov 8(%esp), %eax; int $0x80\n"
    "leg_cpl1_param16: movzwl 4(%esp), %eax; int $0x80\n"
    /* Task switches; the new task goes on in leg_task_new */
    ".macro leg_begin\n"
    "xor %ebp, %ebp; xor %esi, %esi; xor %edi, %edi\n"
    "mov %esp, leg_esp; mov %ebx, leg_ebx\n"
    ".endm\n"
    "leg_task_call: leg_begin\n"
    "leg_task_call_insn: lcall $0x58, $0\n"
    "leg_task_gdt: leg_begin\n"
    "leg_task_gdt_insn: lcall $0x620, $0\n"
    "leg_task_int: leg_begin\n"
    "leg_task_int_insn: int $0xc4\n"
    "leg_task_iret: leg_begin; pushf; orl $0x4000, (%esp); popf\n"
    "leg_task_iret_insn: iret\n"
    "leg_task_new: mov leg_esp, %esp; mov leg_ebx, %ebx\n"
    "mov $0x42, %eax; ret\n"
    ".section .user.text, \"ax\"\n"
    "leg_user_int: mov $0x42, %eax\n"
    "leg_user_int_insn: int $0xc5\n"
    "leg_user_gate: mov leg_user_stack, %esp; mov $0x42, %eax\n"
    "leg_user_gate_insn: lcall $0x5b, $0\n"
    "leg_user_far: mov leg_user_stack, %esp\n"
    "leg_user_far_insn: lcall $0x2b, $1f\n"
    "1: mov $0x42, %eax; int $0x80\n"
    ".text\n.code64\n");
extern uint8_t leg_int[], leg_int_insn[], leg_int_back[], leg_int_back16[];
extern uint8_t leg_gp[], leg_gp_insn[], leg_idt[];
extern uint8_t leg_cpl1[], leg_cpl1_param[], leg_cpl1_param16[];
extern uint8_t leg_task_call[], leg_task_call_insn[], leg_task_new[];
extern uint8_t leg_task_gdt[], leg_task_gdt_insn[];
extern uint8_t leg_task_int[], leg_task_int_insn[];
extern uint8_t leg_task_iret[], leg_task_iret_insn[];
extern uint8_t leg_user_int[], leg_user_int_insn[];
extern uint8_t leg_user_gate[], leg_user_gate_insn[];
extern uint8_t leg_user_far[], leg_user_far_insn[];

static Space pae;
static uint8_t *page, *page2;
static uint8_t user_page[PAGE_SIZE] USER_DATA __attribute__((aligned(4096)));
static uint64_t old_idt[256];
static struct tss32 old_tss;
static const uint8_t *code;
static int code_cpl;

static uint32_t low(const void *p)
{
    return (uint32_t)(uint64_t)p;
}

/* After an access of any kind, which makes the tables of the mode */
static void setup(void)
{
    struct mode32 m = { .kind = M32_READ, .addr = 0x100000 };

    pae = pae_space();
    pae_access(&pae, &m);
    memcpy(old_idt, m32_idt, sizeof(old_idt));
    old_tss = m32_tss;
    page = frame();
    page2 = frame();
}

static void back(void)
{
    asm volatile("lgdt %0" : : "m" (gdt_ptr));
    memcpy(m32_idt, old_idt, sizeof(old_idt));
    m32_tss = old_tss;
    set_tss32(gdt, SEL_TSS32, &m32_tss);
}

static void run_code(const uint8_t *start, int cpl, const uint8_t *insn)
{
    code = start;
    code_cpl = cpl;
    row_insn = (uint64_t)insn;
}

static void go_code(void)
{
    struct mode32 m = { .kind = M32_FETCH, .cpl = code_cpl,
                        .addr = low(code) };

    inner = pae_access(&pae, &m);
    result[0] = m.result;
}

static void aim(void *p, unsigned bytes)
{
    at = p;
    linear = (uint64_t)p;
    size = bytes;
}

static uint64_t segment(int access, uint64_t base)
{
    return 0x00cf00000000ffff | (uint64_t)access << 40 |
           (base & 0xffffff) << 16 | (base >> 24 & 0xff) << 56;
}

/* @bits: 16 or 32. The offset of a 16-bit gate is from SEL_BASED's base. */
static uint64_t gate(int bits, int type, int sel, const uint8_t *handler,
                     int params)
{
    uint64_t offset = low(handler);

    if (bits == 16) {
        gdt[SEL_BASED / 8] = segment(sel == SEL_CODE1 ? 0xbb : 0x9b,
                                     offset & ~0xffffull);
        sel = SEL_BASED;
        offset &= 0xffff;
    }
    return (offset & 0xffff) | sel << 16 | (uint64_t)params << 32 |
           (uint64_t)(type | (bits == 32 ? 8 : 0)) << 40 |
           (offset >> 16) << 48;
}

/* --- Frames of interrupts --- */

/* Frames end with the sub-page: on leg_stack, or on that of CPL 1 */
static void stack(int bytes)
{
    memset(page, 0x5a, PAGE_SIZE);
    leg_stack = low(page) + MIDDLE + SUBPAGE;
    m32_tss.ss1 = SEL_DATA1 | 1;
    m32_tss.esp1 = leg_stack;
    gdt[SEL_CODE1 / 8] = segment(0xbb, 0);
    gdt[SEL_DATA1 / 8] = segment(0xb3, 0);
    aim(page + MIDDLE + SUBPAGE - bytes, bytes);
}

static void prepare_int(int bits)
{
    stack(3 * bits / 8);
    m32_idt[0xc4] = gate(bits, 0x86, SEL_CODE32,
                         bits == 16 ? leg_int_back16 : leg_int_back, 0);
    run_code(leg_int, 0, leg_int_insn);
}

static void prepare_gp(int bits)
{
    stack(4 * bits / 8);
    m32_idt[GP] = gate(bits, 0x86, SEL_CODE32,
                       bits == 16 ? leg_int_back16 : leg_int_back, 0);
    run_code(leg_gp, 0, leg_gp_insn);
}

static void prepare_inner(int bits)
{
    stack(5 * bits / 8);
    m32_idt[0xc5] = gate(bits, 0xe6, SEL_CODE1, leg_cpl1, 0);
    run_code(leg_user_int, 3, leg_user_int_insn);
}

/* The TSS's stack for CPL 1, which begins the sub-page */
static void prepare_esp1(void)
{
    struct tss32 *t = (struct tss32 *)(page2 + MIDDLE - 12);

    prepare_inner(32);
    memset(page2, 0, PAGE_SIZE);
    *t = m32_tss;
    set_tss32(gdt, SEL_TSS32, t);
    aim(&t->esp1, 4);
}

static void prepare_idt(void)
{
    prepare_int(32);
    memset(page2, 0, PAGE_SIZE);
    memcpy(page2, m32_idt, sizeof(old_idt));
    leg_idt_ptr.limit = sizeof(old_idt) - 1;
    leg_idt_ptr.base = low(page2);
    run_code(leg_idt, 0, leg_int_insn);
    aim(page2 + 0xc4 * 8, 4);
}

/* --- Real and virtual 8086 mode --- */

/* Code, interrupt vectors and stack, where 16 bits reach them */
#define REAL_CODE   0x9000
#define REAL_TABLE  0xa000
#define REAL_STACK  0xb000
#define V86_CODE    0x800       /* in the page of code */

uint32_t leg_cr0;
extern uint8_t leg_real[], leg_real_insn[], leg_real_back[], leg_real_end[];
extern uint8_t leg_v86[];
asm(".text\n.code32\n"
    "leg_real: mov %esp, leg_esp\n"
    "mov %cr0, %eax; mov %eax, leg_cr0\n"
    "and $0x7fffffff, %eax; mov %eax, %cr0\n"
    "lidt 0x9000 + (leg_real_table - leg_real)\n"
    "ljmp $0x60, $(1f - leg_real)\n"
    ".code16\n"
    "1: mov $0x68, %dx; mov %dx, %ds; mov %dx, %es; mov %dx, %ss\n"
    "and $0xfe, %al; mov %eax, %cr0\n"
    "ljmp $0x900, $(1f - leg_real)\n"
    "1: mov $0xb00, %dx; mov %dx, %ss; mov $0x680, %sp\n"
    "leg_real_insn: int $0xc4\n"
    "leg_real_back: or $1, %al; mov %eax, %cr0\n"
    "ljmpl $0x18, $0x9000 + (1f - leg_real)\n"
    ".code32\n"
    "1: mov $0x10, %edx; mov %edx, %ds; mov %edx, %es; mov %edx, %ss\n"
    "mov leg_cr0, %eax; mov %eax, %cr0\n"
    "mov leg_esp, %esp; mov $0x42, %eax; ret\n"
    "leg_real_table: .word 0x3ff; .long 0xa000\n"
    "leg_real_end:\n"
    /* Data segments, stack, flags with VM and IOPL 3, code */
    "leg_v86: push $0; push $0; push $0; push $0; push $0xb00; push $0x200\n"
    "push $0x23002; push $0x900; push $0x800; iret\n"
    ".text\n.code64\n");

static void prepare_real(void)
{
    uint16_t *vector = (uint16_t *)(REAL_TABLE + 0xc4ul * 4);

    memcpy((void *)REAL_CODE, leg_real, leg_real_end - leg_real);
    memset((void *)REAL_TABLE, 0, PAGE_SIZE);
    memset((void *)REAL_STACK, 0x5a, PAGE_SIZE);
    vector[0] = leg_real_back - leg_real;
    vector[1] = REAL_CODE / 16;
    /* 16 bits, limit 0xffff */
    gdt[SEL_CODE1 / 8] = 0x00009b000000ffff | (uint64_t)REAL_CODE << 16;
    gdt[SEL_DATA1 / 8] = 0x000093000000ffff;
    run_code((uint8_t *)REAL_CODE, 0,
             (uint8_t *)(leg_real_insn - leg_real));
    aim((void *)(REAL_STACK + MIDDLE + SUBPAGE - 6), 6);
}

static void prepare_real_vector(void)
{
    prepare_real();
    aim((void *)(REAL_TABLE + 0xc4ul * 4), 2);
}

/* mov $RESULT, %eax; int $VEC_USER_EXIT, which leaves legacy mode */
static void prepare_v86(void)
{
    static const uint8_t v86[] = { 0x66, 0xb8, RESULT, 0, 0, 0, 0xcd, 0x80 };

    memcpy((void *)(REAL_CODE + V86_CODE), v86, sizeof(v86));
    *space_entry(&pae, REAL_CODE, LEVEL_4K) |= PTE_U;
    stack(36);
    m32_tss.esp0 = leg_stack;
    run_code(leg_v86, 0, (uint8_t *)(V86_CODE + 6ul));
}

/* --- Frames of call gates --- */

static void prepare_gate(int bits, int params, const uint8_t *handler)
{
    uint32_t words[] = { 0x22221111, 0x44443333 };

    stack((4 + params) * bits / 8);
    memset(user_page, 0, PAGE_SIZE);
    leg_user_stack = low(user_page) + 256;
    memcpy(user_page + 256, words, sizeof(words));
    gdt[SEL_GATE / 8] = gate(bits, 0xe4, SEL_CODE1, handler, params);
    run_code(leg_user_gate, 3, leg_user_gate_insn);
}

/* The parameter is what is protected */
static void prepare_param(int bits)
{
    prepare_gate(bits, 1, bits == 16 ? leg_cpl1_param16 : leg_cpl1_param);
    leg_user_stack = low(user_page) + MIDDLE + 8;
    memset(user_page + MIDDLE, 0x66, SUBPAGE);
    aim(user_page + MIDDLE + 8, bits / 8);
}

static void prepare_far(void)
{
    memset(user_page, 0x5a, PAGE_SIZE);
    leg_user_stack = low(user_page) + MIDDLE + SUBPAGE;
    run_code(leg_user_far, 3, leg_user_far_insn);
    aim(user_page + MIDDLE + SUBPAGE - 8, 8);
}

#define WITH_BITS(name, call)                                           \
    static void name##_32(void) { int bits = 32; call; }                \
    static void name##_16(void) { int bits = 16; call; }
WITH_BITS(row_int, prepare_int(bits))
WITH_BITS(row_gp, prepare_gp(bits))
WITH_BITS(row_inner, prepare_inner(bits))
WITH_BITS(row_gate, prepare_gate(bits, 0, leg_cpl1))
WITH_BITS(row_params, prepare_gate(bits, 2, leg_cpl1))
WITH_BITS(row_param, prepare_param(bits))

/* --- Task switches --- */

static struct tss32 *task[2];

/* @offset: of the new TSS in its page */
static void tasks(int offset)
{
    memset(page, 0, PAGE_SIZE);
    memset(page2, 0, PAGE_SIZE);
    task[0] = (struct tss32 *)(page + MIDDLE);
    task[1] = (struct tss32 *)(page2 + offset);
    *task[0] = (struct tss32) {
        .link = SEL_GATE, .cr3 = pae.root, .eip = 0x5a5a5a5a,
        .esp0 = old_tss.esp0, .ss0 = old_tss.ss0,
    };
    *task[1] = (struct tss32) {
        .link = 0x5a5a, .cr3 = pae.root, .eip = low(leg_task_new),
        .eflags = 2, .esp = low(page2) + 256,
        .es = SEL_DATA, .cs = SEL_CODE32, .ss = SEL_DATA, .ds = SEL_DATA,
    };
    set_tss32(gdt, SEL_TSS32, task[0]);
    set_tss32(gdt, SEL_GATE, task[1]);
    run_code(leg_task_call, 0, leg_task_call_insn);
}

static void by_int(void)
{
    m32_idt[0xc4] = (uint64_t)SEL_GATE << 16 | 0x85ull << 40;
    run_code(leg_task_int, 0, leg_task_int_insn);
}

static void by_iret(void)
{
    gdt[SEL_GATE / 8] |= 2ull << 40;    /* busy, as it is returned to */
    run_code(leg_task_iret, 0, leg_task_iret_insn);
}

static void prepare_old(void)
{
    tasks(MIDDLE);
    aim(task[0], sizeof(struct tss32));
}

static void prepare_link(void)
{
    tasks(MIDDLE);
    aim(task[1], 2);
}

/* The link is in front of the sub-page */
static void prepare_new(void)
{
    tasks(MIDDLE - 32);
    aim(task[1], sizeof(struct tss32));
    protected = page2 + MIDDLE;
}

static void prepare_old_int(void)
{
    prepare_old();
    by_int();
}

static void prepare_link_int(void)
{
    prepare_link();
    by_int();
}

static void prepare_new_int(void)
{
    prepare_new();
    by_int();
}

static void prepare_old_iret(void)
{
    prepare_old();
    by_iret();
}

static void prepare_back_link(void)
{
    prepare_old();
    by_iret();
    size = 2;
}

static void prepare_new_iret(void)
{
    prepare_new();
    by_iret();
}

/* A GDT of its own, with the descriptor of the new TSS in the middle */
static void prepare_busy(void)
{
    static uint64_t *table;
    struct dtr ptr;

    tasks(MIDDLE);
    table = table ? table : frame();
    memset(table, 0, PAGE_SIZE);
    memcpy(table, gdt, gdt_ptr.limit + 1);
    /* The way back to long mode loads it */
    table[SEL_TSS / 8] &= ~(2ull << 40);
    set_tss32(table, MIDDLE + 0x20, task[1]);
    ptr = (struct dtr) { PAGE_SIZE - 1, (uint64_t)table };
    asm volatile("lgdt %0" : : "m" (ptr));
    run_code(leg_task_gdt, 0, leg_task_gdt_insn);
    aim((uint8_t *)table + MIDDLE + 0x24, 4);
}

/* --- Page walks --- */

enum { PAGING32, PAE };
static uint32_t *directory, *pages32;
static uint8_t *data, *large;
static uint64_t walk_va;
static int walk_kind;

/*
 * The entries for the address are in the middle of their tables, where those
 * of code and stack are not. @large_page: the directory's is a leaf.
 * @at_level: 1 is the last.
 */
static void walk(int kind, int at_level, bool large_page, uint32_t clear)
{
    walk_kind = kind;
    linear = 0;
    size = 4;
    if (!data) {
        data = frame();
        large = frames(1024);
        directory = frame();
        pages32 = frame();
        for (uint32_t i = 0; i < 256; i++) {
            directory[i] = i << 22 | PTE_RW | PTE_PS | PTE_A | PTE_D;
        }
    }
    data[0] = large[0] = 0x77;
    if (kind == PAGING32) {
        uint32_t i = MIDDLE / 4 + 3;
        uint32_t bits = PTE_RW | PTE_A | PTE_D;

        walk_va = i << 22 | (large_page ? 0 : i << 12);
        directory[i] = large_page ? low(large) | bits | PTE_PS
                                  : low(pages32) | PTE_RW | PTE_A;
        pages32[i] = low(data) | bits;
        at = (uint8_t *)(at_level == 1 ? &pages32[i] : &directory[i]);
        *(uint32_t *)at &= ~clear;
    } else {
        uint64_t i = MIDDLE / 8 + 3;

        walk_va = 3ull << 30 | i << 21 | (large_page ? 0 : i << 12);
        /* A large page beside, so that neither is split or made anew */
        walk_va += large_page ? PAGE_2M : 0;
        *space_entry(&pae, walk_va, large_page ? LEVEL_2M : LEVEL_4K) =
            (large_page ? (uint64_t)large | PTE_PS : (uint64_t)data) |
            PTE_RW | PTE_A | PTE_D;
        if (!large_page) {
            *space_entry(&pae, walk_va, LEVEL_2M) |= PTE_A;
        }
        /* That of code and stack has its bit from earlier runs */
        *space_entry(&pae, 0, LEVEL_1G) |= PTE_A;
        *space_entry(&pae, walk_va, LEVEL_1G) |= PTE_A;
        at = (uint8_t *)space_entry(&pae, walk_va, at_level);
        *(uint64_t *)at &= ~(uint64_t)clear;
    }
}

static void access_walked(int what)
{
    struct mode32 m = { .kind = what, .addr = walk_va, .cr0 = CR0_WP };

    inner = walk_kind == PAGING32 ? paging32_access(directory, &m)
                                  : pae_access(&pae, &m);
    result[0] = what == M32_READ ? m.result : data[0] + large[0] * 256u;
}

static void go_read(void)
{
    access_walked(M32_READ);
}

static void go_write(void)
{
    access_walked(M32_WRITE);
}

#define WALK_ROW(name, kind, level, large_page, clear)                  \
    static void prepare_##name(void)                                    \
    {                                                                   \
        walk(kind, level, large_page, clear);                           \
    }
WALK_ROW(pte_a, PAGING32, 1, false, PTE_A)
WALK_ROW(pte_d, PAGING32, 1, false, PTE_D)
WALK_ROW(pde_a, PAGING32, 2, false, PTE_A)
WALK_ROW(large_a, PAGING32, 2, true, PTE_A)
WALK_ROW(large_d, PAGING32, 2, true, PTE_D)
WALK_ROW(look_pte, PAGING32, 1, false, 0)
WALK_ROW(look_pde, PAGING32, 2, false, 0)
WALK_ROW(pae_pte_a, PAE, LEVEL_4K, false, PTE_A)
WALK_ROW(pae_pte_d, PAE, LEVEL_4K, false, PTE_D)
WALK_ROW(pae_pde_a, PAE, LEVEL_2M, false, PTE_A)
WALK_ROW(pae_large_d, PAE, LEVEL_2M, true, PTE_D)
WALK_ROW(pae_pdpte_a, PAE, LEVEL_1G, false, PTE_A)

static void prepare_pae_look_pte(void)
{
    walk(PAE, LEVEL_4K, false, 0);
    size = 8;
}

static void prepare_pae_look_pde(void)
{
    walk(PAE, LEVEL_2M, false, 0);
    size = 8;
}

/* --- The rows --- */

static const struct row rows[] = {
    { "INT n, 32-bit frame", "do_interrupt_protected, pushl", DELIVERY, true,
      row_int_32, go_code, 1, 0 },
    { "INT n, 16-bit frame", "do_interrupt_protected, pushw", DELIVERY, true,
      row_int_16, go_code, 1, 0 },
    { "#GP, 32-bit frame", "do_interrupt_protected, has_error_code", DELIVERY,
      true, row_gp_32, go_code, 1, 0 },
    { "#GP, 16-bit frame", "the same, pushw", DELIVERY, true,
      row_gp_16, go_code, 1, 0 },
    { "INT n at CPL 3, 32-bit frame", "do_interrupt_protected, new_stack",
      DELIVERY, true, row_inner_32, go_code, 1, 0 },
    { "INT n at CPL 3, 16-bit frame", "the same, pushw", DELIVERY, true,
      row_inner_16, go_code, 1, 0 },
    { "ESP1 of the TSS", "get_ss_esp_from_tss", DELIVERY, false,
      prepare_esp1, go_code, 2, IN_USE },
    { "IDT gate", "do_interrupt_protected, cpu_ldl_kernel", DELIVERY, false,
      prepare_idt, go_code, 2, 0 },
    { "INT n in real mode", "do_interrupt_real", DELIVERY, true,
      prepare_real, go_code, 1, 0 },
    { "interrupt vector in real mode", "do_interrupt_real, cpu_lduw_kernel",
      DELIVERY, false, prepare_real_vector, go_code, 2, NO_DISCARD },
    { "INT n in virtual 8086 mode", "do_interrupt_protected, vm86", DELIVERY,
      true, prepare_v86, go_code, 1, 0 },
    { "call gate, 32 bits", "helper_lcall_protected, pushl", INSN, true,
      row_gate_32, go_code, 1, 0 },
    { "call gate, 16 bits", "helper_lcall_protected, pushw", INSN, true,
      row_gate_16, go_code, 1, 0 },
    { "call gate, 32 bits, two parameters",
      "helper_lcall_protected, param_count", INSN, true,
      row_params_32, go_code, 1, 0 },
    { "call gate, 16 bits, two parameters", "the same, pushw", INSN, true,
      row_params_16, go_code, 1, 0 },
    { "a parameter, 32 bits", "helper_lcall_protected, cpu_ldl_data", INSN,
      false, row_param_32, go_code, 1, 0 },
    { "a parameter, 16 bits", "helper_lcall_protected, cpu_lduw_data", INSN,
      false, row_param_16, go_code, 1, 0 },
    { "far call at CPL 3", "helper_lcall_protected, code segment", INSN,
      true, prepare_far, go_code, 1, 0 },
    { "task switch by CALL, old TSS", "switch_tss_ra, access_stl", INSN, true,
      prepare_old, go_code, 1, 0 },
    { "task switch by CALL, link of the new TSS", "switch_tss_ra, access_stw",
      INSN, true, prepare_link, go_code, 1, 0 },
    { "task switch by CALL, new TSS", "switch_tss_ra, access_ldl", INSN,
      false, prepare_new, go_code, 1, NO_DISCARD | IN_USE },
    { "task switch by CALL, busy bit", "tss_set_busy", INSN, true,
      prepare_busy, go_code, 1, PARTIAL },
    { "task switch by IRET, old TSS", "switch_tss_ra, access_stl", INSN, true,
      prepare_old_iret, go_code, 1, 0 },
    { "task switch by IRET, link", "helper_iret_protected; old TSS", INSN,
      false, prepare_back_link, go_code, 2, 0 },
    { "task switch by IRET, new TSS", "switch_tss_ra, access_ldl", INSN,
      false, prepare_new_iret, go_code, 1, NO_DISCARD | IN_USE },
    { "task switch by INT n, old TSS", "switch_tss without retaddr", DELIVERY,
      true, prepare_old_int, go_code, 1, 0 },
    { "task switch by INT n, link of the new TSS", "the same", DELIVERY, true,
      prepare_link_int, go_code, 1, 0 },
    { "task switch by INT n, new TSS", "the same", DELIVERY, false,
      prepare_new_int, go_code, 1, NO_DISCARD | IN_USE },
    { "A in a 32-bit PTE", "ptw_setl", WALK, true, prepare_pte_a, go_read,
      1, 0 },
    { "D in a 32-bit PTE", "ptw_setl", WALK, true, prepare_pte_d, go_write,
      1, 0 },
    { "A in a 32-bit PDE", "ptw_setl", WALK, true, prepare_pde_a, go_read,
      1, 0 },
    { "A in a 4 MiB leaf", "ptw_setl", WALK, true, prepare_large_a, go_read,
      1, 0 },
    { "D in a 4 MiB leaf", "ptw_setl", WALK, true, prepare_large_d, go_write,
      1, 0 },
    { "walk, 32-bit PTE", "ptw_ldl", WALK, false, prepare_look_pte, go_read,
      1, 0 },
    { "walk, 32-bit PDE", "ptw_ldl", WALK, false, prepare_look_pde, go_read,
      1, 0 },
    { "A in a PAE PTE", "ptw_setl", WALK, true, prepare_pae_pte_a, go_read,
      1, 0 },
    { "D in a PAE PTE", "ptw_setl", WALK, true, prepare_pae_pte_d, go_write,
      1, 0 },
    { "A in a PAE PDE", "ptw_setl", WALK, true, prepare_pae_pde_a, go_read,
      1, 0 },
    { "D in a PAE 2 MiB leaf", "ptw_setl", WALK, true, prepare_pae_large_d,
      go_write, 1, 0 },
    /* All four share a sub-page: a walk through "none" would be all walks */
    { "A in a PAE PDPTE", "ptw_setl", WALK, true, prepare_pae_pdpte_a,
      go_read, 1, 0 },
    { "walk, PAE PTE", "ptw_ldq", WALK, false, prepare_pae_look_pte, go_read,
      1, 0 },
    { "walk, PAE PDE", "ptw_ldq", WALK, false, prepare_pae_look_pde, go_read,
      1, 0 },
};

/* --- vapic --- */

/*
 * For 32-bit Windows, the vapic device patches each instruction that accesses
 * the APIC's task priority: it writes to code, as a debugger would. It wants
 * its option ROM at the same offset in the upper 2 GiB as the code, and a
 * KPCR behind FS.
 */
#define APIC_TPR    0xfee00080u
#define HIGH        0x80000000u

static const uint8_t *vapic_rom(void)
{
    for (const uint8_t *p = (uint8_t *)0xc0000; p < (uint8_t *)0xe0000; p++) {
        if (!memcmp(p, "kvm aPiC", 8)) {
            return p;
        }
    }
    return NULL;
}

/* mov $SEL_BASED, %eax; mov %eax, %fs; xor %eax, %eax; mov %eax, APIC_TPR */
static const uint8_t set_tpr[] = {
    0xb8, SEL_BASED, 0, 0, 0, 0x8e, 0xe0, 0x31, 0xc0,
    0xa3, 0x80, 0x00, 0xe0, 0xfe,
    0xb8, RESULT, 0, 0, 0, 0xc3,        /* mov $RESULT, %eax; ret */
};
#define TPR_INSN    9

static bool sets_tpr(uint32_t va)
{
    struct mode32 m = { .kind = M32_FETCH, .addr = va };
    Fault f = pae_access(&pae, &m);

    if (f.vec != NONE || m.result != RESULT) {
        note("%s, result 0x%x", fault_text(f), m.result);
        return false;
    }
    return true;
}

static void vapic(void)
{
    static const char *const actions[] = { "report", "discard", "fault" };
    uint8_t *kpcr = frame(), *f = frame(), *insn = f + MIDDLE + TPR_INSN;
    uint32_t va = HIGH + 0x200000;
    const uint8_t *rom = vapic_rom();

    if (!rom) {
        skip("vapic: its option ROM is not there (kvmvapic.bin)");
        return;
    }
    back();
    for (uint32_t a = 0xc0000; a < 0xe0000; a += PAGE_SIZE) {
        *space_entry(&pae, HIGH + a, LEVEL_4K) = a | PTE_RW;
    }
    *space_entry(&pae, va, LEVEL_4K) = (uint64_t)f | PTE_RW;
    *space_entry(&pae, APIC_TPR, LEVEL_2M) = (APIC_TPR & -PAGE_2M) | PTE_RW |
                                             PTE_PS;
    *(uint32_t *)(kpcr + 0x1c) = low(kpcr);
    gdt[SEL_BASED / 8] = segment(0x93, low(kpcr));

    memcpy(f + MIDDLE, set_tpr, sizeof(set_tpr));
    ok(sets_tpr(va + MIDDLE) && *insn == 0xe8,
       "vapic patches an instruction to a call: 0x%x", *insn);
    for (unsigned a = 0; a < ARRAY_SIZE(actions); a++) {
        bool report = !a, good;
        Seen s;

        memcpy(f + MIDDLE, set_tpr, sizeof(set_tpr));
        arm((uint64_t)f + MIDDLE, SUBPAGE, "read", actions[a], 0);
        good = sets_tpr(va + MIDDLE);
        s = disarm();
        ok(good && *insn == (report ? 0xe8 : 0xa3) && s.events == 1 &&
           s.counted == 1 && s.write && s.addr == (uint64_t)insn &&
           !strcmp(s.source, "device") &&
           !strcmp(s.action, report ? "report" : "discard"),
           "vapic, %s: 0x%x; %d events, %s addr 0x%lx size %lu %s",
           actions[a], *insn, s.events, s.source, s.addr, s.size, s.action);
        good = sets_tpr(va + MIDDLE);
        ok(good && *insn == 0xe8, "vapic patches it when it may");
    }
    /* What is patched may begin in front of a sub-page */
    insn = f + MIDDLE + SUBPAGE - 2;
    memcpy(insn - TPR_INSN, set_tpr, sizeof(set_tpr));
    arm((uint64_t)f + MIDDLE + SUBPAGE, SUBPAGE, "read", "fault", 0);
    ok(sets_tpr(va + (insn - f) - TPR_INSN) && *insn == 0xa3,
       "vapic does not patch half an instruction");
    ok(disarm().events == 1, "vapic: one event");
}

/* --- The link across pages --- */

/*
 * Upstream probes the two bytes of the link as if they were in one page, and
 * aborts.
 */
static void task_link(void)
{
    uint8_t *first = frame(), *gap = frame(), *second = frame();
    uint32_t base = 0x40000fff;

    tasks(MIDDLE);
    *space_entry(&pae, 0x40000000, LEVEL_4K) = (uint64_t)first | PTE_RW;
    *space_entry(&pae, 0x40001000, LEVEL_4K) = (uint64_t)second | PTE_RW;
    memcpy(first + 0xfff, task[1], 1);
    memcpy(second, (uint8_t *)task[1] + 1, sizeof(struct tss32) - 1);
    set_tss32(gdt, SEL_GATE, (void *)(uint64_t)base);
    go_code();
    expect_none(inner, "CALL to a TSS at offset 0xfff of a page");
    ok(result[0] == RESULT, "the new task runs");
    ok(first[0xfff] == (SEL_TSS32 & 0xff) && second[0] == SEL_TSS32 >> 8,
       "its link is 0x%02x%02x", second[0], first[0xfff]);
    ok(gap[0] == 0, "and nothing was written to the frame in between");
}

static void nothing(void *unused)
{
    (void)unused;
}

void test(void)
{
    setup();
    if (!strcmp(command_line(), "task-link")) {
        task_link();
        return;
    }
    on_all(nothing, NULL);      /* the others are up, and wait */
    rows_run(rows, ARRAY_SIZE(rows), back);
    vapic();
}
