# SPDX-License-Identifier: GPL-2.0-or-later
"""The host's side of pin-system.c: pins and protections, and a race."""

import os
import struct
import tempfile

import image_host
import pin_host
import subpage_host

LIMIT = int(os.environ.get('SUBPAGE_ROUNDS', '100000'))
# Writes of each kind that each CPU has to try
TRIES = 20


def race(session, arg):
    """Pin, wait until it holds, look whether it does, unpin; many times."""
    cpus, size = arg['cpus'], arg['stride']
    rounds = min(arg['rounds'], LIMIT)
    registers = arg['registers']
    selectors = [{key: r[key] for key in ('register', 'index') if key in r}
                 for r in registers]
    answer = {'rounds': rounds, 'pinned': 0, 'free': 0, 'refused': 0}

    with tempfile.TemporaryDirectory() as folder:
        path = os.path.join(folder, 'counters')

        def look():
            """Tries and hits of each CPU but the first."""
            session.qmp({'execute': 'pmemsave', 'arguments': {
                'val': arg['counters'], 'size': size * cpus,
                'filename': path}})
            with open(path, 'rb') as file:
                data = file.read()
            found = [struct.unpack_from('<8Q', data, size * i)
                     for i in range(1, cpus)]
            return [f[0] for f in found], sum(sum(f[1:]) for f in found)

        def let_them_try():
            """Returns how often something evil was in force meanwhile."""
            # A round that began before may count once more
            start, _ = look()
            while any(n < s + 2 for n, s in zip(look()[0], start)):
                session.late_lines += session.pump(0)
            start, before = look()
            while any(n < s + TRIES for n, s in zip(look()[0], start)):
                session.late_lines += session.pump(0)
            return look()[1] - before

        def armed():
            pins = session.qmp('query-register-pins')['return']
            return all(pin['state'] == 'armed' for pin in pins
                       if pin['cpu-index'])

        for _ in range(rounds):
            reply = session.qmp({'execute': 'register-pin', 'arguments': {
                'registers': registers, 'action': 'discard'}})
            answer['refused'] += 'error' in reply
            while not armed():
                session.late_lines += session.pump(0)
            answer['pinned'] += let_them_try()
            session.qmp({'execute': 'register-unpin',
                         'arguments': {'registers': selectors}})
            answer['free'] += let_them_try() > 0
            session.events.clear()
    return answer


calls = dict(subpage_host.calls, **pin_host.calls, **image_host.calls,
             race=race)
