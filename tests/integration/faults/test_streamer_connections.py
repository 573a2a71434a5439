"""Connections that end, fall silent or are refused while the streamer runs."""

from __future__ import annotations

from typing import Any

import pytest

from simulator.config import SimulatorConfig
from tests.integration.faults.matrix_streams import STREAMER
from tests.integration.faults.streaming import Stage, stage

SYMBOLS = ["BTCUSDT", "ETHBTC", "BTCUSDT.P", "ETHUSDT.P"]
SPEED = 50

# In pairs, one of each market: they do not disturb each other.
PAIRS = [
    (
        {"kind": "cut", "market": "spot"},
        {"kind": "stall", "market": "um"},
    ),
    (
        {"kind": "shutdown", "market": "spot", "grace_s": 120},
        {"kind": "cut", "market": "um"},
    ),
    (
        {"kind": "stall", "market": "spot", "duration_s": 30},  # over before it is noticed
        {"kind": "shutdown", "market": "um", "grace_s": 60},
    ),
]
REFUSALS: list[dict[str, Any]] = [
    {"kind": "refuse", "market": "spot", "duration_s": 150},
    {"kind": "refuse", "market": "um", "status": 503, "duration_s": 150},
]


def reasons(one: Stage, market: str) -> list[str]:
    """Why the market's connections ended."""
    return [
        each["reason"]
        for each in one.log
        if each["event"] == "stream_disconnected" and each["connection"].startswith(market)
    ]


def assert_told(one: Stage, kind: str) -> None:
    assert set(STREAMER[kind].events) <= set(one.events()), kind


@pytest.mark.asyncio
async def test_whatever_befalls_connections_every_minute_ends_equal_to_the_exchanges(
    database_url: str,
) -> None:
    config = SimulatorConfig(speed=SPEED, spot_symbols=("BTCUSDT", "ETHBTC"))
    async with stage(database_url, SYMBOLS, config, stale_stream_s=1.5) as one:
        for pair in PAIRS:
            await one.passes(0.3)
            one.add(*pair)
            await one.ends_right(minutes=2)
        for kind in ("cut", "stall", "shutdown"):
            assert_told(one, kind)
        assert all(hits == 1 for hits in one.hits().values()), one.hits()
        assert "no frame for 1.5 s" in reasons(one, "um")
        assert "no frame for 1.5 s" not in reasons(one, "spot")
        for market in ("spot", "um"):
            assert "the exchange announced a shutdown" in reasons(one, market)


@pytest.mark.asyncio
async def test_refused_connections_are_tried_until_one_is_taken(database_url: str) -> None:
    config = SimulatorConfig(speed=SPEED, spot_symbols=("BTCUSDT", "ETHBTC"))
    async with stage(database_url, SYMBOLS, config) as one:
        one.add(*REFUSALS, {"kind": "cut"})
        await one.passes(2.6)
        await one.ends_right(minutes=2)
        assert_told(one, "refuse")
        assert all(hits > 1 for name, hits in one.hits().items() if name != "f3"), one.hits()
        assert any("valid HTTP response" in each for each in reasons(one, "spot"))
        assert "HTTP 503 instead of a WebSocket" in reasons(one, "um")
