# SPDX-License-Identifier: GPL-2.0-or-later
"""
The host's side of the tests of register pinning: pin, unpin, and tell what
QEMU said in between.  lib/pin.c is the guest's half.
"""

TOLD = ('cpu-index', 'register', 'index', 'old', 'attempted', 'rip', 'action')


def counted(session):
    """All violations so far, by the counters, which drop none."""
    for feature in session.qmp('query-guard')['return']:
        if feature['feature'] == 'register-pinning':
            return feature['counters']['writes']
    raise ValueError('query-guard has no register-pinning')


def start(session):
    """From here on is counted."""
    session.events.clear()
    session.pins_counted = counted(session)


def pin_seen(session, _arg):
    """What was told since then."""
    total = counted(session)
    events = [event['data'] for event in session.events
              if event['name'] == 'REGISTER_PIN_VIOLATION']
    stops = sum(event['name'] == 'STOP' for event in session.events)
    since = getattr(session, 'pins_counted', 0)
    answer = {'events': len(events) + sum(e['suppressed'] for e in events),
              'counted': total - since, 'stops': stops}
    if events:
        answer['first'] = {key: events[0][key] for key in TOLD
                           if key in events[0]}
    start(session)
    return answer


def pin_more(session, arg):
    """One register-pin; what it pins is remembered."""
    command = dict(arg.get('more', {}), registers=arg['registers'])
    reply = session.qmp({'execute': 'register-pin', 'arguments': command})
    if 'return' in reply:
        selectors = [{key: register[key] for key in ('register', 'index')
                      if key in register} for register in arg['registers']]
        which = {key: command[key] for key in ('cpu-index',)
                 if key in command}
        if not hasattr(session, 'pinned'):
            session.pinned = []
        session.pinned.append(dict(which, registers=selectors))
    return reply


def pin(session, arg):
    """The first register-pin; what was seen before is forgotten."""
    for register in arg['registers']:
        # A row has an index, but only an MSR does
        if register['register'] != 'msr':
            register.pop('index', None)
    start(session)
    session.react('STOP', ['cont'], arg['conts'])
    return pin_more(session, arg)


def unpin(session, arg):
    """Undo what pin() and pin_more() did."""
    for arguments in getattr(session, 'pinned', []):
        session.qmp({'execute': 'register-unpin', 'arguments': arguments})
    session.pinned = []
    session.reactions.clear()
    return pin_seen(session, arg)


calls = {'pin': pin, 'pin_more': pin_more, 'unpin': unpin,
         'pin_seen': pin_seen}
