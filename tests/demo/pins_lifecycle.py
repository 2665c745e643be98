# SPDX-License-Identifier: GPL-2.0-or-later
"""
Act 4, a test: pinned bits while a Debian guest reboots, sleeps, starts
another kernel by itself, and loses and gets CPUs.
"""

import time
from typing import Dict, List

from act3_pins import (KILLED, SMEP, WP, all_armed, attack, lost, pin,
                       prepare, unpin, violations)

TITLE = 'register pinning and the life of a guest'

ABOUT = '''\
WP, SMEP, SMAP and UMIP are pinned before the first instruction.'''


def cleared(guest) -> List[Dict]:
    """REGISTER_PINS_CLEARED events since the last call of this kind"""
    guest.vm.cmd('query-guard')
    return [event['data'] for event in guest.vm.get_qmp_events()
            if event['event'] == 'REGISTER_PINS_CLEARED']


def wait_event(guest, name: str) -> str:
    """Wait for an event; its name, or "nothing"."""
    event = guest.vm.event_wait(name, timeout=120)
    return name if event else 'nothing'


def show_held(report, guest, cpus: int) -> None:
    """All is as after the first boot."""
    report.equal(f'pins of {cpus} CPUs', 'armed', all_armed(guest, cpus))
    report.equal('bits that are off', 'none', lost(guest))
    for cpu in range(cpus):
        for register, mask in ('cr4', SMEP), ('cr0', WP):
            status = attack(guest, register, mask, cpu)
            report.row(status in KILLED,
                       f'CPU {cpu}: a module clears {register} {mask:#x}',
                       'killed', f'status {status}')
    report.equal('bits that are off after that', 'none', lost(guest),
                 detail=True)
    report.equal('events', f'{2 * cpus}', f'{len(violations(guest))}')


def show_reboot(demo) -> None:
    """A reset: the pins wait, and Linux arms them again."""
    report = demo.report
    with demo.guest('act4-reboot', cpu='max', smp=2, reboots=True) as guest:
        guest.boot(prepare=pin)
        report.part('reboot', guest.boot_note())
        prepare(guest)
        show_held(report, guest, 2)
        cleared(guest)
        guest.start('reboot -f')
        guest.wait_ready()
        told = [(event['reason'], event['waiting'])
                for event in cleared(guest) if event['reason'] == 'reset']
        report.equal('events of the reset', "[('reset', 4)]", f'{told}')
        prepare(guest)
        show_held(report, guest, 2)


def show_suspend(demo) -> None:
    """Suspend to RAM: the firmware starts anew, Linux goes on."""
    report = demo.report
    with demo.guest('act4-suspend', cpu='max', smp=2, reboots=True) as guest:
        guest.boot(prepare=pin)
        report.part('suspend to RAM', guest.boot_note())
        prepare(guest)
        report.equal('/sys/power/mem_sleep', 'has deep', 'has deep'
                     if 'deep' in guest.run('cat /sys/power/mem_sleep').output
                     else 'has not', detail=True)
        guest.run('echo deep >/sys/power/mem_sleep')
        cleared(guest)
        guest.start('touch /tmp/asleep; echo mem >/sys/power/state; '
                    'cat /tmp/asleep')
        report.equal('Linux sleeps', 'SUSPEND', wait_event(guest, 'SUSPEND'))
        guest.vm.cmd('system_wakeup')
        guest.wait_ready()
        report.equal('CPUs online', '2', guest.must_run('nproc').strip())
        show_held(report, guest, 2)


def online(guest) -> str:
    """The CPUs that are online"""
    return guest.must_run('cat /sys/devices/system/cpu/online').strip()


def wait_online(guest, wanted: str) -> str:
    """Wait until these are online; what is in the end."""
    for _ in range(200):
        # A CPU that is plugged is there, and not online yet.
        guest.run('for f in /sys/devices/system/cpu/cpu*/online; do '
                  '[ $(cat $f) = 1 ] || echo 1 >$f; done')
        if online(guest) == wanted:
            break
        time.sleep(0.1)
    return online(guest)


def show_hotplug(demo) -> None:
    """A CPU off and on, out and in."""
    report = demo.report
    # Each CPU that is plugged uses up one of maxcpus for good: QEMU with
    # thread=multi keeps what belonged to the last one, and aborts when there
    # is no more.
    with demo.guest('act4-hotplug', cpu='max',
                    smp='2,maxcpus=6') as guest:
        guest.boot(prepare=pin)
        report.part('CPU hotplug', guest.boot_note())
        prepare(guest)
        report.equal('CPUs online', '0-1', online(guest))
        guest.must_run('echo 0 >/sys/devices/system/cpu/cpu1/online')
        guest.must_run('echo 1 >/sys/devices/system/cpu/cpu1/online')
        told = [(event['reason'], event['cpu-index'], event['waiting'])
                for event in cleared(guest) if event['reason'] == 'init']
        report.row(('init', 1, 2) in told, 'off and on: INIT is told',
                   "('init', 1, 2)", f'{told}')
        show_held(report, guest, 2)

        # They come with the last one first.
        slot = [slot for slot in guest.vm.cmd('query-hotpluggable-cpus')
                if 'qom-path' not in slot][-1]
        for turn in 'plugged', 'plugged again':
            guest.vm.cmd('device_add', driver=slot['type'], id='third',
                         **slot['props'])
            report.equal(f'a CPU {turn}: online', '0-2',
                         wait_online(guest, '0-2'))
            show_held(report, guest, 3)
            guest.must_run('echo 0 >/sys/devices/system/cpu/cpu2/online')
            guest.vm.cmd('device_del', id='third')
            report.equal('unplugged', 'DEVICE_DELETED',
                         wait_event(guest, 'DEVICE_DELETED'))
            report.equal('CPUs online', '0-1', online(guest))
            violations(guest)
        show_held(report, guest, 2)


# --- kexec -----------------------------------------------------------------

def kexec(demo, name: str, action: str, lift: bool) -> str:
    """
    Have the guest start another kernel: "kexec" if it comes up, "reset" if
    the firmware starts it.
    """
    # QEMU's Python is found only once the arguments are known.
    from guest import KERNEL_OPTIONS  # pylint: disable=import-outside-toplevel
    report = demo.report
    with demo.guest(f'act4-kexec-{name}', cpu='max', memory=512,
                    initrd=demo.initramfs_with_kernel(),
                    reboots=True) as guest:
        guest.boot(prepare=lambda guest: pin(guest, action))
        report.part(f'kexec, {name}', guest.boot_note())
        if lift:
            unpin(guest)
        violations(guest)
        guest.start('guest-kexec /boot/vmlinuz /boot/initramfs '
                    f'"{KERNEL_OPTIONS} kexeced"')
        guest.wait_ready()
        line = guest.must_run('cat /proc/cmdline')
        tried = sorted({event['register'] for event in violations(guest)})
        report.row(bool(tried) != lift, 'pins violated on the way',
                   'none' if lift else 'some', ', '.join(tried) or 'none')
        if lift:
            pin(guest)
        elif action == 'fault':
            prepare(guest)
            show_held(report, guest, 1)
        report.equal('pins', 'armed', all_armed(guest, 1))
        report.equal('bits that are off', 'none', lost(guest))
        return 'kexec' if 'kexeced' in line else 'reset'


def show_kexec(demo) -> None:
    """A kernel clears the bits on its way to another one."""
    report = demo.report
    report.equal('with "fault"', 'reset', kexec(demo, 'fault', 'fault',
                                                False))
    report.equal('with "discard"', 'kexec', kexec(demo, 'discard', 'discard',
                                                  False))
    report.equal('unpinned before, pinned after', 'kexec',
                 kexec(demo, 'unpinned', 'fault', True))


def run(demo) -> None:
    """Show it all."""
    show_reboot(demo)
    show_suspend(demo)
    show_hotplug(demo)
    show_kexec(demo)
