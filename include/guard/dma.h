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

/*
 * dma_memory_map() and dma_memory_rw() of a piece of a list.  The buffers of a
 * virtio device are mapped by its queue as well, which tells of what is
 * blocked; so these do not.
 */
void *guard_sg_map(QEMUSGList *sg, dma_addr_t addr, dma_addr_t *len,
                   DMADirection dir);
MemTxResult guard_sg_rw(QEMUSGList *sg, dma_addr_t addr, void *buf,
                        dma_addr_t len, DMADirection dir, MemTxAttrs attrs);

#endif /* GUARD_DMA_H */
