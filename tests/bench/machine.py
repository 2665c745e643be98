# SPDX-License-Identifier: GPL-2.0-or-later
"""QEMU as bench.py runs it: with a serial line, QMP and its CPU time."""

import json
import os
import select
import socket
import subprocess
import tempfile
import time
from typing import Dict, NamedTuple, Optional, Sequence


class BenchError(Exception):
    """Why something could not be measured"""


class Cost(NamedTuple):
    """What a piece of work took, in seconds"""
    cpu: float
    wall: float


class Machine:
    """
    One QEMU process.  Use it in a with statement.

    Its CPU time is that of all its threads, user and system, from the
    process's CPU clock, which has nanoseconds.
    """

    # The longest time to wait for a reply, an event or a line
    TIMEOUT = 300

    def __init__(self, qemu: str, args: Sequence[str]):
        self._serial, serial = socket.socketpair()
        self._monitor, monitor = socket.socketpair()
        self._stderr = tempfile.TemporaryFile()
        self._qemu = qemu
        command = [
            qemu, '-nodefaults', '-no-user-config', '-display', 'none',
            '-no-reboot', '-chardev', f'socket,id=line,fd={serial.fileno()}',
            '-serial', 'chardev:line',
            '-chardev', f'socket,id=qmp,fd={monitor.fileno()}',
            '-mon', 'chardev=qmp,mode=control', *args]
        self._process = subprocess.Popen(
            command, stdin=subprocess.DEVNULL, stdout=self._stderr,
            stderr=self._stderr,
            pass_fds=[serial.fileno(), monitor.fileno()])
        serial.close()
        monitor.close()
        # The kernel's way to name the CPU clock of another process
        self._clock = ~self._process.pid << 3 | 2
        self.text = b''
        self._messages = b''
        self._replies = []
        self._events = []

    def __enter__(self) -> 'Machine':
        try:
            self.qmp('qmp_capabilities')
        except BaseException:
            self.close()
            raise
        return self

    def __exit__(self, *_) -> None:
        self.close()

    def close(self) -> None:
        """End it, whatever it is doing."""
        self._process.kill()
        self._process.wait()
        self._serial.close()
        self._monitor.close()
        self._stderr.close()

    def cpu_time(self) -> float:
        """CPU time so far, in seconds"""
        return time.clock_gettime_ns(self._clock) / 1e9

    def user_time(self) -> float:
        """The part of it that was not the host kernel's, in seconds"""
        with open(f'/proc/{self._process.pid}/stat', encoding='ascii') as stat:
            fields = stat.read().rpartition(')')[2].split()
        return int(fields[11]) / os.sysconf('SC_CLK_TCK')

    def send(self, text: str) -> None:
        """Write to the serial line."""
        self._serial.sendall(text.encode())

    def qmp(self, command: str, arguments: Optional[Dict] = None):
        """Run a QMP command and give what it returns."""
        message = {'execute': command, 'arguments': arguments or {}}
        try:
            self._monitor.sendall(json.dumps(message).encode() + b'\n')
        except OSError:
            # What QEMU has said about its end is told by the next line.
            pass
        self._wait(lambda: self._replies, f'answer {command}')
        reply = self._replies.pop(0)
        if 'error' in reply:
            raise BenchError(f'{command}: {reply["error"]["desc"]}')
        return reply['return']

    def wait_event(self, name: str) -> None:
        """Wait until QEMU sends the event, and forget those before it."""
        self._wait(lambda: name in self._events, f'send the event {name}')
        del self._events[:self._events.index(name) + 1]

    def wait_text(self, text: bytes) -> None:
        """Wait for a text on the serial line."""
        self._wait(lambda: text in self.text, f'print {text.decode()!r}')

    def _wait(self, done, what: str) -> None:
        deadline = time.monotonic() + self.TIMEOUT
        while not done():
            left = deadline - time.monotonic()
            if left <= 0:
                raise BenchError(f'{self._name()} did not {what} within '
                                 f'{self.TIMEOUT} s{self._last_words()}')
            ready, _, _ = select.select([self._monitor, self._serial], [], [],
                                        left)
            if self._serial in ready:
                self.text += self._receive(self._serial, what)
            if self._monitor in ready:
                *lines, self._messages = (
                    self._messages + self._receive(self._monitor, what)
                ).split(b'\n')
                for line in lines:
                    self._take(json.loads(line))

    def _receive(self, line: socket.socket, what: str) -> bytes:
        try:
            data = line.recv(65536)
        except ConnectionResetError:
            data = b''
        if not data:
            raise BenchError(f'{self._name()} ended and did not {what}'
                             f'{self._last_words()}')
        return data

    def _take(self, message: Dict) -> None:
        if 'event' in message:
            self._events.append(message['event'])
        elif 'QMP' not in message:
            self._replies.append(message)

    def _name(self) -> str:
        return os.path.basename(self._qemu)

    def _last_words(self) -> str:
        """What QEMU said, or the guest, about what went wrong"""
        self._stderr.seek(0)
        lines = self._stderr.read().splitlines() + self.text.splitlines()[-1:]
        words = [line.decode(errors='replace').strip() for line in lines
                 if b'warning:' not in line]
        return ''.join(f'; {line}' for line in words if line)[:400]


class LoopMachine(Machine):
    """
    A guest that stops the virtual machine, runs a slice of a loop when it is
    continued, and stops it again (guest/bench.c).
    """

    def __init__(self, qemu: str, args: Sequence[str], program: str):
        super().__init__(qemu, ['-m', '128M', '-device', 'pvpanic',
                                '-action', 'panic=pause',
                                '-kernel', program, *args])
        self._loops: Dict[str, str] = {}

    def __enter__(self) -> 'LoopMachine':
        super().__enter__()
        try:
            self.wait_event('STOP')
        except BaseException:
            self.close()
            raise
        for line in self.text.decode(errors='replace').splitlines():
            word, *rest = line.split()
            if word == 'loop':
                self._loops[rest[1]] = rest[0]
        return self

    def slice(self, loop: str, count: int) -> Cost:
        """Run a loop so many times; QEMU stands still before and after."""
        self.send(f'{self._loops[loop]} {count}\n')
        cpu, wall = self.cpu_time(), time.monotonic()
        self.qmp('cont')
        self.wait_event('STOP')
        return Cost(self.cpu_time() - cpu, time.monotonic() - wall)
