/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Sub-page protection: which RAM can be protected.
 */

#include "qemu/osdep.h"
#include "exec/memory.h"
#include "hw/boards.h"
#include "hw/qdev-core.h"
#include "system/hostmem.h"
#include "guard/mutant.h"
#include "guard/resolve.h"

/* Whether @mr is shown at some place in @from */
static bool guard_region_shows(const MemoryRegion *from,
                               const MemoryRegion *mr)
{
    const MemoryRegion *sub;

    while (from->alias) {
        from = from->alias;
    }
    if (from == mr) {
        return true;
    }
    QTAILQ_FOREACH(sub, &from->subregions, subregions_link) {
        if (guard_region_shows(sub, mr)) {
            return true;
        }
    }
    return false;
}

/*
 * RAM of a backend belongs to the backend, whoever uses it.  The machine's
 * memory and memory devices (DIMMs, NVDIMMs, virtio-mem, virtio-pmem) leave it
 * to the guest; others, such as NVMe for its PMR, have a pointer to it.  Where
 * the machine has mapped it tells them apart: a BAR is never in there.
 */
static bool guard_backend_is_memory(const MemoryRegion *mr)
{
    const MachineState *ms = current_machine;

    return GUARD_MUTANT(GUARD_HOOK_BACKEND_RAM) ||
           (ms->ram && guard_region_shows(ms->ram, mr)) ||
           (ms->device_memory &&
            guard_region_shows(&ms->device_memory->mr, mr));
}

GuardResolve guard_judge_region(MemoryRegion *mr)
{
    Object *owner = memory_region_owner(mr);

    if (!memory_region_is_ram(mr) || memory_region_is_ram_device(mr) ||
        memory_region_is_rom(mr)) {
        return GUARD_RESOLVE_NOT_RAM;
    }
    if (owner && object_dynamic_cast(owner, TYPE_DEVICE) &&
        !GUARD_MUTANT(GUARD_HOOK_OWNED_RAM)) {
        return GUARD_RESOLVE_OWNED;
    }
    if (owner && object_dynamic_cast(owner, TYPE_MEMORY_BACKEND) &&
        !guard_backend_is_memory(mr)) {
        return GUARD_RESOLVE_OWNED;
    }
    return GUARD_RESOLVE_OK;
}

bool guard_is_plugged(MemoryRegion *mr, hwaddr offset, hwaddr len)
{
    RamDiscardManager *rdm = memory_region_get_ram_discard_manager(mr);
    const MemoryRegionSection section = {
        .mr = mr,
        .offset_within_region = offset,
        .size = int128_make64(len),
    };

    return !rdm || GUARD_MUTANT(GUARD_HOOK_UNPLUGGED) ||
           ram_discard_manager_is_populated(rdm, &section);
}
