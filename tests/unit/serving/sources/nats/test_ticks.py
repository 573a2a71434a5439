"""What a server makes of trades and best prices; over a real NATS in the integration tests."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import cast

import pytest
from nats.aio.client import Client

from serving.protobuf.generated.candelabra.v1 import bus_pb2 as bus
from serving.protobuf.generated.candelabra.v1 import market_data_pb2 as pb
from serving.sources.nats.ticks import NatsTicks
from serving.sources.nats.wire import TradeMessageEncoder, encode_book_tickers
from streamer.hub.ticks import MissedTrades, Ticks
from tests.unit.serving.sources.nats.played import PlayedClient, until
from tests.unit.serving.sources.nats.test_tick_publisher import book_ticker, trade


def _no_number(one: pb.Trade) -> None:
    one.price = ""


def _not_finite(one: pb.Trade) -> None:
    one.quantity = "Infinity"


def _no_symbol(one: pb.Trade) -> None:
    one.symbol = ""


def _before_all(one: pb.Trade) -> None:
    one.time.seconds = -(1 << 62)


@pytest.mark.parametrize("spoil", [_no_number, _not_finite, _no_symbol, _before_all])
async def test_invalid_trade_is_skipped_and_the_valid_one_with_its_id_delivered(
    spoil: Callable[[pb.Trade], None], capsys: pytest.CaptureFixture[str]
) -> None:
    ticks, client = NatsTicks(), PlayedClient()
    running = asyncio.create_task(ticks.session(cast(Client, client)))
    try:
        with ticks.hubs.trades.subscribe() as subscription:
            ticks.hubs.trades.add_symbols(subscription, ["A"])
            await until(lambda: "trades.A" in client.hear)
            missed = MissedTrades("A", 5, 6, 5, 6)
            [(subject, payload)] = TradeMessageEncoder("a", 1).trades(
                Ticks([trade("A", 7), trade("A", 8)], [missed])
            )
            odd = bus.PublishedTrades.FromString(payload)
            spoil(odd.trades[1])
            await client.deliver(subject, odd.SerializeToString())
            await client.deliver(subject, payload)
            told = await asyncio.wait_for(subscription.receive(10), 30)
            assert told is not None
            assert [one.id for one in told.ticks] == [7, 8]
            assert told.missed == [missed]
    finally:
        running.cancel()
        await asyncio.wait([running], timeout=10)
    assert capsys.readouterr().out.count("nats_message_unreadable") == 1


async def test_invalid_book_ticker_is_skipped(capsys: pytest.CaptureFixture[str]) -> None:
    ticks, client = NatsTicks(), PlayedClient()
    running = asyncio.create_task(ticks.session(cast(Client, client)))
    try:
        with ticks.hubs.book_tickers.subscribe() as subscription:
            ticks.hubs.book_tickers.add_symbols(subscription, ["A"])
            await until(lambda: "book_tickers.A" in client.hear)
            [(subject, payload)] = encode_book_tickers(Ticks([book_ticker("A")], []))
            odd = pb.StreamBookTickersResponse.FromString(payload)
            odd.book_tickers[0].received_time.seconds = 1 << 62
            await client.deliver(subject, odd.SerializeToString())
            await client.deliver(subject, b"\xff\xff")
            await client.deliver(subject, payload)
            told = await asyncio.wait_for(subscription.receive(10), 30)
            assert told is not None
            assert told.ticks == [book_ticker("A")]
    finally:
        running.cancel()
        await asyncio.wait([running], timeout=10)
    assert "nats_message_unreadable" in capsys.readouterr().out
