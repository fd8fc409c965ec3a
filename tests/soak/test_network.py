"""Networks of soaks do not disturb each other."""

from __future__ import annotations

from contextlib import closing

from tests import tools
from tests.soak import network
from tests.soak.network import Network


def test_each_has_addresses_of_its_own() -> None:
    if not network.possible():
        tools.missing("root, ip, iptables and network namespaces")
    with closing(Network(2)) as one, closing(Network(2)) as other:
        addresses = [made.address(number) for made in (one, other) for number in range(2)]
        assert len({one.host, other.host, *addresses}) == 6
