/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Register pinning for x86: the registers, and the state of the pins.
 *
 * What checks instructions is in pin-tcg.c, the guest's own interface in
 * pin-guest.c, CPU properties and migration in pin-cpu.c.
 */

#include "qemu/osdep.h"
#include "qemu/main-loop.h"
#include "qemu/timer.h"
#include "qapi/error.h"
#include "cpu.h"
#include "svm.h"
#include "exec/cputlb.h"
#include "system/cpus.h"
#include "system/runstate.h"
#include "system/tcg.h"
#include "guard/cpu.h"
#include "pin-internal.h"

/* MSRs that are nothing but a number kept in CPUX86State */
typedef struct X86PinMSR {
    uint32_t first;             /* number of the first of a row */
    uint8_t n;                  /* length of the row */
    uint8_t every;              /* distance of the numbers */
    uint8_t size;               /* bytes of the field, 4 or 8 */
    uint16_t step;              /* bytes from field to field */
    size_t offset;              /* of the first field */
} X86PinMSR;

#define MSR_ROW(idx, count, dist, field, bytes) {                       \
        .first = (idx), .n = (count), .every = (dist),                  \
        .size = sizeof_field(CPUX86State, field), .step = (bytes),      \
        .offset = offsetof(CPUX86State, field),                         \
    }
#define MSR_ONE(idx, field)     MSR_ROW(idx, 1, 1, field, 0)

static const X86PinMSR x86_pin_msrs[] = {
    MSR_ONE(MSR_IA32_SYSENTER_CS, sysenter_cs),
    MSR_ONE(MSR_IA32_SYSENTER_ESP, sysenter_esp),
    MSR_ONE(MSR_IA32_SYSENTER_EIP, sysenter_eip),
    MSR_ONE(MSR_STAR, star),
    MSR_ONE(MSR_PAT, pat),
    MSR_ONE(MSR_IA32_PKRS, pkrs),
    MSR_ONE(MSR_VM_HSAVE_PA, vm_hsave),
#ifdef TARGET_X86_64
    MSR_ONE(MSR_LSTAR, lstar),
    MSR_ONE(MSR_CSTAR, cstar),
    MSR_ONE(MSR_FMASK, fmask),
    MSR_ONE(MSR_FSBASE, segs[R_FS].base),
    MSR_ONE(MSR_GSBASE, segs[R_GS].base),
    MSR_ONE(MSR_KERNELGSBASE, kernelgsbase),
#endif
    MSR_ROW(MSR_MTRRphysBase(0), MSR_MTRRcap_VCNT, 2, mtrr_var[0].base,
            sizeof(MTRRVar)),
    MSR_ROW(MSR_MTRRphysMask(0), MSR_MTRRcap_VCNT, 2, mtrr_var[0].mask,
            sizeof(MTRRVar)),
    MSR_ONE(MSR_MTRRfix64K_00000, mtrr_fixed[0]),
    MSR_ROW(MSR_MTRRfix16K_80000, 2, 1, mtrr_fixed[1], sizeof(uint64_t)),
    MSR_ROW(MSR_MTRRfix4K_C0000, 8, 1, mtrr_fixed[3], sizeof(uint64_t)),
    MSR_ONE(MSR_MTRRdefType, mtrr_deftype),
    MSR_ONE(MSR_MCG_STATUS, mcg_status),
    MSR_ONE(MSR_MCG_CTL, mcg_ctl),
    MSR_ONE(MSR_TSC_AUX, tsc_aux),
    MSR_ONE(MSR_IA32_MISC_ENABLE, msr_ia32_misc_enable),
    MSR_ONE(MSR_IA32_BNDCFGS, msr_bndcfgs),
};

/* Where a CPU keeps an MSR; sets its size in bytes.  NULL: not like that */
static void *x86_pin_msr_field(CPUX86State *env, uint32_t index, int *size)
{
    uint32_t banks = MIN((4 * env->mcg_cap) & 0xff,
                         ARRAY_SIZE(env->mce_banks));
    unsigned i;

    for (i = 0; i < ARRAY_SIZE(x86_pin_msrs); i++) {
        const X86PinMSR *m = &x86_pin_msrs[i];
        uint32_t at = index - m->first;

        if (at % m->every == 0 && at / m->every < m->n) {
            *size = m->size;
            return (char *)env + m->offset + at / m->every * m->step;
        }
    }
    if (index - MSR_MC0_CTL < banks) {
        *size = sizeof(env->mce_banks[0]);
        return &env->mce_banks[index - MSR_MC0_CTL];
    }
    return NULL;
}

uint64_t x86_pin_msr_mask(CPUX86State *env, uint32_t index)
{
    int size;

    switch (index) {
    case MSR_IA32_SYSENTER_CS:
        return 0xffff;
    default:
        return !x86_pin_msr_field(env, index, &size) ? 0
               : size == 4 ? UINT32_MAX : UINT64_MAX;
    }
}

static uint64_t x86_pin_get_msr(CPUX86State *env, uint32_t index)
{
    int size;
    void *field;

    field = x86_pin_msr_field(env, index, &size);
    return !field ? 0 : size == 4 ? *(uint32_t *)field : *(uint64_t *)field;
}

static void x86_pin_put_msr(CPUX86State *env, uint32_t index, uint64_t val)
{
    int size;
    void *field;

    field = x86_pin_msr_field(env, index, &size);
    if (!field) {
        return;
    }
    if (size == 4) {
        *(uint32_t *)field = val;
    } else {
        *(uint64_t *)field = val;
    }
    switch (index) {
    case MSR_IA32_PKRS:
        tlb_flush(env_cpu(env));
        break;
    case MSR_IA32_BNDCFGS:
        cpu_sync_bndcs_hflags(env);
        break;
    }
}

X86PinValue x86_pin_get(CPUX86State *env, int reg, uint32_t index)
{
    const SegmentCache *dt = reg == PIN_REGISTER_IDTR ? &env->idt : &env->gdt;

    switch (reg) {
    case PIN_REGISTER_CR0:
        return x86_pin_value(env->cr[0]);
    case PIN_REGISTER_CR4:
        return x86_pin_value(env->cr[4]);
    case PIN_REGISTER_EFER:
        return x86_pin_value(env->efer);
    case PIN_REGISTER_MSR:
        return x86_pin_value(x86_pin_get_msr(env, index));
    default:
        return (X86PinValue) { .value = dt->base, .limit = dt->limit };
    }
}

/* With what else paging takes, without which nothing would change */
static void x86_pin_put_cr0(CPUX86State *env, uint32_t val)
{
    uint32_t hflags = env->hflags;
    SegmentCache *cs = &env->segs[R_CS];

    if (val & ~env->cr[0] & CR0_PG_MASK &&
        !GUARD_MUTANT(GUARD_HOOK_PIN_PAGING)) {
        val |= CR0_PE_MASK;
        if (env->efer & MSR_EFER_LME && !(env->cr[4] & CR4_PAE_MASK)) {
            cpu_x86_update_cr4(env, env->cr[4] | CR4_PAE_MASK);
        }
    }
    cpu_x86_update_cr0(env, val);
    if ((env->hflags ^ hflags) & HF_LMA_MASK) {
        /* CS.L has a meaning now, or none any more */
        cpu_x86_load_seg_cache(env, R_CS, cs->selector, cs->base, cs->limit,
                               cs->flags);
    }
}

/* LMA follows paging, and paging has to be off to change LME */
static void x86_pin_put_efer(CPUX86State *env, uint64_t val)
{
    if ((val ^ env->efer) & MSR_EFER_LMA) {
        x86_pin_put_cr0(env, env->cr[0] & ~CR0_PG_MASK);
        if (val & MSR_EFER_LMA) {
            cpu_load_efer(env, (val | MSR_EFER_LME) & ~MSR_EFER_LMA);
            x86_pin_put_cr0(env, env->cr[0] | CR0_PG_MASK);
        } else {
            cpu_load_efer(env, val);
        }
    } else {
        cpu_load_efer(env, val);
    }
    tlb_flush(env_cpu(env));
}

void x86_pin_put(CPUX86State *env, int reg, uint32_t index, X86PinValue v)
{
    SegmentCache *dt = reg == PIN_REGISTER_IDTR ? &env->idt : &env->gdt;

    switch (reg) {
    case PIN_REGISTER_CR0:
        x86_pin_put_cr0(env, v.value);
        break;
    case PIN_REGISTER_CR4:
        cpu_x86_update_cr4(env, v.value);
        break;
    case PIN_REGISTER_EFER:
        x86_pin_put_efer(env, v.value);
        break;
    case PIN_REGISTER_MSR:
        x86_pin_put_msr(env, index, v.value);
        break;
    default:
        dt->base = v.value;
        dt->limit = v.limit;
    }
}

/*
 * State
 */

X86HostPin *x86_pin_find(const X86PinState *st, int reg, uint32_t index)
{
    uint32_t i;

    for (i = 0; i < st->nhost; i++) {
        if (st->host[i].reg == reg && st->host[i].index == index) {
            return &st->host[i];
        }
    }
    return NULL;
}

static bool x86_pin_guest_any(const X86PinState *st)
{
    return st->ones[0] | st->zeros[0] | st->ones[1] | st->zeros[1];
}

/* SWAPGS and the like are translated to plain moves */
static bool x86_pin_needs_code(const X86HostPin *p)
{
    return x86_pin_is_table(p->reg) ||
           (p->reg == PIN_REGISTER_MSR &&
            (p->index == MSR_FSBASE || p->index == MSR_GSBASE ||
             p->index == MSR_KERNELGSBASE));
}

void x86_pin_update(X86CPU *cpu)
{
    X86PinState *st = &cpu->env.pins;
    bool watch = false, code = false;
    uint64_t msrs = 0;
    uint32_t i;
    int w;

    memset(st->mask, 0, sizeof(st->mask));
    memset(st->value, 0, sizeof(st->value));
    for (w = 0; w < X86_PIN_GUEST; w++) {
        st->mask[w] = st->held[w];
        st->value[w] = st->held[w] & st->ones[w];
        watch |= (st->ones[w] | st->zeros[w]) != st->held[w];
    }
    for (i = 0; i < st->nhost; i++) {
        const X86HostPin *p = &st->host[i];

        watch |= !p->armed || p->loose;
        code |= x86_pin_needs_code(p);
        if (p->reg == PIN_REGISTER_MSR) {
            msrs |= 1ULL << (p->index & 63);
        } else if (p->reg < X86_PIN_WORDS && p->armed) {
            st->mask[p->reg] |= p->mask;
            st->value[p->reg] = (st->value[p->reg] & ~p->mask) | p->value;
        }
    }
    st->watch = watch;
    st->code = code;
    st->msrs = msrs;
    st->on = st->nhost || x86_pin_guest_any(st);
}

void x86_pin_note(CPUX86State *env, int reg, uint32_t index, X86PinValue v)
{
    X86PinState *st = &env->pins;
    X86HostPin *p = x86_pin_find(st, reg, index);
    bool changed = false;

    if (GUARD_MUTANT(GUARD_HOOK_PIN_ARM)) {
        return;
    }
    if (reg < X86_PIN_GUEST) {
        uint64_t held = (st->ones[reg] & v.value) | (st->zeros[reg] & ~v.value);

        changed = held & ~st->held[reg];
        st->held[reg] |= held;
    }
    if (p && (!p->armed || p->loose) && !x86_pin_differs(p, v)) {
        p->armed = true;
        p->loose = p->overdue = p->late = false;
        p->deadline = 0;
        p->halvings = 0;
        changed = true;
    }
    if (changed) {
        x86_pin_update(env_archcpu(env));
    }
}

void x86_pin_note_all(CPUX86State *env)
{
    X86PinState *st = &env->pins;
    uint32_t i;
    int w;

    for (w = 0; w < X86_PIN_GUEST; w++) {
        x86_pin_note(env, w, 0, x86_pin_get(env, w, 0));
    }
    for (i = 0; i < st->nhost; i++) {
        X86HostPin *p = &st->host[i];

        x86_pin_note(env, p->reg, p->index, x86_pin_get(env, p->reg, p->index));
    }
}

/*
 * Correcting
 */

bool x86_pin_force(CPUX86State *env, int reg, uint32_t index, bool waiting)
{
    X86PinState *st = &env->pins;
    X86HostPin *p = x86_pin_find(st, reg, index);
    X86PinValue seen = x86_pin_get(env, reg, index);
    X86PinValue v = seen;
    GuardPinViolation e;
    uint64_t bad = x86_pin_guest_bad(st, reg, seen.value);
    bool host = p && (p->armed || waiting) &&
                x86_pin_differs(p, seen) && !x86_pin_is_let(p, seen);

    if (!bad && !host) {
        return false;
    }
    if (bad) {
        v.value = (v.value & ~bad) | (st->ones[reg] & bad);
    }
    if (host && p->action == GUARD_ACTION_REPORT) {
        x86_pin_let(p, seen);
    }
    if (bad || p->action != GUARD_ACTION_REPORT) {
        if (host && p->action != GUARD_ACTION_REPORT) {
            v.value = (v.value & ~p->mask) | p->value;
            v.limit = p->limit;
        }
        x86_pin_put(env, reg, index, v);
        v = x86_pin_get(env, reg, index);
        e = x86_pin_event(reg, index, v, seen);
        /* Not all registers can be had together: see x86_pin_slow_reapply() */
        e.action = v.value == seen.value && v.limit == seen.limit
                   ? GUARD_ACTION_REPORT : GUARD_ACTION_DISCARD;
    } else {
        /* What it would have been given, and had before most likely */
        v.value = (v.value & ~p->mask) | p->value;
        v.limit = p->limit;
        e = x86_pin_event(reg, index, v, seen);
        e.action = GUARD_ACTION_REPORT;
    }
    guard_pin_violation(env_cpu(env), &e);
    x86_pin_update(env_archcpu(env));
    return true;
}

bool x86_pin_keeps(CPUX86State *env, int reg, uint32_t index)
{
    const X86HostPin *p = x86_pin_find(&env->pins, reg, index);
    X86PinValue v = x86_pin_get(env, reg, index);

    return !x86_pin_guest_bad(&env->pins, reg, v.value) &&
           (!p || !p->armed || p->action == GUARD_ACTION_REPORT ||
            !x86_pin_differs(p, v) || x86_pin_is_let(p, v));
}

/*
 * The wait
 */

static int64_t x86_pin_now(void)
{
    return qemu_clock_get_ms(QEMU_CLOCK_VIRTUAL);
}

/* On the CPU's thread: the wait of some pins is over. */
static void x86_pin_wait_over(CPUState *cs, run_on_cpu_data data)
{
    CPUX86State *env = cpu_env(cs);
    X86PinState *st = &env->pins;
    int64_t now = x86_pin_now();
    bool now_counts = x86_pin_enforced(env) && env->cr[0] & CR0_PG_MASK;
    uint32_t i;

    if (x86_pin_enforced(env)) {
        x86_pin_note_all(env);
    }
    for (i = 0; i < st->nhost; i++) {
        X86HostPin *p = &st->host[i];
        X86PinValue v = x86_pin_get(env, p->reg, p->index);
        GuardPinViolation e = x86_pin_event(p->reg, p->index, v, v);

        e.action = p->action;
        if (p->armed || p->overdue || !p->deadline ||
            p->deadline > now) {
            continue;
        }
        if (!now_counts) {
            /* It is a violation as soon as the CPU comes back to paging */
            p->late = true;
            continue;
        }
        p->overdue = true;
        switch (p->action) {
        case GUARD_ACTION_PAUSE:
            vm_stop(RUN_STATE_PAUSED);
            /* fall through */
        case GUARD_ACTION_REPORT:
            guard_pin_violation(cs, &e);
            break;
        default:
            x86_pin_force(env, p->reg, p->index, true);
            x86_pin_note(env, p->reg, p->index,
                         x86_pin_get(env, p->reg, p->index));
        }
    }
}

/* Have the timer run out at the next deadline after @now, if there is one. */
static void x86_pin_set_timer(X86PinState *st, int64_t now)
{
    int64_t next = INT64_MAX;
    uint32_t i;

    for (i = 0; i < st->nhost; i++) {
        const X86HostPin *p = &st->host[i];

        if (!qatomic_read(&p->armed) && p->deadline > now) {
            next = MIN(next, p->deadline);
        }
    }
    if (next != INT64_MAX && !GUARD_MUTANT(GUARD_HOOK_PIN_GRACE)) {
        timer_mod(st->grace, next);
    }
}

static void x86_pin_grace_timer(void *opaque)
{
    X86CPU *cpu = opaque;

    async_run_on_cpu(CPU(cpu), x86_pin_wait_over, RUN_ON_CPU_NULL);
    x86_pin_set_timer(&cpu->env.pins, x86_pin_now());
}

/*
 * In the main loop, as a vCPU may not read the clock in the middle of a block
 * under icount: give the pins that wait a deadline.
 */
static void x86_pin_set_grace(void *opaque)
{
    X86CPU *cpu = opaque;
    X86PinState *st = &cpu->env.pins;
    int64_t now = x86_pin_now();
    uint32_t i;

    /* Not if a reset came in between, or the CPU is gone */
    if (qatomic_xchg(&st->grace_asked, false) && st->nhost) {
        for (i = 0; i < st->nhost; i++) {
            X86HostPin *p = &st->host[i];

            if (!qatomic_read(&p->armed) && !p->overdue && !p->deadline) {
                p->deadline = now + MAX(p->grace_ms >> p->halvings, 1);
            }
        }
        if (!st->grace) {
            st->grace = timer_new_ms(QEMU_CLOCK_VIRTUAL, x86_pin_grace_timer,
                                     cpu);
        }
        x86_pin_set_timer(st, now);
    }
    object_unref(OBJECT(cpu));
}

void x86_pin_ask_grace(CPUX86State *env)
{
    X86PinState *st = &env->pins;
    bool wanted = false;
    uint32_t i;

    for (i = 0; i < st->nhost; i++) {
        const X86HostPin *p = &st->host[i];

        wanted |= !p->armed && !p->overdue && !p->deadline;
    }
    if (wanted && !qatomic_xchg(&st->grace_asked, true)) {
        aio_bh_schedule_oneshot(qemu_get_aio_context(), x86_pin_set_grace,
                                object_ref(OBJECT(env_archcpu(env))));
    }
}

/*
 * Reset
 */

/* A pin whose register can't but hold the value after a reset doesn't wait */
static void x86_pin_settle(X86CPU *cpu)
{
    X86PinState *st = &cpu->env.pins;
    uint32_t i;

    st->rewaiting = 0;
    x86_pin_note_all(&cpu->env);
    x86_pin_update(cpu);
    for (i = 0; i < st->nhost; i++) {
        st->rewaiting += st->host[i].was_armed && !st->host[i].armed;
    }
}

void x86_pin_reset(X86CPU *cpu)
{
    CPUX86State *env = &cpu->env;
    X86PinState *st = &env->pins;
    bool asked;
    uint32_t i;
    int w;

    if (!st->on || GUARD_MUTANT(GUARD_HOOK_PIN_RESET)) {
        return;
    }
    for (w = 0; w < X86_PIN_GUEST; w++) {
        st->cleared += !!(st->ones[w] | st->zeros[w]);
        st->ones[w] = st->zeros[w] = st->held[w] = 0;
    }
    x86_pin_end_passes(st);
    asked = qatomic_xchg(&st->grace_asked, false);
    for (i = 0; i < st->nhost; i++) {
        X86HostPin *p = &st->host[i];
        bool paged;

        paged = !p->armed && (p->deadline || p->overdue || p->late || asked);
        p->was_armed |= p->armed || paged;
        /* Unless this is an INIT it starts anew; see x86_pin_init() */
        p->cut = p->halvings + paged;
        p->halvings = 0;
        p->armed = p->loose = p->overdue = p->late = false;
        p->deadline = 0;
    }
    x86_pin_settle(cpu);
}

void x86_pin_init(X86CPU *cpu)
{
    X86PinState *st = &cpu->env.pins;
    uint32_t i;

    if (!st->on && !st->cleared) {
        return;
    }
    for (i = 0; i < st->nhost && !GUARD_MUTANT(GUARD_HOOK_PIN_RESET); i++) {
        X86HostPin *p = &st->host[i];

        /* Some MSRs have got back the values that they had before */
        p->armed = false;
        /* One INIT after another shall not make the wait endless */
        if (!GUARD_MUTANT(GUARD_HOOK_PIN_INIT_AGAIN)) {
            p->halvings = MIN(p->cut, 31);
            p->late = p->halvings && !(p->grace_ms >> p->halvings);
        }
    }
    x86_pin_settle(cpu);
    if (!GUARD_MUTANT(GUARD_HOOK_PIN_INIT_EVENT)) {
        guard_pin_tell_init(CPU(cpu));
    }
}

void x86_pin_realize(X86CPU *cpu)
{
    if (tcg_enabled()) {
        guard_pin_reset_init();
        if (!GUARD_MUTANT(GUARD_HOOK_PIN_INHERIT)) {
            guard_pin_inherit(CPU(cpu));
        }
    }
}

void x86_pin_unrealize(X86CPU *cpu)
{
    X86PinState *st = &cpu->env.pins;

    st->nhost = 0;
    g_clear_pointer(&st->grace, timer_free);
    g_clear_pointer(&st->host, g_free);
    x86_pin_image_free(cpu);
    x86_pin_update(cpu);
}

/*
 * What the commands do
 */

static bool x86_pin_check_bits(X86CPU *cpu, const GuardPin *pin,
                               const char *what, Error **errp)
{
    CPUX86State *env = &cpu->env;
    uint64_t known;

    switch (pin->reg) {
    case PIN_REGISTER_CR0:
        known = CR0_PE_MASK | CR0_MP_MASK | CR0_EM_MASK | CR0_TS_MASK |
                CR0_ET_MASK | CR0_NE_MASK | CR0_WP_MASK | CR0_AM_MASK |
                CR0_NW_MASK | CR0_CD_MASK | CR0_PG_MASK;
        break;
    case PIN_REGISTER_CR4:
        known = UINT32_MAX & ~cr4_reserved_bits(env);
        break;
    default:
        known = MSR_EFER_SCE | MSR_EFER_LME | MSR_EFER_LMA | MSR_EFER_NXE |
                MSR_EFER_SVME | MSR_EFER_FFXSR;
        if (!(env->features[FEAT_8000_0001_EDX] & CPUID_EXT2_SYSCALL)) {
            known &= ~MSR_EFER_SCE;
        }
        if (!(env->features[FEAT_8000_0001_EDX] & CPUID_EXT2_LM)) {
            known &= ~(MSR_EFER_LME | MSR_EFER_LMA);
        }
        if (!(env->features[FEAT_8000_0001_EDX] & CPUID_EXT2_NX)) {
            known &= ~MSR_EFER_NXE;
        }
        if (!(env->features[FEAT_8000_0001_EDX] & CPUID_EXT2_FFXSR)) {
            known &= ~MSR_EFER_FFXSR;
        }
        if (!(env->features[FEAT_8000_0001_ECX] & CPUID_EXT3_SVM)) {
            known &= ~MSR_EFER_SVME;
        }
    }
    if (pin->mask & ~known) {
        error_setg(errp, "%s: bits 0x%" PRIx64 " of %s can't be pinned: CPU %d "
                   "has 0x%" PRIx64 " only", what, pin->mask & ~known,
                   PinRegister_str(pin->reg), CPU(cpu)->cpu_index, known);
        return false;
    }
    return true;
}

static bool x86_pin_check_msr(X86CPU *cpu, const GuardPin *pin,
                              const char *what, Error **errp)
{
    uint64_t mask = x86_pin_msr_mask(&cpu->env, pin->index);

    if (pin->index == MSR_EFER) {
        error_setg(errp, "%s: index 0x%x is EFER: use register efer, which is "
                   "pinned by bits", what, pin->index);
        return false;
    }
    if (pin->index == MSR_IA32_APICBASE ||
        (pin->index >= MSR_APIC_START && pin->index <= MSR_APIC_END)) {
        error_setg(errp, "%s: index 0x%x is a register of the APIC, which "
                   "changes in other ways too: it can't be pinned", what,
                   pin->index);
        return false;
    }
    if (!mask) {
        error_setg(errp, "%s: index 0x%x is no MSR that a guest of this "
                   "machine can write", what, pin->index);
        return false;
    }
    if (!pin->current && (pin->value & ~mask)) {
        error_setg(errp, "%s: value 0x%" PRIx64 " does not fit into MSR 0x%x, "
                   "whose bits are 0x%" PRIx64, what, pin->value, pin->index,
                   mask);
        return false;
    }
    return true;
}

static bool x86_pin_ops_check(CPUState *cs, const GuardPin *pin,
                              const char *what, Error **errp)
{
    X86CPU *cpu = X86_CPU(cs);

    if (pin->reg < X86_PIN_WORDS) {
        return x86_pin_check_bits(cpu, pin, what, errp);
    }
    if (pin->reg == PIN_REGISTER_MSR) {
        return x86_pin_check_msr(cpu, pin, what, errp);
    }
#ifndef TARGET_X86_64
    if (!pin->current && pin->value > UINT32_MAX) {
        error_setg(errp, "%s: value 0x%" PRIx64 " does not fit into the 32 "
                   "bits of a base", what, pin->value);
        return false;
    }
#endif
    return true;
}

/*
 * What an MSR or a table register holds; of a table register that SMM or an
 * SVM guest under nested paging has for itself, what it gets back on the way
 * out of there.
 */
static X86PinValue x86_pin_get_own(CPUX86State *env, int reg, uint32_t index)
{
    CPUState *cs = env_cpu(env);
    bool idt = reg == PIN_REGISTER_IDTR;
    hwaddr seg;

    if (!x86_pin_is_table(reg) || x86_pin_enforced(env) ||
        GUARD_MUTANT(GUARD_HOOK_PIN_OWN)) {
        return x86_pin_get(env, reg, index);
    }
    if (env->hflags & HF_GUEST_MASK) {
        seg = env->vm_hsave + (idt ? offsetof(struct vmcb, save.idtr)
                                   : offsetof(struct vmcb, save.gdtr));
        return (X86PinValue) {
            .value = x86_ldq_phys(cs, seg + offsetof(struct vmcb_seg, base)),
            .limit = x86_ldl_phys(cs, seg + offsetof(struct vmcb_seg, limit)),
        };
    }
    seg = env->smbase + 0x8000;
#ifdef TARGET_X86_64
    seg += idt ? 0x7e84 : 0x7e64;
    return (X86PinValue) {
        .value = x86_ldq_phys(cs, seg + 4),
        .limit = x86_ldl_phys(cs, seg),
    };
#else
    seg += idt ? 0x7f54 : 0x7f70;
    return (X86PinValue) {
        .value = x86_ldl_phys(cs, seg + 4),
        .limit = x86_ldl_phys(cs, seg),
    };
#endif
}

static void x86_pin_ops_set(CPUState *cs, const GuardPin *pin)
{
    X86CPU *cpu = X86_CPU(cs);
    CPUX86State *env = &cpu->env;
    X86PinState *st = &env->pins;
    X86HostPin *p = x86_pin_find(st, pin->reg, pin->index);

    if (!st->host) {
        st->host = g_new0(X86HostPin, GUARD_MAX_PINS);
    }
    if (!p) {
        assert(st->nhost < GUARD_MAX_PINS);
        p = &st->host[st->nhost++];
    }
    *p = (X86HostPin) {
        .reg = pin->reg,
        .action = pin->action,
        .on_init = pin->on_init,
        .index = pin->index,
        .limit = pin->limit,
        .grace_ms = pin->grace_ms,
        .mask = pin->mask,
        .value = pin->value,
    };
    if (pin->current) {
        X86PinValue v = x86_pin_get_own(env, p->reg, p->index);

        p->value = v.value;
        p->limit = v.limit & UINT16_MAX;
        p->armed = true;
    }
    if (p->reg < X86_PIN_GUEST) {
        /* The host's word counts */
        st->ones[p->reg] &= ~(p->mask & ~p->value);
        st->zeros[p->reg] &= ~(p->mask & p->value);
        st->held[p->reg] &= st->ones[p->reg] | st->zeros[p->reg];
    }
}

static void x86_pin_ops_unset(CPUState *cs, PinRegister reg, uint32_t index)
{
    X86PinState *st = &X86_CPU(cs)->env.pins;
    X86HostPin *p = x86_pin_find(st, reg, index);

    if (p) {
        *p = st->host[--st->nhost];
    }
}

static void x86_pin_ops_done(CPUState *cs)
{
    X86CPU *cpu = X86_CPU(cs);
    CPUX86State *env = &cpu->env;

    x86_pin_update(cpu);
    if (x86_pin_enforced(env)) {
        x86_pin_note_all(env);
        if (env->cr[0] & CR0_PG_MASK) {
            x86_pin_ask_grace(env);
        }
    }
    guard_tcg_pin_code(cs, env->pins.code);
}

static bool x86_pin_ops_has(CPUState *cs, PinRegister reg, uint32_t index)
{
    return x86_pin_find(&X86_CPU(cs)->env.pins, reg, index);
}

static unsigned x86_pin_ops_count(CPUState *cs)
{
    return X86_CPU(cs)->env.pins.nhost;
}

static bool x86_pin_ops_any(CPUState *cs)
{
    return X86_CPU(cs)->env.pins.on;
}

static void x86_pin_ops_query(CPUState *cs, RegisterPinInfoList ***tail)
{
    const X86PinState *st = &X86_CPU(cs)->env.pins;
    RegisterPinInfo *info;
    uint32_t i;
    int w;

    for (w = 0; w < X86_PIN_GUEST; w++) {
        uint64_t pinned = st->ones[w] | st->zeros[w];

        if (!pinned) {
            continue;
        }
        info = g_new0(RegisterPinInfo, 1);
        info->cpu_index = cs->cpu_index;
        info->q_register = w;
        info->set_by = PIN_SET_BY_GUEST;
        info->has_ones = info->has_zeros = true;
        info->ones = st->ones[w];
        info->zeros = st->zeros[w];
        info->action = GUARD_ACTION_FAULT;
        info->state = pinned == st->held[w] ? PIN_STATE_ARMED
                                            : PIN_STATE_WAITING;
        QAPI_LIST_APPEND(*tail, info);
    }
    for (i = 0; i < st->nhost; i++) {
        const X86HostPin *p = &st->host[i];
        bool bits = p->reg < X86_PIN_WORDS;

        info = g_new0(RegisterPinInfo, 1);
        info->cpu_index = cs->cpu_index;
        info->q_register = p->reg;
        info->has_index = p->reg == PIN_REGISTER_MSR;
        info->index = p->index;
        info->set_by = PIN_SET_BY_HOST;
        info->has_ones = info->has_zeros = bits;
        info->ones = p->mask & p->value;
        info->zeros = p->mask & ~p->value;
        info->has_value = !bits;
        info->value = p->value;
        info->has_limit = x86_pin_is_table(p->reg);
        info->limit = p->limit;
        info->action = p->action;
        info->has_on_init = info->has_grace_ms = true;
        info->on_init = p->on_init;
        info->grace_ms = p->grace_ms;
        info->state = p->armed ? PIN_STATE_ARMED : PIN_STATE_WAITING;
        QAPI_LIST_APPEND(*tail, info);
    }
}

static void x86_pin_ops_take_cleared(CPUState *cs, uint32_t *guest,
                                     uint32_t *waiting)
{
    X86PinState *st = &X86_CPU(cs)->env.pins;
    uint32_t i;

    *guest += st->cleared;
    *waiting += st->rewaiting;
    st->cleared = st->rewaiting = 0;
    for (i = 0; i < st->nhost; i++) {
        st->host[i].was_armed = false;
    }
}

static const GuardPinOps x86_pin_ops = {
    .check = x86_pin_ops_check,
    .set = x86_pin_ops_set,
    .unset = x86_pin_ops_unset,
    .done = x86_pin_ops_done,
    .has = x86_pin_ops_has,
    .count = x86_pin_ops_count,
    .any = x86_pin_ops_any,
    .query = x86_pin_ops_query,
    .take_cleared = x86_pin_ops_take_cleared,
};

static void __attribute__((constructor)) x86_pin_ops_init(void)
{
    guard_pin_ops = &x86_pin_ops;
}
