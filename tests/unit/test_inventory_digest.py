"""The digest of an inventory: the same for the same inventory, another one when anything in it changes."""

from __future__ import annotations

from pathlib import Path

from ansible_collections.slipway.stack.plugins.lookup.inventory_digest import digest_of


def make(top: Path) -> Path:
    (top / "group_vars/all").mkdir(parents=True)
    (top / "hosts.yml").write_text("all: {}\n")
    (top / "shared.yml").write_text("a: 1\n")
    (top / "group_vars/all/00_shared.yml").symlink_to("../../shared.yml")
    return top


def test_digest_is_of_what_the_files_hold_wherever_they_lie(tmp_path: Path):
    one, two = make(tmp_path / "one"), make(tmp_path / "two")
    before = digest_of([str(one)])
    assert digest_of([str(two)]) == before
    (one / "shared.yml").write_text("a: 2\n")
    assert digest_of([str(one)]) != before
    (one / "shared.yml").write_text("a: 1\n")
    (one / "host_vars").mkdir()
    (one / "host_vars/db1.yml").write_text("b: 1\n")
    assert digest_of([str(one)]) != before


def test_keys_that_a_run_makes_next_to_it_are_not_a_change(tmp_path: Path):
    top = make(tmp_path / "one")
    before = digest_of([str(top)]), digest_of([str(top / "hosts.yml")])
    (top / "pki").mkdir()
    (top / "pki/ca.key").write_text("key\n")
    assert (digest_of([str(top)]), digest_of([str(top / "hosts.yml")])) == before
