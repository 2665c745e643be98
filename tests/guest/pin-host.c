/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Register pins that the host sets: every instruction that writes a pinned
 * register, with each action; waiting and armed; one CPU or all; what an
 * INIT and a reset do; and what register-pin refuses.
 *
 * The ways that are no write of the register's own are in pin-system.c.
 */

#include "internal.h"
#include "pin.h"

GUEST_RUN("one-cpu", "-cpu max -append main");
GUEST_RUN("pc", "-machine pc -cpu max -append main");
GUEST_RUN("two-threads",
          "accel=tcg,thread=multi timeout=120 -cpu max -smp 2 -append main");
GUEST_RUN("icount", "timeout=120 -cpu max -icount shift=1 -append main");
GUEST_RUN("one-insn", "accel=tcg,one-insn-per-tb=on timeout=120 -cpu max "
          "-append main");
GUEST_RUN("cpus", "accel=tcg,thread=multi -cpu max -smp 3 -append cpus");
GUEST_RUN("round-robin",
          "accel=tcg,thread=single -cpu max -smp 3 -append cpus");
GUEST_RUN("grace", "accel=tcg,thread=multi timeout=120 -cpu max -smp 2 "
          "-append grace");
GUEST_RUN("reset", "reboots -cpu max -append reset");
GUEST_RUN("suspend", "reboots timeout=120 -machine pc -cpu max "
          "-append suspend");
GUEST_RUN("triple-fault", "reboots -cpu max -append triple-fault");
GUEST_RUN("strict", "reboots -cpu max -smp 2 -append strict");
GUEST_RUN("migrate", "timeout=120 -cpu max -append migrate");
GUEST_RUN("hotplug", "timeout=120 -cpu max -smp 1,maxcpus=3 "
          "-append hotplug");
GUEST_RUN("rows-reset", "reboots timeout=60 -cpu max -append rows-reset");
GUEST_RUN("rows-migrate", "timeout=240 -cpu max -append rows-migrate");
GUEST_RUN("rows-snapshot", "timeout=240 -cpu max -append rows-snapshot");
GUEST_RUN("watched", "accel=tcg,thread=multi timeout=120 -cpu max -smp 2 "
          "-append watched");
GUEST_RUN("stopped", "-cpu max -append stopped");
GUEST_RUN("flood", "timeout=120 -cpu max -append flood");

/* --- Ways to write a register --- */

PIN_BY_REG(mov_cr0, "mov %0, %%cr0")
PIN_BY_REG(mov_cr4, "mov %0, %%cr4")
PIN_BY_REG(lmsw, "lmsw %w0")

static void lmsw_memory(uint64_t v)
{
    static uint16_t word;

    word = v;
    PIN_ATTACK("lmsw %0", "m" (word));
}

static void clts(uint64_t v)
{
    (void)v;
    PIN_ATTACK("clts", "a" (0));
}

static void lidt(uint64_t v)
{
    static struct dtr d;

    d = pin_unpack(v);
    PIN_ATTACK("lidt %0", "m" (d));
}

static void lgdt(uint64_t v)
{
    static struct dtr d;

    d = pin_unpack(v);
    PIN_ATTACK("lgdt %0", "m" (d));
}

#define WRMSR_ATTACK(name, msr)                                         \
PIN_MSR(name, msr)                                                      \
static void attack_##name(uint64_t v)                                   \
{                                                                       \
    PIN_ATTACK("wrmsr", "c" (msr), "a" ((uint32_t)v),                   \
               "d" ((uint32_t)(v >> 32)));                              \
}
WRMSR_ATTACK(efer, MSR_EFER)
WRMSR_ATTACK(sysenter_cs, MSR_SYSENTER_CS)
WRMSR_ATTACK(sysenter_esp, MSR_SYSENTER_ESP)
WRMSR_ATTACK(sysenter_eip, MSR_SYSENTER_EIP)
WRMSR_ATTACK(misc_enable, MSR_MISC_ENABLE)
WRMSR_ATTACK(pat, MSR_PAT)
WRMSR_ATTACK(mtrr_def, MSR_MTRR_DEF)
WRMSR_ATTACK(star, MSR_STAR)
WRMSR_ATTACK(lstar, MSR_LSTAR)
WRMSR_ATTACK(cstar, MSR_CSTAR)
WRMSR_ATTACK(fmask, MSR_FMASK)
WRMSR_ATTACK(fs_base, MSR_FS_BASE)
WRMSR_ATTACK(gs_base, MSR_GS_BASE)
WRMSR_ATTACK(kernel_gs_base, MSR_KERNEL_GS_BASE)
WRMSR_ATTACK(tsc_aux, MSR_TSC_AUX)
WRMSR_ATTACK(hsave, MSR_HSAVE)

#define CR_ROW(name, path, cr, kind, bits, go)                          \
    { name, path, #cr, 0, kind, bits, 0, 0, read_##cr, write_##cr, go, 0 }
#define EFER_ROW(name, kind, bits)                                      \
    { "WRMSR EFER, " name, "helper_wrmsr", "efer", 0, kind, bits, 0, 0, \
      get_efer, put_efer, attack_efer, 0 }
#define MSR_ROW(name, msr, good, evil)                                  \
    { "WRMSR " #msr, "helper_wrmsr", "msr", msr, PIN_VALUE, 0, good,    \
      evil, get_##name, put_##name, attack_##name, 0 }

#define GOOD    0xffffffff81a23450ull
#define EVIL    0xffff888012345678ull

static const PinRow rows[] = {
    CR_ROW("MOV CR0, WP off", "helper_write_crN", cr0, PIN_ONES, CR0_WP,
           mov_cr0),
    CR_ROW("MOV CR0, AM and WP off", "helper_write_crN", cr0, PIN_ONES,
           CR0_WP | CR0_AM, mov_cr0),
    CR_ROW("MOV CR0, NE off", "helper_write_crN", cr0, PIN_ONES, CR0_NE,
           mov_cr0),
    CR_ROW("MOV CR0, AM on", "helper_write_crN", cr0, PIN_ZEROS, CR0_AM,
           mov_cr0),
    CR_ROW("MOV CR0, TS on", "helper_write_crN", cr0, PIN_ZEROS, CR0_TS,
           mov_cr0),
    CR_ROW("LMSW, MP off", "helper_write_crN from LMSW", cr0, PIN_ONES,
           CR0_MP, lmsw),
    CR_ROW("LMSW, EM on", "helper_write_crN from LMSW", cr0, PIN_ZEROS,
           CR0_EM, lmsw),
    CR_ROW("LMSW from memory, EM on", "helper_write_crN from LMSW", cr0,
           PIN_ZEROS, CR0_EM, lmsw_memory),
    CR_ROW("CLTS", "helper_clts", cr0, PIN_ONES, CR0_TS, clts),
    CR_ROW("MOV CR4, SMEP off", "helper_write_crN", cr4, PIN_ONES, CR4_SMEP,
           mov_cr4),
    CR_ROW("MOV CR4, SMAP off", "helper_write_crN", cr4, PIN_ONES, CR4_SMAP,
           mov_cr4),
    CR_ROW("MOV CR4, UMIP off", "helper_write_crN", cr4, PIN_ONES, CR4_UMIP,
           mov_cr4),
    CR_ROW("MOV CR4, SMEP, SMAP and UMIP off", "helper_write_crN", cr4,
           PIN_ONES, CR4_SMEP | CR4_SMAP | CR4_UMIP, mov_cr4),
    CR_ROW("MOV CR4, FSGSBASE on", "helper_write_crN", cr4, PIN_ZEROS,
           CR4_FSGSBASE, mov_cr4),
    CR_ROW("MOV CR4, TSD on", "helper_write_crN", cr4, PIN_ZEROS, CR4_TSD,
           mov_cr4),
    EFER_ROW("NXE off", PIN_ONES, EFER_NXE),
    EFER_ROW("SCE off", PIN_ONES, EFER_SCE),
    EFER_ROW("SVME on", PIN_ZEROS, EFER_SVME),
    MSR_ROW(sysenter_cs, MSR_SYSENTER_CS, 0x10, 0x18),
    MSR_ROW(sysenter_esp, MSR_SYSENTER_ESP, GOOD, EVIL),
    MSR_ROW(sysenter_eip, MSR_SYSENTER_EIP, GOOD, EVIL),
    MSR_ROW(misc_enable, MSR_MISC_ENABLE, 1, 0),
    MSR_ROW(pat, MSR_PAT, 0x0007040600070406ull, 0x0007040600070400ull),
    MSR_ROW(mtrr_def, MSR_MTRR_DEF, 0xc06, 0x806),
    MSR_ROW(star, MSR_STAR, 0x0023001000000000ull, 0x0023001800000000ull),
    MSR_ROW(lstar, MSR_LSTAR, GOOD, EVIL),
    MSR_ROW(cstar, MSR_CSTAR, GOOD, EVIL),
    MSR_ROW(fmask, MSR_FMASK, 0x47700, 0),
    MSR_ROW(fs_base, MSR_FS_BASE, GOOD, EVIL),
    MSR_ROW(gs_base, MSR_GS_BASE, GOOD, EVIL),
    MSR_ROW(kernel_gs_base, MSR_KERNEL_GS_BASE, GOOD, EVIL),
    MSR_ROW(tsc_aux, MSR_TSC_AUX, 1, 2),
    MSR_ROW(hsave, MSR_HSAVE, 0x3000000, 0x3001000),
};

/* A second IDT and GDT with the same contents, in static memory */
static struct gate idt2[256] __attribute__((aligned(16)));
static uint64_t gdt2[SEL_TSS / 8 + 2 * MAX_CPUS];

/* All of them, in memory that stays as it is */
static PinRow every[64];

static unsigned every_row(void)
{
    uint64_t idt1 = pin_get_idt(), gdt1 = pin_get_gdt();
    uint64_t limit = 16ull << 48;
    const PinRow tables[] = {
        { "LIDT, another base", "LIDT", "idtr", 0, PIN_TABLE, 0, idt1,
          (uint64_t)idt2 | (idt1 >> 48 << 48), pin_get_idt, pin_put_idt,
          lidt, 0 },
        { "LIDT, a smaller limit", "LIDT", "idtr", 0, PIN_TABLE, 0, idt1,
          idt1 - limit, pin_get_idt, pin_put_idt, lidt, 0 },
        { "LGDT, another base", "LGDT", "gdtr", 0, PIN_TABLE, 0, gdt1,
          (uint64_t)gdt2 | (gdt1 >> 48 << 48), pin_get_gdt, pin_put_gdt,
          lgdt, 0 },
        { "LGDT, a smaller limit", "LGDT", "gdtr", 0, PIN_TABLE, 0, gdt1,
          gdt1 - limit, pin_get_gdt, pin_put_gdt, lgdt, 0 },
    };

    memcpy(idt2, idt, sizeof(idt2));
    memcpy(gdt2, gdt, gdt_ptr.limit + 1);
    memcpy(every, rows, sizeof(rows));
    memcpy(every + ARRAY_SIZE(rows), tables, sizeof(tables));
    return ARRAY_SIZE(rows) + ARRAY_SIZE(tables);
}

/* --- What stays possible --- */

static void beside(void)
{
    uint64_t cr4 = read_cr4(), cr0 = read_cr0();

    write_cr4(cr4 | CR4_SMEP);
    pin("fault", 0, "{\"register\": \"cr4\", \"ones\": %llu}, {\"register\": "
        "\"cr0\", \"ones\": %llu, \"zeros\": %llu}, {\"register\": \"msr\", "
        "\"index\": %u, \"value\": %lu}", CR4_SMEP, CR0_WP, CR0_AM,
        MSR_LSTAR, rdmsr(MSR_LSTAR));
    expect_none(TRY(write_cr4(cr4 | CR4_SMEP | CR4_TSD)),
                "another bit of a pinned CR4 is set");
    ok(read_cr4() == (cr4 | CR4_SMEP | CR4_TSD), "and is on");
    expect_none(TRY(write_cr4(cr4 | CR4_SMEP)), "and cleared");
    expect_none(TRY(write_cr0(cr0 | CR0_TS)), "another bit of CR0 is set");
    expect_none(TRY(asm volatile("clts")), "CLTS with TS not pinned");
    expect_none(TRY(write_cr3(read_cr3())), "CR3 is written");
    expect_none(TRY(wrmsr(MSR_CSTAR, 1)), "an MSR beside it is written");
    ok(pin_none(pin_seen(), "beside"), "none of this is told");
    /* One call pins two bits of CR0, and both hold */
    expect(TRY(write_cr0(cr0 | CR0_AM)), GP, 0, "CR0.AM, held at zero");
    expect(TRY(write_cr0(cr0 & ~CR0_WP)), GP, 0, "CR0.WP, held at one");
    ok(pin_seen().events == 2, "two events");
    write_cr4((cr4 | CR4_SMEP));
    unpin();
    expect_none(TRY(write_cr4(cr4)), "unpinned, SMEP goes off");
    write_cr0(cr0);
}

/*
 * Not the pin, but the architecture: a write that is #GP anyhow is no
 * violation, and a pin does not make it less of one.
 */
static void reserved(void)
{
    uint64_t cr4 = read_cr4();

    write_cr4(cr4 | CR4_SMEP);
    pin("report", 0, "{\"register\": \"cr4\", \"ones\": %llu}", CR4_SMEP);
    expect(TRY(write_cr4(cr4 | 1ull << 40)), GP, 0,
           "a reserved bit, and SMEP off");
    ok(read_cr4() == (cr4 | CR4_SMEP), "CR4 is as before");
    ok(pin_none(unpin(), "reserved"), "it is no violation");
    write_cr4(cr4);
}

static USER uint64_t user_wrmsr(uint64_t unused)
{
    asm volatile("wrmsr" : : "c" (MSR_LSTAR), "a" (1), "d" (0));
    return unused;
}

static USER uint64_t user_lidt(uint64_t unused)
{
    asm volatile("lidt (%0)" : : "r" (unused));
    return unused;
}

static void user_tries(void)
{
    pin("report", 0, "{\"register\": \"msr\", \"index\": %u, \"value\": "
        "%lu}", MSR_LSTAR, rdmsr(MSR_LSTAR));
    pin_more("{\"action\": \"report\"}", "{\"register\": \"idtr\", "
             "\"value\": %lu, \"limit\": %u}", idt_ptr.base, idt_ptr.limit);
    expect(TRY(user(user_wrmsr, 0)), GP, 0, "WRMSR at CPL 3");
    expect(TRY(user(user_lidt, (uint64_t)user_lidt)), GP, 0,
           "LIDT at CPL 3");
    ok(pin_none(unpin(), "CPL 3"), "CPL 3 may not at all: no violation");
}

/* --- Waiting and armed --- */

static void waiting(void)
{
    uint64_t cr4 = read_cr4(), lstar = rdmsr(MSR_LSTAR);
    const char *q;

    pin("fault", 0, "{\"register\": \"cr4\", \"ones\": %llu}, {\"register\": "
        "\"msr\", \"index\": %u, \"value\": %llu}", CR4_SMAP | CR4_UMIP,
        MSR_LSTAR, GOOD);
    q = host("call", "{\"name\": \"states\"}");
    ok(json_is(q, "cr4", "waiting") && json_is(q, "msr", "waiting"),
       "pins of what is not yet so wait: %s", q);
    expect_none(TRY(write_cr4(cr4 | CR4_TSD); write_cr4(cr4)),
                "a waiting pin lets CR4 be written");
    expect_none(TRY(write_cr4(cr4 | CR4_UMIP); write_cr4(cr4)),
                "also half of it set and cleared");
    expect_none(TRY(wrmsr(MSR_LSTAR, EVIL)), "and an MSR");
    ok(pin_none(pin_seen(), "waiting"), "none of this is told");
    write_cr4(cr4 | CR4_SMAP | CR4_UMIP);
    q = host("call", "{\"name\": \"states\"}");
    ok(json_is(q, "cr4", "armed") && json_is(q, "msr", "waiting"),
       "the value arms it: %s", q);
    expect(TRY(write_cr4(cr4 | CR4_UMIP)), GP, 0, "then SMAP can't be off");
    expect(TRY(write_cr4(cr4)), GP, 0, "nor both");
    expect_none(TRY(wrmsr(MSR_LSTAR, GOOD)), "LSTAR gets its value");
    q = host("call", "{\"name\": \"states\"}");
    ok(json_is(q, "msr", "armed"), "which arms that pin: %s", q);
    expect(TRY(wrmsr(MSR_LSTAR, EVIL)), GP, 0, "then no other");
    ok(rdmsr(MSR_LSTAR) == GOOD && read_cr4() == (cr4 | CR4_SMAP | CR4_UMIP),
       "the registers hold what is pinned");
    ok(pin_seen().events == 3, "three events");
    unpin();
    write_cr4(cr4);
    wrmsr(MSR_LSTAR, lstar);
}

/* EFER.LMA is no bit of a WRMSR: it goes with CR0.PG */
static void leave_long_mode(void)
{
    uint64_t efer = rdmsr(MSR_EFER), cr0 = read_cr0();
    PinSeen s;

    expect_none(TRY(use_levels(4)), "long mode can be left");
    pin("fault", 0, "{\"register\": \"efer\", \"ones\": %u}", 0x400);
    expect(TRY(use_levels(4)), GP, 0, "not while EFER.LMA is pinned");
    s = unpin();
    ok(s.events == 1 && !strcmp(s.reg, "efer") && s.old == efer &&
       s.attempted == (efer & ~0x400ull), "one event, of EFER: %s 0x%lx to "
       "0x%lx", s.reg, s.old, s.attempted);
    ok(rdmsr(MSR_EFER) == efer && read_cr0() == cr0,
       "EFER and CR0 are as before");
}

/* --- Two registers at once --- */

/* PG changes EFER: what CR0's pin tells of has to take place */
static void two_at_once(void)
{
    uint64_t cr0 = read_cr0();
    PinSeen s;

    pin("report", 0, "{\"register\": \"cr0\", \"ones\": %llu}", CR0_WP);
    pin_more("{\"action\": \"fault\"}",
             "{\"register\": \"efer\", \"ones\": %u}", 0x400);
    expect(TRY(write_cr0(cr0 & ~(CR0_PG | CR0_WP))), GP, 0,
           "CR0 may change and EFER may not");
    s = pin_seen();
    ok(s.events == 1 && s.counted == 1 && !strcmp(s.reg, "efer"),
       "the one event is EFER's: %d events, %s", s.events, s.reg);
    pin_more("{\"action\": \"discard\"}",
             "{\"register\": \"efer\", \"ones\": %u}", 0x400);
    expect_none(TRY(write_cr0(cr0 & ~(CR0_PG | CR0_WP))), "the same, left out");
    s = pin_seen();
    ok(s.events == 1 && s.counted == 1 && !strcmp(s.reg, "efer") &&
       read_cr0() == cr0,
       "the one event is EFER's: %d events, %s", s.events, s.reg);
    unpin();

    wrmsr(MSR_GS_BASE, GOOD);
    wrmsr(MSR_KERNEL_GS_BASE, EVIL);
    pin("report", 0, "{\"register\": \"msr\", \"index\": %u}", MSR_GS_BASE);
    pin_more("{\"action\": \"fault\"}",
             "{\"register\": \"msr\", \"index\": %u}", MSR_KERNEL_GS_BASE);
    expect(TRY(asm volatile("swapgs")), GP, 0, "SWAPGS changes both");
    s = unpin();
    ok(s.events == 1 && s.counted == 1 && s.index == MSR_KERNEL_GS_BASE &&
       rdmsr(MSR_GS_BASE) == GOOD,
       "one event, of the other: %d events, 0x%lx", s.events, s.index);
    wrmsr(MSR_GS_BASE, 0);
    wrmsr(MSR_KERNEL_GS_BASE, 0);
}

/* --- Values that the register itself does not take --- */

static void not_taken(void)
{
    static const struct {
        const char *what;
        uint32_t index;
        uint64_t wanted, given;
        int vec;
    } rows[] = {
        { "PKRS, more than 32 bits", 0x6e1, 5, 1ull << 32 | 5, GP },
        { "VM_HSAVE_PA, not aligned", MSR_HSAVE, 0x1001, 0x1001, GP },
        { "MCG_CTL, neither all nor nothing", 0x17b, 5, 5, NONE },
        { "MC0_CTL, neither all nor nothing", 0x400, 5, 5, NONE },
    };

    for (unsigned i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
        static const char *const actions[] = { "fault", "discard", "report" };
        uint64_t old = rdmsr(rows[i].index);
        const char *q;
        Fault f;

        pin("fault", 0, "{\"register\": \"msr\", \"index\": %u, "
            "\"value\": %lu}", rows[i].index, rows[i].wanted);
        f = TRY(wrmsr(rows[i].index, rows[i].given));
        q = host("call", "{\"name\": \"states\"}");
        ok(f.vec == rows[i].vec && rdmsr(rows[i].index) == old &&
           json_is(q, "msr", "waiting"), "%s: not held, and does not arm: %s, "
           "%s", rows[i].what, fault_text(f), q);
        ok(pin_none(unpin(), rows[i].what), "%s: nothing to tell",
           rows[i].what);

        for (unsigned a = 0; a < 3; a++) {
            pin(actions[a], 0, "{\"register\": \"msr\", \"index\": %u, "
                "\"value\": %lu}", rows[i].index, old);
            f = TRY(wrmsr(rows[i].index, rows[i].given));
            ok(f.vec == rows[i].vec && rdmsr(rows[i].index) == old &&
               pin_none(unpin(), rows[i].what),
               "%s: pinned with %s it is as without: %s", rows[i].what,
               actions[a], fault_text(f));
        }
    }
}

/* --- What is refused --- */

struct bad {
    const char *what, *more, *registers, *word;
};

#define SMEP_OK "{\"register\": \"cr4\", \"ones\": 1048576}"

static void refusals(void)
{
    static const struct bad all[] = {
        { "cr0 without a mask", "{}", SMEP_OK ", {\"register\": \"cr0\"}",
          "registers[1]" },
        { "cr0 with a value", "{}", SMEP_OK ", {\"register\": \"cr0\", "
          "\"value\": 5}", "registers[1]" },
        { "a bit at zero and at one", "{}", SMEP_OK ", {\"register\": "
          "\"cr0\", \"ones\": 65536, \"zeros\": 65536}", "registers[1]" },
        { "a bit that CR4 does not have", "{}", SMEP_OK ", {\"register\": "
          "\"cr4\", \"ones\": 32768}", "registers[1]" },
        { "a bit above 32 of CR0", "{}", SMEP_OK ", {\"register\": "
          "\"cr0\", \"zeros\": 4294967296}", "registers[1]" },
        { "an MSR without an index", "{}", SMEP_OK ", {\"register\": "
          "\"msr\", \"value\": 1}", "registers[1]" },
        { "EFER as an MSR", "{}", SMEP_OK ", {\"register\": \"msr\", "
          "\"index\": 3221225600, \"value\": 1}", "registers[1]" },
        { "an MSR with a mask", "{}", SMEP_OK ", {\"register\": \"msr\", "
          "\"index\": 3221225602, \"ones\": 1}", "registers[1]" },
        { "the APIC's base", "{}", SMEP_OK ", {\"register\": \"msr\", "
          "\"index\": 27}", "APIC" },
        { "an MSR that no CPU has", "{}", SMEP_OK ", {\"register\": \"msr\", "
          "\"index\": 305419896, \"value\": 1}", "0x12345678" },
        { "cr4 with an index", "{}", SMEP_OK ", {\"register\": \"cr4\", "
          "\"index\": 4, \"ones\": 4}", "registers[1]" },
        { "idtr without a limit", "{}", SMEP_OK ", {\"register\": \"idtr\", "
          "\"value\": 4096}", "registers[1]" },
        { "gdtr with too large a limit", "{}", SMEP_OK ", {\"register\": "
          "\"gdtr\", \"value\": 4096, \"limit\": 65536}", "limit" },
        { "a register twice", "{}", SMEP_OK ", " SMEP_OK, "registers[1]" },
        { "a CPU that is not there", "{\"cpu-index\": 99}", SMEP_OK, "99" },
        { "a negative CPU", "{\"cpu-index\": -1}", SMEP_OK, "-1" },
        { "an unknown register", "{}", "{\"register\": \"cr2\", \"ones\": "
          "1}", "cr2" },
        { "an unknown action", "{\"action\": \"explode\"}", SMEP_OK,
          "explode" },
        { "an unknown on-init", "{\"on-init\": \"maybe\"}", SMEP_OK,
          "maybe" },
        { "a register and one more far behind", "{}", SMEP_OK ", "
          "{\"register\": \"cr0\", \"ones\": 65536}, " SMEP_OK,
          "registers[0] and registers[2]" },
    };

    for (unsigned i = 0; i < ARRAY_SIZE(all); i++) {
        const struct bad *b = &all[i];
        const char *r = host("call", "{\"name\": \"refused\", \"registers\": "
                             "[%s], \"more\": %s, \"word\": \"%s\"}",
                             b->registers, b->more, b->word);

        ok(json_is(r, "refused", "true"), "refused: %s: %s", b->what, r);
    }
}

/* --- More CPUs --- */

static uint64_t per_cpu[MAX_CPUS];

static void clear_smep(void *unused)
{
    uint64_t cr4;

    (void)unused;
    write_cr4(read_cr4() | CR4_SMEP);
    cr4 = read_cr4() & ~CR4_SMEP;
    per_cpu[this_cpu()] = TRY(write_cr4(cr4)).vec == GP;
}

static void set_smep(void *unused)
{
    (void)unused;
    write_cr4(read_cr4() | CR4_SMEP);
}

static void count_pinned(unsigned want, const char *what)
{
    unsigned n = 0;

    memset(per_cpu, 0xff, sizeof(per_cpu));
    on_all(clear_smep, NULL);
    for (unsigned i = 0; i < cpus(); i++) {
        n |= (unsigned)(per_cpu[i] & 1) << i;
    }
    ok(n == want, "%s: CPUs that keep SMEP: 0x%x", what, n);
}

static void several(void)
{
    PinSeen s;

    count_pinned(0, "nothing pinned");
    on_all(set_smep, NULL);
    pin("fault", 0, SMEP_OK);
    count_pinned(7, "pinned on all");
    s = pin_seen();
    ok(s.events == 3 && s.counted == 3, "three events: %d", s.events);
    unpin();
    count_pinned(0, "unpinned");

    on_all(set_smep, NULL);
    pin_seen();
    if (qmp_failed(pin_more("{\"cpu-index\": 1}", SMEP_OK))) {
        bail("cpu-index 1 is refused");
    }
    count_pinned(2, "pinned on CPU 1");
    s = pin_seen();
    ok(s.events == 1 && s.cpu == 1, "one event, of CPU %d", s.cpu);
    ok(qmp_failed(qmp("register-unpin", "{\"registers\": [{\"register\": "
                      "\"cr4\"}], \"cpu-index\": 0}")),
       "CPU 0 has nothing to unpin");
    count_pinned(2, "then nothing is unpinned");
    pin_more("{\"cpu-index\": 2}", SMEP_OK);
    count_pinned(6, "pinned on CPU 2 as well");
    qmp("register-unpin", "{\"registers\": [{\"register\": \"cr4\"}]}");
    count_pinned(0, "unpinned everywhere");
}

/* --- INIT --- */

static void apic(unsigned cpu, uint32_t what)
{
    write32((void *)(APIC + 0x310), cpu << 24);
    write32((void *)(APIC + 0x300), what);
    while (read32((void *)(APIC + 0x300)) & 0x1000) {
        pause();
    }
}

static void init(unsigned cpu)
{
    apic(cpu, 0x4500);
    /* QEMU lets a halted CPU take the INIT with the next thing it wakes for */
    apic(cpu, 0x4000 | VEC_WAKE);
}

static void sipi(unsigned cpu)
{
    __atomic_store_n(&ap_index, cpu, __ATOMIC_RELEASE);
    apic(cpu, 0x4600 | AP_START >> 12);
}

static void lstar_good(void *unused)
{
    (void)unused;
    wrmsr(MSR_LSTAR, GOOD);
}

static void lstar_evil(void *unused)
{
    (void)unused;
    per_cpu[this_cpu()] = TRY(wrmsr(MSR_LSTAR, EVIL)).vec;
}

#define INITS   400

/* An event for each would fill the memory of who does not read them */
static void many_inits(void)
{
    const char *r;
    int64_t told;

    host("call", "{\"name\": \"cleared\"}");
    for (int i = 0; i < INITS; i++) {
        init(1);
        sipi(1);
        on_cpu(1, set_smep, NULL);
        wait_cpu(1);
    }
    r = host("call", "{\"name\": \"cleared\"}");
    told = json_number(r, "events", 0) + json_number(r, "suppressed", 0);
    ok(json_number(r, "events", 0) >= 100 &&
       json_number(r, "events", INITS) < INITS,
       "not each of %d INITs gives an event: %s", INITS, r);
    init(1);
    sipi(1);
    on_cpu(1, set_smep, NULL);
    wait_cpu(1);
    r = host("call", "{\"name\": \"cleared\"}");
    told += json_number(r, "events", 0) + json_number(r, "suppressed", 0);
    ok(told == INITS + 1 && json_number(r, "events", 0) == 1,
       "a later one tells of the others, %ld in all: %s", told, r);
    pin_seen();
}

static void grace(void)
{
    const char *r;

    on_all(set_smep, NULL);
    on_all(lstar_good, NULL);
    pin("fault", 0, "{\"register\": \"msr\", \"index\": %u, \"value\": "
        "%llu}", MSR_LSTAR, GOOD);
    pin_more("{\"action\": \"report\", \"on-init\": \"grace\", "
             "\"grace-ms\": 300}", SMEP_OK);
    count_pinned(0, "with report SMEP can be cleared");
    ok(pin_seen().events == 2, "two events");
    on_all(set_smep, NULL);
    on_cpu(1, lstar_evil, NULL);
    wait_cpu(1);
    ok(per_cpu[1] == GP && pin_seen().events == 1,
       "CPU 1 can't change LSTAR");

    init(1);
    r = host("events", "{\"name\": \"REGISTER_PINS_CLEARED\", \"wait\": 1}");
    ok(json_is(r, "count", "1") &&
       json_is(r, "events.0.data.reason", "init") &&
       json_is(r, "events.0.data.cpu-index", "1") &&
       json_is(r, "events.0.data.guest", "0") &&
       json_is(r, "events.0.data.waiting", "1"), "INIT of CPU 1 is told: %s",
       r);
    r = host("call", "{\"name\": \"states\", \"cpu-index\": 1}");
    /* INIT leaves MSRs as they are */
    ok(json_is(r, "cr4", "waiting") && json_is(r, "msr", "armed"),
       "its pin of CR4 waits: %s", r);
    r = host("call", "{\"name\": \"states\", \"cpu-index\": 0}");
    ok(json_is(r, "cr4", "armed") && json_is(r, "msr", "armed"),
       "those of CPU 0 do not: %s", r);
    sipi(1);
    on_cpu(1, set_smep, NULL);
    wait_cpu(1);
    r = host("call", "{\"name\": \"states\", \"cpu-index\": 1}");
    ok(json_is(r, "cr4", "armed"), "SMEP in time arms it: %s", r);
    on_cpu(1, lstar_evil, NULL);
    wait_cpu(1);
    ok(per_cpu[1] == GP, "LSTAR is pinned there all the time");
    pin_seen();

    /* Paging is on, and SMEP does not come */
    init(1);
    sipi(1);
    r = host("events", "{\"name\": \"REGISTER_PIN_VIOLATION\", \"wait\": 1}");
    ok(json_is(r, "count", "1") &&
       json_is(r, "events.0.data.cpu-index", "1") &&
       json_is(r, "events.0.data.register", "cr4") &&
       json_is(r, "events.0.data.action", "report"),
       "SMEP too late is a violation: %s", r);
    on_cpu(1, set_smep, NULL);
    wait_cpu(1);
    many_inits();
    unpin();
    init(1);
    sipi(1);
    on_cpu(1, set_smep, NULL);
    wait_cpu(1);
    r = host("events", "{\"name\": \"REGISTER_PINS_CLEARED\"}");
    ok(json_is(r, "count", "0"), "unpinned: an INIT is not told");
}

static void no_smep(void *unused)
{
    (void)unused;
    while (!__atomic_load_n(&per_cpu[0], __ATOMIC_ACQUIRE)) {
        per_cpu[1] = read_cr4();
    }
}

/* Each INIT comes before the wait is over, so that it never would be */
static void init_storm(void)
{
    unsigned armed = 0;
    const char *r;

    on_all(set_smep, NULL);
    if (qmp_failed(pin_more("{\"action\": \"discard\", \"grace-ms\": 2000, "
                            "\"cpu-index\": 1}", SMEP_OK))) {
        bail("register-pin is refused");
    }
    for (int i = 0; i < 4; i++) {
        __atomic_store_n(&per_cpu[0], 0, __ATOMIC_RELEASE);
        init(1);
        sipi(1);
        on_cpu(1, no_smep, NULL);
        r = host("call", "{\"name\": \"sleep\", \"s\": 1.2}");
        ok(json_is(r, "PINS_CLEARED", "1"), "INIT %d is told: %s", i, r);
        armed += !!(per_cpu[1] & CR4_SMEP);
        __atomic_store_n(&per_cpu[0], 1, __ATOMIC_RELEASE);
        wait_cpu(1);
    }
    ok(armed >= 1, "SMEP comes back: after %u of 4", armed);
    unpin();
}

/* --- Reset and the like --- */

static void before_reset(void)
{
    wrmsr(MSR_LSTAR, GOOD);
    write_cr4(read_cr4() | CR4_SMEP);
    pin("fault", 0, "{\"register\": \"msr\", \"index\": %u, \"value\": "
        "%llu}", MSR_LSTAR, GOOD);
    pin_more("{\"action\": \"fault\", \"grace-ms\": 600000}", SMEP_OK);
    expect(TRY(wrmsr(MSR_LSTAR, EVIL)), GP, 0, "pinned before");
    pin_seen();
}

static void after_reset(const char *what, const char *reason)
{
    const char *r = host("events", "{\"name\": \"REGISTER_PINS_CLEARED\"}");

    ok(json_is(r, "count", "1") &&
       json_is(r, "events.0.data.reason", reason) &&
       json_is(r, "events.0.data.guest", "0") &&
       json_is(r, "events.0.data.waiting", "2"), "%s is told once: %s", what,
       r);
    r = host("call", "{\"name\": \"states\"}");
    ok(json_is(r, "msr", "waiting") && json_is(r, "cr4", "waiting"),
       "after %s host pins wait: %s", what, r);
    ok(!(read_cr4() & CR4_SMEP) && rdmsr(MSR_LSTAR) == 0,
       "after %s the registers are as always", what);
    expect_none(TRY(wrmsr(MSR_LSTAR, EVIL)), "LSTAR can be written");
    write_cr4(read_cr4() | CR4_SMEP);
    wrmsr(MSR_LSTAR, GOOD);
    expect(TRY(wrmsr(MSR_LSTAR, EVIL)), GP, 0, "armed again: LSTAR");
    expect(TRY(write_cr4(read_cr4() & ~CR4_SMEP)), GP, 0,
           "armed again: SMEP");
}

static void reset(void)
{
    if (boot_number() == 1) {
        before_reset();
        for (;;) {
            outb(0x64, 0xfe);
        }
    }
    after_reset("a reset", "reset");
}

static void triple_fault(void)
{
    if (boot_number() == 1) {
        struct dtr none = { 0, 0 };

        before_reset();
        asm volatile("lidt %0; ud2" : : "m" (none));
    }
    after_reset("a triple fault", "reset");
}

/* ACPI S3: the firmware finds no way to resume, and starts anew */
static void suspend(void)
{
    if (boot_number() == 1) {
        before_reset();
        host("on", "{\"event\": \"SUSPEND\", \"do\": \"system_wakeup\"}");
        for (;;) {
            /* PIIX4's PM1a_CNT where SeaBIOS puts it: SLP_TYP 1, SLP_EN */
            outw(0x604, 1 << 10 | 1 << 13);
        }
    }
    after_reset("S3", "wakeup");
}

/*
 * Setting CR0.PG with a pinned bit wrong is a violation at once: CPU 1 gets
 * #GP where it has no IDT.
 */
static void strict(void)
{
    const char *r;

    if (boot_number() == 1) {
        on_all(set_smep, NULL);
        pin("report", 0, SMEP_OK);
        unpin();
        if (qmp_failed(pin_more("{\"action\": \"report\", \"on-init\": "
                                "\"strict\", \"cpu-index\": 1}", SMEP_OK))) {
            bail("strict is refused");
        }
        init(1);
        sipi(1);
        on_cpu(1, set_smep, NULL);
        wait_cpu(1);
        r = host("events", "{\"name\": \"REGISTER_PIN_VIOLATION\", "
                 "\"wait\": 1}");
        ok(json_is(r, "count", "1") &&
           json_is(r, "events.0.data.cpu-index", "1") &&
           json_is(r, "events.0.data.action", "report"),
           "strict, report: paging without SMEP is told: %s", r);
        unpin();
        on_all(set_smep, NULL);
        pin_more("{\"action\": \"fault\", \"on-init\": \"strict\", "
                 "\"cpu-index\": 1}", SMEP_OK);
        init(1);
        sipi(1);
        for (;;) {
            pause();
        }
    }
    r = host("events", "{\"name\": \"REGISTER_PIN_VIOLATION\"}");
    ok(json_is(r, "count", "1") &&
       json_is(r, "events.0.data.cpu-index", "1") &&
       json_is(r, "events.0.data.action", "fault"),
       "strict, fault: CPU 1 did not get to paging, the machine was reset: "
       "%s", r);
    unpin();
}

/* --- Migration: the same guest goes on in another QEMU --- */

static void migrate(void)
{
    const char *r;

    wrmsr(MSR_LSTAR, GOOD);
    write_cr4(read_cr4() | CR4_SMEP);
    pin("fault", 0, "{\"register\": \"msr\", \"index\": %u, \"value\": "
        "%llu}, " SMEP_OK ", {\"register\": \"cr0\", \"zeros\": %llu}, "
        "{\"register\": \"msr\", \"index\": %u, \"value\": %llu}",
        MSR_LSTAR, GOOD, CR0_AM, MSR_CSTAR, EVIL);
    for (int i = 1; i <= 2; i++) {
        r = host("call", "{\"name\": \"migrate\"}");
        ok(json_is(r, "pins", "same"), "migration %d: pins are as before: %s",
           i, r);
        expect(TRY(wrmsr(MSR_LSTAR, EVIL)), GP, 0, "LSTAR is pinned");
        expect(TRY(write_cr4(read_cr4() & ~CR4_SMEP)), GP, 0,
               "SMEP is pinned");
        expect(TRY(write_cr0(read_cr0() | CR0_AM)), GP, 0, "AM is pinned");
        expect_none(TRY(wrmsr(MSR_CSTAR, 1)), "CSTAR waits");
    }
    wrmsr(MSR_CSTAR, EVIL);
    expect(TRY(wrmsr(MSR_CSTAR, 1)), GP, 0, "and is armed in the end");
    /* An image in which LSTAR is not what its pin says */
    r = host("call", "{\"name\": \"hostile\", \"good\": %llu, \"evil\": "
             "%llu}", GOOD, EVIL);
    ok(json_is(r, "changed", "1") && json_is(r, "refused", "true"),
       "an image that violates its pin is refused: %s", r);
    ok(json_is(r, "control", "taken"), "with the value put back it is taken");
    unpin();
    r = host("call", "{\"name\": \"hostile\", \"good\": %llu, \"evil\": "
             "%llu}", GOOD, EVIL);
    ok(json_is(r, "changed", "1") && json_is(r, "refused", "false"),
       "without the pin such an image is taken: %s", r);
}

/* --- A CPU that comes later --- */

static void try_smep(void *unused)
{
    (void)unused;
    write_cr4(read_cr4() | CR4_SMEP);
    per_cpu[this_cpu()] = TRY(write_cr4(read_cr4() & ~CR4_SMEP)).vec == GP;
}

static void hotplug(void)
{
    const char *r;

    write_cr4(read_cr4() | CR4_SMEP);
    pin("fault", 0, SMEP_OK);
    r = host("call", "{\"name\": \"plug\", \"core\": 1}");
    ok(!qmp_failed(r), "a CPU is plugged: %s", r);
    r = host("call", "{\"name\": \"states\", \"cpu-index\": 1}");
    ok(json_is(r, "cr4", "waiting"), "it has the pin, waiting: %s", r);
    on_cpu(1, try_smep, NULL);
    wait_cpu(1);
    ok(per_cpu[1] == 1, "and keeps SMEP");
    unpin();
    on_cpu(1, try_smep, NULL);
    wait_cpu(1);
    ok(per_cpu[1] == 0, "until it is unpinned");
    /* A pin of the first CPU alone is none of the next one's */
    pin_more("{\"cpu-index\": 0}", SMEP_OK);
    r = host("call", "{\"name\": \"plug\", \"core\": 2}");
    ok(!qmp_failed(r), "another one is plugged: %s", r);
    r = host("call", "{\"name\": \"states\", \"cpu-index\": 2}");
    ok(!json(r, "cr4"), "it has no pin: %s", r);
    unpin();
}

/* --- A watchpoint in the instruction that 'cont' lets through --- */

static struct {
    bool go;
    struct dtr operand __attribute__((aligned(64)));
} watch;

static void lidt_when_told(void *unused)
{
    (void)unused;
    while (!__atomic_load_n(&watch.go, __ATOMIC_ACQUIRE)) {
        pause();
    }
    asm volatile("lidt %0" : : "m" (watch.operand));
    per_cpu[this_cpu()] = pin_get_idt();
}

static void watched(void)
{
    uint64_t moved = (uint64_t)idt2 | (pin_get_idt() >> 48 << 48);
    const char *r;
    PinSeen s;

    memcpy(idt2, idt, sizeof(idt2));
    watch.operand = pin_unpack(moved);
    on_cpu(1, lidt_when_told, NULL);
    r = host("call", "{\"name\": \"watched\", \"go\": %lu, \"operand\": "
             "%lu}", (uint64_t)&watch.go, (uint64_t)&watch.operand);
    ok(json_is(r, "watch", "true"), "the watchpoint is hit: %s", r);
    wait_cpu(1);
    s = unpin();
    ok(per_cpu[1] == moved && s.counted == 1,
       "the instruction was stopped once, and took place: %d, 0x%lx",
       s.counted, per_cpu[1]);
}

/* --- A pin that comes while an instruction is stopped --- */

static void stopped(void)
{
    struct dtr *operand = frame();
    uint64_t idt1 = pin_get_idt();
    uint64_t moved = (uint64_t)idt2 | (idt1 >> 48 << 48);
    const char *r;

    memcpy(idt2, idt, sizeof(idt2));
    *operand = pin_unpack(moved);
    for (int i = 0; i < 2; i++) {
        r = host("call", "{\"name\": \"protect\", \"addr\": %lu, \"pin\": "
                 "%s}", (uint64_t)operand, i ? "true" : "false");
        ok(!qmp_failed(r), "the operand of an LIDT is protected: %s", r);
        if (i) {
            expect(TRY(asm volatile("lidt %0" : : "m" (*operand))), GP, 0,
                   "stopped before it, and pinned: LIDT");
            ok(pin_get_idt() == idt1, "the IDT stays: 0x%lx", pin_get_idt());
        } else {
            expect_none(TRY(asm volatile("lidt %0" : : "m" (*operand))),
                        "stopped before it: LIDT");
            ok(pin_get_idt() == moved, "the IDT is moved: 0x%lx",
               pin_get_idt());
            pin_put_idt(idt1);
        }
        r = host("call", "{\"name\": \"stops\", \"addr\": %lu}",
                 (uint64_t)operand);
        ok(json_is(r, "stops", "2"), "the VM stopped at each load: %s", r);
    }
}

/* --- A flood of violations --- */

#define FLOOD   20000

static void flood(void)
{
    const char *r;
    PinSeen s;
    int n = 0;

    wrmsr(MSR_LSTAR, GOOD);
    pin("discard", 0, "{\"register\": \"msr\", \"index\": %u, \"value\": "
        "%llu}", MSR_LSTAR, GOOD);
    for (int i = 0; i < FLOOD; i++) {
        wrmsr(MSR_LSTAR, EVIL);
        n += rdmsr(MSR_LSTAR) == GOOD;
    }
    ok(n == FLOOD, "%d of %d writes came to nothing", n, FLOOD);
    r = host("call", "{\"name\": \"flood\"}");
    ok(json_number(r, "events", FLOOD) < 1000,
       "no more than so many events: %s", r);
    /* Under the flood another MSR changes */
    pin_more("{\"action\": \"report\"}", "{\"register\": \"msr\", "
             "\"index\": %u, \"value\": 1}", MSR_TSC_AUX);
    pin_more("{\"action\": \"report\"}", "{\"register\": \"msr\", "
             "\"index\": %u, \"value\": %llu}", MSR_CSTAR, GOOD);
    wrmsr(MSR_CSTAR, GOOD);
    for (int i = 0; i < FLOOD; i++) {
        wrmsr(MSR_TSC_AUX, 1);
        wrmsr(MSR_TSC_AUX, 2);
    }
    wrmsr(MSR_CSTAR, EVIL);
    r = host("call", "{\"name\": \"flood\", \"index\": %u}", MSR_CSTAR);
    ok(json_is(r, "of-index", "1"), "a change of CSTAR is told: %s", r);
    s = unpin();
    ok(s.counted == 2 * FLOOD + 1, "all %d are counted", s.counted);
}

static void nothing(void *unused)
{
    (void)unused;
}

void test(void)
{
    const char *what = command_line();

    if (!strcmp(what, "main")) {
        on_all(nothing, NULL);
        pin_rows(every, every_row());
        beside();
        reserved();
        user_tries();
        waiting();
        leave_long_mode();
        two_at_once();
        not_taken();
        refusals();
    } else if (!strcmp(what, "cpus")) {
        several();
    } else if (!strcmp(what, "grace")) {
        grace();
        init_storm();
    } else if (!strcmp(what, "reset")) {
        reset();
    } else if (!strcmp(what, "triple-fault")) {
        triple_fault();
    } else if (!strcmp(what, "suspend")) {
        suspend();
    } else if (!strcmp(what, "strict")) {
        strict();
    } else if (!strcmp(what, "migrate")) {
        migrate();
    } else if (!strcmp(what, "hotplug")) {
        hotplug();
    } else if (!strcmp(what, "rows-reset")) {
        pin_rows_reset(every, every_row());
    } else if (!strcmp(what, "rows-migrate")) {
        pin_rows_through(every, every_row(), "migrate");
    } else if (!strcmp(what, "rows-snapshot")) {
        pin_rows_through(every, every_row(), "snapshot");
    } else if (!strcmp(what, "watched")) {
        watched();
    } else if (!strcmp(what, "stopped")) {
        stopped();
    } else if (!strcmp(what, "flood")) {
        flood();
    } else {
        bail("-append is missing");
    }
}
