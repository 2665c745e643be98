# SPDX-License-Identifier: GPL-2.0-or-later
"""The host's side of pin-host.c."""

import os
import socket
import struct
import subprocess
import tempfile
import time

import pin_host
from gdb_host import gdb


def states(session, arg):
    """Of each register of one CPU: armed or waiting."""
    reply = session.qmp('query-register-pins')
    return {pin['register']: pin['state'] for pin in reply['return']
            if pin['cpu-index'] == arg.get('cpu-index', 0)}


def refused(session, arg):
    """Whether the pin is refused with a certain word, and leaves nothing."""
    before = session.qmp('query-register-pins')
    reply = pin_host.pin_more(session, arg)
    after = session.qmp('query-register-pins')
    text = reply.get('error', {}).get('desc', 'no error')
    klass = reply.get('error', {}).get('class')
    good = arg['word'] in text and klass == 'GenericError' and before == after
    return {'refused': good, 'desc': text.replace('"', "'")}


def flood(session, _arg):
    """How many events have come."""
    session.qmp('query-name')
    return {'events': sum(event['name'] == 'REGISTER_PIN_VIOLATION'
                          for event in session.events)}


def watched(session, arg):
    """Have an instruction let through that a debugger watches then."""
    pin_host.pin(session, {'registers': [{'register': 'idtr'}], 'conts': 0,
                           'more': {'action': 'pause', 'cpu-index': 1}})
    gdb(session, f'M{arg["go"]:x},1:01', cont=False)
    while (pin_host.counted(session) == session.pins_counted or
           session.qmp('query-status')['return']['status'] != 'paused'):
        time.sleep(0.05)
    _, stop = gdb(session, f'Z3,{arg["operand"]:x},a', 'c')
    return {'watch': 'rwatch' in stop, 'stop': stop}


def plug(session, arg):
    """Plug a CPU."""
    slots = session.qmp('query-hotpluggable-cpus')['return']
    slot = [s for s in slots if s['props'].get('core-id') == arg['core'] or
            s['props'].get('socket-id') == arg['core']][0]
    return session.qmp({'execute': 'device_add', 'arguments': dict(
        slot['props'], driver=slot['type'], id=f'cpu{arg["core"]}')})


# --- Migration -------------------------------------------------------------

def save(session, path):
    """Migrate to a file; the guest stands still then."""
    session.qmp({'execute': 'migrate', 'arguments': {'uri': f'file:{path}'}})
    while True:
        status = session.qmp('query-migrate')['return'].get('status')
        if status == 'completed':
            return
        if status == 'failed':
            raise ValueError(str(session.qmp('query-migrate')))
        time.sleep(0.05)


def command_line(session, serial, monitor, incoming):
    """The session's command with other ends, or none."""
    command = list(session.process.args)
    for name, end in ('guest-serial', serial), ('guest-qmp', monitor):
        at = next(i for i, word in enumerate(command)
                  if f'id={name},' in word)
        command[at] = (f'null,id={name}' if end is None else
                       f'socket,id={name},fd={end.fileno()}')
    if monitor is None:
        at = command.index('chardev=guest-qmp,mode=control')
        del command[at - 1:at + 1]
    return command + ['-incoming', incoming]


def migrate(session, _arg):
    """The guest goes on in a new QEMU, which takes the session over."""
    before = session.qmp('query-register-pins')
    with tempfile.TemporaryDirectory() as folder:
        path = os.path.join(folder, 'image')
        save(session, path)
        ends = [socket.socketpair() for _ in range(2)]
        theirs = [pair[1] for pair in ends]
        process = subprocess.Popen(
            command_line(session, *theirs, f'file:{path}'),
            stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            pass_fds=[end.fileno() for end in theirs])
        for end in theirs:
            end.close()
        session.close()
        session.process = process
        session.serial, session.monitor = (pair[0] for pair in ends)
        session.partial = {session.serial: b'', session.monitor: b''}
        session.open = {session.serial, session.monitor, process.stderr}
        session.send('qmp_capabilities', keep_reply=False)
        while session.qmp('query-status')['return']['status'] == 'inmigrate':
            time.sleep(0.05)
        session.qmp('cont')
    after = session.qmp('query-register-pins')
    return {'pins': 'same' if before == after and before['return'] else
            f'{before} {after}'.replace('"', "'")}


def load(session, path):
    """Whether a QEMU takes an image, and what it says."""
    command = command_line(session, None, None, f'file:{path}')
    command[command.index('-incoming'):] = [
        '-S', '-monitor', 'stdio', '-incoming', f'file:{path}']
    done = subprocess.run(command, input='info status\nquit\n', text=True,
                          capture_output=True, timeout=60, check=False)
    lines = done.stderr.strip().splitlines()
    return done.returncode == 0, ' / '.join(lines)


def hostile(session, arg):
    """Put another value into the image where the register is, and load it."""
    good, evil = (struct.pack('>Q', arg[key]) for key in ('good', 'evil'))
    with tempfile.TemporaryDirectory() as folder:
        path = os.path.join(folder, 'image')
        save(session, path)
        with open(path, 'rb') as file:
            data = file.read()
        control, _ = load(session, path)
        # In the image of the CPU the register comes before its pins
        changed = data.replace(good, evil, 1)
        with open(path, 'wb') as file:
            file.write(changed)
        taken, text = load(session, path)
    session.qmp('cont')
    return {'changed': int(changed != data), 'refused': not taken,
            'control': 'taken' if control else 'refused',
            'text': text.replace('"', "'")}


calls = dict(pin_host.calls, states=states, refused=refused, flood=flood,
             plug=plug, watched=watched, migrate=migrate, hostile=hostile)
