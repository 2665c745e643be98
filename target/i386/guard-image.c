/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * An image of an x86 CPU is for CPUs with the same properties of ours.
 */

#include "qemu/osdep.h"
#include "qemu/error-report.h"
#include "cpu.h"
#include "migration/vmstate.h"
#include "guard/x86-cpu.h"
#include "guard/x86-image.h"
#include "guard/x86-pin.h"

/* What CPUID does not show, in the same word; part of the image's format */
#define IMAGE_KVM_CR_PIN    (1U << 30)
#define IMAGE_NPIEP         (1U << 31)

static const struct {
    uint32_t bit;
    const char *name;
} x86_image_names[] = {
    { GUARD_CPUID_XO, "xo" },
    { GUARD_CPUID_CR_PIN, "cr-pin" },
    { GUARD_CPUID_SUBPAGE, "guest-subpage" },
    { IMAGE_KVM_CR_PIN, "kvm-cr-pin" },
    { IMAGE_NPIEP, "npiep" },
};

static X86ImageFeatures x86_image_of(const X86CPU *cpu)
{
    uint32_t features = cpu->env.features[FEAT_GUARD_EAX];

    if (cpu->pin_config.kvm_cr_pin) {
        features |= IMAGE_KVM_CR_PIN;
    }
    if (cpu->pin_config.npiep) {
        features |= IMAGE_NPIEP;
    }
    return (X86ImageFeatures) {
        .features = features,
        .phys_bits = features & GUARD_CPUID_XO ? cpu->phys_bits : 0,
    };
}

static bool x86_image_needed(void *opaque)
{
    return x86_image_of(opaque).features;
}

static int x86_image_pre_save(void *opaque)
{
    X86CPU *cpu = opaque;

    cpu->image_features = x86_image_of(cpu);
    return 0;
}

int x86_image_pre_load(void *opaque)
{
    X86CPU *cpu = opaque;

    cpu->image_features = (X86ImageFeatures) { };
    x86_pin_image_free(cpu);
    return 0;
}

int x86_image_loaded(X86CPU *cpu)
{
    X86ImageFeatures is = x86_image_of(cpu);
    X86ImageFeatures was = cpu->image_features;
    uint32_t differ = is.features ^ was.features;
    int index = CPU(cpu)->cpu_index;
    unsigned i;

    for (i = 0; i < ARRAY_SIZE(x86_image_names); i++) {
        if (differ & x86_image_names[i].bit) {
            bool on = was.features & x86_image_names[i].bit;

            error_report("the image's CPU %d has %s=%s, and this one %s=%s: "
                         "use the same on both sides", index,
                         x86_image_names[i].name, on ? "on" : "off",
                         x86_image_names[i].name, on ? "off" : "on");
            return -EINVAL;
        }
    }
    if (differ) {
        error_report("the image's CPU %d has features 0x%x that this QEMU "
                     "does not know: use the QEMU that made it, or a newer "
                     "one", index, differ);
        return -EINVAL;
    }
    if (is.phys_bits != was.phys_bits) {
        error_report("the image's CPU %d has xo=on and %u physical address "
                     "bits, and this one %u: use the same phys-bits on both "
                     "sides", index, was.phys_bits, is.phys_bits);
        return -EINVAL;
    }
    return x86_pin_loaded(cpu);
}

const VMStateDescription vmstate_x86_image = {
    .name = "cpu/guard",
    .version_id = 1,
    .minimum_version_id = 1,
    .needed = x86_image_needed,
    .pre_save = x86_image_pre_save,
    .fields = (const VMStateField[]) {
        VMSTATE_UINT32(image_features.features, X86CPU),
        VMSTATE_UINT32(image_features.phys_bits, X86CPU),
        VMSTATE_END_OF_LIST()
    }
};
