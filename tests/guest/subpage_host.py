# SPDX-License-Identifier: GPL-2.0-or-later
"""
The host's side of the sub-page tests: arm a range, disarm it, and tell what
QEMU said in between.  lib/subpage.c is the guest's half.
"""

import time

TOLD = ('addr', 'size', 'write', 'source', 'cpu-index', 'rip', 'linear-addr',
        'action')


def counted(reply):
    """All violations so far, by the counters, which drop none."""
    for feature in reply['return']:
        if feature['feature'] == 'subpage':
            return feature['counters']['reads'] + feature['counters']['writes']
    raise ValueError('query-guard has no subpage')


def start(session, reply):
    """From here on is counted."""
    session.events.clear()
    session.subpage_counted = counted(reply)


def pace(session, events):
    """
    Wait while QEMU is close to holding events of a kind back: it sends 200
    at once, and then 10 a second.
    """
    now = time.monotonic()
    levels, then = getattr(session, 'subpage_levels', ({}, now))
    for kind in levels:
        levels[kind] = max(0, levels[kind] - 10 * (now - then))
    for event in events:
        kind = event['action'], event['write'], event['source']
        levels[kind] = levels.get(kind, 0) + 1
    session.subpage_levels = levels, now
    most = max(levels.values(), default=0)
    if most > 150:
        time.sleep((most - 140) / 10)


def told(session, reply):
    """What was told since then."""
    total = counted(reply)
    events = [event['data'] for event in session.events
              if event['name'] == 'SUBPAGE_VIOLATION']
    stops = sum(event['name'] == 'STOP' for event in session.events)
    answer = {'events': len(events) + sum(e['suppressed'] for e in events),
              'counted': total - session.subpage_counted, 'stops': stops}
    if events:
        answer['first'] = {key: events[0][key] for key in TOLD
                           if key in events[0]}
    pace(session, events)
    start(session, reply)
    return answer


def seen(session, _arg):
    """The same, for the guest."""
    return told(session, session.qmp('query-guard'))


def set_access(regions, action):
    """One subpage-set-access."""
    return {'execute': 'subpage-set-access', 'arguments': {
        'regions': regions, 'action': action}}


def region(session, arg):
    """The range that the guest asked for; disarm() will lift it."""
    session.subpage_armed.append({'addr': arg['addr'], 'size': arg['size'],
                                  'access': arg['access']})
    return session.subpage_armed[-1:]


def arm(session, arg):
    """Protect a range; what was seen before is forgotten."""
    session.subpage_armed = []
    session.react('STOP', ['cont'], arg['conts'])
    counters, reply = session.qmp('query-guard',
                                  set_access(region(session, arg),
                                             arg['action']))
    start(session, counters)
    return reply


def arm_more(session, arg):
    """Protect one more range."""
    return session.qmp(set_access(region(session, arg), arg['action']))


def disarm(session, _arg):
    """Lift what arm() and arm_more() set."""
    regions = [dict(each, access='read-write')
               for each in session.subpage_armed]
    _, reply = session.qmp(set_access(regions, 'fault'), 'query-guard')
    session.reactions.clear()
    return told(session, reply)


calls = {'arm': arm, 'arm_more': arm_more, 'disarm': disarm, 'seen': seen}
