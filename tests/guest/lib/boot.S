/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Entry by PVH, the way of an application processor into C, and what the
 * frame needs in assembly: exception entry, TRY, CPL 3, legacy PAE paging.
 */

#include "asm.h"

    .section .note.pvh, "a", @note
    .align 4
    .long 4, 8, 18              /* name, descriptor, PHYS32_ENTRY */
    .asciz "Xen"
    .quad pvh_entry

/* Descriptors, one table for all CPUs */
    .data
    .align 16
    .globl gdt, gdt_end
gdt:
    .quad 0
    .quad 0x00af9b000000ffff    /* SEL_CODE64 */
    .quad 0x00cf93000000ffff    /* SEL_DATA */
    .quad 0x00cf9b000000ffff    /* SEL_CODE32 */
    .quad 0x00cf93000000ffff
    .quad 0x00cffb000000ffff    /* SEL_USER_CODE32 */
    .quad 0x00cff3000000ffff    /* SEL_USER_DATA */
    .quad 0x00affb000000ffff    /* SEL_USER_CODE64 */
    .quad 0                     /* SEL_TSS32 */
    .fill 7, 8, 0               /* SEL_LDT, SEL_FREE */
    .fill 2 * MAX_CPUS, 8, 0
gdt_end:
    .globl gdt_ptr
gdt_ptr:
    .word gdt_end - gdt - 1
    .quad gdt

    .bss
    .align 4096
    .globl boot_pml4, boot_pml5, boot_pdpt, boot_pd
boot_pml5: .skip 4096
boot_pml4: .skip 4096
boot_pdpt: .skip 4096
boot_pd:   .skip 4 * 4096
    .align 4096
    .globl stacks, ap_index
stacks:    .skip MAX_CPUS * STACK_SIZE
ap_index:  .skip 4

    .text
    .code32
    .globl pvh_entry
pvh_entry:
    cli
    cld
    movl %ebx, pvh_info

    /* 4 GiB one to one, 2 MiB leaves; U=1 only for the user's 2 MiB */
    movl $boot_pd, %edi
    movl $0x83, %eax
1:  movl %eax, (%edi)
    movl $0, 4(%edi)
    addl $8, %edi
    addl $0x200000, %eax
    jnc 1b
    orl $4, boot_pd + 8 * 8
    movl $boot_pd + 7, %eax
    movl $boot_pdpt, %edi
    movl $4, %ecx
1:  movl %eax, (%edi)
    movl $0, 4(%edi)
    addl $4096, %eax
    addl $8, %edi
    loop 1b
    movl $boot_pdpt + 7, boot_pml4
    movl $boot_pml4 + 7, boot_pml5

    movl $1f, %esi
    jmp long_mode
    .code64
1:  movl $stacks + STACK_SIZE, %esp
    call guest_start

/* To 64-bit mode on the boot tables; goes on at %esi, uses no stack */
    .code32
long_mode:
    movl %cr4, %eax
    orl $0x20, %eax
    movl %eax, %cr4
    movl $boot_pml4, %eax
    movl %eax, %cr3
    movl $0xc0000080, %ecx
    rdmsr
    orl $0x900, %eax            /* LME, NXE */
    wrmsr
    lgdt gdt_ptr
    movl $0x80010033, %eax      /* PG WP NE ET MP PE */
    movl %eax, %cr0
    ljmp $SEL_CODE64, $1f
    .code64
1:  movl $SEL_DATA, %eax
    movl %eax, %ds
    movl %eax, %es
    movl %eax, %ss
    xorl %eax, %eax
    movl %eax, %fs
    movl %eax, %gs
    jmp *%rsi

/* Copied to AP_START; position is fixed there */
    .globl ap_start, ap_end
    .code16
ap_start:
    cli
    xorw %ax, %ax
    movw %ax, %ds
    lgdtl AP_START + (ap_gdt_ptr - ap_start)
    movl $0x11, %eax
    movl %eax, %cr0
    ljmpl $SEL_CODE32, $ap_entry32
    .align 4
ap_gdt_ptr:
    .word gdt_end - gdt - 1
    .long gdt
ap_end:

    .code32
ap_entry32:
    movl $SEL_DATA, %eax
    movl %eax, %ds
    movl %eax, %es
    movl %eax, %ss
    movl $1f, %esi
    jmp long_mode
    .code64
1:  movl ap_index, %edi
    leal 1(%rdi), %eax
    imull $STACK_SIZE, %eax, %eax
    leaq stacks(%rax), %rsp
    call ap_main

/*
 * Copied to SMBASE + 0x8000. Runs smi_main() in 64-bit mode inside SMM, on
 * the boot tables; RSM puts all back, whatever the function did.
 */
    .globl smi_start, smi_end
    .code16
smi_start:
    lgdtl %cs:0x8000 + (smi_gdt_ptr - smi_start)
    movl $0x11, %eax
    movl %eax, %cr0
    ljmpl $SEL_CODE32, $smi_entry32
    .align 4
smi_gdt_ptr:
    .word gdt_end - gdt - 1
    .long gdt
smi_end:

    .code32
smi_entry32:
    movl $SEL_DATA, %eax
    movl %eax, %ds
    movl %eax, %es
    movl %eax, %ss
    movl $1f, %esi
    jmp long_mode
    .code64
1:  lidt idt_ptr
    leaq smi_stack_end, %rsp
    call smi_main
    rsm

    .bss
    .align 16
    .skip EXC_STACK_SIZE
smi_stack_end:

    .bss
    .globl pvh_info
pvh_info: .skip 8

/*
 * Exceptions: one stub a vector, a uniform frame, then C. C does not come
 * back: it ends the test or goes on behind the TRY.
 */
    .text
    .macro entry vec
    .align 16
    .if (1 << \vec) & 0x60227d00 /* vectors with an error code */
    .else
    pushq $0
    .endif
    pushq $\vec
    jmp exception
    .endm

    .globl exception_stubs
    .align 16
exception_stubs:
    .irp v, 0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, \
        16, 17, 18, 19, 20, 21, 22, 23, 24, 25, 26, 27, 28, 29, 30, 31
    entry \v
    .endr

exception:
    cld
    .irp reg, r15, r14, r13, r12, r11, r10, r9, r8, rdi, rsi, rbp, rsp, \
        rbx, rdx, rcx, rax
    pushq %\reg
    .endr
    movq %rsp, %rdi
    andq $~15, %rsp
    call exception_main

/* The handler of VEC_WAKE */
    .globl wake_entry
wake_entry:
    pushq %rax
    movl $APIC + APIC_EOI, %eax
    movl $0, (%rax)
    popq %rax
    iretq

/* int catch_arm(struct catcher *c): 0 at first, 1 after an exception */
    .globl catch_arm, catch_resume
catch_arm:
    movq %rbx, CATCH_RBX(%rdi)
    movq %rbp, CATCH_RBP(%rdi)
    movq %r12, CATCH_R12(%rdi)
    movq %r13, CATCH_R13(%rdi)
    movq %r14, CATCH_R14(%rdi)
    movq %r15, CATCH_R15(%rdi)
    leaq 8(%rsp), %rax
    movq %rax, CATCH_RSP(%rdi)
    movq (%rsp), %rax
    movq %rax, CATCH_RIP(%rdi)
    subq $8, %rsp
    call catch_push
    addq $8, %rsp
    xorl %eax, %eax
    ret
catch_resume:
    movq CATCH_RBX(%rdi), %rbx
    movq CATCH_RBP(%rdi), %rbp
    movq CATCH_R12(%rdi), %r12
    movq CATCH_R13(%rdi), %r13
    movq CATCH_R14(%rdi), %r14
    movq CATCH_R15(%rdi), %r15
    movl $SEL_DATA, %eax
    movl %eax, %ds
    movl %eax, %es
    movl %eax, %ss
    movq CATCH_RSP(%rdi), %rsp
    pushq $2
    popfq
    cld
    movl $1, %eax
    jmp *CATCH_RIP(%rdi)

/*
 * uint64_t user_enter(fn, arg, user stack, where to keep RSP, rflags)
 * runs fn(arg) at CPL 3. It comes back through VEC_USER_EXIT.
 */
    .globl user_enter, user_exit_entry
user_enter:
    pushq %rbx
    pushq %rbp
    pushq %r12
    pushq %r13
    pushq %r14
    pushq %r15
    movq %rsp, (%rcx)
    movq %rdi, %rax
    movq %rsi, %rdi
    pushq $SEL_USER_DATA
    pushq %rdx
    pushq %r8
    pushq $SEL_USER_CODE64
    pushq $user_call
    iretq
user_exit_entry:
    cld
    movq %rax, %rdi
    call user_saved_rsp
    movq (%rax), %rsp
    movq %rdi, %rax
    popq %r15
    popq %r14
    popq %r13
    popq %r12
    popq %rbp
    popq %rbx
    pushq $2
    popfq
    ret

    .section .user.text, "ax"
user_call:
    call *%rax
    int $VEC_USER_EXIT
    hlt

/*
 * The three accesses that the rules are about, in a copy for CPL 3 and
 * one for the kernel (SMEP would refuse the user's). The address is in
 * %rdi, the result is in %rax; each instruction that may fault has a name.
 */
    .macro accesses cpl
    .globl access_read_\cpl, access_write_\cpl, access_fetch_\cpl
access_read_\cpl:
    movzbl (%rdi), %eax
    ret
access_write_\cpl:
    movb $0xb8, (%rdi)
    ret
access_fetch_\cpl:
    call *%rdi
    ret
    .endm
    accesses user
    .text
    accesses kernel

/*
 * void mode32_run(struct mode32 *m): leaves long mode, takes the CR and
 * EFER values of the first group, does one access, and comes back with
 * those of the second. With M32_NOTHING it only changes over, which is how
 * CR4.LA57 is toggled. The boot processor only.
 */
    .bss
    .align 16
m32_ptr:    .skip 4
m32_rsp:    .skip 8
m32_idtr:   .skip 16
m32_gdtr:   .skip 16
m32_tr:     .skip 4
    .align 16
    .skip 4096
m32_stack:
    .globl m32_tss, m32_idt, m32_stack
m32_tss:    .skip 104
    .align 16
m32_idt:    .skip 256 * 8
    .data
m32_idt_ptr:
    .word 256 * 8 - 1
    .long m32_idt

    .text
    .globl mode32_run
mode32_run:
    pushq %rbx
    pushq %rbp
    pushq %r12
    pushq %r13
    pushq %r14
    pushq %r15
    movl %edi, m32_ptr
    movq %rsp, m32_rsp
    sidt m32_idtr
    str %eax
    movl %eax, m32_tr
    pushq $SEL_CODE32
    pushq $1f
    lretq
    .code32
1:  movl $SEL_DATA, %eax
    movl %eax, %ds
    movl %eax, %es
    movl %eax, %ss
    movl $m32_stack, %esp
    movl m32_ptr, %ebx
    movl %cr0, %eax
    andl $0x7fffffff, %eax
    movl %eax, %cr0
    movl $-1, M32_VEC(%ebx)
    cmpl $M32_NOTHING, M32_KIND(%ebx)
    je m32_back

    movl $0xc0000080, %ecx
    rdmsr
    movl M32_EFER(%ebx), %eax
    wrmsr
    movl M32_CR4(%ebx), %eax
    movl %eax, %cr4
    movl M32_CR3(%ebx), %eax
    movl %eax, %cr3
    lidt m32_idt_ptr
    andb $~2, gdt + SEL_TSS32 + 5
    movl $SEL_TSS32, %eax
    ltr %ax
    movl M32_ADDR(%ebx), %esi
    movl M32_KIND(%ebx), %ecx
    movl M32_CR0(%ebx), %eax
    movl %eax, %cr0
    cmpl $3, M32_CPL(%ebx)
    je 2f

    movl m32_kernel_table - 4(, %ecx, 4), %edx
    pushl M32_EFLAGS(%ebx)
    popfl
    call *%edx
    pushl $2
    popfl
    movl %eax, M32_RESULT(%ebx)
    jmp m32_out

2:  testl $0x20000, M32_EFLAGS(%ebx)
    jnz 3f
    pushl $SEL_USER_DATA
    pushl $user_stacks + 4096 - 16
    pushl M32_EFLAGS(%ebx)
    pushl $SEL_USER_CODE32
    pushl m32_user_table - 4(, %ecx, 4)
    movl $SEL_USER_DATA, %edx
    movl %edx, %ds
    movl %edx, %es
    iretl

    /* EFLAGS.VM: the code at M32_ADDR, which has to end by itself */
3:  pushl $0
    pushl $0
    pushl $0
    pushl $0
    shrl $4, %esi
    pushl %esi
    pushl $0xff0
    pushl M32_EFLAGS(%ebx)
    pushl %esi
    pushl $0
    iretl

    .macro entry32 vec
    .align 16
    .if (1 << \vec) & 0x60227d00
    .else
    pushl $0
    .endif
    pushl $\vec
    jmp m32_exception
    .endm
    .globl m32_stubs, m32_user_exit
    .align 16
m32_stubs:
    .irp v, 0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, \
        16, 17, 18, 19, 20, 21, 22, 23, 24, 25, 26, 27, 28, 29, 30, 31
    entry32 \v
    .endr

m32_exception:
    movl $SEL_DATA, %eax
    movl %eax, %ds
    movl %eax, %es
    movl m32_ptr, %ebx
    popl M32_VEC(%ebx)
    popl M32_ERR(%ebx)
    popl M32_EIP(%ebx)
    movl %cr2, %eax
    movl %eax, M32_CR2(%ebx)
    jmp m32_out
m32_user_exit:
    movl $SEL_DATA, %edx
    movl %edx, %ds
    movl %edx, %es
    movl m32_ptr, %ebx
    movl %eax, M32_RESULT(%ebx)
m32_out:
    movl $m32_stack, %esp
    pushl $2
    popfl
    movl %cr0, %eax
    andl $0x7fffffff, %eax
    movl %eax, %cr0
m32_back:
    movl M32_BACK_CR4(%ebx), %eax
    movl %eax, %cr4
    movl M32_BACK_CR3(%ebx), %eax
    movl %eax, %cr3
    movl $0xc0000080, %ecx
    rdmsr
    movl M32_BACK_EFER(%ebx), %eax
    andl $~0x400, %eax
    wrmsr
    movl M32_BACK_CR0(%ebx), %eax
    movl %eax, %cr0
    ljmp $SEL_CODE64, $1f
    .code64
1:  movq m32_rsp, %rsp
    lidt m32_idtr
    movl m32_tr, %eax
    andb $~2, gdt + 5(%rax)
    ltr %ax
    popq %r15
    popq %r14
    popq %r13
    popq %r12
    popq %rbp
    popq %rbx
    ret

    .section .rodata
m32_kernel_table:
    .long m32_read_kernel, m32_write_kernel, m32_fetch_kernel
m32_user_table:
    .long m32_read_user, m32_write_user, m32_fetch_user

    .text
    .code32
m32_read_kernel:
    movzbl (%esi), %eax
    ret
m32_write_kernel:
    movb $0xb8, (%esi)
    ret
m32_fetch_kernel:
    call *%esi
    ret
    .section .user.text, "ax"
m32_read_user:
    movzbl (%esi), %eax
    int $VEC_USER_EXIT
m32_write_user:
    movb $0xb8, (%esi)
    int $VEC_USER_EXIT
m32_fetch_user:
    call *%esi
    int $VEC_USER_EXIT
    .code64

/*
 * uint64_t svm_enter(uint64_t vmcb, fn, arg): VMRUN and back. The guest
 * has the host's general registers, so fn and arg travel in them.
 */
    .text
    .globl svm_enter
svm_enter:
    pushq %rbx
    pushq %rbp
    pushq %r12
    pushq %r13
    pushq %r14
    pushq %r15
    movq %rdi, %rax
    movq %rdx, %rdi
    pushq %rax
    clgi
    vmload %rax
    vmrun %rax
    vmsave %rax
    stgi
    popq %rax
    movq %rdi, %rax             /* what svm_guest_entry leaves there */
    popq %r15
    popq %r14
    popq %r13
    popq %r12
    popq %rbp
    popq %rbx
    ret
    .globl svm_guest_entry
svm_guest_entry:
    call *%rsi
    movq %rax, %rdi
1:  vmmcall
    jmp 1b

    .section .note.GNU-stack, "", @progbits
