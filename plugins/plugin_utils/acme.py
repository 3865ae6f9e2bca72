# Copyright (c) The Slipway authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The account at an ACME authority (RFC 8555), the names that it is asked for, and what would keep it from issuing a certificate."""

from __future__ import annotations

import base64
import functools
import hashlib
import http.client
import ipaddress
import json
import os
import re
import socket
import urllib.error
from collections.abc import Iterable, Mapping, Sequence
from typing import Any
from urllib.parse import urlsplit

from ansible.module_utils.urls import open_url

from ansible_collections.slipway.stack.plugins.plugin_utils.forms import is_url

try:
    from cryptography.hazmat.primitives import hashes, serialization
    from cryptography.hazmat.primitives.asymmetric import ec
    from cryptography.hazmat.primitives.kdf.hkdf import HKDF
except ImportError:
    HAS_CRYPTOGRAPHY = False
else:
    HAS_CRYPTOGRAPHY = True

#: Order of the group of P-256 (SEC 2, section 2.4.2): private keys are the numbers from 1 to below it.
P256_ORDER = 0xFFFFFFFF00000000FFFFFFFFFFFFFFFFBCE6FAADA7179E84F3B9CAC2FC632551
#: Bytes of key material: 64 bits more than the order, so that no number is likelier than another (FIPS 186-5, appendix A.2.1).
KEY_MATERIAL_BYTES = 40
#: What Let's Encrypt issues of the same names in seven days is five; one is left for a balancer that is installed again.
LETS_ENCRYPT, MOST_BALANCERS = "letsencrypt.org", 4
#: Seconds that the directory may take, and how much of another answer is shown.
ANSWER_SECONDS, SHOWN = 10, 200
#: What a directory must name (RFC 8555, section 7.1.1).
RESOURCES = ("newNonce", "newAccount", "newOrder")


def _base64url(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()


def account(secret: str) -> dict[str, str]:
    """Return the account's key in PEM form, and its thumbprint (RFC 7638), both made of a secret of the vault.

    The key is derived (HKDF, RFC 5869), so it is the same in each run, and the vault holds no file.

    Raises:
        ValueError: cryptography is missing.
    """
    if not HAS_CRYPTOGRAPHY:
        raise ValueError("the key of an ACME account needs cryptography in the Python of the controller: pip install cryptography")
    material = HKDF(hashes.SHA256(), KEY_MATERIAL_BYTES, salt=None, info=b"slipway ACME account P-256").derive(secret.encode())
    key = ec.derive_private_key(int.from_bytes(material, "big") % (P256_ORDER - 1) + 1, ec.SECP256R1())
    numbers = key.public_key().public_numbers()
    public = {"crv": "P-256", "kty": "EC", "x": _base64url(numbers.x.to_bytes(32, "big")), "y": _base64url(numbers.y.to_bytes(32, "big"))}
    pem = key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    canonical = json.dumps(public, sort_keys=True, separators=(",", ":")).encode()
    return {"key": pem.decode(), "thumbprint": _base64url(hashlib.sha256(canonical).digest())}


def names(served: Iterable[str]) -> list[str]:
    """Return the names that a certificate must have for server names of nginx, of which ``.example.com`` stands for two."""
    found = [part for name in served for part in ((name[1:], f"*{name}") if name.startswith(".") else (name,))]
    return list(dict.fromkeys(found))


def mistakes(
    asked: Sequence[str], directory_url: str, eab_key_id: str, eab_hmac_key: str, balancers: int, files: Mapping[str, str]
) -> list[str]:
    """Return what contradicts itself in the inputs of role acme, as sentences.

    Args:
        asked: Names of the certificate.
        directory_url: URL of the authority's directory.
        eab_key_id: Key identifier of the external account binding, or "".
        eab_hmac_key: Its key, or "".
        balancers: How many hosts each have a certificate issued.
        files: Paths on the controller by the inputs that name them, or "" for none.
    """
    found = [
        f"{variable}: there is no file {path} on the controller; put it there, or correct the path"
        for variable, path in files.items()
        if path and not os.path.isfile(os.path.expanduser(path))
    ]
    if bool(eab_key_id) != bool(eab_hmac_key):
        given, missing = ("acme_eab_key_id", "acme_eab_hmac_key") if eab_key_id else ("acme_eab_hmac_key", "acme_eab_key_id")
        found.append(f"{given} is set, and {missing} is not: set both as the authority gave them, or neither")
    elif not re.fullmatch(r"[A-Za-z0-9_-]*={0,2}", eab_hmac_key):
        found.append("acme_eab_hmac_key is not in base64url, of letters, digits, - and _: set it as the authority gave it")
    impossible = [name for name in asked if name.startswith("~") or name.endswith(".*") or "." not in name or _is_address(name)]
    if impossible:
        found.append(
            f"no ACME authority issues a certificate for {', '.join(impossible)}: write whole names in nginx_server_names and "
            "nginx_redirects, or give these a certificate in nginx_certificates"
        )
    wildcards = [name for name in asked if name.startswith("*")]
    if wildcards and not files["acme_dns_hook"]:
        found.append(f"a certificate for {', '.join(wildcards)} needs validation by DNS: set acme_dns_hook, or list all names instead")
    if balancers > MOST_BALANCERS and (urlsplit(directory_url).hostname or "").endswith(LETS_ENCRYPT):
        found.append(
            f"{balancers} balancers would each be issued a certificate for the same names, and Let's Encrypt issues five in a week: use "
            f"{MOST_BALANCERS} balancers or fewer, another authority, or nginx_tls_mode: files"
        )
    return found


def _is_address(name: str) -> bool:
    try:
        ipaddress.ip_address(name.strip("[]"))
    except ValueError:
        return False
    return True


def obstacles(asked: Iterable[str], balancers: Iterable[str], directory_url: str, ca_file: str) -> list[str]:
    """Return what would keep the authority from issuing a certificate, seen from the controller.

    Args:
        asked: Names that are validated over HTTP.
        balancers: Host names and addresses under which the balancers are known.
        directory_url: URL of the authority's directory.
        ca_file: File with the certificates that the authority's is verified with, or "" for those of the system.
    """
    known = {address for host in balancers for address in _addresses(host)}
    found = []
    for name in asked:
        addresses = _addresses(name)
        if not addresses:
            found.append(f"{name} has no address in the DNS, so no authority can validate it: add a record for the balancers")
        elif elsewhere := sorted(addresses - known):
            # An authority looks at one of them, Let's Encrypt at one of IPv6 first.
            found.append(
                f"{name} is {', '.join(elsewhere)} in the DNS, and no balancer has that address ({', '.join(sorted(known))}): correct the "
                "record, or name all addresses of the balancers in acme_balancers"
            )
    problem = _directory_problem(directory_url, ca_file)
    return found + ([problem] if problem else [])


# A run asks for all balancers in one process, and each has the same names and the same authority.
@functools.cache
def _addresses(host: str) -> set[str]:
    """Return the addresses of a host by its name, or the one that it is."""
    try:
        return {str(entry[4][0]) for entry in socket.getaddrinfo(host, 80, type=socket.SOCK_STREAM)}
    except (OSError, UnicodeError):
        return set()


@functools.cache
def _directory_problem(url: str, ca_file: str) -> str:
    """Return why an URL is not that of a directory, or ""."""
    where, remedy = f"acme_directory_url: {url}", "correct the URL"
    try:
        with open_url(url, timeout=ANSWER_SECONDS, ca_path=os.path.expanduser(ca_file) or None) as answer:
            text = answer.read(65536).decode("utf-8", "replace")
    except urllib.error.HTTPError as error:
        return f"{where} answers {error.code} {error.reason}: {remedy}"
    except http.client.HTTPException as error:
        # The text of many is no more than what was read.
        return f"{where} cannot be read ({type(error).__name__}: {str(error).strip()[:SHOWN]}): {remedy}"
    except (OSError, ValueError) as error:
        return f"{where} cannot be read: {getattr(error, 'reason', error)}: {remedy}, or acme_ca_file"
    try:
        directory: Any = json.loads(text)
    except (ValueError, RecursionError):
        directory = None
    named = {name: value for name, value in directory.items() if isinstance(value, str)} if isinstance(directory, dict) else {}
    missing = [name for name in RESOURCES if not is_url(named.get(name, ""))]
    if not missing:
        return ""
    return (
        f"{where} is not the directory of an ACME authority, as it names no URL for {', '.join(missing)}; it answers {text[:SHOWN]!r}: "
        f"{remedy}"
    )
