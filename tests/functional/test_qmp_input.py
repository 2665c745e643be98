#!/usr/bin/env python3
# SPDX-License-Identifier: GPL-2.0-or-later
"""
How the QMP monitor takes its input: long requests, which it reads in blocks,
and what stands behind them.
"""

import array
import errno
import fcntl
import json
import os
import random
import select
import socket
import struct
import time

from guard_case import GuardTest

# Longer than what is read byte by byte, and where a block read behind that
# ends well behind the request
LONG = 1024 + 4096 + 1500
# Requests that the monitor queues, when out-of-band execution is enabled,
# besides the one that runs
QUEUE = 8
SIOCOUTQ = 0x5411
TIMEOUT = 60


def request(ident, command='query-name', **arguments):
    """A request as bytes"""
    message = {'execute': command, 'id': ident}
    if arguments:
        message['arguments'] = arguments
    return json.dumps(message).encode()


def filler(size):
    """A JSON value of about this size, with all kinds of tokens"""
    value = []
    unit = [1, -2, True, None, 'a"}\\]{[\u20ac', {'x': [], 'y': {}}]
    while len(json.dumps(value)) < size:
        value.append(unit)
    return value


class Monitor:
    """One connection, without a library in between"""

    def __init__(self, path, oob=False, greeted=None):
        self.socket = socket.socket(socket.AF_UNIX)
        self.socket.settimeout(TIMEOUT)
        self.socket.connect(path)
        self._received = b''
        self.greeting = self.message()
        if greeted:
            greeted()
        self.send(request('caps', 'qmp_capabilities',
                          enable=['oob'] if oob else []))
        # Before it there may be the reply to what an earlier connection
        # left running: QEMU's monitor sends it to whoever is there.
        self.earlier = []
        self.caps = self.message()
        while self.caps.get('id') != 'caps':
            self.earlier.append(self.caps)
            self.caps = self.message()

    def send(self, data):
        """Write all of it, in one go if it fits."""
        self.socket.sendall(data)

    def send_with_file(self, data, file):
        """Write something, and pass a file descriptor with it."""
        fds = array.array('i', [file.fileno()])
        self.socket.sendmsg([data], [(socket.SOL_SOCKET, socket.SCM_RIGHTS,
                                      fds)])

    def message(self):
        """The next message that is no event"""
        while True:
            line, newline, rest = self._received.partition(b'\n')
            if newline:
                self._received = rest
                message = json.loads(line)
                if 'event' not in message:
                    return message
                continue
            data = self.socket.recv(65536)
            if not data:
                raise EOFError('the monitor hung up')
            self._received += data

    def idents(self, count):
        """The id of so many replies, which are no errors"""
        found = []
        for _ in range(count):
            reply = self.message()
            assert 'return' in reply, reply
            found.append(reply['id'])
        return found

    def silent(self, seconds):
        """Nothing comes for a while."""
        return (b'\n' not in self._received and
                not select.select([self.socket], [], [], seconds)[0])

    def unread(self):
        """Whether QEMU has left something of what was sent"""
        size = fcntl.ioctl(self.socket, SIOCOUTQ, bytes(4))
        return struct.unpack('i', size)[0] > 0

    def close(self):
        """Hang up."""
        self.socket.close()


class QmpInput(GuardTest):
    """A second monitor, that is talked to byte by byte."""

    def setUp(self):
        """A machine that does nothing"""
        super().setUp()
        self.path = self.socket_dir().name + '/raw'
        self.fifo = self.scratch_file('fifo')
        # One that a run left behind when it was killed is as good.
        if not os.path.exists(self.fifo):
            os.mkfifo(self.fifo)
        self.monitors = []
        self.vm.add_args('-nodefaults', '-S', '-machine', 'none',
                         '-chardev', f'socket,id=raw,path={self.path},'
                         'server=on,wait=off',
                         '-mon', 'chardev=raw,mode=control')
        self.vm.launch()

    def tearDown(self):
        # What a failed test left running would keep QEMU from its end.
        try:
            os.close(os.open(self.fifo, os.O_WRONLY | os.O_NONBLOCK))
        except OSError:
            pass
        for monitor in self.monitors:
            monitor.close()
        super().tearDown()

    def connect(self, oob=False, greeted=None):
        """A new connection, with capabilities negotiated"""
        monitor = Monitor(self.path, oob, greeted)
        self.monitors.append(monitor)
        self.assertIn('return', monitor.caps)
        return monitor

    def blocking(self, ident):
        """A request that runs until unblock()"""
        return request(ident, 'blockdev-add', **{
            'driver': 'blkdebug', 'node-name': f'n{time.monotonic_ns()}',
            'config': self.fifo,
            'image': {'driver': 'null-co', 'read-zeroes': True}})

    def unblock(self):
        """Let it go on, if it began before its connection was closed."""
        end = time.monotonic() + 5
        while time.monotonic() < end:
            try:
                os.close(os.open(self.fifo, os.O_WRONLY | os.O_NONBLOCK))
                return
            except OSError as error:
                if error.errno != errno.ENXIO:
                    raise
            time.sleep(0.01)

    def pipeline(self):
        """Long and short requests in a row, and their ids in order"""
        text, idents = b'', []
        for size in 0, 3000, 900, 20000, 5000:
            idents.append(filler(size))
            text += request(idents[-1]) + b'\n'
            for number in range(60):
                idents.append([size, number])
                text += request(idents[-1])
        return text, idents

    def test_order(self):
        """Replies come in the order of requests, however many there are."""
        for oob in False, True:
            with self.subTest(oob=oob):
                monitor = self.connect(oob)
                text, idents = self.pipeline()
                monitor.send(text)
                self.assertEqual(monitor.idents(len(idents)), idents)
                monitor.close()

    def test_pieces(self):
        """It does not matter in what pieces the bytes come."""
        source = random.Random(1)
        for oob in False, True:
            monitor = self.connect(oob)
            text, idents = self.pipeline()
            found = []
            while text:
                size = source.choice((1, 2, 50, 700, 4095, 4096, 4097, 9999))
                monitor.send(text[:size])
                text = text[size:]
                while not monitor.silent(source.choice((0, 0, 0.002))):
                    found += monitor.idents(1)
            found += monitor.idents(len(idents) - len(found))
            self.assertEqual(found, idents)
            monitor.close()

    def test_blocks(self):
        """A long request is not read byte by byte: it takes more."""
        monitor = self.connect()
        monitor.send(self.blocking(filler(LONG)) + request(1) + request(2))
        deadline = time.monotonic() + 20
        while monitor.unread() and time.monotonic() < deadline:
            time.sleep(0.01)
        self.assertFalse(monitor.unread())
        # It has them, and yet they wait.
        self.assertTrue(monitor.silent(0.5))
        self.unblock()
        self.assertEqual(monitor.idents(3)[1:], [1, 2])

    def test_short(self):
        """What is behind a short request stays where it is."""
        monitor = self.connect()
        monitor.send(self.blocking(0) + request(1))
        self.assertTrue(monitor.silent(0.5))
        self.assertTrue(monitor.unread())
        self.unblock()
        self.assertEqual(monitor.idents(2), [0, 1])

    def test_queue(self):
        """The queue takes as many as before, and then all input waits."""
        oob = b'{"exec-oob": "migrate-pause", "id": "oob"}'
        for more in 0, 1:
            with self.subTest(more=more):
                monitor = self.connect(oob=True)
                count = QUEUE - 1 + more
                text = self.blocking(filler(LONG))
                for number in range(count):
                    text += request(number)
                # The queue is filled by this one, or there is still room.
                monitor.send(text + oob + request(count))
                if more:
                    self.assertTrue(monitor.silent(1))
                else:
                    self.assertEqual(monitor.message()['id'], 'oob')
                    self.assertTrue(monitor.silent(0.2))
                self.unblock()
                replies = [monitor.message() for _ in range(count + 2 + more)]
                in_band = [r['id'] for r in replies if r['id'] != 'oob']
                self.assertEqual(in_band[1:], list(range(count + 1)))
                self.assertEqual(len(replies) - len(in_band), more)
                monitor.close()

    def test_close(self):
        """What a closed connection left behind is nobody's."""
        for _ in range(5):
            monitor = self.connect()
            monitor.send(self.blocking(filler(LONG)) + request('stale') +
                         b'{"execute": "quit", "id": [')
            while monitor.unread():
                time.sleep(0.01)
            monitor.close()
            # The greeting comes when the old connection is done with.
            monitor = self.connect(greeted=self.unblock)
            for reply in monitor.earlier:
                self.assertIsInstance(reply.get('id'), list, reply)
            self.assertLess(len(monitor.earlier), 2)
            monitor.send(request('fresh'))
            self.assertEqual(monitor.idents(1), ['fresh'])
            self.assertTrue(monitor.silent(0.1))
            monitor.close()
        self.assertEqual(self.vm.cmd('query-status')['status'], 'prelaunch')

    def test_half_closed(self):
        """What was sent before the end of input is done."""
        monitor = self.connect()
        text, idents = self.pipeline()
        monitor.send(text)
        monitor.socket.shutdown(socket.SHUT_WR)
        self.assertEqual(monitor.idents(len(idents)), idents)

    def test_files(self):
        """A file descriptor goes to the request that it came with."""
        monitor = self.connect()
        files = []
        for number in range(6):
            # pylint: disable=consider-using-with
            files.append(open(self.scratch_file(f'file{number}'), 'wb'))
            self.addCleanup(files[-1].close)
        monitor.send(self.blocking(filler(LONG)) + request('x'))
        for number, file in enumerate(files):
            text = request(number, 'add-fd')
            if number % 2:
                monitor.send_with_file(text, file)
            else:
                # As some clients do: with a byte that means nothing
                monitor.send_with_file(b' ', file)
                monitor.send(text)
        self.unblock()
        monitor.idents(2)
        for number, file in enumerate(files):
            reply = monitor.message()
            self.assertEqual(reply['id'], number)
            self.assertIn('return', reply)
            link = f'/proc/{self.vm.get_pid()}/fd/{reply["return"]["fd"]}'
            self.assertEqual(os.readlink(link), os.path.realpath(file.name))

    def test_garbage(self):
        """An error behind a long request is told in its place, once."""
        monitor = self.connect()
        long = request(filler(LONG))
        for junk in b'}', b']', b'\xff', b'"a\xff"', b'12 ', b'nonsense ':
            monitor.send(long + junk + request(1) + long + request(2))
            self.assertEqual(len(monitor.idents(1)), 1)
            error = monitor.message()
            self.assertEqual(error['error']['class'], 'GenericError', junk)
            self.assertEqual(monitor.idents(3)[::2], [1, 2])
        # Long, and an error itself
        monitor.send(long[:-1] + b']' + b'}' + b'\n' + request(3))
        while True:
            reply = monitor.message()
            if reply.get('id') == 3:
                break
            self.assertIn('error', reply)


if __name__ == '__main__':
    GuardTest.main()
