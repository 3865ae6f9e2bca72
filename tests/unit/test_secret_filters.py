from __future__ import annotations

import base64
import hashlib
import hmac

import pytest
from ansible.errors import AnsibleFilterError

from ansible_collections.slipway.stack.plugins.filter.redis_password_hash import redis_password_hash
from ansible_collections.slipway.stack.plugins.filter.scram_sha_256 import scram_sha_256, verifier


def keys_of(text: str) -> tuple[str, str, bytes, bytes]:
    head, keys = text.removeprefix("SCRAM-SHA-256$").split("$")
    iterations, salt = head.split(":")
    stored, server = (base64.b64decode(key) for key in keys.split(":"))
    return iterations, salt, stored, server


def test_verifier_accepts_the_exchange_printed_in_rfc_7677():
    nonce = "rOprNGfwEbeRWgbNEkqO%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0"
    message = f"n=user,r=rOprNGfwEbeRWgbNEkqO,r={nonce},s=W22ZaJ0SNY7soEsUEjb6gQ==,i=4096,c=biws,r={nonce}".encode()
    iterations, salt, stored, server = keys_of(verifier("pencil", base64.b64decode("W22ZaJ0SNY7soEsUEjb6gQ=="), 4096))
    assert (iterations, salt) == ("4096", "W22ZaJ0SNY7soEsUEjb6gQ==")
    proof = base64.b64decode("dHzbZapWIk4jUhN+Ute9ytag9zjfMHgsqmmiz7AndVQ=")
    signature = hmac.new(stored, message, "sha256").digest()
    client_key = bytes(left ^ right for left, right in zip(proof, signature, strict=True))
    assert hashlib.sha256(client_key).digest() == stored
    assert base64.b64encode(hmac.new(server, message, "sha256").digest()) == b"6rriTRBi23WpRR/wtup+mMhUZUn/dB5nLTJRsjl95G4="


def test_salt_decides_whether_a_verifier_repeats():
    assert scram_sha_256("secret", salt="prod/app") == scram_sha_256("secret", salt="prod/app")
    assert scram_sha_256("secret", salt="prod/app") != scram_sha_256("secret", salt="prod/owner")
    assert scram_sha_256("secret") != scram_sha_256("secret")
    assert len(base64.b64decode(keys_of(scram_sha_256("secret"))[1])) == 16


@pytest.mark.parametrize(
    ("password", "prepared"),
    [
        ("I\u00adX", "IX"),  # RFC 4013: a soft hyphen is mapped to nothing
        ("\u00aa", "a"),  # and a feminine ordinal is normalised
        ("\u2168", "IX"),
        ("a\u00a0b", "a b"),
    ],
)
def test_passwords_that_are_prepared_alike_get_one_verifier(password: str, prepared: str):
    assert scram_sha_256(password, salt="x") == scram_sha_256(prepared, salt="x")


def test_a_password_that_preparation_forbids_is_taken_as_it_is():
    assert scram_sha_256("ü\u0007", salt="x") != scram_sha_256("ü", salt="x")


@pytest.mark.parametrize("password", ["", None, 7])
def test_a_missing_password_is_refused(password: object):
    for function in (scram_sha_256, redis_password_hash):
        with pytest.raises(AnsibleFilterError, match="must be a string that is not empty"):
            function(password)


def test_few_iterations_are_refused():
    with pytest.raises(AnsibleFilterError, match="at least 4096 iterations"):
        scram_sha_256("secret", iterations=1000)


def test_redis_hash_is_what_acl_getuser_prints():
    # From the documentation of ACL SETUSER: the hash of "p1pp0".
    assert redis_password_hash("p1pp0") == "#" + hashlib.sha256(b"p1pp0").hexdigest()
    assert redis_password_hash("abc") == "#ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"
