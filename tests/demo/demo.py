#!/usr/bin/env python3
# SPDX-License-Identifier: GPL-2.0-or-later
"""
Show on a real Linux guest what qemu-guard does.

The guest is the distribution's own cloud kernel, with its busybox and the
module in contrib/linux-guest.  The exit status is 0 only if all that was
seen is what was expected.
"""

import argparse
import contextlib
import os
import shutil
import signal
import subprocess
import sys
import tempfile
from typing import Dict, List, Optional

import act1_xo
import act2_subpage
import act3_pins
import initramfs
import pins_lifecycle
from report import Report, TapReport, TextReport, skip_all

# A module for each act, with TITLE, ABOUT and run(demo)
ACTS = {
    1: act1_xo,
    2: act2_subpage,
    3: act3_pins,
}

# The same for what is a test, and not shown unless it is asked for
EXTRAS = {
    4: pins_lifecycle,
}

# Lines of a guest's console to print when it went wrong
TAIL = 25

HERE = os.path.dirname(os.path.realpath(__file__))


class Demo:
    """What the acts work with"""

    def __init__(self, args: argparse.Namespace, log_dir: str,
                 report: Report) -> None:
        self.report = report
        self.log_dir = log_dir
        self._args = args
        self._initrd = os.path.join(log_dir, 'initramfs')
        self.console_logs: List[str] = []
        initramfs.write(self._initrd, self._files())

    def _files(self) -> Dict[str, str]:
        args = self._args
        return {
            'init': os.path.join(HERE, 'init'),
            'bin/busybox': args.busybox,
            'bin/xo-test': os.path.join(args.guest, 'xo-test'),
            'lib/guard_guest.ko': os.path.join(args.guest, 'guard_guest.ko'),
            'lib/guard_subpage.ko': os.path.join(args.guest,
                                                 'guard_subpage.ko'),
            'lib/attack_guest.ko': os.path.join(args.attack,
                                                'attack_guest.ko'),
        }

    @property
    def _vmlinuz(self) -> str:
        return os.path.join(self._args.kernel, 'vmlinuz')

    def initramfs_with_kernel(self) -> str:
        """One from which the guest can start a kernel by itself"""
        path = os.path.join(self.log_dir, 'initramfs-with-kernel')
        initramfs.write(path, {
            **self._files(), 'boot/vmlinuz': self._vmlinuz,
            'boot/initramfs': self._initrd,
            'bin/guest-kexec': os.path.join(self._args.attack,
                                            'guest-kexec')})
        return path

    def guest(self, name: str, initrd: Optional[str] = None, **kwargs):
        """A new guest, not booted yet; arguments as for guest.Guest"""
        # QEMU's Python is found only once the arguments are known.
        from guest import Guest  # pylint: disable=import-outside-toplevel
        guest = Guest(self._args.qemu, self._vmlinuz,
                      initrd or self._initrd, self.log_dir, name, **kwargs)
        self.console_logs.append(guest.console_log)
        return guest

    def show_last_console(self) -> None:
        """The end of what the last guest's kernel said"""
        if not self.console_logs:
            return
        with contextlib.suppress(FileNotFoundError):
            with open(self.console_logs[-1], encoding='utf-8',
                      errors='replace') as log:
                lines = log.read().splitlines()[-TAIL:]
            self.report.say(f'The end of {self.console_logs[-1]}:')
            for line in lines:
                self.report.say(f'  | {line.strip()}')


def missing(args: argparse.Namespace) -> Optional[str]:
    """What the demo can't do without and does not find, if anything"""
    needed = (
        (args.qemu, '', 'QEMU', "this project's build"),
        (args.busybox, '', 'busybox', 'package busybox-static'),
        (args.kernel, 'vmlinuz', 'a kernel', 'scripts/fetch-guest-kernel'),
        (args.guest, 'guard_guest.ko', 'the kernel module',
         'a build with package linux-headers-cloud-amd64'),
        (args.attack, 'attack_guest.ko', "the attacker's kernel module",
         'a build with package linux-headers-cloud-amd64'),
    )
    for place, name, what, source in needed:
        if not place:
            return f'{what} is missing; it comes from {source}'
        path = os.path.join(place, name) if name else place
        if not os.path.isfile(path):
            return f'{path} is missing; it comes from {source}'
    return None


def first_line(command: List[str]) -> str:
    """The first line that a command prints"""
    done = subprocess.run(command, stdout=subprocess.PIPE, check=False,
                          stderr=subprocess.STDOUT, text=True, timeout=60)
    return (done.stdout.splitlines() or [''])[0]


def release(kernel: str) -> str:
    """The kernel's name, as scripts/fetch-guest-kernel noted it"""
    try:
        with open(os.path.join(kernel, 'release'), encoding='utf-8') as note:
            return note.read().split()[0]
    except (FileNotFoundError, IndexError):
        return 'of unknown release'


def play(args: argparse.Namespace, log_dir: str, report: Report) -> int:
    """Play the acts, and return the exit status."""
    demo = Demo(args, log_dir, report)
    try:
        report.say(f'qemu-guard demo: Debian kernel {release(args.kernel)}\n'
                   f"under {first_line([args.qemu, '--version'])}")
        for number in args.act or ACTS:
            act = {**ACTS, **EXTRAS}[number]
            report.say()
            report.say(f'Act {number}: {act.TITLE}')
            report.say(act.ABOUT)
            act.run(demo)
    except Exception as exc:  # pylint: disable=broad-exception-caught
        # Whatever it is, it ends the demo, and must not look like success.
        report.row(False, 'the demo itself', 'plays to the end',
                   f'{type(exc).__name__}: {exc}')
    if report.failed:
        demo.show_last_console()
        report.say(f'All logs are in {log_dir}')
    return report.finish()


def parse_arguments() -> argparse.Namespace:
    """The command line"""
    parser = argparse.ArgumentParser(description=__doc__.strip()
                                     .splitlines()[0])
    parser.add_argument('--qemu', required=True, metavar='FILE',
                        help='qemu-system-x86_64 of this project')
    parser.add_argument('--qemu-python', metavar='DIR',
                        help="python folder of QEMU's source")
    parser.add_argument('--kernel', metavar='DIR',
                        help='folder made by scripts/fetch-guest-kernel')
    parser.add_argument('--guest', metavar='DIR',
                        help='folder with guard_*.ko and xo-test')
    parser.add_argument('--attack', metavar='DIR',
                        help='folder with attack_guest.ko')
    parser.add_argument('--busybox', metavar='FILE',
                        default='/bin/busybox',
                        help='a static busybox (default: %(default)s)')
    parser.add_argument('--act', type=int, choices=sorted({**ACTS, **EXTRAS}),
                        action='append',
                        help='play this act only; may be repeated')
    parser.add_argument('--timeout', type=int, default=900, metavar='SECONDS',
                        help='give up after this time (default: %(default)s)')
    parser.add_argument('--log-dir', metavar='DIR',
                        help='keep the logs there (default: a temporary '
                        'folder, kept only if something is wrong)')
    parser.add_argument('--tap', action='store_true',
                        help='print TAP; skip when something is missing')
    parser.add_argument('--verbose', action='store_true',
                        help='tell every detail')
    return parser.parse_args()


def on_alarm(_signum, _frame):
    """The time is over."""
    raise TimeoutError('out of time')


def main() -> int:
    """Play the demo."""
    args = parse_arguments()
    # Meson gives it as a mere name when it lies in the current folder.
    args.qemu = os.path.abspath(args.qemu)
    lacking = missing(args)
    if lacking:
        if args.tap:
            return skip_all(lacking)
        print(f'demo: {lacking}', file=sys.stderr)
        return 1
    if args.qemu_python:
        sys.path.insert(0, args.qemu_python)

    signal.signal(signal.SIGALRM, on_alarm)
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    signal.alarm(args.timeout)

    report = TapReport() if args.tap else TextReport(args.verbose)
    if args.log_dir:
        os.makedirs(args.log_dir, exist_ok=True)
        return play(args, os.path.realpath(args.log_dir), report)
    log_dir = tempfile.mkdtemp(prefix='qemu-guard-demo-')
    status = 1
    try:
        status = play(args, log_dir, report)
    finally:
        if status == 0:
            shutil.rmtree(log_dir)
    return status


if __name__ == '__main__':
    sys.exit(main())
