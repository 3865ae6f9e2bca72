# Copyright (c) The Slipway authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Have an ACME authority (RFC 8555) issue one certificate, with a key made for it. Runs in a container, to its end.

Challenges of HTTP-01 are answered by the balancers without this program; those of DNS-01 by the user's hook. What goes wrong is the last
line of standard error.
"""

from __future__ import annotations

import argparse
import datetime as dt
import json
import os
import signal
import subprocess
import sys
import typing as t
from pathlib import Path

import josepy
import requests
from acme import challenges, client, crypto_util, errors, messages
from cryptography import x509
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec

JSON = dict[str, t.Any]

CONFIG = Path("/etc/slipway/current")
SECRETS = Path("/run/secrets")
#: Where the result is left, for the program on the host.
ISSUED = Path("/issued")
#: Seconds that one answer of the authority may take, and one call of the hook.
ANSWER_SECONDS, HOOK_SECONDS = 30, 300
#: Characters from which on a value of the hook's environment may be a secret.
LEAST_SECRET = 8
#: What the libraries raise of their own, with a sentence on what is wrong.
SAID = (requests.RequestException, errors.Error, josepy.errors.Error)
#: And what comes up in them where an answer has another form than theirs.
MISREAD = (LookupError, TypeError, AttributeError, ValueError, RecursionError)


class AcmeError(Exception):
    """There is no certificate; says why and what to do."""


def connect(config: JSON) -> client.ClientV2:
    """Return a client of the authority that has its account.

    Raises:
        AcmeError: the authority does not answer as one, or refuses the account.
    """
    url = str(config["directory_url"])
    key = josepy.JWK.load((SECRETS / "account_key").read_bytes())
    net = client.ClientNetwork(key, alg=josepy.ES256, user_agent="slipway", timeout=ANSWER_SECONDS)
    try:
        directory = client.ClientV2.get_directory(url, net)
        found = client.ClientV2(directory, net)
        registration = {"terms_of_service_agreed": True, **({"email": config["email"]} if config["email"] else {})}
        if config["eab_key_id"]:
            registration["external_account_binding"] = messages.ExternalAccountBinding.from_data(
                key.public_key(), config["eab_key_id"], (SECRETS / "eab_hmac_key").read_text(), directory
            )
        elif getattr(directory.meta, "external_account_required", False):
            raise AcmeError(f"{url} wants accounts to be bound to one of its customers: set acme_eab_key_id and acme_eab_hmac_key")
        try:
            found.new_account(messages.NewRegistration.from_data(**registration))
        except errors.ConflictError as error:
            # The account is there.
            net.account = messages.RegistrationResource(uri=error.location, body=messages.Registration())
    except messages.Error as error:
        raise AcmeError(f"{url} refuses the account of vault_acme_account_key: {reported(error)}") from error
    except (*SAID, *MISREAD) as error:
        raise no_authority(url, error) from error
    return found


def no_authority(url: str, error: Exception) -> AcmeError:
    """Return the error that what answers at an URL is none."""
    why = error if isinstance(error, SAID) else f"an answer has another form ({type(error).__name__}: {error})"
    return AcmeError(f"{url} does not answer as an ACME authority: {why}")


def reported(error: messages.Error) -> str:
    """Return what an authority reported, with the name of the error (RFC 8555, section 6.7)."""
    return f"{error.detail or error.title or 'no reason given'} ({error.code or error.typ})"


class Hook:
    """The user's program that makes and removes records of the DNS."""

    def __init__(self, path: Path) -> None:
        """Take its path; nothing is called."""
        self._path, self._made = path, list[tuple[str, str]]()

    def call(self, what: str, name: str, value: str) -> None:
        """Add or remove a TXT record.

        Raises:
            AcmeError: it fails.
        """
        # Files of configuration are not executable: the first line says what runs it.
        first = self._path.read_text(encoding="utf-8").partition("\n")[0]
        argv = [*(first[2:].split() if first.startswith("#!") else ["/bin/sh"]), str(self._path), what, name, value]
        # An inventory may hold a number without quotes.
        given = {key: str(setting) for key, setting in json.loads((SECRETS / "dns_environment").read_text()).items()}
        environment = {**os.environ, **given}
        try:
            done = subprocess.run(
                argv, env=environment, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=HOOK_SECONDS, check=False
            )
        except (OSError, subprocess.TimeoutExpired) as error:
            raise AcmeError(f"acme_dns_hook cannot {what} the record {name}: {error}") from error
        if done.returncode:
            said = done.stderr.strip()
            # What traces its commands prints tokens. The message is for anyone to read.
            for setting in sorted(given.values(), key=len, reverse=True):
                said = said.replace(setting, "…") if len(setting) >= LEAST_SECRET else said
            raise AcmeError(f"acme_dns_hook {what} {name} ended with status {done.returncode}: {said[-500:]}")

    def add(self, name: str, value: str) -> None:
        """Add a record, to be removed at the end."""
        self._made.append((name, value))
        self.call("add", name, value)

    def remove_all(self) -> None:
        """Remove what was added; what cannot be removed harms nothing."""
        for name, value in self._made:
            try:
                self.call("remove", name, value)
            except AcmeError as error:
                print(error, file=sys.stderr)


def answer(authority: client.ClientV2, order: messages.OrderResource, hook: Hook | None) -> None:
    """Have the authority look at a challenge of each name that it has not validated yet.

    Raises:
        AcmeError: it offers none that can be answered.
    """
    kind = challenges.HTTP01 if hook is None else challenges.DNS01
    for authorization in order.authorizations:
        name = authorization.body.identifier.value
        if authorization.body.status == messages.STATUS_VALID:
            continue
        offered = [item for item in authorization.body.challenges if isinstance(item.chall, kind)]
        if not offered:
            raise AcmeError(f"the authority offers no {kind.typ} for {name}" + ("" if hook else ": set acme_dns_hook for dns-01"))
        response, validation = offered[0].response_and_validation(authority.net.key)
        if hook is not None:
            hook.add(offered[0].chall.validation_domain_name(name), validation)
        authority.answer_challenge(offered[0], response)


def failures(error: errors.ValidationError) -> str:
    """Return what the authority found instead of its challenges, for each name."""
    return "; ".join(
        f"{authorization.body.identifier.value}: {reported(item.error)}"
        for authorization in error.failed_authzrs
        for item in authorization.body.challenges
        if item.error
    )


def issue(config: JSON, hook: Hook | None) -> tuple[bytes, str, x509.Certificate]:
    """Return the key of a certificate, the certificate with its chain, both in PEM form, and the certificate.

    Raises:
        AcmeError: the authority issues none.
    """
    authority = connect(config)
    key = ec.generate_private_key(ec.SECP256R1()).private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    # The library compares it with its own, which has no zone.
    deadline = dt.datetime.now() + dt.timedelta(seconds=float(config["timeout"]))  # noqa: DTZ005
    try:
        order = authority.new_order(crypto_util.make_csr(key, config["names"]))
        answer(authority, order, hook)
        chain = str(authority.poll_and_finalize(order, deadline).fullchain_pem)
        return key, chain, x509.load_pem_x509_certificate(chain.encode())
    except errors.ValidationError as error:
        raise AcmeError(f"the authority could not validate {failures(error)}") from error
    except errors.TimeoutError as error:
        raise AcmeError(f"the authority has not issued the certificate within {config['timeout']} s: raise acme_timeout") from error
    except errors.IssuanceError as error:
        raise AcmeError(f"the authority does not issue the certificate: {reported(error.error)}") from error
    except messages.Error as error:
        raise AcmeError(f"the authority refuses the order: {reported(error)}") from error
    except (*SAID, *MISREAD) as error:
        raise no_authority(config["directory_url"], error) from error


def main() -> int:
    """Leave a key, a certificate and what it is for in the folder of results; return 0, or 1 where there is none."""
    argparse.ArgumentParser(description="Have an ACME authority issue a certificate; see docs/configure.md.").parse_args()
    config = json.loads((CONFIG / "acme.json").read_text())
    # An order that takes too long is ended from outside; its records are removed. The first process of a container has no other handler.
    signal.signal(signal.SIGTERM, lambda *_unused: sys.exit(1))
    if (CONFIG / "ca.crt").exists():
        os.environ["REQUESTS_CA_BUNDLE"] = str(CONFIG / "ca.crt")
    hook = Hook(CONFIG / "dns-hook") if (CONFIG / "dns-hook").exists() else None
    try:
        try:
            key, chain, certificate = issue(config, hook)
        finally:
            if hook is not None:
                hook.remove_all()
    except AcmeError as error:
        # What others say may have several lines, of which the last would be read.
        print(" ".join(str(error).split()), file=sys.stderr)
        return 1
    begins, ends = certificate.not_valid_before_utc, certificate.not_valid_after_utc
    (ISSUED / "server.key").write_bytes(key)
    (ISSUED / "server.pem").write_text(chain)
    (ISSUED / "times.json").write_text(json.dumps({"begins": begins.timestamp(), "ends": ends.timestamp()}))
    return 0


if __name__ == "__main__":
    sys.exit(main())
