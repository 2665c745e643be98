/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Fuzz target: the guest's request array, and the access table that is made
 * of it, against a table that is one byte for each sub-page.
 *
 * An input is a row of requests.  The first byte of each says who asks, the
 * second how many entries follow, as they would stand in the array.  What is
 * expected of an entry follows from its bytes and docs/specs/subpage.rst, not
 * from what the parser made of it.
 *
 * Built twice: with libFuzzer, which looks for new paths, if clang is there;
 * and with a main() of its own that makes inputs at random.
 */

#include "qemu/osdep.h"
#include "qemu/bswap.h"
#include "qemu/units.h"
#include "qapi/qapi-types-guard.h"
#include "guard/request.h"
#include "guard/table.h"
#include "request-fuzz.h"

/* Room for a few records of 2 MiB */
#define RAM_SIZE    (8 * MiB)
#define SUBPAGES    (RAM_SIZE / GUARD_SUBPAGE_SIZE)
#define LIMIT       100000

#ifdef GUARD_LIBFUZZER
/* Without libqemuutil, which clang did not build */
#include "qemu/guest-random.h"

void qemu_guest_getrandom_nofail(void *buf, size_t len)
{
    memset(buf, 0x5a, len);
}
#endif

typedef struct Model {
    bool nowrite, noread, guest;
    uint8_t action;
} Model;

static Model model[SUBPAGES];

/* An entry, by the specification */
typedef struct Entry {
    uint64_t gpa;
    uint32_t length;
    unsigned access, action, status;
} Entry;

static uint64_t little(const uint8_t *p, unsigned bytes)
{
    uint64_t value = 0;

    while (bytes--) {
        value = value << 8 | p[bytes];
    }
    return value;
}

static Entry model_entry(const uint8_t *raw)
{
    Entry e = {
        .gpa = little(raw, 8),
        .length = little(raw + 8, 4),
        .access = little(raw + 12, 2),
        .action = little(raw + 14, 2),
    };

    if (little(raw + 20, 4)) {
        e.status = 6;
    } else if (e.access != 1 && e.access != 2) {
        e.status = 4;
    } else if (e.action < 1 || e.action > 3) {
        e.status = 5;
    } else if (e.gpa & 127 || !e.length || e.length & 127 ||
               e.length - 1 > UINT64_MAX - e.gpa) {
        e.status = 2;
    }
    return e;
}

static bool overlap(uint64_t a, uint64_t alen, uint64_t b, uint64_t blen)
{
    return a < b + blen && b < a + alen;
}

/* Whether entry @i overlaps the array or an entry before it */
static bool model_overlap(const Entry *e, size_t i, uint64_t array,
                          uint64_t length)
{
    size_t j;

    if (overlap(e[i].gpa, e[i].length, array, length)) {
        return true;
    }
    for (j = 0; j < i; j++) {
        if (overlap(e[i].gpa, e[i].length, e[j].gpa, e[j].length)) {
            return true;
        }
    }
    return false;
}

/* What an entry makes of memory.  Returns: whether it changed anything. */
static bool model_apply(const Entry *e, bool guest, bool lift)
{
    static const uint8_t actions[] = {
        [1] = GUARD_ACTION_REPORT,
        [2] = GUARD_ACTION_DISCARD,
        [3] = GUARD_ACTION_FAULT,
    };
    bool changed = false;
    uint64_t i;

    for (i = e->gpa / 128; i < (e->gpa + e->length) / 128; i++) {
        Model *m = &model[i];
        Model old = *m;

        if (!guest) {
            *m = (Model) {
                .nowrite = !lift,
                .noread = !lift && e->access == 2,
                .action = lift ? 0 : actions[e->action],
            };
        } else {
            if (!m->nowrite) {
                m->nowrite = m->guest = true;
                m->action = actions[e->action];
            }
            m->noread |= e->access == 2;
        }
        changed |= memcmp(&old, m, sizeof(old)) != 0;
    }
    return changed;
}

static bool same(const Model *m, size_t n)
{
    return !memcmp(m, m + 1, (n - 1) * sizeof(*m));
}

/* A record is a page, or 2 MiB that are protected evenly. */
static void model_records(size_t *all, size_t *guest)
{
    const size_t page = GUARD_PAGE_SIZE / GUARD_SUBPAGE_SIZE;
    const size_t large = page * 512;
    size_t i, j, k;

    *all = *guest = 0;
    for (i = 0; i < SUBPAGES; i += large) {
        if (model[i].nowrite && same(&model[i], large)) {
            ++*all;
            *guest += model[i].guest;
            continue;
        }
        for (j = i; j < i + large; j += page) {
            bool any = false, asked = false;

            for (k = j; k < j + page; k++) {
                any |= model[k].nowrite;
                asked |= model[k].guest;
            }
            *all += any;
            *guest += asked;
        }
    }
}

/* Ranges of all lengths: what has a protected byte has to be near */
static void compare_near(const GuardTable *t)
{
    static size_t before[SUBPAGES + 1];
    size_t i;

    if (!t) {
        return;
    }
    for (i = 0; i < SUBPAGES; i++) {
        before[i + 1] = before[i] + (model[i].nowrite != 0);
    }
    for (i = 0; i < SUBPAGES; i++) {
        size_t n = 1 + i * 37 % (SUBPAGES - i);
        ram_addr_t start = i * GUARD_SUBPAGE_SIZE;

        g_assert(before[i + n] == before[i] ||
                 guard_table_near(t, start, n * GUARD_SUBPAGE_SIZE));
        if (start > t->last || start + n * GUARD_SUBPAGE_SIZE <= t->first) {
            g_assert(!guard_table_near(t, start, n * GUARD_SUBPAGE_SIZE));
        }
    }
    g_assert(guard_table_near(t, t->last, -1));
    g_assert(!guard_table_near(t, t->last + 1, -1));
}

static void compare(const GuardTable *t)
{
    size_t i, all, guest, bytes = 0;

    for (i = 0; i < SUBPAGES; i++) {
        const Model *m = &model[i];
        GuardPage none = {};
        const GuardPage *p = t ? guard_table_find(t, i * GUARD_SUBPAGE_SIZE)
                               : NULL;
        unsigned bit = i % 32;

        p = p ?: &none;
        g_assert_cmpint(extract32(p->nowrite, bit, 1), ==, m->nowrite);
        g_assert_cmpint(extract32(p->noread, bit, 1), ==, m->noread);
        g_assert_cmpint(extract32(p->guest, bit, 1), ==, m->guest);
        g_assert_cmpint(extract32(p->act[0], bit, 1) |
                        extract32(p->act[1], bit, 1) << 1, ==, m->action);
        bytes += m->nowrite ? GUARD_SUBPAGE_SIZE : 0;
    }
    compare_near(t);
    g_assert_cmpuint(guard_table_bytes(t), ==, bytes);
    model_records(&all, &guest);
    g_assert_cmpuint(guard_table_nrecords(t), ==, all);
    g_assert_cmpuint(guard_table_nguest(t), ==, guest);
}

/* The changes that a request comes to; none if it is refused */
static GArray *read_request(const uint8_t *data, size_t n, unsigned op,
                            Entry *want)
{
    GArray *changes = g_array_new(false, false, sizeof(GuardChange));
    g_autoptr(GArray) entries = g_array_new(false, false,
                                            sizeof(GuardRequestEntry));
    /* The array itself is somewhere in RAM, too */
    const GuardChange array = {
        .start = (SUBPAGES / 2 + op % 8 * 32) * GUARD_SUBPAGE_SIZE,
        .last = (SUBPAGES / 2 + op % 8 * 32 + 4) * GUARD_SUBPAGE_SIZE - 1,
        .index = GUARD_REQUEST_ARRAY,
    };
    bool good = true, overlaps = false;
    size_t i;

    g_array_append_val(changes, array);
    for (i = 0; i < n; i++) {
        uint8_t raw[GUARD_REQUEST_ENTRY];
        GuardRequestEntry e;
        GuardChange change;

        memcpy(raw, data + i * GUARD_REQUEST_ENTRY, sizeof(raw));
        if (op & 0x80) {
            /*
             * Most of what is interesting lies in RAM and is well-formed, or
             * halves of what makes a large record.
             */
            uint32_t unit = op & 0x20 ? 1 * MiB : GUARD_SUBPAGE_SIZE;
            uint32_t most = op & 0x40 ? RAM_SIZE / unit : 64;

            stq_le_p(raw, ldq_le_p(raw) % (RAM_SIZE / unit) * unit);
            stl_le_p(raw + 8, ldl_le_p(raw + 8) % most % (RAM_SIZE / unit)
                     * unit);
            stw_le_p(raw + 12, 1 + raw[12] % 2);
            stw_le_p(raw + 14, 1 + raw[14] % 3);
            stl_le_p(raw + 20, 0);
        }
        want[i] = model_entry(raw);
        guard_request_entry(raw, &e);
        g_assert_cmpint(e.status, ==, want[i].status);
        g_assert_cmphex(e.gpa, ==, want[i].gpa);
        g_assert_cmphex(e.length, ==, want[i].length);
        if (e.status || e.gpa > RAM_SIZE || e.length > RAM_SIZE - e.gpa) {
            good = false;
            continue;
        }
        g_assert_cmpint(e.noread, ==, want[i].access == 2);
        change = (GuardChange) {
            .start = e.gpa,
            .last = e.gpa + e.length - 1,
            .nowrite = true,
            .noread = e.noread,
            .guest = op & 1,
            .action = e.action,
            .index = i,
        };
        if (!change.guest && (op & 6) == 6) {
            change.nowrite = change.noread = false;
        }
        g_array_append_val(changes, change);
        g_array_append_val(entries, e);
    }
    if (!good || !n) {
        g_array_set_size(changes, 0);
        return changes;
    }

    for (i = 0; i < n; i++) {
        overlaps |= model_overlap(want, i, array.start,
                                  array.last + 1 - array.start);
    }
    g_assert(guard_request_sort(entries, changes) == !overlaps);
    for (i = good = 0; i < n; i++) {
        const GuardRequestEntry *e = &g_array_index(entries,
                                                    GuardRequestEntry, i);

        if (e->status) {
            g_assert_cmpint(e->status, ==, 7);
            g_assert(model_overlap(want, i, array.start,
                                   array.last + 1 - array.start));
            g_assert(!good);
            good = true;
        }
    }
    g_assert(good == overlaps);
    if (overlaps) {
        g_array_set_size(changes, 0);
    } else {
        g_assert_cmpuint(changes->len, ==, n);
    }
    return changes;
}

/* With less room it is the same, or refused */
static void check_limit(const GuardTable *t, const GArray *changes,
                        size_t nrecords, size_t limit)
{
    GuardTable *other;
    size_t n;
    bool fits = guard_table_update(t, (GuardChange *)changes->data,
                                   changes->len, limit, &n, &other);

    g_assert(fits == (nrecords <= limit));
    if (fits) {
        g_assert_cmpuint(n, ==, nrecords);
        if (other) {
            guard_table_free(other);
        }
    } else {
        g_assert_cmpuint(n, >, limit);
        g_assert_cmpuint(n, <=, limit + guard_table_nrecords(t) +
                                GUARD_SPLIT_RECORDS + 1);
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    GuardTable *t = NULL;
    uint32_t count;

    memset(model, 0, sizeof(model));
    if (size >= GUARD_REQUEST_HEADER &&
        guard_request_header(data, &count)) {
        g_assert_cmpuint(little(data, 4), ==, 1);
        g_assert_cmpuint(count, ==, little(data + 4, 4));
        g_assert_cmpuint(count, <=, 4096);
    }

    while (size >= 2) {
        unsigned op = data[0];
        size_t n = MIN(data[1] % 16, (size - 2) / GUARD_REQUEST_ENTRY);
        Entry want[16];
        g_autoptr(GArray) changes = read_request(data + 2, n, op, want);
        const GuardChange *c = (const GuardChange *)changes->data;
        bool holds, changed = false;
        size_t i, nrecords;
        GuardTable *new;

        data += 2 + n * GUARD_REQUEST_ENTRY;
        size -= 2 + n * GUARD_REQUEST_ENTRY;
        if (!changes->len) {
            continue;
        }
        holds = guard_table_holds(t, c, changes->len);
        g_assert(guard_table_update(t, c, changes->len, LIMIT, &nrecords,
                                    &new));
        g_assert_cmpuint(nrecords, ==, guard_table_nrecords(new));
        check_limit(t, changes, nrecords, nrecords);
        check_limit(t, changes, nrecords, nrecords / 2);
        check_limit(t, changes, nrecords, 0);
        if (nrecords) {
            check_limit(t, changes, nrecords, nrecords - 1);
        }
        if (t) {
            guard_table_free(t);
        }
        t = new;
        for (i = 0; i < n; i++) {
            changed |= model_apply(&want[i], op & 1, (op & 6) == 6);
        }
        if (op & 1) {
            g_assert(holds == !changed);
        }
    }
    compare(t);
    if (t) {
        guard_table_free(t);
    }
    return 0;
}

#ifndef GUARD_LIBFUZZER
/* Ranges of 4 MiB that lie askew, far more than there is room for */
static void too_much(void)
{
    g_autoptr(GArray) changes = g_array_new(false, false, sizeof(GuardChange));
    const uint64_t step = 4 * MiB;
    unsigned i;

    for (i = 0; i < 64; i++) {
        const GuardChange c = {
            .start = i * step + GUARD_SUBPAGE_SIZE,
            .last = (i + 1) * step - GUARD_SUBPAGE_SIZE - 1,
            .nowrite = true,
            .guest = true,
        };

        g_array_append_val(changes, c);
    }
    check_limit(NULL, changes, 64 * step / GUARD_PAGE_SIZE, 64);
    printf("ok 2 too much is given up early\n");
}

/* Inputs at random: how many is the argument */
int main(int argc, char **argv)
{
    unsigned n = argc > 1 ? atoi(argv[1]) : 1000;
    g_autoptr(GRand) rand = g_rand_new_with_seed(1);
    unsigned i, j;

    printf("1..2\n");
    for (i = 0; i < n; i++) {
        uint8_t data[1024];
        size_t size = g_rand_int_range(rand, 0, sizeof(data));

        for (j = 0; j < size; j++) {
            data[j] = g_rand_int(rand);
        }
        LLVMFuzzerTestOneInput(data, size);
    }
    printf("ok 1 %u random inputs\n", n);
    too_much();
    return 0;
}
#endif
