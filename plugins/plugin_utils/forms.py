# Copyright (c) The Slipway authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The forms that inputs have: ports, counts, names, paths, addresses and so on, each with a range or pattern and one sentence.

roles/<role>/meta/forms.yml declares the form of each input, and meta/forms.yml those of variables that belong to no role:

    nginx_http_port: port
    app_release_batch: count 1..1000
    app_publish_address: address or empty
    backup_schedule: calendar or never
    schedule: {list: calendar, single: true}
    slipway_secrets_command: {list: words, at_least: 1}
    registry_login: {fields: {username: words, password: credential}, required: [username]}
    nginx_security_headers: {map: {keys: header_name, values: header_value}}
    redis_settings: {map: {keys: redis_setting, values: setting_value, named: {databases: count 1..1000}}}

A form is written as ``<kind> [low..high] [or <word>]…``, where the word ``empty`` stands for an empty string. A ``single`` member of a list
may stand for the list. Values under ``named`` have a form of their own. Types, booleans and choices
are the argument specification's. No Ansible in here.
"""

from __future__ import annotations

import contextlib
import datetime as dt
import functools
import io
import ipaddress
import json
import os
import re
import shlex
import shutil
import urllib.parse
import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from ansible_collections.slipway.stack.plugins.module_utils.moments import parse_moment
from ansible_collections.slipway.stack.plugins.module_utils.removal import STACK_NAME
from ansible_collections.slipway.stack.plugins.plugin_utils import notifications
from ansible_collections.slipway.stack.plugins.plugin_utils.calendar_events import is_calendar
from ansible_collections.slipway.stack.plugins.plugin_utils.input_names import nearest
from ansible_collections.slipway.stack.plugins.plugin_utils.quoting import (
    QuotingError,
    http_header_value,
    nginx_directive,
    password_hash_problem,
)
from ansible_collections.slipway.stack.plugins.plugin_utils.secret_values import secret_problem
from ansible_collections.slipway.stack.plugins.plugin_utils.security_headers import HSTS, hsts_problem, policy_problem
from ansible_collections.slipway.stack.plugins.plugin_utils.server_names import server_name

HIGHEST_PORT = 65535
#: The highest number of a user or a group that the engine takes.
HIGHEST_USER = 2**31 - 1
#: Longest name that PostgreSQL keeps, in bytes.
POSTGRES_NAME_BYTES = 63
#: Names that PostgreSQL does not give to a role, quoted or not.
POSTGRES_RESERVED = ("none", "public")
REDIS_CATEGORIES = tuple(
    name
    for line in (
        "admin all bitmap blocking bloom cms connection cuckoo dangerous fast geo hash hyperloglog json keyspace list pubsub read",
        "scripting search set slow sortedset stream string tdigest timeseries topk transaction write",
    )
    for name in line.split()
)
#: Containers of a stack that are not a product's.
STACK_SERVICES = (
    *("nginx", "postgres", "redis", "chroma", "backup", "registry", "migrate"),
    *("exporters", "prometheus", "alertmanager", "blackbox"),
)


class Wrong(NamedTuple):
    """What is wrong with a value: where in it ("" for all of it), the value there, and a sentence that begins with "must".

    The key is the name in the innermost dictionary around it, which knows where it is written.
    """

    path: str
    value: Any
    sentence: str
    secret: bool = False
    key: Any = None


@dataclass(frozen=True)
class Kind:
    """A kind of values.

    Attributes:
        sentence: What a value must be, after "must be"; {low} and {high} stand for the limits.
        test: Returns whether a string is one, or why it is not.
        low: Least number, where it is one of numbers.
        high: Highest number.
        whole: Whether numbers are whole ones.
        text: Whether values are strings.
        secret: Whether values must not be shown.
    """

    sentence: str
    test: Callable[[Any], bool | str] | None = None
    low: float | None = None
    high: float | None = None
    whole: bool = True
    text: bool = True
    secret: bool = False

    @property
    def number(self) -> bool:
        """Return whether values are numbers."""
        return self.low is not None


def pattern(expression: str, longest: int = 4096) -> Callable[[Any], bool]:
    """Return a test that compares all of a string with a regular expression."""
    compiled = re.compile(expression)
    return lambda text: len(text) <= longest and compiled.fullmatch(text) is not None


_CONTROL = re.compile(r"[\x00-\x1f\x7f\x85\u2028\u2029]")
_CONTROL_OR_BREAK = re.compile(r"[\x00-\x08\x0b-\x1f\x7f]")
_SURROGATE = re.compile(r"[\ud800-\udfff]")
_LABEL = re.compile(r"(?!-)[A-Za-z0-9_-]{1,63}(?<!-)")


def is_line(text: str) -> bool:
    """Return whether a string is one line without control characters."""
    return not _CONTROL.search(text) and not _SURROGATE.search(text)


def is_text(text: str) -> bool:
    """Return whether a string has no control characters but tabs and ends of lines."""
    return not _CONTROL_OR_BREAK.search(text.replace("\r\n", "\n"))


def is_address(text: str) -> bool:
    """Return whether a string is an IP address."""
    try:
        ipaddress.ip_address(text)
    except ValueError:
        return False
    return "%" not in text


def is_ipv4(text: str) -> bool:
    """Return whether a string is an IPv4 address."""
    return ":" not in text and is_address(text)


def is_network(text: str) -> bool:
    """Return whether a string is an IP address or a network in CIDR notation."""
    try:
        ipaddress.ip_network(text, strict=False)
    except ValueError:
        return False
    address, slash, bits = text.partition("/")
    return is_address(address) and (not slash or bits.isdecimal())


def is_dns_name(text: str) -> bool:
    """Return whether a string is a DNS name in ASCII."""
    labels = text.removesuffix(".").split(".")
    # What looks like an IPv4 address is one, or a mistake.
    return len(text) <= 253 and all(_LABEL.fullmatch(label) for label in labels) and not labels[-1].isdecimal()


def is_host(text: str) -> bool:
    """Return whether a string is an IP address or a DNS name."""
    return is_address(text) or is_dns_name(text)


def is_server_name(text: str) -> bool | str:
    """Return whether nginx and a certificate can have a string as a server's name."""
    if not text.isascii():
        try:
            return f"a server name in ASCII; write it as {text.encode('idna').decode()}"
        except UnicodeError:
            return False
    if text.endswith(".") and not text.startswith("~"):
        return f"a server name without the dot at its end; write it as {text.rstrip('.')}"
    try:
        server_name(text, "it")
    except QuotingError:
        return False
    if text.startswith("~"):
        return _is_nginx_expression(text[1:])
    if text.startswith("*."):
        return is_dns_name(text[2:])
    if text.endswith(".*"):
        return is_dns_name(text[:-2])
    return is_host(text.removeprefix("."))


#: What Python says of regular expressions that PCRE refuses as well.
_WRONG_EXPRESSION = ("missing ), unterminated subpattern", "unbalanced parenthesis", "unterminated character set", "nothing to repeat")


def _is_nginx_expression(text: str) -> bool | str:
    """Return whether a string may be a regular expression of nginx for names of servers. The rest of PCRE is for `nginx -t` to judge."""
    if not text or re.search(r"[\s;\"']", text):
        return "a regular expression after ~, without blanks, quotes and ;"
    try:
        # Python warns of [[:alpha:]].
        with warnings.catch_warnings(action="ignore"):
            re.compile(re.sub(r"(?<!\\)\(\?<(?=[A-Za-z_])", "(?P<", text))
    except re.error as error:
        if error.msg.startswith(_WRONG_EXPRESSION):
            return f"a valid regular expression after ~ ({error})"
    return True


def is_url(text: str, schemes: Iterable[str] = ("http", "https")) -> bool:
    """Return whether a string is a URL with a host and perhaps a port."""
    if re.search(r"[\s\x00-\x1f\"'<>\\^`{}|]", text):
        return False
    try:
        parts = urllib.parse.urlsplit(text)
        port = parts.port
    except ValueError:
        return False
    host = parts.hostname or ""
    # What follows # is never sent.
    return parts.scheme in schemes and is_host(host) and (port is None or 0 < port <= HIGHEST_PORT) and "#" not in text


def is_public_url(text: str) -> bool | str:
    """Return whether a string is a URL that others may see, without a login."""
    return is_url(text) and ("@" not in urllib.parse.urlsplit(text).netloc or "an URL without a login, as others see it")


def is_notification_url(text: str) -> bool | str:
    """Return whether a string is the URL of a webhook, or one that apprise sends to."""
    if not is_line(text):
        return False
    if not notifications.is_webhook(text):
        return notifications.apprise_problem(text) or True
    return is_url(text)


def is_endpoint(text: str) -> bool:
    """Return whether a string is host:port."""
    host, _unused, port = text.rpartition(":")
    return port.isdecimal() and 0 < int(port) <= HIGHEST_PORT and is_host(host.removeprefix("[").removesuffix("]"))


#: Families of groups that OpenSSL has for a key exchange, in any case.
_GROUP = (
    r"(?:x25519|x448|p-\d{3}|prime\d{3}v\d|sec[pt]\d{3}[kr]\d|brainpoolp\d{3}[rt]1(?:tls13)?|ffdhe\d{4}"
    r"|(?:x25519|secp\d{3}r1)?mlkem\d{3,4})"
)
#: Tags of images that name no version: what they stand for changes with each push, so a release of one cannot be rolled back to.
MOVING_TAGS = (
    *("latest", "stable", "edge", "nightly", "rolling", "current", "mainline", "lts", "head", "snapshot", "unstable", "testing"),
    *("main", "master", "trunk", "develop", "development", "dev", "next", "canary", "beta", "alpha", "prod", "production", "staging"),
)
_COMPONENT = r"[a-z0-9]+(?:(?:\.|_|__|-+)[a-z0-9]+)*"
_IMAGE = re.compile(
    rf"(?P<name>(?:(?:[A-Za-z0-9](?:[A-Za-z0-9-]*[A-Za-z0-9])?)(?:\.[A-Za-z0-9](?:[A-Za-z0-9-]*[A-Za-z0-9])?)*(?::\d+)?/)?"
    rf"{_COMPONENT}(?:/{_COMPONENT})*)"
    r"(?P<tag>:\w[\w.-]{0,127})?(?P<digest>@sha(?:256:[0-9a-f]{64}|512:[0-9a-f]{128}))?",
    re.ASCII,
)


def is_image(text: str) -> bool | str:
    """Return whether a string is a reference to an image with a version or digest, as Docker reads them."""
    found = _IMAGE.fullmatch(text)
    if found and not (found["tag"] or found["digest"]):
        return "an image with its version, as repository:version"
    if not found and "@" in text and _IMAGE.fullmatch(text.partition("@")[0]):
        return "an image whose digest is sha256: and 64 hexadecimal digits"
    if not found and _IMAGE.fullmatch(text.lower()):
        return "an image whose name is in small letters"
    if found and not found["digest"] and (found["tag"] or "")[1:].lower() in MOVING_TAGS:
        return f"an image whose tag names a version, which {found['tag'][1:]} does not: give one, or add its digest, as {text}@sha256:…"
    return found is not None


def is_version(text: str) -> bool | str:
    """Return whether a string can be a version of the product: the tag of an image, and always of the same one."""
    if text.lower() in MOVING_TAGS:
        return f"a version such as 1.4.2: {text} is another image with each push, and a release of it cannot be rolled back to"
    return re.fullmatch(r"(?a:\w[\w.-]{0,127})", text) is not None


def is_path(text: str) -> bool:
    """Return whether a string is the absolute path of a file or folder in a container."""
    return (
        text.startswith("/")
        and text.strip("/") != ""
        and not re.search(r"[:,\x00-\x1f\x7f]", text)
        and not {".", ".."}.intersection(text.split("/"))
        # What the kernel fills, but for the memory that processes share.
        and not re.match(r"/+(?:proc|sys|dev(?!/shm(?:/|$)))(?:/|$)", text)
        and is_line(text)
    )


def is_shell_words(text: str) -> bool | str:
    """Return whether a string can be divided into words as by a shell, on one line or several, or into none."""
    try:
        shlex.split(text)
    except ValueError as error:
        return f"options as a shell reads them ({error})"
    return "\0" not in text


def is_file_path(text: str) -> bool | str:
    """Return whether a string can be the path of a file on the controller, where it may not exist yet."""
    if text.endswith("/") or (is_line(text) and os.path.isdir(os.path.expanduser(text))):
        return "the path of a file, not of a folder"
    return bool(text.strip()) and is_line(text)


def is_tasks_file(text: str) -> bool | str:
    """Return whether a string is the path of a file on the controller; whether Ansible runs its tasks is for hook_files to say."""
    if not is_line(text):
        return False
    try:
        with open(os.path.expanduser(text), "rb"):
            return True
    except OSError as error:
        return f"a file of tasks: {error.strerror}"


def is_relative(text: str) -> bool:
    """Return whether a string is a relative path that stays below where it begins."""
    return is_line(text) and ".." not in text.split("/") and text[:1] not in ("/", "-")


def is_header_value(text: str) -> bool | str:
    """Return whether nginx sends a string as the value of a header."""
    if not is_line(text) or not text.isascii():
        return False
    try:
        http_header_value(text, "it")
    except QuotingError as error:
        return f"another value: {error}"
    return True


def is_policy(text: str) -> bool | str:
    """Return whether browsers understand a string as a Content-Security-Policy, and nginx sends it."""
    found = is_header_value(text)
    return (policy_problem(text) or True) if found is True else found


def is_postgres_name(text: str) -> bool | str:
    """Return whether PostgreSQL takes a string as a name, and clients as part of an URL."""
    if text.lower() in POSTGRES_RESERVED:
        return f"another name: PostgreSQL keeps {text.lower()} for itself"
    if text.lower().startswith("pg_"):
        return "another name: PostgreSQL keeps names that begin with pg_ for itself"
    return len(text.encode(errors="replace")) <= POSTGRES_NAME_BYTES and re.fullmatch(r"\w[\w$.@-]*", text) is not None


def is_postgres_database(text: str) -> bool | str:
    """Return whether a database may have this name; those of templates are copied into each new one."""
    return "another name: it is a template of PostgreSQL" if text in ("template0", "template1") else is_postgres_name(text)


def is_postgres_setting(text: str) -> bool | str:
    """Return whether a string names a setting of PostgreSQL that the inventory may choose."""
    return _settable(text, POSTGRES_OWN_SETTINGS, r"[a-z_][a-z0-9_.]{0,62}")


def is_redis_setting(text: str) -> bool | str:
    """Return whether a string names a setting of Redis that the inventory may choose."""
    return _settable(text, REDIS_OWN_SETTINGS, r"[a-z][a-z0-9-]{0,63}")


def _settable(name: str, own: Mapping[str, str], expression: str) -> bool | str:
    """Return whether a string names a setting, once and for all writings of it, or what it must be instead.

    Args:
        name: The string.
        own: Settings that the stack needs for itself, each with the input that sets it, "" where none does.
        expression: The form of a name in small letters.
    """
    small = name.lower()
    if small in own:
        return "another setting: " + (f"set {own[small]}" if own[small] else "the stack needs its own value of this one")
    if not re.fullmatch(expression, small, re.ASCII):
        return False
    # Programs take no notice of the case: the later line of two would win, and the role's own would stay next to its override.
    return name == small or f"in small letters: write {small}"


def is_redis_rule(text: str) -> bool | str:
    """Return whether a string is one rule of what a Redis user may do, and grants no password or further user."""
    if text in ("allkeys", "allchannels", "allcommands", "nocommands", "resetkeys", "resetchannels"):
        return True
    if re.fullmatch(r"(?:%(?:R|W|RW)~|~|&)[^\s\"'\x00-\x1f\x7f]+", text):
        return True
    if re.fullmatch(r"\([^()\"'\x00-\x1f\x7f]+\)", text):
        return all(is_redis_rule(part) is True for part in text[1:-1].split())
    found = re.fullmatch(r"[+-](@?)([a-z0-9_.-]+(?:\|[a-z0-9_-]+)?)", text, re.IGNORECASE)
    if found and found[1] and found[2].lower() not in REDIS_CATEGORIES:
        return f"a rule of a category that Redis knows: {', '.join(REDIS_CATEGORIES)}"
    return found is not None


def is_healthcheck(value: Any) -> bool | str:
    """Return whether the engine runs a list as a health check, or what it must be. An empty list stands for the default.

    The engine takes any other list for a container without a check, which then counts as good while it runs.
    """
    if not isinstance(value, (list, tuple)):
        return f"a list: write [CMD-SHELL, {value!r}]" if isinstance(value, str) and value else False
    words = [str(word) for word in value if isinstance(word, (str, int)) and not isinstance(word, bool)]
    if len(words) < len(value) or any("\0" in word for word in words):
        return "a list of strings: quote its numbers and booleans"
    if not words:
        return True
    first, *rest = words
    if first not in ("CMD", "CMD-SHELL", "NONE"):
        known = first.upper() in ("CMD", "CMD-SHELL", "NONE")
        how = [first.upper(), *rest] if known else ["CMD", *words]
        return f"a list that begins with CMD, CMD-SHELL or NONE: write [{', '.join(how[:2])}{', …' * (len(how) > 2)}]"
    if first == "NONE":
        return not rest or "[NONE] alone: remove what follows, or NONE"
    if not rest or not rest[0].strip():
        return f"{first} and {'a program with its arguments' if first == 'CMD' else 'one string with the command'}"
    if first == "CMD-SHELL" and len(rest) > 1:
        return f"CMD-SHELL and one string, as the shell would leave out what follows: write [CMD-SHELL, {shlex.join(rest)!r}]"
    return True


def is_secret_text(text: str) -> bool | str:
    """Return whether a program will have a secret as its author meant it.

    Blanks around one line are never meant, and programs cut them off or not. Around several lines, as of a key, they belong to the format.
    """
    if "\n" not in text.strip() and text != text.strip():
        return "a string without a blank or the end of a line at its begin or end, which programs would cut off or not: remove it"
    return "\x00" not in text


def is_known_hosts(text: str) -> bool:
    """Return whether ssh finds host keys in a string, and nothing that it would pass over without a word."""
    lines = [line.strip() for line in text.splitlines()]
    keys = [line for line in lines if line and not line.startswith("#")]
    one = re.compile(r"(?:@(?:cert-authority|revoked)\s+)?\S+\s+[a-z][a-z0-9@.-]+\s+AAAA[A-Za-z0-9+/]+={0,2}(?:\s.*)?")
    return bool(keys) and all(one.fullmatch(line) for line in keys)


def is_repository(text: str) -> bool | str:
    """Return whether restic accepts a string as a repository, and the backup image can reach it."""
    if not is_line(text) or " " in text:
        return False
    kind, colon, rest = text.partition(":")
    if re.match(r"(?:[a-z0-9]+:)?[a-z0-9]+://[^/@]*:[^/]*@", text):
        # The name of a repository is in reports, errors and logs.
        return "a repository without a password: set RESTIC_REST_USERNAME and RESTIC_REST_PASSWORD in backup_offsite_environment"
    if text.startswith("/"):
        return (is_path(text) and text.startswith("/offsite/")) or "a folder below /offsite, where backup_offsite_volume is mounted"
    if kind == "rest" and colon:
        return is_url(rest) or "rest: with an URL, as rest:https://backup.example.com/stack"
    if kind == "sftp" and colon:
        plain = re.fullmatch(r"(?:[^@:/\s]+@)?[^@:/\s]+:\S+", rest) and is_host(rest.partition(":")[0].rpartition("@")[2])
        return bool(plain) or is_url(text, ("sftp",)) or "sftp: with host and folder, as sftp:user@backup.example.com:/stack"
    if kind == "s3" and colon:
        url = rest if "://" in rest else f"https://{rest}"
        return (
            is_url(url) and urllib.parse.urlsplit(url).path.strip("/") != ""
        ) or "s3: with host and bucket, as s3:https://s3.example.com/bucket"
    return kind in ("b2", "azure", "gs", "swift", "rclone") and bool(rest)


def is_postgres_extension(text: str) -> bool:
    """Return whether an extension of PostgreSQL may have this name."""
    return re.fullmatch(r"[a-z_][a-z0-9_$-]*", text) is not None


def is_nginx_directive(text: str) -> bool:
    """Return whether a string is one complete directive of nginx in one line."""
    try:
        nginx_directive(text, "the value")
    except QuotingError:
        return False
    return True


def is_tmpfs_options(text: str) -> bool:
    """Return whether a string is a list of mount options of a tmpfs."""
    number = "[1-9][0-9]*"
    one = (
        rf"size={number}[kKmMgG%]?|nr_inodes={number}[kKmMgG]?|mode=0?[0-7]{{3,4}}|[ug]id=[0-9]{{1,9}}|(?:no)?(?:exec|suid|dev|atime)|r[ow]"
    )
    return re.fullmatch(rf"(?:{one})(?:,(?:{one}))*", text) is not None


#: RFC 9116, section 2.5.3: a URI, and of the web only with TLS.
_CONTACT = pattern(r"(?i)(?!http:)[a-z][a-z0-9+.-]*:[^\s]+")


def is_security_txt(text: str) -> bool:
    """Return whether a string has the fields that RFC 9116, section 2.5, requires: contacts, and one time of expiry."""
    expires = re.findall(r"(?im)^expires:[ ]*(.*?)[ ]*$", text)
    contacts = re.findall(r"(?im)^contact:[ ]*(.*?)[ ]*$", text)
    return is_text(text) and bool(contacts) and all(map(_CONTACT, contacts)) and len(expires) == 1 and is_internet_time(expires[0])


def is_password_hash(text: str) -> bool | str:
    """Return whether nginx can compare a password with a string, or what it must be instead."""
    return password_hash_problem(text) or True


def is_user(text: str) -> bool | str:
    """Return whether a string is a user of an image other than root, by name or number, perhaps with a group."""
    name = text.partition(":")[0]
    return "another user than root" if name == "root" or re.fullmatch("0+", name) else is_any_user(text)


def is_any_user(text: str) -> bool:
    """Return whether a string is a user of an image, by name or number, perhaps with a group."""
    name, _unused, group = text.partition(":")
    return all(
        bool(re.fullmatch(r"[A-Za-z_][A-Za-z0-9_.-]{0,31}\$?", one))
        or (bool(re.fullmatch(r"[0-9]{1,10}", one)) and int(one) <= HIGHEST_USER)
        for one in ([name, group] if ":" in text else [name])
    )


def is_service_name(text: str) -> bool | str:
    """Return whether a service of a product may have this name: as a DNS label, and none that the stack has itself."""
    if text in STACK_SERVICES:
        return f"another name: {text} is the stack's own"
    return re.fullmatch(r"[a-z](?:[a-z0-9-]{0,28}[a-z0-9])?", text) is not None


def is_moment(text: str) -> bool:
    """Return whether a string is a date and time with its zone, as a recovery needs it."""
    try:
        return parse_moment(text).tzinfo is not None
    except ValueError:
        return False


def is_internet_time(text: str) -> bool:
    """Return whether a string is a date and time of RFC 3339."""
    return is_moment(text) and bool(re.fullmatch(r"(?a:\S{10}[T ]\d\d:\d\d:\d\d([.]\d+)?(Z|[+-]\d\d:\d\d))", text))


def is_since(text: str) -> bool:
    """Return whether a string is a time span, or a date and time with or without its zone."""
    if re.fullmatch(r"(?a:[1-9]\d{0,5}[smhd])", text):
        return True
    try:
        return bool(parse_moment(text))
    except ValueError:
        return False


def is_regular_expression(text: str) -> bool | str:
    """Return whether a string is a regular expression, or what would be one."""
    kind, parts = KINDS["regular_expression"].sentence, io.StringIO()
    try:
        with contextlib.redirect_stdout(parts):
            re.compile(text, re.DEBUG)
    except re.error as error:
        return f"{kind}: {error}"
    # Python 3.10 of a host refuses what the controller's takes.
    newer = re.search("POSSESSIVE_REPEAT|ATOMIC_GROUP", parts.getvalue())
    return f"{kind}: hosts may not know possessive quantifiers, as a++, and atomic groups, as (?>a)" if newer else True


def is_plain_value(value: Any) -> bool:
    """Return whether a value of a setting is one line, a number or a boolean."""
    return isinstance(value, (bool, int, float)) or (isinstance(value, str) and is_line(value))


def is_data(value: Any) -> bool | str:
    """Return whether a value can be written as JSON, and held by a variable of a process, or what it must be instead."""
    if any(isinstance(key, bool) or key is None for part in _parts(value) if isinstance(part, Mapping) for key in part):
        return "data whose keys are strings: quote on, off, yes, no, null and ~"
    try:
        return "\\u0000" not in json.dumps(value).replace("\\\\", "")
    except (TypeError, ValueError):
        return False


def _count(what: str, low: float, high: float) -> Kind:
    return Kind(f"{what}, an integer from {{low}} to {{high}}", low=low, high=high)


def _text(sentence: str, test: Callable[[Any], bool | str], *, secret: bool = False) -> Kind:
    return Kind(sentence, test, secret=secret)


#: Settings by which the stack reaches its stores and keeps their data, each with the input that sets it, "" where none does.
POSTGRES_OWN_SETTINGS = {
    **dict.fromkeys(("config_file", "data_directory", "hba_file", "ident_file", "unix_socket_directories"), ""),
    # The server would answer the health check, and the product could not write.
    "default_transaction_read_only": "",
    "listen_addresses": "postgres_publish_address",
    "max_connections": "postgres_max_connections",
    "max_slot_wal_keep_size": "postgres_slot_wal_keep_mb",
    "port": "postgres_port",
    "synchronous_standby_names": "postgres_synchronous_standby",
}
REDIS_OWN_SETTINGS = {
    **dict.fromkeys(("aclfile", "daemonize", "dir", "protected-mode", "requirepass", "user"), ""),
    # Where a restore writes the data, and the only place that it is read from: with another value the store would begin empty.
    **dict.fromkeys(("appendonly", "appenddirname", "appendfilename"), ""),
    # With another server's data in place of its own, or waiting for other servers, it takes no writes of the product.
    **dict.fromkeys(("cluster-enabled", "masterauth", "masteruser", "replicaof", "slaveof"), ""),
    **dict.fromkeys(("min-replicas-to-write", "min-slaves-to-write"), ""),
    # How the stack and the engine reach it: by its commands, one port and its standard output.
    **dict.fromkeys(("include", "logfile", "rename-command", "tls-port", "unixsocket", "unixsocketperm"), ""),
    "appendfsync": "redis_appendfsync",
    "bind": "redis_publish_address",
    "maxmemory": "redis_maxmemory_mb",
    "maxmemory-policy": "redis_maxmemory_policy",
    "port": "redis_port",
}
#: As the engine knows them, without those that end no program, as CONT and STOP: https://github.com/moby/sys/blob/main/signal/signal_linux.go
SIGNALS = (
    "ABRT|ALRM|BUS|CHLD|CLD|FPE|HUP|ILL|INT|IO|IOT|KILL|PIPE|POLL|PROF|PWR|QUIT|SEGV|STKFLT|SYS|TERM|TRAP|TSTP|TTIN|TTOU|URG|"
    r"USR1|USR2|VTALRM|WINCH|XCPU|XFSZ|RTMIN(?:\+(?:[1-9]|1[0-5]))?|RTMAX(?:-(?:[1-9]|1[0-4]))?"
)
#: What a restore may be limited to; slipway_host/decide.py has the same list, as host programs cannot read this one.
STORES = ("postgres", "redis", "chroma", "volumes")

KINDS: dict[str, Kind] = {
    # Numbers
    "port": _count("a port", 1, HIGHEST_PORT),
    "count": Kind("an integer from {low} to {high}", low=1, high=1_000_000),
    "megabytes": _count("a size in MB", 1, 1_048_576),
    "memory": _count("an amount of memory in MB", 6, 1_048_576),
    "seconds": _count("a time in seconds", 0, 31_536_000),
    "days": _count("a number of days", 0, 36_500),
    "pids": _count("a limit of processes", 1, 4_194_304),
    "percent": _count("a share in per cent", 0, 100),
    "cpu_shares": _count("a weight", 2, 262_144),
    "number": Kind("a number from {low} to {high}", low=0, high=1_000_000_000, whole=False),
    "cores": Kind("a number of cores from {low} to {high}", low=0.01, high=1024, whole=False),
    "share": Kind("a share from {low} to {high}", low=0.001, high=1, whole=False),
    # Names
    "stack": _text("a name of at most 41 small letters, digits, - and _, not beginning with - or _", pattern(STACK_NAME.pattern)),
    "volume": _text(
        "the name of a volume, two letters, digits, _, . and - or more",
        pattern(r"[a-zA-Z0-9][a-zA-Z0-9_.-]+", 200),
    ),
    "container_network": _text("the short name of a network, of small letters, digits, - and _", pattern(r"[a-z0-9][a-z0-9_-]{0,40}")),
    "postgres_name": _text("a name of at most 63 letters, digits, _, -, . and $", is_postgres_name),
    "postgres_database": _text("a name of at most 63 letters, digits, _, -, . and $", is_postgres_database),
    "postgres_role": _text("a role of PostgreSQL, of letters, digits and _", pattern(r"[A-Za-z_][\w$.-]{0,62}")),
    "postgres_extension": _text("the name of an extension, of small letters, digits, _ and -", is_postgres_extension),
    "postgres_setting": _text("the name of a setting, of letters, digits, _ and .", is_postgres_setting),
    "redis_user": _text("the name of a user, of letters, digits, _, ., - and @", pattern(r"[A-Za-z0-9_.@-]{1,64}")),
    "redis_rule": _text("one rule of Redis' ACL such as ~key:*, &channel, +get, +@read or -@admin, without blanks", is_redis_rule),
    "redis_setting": _text("the name of a setting, of letters, digits and -", is_redis_setting),
    "setting_value": Kind("one line, a number or true or false", is_plain_value, text=False),
    "user": _text("a user by name or number, root excepted", is_user),
    "any_user": _text("a user by name or number", is_any_user),
    "uid": _text("the number of a user above 0, in quotes", pattern(r"[1-9]\d{0,8}")),
    "name": _text("a name of letters, digits, _, . and -", pattern(r"[A-Za-z0-9_][A-Za-z0-9_.-]*", 255)),
    "vault_name": _text("the name of a variable that begins with vault_, of letters, digits and _", pattern(r"vault_[A-Za-z0-9_]+", 255)),
    "secret_name": _text("the name of a variable, of letters, digits and _", pattern(r"[A-Za-z_][A-Za-z0-9_]*", 200)),
    "environment_name": _text("the name of a variable, of letters, digits, _, . and -", pattern(r"[A-Za-z_][A-Za-z0-9_.-]*", 200)),
    "environment_value": Kind("a string, a number, true or false, or a list or dictionary of them", is_data, text=False),
    "service_name": _text(
        "the name of a service, of at most 30 small letters, digits and -, beginning with a letter and not ending with -", is_service_name
    ),
    "file_name": _text(
        "the name of a file, of letters, digits, _, . and -, not beginning with . or -",
        pattern(r"[A-Za-z0-9_][A-Za-z0-9_.-]*", 200),
    ),
    "signal": _text("a signal as SIGTERM", pattern(f"SIG(?:{SIGNALS})")),
    "inventory_host": _text("a host of the inventory", lambda text: bool(text.strip()) and is_line(text)),
    # Addresses
    "address": _text("an IP address", is_address),
    "ipv4": _text("an IPv4 address", is_ipv4),
    "host": _text("an IP address or a DNS name", is_host),
    "ssh_host": _text(
        "an IP address or a name as ssh takes it, without brackets, port and user",
        pattern(r"(?!-)(?:[^\s\[\]@/:]+|(?=(?:[^:]*:){2})[0-9A-Fa-f:.]+(?:%\w+)?)"),
    ),
    "ipv4_host": _text("an IPv4 address or a DNS name", lambda text: is_ipv4(text) or is_dns_name(text)),
    "registry": _text(
        "a registry as image names begin with it, such as registry.example.com:5000 or docker.io",
        pattern(r"(?=[^/]*[.:]|localhost)[A-Za-z0-9][A-Za-z0-9.-]*(:[0-9]{1,5})?", 255),
    ),
    "endpoint": _text("an address and a port, as host:port", is_endpoint),
    "realm": _text("a name of letters, digits, blanks, _, . and -, other than off", pattern(r"(?a:(?!off$)[\w.-]+(?: [\w.-]+)*)", 64)),
    "network": _text("an IP address or a network as 10.0.0.0/8", is_network),
    "request_rate": _text("a number of requests a second or a minute, as 10r/s or 30r/m", pattern(r"[1-9][0-9]{0,5}r/[sm]")),
    "server_name": _text("a DNS name, without scheme, port or path", is_server_name),
    "url": _text("an URL as https://www.example.com", is_url),
    "public_url": _text("an URL as https://www.example.com", is_public_url),
    "notification_url": _text("the URL of a webhook, as https://hooks.example.com/x, or one of apprise", is_notification_url, secret=True),
    "webhook_url": _text("an URL as https://hooks.example.com/x", is_url, secret=True),
    # As nginx compares it: decoded, with single slashes, without dot segments and without the query.
    "route": _text(
        "the beginning of a path, as /api/: decoded (/café/, not /caf%C3%A9/), without //, /./, /../, blanks, quotes and any of $;{}#?*|",
        pattern(r"(?!.*(?://|/\.{1,2}(?:/|$)|%[0-9A-Fa-f]{2}))/[^\s\x00-\x1f\x7f\"'\\$;{}#?*|]*", 1024),
    ),
    "nginx_directive": _text("one complete directive of nginx in one line, as gzip off;", is_nginx_directive),
    "url_path": _text("a path that begins with /, without blanks and quotes", pattern(r"/[^\s\x00-\x1f\x7f\"'\\{}]*", 1024)),
    # Files and images
    "path": _text("the absolute path of a folder in the container, without :, comma and .., and not below /proc, /sys or /dev", is_path),
    "program": _text("a program of the controller", lambda text: is_line(text) and shutil.which(os.path.expanduser(text)) is not None),
    "shell_words": _text("options as a shell reads them", is_shell_words),
    "any_path": _text("a path", lambda text: bool(text.strip()) and is_line(text)),
    "file": _text("the path of a file", is_file_path),
    "tasks_file": _text("the path of a file of tasks", is_tasks_file),
    "tmpfs_options": _text("mount options such as size=16m,mode=1777", is_tmpfs_options),
    "image": _text("an image as repository:version, or with @sha256: and a digest", is_image),
    "image_digest": _text("a digest, sha256: and 64 hexadecimal digits", pattern(r"sha256:[0-9a-f]{64}")),
    "accepted": _text("restart, empty, or both with a comma between them", pattern(r"(restart|empty)(,(restart|empty))?")),
    "version": _text("a version of letters, digits, _, . and -, as the tag of an image", is_version),
    "platform": _text("a platform such as linux/amd64 or linux/arm64", pattern(r"linux/[a-z0-9]+(/v[0-9])?")),
    "git_ref": _text("a branch, tag or commit", pattern(r"(?!-)[^\s\x00-\x1f\x7f~^:?*\[\\]+", 255)),
    "source": _text("a folder, or the address of a git repository", lambda text: is_line(text) and not text.startswith("-")),
    "folder": _text("a relative folder or file without ..", is_relative),
    # Text
    "line": _text("one line of text", is_line),
    "words": _text("one line of text that is not empty", lambda text: is_line(text) and bool(text.strip())),
    "text": _text("text without control characters", is_text),
    "security_txt": _text(
        "text with Contact: a URI, as mailto:security@example.com, and one Expires: as 2027-01-01T00:00:00Z (RFC 9116)", is_security_txt
    ),
    "argument": _text("a string without NUL", lambda text: "\x00" not in text),
    "header_name": _text("the name of a header, of letters, digits and -", pattern(r"[A-Za-z0-9!#%&'*+.^_`|~-]+", 256)),
    "header_value": _text(
        "one line of text in ASCII",
        is_header_value,
    ),
    "hsts": _text(HSTS, lambda text: text.isascii() and is_line(text) and not hsts_problem(text)),
    "content_security_policy": _text("one line of text in ASCII", is_policy),
    "curves": _text(
        "names of key exchange groups of OpenSSL joined by colons, as X25519:prime256v1", pattern(f"(?i){_GROUP}(?::{_GROUP})*")
    ),
    "calendar": _text("a calendar event of systemd, as *-*-* 02:15:00; see `systemd-analyze calendar`", is_calendar),
    "repository": _text(
        "a repository of restic, as /offsite/stack, sftp:user@host:/folder, s3:https://host/bucket or rest:https://host", is_repository
    ),
    "sql": _text("a query", lambda text: bool(text.strip()) and is_text(text)),
    "point": _text("the name of a recovery point, as 20261123T021500Z", pattern(r"\d{8}T\d{6}Z(?:-[a-z0-9-]+)?")),
    "moment": _text("a date and time with its zone, as 2026-11-23T02:15:00+00:00", is_moment),
    "since": _text("a time span as 10m, 2h or 3d, or a date and time as 2026-11-23T02:15:00+00:00", is_since),
    "regular_expression": _text("a regular expression as Python reads it", is_regular_expression),
    "store": _text(f"one of {', '.join(STORES)}", lambda text: text in STORES),
    "stores": Kind(f"a list of stores joined by commas: {', '.join(STORES)}", text=False),
    "secret": Kind("a secret", text=True, secret=True),
    "password_user": _text(
        "the name of a user of at most 255 characters, without : and not beginning with #",
        pattern(r"[^#:\x00-\x1f\x7f][^:\x00-\x1f\x7f]*", 255),
    ),
    "password_hash": _text("a hashed password", is_password_hash, secret=True),
    "secret_text": _text("a string without NUL", is_secret_text, secret=True),
    "credential": _text("a string that is not empty", lambda text: bool(text.strip()) and is_secret_text(text), secret=True),
    "private_key": _text(
        "a private key of SSH with all of its lines, from -----BEGIN … PRIVATE KEY----- to -----END … PRIVATE KEY-----",
        pattern(r"-----BEGIN ([A-Z0-9 ]*)PRIVATE KEY-----\r?\n(?:[^\x00]+\n)?-----END \1PRIVATE KEY-----\s*", 65536),
        secret=True,
    ),
    "known_hosts": _text("lines of known_hosts, each with a name, a type and a key, as ssh-keyscan prints them", is_known_hosts),
    "boolean": Kind("true or false", text=False),
    "healthcheck": Kind("a list: [CMD, program, …], [CMD-SHELL, command] or [NONE]", is_healthcheck, text=False),
    "data": Kind("data that can be written as JSON", is_data, text=False),
    # Not judged here, as another check does, or its form is a program's: the reason is in forms.yml, above it.
    "anything": Kind("", text=False),
}

_TRUE = ("true", "yes", "on", "1")
_BOOLEANS = (*_TRUE, "false", "no", "off", "0")


def _stores_problem(value: Any) -> str | None:
    names = [name.strip() for name in value.split(",")] if isinstance(value, str) else value
    if not isinstance(names, list) or not names or any(name not in STORES for name in names):
        return "must be " + KINDS["stores"].sentence
    return None


@dataclass(frozen=True)
class Form:
    """The form of an input, or of a member of one.

    Attributes:
        kind: What KINDS calls it, or one of list, map, fields, choice.
        low: Least number, or least number of members of a list.
        high: Highest number.
        words: Further texts that are right; "" for an empty string.
        members: Form of the members of a list, or of the values of a map.
        keys: Form of the names of a map.
        fields: Forms by name, of a dictionary with known members, or of those of a map that differ from the others.
        required: Members that it must have.
    """

    kind: str
    low: float | None = None
    high: float | None = None
    words: tuple[str, ...] = ()
    members: Form | None = None
    keys: Form | None = None
    fields: Mapping[str, Form] = field(default_factory=dict)
    required: tuple[str, ...] = ()
    #: Whether a member that is a string may stand for a list of it.
    single: bool = False

    @property
    def sentence(self) -> str:
        """What a value must be."""
        if self.kind == "choice":
            return "must be " + _joined(self.words)
        known = KINDS[self.kind]
        text = known.sentence.replace("{low}", _number(self.low)).replace("{high}", _number(self.high))
        words = ["empty" if word == "" else f"'{word}'" for word in self.words]
        return "must be " + ", or ".join([text, *words])


def _number(value: float | None) -> str:
    return "" if value is None else f"{value:g}" if value < 1e6 and value != int(value) else str(int(value))


def _joined(words: Iterable[str]) -> str:
    return "one of " + ", ".join(words)


def parsed(declared: Any) -> Form:
    """Return the form that a declaration says.

    Raises:
        ValueError: It says none.
    """
    if isinstance(declared, str):
        return _parsed_text(declared)
    if (
        not isinstance(declared, Mapping)
        or not set(declared) <= {"list", "at_least", "single", "map", "fields", "required"}
        or not declared
    ):
        raise ValueError(f"{declared!r} is not the form of an input")
    if "list" in declared:
        return Form("list", declared.get("at_least"), members=parsed(declared["list"]), single=bool(declared.get("single")))
    if "map" in declared:
        named = {name: parsed(member) for name, member in declared["map"].get("named", {}).items()}
        return Form("map", keys=parsed(declared["map"]["keys"]), members=parsed(declared["map"]["values"]), fields=named)
    return Form(
        "fields",
        fields={name: parsed(member) for name, member in declared["fields"].items()},
        required=tuple(declared.get("required", ())),
    )


@functools.lru_cache(maxsize=512)
def _parsed_text(declared: str) -> Form:
    first, *words = declared.split(" or ")
    further = tuple("" if word == "empty" else word for word in words)
    if first.startswith("one of "):
        return Form("choice", words=(*first.split()[2:], *further))
    name, _unused, limits = first.partition(" ")
    if name not in KINDS:
        raise ValueError(f"{declared!r} names no form; known are {', '.join(KINDS)}")
    low, high = KINDS[name].low, KINDS[name].high
    if limits:
        least, dots, most = limits.partition("..")
        if not dots or low is None:
            raise ValueError(f"{declared!r} must give limits as low..high, and of a number")
        low, high = float(least) if least else low, float(most) if most else high
    return Form(name, low, high, further)


#: Returns how a member with this name was written, where YAML made something else of it.
Changed = Callable[[Any, Any], "str | None"]


#: What a message calls a number whose writing is not known, so that YAML may have changed it.
DECIMALS, ENCRYPTED = "a number with decimals", "a number in an encrypted file"


def unchanged(_key: Any, _value: Any) -> str | None:
    """Take a value as it is."""
    return None


def problems(form: Form, value: Any, changed: Changed = unchanged, path: str = "", key: Any = None) -> Iterator[Wrong]:
    """Yield what is wrong with a value, each member of it alone.

    Args:
        form: The form that it must have.
        value: The value, templates resolved.
        changed: Returns how YAML has changed a value.
        path: Where it is in the input, such as [0].name.
        key: The name in the dictionary that holds it.
    """
    if form.kind == "list":
        if form.single and isinstance(value, str):
            yield from problems(form.members, value, changed, path, key)  # type: ignore[arg-type]
        elif not isinstance(value, (list, tuple)):
            yield Wrong(path, value, "must be a list" + (" or a string" if form.single else ""), is_secret(form))
        elif len(value) < (form.low or 0):
            yield Wrong(path, value, f"must have {_number(form.low)} member or more", is_secret(form))
        else:
            for number, member in enumerate(value):
                yield from problems(form.members, member, changed, f"{path}[{number}]")  # type: ignore[arg-type]
    elif form.kind in ("map", "fields"):
        if not isinstance(value, Mapping):
            # Lists of Compose have strings there, such as uploads:/data.
            required = f" with {' and '.join(form.required)}" if form.required else ""
            yield Wrong(path, value, f"must be a dictionary{required}", is_secret(form))
        elif form.kind == "map":
            yield from _map_problems(form, value, changed, path)
        else:
            yield from _fields_problems(form, value, changed, path)
    else:
        sentence = one_problem(form, value) or _changed_problem(form, key, value, changed)
        if sentence:
            yield Wrong(path, value, sentence, is_secret(form))


def kinds(form: Form) -> Iterator[str]:
    """Yield the kinds of a form's parts."""
    yield form.kind
    for part in [form.members, *form.fields.values()]:
        if part is not None:
            yield from kinds(part)


def is_secret(form: Form) -> bool:
    """Return whether a value must not be shown, as it or a part of it is secret."""
    return any(kind in KINDS and KINDS[kind].secret for kind in kinds(form))


def is_typed(form: Form) -> bool:
    """Return whether :func:`typed` may change a value."""
    return any(kind in ("boolean", "fields") or (kind in KINDS and KINDS[kind].number) for kind in kinds(form))


def typed(form: Form, value: Any) -> Any:
    """Return a value as it is meant.

    Booleans and numbers that came as text, such as "false" and "30", are booleans and numbers, and members with known names that are null
    are left out, so that their defaults hold. What does not have its form stays as it is: :func:`problems` reports it.
    """
    if not is_typed(form):
        return value
    if form.kind == "boolean":
        return str(value).lower() in _TRUE if one_problem(form, value) is None else value
    if form.kind in KINDS:
        is_text = isinstance(value, str) and value not in form.words and one_problem(form, value) is None
        return (float(value) if "." in value else int(value)) if is_text else value
    if form.kind == "list" and isinstance(value, (list, tuple)):
        return [typed(form.members, member) for member in value]  # type: ignore[arg-type]
    if form.kind == "map" and isinstance(value, Mapping):
        return {name: typed(form.fields.get(name, form.members), member) for name, member in value.items()}  # type: ignore[arg-type]
    if form.kind == "fields" and isinstance(value, Mapping):
        given = {name: member for name, member in value.items() if member is not None}
        return {name: typed(form.fields[name], member) if name in form.fields else member for name, member in given.items()}
    return value


def _with_key(key: Any, found: Iterable[Wrong]) -> Iterator[Wrong]:
    """Yield problems of the member of a dictionary with its name, where they know no inner one."""
    for wrong in found:
        yield wrong if wrong.key is not None else wrong._replace(key=key)


def _map_problems(form: Form, value: Mapping[Any, Any], changed: Changed, path: str) -> Iterator[Wrong]:
    """Yield what is wrong with a dictionary of any names."""
    for name, member in value.items():
        for wrong in problems(form.keys, name):  # type: ignore[arg-type]
            yield Wrong(path, name, f"names {str(name)!r}, which {wrong.sentence}", secret=True, key=name)
        if form.keys.kind == "version" and isinstance(name, int):  # type: ignore[union-attr]
            # It is looked up as the text that app_version is.
            yield Wrong(path, name, f"names {name}, which is a number: quote it", secret=True, key=name)
        of_name = form.fields.get(name, form.members)
        yield from _with_key(name, problems(of_name, member, changed, f"{path}.{name}", name))  # type: ignore[arg-type]


def _fields_problems(form: Form, value: Mapping[Any, Any], changed: Changed, path: str) -> Iterator[Wrong]:
    """Yield what is wrong with a dictionary of known names."""
    for name, member in value.items():
        if name not in form.fields:
            hint = nearest(str(name), form.fields) or f", known are {', '.join(form.fields)}"
            yield Wrong(f"{path}.{name}", name, f"is unknown there{hint}", secret=True, key=name)
        elif member is not None or name in form.required:
            yield from _with_key(name, problems(form.fields[name], member, changed, f"{path}.{name}", name))
    missing = [name for name in form.required if name not in value]
    # An empty dictionary stands for none, but not in a list.
    if missing and (value or path.endswith("]")):
        yield Wrong(path, None, f"lacks {' and '.join(missing)}", secret=True)


def _changed_problem(form: Form, key: Any, value: Any, changed: Changed) -> str | None:
    """Return a sentence about a value that YAML does not read as it is written."""
    kind = KINDS.get(form.kind)
    if kind is None or not (
        kind.text or (kind.number and kind.whole) or form.kind in ("environment_value", "setting_value", "healthcheck")
    ):
        return None
    for name, part in _scalars(key, value):
        # A setting's booleans are written as its program reads them.
        if form.kind == "setting_value" and not (isinstance(part, int) and not isinstance(part, bool)):
            continue
        word = changed(name, part)
        if word and kind.number:
            # What YAML made of digits and a colon, or of a zero before them, is a number that was not meant; of .5 it is.
            return (
                None if word in (DECIMALS, ENCRYPTED) or not kind.whole else f"which YAML made of {word}: write it in digits alone, as 90"
            )
        # Where a number is meant, it is most likely the one that it is.
        if word and not (word == ENCRYPTED and form.kind == "setting_value"):
            return f"which YAML made of {word}: quote the value"
    return None


def _parts(value: Any) -> Iterator[Any]:
    """Yield a value, and the members of dictionaries and lists in it."""
    yield value
    if isinstance(value, (Mapping, list, tuple)):
        for member in value.values() if isinstance(value, Mapping) else value:
            yield from _parts(member)


def _scalars(key: Any, value: Any) -> Iterator[tuple[Any, Any]]:
    """Yield the numbers and booleans in a value, keys of dictionaries among them, each with its name where it has one."""
    if isinstance(value, Mapping):
        for name, member in value.items():
            yield from _scalars(None, name)
            yield from _scalars(name, member)
    elif isinstance(value, (list, tuple)):
        for member in value:
            yield from _scalars(None, member)
    elif isinstance(value, (bool, int, float)):
        yield key, value


def one_problem(form: Form, value: Any) -> str | None:
    """Return a sentence about a value without members that does not have a form, or None."""
    if form.kind == "anything" or (isinstance(value, str) and value in form.words):
        return None
    if form.kind == "choice":
        return form.sentence + ("" if isinstance(value, str) else quote_it(value))
    kind = KINDS[form.kind]
    if form.kind == "boolean":
        right = isinstance(value, bool) or (isinstance(value, (int, str)) and str(value).lower() in _BOOLEANS)
        return None if right else form.sentence
    if form.kind == "stores":
        return _stores_problem(value)
    if kind.number:
        return None if _is_number(value, form, whole=kind.whole) else form.sentence
    if form.kind == "secret":
        wrong = secret_problem(value)
        return f"{wrong}" if wrong else None
    # What YAML may have changed is found by the caller, who knows the file. A secret's is mostly encrypted: 0123 may have become 83.
    if kind.text and not kind.secret and isinstance(value, int) and not isinstance(value, bool):
        value = str(value)
    if kind.text and not isinstance(value, str):
        return form.sentence + quote_it(value)
    if value is None and form.kind != "environment_value":
        return form.sentence
    found = kind.test(value) if kind.test else True
    if isinstance(found, str):
        return f"must be {found}"
    if found:
        return None
    return form.sentence + next((quote_it(part) for part in _parts(value) if isinstance(part, dt.date)), "")


def quote_it(value: Any) -> str:
    """Return what to do about a value that YAML does not read as a string."""
    if value is None:
        return "; it is null: remove the line, or give it a value"
    if isinstance(value, bool):
        return f"; YAML reads it as {str(value).lower()}: quote the value"
    if isinstance(value, dt.date):
        return "; YAML reads it as a date: quote the value"
    return "; it is a number: quote the value" if isinstance(value, (int, float)) else ", a string"


def _is_number(value: Any, form: Form, *, whole: bool) -> bool:
    """Return whether a value is a number within a form's limits, or a string that holds nothing else."""
    if isinstance(value, bool) or not isinstance(value, (int, float, str)):
        return False
    if isinstance(value, str):
        if not re.fullmatch(r"-?(?:0|[1-9][0-9]*)" + ("" if whole else r"(?:\.[0-9]+)?"), value):
            return False
        value = float(value)
    elif whole and not isinstance(value, int):
        return False
    low, high = form.low, form.high
    return (low is None or value >= low) and (high is None or value <= high)
