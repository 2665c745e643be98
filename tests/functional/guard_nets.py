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


PATHS = (E1000, E1000Ring, E1000e, Rtl8139)
