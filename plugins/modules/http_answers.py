#!/usr/bin/python
# Copyright (c) The Slipway authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Wait until containers or addresses answer over HTTP with the version that is expected."""

from __future__ import annotations

DOCUMENTATION = r"""
module: http_answers
author: The Slipway authors
version_added: 0.1.0
short_description: Wait until all of several addresses answer over HTTP
description:
  - Asks from the host, each container where it is published, or else on its address on the host's networks.
  - Certificates are not verified, as a balancer is asked by its host's own address.
options:
  containers:
    description: Containers to ask.
    type: list
    elements: str
    default: []
  port:
    description: Port inside the containers.
    type: int
    default: 0
  urls:
    description: Further addresses to ask, each without a path.
    type: list
    elements: str
    default: []
  path:
    description: Path to ask for.
    type: str
    required: true
  host_header:
    description: Name to send as C(Host); empty sends the address.
    type: str
    default: ""
  version:
    description: Version that the answer must report; empty takes any.
    type: str
    default: ""
  version_field:
    description: Field of the JSON answer that holds the version.
    type: str
    default: version
  times:
    description: Good answers in a row that each must give.
    type: int
    default: 1
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
attributes:
  check_mode:
    description: Reads only, so check mode makes no difference.
    support: full
"""

EXAMPLES = r"""
- name: Ask the new slot whether it is ready
  slipway.stack.http_answers:
    containers: [slipway-backend-green-1]
    port: 8000
    path: /ready
    version: 1.1.0
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
"""

import http.client
import json
import ssl
import time
import typing as t
from urllib.parse import urlsplit

from ansible.module_utils.basic import AnsibleModule

from ansible_collections.slipway.stack.plugins.module_utils.engine import Engine, EngineError

INTERVAL = 0.1


class GoneError(Exception):
    """A container ended since it was asked before; waiting does not mend that."""


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


def ask(url: str, path: str, host: str) -> tuple[int, str]:
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
        connection.request("GET", path, headers={"Host": host} if host else {})
        response = connection.getresponse()
        return response.status, response.read(65536).decode("utf-8", "replace")
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
    try:
        reported = json.loads(body).get(field)
    except (ValueError, AttributeError):
        return f"reports no version: its answer is no JSON object with the field {field}"
    return "" if str(reported) == version else f"reports version {reported} instead of {version}"


def main() -> None:
    """Run the module."""
    module = AnsibleModule(
        argument_spec={
            "containers": {"type": "list", "elements": "str", "default": []},
            "port": {"type": "int", "default": 0},
            "urls": {"type": "list", "elements": "str", "default": []},
            "path": {"type": "str", "required": True},
            "host_header": {"type": "str", "default": ""},
            "version": {"type": "str", "default": ""},
            "version_field": {"type": "str", "default": "version"},
            "times": {"type": "int", "default": 1},
            "restarts": {"type": "dict", "default": {}},
            "timeout": {"type": "float", "default": 60},
        },
        supports_check_mode=True,
    )
    options, engine = module.params, Engine()
    started = time.monotonic()
    restarts: dict[str, int] = {}
    for target in options["containers"] + options["urls"]:
        good, wrong, lost = 0, "was not asked", False
        while good < options["times"]:
            try:
                url = target
                if target in options["containers"]:
                    inspected = engine.inspect(target)
                    if target in options["restarts"]:
                        must_have_stayed(inspected, int(options["restarts"][target]))
                    restarts[target] = (inspected or {}).get("RestartCount", 0)
                    url = container_url(inspected, target, options["port"])
                wrong = judge(*ask(url, options["path"], options["host_header"]), options["version"], options["version_field"])
            except GoneError as error:
                wrong, lost = str(error), True
            except (OSError, EngineError) as error:
                wrong = f"does not answer: {error}"
            good = 0 if wrong else good + 1
            if wrong and (lost or time.monotonic() - started > options["timeout"]):
                logs = ""
                if target in options["containers"] and engine.inspect(target) is not None:
                    logs = f"\nLast log lines:\n{engine.logs(target, 20).rstrip()}"
                said = wrong if lost else f"{options['path']} {wrong} after {options['timeout']:g} s"
                module.fail_json(msg=f"{target}{' ' if lost else ''}{said}.{logs}")
            if good < options["times"]:
                time.sleep(INTERVAL)
    module.exit_json(changed=False, seconds=round(time.monotonic() - started, 2), restarts=restarts)


if __name__ == "__main__":
    main()
