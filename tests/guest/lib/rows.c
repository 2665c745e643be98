/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Runs the rows of the bypass matrix that are no operands; see rows.h. */

#include "rows.h"

uint8_t *at, *protected;
unsigned size;
uint64_t linear, row_insn, result[2];
Fault inner;

struct outcome {
    Fault f, inner;
    uint64_t result[2];
    uint8_t mem[PAGE_SIZE];
};

static struct outcome before, control, zeroed, got;
static void (*reset)(void);

static uint8_t *page_of(const uint8_t *p)
{
    return (uint8_t *)((uint64_t)p & -PAGE_SIZE);
}

static void reset_result(void)
{
    result[0] = result[1] = 0;
    inner = (Fault) { .vec = NONE };
}

static void keep(struct outcome *o)
{
    o->inner = inner;
    memcpy(o->result, result, sizeof(result));
    memcpy(o->mem, page_of(at), PAGE_SIZE);
}

static void prepare(const struct row *r)
{
    reset();
    reset_result();
    linear = 0;
    row_insn = 0;
    protected = NULL;
    r->prepare();
    if (!protected) {
        protected = at;
    }
    protected = (uint8_t *)((uint64_t)protected & -SUBPAGE);
}

static void alone(const struct row *r, bool zero, struct outcome *o)
{
    prepare(r);
    if (zero) {
        memset(protected, 0, SUBPAGE);
    }
    memcpy(before.mem, page_of(at), PAGE_SIZE);
    o->f = TRY(r->go());
    keep(o);
    reset();
}

static bool same_fault(Fault a, Fault b)
{
    return a.vec == b.vec && (a.vec == NONE || a.err == b.err);
}

static bool same_memory(const struct row *r, const uint8_t *got,
                        const uint8_t *want, const char *what)
{
    unsigned from = r->flags & PARTIAL ? (uint64_t)at % PAGE_SIZE & -SUBPAGE
                                       : 0;
    unsigned to = r->flags & PARTIAL ? from + SUBPAGE : PAGE_SIZE;

    if (!memcmp(got + from, want + from, to - from)) {
        return true;
    }
    for (unsigned i = from; i < to; i++) {
        if (got[i] != want[i]) {
            note("%s, %s: byte 0x%x of the page is 0x%x, not 0x%x", r->name,
                 what, i, got[i], want[i]);
            return false;
        }
    }
    return true;
}

static bool compare(const struct row *r, const struct outcome *o,
                    const struct outcome *want, const uint8_t *mem,
                    const char *what)
{
    if (!same_fault(o->f, want->f) || !same_fault(o->inner, want->inner)) {
        note("%s, %s: %s, %s", r->name, what, fault_text(o->f),
             fault_text(o->inner));
        note("not %s, %s", fault_text(want->f), fault_text(want->inner));
        return false;
    }
    if (memcmp(o->result, want->result, sizeof(result))) {
        note("%s, %s: results 0x%lx 0x%lx, not 0x%lx 0x%lx", r->name, what,
             o->result[0], o->result[1], want->result[0], want->result[1]);
        return false;
    }
    return same_memory(r, o->mem, mem, what);
}

static bool with_action(const struct row *r, const char *action)
{
    const char *taken = action;
    bool good, fault = false;
    uint64_t guard;
    int count = r->count;
    Fault f;
    Seen s;

    if (r->source != INSN && (!strcmp(action, "fault") ||
                              (r->source != DELIVERY &&
                               !strcmp(action, "pause")))) {
        taken = "discard";
    }
    if (r->flags & NO_DISCARD &&
        (!strcmp(taken, "discard") ||
         (!strcmp(taken, "pause") && r->source == DELIVERY))) {
        return true;
    }
    prepare(r);
    memcpy(before.mem, page_of(at), PAGE_SIZE);
    guard = (uint64_t)protected;
    arm(guard, SUBPAGE, r->write ? "read" : "none", action, 8);
    got.f = TRY(r->go());
    reset();
    s = disarm();
    keep(&got);

    if (!strcmp(taken, "fault")) {
        fault = true;
        count = 1;
        f = got.inner.vec != NONE ? got.inner : got.f;
        good = f.vec == GP && !f.err &&
               (!row_insn || r->flags & NO_RIP || f.rip == row_insn);
        if (!good) {
            note("%s, fault: %s, wanted at 0x%lx", r->name, fault_text(f),
                 row_insn);
        }
        good &= same_memory(r, got.mem, before.mem, "fault");
    } else if (!strcmp(taken, "discard") ||
               (!strcmp(taken, "pause") && r->source == DELIVERY)) {
        good = compare(r, &got, r->write ? &control : &zeroed, before.mem,
                       action);
    } else {
        good = compare(r, &got, &control, control.mem, action);
    }
    if (!fault && !strcmp(taken, "discard") && !r->write) {
        /* What the zeroes led to may have been fewer loads */
        count = s.events >= 1 && s.events <= count ? s.events : count;
    }
    if (!strcmp(taken, "pause") && s.stops) {
        count = s.events;
        s.stops = count;
    }
    return good & seen_first(s, count, (uint64_t)at, size, r->write, 0,
                             r->source == WALK || r->source == STATE ||
                             r->flags & NO_RIP ? 0 : row_insn, linear, taken,
                             action);
}

static bool beside(const struct row *r, int distance)
{
    uint64_t guard;
    char what[40];
    Seen s;

    prepare(r);
    guard = (uint64_t)protected + distance;
    if (guard / PAGE_SIZE != (uint64_t)at / PAGE_SIZE) {
        return true;
    }
    format(what, sizeof(what), "%s beside it", r->write ? "read" : "none");
    arm(guard, SUBPAGE, r->write ? "read" : "none", "fault", 0);
    got.f = TRY(r->go());
    reset();
    s = disarm();
    keep(&got);
    return compare(r, &got, &control, control.mem, what) &
           seen_none(s, what);
}

void rows_run(const struct row *rows, unsigned n, void (*back)(void))
{
    static const char *const actions[] = { "report", "discard", "fault",
                                           "pause" };

    reset = back;
    for (unsigned i = 0; i < n; i++) {
        const struct row *r = &rows[i];
        bool good = true;

        if (!r->write && !(r->flags & NO_DISCARD)) {
            alone(r, true, &zeroed);
        }
        alone(r, false, &control);
        if (control.f.vec != NONE || control.inner.vec != NONE) {
            note("%s: %s %s without protection", r->name,
                 fault_text(control.f), fault_text(control.inner));
            good = false;
        }
        if (r->write && !memcmp(before.mem, control.mem, PAGE_SIZE)) {
            note("%s: does not change memory", r->name);
            good = false;
        }
        if (!r->write && !(r->flags & NO_DISCARD) &&
            same_fault(zeroed.f, control.f) &&
            same_fault(zeroed.inner, control.inner) &&
            !memcmp(zeroed.result, control.result, sizeof(result)) &&
            !(r->flags & ZERO_SAME)) {
            note("%s: zeroes would not be seen", r->name);
            good = false;
        }
        for (unsigned a = 0; good && a < ARRAY_SIZE(actions); a++) {
            good &= with_action(r, actions[a]);
        }
        if (good && !(r->flags & PARTIAL)) {
            good &= beside(r, SUBPAGE);
            good &= r->flags & IN_USE || beside(r, -SUBPAGE);
        }
        ok(good, "%s (%s)", r->name, r->path);
    }
}
