/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Application processors: INIT, SIPI, and a mailbox for each. */

#include "internal.h"

#define APIC_SPIV   0xf0
#define APIC_ICR    0x300
#define APIC_ICR2   0x310
#define IOAPIC      0xfec00000ull
#define COM1_PIN    4

static struct mailbox {
    void (*fn)(void *);
    void *arg;
    bool up;
    unsigned waiter;            /* CPU that is told of the end */
} mailbox[MAX_CPUS];

static void apic_write(unsigned reg, uint32_t v)
{
    write32((void *)((uint64_t)APIC + reg), v);
}

void apic_on(void)
{
    apic_write(APIC_SPIV, 0x1ff);
}

static void ioapic_write(unsigned reg, uint32_t v)
{
    write32((void *)IOAPIC, reg);
    write32((void *)(IOAPIC + 0x10), v);
}

void doze(void)
{
    struct dtr now;

    /* A test may have taken the table away, or forbidden to change it. */
    asm volatile("sidt %0" : "=m" (now));
    if (now.base == idt_ptr.base && now.limit == idt_ptr.limit) {
        /* A fault in VMRUN leaves GIF clear */
        if (svm_used && rdmsr(MSR_EFER) & EFER_SVME) {
            asm volatile("stgi");
        }
        asm volatile("sti; hlt; cli" : : : "memory");
    } else {
        pause();
    }
}

void serial_wakes(void)
{
    static bool on;
    static unsigned whom;

    if (on && whom == this_cpu()) {
        return;
    }
    on = true;
    whom = this_cpu();
    apic_on();
    ioapic_write(0x11 + 2 * COM1_PIN, whom << 24);
    ioapic_write(0x10 + 2 * COM1_PIN, VEC_WAKE);
    outb(COM1 + 4, 0xb);        /* OUT2 lets the interrupt through */
    outb(COM1 + 1, 1);          /* when there is input */
}

static void ipi(unsigned cpu, uint32_t what)
{
    apic_write(APIC_ICR2, cpu << 24);
    apic_write(APIC_ICR, what);
    while (read32((void *)((uint64_t)APIC + APIC_ICR)) & 0x1000) {
        pause();
    }
}

static void start_others(void)
{
    static bool started;

    if (started) {
        return;
    }
    started = true;
    memcpy((void *)AP_START, ap_start, ap_end - ap_start);
    apic_on();
    mailbox[0].up = true;
    for (unsigned i = 1; i < cpus(); i++) {
        __atomic_store_n(&ap_index, i, __ATOMIC_RELEASE);
        ipi(i, 0x4500);
        ipi(i, 0x4600 | AP_START >> 12);
        /* No clock to wait by: the runner's time limit ends this */
        while (!__atomic_load_n(&mailbox[i].up, __ATOMIC_ACQUIRE)) {
            pause();
        }
    }
}

void ap_main(unsigned cpu)
{
    struct mailbox *m = &mailbox[cpu];

    cpu_init(cpu);
    apic_on();
    __atomic_store_n(&m->up, true, __ATOMIC_RELEASE);
    for (;;) {
        void (*fn)(void *) = __atomic_load_n(&m->fn, __ATOMIC_ACQUIRE);

        if (fn) {
            unsigned waiter;

            fn(m->arg);
            waiter = m->waiter;
            __atomic_store_n(&m->fn, NULL, __ATOMIC_RELEASE);
            ipi(waiter, 0x4000 | VEC_WAKE);
        } else {
            doze();
        }
    }
}

unsigned cpus(void)
{
    static unsigned n;

    if (!n) {
        outw(0x510, 5);         /* fw_cfg: number of CPUs */
        n = inb(0x511);
        n |= inb(0x511) << 8;
        if (n > MAX_CPUS) {
            bail("%u CPUs, the frame knows %d", n, MAX_CPUS);
        }
    }
    return n;
}

void on_cpu(unsigned cpu, void (*fn)(void *), void *arg)
{
    start_others();
    if (cpu >= cpus()) {
        bail("CPU %u of %u: raise -smp", cpu, cpus());
    }
    if (cpu == this_cpu()) {
        fn(arg);
        return;
    }
    wait_cpu(cpu);
    mailbox[cpu].arg = arg;
    mailbox[cpu].waiter = this_cpu();
    __atomic_store_n(&mailbox[cpu].fn, fn, __ATOMIC_RELEASE);
    ipi(cpu, 0x4000 | VEC_WAKE);
}

void wait_cpu(unsigned cpu)
{
    while (__atomic_load_n(&mailbox[cpu].fn, __ATOMIC_ACQUIRE)) {
        doze();
    }
}

void on_all(void (*fn)(void *), void *arg)
{
    unsigned me = this_cpu();

    for (unsigned i = 0; i < cpus(); i++) {
        if (i != me) {
            on_cpu(i, fn, arg);
        }
    }
    fn(arg);
    for (unsigned i = 0; i < cpus(); i++) {
        if (i != me) {
            wait_cpu(i);
        }
    }
}

void cpu_enable_simd(void)
{
    struct cpuid id = cpuid(1, 0);

    write_cr0((read_cr0() & ~0xcull) | 2);
    write_cr4(read_cr4() | 0x600);
    asm volatile("fninit");
    if (id.ecx >> 26 & 1) {
        uint32_t features = cpuid(0xd, 0).eax & 7;

        write_cr4(read_cr4() | CR4_OSXSAVE);
        asm volatile("xsetbv" : : "a" (features), "d" (0), "c" (0));
    }
}
