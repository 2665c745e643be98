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
# Rounds with a change after which it is clear
ENOUGH = 3


class Race:
    """The pages, and how many stores each CPU has tried."""

    def __init__(self, session, arg, folder):
        self.session = session
        self.pages = [arg['first'], arg['second']]
        self.counters = arg['counters'], 64 * (arg['cpus'] + 1)
        self.files = [os.path.join(folder, str(i)) for i in range(3)]

    def commands(self, *commands):
        """Run commands one after the other; none may fail."""
        replies = self.session.qmp(*commands)
        for reply in replies if len(commands) > 1 else [replies]:
            if 'error' in reply:
                raise ValueError(str(reply))

    def save(self, addr, size, file):
        """The command that makes a file of the guest's memory."""
        return {'execute': 'pmemsave', 'arguments': {
            'val': addr, 'size': size, 'filename': self.files[file]}}

    def look(self, before=(), after=()):
        """
        What the pages and the counters hold, with commands before and after:
        QEMU gets all of them at once, so that as little time as can be is
        between them.
        """
        looks = [self.save(page, 4096, i)
                 for i, page in enumerate(self.pages)]
        self.commands(*before, *looks, self.save(*self.counters, 2), *after)
        return self.read(0), self.read(1)

    def read(self, number):
        """A file that save() made."""
        with open(self.files[number], 'rb') as file:
            return file.read()

    def tried(self):
        """Stores that each CPU has tried, as of the last look."""
        return [each for each, in struct.iter_unpack(
            '<Q56x', self.read(2))][1:]

    def let_them_store(self):
        """Wait until each CPU has tried enough since the last look."""
        start = now = self.tried()
        while any(n < s + TRIES for n, s in zip(now, start)):
            self.session.late_lines += self.session.pump(0)
            self.commands(self.save(*self.counters, 2))
            now = self.tried()
        return [n - s for n, s in zip(now, start)]

    def access(self, kind):
        """The command that protects both pages, or lifts it."""
        return {'execute': 'subpage-set-access', 'arguments': {
            'regions': [{'addr': page, 'size': 4096, 'access': kind}
                        for page in self.pages],
            'action': 'discard'}}


def race(session, arg):
    """All rounds."""
    rounds = min(arg['rounds'], LIMIT)
    tried = [0] * arg['cpus']
    done, changed, unchanged, where = 0, 0, 0, []

    with tempfile.TemporaryDirectory() as folder:
        state = Race(session, arg, folder)
        while done < rounds and changed < ENOUGH:
            before = state.look(before=[state.access('read')])
            stores = state.let_them_store()
            after = state.look(after=[state.access('read-write')])
            tried = [t + s for t, s in zip(tried, stores)]
            if before != after:
                changed += 1
                where += [f'round {done} page {p} byte {i:#x}'
                          for p in range(2) for i in range(4096)
                          if before[p][i] != after[p][i]][:2]
            state.let_them_store()
            unchanged += state.look() == after
            session.events.clear()
            done += 1
    return {'rounds': done, 'changed': changed, 'unchanged': unchanged,
            'tried': tried, 'where': where[:6]}


calls = {'race': race}
