# SPDX-License-Identifier: GPL-2.0-or-later
"""Ways in which disks and their controllers reach memory."""

import struct

from guard_paths import BAR, DRIVER, DiskPath, FILL, PciPath, PORTS, pattern
from guard_qtest import PAGE, PciDevice


class Ide(DiskPath):
    """PIIX3's bus master."""

    name = 'ide'
    through = 'dma_blk_io(): dma_memory_map(), IDE on PCI'
    drive = 'if=ide'
    who = '/ide'

    def setup(self):
        """The bus master's ports."""
        PciDevice(self.qtest, 1 << 3 | 1, {4: PORTS}) \
            .config_write(2, 0x40, 0x8000)

    def transfer(self, addr, to_disk):
        """READ DMA or WRITE DMA."""
        qtest = self.qtest
        sector = self.sector if to_disk else 0
        qtest.write(DRIVER, struct.pack('<IHH', addr, self.size, 0x8000))
        qtest.out(4, PORTS + 4, DRIVER)
        qtest.out(1, PORTS + 2, 6)
        qtest.out(1, PORTS, 0 if to_disk else 8)
        for port, value in ((0x1f6, 0xe0), (0x1f2, self.size // 512),
                            (0x1f3, sector), (0x1f4, 0), (0x1f5, 0),
                            (0x1f7, 0xca if to_disk else 0xc8)):
            qtest.out(1, port, value)
        qtest.out(1, PORTS, 1 if to_disk else 9)
        self.under_way()
        self.need(lambda: not qtest.inp(1, 0x1f7) & 0x88
                  and not qtest.inp(1, PORTS + 2) & 1)
        qtest.out(1, PORTS, 0)
        return not qtest.inp(1, 0x1f7) & 1


class Ahci(DiskPath):
    """The AHCI controller of q35, by DMA."""

    name = 'ahci'
    through = 'dma_blk_io(): dma_memory_map(), AHCI'
    machine = 'q35'
    args = ('-device', 'ide-hd,drive=d,bus=ide.0')
    commands = 0x25, 0x35
    who = 'device['
    port = BAR + 0x100

    def setup(self):
        """Command list and received FIS."""
        PciDevice(self.qtest, 0x1f << 3 | 2, {5: BAR})
        self.qtest.put(4, BAR + 4, 1 << 31)
        for register, value in ((0, DRIVER), (4, 0), (8, DRIVER + PAGE),
                                (12, 0), (0x18, 0x11)):
            self.qtest.put(4, self.port + register, value)

    def recover(self):
        """After an error a port has to be started anew."""
        self.qtest.put(4, self.port + 0x18, 0)
        self.qtest.put(4, self.port + 0x18, 0x11)

    def transfer(self, addr, to_disk):
        """One command in slot 0."""
        qtest, table = self.qtest, DRIVER + 2 * PAGE
        sector = self.sector if to_disk else 0
        qtest.write(DRIVER, struct.pack(
            '<HHIQ', 5 | to_disk << 6, 1, 0, table))
        fis = bytes((0x27, 0x80, self.commands[to_disk], 0, sector, 0, 0,
                     0x40, 0, 0, 0, 0, self.size // 512, 0, 0, 0))
        qtest.write(table, fis.ljust(0x80, b'\0') +
                    struct.pack('<QII', addr, 0, self.size - 1))
        # The status register keeps an error until the next command ends
        qtest.put(4, self.port + 0x10, 0xffffffff)
        qtest.put(4, self.port + 0x38, 1)
        self.under_way()
        self.need(lambda: qtest.get(4, self.port + 0x10) & 0x40000001)
        return not qtest.get(4, self.port + 0x20) & 1


class AhciPio(Ahci):
    """The same by PIO, sector by sector; errors are not told."""

    name = 'ahci-pio'
    through = 'dma_buf_read(), dma_buf_write(): dma_memory_rw()'
    commands = 0x24, 0x34
    leaves = 'rest'
    tells = False


class Nvme(DiskPath, PciPath):
    """Reads and writes of an NVMe controller."""

    name = 'nvme'
    through = 'dma_blk_io(): dma_memory_map(), NVMe'
    args = ('-device', 'nvme,addr=4,drive=d,serial=1,id=dut')
    who = 'dut'
    bars = {0: BAR, 1: 0}
    # Queues: submission and completion for commands and for data
    ASQ, ACQ, SQ, CQ = (DRIVER + i * PAGE for i in range(4))
    heads = tails = None

    def setup(self):
        """Both pairs of queues."""
        PciPath.setup(self)
        self.start()

    def start(self, completions=ACQ):
        """From reset to ready."""
        self.put(4, 0x14, 0)
        self.need(lambda: not self.get(4, 0x1c) & 1)
        self.qtest.write(self.ACQ, bytes(PAGE))
        self.qtest.write(self.CQ, bytes(PAGE))
        self.put(4, 0x24, 15 << 16 | 15)
        for register, value in (0x28, self.ASQ), (0x30, completions):
            self.put(4, register, value)
            self.put(4, register + 4, 0)
        self.put(4, 0x14, 0x460001)
        self.need(lambda: self.get(4, 0x1c) & 1)
        self.tails, self.heads = [0, 0], [0, 0]

    def queues(self):
        """The pair for data."""
        self.command(0, 0x05, prp=self.CQ, words=(15 << 16 | 1, 1))
        self.command(0, 0x01, prp=self.SQ, words=(15 << 16 | 1, 1 << 16 | 1))

    def submit(self, queue, opcode, prp=0, words=(), nsid=0):
        """Give it a command."""
        base = (self.ASQ, self.SQ)[queue]
        words = (*words, 0, 0, 0, 0, 0, 0)[:6]
        self.qtest.write(base + 64 * self.tails[queue], struct.pack(
            '<BBHIQQQQ6I', opcode, 0, 1, nsid, 0, 0, prp, 0, *words))
        self.tails[queue] = (self.tails[queue] + 1) % 16
        self.put(4, 0x1000 + 8 * queue, self.tails[queue])

    def command(self, queue, *args, **kwargs):
        """Give it a command and wait; returns whether it succeeds."""
        self.submit(queue, *args, **kwargs)
        if queue:
            self.under_way()
        at = (self.ACQ, self.CQ)[queue] + 16 * self.heads[queue]
        self.need(lambda: self.qtest.get(4, at + 12))
        status = self.qtest.get(4, at + 12) >> 17
        # The ring is used once round for each pair of bits: clear it
        self.qtest.write(at, bytes(16))
        self.heads[queue] = (self.heads[queue] + 1) % 16
        self.put(4, 0x1004 + 8 * queue, self.heads[queue])
        if not self.heads[queue]:
            self.phase_over(queue)
        return not status & 0x7ff

    def phase_over(self, queue):
        """Entries are told by what is not 0; so the phase has to be 1."""
        raise NotImplementedError('too many commands for one round')

    def transfer(self, addr, to_disk):
        """Read or write, in queues made for it."""
        self.start()
        self.queues()
        return self.command(1, 1 if to_disk else 2, prp=addr, nsid=1,
                            words=(self.sector if to_disk else 0, 0,
                                   self.size // 512 - 1))


class NvmeIdentify(Nvme):
    """A command that answers with data of its own; errors are not told."""

    name = 'nvme-identify'
    through = 'dma_buf_read(): dma_memory_rw()'
    leaves = 'rest'
    tells = False
    reads = False
    size = PAGE

    def options(self):
        """What it answers is not known beforehand."""
        options = super().options()
        self.payload = None
        return options

    def write(self, addr):
        """Identify controller."""
        self.start()
        return self.command(0, 6, prp=addr, words=(1,))


class NvmeQueue(NvmeIdentify):
    """Entries in the completion and submission queues."""

    name = 'nvme-queue'
    through = 'pci_dma_write() of CQE, pci_dma_read() of SQE'
    size = 16
    read_size = 64
    tells = True
    reads = True

    def write(self, addr):
        """A command that completes there."""
        self.start(addr)
        self.submit(0, 6, prp=DRIVER + 8 * PAGE, words=(1,))
        self.need(lambda: self.qtest.get(4, self.bar + 0x1c) & 2 or
                  self.test.peek(self.vm, addr, 16) !=
                  bytes((FILL,)) * 16)
        return not self.get(4, 0x1c) & 2

    def secret(self, _addr):
        """Identify controller."""
        return struct.pack('<BBHIQQQQ6I', 6, 0, 1, 0, 0, 0,
                           DRIVER + 8 * PAGE, 0, 1, 0, 0, 0, 0, 0)

    def read(self, addr):
        """Was the command seen?"""
        old, self.ASQ = self.ASQ, addr
        self.start()
        self.ASQ = old
        self.qtest.write(DRIVER + 8 * PAGE, bytes(PAGE))
        self.put(4, 0x1000, 1)
        seen = self.wait(lambda: self.qtest.get(4, DRIVER + 8 * PAGE) or
                         self.get(4, 0x1c) & 2 or
                         self.qtest.get(4, self.ACQ + 12))
        self.test.assertTrue(seen, 'no answer')
        if self.qtest.get(4, DRIVER + 8 * PAGE):
            return self.secret(addr)
        return None


class NvmeMsix(NvmeIdentify):
    """MSI-X whose address is in RAM."""

    name = 'nvme-msix'
    through = 'msix_notify(): address_space_stl_le()'
    size = 4
    table = None

    def setup(self):
        """Enable it."""
        super().setup()
        cap = self.pci.capability(0x11)
        self.pci.config_write(2, cap + 2, 0x8000)
        self.table = self.pci.config_read(4, cap + 4) & ~7
        self.payload = (0xfeedface).to_bytes(4, 'little')

    def write(self, addr):
        """One command."""
        self.start()
        for i, value in enumerate((addr, 0, 0xfeedface, 0)):
            self.put(4, self.table + 4 * i, value)
        return self.command(0, 6, prp=DRIVER + 8 * PAGE, words=(1,))


class Sd(DiskPath, PciPath):
    """An SD card by SDMA; errors are not told."""

    name = 'sdhci-sdma'
    through = 'dma_memory_write(), dma_memory_read(), SDMA'
    args = ('-device', 'sdhci-pci,addr=4,id=dut', '-device',
            'sd-card,drive=d')
    who = 'dut'
    leaves = 'rest'
    tells = False
    size = read_size = 512
    dma = 0

    def card(self, index, argument, response=2, data=0):
        """One command to the card; returns its response."""
        self.put(2, 0x30, 0xffff)
        self.put(2, 0x32, 0xffff)
        self.put(4, 8, argument)
        self.put(2, 0xe, index << 8 | data << 5 | response)
        self.need(lambda: self.get(2, 0x30) & 0x8001)
        return self.get(4, 0x10)

    def setup(self):
        """Power, clock, and the card to the state in which it transfers."""
        super().setup()
        self.put(1, 0x2f, 1)
        for size, register, value in ((1, 0x29, 0xf), (2, 0x2c, 7),
                                      (2, 0x34, 0x1ff), (2, 0x36, 0x3ff)):
            self.put(size, register, value)
        self.card(0, 0, 0)
        self.card(8, 0x1aa)
        self.card(55, 0)
        self.card(41, 0xff8000)
        self.card(2, 0, 1)
        address = self.card(3, 0) & 0xffff0000
        self.card(7, address, 3)
        self.card(16, 512)

    def recover(self):
        """Whatever the card was at."""
        self.put(1, 0x2f, 6)
        self.card(12, 0, 3)

    def place(self, addr):
        """Tell the controller where."""
        self.put(4, 0, addr)

    def transfer(self, addr, to_disk):
        """One block."""
        self.put(1, 0x28, self.dma)
        self.place(addr)
        self.put(2, 4, 0x7000 | 512)
        self.put(2, 6, 1)
        self.put(2, 0xc, 3 | (0 if to_disk else 0x10))
        self.card(24 if to_disk else 17,
                  self.sector * 512 if to_disk else 0, 2, 1)
        self.need(lambda: self.get(2, 0x30) & 2)
        return not self.get(2, 0x32)


class SdAdma(Sd):
    """An SD card by ADMA2."""

    name = 'sdhci-adma'
    through = 'dma_memory_write(), dma_memory_read(), ADMA'
    tells = True
    dma = 0x10

    def place(self, addr):
        """A list of one descriptor."""
        self.qtest.write(DRIVER, struct.pack('<HHI', 0x23, 512, addr))
        self.put(4, 0x58, DRIVER)
        self.put(4, 0x5c, 0)


class Floppy(DiskPath):
    """A floppy, by the DMA controller of the ISA bus."""

    name = 'floppy'
    through = 'cpu_physical_memory_rw(), i8257'
    drive = 'if=floppy'
    leaves = 'rest'
    tells = False
    size = read_size = 512
    disk_size = 1440 * 1024
    # Track 0, head 1, sector 3
    sector = 18 + 2

    def command(self, *values):
        """Bytes to the controller."""
        for value in values:
            self.need(lambda: self.qtest.inp(1, 0x3f4) & 0xc0 == 0x80)
            self.qtest.out(1, 0x3f5, value)

    def results(self):
        """Bytes from the controller, as long as there are any."""
        found = []
        self.need(lambda: self.qtest.inp(1, 0x3f4) & 0xc0 == 0xc0)
        while self.qtest.inp(1, 0x3f4) & 0x40:
            found.append(self.qtest.inp(1, 0x3f5))
        return found

    def setup(self):
        """Motor on, head to track 0."""
        self.qtest.out(1, 0x3f2, 0x1c)
        self.command(7, 0)
        self.command(8)
        self.results()

    def transfer(self, addr, to_disk):
        """One sector by channel 2."""
        for port, value in ((0xa, 6), (0xc, 0),
                            (0xb, 0x4a if to_disk else 0x46),
                            (4, addr & 0xff), (4, addr >> 8 & 0xff),
                            (0x81, addr >> 16), (5, 0xff), (5, 1), (0xa, 2)):
            self.qtest.out(1, port, value)
        head, sector = (1, 3) if to_disk else (0, 1)
        self.command(0x45 if to_disk else 0x46, head << 2, 0, head, sector,
                     2, sector, 27, 255)
        return not self.results()[0] & 0xc0


class Lsi(PciPath):
    """A SCSI controller that runs scripts, one of which copies memory."""

    name = 'lsi53c895a'
    through = 'pci_dma_read(), pci_dma_write()'
    args = ('-device', 'lsi53c895a,addr=4,id=dut')
    bars = {0: PORTS, 1: BAR, 2: BAR + 0x10000}
    who = 'dut'
    PAYLOAD, BACK = DRIVER + PAGE, DRIVER + 2 * PAGE

    def copy(self, source, target):
        """Move memory, then interrupt."""
        self.qtest.write(DRIVER, struct.pack(
            '<5I', 0xc0000000 | self.size, source, target, 0x98080000, 0))
        self.put(4, 0x2c, DRIVER)
        self.need(lambda: self.get(1, 0x14) & 1)
        # Reading acknowledges it
        self.get(1, 0xc)

    def write(self, addr):
        """From elsewhere."""
        self.payload = pattern(self.name, self.size)
        self.qtest.write(self.PAYLOAD, self.payload)
        self.copy(self.PAYLOAD, addr)
        return True

    def read(self, addr):
        """To elsewhere."""
        self.copy(addr, self.BACK)
        return self.qtest.read(self.BACK, self.size)


class Megasas(PciPath):
    """Frames of a RAID controller: mapped, read, and written as well."""

    name = 'megasas'
    through = 'pci_dma_map() of a frame, stb_pci_dma()'
    args = ('-device', 'megasas,addr=4,id=dut')
    bars = {0: BAR, 2: PORTS, 3: BAR + 0x100000}
    who = 'dut'
    size = 32
    reads = False

    def before(self, _addr):
        """A command that there is not; its status is to come."""
        return bytes((0x7f, 0, 0xff, 0xff)).ljust(self.size, b'\0')

    def write(self, addr):
        """One command, done at once."""
        self.put(4, 0x40, addr)
        return True

    def write_events(self, addr, start, end, access, blocked):
        """
        What is only reported is mapped.  Otherwise nothing is, and it is told
        in two bytes that the device is busy.
        """
        if not blocked:
            return [(start, end - start, True)]
        context = [(addr + 8, 8, False)] if access == 'none' else []
        return context + [(addr + 3, 1, True), (addr + 2, 1, True)]


class Pvscsi(DiskPath, PciPath):
    """A disk at VMware's SCSI controller."""

    name = 'pvscsi'
    through = 'dma_blk_io(): dma_memory_map(), SCSI on pvscsi'
    args = ('-device', 'pvscsi,addr=4,id=dut',
            '-device', 'scsi-hd,bus=dut.0,drive=d,scsi-id=0')
    who = 'dut'
    STATE, REQUESTS, ENDS = (DRIVER + i * PAGE for i in range(3))

    def reset(self):
        """From reset to rings of a page each."""
        for page in self.STATE, self.REQUESTS, self.ENDS:
            self.qtest.write(page, bytes(PAGE))
        self.put(4, 0, 1)
        self.put(4, 0, 3)
        setup = struct.pack('<IIQ', 1, 1, self.STATE // PAGE)
        for page in self.REQUESTS, self.ENDS:
            setup += struct.pack('<Q', page // PAGE) + bytes(31 * 8)
        for (word,) in struct.iter_unpack('<I', setup):
            self.put(4, 4, word)

    def scsi(self, number, command, addr=0, size=0, to_disk=False):
        """One command, of that number since reset; does it succeed?"""
        flags = (16 if to_disk else 8) if size else 4
        self.qtest.write(self.REQUESTS + 128 * number, struct.pack(
            '<QQQQII16sB8s4B', 7, addr, size, 0, 0, flags, command,
            len(command), bytes(8), 0x20, 0, 0, 0))
        self.qtest.put(4, self.STATE, number + 1)
        self.put(4, 0x4018, 0)
        self.under_way()
        self.need(lambda: self.qtest.get(4, self.STATE + 12) == number + 1)
        return not self.qtest.get(4, self.ENDS + 32 * number + 20)

    def transfer(self, addr, to_disk):
        """Hear of the reset; then READ(10) or WRITE(10)."""
        self.reset()
        self.scsi(0, bytes(6))
        command = struct.pack('>BBIBHB', 0x2a if to_disk else 0x28, 0,
                              self.sector if to_disk else 0, 0,
                              self.size // 512, 0)
        return self.scsi(1, command, addr, self.size, to_disk)


PATHS = (Ide, Ahci, AhciPio, Nvme, NvmeIdentify, NvmeQueue, NvmeMsix, Sd,
         SdAdma, Floppy, Lsi, Megasas, Pvscsi)
