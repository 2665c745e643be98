/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Take orders from bench.py: "INDEX COUNT" runs a slice of a loop. */

#include "bench.h"

#define COM1            0x3f8
#define PVPANIC         0x505
#define PVPANIC_STOP    1

void serial_line(const char *fmt, ...) PRINTF(1, 2);

/* One decimal number and the character that ends it */
static uint64_t number(void)
{
    uint64_t n = 0;
    char c;

    for (;;) {
        while (!(inb(COM1 + 5) & 1)) {
            pause();
        }
        c = inb(COM1);
        if (c < '0' || c > '9') {
            return n;
        }
        n = n * 10 + c - '0';
    }
}

void test(void)
{
    bool prepared[32] = { false };
    unsigned known = 0;

    for (; loops[known].name; known++) {
        serial_line("loop %u %s\n", known, loops[known].name);
    }
    for (;;) {
        uint64_t i, count;

        outb(PVPANIC, PVPANIC_STOP);
        i = number();
        count = number();
        if (i >= known || i >= ARRAY_SIZE(prepared)) {
            bail("there is no loop %lu", i);
        }
        if (!prepared[i]) {
            prepared[i] = true;
            if (loops[i].prepare) {
                loops[i].prepare();
            }
        }
        loops[i].run(count);
    }
}
