/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * "info mem" and "info tlb" for a CPU that has execute-only pages.
 *
 * The lines are those of upstream, except that an execute-only page shows
 * neither 'r' nor 'w' and ends in "xo".
 */

#include "qemu/osdep.h"
#include "cpu.h"
#include "monitor/monitor.h"
#include "system/memory_mapping.h"
#include "guard/xo.h"

static void xo_print_leaf(const XOLeaf *leaf, void *opaque)
{
    Monitor *mon = opaque;
    uint64_t pte = leaf->pte;

    monitor_printf(mon, HWADDR_FMT_plx ": " HWADDR_FMT_plx
                   " %c%c%c%c%c%c%c%c%c%s\n",
                   leaf->vaddr, leaf->paddr,
                   pte & PG_NX_MASK ? 'X' : '-',
                   pte & PG_GLOBAL_MASK ? 'G' : '-',
                   leaf->size > TARGET_PAGE_SIZE ? 'P' : '-',
                   pte & PG_DIRTY_MASK ? 'D' : '-',
                   pte & PG_ACCESSED_MASK ? 'A' : '-',
                   pte & PG_PCD_MASK ? 'C' : '-',
                   pte & PG_PWT_MASK ? 'T' : '-',
                   pte & PG_USER_MASK ? 'U' : '-',
                   pte & PG_RW_MASK ? 'W' : '-',
                   leaf->xo ? " xo" : "");
}

void xo_info_tlb(Monitor *mon, CPUState *cs)
{
    xo_walk(cs, xo_print_leaf, mon);
}

typedef struct XORun {
    Monitor *mon;
    XOLeaf run;
} XORun;

static void xo_print_run(XORun *r)
{
    if (r->run.size) {
        monitor_printf(r->mon, HWADDR_FMT_plx "-" HWADDR_FMT_plx " "
                       HWADDR_FMT_plx " %c%c%c%s\n",
                       r->run.vaddr, r->run.vaddr + r->run.size, r->run.size,
                       r->run.prot & PG_USER_MASK ? 'u' : '-',
                       r->run.xo ? '-' : 'r',
                       r->run.prot & PG_RW_MASK && !r->run.xo ? 'w' : '-',
                       r->run.xo ? " xo" : "");
    }
}

static void xo_add_to_run(const XOLeaf *leaf, void *opaque)
{
    XORun *r = opaque;

    if (r->run.size && r->run.vaddr + r->run.size == leaf->vaddr &&
        r->run.prot == leaf->prot && r->run.xo == leaf->xo) {
        r->run.size += leaf->size;
        return;
    }
    xo_print_run(r);
    r->run = *leaf;
}

void xo_info_mem(Monitor *mon, CPUState *cs)
{
    XORun r = { .mon = mon };

    xo_walk(cs, xo_add_to_run, &r);
    xo_print_run(&r);
}
