# Copyright (c) The Slipway authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What is wrong with a certificate and its key, before any host is given them.

Every sentence says which file, what is wrong with it, and what to do. None holds anything of a file that may be a key.
"""

from __future__ import annotations

import datetime as dt
import ipaddress
import itertools
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

try:
    from cryptography import x509
    from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
    from cryptography.hazmat.primitives import hashes, serialization
    from cryptography.hazmat.primitives.asymmetric import dsa, ec, rsa
    from cryptography.x509.oid import ExtendedKeyUsageOID
except ImportError:
    # The lookup tls_files says what is missing, to a run that reads certificates.
    READS_CERTIFICATES = False
else:
    READS_CERTIFICATES = True

# Any label: it distinguishes keys from certificates.
_BLOCK = re.compile(rb"-----BEGIN ([A-Z0-9 ]+)-----\r?\n.*?-----END \1-----", re.DOTALL)
# Browsers take no certificate with a shorter key (CA/Browser Forum, Baseline Requirements, section 6.1.5).
LEAST_RSA_BITS = 2048
LEAST_EC_BITS = 256

Now = dt.datetime


@dataclass
class Pair:
    """A certificate with its chain, and its key, as far as they could be read."""

    #: The certificates of the file and nothing else of it, the site's own one first; "" where there are none.
    certificate: str = ""
    #: The key alone, as the file has it; "" where there is none.
    key: str = ""
    chain: list[x509.Certificate] = field(default_factory=list)
    private_key: Any = None
    problems: list[str] = field(default_factory=list)


def blocks(content: bytes, kind: str) -> list[bytes]:
    """Return the PEM blocks of a file whose label ends with a kind: ``CERTIFICATE`` or ``PRIVATE KEY``."""
    return [found[0] for found in _BLOCK.finditer(content) if found[1].decode().endswith(kind)]


def read_certificates(content: bytes, file: str) -> tuple[list[x509.Certificate], str, list[str]]:
    """Return the certificates of a file, their PEM text alone, and what is wrong with the file."""
    if not content.strip():
        return [], "", [f"{file} is empty: put the certificate and its chain there, in PEM form"]
    found = blocks(content, "CERTIFICATE")
    if not found:
        return [], "", [_no_certificate(content, file)]
    try:
        chain = [x509.load_pem_x509_certificate(block) for block in found]
    except (ValueError, UnsupportedAlgorithm):
        return (
            [],
            "",
            [f"{file} holds a certificate that cannot be read; the file may be damaged: copy it again from where it was issued"],
        )
    if content.count(b"-----BEGIN CERTIFICATE-----") > len(found):
        return [], "", [f"{file} is cut off: its last certificate has no end; copy it again from where it was issued"]
    return chain, _text(found), []


def _no_certificate(content: bytes, file: str) -> str:
    if b"-----BEGIN CERTIFICATE-----" in content:
        return f"{file} is cut off: its certificate has no end; copy it again from where it was issued"
    if blocks(content, "PRIVATE KEY"):
        return f"{file} holds a private key and no certificate: give the certificate there, and the key as the other file"
    if blocks(content, "CERTIFICATE REQUEST"):
        return f"{file} holds a request for a certificate: give the certificate that was issued for it"
    if content[:1] == b"\x30":
        return (
            f"{file} is in DER (binary) form, and PEM is needed: convert it with openssl x509 -inform DER -in {_path(file)} -out shop.pem"
            " (for a .p12 or .pfx file: openssl pkcs12)"
        )
    return f"{file} holds no certificate in PEM form: give a file that begins with -----BEGIN CERTIFICATE-----"


def _path(file: str) -> str:
    """Return the path alone of a file that is named with its variable before it."""
    return file.partition(": ")[2] or file


def _text(found: Sequence[bytes]) -> str:
    return "".join(block.replace(b"\r\n", b"\n").decode("ascii", "replace") + "\n" for block in found)


def read_key(content: bytes, file: str) -> tuple[Any, str, list[str]]:
    """Return the private key of a file, its PEM text alone, and what is wrong with the file."""
    if not content.strip():
        return None, "", [f"{file} is empty: put the private key there, in PEM form"]
    found = blocks(content, "PRIVATE KEY")
    if not found:
        return None, "", [_no_key(content, file)]
    if len(found) > 1:
        return None, "", [f"{file} holds {len(found)} private keys: leave the one that belongs to the certificate"]
    if b"ENCRYPTED" in found[0]:
        return (
            None,
            "",
            [
                (
                    f"{file} is encrypted with a passphrase, which nginx cannot ask for: decrypt it with openssl pkey -in {_path(file)} "
                    "-out key.pem, and protect the result with ansible-vault encrypt"
                )
            ],
        )
    try:
        return serialization.load_pem_private_key(found[0], password=None), _text(found), []
    except (ValueError, TypeError, UnsupportedAlgorithm):
        return None, "", [f"{file} holds a private key that cannot be read; the file may be damaged: copy it again"]


def _no_key(content: bytes, file: str) -> str:
    if re.search(rb"-----BEGIN [A-Z ]*PRIVATE KEY-----", content):
        return f"{file} is cut off: its private key has no end; copy it again"
    if blocks(content, "CERTIFICATE"):
        return f"{file} holds a certificate and no private key: give the key there"
    if content[:1] == b"\x30":
        return f"{file} is in DER (binary) form, and PEM is needed: convert it with openssl pkey -inform DER -in {_path(file)} -out key.pem"
    return f"{file} holds no private key in PEM form: give one that begins with -----BEGIN PRIVATE KEY-----, or EC or RSA PRIVATE"


def read_pair(certificate: bytes, key: bytes, certificate_file: str, key_file: str, names: Iterable[str], now: Now) -> Pair:
    """Return a certificate and its key, with all that keeps them from being served.

    Args:
        certificate: content of the file with the certificate and its chain.
        key: content of the file with the private key; may be the same file.
        certificate_file: what to call the first file in a sentence.
        key_file: what to call the second file.
        names: host names that clients ask for; wildcards as nginx knows them. Regular expressions are not looked at.
        now: the time to compare with, in UTC.
    """
    pair = Pair()
    pair.chain, pair.certificate, problems = read_certificates(certificate, certificate_file)
    pair.private_key, pair.key, of_key = read_key(key, key_file)
    pair.problems = problems + of_key
    if pair.chain:
        pair.problems += _chain_problems(pair.chain, certificate_file, now)
        pair.problems += _name_problems(pair.chain[0], certificate_file, names)
    if pair.chain and pair.private_key is not None:
        pair.problems += _match_problems(pair, certificate_file, key_file)
    return pair


def _day(moment: Now) -> str:
    return moment.strftime("%Y-%m-%d %H:%M UTC")


def _subject(certificate: x509.Certificate) -> str:
    return certificate.subject.rfc4514_string() or "without a name"


def _chain_problems(chain: Sequence[x509.Certificate], file: str, now: Now) -> list[str]:
    problems = []
    for number, certificate in enumerate(chain):
        which = "the certificate" if number == 0 else f"the certificate of {_subject(certificate)} in its chain"
        if now > certificate.not_valid_after_utc:
            problems.append(f"{file}: {which} expired on {_day(certificate.not_valid_after_utc)}: get a new one")
        if now < certificate.not_valid_before_utc:
            problems.append(
                f"{file}: {which} is not valid before {_day(certificate.not_valid_before_utc)}: wait until then, or get another one "
                "(and look at the controller's clock)"
            )
        problems += [f"{file}: {which} {weakness}: get a new one" for weakness in _weaknesses(certificate)]
    if len(chain) > 1 and not _issued(chain[0], chain[1]) and any(_issued(other, chain[0]) for other in chain[1:]):
        problems.append(
            f"{file}: the certificates are in the wrong order: the site's own comes first, then the one that signed it, and so on"
        )
    else:
        for below, above in itertools.pairwise(chain):
            if not _issued(below, above):
                problems.append(
                    f"{file}: the certificate of {_subject(below)} is followed by that of {_subject(above)}, which did not sign it: "
                    "put each certificate before the one that signed it, and leave out all others"
                )
                break
    return problems


def _issued(below: x509.Certificate, above: x509.Certificate) -> bool:
    """Return whether one certificate was signed with the key of another one."""
    try:
        below.verify_directly_issued_by(above)
    except (ValueError, TypeError, InvalidSignature, UnsupportedAlgorithm):
        return False
    return True


def _weaknesses(certificate: x509.Certificate) -> list[str]:
    found = []
    try:
        public = certificate.public_key()
    except (ValueError, UnsupportedAlgorithm):
        return ["has a key of a kind that is not supported"]
    if isinstance(public, rsa.RSAPublicKey) and public.key_size < LEAST_RSA_BITS:
        found.append(f"has an RSA key of {public.key_size} bits, and {LEAST_RSA_BITS} are the least that clients accept")
    if isinstance(public, ec.EllipticCurvePublicKey) and public.curve.key_size < LEAST_EC_BITS:
        found.append(f"has an elliptic curve key of {public.curve.key_size} bits, and {LEAST_EC_BITS} are the least that clients accept")
    if isinstance(public, dsa.DSAPublicKey):
        found.append("has a DSA key, which no client accepts")
    try:
        algorithm = certificate.signature_hash_algorithm
    except UnsupportedAlgorithm:
        algorithm = None
    # The signature of a root is never looked at.
    if isinstance(algorithm, (hashes.SHA1, hashes.MD5)) and certificate.issuer != certificate.subject:
        found.append(f"is signed with {algorithm.name.upper()}, which clients refuse")
    return found


def alternative_names(certificate: x509.Certificate) -> tuple[list[str], list[str]]:
    """Return the DNS names and the addresses that a certificate bears, in lower case."""
    try:
        found = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    except (x509.ExtensionNotFound, ValueError):
        return [], []
    return (
        [str(name).lower() for name in found.get_values_for_type(x509.DNSName)],
        [str(address) for address in found.get_values_for_type(x509.IPAddress)],
    )


def _covers(dns: Sequence[str], addresses: Sequence[str], name: str) -> bool:
    """Return whether a certificate's names are enough for a name of a site (RFC 9525, section 6.3)."""
    name = name.lower()
    try:
        return str(ipaddress.ip_address(name.removeprefix("[").removesuffix("]"))) in addresses
    except ValueError:
        pass
    if name.startswith("."):
        return _covers(dns, addresses, name[1:]) and f"*{name}" in dns
    # One label may be anything, where the certificate says so.
    return name in dns or (not name.startswith("*") and "." in name and f"*.{name.partition('.')[2]}" in dns)


def _name_problems(certificate: x509.Certificate, file: str, names: Iterable[str]) -> list[str]:
    dns, addresses = alternative_names(certificate)
    asked = [name for name in names if name != "_" and not name.startswith("~") and not name.endswith(".*")]
    missing = [name for name in asked if not _covers(dns, addresses, name)]
    problems = []
    if missing:
        borne = ", ".join([*dns, *addresses]) or "none (clients do not look at the common name)"
        problems.append(
            f"{file}: the certificate is not for {', '.join(missing)}; its names are {borne}: get one for all names of the site, correct "
            "them in nginx_server_names and nginx_redirects, or give some a certificate of their own in nginx_certificates"
        )
    try:
        usage = certificate.extensions.get_extension_for_class(x509.ExtendedKeyUsage).value
    except (x509.ExtensionNotFound, ValueError):
        return problems
    if not {ExtendedKeyUsageOID.SERVER_AUTH, ExtendedKeyUsageOID.ANY_EXTENDED_KEY_USAGE} & set(usage):
        problems.append(
            f"{file}: the certificate may not be used by a server (its extended key usage lacks serverAuth): get one for servers"
        )
    return problems


def public_bytes(public: Any) -> bytes:
    """Return a public key in the form in which two can be compared (SubjectPublicKeyInfo)."""
    return bytes(public.public_bytes(serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo))


def _match_problems(pair: Pair, certificate_file: str, key_file: str) -> list[str]:
    key = public_bytes(pair.private_key.public_key())
    if public_bytes(pair.chain[0].public_key()) == key:
        return []
    if any(public_bytes(certificate.public_key()) == key for certificate in pair.chain[1:]):
        return [
            (
                f"{key_file} is the key of a certificate that is not the first one in {certificate_file}: the site's own certificate comes "
                "first, then the one that signed it, and so on"
            )
        ]
    return [f"{key_file} is not the key of {certificate_file}: give the key with which this certificate was requested"]


def authority_problems(certificate: bytes | None, key: bytes | None, certificate_file: str, key_file: str) -> list[str]:
    """Return a sentence for everything that prevents the private CA from issuing a certificate.

    A new CA is created only if there is neither file, or a good key alone, as every client must trust a new one.

    Args:
        certificate: content of ca.pem, or None where there is no such file.
        key: content of ca.key, or None.
        certificate_file: path of ca.pem.
        key_file: path of ca.key.
    """
    remedy = (
        f"restore it from a copy, or remove both {certificate_file} and {key_file} to create a new CA, which every client must then trust"
    )
    private: Any = None
    problems = []
    if key is not None:
        private, _unused, wrong = read_key(key, key_file)
        problems += [f"{key_file} is not the key of a CA that can be used: {remedy}" for _unused in wrong[:1]]
    if certificate is not None:
        chain, _unused, wrong = read_certificates(certificate, certificate_file)
        problems += [f"{certificate_file} is not a certificate that can be read: {remedy}" for _unused in wrong[:1]]
        if key is None and not wrong:
            problems.append(f"{certificate_file} is there, and its key {key_file} is not: {remedy}")
        if chain and private is not None and public_bytes(chain[0].public_key()) != public_bytes(private.public_key()):
            problems.append(f"{key_file} is not the key of {certificate_file}: {remedy}")
    return problems
