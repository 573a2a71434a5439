"""Connections that are succeeded before they end: nothing above them notices."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

import httpx
import pytest

from include.domain.timeframes import MINUTE_US, minute_of
from simulator.config import SimulatorConfig
from simulator.server import Exchange
from streamer.app import Streamer
from streamer.candles.aggregation import SymbolAggregator
from tests.integration.streamer.harness import (
    assert_equal_to_the_exchange,
    minutes_of,
    rows_to,
    settings_for,
    streaming,
    verified_to,
    wait_for_rows,
)

SYMBOLS = ["BTCUSDT", "ETHBTC", "COSUSDT", "BTCUSDT.P", "ETHUSDT.P"]
SPEED = 40


class Noticed:
    """Disconnects, missing trades and requests to REST."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.disconnected = 0
        self.holes = 0
        self.asked: list[tuple[str, str]] = []
        disconnected, rest_needed = SymbolAggregator.disconnected, Streamer.rest_needed
        hole = Streamer.trades_missing

        def note_disconnected(one: SymbolAggregator) -> None:
            self.disconnected += 1
            disconnected(one)

        def note_ask(streamer: Streamer, symbol: str, first: int, last: int, cause: str) -> None:
            self.asked.append((symbol, cause))
            rest_needed(streamer, symbol, first, last, cause)

        def note_gap(streamer: Streamer, *what: object) -> None:
            self.holes += 1
            hole(streamer, *what)  # type: ignore[arg-type]

        monkeypatch.setattr(SymbolAggregator, "disconnected", note_disconnected)
        monkeypatch.setattr(Streamer, "rest_needed", note_ask)
        monkeypatch.setattr(Streamer, "trades_missing", note_gap)


@pytest.fixture
def noticed(monkeypatch: pytest.MonkeyPatch) -> Noticed:
    return Noticed(monkeypatch)


def rotations(streamer: Streamer) -> list[int]:
    return [feed.connection.rotations for feed in streamer.telemetry.feeds]


async def holds(condition: Callable[[], bool], *, timeout_s: float = 60) -> None:
    async with asyncio.timeout(timeout_s):
        while not condition():
            await asyncio.sleep(0.02)


async def assert_unnoticed(
    noticed: Noticed, exchange: Exchange, streamer: Streamer, database_url: str
) -> None:
    """All minutes up to now are stored and verified, and no disconnect was noticed."""
    goal_us = minute_of(exchange.clock.now_us())
    rows = await wait_for_rows(database_url, lambda rows: verified_to(rows, goal_us, SYMBOLS))
    await assert_equal_to_the_exchange(exchange, rows_to(rows, goal_us), SYMBOLS)
    assert (noticed.disconnected, noticed.holes, noticed.asked) == (0, 0, [])
    assert [feed.connection.reconnects for feed in streamer.telemetry.feeds] == [0, 0]


async def all_equal(database_url: str, exchange: Exchange, noticed: Noticed) -> None:
    """The start is over: its minutes are stored, and what it asked of REST is forgotten."""
    goal_us = minute_of(exchange.clock.now_us()) + MINUTE_US
    await wait_for_rows(
        database_url,
        lambda rows: all((minutes_of(rows, one) or [0])[-1] >= goal_us for one in SYMBOLS),
    )
    noticed.asked.clear()


@pytest.mark.long
async def test_old_connections_are_rotated_without_a_gap(
    database_url: str, noticed: Noticed
) -> None:
    config = SimulatorConfig(speed=SPEED, connection_life_s=12 * SPEED)
    async with Exchange(config) as exchange:
        settings = settings_for(exchange, database_url, rotate_after_s=3)
        async with streaming(settings, *SYMBOLS) as streamer:
            await all_equal(database_url, exchange, noticed)
            await holds(lambda: min(rotations(streamer)) >= 4)
            await assert_unnoticed(noticed, exchange, streamer, database_url)
            times = [feed.connection._rotate_at_s for feed in streamer.telemetry.feeds]
            assert times[0] != times[1]  # jitter


@pytest.mark.parametrize("market", ["spot", pytest.param("um", marks=pytest.mark.long)])
async def test_socket_is_replaced_before_an_announced_shutdown(
    database_url: str, noticed: Noticed, market: str
) -> None:
    async with (
        Exchange(SimulatorConfig(speed=SPEED)) as exchange,
        streaming(settings_for(exchange, database_url), *SYMBOLS) as streamer,
    ):
        await all_equal(database_url, exchange, noticed)
        async with httpx.AsyncClient(base_url=exchange.control_url) as control:
            answer = await control.post("/sim/shutdown", params={"market": market, "seconds": 10})
            answer.raise_for_status()
        feed = streamer.telemetry.feeds[0 if market == "spot" else 1]
        await holds(lambda: feed.connection.rotations == 1, timeout_s=9)
        await assert_unnoticed(noticed, exchange, streamer, database_url)
        assert sorted(rotations(streamer)) == [0, 1]


async def test_failed_rotation_is_retried_while_the_old_socket_serves(
    database_url: str, noticed: Noticed
) -> None:
    async with (
        Exchange(SimulatorConfig(speed=SPEED)) as exchange,
        streaming(settings_for(exchange, database_url), *SYMBOLS) as streamer,
    ):
        await all_equal(database_url, exchange, noticed)
        exchange.faults.add([{"kind": "refuse", "market": "spot", "duration_s": 60}])
        connection = streamer.telemetry.feeds[0].connection
        connection.rotate("as a test")
        await holds(lambda: connection.rotations == 1)
        assert connection._next_rotation_s > 0  # it was put off at least once
        await assert_unnoticed(noticed, exchange, streamer, database_url)
