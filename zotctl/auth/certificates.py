"""The name of a user in a client certificate, by the rules of zot's `mtls`."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from zotctl.config import CertificateConfig

# RFC 4519 and RFC 4514, section 3: short names, in the order in which Go's pkix.Name writes a subject.
_ORDER = {
    "serialNumber": "SERIALNUMBER",
    "commonName": "CN",
    "postalCode": "POSTALCODE",
    "streetAddress": "STREET",
    "stateOrProvinceName": "ST",
    "localityName": "L",
    "organizationalUnitName": "OU",
    "organizationName": "O",
    "countryName": "C",
}
_SPECIAL = re.compile(r'([,+"\\<>;])')


def name_in(certificate: Mapping[str, Any], config: CertificateConfig) -> str | None:
    """The user that a verified certificate names, or None.

    `certificate` is what `ssl.SSLSocket.getpeercert` returns. The attributes of the configuration are tried in order.
    """
    for attribute in config.identity_attributes:
        if name := _attribute(certificate, attribute, config):
            return name
    return None


def _attribute(certificate: Mapping[str, Any], attribute: str, config: CertificateConfig) -> str | None:
    match attribute:
        case "CommonName":
            # Go takes the last, should there be several.
            names = [value for key, value in _subject(certificate) if key == "commonName"]
            return names[-1] if names else None
        case "Subject":
            return _distinguished_name(certificate)
        case "Email":
            return _alternative(certificate, "email", config.email_san_index)
        case "DNSName":
            return _alternative(certificate, "DNS", config.dns_san_index)
    uri = _alternative(certificate, "URI", config.uri_san_index)
    if uri is None or config.uri_san_pattern is None:
        return uri
    found = re.search(config.uri_san_pattern, uri, re.ASCII)
    return found[1] if found is not None and found.re.groups else None


def _subject(certificate: Mapping[str, Any]) -> list[tuple[str, str]]:
    return [pair for names in certificate.get("subject", ()) for pair in names]


def _alternative(certificate: Mapping[str, Any], kind: str, index: int) -> str | None:
    found = [value for name, value in certificate.get("subjectAltName", ()) if name == kind]
    return found[index] if index < len(found) else None


def _distinguished_name(certificate: Mapping[str, Any]) -> str | None:
    """RFC 2253, as Go writes it: attributes of one kind joined by a plus. None with attributes that have no short
    name there: they would be written as numbers, which `getpeercert` does not tell."""
    subject = _subject(certificate)
    if any(key not in _ORDER for key, _ in subject):
        return None
    parts = []
    for long, short in _ORDER.items():
        if values := [_escaped(value) for key, value in subject if key == long]:
            parts.append("+".join(f"{short}={value}" for value in values))
    return ",".join(parts) or None


def _escaped(value: str) -> str:
    text = _SPECIAL.sub(r"\\\1", value)
    if text.startswith((" ", "#")):
        text = f"\\{text}"
    return f"{text[:-1]}\\ " if text.endswith(" ") and len(value) > 1 else text
