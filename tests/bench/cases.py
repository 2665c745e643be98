# SPDX-License-Identifier: GPL-2.0-or-later
"""
What is measured: a list.

A variant is a way to run a QEMU, a side is some work under a variant.  A
case compares sides with the first of them; each becomes a column of its row
in a table.  Each group of cases is a table of its own.
"""

import random
from typing import Dict, NamedTuple, Sequence, Tuple

# The binaries
PATCHED = 'patched'
STOCK = 'stock'

PAGE = 4096
SUBPAGE = 128
MIB = 1 << 20

# As in guest/bench.h: a page with a guarded sub-page
GUARDED_PAGE = 88 * MIB
GUARDED_OFFSET = 2048

# RAM that nothing uses: for the guest programs they are beyond what frames()
# gives them, and the kernel is told to leave them alone.
UNUSED = 96 * MIB
UNUSED_SIZE = 16 * MIB


class Variant(NamedTuple):
    """
    A way to run a QEMU.  Before the work begins, subpage-set-access guards
    the sub-pages, each of which allows reads only.
    """
    binary: str
    args: Tuple[str, ...]
    # Addresses of sub-pages, and the action for them
    guarded: Sequence[int] = ()
    action: str = 'report'
    # Registers that are pinned on all CPUs
    pins: Tuple[Dict, ...] = ()
    # Nothing may touch what is guarded: if so, that is an error.
    untouched: bool = False
    # A variable of the kernel, its first sub-page guarded: boots only
    symbol: str = ''
    # Where gdb sets a watchpoint for stores to 8 bytes, by the gdbstub
    watch: int = 0
    # With the plugin in plugin/, which gets a callback on each store
    plugin: bool = False


def scattered(base: int, count: int) -> Tuple[int, ...]:
    """
    A sub-page in each of so many pages, every other page, another sub-page
    each time, and in no order
    """
    order = random.Random(1).sample(range(count), count)
    return tuple(base + i * 2 * PAGE + i % 32 * SUBPAGE for i in order)


TCG = ('-accel', 'tcg', '-cpu', 'max')
# Two vCPUs, each in a thread
MTTCG = ('-accel', 'tcg,thread=multi', '-cpu', 'max', '-smp', '2')
# Room for many pages
LARGE = (*TCG, '-m', '1G')
MANY = 100_000

ONE = (GUARDED_PAGE + GUARDED_OFFSET,)

# What the loops below toggle is not among it: these writes are allowed.
WP, UMIP, SMEP, SMAP = 1 << 16, 1 << 11, 1 << 20, 1 << 21
PINS = ({'register': 'cr0', 'ones': WP},
        {'register': 'cr4', 'zeros': UMIP},
        {'register': 'efer', 'ones': 1 << 11},
        {'register': 'msr', 'index': 0x176},
        {'register': 'idtr'}, {'register': 'gdtr'})
LINUX_PINS = ({'register': 'cr0', 'ones': WP},
              {'register': 'cr4', 'ones': UMIP | SMEP | SMAP})

# A disk that has nothing to do, and the user's network, with room for pages
# that the devices don't use
DEVICES = ('-accel', 'tcg', '-cpu', 'max', '-m', '1G',
           '-blockdev', 'null-co,node-name=disk,size=1073741824,'
           'read-zeroes=off',
           '-device', 'virtio-blk-pci,drive=disk,disable-modern=on',
           '-netdev', 'user,id=net,restrict=on',
           '-device', 'virtio-net-pci,netdev=net,disable-modern=on')

# The same disk in an iothread
IOTHREAD = ('-object', 'iothread,id=io', *(
    arg + ',iothread=io' if arg.startswith('virtio-blk-pci') else arg
    for arg in DEVICES))


def beside(name: str, args: Tuple[str, ...]) -> Dict[str, Variant]:
    """Devices, and pages that they don't use"""
    return {
        f'{name}-stock': Variant(STOCK, args),
        name: Variant(PATCHED, args),
        **{f'{name}-{count}': Variant(PATCHED, args,
                                      scattered(128 * MIB, count), 'fault',
                                      untouched=True)
           for count in (1000, MANY)},
    }


VARIANTS = {
    'stock': Variant(STOCK, TCG),
    'off': Variant(PATCHED, TCG),
    'xo': Variant(PATCHED, ('-accel', 'tcg', '-cpu', 'max,+xo')),
    # The action is one that would be noticed.
    'armed': Variant(PATCHED, TCG, scattered(UNUSED, 512), 'report',
                     untouched=True),
    'guarded': Variant(PATCHED, TCG, ONE, 'discard'),
    'guarded-mttcg': Variant(PATCHED, MTTCG, ONE, 'discard'),
    'symbol': Variant(PATCHED, TCG, symbol='modprobe_path'),
    'plugin': Variant(STOCK, TCG, plugin=True),
    'watch': Variant(STOCK, TCG, watch=ONE[0]),
    'one': Variant(PATCHED, LARGE, (*ONE, *scattered(128 * MIB, 1)),
                   'discard'),
    'many': Variant(PATCHED, LARGE, (*ONE, *scattered(128 * MIB, MANY)),
                    'discard'),
    'pins': Variant(PATCHED, TCG, pins=PINS),
    'linux-pins': Variant(PATCHED, TCG, pins=LINUX_PINS),
    **beside('devices', DEVICES),
    **beside('iothread', IOTHREAD),
}


class Side(NamedTuple):
    """
    Work under a variant: a loop of a guest program, or '' to boot.  What is
    known to be slow is repeated by this much less often, and its cost scaled
    up: else it would take minutes.
    """
    variant: str
    loop: str = ''
    less: int = 1


class Case(NamedTuple):
    """
    A row: the columns are ratios to the reference, of CPU time, or of
    wall-clock time where CPUs that wait for others are the question.  Where
    two vCPUs get in each other's way, contended, the fastest slice would be
    one in which one of them was held up.  Where the vCPU and the main loop
    wake each other, they do so on one CPU of the host: how many requests are
    done at a time would be luck on two.
    """
    name: str
    title: str
    program: str
    reference: Side
    columns: Dict[str, Side]
    by_wall: bool = False
    contended: bool = False
    one_cpu: bool = False


class Group(NamedTuple):
    """A table: what stands over its columns, and what that means"""
    title: str
    columns: Dict[str, str]
    cases: Tuple[Case, ...]


# A guest program that is not one: Linux
LINUX = 'linux'


def plain(name: str, title: str, program: str) -> Case:
    """A case with the usual columns"""
    loop = '' if program == LINUX else name
    return Case(name, title, program, Side('stock', loop),
                {'off': Side('off', loop), 'on': Side('xo', loop),
                 'armed': Side('armed', loop)})


def devices(name: str, title: str, loop: str = '',
            variant: str = 'devices') -> Case:
    """A case of devices, beside protected pages"""
    loop = loop or name
    return Case(name, title, 'devices', Side(f'{variant}-stock', loop),
                {'off': Side(variant, loop),
                 '1000': Side(f'{variant}-1000', loop),
                 '100000': Side(f'{variant}-100000', loop)}, one_cpu=True)


def with_pins(case: Case, variant: str = 'pins') -> Case:
    """The same with one more column"""
    return case._replace(columns={
        **case.columns, 'pins': Side(variant, case.reference.loop)})


def guarded(name: str, title: str, loop: str, reference: str, less: int,
            variant: str = 'guarded', **options) -> Case:
    """A case with two loops in one guest, of which one meets a guard"""
    return Case(name, title, 'subpage', Side(variant, reference),
                {'guarded': Side(variant, loop, less)}, **options)


def lookup(name: str, title: str, program: str, loop: str) -> Case:
    """A case with many pages guarded"""
    return Case(f'lookup-{name}', title, program, Side('one', loop),
                {'many': Side('many', loop)})


GROUPS = (
    Group('Ordinary code', {
        'off': 'patched QEMU with nothing switched on, against the same QEMU '
               'without our patches; both with -cpu max',
        'on': 'patched QEMU with -cpu max,+xo against QEMU without our '
              'patches with -cpu max',
        'armed': 'patched QEMU with -cpu max and 512 guarded sub-pages, each '
                 'in a page of its own that the loop does not touch, against '
                 'QEMU without our patches',
        'pins': 'patched QEMU with registers pinned, against the same QEMU '
                'without our patches; both with -cpu max',
    }, (
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
        with_pins(plain('cr4-flush', 'MOV CR4 that flushes the TLB',
                        'registers')),
        with_pins(plain('wrmsr', 'WRMSR', 'registers')),
        with_pins(plain('switch', 'switch of tasks: CR3, stack, 8 pages',
                        'registers')),
        plain('code', 'code on 128 ordinary pages', 'code'),
        plain('translate', 'translation of code on ordinary pages', 'code'),
        Case('code-xo', 'code on 128 XO pages : ordinary pages, one guest',
             'code', Side('xo', 'code'), {'on': Side('xo', 'code-xo')}),
        Case('translate-xo',
             'translation, XO pages : ordinary pages, one guest',
             'code', Side('xo', 'translate'),
             {'on': Side('xo', 'translate-xo')}),
    )),
    Group('Stores that meet a guard', {
        'guarded': 'the loop on a page with one guarded sub-page, against '
                   'the same loop on an ordinary page in the same guest',
    }, (
        guarded('beside', 'stores of 8 bytes to a writable sub-page',
                'store-beside', 'store', 4),
        guarded('beside-32', 'stores of 32 bytes to a writable sub-page',
                'store32-beside', 'store32', 4),
        guarded('beside-lock', 'LOCK INC, writable sub-page, 1 vCPU',
                'lock-beside', 'lock', 4),
        guarded('beside-lock-mttcg', 'LOCK INC, writable sub-page, by one of '
                '2 vCPUs', 'lock-beside', 'lock', 4, 'guarded-mttcg'),
        guarded('beside-lock-all', 'LOCK INC, writable sub-pages, by 2 vCPUs '
                'at once', 'lock-all-beside', 'lock-all', 4, 'guarded-mttcg',
                contended=True),
        guarded('witness', 'plain stores of a vCPU while another one does '
                'LOCK INC (by wall clock)', 'witness-beside', 'witness', 1,
                'guarded-mttcg', by_wall=True, contended=True),
        guarded('witness-stopped', 'control: the other one\'s LOCK INC is '
                'misaligned and unguarded, which stops all vCPUs (by wall '
                'clock)', 'witness-stopped', 'witness', 8, 'guarded-mttcg',
                by_wall=True, contended=True),
        guarded('blocked', 'stores of 8 bytes, discarded, events suppressed',
                'store-blocked', 'store', 16),
        guarded('blocked-32', 'stores of 32 bytes, discarded, events '
                'suppressed', 'store32-blocked', 'store32', 16),
    )),
    Group('What else could watch stores', {
        'guarded': 'patched QEMU with one guarded object',
        'plugin': 'QEMU without our patches, with a TCG plugin that counts '
                  'all stores',
        'watch': 'QEMU without our patches, with a watchpoint set through '
                 'the gdbstub instead of the guard',
    }, (
        Case('watch-store', 'stores, the object is on another page',
             'subpage', Side('stock', 'store'),
             {'guarded': Side('guarded', 'store'),
              'plugin': Side('plugin', 'store', 2),
              'watch': Side('watch', 'store')}),
        Case('watch-beside', 'stores beside the object, same page', 'subpage',
             Side('stock', 'store-beside'),
             {'guarded': Side('guarded', 'store-beside', 4),
              'plugin': Side('plugin', 'store-beside', 2),
              'watch': Side('watch', 'store-beside', 64)}),
        Case('watch-boot', 'boot of a Debian cloud kernel, the object is '
             'modprobe_path', LINUX, Side('stock'),
             {'guarded': Side('symbol'), 'plugin': Side('plugin')}),
    )),
    Group('Many guarded pages', {
        'many': f'{MANY:,} scattered guarded pages, against one'.replace(
            ',', ' '),
    }, (
        lookup('store', 'stores to an ordinary page', 'subpage', 'store'),
        lookup('walk', 'TLB misses on ordinary pages', 'loops', 'tlb-walk'),
        lookup('flush', 'CR3 reload, then 64 ordinary pages', 'loops',
               'tlb-cr3'),
        lookup('beside', 'stores to a writable sub-page of a guarded page',
               'subpage', 'store-beside'),
    )),
    Group('Devices beside guarded pages', {
        'off': 'patched QEMU with nothing switched on, against the same QEMU '
               'without our patches; both with -cpu max',
        '1000': 'patched QEMU with 1 000 guarded pages that devices do not '
                'use, against QEMU without our patches',
        '100000': 'the same with 100 000 pages',
    }, (
        devices('virtio-blk', 'virtio-blk reads of 4 KiB, 32 at a time'),
        devices('iothread', 'the same, the device in an iothread',
                'virtio-blk', 'iothread'),
        devices('slirp', 'frames of 1.4 KiB by virtio-net and slirp, and '
                'back'),
    )),
)

CASES = tuple(case for group in GROUPS for case in group.cases)
COLUMNS = tuple(dict.fromkeys(name for group in GROUPS
                              for name in group.columns))

# How many scattered pages are guarded by one command, in the table of times
ARM_COUNTS = (1, 1000, MANY)
