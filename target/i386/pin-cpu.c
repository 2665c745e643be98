/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Register pinning for x86: CPU properties, and how pins travel.
 */

#include "qemu/osdep.h"
#include "qemu/error-report.h"
#include "qapi/error.h"
#include "cpu.h"
#include "hw/core/cpu.h"
#include "migration/vmstate.h"
#include "system/qtest.h"
#include "system/tcg.h"
#include "guard/cpu.h"
#include "pin-internal.h"

/* Why a guest could not find the feature @name, if it could not */
static bool x86_pin_check_cpuid(X86CPU *cpu, const char *name, Error **errp)
{
    if (!cpu->expose_tcg) {
        error_setg(errp, "%s=on can't be found by the guest with "
                   "tcg-cpuid=off, which hides the CPUID leaves that show it: "
                   "use tcg-cpuid=on", name);
        return false;
    }
    if (!(cpu->env.features[FEAT_1_ECX] & CPUID_EXT_HYPERVISOR)) {
        error_setg(errp, "%s=on can't be found by the guest with "
                   "hypervisor=off, by which CPUID leaf 0x40000000 means "
                   "nothing: use hypervisor=on", name);
        return false;
    }
    return true;
}

static bool x86_pin_check_allowed(X86CPU *cpu, int w, const char *name,
                                  uint64_t least, uint64_t known, Error **errp)
{
    uint64_t allowed = cpu->pin_config.allowed[w];

    if (least & ~allowed) {
        error_setg(errp, "%s=0x%" PRIx64 " must contain 0x%" PRIx64 ", which "
                   "a guest can always pin", name, allowed, least);
        return false;
    }
    if (allowed & ~known) {
        error_setg(errp, "%s=0x%" PRIx64 " has bits 0x%" PRIx64 " that are "
                   "unknown: 0x%" PRIx64 " is all there is", name, allowed,
                   allowed & ~known, known);
        return false;
    }
    return true;
}

bool x86_pin_check_config(X86CPU *cpu, Error **errp)
{
    const X86PinConfig *config = &cpu->pin_config;
    bool cr_pin = cpu->env.features[FEAT_GUARD_EAX] & GUARD_CPUID_CR_PIN;
    bool tcg = tcg_enabled() || qtest_enabled();
    X86CPU *first = X86_CPU(first_cpu);

    if (cr_pin && !tcg) {
        error_setg(errp, "cr-pin=on is enforced by TCG only: use -accel tcg");
        return false;
    }
    if (config->kvm_cr_pin && !tcg) {
        error_setg(errp, "kvm-cr-pin=on is for TCG only: under KVM bit 16 of "
                   "CPUID leaf 0x40000001 is KVM_FEATURE_HC_MAP_GPA_RANGE, "
                   "and MSR 0x%x is MSR_KVM_MIGRATION_CONTROL: use -accel tcg",
                   GUARD_RFC_MSR_BASE);
        return false;
    }
    if (config->npiep && !tcg) {
        error_setg(errp, "npiep=on is enforced by TCG only: use -accel tcg");
        return false;
    }
    if ((cr_pin && !x86_pin_check_cpuid(cpu, "cr-pin", errp)) ||
        (config->kvm_cr_pin && !x86_pin_check_cpuid(cpu, "kvm-cr-pin", errp))) {
        return false;
    }
    if (!x86_pin_check_allowed(cpu, 0, "cr-pin-allowed-cr0",
                               X86_PIN_ALLOWED_CR0,
                               CR0_PE_MASK | CR0_MP_MASK | CR0_EM_MASK |
                               CR0_TS_MASK | CR0_NE_MASK | CR0_WP_MASK |
                               CR0_AM_MASK | CR0_NW_MASK | CR0_CD_MASK |
                               CR0_PG_MASK, errp) ||
        !x86_pin_check_allowed(cpu, 1, "cr-pin-allowed-cr4",
                               X86_PIN_ALLOWED_CR4,
                               UINT32_MAX & ~CR4_RESERVED_MASK, errp)) {
        return false;
    }
    /* Translated code is shared by all CPUs */
    if (first && first->pin_config.npiep != config->npiep) {
        error_setg(errp, "a CPU with npiep=%s can't be in a machine whose "
                   "first CPU has npiep=%s: use the same for all",
                   config->npiep ? "on" : "off",
                   first->pin_config.npiep ? "on" : "off");
        return false;
    }
    return true;
}

/*
 * Migration
 */

static bool x86_pins_needed(void *opaque)
{
    X86CPU *cpu = opaque;

    return cpu->env.pins.on || cpu->pin_config.kvm_cr_pin ||
           cpu->env.features[FEAT_GUARD_EAX] & GUARD_CPUID_CR_PIN;
}

static int x86_pins_pre_load(void *opaque)
{
    X86CPU *cpu = opaque;
    X86PinState *st = &cpu->env.pins;

    /* What is loaded replaces what there was */
    if (!st->host) {
        st->host = g_new0(X86HostPin, GUARD_MAX_PINS);
    }
    st->nhost = 0;
    st->npasses = 0;
    return 0;
}

static bool x86_pins_fit(void *opaque, int version_id)
{
    X86CPU *cpu = opaque;

    return cpu->env.pins.nhost <= GUARD_MAX_PINS;
}

/* An image is checked like a command */
static bool x86_pin_check_image(X86CPU *cpu, const X86HostPin *p, Error **errp)
{
    GuardPin pin = {
        .reg = p->reg,
        .index = p->index,
        .current = p->take,
        .mask = p->mask,
        .value = p->value,
        .limit = p->limit,
    };
    bool bits = p->reg < X86_PIN_WORDS;

    if (p->reg >= PIN_REGISTER__MAX || p->action >= GUARD_ACTION__MAX ||
        p->on_init >= PIN_ON_INIT__MAX ||
        (p->index && p->reg != PIN_REGISTER_MSR) ||
        (bits ? !p->mask || (p->value & ~p->mask) || p->take
              : p->mask != UINT64_MAX) ||
        p->limit > (x86_pin_is_table(p->reg) ? UINT16_MAX : 0)) {
        error_setg(errp, "a pin makes no sense");
        return false;
    }
    return guard_pin_ops->check(CPU(cpu), &pin, "a pin", errp);
}

static int x86_pins_post_load(void *opaque, int version_id)
{
    X86CPU *cpu = opaque;
    X86PinState *st = &cpu->env.pins;
    Error *err = NULL;
    uint32_t i, n = st->nhost;
    int w;

    for (w = 0; w < X86_PIN_GUEST; w++) {
        if ((st->ones[w] & st->zeros[w]) ||
            (st->held[w] & ~(st->ones[w] | st->zeros[w]))) {
            error_setg(&err, "the guest's pins contradict themselves");
        }
    }
    for (i = 0; i < n && !err; i++) {
        /* Each has to be the only one of its register */
        st->nhost = i;
        if (x86_pin_find(st, st->host[i].reg, st->host[i].index)) {
            error_setg(&err, "a register is pinned twice");
        } else {
            x86_pin_check_image(cpu, &st->host[i], &err);
        }
        st->host[i].overdue = st->host[i].late = false;
        st->host[i].deadline = 0;
    }
    st->nhost = err ? 0 : n;
    if (err) {
        memset(st->ones, 0, sizeof(st->ones));
        memset(st->zeros, 0, sizeof(st->zeros));
        memset(st->held, 0, sizeof(st->held));
        x86_pin_update(cpu);
        error_reportf_err(err, "register pins of CPU %d: ",
                          CPU(cpu)->cpu_index);
        return -EINVAL;
    }
    for (i = 0; i < n; i++) {
        const X86HostPin *p = &st->host[i];

        if (p->inherit) {
            guard_pin_remember(&(GuardPin) {
                .reg = p->reg,
                .index = p->index,
                .mask = p->mask,
                .value = p->value,
                .limit = p->limit,
                .action = p->action,
                .on_init = p->on_init,
                .grace_ms = p->grace_ms,
                .inherit = true,
            });
        }
    }
    return 0;
}

static const VMStateDescription vmstate_x86_host_pin = {
    .name = "cpu/pins/host",
    .version_id = 1,
    .minimum_version_id = 1,
    .fields = (const VMStateField[]) {
        VMSTATE_UINT8(reg, X86HostPin),
        VMSTATE_UINT8(action, X86HostPin),
        VMSTATE_UINT8(on_init, X86HostPin),
        VMSTATE_BOOL(armed, X86HostPin),
        VMSTATE_BOOL(loose, X86HostPin),
        VMSTATE_BOOL(take, X86HostPin),
        VMSTATE_BOOL(inherit, X86HostPin),
        VMSTATE_UINT32(index, X86HostPin),
        VMSTATE_UINT32(limit, X86HostPin),
        VMSTATE_UINT32(grace_ms, X86HostPin),
        VMSTATE_UINT64(mask, X86HostPin),
        VMSTATE_UINT64(value, X86HostPin),
        VMSTATE_END_OF_LIST()
    }
};

const VMStateDescription vmstate_x86_pins = {
    .name = "cpu/pins",
    .version_id = 1,
    .minimum_version_id = 1,
    .needed = x86_pins_needed,
    .pre_load = x86_pins_pre_load,
    .post_load = x86_pins_post_load,
    .fields = (const VMStateField[]) {
        VMSTATE_UINT64_ARRAY(pin_config.allowed, X86CPU, X86_PIN_GUEST),
        VMSTATE_UINT64_ARRAY(env.pins.ones, X86CPU, X86_PIN_GUEST),
        VMSTATE_UINT64_ARRAY(env.pins.zeros, X86CPU, X86_PIN_GUEST),
        VMSTATE_UINT64_ARRAY(env.pins.held, X86CPU, X86_PIN_GUEST),
        VMSTATE_UINT32(env.pins.nhost, X86CPU),
        VMSTATE_VALIDATE("number of pins", x86_pins_fit),
        VMSTATE_STRUCT_VARRAY_POINTER_UINT32(env.pins.host, X86CPU,
                                             env.pins.nhost,
                                             vmstate_x86_host_pin, X86HostPin),
        VMSTATE_END_OF_LIST()
    }
};

static int x86_pin_refuse_image(X86CPU *cpu, int reg, uint32_t index,
                                uint64_t val)
{
    g_autofree char *number = reg == PIN_REGISTER_MSR
                              ? g_strdup_printf(" 0x%x", index) : g_strdup("");

    error_report("register pins of CPU %d: the image has 0x%" PRIx64 " in "
                 "%s%s, which violates a pin that it has as well",
                 CPU(cpu)->cpu_index, val, PinRegister_str(reg), number);
    return -EINVAL;
}

static int x86_pin_check_register(X86CPU *cpu, const X86HostPin *p)
{
    X86PinValue v = x86_pin_get(&cpu->env, p->reg, p->index);

    return p->armed && !p->loose && !p->take && x86_pin_differs(p, v)
           ? x86_pin_refuse_image(cpu, p->reg, p->index, v.value) : 0;
}

int x86_pin_loaded(X86CPU *cpu)
{
    CPUX86State *env = &cpu->env;
    X86PinState *st = &env->pins;
    uint32_t i;
    int w;

    x86_pin_update(cpu);
    guard_tcg_pin_code(CPU(cpu), st->code);
    if (!st->on) {
        return 0;
    }
    if (!tcg_enabled()) {
        error_report("register pins of CPU %d: they are enforced by TCG only: "
                     "use -accel tcg", CPU(cpu)->cpu_index);
        return -EINVAL;
    }
    if (!x86_pin_enforced(env)) {
        return 0;
    }
    for (w = 0; w < X86_PIN_GUEST && !GUARD_MUTANT(GUARD_HOOK_PIN_LOAD); w++) {
        if (x86_pin_guest_bad(st, w, env->cr[w ? 4 : 0])) {
            return x86_pin_refuse_image(cpu, w, 0, env->cr[w ? 4 : 0]);
        }
    }
    for (i = 0; i < st->nhost && !GUARD_MUTANT(GUARD_HOOK_PIN_LOAD); i++) {
        const X86HostPin *p = &st->host[i];

        if ((p->reg != PIN_REGISTER_MSR || p->index != MSR_IA32_APICBASE) &&
            x86_pin_check_register(cpu, p) < 0) {
            return -EINVAL;
        }
    }
    x86_pin_note_all(env);
    if (env->cr[0] & CR0_PG_MASK) {
        x86_pin_ask_grace(env);
    }
    return 0;
}

int x86_pin_apic_loaded(X86CPU *cpu)
{
    X86PinState *st = &cpu->env.pins;
    X86HostPin *p = x86_pin_find(st, PIN_REGISTER_MSR, MSR_IA32_APICBASE);

    if (!p || GUARD_MUTANT(GUARD_HOOK_PIN_LOAD)) {
        return 0;
    }
    return x86_pin_enforced(&cpu->env) ? x86_pin_check_register(cpu, p) : 0;
}
