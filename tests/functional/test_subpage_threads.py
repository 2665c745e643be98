#!/usr/bin/env python3
# SPDX-License-Identifier: GPL-2.0-or-later
"""
Memory becomes protected while a device in an iothread is at work on it.

The iothread is stopped where that matters, as a busy host would do it now and
then.
"""

from contextlib import contextmanager
import os
import socket
import struct
import time

from guard_ptrace import RDX, Thread
from guard_qtest import GuardDeviceTest, LegacyVirtio, MIB, PAGE, SUBPAGE
from guard_virtio import Balloon

FLAG, ARRAY = 0x600, 0x1000
SUBPAGE_REQUEST = 0x4b564d80 + 6
DRIVER = 2 * MIB
OTHER = 32 * MIB

# In real mode: whenever the flag is 1, make the request and set it to 2
ASK = (b'\x31\xc0\x8e\xd8'              # xor %ax, %ax; mov %ax, %ds
       b'\x80\x3e\x00\x06\x01'          # 1: cmpb $1, FLAG
       b'\x75\xf9'                      # jne 1b
       + b'\x66\xb9' + struct.pack('<I', SUBPAGE_REQUEST)
       + b'\x66\xb8' + struct.pack('<I', ARRAY)
       + b'\x66\x31\xd2\x0f\x30'        # xor %edx, %edx; wrmsr
       b'\xc6\x06\x00\x06\x02'          # movb $2, FLAG
       b'\xeb\xe1')                     # jmp 1b


class Iothread(GuardDeviceTest):
    """virtio-blk in an iothread, and a vCPU that protects memory."""

    def setup_vm(self, name='default'):
        """The VM, the device's queue, and the iothread."""
        vm = self.start('-cpu', 'max,+guest-subpage',
                        '-object', 'iothread,id=io', '-blockdev',
                        'driver=file,node-name=d,read-only=on,'
                        f'filename={self.disk()}', '-device',
                        'virtio-blk-pci,addr=4,disable-modern=on,drive=d,'
                        'iothread=io', code=ASK, name=name)
        device = LegacyVirtio(vm.qtest, 4 << 3, 0xc000)
        queue = device.queue(0, MIB)
        device.ready()
        self.read(queue)
        self.assertTrue(queue.wait())
        self.assertEqual(vm.qtest.read(self.TARGET, PAGE), b'\xd5' * PAGE)
        vm.qtest.write(self.TARGET, bytes(PAGE))
        tid = vm.cmd('query-iothreads')[0]['thread-id']
        return vm, queue, Thread(vm.get_pid(), tid)

    def read(self, queue):
        """Post a read of a page."""
        queue.qtest.write(DRIVER, struct.pack('<IIQ', 0, 0, 0))
        queue.qtest.write(DRIVER + PAGE, b'\xff')
        queue.post((DRIVER, 16, False), (self.TARGET, PAGE, True),
                   (DRIVER + PAGE, 1, True))

    def looking_up(self, iothread, queue, size=PAGE):
        """Post a read, and stop where a buffer of this size was found."""
        iothread.run_to(iothread.function('guard_map_record_slow'),
                        lambda: self.read(queue),
                        lambda registers: registers[RDX] == size)

    def ask(self, vm, addr=None):
        """Let the guest protect a piece, one of the page by default."""
        vm.qtest.write(ARRAY, struct.pack(
            '<IIQIHHII', 1, 1, addr or self.TARGET + SUBPAGE, SUBPAGE, 1, 2,
            0xff, 0))
        vm.qtest.put(1, FLAG, 1)

    def answered(self, vm, status=0):
        """The request is done, with this status."""
        self.until(lambda: vm.qtest.get(1, FLAG) == 2)
        self.assertEqual(vm.qtest.get(4, ARRAY + 24), status)

    def waits(self, vm):
        """It is made and not done, as long as this; and the VM is alive."""
        self.until(lambda: vm.qtest.get(4, ARRAY + 24) != 0xff)
        time.sleep(0.3)
        self.assertEqual(vm.qtest.get(1, FLAG), 1)
        self.assertEqual(vm.cmd('query-status')['status'], 'running')

    def intact(self, vm, queue):
        """The page was to be read into, which was refused."""
        self.assertTrue(queue.wait())
        self.assertEqual(vm.qtest.get(1, DRIVER + PAGE), 1)
        self.assertEqual(vm.qtest.read(self.TARGET, PAGE), bytes(PAGE))
        self.assertTrue(self.violations(vm))

    def test_request(self):
        """A guest's request completes when no access is under way."""
        vm, queue, iothread = self.setup_vm()
        with iothread:
            self.looking_up(iothread, queue)
            self.ask(vm, OTHER)
            self.waits(vm)
        self.answered(vm)
        self.assertTrue(queue.wait())

    def test_request_again(self):
        """So does one for what is protected already."""
        vm, queue, iothread = self.setup_vm()
        self.ask(vm, OTHER)
        self.answered(vm)
        with iothread:
            self.looking_up(iothread, queue)
            self.ask(vm, OTHER)
            self.waits(vm)
        self.answered(vm)

    def test_command(self):
        """So does the host's command, which gives up after a second."""
        vm, queue, iothread = self.setup_vm()
        with iothread:
            self.looking_up(iothread, queue)
            self.refused(self.protect(vm, OTHER), "'/objects/io'",
                         'try again')
            self.assertEqual(vm.cmd('query-subpage-access'), [])
        self.assertTrue(queue.wait())
        self.armed(vm, OTHER)

    def test_deleted(self):
        """An iothread without a name that a device goes on using."""
        vm, queue, iothread = self.setup_vm()
        vm.cmd('object-del', id='io')
        with iothread:
            self.looking_up(iothread, queue)
            self.refused(self.protect(vm, OTHER), 'iothread', 'try again')
            self.ask(vm, OTHER)
            self.waits(vm)
        self.answered(vm)
        self.assertTrue(queue.wait())

    def test_looked_up(self):
        """A device that looked the memory up before gets no pointer to it."""
        for piece in 0, SUBPAGE, PAGE - SUBPAGE:
            vm, queue, iothread = self.setup_vm(f'piece-{piece}')
            with iothread:
                self.looking_up(iothread, queue)
                self.ask(vm, self.TARGET + piece)
                self.waits(vm)
            self.answered(vm)
            self.intact(vm, queue)
            vm.shutdown()

    @contextmanager
    def stalled(self, vm):
        """A migration to who does not read; yields what was sent to him."""
        path = os.path.join(self.socket_dir().name, 'stalled')

        def sent():
            info = vm.cmd('query-migrate')
            self.assertEqual(info['status'], 'active')
            return info['ram']['transferred']

        for i in range(8):
            vm.qtest.write(OTHER + (i + 1) * MIB, os.urandom(MIB))
        with socket.socket(socket.AF_UNIX) as listener:
            listener.settimeout(10)
            listener.bind(path)
            listener.listen(1)
            vm.cmd('migrate', uri='unix:' + path)
            destination, _ = listener.accept()
            with destination:
                self.until(lambda: vm.cmd('query-migrate').get('ram'))
                before = -1
                while before != (now := sent()) or now < 0x10000:
                    before = now
                    time.sleep(1)
                yield sent
        os.unlink(path)

    def test_stalled(self):
        """A migration whose destination does not read is not waited for."""
        vm, queue, _ = self.setup_vm()
        with self.stalled(vm) as sent:
            now = sent()
            self.armed(vm, OTHER)
            self.ask(vm)
            self.answered(vm)
            self.assertEqual(sent(), now)
            vm.cmd('migrate_cancel')
        vm.qtest.write(self.TARGET, bytes(PAGE))
        self.read(queue)
        self.intact(vm, queue)

    def test_hints(self):
        """Nor is one whose hints an iothread takes for as long as it lasts."""
        vm = self.start(*Balloon.ARGS, '-cpu', 'max,+guest-subpage', code=ASK)
        balloon = Balloon(vm.qtest)
        with self.stalled(vm):
            self.until(balloon.asked)
            vm.qtest.put(4, 2 * MIB, balloon.asked())
            balloon.hints.post((2 * MIB, 4, False))
            self.assertTrue(balloon.hints.wait())
            self.ask(vm)
            self.answered(vm)
            self.armed(vm, OTHER)
            vm.cmd('stop')
            self.assertEqual(vm.cmd('query-status')['status'], 'paused')
            vm.cmd('migrate_cancel')

    def test_mapped(self):
        """One that has a pointer to it makes the request fail."""
        vm, queue, iothread = self.setup_vm()
        with iothread:
            # The next thing that it maps is the status
            self.looking_up(iothread, queue, 1)
            self.ask(vm)
            self.answered(vm, 9)
        self.assertTrue(queue.wait())
        self.assertEqual(vm.qtest.read(self.TARGET, PAGE), b'\xd5' * PAGE)
        vm.qtest.write(self.TARGET, bytes(PAGE))
        self.ask(vm)
        self.answered(vm)
        self.read(queue)
        self.intact(vm, queue)


if __name__ == '__main__':
    GuardDeviceTest.main()
