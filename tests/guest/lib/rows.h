/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Rows of the bypass matrix: what a CPU loads and stores that is no operand
 * of an instruction.
 *
 * A row prepares a situation, and then goes. It is run without protection;
 * with its sub-page protected and each action; and with the sub-pages beside
 * it protected, which must not matter.
 */

#ifndef TESTS_GUEST_LIB_ROWS_H
#define TESTS_GUEST_LIB_ROWS_H

#include "subpage.h"

/* Who makes the access, which decides what an action comes to */
enum { INSN, DELIVERY, WALK, STATE };

struct row {
    const char *name, *path;
    int source;
    bool write;
    void (*prepare)(void);
    void (*go)(void);
    int count;          /* events, but one for 'fault' */
    unsigned flags;
};
#define NO_DISCARD  1   /* the CPU is lost if it is not stored or loaded */
#define PARTIAL     2   /* more of the page may change */
#define IN_USE      4   /* the sub-page in front is in use as well */
#define NO_RIP      8   /* row_insn is not the instruction that is told of */
#define ZERO_SAME   16  /* zeroes lead to the same result */

#define MIDDLE      0x600       /* a sub-page in its page */

/* What prepare() says: the access, and where the sub-page is */
extern uint8_t *at;
extern unsigned size;
extern uint64_t linear;         /* 0: has none, or it doesn't matter */
extern uint8_t *protected;      /* if not the sub-page of at */
/* What go() leaves */
extern uint64_t result[2];
extern Fault inner;             /* in an SVM guest, in SMM, in legacy modes */
extern uint64_t row_insn;       /* 0: not known */

/**
 * rows_run: one result for each row
 * @back: undoes what prepare() did to the tables of the CPU
 */
void rows_run(const struct row *rows, unsigned n, void (*back)(void));

#endif
