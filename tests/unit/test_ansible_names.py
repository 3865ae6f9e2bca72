"""Misspelled names of Ansible's own variables: each is refused, and none that Ansible or one of its plugins reads."""

from __future__ import annotations

import re

import pytest
from ansible.constants import config
from ansible.errors import AnsibleError
from ansible.plugins.list import list_plugins

from ansible_collections.slipway.stack.plugins.plugin_utils.ansible_names import (
    KINDS,
    PLUGINS,
    connection_variables,
    installed_variables,
    misspelled,
    plugin_problem,
)

REACHED_BY = connection_variables({})


def meant(name: str, *, used: bool = False) -> str:
    """Return what a name was probably meant for, or "" where it is accepted."""
    found = re.search(r"did you mean (\w+)\?", misspelled([name], REACHED_BY, lambda _name: used).get(name, ""))
    return found[1] if found else ""


@pytest.mark.parametrize(
    ("name", "right"),
    [
        ("ansible_hosts", "ansible_host"),
        ("ansible_hst", "ansible_host"),
        ("ansible_usr", "ansible_user"),
        ("ansible_users", "ansible_user"),
        ("ansible_User", "ansible_user"),
        ("ansible_ports", "ansible_port"),
        ("ansible_prot", "ansible_port"),
        ("ansible_becom", "ansible_become"),
        ("ansible_beocme_user", "ansible_become_user"),
        ("ansible_become_passwd", "ansible_become_pass"),
        ("ansible_becomemethod", "ansible_become_method"),
        ("ansible_conection", "ansible_connection"),
        ("ansible_ssh_private_keyfile", "ansible_ssh_private_key_file"),
        ("ansible_private_key_flie", "ansible_private_key_file"),
        ("ansible_ssh_comon_arg", "ansible_ssh_common_args"),
        ("ansible_pyhton_interpreter", "ansible_python_interpreter"),
        ("ansible_python_interpeter", "ansible_python_interpreter"),
        ("ansible_host_key_cheking", "ansible_host_key_checking"),
        ("ansible_pipelinig", "ansible_pipelining"),
        ("ansible_remote_temp", "ansible_remote_tmp"),
    ],
)
def test_a_name_within_two_letters_names_the_right_one(name: str, right: str):
    assert meant(name) == right


@pytest.mark.parametrize(
    "name",
    [
        *("ansible_python3_interpreter", "ansible_ruby_interpreter", "ansible_perl_interpreter", "ansible_bash_interpreter"),
        # Facts, what a run sets, and a variable of the user's own.
        *("ansible_hostname", "ansible_user_id", "ansible_env", "ansible_facts", "ansible_forks", "ansible_managed", "ansible_color"),
    ],
)
def test_other_names_are_accepted(name: str):
    assert meant(name) == ""


def test_a_name_that_a_template_reads_is_the_users_own():
    assert meant("ansible_hosts", used=True) == ""


def test_no_variable_of_an_installed_plugin_is_refused():
    """Of any plugin, as ansible-doc has it: other connections have variables that are nearly those of ssh."""
    documented = set()
    for kind in KINDS:
        for _path, plugin in list_plugins(kind).values():
            try:
                documented.update(config.get_plugin_vars(kind, getattr(plugin, "_load_name", "")))
            except AnsibleError:
                continue
    documented = {name for name in documented if name.startswith("ansible_")}
    assert {"ansible_docker_extra_args", "ansible_paramiko_pass", "ansible_ssh_host"} <= documented
    assert documented <= installed_variables()
    assert misspelled(documented, REACHED_BY, lambda _name: False) == {}


def test_variables_of_the_plugin_that_is_used_are_known_too():
    names = connection_variables({"ansible_connection": "community.docker.docker", "ansible_become_method": "nosuch"})
    assert {"ansible_docker_host", "ansible_user"} <= names
    assert misspelled(["ansible_docker_hots"], names, lambda _name: False) == {
        "ansible_docker_hots": "ansible_docker_hots is not a variable of Ansible (did you mean ansible_docker_host?)"
    }


@pytest.mark.parametrize("name", PLUGINS)
@pytest.mark.parametrize("value", ["nosuch", "", None, 1, ["ssh"], "SSH"])
def test_a_plugin_that_is_not_there_is_refused(name: str, value: object):
    usual = PLUGINS[name][1]
    assert plugin_problem(name, value) == f" is {value!r}, must be a plugin of Ansible, as {usual}"
    assert plugin_problem(name, usual) == plugin_problem(name, f"ansible.builtin.{usual}") == ""
