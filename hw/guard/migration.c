/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Sub-page protection: savevm and migration.
 *
 * The table travels as a section of its own, if anything is protected.  It is
 * loaded before devices are, so that what they map is filtered, and after
 * RAM, which is the host's to write.  RAM is named by block and offset.
 */

#include "qemu/osdep.h"
#include "qemu/bswap.h"
#include "qemu/error-report.h"
#include "qemu/units.h"
#include "qapi/error.h"
#include "exec/ramblock.h"
#include "exec/ramlist.h"
#include "migration/misc.h"
#include "migration/options.h"
#include "migration/vmstate.h"
#include "system/replay.h"
#include "system/runstate.h"
#include "system/system.h"
#include "guard/devices.h"
#include "guard/guard.h"
#include "guard/physmem.h"
#include "guard/resolve.h"

/* What can't be had with protections, or NULL */
static const char *guard_migration_conflict(void)
{
    if (migrate_mode() != MIG_MODE_NORMAL) {
        return "checkpoint-restart (CPR)";
    }
    if (migrate_postcopy()) {
        return "postcopy";
    }
    if (migrate_background_snapshot()) {
        return "background-snapshot";
    }
    if (migrate_colo()) {
        return "COLO";
    }
    return NULL;
}

bool guard_migration_blocked(Error **errp)
{
    const char *what = guard_migration_conflict();

    if (!guard_active() || !what || GUARD_MUTANT(GUARD_HOOK_MIGRATION_MODE)) {
        return false;
    }
    error_setg(errp, "guest memory is protected, which %s can't carry over: "
               "migrate without it, or set all memory to 'read-write' with "
               "subpage-set-access first", what);
    return true;
}

bool guard_incoming_refused(void)
{
    Error *err = NULL;

    if (!guard_migration_blocked(&err)) {
        return false;
    }
    error_report_err(err);
    return true;
}

bool guard_rdma_blocked(Error **errp)
{
    if (!guard_active()) {
        return false;
    }
    error_setg(errp, "guest memory is protected, which migration by RDMA "
               "can't carry over: use another transport, or set all memory "
               "to 'read-write' with subpage-set-access first");
    return true;
}

bool guard_migration_allows(Error **errp)
{
    const char *what = migrate_rdma() ? "RDMA" : guard_migration_conflict();

    if (!what || (!migration_is_running() &&
                  (!runstate_check(RUN_STATE_INMIGRATE) ||
                   GUARD_MUTANT(GUARD_HOOK_INCOMING)))) {
        return true;
    }
    error_setg(errp, "memory can't be protected while a migration with %s is "
               "under way or waited for: wait for it to end, or cancel it",
               what);
    return false;
}

void guard_migration_changed(const GuardChange *changes, size_t n)
{
    size_t i;

    if (!migration_is_running() || GUARD_MUTANT(GUARD_HOOK_HINTED)) {
        return;
    }
    for (i = 0; i < n; i++) {
        if (changes[i].nowrite) {
            guard_ram_copy_again(changes[i].start, changes[i].last);
        }
    }
}

/*
 * One record in the stream, little-endian:
 *   0  number of the RAM block in the list of names
 *   4  order, as in GuardRecord
 *   8  offset in the block, in bytes
 *  16  nowrite, 20 noread, 24 and 28 act, 32 guest
 *  36  0
 */
#define GUARD_SAVED_SIZE    40

typedef struct GuardSaved {
    uint32_t names_size;
    uint8_t *names;             /* of RAM blocks, each with its NUL */
    uint32_t size;
    uint8_t *records;
} GuardSaved;

static GuardSaved guard_saved;

static void guard_saved_free(GuardSaved *s)
{
    g_clear_pointer(&s->names, g_free);
    g_clear_pointer(&s->records, g_free);
    s->names_size = s->size = 0;
}

static bool guard_saved_needed(void *opaque)
{
    g_autoptr(GArray) records = NULL;

    if (!guard_active() || !guard_is_arming()) {
        return guard_active();
    }
    records = guard_records_to_save();
    return records->len > 0;
}

typedef struct GuardSaver {
    GByteArray *names;
    GByteArray *out;
    RAMBlock *block;
    uint32_t number;            /* of @block, from 1 on */
} GuardSaver;

static void guard_save_record(GuardSaver *s, const GuardRecord *r)
{
    uint64_t size = 1ULL << guard_order_bits(r->order);
    uint8_t saved[GUARD_SAVED_SIZE];
    ram_addr_t offset;
    RAMBlock *block = guard_ram_block(r->start, &offset);

    if (offset + size > ROUND_UP(block->max_length, GUARD_PAGE_SIZE)) {
        /* It reaches into the next block, which may not be next elsewhere */
        GuardRecord piece = *r;
        uint64_t done;

        piece.order--;
        for (done = 0; done < size; done += size / 512) {
            piece.start = r->start + done;
            guard_save_record(s, &piece);
        }
        return;
    }
    if (block != s->block) {
        /* Records are sorted: each block comes once */
        s->block = block;
        s->number++;
        g_byte_array_append(s->names, (uint8_t *)block->idstr,
                            strlen(block->idstr) + 1);
    }
    stl_le_p(saved, s->number - 1);
    stl_le_p(saved + 4, r->order);
    stq_le_p(saved + 8, offset);
    stl_le_p(saved + 16, r->page.nowrite);
    stl_le_p(saved + 20, r->page.noread);
    stl_le_p(saved + 24, r->page.act[0]);
    stl_le_p(saved + 28, r->page.act[1]);
    stl_le_p(saved + 32, r->page.guest);
    stl_le_p(saved + 36, 0);
    g_byte_array_append(s->out, saved, sizeof(saved));
}

static int guard_pre_save(void *opaque)
{
    GuardSaved *s = opaque;
    g_autoptr(GArray) records = guard_records_to_save();
    GuardSaver saver = {
        .names = g_byte_array_new(),
        .out = g_byte_array_new(),
    };
    guint i;

    guard_saved_free(s);
    RCU_READ_LOCK_GUARD();
    for (i = 0; i < records->len; i++) {
        guard_save_record(&saver, &g_array_index(records, GuardRecord, i));
    }
    s->names_size = saver.names->len;
    s->names = g_byte_array_free(saver.names, false);
    s->size = saver.out->len;
    s->records = g_byte_array_free(saver.out, false);
    return 0;
}

static int guard_post_save(void *opaque)
{
    guard_saved_free(opaque);
    return 0;
}

static int guard_pre_load(void *opaque)
{
    guard_saved_free(opaque);
    return 0;
}

/* Before memory is allocated for them */
static bool guard_names_fit(void *opaque, int version_id)
{
    GuardSaved *s = opaque;

    return s->names_size && s->names_size <= 1 * MiB;
}

static bool guard_records_fit(void *opaque, int version_id)
{
    GuardSaved *s = opaque;

    return s->size && s->size % GUARD_SAVED_SIZE == 0 &&
           s->size / GUARD_SAVED_SIZE <= GUARD_MAX_RECORDS;
}

/* The blocks of the list of names, or NULL */
static GPtrArray *guard_saved_blocks(const GuardSaved *s, Error **errp)
{
    g_autoptr(GPtrArray) blocks = g_ptr_array_new();
    const char *name = (const char *)s->names;
    const char *end = name + s->names_size;

    if (s->names[s->names_size - 1]) {
        error_setg(errp, "a list of RAM blocks that does not end");
        return NULL;
    }
    for (; name < end; name += strlen(name) + 1) {
        RAMBlock *block = qemu_ram_block_by_name(name);

        if (!block) {
            error_setg(errp, "RAM block '%s' is protected, and this VM has "
                       "none of that name", name);
            return NULL;
        }
        g_ptr_array_add(blocks, block);
    }
    return g_steal_pointer(&blocks);
}

static bool guard_page_is_valid(const GuardPage *p, unsigned order)
{
    bool uniform = (p->nowrite == UINT32_MAX) &&
                   (p->noread == 0 || p->noread == UINT32_MAX) &&
                   (p->act[0] == 0 || p->act[0] == UINT32_MAX) &&
                   (p->act[1] == 0 || p->act[1] == UINT32_MAX) &&
                   (p->guest == 0 || p->guest == UINT32_MAX);

    return p->nowrite && !(p->noread & ~p->nowrite) &&
           !((p->act[0] | p->act[1] | p->guest) & ~p->nowrite) &&
           (!order || uniform);
}

/*
 * Append a record; in pieces if the block begins elsewhere than it did, so
 * that an aligned range is not aligned any more.
 */
static void guard_append_record(GArray *records, GuardRecord r)
{
    uint64_t size = 1ULL << guard_order_bits(r.order);
    GuardRecord piece = r;
    uint64_t done;

    if (!(r.start & (size - 1))) {
        g_array_append_val(records, r);
        return;
    }
    piece.order--;
    for (done = 0; done < size; done += size / 512) {
        piece.start = r.start + done;
        guard_append_record(records, piece);
    }
}

static int guard_compare_starts(const void *a, const void *b)
{
    const GuardRecord *ra = a;
    const GuardRecord *rb = b;

    return ra->start < rb->start ? -1 : ra->start > rb->start;
}

static bool guard_load_records(const GuardSaved *s, GArray *records,
                               Error **errp)
{
    g_autoptr(GPtrArray) blocks = NULL;
    uint32_t i;

    RCU_READ_LOCK_GUARD();
    blocks = guard_saved_blocks(s, errp);
    if (!blocks) {
        return false;
    }
    for (i = 0; i < s->size; i += GUARD_SAVED_SIZE) {
        const uint8_t *p = s->records + i;
        uint32_t number = ldl_le_p(p);
        uint64_t offset = ldq_le_p(p + 8);
        GuardRecord r = {
            .order = ldl_le_p(p + 4),
            .page = {
                .nowrite = ldl_le_p(p + 16),
                .noread = ldl_le_p(p + 20),
                .act = { ldl_le_p(p + 24), ldl_le_p(p + 28) },
                .guest = ldl_le_p(p + 32),
            },
        };
        RAMBlock *block;
        uint64_t size;

        if (number >= blocks->len || r.order >= GUARD_ORDERS ||
            !guard_page_is_valid(&r.page, r.order)) {
            error_setg(errp, "record %u is not valid", i / GUARD_SAVED_SIZE);
            return false;
        }
        block = g_ptr_array_index(blocks, number);
        if (guard_judge_region(block->mr) != GUARD_RESOLVE_OK &&
            !GUARD_MUTANT(GUARD_HOOK_LOADED_RAM)) {
            error_setg(errp, "RAM block '%s' is protected, and here it is ROM "
                       "or memory of a device", block->idstr);
            return false;
        }
        size = 1ULL << guard_order_bits(r.order);
        if (offset % GUARD_PAGE_SIZE || offset >= block->used_length ||
            size > ROUND_UP(block->used_length, GUARD_PAGE_SIZE) - offset) {
            error_setg(errp, "0x%" PRIx64 " bytes at 0x%" PRIx64 " of RAM "
                       "block '%s' are protected, and it has only 0x%" PRIx64,
                       size, offset, block->idstr,
                       (uint64_t)block->used_length);
            return false;
        }
        r.start = block->offset + offset;
        guard_append_record(records, r);
        if (records->len > GUARD_MAX_RECORDS) {
            error_setg(errp, "the access table would have more than %d "
                       "records", GUARD_MAX_RECORDS);
            return false;
        }
    }
    qsort(records->data, records->len, sizeof(GuardRecord),
          guard_compare_starts);
    for (i = 1; i < records->len; i++) {
        const GuardRecord *r = &g_array_index(records, GuardRecord, i - 1);

        if (r[1].start < r->start + (1ULL << guard_order_bits(r->order))) {
            error_setg(errp, "two records have the same memory");
            return false;
        }
    }
    return true;
}

/* Memory that is looked at in one go, so that an image can't take up much */
#define GUARD_LOAD_CHANGES  65536

/* Add what a record protects; where it goes on like before, to the last one */
static void guard_add_changes(GArray *changes, const GuardRecord *r)
{
    uint64_t unit = 1ULL << (guard_order_bits(r->order) - 5);
    unsigned s;

    for (s = 0; s < 32; s++) {
        GuardChange c = {
            .start = r->start + s * unit,
            .last = r->start + (s + 1) * unit - 1,
            .nowrite = extract32(r->page.nowrite, s, 1),
            .noread = extract32(r->page.noread, s, 1),
        };
        GuardChange *p = changes->len
                         ? &g_array_index(changes, GuardChange,
                                          changes->len - 1) : NULL;

        if (!c.nowrite) {
            continue;
        }
        if (p && p->last + 1 == c.start && p->noread == c.noread) {
            p->last = c.last;
        } else {
            g_array_append_val(changes, c);
        }
    }
}

/* Whether a device has mapped what a table is to protect */
static bool guard_load_conflict(const GArray *records, GuardLiveMap *map)
{
    g_autoptr(GArray) changes = g_array_new(false, false, sizeof(GuardChange));
    uint64_t serial = guard_map_serial();
    guint i;

    for (i = 0; i < records->len; i++) {
        guard_add_changes(changes, &g_array_index(records, GuardRecord, i));
        if (changes->len < GUARD_LOAD_CHANGES && i + 1 < records->len) {
            continue;
        }
        if (guard_map_conflict((const GuardChange *)changes->data,
                               changes->len, serial, map)) {
            return true;
        }
        g_array_set_size(changes, 0);
    }
    return false;
}

static bool guard_load(const GuardSaved *s, Error **errp)
{
    g_autoptr(GArray) records = g_array_new(false, false, sizeof(GuardRecord));
    const char *unavailable = guard_subpage_unavailable();
    GuardLiveMap map;

    if (GUARD_MUTANT(GUARD_HOOK_MIGRATION_CHECK)) {
        unavailable = NULL;
    } else if (!guard_can_arm(errp)) {
        return false;
    }
    if (unavailable) {
        error_setg(errp, "%s", unavailable);
        return false;
    }
    if (replay_mode != REPLAY_MODE_NONE) {
        error_setg(errp, "memory can't be protected while recording or "
                   "replaying");
        return false;
    }
    guard_lifecycle_init();
    if (!guard_load_records(s, records, errp)) {
        return false;
    }
    if (guard_load_conflict(records, &map)) {
        g_autofree char *path = guard_device_path(map.who);

        error_setg(errp, "device '%s' has protected memory mapped already",
                   path ?: "of unknown name");
        return false;
    }
    guard_replace_table(guard_table_new(records));
    return true;
}

static int guard_post_load(void *opaque, int version_id)
{
    GuardSaved *s = opaque;
    Error *err = NULL;
    bool good = guard_load(s, &err);

    if (!good) {
        error_reportf_err(err, "sub-page protection can't be taken over: ");
    }
    guard_saved_free(s);
    return good ? 0 : -EINVAL;
}

static const VMStateDescription vmstate_guard = {
    .name = "guard-subpage",
    .version_id = 1,
    .minimum_version_id = 1,
    /* Before anything that maps memory, which comes with the default */
    .priority = MIG_PRI_MAX - 1,
    .needed = guard_saved_needed,
    .pre_save = guard_pre_save,
    .post_save = guard_post_save,
    .pre_load = guard_pre_load,
    .post_load = guard_post_load,
    .fields = (const VMStateField[]) {
        VMSTATE_UINT32(names_size, GuardSaved),
        VMSTATE_VALIDATE("sane list of RAM blocks", guard_names_fit),
        VMSTATE_VBUFFER_ALLOC_UINT32(names, GuardSaved, 1, NULL, names_size),
        VMSTATE_UINT32(size, GuardSaved),
        VMSTATE_VALIDATE("sane number of records", guard_records_fit),
        VMSTATE_VBUFFER_ALLOC_UINT32(records, GuardSaved, 1, NULL, size),
        VMSTATE_END_OF_LIST()
    },
};

static void guard_machine_done(Notifier *notifier, void *data)
{
    vmstate_register(NULL, 0, &vmstate_guard, &guard_saved);
}

static Notifier guard_machine_done_notifier = {
    .notify = guard_machine_done,
};

/* An incoming section has to find its handler before anything is protected */
static void __attribute__((constructor)) guard_migration_init(void)
{
    qemu_add_machine_init_done_notifier(&guard_machine_done_notifier);
}
