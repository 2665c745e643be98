#!/usr/bin/python3
# SPDX-License-Identifier: GPL-2.0-or-later
"""
Measure what the patches cost: run this QEMU and the same one without them in
turn, and print ratios, so that 1.00 is "as fast" and 1.02 is "2 % slower".

A pair is a fresh process of each side.  They live at the same time and take
turns: one runs a slice of the work, then the next, in the order A B, B A,
and so on.  The pair's ratio is the median over its slices.  A cell of the
table is the median over the pairs; it is followed by the distance to the
farther end of that median's 95 % confidence interval by order statistics.
Pairs are added until this spread is small enough for all columns of a row.

What is compared is CPU time of the whole process, user and system, read
while the virtual machine is stopped; so load on the host disturbs little.  Of
a boot it is user time alone.
"""

import argparse
import contextlib
import datetime
import json
import os
import re
import sys
import tempfile
import time
from pathlib import Path
from typing import Dict, List, NamedTuple, Optional

import bench_stats
import cases
from machine import BenchError, Cost, LoopMachine, Machine
from reference import build_reference

HERE = Path(__file__).resolve().parent
ROOT = HERE.parent.parent

# A slice of a loop, in seconds of CPU time, and how many make a run
SLICE = 0.2
SLICES = 6

RST_BEGIN = '.. begin of what bench.py writes\n'
RST_END = '.. end of what bench.py writes\n'


class Cell(NamedTuple):
    """A ratio of the table, by CPU time and by wall-clock time"""
    cpu: bench_stats.Estimate
    wall: bench_stats.Estimate


class Row(NamedTuple):
    """What came out of a case; problem says why nothing did"""
    case: cases.Case
    cells: Dict[str, Cell]
    reached: bool
    seconds: float
    problem: str = ''


class Bench:
    """The binaries, the guests, and how long to try"""

    def __init__(self, args: argparse.Namespace, qemus: Dict[str, str],
                 tmp: str):
        self.args = args
        self.qemus = qemus
        self._tmp = tmp
        self._initrd: Optional[str] = None
        self._counts: Dict[cases.Side, int] = {}
        self.samples: Dict[str, List] = {}

    # --- One pair ---

    def _loop_machine(self, program: str, name: str) -> LoopMachine:
        variant = cases.VARIANTS[name]
        return LoopMachine(self.qemus[variant.binary], variant.args,
                           str(self.args.guests / f'{program}.elf'))

    def _calibrate(self, machine: LoopMachine, loop: str) -> int:
        """How often the loop goes round in a slice"""
        count = 1
        while True:
            cost = machine.slice(loop, count)
            if cost.cpu > SLICE / 4:
                # The first slice of a loop translates it: measure again.
                cost = machine.slice(loop, count)
                return max(1, round(count * SLICE / cost.cpu))
            count *= 2

    def loop_pair(self, case: cases.Case, _number: int) -> Dict[str, List]:
        """Slices of each side, in turn"""
        sides = {'': case.reference, **case.columns}
        costs: Dict[str, List[Cost]] = {name: [] for name in sides}
        with contextlib.ExitStack() as stack:
            machines = {}
            for side in sides.values():
                if side.variant not in machines:
                    machine = machines[side.variant] = stack.enter_context(
                        self._loop_machine(case.program, side.variant))
                    for command in cases.VARIANTS[side.variant].setup:
                        machine.qmp(*command)
            if case.reference not in self._counts:
                self._counts[case.reference] = self._calibrate(
                    machines[case.reference.variant], case.reference.loop)
            count = self._counts[case.reference]
            for side in sides.values():
                machines[side.variant].slice(side.loop, count)
            for turn in bench_stats.turns(tuple(sides), SLICES):
                for name in turn:
                    side = sides[name]
                    costs[name].append(
                        machines[side.variant].slice(side.loop, count))
        return costs

    def _boot(self, name: str) -> Cost:
        variant = cases.VARIANTS[name]
        kernel = self.args.kernel / 'vmlinuz'
        begin = time.monotonic()
        with Machine(self.qemus[variant.binary],
                     ['-m', '256M', '-serial', 'null', '-kernel', str(kernel),
                      '-initrd', self._initrd_path(),
                      '-append', 'console=ttyS1 panic=-1',
                      *variant.args]) as machine:
            for command in variant.setup:
                machine.qmp(*command)
            machine.wait_text(b'@@qemu-guard ready')
            # A fresh process spends as much as a fifth of its time in the host
            # kernel, where it is given memory: by chance, and not by us.
            return Cost(machine.user_time(), time.monotonic() - begin)

    def _initrd_path(self) -> str:
        """The demo's initramfs, without what the demo's acts need"""
        if self._initrd is None:
            demo = HERE.parent / 'demo'
            sys.path.insert(0, str(demo))
            # Part of the demo, and of no use to the other cases
            import initramfs  # pylint: disable=import-outside-toplevel
            self._initrd = os.path.join(self._tmp, 'initramfs')
            initramfs.write(self._initrd, {'init': str(demo / 'init'),
                                           'bin/busybox': self.args.busybox})
        return self._initrd

    def boot_pair(self, case: cases.Case, number: int) -> Dict[str, List]:
        """One boot of each side; every other pair begins with the last"""
        sides = {'': case.reference, **case.columns}
        turn = bench_stats.turns(tuple(sides), 2)[number % 2]
        return {name: [self._boot(sides[name].variant)] for name in turn}

    # --- One case ---

    def missing(self, case: cases.Case) -> str:
        """What the case needs and does not find"""
        if case.program == cases.LINUX:
            needed = {self.args.kernel / 'vmlinuz':
                      'scripts/fetch-guest-kernel gets one',
                      Path(self.args.busybox): 'package busybox-static'}
        else:
            needed = {self.args.guests / f'{case.program}.elf':
                      'ninja guard-tests builds it'}
        for path, source in needed.items():
            if not path.is_file():
                return f'{path.name} is missing: {source}'
        return ''

    def measure(self, case: cases.Case) -> Row:
        """Add pairs until the spread is small, or the time is over."""
        problem = self.missing(case)
        begin = time.monotonic()
        ratios: Dict[str, List[Cost]] = {name: [] for name in case.columns}
        pair = (self.boot_pair if case.program == cases.LINUX
                else self.loop_pair)
        cells: Dict[str, Cell] = {}
        reached = False
        while not problem and not reached:
            try:
                costs = pair(case, len(self.samples.get(case.name, ())))
            except BenchError as exc:
                problem = str(exc)
                break
            self.samples.setdefault(case.name, []).append(costs)
            for name in case.columns:
                ratios[name].append(Cost(*(
                    bench_stats.paired_ratio([c[i] for c in costs['']],
                                             [c[i] for c in costs[name]])
                    for i in range(2))))
                cells[name] = Cell(*(
                    bench_stats.estimate([c[i] for c in ratios[name]])
                    for i in range(2)))
            pairs = len(self.samples[case.name])
            reached = (pairs >= self.args.min_pairs and
                       all(cell.cpu.spread < self.args.spread
                           for cell in cells.values()))
            if (pairs >= self.args.max_pairs
                    or time.monotonic() - begin > self.args.seconds):
                break
        return Row(case, cells, reached, time.monotonic() - begin, problem)


# --- The table ---

def cell_text(cell: Optional[Cell], limit: float) -> str:
    """A cell: ratio, spread, pairs; a mark if the spread is too large"""
    if cell is None:
        return '—'
    mark = '' if cell.cpu.spread < limit else ' (!)'
    return (f'{cell.cpu.median:.3f} ± {cell.cpu.spread:.3f} '
            f'[{cell.cpu.pairs}]{mark}')


def columns(rows: List[Row]) -> List[str]:
    """The columns that any row has, in the order of the list"""
    return [name for name in cases.COLUMNS
            if any(name in row.case.columns for row in rows)]


def table(rows: List[Row], limit: float) -> List[List[str]]:
    """The table's words, the heading first"""
    names = columns(rows)
    words = [['case', 'what', *names]]
    for row in rows:
        if row.problem:
            cells = [f'not measured: {row.problem}']
            cells += [''] * (len(names) - 1)
        else:
            cells = [cell_text(row.cells.get(name), limit)
                     for name in names]
        words.append([row.case.name, row.case.title, *cells])
    return words


def legend(rows: List[Row], limit: float) -> List[str]:
    """What the words in the table mean"""
    lines = [f'{name}: {cases.COLUMNS[name]}.' for name in columns(rows)]
    lines.append('Each cell: median ratio of CPU times ± spread [pairs]; '
                 'spread: to the farther end of the 95 % confidence interval '
                 'of the median.')
    if any(not row.reached and row.cells for row in rows):
        lines.append(f'(!): the spread did not get below {limit:g} within '
                     'the pairs and the time allowed; do not rely on it.')
    return lines


def facts(args: argparse.Namespace, load: str) -> List[str]:
    """Where, when and how: paths are left out"""
    command = ['tests/bench/bench.py']
    for word in args.words:
        option, equals, value = word.partition('=')
        if os.sep in (value if equals else word):
            value = (value if equals else word).rstrip(os.sep)
            word = (option + equals if equals else '') + '.../' + \
                os.path.basename(value)
        command.append(word)
    with open('/proc/cpuinfo', encoding='utf-8') as info:
        text = info.read()
    model = re.search(r'^model name\s*:\s*(.*)$', text, re.MULTILINE)
    name = model[1] if model else 'unknown'
    virtual = ', virtual' if re.search(r'\bhypervisor\b', text) else ''
    today = datetime.datetime.now(datetime.timezone.utc)
    return [f'Command: ``{" ".join(command)}``',
            f'Date: {today:%Y-%m-%d}',
            f'Host: {len(os.sched_getaffinity(0))} CPUs, {name}{virtual}; '
            f'load average {load}']


def rst(rows: List[Row], args: argparse.Namespace, load: str) -> str:
    """The table in reStructuredText"""
    words = table(rows, args.spread)
    # An empty first cell would continue the row before.
    words = [[f'``{line[0]}``' if i else line[0],
              *(cell or '\\' for cell in line[1:])]
             for i, line in enumerate(words)]
    widths = [max(map(len, column)) for column in zip(*words)]
    bar = '  '.join('=' * width for width in widths)
    lines = [bar]
    for i, line in enumerate(words):
        lines.append('  '.join(cell.ljust(width) for cell, width
                               in zip(line, widths)).rstrip())
        if i == 0:
            lines.append(bar)
    lines += [bar, '']
    lines += [f'* {line}' for line in
              legend(rows, args.spread) + facts(args, load)]
    return '\n'.join(lines) + '\n'


def write_rst(path: Path, text: str) -> None:
    """Put the table between the two comments, or make a file of its own."""
    old = path.read_text(encoding='utf-8') if path.exists() else ''
    before, begin, rest = old.partition(RST_BEGIN)
    _, end, after = rest.partition(RST_END)
    if old and not end:
        raise BenchError(f'{path} lacks the line "{RST_BEGIN.strip()}", or '
                         f'"{RST_END.strip()}" behind it: the table goes '
                         'between them')
    path.write_text(f'{before}{begin}\n{text}\n{end}{after}' if old else text,
                    encoding='utf-8')


# --- The command line ---

def positive(text: str) -> float:
    """A number above zero"""
    value = float(text)
    if not value > 0:
        raise argparse.ArgumentTypeError(f'{text} is not above 0')
    return value


def choose(parser: argparse.ArgumentParser,
           args: argparse.Namespace) -> List[cases.Case]:
    """The cases that are asked for, with the columns that are"""
    def listed(text: str, known: List[str], what: str) -> List[str]:
        names = [name for name in text.split(',') if name] or known
        for name in names:
            if name not in known:
                parser.error(f'there is no {what} {name}, only '
                             f'{", ".join(known)}')
        return names

    names = listed(args.cases, [case.name for case in cases.CASES], 'case')
    wanted = listed(args.columns, list(cases.COLUMNS), 'column')
    chosen = [case._replace(columns={name: side for name, side
                                     in case.columns.items()
                                     if name in wanted})
              for case in cases.CASES if case.name in names]
    return [case for case in chosen if case.columns]


def parse_arguments() -> argparse.Namespace:
    """The command line"""
    parser = argparse.ArgumentParser(
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('--build', type=Path, metavar='DIR',
                        help='the folder that configure made')
    parser.add_argument('--qemu', metavar='FILE',
                        help='the patched binary (default: that in --build)')
    parser.add_argument('--other', metavar='FILE',
                        help='the binary to compare with (default: the same '
                        'QEMU without our patches, built in BUILD/bench)')
    parser.add_argument('--guests', type=Path, metavar='DIR',
                        help='the compiled guest programs (default: those in '
                        '--build)')
    parser.add_argument('--kernel', type=Path, metavar='DIR',
                        help='folder with vmlinuz (default: '
                        'BUILD/guest-kernel)')
    parser.add_argument('--busybox', default='/bin/busybox', metavar='FILE',
                        help='a static busybox (default: %(default)s)')
    parser.add_argument('--cases', metavar='NAME,...', default='',
                        help='measure these only')
    parser.add_argument('--columns', metavar='NAME,...', default='',
                        help='measure these columns only; "off" compares '
                        'binaries that know nothing of our options')
    parser.add_argument('--list', action='store_true', help='name the cases')
    parser.add_argument('--spread', type=positive, default=0.02,
                        help='how small the spread has to be (default: '
                        '%(default)s)')
    parser.add_argument('--min-pairs', type=int, default=9, metavar='N',
                        help='at least so many pairs (default: %(default)s)')
    parser.add_argument('--max-pairs', type=int, default=60, metavar='N',
                        help='at most so many pairs (default: %(default)s)')
    parser.add_argument('--seconds', type=positive, default=600, metavar='S',
                        help='at most so long for a case (default: '
                        '%(default)s)')
    parser.add_argument('--rst', type=Path, metavar='FILE',
                        help='write the table into a file of the docs')
    parser.add_argument('--json', type=Path, metavar='FILE',
                        help='write every sample, in seconds')
    args = parser.parse_args()
    args.words = sys.argv[1:]
    args.chosen = choose(parser, args)
    if args.list:
        return args
    if args.build:
        args.build = args.build.resolve()
        args.qemu = args.qemu or args.build / 'qemu/qemu-system-x86_64'
        args.guests = args.guests or args.build / 'qemu/guard/tests/bench'
        args.kernel = args.kernel or args.build / 'guest-kernel'
    for name in 'qemu', 'guests', 'kernel':
        if getattr(args, name) is None:
            parser.error(f'--build or --{name} is needed')
    if not args.build and not args.other:
        parser.error('--build or --other is needed')
    return args


def run(args: argparse.Namespace) -> int:
    """Measure and print."""
    def say(text: str) -> None:
        print(text, flush=True)

    other = args.other or build_reference(ROOT, args.build, say)
    qemus = {cases.PATCHED: os.path.abspath(args.qemu),
             cases.STOCK: os.path.abspath(other)}
    load = f'{os.getloadavg()[0]:.1f} before'
    rows = []
    with tempfile.TemporaryDirectory(prefix='qemu-guard-bench-') as tmp:
        bench = Bench(args, qemus, tmp)
        for case in args.chosen:
            row = bench.measure(case)
            rows.append(row)
            say(f'{case.name:<13}' + (
                f'not measured: {row.problem}' if row.problem else
                '  '.join(f'{name} {cell_text(cell, args.spread)} '
                          f'(wall {cell.wall.median:.3f} ± '
                          f'{cell.wall.spread:.3f})'
                          for name, cell in row.cells.items())
                + f'  {row.seconds:.0f} s'))
    load += f', {os.getloadavg()[0]:.1f} after, the bench itself included'

    words = table(rows, args.spread)
    widths = [max(map(len, column)) for column in zip(*words)]
    # What could not be measured has a long text that is no column.
    widths[2:] = [24] * (len(widths) - 2)
    say('')
    for line in words:
        say('  '.join(cell.ljust(width)
                      for cell, width in zip(line, widths)).rstrip())
    say('')
    for line in legend(rows, args.spread) + facts(args, load):
        say(line)
    if args.json:
        args.json.write_text(json.dumps(bench.samples), encoding='utf-8')
    if args.rst:
        write_rst(args.rst, rst(rows, args, load))
    return 1 if any(row.problem for row in rows) else 0


def main() -> int:
    """Do what the command line says."""
    args = parse_arguments()
    if args.list:
        for case in args.chosen:
            print(f'{case.name:<13} {case.title} '
                  f'({", ".join(case.columns)})')
        return 0
    try:
        return run(args)
    except BenchError as exc:
        print(f'bench: {exc}', file=sys.stderr)
        return 1


if __name__ == '__main__':
    sys.exit(main())
