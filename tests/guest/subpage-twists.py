# SPDX-License-Identifier: GPL-2.0-or-later
"""The host's side of subpage-twists.c."""

import os
import re
import tempfile

import subpage_host


def toggle(session, arg):
    """Protect a piece and lift that again, many times."""
    for _ in range(arg['rounds']):
        for access in ('read', 'read-write'):
            subpage_host.set_access(session, [
                {'addr': arg['addr'], 'size': 128, 'access': access}],
                'report')
    return {}


def task_register(session, _arg):
    """Selector and base of TR."""
    reply = session.qmp({'execute': 'human-monitor-command', 'arguments': {
        'command-line': 'info registers'}})
    match = re.search(r'TR =(\w+) (\w+)', reply['return'])
    return {'selector': int(match[1], 16), 'base': int(match[2], 16)}


def widened(session, arg):
    """How many areas were written to by an FXSAVE that no event told of."""
    session.qmp('query-name')
    told = {event['data']['addr'] for event in session.events
            if event['name'] == 'SUBPAGE_VIOLATION'
            and event['data']['size'] > 1}
    with tempfile.TemporaryDirectory() as folder:
        path = os.path.join(folder, 'saved')
        session.qmp({'execute': 'pmemsave', 'arguments': {
            'val': arg['addr'], 'size': 512 * arg['n'], 'filename': path}})
        with open(path, 'rb') as file:
            data = file.read()
    saved = [arg['addr'] + at for at in range(0, len(data), 512)
             if any(data[at + 2:at + 512])]
    return {'saved': len(saved), 'told': len(told),
            'wide': len([addr for addr in saved if addr not in told])}


calls = dict(subpage_host.calls, toggle=toggle, tr=task_register,
             widened=widened)
