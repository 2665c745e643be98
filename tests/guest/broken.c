/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Every way in which a test can go wrong: check-runner.py makes sure that
 * none of them passes. Not a test by itself.
 */

#include "internal.h"

GUEST_RUN("fine", "-cpu max -append fine");
GUEST_RUN("failure", "-cpu max -append failure");
GUEST_RUN("wrong-vector", "-cpu max -append wrong-vector");
GUEST_RUN("wrong-error", "-cpu max -append wrong-error");
GUEST_RUN("wrong-address", "-cpu max -append wrong-address");
GUEST_RUN("no-fault", "-cpu max -append no-fault");
GUEST_RUN("some-fault", "-cpu max -append some-fault");
GUEST_RUN("stray", "-cpu max -append stray");
GUEST_RUN("overflow", "-cpu max -append overflow");
GUEST_RUN("hang", "timeout=15 -cpu max -append hang");
GUEST_RUN("triple-fault", "-cpu max -append triple-fault");
GUEST_RUN("no-plan", "-cpu max -append no-plan");
GUEST_RUN("wrong-plan", "-cpu max -append wrong-plan");
GUEST_RUN("lost-point", "-cpu max -append lost-point");
GUEST_RUN("no-points", "-cpu max -append no-points");
GUEST_RUN("quit", "-cpu max -append quit");
GUEST_RUN("no-memory", "-cpu max -append no-memory");
GUEST_RUN("bad-option", "-cpu max,+there-is-no-such-flag -append fine");
GUEST_RUN("skipped", "needs=there-is-no-such-flag -cpu max -append fine");

/* Without a plan; the CPU runs on until QEMU has noticed */
static void leave(void)
{
    outl(0xf4, 0);
    for (;;) {
        pause();
    }
}

void test(void)
{
    const char *how = command_line();
    uint8_t *gone = (void *)window(PAGE_SIZE);

    if (!strcmp(how, "no-points")) {
        return;
    }
    ok(true, "starts");
    if (!strcmp(how, "failure")) {
        ok(false, "fails");
    } else if (!strcmp(how, "wrong-vector")) {
        expect(TRY(asm volatile("ud2")), GP, 0, "not a #GP");
    } else if (!strcmp(how, "wrong-error")) {
        expect_pf(TRY(read8(gone)), PF_W, gone, "not a write");
    } else if (!strcmp(how, "wrong-address")) {
        expect_pf(TRY(read8(gone)), 0, gone + 1, "not this address");
    } else if (!strcmp(how, "no-fault")) {
        expect_pf(TRY(), 0, gone, "nothing happened");
    } else if (!strcmp(how, "some-fault")) {
        expect_none(TRY(read8(gone)), "something happened");
    } else if (!strcmp(how, "stray")) {
        read8(gone);
    } else if (!strcmp(how, "overflow")) {
        asm volatile("1: push %%rax; jmp 1b" : : : "memory");
    } else if (!strcmp(how, "hang")) {
        for (;;) {
            pause();
        }
    } else if (!strcmp(how, "triple-fault")) {
        struct dtr none = { 0, 0 };

        asm volatile("lidt %0; ud2" : : "m" (none));
    } else if (!strcmp(how, "no-plan")) {
        leave();
    } else if (!strcmp(how, "wrong-plan")) {
        serial_line("1..2\n");
        leave();
    } else if (!strcmp(how, "lost-point")) {
        serial_line("ok 3 - where is 2?\n1..3\n");
        leave();
    } else if (!strcmp(how, "quit")) {
        qmp("quit", "{}");
        leave();
    } else if (!strcmp(how, "no-memory")) {
        frames(1 << 20);
    }
}
