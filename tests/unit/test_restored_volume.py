"""What becomes of old and restored data, whenever a run dies."""

from __future__ import annotations

import json
import socket
import sys
import tarfile
import threading
import time
from pathlib import Path

import pytest

from ansible_collections.slipway.stack.plugins.modules import restored_volume as module

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "roles/backup/files"))
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
    # Whatever is there meanwhile is no database to a server, and not an empty volume either.
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


# From another host


@pytest.fixture
def offered(tmp_path, capsys):
    """The address of a folder that is offered as the backup host does."""
    folder = tmp_path / "data"
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


def test_nothing_is_asked_of_somebody_else(offered):
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
