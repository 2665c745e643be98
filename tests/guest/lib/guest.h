/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * A small frame for bare-metal tests of x86-64 system emulation.
 *
 * A test is one file: GUEST_RUN() lines that say with which options QEMU
 * runs it, and test(), which says what it does and what it expects.
 * tests/guest/README.rst explains the frame; this file is the reference.
 */

#ifndef TESTS_GUEST_LIB_GUEST_H
#define TESTS_GUEST_LIB_GUEST_H

#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "asm.h"

/**
 * GUEST_RUN: run this test once with these options of QEMU
 * @name: what the run is called in the results
 * @options: QEMU's options, and the runner's own ones (run.py --help)
 */
#define GUEST_RUN(name, options) \
    GUEST_RUN_(name, options, __LINE__)
#define GUEST_RUN_(name, options, line) GUEST_RUN__(name, options, line)
#define GUEST_RUN__(name, options, line)                                \
    static const char guest_run_##line[]                                \
        __attribute__((section(".guest.runs"), used, aligned(1)))       \
        = #line "\0" name "\0" options

/* What a test file defines. */
void test(void);

#define PAGE_SIZE   4096ull
#define PAGE_2M     (1ull << 21)
#define PAGE_1G     (1ull << 30)

#define ARRAY_SIZE(a)   (sizeof(a) / sizeof((a)[0]))
#define PRINTF(f, a)    __attribute__((format(printf, f, a)))

/* --- Results --- */

/** ok: one result; true passes. The text names what was checked. */
bool ok(bool good, const char *fmt, ...) PRINTF(2, 3);
/** note: a line of explanation, for people */
void note(const char *fmt, ...) PRINTF(1, 2);
/** skip: a result that could not be had; the text says why */
void skip(const char *fmt, ...) PRINTF(1, 2);
/** bail: the test can't go on */
void bail(const char *fmt, ...) PRINTF(1, 2) __attribute__((noreturn));
/** boot_number: 1, or more after resets (runner option "reboots") */
unsigned boot_number(void);
/** command_line: what the run's "-append" says, "" if there is none */
const char *command_line(void);
/** finish: end here with the results so far; returning from test() does it */
void finish(void) __attribute__((noreturn));

int format(char *buf, size_t size, const char *fmt, ...) PRINTF(3, 4);
int vformat(char *buf, size_t size, const char *fmt, va_list ap);

/* --- Memory --- */

void *memset(void *p, int c, size_t n);
void *memcpy(void *d, const void *s, size_t n);
void *memmove(void *d, const void *s, size_t n);
int memcmp(const void *a, const void *b, size_t n);
size_t strlen(const char *s);
int strcmp(const char *a, const char *b);
int strncmp(const char *a, const char *b, size_t n);

/**
 * frames: @n zeroed physical frames in a row, aligned to their size
 *
 * All RAM below 4 GiB is mapped one to one for the kernel, so that the
 * result is both the physical address and a pointer.
 */
void *frames(unsigned n);
static inline void *frame(void)
{
    return frames(1);
}

/* --- Page tables --- */

#define PTE_P       1ull
#define PTE_W       2ull
#define PTE_U       4ull
#define PTE_A       0x20ull
#define PTE_D       0x40ull
#define PTE_PS      0x80ull
#define PTE_G       0x100ull
#define PTE_PK(k)   ((uint64_t)(k) << 59)
#define PTE_NX      (1ull << 63)
#define PTE_RW      (PTE_P | PTE_W)

enum { LEVEL_4K = 1, LEVEL_2M, LEVEL_1G, LEVEL_PML4, LEVEL_PML5 };

/** space: a set of page tables; levels is 3 (PAE), 4 or 5 */
typedef struct Space {
    uint64_t root;
    int levels;
} Space;

/** kernel_space: the tables everything runs on unless a test changes CR3 */
extern Space kernel_space;
/** space_new: empty tables */
Space space_new(int levels);
/** space_identity: maps [0, end) one to one with 2 MiB leaves of @bits */
void space_identity(Space *s, uint64_t end, uint64_t bits);
/**
 * space_entry: the entry that maps @va at @level
 *
 * Tables above it are made as needed (P, W, U set), larger leaves split.
 */
uint64_t *space_entry(Space *s, uint64_t va, int level);

/** window: room for @bytes of addresses, not mapped, nothing beside it */
uint64_t window(uint64_t bytes);
/** entry: space_entry() in kernel_space */
uint64_t *entry(const void *va, int level);
/** set_entry: writes the entry and flushes the whole TLB of this CPU */
void set_entry(const void *va, int level, uint64_t value);
/** map_at: one page of size @level at @va */
void map_at(uint64_t va, const void *pa, int level, uint64_t bits);
/** map: a 4 KiB page in a window of its own, nothing mapped around it */
void *map(const void *pa, uint64_t bits);
/** map2: two pages side by side; returns where the first begins */
void *map2(const void *pa1, uint64_t bits1,
           const void *pa2, uint64_t bits2);
/** use_levels: 4- or 5-level paging from here on */
void use_levels(int levels);
void flush_tlb(void);

/* --- Exceptions --- */

enum {
    NONE = -1,
    DE = 0, DB = 1, NMI = 2, BP = 3, OF = 4, BR = 5, UD = 6, NM = 7, DF = 8,
    TS = 10, NP = 11, SS = 12, GP = 13, PF = 14, MF = 16, AC = 17, MC = 18,
    XM = 19,
};

#define PF_P    0x01u
#define PF_W    0x02u
#define PF_U    0x04u
#define PF_RSVD 0x08u
#define PF_I    0x10u
#define PF_PK   0x20u

enum {
    RAX, RCX, RDX, RBX, RSP, RBP, RSI, RDI, R8, R9, R10, R11, R12, R13, R14,
    R15,
};

/** Fault: an exception, and the registers as it found them */
typedef struct Fault {
    int vec;
    uint64_t err, cr2, rip, cs, rflags, rsp;
    uint64_t gpr[16];
} Fault;

struct catcher {
    uint64_t regs[8];
    struct catcher *prev;
    Fault fault;
};
int catch_arm(struct catcher *c) __attribute__((returns_twice));
Fault catch_end(struct catcher *c);

/**
 * TRY: runs statements, gives the Fault that ended them (vec NONE: none)
 *
 * A local variable that they change has no certain value after a fault
 * unless it is volatile.
 */
#define TRY(...) ({                                                     \
    struct catcher catcher_;                                            \
    if (!catch_arm(&catcher_)) {                                        \
        __VA_ARGS__;                                                    \
    }                                                                   \
    catch_end(&catcher_);                                               \
})

/** try_call: TRY(fn(arg)), where a function with a TRY grows too long */
Fault try_call(void (*fn)(void *), void *arg);

/** expect: one result: @f is exception @vec with error code @err */
bool expect(Fault f, int vec, uint64_t err, const char *fmt, ...)
    PRINTF(4, 5);
/** expect_pf: one result: #PF at @cr2 with error code @err */
bool expect_pf(Fault f, uint64_t err, const void *cr2,
               const char *fmt, ...) PRINTF(4, 5);
/** expect_none: one result: nothing happened */
bool expect_none(Fault f, const char *fmt, ...) PRINTF(2, 3);
/** fault_text: "#PF error 0x5 cr2 0x1000 rip 0x...", in one of 4 buffers */
const char *fault_text(Fault f);

/* 64-bit gates and TSS, for tests that take them apart */
struct gate {
    uint16_t offset0, sel;
    uint8_t ist, type;
    uint16_t offset1;
    uint32_t offset2, zero;
} __attribute__((packed));

struct dtr {
    uint16_t limit;
    uint64_t base;
} __attribute__((packed));

struct tss {
    uint32_t zero0;
    uint64_t rsp[3], zero1, ist[7];
    uint64_t zero2;
    uint16_t zero3, iomap;
} __attribute__((packed));

extern struct gate idt[256];
extern struct dtr idt_ptr, gdt_ptr;
extern uint64_t gdt[];
extern struct tss tss[MAX_CPUS];
void set_gate(struct gate *g, void *handler, int ist, int dpl);
/** set_descriptor16: a 16-byte system descriptor at selector @sel */
void set_descriptor16(uint64_t *table, int sel, int type, const void *base,
                      uint32_t limit);

/* --- CPL 3 --- */

/** USER: puts a function where CPL 3 can run it; it may call only such */
#define USER        __attribute__((section(".user.text"), noinline))
#define USER_DATA   __attribute__((section(".user.data")))

/**
 * user: fn(arg) at CPL 3
 * user_flags: the same with these RFLAGS
 *
 * Use within TRY() when it may fault.
 */
uint64_t user_flags(uint64_t (*fn)(uint64_t), uint64_t arg, uint64_t rflags);
static inline uint64_t user(uint64_t (*fn)(uint64_t), uint64_t arg)
{
    return user_flags(fn, arg, 2);
}

/* One byte read, written (0xb8), or called; both return what they got */
extern uint64_t access_read_kernel(uint64_t va);
extern uint64_t access_write_kernel(uint64_t va);
extern uint64_t access_fetch_kernel(uint64_t va);
extern uint64_t access_read_user(uint64_t va);
extern uint64_t access_write_user(uint64_t va);
extern uint64_t access_fetch_user(uint64_t va);

/* --- More CPUs --- */

/** cpus: how many the machine has; the others are started at first use */
unsigned cpus(void);
unsigned this_cpu(void);
/** on_cpu: starts fn(arg) on @cpu and returns at once */
void on_cpu(unsigned cpu, void (*fn)(void *), void *arg);
/** wait_cpu: waits until @cpu is done; only for the CPU that started it */
void wait_cpu(unsigned cpu);
/** on_all: fn(arg) on all CPUs at a time, waits for all */
void on_all(void (*fn)(void *), void *arg);
/** cpu_enable_simd: CR0, CR4 and XCR0 of this CPU for x87, SSE and AVX */
void cpu_enable_simd(void);

/* --- The host --- */

/**
 * host: asks run.py to do @verb with a JSON argument; returns its answer
 *
 * The answer lives until the next call. run.py documents the verbs.
 */
const char *host(const char *verb, const char *fmt, ...) PRINTF(2, 3);
/** qmp: a QMP command; @fmt gives its arguments, "{}" for none */
const char *qmp(const char *command, const char *fmt, ...) PRINTF(2, 3);
/** qmp_failed: the last answer was an error */
bool qmp_failed(const char *reply);
/**
 * json: finds a value; @path is like "return.status" or "events.0.data.gpa"
 *
 * Returns a pointer into @text at the value, or NULL.
 */
const char *json(const char *text, const char *path);
/** json_is: the value at @path is the string, number or word @want */
bool json_is(const char *text, const char *path, const char *want);
/** json_number: the number at @path, @otherwise if there is none */
int64_t json_number(const char *text, const char *path, int64_t otherwise);
/** json_text: the string at @path, cut to @size; empty if there is none */
void json_text(const char *text, const char *path, char *to, size_t size);
/** json_length: elements of the array at @path, -1 if there is none */
int json_length(const char *text, const char *path);

/* --- Legacy protected mode --- */

struct mode32 {
    uint32_t cr0, cr3, cr4, efer;
    uint32_t back_cr0, back_cr3, back_cr4, back_efer;
    uint32_t kind, cpl, eflags, addr;
    int32_t vec;
    uint32_t err, cr2, eip, result;
};
void mode32_run(struct mode32 *m);
/**
 * pae_access: one access under legacy PAE paging
 * @s: tables of 3 levels, that map the low 2 GiB as pae_space() does
 * @m: cr0, cr4 and efer (as far as they matter: WP, SMEP, NXE, ...), kind,
 *     cpl, eflags, addr; gives result.  With CPL 3 and EFLAGS.VM the code at
 *     addr, below 1 MiB, is run in vm86; it has to end in INT 0x80
 */
Fault pae_access(Space *s, struct mode32 *m);
Space pae_space(void);
/**
 * paging32_access: the same under 32-bit paging, with 4 MiB pages
 * @directory: a page directory that maps the low 1 GiB one to one
 */
Fault paging32_access(uint32_t *directory, struct mode32 *m);

struct tss32 {
    uint32_t link, esp0, ss0, esp1, ss1, esp2, ss2, cr3, eip, eflags;
    uint32_t eax, ecx, edx, ebx, esp, ebp, esi, edi;
    uint32_t es, cs, ss, ds, fs, gs, ldt, iomap;
};
/* What the mode runs with, once the first access was made */
extern uint64_t m32_idt[256];
extern struct tss32 m32_tss;
/** set_tss32: a descriptor of @base's TSS at selector @sel */
void set_tss32(uint64_t *table, int sel, const void *base);

/* --- SVM guests --- */

struct l2 {
    uint8_t *vmcb;
    uint8_t *stack;
    Space npt;
    uint64_t exit_code, info1, info2, result;
};
#define SVM_EXIT_VMMCALL    0x81
#define SVM_EXIT_NPF        0x400
#define SVM_EXIT_INVALID    (~0ull)
bool svm_present(void);
/** svm_init: a guest that shares this CPU's tables and state; @nested: NPT */
void svm_init(struct l2 *l2, bool nested);
/** svm_run: fn(arg) in the guest until it returns or exits */
uint64_t svm_run(struct l2 *l2, uint64_t (*fn)(uint64_t), uint64_t arg);
#define VMCB32(l2, off) (*(uint32_t *)((l2)->vmcb + (off)))
#define VMCB64(l2, off) (*(uint64_t *)((l2)->vmcb + (off)))

/* --- System management mode --- */

/** smm_init: puts our SMI handler in SMRAM; false if it can't be opened */
bool smm_init(void);
/** smm_run: fn(arg) in SMM, in 64-bit mode on kernel_space */
uint64_t smm_run(uint64_t (*fn)(uint64_t), uint64_t arg);
/** smm_prepare: says what the next SMI (0x5a to port 0xb2) is to run */
void smm_prepare(uint64_t (*fn)(uint64_t), uint64_t arg);
/** smi_done: it has run; RSM may still be to come */
extern bool smi_done;

/* --- Execute-only memory --- */

/** xo_present: CPUID offers it */
bool xo_present(void);
/** phys_bits: the width that the guest is told */
unsigned phys_bits(void);
/** xo_bit: the bit of a page-table entry, whether or not XO is present */
static inline uint64_t xo_bit(void)
{
    return 1ull << phys_bits();
}

/* --- Instructions --- */

#define INLINE inline __attribute__((always_inline))

#define ACCESSORS(bits)                                                 \
static INLINE uint##bits##_t read##bits(const void *p)                  \
{                                                                       \
    uint##bits##_t v;                                                   \
                                                                        \
    asm volatile("mov (%1), %0" : "=r" (v) : "r" (p) : "memory");       \
    return v;                                                           \
}                                                                       \
static INLINE void write##bits(void *p, uint##bits##_t v)               \
{                                                                       \
    asm volatile("mov %1, (%0)" : : "r" (p), "r" (v) : "memory");       \
}
ACCESSORS(8)
ACCESSORS(16)
ACCESSORS(32)
ACCESSORS(64)

#define CONTROL_REGISTER(name)                                          \
static INLINE uint64_t read_##name(void)                                \
{                                                                       \
    uint64_t v;                                                         \
                                                                        \
    asm volatile("mov %%" #name ", %0" : "=r" (v));                     \
    return v;                                                           \
}                                                                       \
static INLINE void write_##name(uint64_t v)                             \
{                                                                       \
    asm volatile("mov %0, %%" #name : : "r" (v) : "memory");            \
}
CONTROL_REGISTER(cr0)
CONTROL_REGISTER(cr2)
CONTROL_REGISTER(cr3)
CONTROL_REGISTER(cr4)

#define CR0_WP      (1ull << 16)
#define CR0_AM      (1ull << 18)
#define CR0_PG      (1ull << 31)
#define CR4_PSE     (1ull << 4)
#define CR4_PAE     (1ull << 5)
#define CR4_LA57    (1ull << 12)
#define CR4_OSXSAVE (1ull << 18)
#define CR4_SMEP    (1ull << 20)
#define CR4_SMAP    (1ull << 21)
#define CR4_PKE     (1ull << 22)
#define RFLAGS_AC   (1ull << 18)

#define MSR_EFER    0xc0000080u
#define EFER_LME    0x100ull
#define EFER_NXE    0x800ull
#define EFER_SVME   0x1000ull

static INLINE uint64_t rdmsr(uint32_t i)
{
    uint32_t a, d;

    asm volatile("rdmsr" : "=a" (a), "=d" (d) : "c" (i));
    return a | (uint64_t)d << 32;
}

static INLINE void wrmsr(uint32_t i, uint64_t v)
{
    asm volatile("wrmsr" : : "c" (i), "a" ((uint32_t)v),
                 "d" ((uint32_t)(v >> 32)) : "memory");
}

static INLINE void wrpkru(uint32_t v)
{
    asm volatile("wrpkru" : : "a" (v), "c" (0), "d" (0) : "memory");
}

static INLINE uint64_t read_rflags(void)
{
    uint64_t v;

    asm volatile("pushfq; popq %0" : "=r" (v));
    return v;
}

static INLINE void write_rflags(uint64_t v)
{
    asm volatile("pushq %0; popfq" : : "r" (v) : "memory", "cc");
}

static INLINE void outb(uint16_t port, uint8_t v)
{
    asm volatile("outb %0, %1" : : "a" (v), "Nd" (port) : "memory");
}

static INLINE void outw(uint16_t port, uint16_t v)
{
    asm volatile("outw %0, %1" : : "a" (v), "Nd" (port) : "memory");
}

static INLINE void outl(uint16_t port, uint32_t v)
{
    asm volatile("outl %0, %1" : : "a" (v), "Nd" (port) : "memory");
}

static INLINE uint8_t inb(uint16_t port)
{
    uint8_t v;

    asm volatile("inb %1, %0" : "=a" (v) : "Nd" (port) : "memory");
    return v;
}

static INLINE uint16_t inw(uint16_t port)
{
    uint16_t v;

    asm volatile("inw %1, %0" : "=a" (v) : "Nd" (port) : "memory");
    return v;
}

static INLINE uint32_t inl(uint16_t port)
{
    uint32_t v;

    asm volatile("inl %1, %0" : "=a" (v) : "Nd" (port) : "memory");
    return v;
}

static INLINE void pause(void)
{
    asm volatile("pause" : : : "memory");
}

struct cpuid {
    uint32_t eax, ebx, ecx, edx;
};

static INLINE struct cpuid cpuid(uint32_t leaf, uint32_t sub)
{
    struct cpuid r;

    asm volatile("cpuid" : "=a" (r.eax), "=b" (r.ebx), "=c" (r.ecx),
                 "=d" (r.edx) : "a" (leaf), "c" (sub));
    return r;
}

uint32_t pci_read32(int dev, int fn, int reg);
void pci_write8(int dev, int fn, int reg, uint8_t v);

#endif
