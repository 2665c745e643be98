# SPDX-License-Identifier: GPL-2.0-or-later
"""The host's side of subpage-system.c: the monitor, pmemsave, a debugger."""

import os
import re
import socket
import tempfile

import subpage_host


def monitor(session, arg):
    """One line of the human monitor; the last word of what it says."""
    reply = session.qmp({'execute': 'human-monitor-command',
                         'arguments': {'command-line': arg['line']}})
    words = reply.get('return', '').split()
    return {'last': words[-1] if words else ''}


def pmemsave(session, arg):
    """Eight bytes of physical memory, in hexadecimal."""
    with tempfile.TemporaryDirectory() as folder:
        path = os.path.join(folder, 'saved')
        session.qmp({'execute': 'pmemsave', 'arguments': {
            'val': arg['addr'], 'size': 8, 'filename': path}})
        with open(path, 'rb') as file:
            return {'data': file.read().hex()}


def gdb(session, arg):
    """A debugger reads eight bytes, and writes one."""
    answers = []
    with tempfile.TemporaryDirectory() as folder:
        path = os.path.join(folder, 'gdb')
        session.qmp({'execute': 'human-monitor-command', 'arguments': {
            'command-line': f'gdbserver unix:{path},server=on,wait=off'}})
        with socket.socket(socket.AF_UNIX) as stub:
            stub.settimeout(20)
            stub.connect(path)
            for packet in (f'm{arg["read"]:x},8',
                           f'M{arg["write"]:x},1:99', 'D;1'):
                check = sum(packet.encode()) & 0xff
                stub.sendall(f'+${packet}#{check:02x}'.encode())
                data = b''
                while not re.search(rb'\$[^#]*#[0-9a-f]{2}', data):
                    more = stub.recv(4096)
                    if not more:
                        break
                    data += more
                answers.append(re.search(rb'\$([^#]*)#', data)[1].decode())
        session.qmp({'execute': 'human-monitor-command',
                     'arguments': {'command-line': 'gdbserver none'}})
    session.qmp('cont')
    return {'data': answers[0], 'written': answers[1]}


def disarm(session, arg):
    """Stops by a debugger are not the guest's."""
    answer = subpage_host.disarm(session, arg)
    if getattr(session, 'debugged', False):
        answer['stops'] = 0
        session.debugged = False
    return answer


def debugged(session, arg):
    """gdb(), and remember it."""
    session.debugged = True
    return gdb(session, arg)


calls = dict(subpage_host.calls, monitor=monitor, pmemsave=pmemsave,
             gdb=debugged, disarm=disarm)
