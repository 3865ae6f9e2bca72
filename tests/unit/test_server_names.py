# Copyright (c) The Slipway authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Which name of a site answers for a host, and redirects and certificates that contradict the names."""

from __future__ import annotations

import pytest

from ansible_collections.slipway.stack.plugins.plugin_utils.server_names import (
    certificate_mistakes,
    names_of_certificates,
    redirect_mistakes,
    served_by,
)


@pytest.mark.parametrize(
    ("host", "names", "expected"),
    [
        ("a.example", ["*.example", "a.example", "~^a"], "a.example"),
        ("example", [".example"], ".example"),
        ("x.y.example", [".example", "*.y.example"], "*.y.example"),
        ("example", ["*.example"], ""),
        ("notexample", [".example"], ""),
        ("www.example", ["www.*", "*.example"], "*.example"),
        ("www.other", ["www.*"], "www.*"),
        ("a.example", ["~.*"], ""),
    ],
)
def test_the_name_that_nginx_chooses_for_a_host(host: str, names: list[str], expected: str):
    assert served_by(host, names) == expected


@pytest.mark.parametrize(
    ("names", "redirects"),
    [
        (["shop.example"], [("www.shop.example", "shop.example")]),
        (["www.shop.example"], [("shop.example", "www.shop.example"), ("*.shop.example", "www.shop.example")]),
        ([".shop.example"], [("www.shop.example", "shop.example")]),
        (["a.example", "b.example"], [("old.example", "b.example"), ("older.example", "b.example")]),
    ],
)
def test_redirects_that_lead_to_a_name_that_serves(names: list[str], redirects: list[tuple[str, str]]):
    assert list(redirect_mistakes(names, redirects)) == []


@pytest.mark.parametrize(
    ("redirects", "said"),
    [
        ([("shop.example", "docs.example")], "redirects shop.example, which nginx_server_names has too"),
        ([(".shop.example", "docs.example")], "redirects .shop.example, which nginx_server_names has too"),
        ([("a.example", "shop.example"), ("a.example", "docs.example")], "redirects a.example twice"),
        ([("*.a.example", "shop.example"), (".a.example", "docs.example")], "redirects .a.example twice"),
        ([("a.example", "elsewhere.example")], "redirects a.example to elsewhere.example, which does not serve"),
        ([("a.example", "a.example")], "redirects a.example to a.example, which is redirected itself"),
        ([("*.example", "new.example")], "redirects *.example to new.example, which is redirected itself"),
        ([("a.example", "b.example"), ("b.example", "shop.example")], "redirects a.example to b.example, which is redirected itself"),
    ],
)
def test_redirects_that_reach_no_name_that_serves(redirects: list[tuple[str, str]], said: str):
    found = list(redirect_mistakes(["shop.example", "docs.example"], redirects))
    assert [text.startswith(said) for text in found] == [True], found


@pytest.mark.parametrize(
    ("names", "certificates", "shown", "expected"),
    [
        (["shop.example", "docs.example"], [], "shop.example", []),
        (["shop.example", "docs.example", "a.example"], [["docs.example", "a.example"]], "shop.example", ["docs.example"]),
        # The name of the site has a certificate of its own, so the one of all others is to be looked at.
        (["shop.example", "docs.example"], [["shop.example"]], "shop.example", ["docs.example"]),
        (["shop.example", "docs.example"], [["docs.example"], ["shop.example"]], "shop.example", ["docs.example"]),
        (["shop.example", "*.shop.example"], [["*.shop.example"]], "shop.example", ["www.shop.example"]),
        (["shop.example", ".docs.example"], [[".docs.example"]], "shop.example", ["docs.example"]),
        # A wildcard's first example is a name with another certificate.
        (["www.shop.example", "*.shop.example"], [["*.shop.example"]], "www.shop.example", ["slipway-probe.shop.example"]),
        (["shop.example", "~^docs"], [["~^docs"]], "shop.example", []),
        (["~^docs", "shop.example"], [], "", ["shop.example"]),
        ([], [], "", []),
    ],
)
def test_each_certificate_has_a_name_to_look_at_it_by(names: list[str], certificates: list[list[str]], shown: str, expected: list[str]):
    assert names_of_certificates(names, certificates, shown) == expected


def test_a_name_has_one_certificate_and_is_one_of_the_site():
    assert list(certificate_mistakes(["a", "b"], [["a", "a"], ["b"]])) == []
    [twice] = certificate_mistakes(["a", "b"], [["a"], ["b", "a"]])
    assert twice.startswith("has two certificates for a:")
    [unknown] = certificate_mistakes(["a"], [["c"]])
    assert unknown.startswith("has a certificate for c, which neither")
