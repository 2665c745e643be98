#!/usr/bin/env python3
# SPDX-License-Identifier: GPL-2.0-or-later
"""
tests/check: whatever goes wrong in a run, its sum must not be all well.
"""

import contextlib
import importlib.machinery
import importlib.util
import io
import json
from pathlib import Path
import sys
import tempfile
import unittest

import pycotap

PATH = Path(__file__).resolve().parents[1] / 'check'
LOADER = importlib.machinery.SourceFileLoader('check', str(PATH))
SPEC = importlib.util.spec_from_loader('check', LOADER)
check = importlib.util.module_from_spec(SPEC)
LOADER.exec_module(check)


def record(stdout, result='OK', returncode=0, name='qemu:guard+x / t'):
    """One line of Meson's log."""
    return {'name': name, 'stdout': stdout, 'result': result,
            'returncode': returncode, 'duration': 1.0}


class Check(unittest.TestCase):
    """One program's output at a time."""

    def sum(self, *records):
        """The exit status and the last line."""
        with contextlib.redirect_stdout(io.StringIO()) as out:
            status = check.summarize(list(records), 1)
        return status, out.getvalue().splitlines()[-1]

    def assert_sum(self, want, *records):
        """The counts, and an exit status that goes with them."""
        passed, failed, skipped = want
        self.assertEqual(
            self.sum(*records),
            (1 if failed or not passed else 0,
             f'{passed} passed, {failed} failed, {skipped} skipped'))

    def test_good(self):
        """Points, before or after the plan."""
        self.assert_sum((2, 0, 0), record('ok 1 - a\nok 2 - b\n1..2\n'))
        self.assert_sum((2, 0, 0), record('1..2\nok 1\nok 2\n# note\n'))

    def test_not_ok(self):
        """A failed point, whatever Meson thinks of it."""
        for result in 'OK', 'FAIL', 'ERROR':
            self.assert_sum((1, 1, 0), record('1..2\nok 1\nnot ok 2 - b\n',
                                              result, 1))

    def test_skips(self):
        """A skip is a skip with a reason, and a failure without."""
        self.assert_sum((1, 0, 1), record('ok 1 # SKIP no kvm\nok 2\n1..2'))
        self.assert_sum((1, 1, 0), record('ok 1 # SKIP\nok 2\n1..2'))
        self.assert_sum((1, 0, 1), record('1..0 # SKIP no kernel', 'SKIP'),
                        record('ok 1\n1..1'))
        self.assert_sum((1, 1, 0), record('1..0', 'SKIP'),
                        record('ok 1\n1..1'))
        self.assert_sum((0, 0, 1), record('1..0 # SKIP no kernel', 'SKIP'))

    def test_wrong_plans(self):
        """No plan, a plan that does not fit, two plans."""
        self.assert_sum((1, 1, 0), record('ok 1\n'))
        self.assert_sum((1, 1, 0), record('1..2\nok 1\n'))
        self.assert_sum((2, 1, 0), record('1..1\nok 1\nok 2\n'))
        self.assert_sum((1, 1, 0), record('1..5\nok 1\n1..1\n'))
        self.assert_sum((0, 1, 0), record(''))

    def test_ends_badly(self):
        """All points passed and then: a crash, a timeout."""
        for result in 'ERROR', 'TIMEOUT', 'INTERRUPT', 'FAIL':
            self.assert_sum((1, 1, 0), record('1..1\nok 1\n', result, -6))

    def test_no_record(self):
        """Nothing ran at all."""
        self.assertEqual(self.sum()[0], 1)

    def log(self, text, status):
        """What is made of a log file and Meson's exit status."""
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / 'log.json'
            if text is not None:
                path.write_text(text, encoding='utf-8')
            return check.read_log(path, status, 'log')

    def test_meson(self):
        """Meson itself ends badly, or leaves half a log."""
        good = json.dumps(record('1..1\nok 1\n')) + '\n'
        bad = json.dumps(record('1..1\nnot ok 1\n', 'FAIL', 1)) + '\n'
        self.assert_sum((1, 0, 0), *self.log(good, 0))
        self.assert_sum((0, 1, 0), *self.log(bad, 1))
        self.assert_sum((1, 1, 0), *self.log(good, -9))
        self.assert_sum((1, 1, 0), *self.log(good, 3))
        self.assert_sum((1, 1, 0), *self.log(good + good[:30], 0))
        self.assert_sum((0, 1, 0), *self.log('', 0))
        self.assert_sum((0, 1, 0), *self.log(None, 1))

    def test_lanes(self):
        """The lane is the suite that is neither guard nor long."""
        for name, want in (('qemu:guard+guest / a', ('guest', 'a')),
                           ('qemu:guard+long+guest / a', ('guest', 'a')),
                           ('qemu:unit / b', ('unit', 'b'))):
            self.assertEqual(check.lane_of({'name': name}), want)


if __name__ == '__main__':
    runner = pycotap.TAPTestRunner(
        message_log=pycotap.LogMode.LogToError,
        test_output_log=pycotap.LogMode.LogToError)
    sys.exit(not unittest.main(testRunner=runner,
                               exit=False).result.wasSuccessful())
