#!/usr/bin/env python3
# SPDX-License-Identifier: GPL-2.0-or-later
"""
What happens to a VM with protected memory: migration and snapshots are
refused, not done without the protections; what lifts protections says so.
"""

import os
import tempfile

from qemu.machine.qtest import QEMUQtestProtocol
from qemu_test import QemuSystemTest

REGION = {'addr': 0x100000, 'size': 256, 'access': 'read'}
HOTPLUG = 0xa00                 # q35: select a slot, control it
DIMM = 0x100000000


class SubpageLifecycle(QemuSystemTest):
    """A stopped VM."""

    def start(self, *args):
        """A VM of its own for each test."""
        vm = self.get_vm('-nodefaults', '-S', '-machine', 'q35', *args)
        vm.launch()
        return vm

    def protect(self, vm, **changes):
        """subpage-set-access of one region; QEMU's reply."""
        return vm.qmp('subpage-set-access',
                      {'regions': [dict(REGION, **changes)]})

    def protected(self, vm):
        """Bytes that are protected."""
        return sum(r['size'] for r in vm.cmd('query-subpage-access'))

    def cleared(self, vm):
        """The data of the events that say so."""
        vm.cmd('query-name')
        return [event['data'] for event in vm.get_qmp_events()
                if event['event'] == 'SUBPAGE_CLEARED']

    def migrate(self, vm):
        """Migrate to a file: the error, or how it ended."""
        path = self.scratch_file('image')
        reply = vm.qmp('migrate', {'uri': f'file:{path}'})
        if 'error' in reply:
            return reply['error']['desc']
        while True:
            status = vm.cmd('query-migrate')['status']
            if status in ('completed', 'failed'):
                return status

    def test_migration(self):
        """Refused with the reason, and only while something is protected."""
        vm = self.start('-m', '64')
        self.assertNotIn('error', self.protect(vm))
        self.assertIn('sub-page protection is in use', self.migrate(vm))
        self.assertEqual(self.protected(vm), 256)
        # Part of it lifted is not all of it
        self.protect(vm, size=128, access='read-write')
        self.assertIn('sub-page protection is in use', self.migrate(vm))
        self.protect(vm, access='read-write')
        self.assertEqual(self.migrate(vm), 'completed')

    def test_snapshots(self):
        """savevm is refused; loadvm clears."""
        disk = self.scratch_file('disk')
        self.assertEqual(os.system(
            f"'{self.qemu_img()}' create -q -f qcow2 '{disk}' 64M"), 0)
        vm = self.start('-m', '64', '-drive',
                        f'if=none,id=d,format=qcow2,file={disk}')
        self.assertEqual(vm.cmd('human-monitor-command',
                                command_line='savevm before'), '')
        self.assertNotIn('error', self.protect(vm))
        text = vm.cmd('human-monitor-command', command_line='savevm after')
        self.assertIn('sub-page protection is in use', text)
        self.assertEqual(vm.cmd('human-monitor-command',
                                command_line='loadvm before'), '')
        self.assertEqual(self.cleared(vm),
                         [{'reason': 'reset', 'size': 256}])
        self.assertEqual(self.protected(vm), 0)
        self.assertEqual(vm.cmd('human-monitor-command',
                                command_line='savevm after'), '')

    def qemu_img(self):
        """Beside the QEMU under test."""
        return os.path.join(os.path.dirname(self.qemu_bin), 'qemu-img')

    def test_only_migratable(self):
        """What can't migrate is not even begun."""
        vm = self.start('-m', '64', '-only-migratable')
        reply = self.protect(vm)
        self.assertIn('only-migratable', reply['error']['desc'])
        self.assertEqual(self.protected(vm), 0)
        self.assertEqual(self.migrate(vm), 'completed')

    def test_record(self):
        """A recording has no place for the command."""
        log = self.scratch_file('log')
        vm = self.start('-m', '64', '-net', 'none', '-icount',
                        f'shift=1,rr=record,rrfile={log}')
        reply = self.protect(vm)
        self.assertIn('recording', reply['error']['desc'])
        self.assertEqual(self.protected(vm), 0)

    def test_reset(self):
        """One event, and nothing is left."""
        vm = self.start('-m', '64')
        self.protect(vm)
        self.assertNotIn('error', self.protect(vm, addr=0x3ff0000,
                                               access='none'))
        vm.cmd('system_reset')
        vm.event_wait('RESET', 20)
        self.assertEqual(self.protected(vm), 0)
        vm.cmd('system_reset')
        vm.event_wait('RESET', 20)

    def test_ram_removed(self):
        """The guest ejects a DIMM: its RAM keeps its guards while it lives."""
        with tempfile.TemporaryDirectory() as folder:
            path = os.path.join(folder, 'qtest')
            vm = self.start('-m', '64M,slots=2,maxmem=1G', '-qtest',
                            f'unix:{path},server=on,wait=off')
            qtest = QEMUQtestProtocol(path)
            qtest.connect()
            vm.qmp('object-add', {'qom-type': 'memory-backend-ram',
                                  'id': 'ram', 'size': 128 << 20})
            vm.cmd('device_add', driver='pc-dimm', id='dimm', memdev='ram',
                   addr=DIMM)
            self.assertNotIn('error', self.protect(vm))
            self.assertNotIn('error', self.protect(vm, addr=DIMM + 4096))
            for command in f'outl {HOTPLUG:#x} 0', f'outb {HOTPLUG + 20:#x} 8':
                self.assertEqual(qtest.cmd(command).strip(), 'OK')
            vm.event_wait('DEVICE_DELETED', 20)
            runs = vm.cmd('query-subpage-access')
            self.assertEqual([run.get('addr') for run in runs],
                             [REGION['addr'], None])
            self.assertEqual(runs[1]['offset'], 4096)
            vm.get_qmp_events()
            vm.qmp('object-del', {'id': 'ram'})
            event = vm.event_wait('SUBPAGE_CLEARED', 20)
            self.assertEqual(event['data'],
                             {'reason': 'ram-removed', 'size': 256})
            self.assertEqual(self.protected(vm), 256)
            qtest.close()

    def test_cpu_added(self):
        """A CPU that is plugged while memory is protected."""
        vm = self.start('-m', '64', '-smp', '1,maxcpus=2')
        self.protect(vm)
        slot = next(c for c in vm.cmd('query-hotpluggable-cpus')
                    if 'qom-path' not in c)
        vm.cmd('device_add', driver=slot['type'], id='hot', **slot['props'])
        self.assertNotIn('error', self.protect(vm, access='none'))
        self.assertEqual(self.protected(vm), 256)


if __name__ == '__main__':
    QemuSystemTest.main()
