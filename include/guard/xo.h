/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Execute-only guest memory: hooks in target/i386.
 *
 * With "-cpu ...,xo=on" the guest reads a physical address width M that is
 * one less than configured, and page-table bit M makes a leaf execute-only.
 * Rules: docs/specs/execute-only.rst.
 */
#ifndef GUARD_XO_H
#define GUARD_XO_H

#include "guard/x86-cpu.h"

#ifdef CONFIG_USER_ONLY
static inline bool xo_check(X86CPU *cpu, Error **errp)
{
    return true;
}

static inline void xo_take_phys_bit(X86CPU *cpu)
{
}
#else

/**
 * xo_mask: the execute-only bit of a page-table entry
 * @env: CPU state
 * @pae: whether the entry is of PAE or long-mode paging, the two that have
 *       the bit
 *
 * Returns: bit M as a mask, or 0 where entries have no such bit.
 */
static inline uint64_t xo_mask(CPUX86State *env, bool pae)
{
    if (likely(!(env->features[FEAT_GUARD_EAX] & GUARD_CPUID_XO)) || !pae) {
        return 0;
    }
    return 1ULL << env_archcpu(env)->phys_bits;
}

/**
 * xo_check: refuse xo=on where it can't be enforced or used
 * @cpu: CPU in realize, features expanded but not filtered yet
 * @errp: error
 *
 * Before the CPU becomes known to the machine, as a later error would leave
 * it half realized in the list of CPUs.
 *
 * Returns: false, with @errp set, if it is refused.
 */
bool xo_check(X86CPU *cpu, Error **errp);

/**
 * xo_take_phys_bit: take the top physical address bit if xo=on
 * @cpu: CPU in realize that xo_check() let through; its phys_bits is final
 *       otherwise
 */
void xo_take_phys_bit(X86CPU *cpu);

/**
 * xo_phys_bits_hint: what to add to a complaint about too few phys-bits
 * @cpu: CPU
 *
 * Returns: a part of a sentence that says what xo=on took, or "".
 */
const char *xo_phys_bits_hint(X86CPU *cpu);

/**
 * XOLeaf: a present leaf of the current page tables
 * @vaddr: linear address, canonical
 * @paddr: physical address, without the execute-only bit
 * @size: page size in bytes
 * @pte: the leaf as it stands in memory
 * @prot: PG_USER_MASK and PG_RW_MASK combined over all levels
 * @xo: whether the leaf is execute-only
 */
typedef struct XOLeaf {
    vaddr vaddr;
    hwaddr paddr;
    uint64_t size;
    uint64_t pte;
    int prot;
    bool xo;
} XOLeaf;

typedef void XOLeafFunc(const XOLeaf *leaf, void *opaque);

/**
 * xo_walk: visit every present leaf of a CPU's page tables in address order
 * @cs: CPU, with PAE or long-mode paging on
 * @fn: called for each leaf
 * @opaque: passed on to @fn
 *
 * An entry that points to a table and has the execute-only bit is left out,
 * as the CPU doesn't walk through it.  Reads memory as a debugger does.
 */
void xo_walk(CPUState *cs, XOLeafFunc *fn, void *opaque);

/* dump-guest-memory -p, info mem and info tlb for a CPU that has xo=on */
void xo_get_memory_mapping(CPUState *cs, MemoryMappingList *list);
void xo_info_mem(Monitor *mon, CPUState *cs);
void xo_info_tlb(Monitor *mon, CPUState *cs);

#endif /* CONFIG_USER_ONLY */

#endif /* GUARD_XO_H */
