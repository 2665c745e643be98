/* SPDX-License-Identifier: GPL-2.0-or-later */
/* The guest's half of what pin_host.py does, and the rows of pinning. */

#include "pin.h"

uint64_t pin_insn;

static PinSeen parse(const char *r)
{
    PinSeen s = {
        .events = json_number(r, "events", -1),
        .counted = json_number(r, "counted", -1),
        .stops = json_number(r, "stops", -1),
        .index = json_number(r, "first.index", 0),
        .old = json_number(r, "first.old", -1),
        .attempted = json_number(r, "first.attempted", -1),
        .rip = json_number(r, "first.rip", -1),
        .has_rip = json(r, "first.rip"),
        .cpu = json_number(r, "first.cpu-index", -1),
    };

    json_text(r, "first.action", s.action, sizeof(s.action));
    json_text(r, "first.register", s.reg, sizeof(s.reg));
    if (s.events < 0) {
        bail("the host answered %s", r);
    }
    return s;
}

void pin(const char *action, int conts, const char *fmt, ...)
{
    char element[300];
    const char *r;
    va_list ap;

    va_start(ap, fmt);
    vformat(element, sizeof(element), fmt, ap);
    va_end(ap);
    r = host("call", "{\"name\": \"pin\", \"registers\": [%s], "
             "\"more\": {\"action\": \"%s\"}, \"conts\": %d}", element,
             action, conts);
    if (qmp_failed(r)) {
        bail("%s can't be pinned: %s", element, r);
    }
}

const char *pin_more(const char *more, const char *fmt, ...)
{
    char element[600];
    va_list ap;

    va_start(ap, fmt);
    vformat(element, sizeof(element), fmt, ap);
    va_end(ap);
    return host("call", "{\"name\": \"pin_more\", \"registers\": [%s], "
                "\"more\": %s}", element, more);
}

PinSeen unpin(void)
{
    return parse(host("call", "{\"name\": \"unpin\"}"));
}

PinSeen pin_seen(void)
{
    return parse(host("call", "{\"name\": \"pin_seen\"}"));
}

bool pin_none(PinSeen s, const char *what)
{
    if (s.events || s.counted || s.stops) {
        note("%s: %d events, %d counted, %d stops; first: %s 0x%lx, 0x%lx to "
             "0x%lx, %s", what, s.events, s.counted, s.stops, s.reg, s.index,
             s.old, s.attempted, s.action);
        return false;
    }
    return true;
}

bool pin_first(PinSeen s, int count, const char *reg, uint32_t index,
               int cpu, uint64_t old, uint64_t attempted, uint64_t rip,
               const char *action, const char *what)
{
    bool good = s.events == count && s.counted == count &&
                !strcmp(s.reg, reg) && s.index == index && s.cpu == cpu &&
                s.old == old && s.attempted == attempted &&
                !strcmp(s.action, action) &&
                (!rip || (s.has_rip && s.rip == rip)) &&
                s.stops == (strcmp(action, "pause") ? 0 : count);

    if (!good) {
        note("%s: %d events, %d counted, %d stops; %s 0x%lx cpu %d, 0x%lx to "
             "0x%lx, rip 0x%lx, %s", what, s.events, s.counted, s.stops,
             s.reg, s.index, s.cpu, s.old, s.attempted, s.rip, s.action);
        note("%s: expected %d; %s 0x%x cpu %d, 0x%lx to 0x%lx, rip 0x%lx, %s",
             what, count, reg, index, cpu, old, attempted, rip, action);
    }
    return good;
}

bool pin_registers_kept(const Fault *f)
{
    return f->rip == pin_insn && f->gpr[R8] == 0x1111 &&
           f->gpr[R9] == 0x2222 && f->gpr[R10] == 0x3333;
}

uint64_t pin_get_idt(void)
{
    struct dtr d;

    asm volatile("sidt %0" : "=m" (d));
    return d.base | (uint64_t)d.limit << 48;
}

uint64_t pin_get_gdt(void)
{
    struct dtr d;

    asm volatile("sgdt %0" : "=m" (d));
    return d.base | (uint64_t)d.limit << 48;
}

void pin_put_idt(uint64_t v)
{
    struct dtr d = pin_unpack(v);

    asm volatile("lidt %0" : : "m" (d));
}

void pin_put_gdt(uint64_t v)
{
    struct dtr d = pin_unpack(v);

    asm volatile("lgdt %0" : : "m" (d));
}

/* --- Rows --- */

static void element(const PinRow *r, uint64_t good, char *buf, size_t size)
{
    struct dtr d = pin_unpack(good);

    switch (r->kind) {
    case PIN_ONES:
        format(buf, size, "{\"register\": \"%s\", \"ones\": %lu}", r->reg,
               r->bits);
        break;
    case PIN_ZEROS:
        format(buf, size, "{\"register\": \"%s\", \"zeros\": %lu}", r->reg,
               r->bits);
        break;
    case PIN_VALUE:
        format(buf, size, "{\"register\": \"%s\", \"index\": %u, \"value\": "
               "%lu}", r->reg, r->index, good);
        break;
    case PIN_TABLE:
        format(buf, size, "{\"register\": \"%s\", \"value\": %lu, "
               "\"limit\": %u}", r->reg, d.base, d.limit);
        break;
    }
}

static bool is(const PinRow *r, uint64_t want, const char *what)
{
    uint64_t got = r->get();

    if (got != want) {
        note("%s, %s: the register is 0x%lx, not 0x%lx", r->name, what, got,
             want);
        return false;
    }
    return true;
}

/* What the event says: of a table, where it is */
static uint64_t told(const PinRow *r, uint64_t v)
{
    return r->kind == PIN_TABLE ? pin_unpack(v).base : v;
}

static bool with_action(const PinRow *r, const char *action, uint64_t good,
                        uint64_t evil)
{
    bool state = r->flags & PIN_STATE;
    const char *taken = state && strcmp(action, "report") ? "discard"
                                                          : action;
    bool fault = !strcmp(taken, "fault"), fine = true;
    bool lands = !strcmp(taken, "report") || !strcmp(taken, "pause");
    char e[200], what[40];

    element(r, good, e, sizeof(e));
    r->put(good);
    /* The second time is as the first: a pass is for one time */
    pin(action, 2, "%s", e);
    for (int i = 0; i < 2; i++) {
        Fault f;

        format(what, sizeof(what), "%s, %s time", action,
               i ? "second" : "first");
        pin_insn = 0;
        f = TRY(r->go(evil));
        if (f.vec != (fault ? GP : NONE) || (fault && f.err)) {
            note("%s, %s: %s", r->name, what, fault_text(f));
            fine = false;
        }
        if (fault && pin_insn && !pin_registers_kept(&f)) {
            note("%s, %s: at 0x%lx instead of 0x%lx, R8 to R10 0x%lx 0x%lx "
                 "0x%lx", r->name, what, f.rip, pin_insn, f.gpr[R8],
                 f.gpr[R9], f.gpr[R10]);
            fine = false;
        }
        fine &= is(r, lands ? evil : good, what);
        fine &= pin_first(pin_seen(), 1, r->reg, r->index, 0,
                          told(r, good), told(r, evil),
                          state ? 0 : pin_insn, taken, r->name);
        /* What is pinned may be written */
        r->put(good);
        fine &= is(r, good, "written as it is pinned");
        fine &= pin_none(pin_seen(), "written as it is pinned");
    }
    pin_none(unpin(), "unpinned");
    return fine;
}

/* What the row pins, and what it attacks with */
static void good_and_evil(const PinRow *r, uint64_t *good, uint64_t *evil)
{
    uint64_t now = r->get();

    *good = r->good;
    *evil = r->evil;
    if (r->kind == PIN_ONES) {
        *good = now | r->bits;
        *evil = *good & ~r->bits;
    } else if (r->kind == PIN_ZEROS) {
        *good = now & ~r->bits;
        *evil = *good | r->bits;
    }
}

static bool succeeds(const PinRow *r, uint64_t evil, const char *when)
{
    Fault f = TRY(r->go(evil));

    if (f.vec != NONE) {
        note("%s, %s: %s", r->name, when, fault_text(f));
        return false;
    }
    return is(r, evil, when);
}

void pin_rows(const PinRow *rows, unsigned n)
{
    static const char *const actions[] = { "report", "discard", "fault",
                                           "pause" };

    for (unsigned i = 0; i < n; i++) {
        const PinRow *r = &rows[i];
        uint64_t before = r->get(), good, evil;
        bool fine;

        good_and_evil(r, &good, &evil);
        r->put(good);
        fine = succeeds(r, evil, "without a pin");
        for (unsigned a = 0; fine && a < ARRAY_SIZE(actions); a++) {
            fine &= with_action(r, actions[a], good, evil);
        }
        fine = fine && succeeds(r, evil, "after register-unpin");
        r->put(before);
        ok(fine, "%s (%s)", r->name, r->path);
    }
}

/*
 * A register has one pin, so that the rows go in rounds: in each, the next row
 * of every register.
 */
static unsigned round_of(const PinRow *rows, unsigned i)
{
    /* An attack by SWAPGS writes the other base first */
    bool gs = rows[i].index == MSR_GS_BASE ||
              rows[i].index == MSR_KERNEL_GS_BASE;
    unsigned n = 0;

    for (unsigned j = 0; j < i; j++) {
        n += !strcmp(rows[j].reg, rows[i].reg) &&
             (rows[j].index == rows[i].index ||
              (gs && (rows[j].index == MSR_GS_BASE ||
                      rows[j].index == MSR_KERNEL_GS_BASE)));
    }
    return n;
}

static bool fails(const PinRow *r, uint64_t good, uint64_t evil,
                  const char *when)
{
    Fault f = TRY(r->go(evil));
    bool fine = f.vec == (r->flags & PIN_STATE ? NONE : GP);

    if (!fine) {
        note("%s, %s: %s", r->name, when, fault_text(f));
    }
    fine &= is(r, good, when);
    r->put(good);
    return fine;
}

/* Returns whether the round has rows */
static bool begin_round(const PinRow *rows, unsigned n, unsigned number)
{
    unsigned pinned = 0;

    for (unsigned i = 0; i < n; i++) {
        const PinRow *r = &rows[i];
        uint64_t good, evil;

        if (round_of(rows, i) == number) {
            good_and_evil(r, &good, &evil);
            r->put(good);
            ok(succeeds(r, evil, "without a pin"), "%s without a pin",
               r->name);
            r->put(good);
        }
    }
    for (unsigned i = 0; i < n; i++) {
        const PinRow *r = &rows[i];
        uint64_t good, evil;
        char e[200];

        if (round_of(rows, i) != number) {
            continue;
        }
        good_and_evil(r, &good, &evil);
        element(r, good, e, sizeof(e));
        if (qmp_failed(pin_more("{\"action\": \"fault\", \"grace-ms\": "
                                "600000}", "%s", e))) {
            bail("%s can't be pinned", e);
        }
        ok(fails(r, good, evil, "pinned"), "%s with one", r->name);
        pinned++;
    }
    return pinned;
}

static void end_round(const PinRow *rows, unsigned n, unsigned number,
                      const char *what)
{
    for (unsigned i = 0; i < n; i++) {
        const PinRow *r = &rows[i];
        uint64_t good, evil;
        bool fine = true;

        if (round_of(rows, i) != number) {
            continue;
        }
        good_and_evil(r, &good, &evil);
        if (!strcmp(what, "reset") && r->get() != good &&
            r->kind != PIN_TABLE) {
            fine &= succeeds(r, evil, "while the pin waits");
        }
        r->put(good);
        fine &= fails(r, good, evil, what);
        ok(fine, "%s after %s", r->name, what);
    }
    unpin();
}

void pin_rows_reset(const PinRow *rows, unsigned n)
{
    unsigned number = boot_number() - 1;

    if (number) {
        end_round(rows, n, number - 1, "reset");
    }
    if (begin_round(rows, n, number)) {
        for (;;) {
            outb(0x64, 0xfe);
        }
    }
}

void pin_rows_through(const PinRow *rows, unsigned n, const char *what)
{
    for (unsigned i = 0; begin_round(rows, n, i); i++) {
        const char *r = host("call", "{\"name\": \"%s\"}", what);

        ok(json_is(r, "pins", "same"), "%s: the pins are as before: %s", what,
           r);
        end_round(rows, n, i, what);
    }
}
