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


# A disk that has nothing to do, and the user's network, with room for pages
# that the devices don't use
DEVICES = ('-accel', 'tcg', '-cpu', 'max', '-m', '1G',
           '-blockdev', 'null-co,node-name=disk,size=1073741824,'
           'read-zeroes=off',
           '-device', 'virtio-blk-pci,drive=disk,disable-modern=on',
           '-netdev', 'user,id=net,restrict=on',
           '-device', 'virtio-net-pci,netdev=net,disable-modern=on')


def guards(count: int) -> Tuple[Tuple[str, Dict], ...]:
    """Protect the first piece of so many pages, from 512 MiB on"""
    return (('subpage-set-access', {'regions': [
        {'addr': (512 << 20) + page * 4096, 'size': 128, 'access': 'read'}
        for page in range(count)]}),)


VARIANTS = {
    'stock': Variant(STOCK, ('-accel', 'tcg', '-cpu', 'max')),
    'off': Variant(PATCHED, ('-accel', 'tcg', '-cpu', 'max')),
    'xo': Variant(PATCHED, ('-accel', 'tcg', '-cpu', 'max,+xo')),
    'devices-stock': Variant(STOCK, DEVICES),
    'devices': Variant(PATCHED, DEVICES),
    'devices-1000': Variant(PATCHED, DEVICES, guards(1000)),
    'devices-100000': Variant(PATCHED, DEVICES, guards(100000)),
}

# What stands over the columns, and what it means
COLUMNS = {
    'off': 'patched QEMU with nothing switched on, against the same QEMU '
           'without our patches; both with -cpu max',
    'on': 'patched QEMU with -cpu max,+xo against QEMU without our patches '
          'with -cpu max',
    '1000': 'patched QEMU with 1,000 pages protected that devices do not use, '
            'against QEMU without our patches',
    '100000': 'the same with 100,000 pages',
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


def devices(name: str, title: str) -> Case:
    """A case of devices, beside protected pages"""
    return Case(name, title, 'devices', Side('devices-stock', name),
                {'off': Side('devices', name),
                 '1000': Side('devices-1000', name),
                 '100000': Side('devices-100000', name)})


CASES = (
    plain('boot', 'boot of a Debian cloud kernel to user space', LINUX),
    plain('memory', 'loads and stores over 8 MiB', 'loops'),
    plain('copy', 'REP MOVSQ over 8 MiB', 'loops'),
    plain('store', 'stores to 128 bytes of one page', 'loops'),
    plain('branch', 'conditional and indirect branches, calls', 'loops'),
    plain('fault', 'page faults, handler skips the access', 'loops'),
    plain('fault-map', 'page faults, handler maps the page', 'loops'),
    plain('tlb-walk', 'TLB misses: a walk over 2048 pages', 'loops'),
    plain('tlb-cr3', 'CR3 reload, then 64 pages', 'loops'),
    plain('tlb-invlpg', 'INVLPG and a load', 'loops'),
    plain('cr0', 'MOV CR0', 'registers'),
    plain('cr4', 'MOV CR4, no TLB flush', 'registers'),
    plain('cr4-flush', 'MOV CR4 that flushes the TLB', 'registers'),
    plain('wrmsr', 'WRMSR', 'registers'),
    plain('switch', 'switch of tasks: CR3, stack, 8 pages', 'registers'),
    plain('code', 'code on 128 ordinary pages', 'code'),
    plain('translate', 'translation of code on ordinary pages', 'code'),
    Case('code-xo', 'code on 128 XO pages : ordinary pages, one guest',
         'code', Side('xo', 'code'), {'on': Side('xo', 'code-xo')}),
    Case('translate-xo', 'translation, XO pages : ordinary pages, one guest',
         'code', Side('xo', 'translate'), {'on': Side('xo', 'translate-xo')}),
    devices('virtio-blk', 'virtio-blk reads of 4 KiB, 32 at a time'),
    devices('slirp', 'frames of 1.4 KiB by virtio-net and slirp, and back'),
)
