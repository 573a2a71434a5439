"""Book tickers streamed while readers subscribe, against a played exchange."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

from websockets.asyncio.server import ServerConnection, serve
from websockets.exceptions import ConnectionClosed

from include.config import load_settings
from include.domain.instruments import Market
from streamer.hub import book_tickers as module
from streamer.hub.book_tickers import BookTickerFeed, connect_book_tickers
from streamer.hub.on_demand import OnDemandStreams
from streamer.hub.ticks import BookTickerUpdate
from streamer.hub.trade_hub import BookTickerHub


def frame(symbol: str, update_id: int, bid: str = "1.10") -> str:
    data = {"u": update_id, "s": symbol, "b": bid, "B": "5", "a": "1.20", "A": "7"}
    return json.dumps({"stream": f"{symbol.lower()}@bookTicker", "data": data})


class Played:
    """An exchange of one market."""

    def __init__(self) -> None:
        self.asked: list[tuple[str, list[str]]] = []
        self.sockets: list[ServerConnection] = []
        self.closed = 0
        self.paths: list[str] = []

    async def serve(self, socket: ServerConnection) -> None:
        self.sockets.append(socket)
        assert socket.request is not None
        self.paths.append(socket.request.path)
        try:
            async for message in socket:
                told: dict[str, Any] = json.loads(message)
                self.asked.append((told["method"], told.get("params", [])))
                await socket.send(json.dumps({"result": None, "id": told["id"]}))
        except ConnectionClosed:
            pass
        self.closed += 1


class Clock:
    """A monotonic clock that tests step."""

    def __init__(self) -> None:
        self.now_s = 1_000.0

    def __call__(self) -> float:
        return self.now_s


@asynccontextmanager
async def playing(
    *, linger_s: float = 100, poll_interval_s: float = 100
) -> AsyncIterator[tuple[Played, BookTickerHub, OnDemandStreams[BookTickerFeed]]]:
    played, fan = Played(), BookTickerHub(linger_s=linger_s)
    async with serve(played.serve, "127.0.0.1", 0, close_timeout=0.1) as server:
        address = f"ws://127.0.0.1:{server.sockets[0].getsockname()[1]}"
        settings = load_settings(binance_ws_url=address, binance_um_ws_url=address)
        quotes = OnDemandStreams(
            fan,
            lambda market, names: connect_book_tickers(settings, market, fan, names),
            name="book_tickers",
            poll_interval_s=poll_interval_s,
        )
        running = asyncio.create_task(quotes.run())
        try:
            yield played, fan, quotes
        finally:
            running.cancel()
            await asyncio.wait([running], timeout=10)


async def until(holds: Callable[[], object]) -> None:
    async with asyncio.timeout(15):
        while not holds():
            await asyncio.sleep(0.01)


async def test_symbols_are_subscribed_while_readers_subscribe() -> None:
    async with playing(linger_s=0.1, poll_interval_s=0.05) as (played, fan, quotes):
        await asyncio.sleep(0)
        assert not played.sockets
        with fan.subscribe(["BTCUSDT"]) as watch:
            await until(lambda: played.asked)
            assert played.asked == [("SUBSCRIBE", ["btcusdt@bookTicker"])]
            await played.sockets[0].send(frame("BTCUSDT", 7))
            await played.sockets[0].send(frame("BTCUSDT", 7))
            await played.sockets[0].send(frame("ETHUSDT", 8))
            await played.sockets[0].send('{"stream":"btcusdt@bookTicker","data":{"s":"BTCUSDT"}}')
            async with asyncio.timeout(10):
                found = await watch.receive()
            assert found is not None
            (quote,) = found.ticks
            assert (quote.symbol, quote.update_id, quote.bid_price, quote.ask_quantity) == (
                "BTCUSDT", 7, "1.10", "7",
            )  # fmt: skip
            assert quote.event_us is None
            assert quote.received_us > 1_700_000_000_000_000
            await until(lambda: quotes.feeds[0].bad_frames == 1)
            fan.add_symbols(watch, ["ETHUSDT"])
            await until(lambda: ("SUBSCRIBE", ["ethusdt@bookTicker"]) in played.asked)
            fan.remove_symbols(watch, ["BTCUSDT"])
            await until(lambda: ("UNSUBSCRIBE", ["btcusdt@bookTicker"]) in played.asked)
        await until(lambda: played.closed == 1)
        assert not quotes.feeds


async def test_usd_m_has_a_separate_connection_on_the_path_of_book_tickers() -> None:
    async with playing() as (played, fan, _):
        with fan.subscribe(["BTCUSDT.P"]) as watch:
            await until(lambda: played.asked)
            assert played.paths == ["/public/stream"]
            told = {"e": "bookTicker", "E": 1_700_000_000_123, "T": 1_700_000_000_120}
            data = told | json.loads(frame("BTCUSDT", 3))["data"]
            await played.sockets[0].send(json.dumps({"stream": "btcusdt@bookTicker", "data": data}))
            async with asyncio.timeout(10):
                found = await watch.receive()
            assert found is not None
            assert (found.ticks[0].symbol, found.ticks[0].event_us) == (
                "BTCUSDT.P", 1_700_000_000_123_000,
            )  # fmt: skip


async def test_held_frames_do_not_go_back_in_time() -> None:
    fan = BookTickerHub(linger_s=100)
    settings = load_settings()

    feed = connect_book_tickers(settings, Market.SPOT, fan, ["BTCUSDT"])
    with fan.subscribe(["BTCUSDT"]) as watch:
        feed.on_texts([frame("BTCUSDT", 9, "1.15").encode()])
        feed.on_held(
            [frame("BTCUSDT", number, bid).encode() for number, bid in ((8, "1"), (10, "1.16"))],
            [2.0, 1.0],
        )
        newest = fan.newest("BTCUSDT")
        assert isinstance(newest, BookTickerUpdate)
        assert (newest.update_id, newest.bid_price) == (10, "1.16")
        assert watch.conflated == 1


async def test_quiet_book_ticker_is_subscribed_again() -> None:
    async with playing() as (played, fan, quotes):
        with fan.subscribe(["BTCUSDT", "ETHUSDT"]):
            await until(lambda: played.asked)
            (feed,) = quotes.feeds
            await until(lambda: feed.connection.is_open)
            played.asked.clear()
            clock = Clock()
            clock.now_s += 1_000_000
            feed._clock_s = clock
            await played.sockets[0].send(frame("ETHUSDT", 1))
            await until(lambda: fan.newest("ETHUSDT"))
            feed.resubscribe_quiet()  # ETHUSDT has just delivered
            await until(lambda: len(played.asked) == 2)
            assert played.asked == [
                ("UNSUBSCRIBE", ["btcusdt@bookTicker"]), ("SUBSCRIBE", ["btcusdt@bookTicker"]),
            ]  # fmt: skip
            clock.now_s += module.QUIET_S  # BTCUSDT now has twice the time
            feed.resubscribe_quiet()
            await until(lambda: len(played.asked) == 4)
            assert {name for _, names in played.asked[2:] for name in names} == {
                "ethusdt@bookTicker"
            }
            await played.sockets[0].send(frame("BTCUSDT", 2))
            await until(lambda: fan.newest("BTCUSDT"))
            assert feed._quiet["BTCUSDT"] == (clock.now_s, module.QUIET_S)
