"""Which folder is the environment of a run."""

from __future__ import annotations

from pathlib import Path

import pytest
from ansible.errors import AnsibleActionFail

from ansible_collections.slipway.stack.plugins.plugin_utils.environment import environment_folder


@pytest.fixture
def folders(tmp_path: Path) -> dict[str, str]:
    """The environments shop and blog, and a folder of hosts alone."""
    for name in ("shop/group_vars", "blog/group_vars", "more"):
        (tmp_path / name).mkdir(parents=True)
    (tmp_path / "more/hosts.yml").write_text("all: {}\n")
    return {path.name: str(path) for path in tmp_path.iterdir()}


@pytest.mark.parametrize(
    ("sources", "found"), [(["shop"], "shop"), (["more"], "more"), (["shop", "more"], "shop"), (["more", "more", "blog"], "blog")]
)
def test_the_environment_is_the_folder_with_group_vars(folders: dict[str, str], sources: list[str], found: str):
    assert environment_folder((folders[name] for name in sources), further=True) == Path(folders[found])
    assert environment_folder([f"{folders['more']}/hosts.yml", folders["shop"]], further=True) == Path(folders["shop"])


@pytest.mark.parametrize(
    ("sources", "further"),
    [([], True), (["shop", "blog"], True), (["one,two,"], True), (["shop", "blog"], False), (["shop", "more"], False)],
)
def test_no_environment_and_two_of_them_are_refused(folders: dict[str, str], sources: list[str], further: bool):
    """A further inventory is one more place where secrets could be written."""
    with pytest.raises(AnsibleActionFail, match="an environment is one folder with its group_vars, given with -i; found: "):
        environment_folder((folders.get(name, name) for name in sources), further=further)
