/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Start, results, memory, page tables, exceptions, CPL 3, legacy PAE. */

#include "internal.h"

#define DEBUG_EXIT  0xf4

/*
 * What survives a reset: QEMU loads the image again, so this lies outside
 * of it.
 */
static struct kept {
    uint64_t magic;
    uint32_t boots, points, failures;
} *const kept = (void *)0xe00000;
#define KEPT_MAGIC  0x7465737475677264ull

struct gate idt[256] __attribute__((aligned(4096)));
struct dtr idt_ptr = { sizeof(idt) - 1, (uint64_t)idt };
struct tss tss[MAX_CPUS] __attribute__((aligned(256)));
static uint8_t exception_stacks[MAX_CPUS][3][EXC_STACK_SIZE]
    __attribute__((aligned(16)));
static struct catcher *catchers[MAX_CPUS];
static uint64_t user_rsp[MAX_CPUS];
static int print_lock;

/* --- Library --- */

/* By words first: with icount, each iteration of REP is a block of its own */
void *memset(void *p, int c, size_t n)
{
    void *d = p;
    size_t words = n / 8;

    asm volatile("rep stosq" : "+D" (d), "+c" (words)
                 : "a" ((uint8_t)c * 0x0101010101010101ull) : "memory");
    n %= 8;
    asm volatile("rep stosb" : "+D" (d), "+c" (n) : "a" (c) : "memory");
    return p;
}

void *memcpy(void *d, const void *s, size_t n)
{
    void *r = d;
    size_t words = n / 8;

    asm volatile("rep movsq" : "+D" (d), "+S" (s), "+c" (words)
                 : : "memory");
    n %= 8;
    asm volatile("rep movsb" : "+D" (d), "+S" (s), "+c" (n) : : "memory");
    return r;
}

void *memmove(void *d, const void *s, size_t n)
{
    uint8_t *to = d;
    const uint8_t *from = s;

    if (to <= from) {
        return memcpy(d, s, n);
    }
    while (n--) {
        to[n] = from[n];
    }
    return d;
}

int memcmp(const void *a, const void *b, size_t n)
{
    const uint8_t *x = a, *y = b;

    while (n >= 8 && read64(x) == read64(y)) {
        x += 8;
        y += 8;
        n -= 8;
    }
    for (; n; n--, x++, y++) {
        if (*x != *y) {
            return *x - *y;
        }
    }
    return 0;
}

size_t strlen(const char *s)
{
    size_t n = 0;

    while (s[n]) {
        n++;
    }
    return n;
}

int strncmp(const char *a, const char *b, size_t n)
{
    for (; n; n--, a++, b++) {
        if (*a != *b || !*a) {
            return (uint8_t)*a - (uint8_t)*b;
        }
    }
    return 0;
}

int strcmp(const char *a, const char *b)
{
    return strncmp(a, b, SIZE_MAX);
}

struct out {
    char *buf;
    size_t size, len;
};

static void put(struct out *o, char c)
{
    if (o->len + 1 < o->size) {
        o->buf[o->len] = c;
    }
    o->len++;
}

static void put_number(struct out *o, uint64_t v, unsigned base, bool negative,
                       int width, char pad)
{
    char digits[24];
    int n = 0;

    do {
        digits[n++] = "0123456789abcdef"[v % base];
        v /= base;
    } while (v);
    if (negative && pad == '0') {
        put(o, '-');
    }
    for (int i = n + negative; i < width; i++) {
        put(o, pad);
    }
    if (negative && pad != '0') {
        put(o, '-');
    }
    while (n) {
        put(o, digits[--n]);
    }
}

/* %s %c %d %i %u %x %p, with width, 0 and any of h l z j; no fractions */
int vformat(char *buf, size_t size, const char *fmt, va_list ap)
{
    struct out o = { buf, size, 0 };

    for (; *fmt; fmt++) {
        char pad = ' ';
        int width = 0;
        bool wide = false;

        if (*fmt != '%') {
            put(&o, *fmt);
            continue;
        }
        fmt++;
        if (*fmt == '0') {
            pad = *fmt++;
        }
        while (*fmt >= '0' && *fmt <= '9') {
            width = width * 10 + *fmt++ - '0';
        }
        while (*fmt == 'l' || *fmt == 'z' || *fmt == 'j' || *fmt == 'h') {
            wide |= *fmt++ != 'h';
        }
        switch (*fmt) {
        case 'c':
            put(&o, va_arg(ap, int));
            break;
        case 's': {
            const char *s = va_arg(ap, const char *);
            int n = strlen(s);

            while (*s) {
                put(&o, *s++);
            }
            while (n++ < width) {
                put(&o, ' ');
            }
            break;
        }
        case 'd':
        case 'i': {
            int64_t v = wide ? va_arg(ap, int64_t) : va_arg(ap, int);

            put_number(&o, v < 0 ? 0 - (uint64_t)v : (uint64_t)v, 10, v < 0,
                       width, pad);
            break;
        }
        case 'u':
        case 'x': {
            uint64_t v = wide ? va_arg(ap, uint64_t)
                              : va_arg(ap, unsigned);

            put_number(&o, v, *fmt == 'x' ? 16 : 10, false, width, pad);
            break;
        }
        case 'p':
            put(&o, '0');
            put(&o, 'x');
            put_number(&o, (uint64_t)va_arg(ap, void *), 16, false, 0, ' ');
            break;
        default:
            put(&o, *fmt);
            break;
        }
    }
    if (size) {
        buf[o.len < size ? o.len : size - 1] = 0;
    }
    return o.len;
}

int format(char *buf, size_t size, const char *fmt, ...)
{
    va_list ap;
    int n;

    va_start(ap, fmt);
    n = vformat(buf, size, fmt, ap);
    va_end(ap);
    return n;
}

/* --- Results --- */

static void serial_write(const char *s)
{
    while (*s) {
        while (!(inb(COM1 + 5) & 0x20)) {
            pause();
        }
        /* The FIFO is empty, and holds 16 */
        for (int i = 0; i < 16 && *s; i++) {
            outb(COM1, *s++);
        }
    }
}

void serial_line(const char *fmt, ...)
{
    static char line[16640];
    va_list ap;

    while (__atomic_exchange_n(&print_lock, 1, __ATOMIC_ACQUIRE)) {
        pause();
    }
    va_start(ap, fmt);
    vformat(line, sizeof(line), fmt, ap);
    va_end(ap);
    serial_write(line);
    __atomic_store_n(&print_lock, 0, __ATOMIC_RELEASE);
}

static bool vok(bool good, const char *prefix, const char *fmt, va_list ap)
{
    char text[400];
    unsigned n = __atomic_add_fetch(&kept->points, 1, __ATOMIC_SEQ_CST);

    if (!good) {
        __atomic_add_fetch(&kept->failures, 1, __ATOMIC_SEQ_CST);
    }
    vformat(text, sizeof(text), fmt, ap);
    serial_line("%sok %u %s%s\n", good ? "" : "not ", n, prefix, text);
    return good;
}

bool ok(bool good, const char *fmt, ...)
{
    va_list ap;

    va_start(ap, fmt);
    vok(good, "- ", fmt, ap);
    va_end(ap);
    return good;
}

void skip(const char *fmt, ...)
{
    va_list ap;

    va_start(ap, fmt);
    vok(true, "# SKIP ", fmt, ap);
    va_end(ap);
}

void note(const char *fmt, ...)
{
    char text[400];
    va_list ap;

    va_start(ap, fmt);
    vformat(text, sizeof(text), fmt, ap);
    va_end(ap);
    serial_line("# %s\n", text);
}

void __attribute__((noreturn)) finish(void)
{
    serial_line("1..%u\n", kept->points);
    kept->magic = 0;
    outl(DEBUG_EXIT, kept->failures ? 1 : 0);
    for (;;) {
        asm volatile("cli; hlt");
    }
}

void bail(const char *fmt, ...)
{
    char text[400], line[480];
    va_list ap;

    va_start(ap, fmt);
    vformat(text, sizeof(text), fmt, ap);
    va_end(ap);
    format(line, sizeof(line), "Bail out! %s\n", text);
    /* Without the lock: whoever holds it may be what went wrong */
    serial_write(line);
    outl(DEBUG_EXIT, 2);
    for (;;) {
        asm volatile("cli; hlt");
    }
}

unsigned boot_number(void)
{
    return kept->boots;
}

/* --- Frames and page tables --- */

Space kernel_space = { (uint64_t)boot_pml4, 4 };
static uint64_t next_frame = 0x2000000;
static uint64_t next_window = 0x8000000000;

/* PVH start info: version 1 has the memory map at offset 40 */
static uint64_t ram_end(void)
{
    const uint8_t *info = (void *)pvh_info;
    const uint64_t *map = (void *)read64(info + 40);
    uint64_t end = 0;

    for (uint32_t n = read32(info + 48); n; n--, map += 3) {
        if (map[0] <= next_frame && map[0] + map[1] > next_frame &&
            (uint32_t)map[2] == 1) {
            end = map[0] + map[1];
        }
    }
    return end;
}

const char *command_line(void)
{
    const char *line = (void *)read64((void *)(pvh_info + 24));

    return line ? line : "";
}

void *frames(unsigned n)
{
    static uint64_t end;
    uint64_t align = PAGE_SIZE, p;

    if (!end) {
        end = ram_end();
    }
    while (align < n * PAGE_SIZE) {
        align <<= 1;
    }
    p = (next_frame + align - 1) & -align;
    if (p + n * PAGE_SIZE > end) {
        bail("%u frames of RAM more than the machine has (it ends at 0x%lx)",
             n, end);
    }
    next_frame = p + n * PAGE_SIZE;
    return memset((void *)p, 0, n * PAGE_SIZE);
}

Space space_new(int levels)
{
    return (Space) { (uint64_t)frame(), levels };
}

uint64_t *space_entry(Space *s, uint64_t va, int level)
{
    uint64_t address = 0xffffffffff000;
    uint64_t *table = (void *)s->root;

    for (int l = s->levels; ; l--) {
        uint64_t *e = &table[va >> (3 + 9 * l) & 0x1ff];

        if (l == level) {
            return e;
        }
        if (!(*e & PTE_P)) {
            /* A PDPTE of legacy PAE has no room for W and U */
            *e = (uint64_t)frame() |
                 (s->levels == 3 && l == 3 ? PTE_P : PTE_RW | PTE_U);
        } else if (*e & PTE_PS && l > 1 && l < 4) {
            uint64_t *split = frame();
            uint64_t size = 1ull << (3 + 9 * (l - 1));
            uint64_t leaf = l == 2 ? *e & ~PTE_PS : *e;

            for (int i = 0; i < 512; i++) {
                split[i] = leaf + i * size;
            }
            *e = (uint64_t)split | PTE_RW | PTE_U;
        }
        table = (void *)(*e & address & (xo_bit() - 1));
    }
}

void space_identity(Space *s, uint64_t end, uint64_t bits)
{
    for (uint64_t a = 0; a < end; a += PAGE_2M) {
        *space_entry(s, a, LEVEL_2M) = a | PTE_PS | bits;
    }
}

uint64_t window(uint64_t bytes)
{
    uint64_t align = bytes >= PAGE_1G ? PAGE_1G :
                     bytes >= PAGE_2M ? PAGE_2M : PAGE_SIZE;
    uint64_t va = (next_window + align - 1) & -align;

    next_window = va + bytes + PAGE_SIZE;
    return va;
}

uint64_t *entry(const void *va, int level)
{
    return space_entry(&kernel_space, (uint64_t)va, level);
}

void flush_tlb(void)
{
    write_cr3(read_cr3());
}

void set_entry(const void *va, int level, uint64_t value)
{
    write64(entry(va, level), value);
    flush_tlb();
}

void map_at(uint64_t va, const void *pa, int level, uint64_t bits)
{
    set_entry((void *)va, level,
              (uint64_t)pa | bits | (level > LEVEL_4K ? PTE_PS : 0));
}

void *map(const void *pa, uint64_t bits)
{
    uint64_t va = window(PAGE_SIZE);

    map_at(va, pa, LEVEL_4K, bits);
    return (void *)va;
}

void *map2(const void *pa1, uint64_t bits1,
           const void *pa2, uint64_t bits2)
{
    uint64_t va = window(2 * PAGE_SIZE);

    map_at(va, pa1, LEVEL_4K, bits1);
    map_at(va + PAGE_SIZE, pa2, LEVEL_4K, bits2);
    return (void *)va;
}

/* --- Exceptions --- */

unsigned this_cpu(void)
{
    uint16_t tr;

    asm volatile("str %0" : "=r" (tr));
    return (tr - SEL_TSS) / 16;
}

void catch_push(struct catcher *c)
{
    c->fault = (Fault) { .vec = NONE };
    c->prev = catchers[this_cpu()];
    catchers[this_cpu()] = c;
}

Fault catch_end(struct catcher *c)
{
    catchers[this_cpu()] = c->prev;
    return c->fault;
}

void exception_main(struct exception_frame *f)
{
    struct catcher *c = catchers[this_cpu()];
    Fault fault = { f->vec, f->err, f->vec == PF ? read_cr2() : 0,
                    f->rip, f->cs, f->rflags, f->rsp, { 0 } };

    memcpy(fault.gpr, f->gpr, sizeof(fault.gpr));
    fault.gpr[RSP] = f->rsp;
    if (!c) {
        bail("unexpected %s on CPU %u", fault_text(fault), this_cpu());
    }
    catchers[this_cpu()] = c->prev;
    c->fault = fault;
    catch_resume(c);
}

Fault try_call(void (*fn)(void *), void *arg)
{
    return TRY(fn(arg));
}

const char *fault_text(Fault f)
{
    static const char *const names[] = {
        "DE", "DB", "NMI", "BP", "OF", "BR", "UD", "NM", "DF", "9", "TS",
        "NP", "SS", "GP", "PF", "15", "MF", "AC", "MC", "XM",
    };
    static char buffers[4][120];
    static unsigned next;
    char *b = buffers[__atomic_fetch_add(&next, 1, __ATOMIC_RELAXED) % 4];
    int n;

    if (f.vec == NONE) {
        return "no exception";
    }
    if (f.vec < (int)ARRAY_SIZE(names)) {
        n = format(b, 120, "#%s", names[f.vec]);
    } else {
        n = format(b, 120, "vector %d", f.vec);
    }
    n += format(b + n, 120 - n, " error 0x%lx", f.err);
    if (f.vec == PF) {
        n += format(b + n, 120 - n, " cr2 0x%lx", f.cr2);
    }
    format(b + n, 120 - n, " rip 0x%lx", f.rip);
    return b;
}

bool expect(Fault f, int vec, uint64_t err, const char *fmt, ...)
{
    bool good = f.vec == vec && (vec == NONE || f.err == err);
    va_list ap;

    va_start(ap, fmt);
    vok(good, "- ", fmt, ap);
    va_end(ap);
    if (!good) {
        note("got %s, expected vector %d error 0x%lx", fault_text(f), vec,
             err);
    }
    return good;
}

bool expect_pf(Fault f, uint64_t err, const void *cr2,
               const char *fmt, ...)
{
    bool good = f.vec == PF && f.err == err && f.cr2 == (uint64_t)cr2;
    va_list ap;

    va_start(ap, fmt);
    vok(good, "- ", fmt, ap);
    va_end(ap);
    if (!good) {
        note("got %s, expected #PF error 0x%lx cr2 %p", fault_text(f), err,
             cr2);
    }
    return good;
}

bool expect_none(Fault f, const char *fmt, ...)
{
    va_list ap;

    va_start(ap, fmt);
    vok(f.vec == NONE, "- ", fmt, ap);
    va_end(ap);
    if (f.vec != NONE) {
        note("got %s, expected none", fault_text(f));
    }
    return f.vec == NONE;
}

void set_gate(struct gate *g, void *handler, int ist, int dpl)
{
    uint64_t a = (uint64_t)handler;

    *g = (struct gate) {
        .offset0 = a, .sel = SEL_CODE64, .ist = ist,
        .type = 0x8e | dpl << 5, .offset1 = a >> 16, .offset2 = a >> 32,
    };
}

void set_descriptor16(uint64_t *table, int sel, int type, const void *base,
                      uint32_t limit)
{
    uint64_t b = (uint64_t)base;

    table[sel / 8] = (limit & 0xffff) | (b & 0xffffff) << 16 |
                     (uint64_t)(type | 0x80) << 40 |
                     (uint64_t)(limit >> 16 & 0xf) << 48 |
                     (b >> 24 & 0xff) << 56;
    table[sel / 8 + 1] = b >> 32;
}

void set_tss32(uint64_t *table, int sel, const void *base)
{
    uint64_t b = (uint64_t)base;

    table[sel / 8] = (sizeof(struct tss32) - 1) | (b & 0xffffff) << 16 |
                     0x89ull << 40 | (b >> 24 & 0xff) << 56;
}

/* --- CPL 3 --- */

uint64_t *user_saved_rsp(void)
{
    return &user_rsp[this_cpu()];
}

uint64_t user_flags(uint64_t (*fn)(uint64_t), uint64_t arg, uint64_t rflags)
{
    unsigned cpu = this_cpu();

    return user_enter(fn, arg, (uint64_t)user_stacks + (cpu + 1) * 4096,
                      &user_rsp[cpu], rflags);
}

/* --- Legacy modes --- */

static void mode32_back(struct mode32 *m)
{
    m->back_cr0 = read_cr0();
    m->back_cr3 = read_cr3();
    m->back_cr4 = read_cr4();
    m->back_efer = rdmsr(MSR_EFER);
}

void use_levels(int levels)
{
    static struct mode32 m;

    mode32_back(&m);
    m.kind = M32_NOTHING;
    m.back_cr4 = (m.back_cr4 & ~CR4_LA57) | (levels == 5 ? CR4_LA57 : 0);
    m.back_cr3 = (uint32_t)(uint64_t)(levels == 5 ? boot_pml5 : boot_pml4);
    mode32_run(&m);
    kernel_space = (Space) { m.back_cr3, levels };
}

Space pae_space(void)
{
    Space s = space_new(3);

    space_identity(&s, PAGE_1G, PTE_RW);
    *space_entry(&s, 0x1000000, LEVEL_2M) |= PTE_U;
    return s;
}

static Fault legacy_access(uint32_t root, uint32_t cr4, struct mode32 *p)
{
    static struct mode32 m;

    if (!m32_tss.esp0) {
        m32_tss.ss0 = SEL_DATA;
        m32_tss.esp0 = (uint32_t)(uint64_t)m32_stack;
        set_tss32(gdt, SEL_TSS32, &m32_tss);
        for (int i = 0; i < 32; i++) {
            uint64_t a = (uint64_t)m32_stubs + i * 16;

            m32_idt[i] = (a & 0xffff) | SEL_CODE32 << 16 | 0x8eull << 40 |
                         (a >> 16) << 48;
        }
        m32_idt[VEC_USER_EXIT] =
            ((uint64_t)m32_user_exit & 0xffff) | SEL_CODE32 << 16 |
            0xeeull << 40 | ((uint64_t)m32_user_exit >> 16) << 48;
    }
    m = *p;
    mode32_back(&m);
    m.cr0 |= 0x80000033;
    m.cr3 = root;
    m.cr4 |= cr4;
    m.eflags |= 2;
    mode32_run(&m);
    p->result = m.result;
    return (Fault) { .vec = m.vec, .err = m.err,
                     .cr2 = m.vec == PF ? m.cr2 : 0, .rip = m.eip };
}

Fault pae_access(Space *s, struct mode32 *m)
{
    return legacy_access(s->root, CR4_PAE, m);
}

Fault paging32_access(uint32_t *directory, struct mode32 *m)
{
    return legacy_access((uint32_t)(uint64_t)directory, CR4_PSE, m);
}

/* --- CPUID, PCI --- */

unsigned phys_bits(void)
{
    static unsigned bits;

    if (!bits) {
        bits = cpuid(0x80000008, 0).eax & 0xff;
    }
    return bits;
}

bool xo_present(void)
{
    return cpuid(0x40000000, 0).eax >= 0x40000030 &&
           cpuid(0x40000030, 0).eax & 1;
}

uint32_t pci_read32(int dev, int fn, int reg)
{
    outl(0xcf8, 0x80000000 | dev << 11 | fn << 8 | (reg & ~3));
    return inl(0xcfc);
}

void pci_write8(int dev, int fn, int reg, uint8_t v)
{
    outl(0xcf8, 0x80000000 | dev << 11 | fn << 8 | (reg & ~3));
    outb(0xcfc + (reg & 3), v);
}

/* --- Start --- */

void cpu_init(unsigned cpu)
{
    for (int i = 0; i < 3; i++) {
        tss[cpu].ist[i] = (uint64_t)exception_stacks[cpu][i] +
                           EXC_STACK_SIZE;
    }
    /* For VEC_USER_EXIT only, which is no exception */
    tss[cpu].rsp[0] = (uint64_t)exception_stacks[cpu][0] +
                      EXC_STACK_SIZE / 2;
    tss[cpu].iomap = sizeof(struct tss);
    set_descriptor16(gdt, SEL_TSS + cpu * 16, 9, &tss[cpu],
                     sizeof(struct tss) - 1);
    asm volatile("lgdt %0" : : "m" (gdt_ptr));
    asm volatile("lidt %0" : : "m" (idt_ptr));
    asm volatile("ltr %w0" : : "r" (SEL_TSS + cpu * 16));
}

void guest_start(void)
{
    /* No interrupts yet, 115200 baud, FIFOs with 14 bytes at a time */
    outb(COM1 + 1, 0);
    outb(COM1 + 3, 0x83);
    outb(COM1, 1);
    outb(COM1 + 1, 0);
    outb(COM1 + 3, 3);
    outb(COM1 + 2, 0xc7);
    outb(0x21, 0xff);
    outb(0xa1, 0xff);

    for (int i = 0; i < 32; i++) {
        set_gate(&idt[i], exception_stubs + i * 16,
                 i == DF ? 2 : i == NMI || i == MC ? 3 : 1, 0);
    }
    set_gate(&idt[BP], exception_stubs + BP * 16, 1, 3);
    set_gate(&idt[VEC_USER_EXIT], user_exit_entry, 0, 3);
    set_gate(&idt[VEC_WAKE], wake_entry, 0, 0);
    cpu_init(0);
    for (int i = 0; i < MAX_CPUS; i++) {
        set_entry(stacks + i * STACK_SIZE, LEVEL_4K, 0);
    }

    if (kept->magic != KEPT_MAGIC) {
        *kept = (struct kept) { .magic = KEPT_MAGIC };
    }
    kept->boots++;
    test();
    finish();
}
