# SPDX-License-Identifier: GPL-2.0-or-later
"""The host's side of subpage-corners.c."""

import time

import subpage_host


def flip(session, arg):
    """Protect a page that nobody uses, and lift it again, many times."""
    region = {'addr': arg['addr'], 'size': 4096}
    for _ in range(arg['rounds']):
        for access in ('read', 'read-write'):
            reply = session.qmp(subpage_host.set_access(
                [dict(region, access=access)], 'fault'))
            if 'error' in reply:
                raise ValueError(str(reply))
    return {'rounds': arg['rounds']}


def lists(session, arg):
    """How many lines of a monitor command begin with a text."""
    reply = session.qmp({'execute': 'human-monitor-command',
                         'arguments': {'command-line': arg['line']}})
    return {'lines': sum(line.startswith(arg['text'])
                         for line in reply['return'].splitlines())}


def order(session, _arg):
    """Where in the sequence of all events these came last."""
    session.qmp('query-name')
    names = [event['name'] for event in session.events]
    return {key: len(names) - 1 - names[::-1].index(name)
            if name in names else -1
            for key, name in (('wakeup', 'WAKEUP'), ('reset', 'RESET'),
                              ('cleared', 'SUBPAGE_CLEARED'))}


def counts(session, arg):
    """The counters, of all and by region, and what events told, all since
    the one before."""
    time.sleep(arg['sleep'])
    guard, access = session.qmp('query-guard', 'query-subpage-access')
    total = subpage_host.counted(guard)
    events = [event['data'] for event in session.events
              if event['name'] == 'SUBPAGE_VIOLATION']
    session.events.clear()
    last = getattr(session, 'corners_total', 0)
    session.corners_total = total
    return {'total': total - last, 'events': len(events),
            'told': len(events) + sum(e['suppressed'] for e in events),
            'reads': [r['reads'] for r in access['return']],
            'writes': [r['writes'] for r in access['return']]}


calls = dict(subpage_host.calls, flip=flip, lists=lists, order=order,
             counts=counts)
