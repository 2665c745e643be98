/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * guest-kexec KERNEL INITRAMFS COMMAND-LINE: load a kernel and start it
 *
 * The tools that distributions have for it are not in a small initramfs.
 */
#include <fcntl.h>
#include <linux/kexec.h>
#include <linux/reboot.h>
#include <stdio.h>
#include <string.h>
#include <sys/reboot.h>
#include <sys/syscall.h>
#include <unistd.h>

int main(int argc, char **argv)
{
    int kernel, initramfs;

    if (argc != 4) {
        fprintf(stderr, "usage: %s KERNEL INITRAMFS COMMAND-LINE\n", argv[0]);
        return 1;
    }
    kernel = open(argv[1], O_RDONLY | O_CLOEXEC);
    initramfs = open(argv[2], O_RDONLY | O_CLOEXEC);
    if (kernel < 0 || initramfs < 0) {
        perror("open");
        return 1;
    }
    if (syscall(SYS_kexec_file_load, kernel, initramfs, strlen(argv[3]) + 1,
                argv[3], 0UL)) {
        perror("kexec_file_load");
        return 1;
    }
    reboot(LINUX_REBOOT_CMD_KEXEC);
    perror("reboot");
    return 1;
}
