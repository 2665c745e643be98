# SPDX-License-Identifier: GPL-2.0-or-later
"""Act 1: a program in a stock Debian guest runs code that can't be read."""

import re
from typing import List, NamedTuple

TITLE = 'execute-only memory'

ABOUT = '''\
A program hands its own code to a kernel module, which maps it back through
the XO bit: an address bit that lets the CPU run the code, but not read it.'''

# Rows that tell the story; the others are shown if they go wrong.
STORY = (
    'CPUID 0x40000030 offers XO',
    'calling the function',
    'reading a byte',
    'writing a byte',
    'control: the frame without XO',
    'write(2) from it to a pipe',
    'replaced in place: answer(1000)',
    'reading the code of answer()',
)

# So that a test program that shows less is noticed
ROWS = 28


class Row(NamedTuple):
    """A line of xo-test"""
    passed: bool
    what: str
    expected: str
    seen: str


def parse(output: str) -> List[Row]:
    """Rows in the output of xo-test; other lines make a failed one."""
    rows = []
    for line in output.splitlines():
        fields = line.split('\t')
        if len(fields) == 4 and fields[0] in ('ok', 'not ok'):
            rows.append(Row(fields[0] == 'ok', *fields[1:]))
        elif line.strip():
            rows.append(Row(False, 'output of xo-test', 'rows', line))
    return rows


def physical_bits(guest) -> int:
    """The width of physical addresses, as Linux sees it"""
    text = guest.must_run('grep -m 1 "address sizes" /proc/cpuinfo')
    return int(re.search(r'(\d+) bits physical', text).group(1))


def module_message(guest) -> str:
    """The last thing that the module wrote to the kernel's log"""
    lines = guest.must_run('dmesg | grep "guard_guest: this CPU"; true')
    if not lines.strip():
        return 'nothing'
    return lines.splitlines()[-1].split('guard_guest: ', 1)[1]


def show_quiet_log(guest, report) -> None:
    """Nothing that was done may have upset the kernel."""
    trouble = guest.trouble()
    report.equal('complaints in the kernel log', 'none',
                 trouble[0] if trouble else 'none', detail=True)


def show_module(guest, report) -> None:
    """The module can't go while its mapping is in use, and then it can."""
    guest.must_run('xo-test hold >/tmp/hold 2>&1 & echo $! >/tmp/pid')
    guest.must_run('for i in $(seq 100); do grep -q holding /tmp/hold && '
                   'exit 0; usleep 100000; done; cat /tmp/hold; exit 1')
    busy = guest.run('rmmod guard_guest')
    report.row(busy.status != 0, 'rmmod, with the mapping in use', 'refused',
               'refused' if busy.status else 'it worked', detail=True)
    guest.must_run('kill $(cat /tmp/pid)')
    # The mapping goes when the process is gone, not when it is told to go.
    guest.must_run('for i in $(seq 100); do [ -d /proc/$(cat /tmp/pid) ] || '
                   'exit 0; usleep 100000; done; exit 1')
    gone = guest.run('rmmod guard_guest && insmod /lib/guard_guest.ko && '
                     'rmmod guard_guest')
    report.row(gone.status == 0, 'rmmod, insmod, rmmod after that',
               'they work', gone.output.strip() or 'they work', detail=True)


def run_without(demo) -> int:
    """A CPU without XO; returns the width of its physical addresses."""
    report = demo.report
    with demo.guest('act1-without-xo', cpu='max') as guest:
        guest.boot()
        report.part('-cpu max, 1 vCPU', guest.boot_note())
        insmod = guest.run('insmod /lib/guard_guest.ko')
        report.row(insmod.status != 0 and 'No such device' in insmod.output,
                   'insmod guard_guest.ko', 'No such device',
                   insmod.output.split(': ')[-1].strip() or 'it worked')
        message = module_message(guest)
        report.row(message.startswith('this CPU has no XO'),
                   'the module says', 'this CPU has no XO',
                   message.split(' (')[0])
        device = guest.run('ls /dev/guard-xo')
        report.row(device.status != 0, '/dev/guard-xo', 'absent',
                   device.output.strip() if device.status == 0 else 'absent',
                   detail=True)
        bits = physical_bits(guest)
        show_quiet_log(guest, report)
    return bits


def run_one(demo, bits_without: int) -> None:
    """A CPU with XO"""
    report = demo.report
    with demo.guest('act1-1-cpu', cpu='max,+xo') as guest:
        guest.boot()
        report.part('-cpu max,+xo, 1 vCPU', guest.boot_note())
        guest.must_run('insmod /lib/guard_guest.ko')
        bits = physical_bits(guest)
        report.equal('physical address bits', f'{bits_without - 1}',
                     f'{bits}')
        report.equal('the module says', f'XO: bit {bits}',
                     module_message(guest).split(' of a ')[0]
                     .removeprefix('this CPU has '))
        rows = parse(guest.run('xo-test').output)
        for row in rows:
            report.row(*row, detail=row.what not in STORY)
        report.equal('rows that xo-test printed', f'{ROWS}', f'{len(rows)}',
                     detail=True)
        missing = set(STORY) - {row.what for row in rows}
        report.equal('rows of the story left out', 'none',
                     ', '.join(sorted(missing)) or 'none', detail=True)
        # More than the guest has: lost pages would not go unnoticed.
        for row in parse(guest.run('xo-test leak', 300).output):
            report.row(*row, detail=True)
        show_module(guest, report)
        show_quiet_log(guest, report)


def run_two(demo) -> None:
    """The same on two CPUs at once"""
    report = demo.report
    with demo.guest('act1-2-cpus', cpu='max,+xo', smp=2) as guest:
        guest.boot()
        report.part('-cpu max,+xo, 2 vCPUs', guest.boot_note())
        guest.must_run('insmod /lib/guard_guest.ko')
        report.equal('CPUs online', '2', guest.must_run('nproc').strip())
        guest.run('for n in 0 1; do taskset -c $n xo-test >/tmp/$n 2>&1 & '
                  'done; wait')
        for cpu in 0, 1:
            rows = parse(guest.must_run(f'cat /tmp/{cpu}'))
            for row in rows:
                if not row.passed:
                    report.row(*row._replace(what=f'CPU {cpu}: {row.what}'))
            good = sum(row.passed for row in rows)
            report.equal(f'all of the above, on CPU {cpu}',
                         f'{ROWS} as expected', f'{good} as expected')
        races = parse(guest.run('xo-test race', 300).output)
        for row in races:
            report.row(*row)
        report.equal('CPUs in the race', '2', f'{len(races)}', detail=True)
        show_quiet_log(guest, report)


def run(demo) -> None:
    """Show it all."""
    bits = run_without(demo)
    run_one(demo, bits)
    run_two(demo)
