/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Every way to touch an execute-only page without a plain load: each
 * instruction that has memory operands of its own kind, stacks, string
 * instructions, descriptor tables and task state, pages side by side, the
 * XO bit where it is no leaf, SVM guests and SMM.
 *
 * docs/specs/execute-only.rst is the specification.
 */

#include "guest.h"

GUEST_RUN("max", "-cpu max,+xo");
GUEST_RUN("epyc", "-cpu EPYC,+svm,+xo");
GUEST_RUN("pc-phys-bits-36", "-machine pc -cpu max,+xo,phys-bits=36");
GUEST_RUN("single-thread", "accel=tcg,thread=single -cpu max,+xo");
GUEST_RUN("four-threads", "accel=tcg,thread=multi -cpu max,+xo -smp 4");
GUEST_RUN("one-insn", "accel=tcg,one-insn-per-tb=on -cpu max,+xo");
GUEST_RUN("icount", "-cpu max,+xo -icount shift=1");
GUEST_RUN("hostile-exit",
          "reboots timeout=20 -cpu max,+xo -append hostile-exit");
GUEST_RUN("hostile-rsm",
          "reboots timeout=20 -cpu max,+xo -append hostile-rsm");

/* What an instruction does with its operand */
enum {
    READS = 0,
    WRITES = PF_W,
    BOTH = 0x100,       /* read-modify-write: W/R is not specified */
    NOTHING = 0x200,    /* does not access it */
    KERNEL = 0x1000,    /* not at CPL 3 */
    ALONE = 0x2000,     /* not tried on an ordinary page */
};

/* Name, kind, code; the operand's address is in RDI */
#define INSTRUCTIONS(X)                                                 \
    X(mov_load8, READS, "mov (%%rdi), %%al")                            \
    X(mov_load16, READS, "mov (%%rdi), %%ax")                           \
    X(mov_load32, READS, "mov (%%rdi), %%eax")                          \
    X(mov_load64, READS, "mov (%%rdi), %%rax")                          \
    X(movzx, READS, "movzwl (%%rdi), %%eax")                            \
    X(movsx, READS, "movslq (%%rdi), %%rax")                            \
    X(movbe_load, READS, "movbe (%%rdi), %%eax")                        \
    X(add_load, READS, "add (%%rdi), %%eax")                            \
    X(cmp_load, READS, "cmp %%eax, (%%rdi)")                            \
    X(test_load, READS, "testb $1, (%%rdi)")                            \
    X(imul_load, READS, "imul (%%rdi), %%eax")                          \
    X(mul_load, READS, "mulq (%%rdi)")                                  \
    X(popcnt, READS, "popcnt (%%rdi), %%eax")                           \
    X(crc32, READS, "crc32b (%%rdi), %%eax")                            \
    X(cmov, READS, "cmovz (%%rdi), %%eax")                              \
    X(bt, READS, "btl $3, (%%rdi)")                                     \
    X(push_mem, READS, "push (%%rdi); pop %%rax")                       \
    X(call_mem, READS, "call *(%%rdi)")                                 \
    X(jmp_mem, READS | ALONE, "jmp *(%%rdi)")                           \
    X(ljmp_mem, READS | ALONE, "ljmp *(%%rdi)")                         \
    X(lcall_mem, READS | ALONE, "lcall *(%%rdi)")                       \
    X(xlat, READS, "mov %%rdi, %%r8; xchg %%rbx, %%r8; xor %%eax, %%eax;" \
      "xlatb; xchg %%rbx, %%r8")                                        \
    X(mov_ds, READS | ALONE, "mov (%%rdi), %%ds")                       \
    X(verr, READS, "verr (%%rdi)")                                      \
    X(lar, READS, "lar (%%rdi), %%eax")                                 \
    X(lgdt, READS | KERNEL | ALONE, "lgdt (%%rdi)")                     \
    X(lidt, READS | KERNEL | ALONE, "lidt (%%rdi)")                     \
    X(lldt, READS | KERNEL | ALONE, "lldt (%%rdi)")                     \
    X(ltr, READS | KERNEL | ALONE, "ltr (%%rdi)")                       \
    X(lmsw, READS | KERNEL | ALONE, "lmsw (%%rdi)")                     \
                                                                        \
    X(mov_store8, WRITES, "mov %%al, (%%rdi)")                          \
    X(mov_store16, WRITES, "mov %%ax, (%%rdi)")                         \
    X(mov_store32, WRITES, "movl $1, (%%rdi)")                          \
    X(mov_store64, WRITES, "mov %%rax, (%%rdi)")                        \
    X(movbe_store, WRITES, "movbe %%eax, (%%rdi)")                      \
    X(movnti, WRITES, "movnti %%eax, (%%rdi)")                          \
    X(setz, WRITES, "setz (%%rdi)")                                     \
    X(pop_mem, WRITES, "push %%rax; pop (%%rdi)")                       \
    X(mov_from_ds, WRITES, "mov %%ds, (%%rdi)")                         \
    X(sgdt, WRITES, "sgdt (%%rdi)")                                     \
    X(sidt, WRITES, "sidt (%%rdi)")                                     \
    X(sldt, WRITES, "sldt (%%rdi)")                                     \
    X(str, WRITES, "str (%%rdi)")                                       \
    X(smsw, WRITES, "smsw (%%rdi)")                                     \
                                                                        \
    X(add_store, BOTH, "add %%eax, (%%rdi)")                            \
    X(inc, BOTH, "incl (%%rdi)")                                        \
    X(shl, BOTH, "shll $1, (%%rdi)")                                    \
    X(neg, BOTH, "negb (%%rdi)")                                        \
    X(shld, BOTH, "shld $4, %%eax, (%%rdi)")                            \
    X(bts, BOTH, "btsl $3, (%%rdi)")                                    \
    X(xchg, BOTH, "xchg %%eax, (%%rdi)")                                \
    X(xadd, BOTH, "xadd %%eax, (%%rdi)")                                \
    X(cmpxchg, BOTH, "cmpxchg %%ecx, (%%rdi)")                          \
    X(cmpxchg8b, BOTH, "xor %%eax, %%eax; cmpxchg8b (%%rdi)")           \
    X(cmpxchg16b, BOTH, "xor %%eax, %%eax; cmpxchg16b (%%rdi)")         \
    X(lock_add, BOTH, "lock add %%eax, (%%rdi)")                        \
    X(lock_inc8, BOTH, "lock incb (%%rdi)")                             \
    X(lock_not, BOTH, "lock notq (%%rdi)")                              \
    X(lock_neg, BOTH, "lock negq (%%rdi)")                              \
    X(lock_bts, BOTH, "lock btsq $9, (%%rdi)")                          \
    X(lock_xadd, BOTH, "lock xadd %%rax, (%%rdi)")                      \
    X(lock_cmpxchg, BOTH, "lock cmpxchg %%rcx, (%%rdi)")                \
    X(lock_cmpxchg8b, BOTH, "lock cmpxchg8b (%%rdi)")                   \
    X(lock_cmpxchg16b, BOTH, "lock cmpxchg16b (%%rdi)")                 \
                                                                        \
    X(lodsb, READS, "mov %%rdi, %%rsi; lodsb")                          \
    X(lodsq, READS, "mov %%rdi, %%rsi; lodsq")                          \
    X(rep_lodsb, READS, "mov %%rdi, %%rsi; mov $5, %%ecx; rep lodsb")   \
    X(scasb, READS, "scasb")                                            \
    X(repne_scasb, READS, "mov $5, %%ecx; repne scasb")                 \
    X(cmpsb_src, READS, "mov %%rdi, %%rsi; mov %%rsp, %%rdi; cmpsb")    \
    X(cmpsb_dst, READS, "mov %%rsp, %%rsi; cmpsb")                      \
    X(repe_cmpsq_dst, READS, "mov %%rsp, %%rsi; mov $2, %%ecx;"         \
      "repe cmpsq")                                                     \
    X(movsb_src, READS, "mov %%rdi, %%rsi; lea -64(%%rsp), %%rdi; movsb") \
    X(movsb_dst, WRITES, "mov %%rsp, %%rsi; movsb")                     \
    X(rep_movsb_src, READS, "mov %%rdi, %%rsi; lea -64(%%rsp), %%rdi;"  \
      "mov $5, %%ecx; rep movsb")                                       \
    X(rep_movsq_dst, WRITES, "mov %%rsp, %%rsi; mov $2, %%ecx; rep movsq") \
    X(std_movsb_src, READS, "mov %%rdi, %%rsi; lea -64(%%rsp), %%rdi;"  \
      "std; mov $2, %%ecx; rep movsb; cld")                             \
    X(stosb, WRITES, "stosb")                                           \
    X(stosq, WRITES, "stosq")                                           \
    X(rep_stosb, WRITES, "mov $5, %%ecx; rep stosb")                    \
    X(rep_stos_none, NOTHING, "xor %%ecx, %%ecx; rep stosb")            \
    X(rep_lods_none, NOTHING, "mov %%rdi, %%rsi; xor %%ecx, %%ecx;"     \
      "rep lodsb")                                                      \
    X(insb, WRITES | KERNEL, "mov $0x80, %%edx; insb")                  \
    X(rep_insb, WRITES | KERNEL, "mov $0x80, %%edx; mov $2, %%ecx;"     \
      "rep insb")                                                       \
    X(outsb, READS | KERNEL, "mov %%rdi, %%rsi; mov $0x80, %%edx; outsb") \
    X(rep_outsb, READS | KERNEL, "mov %%rdi, %%rsi; mov $0x80, %%edx;"  \
      "mov $2, %%ecx; rep outsb")                                       \
                                                                        \
    X(fld32, READS, "fninit; flds (%%rdi)")                             \
    X(fld64, READS, "fninit; fldl (%%rdi)")                             \
    X(fld80, READS, "fninit; fldt (%%rdi)")                             \
    X(fild16, READS, "fninit; filds (%%rdi)")                           \
    X(fild64, READS, "fninit; fildll (%%rdi)")                          \
    X(fbld, READS, "fninit; fbld (%%rdi)")                              \
    X(fadd, READS, "fninit; fld1; fadds (%%rdi)")                       \
    X(fldcw, READS, "fldcw (%%rdi); fninit")                            \
    X(fldenv, READS | ALONE, "fldenv (%%rdi)")                          \
    X(frstor, READS | ALONE, "frstor (%%rdi)")                          \
    X(fxrstor, READS | ALONE, "fxrstor (%%rdi)")                        \
    X(xrstor, READS | ALONE, "mov $7, %%eax; xor %%edx, %%edx;"         \
      "xrstor (%%rdi)")                                                 \
    X(fst32, WRITES, "fninit; fld1; fsts (%%rdi)")                      \
    X(fstp64, WRITES, "fninit; fld1; fstpl (%%rdi)")                    \
    X(fstp80, WRITES, "fninit; fld1; fstpt (%%rdi)")                    \
    X(fist16, WRITES, "fninit; fld1; fists (%%rdi)")                    \
    X(fistp64, WRITES, "fninit; fld1; fistpll (%%rdi)")                 \
    X(fisttp, WRITES, "fninit; fld1; fisttpl (%%rdi)")                  \
    X(fbstp, WRITES, "fninit; fld1; fbstp (%%rdi)")                     \
    X(fnstcw, WRITES, "fnstcw (%%rdi)")                                 \
    X(fnstsw, WRITES, "fnstsw (%%rdi)")                                 \
    X(fnstenv, WRITES, "fnstenv (%%rdi)")                               \
    X(fnsave, WRITES, "fnsave (%%rdi)")                                 \
    X(fxsave, WRITES, "fxsave (%%rdi)")                                 \
    X(xsave, BOTH, "mov $7, %%eax; xor %%edx, %%edx; xsave (%%rdi)")    \
    X(xsaveopt, BOTH, "mov $7, %%eax; xor %%edx, %%edx;"                \
      "xsaveopt (%%rdi)")                                               \
                                                                        \
    X(movd, READS, "movd (%%rdi), %%xmm0")                              \
    X(movq, READS, "movq (%%rdi), %%xmm0")                              \
    X(movups_load, READS, "movups (%%rdi), %%xmm0")                     \
    X(movaps_load, READS, "movaps (%%rdi), %%xmm0")                     \
    X(lddqu, READS, "lddqu (%%rdi), %%xmm0")                            \
    X(movntdqa, READS, "movntdqa (%%rdi), %%xmm0")                      \
    X(movhps_load, READS, "movhps (%%rdi), %%xmm0")                     \
    X(addps, READS, "addps (%%rdi), %%xmm0")                            \
    X(pxor_mmx, READS, "pxor (%%rdi), %%mm0; emms")                     \
    X(cvtsi2sd, READS, "cvtsi2sdl (%%rdi), %%xmm0")                     \
    X(pcmpistri, READS, "pcmpistri $0, (%%rdi), %%xmm0")                \
    X(pshufb, READS, "pshufb (%%rdi), %%xmm0")                          \
    X(aesenc, READS, "aesenc (%%rdi), %%xmm0")                          \
    X(ldmxcsr, READS | ALONE, "ldmxcsr (%%rdi)")                        \
    X(movups_store, WRITES, "movups %%xmm0, (%%rdi)")                   \
    X(movaps_store, WRITES, "movaps %%xmm0, (%%rdi)")                   \
    X(movntdq, WRITES, "movntdq %%xmm0, (%%rdi)")                       \
    X(movntq, WRITES, "movntq %%mm0, (%%rdi); emms")                    \
    X(movhps_store, WRITES, "movhps %%xmm0, (%%rdi)")                   \
    X(movq_store, WRITES, "movq %%xmm0, (%%rdi)")                       \
    X(maskmovdqu, WRITES, "pcmpeqd %%xmm1, %%xmm1;"                     \
      "maskmovdqu %%xmm1, %%xmm0")                                      \
    X(pextrb, WRITES, "pextrb $0, %%xmm0, (%%rdi)")                     \
    X(stmxcsr, WRITES, "stmxcsr (%%rdi)")                               \
    X(vmovdqu_load, READS, "vmovdqu (%%rdi), %%ymm0")                   \
    X(vmovaps_load, READS, "vmovaps (%%rdi), %%ymm0")                   \
    X(vbroadcastss, READS, "vbroadcastss (%%rdi), %%ymm0")              \
    X(vbroadcastf128, READS, "vbroadcastf128 (%%rdi), %%ymm0")          \
    X(vpaddd, READS, "vpaddd (%%rdi), %%ymm0, %%ymm0")                  \
    X(vmaskmovps_load, READS, "vpcmpeqd %%ymm1, %%ymm1, %%ymm1;"        \
      "vmaskmovps (%%rdi), %%ymm1, %%ymm0")                             \
    X(vpgatherdd, READS, "vpcmpeqd %%ymm1, %%ymm1, %%ymm1;"             \
      "vpxor %%ymm2, %%ymm2, %%ymm2;"                                   \
      "vpgatherdd %%ymm1, (%%rdi, %%ymm2, 4), %%ymm0")                  \
    X(vmovdqu_store, WRITES, "vmovdqu %%ymm0, (%%rdi)")                 \
    X(vmovaps_store, WRITES, "vmovaps %%ymm0, (%%rdi)")                 \
    X(vmovntdq, WRITES, "vmovntdq %%ymm0, (%%rdi)")                     \
    X(vextractf128, WRITES, "vextractf128 $1, %%ymm0, (%%rdi)")         \
    X(vmaskmovps_store, WRITES, "vpcmpeqd %%ymm1, %%ymm1, %%ymm1;"      \
      "vmaskmovps %%ymm0, %%ymm1, (%%rdi)")                             \
                                                                        \
    X(push, WRITES, "mov %%rsp, %%r8; lea 8(%%rdi), %%rsp; push %%rax;" \
      "mov %%r8, %%rsp")                                                \
    X(pushw, WRITES, "mov %%rsp, %%r8; lea 2(%%rdi), %%rsp; pushw $1;"  \
      "mov %%r8, %%rsp")                                                \
    X(pop, READS, "mov %%rsp, %%r8; mov %%rdi, %%rsp; pop %%rax;"       \
      "mov %%r8, %%rsp")                                                \
    X(pushf, WRITES, "mov %%rsp, %%r8; lea 8(%%rdi), %%rsp; pushf;"     \
      "mov %%r8, %%rsp")                                                \
    X(popf, READS | ALONE, "mov %%rdi, %%rsp; popf")                    \
    X(call, WRITES, "mov %%rsp, %%r8; lea 8(%%rdi), %%rsp; call 1f;"    \
      "1: mov %%r8, %%rsp")                                             \
    X(ret, READS | ALONE, "mov %%rdi, %%rsp; ret")                      \
    X(lret, READS | ALONE, "mov %%rdi, %%rsp; lretq")                   \
    X(iretq, READS | ALONE, "mov %%rdi, %%rsp; iretq")                  \
    X(enter, WRITES, "mov %%rsp, %%r8; mov %%rbp, %%r9;"                \
      "lea 8(%%rdi), %%rsp; enter $0, $0; mov %%r9, %%rbp;"             \
      "mov %%r8, %%rsp")                                                \
    X(leave, READS, "mov %%rsp, %%r8; mov %%rbp, %%r9;"                 \
      "mov %%rdi, %%rbp; leave; mov %%r9, %%rbp; mov %%r8, %%rsp")      \
                                                                        \
    X(clflush, NOTHING, "clflush (%%rdi)")                              \
    X(prefetch, NOTHING, "prefetcht0 (%%rdi)")                          \
    X(prefetchw, NOTHING, "prefetchw (%%rdi)")                          \
    X(nop, NOTHING, "nopl (%%rdi)")                                     \
    X(lea, NOTHING, "lea (%%rdi), %%rax")                               \
    X(invlpg, NOTHING | KERNEL, "invlpg (%%rdi)")

#define FUNCTION(name, kind, text)                                      \
    static USER uint64_t do_##name(uint64_t p)                          \
    {                                                                   \
        uint64_t a = 0, c = 0, d = 0;                                   \
                                                                        \
        asm volatile(text : "+D" (p), "+a" (a), "+c" (c), "+d" (d) :    \
                     : "rsi", "r8", "r9", "r10", "r11", "memory", "cc"); \
        return 0;                                                       \
    }
INSTRUCTIONS(FUNCTION)

static const struct {
    const char *name;
    unsigned kind;
    uint64_t (*fn)(uint64_t);
} instructions[] = {
#define ENTRY(name, kind, text) { #name, kind, do_##name },
    INSTRUCTIONS(ENTRY)
};

static USER void user_return(void)
{
}

/* mov $value, %eax; ret */
static void put_code(uint8_t *p, uint32_t value)
{
    *p = 0xb8;
    memcpy(p + 1, &value, 4);
    p[5] = 0xc3;
}

static uint64_t xo;

static void each_instruction(void)
{
    uint8_t *f = frame();
    uint64_t *plain = frame();
    uint8_t *secret = map(f, PTE_RW | xo), *open = map(plain, PTE_RW);
    uint8_t *user_secret = map(f, PTE_RW | PTE_U | xo);
    uint8_t *user_open = map(plain, PTE_RW | PTE_U);
    struct cpuid seven = cpuid(7, 0);

    for (unsigned i = 0; i < ARRAY_SIZE(instructions); i++) {
        const char *name = instructions[i].name;
        unsigned kind = instructions[i].kind;
        uint64_t (*fn)(uint64_t) = instructions[i].fn;
        uint64_t err = PF_P | (kind & PF_W);

        for (int cpl = 0; cpl <= (kind & KERNEL ? 0 : 3); cpl += 3) {
            uint8_t *p = cpl ? user_secret : secret;
            uint8_t *q = cpl ? user_open : open;
            Fault bad;
            Fault good = { .vec = NONE };

            p += 512;
            memset(f, 0x11, PAGE_SIZE);
            for (int w = 0; w < 512; w++) {
                plain[w] = (uint64_t)user_return;
            }
            write_cr4(read_cr4() & ~(1ull << 11));      /* UMIP */
            if (cpl) {
                bad = TRY(user(fn, (uint64_t)p));
                if (!(kind & ALONE)) {
                    good = TRY(user(fn, (uint64_t)q + 512));
                }
            } else {
                bad = TRY(fn((uint64_t)p));
                if (!(kind & ALONE)) {
                    good = TRY(fn((uint64_t)q + 512));
                }
            }
            asm volatile("fninit");
            for (unsigned b = 0; b < PAGE_SIZE; b++) {
                if (f[b] != 0x11) {
                    ok(false, "%s, CPL %d: wrote", name, cpl);
                    break;
                }
            }
            if (bad.vec == UD && good.vec == UD &&
                !(seven.ebx >> 5 & 1)) {
                skip("%s: not on this CPU model", name);
            } else if (kind & NOTHING) {
                ok(bad.vec == NONE && good.vec == NONE,
                   "%s, CPL %d: no access, no fault: %s", name, cpl,
                   fault_text(bad));
            } else {
                if (kind & BOTH) {
                    bad.err &= ~PF_W;
                }
                ok(bad.vec == PF && bad.err == (err | (cpl ? PF_U : 0)) &&
                   bad.cr2 == (uint64_t)p && good.vec == NONE,
                   "%s, CPL %d, faults; not on an ordinary page", name, cpl);
                if (bad.vec != PF || bad.err != (err | (cpl ? PF_U : 0)) ||
                    bad.cr2 != (uint64_t)p || good.vec != NONE) {
                    note("got %s, expected error 0x%lx cr2 %p; ordinary "
                         "page: %s", fault_text(bad),
                         err | (cpl ? PF_U : 0), p, fault_text(good));
                }
            }
        }
    }
}

#define string(insn, from, to, count) do {                              \
    void *s_ = from, *d_ = to;                                          \
    uint64_t c_ = count;                                                \
                                                                        \
    asm volatile(insn : "+S" (s_), "+D" (d_), "+c" (c_) : "a" (0x4444)  \
                 : "memory", "cc");                                     \
} while (0)

/* String instructions that run from an ordinary page into the XO one */
static void strings_that_run_into(void)
{
    uint8_t *f = frame(), *g = frame(), *h = frame();
    uint8_t *p = map2(f, PTE_RW, g, PTE_RW | xo);
    uint8_t *other = map(h, PTE_RW);
    Fault t;

    memset(f, 0x77, PAGE_SIZE);
    t = TRY(string("rep movsb", p + PAGE_SIZE - 8, other, 16));
    expect_pf(t, PF_P, p + PAGE_SIZE, "REP MOVSB runs into the page");
    ok(t.gpr[RCX] == 8 && t.gpr[RSI] == (uint64_t)p + PAGE_SIZE &&
       t.gpr[RDI] == (uint64_t)other + 8 && h[7] == 0x77 && !h[8],
       "REP MOVSB stopped in front of it, RCX=%lu", t.gpr[RCX]);
    memset(g, 0x55, PAGE_SIZE);
    t = TRY(string("rep stosw", NULL, p + PAGE_SIZE - 8, 16));
    expect_pf(t, PF_P | PF_W, p + PAGE_SIZE, "REP STOSW runs into the page");
    ok(t.gpr[RCX] == 12 && f[PAGE_SIZE - 1] == 0x44 && g[0] == 0x55,
       "REP STOSW stopped in front of it, RCX=%lu", t.gpr[RCX]);
    t = TRY(string("repe scasb", NULL, p + PAGE_SIZE - 8, 16));
    expect_pf(t, PF_P, p + PAGE_SIZE, "REPE SCASB runs into the page");
    t = TRY(string("repe cmpsb", f + PAGE_SIZE - 8, p + PAGE_SIZE - 8, 16));
    expect_pf(t, PF_P, p + PAGE_SIZE, "REPE CMPSB runs into the page");
}

#define ACROSS(X)                                                       \
    X("16-bit load", 2, 0, "movw (%%rdi), %%ax")                        \
    X("32-bit load", 4, 0, "movl (%%rdi), %%eax")                       \
    X("64-bit load", 8, 0, "movq (%%rdi), %%rax")                       \
    X("m64 x87 load", 8, 0, "fninit; fldl (%%rdi)")                     \
    X("m80 x87 load", 10, 0, "fninit; fldt (%%rdi)")                    \
    X("16-byte load", 16, 0, "movups (%%rdi), %%xmm0")                  \
    X("32-byte load", 32, 0, "vmovdqu (%%rdi), %%ymm0")                 \
    X("16-bit store", 2, PF_W, "movw %%ax, (%%rdi)")                    \
    X("32-bit store", 4, PF_W, "movl %%eax, (%%rdi)")                   \
    X("64-bit store", 8, PF_W, "movq %%rax, (%%rdi)")                   \
    X("m64 x87 store", 8, PF_W, "fninit; fld1; fstpl (%%rdi)")          \
    X("m80 x87 store", 10, PF_W, "fninit; fld1; fstpt (%%rdi)")         \
    X("16-byte store", 16, PF_W, "movups %%xmm0, (%%rdi)")              \
    X("32-byte store", 32, PF_W, "vmovdqu %%ymm0, (%%rdi)")             \
    X("LOCK XADD", 8, BOTH, "lock xadd %%rax, (%%rdi)")                 \
    X("ADD", 8, BOTH, "add %%rax, (%%rdi)")                             \
    X("SGDT", 10, PF_W | ALONE, "sgdt (%%rdi)")

static void across_pages(void)
{
    uint8_t *f = frame(), *g = frame();
    uint8_t *into = map2(f, PTE_RW, g, PTE_RW | xo);
    uint8_t *out_of = map2(f, PTE_RW | xo, g, PTE_RW);
    uint8_t *plain = map2(f, PTE_RW, g, PTE_RW);

#define DO(text, where)                                                 \
    TRY(uint64_t a_ = 0x12;                                             \
        asm volatile(text : "+a" (a_) : "D" (where)                     \
                     : "rcx", "memory", "cc"))
#define TEST(name, size, kind, text) {                                  \
    int wrong = 0;                                                      \
    int tried = 0;                                                      \
    for (int n = 1; n < (size); n++) {                                  \
        for (int way = 0; way < 2; way++) {                             \
            uint8_t *p = (way ? out_of : into) + PAGE_SIZE - n;         \
            uint64_t due = PF_P | ((kind) & PF_W);                      \
            Fault fault, fine;                                          \
                                                                        \
            memset(f, 0x33, PAGE_SIZE);                                 \
            memset(g, 0x33, PAGE_SIZE);                                 \
            fault = DO(text, p);                                        \
            if ((kind) & BOTH) {                                        \
                fault.err &= ~PF_W;                                     \
            }                                                           \
            for (unsigned i = 0; !((kind) & ALONE) && i < 64; i++) {    \
                wrong += f[PAGE_SIZE - 64 + i] != 0x33 || g[i] != 0x33; \
            }                                                           \
            fine = DO(text, plain + PAGE_SIZE - n);                     \
            tried++;                                                    \
            if (fault.vec != PF || fault.err != due || fine.vec != NONE || \
                fault.cr2 != (uint64_t)(way ? p : p + n)) {             \
                if (!wrong++) {                                         \
                    note("%d bytes in the first page: %s; ordinary: %s", \
                         n, fault_text(fault), fault_text(fine));       \
                }                                                       \
            }                                                           \
        }                                                               \
    }                                                                   \
    ok(tried && !wrong, "%s across two pages, one of them execute-only: " \
       "faults, nothing written (%d ways)", name, tried);               \
}
    ACROSS(TEST)
}

static void code(void)
{
    static const uint8_t self_read[] = {
        0x8b, 0x05, 0xfa, 0xff, 0xff, 0xff, 0xc3,   /* mov -6(%rip), %eax */
    };
    static const uint8_t other_read[] = { 0x8b, 0x07, 0xc3 };
    uint8_t *f = frame(), *g = frame();
    uint32_t *data = frame();
    uint8_t *p = map(f, PTE_P | xo), *both;
    uint8_t *u = map(f, PTE_P | PTE_U | xo);
    volatile uint64_t r = 0;    /* changed in a TRY() */
    int wrong = 0;

    put_code(f, 4711);
    ok(access_fetch_kernel((uint64_t)p) == 4711, "the kernel runs its code");
    ok(user(access_fetch_user, (uint64_t)u) == 4711, "the user runs its");
    put_code(f, 4712);
    ok(access_fetch_kernel((uint64_t)p) == 4712,
       "code changed through the ordinary mapping runs changed");
    expect_pf(TRY(read8(p)), PF_P, p, "and still cannot be read");
    ok(read8(f) == 0xb8, "the same frame through its ordinary address can");
    expect_pf(TRY(write8(u, 1)), PF_P | PF_W, u, "nor written");

    memcpy(f + 0x100, self_read, sizeof(self_read));
    expect_pf(TRY(access_fetch_kernel((uint64_t)p + 0x100)), PF_P,
              p + 0x100, "code that reads itself relative to RIP");
    expect_pf(TRY(user(access_fetch_user, (uint64_t)u + 0x100)),
              PF_P | PF_U, u + 0x100, "the same at CPL 3");
    memcpy(f + 0x200, other_read, sizeof(other_read));
    *data = 815;
    expect_none(TRY(asm volatile("call *%1" : "=a" (r) : "r" (p + 0x200),
                                 "D" (data) : "memory")),
                "code that reads an ordinary page");
    ok(r == 815, "reads %lu", r);

    /* Instructions that begin on one page and end on the other */
    for (int way = 0; way < 3; way++) {
        both = map2(f, PTE_P | (way != 1 ? xo : 0),
                    g, PTE_P | (way != 0 ? xo : 0));
        for (unsigned n = 0; n <= 6; n++) {
            uint8_t bytes[6];

            put_code(bytes, 0x10000 + n);
            memset(f, 0xf4, PAGE_SIZE);
            memset(g, 0xf4, PAGE_SIZE);
            memcpy(f + PAGE_SIZE - n, bytes, n);
            memcpy(g, bytes + n, 6 - n);
            wrong += access_fetch_kernel((uint64_t)both + PAGE_SIZE - n) !=
                     0x10000 + n;
        }
        ok(!wrong, "an instruction across two pages, %s",
           way == 0 ? "the first execute-only" :
           way == 1 ? "the second execute-only" : "both execute-only");
    }
    both = map2(f, PTE_P | xo, g, 0);
    put_code(f + PAGE_SIZE - 3, 0);
    expect_pf(TRY(access_fetch_kernel((uint64_t)both + PAGE_SIZE - 3)),
              PF_I, both + PAGE_SIZE, "and the second absent");
    both = map2(f, PTE_P | xo, g, PTE_P | PTE_NX | xo);
    expect_pf(TRY(access_fetch_kernel((uint64_t)both + PAGE_SIZE - 3)),
              PF_P | PF_I, both + PAGE_SIZE, "and the second with NX");

    /* The TLB knows the page as executable; a read must not slip in */
    wrong = 0;
    put_code(f, 1);
    for (int i = 0; i < 100; i++) {
        wrong += access_fetch_kernel((uint64_t)p) != 1;
        wrong += TRY(read8(p)).vec != PF;
        wrong += access_fetch_kernel((uint64_t)p) != 1;
        wrong += TRY(write8(p, 2)).vec != PF;
    }
    ok(!wrong, "runs, reads, runs and writes in turn: %d wrong", wrong);
    set_entry(p, LEVEL_4K, (uint64_t)f | PTE_RW);
    expect_none(TRY(write8(p + 8, 1)), "without the bit it is written");
    set_entry(p, LEVEL_4K, (uint64_t)f | PTE_RW | xo);
    expect_pf(TRY(read8(p)), PF_P, p, "with the bit again it is not read");
}

static USER uint64_t user_int90(uint64_t unused)
{
    asm volatile("int $0x90");
    return unused;
}

static USER uint64_t user_load_ds(uint64_t selector)
{
    asm volatile("mov %w0, %%ds" : : "r" (selector));
    return 0;
}

static USER uint64_t user_in(uint64_t port)
{
    uint8_t v;

    asm volatile("inb %w1, %0" : "=a" (v) : "d" (port));
    return v;
}

static void descriptor_tables(void)
{
    static struct dtr ptr;
    uint8_t *f = frame(), *g = frame();
    uint8_t *p = map2(f, PTE_RW, g, PTE_RW | xo);
    uint8_t *second = p + PAGE_SIZE;
    uint64_t *descriptor = (uint64_t *)g;
    Fault t;

    /* IDT: gates from 0x80 on in the execute-only page */
    memcpy(f + 0x800, idt, 0x800);
    memcpy(g, (uint8_t *)idt + 0x800, 0x800);
    set_gate((struct gate *)g + 0x10, (void *)idt, 0, 3);
    ptr = (struct dtr) { 0xfff, (uint64_t)p + 0x800 };
    asm volatile("lidt %0" : : "m" (ptr));
    expect_pf(TRY(asm volatile("int $0x90")), PF_P, second + 0x100,
              "INT through a gate in the page");
    expect_pf(TRY(user(user_int90, 0)), PF_P, second + 0x100,
              "the same from CPL 3 (an access of the kernel)");
    /* Gates 0-9 readable, the #PF gate is not */
    memcpy(f + PAGE_SIZE - 160, idt, 160);
    memcpy(g, (uint8_t *)idt + 160, 256);
    ptr = (struct dtr) { 256 * 16 - 1, (uint64_t)p + PAGE_SIZE - 160 };
    asm volatile("lidt %0" : : "m" (ptr));
    expect(TRY(read8((void *)0x7000000000)), DF, 0,
           "#PF whose gate is in the page becomes #DF");
    expect(TRY(asm volatile("mov %0, %%ds" : : "r" (0x1008))), DF, 0,
           "#GP whose gate is in the page becomes #PF, then #DF");
    asm volatile("lidt %0" : : "m" (idt_ptr));

    /* GDT: selectors from 0x200 on in the execute-only page */
    memcpy(f + PAGE_SIZE - 0x200, gdt, gdt_ptr.limit + 1);
    for (int i = 0; i < 16; i++) {
        descriptor[i] = gdt[(i < 8 ? SEL_DATA : SEL_USER_DATA) / 8];
    }
    ptr = (struct dtr) { 0x3ff, (uint64_t)p + PAGE_SIZE - 0x200 };
    asm volatile("lgdt %0" : : "m" (ptr));
    expect_pf(TRY(asm volatile("mov %0, %%ds" : : "r" (0x208))), PF_P,
              second + 8, "MOV to DS of a descriptor in the page");
    expect_pf(TRY(asm volatile("mov %0, %%ss" : : "r" (0x208))), PF_P,
              second + 8, "MOV to SS");
    expect_pf(TRY(user(user_load_ds, 0x243)), PF_P, second + 0x40,
              "MOV to DS at CPL 3 (an access of the kernel)");
    expect_pf(TRY(asm volatile("verr %w0" : : "r" (0x208) : "cc")), PF_P,
              second + 8, "VERR");
    expect_pf(TRY(asm volatile("lar %0, %%eax" : : "r" (0x208)
                               : "eax", "cc")), PF_P, second + 8, "LAR");
    expect_pf(TRY(asm volatile("lsl %0, %%eax" : : "r" (0x208)
                               : "eax", "cc")), PF_P, second + 8, "LSL");
    expect_pf(TRY(asm volatile("lldt %w0" : : "r" (0x208))), PF_P,
              second + 8, "LLDT");
    expect_pf(TRY(asm volatile("ltr %w0" : : "r" (0x208))), PF_P,
              second + 8, "LTR");
    expect_pf(TRY(asm volatile("pushq $0x208; lea 1f(%%rip), %%rax;"
                               "pushq %%rax; lretq; 1:" : : : "rax")), PF_P,
              second + 8, "far return");
    expect_pf(TRY(asm volatile("pushq $0x10; pushq %%rsp; pushfq;"
                               "pushq $0x208; lea 1f(%%rip), %%rax;"
                               "pushq %%rax; iretq; 1:" : : : "rax")), PF_P,
              second + 8, "IRETQ");
    asm volatile("lgdt %0" : : "m" (gdt_ptr));

    /* LDT */
    set_descriptor16(gdt, SEL_LDT, 2, second, 0xff);
    asm volatile("lldt %w0" : : "r" (SEL_LDT));
    t = TRY(asm volatile("mov %0, %%ds" : : "r" (0x0c)));
    expect_pf(t, PF_P, second + 8, "MOV to DS of a descriptor of the LDT");
    asm volatile("lldt %w0" : : "r" (0));
}

static void task_state(void)
{
    uint8_t *f = frame(), *g = frame(), *s = frame();
    uint8_t *p = map2(f, PTE_RW, g, PTE_RW | xo);
    uint8_t *stack = map(s, PTE_RW | xo);
    struct tss *t = &tss[this_cpu()];
    uint64_t rsp0 = t->rsp[0];
    int tr = SEL_TSS + this_cpu() * 16;
    struct gate pf = idt[PF], ud = idt[UD];
    Fault fault;

    /* Stacks that the processor switches to */
    t->rsp[0] = (uint64_t)stack + 0x800;
    expect_pf(TRY(user(access_read_user, (uint64_t)f)), PF_P | PF_U, f,
              "an exception on its own stack is not affected");
    expect_pf(TRY(user((uint64_t (*)(uint64_t))user_return, 0)),
              PF_P | PF_W, stack + 0x7f8,
              "INT from CPL 3 to a stack in the page");
    t->rsp[0] = rsp0;
    idt[UD].ist = 7;
    t->ist[6] = (uint64_t)stack + 0x800;
    expect_pf(TRY(asm volatile("ud2")), PF_P | PF_W, stack + 0x7f8,
              "#UD to an IST stack in the page");
    idt[PF].ist = 7;
    expect(TRY(read8((void *)0x7000000000)), DF, 0,
           "#PF to an IST stack in the page becomes #DF");
    idt[PF].ist = 0;
    expect(TRY(asm volatile("mov %0, %%rsp; push %%rax"
                            : : "r" (stack + 0x800) : "memory")), DF, 0,
           "#PF of a push, to the same stack, becomes #DF");
    idt[PF] = pf;

    /* A TSS whose first three IST pointers are readable */
    memcpy(f + PAGE_SIZE - 60, t, 60);
    memcpy(g, (uint8_t *)t + 60, sizeof(*t) - 60);
    set_descriptor16(gdt, tr, 9, p + PAGE_SIZE - 60, 0x200);
    asm volatile("ltr %w0" : : "r" (tr));
    fault = TRY(asm volatile("ud2"));
    expect_pf(fault, PF_P, p + PAGE_SIZE + 24,
              "#UD whose IST pointer is in the page");
    idt[UD] = ud;
    /* 60 + 42: the I/O map pointer is in the page too */
    fault = TRY(user(user_in, 0x80));
    expect_pf(fault, PF_P, p + PAGE_SIZE + 42,
              "IN at CPL 3, the I/O map's pointer in the page");
    /* The whole TSS proper in front, the I/O map in the page */
    memcpy(f + PAGE_SIZE - 104, t, 104);
    ((struct tss *)(f + PAGE_SIZE - 104))->iomap = 104;
    set_descriptor16(gdt, tr, 9, p + PAGE_SIZE - 104, 0x200);
    asm volatile("ltr %w0" : : "r" (tr));
    expect_pf(TRY(user(user_in, 0x80)), PF_P, p + PAGE_SIZE + 0x10,
              "IN at CPL 3, the I/O map in the page");
    set_descriptor16(gdt, tr, 9, t, sizeof(*t) - 1);
    asm volatile("ltr %w0" : : "r" (tr));
}

static void all_kinds(uint64_t va, const char *what)
{
    struct {
        const char *name;
        uint64_t (*fn)(uint64_t);
        bool user;
        uint64_t err;
    } kinds[] = {
        { "read", access_read_kernel, false, PF_P },
        { "write", access_write_kernel, false, PF_P | PF_W },
        { "fetch", access_fetch_kernel, false, PF_P | PF_I },
        { "read", access_read_user, true, PF_P | PF_U },
        { "write", access_write_user, true, PF_P | PF_U | PF_W },
        { "fetch", access_fetch_user, true, PF_P | PF_U | PF_I },
    };

    for (unsigned i = 0; i < ARRAY_SIZE(kinds); i++) {
        Fault f = kinds[i].user ? TRY(user(kinds[i].fn, va))
                                : TRY(kinds[i].fn(va));

        expect_pf(f, kinds[i].err, (void *)va, "%s: %s, CPL %d", what,
                  kinds[i].name, kinds[i].user ? 3 : 0);
    }
}

static void not_a_leaf(int levels)
{
    static const char *const names[] = { "", "", "PDE", "PDPTE", "PML4E",
                                         "PML5E" };
    uint8_t *f = frame();
    uint64_t va = levels == 5 ? 1ull << 50 : 5ull << 39;

    put_code(f, 99);
    map_at(va, f, LEVEL_4K, PTE_RW | PTE_U);
    for (int level = LEVEL_2M; level <= levels; level++) {
        uint64_t *e = space_entry(&kernel_space, va, level);
        char what[60];

        format(what, sizeof(what), "%s of %d levels with the bit",
               names[level], levels);
        ok(access_fetch_kernel(va) == 99, "%s: without it, it runs", what);
        *e |= xo;
        flush_tlb();
        all_kinds(va, what);
        *e &= ~xo;
        flush_tlb();
    }
}

static void pae_not_a_leaf(void)
{
    Space s = pae_space();
    uint8_t *f = frame();
    struct mode32 m = { .addr = 2 * PAGE_1G, .efer = EFER_NXE };

    put_code(f, 98);
    *space_entry(&s, m.addr, LEVEL_4K) = (uint64_t)f | PTE_RW | PTE_U;
    for (int level = LEVEL_2M; level <= LEVEL_1G; level++) {
        uint64_t *e = space_entry(&s, m.addr, level);

        for (int cpl = 0; cpl <= 3; cpl += 3) {
            for (int kind = M32_READ; kind <= M32_FETCH; kind++) {
                static const uint32_t errors[] = { 0, PF_P, PF_P | PF_W,
                                                   PF_P | PF_I };

                m.kind = kind;
                m.cpl = cpl;
                expect_none(pae_access(&s, &m), "PAE: without the bit");
                *e |= xo;
                expect_pf(pae_access(&s, &m),
                          errors[kind] | (cpl ? PF_U : 0),
                          (void *)(uint64_t)m.addr,
                          "PAE: %s with the bit, kind %d, CPL %d",
                          level == LEVEL_2M ? "PDE" : "PDPTE", kind, cpl);
                *e &= ~xo;
            }
        }
    }
}

static void cr3(void)
{
    uint64_t old = read_cr3();

    expect(TRY(write_cr3(old | xo)), GP, 0, "CR3 with the bit");
    ok(read_cr3() == old, "CR3 is as before");
}

/* All CPUs at a time, while one of them changes the code beneath */
static uint8_t *shared_page, *shared_frame;
static unsigned shared_wrong, shared_runs;

static void run_and_read(void *unused)
{
    (void)unused;
    for (int i = 0; i < 2000; i++) {
        unsigned wrong = 0;
        uint64_t got = access_fetch_kernel((uint64_t)shared_page);

        /* One aligned word changes, so a call sees one of its values */
        wrong += got < 1000 || got >= 3000;
        wrong += TRY(read8(shared_page)).vec != PF;
        wrong += TRY(write8(shared_page, 0xcc)).vec != PF;
        if (this_cpu() == 0) {
            write32(shared_frame + 4, 1000 + i);
        }
        __atomic_add_fetch(&shared_wrong, wrong, __ATOMIC_SEQ_CST);
        __atomic_add_fetch(&shared_runs, 1, __ATOMIC_SEQ_CST);
    }
}

static void many_cpus(void)
{
    shared_frame = frame();
    shared_page = map(shared_frame, PTE_P | xo);
    memcpy(shared_frame, "\x90\x90\x90\xb8", 4);     /* nop, mov */
    write32(shared_frame + 4, 1000);
    shared_frame[8] = 0xc3;
    on_all(run_and_read, NULL);
    ok(!shared_wrong && shared_runs == 2000 * cpus(),
       "%u CPUs run and read the same page: %u wrong of %u", cpus(),
       shared_wrong, shared_runs);
}

static uint64_t l2_read(uint64_t p)
{
    return read64((void *)p);
}

static uint64_t l2_write(uint64_t p)
{
    write8((void *)p, 1);
    return 0;
}

static uint64_t l2_fault(uint64_t p)
{
    Fault f = TRY(read8((void *)p));

    return f.vec == PF && f.cr2 == p ? f.err : 0x1000u + f.vec;
}

static void svm(void)
{
    struct l2 l2;
    uint8_t *f = frame(), *g = frame();
    uint8_t *p = map(f, PTE_RW | xo), *far;
    uint64_t *leaf, *table;

    if (!svm_present()) {
        skip("this CPU model has no SVM");
        return;
    }
    put_code(f, 51);
    put_code(g, 52);

    svm_init(&l2, false);
    ok(svm_run(&l2, l2_fault, (uint64_t)p) == SVM_EXIT_VMMCALL &&
       l2.result == PF_P, "SVM without nested paging: a guest's read faults");
    ok(svm_run(&l2, access_fetch_kernel, (uint64_t)p) == SVM_EXIT_VMMCALL &&
       l2.result == 51, "SVM without nested paging: a guest runs the code");

    svm_init(&l2, true);
    leaf = space_entry(&l2.npt, (uint64_t)g, LEVEL_4K);
    ok(svm_run(&l2, l2_read, (uint64_t)g) == SVM_EXIT_VMMCALL,
       "nested paging: without the bit a guest reads");
    *leaf |= xo;
    ok(svm_run(&l2, access_fetch_kernel, (uint64_t)g) == SVM_EXIT_VMMCALL &&
       l2.result == 52, "the bit in the nested leaf: a guest runs the code");
    svm_run(&l2, l2_read, (uint64_t)g);
    ok(l2.exit_code == SVM_EXIT_NPF && (uint32_t)l2.info1 == (PF_P | PF_U) &&
       l2.info1 >> 32 == 1 && l2.info2 == (uint64_t)g,
       "a guest's read exits: code 0x%lx info 0x%lx 0x%lx", l2.exit_code,
       l2.info1, l2.info2);
    svm_run(&l2, l2_write, (uint64_t)g);
    ok(l2.exit_code == SVM_EXIT_NPF && l2.info1 >> 32 == 1 &&
       (uint32_t)l2.info1 == (PF_P | PF_U | PF_W) && l2.info2 == (uint64_t)g,
       "a guest's write exits: code 0x%lx info 0x%lx 0x%lx", l2.exit_code,
       l2.info1, l2.info2);
    *leaf &= ~xo;

    /* The guest's own table lies in memory it may only execute */
    far = (void *)(6ull << 39);
    map_at((uint64_t)far, g, LEVEL_4K, PTE_RW);
    table = (void *)((uint64_t)entry(far, LEVEL_4K) & -PAGE_SIZE);
    leaf = space_entry(&l2.npt, (uint64_t)table, LEVEL_4K);
    *leaf |= xo;
    svm_run(&l2, l2_read, (uint64_t)far);
    ok(l2.exit_code == SVM_EXIT_NPF && l2.info1 >> 32 == 2 &&
       l2.info1 & PF_P && (l2.info2 & -PAGE_SIZE) == (uint64_t)table,
       "a guest's table in execute-only memory: code 0x%lx info 0x%lx 0x%lx",
       l2.exit_code, l2.info1, l2.info2);
    *leaf &= ~xo;
    leaf = space_entry(&l2.npt, (uint64_t)g, LEVEL_2M);
    *leaf |= xo;
    svm_run(&l2, l2_read, (uint64_t)g);
    ok(l2.exit_code == SVM_EXIT_NPF && l2.info1 & PF_P &&
       !(l2.info1 & PF_RSVD),
       "the bit in a nested PDE: code 0x%lx info 0x%lx 0x%lx", l2.exit_code,
       l2.info1, l2.info2);
    *leaf &= ~xo;
    VMCB64(&l2, 0x0b0) |= xo;
    svm_run(&l2, l2_read, (uint64_t)g);
    ok((l2.exit_code == SVM_EXIT_NPF && l2.info1 & PF_P &&
        !(l2.info1 & PF_RSVD)) || l2.exit_code == SVM_EXIT_INVALID,
       "the bit in nCR3: code 0x%lx info 0x%lx 0x%lx", l2.exit_code,
       l2.info1, l2.info2);
    VMCB64(&l2, 0x0b0) &= ~xo;
    /* A guest under nested paging has no XO of its own: reserved */
    svm_run(&l2, l2_fault, (uint64_t)p);
    ok(l2.exit_code == SVM_EXIT_VMMCALL && l2.result < 0x1000 &&
       (l2.result & ~PF_P) == PF_RSVD,
       "the bit in a nested guest's own leaf is reserved: error 0x%lx",
       l2.result);
}

static uint64_t smm_fault(uint64_t p)
{
    Fault f = TRY(read8((void *)p));

    return f.vec == PF && f.cr2 == p ? f.err : 0x1000u + f.vec;
}

static void smm(void)
{
    uint8_t *f = frame(), *p = map(f, PTE_RW | xo);

    put_code(f, 61);
    if (ok(smm_init(), "SMRAM can be opened")) {
        ok(smm_run(smm_fault, (uint64_t)p) == PF_P, "a read in SMM faults");
        ok(smm_run(access_fetch_kernel, (uint64_t)p) == 61,
           "the code runs in SMM");
        expect_pf(TRY(read8(p)), PF_P, p, "a read after RSM faults");
    }
}

/*
 * #VMEXIT and RSM load CR3 from memory without a check. With the bit in it
 * no access may succeed: the CPU ends in a triple fault, and this run in
 * its second boot.
 */
static uint64_t spoil(uint64_t saved_cr3)
{
    write64((void *)saved_cr3, read64((void *)saved_cr3) | xo);
    return 0;
}

static uint64_t spoil_nothing(uint64_t saved_cr3)
{
    return read64((void *)saved_cr3) == read_cr3();
}

static void hostile_exit(void)
{
    uint64_t saved_cr3;
    struct l2 l2;

    if (boot_number() == 2) {
        ok(true, "CR3 with the bit, loaded at #VMEXIT, ends in a reset");
        return;
    }
    svm_init(&l2, true);
    saved_cr3 = rdmsr(0xc0010117) + 0x550;
    ok(svm_run(&l2, spoil_nothing, saved_cr3) == SVM_EXIT_VMMCALL &&
       l2.result == 1, "a guest finds CR3 in the host's save area");
    svm_run(&l2, spoil, saved_cr3);
    ok(false, "the host runs on with CR3 0x%lx", read_cr3());
}

static void hostile_rsm(void)
{
    uint64_t saved_cr3 = 0xaff50;       /* SMBASE + 0xff50 */

    if (boot_number() == 2) {
        ok(true, "CR3 with the bit, loaded at RSM, ends in a reset");
        return;
    }
    if (ok(smm_init(), "SMRAM can be opened")) {
        ok(smm_run(spoil_nothing, saved_cr3) == 1,
           "the handler finds CR3 in the save area");
        smm_run(spoil, saved_cr3);
        ok(false, "the kernel runs on with CR3 0x%lx", read_cr3());
    }
}

void test(void)
{
    ok(xo_present(), "CPUID offers execute-only memory");
    ok(cpuid(0x40000030, 0).ebx == 0 && cpuid(0x40000030, 0).ecx == 0 &&
       cpuid(0x40000030, 0).edx == 0, "EBX, ECX and EDX are 0");
    note("the XO bit is bit %u", phys_bits());
    xo = xo_bit();
    if (!strcmp(command_line(), "hostile-exit")) {
        hostile_exit();
        return;
    }
    if (!strcmp(command_line(), "hostile-rsm")) {
        hostile_rsm();
        return;
    }
    cpu_enable_simd();
    each_instruction();
    strings_that_run_into();
    across_pages();
    code();
    descriptor_tables();
    task_state();
    not_a_leaf(4);
    if (cpuid(7, 0).ecx >> 16 & 1) {
        use_levels(5);
        not_a_leaf(5);
        use_levels(4);
    }
    pae_not_a_leaf();
    cr3();
    many_cpus();
    svm();
    smm();
}
