/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The side doors of register pinning: what changes a pinned register and is
 * no write to it; SMM and SVM with hostile images; CPUs that write while the
 * host pins; and an IDT that is pinned and protected.
 *
 * The front doors are in pin-host.c.
 */

#include "internal.h"
#include "pin.h"
#include "subpage.h"

GUEST_RUN("one-cpu", "-cpu max -append main");
GUEST_RUN("pc", "-machine pc -cpu max -append main");
GUEST_RUN("four-threads",
          "accel=tcg,thread=multi timeout=120 -cpu max -smp 4 -append main");
GUEST_RUN("icount", "timeout=120 -cpu max -icount shift=1 -append main");
GUEST_RUN("one-insn", "accel=tcg,one-insn-per-tb=on timeout=120 -cpu max "
          "-append main");
GUEST_RUN("race", "accel=tcg,thread=multi timeout=240 -cpu max -smp 4 "
          "-append race");
GUEST_RUN("two-faced", "accel=tcg,thread=multi timeout=240 -cpu max -smp 2 "
          "-append two-faced");
GUEST_RUN("rows-reset", "reboots timeout=60 -cpu max -append rows-reset");
GUEST_RUN("rows-migrate", "timeout=240 -cpu max -append rows-migrate");
GUEST_RUN("rows-snapshot", "timeout=240 -cpu max -append rows-snapshot");
GUEST_RUN("race-round-robin", "accel=tcg,thread=single timeout=240 -cpu max "
          "-smp 4 -append race");

#define GOOD    0xffffffff81000000ull
#define EVIL    0xffff888012345678ull
#define LOW     0x12345678ull           /* a base that a descriptor can have */
#define EFER_LMA 0x400ull

PIN_MSR(efer, MSR_EFER)
PIN_MSR(sysenter_cs, MSR_SYSENTER_CS)
PIN_MSR(sysenter_esp, MSR_SYSENTER_ESP)
PIN_MSR(sysenter_eip, MSR_SYSENTER_EIP)
PIN_MSR(star, MSR_STAR)
PIN_MSR(lstar, MSR_LSTAR)
PIN_MSR(cstar, MSR_CSTAR)
PIN_MSR(fmask, MSR_FMASK)
PIN_MSR(fs_base, MSR_FS_BASE)
PIN_MSR(gs_base, MSR_GS_BASE)
PIN_MSR(kernel_gs_base, MSR_KERNEL_GS_BASE)

/* The same tables elsewhere, so that being moved there does no harm */
static struct gate idt2[256] __attribute__((aligned(4096)));
static struct gate idt3[256] __attribute__((aligned(4096)));
static uint64_t gdt2[SEL_TSS / 8 + 2 * MAX_CPUS];

/* --- Segment bases --- */

static void swapgs_gs(uint64_t v)
{
    wrmsr(MSR_KERNEL_GS_BASE, v);
    PIN_ATTACK("swapgs", "a" (0));
}

static void swapgs_kernel(uint64_t v)
{
    wrmsr(MSR_GS_BASE, v);
    PIN_ATTACK("swapgs", "a" (0));
}

PIN_BY_REG(wrfsbase, "wrfsbase %0")
PIN_BY_REG(wrgsbase, "wrgsbase %0")
PIN_BY_REG(wrfsbase32, "wrfsbase %k0")
PIN_BY_REG(wrgsbase32, "wrgsbase %k0")

static USER uint64_t user_wrfsbase(uint64_t v)
{
    asm volatile("wrfsbase %0" : : "a" (v));
    return v;
}

static USER uint64_t user_mov_fs(uint64_t v)
{
    asm volatile("mov %w0, %%fs" : : "a" (v));
    return v;
}

static void wrfsbase_user(uint64_t v)
{
    user(user_wrfsbase, v);
}

/* A data segment with this base, for CPL 0 and 3 */
static unsigned data_segment(uint64_t base)
{
    gdt[SEL_FREE / 8] = 0x00cff3000000ffffull | (base & 0xffffff) << 16 |
                        (base >> 24 & 0xff) << 56;
    return SEL_FREE | 3;
}

static void mov_fs(uint64_t v)
{
    PIN_ATTACK("mov %w0, %%fs", "a" (data_segment(v)));
}

static void mov_gs(uint64_t v)
{
    PIN_ATTACK("mov %w0, %%gs", "a" (data_segment(v)));
}

PIN_BY_REG(mov_fs_null, "mov %w0, %%fs")

static void mov_fs_user(uint64_t v)
{
    user(user_mov_fs, data_segment(v));
}

static void pop_gs(uint64_t v)
{
    asm volatile("lea 1f(%%rip), %%r11; mov %%r11, pin_insn;"
                 "mov $0x1111, %%r8d; mov $0x2222, %%r9d;"
                 "mov $0x3333, %%r10d; push %0; 1: pop %%gs"
                 : : "a" ((uint64_t)data_segment(v))
                 : "r8", "r9", "r10", "r11", "memory");
}

static void lfs(uint64_t v)
{
    static struct {
        uint32_t offset;
        uint16_t sel;
    } __attribute__((packed)) far;

    far.sel = data_segment(v);
    PIN_ATTACK("lfs %0, %%eax", "m" (far), "a" (0));
}

#define BASE_ROW(what, path, msr, name, evil, go)                       \
    { what, path, "msr", msr, PIN_VALUE, 0, GOOD, evil, get_##name,     \
      put_##name, go, 0 }

static const PinRow bases[] = {
    BASE_ROW("SWAPGS, GS_BASE", "SWAPGS", MSR_GS_BASE, gs_base, EVIL,
             swapgs_gs),
    BASE_ROW("SWAPGS, KERNEL_GS_BASE", "SWAPGS", MSR_KERNEL_GS_BASE,
             kernel_gs_base, EVIL, swapgs_kernel),
    BASE_ROW("WRFSBASE", "WRxxBASE", MSR_FS_BASE, fs_base, EVIL, wrfsbase),
    BASE_ROW("WRGSBASE", "WRxxBASE", MSR_GS_BASE, gs_base, EVIL, wrgsbase),
    BASE_ROW("WRFSBASE, 32 bits", "WRxxBASE", MSR_FS_BASE, fs_base, LOW,
             wrfsbase32),
    BASE_ROW("WRGSBASE, 32 bits", "WRxxBASE", MSR_GS_BASE, gs_base, LOW,
             wrgsbase32),
    BASE_ROW("WRFSBASE at CPL 3", "WRxxBASE", MSR_FS_BASE, fs_base, EVIL,
             wrfsbase_user),
    BASE_ROW("MOV FS", "helper_load_seg", MSR_FS_BASE, fs_base, LOW, mov_fs),
    BASE_ROW("MOV GS", "helper_load_seg", MSR_GS_BASE, gs_base, LOW, mov_gs),
    BASE_ROW("MOV FS, null", "helper_load_seg", MSR_FS_BASE, fs_base, 0,
             mov_fs_null),
    BASE_ROW("MOV FS at CPL 3", "helper_load_seg", MSR_FS_BASE, fs_base, LOW,
             mov_fs_user),
    BASE_ROW("POP GS", "helper_load_seg", MSR_GS_BASE, gs_base, LOW, pop_gs),
    BASE_ROW("LFS", "helper_load_seg", MSR_FS_BASE, fs_base, LOW, lfs),
};

/* SWAPGS does both halves, or none */
static void swapgs_whole(void)
{
    static const char *const actions[] = { "fault", "discard" };

    for (unsigned i = 0; i < ARRAY_SIZE(actions); i++) {
        wrmsr(MSR_GS_BASE, GOOD);
        wrmsr(MSR_KERNEL_GS_BASE, EVIL);
        pin(actions[i], 0, "{\"register\": \"msr\", \"index\": %u, "
            "\"value\": %llu}", MSR_GS_BASE, GOOD);
        (void)TRY(asm volatile("swapgs"));
        ok(rdmsr(MSR_GS_BASE) == GOOD && rdmsr(MSR_KERNEL_GS_BASE) == EVIL,
           "SWAPGS, %s: both bases are as before", actions[i]);
        unpin();
    }
    wrmsr(MSR_GS_BASE, 0);
    wrmsr(MSR_KERNEL_GS_BASE, 0);
}

/* --- SVM --- */

static struct l2 plain, nested;
static uint8_t *load_page, *hsave;
static uint64_t view;           /* what a guest saw */
static Fault inner;

static void vmsave(const void *page)
{
    asm volatile("vmsave %0" : : "a" (page) : "memory");
}

static void svm_prepare(void)
{
    svm_init(&plain, false);
    svm_init(&nested, true);
    hsave = (void *)rdmsr(MSR_HSAVE);
    load_page = frame();
}

/* VMLOAD of the present state, but for 8 bytes */
static void vmload(unsigned offset, uint64_t v)
{
    vmsave(load_page);
    write64(load_page + offset, v);
    PIN_ATTACK("vmload %0", "a" (load_page));
}

#define VMLOAD(name, offset)                                            \
static void vmload_##name(uint64_t v)                                   \
{                                                                       \
    vmload(offset, v);                                                  \
}
VMLOAD(fs_base, 0x448)
VMLOAD(gs_base, 0x458)
VMLOAD(star, 0x600)
VMLOAD(lstar, 0x608)
VMLOAD(cstar, 0x610)
VMLOAD(fmask, 0x618)
VMLOAD(kernel_gs_base, 0x620)
VMLOAD(sysenter_cs, 0x628)
VMLOAD(sysenter_esp, 0x630)
VMLOAD(sysenter_eip, 0x638)

#define VMLOAD_ROW(name, msr, good, evil)                               \
    { "VMLOAD, " #msr, "helper_vmload", "msr", msr, PIN_VALUE, 0, good, \
      evil, get_##name, put_##name, vmload_##name, 0 }

static const PinRow vmloads[] = {
    VMLOAD_ROW(fs_base, MSR_FS_BASE, GOOD, EVIL),
    VMLOAD_ROW(gs_base, MSR_GS_BASE, GOOD, EVIL),
    VMLOAD_ROW(star, MSR_STAR, 0x0023001000000000ull, 0x1234567800000000ull),
    VMLOAD_ROW(lstar, MSR_LSTAR, GOOD, EVIL),
    VMLOAD_ROW(cstar, MSR_CSTAR, GOOD, EVIL),
    VMLOAD_ROW(fmask, MSR_FMASK, 0x47700, 0),
    VMLOAD_ROW(kernel_gs_base, MSR_KERNEL_GS_BASE, GOOD, EVIL),
    VMLOAD_ROW(sysenter_cs, MSR_SYSENTER_CS, 0x10, 0x18),
    VMLOAD_ROW(sysenter_esp, MSR_SYSENTER_ESP, GOOD, EVIL),
    VMLOAD_ROW(sysenter_eip, MSR_SYSENTER_EIP, GOOD, EVIL),
};

/* A guest that overwrites what the exit will load as its host's state */
static unsigned exit_offset;

static uint64_t l2_exit(uint64_t v)
{
    if (exit_offset == 0x460 || exit_offset == 0x480) {
        struct dtr d = pin_unpack(v);

        write32(hsave + exit_offset + 4, d.limit);
        write64(hsave + exit_offset + 8, d.base);
    } else {
        write64(hsave + exit_offset, v);
    }
    return v;
}

static void vmexit(unsigned offset, uint64_t v)
{
    exit_offset = offset;
    wrmsr(MSR_HSAVE, (uint64_t)hsave);
    vmsave(plain.vmcb);
    svm_run(&plain, l2_exit, v);
}

#define VMEXIT(name, offset)                                            \
static void vmexit_##name(uint64_t v)                                   \
{                                                                       \
    vmexit(offset, v);                                                  \
}
VMEXIT(cr0, 0x558)
VMEXIT(cr4, 0x548)
VMEXIT(efer, 0x4d0)
VMEXIT(gdt, 0x460)
VMEXIT(idt, 0x480)

/* A VMCB that wants a register otherwise, without nested paging */
static uint64_t l2_cr0(uint64_t unused)
{
    (void)unused;
    view = read_cr0();
    return 0;
}

static uint64_t l2_cr4(uint64_t unused)
{
    (void)unused;
    view = read_cr4();
    return 0;
}

static uint64_t l2_efer(uint64_t unused)
{
    (void)unused;
    view = rdmsr(MSR_EFER);
    return 0;
}

static uint64_t l2_idt(uint64_t unused)
{
    (void)unused;
    view = pin_get_idt();
    return 0;
}

static uint64_t l2_gdt(uint64_t unused)
{
    (void)unused;
    view = pin_get_gdt();
    return 0;
}

static uint64_t l2_nothing(uint64_t unused)
{
    return unused;
}

static void vmrun(unsigned offset, uint64_t v, uint64_t (*fn)(uint64_t))
{
    vmsave(plain.vmcb);
    svm_run(&plain, l2_nothing, 0);     /* fills in the VMCB */
    vmsave(plain.vmcb);
    if (offset == 0x460 || offset == 0x480) {
        struct dtr d = pin_unpack(v);

        VMCB32(&plain, offset + 4) = d.limit;
        VMCB64(&plain, offset + 8) = d.base;
    } else {
        VMCB64(&plain, offset) = v;
    }
    VMCB64(&plain, 0x578) = (uint64_t)svm_guest_entry;
    VMCB64(&plain, 0x5d8) = (uint64_t)plain.stack + PAGE_SIZE * 16 - 16;
    svm_enter((uint64_t)plain.vmcb, fn, 0);
}

#define VMRUN(name, offset, read, write)                                \
static void vmrun_##name(uint64_t v)                                    \
{                                                                       \
    vmrun(offset, v, l2_##name);                                        \
}                                                                       \
static uint64_t view_##name(void)                                       \
{                                                                       \
    return view ? view : read();                                        \
}                                                                       \
static void put_view_##name(uint64_t v)                                 \
{                                                                       \
    view = 0;                                                           \
    write(v);                                                           \
}
VMRUN(cr0, 0x558, read_cr0, write_cr0)
VMRUN(cr4, 0x548, read_cr4, write_cr4)
VMRUN(efer, 0x4d0, get_efer, put_efer)
VMRUN(gdt, 0x460, pin_get_gdt, pin_put_gdt)
VMRUN(idt, 0x480, pin_get_idt, pin_put_idt)

/* --- SMM --- */

#define SAVED   0xa8000         /* SMBASE + 0x8000 */

static unsigned saved_offset;

/* A fault in VMRUN leaves GIF clear, and SMIs pending */
static void in_smm(uint64_t (*fn)(uint64_t), uint64_t v)
{
    asm volatile("stgi");
    smm_run(fn, v);
}

static uint64_t smm_change(uint64_t v)
{
    uint8_t *p = (void *)(uint64_t)(SAVED + saved_offset);

    switch (saved_offset) {
    case 0x7e68:                /* GDT, IDT: the limit is in front */
    case 0x7e88: {
        struct dtr d = pin_unpack(v);

        write32(p - 4, d.limit);
        write64(p, d.base);
        break;
    }
    case 0x7f48:                /* CR4, CR0 */
    case 0x7f58:
        write32(p, v);
        break;
    default:
        write64(p, v);
    }
    return 0;
}

#define SMM(name, offset)                                               \
static void rsm_##name(uint64_t v)                                      \
{                                                                       \
    saved_offset = offset;                                              \
    in_smm(smm_change, v);                                             \
}
SMM(cr0, 0x7f58)
SMM(cr4, 0x7f48)
SMM(efer, 0x7ed0)
SMM(gdt, 0x7e68)
SMM(idt, 0x7e88)
SMM(fs_base, 0x7e48)
SMM(gs_base, 0x7e58)

/* What RSM does not load, the handler can leave behind */
static uint64_t smm_lstar(uint64_t v)
{
    wrmsr(MSR_LSTAR, v);
    return 0;
}

static uint64_t smm_sysenter(uint64_t v)
{
    wrmsr(MSR_SYSENTER_EIP, v);
    return 0;
}

static uint64_t smm_kernel_gs(uint64_t v)
{
    wrmsr(MSR_KERNEL_GS_BASE, v);
    return 0;
}

static void in_smm_lstar(uint64_t v)
{
    in_smm(smm_lstar, v);
}

static void in_smm_sysenter(uint64_t v)
{
    in_smm(smm_sysenter, v);
}

static void in_smm_kernel_gs(uint64_t v)
{
    in_smm(smm_kernel_gs, v);
}

/* --- The rows of both --- */

#define STATE_CR(what, path, cr, bits, go)                              \
    { what, path, #cr, 0, PIN_ONES, bits, 0, 0, read_##cr, write_##cr,  \
      go, PIN_STATE }
#define STATE_EFER(what, path, go)                                      \
    { what, path, "efer", 0, PIN_ONES, EFER_NXE, 0, 0, get_efer,        \
      put_efer, go, PIN_STATE }
#define STATE_MSR(what, path, msr, name, go)                            \
    { what, path, "msr", msr, PIN_VALUE, 0, GOOD, EVIL, get_##name,     \
      put_##name, go, PIN_STATE }

static const PinRow states[] = {
    STATE_CR("#VMEXIT, CR0.WP", "do_vmexit", cr0, CR0_WP, vmexit_cr0),
    STATE_CR("#VMEXIT, CR4.SMEP and UMIP", "do_vmexit", cr4,
             CR4_SMEP | CR4_UMIP, vmexit_cr4),
    STATE_EFER("#VMEXIT, EFER.NXE", "do_vmexit", vmexit_efer),
    { "VMRUN, CR0.WP, without nested paging", "helper_vmrun", "cr0", 0,
      PIN_ONES, CR0_WP, 0, 0, view_cr0, put_view_cr0, vmrun_cr0, 0 },
    { "VMRUN, CR4.SMEP, without nested paging", "helper_vmrun", "cr4", 0,
      PIN_ONES, CR4_SMEP, 0, 0, view_cr4, put_view_cr4, vmrun_cr4, 0 },
    { "VMRUN, EFER.NXE, without nested paging", "helper_vmrun", "efer", 0,
      PIN_ONES, EFER_NXE, 0, 0, view_efer, put_view_efer, vmrun_efer, 0 },
    STATE_CR("RSM, CR0.WP", "helper_rsm", cr0, CR0_WP, rsm_cr0),
    STATE_CR("RSM, CR4.SMEP and UMIP", "helper_rsm", cr4,
             CR4_SMEP | CR4_UMIP, rsm_cr4),
    STATE_EFER("RSM, EFER.NXE", "helper_rsm", rsm_efer),
    STATE_MSR("RSM, FS base", "helper_rsm", MSR_FS_BASE, fs_base,
              rsm_fs_base),
    STATE_MSR("RSM, GS base", "helper_rsm", MSR_GS_BASE, gs_base,
              rsm_gs_base),
    STATE_MSR("WRMSR LSTAR in SMM", "helper_rsm", MSR_LSTAR, lstar,
              in_smm_lstar),
    STATE_MSR("WRMSR SYSENTER_EIP in SMM", "helper_rsm", MSR_SYSENTER_EIP,
              sysenter_eip, in_smm_sysenter),
    STATE_MSR("WRMSR KERNEL_GS_BASE in SMM", "helper_rsm",
              MSR_KERNEL_GS_BASE, kernel_gs_base, in_smm_kernel_gs),
};

/* All of them, in memory that stays as it is */
static PinRow every[64];

static unsigned every_row(void)
{
    uint64_t idt1 = pin_get_idt(), gdt1 = pin_get_gdt();
    uint64_t moved_idt = (uint64_t)idt2 | (idt1 >> 48 << 48);
    uint64_t moved_gdt = (uint64_t)gdt2 | (gdt1 >> 48 << 48);
    unsigned n;

#define TABLE_ROW(what, path, t, get, put, go, flags)                   \
    { what, path, #t "r", 0, PIN_TABLE, 0, t##1, moved_##t, get, put,   \
      go, flags }
    const PinRow tables[] = {
        TABLE_ROW("#VMEXIT, GDTR", "do_vmexit", gdt, pin_get_gdt,
                  pin_put_gdt, vmexit_gdt, PIN_STATE),
        TABLE_ROW("#VMEXIT, IDTR", "do_vmexit", idt, pin_get_idt,
                  pin_put_idt, vmexit_idt, PIN_STATE),
        TABLE_ROW("VMRUN, GDTR, without nested paging", "helper_vmrun", gdt,
                  view_gdt, put_view_gdt, vmrun_gdt, 0),
        TABLE_ROW("VMRUN, IDTR, without nested paging", "helper_vmrun", idt,
                  view_idt, put_view_idt, vmrun_idt, 0),
        TABLE_ROW("RSM, GDTR", "helper_rsm", gdt, pin_get_gdt, pin_put_gdt,
                  rsm_gdt, PIN_STATE),
        TABLE_ROW("RSM, IDTR", "helper_rsm", idt, pin_get_idt, pin_put_idt,
                  rsm_idt, PIN_STATE),
    };

    memcpy(idt2, idt, sizeof(idt2));
    memcpy(gdt2, gdt, gdt_ptr.limit + 1);
    memcpy(every, bases, sizeof(bases));
    n = ARRAY_SIZE(bases);
    memcpy(every + n, vmloads, sizeof(vmloads));
    n += ARRAY_SIZE(vmloads);
    memcpy(every + n, states, sizeof(states));
    n += ARRAY_SIZE(states);
    memcpy(every + n, tables, sizeof(tables));
    return n + ARRAY_SIZE(tables);
}

/* Its VMRUN checks nothing: only the exit does */
static void nested_exit(uint64_t v)
{
    wrmsr(MSR_HSAVE, (uint64_t)hsave);
    vmsave(nested.vmcb);
    svm_run(&nested, l2_exit, v);
}

/*
 * After 'report', or 'pause' and 'cont', the register keeps what was let
 * through; saved state has no other value either.
 */
static void let_through(void)
{
    uint64_t cr4 = read_cr4() | CR4_SMEP | CR4_SMAP | CR4_UMIP;
    uint64_t idt1 = pin_get_idt(), limit = idt1 >> 48 << 48;
    uint64_t moved = (uint64_t)idt2 | limit, other = (uint64_t)idt3 | limit;
    PinSeen s;

    wrmsr(MSR_LSTAR, GOOD);
    pin("report", 0, "{\"register\": \"msr\", \"index\": %u, \"value\": "
        "%llu}", MSR_LSTAR, GOOD);
    wrmsr(MSR_LSTAR, EVIL);
    ok(pin_seen().events == 1, "report: LSTAR is changed, and told");
    vmload(0x608, EVIL);
    ok(pin_none(pin_seen(), "let"), "VMLOAD of what it is then is not told");
    vmload(0x608, EVIL + 8);
    s = pin_seen();
    ok(rdmsr(MSR_LSTAR) == EVIL + 8 && s.events == 1 &&
       s.attempted == EVIL + 8 && !strcmp(s.action, "report"),
       "VMLOAD of another LSTAR is: 0x%lx, %d events", rdmsr(MSR_LSTAR),
       s.events);
    unpin();

    memcpy(idt2, idt, sizeof(idt2));
    memcpy(idt3, idt, sizeof(idt3));
    pin("pause", 1, "{\"register\": \"idtr\", \"value\": %lu, \"limit\": "
        "%u}", idt_ptr.base, idt_ptr.limit);
    pin_put_idt(moved);
    ok(pin_get_idt() == moved && pin_seen().events == 1,
       "pause and cont: the IDT is moved, and told");
    exit_offset = 0x480;
    nested_exit(moved);
    ok(pin_get_idt() == moved && pin_none(pin_seen(), "let"),
       "#VMEXIT leaves it there");
    nested_exit(other);
    s = pin_seen();
    ok(pin_get_idt() == idt1 && s.events == 1 && !strcmp(s.action, "discard"),
       "but moves it nowhere else: 0x%lx, %d events", pin_get_idt(),
       s.events);
    nested_exit(moved);
    s = pin_seen();
    ok(pin_get_idt() == idt1 && s.events == 1,
       "'cont' was for once: 0x%lx, %d events", pin_get_idt(), s.events);
    unpin();

    for (int i = 0; i < 2; i++) {
        bool report = i;

        write_cr4(cr4);
        pin(report ? "report" : "pause", 1, "{\"register\": \"cr4\", "
            "\"ones\": %llu}", CR4_SMEP | CR4_SMAP | CR4_UMIP);
        write_cr4(cr4 & ~CR4_UMIP);
        ok(!(read_cr4() & CR4_UMIP) && pin_seen().events == 1,
           "%s: UMIP goes", report ? "report" : "pause and cont");
        rsm_cr4(cr4 & ~CR4_UMIP);
        ok(!(read_cr4() & CR4_UMIP) && pin_none(pin_seen(), "let"),
           "RSM leaves it so");
        rsm_cr4(cr4 & ~(CR4_SMEP | CR4_SMAP | CR4_UMIP));
        s = pin_seen();
        ok(s.events == 1 && !(read_cr4() & CR4_SMEP) == report &&
           !strcmp(s.action, report ? "report" : "discard"),
           "RSM without SMEP: CR4 0x%lx, %d events, %s", read_cr4(),
           s.events, s.action);
        unpin();
    }
    write_cr4(cr4 & ~(CR4_SMEP | CR4_SMAP | CR4_UMIP));
}

/*
 * A host save area without paging, in which LME without PAE would make the
 * CPU ignore that paging is switched on.
 */
static uint64_t l2_unpaged(uint64_t v)
{
    write64(hsave + 0x558, v);          /* CR0 */
    write64(hsave + 0x548, read_cr4() & ~CR4_PAE);
    write64(hsave + 0x4d0, EFER_LME | EFER_SVME);
    return v;
}

static void unpaged(void)
{
    uint64_t cr0 = read_cr0(), cr4 = read_cr4(), efer = rdmsr(MSR_EFER);
    PinSeen s;

    pin("fault", 0, "{\"register\": \"cr0\", \"ones\": %llu}",
        CR0_PG | CR0_WP);
    wrmsr(MSR_HSAVE, (uint64_t)hsave);
    vmsave(plain.vmcb);
    svm_run(&plain, l2_unpaged, cr0 & ~(CR0_PG | CR0_WP));
    s = pin_seen();
    ok(read_cr0() == cr0 && s.events == 1 && !strcmp(s.reg, "cr0") &&
       s.old == cr0 && !strcmp(s.action, "discard"),
       "#VMEXIT without PG, WP and PAE: CR0 0x%lx, CR4 0x%lx, EFER 0x%lx, "
       "%d events", read_cr0(), read_cr4(), rdmsr(MSR_EFER), s.events);
    ok(rdmsr(MSR_EFER) & EFER_LMA && read_cr4() & CR4_PAE,
       "and long mode with it");
    unpin();
    write_cr4(cr4);
    wrmsr(MSR_EFER, efer);

    pin("fault", 0, "{\"register\": \"efer\", \"ones\": %llu}",
        EFER_LMA);
    svm_run(&plain, l2_unpaged, cr0 & ~CR0_PG);
    s = pin_seen();
    ok(rdmsr(MSR_EFER) & EFER_LMA && read_cr0() & CR0_PG && s.events == 1,
       "the same with LMA pinned: EFER 0x%lx, %d events", rdmsr(MSR_EFER),
       s.events);
    unpin();
    write_cr4(cr4);
    write_cr0(cr0);
    wrmsr(MSR_EFER, efer);
}

/* One instruction that violates more pins than there are kinds of registers */
static void many_pauses(void)
{
    static const struct {
        uint32_t msr;
        uint64_t good;
    } all[] = {
        { MSR_STAR, 0x0023001000000000ull }, { MSR_LSTAR, GOOD },
        { MSR_CSTAR, GOOD }, { MSR_FMASK, 0x47700 },
        { MSR_SYSENTER_ESP, GOOD }, { MSR_SYSENTER_EIP, GOOD },
        { MSR_KERNEL_GS_BASE, GOOD },
    };
    unsigned n = ARRAY_SIZE(all);
    PinSeen s;

    vmsave(load_page);
    memset(load_page + 0x600, 0, 0x40);
    for (unsigned i = 0; i < n; i++) {
        wrmsr(all[i].msr, all[i].good);
    }
    pin("pause", n + 5, "{\"register\": \"msr\", \"index\": %u, \"value\": "
        "%lu}", all[0].msr, all[0].good);
    for (unsigned i = 1; i < n; i++) {
        pin_more("{\"action\": \"pause\"}", "{\"register\": \"msr\", "
                 "\"index\": %u, \"value\": %lu}", all[i].msr, all[i].good);
    }
    asm volatile("vmload %0" : : "a" (load_page) : "memory");
    s = unpin();
    ok(s.stops == (int)n && s.counted == (int)n && rdmsr(MSR_LSTAR) != GOOD,
       "VMLOAD that violates %u pins goes on after as many stops: %d", n,
       s.stops);
}

/*
 * A pin without a value comes while the CPU is in an SVM guest, or in SMM: it
 * is for what the CPU had at that moment, not for what is left behind there.
 */
static uint64_t pin_inside(uint64_t v)
{
    pin_put_idt(v);
    pin("fault", 0, "{\"register\": \"msr\", \"index\": %u}, {\"register\": "
        "\"idtr\"}", MSR_LSTAR);
    wrmsr(MSR_LSTAR, EVIL);
    return 0;
}

static void pinned_inside(void)
{
    uint64_t idt1 = pin_get_idt();
    uint64_t moved = (uint64_t)idt2 | (idt1 >> 48 << 48);
    PinSeen s;

    memcpy(idt2, idt, sizeof(idt2));
    for (int i = 0; i < 2; i++) {
        const char *where = i ? "SMM" : "an SVM guest";

        wrmsr(MSR_LSTAR, GOOD);
        if (i) {
            smm_run(pin_inside, moved);
        } else {
            wrmsr(MSR_HSAVE, (uint64_t)hsave);
            vmsave(nested.vmcb);
            svm_run(&nested, pin_inside, moved);
        }
        s = pin_seen();
        ok(rdmsr(MSR_LSTAR) == GOOD && s.events == 1 && !strcmp(s.reg, "msr"),
           "pinned in %s: LSTAR 0x%lx, %d events", where, rdmsr(MSR_LSTAR),
           s.events);
        expect(TRY(pin_put_idt(moved)), GP, 0, "and LIDT");
        expect(TRY(wrmsr(MSR_LSTAR, EVIL)), GP, 0, "and WRMSR");
        ok(pin_get_idt() == idt1, "the IDT is where it was: 0x%lx",
           pin_get_idt());
        unpin();
    }
}

/* --- An SVM guest that writes by itself --- */

static uint64_t l2_clear_wp(uint64_t v)
{
    inner = TRY(write_cr0(v));
    view = read_cr0();
    return 0;
}

static uint64_t l2_clear_smep(uint64_t v)
{
    inner = TRY(write_cr4(v));
    view = read_cr4();
    return 0;
}

static uint64_t l2_write_lstar(uint64_t v)
{
    inner = TRY(wrmsr(MSR_LSTAR, v));
    view = rdmsr(MSR_LSTAR);
    return 0;
}

static uint64_t l2_lidt(uint64_t v)
{
    inner = TRY(pin_put_idt(v));
    view = pin_get_idt();
    return 0;
}

static void l2_tries(void)
{
    uint64_t cr0 = read_cr0(), cr4 = read_cr4() | CR4_SMEP;
    uint64_t idt1 = pin_get_idt();
    const struct {
        const char *name, *reg;
        uint64_t (*fn)(uint64_t);
        uint64_t good, evil;
    } all[] = {
        { "MOV CR0", "cr0", l2_clear_wp, cr0, cr0 & ~CR0_WP },
        { "MOV CR4", "cr4", l2_clear_smep, cr4, cr4 & ~CR4_SMEP },
        { "WRMSR LSTAR", "msr", l2_write_lstar, GOOD, EVIL },
        { "LIDT", "idtr", l2_lidt, idt1,
          (uint64_t)idt2 | (idt1 >> 48 << 48) },
    };

    wrmsr(MSR_LSTAR, GOOD);
    write_cr4(cr4);
    vmsave(plain.vmcb);
    vmsave(nested.vmcb);
    pin("fault", 0, "{\"register\": \"cr0\", \"ones\": %llu}, {\"register\": "
        "\"cr4\", \"ones\": %llu}, {\"register\": \"msr\", \"index\": %u, "
        "\"value\": %llu}, {\"register\": \"idtr\", \"value\": %lu, "
        "\"limit\": %u}", CR0_WP, CR4_SMEP, MSR_LSTAR, GOOD, idt_ptr.base,
        idt_ptr.limit);
    for (unsigned i = 0; i < ARRAY_SIZE(all); i++) {
        PinSeen s;

        svm_run(&plain, all[i].fn, all[i].evil);
        s = pin_seen();
        ok(inner.vec == GP && !inner.err && view == all[i].good &&
           s.events == 1 && !strcmp(s.reg, all[i].reg) &&
           plain.exit_code == SVM_EXIT_VMMCALL,
           "%s in an SVM guest with our page tables: %s", all[i].name,
           fault_text(inner));
        /* One under nested paging has its own, but leaves nothing behind */
        vmsave(nested.vmcb);
        svm_run(&nested, all[i].fn, all[i].evil);
        ok(nested.exit_code == SVM_EXIT_VMMCALL,
           "%s in a guest under nested paging: it runs on (%s, 0x%lx)",
           all[i].name, fault_text(inner), view);
        if (strcmp(all[i].reg, "msr")) {
            ok(inner.vec == NONE && view == all[i].evil,
               "%s under nested paging is the guest's own affair",
               all[i].name);
        }
        ok(read_cr0() == cr0 && read_cr4() == cr4 &&
           rdmsr(MSR_LSTAR) == GOOD && pin_get_idt() == idt1,
           "%s under nested paging: its host's registers are as pinned",
           all[i].name);
        pin_seen();
    }
    unpin();
    write_cr4(cr4 & ~CR4_SMEP);
}

/* --- Task switch: legacy protected mode with PAE paging --- */

static Space task_space;
static uint8_t *task_code;
static struct tss32 *task[2];
static unsigned task_fs;

/* Returns CR0 in the new task, or -1 if it did not run */
static uint64_t task_switch(bool gate)
{
    static const uint8_t code[] = {
        0x89, 0x25, 0, 0, 0, 0,                 /* mov %esp, saved */
        0x89, 0x1d, 0, 0, 0, 0,                 /* mov %ebx, saved */
        0x9a, 0, 0, 0, 0, SEL_FREE, 0,          /* lcall $SEL_FREE, $0 */
        0x8b, 0x25, 0, 0, 0, 0,                 /* the new task */
        0x8b, 0x1d, 0, 0, 0, 0,
        0x0f, 0x20, 0xc0,                       /* mov %cr0, %eax */
        0xc3,                                   /* ret */
    };
    struct mode32 m = { .kind = M32_READ, .addr = 0x100000 };

    if (!task_code) {
        task_space = pae_space();
        pae_access(&task_space, &m);            /* makes the first TSS */
        task_code = frame();
        memcpy(task_code, code, sizeof(code));
        write32(task_code + 2, (uint32_t)(uint64_t)task_code + 256);
        write32(task_code + 8, (uint32_t)(uint64_t)task_code + 260);
        write32(task_code + 21, (uint32_t)(uint64_t)task_code + 256);
        write32(task_code + 27, (uint32_t)(uint64_t)task_code + 260);
        task[0] = frame();
        task[1] = frame();
    }
    *task[0] = (struct tss32) { .cr3 = task_space.root,
                                .eip = 0x5a5a5a5a };
    *task[1] = (struct tss32) {
        .cr3 = task_space.root, .eip = (uint32_t)(uint64_t)task_code + 19,
        .eflags = 2, .esp = (uint32_t)(uint64_t)task_code + 2048,
        .es = SEL_DATA, .cs = SEL_CODE32, .ss = SEL_DATA, .ds = SEL_DATA,
        .fs = task_fs,
    };
    set_tss32(gdt, SEL_TSS32, task[0]);
    set_tss32(gdt, SEL_FREE, task[1]);
    if (gate) {
        m32_idt[0x81] = SEL_FREE << 16 | 0x85ull << 40;
        memcpy(task_code + 12, "\xcd\x81\x90\x90\x90\x90\x90", 7);
    } else {
        memcpy(task_code + 12, code + 12, 7);
    }
    m = (struct mode32) { .kind = M32_FETCH,
                          .addr = (uint32_t)(uint64_t)task_code };
    inner = pae_access(&task_space, &m);
    return inner.vec == NONE ? m.result : ~0ull;
}

static void task_switches(void)
{
    static const char *const actions[] = { "report", "discard", "fault",
                                           "pause" };
    uint64_t cr0 = task_switch(false);

    ok(inner.vec == NONE && cr0 & CR0_TS, "a task switch sets CR0.TS: %s, "
       "0x%lx", fault_text(inner), cr0);
    write_cr0(read_cr0() & ~CR0_TS);
    for (unsigned i = 0; i < ARRAY_SIZE(actions); i++) {
        bool set = i == 0 || i == 3, good;
        PinSeen s;

        pin(actions[i], 9, "{\"register\": \"cr0\", \"zeros\": %llu}",
            CR0_TS);
        cr0 = task_switch(false);
        s = pin_seen();
        if (i == 2) {
            good = inner.vec == GP && !inner.err &&
                   inner.rip == (uint64_t)task_code + 12 &&
                   !(read_cr0() & CR0_TS);
        } else {
            good = inner.vec == NONE && !!(cr0 & CR0_TS) == set;
        }
        /* MOV CR0 that keeps it, once it is set, is no other violation */
        ok(good && s.events == 1 && !strcmp(s.reg, "cr0") &&
           s.attempted & CR0_TS && !(s.old & CR0_TS) &&
           !strcmp(s.action, actions[i]),
           "a task switch, TS held at zero, %s: %s, CR0 0x%lx, %d events",
           actions[i], fault_text(inner), cr0, s.events);
        unpin();
        write_cr0(read_cr0() & ~CR0_TS);
    }

    /* By a task gate there is no instruction to fault at */
    cr0 = task_switch(true);
    ok(inner.vec == NONE && cr0 & CR0_TS, "INT with a task gate does, too: "
       "%s, 0x%lx", fault_text(inner), cr0);
    write_cr0(read_cr0() & ~CR0_TS);
    for (unsigned i = 0; i < ARRAY_SIZE(actions); i++) {
        bool set = i == 0;
        PinSeen s;

        pin(actions[i], 9, "{\"register\": \"cr0\", \"zeros\": %llu}",
            CR0_TS);
        cr0 = task_switch(true);
        s = pin_seen();
        ok(inner.vec == NONE && !!(cr0 & CR0_TS) == set && s.events == 1 &&
           !strcmp(s.action, i == 2 ? "discard" : actions[i]) &&
           s.stops == (i == 3),
           "a task gate, TS held at zero, %s: %s, CR0 0x%lx, %d events, %s",
           actions[i], fault_text(inner), cr0, s.events, s.action);
        unpin();
        write_cr0(read_cr0() & ~CR0_TS);
    }
}

/* --- FS in legacy modes --- */

static Fault vm86(const char *code, unsigned n)
{
    struct mode32 m = { .kind = M32_FETCH, .cpl = 3, .addr = 0x9000,
                        .eflags = 1 << 17 | 3 << 12 };

    /* A task switch has taken its place */
    set_tss32(gdt, SEL_TSS32, &m32_tss);
    memcpy((void *)0x9000, code, n);
    return pae_access(&task_space, &m);
}

/*
 * A task switch, IRET to vm86 and an interrupt out of it load FS with other
 * things that can't be undone: there its base is kept, whatever the action.
 */
static void legacy_fs(void)
{
    static const char nop[] = "\x90\xcd\x80";
    static const char mov[] = "\xb8\x34\x12\x8e\xe0\x90\xcd\x80";
    PinSeen s;

    *space_entry(&task_space, 0, LEVEL_2M) |= PTE_U;
    wrmsr(MSR_FS_BASE, LOW);
    (void)vm86(nop, 3);
    ok(rdmsr(MSR_FS_BASE) == 0, "IRET to vm86 clears the base of FS");
    wrmsr(MSR_FS_BASE, LOW);
    task_switch(false);
    ok(rdmsr(MSR_FS_BASE) == 0, "a task switch loads FS");
    write_cr0(read_cr0() & ~CR0_TS);
    wrmsr(MSR_FS_BASE, LOW);
    pin("fault", 0, "{\"register\": \"msr\", \"index\": %u, \"value\": "
        "%llu}", MSR_FS_BASE, LOW);
    (void)vm86(nop, 3);
    s = pin_seen();
    ok(rdmsr(MSR_FS_BASE) == LOW && s.events == 2 &&
       !strcmp(s.action, "discard"),
       "pinned: vm86 and back leave it: 0x%lx, %d events, %s",
       rdmsr(MSR_FS_BASE), s.events, s.action);
    inner = vm86(mov, 8);
    s = pin_seen();
    ok(inner.vec == GP && !inner.err && inner.rip == 3 &&
       rdmsr(MSR_FS_BASE) == LOW && s.events == 3,
       "pinned: MOV FS in vm86: %s, 0x%lx, %d events", fault_text(inner),
       rdmsr(MSR_FS_BASE), s.events);
    task_switch(false);
    s = pin_seen();
    ok(inner.vec == NONE && rdmsr(MSR_FS_BASE) == LOW && s.events == 1 &&
       !strcmp(s.action, "discard"),
       "pinned: a task switch leaves it: %s, 0x%lx, %d events, %s",
       fault_text(inner), rdmsr(MSR_FS_BASE), s.events, s.action);
    unpin();
    write_cr0(read_cr0() & ~CR0_TS);

    /* FS has no base between the selectors and the descriptors */
    gdt[SEL_FREE / 8 + 1] = 0x00cf93000000ffffull |
                            (LOW & 0xffffff) << 16 | LOW >> 24 << 56;
    task_fs = SEL_FREE + 8;
    wrmsr(MSR_FS_BASE, 2 * LOW);
    pin("fault", 0, "{\"register\": \"msr\", \"index\": %u, \"value\": 0}",
        MSR_FS_BASE);
    task_switch(false);
    s = unpin();
    ok(inner.vec == NONE && rdmsr(MSR_FS_BASE) == LOW && s.events == 0,
       "a pin that waits for 0 goes on waiting in a task switch: %s, 0x%lx, "
       "%d events", fault_text(inner), rdmsr(MSR_FS_BASE), s.events);
    task_fs = 0;
    write_cr0(read_cr0() & ~CR0_TS);
    wrmsr(MSR_FS_BASE, 0);
}

/* --- An IDT that stays as it is --- */

struct fw_dma {
    uint32_t control, length;
    uint64_t address;
} __attribute__((aligned(16)));

/* fw_cfg writes its signature to @to; false if it tells of an error */
static bool device_writes(void *to)
{
    static struct fw_dma dma;
    uint64_t a = (uint64_t)&dma;

    write32(&dma.control, __builtin_bswap32(0 << 16 | 8 | 2));
    write32(&dma.length, __builtin_bswap32(4));
    write64(&dma.address, __builtin_bswap64((uint64_t)to));
    outl(0x514, __builtin_bswap32(a >> 32));
    outl(0x518, __builtin_bswap32(a));
    while (__builtin_bswap32(read32(&dma.control)) & ~1u) {
        pause();
    }
    return !read32(&dma.control);
}

static uint64_t smm_store(uint64_t p)
{
    inner = TRY(write64((void *)p, 0));
    return 0;
}

static uint64_t l2_store(uint64_t p)
{
    inner = TRY(write64((void *)p, 0));
    return 0;
}

static void sealed_idt(void)
{
    static struct gate copy[256];
    struct gate *g = &idt[0x90];
    uint64_t *alias = map(idt, PTE_RW);
    uint64_t *slot = alias + (uint64_t)(g - idt) * 2;
    struct dtr moved = { sizeof(idt2) - 1, (uint64_t)idt2 };
    uint64_t idt1 = pin_get_idt();
    Seen seen;
    PinSeen s;

    /* All of it works while nothing is protected */
    memcpy(copy, idt, sizeof(copy));
    write64(slot, 0x1111);
    ok(*(uint64_t *)g == 0x1111, "not protected: a gate can be written");
    ok(device_writes(g) && !memcmp(g, "QEMU", 4),
       "not protected: a device can write it");
    asm volatile("lidt %0" : : "m" (moved));
    ok(pin_get_idt() != idt1, "not protected: the IDT can be moved");
    pin_put_idt(idt1);
    memcpy(idt, copy, sizeof(copy));

    pin("fault", 0, "{\"register\": \"idtr\", \"value\": %lu, \"limit\": "
        "%u}", idt_ptr.base, idt_ptr.limit);
    arm((uint64_t)idt, sizeof(idt), "read", "fault", 0);
    expect(TRY(write64(g, 0)), GP, 0, "sealed: a store");
    expect(TRY(write64(slot, 0)), GP, 0, "sealed: a store by an alias");
    expect(TRY(asm volatile("xor %%eax, %%eax; xchg %%rax, %0"
                            : "+m" (*slot) : : "rax")), GP, 0,
           "sealed: XCHG");
    expect(TRY(memset(slot, 0, 16)), GP, 0, "sealed: REP STOSB");
    expect(TRY(asm volatile("xchg %0, %%rsp; push $0; xchg %0, %%rsp"
                            : : "r" (slot + 1) : "memory")), GP, 0,
           "sealed: PUSH");
    expect(TRY(asm volatile("sgdt %0" : "=m" (*slot))), GP, 0,
           "sealed: SGDT into it");
    ok(!device_writes(g), "sealed: a device is told of an error");
    smm_run(smm_store, (uint64_t)g);
    expect(inner, GP, 0, "sealed: a store in SMM");
    svm_run(&nested, l2_store, (uint64_t)g);
    expect(inner, GP, 0, "sealed: a store of a guest under nested paging");
    seen = seen_so_far();
    ok(seen.counted == 9, "nine violations of memory: %d", seen.counted);
    expect(TRY(asm volatile("lidt %0" : : "m" (moved))), GP, 0,
           "sealed: LIDT to another place");
    moved = (struct dtr) { 31 * 16 - 1, idt_ptr.base };
    expect(TRY(asm volatile("lidt %0" : : "m" (moved))), GP, 0,
           "sealed: LIDT with a smaller limit");
    s = pin_seen();
    ok(s.events == 2, "two violations of the register: %d", s.events);
    ok(!memcmp(idt, copy, sizeof(copy)) && pin_get_idt() == idt1,
       "sealed: the IDT is as it was");
    expect(TRY(asm volatile("ud2")), UD, 0, "sealed: exceptions work");
    disarm();
    unpin();
    expect_none(TRY(write64(g, 0)), "not protected any more: a store");
    memcpy(idt, copy, sizeof(copy));
}

/*
 * A pinned IDTR holds a linear address.  Whoever writes the page tables can
 * have another table there, so that the entries want to be protected too.
 */
static void remapped_idt(void)
{
    struct gate *seen = map(idt, PTE_P);
    uint64_t *pte = entry(seen, LEVEL_4K), home = *pte;
    uint64_t other = (home & ~0xffffffffff000ull) | (uint64_t)idt2;
    uint64_t line = (uint64_t)pte & -(uint64_t)SUBPAGE;
    uint64_t idt1 = pin_get_idt();
    struct dtr there = { sizeof(idt2) - 1, (uint64_t)seen };

    /* #UD is taken for another exception there */
    memcpy(idt2, idt, sizeof(idt2));
    idt2[UD] = idt[BR];
    asm volatile("lidt %0" : : "m" (there));
    pin("fault", 0, "{\"register\": \"idtr\", \"value\": %lu, \"limit\": "
        "%u}", there.base, there.limit);
    arm((uint64_t)idt, sizeof(idt), "read", "fault", 0);
    expect(TRY(asm volatile("ud2")), UD, 0, "pinned and protected: #UD");
    set_entry(seen, LEVEL_4K, other);
    expect(TRY(asm volatile("ud2")), BR, 0,
           "page tables not protected: the pinned address has another IDT");
    set_entry(seen, LEVEL_4K, home);
    flush_tlb();
    expect(TRY(asm volatile("ud2")), UD, 0, "put back");
    arm_more(line, SUBPAGE, "read", "fault");
    expect(TRY(write64(pte, other)), GP, 0, "the entry protected: a store");
    flush_tlb();
    expect(TRY(asm volatile("ud2")), UD, 0,
           "the entry protected: the IDT is where it was");
    disarm();
    unpin();
    expect_none(TRY(write64(pte, home)), "not protected any more: a store");
    pin_put_idt(idt1);
}

/* --- CPUs that write all the time --- */

static struct {
    uint64_t tries, msr, cr0, cr4, table, fs, gs, pad;
} counters[MAX_CPUS] __attribute__((aligned(64)));
static bool enough;

/* What is evil is counted if it is seen to be in force */
static void writer(void *unused)
{
    unsigned me = this_cpu();
    uint64_t cr0 = read_cr0() & ~(CR0_AM | CR0_TS);
    uint64_t cr4 = read_cr4() | CR4_SMEP | CR4_FSGSBASE;
    struct dtr home = idt_ptr, moved = { sizeof(idt2) - 1, (uint64_t)idt2 };
    struct dtr gdt_home = gdt_ptr, gdt_moved = { gdt_ptr.limit,
                                                 (uint64_t)gdt2 };

    (void)unused;
    while (!__atomic_load_n(&enough, __ATOMIC_RELAXED)) {
        wrmsr(MSR_LSTAR, GOOD);
        write_cr0(cr0);
        write_cr4(cr4);
        asm volatile("lidt %0" : : "m" (home));
        asm volatile("lgdt %0" : : "m" (gdt_home));
        asm volatile("wrfsbase %0" : : "r" (GOOD));
        asm volatile("wrgsbase %0" : : "r" (GOOD));
        wrmsr(MSR_LSTAR, EVIL);
        counters[me].msr += rdmsr(MSR_LSTAR) != GOOD;
        write_cr0(cr0 | CR0_AM);
        counters[me].cr0 += !!(read_cr0() & CR0_AM);
        asm volatile("lmsw %w0" : : "r" (cr0 | CR0_TS));
        counters[me].cr0 += !!(read_cr0() & CR0_TS);
        write_cr4(cr4 & ~CR4_SMEP);
        counters[me].cr4 += !(read_cr4() & CR4_SMEP);
        asm volatile("lidt %0" : : "m" (moved));
        counters[me].table += (pin_get_idt() & 0xffffffff) != home.base;
        asm volatile("lgdt %0" : : "m" (gdt_moved));
        counters[me].table += (pin_get_gdt() & 0xffffffff) != gdt_home.base;
        asm volatile("wrfsbase %0" : : "r" (EVIL));
        counters[me].fs += rdmsr(MSR_FS_BASE) != GOOD;
        asm volatile("mov %w0, %%fs" : : "r" (0));
        counters[me].fs += rdmsr(MSR_FS_BASE) != GOOD;
        wrmsr(MSR_KERNEL_GS_BASE, EVIL);
        asm volatile("swapgs");
        counters[me].gs += rdmsr(MSR_GS_BASE) != GOOD;
        __atomic_store_n(&counters[me].tries, counters[me].tries + 1,
                         __ATOMIC_RELEASE);
    }
}

static void race(void)
{
    const char *r;

    memcpy(idt2, idt, sizeof(idt2));
    memcpy(gdt2, gdt, gdt_ptr.limit + 1);
    for (unsigned i = 1; i < cpus(); i++) {
        on_cpu(i, writer, NULL);
    }
    /* CPU 0 asks, and so does not write */
    r = host("call", "{\"name\": \"race\", \"counters\": %lu, \"stride\": "
             "%lu, \"cpus\": %u, \"rounds\": 25, \"registers\": ["
             "{\"register\": \"msr\", \"index\": %u, \"value\": %llu}, "
             "{\"register\": \"msr\", \"index\": %u, \"value\": %llu}, "
             "{\"register\": \"msr\", \"index\": %u, \"value\": %llu}, "
             "{\"register\": \"cr0\", \"zeros\": %llu}, "
             "{\"register\": \"cr4\", \"ones\": %llu}, "
             "{\"register\": \"gdtr\", \"value\": %lu, \"limit\": %u}, "
             "{\"register\": \"idtr\", \"value\": %lu, \"limit\": %u}]}",
             (uint64_t)counters, sizeof(counters[0]), cpus(), MSR_LSTAR, GOOD,
             MSR_FS_BASE, GOOD, MSR_GS_BASE, GOOD, CR0_AM | CR0_TS, CR4_SMEP,
             gdt_ptr.base, gdt_ptr.limit, idt_ptr.base, idt_ptr.limit);
    __atomic_store_n(&enough, true, __ATOMIC_RELEASE);
    ok(json_number(r, "rounds", 0) > 0 && json_is(r, "pinned", "0"),
       "pinned on %u CPUs that write: nothing gets through: %s", cpus(), r);
    ok(json_number(r, "free", 0) >= json_number(r, "rounds", 1),
       "unpinned, it does");
    ok(json_is(r, "refused", "0"), "each register-pin is taken");
}

/*
 * An image that changes while it is looked at: what was checked and what is
 * loaded are not the same.
 */
#define FACES   20000

static struct {
    uint64_t *at, good, evil;
    bool enough;
} faces;

static void flip(void *unused)
{
    (void)unused;
    while (!__atomic_load_n(&faces.enough, __ATOMIC_RELAXED)) {
        write64(faces.at, faces.evil);
        write64(faces.at, faces.good);
    }
}

static void flip_start(void *at, uint64_t good, uint64_t evil)
{
    faces.at = at;
    faces.good = good;
    faces.evil = evil;
    faces.enough = false;
    on_cpu(1, flip, NULL);
}

static void flip_end(void)
{
    __atomic_store_n(&faces.enough, true, __ATOMIC_RELEASE);
    wait_cpu(1);
}

/* On a busy host the other CPU may take its time to begin */
static bool more_faces(int i, unsigned refused, unsigned taken)
{
    return i < FACES || ((!refused || !taken) && i < 50 * FACES);
}

static void vmload_page(void *unused)
{
    (void)unused;
    asm volatile("vmload %0" : : "a" (load_page) : "memory");
}

static void vmrun_plain(void *unused)
{
    (void)unused;
    VMCB64(&plain, 0x578) = (uint64_t)svm_guest_entry;
    VMCB64(&plain, 0x5d8) = (uint64_t)plain.stack + PAGE_SIZE * 16 - 16;
    svm_enter((uint64_t)plain.vmcb, l2_cr0, 0);
}

static void two_faced(void)
{
    unsigned refused = 0, taken = 0, wrong = 0;
    uint64_t cr0 = read_cr0();

    svm_prepare();
    wrmsr(MSR_LSTAR, GOOD);
    vmsave(load_page);
    pin("fault", 0, "{\"register\": \"msr\", \"index\": %u, \"value\": "
        "%llu}, {\"register\": \"cr0\", \"ones\": %llu}", MSR_LSTAR, GOOD,
        CR0_WP);
    flip_start(load_page + 0x608, GOOD, EVIL);
    for (int i = 0; more_faces(i, refused, taken); i++) {
        if (try_call(vmload_page, NULL).vec == GP) {
            refused++;
        } else {
            taken++;
        }
        wrong += rdmsr(MSR_LSTAR) != GOOD;
    }
    flip_end();
    ok(!wrong && refused && taken, "VMLOAD of an LSTAR that changes: %u "
       "refused, %u taken, %u wrong", refused, taken, wrong);

    refused = taken = wrong = 0;
    vmsave(plain.vmcb);
    svm_run(&plain, l2_cr0, 0);
    vmsave(plain.vmcb);
    flip_start(plain.vmcb + 0x558, cr0, cr0 & ~CR0_WP);
    for (int i = 0; more_faces(i, refused, taken); i++) {
        view = 0;
        if (try_call(vmrun_plain, NULL).vec == GP) {
            refused++;
        } else {
            taken += view != 0;
            wrong += view && !(view & CR0_WP);
        }
        wrong += !(read_cr0() & CR0_WP);
    }
    flip_end();
    ok(!wrong && refused && taken, "VMRUN with a CR0 that changes: %u "
       "refused, %u run, %u wrong", refused, taken, wrong);

    /* What the exit loads has no instruction before it to refuse */
    wrong = 0;
    VMCB64(&plain, 0x558) = cr0;
    flip_start(hsave + 0x558, cr0, cr0 & ~CR0_WP);
    for (int i = 0; i < FACES; i++) {
        VMCB64(&plain, 0x558) = cr0;
        vmrun_plain(NULL);
        wrong += !(read_cr0() & CR0_WP);
    }
    flip_end();
    ok(!wrong, "#VMEXIT with a CR0 that changes: %u wrong", wrong);
    unpin();
}

/* The operand of an LIDT changes between the stop and 'cont' */
static void two_faced_operand(void)
{
    static struct dtr operand;
    uint64_t idt1 = pin_get_idt(), limit = idt1 >> 48 << 48;
    int stops = 0, wrong = 0;

    memcpy(idt2, idt, sizeof(idt2));
    memcpy(idt3, idt, sizeof(idt3));
    operand = pin_unpack((uint64_t)idt2 | limit);
    flip_start(&operand.base, (uint64_t)idt2, (uint64_t)idt3);
    for (int i = 0; i < 20; i++) {
        uint64_t got;
        PinSeen s;

        pin("pause", 100, "{\"register\": \"idtr\", \"value\": %lu, "
            "\"limit\": %u}", idt_ptr.base, idt_ptr.limit);
        asm volatile("lidt %0" : : "m" (operand));
        got = pin_unpack(pin_get_idt()).base;
        s = unpin();
        pin_put_idt(idt1);
        stops += s.stops;
        /* With one stop there is one event, which is what 'cont' is for */
        wrong += s.stops == 1 && s.attempted != got;
    }
    flip_end();
    ok(!wrong && stops >= 20, "LIDT of an operand that changes: %d stops, %d "
       "times it was not what was told", stops, wrong);
}

static void nothing(void *unused)
{
    (void)unused;
}

void test(void)
{
    if (!strcmp(command_line(), "race")) {
        race();
        return;
    }
    if (!strcmp(command_line(), "two-faced")) {
        two_faced();
        two_faced_operand();
        return;
    }
    on_all(nothing, NULL);
    write_cr4(read_cr4() | CR4_FSGSBASE);
    svm_prepare();
    if (!smm_init()) {
        bail("SMRAM can't be opened");
    }
    if (!strcmp(command_line(), "rows-reset")) {
        pin_rows_reset(every, every_row());
        return;
    }
    if (!strncmp(command_line(), "rows-", 5)) {
        pin_rows_through(every, every_row(), command_line() + 5);
        return;
    }
    pin_rows(every, every_row());
    swapgs_whole();
    let_through();
    unpaged();
    many_pauses();
    pinned_inside();
    l2_tries();
    task_switches();
    legacy_fs();
    sealed_idt();
    remapped_idt();
}
