/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Instructions that start again after a pause let them through.  Light enough
 * for files that are compiled for user emulation as well.
 */
#ifndef GUARD_STEP_H
#define GUARD_STEP_H

/**
 * guard_cpu_pass_cflags: an instruction is about to be started again
 *
 * For a reason of upstream's: a watchpoint hit.
 * Returns: what the flags of its new block have to have, so that the accesses
 * that were let through are let through again.
 */
uint32_t guard_cpu_pass_cflags(CPUState *cpu, uintptr_t ra);

/* The same for a misaligned atomic, which starts again in a step of its own */
void guard_cpu_exit_atomic(CPUState *cpu, uintptr_t ra);
uint32_t guard_cpu_step_cflags(CPUState *cpu);

#endif /* GUARD_STEP_H */
