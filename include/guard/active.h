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
 * For the events of what is blocked.  guard_work_for() takes precedence.
 */
static inline void guard_note(const void *who)
{
    if (guard_active()) {
        guard_who = guard_for ?: who;
    }
}

/**
 * guard_work_for: accesses and maps that follow on this thread are a device's
 * @who: the VirtIODevice; NULL: not any more
 *
 * For devices without an address space of their own.  Nothing may yield until
 * it is called with NULL.
 */
static inline void guard_work_for(const void *who)
{
    guard_for = who;
}

#endif /* GUARD_ACTIVE_H */
