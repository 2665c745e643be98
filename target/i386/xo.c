/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Execute-only guest memory: CPU realization and page-table listing.
 *
 * The rule itself is enforced by the page walker, mmu_translate() in
 * target/i386/tcg/system/excp_helper.c.
 */

#include "qemu/osdep.h"
#include "qapi/error.h"
#include "cpu.h"
#include "exec/address-spaces.h"
#include "exec/cpu-common.h"
#include "hw/boards.h"
#include "hw/i386/x86.h"
#include "system/memory_mapping.h"
#include "system/qtest.h"
#include "system/tcg.h"
#include "tcg/helper-tcg.h"
#include "guard/xo.h"

static bool xo_on(const CPUX86State *env)
{
    return env->features[FEAT_GUARD_EAX] & GUARD_CPUID_XO;
}

/* The width that the guest would read without xo=on. */
static unsigned xo_given_bits(const X86CPU *cpu)
{
    return cpu->phys_bits ? cpu->phys_bits : TCG_PHYS_ADDR_BITS;
}

/* Where RAM ends; 0 for a machine without the layout of a PC. */
static hwaddr xo_ram_end(void)
{
    Object *machine = object_dynamic_cast(OBJECT(current_machine),
                                          TYPE_X86_MACHINE);
    X86MachineState *x86ms;

    if (!machine) {
        return 0;
    }
    x86ms = X86_MACHINE(machine);
    if (!x86ms->above_4g_mem_size) {
        return x86ms->below_4g_mem_size;
    }
    return x86ms->above_4g_mem_start + x86ms->above_4g_mem_size;
}

/* A guest has one set of page tables for all of its CPUs. */
static bool xo_agrees(X86CPU *cpu, Error **errp)
{
    X86CPU *first = X86_CPU(first_cpu);
    bool on = xo_on(&cpu->env);
    bool first_on = first && xo_on(&first->env);
    unsigned bits = xo_given_bits(cpu) - on;

    if (!first || (!on && !first_on) ||
        (on == first_on && bits == first->phys_bits)) {
        return true;
    }
    error_setg(errp, "a CPU with xo=%s and %u physical address bits can't be "
               "in a machine whose first CPU has xo=%s and %u: use the same "
               "xo and phys-bits for all", on ? "on" : "off", bits,
               first_on ? "on" : "off", first->phys_bits);
    return false;
}

bool xo_check(X86CPU *cpu, Error **errp)
{
    CPUX86State *env = &cpu->env;
    unsigned given = xo_given_bits(cpu);
    unsigned bits = given - 1;
    bool lm = env->features[FEAT_8000_0001_EDX] & CPUID_EXT2_LM;

#ifndef TARGET_X86_64
    lm = false;
#endif
    if (!xo_agrees(cpu, errp)) {
        return false;
    }
    if (!xo_on(env)) {
        return true;
    }
    if (!tcg_enabled() && !qtest_enabled()) {
        error_setg(errp, "xo=on is enforced by TCG only: use -accel tcg");
        return false;
    }
    if (!lm) {
        error_setg(errp, "xo=on needs a CPU with long mode, and this one has "
                   "lm=off: use a 64-bit CPU model of qemu-system-x86_64");
        return false;
    }
    if (!cpu->expose_tcg) {
        error_setg(errp, "xo=on can't be found by the guest with "
                   "tcg-cpuid=off, which hides CPUID leaf 0x%x: "
                   "use tcg-cpuid=on", GUARD_CPUID_LEAF);
        return false;
    }
    if (!(env->features[FEAT_1_ECX] & CPUID_EXT_HYPERVISOR)) {
        error_setg(errp, "xo=on can't be found by the guest with "
                   "hypervisor=off, by which CPUID leaf 0x%x means nothing: "
                   "use hypervisor=on", GUARD_CPUID_LEAF);
        return false;
    }
    if (env->cpuid_xlevel < 0x80000008) {
        error_setg(errp, "xo=on needs CPUID leaf 0x80000008, by which the "
                   "guest knows its bit, and xlevel=0x%x leaves it out: "
                   "use xlevel=0x80000008 or more", env->cpuid_xlevel);
        return false;
    }
    if (given < 33) {
        error_setg(errp, "xo=on takes one physical address bit, and "
                   "phys-bits=%u leaves less than 32: use phys-bits=33 or more",
                   given);
        return false;
    }
    /* -1 is not set */
    if (cpu->guest_phys_bits != -1 && cpu->guest_phys_bits > bits) {
        error_setg(errp, "guest-phys-bits=%u is more than the %u bits that "
                   "xo=on leaves of phys-bits=%u: use guest-phys-bits=%u",
                   cpu->guest_phys_bits, bits, given, bits);
        return false;
    }
    if (xo_ram_end() > 1ULL << MIN(bits, 63)) {
        error_setg(errp, "RAM ends at 0x%" HWADDR_PRIx ", above the %u bits "
                   "that xo=on leaves of phys-bits=%u: use less RAM or "
                   "phys-bits=%u", xo_ram_end(), bits, given,
                   64 - clz64(xo_ram_end() - 1) + 1);
        return false;
    }
    return true;
}

void xo_take_phys_bit(X86CPU *cpu)
{
    cpu->phys_bits -= xo_on(&cpu->env);
}

const char *xo_phys_bits_hint(X86CPU *cpu)
{
    return xo_on(&cpu->env) ? " after xo=on took one: raise phys-bits" : "";
}

typedef struct XOWalk {
    CPUX86State *env;
    AddressSpace *as;
    MemTxAttrs attrs;
    hwaddr a20_mask;
    bool lma;
    XOLeafFunc *fn;
    void *opaque;
} XOWalk;

static vaddr xo_canonical(const XOWalk *w, vaddr addr)
{
    if (!w->lma) {
        return (uint32_t)addr;
    }
    return sextract64(addr, 0, w->env->cr[4] & CR4_LA57_MASK ? 57 : 48);
}

static void xo_walk_table(const XOWalk *w, int level, hwaddr table,
                          vaddr base, int prot)
{
    const uint64_t xo = xo_mask(w->env, true);
    const int shift = 12 + 9 * (level - 1);
    const bool pdpt = level == 3 && !w->lma;
    const int entries = pdpt ? 4 : 512;

    for (int i = 0; i < entries; i++) {
        uint64_t pte = address_space_ldq_le(w->as,
                                            (table + i * 8) & w->a20_mask,
                                            w->attrs, NULL);
        vaddr addr = base | (vaddr)i << shift;
        int p = pdpt ? prot : prot & pte;

        if (!(pte & PG_PRESENT_MASK)) {
            continue;
        }
        if (level == 1 || (!pdpt && level <= 3 && (pte & PG_PSE_MASK))) {
            uint64_t size = 1ULL << shift;
            XOLeaf leaf = {
                .vaddr = xo_canonical(w, addr),
                .paddr = pte & PG_ADDRESS_MASK & ~xo & ~(size - 1),
                .size = size,
                .pte = pte,
                .prot = p,
                .xo = pte & xo,
            };

            w->fn(&leaf, w->opaque);
        } else if (!(pte & xo)) {
            xo_walk_table(w, level - 1, pte & PG_ADDRESS_MASK, addr, p);
        }
    }
}

void xo_walk(CPUState *cs, XOLeafFunc *fn, void *opaque)
{
    CPUX86State *env = cpu_env(cs);
    XOWalk w = {
        .env = env,
        .attrs = cpu_get_mem_attrs(env),
        .a20_mask = x86_get_a20_mask(env),
        .lma = env->hflags & HF_LMA_MASK,
        .fn = fn,
        .opaque = opaque,
    };
    int levels = !w.lma ? 3 : env->cr[4] & CR4_LA57_MASK ? 5 : 4;
    hwaddr root = env->cr[3] & (w.lma ? PG_ADDRESS_MASK : 0xffffffe0);

    w.as = cpu_addressspace(cs, w.attrs);
    w.attrs.debug = 1;
    if (w.lma && (root & xo_mask(env, true))) {
        return;
    }
    xo_walk_table(&w, levels, root, 0, PG_USER_MASK | PG_RW_MASK);
}

static void xo_add_mapping(const XOLeaf *leaf, void *opaque)
{
    if (!cpu_physical_memory_is_io(leaf->paddr)) {
        memory_mapping_list_add_merge_sorted(opaque, leaf->paddr, leaf->vaddr,
                                             leaf->size);
    }
}

void xo_get_memory_mapping(CPUState *cs, MemoryMappingList *list)
{
    xo_walk(cs, xo_add_mapping, list);
}
