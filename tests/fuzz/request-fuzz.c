/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Fuzz target: the guest's request array, and the access table that is made
 * of it, against a table that is one byte for each sub-page.
 *
 * An input is a row of requests.  The first byte of each says who asks, the
 * second how many entries follow, as they would stand in the array.
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

/* Room for a few records of 2 MiB */
#define RAM_SIZE    (8 * MiB)
#define SUBPAGES    (RAM_SIZE / GUARD_SUBPAGE_SIZE)
#define LIMIT       100000

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

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

static int compare_changes(const void *a, const void *b)
{
    const GuardChange *ca = a;
    const GuardChange *cb = b;

    return ca->start < cb->start ? -1 : ca->start > cb->start;
}

static void model_apply(const GuardChange *c)
{
    ram_addr_t i;

    for (i = c->start / GUARD_SUBPAGE_SIZE; i <= c->last / GUARD_SUBPAGE_SIZE;
         i++) {
        Model *m = &model[i];

        if (!c->guest) {
            *m = (Model) {
                .nowrite = c->nowrite,
                .noread = c->noread,
                .action = c->nowrite ? c->action : 0,
            };
            continue;
        }
        if (!m->nowrite) {
            m->nowrite = m->guest = true;
            m->action = c->action;
        }
        m->noread |= c->noread;
    }
}

static void compare(const GuardTable *t)
{
    size_t i, bytes = 0;

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
    g_assert_cmpuint(guard_table_bytes(t), ==, bytes);
    g_assert_cmpuint(guard_table_nguest(t), <=, guard_table_nrecords(t));
}

/* The changes that a request comes to; none if it is refused */
static GArray *read_request(const uint8_t *data, size_t n, unsigned op)
{
    GArray *changes = g_array_new(false, false, sizeof(GuardChange));
    GuardChange *c;
    size_t i;

    for (i = 0; i < n; i++) {
        uint8_t raw[GUARD_REQUEST_ENTRY];
        GuardRequestEntry e;
        GuardChange change;

        memcpy(raw, data + i * GUARD_REQUEST_ENTRY, sizeof(raw));
        if (op & 0x80) {
            /* Most of what is interesting lies in RAM and is well-formed */
            stq_le_p(raw, ldq_le_p(raw) % SUBPAGES * GUARD_SUBPAGE_SIZE);
            stl_le_p(raw + 8, ldl_le_p(raw + 8) % (op & 0x40 ? SUBPAGES : 64)
                     * GUARD_SUBPAGE_SIZE);
            stw_le_p(raw + 12, 1 + raw[12] % 2);
            stw_le_p(raw + 14, 1 + raw[14] % 3);
            stl_le_p(raw + 20, 0);
        }
        guard_request_entry(raw, &e);
        if (e.status != GUARD_REQUEST_DONE) {
            g_assert_cmpint(e.status, <=, GUARD_REQUEST_UNAVAILABLE);
            goto refuse;
        }
        g_assert(e.action != GUARD_ACTION_PAUSE);
        if (e.gpa > RAM_SIZE || e.length > RAM_SIZE - e.gpa) {
            goto refuse;
        }
        change = (GuardChange) {
            .start = e.gpa,
            .last = e.gpa + e.length - 1,
            .nowrite = true,
            .noread = e.noread,
            .guest = op & 1,
            .action = e.action,
        };
        if (!change.guest && (op & 6) == 6) {
            change.nowrite = change.noread = false;
        }
        g_array_append_val(changes, change);
    }
    if (!changes->len) {
        return changes;
    }
    c = (GuardChange *)changes->data;
    qsort(c, changes->len, sizeof(*c), compare_changes);
    for (i = 1; i < changes->len; i++) {
        if (c[i].start <= c[i - 1].last) {
            goto refuse;
        }
    }
    return changes;

refuse:
    g_array_set_size(changes, 0);
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
        g_assert_cmpuint(count, <=, GUARD_REQUEST_MAX);
    }

    while (size >= 2) {
        unsigned op = data[0];
        size_t n = MIN(data[1] % 16, (size - 2) / GUARD_REQUEST_ENTRY);
        g_autoptr(GArray) changes = read_request(data + 2, n, op);
        const GuardChange *c = (const GuardChange *)changes->data;
        size_t i, nrecords;
        GuardTable *new;

        data += 2 + n * GUARD_REQUEST_ENTRY;
        size -= 2 + n * GUARD_REQUEST_ENTRY;
        if (!changes->len) {
            continue;
        }
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
        for (i = 0; i < changes->len; i++) {
            model_apply(&c[i]);
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
