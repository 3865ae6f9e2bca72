"""Every command in README.md and docs/ names what exists, in a way that its program understands.

What is marked safe there is run against the demo by the Molecule scenarios; see tests/docs_commands.py. Links and names of make targets in
prose are looked at by test_repository.py.
"""

from __future__ import annotations

import functools
import json
import re
import shutil
import subprocess
import sys
import textwrap
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml
from ansible.parsing.dataloader import DataLoader
from ansible.template import Templar, trust_as_template

from ansible_collections.slipway.stack.plugins.plugin_utils import inventory_files
from ansible_collections.slipway.stack.plugins.plugin_utils.app_services import LEAST_MEMORY_MB, MEMORY_SHARE
from ansible_collections.slipway.stack.plugins.plugin_utils.host_view import RoleFiles
from ansible_collections.slipway.stack.plugins.plugin_utils.preflight import SUPPORTED_DISTRIBUTIONS
from conftest import ROOT, ansible, tracked_files

sys.path.insert(0, str(ROOT / "tests"))
from docs_commands import Command, argv_in_lab, commands, split

COMMANDS = list(commands())
# Programs that a page may use, and that other checks here do not look into.
PROGRAMS = {"bash", "curl", "docker", "git", "install", "journalctl", "ls", "openssl", "python3", "source", "systemctl"}
SETTINGS = {
    "LAB",
    "TOPOLOGY",
    "LAB_APP_HOSTS",
    "LAB_HTTPS_PORT",
    "LAB_HTTP_PORT",
    "LAB_SSH_BASE",
    "DEMO_VERSION",
    "INVENTORY",
    "VERSION",
    "SERVICE",
    "IMAGES",
    "PYTHON",
    "SCENARIOS",
    "SLIPWAY_LANE",
    "S",
    "K",
    "ANSIBLE_COLLECTIONS_PATH",
    "ANSIBLE_ROLES_PATH",
}
MADE_BY_COMMANDS = re.compile(r"(inventories/(lab|second|shop)|reports|build|\.venv)(/|$)")


def place(item: Command) -> str:
    return f"{item.file.relative_to(ROOT)}:{item.line}"


def using(*programs: str) -> list[tuple[Command, list[str]]]:
    return [(item, split(item.command)[1]) for item in COMMANDS if split(item.command)[1][0] in programs]


def words_of(pairs: list[tuple[Command, list[str]]]) -> list:
    """Return each command once, at its first place."""
    first = {tuple(words): (item, words) for item, words in reversed(pairs)}
    return [pytest.param(words, id=f"{place(item)} {' '.join(words)[:60]}") for item, words in reversed(first.values())]


@pytest.fixture(scope="module")
def clone(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A checkout with the environment "shop", made with the command of the README."""
    top = tmp_path_factory.mktemp("docs") / "clone"
    top.mkdir()
    for name in ("ansible.cfg", "collections", "examples", "galaxy.yml", "group_vars", "meta", "playbooks", "plugins", "roles", "tools"):
        source = ROOT / name
        if source.is_dir():
            shutil.copytree(source, top / name, symlinks=True, ignore=shutil.ignore_patterns("__pycache__", "node_modules"))
        else:
            shutil.copy2(source, top / name)
    shutil.copytree(ROOT / "inventories/prod", top / "inventories/prod", symlinks=True)
    (made,) = [item for item, _ in using("cp", "ln") if item.file.name == "README.md"]
    subprocess.run(split(made.command)[1], cwd=top, check=True)
    # Labs write theirs when they come up; the syntax is the same for any hosts.
    for lab in ("lab", "second"):
        shutil.copytree(ROOT / "inventories/prod", top / "inventories" / lab, symlinks=True)
    (top / "vault-password").write_text("of this test alone\n")
    return top


def test_there_are_commands_of_every_kind():
    assert len(COMMANDS) > 40
    assert {item.kind for item in COMMANDS} == {"command", "safe", "host", "host safe"}


@pytest.mark.parametrize("item", COMMANDS, ids=place)
def test_only_safe_commands_are_made_to_run(item: Command):
    if "safe" not in item.kind:
        with pytest.raises(ValueError, match="not marked as safe"):
            argv_in_lab(item)
        return
    argv = argv_in_lab(item, "second", "app1", 9443)
    assert not re.search(r"inventories/lab|lab-lab1|:8443", argv[-1])
    assert not re.search(r"\b(rm|prune|restart|stop|destroy|kill)\b", argv[-1])
    assert "ansible-playbook" not in argv[-1] or "--check" in argv[-1]


@pytest.mark.parametrize("item", COMMANDS, ids=place)
def test_the_shell_understands_it(item: Command):
    done = subprocess.run(["bash", "-n", "-c", item.command], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    settings, words = split(item.command)
    assert set(settings) <= SETTINGS
    program = words[0]
    known = program in PROGRAMS or program in {"make", "cp", "ln", "mkdir"} or program.startswith("ansible") or (ROOT / program).is_file()
    assert known, f"{program}: if it is right to use it, say so in this test"


@pytest.mark.parametrize("item", COMMANDS, ids=place)
def test_the_files_it_names_exist(item: Command):
    for word in split(item.command)[1]:
        path = word.partition("=")[2] if re.match(r"--|[A-Z_]+=", word) else word
        if item.kind.startswith("host") or "/" not in path or re.search(r"[\s{$:]|^[~/]|^\.\./|--format", path):
            continue
        if not MADE_BY_COMMANDS.match(path):
            assert (ROOT / path).exists(), path


@pytest.mark.parametrize("words", words_of(using("make")))
def test_make_knows_the_target_and_the_settings(words: list[str]):
    for word in words[1:]:
        if "=" in word:
            assert word.partition("=")[0] in SETTINGS
    done = subprocess.run(["make", "--dry-run", *words[1:]], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_settings_are_read_somewhere():
    """Those of Ansible are read by Ansible."""
    text = "".join(path.read_text() for path in [ROOT / "Makefile", *(ROOT / "lab").iterdir()] if path.is_file())
    assert not [name for name in SETTINGS if not name.startswith("ANSIBLE_") and not re.search(rf"\b{name}\b", text)]


def playbook_and_options(words: list[str], clone: Path) -> tuple[list[str], tuple[str, ...]]:
    """Return what a command of ansible-playbook runs, and what stands around it."""
    options = list(words[1:])
    if "--vault-password-file" in options:
        options[options.index("--vault-password-file") + 1] = str(clone / "vault-password")
    playbooks = [word for word in options if word.startswith(("playbooks/", "slipway.stack."))]
    return playbooks, tuple(word for word in options if word not in playbooks)


def surroundings(options: tuple[str, ...]) -> tuple[str, bool]:
    """Return the inventory, and whether a password is given: commands with the same are looked at in one run."""
    assert "-i" in options, "say which inventory"
    return options[options.index("-i") + 1], "--vault-password-file" in options


@pytest.fixture(scope="module")
def parsed(clone: Path) -> Callable[[list[str]], subprocess.CompletedProcess[str]]:
    """Return what the syntax check says of a command. An unknown option fails all of its run, and is named there."""
    runs: dict[tuple[str, bool], tuple[dict[str, None], dict[tuple[str, ...], None]]] = {}
    for _, words in using("ansible-playbook"):
        playbooks, options = playbook_and_options(words, clone)
        run = runs.setdefault(surroundings(options), ({}, {}))
        run[0].update(dict.fromkeys(playbooks))
        run[1][options] = None

    @functools.cache
    def check(inventory: str, password: bool) -> subprocess.CompletedProcess[str]:
        playbooks, options = runs[inventory, password]
        given = [word for group in options for word in group]
        return ansible("ansible-playbook", "--syntax-check", *playbooks, *given, cwd=clone)

    return lambda words: check(*surroundings(playbook_and_options(words, clone)[1]))


@pytest.mark.parametrize("words", words_of(using("ansible-playbook")))
def test_playbooks_and_their_options_are_known(words: list[str], clone: Path, parsed: Callable[[list[str]], Any]):
    playbooks, options = playbook_and_options(words, clone)
    assert len(playbooks) == 1
    # ansible-playbook goes on without an inventory that it does not find.
    assert (clone / surroundings(options)[0] / "hosts.yml").exists()
    done = parsed(words)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "Unable to parse" not in done.stderr
    name = playbooks[0].removeprefix("playbooks/").removeprefix("slipway.stack.").removesuffix(".yml")
    assert f"playbooks/{name}.yml" in done.stdout, "the run has looked at this playbook"


@pytest.mark.parametrize("words", words_of(using("ansible-inventory")))
def test_inventories_are_readable(words: list[str], clone: Path):
    done = ansible(words[0], *words[1:], cwd=clone)
    assert done.returncode == 0, done.stderr
    assert "app1" in done.stdout or "slipway_address" in done.stdout


@pytest.mark.parametrize("words", words_of(using("ansible-doc")))
def test_documentation_is_shown(words: list[str]):
    done = ansible(words[0], *words[1:], cwd=ROOT)
    assert done.returncode == 0, done.stderr
    assert words[-1].rpartition(".")[2].upper() in done.stdout.upper()


@pytest.mark.parametrize("words", words_of(using("ansible-vault", "ansible-galaxy", "ansible")))
def test_other_programs_of_ansible_know_the_options(words: list[str]):
    # Their --help behind the words ends them before they act, but after the subcommand is known.
    done = ansible(words[0], *words[1:], "--help", cwd=ROOT)
    assert done.returncode == 0, done.stderr
    for option in (word for word in words[1:] if word.startswith("-")):
        assert re.search(rf"(?<![\w-]){re.escape(option)}\b", done.stdout), option


def test_the_copied_environment_takes_the_products_inputs_of_the_readme(clone: Path):
    blocks = re.findall(r"```yaml\n(.*?)```", (ROOT / "README.md").read_text(), flags=re.DOTALL)
    product = next(block for block in blocks if "app_services" in block)
    (clone / "inventories/shop/group_vars/all/20_product.yml").write_text(textwrap.dedent(product))
    assert not (clone / "inventories/shop/group_vars/all/20_product.yml").is_symlink()
    run = ansible("ansible-playbook", "playbooks/secrets.yml", "-i", "inventories/shop", cwd=clone)
    assert run.returncode == 0, run.stdout + run.stderr
    # The hosts of the example do not exist, so what site.yml does without asking them is run alone.
    first = yaml.safe_load((clone / "playbooks/site.yml").read_text())[0]
    (clone / "playbooks/inputs.yml").write_text(yaml.safe_dump([first]))
    checked = ansible("ansible-playbook", "playbooks/inputs.yml", "-i", "inventories/shop", cwd=clone)
    assert checked.returncode == 0, checked.stdout + checked.stderr
    hosts = clone / "inventories/shop/hosts.yml"
    content = yaml.safe_load(hosts.read_text())
    del content["all"]["children"]["backup"]
    hosts.write_text(yaml.safe_dump(content))
    without = ansible("ansible-playbook", "playbooks/inputs.yml", "-i", "inventories/shop", cwd=clone)
    assert without.returncode == 0, without.stdout + without.stderr
    shown = ansible("ansible-inventory", "-i", "inventories/shop", "--host", "app1", cwd=clone)
    assert json.loads(shown.stdout)["app_version"] == "2.4.0"


def test_inputs_that_pages_name_exist():
    known = set(RoleFiles().shared())
    roles = []
    for specs in ROOT.glob("roles/*/meta/argument_specs.yml"):
        roles.append(specs.parts[-3])
        for entry in yaml.safe_load(specs.read_text())["argument_specs"].values():
            known |= set(entry.get("options") or {})
    prefix = "|".join(sorted(roles))
    unknown = set()
    for page in {item.file for item in COMMANDS} | {ROOT / "docs/product.md"}:
        if page.name == "architecture.md":
            continue
        names = re.findall(rf"(?<![\w/.-])(?:{prefix})_[a-z_]*[a-z](?![\w./*…-])", page.read_text())
        unknown |= {f"{page.name}: {name}" for name in names if name not in known}
    # Names of volumes look like inputs, and so do fields of manifests and reports, modules, arguments of task files, and keys of services.
    others = {"nginx_logs", "redis_data", "postgres_data", "chroma_data", "backup_data", "monitoring_data", "backup_id", "restore_seconds"}
    others |= {"release_plan", "release_step", "restore_command"}
    # What rotate.yml rotates, and second logins.
    others |= {"redis_app", "postgres_app", "postgres_owner", "app_next", "app_owner_next", "app_owner"}
    assert not {entry for entry in unknown if entry.partition(": ")[2] not in others}


def test_the_page_on_reports_names_the_fields_that_are_written():
    page = (ROOT / "docs/reports.md").read_text()
    example = json.loads(re.search(r"```json\n(.*?)```", page, flags=re.DOTALL)[1])
    source = (ROOT / "plugins/callback/report.py").read_text()
    body = source[source.index("def _report(") : source.index("def _finish(")]
    written = set(re.findall(r'^            "(\w+)":', body, flags=re.MULTILINE))
    assert set(example) == written
    rows = re.findall(r"^\| (`.*?) \|", page, flags=re.MULTILINE)
    # Only a run that determines which version serves writes these; the page on releases describes them.
    assert "**self._release_report(" in body
    sentence = page.partition("## Fields of some playbooks")[2].partition("[Release]")[0]
    released = set(re.findall(r"`(\w+)`", sentence))
    assert released
    # And these come from the playbooks of those names.
    assert "**self._added" in body
    tasks = "\n".join(path.read_text() for part in ("roles/*/tasks/**", "playbooks/**") for path in ROOT.glob(f"{part}/*.yml"))
    blocks = re.findall(r"slipway_report:\n(( +)\w+:.*\n(?:\2\w+:.*\n)*)", tasks)
    added = {name for block, indent in blocks for name in re.findall(rf"^{indent}(\w+):", block, flags=re.MULTILINE)}
    assert added == {"backup", "drill", "exposure", "exposure_unknown", "history", "plan", "restore", "status"}
    named = {name for row in rows for name in re.findall(r"`(\w+)`", row.partition("|")[0])}
    assert named == written | added
    described = (ROOT / "docs/release.md").read_text().partition("## Report")[2]
    assert released == {name for row in re.findall(r"^\| (`.*?) \|", described, flags=re.MULTILINE) for name in re.findall(r"`(\w+)`", row)}


def test_pages_name_the_systems_that_are_supported():
    for page in ("README.md", "docs/install.md"):
        text = (ROOT / page).read_text()
        for name, versions in SUPPORTED_DISTRIBUTIONS.items():
            assert name.capitalize() in text
            assert all(version in text for version in versions), page


def rows_of(page: str, heading: str) -> list[list[str]]:
    """Return the cells of the first table below a heading, without its head."""
    section = (ROOT / page).read_text().partition(f"\n{heading}\n")[2]
    table = re.search(r"(?:^\|.*\n)+", section, flags=re.MULTILINE)
    assert table, heading
    return [[cell.strip() for cell in line.strip("|\n").split("|")] for line in table[0].splitlines()[2:]]


def test_the_page_on_sizes_has_the_shares_of_the_code():
    inputs = {
        name: value for path in ROOT.glob("roles/*/defaults/main.yml") for name, value in (yaml.safe_load(path.read_text()) or {}).items()
    }
    shares = {}
    for name, value in inputs.items():
        if found := re.search(r"memory_share\((\w+_memory_share|[\d.]+), (?:floor_mb=)?(\d+)\)", str(value)):
            share = float(inputs.get(found[1], 0) or found[1])
            shares[name.partition("_")[0]] = f"{share * 100:g} %", f"at least {found[2]} MB"
    assert set(shares) == {"postgres", "redis", "chroma", "nginx"}
    rows = {cells[0].lower().replace("postgresql", "postgres"): cells[1] for cells in rows_of("docs/configure.md", "## Sizes")}
    shares["the product"] = f"{MEMORY_SHARE * 100:g} % in equal parts", f"at least {LEAST_MEMORY_MB} MB each"
    assert set(rows) == set(shares)
    for name, (share, least) in shares.items():
        assert rows[name].startswith(share), name
        assert least in rows[name], name


def test_the_table_of_ports_has_every_port_that_hosts_publish_for_others():
    forms = [ROOT / "meta/forms.yml", *ROOT.glob("roles/*/meta/forms.yml")]
    ports = {name for path in forms for name in re.findall(r"^ *([a-z_]+_port): port\b", path.read_text(), flags=re.MULTILINE)}
    # Ports that one connects to, and those of the loopback.
    ports -= {"backup_postgres_port", "backup_redis_port", "jobs_postgres_port", "slipway_database_port", "slipway_probe_port"}
    ports -= {"nginx_public_https_port", "image_registry_port", "registry_port", "monitoring_port"}
    # The row of the exporters names the first.
    ports -= {"slipway_nginx_exporter_port", "slipway_postgres_exporter_port", "slipway_redis_exporter_port"}
    table = (ROOT / "docs/configure.md").read_text().partition("\n| port | group |")[2].partition("\n\n")[0]
    assert ports
    assert not {name for name in ports if f"`{name}`" not in table}
    for number in ("volume_server_port", "restore_port", "slipway_mesh_port"):
        assert str(RoleFiles().shared()[number]) in table, number


@pytest.mark.parametrize("page", sorted(ROOT.glob("examples/*/README.md")), ids=lambda page: page.parent.name)
def test_examples_name_files_that_exist(page: Path):
    named = set(re.findall(r"`([\w./-]+\.(?:yml|py|conf|toml|txt))`", page.read_text()))
    assert not {
        name for name in named if not (page.parent / name).exists() and not (ROOT / name).exists() and not list(page.parent.rglob(name))
    }


def test_no_key_that_a_page_names_gets_into_a_repository():
    pages = "".join(path.read_text() for path in [ROOT / "README.md", *(ROOT / "docs").rglob("*.md")])
    keys = {name for name in re.findall(r"inventory_dir \}\}/([\w./-]+)", pages) if re.search(r"key", name)} | {
        "pki/ca.key",
        "pki/server.key",
    }
    assert "tls/privkey.pem" in keys
    for key in keys:
        done = subprocess.run(["git", "check-ignore", "-q", f"inventories/shop/{key}"], cwd=ROOT, check=False)
        assert done.returncode == 0, key


def test_commands_that_destroy_name_the_stack():
    destroying = [words for _item, words in using("ansible-playbook") if "playbooks/destroy.yml" in words]
    assert destroying
    assert all(any(word.startswith("slipway_destroy=") for word in words) for words in destroying)
    # In a sentence it cannot be copied.
    assert not re.findall(r"run `destroy.yml` with", (ROOT / "docs/operate.md").read_text())


def test_the_table_of_names_has_every_volume_of_the_stack():
    defaults = [yaml.safe_load(path.read_text()) or {} for path in ROOT.glob("roles/*/defaults/main.yml")]
    volumes = {value for values in defaults for name, value in values.items() if name.endswith("_volume") and value}
    rows = re.findall(r"^\| [^|]*volume[^|]*\|(.+)\|$", (ROOT / "docs/architecture.md").read_text(), re.MULTILINE)
    assert set(re.findall(r"`(\w+)`", "".join(rows))) == volumes


def test_the_page_of_the_role_of_containers_has_every_entry_point():
    """Of which other roles and playbooks include files."""
    files = [path for part in ("playbooks", "roles/*/tasks") for path in ROOT.glob(f"{part}/**/*.yml")]
    texts = [path.read_text() for path in files]
    used = {name for text in texts for name in re.findall(r"name: slipway\.stack\.container_service\n +tasks_from: (\w+)\.yml", text)}
    page = (ROOT / "roles/container_service/README.md").read_text()
    assert used | {"main"} == set(re.findall(r"^- `(\w+)`:", page, re.MULTILINE))


def test_a_folder_of_an_environment_that_pages_name_is_not_read_as_an_inventory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Ansible would take what is in it for hosts, with a warning for each file."""
    pages = "\n".join(
        path.read_text(encoding="utf-8") for path in tracked_files() if path.suffix in (".md", ".yml") and "tests" not in path.parts
    )
    named = set(re.findall(r"""inventory_dir(?: \}\}| ~ ['"])/(\w+)/""", pages))
    assert {"tls", "files", "rules"} <= named
    # An ansible.cfg of the reader's own may lack them.
    monkeypatch.setattr(inventory_files, "IGNORED", re.compile(rb"^(group|host)_vars$"))
    for name in named:
        (tmp_path / name).mkdir()
        (tmp_path / name / "shop.yml").touch()
    assert [path.parent.name for path in inventory_files.hosts_files(tmp_path)] == []
    for page in ("ansible.cfg", "docs/install.md"):
        (pattern,) = re.findall(r"^ *ignore_patterns = (.+)", (ROOT / page).read_text(encoding="utf-8"), re.MULTILINE)
        assert not [folder for folder in sorted(named - {"group_vars", "host_vars"}) if not re.search(pattern, folder)], page


def test_the_line_for_a_file_of_the_controller_finds_it(tmp_path: Path) -> None:
    (line,) = re.findall(r"`\"(\{\{ lookup\('ansible.builtin.file'.+?\}\})\"`", (ROOT / "docs/product.md").read_text(encoding="utf-8"))
    (name,) = re.findall(r"/files/[\w.]+", line)
    path = tmp_path / name.strip("/")
    path.parent.mkdir()
    path.write_text("[shop]\n")
    assert Templar(DataLoader(), variables={"inventory_dir": str(tmp_path)}).template(trust_as_template(line)) == "[shop]"
