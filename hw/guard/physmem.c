/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Accesses by physical address: devices, and CPU state in memory.
 *
 * A translation that ends in a protected run is given a region of ours
 * instead of RAM; what is accessed there is refused, or let through with an
 * event.
 */

#include "qemu/osdep.h"
#include "qemu/bswap.h"
#include "qemu/error-report.h"
#include "exec/address-spaces.h"
#include "exec/memory.h"
#include "exec/ramblock.h"
#include "hw/core/cpu.h"
#include "hw/virtio/virtio.h"
#include "system/dma.h"
#include "system/runstate.h"
#include "guard/cpu.h"
#include "guard/devices.h"
#include "guard/dma.h"
#include "guard/physmem.h"

MemoryRegion guard_blocked_mr;
bool guard_bounced;
__thread int guard_debug_depth;

/* The accesses of this thread are told of elsewhere */
static __thread bool guard_told;

/*
 * An access of no more than this is one access of an instruction or a device
 * register, and lands whole or not at all.
 */
#define GUARD_ATOM  8

static uint32_t guard_blocked_bits(const GuardPage *page, bool is_write)
{
    if (is_write) {
        return GUARD_MUTANT(GUARD_HOOK_PHYS_WRITE) ? 0 : page->nowrite;
    }
    return GUARD_MUTANT(GUARD_HOOK_PHYS_READ) ? 0 : page->noread;
}

/*
 * How many bytes from @ram on, at most @len, are alike: all blocked or all
 * allowed.
 */
static hwaddr guard_run(ram_addr_t ram, hwaddr len, bool is_write,
                        bool *blocked)
{
    hwaddr done = 0;

    if (!guard_near(ram, len)) {
        *blocked = false;
        return len;
    }
    while (done < len) {
        unsigned ofs = (ram + done) & (GUARD_PAGE_SIZE - 1);
        hwaddr in_page = MIN(len - done, GUARD_PAGE_SIZE - ofs);
        const GuardPage *page = guard_find(ram + done);
        uint32_t bits = page ? guard_blocked_bits(page, is_write) : 0;
        unsigned first = ofs >> GUARD_SUBPAGE_BITS;
        bool here = extract32(bits, first, 1);
        unsigned same = MIN(ctz32((here ? ~bits : bits) >> first), 32 - first);
        hwaddr n = (first + same) * GUARD_SUBPAGE_SIZE - ofs;

        if (!done) {
            *blocked = here;
        } else if (here != *blocked) {
            break;
        }
        if (n < in_page) {
            return done + n;
        }
        done += in_page;
    }
    return done;
}

MemoryRegion *guard_filter_slow(MemoryRegion *mr, hwaddr *xlat, hwaddr *plen,
                                bool is_write, MemTxAttrs attrs)
{
    hwaddr len = plen ? *plen : 1;
    bool blocked = false;
    ram_addr_t ram;
    hwaddr run;

    if (!memory_region_is_ram(mr) || !len) {
        return mr;
    }
    if ((attrs.debug || guard_debug_depth) &&
        !GUARD_MUTANT(GUARD_HOOK_DEBUG)) {
        return mr;
    }

    ram = memory_region_get_ram_addr(mr) + *xlat;
    run = guard_run(ram, len, is_write, &blocked);
    if (run < len && len <= GUARD_ATOM &&
        !GUARD_MUTANT(GUARD_HOOK_PHYS_STRADDLE)) {
        blocked = true;
    } else if (plen) {
        *plen = run;
    }
    if (!blocked) {
        return mr;
    }
    *xlat = ram;
    return &guard_blocked_mr;
}

MemoryRegion *guard_filter_whole(MemoryRegion *mr, hwaddr *xlat, hwaddr len,
                                 bool is_write)
{
    bool blocked = false;
    ram_addr_t ram;

    if (!guard_active() || !memory_region_is_ram(mr) || !len) {
        return mr;
    }
    ram = memory_region_get_ram_addr(mr) + *xlat;
    if (guard_run(ram, len, is_write, &blocked) == len && !blocked) {
        return mr;
    }
    *xlat = ram;
    return &guard_blocked_mr;
}

/*
 * Whether nothing in a cache is protected, which holds for all that follows
 * until another table is published.
 */
static bool guard_cache_all_clear(const MemoryRegionCache *cache,
                                  ram_addr_t start)
{
    /* A cache is const to those who use it; to all of them this is the same */
    aligned_uint64_t *seen = (aligned_uint64_t *)&cache->guard_seen;
    uint64_t clear = guard_seen_clear(qatomic_read_u64(&guard_generation));
    uint64_t now = qatomic_read_u64(seen);

    /* The number first: the table is that one, or newer */
    smp_rmb();
    if (now != clear && now != clear - 1) {
        /* This table, or one that is newer than the number */
        now = guard_range_protected(start, cache->len) ? clear - 1 : clear;
        qatomic_set_u64(seen, now);
    }
    return now == clear;
}

bool guard_cache_clear(const MemoryRegionCache *cache, hwaddr addr,
                       hwaddr len, bool is_write)
{
    ram_addr_t start = memory_region_get_ram_addr(cache->mrs.mr) + cache->xlat;
    bool blocked = false;

    if (GUARD_MUTANT(GUARD_HOOK_CACHE) ||
        guard_cache_all_clear(cache, start)) {
        return true;
    }
    return guard_run(start + addr, len, is_write, &blocked) == len && !blocked;
}

bool guard_range_protected(ram_addr_t ram, uint64_t len)
{
    RCU_READ_LOCK_GUARD();
    if (!guard_near(ram, len)) {
        return false;
    }
    while (len) {
        unsigned ofs = ram & (GUARD_PAGE_SIZE - 1);
        uint64_t n = MIN(len, GUARD_PAGE_SIZE - ofs);
        const GuardPage *page = guard_find(ram);

        if (page && (page->nowrite & guard_subpages(ofs, n))) {
            return true;
        }
        ram += n;
        len -= n;
    }
    return false;
}

bool guard_discard_slow(ram_addr_t ram, uint64_t len)
{
    hwaddr gpa = ram;

    if (GUARD_MUTANT(GUARD_HOOK_DISCARD) || !guard_range_protected(ram, len)) {
        return true;
    }
    guard_ram_to_gpa(ram, &gpa);
    error_report_once("a request to discard 0x%" PRIx64 " bytes at 0x%"
                      HWADDR_PRIx " was refused: some of that memory is "
                      "protected", len, gpa);
    return false;
}

/* The strongest action among the protected sub-pages of a range */
static GuardAction guard_range_action(ram_addr_t ram, hwaddr len,
                                      bool is_write)
{
    GuardAction action = GUARD_ACTION_REPORT;

    while (len) {
        unsigned ofs = ram & (GUARD_PAGE_SIZE - 1);
        hwaddr n = MIN(len, GUARD_PAGE_SIZE - ofs);
        const GuardPage *page = guard_find(ram);

        if (page) {
            uint32_t hit = guard_subpages(ofs, n) &
                           (is_write ? page->nowrite : page->noread);

            if (hit) {
                action = guard_stronger_action(action,
                                               guard_page_action(page, hit));
            }
        }
        ram += n;
        len -= n;
    }
    return action;
}

/* Returns: whether the access shall take place */
static bool guard_phys_violation(ram_addr_t ram, hwaddr len, bool is_write,
                                 bool by_cpu, const char *qom_path)
{
    GuardViolation v = {
        .path = by_cpu ? GUARD_PATH_STATE : GUARD_PATH_DEVICE,
        .write = is_write,
        .ram = ram,
        .size = len,
        .cpu = by_cpu ? current_cpu : NULL,
        .qom_path = qom_path,
        .who = guard_noted(),
    };

    if (by_cpu ? guard_state_seen(current_cpu, ram, is_write) : guard_told) {
        return guard_path_action(v.path,
                                 guard_range_action(ram, len, is_write)) ==
               GUARD_ACTION_REPORT;
    }
    v.action = guard_path_action(v.path,
                                 guard_range_action(ram, len, is_write));
    if (!guard_ram_to_gpa(ram, &v.addr)) {
        v.addr = ram;
    }
    guard_violation(&v);
    if (v.action == GUARD_ACTION_PAUSE) {
        qemu_system_vmstop_request_prepare();
        qemu_system_vmstop_request(RUN_STATE_PAUSED);
    }
    return v.action == GUARD_ACTION_REPORT;
}

GuardMapKind guard_map_kind_near(ram_addr_t ram, hwaddr len, bool is_write)
{
    bool blocked = false;

    if (guard_run(ram, len, is_write, &blocked) == len && !blocked) {
        return GUARD_MAP_FREE;
    }
    return guard_path_action(GUARD_PATH_DEVICE,
                             guard_range_action(ram, len, is_write)) ==
           GUARD_ACTION_REPORT ? GUARD_MAP_REPORTED : GUARD_MAP_REFUSED;
}

void guard_map_tell(ram_addr_t ram, hwaddr len, bool is_write)
{
    while (len) {
        bool blocked = false;
        hwaddr run = guard_run(ram, len, is_write, &blocked);

        if (blocked) {
            guard_phys_violation(ram, run, is_write, false, NULL);
        }
        ram += run;
        len -= run;
    }
}

void guard_map_copy(ram_addr_t ram, void *buf, hwaddr len)
{
    while (len) {
        bool blocked = false;
        hwaddr run = guard_run(ram, len, false, &blocked);

        if (blocked) {
            memset(buf, 0, run);
        } else {
            guard_ram_read(ram, buf, run);
        }
        ram += run;
        buf += run;
        len -= run;
    }
}

MemoryRegion *guard_map_reported_slow(MemoryRegion *mr, hwaddr *xlat,
                                      hwaddr len, bool is_write)
{
    RAMBlock *block;
    ram_addr_t offset;

    if (GUARD_MUTANT(GUARD_HOOK_MAP_REPORT) ||
        guard_path_action(GUARD_PATH_DEVICE,
                          guard_range_action(*xlat, len, is_write)) !=
        GUARD_ACTION_REPORT) {
        return mr;
    }
    guard_phys_violation(*xlat, len, is_write, false, NULL);
    block = guard_ram_block(*xlat, &offset);
    *xlat = offset;
    return block->mr;
}

static bool guard_attrs_by_cpu(MemTxAttrs attrs)
{
    return attrs.cpu && current_cpu;
}

MemTxResult guard_blocked_write(hwaddr ram, const void *buf, hwaddr len,
                                MemTxAttrs attrs)
{
    RCU_READ_LOCK_GUARD();
    if (!guard_phys_violation(ram, len, true, guard_attrs_by_cpu(attrs),
                              NULL)) {
        return MEMTX_ACCESS_ERROR;
    }
    guard_ram_write(ram, buf, len);
    return MEMTX_OK;
}

MemTxResult guard_blocked_read(hwaddr ram, void *buf, hwaddr len,
                               MemTxAttrs attrs)
{
    RCU_READ_LOCK_GUARD();
    if (!guard_phys_violation(ram, len, false, guard_attrs_by_cpu(attrs),
                              NULL)) {
        /* Whatever the caller's buffer held is not the guest's business */
        memset(buf, 0, len);
        return MEMTX_ACCESS_ERROR;
    }
    guard_ram_read(ram, buf, len);
    return MEMTX_OK;
}

/* Here come single loads and stores, address_space_ldl() and the like. */
static MemTxResult guard_blocked_mr_write(void *opaque, hwaddr addr,
                                          uint64_t data, unsigned size,
                                          MemTxAttrs attrs)
{
    uint8_t buf[8];

    stn_le_p(buf, size, data);
    return guard_blocked_write(addr, buf, size, attrs);
}

static MemTxResult guard_blocked_mr_read(void *opaque, hwaddr addr,
                                         uint64_t *data, unsigned size,
                                         MemTxAttrs attrs)
{
    uint8_t buf[8];
    MemTxResult r = guard_blocked_read(addr, buf, size, attrs);

    *data = ldn_le_p(buf, size);
    return r;
}

static const MemoryRegionOps guard_blocked_ops = {
    .read_with_attrs = guard_blocked_mr_read,
    .write_with_attrs = guard_blocked_mr_write,
    .endianness = DEVICE_LITTLE_ENDIAN,
    .valid = { .min_access_size = 1, .max_access_size = 8, .unaligned = true },
    .impl = { .min_access_size = 1, .max_access_size = 8, .unaligned = true },
};

void guard_physmem_init(void)
{
    memory_region_init_io(&guard_blocked_mr, NULL, &guard_blocked_ops, NULL,
                          "guard-blocked", UINT64_MAX);
}

bool guard_mapping(Int128 start, Int128 len, const MemoryRegion *mr,
                   hwaddr offset, GuardMapping *m)
{
    if (!memory_region_is_ram((MemoryRegion *)mr)) {
        return false;
    }
    m->start = memory_region_get_ram_addr((MemoryRegion *)mr) + offset;
    m->last = m->start + int128_get64(int128_sub(len, int128_one()));
    m->gpa = int128_get64(start);
    return true;
}

typedef struct GuardReverse {
    ram_addr_t ram;
    hwaddr gpa;
    bool found;
} GuardReverse;

static bool guard_reverse_range(Int128 start, Int128 len,
                                const MemoryRegion *mr, hwaddr offset,
                                void *opaque)
{
    GuardReverse *r = opaque;
    GuardMapping m;

    if (guard_mapping(start, len, mr, offset, &m) &&
        r->ram >= m.start && r->ram <= m.last) {
        r->gpa = m.gpa + (r->ram - m.start);
        r->found = true;
    }
    return r->found;
}

bool guard_ram_to_gpa(ram_addr_t ram, hwaddr *gpa)
{
    GuardReverse r = { .ram = ram };

    RCU_READ_LOCK_GUARD();
    flatview_for_each_range(address_space_to_flatview(&address_space_memory),
                            guard_reverse_range, &r);
    if (r.found) {
        *gpa = r.gpa;
    }
    return r.found;
}

bool guard_may_read(MemoryRegion *mr, hwaddr offset, unsigned len, Object *dev)
{
    g_autofree char *path = NULL;
    bool blocked = false;
    ram_addr_t ram;

    if (!guard_active() || GUARD_MUTANT(GUARD_HOOK_VAPIC_READ) ||
        !memory_region_is_ram(mr)) {
        return true;
    }
    RCU_READ_LOCK_GUARD();
    ram = memory_region_get_ram_addr(mr) + offset;
    if (guard_run(ram, len, false, &blocked) == len && !blocked) {
        return true;
    }
    path = object_get_canonical_path(dev);
    return guard_phys_violation(ram, len, false, false, path);
}

/*
 * Whether what an access by a list violates is told of by others.  RAM only:
 * an access to a device may make that one access memory.
 */
static bool guard_sg_told(const QEMUSGList *sg, hwaddr addr, hwaddr len,
                          bool is_write)
{
    hwaddr l = len;
    hwaddr xlat;
    MemoryRegion *mr;

    if (!guard_active() || GUARD_MUTANT(GUARD_HOOK_SG_TOLD) ||
        !object_dynamic_cast(OBJECT(sg->dev), TYPE_VIRTIO_DEVICE)) {
        return false;
    }
    RCU_READ_LOCK_GUARD();
    mr = address_space_translate(sg->as, addr, &xlat, &l, is_write,
                                 GUARD_UNFILTERED);
    return memory_region_is_ram(mr) && l == len;
}

void *guard_sg_map(QEMUSGList *sg, dma_addr_t addr, dma_addr_t *len,
                   DMADirection dir)
{
    void *host;

    guard_told = guard_sg_told(sg, addr, *len,
                               dir == DMA_DIRECTION_FROM_DEVICE);
    host = dma_memory_map(sg->as, addr, len, dir, MEMTXATTRS_UNSPECIFIED);
    guard_told = false;
    return host;
}

MemTxResult guard_sg_rw(QEMUSGList *sg, dma_addr_t addr, void *buf,
                        dma_addr_t len, DMADirection dir, MemTxAttrs attrs)
{
    MemTxResult r;

    guard_told = guard_sg_told(sg, addr, len,
                               dir == DMA_DIRECTION_FROM_DEVICE);
    r = dma_memory_rw(sg->as, addr, buf, len, dir, attrs);
    guard_told = false;
    return r;
}

void guard_clear_ram(MemoryRegion *mr, hwaddr offset, hwaddr len, Object *dev)
{
    g_autofree char *path = object_get_canonical_path(dev);
    uint8_t *host = memory_region_get_ram_ptr(mr);
    ram_addr_t ram = memory_region_get_ram_addr(mr);

    RCU_READ_LOCK_GUARD();
    while (len) {
        bool blocked = false;
        hwaddr run = len;

        if (guard_active() && !GUARD_MUTANT(GUARD_HOOK_CLEAR_RAM)) {
            run = guard_run(ram + offset, len, true, &blocked);
        }
        if (!blocked ||
            guard_phys_violation(ram + offset, run, true, false, path)) {
            memset(host + offset, 0, run);
            memory_region_set_dirty(mr, offset, run);
        }
        offset += run;
        len -= run;
    }
}

bool guard_sg_refused(QEMUSGList *sg, bool is_write)
{
    int i;

    if (GUARD_MUTANT(GUARD_HOOK_DMA_ERROR)) {
        return false;
    }
    RCU_READ_LOCK_GUARD();
    for (i = 0; i < sg->nsg; i++) {
        dma_addr_t addr = sg->sg[i].base;
        dma_addr_t left = sg->sg[i].len;

        while (left) {
            hwaddr len = left;
            hwaddr xlat;
            MemoryRegion *mr;

            mr = address_space_translate(sg->as, addr, &xlat, &len, is_write,
                                         MEMTXATTRS_UNSPECIFIED);
            /* What is only reported is told of when it takes place */
            if (guard_is_blocked(mr) &&
                guard_path_action(GUARD_PATH_DEVICE,
                                  guard_range_action(xlat, len, is_write)) !=
                GUARD_ACTION_REPORT) {
                guard_told = guard_sg_told(sg, addr, len, is_write);
                guard_phys_violation(xlat, len, is_write, false, NULL);
                guard_told = false;
                return true;
            }
            if (!len) {
                break;
            }
            addr += len;
            left -= len;
        }
    }
    return false;
}

bool guard_may_patch(CPUState *cpu, vaddr addr, unsigned len, Object *dev)
{
    g_autofree char *path = NULL;

    if (!guard_active() || GUARD_MUTANT(GUARD_HOOK_VAPIC)) {
        return true;
    }
    RCU_READ_LOCK_GUARD();
    while (len) {
        unsigned ofs = addr & (GUARD_PAGE_SIZE - 1);
        unsigned n = MIN(len, GUARD_PAGE_SIZE - ofs);
        hwaddr gpa = cpu_get_phys_page_debug(cpu, addr - ofs);
        bool blocked = false;
        hwaddr run, xlat;
        MemoryRegion *mr;

        if (gpa != -1) {
            run = n;
            mr = address_space_translate(cpu->as, gpa + ofs, &xlat, &run, true,
                                         (MemTxAttrs) { .debug = 1 });
            if (memory_region_is_ram(mr)) {
                ram_addr_t ram = memory_region_get_ram_addr(mr) + xlat;

                if (guard_run(ram, n, true, &blocked) < n) {
                    blocked = true;
                }
                if (blocked) {
                    path = object_get_canonical_path(dev);
                    if (!guard_phys_violation(ram, n, true, false, path)) {
                        return false;
                    }
                    g_clear_pointer(&path, g_free);
                }
            }
        }
        addr += n;
        len -= n;
    }
    return true;
}
