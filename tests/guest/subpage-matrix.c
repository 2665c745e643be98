/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The bypass matrix of sub-page protection, part one: instructions.
 *
 * One row for each way of QEMU to load or store for an instruction; what is
 * different about the way stands in the row's second column. The second part,
 * what the CPU does on its own, is subpage-system.c.
 *
 * Each row is run
 *   - without protection: it must change (or read) the memory;
 *   - in the protected sub-page, with each action;
 *   - up to the last byte in front of it and from the first byte behind it,
 *     in the same page: as if nothing were protected, and without an event.
 * The oracle is the first run, and for a discarded load a run on zeroed
 * memory: memory, general registers, flags, x87, SSE and AVX state are
 * compared as a whole.
 */

#include "subpage.h"

GUEST_RUN("one-cpu", "-cpu max -append inside");
GUEST_RUN("one-cpu-across", "-cpu max -append across");
GUEST_RUN("four-threads",
          "accel=tcg,thread=multi timeout=120 -cpu max -smp 4 -append inside");
GUEST_RUN("four-threads-across",
          "accel=tcg,thread=multi timeout=120 -cpu max -smp 4 -append across");
GUEST_RUN("locked",
          "accel=tcg,thread=multi timeout=120 -cpu max -smp 2 -append locked");
GUEST_RUN("round-robin",
          "accel=tcg,thread=single timeout=120 -cpu max -smp 4 -append both");
GUEST_RUN("icount", "timeout=120 -cpu max -icount shift=1 -append both");
GUEST_RUN("one-insn", "accel=tcg,one-insn-per-tb=on timeout=120 -cpu max "
          "-append both");

enum {
    R = 1,              /* loads its operand */
    W = 2,              /* stores it */
    RW = R | W,         /* one after the other, two accesses */
    ACROSS = 4,         /* may lie across sub-pages and pages: try it */
    /* Where the operand's address is, if not in RDI */
    IN_RSI = 0x10,
    IN_RBX = 0x20,
    IN_RBP = 0x30,
    PUSHES = 0x40,      /* it ends at RSP */
    POPS = 0x50,        /* it begins at RSP */
    WHERE = 0xf0,
    /* More about it */
    EQUAL = 0x100,      /* RDX:RAX is what is in memory */
    COMPAT = 0x200,     /* in a 32-bit code segment */
    LOCKED = 0x400,     /* how many accesses depends on the run */
    NOT_ZERO = 0x800,   /* a zero would wreck the CPU */
    MASKED = 0x10000,   /* stored by elements: told of from the first one */
    LOADS = 0x1000,     /* times the number of loads, if more than one */
};
#define LOADS_OF(kind) ((kind) / LOADS % 16 ? (kind) / LOADS % 16 : 1)

/* What is in memory beforehand */
enum {
    BYTES,              /* 0x5a everywhere */
    JUMP,               /* addresses of row_done */
    FAR_JUMP,           /* the same with a selector */
    FAR_RETURN,
    IRET_FRAME,
    SELECTOR,           /* SEL_DATA */
    TASK,               /* the selector in TR */
    NO_SELECTOR,
    DESCRIPTOR_TABLE,   /* as SGDT stores */
    INTERRUPT_TABLE,    /* as SIDT stores */
    MSW, FLAGS, CONTROL_WORD, MXCSR, FPU_ENV, FPU_IMAGE, FX_IMAGE, X_IMAGE,
    BOUNDS,
};

/*
 * Name, path in QEMU, kind, size of the access, alignment, memory before,
 * code. The code is one instruction.
 */
#define ROWS(X)                                                         \
    /* Stores by the softmmu slow path, one of each size */             \
    X(mov8, "do_st1_mmu", W, 1, 1, BYTES, "mov %al, (%rdi)")            \
    X(mov16, "do_st2_mmu", W | ACROSS, 2, 1, BYTES, "mov %ax, (%rdi)")  \
    X(mov32, "do_st4_mmu", W | ACROSS, 4, 1, BYTES, "mov %eax, (%rdi)") \
    X(mov64, "do_st8_mmu", W | ACROSS, 8, 1, BYTES, "mov %rax, (%rdi)") \
    X(mov_imm, "a store of a constant", W, 8, 1, BYTES,                 \
      "movq $7, (%rdi)")                                                \
    X(movbe, "a store with MO_BSWAP", W | ACROSS, 4, 1, BYTES,          \
      "movbe %eax, (%rdi)")                                             \
    X(movnti, "gen_MOVNTI, a plain store", W, 8, 1, BYTES,              \
      "movnti %rax, (%rdi)")                                            \
    X(setcc, "gen_SETcc", W, 1, 1, BYTES, "setnc (%rdi)")               \
    X(mov_seg, "gen_MOV of a selector", W, 2, 1, BYTES,                 \
      "mov %ds, (%rdi)")                                                \
    X(pop_mem, "gen_POP with memory operand", W, 8, 1, BYTES,           \
      "popq (%rdi)")                                                    \
    X(sldt, "gen_SLDT", W, 2, 1, BYTES, "sldt (%rdi)")                  \
    X(str, "gen_STR", W, 2, 1, BYTES, "str (%rdi)")                     \
    X(smsw, "gen_multi0F SMSW", W, 2, 1, BYTES, "smsw (%rdi)")          \
    X(sgdt, "gen_multi0F SGDT, two stores", W | ACROSS, 10, 1, BYTES,   \
      "sgdt (%rdi)")                                                    \
    X(sidt, "gen_multi0F SIDT, two stores", W | ACROSS, 10, 1, BYTES,   \
      "sidt (%rdi)")                                                    \
    /* The stack */                                                     \
    X(push, "gen_push_v", W | PUSHES | ACROSS, 8, 1, BYTES, "push %rax") \
    X(push16, "gen_push_v, 16 bits", W | PUSHES, 2, 1, BYTES,           \
      "pushw $1")                                                       \
    X(push_seg, "gen_PUSH of a segment", W | PUSHES, 8, 1, BYTES,       \
      "push %fs")                                                       \
    X(pushf, "gen_PUSHF", W | PUSHES, 8, 1, BYTES, "pushf")             \
    X(call, "gen_CALL", W | PUSHES | ACROSS, 8, 1, BYTES,               \
      "call row_done")                                                  \
    X(call_reg, "gen_CALL_m", W | PUSHES, 8, 1, BYTES, "call *%r15")    \
    X(enter, "gen_enter, level 0", W | PUSHES, 8, 1, BYTES,             \
      "enter $16, $0")                                                  \
    X(enter_levels, "gen_enter, nested levels", W | PUSHES | ACROSS,    \
      32, 1, BYTES, "enter $16, $3")                                    \
    /* 32-bit code: pushes of several registers */                      \
    X(pusha, "gen_pusha", W | PUSHES | COMPAT | ACROSS, 32, 1, BYTES,   \
      "pusha")                                                          \
    X(push32, "gen_push_v, 32-bit stack", W | PUSHES | COMPAT, 4, 1,    \
      BYTES, "push %eax")                                               \
    X(mov_moffs32, "gen_MOV moffs", W | COMPAT, 4, 1, BYTES,            \
      "mov %eax, (%edi)")                                               \
    X(sgdt32, "SGDT with a 32-bit base", W | COMPAT, 6, 1, BYTES,       \
      "sgdt (%edi)")                                                    \
    X(arpl, "gen_ARPL", RW | COMPAT, 2, 1, BYTES, "arpl %cx, (%edi)")   \
    X(popa, "gen_popa", R | POPS | COMPAT | ACROSS, 32, 1, BYTES,       \
      "popa")                                                           \
    X(bound, "helper_boundl", R | COMPAT | 2 * LOADS, 4, 1, BOUNDS,     \
      "bound %eax, (%edi)")                                             \
    X(lds, "gen_lxx_seg", R | COMPAT | 2 * LOADS, 4, 1, FAR_JUMP,       \
      "les (%edi), %ecx")                                               \
    /* Read-modify-write in two steps */                                \
    X(add, "a load and a store", RW | ACROSS, 8, 1, BYTES,              \
      "add %rax, (%rdi)")                                               \
    X(inc8, "the same, a byte", RW, 1, 1, BYTES, "incb (%rdi)")         \
    X(shl, "gen_SHL", RW, 4, 1, BYTES, "shll $1, (%rdi)")               \
    X(rcl, "helper_rclq", RW, 8, 1, BYTES, "rclq $3, (%rdi)")           \
    X(shld, "gen_SHLD", RW, 4, 1, BYTES, "shld $4, %eax, (%rdi)")       \
    X(neg, "gen_NEG", RW, 8, 1, BYTES, "negq (%rdi)")                   \
    X(bts, "gen_BTS", RW, 4, 1, BYTES, "btsl $2, (%rdi)")               \
    X(xadd, "gen_XADD", RW, 8, 1, BYTES, "xadd %rax, (%rdi)")           \
    X(cmpxchg, "gen_CMPXCHG, equal", RW | EQUAL, 8, 1, BYTES,           \
      "cmpxchg %rbx, (%rdi)")                                           \
    X(cmpxchg_ne, "gen_CMPXCHG, not equal: stores what it read", RW,    \
      8, 1, BYTES, "cmpxchg %rbx, (%rdi)")                              \
    X(cmpxchg8b, "gen_cmpxchg8b, nonatomic", RW | EQUAL, 8, 1, BYTES,   \
      "cmpxchg8b (%rdi)")                                               \
    X(cmpxchg16b, "gen_cmpxchg16b, nonatomic", RW | EQUAL, 16, 16,      \
      BYTES, "cmpxchg16b (%rdi)")                                       \
    /* atomic_mmu_lookup; with one CPU as above */                      \
    X(xchg, "helper_atomic_xchg", RW | LOCKED | ACROSS, 8, 1, BYTES,    \
      "xchg %rax, (%rdi)")                                              \
    X(xchg8, "helper_atomic_xchgb", RW | LOCKED, 1, 1, BYTES,           \
      "xchg %al, (%rdi)")                                               \
    X(lock_add, "helper_atomic_add_fetch", RW | LOCKED | ACROSS, 4, 1,  \
      BYTES, "lock addl $5, (%rdi)")                                    \
    X(lock_inc16, "the same, 16 bits", RW | LOCKED, 2, 1, BYTES,        \
      "lock incw (%rdi)")                                               \
    X(lock_adc, "gen_ADC atomic", RW | LOCKED, 8, 1, BYTES,             \
      "lock adc %rax, (%rdi)")                                          \
    X(lock_or, "helper_atomic_or_fetch", RW | LOCKED, 8, 1, BYTES,      \
      "lock or %rax, (%rdi)")                                           \
    X(lock_and, "helper_atomic_and_fetch", RW | LOCKED, 8, 1, BYTES,    \
      "lock and %rax, (%rdi)")                                          \
    X(lock_not, "helper_atomic_xor_fetch", RW | LOCKED, 8, 1, BYTES,    \
      "lock notq (%rdi)")                                               \
    X(lock_neg, "gen_NEG, a loop of cmpxchg", RW | LOCKED, 8, 1, BYTES, \
      "lock negq (%rdi)")                                               \
    X(lock_bts, "helper_atomic_fetch_or", RW | LOCKED, 8, 1, BYTES,     \
      "lock btsq $2, (%rdi)")                                           \
    X(lock_btr, "helper_atomic_fetch_and", RW | LOCKED, 8, 1, BYTES,    \
      "lock btrq $1, (%rdi)")                                           \
    X(lock_btc, "helper_atomic_fetch_xor", RW | LOCKED, 8, 1, BYTES,    \
      "lock btcq $1, (%rdi)")                                           \
    X(lock_xadd, "helper_atomic_fetch_add", RW | LOCKED | ACROSS, 8, 1, \
      BYTES, "lock xadd %rax, (%rdi)")                                  \
    X(lock_cmpxchg, "helper_atomic_cmpxchg, equal",                     \
      RW | LOCKED | EQUAL, 8, 1, BYTES, "lock cmpxchg %rbx, (%rdi)")    \
    X(lock_cmpxchg_ne, "helper_atomic_cmpxchg, not equal",              \
      RW | LOCKED, 8, 1, BYTES, "lock cmpxchg %rbx, (%rdi)")            \
    X(lock_cmpxchg8b, "gen_cmpxchg8b, atomic", RW | LOCKED | EQUAL,     \
      8, 1, BYTES, "lock cmpxchg8b (%rdi)")                             \
    X(lock_cmpxchg16b, "helper_atomic_cmpxchgo", RW | LOCKED | EQUAL,   \
      16, 16, BYTES, "lock cmpxchg16b (%rdi)")                          \
    X(lock_cmpxchg16b_ne, "the same, not equal", RW | LOCKED, 16, 16,   \
      BYTES, "lock cmpxchg16b (%rdi)")                                  \
    /* x87 and state areas: X86Access, a host pointer where it can */   \
    X(fst32, "gen_x87 fst m32", W, 4, 1, BYTES, "fsts (%rdi)")          \
    X(fstp64, "gen_x87 fstp m64", W | ACROSS, 8, 1, BYTES,              \
      "fstpl (%rdi)")                                                   \
    X(fstp80, "helper_fstt_ST0", W | ACROSS, 10, 1, BYTES,              \
      "fstpt (%rdi)")                                                   \
    X(fist16, "helper_fist_ST0", W, 2, 1, BYTES, "fists (%rdi)")        \
    X(fistp64, "helper_fistll_ST0", W, 8, 1, BYTES, "fistpll (%rdi)")   \
    X(fisttp, "helper_fisttl_ST0", W, 4, 1, BYTES, "fisttpl (%rdi)")    \
    X(fbstp, "helper_fbst_ST0", W | ACROSS, 10, 1, BYTES,               \
      "fbstp (%rdi)")                                                   \
    X(fnstcw, "gen_x87 fnstcw", W, 2, 1, BYTES, "fnstcw (%rdi)")        \
    X(fnstsw, "gen_x87 fnstsw", W, 2, 1, BYTES, "fnstsw (%rdi)")        \
    X(fnstenv, "helper_fstenv", W | ACROSS, 28, 1, BYTES,               \
      "fnstenv (%rdi)")                                                 \
    X(fnsave, "helper_fsave", W | ACROSS, 108, 1, BYTES,                \
      "fnsave (%rdi)")                                                  \
    X(fxsave, "helper_fxsave", W | ACROSS, 512, 16, BYTES,              \
      "fxsave64 (%rdi)")                                                \
    X(xsave, "helper_xsave", W | ACROSS, 832, 64, BYTES,                \
      "xsave64 (%rdi)")                                                 \
    X(xsaveopt, "helper_xsaveopt", W | ACROSS, 832, 64, BYTES,          \
      "xsaveopt64 (%rdi)")                                              \
    /* Vectors */                                                       \
    X(movd, "gen_MOVD_from", W, 4, 1, BYTES, "movd %xmm0, (%rdi)")      \
    X(movhps, "gen_MOVHPx_st", W, 8, 1, BYTES, "movhps %xmm0, (%rdi)")  \
    X(movntq, "an MMX store", W, 8, 1, BYTES, "movntq %mm0, (%rdi)")    \
    X(movups, "gen_sto_env_A0", W | ACROSS, 16, 1, BYTES,               \
      "movups %xmm0, (%rdi)")                                           \
    X(movaps, "gen_sto_env_A0, aligned", W, 16, 16, BYTES,              \
      "movaps %xmm0, (%rdi)")                                           \
    X(movntdq, "the same, non-temporal", W, 16, 16, BYTES,              \
      "movntdq %xmm0, (%rdi)")                                          \
    X(movntps, "the same, non-temporal", W, 16, 16, BYTES,              \
      "movntps %xmm0, (%rdi)")                                          \
    X(vmovdqu, "gen_sty_env_A0, two stores", W | ACROSS, 32, 1, BYTES,  \
      "vmovdqu %ymm0, (%rdi)")                                          \
    X(vmovaps, "gen_sty_env_A0, aligned", W, 32, 32, BYTES,             \
      "vmovaps %ymm0, (%rdi)")                                          \
    X(vmovntdq, "the same, non-temporal", W, 32, 32, BYTES,             \
      "vmovntdq %ymm0, (%rdi)")                                         \
    X(vextractf128, "gen_VEXTRACTx128", W, 16, 1, BYTES,                \
      "vextractf128 $1, %ymm0, (%rdi)")                                 \
    X(pextrb, "gen_PEXTRB", W, 1, 1, BYTES, "pextrb $3, %xmm0, (%rdi)") \
    X(stmxcsr, "gen_STMXCSR", W, 4, 1, BYTES, "stmxcsr (%rdi)")         \
    X(maskmovdqu, "helper_maskmov_xmm, a store a byte", W | MASKED | ACROSS, \
      16, 1, BYTES, "maskmovdqu %xmm1, %xmm0")                          \
    X(maskmovq, "helper_maskmov_mmx", W | MASKED, 8, 1, BYTES,          \
      "maskmovq %mm1, %mm0")                                            \
    X(vmaskmovps, "helper_vpmaskmovd_st_ymm", W | MASKED | ACROSS,     \
      32, 1, BYTES, "vmaskmovps %ymm0, %ymm1, (%rdi)")                  \
    X(vmaskmovpd, "helper_vpmaskmovq_st_ymm", W | MASKED | ACROSS,     \
      32, 1, BYTES, "vmaskmovpd %ymm0, %ymm1, (%rdi)")                  \
    X(vpmaskmovd, "helper_vpmaskmovd_st_xmm", W | MASKED, 16, 1, BYTES, \
      "vpmaskmovd %xmm0, %xmm1, (%rdi)")                                \
    /* Strings, one step of each; more of them is in strings() */       \
    X(stosb, "gen_stos", W, 1, 1, BYTES, "stosb")                       \
    X(stosq, "gen_stos", W | ACROSS, 8, 1, BYTES, "stosq")              \
    X(movsq_to, "gen_movs, the store", W | ACROSS, 8, 1, BYTES,         \
      "movsq")                                                          \
    X(insb, "gen_ins", W, 1, 1, BYTES, "insb")                          \
    X(insl, "gen_ins, 32 bits", W | ACROSS, 4, 1, BYTES, "insl")        \
                                                                        \
    /* Loads by the softmmu slow path */                                \
    X(load8, "do_ld1_mmu", R, 1, 1, BYTES, "mov (%rdi), %al")           \
    X(load16, "do_ld2_mmu", R | ACROSS, 2, 1, BYTES, "mov (%rdi), %ax") \
    X(load32, "do_ld4_mmu", R | ACROSS, 4, 1, BYTES,                    \
      "mov (%rdi), %eax")                                               \
    X(load64, "do_ld8_mmu", R | ACROSS, 8, 1, BYTES,                    \
      "mov (%rdi), %rax")                                               \
    X(movbe_load, "a load with MO_BSWAP", R | ACROSS, 8, 1, BYTES,      \
      "movbe (%rdi), %rax")                                             \
    X(movsx, "a load with MO_SIGN", R, 4, 1, BYTES,                     \
      "movslq (%rdi), %rax")                                            \
    X(cmp, "a load for flags only", R, 8, 1, BYTES,                     \
      "cmp %rax, (%rdi)")                                               \
    X(cmov, "gen_CMOVcc, not moved", R, 4, 1, BYTES,                    \
      "cmovc (%rdi), %eax")                                             \
    X(bt, "gen_BT", R, 4, 1, BYTES, "btl $1, (%rdi)")                   \
    X(mul, "an operand of MUL", R, 8, 1, BYTES, "mulq (%rdi)")          \
    X(crc32, "helper_crc32", R, 1, 1, BYTES, "crc32b (%rdi), %rax")     \
    X(xlat, "gen_XLAT", R | IN_RBX, 1, 1, BYTES, "xlatb")               \
    X(push_from, "gen_PUSH, the load", R, 8, 1, BYTES, "push (%rdi)")   \
    X(pop, "gen_POP", R | POPS, 8, 1, BYTES, "pop %rbx")                \
    X(popf, "gen_POPF", R | POPS, 8, 1, FLAGS, "popf")                  \
    X(leave, "gen_leave", R | IN_RBP, 8, 1, BYTES, "leave")             \
    X(ret, "gen_RET", R | POPS, 8, 1, JUMP, "ret")                      \
    X(jmp_mem, "gen_JMP_m", R, 8, 1, JUMP, "jmp *(%rdi)")               \
    X(call_mem, "gen_CALL_m, the load", R, 8, 1, JUMP, "call *(%rdi)")  \
    X(ljmp_mem, "gen_JMPF_m, two loads", R | 2 * LOADS, 4, 1, FAR_JUMP,    \
      "ljmpl *(%rdi)")                                                  \
    X(lret, "helper_lret_protected", R | POPS | 2 * LOADS, 8, 1,        \
      FAR_RETURN, "lretq")                                              \
    X(iretq, "helper_iret_protected", R | POPS | 5 * LOADS, 8, 1,       \
      IRET_FRAME, "iretq")                                              \
    X(mov_to_ds, "a selector", R, 2, 1, SELECTOR, "mov (%rdi), %ds")    \
    X(verr, "helper_verr", R, 2, 1, SELECTOR, "verr (%rdi)")            \
    X(lar, "helper_lar", R, 2, 1, SELECTOR, "lar (%rdi), %eax")         \
    X(lldt, "helper_lldt", R, 2, 1, NO_SELECTOR, "lldt (%rdi)")         \
    X(ltr, "helper_ltr", R | NOT_ZERO, 2, 1, TASK, "ltr (%rdi)")        \
    X(lmsw, "gen_multi0F LMSW", R, 2, 1, MSW, "lmsw (%rdi)")            \
    X(lgdt, "gen_multi0F LGDT, two loads", R | 2 * LOADS, 2, 1,         \
      DESCRIPTOR_TABLE, "lgdt (%rdi)")                                  \
    X(lidt, "gen_multi0F LIDT, two loads", R | 2 * LOADS, 2, 1,         \
      INTERRUPT_TABLE, "lidt (%rdi)")                                   \
    X(fld32, "gen_x87 fld m32", R, 4, 1, BYTES, "flds (%rdi)")          \
    X(fld64, "gen_x87 fld m64", R | ACROSS, 8, 1, BYTES, "fldl (%rdi)") \
    X(fld80, "helper_fldt_ST0", R | ACROSS, 10, 1, BYTES,               \
      "fldt (%rdi)")                                                    \
    X(fild64, "helper_fildll_ST0", R, 8, 1, BYTES, "fildll (%rdi)")     \
    X(fbld, "helper_fbld_ST0", R | ACROSS, 10, 1, BYTES, "fbld (%rdi)") \
    X(fldcw, "gen_x87 fldcw", R, 2, 1, CONTROL_WORD, "fldcw (%rdi)")    \
    X(fldenv, "helper_fldenv", R | ACROSS, 28, 1, FPU_ENV,              \
      "fldenv (%rdi)")                                                  \
    X(frstor, "helper_frstor", R | ACROSS, 108, 1, FPU_IMAGE,           \
      "frstor (%rdi)")                                                  \
    X(fxrstor, "helper_fxrstor", R | ACROSS, 512, 16, FX_IMAGE,         \
      "fxrstor64 (%rdi)")                                               \
    X(xrstor, "helper_xrstor, legacy area and header", R, 576, 64,      \
      X_IMAGE, "xrstor64 (%rdi)")                                       \
    X(ldmxcsr, "helper_ldmxcsr", R, 4, 1, MXCSR, "ldmxcsr (%rdi)")      \
    X(movups_load, "gen_ldo_env_A0", R | ACROSS, 16, 1, BYTES,          \
      "movups (%rdi), %xmm0")                                           \
    X(movntdqa, "gen_ldo_env_A0, aligned", R, 16, 16, BYTES,            \
      "movntdqa (%rdi), %xmm0")                                         \
    X(vmovdqu_load, "gen_ldy_env_A0, two loads", R | ACROSS, 32, 1,     \
      BYTES, "vmovdqu (%rdi), %ymm0")                                   \
    X(vpaddd, "gen_ldy_env_A0 as an operand", R | ACROSS, 32, 1, BYTES, \
      "vpaddd (%rdi), %ymm0, %ymm0")                                    \
    X(vbroadcastss, "gen_VPBROADCAST", R, 4, 1, BYTES,                  \
      "vbroadcastss (%rdi), %ymm0")                                     \
    X(pinsrb, "gen_PINSRB", R, 1, 1, BYTES,                             \
      "pinsrb $3, (%rdi), %xmm0")                                       \
    X(vmaskmov_load, "VMASKMOVPS loads all of its operand", R, 32, 1,   \
      BYTES, "vmaskmovps (%rdi), %ymm1, %ymm0")                         \
    X(vpgatherdd, "helper_vpgatherdd, one element", R, 4, 1, BYTES,     \
      "vpgatherdd %ymm3, (%rdi, %ymm2, 4), %ymm0")                      \
    X(vpgatherqq, "helper_vpgatherqq, one element", R, 8, 1, BYTES,     \
      "vpgatherqq %ymm3, (%rdi, %ymm2, 8), %ymm0")                      \
    X(lodsq, "gen_lods", R | IN_RSI | ACROSS, 8, 1, BYTES, "lodsq")     \
    X(scasq, "gen_scas", R, 8, 1, BYTES, "scasq")                       \
    X(cmpsq_rsi, "gen_cmps, its first load", R | IN_RSI, 8, 1, BYTES,   \
      "cmpsq")                                                          \
    X(cmpsq_rdi, "gen_cmps, its second load", R, 8, 1, BYTES, "cmpsq")  \
    X(movsq_from, "gen_movs, the load", R | IN_RSI, 8, 1, BYTES,        \
      "movsq")                                                          \
    X(outsb, "gen_outs", R | IN_RSI, 1, 1, BYTES, "outsb")              \
    /* No access */                                                     \
    X(clflush, "a no-op", 0, 8, 1, BYTES, "clflush (%rdi)")             \
    X(prefetch, "a no-op", 0, 8, 1, BYTES, "prefetcht0 (%rdi)")         \
    X(prefetchw, "a no-op", 0, 8, 1, BYTES, "prefetchw (%rdi)")         \
    X(invlpg, "helper_flush_page", 0, 8, 1, BYTES, "invlpg (%rdi)")

#define SNIPPET(name, path, kind, size, align, fill, text)              \
    ".globl row_" #name "\n"                                            \
    ".ifne (" #kind ") & 0x200\n.code32\n.endif\n"                      \
    "row_" #name ": " text "\n"                                         \
    ".ifne (" #kind ") & 0x200\n"                                       \
    "ljmp $0x08, $row_done\n"                                           \
    ".code64\n"                                                         \
    ".else\n jmp row_done\n.endif\n"

/* The assembler has to know the names as well */
asm(".set R, 1; .set W, 2; .set RW, 3; .set ACROSS, 4; .set IN_RSI, 0x10\n"
    ".set IN_RBX, 0x20; .set IN_RBP, 0x30; .set PUSHES, 0x40\n"
    ".set POPS, 0x50; .set EQUAL, 0x100; .set COMPAT, 0x200\n"
    ".set LOCKED, 0x400; .set LOADS, 0x1000\n"
    ".set NOT_ZERO, 0x800; .set MASKED, 0x10000\n"
    ".text\n"
    ROWS(SNIPPET));

/*
 * enter_row(regs, code): takes on the registers, runs code in the segment
 * that regs says; it ends in row_done, which keeps the registers.
 */
struct regs {
    uint64_t gpr[16], flags;
    uint32_t target, selector;
};
uint64_t row_rsp, row_flags;
struct regs row_out;
uint8_t *row_code;
void enter_row(struct regs *in);
extern uint8_t row_done[];
asm(".text\n"
    ".globl enter_row, row_done\n"
    "enter_row:\n"
    "push %rbx; push %rbp; push %r12; push %r13; push %r14; push %r15\n"
    "mov %rsp, row_rsp\n"
    "pushq 128(%rdi); popfq\n"
    "mov 0(%rdi), %rax; mov 8(%rdi), %rcx; mov 16(%rdi), %rdx\n"
    "mov 24(%rdi), %rbx; mov 32(%rdi), %rsp; mov 40(%rdi), %rbp\n"
    "mov 48(%rdi), %rsi; mov 64(%rdi), %r8; mov 72(%rdi), %r9\n"
    "mov 80(%rdi), %r10; mov 88(%rdi), %r11; mov 96(%rdi), %r12\n"
    "mov 104(%rdi), %r13; mov 112(%rdi), %r14; mov 120(%rdi), %r15\n"
    "mov 56(%rdi), %rdi\n"
    "ljmpl *row_in_target\n"
    "row_done:\n"
    "mov %rax, row_out; mov %rcx, row_out + 8; mov %rdx, row_out + 16\n"
    "mov %rbx, row_out + 24; mov %rsp, row_out + 32\n"
    "mov %rbp, row_out + 40; mov %rsi, row_out + 48\n"
    "mov %rdi, row_out + 56; mov %r8, row_out + 64\n"
    "mov %r9, row_out + 72; mov %r10, row_out + 80\n"
    "mov %r11, row_out + 88; mov %r12, row_out + 96\n"
    "mov %r13, row_out + 104; mov %r14, row_out + 112\n"
    "mov %r15, row_out + 120\n"
    "mov row_rsp, %rsp\n"
    "pushfq; popq row_out + 128\n"
    "pushq $2; popfq\n"
    "lgdt gdt_ptr; lidt idt_ptr\n"
    "mov $0x10, %eax; mov %eax, %ds; mov %eax, %es; mov %eax, %ss\n"
    "pop %r15; pop %r14; pop %r13; pop %r12; pop %rbp; pop %rbx\n"
    "ret\n");
struct {
    uint32_t offset;
    uint16_t selector;
} __attribute__((packed)) row_in_target;

struct row {
    const char *name, *path;
    unsigned kind, size, align, fill;
    uint8_t *code;
};

#define DECLARE(name, path, kind, size, align, fill, text) \
    extern uint8_t row_##name[];
ROWS(DECLARE)
static const struct row rows[] = {
#define ENTRY(name, path, kind, size, align, fill, text) \
    { #name, path, kind, size, align, fill, row_##name },
    ROWS(ENTRY)
};

/* --- One run of a row --- */

#define FILL    0x5a
#define STATE   1024
#define FLAGS_MASK 0xcd5        /* status flags and DF */

/* Two pages side by side, far from each other in RAM, and an operand */
static uint8_t *page[2], *va, *other;
/* In page[0], with pages around it, and its neighbours in the page */
#define PLACE   (12 * SUBPAGE)

struct outcome {
    Fault f;
    uint64_t gpr[16], flags;
    uint8_t mem[2 * PAGE_SIZE], other[PAGE_SIZE];
    uint8_t simd[STATE] __attribute__((aligned(64)));
    uint8_t simd_before[STATE] __attribute__((aligned(64)));
};

static struct outcome before, control, zeroed, got;
static struct regs in;
static const struct row *current;
static unsigned where;          /* the CPU of the current row */
static uint8_t vectors[4][32] __attribute__((aligned(32)));
static uint8_t images[4][STATE] __attribute__((aligned(64)));

/* What every row finds in the vector and x87 registers */
static void simd_setup(void)
{
    asm volatile("fninit; fld1; fldpi; movq %2, %%mm0; movq %3, %%mm1;"
                 "emms; fninit; fldpi; fld1;"
                 "vmovdqu %0, %%ymm0; vmovdqu %1, %%ymm1;"
                 "vmovdqu %4, %%ymm3;"
                 "vpxor %%xmm2, %%xmm2, %%xmm2"
                 : : "m" (vectors[0]), "m" (vectors[1]),
                     "m" (vectors[0]), "m" (vectors[1]), "m" (vectors[2])
                 : "memory");
    asm volatile("ldmxcsr %0" : : "m" ((uint32_t){ 0x1f80 }));
}

static void mmx_setup(void)
{
    asm volatile("fninit; movq %0, %%mm0; movq %1, %%mm1"
                 : : "m" (vectors[0]), "m" (vectors[1]));
}

static void simd_save(void *to)
{
    asm volatile("xsave64 (%0)" : : "r" (to), "a" (7), "d" (0) : "memory");
}

static void make_images(void *unused)
{
    (void)unused;
    cpu_enable_simd();
    simd_setup();
    asm volatile("fld1; fld1");
    asm volatile("fnstenv (%0)" : : "r" (images[0]) : "memory");
    asm volatile("fldenv (%0)" : : "r" (images[0]) : "memory");
    asm volatile("fxsave64 (%0)" : : "r" (images[2]) : "memory");
    simd_save(images[3]);
    asm volatile("fnsave (%0)" : : "r" (images[1]) : "memory");
}

static void enable_simd(void *unused)
{
    (void)unused;
    cpu_enable_simd();
}

/* What has to be at the operand's place */
static void fill(uint8_t *p, const struct row *r)
{
    uint64_t done = (uint64_t)row_done;
    uint32_t mxcsr = 0x9f80;
    uint16_t w;

    switch (r->fill) {
    case JUMP:
        memcpy(p, &done, 8);
        break;
    case FAR_JUMP:
        w = r->kind & COMPAT ? SEL_DATA : SEL_CODE64;
        memcpy(p, &done, 4);
        memcpy(p + 4, &w, 2);
        break;
    case FAR_RETURN:
        memcpy(p, (uint64_t[]){ done, SEL_CODE64 }, 16);
        break;
    case IRET_FRAME:
        memcpy(p, (uint64_t[]){ done, SEL_CODE64, 2, 0x123450, SEL_DATA },
               40);
        break;
    case SELECTOR:
        memcpy(p, (uint16_t[]){ SEL_DATA }, 2);
        break;
    case TASK:
        w = SEL_TSS + where * 16;
        gdt[w / 8] &= ~(2ull << 40);
        memcpy(p, &w, 2);
        break;
    case NO_SELECTOR:
        memset(p, 0, 2);
        break;
    case DESCRIPTOR_TABLE:
        memcpy(p, &gdt_ptr, 10);
        break;
    case INTERRUPT_TABLE:
        memcpy(p, &idt_ptr, 10);
        break;
    case MSW:
        w = read_cr0();
        memcpy(p, &w, 2);
        break;
    case FLAGS:
        memcpy(p, (uint64_t[]){ 0x8d7 }, 8);
        break;
    case CONTROL_WORD:
        memcpy(p, (uint16_t[]){ 0x27f }, 2);
        break;
    case MXCSR:
        memcpy(p, &mxcsr, 4);
        break;
    case FPU_ENV:
        memcpy(p, images[0], 28);
        break;
    case FPU_IMAGE:
        memcpy(p, images[1], 108);
        break;
    case FX_IMAGE:
        memcpy(p, images[2], 512);
        break;
    case X_IMAGE:
        memcpy(p, images[3], 832);
        break;
    case BOUNDS:
        memcpy(p, (uint32_t[]){ 0, 0x7fffffff }, 8);
        break;
    }
}

/* The frame behind an address of va, or of the low copy for 32-bit code */
static uint8_t *frame_of(uint64_t p)
{
    return page[p / PAGE_SIZE % 2 != (uint64_t)va / PAGE_SIZE % 2] +
           p % PAGE_SIZE;
}

static void run_here(void *arg)
{
    struct outcome *o = arg;
    const struct row *r = current;
    bool mmx = !strcmp(r->name, "maskmovq") || !strcmp(r->name, "movntq");
    uint64_t cr0 = read_cr0();

    simd_setup();
    if (mmx) {
        mmx_setup();
    }
    simd_save(o->simd_before);
    o->f = TRY(enter_row(&in));
    simd_save(o->simd);
    if (o->f.vec == NONE) {
        memcpy(o->gpr, row_out.gpr, sizeof(o->gpr));
        o->flags = row_out.flags & FLAGS_MASK;
    } else {
        memcpy(o->gpr, o->f.gpr, sizeof(o->gpr));
        o->flags = o->f.rflags & FLAGS_MASK;
    }
    asm volatile("lgdt %0; lidt %1" : : "m" (gdt_ptr), "m" (idt_ptr));
    write_cr0(cr0);
    asm volatile("lldt %w0; fninit" : : "r" (0));
}

/* Memory and registers as they shall be before the row */
static void prepare(const struct row *r, uint64_t p, bool zero)
{
    uint64_t scratch = (uint64_t)other + 512;
    uint8_t image[STATE];
    int i;

    current = r;
    memset(page[0], FILL, PAGE_SIZE);
    memset(page[1], FILL, PAGE_SIZE);
    memset(other, 0x33, PAGE_SIZE);
    if (r->fill != BYTES) {
        memset(image, FILL, sizeof(image));
        fill(image, r);
        for (i = 0; i < STATE && p + i < (uint64_t)va + 2 * PAGE_SIZE; i++) {
            *frame_of(p + i) = image[i];
        }
    }
    for (i = 0; zero && i < (int)r->size * (int)LOADS_OF(r->kind); i++) {
        *frame_of(p + i) = 0;
    }

    for (i = 0; i < 16; i++) {
        in.gpr[i] = 0x1111111111111111ull * (i & 7) + 0x1234;
    }
    in.flags = 2;
    in.gpr[RAX] = r->kind & EQUAL ? FILL * 0x0101010101010101ull : 0x1007;
    in.gpr[RDX] = r->kind & EQUAL ? FILL * 0x0101010101010101ull : 0x80;
    in.gpr[RCX] = 3;
    in.gpr[RDI] = p;
    in.gpr[RSI] = scratch;
    in.gpr[RSP] = scratch + 512;
    in.gpr[RBP] = scratch + 1024;
    in.gpr[R15] = (uint64_t)row_done;
    if (r->fill == FX_IMAGE || r->fill == X_IMAGE || r->size == 832) {
        in.gpr[RAX] = 7;
        in.gpr[RDX] = 0;
    }
    switch (r->kind & WHERE) {
    case IN_RSI:
        in.gpr[RSI] = p;
        in.gpr[RDI] = scratch;
        break;
    case IN_RBX:
        in.gpr[RBX] = p - 7;
        break;
    case IN_RBP:
        in.gpr[RBP] = p;
        break;
    case PUSHES:
        in.gpr[RSP] = p + r->size;
        break;
    case POPS:
        in.gpr[RSP] = p;
        break;
    }
    if (r->kind & COMPAT) {
        for (i = 0; i < 16; i++) {
            in.gpr[i] = (uint32_t)in.gpr[i];
        }
    }
    row_in_target.offset = (uint64_t)r->code;
    row_in_target.selector = r->kind & COMPAT ? SEL_CODE32 : SEL_CODE64;
}

static void keep(struct outcome *o)
{
    memcpy(o->mem, page[0], PAGE_SIZE);
    memcpy(o->mem + PAGE_SIZE, page[1], PAGE_SIZE);
    memcpy(o->other, other, PAGE_SIZE);
}

static void run(struct outcome *o)
{
    memset(o->simd, 0, sizeof(o->simd));
    on_cpu(where, run_here, o);
    wait_cpu(where);
}

static void run_alone(const struct row *r, uint64_t p, bool zero,
                      struct outcome *o)
{
    prepare(r, p, zero);
    keep(&before);
    run(o);
    keep(o);
}

/* --- Comparisons; a difference is noted --- */

static bool same_memory(const struct outcome *a, const uint8_t *mem,
                        const char *what)
{
    if (!memcmp(a->mem, mem, sizeof(a->mem))) {
        return true;
    }
    for (unsigned i = 0; i < sizeof(a->mem); i++) {
        if (a->mem[i] != mem[i]) {
            note("%s, %s: byte 0x%x is 0x%x, not 0x%x", current->name, what,
                 i, a->mem[i], mem[i]);
            return false;
        }
    }
    return true;
}

static bool same_bytes(const uint8_t *a, const uint8_t *b, int from, int to,
                       const char *what)
{
    if (memcmp(a + from, b + from, to - from)) {
        for (int i = from; i < to; i++) {
            if (a[i] != b[i]) {
                note("%s, %s: byte %d of the saved state is 0x%x, not 0x%x",
                     current->name, what, i, a[i], b[i]);
                return false;
            }
        }
    }
    return true;
}

/* x87 without the pointers to the last instruction, SSE, AVX */
static bool same_simd(const uint8_t *a, const uint8_t *b, const char *what)
{
    return same_bytes(a, b, 0, 6, what) &&
           same_bytes(a, b, 24, 416, what) &&
           same_bytes(a, b, 576, 832, what);
}

static bool same_registers(const uint64_t *gpr, uint64_t flags,
                           const uint64_t *gpr2, uint64_t flags2,
                           const char *what)
{
    static const char *const names[] = {
        "rax", "rcx", "rdx", "rbx", "rsp", "rbp", "rsi", "rdi",
        "r8", "r9", "r10", "r11", "r12", "r13", "r14", "r15",
    };

    for (int i = 0; i < 16; i++) {
        if (gpr[i] != gpr2[i]) {
            note("%s, %s: %s is 0x%lx, not 0x%lx", current->name, what,
                 names[i], gpr[i], gpr2[i]);
            return false;
        }
    }
    if (flags != flags2) {
        note("%s, %s: flags are 0x%lx, not 0x%lx", current->name, what,
             flags, flags2);
        return false;
    }
    return true;
}

static bool same(const struct outcome *a, const struct outcome *b,
                 const uint8_t *mem, const char *what)
{
    if (a->f.vec != b->f.vec || a->f.err != b->f.err) {
        note("%s, %s: %s, not %s", current->name, what, fault_text(a->f),
             fault_text(b->f));
        return false;
    }
    if (memcmp(a->other, b->other, PAGE_SIZE)) {
        note("%s, %s: the other operand is not as it should be",
             current->name, what);
        return false;
    }
    return same_memory(a, mem, what) && same_simd(a->simd, b->simd, what) &&
           same_registers(a->gpr, a->flags, b->gpr, b->flags, what);
}

/* #GP(0) before anything happened */
static bool untouched(const struct outcome *o, const char *what)
{
    if (o->f.vec != GP || o->f.err || o->f.rip != (uint64_t)current->code) {
        note("%s, %s: %s, not #GP(0) at 0x%lx", current->name, what,
             fault_text(o->f), (uint64_t)current->code);
        return false;
    }
    if (memcmp(o->other, before.other, PAGE_SIZE)) {
        note("%s, %s: the other operand has changed", current->name, what);
        return false;
    }
    return same_memory(o, before.mem, what) &&
           same_simd(o->simd, o->simd_before, what) &&
           same_registers(o->gpr, o->flags, in.gpr, in.flags & FLAGS_MASK,
                          what);
}

/* --- A row at one place --- */

static const char *const actions[] = { "report", "discard", "fault",
                                       "pause" };

/*
 * @guard: what is protected, by its frame
 * @p: where the access begins
 */
static bool guarded(const struct row *r, uint64_t p, uint64_t guard,
                    const char *place)
{
    unsigned size = r->size, here = PAGE_SIZE - p % PAGE_SIZE;
    uint64_t gpa = (uint64_t)frame_of(p), linear = p;
    bool good = true;
    char what[60];
    Seen s;

    /* Across pages, the event has the part that is forbidden */
    if (here < size) {
        if (guard >> 12 == gpa >> 12) {
            size = here;
        } else {
            gpa = (uint64_t)page[1];
            linear += here;
            size -= here;
        }
    }
    if (r->kind & MASKED && gpa < guard) {
        size -= guard - gpa;
        linear += guard - gpa;
        gpa = guard;
    }
    for (int none = 0; none < 2; none++) {
        if (!none && !(r->kind & W)) {
            /* Reads are allowed */
            prepare(r, p, false);
            arm(guard, SUBPAGE, "read", "fault", 0);
            run(&got);
            s = disarm();
            keep(&got);
            format(what, sizeof(what), "%s, read", place);
            good &= same(&got, &control, control.mem, what);
            good &= seen_none(s, what);
            continue;
        }
        if (none && !(r->kind & R)) {
            continue;
        }
        for (unsigned a = 0; a < ARRAY_SIZE(actions); a++) {
            bool write = !none;
            bool fault = !strcmp(actions[a], "fault");
            bool discard = !strcmp(actions[a], "discard");
            bool pause = !strcmp(actions[a], "pause");
            int count = fault || !none ? 1 : r->kind & W ? 2
                                         : LOADS_OF(r->kind);

            /* Of two accesses each is told of */
            bool loose = none && r->kind & W && !fault &&
                         (r->kind & LOCKED || pause);

            if (discard && r->kind & NOT_ZERO) {
                continue;
            }
            if (discard && r->fill == IRET_FRAME) {
                count = 3;      /* a null CS ends it there */
            }
            format(what, sizeof(what), "%s, %s, %s", place,
                   none ? "none" : "read", actions[a]);
            prepare(r, p, false);
            keep(&before);
            arm(guard, SUBPAGE, none ? "none" : "read", actions[a], 64);
            run(&got);
            s = disarm();
            keep(&got);
            if (fault) {
                good &= untouched(&got, what);
            } else if (discard) {
                good &= same(&got, none ? &zeroed : &control,
                             before.mem, what);
            } else {
                good &= same(&got, &control, control.mem, what);
            }
            if (loose) {
                if (s.events < (pause ? 1 : 2) || s.events > 4) {
                    note("%s, %s: %d events", r->name, what, s.events);
                    good = false;
                }
                count = s.events;
            }
            good &= seen_first(s, count, gpa, size, write, where,
                               (uint64_t)r->code, linear, actions[a], what);
        }
    }
    return good;
}

static bool beside(const struct row *r, uint64_t p, const char *place)
{
    uint64_t guard = (uint64_t)page[0] + PLACE;
    Seen s;

    run_alone(r, p, false, &control);
    prepare(r, p, false);
    arm(guard, SUBPAGE, "none", "fault", 0);
    run(&got);
    s = disarm();
    keep(&got);
    return same(&got, &control, control.mem, place) & seen_none(s, place);
}

/* Without protection: it does what the row is for */
static bool controls(const struct row *r, uint64_t p, const char *place)
{
    bool good = true;

    if (!(r->kind & NOT_ZERO)) {
        run_alone(r, p, true, &zeroed);
    }
    run_alone(r, p, false, &control);
    if (control.f.vec != NONE) {
        note("%s, %s: %s without protection", r->name, place,
             fault_text(control.f));
        return false;
    }
    if (r->kind & W && strcmp(r->name, "cmpxchg_ne") &&
        strcmp(r->name, "lock_cmpxchg_ne") &&
        strcmp(r->name, "lock_cmpxchg16b_ne") &&
        !memcmp(control.mem, before.mem, sizeof(before.mem))) {
        note("%s, %s: does not change memory", r->name, place);
        good = false;
    }
    return good;
}

/* @kind: rows that have none of these flags are left out, unless it is 0 */
static void each_row(bool inside, bool across, unsigned kind)
{
    for (unsigned i = 0; i < ARRAY_SIZE(rows); i++) {
        const struct row *r = &rows[i];
        unsigned half = (r->size / 2 + r->align - 1) & -r->align;
        uint64_t p = (uint64_t)va + PLACE;
        uint64_t guard = (uint64_t)page[0] + PLACE;
        bool good;

        if (kind && !(r->kind & kind)) {
            continue;
        }
        where = i % cpus();
        if (inside) {
            uint64_t q = p + (r->size + 32 <= SUBPAGE ? 32 : 0);

            good = controls(r, q, "inside");
            if (good && r->kind & RW) {
                good &= guarded(r, q, guard, "inside");
            }
            /* XRSTOR goes on to AVX state when the header has it */
            good &= beside(r, p - (r->fill == BYTES ? r->size :
                                   r->fill == X_IMAGE ? 832 :
                                   (r->size + 47) & -r->align), "in front");
            good &= beside(r, p + SUBPAGE, "behind");
            if (!(r->kind & RW)) {
                good &= beside(r, q, "inside");
            }
            ok(good, "%s (%s)", r->name, r->path);
        }
        if (across && r->kind & ACROSS) {
            good = controls(r, p - half, "begins in front") &&
                   guarded(r, p - half, guard, "begins in front");
            ok(good, "%s (%s), begins in front of it", r->name, r->path);

            p = (uint64_t)va + PLACE + SUBPAGE - half;
            if (half >= SUBPAGE) {
                p = (uint64_t)va + PLACE + SUBPAGE - r->align;
            }
            good = controls(r, p, "ends behind") &&
                   guarded(r, p, guard, "ends behind");
            ok(good, "%s (%s), ends behind it", r->name, r->path);

            p = (uint64_t)va + PAGE_SIZE - half;
            good = controls(r, p, "second page") &&
                   guarded(r, p, (uint64_t)page[1], "second page");
            ok(good, "%s (%s), across pages, the second is protected",
               r->name, r->path);
            /* The last sub-page of the first page that it touches */
            good = controls(r, p, "first page") &&
                   guarded(r, p, (uint64_t)page[0] + PAGE_SIZE - SUBPAGE,
                           "first page");
            ok(good, "%s (%s), across pages, the first is protected",
               r->name, r->path);
        }
    }
}

void test(void)
{
    const char *what = command_line();
    uint8_t *f = frames(4);

    /* 32-bit code sees the low 4 GiB only */
    page[0] = f;
    page[1] = f + 2 * PAGE_SIZE;
    va = (uint8_t *)0xe0000000ull - 0x10000000;
    map_at((uint64_t)va, page[0], LEVEL_4K, PTE_RW);
    map_at((uint64_t)va + PAGE_SIZE, page[1], LEVEL_4K, PTE_RW);
    other = frame();
    for (int i = 0; i < 32; i++) {
        vectors[0][i] = 0xc0 + i;
        vectors[1][i] = 0xff;
    }
    vectors[2][7] = 0x80;       /* one element of four or eight bytes */
    on_all(enable_simd, NULL);
    make_images(NULL);
    /* A discarded near jump ends at address 0: jmp row_done */
    write8(NULL, 0xe9);
    write32((void *)1, (uint32_t)(uint64_t)row_done - 5);
    each_row(strcmp(what, "across"), strcmp(what, "inside"),
             strcmp(what, "locked") ? 0 : LOCKED);
}
