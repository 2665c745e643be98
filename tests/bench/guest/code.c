/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The same code run from ordinary pages and from execute-only ones: the
 * same frames, mapped twice.
 */

#include "bench.h"

#define PAGES       128
#define ADDS        6

typedef uint64_t Chain(uint64_t turns);

static uint8_t *code;
static Chain *plain, *xo;

static uint8_t *emit32(uint8_t *p, uint32_t v)
{
    memcpy(p, &v, 4);
    return p + 4;
}

/* Where a page's code begins: not all in the same line of a cache */
static uint64_t start(unsigned page)
{
    return page * PAGE_SIZE + page * 64 % 2048;
}

/* A jump or a branch from @p to the code in @page, relative */
static uint8_t *emit_target(uint8_t *p, unsigned page)
{
    return emit32(p, code + start(page) - (p + 4));
}

/*
 * Windows that begin at multiples of 8 MiB have their pages at the same places
 * of QEMU's TLB, so that the pages of one meet no other neighbours there.
 */
static void *map_code(uint64_t bits)
{
    uint64_t align = 8 << 20;
    uint8_t *va = (void *)((window(2 * align) + align - 1) & -align);

    for (unsigned i = 0; i < PAGES; i++) {
        *entry(va + i * PAGE_SIZE, LEVEL_4K) =
            (uint64_t)(code + i * PAGE_SIZE) | PTE_P | PTE_A | bits;
    }
    flush_tlb();
    return va;
}

/* A ring of pages: a few additions in each, then on to the next page */
static void code_prepare(void)
{
    if (code) {
        return;
    }
    code = frames(PAGES);
    for (unsigned i = 0; i < PAGES; i++) {
        uint8_t *p = code + start(i);

        for (unsigned k = 0; k < ADDS; k++) {
            /* add $imm32, %rax */
            *p++ = 0x48;
            *p++ = 0x05;
            p = emit32(p, i * ADDS + k);
        }
        if (i < PAGES - 1) {
            /* jmp */
            *p++ = 0xe9;
            emit_target(p, i + 1);
        } else {
            /* dec %rdi; jnz; ret */
            memcpy(p, "\x48\xff\xcf\x0f\x85", 5);
            p = emit_target(p + 5, 0);
            *p = 0xc3;
        }
    }
    plain = map_code(0);
}

static void code_xo_prepare(void)
{
    uint64_t expected;

    code_prepare();
    if (!xo_present()) {
        bail("this CPU has no execute-only memory");
    }
    xo = map_code(xo_bit());
    expected = TRY(read8(xo)).vec;
    if (expected != PF) {
        bail("the execute-only pages can be read");
    }
}

static void code_run(uint64_t count)
{
    plain(count);
}

static void code_xo_run(uint64_t count)
{
    xo(count);
}

/* Makes QEMU drop its translation of each page, then runs the code */
static void translate(Chain *chain, uint64_t count)
{
    while (count--) {
        for (unsigned i = 0; i < PAGES; i++) {
            write8(code + start(i) + 2, count);
        }
        chain(1);
    }
}

static void translate_run(uint64_t count)
{
    translate(plain, count);
}

static void translate_xo_run(uint64_t count)
{
    translate(xo, count);
}

const Loop loops[] = {
    { "code", code_prepare, code_run },
    { "code-xo", code_xo_prepare, code_xo_run },
    { "translate", code_prepare, translate_run },
    { "translate-xo", code_xo_prepare, translate_xo_run },
    { NULL, NULL, NULL },
};
