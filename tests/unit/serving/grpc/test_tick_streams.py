"""The calls for trades and best prices, as callers find them."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from decimal import Decimal
from typing import Any

import grpc
import pytest

from serving.bars.live_bars import LiveBars
from serving.grpc import tick_streams as module
from serving.grpc.market_data import MarketData
from serving.grpc.server import grpc_serving
from serving.protobuf.generated.candelabra.v1 import market_data_pb2 as pb
from serving.protobuf.generated.candelabra.v1 import market_data_pb2_grpc as services
from serving.read_pool import ReadPool
from streamer.hub.ticks import BookTickerUpdate, MissedTrades, TradeTick
from streamer.hub.trade_hub import BookTickerHub, TickHubs

STREAMED = ["BTCUSDT", "ETHUSDT"]


def trade(number: int, symbol: str = "BTCUSDT") -> TradeTick:
    return TradeTick(symbol, number, Decimal("2.50"), Decimal(1), number, number, 10**15, False)


def book_ticker(number: int, symbol: str = "BTCUSDT") -> BookTickerUpdate:
    return BookTickerUpdate(symbol, number, "1.0", "2", "1.1", "3", None, 10**15)


@asynccontextmanager
async def serving(hubs: TickHubs | None, streamed: Sequence[str] = STREAMED) -> AsyncIterator[Any]:
    live_bars = LiveBars(_never, lambda _symbol, _newest: ((), (), ()))
    history = ReadPool("postgresql://nobody@127.0.0.1:1/none")
    service = MarketData(
        live_bars, history, streamed=lambda: streamed, now_us=lambda: 0, ticks=hubs
    )
    async with (
        grpc_serving(service, host="127.0.0.1", port=0) as address,
        grpc.aio.insecure_channel(address) as channel,
    ):
        yield services.MarketDataStub(channel)  # type: ignore[no-untyped-call]


def _never() -> Any:
    raise AssertionError("nobody asks for candles")


async def until(holds: Callable[[], object]) -> None:
    async with asyncio.timeout(10):
        while not holds():
            await asyncio.sleep(0.005)


async def next_message(call: Any) -> Any:
    async with asyncio.timeout(10):
        message = await call.read()
    assert message is not grpc.aio.EOF
    return message


async def refused(call: Any) -> grpc.aio.AioRpcError:
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await next_message(call)
    return caught.value


async def test_call_delivers_trades_and_can_change_its_symbols() -> None:
    hubs = TickHubs()
    async with serving(hubs) as stub:
        call = stub.StreamTrades()
        await call.write(pb.StreamTradesRequest(symbols=["BTCUSDT"]))
        await until(lambda: hubs.trades.wanted == {"BTCUSDT"})
        hubs.trades.publish(trade(1))
        hubs.trades.publish(trade(1, "ETHUSDT"))
        (one,) = (await next_message(call)).trades
        assert (one.symbol, one.id, one.price, one.quantity) == ("BTCUSDT", 1, "2.50", "1")
        await call.write(pb.StreamTradesRequest(symbols=["ETHUSDT", "NONE"]))
        assert (await next_message(call)).not_streamed == ["NONE"]
        assert hubs.trades.wanted == {"ETHUSDT"}
        hubs.trades.publish(trade(2))
        hubs.trades.publish(trade(5, "ETHUSDT"))
        hubs.trades.report_missed(MissedTrades("ETHUSDT", 6, 7, 10**15, 10**15))
        message = await next_message(call)
        assert [(one.symbol, one.id) for one in message.trades] == [("ETHUSDT", 5)]
        (missed,) = message.missed
        assert (missed.symbol, missed.first_id, missed.last_id) == ("ETHUSDT", 6, 7)
        call.cancel()
        await until(lambda: not hubs.trades.subscribers)
        assert not hubs.trades.wanted


async def test_caller_that_closed_its_requests_still_receives_trades() -> None:
    """As generated clients and grpcurl do: one request, and then they listen."""
    hubs = TickHubs()
    async with serving(hubs) as stub:
        call = stub.StreamTrades(iter([pb.StreamTradesRequest(symbols=["BTCUSDT"])]))
        await until(lambda: hubs.trades.wanted)
        for number in (1, 2):
            hubs.trades.publish(trade(number))
            assert [one.id for one in (await next_message(call)).trades] == [number]
        call.cancel()


async def test_current_book_ticker_comes_first() -> None:
    hubs = TickHubs()
    with hubs.book_tickers.subscribe(["BTCUSDT"]):
        hubs.book_tickers.publish(book_ticker(7))
        async with serving(hubs) as stub:
            call = stub.StreamBookTickers(iter([pb.StreamBookTickersRequest(symbols=STREAMED)]))
            (one,) = (await next_message(call)).book_tickers
            assert (one.symbol, one.update_id, one.bid_price) == ("BTCUSDT", 7, "1.0")
            assert not one.HasField("event_time")
            hubs.book_tickers.publish(book_ticker(1, "ETHUSDT"))
            assert [one.symbol for one in (await next_message(call)).book_tickers] == ["ETHUSDT"]
            call.cancel()


@pytest.mark.parametrize(
    ("symbols", "code", "text"),
    [
        ([], grpc.StatusCode.INVALID_ARGUMENT, "0 symbols; should be 1 to 5,000"),
        (["NONE", "x" * 500], grpc.StatusCode.NOT_FOUND, "ListInstruments"),
        (["A"] * 5_001, grpc.StatusCode.INVALID_ARGUMENT, "5,001 symbols"),
    ],
)
async def test_invalid_call_is_refused(
    symbols: list[str], code: grpc.StatusCode, text: str
) -> None:
    async with serving(TickHubs()) as stub:
        error = await refused(stub.StreamTrades(iter([pb.StreamTradesRequest(symbols=symbols)])))
        assert error.code() is code
        assert text in str(error.details())


async def test_invalid_later_request_ends_the_call_with_a_reason() -> None:
    hubs = TickHubs()
    async with serving(hubs) as stub:
        call = stub.StreamTrades()
        await call.write(pb.StreamTradesRequest(symbols=["BTCUSDT"]))
        await until(lambda: hubs.trades.wanted)
        await call.write(pb.StreamTradesRequest())
        error = await refused(call)
        assert error.code() is grpc.StatusCode.INVALID_ARGUMENT
        await until(lambda: not hubs.trades.subscribers)


async def test_too_many_symbols_are_refused_first_and_listed_later() -> None:
    hubs = TickHubs(book_tickers=BookTickerHub(max_symbols=1))
    async with serving(hubs) as stub:
        asked = pb.StreamBookTickersRequest(symbols=STREAMED)
        error = await refused(stub.StreamBookTickers(iter([asked])))
        assert error.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
        call = stub.StreamBookTickers()
        await call.write(pb.StreamBookTickersRequest(symbols=["BTCUSDT"]))
        await until(lambda: hubs.book_tickers.wanted)
        await call.write(asked)
        assert (await next_message(call)).not_streamed == ["ETHUSDT"]
        call.cancel()


async def test_silent_or_invalid_callers_get_an_error(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(module, "FIRST_TIMEOUT_S", 0.1)
    hubs = TickHubs()
    async with serving(hubs) as stub:
        for call in (stub.StreamTrades(), stub.StreamTrades(iter([]))):
            error = await refused(call)
            assert error.code() is grpc.StatusCode.INVALID_ARGUMENT
            assert "should name symbols" in str(error.details())


async def test_undecodable_bytes_are_refused() -> None:
    hubs = TickHubs()
    live_bars = LiveBars(_never, lambda _symbol, _newest: ((), (), ()))
    history = ReadPool("postgresql://nobody@127.0.0.1:1/none")
    service = MarketData(
        live_bars, history, streamed=lambda: STREAMED, now_us=lambda: 0, ticks=hubs
    )
    good = pb.StreamTradesRequest(symbols=["BTCUSDT"]).SerializeToString()
    async with (
        grpc_serving(service, host="127.0.0.1", port=0) as address,
        grpc.aio.insecure_channel(address) as channel,
    ):
        method = channel.stream_stream("/candelabra.v1.MarketData/StreamTrades")
        for bodies in ([b"\xff\xff"], [good, b"\xff\xff"]):
            error = await refused(method(iter(bodies)))
            assert error.code() is grpc.StatusCode.INVALID_ARGUMENT
            assert "not a message" in str(error.details())
    assert not hubs.trades.subscribers


async def test_calls_are_unimplemented_without_ticks() -> None:
    async with serving(None) as stub:
        call = stub.StreamTrades(iter([pb.StreamTradesRequest(symbols=["BTCUSDT"])]))
        assert (await refused(call)).code() is grpc.StatusCode.UNIMPLEMENTED


async def test_no_symbol_is_unknown_while_nothing_is_streamed() -> None:
    streamed: list[str] = []
    async with serving(TickHubs(), streamed) as stub:
        for _ in range(2):
            call = stub.StreamTrades()
            await call.write(pb.StreamTradesRequest(symbols=["BTCUSDT"]))
            calls = [call, stub.StreamCandles(pb.StreamCandlesRequest(symbols=["BTCUSDT"]))]
            codes = {(await refused(one)).code() for one in calls}
            wanted = grpc.StatusCode.NOT_FOUND if streamed else grpc.StatusCode.UNAVAILABLE
            assert codes == {wanted}
            streamed.append("ETHUSDT")
