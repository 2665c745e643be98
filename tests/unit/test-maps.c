/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The record of host pointers that devices hold, hw/guard/maps.c, at random
 * against a list of maps.
 *
 * One thread that plays both kinds, with and without the BQL, has to agree
 * with the list in everything.  Real threads have to agree with what they
 * still hold, whenever they are stopped.
 *
 * GUARD_MAPS_SEED=N makes other choices.
 */

#include "qemu/osdep.h"
#include "qemu/main-loop.h"
#include "guard/guard.h"
#include "guard/physmem.h"

/* Not QemuThread: so this and maps.c are all to build with a sanitizer */
#include <pthread.h>

#define UNIT        64
#define RAM_SIZE    (4 * MiB)
#define USED        (RAM_SIZE / 2)      /* where threads make maps */
#define RAM_BASE    0x40000000ULL
#define LIVE        3000        /* with so many, buckets are shared */

/* Only its addresses are used */
static uint8_t ram[RAM_SIZE];

/* What one thread alone sets as it likes */
static __thread bool has_bql;
static pthread_mutex_t big_lock = PTHREAD_MUTEX_INITIALIZER;

__thread const void *guard_for;
#ifdef GUARD_MUTANTS
int guard_mutant_number;
#endif

/* All that libqemuutil has a stub of in the file of bql_locked()'s */
bool bql_locked(void)
{
    return has_bql;
}

void bql_lock_impl(const char *file, int line)
{
    pthread_mutex_lock(&big_lock);
    has_bql = true;
}

void bql_unlock(void)
{
    has_bql = false;
    pthread_mutex_unlock(&big_lock);
}

void bql_block_unlock(bool increase)
{
}

ram_addr_t qemu_ram_addr_from_host(void *host)
{
    uintptr_t offset = (uintptr_t)host - (uintptr_t)ram;

    return offset < RAM_SIZE ? RAM_BASE + offset : RAM_ADDR_INVALID;
}

static uint32_t seed = 1;
static unsigned point = 1;

/* Before maps.c makes its keys, so that a seed stands for buckets, too */
static void __attribute__((constructor(101))) seed_keys(void)
{
    const char *value = getenv("GUARD_MAPS_SEED");

    if (value) {
        seed = g_ascii_strtoull(value, NULL, 0);
    }
    g_random_set_seed(seed);
}

#define CHECK(what) check(what, #what, __LINE__)

static void check(bool good, const char *what, int line)
{
    if (!good) {
        printf("not ok %u line %d: %s, seed %u\n", point, line, what, seed);
        fflush(stdout);
        _exit(1);
    }
}

static void passed(const char *name)
{
    printf("ok %u %s\n", point++, name);
    fflush(stdout);
}

/*
 * A map.  Of some that are alike it is not said which one is given back: what
 * holds are bounds of the serial numbers of those that are left.
 */
typedef struct Map {
    unsigned start, len;
    bool is_write;
    bool bql;                   /* recorded by a thread that had it */
    uint64_t oldest, newest;
} Map;

static GArray *maps, *orphans;
static uint64_t serial = 1;

#define MAP(array, i) (&g_array_index(array, Map, i))

static const void *who_of(unsigned len)
{
    return &ram[len / UNIT % 7];
}

static void record(const Map *m)
{
    const void *who = who_of(m->len);

    /* Whom the thread works for goes before what it says */
    guard_for = m->is_write ? who : NULL;
    CHECK(guard_map_record(ram + m->start, guard_for ? ram + 7 : who, m->len,
                           m->is_write) == has_bql);
    guard_for = NULL;
}

static void forget(const Map *m)
{
    guard_map_forget(ram + m->start, m->len, m->is_write);
}

/* Called with the BQL held, as is all that looks for conflicts. */
static void next_serial(void)
{
    CHECK(guard_map_serial() == serial);
    serial++;
}

static bool model_take(const Map *m, bool bql)
{
    Map *first = NULL, *last = NULL;
    unsigned i;

    for (i = 0; i < maps->len; i++) {
        Map *o = MAP(maps, i);

        if (o->start == m->start && o->len == m->len &&
            o->is_write == m->is_write && o->bql == bql) {
            first = first && first->newest <= o->newest ? first : o;
            last = last && last->oldest >= o->oldest ? last : o;
        }
    }
    if (first) {
        last->oldest = first->oldest;
        g_array_remove_index_fast(maps, first - MAP(maps, 0));
    }
    return first;
}

/*
 * What is not a map goes for the smallest that it could be a part of.  There
 * is only one, as maps lie within each other or don't touch.
 */
static void model_search(const Map *m)
{
    const Map *best = NULL;
    unsigned i;
    Map copy;

    if (model_take(m, true) || model_take(m, false)) {
        return;
    }
    for (i = 0; i < maps->len; i++) {
        const Map *o = MAP(maps, i);

        if (o->is_write == m->is_write && o->start <= m->start &&
            m->start + m->len <= o->start + o->len) {
            best = best && best->len <= o->len ? best : o;
        }
    }
    if (best) {
        copy = *best;
        CHECK(model_take(&copy, true) || model_take(&copy, false));
    }
}

/* The last one comes first. */
static void model_bury(void)
{
    while (orphans->len) {
        Map m = *MAP(orphans, orphans->len - 1);

        g_array_set_size(orphans, orphans->len - 1);
        model_search(&m);
    }
}

static void both_record(Map m)
{
    record(&m);
    if (has_bql) {
        model_bury();
    }
    m.bql = has_bql;
    m.oldest = m.newest = serial;
    g_array_append_val(maps, m);
}

static void both_forget(Map m)
{
    forget(&m);
    if (has_bql) {
        model_search(&m);
    } else if (!model_take(&m, false)) {
        g_array_append_val(orphans, m);
    }
}

static bool in_the_way(const GuardChange *c, const Map *m)
{
    return c->start < RAM_BASE + m->start + m->len &&
           c->last >= RAM_BASE + m->start &&
           (m->is_write ? c->nowrite : c->noread);
}

/* Returns: whether there is a conflict, and so there is in the model. */
static bool both_conflict(const GuardChange *changes, size_t n, uint64_t limit,
                          GuardLiveMap *live)
{
    const GuardChange *found;
    bool must = false, may = false;
    unsigned i, j;

    has_bql = true;
    model_bury();
    found = guard_map_conflict(changes, n, limit, live);
    CHECK(!found || (found >= changes && found < changes + n));
    for (i = 0; i < maps->len; i++) {
        const Map *m = MAP(maps, i);

        for (j = 0; j < n && m->newest <= limit; j++) {
            must |= in_the_way(&changes[j], m);
        }
        may |= found && in_the_way(found, m) && m->oldest <= limit &&
               live->ram == RAM_BASE + m->start && live->len == m->len &&
               live->is_write == m->is_write && live->who == who_of(m->len);
    }
    CHECK(found ? may : !must);
    return found;
}

static GuardChange all_of(unsigned start, unsigned end, bool is_write)
{
    return (GuardChange) {
        .start = RAM_BASE + start, .last = RAM_BASE + end - 1,
        .nowrite = is_write, .noread = !is_write,
    };
}

static bool conflict(unsigned start, unsigned end, bool is_write)
{
    const GuardChange c = all_of(start, end, is_write);
    GuardLiveMap live;

    has_bql = true;
    return guard_map_conflict(&c, 1, UINT64_MAX, &live) &&
           live.is_write == is_write;
}

/* Find one, and go on to both sides of it. */
static void both_compare(bool is_write, unsigned start, unsigned end)
{
    const GuardChange c = all_of(start, end, is_write);
    GuardLiveMap m;

    if (start < end && both_conflict(&c, 1, UINT64_MAX, &m)) {
        both_compare(is_write, start, MAX(start, m.ram - RAM_BASE));
        both_compare(is_write, MIN(end, m.ram - RAM_BASE + m.len), end);
    }
}

static void both_empty(void)
{
    g_array_set_size(maps, 0);
    both_compare(true, 0, RAM_SIZE);
    both_compare(false, 0, RAM_SIZE);
}

/* Half of them in few places, so that many are alike */
static Map random_map(GRand *rand, bool nested)
{
    unsigned units = nested ? 1 << g_rand_int_range(rand, 0, 6)
                            : g_rand_int_range(rand, 1, 33);
    unsigned places = g_rand_boolean(rand) ? 4 : USED / UNIT / units;

    return (Map) {
        .start = g_rand_int_range(rand, 0, places) * units * UNIT,
        .len = units * UNIT,
        .is_write = g_rand_boolean(rand),
        .newest = UINT64_MAX,
    };
}

static Map random_of(GRand *rand, const GArray *array)
{
    return *MAP(array, g_rand_int_range(rand, 0, array->len));
}

static Map random_part(GRand *rand, Map m)
{
    unsigned offset = g_rand_int_range(rand, 0, m.len);

    m.start += offset;
    m.len = g_rand_int_range(rand, 1, m.len - offset + 1);
    return m;
}

static void random_conflict(GRand *rand)
{
    GuardChange c[5];
    GuardLiveMap live;
    unsigned n = g_rand_int_range(rand, 1, ARRAY_SIZE(c) + 1);
    unsigned i, at = g_rand_int_range(rand, 0, USED);

    if (maps->len && g_rand_boolean(rand)) {
        /* Sometimes the first byte of one is the last of a change */
        at = random_of(rand, maps).start + g_rand_boolean(rand);
    }
    for (i = 0; i < n; i++) {
        unsigned start = at + g_rand_int_range(rand, 0, 8) * UNIT;

        at = start + g_rand_int_range(rand, 1, 8) * UNIT;
        c[i] = all_of(start, at, g_rand_boolean(rand));
        c[i].noread ^= g_rand_boolean(rand);
    }
    both_conflict(c, n, g_rand_boolean(rand) ? UINT64_MAX
                        : g_rand_int_range(rand, 0, serial + 1), &live);
}

/* What was given back before a map was made is no end of that one. */
static void part_again(Map m)
{
    m.len = MAX(m.len / 2, UNIT);
    has_bql = false;
    both_forget(m);
    has_bql = true;
    both_record(m);
}

static void random_step(GRand *rand, bool grow)
{
    unsigned what = g_rand_int_range(rand, 0, 32);

    has_bql = true;
    if (what == 0) {
        next_serial();
    } else if (what < 4) {
        random_conflict(rand);
    } else if (what == 4 && maps->len) {
        part_again(random_of(rand, maps));
    } else {
        has_bql = g_rand_boolean(rand);
        if (!maps->len || grow == (what < 24)) {
            both_record(random_map(rand, true));
        } else if (what % 8 == 0) {
            both_forget(random_part(rand, random_of(rand, maps)));
        } else if (what % 8 == 1) {
            /* There need not be such a map, nor one around it */
            both_forget(random_map(rand, false));
        } else {
            both_forget(random_of(rand, maps));
        }
    }
}

static void test_random(void)
{
    g_autoptr(GRand) rand = g_rand_new_with_seed(seed);
    const Map empty = { .start = UNIT, .is_write = true };
    unsigned i, cycle;

    /* No conflict with anything: not in RAM, and no bytes at all */
    for (i = 0; i < 2; i++) {
        has_bql = i;
        guard_map_record(&seed, NULL, sizeof(seed), true);
        record(&empty);
    }
    for (cycle = 0; cycle < 12; cycle++) {
        unsigned most = cycle % 4 == 3 ? LIVE : 4 << cycle % 4 * 2;

        for (i = 0; i < 50000 && maps->len < most; i++) {
            random_step(rand, true);
        }
        both_compare(true, 0, RAM_SIZE);
        both_compare(false, 0, RAM_SIZE);
        for (i = 0; i < 50000 && maps->len + orphans->len; i++) {
            random_step(rand, false);
        }
        CHECK(!maps->len);
        both_empty();
    }
    for (i = 0; i < 2; i++) {
        guard_map_forget(&seed, sizeof(seed), true);
        forget(&empty);
    }
    passed("one thread agrees with the model");
}

/*
 * Threads.  What one has recorded it may hand over, so that another one gives
 * it back.
 */
typedef struct Worker {
    pthread_t thread;
    GRand *rand;
    GArray *mine;
    unsigned bql;               /* never, always, or now and then */
    unsigned most;              /* maps at a time */
    unsigned hot;               /* what work_hard() holds */
    bool parts;
} Worker;

static Worker workers[5];
static pthread_mutex_t handed_lock = PTHREAD_MUTEX_INITIALIZER;
static GArray *handed;
static unsigned pace;

/* Swap a map for another thread's. */
static Map hand_over(GRand *rand, Map m)
{
    Map other;
    unsigned i;

    pthread_mutex_lock(&handed_lock);
    i = g_rand_int_range(rand, 0, handed->len);
    other = *MAP(handed, i);
    *MAP(handed, i) = m;
    pthread_mutex_unlock(&handed_lock);
    return other;
}

static void give_back(GRand *rand, Map m, bool parts)
{
    if (parts && g_rand_boolean(rand)) {
        m = random_part(rand, m);
    }
    forget(&m);
}

static void work_step(Worker *w)
{
    unsigned i;
    Map m;

    if (g_rand_int_range(w->rand, 0, w->most) >= w->mine->len) {
        m = random_map(w->rand, false);
        record(&m);
        g_array_append_val(w->mine, m);
        return;
    }
    i = g_rand_int_range(w->rand, 0, w->mine->len);
    m = *MAP(w->mine, i);
    g_array_remove_index_fast(w->mine, i);
    if (g_rand_boolean(w->rand)) {
        m = hand_over(w->rand, m);
    }
    give_back(w->rand, m, w->parts);
}

/* Where all threads are at work at the same time */
static const Map all_work = { USED, UNIT, true, .newest = UINT64_MAX };

static void work_hard(Worker *w)
{
    unsigned i;

    for (i = 0; i < 50; i++) {
        if (w->hot && (w->hot == 3 || g_rand_boolean(w->rand))) {
            forget(&all_work);
            w->hot--;
        } else {
            record(&all_work);
            w->hot++;
        }
    }
}

static void *work(void *opaque)
{
    Worker *w = opaque;
    unsigned i, n;
    bool with;

    for (i = 0; i < 1000; i++) {
        /* Or those who wait for no lock would be done first */
        if (w == &workers[1]) {
            qatomic_set(&pace, i + 10);
        }
        while (qatomic_read(&pace) < i) {
            sched_yield();
        }
        with = w->bql == 2 ? g_rand_boolean(w->rand) : w->bql;
        if (with) {
            bql_lock();
        }
        for (n = g_rand_int_range(w->rand, 1, 8); n; n--) {
            work_step(w);
        }
        work_hard(w);
        if (with) {
            bql_unlock();
        }
    }
    for (; w->hot; w->hot--) {
        g_array_append_val(w->mine, all_work);
    }
    return NULL;
}

/* Meanwhile: what stays is found, and nothing where there never was a map. */
static void *look(void *opaque)
{
    unsigned i;

    for (i = 0; i < 500; i++) {
        bql_lock();
        next_serial();
        CHECK(conflict(USED, USED + UNIT, i & 1));
        CHECK(!conflict(USED + UNIT, RAM_SIZE, i & 1));
        bql_unlock();
        sched_yield();
    }
    return NULL;
}

static void run_threads(void)
{
    pthread_t looks;
    unsigned i;

    pace = 0;
    CHECK(!pthread_create(&looks, NULL, look, NULL));
    for (i = 0; i < ARRAY_SIZE(workers); i++) {
        CHECK(!pthread_create(&workers[i].thread, NULL, work, &workers[i]));
    }
    for (i = 0; i < ARRAY_SIZE(workers); i++) {
        pthread_join(workers[i].thread, NULL);
    }
    pthread_join(looks, NULL);
}

static void test_threads(bool parts)
{
    g_autoptr(GRand) rand = g_rand_new_with_seed(seed + parts);
    unsigned i, round;
    Map m;

    for (i = 0; i < 50; i++) {
        /* The first two stay */
        m = random_map(rand, false);
        if (i < 2) {
            m = (Map) { USED, UNIT, i, .newest = UINT64_MAX };
        }
        has_bql = i & 1;
        record(&m);
        g_array_append_val(i < 2 ? maps : handed, m);
    }
    for (i = 0; i < ARRAY_SIZE(workers); i++) {
        workers[i] = (Worker) {
            .rand = g_rand_new_with_seed(g_rand_int(rand)),
            .mine = g_array_new(false, false, sizeof(Map)),
            .bql = i % 3, .parts = parts,
        };
    }
    for (round = 0; round < 6; round++) {
        for (i = 0; i < ARRAY_SIZE(workers); i++) {
            /* Few, of which one thread has what another one looks for; many */
            workers[i].most = round % 3 == 2 ? LIVE / 2 : 8;
        }
        run_threads();
        g_array_set_size(maps, 2);
        g_array_append_vals(maps, handed->data, handed->len);
        for (i = 0; i < ARRAY_SIZE(workers); i++) {
            g_array_append_vals(maps, workers[i].mine->data,
                                workers[i].mine->len);
        }
        if (!parts) {
            both_compare(true, 0, RAM_SIZE);
            both_compare(false, 0, RAM_SIZE);
        }
        /* Covered it has to be, whichever records were taken for parts */
        for (i = 0; i < maps->len; i++) {
            m = random_part(rand, *MAP(maps, i));
            CHECK(conflict(m.start, m.start + m.len, m.is_write));
        }
    }
    for (i = 0; i < maps->len; i++) {
        has_bql = g_rand_boolean(rand);
        give_back(rand, *MAP(maps, i), parts);
    }
    both_empty();
    g_array_set_size(handed, 0);
    for (i = 0; i < ARRAY_SIZE(workers); i++) {
        g_rand_free(workers[i].rand);
        g_array_unref(workers[i].mine);
    }
    passed(parts ? "threads that give back parts" : "threads");
}

int main(void)
{
    maps = g_array_new(false, false, sizeof(Map));
    orphans = g_array_new(false, false, sizeof(Map));
    handed = g_array_new(false, false, sizeof(Map));
    printf("1..3\n# seed %u\n", seed);
    test_random();
    test_threads(false);
    test_threads(true);
    g_array_unref(maps);
    g_array_unref(orphans);
    g_array_unref(handed);
    return 0;
}
