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


def guard_command(addresses: Sequence[int], action: str) -> str:
    """The JSON that lets sub-pages be read only"""
    return json.dumps({'execute': 'subpage-set-access', 'arguments': {
        'regions': [{'addr': address, 'size': 128, 'access': 'read'}
                    for address in addresses],
        'action': action}})


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

    def __init__(self, qemu: str, args: Sequence[str],
                 env: Optional[Dict[str, str]] = None):
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
            stderr=self._stderr, env={**os.environ, **(env or {})},
            pass_fds=[serial.fileno(), monitor.fileno()])
        serial.close()
        monitor.close()
        # The kernel's way to name the CPU clock of another process
        self._clock = ~self._process.pid << 3 | 2
        self.text = b''
        self._messages = b''
        self._replies = []
        self._gdb: Optional[socket.socket] = None
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
        if self._gdb:
            self._gdb.close()

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
        return self.qmp_text(command, json.dumps(
            {'execute': command, 'arguments': arguments or {}}))

    def qmp_text(self, command: str, text: str):
        """The same, with the command's JSON made before"""
        try:
            self._monitor.sendall(text.encode() + b'\n')
        except OSError:
            # What QEMU has said about its end is told by the next line.
            pass
        self._wait(lambda: self._replies, f'answer {command}')
        reply = self._replies.pop(0)
        if 'error' in reply:
            raise BenchError(f'{command}: {reply["error"]["desc"]}')
        return reply['return']

    def guard(self, addresses: Sequence[int], action: str) -> None:
        """Let sub-pages be read only, in one command."""
        self.qmp_text('subpage-set-access', guard_command(addresses, action))

    def violations(self) -> int:
        """How often the guest met a guard"""
        for feature in self.qmp('query-guard'):
            if feature['feature'] == 'subpage':
                counters = feature['counters']
                return counters['reads'] + counters['writes']
        raise BenchError('query-guard does not know subpage')

    def watch(self, path: str, address: int) -> None:
        """
        Set a watchpoint for stores to 8 bytes at a virtual address, as gdb
        does that is connected to the gdbstub at a socket.  gdb's connection
        stops the virtual machine.
        """
        packet = f'Z2,{address:x},8'.encode()
        self._gdb = socket.socket(socket.AF_UNIX)
        self._gdb.settimeout(self.TIMEOUT)
        self._gdb.connect(path)
        self._gdb.sendall(b'$%s#%02x' % (packet, sum(packet) % 256))
        reply = b''
        while b'#' not in reply[:-2]:
            data = self._gdb.recv(4096)
            if not data:
                raise BenchError('the gdbstub hung up')
            reply += data
        if b'$OK#' not in reply:
            raise BenchError(f'the gdbstub set no watchpoint: {reply!r}')
        self._gdb.sendall(b'+')

    def mapped(self) -> int:
        """Bytes of writable memory that is neither a file's nor the heap"""
        total = 0
        path = f'/proc/{self._process.pid}/maps'
        with open(path, encoding='utf-8') as maps:
            for line in maps:
                fields = line.split()
                if fields[1] == 'rw-p' and len(fields) == 5:
                    start, end = (int(x, 16) for x in fields[0].split('-'))
                    total += end - start
        return total

    def stderr(self) -> str:
        """What QEMU has said so far"""
        # The offset is QEMU's as well.
        size = os.fstat(self._stderr.fileno()).st_size
        return os.pread(self._stderr.fileno(), size, 0).decode(
            errors='replace')

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
        lines = self.stderr().encode().splitlines() + self.text.splitlines()[-1:]
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
        if loop not in self._loops:
            raise BenchError(f'the guest has no loop {loop}')
        self.send(f'{self._loops[loop]} {count}\n')
        cpu, wall = self.cpu_time(), time.monotonic()
        self.qmp('cont')
        self.wait_event('STOP')
        return Cost(self.cpu_time() - cpu, time.monotonic() - wall)
