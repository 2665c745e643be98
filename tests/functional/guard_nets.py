# SPDX-License-Identifier: GPL-2.0-or-later
"""Ways in which network cards reach memory."""

import os
import socket
import struct

from guard_paths import BAR, DRIVER, FILL, PORTS, PciPath, pattern
from guard_qtest import PAGE


class NetPath(PciPath):
    """A network card: a write is a frame received, a read is one sent."""

    who = 'dut'
    model = ''
    ours = theirs = wire = None

    def options(self):
        """The other end of the wire is ours."""
        folder = self.test.socket_dir().name
        self.ours, self.theirs = (os.path.join(folder, f'{self.name}.{end}')
                                  for end in ('test', 'qemu'))
        self.wire = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self.wire.bind(self.ours)
        self.wire.settimeout(2)
        self.test.addCleanup(self.wire.close)
        self.payload = b'\xff' * 6 + pattern(self.name, self.size - 6)
        return ('-netdev', 'dgram,id=n,local.type=unix,local.path='
                f'{self.theirs},remote.type=unix,remote.path={self.ours}',
                '-device', f'{self.model},addr=4,netdev=n,id=dut', *self.args)

    def arrive(self):
        """A frame comes by wire."""
        self.wire.sendto(self.payload, self.theirs)

    def sent(self):
        """The frame that went by wire, None if there was none."""
        try:
            return self.wire.recv(PAGE)
        except socket.timeout:
            return None


class E1000(NetPath):
    """Buffers of an e1000."""

    name = model = 'e1000'
    through = 'pci_dma_write(), pci_dma_read() of frames'
    # Rings of 8 descriptors
    RX, TX = DRIVER, DRIVER + PAGE

    def setup(self):
        """Receive everything, without the checksum."""
        super().setup()
        self.put(4, 0x100, 0x0400801a)
        self.put(4, 0x400, 0xa)

    def ring(self, registers, base):
        """Give it one descriptor."""
        for offset, value in ((0, base), (4, 0), (8, 128), (16, 0), (24, 1)):
            self.put(4, registers + offset, value)

    def receive(self, ring, addr):
        """One frame, by the first descriptor of a ring."""
        self.put(4, 0x2810, 0)
        self.put(4, 0x2818, 0)
        if ring == self.RX:
            self.qtest.write(ring, struct.pack('<QQ', addr, 0))
        self.arrive()
        self.ring(0x2800, ring)
        # The frame is received, or there are no buffers for it
        self.need(lambda: self.get(4, 0x2810) == 1 or
                  self.get(4, 0xc0) & 0x40)
        return True

    def write(self, addr):
        """One frame."""
        return self.receive(self.RX, addr)

    def send(self, ring, addr):
        """One frame, by the first descriptor of a ring."""
        self.put(4, 0x3810, 0)
        self.put(4, 0x3818, 0)
        if ring == self.TX:
            self.qtest.write(ring, self.descriptor(addr))
        self.ring(0x3800, ring)
        self.need(lambda: self.get(4, 0x3810) == 1)

    def descriptor(self, addr):
        """To send a frame."""
        return struct.pack('<QHBBBBH', addr, self.size, 0, 9, 0, 0, 0)

    def read(self, addr):
        """One frame."""
        self.send(self.TX, addr)
        return self.sent()


class E1000Ring(E1000):
    """Its descriptors."""

    name = 'e1000-ring'
    model = 'e1000'
    through = 'pci_dma_write(), pci_dma_read() of descriptors'
    size = read_size = 16
    buffer = DRIVER + 2 * PAGE

    def options(self):
        """A short frame."""
        options = super().options()
        self.payload = None
        return options

    def arrive(self):
        """A short frame."""
        self.wire.sendto(b'\xff' * 64, self.theirs)

    def before(self, _addr):
        """A buffer for it."""
        return struct.pack('<QQ', self.buffer, 0)

    def write(self, addr):
        """One frame; the descriptor is written back."""
        return self.receive(addr, None)

    def write_events(self, addr, start, end, access, _blocked):
        """
        All of it, and once more the status.  A descriptor that can't be read
        has no buffer, and the next one is looked at.
        """
        if access == 'none':
            return [event for at in range(addr, addr + 128, 16)
                    for event in ((at, 16, False), (at, 16, True),
                                  (at + 12, 1, True))]
        return [(addr, 16, True), (addr + 12, 1, True)]

    def secret(self, _addr):
        """To send a frame."""
        return struct.pack('<QHBBBBH', self.buffer, 64, 0, 1, 0, 0, 0)

    def read(self, addr):
        """Was the descriptor seen?"""
        self.qtest.write(self.buffer, bytes((FILL,)) * 64)
        self.wire.settimeout(0.3)
        self.send(addr, None)
        return self.secret(addr) if self.sent() else None


class E1000e(E1000):
    """An e1000e, which maps what it sends."""

    name = model = 'e1000e'
    through = 'pci_dma_write(); pci_dma_map(), net_tx_pkt'


class Igb(E1000):
    """An igb, which maps what it sends."""

    name = model = 'igb'
    through = E1000e.through
    machine = 'q35'

    def setup(self):
        """As for an e1000; link and queues are switched on as well."""
        super().setup()
        # Negotiate, by the PHY's first register
        self.put(4, 0x20, 1 << 26 | 1 << 21 | 0x1200)
        self.need(lambda: self.get(4, 8) & 2)
        self.put(4, 0xc028, 1 << 25)
        self.put(4, 0xe028, 1 << 25)


class Vmxnet3(NetPath):
    """A vmxnet3, which maps what it sends."""

    name = model = 'vmxnet3'
    through = E1000e.through
    bars = {0: BAR, 1: BAR + 0x1000}
    # What it shares with its driver, and rings of 8 descriptors
    SHARED, QUEUES, TX, TX_DONE, RX, RX_DONE = (
        DRIVER + i * PAGE for i in range(6))

    def activate(self):
        """From reset: receive everything."""
        write = self.qtest.write
        for base in self.TX, self.TX_DONE, self.RX, self.RX_DONE:
            write(base, bytes(PAGE))
        write(self.SHARED, bytes(PAGE))
        write(self.SHARED, struct.pack('<I', 0xbabefee1))
        write(self.SHARED + 40, struct.pack('<QIIIHBB', self.QUEUES, 0, 512,
                                            1500, 1, 1, 1))
        write(self.SHARED + 80, bytes((1, 1, 0)))
        write(self.SHARED + 120, struct.pack('<I', 0x1f))
        write(self.QUEUES, bytes(512))
        write(self.QUEUES + 16, struct.pack(
            '<QQQQQIII', self.TX, 0, self.TX_DONE, 0, 0, 8, 0, 8))
        write(self.QUEUES + 256 + 16, struct.pack(
            '<QQQQQIII', self.RX, 0, self.RX_DONE, 0, 0, 8, 0, 8))
        self.put(4, 0x1020, 0xcafe0002)
        self.put(4, 0x1010, self.SHARED)
        self.put(4, 0x1018, 0)
        self.put(4, 0x1020, 0xcafe0000)

    def done(self, ring):
        """The first descriptor's end."""
        self.need(lambda: self.qtest.get(4, ring + 12) >> 31)

    def write(self, addr):
        """One frame."""
        self.activate()
        self.qtest.write(self.RX, struct.pack('<QII', addr, PAGE | 1 << 31, 0))
        self.arrive()
        self.done(self.RX_DONE)
        return True

    def read(self, addr):
        """One frame."""
        self.activate()
        self.qtest.write(self.TX, struct.pack('<QII', addr,
                                              self.size | 1 << 14, 3 << 12))
        self.put(4, 0x600, 1)
        self.done(self.TX_DONE)
        return self.sent()


class Rtl8139(NetPath):
    """An rtl8139: a ring of bytes."""

    name = model = 'rtl8139'
    through = 'pci_dma_write(), pci_dma_read(), without descriptors'
    bars = {0: PORTS, 1: BAR}
    at = 4

    def receive_ready(self, base):
        """Reset, then receive everything from here on."""
        self.put(1, 0x37, 0x10)
        self.put(4, 0x30, base)
        self.put(1, 0x37, 0xc)
        self.put(4, 0x44, 0x188f)

    def write(self, addr):
        """One frame behind a header of 4 bytes."""
        self.receive_ready(addr - 4)
        self.arrive()
        self.need(lambda: not self.get(1, 0x37) & 1)
        return True

    def read(self, addr):
        """One frame."""
        self.receive_ready(DRIVER)
        self.put(4, 0x20, addr)
        self.put(4, 0x10, self.size)
        return self.sent()


PATHS = (E1000, E1000Ring, E1000e, Igb, Vmxnet3, Rtl8139)
