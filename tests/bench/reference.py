# SPDX-License-Identifier: GPL-2.0-or-later
"""
Build the same QEMU without our patches, to compare with.

BUILD/bench/src is a copy of BUILD/src with the pristine files of BUILD/orig
put back and the links to our files removed; BUILD/bench/qemu is configured
with the same arguments.  Both are kept, and made anew only when QEMU or the
arguments have changed.
"""

import os
import shutil
import subprocess
from pathlib import Path

from machine import BenchError

# What "qemu-system-x86_64 --version" says behind the number
PKGVERSION = '--with-pkgversion=unpatched'


def _read(path: Path) -> str:
    try:
        return path.read_text(encoding='utf-8')
    except FileNotFoundError:
        raise BenchError(f'{path} is missing: run configure first') from None


def _made_of(build: Path) -> str:
    """What the reference depends on"""
    return '\n'.join((_read(build / 'src/VERSION').strip(),
                      _read(build / 'src.origin').strip(),
                      _read(build / 'qemu.args').strip(), PKGVERSION, ''))


def _run(command, folder: Path, log,
         problem: str = 'building QEMU without our patches failed') -> None:
    done = subprocess.run(command, cwd=folder, stdout=log, stderr=log,
                          check=False)
    if done.returncode:
        raise BenchError(f'{problem}, see {log.name}')


def _our_links(tree: Path, root: Path, build: Path):
    """The symbolic links in the tree that lead to the project's own files"""
    for folder, folders, files in os.walk(tree):
        for name in folders + files:
            path = Path(folder, name)
            if path.is_symlink():
                target = path.resolve()
                if (target.is_relative_to(root)
                        and not target.is_relative_to(build)):
                    yield path


def make_pristine(tree: Path, root: Path, build: Path) -> None:
    """Take our patches and links out of a copy of BUILD/src."""
    for link in list(_our_links(tree, root, build)):
        link.unlink()
    originals = build / 'orig'
    for path in originals.rglob('*'):
        if path.is_file():
            name = path.relative_to(originals)
            shutil.copy2(path, tree / name)
    # A file that was patched before orig had it would be found here.
    applied = build / 'applied'
    for path in applied.rglob('*'):
        name = path.relative_to(applied)
        if path.is_file() and not (originals / name).is_file():
            raise BenchError(f'{originals / name} is missing, and {path} is '
                             'patched: run configure again')
    for line in _read(tree / 'meson.build').splitlines():
        if line.strip().startswith("subdir('guard"):
            raise BenchError(f'{tree}/meson.build still includes our files')


def _copy(build: Path, tree: Path, log) -> None:
    shutil.rmtree(tree, ignore_errors=True)
    _run(['cp', '-a', '--reflink=auto', build / 'src', tree], build, log)


def _prepare(root: Path, build: Path, bench: Path, log) -> None:
    """Copy the source and configure it."""
    shutil.rmtree(bench / 'qemu', ignore_errors=True)
    (bench / 'qemu').mkdir()
    _copy(build, bench / 'src', log)
    make_pristine(bench / 'src', root, build)
    # The arguments are quoted for a shell.
    _run(['sh', '-c', f'../src/configure {_read(build / "qemu.args")} '
          f'{PKGVERSION}'], bench / 'qemu', log)
    _run([str(root / 'scripts/link-firmware'), str(bench / 'qemu')], bench, log)


def build_reference(root: Path, build: Path, say) -> Path:
    """Build the reference if need be, and give its binary."""
    bench = build / 'bench'
    stamp = bench / 'made-of'
    qemu = bench / 'qemu/qemu-system-x86_64'
    made_of = _made_of(build)
    bench.mkdir(exist_ok=True)
    with open(bench / 'build.log', 'w', encoding='utf-8') as log:
        if not stamp.exists() or _read(stamp) != made_of:
            say('Building QEMU without our patches, once; it takes some '
                'minutes')
            stamp.unlink(missing_ok=True)
            _prepare(root, build, bench, log)
            stamp.write_text(made_of, encoding='utf-8')
        # As good as nothing when it is there; an interrupted build goes on.
        _run(['ninja', 'qemu-system-x86_64'], bench / 'qemu', log)
    return qemu


def build_plugin(root: Path, build: Path) -> Path:
    """Build the plugin for the reference, and give the shared object."""
    bench = build / 'bench'
    plugin = bench / 'stores.so'
    with open(bench / 'plugin.log', 'w', encoding='utf-8') as log:
        flags = subprocess.run(['pkg-config', '--cflags', 'glib-2.0'],
                               stdout=subprocess.PIPE, stderr=log, text=True,
                               check=False)
        if flags.returncode:
            raise BenchError('a plugin needs pkg-config and glib-2.0, see '
                             f'{log.name}')
        _run([*os.environ.get('CC', 'cc').split(), '-O2', '-Wall', '-shared',
              '-fPIC', '-fvisibility=hidden', *flags.stdout.split(),
              '-I', str(bench / 'src/include/qemu'), '-o', str(plugin),
              str(root / 'tests/bench/plugin/stores.c')], bench, log,
             'building the plugin failed')
    return plugin
