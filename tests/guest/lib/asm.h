/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Numbers that the assembly and the C side of the frame share. */

#ifndef TESTS_GUEST_LIB_ASM_H
#define TESTS_GUEST_LIB_ASM_H

#define MAX_CPUS        16

#define SEL_CODE64      0x08
#define SEL_DATA        0x10
#define SEL_CODE32      0x18
#define SEL_USER_CODE32 0x2b
#define SEL_USER_DATA   0x33
#define SEL_USER_CODE64 0x3b
#define SEL_TSS32       0x40
#define SEL_LDT         0x48    /* 16 bytes, free for tests */
#define SEL_FREE        0x58    /* five descriptors, free for tests */
#define SEL_TSS         0x80    /* 16 bytes for each CPU */

#define STACK_SIZE      65536   /* its lowest page is a guard */
#define EXC_STACK_SIZE  16384
#define AP_START        0x8000

#define VEC_USER_EXIT   0x80
#define VEC_WAKE        0xf0    /* ends a HLT, and does nothing else */
#define APIC            0xfee00000
#define APIC_EOI        0xb0

/* struct catcher */
#define CATCH_RBX       0
#define CATCH_RBP       8
#define CATCH_R12       16
#define CATCH_R13       24
#define CATCH_R14       32
#define CATCH_R15       40
#define CATCH_RSP       48
#define CATCH_RIP       56

/* struct mode32 */
#define M32_CR0         0
#define M32_CR3         4
#define M32_CR4         8
#define M32_EFER        12
#define M32_BACK_CR0    16
#define M32_BACK_CR3    20
#define M32_BACK_CR4    24
#define M32_BACK_EFER   28
#define M32_KIND        32
#define M32_CPL         36
#define M32_EFLAGS      40
#define M32_ADDR        44
#define M32_VEC         48
#define M32_ERR         52
#define M32_CR2         56
#define M32_EIP         60
#define M32_RESULT      64

#define M32_NOTHING     0
#define M32_READ        1
#define M32_WRITE       2
#define M32_FETCH       3

#endif
