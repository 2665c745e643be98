# SPDX-License-Identifier: GPL-2.0-or-later
"""
Build a QEMU in which one hook can be left out when it is started.

Only the objects that know of include/guard/mutant.h are compiled once more,
with -DGUARD_MUTANTS; all others are those of the ordinary build.  The result
lies beside the ordinary one, where it finds the same firmware.
"""

import json
import shlex
import subprocess

NAME = 'qemu-system-x86_64'
FOLDER = 'guard-mutants'
HEADER = '/guard/mutant.h'
LINKERS = ('c_LINKER', 'c_LINKER_RSP', 'cpp_LINKER', 'cpp_LINKER_RSP')


class BuildError(Exception):
    """The build folder is not as expected, or the compiler failed."""


def knowing_objects(qemu):
    """The objects that include the header, as ninja has recorded it."""
    found = set()
    target = None
    with subprocess.Popen(['ninja', '-t', 'deps'], cwd=qemu, text=True,
                          stdout=subprocess.PIPE) as process:
        for line in process.stdout:
            if line.strip() and not line.startswith(' '):
                target = line.split(':')[0]
            elif line.rstrip().endswith(HEADER):
                found.add(target)
    return found


def link_command(qemu):
    """The words of the command that links QEMU."""
    text = subprocess.run(['ninja', '-t', 'compdb', '-x', *LINKERS],
                          cwd=qemu, text=True, check=True,
                          capture_output=True).stdout
    for entry in json.loads(text):
        if entry['output'] == NAME:
            return shlex.split(entry['command'])
    raise BuildError(f'{qemu}/build.ninja does not link {NAME}')


def for_ninja(text):
    """Text as a variable's value in a ninja file."""
    return text.replace('$', '$$')


def path_for_ninja(path):
    """A path in a build line of a ninja file."""
    return for_ninja(path).replace(' ', '$ ').replace(':', '$:')


def compile_rule(entry, out):
    """The build line of one object."""
    words = shlex.split(entry['command'])
    for i, word in enumerate(words[:-1]):
        if word in ('-o', '-MQ'):
            words[i + 1] = out
        elif word == '-MF':
            words[i + 1] = out + '.d'
    words.append('-DGUARD_MUTANTS')
    return (f'build {path_for_ninja(out)}: cc {path_for_ninja(entry["file"])}\n'
            f'  run = {for_ninja(shlex.join(words))}\n')


def rules(qemu):
    """A ninja file for the folder of the ordinary build."""
    link = link_command(qemu)
    knowing = knowing_objects(qemu) & set(link)
    text = [f'builddir = {FOLDER}\n'
            'rule cc\n  command = $run\n  depfile = $out.d\n'
            '  deps = gcc\n  description = Compiling $out\n'
            'rule link\n  command = $run @$out.rsp\n'
            '  rspfile = $out.rsp\n  rspfile_content = $words\n'
            '  description = Linking $out\n']
    made = {}
    commands = json.loads((qemu / 'compile_commands.json').read_text())
    for entry in commands:
        if entry.get('output') in knowing:
            out = f'{FOLDER}/{entry["output"]}'
            made[entry['output']] = out
            text.append(compile_rule(entry, out))
    if not made or set(made) != knowing:
        raise BuildError(f'{qemu}: {len(knowing)} objects include {HEADER}, '
                         f'and {len(made)} have a command')

    start = next(i for i, word in enumerate(link) if word.startswith('-'))
    words = [made.get(word, word) for word in link[start:]]
    words[words.index('-o') + 1] = f'{NAME}-mutants'
    others = [word for word in words if word.endswith(('.o', '.a')) and
              word not in made.values() and (qemu / word).exists()]
    text.append(f'build {NAME}-mutants: link '
                f'{" ".join(map(path_for_ninja, made.values()))} | '
                f'{" ".join(map(path_for_ninja, others))}\n'
                f'  run = {for_ninja(shlex.join(link[:start]))}\n'
                f'  words = {for_ninja(shlex.join(words))}\n')
    return ''.join(text)


def build(qemu):
    """Bring the mutant up to date; returns its path."""
    path = qemu / FOLDER / 'build.ninja'
    path.parent.mkdir(exist_ok=True)
    path.write_text(rules(qemu))
    done = subprocess.run(['ninja', '-f', path.relative_to(qemu)], cwd=qemu,
                          text=True, stdout=subprocess.PIPE,
                          stderr=subprocess.STDOUT, check=False)
    if done.returncode:
        raise BuildError(done.stdout)
    return qemu / f'{NAME}-mutants'
