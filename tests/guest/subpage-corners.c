/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Corners of sub-page protection that reviews found: each row was wrong once,
 * and says how.  The systematic rows are in subpage-matrix.c.
 */

#include "subpage.h"

GUEST_RUN("cpu", "-cpu max -append cpu");
GUEST_RUN("four-threads",
          "accel=tcg,thread=multi -cpu max -smp 4 -append cpu");
GUEST_RUN("icount", "-cpu max -icount shift=1 -append cpu");
GUEST_RUN("device", "-cpu max -device tulip,addr=5 -append device");
GUEST_RUN("lift", "accel=tcg,thread=multi -cpu max -smp 2 -append lift");
GUEST_RUN("lift-round-robin",
          "accel=tcg,thread=single -cpu max -smp 2 -append lift");
GUEST_RUN("suspend", "reboots -cpu max -append suspend");
GUEST_RUN("eject", "memory=128M,slots=1,maxmem=1G -cpu max "
          "-object memory-backend-ram,id=ram1,size=128M "
          "-device pc-dimm,id=dimm,memdev=ram1,addr=0x100000000 "
          "-append eject");

#define MIDDLE  0x600           /* the sub-page in its page */

static uint8_t *page, *va;

/* --- An instruction that comes by twice --- */

/* Always the same instruction; the area grows with what it is asked for */
static __attribute__((noinline)) void xsave(uint8_t *p, uint32_t what)
{
    asm volatile("xsave64 (%0)" : : "r" (p), "a" (what), "d" (0) : "memory");
}

/* The second, longer one was taken for the rest of the first */
static void xsave_twice(void)
{
    uint8_t *p = va + MIDDLE - 64;
    Seen s;

    xsave(p, 3);
    xsave(p, 7);
    arm((uint64_t)page + MIDDLE, SUBPAGE, "read", "report", 0);
    xsave(p, 3);
    xsave(p, 7);
    xsave(p, 3);
    s = seen_so_far();
    ok(seen_first(s, 3, (uint64_t)page + MIDDLE - 64, 576, true, 0, 0,
                  (uint64_t)p, "report", "XSAVE"),
       "XSAVE of less, more, less: three events");
    arm((uint64_t)page + MIDDLE, SUBPAGE, "read", "fault", 0);
    expect(TRY(xsave(p, 7)), GP, 0, "XSAVE of more, now a fault");
    s = disarm();
    ok(s.events == 1 && s.counted == 1, "XSAVE: one event for the fault");
}

/* XRSTOR does ask twice, and this is one access */
static void xrstor(void)
{
    uint8_t *p = va + MIDDLE - 64;
    Seen s;

    xsave(p, 7);
    for (int conts = 0; conts < 2; conts++) {
        arm((uint64_t)page + MIDDLE, SUBPAGE, "none",
            conts ? "pause" : "report", conts);
        asm volatile("xrstor64 (%0)" : : "r" (p), "a" (7), "d" (0)
                     : "memory");
        s = disarm();
        ok(s.events == 1 && s.counted == 1 && s.stops == conts,
           "XRSTOR, %s: %d events, %d counted, %d stops",
           conts ? "pause" : "report", s.events, s.counted, s.stops);
    }
}

/* --- Masked stores --- */

/* What the mask leaves out is on no page, and must not be looked at */
static void masked(void)
{
    uint8_t *p = (uint8_t *)map2(NULL, 0, page, PTE_RW) + PAGE_SIZE;
    uint64_t mask[2] = { 0, 0x8080808080808080 };
    static const char *const actions[] = { "report", "discard" };
    Seen s;

    for (int i = 0; i < 2; i++) {
        memset(page, 0, SUBPAGE);
        arm((uint64_t)page, SUBPAGE, "read", actions[i], 0);
        expect_none(TRY(asm volatile("movdqu %0, %%xmm1;"
                                     "pcmpeqd %%xmm0, %%xmm0;"
                                     "maskmovdqu %%xmm1, %%xmm0"
                                     : : "m" (mask), "D" (p - 8)
                                     : "memory")),
                    "MASKMOVDQU, %s: no fault for bytes left out",
                    actions[i]);
        s = disarm();
        ok(seen_first(s, 1, (uint64_t)page, 8, true, 0, 0, (uint64_t)p,
                      actions[i], "MASKMOVDQU"), "MASKMOVDQU: one event");
        ok(*(uint64_t *)page == (i ? 0 : ~0ull),
           "MASKMOVDQU, %s: 0x%lx is stored", actions[i], *(uint64_t *)page);
    }
}

/* --- Instruction pointers --- */

#define CODE_BASE   0x345       /* no multiple of anything */
extern uint8_t corner_store[];

/* RIP is an offset, which is not the linear address minus whole pages */
static void code_base(void)
{
    Seen s;

    gdt[SEL_FREE / 8] = (gdt[SEL_CODE32 / 8] & ~(0xffffffull << 16)) |
                        (uint64_t)CODE_BASE << 16;
    arm((uint64_t)page + MIDDLE, SUBPAGE, "read", "report", 0);
    asm volatile("push %1; lea 1f - %c2(%%rip), %%rax; push %%rax; lretq;"
                 ".code32; 1: nop;"
                 ".globl corner_store; corner_store: movl $1, (%%ebx);"
                 "ljmp %3, $2f; .code64; 2:"
                 : : "b" (page + MIDDLE), "i" (SEL_FREE), "i" (CODE_BASE),
                     "i" (SEL_CODE64) : "rax", "memory");
    s = disarm();
    ok(seen_first(s, 1, (uint64_t)page + MIDDLE, 4, true, 0,
                  (uint64_t)corner_store - CODE_BASE, 0, "report",
                  "code segment"), "a code segment with a base");
    gdt[SEL_FREE / 8] = 0;
}

/* --- The monitor lists page tables --- */

/* It was taken for a device, which stopped the VM and saw nothing */
static void walkers(void)
{
    uint8_t *table = (uint8_t *)((uint64_t)entry(va, LEVEL_4K) & -PAGE_SIZE);
    static const char *const lines[] = { "info tlb", "info mem" };
    const char *r;
    Seen s;

    read8(va);
    arm((uint64_t)table, PAGE_SIZE, "none", "pause", 8);
    for (int i = 0; i < 2; i++) {
        r = host("call", "{\"name\": \"lists\", \"line\": \"%s\", "
                 "\"text\": \"%016lx\"}", lines[i], (uint64_t)va);
        ok(json_number(r, "lines", -1) == 1, "%s: %s", lines[i], r);
    }
    s = disarm();
    ok(seen_none(s, "page tables"), "no event from the monitor");
}

/* --- Data breakpoints of the guest --- */

static void watch(const void *p)
{
    asm volatile("mov %0, %%dr0; mov %1, %%dr7"
                 : : "r" (p), "r" (p ? 0x10001ull : 0ull));
}

/* Always the same instruction */
static __attribute__((noinline)) void store_byte(uint8_t *p, uint8_t v)
{
    write8(p, v);
}

/* They make an instruction start again after it was decided on */
static void breakpoints(void)
{
    uint8_t *p = va + MIDDLE;
    Seen s;
    Fault t;

    watch(p);
    t = TRY(write8(p, 1));
    expect(t, DB, 0, "breakpoint: works");

    arm((uint64_t)page + MIDDLE, SUBPAGE, "read", "pause", 6);
    for (int i = 2; i < 4; i++) {
        t = TRY(store_byte(p, i));
        s = seen_so_far();
        expect(t, DB, 0, "breakpoint and pause: hit");
        ok(read8(p) == i, "breakpoint and pause: stored after the pause");
        ok(s.events == 1 && s.stops == 1,
           "breakpoint and pause: %d events, %d stops", s.events, s.stops);
    }
    disarm();

    arm((uint64_t)page + MIDDLE, SUBPAGE, "read", "report", 0);
    t = TRY(asm volatile("lock incb (%0)" : : "r" (p) : "memory"));
    s = disarm();
    expect(t, DB, 0, "breakpoint and LOCK: hit");
    ok(page[MIDDLE] == 4, "breakpoint and LOCK: done once");
    ok(s.events == 1 && s.counted == 1, "breakpoint and LOCK: %d events",
       s.events);
    watch(NULL);
}

/* --- What is counted on the side, see guard/quiet.h --- */

#define FLOOD   1000
/* Far enough to be remembered in the same place */
#define OTHER   (MIDDLE + 8 * SUBPAGE)

static const char *counts(unsigned ms)
{
    return host("call", "{\"name\": \"counts\", \"sleep\": %u.%u}", ms / 1000,
                ms % 1000 / 100);
}

static void flood_one(void *unused)
{
    (void)unused;
    cpu_enable_simd();
    for (int i = 0; i < FLOOD; i++) {
        write64(va + MIDDLE + i % 15 * 8, i);
    }
    for (int i = 0; i < FLOOD; i++) {
        write64(va + MIDDLE, i);
        write8(va + OTHER + 5, i);
    }
    for (int i = 0; i < FLOOD; i++) {
        asm volatile("movups %%xmm0, %c1(%0); vmovdqu %%ymm0, %c2(%0)"
                     : : "r" (va), "i" (MIDDLE), "i" (MIDDLE + 96)
                     : "memory");
    }
}

/* A flood is counted to the last one, and forgotten when it has to be */
static void flood(void)
{
    const long all = FLOOD * 5l * cpus();
    const char *r;
    bool zero;
    long told;

    memset(page, 0, PAGE_SIZE);
    arm((uint64_t)page + MIDDLE, SUBPAGE, "read", "discard", 0);
    arm_more((uint64_t)page + OTHER, SUBPAGE, "none", "discard");
    counts(0);
    on_all(flood_one, NULL);
    r = counts(0);
    told = json_number(r, "told", 0);
    ok(json_number(r, "total", -1) == all, "flood: %ld of %ld counted",
       json_number(r, "total", -1), all);
    ok(json_number(r, "writes.0", -1) == all / 5 * 4 &&
       json_number(r, "writes.1", -1) == all / 5,
       "flood: %ld and %ld counted by region",
       json_number(r, "writes.0", -1), json_number(r, "writes.1", -1));
    ok(json_number(r, "events", -1) < all / 2, "flood: %ld events",
       json_number(r, "events", -1));
    zero = true;
    for (unsigned i = 0; i < OTHER; i++) {
        zero &= !page[i];
    }
    ok(zero, "flood: not a byte has changed");

    /* The next one is told of, and how many were not */
    write64(va + MIDDLE, 1);
    told += json_number(counts(300), "told", 0);
    write64(va + MIDDLE, 1);
    r = counts(0);
    told += json_number(r, "told", 0);
    ok(json_number(r, "events", -1) == 1 && told == all + 2,
       "flood: %ld events later, %ld of %ld told of",
       json_number(r, "events", -1), told, all + 2);

    /* Another action for one of the pieces, which forgets its count */
    for (int i = 0; i < FLOOD; i++) {
        write64(va + MIDDLE, i);
    }
    r = qmp("subpage-set-access", "{\"regions\": [{\"addr\": %lu, \"size\": "
            "%u, \"access\": \"read\"}], \"action\": \"fault\"}",
            (uint64_t)page + MIDDLE, SUBPAGE);
    ok(!qmp_failed(r), "flood: another action");
    expect(TRY(write64(va + MIDDLE, 1)), GP, 0, "flood: now a fault");
    write8(va + OTHER, 1);
    r = counts(0);
    ok(json_number(r, "writes.0", -1) == 1 &&
       json_number(r, "writes.1", -1) == all / 5 + 1,
       "flood: %ld and %ld counted after a change",
       json_number(r, "writes.0", -1), json_number(r, "writes.1", -1));
    disarm();
    write64(va + MIDDLE, 1);
    ok(read64(page + MIDDLE) == 1, "flood: lifted");
}

/* --- A device that wants memory only --- */

/* What it found was not RAM, so that it gave up without a word */
static void device(void)
{
    uint32_t *descriptor = (uint32_t *)(page + MIDDLE);
    static const char *const actions[] = { "report", "discard" };
    uint16_t io = pci_read32(5, 0, 0x10) & ~3u;
    Seen s;

    if ((pci_read32(5, 0, 0) & 0xffff) != 0x1011 || !io) {
        skip("no tulip");
        return;
    }
    pci_write8(5, 0, 4, 7);
    for (int i = 0; i < 2; i++) {
        memset(page, 0, PAGE_SIZE);
        /* A frame that sets nothing up: it is done at once, and says so */
        descriptor[0] = 0x80000000;
        descriptor[1] = 1 << 27;
        outl(io + 0x30, 0);
        outl(io + 0x20, (uint64_t)descriptor);
        arm((uint64_t)descriptor, SUBPAGE, "read", actions[i], 0);
        outl(io + 0x30, 1 << 13);
        s = disarm();
        ok(s.events == 4 && s.counted == 4 && s.write &&
           !strcmp(s.source, "device") && !strcmp(s.action, actions[i]) &&
           s.addr == (uint64_t)descriptor && s.size == 4,
           "tulip, %s: %d events, %d counted, first addr 0x%lx size %lu %s",
           actions[i], s.events, s.counted, s.addr, s.size, s.action);
        ok(descriptor[0] == (i ? 0x80000000 : 0x7fffffff),
           "tulip, %s: status is 0x%x", actions[i], descriptor[0]);
    }
}

/* --- Protection is lifted in the middle of an instruction --- */

static bool stop;
static uint64_t times;

static void input(void *unused)
{
    (void)unused;
    while (!__atomic_load_n(&stop, __ATOMIC_ACQUIRE)) {
        uint8_t *d = va + PAGE_SIZE - 31;
        uint64_t n = 32;

        asm volatile("rep insw" : "+D" (d), "+c" (n) : "d" (0x80) : "memory");
        __atomic_store_n(&times, times + 1, __ATOMIC_RELEASE);
    }
}

/* Across a page, the check for "not protected any more" ended QEMU */
static void lift(void)
{
    uint8_t *f = frames(3);
    const char *r;

    va = map2(f, PTE_RW, f + PAGE_SIZE, PTE_RW);
    on_cpu(1, input, NULL);
    r = host("call", "{\"name\": \"flip\", \"addr\": %lu, \"rounds\": 100}",
             (uint64_t)(f + 2 * PAGE_SIZE));
    __atomic_store_n(&stop, true, __ATOMIC_RELEASE);
    wait_cpu(1);
    ok(json_number(r, "rounds", 0) == 100, "%ld times armed and lifted",
       json_number(r, "rounds", 0));
    ok(times > 0, "meanwhile %lu times INS across a page", times);
}

/* --- Suspend to RAM --- */

/* Waking up was taken for a reset, and cleared everything */
static void suspend(void)
{
    const char *r;

    if (boot_number() == 1) {
        arm(0x3000000, SUBPAGE, "read", "fault", 0);
        host("on", "{\"event\": \"SUSPEND\", \"do\": [\"system_wakeup\"]}");
        for (;;) {
            outw(0x604, 1 << 13 | 1 << 10);
        }
    }
    /* There is nothing to resume, so the firmware resets the machine */
    r = host("call", "{\"name\": \"order\"}");
    ok(json_number(r, "wakeup", -1) >= 0, "the machine slept and woke up: %s",
       r);
    ok(json_number(r, "reset", -1) > json_number(r, "wakeup", -1),
       "then it was reset");
    ok(json_number(r, "cleared", -1) > json_number(r, "wakeup", -1),
       "that cleared the protection, not waking up");
}

/* --- RAM goes --- */

/* The guards of RAM go with it, and not before */
static void eject(void)
{
    const char *r;

    arm(0x100001000, SUBPAGE, "read", "fault", 0);
    outl(0xa00, 0);
    outb(0xa14, 8);
    r = host("events", "{\"name\": \"DEVICE_DELETED\", \"wait\": 1}");
    ok(json_number(r, "count", 0) >= 1, "the DIMM is ejected");
    r = qmp("query-subpage-access", "{}");
    ok(json_length(r, "return") == 1, "its memory is still protected");
    qmp("object-del", "{\"id\": \"ram1\"}");
    r = host("events", "{\"name\": \"SUBPAGE_CLEARED\", \"wait\": 1}");
    ok(json_is(r, "events.0.data.reason", "ram-removed") &&
       json_is(r, "events.0.data.size", "128"), "RAM goes: one event: %s", r);
    r = qmp("query-subpage-access", "{}");
    ok(json_length(r, "return") == 0, "nothing is listed");
}

void test(void)
{
    const char *what = command_line();

    page = frame();
    memset(page, 0, PAGE_SIZE);
    va = map(page, PTE_RW);
    cpu_enable_simd();
    if (!strcmp(what, "device")) {
        device();
    } else if (!strcmp(what, "lift")) {
        lift();
    } else if (!strcmp(what, "suspend")) {
        suspend();
    } else if (!strcmp(what, "eject")) {
        eject();
    } else {
        xsave_twice();
        xrstor();
        masked();
        code_base();
        walkers();
        breakpoints();
        flood();
    }
}
