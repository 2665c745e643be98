#!/usr/bin/python3
# SPDX-License-Identifier: GPL-2.0-or-later
"""
Measure what the patches cost: run this QEMU and the same one without them in
turn, and print ratios, so that 1.00 is "as fast" and 1.02 is "2 % slower".

A pair is a fresh process of each side; the binaries were linked several times,
their objects in another order, and pairs take them in turn.  The processes
live at the same time and take turns: one runs a slice of the work, then the
next, in the order A B, B A, and so on.  The pair's ratio is that of the
fastest slice of each, or the median over its slices where two vCPUs get in
each other's way.  A cell of the table is the median over the pairs; it is
followed by the distance to the farther end of that median's 95 % confidence
interval by order statistics.  Pairs are added until this spread is small
enough for all columns of a row.

What is compared is CPU time of the whole process, user and system, read
while the virtual machine is stopped; so load on the host disturbs little.  Of
a boot it is user time alone.

The last table is not of ratios: it has the times and the memory that it
takes to guard many pages.
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
from typing import Callable, Dict, List, NamedTuple, Optional, Tuple

import arm
import bench_stats
import cases
import layouts
from machine import BenchError, Cost, LoopMachine, Machine
from reference import build_plugin, build_reference

HERE = Path(__file__).resolve().parent
ROOT = HERE.parent.parent

class Slices(NamedTuple):
    """How long a slice of a loop is, in seconds of CPU time, and how many"""
    length: float
    number: int


# Short enough that some fall between two bursts of what else a host does
SLICES = Slices(0.05, 24)
# Where vCPUs wait for each other, and for them a slice to begin and to end
CONTENDED = Slices(0.2, 6)

# Boots of each side in a pair
BOOTS = 3

# What every boot gets.  Without KASLR a variable of the kernel has the same
# address each time.
BOOT_LINE = ('console=ttyS1 panic=-1 nokaslr '
             f'memmap={cases.UNUSED_SIZE:#x}${cases.UNUSED:#x}')
# Where Linux maps physical address 0 for its own code and data, without KASLR
KERNEL_BASE = 0xffffffff80000000

# A name for --cases and --list that is no case
ARM = 'arm'

RST_BEGIN = '.. begin of what bench.py writes\n'
RST_END = '.. end of what bench.py writes\n'


class Cell(NamedTuple):
    """A ratio of the table, by CPU time and by wall-clock time"""
    cpu: bench_stats.Estimate
    wall: bench_stats.Estimate

    def shown(self, case: cases.Case) -> bench_stats.Estimate:
        """The one that the table has"""
        return self.wall if case.by_wall else self.cpu


class Row(NamedTuple):
    """What came out of a case; problem says why nothing did"""
    case: cases.Case
    cells: Dict[str, Cell]
    reached: bool
    seconds: float
    problem: str = ''


@contextlib.contextmanager
def one_cpu():
    """What is started meanwhile runs on one CPU."""
    allowed = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {max(allowed)})
    try:
        yield
    finally:
        os.sched_setaffinity(0, allowed)


class Bench:
    """The binaries, the guests, and how long to try"""

    def __init__(self, args: argparse.Namespace, qemus: Dict[str, List[str]],
                 tmp: str):
        self.args = args
        self.qemus = qemus
        self._tmp = tmp
        self._initrd: Optional[str] = None
        self._symbols: Dict[str, int] = {}
        self._counts: Dict[Tuple[str, cases.Side, Slices], int] = {}
        self.samples: Dict[str, List] = {}

    # --- One pair ---

    def _options(self, variant: cases.Variant) -> List[str]:
        """QEMU's options, those that are not known before included"""
        options = list(variant.args)
        if variant.plugin:
            options += ['-plugin', str(self.args.plugin)]
        if variant.watch:
            options += ['-gdb', f'unix:{self._tmp}/gdb,server=on,wait=off']
        return options

    def _set_up(self, machine: Machine, variant: cases.Variant) -> None:
        """What is done to a machine before the work begins"""
        if variant.guarded:
            machine.guard(variant.guarded, variant.action)
        if variant.symbol:
            address = self._symbol(variant.symbol) & -cases.SUBPAGE
            machine.guard([address], variant.action)
        if variant.pins:
            # A boot takes longer than the ten seconds that a CPU has for it.
            machine.qmp('register-pin', {'registers': list(variant.pins),
                                         'grace-ms': 600000})
        if variant.watch:
            machine.watch(f'{self._tmp}/gdb', variant.watch)

    @staticmethod
    def _check(machine: Machine, variant: cases.Variant) -> None:
        """What has to hold when the work is done"""
        if variant.untouched and machine.violations():
            raise BenchError('the guest touched what should be left alone')

    def _qemu(self, variant: cases.Variant, number: int) -> str:
        """The binary for a pair"""
        made = self.qemus[variant.binary]
        return made[number % len(made)]

    def _loop_machine(self, program: str, name: str,
                      number: int) -> LoopMachine:
        variant = cases.VARIANTS[name]
        return LoopMachine(self._qemu(variant, number),
                           self._options(variant),
                           str(self.args.guests / f'{program}.elf'))

    @staticmethod
    def _calibrate(machine: LoopMachine, loop: str, length: float) -> int:
        """How often the loop goes round in a slice of so many seconds"""
        count = 1
        while True:
            cost = machine.slice(loop, count)
            if cost.cpu > length / 4:
                # The first slice of a loop translates it: measure again.
                cost = machine.slice(loop, count)
                return max(1, round(count * length / cost.cpu))
            count *= 2

    def loop_pair(self, case: cases.Case, number: int) -> Dict[str, List]:
        """Slices of each side, in turn"""
        sides = {'': case.reference, **case.columns}
        slices = CONTENDED if case.contended else SLICES
        costs: Dict[str, List[Cost]] = {name: [] for name in sides}
        with contextlib.ExitStack() as stack:
            if case.one_cpu:
                stack.enter_context(one_cpu())
            machines = {}
            for side in sides.values():
                if side.variant not in machines:
                    machine = machines[side.variant] = stack.enter_context(
                        self._loop_machine(case.program, side.variant, number))
                    self._set_up(machine, cases.VARIANTS[side.variant])
            key = (case.program, case.reference, slices)
            if key not in self._counts:
                self._counts[key] = self._calibrate(
                    machines[case.reference.variant], case.reference.loop,
                    slices.length)
            count = self._counts[key]

            def one(side: cases.Side) -> Cost:
                turns = max(1, count // side.less)
                cost = machines[side.variant].slice(side.loop, turns)
                return Cost(*(value * count / turns for value in cost))

            for side in sides.values():
                one(side)
            for turn in bench_stats.turns(tuple(sides), slices.number):
                for name in turn:
                    costs[name].append(one(sides[name]))
            for name, machine in machines.items():
                self._check(machine, cases.VARIANTS[name])
        return costs

    def _linux(self, variant: cases.Variant, number: int = 0) -> Machine:
        kernel = self.args.kernel / 'vmlinuz'
        return Machine(self._qemu(variant, number),
                       ['-m', '256M', '-serial', 'null',
                        '-kernel', str(kernel),
                        '-initrd', self._initrd_path(),
                        '-append', BOOT_LINE, *self._options(variant)])

    def _boot(self, name: str, number: int) -> Cost:
        variant = cases.VARIANTS[name]
        if variant.symbol:
            # Not while the time runs
            self._symbol(variant.symbol)
        begin = time.monotonic()
        with self._linux(variant, number) as machine:
            self._set_up(machine, variant)
            machine.wait_text(b'@@qemu-guard ready')
            # A fresh process spends as much as a fifth of its time in the host
            # kernel, where it is given memory: by chance, and not by us.
            cost = Cost(machine.user_time(), time.monotonic() - begin)
            self._check(machine, variant)
        return cost

    def _symbol(self, name: str) -> int:
        """The physical address of a variable of the kernel"""
        if name not in self._symbols:
            with self._linux(cases.VARIANTS['off']) as machine:
                machine.wait_text(b'@@qemu-guard ready')
                machine.send(f'grep -w {name} /proc/kallsyms\n')
                machine.wait_text(b'@@qemu-guard 0')
                found = re.search(rf'\b([0-9a-f]{{16}}) \w {name}\b',
                                  machine.text.decode(errors='replace'))
            if not found:
                raise BenchError(f'the kernel does not say where {name} is')
            self._symbols[name] = int(found[1], 16) - KERNEL_BASE
        return self._symbols[name]

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
        """Some boots of each side, in turn"""
        sides = {'': case.reference, **case.columns}
        costs: Dict[str, List[Cost]] = {name: [] for name in sides}
        for turn in bench_stats.turns(tuple(sides), BOOTS):
            for name in turn:
                costs[name].append(self._boot(sides[name].variant, number))
        return costs

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
        if not self.args.plugin and any(
                cases.VARIANTS[side.variant].plugin
                for side in case.columns.values()):
            return 'the plugin is built with --build only'
        return ''

    def measure(self, case: cases.Case) -> Row:
        """Add pairs until the spread is small, or the time is over."""
        problem = self.missing(case)
        begin = time.monotonic()
        ratios: Dict[str, List[Cost]] = {name: [] for name in case.columns}
        pair = (self.boot_pair if case.program == cases.LINUX
                else self.loop_pair)
        ratio = (bench_stats.paired_ratio if case.contended
                 else bench_stats.fastest_ratio)
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
                    ratio([c[i] for c in costs['']],
                          [c[i] for c in costs[name]])
                    for i in range(2))))
                cells[name] = Cell(*(
                    bench_stats.estimate([c[i] for c in ratios[name]])
                    for i in range(2)))
            pairs = len(self.samples[case.name])
            reached = (pairs >= self.args.min_pairs and
                       all(cell.shown(case).spread <
                           self.args.spread * max(1, cell.shown(case).median)
                           for cell in cells.values()))
            if (pairs >= self.args.max_pairs
                    or time.monotonic() - begin > self.args.seconds):
                break
        return Row(case, cells, reached, time.monotonic() - begin, problem)


# --- The tables ---

def cell_text(case: cases.Case, cell: Optional[Cell], limit: float) -> str:
    """A cell: ratio, spread, pairs; a mark if the spread is too large"""
    if cell is None:
        return '—'
    shown = cell.shown(case)
    # Where the ratio is large, so may be the spread.
    mark = '' if shown.spread < limit * max(1, shown.median) else ' (!)'
    return f'{shown.median:.3f} ± {shown.spread:.3f} [{shown.pairs}]{mark}'


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
            cells = [cell_text(row.case, row.cells.get(name), limit)
                     for name in names]
        words.append([row.case.name, row.case.title, *cells])
    return words


def groups(rows: List[Row]) -> List[Tuple[cases.Group, List[Row]]]:
    """The tables that have rows, and their rows"""
    found = [(group, [row for row in rows
                      if row.case.name in (case.name for case
                                           in group.cases)])
             for group in cases.GROUPS]
    return [(group, members) for group, members in found if members]


def legend(rows: List[Row], limit: float) -> List[str]:
    """What the words in all tables mean"""
    lines = []
    if rows:
        lines.append('Each cell: median ratio of CPU times ± spread [pairs]; '
                     'the ratio of a pair is that of the fastest slice of '
                     'each side, or the median of its slices where two vCPUs '
                     'get in each other\'s way; spread: to the farther end of '
                     'the 95 % confidence interval of the median.')
    if any(not row.reached and row.cells for row in rows):
        lines.append(f'(!): the spread did not get below {limit:g} (of the '
                     'ratio, where that is above 1) within the pairs and the '
                     'time allowed; do not rely on it.')
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


def rst_table(words: List[List[str]]) -> List[str]:
    """A table in reStructuredText, the heading first"""
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
    return [*lines, bar, '']


def rst(rows: List[Row], times: Optional[arm.Times],
        args: argparse.Namespace, load: str) -> str:
    """The tables in reStructuredText"""
    lines = []
    for group, members in groups(rows):
        lines += [group.title, '-' * len(group.title), '']
        lines += rst_table(table(members, args.spread))
        lines += [f'* {name}: {group.columns[name]}.'
                  for name in columns(members)] + ['']
    if times:
        lines += [arm.TITLE, '-' * len(arm.TITLE), '']
        lines += rst_table(times.table())
        lines += [f'* {line}' for line in times.legend()] + ['']
    title = 'What the tables say, and where they come from'
    lines += [title, '-' * len(title), '']
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

    names = listed(args.cases, [*(case.name for case in cases.CASES), ARM],
                   'case')
    # Its columns are not those of --columns.
    args.arm = ARM in names and not args.columns
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
    parser.add_argument('--layouts', type=int, default=8, metavar='N',
                        help='link the binaries of --build so many times, in '
                        'different orders, and use them in turn; 0: take them '
                        'as they are (default: %(default)s)')
    parser.add_argument('--arm-runs', type=int, default=5, metavar='N',
                        help='how often pages are guarded for the table of '
                        'times (default: %(default)s)')
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
    if args.other or not args.build or Path(args.qemu).resolve() != (
            args.build / 'qemu' / layouts.QEMU):
        # What is compared are these binaries
        args.layouts = 0
    if not args.build and not args.other:
        parser.error('--build or --other is needed')
    return args


def say_table(words: List[List[str]], say: Callable[[str], None]) -> None:
    """Print a table."""
    # What could not be measured has a long text that is no column.
    widths = [max(len(cell) for cell in column if not
                  cell.startswith('not measured'))
              for column in zip(*words)]
    for line in words:
        say('  '.join(cell.ljust(width)
                      for cell, width in zip(line, widths)).rstrip())


def run(args: argparse.Namespace) -> int:
    """Measure and print."""
    def say(text: str) -> None:
        print(text, flush=True)

    other = args.other or build_reference(ROOT, args.build, say)
    args.plugin = None
    if not args.other and any(cases.VARIANTS[side.variant].plugin
                              for case in args.chosen
                              for side in case.columns.values()):
        args.plugin = build_plugin(ROOT, args.build)
    patched = os.path.abspath(args.qemu)
    qemus = {cases.PATCHED: [patched], cases.STOCK: [os.path.abspath(other)]}
    if args.layouts > 0:
        folder = args.build / 'bench/layouts'
        qemus = {name: layouts.make(Path(binary).parent, folder / name,
                                    args.layouts)
                 for name, (binary,) in qemus.items()}
    load = f'{os.getloadavg()[0]:.1f} before'
    rows = []
    with tempfile.TemporaryDirectory(prefix='qemu-guard-bench-') as tmp:
        bench = Bench(args, qemus, tmp)
        for case in args.chosen:
            row = bench.measure(case)
            rows.append(row)
            say(f'{case.name:<17}' + (
                f'not measured: {row.problem}' if row.problem else
                '  '.join(f'{name} {cell_text(case, cell, args.spread)} '
                          f'(cpu {cell.cpu.median:.3f} ± '
                          f'{cell.cpu.spread:.3f}, '
                          f'wall {cell.wall.median:.3f} ± '
                          f'{cell.wall.spread:.3f})'
                          for name, cell in row.cells.items())
                + f'  {row.seconds:.0f} s'))
    times = None
    if args.arm:
        times = arm.measure(patched, args.arm_runs, say)
    load += f', {os.getloadavg()[0]:.1f} after, the bench itself included'

    for group, members in groups(rows):
        say(f'\n{group.title}')
        say_table(table(members, args.spread), say)
        for name in columns(members):
            say(f'{name}: {group.columns[name]}.')
    if times:
        say(f'\n{arm.TITLE}')
        say_table(times.table(), say)
        for line in times.legend():
            say(line)
    say('')
    for line in legend(rows, args.spread) + facts(args, load):
        say(line)
    if args.json:
        samples = {**bench.samples, **({ARM: times.samples} if times else {})}
        args.json.write_text(json.dumps(samples), encoding='utf-8')
    if args.rst:
        write_rst(args.rst, rst(rows, times, args, load))
    return 1 if any(row.problem for row in rows) else 0


def main() -> int:
    """Do what the command line says."""
    args = parse_arguments()
    if args.list:
        for case in args.chosen:
            print(f'{case.name:<17} {case.title} '
                  f'({", ".join(case.columns)})')
        if args.arm:
            print(f'{ARM:<17} {arm.TITLE}')
        return 0
    try:
        return run(args)
    except BenchError as exc:
        print(f'bench: {exc}', file=sys.stderr)
        return 1


if __name__ == '__main__':
    sys.exit(main())
