# Copyright (c) The Slipway authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The command line. Exit codes: 0 done, 1 failed, 2 the point is there but not off-site, or lacks a volume, 3 locked by another run."""

from __future__ import annotations

import argparse
import getpass
import json
import os
import signal
import sys
import typing as t
from pathlib import Path

from slipway_backup import chroma, exchange, offsite, points, postgres, report, restore, run, send, serve
from slipway_backup.common import CONFIG, BusyError, Config, StepError, load_config, locked, now, point_name, say, write_atomically

RUN_NICENESS = 19


def human(seconds: float) -> str:
    """Return an age as a person says it."""
    for unit, length in (("d", 86400), ("h", 3600), ("min", 60)):
        if abs(seconds) >= 2 * length:
            return f"{seconds / length:.0f} {unit}"
    return f"{seconds:.0f} s"


def table(entries: t.Iterable[dict[str, t.Any]]) -> str:
    """Return a list of points for a person."""
    rows = [("POINT", "AGE", "SIZE", "STORES", "VERIFIED", "OFF-SITE")]
    rows += [
        (
            entry["name"],
            human(entry["age_s"]),
            f"{entry['bytes'] / 2**20:.1f} MB",
            ",".join(entry["stores"]) + (f" without {', '.join(entry['missing'])}" if entry["missing"] else ""),
            (entry["verified"] or "not yet") + (f": {entry['reason']}" if entry["verified"] == "failed" else ""),
            "yes" if entry["offsite"] else "no",
        )
        for entry in entries
    ]
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    return "\n".join("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows)


def do_serve(config: Config, _unused: argparse.Namespace) -> None:
    """Keep WAL streaming."""
    serve.serve(config)


def do_health(config: Config, _unused: argparse.Namespace) -> None:
    """Check whether WAL streams."""
    trouble = serve.health(config)
    if trouble:
        raise StepError(trouble)


def do_reload(config: Config, arguments: argparse.Namespace) -> None:
    """Reload the first process; or only check whether a configuration is valid."""
    if arguments.validate:
        serve.check_config(Path(arguments.validate))
        return
    del config
    os.kill(1, signal.SIGHUP)


def set_aside(config: Config) -> str:
    """Have the receiver move all local points aside, and start over; return the folder."""
    name = point_name(now())
    write_atomically(config.state / serve.START_OVER, name)
    serve.wait_until_obeyed(config)
    return str(config.data / "aside" / name)


def do_start_over(config: Config, arguments: argparse.Namespace) -> t.Any:
    """Restart WAL streaming, after the database was restored; or start over, for a database that was re-created."""
    if not arguments.cluster:
        write_atomically(config.state / serve.START_OVER, "")
        return None
    if arguments.cluster != config.stack:
        raise StepError(f"to start over, give the name of this stack: {config.stack}, not {arguments.cluster}")
    with locked(config, wait=arguments.wait):
        connection = postgres.connect(config)
        try:
            other = postgres.other_cluster(config, connection)
        finally:
            connection.close()
        if not other:
            raise StepError("PostgreSQL is still the database cluster of the existing points: there is no reason to start over")
        return {"aside": set_aside(config)}


def do_exchange(config: Config, arguments: argparse.Namespace) -> None:
    """Record that a restore begins or ends to exchange the data of the stack; a run that is in progress fails."""
    exchange.record(config, under_way=arguments.step == "begin")


def do_run(config: Config, arguments: argparse.Namespace) -> t.Any:
    """Make a recovery point."""
    # Behind the receiver in the same container: commits may wait for that one.
    os.nice(RUN_NICENESS)
    facts = json.loads(sys.stdin.read() or "{}") if arguments.facts else {}
    with locked(config, wait=arguments.wait) as sharing:
        manifest = run.run(config, arguments.reason, arguments.full, facts, sharing)
    return None if arguments.quiet else manifest


def do_list(config: Config, arguments: argparse.Namespace) -> t.Any:
    """Show the points."""
    if arguments.offsite:
        return [{"name": name, "time": snapshot["time"]} for name, snapshot in sorted(offsite.read_snapshots(config).items())]
    return [points.summary(point) for point in points.read_points(config)]


def do_check(config: Config, arguments: argparse.Namespace) -> t.Any:
    """Look at everything and change nothing."""
    content = report.build(config)
    if offsite.enabled(config):
        offsite.check(config, arguments.read_data)
    if content["alerts"]:
        raise StepError("; ".join(content["alerts"]))
    return content


def do_prune(config: Config, arguments: argparse.Namespace) -> t.Any:
    """Apply the retention."""
    with locked(config, wait=arguments.wait) as sharing:
        gone = run.prune(config, sharing)
        report.write(config)
        return gone


def do_ship(config: Config, arguments: argparse.Namespace) -> t.Any:
    """Copy off-site what is missing there."""
    with locked(config, wait=arguments.wait) as sharing:
        try:
            with sharing():
                return run.make_up(config)
        finally:
            report.write(config)


def do_add_password(config: Config, _unused: argparse.Namespace) -> None:
    """Let another password, asked for or read from standard input, open the off-site repository."""
    given = getpass.getpass("New password: ") if sys.stdin.isatty() else sys.stdin.read().rstrip("\n")
    offsite.add_password(config, given)


def do_fetch(config: Config, arguments: argparse.Namespace) -> t.Any:
    """Fetch a point from the off-site repository."""

    def make_way(manifest: dict[str, t.Any]) -> None:
        """Keep the WAL of two database clusters apart: segments of the same name would be each other's."""
        wanted = manifest["stores"].get("postgres", {}).get("system_identifier")
        here = {point.manifest["stores"]["postgres"]["system_identifier"] for point in points.read_points(config) if point.chain}
        if wanted and here - {wanted}:
            if not arguments.set_aside:
                raise StepError(
                    f"{manifest['name']} is of another database cluster than the local points. To restore it in place, and move these "
                    f"aside, give the name of the stack: -e restore_confirm={config.stack}, without -e into=inspect"
                )
            say(f"fetch: {manifest['name']} is of another database cluster than the local points, which are in {set_aside(config)} now")

    before = None if arguments.target_time in {"", restore.END} else restore.parse_time(arguments.target_time)
    with locked(config, wait=arguments.wait):
        return offsite.fetch(config, arguments.point, make_way, before)


def do_verify(config: Config, arguments: argparse.Namespace) -> None:
    """Compare a point's files with what was written."""
    with locked(config, shared=True, wait=arguments.wait):
        faults = list(run.verify(config, arguments.point))
    if faults:
        raise StepError("; ".join(faults))


def do_extract(config: Config, arguments: argparse.Namespace) -> t.Any:
    """Write a store's data into a folder."""
    with locked(config, shared=True, wait=arguments.wait):
        return restore.extract(config, arguments.store, arguments.point, Path(arguments.folder), arguments.target_time, arguments.owner)


def do_room(config: Config, arguments: argparse.Namespace) -> t.Any:
    """Print how many bytes a restore may write."""
    return {"bytes": restore.room(config, arguments.point, arguments.stores.split(","), arguments.target_time)}


def do_load_chroma(config: Config, arguments: argparse.Namespace) -> t.Any:
    """Write a point's collections into a Chroma server."""
    with locked(config, shared=True, wait=arguments.wait):
        point = points.find_point(config, arguments.point)
        faults = [fault for fault in points.file_faults(point) if fault.startswith("chroma/")]
        if faults:
            raise StepError(f"the point {point.name} is damaged: {'; '.join(faults)}")
        return chroma.load(arguments.url, point.folder / "chroma", point.manifest["stores"]["chroma"]["collections"])


def do_send(_unused: Config, arguments: argparse.Namespace) -> None:
    """Transfer a folder to another host, once."""
    send.send(Path(arguments.folder), arguments.port)


def do_mark(config: Config, arguments: argparse.Namespace) -> None:
    """Record a drill's result, read from standard input."""
    detail = json.loads(sys.stdin.read() or "{}") if arguments.detail == "-" else json.loads(Path(arguments.detail).read_text())
    points.record_verdict(config, arguments.point, arguments.result, detail)
    report.write(config)


def do_restore_point(config: Config, arguments: argparse.Namespace) -> t.Any:
    """Mark this moment in the WAL of PostgreSQL under a name."""
    return postgres.mark_by_name(config, arguments.name)


def do_show(config: Config, arguments: argparse.Namespace) -> t.Any:
    """Print a point's manifest."""
    return points.find_point(config, arguments.point).manifest


def do_report(config: Config, _unused: argparse.Namespace) -> t.Any:
    """Update the report."""
    try:
        return report.write(config)
    except OSError as error:
        # The report itself says that the disk is full.
        say(f"slipway-backup: the report cannot be written to {error.filename or config.data}: {error.strerror}")
        return report.build(config)


def parser() -> argparse.ArgumentParser:
    """Return the description of the command line."""
    top = argparse.ArgumentParser(prog="slipway-backup", description="Recovery points of a stack; see docs/backup.md.")
    top.add_argument("--config", default=str(CONFIG), help="configuration file (default: the role's)")
    top.add_argument("--data", default="", help="folder of the data (default: as configured)")
    top.add_argument("--json", action="store_true", help="print JSON")
    commands = top.add_subparsers(dest="command", required=True)

    def add(name: str, action: t.Callable[..., t.Any], **settings: t.Any) -> argparse.ArgumentParser:
        made = commands.add_parser(name, help=(action.__doc__ or "").rstrip("."), **settings)
        made.set_defaults(action=action)
        made.add_argument("--wait", type=float, default=0, help="seconds to wait for another run to end")
        return made

    add("serve", do_serve)
    add("health", do_health)
    add("reload", do_reload).add_argument("--validate", default="", help="only check whether this configuration is valid")
    add("start-over", do_start_over).add_argument(
        "--cluster", default="", help="name of the stack: its database was re-created; move all existing points aside"
    )
    add("exchange", do_exchange).add_argument("step", choices=["begin", "end"])
    made = add("run", do_run)
    made.add_argument("--reason", default="by hand", help="kept in the manifest")
    made.add_argument("--full", action="store_true", help="take a full base backup")
    made.add_argument("--facts", action="store_true", help="read further settings to keep, as JSON, from standard input")
    made.add_argument("--quiet", action="store_true", help="do not print the manifest")
    add("list", do_list).add_argument("--offsite", action="store_true", help="those of the off-site repository")
    add("check", do_check).add_argument("--read-data", type=int, default=0, help="percent of the off-site data to read (default: 0)")
    add("prune", do_prune)
    add("ship", do_ship)
    add("add-password", do_add_password)
    made = add("fetch", do_fetch)
    made.add_argument("point", help="name, or latest")
    made.add_argument("--target-time", default="", help="with latest: the newest point from which this moment can be reached")
    made.add_argument("--set-aside", action="store_true", help="move the local points aside if the point is of another database cluster")
    for made in (add("verify", do_verify), add("show", do_show), add("room", do_room)):
        made.add_argument("point", help="name, or latest")
    made.add_argument("--stores", required=True, help="stores, with commas between them")
    made.add_argument("--target-time", default="", help="PostgreSQL: as in extract")
    made = add("extract", do_extract)
    made.add_argument("store", help=f"{', '.join(restore.STORES)}, or volumes/HOST/VOLUME")
    made.add_argument("point", help="name, or latest")
    made.add_argument("folder", help="an empty folder")
    made.add_argument("--target-time", default="", help="PostgreSQL: a moment with its time zone, or end for all WAL that has arrived")
    made.add_argument("--owner", default="", help="numeric user and group of the files, as in 70:70")
    made = add("load-chroma", do_load_chroma)
    made.add_argument("point", help="name, or latest")
    made.add_argument("url", help="address of the server")
    made = add("send", do_send)
    made.add_argument("folder")
    made.add_argument("--port", type=int, default=8790, help="TCP port to listen on (default: 8790)")
    made = add("mark", do_mark)
    made.add_argument("point", help="name")
    made.add_argument("result", choices=["verified", "failed"])
    made.add_argument("--detail", default="-", help="a JSON file, or - for standard input")
    add("restore-point", do_restore_point).add_argument("name")
    add("report", do_report)
    return top


def main() -> int:
    """Run a command; return the exit code."""
    arguments = parser().parse_args()
    # On SIGTERM, clean up as after any failure.
    signal.signal(signal.SIGTERM, lambda *_unused: sys.exit(1))
    try:
        config = load_config(Path(arguments.config), arguments.data)
        answer = arguments.action(config, arguments)
    except run.PartialError as error:
        say(f"slipway-backup: {error}")
        return 2
    except BusyError as error:
        say(f"slipway-backup: {error}")
        return 3
    except StepError as error:
        say(f"slipway-backup: {error}")
        return 1
    except OSError as error:
        say(f"slipway-backup: {error.filename or error}: {error.strerror}")
        return 1
    if arguments.command == "list" and not arguments.json and not arguments.offsite:
        print(table(answer) if answer else "there is no recovery point yet: run playbooks/backup.yml")
    elif answer is not None:
        print(json.dumps(answer, indent=None if arguments.json else 2))
    return 0


if __name__ == "__main__":
    sys.exit(main())
