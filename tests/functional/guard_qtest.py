# SPDX-License-Identifier: GPL-2.0-or-later
"""
What the tests of devices share: a VM whose CPU sleeps, while the test drives
its devices by qtest, and small drivers.
"""

import os
import struct
import time

from qemu.machine.qtest import QEMUQtestProtocol
from guard_case import GuardTest

SUBPAGE = 128
PAGE = 4096
MIB = 1 << 20


class QtestProtocol(QEMUQtestProtocol):
    """The same, several commands at a time."""

    def cmds(self, texts):
        """Send all before QEMU's main loop runs; returns the answers."""
        self._sock.sendall(''.join(f'{text}\n' for text in texts).encode())
        return [self._sockfile.readline() for _ in texts]


class Qtest:
    """Ports and memory, as a device on the system bus would see them."""

    def __init__(self, path):
        self.protocol = QtestProtocol(path)
        self.protocol.connect()

    def cmd(self, text):
        """One command; returns what follows OK."""
        answer = self.protocol.cmd(text).split()
        if not answer or answer[0] != 'OK':
            raise ValueError(f'{text}: {answer}')
        return answer[1:]

    def at_once(self, *texts):
        """Commands between which no bottom half and no timer runs."""
        answers = self.protocol.cmds(texts)
        if any(not answer.startswith('OK') for answer in answers):
            raise ValueError(f'{texts}: {answers}')

    def out(self, size, port, value):
        """Write a port."""
        self.cmd(f'out{" bw l"[size]} {port:#x} {value:#x}')

    def inp(self, size, port):
        """Read a port."""
        return int(self.cmd(f'in{" bw l"[size]} {port:#x}')[0], 16)

    def put(self, size, addr, value):
        """Write memory or a device register."""
        self.cmd(f'write{" bw l   q"[size]} {addr:#x} {value:#x}')

    def get(self, size, addr):
        """Read memory or a device register."""
        return int(self.cmd(f'read{" bw l   q"[size]} {addr:#x}')[0], 16)

    def write(self, addr, data):
        """Write memory."""
        self.cmd(f'write {addr:#x} {len(data):#x} 0x{data.hex()}')

    def read(self, addr, size):
        """Read memory."""
        return bytes.fromhex(self.cmd(f'read {addr:#x} {size:#x}')[0][2:])

    def close(self):
        """Hang up."""
        self.protocol.close()


class PciDevice:
    """A PCI function on bus 0, with its BARs where we want them."""

    def __init__(self, qtest, devfn, bars=None):
        self.qtest = qtest
        self.devfn = devfn
        for bar, addr in (bars or {}).items():
            self.config_write(4, 0x10 + 4 * bar, addr)
        # Ports, memory, bus master
        self.config_write(2, 4, 7)

    def select(self, offset):
        """Address a configuration register."""
        self.qtest.out(4, 0xcf8,
                       1 << 31 | self.devfn << 8 | (offset & 0xfc))

    def config_write(self, size, offset, value):
        """Write configuration space."""
        self.select(offset)
        self.qtest.out(size, 0xcfc + (offset & 3), value)

    def config_read(self, size, offset):
        """Read configuration space."""
        self.select(offset)
        return self.qtest.inp(size, 0xcfc + (offset & 3))

    def capability(self, number):
        """Where a capability is."""
        at = self.config_read(1, 0x34)
        while at and self.config_read(1, at) != number:
            at = self.config_read(1, at + 1)
        return at


class VirtioQueue:
    """A split ring of a legacy virtio device, used one request at a time."""

    def __init__(self, device, index, base, size):
        self.device = device
        self.qtest = device.qtest
        self.index, self.base, self.size = index, base, size
        self.avail = base + 16 * size
        self.used = (self.avail + 6 + 2 * size + PAGE - 1) & -PAGE
        self.posted = 0

    def post(self, *buffers):
        """Offer one chain of (addr, size, device writes)."""
        for i, (addr, size, write) in enumerate(buffers):
            more = i + 1 < len(buffers)
            self.qtest.write(self.base + 16 * i, struct.pack(
                '<QIHH', addr, size, more | 2 * write, i + 1 if more else 0))
        self.qtest.put(2, self.avail + 4 + 2 * (self.posted % self.size), 0)
        self.posted += 1
        self.qtest.put(2, self.avail + 2, self.posted)
        self.device.out(2, 0x10, self.index)

    def done(self):
        """How many the device says it has used."""
        return self.qtest.get(2, self.used + 2)

    def wait(self, seconds=10):
        """Until the last one is used; False if it never is."""
        end = time.monotonic() + seconds
        while self.done() != self.posted:
            if time.monotonic() > end:
                return False
            time.sleep(0.01)
        return True


class LegacyVirtio:
    """A virtio-*-pci,disable-modern=on with its ports at @port."""

    def __init__(self, qtest, devfn, port):
        self.qtest, self.port = qtest, port
        self.pci = PciDevice(qtest, devfn, {0: port})
        self.status(1)
        self.status(3)
        self.out(4, 4, 0)

    def out(self, size, register, value):
        """Write a register."""
        self.qtest.out(size, self.port + register, value)

    def status(self, value):
        """Set the device status."""
        self.qtest.out(1, self.port + 0x12, value)

    def queue(self, index, base):
        """Set up a queue in zeroed memory at @base."""
        self.out(2, 0xe, index)
        size = self.qtest.inp(2, self.port + 0xc)
        self.out(4, 8, base // PAGE)
        return VirtioQueue(self, index, base, size)

    def ready(self):
        """The driver is there."""
        self.status(7)


class ModernVirtio:
    """A virtio-*-pci,disable-legacy=on with its BAR 4 at @bar."""

    # Version 1, and addresses that an IOMMU translates
    FEATURES_LOW = 0
    FEATURES_HIGH = 3

    def __init__(self, qtest, devfn, bar, features=0):
        self.qtest = qtest
        self.pci = PciDevice(qtest, devfn, {4: bar, 5: 0})
        self.structures = {}
        at = self.pci.config_read(1, 0x34)
        while at:
            if self.pci.config_read(1, at) == 9:
                kind = self.pci.config_read(1, at + 3)
                offset = self.pci.config_read(4, at + 8)
                self.structures.setdefault(kind, bar + offset)
                if kind == 2:
                    self.multiplier = self.pci.config_read(4, at + 16)
            at = self.pci.config_read(1, at + 1)
        self.common = self.structures[1]
        for status in 1, 3:
            qtest.put(1, self.common + 20, status)
        for half, value in enumerate((self.FEATURES_LOW | features,
                                      self.FEATURES_HIGH)):
            qtest.put(4, self.common + 8, half)
            qtest.put(4, self.common + 12, value)
        qtest.put(1, self.common + 20, 11)

    def out(self, _size, _register, index):
        """Notify a queue, as VirtioQueue does it."""
        self.qtest.put(2, self.common + 22, index)
        offset = self.qtest.get(2, self.common + 30)
        self.qtest.put(2, self.structures[2] + offset * self.multiplier, index)

    def queue(self, index, base):
        """Set up a queue in zeroed memory at @base."""
        self.qtest.put(2, self.common + 22, index)
        queue = VirtioQueue(self, index, base,
                            self.qtest.get(2, self.common + 24))
        for register, addr in ((32, base), (40, queue.avail),
                               (48, queue.used)):
            self.qtest.put(4, self.common + register, addr)
            self.qtest.put(4, self.common + register + 4, 0)
        self.qtest.put(2, self.common + 28, 1)
        return queue

    def ready(self):
        """The driver is there."""
        self.qtest.put(1, self.common + 20, 15)


class GuardDeviceTest(GuardTest):
    """A machine whose CPU halts at once, and whose devices we drive."""

    TARGET = 16 * MIB

    # cli; hlt; jmp to hlt
    HALT = b'\xfa\xf4\xeb\xfd'

    def bios(self, code):
        """A firmware that is a few bytes of code."""
        path = self.scratch_file(f'{code.hex()}.bin')
        if not os.path.exists(path):
            image = bytearray(b'\xf4' * 0x10000)
            if len(code) > 16:
                image[:len(code)] = code
                code = b'\xe9\x0d\x00'   # jmp to there
            image[0xfff0:0xfff0 + len(code)] = code
            with open(path, 'wb') as file:
                file.write(image)
        return path

    def disk(self, name='disk.img', size=MIB):
        """A disk full of 0xd5, as a raw file."""
        path = self.scratch_file(name)
        with open(path, 'wb') as file:
            file.write(b'\xd5' * size)
        return path

    def start(self, *args, name='default', machine='pc', accel='tcg',
              code=HALT):
        """Launch a VM; returns it with its qtest connection as .qtest."""
        path = os.path.join(self.socket_dir().name, f'{name}.qtest')
        vm = self.get_vm(name=name)
        vm.add_args('-nodefaults', '-display', 'none', '-m', '64M',
                    '-machine', f'{machine},accel={accel}',
                    '-bios', self.bios(code),
                    '-chardev', f'socket,id=qtest,path={path},server=on,'
                    'wait=off', '-qtest', 'chardev:qtest', *args)
        vm.launch()
        vm.qtest = Qtest(path)
        return vm

    def protect(self, vm, addr, size=SUBPAGE, access='read',
                action='discard'):
        """subpage-set-access; returns the reply."""
        return vm.qmp('subpage-set-access', {
            'regions': [{'addr': addr, 'size': size, 'access': access}],
            'action': action})

    def armed(self, vm, addr, size=SUBPAGE, access='read', action='discard'):
        """The same, which has to succeed."""
        reply = self.protect(vm, addr, size, access, action)
        self.assertIn('return', reply)

    def lifted(self, vm):
        """Lift everything."""
        self.armed(vm, 0, 0xa0000, 'read-write')
        self.armed(vm, MIB, 63 * MIB, 'read-write')

    def refused(self, reply, *words):
        """An error that says all of these."""
        self.assertIn('error', reply)
        self.assertEqual(reply['error']['class'], 'GenericError')
        for word in words:
            self.assertIn(word, reply['error']['desc'])

    def violations(self, vm):
        """Events since the last time."""
        vm.cmd('query-status')
        found = [e['data'] for e in vm.get_qmp_events()
                 if e['event'] == 'SUBPAGE_VIOLATION']
        return found

    def blamed(self, vm, addr, size, write, path=None):
        """One violation at least, by a device, of this piece."""
        found = self.violations(vm)
        self.assertTrue(found, 'no event')
        for event in found:
            self.assertEqual(event['source'], 'device')
            self.assertEqual(event['write'], write)
            self.assertLess(event['addr'], addr + size)
            self.assertGreater(event['addr'] + event['size'], addr)
            self.assertEqual(event['action'], 'discard')
            if path:
                self.assertIn(path, event.get('qom-path', 'no qom-path'))
        return found

    def until(self, what, seconds=10):
        """Wait for a condition."""
        end = time.monotonic() + seconds
        while not what():
            self.assertLess(time.monotonic(), end, 'waited for too long')
            time.sleep(0.01)
