"""From which network a gRPC call comes."""

from __future__ import annotations

import pytest

from serving.auth.client_network import network_of
from serving.grpc.call_limit import address_of


@pytest.mark.parametrize(
    ("peer", "network"),
    [
        ("ipv4:192.0.2.1:40000", "192.0.2.1/32"),
        ("ipv6:[2001:db8::1]:40000", "2001:db8::/64"),
        ("ipv6:%5B2001:db8::1%5D:40000", "2001:db8::/64"),
        ("ipv6:%5B::ffff:192.0.2.1%5D:40000", "192.0.2.1/32"),
        ("unix:/run/candelabra.sock", "unknown"),
        ("", "unknown"),
    ],
)
def test_calls_count_for_the_network_of_their_peer(peer: str, network: str) -> None:
    assert network_of(address_of(peer)).name == network
