"""The firewall of published ports: a chain for each stack, loaded where it differs, and gone where nothing is limited any more."""

from __future__ import annotations

import configparser
import os
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest

from ansible_collections.slipway.stack.plugins.filter.firewall import CHAIN_LENGTH, firewall_chain, firewall_in_place
from conftest import role_variable

PORTS = [{"address": "10.0.0.1", "port": 5432, "peers": ["10.0.0.2", "10.0.0.3"], "variable": "postgres_port"}]
JUMP = "-A DOCKER-USER -j SLIPWAY-shop"
OTHERS = ["-N SLIPWAY-shop2", "-A DOCKER-USER -j SLIPWAY-shop2", "-A SLIPWAY-shop2 -p tcp -j RETURN"]
SYSTEMD = "/etc/systemd/system"
UNIT = f"{SYSTEMD}/slipway-shop-firewall.service"
TIMER = f"{SYSTEMD}/slipway-shop-firewall.timer"
RULES = "/etc/slipway/shop/firewall.rules"
PROGRAM = "/etc/slipway/shop/firewall.sh"
LINKS = {
    f"{SYSTEMD}/multi-user.target.wants/slipway-shop-firewall.service": UNIT,
    f"{SYSTEMD}/timers.target.wants/slipway-shop-firewall.timer": TIMER,
}
SHARED_UNIT = f"{SYSTEMD}/slipway-firewall.service"


def variable(name: str, files: dict[str, Any] | None = None, rules: list[str] | None = None, ports: Any = PORTS) -> Any:
    """Return a variable of the role on a host with these files and rules."""
    state = {
        "files": files or {},
        "firewall": ["-N DOCKER-USER", "-A FORWARD -j DOCKER-USER", *OTHERS, *(rules or [])],
        "tools": dict.fromkeys(("docker", "dockerd", "ip", "iptables", "logrotate", "requests"), True),
        "engine": {"available": True},
    }
    return role_variable("host", name, {"host_stack": "shop", "host_restricted_ports": ports, "container_service_host_state": state})


def loaded() -> list[str]:
    """Return what iptables lists once the rules are loaded."""
    return ["-N SLIPWAY-shop", JUMP, *variable("__host_firewall_rules")]


def kept() -> dict[str, Any]:
    """Return the files with which the rules are there after the next boot, too."""
    return {path: {"content": content} for path, content in variable("__host_firewall_contents").items()} | {
        path: {"link": target} for path, target in LINKS.items()
    }


def test_rules_are_loaded_where_they_or_their_units_differ_and_another_stack_does_not_matter() -> None:
    files, rules = kept(), loaded()
    assert set(files) == {UNIT, TIMER, RULES, PROGRAM, *LINKS}
    assert not variable("__host_firewall_differs", files, rules)
    assert variable("__host_firewall_differs")
    assert variable("__host_firewall_differs", files)
    for edited in (UNIT, TIMER, RULES, PROGRAM):
        assert variable("__host_firewall_differs", {**files, edited: {"content": "edited"}}, rules), edited
    for gone in files:
        assert variable("__host_firewall_differs", {path: file for path, file in files.items() if path != gone}, rules), gone
    assert variable("__host_firewall_differs", files, [*rules, "-A SLIPWAY-shop -p tcp -j RETURN"])


def test_rules_go_when_nothing_is_limited_any_more() -> None:
    there = kept()
    assert variable("__host_firewall_differs", there, ports=[])
    assert variable("__host_firewall_stale_units", there, ports=[]) == [TIMER, UNIT]
    assert variable("__host_firewall_stale_files", there, ports=[]) == [PROGRAM, RULES]
    assert variable("__host_firewall_differs", rules=["-N SLIPWAY-shop"], ports=[])
    assert not variable("__host_firewall_differs", ports=[])


def test_the_chain_that_all_stacks_had_goes_once_the_own_one_is_there() -> None:
    files = {**kept(), SHARED_UNIT: {"content": "x"}}
    assert variable("__host_firewall_differs", files, [*loaded(), "-N SLIPWAY"])
    assert variable("__host_firewall_stale_units", files, loaded()) == [SHARED_UNIT]
    assert variable("__host_firewall_stale_files", files, loaded()) == ["/etc/slipway-firewall.rules"]


def test_the_engine_neither_starts_before_the_rules_nor_takes_them_away() -> None:
    unit = configparser.ConfigParser(strict=False, interpolation=None)
    unit.optionxform = str  # type: ignore[assignment]
    unit.read_string(variable("__host_firewall_contents")[UNIT])
    assert "docker.service" in unit["Unit"]["Before"].split()
    # Each would stop the unit with the engine, or end what it has done.
    assert not {"Requires", "BindsTo", "PartOf", "Requisite", "StopPropagatedFrom"} & set(unit["Unit"])
    assert not {"ExecStop", "ExecStopPost"} & set(unit["Service"])
    assert "docker.service" not in unit["Unit"]["After"].split()


needs_iptables = pytest.mark.skipif(
    os.getuid() != 0 or not all(map(shutil.which, ("iptables", "iptables-restore", "unshare"))), reason="needs root and iptables"
)


class Kernel:
    """A network of its own, with the kernel's tables, in which the role's program runs."""

    def __init__(self, folder: Path, ports: Any = PORTS) -> None:
        self.folder = folder
        (folder / "firewall.rules").write_text(variable("__host_firewall_contents", ports=ports)[RULES])
        program = variable("__host_firewall_program_content").replace(RULES, str(folder / "firewall.rules"))
        (folder / "firewall.sh").write_text(program)

    def run(self, *steps: str) -> tuple[list[str], list[str]]:
        """Run lines of shell one after the other in a new network, where `firewall` is the program.

        Returns:
            What iptables lists at the end, and what the program has reported.
        """
        script = "\n".join(
            ["set -e", f'firewall() {{ sh {self.folder}/firewall.sh "$1" >> {self.folder}/reported; }}', *steps, "iptables -S"]
        )
        (self.folder / "reported").write_text("")
        done = subprocess.run(["unshare", "--net", "sh", "-c", script], capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
        return done.stdout.splitlines(), (self.folder / "reported").read_text().splitlines()


@pytest.fixture
def kernel(tmp_path: Path) -> Kernel:
    return Kernel(tmp_path)


ENGINE = "iptables -N DOCKER-USER; iptables -A DOCKER-USER -j RETURN; iptables -I FORWARD -j DOCKER-USER"
#: What others do to the rules, and whether they must be loaded again.
CHANGES = {
    "nothing": (":", False),
    "the engine restarts": ("iptables -D FORWARD -j DOCKER-USER; iptables -I FORWARD -j DOCKER-USER", False),
    "another stack loads its rules": ("iptables -N SLIPWAY-shop2; iptables -I DOCKER-USER -j SLIPWAY-shop2", False),
    "a rule that comes after the call": ("iptables -A DOCKER-USER -s 10.9.9.9 -j ACCEPT", False),
    "ufw-docker loads its chain again": ("iptables -F DOCKER-USER; iptables -A DOCKER-USER -s 10.0.0.0/8 -j RETURN", True),
    "a rule that comes before the call": ("iptables -I DOCKER-USER -s 10.0.0.0/8 -j ACCEPT", True),
    "a chain of others before the call": ("iptables -N F2B; iptables -I DOCKER-USER -j F2B", True),
    "a jump with a condition in its place": ("iptables -R DOCKER-USER 1 -s 10.9.9.9 -j SLIPWAY-shop", True),
    "all rules are flushed": ("iptables -F", True),
    "all rules and chains are gone": ("iptables -F; iptables -X", True),
    "the chain is flushed": ("iptables -F SLIPWAY-shop", True),
    "rules of the chain change their order": (
        'set -- $(iptables -S SLIPWAY-shop 1); shift 2; iptables -D SLIPWAY-shop 1; iptables -A SLIPWAY-shop "$@"',
        True,
    ),
    "nothing calls the engine's chain": ("iptables -D FORWARD -j DOCKER-USER", True),
}


@needs_iptables
@pytest.mark.parametrize("change", CHANGES)
@pytest.mark.parametrize("before", [ENGINE, ":"], ids=["engine", "boot"])
def test_rules_are_loaded_again_whatever_took_them_away(kernel: Kernel, before: str, change: str) -> None:
    steps, differs = CHANGES[change]
    rules = variable("__host_firewall_rules")
    listed, reported = kernel.run(before, "firewall load", steps, "firewall load", "firewall load")
    assert firewall_in_place(listed, "SLIPWAY-shop", rules)
    assert len(reported) == 1 + differs, "loaded where they differed, and only there"
    assert listed.count(JUMP) == 1
    # The controller sees the same differences.
    changed, _reported = kernel.run(before, "firewall load", steps)
    assert firewall_in_place(changed, "SLIPWAY-shop", rules) == (not differs)


@needs_iptables
def test_rules_of_others_stay(kernel: Kernel) -> None:
    theirs = ["-A DOCKER-USER -s 10.9.9.9/32 -j DROP", "-A FORWARD -s 10.9.9.8/32 -j DROP", "-A INPUT -s 10.9.9.7/32 -j DROP"]
    steps = [ENGINE, *(f"iptables {rule}" for rule in theirs)]
    listed, _reported = kernel.run(*steps, "firewall load", "iptables -F SLIPWAY-shop", "firewall load")
    assert set(theirs) <= set(listed)
    before, _reported = kernel.run(*steps)
    left, _reported = kernel.run(*steps, "firewall load", "firewall unload", "firewall unload")
    assert left == before


@needs_iptables
def test_rules_that_cannot_be_loaded_are_a_failure(kernel: Kernel) -> None:
    (kernel.folder / "firewall.rules").rename(kernel.folder / "elsewhere")
    for before in (":", f"sed s,firewall.rules,elsewhere, {kernel.folder}/firewall.sh | sh -s load; iptables -F SLIPWAY-shop"):
        with pytest.raises(AssertionError, match=r"firewall\.rules"):
            kernel.run(ENGINE, before, "firewall load")


@pytest.mark.parametrize("length", [1, 20, 21, 41])
def test_a_chain_has_a_name_that_iptables_takes(length: int) -> None:
    names = {firewall_chain("a" * length), firewall_chain("a" * (length - 1) + "b")}
    assert len(names) == 2
    assert all(name.startswith("SLIPWAY-a" if length > 1 else "SLIPWAY-") and len(name) <= CHAIN_LENGTH for name in names)
