/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Which of the project's CPU properties an image was saved with.
 *
 * A guest that goes on with other ones would find bits of its page tables,
 * MSRs or CPUID changed, or its pins and protections gone.
 */
#ifndef GUARD_X86_IMAGE_H
#define GUARD_X86_IMAGE_H

/**
 * X86ImageFeatures: as saved
 * @features: the CPUID word of the leaf 0x40000030, and in the bits that it
 *            does not use the properties that are not in it
 * @phys_bits: with xo=on the number of the execute-only bit, otherwise 0
 */
typedef struct X86ImageFeatures {
    uint32_t features;
    uint32_t phys_bits;
} X86ImageFeatures;

#ifndef CONFIG_USER_ONLY

/* "cpu/guard"; an image without it had none of the properties */
extern const VMStateDescription vmstate_x86_image;

/* Before a CPU is loaded: forget an image that could not be loaded whole. */
int x86_image_pre_load(void *opaque);

/**
 * x86_image_loaded: refuse an image that this CPU is not made for
 * @cpu: CPU, loaded but for its APIC
 *
 * Returns: a negative errno value, after a message, if the image can't run.
 */
int x86_image_loaded(X86CPU *cpu);

#endif /* CONFIG_USER_ONLY */

#endif /* GUARD_X86_IMAGE_H */
