# SPDX-License-Identifier: GPL-2.0-or-later
"""The host's side of pin-guest.c."""

import pin_host


def guest_pins(session, _arg):
    """The guest's pins of CPU 0 by register."""
    reply = session.qmp('query-register-pins')
    return {pin['register']: {key: pin[key] for key in ('ones', 'zeros')}
            for pin in reply['return']
            if pin['set-by'] == 'guest' and pin['cpu-index'] == 0}


calls = dict(pin_host.calls, guest_pins=guest_pins)
