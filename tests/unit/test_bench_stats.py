#!/usr/bin/python3
# SPDX-License-Identifier: GPL-2.0-or-later
"""What tests/bench does with its numbers, and how it writes its table."""

import json
import random
import re
import sys
import tempfile
import unittest
from argparse import Namespace
from math import comb, inf
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / 'bench'))

# They are found by the line above.
# pylint: disable=wrong-import-position
import arm                  # noqa: E402
import bench                # noqa: E402
import bench_stats          # noqa: E402
import cases                # noqa: E402
import layouts              # noqa: E402
import reference            # noqa: E402
from machine import BenchError, Cost, guard_command     # noqa: E402


class Ranks(unittest.TestCase):
    """Which order statistics enclose the median"""

    def test_known_ranks(self):
        """They are those of the tables in textbooks."""
        for count, ranks in ((6, (1, 6)), (8, (1, 8)), (9, (2, 8)),
                             (10, (2, 9)), (12, (3, 10)), (15, (4, 12)),
                             (20, (6, 15)), (25, (8, 18)), (30, (10, 21))):
            self.assertEqual(bench_stats.interval_ranks(count), ranks, count)

    def test_too_few(self):
        """Five samples or fewer say nothing at 95 %."""
        for count in range(6):
            self.assertIsNone(bench_stats.interval_ranks(count), count)

    def test_coverage(self):
        """The interval is sure enough, and the next narrower one is not."""
        def coverage(count, rank):
            return sum(comb(count, i) for i in range(rank, count - rank + 1)
                       ) / 2 ** count

        for count in range(6, 200):
            low, high = bench_stats.interval_ranks(count)
            self.assertEqual(low + high, count + 1)
            self.assertGreaterEqual(coverage(count, low), 0.95, count)
            if high - low > 1:
                self.assertLess(coverage(count, low + 1), 0.95, count)


class Estimates(unittest.TestCase):
    """The median and its spread"""

    def test_symmetric(self):
        """The spread is half the interval."""
        found = bench_stats.estimate([1.03, 0.97, 1.0, 1.01, 0.99, 1.02,
                                      0.98, 1.04, 0.96])
        self.assertEqual(found.pairs, 9)
        self.assertAlmostEqual(found.median, 1.0)
        self.assertAlmostEqual(found.spread, 0.03)

    def test_farther_end(self):
        """The spread reaches the farther end of the interval."""
        found = bench_stats.estimate([1.0, 1.0, 1.0, 1.0, 1.0, 1.5])
        self.assertEqual(found, (1.0, 0.5, 6))

    def test_outlier(self):
        """One bad pair of nine does not count."""
        found = bench_stats.estimate([1.0] * 8 + [50.0])
        self.assertEqual(found, (1.0, 0.0, 9))

    def test_too_few(self):
        """Too few samples have a median and no spread to rely on."""
        self.assertEqual(bench_stats.estimate([1.0, 3.0]), (2.0, inf, 2))
        with self.assertRaises(ValueError):
            bench_stats.estimate([])

    def test_hits(self):
        """The interval has the true median in about 95 % of all tries."""
        source = random.Random(1)
        tries = 2000
        hits = 0
        for _ in range(tries):
            found = bench_stats.estimate(
                [source.lognormvariate(0, 0.02) for _ in range(15)])
            hits += abs(found.median - 1) <= found.spread
        self.assertGreater(hits / tries, 0.95)


class Pairs(unittest.TestCase):
    """Slices side by side"""

    def test_drift(self):
        """A host that gets slower does not change the ratio."""
        speeds = [1, 1.2, 1.5, 2, 3, 5]
        self.assertAlmostEqual(
            bench_stats.paired_ratio(speeds, [1.1 * s for s in speeds]), 1.1)

    def test_bursts(self):
        """What makes some slices slower does not change the fastest."""
        source = random.Random(3)

        def slices(cost):
            return [cost * (1 if source.random() < 0.3
                            else 1 + source.random()) for _ in range(24)]

        for _ in range(100):
            self.assertAlmostEqual(
                bench_stats.fastest_ratio(slices(2), slices(2.2)), 1.1)

    def test_nonsense(self):
        """Slices that are missing or empty are errors."""
        for ratio in bench_stats.paired_ratio, bench_stats.fastest_ratio:
            with self.assertRaises(ValueError):
                ratio([1, 2], [1])
            with self.assertRaises(ValueError):
                ratio([1, 0], [1, 1])

    def test_turns(self):
        """There and back again"""
        self.assertEqual(bench_stats.turns('abc', 3),
                         [('a', 'b', 'c'), ('c', 'b', 'a'), ('a', 'b', 'c')])


def settings(**changed):
    """The command line, as far as it matters here"""
    return Namespace(**{'min_pairs': 9, 'max_pairs': 20, 'seconds': 1000,
                        'spread': 0.02, 'words': [], **changed})


class FakeBench(bench.Bench):
    """A bench that measures nothing: one round gives these costs"""

    def __init__(self, rounds, **changed):
        super().__init__(settings(**changed), {}, '')
        self.rounds = rounds

    def missing(self, case):
        return ''

    def loop_pair(self, _case, _number):
        costs = next(self.rounds)
        if isinstance(costs, Exception):
            raise costs
        return {name: [Cost(cost, 2 * cost)] for name, cost in costs.items()}


CASE = cases.plain('store', 'a case', 'loops')._replace(
    columns={'off': cases.Side('off'), 'on': cases.Side('xo')})
STEADY = {'': 1.0, 'off': 1.0, 'on': 1.5}
NOISY = [{'': 1.0, 'off': 1.0, 'on': 1.0}, {'': 1.0, 'off': 1.0, 'on': 1.2}]


class Rows(unittest.TestCase):
    """When to stop, and what the table says"""

    def measure(self, rounds, case=CASE, **changed):
        """A row and its line in the table"""
        row = FakeBench(iter(rounds), **changed).measure(case)
        return row, bench.table([row], 0.02)[1]

    def test_steady(self):
        """Steady numbers need no more than the least number of pairs."""
        row, words = self.measure([STEADY] * 20)
        self.assertTrue(row.reached)
        self.assertEqual(words[2:], ['1.000 ± 0.000 [9]',
                                     '1.500 ± 0.000 [9]'])
        self.assertNotIn('(!)', ' '.join(bench.legend([row], 0.02)))

    def test_noisy(self):
        """What stays noisy is in the table, and marked."""
        row, words = self.measure(NOISY * 10)
        self.assertFalse(row.reached)
        self.assertEqual(words[2], '1.000 ± 0.000 [20]')
        self.assertEqual(words[3], '1.100 ± 0.100 [20] (!)')
        self.assertIn('(!)', ' '.join(bench.legend([row], 0.02)))

    def test_large(self):
        """What is ten times slower may spread ten times as much."""
        rounds = [{'': 1.0, 'off': 1.0, 'on': on} for on in (9.9, 10, 10.1)]
        row, words = self.measure(rounds * 3)
        self.assertTrue(row.reached)
        self.assertEqual(words[3], '10.000 ± 0.100 [9]')

    def test_by_wall(self):
        """A case can be one of wall-clock time."""
        case = CASE._replace(columns={'on': cases.Side('xo')}, by_wall=True)
        self.assertTrue(all(c.contended for c in cases.CASES if c.by_wall))
        bench_ = FakeBench(iter(()))
        bench_.loop_pair = lambda _case, _number: {
            '': [Cost(1.0, 1.0)], 'on': [Cost(1.0, 3.0)]}
        row = bench_.measure(case)
        self.assertEqual(bench.table([row], 0.02)[1][2], '3.000 ± 0.000 [9]')

    def test_more_pairs(self):
        """Pairs are added until it is enough."""
        row, words = self.measure(NOISY * 2 + [STEADY] * 16)
        self.assertTrue(row.reached)
        self.assertGreater(row.cells['on'].cpu.pairs, 9)
        self.assertNotIn('(!)', words[3])

    def test_time_is_over(self):
        """The time that is allowed ends it as well."""
        row, words = self.measure([STEADY] * 20, seconds=1e-9)
        self.assertFalse(row.reached)
        self.assertEqual(words[3], '1.500 ± inf [1] (!)')

    def test_failure(self):
        """A case that fails is in the table, with the reason."""
        row, words = self.measure([STEADY, BenchError('QEMU ended')])
        self.assertEqual(row.problem, 'QEMU ended')
        self.assertEqual(words[2:], ['not measured: QEMU ended', ''])

    def test_rst(self):
        """The table goes between its two comments, and again."""
        rows = [self.measure([STEADY] * 9)[0],
                self.measure([BenchError('no QEMU')])[0]]
        args = settings(words=['--qemu', '/a/b/qemu', '--build=/c/d'])
        with tempfile.TemporaryDirectory() as tmp:
            path = Path(tmp, 'page.rst')
            path.write_text(f'Before\n\n{bench.RST_BEGIN}old\n'
                            f'{bench.RST_END}\nBehind\n', encoding='utf-8')
            bench.write_rst(path, 'twice')
            bench.write_rst(path, bench.rst(rows, None, args, '0.0'))
            text = path.read_text(encoding='utf-8')
            self.assertTrue(text.startswith('Before\n'))
            self.assertTrue(text.endswith('\nBehind\n'))
            self.assertNotIn('old', text)
            self.assertNotIn('twice', text)
            self.assertIn('1.500 ± 0.000 [9]', text)
            self.assertIn('Ordinary code\n-------------\n', text)
            self.assertNotIn(arm.TITLE, text)
            self.assertIn('not measured: no QEMU', text)
            self.assertIn('--qemu .../qemu --build=.../d``', text)
            path.write_text('no comments\n', encoding='utf-8')
            with self.assertRaises(BenchError):
                bench.write_rst(path, 'table')

    def test_cases(self):
        """The list of cases fits together."""
        names = [case.name for case in cases.CASES]
        self.assertEqual(len(names), len(set(names)))
        for group in cases.GROUPS:
            for case in group.cases:
                self.assertLessEqual(set(case.columns), set(group.columns))
                self.assertEqual(case.reference.less, 1)
                for side in (case.reference, *case.columns.values()):
                    self.assertIn(side.variant, cases.VARIANTS)

    def test_numbers(self):
        """The host and the guest programs have the same numbers."""
        header = Path(bench.HERE, 'guest/bench.h').read_text(encoding='utf-8')
        for name, value in (('BENCH_GUARDED ', cases.GUARDED_PAGE),
                            ('BENCH_GUARDED_OFFSET', cases.GUARDED_OFFSET)):
            found = re.search(rf'#define {name} *(\w+?)(?:ull)?$', header,
                              re.MULTILINE)
            self.assertEqual(int(found[1], 0), value)

    def test_loops(self):
        """The guest programs have the loops of the cases."""
        loops = {}
        for case in cases.CASES:
            if case.program == cases.LINUX:
                continue
            if case.program not in loops:
                text = Path(bench.HERE, f'guest/{case.program}.c').read_text(
                    encoding='utf-8')
                loops[case.program] = re.findall(r'^    \{ "(.*?)", ', text,
                                                 re.MULTILINE)
            for side in (case.reference, *case.columns.values()):
                self.assertIn(side.loop, loops[case.program])


class Layouts(unittest.TestCase):
    """One binary, linked several times"""

    def test_shuffled(self):
        """The objects have another order, and all else has its place."""
        words = ['cc', '-m64', '-o', 'q.o', '-Wl,--as-needed', '-Wl,x.o',
                 *(f'{i}.c.o' for i in range(50)), '-Wl,--start-group', 'l.a']
        first, again, other = (layouts.shuffled(words, seed, 'out')
                               for seed in (1, 1, 2))
        self.assertEqual(first, again)
        self.assertNotEqual(first, other)
        self.assertNotEqual(first[6:56], words[6:56])
        self.assertEqual(sorted(first[6:56]), sorted(words[6:56]))
        # Another binary with some objects more
        more = layouts.shuffled(words + ['a.o', 'b.o'], 1, 'out')
        both = set(words[6:56])
        self.assertEqual([word for word in more if word in both],
                         [word for word in first if word in both])
        self.assertEqual(first[:6] + first[56:58], ['cc', '-m64', '-o', 'out',
                         '-Wl,--as-needed', '-Wl,x.o', *words[56:]])

    def test_in_turn(self):
        """All sides of a pair have the same layout, the next pair another."""
        made = bench.Bench(settings(), {cases.PATCHED: ['p0', 'p1'],
                                        cases.STOCK: ['s0', 's1']}, '')
        # pylint: disable=protected-access
        found = [[made._qemu(cases.VARIANTS[name], number)
                  for name in ('stock', 'off', 'armed')]
                 for number in range(3)]
        self.assertEqual(found, [['s0', 'p0', 'p0'], ['s1', 'p1', 'p1'],
                                 ['s0', 'p0', 'p0']])


class Guards(unittest.TestCase):
    """What is guarded, and how the times of that are read"""

    def test_scattered(self):
        """Each address is a sub-page of another page."""
        for count in 1, 512, 1000:
            found = cases.scattered(cases.UNUSED, count)
            self.assertEqual(len({a // cases.PAGE for a in found}), count)
            self.assertFalse(any(a % cases.SUBPAGE for a in found))
            self.assertGreaterEqual(min(found), cases.UNUSED)
            self.assertLess(max(found),
                            cases.UNUSED + count * 2 * cases.PAGE)

    def test_unused(self):
        """They are where nothing else is."""
        end = cases.UNUSED + cases.UNUSED_SIZE
        for address in cases.VARIANTS['armed'].guarded:
            self.assertGreaterEqual(address, cases.UNUSED)
            self.assertLess(address, end)
        for name in 'one', 'many':
            for address in cases.VARIANTS[name].guarded[1:]:
                self.assertGreaterEqual(address, 128 << 20)
                self.assertLess(address, 1 << 30)

    def test_command(self):
        """The command that is made is the one that is meant."""
        command = json.loads(guard_command([128, 4096], 'fault'))
        self.assertEqual(command['execute'], 'subpage-set-access')
        self.assertEqual(command['arguments']['regions'][1],
                         {'addr': 4096, 'size': 128, 'access': 'read'})

    def test_trace(self):
        """The last of each trace event counts."""
        log = ''.join(f'1@{at}.5:{name} x\n' for at, name in
                      ((1, arm.EVENTS[0]), (2, arm.EVENTS[0]),
                       (3, arm.EVENTS[1]), (4, arm.EVENTS[2])))
        self.assertEqual(arm.traced(log), [2.5, 3.5, 4.5])
        with self.assertRaises(BenchError):
            arm.traced('')

    def test_times(self):
        """Small tables have no bytes a page."""
        times = arm.Times({
            1: [arm.Sample(0.001, 0.0005, 0.0002, 0)] * 3,
            100000: [arm.Sample(i, 0.5, 0.02, 4000000) for i in (1, 3, 2)]})
        words = times.table()
        self.assertEqual(words[1][-1], '—')
        self.assertEqual(words[2][1], '2000.00 (1000.00 - 3000.00)')
        self.assertEqual(words[2][-1], '40.0')


class Pristine(unittest.TestCase):
    """How the patches are taken out of a copy of the source"""

    def setUp(self):
        self.tmp = tempfile.TemporaryDirectory()
        self.addCleanup(self.tmp.cleanup)
        self.root = Path(self.tmp.name).resolve() / 'project'
        self.build = self.root / 'build'
        self.tree = self.build / 'bench/src'
        for name, text in (('include/guard/xo.h', 'ours'),
                           ('build/orig/meson.build', 'plain'),
                           ('build/orig/hw/pc.c', 'pc'),
                           ('build/applied/meson.build', 'patched'),
                           ('build/applied/hw/pc.c', 'patched'),
                           ('build/bench/src/meson.build', 'patched'),
                           ('build/bench/src/hw/pc.c', 'patched'),
                           ('build/bench/src/hw/other.c', 'other'),
                           ('build/bench/src/include/exec.h', 'exec')):
            path = self.root / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text, encoding='utf-8')
        (self.tree / 'guard').symlink_to(self.root)
        (self.tree / 'include/guard').symlink_to('../guard/include/guard')
        (self.tree / 'hw/exec.h').symlink_to('../include/exec.h')

    def test_pristine(self):
        """Our files and links go, everything else stays."""
        reference.make_pristine(self.tree, self.root, self.build)
        found = {str(path.relative_to(self.tree)) for path
                 in self.tree.rglob('*') if not path.is_dir()}
        self.assertEqual(found, {'meson.build', 'hw/pc.c', 'hw/other.c',
                                 'include/exec.h', 'hw/exec.h'})
        self.assertEqual((self.tree / 'meson.build').read_text(), 'plain')
        self.assertEqual((self.tree / 'hw/pc.c').read_text(), 'pc')
        self.assertEqual((self.root / 'include/guard/xo.h').read_text(),
                         'ours')

    def test_not_pristine(self):
        """A patched file without its original is an error."""
        (self.build / 'orig/hw/pc.c').unlink()
        with self.assertRaisesRegex(BenchError, 'orig/hw/pc.c is missing'):
            reference.make_pristine(self.tree, self.root, self.build)

    def test_still_included(self):
        """So is a pristine file that is none."""
        (self.build / 'orig/meson.build').write_text("subdir('guard')\n")
        with self.assertRaisesRegex(BenchError, 'still includes'):
            reference.make_pristine(self.tree, self.root, self.build)


class Tap(unittest.TestResult):
    """Results in TAP"""

    def __init__(self):
        super().__init__()
        self.count = 0

    def point(self, good, test, why=''):
        """One result"""
        self.count += 1
        for line in why.splitlines():
            print(f'# {line}')
        print(f'{"" if good else "not "}ok {self.count} - {test.id()}')

    def addSuccess(self, test):
        super().addSuccess(test)
        self.point(True, test)

    def addFailure(self, test, err):
        super().addFailure(test, err)
        self.point(False, test, self.failures[-1][1])

    def addError(self, test, err):
        super().addError(test, err)
        self.point(False, test, self.errors[-1][1])


def main():
    """Run all tests."""
    result = Tap()
    unittest.defaultTestLoader.loadTestsFromModule(
        sys.modules[__name__]).run(result)
    print(f'1..{result.count}')
    return 0 if result.wasSuccessful() else 1


if __name__ == '__main__':
    sys.exit(main())
