/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Sub-page protection: iothreads.
 */
#ifndef GUARD_IOTHREAD_H
#define GUARD_IOTHREAD_H

/* All that run, or NULL.  Called with the BQL held. */
const GPtrArray *guard_iothreads(void);

#endif /* GUARD_IOTHREAD_H */
