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
import os
from pathlib import Path
import re
import signal
import subprocess
import sys
import time

# Test and run, in the order in which they are tried
QUICK = [
    ('subpage-system', 'one-cpu'),
    ('subpage-matrix', 'one-cpu'),
    ('subpage-matrix', 'one-cpu-across'),
    ('subpage-system', 'reset'),
]
# Devices and lifecycle; these have no runs
FUNCTIONAL = [
    ('test_subpage_devices', 'all'),
    ('test_subpage_lifecycle', 'all'),
    ('test_subpage_paths', 'all'),
]
DEVICE_HOOKS = 200
# Only for what needs CPUs that run at a time
LONG = [
    ('subpage-matrix', 'four-threads'),
    ('subpage-race', 'four-threads'),
]
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

    def __init__(self, args):
        self.args = args

    def runs(self, name):
        """The runs that a test has."""
        done = subprocess.run(
            [sys.executable, self.args.run, '--list', self.args.qemu,
             self.args.elfs / f'{name}.elf'],
            capture_output=True, text=True, check=True)
        return [line.split(':')[0] for line in done.stdout.splitlines()]

    def red(self, number, name, run, known=None):
        """
        The red points with hook @number left out.  With @known, those that
        are red anyway, it ends at the first that is not one of them.
        """
        source = self.args.tests / f'{name}.py'
        command = [sys.executable, self.args.run, '--run', run]
        if source.exists():
            command += ['--driver', source]
        command += [self.args.qemu, self.args.elfs / f'{name}.elf']
        environment = dict(os.environ, GUARD_MUTANT=str(number),
                           SUBPAGE_ROUNDS=ROUNDS)
        if (name, run) in FUNCTIONAL:
            folder = self.args.tests.parent / 'functional'
            command = [sys.executable, folder / f'{name}.py']
            environment |= {
                'QEMU_TEST_QEMU_BINARY': str(self.args.qemu),
                'QEMU_BUILD_ROOT': str(self.args.qemu.parent),
                'PYTHONPATH': f'{self.args.source}/python:'
                              f'{self.args.source}/tests/functional'}
        points, found = 0, []
        with subprocess.Popen(command, stdout=subprocess.PIPE, text=True,
                              stderr=subprocess.DEVNULL,
                              env=environment) as process:
            for line in process.stdout:
                match = POINT.match(line)
                points += bool(match)
                text = match[3].strip() if match and match[1] else None
                if text and text not in (known or []):
                    found.append(text)
                    if known is not None and (name, run) not in FUNCTIONAL:
                        # So ended, the runner ends its QEMU
                        process.send_signal(signal.SIGINT)
                        return found
        if not points:
            found.append(f'{name}, {run}: no points')
        return found


def main():
    """One TAP point for each hook, and one for the tests themselves."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument('--run', type=Path, required=True,
                        help='run.py of the guest tests')
    parser.add_argument('--elfs', type=Path, required=True,
                        help='where the guest tests are built')
    parser.add_argument('--header', type=Path, required=True,
                        help='include/guard/mutant.h')
    parser.add_argument('--source', type=Path, required=True,
                        help="QEMU's source tree")
    parser.add_argument('--only', type=int, action='append',
                        help='only this hook; may be given again')
    parser.add_argument('qemu', type=Path,
                        help='qemu-system-x86_64 with -DGUARD_MUTANTS')
    args = parser.parse_args()
    args.tests = args.run.parent
    tests = Tests(args)
    names = {name for name, _ in QUICK + LONG}
    present = {name: tests.runs(name) for name in names}
    pairs = [(n, r) for n, r in QUICK + LONG if r in present[n]] + FUNCTIONAL
    wanted = hooks(args.header)
    if args.only:
        wanted = [hook for hook in wanted if hook[0] in args.only]
    print(f'1..{len(wanted) + 1}')

    failed = 0
    reds = {pair: tests.red(0, *pair) for pair in pairs}
    bad = sum(len(found) for found in reds.values())
    failed += bool(bad)
    print(f'{"not " if bad else ""}ok 1 - no hook left out: all is green',
          flush=True)
    for found in reds.values():
        for text in found:
            print(f'# red: {text}', flush=True)

    for index, (number, name) in enumerate(wanted, 2):
        start = time.monotonic()
        found = []
        for pair in sorted(pairs, key=lambda pair: (pair in FUNCTIONAL) !=
                           (number >= DEVICE_HOOKS)):
            found = tests.red(number, *pair, reds[pair])
            if found:
                break
        failed += not found
        print(f'{"" if found else "not "}ok {index} - hook {number}, {name}, '
              f'is missed{": " + found[0] if found else " by no row"}',
              flush=True)
        print(f'# {time.monotonic() - start:.0f} s')
    return 1 if failed else 0


if __name__ == '__main__':
    sys.exit(main())
