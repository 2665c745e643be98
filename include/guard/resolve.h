/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Sub-page protection: from guest-physical memory to changes of the table.
 */
#ifndef GUARD_RESOLVE_H
#define GUARD_RESOLVE_H

#include "exec/memory.h"
#include "guard/table.h"

/* Why a piece of guest-physical memory can't be protected */
typedef enum GuardResolve {
    GUARD_RESOLVE_OK,
    GUARD_RESOLVE_NOT_RAM,
    GUARD_RESOLVE_OWNED,        /* a device has a pointer to it */
    GUARD_RESOLVE_UNPLUGGED,    /* virtio-mem has not given it to the guest */
    GUARD_RESOLVE_ODD,          /* not mapped at a multiple of a sub-page */
} GuardResolve;

/**
 * guard_judge_region: whether a region as such can be protected
 * @mr: region that is in the memory the guest sees, or the one of a RAM block
 *
 * Called with the BQL held.  Returns: GUARD_RESOLVE_OK, _NOT_RAM or _OWNED.
 */
GuardResolve guard_judge_region(MemoryRegion *mr);

/**
 * guard_is_plugged: whether the guest was given a piece of RAM
 * @mr: RAM
 * @offset: in @mr
 * @len: bytes, at least 1
 *
 * Called with the BQL held.
 */
bool guard_is_plugged(MemoryRegion *mr, hwaddr offset, hwaddr len);

/**
 * guard_resolve: find the RAM behind a range
 * @addr: guest-physical address; set to where it failed
 * @left: bytes; the range doesn't wrap around
 * @c: what to do with it
 * @changes: array of GuardChange, to which a piece for each RAM is added
 * @mr: set to the region at @addr if it failed
 *
 * Called in an RCU critical section.
 */
GuardResolve guard_resolve(hwaddr *addr, hwaddr left, GuardChange c,
                           GArray *changes, MemoryRegion **mr);

/*
 * Whether a command is waiting for devices, and may yet go back to what was
 * there before it; with the BQL held
 */
bool guard_is_arming(void);

/**
 * guard_records_to_save: what a state that is saved shall have protected
 *
 * While a command is waiting that is what was there before; the command fails
 * then.  Called with the BQL held.
 *
 * Returns: an array of GuardRecord to be unreferenced by the caller.
 */
GArray *guard_records_to_save(void);

/* Why protections can't be changed at the moment, or NULL */
const char *guard_subpage_refused(void);

#endif /* GUARD_RESOLVE_H */
