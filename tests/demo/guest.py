# SPDX-License-Identifier: GPL-2.0-or-later
"""A Linux guest that is told what to do: by serial line and by QMP."""

import os
import re
import select
import time
from typing import Callable, List, NamedTuple, Optional, Sequence, Union

from qemu.machine import QEMUMachine
from qemu.machine.machine import QEMUMachineError
from qemu.qmp import QMPError


class GuestError(Exception):
    """The guest did not do what it was told, or died."""


class Result(NamedTuple):
    """What a command in the guest printed, and its exit status"""
    status: int
    output: str


# What Linux prints when something went wrong inside it
TROUBLE = re.compile(r'BUG:|WARNING: (?:CPU|\S+:\d+ at)|Oops|Call Trace|'
                     r'Kernel panic|general protection fault|Bad page|'
                     r'freeing invalid')


# A host with other work is no trouble of the guest's
KERNEL_OPTIONS = ('console=ttyS1 panic=-1 nosoftlockup '
                  'rcupdate.rcu_cpu_stall_suppress=1')


def _read(path: str) -> str:
    """A log file as it is now, which may be not there yet"""
    try:
        with open(path, encoding='utf-8', errors='replace') as log:
            return log.read()
    except FileNotFoundError:
        return ''


class Guest:
    """
    One guest, from boot to its end; use it in a with statement.

    init in the initramfs runs commands that come in by the first serial
    port.  The second port is the kernel's console, written to a file.
    """

    # What init writes behind each answer, at the start of a line
    MARK = re.compile(rb'^@@qemu-guard (\S+)\r?\n', re.MULTILINE)

    def __init__(self, qemu: str, kernel: str, initrd: str, log_dir: str,
                 name: str, cpu: str, smp: Union[int, str] = 1,
                 memory: int = 256, args: Sequence[str] = (),
                 reboots: bool = False):
        self.name = name
        self.console_log = os.path.join(log_dir, f'{name}-console.log')
        self._qemu_log = os.path.join(log_dir, f'{name}.log')
        self.boot_seconds = 0.0
        self._buffer = b''
        self.vm = QEMUMachine(qemu, name=name, log_dir=log_dir,
                              base_temp_dir=log_dir)
        self.vm.set_console()
        self.vm.add_args(
            '-nodefaults', '-no-user-config',
            *(() if reboots else ('-no-reboot',)),
            '-accel', 'tcg,thread=multi', '-cpu', cpu,
            '-smp', str(smp), '-m', str(memory),
            '-serial', f'file:{self.console_log}',
            '-kernel', kernel, '-initrd', initrd,
            '-append', KERNEL_OPTIONS, *args)

    def __enter__(self) -> 'Guest':
        return self

    def __exit__(self, exc_type, exc, traceback) -> None:
        try:
            self.vm.shutdown(hard=exc_type is not None, timeout=30)
        except QEMUMachineError:
            # It has been killed by now; a guest that died has told why.
            if exc_type is None:
                raise

    def boot(self, timeout: float = 180,
             prepare: Optional[Callable[['Guest'], None]] = None) -> None:
        """
        Start the guest and wait until it runs commands; prepare is called
        before its first instruction.
        """
        started = time.monotonic()
        if prepare:
            self.vm.add_args('-S')
        try:
            self.vm.launch()
            if prepare:
                prepare(self)
                self.vm.cmd('cont')
        except (QEMUMachineError, QMPError, OSError) as exc:
            raise GuestError('QEMU does not start: '
                             f'{self._qemu_output() or exc}') from exc
        self._receive(timeout, 'reach user space')
        self.boot_seconds = time.monotonic() - started

    def start(self, command: str) -> None:
        """Have a command run that the guest does not come back from."""
        self._send(command)

    def wait_ready(self, timeout: float = 180) -> None:
        """Wait until it runs commands, after a boot of its own."""
        self._receive(timeout, 'reach user space again')

    def boot_note(self) -> str:
        """How long it took to boot, in words"""
        return f'user space after {self.boot_seconds:.1f} s'

    def run(self, command: str, timeout: float = 120) -> Result:
        """Run one shell command in the guest."""
        if '\n' in command:
            raise ValueError('a command has to be one line')
        self._send(command)
        output, status = self._receive(timeout, f'finish: {command}')
        return Result(int(status), output)

    def must_run(self, command: str, timeout: float = 120) -> str:
        """Run a command that has to succeed, and return its output."""
        result = self.run(command, timeout)
        if result.status:
            raise GuestError(f'{command}: exit status {result.status}: '
                             f'{result.output.strip()}')
        return result.output

    def _qemu_output(self) -> str:
        """What QEMU itself said"""
        return _read(self._qemu_log).strip()

    def _last_words(self) -> str:
        """Why the guest died, as far as anybody said"""
        return (self._qemu_output() or ''.join(self.trouble()[:1])
                or 'neither QEMU nor the kernel said why')

    def console_text(self) -> str:
        """What the kernel wrote to its console until now"""
        return _read(self.console_log)

    def trouble(self, log: Optional[str] = None) -> List[str]:
        """
        Lines by which Linux says that it is in trouble, in a log or, if
        none is given, on the console
        """
        if log is None:
            log = self.console_text()
        return [line.strip() for line in log.splitlines()
                if TROUBLE.search(line)]

    def wait_for_console(self, pattern: str,
                         timeout: float = 60) -> Optional[str]:
        """Wait for a line on the console; None if it does not come."""
        deadline = time.monotonic() + timeout
        while True:
            for line in self.console_text().splitlines():
                if re.search(pattern, line):
                    return line.strip()
            if time.monotonic() > deadline or not self.vm.is_running():
                return None
            time.sleep(0.1)

    def _send(self, line: str) -> None:
        try:
            self.vm.console_socket.sendall(line.encode() + b'\n')
        except OSError as exc:
            raise GuestError(f'the guest is gone: {exc}') from exc

    def _receive(self, timeout: float, what: str):
        """Everything up to the next mark, and what stands behind the mark"""
        console = self.vm.console_socket
        deadline = time.monotonic() + timeout
        while True:
            match = self.MARK.search(self._buffer)
            if match:
                output = self._buffer[:match.start()]
                self._buffer = self._buffer[match.end():]
                # The last line end is init's own.
                text = output.decode(errors='replace').replace('\r', '')
                return text.removesuffix('\n'), match.group(1).decode()
            left = deadline - time.monotonic()
            if left <= 0:
                raise GuestError(f'the guest did not {what} '
                                 f'within {timeout:g} s')
            if not select.select([console], [], [], left)[0]:
                continue
            data = console.recv(65536)
            if not data:
                raise GuestError(f'the guest died and did not {what}: '
                                 f'{self._last_words()}')
            self._buffer += data
