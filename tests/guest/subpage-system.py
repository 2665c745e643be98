# SPDX-License-Identifier: GPL-2.0-or-later
"""The host's side of subpage-system.c: the monitor, pmemsave, a debugger."""

import os
import tempfile

from gdb_host import gdb
import subpage_host


def monitor(session, arg):
    """One line of the human monitor; the last word of what it says."""
    reply = session.qmp({'execute': 'human-monitor-command',
                         'arguments': {'command-line': arg['line']}})
    words = reply.get('return', '').split()
    return {'last': words[-1] if words else ''}


def pmemsave(session, arg):
    """Eight bytes of physical memory, in hexadecimal."""
    with tempfile.TemporaryDirectory() as folder:
        path = os.path.join(folder, 'saved')
        session.qmp({'execute': 'pmemsave', 'arguments': {
            'val': arg['addr'], 'size': 8, 'filename': path}})
        with open(path, 'rb') as file:
            return {'data': file.read().hex()}


def disarm(session, arg):
    """Stops by a debugger are not the guest's."""
    answer = subpage_host.disarm(session, arg)
    if getattr(session, 'debugged', False):
        answer['stops'] = 0
        session.debugged = False
    return answer


def debugged(session, arg):
    """A debugger reads eight bytes, and writes one."""
    session.debugged = True
    data, written = gdb(session, f'm{arg["read"]:x},8',
                        f'M{arg["write"]:x},1:99')
    return {'data': data, 'written': written}


calls = dict(subpage_host.calls, monitor=monitor, pmemsave=pmemsave,
             gdb=debugged, disarm=disarm)
