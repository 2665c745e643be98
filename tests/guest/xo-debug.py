# SPDX-License-Identifier: GPL-2.0-or-later
"""
The host's side of xo-debug.c: look at a page of the guest with one of the
debugging facilities, and tell whether it shows what is there.
"""

import os
import re
import struct
import tempfile

from gdb_host import gdb

CODE = bytes.fromhex('48b8e7c25edec0e7c25ec3')


def hmp(session, arg, line):
    """Run one command of the human monitor on the CPU that was asked for."""
    reply = session.qmp({'execute': 'human-monitor-command',
                         'arguments': {'command-line': line,
                                       'cpu-index': arg['cpu']}})
    return reply['return'].replace('\r', '')


def answer(good, seen):
    """What the guest gets to know."""
    return {'good': bool(good), 'seen': '' if good else str(seen)[:200]}


def memory(session, arg):
    """x shows the bytes."""
    text = hmp(session, arg, f'x /1gx {arg["va"]:#x}')
    want = int.from_bytes(CODE[:8], 'little')
    return answer(text.strip().endswith(f': {want:#018x}'), text)


def disassembly(session, arg):
    """x/i shows the instruction."""
    text = hmp(session, arg, f'x /1i {arg["va"]:#x}')
    return answer('movabs' in text and '5ec2e7c0de5ec2e7' in text, text)


def memsave(session, arg):
    """memsave writes the bytes to a file."""
    with tempfile.TemporaryDirectory() as folder:
        path = os.path.join(folder, 'saved')
        text = hmp(session, arg,
                   f'memsave {arg["va"]:#x} {len(CODE)} "{path}"')
        if not os.path.exists(path):
            return answer(False, text)
        with open(path, 'rb') as file:
            data = file.read()
    return answer(data == CODE, data.hex())


def gva2gpa(session, arg):
    """gva2gpa gives the address without the bit."""
    text = hmp(session, arg, f'gva2gpa {arg["va"]:#x}')
    return answer(text.strip() == f'gpa: {arg["pa"]:#x}', text)


def info_tlb(session, arg):
    """info tlb lists the page, and marks it if it is execute-only."""
    mask = -arg['size']
    start = f'{arg["va"] & mask:016x}: {arg["pa"] & mask:016x} '
    lines = [line for line in hmp(session, arg, 'info tlb').splitlines()
             if line.startswith(start)]
    return answer(len(lines) == 1 and lines[0].endswith(' xo') == arg['xo'],
                  lines)


def info_mem(session, arg):
    """info mem lists it as neither readable nor writable, if it is so."""
    want = '-- xo' if arg['xo'] else 'r-'
    for line in hmp(session, arg, 'info mem').splitlines():
        start, end, flags = re.fullmatch(
            r'([0-9a-f]{16})-([0-9a-f]{16}) [0-9a-f]{16} (.*)', line).groups()
        if int(start, 16) <= arg['va'] < int(end, 16):
            return answer(flags in ('-' + want, 'u' + want), line)
    return answer(False, 'not listed')


def gdb_read(session, arg):
    """A debugger reads it."""
    reply, = gdb(session, f'm{arg["va"]:x},{len(CODE):x}')
    return answer(reply == CODE.hex(), reply)


def gdb_write(session, arg):
    """A debugger writes it: the lowest byte of the constant plus one."""
    reply, = gdb(session, f'M{arg["va"] + 2:x},1:{CODE[2] + 1:02x}')
    return answer(reply == 'OK', reply)


def dump(session, arg):
    """
    dump-guest-memory with paging: a segment that has the page's linear and
    physical addresses, and its bytes (as gdb_write left them).
    """
    with tempfile.TemporaryDirectory() as folder:
        path = os.path.join(folder, 'dump')
        reply = session.qmp({'execute': 'dump-guest-memory', 'arguments': {
            'paging': True, 'protocol': f'file:{path}',
            'begin': arg['pa'] & -4096, 'length': 4096}})
        if 'error' in reply:
            return answer(False, reply)
        with open(path, 'rb') as file:
            data = file.read()
    start, = struct.unpack_from('<Q', data, 0x20)
    size, count = struct.unpack_from('<HH', data, 0x36)
    seen = []
    for i in range(count):
        kind, _, offset, vaddr, paddr, filesz = struct.unpack_from(
            '<IIQQQQ', data, start + i * size)
        if not arg['xo']:
            # Upstream's walk sets the top 16 bits of every address
            vaddr &= (1 << 48) - 1
        seen.append(f'{vaddr:x}={paddr:x}+{filesz:x}')
        if kind == 1 and vaddr <= arg['va'] < vaddr + filesz:
            distance = arg['va'] - vaddr
            code = data[offset + distance:offset + distance + len(CODE)]
            want = CODE[:2] + bytes([CODE[2] + 1]) + CODE[3:]
            return answer(paddr + distance == arg['pa'] and code == want,
                          f'{paddr + distance:x} {code.hex()}')
    return answer(False, seen)


def pae(session, arg):
    """Another CPU, in legacy PAE paging: x, info tlb and info mem."""
    text = hmp(session, arg, f'x /1xb {arg["va"]:#x}')
    if not text.strip().endswith(': 0xb8'):
        return answer(False, text)
    for look in info_tlb, info_mem:
        result = look(session, arg)
        if not result['good']:
            return result
    return answer(True, '')


calls = {
    'x': memory, 'disassembly': disassembly, 'memsave': memsave,
    'gva2gpa': gva2gpa, 'info_tlb': info_tlb, 'info_mem': info_mem,
    'gdb_read': gdb_read, 'gdb_write': gdb_write, 'dump': dump, 'pae': pae,
}
