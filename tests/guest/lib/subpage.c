/* SPDX-License-Identifier: GPL-2.0-or-later */
/* The guest's half of what subpage_host.py does. */

#include "subpage.h"

static Seen parse(const char *r)
{
    Seen s = {
        .events = json_number(r, "events", -1),
        .counted = json_number(r, "counted", -1),
        .stops = json_number(r, "stops", -1),
        .addr = json_number(r, "first.addr", -1),
        .size = json_number(r, "first.size", -1),
        .rip = json_number(r, "first.rip", -1),
        .linear = json_number(r, "first.linear-addr", -1),
        .write = json_is(r, "first.write", "true"),
        .has_rip = json(r, "first.rip"),
        .has_linear = json(r, "first.linear-addr"),
        .cpu = json_number(r, "first.cpu-index", -1),
    };

    json_text(r, "first.action", s.action, sizeof(s.action));
    json_text(r, "first.source", s.source, sizeof(s.source));
    if (s.events < 0) {
        bail("the host answered %s", r);
    }
    return s;
}

static void set(const char *call, uint64_t gpa, uint64_t size,
                const char *access, const char *action, int conts)
{
    const char *r = host("call", "{\"name\": \"%s\", \"addr\": %lu, "
                         "\"size\": %lu, \"access\": \"%s\", \"action\": "
                         "\"%s\", \"conts\": %d}", call, gpa, size, access,
                         action, conts);

    if (qmp_failed(r)) {
        bail("0x%lx+0x%lx can't be set to %s: %s", gpa, size, access, r);
    }
}

void arm(uint64_t gpa, uint64_t size, const char *access, const char *action,
         int conts)
{
    set("arm", gpa, size, access, action, conts);
}

void arm_more(uint64_t gpa, uint64_t size, const char *access,
              const char *action)
{
    set("arm_more", gpa, size, access, action, 0);
}

Seen disarm(void)
{
    return parse(host("call", "{\"name\": \"disarm\"}"));
}

Seen seen_so_far(void)
{
    return parse(host("call", "{\"name\": \"seen\"}"));
}

bool seen_none(Seen s, const char *what)
{
    if (s.events || s.counted || s.stops) {
        note("%s: %d events, %d counted, %d stops; first: addr 0x%lx size "
             "%lu %s", what, s.events, s.counted, s.stops, s.addr, s.size,
             s.action);
        return false;
    }
    return true;
}

bool seen_first(Seen s, int count, uint64_t addr, uint64_t size, bool write,
                int cpu, uint64_t rip, uint64_t linear, const char *action,
                const char *what)
{
    bool good = s.events == count && s.counted == count && s.addr == addr &&
                s.size == size && s.write == write && s.cpu == cpu &&
                !strcmp(s.source, "cpu") && !strcmp(s.action, action) &&
                (!rip || (s.has_rip && s.rip == rip)) &&
                (!linear || (s.has_linear && s.linear == linear)) &&
                s.stops == (strcmp(action, "pause") ? 0 : count);

    if (!good) {
        note("%s: %d events, %d counted, %d stops; %s addr 0x%lx size %lu %s "
             "cpu %d rip 0x%lx linear 0x%lx %s", what, s.events, s.counted,
             s.stops, s.source, s.addr, s.size, s.write ? "write" : "read",
             s.cpu, s.rip, s.linear, s.action);
        note("%s: expected %d, addr 0x%lx size %lu %s cpu %d rip 0x%lx "
             "linear 0x%lx %s", what, count, addr, size,
             write ? "write" : "read", cpu, rip, linear, action);
    }
    return good;
}
