/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Sub-page protection under TCG: arming, and verdicts on a CPU's accesses.
 */

#include "qemu/osdep.h"
#include "qemu/main-loop.h"
#include "qemu/memalign.h"
#include "exec/cputlb.h"
#include "exec/exec-all.h"
#include "exec/translation-block.h"
#include "hw/core/cpu.h"
#include "system/cpus.h"
#include "system/runstate.h"
#include "system/tcg.h"
#include "tcg/tcg.h"
#include "accel/tcg/internal-common.h"
#include "accel/tcg/tb-context.h"
#include "guard/cpu.h"
#include "guard/cputlb.h"
#include "guard/devices.h"

GuardVCPU *guard_vcpus[GUARD_MAX_VCPUS];

GuardVCPU *guard_vcpu_new(CPUState *cpu)
{
    unsigned i = cpu->cpu_index;
    GuardVCPU *g = qemu_memalign(64, sizeof(*g));

    memset(g, 0, sizeof(*g));
    guard_quiet_init(&g->quiets);
    qatomic_set(&guard_vcpus[i % GUARD_MAX_VCPUS], g);
    return g;
}

static void guard_forget_all(GuardVCPU *g)
{
    memset(g->told, 0, sizeof(g->told));
    g->span.valid = false;
}

/* A flush of translated code gives its return addresses to others */
static void guard_forget_if_flushed(GuardVCPU *g)
{
    unsigned flushes = qatomic_read(&tb_ctx.tb_flush_count);

    if (g->tb_flushes != flushes) {
        g->tb_flushes = flushes;
        guard_forget_all(g);
    }
}

uint32_t guard_tcg_cpu_init(CPUState *cpu)
{
    unsigned i = cpu->cpu_index;
    GuardVCPU *g = guard_vcpus[i % GUARD_MAX_VCPUS];

    if (g) {
        guard_forget_all(g);
        guard_quiet_end(&g->quiets);
        g->npasses = 0;
        g->step_cflags = 0;
    }
    return guard_active() ? CF_GUARD : 0;
}

/*
 * What a CPU translates its blocks with, on its own thread or while it stands
 * still.  The next block may have been chosen already, with the flags as they
 * were: so it is for the instruction that a pause stopped.
 */
static void guard_tcg_cflags(CPUState *cpu, uint32_t flag, bool on)
{
    if (on) {
        tcg_cflags_set(cpu, flag);
    } else {
        tcg_cflags_clear(cpu, flag);
    }
    if (cpu->cflags_next_tb != -1 &&
        !GUARD_MUTANT(GUARD_HOOK_PIN_NEXT_BLOCK)) {
        cpu->cflags_next_tb = (cpu->cflags_next_tb & ~flag) | (on ? flag : 0);
    }
}

bool guard_tlb_flagged;

/* On the CPU's own thread, between translation blocks */
static void guard_tcg_flush(CPUState *cpu, run_on_cpu_data data)
{
    if (GUARD_MUTANT(GUARD_HOOK_FLUSH)) {
        return;
    }
    tlb_flush(cpu);
    /* What was told of was decided by another table */
    guard_forget_all(guard_vcpu(cpu));
    guard_quiet_end(&guard_vcpu(cpu)->quiets);
    /* Blocks made for a guarded machine keep split stores whole */
    guard_tcg_cflags(cpu, CF_GUARD, qatomic_read(&guard_on));
}

static void guard_tcg_nothing(CPUState *cpu, run_on_cpu_data data)
{
}

void guard_tcg_sync_later(void)
{
    CPUState *cpu;

    qatomic_set(&guard_tlb_flagged, false);
    CPU_FOREACH(cpu) {
        if (cpu->created && !cpu->unplug) {
            async_run_on_cpu(cpu, guard_tcg_flush, RUN_ON_CPU_NULL);
        }
    }
}

void guard_tcg_sync(void)
{
    g_autoptr(GPtrArray) cpus = g_ptr_array_new_with_free_func(object_unref);
    CPUState *cpu;
    guint i;

    /*
     * The work items are queued on all CPUs before the first is waited for.
     * Each runs on its CPU's thread after the table was published, and
     * between translation blocks, where no helper holds a host pointer.
     * Waiting lets go of the BQL: hold on to the CPUs.
     */
    CPU_FOREACH(cpu) {
        g_ptr_array_add(cpus, object_ref(OBJECT(cpu)));
    }
    guard_tcg_sync_later();
    for (i = 0; i < cpus->len; i++) {
        cpu = CPU(g_ptr_array_index(cpus, i));
        if (cpu->created && !cpu->unplug) {
            run_on_cpu(cpu, guard_tcg_nothing, RUN_ON_CPU_NULL);
        }
    }
}

/* On the CPU's own thread, with the BQL held */
static void guard_tcg_wait_iothreads(CPUState *cpu, run_on_cpu_data data)
{
    GuardIothreads *t = data.host_ptr;

    while (!guard_iothreads_wait(t, INT64_MAX, NULL)) {
        /* again */
    }
    guard_iothreads_done(t);
}

static void guard_tcg_ask_iothreads(CPUState *self)
{
    GuardIothreads *t = guard_iothreads_ask();

    if (t) {
        async_run_on_cpu(self, guard_tcg_wait_iothreads,
                         RUN_ON_CPU_HOST_PTR(t));
    }
}

/* Calls of guard_tcg_sync_insn() whose safe work item has yet to run */
static unsigned guard_tcg_syncs;

static void guard_tcg_flush_last(CPUState *cpu, run_on_cpu_data data)
{
    guard_tcg_flush(cpu, data);
    qatomic_dec(&guard_tcg_syncs);
}

void guard_tcg_sync_insn(CPUState *self)
{
    CPUState *cpu;

    /*
     * Waiting for another vCPU from within an instruction would be waiting
     * for one that may wait for this one.  The safe work item runs once no
     * vCPU executes; those that go on after it serve their queues first.
     */
    qatomic_set(&guard_tlb_flagged, false);
    CPU_FOREACH(cpu) {
        if (cpu != self && cpu->created && !cpu->unplug) {
            async_run_on_cpu(cpu, guard_tcg_flush, RUN_ON_CPU_NULL);
        }
    }
    qatomic_inc(&guard_tcg_syncs);
    async_safe_run_on_cpu(self, guard_tcg_flush_last, RUN_ON_CPU_NULL);
    guard_tcg_ask_iothreads(self);
}

void guard_tcg_wait_insn(CPUState *self)
{
    /*
     * All flushes were queued with the BQL held, in which the table was
     * published.  So behind a safe work item no CPU goes on without its own.
     */
    if (qatomic_read(&guard_tcg_syncs)) {
        async_safe_run_on_cpu(self, guard_tcg_nothing, RUN_ON_CPU_NULL);
    }
    guard_tcg_ask_iothreads(self);
}

static GuardPath guard_access_path(const GuardAccess *a)
{
    if (guard_arch->phys_mmu_idx & (1U << a->mmu_idx)) {
        return a->walk || (!a->write &&
                           guard_vcpu(a->cpu)->walk_addr == a->start)
               ? GUARD_PATH_WALK : GUARD_PATH_STATE;
    }
    return a->ra ? GUARD_PATH_INSN : GUARD_PATH_DELIVERY;
}

static void guard_cpu_violation(const GuardAccess *a, GuardPath path,
                                GuardAction action)
{
    GuardViolation v = {
        .path = path,
        .action = action,
        .write = a->write,
        .addr = a->gpa,
        .ram = a->ram,
        .size = a->size,
        .cpu = a->cpu,
        .ra = path == GUARD_PATH_INSN ? a->ra : 0,
        .has_linear = path <= GUARD_PATH_DELIVERY,
        .linear = a->addr,
    };

    guard_violation(&v);
}

static bool guard_is_told(const GuardAccess *a)
{
    GuardVCPU *g = guard_vcpu(a->cpu);
    unsigned i;

    guard_forget_if_flushed(g);
    for (i = 0; i < GUARD_TOLD; i++) {
        GuardTold *t = &g->told[i];

        if (t->left && t->ra == a->ra && t->mmu_idx == a->mmu_idx &&
            (t->dirs & (a->write ? GUARD_STORES : GUARD_LOADS)) &&
            a->start - t->start <= t->last - t->start &&
            a->last - t->start <= t->last - t->start &&
            guard_stronger_action(t->action, a->action) == t->action) {
            if (t->left != UINT_MAX) {
                t->left--;
            }
            return true;
        }
    }
    return false;
}

void guard_cpu_begin(CPUState *cpu, uintptr_t ra, int mmu_idx, vaddr start,
                     unsigned size, unsigned dirs)
{
    GuardVCPU *g = guard_vcpu(cpu);
    bool walk = guard_arch->phys_mmu_idx & (1U << mmu_idx);
    vaddr last = start + size - 1;
    unsigned i;

    guard_forget_if_flushed(g);
    for (i = 0; i < GUARD_TOLD; i++) {
        GuardTold *t = &g->told[i];

        /* A page walk is made in the middle of an instruction's accesses */
        if (walk ? t->mmu_idx == mmu_idx
                 : t->ra != ra || ((t->dirs & dirs) && t->start <= last &&
                                   t->last >= start)) {
            t->left = 0;
        }
    }
}

void guard_cpu_forget(CPUState *cpu, uintptr_t ra)
{
    GuardVCPU *g = guard_vcpu(cpu);
    unsigned i;

    for (i = 0; i < GUARD_TOLD; i++) {
        if (g->told[i].ra == ra) {
            g->told[i].left = 0;
        }
    }
}

void guard_cpu_told(const GuardAccess *a, unsigned dirs, unsigned accesses)
{
    GuardVCPU *g = guard_vcpu(a->cpu);

    /* From now on there is more to an access than where it goes to */
    guard_quiet_end(&g->quiets);
    g->told[g->next_told++ % GUARD_TOLD] = (GuardTold) {
        .ra = a->ra,
        .mmu_idx = a->mmu_idx,
        .left = accesses,
        .dirs = dirs,
        .action = a->action,
        .start = a->start,
        .last = a->last,
    };
}

/* Once there was a pause, an instruction may be in a pass */
static bool guard_paused;

void guard_pause_before(CPUState *cpu, uintptr_t ra)
{
    qatomic_set(&guard_paused, true);
    vm_stop(RUN_STATE_PAUSED);
    /* Out of the loop first, as CF_NOIRQ would not look for the stop */
    cpu->exception_index = EXCP_INTERRUPT;
    cpu->cflags_next_tb = 1 | CF_NOIRQ | CF_GUARD_PASS | curr_cflags(cpu);
    cpu_loop_exit_restore(cpu, ra);
}

bool guard_in_pass(uintptr_t ra)
{
    TranslationBlock *tb = tcg_tb_lookup(ra);

    return tb && (tb_cflags(tb) & CF_GUARD_PASS);
}

void guard_tcg_pin_code(CPUState *cpu, bool on)
{
    guard_tcg_cflags(cpu, CF_GUARD_PIN, on);
}

/*
 * The instruction that was stopped starts again after 'cont', in a translation
 * block of its own (CF_GUARD_PASS).  It may make several accesses, each of
 * which stops it once; each pass is good for one access of each attempt.  The
 * next time round the instruction is in another block.
 */
static GuardPass *guard_find_pass(GuardVCPU *g, const GuardAccess *a)
{
    unsigned i;

    for (i = 0; i < g->npasses; i++) {
        GuardPass *p = &g->pass[i];

        if ((!p->used || a->second) && p->write == a->write &&
            p->ram == a->ram && p->start == a->start && p->last == a->last) {
            return p;
        }
    }
    return NULL;
}

static bool guard_take_pass(GuardVCPU *g, const GuardAccess *a, uint64_t pc)
{
    GuardPass *p;

    if (GUARD_MUTANT(GUARD_HOOK_PASS)) {
        return true;
    }
    if (g->pass_pc != pc || !guard_in_pass(a->ra)) {
        g->npasses = 0;
    }
    p = guard_find_pass(g, a);
    if (!p) {
        return false;
    }
    p->used = true;
    return true;
}

static void guard_give_pass(GuardVCPU *g, const GuardAccess *a, uint64_t pc)
{
    unsigned i, n = 0;

    /*
     * The next attempt needs again what this one made use of.  The rest is
     * of earlier iterations of a REP.
     */
    for (i = 0; i < g->npasses; i++) {
        if (g->pass[i].used) {
            g->pass[n] = g->pass[i];
            g->pass[n++].used = false;
        }
    }
    if (n == GUARD_PASSES) {
        n = 0;
    }
    g->pass_pc = pc;
    g->pass[n++] = (GuardPass) {
        .start = a->start, .last = a->last, .ram = a->ram, .write = a->write,
    };
    g->npasses = n;
}

uint32_t guard_cpu_pass_cflags(CPUState *cpu, uintptr_t ra)
{
    GuardVCPU *g;
    unsigned i;

    if (likely(!qatomic_read(&guard_paused)) || !ra || !guard_in_pass(ra)) {
        return 0;
    }
    g = guard_vcpu(cpu);
    for (i = 0; i < g->npasses; i++) {
        g->pass[i].used = false;
    }
    guard_arch->pass_again(cpu);
    return CF_GUARD_PASS;
}

void guard_cpu_exit_atomic(CPUState *cpu, uintptr_t ra)
{
    if (unlikely(qatomic_read(&guard_paused))) {
        guard_vcpu(cpu)->step_cflags = guard_cpu_pass_cflags(cpu, ra);
    }
}

uint32_t guard_cpu_step_cflags(CPUState *cpu)
{
    GuardVCPU *g;
    uint32_t cflags;

    if (likely(!qatomic_read(&guard_paused))) {
        return 0;
    }
    g = guard_vcpu(cpu);
    cflags = g->step_cflags;
    g->step_cflags = 0;
    /* A request to leave would come before the instruction */
    return cflags ? cflags | CF_NOIRQ : 0;
}

bool guard_cpu_would_leave(const GuardAccess *a)
{
    GuardVCPU *g = guard_vcpu(a->cpu);

    if (a->action == GUARD_ACTION_PAUSE &&
        g->pass_pc == guard_arch->pc(a->cpu, a->ra) &&
        guard_find_pass(g, a)) {
        return false;
    }
    return a->action == GUARD_ACTION_FAULT || a->action == GUARD_ACTION_PAUSE;
}

GuardVerdict guard_cpu_verdict(const GuardAccess *a)
{
    GuardPath path = guard_access_path(a);
    GuardAction action = guard_path_action(path, a->action);
    GuardVCPU *g;
    uint64_t pc;

    if (guard_is_told(a)) {
        return GUARD_ALLOW;
    }

    switch (action) {
    case GUARD_ACTION_REPORT:
        return GUARD_REPORT;
    case GUARD_ACTION_DISCARD:
        return GUARD_DISCARD;
    case GUARD_ACTION_FAULT:
        guard_cpu_violation(a, path, action);
        guard_arch->raise_fault(a->cpu, a->ra);
    case GUARD_ACTION_PAUSE:
        if (path != GUARD_PATH_INSN) {
            return GUARD_DISCARD;
        }
        g = guard_vcpu(a->cpu);
        pc = guard_arch->pc(a->cpu, a->ra);
        if (guard_take_pass(g, a, pc)) {
            return GUARD_ALLOW;
        }
        guard_give_pass(g, a, pc);
        guard_cpu_violation(a, path, action);
        guard_pause_before(a->cpu, a->ra);
    default:
        g_assert_not_reached();
    }
}

void guard_cpu_tell(const GuardAccess *a)
{
    GuardPath path = guard_access_path(a);
    GuardAction action = guard_path_action(path, a->action);

    if (path == GUARD_PATH_STATE &&
        guard_state_seen(a->cpu, a->ram, a->write)) {
        return;
    }
    guard_cpu_violation(a, path, action);
    if (action == GUARD_ACTION_PAUSE) {
        vm_stop(RUN_STATE_PAUSED);
    }
}

void guard_cpu_quiet(const GuardAccess *a)
{
    GuardVCPU *g = guard_vcpu(a->cpu);
    unsigned i;

    if (guard_access_path(a) != GUARD_PATH_INSN ||
        a->action != GUARD_ACTION_DISCARD ||
        (a->start ^ a->last) & -(vaddr)GUARD_SUBPAGE_SIZE) {
        return;
    }
    for (i = 0; i < GUARD_TOLD; i++) {
        if (g->told[i].left) {
            return;
        }
    }
    guard_quiet_begin(&g->quiets,
                      guard_quiet_key(a->ram, a->mmu_idx, a->write));
}

void guard_state_begin(CPUState *cpu)
{
    if (guard_active()) {
        guard_vcpu(cpu)->state_op++;
    }
}

bool guard_state_seen(CPUState *cpu, ram_addr_t ram, bool write)
{
    GuardVCPU *g = guard_vcpu(cpu);
    ram_addr_t page = ram >> GUARD_PAGE_BITS;
    uint32_t bit = guard_subpages(ram & (GUARD_PAGE_SIZE - 1), 1);

    if (GUARD_MUTANT(GUARD_HOOK_STATE_ONCE) || !g->state_op) {
        return false;
    }
    if (g->state_told != g->state_op || g->state_page != page) {
        g->state_told = g->state_op;
        g->state_page = page;
        g->state_mask[0] = g->state_mask[1] = 0;
    }
    if (g->state_mask[write] & bit) {
        return true;
    }
    g->state_mask[write] |= bit;
    return false;
}

/* The page may have a record. */
static int __attribute__((noinline))
guard_tlb_fill_found(CPUTLBEntryFull *full, ram_addr_t ram)
{
    const GuardPage *page = guard_find(ram);
    int prot = 0;

    if (!page) {
        return 0;
    }
    full->extra.guard[MMU_DATA_LOAD] = page->noread;
    full->extra.guard[MMU_DATA_STORE] = page->nowrite;
    if (page->nowrite && !GUARD_MUTANT(GUARD_HOOK_TLB_WRITE)) {
        prot |= PAGE_WRITE;
        if (!qatomic_read(&guard_tlb_flagged)) {
            qatomic_set(&guard_tlb_flagged, true);
        }
    }
    if (page->noread && !GUARD_MUTANT(GUARD_HOOK_TLB_READ)) {
        prot |= PAGE_READ;
    }
    return prot;
}

int guard_tlb_fill_slow(CPUTLBEntryFull *full, ram_addr_t ram)
{
    const GuardTable *t = qatomic_rcu_read(&guard_table);

    /* Most pages have none; this is all that they cost */
    return t && unlikely(guard_table_may_have(t, ram))
           ? guard_tlb_fill_found(full, ram) : 0;
}
