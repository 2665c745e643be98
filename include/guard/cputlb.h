/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Sub-page protection: hooks in the softmmu TLB, accel/tcg/cputlb.c.
 */
#ifndef GUARD_CPUTLB_H
#define GUARD_CPUTLB_H

#include "exec/memop.h"
#include "hw/core/cpu.h"
#include "guard/cpu.h"

/*
 * Bits above those of MemOp: the two halves of a 32-byte access that TCG
 * makes as two.  The first one is decided for both.
 */
#define MO_GUARD_FIRST      (1 << 11)
#define MO_GUARD_SECOND     (1 << 12)

/*
 * Whether any vCPU got an entry with TLB_GUARD for stores since the table was
 * changed.  For speed only: it may be false for a moment while one has such.
 */
extern bool guard_tlb_flagged;

int guard_tlb_fill_slow(CPUTLBEntryFull *full, ram_addr_t ram);

/**
 * guard_tlb_fill: whether a TLB entry needs the slow path
 * @full: entry that is being made; gets the protected sub-pages if so
 * @ram: RAM address of the page
 *
 * What the entry gets holds as long as the entry: a change of the table that
 * forbids anything flushes it.
 * Returns: PAGE_READ if loads need TLB_GUARD, PAGE_WRITE if stores do.
 */
static inline int guard_tlb_fill(CPUTLBEntryFull *full, ram_addr_t ram)
{
    return guard_active() ? guard_tlb_fill_slow(full, ram) : 0;
}

/**
 * guard_hit: the protected sub-pages that an access touches
 * @full: TLB entry of the page, with TLB_GUARD for @type
 * @addr: linear address
 * @size: bytes, at least 1; the range may not leave the page
 * @type: MMU_DATA_LOAD or MMU_DATA_STORE
 */
static inline uint32_t guard_hit(const CPUTLBEntryFull *full, vaddr addr,
                                 unsigned size, MMUAccessType type)
{
    return full->extra.guard[type] &
           guard_subpages(addr & (GUARD_PAGE_SIZE - 1), size);
}

/* For a probe: whether a host pointer may be handed out */
static inline bool guard_probe_ok(const CPUTLBEntryFull *full, vaddr addr,
                                  int size, MMUAccessType type)
{
    return GUARD_MUTANT(GUARD_HOOK_PROBE) ||
           !guard_hit(full, addr, MAX(size, 1), type);
}

/* The flags of an entry, without TLB_GUARD if no protected byte is probed */
static inline int guard_probe_flags(const CPUTLBEntryFull *full, int flags,
                                    vaddr addr, int size, MMUAccessType type)
{
    return flags & TLB_GUARD && guard_probe_ok(full, addr, size, type)
           ? flags & ~TLB_GUARD : flags;
}

/**
 * guard_tcg_span: decide on a block access as one
 * @env: CPU
 * @addr: linear address
 * @size: bytes, at most a page
 * @type: MMU_DATA_LOAD or MMU_DATA_STORE
 * @mmu_idx: MMU index
 * @ra: return address of the instruction, or 0
 *
 * Raises whatever exception the access as a whole would, before any of it
 * takes place.  Sends the event, if there is one.
 *
 * Returns: whether the caller shall leave out the access, or read zeroes.
 */
bool guard_tcg_span(CPUArchState *env, vaddr addr, unsigned size,
                    MMUAccessType type, int mmu_idx, uintptr_t ra);

/**
 * guard_tcg_masked: the same for a store of some elements
 * @esize: size of an element
 * @mask: bit i set: element i is stored
 */
bool guard_tcg_masked(CPUArchState *env, vaddr addr, unsigned esize,
                      uint32_t mask, int mmu_idx, uintptr_t ra);

/**
 * guard_tcg_touch: leave the instruction if an access would do so
 *
 * For an instruction that has a side effect before the access.  Sends an
 * event only if it leaves.
 */
void guard_tcg_touch(CPUArchState *env, vaddr addr, unsigned size,
                     MMUAccessType type, int mmu_idx, uintptr_t ra);

/**
 * guard_tcg_walk_store: decide on setting bits in a page-table entry
 * @gpa: address as in the walk
 *
 * Never leaves the instruction.  Sends the event, if there is one.
 *
 * Returns: whether the update shall be dropped.
 */
bool guard_tcg_walk_store(CPUArchState *env, vaddr gpa, int mmu_idx);

#endif /* GUARD_CPUTLB_H */
