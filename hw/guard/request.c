/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Sub-page protection that the guest asks for: from the request array to the
 * table.  Guest ABI: docs/specs/subpage.rst.
 */

#include "qemu/osdep.h"
#include "qemu/main-loop.h"
#include "exec/address-spaces.h"
#include "exec/memory.h"
#include "guard/devices.h"
#include "guard/guard.h"
#include "guard/physmem.h"
#include "guard/request.h"
#include "guard/resolve.h"

/* Whether the RAM of the request array is unprotected, and so can't lie */
static bool guard_ram_is_free(const GuardChange *c)
{
    ram_addr_t page;

    if (GUARD_MUTANT(GUARD_HOOK_REQUEST_ARRAY_FREE)) {
        return true;
    }
    for (page = c->start & -(ram_addr_t)GUARD_PAGE_SIZE; page <= c->last;
         page += GUARD_PAGE_SIZE) {
        const GuardPage *p = guard_find(page);
        ram_addr_t from = MAX(page, c->start);
        ram_addr_t to = MIN(page + GUARD_PAGE_SIZE - 1, c->last);

        if (p && (p->nowrite & guard_subpages(from - page, to - from + 1))) {
            return false;
        }
    }
    return true;
}

/* Whether the guest could write all of a range itself, PAM included */
static bool guard_is_writable(hwaddr addr, hwaddr size)
{
    while (size && !GUARD_MUTANT(GUARD_HOOK_REQUEST_READ_ONLY)) {
        MemoryRegionSection s = memory_region_find(get_system_memory(), addr,
                                                   size);
        bool writable = s.mr && !s.readonly &&
                        s.offset_within_address_space == addr;

        if (s.mr) {
            memory_region_unref(s.mr);
        }
        if (!writable) {
            return false;
        }
        addr += int128_get64(s.size);
        size -= int128_get64(s.size);
    }
    return true;
}

/* Read the array at @addr.  Returns: false if it is malformed. */
static bool guard_request_read(hwaddr addr, GArray *entries, GArray *changes)
{
    uint8_t head[GUARD_REQUEST_HEADER];
    g_autofree uint8_t *buf = NULL;
    const GuardChange array = { .index = GUARD_REQUEST_ARRAY };
    const MemTxAttrs attrs = MEMTXATTRS_UNSPECIFIED;
    hwaddr at, size;
    MemoryRegion *mr;
    uint32_t i, n;

    if ((addr % GUARD_REQUEST_ALIGN &&
         !GUARD_MUTANT(GUARD_HOOK_REQUEST_ALIGN)) ||
        address_space_read(&address_space_memory, addr, attrs, head,
                           sizeof(head)) != MEMTX_OK ||
        !guard_request_header(head, &n)) {
        return false;
    }
    size = GUARD_REQUEST_HEADER + (hwaddr)n * GUARD_REQUEST_ENTRY;

    /* In whole sub-pages: a part of one can't be protected */
    at = QEMU_ALIGN_DOWN(addr, GUARD_SUBPAGE_SIZE);
    size = QEMU_ALIGN_UP(addr + size, GUARD_SUBPAGE_SIZE) - at;
    if ((at + (size - 1) < at ||
         !guard_is_writable(at, size) ||
         guard_resolve(&at, size, array, changes, &mr) != GUARD_RESOLVE_OK) &&
        !GUARD_MUTANT(GUARD_HOOK_REQUEST_ARRAY_RAM)) {
        return false;
    }
    for (i = 0; i < changes->len; i++) {
        if (!guard_ram_is_free(&g_array_index(changes, GuardChange, i))) {
            return false;
        }
    }

    /* One copy: the guest may change the array while it is looked at */
    size = (hwaddr)n * GUARD_REQUEST_ENTRY;
    buf = g_malloc(size);
    if (address_space_read(&address_space_memory, addr + GUARD_REQUEST_HEADER,
                           attrs, buf, size) != MEMTX_OK) {
        return false;
    }
    g_array_set_size(entries, n);
    for (i = 0; i < n; i++) {
        guard_request_entry(buf + i * GUARD_REQUEST_ENTRY,
                            &g_array_index(entries, GuardRequestEntry, i));
    }
    return true;
}

/* Find the RAM of each entry.  Returns: whether all of them can be done. */
static bool guard_request_resolve(GArray *entries, GArray *changes)
{
    bool ok = true;
    guint i;

    for (i = 0; i < entries->len; i++) {
        GuardRequestEntry *e = &g_array_index(entries, GuardRequestEntry, i);
        const GuardChange change = {
            .nowrite = true,
            .noread = e->noread,
            .guest = !GUARD_MUTANT(GUARD_HOOK_REQUEST_OWNER),
            .action = e->action,
            .index = i,
        };
        hwaddr addr = e->gpa;
        MemoryRegion *mr;

        if (e->status == GUARD_REQUEST_DONE &&
            guard_resolve(&addr, e->length, change, changes, &mr) !=
            GUARD_RESOLVE_OK && !GUARD_MUTANT(GUARD_HOOK_REQUEST_RAM)) {
            e->status = GUARD_REQUEST_NOT_RAM;
        }
        ok = ok && e->status == GUARD_REQUEST_DONE;
    }
    if (!ok && !GUARD_MUTANT(GUARD_HOOK_REQUEST_WHOLE)) {
        return false;
    }

    return guard_request_sort(entries, changes);
}

bool guard_guest_request(CPUState *cpu, hwaddr addr, size_t quota)
{
    g_autoptr(GArray) changes = g_array_new(false, false, sizeof(GuardChange));
    g_autoptr(GArray) entries = g_array_new(false, false,
                                            sizeof(GuardRequestEntry));
    GuardRequestStatus all = GUARD_REQUEST_DONE;
    bool again = false;
    bool mapped = false;
    bool done = false;
    GuardLiveMap map;
    guint i;

    BQL_LOCK_GUARD();
    RCU_READ_LOCK_GUARD();

    if (GUARD_MUTANT(GUARD_HOOK_REQUEST_QUOTA)) {
        quota = SIZE_MAX;
    }
    if (!guard_request_read(addr, entries, changes)) {
        return false;
    }
    if (!entries->len) {
        return true;
    }
    guard_lifecycle_init();
    if (guard_subpage_refused() || guard_is_arming() || !guard_can_arm(NULL)) {
        all = GUARD_REQUEST_UNAVAILABLE;
    } else if (!guard_request_resolve(entries, changes)) {
        /* The entries tell */
    } else if (guard_table_holds(guard_table,
                                 (const GuardChange *)changes->data,
                                 changes->len)) {
        done = again = true;
    } else if (guard_map_conflict((const GuardChange *)changes->data,
                                  changes->len, guard_map_serial(), &map)) {
        /* An instruction can't wait for a device */
        all = GUARD_REQUEST_UNAVAILABLE;
    } else {
        done = guard_change_now((const GuardChange *)changes->data,
                                changes->len, quota, &mapped);
        if (!done) {
            all = mapped ? GUARD_REQUEST_UNAVAILABLE : GUARD_REQUEST_QUOTA;
        }
    }

    /* The array can't have become protected by this */
    for (i = 0; i < entries->len; i++) {
        GuardRequestStatus status =
            g_array_index(entries, GuardRequestEntry, i).status;

        if (status == GUARD_REQUEST_DONE && !done) {
            status = all ?: GUARD_REQUEST_SKIPPED;
        }
        address_space_stl_le(&address_space_memory,
                             addr + GUARD_REQUEST_HEADER +
                             i * GUARD_REQUEST_ENTRY + GUARD_REQUEST_STATUS,
                             status, MEMTXATTRS_UNSPECIFIED, NULL);
    }
    if (again) {
        /* Another CPU may have asked for it just now */
        guard_tcg_wait_insn(cpu);
    } else if ((done || mapped) && !GUARD_MUTANT(GUARD_HOOK_REQUEST_SYNC)) {
        guard_tcg_sync_insn(cpu);
    }
    return true;
}
