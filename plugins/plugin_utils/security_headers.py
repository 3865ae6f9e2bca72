# Copyright (c) The Slipway authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Values of security headers that browsers understand: they ignore any other without a word, and the header protects nothing."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable

from ansible_collections.slipway.stack.plugins.plugin_utils.input_names import nearest

#: Headers that have inputs of their own.
INPUTS = {"content-security-policy": "nginx_content_security_policy", "strict-transport-security": "nginx_hsts"}
#: Headers that say how one answer is sent, or what it is. A value for all answers takes the place of each one's own: login cookies and
#: redirects would be gone.
OF_ONE_ANSWER = (
    *("accept-ranges", "age", "allow", "clear-site-data", "connection", "content-disposition", "content-encoding", "content-length"),
    *("content-location", "content-range", "content-type", "date", "etag", "keep-alive", "last-modified", "location", "proxy-authenticate"),
    *("refresh", "retry-after", "server", "set-cookie", "te", "trailer", "transfer-encoding", "upgrade", "vary", "www-authenticate"),
)
HSTS = "max-age and a number of seconds, then perhaps includeSubDomains and preload, as max-age=63072000; includeSubDomains"
#: https://www.w3.org/TR/CSP3/ and what it took over from its first two versions.
POLICIES = (
    *("base-uri", "block-all-mixed-content", "child-src", "connect-src", "default-src", "fenced-frame-src", "font-src", "form-action"),
    *("frame-ancestors", "frame-src", "img-src", "manifest-src", "media-src", "object-src", "plugin-types", "prefetch-src"),
    *("report-to", "report-uri", "require-trusted-types-for", "sandbox", "script-src", "script-src-attr", "script-src-elem"),
    *("style-src", "style-src-attr", "style-src-elem", "trusted-types", "upgrade-insecure-requests", "webrtc", "worker-src"),
)
_WITH_SOURCES = re.compile(r"[a-z]+-src(?:-elem|-attr)?|base-uri|form-action|frame-ancestors")
_BARE = re.compile(r"self|none|unsafe-inline|unsafe-eval|unsafe-hashes|strict-dynamic|report-sample|wasm-unsafe-eval|(?:nonce|sha\d{3})-.+")
_REFERRER = (
    *("no-referrer", "no-referrer-when-downgrade", "origin", "origin-when-cross-origin", "same-origin", "strict-origin"),
    *("strict-origin-when-cross-origin", "unsafe-url"),
)
_WORDS = {
    "cross-origin-embedder-policy": ("require-corp", "credentialless", "unsafe-none"),
    "cross-origin-opener-policy": ("same-origin", "same-origin-allow-popups", "noopener-allow-popups", "unsafe-none"),
    "cross-origin-resource-policy": ("same-origin", "same-site", "cross-origin"),
    "x-content-type-options": ("nosniff",),
    "x-dns-prefetch-control": ("off", "on"),
    "x-frame-options": ("deny", "sameorigin"),
    "x-permitted-cross-domain-policies": ("none", "master-only", "by-content-type", "by-ftp-filename", "all", "none-this-response"),
}
#: A feature's list: an item, or several in brackets with blanks between them.
_ORIGIN = r'(?:\*|self|src|"[^"]+")'
_FEATURE = re.compile(rf"[a-z*][a-z0-9_.*-]*=(?:{_ORIGIN}|\(\s*(?:{_ORIGIN}(?:\s+{_ORIGIN})*)?\s*\))(?:;report-to=[^,;]+)?")


def hsts_problem(value: str) -> str:
    """Return what the value of Strict-Transport-Security must be instead, or "" where it is right (RFC 6797, section 6.1)."""
    parts = [part.strip().lower() for part in value.split(";")]
    names = [part.partition("=")[0].rstrip() for part in parts if part]
    right = all(re.fullmatch(r'max-age\s*=\s*("?)[0-9]{1,10}\1|includesubdomains|preload', part) for part in parts if part)
    return "" if right and "max-age" in names and len(set(names)) == len(names) else HSTS


def policy_problem(value: str) -> str:
    """Return what a Content-Security-Policy must be instead, or "" where browsers understand it.

    A directive that is like none of POLICIES is taken: it may be newer.
    """
    words = [part.split() for part in value.split(";") if part.strip()]
    names = [name.lower() for name, *_unused in words]
    for name, *sources in words:
        hint = nearest(name.lower(), POLICIES) if name.lower() not in POLICIES else ""
        if hint or not re.fullmatch(r"[A-Za-z-]+", name):
            return f"a policy whose directives browsers know, not {name}{hint}"
        bare = next((source for source in sources if _BARE.fullmatch(source.lower())), None)
        if bare and _WITH_SOURCES.fullmatch(name.lower()):
            return f"a policy with '{bare}' in single quotes in {name}: without them it is a host of that name"
    twice = next((name for name, count in Counter(names).items() if count > 1), None)
    return f"a policy with each directive once: browsers ignore the second {twice}" if twice else ""


def _permissions_problem(value: str) -> str:
    # A comma is in no list, and in no origin that anybody has.
    right = all(_FEATURE.fullmatch(part.strip()) for part in value.split(","))
    return "" if right else "features with their lists, joined by commas, as camera=(), fullscreen=(self)"


def _referrer_problem(value: str) -> str:
    # Browsers take the last one that they know.
    right = all(part.strip().lower() in _REFERRER for part in value.split(","))
    return "" if right else f"one of {', '.join(_REFERRER)}"


_CHECKS: dict[str, Callable[[str], str]] = {
    "content-security-policy-report-only": policy_problem,
    "permissions-policy": _permissions_problem,
    "referrer-policy": _referrer_problem,
}


def header_problem(name: str, value: str) -> str:
    """Return what the value of a header must be instead, or "" where it is right, empty, or of a header that is not known here."""
    name = name.lower()
    if not value:
        return ""
    if name in _WORDS:
        right = value.partition(";")[0].strip().lower() in _WORDS[name]
        return "" if right else ("" if len(_WORDS[name]) == 1 else "one of ") + ", ".join(_WORDS[name])
    return _CHECKS[name](value) if name in _CHECKS else ""


def headers_problem(headers: dict[str, str]) -> str:
    """Return what is wrong with nginx_security_headers, after its name in a sentence, or ""."""
    seen: dict[str, str] = {}
    for name, value in headers.items():
        other = seen.setdefault(name.lower(), name)
        if other != name:
            return f"has {other} and {name}, which is the same header: remove one"
        if name.lower() in INPUTS:
            return f"has {name}, which has an input of its own: remove it, and set {INPUTS[name.lower()]}"
        if name.lower() in OF_ONE_ANSWER:
            return f"has {name}, which differs from answer to answer: remove it, or have the product send it"
        if wrong := header_problem(name, value):
            return f"has {name}: {value}, which browsers ignore: it must be {wrong}"
    return ""
