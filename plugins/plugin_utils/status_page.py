# Copyright (c) The Slipway authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Show the state of a fleet, as status.judge returns it, as one HTML page, with the stack drawn as a picture."""

from __future__ import annotations

import typing as t
from dataclasses import dataclass, field
from pathlib import Path

from jinja2 import Environment, FileSystemLoader, StrictUndefined

from ansible_collections.slipway.stack.plugins.plugin_utils.status import ATTENTION, DOWN, IDLE, WELL, Row
from ansible_collections.slipway.stack.plugins.plugin_utils.status_text import tables

TEMPLATES = Path(__file__).resolve().parents[2] / "playbooks" / "templates"
#: Color is never the only sign of a state.
SIGNS = {WELL: "✓", ATTENTION: "!", DOWN: "✕", IDLE: "·"}
ORDER = (IDLE, WELL, ATTENTION, DOWN)

# In units of the picture.
MARGIN = 16
LINE = 20
BOX_WIDTH = 190
COLUMN_GAP = 90
ROW_GAP = 20


@dataclass
class Box:
    """A service on a host: where it is drawn, and a line for each container that is to run."""

    role: str
    x: int
    y: int
    state: str
    lines: list[tuple[str, str]]

    @property
    def height(self) -> int:
        """The height of title and lines."""
        return LINE * (1 + len(self.lines)) + LINE // 2

    @property
    def middle(self) -> int:
        """Where connections begin and end."""
        return self.y + self.height // 2


@dataclass
class Band:
    """A host with its boxes."""

    host: str
    state: str
    y: int
    height: int
    boxes: list[Box]


@dataclass
class Picture:
    """Hosts one below the other, their services from clients on the left to stores on the right, and the connections between these."""

    width: int = 0
    height: int = MARGIN
    bands: list[Band] = field(default_factory=list)
    #: Each with its two ends, its state, and what is known of it.
    connections: list[dict[str, t.Any]] = field(default_factory=list)


def page(status: Row) -> str:
    """Return the page. Whatever is in a value is text there: the template escapes all of them."""
    environment = Environment(loader=FileSystemLoader(TEMPLATES), autoescape=True, undefined=StrictUndefined, trim_blocks=True)
    return environment.get_template("status.html.j2").render(status=status, tables=tables(status), picture=picture(status), signs=SIGNS)


def picture(status: Row) -> Picture:
    """Return where everything is drawn."""
    depth = _depths(status["connections"])
    found = Picture(width=2 * MARGIN + (max(depth.values(), default=0) + 1) * (BOX_WIDTH + COLUMN_GAP))
    places: dict[tuple[str, str], Box] = {}
    # Of each host how far right its services are.
    reach = {
        row["host"]: max(depth.get(other["role"], 0) for other in status["services"] if other["host"] == row["host"])
        for row in status["services"]
    }
    for host in sorted(status["hosts"], key=lambda host: reach.get(host["host"], 0)):
        band = _band(host, status, depth, found.height)
        places |= {(band.host, box.role): box for box in band.boxes}
        found.bands.append(band)
        found.height += band.height + ROW_GAP
    for connection in status["connections"]:
        start, end = places.get((connection["host"], connection["client"])), places.get((connection["server"], connection["service"]))
        if start and end:
            ends = {"x1": start.x + BOX_WIDTH, "y1": start.middle, "x2": end.x, "y2": end.middle}
            found.connections.append({**connection, **ends})
    return found


def _depths(connections: list[Row]) -> dict[str, int]:
    """Return how many services a client passes before each one; connections lead from left to right."""
    depth = {role: 0 for connection in connections for role in (connection["client"], connection["service"])}
    for _unused in depth:
        for connection in connections:
            depth[connection["service"]] = min(max(depth[connection["service"]], depth[connection["client"]] + 1), len(depth))
    return depth


def _band(host: Row, status: Row, depth: dict[str, int], y: int) -> Band:
    """Return a host with a box for each of its services; of one that does not answer those to which connections lead."""
    rows = [row for row in status["services"] if row["host"] == host["host"] and row["state"] != IDLE]
    reached = [connection["service"] for connection in status["connections"] if connection["server"] == host["host"]]
    bottoms: dict[int, int] = {}
    boxes = []
    for role in dict.fromkeys([row["role"] for row in rows] + reached):
        own = [row for row in rows if row["role"] == role]
        state = max((row["state"] for row in own), key=ORDER.index, default=DOWN)
        column = depth.get(role, 0)
        box = Box(
            role=role,
            x=MARGIN + COLUMN_GAP // 2 + column * (BOX_WIDTH + COLUMN_GAP),
            y=bottoms.get(column, y + 2 * LINE),
            state=state,
            lines=[(row["state"], row["service"]) for row in own] or [(DOWN, "unknown")],
        )
        bottoms[column] = box.y + box.height + LINE // 2
        boxes.append(box)
    return Band(host["host"], host["state"], y, max(bottoms.values(), default=y + 2 * LINE) + LINE // 2 - y, boxes)
