/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Sub-page protection: how a refused transfer of a block device ends.
 */
#ifndef GUARD_DMA_ERROR_H
#define GUARD_DMA_ERROR_H

#include "system/block-backend.h"
#include "guard/active.h"
#include "guard/mutant.h"

/* What a refused transfer ends with; no storage has it to say */
#define GUARD_DMA_ERROR     EFAULT

/*
 * blk_get_error_action() for errors that may be the guest's own, whose memory
 * is protected.  rerror and werror are not for those: the guest could stop the
 * VM with them again and again.
 */
static inline BlockErrorAction guard_error_action(BlockBackend *blk,
                                                  bool is_read, int error)
{
    if (guard_active() && error == GUARD_DMA_ERROR &&
        !GUARD_MUTANT(GUARD_HOOK_RERROR)) {
        return BLOCK_ERROR_ACTION_REPORT;
    }
    return blk_get_error_action(blk, is_read, error);
}

#endif /* GUARD_DMA_ERROR_H */
