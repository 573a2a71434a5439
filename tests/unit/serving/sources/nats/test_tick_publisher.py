from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from decimal import Decimal
from typing import cast

import pytest
from nats.aio.client import Client

from serving.protobuf.generated.candelabra.v1 import bus_pb2 as bus
from serving.sources.nats import tick_publisher as module
from serving.sources.nats.tick_publisher import LEASE_S, TickPublisher
from serving.sources.nats.wire import WANTED, wanted
from streamer.hub.ticks import BookTickerUpdate, TradeTick
from streamer.hub.trade_hub import BookTickerHub, TickHubs
from tests.unit.serving.sources.nats.played import PlayedClient, until
from tests.unit.streamer.watched import Clock

ONE = Decimal(1)


def trade(symbol: str, number: int) -> TradeTick:
    return TradeTick(symbol, number, ONE, ONE, number, number, number, False)


def book_ticker(symbol: str, number: int = 1) -> BookTickerUpdate:
    return BookTickerUpdate(symbol, number, "1", "1", "2", "1", None, number)


@asynccontextmanager
async def playing(
    hubs: TickHubs, clock: Clock, streamed: Callable[[], list[str]] = lambda: ["A", "B", "C"]
) -> AsyncIterator[PlayedClient]:
    client = PlayedClient()
    one = TickPublisher(hubs, streamed=streamed, clock=clock)
    task = asyncio.create_task(one.session(cast(Client, client), "a", 1))
    try:
        await until(lambda: WANTED in client.hear)
        yield client
        assert not task.done()
    finally:
        task.cancel()
        await asyncio.wait([task], timeout=10)


@pytest.fixture(autouse=True)
def _quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "GATHER_S", 0.001)
    monkeypatch.setattr(module, "WANTED_INTERVAL_S", 0.02)


async def want(
    client: PlayedClient, server: str, trades: list[str], book_tickers: list[str]
) -> None:
    await client.deliver(WANTED, wanted(server, trades, book_tickers))


def subjects(client: PlayedClient) -> list[str]:
    return [subject for subject, _ in client.said]


async def test_requested_ticks_of_streamed_symbols_are_published() -> None:
    hubs = TickHubs()
    async with playing(hubs, Clock()) as client:
        await want(client, "one", ["A", "X"], [])
        await want(client, "two", ["B"], [])
        await until(lambda: hubs.trades.wanted == {"A", "B"})
        for symbol in ("A", "B", "C"):
            hubs.trades.publish(trade(symbol, 7))
        await until(lambda: len(client.said) == 2)
        assert subjects(client) == ["trades.A", "trades.B"]
        assert bus.PublishedTrades.FromString(client.said[0][1]).trades[0].id == 7


async def test_request_ends_unless_renewed() -> None:
    hubs, clock = TickHubs(book_tickers=BookTickerHub(linger_s=0)), Clock()
    async with playing(hubs, clock) as client:
        await want(client, "one", ["A"], ["A"])
        await want(client, "two", ["A", "B"], [])
        await until(lambda: hubs.trades.wanted == {"A", "B"} and hubs.book_tickers.wanted == {"A"})
        clock.now_s += LEASE_S / 2
        await want(client, "one", ["A"], ["B"])
        clock.now_s += LEASE_S / 2
        await until(lambda: hubs.trades.wanted == {"A"} and hubs.book_tickers.wanted == {"B"})


async def test_later_server_gets_the_current_book_ticker() -> None:
    hubs = TickHubs()
    async with playing(hubs, Clock()) as client:
        await want(client, "one", [], ["A"])
        await until(lambda: hubs.book_tickers.wanted == {"A"})
        hubs.book_tickers.publish(book_ticker("A"))
        await until(lambda: len(client.said) == 1)
        await want(client, "one", [], ["A"])
        await want(client, "two", [], ["A"])
        await until(lambda: len(client.said) == 2)
        assert subjects(client) == ["book_tickers.A", "book_tickers.A"]


async def test_too_many_book_tickers_are_logged_once(
    capsys: pytest.CaptureFixture[str],
) -> None:
    hubs, rounds = TickHubs(book_tickers=BookTickerHub(max_symbols=2)), 0

    def streamed() -> list[str]:
        nonlocal rounds
        rounds += 1
        return ["A", "B", "C"]

    async with playing(hubs, Clock(), streamed) as client:
        await want(client, "one", [], ["A", "B", "C"])
        await until(lambda: hubs.book_tickers.wanted == {"A", "B"})
        before = rounds
        await until(lambda: rounds >= before + 3)  # it is found full in each
    assert capsys.readouterr().out.count("book_tickers_not_published") == 1


async def test_unreadable_message_is_skipped(capsys: pytest.CaptureFixture[str]) -> None:
    hubs = TickHubs()
    async with playing(hubs, Clock()) as client:
        await client.deliver(WANTED, b"\xff\xff")
        await want(client, "one", ["A"], [])
        await until(lambda: hubs.trades.wanted == {"A"})
    assert "nats_message_unreadable" in capsys.readouterr().out
