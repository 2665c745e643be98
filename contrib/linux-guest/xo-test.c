/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Shows what /dev/guard-xo gives a program, from the program's side
 *
 * Prints a line for each thing shown: "ok" or "not ok", what, what was
 * expected and what was seen, with a tab between.  Exits 0 if all are ok.
 *
 *     xo-test         everything that one process can see
 *     xo-test race    one thread on each CPU, all at the same mapping
 *     xo-test leak    loads 1 GiB in all, little by little
 *     xo-test hold    keeps a mapping until it is killed
 */
#define _GNU_SOURCE
#include <cpuid.h>
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <sched.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/ptrace.h>
#include <sys/uio.h>
#include <sys/wait.h>
#include <ucontext.h>
#include <unistd.h>

#include "guard_guest.h"

#define PAGE 4096ul
#define DEVICE "/dev/" GUARD_XO_DEVICE

/* Bits of the page fault error code */
#define PF_P 1
#define PF_W 2
#define PF_U 4

/*
 * A page with one function in it.  Nothing else may lie in the page, for the
 * test takes the page's readable mapping away: hence the filling, in asm.
 */
__attribute__((naked, noinline, noclone, aligned(PAGE)))
static int answer(int x __attribute__((unused)))
{
    /* return x + 42; */
    asm("leal 42(%rdi), %eax\n"
        "ret\n"
        ".balign 4096, 0xcc\n");
}

static const unsigned char *const code_page = (const unsigned char *)answer;

typedef int Function(int x);

static int failures;

__attribute__((format(printf, 4, 5)))
static void row(bool ok, const char *what, const char *expected,
                const char *seen, ...)
{
    va_list ap;

    printf("%s\t%s\t%s\t", ok ? "ok" : "not ok", what, expected);
    va_start(ap, seen);
    vprintf(seen, ap);
    va_end(ap);
    putchar('\n');
    fflush(stdout);
    failures += !ok;
}

/* The outcome of an access: what the signal handler was told, if anything */
typedef struct Outcome {
    int sig;
    int code;
    unsigned long addr;
    unsigned long trap;
    unsigned long error;
} Outcome;

static __thread sigjmp_buf *landing;
static __thread Outcome outcome;

static void on_signal(int sig, siginfo_t *info, void *context)
{
    const ucontext_t *uc = context;

    if (!landing) {
        static const char msg[] = "xo-test: a signal nothing waited for\n";

        if (write(STDERR_FILENO, msg, sizeof(msg) - 1) < 0) {
            _exit(3);
        }
        _exit(2);
    }
    outcome.sig = sig;
    outcome.code = info->si_code;
    outcome.addr = (unsigned long)info->si_addr;
    outcome.trap = uc->uc_mcontext.gregs[REG_TRAPNO];
    outcome.error = uc->uc_mcontext.gregs[REG_ERR];
    siglongjmp(*landing, 1);
}

static void read_byte(const unsigned char *p)
{
    asm volatile("movb %0, %%al" : : "m" (*p) : "al");
}

static void read_quad(const unsigned char *p)
{
    asm volatile("movq %0, %%rax" : : "m" (*p) : "rax");
}

static void read_vector(const unsigned char *p)
{
    asm volatile("movups %0, %%xmm0" : : "m" (*p) : "xmm0");
}

static void read_string(const unsigned char *p)
{
    asm volatile("lodsb" : "+S" (p) : "m" (*p) : "al");
}

static void write_byte(const unsigned char *p)
{
    asm volatile("movb $0, (%0)" : : "r" (p) : "memory");
}

static void write_locked(const unsigned char *p)
{
    asm volatile("lock incl (%0)" : : "r" (p) : "memory", "cc");
}

typedef void Access(const unsigned char *p);

/* Give it the pages' address; an access that works leaves sig 0. */
static Outcome try_access(Access *access, const unsigned char *p)
{
    sigjmp_buf here;

    memset(&outcome, 0, sizeof(outcome));
    if (!sigsetjmp(here, 1)) {
        landing = &here;
        access(p);
    }
    landing = NULL;
    return outcome;
}

static bool refused(const Outcome *o, const unsigned char *p,
                    unsigned long error)
{
    return o->sig == SIGSEGV && o->code == SEGV_ACCERR && o->trap == 14 &&
           o->error == error && o->addr == (unsigned long)p;
}

static void describe(char *text, size_t size, const Outcome *o,
                     const unsigned char *p)
{
    if (!o->sig) {
        snprintf(text, size, "the access worked");
    } else if (o->sig == SIGSEGV && o->trap == 14 &&
               o->addr == (unsigned long)p) {
        snprintf(text, size, "SIGSEGV%s, #PF 0x%lx",
                 o->code == SEGV_ACCERR ? "" :
                 o->code == SEGV_PKUERR ? " by a protection key" :
                 o->code == SEGV_MAPERR ? " as if not mapped" :
                 " with an odd code", o->error);
    } else {
        snprintf(text, size, "signal %d, code %d, trap %lu, error 0x%lx, "
                 "address 0x%lx for 0x%lx", o->sig, o->code, o->trap,
                 o->error, o->addr, (unsigned long)p);
    }
}

static void expect_refused(const char *what, Access *access,
                           const unsigned char *p, bool write)
{
    unsigned long error = PF_P | PF_U | (write ? PF_W : 0);
    Outcome o = try_access(access, p);
    char seen[128];

    describe(seen, sizeof(seen), &o, p);
    row(refused(&o, p, error), what,
        write ? "SIGSEGV, #PF 0x7" : "SIGSEGV, #PF 0x5", "%s", seen);
}

/*
 * An instruction that reads and writes may fault as either: with one CPU,
 * TCG carries out a locked one as a load and then a store.
 */
static void expect_either_refused(const char *what, Access *access,
                                  const unsigned char *p)
{
    Outcome o = try_access(access, p);
    char seen[128];

    describe(seen, sizeof(seen), &o, p);
    row(refused(&o, p, PF_P | PF_U) || refused(&o, p, PF_P | PF_U | PF_W),
        what, "SIGSEGV, #PF 5 or 7", "%s", seen);
}

static bool may_read(const unsigned char *p)
{
    return try_access(read_byte, p).sig == 0;
}

static const char *error_name(int error)
{
    return error == EFAULT ? "EFAULT" :
           error == EACCES ? "EACCES" :
           error == EIO ? "EIO" : strerror(error);
}

static int open_device(void)
{
    int fd = open(DEVICE, O_RDWR | O_CLOEXEC);

    if (fd < 0) {
        fprintf(stderr, "xo-test: %s: %s\n", DEVICE, strerror(errno));
        exit(1);
    }
    return fd;
}

static int load(int fd, const void *addr, unsigned int size,
                unsigned int flags)
{
    struct guard_xo_load req = {
        .addr = (unsigned long)addr,
        .size = size,
        .flags = flags,
    };

    return ioctl(fd, GUARD_XO_LOAD, &req) < 0 ? errno : 0;
}

static int load_page(unsigned int flags)
{
    int fd = open_device();
    int err = load(fd, code_page, PAGE, flags);

    if (err) {
        fprintf(stderr, "xo-test: GUARD_XO_LOAD: %s\n", strerror(err));
        exit(1);
    }
    return fd;
}

/* Exits with a message where nothing can be shown without the mapping */
static unsigned char *map_page(int fd, void *addr, int flags, off_t offset)
{
    unsigned char *p = mmap(addr, PAGE, PROT_READ | PROT_EXEC,
                            MAP_SHARED | flags, fd, offset);

    if (p == MAP_FAILED) {
        fprintf(stderr, "xo-test: mmap of %s: %s\n", DEVICE,
                strerror(errno));
        exit(1);
    }
    return p;
}

static int call(const unsigned char *p, int x)
{
    return ((Function *)p)(x);
}

/*
 * A protection key can forbid reading as well, and Linux makes use of one
 * for PROT_EXEC alone.  Open all keys, so that no key is what is seen here.
 */
static void open_protection_keys(void)
{
    unsigned int eax, ebx, ecx, edx;

    if (__get_cpuid_count(7, 0, &eax, &ebx, &ecx, &edx) && ecx & (1 << 4)) {
        asm volatile("wrpkru" : : "a" (0), "c" (0), "d" (0) : "memory");
    }
}

static void show_cpu(void)
{
    unsigned int max, eax = 0, ebx, ecx, edx;

    __cpuid(0x40000000, max, ebx, ecx, edx);
    if (max >= 0x40000030) {
        __cpuid(0x40000030, eax, ebx, ecx, edx);
    }
    row(eax & 1, "CPUID 0x40000030 offers XO", "EAX bit 0 set",
        "EAX 0x%x", eax);
    __cpuid(0x80000008, eax, ebx, ecx, edx);
    row((eax & 0xff) < 52, "XO bit M, from leaf 0x80000008",
        "below bit 52", "bit %u", eax & 0xff);
}

static const char *map_flags(const unsigned char *p, char flags[5])
{
    FILE *f = fopen("/proc/self/maps", "r");
    unsigned long start;
    char line[512];

    strcpy(flags, "none");
    while (f && fgets(line, sizeof(line), f)) {
        if (sscanf(line, "%lx-%*x %4s", &start, flags) == 2 &&
            start == (unsigned long)p) {
            break;
        }
        strcpy(flags, "none");
    }
    if (f) {
        fclose(f);
    }
    return flags;
}

static void show_mapping(void)
{
    int fd = load_page(GUARD_XO_ORDINARY);
    unsigned char *xo = map_page(fd, NULL, 0, 0);
    unsigned char *plain = map_page(fd, NULL, 0, GUARD_XO_ORDINARY_OFFSET);
    char xo_flags[5], plain_flags[5];
    int seen;

    seen = call(xo, 1000);
    row(seen == 1042, "calling the function", "1042", "%d", seen);

    expect_refused("reading a byte", read_byte, xo, false);
    expect_refused("reading 8 bytes", read_quad, xo + 1024, false);
    expect_refused("reading 16 bytes with SSE", read_vector, xo + 16, false);
    expect_refused("reading with LODSB", read_string, xo + PAGE - 1, false);
    expect_refused("writing a byte", write_byte, xo, true);
    expect_either_refused("LOCK INC", write_locked, xo + 64);

    seen = call(xo, 2000);
    row(seen == 2042, "calling it once more", "2042", "%d", seen);

    /* Both mappings are the same to Linux: only the bit can differ. */
    map_flags(xo, xo_flags);
    map_flags(plain, plain_flags);
    row(!strcmp(xo_flags, "--xs") && !strcmp(plain_flags, "--xs"),
        "flags of it and of the control", "--xs and --xs",
        "%s and %s", xo_flags, plain_flags);
    if (may_read(plain)) {
        seen = memcmp(plain, code_page, PAGE);
        row(!seen, "control: the frame without XO", "readable",
            "readable, %s", seen ? "other bytes" : "the same bytes");
    } else {
        row(false, "control: the frame without XO", "readable",
            "can't be read");
    }

    munmap(xo, PAGE);
    munmap(plain, PAGE);
    close(fd);
}

/* Ways to have somebody else read it */
static void show_kernel_readers(void)
{
    int fd = load_page(0);
    unsigned char *xo = map_page(fd, NULL, 0, 0);
    unsigned char buffer[16];
    struct iovec local = { buffer, sizeof(buffer) };
    struct iovec remote = { xo, sizeof(buffer) };
    int pipes[2], mem, status;
    ssize_t n;
    pid_t pid;
    long word;

    /* The mapping outlives the descriptor. */
    close(fd);

    if (pipe(pipes) < 0) {
        perror("xo-test: pipe");
        exit(1);
    }
    n = write(pipes[1], xo, 16);
    row(n == -1 && errno == EFAULT, "write(2) from it to a pipe", "EFAULT",
        "%s", n == -1 ? error_name(errno) : "bytes were written");
    n = write(pipes[1], code_page, 16);
    row(n == 16, "control: write(2), the original", "16 bytes",
        "%zd bytes", n);
    n = read(pipes[0], xo, 16);
    row(n == -1 && errno == EFAULT, "read(2) from a pipe into it", "EFAULT",
        "%s", n == -1 ? error_name(errno) : "bytes were read");
    close(pipes[0]);
    close(pipes[1]);

    n = process_vm_readv(getpid(), &local, 1, &remote, 1, 0);
    row(n == -1 && errno == EFAULT, "process_vm_readv(2)", "EFAULT", "%s",
        n == -1 ? error_name(errno) : "bytes were read");

    mem = open("/proc/self/mem", O_RDONLY);
    n = pread(mem, buffer, sizeof(buffer), (unsigned long)xo);
    row(mem >= 0 && n == -1 && errno == EIO, "/proc/self/mem", "EIO", "%s",
        n == -1 ? error_name(errno) : "bytes were read");
    n = pread(mem, buffer, sizeof(buffer), (unsigned long)code_page);
    row(n == sizeof(buffer), "control: the original there", "16 bytes",
        "%zd bytes", n);
    close(mem);

    pid = fork();
    if (pid == 0) {
        ptrace(PTRACE_TRACEME, 0, NULL, NULL);
        raise(SIGSTOP);
        _exit(0);
    }
    waitpid(pid, &status, 0);
    errno = 0;
    word = ptrace(PTRACE_PEEKTEXT, pid, xo, NULL);
    row(word == -1 && errno == EIO, "ptrace(PTRACE_PEEKTEXT)", "EIO", "%s",
        errno ? error_name(errno) : "a word was read");
    kill(pid, SIGKILL);
    waitpid(pid, &status, 0);

    munmap(xo, PAGE);
}

static void show_lifecycle(void)
{
    int fd = load_page(0);
    unsigned char *xo = map_page(fd, NULL, 0, 0);
    unsigned char *other;
    int err, status = 0;
    bool ok;
    pid_t pid;

    close(fd);

    pid = fork();
    if (pid == 0) {
        Outcome o = try_access(read_byte, xo);

        _exit(call(xo, 1) == 43 && refused(&o, xo, PF_P | PF_U) ? 0 : 1);
    }
    ok = pid > 0 && waitpid(pid, &status, 0) == pid && status == 0;
    row(ok, "in a child after fork(2)", "runs, not readable", "%s",
        ok ? "runs, not readable" : "something else");

    err = mprotect(xo, PAGE, PROT_READ | PROT_EXEC) < 0 ? errno : 0;
    row(err == EACCES, "mprotect(2) to PROT_READ", "EACCES", "%s",
        err ? error_name(err) : "it worked");

    ok = mprotect(xo, PAGE, PROT_NONE) == 0 &&
         mprotect(xo, PAGE, PROT_EXEC) == 0;
    open_protection_keys();
    ok = ok && call(xo, 1) == 43 && !may_read(xo);
    row(ok, "mprotect(2) PROT_NONE and back", "runs, not readable", "%s",
        ok ? "runs, not readable" : "something else");

    other = mremap(xo, PAGE, PAGE, MREMAP_MAYMOVE | MREMAP_FIXED,
                   mmap(NULL, PAGE, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS,
                        -1, 0));
    ok = other != MAP_FAILED && call(other, 1) == 43 && !may_read(other);
    row(ok, "moved with mremap(2)", "runs, not readable", "%s",
        ok ? "runs, not readable" : "something else");
    munmap(other == MAP_FAILED ? xo : other, PAGE);
}

static int map_error(int fd, size_t size, int prot, int flags, off_t offset)
{
    void *p = mmap(NULL, size, prot, flags, fd, offset);

    if (p == MAP_FAILED) {
        return errno;
    }
    munmap(p, size);
    return 0;
}

static void show_hostile_arguments(void)
{
    const char *wrong = NULL;
    int count = 0, fd = open_device(), two, err;
    unsigned char *xo;

#define REFUSED(error, what) \
    do { \
        count++; \
        if ((what) != (error) && !wrong) { \
            wrong = #what; \
        } \
    } while (0)
#define MAP(size, prot, flags, offset) \
    map_error(fd, size, prot, flags, offset)
#define ERRNO(what) ((what) < 0 ? errno : 0)

    REFUSED(ENODATA, MAP(PAGE, PROT_EXEC, MAP_SHARED, 0));
    REFUSED(ENOTTY, ERRNO(ioctl(fd, GUARD_XO_LOAD + 1, 0)));
    REFUSED(EFAULT, ERRNO(ioctl(fd, GUARD_XO_LOAD, 0)));
    REFUSED(EFAULT, ERRNO(ioctl(fd, GUARD_XO_LOAD, -1l)));
    REFUSED(EINVAL, load(fd, code_page, 0, 0));
    REFUSED(EINVAL, load(fd, code_page, 1, 0));
    REFUSED(EINVAL, load(fd, code_page, -1u, 0));
    REFUSED(EINVAL, load(fd, code_page, (unsigned int)-PAGE, 0));
    REFUSED(EINVAL, load(fd, code_page, GUARD_XO_MAX_SIZE + PAGE, 0));
    REFUSED(EINVAL, load(fd, code_page, PAGE, 2));
    REFUSED(EINVAL, load(fd, code_page + 1, PAGE, 0));
    REFUSED(EFAULT, load(fd, NULL, PAGE, 0));
    REFUSED(EFAULT, load(fd, (void *)-PAGE, PAGE, 0));
    REFUSED(EFAULT, load(fd, (void *)0xffff888000000000ul, PAGE, 0));
    REFUSED(EFAULT, load(fd, (void *)0x7ffffffff000ul, 2 * PAGE, 0));
    REFUSED(0, load(fd, code_page, PAGE, 0));
    REFUSED(EBUSY, load(fd, code_page, PAGE, 0));
    REFUSED(EACCES, MAP(PAGE, PROT_WRITE | PROT_EXEC, MAP_SHARED, 0));
    REFUSED(EACCES, MAP(PAGE, PROT_READ, MAP_SHARED, 0));
    REFUSED(EACCES, MAP(PAGE, PROT_NONE, MAP_SHARED, 0));
    REFUSED(EINVAL, MAP(PAGE, PROT_READ | PROT_EXEC, MAP_PRIVATE, 0));
    REFUSED(EINVAL, MAP(2 * PAGE, PROT_READ | PROT_EXEC, MAP_SHARED, 0));
    REFUSED(EINVAL, MAP(PAGE, PROT_READ | PROT_EXEC, MAP_SHARED, PAGE));
    REFUSED(EACCES, MAP(PAGE, PROT_READ | PROT_EXEC, MAP_SHARED,
                        GUARD_XO_ORDINARY_OFFSET));
    close(fd);

    fd = open_device();
    two = load(fd, mmap(NULL, 2 * PAGE, PROT_READ,
                        MAP_PRIVATE | MAP_ANONYMOUS, -1, 0), 2 * PAGE, 0);
    xo = mmap(NULL, 2 * PAGE, PROT_EXEC, MAP_SHARED, fd, 0);
    REFUSED(0, two);
    REFUSED(true, xo != MAP_FAILED);
    if (xo != MAP_FAILED) {
        REFUSED(EINVAL, ERRNO(munmap(xo, PAGE)));
        REFUSED(EINVAL, ERRNO(mprotect(xo + PAGE, PAGE, PROT_NONE)));
        err = mremap(xo, 2 * PAGE, 3 * PAGE, MREMAP_MAYMOVE) == MAP_FAILED;
        REFUSED(true, err);
        munmap(xo, 2 * PAGE);
    }
    close(fd);

#undef REFUSED
#undef MAP
#undef ERRNO
    row(!wrong, "bad ioctl(2), mmap(2) arguments",
        "each its own error", "%s", wrong ? wrong : "each its own error");
    if (count < 29) {
        row(false, "bad arguments tried", "29", "%d", count);
    }
}

/*
 * Last, for afterwards nothing can read the function any more: the mapping
 * takes the place of the page that the code came from.
 */
static void show_in_place(void)
{
    int fd = load_page(0), seen;

    row(may_read(code_page), "the program's own page, before", "readable",
        "%s", may_read(code_page) ? "readable" : "can't be read");
    map_page(fd, (void *)code_page, MAP_FIXED, 0);
    close(fd);
    seen = answer(1000);
    row(seen == 1042, "replaced in place: answer(1000)", "1042",
        "%d", seen);
    expect_refused("reading the code of answer()", read_byte, code_page,
                   false);
    expect_refused("writing the code of answer()", write_byte, code_page,
                   true);
}

#define RACE_ROUNDS 3000

typedef struct Racer {
    pthread_t thread;
    unsigned int cpu;
    const unsigned char *xo;
    unsigned int calls;
    unsigned int refused;
} Racer;

static pthread_barrier_t start_line;

static void *race(void *opaque)
{
    Racer *r = opaque;
    cpu_set_t set;
    Outcome o;
    int i;

    CPU_ZERO(&set);
    CPU_SET(r->cpu, &set);
    if (sched_setaffinity(0, sizeof(set), &set) < 0) {
        return NULL;
    }
    open_protection_keys();
    pthread_barrier_wait(&start_line);
    for (i = 0; i < RACE_ROUNDS; i++) {
        const unsigned char *p = r->xo + i % PAGE;

        r->calls += call(r->xo, i) == i + 42;
        o = try_access(i & 1 ? write_byte : read_byte, p);
        r->refused += refused(&o, p, PF_P | PF_U | (i & 1 ? PF_W : 0));
    }
    return NULL;
}

static void show_race(void)
{
    long n = sysconf(_SC_NPROCESSORS_ONLN), i;
    Racer *racers = calloc(n, sizeof(*racers));
    unsigned char *xo;
    int fd = load_page(0);

    xo = map_page(fd, NULL, 0, 0);
    close(fd);
    pthread_barrier_init(&start_line, NULL, n);
    for (i = 0; i < n; i++) {
        racers[i].cpu = i;
        racers[i].xo = xo;
        if (pthread_create(&racers[i].thread, NULL, race, &racers[i])) {
            fprintf(stderr, "xo-test: can't create a thread\n");
            exit(1);
        }
    }
    for (i = 0; i < n; i++) {
        char what[64], expected[40];

        pthread_join(racers[i].thread, NULL);
        snprintf(what, sizeof(what), "CPU %ld of %ld, all at one page", i, n);
        snprintf(expected, sizeof(expected), "%d runs, %d #PF",
                 RACE_ROUNDS, RACE_ROUNDS);
        row(racers[i].calls == RACE_ROUNDS &&
            racers[i].refused == RACE_ROUNDS, what, expected,
            "%u runs, %u #PF", racers[i].calls, racers[i].refused);
    }
    munmap(xo, PAGE);
    free(racers);
}

static void show_no_leak(void)
{
    const int rounds = (1 << 30) / GUARD_XO_MAX_SIZE;
    void *mem = mmap(NULL, GUARD_XO_MAX_SIZE, PROT_READ | PROT_WRITE,
                     MAP_PRIVATE | MAP_ANONYMOUS | MAP_POPULATE, -1, 0);
    int i, fd, err = 0;
    void *xo;

    for (i = 0; i < rounds && !err; i++) {
        fd = open_device();
        err = load(fd, mem, GUARD_XO_MAX_SIZE, 0);
        xo = mmap(NULL, GUARD_XO_MAX_SIZE, PROT_EXEC, MAP_SHARED, fd, 0);
        if (!err && xo == MAP_FAILED) {
            err = errno;
        }
        close(fd);
        if (xo != MAP_FAILED) {
            munmap(xo, GUARD_XO_MAX_SIZE);
        }
    }
    row(!err, "loading 1 GiB, piece by piece",
        "no memory lost", "%s", err ? strerror(err) : "no memory lost");
}

int main(int argc, char **argv)
{
    const char *mode = argc > 1 ? argv[1] : "";
    struct sigaction action = {
        .sa_sigaction = on_signal,
        .sa_flags = SA_SIGINFO,
    };

    if (argc > 2) {
        fprintf(stderr, "usage: xo-test [race | leak | hold]\n");
        return 1;
    }
    sigaction(SIGSEGV, &action, NULL);
    sigaction(SIGBUS, &action, NULL);
    open_protection_keys();

    if (!strcmp(mode, "race")) {
        show_race();
    } else if (!strcmp(mode, "leak")) {
        show_no_leak();
    } else if (!strcmp(mode, "hold")) {
        map_page(load_page(0), NULL, 0, 0);
        printf("holding\n");
        fflush(stdout);
        pause();
    } else if (!*mode) {
        show_cpu();
        show_mapping();
        show_kernel_readers();
        show_lifecycle();
        show_hostile_arguments();
        show_in_place();
    } else {
        fprintf(stderr, "usage: xo-test [race | leak | hold]\n");
        return 1;
    }
    return failures ? 1 : 0;
}
