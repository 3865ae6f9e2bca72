# Copyright (c) The Slipway authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Renew the certificate of this balancer when it is due, and have nginx serve it. docs/configure.md describes certificates of ACME.

A timer calls this, without the controller; so does site.yml, for the first one. A certificate that serves is replaced by one that nginx
has accepted, and by nothing else. Needs Python 3 and nothing else.
"""

from __future__ import annotations

import argparse
import contextlib
import fcntl
import hashlib
import json
import os
import shutil
import signal
import sys
import time
import typing as t
import urllib.request
from pathlib import Path

sys.dont_write_bytecode = True
sys.path.insert(0, str(Path(__file__).resolve().parent))

from ansible_collections.slipway.stack.plugins.module_utils import config_files, container_copy  # noqa: E402 - in this file's folder
from ansible_collections.slipway.stack.plugins.module_utils.engine import Engine, EngineError  # noqa: E402
from ansible_collections.slipway.stack.plugins.module_utils.json_files import RENEWAL, json_object  # noqa: E402

JSON = dict[str, t.Any]

CONFIG = Path(__file__).resolve().parent / "acme.json"
STACKS = Path("/etc/slipway")
LOCKS = Path("/run")
#: Seconds for which nginx is waited for, as a release may take a while to bring its configuration, and between two looks.
NGINX_SECONDS, NGINX_PAUSE = 900.0, 2.0
#: Seconds that the container may take beyond the time of an order, and bytes of what it leaves.
GRACE_SECONDS, LIMIT = 60, 262144
LOG_LINES = 20
NGINX = ["nginx", "-e", "stderr"]
#: In the container of nginx; servers.conf.j2 of role nginx includes it.
TLS_CONF = "ssl_certificate /certificates/current/server.pem;\nssl_certificate_key /certificates/current/server.key;\n"


class RenewalError(Exception):
    """There is no new certificate; says why."""


class Renewal:
    """The certificate of this host."""

    def __init__(self, config: JSON, engine: Engine) -> None:
        """Take what the role rendered; nothing is done yet."""
        self.config, self.engine = config, engine
        self.stack = str(config["stack"])
        self.folder = STACKS / self.stack / "acme" / "state"
        self.nginx = f"{self.stack}-nginx"

    def state(self) -> JSON:
        """Return what the last renewal has left."""
        with contextlib.suppress(OSError):
            return json_object((self.folder / "certificate.json").read_bytes(), RENEWAL) or {}
        return {}

    def is_due(self) -> bool:
        """Return whether a certificate is missing, is for other names or from elsewhere, or has a third of its time left."""
        state = self.state()
        # In another order they are the same names.
        if set(state.get("names", ())) != set(self.config["names"]) or state.get("directory_url") != self.config["directory_url"]:
            return True
        with contextlib.suppress(EngineError):
            if not (self.volume() / "current").exists():
                return True
        return state["ends"] - time.time() < renewal_seconds(state)

    def volume(self) -> Path:
        """Return the folder that nginx reads certificates from.

        Raises:
            EngineError: there is no such volume.
        """
        return Path(self.engine.get(f"/volumes/{self.config['volume']}")["Mountpoint"])

    def wait_for_nginx(self) -> None:
        """Wait until nginx of this host answers challenges of this account.

        Raises:
            RenewalError: it does not.
        """
        deadline = time.monotonic() + NGINX_SECONDS
        url, wanted = f"{self.config['nginx_url']}/.well-known/acme-challenge/slipway", f"slipway.{self.config['thumbprint']}"
        direct = urllib.request.build_opener(urllib.request.ProxyHandler({}))
        while True:
            found: object = None
            try:
                found = direct.open(url, timeout=5).read(LIMIT).decode("utf-8", "replace")
            except (OSError, ValueError) as error:
                found = error
            if found == wanted:
                return
            if time.monotonic() > deadline:
                raise RenewalError(f"nginx of this host does not answer challenges at {url}: {str(found)[:200]}")
            time.sleep(NGINX_PAUSE)

    def order(self) -> dict[str, bytes]:
        """Run the client to its end; return the files that it leaves.

        Raises:
            RenewalError: there is no certificate; the message is the client's.
        """
        container, name = f"{self.stack}-acme", f"{self.stack}-acme-renewal"
        inspected = self.engine.inspect(container)
        if inspected is None:
            raise RenewalError(f"the container {container} was removed: site.yml creates it again")
        # Of a program that was killed.
        container_copy.end_copy(self.engine, name, 0)
        with container_copy.following(name) as folder:
            issued = Path(folder) / "issued"
            issued.mkdir(mode=0o700)
            os.chown(issued, int(inspected["Config"]["Labels"]["slipway.uid"]), -1)
            labels = {"slipway.stack": self.stack, "slipway.owner": "acme-renewal", "slipway.service": "acme"}
            files: dict[str, bytes] = {}
            result = "interrupted"
            try:
                binds = [f"{issued}:/issued:rw"]
                identity = container_copy.start_copy(self.engine, container, name, labels, folder, binds=binds)
                result, _code = container_copy.follow_copy(self.engine, identity, float(self.config["timeout"]) + GRACE_SECONDS)
                if result == "succeeded":
                    files = {file: read(issued / file) for file in ("server.pem", "server.key", "times.json")}
            finally:
                log = container_copy.end_copy(self.engine, name, LOG_LINES)
        if result == "deadline":
            raise RenewalError(f"the order was not finished after {self.config['timeout'] + GRACE_SECONDS} s: raise acme_timeout")
        if not files:
            raise RenewalError((log or [f"the client did not end well ({result})"])[-1])
        return files

    def install(self, files: dict[str, bytes]) -> None:
        """Have nginx serve a certificate; where it refuses, it goes on with the one before.

        Raises:
            config_files.RefusedError: it refuses.
            EngineError: nginx cannot be asked.
        """
        inspected = self.engine.inspect(self.nginx)
        if inspected is None:
            raise RenewalError(f"{self.nginx} was removed meanwhile")
        uid, place = int(inspected["Config"]["Labels"]["slipway.uid"]), self.volume()
        revision = hashlib.sha256(files["server.pem"]).hexdigest()[:12]
        config_files.make_folder(str(place / revision))
        for file, content in {**files, "tls.conf": TLS_CONF.encode()}.items():
            if file != "times.json":
                config_files.write_file(str(place / revision / file), content, 0o400, uid)
        previous = config_files.switch(str(place), revision)
        try:
            check = [*NGINX, "-t", "-q", "-c", "/etc/slipway/current/nginx.conf"]
            config_files.run_in_container(self.engine, self.nginx, check, "The check of the new certificate")
            config_files.reload(self.engine, self.nginx, [*NGINX, "-s", "reload", "-c", "/etc/slipway/current/nginx.conf"])
        except BaseException:
            # Also where the program is ended from outside: the next reload of nginx reads what is current.
            if previous:
                config_files.switch(str(place), previous)
            else:
                (place / "current").unlink()
            raise
        for path in place.iterdir():
            if path.is_dir() and not path.is_symlink() and path.name not in {revision, previous}:
                shutil.rmtree(path, ignore_errors=True)

    def note(self, **changes: t.Any) -> None:
        """Keep what came of a renewal, for the next one, playbooks and Prometheus."""
        state = {**self.state(), "attempted": time.time(), **changes}
        # The stack may have been removed meanwhile; its folder would say that it is there.
        if self.folder.parent.is_dir():
            config_files.write_file(str(self.folder / "certificate.json"), json.dumps(state, indent=2) + "\n", 0o644)
            config_files.write_file(str(self.folder / "acme.prom"), metrics(self.stack, state), 0o644)

    def renew(self) -> bool:
        """Renew what is due; return whether there was anything.

        Raises:
            RenewalError: there is no new certificate; the one before serves.
        """
        if not self.is_due():
            return False
        try:
            # With challenges in the DNS, too: a certificate that no nginx can take is lost, and authorities issue few in a week.
            self.wait_for_nginx()
            files = self.order()
            times = json.loads(files["times.json"])
            self.install(files)
        except (RenewalError, config_files.RefusedError, container_copy.CopyError, EngineError, OSError) as error:
            self.note(error=str(error))
            raise RenewalError(str(error)) from error
        except BaseException as error:
            # Whatever has ended it, it is reported, as there is no new certificate.
            self.note(error=f"the renewal ended early: {error!r}")
            raise
        config_files.write_file(str(self.folder / "server.pem"), files["server.pem"], 0o644)
        self.note(error="", **{key: self.config[key] for key in ("names", "directory_url")}, **times)
        return True


def read(path: Path) -> bytes:
    """Return what a file of the client's folder holds: a file, whatever the client may have put in its place."""
    with open(os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK), "rb") as file:
        return file.read(LIMIT)


def renewal_seconds(state: JSON) -> float:
    """Return how long before its end a certificate is renewed: a third of its time."""
    return float(state["ends"] - state["begins"]) / 3


def metrics(stack: str, state: JSON) -> str:
    """Return the state as Prometheus' node_exporter reads it from a file."""
    values = {
        "acme_last_renewal_failed": int(bool(state["error"])),
        "acme_certificate_not_after_seconds": state.get("ends", 0),
        **({"certificate_renewal_seconds": renewal_seconds(state)} if "ends" in state else {}),
    }
    return "".join(f'# TYPE slipway_{name} gauge\nslipway_{name}{{stack="{stack}"}} {value}\n' for name, value in values.items())


def main() -> int:
    """Renew the certificate if it is due; print whether it was, and return 0, or 1 where there is no new one."""
    argparse.ArgumentParser(description="Renew the certificate of this balancer if it is due.").parse_args()
    # What is ended from outside cleans up as after any failure.
    signal.signal(signal.SIGTERM, lambda *_unused: sys.exit(1))
    renewal = Renewal(json.loads(CONFIG.read_text()), Engine())
    with open(LOCKS / f"slipway-{renewal.stack}-acme.lock", "w", encoding="utf-8") as lock:
        # site.yml and the timer may both call; the second finds nothing left to do.
        fcntl.flock(lock, fcntl.LOCK_EX)
        try:
            renewed = renewal.renew()
        except RenewalError as error:
            print(error, file=sys.stderr)
            return 1
    print("renewed" if renewed else "not due")
    return 0


if __name__ == "__main__":
    sys.exit(main())
