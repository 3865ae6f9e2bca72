# Copyright (c) The Slipway authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Say on the screen where a release is, and keep the time of each step. See its documentation."""

from __future__ import annotations

import json
import tempfile
import time
from pathlib import Path
from typing import Any

from ansible.plugins.action import ActionBase
from ansible.utils.display import Display

display = Display()


class ActionModule(ActionBase):  # type: ignore[misc]
    """Keeps its notes in one small file, as the steps run in different processes."""

    _requires_connection = False

    def run(self, tmp: str | None = None, task_vars: dict[str, Any] | None = None) -> dict[str, Any]:
        """Begin a step, and end the one before."""
        result: dict[str, Any] = super().run(tmp, task_vars)
        _spec, options = self.validate_argument_spec(
            argument_spec={
                "run": {"type": "str", "required": True},
                "name": {"type": "str", "required": True},
                "report": {"type": "dict", "default": {}},
            }
        )
        file = Path(tempfile.gettempdir()) / f"slipway-release-{options['run']}.json"
        steps: list[dict[str, Any]] = json.loads(file.read_text(encoding="utf-8")) if file.is_file() else []
        now = time.time()
        if steps and "seconds" not in steps[-1]:
            steps[-1]["seconds"] = round(now - steps[-1]["began"], 2)
            display.display(f"release: {steps[-1]['name']} took {steps[-1]['seconds']:.1f} s")
        if options["report"]:
            file.unlink(missing_ok=True)
            seconds: dict[str, float] = {}
            for step in steps:
                seconds[step["name"]] = round(seconds.get(step["name"], 0.0) + step["seconds"], 2)
            result["report"] = {**options["report"], "steps": seconds, "seconds": round(sum(seconds.values()), 2)}
        else:
            steps.append({"name": options["name"], "began": now})
            file.write_text(json.dumps(steps), encoding="utf-8")
            display.display(f"release: {options['name']}")
        result.update(changed=False, step=options["name"])
        return result
