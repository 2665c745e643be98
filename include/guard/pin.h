/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Register pinning: what an x86 CPU remembers.
 *
 * Design and locking: docs/devel/pinning.rst.
 */
#ifndef GUARD_PIN_H
#define GUARD_PIN_H

/* CR0, CR4 and EFER, by PinRegister: pinned by bits */
#define X86_PIN_WORDS       3
/* The guest pins CR0 and CR4 */
#define X86_PIN_GUEST       2

/* What a guest can always pin: WP; UMIP, FSGSBASE, SMEP and SMAP */
#define X86_PIN_ALLOWED_CR0 0x10000ULL
#define X86_PIN_ALLOWED_CR4 0x310800ULL

/**
 * X86HostPin: a pin by the host
 * @reg: PinRegister
 * @action: GuardAction
 * @on_init: PinOnInit
 * @armed: whether the register once held the value, and so is kept at it
 * @loose: the host itself let the register take another value ('report', or
 *         'cont' after 'pause') and it didn't hold the pinned one since
 * @was_armed: before the reset it was armed, or waited with paging on
 * @halvings: how often an INIT cut short its wait; each halves the next one
 * @cut: @halvings, as it will be if the reset is an INIT
 * @overdue: the wait was too long, and this was told
 * @late: the wait was too long, but paging was off or the CPU elsewhere
 * @index: number of the MSR
 * @limit: of a table
 * @grace_ms: for how long the pin may wait once CR0.PG is set
 * @let_limit: like @let, of a table
 * @pass: 'cont' lets the instruction that was stopped write @pass_value
 * @pass_used: this start of it did so
 * @pass_limit: like @pass_value, of a table
 * @mask: bits that are pinned
 * @value: their value; the base of a table
 * @let: if @loose, the value that was let through
 * @deadline: end of the wait on the virtual clock in ms; 0 if it has none yet
 */
typedef struct X86HostPin {
    uint8_t reg;
    uint8_t action;
    uint8_t on_init;
    bool armed;
    bool loose;
    bool was_armed;
    uint8_t halvings;
    uint8_t cut;
    bool overdue;
    bool late;
    bool pass;
    bool pass_used;
    uint32_t index;
    uint32_t limit;
    uint32_t grace_ms;
    uint32_t let_limit;
    uint32_t pass_limit;
    uint64_t mask;
    uint64_t value;
    uint64_t let;
    uint64_t pass_value;
    int64_t deadline;
} X86HostPin;

/**
 * X86PinState: the pins of a CPU
 *
 * Belongs to the thread that runs the CPU.  Entries of @host come and go with
 * the BQL held, too, so that who has it can read them.
 *
 * @on: whether anything is pinned
 * @watch: whether a write can arm a pin
 * @code: whether blocks need the helpers of CF_GUARD_PIN
 * @mask: bits of CR0, CR4 and EFER that are kept
 * @value: their value
 * @msrs: bit N is set if an MSR whose number modulo 64 is N is pinned
 * @ones, @zeros: what the guest pinned in CR0 and CR4
 * @held: of these, the bits that held the value once, and so are kept
 * @host: GUARD_MAX_PINS entries, or NULL
 * @nhost: entries in use
 * @pass_pc: instruction that a pause stopped before, for the passes of @host
 * @cleared: registers whose pins by the guest a reset cleared
 * @rewaiting: pins by the host that wait again since a reset
 * @grace: runs out when a pin waited for too long
 * @grace_asked: a bottom half is on its way to set @grace
 */
typedef struct X86PinState {
    bool on;
    bool watch;
    bool code;
    uint64_t mask[X86_PIN_WORDS];
    uint64_t value[X86_PIN_WORDS];
    uint64_t msrs;

    uint64_t ones[X86_PIN_GUEST];
    uint64_t zeros[X86_PIN_GUEST];
    uint64_t held[X86_PIN_GUEST];

    X86HostPin *host;
    uint32_t nhost;

    uint64_t pass_pc;

    uint32_t cleared;
    uint32_t rewaiting;

    struct QEMUTimer *grace;
    bool grace_asked;
} X86PinState;

typedef struct X86PinImage X86PinImage;

/**
 * X86PinConfig: CPU properties, and what is being loaded
 * @allowed: bits of CR0 and CR4 that the guest may pin
 * @kvm_cr_pin: whether it can do so by the RFC's numbers
 * @npiep: whether SIDT and the like fault at CPL 3
 * @image: pins of the image that is being saved or loaded, or NULL
 */
typedef struct X86PinConfig {
    uint64_t allowed[X86_PIN_GUEST];
    bool kvm_cr_pin;
    bool npiep;
    X86PinImage *image;
} X86PinConfig;

#endif /* GUARD_PIN_H */
