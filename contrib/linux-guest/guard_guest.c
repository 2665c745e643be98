/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Execute-only mappings for the processes of a Linux guest
 *
 * A CPU with XO gives every frame a second address: the same number with the
 * first reserved physical-address bit set.  A page table entry that uses it
 * can be executed through, but not read or written.  Linux knows nothing of
 * this, so the module puts such an address into an ordinary PFN mapping.
 *
 * The code is copied into pages that belong to the open file.  A VMA holds a
 * reference to its file, and the file one to the module, so neither fork,
 * exit nor rmmod needs any bookkeeping here.
 */
#define pr_fmt(fmt) KBUILD_MODNAME ": " fmt

#include <linux/fs.h>
#include <linux/miscdevice.h>
#include <linux/mm.h>
#include <linux/module.h>
#include <linux/slab.h>
#include <linux/uaccess.h>
#include <linux/version.h>
#include <asm/cpufeature.h>
#include <asm/processor.h>

#include "guard_guest.h"

#define LEAF_HYPERVISOR 0x40000000
#define LEAF_GUARD 0x40000030
#define LEAF_GUARD_XO BIT(0)
#define LEAF_ADDRESS_SIZES 0x80000008

struct xo_code {
    void *mem;
    size_t size;
    bool ordinary;
};

/* The XO bit, as a bit of a page frame number */
static unsigned long xo_pfn_bit __ro_after_init;

static void xo_code_free(struct xo_code *code)
{
    if (code->mem) {
        /* Whoever hides code does not want it found in a page later. */
        memset(code->mem, 0, code->size);
        free_pages_exact(code->mem, code->size);
    }
    kfree(code);
}

static int xo_open(struct inode *inode, struct file *file)
{
    file->private_data = NULL;
    return 0;
}

static int xo_release(struct inode *inode, struct file *file)
{
    if (file->private_data) {
        xo_code_free(file->private_data);
    }
    return 0;
}

static long xo_load(struct file *file, const struct guard_xo_load *load)
{
    struct xo_code *code;

    if (load->flags & ~GUARD_XO_ORDINARY || !load->size ||
        load->size > GUARD_XO_MAX_SIZE || !PAGE_ALIGNED(load->size) ||
        !PAGE_ALIGNED(load->addr)) {
        return -EINVAL;
    }

    code = kzalloc(sizeof(*code), GFP_KERNEL_ACCOUNT);
    if (!code) {
        return -ENOMEM;
    }
    code->size = load->size;
    code->ordinary = load->flags & GUARD_XO_ORDINARY;
    code->mem = alloc_pages_exact(code->size,
                                  GFP_KERNEL_ACCOUNT | __GFP_NOWARN);
    if (!code->mem) {
        xo_code_free(code);
        return -ENOMEM;
    }
    if (copy_from_user(code->mem, u64_to_user_ptr(load->addr), code->size)) {
        xo_code_free(code);
        return -EFAULT;
    }

    /*
     * No lock: mmap() comes with the mmap lock held, and the copy above may
     * have to take it.  What is published never changes again.
     */
    if (cmpxchg(&file->private_data, NULL, code)) {
        xo_code_free(code);
        return -EBUSY;
    }
    return 0;
}

static long xo_ioctl(struct file *file, unsigned int cmd, unsigned long arg)
{
    struct guard_xo_load load;

    if (cmd != GUARD_XO_LOAD) {
        return -ENOTTY;
    }
    if (copy_from_user(&load, u64_to_user_ptr((u64)arg), sizeof(load))) {
        return -EFAULT;
    }
    return xo_load(file, &load);
}

static int xo_may_split(struct vm_area_struct *vma, unsigned long addr)
{
    /* The kernel keeps the memory type of the range as one piece. */
    return -EINVAL;
}

static const struct vm_operations_struct xo_vm_ops = {
    .may_split = xo_may_split,
};

static int xo_mmap(struct file *file, struct vm_area_struct *vma)
{
    const vm_flags_t never = VM_READ | VM_MAYREAD | VM_WRITE | VM_MAYWRITE;
    struct xo_code *code = READ_ONCE(file->private_data);
    size_t size = vma->vm_end - vma->vm_start;
    unsigned long pfn;

    if (!code) {
        return -ENODATA;
    }
    /*
     * A write fault on an entry that has W set looks spurious to Linux and
     * would be retried for ever, and a private mapping would copy the page.
     */
    if (!(vma->vm_flags & VM_EXEC) || vma->vm_flags & VM_WRITE) {
        return -EACCES;
    }
    if (!(vma->vm_flags & VM_MAYSHARE) || size != code->size) {
        return -EINVAL;
    }

    pfn = page_to_pfn(virt_to_page(code->mem));
    switch (vma->vm_pgoff) {
    case 0:
        pfn |= xo_pfn_bit;
        break;
    case GUARD_XO_ORDINARY_OFFSET >> PAGE_SHIFT:
        if (!code->ordinary) {
            return -EACCES;
        }
        break;
    default:
        return -EINVAL;
    }

#if LINUX_VERSION_CODE >= KERNEL_VERSION(6, 3, 0)
    vm_flags_clear(vma, never);
#else
    vma->vm_flags &= ~never;
#endif
    vma->vm_ops = &xo_vm_ops;
    return remap_pfn_range(vma, vma->vm_start, pfn, size, vma->vm_page_prot);
}

static const struct file_operations xo_fops = {
    .owner = THIS_MODULE,
    .open = xo_open,
    .release = xo_release,
    .unlocked_ioctl = xo_ioctl,
    .compat_ioctl = compat_ptr_ioctl,
    .mmap = xo_mmap,
    .llseek = noop_llseek,
};

/*
 * Root only: what is loaded becomes executable without the checks that a
 * security module makes of executable memory.
 */
static struct miscdevice xo_device = {
    .minor = MISC_DYNAMIC_MINOR,
    .name = GUARD_XO_DEVICE,
    .fops = &xo_fops,
    .mode = 0600,
};

static bool __init cpu_has_xo(void)
{
    /* Without a hypervisor the leaf number means nothing to the CPU. */
    return boot_cpu_has(X86_FEATURE_HYPERVISOR) &&
           cpuid_eax(LEAF_HYPERVISOR) >= LEAF_GUARD &&
           cpuid_eax(LEAF_GUARD) & LEAF_GUARD_XO;
}

static int __init guard_guest_init(void)
{
    unsigned int bits;
    int ret;

    if (!cpu_has_xo()) {
        pr_err("this CPU has no XO (CPUID leaf 0x%x, EAX bit 0); "
               "QEMU offers it with -cpu ...,+xo\n", LEAF_GUARD);
        return -ENODEV;
    }
    bits = cpuid_eax(LEAF_ADDRESS_SIZES) & 0xff;
    if (bits <= PAGE_SHIFT || bits >= __PHYSICAL_MASK_SHIFT) {
        pr_err("this CPU has XO but reports %u physical address bits, "
               "which leaves no bit for it\n", bits);
        return -ENODEV;
    }
    xo_pfn_bit = 1ul << (bits - PAGE_SHIFT);

    ret = misc_register(&xo_device);
    if (ret) {
        pr_err("can't register /dev/%s: error %d\n", GUARD_XO_DEVICE, ret);
        return ret;
    }
    pr_info("this CPU has XO: bit %u of a page table entry; "
            "/dev/%s is ready\n", bits, GUARD_XO_DEVICE);
    return 0;
}

static void __exit guard_guest_exit(void)
{
    misc_deregister(&xo_device);
}

module_init(guard_guest_init);
module_exit(guard_guest_exit);

MODULE_DESCRIPTION("Execute-only mappings on a CPU with XO");
MODULE_AUTHOR("The qemu-guard developers");
MODULE_LICENSE("GPL");
