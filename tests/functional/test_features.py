#!/usr/bin/env python3
# SPDX-License-Identifier: GPL-2.0-or-later
"""
What users of qemu-system-x86_64 expect of a build is there.
"""

import os
from subprocess import run

from qemu_test import QemuSystemTest


class Features(QemuSystemTest):
    """Backends and devices by name."""

    def text(self, *command):
        """What a command prints."""
        done = run(command, capture_output=True, text=True, timeout=60,
                   check=False)
        return done.stdout + done.stderr

    def test_networking(self):
        """User networking, vhost-user and the rest."""
        words = self.text(self.qemu_bin, '-M', 'none', '-netdev',
                          'help').split()
        for name in 'user', 'tap', 'socket', 'stream', 'vhost-user':
            self.assertIn(name, words)

    def test_devices(self):
        """virtio, vhost, VFIO, 9p, NVMe, USB, and a TPM's front end."""
        text = self.text(self.qemu_bin, '-device', 'help')
        for name in ('virtio-net-pci', 'virtio-blk-pci', 'virtio-scsi-pci',
                     'virtio-9p-pci', 'virtio-balloon-pci', 'virtio-mem-pci',
                     'vhost-user-blk-pci', 'vhost-user-fs-pci',
                     'vhost-vsock-pci', 'vfio-pci', 'nvme', 'qemu-xhci',
                     'e1000', 'usb-host', 'tpm-tis', 'intel-iommu'):
            self.assertIn(f'name "{name}"', text)

    def test_accelerators(self):
        """TCG and KVM."""
        words = self.text(self.qemu_bin, '-accel', 'help').split()
        self.assertIn('tcg', words)
        self.assertIn('kvm', words)

    def test_vnc(self):
        """A VNC server can be started."""
        done = run([self.qemu_bin, '-M', 'none', '-S', '-monitor', 'stdio',
                    '-vnc', f'unix:{self.scratch_file("vnc")}'],
                   input='info vnc\nquit\n', capture_output=True, text=True,
                   timeout=60, check=False)
        self.assertEqual(done.returncode, 0, done.stderr)
        self.assertIn('Server:', done.stdout)

    def test_firmware(self):
        """A machine finds its firmware without -L."""
        for machine in 'pc', 'q35', 'microvm':
            done = run([self.qemu_bin, '-M', machine, '-S', '-display', 'none',
                        '-accel', 'tcg', '-monitor', 'stdio'], input='quit\n',
                       capture_output=True, text=True, timeout=60,
                       check=False)
            self.assertEqual(done.returncode, 0, done.stderr)

    def test_block_formats(self):
        """qemu-img makes images of each format."""
        img = os.path.join(os.path.dirname(self.qemu_bin), 'qemu-img')
        for name in ('qcow2', 'raw', 'vmdk', 'vdi', 'vhdx', 'vpc', 'qed',
                     'parallels'):
            run([img, 'create', '-f', name, self.scratch_file(name), '1M'],
                capture_output=True, timeout=60, check=True)


if __name__ == '__main__':
    QemuSystemTest.main()
