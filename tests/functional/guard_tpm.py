# SPDX-License-Identifier: GPL-2.0-or-later
"""
As much of a TPM emulator as QEMU's tpm-emulator backend needs to start, so
that a machine has a TPM without a program that is one.
"""

import array
import socket
import struct
import threading

INIT, SHUTDOWN, ESTABLISHED, SET_LOCALITY, RESET_ESTABLISHED = 2, 3, 4, 5, 11
CAPABILITY, DATA_SOCKET, BUFFER_SIZE = 1, 16, 17
# Bytes that follow a command
ARGUMENTS = {INIT: 4, SET_LOCALITY: 4, RESET_ESTABLISHED: 4, BUFFER_SIZE: 4}
OK = bytes(4)
ANSWERS = {CAPABILITY: struct.pack('>Q', 0x7ffff), ESTABLISHED: OK + bytes(4),
           BUFFER_SIZE: OK + struct.pack('>III', 3968, 1024, 3968)}


class FakeTpm(threading.Thread):
    """Says yes to all, at a socket."""

    def __init__(self, path):
        super().__init__(daemon=True)
        self.listener = socket.socket(socket.AF_UNIX)
        self.listener.bind(path)
        self.listener.listen(1)

    def run(self):
        """One connection, until it ends."""
        with self.listener, self.listener.accept()[0] as control:
            while self.answer(control):
                pass

    def answer(self, control):
        """One command; returns whether there was one."""
        space = socket.CMSG_SPACE(4)
        head, extra, _, _ = control.recvmsg(4, space)
        while 0 < len(head) < 4:
            head += control.recv(4 - len(head))
        if not head:
            return False
        command = struct.unpack('>I', head)[0]
        for _, _, data in extra:
            threading.Thread(target=self.commands, daemon=True,
                             args=array.array('i', data)[:1]).start()
        if command in ARGUMENTS:
            control.recv(ARGUMENTS[command], socket.MSG_WAITALL)
        control.sendall(ANSWERS.get(command, OK))
        return True

    @staticmethod
    def commands(number):
        """Each TPM command succeeds."""
        with socket.socket(fileno=number) as data:
            while head := data.recv(10, socket.MSG_WAITALL):
                size = struct.unpack('>I', head[2:6])[0]
                data.recv(size - 10, socket.MSG_WAITALL)
                data.sendall(struct.pack('>HII', 0x8001, 10, 0))
