/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Loops whose speed bench.py measures.
 *
 * The guest stops the virtual machine by way of pvpanic before and after
 * each slice of work, so that the host reads the CPU time of a QEMU that
 * stands still.  A program is a table of loops; bench.c does the rest.
 */

#ifndef TESTS_BENCH_GUEST_BENCH_H
#define TESTS_BENCH_GUEST_BENCH_H

#include "guest.h"

/**
 * Loop: something to repeat
 * @name: what bench.py calls it
 * @prepare: called once, before the first slice; may be NULL
 * @run: does it @count times
 */
typedef struct Loop {
    const char *name;
    void (*prepare)(void);
    void (*run)(uint64_t count);
} Loop;

/* The program's loops; the last has no name */
extern const Loop loops[];

/*
 * A page of RAM that no program gets from frames(), which begins at 32 MiB,
 * so that the host knows where it is; the pages before it are free as well.
 * The host may guard the sub-page at the offset, and RAM from 96 MiB on.
 * cases.py has the same numbers.
 */
#define BENCH_GUARDED           0x5800000ull
#define BENCH_GUARDED_OFFSET    2048

/* In assembly, in loops.c: handlers of page faults */
extern uint8_t bench_skip[], bench_map[];

/* In devices.c: handler of interrupts, returns with them disabled */
extern uint8_t bench_interrupt[];

/* In registers.c: saves a task, goes on with another's stack and tables */
void bench_switch(uint64_t *save, uint64_t rsp, uint64_t cr3);

#endif
