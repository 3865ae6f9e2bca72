"""What keeps a host from being reached: which variable, and what to do."""

from __future__ import annotations

from pathlib import Path

import pytest

from ansible_collections.slipway.stack.plugins.plugin_utils.connections import connection_problem, key_problem
from conftest import Run

VALUES = {"ansible_host": "192.0.2.7", "ansible_port": 2204, "ansible_user": "ops", "ansible_python_interpreter": "/usr/bin/nosuch"}


def problem(text: str, *, reached: bool = False) -> str | None:
    return connection_problem(text, VALUES.get, {"ansible_user": "hosts.yml:9"}.get, reached=reached)


# As OpenSSH 8 to 10 and sudo write them.
@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("ops@192.0.2.7: Permission denied (publickey).", "this key; correct ansible_user (hosts.yml:9) or ansible_ssh_pri"),
        ("Received disconnect from 192.0.2.7 port 2204:2: Too many authentication failures", "does not accept ops with this key"),
        ('Load key "/k": error in libcrypto\nops@192.0.2.7: Permission denied (publickey).', "does not accept ops with this key"),
        ("ssh: connect to host 192.0.2.7 port 2204: Connection refused", "listens on 192.0.2.7 port 2204; correct ansible_host or"),
        ("ssh: connect to host 192.0.2.7 port 2204: Connection timed out", "192.0.2.7 port 2204 does not answer; correct ansible_host"),
        ("ssh: connect to host 192.0.2.7 port 2204: No route to host", "192.0.2.7 port 2204 does not answer"),
        ("Connection timed out during banner exchange\nConnection to 192.0.2.7 port 2204 timed out", "does not answer"),
        ("ssh: Could not resolve hostname 192.0.2.7: Name or service not known", "known for the name 192.0.2.7; correct ansible_host,"),
        ("kex_exchange_identification: Connection closed by remote host", "that is not sshd; correct ansible_host or ansible_port"),
        ("No ED25519 host key is known for [192.0.2.7]:2204 and you have requested strict checking.", "is not known; correct"),
        ("Host key verification failed.", "connect once by `ssh -p 2204 ops@192.0.2.7` and compare the fingerprint"),
        ("Data could not be sent to remote host '192.0.2.7'. Make sure this host can be reached over SSH.", "run `ssh -p 2204 ops@192.0"),
        ("@ WARNING: REMOTE HOST IDENTIFICATION HAS CHANGED! @\nHost key verification failed.", "`ssh-keygen -R '[192.0.2.7]:2204'`"),
    ],
)  # fmt: skip
def test_a_host_that_is_not_reached_has_a_variable_and_a_remedy(text: str, said: str):
    found = problem(f"Failed to connect to the host via ssh: {text}")
    assert found is not None
    assert said in found


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("Missing sudo password", "ops may not become root there without a password; correct ansible_user (hosts.yml:9)"),
        ("Incorrect sudo password", "sudo does not accept this password of ops there; correct ansible_become_password, or"),
        ("Sorry, try again.\nsudo: 3 incorrect password attempts", "sudo does not accept this password of ops there"),
        ("sudo: a password is required", "without a password"),
        ("ops is not in the sudoers file.", "without a password"),
        ("Timeout (7s) waiting for privilege escalation prompt:", "or give the password by --ask-become-pass"),
        ("The module interpreter '/usr/bin/nosuch' was not found.", "does not exist there or is not Python; correct ansible_python"),
        ("Error processing keyword 'port': The value '80a' could not be converted to 'int'.", "2204 is not a port; correct ansible_port"),
        ("Module result deserialization failed: No start of json char found", "or install python3 there"),
    ],
)  # fmt: skip
def test_a_host_on_which_nothing_can_be_run_has_a_variable_and_a_remedy(text: str, said: str):
    found = problem(text, reached=True)
    assert found is not None
    assert said in found


def test_what_the_product_says_of_its_own_connections_is_about_no_host():
    assert problem("connection to server failed: Connection refused", reached=True) is None
    assert problem("something new") is None


@pytest.mark.parametrize(
    ("content", "mode", "said"),
    [
        (None, 0, "which cannot be read (No such file or directory)"),
        (b"ssh-ed25519 AAAA ops\n", 0o600, "which holds the public key"),
        (b"127.0.0.1 localhost\n", 0o600, "which holds no private key"),
        (b"-----BEGIN OPENSSH PRIVATE KEY-----\n", 0o640, "which others may read, so that ssh does not use it; run chmod 600"),
        (b"-----BEGIN OPENSSH PRIVATE KEY-----\n", 0o600, None),
    ],
)
def test_the_file_of_a_key_is_looked_at_before_ssh_does(tmp_path: Path, content: bytes | None, mode: int, said: str | None):
    path = tmp_path / "key"
    if content is not None:
        path.write_bytes(content)
        path.chmod(mode)
    found = key_problem(str(path))
    assert found is None if said is None else said in (found or "")


def unreachable(checkout: Path, task: str) -> None:
    """Have the playbook "test" run a task on a host of which no port is open."""
    (checkout / "playbooks/test.yml").write_text(f"- hosts: one\n  gather_facts: false\n  tasks: [{{name: Ask it, {task}}}]\n")
    (checkout / "inventories/test/host_vars").mkdir()
    (checkout / "inventories/test/host_vars/one.yml").write_text("ansible_connection: ssh\nansible_host: 127.0.0.1\nansible_port: 1\n")


def test_the_summary_of_a_run_says_what_keeps_a_host_from_being_reached(play: Run, checkout: Path):
    # Nothing is sent to ssh, so that Ansible reads what it says also where ssh takes its time to exit.
    unreachable(checkout, "ansible.builtin.raw: 'true'")
    done = play("test")
    assert done.returncode == 4
    assert "one: nothing listens on 127.0.0.1 port 1; correct ansible_host (inventories/test/host_vars/one.yml:2)" in done.stdout


def test_the_summary_says_how_to_learn_why_where_ssh_stops_reading_before_it_exits(play: Run, checkout: Path):
    unreachable(checkout, "ansible.builtin.command: 'true'")
    ssh = checkout / "ssh"
    ssh.write_text("#!/bin/sh\nexec <&-\nsleep 1\necho 'ssh: connect to host 127.0.0.1 port 1: Connection refused' >&2\nexit 255\n")
    ssh.chmod(0o755)
    done = play("test", ANSIBLE_SSH_EXECUTABLE=str(ssh))
    assert done.returncode == 4
    assert "one: ssh to 127.0.0.1 port 1 ended before it took the task, and Ansible does not know why; correct ansible_host" in done.stdout
