"""Fixtures for the tests of streams: exchanges to connect to."""

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
async def live() -> AsyncIterator[Exchange]:
    """An exchange that lives by the wall clock."""
    async with Exchange() as exchange:
        yield exchange
