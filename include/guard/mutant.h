/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Test builds in which one enforcement hook can be left out.
 *
 * Built with -DGUARD_MUTANTS, the environment variable GUARD_MUTANT=N makes
 * hook N do nothing, so that a test suite can be asked whether it notices.
 * The numbers and what each hook covers: docs/devel/subpage.rst, and from 100
 * on docs/devel/pinning.rst.
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
    GUARD_HOOK_WAKEUP,

    GUARD_HOOK_PIN_CR0 = 100,
    GUARD_HOOK_PIN_CR4,
    GUARD_HOOK_PIN_CLTS,
    GUARD_HOOK_PIN_TASK_TS,
    GUARD_HOOK_PIN_EFER,
    GUARD_HOOK_PIN_LMA,
    GUARD_HOOK_PIN_MSR,
    GUARD_HOOK_PIN_DT,
    GUARD_HOOK_PIN_SWAPGS,
    GUARD_HOOK_PIN_WRBASE,
    GUARD_HOOK_PIN_SEG_LOAD,
    GUARD_HOOK_PIN_SEG_REAL,
    GUARD_HOOK_PIN_SEG_KEEP,
    GUARD_HOOK_PIN_VMLOAD,
    GUARD_HOOK_PIN_VMLOAD_FORCE,
    GUARD_HOOK_PIN_VMRUN,
    GUARD_HOOK_PIN_VMRUN_FORCE,
    GUARD_HOOK_PIN_VMEXIT,
    GUARD_HOOK_PIN_RSM,
    GUARD_HOOK_PIN_RESET,
    GUARD_HOOK_PIN_INIT_EVENT,
    GUARD_HOOK_PIN_GRACE,
    GUARD_HOOK_PIN_STRICT,
    GUARD_HOOK_PIN_PASS,
    GUARD_HOOK_PIN_INHERIT,
    GUARD_HOOK_PIN_LOAD,
    GUARD_HOOK_PIN_ADD_ONLY,
    GUARD_HOOK_PIN_NPIEP,
    GUARD_HOOK_PIN_ARM,
};

#ifdef GUARD_MUTANTS
extern int guard_mutant_number;
#define GUARD_MUTANT(n) (unlikely(guard_mutant_number == (n)))
#else
#define GUARD_MUTANT(n) (false)
#endif

#endif /* GUARD_MUTANT_H */
