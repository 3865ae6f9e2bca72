"""What becomes of old and restored data, whenever a run dies."""

from __future__ import annotations

import io
import json
import socket
import subprocess
import tarfile
import threading
import time
from pathlib import Path
from typing import Any

import pytest
from ansible.module_utils.testing import patch_module_args

from ansible_collections.slipway.stack.plugins.modules import restored_volume as module
from slipway_backup import send

OLD = {"PG_VERSION": "17", "base": "old", "pg_wal": "old"}
NEW = {"PG_VERSION": "17n", "base": "new", "global": "new"}


class DiedError(Exception):
    """The run was killed."""


@pytest.fixture
def place(tmp_path):
    """Folders of three volumes, the first and the second with data."""
    folders = [tmp_path / name for name in ("live", "staged", "aside")]
    for folder in folders:
        folder.mkdir()
    fill(folders[0], OLD)
    fill(folders[1], NEW)
    return *folders, tmp_path / "journal.json"


def fill(folder, content):
    for name, text in content.items():
        (folder / name).write_text(text)


def read(folder):
    return {path.name: path.read_text() for path in folder.iterdir()}


def die_at(monkeypatch, number):
    """End the run at its n-th move."""
    real, count = module.move, iter(range(1000))

    def move(source, target):
        if next(count) == number:
            raise DiedError
        real(source, target)

    monkeypatch.setattr(module, "move", move)


def test_data_is_exchanged_whole(place):
    live, staged, aside, journal = place
    module.exchange(live, staged, aside, journal, {"phase": "aside", "aside": "a"}, "PG_VERSION")
    assert (read(live), read(aside), read(staged)) == (NEW, OLD, {})


@pytest.mark.parametrize("number", range(6))
def test_a_run_that_died_is_finished_by_the_next_and_old_data_is_whole(place, monkeypatch, number):
    live, staged, aside, journal = place
    die_at(monkeypatch, number)
    with pytest.raises(DiedError):
        module.exchange(live, staged, aside, journal, {"phase": "aside", "aside": "a"}, "PG_VERSION")
    # What the volume holds meanwhile is not a database to a server, and not an empty volume either.
    assert (live / module.GUARD).exists()
    assert not ((live / "PG_VERSION").exists() and len(read(live)) > 2 and read(live).get("base") == "old" and number > 0)
    monkeypatch.undo()
    for entry in list(staged.iterdir()):
        entry.unlink()
    fill(staged, NEW)
    module.exchange(live, staged, aside, journal, json.loads(journal.read_text()), "PG_VERSION")
    assert (read(live), read(aside)) == (NEW, OLD)


@pytest.mark.parametrize("number", range(6))
def test_old_data_comes_back_from_a_restore_that_died(place, monkeypatch, number):
    live, staged, aside, journal = place
    die_at(monkeypatch, number)
    with pytest.raises(DiedError):
        module.exchange(live, staged, aside, journal, {"phase": "aside", "aside": "a"}, "PG_VERSION")
    monkeypatch.undo()
    module.give_back(live, aside, None, journal, json.loads(journal.read_text()), "PG_VERSION")
    assert read(live) == OLD


@pytest.mark.parametrize("number", range(6))
def test_a_return_that_died_loses_neither_side(place, monkeypatch, number):
    live, source, aside, journal = place
    die_at(monkeypatch, number)
    with pytest.raises(DiedError):
        module.give_back(live, source, aside, journal, {"phase": "aside", "aside": "b", "source": "a"}, "PG_VERSION")
    monkeypatch.undo()
    module.give_back(live, source, aside, journal, json.loads(journal.read_text()), "PG_VERSION")
    assert (read(live), read(aside), read(source)) == (NEW, OLD, {})


def test_a_store_that_is_started_half_way_finds_the_guard_until_the_end(place, monkeypatch):
    live, staged, aside, journal = place
    seen = []
    real = module.move

    def move(source, target):
        seen.append(((live / module.GUARD).exists(), target.name))
        real(source, target)

    monkeypatch.setattr(module, "move", move)
    module.exchange(live, staged, aside, journal, {"phase": "aside", "aside": "a"}, "PG_VERSION")
    assert all(guarded for guarded, _ in seen)
    assert (seen[0][1], seen[-1][1]) == ("PG_VERSION", "PG_VERSION")
    assert not (live / module.GUARD).exists()


# The whole, over runs that died


class Volumes:
    """The volumes of an engine, as folders, and no container."""

    def __init__(self, top: Path) -> None:
        self.top = top
        self.made: list[str] = []
        self.labels: dict[str, set[str]] = {}

    def get(self, path: str, filters: str = "{}") -> dict[str, object]:
        if path == "/volumes":
            wanted = set(json.loads(filters).get("label", ()))
            return {
                "Volumes": [
                    {"Name": name, "Labels": dict(label.split("=") for label in self.labels[name])}
                    for name in dict.fromkeys(self.made)
                    if wanted <= self.labels[name]
                ]
            }
        name = path.rpartition("/")[2]
        if not (self.top / name).is_dir():
            raise module.EngineError("no such volume", 404)
        return {"Driver": "local", "Mountpoint": str(self.top / name)}

    def request(self, method: str, path: str, body: dict[str, Any] | None = None) -> None:
        if method == "POST" and body:
            self.labels.setdefault(body["Name"], {f"{name}={value}" for name, value in body["Labels"].items()})
            (self.top / body["Name"]).mkdir(exist_ok=True)
            self.made.append(body["Name"])
        else:
            module.remove(self.top / path.rpartition("/")[2])
            self.made = [name for name in self.made if not path.endswith(f"/{name}")]

    def inspect(self, _name: str) -> None:
        return None


OPTIONS = {
    "stack": "s", "store": "postgres", "container": "s-postgres", "volume": "data", "staged": "staged", "source": "",
    "last": "PG_VERSION", "keep_owners": False,
    "point": "p", "restore": "r", "returns": "r",
}  # fmt: skip


@pytest.fixture
def volumes(tmp_path, monkeypatch):
    """An engine with live data and a staged copy; each volume's name that the module makes is another."""
    moments = iter(f"2026010{number}T000000Z" for number in range(1, 9))
    monkeypatch.setattr(module.time, "strftime", lambda *_: next(moments))
    for name, content in (("data", OLD), ("staged", NEW)):
        (tmp_path / name).mkdir()
        fill(tmp_path / name, content)
    return Volumes(tmp_path)


def staged_again(volumes: Volumes) -> None:
    module.remove(volumes.top / "staged")
    (volumes.top / "staged").mkdir()
    fill(volumes.top / "staged", NEW)


@pytest.mark.parametrize("written", [True, False])
def test_what_was_written_after_a_restore_that_died_is_not_lost(volumes, tmp_path, written):
    """The run had put all into place and died before the store was known to be healthy; then a user brought the product back."""
    journal, live = tmp_path / "journal.json", volumes.top / "data"
    module.place(volumes, OPTIONS, journal)
    assert journal.exists()
    if written:
        (live / "base").write_text("acknowledged")
    staged_again(volumes)
    module.place(volumes, OPTIONS, journal)
    assert read(live) == NEW
    kept = [read(volumes.top / name) for name in volumes.made]
    assert kept == [OLD, {**NEW, "base": "acknowledged"} if written else NEW]
    # What was there before the restore is what an undo brings.
    module.remove(journal)
    module.take_back(volumes, OPTIONS, journal)
    assert read(live) == OLD


def test_an_undo_of_a_restore_that_died_loses_nothing_that_was_written_since(volumes, tmp_path):
    journal, live = tmp_path / "journal.json", volumes.top / "data"
    module.place(volumes, OPTIONS, journal)
    (live / "base").write_text("acknowledged")
    module.take_back(volumes, OPTIONS, journal)
    assert read(live) == OLD
    assert [read(volumes.top / name) for name in volumes.made] == [{**NEW, "base": "acknowledged"}]
    assert module.read_journal(journal) == {"phase": "returned"}


@pytest.mark.parametrize("number", range(3, 6))
def test_half_of_a_restored_copy_is_not_kept(volumes, tmp_path, monkeypatch, number):
    journal = tmp_path / "journal.json"
    with monkeypatch.context() as dying:
        die_at(dying, number)
        with pytest.raises(DiedError):
            module.place(volumes, OPTIONS, journal)
    staged_again(volumes)
    module.place(volumes, OPTIONS, journal)
    assert (read(volumes.top / "data"), [read(volumes.top / name) for name in dict.fromkeys(volumes.made)]) == (NEW, [OLD])


def test_what_a_run_made_that_moved_nothing_is_nothing_to_go_back_to(volumes, tmp_path, monkeypatch):
    journal, live = tmp_path / "journal.json", volumes.top / "data"

    def full(_path, _journal):
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as failing:
        failing.setattr(module, "write_journal", full)
        with pytest.raises(OSError, match="No space left"):
            module.place(volumes, OPTIONS, journal)
    assert read(live) == OLD
    assert volumes.made == [], "an empty volume would be taken for the data of one that was empty"
    with pytest.raises(module.RestoreError, match="no restore to undo"):
        module.take_back(volumes, OPTIONS, journal)
    assert read(live) == OLD


@pytest.mark.parametrize("returning", [False, True])
def test_a_run_that_died_before_its_first_volume_was_made_is_continued(volumes, tmp_path, monkeypatch, returning):
    journal, live = tmp_path / "journal.json", volumes.top / "data"
    if returning:
        module.place(volumes, OPTIONS, journal)
        module.remove(journal)

    def run() -> None:
        if returning:
            module.take_back(volumes, OPTIONS, journal)
        else:
            module.place(volumes, OPTIONS, journal)

    with monkeypatch.context() as dying:
        dying.setattr(module, "make_aside", lambda *_: (_ for _ in ()).throw(DiedError))
        with pytest.raises(DiedError):
            run()
    run()
    assert read(live) == (OLD if returning else NEW)
    assert [read(volumes.top / name) for name in volumes.made] == [NEW if returning else OLD]


def test_an_undo_returns_the_data_of_the_restore_that_it_names_also_if_there_was_none(volumes, tmp_path):
    journal, live = tmp_path / "journal.json", volumes.top / "data"
    module.remove(live)
    live.mkdir()
    module.place(volumes, {**OPTIONS, "restore": "first"}, journal)
    module.remove(journal)
    staged_again(volumes)
    (live / "base").write_text("since the first")
    module.place(volumes, {**OPTIONS, "restore": "second"}, journal)
    module.remove(journal)
    assert list(module.returnable(volumes, OPTIONS).values()) == ["first", "second"]
    with pytest.raises(module.RestoreError, match="no restore to undo"):
        module.take_back(volumes, {**OPTIONS, "returns": "third"}, journal)
    module.take_back(volumes, {**OPTIONS, "restore": "undo", "returns": "second"}, journal)
    assert read(live) == {**NEW, "base": "since the first"}
    module.remove(journal)
    module.take_back(volumes, {**OPTIONS, "restore": "undo again", "returns": "first"}, journal)
    assert read(live) == {}
    module.remove(journal)
    # And back.
    module.take_back(volumes, {**OPTIONS, "returns": "undo again"}, journal)
    assert read(live) == {**NEW, "base": "since the first"}


@pytest.mark.parametrize("number", range(6))
def test_an_undo_after_two_restores_that_died_brings_what_was_there_before_the_first(volumes, tmp_path, monkeypatch, number):
    journal, live = tmp_path / "journal.json", volumes.top / "data"
    module.place(volumes, OPTIONS, journal)
    staged_again(volumes)
    with monkeypatch.context() as dying:
        die_at(dying, number)
        with pytest.raises(DiedError):
            module.place(volumes, OPTIONS, journal)
    module.take_back(volumes, OPTIONS, journal)
    assert read(live) == OLD


def test_an_undo_that_is_repeated_as_another_store_has_failed_leaves_what_is_back(volumes, tmp_path):
    journal, live = tmp_path / "journal.json", volumes.top / "data"
    module.place(volumes, OPTIONS, journal)
    module.remove(journal)
    module.take_back(volumes, OPTIONS, journal)
    made = list(volumes.made)
    module.take_back(volumes, OPTIONS, journal)
    assert (read(live), volumes.made) == (OLD, made)
    # And a restore after it finds nothing to go on with.
    staged_again(volumes)
    module.place(volumes, OPTIONS, journal)
    assert read(live) == NEW
    assert read(volumes.top / volumes.made[-1]) == OLD


def test_an_undo_of_a_restore_that_died_before_its_first_move_changes_nothing(volumes, tmp_path, monkeypatch):
    journal = tmp_path / "journal.json"
    with monkeypatch.context() as dying:
        die_at(dying, 0)
        with pytest.raises(DiedError):
            module.place(volumes, OPTIONS, journal)
    module.take_back(volumes, OPTIONS, journal)
    assert read(volumes.top / "data") == OLD
    assert module.read_journal(journal) == {"phase": "returned"}


@pytest.mark.parametrize("state", ["placed", "returned"])
def test_a_volume_whose_data_cannot_be_exchanged_is_refused_in_check_mode(volumes, monkeypatch, capsys, state):
    """That is how restore.yml asks, before it takes the product out of service."""
    monkeypatch.setattr(module, "Engine", lambda **_: volumes)
    plain = volumes.get
    elsewhere = {"Driver": "local", "Options": {"type": "nfs", "device": ":/export"}, "Mountpoint": "/data"}
    for found, said in ((elsewhere, "driver option device"), (None, "there is no volume data on this host: run site.yml first")):
        if found is None:
            module.remove(volumes.top / "data")
        monkeypatch.setattr(volumes, "get", lambda path, found=found, **_: found if found and path == "/volumes/data" else plain(path))
        with patch_module_args({**OPTIONS, "state": state, "_ansible_check_mode": True}), pytest.raises(SystemExit):
            module.main()
        assert said in json.loads(capsys.readouterr().out)["msg"]


# From another host


@pytest.fixture
def offered(programs, tmp_path, capsys):  # noqa: ARG001
    """The address of a folder that is offered as the backup host does."""
    folder = tmp_path / "offered"
    (folder / "base").mkdir(parents=True)
    (folder / "base/1").write_bytes(b"row" * 10**6)
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    threading.Thread(target=send.send, args=(folder, port), daemon=True).start()
    said = ""
    deadline = time.monotonic() + 20
    while not said and time.monotonic() < deadline:
        time.sleep(0.05)
        said = capsys.readouterr().out.strip()
    return f"https://127.0.0.1:{port}/{said}"


def test_a_folder_arrives_whole_over_tls(offered, tmp_path):
    with module.opened(offered) as answer, tarfile.open(fileobj=answer, mode="r|") as archive:
        archive.extractall(tmp_path / "there", filter="data")
    assert (tmp_path / "there/base/1").read_bytes() == b"row" * 10**6


def test_foreign_containers_are_not_asked(offered):
    with pytest.raises(module.RestoreError, match="another certificate"), module.opened(offered.partition("#")[0] + "#" + "0" * 64):
        pass
    with pytest.raises(module.RestoreError, match="another certificate"), module.opened(offered.partition("#")[0]):
        pass


def test_who_does_not_know_the_word_gets_nothing(offered):
    address, _, digest = offered.partition("#")
    with pytest.raises(module.RestoreError, match="answers 404"), module.opened(f"{address[:-1]}x#{digest}"):
        pass
    # It is offered to the right one still.
    with module.opened(offered) as answer:
        assert len(answer.read()) > 10**6


def test_restored_data_arrives_in_a_volume_of_this_host(offered, volumes):
    module.fetch(volumes, {**OPTIONS, "source": offered})
    # What an earlier run has left is replaced.
    assert [path.name for path in (volumes.top / "staged").iterdir()] == ["base"]
    assert (volumes.top / "staged/base/1").stat().st_size == 3 * 10**6


def test_what_was_fetched_and_not_put_into_place_is_removed_in_the_end(offered, volumes, monkeypatch):
    monkeypatch.setattr(module, "Engine", lambda **_: volumes)
    module.fetch(volumes, {**OPTIONS, "source": offered, "staged": "fetched"})
    # Of another store, and data that was set aside.
    module.make_aside(volumes, OPTIONS, "data-before-1")
    volumes.request("POST", "/volumes/create", {"Name": "other", "Labels": module.fetched_labels({**OPTIONS, "store": "redis"})})
    with patch_module_args({**OPTIONS, "state": "finished"}), pytest.raises(SystemExit):
        module.main()
    assert [name for name in volumes.made if "before" not in name] == ["other"]
    assert len(volumes.made) == 2


def test_data_for_which_there_is_no_room_is_refused_before_it_arrives(offered, volumes, monkeypatch):
    free = module.RESERVE_BYTES + 2 * 10**6
    monkeypatch.setattr(module.shutil, "disk_usage", lambda _folder: type("Usage", (), {"free": free}))
    with pytest.raises(
        module.RestoreError, match=r"the disk of \S+staged has 1026 MB free; the data needs 3 MB, and 1024 MB must stay free"
    ):
        module.fetch(volumes, {**OPTIONS, "source": offered})
    assert read(volumes.top / "staged") == {}


def archive_of(folder: Path, *options: str) -> io.BytesIO:
    return io.BytesIO(subprocess.run(["tar", "-C", str(folder), *options, "-cf", "-", "."], check=True, capture_output=True).stdout)


def test_data_from_a_host_whose_clock_is_ahead_arrives(tmp_path):
    """Of each file, tar would report that it is from the future: more than a pipe holds."""
    source, target = tmp_path / "source", tmp_path / "target"
    source.mkdir()
    target.mkdir()
    for number in range(1500):
        (source / f"{number:060}").touch()
    assert module.unpack(archive_of(source, "--mtime=2100-01-01"), target) is None
    assert len(list(target.iterdir())) == 1500


@pytest.mark.parametrize("files", [1, 1500])
def test_what_tar_reports_is_the_reason(tmp_path, files):
    """As of a disk that is full, however much there is to report."""
    source, target = tmp_path / "source", tmp_path / "target"
    (source / "folder").mkdir(parents=True)
    for number in range(files):
        (source / "folder" / f"{number:060}").touch()
    target.mkdir()
    archive = archive_of(source, "--no-recursion", *(f"--add-file=folder/{number:060}" for number in range(files)))
    (target / "folder").touch()
    assert "Cannot open: Not a directory" in str(module.unpack(archive, target))


def test_an_archive_that_tar_does_not_read_to_its_end_names_the_reason(tmp_path):
    assert "This does not look like a tar archive" in str(module.unpack(io.BytesIO(b"x" * 2**24), tmp_path))
