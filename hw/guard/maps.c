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
#include "qemu/thread.h"
#include "exec/memory.h"
#include "guard/devices.h"
#include "guard/guard.h"
#include "guard/physmem.h"

/*
 * A hash table by host pointer.  Every bucket has a lock of its own, since
 * iothreads map and unmap at a high rate.  Locks are leaves.
 */
#define GUARD_MAP_BUCKETS   1024

typedef struct GuardMapNode {
    GuardLiveMap map;
    struct GuardMapNode *next;
} GuardMapNode;

typedef struct GuardMapBucket {
    QemuSpin lock;
    GuardMapNode *first;
} GuardMapBucket;

static GuardMapBucket guard_maps[GUARD_MAP_BUCKETS];

/* Starts at 1; 0 is no map's number */
static uint64_t guard_maps_made;

static void __attribute__((constructor)) guard_maps_init(void)
{
    unsigned i;

    for (i = 0; i < GUARD_MAP_BUCKETS; i++) {
        qemu_spin_init(&guard_maps[i].lock);
    }
}

static GuardMapBucket *guard_map_bucket(const void *host)
{
    /* Buffers are multiples of a sector or of a descriptor, mostly */
    return &guard_maps[((uintptr_t)host >> 4 ^ (uintptr_t)host >> 14) %
                       GUARD_MAP_BUCKETS];
}

void *guard_map_record(void *host, const void *who, ram_addr_t ram,
                       hwaddr len, bool is_write)
{
    GuardMapBucket *b = guard_map_bucket(host);
    GuardMapNode *node;

    if (!host || GUARD_MUTANT(GUARD_HOOK_MAP_RECORD)) {
        return host;
    }
    node = g_new(GuardMapNode, 1);
    node->map = (GuardLiveMap) {
        .host = host,
        .who = guard_working_for() ?: who,
        .ram = ram,
        .len = len,
        .serial = qatomic_fetch_inc(&guard_maps_made) + 1,
        .is_write = is_write,
    };
    qemu_spin_lock(&b->lock);
    node->next = b->first;
    b->first = node;
    qemu_spin_unlock(&b->lock);
    return host;
}

/* Take a map out of a bucket: the one that fits best, NULL if none does. */
static GuardMapNode *guard_map_take(GuardMapBucket *b, void *host, hwaddr len,
                                    bool is_write, bool inside)
{
    GuardMapNode **best = NULL;
    GuardMapNode **p, *node = NULL;

    qemu_spin_lock(&b->lock);
    for (p = &b->first; *p; p = &(*p)->next) {
        GuardLiveMap *m = &(*p)->map;

        if (m->host == host) {
            best = p;
            if (m->len == len && m->is_write == is_write) {
                break;
            }
        } else if (inside && !best && host > m->host &&
                   (uintptr_t)host - (uintptr_t)m->host < m->len) {
            best = p;
        }
    }
    if (best) {
        node = *best;
        *best = node->next;
    }
    qemu_spin_unlock(&b->lock);
    return node;
}

void guard_map_forget(void *host, hwaddr len, bool is_write)
{
    GuardMapNode *node = guard_map_take(guard_map_bucket(host), host, len,
                                        is_write, false);
    unsigned i;

    /* A device that moved its pointer: no one knows which bucket it is in */
    for (i = 0; !node && i < GUARD_MAP_BUCKETS; i++) {
        if (qatomic_read(&guard_maps[i].first)) {
            node = guard_map_take(&guard_maps[i], host, len, is_write, true);
        }
    }
    g_free(node);
}

uint64_t guard_map_serial(void)
{
    return qatomic_read(&guard_maps_made);
}

/* The change that a map is in the way of, or NULL */
static const GuardChange *guard_map_meets(const GuardLiveMap *m,
                                          const GuardChange *changes, size_t n)
{
    ram_addr_t last = m->ram + m->len - 1;
    size_t low = 0;
    size_t high = n;

    while (low < high) {
        size_t mid = low + (high - low) / 2;

        if (changes[mid].last < m->ram) {
            low = mid + 1;
        } else {
            high = mid;
        }
    }
    for (; low < n && changes[low].start <= last; low++) {
        if (m->is_write ? changes[low].nowrite : changes[low].noread) {
            return &changes[low];
        }
    }
    return NULL;
}

const GuardChange *guard_map_conflict(const GuardChange *changes, size_t n,
                                      uint64_t serial, GuardLiveMap *map)
{
    const GuardChange *found = NULL;
    GuardMapNode *node;
    unsigned i;

    if (GUARD_MUTANT(GUARD_HOOK_MAP_WAIT)) {
        return NULL;
    }
    for (i = 0; i < GUARD_MAP_BUCKETS && !found; i++) {
        if (!qatomic_read(&guard_maps[i].first)) {
            continue;
        }
        qemu_spin_lock(&guard_maps[i].lock);
        for (node = guard_maps[i].first; node && !found; node = node->next) {
            if (node->map.len && node->map.serial <= serial) {
                found = guard_map_meets(&node->map, changes, n);
                *map = node->map;
            }
        }
        qemu_spin_unlock(&guard_maps[i].lock);
    }
    return found;
}
