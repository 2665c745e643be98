/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Register pinning: hooks in target/i386.
 *
 * Every way by which a guest changes a control register, an MSR or a table
 * register asks here before; what loads saved state corrects it after.
 * Which hook covers what: docs/devel/pinning.rst.
 */
#ifndef GUARD_X86_PIN_H
#define GUARD_X86_PIN_H

#include "guard/mutant.h"
#include "guard/x86-cpu.h"

/*
 * Returns: HF_UMIP_MASK for the blocks that are translated as if CR4.UMIP were
 * set, as "npiep=on" wants for all at CPL 3.
 */
static inline uint32_t x86_pin_umip(CPUX86State *env, int cpl)
{
    return unlikely(env_archcpu(env)->pin_config.npiep) && cpl == 3 &&
           !GUARD_MUTANT(GUARD_HOOK_PIN_NPIEP) ? HF_UMIP_MASK : 0;
}

#ifdef CONFIG_USER_ONLY
#define x86_pin_clts(env, ra)                           (false)
#define x86_pin_task_ts(env, ra)                        (false)
#define x86_pin_load_seg(env, seg, base, ra)            (false)
#define x86_pin_seg_loaded(env, seg)                    ((void)0)
#define x86_pin_keep_base(env, seg, base)               (base)
#define x86_pin_task_seg(env, seg, selector)            (0)
#define x86_pin_reset(cpu)                              ((void)0)
#define x86_pin_check_config(cpu, errp)                 (true)
#define x86_pin_realize(cpu)                            ((void)0)
#define x86_pin_unrealize(cpu)                          ((void)0)
#else

#include "exec/cpu-common.h"

/*
 * Instructions.  Each returns whether to leave out the write, and does not
 * return if the instruction ends in #GP(0) or the VM stops before it; nothing
 * may have been changed before.  @ra is the return address into generated
 * code.
 */

bool x86_pin_slow_cr0(CPUX86State *env, uint64_t val, uintptr_t ra);
bool x86_pin_slow_word(CPUX86State *env, int reg, uint64_t val, uintptr_t ra);
bool x86_pin_slow_msr(CPUX86State *env, uint32_t index, uint64_t val,
                      uintptr_t ra);
void x86_pin_slow_msr_written(CPUX86State *env, uint32_t index);
void x86_pin_slow_seg_loaded(CPUX86State *env, int seg);
bool x86_pin_slow_clts(CPUX86State *env, uintptr_t ra);
bool x86_pin_slow_load_seg(CPUX86State *env, int seg, target_ulong base,
                           uintptr_t ra);
void x86_pin_slow_vmload(CPUX86State *env, uint64_t vmcb, int mmu_idx,
                         uintptr_t ra);
void x86_pin_slow_vmrun(CPUX86State *env, uint64_t vmcb, uintptr_t ra);

/* Whether CR0, CR4 or EFER may become @val without a closer look */
static inline bool x86_pin_word_ok(const CPUX86State *env, int reg,
                                   uint64_t val)
{
    return !env->pins.watch &&
           !((val ^ env->pins.value[reg]) & env->pins.mask[reg]);
}

/*
 * MOV CR0, LMSW.  Bits that CR0 does not have, and ET, may differ in @val from
 * what CR0 becomes; PG changes EFER, too.
 */
static inline bool x86_pin_cr0(CPUX86State *env, uint64_t val, uintptr_t ra)
{
    return unlikely(env->pins.on) && !GUARD_MUTANT(GUARD_HOOK_PIN_CR0) &&
           !(x86_pin_word_ok(env, 0, (uint32_t)val | CR0_ET_MASK) &&
             !((val ^ env->cr[0]) & CR0_PG_MASK)) &&
           x86_pin_slow_cr0(env, val, ra);
}

/* MOV CR4 with a value that is valid */
static inline bool x86_pin_cr4(CPUX86State *env, uint64_t val, uintptr_t ra)
{
    return unlikely(env->pins.on) && !GUARD_MUTANT(GUARD_HOOK_PIN_CR4) &&
           !x86_pin_word_ok(env, 1, val) &&
           x86_pin_slow_word(env, 1, val, ra);
}

/* WRMSR of EFER, with what the register is to become */
static inline bool x86_pin_efer(CPUX86State *env, uint64_t val, uintptr_t ra)
{
    return unlikely(env->pins.on) && !GUARD_MUTANT(GUARD_HOOK_PIN_EFER) &&
           !x86_pin_word_ok(env, 2, val) &&
           x86_pin_slow_word(env, 2, val, ra);
}

/* WRMSR of another register */
static inline bool x86_pin_msr(CPUX86State *env, uint32_t index, uint64_t val,
                               uintptr_t ra)
{
    return unlikely(env->pins.msrs >> (index & 63) & 1) &&
           !GUARD_MUTANT(GUARD_HOOK_PIN_MSR) &&
           x86_pin_slow_msr(env, index, val, ra);
}

/*
 * WRMSR of another register is over.  What it holds now arms a pin: not what
 * was written, which upstream may refuse or ignore.
 */
static inline void x86_pin_msr_written(CPUX86State *env, uint32_t index)
{
    if (unlikely(env->pins.watch && (env->pins.msrs >> (index & 63) & 1))) {
        x86_pin_slow_msr_written(env, index);
    }
}

static inline bool x86_pin_clts(CPUX86State *env, uintptr_t ra)
{
    return unlikely(env->pins.on) && !GUARD_MUTANT(GUARD_HOOK_PIN_CLTS) &&
           !x86_pin_word_ok(env, 0, env->cr[0] & ~CR0_TS_MASK) &&
           x86_pin_slow_clts(env, ra);
}

/* A load of FS or GS in protected mode; @base comes from the descriptor */
static inline bool x86_pin_load_seg(CPUX86State *env, int seg,
                                    target_ulong base, uintptr_t ra)
{
    return unlikely(env->pins.code) && seg >= R_FS &&
           !GUARD_MUTANT(GUARD_HOOK_PIN_SEG_LOAD) &&
           x86_pin_slow_load_seg(env, seg, base, ra);
}

/* The load is over: storing the accessed bit could still have failed. */
static inline void x86_pin_seg_loaded(CPUX86State *env, int seg)
{
    if (unlikely(env->pins.code && env->pins.watch) && seg >= R_FS) {
        x86_pin_slow_seg_loaded(env, seg);
    }
}

/* Before VMLOAD loads anything from the VMCB at @vmcb */
static inline void x86_pin_vmload(CPUX86State *env, uint64_t vmcb,
                                  int mmu_idx, uintptr_t ra)
{
    if (unlikely(env->pins.on) && !GUARD_MUTANT(GUARD_HOOK_PIN_VMLOAD)) {
        x86_pin_slow_vmload(env, vmcb, mmu_idx, ra);
    }
}

/* Before VMRUN saves or loads anything */
static inline void x86_pin_vmrun(CPUX86State *env, uint64_t vmcb, uintptr_t ra)
{
    if (unlikely(env->pins.on) && !GUARD_MUTANT(GUARD_HOOK_PIN_VMRUN)) {
        x86_pin_slow_vmrun(env, vmcb, ra);
    }
}

/*
 * The same where the CPU, not an instruction, makes the change: what can't be
 * left out is kept at its pinned value.
 */

bool x86_pin_slow_task_ts(CPUX86State *env, uintptr_t ra);
target_ulong x86_pin_slow_keep_base(CPUX86State *env, int seg,
                                    target_ulong base, bool tell);

/* Returns: whether a task switch leaves CR0.TS alone */
static inline bool x86_pin_task_ts(CPUX86State *env, uintptr_t ra)
{
    return unlikely(env->pins.on) && !GUARD_MUTANT(GUARD_HOOK_PIN_TASK_TS) &&
           !x86_pin_word_ok(env, 0, env->cr[0] | CR0_TS_MASK) &&
           x86_pin_slow_task_ts(env, ra);
}

/* Returns: the base that a segment register gets instead of @base */
static inline target_ulong x86_pin_keep_base(CPUX86State *env, int seg,
                                             target_ulong base)
{
    if (unlikely(env->pins.code) && seg >= R_FS &&
        !GUARD_MUTANT(GUARD_HOOK_PIN_SEG_KEEP)) {
        return x86_pin_slow_keep_base(env, seg, base, true);
    }
    return base;
}

/*
 * Returns: the base of a segment register in a task switch between the load
 * of the selectors and that of the descriptors, which can fail.  A null
 * selector has no descriptor to load.
 */
static inline target_ulong x86_pin_task_seg(CPUX86State *env, int seg,
                                            unsigned selector)
{
    if (unlikely(env->pins.code) && seg >= R_FS &&
        !GUARD_MUTANT(GUARD_HOOK_PIN_SEG_KEEP)) {
        return x86_pin_slow_keep_base(env, seg, 0, !(selector & 0xfffc));
    }
    return 0;
}

/**
 * x86_pin_slow_reapply: correct registers that saved state was loaded into
 * @env: CPU state, complete but for what the caller doesn't touch
 */
void x86_pin_slow_reapply(CPUX86State *env);

/* At the end of RSM, VMLOAD, #VMEXIT, and of VMRUN's loads */
static inline void x86_pin_reapply(CPUX86State *env, int hook)
{
    if (unlikely(env->pins.on) && !GUARD_MUTANT(hook)) {
        x86_pin_slow_reapply(env);
    }
}

/* An instruction that 'cont' let through after a pause starts once more. */
void x86_pin_pass_again(CPUState *cs);

/* Whether @index is one of the MSRs by which the guest pins, if it has them */
bool x86_pin_guest_has_msr(CPUX86State *env, uint32_t index);

/*
 * Writes and reads one of them.  A write that is not allowed changes nothing
 * and returns false.  (An output argument would make helper_wrmsr() and
 * helper_rdmsr() guard their stack on each call.)
 */
bool x86_pin_guest_wrmsr(CPUX86State *env, uint32_t index, uint64_t val);
uint64_t x86_pin_guest_rdmsr(CPUX86State *env, uint32_t index);

/**
 * x86_pin_check_config: refuse CPU properties that can't be had
 * @cpu: CPU in realize, features expanded but not filtered yet
 * @errp: error
 *
 * Returns: false, with @errp set, if they are refused.
 */
bool x86_pin_check_config(X86CPU *cpu, Error **errp);

/* A CPU that doesn't run yet gets the pins that are for all CPUs. */
void x86_pin_realize(X86CPU *cpu);

/* The CPU's thread is gone. */
void x86_pin_unrealize(X86CPU *cpu);

/**
 * x86_pin_reset: clear the guest's pins, and make the host's wait
 * @cpu: CPU, with its registers at their values after a reset
 */
void x86_pin_reset(X86CPU *cpu);

/* After x86_pin_reset() for an INIT: what is different then, and tell of it. */
void x86_pin_init(X86CPU *cpu);

/* How the pins travel */
extern const VMStateDescription vmstate_x86_pins;

/* Forget the pins of an image that did not come to x86_pin_loaded(). */
void x86_pin_image_free(X86CPU *cpu);

/**
 * x86_pin_loaded: check the registers of an image against its pins, and take
 *                 these over
 * @cpu: CPU, loaded
 *
 * Returns: a negative errno value, after a message, if the image can't run.
 */
int x86_pin_loaded(X86CPU *cpu);

#endif /* CONFIG_USER_ONLY */

#endif /* GUARD_X86_PIN_H */
