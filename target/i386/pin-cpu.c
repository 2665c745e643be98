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

/* What can be allowed for CR0 and CR4 */
static bool x86_pin_check_allowed(int w, uint64_t allowed, Error **errp)
{
    static const char *names[] = { "cr-pin-allowed-cr0", "cr-pin-allowed-cr4" };
    static const uint64_t leasts[] = {
        X86_PIN_ALLOWED_CR0, X86_PIN_ALLOWED_CR4,
    };
    static const uint64_t knowns[] = {
        CR0_PE_MASK | CR0_MP_MASK | CR0_EM_MASK | CR0_TS_MASK | CR0_NE_MASK |
        CR0_WP_MASK | CR0_AM_MASK | CR0_NW_MASK | CR0_CD_MASK | CR0_PG_MASK,
        UINT32_MAX & ~CR4_RESERVED_MASK,
    };
    const char *name = names[w];
    uint64_t least = leasts[w];
    uint64_t known = knowns[w];

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
    if (!x86_pin_check_allowed(0, config->allowed[0], errp) ||
        !x86_pin_check_allowed(1, config->allowed[1], errp)) {
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

/*
 * The stream goes through a struct of its own: the CPU gets nothing of it
 * before all of it was checked, and keeps what it has if it is refused or ends
 * too early.
 */
struct X86PinImage {
    uint64_t allowed[X86_PIN_GUEST];
    uint64_t ones[X86_PIN_GUEST];
    uint64_t zeros[X86_PIN_GUEST];
    uint64_t held[X86_PIN_GUEST];
    uint32_t nhost;
    X86HostPin host[GUARD_MAX_PINS];
};

void x86_pin_image_free(X86CPU *cpu)
{
    g_clear_pointer(&cpu->pin_config.image, g_free);
}

static int x86_pins_pre_save(void *opaque)
{
    X86CPU *cpu = opaque;
    const X86PinState *st = &cpu->env.pins;
    X86PinImage *image = g_new0(X86PinImage, 1);

    x86_pin_image_free(cpu);
    cpu->pin_config.image = image;
    memcpy(image->allowed, cpu->pin_config.allowed, sizeof(image->allowed));
    memcpy(image->ones, st->ones, sizeof(image->ones));
    memcpy(image->zeros, st->zeros, sizeof(image->zeros));
    memcpy(image->held, st->held, sizeof(image->held));
    image->nhost = st->nhost;
    memcpy(image->host, st->host, st->nhost * sizeof(image->host[0]));
    return 0;
}

static int x86_pins_post_save(void *opaque)
{
    x86_pin_image_free(opaque);
    return 0;
}

static int x86_pins_pre_load(void *opaque)
{
    X86CPU *cpu = opaque;

    x86_pin_image_free(cpu);
    cpu->pin_config.image = g_new0(X86PinImage, 1);
    return 0;
}

static bool x86_pins_fit(void *opaque, int version_id)
{
    X86PinImage *image = opaque;

    return image->nhost <= GUARD_MAX_PINS;
}

/* An image is checked like a command */
static bool x86_pin_check_image(X86CPU *cpu, const X86HostPin *p, Error **errp)
{
    GuardPin pin = {
        .reg = p->reg,
        .index = p->index,
        .mask = p->mask,
        .value = p->value,
        .limit = p->limit,
        .action = p->action,
        .on_init = p->on_init,
    };

    if (!guard_pin_is_sane(&pin)) {
        error_setg(errp, "a pin makes no sense");
        return false;
    }
    return guard_pin_ops->check(CPU(cpu), &pin, "a pin", errp);
}

static bool x86_pin_check_guest(const X86PinImage *image, int w, Error **errp)
{
    uint64_t pinned = image->ones[w] | image->zeros[w];

    if (!x86_pin_check_allowed(w, image->allowed[w], errp)) {
        return false;
    }
    if ((image->ones[w] & image->zeros[w]) || (image->held[w] & ~pinned) ||
        (pinned & ~image->allowed[w])) {
        error_setg(errp, "the guest's pins contradict themselves");
        return false;
    }
    return true;
}

static bool x86_pin_check_host(X86CPU *cpu, const X86PinImage *image,
                               uint32_t n, Error **errp)
{
    const X86HostPin *p = &image->host[n];
    uint32_t i;

    for (i = 0; i < n; i++) {
        if (image->host[i].reg == p->reg && image->host[i].index == p->index) {
            error_setg(errp, "a register is pinned twice");
            return false;
        }
    }
    if (!x86_pin_check_image(cpu, p, errp)) {
        return false;
    }
    if (p->reg < X86_PIN_GUEST &&
        ((image->ones[p->reg] & p->mask & ~p->value) ||
         (image->zeros[p->reg] & p->mask & p->value))) {
        error_setg(errp, "host and guest pin a bit to different values");
        return false;
    }
    return true;
}

static int x86_pins_post_load(void *opaque, int version_id)
{
    X86CPU *cpu = opaque;
    const X86PinImage *image = cpu->pin_config.image;
    Error *err = NULL;
    bool good = true;
    uint32_t i;
    int w;

    for (w = 0; w < X86_PIN_GUEST && good; w++) {
        good = x86_pin_check_guest(image, w, &err);
    }
    for (i = 0; i < image->nhost && good; i++) {
        good = x86_pin_check_host(cpu, image, i, &err);
    }
    if (!good) {
        x86_pin_image_free(cpu);
        error_reportf_err(err, "register pins of CPU %d: ",
                          CPU(cpu)->cpu_index);
        return -EINVAL;
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
        VMSTATE_UINT32(index, X86HostPin),
        VMSTATE_UINT32(limit, X86HostPin),
        VMSTATE_UINT32(grace_ms, X86HostPin),
        VMSTATE_UINT64(mask, X86HostPin),
        VMSTATE_UINT64(value, X86HostPin),
        VMSTATE_UINT64(let, X86HostPin),
        VMSTATE_UINT32(let_limit, X86HostPin),
        VMSTATE_END_OF_LIST()
    }
};

static const VMStateDescription vmstate_x86_pin_image = {
    .name = "cpu/pins/image",
    .version_id = 1,
    .minimum_version_id = 1,
    .fields = (const VMStateField[]) {
        VMSTATE_UINT64_ARRAY(allowed, X86PinImage, X86_PIN_GUEST),
        VMSTATE_UINT64_ARRAY(ones, X86PinImage, X86_PIN_GUEST),
        VMSTATE_UINT64_ARRAY(zeros, X86PinImage, X86_PIN_GUEST),
        VMSTATE_UINT64_ARRAY(held, X86PinImage, X86_PIN_GUEST),
        VMSTATE_UINT32(nhost, X86PinImage),
        /* Before room is needed for them */
        VMSTATE_VALIDATE("number of pins", x86_pins_fit),
        VMSTATE_STRUCT_VARRAY_UINT32(host, X86PinImage, nhost, 1,
                                     vmstate_x86_host_pin, X86HostPin),
        VMSTATE_END_OF_LIST()
    }
};

const VMStateDescription vmstate_x86_pins = {
    .name = "cpu/pins",
    .version_id = 1,
    .minimum_version_id = 1,
    .needed = x86_pins_needed,
    .pre_save = x86_pins_pre_save,
    .post_save = x86_pins_post_save,
    .pre_load = x86_pins_pre_load,
    .post_load = x86_pins_post_load,
    .fields = (const VMStateField[]) {
        VMSTATE_STRUCT_POINTER(pin_config.image, X86CPU,
                               vmstate_x86_pin_image, X86PinImage),
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

static bool x86_pin_image_any(const X86PinImage *image)
{
    return image->nhost || image->ones[0] || image->zeros[0] ||
           image->ones[1] || image->zeros[1];
}

static int x86_pin_check_register(X86CPU *cpu, const X86HostPin *p)
{
    X86PinValue v = x86_pin_get(&cpu->env, p->reg, p->index);

    return p->armed && !p->loose && x86_pin_differs(p, v)
           ? x86_pin_refuse_image(cpu, p->reg, p->index, v.value) : 0;
}

/* The registers of an image against the pins in it */
static int x86_pin_check_registers(X86CPU *cpu, const X86PinImage *image)
{
    CPUX86State *env = &cpu->env;
    uint32_t i;
    int w;

    if (!x86_pin_enforced(env) || GUARD_MUTANT(GUARD_HOOK_PIN_LOAD)) {
        return 0;
    }
    for (w = 0; w < X86_PIN_GUEST; w++) {
        uint64_t val = env->cr[w ? 4 : 0];

        if ((val ^ image->ones[w]) & image->held[w]) {
            return x86_pin_refuse_image(cpu, w, 0, val);
        }
    }
    for (i = 0; i < image->nhost; i++) {
        const X86HostPin *p = &image->host[i];

        if (x86_pin_check_register(cpu, p) < 0) {
            return -EINVAL;
        }
    }
    return 0;
}

/* What is loaded replaces what there was */
/* Registers came without pins: those that there are have yet to see them. */
static void x86_pin_wait_again(X86PinState *st)
{
    uint32_t i;

    for (i = 0; i < st->nhost; i++) {
        X86HostPin *p = &st->host[i];

        p->armed = p->loose = p->overdue = p->late = false;
        p->deadline = 0;
    }
}

/*
 * The image has none of the host's pins: those that there are stay and wait,
 * and have the last word on what the guest pinned.
 */
static void x86_pin_keep_host(X86PinState *st)
{
    uint32_t i;

    x86_pin_wait_again(st);
    for (i = 0; i < st->nhost; i++) {
        const X86HostPin *p = &st->host[i];

        if (p->reg < X86_PIN_GUEST) {
            st->ones[p->reg] &= ~(p->mask & ~p->value);
            st->zeros[p->reg] &= ~(p->mask & p->value);
            st->held[p->reg] &= st->ones[p->reg] | st->zeros[p->reg];
        }
    }
}

static void x86_pin_take_image(X86CPU *cpu, const X86PinImage *image)
{
    X86PinState *st = &cpu->env.pins;

    memcpy(cpu->pin_config.allowed, image->allowed, sizeof(image->allowed));
    memcpy(st->ones, image->ones, sizeof(st->ones));
    memcpy(st->zeros, image->zeros, sizeof(st->zeros));
    memcpy(st->held, image->held, sizeof(st->held));
    if (!image->nhost) {
        x86_pin_keep_host(st);
        return;
    }
    if (!st->host) {
        st->host = g_new0(X86HostPin, GUARD_MAX_PINS);
    }
    memcpy(st->host, image->host, image->nhost * sizeof(st->host[0]));
    st->nhost = image->nhost;
}

int x86_pin_loaded(X86CPU *cpu)
{
    CPUX86State *env = &cpu->env;
    X86PinState *st = &env->pins;
    g_autofree X86PinImage *image = g_steal_pointer(&cpu->pin_config.image);

    if (image) {
        if (!tcg_enabled() && x86_pin_image_any(image)) {
            error_report("register pins of CPU %d: they are enforced by TCG "
                         "only: use -accel tcg", CPU(cpu)->cpu_index);
            return -EINVAL;
        }
        if (x86_pin_check_registers(cpu, image) < 0) {
            return -EINVAL;
        }
        x86_pin_take_image(cpu, image);
    } else {
        x86_pin_wait_again(st);
    }
    x86_pin_update(cpu);
    guard_tcg_pin_code(CPU(cpu), st->code);
    if (st->on && x86_pin_enforced(env)) {
        x86_pin_note_all(env);
        if (env->cr[0] & CR0_PG_MASK) {
            x86_pin_ask_grace(env);
        }
    }
    return 0;
}
