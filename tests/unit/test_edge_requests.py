# Copyright (c) The Slipway authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The requests of a balancer, which the watchdog of its host counts from a log: each once, whatever becomes of the log."""

from __future__ import annotations

import gzip
import os
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import edge_requests
from conftest import balanced, role_variable
from test_shared_variables import view


class Balancer:
    """A balancer's log, and what passes of the watchdog make of it."""

    def __init__(self, folder: Path) -> None:
        self.log, self.state = folder / "_data/requests.log", folder / "requests.json"
        self.log.parent.mkdir()
        self.log.touch()

    def container(self, name: str = "shop-nginx") -> dict[str, Any]:
        return {
            "Name": f"/{name}",
            "Mounts": [{"Source": "/x", "Destination": "/tmp"}, {"Source": str(self.log.parent), "Destination": "/var/log/slipway"}],
        }

    def write(self, *lines: str, path: Path | None = None) -> None:
        with (path or self.log).open("a") as file:
            file.writelines(f"{line}\n" for line in lines)

    def look(self) -> str:
        """Make a pass of the watchdog; return the figures, "" where there are none."""
        return edge_requests.texts("shop", self.state, [self.container("shop-redis"), self.container()]).get("edge.prom", "")

    def requests(self) -> dict[str, int]:
        """Make a pass, and return how many requests it knows, by method and status."""
        found = re.findall(r'^slipway_edge_requests_total\{stack="shop",method="(\w+)",status="(\w+)"\} (\d+)$', self.look(), re.MULTILINE)
        return {f"{method} {status}": int(count) for method, status, count in found if int(count)}


@pytest.fixture
def balancer(tmp_path: Path) -> Balancer:
    made = Balancer(tmp_path)
    made.look()
    return made


@pytest.mark.parametrize(
    ("times", "seconds"),
    [
        ("0.004/0.017", 0.004),
        # The first server took the request and never answered; then it refused the next one at once.
        ("-, 0.004/60.000, 0.017", 60.004),
        ("-, 0.004/0.000, 0.017", 0.004),
        ("-/60.001", 60.001),
        # One answered with 404, and nginx asked those of the version before.
        ("0.010 : 0.020/0.010 : 0.030", 0.03),
        ("-/-", None),
    ],
)
def test_the_time_of_a_request_is_until_its_answer_begins(times: str, seconds: float | None) -> None:
    header, response = times.encode().split(b"/")
    assert edge_requests.until_begun(header, response) == (None if seconds is None else pytest.approx(seconds))


def test_requests_are_counted_by_method_and_class_of_status(balancer: Balancer) -> None:
    balancer.write("GET 200 0.001/0.001", "GET 204 0.001/0.001", "GET 101 0.002/900.000", "POST 500 0.003/0.003", "POST 499 -/2.000")
    balancer.write("HEAD 308 -/-", "PROPFIND 405 0.001/0.001", "\\x16\\x03 400 -/-", "000 000 -/-", "GET 000 -/-", 'GET 200 "x"/-', "")
    expected = {"GET 1xx": 1, "GET 2xx": 2, "POST 4xx": 1, "POST 5xx": 1, "HEAD 3xx": 1, "other 4xx": 2}
    assert balancer.requests() == expected


def test_times_are_a_histogram_of_what_services_have_answered(balancer: Balancer) -> None:
    balancer.write("GET 200 0.010/0.010", "GET 200 2.000/9.000", "GET 504 -/60.001", "GET 308 -/-")
    text = balancer.look()
    found = dict(re.findall(r'^slipway_edge_response_seconds_bucket\{stack="shop",le="([^"]+)"\} (\d+)$', text, re.MULTILINE))
    assert list(found) == ["0.01", "0.025", "0.05", "0.1", "0.25", "0.5", "1", "2", "5", "10", "30", "60", "+Inf"]
    assert list(map(int, found.values())) == [1, 1, 1, 1, 1, 1, 1, 2, 2, 2, 2, 2, 3]
    assert 'slipway_edge_response_seconds_sum{stack="shop"} 62.011\n' in text
    assert 'slipway_edge_response_seconds_count{stack="shop"} 3\n' in text


def test_all_that_may_rise_is_there_from_the_first_pass_on(tmp_path: Path) -> None:
    """Prometheus sees no increase in what appears with its first error."""
    balancer = Balancer(tmp_path)
    balancer.write("GET 500 0.001/0.001")
    text = balancer.look()
    assert 'slipway_edge_requests_total{stack="shop",method="POST",status="5xx"} 0\n' in text
    # When this one came is not known.
    assert 'method="GET",status="5xx"} 0\n' in text


@pytest.mark.parametrize("dated", [False, True])
def test_what_nginx_writes_around_a_rotation_is_counted_once(balancer: Balancer, dated: bool) -> None:
    before = balancer.log.with_name("requests.log-20270115" if dated else "requests.log.1")
    balancer.log.with_name("requests.log.2.gz").write_bytes(gzip.compress(b"GET 200 0.001/0.001\n" * 50))
    balancer.write(*["GET 200 0.001/0.001"] * 3)
    assert balancer.requests() == {"GET 2xx": 3}
    balancer.write("GET 200 0.001/0.001")
    balancer.log.rename(before)
    # nginx does not know yet.
    balancer.write("GET 200 0.001/0.001", path=before)
    assert balancer.look() == ""
    balancer.write("GET 200 0.001/0.001", path=before)
    balancer.write("POST 200 0.001/0.001")
    assert balancer.requests() == {"GET 2xx": 6, "POST 2xx": 1}
    before.unlink()
    assert balancer.requests() == {"GET 2xx": 6, "POST 2xx": 1}


def test_a_line_that_is_being_written_is_counted_once_it_is_whole(balancer: Balancer) -> None:
    balancer.write("GET 200 0.001/0.001")
    with balancer.log.open("a") as file:
        file.write("GET 50")
    assert balancer.requests() == {"GET 2xx": 1}
    balancer.write("0 0.001/0.001", "GET 200 0.001/0.001")
    assert balancer.requests() == {"GET 2xx": 2, "GET 5xx": 1}


def test_a_log_that_is_emptied_is_read_from_its_beginning(balancer: Balancer) -> None:
    balancer.write(*["GET 200 0.001/0.001"] * 3)
    balancer.look()
    os.truncate(balancer.log, 0)
    balancer.write("GET 200 0.001/0.001")
    assert balancer.requests() == {"GET 2xx": 4}


def test_what_came_while_the_timer_did_not_run_for_long_is_left_out(balancer: Balancer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(edge_requests, "LIMIT", 100)
    balancer.write(*["GET 500 0.001/0.001"] * 6)
    assert balancer.requests() == {}
    balancer.write("GET 200 0.001/0.001")
    assert balancer.requests() == {"GET 2xx": 1}


@pytest.mark.parametrize("text", ["", "{", "null", "[]", '{"inode": 1}', '{"inode":1,"offset":0,"seconds":0,"counts":[1],"buckets":[]}'])
def test_a_damaged_note_is_as_none(balancer: Balancer, text: str) -> None:
    balancer.write("GET 200 0.001/0.001")
    balancer.look()
    balancer.state.write_text(text)
    assert balancer.requests() == {}
    balancer.write("GET 200 0.001/0.001")
    assert balancer.requests() == {"GET 2xx": 1}


def link(path: Path) -> None:
    path.symlink_to("/etc/passwd")


def pipe(path: Path) -> None:
    os.mkfifo(path)


@pytest.mark.parametrize("put", [link, pipe, Path.mkdir])
def test_whatever_nginx_puts_there_is_neither_followed_nor_waited_for(balancer: Balancer, put: Callable[[Path], None]) -> None:
    balancer.write("GET 200 0.001/0.001")
    balancer.look()
    note = balancer.state.read_text()
    balancer.log.rename(balancer.log.with_name("requests.log.1"))
    put(balancer.log)
    assert balancer.look() == ""
    assert balancer.state.read_text() == note
    # Nor where an old one is to be.
    balancer.log.with_name("requests.log.1").rename(balancer.log.with_name("requests.log.3"))
    put(balancer.log.with_name("requests.log.2"))
    balancer.log.rename(balancer.log.with_name("requests.log.4"))
    balancer.log.touch()
    assert balancer.requests() == {"GET 2xx": 1}


def test_a_host_without_a_balancer_or_without_monitoring_has_no_such_figures(tmp_path: Path) -> None:
    balancer = Balancer(tmp_path)
    balancer.log.unlink()
    assert balancer.look() == ""
    balancer.log.touch()
    for found in ([], [balancer.container("shop-redis")], [{"Name": "/shop-nginx"}]):
        assert edge_requests.texts("shop", balancer.state, found) == {}
    assert not balancer.state.exists()


@pytest.mark.parametrize("format_name", ["json", "main"])
def test_nginx_writes_the_log_only_where_it_is_counted(format_name: str) -> None:
    def config(metrics: bool) -> str:
        inputs = {"nginx_metrics_log": metrics, "nginx_log_format": format_name}
        (service,) = role_variable("nginx", "__nginx_services", {**balanced([], []), **inputs})
        assert any(volume["path"] == edge_requests.FOLDER for volume in service["volumes"])
        return str(service["config"]["nginx.conf"]["content"])

    path = f"{edge_requests.FOLDER}/{edge_requests.NAME}"
    assert path in config(True)
    assert path not in config(False)
    assert "access_log /var/log/slipway/access.log" in config(True)


@pytest.mark.parametrize("monitored", [False, True])
def test_the_group_monitoring_turns_it_on(monitored: bool) -> None:
    groups = {"balancers": ["web"], "app": ["web"], **({"monitoring": ["web"]} if monitored else {})}
    assert view(groups, "web").resolve("nginx_metrics_log") is monitored
