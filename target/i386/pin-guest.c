/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Register pinning for x86: the MSRs by which a guest pins its CR0 and CR4.
 *
 * Guest ABI: docs/specs/pinning.rst.
 */

#include "qemu/osdep.h"
#include "cpu.h"
#include "pin-internal.h"

/* Order of the MSRs from either base */
enum {
    PIN_ALLOWED,                /* CR0, CR4 */
    PIN_CR0_ZERO = 2,
    PIN_CR0_ONE,
    PIN_CR4_ZERO,
    PIN_CR4_ONE,
    PIN_MSRS,
};

/* Which of them @index is, or -1 if this CPU has no such MSR */
static int x86_pin_guest_msr(CPUX86State *env, uint32_t index)
{
    if (env->features[FEAT_GUARD_EAX] & GUARD_CPUID_CR_PIN &&
        index - GUARD_MSR_BASE < PIN_MSRS) {
        return index - GUARD_MSR_BASE;
    }
    if (env_archcpu(env)->pin_config.kvm_cr_pin &&
        index - GUARD_RFC_MSR_BASE < PIN_MSRS) {
        return index - GUARD_RFC_MSR_BASE;
    }
    return -1;
}

static uint64_t *x86_pin_guest_mask(X86PinState *st, int n)
{
    bool one = n == PIN_CR0_ONE || n == PIN_CR4_ONE;
    int w = n >= PIN_CR4_ZERO ? PIN_REGISTER_CR4 : PIN_REGISTER_CR0;

    return one ? &st->ones[w] : &st->zeros[w];
}

bool x86_pin_guest_has_msr(CPUX86State *env, uint32_t index)
{
    return x86_pin_guest_msr(env, index) >= 0;
}

uint64_t x86_pin_guest_rdmsr(CPUX86State *env, uint32_t index)
{
    int n = x86_pin_guest_msr(env, index);

    return n < PIN_CR0_ZERO ? env_archcpu(env)->pin_config.allowed[n]
                            : *x86_pin_guest_mask(&env->pins, n);
}

bool x86_pin_guest_wrmsr(CPUX86State *env, uint32_t index, uint64_t val)
{
    X86PinState *st = &env->pins;
    int n = x86_pin_guest_msr(env, index);
    int w = n >= PIN_CR4_ZERO ? PIN_REGISTER_CR4 : PIN_REGISTER_CR0;
    uint64_t *mask;
    uint64_t opposite;
    const X86HostPin *p;

    if (n < PIN_CR0_ZERO) {
        return false;
    }

    /* The masks come in pairs */
    mask = x86_pin_guest_mask(st, n);
    opposite = *x86_pin_guest_mask(st, n ^ 1);
    p = x86_pin_find(st, w, 0);
    if (p) {
        opposite |= n & 1 ? p->mask & ~p->value : p->mask & p->value;
    }
    if ((val & ~env_archcpu(env)->pin_config.allowed[w]) || (val & opposite) ||
        ((*mask & ~val) && !GUARD_MUTANT(GUARD_HOOK_PIN_ADD_ONLY))) {
        return false;
    }
    *mask = val;
    if (GUARD_MUTANT(GUARD_HOOK_PIN_ADD_ONLY)) {
        st->held[w] &= st->ones[w] | st->zeros[w];
    }
    x86_pin_update(env_archcpu(env));
    if (x86_pin_enforced(env)) {
        x86_pin_note(env, w, 0, x86_pin_get(env, w, 0));
    }
    return true;
}
