/* SPDX-License-Identifier: GPL-2.0-or-later */
/* What the files of the frame, and its assembly, know of each other. */

#ifndef TESTS_GUEST_LIB_INTERNAL_H
#define TESTS_GUEST_LIB_INTERNAL_H

#include "guest.h"

#define COM1        0x3f8

/* guest.ld */
extern uint8_t user_stacks[];

/* boot.S */
extern uint64_t boot_pml4[], boot_pml5[];
extern uint64_t pvh_info;
extern uint8_t stacks[];
extern uint8_t exception_stubs[], user_exit_entry[], wake_entry[];
extern uint8_t ap_start[], ap_end[];
extern uint32_t ap_index;
extern uint8_t smi_start[], smi_end[];
extern uint8_t m32_stubs[], m32_user_exit[], m32_stack[];
extern uint8_t svm_guest_entry[];
extern bool svm_used;

void catch_resume(struct catcher *c) __attribute__((noreturn));
uint64_t user_enter(uint64_t (*fn)(uint64_t), uint64_t arg, uint64_t rsp,
                    uint64_t *keep, uint64_t rflags);
uint64_t svm_enter(uint64_t vmcb, uint64_t (*fn)(uint64_t), uint64_t arg);

/* Called from boot.S */
struct exception_frame {
    uint64_t gpr[16];
    uint64_t vec, err, rip, cs, rflags, rsp, ss;
};
void guest_start(void) __attribute__((noreturn));
void ap_main(unsigned cpu) __attribute__((noreturn));
void smi_main(void);
void exception_main(struct exception_frame *f) __attribute__((noreturn));
void catch_push(struct catcher *c);
uint64_t *user_saved_rsp(void);

/* smp.c */
/**
 * doze: waits until some interrupt comes, or not at all
 *
 * For loops that look for something: it comes with VEC_WAKE, which is sent
 * again whenever there is something new to see. A CPU that dozes leaves the
 * host's to others, where PAUSE keeps taking QEMU's big lock.
 */
void doze(void);
/** apic_on: makes this CPU accept interrupts */
void apic_on(void);
/** serial_wakes: from now on, input on the serial line wakes this CPU */
void serial_wakes(void);

/* guest.c */
void cpu_init(unsigned cpu);
/** serial_line: a whole line, no other CPU's output falls into it */
void serial_line(const char *fmt, ...) PRINTF(1, 2);

#endif
