/* SPDX-License-Identifier: GPL-2.0-or-later */
/* The frame tests itself: what every other test leans on. */

#include "guest.h"

GUEST_RUN("q35", "-machine q35 -cpu max -smp 4 -append words");
GUEST_RUN("pc-single-thread",
          "accel=tcg,thread=single -machine pc -cpu max -smp 4");
GUEST_RUN("icount", "-machine q35 -cpu max -smp 2 -icount shift=3");
GUEST_RUN("epyc", "-machine q35 -cpu EPYC,+svm -smp 1");
GUEST_RUN("reset", "reboots -machine q35 -cpu max -append reset");

static void results(void)
{
    char b[80];

    format(b, sizeof(b), "%d %5d|%05d|%x|%016lx|%3s|%c%%", -5, -42, -42, 255u,
           0x123456789abcul, "a", 'z');
    ok(!strcmp(b, "-5   -42|-0042|ff|0000123456789abc|a  |z%"),
       "format() gives \"%s\"", b);
    ok(format(b, 4, "abcdef") == 6 && !strcmp(b, "abc"),
       "format() stops at the end of the buffer");
}

static void exceptions(void)
{
    uint8_t *gone = (void *)window(PAGE_SIZE);
    volatile int after = 0;     /* changed in a TRY() */
    static Fault inner;     /* changed in a TRY() that ends in a fault */
    Fault outer;

    expect_pf(TRY(read8(gone)), 0, gone, "read of an absent page");
    expect_pf(TRY(write8(gone + 9, 1)), PF_W, gone + 9,
              "write to an absent page");
    expect_pf(TRY(access_fetch_kernel((uint64_t)gone)), PF_I, gone,
              "fetch from an absent page");
    expect(TRY(asm volatile("ud2")), UD, 0, "UD2");
    expect(TRY(asm volatile("int3")), BP, 0, "INT3");
    expect(TRY(asm volatile("div %0" : : "r" (0) : "eax", "edx")), DE, 0,
           "division by zero");
    expect(TRY(asm volatile("mov %0, %%ds" : : "r" (0x1008))), GP, 0x1008,
           "selector beyond the GDT");
    expect(TRY(asm volatile("xor %%eax, %%eax; mov %%rsp, %%rcx;"
                            "mov %0, %%rsp; push %%rax; mov %%rcx, %%rsp"
                            : : "r" (gone + 8) : "rax", "rcx", "memory")),
           PF, PF_W, "push on an absent stack: #PF on its own stack");
    outer = TRY(inner = TRY(read8(gone)); after = 1; write8(gone, 1));
    ok(inner.vec == PF && inner.err == 0 && after == 1 && outer.vec == PF &&
       outer.err == PF_W, "a TRY within a TRY");
    expect_none(TRY(after = 2), "nothing happens");
    ok(after == 2, "what is in a TRY is done");
}

static void paging(void)
{
    uint64_t *f = frame(), *g = frame();
    uint64_t va;
    uint8_t *p = map(f, PTE_P);

    f[0] = 0x1122334455667788;
    g[0] = 0x99;
    ok(read64(p) == f[0], "a page reads its frame");
    expect_pf(TRY(write8(p, 1)), PF_P | PF_W, p, "write to a read-only page");
    write_cr0(read_cr0() & ~CR0_WP);
    expect_none(TRY(write8(p, 0x77)), "the same with CR0.WP = 0");
    write_cr0(read_cr0() | CR0_WP);
    set_entry(p, LEVEL_4K, (uint64_t)f | PTE_RW | PTE_NX);
    expect_none(TRY(write8(p, 0x66)), "write to a writable page");
    ok((f[0] & 0xff) == 0x66, "the write reached the frame");
    expect_pf(TRY(access_fetch_kernel((uint64_t)p)), PF_P | PF_I, p,
              "fetch from a page with NX");
    p = map2(f, PTE_RW, g, PTE_RW);
    ok(read64(p + PAGE_SIZE) == 0x99, "two pages side by side");
    expect_pf(TRY(read8(p + 2 * PAGE_SIZE)), 0, p + 2 * PAGE_SIZE,
              "and nothing behind them");

    va = window(PAGE_2M);
    map_at(va, (void *)((uint64_t)f & -PAGE_2M), LEVEL_2M, PTE_RW);
    ok(read64((void *)(va + ((uint64_t)f & (PAGE_2M - 1)))) == f[0],
       "a 2 MiB page");
    va = window(PAGE_1G);
    if (cpuid(0x80000001, 0).edx >> 26 & 1) {
        map_at(va, 0, LEVEL_1G, PTE_RW);
        ok(read64((void *)(va + (uint64_t)f)) == f[0], "a 1 GiB page");
    } else {
        skip("this CPU model has no 1 GiB pages");
    }
    set_entry(p, LEVEL_4K, (uint64_t)f | PTE_RW | 1ull << 51);
    if (phys_bits() < 52) {
        Fault fault = TRY(read8(p));

        ok(fault.vec == PF && fault.err & PF_RSVD, "a reserved bit: %s",
           fault_text(fault));
    }
}

static USER_DATA uint64_t user_word = 5;

static USER uint64_t user_add(uint64_t n)
{
    user_word += n;
    return user_word;
}

static USER uint64_t user_cli(uint64_t n)
{
    asm volatile("cli");
    return n;
}

static void cpl3(void)
{
    volatile uint64_t r = 0;    /* changed in a TRY() */
    uint64_t *f = frame();
    Fault fault;

    expect_none(TRY(r = user(user_add, 7)), "a function at CPL 3");
    ok(r == 12, "its result is %lu", r);
    expect(TRY(user(user_cli, 0)), GP, 0, "CLI at CPL 3");
    fault = TRY(user(access_read_user, (uint64_t)f));
    expect_pf(fault, PF_P | PF_U, f, "CPL 3 reads the kernel's page");
    ok((fault.cs & 3) == 3, "the fault came from CPL 3");
    expect_pf(TRY(user(access_write_user, (uint64_t)f)), PF_P | PF_U | PF_W,
              f, "CPL 3 writes the kernel's page");
    expect_pf(TRY(user(access_fetch_user, (uint64_t)f)), PF_P | PF_U | PF_I,
              f, "CPL 3 fetches from the kernel's page");
    write_cr4(read_cr4() | CR4_SMEP | CR4_SMAP);
    expect_pf(TRY(user_add(1)), PF_P | PF_I, (void *)user_add, "SMEP");
    expect_pf(TRY(read64(&user_word)), PF_P, &user_word, "SMAP");
    write_cr4(read_cr4() & ~(CR4_SMEP | CR4_SMAP));
}

static uint64_t counter;

static void count(void *n)
{
    uint8_t *gone = (void *)0x7000000000;

    for (int i = 0; i < 1000; i++) {
        __atomic_add_fetch(&counter, *(uint64_t *)n, __ATOMIC_SEQ_CST);
        if (TRY(read8(gone)).vec != PF) {
            counter = 0;
        }
    }
}

static USER uint64_t cube(uint64_t n)
{
    return n * n * n;
}

static void count_user(void *n)
{
    for (int i = 0; i < 100; i++) {
        if (user(cube, 3 + this_cpu()) ==
            (3 + this_cpu()) * (3 + this_cpu()) * (3 + this_cpu())) {
            __atomic_add_fetch(&counter, *(uint64_t *)n, __ATOMIC_SEQ_CST);
        }
    }
}

static void smp(void)
{
    uint64_t one = 1;

    note("%u CPUs", cpus());
    counter = 0;
    on_all(count, &one);
    ok(counter == cpus() * 1000, "all CPUs count, and take faults");
    counter = 0;
    on_all(count_user, &one);
    ok(counter == cpus() * 100, "all CPUs run at CPL 3 at a time");
    if (cpus() > 1) {
        counter = 0;
        on_cpu(1, count, &one);
        wait_cpu(1);
        ok(counter == 1000, "one other CPU counts");
    }
}

static void levels(void)
{
    uint64_t *f = frame();
    uint64_t va = 1ull << 50;

    if (!(cpuid(7, 0).ecx >> 16 & 1)) {
        skip("this CPU model has no LA57");
        return;
    }
    f[0] = 57;
    use_levels(5);
    ok(read_cr4() & CR4_LA57, "5-level paging is on");
    map_at(va, f, LEVEL_4K, PTE_RW);
    ok(read64((void *)va) == 57, "an address beyond 48 bits");
    expect_pf(TRY(read8((void *)(va + PAGE_SIZE))), 0,
              (void *)(va + PAGE_SIZE), "the page behind it");
    use_levels(4);
    expect(TRY(read8((void *)va)), GP, 0, "not canonical with 4 levels");
}

static void legacy_pae(void)
{
    Space s = pae_space();
    uint8_t *f = frame();
    struct mode32 m = { .kind = M32_READ, .addr = PAGE_1G, .cr0 = CR0_WP,
                        .efer = EFER_NXE };

    f[0] = 0x42;
    f[1] = 0xc3;
    *space_entry(&s, m.addr, LEVEL_4K) = (uint64_t)f | PTE_P;
    expect_none(pae_access(&s, &m), "PAE: read");
    ok(m.result == 0x42, "PAE: the value read");
    m.kind = M32_WRITE;
    expect_pf(pae_access(&s, &m), PF_P | PF_W, (void *)PAGE_1G,
              "PAE: write to a read-only page");
    m.cr0 = 0;
    expect_none(pae_access(&s, &m), "PAE: the same with CR0.WP = 0");
    ok(f[0] == 0xb8, "PAE: the value written");
    m.cpl = 3;
    expect_pf(pae_access(&s, &m), PF_P | PF_W | PF_U, (void *)PAGE_1G,
              "PAE: write from CPL 3 to the kernel's page");
    *space_entry(&s, m.addr, LEVEL_4K) |= PTE_W | PTE_U;
    expect_none(pae_access(&s, &m), "PAE: write from CPL 3");
    m.kind = M32_FETCH;
    m.addr++;
    expect_none(pae_access(&s, &m), "PAE: fetch from CPL 3");
    *space_entry(&s, m.addr, LEVEL_4K) |= PTE_NX;
    expect_pf(pae_access(&s, &m), PF_P | PF_U | PF_I, (void *)(PAGE_1G + 1),
              "PAE: fetch from a page with NX");
    expect_none(TRY(user(user_add, 0)), "CPL 3 in long mode again");
    expect_pf(TRY(read8((void *)0x7000000000)), 0, (void *)0x7000000000,
              "exceptions in long mode again");
}

static uint64_t l2_read(uint64_t p)
{
    return read64((void *)p);
}

static uint64_t l2_fault(uint64_t p)
{
    Fault f = TRY(read8((void *)p));

    return f.vec == PF && f.cr2 == p;
}

static void svm(void)
{
    struct l2 l2;
    uint64_t *f = frame();

    if (!svm_present()) {
        skip("this CPU model has no SVM");
        return;
    }
    f[0] = 0x1234;
    for (int nested = 0; nested < 2; nested++) {
        const char *how = nested ? "nested" : "shared";

        svm_init(&l2, nested);
        ok(svm_run(&l2, l2_read, (uint64_t)f) == SVM_EXIT_VMMCALL &&
           l2.result == 0x1234, "SVM, %s tables: a guest reads", how);
        note("exit 0x%lx info 0x%lx 0x%lx", l2.exit_code, l2.info1, l2.info2);
        ok(svm_run(&l2, l2_fault, 0x7000000000) == SVM_EXIT_VMMCALL &&
           l2.result == 1, "SVM, %s tables: a guest takes a fault", how);
    }
    *space_entry(&l2.npt, (uint64_t)f, LEVEL_4K) = 0;
    ok(svm_run(&l2, l2_read, (uint64_t)f) == SVM_EXIT_NPF &&
       l2.info2 == (uint64_t)f, "SVM: a nested page that is absent");
    note("exit 0x%lx info 0x%lx 0x%lx", l2.exit_code, l2.info1, l2.info2);
}

static uint64_t in_smm(uint64_t p)
{
    Fault f = TRY(read8((void *)0x7000000000));

    return f.vec == PF ? read64((void *)p) : 0;
}

static void smm(void)
{
    uint64_t *f = frame();
    uint64_t efer = rdmsr(MSR_EFER);

    f[0] = 0x5eed;
    if (ok(smm_init(), "SMRAM can be opened")) {
        ok(smm_run(in_smm, (uint64_t)f) == 0x5eed,
           "a function runs in SMM and takes a fault");
        ok(rdmsr(MSR_EFER) == efer, "RSM puts EFER back");
        ok(smm_run(in_smm, (uint64_t)f) == 0x5eed, "a second time");
    }
}

static void simd(void)
{
    uint8_t *f = frame();

    cpu_enable_simd();
    memset(f, 0x3c, 64);
    expect_none(TRY(asm volatile("movups (%0), %%xmm0; movups %%xmm0, 64(%0)"
                                 : : "r" (f) : "memory")), "SSE");
    if (cpuid(1, 0).ecx >> 28 & 1) {
        expect_none(TRY(asm volatile("vmovups (%0), %%ymm0;"
                                     "vmovups %%ymm0, 128(%0)"
                                     : : "r" (f) : "memory")), "AVX");
        ok(f[159] == 0x3c, "32 bytes copied");
    }
}

static void the_host(void)
{
    const char *r = qmp("query-status", "{}");

    ok(json_is(r, "return.status", "running"), "query-status: %s", r);
    ok(json_is(r, "return.running", "true"), "a word in an answer");
    r = qmp("no-such-command", "{}");
    ok(qmp_failed(r) && json_is(r, "error.class", "CommandNotFound"),
       "an unknown command: %s", r);
    r = qmp("query-memory-size-summary", "{}");
    ok(json_number(r, "return.base-memory", 0) == 128 << 20,
       "a number in an answer: %s", r);
    r = qmp("human-monitor-command", "{\"command-line\": \"%s\"}",
            "info status");
    ok(!qmp_failed(r), "an argument: %s", r);
    host("events", "{}");
    r = host("qmp", "[\"stop\", \"query-status\", \"cont\"]");
    ok(json_is(r, "1.return.status", "paused"), "a list of commands: %s", r);
    r = host("events", "{\"name\": \"STOP\", \"wait\": 1}");
    ok(json_number(r, "count", 0) == 1 && json_length(r, "events") == 1 &&
       json_is(r, "events.0.name", "STOP"), "an event: %s", r);
    r = host("events", "{\"name\": \"STOP\"}");
    ok(json_number(r, "count", -1) == 0, "is taken only once: %s", r);
    r = host("on", "{\"event\": \"STOP\", \"do\": [\"cont\"]}");
    ok(json(r, "return"), "a reaction: %s", r);
    r = qmp("stop", "{}");
    ok(!qmp_failed(r), "stops and goes on by itself: %s", r);
    r = host("events", "{\"name\": \"RESUME\", \"wait\": 2}");
    ok(json_number(r, "count", 0) == 2, "twice resumed: %s", r);
    r = host("no-such-verb", "{}");
    ok(json(r, "error"), "an unknown verb: %s", r);
    r = host("qmp", "{\"execute\": ");
    ok(json(r, "error"), "broken JSON: %s", r);
    r = "{\"a\": [1, {\"b\": [true, null, \"x,]}\\\"y\"]}, -7], \"c\": {}}";
    ok(json_is(r, "a.1.b.1", "null") && json_number(r, "a.2", 0) == -7 &&
       json_length(r, "a.1.b") == 3 && json_length(r, "a") == 3 &&
       json(r, "c") && !json(r, "a.3") && !json(r, "d") &&
       !json_is(r, "a.1.b.0", "tru"), "the JSON reader");
}

void test(void)
{
    if (!strcmp(command_line(), "reset")) {
        ok(true, "boot %u", boot_number());
        if (boot_number() < 3) {
            note("%s", qmp("system_reset", "{}"));
            for (;;) {
                pause();
            }
        }
        return;
    }
    results();
    exceptions();
    paging();
    cpl3();
    smp();
    levels();
    legacy_pae();
    simd();
    svm();
    smm();
    the_host();
}
