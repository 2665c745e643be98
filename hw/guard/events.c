/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Violations: counters, rate limit and events.
 */

#include "qemu/osdep.h"
#include "qemu/thread.h"
#include "qemu/timer.h"
#include "hw/core/cpu.h"
#include "qapi/qapi-events-guard.h"
#include "guard/guard.h"
#include "guard/limit.h"

const GuardArchOps *guard_arch;

#ifdef GUARD_MUTANTS
int guard_mutant_number;

static void __attribute__((constructor)) guard_mutant_init(void)
{
    const char *n = getenv("GUARD_MUTANT");

    guard_mutant_number = n ? atoi(n) : 0;
}
#endif

/* Events of one kind: so many at once, and then one each so many ns */
#define GUARD_EVENT_BURST       200
#define GUARD_EVENT_INTERVAL    (NANOSECONDS_PER_SECOND / 10)

static GuardLimit guard_kinds[GUARD_PATH__MAX][2][GUARD_ACTION__MAX];

/* For changes of limits; taken no more often than events are sent */
static QemuSpin guard_limit_lock;

GuardAction guard_path_action(GuardPath path, GuardAction action)
{
    switch (path) {
    case GUARD_PATH_INSN:
        return action;
    case GUARD_PATH_DELIVERY:
    case GUARD_PATH_DEVICE:
        return action == GUARD_ACTION_FAULT ? GUARD_ACTION_DISCARD : action;
    default:
        return action == GUARD_ACTION_REPORT ? action : GUARD_ACTION_DISCARD;
    }
}

/* Some milliseconds more or less don't matter, but every violation asks. */
static int64_t guard_clock(void)
{
#ifdef CLOCK_MONOTONIC_COARSE
    struct timespec ts;

    clock_gettime(CLOCK_MONOTONIC_COARSE, &ts);
    return ts.tv_sec * NANOSECONDS_PER_SECOND + ts.tv_nsec;
#else
    return get_clock();
#endif
}

/* A leaky bucket */
static bool guard_limit_allows(GuardLimit *l)
{
    const int64_t most = (GUARD_EVENT_BURST - 1) * GUARD_EVENT_INTERVAL;
    int64_t now = guard_clock();
    bool allowed;

    if (qatomic_read_i64(&l->due) - now > most) {
        return false;
    }
    qemu_spin_lock(&guard_limit_lock);
    allowed = l->due - now <= most;
    if (allowed) {
        qatomic_set_i64(&l->due, MAX(l->due, now) + GUARD_EVENT_INTERVAL);
    }
    qemu_spin_unlock(&guard_limit_lock);
    return allowed;
}

bool guard_limit(GuardLimit *l)
{
    bool allowed = guard_limit_allows(l);

    stat64_add(allowed ? &l->sent : &l->suppressed, 1);
    return allowed;
}

uint64_t guard_limit_untold(GuardLimit *l)
{
    uint64_t suppressed, untold;

    qemu_spin_lock(&guard_limit_lock);
    suppressed = stat64_get(&l->suppressed);
    untold = suppressed - l->told;
    l->told = suppressed;
    qemu_spin_unlock(&guard_limit_lock);
    return untold;
}

void guard_violation(const GuardViolation *v)
{
    GuardLimit *k = &guard_kinds[v->path][v->write][v->action];
    bool cpu = v->cpu != NULL;
    bool has_rip = cpu && guard_arch;

    if (!guard_limit(k)) {
        return;
    }
    qapi_event_send_subpage_violation(v->addr, v->size, v->write,
                                      cpu ? GUARD_SOURCE_CPU
                                          : GUARD_SOURCE_DEVICE,
                                      cpu, cpu ? v->cpu->cpu_index : 0,
                                      has_rip,
                                      has_rip ? guard_arch->pc(v->cpu, v->ra)
                                              : 0,
                                      v->has_linear, v->linear,
                                      v->qom_path, v->action,
                                      guard_limit_untold(k));
}

GuardCounters *guard_counters(void)
{
    GuardCounters *c = g_new0(GuardCounters, 1);
    uint64_t *by_action[GUARD_ACTION__MAX] = {
        [GUARD_ACTION_REPORT] = &c->reported,
        [GUARD_ACTION_DISCARD] = &c->discarded,
        [GUARD_ACTION_FAULT] = &c->faulted,
        [GUARD_ACTION_PAUSE] = &c->paused,
    };
    unsigned path, write, action;

    for (path = 0; path < GUARD_PATH__MAX; path++) {
        for (write = 0; write < 2; write++) {
            for (action = 0; action < GUARD_ACTION__MAX; action++) {
                GuardLimit *k = &guard_kinds[path][write][action];
                uint64_t suppressed = stat64_get(&k->suppressed);
                uint64_t n = stat64_get(&k->sent) + suppressed;

                *(write ? &c->writes : &c->reads) += n;
                *by_action[action] += n;
                c->suppressed += suppressed;
            }
        }
    }
    return c;
}
