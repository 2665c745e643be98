/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Sub-page protection: hooks where memory is reached by physical address.
 */
#ifndef GUARD_PHYSMEM_H
#define GUARD_PHYSMEM_H

#include "guard/guard.h"
#include "exec/memory.h"

extern MemoryRegion guard_blocked_mr;

/* Thread-local: above 0 while a debugger's access is under way */
extern __thread int guard_debug_depth;

MemoryRegion *guard_filter_slow(MemoryRegion *mr, hwaddr *xlat, hwaddr *plen,
                                bool is_write, MemTxAttrs attrs);

/**
 * guard_filter: clip a translated range to where rights don't change
 * @mr: region that was found
 * @xlat: offset in @mr; set to the RAM address if the range is blocked
 * @plen: length, may be NULL; shortened if rights change within it
 * @is_write: direction
 * @attrs: of the access
 *
 * Called in an RCU critical section.  Emits nothing, as a translation may be
 * speculative.
 *
 * Returns: @mr, or a region whose accesses are refused and reported.
 */
static inline MemoryRegion *guard_filter(MemoryRegion *mr, hwaddr *xlat,
                                         hwaddr *plen, bool is_write,
                                         MemTxAttrs attrs)
{
    if (guard_active()) {
        return guard_filter_slow(mr, xlat, plen, is_write, attrs);
    }
    return mr;
}

MemTxResult guard_blocked_write(hwaddr ram, const void *buf, hwaddr len,
                                MemTxAttrs attrs);
MemTxResult guard_blocked_read(hwaddr ram, void *buf, hwaddr len,
                               MemTxAttrs attrs);

/* Plain accesses to RAM by its address; in system/physmem.c */
void guard_ram_write(ram_addr_t ram, const void *buf, hwaddr len);
void guard_ram_read(ram_addr_t ram, void *buf, hwaddr len);

/* A piece of RAM and where the guest sees it */
typedef struct GuardMapping {
    ram_addr_t start;
    ram_addr_t last;
    hwaddr gpa;
} GuardMapping;

/**
 * guard_mapping: the RAM behind a range of a FlatView
 * @start, @len, @mr, @offset: as flatview_for_each_range() gives them
 * @m: filled in
 *
 * Returns: false if the range is not RAM.
 */
bool guard_mapping(Int128 start, Int128 len, const MemoryRegion *mr,
                   hwaddr offset, GuardMapping *m);

/* The RAM block that @ram lies in; called in an RCU critical section */
RAMBlock *guard_ram_block(ram_addr_t ram, ram_addr_t *offset);

/* One access to a blocked run, in full, so that it gives one event */
static inline bool guard_is_blocked(const MemoryRegion *mr)
{
    return unlikely(mr == &guard_blocked_mr);
}

/* Around a debugger's page walk, which sees through protections */
static inline void guard_debug_begin(void)
{
    guard_debug_depth++;
}

static inline void guard_debug_end(void)
{
    guard_debug_depth--;
}

static inline void guard_debug_leave(const int *unused)
{
    guard_debug_end();
}

/* The same from here to the end of the block */
#define GUARD_DEBUG_SCOPE()                                             \
    G_GNUC_UNUSED __attribute__((cleanup(guard_debug_leave)))           \
    const int guard_debug_scope = (guard_debug_begin(), 0)

/**
 * guard_may_patch: whether a device may patch the guest's code
 * @cpu: CPU in whose address space the code is
 * @addr: linear address
 * @len: bytes that will be written
 * @dev: the device
 *
 * For code that writes as a debugger would, on behalf of a device.  A
 * refusal is counted and sent as an event.
 */
bool guard_may_patch(CPUState *cpu, vaddr addr, unsigned len, Object *dev);

#endif /* GUARD_PHYSMEM_H */
