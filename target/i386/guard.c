/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Sub-page protection for x86 under TCG: what the architecture decides, and
 * block accesses.
 */

#include "qemu/osdep.h"
#include "qemu/host-utils.h"
#include "cpu.h"
#include "exec/cpu_ldst.h"
#include "exec/exec-all.h"
#include "exec/helper-proto.h"
#include "exec/translation-block.h"
#include "tcg/insn-start-words.h"
#include "tcg/tcg.h"
#include "tcg/helper-tcg.h"
#include "tcg/access.h"
#include "guard/x86.h"
#include "guard/x86-pin.h"
#include "guard/x86-request.h"

static G_NORETURN void guard_x86_fault(CPUState *cs, uintptr_t ra)
{
    raise_exception_err_ra(cpu_env(cs), EXCP0D_GPF, 0, ra);
}

/* Reads the instruction's address without touching the CPU state. */
static uint64_t guard_x86_pc(CPUState *cs, uintptr_t ra)
{
    const TranslationBlock *tb = ra ? tcg_tb_lookup(ra) : NULL;
    CPUX86State *env = cpu_env(cs);
    uint64_t data[TARGET_INSN_START_WORDS];
    uint64_t pc;

    if (!tb || !cpu_unwind_state_data(cs, ra, data)) {
        return env->eip;
    }
    /* As upstream does when it restores EIP: data[0] is a linear address */
    pc = data[0];
    if (tb_cflags(tb) & CF_PCREL) {
        pc |= (env->eip + tb->cs_base) & TARGET_PAGE_MASK;
    }
    return tb->flags & HF_CS64_MASK ? pc : (uint32_t)(pc - tb->cs_base);
}

static const GuardArchOps guard_x86_ops = {
    .raise_fault = guard_x86_fault,
    .pc = guard_x86_pc,
    .pass_again = x86_pin_pass_again,
    .phys_mmu_idx = 1U << MMU_PHYS_IDX | 1U << MMU_NESTED_IDX,
};

static void __attribute__((constructor)) guard_x86_init(void)
{
    guard_arch = &guard_x86_ops;
}

bool guard_x86_access_slow(X86Access *ac, MMUAccessType type)
{
    /* Nothing writes here: a block that is prepared for loads only loads */
    static uint8_t zeroes[GUARD_PAGE_SIZE];

    if (GUARD_MUTANT(GUARD_HOOK_X86_ACCESS) ||
        !guard_tcg_span(ac->env, ac->vaddr, ac->size, type, ac->mmu_idx,
                        ac->ra)) {
        return false;
    }
    ac->size1 = ac->size;
    ac->haddr1 = type == MMU_DATA_STORE ? guard_vcpu(env_cpu(ac->env))->sink
                                        : zeroes;
    return true;
}

bool guard_stack_slow(CPUX86State *env, target_ulong base, target_ulong sp,
                      target_ulong mask, unsigned bytes, int mmu_idx,
                      uintptr_t ra)
{
    target_ulong low = (sp - bytes) & mask;

    if (GUARD_MUTANT(GUARD_HOOK_STACK) || ((sp - 1) & mask) < low) {
        /* A stack that wraps around: each push is an access of its own */
        guard_cpu_forget(env_cpu(env), ra);
        return false;
    }
    return guard_tcg_span(env, base + low, bytes, MMU_DATA_STORE, mmu_idx, ra);
}

static target_ulong guard_linear(CPUX86State *env, target_ulong addr)
{
    return env->hflags & HF_CS64_MASK ? addr : (uint32_t)addr;
}

/* Stack address @ofs bytes from @sp */
static target_ulong guard_stack_addr(CPUX86State *env, target_ulong sp,
                                     int ofs)
{
    if (env->hflags & HF_CS64_MASK) {
        return sp + ofs;
    }
    return (uint32_t)(env->segs[R_SS].base +
                      ((sp + ofs) &
                       (env->hflags & HF_SS32_MASK ? 0xffffffff : 0xffff)));
}

/* A number of equal words that are accessed one by one, as one block */
typedef struct GuardWords {
    X86Access ac;
    bool block;
    int size;
    int mmu_idx;
} GuardWords;

/* The words lie at [@sp + @from, @sp + @to) on the stack */
static void guard_words_init(GuardWords *w, CPUX86State *env, target_ulong sp,
                             int from, int to, int size, MMUAccessType type,
                             uintptr_t ra)
{
    target_ulong first = guard_stack_addr(env, sp, from);
    target_ulong last = guard_stack_addr(env, sp, to - 1);

    w->ac.env = env;
    w->ac.ra = ra;
    w->size = size;
    w->mmu_idx = cpu_mmu_index(env_cpu(env), false);
    w->block = last - first == to - 1 - from ||
               GUARD_MUTANT(GUARD_HOOK_WORDS_WRAP);
    if (w->block) {
        access_prepare(&w->ac, env, first, to - from, type, ra);
    } else {
        guard_cpu_forget(env_cpu(env), ra);
    }
}

static void guard_word_store(GuardWords *w, target_ulong addr, uint64_t val)
{
    CPUX86State *env = w->ac.env;

    switch (w->size) {
    case 2:
        if (w->block) {
            access_stw(&w->ac, addr, val);
        } else {
            cpu_stw_mmuidx_ra(env, addr, val, w->mmu_idx, w->ac.ra);
        }
        break;
    case 4:
        if (w->block) {
            access_stl(&w->ac, addr, val);
        } else {
            cpu_stl_mmuidx_ra(env, addr, val, w->mmu_idx, w->ac.ra);
        }
        break;
    default:
        if (w->block) {
            access_stq(&w->ac, addr, val);
        } else {
            cpu_stq_mmuidx_ra(env, addr, val, w->mmu_idx, w->ac.ra);
        }
    }
}

static uint64_t guard_word_load(CPUX86State *env, target_ulong addr, int size,
                                int mmu_idx, uintptr_t ra)
{
    switch (size) {
    case 2:
        return cpu_lduw_mmuidx_ra(env, addr, mmu_idx, ra);
    case 4:
        return cpu_ldl_mmuidx_ra(env, addr, mmu_idx, ra);
    default:
        return cpu_ldq_mmuidx_ra(env, addr, mmu_idx, ra);
    }
}

void helper_guard_pusha(CPUX86State *env, uint32_t size)
{
    target_ulong sp = env->regs[R_ESP];
    GuardWords w;
    int i;

    guard_words_init(&w, env, sp, -8 * (int)size, 0, size, MMU_DATA_STORE,
                     GETPC());
    for (i = 0; i < 8; i++) {
        guard_word_store(&w, guard_stack_addr(env, sp, (i - 8) * (int)size),
                         env->regs[7 - i]);
    }
}

void helper_guard_popa(CPUX86State *env, uint32_t size)
{
    uintptr_t ra = GETPC();
    target_ulong sp = env->regs[R_ESP];
    uint32_t val[8];
    GuardWords w;
    int i;

    guard_words_init(&w, env, sp, 0, 8 * size, size, MMU_DATA_LOAD, ra);
    for (i = 0; i < 8; i++) {
        target_ulong addr = guard_stack_addr(env, sp, i * size);

        if (w.block) {
            val[i] = size == 2 ? access_ldw(&w.ac, addr)
                               : access_ldl(&w.ac, addr);
        } else {
            val[i] = guard_word_load(env, addr, size, w.mmu_idx, ra);
        }
    }
    for (i = 0; i < 8; i++) {
        target_ulong *reg = &env->regs[7 - i];

        if (7 - i != R_ESP) {
            *reg = size == 2 ? deposit64(*reg, 0, 16, val[i]) : val[i];
        }
    }
}

void helper_guard_enter(CPUX86State *env, target_ulong frame, uint32_t size,
                        uint32_t level)
{
    uintptr_t ra = GETPC();
    target_ulong ebp = env->regs[R_EBP];
    GuardWords w;
    int i;

    for (i = 1; i < level; i++) {
        guard_tcg_touch(env, guard_stack_addr(env, ebp, -(int)size * i), size,
                        MMU_DATA_LOAD, cpu_mmu_index(env_cpu(env), false), ra);
    }
    guard_words_init(&w, env, frame, -(int)(size * level), size, size,
                     MMU_DATA_STORE, ra);
    guard_word_store(&w, guard_stack_addr(env, frame, 0), ebp);
    for (i = 1; i < level; i++) {
        guard_word_store(&w, guard_stack_addr(env, frame, -(int)size * i),
                         guard_word_load(env,
                                         guard_stack_addr(env, ebp,
                                                          -(int)size * i),
                                         size, w.mmu_idx, ra));
    }
    guard_word_store(&w, guard_stack_addr(env, frame, -(int)(size * level)),
                     frame);
}

void helper_guard_load32(CPUX86State *env, target_ulong addr, void *reg)
{
    X86Access ac;
    uint64_t val[4];
    int i;

    access_prepare(&ac, env, addr, 32, MMU_DATA_LOAD, GETPC());
    for (i = 0; i < 4; i++) {
        val[i] = access_ldq(&ac, addr + i * 8);
    }
    for (i = 0; i < 4; i++) {
        ((YMMReg *)reg)->YMM_Q(i) = val[i];
    }
}

void helper_guard_store32(CPUX86State *env, target_ulong addr, void *reg)
{
    X86Access ac;
    int i;

    access_prepare(&ac, env, addr, 32, MMU_DATA_STORE, GETPC());
    for (i = 0; i < 4; i++) {
        access_stq(&ac, addr + i * 8, ((YMMReg *)reg)->YMM_Q(i));
    }
}

void helper_guard_store_pair(CPUX86State *env, target_ulong addr, uint64_t lo,
                             uint64_t hi, uint32_t size)
{
    X86Access ac;

    access_prepare(&ac, env, addr, 2 * size, MMU_DATA_STORE, GETPC());
    if (size == 8) {
        access_stq(&ac, addr, lo);
        access_stq(&ac, addr + 8, hi);
    } else {
        access_stl(&ac, addr, lo);
        access_stl(&ac, addr + 4, hi);
    }
}

void helper_guard_store_dt(CPUX86State *env, target_ulong addr,
                           target_ulong limit, target_ulong base,
                           uint32_t size)
{
    X86Access ac;

    addr = guard_linear(env, addr);
    access_prepare(&ac, env, addr, 2 + size, MMU_DATA_STORE, GETPC());
    access_stw(&ac, addr, limit);
    if (size == 8) {
        access_stq(&ac, addr + 2, base);
    } else {
        access_stl(&ac, addr + 2, base);
    }
}

void helper_guard_touch(CPUX86State *env, target_ulong addr, uint32_t size)
{
    uintptr_t ra = GETPC();
    int mmu_idx = cpu_mmu_index(env_cpu(env), false);

    /*
     * Page faults come before the side effect as well, also while nothing is
     * protected any more, which this block needn't know yet.
     */
    if (!GUARD_MUTANT(GUARD_HOOK_TOUCH)) {
        guard_tcg_touch(env, addr, size, MMU_DATA_STORE, mmu_idx, ra);
    }
}

void guard_request_wrmsr(CPUX86State *env, uint64_t val, uintptr_t ra)
{
    /* What an SVM guest calls physical is not what the machine does */
    bool nested = env->hflags & HF_GUEST_MASK &&
                  !GUARD_MUTANT(GUARD_HOOK_REQUEST_NESTED);

    if (nested ||
        !guard_guest_request(env_cpu(env), val,
                             env_archcpu(env)->guest_subpage_quota)) {
        raise_exception_err_ra(env, EXCP0D_GPF, 0, ra);
    }
}
