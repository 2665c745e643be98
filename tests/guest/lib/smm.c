/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * System management mode. SeaBIOS leaves SMBASE of the boot processor at
 * 0xa0000, SMIs by port 0xb2 enabled, and SMRAM closed, but not locked.
 */

#include "internal.h"

#define SMRAM_HANDLER   0xa8000
#define SMRAM_OPEN      0x4a    /* D_OPEN, G_SMRAME, at 0xa0000 */
#define SMRAM_CLOSED    0x0a
#define SMRAM_LOCKED    0x10

static uint64_t (*smi_fn)(uint64_t);
static uint64_t smi_arg, smi_result;
bool smi_done;

bool smm_init(void)
{
    uint32_t id = pci_read32(0, 0, 0);
    int reg = id == 0x12378086 ? 0x72 : id == 0x29c08086 ? 0x9d : 0;
    uint32_t smram;

    if (!reg) {
        return false;
    }
    smram = pci_read32(0, 0, reg) >> (reg & 3) * 8;
    if (smram & SMRAM_LOCKED) {
        return false;
    }
    pci_write8(0, 0, reg, SMRAM_OPEN);
    memcpy((void *)SMRAM_HANDLER, smi_start, smi_end - smi_start);
    pci_write8(0, 0, reg, SMRAM_CLOSED);
    return true;
}

void smi_main(void)
{
    write_cr3(kernel_space.root);
    smi_result = smi_fn(smi_arg);
    __atomic_store_n(&smi_done, true, __ATOMIC_RELEASE);
}

void smm_prepare(uint64_t (*fn)(uint64_t), uint64_t arg)
{
    smi_fn = fn;
    smi_arg = arg;
    smi_done = false;
}

uint64_t smm_run(uint64_t (*fn)(uint64_t), uint64_t arg)
{
    smm_prepare(fn, arg);
    outb(0xb2, 0x5a);
    while (!__atomic_load_n(&smi_done, __ATOMIC_ACQUIRE)) {
        pause();
    }
    return smi_result;
}
