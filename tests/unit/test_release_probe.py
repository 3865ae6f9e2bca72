"""The action that runs the prober, from playbooks."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from ansible.errors import AnsibleActionFail
from misbehaving import eventually

from ansible_collections.slipway.stack.plugins.action import release_probe
from ansible_collections.slipway.stack.plugins.action.release_probe import SETTINGS, Settings
from conftest import ROOT
from slipway_prober.control import process_started

pytest_plugins = ["prober_fixtures"]


PLAY = """
- name: Probe
  hosts: one
  gather_facts: false
  tasks:
    - name: Start
      slipway.stack.release_probe:
        state: started
        targets: [{{address: 127.0.0.1, port: {port}, server_name: localhost}}]
        ca_file: {certificate}
        rate: 50
        websockets: 3
        version_header: X-Instance
        deadline_seconds: 60
        wait: {wait}
      register: probe
    - name: Write down where it is
      ansible.builtin.copy:
        content: "{{{{ probe.state_file }}}}"
        dest: {written}
        mode: "0600"
      when: not ansible_check_mode
{rest}
"""

REST = """
    - name: Mark
      slipway.stack.release_probe: {state: marked, state_file: "{{ probe.state_file }}", mark: switch}
      register: marked
    - name: Wait
      ansible.builtin.pause: {seconds: 1}
      when: not ansible_check_mode
    - name: Read
      slipway.stack.release_probe: {state: read, state_file: "{{ probe.state_file }}", mark: switch}
      register: read
    - name: Read a mark that was not made
      slipway.stack.release_probe: {state: read, state_file: "{{ probe.state_file }}", mark: nothing}
      register: unknown
      ignore_errors: true
    - name: Stop
      slipway.stack.release_probe: {state: stopped, state_file: "{{ probe.state_file }}"}
      register: totals
    - name: Stop again
      slipway.stack.release_probe: {state: stopped, state_file: "{{ probe.state_file }}"}
      register: again
    - name: Read what is over
      slipway.stack.release_probe: {state: read, state_file: "{{ probe.state_file }}"}
      register: over
      ignore_errors: true
    - name: Say all
      ansible.builtin.copy:
        content: "{{ [probe, marked, read, unknown, totals, again, over] | to_json }}"
        dest: "{{ playbook_dir }}/answers.json"
        mode: "0600"
      when: not ansible_check_mode
"""


def write_play(checkout: Path, certificate: Path, port: int, rest: str, wait: bool = True) -> tuple[Path, Path]:
    written = checkout / "written"
    path = checkout / "playbooks/probe.yml"
    path.write_text(PLAY.format(port=port, certificate=certificate, written=written, rest=rest, wait=str(wait).lower()))
    return path, written


@pytest.mark.parametrize("wait", [True, False])
def test_a_playbook_starts_marks_reads_and_stops(checkout: Path, play: Any, certificate: Path, served: int, wait: bool):
    path, written = write_play(checkout, certificate, served, REST, wait)
    run = play("probe")
    assert run.returncode == 0, run.stdout + run.stderr
    probe, marked, read, unknown, totals, again, over = json.loads((path.parent / "answers.json").read_text())
    assert probe["running"]
    if wait:
        assert probe["probe"]["requests"] >= 1
        assert probe["probe"]["websockets_opened"] == 3
    assert marked["since"]["requests"] <= 10
    assert 20 <= read["since"]["requests"] < read["probe"]["requests"]
    assert read["since"]["failed"] == 0
    assert read["since"]["versions"]["blue"]["answers"] == read["since"]["requests"]
    assert "knows no mark 'nothing'; it has: switch" in unknown["msg"]
    assert (totals["ended"], totals["running"]) == ("stopped", False)
    assert totals["probe"]["requests"] >= read["probe"]["requests"]
    assert totals["probe"]["websockets_cut"] == totals["probe"]["failed"] == 0
    assert again["ended"] == "not running"
    assert "was stopped since" in over["msg"]
    assert not any(answer["changed"] for answer in (probe, marked, read, totals, again))
    assert not Path(written.read_text()).parent.exists()
    assert process_started(totals["probe"]["pid"]) is None


def test_check_mode_starts_nothing(checkout: Path, play: Any, certificate: Path):
    nothing = """
    - name: Compare
      ansible.builtin.assert:
        that:
          - answers | map(attribute='running') | select | length == 0
          - answers | map(attribute='probe') | select | length == 0
          - answers | map(attribute='state_file') | unique == ['']
      vars: {answers: "{{ [probe, marked, read, unknown, totals, again, over] }}"}
"""
    write_play(checkout, certificate, 1, REST + nothing)
    run = play("probe", "--check")
    assert run.returncode == 0, run.stdout + run.stderr
    assert "Compare" in run.stdout


def test_a_prober_ends_when_its_playbook_is_killed(checkout: Path, certificate: Path, served: int):
    path, written = write_play(checkout, certificate, served, "    - name: Wait\n      ansible.builtin.pause: {seconds: 60}\n")
    command = [str(Path(sys.executable).parent / "ansible-playbook"), str(path), "-i", "inventories/test"]
    run = subprocess.Popen(command, cwd=checkout, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, start_new_session=True)
    try:
        state_file = Path(eventually(lambda: written.exists() and written.read_text(), 60) or "missing")
        pid = json.loads(state_file.read_text())["pid"]
        assert process_started(pid)
    finally:
        run.kill()
    assert eventually(lambda: process_started(pid) is None, 10), "the prober outlived its playbook"
    assert not state_file.parent.exists()
    run.wait()


def test_a_prober_that_died_is_an_error(checkout: Path, play: Any, certificate: Path, served: int):
    rest = """
    - name: Kill it
      ansible.builtin.command: kill -9 {{ probe.probe.pid }}
      changed_when: true
    - name: Read
      slipway.stack.release_probe: {state: read, state_file: "{{ probe.state_file }}"}
      register: read
      ignore_errors: true
    - name: Stop
      slipway.stack.release_probe: {state: stopped, state_file: "{{ probe.state_file }}"}
      register: totals
    - name: Compare
      ansible.builtin.assert:
        that:
          - "'has died' in read.msg"
          - totals.ended == 'died'
          - totals.probe.requests > 0
          - totals.warnings | length == 1
"""
    _, written = write_play(checkout, certificate, served, rest)
    run = play("probe")
    assert run.returncode == 0, run.stdout + run.stderr
    assert not Path(written.read_text()).parent.exists()


WRONG = {
    "{state: started}": "targets",
    "{state: started, targets: [{address: a, port: 1}], rate: -2, deadline_seconds: 5}": "rate cannot be -2",
    "{state: started, targets: [{address: a, port: 1}], deadline_seconds: 0}": "deadline_seconds cannot be 0",
    "{state: started, targets: [{address: a, port: 1}], ca_file: /missing, deadline_seconds: 5}": "ca_file /missing cannot be read",
    "{state: read, state_file: /missing/state.json}": "no prober was started with the state file /missing/state.json",
    "{state: paused}": "paused",
}


def test_wrong_options_of_the_action_are_named(checkout: Path, play: Any):
    tasks = [
        f"    - name: Probe\n      slipway.stack.release_probe: {options}\n      ignore_errors: true\n      register: answer_{number}\n"
        for number, options in enumerate(WRONG)
    ]
    said = "{{ [" + ", ".join(f"answer_{number}" for number in range(len(WRONG))) + "] | to_json }}"
    write = f'    - name: Say\n      ansible.builtin.copy: {{content: "{said}", dest: {checkout}/answers.json, mode: "0600"}}\n'
    head = "- name: Probe\n  hosts: one\n  gather_facts: false\n  tasks:\n"
    (checkout / "playbooks/wrong.yml").write_text(head + "".join(tasks) + write)
    run = play("wrong")
    assert run.returncode == 0, run.stdout + run.stderr
    for answer, wanted in zip(json.loads((checkout / "answers.json").read_text()), WRONG.values(), strict=True):
        assert answer["failed"]
        assert wanted in answer["msg"]


def test_the_documentation_names_every_setting():
    fields = set(Settings.__dataclass_fields__)
    assert set(SETTINGS) == fields
    module = (ROOT / "plugins/modules/release_probe.py").read_text()
    assert not [name for name in fields if f"\n  {name}:\n" not in module]


def test_a_controller_without_the_parsers_is_named_in_one_sentence(monkeypatch: pytest.MonkeyPatch):
    code = "import sys; sys.modules['wsproto'] = None\n"
    code += "from ansible_collections.slipway.stack.plugins.action import release_probe; print(release_probe.MISSING)"
    environment = {"PYTHONPATH": str(ROOT / "collections")}
    found = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=False)
    assert found.stdout == "wsproto\n", found.stderr
    monkeypatch.setattr(release_probe, "MISSING", "wsproto")
    with pytest.raises(
        AnsibleActionFail, match=r"needs wsproto in the Python of the controller: \S+ -m pip install h11 wsproto; or release"
    ):
        release_probe.ActionModule._start({"deadline_seconds": 1})
