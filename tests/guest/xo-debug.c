/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The host's debuggers see through execute-only pages: the monitor's x,
 * memsave, gva2gpa, info tlb and info mem, the gdbstub and
 * dump-guest-memory. Each is asked about pages that the guest itself is
 * first shown to be unable to read.
 *
 * xo-debug.py is the host's side.
 */

#include "guest.h"

GUEST_RUN("4-level", "-cpu max,+xo -smp 2 -append 4");
GUEST_RUN("5-level", "-cpu max,+xo -smp 2 -append 5");
GUEST_RUN("phys-bits-36",
          "-cpu qemu64,+xo,phys-bits=36 -smp 2 -append 4");
GUEST_RUN("xo-off", "-cpu max -smp 2 -append 4");

#define MARK 0x5ec2e7c0de5ec2e7ull

/* mov $MARK, %rax; ret */
static const uint8_t code[] = {
    0x48, 0xb8, 0xe7, 0xc2, 0x5e, 0xde, 0xc0, 0xe7, 0xc2, 0x5e, 0xc3,
};

/* The host changes nothing here, but the other CPU does */
static volatile bool parked, leave;

static void ask(const char *call, const void *va, const void *pa,
                uint64_t size, const char *what)
{
    const char *reply = host("call", "{\"name\": \"%s\", \"va\": %lu, "
                             "\"pa\": %lu, \"size\": %lu, \"xo\": %s, "
                             "\"cpu\": 0}", call, (uint64_t)va, (uint64_t)pa,
                             size, xo_present() ? "true" : "false");

    ok(json_is(reply, "good", "true"), "%s: %s", what, call);
    if (!json_is(reply, "good", "true")) {
        note("%s", reply);
    }
}

static void ask_all(void *va, void *pa, uint64_t size, const char *what)
{
    static const char *const calls[] = {
        "x", "disassembly", "memsave", "gva2gpa", "info_tlb", "info_mem",
        "gdb_read", "gdb_write", "dump",
    };

    memcpy(pa, code, sizeof(code));
    if (xo_present()) {
        expect_pf(TRY(read8(va)), PF_P, va, "%s: the guest can't read it",
                  what);
    } else {
        expect_none(TRY(read8(va)), "%s: the guest can read it", what);
    }
    ok(((uint64_t (*)(void))va)() == MARK, "%s: the guest runs it", what);
    for (unsigned i = 0; i < ARRAY_SIZE(calls); i++) {
        ask(calls[i], va, pa, size, what);
    }
    ok(((uint64_t (*)(void))va)() == MARK + 1,
       "%s: the guest runs what gdb wrote", what);
}

/* The other CPU is in a legacy paging mode, and waits in it */
static Space pae_tables;
static uint32_t *directory;

static void pae_cpu(void *unused)
{
    struct mode32 m = {
        .kind = M32_FETCH, .addr = 0x40000000, .efer = EFER_NXE,
    };

    (void)unused;
    pae_access(&pae_tables, &m);
}

static void paging32_cpu(void *unused)
{
    struct mode32 m = { .kind = M32_FETCH, .addr = 0x40000000 };

    (void)unused;
    paging32_access(directory, &m);
}

static void legacy(void (*mode)(void *), uint8_t *page, const char *call,
                   uint64_t va, uint64_t pa, const char *what)
{
    static const uint8_t wait[] = {
        0xb8, 0, 0, 0, 0,               /* mov $parked, %eax */
        0xc6, 0x00, 0x01,               /* movb $1, (%eax) */
        0xb8, 0, 0, 0, 0,               /* mov $leave, %eax */
        0xf3, 0x90,                     /* 1: pause */
        0x80, 0x38, 0x00,               /* cmpb $0, (%eax) */
        0x74, 0xf9,                     /* je 1b */
        0xc3,                           /* ret */
    };
    uint32_t a = (uint32_t)(uint64_t)&parked;
    uint32_t b = (uint32_t)(uint64_t)&leave;
    const char *reply;

    memcpy(page, wait, sizeof(wait));
    memcpy(page + 1, &a, 4);
    memcpy(page + 9, &b, 4);
    parked = leave = false;
    on_cpu(1, mode, NULL);
    while (!parked) {
        pause();
    }
    reply = host("call", "{\"name\": \"%s\", \"va\": %lu, \"pa\": %lu, "
                 "\"size\": 4096, \"xo\": %s, \"cpu\": 1}", call, va, pa,
                 xo_present() ? "true" : "false");
    ok(json_is(reply, "good", "true"), "%s", what);
    if (!json_is(reply, "good", "true")) {
        note("%s", reply);
    }
    leave = true;
    wait_cpu(1);
}

static void pae(uint64_t bit)
{
    uint8_t *page = frame();

    pae_tables = pae_space();
    *space_entry(&pae_tables, 0x40000000, LEVEL_4K) =
        (uint64_t)page | PTE_P | bit;
    legacy(pae_cpu, page, "pae", 0x40000000, (uint64_t)page,
           "PAE paging: x, info tlb, info mem");
}

/*
 * Entries of 32-bit paging have no execute-only bit: where the bit of that
 * number is in the address of a 4 MiB page (PSE-36), it is an address bit.
 */
static void paging32(void)
{
    unsigned m = phys_bits();
    uint8_t *page = frames(1024);
    uint64_t high = 1ull << m;
    uint32_t pde = PTE_RW | PTE_PS | 1u << (13 + m - 32);

    directory = frame();
    for (uint32_t i = 0; i < 256; i++) {
        directory[i] = i << 22 | PTE_RW | PTE_PS;
    }
    directory[256] = (uint32_t)(uint64_t)page | PTE_RW | PTE_PS;
    directory[257] = pde;
    for (int kind = M32_READ; kind <= M32_WRITE; kind++) {
        struct mode32 access = { .kind = kind, .addr = 257u << 22 };

        expect_none(paging32_access(directory, &access),
                    "32-bit paging: bit %u of an address is no XO bit: %s", m,
                    kind == M32_READ ? "read" : "write");
    }
    legacy(paging32_cpu, page, "gva2gpa", 257u << 22, high,
           "32-bit paging: gva2gpa keeps the address bit");
}

void test(void)
{
    uint64_t bit = xo_present() ? xo_bit() : 0;
    uint8_t *small = frame(), *large = frames(512);
    void *va = map(small, PTE_P | bit);

    if (command_line()[0] == '5') {
        use_levels(5);
        va = map(small, PTE_P | bit);
    }
    ask_all(va, small, PAGE_SIZE, "4 KiB page");

    va = (void *)((window(2 * PAGE_2M) + PAGE_2M - 1) & -PAGE_2M);
    map_at((uint64_t)va, large, LEVEL_2M, PTE_P | bit);
    ask_all(va, large, PAGE_2M, "2 MiB page");

    if (cpuid(0x80000001, 0).edx & 1u << 26) {
        va = (void *)((window(2 * PAGE_1G) + PAGE_1G - 1) & -PAGE_1G);
        map_at((uint64_t)va, 0, LEVEL_1G, PTE_P | bit);
        ask_all((uint8_t *)va + (uint64_t)large, large, PAGE_1G,
                "1 GiB page");
    } else {
        skip("1 GiB page: this CPU has none");
    }
    if (command_line()[0] == '4') {
        pae(bit);
    }
    if (phys_bits() < 40) {
        paging32();
    }
}
