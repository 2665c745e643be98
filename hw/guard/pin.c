/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Register pinning: the commands, events, and what a reset does.
 */

#include "qemu/osdep.h"
#include "qemu/error-report.h"
#include "qapi/error.h"
#include "qapi/qapi-commands-guard.h"
#include "qapi/qapi-events-guard.h"
#include "qom/object.h"
#include "hw/core/cpu.h"
#include "hw/resettable.h"
#include "migration/vmstate.h"
#include "system/cpus.h"
#include "system/replay.h"
#include "system/reset.h"
#include "system/system.h"
#include "system/tcg.h"
#include "guard/guard.h"
#include "guard/limit.h"
#include "guard/pin-ops.h"

const GuardPinOps *guard_pin_ops;

/* Pins for all CPUs, for those that are plugged in later; with the BQL */
static GuardPin guard_pins_all[GUARD_MAX_PINS];
static size_t guard_npins_all;

/*
 * Each register is a kind of its own, so that a flood of one does not hide
 * another.  The MSRs that can be pinned are fewer than there is room for; one
 * that finds none all the same shares the kinds of PIN_REGISTER_MSR.
 */
#define GUARD_PIN_MSRS      256

typedef struct GuardPinMSR {
    uint32_t key;               /* its number and 1; 0 if there is none yet */
    GuardLimit kinds[GUARD_ACTION__MAX];
} GuardPinMSR;

static GuardLimit guard_pin_kinds[PIN_REGISTER__MAX][GUARD_ACTION__MAX];
static GuardPinMSR guard_pin_msrs[GUARD_PIN_MSRS];

/* A guest can send as many INITs as it likes, and reset the machine */
static GuardLimit guard_pin_clears[PIN_CLEAR_REASON__MAX];

static GuardLimit *guard_pin_kind(const GuardPinViolation *v)
{
    uint32_t key = v->index + 1;
    unsigned i;

    if (v->reg != PIN_REGISTER_MSR) {
        return &guard_pin_kinds[v->reg][v->action];
    }
    for (i = 0; i < GUARD_PIN_MSRS && !GUARD_MUTANT(GUARD_HOOK_PIN_KIND);
         i++) {
        GuardPinMSR *m = &guard_pin_msrs[(v->index + i) % GUARD_PIN_MSRS];
        uint32_t found = qatomic_read(&m->key);

        if (!found) {
            found = qatomic_cmpxchg(&m->key, 0, key);
        }
        if (!found || found == key) {
            return &m->kinds[v->action];
        }
    }
    return &guard_pin_kinds[v->reg][v->action];
}

void guard_pin_violation(CPUState *cs, const GuardPinViolation *v)
{
    GuardLimit *kind = guard_pin_kind(v);
    bool table = v->reg == PIN_REGISTER_IDTR || v->reg == PIN_REGISTER_GDTR;

    if (!guard_limit(kind)) {
        return;
    }
    qapi_event_send_register_pin_violation(cs->cpu_index, v->reg,
                                           v->reg == PIN_REGISTER_MSR,
                                           v->index, v->old, v->attempted,
                                           table, v->old_limit,
                                           table, v->attempted_limit,
                                           guard_arch->pc(cs, v->ra),
                                           v->action,
                                           guard_limit_untold(kind));
}

const char *guard_pin_unavailable(void)
{
    if (!tcg_enabled()) {
        return "register pinning is enforced by TCG only: use -accel tcg";
    }
    if (!guard_pin_ops) {
        return "register pinning is enforced for x86 CPUs only";
    }
    if (!first_cpu) {
        return "this machine has no CPU whose registers could be pinned: use "
               "a machine that has, such as -machine q35";
    }
    return NULL;
}

/*
 * Applying
 */

/* What a command does to a CPU; shared by the work items of all CPUs */
typedef struct GuardPinWork {
    bool set;
    size_t n;
    GuardPin pins[];
} GuardPinWork;

/* With the BQL held, on the CPU's thread or while it doesn't run yet */
static void guard_pin_apply(CPUState *cs, const GuardPinWork *work)
{
    size_t i;

    for (i = 0; i < work->n; i++) {
        if (work->set) {
            guard_pin_ops->set(cs, &work->pins[i]);
        } else {
            guard_pin_ops->unset(cs, work->pins[i].reg, work->pins[i].index);
        }
    }
    guard_pin_ops->done(cs);
}

static void guard_pin_work(CPUState *cs, run_on_cpu_data data)
{
    guard_pin_apply(cs, data.host_ptr);
    g_atomic_rc_box_release(data.host_ptr);
}

static void guard_pin_nothing(CPUState *cs, run_on_cpu_data data)
{
}

static bool guard_pin_runs(CPUState *cs)
{
    return cs->created && !cs->unplug;
}

/*
 * Between two blocks of each CPU.  The items are queued on all of them before
 * the first is waited for, and waiting lets go of the BQL: hold on to the CPUs.
 */
static void guard_pin_run(GPtrArray *cpus, GuardPinWork *work)
{
    guint i;

    for (i = 0; i < cpus->len; i++) {
        CPUState *cs = g_ptr_array_index(cpus, i);

        if (guard_pin_runs(cs)) {
            g_atomic_rc_box_acquire(work);
            async_run_on_cpu(cs, guard_pin_work, RUN_ON_CPU_HOST_PTR(work));
        }
    }
    for (i = 0; i < cpus->len; i++) {
        CPUState *cs = g_ptr_array_index(cpus, i);

        if (guard_pin_runs(cs)) {
            run_on_cpu(cs, guard_pin_nothing, RUN_ON_CPU_NULL);
        }
    }
}

/* The CPUs that a command is for, with a reference each */
static GPtrArray *guard_pin_cpus(bool has_cpu_index, int64_t cpu_index,
                                 Error **errp)
{
    GPtrArray *cpus = g_ptr_array_new_with_free_func(object_unref);
    CPUState *cs;

    CPU_FOREACH(cs) {
        if (!has_cpu_index || cs->cpu_index == cpu_index) {
            g_ptr_array_add(cpus, object_ref(OBJECT(cs)));
        }
    }
    if (has_cpu_index && !cpus->len) {
        error_setg(errp, "cpu-index %" PRId64 " is no CPU of this machine",
                   cpu_index);
        g_ptr_array_unref(cpus);
        return NULL;
    }
    return cpus;
}

static GuardPin *guard_pin_in_all(PinRegister reg, uint32_t index)
{
    size_t i;

    for (i = 0; i < guard_npins_all; i++) {
        GuardPin *pin = &guard_pins_all[i];

        if (pin->reg == reg && pin->index == index) {
            return pin;
        }
    }
    return NULL;
}

static void guard_pin_forget(PinRegister reg, uint32_t index)
{
    GuardPin *pin = guard_pin_in_all(reg, index);

    if (pin) {
        *pin = guard_pins_all[--guard_npins_all];
    }
}

static void guard_pin_remember(const GuardPin *pin)
{
    GuardPin *old = guard_pin_in_all(pin->reg, pin->index);

    if (!old) {
        assert(guard_npins_all < GUARD_MAX_PINS);
        old = &guard_pins_all[guard_npins_all++];
    }
    *old = *pin;
}

/*
 * Commands
 */

static bool guard_pin_parse_bits(const RegisterPin *r, const char *what,
                                 GuardPin *pin, Error **errp)
{
    const char *name = PinRegister_str(r->q_register);

    if (r->has_index || r->has_value || r->has_limit) {
        error_setg(errp, "%s: %s is pinned by 'ones' and 'zeros': it takes no "
                   "'%s'", what, name, r->has_index ? "index"
                   : r->has_value ? "value" : "limit");
        return false;
    }
    pin->mask = (r->has_ones ? r->ones : 0) | (r->has_zeros ? r->zeros : 0);
    pin->value = r->has_ones ? r->ones : 0;
    if (!pin->mask) {
        error_setg(errp, "%s: %s needs bits in 'ones' or 'zeros'", what, name);
        return false;
    }
    if (r->has_ones && r->has_zeros && (r->ones & r->zeros)) {
        error_setg(errp, "%s: bits 0x%" PRIx64 " of %s are both in 'ones' and "
                   "in 'zeros'", what, r->ones & r->zeros, name);
        return false;
    }
    return true;
}

static bool guard_pin_parse_value(const RegisterPin *r, const char *what,
                                  GuardPin *pin, Error **errp)
{
    const char *name = PinRegister_str(r->q_register);
    bool msr = r->q_register == PIN_REGISTER_MSR;

    if (r->has_ones || r->has_zeros) {
        error_setg(errp, "%s: %s is pinned as a whole: it takes 'value', not "
                   "'%s'", what, name, r->has_ones ? "ones" : "zeros");
        return false;
    }
    if (r->has_index != msr) {
        error_setg(errp, "%s: %s %s", what, name,
                   msr ? "needs 'index', the number of the MSR"
                   : "takes no 'index'");
        return false;
    }
    if (msr ? r->has_limit : r->has_limit != r->has_value) {
        error_setg(errp, "%s: %s %s", what, name,
                   msr ? "takes no 'limit'"
                   : "takes both 'value', its base, and 'limit', or neither");
        return false;
    }
    pin->index = r->index;
    pin->current = !r->has_value;
    pin->mask = UINT64_MAX;
    pin->value = r->value;
    pin->limit = r->limit;
    return true;
}

static bool guard_pin_common_checks(const char *verb, Error **errp)
{
    const char *unavailable = guard_pin_unavailable();

    if (unavailable) {
        error_setg(errp, "%s", unavailable);
        return false;
    }
    if (replay_mode != REPLAY_MODE_NONE) {
        error_setg(errp, "registers can't be %s while recording or replaying: "
                   "the replay would not see the command at the same "
                   "instruction", verb);
        return false;
    }
    return true;
}

/* Room for @n elements, in a box that work items can share */
static GuardPinWork *guard_pin_new_work(size_t n, bool set, Error **errp)
{
    GuardPinWork *work;

    if (n > GUARD_MAX_PINS) {
        error_setg(errp, "registers has %zu elements, and the limit is %d", n,
                   GUARD_MAX_PINS);
        return NULL;
    }
    work = g_atomic_rc_box_alloc0(sizeof(*work) + n * sizeof(GuardPin));
    work->set = set;
    return work;
}

static bool guard_pin_is_double(const GuardPinWork *work, Error **errp)
{
    const GuardPin *last = &work->pins[work->n - 1];
    size_t i;

    for (i = 0; i + 1 < work->n; i++) {
        if (work->pins[i].reg == last->reg &&
            work->pins[i].index == last->index) {
            g_autofree char *msr = last->reg != PIN_REGISTER_MSR ? NULL
                                   : g_strdup_printf(" 0x%x", last->index);

            error_setg(errp, "registers[%zu] and registers[%zu] are both %s%s",
                       i, work->n - 1, PinRegister_str(last->reg), msr ?: "");
            return true;
        }
    }
    return false;
}

static bool guard_pin_check_cpus(const GuardPinWork *work, GPtrArray *cpus,
                                 Error **errp)
{
    guint c;
    size_t i;

    for (c = 0; c < cpus->len; c++) {
        CPUState *cs = g_ptr_array_index(cpus, c);
        unsigned count = guard_pin_ops->count(cs);

        for (i = 0; i < work->n; i++) {
            const GuardPin *pin = &work->pins[i];
            g_autofree char *what = g_strdup_printf("registers[%zu]", i);

            if (!guard_pin_ops->check(cs, pin, what, errp)) {
                return false;
            }
            count += !guard_pin_ops->has(cs, pin->reg, pin->index);
            if (count > GUARD_MAX_PINS) {
                error_setg(errp, "%s: %s: CPU %d has %d registers pinned "
                           "already, which is the limit", what,
                           PinRegister_str(pin->reg), cs->cpu_index,
                           GUARD_MAX_PINS);
                return false;
            }
        }
    }
    return true;
}

/*
 * What is for all CPUs can be more than any of them has, after commands for
 * single ones: a CPU that is plugged in has to have room for it.
 */
static bool guard_pin_check_all(const GuardPinWork *work, Error **errp)
{
    size_t count = guard_npins_all;
    size_t i;

    for (i = 0; i < work->n; i++) {
        const GuardPin *pin = &work->pins[i];

        count -= !pin->inherit && guard_pin_in_all(pin->reg, pin->index);
        count += pin->inherit && !guard_pin_in_all(pin->reg, pin->index);
    }
    if (count > GUARD_MAX_PINS) {
        error_setg(errp, "%zu registers would be pinned for CPUs that are "
                   "plugged in later, and the limit is %d: unpin some of them "
                   "for all CPUs", count, GUARD_MAX_PINS);
        return false;
    }
    return true;
}

void qmp_register_pin(RegisterPinList *registers, bool has_action,
                      GuardAction action, bool has_on_init, PinOnInit on_init,
                      bool has_grace_ms, uint32_t grace_ms,
                      bool has_cpu_index, int64_t cpu_index, Error **errp)
{
    g_autoptr(GPtrArray) cpus = NULL;
    GuardPinWork *work;
    RegisterPinList *e;
    size_t i;

    if (!guard_pin_common_checks("pinned", errp)) {
        return;
    }
    cpus = guard_pin_cpus(has_cpu_index, cpu_index, errp);
    if (!cpus) {
        return;
    }
    work = guard_pin_new_work(QAPI_LIST_LENGTH(registers), true, errp);
    if (!work) {
        return;
    }
    for (e = registers; e; e = e->next) {
        const RegisterPin *r = e->value;
        g_autofree char *what = g_strdup_printf("registers[%zu]", work->n);
        GuardPin *pin = &work->pins[work->n++];
        bool ok;

        *pin = (GuardPin) {
            .reg = r->q_register,
            .action = has_action ? action : GUARD_ACTION_FAULT,
            .on_init = has_on_init ? on_init : PIN_ON_INIT_GRACE,
            .grace_ms = has_grace_ms ? grace_ms : GUARD_GRACE_MS,
        };
        switch (r->q_register) {
        case PIN_REGISTER_CR0:
        case PIN_REGISTER_CR4:
        case PIN_REGISTER_EFER:
            ok = guard_pin_parse_bits(r, what, pin, errp);
            break;
        default:
            ok = guard_pin_parse_value(r, what, pin, errp);
        }
        if (!ok || guard_pin_is_double(work, errp)) {
            goto out;
        }
        pin->inherit = !has_cpu_index && !pin->current;
    }
    if (!guard_pin_check_cpus(work, cpus, errp) ||
        (!has_cpu_index && !guard_pin_check_all(work, errp))) {
        goto out;
    }

    /* Nothing fails from here on */
    /* First those that make room: the list may be full */
    for (i = 0; i < work->n && !has_cpu_index; i++) {
        if (!work->pins[i].inherit) {
            guard_pin_forget(work->pins[i].reg, work->pins[i].index);
        }
    }
    for (i = 0; i < work->n && !has_cpu_index; i++) {
        if (work->pins[i].inherit) {
            guard_pin_remember(&work->pins[i]);
        }
    }
    guard_pin_run(cpus, work);
out:
    g_atomic_rc_box_release(work);
}

static bool guard_pin_is_pinned(GPtrArray *cpus, const GuardPin *pin)
{
    guint c;

    for (c = 0; c < cpus->len; c++) {
        if (guard_pin_ops->has(g_ptr_array_index(cpus, c), pin->reg,
                               pin->index)) {
            return true;
        }
    }
    return false;
}

void qmp_register_unpin(RegisterPinSelectorList *registers,
                        bool has_cpu_index, int64_t cpu_index, Error **errp)
{
    g_autoptr(GPtrArray) cpus = NULL;
    GuardPinWork *work;
    RegisterPinSelectorList *e;
    size_t i;

    if (!guard_pin_common_checks("unpinned", errp)) {
        return;
    }
    cpus = guard_pin_cpus(has_cpu_index, cpu_index, errp);
    if (!cpus) {
        return;
    }
    work = guard_pin_new_work(QAPI_LIST_LENGTH(registers), false, errp);
    if (!work) {
        return;
    }
    for (e = registers; e; e = e->next) {
        const RegisterPinSelector *r = e->value;
        size_t n = work->n;
        GuardPin *pin = &work->pins[work->n++];
        const char *name = PinRegister_str(r->q_register);

        pin->reg = r->q_register;
        pin->index = r->has_index ? r->index : 0;
        if (r->has_index != (r->q_register == PIN_REGISTER_MSR)) {
            error_setg(errp, "registers[%zu]: %s %s", n, name, r->has_index
                       ? "takes no 'index'"
                       : "needs 'index', the number of the MSR");
            goto out;
        }
        if (guard_pin_is_double(work, errp)) {
            goto out;
        }
        if (!guard_pin_is_pinned(cpus, pin) &&
            (has_cpu_index || !guard_pin_in_all(pin->reg, pin->index))) {
            g_autofree char *msr = !r->has_index ? NULL
                                   : g_strdup_printf(" 0x%x", r->index);

            error_setg(errp, "registers[%zu]: %s%s is not pinned by the host",
                       n, name, msr ?: "");
            goto out;
        }
    }
    for (i = 0; i < work->n && !has_cpu_index; i++) {
        guard_pin_forget(work->pins[i].reg, work->pins[i].index);
    }
    guard_pin_run(cpus, work);
out:
    g_atomic_rc_box_release(work);
}

RegisterPinInfoList *qmp_query_register_pins(Error **errp)
{
    RegisterPinInfoList *list = NULL;
    RegisterPinInfoList **tail = &list;
    CPUState *cs;

    CPU_FOREACH(cs) {
        if (guard_pin_ops) {
            guard_pin_ops->query(cs, &tail);
        }
    }
    return list;
}

static void guard_pin_count(GuardCounters *c, GuardLimit *kinds)
{
    uint64_t *by_action[GUARD_ACTION__MAX] = {
        [GUARD_ACTION_REPORT] = &c->reported,
        [GUARD_ACTION_DISCARD] = &c->discarded,
        [GUARD_ACTION_FAULT] = &c->faulted,
        [GUARD_ACTION_PAUSE] = &c->paused,
    };
    unsigned action;

    for (action = 0; action < GUARD_ACTION__MAX; action++) {
        uint64_t suppressed = stat64_get(&kinds[action].suppressed);
        uint64_t n = stat64_get(&kinds[action].sent) + suppressed;

        c->writes += n;
        *by_action[action] += n;
        c->suppressed += suppressed;
    }
}

void guard_pin_query(GuardFeatureInfo *info)
{
    GuardCounters *c = g_new0(GuardCounters, 1);
    GuardActionList **actions = &info->actions;
    CPUState *cs;
    unsigned i, action;

    info->limits = g_new0(GuardLimits, 1);
    info->limits->regions_per_command = GUARD_MAX_PINS;
    info->limits->records = GUARD_MAX_PINS;
    CPU_FOREACH(cs) {
        if (guard_pin_ops) {
            info->on |= guard_pin_ops->any(cs);
            info->limits->records_used = MAX(info->limits->records_used,
                                             guard_pin_ops->count(cs));
        }
    }
    for (action = 0; action < GUARD_ACTION__MAX; action++) {
        QAPI_LIST_APPEND(actions, action);
    }
    for (i = 0; i < PIN_REGISTER__MAX; i++) {
        guard_pin_count(c, guard_pin_kinds[i]);
    }
    for (i = 0; i < GUARD_PIN_MSRS; i++) {
        guard_pin_count(c, guard_pin_msrs[i].kinds);
    }
    info->counters = c;
}

/*
 * Reset
 */

static void guard_pin_tell(PinClearReason reason, CPUState *only)
{
    GuardLimit *kind = &guard_pin_clears[reason];
    uint32_t guest = 0, waiting = 0;
    CPUState *cs;

    CPU_FOREACH(cs) {
        if (!only || cs == only) {
            guard_pin_ops->take_cleared(cs, &guest, &waiting);
        }
    }
    if ((guest || waiting) && guard_limit(kind)) {
        qapi_event_send_register_pins_cleared(reason, only,
                                              only ? only->cpu_index : 0,
                                              guest, waiting,
                                              guard_limit_untold(kind));
    }
}

void guard_pin_tell_init(CPUState *cs)
{
    guard_pin_tell(PIN_CLEAR_REASON_INIT, cs);
}

/*
 * Migration.  What each CPU has travels with it.  The pins for all are a
 * section behind those of the CPUs: it is looked at if they were accepted.
 */

typedef struct GuardPinSaved {
    uint8_t reg;
    uint8_t action;
    uint8_t on_init;
    uint32_t index;
    uint32_t limit;
    uint32_t grace_ms;
    uint64_t mask;
    uint64_t value;
} GuardPinSaved;

typedef struct GuardPinsSaved {
    uint32_t n;
    GuardPinSaved pins[GUARD_MAX_PINS];
} GuardPinsSaved;

static GuardPinsSaved guard_pins_saved;
static bool guard_pins_registered;

/* Also if only single CPUs have pins: the target shall have none for all. */
static bool guard_pins_needed(void *opaque)
{
    CPUState *cs;

    CPU_FOREACH(cs) {
        if (guard_pin_ops && guard_pin_ops->count(cs)) {
            return true;
        }
    }
    return guard_npins_all;
}

static int guard_pins_pre_save(void *opaque)
{
    GuardPinsSaved *s = opaque;

    for (s->n = 0; s->n < guard_npins_all; s->n++) {
        const GuardPin *pin = &guard_pins_all[s->n];

        s->pins[s->n] = (GuardPinSaved) {
            .reg = pin->reg,
            .action = pin->action,
            .on_init = pin->on_init,
            .index = pin->index,
            .limit = pin->limit,
            .grace_ms = pin->grace_ms,
            .mask = pin->mask,
            .value = pin->value,
        };
    }
    return 0;
}

static bool guard_pins_fit(void *opaque, int version_id)
{
    GuardPinsSaved *s = opaque;

    return s->n <= GUARD_MAX_PINS;
}

bool guard_pin_is_sane(const GuardPin *pin)
{
    bool table = pin->reg == PIN_REGISTER_IDTR || pin->reg == PIN_REGISTER_GDTR;
    bool bits = !table && pin->reg != PIN_REGISTER_MSR;

    return (unsigned)pin->reg < PIN_REGISTER__MAX &&
           (unsigned)pin->action < GUARD_ACTION__MAX &&
           (unsigned)pin->on_init < PIN_ON_INIT__MAX &&
           (!pin->index || pin->reg == PIN_REGISTER_MSR) &&
           (bits ? pin->mask && !(pin->value & ~pin->mask) && !pin->current
                 : pin->mask == UINT64_MAX) &&
           pin->limit <= (table ? UINT16_MAX : 0);
}

static int guard_pins_post_load(void *opaque, int version_id)
{
    const GuardPinsSaved *s = opaque;
    g_autofree GuardPinWork *work =
        g_malloc0(sizeof(*work) + s->n * sizeof(GuardPin));
    Error *err = NULL;

    while (work->n < s->n) {
        const GuardPinSaved *p = &s->pins[work->n];
        GuardPin *pin = &work->pins[work->n++];

        *pin = (GuardPin) {
            .reg = p->reg,
            .action = p->action,
            .on_init = p->on_init,
            .index = p->index,
            .limit = p->limit,
            .grace_ms = p->grace_ms,
            .mask = p->mask,
            .value = p->value,
            .inherit = true,
        };
        if (!guard_pin_ops || !first_cpu || !guard_pin_is_sane(pin)) {
            error_setg(&err, "a pin makes no sense");
        } else if (!guard_pin_is_double(work, &err)) {
            guard_pin_ops->check(first_cpu, pin, "a pin", &err);
        }
        if (err) {
            error_reportf_err(err, "register pins for all CPUs: ");
            return -EINVAL;
        }
    }
    memcpy(guard_pins_all, work->pins, work->n * sizeof(GuardPin));
    guard_npins_all = work->n;
    return 0;
}

static const VMStateDescription vmstate_guard_pin = {
    .name = "guard-pins/pin",
    .version_id = 1,
    .minimum_version_id = 1,
    .fields = (const VMStateField[]) {
        VMSTATE_UINT8(reg, GuardPinSaved),
        VMSTATE_UINT8(action, GuardPinSaved),
        VMSTATE_UINT8(on_init, GuardPinSaved),
        VMSTATE_UINT32(index, GuardPinSaved),
        VMSTATE_UINT32(limit, GuardPinSaved),
        VMSTATE_UINT32(grace_ms, GuardPinSaved),
        VMSTATE_UINT64(mask, GuardPinSaved),
        VMSTATE_UINT64(value, GuardPinSaved),
        VMSTATE_END_OF_LIST()
    },
};

static const VMStateDescription vmstate_guard_pins = {
    .name = "guard-pins",
    .version_id = 1,
    .minimum_version_id = 1,
    .needed = guard_pins_needed,
    .pre_save = guard_pins_pre_save,
    .post_load = guard_pins_post_load,
    .fields = (const VMStateField[]) {
        VMSTATE_UINT32(n, GuardPinsSaved),
        VMSTATE_VALIDATE("number of pins", guard_pins_fit),
        VMSTATE_STRUCT_VARRAY_UINT32(pins, GuardPinsSaved, n, 1,
                                     vmstate_guard_pin, GuardPinSaved),
        VMSTATE_END_OF_LIST()
    },
};

static void guard_pins_machine_done(Notifier *notifier, void *data)
{
    vmstate_register(NULL, 0, &vmstate_guard_pins, &guard_pins_saved);
    guard_pins_registered = true;
}

/* Sections are in the order in which they were registered. */
static void guard_pins_behind_cpus(void)
{
    if (guard_pins_registered) {
        vmstate_unregister(NULL, &vmstate_guard_pins, &guard_pins_saved);
        vmstate_register(NULL, 0, &vmstate_guard_pins, &guard_pins_saved);
    }
}

void guard_pin_inherit(CPUState *cs)
{
    size_t i;

    guard_pins_behind_cpus();
    if (!guard_npins_all) {
        return;
    }
    for (i = 0; i < guard_npins_all; i++) {
        const GuardPin *pin = &guard_pins_all[i];
        g_autofree char *what = g_strdup_printf("pin of %s",
                                                PinRegister_str(pin->reg));
        Error *err = NULL;

        if (guard_pin_ops->check(cs, pin, what, &err)) {
            guard_pin_ops->set(cs, pin);
        } else {
            warn_report_err(err);
        }
    }
    guard_pin_ops->done(cs);
}

static Notifier guard_pins_machine_done_notifier = {
    .notify = guard_pins_machine_done,
};

/* An incoming section has to find its handler before anything is pinned */
static void __attribute__((constructor)) guard_pins_init(void)
{
    qemu_add_machine_init_done_notifier(&guard_pins_machine_done_notifier);
}

/* In the exit phase of a machine's reset all its CPUs were reset. */
#define TYPE_GUARD_PIN_CLEAR "guard-pin-clear"
OBJECT_DECLARE_SIMPLE_TYPE(GuardPinClear, GUARD_PIN_CLEAR)

struct GuardPinClear {
    Object parent;
    ResettableState reset_state;
};

OBJECT_DEFINE_SIMPLE_TYPE_WITH_INTERFACES(GuardPinClear, guard_pin_clear,
                                          GUARD_PIN_CLEAR, OBJECT,
                                          { TYPE_RESETTABLE_INTERFACE }, { })

static ResettableState *guard_pin_clear_get_state(Object *obj)
{
    return &GUARD_PIN_CLEAR(obj)->reset_state;
}

static void guard_pin_clear_exit(Object *obj, ResetType type)
{
    guard_pin_tell(type == RESET_TYPE_WAKEUP ? PIN_CLEAR_REASON_WAKEUP
                                             : PIN_CLEAR_REASON_RESET, NULL);
}

static void guard_pin_clear_init(Object *obj)
{
}

static void guard_pin_clear_finalize(Object *obj)
{
}

static void guard_pin_clear_class_init(ObjectClass *klass, void *data)
{
    ResettableClass *rc = RESETTABLE_CLASS(klass);

    rc->get_state = guard_pin_clear_get_state;
    rc->phases.exit = guard_pin_clear_exit;
}

void guard_pin_reset_init(void)
{
    static bool done;

    if (!done) {
        done = true;
        qemu_register_resettable(object_new(TYPE_GUARD_PIN_CLEAR));
    }
}
