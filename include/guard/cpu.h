/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Sub-page protection: verdicts on accesses by a virtual CPU under TCG.
 */
#ifndef GUARD_CPU_H
#define GUARD_CPU_H

#include "hw/core/cpu.h"
#include "guard/guard.h"
#include "guard/quiet.h"
#include "guard/step.h"

/* Accesses that a 'cont' after a pause can let through in one instruction */
#define GUARD_PASSES        64

/*
 * An access that may take place once: the same bytes of the same RAM as the
 * event told of, whatever the instruction has become since.
 */
typedef struct GuardPass {
    vaddr start;
    vaddr last;
    ram_addr_t ram;
    bool write;
    bool used;
} GuardPass;

/*
 * A range whose accesses were told of by one event, or let through, as one.
 * While the return address and the MMU index are the same, its parts are
 * silent, unless they ask for a stronger action.  It never outlives a change of
 * the table, nor a flush of translated code, which would give the return
 * address to another instruction.
 */
typedef struct GuardTold {
    uintptr_t ra;
    int mmu_idx;
    unsigned left;              /* accesses, UINT_MAX: any number, 0: unused */
    unsigned dirs;              /* GUARD_LOADS, GUARD_STORES */
    unsigned action;            /* that was decided on */
    vaddr start;
    vaddr last;
} GuardTold;

#define GUARD_LOADS         1
#define GUARD_STORES        2

/* A task switch has three such ranges at a time */
#define GUARD_TOLD          4

/**
 * GuardSpan: the last block access, if it was refused and not left
 *
 * XRSTOR asks again about more bytes from the same start, once it has read
 * the header, and says so (@grows): that is one access.
 */
typedef struct GuardSpan {
    bool valid;
    bool grows;
    uintptr_t ra;
    int mmu_idx;
    bool write;
    unsigned action;
    bool discarded;
    vaddr start;
    vaddr last;
} GuardSpan;

/**
 * GuardVCPU: what sub-page protection remembers for a virtual CPU
 *
 * Used by the thread that runs the CPU, only.
 *
 * @pass_pc: instruction that a pause stopped before
 * @npasses: accesses of it that were allowed by 'cont'
 * @step_cflags: CF_GUARD_PASS if the instruction goes on in a step with the
 *               world stopped
 * @told: see GuardTold
 * @tb_flushes: flushes of translated code that @told and @span know of
 * @walk_addr: what a page walk reads next
 * @span: see GuardSpan
 * @state_op: counts transfers of CPU state; 0 before the first
 * @state_told: the transfer that @state_page and @state_mask belong to
 * @state_page: page in which it met protected sub-pages
 * @state_mask: those that gave an event, by direction
 * @quiets: discarded accesses that need not be decided again
 * @sink: takes the stores of a block access that is discarded
 */
typedef struct GuardVCPU {
    uint64_t pass_pc;
    unsigned npasses;
    GuardPass pass[GUARD_PASSES];
    uint32_t step_cflags;

    GuardTold told[GUARD_TOLD];
    unsigned next_told;
    unsigned tb_flushes;

    vaddr walk_addr;
    GuardSpan span;

    uint64_t state_op;
    uint64_t state_told;
    ram_addr_t state_page;
    uint32_t state_mask[2];

    GuardQuiets quiets;

    uint8_t sink[GUARD_PAGE_SIZE] QEMU_ALIGNED(64);
} GuardVCPU;

/* By cpu_index; a CPU that is plugged again finds its old state. */
#define GUARD_MAX_VCPUS     4096
extern GuardVCPU *guard_vcpus[GUARD_MAX_VCPUS];

GuardVCPU *guard_vcpu_new(CPUState *cpu);

/* On the CPU's own thread */
static inline GuardVCPU *guard_vcpu(CPUState *cpu)
{
    unsigned i = cpu->cpu_index;
    GuardVCPU *g = qatomic_read(&guard_vcpus[i % GUARD_MAX_VCPUS]);

    return likely(g) ? g : guard_vcpu_new(cpu);
}

/**
 * guard_tcg_cpu_init: a CPU is about to run for the first time
 * @cpu: the CPU; may have the index of one that was unplugged
 *
 * Returns: the flags that its translation blocks have to have.
 */
uint32_t guard_tcg_cpu_init(CPUState *cpu);

/**
 * GuardAccess: one access by a CPU, while it is decided
 * @ra: return address into generated code, or 0
 * @mmu_idx: as used by the access
 * @walk: whether it is a page walk
 * @second: whether it is the second half of an access that was decided as one
 * @write: direction
 * @refused: whether any byte of it is forbidden
 * @action: the strongest action asked for, if so
 * @addr: linear address, or physical if @mmu_idx says so
 * @gpa: the same as guest-physical address
 * @ram: the same as RAM address
 * @size: bytes from there on that lie in the same page
 * @start: linear address of the whole access
 * @last: the same of its last byte
 */
typedef struct GuardAccess {
    CPUState *cpu;
    uintptr_t ra;
    int mmu_idx;
    bool walk;
    bool second;
    bool write;
    bool refused;
    unsigned action;
    vaddr addr;
    hwaddr gpa;
    ram_addr_t ram;
    unsigned size;
    vaddr start;
    vaddr last;
} GuardAccess;

typedef enum GuardVerdict {
    GUARD_ALLOW,
    GUARD_REPORT,
    GUARD_DISCARD,
} GuardVerdict;

/**
 * guard_cpu_verdict: decide on an access that is forbidden
 * @a: the access
 *
 * Does not return for 'fault' and 'pause', where the instruction is left
 * before anything of it took place.  After GUARD_REPORT and GUARD_DISCARD the
 * caller calls guard_cpu_tell() once it is sure that the instruction will
 * not be started again.
 */
GuardVerdict guard_cpu_verdict(const GuardAccess *a);
void guard_cpu_tell(const GuardAccess *a);

/**
 * guard_cpu_quiet: an access was discarded, and told of
 * @a: the access
 *
 * If all that counts is where it went to, the next ones to the same piece of
 * RAM are found in GuardVCPU.quiets.
 */
void guard_cpu_quiet(const GuardAccess *a);

/* The next block access of the instruction begins where the last one did */
static inline void guard_span_grows(CPUState *cpu)
{
    if (guard_active()) {
        guard_vcpu(cpu)->span.grows = true;
    }
}

/* Whether only 'fault' or 'pause' would end the instruction here */
bool guard_cpu_would_leave(const GuardAccess *a);

/* A block access begins: forget what was told of the range */
void guard_cpu_begin(CPUState *cpu, uintptr_t ra, int mmu_idx, vaddr start,
                     unsigned size, unsigned dirs);

/*
 * From now on, parts of @a, or of the loads and stores of the same range as
 * @dirs says, are silent; see GuardTold
 */
void guard_cpu_told(const GuardAccess *a, unsigned dirs, unsigned accesses);

/* What follows is no block access: nothing of the instruction was told of */
void guard_cpu_forget(CPUState *cpu, uintptr_t ra);

/* The next load by a physical address is a page walk's, if it is of @addr */
static inline void guard_cpu_walks(CPUState *cpu, vaddr addr)
{
    if (guard_active()) {
        guard_vcpu(cpu)->walk_addr = addr;
    }
}

/**
 * guard_pause_before: stop the VM before the instruction that @ra is in
 * @cpu: the CPU, on its own thread
 * @ra: return address into generated code
 *
 * After 'cont' the instruction starts again, in a block of its own.
 */
G_NORETURN void guard_pause_before(CPUState *cpu, uintptr_t ra);

/* Whether @ra is in the block that guard_pause_before() made to start again */
bool guard_in_pass(uintptr_t ra);

/**
 * guard_tcg_pin_code: whether table registers and segment bases are pinned
 * @cpu: the CPU, on its own thread or while it doesn't run
 * @on: whether blocks need the helpers that check them
 */
void guard_tcg_pin_code(CPUState *cpu, bool on);

/* A transfer of CPU state begins: it gives one event for each sub-page */
void guard_state_begin(CPUState *cpu);

/* Whether this transfer already gave an event for the sub-page */
bool guard_state_seen(CPUState *cpu, ram_addr_t ram, bool write);

#endif /* GUARD_CPU_H */
