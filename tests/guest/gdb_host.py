# SPDX-License-Identifier: GPL-2.0-or-later
"""A debugger for tests: a few packets to QEMU's gdbstub."""

import os
import re
import socket
import tempfile

# $DATA#CHECKSUM
PACKET = re.compile(rb'\$([^#]*)#[0-9a-f]{2}')


def gdb(session, *packets, cont=True):
    """
    The answers to packets; the VM runs on afterwards.  Without cont only the
    end of the debugger's session makes it so: if it stops by itself, it stays.
    """
    answers = []
    with tempfile.TemporaryDirectory() as folder:
        path = os.path.join(folder, 'gdb')
        session.qmp({'execute': 'human-monitor-command', 'arguments': {
            'command-line': f'gdbserver unix:{path},server=on,wait=off'}})
        with socket.socket(socket.AF_UNIX) as stub:
            stub.settimeout(20)
            stub.connect(path)
            for packet in packets + ('D;1',):
                check = sum(packet.encode()) & 0xff
                stub.sendall(f'+${packet}#{check:02x}'.encode())
                data = b''
                while not PACKET.search(data):
                    more = stub.recv(4096)
                    if not more:
                        break
                    data += more
                answers.append(PACKET.search(data)[1].decode())
        session.qmp({'execute': 'human-monitor-command',
                     'arguments': {'command-line': 'gdbserver none'}})
    if cont:
        session.qmp('cont')
    return answers[:-1]
