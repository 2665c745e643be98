# SPDX-License-Identifier: GPL-2.0-or-later
"""Act 3: bits that a stock Debian kernel has set, and that stay set."""

from typing import Dict, List, NamedTuple, Tuple

from act2_subpage import kallsyms, oops, symbols

TITLE = 'register pinning'

ABOUT = '''\
SMEP, SMAP and WP keep a kernel from running what a user has prepared, and
from writing its own code and constants.  An exploit clears such a bit with
one MOV, and goes on.  So the host pins the bits, in a guest that knows
nothing of it: QEMU refuses the MOV.'''

WP = 1 << 16
UMIP, SMEP, SMAP = 1 << 11, 1 << 20, 1 << 21

PINS = [{'register': 'cr0', 'ones': WP},
        {'register': 'cr4', 'ones': UMIP | SMEP | SMAP}]

DEVICE = '/dev/guard-attack'

# What /proc/version prints is a constant in the kernel
CONSTANT = 'linux_proc_banner'
EVIL = 'hacked!'

# A shell that is killed by SIGSEGV or SIGKILL, as init sees it
SEGV = 128 + 11
KILLED = (SEGV, 128 + 9)


class Way(NamedTuple):
    """A way to attack"""
    title: str
    register: str
    mask: int


WAYS = (
    Way('a module clears CR4.SMEP', 'cr4', SMEP),
    Way('a module clears CR4.SMAP', 'cr4', SMAP),
    Way('a module clears CR4.UMIP', 'cr4', UMIP),
    Way('all of them at once', 'cr4', UMIP | SMEP | SMAP),
    Way('a module clears CR0.WP', 'cr0', WP),
)


# --- what the lifecycle tests need as well ---------------------------------

def pin(guest, action: str = 'fault') -> None:
    """Pin the bits; a slow host boots Linux slowly."""
    guest.vm.cmd('register-pin', registers=PINS, action=action,
                 **{'grace-ms': 600000})


def unpin(guest) -> None:
    """Undo it."""
    guest.vm.cmd('register-unpin', registers=[
        {'register': pin['register']} for pin in PINS])


def registers(guest) -> List[Dict[str, int]]:
    """CR0 and CR4 of all CPUs"""
    text = guest.vm.cmd('human-monitor-command',
                        command_line='info registers -a')
    found = []
    for line in text.splitlines():
        words = dict(word.split('=', 1) for word in line.split()
                     if '=' in word)
        if 'CR0' in words and 'CR4' in words:
            found.append({'cr0': int(words['CR0'], 16),
                          'cr4': int(words['CR4'], 16)})
    return found


def lost(guest) -> str:
    """Which bits are not set, on any CPU; "none" if all are"""
    names = {'WP': ('cr0', WP), 'UMIP': ('cr4', UMIP),
             'SMEP': ('cr4', SMEP), 'SMAP': ('cr4', SMAP)}
    return ', '.join(
        f'{name} on CPU {cpu}'
        for cpu, values in enumerate(registers(guest))
        for name, (register, mask) in names.items()
        if not values[register] & mask) or 'none'


def states(guest) -> List[Tuple[int, str, str]]:
    """CPU, register and state of each pin"""
    return [(pin['cpu-index'], pin['register'], pin['state'])
            for pin in guest.vm.cmd('query-register-pins')]


def all_armed(guest, cpus: int) -> str:
    """Whether all pins of so many CPUs are armed, in words"""
    wanted = [(cpu, pin['register'], 'armed') for cpu in range(cpus)
              for pin in PINS]
    found = states(guest)
    return 'armed' if sorted(found) == sorted(wanted) else f'{found}'


def attack_command(register: str, mask: int) -> str:
    """What the attacker types.  It is the shell itself that does it."""
    return f'echo {register} {mask:x} now >{DEVICE}'


def attack(guest, register: str, mask: int, cpu: int = 0) -> int:
    """Attack; returns the attacker's exit status."""
    return guest.run(f"taskset -c {cpu} sh -c "
                     f"'{attack_command(register, mask)}'").status


def prepare(guest) -> None:
    """The attacker's module"""
    guest.must_run('insmod /lib/attack_guest.ko; dmesg -c >/dev/null')


def violations(guest) -> List[Dict]:
    """What events told since the last call"""
    # A reply comes after the events of all that was before the command.
    guest.vm.cmd('query-guard')
    return [event['data'] for event in guest.vm.get_qmp_events()
            if event['event'] == 'REGISTER_PIN_VIOLATION']


# --- the act ---------------------------------------------------------------

def overwrite_constant(guest) -> int:
    """Write to the kernel's constants; returns the exit status."""
    (address, _), = kallsyms(guest, f' {CONSTANT}$')
    return guest.run("taskset -c 0 sh -c "
                     f"'echo store {address:x} {EVIL} >{DEVICE}'").status


def version(guest) -> str:
    """What the kernel says of itself"""
    words = guest.must_run('cat /proc/version').split()
    return ' '.join(words[:2]) if words else 'nothing'


def show_unpinned(demo) -> None:
    """That the attacks are some: they work."""
    report = demo.report
    with demo.guest('act3-unpinned', cpu='max', smp=2) as guest:
        guest.boot()
        report.part('nothing pinned, 2 vCPUs', guest.boot_note())
        prepare(guest)
        guest.must_run('cat /proc/kallsyms >/tmp/kallsyms')
        report.equal('bits of them that Linux left off', 'none', lost(guest))
        status = overwrite_constant(guest)
        report.row(status in KILLED, 'a module writes to a constant',
                   'killed, #PF', 'killed, #PF' if status in KILLED
                   else f'status {status}')
        report.equal('/proc/version', 'Linux version', version(guest))
        report.equal('a module clears CR0.WP', 'done',
                     'done' if attack(guest, 'cr0', WP) == 0 else 'killed')
        report.equal('what QEMU sees off', 'WP on CPU 0', lost(guest))
        report.equal('a module writes to a constant', 'done', 'done'
                     if overwrite_constant(guest) == 0 else 'killed')
        report.equal('/proc/version', EVIL, version(guest))
        report.equal('a module clears CR4.SMEP and SMAP', 'done', 'done'
                     if attack(guest, 'cr4', SMEP | SMAP, 1) == 0
                     else 'killed')
        report.row('SMEP on CPU 1' in lost(guest), 'what QEMU sees off',
                   'SMEP on CPU 1, ...', lost(guest))


class Stage:
    """The guest with pins"""

    def __init__(self, demo, guest):
        self.report = demo.report
        self.guest = guest
        self.attacks = 0

    def show_attack(self, way: Way, cpu: int, tell: bool) -> None:
        """One attack, and all that is to be seen of it"""
        report, guest = self.report, self.guest
        before = registers(guest)[cpu][way.register]
        status = attack(guest, way.register, way.mask, cpu)
        self.attacks += 1
        told = oops(guest)
        killed = status in KILLED and told.faults == 1
        report.row(killed, way.title, 'killed, #GP',
                   f'killed, #GP in {told.where}' if killed
                   else f'status {status}, {told.faults} #GP')
        report.equal('complaints besides', 'none',
                     ', '.join(told.others) or 'none', detail=True)
        report.equal('bits that QEMU sees off', 'none', lost(guest),
                     detail=True)
        seen = violations(guest)
        report.equal('events', '1', f'{len(seen)}', detail=True)
        for event in seen:
            name = symbols(guest, [event['rip']])[event['rip']]
            if tell:
                report.say(f"""\
      REGISTER_PIN_VIOLATION: "cpu-index": {event['cpu-index']}, \
"register": "{event['register']}", "action": "{event['action']}",
        "old": {event['old']:#x}, "attempted": {event['attempted']:#x},
        "rip": {event['rip']:#x} ({name})""")
            report.equal('rip of the event, in symbols', told.where, name,
                         detail=True)
            expected = {'cpu-index': cpu, 'register': way.register,
                        'old': before, 'attempted': before & ~way.mask,
                        'action': 'fault', 'suppressed': 0}
            report.equal('the rest of it', f'{expected}',
                         f'{ {key: event.get(key) for key in expected} }',
                         detail=True)

    def show(self) -> None:
        """The attacks fail, and nobody else notices."""
        report, guest = self.report, self.guest
        report.equal('pins of both CPUs', 'armed', all_armed(guest, 2))
        report.equal('events while Linux booted', '0',
                     f'{len(violations(guest))}')
        report.equal('complaints while Linux booted', 'none',
                     ', '.join(guest.trouble()) or 'none', detail=True)
        prepare(guest)
        guest.must_run('cat /proc/kallsyms >/tmp/kallsyms')
        for cpu in 0, 1:
            for way in WAYS:
                self.show_attack(way, cpu, cpu == 0 and way is WAYS[0])
        status = overwrite_constant(guest)
        oops(guest)
        report.row(status in KILLED, 'a module writes to a constant',
                   'killed, #PF', 'killed, #PF' if status in KILLED
                   else f'status {status}')
        report.equal('/proc/version', 'Linux version', version(guest))
        report.equal('CPUs online', '2', guest.must_run('nproc').strip())
        guest.must_run('for n in 0 1; do taskset -c $n dd if=/dev/zero '
                       'of=/tmp/fill$n bs=64k count=64 2>/dev/null & done; '
                       'wait; rm /tmp/fill*')
        report.equal('complaints of Linux at work', 'none',
                     ', '.join(oops(guest).others) or 'none')
        count = next(info['counters'] for info in guest.vm.cmd('query-guard')
                     if info['feature'] == 'register-pinning')
        report.equal('query-guard: faulted', f'{self.attacks}',
                     f'{count["faulted"]}')
        unpin(guest)
        report.equal('unpinned: a module clears CR0.WP', 'done', 'done'
                     if attack(guest, 'cr0', WP) == 0 else 'killed')


def run(demo) -> None:
    """Show it all."""
    show_unpinned(demo)
    with demo.guest('act3-pinned', cpu='max', smp=2) as guest:
        guest.boot(prepare=pin)
        demo.report.part('WP, SMEP, SMAP and UMIP pinned, 2 vCPUs',
                         guest.boot_note())
        Stage(demo, guest).show()
