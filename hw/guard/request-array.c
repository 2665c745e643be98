/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Sub-page protection that the guest asks for: reading the request array.
 *
 * Apart from the rest, so that a fuzzer can be built of it alone.
 */

#include "qemu/osdep.h"
#include "qemu/bswap.h"
#include "qapi/qapi-types-guard.h"
#include "guard/mutant.h"
#include "guard/request.h"
#include "guard/table.h"

bool guard_request_header(const uint8_t *buf, uint32_t *count)
{
    *count = ldl_le_p(buf + 4);
    return ldl_le_p(buf) == GUARD_REQUEST_VERSION &&
           *count <= GUARD_REQUEST_MAX;
}

void guard_request_entry(const uint8_t *buf, GuardRequestEntry *e)
{
    /* A guest can't stop the machine that it runs in: there is no 'pause' */
    static const uint8_t actions[] = {
        [1] = GUARD_ACTION_REPORT,
        [2] = GUARD_ACTION_DISCARD,
        [3] = GUARD_ACTION_FAULT,
    };
    unsigned access, action;

    e->gpa = ldq_le_p(buf);
    e->length = ldl_le_p(buf + 8);
    access = lduw_le_p(buf + 12);
    action = lduw_le_p(buf + 14);
    e->noread = access == 2;
    e->action = 0;
    e->status = GUARD_REQUEST_DONE;

    if (ldl_le_p(buf + 20)) {
        e->status = GUARD_REQUEST_RESERVED;
    } else if (access != 1 && access != 2) {
        e->status = GUARD_REQUEST_BAD_ACCESS;
    } else if (!action || action >= ARRAY_SIZE(actions)) {
        e->status = GUARD_REQUEST_BAD_ACTION;
    } else if (!GUARD_MUTANT(GUARD_HOOK_REQUEST_RANGE) &&
               (!e->length || e->length % GUARD_SUBPAGE_SIZE ||
                e->gpa % GUARD_SUBPAGE_SIZE ||
                e->gpa + (e->length - 1) < e->gpa)) {
        e->status = GUARD_REQUEST_BAD_RANGE;
    } else {
        e->action = actions[action];
    }
}

bool guard_request_sort(GArray *entries, GArray *changes)
{
    const GuardChange *c = guard_sort_changes(changes);
    guint i, n;

    if (c && !GUARD_MUTANT(GUARD_HOOK_REQUEST_OVERLAP)) {
        /* Of two entries the later one is wrong, and each beside the array. */
        n = c->index == GUARD_REQUEST_ARRAY ||
            (c[-1].index != GUARD_REQUEST_ARRAY && c[-1].index > c->index)
            ? c[-1].index : c->index;
        if (n != GUARD_REQUEST_ARRAY) {
            g_array_index(entries, GuardRequestEntry, n).status =
                GUARD_REQUEST_OVERLAP;
        }
        return false;
    }
    for (i = n = 0; i < changes->len; i++) {
        GuardChange *from = &g_array_index(changes, GuardChange, i);

        if (from->index != GUARD_REQUEST_ARRAY) {
            g_array_index(changes, GuardChange, n++) = *from;
        }
    }
    g_array_set_size(changes, n);
    return true;
}
