/* SPDX-License-Identifier: GPL-2.0-or-later */
/* What the tests of sub-page protection share: arm, and see what came of it. */

#ifndef TESTS_GUEST_LIB_SUBPAGE_H
#define TESTS_GUEST_LIB_SUBPAGE_H

#include "guest.h"

#define SUBPAGE     128

/** Seen: what QEMU told between arm() and disarm() */
typedef struct Seen {
    int events;             /* SUBPAGE_VIOLATION */
    int counted;            /* violations by the counters of query-guard */
    int stops;              /* times that the VM was paused, and went on */
    /* The first event */
    uint64_t addr, size, rip, linear;
    bool write, has_rip, has_linear;
    int cpu;
    char action[12], source[12];
} Seen;

/**
 * arm: subpage-set-access of one range
 * @conts: how often the VM is to go on by itself when it is paused
 */
void arm(uint64_t gpa, uint64_t size, const char *access, const char *action,
         int conts);
/** arm_more: one more range, to be disarmed along with the first */
void arm_more(uint64_t gpa, uint64_t size, const char *access,
              const char *action);
/** disarm: lifts what arm() set; tells what happened since */
Seen disarm(void);
/** seen_so_far: the same without lifting anything; counts start anew */
Seen seen_so_far(void);

/**
 * seen_none: nothing was told
 * seen_first: as many events as counted violations, and the first is this
 *
 * A difference is noted. rip and linear 0 mean that they don't matter.
 */
bool seen_none(Seen s, const char *what);
bool seen_first(Seen s, int count, uint64_t addr, uint64_t size, bool write,
                int cpu, uint64_t rip, uint64_t linear, const char *action,
                const char *what);

#endif
