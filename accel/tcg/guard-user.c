/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * User emulation protects and pins nothing.
 */

#include "qemu/osdep.h"
#include "hw/core/cpu.h"
#include "guard/step.h"

void guard_cpu_exit_atomic(CPUState *cpu, uintptr_t ra)
{
}

uint32_t guard_cpu_step_cflags(CPUState *cpu)
{
    return 0;
}
