# SPDX-License-Identifier: GPL-2.0-or-later
"""
Ways in which devices reach memory: what test_subpage_paths.py needs of them.

A path makes a device write to an address, and read from one, with no more of
a driver than that takes.
"""

import os
import random
import time

from guard_qtest import MIB, PciDevice, SUBPAGE

# Where drivers keep what is not the target of an attack
DRIVER = 2 * MIB
BAR = 0xe0000000
PORTS = 0xc000
DEVFN = 4 << 3
# Nothing that a device writes by itself
FILL = 0xa7


def pattern(name, size):
    """Bytes that can't be mistaken for others."""
    return random.Random(name).randbytes(size)


class Path:
    """
    One way.  What a subclass says of itself is what a driver would notice;
    where it differs by what is protected, it overrides a method.
    """

    # What it is called, and the way that it takes through QEMU
    name = ''
    through = ''
    machine = 'pc'
    args = ()
    # The device's name in events, or a part of it; '' if none is known
    who = ''

    # A write and a read: their size, and how far behind an aligned address
    size = read_size = 512
    at = read_at = 0
    # What remains of a transfer that meets a protection: 'rest', all but what
    # is protected; 'nothing'
    leaves = 'rest'
    # Does the device tell its driver
    tells = False
    # What it can do
    writes = reads = True
    # The driver can go on while the VM is paused and continued
    pauses = True
    # The actions, or kinds of access, with which it tries again and again
    repeats = ()

    def __init__(self, test):
        self.test = test
        self.payload = None
        # What to do while a transfer is under way
        self.meanwhile = None
        self.vm = None
        self.qtest = None

    def options(self):
        """Options of QEMU."""
        return self.args

    def launch(self):
        """Run QEMU and set up the device."""
        self.vm = self.test.start(*self.options(), machine=self.machine)
        self.qtest = self.vm.qtest
        self.setup()

    def setup(self):
        """Make the device ready."""

    def recover(self):
        """After an error."""

    @staticmethod
    def piece(addr, size):
        """What to protect: the second piece, or where all of it lies in."""
        return (addr + (SUBPAGE if size > 2 * SUBPAGE else 0)) & -SUBPAGE

    # --- The device writes ---

    def before(self, _addr):
        """What memory is to hold before a write."""
        return bytes((FILL,)) * self.size

    def write(self, addr):
        """Have the device write; returns False if it reports an error."""
        raise NotImplementedError

    def arrived(self, data):
        """Is that what the device had to write?"""
        if self.payload is None:
            # Not known beforehand; but it is the same every time
            self.payload = data
            return data != self.before(0)
        return data == self.payload

    def write_events(self, addr, start, end, _access, _blocked):
        """Violations: the part of a write that is in the piece, in one."""
        start = max(addr, start)
        return [(start, min(addr + self.size, end) - start, True)]

    # --- The device reads ---

    def secret(self, addr):
        """What memory is to hold before a read."""
        return pattern(f'secret {addr}', self.read_size)

    def read(self, addr):
        """
        Have the device read; returns what it saw, or None if it saw nothing
        or reports an error.
        """
        raise NotImplementedError

    def read_events(self, addr, start, end, access, _blocked):
        """Violations: the part of a read that is in the piece, in one."""
        if access == 'read':
            return []
        start = max(addr, start)
        return [(start, min(addr + self.read_size, end) - start, False)]

    # --- For subclasses ---

    def under_way(self):
        """The device has been told, and has not answered yet."""
        if self.meanwhile:
            call, self.meanwhile = self.meanwhile, None
            call()

    def wait(self, condition, seconds=5):
        """Wait until something is so; False if it never is."""
        end = time.monotonic() + seconds
        while not condition():
            if time.monotonic() > end:
                return False
            if not self.test.keep_running(self.vm):
                time.sleep(0.002)
        return True

    def need(self, condition, seconds=5):
        """Wait until something is so, which has to come."""
        self.test.assertTrue(self.wait(condition, seconds),
                             f'{self.name}: the device does not answer')


class DiskPath(Path):
    """
    A disk: a write is its first sectors, a read is written from sector 64 on.
    """

    disk_size = MIB
    size = read_size = 1024
    sector = 64
    leaves = 'nothing'
    tells = True
    drive = 'if=none,id=d'
    # More of the drive's options
    more = ''
    image = None

    def options(self):
        """A disk with known contents."""
        self.image = self.test.scratch_file(f'{self.name}.img')
        self.payload = pattern('disk', self.size)
        with open(self.image, 'wb') as file:
            file.write(self.payload + bytes(self.disk_size - self.size))
        return ('-drive', f'{self.drive},format=raw,file={self.image}'
                f'{self.more}', *self.args)

    def written(self):
        """What the device wrote to the disk."""
        with open(self.image, 'rb') as file:
            return os.pread(file.fileno(), self.read_size, self.sector * 512)

    def unwritten(self):
        """As it was."""
        with open(self.image, 'r+b') as file:
            os.pwrite(file.fileno(), bytes((FILL,)) * self.read_size,
                      self.sector * 512)

    def transfer(self, addr, to_disk):
        """One command; returns whether it succeeds."""
        raise NotImplementedError

    def write(self, addr):
        """Sectors come from the disk."""
        return self.transfer(addr, False)

    def read(self, addr):
        """Sectors go to the disk; what is there counts, not the status."""
        self.unwritten()
        good = self.transfer(addr, True)
        data = self.written()
        if not good and data == bytes((FILL,)) * self.read_size:
            return None
        return data


class PciPath(Path):
    """A PCI device at slot 4 with its registers at BAR."""

    bars = {0: BAR}
    devfn = DEVFN
    bar = BAR
    pci = None

    def setup(self):
        """Map its registers."""
        self.pci = PciDevice(self.qtest, self.devfn, self.bars)

    def put(self, size, register, value):
        """Write a register."""
        self.qtest.put(size, self.bar + register, value)

    def get(self, size, register):
        """Read a register."""
        return self.qtest.get(size, self.bar + register)


class Edu(PciPath):
    """The plainest of all: DMA from and to a buffer of its own."""

    name = 'edu'
    through = 'pci_dma_rw()'
    args = ('-device', 'edu,addr=4,id=dut')
    who = 'dut'

    def dma(self, source, target, size, to_ram):
        """One transfer."""
        for register, value in (0x80, source), (0x88, target), (0x90, size):
            self.put(8, register, value)
        self.put(8, 0x98, 1 | to_ram << 1)
        self.need(lambda: not self.get(8, 0x98) & 1)

    def setup(self):
        """Fill the buffer."""
        super().setup()
        self.payload = pattern(self.name, self.size)
        self.qtest.write(DRIVER, self.payload)
        self.dma(DRIVER, 0x40000, self.size, False)

    def write(self, addr):
        """From the first half of the buffer."""
        self.dma(0x40000, addr, self.size, True)
        return True

    def read(self, addr):
        """By way of the second half."""
        self.dma(addr, 0x40800, self.size, False)
        self.dma(0x40800, DRIVER, self.size, True)
        return self.qtest.read(DRIVER, self.size)


class Msi(PciPath):
    """A message to an address in RAM instead of the interrupt controller."""

    name = 'msi'
    through = 'msi_send_message(): address_space_stl_le()'
    args = Edu.args
    who = 'dut'
    size = 4
    reads = False

    def write(self, addr):
        """One interrupt.  The upper half of MSI data is 0."""
        msi = self.pci.capability(5)
        wide = self.pci.config_read(2, msi + 2) & 0x80
        self.pci.config_write(4, msi + 4, addr)
        self.pci.config_write(4, msi + 8, 0)
        self.pci.config_write(2, msi + (12 if wide else 8), 0x1234)
        self.pci.config_write(2, msi + 2, 1)
        self.payload = (0x1234).to_bytes(4, 'little')
        self.put(4, 0x60, 1)
        self.put(4, 0x64, 1)
        return True


class FwCfg(Path):
    """fw_cfg's DMA: its directory of files; control structure as it reads."""

    name = 'fw_cfg'
    through = 'dma_memory_write(), dma_memory_read() to address_space_memory'
    tells = True
    read_size = 16
    # The directory
    KEY = 0x19

    def options(self):
        """So many files that the directory is long enough."""
        return sum((['-fw_cfg', f'name=opt/guard/{i},string={i}']
                    for i in range(10)), [])

    def control(self, target):
        """Select, and read to an address."""
        return (self.KEY << 16 | 10).to_bytes(4, 'big') + \
            self.size.to_bytes(4, 'big') + target.to_bytes(8, 'big')

    def start(self, control):
        """Give the device the structure's address."""
        self.qtest.out(4, 0x514, 0)
        self.qtest.out(4, 0x518, int.from_bytes(control.to_bytes(4, 'little'),
                                                'big'))

    def write(self, addr):
        """The directory goes there."""
        self.qtest.write(DRIVER, self.control(addr))
        self.start(DRIVER)
        return self.qtest.read(DRIVER, 4) == bytes(4)

    def secret(self, _addr):
        """The structure."""
        return self.control(DRIVER)

    def read(self, addr):
        """Did it obey?"""
        self.qtest.write(DRIVER, bytes(self.size))
        self.start(addr)
        if self.qtest.read(DRIVER, self.size) != bytes(self.size):
            return self.secret(addr)
        return None

    def read_events(self, addr, *args):
        """The device says in the structure how it went."""
        return super().read_events(addr, *args) + [(addr, 4, True)]


PATHS = (Edu, Msi, FwCfg)
