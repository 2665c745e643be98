/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Sub-page protection that an x86 guest asks for: hooks in target/i386.
 *
 * Guest ABI: docs/specs/subpage.rst.
 */
#ifndef GUARD_X86_REQUEST_H
#define GUARD_X86_REQUEST_H

#include "guard/mutant.h"
#include "guard/x86-cpu.h"
#include "guard/request.h"

#ifdef CONFIG_USER_ONLY
#define guard_request_check(cpu, errp)                  (true)
#else

/* Whether @index is the MSR that takes requests, and this CPU has it */
static inline bool guard_request_msr(CPUX86State *env, uint32_t index)
{
    return index == GUARD_MSR_SUBPAGE &&
           (env->features[FEAT_GUARD_EAX] & GUARD_CPUID_SUBPAGE ||
            GUARD_MUTANT(GUARD_HOOK_REQUEST_MSR));
}

/* WRMSR of it; raises #GP(0) if the request array is malformed */
void guard_request_wrmsr(CPUX86State *env, uint64_t val, uintptr_t ra);

/**
 * guard_request_check: refuse guest-subpage=on where it can't be had
 * @cpu: CPU in realize, features expanded but not filtered yet
 * @errp: error
 *
 * Returns: false, with @errp set, if it is refused.
 */
bool guard_request_check(X86CPU *cpu, Error **errp);

#endif /* CONFIG_USER_ONLY */

#endif /* GUARD_X86_REQUEST_H */
