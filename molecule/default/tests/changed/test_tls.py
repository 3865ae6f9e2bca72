"""What testssl.sh finds at the front door."""

from __future__ import annotations

import json
from typing import Any

import pytest
from slipway_lab import Lab

pytestmark = pytest.mark.extended("tls")
#: From the least to the most severe; below these are OK and INFO.
SEVERE = ("MEDIUM", "HIGH", "CRITICAL", "FATAL")
#: Findings that follow from the lab, each with why.
OF_THE_LAB = {
    "cert_revocation": "a private authority has neither a list of revoked certificates nor OCSP",
    "engine_problem": "the host's OpenSSL has no ciphers of GOST to ask with",
    "sessionresumption_ticket": "its client ends before a ticket of TLS 1.3 has come, where the machine is busy, and fails without it",
}


@pytest.fixture(scope="module")
def findings(lab: Lab) -> list[dict[str, Any]]:
    """All that testssl.sh finds, asked on the balancer itself, whose authority it trusts."""
    host = lab.balancer
    host.need("testssl.sh", "bsdextrautils", "dnsutils", "procps")
    host.run(f"cat >/root/ca.pem <<'END'\n{lab.ca.read_text()}END")
    options = "--quiet --color 0 --warnings off --ip 127.0.0.1 --add-ca /root/ca.pem --jsonfile /root/testssl.json --overwrite"
    # Its exit status counts findings.
    host.run(f"testssl {options} https://localhost:443 >/root/testssl.log 2>&1", check=False)
    found: list[dict[str, Any]] = json.loads(host.run("cat /root/testssl.json"))
    host.run("rm /root/testssl.json /root/testssl.log /root/ca.pem")
    return found


def test_nothing_that_testssl_finds_is_above_low(findings: list[dict[str, Any]]):
    assert len([item for item in findings if item["severity"] == "OK"]) > 40, "it looked"
    wrong = [item for item in findings if item["severity"] in (*SEVERE, "WARN") and item["id"] not in OF_THE_LAB]
    assert not wrong, json.dumps(wrong, indent=1)
