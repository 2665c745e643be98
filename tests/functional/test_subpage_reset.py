#!/usr/bin/env python3
# SPDX-License-Identifier: GPL-2.0-or-later
"""
What lifts protections says so; what can't keep them is refused.
"""

import os
import tempfile

from qemu.machine.qtest import QEMUQtestProtocol
from qemu_test import QemuSystemTest

REGION = {'addr': 0x100000, 'size': 256, 'access': 'read'}
HOTPLUG = 0xa00                 # q35: select a slot, control it
DIMM = 0x100000000


class SubpageReset(QemuSystemTest):
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
