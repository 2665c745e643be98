#!/usr/bin/env python3
# SPDX-License-Identifier: GPL-2.0-or-later
"""
Sub-page protection against devices.

Each test first attacks without protection, which has to succeed, and then
with it.
"""

import os
import socket
import struct
import subprocess
import threading
import time

from guard_qtest import (GuardDeviceTest, LegacyVirtio, MIB, ModernVirtio,
                         PAGE, PciDevice, SUBPAGE)
from guard_virtio import Modern

EDU = 0xfe000000
HBA = 0xfe200000
VIRTIO = 0xfe400000
VTD = 0xfed90000


class Edu:
    """The edu device: DMA by address, and an interrupt on demand."""

    def __init__(self, qtest, devfn=4 << 3):
        self.qtest = qtest
        self.pci = PciDevice(qtest, devfn, {0: EDU})

    def dma(self, test, source, target, size, to_ram):
        """One transfer between RAM and the device's buffer."""
        for register, value in ((0x80, source), (0x88, target), (0x90, size)):
            self.qtest.put(8, EDU + register, value)
        self.qtest.put(8, EDU + 0x98, 1 | (2 if to_ram else 0))
        test.until(lambda: not self.qtest.get(8, EDU + 0x98) & 1)


class Ring(GuardDeviceTest):
    """virtio's rings, which it reaches by pointers that it keeps."""

    DISK = ('-device', 'virtio-blk-pci,addr=4,disable-modern=on,drive=d,'
            'queue-size=16')

    def virtio(self, *more, name='default'):
        """A virtio-blk with a queue at 1 MiB, and the VM."""
        vm = self.start('-blockdev', 'driver=file,node-name=d,read-only=on,'
                        f'filename={self.disk()}', *self.DISK, *more,
                        name=name)
        device = LegacyVirtio(vm.qtest, 4 << 3, 0xc000)
        return vm, device

    @staticmethod
    def read_sector(queue, data, size=512):
        """Post a request for the first sectors."""
        header, status = 3 * MIB, 3 * MIB + PAGE
        queue.qtest.write(header, struct.pack('<IIQ', 0, 0, 0))
        queue.qtest.write(status, b'\xff')
        queue.post((header, 16, False), (data, size, True), (status, 1, True))

    def used_ring(self, vm, queue):
        """A request, and one more with the used ring protected."""
        self.read_sector(queue, self.TARGET)
        self.assertTrue(queue.wait())
        self.assertEqual(vm.qtest.read(self.TARGET, 512), b'\xd5' * 512)
        before = vm.qtest.read(queue.used, SUBPAGE)

        self.armed(vm, queue.used)
        vm.qtest.write(self.TARGET, bytes(512))
        self.read_sector(queue, self.TARGET)
        self.until(lambda: vm.qtest.read(self.TARGET, 1) == b'\xd5')
        self.assertFalse(queue.wait(0.5))
        self.assertEqual(vm.qtest.read(queue.used, SUBPAGE), before)
        self.blamed(vm, queue.used, SUBPAGE, True, 'virtio-backend')

    def test_used_ring(self):
        """The used ring can't be written through a live cache."""
        vm, device = self.virtio()
        queue = device.queue(0, MIB)
        device.ready()
        self.used_ring(vm, queue)

    def test_iommu(self):
        """The used ring of a device behind an IOMMU."""
        vm = self.start('-device', 'intel-iommu', '-blockdev',
                        'driver=file,node-name=d,read-only=on,'
                        f'filename={self.disk()}', '-device',
                        'virtio-blk-pci,addr=4,disable-legacy=on,drive=d,'
                        'queue-size=16,iommu_platform=on', machine='q35')
        root, context, table = 4 * MIB, 4 * MIB + PAGE, 4 * MIB + 2 * PAGE
        # The first GiB as it is: one leaf of a table of three levels
        vm.qtest.write(root, struct.pack('<QQ', context | 1, 0))
        vm.qtest.write(context + 16 * (4 << 3),
                       struct.pack('<QQ', table | 1, 1 << 8 | 1))
        vm.qtest.write(table, struct.pack('<Q', 0x83))
        vm.qtest.put(8, VTD + 0x20, root)
        vm.qtest.put(4, VTD + 0x18, 1 << 30)
        vm.qtest.put(4, VTD + 0x18, 1 << 31)
        self.assertTrue(vm.qtest.get(4, VTD + 0x1c) >> 31)
        device = ModernVirtio(vm.qtest, 4 << 3, VIRTIO)
        queue = device.queue(0, MIB)
        device.ready()
        self.used_ring(vm, queue)

    def test_descriptors(self):
        """Descriptors in a 'none' piece are not seen."""
        vm, device = self.virtio()
        queue = device.queue(0, MIB)
        device.ready()
        self.read_sector(queue, self.TARGET)
        self.assertTrue(queue.wait())

        self.armed(vm, queue.avail + 0x80 & -SUBPAGE, access='none')
        vm.qtest.write(self.TARGET, bytes(512))
        self.read_sector(queue, self.TARGET)
        self.assertTrue(queue.wait(), 'other pieces of the ring work')
        self.lifted(vm)
        self.violations(vm)
        self.armed(vm, queue.base, access='none')
        vm.qtest.write(self.TARGET, bytes(512))
        queue.posted += 1
        vm.qtest.put(2, queue.avail + 2, queue.posted)
        self.violations(vm)
        device.out(2, 0x10, 0)
        self.assertFalse(queue.wait(0.5))
        self.assertEqual(vm.qtest.read(self.TARGET, 512), bytes(512))
        self.blamed(vm, queue.base, SUBPAGE, False, 'virtio-backend')
        self.assertEqual(vm.cmd('query-status')['status'], 'running')

    def test_beside(self):
        """A ring beside a protected piece, set up afterwards, works."""
        vm, device = self.virtio()
        used = device.queue(0, MIB).used
        device.status(0)
        self.armed(vm, used + SUBPAGE, SUBPAGE, 'none')
        device = LegacyVirtio(vm.qtest, 4 << 3, 0xc000)
        queue = device.queue(0, MIB)
        device.ready()
        self.read_sector(queue, self.TARGET)
        self.assertTrue(queue.wait())
        self.assertEqual(vm.qtest.read(self.TARGET, 512), b'\xd5' * 512)
        self.assertEqual(self.violations(vm), [])

    def test_data(self):
        """A request to a protected buffer ends in an error, as a whole."""
        vm, device = self.virtio()
        queue = device.queue(0, MIB)
        device.ready()
        disk, blank = b'\xd5' * 2 * PAGE, bytes(2 * PAGE)
        for action, status, want in (('discard', 1, blank),
                                     ('report', 0, disk)):
            vm.qtest.write(self.TARGET, blank)
            self.violations(vm)
            self.armed(vm, self.TARGET + PAGE, action=action)
            self.read_sector(queue, self.TARGET, 2 * PAGE)
            self.assertTrue(queue.wait())
            self.assertEqual(vm.qtest.get(1, 3 * MIB + PAGE), status)
            self.assertEqual(vm.qtest.read(self.TARGET, 2 * PAGE), want)
            found = self.violations(vm)
            self.assertEqual([(e['action'], e['addr'], e['size'])
                              for e in found],
                             [(action, self.TARGET + PAGE, SUBPAGE)])
            self.assertIn('virtio-backend', found[0]['qom-path'])
            self.lifted(vm)
        # The header can't be read: it is not a request to read sector 0
        vm.qtest.write(self.TARGET, blank)
        self.armed(vm, 3 * MIB, access='none', action='fault')
        queue.post((3 * MIB, 16, False), (self.TARGET, PAGE, True),
                   (3 * MIB + PAGE, 1, True))
        self.assertTrue(queue.wait())
        self.assertEqual(vm.qtest.get(1, 3 * MIB + PAGE), 1)
        self.assertEqual(vm.qtest.read(self.TARGET, PAGE), bytes(PAGE))
        self.blamed(vm, 3 * MIB, SUBPAGE, False, 'virtio-backend')

    def test_large(self):
        """A request all of which is protected is as any other."""
        vm, device = self.virtio(name='large')
        queue = device.queue(0, MIB)
        device.ready()
        size, status = 64 * PAGE, 3 * MIB + PAGE
        for _ in range(2):
            self.read_sector(queue, self.TARGET, size)
            self.assertTrue(queue.wait())
            self.assertEqual(vm.qtest.get(1, status), 0)
            vm.qtest.write(self.TARGET, bytes(size))
            self.armed(vm, self.TARGET, size)
            self.read_sector(queue, self.TARGET, size)
            self.assertTrue(queue.wait())
            self.assertEqual(vm.qtest.get(1, status), 1)
            self.assertEqual(vm.qtest.read(self.TARGET, size), bytes(size))
            self.lifted(vm)

    def test_rng(self):
        """A device that can't report errors leaves out what is protected."""
        vm = self.start('-device', 'virtio-rng-pci,addr=4,disable-modern=on')
        device = LegacyVirtio(vm.qtest, 4 << 3, 0xc000)
        queue = device.queue(0, MIB)
        device.ready()
        for protected in False, True:
            vm.qtest.write(self.TARGET, bytes(3 * SUBPAGE))
            if protected:
                self.armed(vm, self.TARGET + SUBPAGE)
            queue.post((self.TARGET, 3 * SUBPAGE, True))
            self.assertTrue(queue.wait())
            got = vm.qtest.read(self.TARGET, 3 * SUBPAGE)
            self.assertNotEqual(got[:SUBPAGE], bytes(SUBPAGE))
            self.assertNotEqual(got[2 * SUBPAGE:], bytes(SUBPAGE))
            self.assertEqual(got[SUBPAGE:2 * SUBPAGE] == bytes(SUBPAGE),
                             protected)
        self.blamed(vm, self.TARGET + SUBPAGE, SUBPAGE, True,
                    'virtio-backend')

    def test_iothread(self):
        """The same used ring, with the device in a thread of its own."""
        vm = self.start('-object', 'iothread,id=io', '-blockdev',
                        'driver=file,node-name=d,read-only=on,'
                        f'filename={self.disk()}',
                        '-device', 'virtio-blk-pci,addr=4,disable-modern=on,'
                        'drive=d,queue-size=16,iothread=io')
        device = LegacyVirtio(vm.qtest, 4 << 3, 0xc000)
        queue = device.queue(0, MIB)
        device.ready()
        for _ in range(5):
            self.read_sector(queue, self.TARGET)
            self.assertTrue(queue.wait())
            before = vm.qtest.read(queue.used, SUBPAGE)
            self.armed(vm, queue.used)
            vm.qtest.write(self.TARGET, bytes(512))
            self.read_sector(queue, self.TARGET)
            self.until(lambda: vm.qtest.read(self.TARGET, 1) == b'\xd5')
            self.assertEqual(vm.qtest.read(queue.used, SUBPAGE), before)
            self.blamed(vm, queue.used, SUBPAGE, True, 'virtio-backend')
            self.lifted(vm)
            # The device counted on
            vm.qtest.put(2, queue.used + 2, queue.posted)
            self.violations(vm)

    def in_flight(self, *iothread):
        """Protect the buffer of a request that was just made."""
        vm = self.start(*iothread, '-blockdev', 'driver=file,node-name=d,'
                        f'read-only=on,filename={self.disk()}',
                        '-device', 'virtio-blk-pci,addr=4,disable-modern=on,'
                        'drive=d' + (',iothread=io' if iothread else ''))
        device = LegacyVirtio(vm.qtest, 4 << 3, 0xc000)
        queue = device.queue(0, MIB)
        device.ready()
        size, piece = 64 * PAGE, self.TARGET + 33 * PAGE
        for turn in range(50):
            vm.qtest.write(piece, bytes(SUBPAGE))
            self.read_sector(queue, self.TARGET, size)
            if turn % 2:
                self.armed(vm, self.TARGET, 2 * MIB)
            else:
                self.armed(vm, piece)
            # From here on nothing changes it
            found = vm.qtest.read(piece, SUBPAGE)
            self.assertTrue(queue.wait())
            self.assertEqual(vm.qtest.read(piece, SUBPAGE), found)
            self.lifted(vm)

    def test_in_flight(self):
        """Requests under way are waited for."""
        self.in_flight()

    def test_in_flight_iothread(self):
        """The same with the device in a thread of its own."""
        self.in_flight('-object', 'iothread,id=io')

    def test_counters(self):
        """Counters by region, anew when a region is set."""
        vm, device = self.virtio()
        queue = device.queue(0, MIB)
        device.ready()
        self.armed(vm, self.TARGET)
        self.armed(vm, self.TARGET + 2 * PAGE, access='none')
        for _ in range(3):
            self.read_sector(queue, self.TARGET)
            self.assertTrue(queue.wait())
        vm.qtest.read(self.TARGET + 2 * PAGE, 8)
        got = [(r['reads'], r['writes'])
               for r in vm.cmd('query-subpage-access')]
        self.assertEqual(got, [(0, 3), (1, 0)])
        self.armed(vm, self.TARGET)
        got = [(r['reads'], r['writes'])
               for r in vm.cmd('query-subpage-access')]
        self.assertEqual(got, [(0, 0), (1, 0)])


class Dma(GuardDeviceTest):
    """Devices that look memory up for each access."""

    def test_edu(self):
        """Both directions, and an address in the event."""
        vm = self.start('-device', 'edu,addr=4,id=edu0')
        edu = Edu(vm.qtest)
        secret, target = 2 * MIB, self.TARGET
        vm.qtest.write(secret, b'\x5a' * 256)

        def steal():
            edu.dma(self, 0x40000 + 256, target + PAGE, 256, True)
            edu.dma(self, secret, 0x40000, 256, False)
            edu.dma(self, 0x40000, target, 256, True)
            return vm.qtest.read(target, 256)

        self.assertEqual(steal(), b'\x5a' * 256)
        vm.qtest.write(target, bytes(256))
        self.armed(vm, target)
        self.assertEqual(steal(), bytes(128) + b'\x5a' * 128)
        self.blamed(vm, target, SUBPAGE, True, 'edu0')
        self.lifted(vm)
        vm.qtest.write(target, b'\xee' * 256)
        self.armed(vm, secret + SUBPAGE, access='none')
        self.assertEqual(steal(), b'\x5a' * 128 + bytes(128))
        self.blamed(vm, secret + SUBPAGE, SUBPAGE, False, 'edu0')

    def test_msi(self):
        """An interrupt message whose address is RAM."""
        vm = self.start('-device', 'edu,addr=4,id=edu0')
        edu = Edu(vm.qtest)
        msi = edu.pci.capability(5)
        edu.pci.config_write(4, msi + 4, self.TARGET + 0x100)
        wide = edu.pci.config_read(2, msi + 2) & 0x80
        edu.pci.config_write(4, msi + 8, 0)
        edu.pci.config_write(2, msi + (12 if wide else 8), 0x1234)
        edu.pci.config_write(2, msi + 2, 1)

        def notify():
            vm.qtest.put(4, EDU + 0x60, 1)
            vm.qtest.put(4, EDU + 0x64, 1)
            return vm.qtest.get(4, self.TARGET + 0x100)

        self.assertEqual(notify(), 0x1234)
        vm.qtest.put(4, self.TARGET + 0x100, 0)
        self.armed(vm, self.TARGET + 0x100)
        self.assertEqual(notify(), 0)
        self.blamed(vm, self.TARGET + 0x100, SUBPAGE, True, 'edu0')

    def test_fw_cfg(self):
        """fw_cfg's DMA: the device is told of the error."""
        vm = self.start()
        control = 2 * MIB

        def signature():
            vm.qtest.write(control, struct.pack('>IIQ', 0xa, 4, self.TARGET))
            vm.qtest.out(4, 0x514, 0)
            vm.qtest.out(4, 0x518, int.from_bytes(
                control.to_bytes(4, 'big'), 'little'))
            return (struct.unpack('>I', vm.qtest.read(control, 4))[0],
                    vm.qtest.read(self.TARGET, 4))

        self.assertEqual(signature(), (0, b'QEMU'))
        vm.qtest.write(self.TARGET, bytes(4))
        self.armed(vm, self.TARGET)
        self.assertEqual(signature(), (1, bytes(4)))
        self.blamed(vm, self.TARGET, SUBPAGE, True)

    def test_ide(self):
        """A disk's bus master: the whole transfer ends in an error."""
        vm = self.start('-drive', 'if=ide,format=raw,file=' + self.disk())
        qtest = vm.qtest
        pci = PciDevice(qtest, 1 << 3 | 1, {4: 0xc100})
        self.assertEqual(pci.config_read(2, 0) & 0xffff, 0x8086)
        # Decode the legacy ports
        pci.config_write(2, 0x40, 0x8000)
        prd = 2 * MIB

        def read_dma():
            qtest.write(prd, struct.pack('<IHHIHH', self.TARGET, 256, 0,
                                         self.TARGET + PAGE, 256, 0x8000))
            qtest.out(4, 0xc104, prd)
            qtest.out(1, 0xc102, 6)
            for port, value in ((0x1f6, 0xe0), (0x1f2, 1), (0x1f3, 0),
                                (0x1f4, 0), (0x1f5, 0), (0x1f7, 0xc8)):
                qtest.out(1, port, value)
            qtest.out(1, 0xc100, 9)
            self.until(lambda: not qtest.inp(1, 0x1f7) & 0x88 and
                       not qtest.inp(1, 0xc102) & 1)
            qtest.out(1, 0xc100, 0)
            return (qtest.inp(1, 0x1f7) & 1, qtest.read(self.TARGET, 256),
                    qtest.read(self.TARGET + PAGE, 256))

        self.assertEqual(read_dma(), (0, b'\xd5' * 256, b'\xd5' * 256))
        qtest.write(self.TARGET, bytes(2 * PAGE))
        self.armed(vm, self.TARGET + PAGE)
        self.assertEqual(read_dma(), (1, bytes(256), bytes(256)))
        self.blamed(vm, self.TARGET + PAGE, SUBPAGE, True, 'device[')
        self.lifted(vm)
        self.assertEqual(read_dma(), (0, b'\xd5' * 256, b'\xd5' * 256))
        # Told of, and done
        qtest.write(self.TARGET, bytes(2 * PAGE))
        self.violations(vm)
        self.armed(vm, self.TARGET + PAGE, action='report')
        self.assertEqual(read_dma(), (0, b'\xd5' * 256, b'\xd5' * 256))
        self.assertEqual([e['action'] for e in self.violations(vm)],
                         ['report'])


    def test_vapic(self):
        """vapic looks into the ROM that talks to it."""
        code = 0x7c00
        vm = self.start('-S', code=b'\xea\x00\x7c\x00\x00')
        # jmp over a header of size 0; xor ax, ax; out 0x7e, ax;
        # mov al, 1; mov [0x8000], al
        program = (b'\xeb\x06' + bytes(6) + b'\x31\xc0\xe7\x7e'
                   b'\xb0\x01\xa2\x00\x80' + self.HALT)
        for access, count in (('read', 0), ('none', 1)):
            vm.cmd('system_reset')
            vm.cmd('query-status')
            self.until(lambda: not vm.cmd('query-subpage-access'))
            vm.qtest.write(code, program)
            vm.qtest.put(1, 0x8000, 0)
            self.armed(vm, code, SUBPAGE, access)
            self.violations(vm)
            vm.cmd('cont')
            self.until(lambda: vm.qtest.get(1, 0x8000))
            found = self.violations(vm)
            self.assertEqual([(e['addr'], e['size'], e['write'])
                              for e in found], [(code + 2, 1, False)] * count)
            self.assertTrue(all('qom-path' in e for e in found))
            vm.cmd('stop')


class Maps(GuardDeviceTest):
    """Memory that a device has mapped."""

    def test_ahci(self):
        """A command list is mapped for good: refused, by name."""
        vm = self.start('-drive', 'if=none,id=d,format=raw,file=' +
                        self.disk(), '-device', 'ide-hd,drive=d,bus=ide.0',
                        machine='q35')
        qtest = vm.qtest
        PciDevice(qtest, 0x1f << 3 | 2, {5: HBA})
        qtest.put(4, HBA + 4, 1 << 31)
        port = HBA + 0x100
        lists, fis = 2 * MIB, 2 * MIB + PAGE
        for register, value in ((0, lists), (4, 0), (8, fis), (12, 0),
                                (0x18, 0x11)):
            qtest.put(4, port + register, value)
        self.assertTrue(qtest.get(4, port + 0x18) & 0x8000, 'it runs')

        reply = self.protect(vm, lists)
        self.refused(reply, 'regions[0]', 'device[', f'0x{lists:x}',
                     'for writing')
        self.assertEqual(vm.cmd('query-subpage-access'), [])
        # Another piece of the same page, and what lies behind the FIS
        self.armed(vm, lists + 0x400, PAGE - 0x400)
        self.refused(self.protect(vm, fis + 0x80), 'regions[0]')
        self.assertEqual(len(vm.cmd('query-subpage-access')), 1)
        # The way out
        qtest.put(4, port + 0x18, 0)
        self.armed(vm, lists)
        self.armed(vm, fis)
        # Now the device doesn't get it any more
        qtest.put(4, port + 0x18, 0x11)
        self.assertFalse(qtest.get(4, port + 0x18) & 0x8000)
        self.assertEqual(vm.cmd('query-status')['status'], 'running')

    def test_stopped_request(self):
        """A request that waits for 'cont' has its buffers mapped."""
        vm = self.start(
            '-blockdev', f'driver=file,node-name=f,filename={self.disk()}',
            '-blockdev', '{"driver": "blkdebug", "node-name": "d", '
            '"image": "f", "inject-error": [{"event": "none", '
            '"iotype": "read", "errno": 5, "once": true, "sector": 4}]}',
            '-device', 'virtio-blk-pci,addr=4,disable-modern=on,drive=d,'
            'queue-size=16,rerror=stop,id=vblk')
        device = LegacyVirtio(vm.qtest, 4 << 3, 0xc000)
        queue = device.queue(0, MIB)
        device.ready()
        Ring.read_sector(queue, self.TARGET, 8 * 512)
        self.until(lambda: vm.cmd('query-status')['status'] == 'io-error')
        self.refused(self.protect(vm, self.TARGET + 512), 'regions[0]',
                     'vblk', 'for writing')
        self.armed(vm, self.TARGET + PAGE)
        # Only what is written is in the way
        self.armed(vm, 3 * MIB)
        self.refused(self.protect(vm, 3 * MIB, access='none'), 'vblk',
                     'for reading')
        vm.cmd('cont')
        self.assertTrue(queue.wait())
        self.armed(vm, self.TARGET + 512)
        self.armed(vm, 3 * MIB, access='none')

    def post_again(self, queue):
        """Guest code: when the first request is done, post the second."""
        base = 0x40000
        # mov ax, 0x4000; mov ds, ax; cmp word [used index], 1; jne to the
        # cmp; mov word [avail index], 2; mov dx, 0xc010; xor ax, ax;
        # out dx, ax
        return (b'\xb8\x00\x40\x8e\xd8\x83\x3e'
                + struct.pack('<HB', queue.used + 2 - base, 1)
                + b'\x75\xf9\xc7\x06'
                + struct.pack('<HH', queue.avail + 2 - base, 2)
                + b'\xba\x10\xc0\x31\xc0\xef' + self.HALT)

    def late_map(self, name):
        """
        Have a device map a buffer between the two looks of a command.

        When a request ends, the guest posts another one, at once.  The first
        look waits for the end; the guest's OUT waits for the BQL, which the
        command keeps until it waits for the CPU.  What is reported only is
        still mapped then.  Returns: VM, counter, reply, and seconds.
        """
        vm = self.start('-S', '-m', '256M', '-blockdev',
                        'driver=null-co,node-name=d,size=1048576,'
                        'latency-ns=1400000000', '-device',
                        'virtio-blk-pci,addr=4,disable-modern=on,drive=d,'
                        'queue-size=16,ioeventfd=off,id=vblk',
                        name=name, code=b'\xea\x00\x7c\x00\x00')
        device = LegacyVirtio(vm.qtest, 4 << 3, 0xc000)
        queue = device.queue(0, 0x40000)
        device.ready()
        # A large table makes time for the guest
        vm.cmd('subpage-set-access', regions=[
            {'addr': addr, 'size': SUBPAGE, 'access': 'read'}
            for addr in range(24 * MIB, 250 * MIB, PAGE)])
        self.armed(vm, self.TARGET, action='report')
        vm.qtest.write(3 * MIB, struct.pack('<IIQ', 0, 0, 0))
        for i, (addr, size, flags) in enumerate((
                (3 * MIB, 16, 1), (self.TARGET, 512, 3),
                (3 * MIB + PAGE, 1, 2))):
            vm.qtest.write(queue.base + 16 * (3 + i), struct.pack(
                '<QIHH', addr, size, flags, 4 + i if flags & 1 else 0))
        vm.qtest.put(2, queue.avail + 6, 3)
        vm.qtest.write(0x7c00, self.post_again(queue))
        vm.cmd('cont')
        Ring.read_sector(queue, self.TARGET)
        time.sleep(0.6)
        count = vm.cmd('query-subpage-access', addr=self.TARGET,
                       size=SUBPAGE)[0]['writes']
        start = time.monotonic()
        reply = self.protect(vm, self.TARGET, access='none', action='report')
        return vm, count, reply, time.monotonic() - start

    def test_late_map(self):
        """A command that fails at its second look leaves all as it was."""
        for attempt in range(5):
            vm, count, reply, seconds = self.late_map(f'vm{attempt}')
            if 'error' in reply:
                break
            # The guest was too slow
            vm.shutdown()
        self.refused(reply, 'vblk', 'for writing')
        # One second for both looks, though the second request takes longer
        self.assertLess(seconds, 1.6)
        found = vm.cmd('query-subpage-access', addr=self.TARGET, size=SUBPAGE)
        self.assertEqual([r['access'] for r in found], ['read'])
        # The second request was told of as well
        self.assertGreater(count, 0)
        self.assertEqual(found[0]['writes'], count + 1)

    def test_device_memory(self):
        """Memory that is a device's own is not protected."""
        vm = self.start('-device', 'VGA,addr=4')
        PciDevice(vm.qtest, 4 << 3, {0: 0xe0000000, 2: 0xe2000000})
        self.refused(self.protect(vm, 0xe0000000), 'regions[0]',
                     'peripheral-anon', 'vga.vram')

    def test_nvme_pmr(self):
        """A PMR is a backend's RAM, and NVMe copies by a pointer to it."""
        vm = self.start(
            '-drive', f'if=none,id=d,format=raw,file={self.disk()}',
            '-object', 'memory-backend-ram,id=pmr,size=16M,share=on',
            '-device', 'nvme,addr=4,drive=d,serial=1,pmrdev=pmr')
        qtest, bar, pmr = vm.qtest, 0xe0000000, 0xe8000000
        PciDevice(qtest, 4 << 3, {0: bar, 1: 0, 4: pmr, 5: 0})
        asq, acq, queue, done = [2 * MIB + i * PAGE for i in range(4)]
        # PMRCTL, PMRMSCU, PMRMSCL; AQA, ASQ, ACQ, CC
        for register, value in ((0xe04, 1), (0xe18, 0), (0xe14, pmr | 2),
                                (0x24, 15 << 16 | 15), (0x28, asq),
                                (0x30, acq), (0x14, 0x460001)):
            qtest.put(4, bar + register, value)
        tails = {asq: 0, queue: 0}

        def command(ring, opcode, prp, *words, nsid=0):
            slot = tails[ring]
            tails[ring] += 1
            qtest.write(ring + 64 * slot, struct.pack(
                '<BBHIQQQQ6I', opcode, 0, 1, nsid, 0, 0, prp, 0,
                *words, *[0] * (6 - len(words))))
            qtest.put(4, bar + 0x1000 + 8 * (ring == queue), slot + 1)
            entry = (acq if ring == asq else done) + 16 * slot
            self.until(lambda: qtest.get(4, entry + 12))
            return qtest.get(4, entry + 12) >> 17

        self.assertEqual(command(asq, 5, done, 15 << 16 | 1, 1), 0)
        self.assertEqual(command(asq, 1, queue, 15 << 16 | 1, 1 << 16 | 1), 0)
        self.assertEqual(command(queue, 2, pmr + PAGE, 0, 0, 0, nsid=1), 0)
        self.assertEqual(qtest.read(pmr + PAGE, 512), b'\xd5' * 512)

        # It reads and writes there whatever the table says
        self.refused(self.protect(vm, pmr + PAGE), 'regions[0]',
                     '/objects/pmr', 'has a pointer')
        self.assertEqual(vm.cmd('query-subpage-access'), [])

    def test_ivshmem(self):
        """Memory that is shared with others is the device's."""
        vm = self.start('-object',
                        'memory-backend-ram,id=shared,size=4M,share=on',
                        '-device', 'ivshmem-plain,memdev=shared,addr=4')
        PciDevice(vm.qtest, 4 << 3, {2: 0xe0000000, 3: 0})
        vm.qtest.write(0xe0000000, b'\x5a' * 8)
        self.assertEqual(vm.qtest.read(0xe0000000, 8), b'\x5a' * 8)
        self.refused(self.protect(vm, 0xe0000000), 'regions[0]',
                     '/objects/shared', 'has a pointer')

    def test_memory_devices(self):
        """A backend that stands for memory of the machine is protected."""
        backends = [word for name in ('dimm', 'nvdimm', 'pmem', 'mem')
                    for word in ('-object', 'memory-backend-ram,size=256M,'
                                 f'id={name}-ram')]
        vm = self.start(
            '-m', '64M,slots=4,maxmem=4G', '-machine', 'nvdimm=on', *backends,
            '-device', 'pc-dimm,memdev=dimm-ram,id=dimm',
            '-device', 'nvdimm,memdev=nvdimm-ram,id=nvdimm,label-size=128K',
            '-device', 'virtio-pmem-pci,memdev=pmem-ram,id=pmem',
            '-device', 'virtio-mem-pci,memdev=mem-ram,id=mem,'
            'requested-size=256M', '-object',
            'memory-backend-ram,size=256M,id=slots-ram', '-device',
            'virtio-mem-pci,memdev=slots-ram,id=slots,dynamic-memslots=on,'
            'unplugged-inaccessible=on')
        found = {}
        for device in vm.cmd('query-memory-devices'):
            data = device['data']
            found[data['id']] = data.get('addr', data.get('memaddr'))
        self.assertEqual(sorted(found),
                         ['dimm', 'mem', 'nvdimm', 'pmem', 'slots'])
        for name in 'dimm', 'nvdimm', 'pmem':
            with self.subTest(device=name):
                addr = found[name] + PAGE
                vm.qtest.write(addr, b'\x11' * 8)
                self.armed(vm, addr)
                vm.qtest.write(addr, b'\x99' * 8)
                self.assertEqual(vm.qtest.read(addr, 8), b'\x11' * 8)

    def test_numa(self):
        """Memory of the machine that is made of several backends."""
        vm = self.start('-m', '64M', '-smp', '2', '-object',
                        'memory-backend-ram,size=32M,id=low', '-object',
                        'memory-backend-ram,size=32M,id=high', '-numa',
                        'node,memdev=low', '-numa', 'node,memdev=high')
        for addr in self.TARGET, 48 * MIB:
            vm.qtest.write(addr, b'\x11' * 8)
            self.armed(vm, addr)
            vm.qtest.write(addr, b'\x99' * 8)
            self.assertEqual(vm.qtest.read(addr, 8), b'\x11' * 8)


class Discard(GuardDeviceTest):
    """Pages that a guest gives back."""

    def test_balloon(self):
        """A protected page keeps what is in it."""
        vm = self.start('-device', 'virtio-balloon-pci,addr=4,'
                        'disable-modern=on')
        device = LegacyVirtio(vm.qtest, 4 << 3, 0xc000)
        queue = device.queue(0, MIB)
        device.ready()

        def inflate(addr):
            vm.qtest.write(addr, b'\x77' * PAGE)
            vm.qtest.put(4, 2 * MIB, addr // PAGE)
            queue.post((2 * MIB, 4, False))
            self.assertTrue(queue.wait())
            return vm.qtest.read(addr, PAGE)

        self.assertEqual(inflate(self.TARGET), bytes(PAGE))
        other = self.TARGET + PAGE
        vm.qtest.write(other, b'\x77' * PAGE)
        self.armed(vm, other + PAGE - SUBPAGE)
        vm.qtest.put(4, 2 * MIB, other // PAGE)
        queue.post((2 * MIB, 4, False))
        self.assertTrue(queue.wait())
        self.assertEqual(vm.qtest.read(other, PAGE), b'\x77' * PAGE)
        self.assertEqual(inflate(self.TARGET), bytes(PAGE))

    def test_virtio_mem(self):
        """virtio-mem does not take away a block that is protected."""
        vm = self.start('-m', '64M,maxmem=1G', '-object',
                        'memory-backend-ram,id=m,size=64M', '-device',
                        'virtio-mem-pci,memdev=m,requested-size=16M,addr=4')
        device = Modern(vm.qtest, 4 << 3, VIRTIO)
        queue = device.queue(0, MIB)
        device.ready()
        block = vm.qtest.get(8, device.structures[4])
        first = vm.qtest.get(8, device.structures[4] + 16)

        def request(kind, addr):
            """Plug (0) or unplug (1) a block; returns the answer."""
            vm.qtest.write(2 * MIB, struct.pack('<HHIQQ', kind, 0, 0, addr, 1))
            vm.qtest.write(3 * MIB, b'\xff' * 10)
            queue.post((2 * MIB, 24, False), (3 * MIB, 10, True))
            self.assertTrue(queue.wait())
            return vm.qtest.get(2, 3 * MIB)

        for addr in first, first + block:
            self.assertEqual(request(0, addr), 0)
            vm.qtest.write(addr + PAGE, b'\x77' * PAGE)
        self.armed(vm, first + PAGE)
        self.assertNotEqual(request(1, first), 0)
        self.assertEqual(vm.qtest.read(first + PAGE, PAGE), b'\x77' * PAGE)
        # Its neighbour can go, and so can it when nothing is protected
        self.assertEqual(request(1, first + block), 0)
        self.armed(vm, first + PAGE, access='read-write')
        self.assertEqual(request(1, first), 0)
        self.assertEqual(request(0, first), 0)
        self.assertEqual(vm.qtest.read(first + PAGE, PAGE), bytes(PAGE))


class FakeBackend(threading.Thread):
    """As much of vhost-user as it takes to be taken for a backend."""

    def __init__(self, path):
        super().__init__(daemon=True)
        self.listener = socket.socket(socket.AF_UNIX)
        self.listener.bind(path)
        self.listener.listen(4)

    def run(self):
        """Serve connections until the listener is closed."""
        while True:
            try:
                connection = self.listener.accept()[0]
            except OSError:
                return
            with connection:
                self.serve(connection)

    @staticmethod
    def serve(connection):
        """Answer what wants an answer: GET_FEATURES, GET_QUEUE_NUM."""
        while True:
            header = connection.recv(12, socket.MSG_WAITALL)
            if len(header) < 12:
                return
            request, _, size = struct.unpack('<III', header)
            if size:
                connection.recv(size, socket.MSG_WAITALL)
            if request in (1, 17):
                connection.sendall(struct.pack('<IIIQ', request, 5, 8,
                                               1 << 32))


class Foreign(GuardDeviceTest):
    """What QEMU can't filter is refused by name."""

    def chardev(self):
        """A socket with a backend behind it."""
        path = os.path.join(self.socket_dir().name, 'vhost')
        FakeBackend(path).start()
        return ('-chardev', f'socket,id=vhost,path={path}')

    def test_vhost_first(self):
        """vhost there: no protection."""
        vm = self.start(*self.chardev(), '-netdev',
                        'vhost-user,id=net,chardev=vhost')
        self.refused(self.protect(vm, self.TARGET), 'vhost-user')
        self.assertEqual(vm.cmd('query-subpage-access'), [])
        vm.cmd('netdev_del', id='net')
        self.armed(vm, self.TARGET)

    def test_vhost_later(self):
        """Protection there: no vhost."""
        vm = self.start(*self.chardev())
        self.armed(vm, self.TARGET)
        net = {'type': 'vhost-user', 'id': 'net', 'chardev': 'vhost'}
        self.refused(vm.qmp('netdev_add', net), 'vhost', 'protected')
        self.lifted(vm)
        self.assertIn('return', vm.qmp('netdev_add', net))
        self.refused(self.protect(vm, self.TARGET), 'vhost-user')

    def daemon(self):
        """A disk of zeroes in another process; returns its socket."""
        binary = os.path.join(os.path.dirname(self.qemu_bin),
                              'storage-daemon/qemu-storage-daemon')
        if not os.path.exists(binary):
            self.skipTest('no qemu-storage-daemon in this build')
        path = os.path.join(self.socket_dir().name, 'disk')
        daemon = subprocess.Popen([
            binary, '--blockdev', 'null-co,node-name=zeroes,size=1048576,'
            'read-zeroes=on', '--export', 'vhost-user-blk,id=disk,'
            f'node-name=zeroes,addr.type=unix,addr.path={path}'])
        self.addCleanup(daemon.wait)
        self.addCleanup(daemon.kill)
        deadline = time.monotonic() + 20
        while not os.path.exists(path):
            self.assertIsNone(daemon.poll())
            self.assertLess(time.monotonic(), deadline)
            time.sleep(0.05)
        return path

    def test_vhost_live(self):
        """A process that writes to memory by itself."""
        vm = self.start(
            '-object', 'memory-backend-memfd,id=ram,size=64M,share=on',
            '-machine', 'memory-backend=ram',
            '-chardev', f'socket,id=disk,path={self.daemon()}')
        device = {'driver': 'vhost-user-blk-pci', 'id': 'blk', 'addr': '4',
                  'chardev': 'disk', 'num-queues': 1,
                  'disable-legacy': 'on'}
        self.armed(vm, self.TARGET)
        self.refused(vm.qmp('device_add', device), 'vhost', 'protected')
        self.lifted(vm)
        self.assertIn('return', vm.qmp('device_add', device))
        self.refused(self.protect(vm, self.TARGET), 'vhost-user')
        # And that is why
        blk = Modern(vm.qtest, 4 << 3, VIRTIO)
        queue = blk.queue(0, MIB)
        blk.ready()
        vm.qtest.write(self.TARGET, b'\xa7' * 512)
        vm.qtest.write(2 * MIB, struct.pack('<IIQ', 0, 0, 0))
        queue.post((2 * MIB, 16, False), (self.TARGET, 512, True),
                   (2 * MIB + 16, 1, True))
        self.assertTrue(queue.wait())
        self.assertEqual(vm.qtest.read(self.TARGET, 512), bytes(512))
        self.refused(self.protect(vm, self.TARGET), 'vhost-user', 'blk')
        self.assertEqual(vm.cmd('query-subpage-access'), [])

    def not_later(self, driver):
        """A device can't be plugged while memory is protected."""
        vm = self.start()
        reply = vm.qmp('device_add', {'driver': driver})
        if 'not a valid device' in reply['error']['desc']:
            self.skipTest(f'no {driver} in this build')
        self.assertNotIn('protected', reply['error']['desc'])
        self.armed(vm, self.TARGET)
        self.refused(vm.qmp('device_add', {'driver': driver}),
                     driver, 'protected')
        self.lifted(vm)
        reply = vm.qmp('device_add', {'driver': driver})
        self.assertNotIn('protected', reply['error']['desc'])

    def test_proxy(self):
        """A device in another process."""
        self.not_later('x-pci-proxy-dev')

    def test_vfio(self):
        """Assigned hardware, for which there need not be any."""
        self.not_later('vfio-pci')

    def test_blob(self):
        """virtio-gpu with blob resources: no protection."""
        if not os.access('/dev/udmabuf', os.R_OK | os.W_OK):
            self.skipTest('no /dev/udmabuf on this host')
        vm = self.start('-object', 'memory-backend-memfd,id=ram,size=64M',
                        '-machine', 'memory-backend=ram', '-device',
                        'virtio-gpu-pci,blob=on,id=gpu')
        self.refused(self.protect(vm, self.TARGET), 'gpu', 'blob=off')


if __name__ == '__main__':
    GuardDeviceTest.main()
