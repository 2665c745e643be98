/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Sub-page protection: hooks in devices that have guest memory mapped, and in
 * migration.
 */
#ifndef GUARD_DEVICES_H
#define GUARD_DEVICES_H

struct vhost_dev;

/**
 * guard_vhost_begin: a vhost backend is being set up
 * @hdev: by which it is known until guard_vhost_end()
 * @errp: set if memory is protected
 *
 * Called with the BQL held.  From then on, memory can't be protected.
 */
bool guard_vhost_begin(struct vhost_dev *hdev, Error **errp);

/**
 * guard_vhost_refused: whether guard_vhost_begin() would fail
 * @errp: set if so; may be NULL
 *
 * For callers that can't cope with it as late as that.
 */
bool guard_vhost_refused(Error **errp);

/* It is gone; nothing happens if guard_vhost_begin() was not called */
void guard_vhost_end(struct vhost_dev *hdev);

/**
 * guard_migration_blocked: whether protections are in the way of a migration
 * @errp: set if so
 *
 * For the mode and capabilities that are set.  Called with the BQL held.
 */
bool guard_migration_blocked(Error **errp);

/*
 * The same for what arrives, where memory was protected before; it is reported
 * as an error then
 */
bool guard_incoming_refused(void);

/* The same for migration by RDMA */
bool guard_rdma_blocked(Error **errp);

/* Whether a migration that is under way lets memory be protected */
bool guard_migration_allows(Error **errp);

struct GuardChange;

/**
 * guard_migration_changed: a table with some changes was published
 * @changes: sorted, not overlapping
 * @n: how many
 *
 * A migration that is under way copies what they protect, even if the guest
 * said before that the memory is free.
 */
void guard_migration_changed(const struct GuardChange *changes, size_t n);

typedef struct GuardIothreads GuardIothreads;

/**
 * guard_iothreads_ask: ask all iothreads for a sign
 *
 * Called with the BQL held, after a table was published.
 * Returns: what guard_iothreads_done() takes, or NULL if there are none.
 */
GuardIothreads *guard_iothreads_ask(void);

/**
 * guard_iothreads_wait: wait until all that were asked have given it
 * @t: of guard_iothreads_ask()
 * @end: until when, by g_get_monotonic_time()
 * @errp: set if not all have given it by then
 *
 * Called with the BQL held, which it releases meanwhile.  If not all have, it
 * can be called again.
 * Returns: whether what iothreads found by an older table is done with, or
 * recorded as a live map.
 */
bool guard_iothreads_wait(GuardIothreads *t, int64_t end, Error **errp);

/* Nobody will wait for it any more.  Called with the BQL held. */
void guard_iothreads_done(GuardIothreads *t);

/* What guard_note() was told on this thread, or NULL */
const void *guard_noted(void);

#endif /* GUARD_DEVICES_H */
