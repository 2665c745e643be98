#!/usr/bin/python3
# SPDX-License-Identifier: GPL-2.0-or-later
"""Build a fuzz target with clang's libFuzzer, and run it for a while."""

import argparse
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

NAME = 'libFuzzer finds nothing in the request array'


def flags(package: str):
    """What pkg-config says"""
    return subprocess.run(['pkg-config', '--cflags', '--libs', package],
                          check=True, capture_output=True,
                          text=True).stdout.split()


def main() -> int:
    """Build and run; TAP comes out."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument('--source-root', type=Path, required=True)
    parser.add_argument('--build-root', type=Path, required=True)
    parser.add_argument('--seconds', type=int, default=60)
    parser.add_argument('sources', nargs='+')
    args = parser.parse_args()

    print('1..1')
    clang = shutil.which('clang')
    if not clang:
        print(f'ok 1 {NAME} # SKIP clang is not installed')
        return 0
    src, build = args.source_root, args.build_root
    includes = [build, build / 'qapi', src, src / 'include',
                src / 'guard' / 'include', src / 'host/include/x86_64',
                src / 'host/include/generic']
    with tempfile.TemporaryDirectory(prefix='qemu-guard-fuzz-') as tmp:
        target = Path(tmp) / 'fuzz'
        command = [clang, '-g', '-O1', '-std=gnu11', '-DGUARD_LIBFUZZER',
                   '-fsanitize=fuzzer,address,undefined',
                   '-fno-sanitize-recover=undefined',
                   # QEMU counts on two's complement for these
                   '-fno-sanitize=shift,function', '-Wno-everything',
                   *(f'-I{path}' for path in includes), *args.sources,
                   '-o', target, *flags('glib-2.0')]
        built = subprocess.run(command, capture_output=True, text=True,
                               check=False)
        if built.returncode:
            no_runtime = 'libclang_rt.fuzzer' in built.stderr
            for line in built.stderr.splitlines()[-20:]:
                print(f'# {line}')
            if no_runtime:
                print(f'ok 1 {NAME} # SKIP clang has no libFuzzer: package '
                      'libclang-rt-*-dev')
                return 0
            print(f'not ok 1 {NAME}: it does not build')
            return 1
        ran = subprocess.run([target, f'-max_total_time={args.seconds}',
                              '-max_len=4096', '-rss_limit_mb=1024',
                              '-timeout=20', '-seed=1', '-len_control=0'],
                             cwd=tmp, capture_output=True, text=True,
                             check=False, timeout=args.seconds * 3 + 60)
    lines = ran.stderr.splitlines()
    for line in lines[-5 if ran.returncode == 0 else -60:]:
        print(f'# {line}')
    print(f'{"not " if ran.returncode else ""}ok 1 {NAME}')
    return int(ran.returncode != 0)


if __name__ == '__main__':
    sys.exit(main())
