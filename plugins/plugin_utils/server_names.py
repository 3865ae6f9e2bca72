# Copyright (c) The Slipway authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Names of a site, in the forms that nginx takes: exact, with a wildcard, and as a regular expression.

Source: https://nginx.org/en/docs/http/server_names.html.
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

from ansible_collections.slipway.stack.plugins.plugin_utils.quoting import CONTROLS, QuotingError

idna: Any
try:
    import idna
except ImportError:  # Python's own codec knows the older standard, IDNA 2003.
    idna = None

_LABEL = r"[A-Za-z0-9_]([A-Za-z0-9_-]{0,61}[A-Za-z0-9_])?"
_NAME = re.compile(rf"(?=.{{1,253}}$)(\*\.|\.)?{_LABEL}(\.{_LABEL})*(\.\*)?")


def _ascii(label: str) -> str:
    """Return a label of a name as the DNS has it.

    Raises:
        UnicodeError: it cannot be one.
    """
    if label.isascii():
        return label
    return (idna.encode(label, uts46=True) if idna else label.encode("idna")).decode("ascii")


def server_name(value: Any, what: str) -> str:
    """Return a name as nginx' server_name takes it; labels outside ASCII become punycode.

    Raises:
        QuotingError: It is not a host name (its first or last part may be a wildcard), an address, or ``~`` and a regular expression.
    """
    if not isinstance(value, str):
        raise QuotingError(f"{what} must hold strings: quote the value")
    text = str(value)
    if text.startswith("~"):
        if any(character in CONTROLS for character in text):
            raise QuotingError(f"{what} must not hold a line break, or another control character")
        return text
    try:
        return str(ipaddress.IPv4Address(text))
    except ValueError:
        pass
    try:
        return f"[{ipaddress.IPv6Address(text.removeprefix('[').removesuffix(']'))}]"
    except ValueError:
        pass
    try:
        ascii_name = ".".join(_ascii(label) for label in text.split("."))
    except UnicodeError:
        ascii_name = ""
    if not _NAME.fullmatch(ascii_name):
        raise QuotingError(
            f"{what} must hold host names (shop.example.com, *.example.com, .example.com, or ~ and a regular expression), not {text!r}"
        )
    return ascii_name.lower()


def server_names(values: Iterable[Any], what: str) -> list[str]:
    """Return names as nginx takes them, each once.

    Raises:
        QuotingError: The value is not a list, or one of its names is not valid.
    """
    if not isinstance(values, (list, tuple)):
        raise QuotingError(f"{what} must be a list of host names")
    return list(dict.fromkeys(server_name(value, what) for value in values))


def concrete_server_name(values: Iterable[Any], default: str = "localhost", known: str = "") -> str:
    """Return a name that a request may be sent to: the first exact one, else the known one, a name that a wildcard matches, the default.

    ``.example.com`` is matched by ``example.com``, and ``*.example.com`` and ``www.example.*`` by ``www.example.com``. Of a regular
    expression nothing is known.

    Raises:
        QuotingError: One of the names is not valid.
    """
    names = server_names(values, "nginx_server_names")
    for name in names:
        if name != "_" and not name.startswith((".", "*", "~")) and not name.endswith(".*"):
            return name
    if known:
        return known
    for name in names:
        if name.startswith("."):
            return name[1:]
        if name.startswith("*."):
            return f"www{name[1:].removesuffix('.*')}"
        if name.endswith(".*") and not name.startswith("~"):
            return f"{name[:-2]}.com"
    return default


def _written_out(name: str) -> set[str]:
    """Return the names that a name is short for."""
    return {name[1:], f"*{name}"} if name.startswith(".") else {name}


def name_mistakes(names: Sequence[str]) -> Iterator[str]:
    """Yield what is wrong with names of a site to each other: of two servers with one name, nginx ignores the second, and its routes."""
    for short in names:
        for name in sorted(_written_out(short) & set(names) - {short}):
            [other] = _written_out(short) - {name}
            yield f"has {name}, which {short} stands for, too: remove {name}, or write {other} instead of {short}"


def served_by(host: str, names: Iterable[str]) -> str:
    """Return the name by which nginx serves a host, or "" where there is none; regular expressions are not looked at.

    An exact name comes first, then the longest with a wildcard before it, then the longest with one behind it.
    """
    names = list(names)
    exact = [name for name in names if host in _written_out(name)]
    before = [name for name in names if name.startswith(("*.", ".")) and host.endswith(name.removeprefix("*"))]
    behind = [name for name in names if name.endswith(".*") and host.startswith(name[:-1])]
    return next((max(found, key=len) for found in (exact, before, behind) if found), "")


def names_of_certificates(names: Iterable[Any], certificates: Iterable[Iterable[Any]], shown: str) -> list[str]:
    """Return a name for each certificate of a balancer, by which a client gets it, in the order of the certificates.

    A certificate whose names are all regular expressions has none.

    Args:
        names: Names that serve or are redirected.
        certificates: Names of each certificate of its own; the other names share one.
        shown: A name whose certificate is left out.

    Raises:
        QuotingError: One of the names is not valid.
    """
    own = [server_names(values, "nginx_certificates") for values in certificates]
    taken = {name for values in own for name in values}
    groups = [[name for name in server_names(names, "nginx_server_names") if name not in taken], *own]
    known = [name for values in groups for name in values]
    found = []
    for group in groups:
        if served_by(shown, known) in group:
            continue
        # What an example of a wildcard leads to may have another certificate.
        examples = [concrete_server_name([name], "") for name in group] + [f"slipway-probe{name[1:]}" for name in group if name[:2] == "*."]
        found += [example for example in examples if example and served_by(example, known) in group][:1]
    return found


def redirect_mistakes(names: Sequence[str], redirects: Iterable[tuple[str, str]]) -> Iterator[str]:
    """Yield what is wrong with redirects: each must lead from a name that does not serve to one that does, without a second redirect.

    Args:
        names: Names of the site.
        redirects: Pairs of names, each from which and to which one leads.
    """
    redirects = list(redirects)
    serving = set().union(*map(_written_out, names))
    for number, (source, target) in enumerate(redirects):
        others = {name for other, _target in redirects[:number] for name in _written_out(other)}
        if _written_out(source) & serving:
            yield f"redirects {source}, which nginx_server_names has too: remove it from one of them"
        elif _written_out(source) & others:
            yield f"redirects {source} twice: remove one of them"
        else:
            found = served_by(target, [*names, *(name for name, _target in redirects)])
            if not found:
                yield f"redirects {source} to {target}, which does not serve: add it to nginx_server_names, or name a host that is there"
            elif found not in names:
                yield f"redirects {source} to {target}, which is redirected itself: name a host of nginx_server_names, which serves"


def certificate_mistakes(names: Iterable[str], certificates: Iterable[Iterable[str]]) -> Iterator[str]:
    """Yield what is wrong with the names that have certificates of their own.

    Args:
        names: Names that serve or are redirected.
        certificates: Names of each certificate.
    """
    known, seen = set(names), set()
    for name in (name for of_certificate in certificates for name in dict.fromkeys(of_certificate)):
        if name not in known:
            yield f"has a certificate for {name}, which neither nginx_server_names nor nginx_redirects has: correct it, or add it there"
        elif name in seen:
            yield f"has two certificates for {name}: remove the name from one of them"
        seen.add(name)
