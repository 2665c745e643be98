/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Sub-page protection: transfers of block devices.
 */
#ifndef GUARD_DMA_H
#define GUARD_DMA_H

#include "guard/dma-error.h"

/**
 * guard_sg_refused: whether a transfer touches memory that it may not access
 * @sg: where the transfer goes to, or comes from
 * @is_write: whether it writes guest memory
 *
 * A refusal is counted and sent as an event.
 */
bool guard_sg_refused(QEMUSGList *sg, bool is_write);

#endif /* GUARD_DMA_H */
