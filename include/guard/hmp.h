/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Human monitor commands.
 */
#ifndef GUARD_HMP_H
#define GUARD_HMP_H

void hmp_subpage_set_access(Monitor *mon, const QDict *qdict);
void hmp_info_subpage_access(Monitor *mon, const QDict *qdict);
void hmp_register_pin(Monitor *mon, const QDict *qdict);
void hmp_register_unpin(Monitor *mon, const QDict *qdict);
void hmp_info_register_pins(Monitor *mon, const QDict *qdict);
void hmp_info_guard(Monitor *mon, const QDict *qdict);

#endif /* GUARD_HMP_H */
