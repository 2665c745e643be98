/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Register pinning for x86 under TCG: verdicts on what instructions write.
 */

#include "qemu/osdep.h"
#include "cpu.h"
#include "exec/cpu_ldst.h"
#include "exec/exec-all.h"
#include "exec/helper-proto.h"
#include "svm.h"
#include "system/cpus.h"
#include "system/runstate.h"
#include "tcg/helper-tcg.h"
#include "guard/cpu.h"
#include "pin-internal.h"

/* Whether 'cont' after a pause at this instruction let @p take @v */
static bool x86_pin_take_pass(CPUX86State *env, X86HostPin *p, X86PinValue v,
                              uintptr_t ra)
{
    X86PinState *st = &env->pins;

    if (GUARD_MUTANT(GUARD_HOOK_PIN_PASS)) {
        return p->pass;
    }
    if (!guard_in_pass(ra) ||
        st->pass_pc != guard_arch->pc(env_cpu(env), ra)) {
        x86_pin_end_passes(st);
    }
    /* Its operand may be another one by now, which was not told */
    if (!p->pass || p->pass_used ||
        ((((v.value ^ p->pass_value) & p->mask) || v.limit != p->pass_limit) &&
         !GUARD_MUTANT(GUARD_HOOK_PIN_PASS_VALUE))) {
        return false;
    }
    p->pass_used = true;
    return true;
}

static void x86_pin_give_pass(CPUX86State *env, X86HostPin *p, X86PinValue v,
                              uintptr_t ra)
{
    p->pass = true;
    p->pass_value = v.value;
    p->pass_limit = v.limit;
    x86_pin_pass_again(env_cpu(env));
    env->pins.pass_pc = guard_arch->pc(env_cpu(env), ra);
}

void x86_pin_pass_again(CPUState *cs)
{
    X86PinState *st = &cpu_env(cs)->pins;
    uint32_t i;

    for (i = 0; i < st->nhost; i++) {
        st->host[i].pass_used = false;
    }
}

/*
 * An instruction would violate @p, or a pin of the guest's if that is NULL.
 * Returns whether to leave out the write, or not at all.
 */
static bool x86_pin_refuse(CPUX86State *env, X86HostPin *p,
                           GuardPinViolation *e)
{
    CPUState *cs = env_cpu(env);
    X86PinValue v = { .value = e->attempted, .limit = e->attempted_limit };

    e->action = p ? p->action : GUARD_ACTION_FAULT;
    if (!e->ra && e->action != GUARD_ACTION_REPORT) {
        /* In the delivery of an event nothing else can be done */
        bool pause = e->action == GUARD_ACTION_PAUSE;

        e->action = pause ? GUARD_ACTION_PAUSE : GUARD_ACTION_DISCARD;
        guard_pin_violation(cs, e);
        if (pause) {
            vm_stop(RUN_STATE_PAUSED);
        }
        return true;
    }
    switch (e->action) {
    case GUARD_ACTION_REPORT:
        guard_pin_violation(cs, e);
        x86_pin_let(p, v);
        x86_pin_update(env_archcpu(env));
        return false;
    case GUARD_ACTION_DISCARD:
        guard_pin_violation(cs, e);
        return true;
    case GUARD_ACTION_PAUSE:
        if (x86_pin_take_pass(env, p, v, e->ra)) {
            x86_pin_let(p, v);
            x86_pin_update(env_archcpu(env));
            return false;
        }
        x86_pin_give_pass(env, p, v, e->ra);
        guard_pin_violation(cs, e);
        guard_pause_before(cs, e->ra);
    default:
        guard_pin_violation(cs, e);
        raise_exception_err_ra(env, EXCP0D_GPF, 0, e->ra);
    }
}

/* Actions, for the questions below: which pins to ask */
#define X86_PIN_ALL     (BIT(GUARD_ACTION__MAX) - 1)
#define X86_PIN_FIRM    (BIT(GUARD_ACTION_FAULT) | BIT(GUARD_ACTION_PAUSE))

/*
 * An instruction that writes two registers asks for both with one action after
 * the other: what is told, or let through, is not undone by the other's then.
 */
static const unsigned x86_pin_order[] = {
    BIT(GUARD_ACTION_FAULT), BIT(GUARD_ACTION_DISCARD),
    BIT(GUARD_ACTION_PAUSE), BIT(GUARD_ACTION_REPORT),
};

/*
 * Whether to leave out that a register becomes @v.  Pins with other than
 * @actions aren't asked; the guest's have GUARD_ACTION_FAULT.
 */
static bool x86_pin_check(CPUX86State *env, int reg, uint32_t index,
                          X86PinValue v, unsigned actions, uintptr_t ra)
{
    X86PinState *st = &env->pins;
    X86HostPin *p = x86_pin_find(st, reg, index);
    X86PinValue old;
    GuardPinViolation e;

    if (x86_pin_guest_bad(st, reg, v.value)) {
        p = NULL;
    } else if (!p || !p->armed || !x86_pin_differs(p, v)) {
        return false;
    }
    if (!(actions & BIT(p ? p->action : GUARD_ACTION_FAULT))) {
        return false;
    }
    old = x86_pin_get(env, reg, index);
    if (p && p->loose && !((old.value ^ v.value) & p->mask) &&
        old.limit == v.limit) {
        /* The host let it take this value, and was told */
        return false;
    }
    e = x86_pin_event(reg, index, old, v);
    e.ra = ra;
    return x86_pin_refuse(env, p, &e);
}

static bool x86_pin_write(CPUX86State *env, int reg, uint32_t index,
                          X86PinValue v, uintptr_t ra)
{
    if (!x86_pin_enforced(env)) {
        return false;
    }
    if (x86_pin_check(env, reg, index, v, X86_PIN_ALL, ra)) {
        return true;
    }
    if (env->pins.watch) {
        x86_pin_note(env, reg, index, v);
    }
    return false;
}

bool x86_pin_slow_word(CPUX86State *env, int reg, uint64_t val, uintptr_t ra)
{
    return x86_pin_write(env, reg, 0, x86_pin_value(val), ra);
}

/*
 * What a WRMSR of @val makes of an MSR.  False if it makes nothing of it: ends
 * in #GP(0) on its own account, or ignores the value.
 */
static bool x86_pin_msr_takes(CPUX86State *env, uint32_t index, uint64_t *val)
{
    switch (index) {
    case MSR_IA32_PKRS:
        return *val <= UINT32_MAX;
    case MSR_VM_HSAVE_PA:
        return !(*val & (0xfff | ~0ULL << env_archcpu(env)->phys_bits));
    case MSR_MCG_CTL:
        return env->mcg_cap & MCG_CTL_P && (!*val || !~*val);
    }
    if (index - MSR_MC0_CTL < (4 * env->mcg_cap & 0xff) &&
        (index - MSR_MC0_CTL) % 4 == 0) {
        return !*val || !~*val;
    }
    *val &= x86_pin_msr_mask(env, index);
    return true;
}

bool x86_pin_slow_msr(CPUX86State *env, uint32_t index, uint64_t val,
                      uintptr_t ra)
{
    return x86_pin_enforced(env) &&
           x86_pin_find(&env->pins, PIN_REGISTER_MSR, index) &&
           x86_pin_msr_takes(env, index, &val) &&
           x86_pin_check(env, PIN_REGISTER_MSR, index, x86_pin_value(val),
                         X86_PIN_ALL, ra);
}

void x86_pin_slow_msr_written(CPUX86State *env, uint32_t index)
{
    if (x86_pin_enforced(env) &&
        x86_pin_find(&env->pins, PIN_REGISTER_MSR, index)) {
        x86_pin_note(env, PIN_REGISTER_MSR, index,
                     x86_pin_get(env, PIN_REGISTER_MSR, index));
    }
}

/* Paging goes on while a pin waits that does not allow it */
static bool x86_pin_check_paging(CPUX86State *env, uint64_t cr0, uint64_t efer,
                                 unsigned actions, uintptr_t ra)
{
    X86PinState *st = &env->pins;
    uint32_t i;

    for (i = 0; i < st->nhost; i++) {
        X86HostPin *p = &st->host[i];
        X86PinValue v;

        if (p->armed || !(actions & BIT(p->action)) ||
            (p->on_init != PIN_ON_INIT_STRICT && !p->late) ||
            GUARD_MUTANT(GUARD_HOOK_PIN_STRICT)) {
            continue;
        }
        v = p->reg == PIN_REGISTER_CR0 ? x86_pin_value(cr0)
            : p->reg == PIN_REGISTER_EFER ? x86_pin_value(efer)
            : x86_pin_get(env, p->reg, p->index);
        if (x86_pin_differs(p, v)) {
            X86PinValue old = x86_pin_get(env, p->reg, p->index);
            GuardPinViolation e = x86_pin_event(p->reg, p->index, old, v);

            e.ra = ra;
            if (x86_pin_refuse(env, p, &e)) {
                return true;
            }
        }
    }
    return false;
}

bool x86_pin_slow_cr0(CPUX86State *env, uint64_t val, uintptr_t ra)
{
    uint64_t efer = env->efer;
    uint32_t changes;
    bool paging;
    unsigned i;

    /* As cpu_x86_update_cr0() does */
    val = (uint32_t)val | CR0_ET_MASK;
    changes = val ^ env->cr[0];
    if (changes & CR0_PG_MASK) {
        if (!(val & CR0_PG_MASK)) {
            efer &= ~MSR_EFER_LMA;
        } else if (efer & MSR_EFER_LME) {
            if (!(env->cr[4] & CR4_PAE_MASK)) {
                /* Ignored */
                return false;
            }
            efer |= MSR_EFER_LMA;
        }
    }
    if (!x86_pin_enforced(env)) {
        return false;
    }
    paging = env->pins.watch && (changes & val & CR0_PG_MASK);
    for (i = 0; i < ARRAY_SIZE(x86_pin_order); i++) {
        unsigned actions = x86_pin_order[i];

        if (x86_pin_check(env, PIN_REGISTER_CR0, 0, x86_pin_value(val),
                          actions, ra) ||
            (efer != env->efer && !GUARD_MUTANT(GUARD_HOOK_PIN_LMA) &&
             x86_pin_check(env, PIN_REGISTER_EFER, 0, x86_pin_value(efer),
                           actions, ra)) ||
            (paging && x86_pin_check_paging(env, val, efer, actions, ra))) {
            return true;
        }
    }
    if (!env->pins.watch) {
        return false;
    }
    if (paging) {
        x86_pin_ask_grace(env);
    }
    x86_pin_note(env, PIN_REGISTER_CR0, 0, x86_pin_value(val));
    x86_pin_note(env, PIN_REGISTER_EFER, 0, x86_pin_value(efer));
    return false;
}

bool x86_pin_slow_clts(CPUX86State *env, uintptr_t ra)
{
    return x86_pin_write(env, PIN_REGISTER_CR0, 0,
                         x86_pin_value(env->cr[0] & ~CR0_TS_MASK), ra);
}

bool x86_pin_slow_task_ts(CPUX86State *env, uintptr_t ra)
{
    return x86_pin_write(env, PIN_REGISTER_CR0, 0,
                         x86_pin_value(env->cr[0] | CR0_TS_MASK), ra);
}

/*
 * Segment bases
 */

#ifdef TARGET_X86_64
static uint32_t x86_pin_base_msr(int seg)
{
    return seg == R_FS ? MSR_FSBASE : MSR_GSBASE;
}
#endif

bool x86_pin_slow_load_seg(CPUX86State *env, int seg, target_ulong base,
                           uintptr_t ra)
{
#ifdef TARGET_X86_64
    return x86_pin_enforced(env) &&
           x86_pin_check(env, PIN_REGISTER_MSR, x86_pin_base_msr(seg),
                         x86_pin_value(base), X86_PIN_ALL, ra);
#else
    return false;
#endif
}

void x86_pin_slow_seg_loaded(CPUX86State *env, int seg)
{
#ifdef TARGET_X86_64
    x86_pin_slow_msr_written(env, x86_pin_base_msr(seg));
#endif
}

target_ulong x86_pin_slow_keep_base(CPUX86State *env, int seg,
                                    target_ulong base, bool tell)
{
#ifdef TARGET_X86_64
    uint32_t index = x86_pin_base_msr(seg);
    X86HostPin *p = x86_pin_find(&env->pins, PIN_REGISTER_MSR, index);
    GuardPinViolation e = x86_pin_event(PIN_REGISTER_MSR, index,
                                        x86_pin_value(env->segs[seg].base),
                                        x86_pin_value(base));

    if (!p || !x86_pin_enforced(env)) {
        return base;
    }
    if (!tell) {
        /* The load that follows tells, and arms: no code sees this base */
        return p->armed && p->action != GUARD_ACTION_REPORT ? p->value : base;
    }
    if (p->armed && p->value != base) {
        return x86_pin_refuse(env, p, &e) ? p->value : base;
    }
    x86_pin_note(env, PIN_REGISTER_MSR, index, x86_pin_value(base));
#endif
    return base;
}

/*
 * Helpers of blocks with CF_GUARD_PIN
 */

void helper_guard_load_dt(CPUX86State *env, uint32_t idt, target_ulong base,
                          target_ulong limit)
{
    SegmentCache *dt = idt ? &env->idt : &env->gdt;
    X86PinValue v = { .value = base, .limit = limit };

    if (GUARD_MUTANT(GUARD_HOOK_PIN_DT) ||
        !x86_pin_write(env, idt ? PIN_REGISTER_IDTR : PIN_REGISTER_GDTR, 0, v,
                       GETPC())) {
        dt->base = base;
        dt->limit = limit;
    }
}

void helper_guard_seg_real(CPUX86State *env, uint32_t seg, uint32_t selector)
{
    if (GUARD_MUTANT(GUARD_HOOK_PIN_SEG_REAL) ||
        !x86_pin_slow_load_seg(env, seg, selector << 4, GETPC())) {
        env->segs[seg].selector = selector;
        env->segs[seg].base = selector << 4;
        x86_pin_seg_loaded(env, seg);
    }
}

#ifdef TARGET_X86_64
void helper_guard_swapgs(CPUX86State *env)
{
    uintptr_t ra = GETPC();
    X86PinValue gs = x86_pin_value(env->kernelgsbase);
    X86PinValue kernel = x86_pin_value(env->segs[R_GS].base);
    unsigned i;

    if (!GUARD_MUTANT(GUARD_HOOK_PIN_SWAPGS) && x86_pin_enforced(env)) {
        for (i = 0; i < ARRAY_SIZE(x86_pin_order); i++) {
            unsigned actions = x86_pin_order[i];

            if (x86_pin_check(env, PIN_REGISTER_MSR, MSR_GSBASE, gs, actions,
                              ra) ||
                x86_pin_check(env, PIN_REGISTER_MSR, MSR_KERNELGSBASE, kernel,
                              actions, ra)) {
                return;
            }
        }
        x86_pin_note(env, PIN_REGISTER_MSR, MSR_GSBASE, gs);
        x86_pin_note(env, PIN_REGISTER_MSR, MSR_KERNELGSBASE, kernel);
    }
    env->segs[R_GS].base = gs.value;
    env->kernelgsbase = kernel.value;
}

void helper_guard_wrbase(CPUX86State *env, uint32_t seg, target_ulong base)
{
    if (GUARD_MUTANT(GUARD_HOOK_PIN_WRBASE) ||
        !x86_pin_slow_load_seg(env, seg, base, GETPC())) {
        env->segs[seg].base = base;
        x86_pin_seg_loaded(env, seg);
    }
}
#endif

/*
 * SVM.  What these instructions load is checked for 'fault' and 'pause' before
 * anything is changed, and corrected after it was loaded: another CPU may
 * write to the VMCB in between.
 */

static uint64_t x86_pin_canonical(CPUX86State *env, uint64_t addr)
{
    return sextract64(addr, 0, cpu_x86_virtual_addr_width(env));
}

/* Offset in a VMCB of what VMLOAD loads into an MSR, or 0 */
static unsigned x86_pin_vmload_offset(uint32_t index)
{
    switch (index) {
    case MSR_STAR:
        return offsetof(struct vmcb, save.star);
    case MSR_IA32_SYSENTER_CS:
        return offsetof(struct vmcb, save.sysenter_cs);
    case MSR_IA32_SYSENTER_ESP:
        return offsetof(struct vmcb, save.sysenter_esp);
    case MSR_IA32_SYSENTER_EIP:
        return offsetof(struct vmcb, save.sysenter_eip);
#ifdef TARGET_X86_64
    case MSR_LSTAR:
        return offsetof(struct vmcb, save.lstar);
    case MSR_CSTAR:
        return offsetof(struct vmcb, save.cstar);
    case MSR_FMASK:
        return offsetof(struct vmcb, save.sfmask);
    case MSR_FSBASE:
        return offsetof(struct vmcb, save.fs.base);
    case MSR_GSBASE:
        return offsetof(struct vmcb, save.gs.base);
    case MSR_KERNELGSBASE:
        return offsetof(struct vmcb, save.kernel_gs_base);
#endif
    default:
        return 0;
    }
}

void x86_pin_slow_vmload(CPUX86State *env, uint64_t vmcb, int mmu_idx,
                         uintptr_t ra)
{
    X86PinState *st = &env->pins;
    uint32_t i;

    if (!x86_pin_enforced(env)) {
        return;
    }
    for (i = 0; i < st->nhost; i++) {
        const X86HostPin *p = &st->host[i];
        unsigned offset = p->reg != PIN_REGISTER_MSR ? 0
                          : x86_pin_vmload_offset(p->index);
        uint64_t val;

        if (!offset || !p->armed) {
            continue;
        }
        val = cpu_ldq_mmuidx_ra(env, vmcb + offset, mmu_idx, 0);
        switch (p->index) {
#ifdef TARGET_X86_64
        case MSR_FSBASE:
        case MSR_GSBASE:
        case MSR_KERNELGSBASE:
            val = x86_pin_canonical(env, val);
            break;
#endif
        case MSR_IA32_SYSENTER_CS:
            /* VMLOAD, other than WRMSR, keeps 32 bits of it */
            val &= UINT32_MAX;
            break;
        default:
            val &= x86_pin_msr_mask(env, p->index);
        }
        x86_pin_check(env, p->reg, p->index, x86_pin_value(val), X86_PIN_FIRM,
                      ra);
    }
}

static X86PinValue x86_pin_vmcb_table(CPUX86State *env, uint64_t seg)
{
    CPUState *cs = env_cpu(env);
    uint64_t base = x86_ldq_phys(cs, seg + offsetof(struct vmcb_seg, base));

    return (X86PinValue) {
        .value = (target_ulong)x86_pin_canonical(env, base),
        .limit = x86_ldl_phys(cs, seg + offsetof(struct vmcb_seg, limit)),
    };
}

void x86_pin_slow_vmrun(CPUX86State *env, uint64_t vmcb, uintptr_t ra)
{
    CPUState *cs = env_cpu(env);
    X86PinState *st = &env->pins;
    uint64_t cr0, cr4, efer;

    if (!x86_pin_enforced(env) ||
        (x86_ldq_phys(cs, vmcb + offsetof(struct vmcb, control.nested_ctl)) &
         SVM_NPT_ENABLED)) {
        return;
    }
    cr0 = x86_ldq_phys(cs, vmcb + offsetof(struct vmcb, save.cr0));
    cr4 = x86_ldq_phys(cs, vmcb + offsetof(struct vmcb, save.cr4));
    efer = x86_ldq_phys(cs, vmcb + offsetof(struct vmcb, save.efer));
    x86_pin_check(env, PIN_REGISTER_CR0, 0,
                  x86_pin_value((uint32_t)cr0 | CR0_ET_MASK), X86_PIN_FIRM, ra);
    x86_pin_check(env, PIN_REGISTER_CR4, 0, x86_pin_value(cr4), X86_PIN_FIRM,
                  ra);
    x86_pin_check(env, PIN_REGISTER_EFER, 0, x86_pin_value(efer), X86_PIN_FIRM,
                  ra);
    if (x86_pin_find(st, PIN_REGISTER_IDTR, 0)) {
        x86_pin_check(env, PIN_REGISTER_IDTR, 0,
                      x86_pin_vmcb_table(env, vmcb +
                                         offsetof(struct vmcb, save.idtr)),
                      X86_PIN_FIRM, ra);
    }
    if (x86_pin_find(st, PIN_REGISTER_GDTR, 0)) {
        x86_pin_check(env, PIN_REGISTER_GDTR, 0,
                      x86_pin_vmcb_table(env, vmcb +
                                         offsetof(struct vmcb, save.gdtr)),
                      X86_PIN_FIRM, ra);
    }
}

void x86_pin_slow_reapply(CPUX86State *env)
{
    static const int words[] = {
        PIN_REGISTER_EFER, PIN_REGISTER_CR4, PIN_REGISTER_CR0,
    };
    X86PinState *st = &env->pins;
    bool paging, forced = false, fail = false;
    uint32_t i;

    if (!x86_pin_enforced(env)) {
        return;
    }
    for (i = 0; i < ARRAY_SIZE(words); i++) {
        forced |= x86_pin_force(env, words[i], 0, false);
    }
    for (i = 0; forced && i < ARRAY_SIZE(words); i++) {
        fail |= !x86_pin_keeps(env, words[i], 0);
    }
    if (fail && !GUARD_MUTANT(GUARD_HOOK_PIN_PAGING)) {
        /* They can't be had together with the rest: as a triple fault */
        qemu_system_reset_request(SHUTDOWN_CAUSE_GUEST_RESET);
    }
    for (i = 0; i < st->nhost; i++) {
        if (st->host[i].reg >= X86_PIN_WORDS) {
            x86_pin_force(env, st->host[i].reg, st->host[i].index, false);
        }
    }
    if (!st->watch) {
        return;
    }
    x86_pin_note_all(env);
    paging = env->cr[0] & CR0_PG_MASK;
    for (i = 0; paging && i < st->nhost; i++) {
        const X86HostPin *p = &st->host[i];

        if (!p->armed && (p->on_init == PIN_ON_INIT_STRICT || p->late) &&
            !GUARD_MUTANT(GUARD_HOOK_PIN_STRICT)) {
            x86_pin_force(env, p->reg, p->index, true);
            x86_pin_note(env, p->reg, p->index,
                         x86_pin_get(env, p->reg, p->index));
        }
    }
    if (paging) {
        x86_pin_ask_grace(env);
    }
}
