# SPDX-License-Identifier: GPL-2.0-or-later
"""The host's side of pin-host.c."""

import os
import struct
import subprocess
import tempfile
import time

import image_host
import pin_host
from gdb_host import gdb
from image_host import command_line, save


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


def flood(session, arg):
    """How many events have come, and how many of one MSR."""
    session.qmp('query-name')
    events = [event['data'] for event in session.events
              if event['name'] == 'REGISTER_PIN_VIOLATION']
    return {'events': len(events),
            'of-index': sum(event.get('index') == arg.get('index')
                            for event in events)}


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


def cleared(session, _arg):
    """How many resets that made pins wait were told of, each or in sum."""
    session.qmp('query-name')
    events = [event for event in session.events
              if event['name'] == 'REGISTER_PINS_CLEARED']
    for event in events:
        session.events.remove(event)
    # The next one is not too soon
    time.sleep(0.5)
    return {'events': len(events),
            'suppressed': sum(e['data'].get('suppressed', 0)
                               for e in events)}


def protect(session, arg):
    """Have a load stopped, and perhaps the IDT pinned before 'cont'."""
    do = ['cont']
    if arg['pin']:
        do.insert(0, {'execute': 'register-pin', 'arguments': {
            'registers': [{'register': 'idtr'}]}})
    region = {'addr': arg['addr'], 'size': 128, 'access': 'none'}
    session.events.clear()
    # Limit and base are two loads
    session.react('STOP', ['cont'])
    session.react('STOP', do)
    return session.qmp({'execute': 'subpage-set-access', 'arguments': {
        'regions': [region], 'action': 'pause'}})


def stops(session, arg):
    """How often the VM was stopped; the protection goes."""
    session.reactions.clear()
    session.qmp({'execute': 'subpage-set-access', 'arguments': {
        'regions': [{'addr': arg['addr'], 'size': 128,
                     'access': 'read-write'}]}})
    return {'stops': sum(event['name'] == 'STOP'
                         for event in session.events)}


def sleep(session, arg):
    """Wait, and tell what came since the last time."""
    time.sleep(arg['s'])
    session.qmp('query-name')
    cleared = sum(event['name'] == 'REGISTER_PINS_CLEARED'
                  for event in session.events)
    session.events.clear()
    return {'PINS_CLEARED': cleared}


def plug(session, arg):
    """Plug a CPU."""
    slots = session.qmp('query-hotpluggable-cpus')['return']
    slot = [s for s in slots if s['props'].get('core-id') == arg['core'] or
            s['props'].get('socket-id') == arg['core']][0]
    return session.qmp({'execute': 'device_add', 'arguments': dict(
        slot['props'], driver=slot['type'], id=f'cpu{arg["core"]}')})


# --- Hostile images ---------------------------------------------------------

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


calls = dict(pin_host.calls, **image_host.calls, states=states,
             refused=refused, flood=flood, cleared=cleared, plug=plug,
             watched=watched, hostile=hostile, protect=protect, stops=stops,
             sleep=sleep)
