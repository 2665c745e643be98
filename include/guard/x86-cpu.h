/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The CPUID leaf through which an x86 guest finds the project's features.
 *
 * Guest ABI: docs/specs/execute-only.rst.
 */
#ifndef GUARD_X86_CPU_H
#define GUARD_X86_CPU_H

/* Absolute: it stays here also where the KVM or Hyper-V leaves move. */
#define GUARD_CPUID_LEAF        0x40000030

/* CPUID[0x40000030].EAX, the feature word FEAT_GUARD_EAX */
#define GUARD_CPUID_XO          (1U << 0)
#define GUARD_CPUID_CR_PIN      (1U << 1)
#define GUARD_CPUID_SUBPAGE     (1U << 3)

/* CPUID[0x40000030].EBX: the first of the project's MSRs */
#define GUARD_MSR_BASE          0x4b564d80
#define GUARD_MSR_SUBPAGE       (GUARD_MSR_BASE + 6)

/* The last RFC's format, for old guests: CPUID[0x40000001].EAX, first MSR */
#define GUARD_RFC_CR_PIN        (1U << 16)
#define GUARD_RFC_MSR_BASE      0x4b564d08

#ifdef CONFIG_USER_ONLY
#define TCG_GUARD_FEATURES      0
#else
#define TCG_GUARD_FEATURES      (GUARD_CPUID_XO | GUARD_CPUID_CR_PIN | \
                                 GUARD_CPUID_SUBPAGE)
#endif

/**
 * guard_cpuid_limit: the highest leaf of the hypervisor range under TCG
 * @env: CPU state
 *
 * With every feature of ours off this is the 0x40000001 of upstream, so that
 * such a guest sees exactly what upstream shows.
 */
static inline uint32_t guard_cpuid_limit(const CPUX86State *env)
{
    return env->features[FEAT_GUARD_EAX] ? GUARD_CPUID_LEAF : 0x40000001;
}

/* CPUID[0x40000030].EBX */
static inline uint32_t guard_cpuid_msr_base(const CPUX86State *env)
{
    return env->features[FEAT_GUARD_EAX] &
           (GUARD_CPUID_CR_PIN | GUARD_CPUID_SUBPAGE) ? GUARD_MSR_BASE : 0;
}

#endif /* GUARD_X86_CPU_H */
