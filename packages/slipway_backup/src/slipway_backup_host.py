# Copyright (c) The Slipway authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The part of the backups that needs the host or its engine, run there by timers, playbooks and people alike.

Needs Python 3 and the command docker, nothing else.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import signal
import ssl
import subprocess
import sys
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

sys.dont_write_bytecode = True
sys.path.insert(0, str(Path(__file__).resolve().parent))

from slipway_host import restore, sandbox  # noqa: E402 - they are in this file's folder

CONFIG = Path(__file__).resolve().parent / "backup.json"
ANSWER_SECONDS = 5
#: Exit code of slipway-backup run.
MADE_BUT_PARTIAL = 2


def in_container(config: dict[str, Any], *arguments: str, given: str = "") -> int:
    """Run a command of slipway-backup in its container; return its exit code."""
    command = ["docker", "exec", "--interactive", config["container"], "slipway-backup", *arguments]
    return subprocess.run(command, input=given, text=True, check=False).returncode


def certificate(address: str) -> dict[str, str]:
    """Return the certificate that is served at an address, and its fingerprint; or why there is none."""
    host, _unused, port = address.rpartition(":")
    try:
        # Not checked: it is to be kept, whoever signed it.
        pem = ssl.get_server_certificate((host.strip("[]"), int(port)), timeout=ANSWER_SECONDS)
    except (OSError, ValueError) as error:
        return {"error": str(error)}
    return {"pem": pem, "sha256": hashlib.sha256(ssl.PEM_cert_to_DER_cert(pem)).hexdigest()}


def inspected(kind: str, names: Iterable[str]) -> list[dict[str, Any]]:
    """Return what the engine says of those containers or images that are there."""
    done = subprocess.run(["docker", kind, "inspect", *names], capture_output=True, text=True, check=False)
    return list(json.loads(done.stdout or "[]"))


def digests(stack: str, services: Iterable[str]) -> dict[str, str]:
    """Return the digests, in their registry, of the images that services run on this host; the engine's own id where there is none."""
    # Not by the images' names: drills have images here of stores that run elsewhere.
    containers = inspected("container", [f"{stack}-{name}" for name in services])
    used = {container["Name"].removeprefix(f"/{stack}-"): container["Image"] for container in containers}
    known = {image["Id"]: image.get("RepoDigests") for image in inspected("image", sorted(set(used.values())))} if used else {}
    return {name: (known.get(image) or [image])[0] for name, image in used.items()}


def facts(config: dict[str, Any], seen: dict[str, Any]) -> dict[str, Any]:
    """Return what a recovery point says of the stack and the container cannot see.

    Args:
        config: backup.json.
        seen: what a controller says, where one began the run: ``inventory_sha256``, ``version`` and ``image_digests``.
    """
    # Not part of the role's configuration: each edit of the inventory, and each release, would change the backups' too.
    read = {"inventory_read": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())} if seen else {}
    return {
        **seen,
        **read,
        "image_digests": {**digests(config["stack"], config["settings"].get("images", {})), **seen.get("image_digests", {})},
        "certificates": {address: certificate(address) for address in config["certificates"]},
    }


def do_run(config: dict[str, Any], arguments: argparse.Namespace) -> int:
    """Make a recovery point, and where asked restore it to prove it."""
    full = ["--full"] if arguments.full else []
    code = in_container(
        config,
        "run",
        "--quiet",
        "--reason",
        arguments.reason,
        "--wait",
        f"{arguments.wait:g}",
        "--facts",
        *full,
        given=json.dumps(facts(config, json.loads(arguments.seen))),
    )
    # A point that is not off-site yet, or lacks a volume, can be proven all the same.
    if not arguments.drill or code not in {0, MADE_BUT_PARTIAL}:
        return code
    arguments.point = "latest"
    return do_drill(config, arguments) or code


def do_drill(config: dict[str, Any], arguments: argparse.Namespace) -> int:
    """Restore a point into throw-away containers, check it, and mark it verified or failed."""
    told = restore.drill(config, arguments.point, arguments.wait)
    print(json.dumps(told))
    return 0 if told["result"] == "verified" else 1


def named(stores: str) -> list[str]:
    """Return the stores that were given, with commas between them."""
    return [store for store in stores.split(",") if store]


def do_choose(config: dict[str, Any], arguments: argparse.Namespace) -> int:
    """Print which point a restore would use, or why none."""
    print(json.dumps(restore.choose(config, arguments.point, named(arguments.stores), arguments.target_time)))
    return 0


def do_stage(config: dict[str, Any], arguments: argparse.Namespace) -> int:
    """Restore a point into separate volumes, which restore.yml exchanges with the stack's."""
    print(json.dumps(restore.stage(config, "restore", arguments.point, named(arguments.stores), arguments.target_time)))
    return 0


def do_hand_over(config: dict[str, Any], arguments: argparse.Namespace) -> int:
    """Offer a staged volume to its host, once."""
    print(json.dumps(restore.hand_over(config, arguments.store, arguments.address, arguments.port)))
    return 0


def do_unstage(config: dict[str, Any], _unused: argparse.Namespace) -> int:
    """Remove what stage created."""
    print(json.dumps(restore.remove(config, "restore")))
    return 0


def do_inspect(config: dict[str, Any], arguments: argparse.Namespace) -> int:
    """Restore a point into containers to look into."""
    if arguments.remove:
        print(json.dumps(restore.remove(config, "inspect")))
        return 0
    print(json.dumps(restore.stage(config, "inspect", arguments.point, named(arguments.stores), arguments.target_time)))
    return 0


def parser() -> argparse.ArgumentParser:
    """Return the description of the command line."""
    top = argparse.ArgumentParser(description="Backups of a stack, the part that needs the engine; see docs/backup.md.")
    commands = top.add_subparsers(dest="command", required=True)

    def add(name: str, action: Callable[[dict[str, Any], argparse.Namespace], int]) -> argparse.ArgumentParser:
        made = commands.add_parser(name, help=(action.__doc__ or "").rstrip("."))
        made.set_defaults(action=action)
        return made

    made = add("run", do_run)
    made.add_argument("--reason", default="by hand", help="kept in the manifest")
    made.add_argument("--full", action="store_true", help="take a full base backup")
    made.add_argument("--drill", action="store_true", help="restore it afterwards to prove it")
    made.add_argument("--seen", default="{}", help="facts of the controller, as JSON: inventory_sha256, version and image_digests")
    made.add_argument("--wait", type=float, default=0, help="seconds to wait for another run to end, and then for another drill")
    made = add("drill", do_drill)
    made.add_argument("point", nargs="?", default="latest", help="name, or latest")
    made.add_argument("--wait", type=float, default=0, help="seconds to wait for another drill to end")
    for made in (add("choose", do_choose), add("stage", do_stage), add("inspect", do_inspect)):
        made.add_argument("point", nargs="?", default="latest", help="name, or latest")
        made.add_argument("--stores", default="", help="stores, with commas between them (default: all of the point)")
        made.add_argument("--target-time", default="", help="PostgreSQL: a moment with its time zone, or end for all WAL that has arrived")
    made.add_argument("--remove", action="store_true", help="remove what an earlier inspect left running")
    made = add("hand-over", do_hand_over)
    made.add_argument("store", help="end of the staged volume's name: postgres, redis, chroma, volume-0 and so on")
    made.add_argument("address", help="of this host, as the other one reaches it")
    made.add_argument("port", type=int)
    add("unstage", do_unstage)
    return top


def main() -> int:
    """Run a command; return the exit code: 0 done, 1 failed, 3 another run is doing the same."""
    arguments = parser().parse_args()
    # What is ended from outside cleans up as after any failure.
    signal.signal(signal.SIGTERM, lambda *_unused: sys.exit(1))
    try:
        return int(arguments.action(json.loads(CONFIG.read_text()), arguments))
    except sandbox.HostError as error:
        # For people, and for playbooks.
        sandbox.say(str(error))
        print(json.dumps({"error": str(error), "absent": isinstance(error, sandbox.AbsentError)}))
        return 3 if isinstance(error, sandbox.BusyError) else 1


if __name__ == "__main__":
    sys.exit(main())
