# SPDX-License-Identifier: GPL-2.0-or-later
"""Ways in which USB, sound and the IOMMU reach memory."""

import struct

from guard_paths import BAR, DRIVER, FILL, Path, PciPath, PORTS
from guard_qtest import PAGE

REMAP = 0xfed90000


class Xhci(PciPath):
    """Event ring and command ring of an xHCI."""

    name = 'xhci'
    through = 'dma_memory_write(), dma_memory_read() of TRBs'
    args = ('-device', 'qemu-xhci,addr=4,id=dut')
    bars = {0: BAR, 1: 0}
    who = 'dut'
    size = 16
    read_size = 32
    tells = True
    SEGMENTS, COMMANDS, EVENTS = (DRIVER + i * PAGE for i in range(3))
    NOOP = struct.pack('<QII', 0, 0, 23 << 10 | 1)

    def command(self, commands, events):
        """From reset to a NOOP; returns False after an error."""
        self.put(4, 0x40, 2)
        self.qtest.write(self.SEGMENTS, struct.pack('<QQ', events, 16))
        self.qtest.write(self.COMMANDS, self.NOOP + bytes(16))
        for register, value in ((0x1028, 1), (0x1030, self.SEGMENTS),
                                (0x1034, 0), (0x1038, events), (0x103c, 0),
                                (0x58, commands | 1), (0x5c, 0), (0x40, 1),
                                (0x2000, 0)):
            self.put(4, register, value)
        return not self.get(4, 0x44) & 0x1000

    def write(self, addr):
        """The event that a command has ended."""
        return self.command(self.COMMANDS, addr)

    def secret(self, _addr):
        """A command, and the end."""
        return self.NOOP + bytes(16)

    def read(self, addr):
        """Was it done?"""
        self.qtest.write(self.EVENTS, bytes(16))
        self.command(addr, self.EVENTS)
        if self.qtest.get(4, self.EVENTS + 12):
            return self.secret(addr)
        return None

    def read_events(self, addr, start, end, access, blocked):
        """A command is an access; the first that can't be read is the end."""
        if access == 'read':
            return []
        return [(addr + 16 * i, 16, False) for i in range(1 if blocked else 2)]


class XhciData(Xhci):
    """Data of a USB device by an xHCI."""

    name = 'xhci-data'
    through = 'usb_packet_map(): dma_memory_map()'
    args = ('-device', 'qemu-xhci,addr=4,id=dut', '-device',
            'usb-mouse,bus=dut.0')
    size = 18
    tells = False
    reads = False
    CONTEXTS, INPUT, OUTPUT, TRANSFERS = (
        DRIVER + i * PAGE for i in range(3, 7))
    SLOT = 1
    at_event = at_command = 0

    def event(self, kind):
        """The next event of a kind; returns its completion code."""
        def there():
            return self.qtest.get(4, self.at_event + 12)

        while True:
            self.need(there)
            word, status = there(), self.qtest.get(4, self.at_event + 8)
            self.at_event += 16
            if word >> 10 & 0x3f == kind:
                return status >> 24

    def order(self, parameter, kind):
        """One command; returns its completion code."""
        self.qtest.write(self.at_command, struct.pack(
            '<QII', parameter, 0, self.SLOT << 24 | kind << 10 | 1))
        self.at_command += 16
        self.put(4, 0x2000, 0)
        return self.event(33)

    def address(self):
        """Give the device an address, at whatever port it is."""
        for port in range(1, 9):
            self.qtest.write(self.INPUT, struct.pack(
                '<8I8I8I', 0, 3, 0, 0, 0, 0, 0, 0,
                1 << 27 | 1 << 20, port << 16, 0, 0, 0, 0, 0, 0,
                0, 8 << 16 | 4 << 3 | 3 << 1, self.TRANSFERS | 1, 0, 8,
                0, 0, 0))
            if self.order(self.INPUT, 11) == 1:
                return
        self.test.fail('no port has a device')

    def write(self, addr):
        """The device's descriptor."""
        for at in (self.EVENTS, self.COMMANDS, self.CONTEXTS, self.OUTPUT,
                   self.TRANSFERS):
            self.qtest.write(at, bytes(PAGE))
        self.at_event, self.at_command = self.EVENTS, self.COMMANDS
        self.qtest.write(self.SEGMENTS, struct.pack('<QQ', self.EVENTS, 64))
        self.qtest.write(self.CONTEXTS + 8 * self.SLOT,
                         struct.pack('<Q', self.OUTPUT))
        for register, value in ((0x40, 2), (0x1028, 1),
                                (0x1030, self.SEGMENTS), (0x1034, 0),
                                (0x1038, self.EVENTS), (0x103c, 0),
                                (0x58, self.COMMANDS | 1), (0x5c, 0),
                                (0x70, self.CONTEXTS), (0x74, 0),
                                (0x78, 1), (0x40, 1)):
            self.put(4, register, value)
        self.test.assertEqual(self.order(0, 9), 1)
        self.address()
        self.qtest.write(self.TRANSFERS, struct.pack(
            '<QIIQIIQII', 0x12000001000680, 8, 3 << 16 | 2 << 10 | 0x41,
            addr, self.size, 1 << 16 | 3 << 10 | 1,
            0, 0, 4 << 10 | 0x21))
        self.put(4, 0x2000 + 4 * self.SLOT, 1)
        return self.event(32) in (1, 13)


class Ohci(PciPath):
    """The page that an OHCI shares with its driver."""

    name = 'ohci'
    through = 'dma_memory_write(), dma_memory_read() of the HCCA'
    args = ('-device', 'pci-ohci,addr=4,id=dut')
    who = 'dut'
    at = 0x80
    size = 8
    tells = True
    reads = False
    # It has died by then
    pauses = False
    repeats = ('report',)

    def write(self, addr):
        """Run for a frame or more."""
        self.put(4, 8, 1)
        self.put(4, 0x18, addr - 0x80)
        self.put(4, 4, 0x80)
        self.need(lambda: self.get(4, 0xc) & 0x10 or
                  self.test.peek(self.vm, addr, self.size) !=
                  bytes((FILL,)) * self.size)
        good = not self.get(4, 0xc) & 0x10
        self.put(4, 4, 0xc0)
        self.put(4, 8, 1)
        return good

    def arrived(self, data):
        """A frame's number."""
        return data != bytes((FILL,)) * self.size

    def write_events(self, addr, start, end, access, blocked):
        """It reads it first, and ends where it can't."""
        return [(addr, 8, access == 'read')]


class Hda(PciPath):
    """Commands and responses of Intel HD Audio."""

    name = 'hda'
    through = 'stl_le_pci_dma(), ldl_le_pci_dma()'
    args = ('-audiodev', 'none,id=a', '-device', 'intel-hda,addr=4,id=dut',
            '-device', 'hda-output,audiodev=a')
    who = 'dut'
    at = 8
    size = 8
    read_at = read_size = 4
    tells = True
    # The identity of the codec
    VERB = 0xf0000

    def command(self, commands, responses):
        """One command, the first in the ring."""
        self.put(4, 8, 0)
        self.put(4, 8, 1)
        for size, register, value in (
                (4, 0x40, commands), (4, 0x50, responses), (2, 0x4a, 0x8000),
                (2, 0x4a, 0), (2, 0x58, 0x8000), (2, 0x5a, 0xff),
                (1, 0x5c, 6), (1, 0x4c, 2), (2, 0x48, 1)):
            self.put(size, register, value)

    def write(self, addr):
        """A response."""
        self.qtest.write(DRIVER, struct.pack('<II', 0, self.VERB))
        self.command(DRIVER, addr - 8)
        return not self.get(1, 0x5d) & 4

    def write_events(self, addr, start, end, _access, _blocked):
        """Two words."""
        return [(addr, 4, True), (addr + 4, 4, True)]

    def secret(self, _addr):
        """A command."""
        return struct.pack('<I', self.VERB)

    def read(self, addr):
        """Was that the command?"""
        self.write(DRIVER + PAGE + 8)
        want = self.qtest.read(DRIVER + PAGE + 8, 8)
        self.command(addr - 4, DRIVER + 2 * PAGE)
        got = self.qtest.read(DRIVER + 2 * PAGE + 8, 8)
        return self.secret(addr) if got == want else None


class Iommu(Path):
    """Requests to an Intel IOMMU to write a word when they are done."""

    name = 'intel-iommu'
    through = 'dma_memory_write(), dma_memory_read() of invalidation'
    machine = 'q35'
    args = ('-device', 'intel-iommu,id=dut')
    size = 4
    read_size = 16
    tells = True

    def invalidate(self, queue):
        """Have one descriptor done; returns False after an error."""
        for size, register, value in ((4, 0x18, 0), (4, 0x34, 0x70),
                                      (8, 0x88, 0), (8, 0x90, queue),
                                      (4, 0x18, 1 << 26), (8, 0x88, 16)):
            self.qtest.put(size, REMAP + register, value)
        return not self.qtest.get(4, REMAP + 0x34) & 0x10

    @staticmethod
    def descriptor(addr):
        """Wait, and write a word."""
        return struct.pack('<IIQ', 0x25, 0xfeedface, addr)

    def write(self, addr):
        """A word."""
        self.payload = struct.pack('<I', 0xfeedface)
        self.qtest.write(DRIVER, self.descriptor(addr))
        return self.invalidate(DRIVER)

    def secret(self, _addr):
        """A descriptor."""
        return self.descriptor(DRIVER)

    def read(self, addr):
        """Was it done?"""
        self.qtest.write(DRIVER, bytes(4))
        self.invalidate(addr)
        return self.secret(addr) if self.qtest.get(4, DRIVER) else None


class AmdIommu(Path):
    """Requests to an AMD IOMMU to write a word when they are done."""

    name = 'amd-iommu'
    through = Iommu.through
    machine = 'q35'
    args = ('-device', 'amd-iommu,id=dut')
    size = 8
    read_size = 16
    REGISTERS = 0xfed80000

    def invalidate(self, commands):
        """Have one command done."""
        for register, value in ((0x18, 0), (0x8, commands | 8 << 56),
                                (0x18, 0x1001), (0x2008, 16)):
            self.qtest.put(8, self.REGISTERS + register, value)

    @staticmethod
    def command(addr):
        """Wait, and write a word."""
        return struct.pack('<QQ', 1 << 60 | addr | 1, 0xfeedfacecafe)

    def write(self, addr):
        """A word."""
        self.payload = struct.pack('<Q', 0xfeedfacecafe)
        self.qtest.write(DRIVER, self.command(addr))
        self.invalidate(DRIVER)
        return True

    def secret(self, _addr):
        """A command."""
        return self.command(DRIVER)

    def read(self, addr):
        """Was it done?"""
        self.qtest.write(DRIVER, bytes(8))
        self.invalidate(addr)
        return self.secret(addr) if self.qtest.get(8, DRIVER) else None


class Hpet(Path):
    """Interrupts of a HPET, as messages to an address in RAM."""

    name = 'hpet'
    through = 'address_space_stl_le() to address_space_memory'
    args = ('-global', 'hpet.msi=on')
    size = 4
    reads = False
    REGISTERS = 0xfed00000

    def write(self, addr):
        """One interrupt."""
        self.payload = struct.pack('<I', 0xfeedface)
        at = self.REGISTERS
        for register, value in ((0x10, 0), (0x110, addr << 32 | 0xfeedface),
                                (0x100, 0x4004), (0xf0, 0), (0x108, 1000),
                                (0x10, 1)):
            self.qtest.put(8, at + register, value)
        self.need(lambda: self.test.peek(self.vm, addr, 4) !=
                  self.before(addr) or self.test.heard(self.vm))
        return True


class Uhci(PciPath):
    """A transfer descriptor of a UHCI; no device answers."""

    name = 'uhci'
    through = 'pci_dma_write(), pci_dma_read() of TDs'
    args = ('-device', 'piix3-usb-uhci,addr=4,id=dut')
    bars = {4: PORTS}
    who = 'dut'
    size = 16
    reads = False
    # In each frame, as it stays active
    repeats = ('discard', 'fault', 'pause', 'report')

    def before(self, _addr):
        """Active; the last one; a packet of no bytes to device 1."""
        return struct.pack('<IIII', 1, 1 << 23, 0x7ff << 21 | 1 << 8 | 0x69,
                           0)

    def write(self, addr):
        """Run for some frames."""
        self.qtest.write(DRIVER, struct.pack('<I', addr) * 1024)
        self.qtest.out(2, PORTS, 4)
        self.qtest.out(2, PORTS, 0)
        self.qtest.out(4, PORTS + 8, DRIVER)
        self.qtest.out(2, PORTS, 1)
        before = self.before(addr)
        self.need(lambda: self.test.peek(self.vm, addr, 16) != before or
                  self.test.heard(self.vm))
        self.qtest.out(2, PORTS, 0)
        return True

    def write_events(self, addr, start, end, access, blocked):
        """The status; a descriptor that can't be read is not active."""
        if access == 'none':
            return [(addr, 16, False)]
        return [(addr + 4, 4, True)]


class EhciData(PciPath):
    """Data of a USB device by an EHCI, and a request to the device."""

    name = 'ehci-data'
    through = 'usb_packet_map(): dma_memory_map(), EHCI'
    args = ('-device', 'usb-ehci,addr=4,id=dut', '-device',
            'usb-mouse,bus=dut.0')
    who = 'dut'
    # The end is behind the piece, so that it takes two maps
    at = 0x78
    size = 18
    read_size = 8
    HEAD, QUEUE, TRANSFERS, PACKET, DATA = (
        DRIVER + i * PAGE for i in range(5))
    # Send the descriptor of the device
    REQUEST = struct.pack('<BBHHH', 0x80, 6, 0x100, 0, 18)
    NONE = 1
    HALTED = 0x40

    def queue(self):
        """A queue of the device, which follows the head and ends the list."""
        return struct.pack('<12I', self.HEAD | 2, 64 << 16 | 6 << 12, 1 << 30,
                           0, self.TRANSFERS, self.NONE, 0, 0, 0, 0, 0, 0)

    def status(self, transfer):
        """How one of the three went."""
        return self.qtest.get(4, self.TRANSFERS + 32 * transfer + 8)

    def control(self, queue=QUEUE, packet=PACKET, data=DATA):
        """From reset to a request's end; False if the controller gives up."""
        # No transfer gets so far, but each takes them over into the queue
        pages = [self.DATA + i * PAGE for i in range(1, 5)]
        for i, (token, buffer) in enumerate((
                (8 << 16 | 2 << 8, packet),
                (1 << 31 | 18 << 16 | 1 << 8, data),
                (1 << 31 | 1 << 15, 0))):
            at = self.TRANSFERS + 32 * i
            self.qtest.write(at, struct.pack(
                '<8I', at + 32 if i < 2 else self.NONE, self.NONE,
                token | 3 << 10 | 0x80, buffer, *pages))
        self.qtest.write(self.HEAD, struct.pack(
            '<12I', queue | 2, 1 << 15 | 2 << 12, 1 << 30, 0, self.NONE,
            self.NONE, self.HALTED, 0, 0, 0, 0, 0))
        # The first port has the device, which gets address 0 by the reset
        for register, value in ((0x20, 2), (0x60, 1), (0x64, 0x1100),
                                (0x64, 0x1000), (0x38, self.HEAD),
                                (0x20, 0x21)):
            self.put(4, register, value)
        # The interrupt at the end or after an error; or it has halted
        self.need(lambda: self.get(4, 0x24) & 0x1001)
        good = bool(self.get(4, 0x24) & 1)
        self.put(4, 0x20, 2)
        return good

    def write(self, addr):
        """The device's descriptor."""
        self.qtest.write(self.QUEUE, self.queue())
        self.qtest.write(self.PACKET, self.REQUEST)
        return self.control(data=addr) and not self.status(2) & 0xff

    def secret(self, _addr):
        """A request."""
        return self.REQUEST

    def read(self, addr):
        """Was it obeyed?  Zeroes are one that the device does not know."""
        self.qtest.write(self.QUEUE, self.queue())
        self.qtest.write(self.DATA, bytes(18))
        self.control(packet=addr)
        if self.qtest.get(4, self.DATA):
            return self.secret(addr)
        self.test.assertTrue(self.status(1) & self.HALTED)
        return None


class Ehci(EhciData):
    """A queue of an EHCI, as far as it lies in the piece."""

    name = 'ehci'
    through = 'dma_memory_write(), dma_memory_read() of a QH'
    # Its last four words are behind the piece
    at = read_at = 0x60
    size = read_size = 48
    # It looks at the queue in each frame
    repeats = ('report',)

    def before(self, _addr):
        """As the driver makes it."""
        return self.queue()

    def write(self, addr):
        """What comes of the queue when it is at work."""
        self.qtest.write(self.PACKET, self.REQUEST)
        # Without the part that it can't read it does nothing at all
        self.leaves = 'rest' if self.control(queue=addr) else 'nothing'
        return True

    @staticmethod
    def parts(addr, start, end, first, write):
        """One access for each word of it from one on that is in the piece."""
        return [(at, 4, write) for at in range(addr + 4 * first, addr + 48, 4)
                if start <= at < end]

    def write_events(self, addr, start, end, access, blocked):
        """Before and after each of three transfers, without the first words"""
        reads = []
        if access == 'none':
            reads = self.parts(addr, start, end, 0, False)
            if blocked:
                return reads
        return reads + 6 * self.parts(addr, start, end, 3, True)

    def secret(self, _addr):
        """The same."""
        return self.queue()

    def read(self, addr):
        """Was it found?  Zeroes lead to where the controller gives up."""
        self.qtest.write(self.DATA, bytes(18))
        self.write(addr)
        return self.secret(addr) if self.qtest.get(4, self.DATA) else None

    read_events = write_events


PATHS = (Xhci, XhciData, Ohci, Hda, Iommu, AmdIommu, Hpet, Uhci, EhciData,
         Ehci)
