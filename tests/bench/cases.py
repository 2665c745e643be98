# SPDX-License-Identifier: GPL-2.0-or-later
"""
What is measured: a list.

A variant is a way to run a QEMU, a side is some work under a variant.  A
case compares sides with the first of them; each becomes a column of its row
in the table.
"""

from typing import Dict, NamedTuple, Tuple

# The binaries
PATCHED = 'patched'
STOCK = 'stock'


class Variant(NamedTuple):
    """
    A way to run a QEMU.  The commands of setup, pairs of a QMP command and
    its arguments, are run before the work begins.
    """
    binary: str
    args: Tuple[str, ...]
    setup: Tuple[Tuple[str, Dict], ...] = ()


def pinned(*registers: Dict) -> Tuple[Tuple[str, Dict], ...]:
    """Setup that pins registers of all CPUs"""
    # A boot takes longer than the ten seconds that a CPU has by default.
    return (('register-pin', {'registers': list(registers),
                              'grace-ms': 600000}),)


# What the loops below toggle is not among it: these writes are allowed.
WP, UMIP, SMEP, SMAP = 1 << 16, 1 << 11, 1 << 20, 1 << 21
PINS = pinned({'register': 'cr0', 'ones': WP},
              {'register': 'cr4', 'zeros': UMIP},
              {'register': 'efer', 'ones': 1 << 11},
              {'register': 'msr', 'index': 0x176},
              {'register': 'idtr'}, {'register': 'gdtr'})
LINUX_PINS = pinned({'register': 'cr0', 'ones': WP},
                    {'register': 'cr4', 'ones': UMIP | SMEP | SMAP})

VARIANTS = {
    'stock': Variant(STOCK, ('-accel', 'tcg', '-cpu', 'max')),
    'off': Variant(PATCHED, ('-accel', 'tcg', '-cpu', 'max')),
    'xo': Variant(PATCHED, ('-accel', 'tcg', '-cpu', 'max,+xo')),
    'pins': Variant(PATCHED, ('-accel', 'tcg', '-cpu', 'max'), PINS),
    'linux-pins': Variant(PATCHED, ('-accel', 'tcg', '-cpu', 'max'),
                          LINUX_PINS),
}

# What stands over the columns, and what it means
COLUMNS = {
    'off': 'patched QEMU with nothing switched on, against the same QEMU '
           'without our patches; both with -cpu max',
    'on': 'patched QEMU with -cpu max,+xo against QEMU without our patches '
          'with -cpu max',
    'pins': 'patched QEMU with registers pinned, against the same QEMU '
            'without our patches; both with -cpu max',
}


class Side(NamedTuple):
    """Work under a variant: a loop of a guest program, or '' to boot"""
    variant: str
    loop: str = ''


class Case(NamedTuple):
    """A row: the columns are ratios to the reference."""
    name: str
    title: str
    program: str
    reference: Side
    columns: Dict[str, Side]


# A guest program that is not one: Linux
LINUX = 'linux'


def plain(name: str, title: str, program: str) -> Case:
    """A case with the usual columns"""
    loop = '' if program == LINUX else name
    return Case(name, title, program, Side('stock', loop),
                {'off': Side('off', loop), 'on': Side('xo', loop)})


def with_pins(case: Case, variant: str = 'pins') -> Case:
    """The same with one more column"""
    return case._replace(columns={
        **case.columns, 'pins': Side(variant, case.reference.loop)})


CASES = (
    with_pins(plain('boot', 'boot of a Debian cloud kernel to user space',
                    LINUX), 'linux-pins'),
    plain('memory', 'loads and stores over 8 MiB', 'loops'),
    plain('copy', 'REP MOVSQ over 8 MiB', 'loops'),
    plain('store', 'stores to 128 bytes of one page', 'loops'),
    plain('branch', 'conditional and indirect branches, calls', 'loops'),
    plain('fault', 'page faults, handler skips the access', 'loops'),
    plain('fault-map', 'page faults, handler maps the page', 'loops'),
    plain('tlb-walk', 'TLB misses: a walk over 2048 pages', 'loops'),
    plain('tlb-cr3', 'CR3 reload, then 64 pages', 'loops'),
    plain('tlb-invlpg', 'INVLPG and a load', 'loops'),
    with_pins(plain('cr0', 'MOV CR0', 'registers')),
    with_pins(plain('cr4', 'MOV CR4, no TLB flush', 'registers')),
    with_pins(plain('cr4-flush', 'MOV CR4 that flushes the TLB', 'registers')),
    with_pins(plain('wrmsr', 'WRMSR', 'registers')),
    with_pins(plain('switch', 'switch of tasks: CR3, stack, 8 pages',
                    'registers')),
    plain('code', 'code on 128 ordinary pages', 'code'),
    plain('translate', 'translation of code on ordinary pages', 'code'),
    Case('code-xo', 'code on 128 XO pages : ordinary pages, one guest',
         'code', Side('xo', 'code'), {'on': Side('xo', 'code-xo')}),
    Case('translate-xo', 'translation, XO pages : ordinary pages, one guest',
         'code', Side('xo', 'translate'), {'on': Side('xo', 'translate-xo')}),
)
