# SPDX-License-Identifier: GPL-2.0-or-later
"""How long it takes to guard pages, and how much memory."""

import re
import time
from statistics import median
from typing import Callable, Dict, List, NamedTuple

import cases
from machine import BenchError, Machine, guard_command

TITLE = 'Guarding pages'

# When the monitor has parsed a command, when it begins to run it, and when
# the reply is ready: QEMU's own trace events, with its clock
EVENTS = ('monitor_qmp_in_band_enqueue', 'monitor_qmp_in_band_dequeue',
          'monitor_qmp_respond')
OPTIONS = ('-S', '-msg', 'timestamp=on',
           *(word for name in EVENTS for word in ('-trace', f'enable={name}')))

# What is large gets a mapping of its own, and the rest is in the heap: so
# the table of many pages can be told from what parsing leaves behind.
MAPPED = 1 << 20
ENV = {'MALLOC_MMAP_THRESHOLD_': str(MAPPED), 'MALLOC_ARENA_MAX': '1'}


class Sample(NamedTuple):
    """Seconds of a command, and bytes that it left mapped"""
    whole: float
    parse: float
    inside: float
    mapped: int


class Times(NamedTuple):
    """Samples by how many pages were guarded"""
    samples: Dict[int, List[Sample]]

    def table(self) -> List[List[str]]:
        """The table's words, the heading first"""
        words = [['pages', 'end to end', 'until parsed', 'inside',
                  'bytes a page']]
        for count, samples in self.samples.items():
            mapped = min(sample.mapped for sample in samples)
            words.append([
                f'{count}',
                *(span([sample[i] for sample in samples]) for i in range(3)),
                f'{mapped / count:.1f}' if mapped >= MAPPED else '—'])
        return words

    def legend(self) -> List[str]:
        """What the words mean"""
        runs = len(next(iter(self.samples.values())))
        return [
            'One subpage-set-access with so many regions, each a sub-page of '
            'another page, in random order; milliseconds of wall-clock time: '
            f'median (least - most) of {runs} new processes.',
            'end to end: from before the client writes the command until it '
            'has the reply; until parsed: the part of it in which QEMU reads '
            'and parses the JSON; inside: from there to the reply, with what '
            'QEMU\'s marshalling takes.',
            'bytes a page: memory that the table takes, where it is large '
            'enough to be told from other memory.']


def span(seconds: List[float]) -> str:
    """Median, least and most, in milliseconds"""
    return ' '.join((f'{1000 * median(seconds):.2f}',
                     f'({1000 * min(seconds):.2f}',
                     f'- {1000 * max(seconds):.2f})'))


def traced(log: str) -> List[float]:
    """When each of EVENTS came for the last command, in seconds since 1970"""
    times = []
    for name in EVENTS:
        found = re.findall(rf'@(\d+\.\d+):{name} ', log)
        if not found:
            raise BenchError(f'QEMU has no trace event {name}, or does not '
                             'log it: it needs the trace backend "log"')
        times.append(float(found[-1]))
    return times


def measure_one(qemu: str, count: int) -> Sample:
    """One command, in a new process"""
    text = guard_command(cases.scattered(128 * cases.MIB, count), 'fault')
    with Machine(qemu, [*cases.LARGE, *OPTIONS], ENV) as machine:
        # So that what is made at the first use is there
        machine.guard([cases.UNUSED], 'fault')
        before = machine.mapped()
        sent, begin = time.time(), time.monotonic()
        machine.qmp_text('subpage-set-access', text)
        whole = time.monotonic() - begin
        parsed, started, ready = traced(machine.stderr())
        return Sample(whole, parsed - sent, ready - started,
                      machine.mapped() - before)


def measure(qemu: str, runs: int, say: Callable[[str], None]) -> Times:
    """All of them, in turn"""
    samples: Dict[int, List[Sample]] = {n: [] for n in cases.ARM_COUNTS}
    for _ in range(runs):
        for count, found in samples.items():
            found.append(measure_one(qemu, count))
    for count, found in samples.items():
        say(f'arm {count:<13} end to end {span([s.whole for s in found])} ms, '
            f'inside {span([s.inside for s in found])} ms')
    return Times(samples)
