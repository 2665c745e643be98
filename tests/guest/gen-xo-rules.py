#!/usr/bin/python3
# SPDX-License-Identifier: GPL-2.0-or-later
"""
Turns docs/specs/xo-rules.csv into rows for xo-rules.c.

Fails when a rule has a value that its column does not have, applies to no
combination at all, when two rules disagree about a combination, or when
there is one that no rule covers. It knows the columns and their values, and
nothing of what paging does.
"""

import csv
import itertools
import sys

COLUMNS = {
    'paging': ['4-level 4K', '4-level 2M', '4-level 1G',
               '5-level 4K', '5-level 2M', '5-level 1G',
               'PAE 4K', 'PAE 2M'],
    'XO': ['0', '1'],
    'R': ['0', '1'],
    'NXE/NX': ['0/0', '0/1', '1/0', '1/1'],
    'U/S': ['0', '1'],
    'W': ['0', '1'],
    'WP': ['0', '1'],
    'SMEP': ['0', '1'],
    'SMAP': ['0', '1'],
    'AC': ['0', '1'],
    'PK': ['off', 'open', 'WD', 'AD'],
    'CPL': ['0', '3'],
    'access': ['read', 'write', 'fetch'],
}
REST = ['rule', 'outcome', 'error', 'open', 'what it says']


class Wrong(Exception):
    """The table is not one."""


def values(rule, column, text):
    """The set of indices that a cell stands for."""
    every = COLUMNS[column]
    if text == 'any':
        return set(range(len(every)))
    wanted = text.removeprefix('!')
    # The names of paging modes have a space in them
    words = wanted.split(';') if column == 'paging' else wanted.split()
    for word in words:
        if word not in every:
            raise Wrong(f'rule {rule}, column {column}: "{word}" is none of '
                        f'{", ".join(every)}')
    chosen = {every.index(word) for word in words}
    if text.startswith('!'):
        chosen = set(range(len(every))) - chosen
    if not chosen:
        raise Wrong(f'rule {rule}, column {column}: "{text}" is nothing')
    return chosen


def exists(combination):
    """Legacy PAE paging has no protection keys; all else combines."""
    paging, key = combination['paging'], combination['PK']
    return key == 'off' or not paging.startswith('PAE')


def read(path):
    rules = []
    with open(path, newline='', encoding='utf-8') as file:
        table = csv.DictReader(file)
        if set(table.fieldnames) != set(COLUMNS) | set(REST):
            raise Wrong(f'the columns are {table.fieldnames}')
        for row in table:
            name = row['rule']
            if None in row or None in row.values():
                raise Wrong(f'rule {name}: not as many cells as columns')
            if any(name == rule['name'] for rule in rules):
                raise Wrong(f'two rules are called {name}')
            if row['outcome'] not in ('ok', '#PF'):
                raise Wrong(f'rule {name}: outcome "{row["outcome"]}"')
            fault = row['outcome'] == '#PF'
            if fault != bool(row['error']) or row['open'] and not fault:
                raise Wrong(f'rule {name}: an error code goes with #PF only')
            rules.append({
                'name': name,
                'sets': [values(name, column, row[column])
                         for column in COLUMNS],
                'outcome': (fault, int(row['error'] or '0', 16),
                            int(row['open'] or '0', 16)),
                'text': row['what it says'],
            })
    return rules


def check(rules):
    """Every combination: at least one rule, and all of one mind."""
    used = dict.fromkeys((rule['name'] for rule in rules), 0)
    # Bit i of masks[column][value]: rule i allows that value
    masks = [[sum(1 << i for i, rule in enumerate(rules)
                  if value in rule['sets'][column])
              for value in range(len(every))]
             for column, every in enumerate(COLUMNS.values())]
    total = 0
    for index in itertools.product(*(range(len(every))
                                     for every in COLUMNS.values())):
        combination = {name: every[i] for (name, every), i
                       in zip(COLUMNS.items(), index)}
        if not exists(combination):
            continue
        total += 1
        mask = (1 << len(rules)) - 1
        for column, value in enumerate(index):
            mask &= masks[column][value]
        said = [rule for i, rule in enumerate(rules) if mask >> i & 1]
        outcomes = {rule['outcome'] for rule in said}
        if len(outcomes) != 1:
            where = ', '.join(f'{name} {value}'
                              for name, value in combination.items())
            if not said:
                raise Wrong(f'no rule for: {where}')
            raise Wrong(f'rules {", ".join(r["name"] for r in said)} '
                        f'disagree about: {where}')
        for rule in said:
            used[rule['name']] += 1
    for name, count in used.items():
        if not count:
            raise Wrong(f'rule {name} applies to nothing')
    return total


def write(rules, total, path):
    with open(path, 'w', encoding='utf-8') as out:
        out.write('/* Made from docs/specs/xo-rules.csv */\n\n')
        for name, every in COLUMNS.items():
            word = name.upper().replace('/', '_')
            out.write(f'#define N_{word} {len(every)}\n')
            out.write(f'static const char *const NAMES_{word}[] '
                      f'__attribute__((unused)) = {{ ')
            out.write(', '.join(f'"{value}"' for value in every) + ' };\n')
        out.write(f'#define N_COMBINATIONS {total}\n\n')
        out.write('static const struct rule rules[] = {\n')
        for rule in rules:
            masks = ', '.join(str(sum(1 << i for i in chosen))
                              for chosen in rule['sets'])
            fault, error, free = rule['outcome']
            text = rule['text'].replace('\\', '\\\\').replace('"', '\\"')
            out.write(f'    {{ "{rule["name"]}", "{text}",\n'
                      f'      {{ {masks} }}, {str(fault).lower()}, '
                      f'{error:#x}, {free:#x} }},\n')
        out.write('};\n')


def main():
    if len(sys.argv) != 3:
        raise SystemExit(f'usage: {sys.argv[0]} xo-rules.csv xo-rules.h')
    try:
        rules = read(sys.argv[1])
        total = check(rules)
    except Wrong as wrong:
        raise SystemExit(f'{sys.argv[1]}: {wrong}') from None
    write(rules, total, sys.argv[2])


if __name__ == '__main__':
    main()
