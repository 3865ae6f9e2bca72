#!/usr/bin/python
# Copyright (c) The Slipway authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Wait until containers are healthy, and they or addresses answer over HTTP with the version that is expected."""

from __future__ import annotations

DOCUMENTATION = r"""
module: http_answers
author: The Slipway authors (!UNKNOWN)
version_added: 0.1.0
short_description: Wait until all of several addresses answer over HTTP, and containers are healthy
description:
  - Asks from the host, each container where it is published, or else on its address on the host's networks.
  - Certificates are not verified, as a balancer is asked by its host's own address.
options:
  containers:
    description:
      - Containers to look at, each with C(port) (inside the container), C(path) (that must answer 2xx), C(version_path) (on which it
        reports its version where its answer to C(path) does not) and C(version_field), each of which may be empty.
      - One that has neither path, or answers 404 on C(version_path), reports no version. It is judged by the image that it runs and by its
        label C(slipway.version).
    type: dict
    default: {}
  urls:
    description: Further addresses to ask, each without a path.
    type: list
    elements: str
    default: []
  path:
    description: Path that each of O(urls) must answer with 2xx.
    type: str
    default: ""
  host_header:
    description: Name to send as C(Host); empty sends the address.
    type: str
    default: ""
  headers:
    description: Further headers for O(urls).
    type: dict
    default: {}
  version:
    description: Version that the answer must report; empty takes any.
    type: str
    default: ""
  version_field:
    description: Field of the JSON answer of O(urls) that holds the version.
    type: str
    default: version
  times:
    description: Good answers in a row that each must give.
    type: int
    default: 1
  healthy:
    description:
      - Containers that must be healthy too, and the seconds that each may take to it. Of those that are asked, O(timeout) counts from
        then on.
    type: dict
    default: {}
  log_lines:
    description: Number of log lines that a failure shows.
    type: int
    default: 20
  restarts:
    description:
      - By container, how often its restart policy had started it again before; more is a failure at once. RV(restarts) of an earlier
        call says it.
    type: dict
    default: {}
  timeout:
    description: Seconds until all must have given them.
    type: float
    default: 60
extends_documentation_fragment:
  - slipway.stack.attributes.reads
"""

EXAMPLES = r"""
- name: Ask the new slot whether it is ready
  slipway.stack.http_answers:
    containers:
      slipway-api-green-1: {port: 8000, path: /ready, version_path: "", version_field: version}
    version: 1.1.0
    healthy:
      slipway-api-green-1: 120
      slipway-worker-green-1: 60
"""

RETURN = r"""
seconds:
  description: Seconds until all had answered.
  returned: success
  type: float
restarts:
  description: By container, how often its restart policy has started it again.
  returned: success
  type: dict
unreported:
  description: Containers that were asked for their version, report none, and run the image of the version that was asked for.
  returned: success
  type: list
  elements: str
"""

import http.client
import json
import ssl
import time
import typing as t
from urllib.parse import urlsplit

from ansible_collections.slipway.stack.plugins.module_utils.engine import Engine, EngineError
from ansible_collections.slipway.stack.plugins.module_utils.health import NeverError, Watch
from ansible_collections.slipway.stack.plugins.module_utils.secret_module import SecretModule

INTERVAL = 0.1
#: What is read of an answer.
MOST_BYTES = 65536


class GoneError(Exception):
    """A target cannot become good, or not in time; the message says which and why."""


def container_url(inspected: dict[str, t.Any] | None, container: str, port: int) -> str:
    """Return where a container answers.

    Raises:
        EngineError: it does not run, or has no address.
    """
    if inspected is None or not inspected["State"]["Running"]:
        raise EngineError("it does not run")
    settings = inspected["NetworkSettings"]
    for binding in (settings["Ports"] or {}).get(f"{port}/tcp") or []:
        address = "127.0.0.1" if binding["HostIp"] in ("", "0.0.0.0", "::") else binding["HostIp"]  # noqa: S104
        return f"http://{address}:{binding['HostPort']}"
    for network in settings["Networks"].values():
        if network.get("IPAddress"):
            return f"http://{network['IPAddress']}:{port}"
    raise EngineError(f"{container} has no address")


def must_have_stayed(inspected: dict[str, t.Any] | None, restarts: int) -> None:
    """Check that a container that ran still does.

    Raises:
        GoneError: it has ended, or has been started again since.
    """
    state = (inspected or {}).get("State", {})
    if not state.get("Running") or (inspected or {}).get("RestartCount", 0) > restarts:
        raise GoneError(f"has died since it was ready, with exit status {state.get('ExitCode', 'unknown')}")


def ask(url: str, path: str, host: str, headers: dict[str, str] | None = None) -> tuple[int, str]:
    """Return status and body of one answer.

    Raises:
        OSError: no answer.
    """
    parts = urlsplit(url)
    if parts.scheme == "https":
        context = ssl._create_unverified_context()  # noqa: S323, SLF001 - see the documentation above
        connection: http.client.HTTPConnection = http.client.HTTPSConnection(parts.netloc, timeout=5, context=context)
    else:
        connection = http.client.HTTPConnection(parts.netloc, timeout=5)
    try:
        connection.request("GET", path, headers={**({"Host": host} if host else {}), **(headers or {})})
        response = connection.getresponse()
        body = response.read(MOST_BYTES)
        if response.length and len(body) < MOST_BYTES:
            raise OSError(f"the answer ended {response.length} bytes too early")
        return response.status, body.decode("utf-8", "replace")
    except http.client.HTTPException as error:
        raise OSError(repr(error)) from error
    finally:
        connection.close()


def judge(status: int, body: str, version: str, field: str) -> str:
    """Return what is wrong with an answer, or an empty string."""
    if not 200 <= status < 300:
        return f"answers {status}: {body.strip()[:300]}"
    if not version:
        return ""
    reported = reported_version(body, field)
    if reported is None:
        return f"reports no version: its answer is not a JSON object with the field {field}"
    return "" if reported == version else f"reports version {reported} instead of {version}"


def reported_version(body: str, field: str) -> str | None:
    """Return the version that an answer reports, or None where it reports none."""
    try:
        reported = json.loads(body).get(field)
    except (ValueError, AttributeError):
        return None
    return None if reported is None else str(reported)


def image_problem(inspected: dict[str, t.Any], newest: str, version: str) -> str:
    """Return what is wrong with the image that a container runs, or an empty string.

    Args:
        inspected: the container.
        newest: ID of the image that its image's name stands for now, or "" where that name is gone.
        version: the version that it must be of.
    """
    labelled = (inspected["Config"].get("Labels") or {}).get("slipway.version", "")
    if labelled != version:
        return f"reports no version, and its container was made for version {labelled or '(none)'} instead of {version}"
    if newest and inspected["Image"] != newest:
        return f"reports no version, and runs another image than {inspected['Config']['Image']} is now"
    return ""


class Asker:
    """Asks one target until it has given good answers, and is healthy where that is asked for."""

    def __init__(self, engine: Engine, target: str, options: dict[str, t.Any]) -> None:
        """Take a container's name or an address, and the module's options."""
        self.target = target
        self.watch = Watch(engine, target) if target in options["healthy"] else None
        self.restarts: int | None = None
        self.unreported = False
        self._asked = target in options["containers"] or target in options["urls"]
        self._own: dict[str, t.Any] = options["containers"].get(target) or {}
        self._engine = engine
        self._options = options
        self._good = 0
        self._healthy_at: float | None = None if self.watch else time.monotonic()
        self._began = time.monotonic()

    def _wrong(self) -> str:
        """Return what is wrong with one answer, or an empty string.

        Raises:
            GoneError: the container has died since it was asked before.
        """
        try:
            if self.target not in self._options["containers"]:
                answer = ask(self.target, self._options["path"], self._options["host_header"], self._options["headers"])
                return self._sentence(self._options["path"], judge(*answer, self._options["version"], self._options["version_field"]))
            inspected = self._engine.inspect(self.target)
            if self.target in self._options["restarts"]:
                must_have_stayed(inspected, int(self._options["restarts"][self.target]))
            self.restarts = (inspected or {}).get("RestartCount", 0)
            return self._wrong_container(inspected)
        except GoneError as error:
            raise GoneError(self.describe(str(error))) from error
        except (OSError, EngineError) as error:
            return self._sentence(
                self._own.get("path") or self._own.get("version_path") or self._options["path"], f"does not answer: {error}"
            )

    @staticmethod
    def _sentence(path: str, wrong: str) -> str:
        return f"{path} {wrong}".strip() if wrong else ""

    def _wrong_container(self, inspected: dict[str, t.Any] | None) -> str:
        """Return what is wrong with a container's answers, or an empty string: to its path, and for its version."""
        path, version_path, field = (str(self._own[name]) for name in ("path", "version_path", "version_field"))
        version = self._options["version"] if field else ""
        if inspected is None or not inspected["State"]["Running"]:
            raise EngineError("it does not run")
        url = container_url(inspected, self.target, int(self._own["port"])) if path or version_path else ""
        self.unreported = False
        if path:
            status, body = ask(url, path, self._options["host_header"])
            reports = reported_version(body, field) is not None
            wrong = judge(status, body, version if reports else "", field)
            if wrong or reports:
                return self._sentence(path, wrong)
        if not version:
            return ""
        if version_path:
            status, body = ask(url, version_path, self._options["host_header"])
            if status != http.client.NOT_FOUND:
                wrong = judge(status, body, version, field)
                if wrong and reported_version(body, field) is None:
                    wrong += (
                        "; set version_path in app_services to where the service reports its version, or to an empty string if it does not,"
                    )
                return self._sentence(version_path, wrong)
        self.unreported = bool(path or version_path)
        return image_problem(inspected, self._engine.image_id(inspected["Config"]["Image"]), version)

    def done(self) -> bool:
        """Ask once more where that is left to do, and return whether the target is good.

        Raises:
            GoneError: it cannot become so, or its time is over; says why.
        """
        wrong = self._wrong() if self._asked and self._good < self._options["times"] else ""
        self._good = 0 if wrong else self._good + 1
        now = time.monotonic()
        if self.watch and self._healthy_at is None:
            limit, never = float(self._options["healthy"][self.target]), ""
            try:
                # What answers badly is not healthy yet either, so its health check need not be run on top.
                if self.watch.ready(run_check=not wrong):
                    self._healthy_at = now
                elif now - self._began > limit:
                    never = f"did not become healthy within {limit:g} s{self.watch.restarting()}"
            except NeverError as error:
                never = str(error)
            if never:
                raise GoneError(self.watch.explain(never, self._options["log_lines"]))
        if wrong and self._healthy_at is not None and now - self._healthy_at > self._options["timeout"]:
            raise GoneError(self.describe(f"{wrong} after {self._options['timeout']:g} s"))
        return self._healthy_at is not None and self._good >= (self._options["times"] if self._asked else 1)

    def describe(self, why: str) -> str:
        """Return a sentence about the target, with a container's last log lines."""
        logs = ""
        if self.target in self._options["containers"] and self._engine.inspect(self.target) is not None:
            logs = f"\nLast log lines:\n{self._engine.logs(self.target, self._options['log_lines']).rstrip()}"
        return f"{self.target} {why}.{logs}"


def main() -> None:
    """Run the module."""
    module = SecretModule(
        argument_spec={
            "containers": {"type": "dict", "default": {}},
            "urls": {"type": "list", "elements": "str", "default": []},
            "path": {"type": "str", "default": ""},
            "host_header": {"type": "str", "default": ""},
            "headers": {"type": "dict", "default": {}, "no_log": True},
            "version": {"type": "str", "default": ""},
            "version_field": {"type": "str", "default": "version"},
            "times": {"type": "int", "default": 1},
            "healthy": {"type": "dict", "default": {}},
            "log_lines": {"type": "int", "default": 20},
            "restarts": {"type": "dict", "default": {}},
            "timeout": {"type": "float", "default": 60},
        },
        supports_check_mode=True,
    )
    options, engine = module.params, Engine()
    started = time.monotonic()
    restarts: dict[str, int] = {}
    unreported: list[str] = []
    try:
        targets = dict.fromkeys([*options["containers"], *options["urls"], *options["healthy"]])
        for asker in [Asker(engine, target, options) for target in targets]:
            while not asker.done():
                time.sleep(INTERVAL)
            if asker.restarts is not None:
                restarts[asker.target] = asker.restarts
            if asker.unreported:
                unreported.append(asker.target)
    except (GoneError, EngineError) as error:
        module.fail_json(msg=str(error))
    module.exit_json(changed=False, seconds=round(time.monotonic() - started, 2), restarts=restarts, unreported=unreported)


if __name__ == "__main__":
    main()
