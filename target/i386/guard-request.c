/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Sub-page protection that an x86 guest asks for: the CPU's side.
 */

#include "qemu/osdep.h"
#include "qapi/error.h"
#include "cpu.h"
#include "system/qtest.h"
#include "system/replay.h"
#include "system/tcg.h"
#include "guard/x86-request.h"

bool guard_request_check(X86CPU *cpu, Error **errp)
{
    if (!(cpu->env.features[FEAT_GUARD_EAX] & GUARD_CPUID_SUBPAGE)) {
        return true;
    }
    if (!tcg_enabled() && !qtest_enabled()) {
        error_setg(errp, "guest-subpage=on is enforced by TCG only: use "
                   "-accel tcg");
        return false;
    }
    if (!cpu->expose_tcg) {
        error_setg(errp, "guest-subpage=on can't be found by the guest with "
                   "tcg-cpuid=off, which hides the CPUID leaves that show it: "
                   "use tcg-cpuid=on");
        return false;
    }
    if (!(cpu->env.features[FEAT_1_ECX] & CPUID_EXT_HYPERVISOR)) {
        error_setg(errp, "guest-subpage=on can't be found by the guest with "
                   "hypervisor=off, by which CPUID leaf 0x40000000 means "
                   "nothing: use hypervisor=on");
        return false;
    }
    return true;
}
