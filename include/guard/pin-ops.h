/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Register pinning: between the QMP commands and the CPU architecture.
 *
 * Design and locking: docs/devel/pinning.rst.
 */
#ifndef GUARD_PIN_OPS_H
#define GUARD_PIN_OPS_H

#include "qapi/qapi-types-guard.h"
#include "guard/mutant.h"

/* Pins by the host that one vCPU can have, and elements of one command */
#define GUARD_MAX_PINS      64

#define GUARD_GRACE_MS      10000

/**
 * GuardPin: a register and how the host wants it
 * @reg: register
 * @index: number of the MSR, or 0
 * @current: take the value that the register has; @value and @limit are unset
 * @mask: bits that are pinned; all of them for MSRs and tables
 * @value: what these bits shall be; the base of a table
 * @limit: limit of a table, or 0
 * @action: on a violation
 * @on_init: what holds while the pin waits
 * @grace_ms: for how long it may wait once CR0.PG is set
 * @inherit: whether a CPU that is plugged in later gets it
 */
typedef struct GuardPin {
    PinRegister reg;
    uint32_t index;
    bool current;
    uint64_t mask;
    uint64_t value;
    uint32_t limit;
    GuardAction action;
    PinOnInit on_init;
    uint32_t grace_ms;
    bool inherit;
} GuardPin;

/**
 * GuardPinOps: what the CPU architecture does for register pinning
 *
 * All of them are called with the BQL held; @set, @unset and @done on the
 * CPU's own thread, or while it doesn't run yet.
 *
 * @check: whether the CPU can have this pin; sets an error that begins with
 *         @what if not
 * @set: add a pin that @check let through, or replace that of the register
 * @unset: take the pin of a register away
 * @done: after the last @set or @unset of a command
 * @has: whether the register is pinned by the host
 * @count: number of pins by the host
 * @any: whether anybody pinned a register
 * @query: append what is pinned
 * @take_cleared: how many guest pins went, and host pins wait, by resets
 *                since the last call
 */
typedef struct GuardPinOps {
    bool (*check)(CPUState *cs, const GuardPin *pin, const char *what,
                  Error **errp);
    void (*set)(CPUState *cs, const GuardPin *pin);
    void (*unset)(CPUState *cs, PinRegister reg, uint32_t index);
    void (*done)(CPUState *cs);
    bool (*has)(CPUState *cs, PinRegister reg, uint32_t index);
    unsigned (*count)(CPUState *cs);
    bool (*any)(CPUState *cs);
    void (*query)(CPUState *cs, RegisterPinInfoList ***tail);
    void (*take_cleared)(CPUState *cs, uint32_t *guest, uint32_t *waiting);
} GuardPinOps;

/* NULL on a target that has none */
extern const GuardPinOps *guard_pin_ops;

/**
 * GuardPinViolation: what an event tells
 * @reg: register
 * @index: number of the MSR, if it is one
 * @old: value before, or the one given instead
 * @attempted: value that it was to have
 * @old_limit, @attempted_limit: the same for the limit of a table
 * @action: as taken
 * @ra: of the instruction, or 0
 */
typedef struct GuardPinViolation {
    PinRegister reg;
    uint32_t index;
    uint64_t old;
    uint64_t attempted;
    uint32_t old_limit;
    uint32_t attempted_limit;
    GuardAction action;
    uintptr_t ra;
} GuardPinViolation;

/**
 * guard_pin_violation: count a violation and send an event, unless there were
 *                      too many of its kind
 *
 * Callable from any thread, with or without the BQL.
 */
void guard_pin_violation(CPUState *cs, const GuardPinViolation *v);

/**
 * guard_pin_inherit: give a new CPU the pins that are for all CPUs
 * @cs: CPU in realize, that doesn't run yet
 */
void guard_pin_inherit(CPUState *cs);

/**
 * guard_pin_is_sane: whether a pin that came with an image could be a command's
 * @pin: any bytes, except that @check of GuardPinOps looks at the rest
 */
bool guard_pin_is_sane(const GuardPin *pin);

/* Tell of the pins that an INIT of @cs cleared, if any */
void guard_pin_tell_init(CPUState *cs);

/* Watch for machine resets; may be called again */
void guard_pin_reset_init(void);

/* For query-guard */
const char *guard_pin_unavailable(void);
void guard_pin_query(GuardFeatureInfo *info);

#endif /* GUARD_PIN_OPS_H */
