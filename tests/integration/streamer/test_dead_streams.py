"""Subscriptions that the exchange has lost: it acknowledged them and sends nothing."""

from __future__ import annotations

import asyncio

import pytest

from include.binance.streams.session import StreamSession
from include.domain.timeframes import MINUTE_US, minute_of
from simulator.config import SimulatorConfig
from simulator.server import Exchange
from streamer.health.states import SymbolState
from tests.integration.streamer.harness import (
    assert_equal_to_the_exchange,
    minutes_of,
    settings_for,
    streaming,
    wait_for_rows,
)

SYMBOLS = ["BTCUSDT", "ETHBTC"]


def lose(exchange: Exchange, stream: str) -> None:
    """The present connections get this stream no more."""
    for connection in exchange.stream_servers["spot"].connections:
        exchange.stream_servers["spot"].hub.unsubscribe(connection, [stream])


@pytest.mark.parametrize(
    ("stream", "is_heard"),
    [("kline_1m", True), pytest.param("aggTrade", False, marks=pytest.mark.long)],
)
async def test_dead_stream_is_revived_without_a_gap_for_others(
    database_url: str, monkeypatch: pytest.MonkeyPatch, stream: str, is_heard: bool
) -> None:
    if not is_heard:  # the exchange acknowledges that as well, and nothing comes
        monkeypatch.setattr(StreamSession, "resubscribe", lambda _session, _names: None)
    async with (
        Exchange(SimulatorConfig(speed=30)) as exchange,
        streaming(settings_for(exchange, database_url), *SYMBOLS) as streamer,
    ):
        await wait_for_rows(
            database_url, lambda rows: all(minutes_of(rows, one) for one in SYMBOLS)
        )
        states, (feed,) = streamer.telemetry.states, streamer.telemetry.feeds
        lose(exchange, f"ethbtc@{stream}")
        async with asyncio.timeout(60):
            while states.of("ETHBTC") is not SymbolState.DEAD:
                await asyncio.sleep(0.01)
            assert states.of("BTCUSDT") is SymbolState.LIVE
            if not is_heard:
                while not feed.connection.rotations:
                    await asyncio.sleep(0.01)
            while states.of("ETHBTC") is not SymbolState.LIVE:
                await asyncio.sleep(0.01)
        goal_us = minute_of(exchange.clock.now_us()) + MINUTE_US
        rows = await wait_for_rows(
            database_url,
            lambda rows: all(
                minutes_of(rows, one)[-1] >= goal_us
                and all(rows[one, at]["status"] == "verified" for at in minutes_of(rows, one))
                for one in SYMBOLS
            ),
        )
        await assert_equal_to_the_exchange(exchange, rows, SYMBOLS)
        assert feed.connection.rotations == (0 if is_heard else 1)
        assert feed.connection.reconnects == 0
