/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Test builds in which one enforcement hook can be left out.
 *
 * Built with -DGUARD_MUTANTS, the environment variable GUARD_MUTANT=N makes
 * hook N do nothing, so that a test suite can be asked whether it notices.
 * The numbers and what each hook covers: docs/devel/subpage.rst.
 */
#ifndef GUARD_MUTANT_H
#define GUARD_MUTANT_H

enum {
    GUARD_HOOK_TLB_WRITE = 1,
    GUARD_HOOK_TLB_READ,
    GUARD_HOOK_STORE,
    GUARD_HOOK_LOAD,
    GUARD_HOOK_CROSS_PAGE,
    GUARD_HOOK_ATOMIC,
    GUARD_HOOK_PROBE,
    GUARD_HOOK_X86_ACCESS,
    GUARD_HOOK_STACK,
    GUARD_HOOK_MASKED,
    GUARD_HOOK_SPLIT,
    GUARD_HOOK_WALK_STORE,
    GUARD_HOOK_PHYS_WRITE,
    GUARD_HOOK_PHYS_READ,
    GUARD_HOOK_PHYS_STRADDLE,
    GUARD_HOOK_VAPIC,
    GUARD_HOOK_FLUSH,
    GUARD_HOOK_STATE_ONCE,
    GUARD_HOOK_PASS,
    GUARD_HOOK_RESET,
    GUARD_HOOK_RAM_REMOVED,
    GUARD_HOOK_DEBUG,
    /* Devices and lifecycle */
    GUARD_HOOK_CACHE = 200,
    GUARD_HOOK_CACHE_IOMMU = 202,
    GUARD_HOOK_MAP_RECORD,
    GUARD_HOOK_MAP_WAIT,
    GUARD_HOOK_MAP_WHOLE,
    GUARD_HOOK_DMA_ERROR,
    GUARD_HOOK_DISCARD,
    GUARD_HOOK_FOREIGN,
    GUARD_HOOK_VHOST,
    GUARD_HOOK_HOTPLUG,
    GUARD_HOOK_OWNED_RAM,
    GUARD_HOOK_VAPIC_READ,
    GUARD_HOOK_MIGRATION_MODE,
    GUARD_HOOK_MIGRATION_CHECK,
    GUARD_HOOK_HITS,
    GUARD_HOOK_WHO,
    GUARD_HOOK_IOV,
    GUARD_HOOK_MAP_REPORT,
};

#ifdef GUARD_MUTANTS
extern int guard_mutant_number;
#define GUARD_MUTANT(n) (unlikely(guard_mutant_number == (n)))
#else
#define GUARD_MUTANT(n) (false)
#endif

#endif /* GUARD_MUTANT_H */
