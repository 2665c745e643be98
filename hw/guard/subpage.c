/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Sub-page protection: the QMP commands, and publishing a table.
 */

#include "qemu/osdep.h"
#include "qemu/main-loop.h"
#include "qapi/error.h"
#include "qapi/qapi-commands-guard.h"
#include "exec/address-spaces.h"
#include "exec/memory.h"
#include "exec/ramblock.h"
#include "block/aio.h"
#include "hw/core/cpu.h"
#include "hw/qdev-core.h"
#include "system/replay.h"
#include "system/tcg.h"
#include "guard/devices.h"
#include "guard/guard.h"
#include "guard/physmem.h"
#include "guard/pin-ops.h"
#include "guard/resolve.h"

bool guard_on;
aligned_uint64_t guard_generation;
unsigned guard_replacements;

/*
 * Publish @t, which may be NULL.  Called with the BQL held, which serializes
 * all that write guard_table.  Returns: what was there, which is still in use.
 */
static GuardTable *guard_swap(GuardTable *t)
{
    GuardTable *old = guard_table;

    qatomic_rcu_set(&guard_table, t);
    /* Who sees the number sees the table, or a later one */
    smp_wmb();
    qatomic_set_u64(&guard_generation, guard_generation + 1);
    /*
     * Whoever sees guard_on sees a table that was published before.  Who
     * still sees the old values is dealt with by guard_tcg_sync().
     */
    qatomic_store_release(&guard_on, t != NULL);
    return old;
}

static void guard_free_later(GuardTable *t)
{
    if (t) {
        call_rcu(t, guard_table_free, rcu);
    }
}

/* Returns: whether there is a table with the changes, @t */
static bool guard_build(const GuardChange *changes, size_t n, size_t quota,
                        GuardTable **t, Error **errp)
{
    size_t limit = SIZE_MAX;
    size_t nrecords, i;

    for (i = 0; i < n; i++) {
        if (changes[i].nowrite) {
            limit = GUARD_MAX_RECORDS;
        }
    }
    if (changes[0].guest) {
        /* No more work than its quota is worth */
        limit = MIN(limit, guard_table_nrecords(guard_table) +
                           MIN(quota, GUARD_MAX_RECORDS) +
                           GUARD_SPLIT_RECORDS);
    }
    if (!guard_table_update(guard_table, changes, n, limit, &nrecords, t)) {
        error_setg(errp, "the access table would have %zu records or more, and "
                   "the limit is %zu: protect fewer pages, or ranges aligned "
                   "to 2 MiB, which take one record each", nrecords, limit);
        return false;
    }
    if (guard_table_nguest(*t) > quota) {
        error_setg(errp, "the guest would have %zu records, and its quota is "
                   "%zu", guard_table_nguest(*t), quota);
        guard_table_free(*t);
        return false;
    }
    return true;
}

bool guard_change_ram(const GuardChange *changes, size_t n, Error **errp)
{
    GuardTable *t;

    assert(bql_locked());
    if (!guard_build(changes, n, SIZE_MAX, &t, errp)) {
        return false;
    }
    guard_free_later(guard_swap(t));
    guard_migration_changed(changes, n);
    return true;
}

bool guard_change_now(const GuardChange *changes, size_t n, size_t quota,
                      bool *mapped)
{
    GuardTable *t, *old;
    GuardLiveMap map;

    assert(bql_locked());
    *mapped = false;
    if (!guard_build(changes, n, quota, &t, NULL)) {
        return false;
    }
    old = guard_swap(t);
    /*
     * An iothread that looked the memory up before has recorded its map by now,
     * or sees the new table when it has: guard_map_again().
     */
    if (guard_map_conflict(changes, n, guard_map_serial(), &map)) {
        *mapped = true;
        guard_free_later(guard_swap(old));
        return false;
    }
    guard_free_later(old);
    guard_migration_changed(changes, n);
    return true;
}

void guard_replace_table(GuardTable *t)
{
    const GuardChange all = { .last = RAM_ADDR_MAX };

    assert(bql_locked());
    guard_replacements++;
    guard_free_later(guard_swap(t));
    guard_hits_forget(&all, 1);
    guard_tcg_sync_later();
}

const char *guard_subpage_unavailable(void)
{
    if (!tcg_enabled()) {
        return "sub-page protection is enforced by TCG only: use -accel tcg";
    }
    if (!guard_arch) {
        return "sub-page protection is enforced for x86 CPUs only";
    }
    return NULL;
}

GuardResolve guard_resolve(hwaddr *addr, hwaddr left, GuardChange c,
                           GArray *changes, MemoryRegion **mr)
{
    while (left) {
        hwaddr len = left;
        GuardResolve judged;
        hwaddr xlat;

        *mr = address_space_translate(&address_space_memory, *addr, &xlat,
                                      &len, true, (MemTxAttrs) { .debug = 1 });
        judged = guard_judge_region(*mr);
        if (judged != GUARD_RESOLVE_OK) {
            return judged;
        }
        if (!guard_is_plugged(*mr, xlat, len)) {
            return GUARD_RESOLVE_UNPLUGGED;
        }
        c.start = memory_region_get_ram_addr(*mr) + xlat;
        if (c.start % GUARD_SUBPAGE_SIZE || len % GUARD_SUBPAGE_SIZE) {
            return GUARD_RESOLVE_ODD;
        }
        c.last = c.start + len - 1;
        g_array_append_val(changes, c);
        *addr += len;
        left -= len;
    }
    return GUARD_RESOLVE_OK;
}

/* Append the RAM behind one region to @changes. */
static bool guard_resolve_region(const SubpageRegion *r, size_t index,
                                 GuardAction action, GArray *changes,
                                 Error **errp)
{
    const GuardChange c = {
        .nowrite = r->access != SUBPAGE_ACCESS_READ_WRITE,
        .noread = r->access == SUBPAGE_ACCESS_NONE,
        .action = action,
        .index = index,
    };
    g_autofree char *path = NULL;
    hwaddr addr = r->addr;
    MemoryRegion *mr;

    if (addr % GUARD_SUBPAGE_SIZE) {
        error_setg(errp, "regions[%zu]: addr 0x%" PRIx64
                   " is not a multiple of %u", index, r->addr,
                   GUARD_SUBPAGE_SIZE);
        return false;
    }
    if (!r->size || r->size % GUARD_SUBPAGE_SIZE) {
        error_setg(errp, "regions[%zu]: size %" PRIu64
                   " is not a multiple of %u, at least %u", index, r->size,
                   GUARD_SUBPAGE_SIZE, GUARD_SUBPAGE_SIZE);
        return false;
    }
    if (addr + (r->size - 1) < addr) {
        error_setg(errp, "regions[%zu]: addr 0x%" PRIx64 " and size %" PRIu64
                   " reach beyond the end of guest-physical memory", index,
                   r->addr, r->size);
        return false;
    }

    RCU_READ_LOCK_GUARD();
    switch (guard_resolve(&addr, r->size, c, changes, &mr)) {
    case GUARD_RESOLVE_NOT_RAM:
        error_setg(errp, "regions[%zu]: 0x%" HWADDR_PRIx " is not RAM (%s):"
                   " only RAM can be protected", index, addr,
                   memory_region_name(mr) ?: "nothing is mapped there");
        return false;
    case GUARD_RESOLVE_OWNED:
        path = object_get_canonical_path(memory_region_owner(mr));
        error_setg(errp, "regions[%zu]: 0x%" HWADDR_PRIx " is memory of "
                   "'%s' (%s), to which a device has a pointer: only the "
                   "machine's RAM and memory devices can be protected",
                   index, addr, path,
                   memory_region_name(mr));
        return false;
    case GUARD_RESOLVE_UNPLUGGED:
        error_setg(errp, "regions[%zu]: 0x%" HWADDR_PRIx " and what follows "
                   "is not plugged (%s): wait until the guest has plugged it",
                   index, addr, memory_region_name(mr));
        return false;
    case GUARD_RESOLVE_ODD:
        error_setg(errp, "regions[%zu]: 0x%" HWADDR_PRIx " lies in RAM "
                   "that is not mapped at a multiple of %u (%s)", index,
                   addr, GUARD_SUBPAGE_SIZE, memory_region_name(mr));
        return false;
    default:
        return true;
    }
}

const char *guard_subpage_refused(void)
{
    const char *unavailable = guard_subpage_unavailable();

    if (!unavailable && replay_mode != REPLAY_MODE_NONE) {
        return "memory can't be protected while recording or replaying: the "
               "replay would not see the command at the same instruction";
    }
    return unavailable;
}

/* A run of RAM with the same rights */
typedef struct GuardRun {
    ram_addr_t start;
    ram_addr_t last;
    bool noread;
    bool guest;
    uint8_t action;
    bool mapped;
    hwaddr gpa;
} GuardRun;

static void guard_append_run(GArray *runs, const GuardRun *r)
{
    GuardRun *p = runs->len ? &g_array_index(runs, GuardRun, runs->len - 1)
                            : NULL;

    if (p && p->last + 1 == r->start && p->noread == r->noread &&
        p->guest == r->guest && p->action == r->action) {
        p->last = r->last;
        return;
    }
    g_array_append_vals(runs, r, 1);
}

/* The runs of the current table, by RAM address */
static GArray *guard_runs(void)
{
    g_autoptr(GArray) records = NULL;
    GArray *runs = g_array_new(false, false, sizeof(GuardRun));
    guint i;
    unsigned s;

    records = guard_table_records(guard_table);
    for (i = 0; i < records->len; i++) {
        const GuardRecord *rec = &g_array_index(records, GuardRecord, i);
        bool big = rec->order > 0;
        ram_addr_t unit = 1ULL << (guard_order_bits(rec->order) - 5);

        for (s = 0; s < 32; s++) {
            if (extract32(rec->page.nowrite, s, 1)) {
                GuardRun r = {
                    .start = rec->start + (big ? 0 : s * unit),
                    .last = rec->start + (big ? 32 : s + 1) * unit - 1,
                    .noread = extract32(rec->page.noread, s, 1),
                    .guest = extract32(rec->page.guest, s, 1),
                    .action = extract32(rec->page.act[0], s, 1) |
                              extract32(rec->page.act[1], s, 1) << 1,
                };
                guard_append_run(runs, &r);
            }
            if (big) {
                break;
            }
        }
    }
    return runs;
}

/*
 * Arming
 */

/* What guard_arm() will go back to if a device can't be waited for */
static GArray *guard_undo;

/* Whether a state that was saved meanwhile has what guard_undo brings back */
static bool guard_undo_saved;
/* guard_replacements when guard_undo was made */
static unsigned guard_undo_since;

/* The changes that bring back what is there now, where @changes will be */
static GArray *guard_inverse(const GuardChange *changes, size_t n)
{
    g_autoptr(GArray) runs = guard_runs();
    GArray *inverse = g_array_new(false, false, sizeof(GuardChange));
    guint first = 0;
    guint j;
    size_t i;

    for (i = 0; i < n; i++) {
        GuardChange c = { .start = changes[i].start };

        while (first < runs->len && g_array_index(runs, GuardRun,
                                                  first).last < c.start) {
            first++;
        }
        for (j = first; j < runs->len; j++) {
            const GuardRun *r = &g_array_index(runs, GuardRun, j);

            if (r->start > changes[i].last) {
                break;
            }
            if (r->start > c.start) {
                c.nowrite = c.noread = false;
                c.last = r->start - 1;
                g_array_append_val(inverse, c);
                c.start = r->start;
            }
            c.nowrite = true;
            c.noread = r->noread;
            c.owner_guest = r->guest;
            c.action = r->action;
            c.last = MIN(r->last, changes[i].last);
            g_array_append_val(inverse, c);
            c.start = c.last + 1;
        }
        if (c.start <= changes[i].last) {
            c.nowrite = c.noread = false;
            c.last = changes[i].last;
            g_array_append_val(inverse, c);
        }
    }
    return inverse;
}

bool guard_is_arming(void)
{
    return guard_undo != NULL;
}

GArray *guard_records_to_save(void)
{
    GuardTable *before;
    GArray *records;
    size_t n;

    assert(bql_locked());
    if (!guard_undo || guard_replacements != guard_undo_since) {
        return guard_table_records(guard_table);
    }
    guard_undo_saved = true;
    guard_table_update(guard_table, (GuardChange *)guard_undo->data,
                       guard_undo->len, SIZE_MAX, &n, &before);
    records = guard_table_records(before);
    guard_table_free(before);
    return records;
}

void guard_undo_forget(ram_addr_t start, ram_addr_t last)
{
    guint i;

    for (i = 0; guard_undo && i < guard_undo->len; i++) {
        GuardChange *c = &g_array_index(guard_undo, GuardChange, i);

        if (c->start <= last && c->last >= start) {
            c->nowrite = c->noread = false;
        }
    }
}

/*
 * Wait for devices that have memory mapped which may not be accessed any
 * more.  Maps that are made from now on don't count: their translation was
 * filtered, or they are waited for the next time.  After @end, in us, it looks
 * once and does not wait.
 */
static bool guard_wait_maps(const GuardChange *changes, size_t n, int64_t end,
                            Error **errp)
{
    uint64_t serial = guard_map_serial();
    g_autofree char *path = NULL;
    const GuardChange *c;
    GuardLiveMap m;
    hwaddr gpa;

    while ((c = guard_map_conflict(changes, n, serial, &m))) {
        if (g_get_monotonic_time() > end) {
            path = guard_device_path(m.who);
            if (!guard_ram_to_gpa(m.ram, &gpa)) {
                gpa = m.ram;
            }
            error_setg(errp, "regions[%u]: device '%s' has 0x%" HWADDR_PRIx
                       " bytes at 0x%" HWADDR_PRIx " mapped for %s, and does "
                       "not let go of them: stop the device, or protect other "
                       "memory", c->index, path ?: "of unknown name", m.len,
                       gpa, m.is_write ? "writing" : "reading");
            return false;
        }
        /* Requests end in this thread's bottom halves, or in others */
        if (!aio_poll(qemu_get_aio_context(), false)) {
            bql_unlock();
            g_usleep(1000);
            bql_lock();
        }
    }
    return true;
}

/* Go back to what there was, counters included. */
static void guard_undo_arming(void)
{
    guint i = 0;

    guard_change_ram((GuardChange *)guard_undo->data, guard_undo->len,
                     &error_abort);
    guard_tcg_sync();
    /* What was protected for a moment only has no counters */
    while (i < guard_undo->len) {
        if (g_array_index(guard_undo, GuardChange, i).nowrite) {
            g_array_remove_index(guard_undo, i);
        } else {
            i++;
        }
    }
    guard_hits_forget((GuardChange *)guard_undo->data, guard_undo->len);
}

/*
 * Waiting runs bottom halves, which may load a snapshot: that resets the
 * machine, and may bring a table.
 */
static bool guard_not_replaced(unsigned replacements, Error **errp)
{
    if (guard_replacements != replacements) {
        error_setg(errp, "the VM's state was replaced meanwhile: try again");
        return false;
    }
    return true;
}

bool guard_arm(const GuardChange *changes, size_t n, Error **errp)
{
    unsigned removed = guard_ram_removals;
    unsigned replacements = guard_replacements;
    int64_t end = g_get_monotonic_time() + GUARD_MAP_WAIT_MS * 1000;
    GuardIothreads *iothreads;
    bool tightens = false;
    Error *err = NULL;
    bool good;
    size_t i;

    for (i = 0; i < n; i++) {
        tightens |= changes[i].nowrite;
    }
    if (!tightens) {
        guard_change_ram(changes, n, &error_abort);
        guard_tcg_sync();
        guard_hits_forget(changes, n);
        return true;
    }
    /*
     * First the maps that are there already: a device that holds on to one
     * makes the command fail before anybody could notice it.  Then again
     * those that were made until the new table was in force.
     */
    if (!guard_can_arm(errp) || !guard_wait_maps(changes, n, end, errp) ||
        !guard_can_arm(errp)) {
        return false;
    }
    if (guard_ram_removals != removed) {
        error_setg(errp, "RAM was unplugged or resized meanwhile: try again");
        return false;
    }
    if (!guard_not_replaced(replacements, errp)) {
        return false;
    }
    guard_undo = guard_inverse(changes, n);
    guard_undo_saved = false;
    guard_undo_since = replacements;
    good = guard_change_ram(changes, n, errp);
    if (good) {
        guard_tcg_sync();
        iothreads = guard_iothreads_ask();
        good = guard_iothreads_wait(iothreads, end, &err) &&
               guard_wait_maps(changes, n, end, &err);
        guard_iothreads_done(iothreads);
        if (good && guard_undo_saved) {
            error_setg(&err, "the state of the VM was saved or migrated "
                       "meanwhile, without this: try again where it runs");
            good = false;
        }
        if (guard_replacements != replacements) {
            /* There is nothing to go back to, and our changes are gone */
            error_free(err);
            good = guard_not_replaced(replacements, errp);
        } else if (!good) {
            error_propagate(errp, err);
            guard_undo_arming();
        }
    }
    g_clear_pointer(&guard_undo, g_array_unref);
    if (good) {
        /* Not before: a command that failed must not wipe what was counted */
        guard_hits_forget(changes, n);
    }
    return good;
}

void qmp_subpage_set_access(SubpageRegionList *regions, bool has_action,
                            GuardAction action, Error **errp)
{
    g_autoptr(GArray) changes = g_array_new(false, false, sizeof(GuardChange));
    const char *refused = guard_subpage_refused();
    const GuardChange *c;
    SubpageRegionList *e;
    size_t n = 0;

    if (refused) {
        error_setg(errp, "%s", refused);
        return;
    }
    if (!has_action) {
        action = GUARD_ACTION_FAULT;
    }

    for (e = regions; e; e = e->next) {
        if (n == GUARD_MAX_REGIONS) {
            error_setg(errp, "regions has more than %d elements: "
                       "use several commands", GUARD_MAX_REGIONS);
            return;
        }
        if (!guard_resolve_region(e->value, n++, action, changes, errp)) {
            return;
        }
    }
    if (!changes->len) {
        return;
    }

    c = guard_sort_changes(changes);
    if (c) {
        error_setg(errp, "regions[%u] and regions[%u] overlap: both have "
                   "the %u bytes of RAM at offset 0x" RAM_ADDR_FMT,
                   MIN(c->index, c[-1].index), MAX(c->index, c[-1].index),
                   GUARD_SUBPAGE_SIZE, c->start);
        return;
    }

    guard_lifecycle_init();
    guard_arm((const GuardChange *)changes->data, changes->len, errp);
}

/*
 * Queries
 */

static bool guard_collect_mapping(Int128 start, Int128 len,
                                  const MemoryRegion *mr, hwaddr offset,
                                  void *opaque)
{
    GArray *maps = opaque;
    GuardMapping m;

    if (guard_mapping(start, len, mr, offset, &m)) {
        g_array_append_val(maps, m);
    }
    return false;
}

static int guard_compare_mappings(const void *a, const void *b)
{
    const GuardMapping *ma = a;
    const GuardMapping *mb = b;

    if (ma->start != mb->start) {
        return ma->start < mb->start ? -1 : 1;
    }
    return ma->gpa < mb->gpa ? -1 : ma->gpa > mb->gpa;
}

static int guard_compare_gpa(const void *a, const void *b)
{
    const GuardRun *ra = a;
    const GuardRun *rb = b;

    if (ra->mapped != rb->mapped) {
        return ra->mapped ? -1 : 1;
    }
    if (!ra->mapped) {
        return ra->start < rb->start ? -1 : ra->start > rb->start;
    }
    return ra->gpa < rb->gpa ? -1 : ra->gpa > rb->gpa;
}

/* Split runs by where they are mapped. */
static GArray *guard_map_runs(GArray *runs)
{
    g_autoptr(GArray) maps = g_array_new(false, false, sizeof(GuardMapping));
    GArray *out = g_array_new(false, false, sizeof(GuardRun));
    guint i, j, first = 0;

    WITH_RCU_READ_LOCK_GUARD() {
        FlatView *fv = address_space_to_flatview(&address_space_memory);

        flatview_for_each_range(fv, guard_collect_mapping, maps);
    }
    if (maps->len) {
        qsort(maps->data, maps->len, sizeof(GuardMapping),
              guard_compare_mappings);
    }

    for (i = 0; i < runs->len; i++) {
        GuardRun r = g_array_index(runs, GuardRun, i);
        ram_addr_t next = r.start;

        while (first < maps->len &&
               g_array_index(maps, GuardMapping, first).last < r.start) {
            first++;
        }
        for (j = first; j < maps->len; j++) {
            GuardMapping *m = &g_array_index(maps, GuardMapping, j);
            GuardRun piece = r;

            if (m->start > r.last) {
                break;
            }
            if (m->last < next && m->last < r.start) {
                continue;
            }
            if (m->start > next) {
                piece.start = next;
                piece.last = m->start - 1;
                g_array_append_val(out, piece);
                next = m->start;
            }
            piece.start = MAX(m->start, r.start);
            piece.last = MIN(m->last, r.last);
            piece.mapped = true;
            piece.gpa = m->gpa + (piece.start - m->start);
            g_array_append_val(out, piece);
            if (piece.last >= next) {
                next = piece.last + 1;
            }
        }
        if (next <= r.last) {
            r.start = next;
            g_array_append_val(out, r);
        }
    }
    if (out->len) {
        qsort(out->data, out->len, sizeof(GuardRun), guard_compare_gpa);
    }
    return out;
}

/* Add up the counters of a run. */
static void guard_sum_hits(const GArray *hits, ram_addr_t start,
                           ram_addr_t last, SubpageRegionInfo *info)
{
    const GuardHits *h = (const GuardHits *)hits->data;
    size_t low = 0;
    size_t high = hits->len;

    while (low < high) {
        size_t mid = low + (high - low) / 2;

        if (h[mid].ram < start) {
            low = mid + 1;
        } else {
            high = mid;
        }
    }
    for (; low < hits->len && h[low].ram <= last; low++) {
        info->reads += h[low].reads;
        info->writes += h[low].writes;
    }
}

SubpageRegionInfoList *qmp_query_subpage_access(bool has_addr, uint64_t addr,
                                                bool has_size, uint64_t size,
                                                Error **errp)
{
    g_autoptr(GArray) runs = NULL;
    g_autoptr(GArray) mapped = NULL;
    g_autoptr(GArray) hits = NULL;
    SubpageRegionInfoList *list = NULL;
    SubpageRegionInfoList **tail = &list;
    guint i;

    if (has_addr != has_size) {
        error_setg(errp, "addr and size are given together, or neither");
        return NULL;
    }
    if (has_addr && (!size || addr + (size - 1) < addr)) {
        error_setg(errp, "addr 0x%" PRIx64 " and size %" PRIu64 " are not a "
                   "range: size must be at least 1, and the end not beyond "
                   "the end of guest-physical memory", addr, size);
        return NULL;
    }

    runs = guard_runs();
    mapped = guard_map_runs(runs);
    hits = guard_hits();
    for (i = 0; i < mapped->len; i++) {
        GuardRun r = g_array_index(mapped, GuardRun, i);
        SubpageRegionInfo *info;
        RAMBlock *block;
        ram_addr_t offset;

        if (has_addr) {
            hwaddr last = r.gpa + (r.last - r.start);
            hwaddr want = addr + (size - 1);

            if (!r.mapped || last < addr || r.gpa > want) {
                continue;
            }
            if (r.gpa < addr) {
                r.start += addr - r.gpa;
                r.gpa = addr;
            }
            if (last > want) {
                r.last -= last - want;
            }
        }
        RCU_READ_LOCK_GUARD();
        block = guard_ram_block(r.start, &offset);
        info = g_new0(SubpageRegionInfo, 1);
        info->has_addr = r.mapped;
        info->addr = r.gpa;
        info->size = r.last - r.start + 1;
        info->access = r.noread ? SUBPAGE_ACCESS_NONE : SUBPAGE_ACCESS_READ;
        info->action = r.action;
        info->owner = r.guest ? GUARD_OWNER_GUEST : GUARD_OWNER_HOST;
        info->ram_block = g_strdup(block->idstr);
        info->offset = offset;
        guard_sum_hits(hits, r.start, r.last, info);
        QAPI_LIST_APPEND(tail, info);
    }
    return list;
}

static GuardFeatureInfo *guard_feature(GuardFeatureInfoList ***tail,
                                       GuardFeature feature,
                                       const char *unavailable)
{
    GuardFeatureInfo *info = g_new0(GuardFeatureInfo, 1);

    info->feature = feature;
    info->available = !unavailable;
    info->reason = g_strdup(unavailable);
    info->has_enforced_by = !unavailable;
    info->enforced_by = GUARD_ENFORCER_TCG;
    QAPI_LIST_APPEND(*tail, info);
    return info;
}

static void guard_query_xo(GuardFeatureInfoList ***tail)
{
    const char *reason = NULL;
    GuardFeatureInfo *info;

    if (!tcg_enabled()) {
        reason = "execute-only pages are enforced by TCG only: use -accel tcg";
    } else if (!first_cpu ||
               !object_property_find(OBJECT(first_cpu), "xo")) {
        reason = "the machine has no CPU that knows execute-only pages";
    }
    info = guard_feature(tail, GUARD_FEATURE_XO, reason);
    info->on = !reason &&
               object_property_get_bool(OBJECT(first_cpu), "xo", NULL);
    info->has_granularity = true;
    info->granularity = GUARD_PAGE_SIZE;
}

static void guard_query_subpage(GuardFeatureInfoList ***tail)
{
    GuardFeatureInfo *info = guard_feature(tail, GUARD_FEATURE_SUBPAGE,
                                           guard_subpage_unavailable());
    GuardActionList **actions = &info->actions;
    int a;

    info->on = guard_active();
    info->has_granularity = true;
    info->granularity = GUARD_SUBPAGE_SIZE;
    for (a = 0; a < GUARD_ACTION__MAX; a++) {
        QAPI_LIST_APPEND(actions, a);
    }
    info->limits = g_new0(GuardLimits, 1);
    info->limits->regions_per_command = GUARD_MAX_REGIONS;
    info->limits->records = GUARD_MAX_RECORDS;
    info->limits->records_used = guard_table_nrecords(guard_table);
    info->counters = guard_counters();
}

GuardFeatureInfoList *qmp_query_guard(Error **errp)
{
    GuardFeatureInfoList *list = NULL;
    GuardFeatureInfoList **tail = &list;

    guard_query_xo(&tail);
    guard_query_subpage(&tail);
    guard_pin_query(guard_feature(&tail, GUARD_FEATURE_REGISTER_PINNING,
                                  guard_pin_unavailable()));
    guard_feature(&tail, GUARD_FEATURE_PRIVATE_MEMORY,
                  "this version of QEMU has no private memory");
    return list;
}
