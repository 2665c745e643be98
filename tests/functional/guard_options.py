# SPDX-License-Identifier: GPL-2.0-or-later
"""What tests of QEMU's options, and of images, share."""

from subprocess import run

from guard_case import GuardTest


class OptionsTest(GuardTest):
    """QEMU up to its monitor, with what it says; and images in files."""

    def start(self, *args):
        """Run QEMU up to the monitor; return its status and its stderr."""
        done = run([self.qemu_bin, '-display', 'none', '-nodefaults', '-S',
                    '-monitor', 'stdio', *args], input='quit\n',
                   capture_output=True, text=True, timeout=60, check=False)
        lines = [line for line in done.stderr.splitlines()
                 if 'warning: TCG doesn\'t support' not in line]
        return done.returncode, lines

    def assert_refused(self, words, *args):
        """QEMU ends with one line on stderr that has all the words."""
        status, lines = self.start(*args)
        self.assertEqual(status, 1, f'{args}: {lines}')
        self.assertEqual(len(lines), 1, f'{args}: {lines}')
        for word in words:
            self.assertIn(word, lines[0])

    def assert_starts(self, *args):
        """QEMU starts and says nothing."""
        self.assertEqual(self.start(*args), (0, []), args)

    def stopped(self, *args):
        """Start a VM that stands still, and give it."""
        vm = self.get_vm(*args)
        vm.add_args('-nodefaults', '-S')
        vm.launch()
        return vm

    def cpu_property(self, vm, name):
        """Read a property of the first CPU."""
        path = vm.cmd('query-cpus-fast')[0]['qom-path']
        return vm.cmd('qom-get', path=path, property=name)

    def hotplug_refused(self, vm, word, **asked):
        """A CPU with these properties can't be plugged; the word is why."""
        count = len(vm.cmd('query-cpus-fast'))
        slot = next(c for c in vm.cmd('query-hotpluggable-cpus')
                    if 'qom-path' not in c)
        reply = vm.qmp('device_add', driver=slot['type'], id='hot', **asked,
                       **slot['props'])
        self.assertIn(word, reply['error']['desc'])
        self.assertEqual(len(vm.cmd('query-cpus-fast')), count)

    def save(self, vm):
        """Migrate a VM to a file; returns its path."""
        path = self.scratch_file('image')
        vm.cmd('migrate', uri=f'file:{path}')
        while True:
            status = vm.cmd('query-migrate')['status']
            if status in ('completed', 'failed'):
                break
        self.assertEqual(status, 'completed')
        return path
