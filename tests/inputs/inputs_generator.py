"""Draws inputs, good and bad ones, from the argument specifications of the roles. The same seed draws the same."""

from __future__ import annotations

import fnmatch
import json
import random
import string
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import yaml
from inputs_judge import Case

ROOT = Path(__file__).resolve().parents[2]
#: Roles of site.yml.
ROLES = ("app", "backup", "chroma", "host", "nginx", "postgres", "redis", "release")
#: A control character is right in these: an argument of a program, a document, a key.
FREE = ("command", "entrypoint", "healthcheck", "arguments", "extra", "settings", "digests", "key", "secrets")
#: Documents of any form, whose names are not judged.
DOCUMENTS = ("backup_settings", "release_digests")
#: Inputs that a topology makes, not an operator; those of which Slipway says so are in meta/forms.yml.
COMPUTED = ("hosts", "ports", "certificate_addresses")
#: Where the lab's client finds the site: what moves it there is right, and cannot be judged by a client that does not follow.
DOORS = ("nginx_bind_address", "nginx_http_port", "nginx_https_port", "nginx_proxy_protocol_port")

BREAKERS = [
    "a\nb",
    "a\tb",
    "a b",
    "a;b",
    "a'b",
    'a"b',
    "a$b",
    "a{b}",
    "a#b",
    "a\\",
    "-x",
    "../x",
    "%n",
    "a,b",
    "a=b",
    "ü🚀",
    "x" * 5000,
    " a",
    "a ",
    "a\n",
]
CONTROL = ["\x01x", "a\x7f", "a\x1b[31m"]
NUMBERS = [-(2**63), -(2**31), -1, 0, 1, 2, 1024, 65535, 65536, 2**31, 2**63, 10**30]
NO_NUMBERS: list[Any] = ["", "abc", "1e3", "0x10", "1.5", 1.5, [], {}, [1], "1\n2", "٣x", "12 MB"]
NO_BOOLEANS: list[Any] = ["maybe", 2, [], {}, "", "ja", -1]

Drawn = tuple[Any, str]


def inputs(root: Path = ROOT) -> dict[str, dict[str, Any]]:
    """Return the options of all inputs that an operator sets, by name, in a fixed order."""
    found: dict[str, dict[str, Any]] = {}
    for role in ROLES:
        specs = yaml.safe_load((root / "roles" / role / "meta/argument_specs.yml").read_text(encoding="utf-8"))["argument_specs"]
        found |= {name: option for name, option in specs.get("main", {}).get("options", {}).items() if name.startswith(f"{role}_")}
    told = yaml.safe_load((root / "meta/forms.yml").read_text(encoding="utf-8"))["internal"]
    internal = {name for names in told.values() for pattern in names for name in fnmatch.filter(found, pattern)}
    return {name: found[name] for name in sorted(found) if name not in internal and not name.endswith(COMPUTED)}


class Generator:
    """Draws cases."""

    def __init__(self, seed: int) -> None:
        self._random = random.Random(seed)
        self._inputs = inputs()
        self._names = list(self._inputs)
        self._by_type: dict[str, Callable[[dict[str, Any]], Drawn]] = {
            "int": self._number,
            "float": self._number,
            "bool": self._boolean,
            "list": self._list,
            "dict": self._dictionary,
        }

    def cases(self, count: int) -> Iterator[Case]:
        """Yield this many cases; every fifth is of a misspelled name."""
        for number in range(count):
            yield self._misspelled(number) if number % 5 == 4 else self._case(number)

    def _case(self, number: int) -> Case:
        name = self._random.choice(self._names)
        value, expect = self._draw(self._inputs[name])
        if name in DOORS and expect == "either":
            return self._case(number)
        if name.endswith(FREE) and any(control in json.dumps(value) for control in ("\\u0001", "\x7f", "\\u001b", "\\n", "\\t")):
            expect = "either"
        if name in DOCUMENTS and isinstance(value, dict):
            expect = "either"
        return self._given(number, {name: value}, expect)

    def _given(self, number: int, variables: dict[str, Any], expect: str, says: tuple[str, ...] = ()) -> Case:
        way = self._random.choice(["variables", "inventory"])
        shown = json.dumps(variables)
        identity = f"{number:03} {way} {shown if len(shown) < 90 else shown[:87] + '...'}"
        return Case(identity, expect, says=says, **{way: variables})

    def _misspelled(self, number: int) -> Case:
        name = self._random.choice(self._names)
        letters = list(name)
        while (text := "".join(letters)) in self._inputs or text == name:
            letters = list(name)
            for _ in range(self._random.choice([1, 1, 2])):
                # The prefix too: a typo there made a variable of no role.
                at = self._random.randrange(len(letters) - 1)
                change = self._random.choice(["drop", "double", "swap", "replace", "case"])
                if change == "drop":
                    del letters[at]
                elif change == "double":
                    letters.insert(at, letters[at])
                elif change == "swap":
                    letters[at], letters[at + 1] = letters[at + 1], letters[at]
                elif change == "replace":
                    letters[at] = self._random.choice(string.ascii_lowercase)
                else:
                    letters[at] = letters[at].upper()
        if not text.isidentifier():
            return self._misspelled(number)
        return self._given(number, {text: self._inputs[name].get("default", 1)}, "refused")

    def _draw(self, option: dict[str, Any]) -> Drawn:
        if self._random.random() < 0.06:
            return None, "either"
        if "choices" in option and self._random.random() < 0.8:
            wrong = self._random.choice(["nonsense", *[str(choice) + "x" for choice in option["choices"]], [], {}, 7])
            return wrong, "refused"
        return self._by_type.get(option.get("type", "str"), self._text)(option)

    def _number(self, _option: dict[str, Any]) -> Drawn:
        if self._random.random() < 0.6:
            value = self._random.choice(NUMBERS)
            # No port, size, time or count is below zero by so much, or has so many digits.
            return value, "refused" if abs(value) >= 2**63 or value <= -(2**31) else "either"
        value = self._random.choice(NO_NUMBERS)
        return value, "either" if value in (1.5, "1.5") else "refused"

    def _boolean(self, _option: dict[str, Any]) -> Drawn:
        return self._random.choice(NO_BOOLEANS), "refused"

    def _text(self, _option: dict[str, Any]) -> Drawn:
        kind = self._random.random()
        if kind < 0.15:
            return self._random.choice([[], {}, ["a"], {"a": "b"}]), "refused"
        if kind < 0.3:
            return self._random.choice(CONTROL), "refused"
        if kind < 0.4:
            return self._random.choice([7, 1.5, True, "", "true", "null"]), "either"
        return self._random.choice(BREAKERS), "either"

    def _list(self, option: dict[str, Any]) -> Drawn:
        kind = self._random.random()
        if "options" in option:
            return self._members(option)
        if kind < 0.2:
            return self._random.choice([{}, {"a": "b"}, 7, True]), "refused"
        if kind < 0.4:
            return self._random.choice([[None], [[]], [{}], [["a"]], [{"a": "b"}]]), "refused"
        if kind < 0.55:
            return [self._random.choice(CONTROL)], "refused"
        return [self._random.choice([*BREAKERS, "", 7, True])], "either"

    def _members(self, option: dict[str, Any]) -> Drawn:
        """Draw an element that lacks a member, has one that is unknown, or one of a wrong type."""
        members = option["options"]
        element = {name: self._plain(member) for name, member in members.items() if member.get("required")}
        kind = self._random.choice(["lacks", "unknown", "wrong", "text"])
        if kind == "lacks" and element:
            del element[self._random.choice(sorted(element))]
        elif kind == "wrong":
            element[self._random.choice(sorted(members))] = self._random.choice([{"a": {}}, [[]], [{}]])
        elif kind == "text":
            return self._random.choice(["a", ["a"], 7, [7]]), "refused"
        else:
            element["no_such_member"] = 1
        return ([element] if option.get("type") == "list" else element), "refused"

    @staticmethod
    def _plain(option: dict[str, Any]) -> Any:
        plain = {"int": 1, "float": 1.0, "bool": True, "list": [], "dict": {}}
        return option["choices"][0] if "choices" in option else plain.get(option.get("type", "str"), "Yh5kQw8Zt1Lp9Xc3Vb7N")

    def _dictionary(self, option: dict[str, Any]) -> Drawn:
        if "options" in option:
            return self._members(option)
        kind = self._random.random()
        if kind < 0.25:
            return self._random.choice([["a"], "text", 7, True]), "refused"
        if kind < 0.5:
            return {self._random.choice(["", "a\nb", "\x01", "a b\t"]): "x"}, "refused"
        if kind < 0.75:
            return {"a": self._random.choice(CONTROL)}, "either"
        return {self._random.choice(["a b", "a;b", "a=b", "ü"]): self._random.choice([*BREAKERS, None, [1], {}, 7])}, "either"
