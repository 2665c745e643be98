#!/usr/bin/env python3
# SPDX-License-Identifier: GPL-2.0-or-later
"""
Sub-page protection through savevm, migration and reset.
"""

import os
import struct
import subprocess

from guard_qtest import (GuardDeviceTest, LegacyVirtio, MIB, ModernVirtio,
                         PAGE, PciDevice, SUBPAGE)
from guard_tpm import FakeTpm
from guard_virtio import Balloon

REGIONS = [
    {'addr': 16 * MIB, 'size': SUBPAGE, 'access': 'read'},
    {'addr': 16 * MIB + 3 * SUBPAGE, 'size': SUBPAGE, 'access': 'none'},
    {'addr': 20 * MIB, 'size': 4 * MIB, 'access': 'read'},
    {'addr': 0x9f000, 'size': 2 * SUBPAGE, 'access': 'none'},
]


class Lifecycle(GuardDeviceTest):
    """Everything travels, or is refused."""

    def arm_all(self, vm):
        """Some of each kind; returns what is listed then."""
        for action, regions in (('discard', REGIONS[:3]),
                                ('report', REGIONS[3:])):
            vm.cmd('subpage-set-access', regions=regions, action=action)
        return self.listed(vm)

    @staticmethod
    def listed(vm):
        """What query-subpage-access tells, without counters."""
        return [{k: v for k, v in r.items() if k not in ('reads', 'writes')}
                for r in vm.cmd('query-subpage-access')]

    def enforced(self, vm):
        """Writes to protected pieces are dropped, others are not."""
        for region in REGIONS[:3]:
            before = vm.qtest.read(region['addr'] + SUBPAGE - 8, 8)
            vm.qtest.write(region['addr'] + SUBPAGE - 8, b'\x99' * 8)
            self.assertEqual(vm.qtest.read(region['addr'] + SUBPAGE - 8, 8),
                             before)
        vm.qtest.write(16 * MIB + SUBPAGE, b'\x99' * 8)
        self.assertEqual(vm.qtest.read(16 * MIB + SUBPAGE, 8), b'\x99' * 8)

    def migrated(self, vm, uri=None, status='completed'):
        """Migrate to a file, or elsewhere, and wait for the end."""
        uri = uri or f'file:{self.scratch_file("state")}'
        vm.cmd('migrate', uri=uri)
        self.until(lambda: vm.cmd('query-migrate')['status'] in
                   ('completed', 'failed'), 60)
        info = vm.cmd('query-migrate')
        self.assertEqual(info['status'], status, info.get('error-desc'))
        return uri

    def incoming(self, vm, uri):
        """Take a migration; returns what query-migrate says at the end."""
        vm.cmd('migrate-incoming', {'uri': uri, 'exit-on-error': False})
        self.until(lambda: vm.cmd('query-migrate').get('status') in
                   ('completed', 'failed'), 60)
        return vm.cmd('query-migrate')

    def state(self, name='state'):
        """The bytes of a saved state."""
        with open(self.scratch_file(name), 'rb') as file:
            return file.read()

    def test_migration(self):
        """The table arrives, and holds before the guest runs."""
        vm = self.start()
        uri = self.migrated(vm)
        self.assertNotIn(b'guard-subpage', self.state())
        vm.cmd('cont')
        want = self.arm_all(vm)
        self.assertEqual(len(want), len(REGIONS))
        os.unlink(self.scratch_file('state'))
        self.migrated(vm)
        self.assertIn(b'guard-subpage', self.state())

        target = self.start('-incoming', 'defer', '-S', name='target')
        info = self.incoming(target, uri)
        self.assertEqual(info['status'], 'completed')
        self.assertEqual(self.listed(target), want)
        self.enforced(target)
        target.cmd('cont')
        self.enforced(target)
        target.cmd('system_reset')
        self.until(lambda: not self.listed(target))

    def test_precopy(self):
        """Devices write beside and at protected memory meanwhile."""
        vm = self.start()
        want = self.arm_all(vm)
        uri = 'unix:' + os.path.join(self.socket_dir().name, 'migration')
        target = self.start('-incoming', 'defer', name='target')
        target.cmd('migrate-incoming', {'uri': uri, 'exit-on-error': False})
        # Slow enough to go round until it is told otherwise
        vm.cmd('migrate-set-parameters', {'max-bandwidth': 65536,
                                          'downtime-limit': 1})
        for page in range(64):
            vm.qtest.write(24 * MIB + page * PAGE, os.urandom(PAGE))
        vm.cmd('migrate', uri=uri)
        self.until(lambda: vm.cmd('query-migrate')['status'] == 'active')
        for turn in range(1, 65):
            data = struct.pack('<Q', turn) * 64
            vm.qtest.write(16 * MIB, data)
            vm.qtest.write(0x9e000, data)
        self.assertEqual(vm.cmd('query-migrate')['status'], 'active')
        vm.cmd('migrate-set-parameters', {'max-bandwidth': 1 << 30,
                                          'downtime-limit': 300})
        self.until(lambda: vm.cmd('query-migrate')['status'] == 'completed',
                   60)
        self.until(lambda: target.cmd('query-status')['status'] == 'running',
                   60)
        self.assertEqual(self.listed(target), want)
        self.assertEqual(target.qtest.read(16 * MIB, SUBPAGE), bytes(SUBPAGE))
        self.assertEqual(target.qtest.read(16 * MIB + SUBPAGE, SUBPAGE),
                         data[:SUBPAGE])
        self.assertEqual(target.qtest.read(0x9e000, 512), data)
        self.enforced(target)

    def test_refused(self):
        """What can't carry protections over says so, by name."""
        vm = self.start()
        self.arm_all(vm)
        for capability, name in (('postcopy-ram', 'postcopy'),
                                 ('background-snapshot',
                                  'background-snapshot'),
                                 ('x-colo', 'COLO')):
            reply = vm.qmp('migrate-set-capabilities', {'capabilities': [
                {'capability': capability, 'state': True}]})
            if 'error' in reply:
                continue
            self.refused(vm.qmp('migrate', {
                'uri': f'file:{self.scratch_file("no")}'}), name, 'protected')
            vm.cmd('migrate-set-capabilities', capabilities=[
                {'capability': capability, 'state': False}])
        vm.cmd('migrate-set-parameters', {'mode': 'cpr-reboot'})
        self.refused(vm.qmp('migrate', {
            'uri': f'file:{self.scratch_file("no")}'}), 'CPR')
        vm.cmd('migrate-set-parameters', {'mode': 'normal'})
        self.migrated(vm)

    def postcopy(self, vm, state):
        """Switch it on or off."""
        reply = vm.qmp('migrate-set-capabilities', {'capabilities': [
            {'capability': 'postcopy-ram', 'state': state}]})
        if 'error' in reply:
            self.skipTest('no postcopy on this host')

    def test_waiting(self):
        """A VM that waits for a migration which can't carry it over."""
        source = self.start(name='source')
        target = self.start('-incoming', 'defer', name='target')
        self.postcopy(source, True)
        self.postcopy(target, True)
        self.refused(self.protect(target, self.TARGET), 'postcopy')
        self.assertEqual(self.listed(target), [])
        # The other way round
        self.postcopy(target, False)
        self.armed(target, self.TARGET)
        self.postcopy(target, True)
        uri = 'unix:' + os.path.join(self.socket_dir().name, 'migration')
        target.cmd('migrate-incoming', {'uri': uri, 'exit-on-error': False})
        source.cmd('migrate', uri=uri)
        self.until(lambda: target.cmd('query-migrate').get('status') in
                   ('failed', 'completed'), 60)
        self.assertEqual(target.cmd('query-migrate')['status'], 'failed')
        self.assertEqual(len(self.listed(target)), 1)
        self.until(lambda: source.cmd('query-migrate')['status'] == 'failed',
                   60)

    def test_not_enforceable(self):
        """A target that can't enforce it does not take it."""
        vm = self.start()
        for protected in False, True:
            if protected:
                self.arm_all(vm)
            uri = self.migrated(vm)
            target = self.start('-incoming', 'defer', name=f'to-{protected}',
                                accel='qtest')
            info = self.incoming(target, uri)
            self.assertEqual(info['status'],
                             'failed' if protected else 'completed')
            self.assertEqual(self.listed(target), [])
            vm.cmd('cont')

    def test_hostile(self):
        """A section that makes no sense is refused."""
        vm = self.start()
        self.arm_all(vm)
        self.migrated(vm)
        good = self.state()
        at = good.index(b'guard-subpage')
        names = good.index(b'pc.ram\0', at)
        # names, then the size of the records, then records
        record = names + 7 + 4
        for number, (where, data) in enumerate((
                (names, b'pc.rax'),                     # no such block
                (names + 6, b'x'),                      # no end
                (names - 4, b'\xff\xff\xff\xff'),       # too many names
                (record - 4, b'\x7f\xff\xff\xff'),      # too many records
                (record, b'\1\0\0\0'),                  # another block
                (record + 4, b'\3\0\0\0'),              # an order too high
                (record + 4, b'\1\0\0\0'),              # not uniform
                (record + 8, b'\x80\0\0\0'),            # not aligned
                (record + 15, b'\xff'),                 # beyond the end
                (record + 16, b'\0\0\0\0'),             # nothing protected
                (record + 20, b'\xff\xff\xff\xff'))):   # no subset
            bad = good[:where] + data + good[where + len(data):]
            with open(self.scratch_file('bad'), 'wb') as file:
                file.write(bad)
            with self.subTest(where=where - record, data=data):
                target = self.start('-incoming', 'defer', '-S',
                                    name=f'target{number}')
                info = self.incoming(target,
                                     f'file:{self.scratch_file("bad")}')
                self.assertEqual(info['status'], 'failed')
                self.assertEqual(self.listed(target), [])
                target.shutdown()

    def test_mapped_already(self):
        """What a device has mapped already is not protected by a table."""
        args = ('-drive', f'if=none,id=d,format=raw,file={self.disk()}',
                '-device', 'ide-hd,drive=d,bus=ide.0')
        lists, fis = 2 * MIB, 2 * MIB + PAGE
        # One bit in a page; one of 2 MiB that are alike; the last of many
        for number, (regions, access, status) in enumerate((
                ([(lists + PAGE - SUBPAGE, SUBPAGE)], 'read', 'completed'),
                ([(lists + 0x380, SUBPAGE)], 'read', 'failed'),
                ([(lists, 2 * MIB)], 'none', 'failed'),
                ([(MIB + i * 2 * SUBPAGE, SUBPAGE) for i in range(4096)] +
                 [(fis, SUBPAGE)], 'none', 'failed'))):
            vm = self.start(*args, name=f'from{number}', machine='q35')
            vm.cmd('subpage-set-access', regions=[
                {'addr': addr, 'size': size, 'access': access}
                for addr, size in regions])
            uri = self.migrated(vm)
            target = self.start(*args, '-incoming', 'defer', '-S',
                                name=f'to{number}', machine='q35')
            ahci = PciDevice(target.qtest, 0x1f << 3 | 2, {5: 0xfe200000})
            self.assertEqual(ahci.config_read(2, 0), 0x8086)
            target.qtest.put(4, 0xfe200004, 1 << 31)
            for register, value in ((0, lists), (4, 0), (8, fis), (12, 0),
                                    (0x18, 0x11)):
                target.qtest.put(4, 0xfe200100 + register, value)
            self.assertTrue(target.qtest.get(4, 0xfe200118) & 0x8000)
            self.assertEqual(self.incoming(target, uri)['status'], status)
            self.assertEqual(bool(self.listed(target)), status == 'completed')
            vm.shutdown()
            target.shutdown()

    def test_other_ram(self):
        """Protected RAM that is ROM or a device's here."""
        devices = ('-device', 'VGA,addr=4')
        vm = self.start(*devices)
        self.armed(vm, 0x1000)
        self.migrated(vm)
        good = self.state()
        at = good.index(b'guard-subpage')
        names = good.index(b'pc.ram\0', at)
        for number, (name, status) in enumerate((
                (b'pc.ram\0', 'completed'),
                (b'pc.rom\0', 'failed'),
                (b'0000:00:04.0/vga.vram\0', 'failed'))):
            with open(self.scratch_file('other'), 'wb') as file:
                file.write(good[:names - 4] + struct.pack('>I', len(name)) +
                           name + good[names + 7:])
            with self.subTest(name=name):
                target = self.start(*devices, '-incoming', 'defer', '-S',
                                    name=f'target{number}')
                info = self.incoming(target,
                                     f'file:{self.scratch_file("other")}')
                self.assertEqual(info['status'], status)
                self.assertEqual(len(self.listed(target)),
                                 status == 'completed')
                target.shutdown()

    def test_request_under_way(self):
        """A request that was mapped whole is, where a piece is protected."""
        disk = ('-blockdev', f'driver=file,node-name=f,'
                f'filename={self.disk()}', '-blockdev',
                '{"driver": "blkdebug", "node-name": "d", "image": "f", '
                '"inject-error": [{"event": "none", "iotype": "read", '
                '"errno": 5, "sector": 4}]}')
        device = ('-device', 'virtio-blk-pci,addr=4,disable-modern=on,'
                  'drive=d,queue-size=16,rerror=stop')
        vm = self.start(*disk, *device)
        virtio = LegacyVirtio(vm.qtest, 4 << 3, 0xc000)
        queue = virtio.queue(0, MIB)
        virtio.ready()
        header, status = 3 * MIB, 3 * MIB + PAGE
        vm.qtest.write(header, struct.pack('<IIQ', 0, 0, 0))
        queue.post((header, 16, False), (2 * MIB, 4 * PAGE, True),
                   (status, 1, True))
        self.until(lambda: vm.cmd('query-status')['status'] == 'io-error')
        uri = self.migrated(vm)

        good = self.start('-blockdev', 'driver=file,node-name=d,'
                          f'filename={self.disk()}', *device, '-incoming',
                          'defer', '-S', name='target')
        self.armed(good, 2 * MIB + PAGE)
        info = self.incoming(good, uri)
        self.assertEqual(info['status'], 'completed')
        good.cmd('cont')
        queue.qtest = good.qtest
        self.assertTrue(queue.wait())
        self.assertEqual(good.qtest.get(1, status), 1)
        self.assertEqual(good.qtest.read(2 * MIB, 4 * PAGE), bytes(4 * PAGE))
        self.blamed(good, 2 * MIB + PAGE, SUBPAGE, True)

    def test_unplugged(self):
        """Memory that virtio-mem has not given to the guest."""
        device = ('-m', '64M,maxmem=2G', '-object',
                  'memory-backend-ram,id=ram,size=256M', '-device',
                  'virtio-mem-pci,memdev=ram,id=mem,addr=4,requested-size=4M,'
                  'block-size=2M,disable-legacy=on,unplugged-inaccessible=on')
        vm = self.start(*device)
        virtio = ModernVirtio(vm.qtest, 4 << 3, 0xe0000000, features=2)
        queue = virtio.queue(0, MIB)
        virtio.ready()
        config = virtio.structures[4]
        block, addr = vm.qtest.get(8, config), vm.qtest.get(8, config + 16)
        self.assertEqual(block, 2 * MIB)
        request, response = 2 * MIB, 2 * MIB + PAGE

        def plug(kind, addr):
            vm.qtest.write(request, struct.pack('<QQQ', kind, addr, 1))
            vm.qtest.write(response, b'\xff' * 10)
            queue.post((request, 24, False), (response, 10, True))
            self.assertTrue(queue.wait())
            return vm.qtest.get(2, response)

        for address in addr, addr + block:
            self.refused(self.protect(vm, address + PAGE), 'regions[0]',
                         'not plugged')
        self.assertEqual(plug(0, addr), 0)
        vm.qtest.write(addr, b'\x11' * 8)
        self.armed(vm, addr)
        vm.qtest.write(addr, b'\x99' * 8)
        self.refused(self.protect(vm, addr + block - PAGE, 2 * PAGE),
                     'regions[0]', 'not plugged')
        # Protected, it stays plugged
        self.assertNotEqual(plug(1, addr), 0)
        want = self.listed(vm)
        self.assertEqual(len(want), 1)

        uri = self.migrated(vm)
        target = self.start(*device, '-incoming', 'defer', '-S', name='target')
        self.assertEqual(self.incoming(target, uri)['status'], 'completed')
        self.assertEqual(self.listed(target), want)
        self.assertEqual(target.qtest.read(addr, 8), b'\x11' * 8)

    def test_snapshot(self):
        """savevm and loadvm."""
        image = self.scratch_file('snapshots.qcow2')
        qemu_img = os.path.join(os.path.dirname(self.qemu_bin), 'qemu-img')
        if not os.path.exists(qemu_img):
            self.skipTest('qemu-img is not built')
        subprocess.run([qemu_img, 'create', '-q', '-f', 'qcow2', image, '1M'],
                       check=True)
        vm = self.start('-drive', f'if=none,id=d,file={image}')
        hmp = 'human-monitor-command'
        self.assertEqual(vm.cmd(hmp, command_line='savevm none'), '')
        want = self.arm_all(vm)
        self.assertEqual(vm.cmd(hmp, command_line='savevm some'), '')
        self.lifted(vm)
        self.assertEqual(vm.cmd(hmp, command_line='loadvm some'), '')
        self.assertEqual(self.listed(vm), want)
        self.enforced(vm)
        self.assertEqual(vm.cmd(hmp, command_line='loadvm none'), '')
        self.assertEqual(self.listed(vm), [])


class Hint(GuardDeviceTest):
    """The guest says that memory is free, and migration leaves it out."""

    TARGET = 48 * MIB
    DATA = b'KERNELOBJECT' * 256

    def migrated(self, name, *steps):
        """What arrives if these are done in turn."""
        uri = 'unix:' + os.path.join(self.socket_dir().name, name)
        source = self.start(*Balloon.ARGS, name=f'{name}-from')
        target = self.start(*Balloon.ARGS, '-incoming', uri, name=f'{name}-to')
        balloon = Balloon(source.qtest)
        for i in range(4):
            source.qtest.write((8 + i) * MIB, os.urandom(MIB))
        source.qtest.write(self.TARGET, self.DATA)
        source.cmd('migrate-set-parameters', {'max-bandwidth': 1000000})
        for step in steps:
            if step == 'migrate':
                source.cmd('migrate', uri=uri)
                self.until(balloon.asked)
            elif step == 'hint':
                self.assertTrue(balloon.hint(self.TARGET, 2 * MIB))
            else:
                self.armed(source, self.TARGET, PAGE, 'read', 'fault')
        self.assertEqual(source.cmd('query-migrate')['status'], 'active')
        source.cmd('migrate-set-parameters', {'max-bandwidth': 1 << 30})
        self.until(lambda: target.cmd('query-status')['status'] == 'running',
                   60)
        self.assertEqual(len(target.cmd('query-subpage-access')),
                         steps.count('arm'))
        got = target.qtest.read(self.TARGET, len(self.DATA))
        source.shutdown()
        target.shutdown()
        return got

    def test_hint(self):
        """Whichever comes first, a protected page arrives."""
        for name, *steps, want in (
                ('bare', 'migrate', 'hint', bytes(len(self.DATA))),
                ('before', 'arm', 'migrate', 'hint', self.DATA),
                ('armed', 'migrate', 'arm', 'hint', self.DATA),
                ('hinted', 'migrate', 'hint', 'arm', self.DATA)):
            with self.subTest(name):
                self.assertEqual(self.migrated(name, *steps), want)


class Wakeup(GuardDeviceTest):
    """Suspend to RAM keeps protections, and what is done when waking up."""

    PPI_CLEAR = 0xfed45000 + 0x15a

    def suspended(self, vm):
        """Suspend a q35 and wake it up."""
        lpc = PciDevice(vm.qtest, 0x1f << 3)
        lpc.config_write(4, 0x40, 0x601)
        lpc.config_write(1, 0x44, 0x80)
        # SLP_EN, and S3 as its type
        vm.qtest.out(2, 0x604, 1 << 13 | 1 << 10)
        self.until(lambda: vm.cmd('query-status')['status'] == 'suspended')
        vm.cmd('system_wakeup')
        self.until(lambda: vm.cmd('query-status')['status'] == 'running')

    def test_tpm(self):
        """The guest asks its TPM to clear all memory at the next boot."""
        for device in 'tpm-crb', 'tpm-tis':
            path = os.path.join(self.socket_dir().name, device)
            FakeTpm(path).start()
            vm = self.start(
                '-chardev', f'socket,id=tpm,path={path}', '-tpmdev',
                'emulator,id=backend,chardev=tpm', '-device',
                f'{device},tpmdev=backend,id=tpm0', machine='q35',
                name=device)
            whole = b'\x5a' * (3 * SUBPAGE)

            # QEMU leaves it as malloc() had it
            vm.qtest.put(1, self.PPI_CLEAR, 0)
            vm.qtest.write(self.TARGET, whole)
            self.suspended(vm)
            self.assertEqual(vm.qtest.read(self.TARGET, len(whole)), whole)
            vm.qtest.put(1, self.PPI_CLEAR, 1)
            self.suspended(vm)
            self.assertEqual(vm.qtest.read(self.TARGET, len(whole)),
                             bytes(len(whole)))

            vm.qtest.write(self.TARGET, whole)
            self.armed(vm, self.TARGET + SUBPAGE)
            self.violations(vm)
            self.suspended(vm)
            self.assertEqual(vm.qtest.read(self.TARGET, len(whole)),
                             bytes(SUBPAGE) + whole[:SUBPAGE] +
                             bytes(SUBPAGE))
            found = self.blamed(vm, self.TARGET + SUBPAGE, SUBPAGE, True,
                                'tpm0')
            self.assertEqual(len(found), 1)

            self.armed(vm, self.TARGET + SUBPAGE, action='report')
            self.suspended(vm)
            self.assertEqual(vm.qtest.read(self.TARGET, len(whole)),
                             bytes(len(whole)))
            self.assertEqual([e['action'] for e in self.violations(vm)],
                             ['report'])
            vm.shutdown()

    def test_rom(self):
        """What a loader puts into RAM at reset, it does when waking up."""
        rom = self.scratch_file('rom')
        with open(rom, 'wb') as file:
            file.write(b'\xd5' * (3 * SUBPAGE))
        vm = self.start('-device', f'loader,file={rom},force-raw=on,'
                        f'addr={self.TARGET:#x}', machine='q35')
        mine = b'\x5a' * (3 * SUBPAGE)
        for action, middle in ((None, b'\xd5'), ('discard', b'\x5a'),
                               ('report', b'\xd5')):
            self.lifted(vm)
            vm.qtest.write(self.TARGET, mine)
            if action:
                self.armed(vm, self.TARGET + SUBPAGE, action=action)
            self.violations(vm)
            self.suspended(vm)
            self.assertEqual(vm.qtest.read(self.TARGET, len(mine)),
                             b'\xd5' * SUBPAGE + middle * SUBPAGE +
                             b'\xd5' * SUBPAGE)
            self.assertEqual([(e['addr'], e['size'], e['action'])
                              for e in self.violations(vm)],
                             [(self.TARGET + SUBPAGE, SUBPAGE, action)]
                             if action else [])


if __name__ == '__main__':
    GuardDeviceTest.main()
