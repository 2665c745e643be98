/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Violations: counters, rate limit and events.
 */

#include "qemu/osdep.h"
#include "qemu/guest-random.h"
#include "qemu/lockable.h"
#include "qemu/thread.h"
#include "qemu/timer.h"
#include "hw/core/cpu.h"
#include "qapi/qapi-events-guard.h"
#include "guard/guard.h"
#include "guard/limit.h"
#include "guard/quiet.h"

const GuardArchOps *guard_arch;

#ifdef GUARD_MUTANTS
int guard_mutant_number;

static void __attribute__((constructor)) guard_mutant_init(void)
{
    const char *n = getenv("GUARD_MUTANT");

    guard_mutant_number = n ? atoi(n) : 0;
}
#endif

/* Events of one kind: so many at once, and then one each so many ns */
#define GUARD_EVENT_BURST       200
#define GUARD_EVENT_INTERVAL    (NANOSECONDS_PER_SECOND / 10)

static GuardLimit guard_kinds[GUARD_PATH__MAX][2][GUARD_ACTION__MAX];

/* For changes of limits; taken no more often than events are sent */
static QemuSpin guard_limit_lock;

/*
 * For moving what CPUs counted on the side to the other counters, and for
 * reading both.  A leaf, but for guard_limit_lock.
 */
static QemuMutex guard_quiet_lock;
static QSLIST_HEAD(, GuardQuiets) guard_quiets;

static void __attribute__((constructor)) guard_quiet_lock_init(void)
{
    qemu_mutex_init(&guard_quiet_lock);
}

GuardAction guard_path_action(GuardPath path, GuardAction action)
{
    switch (path) {
    case GUARD_PATH_INSN:
        return action;
    case GUARD_PATH_DELIVERY:
    case GUARD_PATH_DEVICE:
        return action == GUARD_ACTION_FAULT ? GUARD_ACTION_DISCARD : action;
    default:
        return action == GUARD_ACTION_REPORT ? action : GUARD_ACTION_DISCARD;
    }
}

/* Some milliseconds more or less don't matter, but every violation asks. */
static int64_t guard_clock(void)
{
#ifdef CLOCK_MONOTONIC_COARSE
    struct timespec ts;

    clock_gettime(CLOCK_MONOTONIC_COARSE, &ts);
    return ts.tv_sec * NANOSECONDS_PER_SECOND + ts.tv_nsec;
#else
    return get_clock();
#endif
}

/* A leaky bucket: how far ahead of time it may be filled */
#define GUARD_LIMIT_MOST    ((GUARD_EVENT_BURST - 1) * GUARD_EVENT_INTERVAL)

static bool guard_limit_allows(GuardLimit *l)
{
    int64_t now = guard_clock();
    bool allowed;

    if (qatomic_read_i64(&l->due) - now > GUARD_LIMIT_MOST) {
        return false;
    }
    qemu_spin_lock(&guard_limit_lock);
    allowed = l->due - now <= GUARD_LIMIT_MOST;
    if (allowed) {
        qatomic_set_i64(&l->due, MAX(l->due, now) + GUARD_EVENT_INTERVAL);
    }
    qemu_spin_unlock(&guard_limit_lock);
    return allowed;
}

bool guard_limit(GuardLimit *l)
{
    bool allowed = guard_limit_allows(l);

    stat64_add(allowed ? &l->sent : &l->suppressed, 1);
    return allowed;
}

/* Of a kind, what CPUs counted on the side; guard_quiet_lock is held */
static uint64_t guard_quiet_pending(const GuardLimit *l)
{
    GuardQuiets *all;
    uint64_t n = 0;
    unsigned i;

    QSLIST_FOREACH(all, &guard_quiets, next) {
        for (i = 0; i < GUARD_QUIETS; i++) {
            GuardQuiet *q = &all->quiet[i];

            if (q->key && q->kind == l) {
                n += qatomic_read_u64(&q->n);
            }
        }
    }
    return n;
}

uint64_t guard_limit_untold(GuardLimit *l)
{
    uint64_t suppressed, untold;

    QEMU_LOCK_GUARD(&guard_quiet_lock);
    suppressed = stat64_get(&l->suppressed) + guard_quiet_pending(l);
    qemu_spin_lock(&guard_limit_lock);
    untold = suppressed - l->told;
    l->told = suppressed;
    qemu_spin_unlock(&guard_limit_lock);
    return untold;
}

/*
 * Counters of single pieces of RAM.  The table has a fixed size; a piece that
 * finds no room in its bucket is not counted here.  No locks: a count may be
 * lost while a command changes the piece.  Atomics are of a pointer's size, for
 * hosts of 32 bits.
 */
#define GUARD_HIT_BUCKETS   8192
#define GUARD_HIT_WAYS      8

typedef struct GuardHit {
    uintptr_t key;              /* number of the piece, plus 1; 0: free */
    Stat64 n[2];                /* reads, writes */
} GuardHit;

static GuardHit guard_hit_table[GUARD_HIT_BUCKETS][GUARD_HIT_WAYS];
static size_t guard_hits_used;

static void guard_count_hit(ram_addr_t ram, bool write, uint64_t n)
{
    static uintptr_t seed;
    uintptr_t key = (ram >> GUARD_SUBPAGE_BITS) + 1;
    GuardHit *bucket;
    unsigned i;

    if (unlikely(!qatomic_read(&seed))) {
        uintptr_t s;

        qemu_guest_getrandom_nofail(&s, sizeof(s));
        qatomic_cmpxchg(&seed, 0, s | 1);
    }
    bucket = guard_hit_table[guard_hash(qatomic_read(&seed), key) %
                             GUARD_HIT_BUCKETS];
    for (i = 0; i < GUARD_HIT_WAYS; i++) {
        if (qatomic_read(&bucket[i].key) == key) {
            stat64_add(&bucket[i].n[write], n);
            return;
        }
    }
    for (i = 0; i < GUARD_HIT_WAYS; i++) {
        uintptr_t old = qatomic_cmpxchg(&bucket[i].key, 0, key);

        if (!old) {
            qatomic_inc(&guard_hits_used);
        }
        if (!old || old == key) {
            stat64_add(&bucket[i].n[write], n);
            return;
        }
    }
}

static bool guard_is_changed(ram_addr_t ram, const GuardChange *changes,
                             size_t n)
{
    size_t low = 0;
    size_t high = n;

    while (low < high) {
        size_t mid = low + (high - low) / 2;

        if (changes[mid].last < ram) {
            low = mid + 1;
        } else {
            high = mid;
        }
    }
    return low < n && changes[low].start <= ram;
}

/* Move what a CPU counted on the side; guard_quiet_lock is held */
static void guard_quiet_settle(GuardQuiet *q)
{
    if (q->n) {
        stat64_add(&q->kind->suppressed, q->n);
    }
    if (q->n != q->forgotten && !GUARD_MUTANT(GUARD_HOOK_HITS)) {
        guard_count_hit(guard_quiet_ram(q->key), guard_quiet_write(q->key),
                  q->n - q->forgotten);
    }
    q->key = 0;
    qatomic_set_u64(&q->n, 0);
    q->forgotten = 0;
}

void guard_quiet_init(GuardQuiets *all)
{
    QEMU_LOCK_GUARD(&guard_quiet_lock);
    QSLIST_INSERT_HEAD(&guard_quiets, all, next);
}

void guard_quiet_begin(GuardQuiets *all, uint64_t key)
{
    GuardQuiet *q = guard_quiet_of(all, guard_quiet_ram(key));

    if (q->key == key) {
        return;
    }
    QEMU_LOCK_GUARD(&guard_quiet_lock);
    if (q->key) {
        guard_quiet_settle(q);
    }
    q->kind = &guard_kinds[GUARD_PATH_INSN][guard_quiet_write(key)]
                          [GUARD_ACTION_DISCARD];
    q->key = key;
}

bool guard_quiet(GuardQuiet *q)
{
    if (qatomic_read_i64(&q->kind->due) - guard_clock() <= GUARD_LIMIT_MOST) {
        return false;
    }
    qatomic_set_u64(&q->n, q->n + 1);
    return true;
}

void guard_quiet_end(GuardQuiets *all)
{
    unsigned i;

    if (GUARD_MUTANT(GUARD_HOOK_QUIET)) {
        return;
    }
    for (i = 0; i < GUARD_QUIETS; i++) {
        if (all->quiet[i].key) {
            QEMU_LOCK_GUARD(&guard_quiet_lock);
            guard_quiet_settle(&all->quiet[i]);
        }
    }
}

static void guard_quiet_forget(const GuardChange *changes, size_t n)
{
    GuardQuiets *all;
    unsigned i;

    QEMU_LOCK_GUARD(&guard_quiet_lock);
    QSLIST_FOREACH(all, &guard_quiets, next) {
        for (i = 0; i < GUARD_QUIETS; i++) {
            GuardQuiet *q = &all->quiet[i];

            if (q->key && guard_is_changed(guard_quiet_ram(q->key), changes,
                                           n)) {
                q->forgotten = qatomic_read_u64(&q->n);
            }
        }
    }
}

void guard_hits_forget(const GuardChange *changes, size_t n)
{
    GuardHit *h = &guard_hit_table[0][0];
    size_t i;

    guard_quiet_forget(changes, n);
    if (!qatomic_read(&guard_hits_used)) {
        return;
    }
    for (i = 0; i < GUARD_HIT_BUCKETS * GUARD_HIT_WAYS; i++, h++) {
        uintptr_t key = qatomic_read(&h->key);

        if (key && guard_is_changed((ram_addr_t)(key - 1) <<
                                    GUARD_SUBPAGE_BITS, changes, n)) {
            stat64_init(&h->n[0], 0);
            stat64_init(&h->n[1], 0);
            qatomic_set(&h->key, 0);
            qatomic_dec(&guard_hits_used);
        }
    }
}

static int guard_compare_hits(const void *a, const void *b)
{
    const GuardHits *ha = a;
    const GuardHits *hb = b;

    return ha->ram < hb->ram ? -1 : ha->ram > hb->ram;
}

/* Add what a CPU counted on the side to the piece's counter, if it has one */
static void guard_quiet_add(GArray *hits, const GuardQuiet *q)
{
    uint64_t n = qatomic_read_u64(&q->n) - q->forgotten;
    guint i;

    for (i = 0; n && i < hits->len; i++) {
        GuardHits *h = &g_array_index(hits, GuardHits, i);

        if (h->ram == guard_quiet_ram(q->key)) {
            *(guard_quiet_write(q->key) ? &h->writes : &h->reads) += n;
            break;
        }
    }
}

GArray *guard_hits(void)
{
    GArray *out = g_array_new(false, false, sizeof(GuardHits));
    GuardHit *h = &guard_hit_table[0][0];
    GuardQuiets *all;
    size_t i;

    QEMU_LOCK_GUARD(&guard_quiet_lock);
    if (!qatomic_read(&guard_hits_used)) {
        return out;
    }
    for (i = 0; i < GUARD_HIT_BUCKETS * GUARD_HIT_WAYS; i++, h++) {
        uintptr_t key = qatomic_read(&h->key);
        GuardHits hits = {
            .ram = (ram_addr_t)(key - 1) << GUARD_SUBPAGE_BITS,
            .reads = stat64_get(&h->n[0]),
            .writes = stat64_get(&h->n[1]),
        };

        if (key) {
            g_array_append_val(out, hits);
        }
    }
    QSLIST_FOREACH(all, &guard_quiets, next) {
        for (i = 0; i < GUARD_QUIETS && !GUARD_MUTANT(GUARD_HOOK_HITS); i++) {
            if (all->quiet[i].key) {
                guard_quiet_add(out, &all->quiet[i]);
            }
        }
    }
    if (out->len) {
        qsort(out->data, out->len, sizeof(GuardHits), guard_compare_hits);
    }
    return out;
}

/* Count an access for the first protected piece that it touches. */
static void guard_count_piece(const GuardViolation *v)
{
    ram_addr_t last = v->ram + v->size - 1;
    ram_addr_t ram = ROUND_DOWN(v->ram, GUARD_SUBPAGE_SIZE);

    if (GUARD_MUTANT(GUARD_HOOK_HITS)) {
        return;
    }
    RCU_READ_LOCK_GUARD();
    for (; ram <= last; ram += GUARD_SUBPAGE_SIZE) {
        const GuardPage *page = guard_find(ram);
        uint32_t bit = guard_subpages(ram & (GUARD_PAGE_SIZE - 1), 1);

        if (page && (bit & (v->write ? page->nowrite : page->noread))) {
            guard_count_hit(ram, v->write, 1);
            return;
        }
    }
}

void guard_violation(const GuardViolation *v)
{
    GuardLimit *k = &guard_kinds[v->path][v->write][v->action];
    g_autofree char *path = NULL;
    bool cpu = v->cpu != NULL;
    bool has_rip = cpu && guard_arch;

    guard_count_piece(v);
    if (!guard_limit(k)) {
        return;
    }
    if (!cpu && !v->qom_path) {
        path = guard_device_path(v->who);
    }
    qapi_event_send_subpage_violation(v->addr, v->size, v->write,
                                      cpu ? GUARD_SOURCE_CPU
                                          : GUARD_SOURCE_DEVICE,
                                      cpu, cpu ? v->cpu->cpu_index : 0,
                                      has_rip,
                                      has_rip ? guard_arch->pc(v->cpu, v->ra)
                                              : 0,
                                      v->has_linear, v->linear,
                                      v->qom_path ?: path, v->action,
                                      guard_limit_untold(k));
}

GuardCounters *guard_counters(void)
{
    GuardCounters *c = g_new0(GuardCounters, 1);
    uint64_t *by_action[GUARD_ACTION__MAX] = {
        [GUARD_ACTION_REPORT] = &c->reported,
        [GUARD_ACTION_DISCARD] = &c->discarded,
        [GUARD_ACTION_FAULT] = &c->faulted,
        [GUARD_ACTION_PAUSE] = &c->paused,
    };
    unsigned path, write, action;

    QEMU_LOCK_GUARD(&guard_quiet_lock);
    for (path = 0; path < GUARD_PATH__MAX; path++) {
        for (write = 0; write < 2; write++) {
            for (action = 0; action < GUARD_ACTION__MAX; action++) {
                GuardLimit *k = &guard_kinds[path][write][action];
                uint64_t suppressed = stat64_get(&k->suppressed) +
                                      guard_quiet_pending(k);
                uint64_t n = stat64_get(&k->sent) + suppressed;

                *(write ? &c->writes : &c->reads) += n;
                *by_action[action] += n;
                c->suppressed += suppressed;
            }
        }
    }
    return c;
}
