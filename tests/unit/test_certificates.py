"""The message for each kind of bad certificate or key, and that no key is where it does not belong."""

from __future__ import annotations

import datetime as dt
import functools
import ipaddress
import json
import subprocess
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from ansible_collections.slipway.stack.plugins.plugin_utils.certificates import authority_problems, read_pair
from conftest import ansible, balanced, role_variable

NOW = dt.datetime.now(dt.UTC)
DAY = dt.timedelta(days=1)
SERVERS = balanced()


@functools.cache
def new_key(number: int = 0, bits: int = 0) -> Any:
    """Return a key; each number is another one."""
    return rsa.generate_private_key(65537, bits) if bits else ec.generate_private_key(ec.SECP256R1(), None) if number >= 0 else None


def name(text: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, text)])


def certificate(
    *,
    key: Any = None,
    signer: Any = None,
    subject: str = "shop.example",
    issuer: str = "ca",
    names: tuple[str, ...] = ("shop.example",),
    begin: dt.datetime = NOW - DAY,
    end: dt.datetime = NOW + 90 * DAY,
    usage: Any = None,
) -> x509.Certificate:
    """Return a certificate."""
    key = key or new_key()
    made = x509.CertificateBuilder().subject_name(name(subject)).issuer_name(name(issuer)).public_key(key.public_key())
    made = made.serial_number(x509.random_serial_number()).not_valid_before(begin).not_valid_after(end)
    if names:
        general = [x509.IPAddress(ipaddress.ip_address(item)) if item[0].isdigit() else x509.DNSName(item) for item in names]
        made = made.add_extension(x509.SubjectAlternativeName(general), critical=False)
    if usage:
        made = made.add_extension(x509.ExtendedKeyUsage([usage]), critical=False)
    return made.sign(signer or new_key(9), hashes.SHA256())


def pem(*items: Any, password: bytes = b"", der: bool = False) -> bytes:
    """Return certificates and keys as a file holds them."""
    encoding = serialization.Encoding.DER if der else serialization.Encoding.PEM
    hidden = serialization.BestAvailableEncryption(password) if password else serialization.NoEncryption()
    return b"".join(
        item.public_bytes(encoding)
        if isinstance(item, x509.Certificate)
        else item.private_bytes(encoding, serialization.PrivateFormat.PKCS8, hidden)
        for item in items
    )


def problems(first: bytes, second: bytes | None = None, *names: str) -> list[str]:
    """Return the message about the two files."""
    second = pem(new_key()) if second is None else second
    return read_pair(first, second, "shop.pem", "shop.key", names, NOW).problems


AUTHORITY = certificate(key=new_key(9), subject="ca", issuer="ca", names=())
GOOD = certificate()


def test_good_files_are_good():
    assert problems(pem(GOOD), None, "shop.example", "_", "~^x", "www.*") == []
    assert problems(pem(GOOD, AUTHORITY)) == []
    # Comments, line ends of another system, and the key in the same file are no mistakes.
    assert problems(b"Bag Attributes: x\n" + pem(GOOD).replace(b"\n", b"\r\n") + pem(new_key())) == []
    everything = pem(new_key(), GOOD, AUTHORITY)
    assert problems(everything, everything) == []
    rsa_key = new_key(1, 2048)
    text = rsa_key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.TraditionalOpenSSL, serialization.NoEncryption())
    assert problems(pem(certificate(key=rsa_key)), text) == []


@pytest.mark.parametrize(
    ("first", "second", "told"),
    [
        (b"", None, "shop.pem is empty"),
        (b"  \n", None, "shop.pem is empty"),
        (b"hello", None, "shop.pem holds no certificate in PEM form"),
        (pem(GOOD)[:300], None, "shop.pem is cut off"),
        (pem(GOOD) + pem(AUTHORITY)[:200], None, "shop.pem is cut off"),
        (pem(GOOD).replace(b"MII", b"AAA", 1), None, "shop.pem holds a certificate that cannot be read"),
        (
            pem(GOOD, der=True),
            None,
            "shop.pem is in DER (binary) form, and PEM is needed: convert it with openssl x509 -inform DER -in shop.pem",
        ),
        (pem(new_key()), None, "shop.pem holds a private key and no certificate"),
        (pem(GOOD), b"", "shop.key is empty"),
        (pem(GOOD), b"hello", "shop.key holds no private key in PEM form"),
        (pem(GOOD), pem(new_key())[:100], "shop.key is cut off"),
        (
            pem(GOOD),
            pem(new_key(), der=True),
            "shop.key is in DER (binary) form, and PEM is needed: convert it with openssl pkey -inform DER",
        ),
        (pem(GOOD), pem(new_key(), password=b"x"), "shop.key is encrypted with a passphrase, which nginx cannot ask for: decrypt it with"),
        (pem(GOOD), pem(GOOD), "shop.key holds a certificate and no private key"),
        (pem(GOOD), pem(new_key(), new_key(2)), "shop.key holds 2 private keys"),
        (pem(GOOD), pem(new_key()).replace(b"MIG", b"AAA", 1), "shop.key holds a private key that cannot be read"),
        (pem(GOOD), pem(new_key(2)), "shop.key is not the key of shop.pem"),
        (pem(AUTHORITY, GOOD), None, "shop.pem: the certificates are in the wrong order"),
        (pem(GOOD, certificate(key=new_key(3), subject="other")), None, "which did not sign it"),
        (pem(certificate(end=NOW - DAY, begin=NOW - 2 * DAY)), None, "shop.pem: the certificate expired on 20"),
        (pem(certificate(begin=NOW + DAY)), None, "shop.pem: the certificate is not valid before 20"),
        (pem(certificate(key=new_key(4, 1024))), pem(new_key(4, 1024)), "has an RSA key of 1024 bits, and 2048 are the least"),
        (pem(certificate(usage=ExtendedKeyUsageOID.CLIENT_AUTH)), None, "may not be used by a server"),
    ],
    # Not the files, which each process makes for itself.
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_each_kind_of_bad_file_is_reported_with_its_name(first: bytes, second: bytes | None, told: str):
    found = problems(first, second)
    assert [sentence for sentence in found if told in sentence], found
    assert all("PRIVATE KEY-----\nMI" not in sentence and len(sentence) < 400 for sentence in found)
    assert len(found) <= 2


def test_an_intermediate_certificate_that_has_expired_is_reported():
    old = certificate(key=new_key(9), subject="ca", issuer="root", names=(), begin=NOW - 9 * DAY, end=NOW - DAY)
    assert problems(pem(GOOD, old)) == [
        f"shop.pem: the certificate of CN=ca in its chain expired on {NOW - DAY:%Y-%m-%d %H:%M} UTC: get a new one"
    ]


def test_a_signature_with_sha_1_is_reported(tmp_path: Path):
    """OpenSSL makes such ones still; the library does not."""
    commands = [
        "openssl req -x509 -newkey rsa:2048 -nodes -days 9 -subj /CN=ca -keyout ca.key -out ca.pem",
        "openssl req -new -newkey rsa:2048 -nodes -subj /CN=shop.example -addext subjectAltName=DNS:shop.example -keyout k -out r",
        "openssl x509 -req -in r -CA ca.pem -CAkey ca.key -sha1 -days 5 -copy_extensions copy -out c",
    ]
    for command in commands:
        done = subprocess.run(command.split(), cwd=tmp_path, capture_output=True, text=True, check=False)
        if done.returncode and "x509" in command and "-sha1" in command:
            pytest.skip(f"this OpenSSL makes none: {done.stderr}")
        assert done.returncode == 0, done.stderr
    told = problems((tmp_path / "c").read_bytes(), (tmp_path / "k").read_bytes(), "shop.example")
    # The clock has gone on since the time that the others are compared with.
    assert [item for item in told if "not valid before" not in item] == [
        "shop.pem: the certificate is signed with SHA1, which clients refuse: get a new one"
    ]


@pytest.mark.parametrize(
    ("borne", "asked", "missing"),
    [
        (("shop.example",), ("SHOP.example",), []),
        (("*.shop.example",), ("a.shop.example", "*.shop.example"), []),
        (("*.shop.example",), ("shop.example", "a.b.shop.example"), ["shop.example", "a.b.shop.example"]),
        (("shop.example", "*.shop.example"), (".shop.example",), []),
        (("shop.example",), (".shop.example",), [".shop.example"]),
        (("shop.example",), ("*.shop.example",), ["*.shop.example"]),
        (("10.0.0.1",), ("10.0.0.1",), []),
        (("shop.example",), ("10.0.0.1", "localhost"), ["10.0.0.1", "localhost"]),
        (("xn--bcher-kva.example",), ("xn--bcher-kva.example",), []),
        ((), ("shop.example",), ["shop.example"]),
    ],
)
def test_names_that_a_certificate_is_not_for_are_reported(borne: tuple[str, ...], asked: tuple[str, ...], missing: list[str]):
    found = problems(pem(certificate(names=borne)), None, *asked)
    if missing:
        assert f"the certificate is not for {', '.join(missing)};" in found[0]
    else:
        assert found == []


def test_our_own_authority_is_never_replaced_silently():
    key, other = pem(new_key(9)), pem(new_key(2))

    def message(first: bytes | None, second: bytes | None) -> str:
        return "; ".join(authority_problems(first, second, "pki/ca.pem", "pki/ca.key"))

    assert message(None, None) == message(pem(AUTHORITY), key) == message(None, key) == ""
    assert "pki/ca.key is not the key of a CA that can be used: restore it from a copy" in message(pem(AUTHORITY), b"garbage")
    assert "pki/ca.key is not the key of a CA" in message(None, b"garbage")
    assert "pki/ca.key is not the key of pki/ca.pem" in message(pem(AUTHORITY), other)
    assert "pki/ca.pem is there, and its key pki/ca.key is not" in message(pem(AUTHORITY), None)
    assert "pki/ca.pem is not a certificate that can be read" in message(b"garbage", key)


# What the role makes of them.


def declared(expression: str, **inputs: Any) -> Any:
    return role_variable("nginx", expression, {**SERVERS, **inputs})


@pytest.fixture
def files(tmp_path: Path) -> dict[str, Any]:
    """Return inputs that name good files."""
    (tmp_path / "shop.pem").write_bytes(pem(GOOD, AUTHORITY))
    (tmp_path / "shop.key").write_bytes(pem(new_key()))
    return {
        "nginx_tls_certificate_file": str(tmp_path / "shop.pem"),
        "nginx_tls_key_file": str(tmp_path / "shop.key"),
        "nginx_server_names": ["shop.example"],
    }


def test_a_key_in_the_file_of_its_certificate_stays_a_secret(files: dict[str, Any]):
    """Whichever of the two files holds both: what is not a secret holds no key, and the secret nothing but it."""
    for both in ("nginx_tls_certificate_file", "nginx_tls_key_file"):
        Path(files[both]).write_bytes(pem(new_key(), GOOD, AUTHORITY))
    assert declared("__nginx_mistakes", **files) == []
    (service,) = declared("__nginx_services", **files)
    (secret,) = service.pop("secrets").values()
    assert "PRIVATE" not in json.dumps(service)
    assert service["config"]["server.pem"]["content"].encode() == pem(GOOD, AUTHORITY)
    assert secret["content"].encode() == pem(new_key())


def test_a_key_in_the_place_of_the_certificate_is_not_copied(files: dict[str, Any]):
    Path(files["nginx_tls_certificate_file"]).write_bytes(pem(new_key()))
    (mistake,) = declared("__nginx_mistakes", **files)
    assert "nginx_tls_certificate_file" in mistake
    assert "holds a private key and no certificate" in mistake
    (service,) = declared("__nginx_services", **files)
    assert "PRIVATE" not in json.dumps(service["config"])


@pytest.mark.parametrize(
    ("variable", "content", "told"),
    [
        ("nginx_tls_certificate_file", None, "there is no file "),
        ("nginx_tls_key_file", None, "there is no file "),
        ("nginx_tls_certificate_file", pem(GOOD, der=True), "is in DER (binary) form"),
        ("nginx_tls_key_file", pem(new_key(), password=b"x"), "is encrypted with a passphrase"),
        ("nginx_tls_key_file", b"$ANSIBLE_VAULT;1.1;AES256\n6162\n", "is encrypted with Ansible Vault and cannot be decrypted"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_the_role_names_the_variable_and_the_file(files: dict[str, Any], variable: str, content: bytes | None, told: str):
    path = Path(files[variable])
    path.unlink()
    if content is not None:
        path.write_bytes(content)
    (mistake,) = declared("__nginx_mistakes", **files)
    assert mistake.startswith(f"{variable}: ")
    assert str(path) in mistake
    assert told in mistake


def test_a_certificate_of_some_names_is_looked_at_as_the_sites_is(files: dict[str, Any], tmp_path: Path):
    """Each is good for its names alone, and a problem names the member of the input and the file."""
    own = tmp_path / "docs.pem"
    own.write_bytes(pem(new_key(), certificate(names=("docs.example", "old.example"))))
    inputs = {
        **files,
        "nginx_server_names": ["shop.example", "docs.example"],
        "nginx_redirects": [{"from": "old.example", "to": "docs.example"}],
        "nginx_certificates": [{"names": ["DOCS.example", "old.example"], "certificate": str(own), "key": str(own)}],
    }
    assert declared("__nginx_mistakes", **inputs) == []
    (service,) = declared("__nginx_services", **inputs)
    assert "PRIVATE" not in json.dumps(service["config"])
    [mistake] = declared("__nginx_mistakes", **{**inputs, "nginx_certificates": []})
    assert mistake.startswith("nginx_tls_certificate_file: ")
    assert "is not for docs.example, old.example;" in mistake
    own.write_bytes(pem(new_key(2), certificate(names=("docs.example",), end=NOW - DAY)))
    mistakes = declared("__nginx_mistakes", **inputs)
    for which, told in (("certificate", "expired"), ("certificate", "is not for old.example;"), ("key", "is not the key of")):
        assert any(text.startswith(f"nginx_certificates[0].{which}: {own}") and told in text for text in mistakes), mistakes
    own.unlink()
    assert len([text for text in declared("__nginx_mistakes", **inputs) if f"there is no file {own}" in text]) == 2


def test_a_folder_is_refused(files: dict[str, Any], tmp_path: Path):
    (mistake,) = declared("__nginx_mistakes", **{**files, "nginx_tls_key_file": str(tmp_path)})
    assert mistake == f"nginx_tls_key_file: {tmp_path} is a folder: name the file in it"


def test_invalid_names_are_reported_and_certificates_are_not_looked_at(files: dict[str, Any]):
    (mistake,) = declared("__nginx_mistakes", **{**files, "nginx_server_names": ["localhost; return 200 pwned"]})
    assert "nginx_server_names must hold host names" in mistake


def test_a_damaged_authority_ends_the_run_and_stays_as_it_is(tmp_path: Path, checkout: Path):
    """The remedy is a copy of the key; a new authority would be one that no client trusts."""
    folder = tmp_path / "pki"
    folder.mkdir()
    (folder / "ca.pem").write_bytes(pem(AUTHORITY))
    (folder / "ca.key").write_bytes(b"garbage")
    before = {path.name: path.read_bytes() for path in folder.iterdir()}
    (mistake,) = declared("__nginx_mistakes", nginx_tls_ca_dir=str(folder))
    assert mistake.startswith(f"nginx_tls_ca_dir: {folder}/ca.key is not the key of a CA that can be used: restore it from a copy")
    # The tasks by themselves do not replace it either.
    (checkout / "playbooks/issue.yml").write_text(
        "- hosts: one\n  gather_facts: false\n  tasks:\n"
        "    - ansible.builtin.include_role:\n        name: slipway.stack.nginx\n        tasks_from: certificate\n"
    )
    extra = json.dumps({"nginx_tls_ca_dir": str(folder), **SERVERS})
    done = ansible("ansible-playbook", "playbooks/issue.yml", "-i", "inventories/test", "-e", extra, cwd=checkout)
    assert done.returncode != 0
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == before


def test_an_authority_is_not_needed_while_its_certificate_is_good(tmp_path: Path):
    """Its key may be kept elsewhere, until a certificate is due."""
    folder = tmp_path / "pki"
    folder.mkdir()
    names = declared("__nginx_tls_alternative_names")
    skid = x509.SubjectKeyIdentifier.from_public_key(new_key(9).public_key())
    build = x509.CertificateBuilder().issuer_name(name("ca")).serial_number(1).not_valid_before(NOW - DAY).not_valid_after(NOW + 90 * DAY)
    authority = build.subject_name(name("ca")).public_key(new_key(9).public_key()).add_extension(skid, critical=False)
    borne = [x509.DNSName(item[4:]) if item.startswith("DNS:") else x509.IPAddress(ipaddress.ip_address(item[3:])) for item in names]
    own = build.subject_name(name("localhost")).public_key(new_key().public_key())
    own = own.add_extension(x509.SubjectAlternativeName(borne), critical=False)
    own = own.add_extension(x509.AuthorityKeyIdentifier.from_issuer_subject_key_identifier(skid), critical=False)
    (folder / "ca.pem").write_bytes(pem(authority.sign(new_key(9), hashes.SHA256())))
    (folder / "server.pem").write_bytes(pem(own.sign(new_key(9), hashes.SHA256())))
    (folder / "server.key").write_bytes(pem(new_key()))
    inputs = {"nginx_tls_ca_dir": str(folder)}
    assert declared("__nginx_reasons", **inputs) == []
    assert declared("__nginx_mistakes", **inputs) == []
    # A name more, and one is due.
    (mistake,) = declared("__nginx_mistakes", **inputs, nginx_server_names=["shop.example"])
    assert "and its key" in mistake
    assert declared("__nginx_reasons", **inputs, nginx_server_names=["shop.example"])
