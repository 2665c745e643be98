#!/usr/bin/env python3
# SPDX-License-Identifier: GPL-2.0-or-later
"""
configure, the patch series and patches/refresh, on a small stand-in for QEMU:
the pristine files that the patches touch, and a configure that does little.

Argument: the build folder whose pristine files to use.
"""

import hashlib
import lzma
import os
from pathlib import Path
import shutil
import subprocess
import sys
import tarfile
import tempfile
import unittest

import pycotap

ROOT = Path(__file__).resolve().parents[2]
BUILD = None

FAKE_CONFIGURE = '''#!/bin/sh
echo "$@" >> args
[ ! -e ../../fail ] || { echo "ERROR: no libfoo"; exit 1; }
printf 'rule t\\n command = touch $out\\nbuild all: t\\n' > build.ninja
'''


class Configure(unittest.TestCase):
    """Each test has its own copy of the project and of the stand-in."""

    def setUp(self):
        self.dir = Path(tempfile.mkdtemp(prefix='guard-configure-'))
        self.addCleanup(shutil.rmtree, self.dir)
        self.root = self.dir / 'project'
        self.root.mkdir()
        for name in 'scripts', 'patches', 'include':
            shutil.copytree(ROOT / name, self.root / name)
        shutil.copy(ROOT / 'configure', self.root)
        self.build = self.root / 'build'
        self.qemu = self.dir / 'qemu'
        shutil.copytree(BUILD / 'orig', self.qemu)
        (self.qemu / 'VERSION').write_text('10.0.99\n')
        (self.qemu / 'include').mkdir(exist_ok=True)
        (self.qemu / 'configure').write_text(FAKE_CONFIGURE)
        (self.qemu / 'configure').chmod(0o755)
        self.bin = self.dir / 'bin'
        self.bin.mkdir()

    def tool(self, name, text):
        """A program that is found before the system's."""
        (self.bin / name).write_text('#!/bin/sh\n' + text)
        (self.bin / name).chmod(0o755)

    def run_in(self, *command, **env):
        """Run a command in the project."""
        path = f'{self.bin}:{os.environ["PATH"]}'
        return subprocess.run(command, cwd=self.root, capture_output=True,
                              text=True, timeout=120, check=False,
                              env=dict(os.environ, PATH=path, **env))

    def configure(self, *args, qemu=None):
        """Run configure on the stand-in."""
        return self.run_in('./configure', '--without-guest-kernel',
                           f'--with-qemu={qemu or self.qemu}', *args)

    def assert_ok(self, done):
        """The command succeeded."""
        self.assertEqual(done.returncode, 0, done.stdout + done.stderr)
        return done

    def assert_refused(self, done, *words):
        """One line on stderr has all words, and no half-made source."""
        self.assertNotEqual(done.returncode, 0)
        self.assertEqual(len(done.stderr.splitlines()), 1, done.stderr)
        for word in words:
            self.assertIn(word, done.stderr)
        for name in 'src', 'src.tmp', 'fetch.tmp':
            self.assertFalse((self.build / name).exists(), name)

    def tarball(self, name='qemu-10.0.99.tar.xz'):
        """The stand-in as a tarball."""
        path = self.dir / name
        with tarfile.open(path, 'w:xz') as tar:
            tar.add(self.qemu, arcname='qemu-10.0.99')
        return path

    def test_folder(self):
        """A source tree is copied, patched and linked; options go on."""
        self.assert_ok(self.configure('--enable-foo', "--with-name=a 'b' c"))
        src = self.build / 'src'
        self.assertEqual((src / 'guard').resolve(), self.root)
        self.assertTrue((src / 'include/guard/xo.h').exists())
        self.assertIn("subdir('guard')", (src / 'meson.build').read_text())
        self.assertNotIn("subdir('guard')",
                         (self.qemu / 'meson.build').read_text())
        args = (self.build / 'qemu/args').read_text()
        self.assertIn("--enable-foo --with-name=a 'b' c", args)
        self.assertIn('--enable-slirp', args)

    def test_again(self):
        """A second run redoes nothing, other options configure again."""
        self.assert_ok(self.configure())
        stat = os.stat(self.build / 'src/meson.build')
        self.assert_ok(self.configure())
        self.assertEqual(os.stat(self.build / 'src/meson.build').st_mtime_ns,
                         stat.st_mtime_ns)
        args = self.build / 'qemu/args'
        self.assertEqual(len(args.read_text().splitlines()), 1)
        self.assert_ok(self.configure('--enable-foo'))
        self.assertEqual(len(args.read_text().splitlines()), 2)

    def test_tarball(self):
        """A tarball with the right checksum beside it."""
        tar = self.tarball()
        digest = hashlib.sha256(tar.read_bytes()).hexdigest()
        Path(f'{tar}.sha256').write_text(f'{digest}  {tar.name}\n')
        self.assert_ok(self.configure(qemu=tar))

    def test_wrong_checksum(self):
        """A tarball with another checksum than the file beside it says."""
        tar = self.tarball()
        Path(f'{tar}.sha256').write_text('0' * 64 + '\n')
        self.assert_refused(self.configure(qemu=tar), 'checksum', tar.name)

    def test_wrong_checksum_dsc(self):
        """A source package whose tarball is not what its .dsc says."""
        tar = self.tarball('qemu_10.0.99.orig.tar.xz')
        (self.qemu / 'debian/source').mkdir(parents=True)
        debian = self.dir / 'qemu_10.0.99-1.debian.tar.xz'
        with lzma.open(debian, 'w') as out, \
                tarfile.open(fileobj=out, mode='w') as inner:
            inner.add(self.qemu / 'debian', arcname='debian')
        files = [(hashlib.sha256(f.read_bytes()).hexdigest(),
                  f.stat().st_size, f.name) for f in (tar, debian)]
        md5 = [hashlib.md5(f.read_bytes()).hexdigest() for f in (tar, debian)]
        dsc = self.dir / 'qemu_10.0.99-1.dsc'
        dsc.write_text(
            'Format: 3.0 (quilt)\nSource: qemu\nVersion: 1:10.0.99-1\n'
            'Checksums-Sha256:\n'
            + ''.join(' %s %d %s\n' % f for f in files) + 'Files:\n'
            + ''.join(' %s %d %s\n' % (m, f[1], f[2])
                      for m, f in zip(md5, files)))
        data = bytearray(tar.read_bytes())
        data[100] ^= 1
        tar.write_bytes(data)
        self.assert_refused(self.configure(qemu=dsc), 'qemu_10.0.99-1.dsc',
                            'checksum')

    def test_broken_tarball(self):
        """A tarball that ends early."""
        tar = self.tarball()
        tar.write_bytes(tar.read_bytes()[:1000])
        self.assert_refused(self.configure(qemu=tar), "can't be unpacked")

    def test_other_series(self):
        """QEMU of another series."""
        (self.qemu / 'VERSION').write_text('10.1.2\n')
        self.assert_refused(self.configure(), '10.1.2', '10.0.x')

    def test_not_qemu(self):
        """A folder that is something else."""
        (self.qemu / 'VERSION').unlink()
        self.assert_refused(self.configure(), 'VERSION')

    def test_nothing_there(self):
        """A path that leads nowhere."""
        self.assert_refused(self.configure(qemu=self.dir / 'no'),
                            'does not exist')

    def test_patch_does_not_apply(self):
        """Upstream changed a line that a patch needs."""
        path = self.qemu / 'target/i386/tcg/access.c'
        path.write_text(path.read_text().replace('size1 - len', 'size1-len'))
        self.assert_refused(self.configure(),
                            '0001-i386-access-ptr-bounds.patch', '10.0.99')

    def test_empty_series(self):
        """Without the series nothing is built, least of all without hooks."""
        for text in None, '', '# nothing\n':
            (self.root / 'patches/series').unlink(missing_ok=True)
            if text is not None:
                (self.root / 'patches/series').write_text(text)
            self.assert_refused(self.configure(), 'patches/series')

    def test_series_is_emptied(self):
        """The same where the tree is patched already."""
        self.assert_ok(self.configure())
        before = (self.build / 'src/meson.build').read_text()
        (self.root / 'patches/series').write_text('')
        done = self.run_in('ninja', '-C', 'build', 'tree.stamp')
        self.assertNotEqual(done.returncode, 0)
        self.assertIn('names no patch', done.stdout)
        self.assertEqual((self.build / 'src/meson.build').read_text(), before)

    def test_missing_patch(self):
        """The series names a patch that is not there."""
        (self.root / 'patches/0003-i386-reserved-cr-bits.patch').unlink()
        self.assert_refused(self.configure(), '0003-i386-reserved-cr-bits',
                            'does not exist')

    def test_path_with_space(self):
        """A path that ninja can't take, of the project or of the build."""
        self.assert_refused(self.configure(f'--build-dir={self.dir}/a b'),
                            'a b', '--build-dir')
        moved = self.dir / 'pro ject'
        self.root.rename(moved)
        self.root = moved
        done = self.configure(f'--build-dir={self.dir}/build')
        self.assert_refused(done, 'pro ject', 'move it')

    def test_edits_survive_another_qemu(self):
        """build/src is made anew only if nothing in it would be lost."""
        self.assert_ok(self.configure())
        src = self.build / 'src/meson.build'
        src.write_text(src.read_text() + '# mine\n')
        done = self.configure(qemu=self.tarball())
        self.assertNotEqual(done.returncode, 0)
        self.assertIn('meson.build', done.stderr)
        self.assertIn('# mine', src.read_text())

    def test_interrupted_while_replacing(self):
        """src.origin is missing until build/src is whole."""
        self.assert_ok(self.configure())
        (self.build / 'src.origin').unlink()
        (self.build / 'src/target/i386/tcg/access.c').unlink()
        (self.build / 'applied/target/i386/tcg/access.c').unlink()
        self.assert_ok(self.configure())
        self.assertTrue((self.build / 'src/target/i386/tcg/access.c').exists())

    def test_interrupted_sync(self):
        """Ended between a file and the note of it."""
        self.assert_ok(self.configure())
        shutil.copy(self.build / 'orig/meson.build',
                    self.build / 'applied/meson.build')
        self.assert_ok(self.configure())

    def test_two_at_once(self):
        """Several syncs at once leave the tree whole."""
        self.assert_ok(self.configure())
        want = (self.build / 'src/target/i386/cpu.h').read_text()
        command = ['scripts/qemu-tree', 'sync', self.root, self.build]
        for _ in range(5):
            shutil.copy(self.build / 'orig/target/i386/cpu.h',
                        self.build / 'src/target/i386/cpu.h')
            shutil.copy(self.build / 'orig/target/i386/cpu.h',
                        self.build / 'applied/target/i386/cpu.h')
            jobs = [subprocess.Popen(command, cwd=self.root,
                                     stderr=subprocess.PIPE, text=True)
                    for _ in range(3)]
            for job in jobs:
                self.assertEqual((job.communicate()[1], job.returncode),
                                 ('', 0))
            self.assertEqual(
                (self.build / 'src/target/i386/cpu.h').read_text(), want)

    def test_other_options_are_interrupted(self):
        """A configuration that did not end is not taken for the old one."""
        self.assert_ok(self.configure('--enable-foo'))
        (self.root / 'fail').touch()
        self.assertNotEqual(self.configure('--enable-bar').returncode, 0)
        (self.root / 'fail').unlink()
        self.assert_ok(self.configure('--enable-foo'))
        args = (self.build / 'qemu/args').read_text().splitlines()
        self.assertIn('--enable-foo', args[-1])
        self.assertEqual(len(args), 3)

    def test_kernel_comes_later(self):
        """Meson is asked again when there is a kernel for the demo."""
        self.assert_ok(self.configure())
        (self.build / 'guest-kernel').mkdir()
        (self.build / 'guest-kernel/release').write_text('6.1.0-99 1\n')
        self.assert_ok(self.configure())
        args = (self.build / 'qemu/args').read_text().splitlines()
        self.assertEqual(len(args), 2)

    def test_missing_packages(self):
        """What is missing, and the command that installs it."""
        self.tool('dpkg-query', 'exit 1\n')
        self.assert_refused(self.configure(), 'ninja-build',
                            './configure --install-deps',
                            'apt-get install')

    def test_no_download(self):
        """The mirror does not answer."""
        self.tool('apt-get', 'case "$*" in\n'
                  '*indextargets*) echo "Debian|Debian|http://mirror.invalid/|bookworm"'
                  ';;\n*download-only*) echo "E: Failed to fetch it"; exit 100'
                  ';;\nesac\n')
        self.tool('apt-cache', 'echo "Version: 1:10.0.98+ds-1"\n')
        self.assert_refused(self.run_in('./configure',
                                        '--without-guest-kernel'),
                            '10.0.98', 'E: Failed to fetch it')

    def test_debian_has_another_series(self):
        """Debian moved on."""
        self.tool('apt-get', 'case "$*" in\n'
                  '*indextargets*) echo "Debian|Debian|http://mirror.invalid/|bookworm"'
                  ';;\nesac\n')
        self.tool('apt-cache', 'echo "Version: 1:11.0.1+ds-1"\n')
        self.assert_refused(self.run_in('./configure',
                                        '--without-guest-kernel'),
                            '1:11.0.1+ds-1', '10.0.x', '--with-qemu')

    def test_qemu_configure_fails(self):
        """QEMU's configure: its reason, and a way to try again."""
        (self.root / 'fail').touch()
        done = self.configure()
        self.assertNotEqual(done.returncode, 0)
        self.assertIn('ERROR: no libfoo', done.stderr)
        self.assertEqual(len(done.stderr.splitlines()), 1)
        (self.root / 'fail').unlink()
        self.assert_ok(self.configure())

    def test_edited_patch(self):
        """ninja applies an edited patch, and touches no other file."""
        self.assert_ok(self.configure())
        src = self.build / 'src'
        other = os.stat(src / 'target/i386/tcg/access.c').st_mtime_ns
        path = self.root / 'patches/0005-build-guard.patch'
        path.write_text(path.read_text().replace(
            "+subdir('guard')", "+subdir('guard') # edited"))
        self.assert_ok(self.run_in('ninja', '-C', 'build', 'tree.stamp'))
        self.assertIn('# edited', (src / 'meson.build').read_text())
        self.assertEqual(os.stat(src / 'target/i386/tcg/access.c').st_mtime_ns,
                         other)

    def test_edited_patch_fails(self):
        """One that does not apply changes nothing and says so."""
        self.assert_ok(self.configure())
        before = (self.build / 'src/meson.build').read_text()
        path = self.root / 'patches/0005-build-guard.patch'
        path.write_text(path.read_text().replace(
            ' # needed for fuzzing binaries', ' # something else'))
        done = self.run_in('ninja', '-C', 'build', 'tree.stamp')
        self.assertNotEqual(done.returncode, 0)
        self.assertIn('0005-build-guard.patch', done.stdout)
        self.assertEqual((self.build / 'src/meson.build').read_text(), before)

    def test_refresh(self):
        """An edit in build/src goes into its patch and survives."""
        self.assert_ok(self.configure())
        src = self.build / 'src/meson.build'
        src.write_text(src.read_text().replace("subdir('guard')",
                                               "subdir('guard') # mine", 1))
        # Not refreshed yet: neither ninja nor configure may lose the edit
        (self.root / 'patches/0005-build-guard.patch').touch()
        done = self.run_in('ninja', '-C', 'build', 'tree.stamp')
        self.assertIn('edited by hand', done.stdout)
        self.assertIn('# mine', src.read_text())
        self.assert_ok(self.run_in('patches/refresh',
                                   '0005-build-guard.patch'))
        patch = (self.root / 'patches/0005-build-guard.patch').read_text()
        self.assertIn("+subdir('guard') # mine", patch)
        self.assertTrue(patch.startswith('Subject: build: include'))
        self.assert_ok(self.run_in('ninja', '-C', 'build', 'tree.stamp'))
        self.assertIn('# mine', src.read_text())

    def test_refresh_changes_nothing(self):
        """Without an edit every patch comes out as it is."""
        self.assert_ok(self.configure())
        for path in sorted((self.root / 'patches').glob('0*.patch')):
            before = path.read_text()
            self.assert_ok(self.run_in('patches/refresh', path.name))
            self.assertEqual(path.read_text(), before, path.name)

    def make_patch(self, before, after):
        """A file that no patch touches gets one, 9999-new.patch."""
        (self.qemu / 'net').mkdir(exist_ok=True)
        (self.qemu / 'net/new.c').write_text(before)
        self.assert_ok(self.configure())
        self.assert_ok(self.run_in('patches/refresh', '--edit', 'net/new.c'))
        (self.build / 'src/net/new.c').write_text(after)
        self.assert_ok(self.run_in('patches/refresh', '9999-new.patch'))

    def test_refresh_leaves_nothing(self):
        """A patch whose edits are all undone."""
        self.make_patch('a\nb\nc\n', 'a\nb\nhook();\nc\n')
        path = self.root / 'patches/9999-new.patch'
        before = path.read_text()
        (self.build / 'src/net/new.c').write_text('a\nb\nc\n')
        done = self.run_in('patches/refresh', path.name)
        self.assertNotEqual(done.returncode, 0)
        self.assertIn('patches/series', done.stderr)
        self.assertEqual(path.read_text(), before)

    def test_refresh_new_patch(self):
        """A first edit of a file, in a patch of its own."""
        self.make_patch('a\nb\nc\n', 'a\nb\nhook();\nc\n')
        self.assertIn('9999-new.patch',
                      (self.root / 'patches/series').read_text())
        self.assertIn('+hook();',
                      (self.root / 'patches/9999-new.patch').read_text())
        self.assertEqual((self.build / 'orig/net/new.c').read_text(),
                         'a\nb\nc\n')

    def test_ambiguous_context(self):
        """A hunk gets as much context as tells its place from others."""
        text = ''.join(f'head {i}\n{{\n    same();\n}}\n' for i in range(99))
        self.make_patch(text, text.replace(
            'head 50\n{\n    same();\n',
            'head 50\n{\n    same();\n    hook();\n'))
        self.assertRegex((self.root / 'patches/9999-new.patch').read_text(),
                         ' head 5[01]\n')


if __name__ == '__main__':
    BUILD = Path(sys.argv.pop(1)).resolve()
    pycotap_runner = pycotap.TAPTestRunner(
        message_log=pycotap.LogMode.LogToError,
        test_output_log=pycotap.LogMode.LogToError)
    result = unittest.main(testRunner=pycotap_runner, exit=False).result
    sys.exit(not result.wasSuccessful())
