/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Operands in blocks (x87, FXSAVE) where upstream's X86Access went wrong in
 * other ways than access-ptr.c has: one that wraps round from the end of the
 * address space to page 0, and one that ends in MMIO.
 *
 * Without the fix QEMU aborts or crashes; each run is a case of its own.
 */

#include "guest.h"

GUEST_RUN("fld", "timeout=20 -cpu max -append fld");
GUEST_RUN("fstp", "timeout=20 -cpu max -append fstp");
GUEST_RUN("fxsave", "timeout=20 -cpu max -append fxsave");
GUEST_RUN("fxrstor", "timeout=20 -cpu max -append fxrstor");
GUEST_RUN("user", "timeout=20 -cpu max,+xo -append user");
GUEST_RUN("mmio", "timeout=20 -cpu max -append mmio");

/* The High Precision Event Timer: any MMIO that can be read */
#define HPET        0xfed00000ull
#define TOP         0xfffffffffffff000ull

static USER uint64_t user_fld(uint64_t a)
{
    asm volatile("fldt (%0); fstp %%st(0)" : : "r" (a));
    return 1;
}

static Fault wrapped(char kind, uint64_t a)
{
    switch (kind) {
    case 'd':
        return TRY(asm volatile("fldt (%0); fstp %%st(0)" : : "r" (a)));
    case 't':
        return TRY(asm volatile("fld1; fstpt (%0)" : : "r" (a) : "memory"));
    case 's':
        return TRY(asm volatile("fxsave (%0)" : : "r" (a) : "memory"));
    case 'r':
        return TRY(asm volatile("fxrstor (%0)" : : "r" (a)));
    default:
        return TRY(user(user_fld, a));
    }
}

void test(void)
{
    const char *c = command_line();
    uint8_t *first = frame(), *second = frame();
    /* 1.0 as an 80-bit number: bytes 7 to 9 are 0x80, 0xff, 0x3f */
    static const uint8_t one[] = { 0, 0, 0, 0, 0, 0, 0, 0x80, 0xff, 0x3f };

    cpu_enable_simd();
    if (!strcmp(c, "mmio")) {
        uint8_t *p = map2(first, PTE_RW, (void *)HPET, PTE_RW);

        /* FXSAVE's own image, so that FXRSTOR finds no reserved bit set */
        asm volatile("fxsave (%0)" : : "r" (first) : "memory");
        memmove(first + 0xf00, first, 0x100);
        expect_none(TRY(asm volatile("fxrstor (%0)" : : "r" (p + 0xf00))),
                    "FXRSTOR from memory and MMIO");
        return;
    }
    map_at(TOP, first, LEVEL_4K, PTE_RW | PTE_U);
    map_at(0, second, LEVEL_4K, PTE_RW | PTE_U);
    if (!strcmp(c, "fxrstor")) {
        uint8_t *image = frame();

        asm volatile("fxsave (%0)" : : "r" (image) : "memory");
        memcpy(first + 0xff0, image, 16);
        memcpy(second, image + 16, 496);
    }
    expect_none(wrapped(c[0] == 'u' ? 'u' : c[0] == 'f' && c[1] == 'x' ?
                        (c[2] == 's' ? 's' : 'r') : (c[1] == 'l' ? 'd' : 't'),
                        c[1] == 'x' ? TOP + 0xff0 : TOP + 0xffc),
                "%s of an operand that wraps round", c);
    if (!strcmp(c, "fstp")) {
        ok(!memcmp(first + 0xffc, one, 4) && !memcmp(second, one + 4, 6),
           "its bytes are where they belong");
    }
}
