# Copyright (c) The Slipway authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Logs of all hosts are read in one call each, merged by time, filtered, and followed."""

from __future__ import annotations

import json
import os
import re
import subprocess
from pathlib import Path
from typing import Any

import pytest
from ansible.parsing.vault import VaultLib, VaultSecret

from ansible_collections.slipway.stack.plugins.action.fleet_logs import following
from ansible_collections.slipway.stack.plugins.modules import container_logs
from ansible_collections.slipway.stack.plugins.plugin_utils import terminal
from conftest import Run

SECRET = "t7Hq2Lw9Zx4Nv6Bk8Mr3"
ENCRYPTED = "p5Jd8Sx2Wc7Vb3Gn9Tk4"
NOW = 1_800_000_000


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("90s", NOW - 90),
        ("10m", NOW - 600),
        ("2h", NOW - 7200),
        ("3d", NOW - 259200),
        ("2027-01-15T08:00:00Z", NOW),
        ("2027-01-15 08:00", NOW),
        ("2027-01-15T10:00:00+02:00", NOW),
        ("2027-01-15 08:00:00.5+00", NOW + 0.5),
        ("2027-01-15T08:00:00.250000999Z", NOW + 0.25),
    ],
)
def test_the_beginning_is_a_span_before_now_or_a_moment(text: str, seconds: float):
    assert container_logs.beginning(text, NOW) == seconds


class Engine:
    """An engine with a replica of the product in each slot, a store, and a container of another stack."""

    def __init__(self) -> None:
        self.asked: list[tuple[str, Any]] = []

    def containers(self) -> list[dict[str, Any]]:
        found = [("api-blue-1", "app-blue"), ("api-green-1", "app-green"), ("redis", "redis")]
        labels = [{"slipway.stack": "s", "slipway.service": service, "slipway.owner": owner} for service, owner in found]
        own = [{"Names": [f"/s-{item['slipway.service']}"], "Labels": item} for item in labels]
        return [*own, {"Names": ["/other"], "Labels": {"slipway.stack": "t", "slipway.service": "redis"}}]

    def logs(self, container: str, lines: int | str, **query: Any) -> str:
        assert query["timestamps"]
        self.asked.append((container, lines))
        hour = 8 + len(self.asked)
        return f"2027-01-15T{hour:02}:00:01Z {container} fails\n2027-01-15T{hour:02}:00:02Z {container} ends\n"


@pytest.mark.parametrize(
    ("given", "asked", "shown"),
    [
        (
            {"service": "api"},
            [("s-api-blue-1", 3), ("s-api-green-1", 3)],
            ["s-api-blue-1 ends", "s-api-green-1 fails", "s-api-green-1 ends"],
        ),
        ({"service": "api-green-1"}, [("s-api-green-1", 3)], ["s-api-green-1 fails", "s-api-green-1 ends"]),
        # What does not match is not among the last lines.
        ({"service": "redis", "grep": "^.*fail"}, [("s-redis", "all")], ["s-redis fails"]),
        ({"service": "api", "lines": 0}, [], []),
        ({"service": "nosuch"}, [], []),
    ],
)
def test_the_newest_matching_lines_of_a_service_are_read(given: dict[str, Any], asked: list[Any], shown: list[str]):
    engine: Any = Engine()
    found = container_logs.read(engine, {"stack": "s", "service": "", "since": "10m", "grep": "", "lines": 3, **given})
    assert engine.asked == asked
    assert [text for _stamp, _service, text in found["entries"]] == shown
    assert found["services"] == ["api", "redis"]


def test_a_followed_line_has_its_service_behind_the_time(tmp_path: Path):
    fake = tmp_path / "docker"
    fake.write_text('#!/bin/sh\nfor name; do :; done\necho "2027-01-15T08:00:00Z $name $4 $5"\n')
    fake.chmod(0o755)
    command = following({"since": 5.0, "containers": {"s-api-blue-1": "api-blue-1", "s-redis": "redis"}})
    done = subprocess.run(command, env={"PATH": f"{tmp_path}:{os.environ['PATH']}"}, capture_output=True, text=True, check=True)
    assert sorted(done.stdout.splitlines()) == [
        "2027-01-15T08:00:00Z api-blue-1 s-api-blue-1 --since 5.000",
        "2027-01-15T08:00:00Z redis s-redis --since 5.000",
    ]


# A progress bar, a form feed, and characters of Unicode that str.splitlines takes for the end of a line.
ONE_LINE = ["10 %\r20 %\r30 %", "a\x0cb", "a\x0bb\x1cc\x1dd\x1ee", '{"text": "a\u2028b\u2029c\x85d"}']


@pytest.mark.parametrize("text", ONE_LINE)
def test_only_a_line_feed_ends_a_line(text: str, capfd: pytest.CaptureFixture[str]):
    """Else the rest of a line would have no time, and be sorted behind all others."""
    log = f"2027-01-15T08:00:00Z first\n2027-01-15T08:00:01Z {text}\r\n2027-01-15T08:00:02Z last"
    assert container_logs.entries_of(log, "api", re.compile("")) == [
        ["2027-01-15T08:00:00Z", "api", "first"],
        ["2027-01-15T08:00:01Z", "api", text],
        ["2027-01-15T08:00:02Z", "api", "last"],
    ]
    terminal.follow({"one": ["printf", "%s\n", f"2027-01-15T08:00:00.000Z api {text}\r"]}, "^.*$", lambda _host, line: line)
    assert capfd.readouterr().out == terminal.log_line("one", "2027-01-15T08:00:00.000Z", "api", text) + "\n"


@pytest.mark.parametrize(
    ("text", "shown"),
    [("10 %\r20 %", "10 % 20 %"), ("\x1b[2J\x9b2Ja\x85b\x07", "2Jab"), ("a\tb ä\u2028", "a\tb ä\u2028")],
)
def test_a_shown_line_does_not_steer_the_terminal(text: str, shown: str):
    assert terminal.log_line("one", "2027-01-15T08:00:00.000000000Z", "api", text) == f"2027-01-15T08:00:00.000Z one api: {shown}"


@pytest.mark.usefixtures("programs")
def test_lines_are_followed_until_all_commands_end(capfd: pytest.CaptureFixture[str]):
    line = f"2027-01-15T08:00:00.123456789Z redis \x1b[31mfails\x1b[0m with {SECRET}"
    commands = {"one": ["printf", "%s\\r\\nnext redis other\\n", line], "two": ["false"]}
    assert terminal.follow(commands, "fail", lambda host, text: text.replace(SECRET, f"({host})")) == 1
    assert capfd.readouterr().out == "2027-01-15T08:00:00.123Z one redis: fails with (one)\n"
    assert terminal.follow({"one": ["true"]}, "", lambda _host, text: text) == 0


@pytest.fixture
def merged(checkout: Path, play: Run):
    """Merge what is given for the hosts one and two, and return what was printed and the exit status."""

    def run(read: dict[str, Any], **options: Any) -> subprocess.CompletedProcess[str]:
        password = checkout / ".vault-password"
        password.write_text("of the run")
        password.chmod(0o600)
        encrypted = VaultLib().encrypt(ENCRYPTED, VaultSecret(b"of the run")).decode().replace("\n", "\n    ")
        (checkout / "inventories/test/group_vars/all/own.yml").write_text(
            f"vault_owner: \"{{{{ '{SECRET}' | string }}}}\"\napp_token: !vault |\n    {encrypted}\n"
        )
        for host, value in read.items():
            path = checkout / f"inventories/test/host_vars/{host}.yml"
            path.parent.mkdir(exist_ok=True)
            path.write_text(json.dumps({"logs": value}))
        merge = {"slipway.stack.fleet_logs": {"read": "logs", "lines": 3, **options}, "run_once": True, "register": "merged"}
        end = {"ansible.builtin.set_stats": {"data": {"slipway_ending": "{{ merged.ending }}"}}, "run_once": True}
        (checkout / "playbooks/test.yml").write_text(json.dumps([{"hosts": "all", "gather_facts": False, "tasks": [merge, end]}]))
        return play("test")

    return run


def read(*entries: list[str]) -> dict[str, Any]:
    return {"entries": list(entries), "services": ["api", "redis"], "containers": {"s-redis": "redis"}, "since": 1.0}


def test_the_newest_lines_of_all_hosts_are_in_the_order_of_time_and_without_secrets(merged):
    one = read(["2027-01-15T08:00:01.0Z", "redis", "old"], ["2027-01-15T08:00:04.0Z", "redis", f"\x1b[2Jlast {SECRET}"])
    two = read(["2027-01-15T08:00:02.0Z", "redis", "second"], ["2027-01-15T08:00:03.0Z", "api-blue-1", f"third {ENCRYPTED}"])
    done = merged({"one": one, "two": two})
    assert re.findall(r"^2027\S+ (.*)$", done.stdout, flags=re.MULTILINE) == [
        "two redis: second",
        "two api-blue-1: third (secret)",
        "one redis: last (secret)",
    ]
    assert not re.search(f"{SECRET}|{ENCRYPTED}", done.stdout)


def test_a_host_that_did_not_answer_is_named_behind_the_lines_of_the_others(merged):
    done = merged({"one": read(["2027-01-15T08:00:01.0Z", "redis", "fine"]), "two": {"msg": f"refused\nby {SECRET}"}})
    assert done.returncode == 0
    named = done.stdout.index("two could not be read, and its logs are missing here: refused by (secret)")
    assert done.stdout.index("one redis: fine") < named


def test_an_unknown_service_names_those_that_there_are(merged):
    none = {**read(), "containers": {}}
    done = merged({"one": none, "two": {"unreachable": True}}, service="nosuch")
    assert done.returncode != 0
    said = " ".join(done.stdout.split())
    assert "service is 'nosuch', of which no host has a container; there are api, redis (two could not be read)" in said


def test_hosts_that_all_failed_say_why_and_blame_no_service(merged):
    done = merged({"one": {"msg": "multiple repeat at position 2"}, "two": {"unreachable": True}}, service="redis")
    assert done.returncode != 0
    said = " ".join(done.stdout.split())
    assert "the logs of no host could be read; one: multiple repeat at position 2; two: it gave no reason" in said
    assert "service is" not in said


@pytest.mark.parametrize(
    ("given", "problem"),
    [
        ("grep=(", "grep is '(', must be a regular expression as Python reads it: missing ), unterminated subpattern at position 0"),
        ("grep=a++b", "grep is 'a++b', must be a regular expression as Python reads it: hosts may not know possessive quantifiers"),
        ("since=10", "since is '10', must be a time span as 10m, 2h or 3d, or a date and time"),
        ("since=2027-13-01T00:00", "since is '2027-13-01T00:00', must be a time span"),
        ("lines=0", "lines is '0', must be an integer from 1 to 100000"),
    ],
)
def test_what_cannot_be_searched_for_is_refused_before_a_host_is_asked(checkout: Path, play: Run, given: str, problem: str):
    hosts = checkout / "inventories/test/hosts.yml"
    hosts.write_text(hosts.read_text().replace("stores:", "redis:"))
    done = play("logs", "-e", given)
    assert done.returncode == 2
    assert problem in " ".join(done.stdout.split())
    assert "Read the logs" not in done.stdout
