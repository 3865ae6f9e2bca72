# Copyright (c) The Slipway authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The lookup tls_files."""

from __future__ import annotations

DOCUMENTATION = r"""
name: tls_files
author: The Slipway authors (!UNKNOWN)
version_added: 0.1.0
short_description: Read a certificate and its key on the controller, and say what is wrong with them
description:
  - Reads both files, which may be encrypted with Ansible Vault. Takes the certificates out of the one and the key out of the other, so that
    a file that holds both is never handed on as a whole.
  - What is wrong is returned as sentences, each with the file and the remedy; a file that cannot be read does not end the run by itself.
options:
  _terms:
    description: Not used.
    type: list
    elements: str
    default: []
  certificate:
    description: Path of the file with the certificate and its chain.
    type: str
    required: true
  key:
    description: Path of the file with the private key; may be the same file.
    type: str
    required: true
  names:
    description: Host names that the certificate must be good for, as nginx' server_name takes them.
    type: list
    elements: str
    default: []
  input:
    description: Input with members C(certificate) and C(key) that names the files, for messages; those of the whole site by default.
    type: str
    default: ""
  authority:
    description: Folder of our own CA (C(ca.pem), C(ca.key)), where that is the one to issue the certificate.
    type: str
    default: ""
  alternative_names:
    description: With O(authority), what the certificate must bear, each with C(DNS:) or C(IP:) before it.
    type: list
    elements: str
    default: []
  renew_days:
    description: With O(authority), days before its end on which the certificate, or that of the CA, is not good any more.
    type: int
    default: 0
"""

EXAMPLES = r"""
- name: Say what is wrong with a certificate
  ansible.builtin.debug:
    msg: "{{ lookup('slipway.stack.tls_files', certificate='/tls/shop.pem', key='/tls/shop.key', names=['shop.example.com']).problems }}"
"""

RETURN = r"""
_raw:
  description:
    - One dictionary.
    - C(certificate) and C(key) are texts in PEM form, or empty; C(fingerprint) is that of the public key (SHA-256, hexadecimal).
    - C(alternative_names) are those of the certificate, C(not_after) its end.
    - C(problems) are sentences. With O(authority), they are about the CA, and there are none while no certificate is due.
    - C(good) says whether certificate and key can be served, and with O(authority) that none is due. C(authority_good) says it of the CA.
  type: list
  elements: dict
"""

import datetime as dt
import hashlib
import os
import sys
from collections.abc import Sequence
from typing import Any

from ansible.errors import AnsibleError
from ansible.plugins.lookup import LookupBase

from ansible_collections.slipway.stack.plugins.plugin_utils.certificates import (
    READS_CERTIFICATES,
    Pair,
    authority_problems,
    public_bytes,
    read_certificates,
    read_pair,
)

if READS_CERTIFICATES:
    from cryptography import x509


def own_names(certificate: x509.Certificate) -> list[str]:
    """Return the alternative names of a certificate, each with its kind before it."""
    try:
        found = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    except (x509.ExtensionNotFound, ValueError):
        return []
    return [
        f"{'IP' if isinstance(name, x509.IPAddress) else 'DNS' if isinstance(name, x509.DNSName) else 'other'}:{name.value}"
        for name in found
    ]


def issued_by(below: x509.Certificate, above: x509.Certificate) -> bool:
    """Return whether a certificate names another one's key as that of its issuer."""
    try:
        authority = below.extensions.get_extension_for_class(x509.AuthorityKeyIdentifier).value.key_identifier
        return authority == above.extensions.get_extension_for_class(x509.SubjectKeyIdentifier).value.digest
    except (x509.ExtensionNotFound, ValueError):
        return False


class LookupModule(LookupBase):  # type: ignore[misc]
    """Reads files of the controller."""

    def run(self, _terms: Sequence[str], variables: dict[str, Any] | None = None, **kwargs: Any) -> list[dict[str, Any]]:
        """Return what the two files hold."""
        if not READS_CERTIFICATES:
            raise AnsibleError(
                f"reading certificates needs cryptography in the Python of the controller: {sys.executable} -m pip install cryptography"
            )
        self.set_options(var_options=variables, direct=kwargs)
        certificate, key = (os.path.expanduser(str(self.get_option(name))) for name in ("certificate", "key"))
        authority = str(self.get_option("authority"))
        now = dt.datetime.now(dt.UTC)
        pair, missing = self._pair(certificate, key, now)
        result = {
            "certificate": pair.certificate,
            "key": pair.key,
            "fingerprint": hashlib.sha256(public_bytes(pair.chain[0].public_key())).hexdigest() if pair.chain else "",
            "alternative_names": own_names(pair.chain[0]) if pair.chain else [],
            "not_after": pair.chain[0].not_valid_after_utc.isoformat() if pair.chain else "",
        }
        if not authority:
            problems = missing or pair.problems
            return [{**result, "problems": problems, "good": not problems, "authority_good": False}]
        return [{**result, **self._authority(authority, pair, usable=not missing and not pair.problems, now=now)}]

    def _pair(self, certificate: str, key: str, now: dt.datetime) -> tuple[Pair, list[str]]:
        """Return what the files hold, and what kept them from being read."""
        contents, missing = [], []
        of = str(self.get_option("input"))
        variables = (f"{of}.certificate", f"{of}.key") if of else ("nginx_tls_certificate_file", "nginx_tls_key_file")
        for variable, path in zip(variables, (certificate, key), strict=True):
            content, problem = self._read(path)
            contents.append(content or b"")
            missing += [f"{variable}: {problem}"] if problem else []
        names = [str(name) for name in self.get_option("names")]
        sides = [f"{variables[0]}: {certificate}", f"{variables[1]}: {key}"]
        return read_pair(contents[0], contents[1], sides[0], sides[1], names, now), missing

    def _read(self, path: str) -> tuple[bytes | None, str]:
        """Return a file's content, or None and what is wrong."""
        if not os.path.lexists(path):
            hint = (
                "put it there, or correct" if os.path.isabs(path) else 'write "{{ inventory_dir }}/" or the rest of the whole path before'
            )
            return None, f"there is no file {path} on the controller; {hint} the path"
        if os.path.isdir(path):
            return None, f"{path} is a folder: name the file in it"
        try:
            # Any byte is a character of Latin-1, so that binary files can be read too.
            return self._loader.get_text_file_contents(path, encoding="latin-1").encode("latin-1"), ""
        except AnsibleError as error:
            if "ault" in str(error):
                return (
                    None,
                    f"{path} is encrypted with Ansible Vault and cannot be decrypted: give --vault-password-file, or another password",
                )
            return None, f"{path} cannot be read: {getattr(error.__cause__, 'strerror', None) or 'look at its owner and mode'}"

    def _authority(self, folder: str, pair: Pair, *, usable: bool, now: dt.datetime) -> dict[str, Any]:
        """Return whether the CA and its certificate are good, and what keeps the CA from issuing one that is due."""
        paths = [os.path.join(folder, name) for name in ("ca.pem", "ca.key")]
        read = [self._read(path) if os.path.lexists(path) else (None, "") for path in paths]
        unreadable = [f"nginx_tls_ca_dir: {problem}" for _content, problem in read if problem]
        due = now + dt.timedelta(days=int(self.get_option("renew_days")))
        chain = read_certificates(read[0][0], paths[0])[0] if read[0][0] else []
        good_authority = bool(chain) and chain[0].not_valid_after_utc > due
        wanted = sorted(str(name) for name in self.get_option("alternative_names"))
        good = (
            good_authority
            and usable
            and pair.chain[0].not_valid_after_utc > due
            and sorted(own_names(pair.chain[0])) == wanted
            and issued_by(pair.chain[0], chain[0])
        )
        problems = (
            [] if good else unreadable or [f"nginx_tls_ca_dir: {problem}" for problem in authority_problems(read[0][0], read[1][0], *paths)]
        )
        return {"problems": problems, "good": good, "authority_good": good_authority and read[1][0] is not None}
