/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Register pins that the guest sets for itself, by both formats of MSRs:
 * discovery, what may be written, what is enforced, and what clears them.
 */

#include "internal.h"
#include "pin.h"

GUEST_RUN("cr-pin", "-cpu max,+cr-pin -append own");
GUEST_RUN("kvm-cr-pin", "-cpu max,+kvm-cr-pin -append rfc");
GUEST_RUN("both", "-machine pc -cpu max,+cr-pin,+kvm-cr-pin -append both");
GUEST_RUN("widened", "-cpu max,+cr-pin,cr-pin-allowed-cr0=0x50000,"
          "cr-pin-allowed-cr4=0x310804 -append widened");
GUEST_RUN("off", "-cpu max -append off");
GUEST_RUN("one-insn",
          "accel=tcg,one-insn-per-tb=on -cpu max,+cr-pin -append own");
GUEST_RUN("icount", "-cpu max,+cr-pin -icount shift=1 -append own");
GUEST_RUN("four-threads", "accel=tcg,thread=multi -cpu max,+cr-pin -smp 4 "
          "-append cpus");
GUEST_RUN("round-robin", "accel=tcg,thread=single -cpu max,+kvm-cr-pin "
          "-smp 4 -append cpus-rfc");
GUEST_RUN("reset", "reboots -cpu max,+cr-pin -append reset");
GUEST_RUN("triple-fault", "reboots -cpu max,+cr-pin -append triple-fault");
GUEST_RUN("suspend", "reboots timeout=120 -machine pc -cpu max,+cr-pin "
          "-append suspend");

#define OWN_BASE    0x4b564d80u
#define RFC_BASE    0x4b564d08u

/* Offsets in either block */
enum { ALLOWED0, ALLOWED4, ZERO0, ONE0, ZERO4, ONE4, BLOCK };
static const char *const names[] = {
    "CR0_PIN_ALLOWED", "CR4_PIN_ALLOWED", "CR0_PINNED_ZERO",
    "CR0_PINNED_ONE", "CR4_PINNED_ZERO", "CR4_PINNED_ONE",
};

#define CR0_ALLOWED     CR0_WP
#define CR4_ALLOWED     (CR4_SMEP | CR4_SMAP | CR4_UMIP | CR4_FSGSBASE)

static uint32_t base;

static uint64_t get(int which)
{
    return rdmsr(base + which);
}

static Fault try_set(int which, uint64_t v)
{
    return TRY(PIN_ATTACK("wrmsr", "c" (base + which), "a" ((uint32_t)v),
                          "d" ((uint32_t)(v >> 32))));
}

static bool must_set(int which, uint64_t v)
{
    Fault f = try_set(which, v);

    if (f.vec != NONE || get(which) != v) {
        note("%s: 0x%lx gives %s, and is 0x%lx", names[which], v,
             fault_text(f), get(which));
        return false;
    }
    return true;
}

/* #GP(0) at the WRMSR, and no register has changed */
static bool must_refuse(int which, uint64_t v)
{
    uint64_t before[BLOCK], cr0 = read_cr0(), cr4 = read_cr4();
    bool good = true;
    Fault f;

    for (int i = 0; i < BLOCK; i++) {
        before[i] = get(i);
    }
    f = try_set(which, v);
    if (f.vec != GP || f.err || !pin_registers_kept(&f) ||
        (uint32_t)f.gpr[RAX] != (uint32_t)v ||
        (uint32_t)f.gpr[RDX] != v >> 32 ||
        (uint32_t)f.gpr[RCX] != base + which) {
        note("%s = 0x%lx: %s", names[which], v, fault_text(f));
        good = false;
    }
    for (int i = 0; i < BLOCK; i++) {
        if (get(i) != before[i]) {
            note("%s = 0x%lx: %s is 0x%lx, was 0x%lx", names[which], v,
                 names[i], get(i), before[i]);
            good = false;
        }
    }
    return good && read_cr0() == cr0 && read_cr4() == cr4;
}

/* --- Discovery --- */

static void discover_own(bool present)
{
    struct cpuid top = cpuid(0x40000000, 0), leaf = cpuid(0x40000030, 0);

    if (present) {
        ok(top.eax >= 0x40000030, "the leaf is there: 0x%x", top.eax);
        ok(leaf.eax & 2 && leaf.ebx == OWN_BASE && !leaf.ecx && !leaf.edx,
           "leaf 0x40000030: 0x%x 0x%x 0x%x 0x%x", leaf.eax, leaf.ebx,
           leaf.ecx, leaf.edx);
        ok(!(leaf.eax & ~2u), "it offers nothing else");
    } else {
        ok(top.eax < 0x40000030, "no leaf 0x40000030: 0x%x", top.eax);
    }
}

static void discover_rfc(bool present)
{
    struct cpuid top = cpuid(0x40000000, 0), leaf = cpuid(0x40000001, 0);

    ok(top.eax >= 0x40000001, "leaf 0x40000001 is there: 0x%x", top.eax);
    ok((leaf.eax >> 16 & 1) == present, "bit 16 of leaf 0x40000001 is %d",
       present);
    ok(!(leaf.eax & ~(1u << 16)), "no other bit is: 0x%x", leaf.eax);
}

/* Upstream reads zero from what it does not know, and ignores writes */
static void absent(uint32_t b, const char *what)
{
    uint64_t cr4 = read_cr4();
    bool good = true;
    Fault f;

    base = b;
    for (int i = 0; i < BLOCK; i++) {
        f = TRY(wrmsr(base + i, CR4_SMEP));
        good &= f.vec == NONE && get(i) == 0;
    }
    ok(good, "%s: no such MSRs", what);
    write_cr4(cr4 | CR4_SMEP);
    expect_none(TRY(write_cr4(cr4)), "%s: nothing is pinned", what);
}

/* --- Reading and writing --- */

static void allowed(void)
{
    const char *format = base == OWN_BASE ? "own" : "RFC";

    ok(get(ALLOWED0) == CR0_ALLOWED, "%s: %s is 0x%lx", format,
       names[ALLOWED0], get(ALLOWED0));
    ok(get(ALLOWED4) == CR4_ALLOWED, "%s: %s is 0x%lx", format,
       names[ALLOWED4], get(ALLOWED4));
    for (int i = ALLOWED0; i <= ALLOWED4; i++) {
        ok(must_refuse(i, 0) & must_refuse(i, ~0ull) &
           must_refuse(i, get(i)) & must_refuse(i, get(i) | 1),
           "%s: %s can't be written", format, names[i]);
    }
    for (int i = ZERO0; i < BLOCK; i++) {
        uint64_t may = i <= ONE0 ? CR0_ALLOWED : CR4_ALLOWED;
        bool good = true;

        ok(get(i) == 0, "%s: %s is 0 at first", format, names[i]);
        for (int bit = 0; bit < 64; bit++) {
            if (!(may >> bit & 1)) {
                good &= must_refuse(i, 1ull << bit);
                good &= must_refuse(i, may | 1ull << bit);
            }
        }
        good &= must_refuse(i, ~0ull);
        ok(good, "%s: %s takes no bit that is not allowed", format,
           names[i]);
        ok(must_set(i, 0), "%s: %s takes 0", format, names[i]);
    }
}

static USER uint64_t user_wrmsr(uint64_t msr)
{
    asm volatile("wrmsr" : : "c" ((uint32_t)msr), "a" (0), "d" (0));
    return msr;
}

static USER uint64_t user_rdmsr(uint64_t msr)
{
    uint32_t a, d;

    asm volatile("rdmsr" : "=a" (a), "=d" (d) : "c" ((uint32_t)msr));
    return a;
}

static void user_may_not(void)
{
    for (int i = 0; i < BLOCK; i++) {
        expect(TRY(user(user_wrmsr, base + i)), GP, 0,
               "%s: no WRMSR at CPL 3", names[i]);
        expect(TRY(user(user_rdmsr, base + i)), GP, 0,
               "%s: no RDMSR at CPL 3", names[i]);
    }
}

/* Adds bit by bit; never takes one back */
static void add_only(void)
{
    static const uint64_t bits[] = { CR4_SMEP, CR4_SMAP, CR4_UMIP };
    uint64_t all = 0;
    bool good = true;

    write_cr4(read_cr4() | CR4_SMEP | CR4_SMAP | CR4_UMIP);
    for (unsigned i = 0; i < ARRAY_SIZE(bits); i++) {
        good &= must_set(ONE4, all | bits[i]);
        good &= must_set(ONE4, all | bits[i]);
        for (uint64_t b = 1; all && b; b <<= 1) {
            good &= !(all & b) || must_refuse(ONE4, (all | bits[i]) & ~b);
        }
        all |= bits[i];
    }
    good &= must_refuse(ONE4, 0);
    ok(good, "CR4_PINNED_ONE: bits can be added, not taken back");
    good = must_refuse(ZERO4, CR4_SMEP) &
           must_refuse(ZERO4, CR4_SMEP | CR4_FSGSBASE);
    ok(good, "a bit that is pinned to one can't be pinned to zero");
    ok(must_set(ZERO4, CR4_FSGSBASE), "another bit can");
    ok(must_refuse(ONE4, all | CR4_FSGSBASE),
       "which then can't be pinned to one");
    ok(must_refuse(ZERO4, 0), "CR4_PINNED_ZERO is add-only as well");
    ok(must_set(ONE0, CR0_WP), "WP is pinned");
    ok(must_refuse(ONE0, 0) & must_refuse(ZERO0, CR0_WP),
       "and that can't be undone");
}

/* --- Enforced --- */

static bool refused_cr(uint64_t v, bool cr4, const char *what)
{
    uint64_t before = cr4 ? read_cr4() : read_cr0();
    Fault f = cr4 ? TRY(PIN_ATTACK("mov %0, %%cr4", "a" (v)))
                  : TRY(PIN_ATTACK("mov %0, %%cr0", "a" (v)));
    uint64_t insn = pin_insn;
    bool good = f.vec == GP && !f.err && pin_registers_kept(&f) &&
                f.gpr[RAX] == v &&
                (cr4 ? read_cr4() : read_cr0()) == before;
    PinSeen s;

    if (!good) {
        note("%s: %s, register 0x%lx, was 0x%lx", what, fault_text(f),
             cr4 ? read_cr4() : read_cr0(), before);
    }
    s = pin_seen();
    return good & pin_first(s, 1, cr4 ? "cr4" : "cr0", 0, 0, before, v, insn,
                            "fault", what);
}

static void enforced(void)
{
    uint64_t cr0 = read_cr0(), cr4 = read_cr4();

    pin_seen();
    ok(refused_cr(cr4 & ~CR4_SMEP, true, "SMEP off"), "SMEP off is refused");
    ok(refused_cr(cr4 & ~CR4_SMAP, true, "SMAP off"), "SMAP off is refused");
    ok(refused_cr(cr4 & ~CR4_UMIP, true, "UMIP off"), "UMIP off is refused");
    ok(refused_cr(cr4 & ~(CR4_SMAP | CR4_SMEP | CR4_UMIP), true, "all off"),
       "all off is refused");
    ok(refused_cr(cr4 | CR4_FSGSBASE, true, "FSGSBASE on"),
       "FSGSBASE on is refused");
    ok(refused_cr((cr4 | CR4_TSD) & ~CR4_SMEP, true, "TSD on, SMEP off"),
       "SMEP off is refused together with another change, which fails too");
    ok(refused_cr(cr0 & ~CR0_WP, false, "WP off"), "WP off is refused");
    ok(refused_cr((cr0 | CR0_TS) & ~CR0_WP, false, "TS on, WP off"),
       "WP off is refused together with another change, which fails too");
    expect_none(TRY(write_cr4(cr4 | CR4_TSD)), "TSD alone can be set");
    ok(read_cr4() == (cr4 | CR4_TSD), "and is on");
    expect_none(TRY(write_cr4(cr4)), "and off");
    expect_none(TRY(write_cr0(cr0 | CR0_TS)), "TS can be set");
    expect_none(TRY(asm volatile("clts")), "and cleared by CLTS");
    expect_none(TRY(asm volatile("lmsw %w0" : : "a" (cr0 | CR0_EM))),
                "LMSW can't touch what may be pinned: it works");
    write_cr0(cr0);
    ok(pin_none(pin_seen(), "not pinned"), "none of this is told");
    /* Leaving long mode clears CR0.PG; the pin doesn't mind */
    use_levels(4);
    ok(read_cr4() == cr4 && read_cr0() == cr0,
       "paging off and on with the bits kept");
}

/* The host sees it, and can't be asked to undo it by the guest's means */
static void listed(void)
{
    const char *r = host("call", "{\"name\": \"guest_pins\"}");

    ok(json_number(r, "cr4.ones", 0) ==
       (int64_t)(CR4_SMEP | CR4_SMAP | CR4_UMIP) &&
       json_number(r, "cr4.zeros", 0) == (int64_t)CR4_FSGSBASE &&
       json_number(r, "cr0.ones", 0) == (int64_t)CR0_WP,
       "query-register-pins lists them as the guest's: %s", r);
}

/* The other format shows the same state */
static void shared(uint32_t other)
{
    for (int i = 0; i < BLOCK; i++) {
        ok(rdmsr(other + i) == get(i), "both formats: %s is 0x%lx and 0x%lx",
           names[i], rdmsr(other + i), get(i));
    }
    base = other;
    ok(must_refuse(ONE4, 0), "both formats: the other can't undo it");
}

static void pins(void)
{
    allowed();
    user_may_not();
    add_only();
    listed();
    enforced();
}

/*
 * A bit may be pinned before it has the value; it is held from the moment it
 * has it.
 */
static void not_yet(void)
{
    uint64_t cr4 = read_cr4();

    ok(must_set(ONE4, CR4_SMEP | CR4_SMAP), "pinned while they are off");
    expect_none(TRY(write_cr4(cr4 | CR4_PGE); write_cr4(cr4)),
                "other bits can be changed, these can stay off");
    expect_none(TRY(write_cr4(cr4 | CR4_SMEP)), "SMEP goes on");
    expect(TRY(write_cr4(cr4)), GP, 0, "and stays on");
    expect_none(TRY(write_cr4(cr4 | CR4_SMEP | CR4_SMAP)), "SMAP goes on");
    expect(TRY(write_cr4(cr4 | CR4_SMEP)), GP, 0, "and stays on");
    expect(TRY(write_cr4(cr4 | CR4_SMAP)), GP, 0, "as SMEP does");
}

/* The host allows more bits */
static void widened(void)
{
    uint64_t cr4 = read_cr4();

    ok(get(ALLOWED0) == (CR0_WP | CR0_AM) &&
       get(ALLOWED4) == (CR4_ALLOWED | CR4_TSD),
       "what is allowed: 0x%lx, 0x%lx", get(ALLOWED0), get(ALLOWED4));
    ok(must_set(ZERO4, CR4_TSD) && must_set(ZERO0, CR0_AM),
       "AM and TSD can be pinned");
    expect(TRY(write_cr4(cr4 | CR4_TSD)), GP, 0, "TSD stays off");
    expect(TRY(write_cr0(read_cr0() | CR0_AM)), GP, 0, "AM stays off");
    ok(must_refuse(ZERO4, CR4_TSD | CR4_PGE) &&
       must_refuse(ZERO0, CR0_AM | CR0_TS), "others can't");
    not_yet();
}

/* The host's pins and the guest's */
static void mixed(void)
{
    uint64_t cr4 = read_cr4();
    const char *r;

    pin("discard", 0, "{\"register\": \"cr4\", \"ones\": %llu}", CR4_SMEP);
    ok(must_refuse(ZERO4, CR4_SMEP),
       "the guest can't pin to zero what the host wants at one");
    ok(must_set(ONE4, CR4_UMIP), "it can pin something else");
    write_cr4(cr4 | CR4_UMIP | CR4_SMEP);
    pin_seen();
    expect(TRY(write_cr4(cr4 | CR4_SMEP)), GP, 0,
           "the guest's pin is #GP(0)");
    expect_none(TRY(write_cr4(cr4 | CR4_UMIP)), "the host's discards");
    ok(read_cr4() == (cr4 | CR4_UMIP | CR4_SMEP), "and holds");
    expect(TRY(write_cr4(cr4)), GP, 0, "both at once: #GP(0)");
    unpin();
    pin("fault", 0, "{\"register\": \"cr4\", \"zeros\": %llu}", CR4_UMIP);
    ok(get(ONE4) == 0, "the host's pin ends the guest's: 0x%lx", get(ONE4));
    expect_none(TRY(write_cr4(cr4)), "so that UMIP can go off");
    expect(TRY(write_cr4(cr4 | CR4_UMIP)), GP, 0, "and stays off");
    r = host("call", "{\"name\": \"guest_pins\"}");
    ok(!json(r, "cr4"), "the guest's pin is not listed: %s", r);
    unpin();
}

/* --- More CPUs --- */

static uint64_t result[MAX_CPUS];

static void set_smep(void *unused)
{
    (void)unused;
    write_cr4(read_cr4() | CR4_SMEP);
}

static void clear_smep(void *unused)
{
    (void)unused;
    result[this_cpu()] = TRY(write_cr4(read_cr4() & ~CR4_SMEP)).vec == GP;
}

static void pin_smep(void *unused)
{
    (void)unused;
    wrmsr(base + ONE4, CR4_SMEP);
}

static void read_pins(void *unused)
{
    (void)unused;
    result[this_cpu()] = rdmsr(base + ONE4);
}

static unsigned who(void (*fn)(void *))
{
    unsigned n = 0;

    on_all(fn, NULL);
    for (unsigned i = 0; i < cpus(); i++) {
        n |= (unsigned)(result[i] != 0) << i;
    }
    return n;
}

static void apic(unsigned cpu, uint32_t what)
{
    write32((void *)0xfee00310, cpu << 24);
    write32((void *)0xfee00300, what);
    while (read32((void *)0xfee00300) & 0x1000) {
        pause();
    }
}

static void several(void)
{
    const char *r;

    on_all(set_smep, NULL);
    on_cpu(1, pin_smep, NULL);
    on_cpu(3, pin_smep, NULL);
    wait_cpu(1);
    wait_cpu(3);
    ok(who(read_pins) == 0xa, "CPUs 1 and 3 have pins");
    ok(who(clear_smep) == 0xa, "and keep SMEP; the others don't");
    host("events", "{}");

    /* INIT clears the pins of that CPU */
    apic(1, 0x4500);
    __atomic_store_n(&ap_index, 1, __ATOMIC_RELEASE);
    apic(1, 0x4600 | AP_START >> 12);
    on_cpu(1, read_pins, NULL);
    wait_cpu(1);
    ok(result[1] == 0, "after INIT CPU 1 has no pins");
    ok(who(clear_smep) == 0x8, "CPU 3 has");
    r = host("events", "{\"name\": \"REGISTER_PINS_CLEARED\"}");
    ok(json_is(r, "count", "1") &&
       json_is(r, "events.0.data.reason", "init") &&
       json_is(r, "events.0.data.guest", "1") &&
       json_is(r, "events.0.data.cpu-index", "1"), "one event tells: %s", r);
    on_cpu(1, set_smep, NULL);
    on_cpu(1, pin_smep, NULL);
    wait_cpu(1);
    ok(who(clear_smep) == 0xa, "it can pin again");
}

/* --- Reset --- */

static void reset(const char *what)
{
    const char *r;
    bool good = true;

    base = OWN_BASE;
    if (boot_number() == 1) {
        struct dtr none = { 0, 0 };

        add_only();
        host("events", "{}");
        if (!strcmp(what, "triple-fault")) {
            asm volatile("lidt %0; ud2" : : "m" (none));
        }
        if (!strcmp(what, "suspend")) {
            host("on", "{\"event\": \"SUSPEND\", \"do\": "
                 "\"system_wakeup\"}");
        }
        for (;;) {
            if (!strcmp(what, "suspend")) {
                outw(0x604, 1 << 10 | 1 << 13);
            } else {
                outb(0x64, 0xfe);
            }
        }
    }
    for (int i = ZERO0; i < BLOCK; i++) {
        good &= get(i) == 0;
    }
    ok(good, "after %s nothing is pinned", what);
    ok(get(ALLOWED4) == CR4_ALLOWED, "what is allowed is as before");
    expect_none(TRY(write_cr0(read_cr0() & ~CR0_WP)), "WP can be cleared");
    r = host("events", "{\"name\": \"REGISTER_PINS_CLEARED\"}");
    ok(json_is(r, "count", "1") &&
       json_is(r, "events.0.data.reason",
               !strcmp(what, "suspend") ? "wakeup" : "reset") &&
       json_is(r, "events.0.data.guest", "2"), "one event tells: %s", r);
    write_cr0(read_cr0() | CR0_WP);
    add_only();
}

void test(void)
{
    const char *what = command_line();

    base = OWN_BASE;
    if (!strcmp(what, "own")) {
        discover_own(true);
        discover_rfc(false);
        absent(RFC_BASE, "RFC");
        base = OWN_BASE;
        pins();
    } else if (!strcmp(what, "rfc")) {
        discover_own(false);
        discover_rfc(true);
        absent(OWN_BASE, "own");
        base = RFC_BASE;
        pins();
    } else if (!strcmp(what, "both")) {
        discover_own(true);
        discover_rfc(true);
        mixed();
        pins();
        shared(RFC_BASE);
    } else if (!strcmp(what, "off")) {
        discover_own(false);
        discover_rfc(false);
        absent(OWN_BASE, "own");
        absent(RFC_BASE, "RFC");
    } else if (!strcmp(what, "widened")) {
        widened();
    } else if (!strcmp(what, "cpus")) {
        several();
    } else if (!strcmp(what, "cpus-rfc")) {
        base = RFC_BASE;
        several();
    } else {
        reset(what);
    }
}
