/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Sub-page protection where one decision follows another: what was reported
 * or let through must not stand for anything else, and an instruction that is
 * left must not have done anything, nor leave QEMU stuck. Each run boots for
 * one of these attacks.
 */

#include "subpage.h"

GUEST_RUN("xrstor", "-cpu max -append xrstor");
GUEST_RUN("xsave", "-cpu max -append xsave");
GUEST_RUN("remap", "-cpu max -append remap");
GUEST_RUN("pusha", "-cpu max -append pusha");
GUEST_RUN("later", "-cpu max -append later");
GUEST_RUN("ins", "accel=tcg,thread=multi -cpu max -smp 2 -append ins");
GUEST_RUN("effect", "-cpu max -append effect");
GUEST_RUN("exclusive",
          "accel=tcg,thread=multi -cpu max -smp 2 -append exclusive");
GUEST_RUN("watch", "-cpu max -append watch");
GUEST_RUN("ltr", "-cpu max -append ltr");
GUEST_RUN("widen", "accel=tcg,thread=multi -cpu max -smp 2 "
          "-append widen");
GUEST_RUN("wrap", "timeout=120 -cpu max -append wrap");
GUEST_RUN("lock", "accel=tcg,thread=multi -cpu max -smp 2 -append lock");
GUEST_RUN("flags", "accel=tcg,thread=multi -cpu max -smp 2 -append flags");

#define SP(f, n)    ((uint64_t)(f) + (n) * SUBPAGE)
#define SECRET      0x5ec7e75ec7e7ull

static volatile bool stop;

/* One XSAVE and one XRSTOR instruction, so that their place is the same */
static __attribute__((noinline)) void xsave_at(void *p, uint32_t mask)
{
    asm volatile("xsave64 (%0)" : : "r" (p), "a" (mask), "d" (0) : "memory");
}

static __attribute__((noinline)) void xrstor_at(void *p, uint32_t mask)
{
    asm volatile("xrstor64 (%0)" : : "r" (p), "a" (mask), "d" (0) : "memory");
}

/* What XSAVE stores 576 bytes and more from its start */
static void set_ymm_high(uint64_t v)
{
    asm volatile("movq %0, %%xmm1; punpcklqdq %%xmm1, %%xmm1;"
                 "vinsertf128 $1, %%xmm1, %%ymm1, %%ymm4;"
                 "vinsertf128 $1, %%xmm1, %%ymm1, %%ymm5;"
                 "vinsertf128 $1, %%xmm1, %%ymm1, %%ymm9"
                 : : "r" (v));
}

static uint64_t get_ymm4_high(void)
{
    uint64_t v;

    asm volatile("vextractf128 $1, %%ymm4, %%xmm1; movq %%xmm1, %0"
                 : "=r" (v));
    return v;
}

/* The header may be read, and is only reported; what it leads to may not */
static void test_xrstor(void)
{
    uint8_t *f = frame();
    Seen s;

    set_ymm_high(SECRET);
    xsave_at(f, 7);
    set_ymm_high(0);
    arm(SP(f, 0), SUBPAGE, "none", "report", 0);
    arm_more(SP(f, 5), 2 * SUBPAGE, "none", "fault");
    expect(TRY(xrstor_at(f, 7)), GP, 0, "'report' and then 'fault'");
    ok(get_ymm4_high() == 0, "nothing is read: 0x%lx", get_ymm4_high());
    disarm();

    arm(SP(f, 0), SUBPAGE, "none", "report", 0);
    arm_more(SP(f, 5), 2 * SUBPAGE, "none", "report");
    expect_none(TRY(xrstor_at(f, 7)), "'report' throughout");
    ok(get_ymm4_high() == SECRET, "it is read");
    s = disarm();
    ok(s.counted == 1, "and one violation: %d", s.counted);
}

static void test_xsave(void)
{
    static const char *const actions[] = { "report", "discard" };
    uint8_t *f = frame();
    Seen s;

    set_ymm_high(SECRET);
    arm(SP(f, 0), SUBPAGE, "read", "report", 0);
    arm_more(SP(f, 5), 2 * SUBPAGE, "read", "fault");
    expect_none(TRY(xsave_at(f, 3)), "what is only reported");
    expect(TRY(xsave_at(f, 7)), GP, 0, "more, from the same start");
    ok(read64((void *)SP(f, 5)) == 0, "nothing is written");
    disarm();

    for (unsigned i = 0; i < ARRAY_SIZE(actions); i++) {
        arm((uint64_t)f, 16 * SUBPAGE, "read", actions[i], 0);
        for (unsigned j = 0; j < 5; j++) {
            xsave_at(f, 3);
            xsave_at(f, 7);
        }
        s = disarm();
        ok(s.counted == 10, "one violation for each of 10, '%s': %d",
           actions[i], s.counted);
    }
}

/* The same address, but other memory, where nothing is only reported */
static void test_remap(void)
{
    uint8_t *g = frame(), *h = frame();
    uint8_t *va = map(g, PTE_RW);

    set_ymm_high(SECRET);
    arm((uint64_t)g, SUBPAGE, "read", "report", 0);
    arm_more((uint64_t)h, PAGE_SIZE, "read", "fault");
    expect_none(TRY(xsave_at(va, 3)), "'report'");
    set_entry(va, LEVEL_4K, (uint64_t)h | PTE_RW);
    expect(TRY(xsave_at(va, 7)), GP, 0, "'fault' throughout");
    ok(read64(h + 512) == 0 && read64(h + 5 * SUBPAGE) == 0,
       "nothing is written");
    disarm();
}

/* PUSHAL in a 32-bit code segment, on a 16-bit stack */
extern void pusha16(uint64_t sel, uint64_t sp, uint64_t eax);
uint64_t compat_rsp;
asm(".text\n.globl pusha16, rep16\n"
    "pusha16:\n"
    "push %rbx; push %rbp; push %r12; push %r13; push %r14; push %r15\n"
    "mov %rsp, compat_rsp\n"
    "mov %rdx, %rax\n"
    "pushq $0x18; pushq $1f; lretq\n"
    ".code32\n"
    "1: mov %edi, %ss; mov %esi, %esp\n"
    "jmp 2f\n"
    "2: pushal\n"
    "mov $0x10, %ecx; mov %ecx, %ss\n"
    "ljmp $8, $compat_out\n"
    /* void rep16(es, ds): REP MOVSL of 65535 with 16-bit addresses */
    ".code64\n"
    "rep16:\n"
    "push %rbx; push %rbp; push %r12; push %r13; push %r14; push %r15\n"
    "mov %rsp, compat_rsp\n"
    "pushq $0x18; pushq $1f; lretq\n"
    ".code32\n"
    "1: mov %edi, %es; mov %esi, %ds\n"
    "xor %esi, %esi; xor %edi, %edi; mov $0xffff, %ecx; cld\n"
    "addr16 rep movsl\n"
    "mov $0x10, %ecx; mov %ecx, %ds; mov %ecx, %es\n"
    "ljmp $8, $compat_out\n"
    ".code64\n"
    "compat_out: mov compat_rsp, %rsp\n"
    "pop %r15; pop %r14; pop %r13; pop %r12; pop %rbp; pop %rbx; ret\n");
extern void rep16(uint64_t es, uint64_t ds);

/* A segment of 64 KiB with 16-bit addresses, if it is a stack */
static uint16_t segment_at(unsigned n, uint64_t base)
{
    gdt[SEL_FREE / 8 + n] = 0xffff | (base & 0xffffff) << 16 |
                            0x93ull << 40 | (base >> 24 & 0xff) << 56;
    return SEL_FREE + n * 8;
}

/*
 * A stack that wraps around is checked push by push: the report of a block
 * before, by the same instruction, must not stand for one of them, which
 * lies half in the next sub-page.
 */
static void test_pusha(void)
{
    uint8_t *f = frames(32);
    uint64_t end = SP(f, 3);

    arm(SP(f, 2), SUBPAGE, "read", "report", 0);
    arm_more(SP(f, 3), SUBPAGE, "read", "fault");
    expect_none(TRY(pusha16(segment_at(1, end - 0x100), 0x100, 0x41414141)),
                "'report'");
    expect(TRY(pusha16(segment_at(0, end - 13), 0x10, 0x41414141)), GP, 0,
           "wraps around, and ends in the next sub-page");
    ok(read32((void *)end) == 0, "nothing is written there");
    disarm();
}

/* 'report' first, then 'fault' */
static void test_later(void)
{
    uint8_t *f = frames(32);
    uint64_t end = SP(f, 3);

    arm(SP(f, 2), SUBPAGE, "read", "report", 0);
    expect_none(TRY(pusha16(segment_at(1, end - 0x100), 0x100, 0x41414141)),
                "'report'");
    arm_more(SP(f, 2), SUBPAGE, "read", "fault");
    memcpy(f, (void *)(end - 32), 32);
    expect(TRY(pusha16(segment_at(0, end - 16), 0x10, 0x42424242)), GP, 0,
           "wraps around");
    ok(!memcmp(f, (void *)(end - 32), 32), "nothing is written");
    disarm();
}

/* INS across pages, several in a block, while the host arms and disarms */
static void ins_loop(void *arg)
{
    uint8_t *p = (uint8_t *)arg + PAGE_SIZE - 2;

    while (!stop) {
        asm volatile("mov %0, %%rdi\n"
                     ".rept 40\n insl\n sub $4, %%rdi\n .endr\n"
                     : : "r" (p), "d" (0xcf8) : "rdi", "memory");
    }
}

static void test_ins(void)
{
    uint8_t *f = frames(2), *g = frame();

    on_cpu(1, ins_loop, f);
    host("call", "{\"name\": \"toggle\", \"addr\": %lu, \"rounds\": 200}",
         (uint64_t)g);
    stop = true;
    wait_cpu(1);
    ok(true, "QEMU is alive");
}

/* A misaligned LOCK whose second page has its accessed bit reported */
static void test_exclusive(void)
{
    uint8_t *va = map2(frame(), PTE_RW, frame(), PTE_RW);
    uint64_t *e = entry(va + PAGE_SIZE, LEVEL_4K);

    arm((uint64_t)e & -SUBPAGE, SUBPAGE, "read", "report", 0);
    expect_none(TRY(asm volatile("lock incl (%0)"
                                 : : "r" (va + PAGE_SIZE - 2) : "memory")),
                "LOCK across pages");
    disarm();
}

/* A breakpoint on the data starts the instruction once more */
static void test_watch(void)
{
    uint8_t *f = frame();
    Fault x;
    Seen s;

    arm((uint64_t)f, SUBPAGE, "read", "pause", 5);
    asm volatile("mov %0, %%dr0" : : "r" (f));
    asm volatile("mov %0, %%dr7" : : "r" (0xd0401ull));
    x = TRY(write32(f, 0x11223344); asm volatile("nop"));
    asm volatile("mov %0, %%dr7" : : "r" (0x400ull));
    s = disarm();
    ok(x.vec == DB, "the breakpoint hits: %s", fault_text(x));
    ok(read32(f) == 0x11223344, "the store has taken place");
    ok(s.stops == 1 && s.counted == 1, "one stop: %d, %d violations", s.stops,
       s.counted);
}

static void test_ltr(void)
{
    static struct tss other __attribute__((aligned(128)));
    const char *r;

    other = tss[0];
    set_descriptor16(gdt, SEL_FREE, 9, &other, sizeof(other) - 1);
    arm(((uint64_t)gdt + SEL_FREE) & -SUBPAGE, SUBPAGE, "read", "fault", 0);
    expect(TRY(asm volatile("ltr %w0" : : "r" (SEL_FREE))), GP, 0,
           "LTR of a protected descriptor");
    r = host("call", "{\"name\": \"tr\"}");
    ok(json_number(r, "base", 0) == (int64_t)&tss[0], "TR is as before: %s",
       r);
    disarm();
}

/* Another CPU makes the instruction that was let through a wider one */
static uint8_t *patched;

static void patch_loop(void *unused)
{
    (void)unused;
    while (!stop) {
        write32(patched, 0xc3900788);       /* mov %al, (%rdi); nop; ret */
        for (int i = 0; i < 50; i++) {
            pause();
        }
        write32(patched, 0xc307ae0f);       /* fxsave (%rdi); ret */
        for (int i = 0; i < 50; i++) {
            pause();
        }
    }
}

static void test_widen(void)
{
    enum { N = 30 };
    uint8_t *t = frames(32);
    const char *r;

    /*
     * Bytes of both instructions may be decoded as one. Such a one is to end
     * in a #PF or at once: not to run on through the zeros of all memory.
     */
    patched = frame();
    memset(patched, 0xc3, 4096);
    write32(patched, 0xc3900788);
    arm((uint64_t)t, N * 512, "read", "pause", 1000000);
    on_cpu(1, patch_loop, NULL);
    for (unsigned i = 0; i < N; i++) {
        /* What is half patched may be no instruction at all */
        (void)TRY(asm volatile("call *%1" : : "D" (t + i * 512),
                               "r" (patched), "a" (1) : "memory"));
    }
    stop = true;
    wait_cpu(1);
    r = host("call", "{\"name\": \"widened\", \"addr\": %lu, \"n\": %d}",
             (uint64_t)t, N);
    ok(json_number(r, "wide", -1) == 0, "no FXSAVE by the leave of a MOV: %s",
       r);
    disarm();
}

/* A REP with 16-bit addresses comes by four times: each is to be let through */
static void test_wrap(void)
{
    uint8_t *f = frames(32);
    uint32_t *w = (uint32_t *)f;
    Seen s;

    for (unsigned i = 0; i < 32768; i++) {
        w[i] = i;
    }
    arm(SP(f, 32), SUBPAGE, "read", "pause", 200);
    rep16(segment_at(0, (uint64_t)f), segment_at(1, (uint64_t)f + 4));
    s = disarm();
    ok(w[1024] == 1024 + 4, "each word is moved four times");
    ok(s.stops == 4 * SUBPAGE / 4, "a stop for each: %d", s.stops);
}

/* Misaligned atomics, which are done with the world stopped */
static void test_lock(void)
{
    uint8_t *f = frame();
    Seen s;

    write32(f + 1, 7);
    arm((uint64_t)f, SUBPAGE, "none", "pause", 12);
    asm volatile("lock negl (%0)" : : "r" (f + 1) : "memory");
    s = seen_so_far();
    ok(s.stops == 3 && s.counted == 3,
       "NEG stops for two loads and a store: %d, %d violations", s.stops,
       s.counted);
    for (unsigned i = 0; i < 3; i++) {
        asm volatile("lock incl (%0)" : : "r" (f + 1) : "memory");
    }
    s = disarm();
    ok(s.stops == 6 && s.counted == 6, "INC three times: %d, %d violations",
       s.stops, s.counted);
    ok(read32(f + 1) == (uint32_t)-4, "all have taken place");
}

static void test_flags(void)
{
    uint8_t *f = frame();
    uint32_t v = 5;
    Fault x;
    Seen s;

    arm((uint64_t)f, SUBPAGE, "read", "fault", 0);
    x = TRY(asm volatile("stc; lock adcl %0, (%1)"
                         : : "r" (v), "r" (f + 1) : "memory", "cc"));
    expect(x, GP, 0, "a misaligned LOCK");
    ok(x.rflags & 1, "CF is as before: 0x%lx", x.rflags);
    disarm();
    arm((uint64_t)f, SUBPAGE, "read", "pause", 5);
    asm volatile("stc; lock adcl %0, (%1)"
                 : : "r" (v), "r" (f + 1) : "memory", "cc");
    s = disarm();
    ok(s.stops == 1 && read32(f + 1) == 6, "and after a pause: %d, %u",
       s.stops, read32(f + 1));
    x = TRY(asm volatile("stc; lock incl (%0)"
                         : : "r" (map(f, PTE_RW) + PAGE_SIZE - 2)
                         : "memory", "cc"));
    ok(x.vec == PF && x.rflags & 1, "and for a #PF: 0x%lx, %s", x.rflags,
       fault_text(x));
}

static void ins8(void *p, uint16_t port)
{
    asm volatile("insb" : "+D" (p) : "d" (port) : "memory");
}

/* An INS that may not store must not read the port: that has an effect. */
static void test_effect(void)
{
    uint8_t *f = frame();

    /* The keyboard controller is asked for a byte, and has it until read */
    outb(0x64, 0xd2);
    outb(0x60, 0x5a);
    ok(inb(0x64) & 1, "a byte is there");
    arm((uint64_t)f, SUBPAGE, "read", "fault", 0);
    expect(TRY(ins8(f, 0x60)), GP, 0, "INS to a protected byte");
    ok(inb(0x64) & 1, "the byte is still there");
    disarm();
    expect_none(TRY(ins8(f, 0x60)), "INS when nothing is protected");
    ok(*f == 0x5a && !(inb(0x64) & 1), "takes it: 0x%x", *f);
}

void test(void)
{
    static const struct {
        const char *name;
        void (*fn)(void);
    } tests[] = {
        { "xrstor", test_xrstor },
        { "xsave", test_xsave },
        { "remap", test_remap },
        { "pusha", test_pusha },
        { "later", test_later },
        { "ins", test_ins },
        { "effect", test_effect },
        { "exclusive", test_exclusive },
        { "watch", test_watch },
        { "ltr", test_ltr },
        { "widen", test_widen },
        { "wrap", test_wrap },
        { "lock", test_lock },
        { "flags", test_flags },
    };

    cpu_enable_simd();
    for (unsigned i = 0; i < ARRAY_SIZE(tests); i++) {
        if (!strcmp(command_line(), tests[i].name)) {
            tests[i].fn();
        }
    }
}
