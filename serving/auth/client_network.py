"""The network that a client's requests count for."""

from __future__ import annotations

import ipaddress
from collections.abc import Iterable
from dataclasses import dataclass

UNKNOWN = "unknown"
"""All clients without an IP address count together."""


@dataclass(frozen=True, slots=True)
class ClientNetwork:
    """Where a client is.

    Attributes:
        name: the IPv4 address, or the /64 of an IPv6 address: one client may use all of a /64.
        site: the /24 of an IPv4 address, the /48 of an IPv6 address.
    """

    name: str
    site: str

    @property
    def cidr(self) -> str | None:
        """The network for PostgreSQL; None if it is unknown."""
        return None if self.name == UNKNOWN else self.name


def network_of(address: str) -> ClientNetwork:
    """Return the network of a client's address; never raises."""
    try:
        found = ipaddress.ip_address(address.partition("%")[0])
    except ValueError:
        return ClientNetwork(UNKNOWN, UNKNOWN)
    if found.version == 6 and found.ipv4_mapped is not None:
        found = found.ipv4_mapped
    name, site = (32, 24) if found.version == 4 else (64, 48)
    return ClientNetwork(
        *(str(ipaddress.ip_network((found, n), strict=False)) for n in (name, site))
    )


def trusted_hosts(proxies: Iterable[str]) -> list[str]:
    """Return the addresses and networks of proxies as a server with IPv6 sockets sees them."""
    found = []
    for one in proxies:
        network = ipaddress.ip_network(one, strict=False)
        found.append(str(network))
        if network.version == 4:
            found.append(f"::ffff:{network.network_address}/{96 + network.prefixlen}")
    return found
