/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * docs/specs/xo-rules.csv, every combination of it, one result a rule.
 *
 * What is expected comes from the table alone: here is only how to bring a
 * CPU into each state and to make an access in it.
 */

#include "guest.h"

GUEST_RUN("xo", "-cpu max,+xo -append xo timeout=300");
GUEST_RUN("without-xo", "-cpu max timeout=300");
GUEST_RUN("phys-bits-51", "-cpu max,+xo,phys-bits=51 -append xo timeout=300");
GUEST_RUN("phys-bits-36", "-cpu max,+xo,phys-bits=36 -append xo timeout=300");
GUEST_RUN("icount", "-cpu max,+xo -icount shift=0 -append xo timeout=300");

/* In the order of the table's columns */
enum {
    PAGING, XO, R, NXE_NX, U_S, W, WP, SMEP, SMAP, AC_FLAG, PK, CPL, ACCESS,
    COLUMNS
};

struct rule {
    const char *name, *text;
    uint8_t values[COLUMNS];
    bool fault;
    uint8_t error, open;
};

#include "xo-rules.h"

static const struct {
    const char *name;
    const char *const *values;
    unsigned count;
} columns[COLUMNS] = {
#define COLUMN(text, word) { text, NAMES_##word, N_##word }
    COLUMN("paging", PAGING), COLUMN("XO", XO), COLUMN("R", R),
    COLUMN("NXE/NX", NXE_NX), COLUMN("U/S", U_S), COLUMN("W", W),
    COLUMN("WP", WP), COLUMN("SMEP", SMEP), COLUMN("SMAP", SMAP),
    COLUMN("AC", AC), COLUMN("PK", PK), COLUMN("CPL", CPL),
    COLUMN("access", ACCESS),
};

/* mov $0x5a, %eax; ret. access_write_*() leave the first byte as it is. */
static const uint8_t code[] = { 0xb8, 0x5a, 0, 0, 0, 0xc3 };

#define KEY         5

static unsigned ran[ARRAY_SIZE(rules)], wrong[ARRAY_SIZE(rules)];
static unsigned combinations, shown;
static uint8_t *target;         /* the code, through the kernel's mapping */
static uint64_t va;             /* the code, through the page under test */
static uint64_t *leaf;
static uint64_t reserved;       /* a bit above M */
static Space pae;
static uint64_t cr4_now, cr0_now, efer_now;
static int key_now = -1;

static void enter_state(const uint8_t *v)
{
    static const uint32_t pkru[] = { 3, 0, 2, 1 };
    uint64_t cr0 = v[WP] ? cr0_now | CR0_WP : cr0_now & ~CR0_WP;
    uint64_t cr4 = cr4_now & ~(CR4_SMEP | CR4_SMAP | CR4_PKE);
    uint64_t efer = v[NXE_NX] >= 2 ? efer_now | EFER_NXE
                                   : efer_now & ~EFER_NXE;

    if (v[PK] != key_now) {
        /* With protection keys off, the key denies all that it can */
        write_cr4(cr4_now | CR4_PKE);
        wrpkru(pkru[v[PK]] << 2 * KEY);
        write_cr4(cr4_now);
        key_now = v[PK];
    }
    cr4 |= (v[SMEP] ? CR4_SMEP : 0) | (v[SMAP] ? CR4_SMAP : 0) |
           (v[PK] ? CR4_PKE : 0);
    if (cr4 != cr4_now) {
        write_cr4(cr4);
        cr4_now = cr4;
    }
    if (cr0 != cr0_now) {
        write_cr0(cr0);
        cr0_now = cr0;
    }
    if (efer != efer_now) {
        wrmsr(MSR_EFER, efer);
        efer_now = efer;
    }
}

static void normal_state(void)
{
    static const uint8_t plain[COLUMNS] = { [WP] = 1, [NXE_NX] = 2 };

    enter_state(plain);
}

/* The place a level's leaf gets, with what it maps */
static void map_target(int level, Space *s)
{
    uint64_t size = 1ull << (3 + 9 * level);
    uint64_t start = s->levels == 3 ? 2 * PAGE_1G : window(size);

    va = start + ((uint64_t)target & (size - 1));
    leaf = space_entry(s, va, level);
}

static uint64_t leaf_value(const uint8_t *v, int level)
{
    uint64_t size = 1ull << (3 + 9 * level);

    return ((uint64_t)target & -size) | PTE_P |
           (level > LEVEL_4K ? PTE_PS : 0) |
           (v[W] ? PTE_W : 0) | (v[U_S] ? PTE_U : 0) |
           (v[XO] ? xo_bit() : 0) | (v[R] ? reserved : 0) |
           (v[NXE_NX] & 1 ? PTE_NX : 0) |
           (v[PAGING] < 6 ? PTE_PK(KEY) : 0);
}

/* volatile: changed in a TRY() */
static Fault access64(const uint8_t *v, volatile uint64_t *result)
{
    static uint64_t (*const kernel[])(uint64_t) = {
        access_read_kernel, access_write_kernel, access_fetch_kernel,
    };
    static uint64_t (*const user_fn[])(uint64_t) = {
        access_read_user, access_write_user, access_fetch_user,
    };
    uint64_t rflags = v[AC_FLAG] ? RFLAGS_AC | 2 : 2;

    if (v[CPL]) {
        return TRY(*result = user_flags(user_fn[v[ACCESS]], va, rflags));
    }
    return TRY(write_rflags(rflags);
               *result = kernel[v[ACCESS]](va);
               write_rflags(2));
}

static Fault access_pae(const uint8_t *v, uint64_t *result)
{
    struct mode32 m = {
        .cr0 = v[WP] ? CR0_WP : 0,
        .cr4 = (v[SMEP] ? CR4_SMEP : 0) | (v[SMAP] ? CR4_SMAP : 0),
        .efer = v[NXE_NX] >= 2 ? EFER_NXE : 0,
        .kind = M32_READ + v[ACCESS],
        .cpl = v[CPL] ? 3 : 0,
        .eflags = v[AC_FLAG] ? RFLAGS_AC : 0,
        .addr = va,
    };
    Fault f = pae_access(&pae, &m);

    *result = m.result;
    return f;
}

static void show(const uint8_t *v, const struct rule *rule, const char *got)
{
    char line[300];
    int n = 0;

    for (int c = 0; c < COLUMNS; c++) {
        n += format(line + n, sizeof(line) - n, "%s %s, ", columns[c].name,
                    columns[c].values[v[c]]);
    }
    note("%s", line);
    if (rule->fault) {
        note("    got %s; rule %s says #PF error 0x%x (0x%x open), cr2 0x%lx",
             got, rule->name, rule->error, rule->open, va);
    } else {
        note("    got %s; rule %s says it succeeds", got, rule->name);
    }
}

static void combination(const uint8_t *v, int level)
{
    volatile uint64_t result = 0;   /* changed in a TRY() */
    uint8_t first = code[0];
    bool writes = v[ACCESS] == 1;
    Fault f;

    *leaf = leaf_value(v, level);
    if (writes) {
        target[0] = 0;
    }
    if (v[PAGING] < 6) {
        enter_state(v);
        asm volatile("invlpg (%0)" : : "r" (va) : "memory");
        f = access64(v, &result);
    } else {
        uint64_t value;

        f = access_pae(v, &value);
        result = value;
    }
    if (writes) {
        first = target[0];
        target[0] = code[0];
    }
    combinations++;
    for (unsigned i = 0; i < ARRAY_SIZE(rules); i++) {
        const struct rule *rule = &rules[i];
        char odd[60] = "";
        int c = 0;

        while (c < COLUMNS && rule->values[c] >> v[c] & 1) {
            c++;
        }
        if (c < COLUMNS) {
            continue;
        }
        ran[i]++;
        if (rule->fault) {
            if (f.vec == PF && !((f.err ^ rule->error) & ~rule->open) &&
                f.cr2 == va && !(writes && first)) {
                continue;
            }
            if (writes && first) {
                format(odd, sizeof(odd), ", and the byte was written");
            }
        } else {
            uint64_t due = v[ACCESS] == 2 ? 0x5a : 0xb8;

            if (f.vec == NONE && (writes ? first == 0xb8 : result == due)) {
                continue;
            }
            format(odd, sizeof(odd), ", result 0x%lx, byte 0x%x", result,
                   first);
        }
        wrong[i]++;
        if (shown < 40) {
            char got[200];

            shown++;
            format(got, sizeof(got), "%s%s", fault_text(f), odd);
            normal_state();
            show(v, rule, got);
        }
    }
}

static void every(int paging)
{
    static const uint8_t levels[] = {
        LEVEL_4K, LEVEL_2M, LEVEL_1G, LEVEL_4K, LEVEL_2M, LEVEL_1G,
        LEVEL_4K, LEVEL_2M,
    };
    int level = levels[paging];
    uint8_t v[COLUMNS] = { paging };
    int c;

    if (paging == 3) {
        normal_state();
        use_levels(5);
    } else if (paging == 6) {
        normal_state();
        use_levels(4);
    }
    cr0_now = read_cr0();
    cr4_now = read_cr4();
    map_target(level, paging < 6 ? &kernel_space : &pae);
    do {
        /*
         * Where there is no XO, its bit is reserved like any other: then
         * that is the bit that R stands for.
         */
        if ((xo_present() || !v[XO]) && (paging < 6 || !v[PK])) {
            combination(v, level);
        }
        for (c = COLUMNS - 1; c > PAGING && ++v[c] == columns[c].count;
             c--) {
            v[c] = 0;
        }
    } while (c > PAGING);
    *leaf = 0;
    normal_state();
    flush_tlb();
}

void test(void)
{
    bool xo = !strcmp(command_line(), "xo");

    ok(xo_present() == xo, "CPUID %s execute-only memory",
       xo ? "offers" : "does not offer");
    if (!xo) {
        ok(cpuid(0x40000000, 0).eax == 0x40000001,
           "the hypervisor's leaves end where upstream's do");
    }
    note("physical addresses have %u bits", phys_bits());
    target = frame();
    memcpy(target, code, sizeof(code));
    pae = pae_space();
    reserved = xo_present() ? xo_bit() << 1 : xo_bit();
    if (reserved >> 52) {
        bail("with M=%u there is no reserved bit above", phys_bits());
    }
    efer_now = rdmsr(MSR_EFER);
    for (unsigned i = 0; i < N_PAGING; i++) {
        every(i);
    }
    for (unsigned i = 0; i < ARRAY_SIZE(rules); i++) {
        if (!ran[i] && rules[i].values[XO] == 2 && !xo) {
            /* Rules about the XO bit are not for this machine */
            continue;
        }
        ok(ran[i] && !wrong[i], "%s: %s (%u of %u)", rules[i].name,
           rules[i].text, ran[i] - wrong[i], ran[i]);
    }
    ok(combinations == (xo ? N_COMBINATIONS : N_COMBINATIONS / 2),
       "%u combinations", combinations);
}
