# SPDX-License-Identifier: GPL-2.0-or-later
"""One thread of another process, stopped where a test wants it."""

import ctypes
import os
import re
import signal
import subprocess
import time
from unittest import SkipTest

# See ptrace(2) and sys/ptrace.h
CONT, SINGLESTEP, GETREGS, SETREGS, DETACH = 7, 9, 12, 13, 17
SEIZE, INTERRUPT = 0x4206, 0x4207
WALL = 0x40000000
# struct user_regs_struct of x86-64, in 64-bit words
REGISTERS, RIP, RDX = 27, 16, 12

LIBC = ctypes.CDLL(None, use_errno=True)
LIBC.ptrace.argtypes = (ctypes.c_long, ctypes.c_long, ctypes.c_void_p,
                        ctypes.c_void_p)
LIBC.ptrace.restype = ctypes.c_long


class Thread:
    """
    A thread that is traced.  Use it in a with statement, on one Python thread.

    A breakpoint is met by all threads of the process, and ends it if another
    one comes by: choose a function that others don't get to.
    """

    def __init__(self, pid, tid):
        self.pid, self.tid = pid, tid
        self.stopped = False

    def ptrace(self, request, data=None):
        """One call, which has to succeed."""
        if LIBC.ptrace(request, self.tid, None, data) == -1:
            error = ctypes.get_errno()
            raise OSError(error, os.strerror(error), f'ptrace {request:#x}')

    def wait(self, seconds=10):
        """Until it stops; returns the signal."""
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            pid, status = os.waitpid(self.tid, os.WNOHANG | WALL)
            if pid:
                assert os.WIFSTOPPED(status), status
                self.stopped = True
                return os.WSTOPSIG(status)
            time.sleep(0.001)
        raise TimeoutError(f'thread {self.tid} did not stop')

    def __enter__(self):
        if os.uname().machine != 'x86_64':
            raise SkipTest('reads registers as x86-64 has them')
        try:
            self.ptrace(SEIZE)
        except PermissionError as error:
            raise SkipTest(f'this system does not allow to trace: {error}')
        self.stop()
        return self

    def __exit__(self, *_):
        self.resume()

    def stop(self):
        """Stop it wherever it is."""
        self.ptrace(INTERRUPT)
        self.wait()

    def resume(self):
        """Let go of it, for good."""
        if self.stopped:
            self.stopped = False
            self.ptrace(DETACH)

    def registers(self):
        """All of them, by the numbers above."""
        registers = (ctypes.c_ulonglong * REGISTERS)()
        self.ptrace(GETREGS, ctypes.byref(registers))
        return registers

    def write(self, addr, data):
        """Write memory, code as well; returns what was there."""
        with open(f'/proc/{self.tid}/mem', 'r+b', buffering=0) as memory:
            memory.seek(addr)
            before = memory.read(len(data))
            memory.seek(addr)
            memory.write(data)
        return before

    def function(self, name):
        """Where a function of the program begins."""
        path = os.readlink(f'/proc/{self.pid}/exe')
        try:
            symbols = subprocess.run(['nm', path], capture_output=True,
                                     text=True, check=True).stdout
        except FileNotFoundError:
            raise SkipTest('needs nm, which comes with binutils')
        # A clone with other arguments has another name
        found = re.search(rf'^([0-9a-f]+) [tT] {name}$', symbols,
                          re.MULTILINE)
        if not found:
            raise SkipTest(f'{path} has no symbol {name}')
        with open(path, 'rb') as program:
            # ET_DYN: loaded anywhere
            fixed = program.read(18)[16] != 3
        with open(f'/proc/{self.pid}/maps', encoding='ascii') as maps:
            base = next(int(line.split('-')[0], 16) for line in maps
                        if line.rstrip().endswith(path))
        return int(found[1], 16) + (0 if fixed else base)

    def run_to(self, addr, start, condition):
        """
        Let it run, call start(), and stop where the function at addr is called
        in a way for which condition() of the registers holds.
        """
        before = self.write(addr, b'\xcc')
        try:
            self.ptrace(CONT)
            self.stopped = False
            start()
            while True:
                got = self.wait()
                assert got == signal.SIGTRAP, got
                registers = self.registers()
                registers[RIP] -= 1
                assert registers[RIP] == addr, registers[RIP]
                self.ptrace(SETREGS, ctypes.byref(registers))
                if condition(registers):
                    return
                self.write(addr, before)
                self.ptrace(SINGLESTEP)
                got = self.wait()
                assert got == signal.SIGTRAP, got
                self.write(addr, b'\xcc')
                self.ptrace(CONT)
                self.stopped = False
        finally:
            if not self.stopped:
                self.stop()
            self.write(addr, before)
