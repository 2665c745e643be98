/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Four CPUs store to a page in every way while the host arms and disarms it:
 * from the moment that subpage-set-access has returned, not a byte changes
 * until the page is disarmed.
 *
 * The host looks at the memory by itself (pmemsave, which sees through), so
 * that nothing but the command's reply orders the two. subpage-race.py is
 * its side, and says how many rounds there are.
 */

#include "guest.h"

GUEST_RUN("four-threads",
          "accel=tcg,thread=multi timeout=240 -cpu max -smp 5 -append 200");
GUEST_RUN("round-robin",
          "accel=tcg,thread=single timeout=240 -cpu max -smp 5 -append 40");

#define SUBPAGE 128

static uint8_t *target[2], *va;
static bool stop;
/* By CPU, in cache lines of their own: stores begun, and faults */
static struct {
    uint64_t tried;
    uint64_t pad[7];
} *counters;

/*
 * All stores go to sub-pages that are protected in turn; the last of them
 * lies across the pages, and each CPU writes bytes of its own.
 */
static void store(uint8_t *p, unsigned kind, uint64_t v)
{
    uint64_t *end = (uint64_t *)(va + PAGE_SIZE - 4);
    uint8_t *d = p;
    uint64_t n = 9;

    switch (kind) {
    case 0:
        write64(p, v);
        break;
    case 1:
        write8(p + 8, v);
        break;
    case 2:
        asm volatile("lock xadd %0, 16(%1)" : "+r" (v) : "r" (p) : "memory");
        break;
    case 3:
        asm volatile("lock incl 24(%0)" : : "r" (p) : "memory");
        break;
    case 4:
        d = p + 32;
        asm volatile("rep stosb" : "+D" (d), "+c" (n) : "a" (v) : "memory");
        break;
    case 5:
        asm volatile("fildll %1; fstpt 48(%0)" : : "r" (p), "m" (v)
                     : "memory");
        break;
    case 6:
        asm volatile("movq %1, %%xmm0; punpcklqdq %%xmm0, %%xmm0;"
                     "movups %%xmm0, 60(%0)" : : "r" (p), "r" (v) : "memory");
        break;
    case 7:
        asm volatile("mov %1, (%0)" : : "r" (end), "r" (v) : "memory");
        break;
    case 8:
        asm volatile("addq %1, 80(%0)" : : "r" (p), "r" (v) : "memory");
        break;
    case 9:
        asm volatile("vmovq %1, %%xmm1; vinsertf128 $1, %%xmm1, %%ymm1, "
                     "%%ymm1; vmovdqu %%ymm1, 90(%0)"
                     : : "r" (p), "r" (v) : "memory");
        break;
    case 10:
        asm volatile("fxsave64 (%0)" : : "r" (va + 2048) : "memory");
        break;
    case 11:
        asm volatile("xchg %0, 16(%1)" : "+r" (v) : "r" (p) : "memory");
        break;
    }
}

static void hammer(void *unused)
{
    unsigned me = this_cpu();
    uint8_t *p = va + (8 + me) * SUBPAGE;
    uint64_t v = me + 1;

    (void)unused;
    cpu_enable_simd();
    for (unsigned kind = 0; !__atomic_load_n(&stop, __ATOMIC_ACQUIRE);
         kind = (kind + 1) % 12) {
        v = v * 6364136223846793005ull + 1442695040888963407ull;
        __atomic_store_n(&counters[me].tried, counters[me].tried + 1,
                         __ATOMIC_RELEASE);
        store(p, kind, v);
    }
}

/* The first CPU only waits for the host */
static void rounds(void)
{
    const char *r;
    int n;

    r = host("call", "{\"name\": \"race\", \"first\": %lu, \"second\": %lu, "
             "\"counters\": %lu, \"cpus\": %u, \"rounds\": %s}",
             (uint64_t)target[0], (uint64_t)target[1], (uint64_t)counters,
             cpus() - 1, command_line());
    n = json_number(r, "rounds", 0);
    ok(n > 0, "%d rounds", n);
    ok(json_number(r, "changed", -1) == 0,
       "%ld rounds in which a byte changed while armed: %s",
       json_number(r, "changed", -1), r);
    ok(json_number(r, "unchanged", -1) == 0,
       "%ld rounds in which nothing changed while not armed",
       json_number(r, "unchanged", -1));
    for (unsigned i = 1; i < cpus(); i++) {
        char path[20];

        format(path, sizeof(path), "tried.%u", i - 1);
        ok(json_number(r, path, 0) > 0, "CPU %u tried %ld stores while armed",
           i, json_number(r, path, 0));
    }
}

void test(void)
{
    uint8_t *f = frames(4);

    target[0] = f;
    target[1] = f + 2 * PAGE_SIZE;
    va = map2(target[0], PTE_RW, target[1], PTE_RW);
    counters = frame();
    for (unsigned i = 1; i < cpus(); i++) {
        on_cpu(i, hammer, NULL);
    }
    rounds();
    __atomic_store_n(&stop, true, __ATOMIC_RELEASE);
    for (unsigned i = 1; i < cpus(); i++) {
        wait_cpu(i);
    }
}
