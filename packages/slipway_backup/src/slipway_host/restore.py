# Copyright (c) The Slipway authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Restores a point into a sandbox: for a drill, which judges it; staged for the running stack; or to look at."""

from __future__ import annotations

import json
import time
import typing as t
from pathlib import Path

from slipway_host import decide, stores
from slipway_host.sandbox import JSON, HostError, PointError, Sandbox, alone, answer, available_mb, docker, say

START_SECONDS = 60
#: In the container.
SEND_PORT = 8790
#: What PostgreSQL says where the WAL ends before the moment that is wanted.
TARGET_NOT_REACHED = "recovery ended before configured recovery target was reached"


def slipway_backup(config: JSON, *arguments: str, given: str | None = None, what: str) -> t.Any:
    """Run a command of slipway-backup in its container, which runs; return its answer."""
    done = docker("exec", "--interactive", config["container"], "slipway-backup", "--json", *arguments, what=what, given=given or "")
    return answer(done.stdout) if done.stdout.strip() else None


class Checks:
    """What a drill has found, in order."""

    def __init__(self) -> None:
        """Start with nothing."""
        self.found: list[JSON] = []

    def add(self, name: str, detail: str = "", faults: t.Sequence[str] = ()) -> None:
        """Keep a check's result; no faults means that it passed."""
        result = "failed" if faults else "passed"
        say(f"{name}: {result}{': ' if faults or detail else ''}{'; '.join(faults) or detail}")
        self.found.append({"name": name, "result": result, "detail": "; ".join(faults) or detail})

    @property
    def failed(self) -> str:
        """Why the point is bad; empty when all checks have passed."""
        return "; ".join(f"{check['name']}: {check['detail']}" for check in self.found if check["result"] == "failed")


class Restored:
    """The stores of a point in a sandbox."""

    def __init__(self, sandbox: Sandbox, point: str, wanted: t.Sequence[str] = decide.STORES, target_time: str = "") -> None:
        """Take what is to be restored; nothing is made yet.

        Args:
            sandbox: where it is restored.
            point: its name.
            wanted: stores; those that the point lacks are left out.
            target_time: PostgreSQL only; empty for the point's own moment.
        """
        self.sandbox, self.point, self.target_time = sandbox, point, target_time
        self.manifest: JSON = slipway_backup(sandbox.config, "show", point, what=f"read the manifest of {point}")
        self.parts: JSON = self.manifest["stores"]
        self.wanted = [store for store in decide.STORES if store in wanted and store in self.parts]
        self.images: dict[str, str] = sandbox.config["settings"].get("images", {})
        servers = [store for store in self.wanted if store != "volumes"]
        sets = sorted(self.parts["volumes"]["sets"]) if "volumes" in self.wanted else []
        #: By store, and by volumes/host/volume.
        self.volumes = {store: f"{sandbox.prefix}-{store}" for store in servers}
        self.volumes |= {f"volumes/{name}": f"{sandbox.prefix}-volume-{number}" for number, name in enumerate(sets)}
        self.postgres = stores.Postgres(sandbox, self.volumes.get("postgres", ""), self.image("postgres"))
        self.redis = stores.Redis(sandbox, self.volumes.get("redis", ""), self.image("redis"))
        self.chroma = stores.Chroma(sandbox, self.volumes.get("chroma", ""), self.image("chroma"))
        self.copies = [stores.Volume(sandbox, self.volumes[f"volumes/{name}"], name) for name in sets]
        self.checks = Checks()
        self.target = self.last_write = ""
        self.warnings: list[str] = []
        self.newest_age: float | None = None

    @property
    def missing(self) -> list[str]:
        """Volumes that are wanted, and that the point lacks, as their hosts were away."""
        return sorted(self.parts["volumes"]["missing"]) if "volumes" in self.wanted else []

    def image(self, store: str) -> str:
        """Return the image of a store: the inventory's, and the point's where that has none."""
        return self.images.get(store) or (self.manifest["settings"].get("images") or {}).get(store, "")

    def refuse_full_disk(self, minimum_free_percent: float | None = None) -> None:
        """Refuse to fill the disk, before anything is copied."""
        target = ["--target-time", self.target_time] if self.target_time else []
        what = f"ask how much space {self.point} needs"
        needed = slipway_backup(self.sandbox.config, "room", self.point, "--stores", ",".join(self.wanted), *target, what=what)["bytes"]
        decide.refuse_full_disk(self.point, needed, self.sandbox.disk(), minimum_free_percent)

    def refuse_major(self) -> None:
        """Refuse a PostgreSQL that cannot read the data, before anything is copied."""
        if "postgres" in self.wanted:
            major = int(self.parts["postgres"]["major"])
            decide.refuse_major(self.point, major, self.image("postgres"), stores.image_major(self.sandbox, self.image("postgres")))

    def verify_files(self) -> None:
        """Compare all files with what was written.

        Raises:
            PointError: one differs.
        """
        self.sandbox.tools("verify", self.point, what=f"compare the files of {self.point}")
        self.checks.add("files", f"{len(self.manifest['files'])} files and the base backups are as they were written")

    def bring_up(self, durable: bool) -> None:
        """Put the data together and start the stores.

        Args:
            durable: whether the data is kept afterwards.
        """
        self.sandbox.network()
        if "postgres" in self.wanted:
            began = time.monotonic()
            told = self.postgres.extract(self.point, self.target_time)
            self.target = told["target"]
            say(f"postgres: recovering to {self.target}")
            self.postgres.start(durable)
            self.last_write = self.postgres.last_write()
            last_write = self.last_write or "before the base backup"
            self.checks.add("postgres starts", f"recovered to {self.target} in {time.monotonic() - began:.1f} s, last write {last_write}")
            if newest := told.get("newest_wal"):
                self.warnings += decide.unread_wal(newest, self.postgres.reached(), self.last_write)
            for warning in self.warnings:
                say(f"postgres: {warning}")
        if "redis" in self.wanted:
            self.redis.extract(self.point)
            self.redis.start(memory_mb=decide.redis_memory_mb(self.parts["redis"], available_mb()))
            self.checks.add("redis starts")
        if "chroma" in self.wanted:
            self.chroma.start(memory_mb=decide.chroma_memory_mb(self.parts["chroma"]["collections"]))
            loaded = self.chroma.load(self.point)
            # The loader counts the records, and asks for the neighbour that was known when the point was made.
            self.checks.add("chroma answers", ", ".join(f"{name}: {count} records" for name, count in sorted(loaded.items())) or "empty")
        for copy in self.copies:
            copy.extract(self.point)
            part = self.parts["volumes"]["sets"][copy.name]
            self.checks.add(f"volume {copy.name}", f"{part['files']} files with {part['bytes']} bytes are as they were copied")

    def check(self, deep: bool = True) -> None:
        """Look whether what came out is what went in.

        Args:
            deep: whether to read all tables and indexes too.
        """
        if "postgres" in self.wanted:
            if deep:
                fault = self.postgres.amcheck()
                self.checks.add("pg_amcheck", "all tables and indexes are sound", [fault] if fault else [])
            self.check_rows()
        if "redis" in self.wanted:
            keys = decide.loaded_keys(self.redis.ask("INFO", "persistence"))
            expected = int(self.parts["redis"]["keys"])
            self.checks.add("redis keys", f"{keys} keys", [] if keys == expected else [f"{keys} instead of {expected}"])

    def check_rows(self) -> None:
        """Compare rows and migration with the manifest, where PostgreSQL was restored to the point's moment; run the users' own checks."""
        part = self.parts["postgres"]
        for database, tables in part["databases"].items():
            found = decide.answers(self.postgres.sql(database, decide.count_query(tables), fatal=False))
            ages = [age for age in (decide.newest_age(found.values()), self.newest_age) if age is not None]
            self.newest_age = min(ages, default=None)
            if self.target_time:
                continue
            in_flight = 0 if part["exact"] else max(1, int(part["in_flight"]))
            rows = sum(line["rows"] for line in found.values())
            said = f"{rows} rows in {len(found)} tables" + (
                f", as exactly as {in_flight} transactions in progress allow" if in_flight else ""
            )
            self.checks.add(f"rows of {database}", said, decide.compare_rows(tables, found, in_flight))
        settings = self.sandbox.config["postgres"]
        database = next(iter(part["databases"]), "")
        if settings.get("migration_query") and database and not self.target_time:
            head = ",".join(sorted(self.postgres.sql(database, settings["migration_query"]).split()))
            expected = part["migration_head"]
            self.checks.add("migration head", head, [] if head == expected else [f"{head or 'none'} instead of {expected or 'none'}"])
        for check in (self.sandbox.config.get("drill") or {}).get("checks", []):
            expected = str(check.get("expect", "true"))
            try:
                value = self.postgres.sql(str(check.get("database") or database), decide.scalar(check["sql"]))
            except PointError as error:
                self.checks.add(check["name"], faults=[str(error)])
                continue
            self.checks.add(check["name"], value, [] if value == expected else [f"{value!r} instead of {expected!r}"])

    def refuse_failed(self) -> None:
        """Refuse a point that a check has failed.

        Raises:
            PointError: one has.
        """
        if self.checks.failed:
            raise PointError(self.checks.failed)

    def settle(self) -> None:
        """Bring the data into the form that the stack's own containers start on, and stop everything."""
        if "postgres" in self.wanted:
            self.postgres.settle()
        if "redis" in self.wanted:
            self.redis.settle()
        if "chroma" in self.wanted:
            self.chroma.settle()


def known_points(config: JSON) -> list[JSON]:
    """Return the points of this host, oldest first."""
    return t.cast("list[JSON]", slipway_backup(config, "list", what="list the points"))


def drill(config: JSON, name: str, wait: float = 0) -> JSON:
    """Restore a point into throw-away containers, check it, and record what came of it.

    Args:
        config: backup.json.
        name: of the point; latest is the newest when it begins, whatever the result of its drill.
        wait: seconds to wait for another drill to end.

    Returns:
        The entry of verification.json, with the point's name.

    Raises:
        HostError: it could not be judged; nothing is recorded then.
    """
    with alone(f"{config['stack']}-drill", wait):
        sandbox = Sandbox(config, "drill")
        for left in sandbox.clean():
            say(f"drill: removed {left}, left behind by an interrupted drill")
        points = known_points(config)
        if name == "latest" and points:
            name = points[-1]["name"]
        restored = Restored(sandbox, name)
        began = time.monotonic()
        up = None
        reason = ""
        try:
            restored.refuse_full_disk(config["minimum_free_percent"])
            restored.refuse_major()
            restored.verify_files()
            restored.bring_up(durable=False)
            up = round(time.monotonic() - began, 1)
            restored.check()
            reason = restored.checks.failed
        except PointError as error:
            reason = str(error)
            restored.checks.add("restore", faults=[reason])
        finally:
            sandbox.clean()
        result = "failed" if reason else "verified"
        detail = {
            "result": result,
            "reason": reason,
            "seconds": round(time.monotonic() - began, 1),
            "restore_seconds": up,
            "newest_age_s": restored.newest_age,
            "checks": restored.checks.found,
        }
        slipway_backup(config, "mark", name, result, "--detail", "-", given=json.dumps(detail), what=f"record the drill of {name}")
        say(f"drill: {name} is {result}{': ' + reason if reason else ''} after {detail['seconds']} s")
        return {"point": name, **detail}


def stage(config: JSON, kind: str, name: str, wanted: t.Sequence[str], target_time: str) -> JSON:
    """Restore a point next to the running stack, which is not touched.

    Args:
        config: backup.json.
        kind: ``restore`` for volumes that the stack's containers start on; ``inspect`` for containers to look into.
        name: of the point, or latest.
        wanted: stores; none for all of the point.
        target_time: PostgreSQL only.

    Returns:
        ``point``, ``moment`` and ``last_write`` (when the last transaction was committed that it holds), ``target``, ``warnings``,
        ``stores``, ``volumes`` and ``containers`` by store (volumes of the product as volumes/host/volume), ``migration_head``,
        ``checks``, ``seconds``.

    Raises:
        HostError: the point is refused, or something is in the way; nothing is left then.
    """
    with alone(f"{config['stack']}-{kind}"):
        sandbox = Sandbox(config, kind)
        for left in sandbox.clean():
            say(f"{kind}: removed {left}, left behind by an earlier run")
        points = known_points(config)
        point = decide.choose(points, name, target_time, wanted)
        restored = Restored(sandbox, point["name"], wanted or decide.STORES, target_time)
        if kind == "restore" and restored.missing:
            instead = decide.offer(points, point["name"], target_time, wanted)
            lacks = f"the point {point['name']} lacks the volumes {', '.join(restored.missing)}, whose hosts were away"
            raise HostError(f"{lacks}: leave the volumes out with -e stores=…, or take another point. {instead}")
        missing = sorted(set(wanted) - set(restored.wanted))
        if missing:
            raise HostError(f"the point {point['name']} does not contain {' and '.join(missing)}: give the stores with -e stores=…")
        began = time.monotonic()
        done = False
        try:
            restored.refuse_full_disk()
            restored.refuse_major()
            restored.verify_files()
            restored.bring_up(durable=kind == "restore")
            if kind == "restore":
                # The product is waiting; a drill has read all of a verified point.
                restored.check(deep=point["verified"] != "verified")
                restored.refuse_failed()
                restored.settle()
                sandbox.clean(volumes=False)
            done = True
        except PointError as error:
            if target_time and TARGET_NOT_REACHED in str(error):
                # Nothing is wrong with the point: PostgreSQL knows a moment by the first commit after it only.
                raise HostError(
                    f"no write after {target_time} has arrived on the backup host, or can be read there;"
                    f" -e target_time={decide.END} restores everything up to the last write"
                ) from error
            instead = decide.offer(points, point["name"], target_time, wanted)
            raise HostError(f"the point {point['name']} is refused: {error}. {instead}") from error
        finally:
            if not done:
                sandbox.clean()
        return {
            "point": point["name"],
            "moment": restored.manifest["moment"],
            "last_write": restored.last_write,
            "target": restored.target,
            "warnings": restored.warnings,
            "migration_head": (restored.parts.get("postgres") or {}).get("migration_head", ""),
            "volumes": restored.volumes,
            "stores": restored.wanted,
            "containers": {store: f"{sandbox.prefix}-{store}" for store in restored.wanted if store != "volumes" and kind == "inspect"},
            "checks": restored.checks.found,
            "seconds": round(time.monotonic() - began, 1),
        }


def choose(config: JSON, name: str, wanted: t.Sequence[str], target_time: str) -> JSON:
    """Return the point that a restore would take, as ``list`` shows it.

    Raises:
        AbsentError: there is none on this host.
        HostError: it is refused.
    """
    return decide.choose(known_points(config), name, target_time, wanted)


def hand_over(config: JSON, store: str, address: str, port: int) -> JSON:
    """Offer what ``stage`` has put together to the host that it is for.

    Args:
        config: backup.json.
        store: whose data, which is the end of the name of the volume that ``stage`` has put it into.
        address: of this host, as the other reaches it.
        port: TCP port on it.

    Returns:
        ``url``, from which it can be fetched once, with the digest of the certificate behind a #; whoever knows it gets the data.
    """
    sandbox = Sandbox(config, "restore")
    # Of a volume of the product, whose files may belong to anyone.
    rights = ["DAC_READ_SEARCH"] if store.startswith("volume-") else []
    name = f"{sandbox.prefix}-send-{store}"
    docker("rm", "--force", "--volumes", name, what=f"remove {name}", codes=range(256))
    # Ports can be published only on the network with outbound access.
    docker(
        "run", "--detach", *sandbox.options(f"send-{store}", {f"{sandbox.prefix}-{store}": "/source"}, 512), *sandbox.identity(rights),
        "--network", f"{sandbox.stack}-backup", "--publish", f"{address}:{port}:{SEND_PORT}",
        "--volume", f"{Path(__file__).resolve().parents[2]}:/etc/slipway:ro",
        sandbox.tools_image(), "send", "/source", "--port", str(SEND_PORT), what=f"offer {store} to its host",
    )  # fmt: skip
    deadline = time.monotonic() + START_SECONDS
    while not (word := docker("logs", name, what=f"read the log of {name}").stdout.strip()):
        if not sandbox.running(name) or time.monotonic() > deadline:
            raise HostError(f"{store} cannot be offered: {sandbox.logs(name)}")
        time.sleep(0.2)
    return {"url": f"https://{address}:{port}/{word}"}


def remove(config: JSON, kind: str) -> list[str]:
    """Remove what ``stage`` left of a kind; return the names."""
    with alone(f"{config['stack']}-{kind}"):
        return Sandbox(config, kind).clean()
