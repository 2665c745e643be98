/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * x87, FXSAVE and XSAVE areas that lie across two pages whose frames are
 * not neighbours. Each byte must reach (or come from) the frame that the
 * second page maps, not the frame that follows the first in RAM; and when
 * one of the pages does not allow the access, nothing at all happens.
 *
 * Upstream's access_ptr() takes the frame that follows for an item of the
 * area that begins in the first page and ends in the second.
 */

#include "guest.h"

GUEST_RUN("max", "-cpu max");
GUEST_RUN("xo", "-cpu max,+xo -append xo");

#define BACKGROUND  0xee
#define MOST        1024

static uint64_t number;

#define PLAIN(name, insn, before)                                       \
    static void name(void *p)                                           \
    {                                                                   \
        asm volatile(before insn " (%0)" : : "r" (p) : "memory");       \
    }
#define WITH_MASK(name, insn)                                           \
    static void name(void *p)                                           \
    {                                                                   \
        asm volatile(insn " (%0)"                                       \
                     : : "r" (p), "a" (7), "d" (0) : "memory");         \
    }
PLAIN(fstp, "fstpt", "")
PLAIN(fld, "fldt", "fninit;")
PLAIN(fbstp, "fbstp", "")
PLAIN(fbld, "fbld", "fninit;")
PLAIN(fnstenv, "fnstenv", "")
PLAIN(fldenv, "fldenv", "")
PLAIN(fnsave, "fnsave", "")
PLAIN(frstor, "frstor", "")
PLAIN(fxsave, "fxsave", "")
PLAIN(fxrstor, "fxrstor", "")
PLAIN(fxsave64, "fxsave64", "")
PLAIN(fxrstor64, "fxrstor64", "")
WITH_MASK(xsave, "xsave")
WITH_MASK(xrstor, "xrstor")

static const struct form {
    const char *name, *load_name;
    unsigned size, align;
    void (*store)(void *p), (*load)(void *p);
    /* The last bytes of the image are reserved, and may not be touched */
    unsigned touched;
} forms[] = {
    { "FSTP m80", "FLD m80", 10, 1, fstp, fld, 10 },
    { "FBSTP", "FBLD", 10, 1, fbstp, fbld, 10 },
    { "FNSTENV", "FLDENV", 28, 1, fnstenv, fldenv, 28 },
    { "FNSAVE", "FRSTOR", 108, 1, fnsave, frstor, 108 },
    { "FXSAVE", "FXRSTOR", 512, 16, fxsave, fxrstor, 416 },
    { "FXSAVE64", "FXRSTOR64", 512, 16, fxsave64, fxrstor64, 416 },
    { "XSAVE", "XRSTOR", 832, 64, xsave, xrstor, 832 },
};

/*
 * A state whose images have no two equal neighbours, if possible. Never
 * inlined: images hold the address of the last x87 instruction.
 */
static void __attribute__((noinline)) set_state(unsigned seed)
{
    static uint8_t vectors[32];

    number = 0x0102030405060708ull + seed * 0x0011131719232931ull;
    for (unsigned i = 0; i < sizeof(vectors); i++) {
        vectors[i] = seed * 37 + i;
    }
    asm volatile("fninit;"
                 "fildll %0; fildll %0; fildll %0; fildll %0;"
                 "fildll %0; fildll %0; fildll %0; fildll %0;"
                 "vmovdqu %1, %%ymm0; vmovdqu %1, %%ymm7;"
                 "vmovdqu %1, %%ymm9; vmovdqu %1, %%ymm15"
                 : : "m" (number), "m" (vectors));
}

static uint8_t *frame_a, *behind_a, *frame_c;   /* A, the next one, C */
static uint8_t *expected, *flat;

static void background(void)
{
    memset(frame_a, BACKGROUND, PAGE_SIZE);
    memset(behind_a, BACKGROUND, PAGE_SIZE);
    memset(frame_c, BACKGROUND, PAGE_SIZE);
}

static bool clean(const uint8_t *p, unsigned n)
{
    for (unsigned i = 0; i < n; i++) {
        if (p[i] != BACKGROUND) {
            return false;
        }
    }
    return true;
}

/* The image of state @seed, stored where nothing is special */
static void flat_image(const struct form *form, unsigned seed, uint8_t *to)
{
    memset(to, BACKGROUND, MOST);
    if (form->store == xsave) {
        memset(to + 512, 0, 64);
    }
    set_state(seed);
    form->store(to);
}

/* @n bytes of the image are in the first page, the rest in the second */
static bool across(const struct form *form, unsigned n, uint8_t *second,
                   bool store)
{
    uint8_t *p = second - n;

    background();
    if (!store || form->store == xsave) {
        /* XSAVE reads its header */
        flat_image(form, 1, expected);
        memcpy(frame_a + PAGE_SIZE - n, expected, n);
        memcpy(frame_c, expected + n, form->size - n);
    }
    if (store) {
        flat_image(form, 2, expected);
        set_state(2);
        form->store(p);
        return !memcmp(frame_a + PAGE_SIZE - n, expected, n) &&
               !memcmp(frame_c, expected + n, form->size - n) &&
               clean(frame_a, PAGE_SIZE - n) &&
               clean(frame_c + form->size - n, 64) &&
               clean(behind_a, PAGE_SIZE);
    }
    set_state(2);
    form->load(p);
    memset(flat, BACKGROUND, MOST);
    if (form->store == xsave) {
        memset(flat + 512, 0, 64);
    }
    form->store(flat);
    return !memcmp(flat, expected, form->size);
}

static void both_pages(const struct form *form)
{
    uint8_t *writable = map2(frame_a, PTE_RW, frame_c, PTE_RW);
    uint8_t *read_only = map2(frame_a, PTE_P, frame_c, PTE_P);

    for (int store = 1; store >= 0; store--) {
        /* A load must be one: it asks for no more than reading */
        uint8_t *p = store ? writable : read_only;
        unsigned good = 0, all = 0, first_bad = 0;

        for (unsigned n = form->align; n < form->touched; n += form->align) {
            volatile bool fine = false;     /* changed in a TRY() */
            Fault f = TRY(fine = across(form, n, p + PAGE_SIZE, store));


            all++;
            good += fine;
            if (!fine && !first_bad) {
                first_bad = n;
                note("%u bytes in the first page: %s", n, fault_text(f));
            }
        }
        ok(all && good == all, "%s across two %s pages: %u of %u offsets",
           store ? form->name : form->load_name,
           store ? "writable" : "read-only", good, all);
    }
}

static void refused(const struct form *form, const char *how, uint64_t bits1,
                    uint64_t bits2, bool second, bool store, uint64_t err)
{
    uint8_t *p = map2(frame_a, bits1, frame_c, bits2);
    unsigned good = 0, all = 0;
    Fault bad = { .vec = NONE };

    for (unsigned n = form->align; n < form->touched; n += form->align) {
        uint8_t *area = p + PAGE_SIZE - n;
        Fault f;
        bool fine;

        background();
        if (!store) {
            flat_image(form, 1, expected);
            memcpy(frame_a + PAGE_SIZE - n, expected, n);
            memcpy(frame_c, expected + n, form->size - n);
        } else if (form->store == xsave) {
            memset(frame_a, 0, PAGE_SIZE);
            memset(frame_c, 0, PAGE_SIZE);
        }
        set_state(2);
        f = try_call(store ? form->store : form->load, area);
        fine = f.vec == PF && f.err == err &&
               (f.cr2 & -PAGE_SIZE) ==
               (uint64_t)(second ? p + PAGE_SIZE : p);
        if (store) {
            if (form->store == xsave) {
                for (unsigned i = 0; i < PAGE_SIZE; i++) {
                    fine &= !frame_a[i] && !frame_c[i];
                }
            } else {
                fine &= clean(frame_a, PAGE_SIZE) &&
                        clean(frame_c, PAGE_SIZE);
            }
            fine &= clean(behind_a, PAGE_SIZE);
        } else if (form->load != fld && form->load != fbld) {
            /* The state is still that of seed 2 */
            memset(flat, BACKGROUND, MOST);
            if (form->store == xsave) {
                memset(flat + 512, 0, 64);
            }
            form->store(flat);
            flat_image(form, 2, expected);
            fine &= !memcmp(flat, expected, form->size);
        } else {
            /* fninit came before it: the stack must be empty */
            uint16_t env[14];

            asm volatile("fnstenv %0" : "=m" (env));
            fine &= env[4] == 0xffff;
        }
        all++;
        good += fine;
        if (!fine) {
            bad = f;
        }
    }
    ok(all && good == all, "%s, %s page %s: %u of %u offsets fault cleanly",
       store ? form->name : form->load_name, second ? "second" : "first",
       how, good, all);
    if (good != all) {
        note("e.g. %s", fault_text(bad));
    }
}

static void one_page(const struct form *form, const char *how, uint64_t bits,
                     uint64_t store_err, bool load)
{
    for (int second = 1; second >= 0; second--) {
        uint64_t bits1 = second ? PTE_RW : bits;
        uint64_t bits2 = second ? bits : PTE_RW;

        refused(form, how, bits1, bits2, second, true, store_err);
        if (load) {
            refused(form, how, bits1, bits2, second, false,
                    store_err & ~PF_W);
        }
    }
}

void test(void)
{
    bool xo = !strcmp(command_line(), "xo");
    uint8_t *block = frames(4);

    frame_a = block;
    behind_a = block + PAGE_SIZE;
    frame_c = block + 3 * PAGE_SIZE;
    expected = frame();
    flat = frame();
    cpu_enable_simd();
    ok(cpuid(0xd, 0).ebx == 832, "the XSAVE area has %u bytes",
       cpuid(0xd, 0).ebx);
    ok(xo_present() == xo, "CPUID %s execute-only memory",
       xo ? "offers" : "does not offer");

    for (unsigned i = 0; i < ARRAY_SIZE(forms); i++) {
        both_pages(&forms[i]);
        one_page(&forms[i], "absent", 0, PF_W, true);
        one_page(&forms[i], "read-only", PTE_P, PF_P | PF_W, false);
        if (xo) {
            one_page(&forms[i], "execute-only", PTE_P | xo_bit(),
                     PF_P | PF_W, true);
            one_page(&forms[i], "execute-only and W", PTE_RW | xo_bit(),
                     PF_P | PF_W, true);
        }
    }
}
