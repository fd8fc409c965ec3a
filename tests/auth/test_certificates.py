"""Names in client certificates."""

from __future__ import annotations

from typing import Any

import pytest

from zotctl.auth.certificates import name_in
from zotctl.auth.logins import Logins
from zotctl.config import AuthConfig, CertificateConfig, HttpConfig, TlsConfig
from zotctl.errors import Unauthorized

CERTIFICATE: dict[str, Any] = {
    "subject": (
        (("countryName", "DE"),),
        (("organizationName", "Example, Inc."),),
        (("organizationalUnitName", "one"),),
        (("organizationalUnitName", "two"),),
        (("commonName", "first"),),
        (("commonName", "ann"),),
    ),
    "subjectAltName": (
        ("DNS", "a.example"), ("URI", "spiffe://example.org/workload/build"), ("email", "ann@example.org"),
        ("DNS", "b.example"), ("IP Address", "127.0.0.1"),
    ),
}  # fmt: skip


@pytest.mark.parametrize(
    ("config", "name"),
    [
        (CertificateConfig(), "ann"),
        (CertificateConfig(("Subject",)), "CN=first+CN=ann,OU=one+OU=two,O=Example\\, Inc.,C=DE"),
        (CertificateConfig(("Email",)), "ann@example.org"),
        (CertificateConfig(("Email",), email_san_index=1), None),
        (CertificateConfig(("DNSName",), dns_san_index=1), "b.example"),
        (CertificateConfig(("URI",)), "spiffe://example.org/workload/build"),
        (CertificateConfig(("URI",), "workload/(.*)"), "build"),
        (CertificateConfig(("URI",), "workload/.*"), None),
        (CertificateConfig(("URI",), "other/(.*)"), None),
        (CertificateConfig(("URI", "CommonName"), "other/(.*)"), "ann"),
    ],
)
def test_the_first_attribute_that_is_there(config: CertificateConfig, name: str | None) -> None:
    assert name_in(CERTIFICATE, config) == name


def test_a_certificate_without_names() -> None:
    for attribute in ("CommonName", "Subject", "Email", "URI", "DNSName"):
        assert name_in({}, CertificateConfig((attribute,))) is None


def test_a_certificate_that_names_nobody_is_a_wrong_login() -> None:
    """Its owner meant to log in, and is told why that fails; who has none may be anonymous."""
    tls = TlsConfig("cert.pem", "key.pem", client_ca="ca.pem")
    logins = Logins(HttpConfig(tls=tls, auth=AuthConfig(mtls=CertificateConfig(("Email",), email_san_index=1))))
    assert logins.identify("", None, "") == logins.identify("", {}, "") == logins.anonymous
    with pytest.raises(Unauthorized, match="names no user"):
        logins.identify("", CERTIFICATE, "")


def test_an_attribute_without_a_short_name_makes_no_subject() -> None:
    subject = ((("commonName", "ann"),), (("userId", "7"),))
    assert name_in({"subject": subject}, CertificateConfig(("Subject",))) is None


@pytest.mark.parametrize(("value", "written"), [(" a ", "\\ a\\ "), ("#a", "\\#a"), ("a+b=c", "a\\+b=c"), (" ", "\\ ")])
def test_special_characters_are_escaped(value: str, written: str) -> None:
    assert name_in({"subject": ((("commonName", value),),)}, CertificateConfig(("Subject",))) == f"CN={written}"
