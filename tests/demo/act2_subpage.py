# SPDX-License-Identifier: GPL-2.0-or-later
"""Act 2: a string in a hot page of a stock Debian kernel stays as it is."""

import json
import os
import re
from typing import Collection, Dict, List, NamedTuple, Tuple

TITLE = 'sub-page protection'

ABOUT = '''\
modprobe_path names the program that the kernel runs, as root, when it lacks
a module.  Who overwrites it owns the guest; the kernel itself writes it
almost never, but what lies next to it at each such request.  So the host
protects not the page, but the 128-byte pieces in which the string lies.'''

PAGE = 4096
SUBPAGE = 128

# modprobe_path is an array of so many bytes
ARRAY = 256
HELPER = '/sbin/modprobe'

# What the attacker wants to be run; it fits into one 8-byte store
EVIL = '/tmp/x'

# Rounds of load, and attacks on each CPU at once
ROUNDS = 20
SALVO = 5

DEVICE = '/dev/guard-attack'
SYSCTL = '/proc/sys/kernel/modprobe'

# A shell that is killed by SIGSEGV, as init sees it
SEGV = 128 + 11


class Way(NamedTuple):
    """A way to attack, and what an event has to say about it"""
    name: str
    title: str
    # Bytes written by the first store
    size: int
    # Where it is done: a function in the kernel
    function: str


# The last one is the kernel's own interface.  Its handler stores bytes.
WAYS = (
    Way('store', 'a module: MOV', 8, 'attack_store'),
    Way('string', 'a module: REP MOVSB', 1, 'attack_string'),
    Way('locked', 'a module: XCHG, locked', 8, 'attack_locked'),
    Way('alias', 'a module: MOV to an alias', 8, 'attack_alias'),
    Way('sysctl', 'a shell: /proc/sys/...', 1, r'_?proc_do_?string'),
)


class Target(NamedTuple):
    """Where modprobe_path is"""
    virtual: int
    physical: int

    @property
    def start(self) -> int:
        """Guest-physical start of what is protected"""
        return self.physical & -SUBPAGE

    @property
    def end(self) -> int:
        """
        Its end.  A piece that is the array's only in part is left out here,
        for each request for a module writes what follows: the count of such
        requests.  The string itself ends long before.
        """
        return (self.physical + ARRAY) & -SUBPAGE

    @property
    def shift(self) -> int:
        """Guest-virtual address less guest-physical address"""
        return self.virtual - self.physical


class Oops(NamedTuple):
    """What the kernel said about an attacker"""
    faults: int
    where: str
    others: List[str]


# --- in the guest ----------------------------------------------------------

def prepare(guest) -> None:
    """The attacker's module, and the programs that the kernel may run"""
    guest.must_run('mkdir -p /sbin /mnt; insmod /lib/attack_guest.ko')
    for program in HELPER, EVIL:
        # Each notes that it was run.
        guest.must_run(f"printf '#!/bin/sh\\necho $0 >>/tmp/ran\\n' "
                       f'>{program}; chmod +x {program}')
    # The kernel takes seconds to write it.
    guest.must_run('cat /proc/kallsyms >/tmp/kallsyms')


def kallsyms(guest, pattern: str) -> List[Tuple[int, str]]:
    """Addresses and names of the kernel's symbols, as far as they match"""
    lines = guest.run(f"grep -E '{pattern}' /tmp/kallsyms").output
    return sorted((int(line.split()[0], 16), line.split()[2])
                  for line in lines.splitlines())


def symbols(guest, addresses: Collection[int]) -> Dict[int, str]:
    """Where addresses lie, as the name of a symbol and an offset"""
    if not addresses:
        return {}
    # A function may begin in the page before.
    pages = {(address >> 12) - back for address in addresses
             for back in (0, 1)}
    found = kallsyms(guest, '^(%s)' % '|'.join(f'{page:013x}'
                                               for page in pages))
    names = {}
    for address in addresses:
        start, name = max((symbol for symbol in found
                           if symbol[0] <= address), default=(0, '?'))
        names[address] = f'{name}+{address - start:#x}'
    return names


def find(guest) -> Target:
    """Look it up, as an administrator of the guest can."""
    # Symbols move with the kernel, so the start of it tells where they are.
    found = {name: address for address, name in kallsyms(
        guest, ' (_text|modprobe_path)$')}
    iomem = guest.must_run('grep "Kernel code" /proc/iomem')
    virtual = found['modprobe_path']
    shift = found['_text'] - int(iomem.split('-')[0], 16)
    return Target(virtual, virtual - shift)


def neighbours(guest, target: Target) -> List[str]:
    """What else is protected, because it lies in the same pieces"""
    first = target.start + target.shift
    return [name for address, name in kallsyms(guest, f'^{first >> 12:013x}')
            if first <= address < target.end + target.shift
            and name != 'modprobe_path']


def request(guest) -> str:
    """Have the kernel look for a module; returns what it runs for that."""
    return guest.must_run('mount -t nosuch none /mnt 2>/dev/null; '
                          'tail -n 1 /tmp/ran').strip()


def attack_command(way: str, address: int, text: str) -> str:
    """What the attacker types.  It is the shell itself that writes."""
    if way == 'sysctl':
        return f'echo {text} >{SYSCTL}'
    return f'echo {way} {address:x} {text} >{DEVICE}'


def oops(guest) -> Oops:
    """What is new in the kernel's log"""
    log = guest.must_run('dmesg -c')
    faults, others = 0, []
    for line in guest.trouble(log):
        if 'general protection fault' in line:
            faults += 1
        elif 'Call Trace' not in line:
            others.append(line)
    where = re.search(r'RIP: 0010:(\S+)/', log)
    return Oops(faults, where.group(1) if where else 'nowhere', others)


def start_load(guest, cpus: int) -> None:
    """Forks, runs programs, fills files, and asks for modules all the time"""
    for cpu in range(cpus):
        guest.must_run(
            f"taskset -c {cpu} sh -c 'n=0; while [ ! -e /tmp/enough ]; do "
            'mount -t nosuch none /mnt; '
            f'dd if=/dev/zero of=/tmp/fill{cpu} bs=64k count=4; '
            f"n=$((n + 1)); echo $n >/tmp/.new{cpu}; "
            f"mv /tmp/.new{cpu} /tmp/rounds{cpu}; done; "
            f"touch /tmp/end{cpu}' >/dev/null 2>&1 &")


def wait_for_load(guest, cpus: int, more: int) -> None:
    """Wait until the load has done so many more rounds on each CPU."""
    for cpu in range(cpus):
        rounds = f'cat /tmp/rounds{cpu} 2>/dev/null || echo 0'
        guest.must_run(f'end=$(( $({rounds}) + {more} )); '
                       f'until [ $({rounds}) -ge $end ]; do '
                       'usleep 50000; done')


def stop_load(guest, cpus: int) -> int:
    """End it; returns how many rounds there were."""
    guest.must_run('touch /tmp/enough')
    for cpu in range(cpus):
        guest.must_run(f'until [ -e /tmp/end{cpu} ]; do usleep 50000; done')
    return sum(int(n) for n in guest.must_run('cat /tmp/rounds*').split())


# --- on the host -----------------------------------------------------------

def set_access(guest, regions: List[Tuple[int, int]], access: str,
               action: str = 'fault') -> None:
    """subpage-set-access for regions that are given by start and end"""
    guest.vm.cmd('subpage-set-access', action=action, regions=[
        {'addr': start, 'size': end - start, 'access': access}
        for start, end in regions])


def counters(guest) -> Dict[str, int]:
    """How often sub-page protection stepped in, from query-guard"""
    for info in guest.vm.cmd('query-guard'):
        if info['feature'] == 'subpage':
            return info['counters']
    raise KeyError('query-guard does not know subpage')


def events(guest) -> List[Dict]:
    """What SUBPAGE_VIOLATION events told since the last call"""
    # A reply comes after the events of all that was before the command.
    guest.vm.cmd('query-guard')
    return [event['data'] for event in guest.vm.get_qmp_events()
            if event['event'] == 'SUBPAGE_VIOLATION']


def memory(guest, target: Target, log_dir: str) -> bytes:
    """The array, as QEMU sees it"""
    path = os.path.join(log_dir, 'modprobe_path')
    guest.vm.cmd('pmemsave', val=target.physical, size=ARRAY, filename=path)
    with open(path, 'rb') as dump:
        return dump.read()


def string(array: bytes) -> str:
    """The string in the array"""
    return array.split(b'\0')[0].decode(errors='replace')


# --- the act ---------------------------------------------------------------

class Stage:
    """A guest, and what is known about it"""

    def __init__(self, demo, guest, cpus: int):
        self.report = demo.report
        self.guest = guest
        self.cpus = cpus
        self.attacks = 0
        self.target = find(guest)
        self._log_dir = demo.log_dir

    def memory(self) -> bytes:
        """The array"""
        return memory(self.guest, self.target, self._log_dir)

    def overwrite(self, text: str, way: str = 'store', offset: int = 0):
        """Attack; returns the attacker's exit status."""
        return self.guest.run(attack_command(
            way, self.target.virtual + offset, text)).status

    def show_unprotected(self) -> None:
        """That the attack is one: it works."""
        report = self.report
        report.equal('QEMU sees at that address', HELPER,
                     string(self.memory()))
        report.equal('asked for a module, Linux runs', HELPER,
                     request(self.guest))
        for way in WAYS:
            status = self.overwrite(EVIL, way.name)
            report.equal(way.title, f'{EVIL} written',
                         f'{string(self.memory())} written'
                         if status == 0 else f'status {status}')
            report.equal('asked for a module, Linux runs', EVIL,
                         request(self.guest), detail=way is not WAYS[-1])
            self.overwrite(HELPER)
        report.equal('put back, Linux runs', HELPER, request(self.guest))

    def protect(self) -> None:
        """The host's part"""
        target, report = self.target, self.report
        set_access(self.guest, [(target.start, target.end)], 'read')
        regions = [(region['addr'], region['size'], region['access'],
                    region['action'])
                   for region in self.guest.vm.cmd('query-subpage-access')]
        report.equal('query-subpage-access',
                     f'[({target.start}, {target.end - target.start}, '
                     "'read', 'fault')]", f'{regions}', detail=True)
        report.row(target.physical + len(HELPER) < target.end, 'protected',
                   'all of the string',
                   f'{target.end - target.physical} of {ARRAY} bytes',
                   detail=True)
        # The first piece begins before the array.  What shares it on Debian
        # 12 and 13 is written when 50 requests for modules are not enough.
        others = neighbours(self.guest, target)
        report.row(all(re.fullmatch(r'_rs\.\d+', name) for name in others),
                   'protected together with it', "a warning's limit",
                   ', '.join(others) or 'nothing')

    def tell(self, event: Dict, name: str) -> None:
        """The event as a whole, with what it is about"""
        self.report.say(f"""\
      SUBPAGE_VIOLATION: "source": "{event['source']}", \
"cpu-index": {event['cpu-index']}, "write": {json.dumps(event['write'])},
        "addr": {event['addr']:#x}, "size": {event['size']}, \
"action": "{event['action']}",
        "linear-addr": {event['linear-addr']:#x} (modprobe_path),
        "rip": {event['rip']:#x} ({name})""")

    def show_attack(self, way: Way, tell: bool) -> None:
        """One attack, and all that is to be seen of it"""
        report = self.report
        status = self.overwrite(EVIL, way.name)
        self.attacks += 1
        told = oops(self.guest)
        killed = status == SEGV and told.faults == 1
        report.row(killed, way.title, 'killed, #GP',
                   f'killed, #GP in {told.where}' if killed
                   else f'status {status}, {told.faults} #GP')
        report.equal('complaints besides', 'none',
                     ', '.join(told.others) or 'none', detail=True)

        seen = events(self.guest)
        report.equal('events', '1', f'{len(seen)}', detail=True)
        for event in seen:
            name = symbols(self.guest, [event['rip']])[event['rip']]
            if tell:
                self.tell(event, name)
            report.equal('rip of the event, in symbols', told.where, name,
                         detail=True)
            report.row(re.fullmatch(way.function, name.split('+')[0])
                       is not None, 'the function there', way.function, name,
                       detail=True)
            expected = {'addr': self.target.physical, 'size': way.size,
                        'write': True, 'source': 'cpu', 'action': 'fault',
                        'suppressed': 0}
            report.equal('the rest of it', f'{expected}',
                         f'{ {key: event[key] for key in expected} }',
                         detail=True)
            report.equal('linear-addr is the symbol',
                         f'{way.name != "alias"}',
                         f'{event["linear-addr"] == self.target.virtual}',
                         detail=True)

    def show_protected(self) -> None:
        """The attacks fail, and nobody else notices."""
        report, guest = self.report, self.guest
        before = self.memory()
        guest.must_run('rm /tmp/ran')
        start_load(guest, self.cpus)
        wait_for_load(guest, self.cpus, 2)
        for way in WAYS:
            self.show_attack(way, tell=way is WAYS[0])
        self.show_straddling()
        if self.cpus > 1:
            self.show_salvo()
        after = self.memory()
        report.equal('modprobe_path', 'unchanged', 'unchanged'
                     if after == before else string(after))
        self.show_rest_of_page()

        wait_for_load(guest, self.cpus, ROUNDS)
        rounds = stop_load(guest, self.cpus)
        report.row(rounds > ROUNDS * self.cpus, 'load in the guest, all along',
                   'goes on', f'goes on, {rounds} rounds')
        ran = guest.must_run('cat /tmp/ran').split()
        report.equal('asked by it for modules, Linux ran',
                     f'{rounds} x {HELPER}', f'{len(ran)} x ' +
                     ', '.join(sorted(set(ran))), detail=True)
        self.show_counters()

    def show_straddling(self) -> None:
        """A store that begins in the protected piece and ends behind it"""
        offset = self.target.end - self.target.physical - 4
        before = self.memory()
        status = self.overwrite(EVIL, offset=offset)
        self.attacks += 1
        told = oops(self.guest)
        report = self.report
        report.equal('MOV over its end', 'status 139, 1 #GP',
                     f'status {status}, {told.faults} #GP', detail=True)
        report.equal('the bytes behind the end', 'unchanged', 'unchanged'
                     if self.memory() == before else 'written', detail=True)
        report.equal('its event', f'{self.target.physical + offset:#x}, 8',
                     '; '.join(f'{event["addr"]:#x}, {event["size"]}'
                               for event in events(self.guest)), detail=True)

    def show_salvo(self) -> None:
        """Attackers on all CPUs at once"""
        command = attack_command('store', self.target.virtual, EVIL)
        self.guest.must_run(
            f'for n in $(seq 0 {self.cpus - 1}); do '
            f'(for i in $(seq {SALVO}); do '
            f"taskset -c $n sh -c '{command}'; done) & done; wait", 300)
        count = SALVO * self.cpus
        self.attacks += count
        told, seen = oops(self.guest), events(self.guest)
        cpus = {event['cpu-index'] for event in seen}
        self.report.equal(f'{SALVO} times MOV on each CPU at once',
                          f'{count} #GP', f'{told.faults} #GP')
        self.report.equal('their events', f'{count} from {self.cpus} CPUs',
                          f'{len(seen)} from {len(cpus)} CPUs')
        self.report.equal('complaints besides', 'none',
                          ', '.join(told.others) or 'none', detail=True)

    def show_rest_of_page(self) -> None:
        """It can be written, and the kernel does so all the time."""
        report, guest, target = self.report, self.guest, self.target
        # The end of the array is in the next piece.
        offset = ARRAY - 8
        status = self.overwrite('works', offset=offset)
        seen = string(self.memory()[offset:])
        report.equal('a write to the next 128 bytes', 'works',
                     seen if status == 0 else f'status {status}')

        page = target.physical & -PAGE
        rest = [(page, target.start), (target.end, page + PAGE)]
        before = counters(guest)['reported']
        set_access(guest, rest, 'read', 'report')
        wait_for_load(guest, self.cpus, 5)
        set_access(guest, rest, 'read-write')
        count = counters(guest)['reported'] - before
        report.row(count >= 10 * self.cpus, 'writes by Linux around it',
                   f'{10 * self.cpus} or more',
                   f'{count}, in 5 rounds of the load')
        seen = events(guest)
        close = [event for event in seen if
                 target.end <= event['addr'] < target.end + SUBPAGE]
        report.row(bool(close), 'of them, in the next 128 bytes', 'some',
                   f'{len(close)} of {len(seen)}', detail=True)
        writers = symbols(guest, {event['rip'] for event in seen})
        report.row(bool(writers), 'in the functions', 'some',
                   ', '.join(sorted({name.split('+')[0]
                                     for name in writers.values()})),
                   detail=True)

    def show_counters(self) -> None:
        """query-guard"""
        count = counters(self.guest)
        self.report.equal('query-guard: faulted', f'{self.attacks}',
                          f'{count["faulted"]}')
        self.report.equal('query-guard: writes',
                          f'{self.attacks + count["reported"]}',
                          f'{count["writes"]}', detail=True)
        for name in 'reads', 'discarded', 'paused':
            self.report.equal(f'query-guard: {name}', '0', f'{count[name]}',
                              detail=True)

    def show_lifted(self) -> None:
        """The host takes it back."""
        target, report = self.target, self.report
        set_access(self.guest, [(target.start, target.end)], 'read-write')
        report.equal('query-subpage-access', '[]',
                     f'{self.guest.vm.cmd("query-subpage-access")}',
                     detail=True)
        self.overwrite(EVIL)
        report.equal(f'{WAYS[0].title}; then Linux runs', EVIL,
                     request(self.guest))
        self.overwrite(HELPER)
        report.equal('put back, Linux runs', HELPER, request(self.guest))
        report.equal('events', '[]', f'{events(self.guest)}', detail=True)
        faults = [line for line in self.guest.trouble()
                  if 'general protection fault' in line]
        report.equal("#GP in all of the kernel's log", f'{self.attacks}',
                     f'{len(faults)}', detail=True)


def run_guest(demo, cpus: int) -> None:
    """All of it on so many CPUs"""
    report = demo.report
    title = f'{cpus} vCPU{"s" * (cpus > 1)}'
    with demo.guest(f'act2-{cpus}-cpu', cpu='max', smp=cpus) as guest:
        guest.boot()
        prepare(guest)
        stage = Stage(demo, guest, cpus)
        target = stage.target
        report.part(f'{title}, nothing protected', 'modprobe_path is at '
                    f'{target.virtual:#x} by kallsyms,\n'
                    f'guest-physical {target.physical:#x}')
        report.equal('CPUs online', f'{cpus}',
                     guest.must_run('nproc').strip(), detail=True)
        stage.show_unprotected()

        report.part(f'{title}, may only be read, else fault',
                    f'{target.start:#x} to {target.end - 1:#x}')
        stage.protect()
        stage.show_protected()

        report.part(f'{title}, read-write again', 'as in the beginning')
        stage.show_lifted()


# --- the guest asks by itself ----------------------------------------------

REQUESTS = '/dev/guard-subpage'


def ask(guest, target: Target, words: str) -> int:
    """The guest's administrator asks for it; returns the exit status."""
    return guest.run(f'echo {words} {target.start + target.shift:x} '
                     f'{target.end - target.start} >{REQUESTS}').status


def show_requested(stage: Stage) -> None:
    """Who is in the guest can give rights up, and not get them back."""
    report, guest, target = stage.report, stage.guest, stage.target
    report.equal('insmod guard_subpage.ko', '0',
                 f'{guest.run("insmod /lib/guard_subpage.ko").status}')
    report.equal(f'echo read fault ... >{REQUESTS}', '0',
                 f'{ask(guest, target, "read fault")}')
    regions = [(region['addr'], region['size'], region['access'],
                region['action'], region['owner'])
               for region in guest.vm.cmd('query-subpage-access')]
    report.equal('query-subpage-access',
                 f'[({target.start}, {target.end - target.start}, '
                 "'read', 'fault', 'guest')]", f'{regions}', detail=True)
    for way in WAYS:
        stage.show_attack(way, tell=way is WAYS[0])
    report.equal('asked for read-write', 'refused',
                 'refused' if ask(guest, target, 'write fault') else 'done')
    report.equal('asked for report instead of fault', '0',
                 f'{ask(guest, target, "read report")}', detail=True)
    stage.show_attack(WAYS[0], tell=False)
    report.equal('asked for a module, Linux runs', HELPER, request(guest))


def run_asking(demo, cpus: int) -> None:
    """The same without the host's doing"""
    report = demo.report
    with demo.guest(f'act2-asking-{cpus}-cpu', cpu='max,+guest-subpage',
                    smp=cpus) as guest:
        guest.boot()
        prepare(guest)
        stage = Stage(demo, guest, cpus)
        report.part(f'{cpus} vCPU{"s" * (cpus > 1)}, the guest protects '
                    'itself', 'with contrib/linux-guest, -cpu '
                    'max,+guest-subpage')
        show_requested(stage)


def run(demo) -> None:
    """Show it all."""
    for cpus in 1, 2:
        run_guest(demo, cpus)
    run_asking(demo, 2)
