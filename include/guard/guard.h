/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Sub-page protection: the core, as the rest of the project sees it.
 *
 * Design, locking and memory ordering: docs/devel/subpage.rst.
 */
#ifndef GUARD_GUARD_H
#define GUARD_GUARD_H

#include "qapi/qapi-types-guard.h"
#include "exec/cpu-common.h"
#include "exec/hwaddr.h"
#include "guard/active.h"
#include "guard/mutant.h"
#include "guard/table.h"

#define GUARD_MAX_REGIONS   131072
#define GUARD_MAX_RECORDS   4194304

/**
 * GuardPath: how an access comes about; decides what can be done with it
 * @GUARD_PATH_INSN: an instruction's own data access
 * @GUARD_PATH_DELIVERY: the CPU delivers an exception or interrupt
 * @GUARD_PATH_WALK: the CPU walks page tables
 * @GUARD_PATH_STATE: the CPU saves or loads its state (SMM, VMCB)
 * @GUARD_PATH_DEVICE: not the CPU
 */
typedef enum GuardPath {
    GUARD_PATH_INSN,
    GUARD_PATH_DELIVERY,
    GUARD_PATH_WALK,
    GUARD_PATH_STATE,
    GUARD_PATH_DEVICE,
    GUARD_PATH__MAX,
} GuardPath;

/**
 * guard_path_action: the action that can really be taken on a path
 * @path: where the access comes from
 * @action: what was asked for
 */
GuardAction guard_path_action(GuardPath path, GuardAction action);

/**
 * GuardViolation: what an event tells, without the instruction pointer
 */
typedef struct GuardViolation {
    GuardPath path;
    GuardAction action;         /* as taken */
    bool write;
    hwaddr addr;
    ram_addr_t ram;             /* the same as RAM address */
    uint64_t size;
    CPUState *cpu;              /* NULL for a device */
    uintptr_t ra;               /* of the instruction, or 0 */
    bool has_linear;
    vaddr linear;
    const char *qom_path;       /* of the device, or NULL */
    const void *who;            /* else see guard_note(), or NULL */
} GuardViolation;

/**
 * guard_violation: count a violation and send an event, unless there were
 *                  too many of its kind
 * @v: what happened
 *
 * Callable from any thread, with or without the BQL.
 */
void guard_violation(const GuardViolation *v);

/* Filled from the counters of guard_violation() */
GuardCounters *guard_counters(void);

/**
 * guard_hits_forget: start the counters of some ranges of RAM anew
 * @changes: sorted, not overlapping
 * @n: how many
 */
void guard_hits_forget(const GuardChange *changes, size_t n);

/**
 * guard_hits: the counters of protected pieces
 *
 * Returns: an array of GuardHits, sorted by @ram, to be unreferenced by the
 * caller.  Pieces that no violation touched are not in it.
 */
GArray *guard_hits(void);

typedef struct GuardHits {
    ram_addr_t ram;             /* of the 128-byte piece */
    uint64_t reads;
    uint64_t writes;
} GuardHits;

/**
 * GuardArchOps: what the CPU architecture does for sub-page protection
 * @raise_fault: raise the exception of action 'fault' in the instruction
 *               that @ra is in
 * @pc: the guest's instruction pointer for @ra, or of the CPU if @ra is 0
 * @pass_again: an instruction that 'cont' let through starts once more, for
 *              a reason of upstream's: what it used of the pass it may use
 *              again
 * @phys_mmu_idx: mask of the MMU indexes that are used for page walks and
 *                saved state, never for an instruction's own accesses
 */
typedef struct GuardArchOps {
    G_NORETURN void (*raise_fault)(CPUState *cpu, uintptr_t ra);
    uint64_t (*pc)(CPUState *cpu, uintptr_t ra);
    void (*pass_again)(CPUState *cpu);
    uint32_t phys_mmu_idx;
} GuardArchOps;

/* NULL on a target that has none */
extern const GuardArchOps *guard_arch;

/**
 * guard_tcg_sync: make every vCPU drop its translations
 *
 * Called with the BQL held, after a new table was published.  When it
 * returns, no vCPU can make an access by a translation, or by a host pointer,
 * that it got under the old table.
 */
void guard_tcg_sync(void);

/* The same without waiting, for a table that only allows more */
void guard_tcg_sync_later(void);

/**
 * guard_device_path: the device behind what guard_note() was told
 * @who: what it was told, or NULL
 *
 * Callable from any thread.  Returns: the QOM path, to be freed by the
 * caller, or NULL if it isn't known.
 */
char *guard_device_path(const void *who);

/**
 * guard_tcg_sync_insn: guard_tcg_sync() from within an instruction
 * @cpu: the vCPU whose thread calls
 *
 * Called with the BQL held, after a table was published.  The instruction must
 * end its translation block.  What guard_tcg_sync() and guard_iothreads_wait()
 * promise for their return holds before the next instruction of @cpu.
 */
void guard_tcg_sync_insn(CPUState *cpu);

/**
 * guard_tcg_wait_insn: wait for the guard_tcg_sync_insn() of other CPUs
 * @cpu: the vCPU whose thread calls, with the BQL held
 *
 * The same holds, for the table as it is, and without another flush.
 */
void guard_tcg_wait_insn(CPUState *cpu);

/**
 * guard_ram_to_gpa: where the guest sees a byte of RAM at the moment
 * @ram: RAM address
 * @gpa: set to the lowest guest-physical address
 *
 * Returns: false if it is not mapped.
 */
bool guard_ram_to_gpa(ram_addr_t ram, hwaddr *gpa);

/**
 * guard_change_ram: publish a table with some changes
 * @changes: sorted, not overlapping
 * @n: how many
 * @errp: set if the table would get too large or can't become non-empty;
 *        changes that only lift protections don't fail
 *
 * Called with the BQL held.  Does not wait for vCPUs, and leaves counters
 * alone, see guard_hits_forget().
 */
bool guard_change_ram(const GuardChange *changes, size_t n, Error **errp);

/**
 * guard_change_now: the same for a guest, which can't wait for devices
 * @changes: sorted, not overlapping, the guest's
 * @n: how many
 * @quota: most records that the guest's own requests may take
 * @mapped: set to whether it failed because a device has memory mapped
 *
 * Called with the BQL held.  If @mapped is set the changes were in force for a
 * moment.
 */
bool guard_change_now(const GuardChange *changes, size_t n, size_t quota,
                      bool *mapped);

/**
 * guard_guest_request: protect memory as the guest asks for it
 * @cpu: the vCPU that asks, on its own thread, without the BQL; the
 *       instruction must end its translation block
 * @addr: guest-physical address of the request array
 * @quota: most records that the guest's own requests may take
 *
 * All entries are done or none, and each one's status is written back.  What
 * it asks for holds before the next instruction.
 *
 * Returns: false if the array is malformed; nothing was done then.
 */
bool guard_guest_request(CPUState *cpu, hwaddr addr, size_t quota);

/**
 * guard_arm: set rights of RAM, in force for everybody when it returns
 * @changes: sorted, not overlapping; @index is used to name them
 * @n: how many
 * @errp: set if nothing was changed
 *
 * Called with the BQL held in the main thread, which may let go of it and run
 * bottom halves meanwhile.  Waits up to GUARD_MAP_WAIT_MS in all for devices
 * that have the memory mapped, and for iothreads.
 */
bool guard_arm(const GuardChange *changes, size_t n, Error **errp);

#define GUARD_MAP_WAIT_MS   1000

/* Why sub-page protection can't be had, or NULL */
const char *guard_subpage_unavailable(void);

/**
 * guard_can_arm: whether nothing in this VM is out of reach for protections
 * @errp: names what is, and the way out
 *
 * Called with the BQL held.  Does not look at mapped memory.
 */
bool guard_can_arm(Error **errp);

/* Register for reset and RAM removal; once, before the first arming */
void guard_lifecycle_init(void);

/* From now on, devices are known by name, and some can't be plugged */
void guard_devices_init(void);

/* Times that RAM was unplugged or resized; the BQL protects it */
extern unsigned guard_ram_removals;

/* Times that the machine was reset or its table replaced; as above */
extern unsigned guard_replacements;

/* A range of RAM lost its protection while guard_arm() may be waiting */
void guard_undo_forget(ram_addr_t start, ram_addr_t last);

/**
 * guard_replace_table: put a table in force as it is
 * @t: the table, or NULL; belongs to the callee from now on
 *
 * Called with the BQL held while no CPU runs.
 */
void guard_replace_table(GuardTable *t);

/* The I/O region that stands in for a protected run; once, as above */
void guard_physmem_init(void);

#endif /* GUARD_GUARD_H */
