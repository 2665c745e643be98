/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Register pinning: shared by the files that do it for x86.
 */
#ifndef GUARD_I386_PIN_INTERNAL_H
#define GUARD_I386_PIN_INTERNAL_H

#include "guard/pin-ops.h"
#include "guard/x86-pin.h"

/**
 * X86PinValue: what a register holds
 * @value: of the register; the base of a table
 * @limit: of a table, otherwise 0
 */
typedef struct X86PinValue {
    uint64_t value;
    uint32_t limit;
} X86PinValue;

/* Everything that is not a table */
static inline X86PinValue x86_pin_value(uint64_t value)
{
    return (X86PinValue) { .value = value };
}

static inline bool x86_pin_is_table(int reg)
{
    return reg == PIN_REGISTER_IDTR || reg == PIN_REGISTER_GDTR;
}

/*
 * Not in SMM, whose registers are its own, and not in an SVM guest under
 * nested paging, which has its own as well: what it leaves behind is corrected
 * when the CPU comes back from there.
 */
static inline bool x86_pin_enforced(const CPUX86State *env)
{
    return !(env->hflags & HF_SMM_MASK) &&
           !(env->hflags & HF_GUEST_MASK && env->hflags2 & HF2_NPT_MASK);
}

static inline bool x86_pin_differs(const X86HostPin *p, X86PinValue v)
{
    return ((v.value ^ p->value) & p->mask) || v.limit != p->limit;
}

/* What an event tells of a register; the action and @ra are up to the caller */
static inline GuardPinViolation x86_pin_event(int reg, uint32_t index,
                                              X86PinValue old,
                                              X86PinValue attempted)
{
    return (GuardPinViolation) {
        .reg = reg,
        .index = index,
        .old = old.value,
        .attempted = attempted.value,
        .old_limit = old.limit,
        .attempted_limit = attempted.limit,
    };
}

/* The host lets the register take @v, and was told */
static inline void x86_pin_let(X86HostPin *p, X86PinValue v)
{
    p->loose = p->armed;
    p->let = v.value;
    p->let_limit = v.limit;
}

/* Whether @v is what the host let through */
static inline bool x86_pin_is_let(const X86HostPin *p, X86PinValue v)
{
    return p->loose && (p->action == GUARD_ACTION_REPORT ||
                        p->action == GUARD_ACTION_PAUSE) &&
           ((!((v.value ^ p->let) & p->mask) && v.limit == p->let_limit) ||
            GUARD_MUTANT(GUARD_HOOK_PIN_LET));
}

/* What 'cont' let through was for another instruction, or another time. */
static inline void x86_pin_end_passes(X86PinState *st)
{
    uint32_t i;

    for (i = 0; i < st->nhost; i++) {
        st->host[i].pass = st->host[i].pass_used = false;
    }
}

/**
 * x86_pin_get: what a register holds
 * @env: CPU state
 * @reg: PinRegister
 * @index: number of the MSR; one that x86_pin_msr_mask() knows
 */
X86PinValue x86_pin_get(CPUX86State *env, int reg, uint32_t index);

/* Give a register a value, as an instruction would. */
void x86_pin_put(CPUX86State *env, int reg, uint32_t index, X86PinValue v);

/**
 * x86_pin_msr_mask: the bits that an MSR can hold
 * @env: CPU state
 * @index: number of the MSR
 *
 * Returns: 0 if the CPU has no such MSR that a guest could write.
 */
uint64_t x86_pin_msr_mask(CPUX86State *env, uint32_t index);

/* The pin by the host of a register, or NULL */
X86HostPin *x86_pin_find(const X86PinState *st, int reg, uint32_t index);

/* What the guest pinned is violated by @val in CR0 or CR4: those bits */
static inline uint64_t x86_pin_guest_bad(const X86PinState *st, int reg,
                                         uint64_t val)
{
    return reg < X86_PIN_GUEST ? (val ^ st->ones[reg]) & st->held[reg] : 0;
}

/* After pins came or went, or their state changed */
void x86_pin_update(X86CPU *cpu);

/* A register holds @v from now on: arm the pins that waited for it. */
void x86_pin_note(CPUX86State *env, int reg, uint32_t index, X86PinValue v);

/* The same for all registers that are pinned */
void x86_pin_note_all(CPUX86State *env);

/* Paging is on: bound the time for which pins wait. */
void x86_pin_ask_grace(CPUX86State *env);

/**
 * x86_pin_force: correct a register that violates its pins, and tell
 * @env: CPU state
 * @reg: PinRegister
 * @index: number of the MSR
 * @waiting: include pins that wait
 *
 * Where there is no instruction, 'fault' and 'pause' are 'discard'.
 *
 * Returns: whether there was a violation.
 */
bool x86_pin_force(CPUX86State *env, int reg, uint32_t index, bool waiting);

/* Whether no pin that is armed, but for 'report', is violated */
bool x86_pin_keeps(CPUX86State *env, int reg, uint32_t index);

#endif /* GUARD_I386_PIN_INTERNAL_H */
