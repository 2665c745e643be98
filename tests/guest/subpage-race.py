# SPDX-License-Identifier: GPL-2.0-or-later
"""
The host's side of subpage-race.c: arm, look, wait for stores, look again,
disarm.  The guest says how many rounds; SUBPAGE_ROUNDS can limit them.
"""

import os
import struct
import tempfile

LIMIT = int(os.environ.get('SUBPAGE_ROUNDS', '100000'))
# Stores that each CPU has to try while the pages are armed
TRIES = 12


def race(session, arg):
    """All rounds."""
    pages = [arg['first'], arg['second']]
    cpus = arg['cpus']
    rounds = min(arg['rounds'], LIMIT)
    tried = [0] * cpus
    changed, unchanged, where = 0, 0, []

    with tempfile.TemporaryDirectory() as folder:
        path = os.path.join(folder, 'memory')

        def peek(addr, size):
            reply = session.qmp({'execute': 'pmemsave', 'arguments': {
                'val': addr, 'size': size, 'filename': path}})
            if 'error' in reply:
                raise ValueError(str(reply))
            with open(path, 'rb') as file:
                return file.read()

        def look():
            return [peek(page, 4096) for page in pages]

        def count():
            data = peek(arg['counters'], 64 * (cpus + 1))
            return [struct.unpack_from('<Q', data, 64 * i)[0]
                    for i in range(1, cpus + 1)]

        def let_them_store():
            start = now = count()
            while any(n < s + TRIES for n, s in zip(now, start)):
                session.late_lines += session.pump(0)
                now = count()
            return [n - s for n, s in zip(now, start)]

        def access(kind):
            reply = session.qmp({'execute': 'subpage-set-access',
                                 'arguments': {
                                     'regions': [{'addr': page, 'size': 4096,
                                                  'access': kind}
                                                 for page in pages],
                                     'action': 'discard'}})
            if 'error' in reply:
                raise ValueError(str(reply))

        for number in range(rounds):
            access('read')
            before = look()
            done = let_them_store()
            after = look()
            access('read-write')
            tried = [t + d for t, d in zip(tried, done)]
            if before != after:
                changed += 1
                where += [f'round {number} page {p} byte {i:#x}'
                          for p in range(2) for i in range(4096)
                          if before[p][i] != after[p][i]][:2]
            let_them_store()
            if look() == after:
                unchanged += 1
            session.events.clear()
    return {'rounds': rounds, 'changed': changed, 'unchanged': unchanged,
            'tried': tried, 'where': where[:6]}


calls = {'race': race}
