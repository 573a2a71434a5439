"""Exchanges for the tests of streams."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest

from simulator.server import Exchange
from tests.integration.simulator.streams.sockets import FAST


@pytest.fixture
async def fast() -> AsyncIterator[Exchange]:
    """An exchange whose minutes take 0.3 seconds."""
    async with Exchange(FAST) as exchange:
        yield exchange


@pytest.fixture
async def pinging(fast: Exchange) -> Exchange:
    """An exchange that pings every 0.15 seconds and waits 0.6 seconds for pongs."""
    fast.stream_servers["spot"].min_ping_interval_s = 0.15
    return fast


@pytest.fixture
async def live() -> AsyncIterator[Exchange]:
    """An exchange that runs at wall-clock speed."""
    async with Exchange() as exchange:
        yield exchange
