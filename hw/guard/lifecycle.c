/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Sub-page protection: what ends it other than a command.
 */

#include "qemu/osdep.h"
#include "qapi/error.h"
#include "qapi/qapi-events-guard.h"
#include "qom/object.h"
#include "exec/memory.h"
#include "exec/ramlist.h"
#include "exec/ramblock.h"
#include "hw/resettable.h"
#include "system/reset.h"
#include "guard/guard.h"
#include "guard/physmem.h"

unsigned guard_ram_removals;

/* Lift the protection of a range of RAM, and say so if there was any. */
static void guard_lift(ram_addr_t start, ram_addr_t last,
                       SubpageClearReason reason)
{
    GuardChange c = { .start = start, .last = last };
    uint64_t before = guard_table_bytes(guard_table);
    uint64_t after;

    /* There is no limit for lifting: it can't fail */
    guard_change_ram(&c, 1, &error_abort);
    guard_hits_forget(&c, 1);
    guard_undo_forget(start, last);
    after = guard_table_bytes(guard_table);
    if (after != before) {
        guard_tcg_sync_later();
        qapi_event_send_subpage_cleared(reason, before - after);
    }
}

/*
 * Guards go in the enter phase of a reset: in the hold phase ROMs and the
 * like are written to memory again.
 */
#define TYPE_GUARD_RESET "guard-reset"
OBJECT_DECLARE_SIMPLE_TYPE(GuardReset, GUARD_RESET)

struct GuardReset {
    Object parent;
    ResettableState reset_state;
};

OBJECT_DEFINE_SIMPLE_TYPE_WITH_INTERFACES(GuardReset, guard_reset, GUARD_RESET,
                                          OBJECT,
                                          { TYPE_RESETTABLE_INTERFACE }, { })

static ResettableState *guard_reset_get_state(Object *obj)
{
    return &GUARD_RESET(obj)->reset_state;
}

static void guard_reset_enter(Object *obj, ResetType type)
{
    /*
     * Memory outlives suspend to RAM, and with it the machine that is
     * protected.  A guest can suspend, and wake itself by a timer.
     */
    if (type == RESET_TYPE_WAKEUP && !GUARD_MUTANT(GUARD_HOOK_WAKEUP)) {
        return;
    }
    guard_replacements++;
    if (guard_table && !GUARD_MUTANT(GUARD_HOOK_RESET)) {
        guard_lift(0, RAM_ADDR_MAX, SUBPAGE_CLEAR_REASON_RESET);
    }
}

static void guard_reset_init(Object *obj)
{
}

static void guard_reset_finalize(Object *obj)
{
}

static void guard_reset_class_init(ObjectClass *klass, void *data)
{
    ResettableClass *rc = RESETTABLE_CLASS(klass);

    rc->get_state = guard_reset_get_state;
    rc->phases.enter = guard_reset_enter;
}

/* Runs with the BQL held; @host is still a part of its RAM block */
static void guard_ram_gone(void *host, size_t from, size_t to)
{
    ram_addr_t ram;

    guard_ram_removals++;
    if (!guard_table || from >= to || GUARD_MUTANT(GUARD_HOOK_RAM_REMOVED)) {
        return;
    }
    ram = qemu_ram_addr_from_host(host);
    if (ram != RAM_ADDR_INVALID) {
        guard_lift(ram + from, ram + to - 1, SUBPAGE_CLEAR_REASON_RAM_REMOVED);
    }
}

static void guard_ram_removed(RAMBlockNotifier *n, void *host, size_t size,
                              size_t max_size)
{
    guard_ram_gone(host, 0, max_size);
}

static void guard_ram_resized(RAMBlockNotifier *n, void *host,
                              size_t old_size, size_t new_size)
{
    guard_ram_gone(host, new_size, old_size);
}

static RAMBlockNotifier guard_ram_notifier = {
    .ram_block_removed = guard_ram_removed,
    .ram_block_resized = guard_ram_resized,
};

void guard_lifecycle_init(void)
{
    static bool done;

    if (done) {
        return;
    }
    done = true;
    guard_physmem_init();
    guard_devices_init();
    ram_block_notifier_add(&guard_ram_notifier);
    qemu_register_resettable(object_new(TYPE_GUARD_RESET));
}
