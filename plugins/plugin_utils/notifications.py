# Copyright (c) The Slipway authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Notifications: which runs send one, what it says, and how it is sent within a bound.

docs/notifications.md describes the message. A run sends it from a process of its own, which runs this file: whatever a target does,
down to the name server that does not answer, the process is killed when the time is over. So this file imports nothing of Ansible.
A target's URL is a secret: it reaches the process on standard input, and no message has it.
"""

from __future__ import annotations

import base64
import concurrent.futures
import contextlib
import http.client
import importlib
import json
import logging
import string
import subprocess
import sys
import typing as t
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Mapping, Sequence

#: What all targets of a run together may take.
SECONDS = 3.0
SCHEMA_VERSION = 1
#: Playbooks that send one, and of what.
EVENTS = {"deploy": "release", "rollback": "release", "site": "release", "rotate": "rotation", "backup": "backup", "drill": "drill"}
#: Of these, of failures alone.
ONLY_FAILED = ("backup", "drill")
SHOWN_FAILURES = 3
SHOWN_CHARACTERS = 500
RECOVERED = {"undo": "undid the release of an earlier run that was interrupted", "finish": "completed an earlier run's interrupted release"}

Message = dict[str, t.Any]


def is_sent(report: Mapping[str, t.Any]) -> bool:
    """Return whether a run sends a notification, by its report."""
    event, failed = EVENTS.get(report["playbook"], ""), report["result"] == "failed"
    if not event or report["check_mode"]:
        return False
    if report["playbook"] == "site" and report.get("outcome", "unchanged") == "unchanged" and not report.get("recovered"):
        return failed
    return failed or event not in ONLY_FAILED


def message(report: Mapping[str, t.Any], run: Mapping[str, t.Any], stack: str) -> Message:
    """Return the notification of a run.

    Args:
        report: The run's report, without secrets.
        run: Its line in the history.
        stack: Name of the stack.
    """
    event = EVENTS[report["playbook"]]
    refused = event == "release" and report["result"] == "failed" and not report["changed"]
    found = {
        "schema_version": SCHEMA_VERSION,
        "event": event,
        **run,
        # A rotation has several releases, and the report is of the last one.
        "outcome": report["result"] if event == "rotation" else report.get("outcome") or ("refused" if refused else run["result"]),
        "stack": stack,
        "inventory": report["inventory"],
        "wanted": str(report.get("wanted", "")),
        "previous": str(report.get("previous", "")),
        "recovered": report.get("recovered", ""),
        "duration_s": report["duration_s"],
        "failed": [
            {"host": entry["host"], "task": entry["task"], "message": entry["message"][:SHOWN_CHARACTERS]}
            for entry in report["failed"][:SHOWN_FAILURES]
        ],
    }
    version = f" {found['wanted']}" if event == "release" and found["wanted"] else ""
    title = f"{stack}: {event}{version} {found['outcome'].replace('_', ' ')}"
    return {"title": title, "text": "\n".join(_lines(found)), **found}


def _lines(message: Message) -> list[str]:
    """Return a message's text, line by line."""
    lines = [f"{message['playbook']}.yml ended after {message['duration_s']:.0f} s ({', '.join(message['inventory'])})."]
    if message["version"]:
        before = f", before {message['previous']}" if message["previous"] else ""
        lines.append(f"Version {message['version']} serves{before}.")
    if message["requests_lost"] is not None:
        lines.append(f"{message['requests_lost']} requests lost.")
    if message["recovered"]:
        lines.append(f"The run first {RECOVERED.get(message['recovered'], message['recovered'])}.")
    lines += [f"Failed on {entry['host']}: {entry['task']}: {entry['message']}" for entry in message["failed"]]
    return [*lines, f"By {message['user']} on {message['controller']}, {message['finished']}."]


def send(targets: Sequence[str], message: Message, seconds: float = SECONDS) -> dict[int, str]:
    """Send a message to all targets at once; return, by number of the target, why it did not arrive.

    Args:
        targets: URLs.
        message: The message.
        seconds: After which those that have not answered count as failed.
    """
    if not targets:
        return {}
    failed = dict.fromkeys(range(len(targets)), late(seconds))
    pipe = subprocess.PIPE
    # -P: nothing in this file's folder stands for a module of Python's.
    process = subprocess.Popen([sys.executable, "-P", __file__], stdin=pipe, stdout=pipe, stderr=subprocess.DEVNULL, text=True)
    try:
        printed, _unused = process.communicate(json.dumps({"targets": list(targets), "message": message}), timeout=seconds)
    except subprocess.TimeoutExpired:
        process.kill()
        printed, _unused = process.communicate()
    for line in printed.splitlines():
        # The last one may be cut off.
        with contextlib.suppress(ValueError):
            number, reason = json.loads(line)
            failed[number] = reason
    return {number: reason for number, reason in failed.items() if reason}


def late(seconds: float) -> str:
    """Return the reason of a target that has not answered in time."""
    return f"no answer within {seconds:g} s"


def kind_of(url: str) -> str:
    """Return the part of a URL before ://, the only one that is not secret."""
    scheme, separator, _secret = url.partition("://")
    return scheme.lower() if separator and scheme.replace("+", "").replace("-", "").isalnum() and len(scheme) <= 32 else ""


def is_webhook(url: str) -> bool:
    """Return whether a target gets the message as JSON, rather than as apprise sends it."""
    return kind_of(url) in ("http", "https")


def _apprise() -> t.Any:
    """Return the library, without its log: that has URLs.

    Raises:
        ImportError: It is not installed.
    """
    log = logging.getLogger("apprise")
    log.propagate, log.disabled = False, True
    return importlib.import_module("apprise")


def apprise_problem(url: str) -> str:
    """Return what follows "must be" about a URL that apprise does not take, or ""."""
    webhook, kind = "the URL of a webhook, as https://hooks.example.com/x", kind_of(url)
    if not kind:
        return f"{webhook}, or one of apprise, as slack://… or mailto://…"
    try:
        library = _apprise()
    except ImportError:
        return f"{webhook}, unless the controller has the package apprise, which sends to {kind}://: `python3 -m pip install apprise`"
    if library.Apprise.instantiate(url, suppress_exceptions=True) is not None:
        return ""
    if kind in library.manager_plugins.NotificationManager().schemas():
        return f"a complete URL of apprise's kind {kind}://; try it by `apprise --body=test <URL>`"
    return f"{webhook}, or of a kind that apprise knows, which {kind}:// is not"


class _NoRedirect(urllib.request.HTTPRedirectHandler):
    """A POST that is redirected would arrive as a GET, without its body."""

    def redirect_request(self, *_arguments: t.Any) -> None:
        """Take it for an answer."""


def _post(url: str, message: Message, seconds: float) -> str:
    """Post a message as JSON; return why it did not arrive, or ""."""
    parts = urllib.parse.urlsplit(url)
    headers = {"Content-Type": "application/json", "User-Agent": "slipway"}
    if parts.username is not None:
        login = f"{urllib.parse.unquote(parts.username)}:{urllib.parse.unquote(parts.password or '')}"
        headers["Authorization"] = f"Basic {base64.b64encode(login.encode()).decode()}"
    plain = parts._replace(netloc=parts.netloc.rpartition("@")[2], fragment="").geturl()
    # As browsers write it: Python sends ASCII alone. What is encoded already stays.
    plain = urllib.parse.quote(plain, safe=string.punctuation)
    # The form of the input has let http and https through alone.
    request = urllib.request.Request(plain, json.dumps(message).encode(), headers)  # noqa: S310
    try:
        with urllib.request.build_opener(_NoRedirect).open(request, timeout=seconds):
            return ""
    except urllib.error.HTTPError as error:
        return f"status {error.code}"
    except (OSError, ValueError, http.client.HTTPException) as error:
        reason = error.reason if isinstance(error, urllib.error.URLError) else error
        if isinstance(reason, TimeoutError):
            return late(seconds)
        # Words of the system. Others may have the URL in them.
        return (isinstance(reason, OSError) and reason.strerror) or f"no answer of HTTP ({type(reason).__name__})"


def _deliver(url: str, message: Message, seconds: float) -> str:
    """Send a message to a target; return why it did not arrive, or ""."""
    if is_webhook(url):
        return _post(url, message, seconds)
    library = _apprise()
    good = {"released": "success", "ok": "success", "unchanged": "info"}
    target = library.Apprise.instantiate(url, suppress_exceptions=True)
    sent = target is not None and target.notify(
        title=message["title"], body=message["text"], notify_type=good.get(message["outcome"], "failure")
    )
    return "" if sent else "apprise could not deliver it; try `apprise --body=test <URL>` on the controller"


def main() -> None:
    """Send what standard input says; print a line for each target as soon as it is known."""
    asked = json.load(sys.stdin)
    with concurrent.futures.ThreadPoolExecutor(max_workers=len(asked["targets"])) as pool:
        sent = {pool.submit(_deliver, url, asked["message"], SECONDS): number for number, url in enumerate(asked["targets"])}
        for done in concurrent.futures.as_completed(sent):
            problem = done.exception()
            print(json.dumps([sent[done], type(problem).__name__ if problem else done.result()]), flush=True)


if __name__ == "__main__":
    main()
