# Copyright (c) The Slipway authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Certificates of an ACME authority: what a run refuses, what the client gets from pebble, and what a host does with it."""

from __future__ import annotations

import contextlib
import http.server
import json
import os
import re
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from cryptography import x509

import host_metrics
import slipway_acme_host
from ansible_collections.slipway.stack.plugins.module_utils import config_files, container_copy
from ansible_collections.slipway.stack.plugins.plugin_utils import acme
from conftest import ROOT, ansible, role_variable
from test_nginx_served import docker, serving
from test_roles_nginx import self_signed

CLIENT, AUTHORITY = "slipway/acme-client:1", "slipway-lab/pebble:1"
NAMES = ["shop.example", "docs.example"]
DIRECTORY = "https://acme.example/directory"
SECRET = "a-secret-of-the-vault-1234"
NO_FILES = {"acme_ca_file": "", "acme_dns_hook": ""}


def test_the_account_follows_from_its_secret_alone():
    assert acme.account(SECRET) == acme.account(SECRET)
    assert acme.account(SECRET)["thumbprint"] != acme.account(SECRET + "5")["thumbprint"]


def test_a_name_with_a_dot_in_front_is_two_names():
    assert acme.names(["a.example", ".b.example", "b.example"]) == ["a.example", "b.example", "*.b.example"]


@pytest.mark.parametrize(
    ("changed", "says"),
    [
        ({}, ""),
        ({"eab_key_id": "k"}, "acme_eab_key_id is set, and acme_eab_hmac_key is not: set both"),
        ({"eab_hmac_key": "k"}, "acme_eab_hmac_key is set, and acme_eab_key_id is not: set both"),
        ({"eab_key_id": "k", "eab_hmac_key": "a_-="}, ""),
        ({"eab_key_id": "k", "eab_hmac_key": "a+/="}, "acme_eab_hmac_key is not in base64url"),
        ({"eab_key_id": "k", "eab_hmac_key": "a_-\n"}, "acme_eab_hmac_key is not in base64url"),
        ({"asked": ["*.shop.example"]}, "*.shop.example needs validation by DNS: set acme_dns_hook"),
        (
            {"asked": ["~^a", "www.*", "::1", "10.0.0.1", "localhost"]},
            "issues a certificate for ~^a, www.*, ::1, 10.0.0.1, localhost: write",
        ),
        ({"directory_url": "https://acme-v02.api.letsencrypt.org/directory", "balancers": 5}, "Let's Encrypt issues five in a week"),
        ({"balancers": 5}, ""),
        ({"files": {**NO_FILES, "acme_ca_file": "/no/ca.pem"}}, "acme_ca_file: there is no file /no/ca.pem on the controller"),
        ({"asked": ["*.shop.example"], "files": {**NO_FILES, "acme_dns_hook": __file__}}, ""),
    ],
)
def test_inputs_that_no_authority_takes_are_refused(changed: dict[str, Any], says: str):
    inputs = {"asked": NAMES, "directory_url": DIRECTORY, "eab_key_id": "", "eab_hmac_key": "", "balancers": 2, "files": NO_FILES}
    found = acme.mistakes(**{**inputs, **changed})
    assert len(found) == bool(says), found
    assert says in "".join(found)


@contextlib.contextmanager
def answering(status: int, text: str) -> Iterator[str]:
    """Serve one answer, with the status 0 one that is not of HTTP; yields its URL."""

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            if status:
                self.send_response(status)
                self.end_headers()
            self.wfile.write(text.encode())

        def log_message(self, *_arguments: Any) -> None:
            pass

    with http.server.HTTPServer(("127.0.0.1", 0), Handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}/directory"
        server.shutdown()


@pytest.mark.parametrize(
    ("status", "text", "says"),
    [
        (200, json.dumps(dict.fromkeys(acme.RESOURCES, "https://a.example")), ""),
        (200, "<html>Sign in</html>", "names no URL for newNonce, newAccount, newOrder; it answers '<html>Sign in</html>'"),
        (200, '{"newNonce": "https://a.example"}', "names no URL for newAccount, newOrder"),
        (200, '{"newNonce": null, "newAccount": 1, "newOrder": []}', "names no URL for newNonce, newAccount, newOrder"),
        (
            200,
            '{"newNonce": "/nonce", "newAccount": "https://[::1", "newOrder": "ftp://a.example"}',
            "no URL for newNonce, newAccount, newOrder",
        ),
        (200, "[]", "names no URL for newNonce"),
        (200, "[" * 60000, "names no URL for newNonce"),
        (404, "", "answers 404"),
        (0, "SSH-2.0-OpenSSH_9.6\r\n", "cannot be read (BadStatusLine: SSH-2.0-OpenSSH_9.6): correct the URL"),
        (0, "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\n{", "cannot be read (IncompleteRead: "),
        (0, "", "cannot be read (RemoteDisconnected: "),
    ],
)
def test_a_directory_that_is_none_is_refused_with_its_answer(status: int, text: str, says: str):
    # Another test may have had the port.
    acme._directory_problem.cache_clear()
    with answering(status, text) as url:
        found = acme.obstacles([], [], url, "")
    assert acme.obstacles([], [], url, "") == found, "it was asked once"
    assert len(found) == bool(says), found
    assert says in "".join(found)
    assert all(url in text for text in found)


def test_an_url_that_cannot_be_asked_is_refused():
    (found,) = acme.obstacles([], [], "http://exa mple/", "")
    assert found.startswith("acme_directory_url: http://exa mple/ cannot be read (InvalidURL: ")


@pytest.mark.parametrize(
    ("addresses", "says"),
    [
        (["192.0.2.1"], ""),
        (["192.0.2.1", "192.0.2.2", "2001:db8::1"], ""),
        (
            ["192.0.2.9"],
            "shop.example is 192.0.2.9 in the DNS, and no balancer has that address (192.0.2.1, 192.0.2.2, 2001:db8::1): correct",
        ),
        # An authority takes one of them, and Let's Encrypt that of IPv6.
        (["192.0.2.1", "2001:db8::9"], "shop.example is 2001:db8::9 in the DNS"),
        (["192.0.2.9", "2001:db8::1"], "shop.example is 192.0.2.9 in the DNS"),
        (["192.0.2.1", "192.0.2.8", "192.0.2.9"], "shop.example is 192.0.2.8, 192.0.2.9 in the DNS"),
        ([], "shop.example has no address in the DNS"),
    ],
)
def test_a_name_must_lead_to_balancers_alone(monkeypatch: pytest.MonkeyPatch, addresses: list[str], says: str):
    known = {"shop.example": addresses, "lb1": ["192.0.2.1", "2001:db8::1"], "192.0.2.2": ["192.0.2.2"]}

    def lookup(host: str, *_arguments: Any, **_options: Any) -> list[Any]:
        if not known.get(host):
            raise OSError("unknown")
        return [(0, 0, 0, "", (address, 80)) for address in known[host]]

    monkeypatch.setattr(acme.socket, "getaddrinfo", lookup)
    monkeypatch.setattr(acme, "_directory_problem", lambda *_arguments: "")
    acme._addresses.cache_clear()
    found = acme.obstacles(["shop.example"], ["lb1", "192.0.2.2"], DIRECTORY, "")
    acme._addresses.cache_clear()
    assert len(found) == bool(says), found
    assert says in "".join(found)


def test_what_balancers_have_themselves_is_theirs_in_the_dns_too():
    """An inventory names a host by one address."""
    addresses = {"lb1": ["127.0.0.1", "192.0.2.1", "2001:db8::1"], "lb2": ["192.0.2.2"]}
    hostvars = {host: {"container_service_host_state": {"host": {"addresses": own}}} for host, own in addresses.items()}
    # One that the run does not reach.
    hostvars["lb3"] = {}
    found = role_variable("acme", "__acme_addresses", {"groups": {"balancers": list(hostvars)}, "hostvars": hostvars})
    assert found == ["192.0.2.1", "2001:db8::1", "192.0.2.2"]


@pytest.mark.parametrize(
    ("names", "state", "shown"),
    [
        (NAMES, json.dumps({"names": NAMES[:1], "directory_url": DIRECTORY}), True),
        (NAMES, json.dumps({"names": NAMES[::-1], "directory_url": DIRECTORY}), False),
        # A crash of the host has damaged it.
        (NAMES, "{", True),
    ],
)
def test_a_dry_run_shows_a_certificate_that_would_be_issued(checkout: Path, names: list[str], state: str, shown: bool):
    files = {"/etc/slipway/slipway/acme/state/certificate.json": {"content": state}}
    # The rest of the role needs an engine.
    tasks = yaml.safe_load((checkout / "roles/acme/tasks/main.yml").read_text())
    (task,) = [task for task in tasks if task["name"] == "Show that a certificate would be issued"]
    (checkout / "roles/acme/tasks/main.yml").write_text(yaml.safe_dump([task]))
    variables = {"acme_names": names, "acme_directory_url": DIRECTORY, "container_service_host_state": {"files": files}}
    included = {"ansible.builtin.include_role": {"name": "slipway.stack.acme"}}
    play = {"hosts": "one", "gather_facts": False, "tasks": [included], "vars": variables}
    (checkout / "playbooks/try.yml").write_text(yaml.safe_dump([play]))
    run = ansible("ansible-playbook", "-i", "inventories/test", "playbooks/try.yml", "--check", cwd=checkout)
    assert run.returncode == 0, run.stdout + run.stderr
    assert ("changed=1" in run.stdout) is shown, run.stdout
    assert ("would be asked for a certificate for shop.example, docs.example" in " ".join(run.stdout.split())) is shown


# Closes the account of the client's key, as its owner does who has lost it.
DEACTIVATE = """
import sys
sys.path.insert(0, "/etc/slipway/current")
import json, os, slipway_acme
os.environ["REQUESTS_CA_BUNDLE"] = "/etc/slipway/current/ca.crt"
authority = slipway_acme.connect(json.loads((slipway_acme.CONFIG / "acme.json").read_text()))
authority.deactivate_registration(authority.net.account)
"""


class Authority:
    """Pebble, next to a balancer on its network, with a DNS in which all names lead to that."""

    def __init__(self, folder: Path, balancer: str) -> None:
        self.folder, self.network, self.name, self.dns = folder, balancer, f"{balancer}-pebble", f"{balancer}-dns"
        address = "{{range .NetworkSettings.Networks}}{{.IPAddress}}{{end}}"
        answers = ["-defaultIPv4", docker("inspect", "--format", address, balancer), "-defaultIPv6", "", "-doh", ""]
        docker(
            "run", "--detach", "--name", self.dns, "--network", self.network, "--network-alias", "dns", AUTHORITY,
            "pebble-challtestsrv", *answers, "-http01", "", "-https01", "", "-tlsalpn01", "",
        )  # fmt: skip
        self._dns_address = docker("inspect", "--format", address, self.dns)

    def stop(self) -> None:
        subprocess.run(["docker", "rm", "--force", self.name, self.dns], capture_output=True, check=False)

    def start(self, external: dict[str, str] | None = None, **environment: str) -> None:
        """Start it, again with other settings."""
        subprocess.run(["docker", "rm", "--force", self.name], capture_output=True, check=False)
        request = ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-days", "2"]
        request += ["-subj", "/CN=pebble", "-addext", "subjectAltName=DNS:pebble"]
        if not (self.folder / "ca.pem").exists():
            subprocess.run(
                [*request, "-keyout", str(self.folder / "ca.key"), "-out", str(self.folder / "ca.pem")], check=True, capture_output=True
            )
        settings = {
            "listenAddress": "0.0.0.0:443",
            "managementListenAddress": "0.0.0.0:15000",
            "certificate": "/pebble/ca.pem",
            "privateKey": "/pebble/ca.key",
            "httpPort": 8080,
            "tlsPort": 8443,
            "externalAccountBindingRequired": bool(external),
            "externalAccountMACKeys": external or {},
            "domainBlocklist": ["blocked-domain.example"],
        }
        (self.folder / "pebble.json").write_text(json.dumps({"pebble": settings}))
        for file in self.folder.iterdir():
            file.chmod(0o444)
        # Each order is validated, and soon.
        settled = {"PEBBLE_VA_NOSLEEP": "1", "PEBBLE_WFE_NONCEREJECT": "0", "PEBBLE_AUTHZREUSE": "0", **environment}
        options = [part for name, value in settled.items() for part in ("--env", f"{name}={value}")]
        docker(
            "run", "--detach", "--name", self.name, "--network", self.network, "--network-alias", "pebble", *options,
            "-v", f"{self.folder}:/pebble:ro", AUTHORITY, "pebble", "-config", "/pebble/pebble.json",
            "-dnsserver", f"{self._dns_address}:8053",
        )  # fmt: skip

        deadline = time.monotonic() + 30
        while "Listening on" not in self.log():
            assert time.monotonic() < deadline, self.log()
            time.sleep(0.1)

    def log(self) -> str:
        """Return what it has written."""
        done = subprocess.run(["docker", "logs", self.name], capture_output=True, text=True, check=False)
        return done.stdout + done.stderr

    def ask(self, folder: Path, program: str = "", **inputs: Any) -> tuple[int, str]:
        """Run the client, or another program in its place; return its status and the last line that it wrote."""
        return ask(folder, self.network, program, **{"acme_ca_file": str(self.folder / "ca.pem"), **inputs})


def ask(folder: Path, network: str, program: str = "", stdin: str = "", **inputs: Any) -> tuple[int, str]:
    """Run the client as role acme declares it, or another program; return its status and the last line that it wrote."""
    given = {
        "acme_names": NAMES,
        "acme_directory_url": "https://pebble/dir",
        "acme_account_secret": SECRET,
        "role_path": str(ROOT / "roles/acme"),
        **inputs,
    }
    client = role_variable("acme", "__acme_client", given)
    for kind, place in (("config", "etc/current"), ("secrets", "secrets"), ("", "issued")):
        (folder / place).mkdir(parents=True, exist_ok=True)
        (folder / place).chmod(0o777)
        for name, item in client.get(kind, {}).items():
            (folder / place / name).parent.mkdir(parents=True, exist_ok=True)
            (folder / place / name).write_text(item["content"])
    done = subprocess.run(
        [
            "docker", "run", "--rm", "--interactive", "--read-only", "--cap-drop", "ALL", "--network", network, "--tmpfs", "/tmp",
            "-v", f"{folder}/etc:/etc/slipway:ro", "-v", f"{folder}/secrets:/run/secrets:ro", "-v", f"{folder}/issued:/issued:rw",
            *(["--entrypoint", "python3", client["image"], "-c", program] if program else [client["image"]]),
        ],
        input=stdin, capture_output=True, text=True, check=False,
    )  # fmt: skip
    return done.returncode, (done.stderr.strip().splitlines() or [""])[-1]


def needs(*images: str) -> None:
    """Skip a test without an engine that has some images."""
    for image in images:
        if subprocess.run(["docker", "image", "inspect", image], capture_output=True, check=False).returncode:
            pytest.skip(f"no engine with {image}")


# Answers each request with a file of its case, and runs the client.
ANSWERING = """
import http.server, io, json, sys, threading
from contextlib import redirect_stderr
sys.path.insert(0, "/etc/slipway/current")
import slipway_acme

class Handler(http.server.BaseHTTPRequestHandler):
    def do(self):
        self.rfile.read(int(self.headers.get("Content-Length") or 0))
        _empty, case, what = self.path.split("/")
        body = cases[case].get(what, "").replace("URL", f"{url}/{case}").encode()
        self.send_response(200)
        for name, value in (("Replay-Nonce", "AAAABBBB"), ("Location", f"{url}/{case}/order"), ("Content-Length", str(len(body)))):
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(b"" if self.command == "HEAD" else body)

    do_GET = do_POST = do_HEAD = do

    def log_message(self, *_arguments):
        pass

cases, messages = json.loads(sys.stdin.read()), {}
server = http.server.HTTPServer(("127.0.0.1", 0), Handler)
threading.Thread(target=server.serve_forever, daemon=True).start()
url = f"http://127.0.0.1:{server.server_port}"
config = json.loads((slipway_acme.CONFIG / "acme.json").read_text())
slipway_acme.CONFIG = slipway_acme.Path("/tmp")
for case in cases:
    (slipway_acme.CONFIG / "acme.json").write_text(json.dumps({**config, "directory_url": f"{url}/{case}/directory"}))
    with redirect_stderr(io.StringIO()) as errors:
        slipway_acme.main()
    messages[case] = errors.getvalue().replace(url, "URL")
print(json.dumps(messages), file=sys.stderr)
"""
DIRECTORY_TEXT = json.dumps({f"new{what.capitalize()}": f"URL/{what}" for what in ("nonce", "account", "order")})


def test_what_answers_as_no_authority_does_is_named_with_its_url_in_one_line(tmp_path: Path):
    needs(CLIENT)
    texts = {"html": "<html>", "list": "[]", "string": '"x"', "number": "7", "null": "null", "object": "{}", "deep": "[" * 60000}
    there = {"directory": DIRECTORY_TEXT, "account": '{"status": "valid"}'}
    ready = json.dumps({"status": "valid", "finalize": "URL/order", "certificate": "URL/certificate", "authorizations": []})
    cases = {
        **{f"directory-{name}": {"directory": text} for name, text in texts.items()},
        **{f"account-{name}": {**there, "account": text} for name, text in texts.items()},
        **{f"order-{name}": {**there, "order": text} for name, text in texts.items()},
        **{f"certificate-{name}": {**there, "order": ready, "certificate": text} for name, text in texts.items()},
        "meta": {"directory": '{"meta": []}'},
        "numbers": {"directory": '{"newNonce": 1, "newAccount": 2, "newOrder": 3}'},
    }
    code, line = ask(tmp_path, "none", ANSWERING, json.dumps(cases))
    assert code == 0, line
    wrong = {
        case: text
        for case, text in json.loads(line).items()
        if not text.startswith(f"URL/{case}/directory does not answer as an ACME authority: ") or text.count("\n") != 1
    }
    assert wrong == {}


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Authority]:
    needs(CLIENT, AUTHORITY)
    folder = tmp_path_factory.mktemp("acme")
    inputs = {
        "nginx_tls_mode": "acme",
        "nginx_acme_thumbprint": acme.account(SECRET)["thumbprint"],
        "nginx_server_names": NAMES[:1],
        "nginx_redirects": [{"from": NAMES[1], "to": NAMES[0]}],
        "nginx_refuse_unknown_names": True,
        "nginx_tls_ca_dir": str(folder / "pki"),
    }
    (folder / "pki").mkdir()
    self_signed(folder / "pki/server.key", folder / "pki/server.pem")
    (folder / "pebble").mkdir()
    with serving(folder, inputs) as balancer:
        found = Authority(folder / "pebble", balancer.container)
        try:
            found.start()
            yield found
        finally:
            found.stop()


def test_an_authority_issues_a_certificate_for_all_names_more_than_once(authority: Authority, tmp_path: Path):
    keys = set()
    for _attempt in range(2):
        assert authority.ask(tmp_path) == (0, "")
        certificate = x509.load_pem_x509_certificate((tmp_path / "issued/server.pem").read_bytes())
        names = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value.get_values_for_type(x509.DNSName)
        assert sorted(names) == sorted(NAMES)
        assert json.loads((tmp_path / "issued/times.json").read_text())["ends"] == certificate.not_valid_after_utc.timestamp()
        keys.add((tmp_path / "issued/server.key").read_text())
    assert len(keys) == 2, "each certificate has a key of its own"


@pytest.mark.parametrize(
    ("inputs", "says"),
    [
        # The balancers answer for another account.
        ({"acme_account_secret": SECRET + "5"}, "the authority could not validate "),
        ({"acme_names": ["shop.example", "blocked-domain.example"]}, "the authority refuses the order: "),
        ({"acme_directory_url": "https://pebble/nonsense"}, "https://pebble/nonsense does not answer as an ACME authority: "),
        ({"acme_directory_url": "https://absent.example/"}, "https://absent.example/ does not answer as an ACME authority: "),
        ({"acme_ca_file": ""}, "https://pebble/dir does not answer as an ACME authority: "),
    ],
)
def test_what_goes_wrong_is_reported_and_leaves_nothing(authority: Authority, tmp_path: Path, inputs: dict[str, Any], says: str):
    code, line = authority.ask(tmp_path, **inputs)
    assert (code, line.startswith(says)) == (1, True), line
    assert list((tmp_path / "issued").iterdir()) == []


def test_an_authority_that_takes_too_long_is_given_up(authority: Authority, tmp_path: Path):
    authority.start(PEBBLE_VA_NOSLEEP="0", PEBBLE_VA_SLEEPTIME="60")
    try:
        assert authority.ask(tmp_path, acme_timeout=2) == (1, "the authority has not issued the certificate within 2 s: raise acme_timeout")
    finally:
        authority.start()


def test_an_account_that_was_closed_is_named(authority: Authority, tmp_path: Path):
    assert authority.ask(tmp_path, DEACTIVATE) == (0, "")
    try:
        code, line = authority.ask(tmp_path)
        assert (code, line.startswith("https://pebble/dir refuses the account of vault_acme_account_key: ")) == (1, True), line
    finally:
        authority.start()


@pytest.mark.parametrize("token", ["right", "wrong"])
def test_a_hook_makes_and_removes_the_records_of_a_wildcard(authority: Authority, tmp_path: Path, token: str):
    hook = tmp_path / "hook"
    hook.write_text(
        "#!/bin/sh -e\n"
        'echo "$1 $2 ${#3}" >>/issued/calls\n'
        '[ "$TOKEN $TTL" = "the-right-token 60" ] || { echo "the token $TOKEN is wrong" >&2; exit 3; }\n'
        "case $1 in add) path=set-txt ;; remove) path=clear-txt ;; esac\n"
        'curl --silent --fail --data "{\\"host\\": \\"$2.\\", \\"value\\": \\"$3\\"}" "http://dns:8055/$path"\n'
    )
    names = ["*.shop.example", "shop.example"]
    code, line = authority.ask(
        tmp_path, acme_names=names, acme_dns_hook=str(hook), acme_dns_environment={"TOKEN": f"the-{token}-token", "TTL": 60}
    )
    calls = (tmp_path / "issued/calls").read_text().splitlines()
    assert set(calls) == {f"{what} _acme-challenge.shop.example 43" for what in ("add", "remove")}
    if token == "right":
        assert (code, line) == (0, "")
        assert len(calls) == 4
    else:
        assert code == 1
        assert "acme_dns_hook add _acme-challenge.shop.example ended with status 3: the token … is wrong" in line


def test_an_order_that_is_ended_from_outside_leaves_no_record(authority: Authority, tmp_path: Path):
    hook = tmp_path / "hook"
    hook.write_text('echo "$1" >>/issued/calls\n[ "$1" = remove ] || { kill 1; sleep 30; }\n')
    assert authority.ask(tmp_path, acme_names=["shop.example"], acme_dns_hook=str(hook))[0] == 1
    assert (tmp_path / "issued/calls").read_text().split() == ["add", "remove"]


def test_an_authority_that_wants_a_binding_gets_it(authority: Authority, tmp_path: Path):
    key = "zWNDZM6eQGHWpSRTPal5eIUYFTu7EajVIoguysqZ9wG44nMEtx3MUAsUDkMTQ12W"
    authority.start({"kid-1": key})
    try:
        code, line = authority.ask(tmp_path)
        assert (code, "set acme_eab_key_id and acme_eab_hmac_key" in line) == (1, True), line
        assert authority.ask(tmp_path, acme_eab_key_id="kid-1", acme_eab_hmac_key=key) == (0, "")
    finally:
        authority.start()


class FakeEngine:
    """Nginx of a host, with a volume for certificates."""

    def __init__(self, volume: Path) -> None:
        self.place, self.ran, self.refuses = volume, list[list[str]](), False

    def get(self, _path: str) -> dict[str, str]:
        return {"Mountpoint": str(self.place)}

    def inspect(self, _container: str) -> dict[str, Any]:
        return {"Config": {"Labels": {"slipway.uid": str(os.getuid())}}}

    def execute(self, _container: str, argv: list[str]) -> tuple[int, str, str]:
        self.ran.append(argv)
        return (1, "", "refused") if self.refuses else (0, "", "")


@pytest.fixture
def renewal(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> slipway_acme_host.Renewal:
    """A host whose client and nginx do what a test says."""
    monkeypatch.setattr(slipway_acme_host, "STACKS", tmp_path)
    monkeypatch.setattr(config_files.os, "chown", lambda *_arguments: None)
    (tmp_path / "shop/acme").mkdir(parents=True)
    (tmp_path / "volume").mkdir()
    config = {"stack": "shop", "names": NAMES, "directory_url": DIRECTORY, "volume": "v", "timeout": 30}
    found = slipway_acme_host.Renewal(config, FakeEngine(tmp_path / "volume"))
    found.order = lambda: issued(90)  # type: ignore[method-assign]
    found.wait_for_nginx = lambda: None  # type: ignore[method-assign]
    return found


def issued(days: int, age: int = 0, text: str = "c") -> dict[str, bytes]:
    """Return what the client leaves of a certificate."""
    begins = time.time() - age * 86400
    times = json.dumps({"begins": begins, "ends": begins + days * 86400}).encode()
    return {"server.pem": text.encode(), "server.key": b"k", "times.json": times}


def measured(stacks: Path) -> dict[str, float]:
    """Return what Prometheus gets of the renewals: the watchdog collects it for the exporters."""
    (text,) = host_metrics.texts(stacks / "shop", stacks / "shop/watchdog/state", []).values()
    return {name: float(value) for name, value in re.findall(r'^slipway_acme_(\w+)\{stack="shop"\} (\S+)$', text, flags=re.MULTILINE)}


@pytest.mark.parametrize(
    ("days", "age", "due"), [(90, 0, False), (90, 59, False), (90, 61, True), (6, 3, False), (6, 5, True), (90, 100, True)]
)
def test_a_certificate_is_renewed_in_its_last_third(renewal: slipway_acme_host.Renewal, days: int, age: int, due: bool):
    renewal.order = lambda: issued(days, age)  # type: ignore[method-assign]
    assert renewal.renew()
    assert renewal.is_due() is due


@pytest.mark.parametrize("left", ["", "{", "[]", "5", '{"names": 5}'])
def test_a_damaged_record_of_the_last_renewal_is_as_none(renewal: slipway_acme_host.Renewal, left: str):
    renewal.renew()
    (renewal.folder / "certificate.json").write_text(left)
    assert renewal.renew()
    assert not renewal.renew()


@pytest.mark.parametrize("changed", [{"names": NAMES[:1]}, {"directory_url": "https://other.example/"}])
def test_a_certificate_for_other_names_or_from_elsewhere_is_renewed_at_once(renewal: slipway_acme_host.Renewal, changed: dict[str, Any]):
    renewal.renew()
    renewal.config |= {"names": NAMES[::-1]}
    assert not renewal.renew()
    renewal.config |= changed
    assert renewal.renew()


def test_key_and_certificate_change_together_and_only_the_last_two_stay(renewal: slipway_acme_host.Renewal, tmp_path: Path):
    for text in "abc":
        renewal.order = lambda text=text: issued(90, 80, text)  # type: ignore[misc]
        renewal.renew()
        current = tmp_path / "volume/current"
        assert {path.name: f"{path.stat().st_mode & 0o777:o}" for path in current.iterdir()} == dict.fromkeys(
            ("server.pem", "server.key", "tls.conf"), "400"
        )
        assert (current / "server.pem").read_text() == text
    assert len([path for path in (tmp_path / "volume").iterdir() if path.is_dir() and not path.is_symlink()]) == 2
    assert [argv[3] for argv in renewal.engine.ran] == ["-t", "-s"] * 3
    assert (tmp_path / "shop/acme/state/server.pem").read_text() == "c"


@pytest.mark.parametrize("answered", ["slipway.thumb", "another page"])
def test_no_certificate_is_asked_for_before_nginx_can_take_it(
    renewal: slipway_acme_host.Renewal, monkeypatch: pytest.MonkeyPatch, answered: str
):
    """Also one that is validated in the DNS: an authority issues few for the same names in a week."""
    monkeypatch.setattr(slipway_acme_host, "NGINX_SECONDS", 0)
    monkeypatch.setattr(slipway_acme_host, "NGINX_PAUSE", 0)
    del renewal.wait_for_nginx
    orders = []
    renewal.order = lambda: orders.append(1) or issued(90)  # type: ignore[method-assign]
    with answering(200, answered) as url:
        renewal.config |= {"nginx_url": url.rpartition("/")[0], "thumbprint": "thumb"}
        if answered == "slipway.thumb":
            assert renewal.renew()
        else:
            with pytest.raises(slipway_acme_host.RenewalError, match=r"does not answer challenges at .*: another page"):
                renewal.renew()
    assert bool(orders) is (answered == "slipway.thumb")


@pytest.mark.parametrize("before", [True, False])
def test_a_program_that_is_ended_leaves_the_certificate_that_serves(
    renewal: slipway_acme_host.Renewal, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, before: bool
):
    if before:
        renewal.order = lambda: issued(90, 80, "a")  # type: ignore[method-assign]
        renewal.renew()
    renewal.order = lambda: issued(90, 0, "b")  # type: ignore[method-assign]
    # As the handler of SIGTERM does.
    monkeypatch.setattr(config_files, "run_in_container", lambda *_arguments: sys.exit(1))
    with pytest.raises(SystemExit):
        renewal.renew()
    current = tmp_path / "volume/current"
    assert (current / "server.pem").read_text() == "a" if before else not current.is_symlink()
    assert measured(tmp_path)["last_renewal_failed"] == 1


def test_whatever_ends_a_renewal_is_measured(renewal: slipway_acme_host.Renewal, tmp_path: Path):
    renewal.order = lambda: {**issued(90), "times.json": b"torn"}  # type: ignore[method-assign]
    with pytest.raises(ValueError, match="Expecting value"):
        renewal.renew()
    assert measured(tmp_path)["last_renewal_failed"] == 1
    assert renewal.is_due()


@pytest.mark.parametrize("before", [True, False])
def test_what_nginx_refuses_does_not_stay(renewal: slipway_acme_host.Renewal, tmp_path: Path, before: bool):
    if before:
        renewal.order = lambda: issued(90, 80, "a")  # type: ignore[method-assign]
        renewal.renew()
    renewal.engine.refuses = True
    renewal.order = lambda: issued(90, 0, "b")  # type: ignore[method-assign]
    with pytest.raises(slipway_acme_host.RenewalError, match="refused"):
        renewal.renew()
    current = tmp_path / "volume/current"
    assert (current / "server.pem").read_text() == "a" if before else not current.is_symlink()
    assert "refused" in renewal.state()["error"]
    assert measured(tmp_path)["last_renewal_failed"] == 1
    renewal.engine.refuses = False
    assert renewal.renew()
    assert renewal.state()["error"] == ""
    assert measured(tmp_path) == {"last_renewal_failed": 0, "certificate_not_after_seconds": renewal.state()["ends"]}


@pytest.mark.parametrize(
    ("result", "says"),
    [("failed", "the authority refuses the order"), ("deadline", "the order was not finished after 90 s: raise acme_timeout")],
)
def test_the_reason_of_the_client_is_kept_and_the_certificate_too(
    renewal: slipway_acme_host.Renewal, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, result: str, says: str
):
    renewal.order = lambda: issued(90, 80, "a")  # type: ignore[method-assign]
    renewal.renew()
    del renewal.order
    monkeypatch.setattr(container_copy, "COPIES", str(tmp_path / "copies"))
    monkeypatch.setattr(container_copy, "start_copy", lambda *_arguments, **_options: "id")
    monkeypatch.setattr(container_copy, "follow_copy", lambda *_arguments: (result, 1))
    monkeypatch.setattr(container_copy, "end_copy", lambda *_arguments: ["first", "the authority refuses the order"])
    with pytest.raises(slipway_acme_host.RenewalError, match=says):
        renewal.renew()
    assert (tmp_path / "volume/current/server.pem").read_text() == "a"
    assert renewal.state()["error"] == says


def test_when_a_certificate_is_renewed_is_a_metric_once_there_is_one():
    day = {"error": "", "begins": 1000, "ends": 1000 + 86400}
    assert 'slipway_certificate_renewal_seconds{stack="shop"} 28800.0\n' in slipway_acme_host.metrics("shop", day)
    assert "renewal_seconds" not in slipway_acme_host.metrics("shop", {"error": "refused"})
