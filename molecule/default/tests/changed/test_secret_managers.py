"""Secrets that a manager has: age, sops, and OpenBao, which speaks as HashiCorp Vault does. All are the programs themselves."""

from __future__ import annotations

import json
import os
import shutil
import socket
import subprocess
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
import yaml
from slipway_lab import Lab, LabHost, Run, programs_of, wait_until

pytestmark = pytest.mark.extended("managers")
MANAGERS = ("age", "sops", "openbao", "openbao-role")
STORE = "secret/slipway/prod"


@dataclass
class Manager:
    """What an environment sets to use a manager, and what its users export."""

    source: str
    settings: Any
    exported: dict[str, str] = field(default_factory=dict)

    def variables(self, settings: Any = None) -> dict[str, Any]:
        return {"slipway_secrets_source": self.source, f"slipway_secrets_{self.source}": settings or self.settings}


@dataclass
class Bao:
    """A server of OpenBao in memory, with TLS of its own, and the secrets of the lab."""

    program: Path
    exported: dict[str, str]
    role: str = ""
    secret_id: str = ""

    def ask(self, *arguments: str, given: str = "") -> str:
        environment = {**os.environ, **self.exported}
        return subprocess.run([self.program, *arguments], env=environment, input=given, capture_output=True, text=True, check=True).stdout


@pytest.fixture(scope="module")
def programs() -> Path:
    return programs_of("managers")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("managers")


@pytest.fixture(scope="module")
def recipient(lab: Lab, folder: Path) -> str:
    """The public key of age for which files are encrypted; its identity is in the folder, and so is one of another person."""
    host: LabHost = lab.balancer
    host.need("age")
    for name in ("mine", "other"):
        (folder / name).write_text(host.run("age-keygen 2>/dev/null"))
    return next(line.split()[-1] for line in (folder / "mine").read_text().splitlines() if "public key" in line)


@pytest.fixture(scope="module")
def bao(lab: Lab, programs: Path, folder: Path) -> Iterator[Bao]:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{probe.getsockname()[1]}"
    exported = {"VAULT_ADDR": f"https://{address}", "VAULT_CACERT": str(folder / "vault-ca.pem"), "VAULT_TOKEN": "of-the-test"}
    made = Bao(programs / "bao", exported | {"HOME": str(folder)})
    options = ["-dev-tls", f"-dev-tls-cert-dir={folder}", f"-dev-root-token-id={exported['VAULT_TOKEN']}", "-dev-no-store-token"]
    with (folder / "bao.log").open("w") as log:
        command = [made.program, "server", "-dev", *options, f"-dev-listen-address={address}"]
        server = subprocess.Popen(command, stdout=log, stderr=log, env={**os.environ, "HOME": str(folder)})
    try:
        wait_until(lambda: "Development mode" in (folder / "bao.log").read_text(), 60, "OpenBao listens")
        made.ask("kv", "put", STORE, "-", given=json.dumps(lab.secrets))
        made.ask("secrets", "enable", "-path=former", "-version=1", "kv")
        made.ask("kv", "put", "former/prod", "-", given=json.dumps(lab.secrets))
        made.ask("policy", "write", "slipway", "-", given='path "secret/data/slipway/prod" { capabilities = ["read"] }')
        made.ask("auth", "enable", "approle")
        made.ask("write", "auth/approle/role/slipway", "token_policies=slipway")
        made.role = made.ask("read", "-field=role_id", "auth/approle/role/slipway/role-id")
        made.secret_id = made.ask("write", "-force", "-field=secret_id", "auth/approle/role/slipway/secret-id")
        yield made
    finally:
        server.terminate()
        server.wait(10)


def encrypted_by_sops(programs: Path, folder: Path, recipient: str, secrets: dict[str, str]) -> str:
    """Write secrets into a file of sops, as YAML, and return its path."""
    plain, path = folder / "plain.yml", folder / f"{len(secrets)}.sops.yml"
    plain.write_text(yaml.safe_dump(secrets))
    done = subprocess.run([programs / "sops", "encrypt", "--age", recipient, plain], capture_output=True, text=True, check=True)
    plain.unlink()
    path.write_text(done.stdout)
    return str(path)


@pytest.fixture(scope="module")
def managers(lab: Lab, programs: Path, folder: Path, recipient: str, bao: Bao) -> dict[str, Manager]:
    text = yaml.safe_dump(lab.secrets)
    encrypted = lab.balancer.run(f"age --armor --recipient {recipient} <<'END'\n{text}END")
    (folder / "secrets.age").write_text(encrypted)
    sops = encrypted_by_sops(programs, folder, recipient, lab.secrets)
    exported = {name: value for name, value in bao.exported.items() if name != "HOME"}
    of_role = {**exported, "VAULT_SECRET_ID": bao.secret_id, "VAULT_TOKEN": ""}
    return {
        "age": Manager("age", {"file": str(folder / "secrets.age"), "identity": str(folder / "mine")}),
        "sops": Manager(
            "command", [str(programs / "sops"), "decrypt", "--output-type", "json", sops], {"SOPS_AGE_KEY_FILE": str(folder / "mine")}
        ),
        "openbao": Manager("hashicorp", {"path": "slipway/prod"}, exported),
        "openbao-role": Manager("hashicorp", {"path": "slipway/prod", "role_id": bao.role}, of_role),
    }


@pytest.fixture
def deploy(lab: Lab, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[..., Run]]:
    """Deploy from a copy of the lab's environment that has a manager instead of its vault."""
    copy = lab.inventory.with_name(f"{lab.name}-managed")
    shutil.rmtree(copy, ignore_errors=True)
    shutil.copytree(lab.inventory, copy, symlinks=True)
    (copy / "group_vars/all/vault.yml").unlink()

    def run(manager: Manager, settings: Any = None, **exported: str) -> Run:
        for name, value in {**manager.exported, **exported}.items():
            monkeypatch.setenv(name, value)
        (copy / "group_vars/all/secrets.yml").write_text(json.dumps(manager.variables(settings)))
        done = lab.playbook("site", inventory=copy)
        assert not [name for name, value in lab.secrets.items() if value in done.output], "the output shows a secret"
        return done

    yield run
    shutil.rmtree(copy)


def refused(run: Run, *said: str) -> None:
    """A run must have ended with these words before it touched anything."""
    text = " ".join(run.output.split())
    assert run.returncode != 0
    assert run.changed == []
    assert all(part in text for part in said), run.excerpt
    assert "Traceback" not in text


@pytest.mark.parametrize("name", MANAGERS)
def test_what_runs_was_made_of_the_secrets_that_a_manager_gives(managers: dict[str, Manager], deploy: Callable[..., Run], name: str):
    done = deploy(managers[name])
    assert done.returncode == 0, done.excerpt
    assert done.changed == []


def test_age_without_the_identity_stops_the_run(managers: dict[str, Manager], deploy: Callable[..., Run], folder: Path):
    age = managers["age"]
    other = {**age.settings, "identity": str(folder / "other")}
    refused(deploy(age, other), "cannot be decrypted with", "name another identity, or encrypt it for this one too")
    refused(deploy(age, {**other, "identity": age.settings["file"]}), "holds no identity of age")
    refused(deploy(age, {**age.settings, "file": other["identity"]}), "is not encrypted with age")


def test_sops_without_its_key_or_a_secret_stops_the_run(
    lab: Lab, managers: dict[str, Manager], deploy: Callable[..., Run], programs: Path, folder: Path, recipient: str
):
    sops = managers["sops"]
    refused(deploy(sops, SOPS_AGE_KEY_FILE=str(folder / "other")), "sops ended with status 128: run it by hand in inventories/")
    without_format = [part for part in sops.settings if part not in ("--output-type", "json")]
    refused(deploy(sops, without_format), "sops printed no JSON", "ask for JSON")
    fewer = {name: value for name, value in lab.secrets.items() if name != "vault_app_secret_key"}
    lacking = [*sops.settings[:-1], encrypted_by_sops(programs, folder, recipient, fewer)]
    refused(deploy(sops, lacking), "vault_app_secret_key is not set; add a key of that name to what slipway_secrets_command reads")


def test_openbao_that_refuses_stops_the_run(managers: dict[str, Manager], deploy: Callable[..., Run], bao: Bao):
    by_token, by_role = managers["openbao"], managers["openbao-role"]
    refused(deploy(by_role, VAULT_SECRET_ID="wrong"), "refuses to read slipway/prod: check role_id, VAULT_SECRET_ID")
    refused(deploy(by_token, VAULT_TOKEN="wrong"), "refuses to read slipway/prod: log in, and check the token's policy")
    refused(deploy(by_token, {"path": "secret/data/slipway/prod"}), "there is no secret at secret/data/slipway/prod", "correct path")
    refused(deploy(by_token, {"path": "prod", "mount": "former"}), "there is no secret at prod", "the store must have version 2")
    refused(deploy(by_token, VAULT_CACERT=""), "gives no answer to use (SSLError): check its address, VAULT_CACERT")
    # The last one: a server in memory cannot be unsealed.
    bao.ask("operator", "seal")
    refused(deploy(by_token), "gives no answer to use (VaultDown)", "whether it is sealed")
