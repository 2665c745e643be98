/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Sub-page protection in a QEMU without TCG, where nothing can be armed.
 */

#include "qemu/osdep.h"
#include "guard/cpu.h"

void guard_tcg_sync(void)
{
}

void guard_tcg_sync_later(void)
{
}

void guard_tcg_pin_code(CPUState *cpu, bool on)
{
}

void guard_tcg_sync_insn(CPUState *cpu)
{
}

void guard_tcg_wait_insn(CPUState *cpu)
{
}

bool guard_state_seen(CPUState *cpu, ram_addr_t ram, bool write)
{
    return false;
}
