/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Sub-page protection: whether there is any, and who is about to access
 * memory.  Light enough for headers that everything includes.
 */
#ifndef GUARD_ACTIVE_H
#define GUARD_ACTIVE_H

/* Whether anything is protected.  Changes only with guard_table. */
extern bool guard_on;

/* How many tables were published.  Goes up when one has been. */
extern aligned_uint64_t guard_generation;

static inline bool guard_active(void)
{
    return unlikely(qatomic_read(&guard_on));
}

/*
 * Who makes an access: what the thread was told last, and the device that it
 * works for, if it is at that.  Only names hang on it.
 */
extern __thread const void *guard_who;
extern __thread const void *guard_for;

/**
 * guard_note: who makes the accesses that follow on this thread
 * @who: an AddressSpace, or a VirtIODevice; used as a name only
 *
 * For the events of what is blocked.  GUARD_WORK_FOR() takes precedence.
 */
static inline void guard_note(const void *who)
{
    if (guard_active()) {
        guard_who = guard_for ?: who;
    }
}

static inline const void *guard_work_begin(const void *who)
{
    const void *before = guard_for;

    guard_for = who;
    return before;
}

static inline void guard_work_end(const void **before)
{
    guard_for = *before;
}

/**
 * GUARD_WORK_FOR: accesses and maps from here to the end of the block are a
 *                 device's
 * @who: the VirtIODevice
 *
 * For devices without an address space of their own.  Nothing in the block may
 * yield.
 */
#define GUARD_WORK_FOR(who)                                             \
    G_GNUC_UNUSED __attribute__((cleanup(guard_work_end)))              \
    const void *glue(guard_work_before, __COUNTER__) = guard_work_begin(who)

#endif /* GUARD_ACTIVE_H */
