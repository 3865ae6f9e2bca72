# Copyright (c) The Slipway authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The part of the backups that needs the engine, run on the backup host by timers, playbooks and people alike.

Needs Python 3 and the command docker, nothing else.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
from pathlib import Path

CONFIG = Path(__file__).resolve().parent / "backup.json"


def in_container(config: dict[str, object], *arguments: str) -> int:
    """Run a command of slipway-backup in its container; return its exit code."""
    return subprocess.run(["docker", "exec", str(config["container"]), "slipway-backup", *arguments], check=False).returncode


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
    return in_container(config, "run", "--reason", arguments.reason, "--wait", arguments.wait, *(["--full"] if arguments.full else []))


if __name__ == "__main__":
    sys.exit(main())
