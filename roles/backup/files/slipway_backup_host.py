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
import ssl
import subprocess
import sys
from pathlib import Path
from typing import Any

CONFIG = Path(__file__).resolve().parent / "backup.json"
ANSWER_SECONDS = 5


def in_container(config: dict[str, Any], *arguments: str, given: str = "") -> int:
    """Run a command of slipway-backup in its container; return its exit code."""
    command = ["docker", "exec", "--interactive", config["container"], "slipway-backup", *arguments]
    return subprocess.run(command, input=given, text=True, check=False).returncode


def certificate(address: str) -> dict[str, str]:
    """Return the certificate that is served at an address, and its fingerprint; or why there is none."""
    host, _, port = address.rpartition(":")
    try:
        # Not checked: it is to be kept, whoever signed it.
        pem = ssl.get_server_certificate((host.strip("[]"), int(port)), timeout=ANSWER_SECONDS)
    except (OSError, ValueError) as error:
        return {"error": str(error)}
    return {"pem": pem, "sha256": hashlib.sha256(ssl.PEM_cert_to_DER_cert(pem)).hexdigest()}


def digests(images: dict[str, str]) -> dict[str, str]:
    """Return the digests, in their registry, of those images that this host has; the engine's own id where there is none."""
    found = {}
    for name, image in images.items():
        done = subprocess.run(["docker", "image", "inspect", image], capture_output=True, text=True, check=False)
        if done.returncode == 0:
            told = json.loads(done.stdout)[0]
            found[name] = (told.get("RepoDigests") or [told["Id"]])[0]
    return found


def facts(config: dict[str, Any]) -> dict[str, Any]:
    """Return what a recovery point says of the stack and the container cannot see."""
    return {
        "image_digests": digests(config["settings"].get("images", {})),
        "certificates": {address: certificate(address) for address in config["certificates"]},
    }


def main() -> int:
    """Run a command; return the exit code."""
    top = argparse.ArgumentParser(description="Backups of a stack: what needs the engine. docs/backup.md says more.")
    commands = top.add_subparsers(dest="command", required=True)
    made = commands.add_parser("run", help="Make a recovery point")
    made.add_argument("--reason", default="by hand", help="kept in the manifest")
    made.add_argument("--full", action="store_true", help="take a full base backup")
    made.add_argument("--drill", action="store_true", help="restore it afterwards to prove it")
    made.add_argument("--wait", default="0", help="seconds to wait for another run to end")
    arguments = top.parse_args()
    config = json.loads(CONFIG.read_text())
    full = ["--full"] if arguments.full else []
    return in_container(
        config, "run", "--quiet", "--reason", arguments.reason, "--wait", arguments.wait, "--facts", *full, given=json.dumps(facts(config))
    )


if __name__ == "__main__":
    sys.exit(main())
