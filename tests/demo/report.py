# SPDX-License-Identifier: GPL-2.0-or-later
"""What the demo tells: for people, or as TAP."""

import sys
import time


class Report:
    """Counts rows of what was expected and what was seen."""

    def __init__(self) -> None:
        self.passed = 0
        self.failed = 0
        self._started = time.monotonic()

    def row(self, passed: bool, what: str, expected: str, seen: str,
            detail: bool = False) -> None:
        """One thing shown.  A detail is told only if it went wrong."""
        if passed:
            self.passed += 1
        else:
            self.failed += 1
        self._row(passed, what, expected, seen, detail)

    def equal(self, what: str, expected: str, seen: str,
              detail: bool = False) -> None:
        """One thing shown, where seen has to be just what was expected"""
        self.row(expected == seen, what, expected, seen, detail)

    def seconds(self) -> float:
        """Time since the start of the report"""
        return time.monotonic() - self._started

    def say(self, text: str = '') -> None:
        """Free text"""
        raise NotImplementedError

    def part(self, title: str, note: str) -> None:
        """Begin a new part; what differs from run to run is for the note."""
        raise NotImplementedError

    def finish(self) -> int:
        """Sum up, and return the exit status."""
        raise NotImplementedError

    def _row(self, passed: bool, what: str, expected: str, seen: str,
             detail: bool) -> None:
        raise NotImplementedError


class TextReport(Report):
    """For people: short, and all of it when something is wrong"""

    LINE = '  {:4}{:32} {:19} {}'

    def __init__(self, verbose: bool) -> None:
        super().__init__()
        self._verbose = verbose
        self._hidden = 0

    def say(self, text: str = '') -> None:
        self._tell_hidden()
        print(text, flush=True)

    def part(self, title: str, note: str) -> None:
        self.say()
        print(f'{title}: {note}')
        print(self.LINE.format('', 'shown', 'expected', 'seen'), flush=True)

    def _row(self, passed: bool, what: str, expected: str, seen: str,
             detail: bool) -> None:
        if passed and detail and not self._verbose:
            self._hidden += 1
            return
        print(self.LINE.format('ok' if passed else 'NOT', what, expected,
                               seen).rstrip(), flush=True)

    def _tell_hidden(self) -> None:
        if self._hidden:
            print(f'  ok  {self._hidden} more, as expected '
                  '(--verbose shows them)')
            self._hidden = 0

    def finish(self) -> int:
        self.say()
        total = self.passed + self.failed
        outcome = 'all as expected' if not self.failed else \
            f'{self.failed} NOT as expected'
        print(f'{total} things shown, {outcome}, in {self.seconds():.0f} s.')
        return 1 if self.failed or not total else 0


class TapReport(Report):
    """For a test harness"""

    def __init__(self) -> None:
        super().__init__()
        self._part = ''
        print('TAP version 13')

    def say(self, text: str = '') -> None:
        for line in text.splitlines():
            print(f'# {line}', flush=True)

    def part(self, title: str, note: str) -> None:
        self._part = title
        self.say(f'{title}: {note}')

    def _row(self, passed: bool, what: str, expected: str, seen: str,
             detail: bool) -> None:
        number = self.passed + self.failed
        verdict = 'ok' if passed else 'not ok'
        name = f'{self._part}: {what}'.lstrip(': ').replace('#', r'\#')
        print(f'{verdict} {number} - {name}', flush=True)
        if not passed:
            print(f'# expected: {expected}\n# seen: {seen}', flush=True)

    def finish(self) -> int:
        print(f'1..{self.passed + self.failed}', flush=True)
        return 1 if self.failed or not self.passed else 0


def skip_all(reason: str) -> int:
    """The TAP of a test that can't run"""
    print(f'1..0 # SKIP {reason}')
    sys.stdout.flush()
    return 0
