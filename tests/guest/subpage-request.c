/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The guest protects its own memory: MSR SUBPAGE_REQUEST.
 *
 * docs/specs/subpage.rst is what this holds QEMU to.
 */

#include "guest.h"
#include "subpage.h"

#define CPU "-device bochs-display,addr=6 " \
            "-cpu max,+guest-subpage,guest-subpage-quota=64"

GUEST_RUN("one-cpu", "-m 128M " CPU);
GUEST_RUN("four-threads", "accel=tcg,thread=multi -m 128M -smp 4 " CPU);
GUEST_RUN("round-robin", "accel=tcg,thread=single -m 128M -smp 4 " CPU);
GUEST_RUN("off", "-m 128M -cpu max -append off");
GUEST_RUN("reset", "reboots -m 128M " CPU " -append reset");

#define LEAF            0x40000030
#define LEAF_SUBPAGE    8
#define REQUEST         0x4b564d86

enum { READ = 1, NO = 2 };
enum { REPORT = 1, DISCARD = 2, FAULT = 3 };
enum {
    DONE, SKIPPED, BAD_RANGE, NOT_RAM, BAD_ACCESS, BAD_ACTION, RESERVED,
    OVERLAP, QUOTA, UNAVAILABLE,
};
#define UNTOUCHED 0xdeadu

struct array {
    uint32_t version, count;
    struct {
        uint64_t gpa;
        uint32_t length;
        uint16_t access, action;
        uint32_t status, reserved;
    } entry[4096];
};

static struct array *array_new(void)
{
    struct array *a = frames(25);

    a->version = 1;
    return a;
}

/* One more entry */
static void ask(struct array *a, void *p, uint32_t length, int access,
                int action)
{
    a->entry[a->count].gpa = (uint64_t)p;
    a->entry[a->count].length = length;
    a->entry[a->count].access = access;
    a->entry[a->count].action = action;
    a->entry[a->count].status = UNTOUCHED;
    a->entry[a->count].reserved = 0;
    a->count++;
}

static Fault request(void *p)
{
    return TRY(wrmsr(REQUEST, (uint64_t)p));
}

/* A request of one entry; returns its status */
static uint32_t request_one(void *p, uint32_t length, int access, int action)
{
    static struct array *a;

    if (!a) {
        a = array_new();
    }
    a->count = 0;
    ask(a, p, length, access, action);
    if (request(a).vec != NONE) {
        return ~0u;
    }
    return a->entry[0].status;
}

static void discovery(void)
{
    ok(cpuid(0x40000000, 0).eax >= LEAF, "the leaf is there");
    ok(cpuid(LEAF, 0).eax & LEAF_SUBPAGE, "EAX bit 3 is set");
    ok(cpuid(LEAF, 0).ebx == 0x4b564d80, "EBX has the first MSR: 0x%x",
       cpuid(LEAF, 0).ebx);
    expect(TRY(rdmsr(REQUEST)), GP, 0, "the MSR can't be read");
}

static void holds(void)
{
    uint8_t *f = frame();
    const char *r;
    Fault fault;

    expect_none(TRY(write8(f + 128, 1)), "before: a store");
    ok(request_one(f + 128, 128, READ, FAULT) == DONE, "a request is done");
    fault = TRY(write8(f + 128, 2));
    expect(fault, GP, 0, "a store to it");
    ok(f[128] == 1, "the byte is as before");
    expect_none(TRY(write8(f + 127, 1); write8(f + 256, 1)),
                "stores to its neighbours");
    expect_none(TRY(read8(f + 128)), "a load from it");

    ok(request_one(f + 128, 128, NO, FAULT) == DONE, "read becomes none");
    expect(TRY(read8(f + 128)), GP, 0, "a load from it");
    ok(request_one(f + 128, 128, READ, FAULT) == DONE,
       "a request for read is done,");
    expect(TRY(read8(f + 128)), GP, 0, "and gives nothing back");

    ok(request_one(f + 512, 128, READ, DISCARD) == DONE, "with discard");
    expect_none(TRY(write8(f + 512, 9)), "a store to it");
    ok(f[512] == 0, "was dropped");
    ok(request_one(f + 512, 128, READ, FAULT) == DONE,
       "the same with fault is done,");
    expect_none(TRY(write8(f + 512, 9)), "but the action stays");
    ok(f[512] == 0, "and the store is dropped");

    ok(request_one(f + 640, 128, READ, REPORT) == DONE, "with report");
    expect_none(TRY(write8(f + 640, 9)), "a store to it");
    ok(f[640] == 9, "takes place");

    request_one(f + 640, 128, READ, REPORT);
    r = qmp("query-subpage-access", "{\"addr\": %lu, \"size\": 128}",
            (uint64_t)f + 640);
    ok(json_is(r, "return.0.writes", "1"),
       "asking again does not wipe the count: %s", r);
}

/* How many of the parts of all CPUs' TLBs were flushed, or were empty then */
static uint64_t flushes(void)
{
    const char *p = qmp("x-query-jit", "{}");
    uint64_t n = 0, sum = 0;

    for (; *p; p++) {
        if (strncmp(p, "TLB ", 4)) {
            continue;
        }
        while (*p && (*p < '0' || *p > '9')) {
            p++;
        }
        for (n = 0; *p >= '0' && *p <= '9'; p++) {
            n = n * 10 + *p - '0';
        }
        sum += n;
    }
    return sum;
}

/* A request that changes nothing costs other CPUs nothing. */
static void again(void)
{
    enum { TIMES = 500 };
    struct array *a = array_new();
    uint8_t *big = frames(512);
    uint8_t *f = frames(3);
    uint64_t before;
    int bad = 0;

    /* Within a page, across pages, and parts of a large record */
    ask(a, f + 128, 256, READ, FAULT);
    ask(a, f + 3968, 4224, NO, FAULT);
    ask(a, big, 2 << 20, READ, FAULT);
    expect_none(request(a), "a request");
    ok(a->entry[0].status == DONE, "is done: status %u", a->entry[0].status);
    a->entry[2].gpa += 4096;
    a->entry[2].length = 512;
    a->entry[1].access = READ;
    before = flushes();
    for (unsigned i = 0; i < TIMES; i++) {
        a->entry[0].status = UNTOUCHED;
        bad += request(a).vec != NONE || a->entry[0].status != DONE;
    }
    ok(bad == 0, "it is done again, %d times: %d errors", TIMES, bad);
    before = flushes() - before;
    ok(before < TIMES / 5, "without a flush: %lu", before);

    a->count = 0;
    ask(a, f + 128, 384, READ, FAULT);
    request(a);
    expect(TRY(write8(f + 384, 1)), GP, 0, "what is added at the end holds");
    a->count = 0;
    ask(a, f + 3968, 4352, NO, FAULT);
    request(a);
    expect(TRY(read8(f + 8192)), GP, 0, "and in the next page");
    a->count = 0;
    ask(a, f + 128, 128, READ, FAULT);
    ask(a, big, 2 << 20, NO, FAULT);
    request(a);
    expect(TRY(read8(big + 4096)), GP, 0, "and 'none' in a large record");
    qmp("subpage-set-access", "{\"regions\": [{\"addr\": %lu, "
        "\"size\": 2097152, \"access\": \"read-write\"}]}", (uint64_t)big);
}

/* At once: the instruction behind WRMSR is in its grip already. */
static void at_once(void)
{
    struct array *a = array_new();
    uint8_t *f = frame();
    Fault fault;

    write8(f, 1);
    ask(a, f, 128, READ, FAULT);
    fault = TRY(asm volatile("wrmsr; movb $2, (%0)"
                             : : "r" (f), "c" (REQUEST),
                             "a" ((uint32_t)(uint64_t)a), "d" (0)
                             : "memory"));
    expect(fault, GP, 0, "a store right behind WRMSR");
    ok(f[0] == 1 && a->entry[0].status == DONE, "did not take place");
}

static void malformed(void)
{
    struct array *a = array_new();
    uint8_t *f = frame();
    uint8_t *top = (uint8_t *)(127ull << 20);

    /* Nothing is wrong with it but where it is */
    write64((uint8_t *)a + 32, 1);
    expect(request((uint8_t *)a + 32), GP, 0, "an array not aligned to 64");
    ask(a, f, 128, READ, FAULT);
    expect(request((void *)(1ull << 63)), GP, 0, "an address with bit 63");
    expect(request((void *)0xfee00000), GP, 0, "an array in the APIC");
    expect(request((void *)0xfffc0000), GP, 0, "an array in ROM");
    expect(request((void *)0x10000000), GP, 0, "an array beyond RAM");
    write32(top + 0xfffc0, 1);
    write32(top + 0xfffc4, 3);
    expect(request(top + 0xfffc0), GP, 0,
           "an array that reaches beyond the end of RAM");
    a->version = 0;
    expect(request(a), GP, 0, "version 0");
    a->version = 2;
    expect(request(a), GP, 0, "version 2");
    a->version = 1;
    a->count = 4097;
    expect(request(a), GP, 0, "4097 entries");
    a->count = ~0u;
    expect(request(a), GP, 0, "2^32 - 1 entries");
    ok(a->entry[0].status == UNTOUCHED, "none of them writes a status");
    expect_none(TRY(write8(f, 1)), "and none protects anything");
    a->count = 0;
    expect_none(request(a), "no entries");

    a->count = 1;
    ok(request_one((uint8_t *)a + 4096, 128, READ, FAULT) == DONE,
       "a later page of the array is protected");
    expect_none(request(a), "a short array does not reach there");
    a->count = 4096;
    expect(request(a), GP, 0, "one that does");
}

/* RAM of a device is not the machine's. */
static void device_memory(void)
{
    struct array *a = (void *)(uint64_t)(pci_read32(6, 0, 0x10) & ~0xfu);

    if (!a) {
        bail("the display has no memory");
    }
    a->version = 1;
    a->count = 0;
    ok(read32(a) == 1, "a display's memory is there");
    expect(request(a), GP, 0, "an array in it");
    ok(request_one(a, 128, READ, FAULT) == NOT_RAM, "it can't be protected");
}

/* In each: a good entry, then a bad one */
static void bad_entries(void)
{
    struct array *a = array_new();
    uint8_t *f = frames(2);
    static const struct {
        uint64_t gpa;
        uint32_t length;
        int access, action;
        uint32_t reserved, status;
        const char *what;
    } bad[] = {
        { 64, 128, READ, FAULT, 0, BAD_RANGE, "an address not aligned" },
        { 128, 64, READ, FAULT, 0, BAD_RANGE, "half a sub-page" },
        { 128, 0, READ, FAULT, 0, BAD_RANGE, "length 0" },
        { -256ull, 512, READ, FAULT, 0, BAD_RANGE, "a range that wraps" },
        { 0xfee00000, 128, READ, FAULT, 0, NOT_RAM, "the APIC" },
        { 0xfffc0000, 128, READ, FAULT, 0, NOT_RAM, "ROM" },
        { 1ull << 46, 128, READ, FAULT, 0, NOT_RAM, "nothing" },
        { (128ull << 20) - 128, 256, READ, FAULT, 0, NOT_RAM,
          "the end of RAM" },
        { 128, 128, 0, FAULT, 0, BAD_ACCESS, "access 0" },
        { 128, 128, 3, FAULT, 0, BAD_ACCESS, "access 3" },
        { 128, 128, READ, 0, 0, BAD_ACTION, "action 0" },
        { 128, 128, READ, 4, 0, BAD_ACTION, "action 4, pause in no table" },
        { 128, 128, READ, 0xffff, 0, BAD_ACTION, "action 65535" },
        { 128, 128, READ, FAULT, 1, RESERVED, "the reserved field" },
    };

    for (unsigned i = 0; i < ARRAY_SIZE(bad); i++) {
        a->count = 0;
        ask(a, f, 128, READ, FAULT);
        ask(a, (void *)bad[i].gpa, bad[i].length, bad[i].access,
            bad[i].action);
        a->entry[1].reserved = bad[i].reserved;
        if (bad[i].gpa == 128) {
            a->entry[1].gpa += (uint64_t)f;
        }
        expect_none(request(a), "%s", bad[i].what);
        ok(a->entry[1].status == bad[i].status, "%s: status %u",
           bad[i].what, a->entry[1].status);
        ok(a->entry[0].status == SKIPPED, "the good entry: status %u",
           a->entry[0].status);
        expect_none(TRY(write8(f, 1)), "nothing was protected");
    }

    a->count = 0;
    ask(a, f, 4096, READ, FAULT);
    ask(a, f + 8192, 128, READ, FAULT);
    ask(a, f + 3968, 256, READ, FAULT);
    expect_none(request(a), "two that overlap");
    ok(a->entry[2].status == OVERLAP && a->entry[0].status == SKIPPED &&
       a->entry[1].status == SKIPPED, "the later one: status %u %u %u",
       a->entry[0].status, a->entry[1].status, a->entry[2].status);

    a->count = 0;
    ask(a, f, 128, READ, FAULT);
    ask(a, a, 128, READ, FAULT);
    expect_none(request(a), "the array itself");
    ok(a->entry[1].status == OVERLAP, "status %u", a->entry[1].status);
    expect_none(TRY(write8(f, 1)), "nothing was protected");
}

/* What the host protected stays the host's. */
static void host_first(void)
{
    uint8_t *f = frame();
    Seen seen;

    arm((uint64_t)f, 128, "read", "discard", 0);
    ok(request_one(f, 256, NO, FAULT) == DONE, "over a region of the host's");
    f[0] = 1;
    seen = disarm();
    ok(seen_first(seen, 1, (uint64_t)f, 1, true, 0, 0, 0, "discard",
                  "its action"), "the host's action stays");
    expect_none(TRY(write8(f, 1)), "the host lifts its part,");
    expect(TRY(write8(f + 128, 1)), GP, 0, "and not the guest's");
    qmp("subpage-set-access", "{\"regions\": [{\"addr\": %lu, \"size\": 256, "
        "\"access\": \"read-write\"}]}", (uint64_t)f);
    expect_none(TRY(write8(f + 128, 1)), "the host can lift that too");
}

static void owner(void)
{
    uint8_t *f = frame();
    const char *r;

    qmp("subpage-set-access", "{\"regions\": [{\"addr\": %lu, \"size\": 128, "
        "\"access\": \"read\"}]}", (uint64_t)f);
    request_one(f, 256, READ, FAULT);
    r = qmp("query-subpage-access", "{\"addr\": %lu, \"size\": 4096}",
            (uint64_t)f);
    ok(json_length(r, "return") == 2 &&
       json_is(r, "return.0.owner", "host") &&
       json_is(r, "return.1.owner", "guest"), "who asked is told: %s", r);
}

/* An array in the shadow of the BIOS, which the chipset makes read-only */
static void read_only_array(void)
{
    uint32_t id = pci_read32(0, 0, 0);
    int reg = id == 0x29c08086 ? 0x94 : 0x5d;
    uint8_t old = pci_read32(0, 0, reg) >> (reg & 3) * 8;
    struct array *a = (struct array *)0xdd000;
    uint8_t *f = frame();

    pci_write8(0, 0, reg, 0x30 | (old & 0xf));
    a->version = 1;
    a->count = 0;
    ask(a, f, 128, READ, FAULT);
    expect_none(request(a), "an array at 0xdd000, which is RAM");
    ok(a->entry[0].status == DONE, "it is done: status %u",
       a->entry[0].status);

    a->entry[0].gpa += 128;
    a->entry[0].status = UNTOUCHED;
    pci_write8(0, 0, reg, 0x10 | (old & 0xf));
    write8((uint8_t *)&a->entry[0].reserved, 1);
    ok(a->entry[0].reserved == 0, "now it can't be written");
    expect(request(a), GP, 0, "a request there");
    ok(a->entry[0].status == UNTOUCHED, "and it was not written");
    expect_none(TRY(write8(f + 128, 1)), "nothing was protected");
    pci_write8(0, 0, reg, old);
}

static void quota(void)
{
    struct array *a = array_new();
    uint8_t *f = frames(512);

    for (unsigned i = 0; i < 65; i++) {
        ask(a, f + i * PAGE_SIZE, 128, READ, FAULT);
    }
    expect_none(request(a), "65 pages, the quota is 64");
    ok(a->entry[0].status == QUOTA && a->entry[64].status == QUOTA,
       "status %u", a->entry[0].status);
    expect_none(TRY(write8(f, 1)), "nothing was protected");

    a->count = 0;
    ask(a, f, 2 << 20, READ, FAULT);
    expect_none(request(a), "an aligned range of 2 MiB");
    ok(a->entry[0].status == DONE, "is one record: status %u",
       a->entry[0].status);
    expect(TRY(write8(f + (1 << 20), 1)), GP, 0, "and protected");
    qmp("subpage-set-access", "{\"regions\": [{\"addr\": %lu, "
        "\"size\": 2097152, \"access\": \"read-write\"}]}", (uint64_t)f);
    expect_none(TRY(write8(f + (1 << 20), 1)), "the host lifts it");
}

static USER uint64_t user_request(uint64_t p)
{
    asm volatile("wrmsr" : : "c" (REQUEST), "a" ((uint32_t)p), "d" (0)
                 : "memory");
    return 0;
}

static uint64_t l2_request(uint64_t p)
{
    return TRY(wrmsr(REQUEST, p)).vec;
}

static void elsewhere(void)
{
    struct array *a = array_new();
    uint8_t *f = frame();
    struct l2 l2;

    ask(a, f, 128, READ, FAULT);
    expect(TRY(user(user_request, (uint64_t)a)), GP, 0, "at CPL 3");
    if (svm_present()) {
        svm_init(&l2, true);
        ok(svm_run(&l2, l2_request, (uint64_t)a) == SVM_EXIT_VMMCALL &&
           l2.result == GP, "in an SVM guest: exit 0x%lx, exception %ld",
           l2.exit_code, (int64_t)l2.result);
    }
    ok(a->entry[0].status == UNTOUCHED, "the array was not looked at");
    expect_none(TRY(write8(f, 1)), "nothing was protected");
}

/* All CPUs ask at once, again and again, each for memory of its own. */
static uint8_t *shared;
static uint64_t errors;

static void asking(void *unused)
{
    uint8_t *mine = shared + this_cpu() * PAGE_SIZE;
    struct array *a = (struct array *)(shared + (16 + this_cpu()) * PAGE_SIZE);

    (void)unused;
    a->version = 1;
    for (unsigned i = 0; i < 31; i++) {
        a->count = 0;
        ask(a, mine + i * SUBPAGE, SUBPAGE, READ, FAULT);
        if (request(a).vec != NONE || a->entry[0].status != DONE ||
            TRY(write8(mine + i * SUBPAGE, 1)).vec != GP ||
            TRY(write8(mine + 31 * SUBPAGE, 1)).vec != NONE) {
            __atomic_add_fetch(&errors, 1, __ATOMIC_RELAXED);
        }
    }
}

/* Another CPU's stores stop when the request is done. */
static uint64_t round, stored;

static void store_on(void)
{
    while (__atomic_load_n(&round, __ATOMIC_ACQUIRE)) {
        write64(shared + 24 * PAGE_SIZE,
                __atomic_add_fetch(&stored, 1, __ATOMIC_RELAXED));
    }
}

static void storing(void *unused)
{
    (void)unused;
    while (__atomic_load_n(&round, __ATOMIC_ACQUIRE)) {
        (void)TRY(store_on());
    }
}

static void together(void)
{
    uint64_t before;
    int changed = 0;

    shared = frames(32);
    errors = 0;
    on_all(asking, NULL);
    ok(errors == 0, "%u CPUs ask at once: %lu errors", cpus(), errors);

    if (cpus() < 2) {
        return;
    }
    __atomic_store_n(&round, 1, __ATOMIC_RELEASE);
    on_cpu(1, storing, NULL);
    for (unsigned i = 0; i < 20; i++) {
        while (__atomic_load_n(&stored, __ATOMIC_RELAXED) == 0) {
            pause();
        }
        request_one(shared + 24 * PAGE_SIZE, SUBPAGE, READ, FAULT);
        before = read64(shared + 24 * PAGE_SIZE);
        for (unsigned j = 0; j < 100000; j++) {
            changed += read64(shared + 24 * PAGE_SIZE) != before;
        }
        qmp("subpage-set-access", "{\"regions\": [{\"addr\": %lu, "
            "\"size\": 128, \"access\": \"read-write\"}]}",
            (unsigned long)(shared + 24 * PAGE_SIZE));
        __atomic_store_n(&stored, 0, __ATOMIC_RELAXED);
    }
    __atomic_store_n(&round, 0, __ATOMIC_RELEASE);
    wait_cpu(1);
    ok(changed == 0, "from the request on another CPU's stores fail: %d",
       changed);
}

/* An array that changes while it is read: whatever comes, nothing breaks. */
static struct array *moving;

static void changing(void *unused)
{
    uint32_t v = 1;

    (void)unused;
    while (__atomic_load_n(&round, __ATOMIC_ACQUIRE)) {
        v = v * 1664525 + 1013904223;
        moving->version = v >> 30 ? 1 : v;
        moving->count = v >> 29 ? v % 5000 : v;
        moving->entry[v % 64].gpa = (uint64_t)shared + (v >> 8) % 1024 * 128;
        moving->entry[v % 64].length = (v >> 20) % 3 * 128;
        moving->entry[v % 64].access = 1 + v % 2;
    }
}

static void hostile(void)
{
    int answers[2] = { 0, 0 };

    if (cpus() < 2) {
        return;
    }
    moving = array_new();
    moving->count = 64;
    for (unsigned i = 0; i < 64; i++) {
        moving->entry[i].action = FAULT;
    }
    __atomic_store_n(&round, 1, __ATOMIC_RELEASE);
    on_cpu(1, changing, NULL);
    for (unsigned i = 0; i < 2000; i++) {
        answers[request(moving).vec != NONE]++;
    }
    __atomic_store_n(&round, 0, __ATOMIC_RELEASE);
    wait_cpu(1);
    ok(answers[0] + answers[1] == 2000,
       "an array that changes meanwhile: %d answered, %d #GP", answers[0],
       answers[1]);
}

/* The array's content at random */
static void fuzz(void)
{
    struct array *a = array_new();
    uint8_t *low = frames(16);
    uint64_t v = 88172645463325252ull;
    int gp = 0, answered = 0;

    for (unsigned i = 0; i < 2000; i++) {
        uint32_t *words = (uint32_t *)a;

        for (unsigned j = 0; j < 2 + 6 * 40; j++) {
            v ^= v << 13;
            v ^= v >> 7;
            v ^= v << 17;
            words[j] = v >> (v & 31);
        }
        a->version = v & 7 ? 1 : v;
        a->count = v & 8 ? (v >> 8) % 40 : v >> 32;
        for (unsigned j = 0; j < 40; j++) {
            v = v * 6364136223846793005ull + 1442695040888963407ull;
            if (v >> 63) {
                a->entry[j].gpa = (uint64_t)low + (v >> 40) % 512 * 128;
                a->entry[j].length = (v >> 33) % 4 * 128;
                a->entry[j].access = (v >> 20) % 3;
                a->entry[j].action = (v >> 22) % 4;
                a->entry[j].reserved = 0;
            }
        }
        if (request(a).vec == NONE) {
            answered++;
        } else {
            gp++;
        }
    }
    ok(answered > 0 && gp > 0, "random arrays: %d answered, %d #GP", answered,
       gp);
}

static void after_reset(void)
{
    uint8_t *f = (uint8_t *)0x06000000;

    if (boot_number() == 1) {
        write8(f, 1);
        ok(request_one(f, 128, READ, FAULT) == DONE, "a request");
        expect(TRY(write8(f, 2)), GP, 0, "a store");
        outb(0xcf9, 6);
        for (;;) {
            pause();
        }
    }
    expect_none(TRY(write8(f, 2)), "a store after the reset");
    ok(f[0] == 2, "takes place");
    ok(request_one(f, 128, READ, FAULT) == DONE, "the quota is whole again");
}

void test(void)
{
    if (!strcmp(command_line(), "off")) {
        struct array *a = array_new();
        uint8_t *f = frame();

        ok(cpuid(0x40000000, 0).eax < LEAF, "the leaf is not there");
        ask(a, f, 128, READ, FAULT);
        expect_none(request(a), "the MSR is as any that QEMU does not know");
        ok(a->entry[0].status == UNTOUCHED, "the array was not looked at");
        expect_none(TRY(write8(f, 1)), "and nothing is protected");
        return;
    }
    if (!strcmp(command_line(), "reset")) {
        after_reset();
        return;
    }
    discovery();
    holds();
    at_once();
    malformed();
    device_memory();
    read_only_array();
    bad_entries();
    host_first();
    owner();
    quota();
    again();
    elsewhere();
    together();
    hostile();
    fuzz();
}
