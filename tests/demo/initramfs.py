# SPDX-License-Identifier: GPL-2.0-or-later
"""Write an initramfs: a cpio archive in the "newc" format."""

import stat
from typing import BinaryIO, Dict, Iterable, List


class Archive:
    """A newc archive; every entry belongs to root and has no date."""

    def __init__(self, out: BinaryIO):
        self._out = out
        self._inode = 0

    def _entry(self, name: str, mode: int, data: bytes, rdev=(0, 0)) -> None:
        self._inode += 1
        encoded = name.encode() + b'\0'
        fields: List[int] = [
            self._inode, mode,
            0, 0,                       # uid, gid
            2 if stat.S_ISDIR(mode) else 1,
            0,                          # mtime
            len(data),
            0, 0,                       # device of the file
            *rdev,
            len(encoded),
            0,                          # checksum, of no use here
        ]
        header = b'070701' + b''.join(b'%08X' % field for field in fields)
        self._pad(self._out.write(header + encoded))
        self._pad(self._out.write(data))

    def _pad(self, written: int) -> None:
        self._out.write(b'\0' * (-written % 4))

    def directory(self, name: str) -> None:
        """Add a directory."""
        self._entry(name, stat.S_IFDIR | 0o755, b'')

    def file(self, name: str, data: bytes) -> None:
        """Add a file, executable like all of them."""
        self._entry(name, stat.S_IFREG | 0o755, data)

    def character_device(self, name: str, major: int, minor: int) -> None:
        """Add a character device."""
        self._entry(name, stat.S_IFCHR | 0o600, b'', (major, minor))

    def close(self) -> None:
        """Write the trailer."""
        self._entry('TRAILER!!!', 0, b'')


def parents(names: Iterable[str]) -> List[str]:
    """All directories that lead to the names, outermost first."""
    found: Dict[str, None] = {}
    for name in names:
        parts = name.split('/')[:-1]
        for depth in range(1, len(parts) + 1):
            found['/'.join(parts[:depth])] = None
    return list(found)


def write(path: str, files: Dict[str, str]) -> None:
    """Write an initramfs with files, a table of guest path to host path."""
    with open(path, 'wb') as out:
        archive = Archive(out)
        for directory in parents([*files, 'dev/console']):
            archive.directory(directory)
        # The kernel opens it for init, before anything is mounted on /dev.
        archive.character_device('dev/console', 5, 1)
        for name, source in files.items():
            with open(source, 'rb') as opened:
                archive.file(name, opened.read())
        archive.close()
