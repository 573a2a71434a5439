"""Connections that come and go with symbols; feeds are played here."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest
from structlog.testing import CapturingLogger

from include.domain.instruments import Market, exchange_symbol_of
from streamer.candles import connection_pool as module
from streamer.candles.connection_pool import ConnectionPool


class Aggregator:
    def __init__(self, symbol: str) -> None:
        self.symbol = symbol


class Connection:
    """Runs until it is cancelled, or fails when told to."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.is_running = False
        self.failure: asyncio.Future[None] | None = None

    async def run(self) -> None:
        self.is_running = True
        self.failure = asyncio.get_running_loop().create_future()
        try:
            await self.failure
        finally:
            self.is_running = False


class Feed:
    def __init__(self, market: Market, name: str, aggregators: dict[str, Aggregator]) -> None:
        self.market = market
        self.connection = Connection(name)
        self.carried = dict(aggregators)
        self.over = 0
        """Calls of ``on_clock`` that find a minute to close."""
        self.now_us = 0

    def on_clock(self) -> bool:
        self.over -= 1
        return self.over >= 0

    @property
    def aggregators(self) -> list[Aggregator]:
        return list(self.carried.values())

    def add(self, aggregators: dict[str, Aggregator]) -> None:
        self.carried.update(aggregators)

    def remove(self, exchange_symbol: str) -> None:
        del self.carried[exchange_symbol]


def fleet_of(max_streams: int = 6) -> ConnectionPool:
    make_feed: Any = Feed
    return ConnectionPool(make_feed, streams_per_symbol=2, max_streams=max_streams)


def add(fleet: ConnectionPool, *symbols: str, market: Market = Market.SPOT) -> None:
    aggregators: Any = {exchange_symbol_of(symbol): Aggregator(symbol) for symbol in symbols}
    fleet.add(market, aggregators)


def carried(fleet: ConnectionPool) -> dict[str, list[str]]:
    return {feed.connection.name: [one.symbol for one in feed.aggregators] for feed in fleet.feeds}


async def until(holds: Any) -> None:
    async with asyncio.timeout(30):
        while not holds():
            await asyncio.sleep(0.001)


@asynccontextmanager
async def running(fleet: ConnectionPool) -> AsyncIterator[asyncio.Task[None]]:
    task = asyncio.create_task(fleet.run())
    try:
        yield task
    finally:
        task.cancel()
        await asyncio.wait({task}, timeout=5)


def test_symbols_fill_connections_up_and_new_ones_are_made_for_the_rest() -> None:
    fleet = fleet_of()
    add(fleet, *"ABCD")
    assert carried(fleet) == {"spot-1": ["A", "B", "C"], "spot-2": ["D"]}
    add(fleet, *"EFG")
    assert carried(fleet) == {"spot-1": [*"ABC"], "spot-2": [*"DEF"], "spot-3": ["G"]}
    assert fleet.feed_of("E") is fleet.feeds[1]


def test_markets_do_not_share_connections() -> None:
    fleet = fleet_of()
    add(fleet, "A")
    add(fleet, "A.P", "B.P", market=Market.UM)
    assert carried(fleet) == {"spot-1": ["A"], "um-1": ["A.P", "B.P"]}


def test_a_removed_symbol_leaves_room_and_an_empty_connection_is_given_up() -> None:
    fleet = fleet_of()
    add(fleet, *"ABCD")
    fleet.remove("B")
    fleet.remove("D")
    assert carried(fleet) == {"spot-1": ["A", "C"]}
    add(fleet, *"EF")
    assert carried(fleet) == {"spot-1": ["A", "C", "E"], "spot-3": ["F"]}  # names are not reused
    with pytest.raises(KeyError):
        fleet.feed_of("B")


def test_the_exchanges_clock_goes_on_where_the_last_feed_was_given_up() -> None:
    fleet = fleet_of()
    assert fleet.now_us == 0
    add(fleet, "A")
    add(fleet, "A.P", market=Market.UM)
    feeds: Any = list(fleet.feeds)
    for feed, now_us in zip(feeds, (7, 9), strict=True):
        feed.now_us = now_us
    assert fleet.now_us == 9
    fleet.remove("A.P")
    assert fleet.now_us == 7  # of the feeds that are left
    fleet.remove("A")
    feeds[0].now_us = 8
    assert fleet.now_us == 8


async def test_connections_run_as_long_as_their_feeds_are_there() -> None:
    fleet = fleet_of()
    feeds: Any = fleet.feeds
    async with running(fleet):
        add(fleet, *"ABCD")
        first, second = feeds
        await until(lambda: first.connection.is_running and second.connection.is_running)
        fleet.remove("D")
        await until(lambda: not second.connection.is_running)
        assert first.connection.is_running
    assert not first.connection.is_running


async def test_a_connection_that_fails_by_a_bug_ends_the_fleet() -> None:
    fleet = fleet_of()
    feeds: Any = fleet.feeds
    add(fleet, *"AD")
    async with running(fleet) as task:
        await until(lambda: feeds[0].connection.is_running)
        feeds[0].connection.failure.set_exception(ValueError("a bug"))
        await asyncio.wait({task}, timeout=5)
        with pytest.raises(ValueError, match="a bug"):
            task.result()


async def test_connections_that_do_not_close_are_not_waited_for_without_end(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(module, "CLOSED_TIMEOUT_S", 0.01)
    log = CapturingLogger()
    monkeypatch.setattr(module, "log", log)
    fleet = fleet_of()
    feeds: Any = fleet.feeds
    add(fleet, "A")
    leave = asyncio.Event()
    connection = feeds[0].connection

    async def run() -> None:
        connection.is_running = True
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            await leave.wait()

    connection.run = run
    async with running(fleet) as task:
        await until(lambda: connection.is_running)
    assert task.done()
    assert [call.args for call in log.calls] == [("connections_not_closed",)]
    leave.set()
    await asyncio.sleep(0)


async def test_a_symbol_that_nobody_told_of_is_found_all_the_same(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(module, "POLL_INTERVAL_S", 0.01)
    fleet = fleet_of()
    feeds: Any = fleet.feeds
    async with running(fleet):
        await asyncio.sleep(0)
        feeds.append(Feed(Market.SPOT, "spot-9", {}))  # without a word
        await until(lambda: feeds[0].connection.is_running)


async def test_other_work_comes_between_the_minutes_that_are_closed() -> None:
    fleet = fleet_of()
    fleet.add(Market.SPOT, {f"X{number}": Aggregator(f"X{number}") for number in range(4)})
    assert not await fleet.close_minutes()
    left: list[int] = []
    for feed in fleet.feeds:
        feed.over = 2  # type: ignore[attr-defined]
    closing = asyncio.ensure_future(fleet.close_minutes())
    while not closing.done():
        await asyncio.sleep(0)
        left.append(sum(max(0, feed.over) for feed in fleet.feeds))  # type: ignore[attr-defined]
    assert left[:4] == [3, 2, 1, 0]
    assert await closing
