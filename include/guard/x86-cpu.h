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

#ifdef CONFIG_USER_ONLY
#define TCG_GUARD_FEATURES      0
#else
#define TCG_GUARD_FEATURES      GUARD_CPUID_XO
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

#endif /* GUARD_X86_CPU_H */
