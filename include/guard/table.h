/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The access table: which pieces of RAM may not be read or written.
 *
 * A table is an immutable snapshot, keyed by ram_addr_t, so that every
 * address at which the same RAM is seen finds the same record.  Readers look
 * it up inside an RCU critical section; a writer builds a new snapshot,
 * publishes it and frees the old one after a grace period.  Design and
 * locking: docs/devel/subpage.rst.
 */
#ifndef GUARD_TABLE_H
#define GUARD_TABLE_H

#include "qemu/bitops.h"
#include "qemu/rcu.h"
#include "exec/cpu-common.h"

#define GUARD_PAGE_BITS     12
#define GUARD_PAGE_SIZE     (1U << GUARD_PAGE_BITS)
#define GUARD_SUBPAGE_BITS  7
#define GUARD_SUBPAGE_SIZE  (1U << GUARD_SUBPAGE_BITS)

/**
 * GuardPage: access rights of the 32 sub-pages of a page
 * @nowrite: bit set: no data writes
 * @noread: bit set: no data reads either; always a subset of @nowrite
 * @act: the two bits of the GuardAction of each sub-page, 0 if unprotected
 * @guest: bit set: protected because the guest asked for it; always a subset
 *         of @nowrite
 */
typedef struct GuardPage {
    uint32_t nowrite;
    uint32_t noread;
    uint32_t act[2];
    uint32_t guest;
} GuardPage;

/*
 * Orders of a record: 4 KiB, 2 MiB and 1 GiB.  The planes of a record of a
 * higher order are uniform and hold for each of its pages.
 */
#define GUARD_ORDERS        3

static inline unsigned guard_order_bits(unsigned order)
{
    return GUARD_PAGE_BITS + order * 9;
}

typedef struct GuardSlot {
    uint64_t key;               /* ram_addr >> guard_order_bits(order) */
    GuardPage page;
} GuardSlot;

#define GUARD_SLOT_FREE     UINT64_MAX

/* Open addressing with linear probing; at least one slot is always free. */
typedef struct GuardMap {
    GuardSlot *slots;
    uint32_t nslots;            /* 0 if there is no record of this order */
    uint32_t nrecords;
} GuardMap;

/*
 * A filter before the records of single pages, so that pages without one cost
 * no access to the large array: a bit for each page of 2 MiB in a line that
 * the hash of the 2 MiB chooses.  About 16 bits a record.
 */
#define GUARD_FILTER_BITS   9

typedef struct GuardFilterLine {
    uint64_t bits[(1 << GUARD_FILTER_BITS) / 64];
} GuardFilterLine;

/*
 * And a first look before that one, with what is in the table itself: the
 * memory from the first record to the last in up to 64 equal parts, and a bit
 * for each in which there is a record.
 */
#define GUARD_PARTS         64

typedef struct GuardTable {
    struct rcu_head rcu;
    ram_addr_t first;           /* first byte of the first record */
    ram_addr_t last;            /* last byte of the last one */
    uint64_t parts;
    unsigned part_bits;         /* log2 of the bytes of a part */
    GuardFilterLine *filter;    /* NULL if there is no record of order 0 */
    uint32_t nlines;
    uint64_t seed;
    size_t nguest;              /* records with anything the guest asked for */
    GuardMap map[GUARD_ORDERS];
} GuardTable;

/* Most records that splitting one can add */
#define GUARD_SPLIT_RECORDS (2 * 511)

/* A record outside a table; arrays of them are sorted by @start. */
typedef struct GuardRecord {
    ram_addr_t start;
    uint32_t order;
    GuardPage page;
} GuardRecord;

/**
 * GuardChange: what to do with a range of RAM
 * @start: first byte, a multiple of the sub-page size
 * @last: last byte, one less than a multiple of the sub-page size
 * @nowrite: whether writes are forbidden
 * @noread: whether reads are forbidden as well
 * @owner_guest: whether to note that the guest asked for it, in a change that
 *               brings back what was there
 * @guest: whether the guest asks.  It only takes rights away, and what is
 *         protected already keeps its action and its owner
 * @action: GuardAction, if anything is forbidden
 * @index: place in the caller's list, for error messages
 */
typedef struct GuardChange {
    ram_addr_t start;
    ram_addr_t last;
    bool nowrite;
    bool noread;
    bool owner_guest;
    bool guest;
    uint8_t action;
    uint32_t index;
} GuardChange;

/* NULL while nothing is protected */
extern GuardTable *guard_table;

static inline uint32_t guard_hash(uint64_t seed, uint64_t key)
{
    key = (key ^ seed) * 0x9e3779b97f4a7c15ULL;
    key = (key ^ (key >> 32)) * 0xd6e8feb86659fd93ULL;
    return key >> 32;
}

/* The word of the filter that has the bit of a page: bit @key % 64 */
static inline uint64_t *guard_filter_word(const GuardTable *t, uint64_t key)
{
    uint32_t i = ((uint64_t)guard_hash(t->seed, key >> GUARD_FILTER_BITS) *
                  t->nlines) >> 32;

    return &t->filter[i].bits[key / 64 % ARRAY_SIZE(t->filter[i].bits)];
}

/**
 * guard_table_near: whether there may be a record in some memory
 * @t: table
 * @ram: address of the first byte
 * @len: bytes, at least 1
 *
 * The cost doesn't depend on @len.
 */
static inline bool guard_table_near(const GuardTable *t, ram_addr_t ram,
                                    ram_addr_t len)
{
    ram_addr_t last;
    unsigned from, to;

    if (ram > t->last) {
        return false;
    }
    last = ram + MIN(len - 1, t->last - ram);
    if (last < t->first) {
        return false;
    }
    from = ram > t->first ? (ram - t->first) >> t->part_bits : 0;
    to = (last - t->first) >> t->part_bits;
    return t->parts & MAKE_64BIT_MASK(from, to - from + 1);
}

/* The same for one page.  What lies before the first record may be near. */
static inline bool guard_table_near_page(const GuardTable *t, ram_addr_t ram)
{
    ram_addr_t part = (ram - t->first) >> t->part_bits;

    return part < GUARD_PARTS && t->parts >> part & 1;
}

/*
 * Whether the page of an address may have a record.  The same rules as for
 * guard_table_find(), which it is quicker than where there is none.
 */
static inline bool guard_table_may_have(const GuardTable *t, ram_addr_t ram)
{
    uint64_t key = ram >> GUARD_PAGE_BITS;
    unsigned order;

    if (!guard_table_near_page(t, ram)) {
        return false;
    }
    if (t->filter && (*guard_filter_word(t, key) >> (key % 64) & 1)) {
        return true;
    }
    for (order = 1; order < GUARD_ORDERS; order++) {
        if (t->map[order].nslots) {
            return true;
        }
    }
    return false;
}

static inline const GuardPage *guard_map_find(const GuardMap *map,
                                              uint64_t seed, uint64_t key)
{
    uint32_t i = ((uint64_t)guard_hash(seed, key) * map->nslots) >> 32;

    while (true) {
        const GuardSlot *slot = &map->slots[i];

        if (slot->key == key) {
            return &slot->page;
        }
        if (slot->key == GUARD_SLOT_FREE) {
            return NULL;
        }
        if (++i == map->nslots) {
            i = 0;
        }
    }
}

/**
 * guard_table_find: look up the page of an address
 * @t: table
 * @ram: any address in the page
 *
 * Called inside an RCU critical section, or by a writer.
 * Returns: the record, or NULL if no byte of the page is protected.
 */
static inline const GuardPage *guard_table_find(const GuardTable *t,
                                                ram_addr_t ram)
{
    uint64_t key = ram >> GUARD_PAGE_BITS;
    unsigned order = 1;

    if (!guard_table_near_page(t, ram)) {
        return NULL;
    }
    if (t->filter && (*guard_filter_word(t, key) >> (key % 64) & 1)) {
        order = 0;
    }
    for (; order < GUARD_ORDERS; order++) {
        const GuardMap *map = &t->map[order];
        const GuardPage *page;

        if (map->nslots) {
            page = guard_map_find(map, t->seed, ram >> guard_order_bits(order));
            if (page) {
                return page;
            }
        }
    }
    return NULL;
}

static inline const GuardPage *guard_find(ram_addr_t ram)
{
    const GuardTable *t = qatomic_rcu_read(&guard_table);

    return t ? guard_table_find(t, ram) : NULL;
}

/* guard_table_near() of the table in force, in an RCU critical section */
static inline bool guard_near(ram_addr_t ram, ram_addr_t len)
{
    const GuardTable *t = qatomic_rcu_read(&guard_table);

    return t && len && guard_table_near(t, ram, len);
}

/**
 * guard_subpages: the sub-pages that an access touches, as a mask
 * @ofs: offset in the page
 * @size: bytes, at least 1; the range may not leave the page
 */
static inline uint32_t guard_subpages(unsigned ofs, unsigned size)
{
    unsigned first = ofs >> GUARD_SUBPAGE_BITS;
    unsigned last = (ofs + size - 1) >> GUARD_SUBPAGE_BITS;

    return (2U << last) - (1U << first);
}

/**
 * guard_page_action: the action for a set of protected sub-pages
 * @page: record
 * @hit: sub-pages, all of them protected
 *
 * Where they differ, what stops more wins: fault, pause, discard, report.
 */
unsigned guard_page_action(const GuardPage *page, uint32_t hit);

/* Which of two actions wins */
unsigned guard_stronger_action(unsigned a, unsigned b);

/**
 * guard_sort_changes: sort by address
 * @changes: array of GuardChange, not empty
 *
 * Returns: the first that overlaps the one before it, or NULL.
 */
const GuardChange *guard_sort_changes(GArray *changes);

/**
 * guard_table_update: build the table that follows from some changes
 * @old: table, or NULL
 * @changes: sorted by start, and not overlapping
 * @nchanges: how many
 * @max_records: limit
 * @nrecords: set to the number of records of the new table; if there are too
 *            many, to how many there were when it was given up
 * @result: set to the new table, or to NULL if nothing is protected in it
 *
 * Returns: false if the table would have more than @max_records.
 */
bool guard_table_update(const GuardTable *old,
                        const GuardChange *changes, size_t nchanges,
                        size_t max_records, size_t *nrecords,
                        GuardTable **result);

/**
 * guard_table_holds: whether some changes by a guest would change nothing
 * @t: table, or NULL
 * @changes: changes with @guest set
 * @n: how many
 *
 * Called by a writer.  The cost is that of a lookup for each record.
 */
bool guard_table_holds(const GuardTable *t, const GuardChange *changes,
                       size_t n);

/**
 * guard_table_new: make a table of records
 * @records: an array of GuardRecord, not empty, none of the same memory
 *
 * Returns: the table, which belongs to the caller.
 */
GuardTable *guard_table_new(const GArray *records);

/**
 * guard_table_records: all records, sorted by address
 * @t: table, or NULL
 *
 * Returns: an array of GuardRecord to be unreferenced by the caller.
 */
GArray *guard_table_records(const GuardTable *t);

size_t guard_table_nrecords(const GuardTable *t);

/* Records that have anything in them that the guest asked for */
size_t guard_table_nguest(const GuardTable *t);

/* Bytes of RAM that @t protects */
uint64_t guard_table_bytes(const GuardTable *t);

/* Free a table that was never published */
void guard_table_free(GuardTable *t);

#endif /* GUARD_TABLE_H */
