"""Ticks of another process: requested while there are readers, over disconnects."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import grpc
import pytest

from include.backoff import Backoff
from serving.grpc.tick_streams import TickStreams
from serving.protobuf.generated.candelabra.v1 import market_data_pb2_grpc as services
from serving.sources.remote import ticks as module
from serving.sources.remote.ticks import RemoteTicks
from streamer.hub.ticks import Ticks, TradeSubscription, TradeTick
from streamer.hub.trade_hub import BookTickerHub, TickHubs, TradeHub
from tests.unit.serving.grpc.test_tick_streams import book_ticker, trade, until


@pytest.fixture(autouse=True)
def _quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "BACKOFF", Backoff(first_s=0.01, max_s=0.02))


class Streamer:
    """Another process, which can go away and come back."""

    def __init__(self) -> None:
        self.hubs = TickHubs(TradeHub(), BookTickerHub(linger_s=0.0))
        self.streamed = ["BTCUSDT", "ETHUSDT"]
        self.port = 0
        self._server: grpc.aio.Server | None = None

    async def begin(self) -> None:
        server = self._server = grpc.aio.server(options=[("grpc.so_reuseport", 0)])
        calls = TickStreams(self.hubs, streamed=lambda: self.streamed)
        services.add_MarketDataServicer_to_server(calls, server)  # type: ignore[no-untyped-call]
        self.port = server.add_insecure_port(f"127.0.0.1:{self.port}")
        await server.start()

    async def end(self) -> None:
        assert self._server is not None
        await self._server.stop(0)


@asynccontextmanager
async def attached() -> AsyncIterator[tuple[Streamer, RemoteTicks]]:
    streamer = Streamer()
    await streamer.begin()
    options = [("grpc.initial_reconnect_backoff_ms", 100), ("grpc.max_reconnect_backoff_ms", 100)]
    async with grpc.aio.insecure_channel(f"127.0.0.1:{streamer.port}", options=options) as channel:
        remote = RemoteTicks(services.MarketDataStub(channel))  # type: ignore[no-untyped-call]
        running = asyncio.create_task(remote.run())
        try:
            yield streamer, remote
            assert not running.done()
        finally:
            running.cancel()
            await asyncio.wait([running], timeout=10)
            await streamer.end()


async def received(subscription: TradeSubscription) -> Ticks[TradeTick]:
    async with asyncio.timeout(10):
        found = await subscription.receive()
    assert found is not None
    return found


async def test_symbols_follow_the_subscribers_within_one_call() -> None:
    async with attached() as (streamer, remote):
        theirs, ours = streamer.hubs.trades, remote.hubs.trades
        with ours.subscribe(["BTCUSDT"]) as subscription:
            await until(lambda: theirs.wanted == {"BTCUSDT"})
            theirs.publish(trade(1))
            assert (await received(subscription)).ticks == [trade(1)]
            with ours.subscribe(["ETHUSDT"]) as other:
                await until(lambda: theirs.wanted == {"BTCUSDT", "ETHUSDT"})
                theirs.publish(trade(2))
                theirs.publish(trade(8, "ETHUSDT"))
                assert (await received(other)).ticks == [trade(8, "ETHUSDT")]
                assert (await received(subscription)).ticks == [trade(2)]
            await until(lambda: theirs.wanted == {"BTCUSDT"})
        await until(lambda: not theirs.subscribers)
        assert remote.disconnects == 0


async def test_trades_lost_in_a_disconnect_are_reported_by_id() -> None:
    async with attached() as (streamer, remote):
        theirs = streamer.hubs.trades
        with remote.hubs.trades.subscribe(["BTCUSDT"]) as subscription:
            await until(lambda: theirs.wanted)
            theirs.publish(trade(1))
            await received(subscription)
            await streamer.end()
            await until(lambda: remote.disconnects)
            await streamer.begin()
            await until(lambda: theirs.wanted)
            theirs.publish(trade(5))
            found = await received(subscription)
            assert [one.id for one in found.ticks] == [5]
            (missed,) = found.missed
            assert (missed.symbol, missed.first_id, missed.last_id) == ("BTCUSDT", 2, 4)


async def test_unstreamed_symbols_are_requested_until_they_are_streamed(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(module, "POLL_INTERVAL_S", 0.05)
    async with attached() as (streamer, remote):
        theirs = streamer.hubs.trades
        with remote.hubs.trades.subscribe(["NEWUSDT"]) as subscription:
            await until(lambda: remote.disconnects)
            remote.hubs.trades.add_symbols(subscription, ["BTCUSDT"])
            await until(lambda: theirs.wanted == {"BTCUSDT"})
            streamer.streamed.append("NEWUSDT")
            await until(lambda: theirs.wanted == {"BTCUSDT", "NEWUSDT"})


async def test_newest_book_ticker_is_forwarded() -> None:
    async with attached() as (streamer, remote):
        theirs = streamer.hubs.book_tickers
        with remote.hubs.book_tickers.subscribe(["BTCUSDT"]) as subscription:
            await until(lambda: theirs.wanted)
            theirs.publish(book_ticker(3))
            async with asyncio.timeout(10):
                found = await subscription.receive()
            assert found is not None
            assert found.ticks == [book_ticker(3)]
            assert remote.hubs.book_tickers.newest("BTCUSDT") == book_ticker(3)
