# SPDX-License-Identifier: GPL-2.0-or-later
"""
The same QEMU in several layouts.

Where the linker happens to put two functions of a loop can be worth 20 % of
it: they get in each other's way in the host's branch predictor and caches.
That has nothing to do with what the functions do, but it stays the same for
all runs of a binary.  So each binary is linked several times, with its
objects in another order, and each pair of the bench takes another one.
"""

import json
import os
import random
import shlex
import subprocess
from pathlib import Path
from typing import List, Sequence

from machine import BenchError

QEMU = 'qemu-system-x86_64'


def shuffled(words: Sequence[str], seed: int, out: str) -> List[str]:
    """The linker's command line with the objects in another order"""
    words = list(words)
    words[words.index('-o') + 1] = out
    places = [i for i, word in enumerate(words)
              if word.endswith('.o') and not word.startswith('-')
              and words[i - 1] != '-o']
    # What two binaries have in common is in the same order in both
    objects = sorted((words[i] for i in places), key=lambda word:
                     random.Random(f'{seed} {word}').random())
    for place, word in zip(places, objects):
        words[place] = word
    # Nobody looks at these with a debugger
    return words + ['-Wl,--strip-debug']


def _command(build: Path) -> List[str]:
    """How ninja would link QEMU"""
    try:
        found = subprocess.run(
            ['ninja', '-C', str(build), '-t', 'compdb', '-x', 'c_LINKER',
             'c_LINKER_RSP'], stdout=subprocess.PIPE, check=True, text=True)
    except (OSError, subprocess.CalledProcessError) as exc:
        raise BenchError(f'{build}: {exc}') from exc
    for entry in json.loads(found.stdout):
        if entry['output'] == QEMU:
            return shlex.split(entry['command'])
    raise BenchError(f'{build} has no rule for {QEMU}')


def make(build: Path, folder: Path, count: int) -> List[str]:
    """
    Link the QEMU of a build folder count times, into a folder, unless that
    is done; gives the binaries.
    """
    folder.mkdir(parents=True, exist_ok=True)
    # Where QEMU looks for its firmware, from its own place
    bundle = folder / 'qemu-bundle'
    if not bundle.is_symlink():
        bundle.symlink_to(os.path.relpath(build / 'qemu-bundle', folder))
    binary = build / QEMU
    words: List[str] = []
    made = []
    for seed in range(count):
        out = folder / f'qemu-{seed}'
        made.append(str(out))
        if out.exists() and out.stat().st_mtime > binary.stat().st_mtime:
            continue
        words = words or _command(build)
        new = f'{out}.new'
        done = subprocess.run(shuffled(words, seed, new), cwd=build,
                              stdout=subprocess.PIPE,
                              stderr=subprocess.STDOUT, text=True,
                              check=False)
        if done.returncode:
            raise BenchError(f'linking {out} failed: {done.stdout[-400:]}')
        os.replace(new, out)
    return made
