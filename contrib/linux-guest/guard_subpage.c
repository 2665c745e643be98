/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * A Linux guest protects pieces of its own kernel's memory
 *
 * The machine takes away the right to write, or to read, memory that the
 * guest names in a request array (docs/specs/subpage.rst).  Nothing in the
 * guest gets it back, this module included.
 */
#define pr_fmt(fmt) KBUILD_MODNAME ": " fmt

#include <linux/fs.h>
#include <linux/gfp.h>
#include <linux/miscdevice.h>
#include <linux/mm.h>
#include <linux/module.h>
#include <linux/slab.h>
#include <linux/uaccess.h>
#include <asm/cpufeature.h>
#include <asm/msr.h>
#include <asm/io.h>
#include <asm/pgtable.h>
#include <asm/processor.h>

#include "guard_subpage.h"

#define LEAF_HYPERVISOR 0x40000000
#define LEAF_GUARD 0x40000030
#define LEAF_GUARD_SUBPAGE BIT(3)
#define MSR_SUBPAGE_REQUEST 6

#define REQUEST_VERSION 1

struct request_entry {
    __le64 gpa;
    __le32 length;
    __le16 access;
    __le16 action;
    __le32 status;
    __le32 reserved;
};

struct request {
    __le32 version;
    __le32 count;
    struct request_entry entry[];
};

#define REQUEST_ENTRIES \
    ((PAGE_SIZE - sizeof(struct request)) / sizeof(struct request_entry))

/* The first MSR of the block */
static u32 msr_base __ro_after_init;

static int status_error(u32 status)
{
    switch (status) {
    case 0:
        return 0;
    case 3:
        return -EFAULT;
    case 7:
        return -EBUSY;
    case 8:
        return -ENOSPC;
    case 9:
        return -EAGAIN;
    default:
        return -EINVAL;
    }
}

/* The physical address of a kernel address that is mapped, or 0 */
static phys_addr_t kernel_phys(unsigned long addr)
{
    unsigned int level;
    pte_t *pte;

    if (addr < PAGE_OFFSET) {
        return 0;
    }
    pte = lookup_address(addr, &level);
    if (!pte || !pte_present(*pte)) {
        return 0;
    }
    switch (level) {
    case PG_LEVEL_1G:
        return ((phys_addr_t)pud_pfn(*(pud_t *)pte) << PAGE_SHIFT) +
               (addr & ~PUD_MASK);
    case PG_LEVEL_2M:
        return ((phys_addr_t)pmd_pfn(*(pmd_t *)pte) << PAGE_SHIFT) +
               (addr & ~PMD_MASK);
    case PG_LEVEL_4K:
        return ((phys_addr_t)pte_pfn(*pte) << PAGE_SHIFT) +
               (addr & ~PAGE_MASK);
    default:
        return 0;
    }
}

/**
 * guard_subpage_protect - give up the right to write, or read, kernel memory
 * @addr: kernel address, a multiple of 128
 * @size: bytes, a multiple of 128, at most 170 pages
 * @access: what remains
 * @action: what becomes of other accesses
 *
 * All of it is protected, or nothing.  It can't be taken back: never free the
 * memory.  May sleep.
 *
 * Return: 0, or -EINVAL (address, size, access or action), -EFAULT (not
 * mapped, or not RAM), -ENOSPC (the host's quota), -EAGAIN (not at the
 * moment), -EIO (the machine does not understand), -ENOMEM.
 */
int guard_subpage_protect(const void *addr, size_t size,
                          enum guard_access access, enum guard_action action)
{
    unsigned long at = (unsigned long)addr;
    struct request *req;
    unsigned int i, n = 0;
    int ret;

    if (!size || !IS_ALIGNED(at | size, GUARD_SUBPAGE_SIZE) ||
        at + (size - 1) < at) {
        return -EINVAL;
    }
    req = (struct request *)get_zeroed_page(GFP_KERNEL);
    if (!req) {
        return -ENOMEM;
    }
    while (size) {
        size_t here = min_t(size_t, size, PAGE_SIZE - offset_in_page(at));
        phys_addr_t phys = kernel_phys(at);

        ret = -EINVAL;
        if (n == REQUEST_ENTRIES) {
            goto out;
        }
        ret = -EFAULT;
        if (!phys) {
            goto out;
        }
        req->entry[n].gpa = cpu_to_le64(phys);
        req->entry[n].length = cpu_to_le32(here);
        req->entry[n].access = cpu_to_le16(access);
        req->entry[n].action = cpu_to_le16(action);
        n++;
        at += here;
        size -= here;
    }
    req->version = cpu_to_le32(REQUEST_VERSION);
    req->count = cpu_to_le32(n);

    ret = wrmsrl_safe(msr_base + MSR_SUBPAGE_REQUEST, virt_to_phys(req));
    /* An entry that was only not done for another's sake has status 1. */
    for (i = 0; !ret && i < n; i++) {
        u32 status = le32_to_cpu(READ_ONCE(req->entry[i].status));

        if (status > 1) {
            ret = status_error(status);
        }
    }
out:
    free_page((unsigned long)req);
    return ret;
}
EXPORT_SYMBOL_GPL(guard_subpage_protect);

/* "ACCESS ACTION ADDRESS SIZE", for an administrator */
static ssize_t subpage_write(struct file *file, const char __user *from,
                             size_t count, loff_t *pos)
{
    static const char *const accesses[] = {
        [GUARD_ACCESS_READ] = "read", [GUARD_ACCESS_NONE] = "none",
    };
    static const char *const actions[] = {
        [GUARD_ACTION_REPORT] = "report", [GUARD_ACTION_DISCARD] = "discard",
        [GUARD_ACTION_FAULT] = "fault",
    };
    char line[96], access[8], action[8];
    unsigned long addr, size;
    int i, j, ret;

    if (count >= sizeof(line)) {
        return -EINVAL;
    }
    if (copy_from_user(line, from, count)) {
        return -EFAULT;
    }
    line[count] = '\0';
    if (sscanf(line, "%7s %7s %lx %lu", access, action, &addr, &size) != 4) {
        return -EINVAL;
    }
    i = match_string(accesses + 1, ARRAY_SIZE(accesses) - 1, access);
    j = match_string(actions + 1, ARRAY_SIZE(actions) - 1, action);
    if (i < 0 || j < 0) {
        return -EINVAL;
    }
    ret = guard_subpage_protect((const void *)addr, size, i + 1, j + 1);
    return ret ?: count;
}

static const struct file_operations subpage_fops = {
    .owner = THIS_MODULE,
    .write = subpage_write,
    .llseek = noop_llseek,
};

static struct miscdevice subpage_device = {
    .minor = MISC_DYNAMIC_MINOR,
    .name = GUARD_SUBPAGE_DEVICE,
    .fops = &subpage_fops,
    .mode = 0200,
};

static int __init guard_subpage_init(void)
{
    int ret;

    /* Without a hypervisor the leaf number means nothing to the CPU. */
    if (!boot_cpu_has(X86_FEATURE_HYPERVISOR) ||
        cpuid_eax(LEAF_HYPERVISOR) < LEAF_GUARD ||
        !(cpuid_eax(LEAF_GUARD) & LEAF_GUARD_SUBPAGE)) {
        pr_err("this CPU takes no requests for sub-page protection (CPUID "
               "leaf 0x%x, EAX bit 3); QEMU offers it with "
               "-cpu ...,+guest-subpage\n", LEAF_GUARD);
        return -ENODEV;
    }
    msr_base = cpuid_ebx(LEAF_GUARD);
    ret = misc_register(&subpage_device);
    if (ret) {
        pr_err("can't register /dev/%s: error %d\n", GUARD_SUBPAGE_DEVICE,
               ret);
        return ret;
    }
    pr_info("this machine protects memory on request: /dev/%s is ready\n",
            GUARD_SUBPAGE_DEVICE);
    return 0;
}

static void __exit guard_subpage_exit(void)
{
    misc_deregister(&subpage_device);
}

module_init(guard_subpage_init);
module_exit(guard_subpage_exit);

MODULE_DESCRIPTION("Sub-page protection of a guest's own kernel memory");
MODULE_AUTHOR("The qemu-guard developers");
MODULE_LICENSE("GPL");
