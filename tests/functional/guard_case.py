# SPDX-License-Identifier: GPL-2.0-or-later
"""A test case whose failing parts can be told apart in TAP."""

from contextlib import contextmanager

from qemu_test import QemuSystemTest


class GuardTest(QemuSystemTest):
    """QemuSystemTest, whose TAP leaves out a test with a failing subTest()."""

    @contextmanager
    def subTest(self, msg=None, **params):
        """A failure ends the test, and says in which part."""
        try:
            yield
        except Exception as error:
            error.add_note(f'in {msg or ""} {params}')
            raise
