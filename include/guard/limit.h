/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Rate limit and counters of the events of one kind.
 */
#ifndef GUARD_LIMIT_H
#define GUARD_LIMIT_H

#include "qemu/stats64.h"

/**
 * GuardLimit: what is known of one kind of violation
 *
 * The kinds are fixed, so that memory use doesn't depend on the guest, and a
 * flood of one kind doesn't hide another.  All zero is a fresh one.
 *
 * @sent: violations that gave an event
 * @suppressed: violations that did not
 * @told: of the suppressed, by later events
 * @due: when the bucket will be empty again, in ns
 */
typedef struct GuardLimit {
    Stat64 sent;
    Stat64 suppressed;
    uint64_t told;
    aligned_int64_t due;
} GuardLimit;

/**
 * guard_limit: count a violation
 * @l: its kind
 *
 * 200 at once, and then 10 a second, give an event.  Callable from any thread,
 * with or without the BQL.
 *
 * Returns: whether to send an event for it.
 */
bool guard_limit(GuardLimit *l);

/**
 * guard_limit_untold: how many violations no event told of yet
 * @l: their kind
 *
 * Returns: their number, each of which is returned once.
 */
uint64_t guard_limit_untold(GuardLimit *l);

#endif /* GUARD_LIMIT_H */
