/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The access table: building and reading snapshots.
 */

#include "qemu/osdep.h"
#include "qemu/guest-random.h"
#include "qemu/host-utils.h"
#include "qapi/qapi-types-guard.h"
#include "guard/table.h"

GuardTable *guard_table;

unsigned guard_stronger_action(unsigned a, unsigned b)
{
    static const uint8_t strength[] = {
        [GUARD_ACTION_REPORT] = 0,
        [GUARD_ACTION_DISCARD] = 1,
        [GUARD_ACTION_PAUSE] = 2,
        [GUARD_ACTION_FAULT] = 3,
    };

    return strength[a] >= strength[b] ? a : b;
}

unsigned guard_page_action(const GuardPage *page, uint32_t hit)
{
    unsigned action = GUARD_ACTION_REPORT;

    while (hit) {
        unsigned i = ctz32(hit);

        action = guard_stronger_action(action,
                                       extract32(page->act[0], i, 1) |
                                       extract32(page->act[1], i, 1) << 1);
        hit &= hit - 1;
    }
    return action;
}

static int guard_compare_records(const void *a, const void *b)
{
    const GuardRecord *ra = a;
    const GuardRecord *rb = b;

    return ra->start < rb->start ? -1 : ra->start > rb->start;
}

GArray *guard_table_records(const GuardTable *t)
{
    size_t n = guard_table_nrecords(t);
    GArray *out = g_array_sized_new(false, false, sizeof(GuardRecord), n);
    unsigned order;
    uint32_t i;

    for (order = 0; t && order < GUARD_ORDERS; order++) {
        for (i = 0; i < t->map[order].nslots; i++) {
            const GuardSlot *slot = &t->map[order].slots[i];

            if (slot->key != GUARD_SLOT_FREE) {
                GuardRecord r = {
                    .start = slot->key << guard_order_bits(order),
                    .order = order,
                    .page = slot->page,
                };
                g_array_append_val(out, r);
            }
        }
    }
    if (out->len) {
        qsort(out->data, out->len, sizeof(GuardRecord), guard_compare_records);
    }
    return out;
}

size_t guard_table_nrecords(const GuardTable *t)
{
    size_t n = 0;
    unsigned order;

    for (order = 0; t && order < GUARD_ORDERS; order++) {
        n += t->map[order].nrecords;
    }
    return n;
}

size_t guard_table_nguest(const GuardTable *t)
{
    return t ? t->nguest : 0;
}

uint64_t guard_table_bytes(const GuardTable *t)
{
    uint64_t bytes = 0;
    unsigned order;
    uint32_t i;

    for (order = 0; t && order < GUARD_ORDERS; order++) {
        uint64_t unit = 1ULL << (guard_order_bits(order) - 5);

        for (i = 0; i < t->map[order].nslots; i++) {
            const GuardSlot *slot = &t->map[order].slots[i];

            if (slot->key != GUARD_SLOT_FREE) {
                bytes += ctpop32(slot->page.nowrite) * unit;
            }
        }
    }
    return bytes;
}

void guard_table_free(GuardTable *t)
{
    unsigned order;

    for (order = 0; t && order < GUARD_ORDERS; order++) {
        g_free(t->map[order].slots);
    }
    g_free(t->filter);
    g_free(t);
}

static void guard_map_insert(GuardMap *map, uint64_t seed, uint64_t key,
                             const GuardPage *page)
{
    uint32_t i = ((uint64_t)guard_hash(seed, key) * map->nslots) >> 32;

    while (map->slots[i].key != GUARD_SLOT_FREE) {
        if (++i == map->nslots) {
            i = 0;
        }
    }
    map->slots[i].key = key;
    map->slots[i].page = *page;
}

static ram_addr_t guard_record_last(const GuardRecord *r)
{
    return r->start + (((ram_addr_t)1 << guard_order_bits(r->order)) - 1);
}

static void guard_table_divide(GuardTable *t, const GArray *records)
{
    uint32_t i;

    t->first = ~(ram_addr_t)0;
    for (i = 0; i < records->len; i++) {
        const GuardRecord *r = &g_array_index(records, GuardRecord, i);

        t->first = MIN(t->first, r->start);
        t->last = MAX(t->last, guard_record_last(r));
    }
    t->part_bits = GUARD_PAGE_BITS;
    while ((t->last - t->first) >> t->part_bits >= GUARD_PARTS) {
        t->part_bits++;
    }
    for (i = 0; i < records->len; i++) {
        const GuardRecord *r = &g_array_index(records, GuardRecord, i);
        unsigned from = (r->start - t->first) >> t->part_bits;
        unsigned to = (guard_record_last(r) - t->first) >> t->part_bits;

        t->parts |= MAKE_64BIT_MASK(from, to - from + 1);
    }
}

GuardTable *guard_table_new(const GArray *records)
{
    GuardTable *t = g_new0(GuardTable, 1);
    unsigned order;
    uint32_t i;

    /* A guest that may protect memory must not be able to choose collisions */
    qemu_guest_getrandom_nofail(&t->seed, sizeof(t->seed));

    for (i = 0; i < records->len; i++) {
        const GuardRecord *r = &g_array_index(records, GuardRecord, i);

        t->map[r->order].nrecords++;
        t->nguest += r->page.guest != 0;
    }
    guard_table_divide(t, records);
    for (order = 0; order < GUARD_ORDERS; order++) {
        GuardMap *map = &t->map[order];

        if (!map->nrecords) {
            continue;
        }
        /* Exactly as large as needed for a load of 0.6 */
        map->nslots = DIV_ROUND_UP((uint64_t)map->nrecords * 5, 3);
        map->slots = g_new(GuardSlot, map->nslots);
        for (i = 0; i < map->nslots; i++) {
            map->slots[i].key = GUARD_SLOT_FREE;
        }
    }
    if (t->map[0].nrecords) {
        t->nlines = DIV_ROUND_UP(t->map[0].nrecords, 32);
        t->filter = g_new0(GuardFilterLine, t->nlines);
    }
    for (i = 0; i < records->len; i++) {
        const GuardRecord *r = &g_array_index(records, GuardRecord, i);

        if (!r->order) {
            uint64_t key = r->start >> GUARD_PAGE_BITS;

            *guard_filter_word(t, key) |= 1ULL << (key % 64);
        }
        guard_map_insert(&t->map[r->order], t->seed,
                         r->start >> guard_order_bits(r->order), &r->page);
    }
    return t;
}

/*
 * The new table is built in one pass over RAM, from two sorted lists: the
 * records of the old table and the changes.
 */
typedef struct GuardBuilder {
    const GuardRecord *old;
    size_t nold;
    const GuardChange *change;
    size_t nchange;
    GArray *out;
    size_t max;                 /* records, which may yet become fewer */
} GuardBuilder;

static void guard_emit(GuardBuilder *b, ram_addr_t start, unsigned order,
                       const GuardPage *page)
{
    GuardRecord r = { .start = start, .order = order, .page = *page };

    g_array_append_val(b->out, r);
}

static void guard_apply(GuardPage *page, const GuardChange *c, uint32_t mask)
{
    if (c->guest) {
        page->noread |= c->noread ? mask : 0;
        mask &= ~page->nowrite;
        page->guest |= mask;
    } else {
        page->nowrite &= ~mask;
        page->noread &= ~mask;
        page->act[0] &= ~mask;
        page->act[1] &= ~mask;
        page->guest &= ~mask;
    }
    if (c->nowrite) {
        page->nowrite |= mask;
        page->noread |= c->noread ? mask : 0;
        page->act[0] |= c->action & 1 ? mask : 0;
        page->act[1] |= c->action & 2 ? mask : 0;
        page->guest |= c->owner_guest ? mask : 0;
    }
}

static bool guard_page_is_uniform(const GuardPage *p)
{
    return (p->nowrite == 0 || p->nowrite == UINT32_MAX) &&
           (p->noread == 0 || p->noread == UINT32_MAX) &&
           (p->act[0] == 0 || p->act[0] == UINT32_MAX) &&
           (p->act[1] == 0 || p->act[1] == UINT32_MAX) &&
           (p->guest == 0 || p->guest == UINT32_MAX);
}

/* If the records from @first on fill a block evenly, make them one. */
static void guard_collapse(GuardBuilder *b, guint first, ram_addr_t start,
                           unsigned order)
{
    const GuardRecord *r;
    GuardPage page;
    guint i;

    if (b->out->len - first != 512) {
        return;
    }
    r = &g_array_index(b->out, GuardRecord, first);
    if (!guard_page_is_uniform(&r->page)) {
        return;
    }
    for (i = 0; i < 512; i++) {
        if (r[i].order != order - 1 ||
            memcmp(&r[i].page, &r->page, sizeof(r->page))) {
            return;
        }
    }
    page = r->page;
    g_array_set_size(b->out, first);
    guard_emit(b, start, order, &page);
}

/*
 * Produce the records of one aligned block.  @inherit: the record of a larger
 * block of the old table that this one is a part of, or NULL.
 */
static void guard_build_block(GuardBuilder *b, ram_addr_t start,
                              unsigned order, const GuardPage *inherit)
{
    ram_addr_t last = start + (1ULL << guard_order_bits(order)) - 1;
    ram_addr_t step, sub;
    guint first;
    size_t i;

    if (b->nold && b->old->start == start && b->old->order == order) {
        inherit = &b->old->page;
        b->old++;
        b->nold--;
    }
    while (b->nchange && b->change->last < start) {
        b->change++;
        b->nchange--;
    }

    if (!b->nchange || b->change->start > last) {
        if (inherit) {
            guard_emit(b, start, order, inherit);
            return;
        }
        while (b->nold && b->old->start <= last) {
            g_array_append_vals(b->out, b->old, 1);
            b->old++;
            b->nold--;
        }
        return;
    }

    if (b->change->start <= start && b->change->last >= last &&
        (!b->change->guest || inherit ||
         !b->nold || b->old->start > last)) {
        GuardPage page = {};

        /* What the guest asks for is added to what is there. */
        if (b->change->guest && inherit) {
            page = *inherit;
        }
        while (b->nold && b->old->start <= last) {
            b->old++;
            b->nold--;
        }
        guard_apply(&page, b->change, UINT32_MAX);
        if (page.nowrite) {
            guard_emit(b, start, order, &page);
        }
        return;
    }

    if (order == 0) {
        GuardPage page = {};

        if (inherit) {
            page = *inherit;
        }
        for (i = 0; i < b->nchange && b->change[i].start <= last; i++) {
            ram_addr_t from = MAX(b->change[i].start, start);
            ram_addr_t to = MIN(b->change[i].last, last);

            guard_apply(&page, &b->change[i],
                        guard_subpages(from - start, to - from + 1));
        }
        if (page.nowrite) {
            guard_emit(b, start, 0, &page);
        }
        return;
    }

    first = b->out->len;
    step = 1ULL << guard_order_bits(order - 1);
    for (sub = start; sub <= last && sub >= start; sub += step) {
        if (b->out->len > b->max) {
            /* Given up: what is left of the old records stays where it is */
            return;
        }
        if (!inherit) {
            /* On to the next thing there is, if any is left in the block */
            ram_addr_t next = last + 1;

            if (b->nold && b->old->start <= last) {
                next = b->old->start;
            }
            for (i = 0; i < b->nchange && b->change[i].start <= last; i++) {
                if (b->change[i].last >= sub) {
                    next = MIN(next, MAX(b->change[i].start, sub));
                    break;
                }
            }
            if (next == last + 1) {
                break;
            }
            sub = next & -step;
        }
        guard_build_block(b, sub, order - 1, inherit);
    }
    guard_collapse(b, first, start, order);
}

bool guard_table_update(const GuardTable *old,
                        const GuardChange *changes, size_t nchanges,
                        size_t max_records, size_t *nrecords,
                        GuardTable **result)
{
    g_autoptr(GArray) records = guard_table_records(old);
    g_autoptr(GArray) out = g_array_new(false, false, sizeof(GuardRecord));
    GuardBuilder b = {
        .old = (const GuardRecord *)records->data,
        .nold = records->len,
        .change = changes,
        .nchange = nchanges,
        .out = out,
        /* Until they are joined, a block may have its pieces */
        .max = MIN(max_records, SIZE_MAX - GUARD_SPLIT_RECORDS) +
               GUARD_SPLIT_RECORDS,
    };
    const unsigned top = GUARD_ORDERS - 1;
    const ram_addr_t step = 1ULL << guard_order_bits(top);
    ram_addr_t from = 0;

    while (true) {
        ram_addr_t next = RAM_ADDR_MAX;

        while (b.nchange && b.change->last < from) {
            b.change++;
            b.nchange--;
        }
        /* Where there is nothing, there is nothing to lift */
        while (b.nchange && !b.change->nowrite &&
               (!b.nold || b.change->last < b.old->start)) {
            b.change++;
            b.nchange--;
        }
        if ((!b.nold && !b.nchange) || out->len > b.max) {
            break;
        }
        if (b.nold) {
            next = b.old->start;
        }
        if (b.nchange && b.change->nowrite) {
            next = MIN(next, MAX(b.change->start, from));
        }
        next &= -step;
        guard_build_block(&b, next, top, NULL);
        from = next + step;
    }

    *nrecords = out->len;
    *result = NULL;
    if (out->len > max_records) {
        return false;
    }
    if (out->len) {
        *result = guard_table_new(out);
    }
    return true;
}

/* Whether a change holds from @ram on; @ram is moved behind the record. */
static bool guard_record_holds(const GuardTable *t, const GuardChange *c,
                               ram_addr_t *ram)
{
    unsigned order;

    for (order = 0; order < GUARD_ORDERS; order++) {
        ram_addr_t size = (ram_addr_t)1 << guard_order_bits(order);
        ram_addr_t start = *ram & -size;
        const GuardPage *page = NULL;
        uint32_t mask = UINT32_MAX;

        if (t->map[order].nslots) {
            page = guard_map_find(&t->map[order], t->seed,
                                  *ram >> guard_order_bits(order));
        }
        if (!page) {
            continue;
        }
        if (!order) {
            mask = guard_subpages(*ram - start,
                                  MIN(c->last - *ram, size - 1 -
                                      (*ram - start)) + 1);
        }
        *ram = start + size;
        return !(mask & ~page->nowrite) &&
               !(c->noread && (mask & ~page->noread));
    }
    return false;
}

bool guard_table_holds(const GuardTable *t, const GuardChange *changes,
                       size_t n)
{
    size_t i;

    for (i = 0; i < n; i++) {
        ram_addr_t ram = changes[i].start;

        while (t && ram <= changes[i].last) {
            if (!guard_record_holds(t, &changes[i], &ram)) {
                return false;
            }
        }
    }
    return t || !n;
}

static int guard_compare_changes(const void *a, const void *b)
{
    const GuardChange *ca = a;
    const GuardChange *cb = b;

    if (ca->start != cb->start) {
        return ca->start < cb->start ? -1 : 1;
    }
    return ca->index < cb->index ? -1 : ca->index > cb->index;
}

const GuardChange *guard_sort_changes(GArray *changes)
{
    const GuardChange *c = (const GuardChange *)changes->data;
    guint i;

    qsort(changes->data, changes->len, sizeof(GuardChange),
          guard_compare_changes);
    for (i = 1; i < changes->len; i++) {
        if (c[i].start <= c[i - 1].last) {
            return &c[i];
        }
    }
    return NULL;
}
