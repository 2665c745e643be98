/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * What guard_subpage.ko offers: to other modules a function, and to an
 * administrator /dev/guard-subpage, which takes lines like
 *
 *     read fault ffffffff82b4f280 256
 *
 * that is access, action, kernel address (hexadecimal) and size in bytes.
 * Address and size are multiples of 128.  What is protected stays so until
 * the machine is reset.
 */
#ifndef GUARD_SUBPAGE_H
#define GUARD_SUBPAGE_H

#include <linux/types.h>

#define GUARD_SUBPAGE_DEVICE "guard-subpage"
#define GUARD_SUBPAGE_SIZE 128

/* As in the request array, docs/specs/subpage.rst */
enum guard_access {
    GUARD_ACCESS_READ = 1,
    GUARD_ACCESS_NONE = 2,
};

enum guard_action {
    GUARD_ACTION_REPORT = 1,
    GUARD_ACTION_DISCARD = 2,
    GUARD_ACTION_FAULT = 3,
};

int guard_subpage_protect(const void *addr, size_t size,
                          enum guard_access access, enum guard_action action);

#endif
