#!/usr/bin/env python3
# SPDX-License-Identifier: GPL-2.0-or-later
"""
The bypass matrix of devices: every way in which a device reaches memory,
against every kind of protection.

A row is a path, a way for a device to write memory and to read it; what it
covers is in its "through".  First the device does it unprotected, which has
to succeed.  Then one piece is protected, and

* a write leaves it as it is, with one event for each access, and a read sees
  zeroes there, or nothing;
* the rest of the transfer, and what the device says of it, is as the path has
  it;
* "report" lets it take place, and "pause" stops the VM;
* "read" does not stop a read;
* when the protection is lifted the device works again.

Memory is looked at by a file that backs it, so that looking is no access.
"""

import os

import guard_disks
import guard_hosts
import guard_nets
import guard_paths
import guard_virtio
from guard_qtest import GuardDeviceTest, MIB, PAGE, SUBPAGE

PATHS = (*guard_paths.PATHS, *guard_disks.PATHS, *guard_nets.PATHS,
         *guard_hosts.PATHS, *guard_virtio.PATHS)
RAM = 64 * MIB


class FileRam(GuardDeviceTest):
    """RAM in a file, so that the test sees it without an access."""

    # Below 16 MiB, for ISA
    TARGET = 8 * MIB
    resume = False
    stops = 0
    ram = memory = None
    kept = ()

    def start(self, *args, **kwargs):
        """The same, with RAM in a file."""
        self.ram = self.scratch_file('ram')
        vm = super().start(
            '-object', 'memory-backend-file,id=ram,share=on,'
            f'mem-path={self.ram},size={RAM}', '-machine',
            'memory-backend=ram', *args, **kwargs)
        self.memory = os.open(self.ram, os.O_RDWR)
        self.addCleanup(os.close, self.memory)
        return vm

    def peek(self, _vm, addr, size):
        """Memory as it is, whatever is protected."""
        return os.pread(self.memory, size, addr)

    def poke(self, _vm, addr, data):
        """Change it, whatever is protected."""
        os.pwrite(self.memory, data, addr)

    def keep_running(self, vm):
        """In a test of "pause", continue a VM that stopped."""
        if not self.resume or \
                vm.cmd('query-status')['status'] != 'paused':
            return False
        self.stops += 1
        vm.cmd('cont')
        return True

    def heard(self, vm):
        """Was there an event since the last violations()?  It stays."""
        vm.cmd('query-status')
        self.kept += [e['data'] for e in vm.get_qmp_events()
                      if e['event'] == 'SUBPAGE_VIOLATION']
        return bool(self.kept)

    def violations(self, vm):
        """Events since the last time."""
        self.heard(vm)
        found, self.kept = self.kept, []
        return found

    def counters(self, vm):
        """All violations there ever were: of reads, of writes."""
        for feature in vm.cmd('query-guard'):
            if feature['feature'] == 'subpage':
                return (feature['counters']['reads'],
                        feature['counters']['writes'])
        raise ValueError('no subpage in query-guard')

    def setUp(self):
        """No events yet."""
        super().setUp()
        self.kept = []

    def same(self, got, want, what):
        """Compare bytes, and be brief where they differ."""
        if got == want:
            return
        if got is None or want is None or len(got) != len(want):
            brief = [data and (len(data), data[:32].hex())
                     for data in (got, want)]
            self.fail(f'{what}: {brief[0]}, expected {brief[1]}')
        wrong = [i for i, (a, b) in enumerate(zip(got, want)) if a != b]
        self.fail(f'{what}: {len(wrong)} bytes of {len(got)} differ, from '
                  f'{wrong[0]:#x} to {wrong[-1]:#x}: '
                  f'{got[wrong[0]:wrong[0] + 32].hex()}, expected '
                  f'{want[wrong[0]:wrong[0] + 32].hex()}')

    def lay(self, path, addr, data):
        """Memory around and in a transfer."""
        fence = bytes((guard_paths.FILL,)) * 64
        self.poke(path.vm, addr - 64, fence)
        self.poke(path.vm, addr, data)
        self.poke(path.vm, addr + len(data), fence)


class SubpagePaths(FileRam):
    """One test for each path, by name."""

    # --- One attack ---

    def told(self, path, want, access, action, before):
        """The events are these, in this order, and counted so."""
        found = self.violations(path.vm)
        got = [(e['addr'], e['size'], e['write']) for e in found]
        repeats = action in path.repeats or access in path.repeats
        if repeats:
            got = got[:len(want)]
        self.assertEqual([(hex(a), n, w) for a, n, w in got],
                         [(hex(a), n, w) for a, n, w in want])
        for event in found:
            self.assertEqual(event['source'], 'device')
            self.assertEqual(event['action'], action)
        if path.who and found:
            # Where it is not known it is left out
            names = [e['qom-path'] for e in found if 'qom-path' in e]
            self.assertTrue(names, 'no event has a qom-path')
            for name in names:
                self.assertIn(path.who, name)
        after = self.counters(path.vm)
        writes = sum(e['write'] for e in found)
        if repeats:
            self.assertGreaterEqual(after[0] - before[0],
                                    len(found) - writes)
            self.assertGreaterEqual(after[1] - before[1], writes)
        else:
            self.assertEqual((after[0] - before[0], after[1] - before[1]),
                             (len(found) - writes, writes))

    def paused(self, path, transfer):
        """Run a transfer after which the VM has to stop; continue it."""
        self.resume, self.stops = True, 0
        result = transfer()
        self.keep_running(path.vm)
        self.resume = False
        self.assertGreaterEqual(self.stops, 1, 'the VM did not stop')
        return result

    def write(self, path, access='read-write', action=None):
        """One write by the device, with a piece protected or not."""
        vm, addr = path.vm, self.TARGET + path.at
        old = path.before(addr)
        self.lay(path, addr, old)
        start = path.piece(addr, path.size)
        if action:
            self.armed(vm, start, SUBPAGE, access, action)
        piece = self.peek(vm, start, SUBPAGE)
        self.assertEqual(self.violations(vm), [])
        counted = self.counters(vm)
        if action == 'pause':
            good = self.paused(path, lambda: path.write(addr))
        else:
            good = path.write(addr)
        new = self.peek(vm, addr, path.size)
        blocked = action not in (None, 'report')
        if action:
            self.told(path, path.write_events(addr, start, start + SUBPAGE,
                                              access, blocked), access,
                      {'fault': 'discard'}.get(action, action), counted)
            self.armed(vm, start, SUBPAGE, 'read-write')
        else:
            self.assertEqual(self.violations(vm), [])
        self.assertEqual(good, not (blocked and path.tells),
                         'what the device says of it')
        first = max(start - addr, 0)
        last = min(start + SUBPAGE - addr, path.size)
        if not blocked:
            self.assertTrue(path.arrived(new), f'control: {new[:64].hex()}')
        elif path.leaves == 'nothing':
            self.same(new, old, 'the transfer')
        elif last - first < path.size:
            self.same(new[:first] + new[last:],
                      path.payload[:first] + path.payload[last:],
                      'the rest of the transfer')
        if blocked:
            self.same(self.peek(vm, start, SUBPAGE), piece, 'the piece')
            path.recover()

    def read(self, path, access='read-write', action=None):
        """One read by the device, with a piece protected or not."""
        vm, addr = path.vm, self.TARGET + 2 * PAGE + path.read_at
        secret = path.secret(addr)
        self.lay(path, addr, secret)
        start = path.piece(addr, path.read_size)
        if action:
            self.armed(vm, start, SUBPAGE, access, action)
        self.assertEqual(self.violations(vm), [])
        counted = self.counters(vm)
        if action == 'pause':
            seen = self.paused(path, lambda: path.read(addr))
        else:
            seen = path.read(addr)
        blocked = access == 'none' and action != 'report'
        if action:
            self.told(path, path.read_events(addr, start, start + SUBPAGE,
                                             access, blocked), access,
                      {'fault': 'discard'}.get(action, action), counted)
        else:
            self.assertEqual(self.violations(vm), [])
        if action:
            self.armed(vm, start, SUBPAGE, 'read-write')
        first = start - addr
        last = min(first + SUBPAGE, path.read_size)
        if not blocked:
            self.same(seen, secret, 'what was read')
        elif first <= 0 or path.tells:
            self.same(seen, None, 'what was read')
        else:
            self.same(seen, secret[:first] + bytes(last - first) +
                      secret[last:], 'what was read')
        if blocked:
            path.recover()

    def row(self, kind):
        """All of one path."""
        path = kind(self)
        path.launch()
        if path.writes:
            self.write(path)
            for access, action in (('read', 'discard'), ('none', 'discard'),
                                   ('read', 'fault'), ('read', 'report')):
                with self.subTest('write', access=access, action=action):
                    self.write(path, access, action)
            if path.pauses:
                with self.subTest('write', action='pause'):
                    self.write(path, 'read', 'pause')
            self.write(path)
        if path.reads:
            self.read(path)
            for access, action in (('none', 'discard'), ('none', 'fault'),
                                   ('none', 'report'), ('read', 'discard')):
                with self.subTest('read', access=access, action=action):
                    self.read(path, access, action)
            if path.pauses:
                with self.subTest('read', action='pause'):
                    self.read(path, 'none', 'pause')
            self.read(path)
        self.assertEqual(path.vm.cmd('query-status')['status'], 'running')
        self.assertEqual(path.vm.cmd('query-subpage-access'), [])


    def test_edge(self):
        """What has no more than 8 bytes lands whole or not at all."""
        path = guard_paths.Edu(self)
        path.launch()
        vm, edge = path.vm, self.TARGET + SUBPAGE
        self.armed(vm, edge)
        for size in 2, 8, 9, 16, 64:
            before = size - size // 4 if size > 8 else size // 2
            self.lay(path, edge - before, bytes((guard_paths.FILL,)) * size)
            path.size = size
            path.write(edge - before)
            landed = before if size > 8 else 0
            new = self.peek(vm, edge - before, size)
            self.same(new[:landed], path.payload[:landed], f'{size} bytes')
            self.same(new[landed:], bytes((guard_paths.FILL,)) *
                      (size - landed), f'the rest of {size} bytes')
            found = self.violations(vm)
            self.assertEqual(len(found), 1)


def add_rows():
    """A method for each path, so that one can be picked by name."""
    for kind in PATHS:
        def test(self, kind=kind):
            self.row(kind)

        name = 'test_' + kind.name.replace('-', '_')
        test.__name__ = name
        test.__doc__ = f'{kind.name}: {kind.through}'
        setattr(SubpagePaths, name, test)


add_rows()


class SubpageUnderWay(FileRam):
    """Protection that comes while a transfer is under way."""

    def arm_later(self, path, rate):
        """
        A read of the disk that is limited to so many bytes a second, and
        what comes of it when its target is protected meanwhile: the reply,
        and memory when it came.
        """
        path.more = f',throttling.bps-total={rate}'
        path.launch()
        addr, found = self.TARGET, []
        start = path.piece(addr, path.size)
        # The first one is served at once, and then there is a debt
        path.write(addr)
        self.lay(path, addr, path.before(addr))

        def arm():
            found.append(self.protect(path.vm, start))
            found.append(self.peek(path.vm, addr, path.size))

        path.meanwhile = arm
        self.assertTrue(path.write(addr))
        self.assertEqual(len(found), 2, 'never was under way')
        self.same(self.peek(path.vm, addr, path.size), path.payload,
                  'the transfer')
        return start, found

    def waits(self, kind):
        """It ends in time: the protection waits for it."""
        path = kind(self)
        start, (reply, memory) = self.arm_later(path, 4 * path.size)
        self.assertIn('return', reply)
        # Nothing of it came afterwards
        self.same(memory, path.payload, 'memory when it was protected')
        self.assertEqual(self.violations(path.vm), [])
        self.assertEqual(len(path.vm.cmd('query-subpage-access')), 1)
        self.armed(path.vm, start, access='read-write')

    def refused_for_now(self, kind):
        """It does not end in time: refused, by name; later it works."""
        path = kind(self)
        start, (reply, memory) = self.arm_later(path, path.size // 3)
        self.refused(reply, 'regions[0]', path.who)
        self.same(memory, path.before(0), 'memory when it was refused')
        self.assertEqual(self.violations(path.vm), [])
        self.assertEqual(path.vm.cmd('query-subpage-access'), [])
        self.armed(path.vm, start)

    def test_ide(self):
        """dma_blk_io(), in the main loop."""
        self.waits(guard_disks.Ide)

    def test_nvme(self):
        """The same, of NVMe."""
        self.waits(guard_disks.Nvme)

    def test_virtio_blk(self):
        """virtqueue_pop()."""
        self.waits(guard_virtio.VirtioBlk)

    def test_virtio_scsi(self):
        """Both."""
        self.waits(guard_virtio.VirtioScsi)

    def test_ahci_refused(self):
        """dma_blk_io() that takes its time."""
        self.refused_for_now(guard_disks.Ahci)

    def test_virtio_blk_refused(self):
        """virtqueue_pop() that takes its time."""
        self.refused_for_now(guard_virtio.VirtioBlk)


class SubpageReset(GuardDeviceTest):
    """Memory that a reset writes: protections end before it does."""

    def reset(self, *args):
        """What is loaded comes back, without a violation."""
        vm = self.start(*args)
        target = self.TARGET
        loaded = vm.qtest.read(target, 8)
        self.assertEqual(loaded, b'guarded!')
        vm.qtest.write(target, b'attacked')
        self.armed(vm, target, access='read')
        vm.qtest.write(target, b'rewriten')
        self.assertEqual(vm.qtest.read(target, 8), b'attacked')
        self.assertEqual(len(self.violations(vm)), 1)
        vm.cmd('system_reset')
        vm.event_wait('RESET', timeout=20)
        cleared = vm.event_wait('SUBPAGE_CLEARED', timeout=20)
        self.assertEqual(cleared['data'], {'reason': 'reset',
                                           'size': SUBPAGE})
        self.until(lambda: vm.qtest.read(target, 8) == b'guarded!')
        self.assertEqual(self.violations(vm), [])
        self.assertEqual(vm.cmd('query-subpage-access'), [])

    def test_loader_data(self):
        """generic_loader_reset(): dma_memory_write()."""
        value = int.from_bytes(b'guarded!', 'little')
        self.reset('-device', f'loader,addr={self.TARGET:#x},'
                   f'data={value:#x},data-len=8')

    def test_loader_file(self):
        """rom_reset(): address_space_write_rom()."""
        path = self.scratch_file('loaded')
        with open(path, 'wb') as file:
            file.write(b'guarded!')
        self.reset('-device', f'loader,addr={self.TARGET:#x},file={path},'
                   'force-raw=on')


if __name__ == '__main__':
    GuardDeviceTest.main()
