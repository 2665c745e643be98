# SPDX-License-Identifier: GPL-2.0-or-later
"""
The host's side of the sub-page tests: arm a range, disarm it, and tell what
QEMU said in between.  lib/subpage.c is the guest's half.
"""

TOLD = ('addr', 'size', 'write', 'source', 'cpu-index', 'rip', 'linear-addr',
        'action')


def counted(session):
    """All violations so far, by the counters, which drop none."""
    reply = session.qmp('query-guard')
    for feature in reply['return']:
        if feature['feature'] == 'subpage':
            return feature['counters']['reads'] + feature['counters']['writes']
    raise ValueError('query-guard has no subpage')


def start(session):
    """From here on is counted."""
    session.events.clear()
    session.subpage_counted = counted(session)


def seen(session, _arg):
    """What was told since then."""
    total = counted(session)
    events = [event['data'] for event in session.events
              if event['name'] == 'SUBPAGE_VIOLATION']
    stops = sum(event['name'] == 'STOP' for event in session.events)
    answer = {'events': len(events) + sum(e['suppressed'] for e in events),
              'counted': total - session.subpage_counted, 'stops': stops}
    if events:
        answer['first'] = {key: events[0][key] for key in TOLD
                           if key in events[0]}
    start(session)
    return answer


def set_access(session, regions, action):
    """One subpage-set-access."""
    return session.qmp({'execute': 'subpage-set-access', 'arguments': {
        'regions': regions, 'action': action}})


def arm_more(session, arg):
    """Protect one more range."""
    region = {'addr': arg['addr'], 'size': arg['size'],
              'access': arg['access']}
    session.subpage_armed.append(region)
    return set_access(session, [region], arg['action'])


def arm(session, arg):
    """Protect a range; what was seen before is forgotten."""
    session.subpage_armed = []
    start(session)
    for _ in range(arg['conts']):
        session.reactions.append({'event': 'STOP', 'do': ['cont']})
    return arm_more(session, arg)


def disarm(session, arg):
    """Lift what arm() and arm_more() set."""
    regions = [dict(region, access='read-write')
               for region in session.subpage_armed]
    set_access(session, regions, 'fault')
    session.reactions.clear()
    return seen(session, arg)


calls = {'arm': arm, 'arm_more': arm_more, 'disarm': disarm, 'seen': seen}
