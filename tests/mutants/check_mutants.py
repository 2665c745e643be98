#!/usr/bin/python3
# SPDX-License-Identifier: GPL-2.0-or-later
"""
Ask the tests whether they would notice a missing hook.

A QEMU that was built with -DGUARD_MUTANTS leaves out the hook whose number is
in the environment variable GUARD_MUTANT; the numbers are in
include/guard/mutant.h.  With none left out the tests have to be green, and
with any single one left out at least one row has to be red.
"""

import argparse
from concurrent.futures import ThreadPoolExecutor
import os
from pathlib import Path
import re
import signal
import subprocess
import sys
import tempfile
import threading
import time

import mutant_build

# Test and run, in the order in which they are tried; two at a time
QUICK = [
    ('subpage-system', 'one-cpu'),
    ('subpage-legacy', 'one-cpu'),
    ('subpage-matrix', 'one-cpu'),
    ('subpage-matrix', 'one-cpu-across'),
    ('subpage-system', 'reset'),
    ('subpage-system', 'unplug'),
    ('subpage-corners', 'suspend'),
    ('subpage-corners', 'eject'),
    ('subpage-corners', 'cpu'),
    ('subpage-twists', 'pusha'),
    ('subpage-twists', 'effect'),
]
# For the hooks of register pinning, PIN_*, instead
PINS = [
    ('pin-host', 'one-cpu'),
    ('pin-system', 'one-cpu'),
    ('pin-guest', 'both'),
    ('npiep', 'on'),
    ('pin-host', 'grace'),
    ('pin-host', 'hotplug'),
    ('pin-host', 'migrate'),
    ('pin-host', 'strict'),
    ('pin-host', 'reset'),
    ('pin-host', 'stopped'),
    ('pin-host', 'flood'),
    ('pin-guest', 'reset'),
    ('pin-guest', 'four-threads'),
    ('pin-system', 'two-faced'),
    ('pin-system', 'race'),
]
# For those of devices and lifecycle, from this number on; these have no runs
DEVICE_HOOKS = 200
FUNCTIONAL = [
    ('test_subpage_devices', 'all'),
    ('test_subpage_refused', 'all'),
    ('test_subpage_lifecycle', 'all'),
    ('test_subpage_paths', 'all'),
    ('test_subpage_threads', 'all'),
]
# For those of requests by the guest, from this number on
REQUEST_HOOKS = 300
REQUESTS = [
    ('subpage-request', 'one-cpu'),
    ('subpage-request', 'off'),
    ('subpage-request', 'four-threads'),
]
# Only for what needs CPUs that run at a time; one after the other
LONG = [
    ('subpage-matrix', 'locked'),
    ('subpage-race', 'four-threads'),
]
# What has to be red as well with a hook left out, whatever else is
ALSO = {
    'FLUSH': ('subpage-race', 'four-threads'),
}
# Where a hook that the first of QUICK don't reach is missed
FIRST = {
    'ATOMIC': ('subpage-matrix', 'locked'),
    'MASKED': ('subpage-matrix', 'one-cpu'),
    'CROSS_PAGE': ('subpage-matrix', 'one-cpu-across'),
    'RESET': ('subpage-system', 'reset'),
    'RAM_REMOVED': ('subpage-system', 'unplug'),
    'WAKEUP': ('subpage-corners', 'suspend'),
    'QUIET': ('subpage-corners', 'cpu'),
    'WORDS_WRAP': ('subpage-twists', 'pusha'),
    'TOUCH': ('subpage-twists', 'effect'),
    'MAP_AGAIN': ('test_subpage_threads', 'all'),
    'IOTHREADS': ('test_subpage_threads', 'all'),
    'REQUEST_MSR': ('subpage-request', 'off'),
}
ROUNDS = '60'
POINT = re.compile(r'^(not )?ok (\d+)\s*(.*)$')


def hooks(header):
    """Number and name of each hook, from the enum in the header."""
    text = re.search(r'enum\s*{(.*?)}', header.read_text(), re.DOTALL)[1]
    number, found = -1, []
    for item in re.sub(r'/\*.*?\*/', '', text, flags=re.DOTALL).split(','):
        match = re.fullmatch(r'\s*GUARD_HOOK_(\w+)\s*(?:=\s*(\d+))?\s*', item)
        if match:
            number = int(match[2]) if match[2] else number + 1
            found.append((number, match[1]))
    return found


class Tests:
    """The guest tests, run by the mutant QEMU."""

    def __init__(self, run, elfs, qemu):
        self.run = run
        self.elfs = elfs
        self.qemu = qemu
        self.known = {}         # by test and run: what is red anyway,
        self.seconds = {}       # and how long it takes

    def red(self, number, name, run):
        """
        The red points with hook @number left out.  For a hook it ends at the
        first that is not red anyway, or when the guest seems to hang.
        """
        source = self.run.parent / f'{name}.py'
        command = [sys.executable, self.run, '--run', run,
                   '--timeout-multiplier', '5']
        if source.exists():
            command += ['--driver', source]
        command += [self.qemu, self.elfs / f'{name}.elf']
        environment = dict(os.environ, GUARD_MUTANT=str(number),
                           SUBPAGE_ROUNDS=ROUNDS)
        if (name, run) not in FUNCTIONAL:
            return self.red_points(command, environment, number, (name, run))
        source = self.qemu.parent / '../src'
        command = [sys.executable,
                   self.run.parent.parent / f'functional/{name}.py']
        # Each with files of its own: the same test runs for another hook
        with tempfile.TemporaryDirectory(
                ignore_cleanup_errors=True) as folder:
            for entry in self.qemu.parent.iterdir():
                if entry.name != 'tests':
                    (Path(folder) / entry.name).symlink_to(entry)
            environment |= {
                'QEMU_TEST_QEMU_BINARY': str(self.qemu),
                'QEMU_BUILD_ROOT': folder,
                'PYTHONPATH': f'{source}/python:{source}/tests/functional'}
            return self.red_points(command, environment, number, (name, run))

    def red_points(self, command, environment, number, pair):
        """red(), by the output of a command"""
        run = pair[1]
        functional = pair in FUNCTIONAL
        points, found = 0, []
        start = time.monotonic()
        limit = 5 * self.seconds.get(pair, 600) + 20
        with subprocess.Popen(command, stdout=subprocess.PIPE, text=True,
                              stderr=subprocess.DEVNULL,
                              env=environment) as process:
            # So ended, the runner ends its QEMU
            timer = threading.Timer(limit, process.send_signal,
                                    [signal.SIGINT])
            timer.start()
            for line in process.stdout:
                match = POINT.match(line)
                points += bool(match)
                text = match[3].strip() if match and match[1] else None
                if text and text not in self.known.get(pair, []):
                    found.append(text)
                    # So ended, a functional test would leave its QEMU behind
                    if number and not functional:
                        process.send_signal(signal.SIGINT)
                        break
            timer.cancel()
        seconds = time.monotonic() - start
        if not number:
            self.seconds[pair] = seconds
        if seconds >= limit and not found:
            found.append(f'{run}: hangs after {points} points')
        elif not points:
            found.append(f'{run}: no points')
        return found

    def all_green(self, pool):
        """Everything with no hook left out."""
        pairs = QUICK + PINS + FUNCTIONAL + REQUESTS
        started = [pool.submit(self.red, 0, *pair) for pair in pairs]
        self.known = dict(zip(pairs, (each.result() for each in started)))
        self.known.update((pair, self.red(0, *pair)) for pair in LONG)
        return [f'{name}, {run}: {text}'
                for (name, run), found in self.known.items()
                for text in found]

    def missed(self, hook, pairs):
        """What is red first with the hook left out, or None; and the time."""
        start = time.monotonic()
        number, name = hook
        first = FIRST.get(name)
        if first in pairs:
            pairs = [first] + [pair for pair in pairs if pair != first]
        for pair in pairs:
            found = self.red(number, *pair)
            if found:
                return (f'{pair[0]}, {found[0]}', time.monotonic() - start)
        return None, time.monotonic() - start


def pairs_of(hook):
    """The tests and runs that a hook is tried with"""
    number, name = hook
    if name.startswith('PIN_'):
        return PINS
    if number >= REQUEST_HOOKS:
        return REQUESTS
    return FUNCTIONAL if number >= DEVICE_HOOKS else QUICK


class Points:
    """TAP."""

    def __init__(self, plan):
        self.count = self.failed = 0
        print(f'1..{plan}', flush=True)

    def point(self, good, text):
        """One result."""
        self.count += 1
        self.failed += not good
        print(f'{"" if good else "not "}ok {self.count} - {text}', flush=True)

    def missed(self, hook, found, seconds):
        """The result for one hook."""
        self.point(found, f'hook {hook[0]}, {hook[1]}, is missed by '
                          f'{found or "no row"}')
        print(f'# {seconds:.0f} s', flush=True)


def check(tests, wanted, jobs):
    """One point for each hook, and one for the tests themselves."""
    points = Points(1 + len(wanted) +
                    sum(name in ALSO for _, name in wanted))
    with ThreadPoolExecutor(jobs) as pool:
        start = time.monotonic()
        bad = tests.all_green(pool)
        points.point(not bad, 'no hook left out: all is green')
        for text in bad:
            print(f'# red: {text}', flush=True)
        print(f'# {time.monotonic() - start:.0f} s', flush=True)

        # What has to be alone on the machine comes last
        last = [hook for hook in wanted if FIRST.get(hook[1]) in LONG]
        started = [(hook, pool.submit(tests.missed, hook, pairs_of(hook)))
                   for hook in wanted if hook not in last]
        for hook, answer in started:
            found, seconds = answer.result()
            if found:
                points.missed(hook, found, seconds)
            else:
                last.append(hook)
    for hook in last:
        points.missed(hook, *tests.missed(hook, LONG))
    for number, name in wanted:
        if name in ALSO:
            found = tests.red(number, *ALSO[name])
            points.point(found, f'hook {number}, {name}, is missed by '
                                f'{", ".join(ALSO[name])}, as well')
    return 1 if points.failed else 0


def main():
    """Build and check."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument('--build', type=Path, required=True,
                        help="QEMU's build folder, BUILD/qemu")
    parser.add_argument('--only', type=int, action='append', metavar='N',
                        help='only this hook; may be given again')
    args = parser.parse_args()
    # A shell that starts this in the background has it ignored, and what is
    # ignored stays so in the runner, which would never end then.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    top = Path(__file__).resolve().parents[2]
    qemu = args.build.resolve()
    wanted = hooks(top / 'include/guard/mutant.h')
    if args.only:
        wanted = [hook for hook in wanted if hook[0] in args.only]
    try:
        mutant = mutant_build.build(qemu)
    except mutant_build.BuildError as error:
        print('Bail out! the mutant was not built')
        print(error, file=sys.stderr)
        return 1
    tests = Tests(top / 'tests/guest/run.py', qemu / 'guard/tests/guest',
                  mutant)
    return check(tests, wanted, max(1, len(os.sched_getaffinity(0))))


if __name__ == '__main__':
    sys.exit(main())
