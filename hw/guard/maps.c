/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Sub-page protection: the host pointers that devices hold.
 *
 * address_space_map() gives a device a pointer to guest memory, which no
 * later protection can take back.  All of them are recorded, also while
 * nothing is protected, so that arming can wait for those that are in its way,
 * or refuse and say whose they are.
 */

#include "qemu/osdep.h"
#include "qemu/main-loop.h"
#include "qemu/thread.h"
#include "exec/memory.h"
#include "guard/devices.h"
#include "guard/guard.h"
#include "guard/physmem.h"

/*
 * Hash tables of all that a map is known by: one of the threads that have the
 * BQL, which need no lock for it, and one of all others, iothreads, where
 * every bucket has a lock of its own.  A bucket has room for two maps, mostly
 * all that it needs: so what a map costs is a cache line, and an iothread's a
 * second one for the lock.  There are few enough for the CPU's caches.
 *
 * A map may end where it did not begin.  Who has the BQL can look into both
 * tables; who has not and does not find a map in the other one leaves it
 * to the next thread that has the BQL, as an orphan.
 *
 * All locks here are leaves.
 */
#define GUARD_MAP_BITS      9
#define GUARD_MAP_BUCKETS   (1U << GUARD_MAP_BITS)

/* What is kept of a map; free if @host is NULL */
typedef struct GuardMapSlot {
    void *host;
    const void *who;
    hwaddr len;
    uint64_t tag;               /* twice the serial number, 1 more to write */
} GuardMapSlot;

typedef struct GuardMapNode {
    GuardMapSlot slot;
    struct GuardMapNode *next;
} GuardMapNode;

typedef struct GuardMapBucket {
    GuardMapSlot slots[2];
} QEMU_ALIGNED(64) GuardMapBucket;

/* What is seldom needed of a bucket */
typedef struct GuardMapChain {
    QemuSpin lock;
    GuardMapNode *more;         /* what found the slots taken */
} GuardMapChain;

typedef struct GuardMapTable {
    GuardMapBucket buckets[GUARD_MAP_BUCKETS];
    GuardMapChain chains[GUARD_MAP_BUCKETS];
    bool bql;                   /* protected by the BQL, not by locks */
} GuardMapTable;

static GuardMapTable guard_maps_bql = { .bql = true };
static GuardMapTable guard_maps_other;

static QemuSpin guard_orphans_lock;
static GuardMapNode *guard_orphans;

/* The number that maps get; whoever wants to tell older ones moves it on */
static aligned_uint64_t guard_maps_serial = 1;

/* Odd numbers */
static uint64_t guard_maps_key[2];

static void __attribute__((constructor)) guard_maps_init(void)
{
    unsigned i;

    for (i = 0; i < ARRAY_SIZE(guard_maps_key); i++) {
        guard_maps_key[i] = (uint64_t)g_random_int() << 32 |
                            g_random_int() | 1;
    }

    for (i = 0; i < GUARD_MAP_BUCKETS; i++) {
        qemu_spin_init(&guard_maps_other.chains[i].lock);
    }
    qemu_spin_init(&guard_orphans_lock);
}

static GuardMapTable *guard_map_table(void)
{
    return bql_locked() ? &guard_maps_bql : &guard_maps_other;
}

/*
 * The bucket of a map, by pointer, length and direction: a guest may have one
 * address mapped with any number of lengths.  It is not to know which maps
 * share a bucket.
 */
static inline unsigned guard_map_hash(const void *host, hwaddr len,
                                      bool is_write)
{
    return ((uintptr_t)host * guard_maps_key[0] +
            (len * 2 + is_write) * guard_maps_key[1]) >> (64 - GUARD_MAP_BITS);
}

static inline void guard_map_lock(GuardMapTable *t, unsigned i)
{
    if (!t->bql) {
        qemu_spin_lock(&t->chains[i].lock);
    }
}

static inline void guard_map_unlock(GuardMapTable *t, unsigned i)
{
    if (!t->bql) {
        qemu_spin_unlock(&t->chains[i].lock);
    }
}

static bool guard_map_empty(const GuardMapTable *t, unsigned i)
{
    return !t->buckets[i].slots[0].host && !t->buckets[i].slots[1].host &&
           !t->chains[i].more;
}

/* A slot that is free, or NULL */
static inline GuardMapSlot *guard_map_room(GuardMapTable *t, unsigned i)
{
    GuardMapSlot *s = t->buckets[i].slots;

    return !s[0].host ? &s[0] : !s[1].host ? &s[1] : NULL;
}

static inline void guard_map_fill(GuardMapSlot *s, void *host, const void *who,
                                  hwaddr len, bool is_write)
{
    *s = (GuardMapSlot) {
        .host = host,
        .who = guard_for ?: who,
        .len = len,
        .tag = qatomic_read_u64(&guard_maps_serial) * 2 + is_write,
    };
}

static inline bool guard_map_writes(const GuardMapSlot *s)
{
    return s->tag & 1;
}

static inline bool guard_map_is(const GuardMapSlot *s, const void *host,
                                hwaddr len, bool is_write)
{
    return s->host == host && s->len == len && guard_map_writes(s) == is_write;
}

/* The slot that has a map, or NULL */
static inline GuardMapSlot *guard_map_slot(GuardMapTable *t, unsigned i,
                                           const void *host, hwaddr len,
                                           bool is_write)
{
    GuardMapSlot *s = t->buckets[i].slots;

    return guard_map_is(&s[0], host, len, is_write) ? &s[0] :
           guard_map_is(&s[1], host, len, is_write) ? &s[1] : NULL;
}

/* Forget a map that is given back as it was.  Returns: if there is one. */
static bool guard_map_take(GuardMapTable *t, const GuardMapSlot *m)
{
    bool is_write = guard_map_writes(m);
    unsigned i = guard_map_hash(m->host, m->len, is_write);
    GuardMapNode **p, *node = NULL;
    GuardMapSlot *s;

    guard_map_lock(t, i);
    s = guard_map_slot(t, i, m->host, m->len, is_write);
    if (s) {
        s->host = NULL;
    } else {
        for (p = &t->chains[i].more; *p; p = &(*p)->next) {
            if (guard_map_is(&(*p)->slot, m->host, m->len, is_write)) {
                node = *p;
                *p = node->next;
                break;
            }
        }
    }
    guard_map_unlock(t, i);
    g_free(node);
    return s || node;
}

/*
 * Call @visit for the maps of a table until it returns true, with the lock of
 * the map's bucket.  Returns: whether it did.
 */
static bool guard_map_visit(GuardMapTable *t,
                            bool (*visit)(const GuardMapSlot *s, void *opaque),
                            void *opaque)
{
    bool found = false;
    unsigned i, j;

    for (i = 0; i < GUARD_MAP_BUCKETS && !found; i++) {
        const GuardMapSlot *s = t->buckets[i].slots;
        const GuardMapNode *node;

        /*
         * Where there are locks each is taken.  Who records a map there did so
         * before, and it is found; or does so later, and then sees the table
         * that was published before this visit: see guard_map_again().
         */
        if (t->bql && guard_map_empty(t, i)) {
            continue;
        }
        guard_map_lock(t, i);
        for (j = 0; j < ARRAY_SIZE(t->buckets[i].slots) && !found; j++) {
            found = s[j].host && visit(&s[j], opaque);
        }
        for (node = t->chains[i].more; node && !found; node = node->next) {
            found = visit(&node->slot, opaque);
        }
        guard_map_unlock(t, i);
    }
    return found;
}

/* Whether @m could be a part of @s */
static bool guard_map_covers(const GuardMapSlot *s, const GuardMapSlot *m)
{
    return guard_map_writes(s) == guard_map_writes(m) &&
           m->host >= s->host && s->len >= m->len &&
           (uintptr_t)m->host - (uintptr_t)s->host <= s->len - m->len;
}

/* A map that is given back, and all that it could be a part of */
typedef struct GuardMapWhole {
    const GuardMapSlot *m;
    GArray *maps;
} GuardMapWhole;

static bool guard_map_collect(const GuardMapSlot *s, void *opaque)
{
    GuardMapWhole *w = opaque;

    if (guard_map_covers(s, w->m)) {
        g_array_append_vals(w->maps, s, 1);
    }
    return false;
}

static void guard_map_add(GuardMapTable *t, const GuardMapSlot *m)
{
    unsigned i = guard_map_hash(m->host, m->len, guard_map_writes(m));
    GuardMapNode *node;
    GuardMapSlot *s;

    guard_map_lock(t, i);
    s = guard_map_room(t, i);
    if (s) {
        *s = *m;
    }
    guard_map_unlock(t, i);
    if (s) {
        return;
    }

    node = g_new(GuardMapNode, 1);
    node->slot = *m;
    guard_map_lock(t, i);
    node->next = t->chains[i].more;
    t->chains[i].more = node;
    guard_map_unlock(t, i);
}

/* Let a map stand for another one as well, if it is still there. */
static void guard_map_widen(GuardMapSlot s, const GuardMapSlot *m)
{
    GuardMapTable *t = guard_map_take(&guard_maps_bql, &s) ? &guard_maps_bql :
                       guard_map_take(&guard_maps_other, &s) ?
                       &guard_maps_other : NULL;
    void *end = MAX(s.host + s.len, m->host + m->len);

    if (t) {
        s.host = MIN(s.host, m->host);
        s.len = end - s.host;
        s.tag = MIN(s.tag, m->tag);
        guard_map_add(t, &s);
    }
}

/*
 * A device may give back less than it had mapped, or from the middle.  Of all
 * maps that this could be a part of it is the smallest.  If it was another one
 * after all, the one that is left stands for the smallest then, and has to
 * cover it: what was given back too early would be protected under a device's
 * hands.  A part of none is no map's end.
 * Called with the BQL held.
 */
static void guard_map_search(const GuardMapSlot *m)
{
    g_autoptr(GArray) maps = NULL;
    GuardMapWhole w = { .m = m };
    const GuardMapSlot *s, *best;
    unsigned i;

    if (guard_map_take(&guard_maps_bql, m) ||
        guard_map_take(&guard_maps_other, m)) {
        return;
    }
    w.maps = maps = g_array_new(false, false, sizeof(GuardMapSlot));
    do {
        /* Once more if a thread without the BQL took it meanwhile */
        g_array_set_size(maps, 0);
        guard_map_visit(&guard_maps_bql, guard_map_collect, &w);
        guard_map_visit(&guard_maps_other, guard_map_collect, &w);
        for (i = 0, best = NULL; i < maps->len; i++) {
            s = &g_array_index(maps, GuardMapSlot, i);
            best = best && best->len <= s->len ? best : s;
        }
    } while (best && !guard_map_take(&guard_maps_bql, best) &&
             !guard_map_take(&guard_maps_other, best));
    for (i = 0; i < maps->len; i++) {
        s = &g_array_index(maps, GuardMapSlot, i);
        if (!guard_map_covers(s, best)) {
            guard_map_widen(*s, best);
        }
    }
}

/* Called with the BQL held. */
static void guard_map_bury_orphans(void)
{
    GuardMapNode *node, *next;

    qemu_spin_lock(&guard_orphans_lock);
    next = guard_orphans;
    qatomic_set(&guard_orphans, NULL);
    qemu_spin_unlock(&guard_orphans_lock);
    while ((node = next)) {
        next = node->next;
        guard_map_search(&node->slot);
        g_free(node);
    }
}

/*
 * The map is one that was made with the BQL held, when orphans are buried; so
 * there are never more of them than such maps.
 */
static void guard_map_orphan(const GuardMapSlot *m)
{
    GuardMapNode *node = g_new(GuardMapNode, 1);

    node->slot = *m;
    qemu_spin_lock(&guard_orphans_lock);
    node->next = guard_orphans;
    qatomic_set(&guard_orphans, node);
    qemu_spin_unlock(&guard_orphans_lock);
}

static bool __attribute__((noinline))
guard_map_record_slow(void *host, const void *who, hwaddr len, bool is_write)
{
    GuardMapTable *t = guard_map_table();
    GuardMapSlot s;

    if (!host) {
        /* Xen's map cache can't give one; nothing is given back then */
        return true;
    }
    if (t->bql && qatomic_read(&guard_orphans)) {
        guard_map_bury_orphans();
    }
    guard_map_fill(&s, host, who, len, is_write);
    guard_map_add(t, &s);
    return t->bql;
}

bool guard_map_record(void *host, const void *who, hwaddr len, bool is_write)
{
    GuardMapSlot *s;

    if (GUARD_MUTANT(GUARD_HOOK_MAP_RECORD)) {
        return true;
    }
    if (likely(bql_locked())) {
        s = guard_map_room(&guard_maps_bql,
                           guard_map_hash(host, len, is_write));
        if (likely(s) && likely(!qatomic_read(&guard_orphans))) {
            guard_map_fill(s, host, who, len, is_write);
            return true;
        }
    }
    return guard_map_record_slow(host, who, len, is_write);
}

static void __attribute__((noinline))
guard_map_forget_slow(void *host, hwaddr len, bool is_write)
{
    const GuardMapSlot m = { .host = host, .len = len, .tag = is_write };

    if (bql_locked()) {
        guard_map_search(&m);
    } else if (!guard_map_take(&guard_maps_other, &m)) {
        guard_map_orphan(&m);
    }
}

void guard_map_forget(void *host, hwaddr len, bool is_write)
{
    GuardMapSlot *s;

    if (likely(bql_locked())) {
        s = guard_map_slot(&guard_maps_bql,
                           guard_map_hash(host, len, is_write),
                           host, len, is_write);
        if (likely(s)) {
            s->host = NULL;
            return;
        }
    }
    guard_map_forget_slow(host, len, is_write);
}

uint64_t guard_map_serial(void)
{
    uint64_t serial = guard_maps_serial;

    qatomic_set_u64(&guard_maps_serial, serial + 1);
    return serial;
}

/* The change that a map is in the way of, or NULL */
static const GuardChange *guard_map_meets(const GuardMapSlot *s,
                                          const GuardChange *changes, size_t n,
                                          GuardLiveMap *map)
{
    size_t low = 0;
    size_t high = n;
    ram_addr_t last;

    *map = (GuardLiveMap) {
        .who = s->who,
        .ram = qemu_ram_addr_from_host(s->host),
        .len = s->len,
        .is_write = guard_map_writes(s),
    };
    if (map->ram == RAM_ADDR_INVALID) {
        return NULL;
    }
    last = map->ram + map->len - 1;
    while (low < high) {
        size_t mid = low + (high - low) / 2;

        if (changes[mid].last < map->ram) {
            low = mid + 1;
        } else {
            high = mid;
        }
    }
    for (; low < n && changes[low].start <= last; low++) {
        if (map->is_write ? changes[low].nowrite : changes[low].noread) {
            return &changes[low];
        }
    }
    return NULL;
}

typedef struct GuardMapConflict {
    const GuardChange *changes;
    size_t n;
    uint64_t serial;            /* of the youngest map that counts */
    const GuardChange *found;
    GuardLiveMap *map;
} GuardMapConflict;

static bool guard_map_conflicts(const GuardMapSlot *s, void *opaque)
{
    GuardMapConflict *c = opaque;

    if (s->len && s->tag / 2 <= c->serial) {
        c->found = guard_map_meets(s, c->changes, c->n, c->map);
    }
    return c->found;
}

const GuardChange *guard_map_conflict(const GuardChange *changes, size_t n,
                                      uint64_t serial, GuardLiveMap *map)
{
    GuardMapConflict c = {
        .changes = changes, .n = n, .serial = serial, .map = map,
    };

    if (GUARD_MUTANT(GUARD_HOOK_MAP_WAIT)) {
        return NULL;
    }
    guard_map_bury_orphans();
    if (!guard_map_visit(&guard_maps_bql, guard_map_conflicts, &c)) {
        guard_map_visit(&guard_maps_other, guard_map_conflicts, &c);
    }
    return c.found;
}
