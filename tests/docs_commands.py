"""The commands in README.md and docs/, for the tests that check or run them.

Blocks fenced as bash hold commands. Words behind the language say more: `host`, they are run on a host of the stack; `safe`, they only
read, and the tests run them against the demo.
"""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).resolve().parents[1]
LANGUAGES = ("bash", "sh", "shell", "console")
KINDS = ("command", "host", "safe", "host safe")
FENCE = re.compile(r"^\s*```\s*(.*)$")


class Command(NamedTuple):
    """A command as a reader would copy it.

    kind is "safe" (run it on the controller), "host safe" (run it on a host), "command" or "host" (do not run it as it stands).
    """

    file: Path
    line: int
    command: str
    kind: str


def documents() -> list[Path]:
    """Return the pages whose commands users copy."""
    return [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").rglob("*.md"))]


def commands(files: list[Path] | None = None) -> Iterator[Command]:
    """Yield each command of the shell blocks, in order; one that continues behind a backslash is one command."""
    for file in files or documents():
        kind: str | None = None
        inside = False
        parts: list[str] = []
        first = 0
        for number, text in enumerate(file.read_text().splitlines(), 1):
            fence = FENCE.match(text)
            if fence:
                if parts:
                    raise ValueError(f"{file}:{first}: the block ends behind a backslash")
                words = [] if inside else fence[1].split()
                inside = not inside
                kind = " ".join(sorted(words[1:])) or "command" if words and words[0] in LANGUAGES else None
                if kind is not None and kind not in KINDS:
                    raise ValueError(f"{file}:{number}: {kind} is none of {', '.join(KINDS)}")
                continue
            line = text.strip()
            if kind is None or (not parts and (not line or line.startswith("#"))):
                continue
            first = first if parts else number
            parts.append(line.removesuffix("\\").rstrip())
            if not line.endswith("\\"):
                yield Command(file, first, " ".join(parts), kind)
                parts = []


def split(command: str) -> tuple[dict[str, str], list[str]]:
    """Return a command's settings of the environment in front of it, and its words."""
    words = shlex.split(command, comments=True)
    settings = {}
    while words and re.fullmatch(r"[A-Z_]+=.*", words[0]):
        name, _, value = words.pop(0).partition("=")
        settings[name] = value
    return settings, words


def argv_in_lab(item: Command, lab: str = "lab", host: str = "lab1", https_port: int = 8443) -> list[str]:
    """Return what runs a safe command in a lab of another name than the pages', from the root of the repository.

    Raises:
        ValueError: The command is not marked as safe.
    """
    if "safe" not in item.kind.split():
        raise ValueError(f"{item.file}:{item.line} is not marked as safe: {item.command}")
    if item.kind == "host safe":
        return ["docker", "exec", f"{lab}-{host}", "bash", "-c", item.command]
    command = item.command.replace("inventories/lab", f"inventories/{lab}").replace("lab-lab1", f"{lab}-{host}")
    return ["bash", "-c", command.replace("localhost:8443", f"localhost:{https_port}")]
