# Copyright (c) The Slipway authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What the nginx role declares, and what nginx says to it where its image is there."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml

from conftest import ROOT, ansible, balanced, role_variable

SERVERS = balanced()


def render(expression: str, **inputs: Any) -> Any:
    """Return the value of one of the role's variables."""
    return role_variable("nginx", expression, {**SERVERS, **inputs})


def declaration(**inputs: Any) -> dict[str, Any]:
    """Return the role's declaration as container_service gets it."""
    return dict(render("__nginx_services", **inputs)[0])


def config(name: str, **inputs: Any) -> str:
    """Return the text of a config file."""
    return str(declaration(**inputs)["config"][name]["content"])


def tls(**inputs: Any) -> dict[str, Any]:
    """Return what the role knows of the certificate and its key."""
    return dict(render("__nginx_tls", **inputs))


def blocks(text: str, opening: str) -> list[str]:
    """Return the bodies of the blocks that begin with a line, which the templates indent alike at both ends."""
    pattern = rf"^( *){re.escape(opening)} \{{\n(.*?)^\1\}}$"
    return [match.group(2) for match in re.finditer(pattern, text, re.MULTILINE | re.DOTALL)]


def self_signed(key: Path, certificate: Path) -> None:
    """Make a key and a certificate that it signed itself."""
    command = ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "365", "-subj", "/CN=other"]
    subprocess.run([*command, "-keyout", str(key), "-out", str(certificate)], check=True, capture_output=True)


def issue(folder: Path, checkout: Path, **inputs: Any) -> None:
    """Run the role's tasks for a certificate, with the folder as that of the CA."""
    (checkout / "playbooks/issue.yml").write_text(
        "- hosts: one\n  gather_facts: false\n  tasks:\n"
        "    - ansible.builtin.include_role:\n        name: slipway.stack.nginx\n        tasks_from: certificate\n"
    )
    extra = json.dumps({"nginx_tls_ca_dir": str(folder), **SERVERS, **inputs})
    done = ansible("ansible-playbook", "playbooks/issue.yml", "-i", "inventories/test", "-e", extra, cwd=checkout)
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize(
    ("inputs", "says"),
    [
        ({"nginx_tls_mode": "files"}, "nginx_tls_mode is files: set nginx_tls_certificate_file and nginx_tls_key_file"),
        ({"nginx_tls_mode": "private_ca", "nginx_tls_key_file": "/k"}, "nginx_tls_mode is private_ca, and nginx_tls_certificate_file or"),
        ({"nginx_tls_mode": "acme", "nginx_server_names": ["a.example"]}, "nginx_acme_thumbprint is empty"),
        ({"nginx_tls_mode": "acme", "nginx_acme_thumbprint": "t"}, "no name needs a certificate: set nginx_server_names"),
        ({"nginx_tls_key_file": "/k"}, "only one of nginx_tls_certificate_file and nginx_tls_key_file is set"),
        ({"nginx_tls_mode": "acme", "nginx_acme_thumbprint": "t", "nginx_server_names": ["a.example"]}, ""),
        ({}, ""),
    ],
)
def test_files_that_contradict_the_mode_are_refused(tmp_path: Path, inputs: dict[str, Any], says: str) -> None:
    """Without a mode, what was set before this input came means what it did."""
    found = render("__nginx_mistakes", nginx_tls_ca_dir=str(tmp_path / "pki"), **inputs)
    assert bool(found) == bool(says), found
    assert says in "".join(found)


@pytest.mark.parametrize(
    ("clients", "networks", "route", "name"),
    [
        (["web.example"], [], {"internal": True}, "web.example"),
        (["10.0.0.1", "web.example", "10.90.0.1"], ["10.0.0.1", "10.90.0.1"], {"internal": "yes"}, "web.example"),
        (["10.0.0.1"], ["10.0.0.1"], {"internal": True}, ""),
        (["web.example"], ["192.0.2.0/24"], {"internal": True}, ""),
        (["web.example"], [], {}, ""),
        (["web.example"], [], {"internal": False}, ""),
        (["web.example"], [], {"internal": "no"}, ""),
    ],
)
def test_an_internal_route_needs_addresses_of_its_clients(
    clients: list[str], networks: list[str], route: dict[str, Any], name: str
) -> None:
    """Without them, all of them or those with a name get 403."""
    inputs = balanced([{"path": "/metrics", **route}]) | {"__nginx_clients": clients, "nginx_internal_networks": networks}
    found = [text for text in render("__nginx_mistakes", **inputs) if "internal" in text]
    assert bool(found) == bool(name), found
    assert f"cannot compare ({name})" in "".join(found) or not name


@pytest.mark.parametrize(("address", "refused"), [("web.example", True), ("192.0.2.1", False)])
def test_the_names_of_the_hosts_are_not_taken_for_addresses(checkout: Path, address: str, refused: bool) -> None:
    """As the topology has them, for the shared variable and the role alike."""
    hosts = {"hosts": {"web": {"slipway_address": address}}}
    (checkout / "inventories/test/hosts.yml").write_text(json.dumps({"all": {"children": {"app": hosts, "balancers": hosts}}}))
    services = {"api": {"image": "a:1", "port": 80, "routes": [{"path": "/metrics", "internal": True}]}}
    (checkout / "inventories/test/group_vars/all/20_product.yml").write_text(json.dumps({"app_services": services}))
    (checkout / "playbooks/named.yml").write_text(
        "- hosts: web\n  connection: local\n  gather_facts: false\n  tasks:\n"
        "    - ansible.builtin.include_role:\n        name: slipway.stack.nginx\n        public: true\n        tasks_from: nothing\n"
        "    - ansible.builtin.debug:\n        msg: '<{{ __nginx_named_clients | join }}> <{{ __nginx_clients | join }}>'\n"
    )
    (checkout / "roles/nginx/tasks/nothing.yml").write_text("[]\n")
    done = ansible("ansible-playbook", "playbooks/named.yml", "-i", "inventories/test", cwd=checkout)
    assert done.returncode == 0, done.stdout + done.stderr
    assert f"<{address if refused else ''}> <{address}>" in done.stdout, done.stdout


def test_every_change_of_configuration_reloads_and_none_restarts() -> None:
    """An edited setting must reach clients without cutting a connection."""
    service = declaration()
    files = {**service["config"], **service["secrets"]}
    assert {name for name, item in files.items() if item["on_change"] != "reload"} == {"certificate.prom"}, (
        "nginx does not read the figures"
    )
    assert service["validate"][-1] == "/etc/slipway/{revision}/nginx.conf"


def test_includes_of_a_revision_stay_within_it() -> None:
    """A revision that is checked before it is current must not read files of the current one."""
    files = declaration()["config"]
    read = {name: re.findall(r"^\s*(?:include|ssl_certificate) (\S+);", item["content"], re.MULTILINE) for name, item in files.items()}
    assert {"upstreams.conf", "servers.conf", "server.pem"} <= set(read["nginx.conf"])
    for name, paths in read.items():
        for path in paths:
            assert path == "/etc/nginx/mime.types" or path in files, f"{name} reads {path}"


def test_health_is_answered_by_nginx_itself_on_both_ports_and_not_logged() -> None:
    """A probe that asks the plain port and one that asks the TLS port get the same."""
    for inputs in ({}, {"nginx_refuse_unknown_names": True, "nginx_server_names": ["a.example"]}, {"nginx_maintenance": True}):
        text = config("servers.conf", **inputs)
        servers = blocks(text, "server")
        for port in ("8080 default_server", "8443 ssl"):
            serving = [body for body in servers if f"listen {port}" in body and "ssl_reject_handshake" not in body]
            assert serving, f"{inputs}: nothing serves {port}\n{text}"
            assert all("include health.conf;" in body for body in serving), f"{inputs}: {port}\n{text}"
    health = config("health.conf")
    assert 'return 200 "healthy\\n";' in health
    assert "access_log off;" in health


def test_plain_requests_are_redirected_to_the_port_that_clients_see() -> None:
    """308 keeps the method; the port of the container is not shown."""
    assert "return 308 https://$host$request_uri;" in config("servers.conf")
    assert "return 308 https://$host:8443$request_uri;" in config("servers.conf", nginx_https_port=8443)
    assert "https://$host$request_uri" in config("servers.conf", nginx_https_port=8443, nginx_public_https_port=443)


def test_paths_go_where_they_belong_with_their_timeouts() -> None:
    """The backend has a minute on /api/, a day on /ws, and the frontend all else."""
    text = config("servers.conf")
    [api], [websocket], [page] = blocks(text, "location /api/"), blocks(text, "location /ws"), blocks(text, "location /")[-1:]
    assert "proxy_pass http://backend;" in api
    assert "add_header Cache-Control $slipway_no_store always;" in api
    assert "proxy_read_timeout 60s;" in api
    assert "proxy_pass http://backend;" in websocket
    assert "proxy_read_timeout 86400s;" in websocket
    assert "proxy_set_header Upgrade $slipway_upgrade;" in websocket
    assert "proxy_pass http://frontend;" in page


def test_location_with_headers_of_its_own_has_the_security_headers_too() -> None:
    """add_header in a location drops those of the server."""
    for inputs in ({}, {"nginx_maintenance": True}):
        text = config("servers.conf", **inputs)
        bodies = re.findall(r"location \S* ?\S+ \{\n(.*?)\n {4}\}", text, re.DOTALL)
        assert any("add_header" in body for body in bodies)
        for body in bodies:
            assert "add_header" not in body or "include headers.conf;" in body, body


def test_extra_lines_of_a_route_are_in_its_location_and_keep_the_security_headers() -> None:
    """The comment says where a refused line comes from; add_header alone would drop the headers of the server."""
    text = config("servers.conf", **balanced([{"path": "/x/", "extra_lines": ["expires 1h;", "add_header X-A b;"]}]))
    [body] = blocks(text, "location /x/")
    assert "expires 1h;  # extra_lines of the route /x/ of backend\n" in body
    assert body.index("include headers.conf;") < body.index("add_header X-A b;")
    assert text.count("expires 1h;") == 2, "for streams of events too"


def test_product_cannot_weaken_a_security_header() -> None:
    """What we set is taken out of the product's answers, so that no client sees two."""
    set_by_us = set(re.findall(r"^add_header (\S+)", config("headers.conf"), re.MULTILINE)) - {"X-Request-ID"}
    hidden = set(re.findall(r"^proxy_hide_header (\S+);", config("proxy.conf"), re.MULTILINE))
    assert len(set_by_us) >= 10
    assert "Strict-Transport-Security" not in set_by_us
    assert hidden == set_by_us | {"X-Powered-By"}
    without = config("proxy.conf", nginx_content_security_policy="")
    assert "Content-Security-Policy" not in without, "an empty policy leaves the product's own in place"


def test_a_page_that_is_not_there_is_refused(tmp_path: Path) -> None:
    """Before any host is touched; the maintenance page, too."""
    (tmp_path / "there.html").write_text("x")
    pages = [{"codes": [502], "file": str(tmp_path / "there.html")}, {"codes": [504], "file": str(tmp_path / "gone.html")}]
    mistakes = render("__nginx_mistakes", nginx_error_pages=pages, nginx_maintenance_page="/nonexistent/closed.html")
    assert [text.split()[2] for text in mistakes if "is not a file" in text] == ["/nonexistent/closed.html", pages[1]["file"]]


def test_pages_are_found_below_the_home_and_where_the_run_was_started(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As the files of certificates are."""
    (tmp_path / "down.html").write_text("down")
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.chdir(tmp_path)
    for path in ("~/down.html", "down.html"):
        inputs = {"nginx_error_pages": [{"codes": [502], "file": path}], "nginx_maintenance_page": path}
        assert render("__nginx_error_pages", **inputs)["error-1.html"]["config"]["content"] == "down"
        assert render("__nginx_maintenance_page", **inputs) == "down"
        assert render("__nginx_missing_pages", **inputs) == []


def test_files_that_served_before_acme_are_named_with_their_end(tmp_path: Path) -> None:
    (tmp_path / "expired.pem").write_text("x")
    files = {"nginx_tls_certificate_file": str(tmp_path / "expired.pem"), "nginx_tls_key_file": str(tmp_path / "expired.pem")}
    acme = {"nginx_tls_mode": "acme", "nginx_server_names": ["shop.example"], "nginx_acme_thumbprint": "t"}
    found = render("__nginx_mistakes", **files, **acme)
    assert found
    assert all("or remove nginx_tls_certificate_file and nginx_tls_key_file" in text for text in found)
    assert not any("or remove" in text for text in render("__nginx_mistakes", **files, nginx_server_names=["shop.example"]))


def test_limits_without_a_key_for_releases_are_refused_and_no_client_has_an_empty_one() -> None:
    limited = {"nginx_limit_conn": 20}
    assert any(text.startswith("nginx_probe_key is empty") for text in render("__nginx_mistakes", **limited))
    assert not any("nginx_probe_key" in text for text in render("__nginx_mistakes"))
    [content] = [item["content"] for name, item in declaration(**limited)["secrets"].items() if name.startswith("probe-")]
    assert " 1;" not in content


def test_client_cannot_choose_its_address() -> None:
    """X-Forwarded-For is the address that nginx sees, or that a trusted proxy sends."""
    assert "X-Forwarded-For $remote_addr;" in config("proxy.conf")
    assert "real_ip" not in config("nginx.conf")
    trusted = config("nginx.conf", nginx_trusted_proxies=["10.0.0.0/8"])
    assert "set_real_ip_from 10.0.0.0/8;" in trusted
    assert "real_ip_recursive on;" in trusted
    assert "real_ip_header X-Forwarded-For;" in trusted


def test_lone_server_is_never_taken_for_dead() -> None:
    """One failure must not make a fleet of one answer 502 for seconds; idle slots do not count."""
    alone = render("__nginx_upstreams", **balanced(servers=["10.0.0.1:8000"]))
    assert alone["backend"]["max_fails"] == 0
    servers = ["10.0.0.1:8000", {"server": "10.0.0.2:8000", "weight": 9}]
    several = render("__nginx_upstreams", **balanced(servers=servers))
    assert several["backend"]["max_fails"] == 3
    text = config("upstreams.conf", **balanced(servers=servers))
    assert "server 10.0.0.1:8000 max_fails=0 backup;" in text
    assert "server 10.0.0.2:8000 max_fails=0 weight=9 backup;" in text
    assert (
        "backup" not in config("upstreams.conf", **balanced(servers=servers), nginx_upstream_max_fails=0).partition("upstream frontend")[0]
    )


def test_request_waits_for_a_name_but_not_for_an_address() -> None:
    """Only where names alone serve is there a moment without any address."""
    named = config("upstreams.conf")
    assert "server backend-blue-1:8000 resolve" in named
    assert "server 127.0.0.1:8081 max_fails=0 backup;" in named
    addressed = config("upstreams.conf", **balanced(servers=["10.0.0.1:8000", "[fd00::1]:8000"]))
    assert "server 10.0.0.1:8000 max_fails" in addressed
    assert "server [fd00::1]:8000 max_fails" in addressed
    assert "8081" not in addressed


def test_weights_reach_the_upstream() -> None:
    """A canary's share is a weight."""
    text = config("upstreams.conf", **balanced(servers=[{"server": "a:1", "weight": 9}, {"server": "b:1", "weight": 1}]))
    assert re.search(r"server a:1 resolve .* weight=9;", text)
    assert re.search(r"server b:1 resolve [^w]*;", text)


def test_workers_fit_the_cpu_limit() -> None:
    """nginx would start one for each core of the host, whatever the container may use."""
    assert "worker_processes 4;" in config("nginx.conf")
    assert "worker_processes 2;" in config("nginx.conf", nginx_cpus=1.5)
    assert "worker_processes 4;" in config("nginx.conf", nginx_cpus=16)


def test_log_rotation_reopens_the_log_of_this_stacks_container() -> None:
    """A rotated file that nginx still writes to would never get smaller."""
    [(path, item)] = declaration(slipway_stack="shop")["host_files"].items()
    assert path == "/etc/logrotate.d/shop-nginx"
    assert '"/var/lib/docker/volumes/nginx_logs/_data/*.log" {' in item["content"]
    assert "docker exec shop-nginx nginx" in item["content"]
    assert item["content"].endswith("}\n")


def test_certificate_is_issued_kept_and_issued_again_for_other_names(tmp_path: Path, checkout: Path) -> None:
    """A certificate that fits stays; one for other names keeps its key; private keys are for their owner only."""
    folder = tmp_path / "pki"
    inputs: dict[str, Any] = {"nginx_tls_ca_dir": str(folder)}
    assert tls(**inputs)["good"] is False
    issue(folder, checkout)
    assert tls(**inputs)["good"] is True
    assert tls(**inputs)["alternative_names"] == ["IP:127.0.0.1", "IP:::1", "DNS:localhost"]
    assert {path.name: f"{path.stat().st_mode & 0o777:o}" for path in folder.iterdir()} == {
        "ca.key": "600",
        "ca.pem": "644",
        "server.key": "600",
        "server.pem": "644",
    }
    first = declaration(**inputs)
    assert tls(nginx_tls_renew_days=400, **inputs)["good"] is False, "its end is nearer than that"

    named = {
        "nginx_server_names": ["shop.example"],
        "nginx_redirects": [{"from": "*.shop.example", "to": "shop.example"}],
        "nginx_tls_addresses": ["10.0.0.1"],
    }
    assert tls(**inputs, **named)["good"] is False
    authority = (folder / "ca.pem").read_text()
    issue(folder, checkout, **named)
    assert tls(**inputs, **named)["good"] is True
    assert (folder / "ca.pem").read_text() == authority, "clients trust this one"
    second = declaration(**inputs, **named)
    assert first["secrets"] == second["secrets"]
    assert first["config"]["server.pem"] != second["config"]["server.pem"]
    [name] = second["secrets"]
    assert f"ssl_certificate_key /run/secrets/{name};" in second["config"]["nginx.conf"]["content"]

    # A certificate of another authority is not one of this CA, whatever its names and dates.
    self_signed(folder / "ca.key", folder / "ca.pem")
    assert tls(**inputs, **named)["good"] is False


def checked(tmp_path: Path, inputs: dict[str, Any]) -> subprocess.CompletedProcess[str]:
    """Return what nginx itself says of the files, in the container that the role would start."""
    image = str(render("nginx_image"))
    if shutil.which("docker") is None or subprocess.run(["docker", "image", "inspect", image], capture_output=True, check=False).returncode:
        pytest.skip(f"no engine with {image}")
    pair = tmp_path / "pair"
    pair.mkdir()
    self_signed(pair / "k", pair / "c")
    service = declaration(nginx_tls_certificate_file=str(pair / "c"), nginx_tls_key_file=str(pair / "k"), **inputs)
    for kind, folder in (("config", tmp_path / "etc/r1"), ("secrets", tmp_path / "secrets")):
        folder.mkdir(parents=True)
        for name, item in service[kind].items():
            (folder / name).write_text(item["content"])
            (folder / name).chmod(0o444)
        folder.chmod(0o755)
    tmp_path.chmod(0o755)
    argv = [part.replace("{revision}", "r1") for part in service["validate"]]
    command = ["docker", "run", "--rm", "--network", "none", "--read-only", "--cap-drop", "ALL", "--user", service["user"]]
    command += ["--tmpfs", "/tmp", "--tmpfs", "/var/log/slipway:mode=1777"]
    command += ["-v", f"{tmp_path}/etc:/etc/slipway:ro", "-v", f"{tmp_path}/secrets:/run/secrets:ro"]
    command += ["--entrypoint", argv[0], image, *argv[1:]]
    return subprocess.run(command, capture_output=True, text=True, check=False)


@pytest.mark.parametrize(
    "inputs",
    [
        {},
        {"nginx_maintenance": True, "nginx_log_format": "main", "nginx_hsts": "max-age=63072000"},
        {
            "nginx_server_names": [".shop.example", "*.b.example", "~^(?<a>.{2,3})\\.example$", "bücher.example", "::1"],
            "nginx_resolver": "fd00::53",
        },
        balanced(
            [
                {"path": '/a b;{}$x"\\'},
                {"path": "/stream", "buffering": False, "request_buffering": False},
                {"path": "/up", "read_timeout": 9},
            ]
        )
        | {"nginx_trusted_proxies": ["10.0.0.1", "fd00::/8"]},
        balanced([{"path": "/metrics", "internal": True, "client_max_body_size_mb": 50}], previous=["10.0.0.1:3100"])
        | {"nginx_internal_networks": ["10.0.0.1", "fd00::/8"]},
        balanced([{"path": "/", "host": "b.example"}]) | {"nginx_server_names": ["shop.example", "b.example"]},
        {
            "nginx_server_names": [".shop.example", "::1"],
            "nginx_redirects": [{"from": "www.shop.example", "to": "shop.example"}, {"from": "*.old.example", "to": "::1"}],
            "nginx_maintenance": True,
            "nginx_public_https_port": 8443,
        },
        {"nginx_tls_mode": "acme", "nginx_acme_thumbprint": "Thumb-print_", "nginx_maintenance": True},
        {"nginx_server_names": ["shop.example"], "nginx_refuse_unknown_names": True, "nginx_trusted_proxies": ["10.0.0.0/8"]},
        {"nginx_server_names": ["shop.example"], "nginx_proxy_protocol_port": 8444, "nginx_trusted_proxies": ["10.0.0.0/8"]},
        balanced(servers=["10.0.0.1:8000", {"server": "b:8000", "weight": 3}, {"server": "[fd00::1]:8000", "weight": 1}]),
        balanced([{"path": "/x/", "extra_lines": ["expires 1h;  # }", "if ($arg_a = '{') { return 403; }", 'add_header X-A "b";']}]),
        balanced([{"path": "/zz", "internal": True}])
        | {
            "nginx_limit_req_rate": "30r/m",
            "nginx_limit_req_burst": 0,
            "nginx_limit_conn": 20,
            "nginx_auth_basic": "Staff",
            "nginx_auth_basic_users": {"Staff": {"ann": "$apr1$salt$" + "a" * 22}},
            "nginx_allow": ["10.0.0.1", "fd00::/8"],
            "nginx_probe_key": 'a"b$c',
            "nginx_redirects": [{"from": "www.shop.example", "to": "shop.example"}],
            "nginx_server_names": ["shop.example"],
        },
        {"nginx_limit_conn": 20, "nginx_maintenance": True},
        {"nginx_server_extra": "location = /robots.txt {\n    return 204;\n}", "nginx_content_security_policy": 'script-src "x" $a \\'},
    ],
)
def test_nginx_takes_the_configuration(tmp_path: Path, inputs: dict[str, Any]) -> None:
    done = checked(tmp_path, inputs)
    assert (done.returncode, done.stderr.strip()) == (0, "")


@pytest.mark.parametrize(
    ("inputs", "says"),
    [
        ({"nginx_server_names": ["a.example", "b.example"]}, ""),
        ({"nginx_server_names": ["a.example"]}, 'conflicting server name "b.example"'),
        ({"nginx_server_names": [".b.example"], "nginx_error_log_level": "crit"}, 'conflicting server name "b.example"'),
        ({"nginx_server_names": ["b.example", "a.example"], "nginx_server_extra": "gzzip on;"}, 'unknown directive "gzzip"'),
    ],
)
def test_a_name_of_two_servers_fails_the_check(tmp_path: Path, inputs: dict[str, Any], says: str) -> None:
    """The routes of the second would not hold, and neither would what limits their clients."""
    extra = {} if "b.example" in inputs["nginx_server_names"] else {"nginx_server_extra": "server_name b.example;"}
    done = checked(tmp_path, {**balanced([{"path": "/", "host": "b.example"}]), **extra, **inputs})
    assert (done.returncode == 0) == (not says), done.stderr
    assert says in done.stderr


def test_a_page_by_a_number_is_a_file_that_is_not_there():
    pages = [{"codes": [502], "file": 5}]
    assert render("__nginx_missing_pages", nginx_error_pages=pages) == ["5"]
    assert render("__nginx_error_pages", nginx_error_pages=pages)["error-1.html"]["codes"] == [502]


#: https://github.com/OWASP/www-project-secure-headers/blob/main/ci/headers_add.json, last updated on 2026-07-19.
OWASP = {
    "Cache-Control": "no-store, max-age=0",
    "Clear-Site-Data": '"cache","cookies","storage"',
    "Content-Security-Policy": (
        "default-src 'self'; form-action 'self'; base-uri 'self'; object-src 'none'; frame-ancestors 'none'; upgrade-insecure-requests"
    ),
    "Cross-Origin-Embedder-Policy": "require-corp",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Permissions-Policy": (
        "accelerometer=(), autoplay=(), camera=(), cross-origin-isolated=(), display-capture=(), encrypted-media=(), fullscreen=(), "
        "geolocation=(), gyroscope=(), keyboard-map=(), magnetometer=(), microphone=(), midi=(), payment=(), picture-in-picture=(), "
        "publickey-credentials-get=(), screen-wake-lock=(), sync-xhr=(self), usb=(), web-share=(), xr-spatial-tracking=(), "
        "clipboard-read=(), clipboard-write=(), gamepad=(), hid=(), idle-detection=(), interest-cohort=(), serial=(), unload=()"
    ),
    "Referrer-Policy": "no-referrer",
    "Strict-Transport-Security": "max-age=63072000; includeSubDomains",
    "X-Content-Type-Options": "nosniff",
    "X-DNS-Prefetch-Control": "off",
    "X-Frame-Options": "deny",
    "X-Permitted-Cross-Domain-Policies": "none",
}
#: What the role leaves to the product, or to its user.
LEFT = {"Cache-Control", "Clear-Site-Data", "Strict-Transport-Security"}
#: What the site itself may do.
OF_THE_SITE = {"clipboard-write", "fullscreen", "publickey-credentials-get", "web-share"}


def features(policy: str) -> dict[str, str]:
    return dict(feature.strip().split("=") for feature in policy.split(","))


def test_the_headers_are_those_of_owasp():
    defaults = yaml.safe_load((ROOT / "roles/nginx/defaults/main.yml").read_text())
    headers = {**defaults["nginx_security_headers"], "Content-Security-Policy": defaults["nginx_content_security_policy"]}
    policy = features(headers.pop("Permissions-Policy"))
    expected = {name: value for name, value in OWASP.items() if name not in LEFT}
    of_owasp = features(expected.pop("Permissions-Policy"))
    assert headers == expected
    del of_owasp["interest-cohort"]
    assert policy == of_owasp | dict.fromkeys(OF_THE_SITE, "(self)")


def test_protocols_and_ciphers_are_those_of_mozilla():
    """Of its guideline 6.0, level intermediate, of 2026-04-29: https://ssl-config.mozilla.org/guidelines/6.0.json."""
    variables = yaml.safe_load((ROOT / "roles/nginx/vars/main.yml").read_text())
    of_mozilla = (
        *("ECDHE-ECDSA-AES128-GCM-SHA256", "ECDHE-RSA-AES128-GCM-SHA256", "ECDHE-ECDSA-AES256-GCM-SHA384"),
        *("ECDHE-RSA-AES256-GCM-SHA384", "ECDHE-ECDSA-CHACHA20-POLY1305", "ECDHE-RSA-CHACHA20-POLY1305"),
    )
    assert variables["__nginx_tls_ciphers"] == list(of_mozilla)
    template = (ROOT / "roles/nginx/templates/nginx.conf.j2").read_text()
    assert re.findall(r"ssl_protocols ([^;]+);", template) == ["TLSv1.2 TLSv1.3"]
    assert "ssl_prefer_server_ciphers off;" in template


def test_when_a_run_renews_the_certificate_is_a_metric() -> None:
    """Of a certificate that runs renew: what renews others says so itself, or nothing does."""
    content = config("certificate.prom", nginx_tls_renew_days=7)
    assert content.splitlines()[-1] == 'slipway_certificate_renewal_seconds{stack="slipway"} 604800'
    assert "certificate.prom" not in declaration(nginx_tls_mode="acme")["config"]
    assert "certificate.prom" not in declaration(nginx_tls_certificate_file="/tls/a.pem", nginx_tls_key_file="/tls/a.key")["config"]
