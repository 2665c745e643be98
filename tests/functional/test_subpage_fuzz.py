#!/usr/bin/env python3
# SPDX-License-Identifier: GPL-2.0-or-later
"""
subpage-set-access with random and hostile arguments, against a model.

Each command applies as a whole or not at all; an error names the element
that is to blame; query-subpage-access lists exactly what the model has.
GUARD_FUZZ_SEED and GUARD_FUZZ_STEPS choose the run.
"""

import os
import random

from guard_case import GuardTest

SUBPAGE = 128
PAGE = 4096
LARGE = 1 << 21
HUGE = 1 << 30
TOP = 1 << 64
RAM = [(0, 0xa0000), (0x100000, 0x80000000), (0x100000000, 0x200000000)]
# Neither certainly RAM nor certainly not: what the firmware makes of it
UNKNOWN = (0xa0000, 0x100000)
NOT_RAM = [0x80000000, 0xb0000000, 0xfec00000, 0xfee00000, 0xfffc0000,
           0xffffff80, 0x200000000, 1 << 40, 1 << 52, 1 << 63,
           TOP - PAGE]
ACCESS = ('none', 'read', 'read-write')
ACTIONS = ('report', 'discard', 'fault', 'pause')
MAX_REGIONS = 131072
STEPS = int(os.environ.get('GUARD_FUZZ_STEPS', '300'))
SEED = int(os.environ.get('GUARD_FUZZ_SEED', '1'))


class Model:
    """The protected runs, (start, end, access, action), sorted."""

    def __init__(self):
        self.runs = []

    def apply(self, changes, action):
        """Lay changes, which don't overlap, over what there is."""
        changes = sorted((r['addr'], r['addr'] + r['size'], r['access'])
                         for r in changes)
        out, first = [], 0
        for start, end, access, old in self.runs:
            while first < len(changes) and changes[first][1] <= start:
                first += 1
            at, i = start, first
            while i < len(changes) and changes[i][0] < end:
                if changes[i][0] > at:
                    out.append((at, changes[i][0], access, old))
                at = max(at, changes[i][1])
                i += 1
            if at < end:
                out.append((at, end, access, old))
        out += [(start, end, access, action)
                for start, end, access in changes if access != 'read-write']
        self.runs = []
        for run in sorted(out):
            if self.runs and self.runs[-1][1] == run[0] and \
                    self.runs[-1][2:] == run[2:]:
                run = (self.runs.pop()[0], *run[1:])
            self.runs.append(run)

    def within(self, start, end):
        """The runs, cut to a range."""
        return [(max(s, start), min(e, end), access, action)
                for s, e, access, action in self.runs
                if s < end and e > start]


def fault_of(region):
    """What is wrong with one element, as a word of the error, or None."""
    addr, size = region['addr'], region['size']
    if addr % SUBPAGE:
        return f'0x{addr:x}'
    if not size or size % SUBPAGE:
        return f'{size}'
    if addr + size > TOP:
        return f'0x{addr:x}'
    if not any(start <= addr and addr + size <= end for start, end in RAM):
        return '0x'
    return None


def overlapping(regions):
    """The indexes of elements that overlap another."""
    order = sorted(range(len(regions)), key=lambda i: regions[i]['addr'])
    found, end, last = set(), 0, None
    for i in order:
        region = regions[i]
        if region['addr'] < end:
            found |= {i, last}
        if region['addr'] + region['size'] > end:
            end, last = region['addr'] + region['size'], i
    return found


class SubpageFuzz(GuardTest):
    """A stopped VM with RAM on both sides of the hole below 4 GiB."""

    def setUp(self):
        """Memory that is not touched is not there."""
        super().setUp()
        self.random = random.Random(SEED)
        vm = self.vm
        vm.add_args('-nodefaults', '-S', '-machine', 'q35,memory-backend=ram',
                    '-object', 'memory-backend-ram,id=ram,size=6G,reserve=off',
                    '-m', '6G')
        vm.launch()
        self.model = Model()

    def memory(self):
        """Resident memory of QEMU in bytes."""
        with open(f'/proc/{self.vm.get_pid()}/status',
                  encoding='utf-8') as status:
            for line in status:
                if line.startswith('VmRSS:'):
                    return int(line.split()[1]) * 1024
        return 0

    def good_region(self):
        """Somewhere in RAM, mostly in the same few places."""
        rng = self.random
        start, end = rng.choice(RAM)
        unit = rng.choice((SUBPAGE, SUBPAGE, PAGE, LARGE, HUGE))
        base = rng.choice((start, end - 16 * PAGE, start + HUGE - 8 * PAGE,
                           start + LARGE - 8 * PAGE, start + 5 * LARGE))
        addr = base + rng.randrange(16 * PAGE // SUBPAGE) * SUBPAGE
        addr = max(start, min(addr, end - SUBPAGE))
        if rng.random() < 0.2:
            addr = max(start, addr & -unit)
        size = unit * rng.choice((1, 1, 1, 2, 3, 7))
        size = min(size, end - addr)
        return {'addr': addr, 'size': size, 'access': rng.choice(ACCESS)}

    def bad_region(self):
        """An element that no call may accept."""
        rng = self.random
        region = self.good_region()
        kind = rng.randrange(6)
        if kind == 0:
            region['addr'] += rng.randrange(1, SUBPAGE)
        elif kind == 1:
            region['size'] = rng.choice((0, 1, SUBPAGE - 1, SUBPAGE + 1,
                                         TOP - 1))
        elif kind == 2:
            region['addr'] = rng.choice(NOT_RAM)
        elif kind == 3:
            region['addr'] = TOP - rng.choice((SUBPAGE, PAGE, HUGE))
            region['size'] = HUGE * 2
        elif kind == 4:
            start, end = rng.choice(RAM[1:])
            region['addr'] = end - SUBPAGE * rng.randrange(1, 9)
            region['size'] = (end - region['addr'] + SUBPAGE *
                              rng.choice((1, 32, 1 << 20)))
        else:
            region['size'] = TOP - SUBPAGE
        return region

    def regions(self):
        """The list of one command."""
        rng = self.random
        count = rng.choice((0, 1, 1, 2, 3, 8, 40, 1000))
        if count == 1000:
            # Scattered sub-pages, or every other one
            step = rng.choice((2 * SUBPAGE, PAGE, 3 * PAGE + SUBPAGE))
            base = RAM[1][0] + rng.randrange(64) * PAGE
            regions = [{'addr': base + i * step, 'size': SUBPAGE,
                        'access': rng.choice(ACCESS)} for i in range(count)]
            rng.shuffle(regions)
        else:
            regions = [self.good_region() for _ in range(count)]
        if rng.random() < 0.3:
            for _ in range(rng.choice((1, 1, 3))):
                regions.insert(rng.randrange(len(regions) + 1),
                               self.bad_region())
        if regions and rng.random() < 0.1:
            regions.append(dict(rng.choice(regions)))
        return regions

    def check_query(self, arguments, want):
        """query-subpage-access gives these runs, by rising address."""
        reply = self.vm.qmp('query-subpage-access', arguments)
        self.assertIn('return', reply, arguments)
        got = [(r['addr'], r['addr'] + r['size'], r['access'], r['action'])
               for r in reply['return']]
        if got != want:
            for one, other in zip(got, want):
                self.assertEqual(one, other)
        self.assertEqual(len(got), len(want))

    def step(self):
        """One command, and what became of it."""
        regions = self.regions()
        action = self.random.choice(ACTIONS)
        reply = self.vm.qmp('subpage-set-access',
                            {'regions': regions, 'action': action})
        bad = {i: fault_of(region) for i, region in enumerate(regions)
               if fault_of(region)}
        twice = set() if bad else overlapping(regions)
        if not bad and not twice:
            self.assertIn('return', reply)
            self.model.apply(regions, action)
            return
        self.assertIn('error', reply, f'bad {bad}, overlapping {twice}')
        text = reply['error']['desc']
        self.assertEqual(reply['error']['class'], 'GenericError', text)
        blamed = [i for i in (bad or twice) if f'regions[{i}]' in text]
        self.assertTrue(blamed, f'{text}: bad {bad}, overlapping {twice}')
        if bad:
            self.assertIn(bad[blamed[0]], text)

    def test_model(self):
        """All or nothing, and listed as it is."""
        grown = None
        for number in range(STEPS):
            with self.subTest(seed=SEED, step=number):
                self.step()
                start = self.random.choice(
                    (0, 1, 0x100000, LARGE + 64, 0x7ffff000, 0x100000001))
                size = self.random.choice((1, SUBPAGE, LARGE, 3 * HUGE))
                # As it is told, cut by the byte
                self.check_query({'addr': start, 'size': size},
                                 self.model.within(start, start + size))
                if number % 10 == 9:
                    self.check_query({}, self.model.runs)
            if number == 50:
                grown = self.memory()
        if grown:
            self.assertLess(self.memory() - grown, 256 << 20)
        reply = self.vm.qmp('subpage-set-access', {'regions': [
            {'addr': start, 'size': end - start, 'access': 'read-write'}
            for start, end in RAM]})
        self.assertIn('return', reply)
        self.check_query({}, [])
        self.assertEqual(self.records(), 0)

    def records(self):
        """Records in use."""
        return [f['limits']['records-used']
                for f in self.vm.cmd('query-guard')
                if f['feature'] == 'subpage'][0]

    def test_types(self):
        """What the schema refuses changes nothing."""
        good = {'addr': 0x200000, 'size': PAGE, 'access': 'read'}
        self.vm.cmd('subpage-set-access', regions=[good])
        want = [(0x200000, 0x201000, 'read', 'fault')]
        other = {'addr': 0x300000, 'size': PAGE, 'access': 'read'}
        for bad in (dict(other, addr=-1), dict(other, addr=TOP),
                    dict(other, addr='0x1000'), dict(other, size=-128),
                    dict(other, access='write'), dict(other, access=None),
                    dict(other, surplus=1), {'addr': 0}, 5, None, []):
            reply = self.vm.qmp('subpage-set-access',
                                {'regions': [other, bad]})
            self.assertIn('error', reply, bad)
            self.check_query({}, want)
        for action in 'explode', '', None, 3:
            reply = self.vm.qmp('subpage-set-access',
                                {'regions': [other], 'action': action})
            self.assertIn('error', reply, action)
            self.check_query({}, want)
        for arguments in ({'addr': 0}, {'size': 1}, {'addr': 0, 'size': 0},
                          {'addr': TOP - 1, 'size': 2}):
            reply = self.vm.qmp('query-subpage-access', arguments)
            self.assertIn('error', reply, arguments)
        self.assertEqual(self.vm.cmd('query-status')['status'], 'prelaunch')

    def test_too_many(self):
        """As many as one command takes, and one more."""
        if STEPS < 1000:
            self.skipTest('a reply of 10 MB: with GUARD_FUZZ_STEPS=1000 only')
        regions = [{'addr': RAM[1][0] + i * 2 * SUBPAGE, 'size': SUBPAGE,
                    'access': 'read'} for i in range(MAX_REGIONS + 1)]
        reply = self.vm.qmp('subpage-set-access', {'regions': regions})
        self.assertIn('error', reply)
        self.assertIn(str(MAX_REGIONS), reply['error']['desc'])
        self.check_query({}, [])
        regions.pop()
        self.vm.cmd('subpage-set-access', regions=regions)
        self.assertEqual(self.records(), MAX_REGIONS * 2 * SUBPAGE // PAGE)
        # All of it in one reply is more than the client library takes
        self.check_query({'addr': RAM[1][0], 'size': LARGE},
                         [(r['addr'], r['addr'] + SUBPAGE, 'read', 'fault')
                          for r in regions if r['addr'] < RAM[1][0] + LARGE])

    def test_toggle(self):
        """On and off, many times, with the CPU running into it or not."""
        self.vm.cmd('cont')
        before = self.memory()
        for i in range(STEPS // 10):
            regions = [{'addr': 0x40000000 + (i * 37 + k) * PAGE,
                        'size': SUBPAGE << (k % 6), 'access': 'none'}
                       for k in range(100)]
            self.vm.cmd('subpage-set-access', regions=regions)
            for region in regions:
                region['access'] = 'read-write'
            self.vm.cmd('subpage-set-access', regions=regions)
        self.check_query({}, [])
        self.assertEqual(self.records(), 0)
        self.assertLess(self.memory() - before, 128 << 20)


if __name__ == '__main__':
    GuardTest.main()
