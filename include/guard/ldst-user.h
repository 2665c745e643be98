/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Sub-page protection is for system emulation only: what ldst_common.c.inc
 * asks of guard/cputlb.c.inc, for accel/tcg/user-exec.c.
 */
#ifndef GUARD_LDST_USER_H
#define GUARD_LDST_USER_H

#define guard_store1(cpu, addr, val, oi, ra)    false
#define guard_store2(cpu, addr, val, oi, ra)    false
#define guard_store4(cpu, addr, val, oi, ra)    false
#define guard_store8(cpu, addr, val, oi, ra)    false
#define guard_store16(cpu, addr, val, oi, ra)   false

#endif /* GUARD_LDST_USER_H */
