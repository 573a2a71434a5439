"""Limits how often a network, and the whole world, may try to log in."""

from __future__ import annotations

import time
from collections.abc import Callable

from serving.auth.client_network import ClientNetwork
from serving.http.limits import RateLimiter

PER_NETWORK = 10
"""Logins a minute from an IPv4 address or the /64 of an IPv6 address."""
PER_SITE = 60
"""Logins a minute from the /24 of an IPv4 address or the /48 of an IPv6 address."""
PER_SITE_AND_NAME = 15
"""Of one name from one site: half of what all sites have, so that no site uses it up."""
PER_NAME = 30
"""Of one name from anywhere: prevents guessing from many addresses. Networks from which the account
has logged in before are exempt, so that strangers cannot lock a user out.
"""


class LoginLimits:
    """Counts login attempts; one for an application.

    Args:
        clock: in seconds.
    """

    def __init__(self, *, clock: Callable[[], float] = time.monotonic) -> None:
        self._networks = RateLimiter(PER_NETWORK, clock=clock)
        self._sites = RateLimiter(PER_SITE, clock=clock)
        self._names_of_sites = RateLimiter(PER_SITE_AND_NAME, clock=clock)
        self._names = RateLimiter(PER_NAME, clock=clock)

    def of_network(self, network: ClientNetwork, name: str) -> float:
        """Count an attempt; return the seconds to wait, 0 if it is allowed."""
        return (
            _wait_s(self._networks, network.name)
            or _wait_s(self._sites, network.site)
            or _wait_s(self._names_of_sites, f"{network.site} {name}")
        )

    def of_name(self, name: str) -> float:
        """Count an attempt; return the seconds to wait, 0 if it is allowed."""
        return _wait_s(self._names, name)


def _wait_s(limit: RateLimiter, client: str) -> float:
    may, _, wait_s = limit.take(client)
    return 0.0 if may else wait_s
