"""One running exchange for all tests of a module, made of the module's `CONFIG`."""

from __future__ import annotations

from collections.abc import Iterator

import httpx
import pytest

from simulator.server import ExchangeThread


@pytest.fixture(scope="module")
def running(request: pytest.FixtureRequest) -> Iterator[ExchangeThread]:
    """The module's exchange."""
    with ExchangeThread(request.module.CONFIG) as exchange:
        yield exchange


@pytest.fixture(scope="module")
def client(running: ExchangeThread) -> Iterator[httpx.Client]:
    """A client of REST, dumps and the control API, which share an address."""
    with httpx.Client(base_url=running.spot_rest_url, timeout=60) as opened:
        yield opened


@pytest.fixture
def exchange(running: ExchangeThread) -> Iterator[ExchangeThread]:
    """The module's exchange; fault rules end with the test."""
    yield running
    running.rest_faults.clear()
    running.dump_faults.clear()
