#!/usr/bin/python3
# SPDX-License-Identifier: GPL-2.0-or-later
"""
Checks that the frame and run.py can fail: runs broken.c each way, and wants
the results named here, no better ones.
"""

import re
import subprocess
import sys

# Run: (exit status, number of "ok", pattern that the "not ok" line has)
EXPECTED = {
    'fine': (0, 1, None),
    'failure': (1, 1, r'fails'),
    'wrong-vector': (1, 1, r'not a #GP'),
    'wrong-error': (1, 1, r'not a write'),
    'wrong-address': (1, 1, r'not this address'),
    'no-fault': (1, 1, r'nothing happened'),
    'some-fault': (1, 1, r'something happened'),
    'stray': (1, 1, r'unexpected #PF error 0x0 cr2 0x'),
    'overflow': (1, 1, r'unexpected #PF error 0x2 cr2 0x'),
    'hang': (1, 1, r'no end within'),
    'triple-fault': (1, 1, r'no plan.*reset'),
    'no-plan': (1, 1, r'no plan; QEMU ended with exit code 1'),
    'wrong-plan': (1, 1, r'1 points where the plan has 2'),
    'lost-point': (1, 1, r'point 3 where 2 was due'),
    'no-points': (1, 0, r'no points'),
    'quit': (1, 1, r'no plan; QEMU ended with exit code 0|went away'),
    'no-memory': (1, 1, r'frames of RAM more than'),
    'bad-option': (1, 0, r'no plan; QEMU ended with exit code 1|went away'),
    'skipped': (0, 1, None),
}


def main():
    run, qemu, test = sys.argv[1:]
    listed = subprocess.run([run, '--list', qemu, test], text=True,
                            capture_output=True, check=True).stdout
    listed = {line.split(':')[0] for line in listed.splitlines()}
    count = 1
    failed = listed != set(EXPECTED)
    print(f'{"not " if failed else ""}ok 1 - every way to fail is expected')
    for name, (status, good, pattern) in EXPECTED.items():
        done = subprocess.run([run, '--run', name, qemu, test], text=True,
                              capture_output=True, check=False)
        lines = done.stdout.splitlines()
        oks = [line for line in lines if line.startswith('ok ')]
        bad = [line for line in lines if line.startswith('not ok ')]
        fine = (done.returncode == status and len(oks) == good
                and lines and lines[-1] == f'1..{len(oks) + len(bad)}'
                and len(bad) == (0 if pattern is None else 1)
                and (pattern is None or re.search(pattern, bad[0])))
        count += 1
        failed |= not fine
        print(f'{"" if fine else "not "}ok {count} - {name}')
        if not fine:
            for line in lines + done.stderr.splitlines():
                print('#', line)
    print(f'1..{count}')
    return 1 if failed else 0


if __name__ == '__main__':
    sys.exit(main())
