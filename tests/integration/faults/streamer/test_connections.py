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
        {"kind": "shutdown", "market": "spot", "grace_s": 150},
        {"kind": "cut", "market": "um"},
    ),
    (
        {"kind": "stall", "market": "spot", "duration_s": 30},  # over before it is noticed
        {"kind": "shutdown", "market": "um", "grace_s": 150},
    ),
]
REFUSALS: list[dict[str, Any]] = [
    {"kind": "refuse", "market": "spot", "duration_s": 150},
    {"kind": "refuse", "market": "um", "status": 503, "duration_s": 150},
]


def reasons(one: Stage, market: str) -> list[str]:
    """Why the market's connections ended or were succeeded."""
    return [
        each["reason"]
        for each in one.log
        if each["event"] in ("stream_disconnected", "stream_rotated")
        and each["connection"].startswith(market)
    ]


def has_events(one: Stage, kind: str) -> bool:
    return set(STREAMER[kind].events) <= set(one.events())


@pytest.mark.asyncio
async def test_every_minute_equals_the_exchange_after_connection_faults(
    database_url: str,
) -> None:
    config = SimulatorConfig(speed=SPEED, spot_symbols=("BTCUSDT", "ETHBTC"))
    async with stage(database_url, SYMBOLS, config, stale_stream_s=2) as one:
        for pair in PAIRS:
            await one.let_pass(0.3)
            one.add(*pair)
            await one.assert_equals_exchange(minutes=2)
        for kind in ("cut", "stall", "shutdown"):
            await one.until(lambda kind=kind: has_events(one, kind), f"events of {kind}")
        assert all(hits == 1 for hits in one.hits().values()), one.hits()
        assert "no frame for 2 s" in reasons(one, "um")
        assert "no frame for 2 s" not in reasons(one, "spot")
        rotated = [each for each in one.log if each["event"] == "stream_rotated"]
        assert {each["connection"] for each in rotated} == {"spot-1", "um-1"}
        assert {each["reason"] for each in rotated} == {"the exchange announced a shutdown"}


@pytest.mark.asyncio
async def test_refused_connections_are_retried_until_accepted(database_url: str) -> None:
    config = SimulatorConfig(speed=SPEED, spot_symbols=("BTCUSDT", "ETHBTC"))
    async with stage(database_url, SYMBOLS, config) as one:
        one.add(*REFUSALS, {"kind": "cut"})
        await one.let_pass(2.6)
        await one.assert_equals_exchange(minutes=2)
        await one.until(lambda: has_events(one, "refuse"), "events of refuse")
        assert all(hits > 1 for name, hits in one.hits().items() if name != "f3"), one.hits()
        assert any("valid HTTP response" in each for each in reasons(one, "spot"))
        assert "HTTP 503 instead of a WebSocket" in reasons(one, "um")
