/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * NPIEP: with npiep=on SIDT, SGDT, SLDT, STR and SMSW fault at CPL 3 although
 * the guest has not set CR4.UMIP; and only there.
 */

#include "pin.h"

GUEST_RUN("on", "-cpu max,npiep=on -append on");
GUEST_RUN("without-umip", "-cpu max,-umip,npiep=on -append on+no-umip");
GUEST_RUN("qemu64", "-cpu qemu64,npiep=on -append on+no-umip");
GUEST_RUN("off", "-cpu max -append off");
GUEST_RUN("explicitly-off", "-cpu max,npiep=off -append off");
GUEST_RUN("one-insn",
          "accel=tcg,one-insn-per-tb=on -cpu max,npiep=on -append on");

static uint8_t out[32] USER_DATA;

#define USER_INSN(name, insn, arg...)                                   \
static USER uint64_t name(uint64_t p)                                   \
{                                                                       \
    asm volatile(insn : : "r" (p), ##arg : "memory", "rax");            \
    return p;                                                           \
}
USER_INSN(user_sidt, "sidt (%0)")
USER_INSN(user_sgdt, "sgdt (%0)")
USER_INSN(user_sldt, "sldt (%0)")
USER_INSN(user_str, "str (%0)")
USER_INSN(user_smsw, "smsw (%0)")
USER_INSN(user_sldt_reg, "mov $-1, %%rax; sldt %%rax; mov %%rax, (%0)")
USER_INSN(user_str_reg, "mov $-1, %%rax; str %%rax; mov %%rax, (%0)")
USER_INSN(user_smsw_reg, "mov $-1, %%rax; smsw %%rax; mov %%rax, (%0)")
USER_INSN(user_sidt_prefix, ".byte 0x66; sidt (%0)")

static const struct {
    const char *name;
    uint64_t (*fn)(uint64_t);
} all[] = {
    { "SIDT", user_sidt }, { "SGDT", user_sgdt },
    { "SLDT to memory", user_sldt }, { "STR to memory", user_str },
    { "SMSW to memory", user_smsw }, { "SLDT to a register", user_sldt_reg },
    { "STR to a register", user_str_reg },
    { "SMSW to a register", user_smsw_reg },
    { "SIDT with a prefix", user_sidt_prefix },
};

static bool touched(void)
{
    for (unsigned i = 0; i < sizeof(out); i++) {
        if (out[i] != 0x5a) {
            return true;
        }
    }
    return false;
}

static void at_user(bool on, const char *what)
{
    for (unsigned i = 0; i < ARRAY_SIZE(all); i++) {
        Fault f;

        memset(out, 0x5a, sizeof(out));
        f = TRY(user(all[i].fn, (uint64_t)out));
        ok(on ? f.vec == GP && !f.err && f.cs == SEL_USER_CODE64 &&
                !touched()
              : f.vec == NONE && touched(),
           "%s, %s at CPL 3: %s", what, all[i].name, fault_text(f));
    }
}

static void at_kernel(const char *what)
{
    for (unsigned i = 0; i < ARRAY_SIZE(all); i++) {
        Fault f;

        memset(out, 0x5a, sizeof(out));
        f = TRY(all[i].fn((uint64_t)out));
        ok(f.vec == NONE && touched(), "%s, %s at CPL 0: %s", what,
           all[i].name, fault_text(f));
    }
}

/* --- 32-bit code, and virtual-8086 mode, which is CPL 3 --- */

#define EFLAGS_VM       (1u << 17)
#define EFLAGS_IOPL     (3u << 12)
#define LOW             0x9000          /* where vm86 can run it */
#define HIGH            0x1100000       /* among what CPL 3 may touch */

struct legacy_insn {
    const char *name;
    uint8_t bytes[12];
    unsigned n;
};

static Space space;

static Fault legacy(const struct legacy_insn *insn, uint32_t addr, int cpl,
                    uint32_t eflags)
{
    struct mode32 m = { .kind = M32_FETCH, .cpl = cpl, .addr = addr,
                        .eflags = eflags };
    uint8_t *code = (void *)(uint64_t)addr;

    memset(code, 0xf4, 64);             /* HLT */
    memcpy(code, insn->bytes, insn->n);
    memset(code + 0x800, 0x5a, 16);
    return pae_access(&space, &m);
}

static void legacy_code(bool on, const char *what)
{
    /* All end in RET; the first two store to HIGH + 0x800 */
    static const struct legacy_insn code32[] = {
        { "SIDT", { 0x0f, 0x01, 0x0d, 0x00, 0x08, 0x10, 0x01, 0xc3 }, 8 },
        { "SGDT", { 0x0f, 0x01, 0x05, 0x00, 0x08, 0x10, 0x01, 0xc3 }, 8 },
        { "SLDT", { 0x0f, 0x00, 0xc0, 0xc3 }, 4 },
        { "STR", { 0x0f, 0x00, 0xc8, 0xc3 }, 4 },
        { "SMSW", { 0x0f, 0x01, 0xe0, 0xc3 }, 4 },
    };
    /* All end in INT 0x80; the first two store to DS:(LOW + 0x800) */
    static const struct legacy_insn vm86[] = {
        { "SIDT", { 0x0f, 0x01, 0x0e, 0x00, 0x98, 0xcd, 0x80 }, 7 },
        { "SGDT", { 0x0f, 0x01, 0x06, 0x00, 0x98, 0xcd, 0x80 }, 7 },
        { "SMSW", { 0x0f, 0x01, 0xe0, 0xcd, 0x80 }, 5 },
        { "NOP", { 0x90, 0xcd, 0x80 }, 3 },
    };
    /* There are none of these in vm86, with NPIEP or without */
    static const struct legacy_insn never[] = {
        { "SLDT", { 0x0f, 0x00, 0xc0, 0xcd, 0x80 }, 5 },
        { "STR", { 0x0f, 0x00, 0xc8, 0xcd, 0x80 }, 5 },
    };
    Fault f;

    if (!space.root) {
        space = pae_space();
        *space_entry(&space, 0, LEVEL_2M) |= PTE_U;
    }
    for (unsigned i = 0; i < ARRAY_SIZE(code32); i++) {
        f = legacy(&code32[i], HIGH, 3, 0);
        ok(on ? f.vec == GP && !f.err && f.rip == HIGH : f.vec == NONE,
           "%s, 32-bit code, %s at CPL 3: %s", what, code32[i].name,
           fault_text(f));
        if (i < 2) {
            ok((read8((void *)(uint64_t)(HIGH + 0x800)) == 0x5a) == on,
               "%s, 32-bit code, %s: %s", what, code32[i].name,
               on ? "nothing is stored" : "it stores");
        }
        f = legacy(&code32[i], HIGH, 0, 0);
        ok(f.vec == NONE, "%s, 32-bit code, %s at CPL 0: %s", what,
           code32[i].name, fault_text(f));
    }
    for (unsigned i = 0; i < ARRAY_SIZE(vm86); i++) {
        bool refused = on && strcmp(vm86[i].name, "NOP");

        f = legacy(&vm86[i], LOW, 3, EFLAGS_VM | EFLAGS_IOPL);
        ok(refused ? f.vec == GP && !f.err && f.rip == 0 : f.vec == NONE,
           "%s, vm86, %s: %s", what, vm86[i].name, fault_text(f));
        if (i < 2) {
            ok((read8((void *)(uint64_t)(LOW + 0x800)) == 0x5a) == on,
               "%s, vm86, %s: %s", what, vm86[i].name,
               on ? "nothing is stored" : "it stores");
        }
    }
    for (unsigned i = 0; i < ARRAY_SIZE(never); i++) {
        f = legacy(&never[i], LOW, 3, EFLAGS_VM | EFLAGS_IOPL);
        ok(f.vec == UD, "%s, vm86, %s is #UD: %s", what, never[i].name,
           fault_text(f));
    }
}

void test(void)
{
    const char *how = command_line();
    bool on = !strncmp(how, "on", 2);
    bool umip = cpuid(7, 0).ecx >> 2 & 1;

    ok(umip == !!strcmp(how, "on+no-umip"), "CPUID has UMIP: %d", umip);
    ok(!(read_cr4() & CR4_UMIP), "CR4.UMIP is off");
    at_user(on, "UMIP off");
    at_kernel("UMIP off");
    legacy_code(on, "UMIP off");
    if (umip) {
        write_cr4(read_cr4() | CR4_UMIP);
        at_user(true, "UMIP on");
        at_kernel("UMIP on");
        write_cr4(read_cr4() & ~CR4_UMIP);
        at_user(on, "UMIP off again");
    }
}
