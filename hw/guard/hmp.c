/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Sub-page protection and register pinning on the human monitor.
 */

#include "qemu/osdep.h"
#include "qemu/cutils.h"
#include "monitor/hmp.h"
#include "monitor/monitor.h"
#include "qapi/error.h"
#include "qapi/qapi-commands-guard.h"
#include "qobject/qdict.h"
#include "guard/guard.h"
#include "guard/hmp.h"

void hmp_subpage_set_access(Monitor *mon, const QDict *qdict)
{
    const char *access = qdict_get_str(qdict, "access");
    const char *action = qdict_get_try_str(qdict, "action");
    SubpageRegion region = {
        .addr = qdict_get_int(qdict, "addr"),
        .size = qdict_get_int(qdict, "size"),
    };
    SubpageRegionList list = { .value = &region };
    GuardAction act = GUARD_ACTION_FAULT;
    Error *err = NULL;
    int v;

    v = qapi_enum_parse(&SubpageAccess_lookup, access, -1, &err);
    if (v >= 0) {
        region.access = v;
        if (action) {
            v = qapi_enum_parse(&GuardAction_lookup, action, -1, &err);
            act = v;
        }
    }
    if (v >= 0) {
        qmp_subpage_set_access(&list, true, act, &err);
    }
    hmp_handle_error(mon, err);
}

void hmp_info_subpage_access(Monitor *mon, const QDict *qdict)
{
    Error *err = NULL;
    SubpageRegionInfoList *list, *e;

    list = qmp_query_subpage_access(false, 0, false, 0, &err);
    if (hmp_handle_error(mon, err)) {
        return;
    }
    if (!list) {
        monitor_printf(mon, "No memory is protected\n");
    }
    for (e = list; e; e = e->next) {
        SubpageRegionInfo *r = e->value;

        if (r->has_addr) {
            monitor_printf(mon, "0x%016" PRIx64, r->addr);
        } else {
            monitor_printf(mon, "%-18s", "not mapped");
        }
        monitor_printf(mon, " size 0x%" PRIx64 " access %s action %s (%s+0x%"
                       PRIx64 ")%s violations: %" PRIu64 " reads, %" PRIu64
                       " writes\n", r->size, SubpageAccess_str(r->access),
                       GuardAction_str(r->action), r->ram_block, r->offset,
                       r->owner == GUARD_OWNER_GUEST ? " by the guest" : "",
                       r->reads, r->writes);
    }
    qapi_free_SubpageRegionInfoList(list);
}

/* "cr4", "msr:0xc0000082" */
static bool hmp_pin_register(const char *text, PinRegister *reg,
                             bool *has_index, uint32_t *index, Error **errp)
{
    const char *colon = strchr(text, ':');
    g_autofree char *name = colon ? g_strndup(text, colon - text)
                                  : g_strdup(text);
    int v = qapi_enum_parse(&PinRegister_lookup, name, -1, errp);

    if (v < 0) {
        return false;
    }
    *reg = v;
    *has_index = colon;
    if (colon && qemu_strtoui(colon + 1, NULL, 0, index) < 0) {
        error_setg(errp, "'%s' is not the number of an MSR", colon + 1);
        return false;
    }
    return true;
}

/* "ONES", "ONES/ZEROS"; "VALUE", "BASE/LIMIT" or "now" */
static bool hmp_pin_value(const char *text, RegisterPin *pin, Error **errp)
{
    bool bits = pin->q_register <= PIN_REGISTER_EFER;
    const char *slash = strchr(text, '/');
    g_autofree char *first = slash ? g_strndup(text, slash - text)
                                   : g_strdup(text);
    uint64_t a, b = 0;

    if (!bits && g_str_equal(text, "now")) {
        return true;
    }
    if (qemu_strtou64(first, NULL, 0, &a) < 0 ||
        (slash && qemu_strtou64(slash + 1, NULL, 0, &b) < 0)) {
        error_setg(errp, "'%s' is not a value: use %s", text,
                   bits ? "ONES or ONES/ZEROS" : "VALUE, BASE/LIMIT or now");
        return false;
    }
    if (bits) {
        pin->has_ones = pin->has_zeros = true;
        pin->ones = a;
        pin->zeros = b;
        return true;
    }
    if (b > UINT16_MAX) {
        error_setg(errp, "limit 0x%" PRIx64 " is more than 0xffff", b);
        return false;
    }
    pin->has_value = true;
    pin->value = a;
    pin->has_limit = slash;
    pin->limit = b;
    return true;
}

void hmp_register_pin(Monitor *mon, const QDict *qdict)
{
    const char *value = qdict_get_try_str(qdict, "value");
    const char *action = qdict_get_try_str(qdict, "action");
    RegisterPin pin = { };
    RegisterPinList list = { .value = &pin };
    GuardAction act = GUARD_ACTION_FAULT;
    Error *err = NULL;
    bool ok;

    ok = hmp_pin_register(qdict_get_str(qdict, "register"), &pin.q_register,
                          &pin.has_index, &pin.index, &err) &&
         (!value || hmp_pin_value(value, &pin, &err));
    if (ok && action) {
        int v = qapi_enum_parse(&GuardAction_lookup, action, -1, &err);

        ok = v >= 0;
        act = v;
    }
    if (ok) {
        qmp_register_pin(&list, true, act, false, 0, false, 0,
                         qdict_haskey(qdict, "cpu-index"),
                         qdict_get_try_int(qdict, "cpu-index", 0), &err);
    }
    hmp_handle_error(mon, err);
}

void hmp_register_unpin(Monitor *mon, const QDict *qdict)
{
    RegisterPinSelector selector = { };
    RegisterPinSelectorList list = { .value = &selector };
    Error *err = NULL;

    if (hmp_pin_register(qdict_get_str(qdict, "register"),
                         &selector.q_register, &selector.has_index,
                         &selector.index, &err)) {
        qmp_register_unpin(&list, qdict_haskey(qdict, "cpu-index"),
                           qdict_get_try_int(qdict, "cpu-index", 0), &err);
    }
    hmp_handle_error(mon, err);
}

void hmp_info_register_pins(Monitor *mon, const QDict *qdict)
{
    RegisterPinInfoList *list, *e;

    list = qmp_query_register_pins(&error_abort);
    if (!list) {
        monitor_printf(mon, "No register is pinned\n");
    }
    for (e = list; e; e = e->next) {
        RegisterPinInfo *p = e->value;

        monitor_printf(mon, "CPU %" PRId64 ": %s", p->cpu_index,
                       PinRegister_str(p->q_register));
        if (p->has_index) {
            monitor_printf(mon, ":0x%" PRIx32, p->index);
        }
        if (p->has_ones) {
            monitor_printf(mon, " ones 0x%" PRIx64 " zeros 0x%" PRIx64,
                           p->ones, p->zeros);
        }
        if (p->has_value) {
            monitor_printf(mon, " value 0x%" PRIx64, p->value);
        }
        if (p->has_limit) {
            monitor_printf(mon, " limit 0x%" PRIx16, p->limit);
        }
        monitor_printf(mon, " by %s, action %s, %s", PinSetBy_str(p->set_by),
                       GuardAction_str(p->action), PinState_str(p->state));
        if (p->has_on_init) {
            monitor_printf(mon, ", on-init %s %" PRIu32 " ms",
                           PinOnInit_str(p->on_init), p->grace_ms);
        }
        monitor_printf(mon, "\n");
    }
    qapi_free_RegisterPinInfoList(list);
}

void hmp_info_guard(Monitor *mon, const QDict *qdict)
{
    GuardFeatureInfoList *list, *e;

    list = qmp_query_guard(&error_abort);
    for (e = list; e; e = e->next) {
        GuardFeatureInfo *f = e->value;

        monitor_printf(mon, "%s: ", GuardFeature_str(f->feature));
        if (!f->available) {
            monitor_printf(mon, "not available: %s\n", f->reason);
            continue;
        }
        monitor_printf(mon, "%s, enforced by %s", f->on ? "on" : "off",
                       GuardEnforcer_str(f->enforced_by));
        if (f->has_granularity) {
            monitor_printf(mon, ", granularity %" PRIu64, f->granularity);
        }
        if (f->limits) {
            monitor_printf(mon, ", %" PRIu64 " of %" PRIu64 " records",
                           f->limits->records_used, f->limits->records);
        }
        monitor_printf(mon, "\n");
        if (f->counters) {
            GuardCounters *c = f->counters;

            monitor_printf(mon, "  violations: %" PRIu64 " reads, %" PRIu64
                           " writes; %" PRIu64 " reported, %" PRIu64
                           " discarded, %" PRIu64 " faulted, %" PRIu64
                           " paused; %" PRIu64 " events suppressed\n",
                           c->reads, c->writes, c->reported, c->discarded,
                           c->faulted, c->paused, c->suppressed);
        }
    }
    qapi_free_GuardFeatureInfoList(list);
}
