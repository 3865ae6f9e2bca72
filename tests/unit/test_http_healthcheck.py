"""The check is run by a real shell, with one tool at a time on PATH, against a real server."""

from __future__ import annotations

import http.server
import shutil
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from ansible.errors import AnsibleFilterError

from ansible_collections.slipway.stack.plugins.filter.http_healthcheck import http_healthcheck

ALWAYS = ("sh", "sed", "head", "timeout")


class Answers(http.server.BaseHTTPRequestHandler):
    """Answers /<status> with that status; a redirect leads to a page that is well."""

    def do_GET(self) -> None:
        if self.path == "/named":
            status = 200 if self.headers.get_all("Host") == ["shop.example"] else 400
        else:
            status = int(self.path.strip("/").partition("?")[0])
        self.send_response(status)
        if status in (301, 302):
            self.send_header("Location", "/200")
        self.send_header("Content-Length", "2")
        self.end_headers()
        self.wfile.write(b"ok")

    def log_message(self, *_arguments: object) -> None:
        """Keep quiet."""


@pytest.fixture(scope="module")
def port() -> Iterator[int]:
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Answers)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield server.server_address[1]
    server.shutdown()


@pytest.fixture(params=["curl", "wget", "busybox", "python3", "node", "bash"])
def path(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """A PATH with one of the tools only."""
    tool = request.param
    # The first python3 on PATH may be a shim that needs more of PATH than the check has.
    found = sys.executable if tool == "python3" else shutil.which(tool)
    if found is None:
        pytest.skip(f"this machine has no {tool}")
    for name in ALWAYS:
        (tmp_path / name).symlink_to(shutil.which(name) or name)
    # BusyBox is asked as images have it: by the name wget.
    name = "wget" if tool == "busybox" else tool
    script = tmp_path / name
    script.write_text(f'#!/bin/sh\nexec "{found}" {"wget " if tool == "busybox" else ""}"$@"\n')
    script.chmod(0o755)
    return str(tmp_path)


def check(port: int, path: str, page: str, folder: Path, **options: object) -> subprocess.CompletedProcess[str]:
    kind, script = http_healthcheck(port, page, **options)
    assert kind == "CMD-SHELL"
    environment = {"PATH": path, "http_proxy": "http://127.0.0.1:9", "HTTP_PROXY": "http://127.0.0.1:9"}
    return subprocess.run(["/bin/sh", "-c", script], cwd=folder, env=environment, capture_output=True, text=True, timeout=20, check=False)


@pytest.mark.parametrize("status", [200, 204, 299])
def test_success_is_healthy(port: int, path: str, status: int, tmp_path: Path):
    assert check(port, path, f"/{status}", tmp_path).returncode == 0


def test_the_name_of_the_site_is_sent(port: int, path: str, tmp_path: Path):
    assert check(port, path, "/named", tmp_path, host="shop.example").returncode == 0
    assert "answered '400'" in check(port, path, "/named", tmp_path).stdout
    assert "answered '400'" in check(port, path, "/named", tmp_path, host="other.example:80").stdout


@pytest.mark.parametrize("host", ["a b", "a'; id; '", "-a", "a\nb", '$(id)"', "*.example.com", 5])
def test_a_name_cannot_become_a_part_of_the_script(host: object):
    with pytest.raises(AnsibleFilterError, match="host"):
        http_healthcheck(80, host=host)


@pytest.mark.parametrize("status", [301, 404, 500, 503])
def test_other_answers_are_not_and_the_status_is_reported(port: int, path: str, status: int, tmp_path: Path):
    done = check(port, path, f"/{status}", tmp_path)
    assert done.returncode == 1
    assert f"answered '{status}', not 200 to 299" in done.stdout


def test_expected_status_is_exact(port: int, path: str, tmp_path: Path):
    assert check(port, path, "/404", tmp_path, expect_status=404).returncode == 0
    assert check(port, path, "/200", tmp_path, expect_status=404).returncode == 1


def test_a_service_that_does_not_answer_is_not_healthy(path: str, tmp_path: Path):
    assert check(1, path, "/200", tmp_path).returncode == 1


def test_nothing_is_written(port: int, path: str, tmp_path: Path):
    folder = tmp_path / "work"
    folder.mkdir()
    check(port, path, "/200?a=b%20c", folder)
    assert list(folder.iterdir()) == []


def test_an_image_without_tools_says_so(port: int, tmp_path: Path):
    (tmp_path / "sh").symlink_to("/bin/sh")
    done = check(port, str(tmp_path), "/200", tmp_path)
    assert done.returncode == 1
    assert "has none of curl" in done.stdout


@pytest.mark.parametrize(
    "options", [{"path": "health"}, {"path": "/a'; rm -rf /"}, {"path": "/$(id)"}, {"scheme": "ftp"}, {"expect_status": 7}]
)
def test_what_cannot_be_part_of_the_script_is_refused(options: dict[str, object]):
    with pytest.raises(AnsibleFilterError, match="http_healthcheck"):
        http_healthcheck(80, **options)


@pytest.mark.parametrize("port_number", [0, 65536, "http", None])
def test_a_port_that_is_none_is_refused(port_number: object):
    with pytest.raises(AnsibleFilterError, match="http_healthcheck"):
        http_healthcheck(port_number)
