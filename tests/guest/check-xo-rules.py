#!/usr/bin/python3
# SPDX-License-Identifier: GPL-2.0-or-later
"""
Checks that gen-xo-rules.py refuses tables that are wrong: takes the real
one, spoils it in one way at a time, and wants the error that belongs to it.
"""

import csv
import re
import subprocess
import sys
import tempfile

# What is done to the rows, and what the generator must say
SPOILED = {
    'a rule less': (
        lambda rows: [row for row in rows if row['rule'] != 'F1'],
        r'no rule for: .*access fetch'),
    'a rule too wide': (
        lambda rows: change(rows, 'R3', 'XO', 'any'),
        r'rules R3, R7 disagree about: .*CPL 3, access read'),
    'another error code where rules overlap': (
        lambda rows: change(rows, 'W3', 'error', '0x23'),
        r'rules W3, W16 disagree about'),
    'an unknown value': (
        lambda rows: change(rows, 'W1', 'PK', 'maybe'),
        r'rule W1, column PK: "maybe" is none of'),
    'a rule for nothing': (
        lambda rows: change(change(rows, 'R1', 'paging', 'PAE 4K'),
                            'R1', 'PK', 'AD'),
        r'no rule for|rule R1 applies to nothing'),
    'a rule that excludes all': (
        lambda rows: change(rows, 'R1', 'XO', '!0 1'),
        r'rule R1, column XO: "!0 1" is nothing'),
    'a success with an error code': (
        lambda rows: change(rows, 'R4', 'error', '0x01'),
        r'rule R4: an error code goes with #PF only'),
    'two rules of one name': (
        lambda rows: change(rows, 'R2', 'rule', 'R1'),
        r'two rules are called R1'),
}


def change(rows, rule, column, value):
    return [dict(row, **{column: value}) if row['rule'] == rule else row
            for row in rows]


def generate(generator, rows):
    with tempfile.NamedTemporaryFile('w', newline='', suffix='.csv',
                                     encoding='utf-8') as table, \
            tempfile.NamedTemporaryFile(suffix='.h') as header:
        writer = csv.DictWriter(table, rows[0].keys())
        writer.writeheader()
        writer.writerows(rows)
        table.flush()
        return subprocess.run(
            [sys.executable, generator, table.name, header.name],
            text=True, capture_output=True, check=False)


def main():
    generator, path = sys.argv[1:]
    with open(path, newline='', encoding='utf-8') as file:
        rows = list(csv.DictReader(file))
    done = generate(generator, rows)
    failed = done.returncode != 0
    print(f'{"not " if failed else ""}ok 1 - the table as it is')
    for number, (name, (spoil, pattern)) in enumerate(SPOILED.items(), 2):
        done = generate(generator, spoil(rows))
        fine = done.returncode == 1 and re.search(pattern, done.stderr)
        failed |= not fine
        print(f'{"" if fine else "not "}ok {number} - {name}')
        if not fine:
            print(f'# exit status {done.returncode}: {done.stderr.strip()}')
    print(f'1..{len(SPOILED) + 1}')
    return 1 if failed else 0


if __name__ == '__main__':
    sys.exit(main())
