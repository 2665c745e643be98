/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Violations that a CPU repeats while no event is due for them: counted on
 * the side, without locks and atomic operations.
 */
#ifndef GUARD_QUIET_H
#define GUARD_QUIET_H

#include "qemu/queue.h"
#include "exec/cpu-common.h"
#include "guard/limit.h"
#include "guard/table.h"

/* Pieces of RAM that a CPU can be at, at a time; a power of two */
#define GUARD_QUIETS        8

/**
 * GuardQuiet: discarded accesses of a CPU to one piece of RAM
 *
 * The CPU's thread counts in @n.  All else changes under a lock of its own,
 * which the thread has to take for what is not the same piece.
 *
 * @key: see guard_quiet_key(); 0: unused
 * @kind: of the violations
 * @n: violations that are in no other counter yet
 * @forgotten: of them, those from before the piece's counters were reset
 */
typedef struct GuardQuiet {
    uint64_t key;
    GuardLimit *kind;
    aligned_uint64_t n;
    uint64_t forgotten;
} GuardQuiet;

/* Those of a CPU, which lives as long as the process */
typedef struct GuardQuiets {
    GuardQuiet quiet[GUARD_QUIETS];
    QSLIST_ENTRY(GuardQuiets) next;
} GuardQuiets;

/**
 * guard_quiet_key: what has to be the same for an access to be a repetition
 * @ram: RAM address
 * @mmu_idx: MMU index
 * @write: direction
 *
 * Returns: a number that is not 0.
 */
static inline uint64_t guard_quiet_key(ram_addr_t ram, int mmu_idx, bool write)
{
    return (uint64_t)(ram >> GUARD_SUBPAGE_BITS) << 6 | mmu_idx << 2 |
           write << 1 | 1;
}

static inline ram_addr_t guard_quiet_ram(uint64_t key)
{
    return key >> 6 << GUARD_SUBPAGE_BITS;
}

static inline bool guard_quiet_write(uint64_t key)
{
    return key & 2;
}

static inline GuardQuiet *guard_quiet_of(GuardQuiets *all, ram_addr_t ram)
{
    return &all->quiet[(ram >> GUARD_SUBPAGE_BITS) % GUARD_QUIETS];
}

/* Have a CPU's counts added to the others; once, before the first one */
void guard_quiet_init(GuardQuiets *all);

/**
 * guard_quiet_begin: such an access was decided, and counted
 * @all: the CPU's own
 * @key: identifies what the next ones have to be like
 */
void guard_quiet_begin(GuardQuiets *all, uint64_t key);

/**
 * guard_quiet: count one more
 * @q: was begun, with the key that the access has
 *
 * Returns: false if an event is due for it.  It is not counted then.
 */
bool guard_quiet(GuardQuiet *q);

/* The next access of a CPU has to be decided */
void guard_quiet_end(GuardQuiets *all);

#endif /* GUARD_QUIET_H */
