# Copyright (c) The Slipway authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Names of variables that are nearly those of Slipway: a misspelled input is never ignored. No Ansible in here."""

from __future__ import annotations

import difflib
import json
import re
import shlex
from collections.abc import Callable, Iterable, Mapping

import yaml

#: Letters by which a name may differ from one of Slipway's and still be taken for it.
MOST = 2
#: A shorter name may differ by one letter only: `host` is not `port`.
SHORT = 8
#: Shorter ones are words of their own; not so after -e, where a playbook has a few arguments.
SHORTEST = 5
SHORTEST_ARGUMENT = 4
#: What is given after -e for an option of Ansible, each with that: the run would do all the same what it must not.
OPTIONS = {
    **dict.fromkeys(("ansible_check_mode", "check", "check_mode", "dry_run", "dryrun"), "--check"),
    **dict.fromkeys(("ansible_diff_mode", "diff"), "--diff"),
    **dict.fromkeys(("ansible_limit", "limit"), "--limit <host>"),
}
_BLANK = "Ansible ends a value at a blank, and leaves out the rest"
_NOTHING = "sets nothing: Ansible leaves out what is not name=value"
_VARIABLE = re.compile(r"[A-Za-z_]\w*", re.ASCII)


def distance(one: str, other: str, most: int = MOST) -> int:
    """Return by how many letters two names differ: inserted, left out, replaced, or exchanged with the next one.

    Args:
        one: A name.
        other: Another.
        most: Where they differ by more, any number above it is returned.
    """
    if abs(len(one) - len(other)) > most:
        return most + 1
    before: list[int] = []
    row = list(range(len(other) + 1))
    for i, letter in enumerate(one, 1):
        last, before, row = before, row, [i]
        for j, there in enumerate(other, 1):
            cost = min(before[j] + 1, row[j - 1] + 1, before[j - 1] + (letter != there))
            if i > 1 and j > 1 and letter == other[j - 2] and one[i - 2] == there:
                cost = min(cost, last[j - 2] + 1)
            row.append(cost)
        if min(row) > most:
            return most + 1
    return row[-1]


def nearest(name: str, candidates: Iterable[str]) -> str:
    """Return " (did you mean x?)" for the name of a closed set that is most like another, or "" where none is like it."""
    match = difflib.get_close_matches(name, [other for other in candidates if other != name], n=1, cutoff=0.7)
    return f" (did you mean {match[0]}?)" if match else ""


def _letters(name: str) -> int:
    """Return which letters a name has, as bits: two names that differ by n letters differ by at most 2 n of them."""
    bits = 0
    for letter in name:
        bits |= 1 << (ord(letter) & 63)
    return bits


def may_be_meant(word: str, known: str) -> bool:
    """Return whether the first word of a name may be that of an input, misspelled, and not another program's, as chrony.

    Short words that differ by a letter are other words, as api and app, but for a letter too many, too few, or exchanged.

    Args:
        word: The word, in small letters.
        known: That of one of our names.
    """
    far = distance(word, known)
    if far < MOST:
        return far == 0 or len(word) >= SHORTEST or len(word) != len(known) or sorted(word) == sorted(known)
    # Not postgresql for postgres.
    return far == MOST and len(known) >= SHORT - 1 and not word.startswith(known)


def _begin_alike(name: str, known: str) -> bool:
    """Return whether the first words of two names, where both have several, may be the same."""
    words = name.partition("_")[0], known.partition("_")[0]
    return name in words or known in words or name.replace("_", "") == known.replace("_", "") or may_be_meant(*words)


class KnownNames:
    """The names of our inputs, to find those that another name was meant for."""

    def __init__(self, names: Iterable[str], shortest: int = SHORTEST) -> None:
        """Take the names, and how short another one may be to be taken for one of them."""
        self._shortest = shortest
        self._names = [(name, name.lower(), _letters(name.lower())) for name in sorted(set(names))]
        self.all = {entry[0] for entry in self._names}

    def near(self, name: str) -> list[str]:
        """Return the names that differ from another by at most two letters, capitals aside, the nearest first; none for one of them.

        Their first words, by which they belong to a role, must be alike as well.
        """
        if name in self.all:
            return []
        plain = name.lower()
        most = MOST if len(name) >= SHORT else 1 if len(name) >= self._shortest else 0
        bits = _letters(plain)
        found = [
            (far, known)
            for known, lower, letters in self._names
            if (bits ^ letters).bit_count() <= 2 * most and (far := distance(plain, lower, most)) <= most and _begin_alike(plain, lower)
        ]
        return [known for _unused, known in sorted(found)]

    def ending(self, name: str) -> list[str]:
        """Return the names that are another with the prefix of a role, as app_version for version."""
        plain = name.lower()
        return [known for known, lower, _unused in self._names if lower.partition("_")[2] == plain]


def near_names(names: Iterable[str], known: KnownNames, is_used: Callable[[str], bool]) -> dict[str, str]:
    """Return what is wrong with variables of an inventory whose names are nearly those of Slipway, by name.

    Args:
        names: Variables that an inventory sets.
        known: Variables of Slipway.
        is_used: Returns whether a template of the inventory reads a variable: then it is one of the user's own.
    """
    found = {}
    for name in names:
        meant = known.near(name)
        if meant and not is_used(name):
            found[name] = f"{name} is not a variable of Slipway (did you mean {meant[0]}?)"
    return found


def argument_problems(
    given: Iterable[str],
    playbook: str,
    playbooks: Mapping[str, Iterable[str]],
    known: KnownNames,
    is_used: Callable[[str], bool],
) -> list[str]:
    """Return what is wrong with the names that were given with -e.

    Args:
        given: The names.
        playbook: Name of the playbook that runs; "" where its arguments are not known.
        playbooks: For each playbook the names of its arguments.
        known: Names of all other variables of Slipway.
        is_used: Returns whether a template of the inventory reads a variable.
    """
    own = KnownNames(playbooks.get(playbook, ()), SHORTEST_ARGUMENT)
    problems = []
    for name in sorted(set(given) - own.all - known.all):
        if name in OPTIONS and not is_used(name):
            problems.append(f"{name} after -e is not an option of Ansible, and has no effect; give {OPTIONS[name]} instead")
            continue
        elsewhere = [other for other, names in playbooks.items() if name in names]
        meant = own.near(name) or _same_without_case(name, own.all) or known.near(name) or known.ending(name)
        if not meant and not elsewhere:
            continue
        if is_used(name) and not own.near(name):
            continue
        if elsewhere and not own.near(name):
            its = f"; it has {', '.join(sorted(own.all))}" if own.all else ""
            problems.append(f"{name} is an argument of {' and '.join(f'{other}.yml' for other in elsewhere)}, not of {playbook}.yml{its}")
        else:
            problems.append(f"{name} is not a variable of Slipway (did you mean {' or '.join(meant[:3])}?); correct the name after -e")
    return problems


def _same_without_case(name: str, names: Iterable[str]) -> list[str]:
    """Return the names that are another in other letters."""
    return [other for other in names if other.lower() == name.lower()]


def _as_yaml(name: str, value: str) -> str:
    """Return how a shell is given a variable in YAML, or "" where its value is not YAML, or has quotes that end the shell's."""
    text = f"{{{name}: {value}}}"
    try:
        return f"-e '{text}'" if "'" not in text and set(yaml.safe_load(text)) == {name} else ""
    except yaml.YAMLError:
        return ""


def _with_blanks(name: str, value: str) -> str:
    """Return how a shell is given a variable whose value is a string."""
    if not re.search(r"[\s\"'\\$`!]", value):
        return f"-e {name}={value}"
    return f"-e {shlex.quote(json.dumps({name: value}))}" if re.search(r"[\"'\\$`!]", value) else f"-e \"{name}='{value}'\""


def _with_data(name: str, value: str) -> str:
    """Return how a shell is given a variable whose value is a list or a dictionary, and others behind it; "" for another value."""
    found = re.fullmatch(r"([\[{].*?[]}])(?:\s+([A-Za-z_]\w*=.*))?", value, re.ASCII | re.DOTALL)
    how = _as_yaml(name, found[1].replace("'", '"')) if found else ""
    rest = found[2] if found else ""
    if not (how and rest):
        return how
    return f"{how} -e {shlex.quote(rest)}" if not command_line_problems([rest]) else ""


def command_line_problems(arguments: Iterable[str]) -> list[str]:
    """Return what is wrong with the texts that were given with -e: Ansible leaves out what is not name=value.

    Args:
        arguments: The texts as they were given.
    """
    problems = []
    for argument in arguments:
        text = str(argument).strip()
        # A file, or JSON or YAML, which Ansible reads as a whole.
        if not text or text[0] in "@/.[{":
            continue
        try:
            words = shlex.split(text)
        except ValueError:
            words = text.split()
        wrong = [word for word in words if not _VARIABLE.fullmatch(word.partition("=")[0]) or "=" not in word]
        if not wrong:
            continue
        name, _unused, value = text.partition("=")
        in_yaml = re.fullmatch(r"([A-Za-z_]\w*): *(.+)", text, re.ASCII | re.DOTALL)
        if words[0] not in wrong:
            problems.append(f"-e '{text}': {_BLANK}; write {_with_data(name, value) or _with_blanks(name, value)}")
        elif in_yaml:
            both = [_as_yaml(in_yaml[1], in_yaml[2]), _with_blanks(in_yaml[1], in_yaml[2])]
            problems.append(f"-e '{text}' {_NOTHING}; write {', or '.join(how for how in both if how)}")
        else:
            name = next((word for word in words if _VARIABLE.fullmatch(word)), "")
            value = next((word for word in words if word not in (name, "=")), "").lstrip("=") if name else ""
            how = f"write -e {name}={value or '<value>'}, without blanks around =" if name else "write -e name=value"
            problems.append(f"-e '{text}' {_NOTHING}; {how}")
    return problems
