/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * What guard_guest.ko offers to programs: /dev/guard-xo
 *
 * Open the device, hand over code with GUARD_XO_LOAD, then map it:
 *
 *     mmap(addr, size, PROT_READ | PROT_EXEC, MAP_SHARED, fd, 0)
 *
 * The mapping can be executed but neither read nor written.  With MAP_FIXED
 * it can take the place of the code it was made from.  It lives for as long
 * as it is mapped; the descriptor may be closed.
 */
#ifndef GUARD_GUEST_H
#define GUARD_GUEST_H

#include <linux/ioctl.h>
#include <linux/types.h>

#define GUARD_XO_DEVICE "guard-xo"

/* One descriptor holds one piece of code of at most this many bytes. */
#define GUARD_XO_MAX_SIZE (64 * 1024)

/*
 * Also offer an ordinary mapping of the same frames, at
 * GUARD_XO_ORDINARY_OFFSET.  It is for tests: it differs from the
 * execute-only one in nothing but the bit.
 */
#define GUARD_XO_ORDINARY 1u
#define GUARD_XO_ORDINARY_OFFSET (1ul << 20)

struct guard_xo_load {
    __u64 addr;     /* in: start of the code, page aligned */
    __u32 size;     /* in: bytes, whole pages */
    __u32 flags;    /* in: 0 or GUARD_XO_ORDINARY */
};

/*
 * Copy code into the descriptor.  Once for each descriptor: EBUSY after that.
 */
#define GUARD_XO_LOAD _IOW('G', 0x40, struct guard_xo_load)

#endif
