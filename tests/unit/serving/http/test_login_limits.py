"""How often a network may try to log in."""

from __future__ import annotations

from serving.auth.client_network import network_of
from serving.http.login_limits import PER_NAME, PER_NETWORK, PER_SITE, LoginLimits

HOME = network_of("192.0.2.1")


def limits() -> LoginLimits:
    return LoginLimits(clock=lambda: 0.0)


def test_network_has_few_attempts_a_minute_whatever_the_names() -> None:
    few = limits()
    waits = [few.of_network(HOME, f"name {i}") for i in range(PER_NETWORK + 1)]
    assert waits[:-1] == [0.0] * PER_NETWORK
    assert waits[-1] > 0
    assert few.of_network(network_of("192.0.2.2"), "anna") == 0


def test_all_of_an_ipv6_network_count_as_one() -> None:
    few = limits()
    tries = [network_of(f"2001:db8::{i:x}") for i in range(100)]
    assert sum(few.of_network(one, "anna") == 0 for one in tries) == PER_NETWORK


def test_site_cannot_use_up_the_attempts_of_a_name() -> None:
    few = limits()
    allowed = 0
    for i in range(1, 250):
        network = network_of(f"192.0.2.{i}")
        if few.of_network(network, "anna") == 0:
            allowed += 1
            assert few.of_name("anna") == 0
    assert allowed == PER_NAME // 2
    assert few.of_network(network_of("198.51.100.1"), "anna") == 0
    assert few.of_name("anna") == 0


def test_site_has_a_limit_of_its_own() -> None:
    few = limits()
    tries = [(network_of(f"192.0.2.{i}"), f"name {i}") for i in range(1, 250)]
    assert sum(few.of_network(*one) == 0 for one in tries) == PER_SITE
