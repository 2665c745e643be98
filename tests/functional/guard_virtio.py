# SPDX-License-Identifier: GPL-2.0-or-later
"""Ways in which virtio devices reach memory."""

import os
import struct

from guard_nets import NetPath
from guard_paths import DRIVER, DiskPath, FILL, MIB, PciPath, pattern
from guard_qtest import ModernVirtio, PAGE, PciDevice

RING = MIB


class Modern(ModernVirtio):
    """Version 1, and no IOMMU."""

    FEATURES_HIGH = 1


class Packed(Modern):
    """The same with packed queues, from reset."""

    FEATURES_HIGH = 5

    def __init__(self, qtest, devfn, bar):
        PciDevice(qtest, devfn, {4: bar, 5: 0})
        # The common structure comes first in the BAR
        qtest.put(1, bar + 20, 0)
        super().__init__(qtest, devfn, bar)


class Balloon(ModernVirtio):
    """A balloon that takes hints on what migration need not copy."""

    ARGS = ('-object', 'iothread,id=io', '-device', 'virtio-balloon-pci,'
            'addr=4,disable-legacy=on,free-page-hint=on,iothread=io')

    def __init__(self, qtest):
        super().__init__(qtest, 4 << 3, 0xe0000000, features=1 << 3)
        self.hints = [self.queue(i, MIB + i * 16 * PAGE) for i in range(4)][3]
        self.ready()

    def asked(self):
        """The number of the migration that wants hints; 0 or 1 for none."""
        number = self.qtest.get(4, self.structures[4] + 8)
        return number if number > 1 else 0

    def hint(self, addr, size):
        """That memory is free; returns whether it was taken."""
        self.qtest.put(4, 2 * MIB, self.asked())
        self.hints.post((2 * MIB, 4, False))
        if not self.hints.wait():
            return False
        self.hints.post((addr, size, True))
        return self.hints.wait()


class VirtioPath(PciPath):
    """A virtio device, driven as version 1 has it."""

    who = 'dut'
    queues = 1
    queue = None
    device = None

    def setup(self):
        """Reset; rings of 64 KiB each."""
        self.device = Modern(self.qtest, self.devfn, self.bar)
        # The page of a ring that was used before says what was used
        self.qtest.write(RING, bytes(self.queues * 0x10000))
        self.queue = [self.device.queue(i, RING + i * 0x10000)
                      for i in range(self.queues)]
        self.device.ready()

    def recover(self):
        """A ring in protected memory stops the device."""
        self.qtest.put(1, self.device.common + 20, 0)
        self.setup()

    def request(self, *buffers, index=0):
        """One request, to its end."""
        self.queue[index].post(*buffers)
        self.under_way()
        self.need(lambda: self.queue[index].done() ==
                  self.queue[index].posted)


class VirtioBlk(DiskPath, VirtioPath):
    """Buffers of virtio-blk."""

    name = 'virtio-blk'
    through = 'virtqueue_map_iovec(): address_space_map()'
    args = ('-device', 'virtio-blk-pci,addr=4,disable-legacy=on,drive=d,'
            'id=dut')
    HEADER, STATUS = DRIVER, DRIVER + PAGE

    def transfer(self, addr, to_disk):
        """Sectors."""
        sector = self.sector if to_disk else 0
        self.qtest.write(self.HEADER, struct.pack('<IIQ', to_disk, 0, sector))
        self.qtest.write(self.STATUS, b'\xff')
        self.request((self.HEADER, 16, False), (addr, self.size, not to_disk),
                     (self.STATUS, 1, True))
        return not self.qtest.get(1, self.STATUS)


class VirtioBlkStatus(VirtioBlk):
    """Status byte and header of virtio-blk's requests."""

    name = 'virtio-blk-status'
    size = 1
    read_size = 16
    tells = False

    def options(self):
        """Not the disk."""
        options = super().options()
        self.payload = b'\0'
        return options

    def write(self, addr):
        """The status goes there."""
        self.qtest.write(self.HEADER, struct.pack('<IIQ', 0, 0, 0))
        self.request((self.HEADER, 16, False), (DRIVER + 2 * PAGE, 512, True),
                     (addr, 1, True))
        return True

    def secret(self, _addr):
        """A request for the first sector."""
        return struct.pack('<IIQ', 0, 0, 0)

    def read(self, addr):
        """Was the request obeyed?"""
        data = DRIVER + 2 * PAGE
        self.qtest.write(data, bytes(512))
        self.request((addr, 16, False), (data, 512, True),
                     (self.STATUS, 1, True))
        return self.secret(addr) if self.qtest.get(4, data) else None


class VirtioIndirect(VirtioBlk):
    """Indirect descriptors, by which the rest of the request is found."""

    name = 'virtio-indirect'
    through = 'virtqueue_pop(): address_space_cache_init() of a table'
    writes = False
    read_size = 48

    def setup(self):
        """With VIRTIO_RING_F_INDIRECT_DESC."""
        super().setup()
        common = self.device.common
        self.qtest.put(1, common + 20, 0)
        for status in 1, 3:
            self.qtest.put(1, common + 20, status)
        for half, value in enumerate((1 << 28, 1)):
            self.qtest.put(4, common + 8, half)
            self.qtest.put(4, common + 12, value)
        self.qtest.put(1, common + 20, 11)
        self.qtest.write(RING, bytes(0x10000))
        self.queue = [self.device.queue(0, RING)]
        self.device.ready()

    def secret(self, _addr):
        """The table."""
        return b''.join(struct.pack('<QIHH', *entry) for entry in (
            (self.HEADER, 16, 1, 1), (DRIVER + 2 * PAGE, 512, 3, 2),
            (self.STATUS, 1, 2, 0)))

    def read(self, addr):
        """Was the request obeyed?  If not, the device is broken."""
        queue = self.queue[0]
        data = DRIVER + 2 * PAGE
        self.qtest.write(self.HEADER, struct.pack('<IIQ', 0, 0, 0))
        self.qtest.write(data, bytes(512))
        self.qtest.write(queue.base, struct.pack('<QIHH', addr, 48, 4, 0))
        self.qtest.put(2, queue.avail + 4 +
                       2 * (queue.posted % queue.size), 0)
        queue.posted += 1
        self.qtest.put(2, queue.avail + 2, queue.posted)
        self.device.out(2, 0, 0)
        self.need(lambda: queue.done() == queue.posted or
                  self.qtest.get(1, self.device.common + 20) & 0x40)
        return self.secret(addr) if self.qtest.get(4, data) else None

    def read_events(self, addr, start, end, access, blocked):
        """A descriptor is an access; the first is the last."""
        if access == 'read':
            return []
        return [(addr + 16 * i, 16, False) for i in range(1 if blocked else 3)]


class VirtioNet(VirtioPath, NetPath):
    """Buffers of virtio-net."""

    name = 'virtio-net'
    through = 'virtqueue_map_iovec(): address_space_map()'
    model = 'virtio-net-pci,disable-legacy=on'
    queues = 2
    HEADER = DRIVER

    def write(self, addr):
        """One frame, behind its header."""
        self.queue[0].post((self.HEADER, 12, True), (addr, self.size, True))
        self.arrive()
        self.need(lambda: self.queue[0].done() == self.queue[0].posted)
        return True

    def read(self, addr):
        """One frame, behind its header."""
        self.qtest.write(self.HEADER, bytes(12))
        self.request((self.HEADER, 12, False), (addr, self.size, False),
                     index=1)
        return self.sent()


class VirtioScsi(DiskPath, VirtioPath):
    """Buffers of virtio-scsi."""

    name = 'virtio-scsi'
    through = 'dma_blk_io(): dma_memory_map(), SCSI on virtio'
    args = ('-device', 'virtio-scsi-pci,addr=4,disable-legacy=on,id=dut',
            '-device', 'scsi-hd,bus=dut.0,drive=d')
    queues = 3
    REQUEST, RESPONSE = DRIVER, DRIVER + PAGE

    def setup(self):
        """Hear of the reset."""
        super().setup()
        self.scsi(bytes(6))

    def scsi(self, command, *buffers, to_disk=False, response=RESPONSE):
        """One command; returns whether it succeeds."""
        self.qtest.write(self.REQUEST, bytes((1, 0, 0x40, 0, 0, 0, 0, 0)) +
                         bytes(11) + command.ljust(32, b'\0'))
        self.qtest.write(self.RESPONSE, b'\xff' * 108)
        out = buffers if to_disk else ()
        back = () if to_disk else buffers
        self.request((self.REQUEST, 51, False), *out, (response, 108, True),
                     *back, index=2)
        return self.qtest.read(self.RESPONSE + 10, 2) == bytes(2)

    def sectors(self, to_disk):
        """READ(10) or WRITE(10)."""
        return struct.pack('>BBIBHB', 0x2a if to_disk else 0x28, 0,
                           self.sector if to_disk else 0, 0,
                           self.size // 512, 0)

    def transfer(self, addr, to_disk):
        """Sectors."""
        return self.scsi(self.sectors(to_disk),
                         (addr, self.size, not to_disk), to_disk=to_disk)


class VirtioScsiResponse(VirtioScsi):
    """What virtio-scsi answers; it can't tell of an error there."""

    name = 'virtio-scsi-response'
    through = 'virtqueue_map_iovec(): address_space_map(), response'
    size = 108
    reads = False
    leaves = 'rest'
    tells = False

    def options(self):
        """Not the disk."""
        options = super().options()
        # A good end; sense data is not written
        self.payload = None
        return options

    def write(self, addr):
        """TEST UNIT READY."""
        self.scsi(bytes(6), response=addr)
        return True


class Virtio9p(VirtioPath):
    """A file of the host by 9p."""

    name = 'virtio-9p'
    through = 'virtqueue_map_iovec(): address_space_map(), 9p'
    file = None

    def options(self):
        """A folder with a file."""
        folder = self.test.scratch_file('shared')
        os.mkdir(folder)
        self.file = os.path.join(folder, 'file')
        self.payload = pattern(self.name, self.size)
        with open(self.file, 'wb') as file:
            file.write(self.payload)
        return ('-fsdev', f'local,id=f,path={folder},security_model=none',
                '-device', 'virtio-9p-pci,addr=4,disable-legacy=on,fsdev=f,'
                'mount_tag=t,id=dut')

    def message(self, kind, body, *buffers, answer=None):
        """One message; returns the head of its answer."""
        more = sum(size for _, size, write in buffers if not write)
        self.qtest.write(DRIVER, struct.pack(
            '<IBH', 7 + len(body) + more, kind, 1) + body)
        self.qtest.write(DRIVER + PAGE, bytes(64))
        out = [b for b in buffers if not b[2]]
        back = [b for b in buffers if b[2]]
        self.request((DRIVER, 7 + len(body), False), *out,
                     (DRIVER + PAGE, answer or 1024, True), *back)
        head = self.qtest.read(DRIVER + PAGE, 16)
        self.test.assertEqual(head[4], kind + 1)
        return head

    def setup(self):
        """Open the file."""
        super().setup()
        self.message(100, struct.pack('<IH8s', 8192, 8, b'9P2000.L'))
        self.message(104, struct.pack('<IIHHI', 0, 0xffffffff, 0, 0,
                                      0xffffffff))
        self.message(110, struct.pack('<IIHH4s', 0, 1, 1, 4, b'file'))
        self.message(12, struct.pack('<II', 1, os.O_RDWR))

    def write(self, addr):
        """The file's beginning."""
        self.message(116, struct.pack('<IQI', 1, 0, self.size),
                     (addr, self.size, True), answer=11)
        return True

    def read(self, addr):
        """To the file's second page."""
        with open(self.file, 'r+b') as file:
            os.pwrite(file.fileno(), bytes((FILL,)) * self.size, PAGE)
        self.message(118, struct.pack('<IQI', 1, PAGE, self.size),
                     (addr, self.size, False))
        with open(self.file, 'rb') as file:
            return os.pread(file.fileno(), self.size, PAGE)


class VirtioUsed(VirtioPath):
    """The used ring, by a cache that lives as long as the device runs."""

    name = 'virtio-used'
    through = 'MemoryRegionCache, virtqueue_push()'
    args = ('-device', 'virtio-rng-pci,addr=4,disable-legacy=on,id=dut')
    reads = False
    # An element and the index; the element comes first
    size = 12
    leaves = 'nothing'

    def write(self, addr):
        """A request, with the used ring at an address."""
        self.qtest.put(1, self.device.common + 20, 0)
        self.device = Modern(self.qtest, self.devfn, self.bar)
        self.qtest.write(RING, bytes(0x1000))
        queue = self.device.queue(0, RING)
        self.qtest.put(4, self.device.common + 48, addr)
        self.qtest.put(2, self.device.common + 28, 1)
        self.device.ready()
        # It ends when random bytes have come
        self.qtest.write(DRIVER, bytes(32))
        queue.post((DRIVER, 32, True))
        self.need(lambda: self.qtest.read(DRIVER, 32) != bytes(32))
        self.payload = struct.pack('<HHII', self.flags(addr), 1, 0, 32)
        return True

    def flags(self, addr):
        """The device does not write them here."""
        return struct.unpack('<H', self.test.peek(self.vm, addr, 2))[0]

    def write_events(self, addr, start, end, _access, _blocked):
        """Element and index; the index alone makes it valid."""
        return [(addr + 4, 8, True), (addr + 2, 2, True)]


class VirtioPacked(VirtioPath):
    """The one ring of a device with packed queues."""

    name = 'virtio-packed'
    through = 'MemoryRegionCache, virtqueue_packed_fill()'
    args = ('-device', 'virtio-rng-pci,addr=4,disable-legacy=on,packed=on,'
            'id=dut')
    reads = False
    size = 16
    # It looks again and again whether there is a request
    repeats = ('none',)
    BUFFER, EVENTS = DRIVER, DRIVER + PAGE

    def setup(self):
        """The queue is set up for each write."""
        PciPath.setup(self)

    def recover(self):
        """So is the device."""

    def before(self, _addr):
        """One buffer of 32 bytes, available in the first round."""
        return struct.pack('<QIHH', self.BUFFER, 32, 7, 0x82)

    def write(self, addr):
        """A request."""
        self.device = Packed(self.qtest, self.devfn, self.bar)
        put, common = self.qtest.put, self.device.common
        self.qtest.write(self.EVENTS, bytes(8))
        put(2, common + 22, 0)
        for register, value in ((32, addr), (40, self.EVENTS),
                                (48, self.EVENTS + 4)):
            put(4, common + register, value)
            put(4, common + register + 4, 0)
        put(2, common + 28, 1)
        self.device.ready()
        self.qtest.write(self.BUFFER, bytes(32))
        self.device.out(2, 0, 0)
        self.wait(lambda: self.qtest.read(self.BUFFER, 32) != bytes(32) or
                  self.test.heard(self.vm))
        return True

    def write_events(self, addr, start, end, access, _blocked):
        """Three fields; a descriptor that can't be read is no request."""
        if access == 'none':
            return [(addr + 14, 2, False)]
        return [(addr + 12, 2, True), (addr + 8, 4, True),
                (addr + 14, 2, True)]


PATHS = (VirtioBlk, VirtioBlkStatus, VirtioIndirect, VirtioNet, VirtioScsi,
         VirtioScsiResponse, Virtio9p, VirtioUsed, VirtioPacked)
