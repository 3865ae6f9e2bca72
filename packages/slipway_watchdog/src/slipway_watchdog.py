# Copyright (c) The Slipway authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Write the figures of a stack's containers for Prometheus, and restart one that stays unhealthy; a timer starts it.

docs/operate.md describes what comes of it.
"""

from __future__ import annotations

import contextlib
import json
import sys
import time
import typing as t
from pathlib import Path

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE))

import container_metrics  # noqa: E402 - found by the path above
import drift  # noqa: E402 - found by the path above
import edge_requests  # noqa: E402 - found by the path above
import host_metrics  # noqa: E402 - found by the path above
import listeners  # noqa: E402 - found by the path above
import oom_kills  # noqa: E402 - found by the path above
import restarts  # noqa: E402 - found by the path above
import state_files  # noqa: E402 - found by the path above
from ansible_collections.slipway.stack.plugins.module_utils.engine import Engine, EngineError  # noqa: E402

JSON = dict[str, t.Any]

STACKS = Path("/etc/slipway")
CONFIG = HERE / "watchdog.json"
#: Of a stack, while a restore exchanges data: it starts and stops the product and the stores itself.
RESTORE = "restore/under_way.json"
#: An engine that takes longer is not waited for: the timer starts the next pass.
SECONDS = 20.0


def serving_slot(stack: str) -> str:
    """Return the slot that serves on this host, or "" where none does."""
    try:
        return str(json.loads((STACKS / stack / "release/state.json").read_text())["slot"])
    except (OSError, ValueError, KeyError, TypeError):
        return ""


def containers(engine: Engine, stack: str) -> list[JSON]:
    """Return the stack's containers by name, as the engine describes them; one that is removed meanwhile is none."""
    listed = engine.get("/containers/json", all="1", filters=json.dumps({"label": [f"slipway.stack={stack}"]}))
    found = [inspected for short in listed if (inspected := engine.inspect(short["Id"]))]
    return sorted(found, key=lambda inspected: str(inspected["Name"]))


def main() -> int:
    """Make a pass; return 0, or 1 where the engine does not answer."""
    config = json.loads(CONFIG.read_text())
    stack = config["stack"]
    folder = STACKS / stack / "watchdog/state"
    engine, limits = Engine(timeout=SECONDS), restarts.Limits(**config["restarts"])
    kills, now = oom_kills.Kills(folder / "oom_kills.json"), time.time()
    try:
        found = containers(engine, stack)
        kills.see(engine, stack, found, now)
        # Ports of containers of others are open as well.
        everything = engine.get("/containers/json")
    except EngineError as error:
        print(error, file=sys.stderr)
        return 1
    # The stack may be removed meanwhile; its folder would say that it is there.
    with contextlib.suppress(FileNotFoundError):
        folder.mkdir(exist_ok=True)
        memory, slot = restarts.Memory(folder / "restarts.json"), serving_slot(stack)
        memory.see(found, now)
        figures = {
            str(inspected["Id"]): {
                "oom_kills_total": kills.totals[restarts.name_of(inspected)],
                **restarts.figures(inspected, memory, limits, slot),
            }
            for inspected in found
        }
        memory.gave_up = [restarts.name_of(inspected) for inspected in found if figures[inspected["Id"]].get("watchdog_gave_up")]
        samples = (sample for inspected in found for sample in container_metrics.samples(stack, inspected, slot, figures[inspected["Id"]]))
        expected = {restarts.name_of(inspected): container_metrics.is_expected(inspected, slot) for inspected in found}
        texts = {
            "containers.prom": container_metrics.text(samples),
            "drift.prom": drift.text(STACKS / stack, folder / "expected.json", expected),
            **edge_requests.texts(stack, folder / "requests.json", found),
            **listeners.texts(stack, config["declared"], everything),
            **host_metrics.texts(STACKS / stack, folder, config["metrics_files"]),
        }
        for name, text in texts.items():
            state_files.write(folder / name, text)
        for left in folder.glob("*.prom"):
            if left.name not in texts:
                left.unlink()
        memory.write()
        kills.write()
        # Last, as it may take as long as the container takes to end, and one in a pass.
        ill = () if (STACKS / stack / RESTORE).exists() else restarts.due(found, memory, limits, slot, now)
        if said := next(filter(None, (restarts.restart(engine, stack, inspected, memory, now) for inspected in ill)), ""):
            print(said, file=sys.stderr)
    return 0


if __name__ == "__main__":
    sys.exit(main())
