#!/usr/bin/env python3
# SPDX-License-Identifier: GPL-2.0-or-later
"""
What becomes of QEMU and of a device after a transfer was refused.

Each test makes the same moves without protection first.
"""

import struct

from guard_qtest import (GuardDeviceTest, LegacyVirtio, MIB, ModernVirtio,
                         PAGE, PciDevice, SUBPAGE)

BAR = 0xfe400000
PORTS = 0xc000
DRIVER = 2 * MIB
MMIO = 0xd0000000


class Modern(ModernVirtio):
    """Version 1, no IOMMU, and a device's own features."""

    FEATURES_HIGH = 1


class Balloon(Modern):
    """With the queue for statistics."""

    FEATURES_LOW = 2


class Refused(GuardDeviceTest):
    """Devices, and what the guest can do with them after a refusal."""

    def file(self):
        """A disk that can only be read, as node d."""
        return ('-blockdev', 'driver=file,node-name=d,read-only=on,filename='
                + self.disk())

    def virtio_blk(self, *args, device='', node='d'):
        """A virtio-blk with its queue at 1 MiB; the VM, it and the queue."""
        vm = self.start(*args, *self.file(), '-device', 'virtio-blk-pci,'
                        f'addr=4,disable-modern=on,drive={node}{device}')
        blk = LegacyVirtio(vm.qtest, 4 << 3, PORTS)
        queue = blk.queue(0, MIB)
        blk.ready()
        return vm, blk, queue

    @staticmethod
    def read(queue, *buffers):
        """Post a read of the first sectors to buffers of (addr, size)."""
        queue.qtest.write(DRIVER, struct.pack('<IIQ', 0, 0, 0))
        queue.qtest.write(DRIVER + PAGE, b'\xff')
        queue.post((DRIVER, 16, False),
                   *((addr, size, True) for addr, size in buffers),
                   (DRIVER + PAGE, 1, True))

    def status(self, vm):
        """The status byte of the last request."""
        return vm.qtest.get(1, DRIVER + PAGE)

    def test_many_pieces(self):
        """However much of a buffer is protected, the request ends."""
        vm, _, queue = self.virtio_blk()
        size = 64 * PAGE
        for pages, piece, step in (64, PAGE, PAGE), (40, SUBPAGE, PAGE), \
                                  (2, PAGE, 2 * PAGE), (32, PAGE, 2 * PAGE), \
                                  (1024, SUBPAGE, 2 * SUBPAGE):
            before = bytes(range(1, 256)) * (size // 255 + 1)
            vm.qtest.write(self.TARGET, before[:size])
            reply = vm.qmp('subpage-set-access', {
                'regions': [{'addr': self.TARGET + i * step, 'size': piece,
                             'access': 'read'} for i in range(pages)],
                'action': 'discard'})
            self.assertIn('return', reply)
            self.violations(vm)
            self.read(queue, (self.TARGET, size))
            self.assertTrue(queue.wait(), (pages, piece))
            self.assertEqual(self.status(vm), 1)
            self.assertEqual(vm.qtest.read(self.TARGET, size), before[:size])
            self.blamed(vm, self.TARGET, size, True, 'virtio-backend')
            self.lifted(vm)
            self.read(queue, (self.TARGET, size))
            self.assertTrue(queue.wait())
            self.assertEqual(self.status(vm), 0)
            self.assertEqual(vm.qtest.read(self.TARGET, size), b'\xd5' * size)

    def test_rng_pieces(self):
        """A device without errors fills everything between the pieces."""
        vm = self.start('-device', 'virtio-rng-pci,addr=4,disable-modern=on')
        rng = LegacyVirtio(vm.qtest, 4 << 3, PORTS)
        queue = rng.queue(0, MIB)
        rng.ready()
        size = 2 * PAGE
        reply = vm.qmp('subpage-set-access', {
            'regions': [{'addr': self.TARGET + i * 2 * SUBPAGE,
                         'size': SUBPAGE, 'access': 'none'}
                        for i in range(size // SUBPAGE // 2)],
            'action': 'discard'})
        self.assertIn('return', reply)
        got = 0
        while not got:
            queue.post((self.TARGET, size, True))
            self.assertTrue(queue.wait())
            got = vm.qtest.get(4, queue.used + 8 + 8 * ((queue.posted - 1) %
                                                        queue.size))
        self.lifted(vm)
        for at in range(0, got - SUBPAGE, 2 * SUBPAGE):
            self.assertEqual(vm.qtest.read(self.TARGET + at, SUBPAGE),
                             bytes(SUBPAGE))
            self.assertNotEqual(
                vm.qtest.read(self.TARGET + at + SUBPAGE, 16), bytes(16))

    def test_reported_piece(self):
        """Beside a piece that is refused, one that is only told of."""
        vm = self.start('-device', 'virtio-rng-pci,addr=4,disable-modern=on')
        rng = LegacyVirtio(vm.qtest, 4 << 3, PORTS)
        queue = rng.queue(0, MIB)
        rng.ready()
        for piece, action in (0, 'report'), (1, 'discard'):
            self.assertIn('return', vm.qmp('subpage-set-access', {
                'regions': [{'addr': self.TARGET + piece * 2 * SUBPAGE,
                             'size': SUBPAGE, 'access': 'read'}],
                'action': action}))
        got = 0
        while got < 3 * SUBPAGE:
            vm.qtest.write(self.TARGET, bytes(4 * SUBPAGE))
            self.violations(vm)
            queue.post((self.TARGET, 4 * SUBPAGE, True))
            self.assertTrue(queue.wait())
            got = vm.qtest.get(4, queue.used + 8 + 8 * ((queue.posted - 1) %
                                                        queue.size))
        found = self.violations(vm)
        self.assertEqual([(e['addr'] - self.TARGET, e['action'])
                          for e in found],
                         [(0, 'report'), (2 * SUBPAGE, 'discard')])
        arrived = [vm.qtest.read(self.TARGET + i * SUBPAGE, SUBPAGE) !=
                   bytes(SUBPAGE) for i in range(3)]
        self.assertEqual(arrived, [True, True, False])

    def test_too_much(self):
        """Bounce buffers have a limit; then it is the device's error."""
        vm, blk, queue = self.virtio_blk(device=',queue-size=256')
        self.armed(vm, self.TARGET + MIB)
        self.read(queue, *[(self.TARGET, 2 * MIB)] * 30)
        self.assertTrue(queue.wait())
        self.assertEqual(self.status(vm), 1)
        self.violations(vm)
        self.read(queue, *[(self.TARGET, 2 * MIB)] * 40)
        self.assertFalse(queue.wait(1))
        self.blamed(vm, self.TARGET + MIB, SUBPAGE, True, 'virtio-backend')
        # A reset, and it works as before
        blk.status(0)
        vm.qtest.write(MIB, bytes(0x10000))
        blk = LegacyVirtio(vm.qtest, 4 << 3, PORTS)
        queue = blk.queue(0, MIB)
        blk.ready()
        for _ in range(5):
            self.read(queue, *[(self.TARGET, 2 * MIB)] * 30)
            self.assertTrue(queue.wait())
            self.assertEqual(self.status(vm), 1)

    def ide_read(self, vm):
        """READ DMA, and the bus master is stopped at once."""
        qtest = vm.qtest
        PciDevice(qtest, 1 << 3 | 1, {4: PORTS}).config_write(2, 0x40, 0x8000)
        qtest.write(DRIVER, struct.pack('<IHH', self.TARGET, 512, 0x8000))
        qtest.out(4, PORTS + 4, DRIVER)
        qtest.at_once(f'outb {PORTS + 2:#x} 6', f'outb {PORTS:#x} 8',
                      'outb 0x1f6 0xe0', 'outb 0x1f2 1', 'outb 0x1f3 0',
                      'outb 0x1f4 0', 'outb 0x1f5 0', 'outb 0x1f7 0xc8',
                      f'outb {PORTS:#x} 9', f'outb {PORTS:#x} 0')

    def test_ide_stopped(self):
        """A refused transfer is drained like another."""
        vm = self.start('-drive', 'if=ide,format=raw,file=' + self.disk())
        for protected in False, True:
            if protected:
                vm.qtest.write(self.TARGET, bytes(512))
                self.armed(vm, self.TARGET)
            self.ide_read(vm)
            self.assertEqual(vm.cmd('query-status')['status'], 'running')
            self.assertEqual(vm.qtest.read(self.TARGET, 512),
                             (b'\0' if protected else b'\xd5') * 512)
        self.blamed(vm, self.TARGET, SUBPAGE, True, 'ide')

    def test_ahci_reset(self):
        """A refused transfer is cancelled like another."""
        vm = self.start('-blockdev', 'driver=file,node-name=d,filename=' +
                        self.disk(), '-device', 'ide-hd,drive=d,bus=ide.0',
                        machine='q35')
        qtest, port, table = vm.qtest, BAR + 0x100, DRIVER + 2 * PAGE
        PciDevice(qtest, 0x1f << 3 | 2, {5: BAR})
        qtest.put(4, BAR + 4, 1 << 31)
        for register, value in ((0, DRIVER), (4, 0), (8, DRIVER + PAGE),
                                (12, 0), (0x18, 0x11)):
            qtest.put(4, port + register, value)
        fis = bytes((0x27, 0x80, 0x25, 0, 0, 0, 0, 0x40, 0, 0, 0, 0, 1))
        for protected in False, True:
            if protected:
                self.armed(vm, self.TARGET)
            qtest.write(DRIVER, struct.pack('<HHIQ', 5, 1, 0, table))
            qtest.write(table, fis.ljust(0x80, b'\0') +
                        struct.pack('<QII', self.TARGET, 0, 511))
            qtest.at_once(f'writel {port + 0x38:#x} 1',
                          f'writel {port + 0x2c:#x} 1',
                          f'writel {port + 0x2c:#x} 0')
            self.assertEqual(vm.cmd('query-status')['status'], 'running')
            qtest.put(4, port + 0x18, 0)
            qtest.put(4, port + 0x18, 0x11)
        self.blamed(vm, self.TARGET, SUBPAGE, True)

    def test_error_policy(self):
        """rerror=stop is not for what the guest brought about."""
        vm = self.start('-blockdev', 'driver=file,node-name=file,filename=' +
                        self.disk(), '-blockdev', 'driver=blkdebug,'
                        'node-name=d,image=file,inject-error.0.event=none,'
                        'inject-error.0.errno=5,'
                        'inject-error.0.sector=8', '-device',
                        'virtio-scsi-pci,addr=4,disable-legacy=on', '-device',
                        'scsi-hd,drive=d,rerror=stop,werror=stop')
        device = Modern(vm.qtest, 4 << 3, BAR)
        queues = [device.queue(i, MIB + i * 0x10000) for i in range(3)]
        device.ready()

        def sector(number, addr):
            cdb = struct.pack('>BBIBHB', 0x28, 0, number, 0, 1, 0)
            vm.qtest.write(DRIVER, struct.pack('<8sQ3s32s', b'\1\0\x40',
                                               1, b'', cdb))
            vm.qtest.write(DRIVER + PAGE, b'\xff' * 108)
            queues[2].post((DRIVER, 51, False), (DRIVER + PAGE, 108, True),
                           (addr, 512, True))

        # The first is told that the disk was reset
        for status in 2, 0:
            sector(0, self.TARGET)
            self.assertTrue(queues[2].wait())
            self.assertEqual(vm.qtest.get(1, DRIVER + PAGE + 10), status)
        self.armed(vm, self.TARGET)
        sector(0, self.TARGET)
        self.assertTrue(queues[2].wait())
        # CHECK CONDITION
        self.assertEqual(vm.qtest.get(1, DRIVER + PAGE + 10), 2)
        self.assertEqual(vm.cmd('query-status')['status'], 'running')
        self.blamed(vm, self.TARGET, SUBPAGE, True)
        # An error of the disk stops the VM as ever
        sector(8, self.TARGET + PAGE)
        self.until(lambda: vm.cmd('query-status')['status'] == 'io-error')

    def test_iothread_drained(self):
        """A ring in protected memory doesn't keep an iothread waiting."""
        for how in 'stop', 'reset':
            vm = self.start(
                '-object', 'iothread,id=io', '-blockdev', 'driver=file,'
                f'node-name=file,read-only=on,filename={self.disk()}',
                '-object', 'throttle-group,id=slow,x-iops-total=10',
                '-blockdev', 'driver=throttle,node-name=d,file=file,'
                'read-only=on,throttle-group=slow', '-device', 'virtio-blk-pci,addr=4,'
                'disable-modern=on,drive=d,iothread=io', name=how)
            blk = LegacyVirtio(vm.qtest, 4 << 3, PORTS)
            queue = blk.queue(0, MIB)
            blk.ready()
            self.read(queue, (self.TARGET, 512))
            self.assertTrue(queue.wait())
            self.armed(vm, queue.used)
            for _ in range(5):
                self.read(queue, (self.TARGET, 512))
            if how == 'stop':
                vm.cmd('stop')
                self.assertEqual(vm.cmd('query-status')['status'], 'paused')
            else:
                blk.status(0)
            self.blamed(vm, queue.used, SUBPAGE, True)
            vm.shutdown()

    @staticmethod
    def ramfb(qtest):
        """What shows a picture of 64 by 64 pixels from (addr, stride) on."""
        at = DRIVER + PAGE

        def fw_cfg(control, size):
            qtest.write(DRIVER, struct.pack('>IIQ', control, size, at))
            qtest.out(4, 0x514, 0)
            qtest.out(4, 0x518, struct.unpack('<I', struct.pack(
                '>I', DRIVER))[0])

        fw_cfg(0x19 << 16 | 8 | 2, 4)
        count = struct.unpack('>I', qtest.read(at, 4))[0]
        fw_cfg(2, 64 * count)
        files = [struct.unpack('>IHH56s', qtest.read(at + 64 * i, 64))
                 for i in range(count)]
        key = next(f[1] for f in files if f[3].rstrip(b'\0') == b'etc/ramfb')

        def show(addr, stride=256, width=64, code=b'XR24'):
            qtest.write(at, struct.pack('>QIIIII', addr, int.from_bytes(
                code, 'little'), 0, width, 64, stride))
            fw_cfg(key << 16 | 8 | 16, 28)

        return show

    def test_no_map(self):
        """ramfb is given nothing, with the bounce buffers used up."""
        vm = self.start('-device', 'ramfb', '-device',
                        'virtio-balloon-pci,addr=4,disable-legacy=on')
        show = self.ramfb(vm.qtest)
        for protected in False, True:
            surface = self.TARGET + protected * 8 * PAGE
            if protected:
                self.armed(vm, surface, 5 * PAGE, 'none')
                # Of the statistics, held until the next
                balloon = Balloon(vm.qtest, 4 << 3, BAR)
                queues = [balloon.queue(i, MIB + i * 0x10000)
                          for i in range(3)]
                balloon.ready()
                queues[2].post((surface + 4 * PAGE, PAGE, False))
            show(surface)
            self.assertEqual(vm.cmd('query-status')['status'], 'running')

    def test_picture(self):
        """ramfb's picture is in the way only while it is shown."""
        vm = self.start('-device', 'ramfb')
        show = self.ramfb(vm.qtest)
        for stride in 256, 512, 260:
            show(self.TARGET, stride)
            self.refused(self.protect(vm, self.TARGET, access='none'),
                         'reading')
            show(self.TARGET + MIB)
            self.armed(vm, self.TARGET, access='none')
            self.lifted(vm)
        # One that pixman can't have is not shown; the last has 195 by default
        for stride, width, code in ((258, 64, b'XR24'), (195, 65, b'RG24'),
                                    (0, 65, b'RG24')):
            show(self.TARGET, stride, width, code)
            self.assertEqual(vm.cmd('query-status')['status'], 'running')
            self.armed(vm, self.TARGET, access='none')
            self.lifted(vm)

    def ide_write(self, vm, *pieces):
        """WRITE DMA of pieces of (addr, size), to its end."""
        qtest = vm.qtest
        PciDevice(qtest, 1 << 3 | 1, {4: PORTS + 0x100}) \
            .config_write(2, 0x40, 0x8000)
        port = PORTS + 0x100
        qtest.write(DRIVER + 2 * PAGE, b''.join(
            struct.pack('<IHH', addr, size,
                        0x8000 if (addr, size) == pieces[-1] else 0)
            for addr, size in pieces))
        qtest.out(4, port + 4, DRIVER + 2 * PAGE)
        qtest.out(1, port + 2, 6)
        for register, value in ((6, 0xe0), (3, 0), (4, 0), (5, 0),
                                (2, sum(size for _, size in pieces) // 512),
                                (7, 0xca)):
            qtest.out(1, 0x1f0 + register, value)
        qtest.out(1, port, 1)
        self.until(lambda: not qtest.inp(1, 0x1f7) & 0x80
                   and not qtest.inp(1, port + 2) & 1)
        qtest.out(1, port, 0)

    def ide_disk(self):
        """A second disk, behind IDE."""
        return '-drive', 'if=ide,format=raw,file=' + self.disk('second.img')

    def test_short(self):
        """A map that is given back shorter does not stand for another's."""
        vm, _, queue = self.virtio_blk(
            '-object', 'throttle-group,id=slow,x-iops-total=1', '-blockdev',
            'driver=throttle,node-name=t,read-only=on,throttle-group=slow,'
            f'file.driver=file,file.filename={self.disk()},'
            'file.read-only=on', *self.ide_disk(), device=',ioeventfd=off',
            node='t')
        for addr in 3 * MIB, 3 * MIB, 3 * MIB, self.TARGET:
            self.read(queue, (addr, 16 * PAGE))
        reply = self.protect(vm, self.TARGET + PAGE)
        self.refused(reply, 'virtio-backend')
        # No RAM is behind the second piece: a bounce buffer that is too small
        for size in range(512, 1024, 32):
            self.ide_write(vm, (self.TARGET, size), (MMIO, 5120 - size))
        self.assertLess(queue.done(), queue.posted, 'it is under way')
        if 'return' in self.protect(vm, self.TARGET + PAGE):
            before = vm.qtest.read(self.TARGET + PAGE, SUBPAGE)
            self.assertTrue(queue.wait())
            self.assertEqual(vm.qtest.read(self.TARGET + PAGE, SUBPAGE),
                             before)

    def test_left_out(self):
        """What a transfer left out is given back with it."""
        vm = self.start(*self.ide_disk())
        self.ide_write(vm, (MMIO, 4096), (self.TARGET, 768),
                       (MMIO + 0x10000, 256))
        self.armed(vm, self.TARGET, access='none')

    def test_beside(self):
        """What a disk writes by address beside a protected piece stays."""
        vm = self.start(*self.file(), '-device',
                        'virtio-scsi-pci,addr=4,disable-legacy=on', '-device',
                        'scsi-hd,drive=d')
        device = Modern(vm.qtest, 4 << 3, BAR)
        queues = [device.queue(i, MIB + i * 0x10000) for i in range(3)]
        device.ready()
        addr = self.TARGET + SUBPAGE - 20
        got = []
        for protected in False, True:
            vm.qtest.write(self.TARGET, b'\xa7' * 2 * SUBPAGE)
            if protected:
                self.armed(vm, self.TARGET + SUBPAGE)
            # INQUIRY
            vm.qtest.write(DRIVER, struct.pack(
                '<8sQ3s32s', b'\1\0\x40', 1, b'', b'\x12\0\0\0\x24'))
            queues[2].post((DRIVER, 51, False), (DRIVER + PAGE, 108, True),
                           (addr, 36, True))
            self.assertTrue(queues[2].wait())
            got.append(vm.qtest.read(addr, 36))
        self.assertEqual(got[1], got[0][:20] + b'\xa7' * 16)
        self.blamed(vm, self.TARGET + SUBPAGE, SUBPAGE, True)

    def test_ehci_circle(self):
        """A circle of transfers that never lose their active bit ends."""
        packet, head, qh, rom = 2 * MIB, 2 * MIB + PAGE, 3 * MIB, 0xffff0020

        def transfer(addr):
            """SETUP of 8 bytes, over and over."""
            return struct.pack('<8I', addr, 1, 0x80e80, packet, 0, 0, 0, 0)

        code = self.HALT.ljust(32, b'\0') + transfer(rom)
        vm = self.start('-device', 'usb-ehci,addr=4,id=usb', '-device',
                        'usb-mouse,bus=usb.0', code=code)
        PciDevice(vm.qtest, 4 << 3, {0: BAR})
        vm.qtest.write(packet, struct.pack('<BBHHH', 0x80, 6, 0x100, 0, 18))
        for where, access in ((self.TARGET, 'read-write'), (rom, None),
                              (self.TARGET, 'read')):
            if access:
                vm.qtest.write(where, transfer(where))
                self.armed(vm, where, access=access, action='pause')
            vm.qtest.write(qh, struct.pack(
                '<12I', head | 2, 64 << 16 | 6 << 12, 1 << 30, 0, where, 1,
                *(0,) * 6))
            vm.qtest.write(head, struct.pack(
                '<12I', qh | 2, 1 << 15 | 2 << 12, 1 << 30, 0, 1, 1, 0x40,
                *(0,) * 5))
            for register, value in ((0x20, 2), (0x60, 1), (0x64, 0x1100),
                                    (0x64, 0x1000), (0x38, head),
                                    (0x20, 0x21)):
                vm.qtest.put(4, BAR + register, value)
            # The register says that it halted
            stops = access != 'read-write'
            self.until(lambda: vm.qtest.get(4, BAR + 0x24) >> 12 & 1
                       if stops else vm.qtest.get(4, where + 8) & 0x80 == 0)
            self.assertEqual(vm.cmd('query-status')['status'],
                             'paused' if access == 'read' else 'running')


if __name__ == '__main__':
    GuardDeviceTest.main()
