/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Sub-page protection: hooks in target/i386/tcg.
 *
 * They make one access of what an instruction or an event delivery does in
 * several, so that it takes place whole or not at all and gives one event.
 */
#ifndef GUARD_X86_H
#define GUARD_X86_H

#ifdef CONFIG_USER_ONLY
#define guard_x86_access(ac, type)                              (false)
#define guard_store_span(env, addr, size, mmu_idx, ra)          (false)
#define guard_masked_store(env, addr, esize, mask, ra)          ((mask) && 0)
#define guard_stack(sa, bytes)                                  (false)
#define guard_stack64(sa, bytes)                                (false)
#define guard_touch_stack(env, base, sp, mask, bytes, ra)       ((void)0)
#define guard_walk_store(env, addr, mmu_idx)                    (false)
#define guard_state_begin(cpu)                                  ((void)0)
#define guard_span_grows(cpu)                                   ((void)0)
#define guard_touch_store(env, addr, size, mmu_idx, ra)         ((void)0)
#else

#include "exec/mmu-access-type.h"
#include "guard/cputlb.h"

bool guard_x86_access_slow(X86Access *ac, MMUAccessType type);

/* Returns: whether @ac was made to lead to zeroes, or nowhere */
static inline bool guard_x86_access(X86Access *ac, MMUAccessType type)
{
    return guard_active() && guard_x86_access_slow(ac, type);
}

/* Returns: whether to leave out the stores to the range */
static inline bool guard_store_span(CPUX86State *env, vaddr addr,
                                    unsigned size, int mmu_idx, uintptr_t ra)
{
    return guard_active() && !GUARD_MUTANT(GUARD_HOOK_X86_ACCESS) &&
           guard_tcg_span(env, addr, size, MMU_DATA_STORE, mmu_idx, ra);
}

/* Returns: whether to leave out the stores of the elements */
static inline bool guard_masked_store(CPUX86State *env, vaddr addr,
                                      unsigned esize, uint32_t mask,
                                      uintptr_t ra)
{
    return guard_active() &&
           guard_tcg_masked(env, addr, esize, mask,
                            cpu_mmu_index(env_cpu(env), false), ra);
}

bool guard_stack_slow(CPUX86State *env, target_ulong base, target_ulong sp,
                      target_ulong mask, unsigned bytes, int mmu_idx,
                      uintptr_t ra);

/* Returns: whether to leave out the next pushes, @bytes in all */
#define guard_stack(sa, bytes) \
    (guard_active() && \
     guard_stack_slow((sa)->env, (sa)->ss_base, (sa)->sp, (sa)->sp_mask, \
                      bytes, (sa)->mmu_index, (sa)->ra))

/* The same for pushq(), which knows neither a base nor a mask */
#define guard_stack64(sa, bytes) \
    (guard_active() && \
     guard_stack_slow((sa)->env, 0, (sa)->sp, -1, bytes, (sa)->mmu_index, \
                      (sa)->ra))

/*
 * Before loads from the stack that come after a store of the same
 * instruction.  On a stack that wraps around each is on its own.
 */
static inline void guard_touch_stack(CPUX86State *env, target_ulong base,
                                     target_ulong sp, target_ulong mask,
                                     unsigned bytes, uintptr_t ra)
{
    if (guard_active() && bytes && ((sp + bytes - 1) & mask) >= (sp & mask)) {
        guard_tcg_touch(env, base + (sp & mask), bytes, MMU_DATA_LOAD,
                        cpu_mmu_index(env_cpu(env), false), ra);
    }
}

/* Before the first store of an instruction, about one that comes later */
static inline void guard_touch_store(CPUX86State *env, vaddr addr,
                                     unsigned size, int mmu_idx, uintptr_t ra)
{
    if (guard_active()) {
        guard_tcg_touch(env, addr, size, MMU_DATA_STORE, mmu_idx, ra);
    }
}

/* Returns: whether to drop the update of a page-table entry */
static inline bool guard_walk_store(CPUX86State *env, vaddr addr, int mmu_idx)
{
    return guard_active() && guard_tcg_walk_store(env, addr, mmu_idx);
}

#endif /* CONFIG_USER_ONLY */

#endif /* GUARD_X86_H */
