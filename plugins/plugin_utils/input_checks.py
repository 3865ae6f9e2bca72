# Copyright (c) The Slipway authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What inputs must be by themselves and to each other, before any host is asked. No Ansible in here."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from functools import partial
from ipaddress import ip_network
from typing import Any

from ansible_collections.slipway.stack.plugins.plugin_utils import app_services, extra_services
from ansible_collections.slipway.stack.plugins.plugin_utils.forms import Changed, Form, is_ipv4, kinds, parsed, problems, unchanged
from ansible_collections.slipway.stack.plugins.plugin_utils.input_names import nearest
from ansible_collections.slipway.stack.plugins.plugin_utils.preflight import Problem, shown
from ansible_collections.slipway.stack.plugins.plugin_utils.security_headers import headers_problem
from ansible_collections.slipway.stack.plugins.plugin_utils.server_names import (
    certificate_mistakes,
    name_mistakes,
    redirect_mistakes,
    server_name,
    server_names,
)
from ansible_collections.slipway.stack.plugins.plugin_utils.topology import VOLUME_PORTS

#: Problems of one input that its line lists; more of them are of the same kind.
MOST_LISTED = 3
HIGHEST_PORT = 65535
#: Names that are the stack's own in a store.
POSTGRES_OWN = "postgres"

#: Returns a variable's value; None where it has none.
Get = Callable[[str], Any]


def form_of(spec: Mapping[str, Any], declared: Any) -> Form | None:
    """Return the form of an input, from its declaration or, for booleans and choices, from its specification; None where there is none."""
    if declared is not None:
        return parsed(declared)
    if spec.get("type") == "bool":
        return Form("boolean")
    if spec.get("choices") and spec.get("type", "str") == "str":
        return Form("choice", words=tuple(spec["choices"]))
    return None


def form_problem(
    form: Form,
    value: Any,
    *,
    secret: bool = False,
    secrets: Iterable[Any] = (),
    changed: Changed = unchanged,
    where: Callable[[Any], str] = lambda _key: "",
) -> str | None:
    """Return what follows an input's name in a sentence about it, such as " is 0, must be …" or "[1] is …"; None where nothing is wrong.

    Args:
        form: Its form.
        value: Its value, templates resolved.
        secret: Whether the value must not be shown.
        secrets: What must not be shown of it.
        changed: Returns how YAML has changed a value.
        where: Returns where a key of a dictionary stands, in brackets, or "".
    """
    listed = []
    for wrong in problems(form, value, changed):
        hidden = secret or wrong.secret
        member, place = shown(wrong.path, secrets)[1:-1], where(wrong.key)
        if hidden and wrong.sentence.startswith("must be"):
            listed.append(f"{member} has a value that {wrong.sentence}{place}")
        elif hidden:
            listed.append(f"{member} {wrong.sentence}{place}")
        else:
            listed.append(f"{member} is {shown(wrong.value, secrets)}{_ends(wrong.value)}, {wrong.sentence}{place}")
    if not listed:
        return None
    more = f"; and {len(listed) - MOST_LISTED} more" if len(listed) > MOST_LISTED else ""
    return "; ".join(listed[:MOST_LISTED]) + more


def _ends(value: Any) -> str:
    """Return what a message does not show of a string: that it begins or ends with blanks, or ends with an end of line."""
    if not isinstance(value, str) or value == value.strip() or not value.strip():
        return ""
    end = "ends with an end of line, which | and > keep and |- and >- do not" if value.endswith("\n") else "begins or ends with a blank"
    return f" (it {end})"


def members(form: Form, value: Any, kind: str) -> Iterator[Any]:
    """Yield the parts of a value that have a form of some kind."""
    if form.kind == kind:
        yield value
    elif form.kind in ("list", "map") and form.members:
        for member in value.values() if isinstance(value, Mapping) else value if isinstance(value, (list, tuple)) else ():
            yield from members(form.members, member, kind)
    elif form.kind == "fields" and isinstance(value, Mapping):
        for name, member in value.items():
            if name in form.fields:
                yield from members(form.fields[name], member, kind)


def _joined(names: Iterable[str]) -> str:
    return " and ".join(sorted(set(names)))


def check_volumes(forms: Mapping[str, Form], get: Get) -> list[tuple[str, str]]:
    """Return problems of services that share a volume, each with an input that it is about."""
    users: defaultdict[str, list[str]] = defaultdict(list)
    for name, form in forms.items():
        if "volume" in kinds(form):
            # The services of a product may share one.
            ours = name in app_services.VARIABLES
            for volume in {str(volume) for volume in members(form, get(name), "volume") if volume}:
                users[volume] += [] if ours and set(users[volume]) & set(app_services.VARIABLES) else [name]
    # Those that have a name by default.
    product = app_services.services({name: get(name) for name in app_services.VARIABLES})
    implied = [("app_services", service, app_services.quiesce_volume(service)) for service in product.values()]
    extra = extra_services.services(get(extra_services.VARIABLE))
    implied += [(extra_services.VARIABLE, service, extra_services.dump_volume(service)) for service in extra.values()]
    for name, service, volume in implied:
        if volume and not service["backup"].get("volume"):
            users[volume].append(name)
    return [
        (
            names[-1],
            f"is the volume {volume}, which {_joined(names[:-1])} is too: two services on one volume destroy its data; name another",
        )
        for volume, names in users.items()
        if len(names) > 1
    ]


def check_networks(forms: Mapping[str, Form], get: Get) -> list[tuple[str, str]]:
    """Return problems of services that name a network that the stack does not have."""
    known = get("container_service_networks")
    if not isinstance(known, Mapping):
        return []
    return [
        (name, f"names the network {network}, which the stack does not have; known are {', '.join(sorted(known))}")
        for name, form in forms.items()
        if "container_network" in kinds(form)
        for network in members(form, get(name), "container_network")
        if isinstance(network, str) and network not in known
    ]


def check_hosts(forms: Mapping[str, Form], get: Get, is_set: Callable[[str], bool], known: Collection[str]) -> list[tuple[str, str]]:
    """Return problems of inputs that name a host which the inventory does not have.

    Args:
        forms: Forms of the inputs.
        get: Returns a variable's value.
        is_set: Returns whether the inventory sets an input.
        known: The hosts.
    """
    return [
        (name, f"names the host {shown(host)}, which the inventory does not have; known are {', '.join(sorted(known))}")
        for name, form in forms.items()
        if "inventory_host" in kinds(form) and is_set(name)
        for host in members(form, get(name), "inventory_host")
        if host not in known and host not in form.words
    ]


def _named(*pairs: tuple[str, Any]) -> list[tuple[str, str]]:
    """Return problems of inputs that give one name twice."""
    seen: dict[str, str] = {}
    found = []
    for variable, value in pairs:
        if not isinstance(value, str) or not value:
            continue
        other = seen.setdefault(value, variable)
        if other != variable:
            found.append((variable.partition("[")[0].partition(".")[0], f"gives the name {value}, which {other} has; give another"))
    return found


def _member(value: Any, name: str) -> Any:
    return value.get(name) if isinstance(value, Mapping) else None


def check_logins(get: Get) -> list[tuple[str, str]]:
    """Return problems of logins of a store that share a name."""
    further = [user for user in get("postgres_users") or () if isinstance(user, Mapping)]
    return _named(
        ("the superuser", POSTGRES_OWN),
        ("postgres_owner_name", get("postgres_owner_name")),
        ("postgres_app_name", get("postgres_app_name")),
        ("postgres_backup_user", _member(get("postgres_backup_user"), "name")),
        ("postgres_jobs_user", _member(get("postgres_jobs_user"), "name")),
        *((f"postgres_users[{number}]", user.get("name")) for number, user in enumerate(further)),
    ) + _named(
        ("redis_admin_name", get("redis_admin_name")),
        ("redis_app_name", get("redis_app_name")),
        ("redis_backup_user", _member(get("redis_backup_user"), "name")),
    )


def rules_lack(rules: Sequence[str]) -> str:
    """Return what a user of Redis with these rules may not use at all, or "". Each selector, in brackets, grants by itself."""
    granted, selectors = {"command": False, "key or channel": False}, []
    for rule in rules:
        word = rule.lower()
        if word.startswith("("):
            selectors.append(rules_lack(word.strip("()").split()))
        elif word in ("-@all", "nocommands"):
            granted["command"] = False
        elif word in ("resetkeys", "resetchannels"):
            granted["key or channel"] = False
        elif word.startswith(("~", "%", "&")) or word in ("allkeys", "allchannels"):
            granted["key or channel"] = True
        elif word.startswith("+") or word == "allcommands":
            granted["command"] = True
    return "" if "" in selectors else next((what for what, may in granted.items() if not may), "")


def check_redis_rules(get: Get) -> list[tuple[str, str]]:
    """Return the problem that the product could do nothing in Redis."""
    rules = get("redis_app_rules")
    lacking = rules_lack(rules) if rules is not None else ""
    how = "add rules as ~*, &* and +@all, or remove the line for the role's own"
    return [("redis_app_rules", f"gives the product no {lacking}, so that it can do nothing in Redis: {how}")] if lacking else []


def _number(value: Any) -> float | None:
    try:
        return float(value)
    except (TypeError, ValueError):
        return None


def check_sizes(get: Get) -> list[tuple[str, str]]:
    """Return problems of sizes of which one must fit into the other."""
    found = []
    for part, whole, why in (
        ("redis_maxmemory_mb", "redis_memory_mb", "rewriting the append-only file needs some too"),
        ("nginx_tmp_mb", "nginx_memory_mb", "what is written there counts as memory"),
        ("postgres_shm_mb", "postgres_memory_mb", "what is written there counts as memory"),
    ):
        small, large = _number(get(part)), _number(get(whole))
        if small is not None and large is not None and small >= large:
            found.append((part, f"is {small:g} MB and must be less than {whole}, which is {large:g} MB: {why}"))
    return found


def check_product(get: Get) -> list[tuple[str, str]]:
    """Return problems of the services of a product to each other."""
    product = {name: get(name) for name in app_services.VARIABLES}
    if product["app_services"] is None:
        return []
    offset = get("app_slot_port_offset")
    found = app_services.mistakes(
        product, get("app_publish_address") or "", app_services.SLOT_PORT_OFFSET if offset is None else int(offset)
    )
    found += app_services.unreached(product, get("container_service_networks") or ())
    return found + app_services.unclaimed_jobs(product, get("groups") or {}, shared=bool(get("slipway_postgres_hosts")))


def check_registry_login(get: Get) -> list[tuple[str, str]]:
    """Return what is wrong with a login to a registry that leaves open which one it is for."""
    product, login = {name: get(name) for name in app_services.VARIABLES}, get("image_registry_login")
    if product["app_services"] is None or not login or not login.get("username") or "registry" in login:
        return []
    registries = app_services.login_registries(product)
    return [("image_registry_login", app_services.unclear_login(registries))] if len(registries) > 1 else []


def empty_group(group: str, groups: Iterable[str]) -> str:
    """Return what is wrong with a group of hosts that has none."""
    return f"has hosts: {group}, a group without hosts{nearest(group, groups)}"


def hosts_problem(service: app_services.Service, groups: Mapping[str, Collection[str]], batch: int) -> str:
    """Return what is wrong with the group of hosts that a service runs on, or "".

    Args:
        service: The service.
        groups: Hosts of the inventory by group.
        batch: Number of hosts that a release takes out at a time, 0 for none.
    """
    group, everywhere = str(service["hosts"]), str(app_services.known_keys()["hosts"]["default"])
    hosts, whole = groups.get(group, ()), groups.get(everywhere, ())
    others = [host for host in hosts if host not in whole]
    if group == everywhere:
        return ""
    if not hosts:
        return f"{empty_group(group, groups)}; add hosts of group {everywhere} to it, or remove the key"
    if others:
        return f"has hosts: {group}, a group with {', '.join(others)}, not in group {everywhere}; add it there, or take it from {group}"
    if batch >= len(hosts) and service.port and not service.lasts:
        return (
            f"has hosts: {group}, a group of {len(hosts)}, and app_release_batch is {batch}: one must go on serving while a rolling "
            "release takes hosts out; lower it, or add hosts"
        )
    return ""


def check_service_hosts(get: Get) -> list[tuple[str, str]]:
    """Return problems of services that run on some of the product's hosts alone."""
    product = {name: get(name) for name in app_services.VARIABLES}
    batch = int(get("app_release_batch") or 0) if get("app_release_strategy") == "rolling" else 0
    found = [(service, hosts_problem(service, get("groups"), batch)) for service in app_services.services(product).values()]
    return [service.problem("hosts", text) for service, text in found if text]


def extra_hosts_problem(service: app_services.Service, groups: Mapping[str, Sequence[str]], may: Sequence[str]) -> str:
    """Return what is wrong with the group of hosts that an extra service runs on, or "".

    Args:
        service: The service.
        groups: Hosts of the inventory by group.
        may: Groups whose hosts run extra services, that of hosts which run nothing else first.
    """
    group = str(service["hosts"])
    hosts = groups.get(group, ())
    others = [host for host in hosts if not any(host in groups.get(name, ()) for name in may)]
    if not hosts:
        return f"{empty_group(group, groups)}; add hosts to it, or name another"
    if others:
        return f"has hosts: {group}, a group with {', '.join(others)}, not in group {' or '.join(may)}; add it to group {may[0]}"
    if len(hosts) > 1 and extra_services.keeps_data(service):
        return f"keeps data, and would have other data on each of {', '.join(hosts)}; set hosts to a group of one host"
    return ""


def check_extra_services(get: Get, may: Sequence[str], roles: Collection[str]) -> list[tuple[str, str]]:
    """Return problems of the services that belong to no version, by themselves, to the product's and to each other.

    Args:
        get: Returns a variable's value.
        may: Groups whose hosts run them, as extra_hosts_problem takes them.
        roles: Roles that run a service of the same name.
    """
    described = get(extra_services.VARIABLE) or {}
    found = extra_services.mistakes(described, get("app_services") or {}, roles)
    hosts = {service.path: extra_hosts_problem(service, get("groups"), may) for service in extra_services.services(described).values()}
    return found + [(path, text) for path, text in hosts.items() if text]


def check_names(get: Get) -> list[tuple[str, str]]:
    """Return problems of the names of a site, of its redirects, and of its certificates to each other."""
    if get("nginx_server_names") is None:
        return []
    names = server_names(get("nginx_server_names"), "nginx_server_names")
    redirects = [
        (server_name(redirect["from"], "nginx_redirects"), server_name(redirect["to"], "nginx_redirects"))
        for redirect in get("nginx_redirects") or ()
    ]
    certificates = [server_names(item["names"], "nginx_certificates") for item in get("nginx_certificates") or ()]
    found = [("nginx_server_names", text) for text in name_mistakes(names)]
    found += [("nginx_redirects", text) for text in redirect_mistakes(names, redirects)]
    found += [
        ("nginx_certificates", text) for text in certificate_mistakes([*names, *(source for source, _target in redirects)], certificates)
    ]
    product = {name: get(name) for name in app_services.VARIABLES}
    return found + [
        service.problem("routes", f"has the host {host}, which nginx_server_names lacks: add it there", member=True)
        for service in app_services.services(product).values()
        for host in dict.fromkeys(str(route["host"]) for route in service.routes if route.get("host"))
        if server_name(host, "host") not in names
    ]


def check_access(get: Get) -> list[tuple[str, str]]:
    """Return problems of what limits clients: lists that contradict each other, and realms without users."""
    users = get("nginx_auth_basic_users")
    if users is None:
        return []
    product = {name: get(name) for name in app_services.VARIABLES}
    site = {key: get(f"nginx_{key}") for key in app_services.ACCESS_KEYS}
    found = [("nginx_allow", text) for text in app_services.access_mistakes(site)]
    if wrong := without_users(get("nginx_auth_basic"), users):
        found.append(("nginx_auth_basic", wrong))
    routes = [
        service.problem("routes", wrong, member=True)
        for service in app_services.services(product).values()
        for route in service.routes
        if (wrong := without_users(route.get("auth_basic"), users))
    ]
    return found + list(dict.fromkeys(routes))


def without_users(realm: Any, users: Mapping[str, Any]) -> str:
    """Return what is wrong with a realm that has no user, or ""."""
    how = f"a realm without users{nearest(str(realm), users)}: add them to nginx_auth_basic_users"
    return f"has auth_basic: {realm}, {how}" if realm and not users.get(realm) else ""


def check_headers(get: Get) -> list[tuple[str, str]]:
    """Return the problem of a security header that browsers would ignore, or that would be sent twice."""
    wrong = headers_problem({str(name): str(value) for name, value in (get("nginx_security_headers") or {}).items()})
    return [("nginx_security_headers", wrong)] if wrong else []


def check_proxies(get: Get) -> list[tuple[str, str]]:
    """Return the problem that every client is taken for a proxy, and may so claim any address."""
    return [
        ("nginx_trusted_proxies", f"has {network}, which is every address: any client could claim any other; list the proxies themselves")
        for network in get("nginx_trusted_proxies") or ()
        if ip_network(network, strict=False).prefixlen == 0
    ]


def check_published(items: Any) -> list[tuple[str, str]]:
    """Return problems of ports that two services would publish.

    Args:
        items: Ports, each with its variable, and the address where it is not every address.
    """
    seen: dict[int, list[tuple[str, str]]] = defaultdict(list)
    found: dict[tuple[str, str], str] = {}
    for item in items if isinstance(items, list) else ():
        port, variable, address = _number(item.get("port")), str(item.get("variable") or "port"), str(item.get("address") or "")
        if port is None:
            continue
        for other, where in seen[int(port)]:
            if other != variable and ("" in (where, address) or where == address):
                found.setdefault((variable, other), f"wants port {int(port)}, and {other} does too; change one of them")
        seen[int(port)].append((variable, address))
    return [(variable, text) for (variable, _other), text in found.items()]


def check_transfers(get: Get) -> list[tuple[str, str]]:
    """Return the problem that the last of the ports counted from restore_port is not a port."""
    volumes, first = get("slipway_backup_volumes") or [], int(get("restore_port"))
    beyond = first + VOLUME_PORTS + len(volumes) - 1 - HIGHEST_PORT
    if not volumes or beyond <= 0:
        return []
    last = f"the last of {len(volumes)} volumes of the product port {HIGHEST_PORT + beyond}"
    return [("restore_port", f"is {first}, which gives {last}; choose {first - beyond} or less")]


#: Checks between inputs, each with the inputs that it looks at: where an inventory sets none of them, defaults stand, which fit.
CHECKS: tuple[tuple[Callable[[Get], list[tuple[str, str]]], tuple[str, ...]], ...] = (
    (
        check_logins,
        (
            "postgres_owner_name", "postgres_app_name", "postgres_backup_user", "postgres_jobs_user", "postgres_users", "redis_admin_name",
            "redis_app_name", "redis_backup_user",
        ),
    ),
    (check_redis_rules, ("redis_app_rules",)),
    (check_transfers, ("restore_port", *app_services.VARIABLES)),
    (check_product, (*app_services.VARIABLES, "app_slot_port_offset", "app_publish_address")),
    (check_registry_login, ("image_registry_login", *app_services.VARIABLES)),
    (check_service_hosts, (*app_services.VARIABLES, "app_release_strategy", "app_release_batch")),
    (check_names, ("nginx_server_names", "nginx_redirects", "nginx_certificates", *app_services.VARIABLES)),
    (check_headers, ("nginx_security_headers",)),
    (check_proxies, ("nginx_trusted_proxies",)),
    (
        check_access,
        ("nginx_auth_basic", "nginx_auth_basic_users", "nginx_allow", "nginx_deny", *app_services.VARIABLES),
    ),
    (
        check_sizes,
        (
            "redis_maxmemory_mb", "redis_memory_mb", "nginx_tmp_mb", "nginx_memory_mb", "postgres_shm_mb", "postgres_memory_mb",
        ),
    ),
)  # fmt: skip
#: Inputs that say which ports are published.
PORTS = (
    "nginx_http_port", "nginx_https_port", "nginx_proxy_protocol_port", "postgres_port", "redis_port", "chroma_port",
    *app_services.VARIABLES, "app_slot_port_offset", extra_services.VARIABLE,
)  # fmt: skip


def attempted(check: Callable[[], list[tuple[str, str]]], names: Sequence[str]) -> list[tuple[str, str]]:
    """Return what a check finds; where it fails itself, that, with the inputs that it looks at: a run ends with their names all the same.

    Args:
        check: The check.
        names: Inputs that it looks at, those that the inventory sets first.
    """
    try:
        return check()
    except (ArithmeticError, AttributeError, LookupError, TypeError, ValueError) as error:
        others = f" (or {', '.join(names[1:MOST_LISTED])})" if len(names) > 1 else ""
        return [(names[0], f"cannot be checked: {type(error).__name__}: {error}; correct it{others}")]


def check_together(forms: Mapping[str, Form], get: Get, is_set: Callable[[str], bool]) -> list[tuple[str, str]]:
    """Return what is wrong with the inputs of one host to each other, each with the input that it is about.

    Args:
        forms: Forms of the inputs of its roles.
        get: Returns a variable's value.
        is_set: Returns whether the inventory sets an input.
    """
    found: list[tuple[str, str]] = []
    for check, looked_at in CHECKS:
        if chosen := [name for name in looked_at if is_set(name)]:
            found += attempted(partial(check, get), chosen)
    for kind, look in (("volume", check_volumes), ("container_network", check_networks)):
        if chosen := [name for name, form in forms.items() if kind in kinds(form) and is_set(name)]:
            found += attempted(partial(look, forms, get), chosen)
    if any(map(is_set, PORTS)):
        found += attempted(lambda: check_published(get("slipway_published_ports")), [name for name in PORTS if is_set(name)])
    return found


def check_alike(host: str, secrets: Mapping[str, Any]) -> list[Problem]:
    """Every secret must be another: who knows one would know all.

    Args:
        host: The host.
        secrets: Secrets by name.
    """
    names: defaultdict[str, list[str]] = defaultdict(list)
    for name, value in secrets.items():
        if isinstance(value, str) and value:
            names[value].append(name)
    return [
        Problem(host, f"{' and '.join(alike)} have the same value; give each its own, or remove their lines and run playbooks/secrets.yml")
        for alike in names.values()
        if len(alike) > 1
    ]


def check_addresses(addresses: Mapping[str, Any], place: Callable[[str], str | None], chosen: Collection[str] = ()) -> list[Problem]:
    """A host's address for the others is an IPv4 address: ports are published and filtered by it.

    Args:
        addresses: slipway_address by host.
        place: Returns the place that sets it for a host, where that is known.
        chosen: The hosts whose address the inventory sets. One that follows from ansible_host is only needed where there are several hosts.
    """
    return [
        Problem(
            host,
            f"slipway_address is {shown(address)}, must be an IPv4 address, at which the other hosts reach this one; "
            f"{f'correct {found}' if (found := place(host)) else f'set it for {host} in the hosts file'}"
            f"{'' if len(addresses) > 1 else ', or remove it, as there are no other hosts'}",
        )
        for host, address in addresses.items()
        if (len(addresses) > 1 or host in chosen) and not (isinstance(address, str) and is_ipv4(address))
    ]
