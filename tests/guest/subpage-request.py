# SPDX-License-Identifier: GPL-2.0-or-later
"""The host's side of the test of the same name."""

from subpage_host import calls

__all__ = ['calls']
