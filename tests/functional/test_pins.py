#!/usr/bin/env python3
# SPDX-License-Identifier: GPL-2.0-or-later
"""
Register pinning as a management tool sees it: options, errors, QMP and HMP,
CPU hotplug, snapshots and migration.  What is enforced is the business of
tests/guest/pin-*.c.

GUARD_FUZZ_SEED and GUARD_FUZZ_STEPS choose the run of the fuzzer.
"""

import os
import random
import re
import socket
from subprocess import run

from guard_options import OptionsTest

WP = 1 << 16
UMIP, SMEP, SMAP = 1 << 11, 1 << 20, 1 << 21
LSTAR = 0xc0000082
EFER = 0xc0000080
# What the CPU has at reset
CR0_RESET = 0x60000010
TOP = 1 << 64
STEPS = int(os.environ.get('GUARD_FUZZ_STEPS', '300'))
SEED = int(os.environ.get('GUARD_FUZZ_SEED', '1'))


class Base(OptionsTest):
    """What the tests below share."""

    def tcg(self, *args):
        """Start a VM with TCG that stands still."""
        return self.stopped('-accel', 'tcg', '-m', '64', *args)

    def error(self, vm, command, **arguments):
        """The text of the error that a command gives."""
        reply = vm.qmp(command, arguments)
        self.assertIn('error', reply, f'{command} {arguments}')
        self.assertEqual(reply['error']['class'], 'GenericError')
        return reply['error']['desc']

    def hmp(self, vm, line):
        """One line of the human monitor."""
        return vm.cmd('human-monitor-command', command_line=line)

    def gdb(self, vm, *packets):
        """What a debugger is answered."""
        path = self.socket_dir().name + '/gdb'
        self.hmp(vm, f'gdbserver unix:{path},server=on,wait=off')
        answers = []
        with socket.socket(socket.AF_UNIX) as stub:
            stub.settimeout(20)
            stub.connect(path)
            for packet in packets:
                check = sum(packet.encode()) & 0xff
                stub.sendall(f'+${packet}#{check:02x}'.encode())
                data = b''
                while not re.search(rb'\$[^#]*#[0-9a-f]{2}', data):
                    more = stub.recv(4096)
                    if not more:
                        break
                    data += more
                answers.append(re.search(rb'\$([^#]*)#', data)[1].decode())
        self.hmp(vm, 'gdbserver none')
        return answers


class PinOptions(Base):
    """Options, errors, properties and CPU models."""

    def test_off_by_default(self):
        """Neither max nor anything else turns them on."""
        for model in 'max', 'qemu64', 'base', 'EPYC':
            vm = self.tcg('-cpu', model)
            for name in 'cr-pin', 'kvm-cr-pin', 'npiep':
                self.assertIs(self.cpu_property(vm, name), False, model)
            vm.shutdown()

    def test_on(self):
        """Each alone and all together; any 64-bit or 32-bit model."""
        for cpu in ('max,+cr-pin', 'max,+kvm-cr-pin', 'max,npiep=on',
                    'max,+cr-pin,+kvm-cr-pin,npiep=on,+xo',
                    'qemu64,+cr-pin', 'EPYC,+cr-pin', 'qemu32,+cr-pin',
                    'qemu64,npiep=on', 'max,+cr-pin,enforce'):
            self.assert_starts('-accel', 'tcg', '-cpu', cpu)
        vm = self.tcg('-cpu', 'max,+cr-pin,+kvm-cr-pin,npiep=on')
        for name in 'cr-pin', 'kvm-cr-pin', 'npiep':
            self.assertIs(self.cpu_property(vm, name), True)

    def test_hidden(self):
        """The guest could not find it."""
        for flag in 'tcg-cpuid', 'hypervisor':
            self.assert_refused(['cr-pin=on', f'{flag}=off'], '-accel', 'tcg',
                                '-cpu', f'max,+cr-pin,{flag}=off')

    def test_allowed(self):
        """The masks can be widened, not narrowed, by bits there are."""
        for name, default, more, bad in (
                ('cr0', 0x10000, 0x10000 | 1 << 18, 1 << 7),
                ('cr4', 0x310800, 0x310800 | 1 << 2, 1 << 63)):
            prop = f'cr-pin-allowed-{name}'
            vm = self.tcg('-cpu', 'max,+cr-pin')
            self.assertEqual(self.cpu_property(vm, prop), default)
            vm.shutdown()
            vm = self.tcg('-cpu', f'max,+cr-pin,{prop}={more:#x}')
            self.assertEqual(self.cpu_property(vm, prop), more)
            vm.shutdown()
            self.assert_refused([prop, 'must contain', f'{default:#x}'],
                                '-accel', 'tcg', '-cpu',
                                f'max,+cr-pin,{prop}=0')
            self.assert_refused([prop], '-accel', 'tcg', '-cpu',
                                f'max,+cr-pin,{prop}={default | bad:#x}')

    def test_kvm(self):
        """KVM can't stop a MOV CR."""
        if not os.access('/dev/kvm', os.R_OK | os.W_OK):
            self.skipTest('/dev/kvm not usable')
        for cpu, word in (('host,+cr-pin', 'TCG'), ('host,npiep=on', 'TCG'),
                          ('host,+kvm-cr-pin', 'KVM_FEATURE_')):
            status, lines = self.start('-accel', 'kvm', '-cpu', cpu)
            self.assertEqual(status, 1, f'{cpu}: {lines}')
            self.assertTrue(any(word in line for line in lines), lines)

    def test_model_expansion(self):
        """Off unless asked for."""
        vm = self.tcg()
        for kind in 'static', 'full':
            for name in 'max', 'qemu64':
                for on in False, True:
                    model = {'name': name}
                    if on:
                        model['props'] = {'cr-pin': True}
                    props = vm.cmd('query-cpu-model-expansion', type=kind,
                                   model=model)['model']['props']
                    self.assertIs(props['cr-pin'], on, f'{kind} {name}')

    def test_definitions(self):
        """No model needs the features, so none lists them as missing."""
        vm = self.tcg()
        for model in vm.cmd('query-cpu-definitions'):
            self.assertNotIn('cr-pin', model.get('unavailable-features', []))
        names = [p['name'] for p in vm.cmd('device-list-properties',
                                           typename='max-x86_64-cpu')]
        for name in ('cr-pin', 'kvm-cr-pin', 'npiep', 'cr-pin-allowed-cr0',
                     'cr-pin-allowed-cr4'):
            self.assertIn(name, names)

    def test_hotplug_of_another_kind(self):
        """A CPU without npiep would be a way round it."""
        for options, asked in (('max,npiep=on', {'npiep': False}),
                               ('max', {'npiep': True})):
            vm = self.tcg('-smp', '1,maxcpus=2', '-cpu', options)
            self.hotplug_refused(vm, 'npiep', **asked)
            vm.shutdown()


class PinCommands(Base):
    """register-pin and its like, on a VM that stands still."""

    def pins(self, vm):
        """What query-register-pins lists."""
        return vm.cmd('query-register-pins')

    def info(self, vm):
        """What query-guard says."""
        return next(f for f in vm.cmd('query-guard')
                    if f['feature'] == 'register-pinning')

    def pin(self, vm, *registers, **more):
        """A register-pin that has to succeed."""
        vm.cmd('register-pin', registers=list(registers), **more)

    def test_query_guard(self):
        """Available, on, how much."""
        vm = self.tcg('-cpu', 'max')
        info = self.info(vm)
        self.assertIs(info['available'], True)
        self.assertIs(info['on'], False)
        self.assertEqual(info['enforced-by'], 'tcg')
        self.assertEqual(set(info['actions']),
                         {'report', 'discard', 'fault', 'pause'})
        self.assertEqual(info['limits']['records-used'], 0)
        self.pin(vm, {'register': 'cr0', 'ones': WP})
        info = self.info(vm)
        self.assertIs(info['on'], True)
        self.assertEqual(info['limits']['records-used'], 1)
        self.assertEqual(info['counters']['writes'], 0)
        vm.cmd('register-unpin', registers=[{'register': 'cr0'}])
        self.assertIs(self.info(vm)['on'], False)

    def test_without_tcg(self):
        """Nobody to enforce it."""
        vm = self.stopped('-accel', 'qtest', '-cpu', 'max')
        self.assertIs(self.info(vm)['available'], False)
        self.assertIn('TCG', self.error(
            vm, 'register-pin', registers=[{'register': 'cr0', 'ones': WP}]))
        self.assertEqual(self.pins(vm), [])

    def test_no_machine(self):
        """There is no CPU to pin anything of, and that is said."""
        vm = self.stopped('-accel', 'tcg', '-M', 'none')
        info = self.info(vm)
        self.assertIs(info['available'], False)
        self.assertIn('no CPU', info['reason'])
        for command, register in (('register-pin', {'ones': WP}),
                                  ('register-unpin', {})):
            text = self.error(vm, command, registers=[
                dict(register, register='cr0')])
            self.assertIn('no CPU', text)
            self.assertIn('-machine', text)
        self.assertIn('no CPU', self.hmp(vm, f'register_pin cr0 {WP:#x}'))
        self.assertEqual(self.pins(vm), [])

    def test_defaults(self):
        """What is left out."""
        vm = self.tcg('-cpu', 'max')
        self.pin(vm, {'register': 'cr0', 'zeros': WP})
        want = {'cpu-index': 0, 'register': 'cr0', 'set-by': 'host',
                'action': 'fault', 'on-init': 'grace', 'grace-ms': 10000,
                'state': 'armed', 'zeros': WP}
        got = dict(self.pins(vm)[0])
        self.assertEqual(got.pop('ones', 0), 0)
        self.assertEqual(got, want)

    def test_armed_or_waiting(self):
        """By what the register holds now."""
        vm = self.tcg('-cpu', 'max')
        self.pin(vm, {'register': 'cr0', 'ones': 0x10, 'zeros': WP},
                 {'register': 'cr4', 'ones': SMEP},
                 {'register': 'efer', 'zeros': 1 << 11},
                 {'register': 'msr', 'index': LSTAR},
                 {'register': 'msr', 'index': 0x176, 'value': 5},
                 {'register': 'idtr', 'value': 0, 'limit': 0xffff},
                 {'register': 'gdtr', 'value': 4096, 'limit': 0xff})
        states = [(p['register'], p.get('index'), p['state'])
                  for p in self.pins(vm)]
        self.assertEqual(sorted(states, key=str), sorted([
            ('cr0', None, 'armed'), ('cr4', None, 'waiting'),
            ('efer', None, 'armed'), ('msr', LSTAR, 'armed'),
            ('msr', 0x176, 'waiting'), ('idtr', None, 'armed'),
            ('gdtr', None, 'waiting')], key=str))

    def test_replace(self):
        """A second pin of a register takes the place of the first."""
        vm = self.tcg('-cpu', 'max')
        self.pin(vm, {'register': 'cr4', 'ones': SMEP})
        self.pin(vm, {'register': 'cr4', 'ones': SMAP, 'zeros': UMIP},
                 action='report')
        pins = self.pins(vm)
        self.assertEqual(len(pins), 1)
        self.assertEqual((pins[0]['ones'], pins[0]['zeros'],
                          pins[0]['action']), (SMAP, UMIP, 'report'))

    def test_cpu_index(self):
        """One CPU or all."""
        vm = self.tcg('-cpu', 'max', '-smp', '3')
        self.pin(vm, {'register': 'cr4', 'ones': SMEP}, **{'cpu-index': 1})
        self.assertEqual([p['cpu-index'] for p in self.pins(vm)], [1])
        self.pin(vm, {'register': 'cr4', 'ones': SMAP})
        self.assertEqual([(p['cpu-index'], p['ones'])
                          for p in self.pins(vm)],
                         [(0, SMAP), (1, SMAP), (2, SMAP)])
        vm.cmd('register-unpin', registers=[{'register': 'cr4'}],
               **{'cpu-index': 2})
        self.assertEqual([p['cpu-index'] for p in self.pins(vm)], [0, 1])
        for index in -1, 3, 1 << 31, -1 << 40:
            text = self.error(vm, 'register-pin', **{
                'registers': [{'register': 'cr4', 'ones': UMIP}],
                'cpu-index': index})
            self.assertIn('cpu-index', text)

    def test_unpin(self):
        """What is not pinned can't be unpinned; all or nothing."""
        vm = self.tcg('-cpu', 'max')
        self.pin(vm, {'register': 'cr4', 'ones': SMEP},
                 {'register': 'msr', 'index': LSTAR, 'value': 1})
        before = self.pins(vm)
        for registers in ([{'register': 'cr0'}],
                          [{'register': 'cr4'}, {'register': 'idtr'}],
                          [{'register': 'msr', 'index': 0x174}],
                          [{'register': 'msr'}],
                          [{'register': 'cr4', 'index': 4}]):
            text = self.error(vm, 'register-unpin', registers=registers)
            self.assertIn(f'registers[{len(registers) - 1}]', text)
            self.assertEqual(self.pins(vm), before)
        vm.cmd('register-unpin', registers=[
            {'register': 'msr', 'index': LSTAR}, {'register': 'cr4'}])
        self.assertEqual(self.pins(vm), [])

    def test_too_many(self):
        """64 in one command, and no more."""
        vm = self.tcg('-cpu', 'max')
        good = [{'register': 'msr', 'index': LSTAR, 'value': 1}] * 65
        self.assertIn('64', self.error(vm, 'register-pin', registers=good))
        self.assertEqual(self.pins(vm), [])

    def test_too_many_for_all(self):
        """What is for all CPUs can be more than what each of them has."""
        vm = self.tcg('-cpu', 'max', '-smp', '1,maxcpus=2')
        # MTRRs and the banks of machine checks
        msrs = [{'register': 'msr', 'index': index}
                for index in [*range(0x200, 0x210), *range(0x400, 0x428),
                              0x250, 0x258, 0x259, *range(0x268, 0x26e)]]
        more = [{'register': 'cr4', 'ones': SMEP},
                {'register': 'cr0', 'ones': WP}]
        self.assertEqual(len(msrs), 65)
        self.pin(vm, *[dict(msr, value=0) for msr in msrs[:64]])
        vm.cmd('register-unpin', registers=msrs[:2], **{'cpu-index': 0})
        before = self.pins(vm)
        self.assertEqual(len(before), 62)
        text = self.error(vm, 'register-pin', registers=more)
        self.assertIn('66', text)
        self.assertEqual(self.pins(vm), before)
        # For one CPU, or in the place of others, there is room
        self.pin(vm, *more, **{'cpu-index': 0})
        vm.cmd('register-unpin', registers=msrs[2:4])
        self.pin(vm, *more)
        slot = next(c for c in vm.cmd('query-hotpluggable-cpus')
                    if 'qom-path' not in c)
        vm.cmd('device_add', driver=slot['type'], id='hot', **slot['props'])
        self.assertEqual(len([p for p in self.pins(vm)
                              if p['cpu-index'] == 1]), 64)

    def test_full_list(self):
        """One more, and one that leaves the list in the same command."""
        vm = self.tcg('-cpu', 'max')
        msrs = [{'register': 'msr', 'index': index}
                for index in [*range(0x200, 0x210), *range(0x400, 0x428),
                              0x250, 0x258, *range(0x268, 0x26e)]]
        self.assertEqual(len(msrs), 64)
        self.pin(vm, *[dict(msr, value=0) for msr in msrs])
        vm.cmd('register-unpin', registers=msrs[:1], **{'cpu-index': 0})
        # Without a value it holds for the CPUs that there are
        self.pin(vm, {'register': 'cr4', 'ones': SMEP}, msrs[1])
        self.assertEqual(len(self.pins(vm)), 64)

    def test_record(self):
        """A replay could not know of it."""
        log = self.scratch_file('replay')
        vm = self.stopped('-accel', 'tcg', '-icount',
                          f'shift=auto,rr=record,rrfile={log}')
        self.assertIn('recording', self.error(
            vm, 'register-pin', registers=[{'register': 'cr0', 'ones': WP}]))

    def test_hmp(self):
        """The twins."""
        vm = self.tcg('-cpu', 'max', '-smp', '2')
        self.assertEqual(self.hmp(vm, f'register_pin cr4 {SMEP:#x}'), '')
        self.assertEqual(self.hmp(vm, f'register_pin cr0 {WP:#x}/0x4 report '
                                  '1'), '')
        self.assertEqual(self.hmp(vm, f'register_pin msr:{LSTAR:#x} 0x5'), '')
        self.assertEqual(self.hmp(vm, 'register_pin msr:0x176 now'), '')
        self.assertEqual(self.hmp(vm, 'register_pin idtr 0x1000/0xff'), '')
        pins = {(p['cpu-index'], p['register'], p.get('index')): p
                for p in self.pins(vm)}
        self.assertEqual(len(pins), 9)
        self.assertEqual(pins[0, 'cr4', None]['ones'], SMEP)
        self.assertEqual(pins[1, 'cr0', None]['ones'], WP)
        self.assertEqual(pins[1, 'cr0', None]['zeros'], 4)
        self.assertEqual(pins[1, 'cr0', None]['action'], 'report')
        self.assertEqual(pins[0, 'msr', LSTAR]['value'], 5)
        self.assertEqual(pins[1, 'idtr', None]['value'], 0x1000)
        self.assertEqual(pins[1, 'idtr', None]['limit'], 0xff)
        text = self.hmp(vm, 'info register-pins')
        for word in 'cr4', 'cr0', f'{LSTAR:#x}', 'waiting', 'armed', 'report':
            self.assertIn(word, text)
        self.assertEqual(self.hmp(vm, 'register_unpin cr4 1'), '')
        self.assertEqual(self.hmp(vm, 'register_unpin cr4'), '')
        self.assertEqual(self.hmp(vm, f'register_unpin msr:{LSTAR:#x}'), '')
        self.assertEqual(len(self.pins(vm)), 5)
        before = self.pins(vm)
        for line in ('register_pin', 'register_pin cr4', 'register_pin cr2 1',
                     'register_pin cr4 x', 'register_pin cr4 0/0',
                     'register_pin cr4 1 explode', 'register_pin cr4 1 fault '
                     '7', 'register_pin msr 1', 'register_pin msr: 1',
                     'register_pin msr:zz 1', 'register_pin idtr 5',
                     'register_pin idtr 1/2/3', 'register_pin cr4 '
                     '0x1ffffffffffffffff', 'register_unpin cr3',
                     'register_unpin cr4', 'register_pin cr4 -1',
                     'register_pin msr:0x100000082 1'):
            self.assertNotEqual(self.hmp(vm, line), '', line)
            self.assertEqual(self.pins(vm), before, line)

    def test_hotplug(self):
        """A CPU that comes later gets the pins that are for all."""
        vm = self.tcg('-cpu', 'max', '-smp', '1,maxcpus=2')
        self.pin(vm, {'register': 'cr4', 'ones': SMEP},
                 {'register': 'msr', 'index': LSTAR, 'value': 7},
                 {'register': 'msr', 'index': 0x176}, action='discard')
        self.pin(vm, {'register': 'cr0', 'ones': WP}, **{'cpu-index': 0})
        slot = next(c for c in vm.cmd('query-hotpluggable-cpus')
                    if 'qom-path' not in c)
        vm.cmd('device_add', driver=slot['type'], id='hot', **slot['props'])
        pins = {(p['register'], p.get('index')): p for p in self.pins(vm)
                if p['cpu-index'] == 1}
        self.assertEqual(set(pins), {('cr4', None), ('msr', LSTAR)})
        self.assertEqual(pins['cr4', None]['action'], 'discard')
        self.assertEqual(pins['msr', LSTAR]['value'], 7)
        vm.cmd('register-unpin', registers=[{'register': 'cr4'}])
        self.assertNotIn('cr4', [p['register'] for p in self.pins(vm)])

    def test_debugger(self):
        """The host's debugger writes what it likes."""
        vm = self.tcg('-cpu', 'max')
        self.pin(vm, {'register': 'cr0', 'zeros': WP})
        # Register 27 is CR0, as in gdb-xml/i386-64bit.xml
        value = (CR0_RESET | WP).to_bytes(8, 'little').hex()
        answers = self.gdb(vm, f'P1b={value}', 'p1b')
        self.assertEqual(answers, ['OK', value])
        self.assertEqual(self.info(vm)['counters']['writes'], 0)


class PinFuzz(Base):
    """register-pin with random and hostile arguments, against a model."""

    KNOWN_MSRS = (LSTAR, 0x174, 0x175, 0x176, 0x1a0, 0xc0000081, 0xc0000083,
                  0xc0000084, 0xc0000100, 0xc0000101, 0xc0000102)

    def good(self, rng):
        """An element that is right."""
        kind = rng.choice(('cr0', 'cr4', 'efer', 'msr', 'idtr', 'gdtr'))
        element = {'register': kind}
        if kind in ('cr0', 'cr4', 'efer'):
            bits = {'cr0': (WP, 4, 1 << 18, 0x10), 'efer': (1, 1 << 11),
                    'cr4': (SMEP, SMAP, UMIP, 4)}[kind]
            chosen = rng.sample(bits, rng.randrange(1, len(bits) + 1))
            cut = rng.randrange(len(chosen) + 1)
            if chosen[:cut]:
                element['ones'] = sum(chosen[:cut])
            if chosen[cut:]:
                element['zeros'] = sum(chosen[cut:])
        elif kind == 'msr':
            element['index'] = rng.choice(self.KNOWN_MSRS)
            element['value'] = rng.randrange(1 << 16)
        else:
            element['value'] = rng.randrange(1 << 32)
            element['limit'] = rng.randrange(1 << 16)
        return element

    def bad(self, rng):
        """An element that no call may accept."""
        element = self.good(rng)
        kind = element['register']
        if kind in ('cr0', 'cr4', 'efer'):
            return rng.choice((
                {'register': kind}, {'register': kind, 'ones': 0, 'zeros': 0},
                {'register': kind, 'ones': 1, 'zeros': 1},
                {'register': kind, 'ones': 1 << 63},
                {'register': kind, 'zeros': TOP - 1},
                dict(element, value=1), dict(element, limit=1),
                dict(element, index=3), dict(element, ones=-1),
                dict(element, ones=TOP), dict(element, ones='1')))
        if kind == 'msr':
            return rng.choice((
                {'register': 'msr', 'value': 1}, dict(element, index=EFER),
                dict(element, index=rng.randrange(0x12340000, 0x12350000)),
                dict(element, index=1 << 32), dict(element, index=-1),
                dict(element, ones=1), dict(element, limit=4),
                dict(element, value='1'), dict(element, value=TOP)))
        return rng.choice((
            {'register': kind, 'value': 1}, {'register': kind, 'limit': 1},
            dict(element, limit=1 << 16), dict(element, limit=-1),
            dict(element, ones=1), dict(element, index=1)))

    def step(self, vm, rng, model):
        """One command, and what became of it."""
        registers = [self.good(rng)
                     for _ in range(rng.choice((0, 1, 1, 2, 5)))]
        wrong = rng.random() < 0.3
        if wrong:
            registers.insert(rng.randrange(len(registers) + 1),
                             self.bad(rng))
        keys = [(r['register'], r.get('index')) for r in registers]
        wrong = wrong or len(set(keys)) != len(keys)
        arguments = {'registers': registers,
                     'action': rng.choice(('report', 'discard', 'fault',
                                           'pause'))}
        cpus = range(2)
        if rng.random() < 0.3:
            index = rng.choice((0, 1, 1, -1, 2, 1 << 40))
            arguments['cpu-index'] = index
            wrong = wrong or index not in cpus
            cpus = [index]
        if rng.random() < 0.2:
            arguments['on-init'] = rng.choice(('grace', 'strict', 'no', 5))
            wrong = wrong or arguments['on-init'] in ('no', 5)
        reply = vm.qmp('register-pin', arguments)
        self.assertIn('error' if wrong else 'return', reply, arguments)
        if not wrong:
            for cpu in cpus:
                for key, register in zip(keys, registers):
                    model[(cpu,) + key] = (arguments['action'], register)

    def check(self, vm, model):
        """query-register-pins has what the model has."""
        pins = vm.cmd('query-register-pins')
        self.assertEqual({(p['cpu-index'], p['register'], p.get('index'))
                          for p in pins}, set(model))
        for p in pins:
            action, register = model[p['cpu-index'], p['register'],
                                     p.get('index')]
            self.assertEqual(p['action'], action)
            for name in 'ones', 'zeros', 'value', 'limit':
                self.assertEqual(p.get(name, 0), register.get(name, 0), p)

    def test_model(self):
        """All or nothing, and listed as it is."""
        vm = self.tcg('-cpu', 'max', '-smp', '2')
        rng = random.Random(SEED)
        model = {}
        for number in range(STEPS):
            self.log.info('seed %d, step %d', SEED, number)
            self.step(vm, rng, model)
            if model and rng.random() < 0.3:
                cpu, name, index = rng.choice(sorted(model, key=str))
                selector = {'register': name}
                if index is not None:
                    selector['index'] = index
                vm.cmd('register-unpin', registers=[selector],
                       **{'cpu-index': cpu})
                del model[cpu, name, index]
            self.check(vm, model)
        self.assertEqual(vm.cmd('query-status')['status'], 'prelaunch')


class PinState(Base):
    """What is saved and loaded."""

    PINS = [{'register': 'cr0', 'ones': 0x10, 'zeros': WP},
            {'register': 'cr4', 'ones': SMEP},
            {'register': 'msr', 'index': LSTAR, 'value': 0},
            {'register': 'idtr', 'value': 0, 'limit': 0xffff}]

    def pinned(self, vm):
        """Pin some, and give what is listed then."""
        vm.cmd('register-pin', registers=self.PINS, action='discard')
        return vm.cmd('query-register-pins')

    def target(self, path, *args):
        """A VM that takes an image."""
        vm = self.tcg(*args, '-incoming', f'file:{path}')
        while vm.cmd('query-status')['status'] == 'inmigrate':
            pass
        return vm

    def test_migration(self):
        """There and back."""
        vm = self.tcg('-cpu', 'max', '-smp', '2')
        pins = self.pinned(vm)
        self.assertEqual(len(pins), 8)
        for _ in range(2):
            path = self.save(vm)
            vm.shutdown()
            vm = self.target(path, '-cpu', 'max', '-smp', '2')
            self.assertEqual(vm.cmd('query-register-pins'), pins)
        vm.cmd('register-unpin', registers=[{'register': 'cr4'}])

    def test_nothing_pinned(self):
        """An image without pins has nothing of them."""
        vm = self.tcg('-cpu', 'max')
        with open(self.save(vm), 'rb') as file:
            image = file.read()
        self.assertNotIn(b'cpu/guard', image)
        self.assertNotIn(b'cpu/pin', image)

    def without_state(self, vm):
        """The pins, armed or not."""
        return [dict(pin, state=None)
                for pin in vm.cmd('query-register-pins')]

    def test_target_has_pins(self):
        """What the host pins on the target before is kept."""
        path = self.save(self.tcg('-cpu', 'max'))
        vm = self.tcg('-cpu', 'max', '-incoming', 'defer')
        self.pinned(vm)
        pins = self.without_state(vm)
        vm.cmd('migrate-incoming', uri=f'file:{path}')
        while vm.cmd('query-status')['status'] == 'inmigrate':
            pass
        self.assertEqual(self.without_state(vm), pins)

    def test_hostile_image(self):
        """CR0 is not what its pin says."""
        vm = self.tcg('-cpu', 'max')
        vm.cmd('register-pin', registers=[{'register': 'cr0',
                                           'ones': 1 << 30}])
        path = self.save(vm)
        vm.shutdown()
        with open(path, 'rb') as file:
            image = file.read()
        at = image.find(CR0_RESET.to_bytes(8, 'big'))
        self.assertGreater(at, 0)
        hostile = (CR0_RESET & ~(1 << 30)).to_bytes(8, 'big')
        with open(path, 'wb') as file:
            file.write(image[:at] + hostile + image[at + 8:])
        args = ('-accel', 'tcg', '-m', '64', '-cpu', 'max')
        status, lines = self.start(*args, '-incoming', f'file:{path}')
        self.assertEqual(status, 1, lines)
        self.assertTrue(any('cr0' in line.lower() for line in lines), lines)
        with open(path, 'wb') as file:
            file.write(image)
        self.assertEqual(self.start(*args, '-incoming', f'file:{path}')[0], 0)

    def loaded(self, path, *args):
        """
        Have a VM with a pin of its own load an image; tell whether it did.
        Either way it lives on, and after a refusal its pin is as it was.
        """
        vm = self.tcg('-cpu', 'max', *args, '-incoming', 'defer')
        vm.cmd('register-pin', registers=[{'register': 'efer', 'ones': 1}],
               action='report')
        cpu = vm.cmd('query-cpus-fast')[0]['qom-path']
        allowed = {'path': cpu, 'property': 'cr-pin-allowed-cr4'}
        pins = self.without_state(vm)
        mask = vm.cmd('qom-get', **allowed)
        vm.cmd('migrate-incoming', **{'uri': f'file:{path}',
                                      'exit-on-error': False})
        while True:
            status = vm.cmd('query-migrate').get('status')
            if status in ('completed', 'failed'):
                break
        now = self.without_state(vm)
        if status == 'failed':
            self.assertEqual(now, pins)
            self.assertEqual(vm.cmd('qom-get', **allowed), mask)
        vm.cmd('query-guard')
        vm.cmd('system_reset')
        self.assertEqual([dict(pin, state=None) for pin in
                          vm.cmd('query-register-pins')], now)
        vm.shutdown()
        return status == 'completed'

    # The pins of a CPU in an image: its version, the masks that are allowed,
    # and ones, zeros and held, each for CR0 and CR4; a number and the entries
    VERSION, ALLOWED, ONES, COUNT, ENTRIES, ENTRY = 0, 4, 20, 68, 72, 45

    def image(self):
        """An image with pins, where they are, and how long they are."""
        vm = self.tcg('-cpu', 'max')
        pins = self.pinned(vm)
        path = self.save(vm)
        vm.shutdown()
        with open(path, 'rb') as file:
            data = file.read()
        # Behind the RAM; the description at the end has the name once more
        at = data.index(b'\x08cpu/pins') + 9
        count = int.from_bytes(data[at + self.COUNT:][:4], 'big')
        self.assertEqual(count, len(pins))
        return path, data, at, self.ENTRIES + count * self.ENTRY

    def test_bad_image(self):
        """What makes no sense is refused, and nothing of it is left."""
        path, image, at, _ = self.image()
        second = self.ENTRIES + self.ENTRY
        entry = image[at + self.ENTRIES:][:self.ENTRY]
        beyond = at + self.ENTRIES + 4 * self.ENTRY
        for name, where, new, end in (
                ('more than there is room for', self.COUNT,
                 (65).to_bytes(4, 'big') + entry * 65, None),
                ('too many by far', self.COUNT, (100000).to_bytes(4, 'big'),
                 None),
                ('no such register', self.ENTRIES, b'\x4d', None),
                ('the end in the middle of a pin', self.ENTRIES, b'\x4d',
                 second + 10),
                ('the end behind the pins', self.ENTRIES, b'\x4d',
                 beyond - at),
                ('no such action', second + 1, b'\x09', None),
                ('twice the same', second, entry, None),
                ('less allowed than always is', self.ALLOWED, bytes(8), None),
                ('an unknown bit allowed', self.ALLOWED, b'\x80', None),
                ('the guest has what it may not', self.ONES, b'\x80', None),
                ('a bit that the host wants otherwise', self.ONES,
                 WP.to_bytes(8, 'big'), None),
                ('ones and zeros at once', self.ONES + 8,
                 SMAP.to_bytes(8, 'big') + bytes(8) + SMAP.to_bytes(8, 'big'),
                 None)):
            with self.subTest(name):
                data = bytearray(image)
                data[at + where:at + where + len(new)] = new
                with open(path, 'wb') as file:
                    file.write(data[:at + end] if end else data)
                self.assertFalse(self.loaded(path))
        with open(path, 'wb') as file:
            file.write(image)
        self.assertTrue(self.loaded(path))

    def test_changed_image(self):
        """An image with anything in the pins' place is taken or refused."""
        rng = random.Random(SEED)
        path, image, at, size = self.image()
        refused = 0
        steps = max(5, STEPS // 30)
        for step in range(steps):
            data = bytearray(image)
            for _ in range(rng.randrange(1, 9)):
                data[at + rng.randrange(size)] = rng.randrange(256)
            with open(path, 'wb') as file:
                file.write(data)
            with self.subTest(seed=SEED, step=step):
                refused += not self.loaded(path)
        self.assertGreater(refused, steps // 3)

    def test_allowed_travels(self):
        """What the guest may pin is what it was."""
        path = self.save(self.tcg('-cpu', 'max,+cr-pin,'
                                  'cr-pin-allowed-cr4=0x310804'))
        vm = self.target(path, '-cpu', 'max,+cr-pin')
        cpu = vm.cmd('query-cpus-fast')[0]['qom-path']
        self.assertEqual(vm.cmd('qom-get', path=cpu,
                                property='cr-pin-allowed-cr4'), 0x310804)

    def test_property_differs(self):
        """What the guest was told it has has to be the same on both sides."""
        for name in 'cr-pin', 'kvm-cr-pin', 'npiep', 'guest-subpage':
            for here, there in ('on', 'off'), ('off', 'on'):
                path = self.save(self.tcg('-cpu', f'max,{name}={here}'))
                args = ('-accel', 'tcg', '-m', '64', '-incoming',
                        f'file:{path}', '-cpu')
                status, lines = self.start(*args, f'max,{name}={there}')
                self.assertEqual(status, 1, f'{name}={here}')
                self.assertTrue(any(
                    f"image's CPU 0 has {name}={here}, and this one "
                    f'{name}={there}' in line for line in lines), lines)
                self.assertEqual(self.start(*args, f'max,{name}={here}')[0],
                                 0)

    def test_property_of_one(self):
        """Also of a CPU that is not the first."""
        cpus = ('-smp', '1,maxcpus=2', '-cpu', 'max', '-device',
                'max-x86_64-cpu,socket-id=0,core-id=1,thread-id=0')
        path = self.save(self.tcg(*cpus[:-1], cpus[-1] + ',cr-pin=on'))
        args = ('-accel', 'tcg', '-m', '64', '-incoming', f'file:{path}')
        status, lines = self.start(*args, *cpus)
        self.assertEqual(status, 1)
        self.assertTrue(any("image's CPU 1 has cr-pin=on" in line
                            for line in lines), lines)
        self.assertEqual(self.start(*args, *cpus[:-1],
                                    cpus[-1] + ',cr-pin=on')[0], 0)

    def test_unknown_property(self):
        """An image of a QEMU to come."""
        path = self.save(self.tcg('-cpu', 'max,cr-pin=on'))
        with open(path, 'rb') as file:
            image = file.read()
        # The name, the version, the word of properties
        at = image.find(b'cpu/guard') + len(b'cpu/guard')
        self.assertEqual(image[at:at + 8], bytes((0, 0, 0, 1, 0, 0, 0, 2)))
        with open(path, 'wb') as file:
            file.write(image[:at + 6] + b'\x10' + image[at + 7:])
        status, lines = self.start('-accel', 'tcg', '-m', '64', '-cpu',
                                   'max,cr-pin=on', '-incoming',
                                   f'file:{path}')
        self.assertEqual(status, 1)
        self.assertTrue(any('0x1000' in line for line in lines), lines)

    def disk(self):
        """A disk for snapshots: its path, and how to give it to a VM."""
        path = self.scratch_file('disk.qcow2')
        img = os.path.join(os.path.dirname(self.qemu_bin), 'qemu-img')
        run([img, 'create', '-f', 'qcow2', path, '1M'], capture_output=True,
            timeout=60, check=True)
        return path, ('-blockdev', 'qcow2,node-name=disk,file.driver=file,'
                      f'file.filename={path}',
                      '-device', 'virtio-blk-pci,drive=disk')

    def assert_hmp(self, vm, line):
        """A line of the human monitor that has nothing to say."""
        self.assertEqual(self.hmp(vm, line), '')

    def test_snapshot(self):
        """loadvm brings back what was pinned at savevm."""
        vm = self.tcg('-cpu', 'max', *self.disk()[1])
        self.assert_hmp(vm, 'savevm none')
        pins = self.pinned(vm)
        self.assert_hmp(vm, 'savevm some')
        vm.cmd('register-unpin', registers=[{'register': 'cr0'},
                                            {'register': 'cr4'}])
        self.assert_hmp(vm, 'loadvm some')
        self.assertEqual(vm.cmd('query-register-pins'), pins)
        # A snapshot from before can't be a way to be rid of them
        kept = self.without_state(vm)
        self.assert_hmp(vm, 'loadvm none')
        self.assertEqual(self.without_state(vm), kept)
        self.assert_hmp(vm, 'loadvm some')
        self.assertEqual(vm.cmd('query-register-pins'), pins)

    def test_snapshot_without(self):
        """One that has no pins, and a register that fits none."""
        for cpu in 'max', 'max,+cr-pin':
            vm = self.tcg('-cpu', cpu, *self.disk()[1])
            value = (CR0_RESET | WP).to_bytes(8, 'little').hex()
            self.assertEqual(self.gdb(vm, f'P1b={value}'), ['OK'])
            self.assert_hmp(vm, 'savevm none')
            self.assert_hmp(vm, 'system_reset')
            vm.cmd('register-pin', registers=[{'register': 'cr0',
                                               'zeros': WP}])
            self.assert_hmp(vm, 'loadvm none')
            self.assertEqual([pin['state'] for pin in
                              vm.cmd('query-register-pins')], ['waiting'])
            self.assertEqual(self.gdb(vm, 'p1b'), [value])
            vm.shutdown()

    def plugged(self, vm):
        """What a CPU has that is plugged in now."""
        slot = next(c for c in vm.cmd('query-hotpluggable-cpus')
                    if 'qom-path' not in c)
        vm.cmd('device_add', driver=slot['type'], id='hot', **slot['props'])
        return sorted(pin['register']
                      for pin in vm.cmd('query-register-pins')
                      if pin['cpu-index'] == 1)

    def pin_bits(self, vm, register, **more):
        """Pin a register's bit that a CPU does not hold at reset."""
        vm.cmd('register-pin', registers=[{'register': register, 'ones': 1}],
               **more)

    def unpin(self, vm, register):
        """No CPU keeps it."""
        vm.cmd('register-unpin', registers=[{'register': register}])

    def test_pins_for_all(self):
        """loadvm brings back what a new CPU gets; refused, it does not."""
        for kind in 'good', 'single', 'bad', 'worse':
            path, disk = self.disk()
            args = ('-cpu', 'max', '-smp', '1,maxcpus=2') + disk
            vm = self.tcg(*args)
            self.pin_bits(vm, 'cr4', **({'cpu-index': 0} if kind == 'single'
                                        else {}))
            self.assert_hmp(vm, 'savevm some')
            vm.shutdown()
            with open(path, 'r+b') as file:
                data = file.read()
                if kind == 'bad':
                    # Behind the pins of the CPU
                    file.seek(data.index(b'\x08cpu/pins') + 9 + self.ENTRIES
                              + self.ENTRY)
                    file.write(b'\x05\x08cpu/none' + bytes(4))
                elif kind == 'worse':
                    # The number of those for all, behind the instance and
                    # the version of the section
                    file.seek(data.index(b'\x0aguard-pins') + 11 + 8)
                    file.write(b'\x7f')
            vm = self.tcg(*args)
            self.pin_bits(vm, 'efer')
            text = self.hmp(vm, 'loadvm some')
            with self.subTest(kind):
                self.assertEqual(bool(text), kind in ('bad', 'worse'), text)
                self.assertEqual(self.plugged(vm),
                                 {'good': ['cr4'], 'single': [], 'bad':
                                  ['efer'], 'worse': ['efer']}[kind])
            vm.shutdown()
            os.unlink(path)

    def test_pins_for_all_after_hotplug(self):
        """The section is behind those of CPUs that came later."""
        path, disk = self.disk()
        vm = self.tcg('-cpu', 'max', '-smp', '1,maxcpus=2', *disk)
        self.pin_bits(vm, 'cr4')
        self.assertEqual(self.plugged(vm), ['cr4'])
        self.assert_hmp(vm, 'savevm some')
        vm.shutdown()
        with open(path, 'rb') as file:
            data = file.read()
        self.assertGreater(data.index(b'\x0aguard-pins'),
                           data.rindex(b'\x08cpu/pins'))

    def test_npiep_of_a_bad_image(self):
        """What it said is nothing to the next one."""
        path, args = self.disk()
        for here in 'off', 'on':
            vm = self.tcg('-cpu', f'max,npiep={here}', *args)
            self.assert_hmp(vm, f'savevm {here}')
            vm.shutdown()
        with open(path, 'r+b') as disk:
            data = disk.read()
            # Name, version, two words; then a subsection that nobody knows
            disk.seek(data.index(b'\x09cpu/guard') + 10 + 4 + 8)
            disk.write(b'\x05\x08cpu/none' + bytes(4))
        vm = self.tcg('-cpu', 'max,npiep=on', *args)
        self.assertNotEqual(self.hmp(vm, 'loadvm on'), '')
        self.assertNotEqual(self.hmp(vm, 'loadvm off'), '')


if __name__ == '__main__':
    Base.main()
