/* SPDX-License-Identifier: GPL-2.0-or-later */
#ifndef GUARD_REQUEST_FUZZ_H
#define GUARD_REQUEST_FUZZ_H

/* What libFuzzer calls: one input; returns 0 */
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

#endif /* GUARD_REQUEST_FUZZ_H */
