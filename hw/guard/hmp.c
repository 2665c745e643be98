/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Sub-page protection on the human monitor.
 */

#include "qemu/osdep.h"
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
                       PRIx64 ") violations: %" PRIu64 " reads, %" PRIu64
                       " writes\n", r->size, SubpageAccess_str(r->access),
                       GuardAction_str(r->action), r->ram_block, r->offset,
                       r->reads, r->writes);
    }
    qapi_free_SubpageRegionInfoList(list);
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
