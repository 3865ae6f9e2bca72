from __future__ import annotations

import json
import re
import shlex
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
import yaml

from ansible_collections.slipway.stack.plugins.plugin_utils import secret_sources
from ansible_collections.slipway.stack.plugins.plugin_utils.secret_sources import SourceError, read_secrets, settings_in

GOOD = "t7Hq2Lw9Zx4Nv6Bk8Mr3"


def printing(text: str) -> list[str]:
    return ["printf", "%s", text]


def from_command(command: list[str], folder: Path) -> dict[str, Any]:
    return read_secrets(settings_in({"slipway_secrets_source": "command", "slipway_secrets_command": command}), folder)


@pytest.mark.parametrize(
    "printed",
    [
        {"vault_a": GOOD, "note": "another value"},
        {"VAULT_A": GOOD, "DOPPLER_CONFIG": "prod"},
        {"id": "x", "fields": [{"label": "vault_a", "value": GOOD}, {"label": "notesPlain"}]},
        {"fields": [{"name": "vault_a", "value": GOOD, "type": 1}]},
    ],
    ids=["sops", "doppler", "op", "bw"],
)
def test_what_managers_print_is_read(printed: dict[str, Any], tmp_path: Path):
    assert from_command(printing(json.dumps(printed)), tmp_path) == {"vault_a": GOOD}


def test_a_command_runs_in_the_folder_of_the_environment(tmp_path: Path):
    (tmp_path / "secrets.json").write_text(json.dumps({"vault_a": GOOD}))
    assert from_command(["cat", "secrets.json"], tmp_path) == {"vault_a": GOOD}


@pytest.mark.parametrize(
    ("command", "said"),
    [
        (["sh", "-c", f"echo {GOOD}; echo {GOOD} >&2; exit 3"], "slipway_secrets_command: sh ended with status 3"),
        (printing(GOOD), "slipway_secrets_command: printf printed no JSON"),
        (printing(json.dumps([GOOD])), "slipway_secrets_command gives no dictionary"),
        (printing(json.dumps({"a": GOOD})), "slipway_secrets_command gives no secret: names begin with vault_"),
        (printing(json.dumps({"vault_a": GOOD, "VAULT_A": GOOD})), "gives vault_a twice"),
        (printing(f'{{"vault_a": "{GOOD}", "vault_a": "x"}}'), "slipway_secrets_command: it gives vault_a twice: remove one"),
        (
            printing(json.dumps({"fields": [{"label": "vault_a", "value": GOOD}, {"label": "vault_a", "value": "x"}]})),
            "slipway_secrets_command gives vault_a twice: remove one",
        ),
        (["sh", "-c", f"echo {GOOD}; kill $$"], "slipway_secrets_command: sh was ended by signal 15: run it by hand in "),
        (["/nonexistent/op"], "/nonexistent/op cannot be run: No such file or directory"),
    ],
)
def test_a_command_that_gives_no_secrets_is_described_and_what_it_printed_is_not(command: list[str], said: str, tmp_path: Path):
    with pytest.raises(SourceError, match=re.escape(said)) as caught:
        from_command(command, tmp_path)
    assert GOOD not in str(caught.value)


def test_a_command_that_does_not_end_is_ended(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(secret_sources, "SECONDS", 0.5)
    with pytest.raises(SourceError, match=r"sh did not end within 0\.5 seconds: unlock the manager first, or run it by hand in ") as caught:
        from_command(["sh", "-c", f"echo {GOOD}; exec sleep 60"], tmp_path)
    assert GOOD not in str(caught.value)


@pytest.mark.parametrize(
    ("variables", "said"),
    [
        ({"slipway_secrets_source": "doppler"}, "slipway_secrets_source is 'doppler', must be one of vault, command, hashicorp, age"),
        ({"slipway_secrets_source": "command"}, "slipway_secrets_command is not set"),
        (
            {"slipway_secrets_source": "command", "slipway_secrets_command": "op item get"},
            "slipway_secrets_command is 'op item get', must be a list",
        ),
        ({"slipway_secrets_source": "command", "slipway_secrets_command": []}, "slipway_secrets_command is [], must have 1 member or more"),
        ({"slipway_secrets_source": "command", "slipway_secrets_command": ["cat", "{{ x }}"]}, "slipway_secrets_command is a template"),
        ({"slipway_secrets_source": "age", "slipway_secrets_age": {"file": "a"}}, "slipway_secrets_age"),
    ],
)
def test_settings_that_name_no_source_are_refused(variables: dict[str, Any], said: str):
    with pytest.raises(SourceError, match=re.escape(said)):
        settings_in(variables)


class KeyValueStore(BaseHTTPRequestHandler):
    """Answers as the key-value store of HashiCorp Vault does, to one token."""

    def do_POST(self) -> None:
        self.rfile.read(int(self.headers["Content-Length"]))
        self.answer(200, {"auth": {"client_token": "of-the-role"}})

    def do_GET(self) -> None:
        if self.headers.get("X-Vault-Token") not in ("right", "of-the-role"):
            self.answer(403, {"errors": ["permission denied"]})
        elif self.path == "/v1/secret/data/slipway/prod":
            self.answer(200, {"data": {"data": {"vault_a": GOOD}, "metadata": {}}})
        elif self.path.startswith("/v1/secret/data/nonsense"):
            self.answer(200, {"null": None, "empty": {"data": {}}, "list": [], "page": "<html>"}[self.path.rpartition("/")[2]])
        else:
            self.answer(404, {"errors": []})

    def answer(self, status: int, body: Any) -> None:
        data = body.encode() if isinstance(body, str) else json.dumps(body).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def log_message(self, *_arguments: object) -> None:
        """Say nothing."""


@pytest.fixture
def store(monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    pytest.importorskip("hvac")
    server = ThreadingHTTPServer(("127.0.0.1", 0), KeyValueStore)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    monkeypatch.setenv("VAULT_TOKEN", "right")
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    server.server_close()


def from_store(url: str, tmp_path: Path, **more: str) -> dict[str, Any]:
    settings = {"url": url, "path": "slipway/prod", **more}
    return read_secrets(settings_in({"slipway_secrets_source": "hashicorp", "slipway_secrets_hashicorp": settings}), tmp_path)


def test_secrets_of_a_key_value_store_are_read(store: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    assert from_store(store, tmp_path) == {"vault_a": GOOD}
    monkeypatch.setenv("VAULT_TOKEN", "wrong")
    monkeypatch.setenv("VAULT_SECRET_ID", "of the role")
    assert from_store(store, tmp_path, role_id="slipway") == {"vault_a": GOOD}
    with pytest.raises(SourceError, match="refuses to read slipway/prod"):
        from_store(store, tmp_path)


def test_a_key_value_store_without_the_secret_or_without_an_answer_is_described(store: str, tmp_path: Path):
    with pytest.raises(SourceError, match="there is no secret at other of the key-value store secret: correct path, which has neither"):
        from_store(store, tmp_path, path="other")
    with pytest.raises(SourceError, match="gives no answer"):
        from_store("http://127.0.0.1:9", tmp_path)


def test_the_environment_of_openbao_is_as_good_as_that_of_vault(store: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.delenv("VAULT_TOKEN")
    monkeypatch.setenv("BAO_TOKEN", "right")
    monkeypatch.setenv("BAO_ADDR", store)
    monkeypatch.setenv("VAULT_ADDR", "")
    settings = settings_in({"slipway_secrets_source": "hashicorp", "slipway_secrets_hashicorp": {"path": "slipway/prod"}})
    assert read_secrets(settings, tmp_path) == {"vault_a": GOOD}


@pytest.mark.parametrize("kind", ["null", "empty", "list", "page"])
def test_a_key_value_store_that_answers_nonsense_is_described(store: str, tmp_path: Path, kind: str):
    with pytest.raises(SourceError, match=r"slipway_secrets_hashicorp: http.* does not answer as a key-value store, version 2"):
        from_store(store, tmp_path, path=f"nonsense/{kind}")


def test_a_file_of_age_is_decrypted(tmp_path: Path):
    pyrage = pytest.importorskip("pyrage")
    mine, other = (pyrage.x25519.Identity.generate() for _unused in range(2))
    (tmp_path / "secrets.age").write_bytes(pyrage.encrypt(f"vault_a: {GOOD}\n".encode(), [mine.to_public()]))
    settings = settings_in(
        {"slipway_secrets_source": "age", "slipway_secrets_age": {"file": "secrets.age", "identity": str(tmp_path / "key.txt")}}
    )
    (tmp_path / "key.txt").write_text(f"# public key: {mine.to_public()}\n{mine}\n")
    assert read_secrets(settings, tmp_path) == {"vault_a": GOOD}
    (tmp_path / "key.txt").write_text(f"{other}\n")
    with pytest.raises(SourceError, match=r"cannot be decrypted with \S+key.txt: name another identity, or encrypt it for this one"):
        read_secrets(settings, tmp_path)
    (tmp_path / "key.txt").write_text("none\n")
    with pytest.raises(SourceError, match=r"key.txt holds no identity of age"):
        read_secrets(settings, tmp_path)
    for plain, said in ((b"a: [", "neither YAML nor JSON"), (b"\xff", "neither YAML nor JSON"), (b"text", "gives no dictionary")):
        (tmp_path / "key.txt").write_text(f"{mine}\n")
        (tmp_path / "secrets.age").write_bytes(pyrage.encrypt(plain, [mine.to_public()]))
        with pytest.raises(SourceError, match=said):
            read_secrets(settings, tmp_path)
    (tmp_path / "secrets.age").write_bytes(pyrage.encrypt(f"vault_a: {GOOD}\nvault_a: x\n".encode(), [mine.to_public()]))
    with pytest.raises(SourceError, match=r"secrets\.age gives vault_a twice: remove one"):
        read_secrets(settings, tmp_path)
    (tmp_path / "secrets.age").write_text(f"vault_a: {GOOD}\n")
    with pytest.raises(SourceError, match=r"secrets.age is not encrypted with age: encrypt it by") as caught:
        read_secrets(settings, tmp_path)
    assert GOOD not in str(caught.value)
    (tmp_path / "key.txt").unlink()
    with pytest.raises(SourceError, match=r"key\.txt cannot be read: No such file or directory"):
        read_secrets(settings, tmp_path)


@pytest.fixture
def managed(checkout: Path) -> Path:
    """The test environment, whose secrets come from a command; it adds a line to the file "calls" each time."""
    folder = checkout / "inventories/test"
    # Ansible takes files in the folder itself for inventories.
    (checkout / "manager").write_text(f"echo . >>../../calls\necho {shlex.quote(json.dumps({'vault_a': GOOD}))}\n")
    (folder / "group_vars/all/secrets.yml").write_text(
        "slipway_secrets_source: command\nslipway_secrets_command: [sh, ../../manager]\nslipway_secrets: [vault_a]\n"
    )
    return folder


@pytest.mark.usefixtures("managed")
def test_a_manager_is_asked_once_a_run(checkout: Path, play):
    known = f"vault_a == hostvars[item].vault_a == '{GOOD}'"
    assertion = {"ansible.builtin.assert": {"that": known}, "loop": ["one", "two"]}
    elsewhere = {"ansible.builtin.command": "true", "delegate_to": "two"}
    (checkout / "playbooks/once.yml").write_text(
        yaml.safe_dump([{"hosts": hosts, "gather_facts": False, "tasks": [assertion, elsewhere]} for hosts in ("all", "localhost")])
    )
    done = play("once")
    assert done.returncode == 0, done.stdout + done.stderr
    assert (checkout / "calls").read_text() == ".\n"


def test_keys_that_a_manager_lacks_are_named(managed: Path, play):
    done = play("secrets")
    assert done.returncode == 0, done.stdout + done.stderr
    assert "All 1 secrets are set, in slipway_secrets_command" in done.stdout
    settings = managed / "group_vars/all/secrets.yml"
    settings.write_text(settings.read_text().replace("[vault_a]", "[vault_a, vault_b, vault_c]"))
    done = play("secrets")
    assert done.returncode != 0
    assert "slipway_secrets_command has no vault_b, vault_c: create these keys there" in " ".join(done.stdout.split())
    assert not (managed / "group_vars/all/vault.yml").exists()


@pytest.mark.usefixtures("managed")
def test_a_manager_that_fails_stops_the_run_before_anything_else(checkout: Path, play):
    (checkout / "manager").write_text(f"echo {GOOD}; echo {GOOD} >&2; exit 1\n")
    done = play("site")
    assert done.returncode != 0
    assert (
        "slipway_secrets_command: sh ended with status 1: run it by hand in inventories/test to see why. Nothing was touched"
        in " ".join((done.stdout + done.stderr).split())
    )
    assert GOOD not in done.stdout + done.stderr
    # It is a refusal as any other, and not about notifications, which were not read either.
    assert re.search(r"^site: failed in ", done.stdout, re.MULTILINE)
    assert "slipway_notify" not in done.stdout + done.stderr


def test_a_secret_that_the_environment_sets_as_well_is_refused(managed: Path, play):
    (managed / "group_vars/all/vault.yml").write_text(f"vault_a: {GOOD}\n")
    done = play("secrets")
    assert done.returncode != 0
    said = " ".join((done.stdout + done.stderr).split())
    assert re.search(r"vault_a of slipway_secrets_command would not count, as \S*vault.yml:1 sets the same: remove it there", said)
