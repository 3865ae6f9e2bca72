# Copyright (c) The Slipway authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""One function for each format that a template writes: a value in, the text that the program reads as that value out.

A value that the format cannot hold raises QuotingError. Its message names the input and what is wrong with it, and never the value, which
may be a secret. Every function takes the value and ``what``, the name of the input that it came from.
"""

from __future__ import annotations

import html
import ipaddress
import re
import shlex
from collections.abc import Iterator
from typing import Any
from urllib.parse import quote

# A name of a role or database in PostgreSQL, in bytes (NAMEDATALEN - 1).
POSTGRES_NAME_BYTES = 63


class QuotingError(ValueError):
    """A value that a format cannot hold. The message holds the name of the input, and not the value."""


def _text(value: Any, what: str, *, forbidden: str = "\0") -> str:
    """Return a string, or an integer as one.

    Args:
        value: what the inventory holds.
        what: name of the input.
        forbidden: characters that the format cannot hold.

    Raises:
        QuotingError: The value is of another type, or holds a character that the format cannot hold.
    """
    if value is None:
        raise QuotingError(f"{what} is null: give it a value, or remove it")
    if isinstance(value, bool) or not isinstance(value, (str, int)):
        raise QuotingError(f"{what} must be a string, not {_kind(value)}: quote the value")
    text = str(value)
    for character in text:
        if character in forbidden:
            raise QuotingError(f"{what} must not hold {_named(character)}")
        if "\ud800" <= character <= "\udfff":
            raise QuotingError(f"{what} is not valid UTF-8")
    return text


def _kind(value: Any) -> str:
    """Return the name of a value's type as users know it from YAML. Ansible's own types are subclasses of these."""
    names = {bool: "a boolean", float: "a number with a fraction", dict: "a dictionary", list: "a list"}
    return next((name for kind, name in names.items() if isinstance(value, kind)), type(value).__name__)


def _named(character: str) -> str:
    """Return words for a character; it may be part of a secret, and only those that a format forbids are asked for."""
    known = {
        "\n": "a line break",
        "\r": "a carriage return",
        "\t": "a tab",
        "\0": "a null character",
        " ": "a space",
        "'": "a quote",
        '"': "a double quote",
    }
    return known.get(character, f"the character U+{ord(character):04X}" if not character.isprintable() else f"the character {character}")


# Everything below the space, and DEL.
CONTROLS = "".join(map(chr, range(32))) + "\x7f"
_LINE = "\0\r\n"
_CONTROLS_BUT_TAB = CONTROLS.replace("\t", "")


# nginx: ngx_conf_read_token() in src/core/ngx_conf_file.c. A word in double quotes ends at the next double quote that has no backslash
# before it; of a backslash, only \" \' \\ \t \r \n mean something else than the two characters.
_NGINX_PLAIN = re.compile(r"[][A-Za-z0-9_./:*@%=,+~^-]+")
# Bytes of a word with its quotes, which are in one buffer with what ends it (NGX_CONF_BUFFER).
_NGINX_LONGEST = 4094


def nginx_word(value: Any, what: str) -> str:
    """Return a value as one word of nginx' configuration, for places in which nginx expands no variable.

    A word of letters, digits and the like is left as it is, for the sake of who reads the file.

    Raises:
        QuotingError: The value is not a string or an integer, holds a control character other than a tab, or is too long.
    """
    text = _text(value, what, forbidden=_CONTROLS_BUT_TAB)
    word = text if _NGINX_PLAIN.fullmatch(text) else '"' + text.replace("\\", "\\\\").replace('"', '\\"') + '"'
    return _nginx_short(word, what)


def _nginx_short(word: str, what: str) -> str:
    """Return a word as it is, once nginx can read one so long.

    Raises:
        QuotingError: It cannot.
    """
    length = len(word.encode())
    if length > _NGINX_LONGEST:
        raise QuotingError(f"{what} has {length} bytes in nginx' configuration, of which a word holds at most {_NGINX_LONGEST}: shorten it")
    return word


def nginx_value(value: Any, what: str) -> str:
    """Return a value as one word of nginx' configuration, for places in which nginx expands variables.

    nginx knows no escape for a dollar sign: it is written as ``${slipway_dollar}``, a variable that nginx.conf.j2 defines as one.

    Raises:
        QuotingError: As nginx_word.
    """
    word = nginx_word(value, what)
    return _nginx_short(word.replace("$", "${slipway_dollar}"), what)


def nginx_location(value: Any, what: str) -> str:
    """Return a path as the prefix of a location.

    Where the word begins with ``=``, ``~``, ``^~`` or ``@``, nginx takes it for something else than a prefix, quotes or not
    (ngx_http_core_location() in src/http/ngx_http_core_module.c).

    Raises:
        QuotingError: The value is not a path that begins with a slash.
    """
    text = _text(value, what, forbidden=CONTROLS)
    if not text.startswith("/"):
        raise QuotingError(f"{what} must begin with a slash (/)")
    return nginx_word(text, what)


def nginx_words(text: str) -> Iterator[str]:
    """Yield the words of nginx' configuration, and ``;``, ``{`` and ``}`` where they are not part of a word, as nginx reads them.

    A word is yielded as ``"`` and its text, to distinguish a quoted semicolon from one that ends a directive.

    Raises:
        ValueError: A quote is not closed, or something stands right behind one.
    """
    at, length = 0, len(text)
    while at < length:
        character = text[at]
        if character in " \t\r\n":
            at += 1
        elif character in ";{}":
            yield character
            at += 1
        elif character == "#":
            at = length if (end := text.find("\n", at)) < 0 else end
        elif character in "\"'":
            word, at = _nginx_quoted(text, at)
            if at < length and text[at] not in " \t\r\n;{)":
                raise ValueError("there is text right after a closing quote")
            yield '"' + word
        else:
            start, word, at = at, *_nginx_bare(text, at)
            if at == start:
                raise ValueError("a word is missing")
            yield '"' + word


_NGINX_ESCAPES = {'"': '"', "'": "'", "\\": "\\", "t": "\t", "r": "\r", "n": "\n"}


def _nginx_quoted(text: str, at: int) -> tuple[str, int]:
    """Return the word in the quotes that begin at a place, and the place behind them."""
    quotes, word, at = text[at], "", at + 1
    while at < len(text):
        if text[at] == "\\" and at + 1 < len(text):
            word += _NGINX_ESCAPES.get(text[at + 1], text[at : at + 2])
            at += 2
        elif text[at] == quotes:
            return word, at + 1
        else:
            word += text[at]
            at += 1
    raise ValueError("a quote is not closed")


def _nginx_bare(text: str, at: int) -> tuple[str, int]:
    """Return the word without quotes that begins at a place, and the place behind it."""
    word = ""
    while at < len(text) and text[at] not in " \t\r\n;{":
        if text[at] == "\\" and at + 1 < len(text):
            word += _NGINX_ESCAPES.get(text[at + 1], text[at : at + 2])
            at += 2
        elif text[at : at + 2] == "${":
            word += "${"
            at += 2
        else:
            word += text[at]
            at += 1
    return word, at


def nginx_directives(value: Any, what: str) -> str:
    """Return nginx configuration of the user's own, once it cannot end the block that contains it.

    Raises:
        QuotingError: A block, a quote or the last directive is not closed, or one is closed that was not opened.
    """
    text = _text(value, what)
    try:
        words = list(nginx_words(text))
    except ValueError as error:
        raise QuotingError(f"{what} is not valid nginx configuration: {error}") from error
    depth, last = 0, ";"
    for word in words:
        _nginx_short(word, f"a word of {what}")
        depth += {"{": 1, "}": -1}.get(word, 0)
        if depth < 0:
            raise QuotingError(f"{what} closes a block that it did not open: remove the brace (}}) that is too many")
        last = word
    if depth:
        raise QuotingError(f"{what} opens a block and does not close it: add the brace (}}) that is missing")
    if last not in {";", "}"}:
        raise QuotingError(f"{what} must end with a semicolon (;) or a brace (}})")
    # A comment in the last line must not reach into what follows.
    return text if text.endswith("\n") or not text.rpartition("\n")[2].lstrip().startswith("#") else text + "\n"


def nginx_directive(value: Any, what: str) -> str:
    """Return one directive of the user's own in one line, with its block where it has one.

    Raises:
        QuotingError: It is none, more than one, or more than a line.
    """
    text = nginx_directives(_text(value, what, forbidden=CONTROLS), what).rstrip()
    depth, ends = 0, 0
    for word in nginx_words(text):
        depth += {"{": 1, "}": -1}.get(word, 0)
        ends += depth == 0 and word in {";", "}"}
    if ends != 1:
        raise QuotingError(f"{what} must be one complete directive in each line, as gzip off;")
    return text


# RFC 9110, section 5.6.2 (token) and 5.5 (field values).
_HTTP_TOKEN = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+")


def http_header_name(value: Any, what: str) -> str:
    """Return the name of an HTTP header as a word of nginx' configuration.

    Raises:
        QuotingError: It is not a name of letters, digits and the few signs of RFC 9110.
    """
    text = _text(value, what)
    if not _HTTP_TOKEN.fullmatch(text):
        raise QuotingError(f"{what} must be the name of an HTTP header: letters, digits and hyphens")
    return nginx_word(text, what)


def http_header_value(value: Any, what: str) -> str:
    """Return the value of an HTTP header as a word of nginx' configuration in which nginx expands variables.

    Raises:
        QuotingError: It holds a control character, or a blank at its beginning or end, which HTTP takes away.
    """
    text = _text(value, what, forbidden=_CONTROLS_BUT_TAB)
    if text != text.strip(" \t"):
        raise QuotingError(f"{what} must not begin or end with a blank")
    return nginx_value(text, what)


# nginx: ngx_http_auth_basic_handler() in src/http/modules/ngx_http_auth_basic_module.c reads lines of user:hash, and no escapes.
_CRYPT = "[./A-Za-z0-9]"
_PASSWORD_HASH = re.compile(
    rf"\$(?:apr1\${_CRYPT}{{1,8}}\${_CRYPT}{{22}}|5\${_CRYPT}{{1,16}}\${_CRYPT}{{43}}|6\${_CRYPT}{{1,16}}\${_CRYPT}{{86}}"
    rf"|2[aby]\$(?P<cost>\d\d)\${_CRYPT}{{53}})"
)
# A worker computes the hash for each request, and serves no other meanwhile: of cost 8, some 15 ms.
HIGHEST_BCRYPT_COST = 8


def password_hash_problem(text: str) -> str:
    """Return what a string must be for nginx to compare passwords with it, or "" where it is that."""
    found = _PASSWORD_HASH.fullmatch(text)
    if not found:
        return "a hash as `openssl passwd -6` or `htpasswd -nbB` prints it, not the password itself, {SHA} or {PLAIN}"
    if found["cost"] and int(found["cost"]) > HIGHEST_BCRYPT_COST:
        return f"a bcrypt hash of cost {HIGHEST_BCRYPT_COST} or less, as nginx computes it for each request: use `htpasswd -nbBC 5`"
    return ""


def htpasswd(value: Any, what: str) -> str:
    """Return users and their hashed passwords as a file for auth_basic_user_file.

    Raises:
        QuotingError: The value is not a dictionary, the name of a user holds a colon or begins with #, or a password is not hashed.
    """
    if not isinstance(value, dict):
        raise QuotingError(f"{what} must be a dictionary of users, not {_kind(value)}")
    lines = []
    for user, hashed in value.items():
        name = _text(user, f"the name of a user in {what}", forbidden=CONTROLS + ":")
        if not name or name.startswith("#"):
            raise QuotingError(f"the name of a user in {what} must not be empty or begin with #")
        if problem := password_hash_problem(_text(hashed, f"{what}: {name}")):
            raise QuotingError(f"{what}: {name} must be {problem}")
        lines.append(f"{name}:{hashed}\n")
    return "".join(lines)


# PostgreSQL: next_token() and parse_hba_line() in src/backend/libpq/hba.c.
def pg_hba_name(value: Any, what: str) -> str:
    """Return the name of a role or database as a field of pg_hba.conf.

    In quotes a word such as ``all``, and a ``+`` or ``@`` at its beginning, mean themselves. A slash does not: from version 16 on such a
    field is a regular expression, quoted or not.

    Raises:
        QuotingError: The name is empty, longer than 63 bytes, begins with a slash, or holds a line break.
    """
    text = _postgres_name(value, what)
    if text.startswith("/"):
        raise QuotingError(f"{what} must not begin with a slash (/): PostgreSQL would parse it as a regular expression")
    return '"' + text.replace('"', '""') + '"'


def _postgres_name(value: Any, what: str) -> str:
    text = _text(value, what, forbidden=_LINE)
    if not text:
        raise QuotingError(f"{what} must not be empty")
    if len(text.encode()) > POSTGRES_NAME_BYTES:
        raise QuotingError(f"{what} must not be longer than {POSTGRES_NAME_BYTES} bytes")
    return text


def pg_hba_network(value: Any, what: str) -> str:
    """Return an address or network as a field of pg_hba.conf; an address alone is a network of one.

    Raises:
        QuotingError: The value is not an IPv4 or IPv6 address or network.
    """
    text = _text(value, what)
    try:
        return str(ipaddress.ip_network(text, strict=False))
    except ValueError as error:
        raise QuotingError(f"{what} must hold addresses (10.0.0.5) or networks (10.0.0.0/24)") from error


def _setting_name(value: Any, what: str, form: re.Pattern[str], characters: str, reserved: set[str], refusal: str) -> str:
    text = _text(value, what)
    if not form.fullmatch(text):
        raise QuotingError(f"{what} must hold names of settings: {characters}")
    if text.lower() in reserved:
        raise QuotingError(f"{what} must not {refusal.format(text)}")
    return text


# PostgreSQL: src/backend/utils/misc/guc-file.l (ID, QUALIFIED_ID, STRING) and DeescapeQuotedString() in guc.c.
_POSTGRES_SETTING = re.compile(r"[A-Za-z_][A-Za-z0-9_$]*(\.[A-Za-z_][A-Za-z0-9_$]*)?")
_POSTGRES_ESCAPES = str.maketrans({"\\": "\\\\", "'": "''", "\n": "\\n", "\r": "\\r"})


def postgres_setting_name(value: Any, what: str) -> str:
    """Return the name of a setting in postgresql.conf.

    Raises:
        QuotingError: It is not a name, or one with which another file would be read.
    """
    characters = "letters, digits and _, with a dot behind the name of an extension"
    reserved = {"include", "include_dir", "include_if_exists"}
    return _setting_name(value, what, _POSTGRES_SETTING, characters, reserved, "include other files: {} is not a setting")


def postgres_setting_value(value: Any, what: str) -> str:
    """Return a value for postgresql.conf: numbers as they are, booleans as on and off, all else in quotes.

    Raises:
        QuotingError: The value is not a string, a number or a boolean.
    """
    if isinstance(value, bool):
        return "on" if value else "off"
    if isinstance(value, float):
        value = repr(float(value))
        if not re.fullmatch(r"-?[0-9]+\.[0-9]+(e[-+][0-9]+)?|-?[0-9]+e[-+][0-9]+", value):
            raise QuotingError(f"{what} must be a number")
        return value if re.fullmatch(r"-?[0-9]+\.[0-9]+", value) else f"'{value}'"
    if isinstance(value, int):
        return str(int(value))
    return "'" + _text(value, what).translate(_POSTGRES_ESCAPES) + "'"


# libpq: conninfo_parse() in src/interfaces/libpq/fe-connect.c.
def conninfo_value(value: Any, what: str) -> str:
    """Return a value in a connection string of the form ``keyword=value``.

    Raises:
        QuotingError: The value is not a string or an integer, or holds a null character.
    """
    return "'" + _text(value, what).replace("\\", "\\\\").replace("'", "\\'") + "'"


# libpq: passwordFromFile() in the same file, which takes CR and LF from the end of each line.
def pgpass_field(value: Any, what: str) -> str:
    """Return a field of a password file.

    Raises:
        QuotingError: The value is not a string or an integer, or holds a line break.
    """
    return _text(value, what, forbidden=_LINE).replace("\\", "\\\\").replace(":", "\\:")


# Redis: loadServerConfigFromString() in src/config.c, which reads lines, and sdssplitargs() in src/sds.c, which reads words.
_REDIS_SETTING = re.compile(r"[A-Za-z][A-Za-z0-9-]*")
_REDIS_PLAIN = re.compile(r"[A-Za-z0-9_./:*@%=,+~^-]+")
_REDIS_ESCAPES = {"\n": "\\n", "\r": "\\r", "\t": "\\t", "\b": "\\b", "\a": "\\a", "\\": "\\\\", '"': '\\"'}
_REDIS_ESCAPED = {"n": "\n", "r": "\r", "t": "\t", "b": "\b", "a": "\a"}


def redis_setting_name(value: Any, what: str) -> str:
    """Return the name of a setting in redis.conf.

    Raises:
        QuotingError: It is not a name, or one with which another file would be read or a module loaded.
    """
    reserved = {"include", "user", "aclfile"}
    return _setting_name(value, what, _REDIS_SETTING, "letters, digits and hyphens", reserved, "set {}: users and files are the role's own")


def redis_argument(value: Any, what: str) -> str:
    """Return a value as one word of redis.conf.

    Raises:
        QuotingError: The value is not a string, a number or a boolean, or holds a null character.
    """
    if isinstance(value, bool):
        return "yes" if value else "no"
    text = repr(float(value)) if isinstance(value, float) else _text(value, what)
    if _REDIS_PLAIN.fullmatch(text):
        return text
    return '"' + "".join(_REDIS_ESCAPES.get(character, character) for character in text) + '"'


def redis_arguments(value: Any, what: str) -> str:
    """Return the words behind the name of a setting in redis.conf.

    A list holds the words themselves; a string holds them as redis.conf does, with blanks between them and quotes around where needed
    (``900 1``, ``""``).

    Raises:
        QuotingError: A word is not a string, a number or a boolean; a string holds a line break, or a quote that is not closed.
    """
    if isinstance(value, (list, tuple)):
        words = list(value)
    elif isinstance(value, str):
        words = list(_redis_split(_text(value, what, forbidden=_LINE), what))
    else:
        words = [value]
    if not words:
        raise QuotingError(f"{what} is empty: write an empty value as '\"\"'")
    return " ".join(redis_argument(word, what) for word in words)


_REDIS_BLANKS = " \t\v\f"
_REDIS_WORD = re.compile(
    r"""(?:"(?P<double>(?:[^"\\]|\\.)*)"|'(?P<single>(?:\\'|[^'\\]|\\(?!'))*)'|(?P<plain>[^ \t\v\f"']+))[ \t\v\f]+""",
)
_REDIS_ESCAPE = re.compile(r"\\(?:x([0-7][0-9a-fA-F])|(.))")


def _redis_split(text: str, what: str) -> Iterator[str]:
    """Yield the words of a line, as Redis splits it."""
    at, text = 0, text.strip(_REDIS_BLANKS) + " "
    while at < len(text) - 1:
        found = _REDIS_WORD.match(text, at)
        if not found:
            raise QuotingError(f"{what} holds a quote that is not closed, or one within a word")
        double, single, plain = found["double"], found["single"], found["plain"]
        if double is not None:
            if re.search(r"(?<!\\)(?:\\\\)*\\x[89a-fA-F][0-9a-fA-F]", double):
                raise QuotingError(f"{what} must hold such characters themselves, not \\x80 to \\xff")
            yield _REDIS_ESCAPE.sub(
                lambda escape: chr(int(escape[1], 16)) if escape[1] else _REDIS_ESCAPED.get(escape[2], escape[2]), double
            )
        else:
            yield plain if single is None else single.replace("\\'", "'")
        at = found.end()


# Redis: ACLLoadFromFile() and ACLSetUser() in src/acl.c. Words end at a space, and there are no quotes.
_REDIS_RULE = re.compile(
    r"~.*|%(R|W|RW|WR)~.*|&.*|[+-].+|allkeys|resetkeys|allchannels|resetchannels|allcommands|nocommands|clearselectors", re.DOTALL
)


def redis_user_name(value: Any, what: str) -> str:
    """Return the name of a user in an ACL file.

    Raises:
        QuotingError: The name is empty, or holds a blank or a control character.
    """
    text = _text(value, what, forbidden=CONTROLS + " ")
    if not text:
        raise QuotingError(f"{what} must not be empty")
    return text


def redis_acl_rules(value: Any, what: str) -> str:
    """Return rules of a user in an ACL file: keys, channels and commands, each a rule or several with spaces between them.

    Whether a user is on, and passwords, are not for rules to say.

    Raises:
        QuotingError: The value is not a list of strings, or one of them is not such a rule.
    """
    if not isinstance(value, (list, tuple)):
        raise QuotingError(f"{what} must be a list of rules")
    words = [word for rule in value for word in _text(rule, what, forbidden=CONTROLS).split(" ") if word]
    text = " ".join(words)
    for word in words:
        if not _REDIS_RULE.fullmatch(word.removeprefix("(").removesuffix(")")):
            raise QuotingError(
                f"{what} must hold rules for keys (~cache:*), channels (&news:*) and commands (+get, -@admin): passwords, on, off, nopass "
                "and reset are the role's own"
            )
    if not _selectors_closed(words):
        raise QuotingError(f"{what} must hold selectors whose brackets are closed: (~cache:* +get)")
    return text


def _selectors_closed(words: list[str]) -> bool:
    """Return whether each word that opens a selector is followed by one that closes it, before the next one opens."""
    opened = False
    for word in words:
        if word.startswith("("):
            if opened:
                return False
            opened = True
        if word.endswith(")") and opened:
            opened = False
    return not opened


# systemd: config_parse() in src/shared/conf-parser.c for lines, extract_first_word() in src/basic/extract-word.c for words, and
# unit_full_printf() for specifiers.
_SYSTEMD_ESCAPES = {"\\": "\\\\", '"': '\\"', "\n": "\\n", "\r": "\\r", "\t": "\\t", "%": "%%", "$": "$$"}


def systemd_value(value: Any, what: str) -> str:
    """Return the value of a setting in a unit that is read as a whole line, as ``Description=`` and ``OnCalendar=`` are.

    Raises:
        QuotingError: The value holds a control character, begins or ends with a blank, or ends with a backslash, which would join the
            next line to it.
    """
    text = _text(value, what, forbidden=CONTROLS)
    if text != text.strip():
        raise QuotingError(f"{what} must not begin or end with a blank")
    if text.endswith("\\"):
        raise QuotingError(f"{what} must not end with a backslash")
    return text.replace("%", "%%")


def systemd_word(value: Any, what: str) -> str:
    r"""Return one argument of a command in a unit (``ExecStart=``), in which neither ``$`` nor ``%`` is expanded.

    Raises:
        QuotingError: The value is not a string or an integer, or holds a null character.
    """
    text = _text(value, what)
    if re.fullmatch(r"[A-Za-z0-9_./:@=,+-]+", text):
        return text
    return '"' + "".join(_SYSTEMD_ESCAPES.get(item, f"\\x{ord(item):02x}" if item in CONTROLS else item) for item in text) + '"'


# POSIX.1-2017, Shell Command Language, section 2.2.2: nothing has a meaning between single quotes.
def shell_word(value: Any, what: str) -> str:
    """Return one word of a shell command.

    Raises:
        QuotingError: The value is not a string or an integer, or holds a null character.
    """
    return shlex.quote(_text(value, what))


# logrotate: readConfigFile() in config.c. A script ends at the line "endscript", whatever a shell would say; a pattern goes to popt, which
# knows quotes and backslashes, and then to glob(3).
def logrotate_path(value: Any, what: str) -> str:
    """Return an absolute path, as the beginning of a pattern in quotes that the template closes.

    Raises:
        QuotingError: The path is not absolute, or holds a character with a meaning in patterns, quotes or logrotate's own.
    """
    text = _text(value, what, forbidden=CONTROLS + "\"'\\*?[]{}#")
    if not text.startswith("/"):
        raise QuotingError(f"{what} must begin with a slash (/)")
    return text


def logrotate_word(value: Any, what: str) -> str:
    """Return one word of a shell command in a script of logrotate's.

    Raises:
        QuotingError: The value is not a string or an integer, or holds a line break.
    """
    return shlex.quote(_text(value, what, forbidden=_LINE))


# RFC 3986, section 2.
def url_component(value: Any, what: str) -> str:
    """Return a value as one part of a URL, with everything but letters, digits and ``-._~`` percent-encoded, the slash too.

    Raises:
        QuotingError: The value is not a string or an integer, or holds a null character.
    """
    return quote(_text(value, what), safe="")


# A name of hosts as RFC 1123 and container engines have it.
_HOST_NAME = re.compile(
    r"(?=.{1,253}$)[A-Za-z0-9_]([A-Za-z0-9_-]{0,61}[A-Za-z0-9_])?(\.[A-Za-z0-9_]([A-Za-z0-9_-]{0,61}[A-Za-z0-9_])?)*\.?"
)


def url_host(value: Any, what: str) -> str:
    """Return a name or address as the host in a URL; an IPv6 address goes into brackets.

    Raises:
        QuotingError: The value is neither a host name nor an address.
    """
    text = _text(value, what)
    try:
        address = ipaddress.ip_address(text.removeprefix("[").removesuffix("]"))
    except ValueError:
        if _HOST_NAME.fullmatch(text):
            return text
    else:
        if address.version == 4 and text == str(address):
            return text
        if isinstance(address, ipaddress.IPv6Address) and address.scope_id is None:
            return f"[{address}]"
    raise QuotingError(f"{what} must be a host name or an address")


# HTML, section 13.1.2 and 13.2.3.5: a parser makes a line feed of a carriage return.
def html_text(value: Any, what: str) -> str:
    """Return a value as text or the value of an attribute in an HTML page.

    Raises:
        QuotingError: The value is not a string or an integer, or holds a control character, which pages cannot hold.
    """
    return html.escape(_text(value, what, forbidden=CONTROLS.replace("\t", "").replace("\n", "")))


# iptables: add_argv() in iptables/xshared.c splits at blanks, and knows quotes.
_IPTABLES_WORD = re.compile(r"[A-Za-z0-9_.:/,!-]+")


def iptables_rule(value: Any, what: str) -> str:
    """Return a rule of iptables-restore, whose words are the names, numbers and addresses that our rules are made of.

    Raises:
        QuotingError: A word is something else, as one with a line break is.
    """
    text = _text(value, what, forbidden=CONTROLS)
    if not all(_IPTABLES_WORD.fullmatch(word) for word in text.split(" ")):
        raise QuotingError(f"{what} must hold addresses, networks and ports")
    return text
