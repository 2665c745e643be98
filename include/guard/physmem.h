/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Sub-page protection: hooks where memory is reached by physical address.
 */
#ifndef GUARD_PHYSMEM_H
#define GUARD_PHYSMEM_H

#include "qemu/units.h"
#include "guard/guard.h"
#include "exec/memory.h"

extern MemoryRegion guard_blocked_mr;

/* Whether guard_map_whole() ever gave a bounce buffer in place of memory */
extern bool guard_bounced;

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

/**
 * guard_filter_whole: the same for an access that can't be done in parts
 * @mr: region that was found
 * @xlat: offset in @mr; set to the RAM address if the range is blocked
 * @len: bytes
 * @is_write: direction
 *
 * Called in an RCU critical section.  Returns: the region of blocked accesses
 * if any byte is blocked.
 */
MemoryRegion *guard_filter_whole(MemoryRegion *mr, hwaddr *xlat, hwaddr len,
                                 bool is_write);

/* Attributes of a translation that is not filtered */
#define GUARD_UNFILTERED    ((MemTxAttrs) { .debug = 1 })

/* guard_filter_whole() for what an IOMMU translated on behalf of a cache */
static inline MemoryRegion *guard_filter_iommu(MemoryRegion *mr, hwaddr *xlat,
                                               hwaddr len, bool is_write)
{
    return GUARD_MUTANT(GUARD_HOOK_CACHE_IOMMU)
           ? mr : guard_filter_whole(mr, xlat, len, is_write);
}

MemTxResult guard_blocked_write(hwaddr ram, const void *buf, hwaddr len,
                                MemTxAttrs attrs);
MemTxResult guard_blocked_read(hwaddr ram, void *buf, hwaddr len,
                               MemTxAttrs attrs);

/* Plain accesses to RAM by its address; in system/physmem.c */
void guard_ram_write(ram_addr_t ram, const void *buf, hwaddr len);
void guard_ram_read(ram_addr_t ram, void *buf, hwaddr len);

/* For migration they were written to; in system/physmem.c as well */
void guard_ram_copy_again(ram_addr_t start, ram_addr_t last);

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

MemoryRegion *guard_map_reported_slow(MemoryRegion *mr, hwaddr *xlat,
                                      hwaddr len, bool is_write);

/**
 * guard_map_reported: give a device a pointer where accesses are only reported
 * @mr: what guard_filter() gave
 * @xlat: offset in it; set to the offset in the RAM if it is only reported
 * @len: bytes
 * @is_write: direction
 *
 * Called in an RCU critical section.  The map counts as the access.
 * Returns: @mr, or the RAM.
 */
static inline MemoryRegion *guard_map_reported(MemoryRegion *mr, hwaddr *xlat,
                                               hwaddr len, bool is_write)
{
    if (guard_is_blocked(mr)) {
        return guard_map_reported_slow(mr, xlat, len, is_write);
    }
    return mr;
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

/**
 * guard_may_read: whether a device may read RAM by a host pointer
 * @mr: RAM
 * @offset: in @mr
 * @len: bytes, at least 1
 * @dev: the device
 *
 * A refusal is counted and sent as an event.
 */
bool guard_may_read(MemoryRegion *mr, hwaddr offset, unsigned len,
                    Object *dev);

/**
 * guard_clear_ram: let a device fill RAM with zeroes, but for what is protected
 * @mr: RAM
 * @offset: in @mr
 * @len: bytes
 * @dev: the device
 *
 * Called with the BQL held.  A refusal is counted and sent as an event.
 */
void guard_clear_ram(MemoryRegion *mr, hwaddr offset, hwaddr len, Object *dev);

/**
 * guard_range_protected: whether any sub-page of a range of RAM is protected
 * @ram: first byte
 * @len: bytes
 *
 * Called with the BQL held, or in an RCU critical section.
 */
bool guard_range_protected(ram_addr_t ram, uint64_t len);

bool guard_discard_slow(ram_addr_t ram, uint64_t len);

/**
 * guard_may_discard: whether pages of RAM may be thrown away
 * @ram: first byte
 * @len: bytes
 */
static inline bool guard_may_discard(ram_addr_t ram, uint64_t len)
{
    return !guard_active() || guard_discard_slow(ram, len);
}

/*
 * Live maps: see docs/devel/subpage.rst
 */

/**
 * guard_map_record: a device is given a pointer to RAM
 * @host: the pointer
 * @who: address space or device; used as a name only
 * @len: bytes
 * @is_write: whether the device may write there
 *
 * Returns: whether the BQL is held, so that no table was published since the
 * memory was looked up.
 */
bool guard_map_record(void *host, const void *who, hwaddr len, bool is_write);

/* It gives the pointer back; the whole, or a part */
void guard_map_forget(void *host, hwaddr len, bool is_write);

/**
 * guard_map_serial: a number that maps made from now on exceed
 */
uint64_t guard_map_serial(void);

/* A live map: whose, where, and for what */
typedef struct GuardLiveMap {
    const void *who;
    ram_addr_t ram;
    hwaddr len;
    bool is_write;
} GuardLiveMap;

/**
 * guard_map_conflict: find a live map that some changes would forbid
 * @changes: sorted by start, not overlapping
 * @n: how many
 * @serial: only maps up to this number
 * @map: set to what was found
 *
 * Called with the BQL held.  Returns: the change, or NULL.
 */
const GuardChange *guard_map_conflict(const GuardChange *changes, size_t n,
                                      uint64_t serial, GuardLiveMap *map);

/* How much of a range of RAM a device can have a pointer to */
typedef enum GuardMapKind {
    GUARD_MAP_FREE,             /* all */
    GUARD_MAP_REPORTED,         /* all, and the map counts as the access */
    GUARD_MAP_REFUSED,          /* not all */
} GuardMapKind;

/* These are called in an RCU critical section. */
GuardMapKind guard_map_kind_near(ram_addr_t ram, hwaddr len, bool is_write);

static inline GuardMapKind guard_map_kind(ram_addr_t ram, hwaddr len,
                                          bool is_write)
{
    return guard_near(ram, len) ? guard_map_kind_near(ram, len, is_write)
                                : GUARD_MAP_FREE;
}

/* An event for each protected run of a range */
void guard_map_tell(ram_addr_t ram, hwaddr len, bool is_write);

/* Read a range without an event; what can't be read is zero */
void guard_map_copy(ram_addr_t ram, void *buf, hwaddr len);

/* Bytes that the bounce buffers of guard_map_whole() can take in all */
#define GUARD_WHOLE_MAX     (64 * MiB)

/**
 * guard_map_whole: map guest memory for a device that needs it in one piece
 * @as, @addr, @plen, @is_write: as in address_space_map()
 *
 * Where some of a piece of RAM is protected, a bounce buffer stands for all of
 * it, so that a descriptor doesn't fall into many pieces, and one that was in
 * one piece before a migration still is.  Such buffers don't count against the
 * limit of the address space, but GUARD_WHOLE_MAX; NULL, with the events, when
 * that is used up.
 */
void *guard_map_whole(AddressSpace *as, hwaddr addr, hwaddr *plen,
                      bool is_write);

bool guard_iov_refused_slow(const struct iovec *iov, unsigned n);

/**
 * guard_iov_refused: whether any of some mapped buffers is not what it stands
 *                    for, because the memory is protected
 * @iov: as address_space_map() gave them
 * @n: how many
 */
static inline bool guard_iov_refused(const struct iovec *iov, unsigned n)
{
    return qatomic_read(&guard_bounced) &&
           guard_iov_refused_slow(iov, n);
}

#endif /* GUARD_PHYSMEM_H */
