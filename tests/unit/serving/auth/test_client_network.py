"""Which clients count as one."""

from __future__ import annotations

import pytest

from serving.auth.client_network import UNKNOWN, network_of, trusted_hosts


@pytest.mark.parametrize(
    ("address", "name", "site"),
    [
        ("192.0.2.7", "192.0.2.7/32", "192.0.2.0/24"),
        ("::ffff:192.0.2.7", "192.0.2.7/32", "192.0.2.0/24"),
        ("2001:db8:1:2:3:4:5:6", "2001:db8:1:2::/64", "2001:db8:1::/48"),
        ("fe80::1%eth0", "fe80::/64", "fe80::/48"),
        ("", UNKNOWN, UNKNOWN),
        ("testclient", UNKNOWN, UNKNOWN),
        ("192.0.2.7:80", UNKNOWN, UNKNOWN),
        ("x" * 10_000, UNKNOWN, UNKNOWN),
    ],
)
def test_address_counts_for_its_network(address: str, name: str, site: str) -> None:
    network = network_of(address)
    assert (network.name, network.site) == (name, site)
    assert network.cidr == (None if name == UNKNOWN else name)


def test_proxies_are_recognized_on_sockets_of_both_families() -> None:
    assert trusted_hosts(["127.0.0.1", "10.0.0.0/8", "2001:db8::/32"]) == [
        "127.0.0.1/32",
        "::ffff:127.0.0.1/128",
        "10.0.0.0/8",
        "::ffff:10.0.0.0/104",
        "2001:db8::/32",
    ]
