"""What proxies say of the client behind them: RFC 7239 (Forwarded) and the older X-Forwarded-For.

A header is believed only from an address of `http.trusted_proxies`: any client can send one.
"""

from __future__ import annotations

from collections.abc import Sequence
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address

from zotctl.config.schema import IPNetwork


class TrustedProxies:
    """The proxies of one configuration. Thread-safe; it never changes."""

    def __init__(self, networks: Sequence[IPNetwork]) -> None:
        self._networks = tuple(map(_unmapped, networks))

    def __contains__(self, address: str) -> bool:
        parsed = _parse(address)
        return parsed is not None and any(parsed in network for network in self._networks)

    def client(self, peer: str, forwarded: str, forwarded_for: str) -> str:
        """The address of the client whose connection came from `peer`.

        `forwarded` and `forwarded_for` are the values of the headers Forwarded and X-Forwarded-For, "" if they are
        absent. Each proxy adds the address that it was called from at the end, so the last one that is no proxy is the
        client.
        What does not name an address ends the search at the proxy that passed it on. A proxy sets one of the headers
        and may pass on the other as the client wrote it: where they disagree neither is believed.
        """
        named = {self._last(peer, chain) for chain in (_forwarded(forwarded), _forwarded_for(forwarded_for)) if chain}
        return named.pop() if len(named) == 1 else peer

    def _last(self, peer: str, chain: list[str]) -> str:
        client = peer
        while client in self and chain:
            said = _parse(_without_port(chain.pop()))
            if said is None:
                break
            client = str(said)
        return client


def _forwarded_for(value: str) -> list[str]:
    return [address.strip() for address in value.split(",")] if value else []


def _forwarded(value: str) -> list[str]:
    """The `for` of each element. One without it is an unknown client."""
    found: list[str] = []
    if not value:
        return found
    for element in value.split(","):
        pairs = (pair.strip().partition("=") for pair in element.split(";"))
        found.append(next((value.strip('" ') for name, _, value in pairs if name.strip().lower() == "for"), "unknown"))
    return found


def _without_port(address: str) -> str:
    if address.startswith("["):
        return address[1:].partition("]")[0]
    host, colon, port = address.rpartition(":")
    return host if colon and port.isdigit() and ":" not in host else address


def _unmapped(network: IPNetwork) -> IPNetwork:
    """The IPv4 network of one that is mapped into IPv6, since addresses are compared as IPv4 (`_parse`)."""
    if not isinstance(network, IPv6Network) or network.prefixlen < 96:
        return network
    mapped = network.network_address.ipv4_mapped
    return IPv4Network((mapped, network.prefixlen - 96)) if mapped is not None else network


def without_mapping(address: str) -> str:
    """The IPv4 address of a client whose socket is one of IPv6 ("::ffff:192.0.2.1", RFC 4291, section 2.5.5.2)."""
    return address.removeprefix("::ffff:") if "." in address else address


def _parse(address: str) -> IPv4Address | IPv6Address | None:
    try:
        parsed = ip_address(address.partition("%")[0])
    except ValueError:
        return None
    mapped = parsed.ipv4_mapped if isinstance(parsed, IPv6Address) else None
    return mapped or parsed
