# SPDX-License-Identifier: GPL-2.0-or-later
"""
The host's side of tests in which the guest goes on from an image of itself:
in another QEMU, or in the same one.
"""

import os
import socket
import subprocess
import tempfile
import time


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


def compared(before, after):
    """What the guest is told: "same", or what the pins were and are."""
    return {'pins': 'same' if before == after and before['return'] else
            f'{before} {after}'.replace('"', "'")}


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
    return compared(before, session.qmp('query-register-pins'))


def job(session, command, name, **arguments):
    """Run a job to its end."""
    reply = session.qmp({'execute': command, 'arguments': dict(
        arguments, **{'job-id': name})})
    while 'error' not in reply:
        state = [each for each in session.qmp('query-jobs')['return']
                 if each['id'] == name][0]
        if state['status'] == 'concluded':
            session.qmp({'execute': 'job-dismiss', 'arguments': {'id': name}})
            reply = state
            break
        time.sleep(0.05)
    if 'error' in reply:
        raise ValueError(f'{command}: {reply["error"]}')


def disk(session, path):
    """A disk that no device has, for snapshots only."""
    with open(path, 'wb'):
        pass
    file = {'driver': 'file', 'filename': path}
    for node in (dict(file, **{'node-name': 'file'}),
                 {'driver': 'qcow2', 'node-name': 'disk', 'file': 'file'}):
        if node['driver'] == 'qcow2':
            job(session, 'blockdev-create', 'create', options={
                'driver': 'qcow2', 'file': 'file', 'size': 1 << 20})
        reply = session.qmp({'execute': 'blockdev-add', 'arguments': node})
        if 'error' in reply:
            raise ValueError(str(reply))


def snapshot(session, _arg):
    """The guest goes on from a snapshot; its pins were gone meanwhile."""
    before = session.qmp('query-register-pins')
    where = {'tag': 'one', 'vmstate': 'disk', 'devices': ['disk']}
    with tempfile.TemporaryDirectory() as folder:
        disk(session, os.path.join(folder, 'disk'))
        session.qmp('stop')
        job(session, 'snapshot-save', 'save', **where)
        for arguments in session.pinned:
            session.qmp({'execute': 'register-unpin', 'arguments': arguments})
        if session.qmp('query-register-pins')['return']:
            raise ValueError('something is pinned still')
        job(session, 'snapshot-load', 'load', **where)
        for node in 'disk', 'file':
            session.qmp({'execute': 'blockdev-del',
                         'arguments': {'node-name': node}})
        session.qmp('cont')
    return compared(before, session.qmp('query-register-pins'))


calls = {'migrate': migrate, 'snapshot': snapshot}
