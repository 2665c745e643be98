#!/usr/bin/python3
# SPDX-License-Identifier: GPL-2.0-or-later
"""
Runs one bare-metal guest test under QEMU and prints its results as TAP.

The test's ELF file says in its section .guest.runs how QEMU is to be
started, once for each run (GUEST_RUN in lib/guest.h). What a run's option
string may hold besides QEMU's options:

  accel=A       the argument of -accel, "tcg" by default; a run for "kvm" is
                skipped where /dev/kvm can't be opened
  memory=SIZE   the argument of -m, 128M by default
  timeout=S     seconds until the guest counts as hung, 60 by default
  reboots       a reset of the guest is part of the test
  needs=CPUFLAG skip the run when this QEMU has no such CPU property
  {tmp}         a directory that is removed afterwards
  {disk:SIZE}   an empty raw image of SIZE, removed afterwards

The guest's serial line carries the results. A line "@verb JSON" on it is a
request to the host, answered by one line "=JSON" (host() in lib/guest.h):

  qmp COMMAND      run a QMP command, or each of a list of them; answers
                   with QEMU's reply, or the list of replies
  events {name, wait, within}
                   takes the events called "name" (all, if left out) out of
                   the queue: {"count": n, "events": [...]}. With "wait", not
                   before that many have come, or "within" seconds (10) are
                   over. Every event that QEMU sent before the guest's
                   request is seen.
  on {event, do}   when "event" comes next, run the commands "do": for a
                   guest that can't ask because it is paused
  call NAME ...    a function of the file given with --driver: its dict
                   "calls" maps a name to function(session, argument)
"""

import argparse
import collections
import importlib.util
import json
import os
import re
import select
import shlex
import shutil
import signal
import socket
import struct
import subprocess
import sys
import tempfile
import time


class Failure(Exception):
    """The run came to an end that is not a result."""


def read_runs(path):
    """The (name, options) pairs in the ELF section .guest.runs."""
    with open(path, 'rb') as elf:
        data = elf.read()
    if data[:5] != b'\x7fELF\x02':
        raise SystemExit(f'{path}: not a 64-bit ELF file')
    offset, = struct.unpack_from('<Q', data, 0x28)
    size, count, names = struct.unpack_from('<HHH', data, 0x3a)
    sections = [struct.unpack_from('<IIQQQQ', data, offset + i * size)
                for i in range(count)]
    for name, _, _, _, start, length in sections:
        name += sections[names][4]
        if data[name:data.index(b'\0', name)] == b'.guest.runs':
            words = data[start:start + length].decode().split('\0')
            words = [word for word in words if word]
            # The line comes first: compilers don't keep the order
            runs = zip(map(int, words[::3]), words[1::3], words[2::3])
            return [(name, options) for _, name, options in sorted(runs)]
    raise SystemExit(f'{path}: no section .guest.runs; '
                     f'the test has no GUEST_RUN()')


class Options:
    """One run's option string, taken apart."""

    def __init__(self, text, tmp):
        self.accel = 'tcg'
        self.memory = '128M'
        self.timeout = 60.0
        self.reboots = False
        self.needs = []
        self.qemu = []
        disks = 0
        for word in shlex.split(text):
            match = re.fullmatch(r'(accel|memory|timeout|needs)=(\S+)', word)
            if match and match[1] == 'timeout':
                self.timeout = float(match[2])
            elif match and match[1] == 'needs':
                self.needs.append(match[2])
            elif match:
                setattr(self, match[1], match[2])
            elif word == 'reboots':
                self.reboots = True
            else:
                word = word.replace('{tmp}', tmp)
                for size in re.findall(r'{disk:(\d+[KMG]?)}', word):
                    disks += 1
                    image = os.path.join(tmp, f'disk{disks}.raw')
                    shift = {'K': 10, 'M': 20, 'G': 30}.get(size[-1], 0)
                    with open(image, 'wb') as file:
                        file.truncate(int(size.rstrip('KMG')) << shift)
                    word = word.replace('{disk:%s}' % size, image, 1)
                self.qemu.append(word)


class Session:
    """One QEMU with its serial line and its QMP monitor."""

    def __init__(self, qemu, kernel, options, verbose):
        self.verbose = verbose
        self.deadline = time.monotonic() + options.timeout
        self.timeout = options.timeout
        self.events = collections.deque()
        self.reactions = []
        self.replies = collections.deque()
        self.reset = False
        self.output = {}
        self.serial, serial = socket.socketpair()
        self.monitor, monitor = socket.socketpair()
        command = [
            qemu, '-nodefaults', '-no-user-config', '-display', 'none',
            '-accel', options.accel, '-m', options.memory,
            '-chardev', f'socket,id=guest-serial,fd={serial.fileno()}',
            '-serial', 'chardev:guest-serial',
            '-chardev', f'socket,id=guest-qmp,fd={monitor.fileno()}',
            '-mon', 'chardev=guest-qmp,mode=control',
            '-device', 'isa-debug-exit,iobase=0xf4,iosize=4',
            *([] if options.reboots else ['-no-reboot']),
            '-kernel', kernel, *options.qemu]
        if verbose:
            print('#', shlex.join(command), file=sys.stderr)
        self.process = subprocess.Popen(
            command, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE, close_fds=True,
            pass_fds=[serial.fileno(), monitor.fileno()])
        serial.close()
        monitor.close()
        self.partial = {self.serial: b'', self.monitor: b''}
        self.open = {self.serial, self.monitor, self.process.stderr}
        self.stderr = b''
        self.late_lines = []
        try:
            self.send('qmp_capabilities', keep_reply=False)
        except BrokenPipeError:
            # On a busy host a short test may be over by now; what it left on
            # the serial line says how it went.
            pass

    def close(self):
        if self.process.poll() is None:
            self.process.kill()
        self.process.wait()
        for end in (self.serial, self.monitor, self.process.stderr):
            end.close()

    # --- Input ---

    def pump(self, limit=None):
        """Waits for input; returns the serial lines that have come."""
        now = time.monotonic()
        end = self.deadline if limit is None else min(limit, self.deadline)
        if now >= self.deadline:
            raise Failure(f'no end within {self.timeout:g} s')
        ready, _, _ = select.select(list(self.open), [], [],
                                    max(0, end - now))
        lines = []
        for source in ready:
            if source is self.process.stderr:
                data = os.read(source.fileno(), 65536)
                self.stderr += data
            else:
                try:
                    data = source.recv(65536)
                except ConnectionResetError:
                    data = b''
            if not data:
                self.open.discard(source)
            elif source is not self.process.stderr:
                *whole, rest = (self.partial[source] + data).split(b'\n')
                self.partial[source] = rest
                if source is self.serial:
                    lines += [line.decode(errors='replace').rstrip('\r')
                              for line in whole]
                else:
                    for line in whole:
                        self.take_message(json.loads(line))
        return lines

    def take_message(self, message):
        if self.verbose:
            print('# qmp', json.dumps(message), file=sys.stderr)
        if 'event' in message:
            if message['event'] in ('RESET', 'SHUTDOWN'):
                self.reset = self.reset or \
                    message['event'] == 'RESET' or \
                    message['data'].get('reason') == 'guest-reset'
            self.events.append({'name': message['event'],
                                'data': message.get('data', {})})
            for reaction in self.reactions:
                if reaction['event'] == message['event']:
                    reaction['times'] -= 1
                    if reaction['times'] == 0:
                        self.reactions.remove(reaction)
                    for command in reaction['do']:
                        self.send(command, keep_reply=False)
                    break
        elif message.get('id') == 'wanted':
            self.replies.append(message)

    # --- QMP ---

    def send(self, command, keep_reply=True):
        if isinstance(command, str):
            command = {'execute': command}
        command = dict(command, id='wanted' if keep_reply else 'unwanted')
        self.monitor.sendall(json.dumps(command).encode() + b'\n')

    def qmp(self, *commands):
        """
        Runs commands and returns QEMU's reply, or the list of replies if
        there is more than one command. QEMU has all of them at once, and runs
        them one after the other.
        """
        for command in commands:
            self.send(command)
        replies = []
        while len(replies) < len(commands):
            if self.replies:
                replies.append(self.replies.popleft())
                del replies[-1]['id']
            elif self.monitor not in self.open:
                raise Failure('QEMU closed its monitor')
            else:
                self.late_lines += self.pump()
        return replies if len(replies) > 1 else replies[0]

    def react(self, event, commands, times=1):
        """Runs the commands when the event comes, the next times it does."""
        if times:
            self.reactions.append({'event': event, 'do': commands,
                                   'times': times})

    # --- Requests of the guest ---

    def request(self, line):
        verb, _, text = line[1:].partition(' ')
        try:
            argument = json.loads(text) if text.strip() else {}
            handler = getattr(self, 'verb_' + verb, None)
            if handler is None:
                raise ValueError(f'unknown verb "{verb}"')
            answer = handler(argument)
        except (ValueError, KeyError, TypeError) as error:
            answer = {'error': {'class': 'Runner', 'desc': f'{error!r}'}}
        self.serial.sendall(b'=' + json.dumps(answer).encode() + b'\n')

    def verb_qmp(self, command):
        if isinstance(command, list):
            return [self.qmp(each) for each in command]
        return self.qmp(command)

    def verb_events(self, argument):
        def taken():
            return [event for event in self.events
                    if argument.get('name') in (None, event['name'])]

        # A reply comes after every event that was sent before the command
        self.qmp('query-name')
        limit = time.monotonic() + argument.get('within', 10)
        while (len(taken()) < argument.get('wait', 0)
               and time.monotonic() < limit and self.monitor in self.open):
            self.late_lines += self.pump(limit)
        events = taken()
        for event in events:
            self.events.remove(event)
        return {'count': len(events), 'events': events}

    def verb_on(self, argument):
        commands = argument['do']
        if not isinstance(commands, list):
            commands = [commands]
        self.react(argument['event'], commands)
        return {'return': {}}

    calls = {}

    def verb_call(self, argument):
        name = argument['name']
        if name not in self.calls:
            raise ValueError(f'--driver gives no call "{name}"')
        return self.calls[name](self, argument)


class Results:
    """TAP of all runs under one numbering."""

    def __init__(self):
        self.count = 0
        self.failed = 0

    def point(self, good, text):
        self.count += 1
        self.failed += not good
        print(f'{"" if good else "not "}ok {self.count} {text}', flush=True)

    def end(self):
        print(f'1..{self.count}', flush=True)


POINT = re.compile(r'(not )?ok (\d+)\s*(?:- )?(.*)')


def run(qemu, kernel, name, options, results, verbose):
    """One run: the guest's points, and one more if it did not end well."""
    session = Session(qemu, kernel, options, verbose)
    seen = 0
    plan = None
    problem = None

    def take(line):
        nonlocal seen, plan
        match = POINT.fullmatch(line)
        if line.startswith('@'):
            session.request(line)
        elif match:
            seen += 1
            if int(match[2]) != seen:
                raise Failure(f'point {match[2]} where {seen} was due')
            skipped = match[3].startswith('# SKIP')
            text = match[3] if skipped else f'- {name}: {match[3]}'
            results.point(not match[1], text)
        elif re.fullmatch(r'1\.\.\d+', line):
            plan = int(line[3:])
        elif line.startswith('Bail out!'):
            raise Failure(line[9:].strip())
        elif line.strip():
            print(line if line.startswith('#') else f'# {line}', flush=True)

    try:
        while session.serial in session.open:
            for line in session.pump():
                take(line)
            while session.late_lines:
                take(session.late_lines.pop(0))
        code = session.process.wait(
            max(0.1, session.deadline - time.monotonic()))
        while session.process.stderr in session.open:
            session.pump()
        if plan is None:
            problem = f'no plan; QEMU ended with {describe(code)}'
            if not options.reboots and session.reset:
                problem += ' after a reset (triple fault?)'
        elif plan != seen:
            problem = f'{seen} points where the plan has {plan}'
        elif code not in (1, 3):
            problem = f'QEMU ended with {describe(code)}'
        elif seen == 0:
            problem = 'no points'
    except Failure as failure:
        problem = str(failure)
    except subprocess.TimeoutExpired:
        problem = f'QEMU did not exit within {options.timeout:g} s'
    except (BrokenPipeError, ConnectionResetError):
        session.process.wait()
        problem = f'QEMU went away with {describe(session.process.returncode)}'
    finally:
        session.close()
    for line in session.stderr.decode(errors='replace').splitlines():
        print(f'# qemu: {line}')
    if problem:
        results.point(False, f'- {name}: {problem}')


def describe(code):
    if code < 0:
        return f'signal {signal.Signals(-code).name}'
    return f'exit code {code}'


def has_property(qemu, flag, cache={}):
    if qemu not in cache:
        # Bounded: this QEMU may be a broken one
        done = subprocess.run([qemu, '-cpu', 'help'], capture_output=True,
                              text=True, timeout=60, check=False)
        cache[qemu] = set(done.stdout.split())
    return flag in cache[qemu]


def main():
    parser = argparse.ArgumentParser(
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('--run', action='append', metavar='NAME',
                        help='only this run; may be given again')
    parser.add_argument('--list', action='store_true',
                        help='print the runs of the test')
    parser.add_argument('--driver', metavar='FILE',
                        help='Python file with more host-side calls')
    parser.add_argument('--without-cpu', action='append', default=[],
                        metavar='FLAG',
                        help='leave +FLAG out of -cpu: for a QEMU that has '
                             'no such property')
    parser.add_argument('--timeout-multiplier', type=float, default=1.0,
                        metavar='N', help='for a slow host or QEMU')
    parser.add_argument('-v', '--verbose', action='store_true',
                        help='print QEMU\'s command line and QMP traffic')
    parser.add_argument('qemu')
    parser.add_argument('test', help='ELF file of the test')
    args = parser.parse_args()

    runs = read_runs(args.test)
    if args.list:
        for name, options in runs:
            print(f'{name}: {options}')
        return 0
    if args.run:
        unknown = set(args.run) - {name for name, _ in runs}
        if unknown:
            parser.error(f'{args.test} has no run {", ".join(unknown)}; '
                         f'it has {", ".join(name for name, _ in runs)}')
        runs = [each for each in runs if each[0] in args.run]
    if args.driver:
        spec = importlib.util.spec_from_file_location('driver', args.driver)
        driver = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(driver)
        Session.calls = driver.calls

    results = Results()
    for name, text in runs:
        tmp = tempfile.mkdtemp(prefix='guest-test-')
        try:
            for flag in args.without_cpu:
                text = text.replace(f',+{flag}', '')
            options = Options(text, tmp)
            options.timeout *= args.timeout_multiplier
            lacking = [flag for flag in options.needs
                       if not has_property(args.qemu, flag)]
            if options.accel.split(',')[0] == 'kvm' and \
                    not os.access('/dev/kvm', os.R_OK | os.W_OK):
                results.point(True, f'# SKIP {name}: /dev/kvm not usable')
            elif lacking:
                results.point(True, f'# SKIP {name}: this QEMU has no CPU '
                                    f'property {", ".join(lacking)}')
            else:
                run(args.qemu, args.test, name, options, results,
                    args.verbose)
        finally:
            shutil.rmtree(tmp, ignore_errors=True)
    results.end()
    return 1 if results.failed else 0


if __name__ == '__main__':
    sys.exit(main())
