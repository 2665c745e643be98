#!/usr/bin/env python3
# SPDX-License-Identifier: GPL-2.0-or-later
"""
-cpu X,xo=on: who gets it, who is refused, and what a management tool sees.
"""

from subprocess import run

from guard_options import OptionsTest

RAM = ('-object', 'memory-backend-ram,id=ram,size=40G,reserve=off',
       '-m', '40G')


class XoOptions(OptionsTest):
    """Options, errors, properties and CPU models."""

    def test_no_tcg_cpuid(self):
        """Without the TCG leaves the guest can't find the feature."""
        self.assert_refused(['xo=on', 'tcg-cpuid=off', 'tcg-cpuid=on'],
                            '-accel', 'tcg', '-cpu', 'max,+xo,tcg-cpuid=off')

    def test_hidden_leaves(self):
        """Other ways to hide what the guest looks for."""
        self.assert_refused(['xo=on', 'hypervisor=off', 'hypervisor=on'],
                            '-accel', 'tcg', '-cpu', 'max,+xo,-hypervisor')
        self.assert_refused(['xo=on', '0x80000008', 'xlevel=0x80000001'],
                            '-accel', 'tcg',
                            '-cpu', 'max,+xo,xlevel=0x80000001')

    def test_32_bit_models(self):
        """Models without long mode are refused."""
        for model in 'qemu32', 'kvm32', '486', 'pentium3', 'qemu64,-lm':
            self.assert_refused(['xo=on', 'long mode', '64-bit CPU model'],
                                '-accel', 'tcg', '-cpu', f'{model},+xo')

    def test_64_bit_models(self):
        """Every model with long mode takes it."""
        for model in ('max', 'qemu64', 'kvm64', 'EPYC', 'Nehalem',
                      'Skylake-Server'):
            self.assert_starts('-accel', 'tcg', '-cpu', f'{model},+xo')

    def test_kvm(self):
        """KVM does not enforce it."""
        self.require_accelerator('kvm')
        for model in 'max', 'host', 'qemu64':
            self.assert_refused(['xo=on', 'TCG', '-accel tcg'],
                                '-accel', 'kvm', '-cpu', f'{model},+xo')

    def test_enforce(self):
        """"enforce" knows the feature: it is supported."""
        self.assert_starts('-accel', 'tcg', '-cpu', 'qemu64,+xo,enforce')

    def test_too_few_bits(self):
        """Less than 32 bits would be left."""
        self.assert_refused(['xo=on', 'phys-bits=32', 'phys-bits=33'],
                            '-accel', 'tcg', '-cpu', 'max,+xo,phys-bits=32')
        self.assert_starts('-accel', 'tcg', '-M', 'microvm', '-m', '64',
                           '-cpu', 'max,+xo,phys-bits=33')

    def test_guest_phys_bits(self):
        """guest-phys-bits must fit in what is left."""
        cpu = 'max,+xo,phys-bits=40,guest-phys-bits='
        self.assert_refused(['guest-phys-bits=40', '39', 'phys-bits=40'],
                            '-accel', 'tcg', '-cpu', cpu + '40')
        self.assert_starts('-accel', 'tcg', '-cpu', cpu + '39')

    def test_ram_above_the_bits(self):
        """RAM that needs the bit xo=on takes."""
        for machine in 'pc', 'q35', 'microvm':
            args = ('-accel', 'tcg', '-M', machine + ',memory-backend=ram',
                    *RAM, '-cpu')
            self.assert_refused(['RAM ends at 0x', '35 bits', 'phys-bits=36',
                                 'phys-bits=37'],
                                *args, 'max,+xo,phys-bits=36')
            if machine == 'microvm':
                self.assert_starts(*args, 'max,+xo,phys-bits=37')

    def test_pci_hole_above_the_bits(self):
        """
        pc and q35 want room for a PCI hole as well: what upstream says of
        it names xo=on, and only where it is on.
        """
        args = ('-accel', 'tcg', '-M', 'q35', '-m', '1G', '-cpu')
        self.assert_refused(['phys-bits too low (34)', 'xo=on took one'],
                            *args, 'max,+xo,phys-bits=35')
        status, lines = self.start(*args, 'max,phys-bits=34')
        self.assertEqual(status, 1)
        self.assertTrue(lines[0].endswith('phys-bits too low (34)'), lines)

    def test_phys_bits(self):
        """The guest reads one bit less, also of a given phys-bits."""
        for option, bits in (('', 39), (',phys-bits=52', 51),
                             (',phys-bits=46', 45),
                             # TCG ignores these two, with xo=on or without
                             (',host-phys-bits=on,host-phys-bits-limit=38',
                              39)):
            vm = self.stopped('-accel', 'tcg', '-cpu', 'max,+xo' + option)
            self.assertEqual(self.cpu_property(vm, 'phys-bits'), bits)
            self.assertIs(self.cpu_property(vm, 'xo'), True)

    def test_off_by_default(self):
        """Neither max nor anything else turns it on."""
        for model in 'max', 'qemu64', 'base':
            vm = self.stopped('-accel', 'tcg', '-cpu', model)
            self.assertIs(self.cpu_property(vm, 'xo'), False)
            vm.shutdown()
        vm = self.stopped('-accel', 'tcg', '-cpu', 'max')
        self.assertEqual(self.cpu_property(vm, 'phys-bits'), 40)

    def test_several_cpus(self):
        """Every vCPU takes its bit once, a hotplugged one included."""
        vm = self.stopped('-accel', 'tcg', '-smp', '2,maxcpus=3',
                      '-cpu', 'max,+xo')
        slot = next(c for c in vm.cmd('query-hotpluggable-cpus')
                    if 'qom-path' not in c)
        vm.cmd('device_add', driver=slot['type'], id='hot', xo=True,
               **slot['props'])
        cpus = vm.cmd('query-cpus-fast')
        self.assertEqual(len(cpus), 3)
        for cpu in cpus:
            self.assertEqual(vm.cmd('qom-get', path=cpu['qom-path'],
                                    property='phys-bits'), 39)

    def test_hotplug_of_another_kind(self):
        """All vCPUs have the bit, and have it at the same place."""
        for options, asked in (('max,+xo', {'phys-bits': 41}),
                               ('max,+xo', {'phys-bits': 33}),
                               ('max', {'xo': True})):
            vm = self.stopped('-accel', 'tcg', '-smp', '1,maxcpus=2',
                          '-cpu', options)
            self.hotplug_refused(vm, 'first CPU has xo=', **asked)
            vm.shutdown()

    def save_cpu(self, cpu):
        """Migrate a VM with this CPU to a file."""
        vm = self.stopped('-accel', 'tcg', '-m', '64', '-cpu', cpu)
        path = self.save(vm)
        vm.shutdown()
        return path

    def load(self, cpu, path):
        """Start QEMU on such a file; its status and stderr."""
        return self.start('-accel', 'tcg', '-m', '64', '-cpu', cpu,
                          '-incoming', f'file:{path}')

    def test_migration(self):
        """The guest's page tables need the same bit on the target."""
        path = self.save_cpu('max,+xo')
        self.assertEqual(self.load('max,+xo', path)[0], 0)
        for cpu, word in (('max', 'has xo=on, and this one xo=off'),
                          # As many bits as the guest was told
                          ('max,phys-bits=39', 'xo=on, and this one xo=off'),
                          ('max,+xo,phys-bits=48', 'phys-bits')):
            status, lines = self.load(cpu, path)
            self.assertEqual(status, 1, f'{cpu}: {lines}')
            self.assertTrue(any(word in line for line in lines), lines)
        path = self.save_cpu('max')
        self.assertEqual(self.load('max', path)[0], 0)
        for cpu in 'max,+xo', 'max,+xo,phys-bits=41':
            status, lines = self.load(cpu, path)
            self.assertEqual(status, 1, f'{cpu}: {lines}')
            self.assertTrue(any('has xo=off, and this one xo=on' in line
                                for line in lines), lines)

    def test_model_expansion(self):
        """query-cpu-model-expansion: off unless asked for."""
        vm = self.stopped('-accel', 'tcg')
        for kind in 'static', 'full':
            for name in 'max', 'qemu64':
                props = vm.cmd('query-cpu-model-expansion', type=kind,
                               model={'name': name})['model']['props']
                self.assertIs(props['xo'], False, f'{kind} {name}')
                props = vm.cmd('query-cpu-model-expansion', type=kind,
                               model={'name': name, 'props': {'xo': True}}
                               )['model']['props']
                self.assertIs(props['xo'], True, f'{kind} {name}')

    def test_definitions(self):
        """No model needs the feature, so none lists it as unavailable."""
        vm = self.stopped('-accel', 'tcg')
        for model in vm.cmd('query-cpu-definitions'):
            self.assertNotIn('xo', model.get('unavailable-features', []))
        names = [p['name'] for p in vm.cmd('device-list-properties',
                                           typename='max-x86_64-cpu')]
        self.assertIn('xo', names)

    def test_cpu_help(self):
        """-cpu help lists the flag."""
        text = run([self.qemu_bin, '-cpu', 'help'], capture_output=True,
                   text=True, timeout=60, check=True).stdout
        self.assertIn('xo', text.split('Recognized CPUID flags:')[1].split())


if __name__ == '__main__':
    XoOptions.main()
