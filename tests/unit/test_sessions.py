# Copyright (c) The Slipway authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A session is opened in the container that serves, wherever it runs, in the terminal of the run."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from ansible_collections.slipway.stack.plugins.plugin_utils.host_view import playbook_forms
from ansible_collections.slipway.stack.plugins.plugin_utils.input_checks import form_problem
from ansible_collections.slipway.stack.plugins.plugin_utils.sessions import SessionError, serving
from conftest import ROOT, Run


def container(service: str, owner: str, *, running: bool = True, **labels: str) -> dict[str, Any]:
    named = {"slipway.service": service, "slipway.owner": owner, **labels}
    return {"labels": named, "owner": owner, "running": running, "status": "running" if running else "exited"}


STATES: dict[str, dict[str, Any]] = {
    "gone": {"msg": "x"},
    "app1": {
        "containers": {
            "s-api-blue-1": container("api-blue-1", "app-blue"),
            "s-api-green-1": container("api-green-1", "app-green", running=False),
            "s-api-green-2": container("api-green-2", "app-green"),
            "s-prune-green-1": container("prune-green-1", "app-green", running=False, **{"slipway.job": "prune"}),
        }
    },
    "app2": {"containers": {"s-api-green-1": container("api-green-1", "app-green")}},
    "db": {"containers": {"s-redis": container("redis", "redis"), "s-postgres": container("postgres", "postgres", running=False)}},
}


@pytest.mark.parametrize(
    ("service", "found"),
    [
        # The other slot holds another version.
        ("api", ("app1", "s-api-green-2")),
        ("api-green-1", ("app2", "s-api-green-1")),
        ("redis", ("db", "s-redis")),
    ],
)
def test_the_first_running_container_of_the_slot_that_serves_is_found(service: str, found: tuple[str, str]):
    assert serving(STATES, service, "green") == found


@pytest.mark.parametrize(
    ("service", "problem"),
    [
        ("nosuch", "service is 'nosuch', of which no container runs; there are api, postgres, redis; gone could not be read"),
        ("prune", "service is 'prune', of which no container runs; there are api"),
        ("", "no service was named: -e service=…; there are api, postgres, redis"),
        ("postgres", "s-postgres on db is exited: start it with site.yml"),
    ],
)
def test_a_service_without_a_running_container_is_refused(service: str, problem: str):
    with pytest.raises(SessionError) as caught:
        serving(STATES, service, "green")
    assert str(caught.value).startswith("Nothing was touched. ")
    assert problem in str(caught.value)


def test_the_host_of_a_session_that_writes_gets_a_line_in_its_history(checkout: Path, play: Run):
    folder = checkout / "inventories/test/host_vars"
    folder.mkdir()
    (folder / "two.yml").write_text(json.dumps({"container_service_host_state": {"files": {}, **STATES["db"]}}))
    find = {"folder": "/f", "service": "redis", "argv": ["redis-cli"], "interactive": True}
    tasks = [
        {"slipway.stack.fleet_session": {**find, "writes": f"{{{{ {writes} }}}}"}, "register": "found", "run_once": True}
        for writes in (False, True)
    ]
    shown = {"ansible.builtin.debug": {"msg": "on={{ found.ending.session_on }}="}, "run_once": True}
    (checkout / "playbooks/test.yml").write_text(
        json.dumps([{"hosts": "all", "gather_facts": False, "tasks": [tasks[0], shown, tasks[1], shown]}])
    )
    done = play("test")
    assert re.findall("on=(.*)=", done.stdout) == ["", "two"], done.stdout


@pytest.mark.parametrize(
    ("command", "accepted"), [("TTL 'some key'", True), ("", True), ("DBSIZE\nINFO memory", False), ("GET a\r\n", False)]
)
def test_a_command_of_redis_is_one_line(command: str, accepted: bool):
    """redis_session.sh divides it into words, and the second line would be arguments of the first."""
    assert (form_problem(playbook_forms()["redis"]["command"], command) is None) is accepted


PROGRAM = """
import os, sys
sys.path.insert(0, {collections!r})
from ansible.plugins.loader import init_plugin_loader
init_plugin_loader([{collections!r}])
from ansible_collections.slipway.stack.plugins.plugin_utils import terminal
for number in range(3):
    os.set_inheritable(number, False)  # as Ansible does
opened = lambda: print("opened", flush=True)
sys.exit(terminal.interact(["sh", "-c", "test -t 0 && read -r word && echo got $word && exit 7"], opened))
"""


def test_a_session_has_the_terminal_of_the_run_and_its_exit_status():
    controller, terminal = os.openpty()
    program = PROGRAM.format(collections=str(ROOT / "collections"))
    with subprocess.Popen([sys.executable, "-c", program], stdin=terminal, stdout=subprocess.PIPE, text=True) as process:
        os.write(controller, b"hello\n")
        output, _unused = process.communicate(timeout=60)
    assert (process.returncode, output) == (7, "opened\ngot hello\n")
    alone = subprocess.run([sys.executable, "-c", program], stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False)
    assert (alone.returncode, alone.stdout) == (2, "")
    assert "A session needs a terminal, and this run has none: give -e command=…" in alone.stderr
