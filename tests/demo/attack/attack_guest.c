/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * An attack from inside the kernel of a Linux guest, for the demo only
 *
 * Stands for a hole in the kernel that lets an attacker write what he likes
 * where he likes.  A line "WAY ADDRESS TEXT", written to /dev/guard-attack,
 * puts TEXT at ADDRESS.  It ends in a null byte and is filled up to whole
 * 8-byte words with more of them.  With "cr0" and "cr4" ADDRESS is a mask, and
 * its bits are cleared in the register, by the instruction itself: Linux's own
 * functions would not do it.
 */
#include <linux/fs.h>
#include <linux/io.h>
#include <linux/miscdevice.h>
#include <linux/module.h>
#include <linux/string.h>
#include <linux/uio.h>

#define WORDS 4

/*
 * One function for each way, so that the instruction pointer tells which it
 * was.
 */
static noinline void attack_store(u64 *to, const u64 *from, size_t words)
{
    size_t i;

    for (i = 0; i < words; i++) {
        WRITE_ONCE(to[i], from[i]);
    }
}

static noinline void attack_string(u64 *to, const u64 *from, size_t words)
{
    size_t bytes = words * sizeof(*to);

    asm volatile("rep movsb"
                 : "+D" (to), "+S" (from), "+c" (bytes) : : "memory");
}

static noinline void attack_locked(u64 *to, const u64 *from, size_t words)
{
    size_t i;

    for (i = 0; i < words; i++) {
        xchg(&to[i], from[i]);
    }
}

/* The same frame at its other address, in the mapping of all memory */
static noinline void attack_alias(u64 *to, const u64 *from, size_t words)
{
    u64 *alias = phys_to_virt(virt_to_phys(to));
    size_t i;

    for (i = 0; i < words; i++) {
        WRITE_ONCE(alias[i], from[i]);
    }
}

static noinline void attack_cr0(u64 *mask, const u64 *from, size_t words)
{
    unsigned long cr0;

    asm volatile("mov %%cr0, %0" : "=r" (cr0));
    cr0 &= ~(unsigned long)mask;
    asm volatile("mov %0, %%cr0" : : "r" (cr0) : "memory");
}

static noinline void attack_cr4(u64 *mask, const u64 *from, size_t words)
{
    unsigned long cr4;

    asm volatile("mov %%cr4, %0" : "=r" (cr4));
    cr4 &= ~(unsigned long)mask;
    asm volatile("mov %0, %%cr4" : : "r" (cr4) : "memory");
}

static const struct {
    const char *name;
    void (*attack)(u64 *to, const u64 *from, size_t words);
} ways[] = {
    { "store", attack_store },
    { "string", attack_string },
    { "locked", attack_locked },
    { "alias", attack_alias },
    { "cr0", attack_cr0 },
    { "cr4", attack_cr4 },
};

static ssize_t attack_write(struct kiocb *iocb, struct iov_iter *from)
{
    size_t size = iov_iter_count(from);
    u64 words[WORDS] = {};
    char line[80], way[8], text[sizeof(words)];
    unsigned long to;
    size_t i;

    if (size >= sizeof(line)) {
        return -EINVAL;
    }
    if (copy_from_iter(line, size, from) != size) {
        return -EFAULT;
    }
    line[size] = '\0';
    if (sscanf(line, "%7s %lx %31s", way, &to, text) != 3) {
        return -EINVAL;
    }
    memcpy(words, text, strlen(text));

    for (i = 0; i < ARRAY_SIZE(ways); i++) {
        if (!strcmp(way, ways[i].name)) {
            ways[i].attack((u64 *)to, words,
                           strlen(text) / sizeof(words[0]) + 1);
            return size;
        }
    }
    return -EINVAL;
}

static const struct file_operations attack_fops = {
    .owner = THIS_MODULE,
    .write_iter = attack_write,
    .llseek = noop_llseek,
};

static struct miscdevice attack_device = {
    .minor = MISC_DYNAMIC_MINOR,
    .name = "guard-attack",
    .fops = &attack_fops,
    .mode = 0600,
};

module_misc_device(attack_device);

MODULE_DESCRIPTION("Writes anything anywhere, to show what stops it");
MODULE_AUTHOR("The qemu-guard developers");
MODULE_LICENSE("GPL");
