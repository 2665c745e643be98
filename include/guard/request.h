/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Sub-page protection that the guest asks for: the request array.
 *
 * The format is guest ABI, docs/specs/subpage.rst.
 */
#ifndef GUARD_REQUEST_H
#define GUARD_REQUEST_H

#define GUARD_REQUEST_VERSION       1
#define GUARD_REQUEST_MAX           4096
#define GUARD_REQUEST_ALIGN         64
#define GUARD_REQUEST_HEADER        8
#define GUARD_REQUEST_ENTRY         24
/* Offset of the status in an entry */
#define GUARD_REQUEST_STATUS        16

/* Pages, or larger uniform ranges, that a guest can have protected */
#define GUARD_REQUEST_QUOTA_DEFAULT 16384

/**
 * GuardRequestStatus: what became of an entry; guest ABI
 * @GUARD_REQUEST_DONE: it holds
 * @GUARD_REQUEST_SKIPPED: nothing is wrong with it, but with another one
 * @GUARD_REQUEST_BAD_RANGE: address or length are not multiples of 128, the
 *                           length is 0, or the range wraps around
 * @GUARD_REQUEST_NOT_RAM: a part of it is not RAM
 * @GUARD_REQUEST_BAD_ACCESS: unknown access
 * @GUARD_REQUEST_BAD_ACTION: unknown action
 * @GUARD_REQUEST_RESERVED: the reserved field is not 0
 * @GUARD_REQUEST_OVERLAP: it overlaps another entry, or the array itself
 * @GUARD_REQUEST_QUOTA: the guest would have too much memory protected
 * @GUARD_REQUEST_UNAVAILABLE: not at the moment, whatever it is
 */
typedef enum GuardRequestStatus {
    GUARD_REQUEST_DONE = 0,
    GUARD_REQUEST_SKIPPED = 1,
    GUARD_REQUEST_BAD_RANGE = 2,
    GUARD_REQUEST_NOT_RAM = 3,
    GUARD_REQUEST_BAD_ACCESS = 4,
    GUARD_REQUEST_BAD_ACTION = 5,
    GUARD_REQUEST_RESERVED = 6,
    GUARD_REQUEST_OVERLAP = 7,
    GUARD_REQUEST_QUOTA = 8,
    GUARD_REQUEST_UNAVAILABLE = 9,
} GuardRequestStatus;

/**
 * GuardRequestEntry: an entry, once it was looked at
 * @gpa: guest-physical address in bytes
 * @length: bytes
 * @noread: whether reads shall be forbidden as well
 * @action: a GuardAction
 * @status: what is wrong with it, as far as the entry alone tells
 */
typedef struct GuardRequestEntry {
    uint64_t gpa;
    uint32_t length;
    bool noread;
    uint8_t action;
    GuardRequestStatus status;
} GuardRequestEntry;

/**
 * guard_request_header: look at the head of an array
 * @buf: GUARD_REQUEST_HEADER bytes
 * @count: set to the number of entries, at most GUARD_REQUEST_MAX
 *
 * Returns: false if it is malformed.
 */
bool guard_request_header(const uint8_t *buf, uint32_t *count);

/**
 * guard_request_entry: look at an entry
 * @buf: GUARD_REQUEST_ENTRY bytes
 * @e: filled in
 */
void guard_request_entry(const uint8_t *buf, GuardRequestEntry *e);

/* Stands for the array among the changes, as GuardChange.index */
#define GUARD_REQUEST_ARRAY UINT32_MAX

/**
 * guard_request_sort: from where the entries are in RAM to what is to change
 * @entries: array of GuardRequestEntry, none of which is wrong
 * @changes: array of GuardChange, not empty: their RAM, with the place of the
 *           entry as @index, and that of the array; sorted, and left without
 *           the array
 *
 * Returns: false if two of them overlap; @status of one that does is set then.
 */
bool guard_request_sort(GArray *entries, GArray *changes);

#endif /* GUARD_REQUEST_H */
