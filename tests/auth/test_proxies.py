"""The client behind proxies."""

from __future__ import annotations

from ipaddress import ip_network

import pytest

from zotctl.auth.proxies import TrustedProxies

PROXIES = TrustedProxies([ip_network("10.0.0.0/8"), ip_network("fd00::/8"), ip_network("::ffff:172.16.0.0/108")])


@pytest.mark.parametrize(
    ("peer", "forwarded", "forwarded_for", "client"),
    [
        ("10.0.0.1", "", "", "10.0.0.1"),
        ("10.0.0.1", "", "192.0.2.7", "192.0.2.7"),
        ("10.0.0.1", "", "6.6.6.6, 192.0.2.7", "192.0.2.7"),
        ("10.0.0.1", "", "6.6.6.6, 192.0.2.7, 10.0.0.2", "192.0.2.7"),
        ("10.0.0.1", "", "192.0.2.7, 10.0.0.2", "192.0.2.7"),
        ("10.0.0.1", "", "192.0.2.7:4711", "192.0.2.7"),
        ("10.0.0.1", "", "2001:db8::7:4711", "2001:db8::7:4711"),
        ("10.0.0.1", "", "nonsense", "10.0.0.1"),
        ("10.0.0.1", "", "192.0.2.7, ", "10.0.0.1"),
        ("10.0.0.1", "", "10.0.0.9", "10.0.0.9"),
        ("::ffff:10.0.0.1", "", "192.0.2.7", "192.0.2.7"),
        ("172.16.0.1", "", "192.0.2.7", "192.0.2.7"),
        ("::ffff:172.31.0.1", "", "192.0.2.7", "192.0.2.7"),
        ("172.32.0.1", "", "192.0.2.7", "172.32.0.1"),
        ("fd00::1", 'for="[2001:db8::7]:4711";proto=https', "", "2001:db8::7"),
        ("10.0.0.1", "for=6.6.6.6, for=192.0.2.7;by=10.0.0.1", "", "192.0.2.7"),
        ("10.0.0.1", "FOR=192.0.2.7", "", "192.0.2.7"),
        ("10.0.0.1", "proto=https", "", "10.0.0.1"),
        ("10.0.0.1", "for=_hidden", "", "10.0.0.1"),
        ("10.0.0.1", "for=6.6.6.6, proto=https", "", "10.0.0.1"),
        ("192.0.2.1", "for=6.6.6.6", "6.6.6.6", "192.0.2.1"),
        ("10.0.0.1", "for=192.0.2.7", "192.0.2.7", "192.0.2.7"),
        ("10.0.0.1", "for=6.6.6.6", "192.0.2.7", "10.0.0.1"),
    ],
)
def test_the_last_address_that_is_no_proxy(peer: str, forwarded: str, forwarded_for: str, client: str) -> None:
    assert PROXIES.client(peer, forwarded, forwarded_for) == client


def test_all_mapped_addresses_are_all_of_ipv4() -> None:
    assert "10.0.0.1" in TrustedProxies([ip_network("::ffff:0:0/96")])


def test_what_is_no_address_is_no_proxy() -> None:
    assert "" not in PROXIES and "unix" not in PROXIES and "10.0.0.1" in PROXIES and "fd00::1%eth0" in PROXIES
