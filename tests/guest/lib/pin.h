/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * What the tests of register pinning share: pin, see what came of it, and
 * rows of ways to change a register.
 */

#ifndef TESTS_GUEST_LIB_PIN_H
#define TESTS_GUEST_LIB_PIN_H

#include "guest.h"

#define CR0_MP          (1ull << 1)
#define CR0_EM          (1ull << 2)
#define CR0_TS          (1ull << 3)
#define CR0_NE          (1ull << 5)
#define CR4_TSD         (1ull << 2)
#define CR4_PGE         (1ull << 7)
#define CR4_UMIP        (1ull << 11)
#define CR4_FSGSBASE    (1ull << 16)
#define EFER_SCE        1ull

#define MSR_SYSENTER_CS     0x174u
#define MSR_SYSENTER_ESP    0x175u
#define MSR_SYSENTER_EIP    0x176u
#define MSR_MISC_ENABLE     0x1a0u
#define MSR_PAT             0x277u
#define MSR_MTRR_DEF        0x2ffu
#define MSR_STAR            0xc0000081u
#define MSR_LSTAR           0xc0000082u
#define MSR_CSTAR           0xc0000083u
#define MSR_FMASK           0xc0000084u
#define MSR_FS_BASE         0xc0000100u
#define MSR_GS_BASE         0xc0000101u
#define MSR_KERNEL_GS_BASE  0xc0000102u
#define MSR_TSC_AUX         0xc0000103u
#define MSR_HSAVE           0xc0010117u

/** PinSeen: what QEMU told since pin() or the last pin_seen() */
typedef struct PinSeen {
    int events;             /* REGISTER_PIN_VIOLATION */
    int counted;            /* violations by the counters of query-guard */
    int stops;              /* times that the VM was paused, and went on */
    /* The first event */
    uint64_t index, old, attempted, rip;
    bool has_rip;
    int cpu;
    char reg[8], action[12];
} PinSeen;

/**
 * pin: register-pin of one register on all CPUs; ends the test if refused
 * @action: "fault", "report", "discard", "pause"
 * @conts: how often the VM is to go on by itself when it is paused
 * @fmt: JSON of one element of "registers"
 */
void pin(const char *action, int conts, const char *fmt, ...) PRINTF(3, 4);
/** pin_more: one more, with more arguments as JSON, to be unpinned as well */
const char *pin_more(const char *more, const char *fmt, ...) PRINTF(2, 3);
/** unpin: lifts all that pin() and pin_more() set; tells what happened */
PinSeen unpin(void);
/** pin_seen: what happened; counts start anew */
PinSeen pin_seen(void);

/** pin_none: nothing was told; a difference is noted */
bool pin_none(PinSeen s, const char *what);
/** pin_first: so many events and counted violations, and the first is this */
bool pin_first(PinSeen s, int count, const char *reg, uint32_t index,
               int cpu, uint64_t old, uint64_t attempted, uint64_t rip,
               const char *action, const char *what);

/**
 * PinRow: one way to change a register
 * @name: what it is; @path: where QEMU does it
 * @reg, @index: the register as register-pin has it
 * @kind: how it is pinned
 * @bits: for PIN_ONES and PIN_ZEROS
 * @good, @evil: for the others; with PIN_TABLE base | limit << 48
 * @get, @put: the register, as it is; an ordinary way to set it
 * @go: the attack: tries to make the register hold its argument
 * @flags: PIN_STATE: by no instruction that fault and pause could stop; they
 *         discard
 */
typedef struct PinRow {
    const char *name, *path, *reg;
    uint32_t index;
    int kind;
    uint64_t bits, good, evil;
    uint64_t (*get)(void);
    void (*put)(uint64_t);
    void (*go)(uint64_t);
    unsigned flags;
} PinRow;

enum { PIN_ONES, PIN_ZEROS, PIN_VALUE, PIN_TABLE };
#define PIN_STATE       1

/** pin_rows: each row without a pin, with one and each action, and undone */
void pin_rows(const PinRow *rows, unsigned n);

/**
 * pin_rows_reset: each row pinned, over a reset, and pinned still
 *
 * Resets the machine as often as the register with most rows has rows; the
 * run has to have "reboots".  Returns in the last boot.
 */
void pin_rows_reset(const PinRow *rows, unsigned n);

/**
 * pin_rows_through: each row pinned, then something else, and pinned still
 * @what: of the driver: after it the guest goes on with the same pins
 */
void pin_rows_through(const PinRow *rows, unsigned n, const char *what);

/**
 * PIN_ATTACK: runs one instruction, with its address in pin_insn
 *
 * General registers have known values that pin_rows() looks for after #GP.
 */
extern uint64_t pin_insn;
#define PIN_ATTACK(insn, ...)                                           \
    asm volatile("lea 1f(%%rip), %%r11; mov %%r11, pin_insn;"           \
                 "mov $0x1111, %%r8d; mov $0x2222, %%r9d;"              \
                 "mov $0x3333, %%r10d; 1: " insn                        \
                 : : __VA_ARGS__                                        \
                 : "r8", "r9", "r10", "r11", "memory", "cc")

/** PIN_BY_REG: an attack whose operand is a general register */
#define PIN_BY_REG(name, insn)                                          \
static void name(uint64_t v)                                            \
{                                                                       \
    PIN_ATTACK(insn, "a" (v));                                          \
}

/** pin_registers_kept: the Fault has what PIN_ATTACK() put there */
bool pin_registers_kept(const Fault *f);

/* The descriptor tables, as PinRow has them; put copies what is there */
uint64_t pin_get_idt(void);
uint64_t pin_get_gdt(void);
void pin_put_idt(uint64_t v);
void pin_put_gdt(uint64_t v);

static inline struct dtr pin_unpack(uint64_t v)
{
    return (struct dtr) { v >> 48, v & 0xffffffffffff };
}

#define PIN_MSR(name, msr)                                              \
static inline uint64_t get_##name(void)                                 \
{                                                                       \
    return rdmsr(msr);                                                  \
}                                                                       \
static inline void put_##name(uint64_t v)                               \
{                                                                       \
    wrmsr(msr, v);                                                      \
}

#endif
