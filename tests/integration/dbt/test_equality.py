"""Every interface returns the same nine values of a candle.

A simulated exchange stops sending in the middle of a minute. Then gRPC, WebSocket, REST, UDF and
SQL must agree: for the streamer, for a serving process connected to it and for one that reads NATS,
for closed and running bars, for minutes and coarser bars. The bars must also equal the exchange's
klines as of the last streamed trade.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import socket
from collections.abc import AsyncIterator, Callable, Iterable
from contextlib import AsyncExitStack, asynccontextmanager
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any

import grpc
import httpx
import psycopg
import pytest
from psycopg import sql
from websockets.asyncio.client import ClientConnection, connect

from include.config import Settings
from include.domain.instruments import exchange_symbol_of, market_of
from include.domain.timeframes import MINUTE_US, TIMEFRAMES, from_us, minute_of, to_us
from include.jobs.instruments import sync_instruments
from include.jobs.klines.repairs import Repairs
from include.store.postgres.pools import connect as connected
from serving.process import serve
from serving.protobuf.bars import microseconds_of, time_of
from serving.protobuf.generated.candelabra.v1 import market_data_pb2 as pb
from serving.protobuf.generated.candelabra.v1 import market_data_pb2_grpc as services
from simulator.config import SimulatorConfig
from simulator.market.market import SimulatedMarket
from simulator.server import Exchange
from simulator.wire.payloads import kline_row
from tests.integration.streamer.harness import settings_for, streaming
from tests.nats_server import nats_server
from tests.ports import steady_port

SYMBOLS = ("BTCUSDT", "ETHUSDT.P")
FRAMES = {"1m": "1", "5m": "5", "1h": "60"}
"""Timeframes, and their names in UDF."""
NOW = datetime(2026, 3, 2, 9, 58, tzinfo=UTC)
HISTORY_US = 150 * MINUTE_US
STREAMED = 8
"""Closed minutes before the stream stops; they include the end of an hour."""

Nine = tuple[Decimal | int | None, ...]
Key = tuple[str, str, int]
"""Symbol, timeframe, open time in µs."""
Bars = dict[Key, Nine]

SQL = """
SELECT
    open_time, open, high, low, close, volume, quote_volume, trade_count, taker_buy_volume,
    taker_buy_quote_volume
FROM {relation}
WHERE symbol = %s AND open_time >= %s
"""
NAMES = (
    "open", "high", "low", "close", "volume", "quote_volume", "trade_count", "taker_buy_volume",
    "taker_buy_quote_volume",
)  # fmt: skip
OVER_NATS = ""
"""No streamer address: the serving process reads NATS."""
OHLCV = slice(0, 5)
"""The five values that UDF has."""


def nine_of(read: Callable[[str], Any]) -> Nine:
    """The nine values by name; None for quote volumes that are not known yet."""
    values = (read(name) for name in NAMES)
    return tuple(one if one is None else Decimal(str(one)) for one in values)


def of_message(candle: pb.Candle) -> Nine:
    optional = {"quote_volume", "taker_buy_quote_volume"}
    return nine_of(
        lambda name: (
            None if name in optional and not candle.HasField(name) else getattr(candle, name)
        )
    )


class LatestBars:
    """The latest state of each bar that a subscriber received."""

    def __init__(self) -> None:
        self.bars: Bars = {}
        self.last_ids: dict[Key, int] = {}

    async def receive_grpc(self, stub: services.MarketDataStub) -> None:
        request = pb.StreamCandlesRequest(symbols=SYMBOLS, timeframes=FRAMES)
        async for message in stub.StreamCandles(request, wait_for_ready=True, timeout=120):
            assert not message.missed
            for update in message.updates:
                one = update.candle
                key = (one.symbol, one.timeframe, microseconds_of(one.open_time))
                self.bars[key] = of_message(one)
                self.last_ids[key] = one.last_trade_id

    async def receive_websocket(self, connection: ClientConnection) -> None:
        for frame in FRAMES:
            asked = {"type": "subscribe", "symbols": SYMBOLS, "timeframe": frame}
            await connection.send(json.dumps(asked))
        async for text in connection:
            said = json.loads(text)
            assert said["type"] in ("subscribed", "candles"), said
            for one in said.get("data", ()):
                key = (one["symbol"], one["timeframe"], one["open_time"] * 1_000)
                self.bars[key] = nine_of(one.__getitem__)


async def listed_by_grpc(stub: services.MarketDataStub, since_us: int) -> Bars:
    found: Bars = {}
    for symbol in SYMBOLS:
        for frame in FRAMES:
            answer = await stub.ListCandles(
                pb.ListCandlesRequest(
                    symbol=symbol, timeframe=frame, from_time=time_of(since_us), page_size=5_000
                ),
                timeout=30,
            )
            for one in answer.candles:
                found[symbol, frame, microseconds_of(one.open_time)] = of_message(one)
    return found


async def listed_by_rest(client: httpx.AsyncClient, since_us: int) -> Bars:
    found: Bars = {}
    for frame in FRAMES:
        asked = {"symbol": ",".join(SYMBOLS), "timeframe": frame, "limit": 5_000}
        answer = await client.get("/api/v1/candles", params=asked | {"from": since_us // 1_000})
        for one in answer.raise_for_status().json()["candles"]:
            moment = datetime.fromisoformat(one["open_time"])
            found[one["symbol"], frame, to_us(moment)] = nine_of(one.__getitem__)
    return found


async def listed_by_udf(client: httpx.AsyncClient, since_us: int) -> Bars:
    """Five values as binary floats."""
    found: Bars = {}
    for symbol in SYMBOLS:
        for frame, resolution in FRAMES.items():
            span = {"from": since_us // 1_000_000, "to": to_us(NOW) // 1_000_000 + 86_400}
            asked = {"symbol": symbol, "resolution": resolution} | span
            said = (await client.get("/udf/history", params=asked)).raise_for_status().json()
            rows = zip(said["t"], *(said[name] for name in "ohlcv"), strict=True)
            for moment_s, *values in rows:
                found[symbol, frame, moment_s * 1_000_000] = tuple(values)
    return found


def listed_by_sql(url: str, since_us: int) -> Bars:
    found: Bars = {}
    with connected(url, application_name="test") as connection:
        for frame in FRAMES:
            schema = "market" if frame == "1m" else "marts"
            relation = sql.Identifier(schema, f"{TIMEFRAMES[frame].table}_live")
            for symbol in SYMBOLS:
                for moment, *values in connection.execute(
                    sql.SQL(SQL).format(relation=relation), (symbol, from_us(since_us))
                ):
                    found[symbol, frame, to_us(moment)] = tuple(values)
    return found


def five_of(bars: Bars) -> Bars:
    return {key: tuple(map(float, values[OHLCV])) for key, values in bars.items()}  # type: ignore[arg-type, misc]


# --- the exchange


def klines(market: SimulatedMarket, symbol: str, frame: str, since_us: int, view_us: int) -> Bars:
    """The exchange's klines as of a moment: nine values and the last trade id."""
    found: Bars = {}
    for one in market.klines(symbol, frame, since_us, view_us=view_us):
        row = kline_row(market.instrument(symbol), one, unit_us=1)
        values = (*row[1:6], *row[7:11])
        found[symbol, frame, one.open_time_us] = (
            *(Decimal(str(value)) for value in values),
            one.last_id,
        )
    return found


def moment_of_trade(
    market: SimulatedMarket, symbol: str, trade_id: int, start_us: int, end_us: int
) -> int:
    """Find the first moment at which a trade has happened, by bisection."""
    while start_us < end_us:
        middle_us = (start_us + end_us) // 2
        found = market.klines(
            symbol, "1m", minute_of(middle_us) - 60 * MINUTE_US, view_us=middle_us
        )
        if max((one.last_id for one in found if one.trade_count), default=-1) >= trade_id:
            end_us = middle_us
        else:
            start_us = middle_us + 1
    return start_us


# --- processes and clients


@asynccontextmanager
async def working(*works: Any) -> AsyncIterator[list[asyncio.Task[None]]]:
    tasks = [asyncio.ensure_future(work) for work in works]
    try:
        yield tasks
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.wait(tasks)


async def until(holds: Callable[[], bool], tasks: Iterable[asyncio.Task[None]]) -> None:
    async with asyncio.timeout(90):
        while not holds():
            for task in tasks:
                if task.done():
                    task.result()
            await asyncio.sleep(0.02)


async def until_symbols_known(url: str) -> None:
    """Wait until a server knows its symbols."""
    async with asyncio.timeout(60), httpx.AsyncClient(base_url=f"{url}/api/v1") as client:
        for symbol in SYMBOLS:
            while (await client.get(f"/symbols/{symbol}/price")).status_code != 200:
                await asyncio.sleep(0.05)


def is_open(port: int) -> bool:
    with socket.socket() as one:
        return one.connect_ex(("127.0.0.1", port)) == 0


def filled(settings: Settings, exchange: Exchange, url: str) -> int:
    """Load some hours of both symbols by REST; return the first minute."""
    sync_instruments(settings=settings)
    now_us = minute_of(exchange.clock.now_us())
    repairs = Repairs(settings, url)
    for symbol in SYMBOLS:
        repairs.repair(symbol, now_us - HISTORY_US, now_us - 2 * MINUTE_US)
    repairs.close()
    return now_us - HISTORY_US


@asynccontextmanager
async def served(
    settings: Settings, source: str, stop: asyncio.Event, tasks: list[asyncio.Task[None]]
) -> AsyncIterator[tuple[str, str]]:
    """A serving process that knows its symbols: its gRPC address and HTTP URL."""
    ports = steady_port(), steady_port()
    ours = settings.model_copy(update={"grpc_port": ports[0], "api_port": ports[1]})
    async with working(serve(ours, source, stop)) as works:
        tasks += works
        await until(lambda: all(map(is_open, ports)), tasks)
        url = f"http://127.0.0.1:{ports[1]}"
        await until_symbols_known(url)
        yield f"127.0.0.1:{ports[0]}", url


@asynccontextmanager
async def subscribers(
    grpc_address: str, api_url: str, tasks: list[asyncio.Task[None]]
) -> AsyncIterator[tuple[LatestBars, LatestBars, services.MarketDataStub, httpx.AsyncClient]]:
    """Subscribers of a server by gRPC and WebSocket, and clients by gRPC and REST."""
    async with AsyncExitStack() as stack:
        channel = await stack.enter_async_context(grpc.aio.insecure_channel(grpc_address))
        address = api_url.replace("http://", "ws://")
        connection = await stack.enter_async_context(connect(f"{address}/api/v1/ws"))
        client = await stack.enter_async_context(httpx.AsyncClient(base_url=api_url, timeout=30))
        by_grpc, by_websocket = LatestBars(), LatestBars()
        stub = services.MarketDataStub(channel)
        works = working(by_grpc.receive_grpc(stub), by_websocket.receive_websocket(connection))
        tasks += await stack.enter_async_context(works)
        yield by_grpc, by_websocket, stub, client


@pytest.mark.long
async def test_all_interfaces_return_the_same_candles(market: Any) -> None:
    database_url = market.url
    config = SimulatorConfig(speed=60, clock_start=NOW, um_symbols=("ETHUSDT",))
    async with Exchange(config) as exchange, nats_server() as nats:
        settings = settings_for(
            exchange, database_url, grpc_port=0, api_port=0, stale_stream_s=600.0,
            api_requests_per_minute=100_000, nats_url=nats.url,
        )  # fmt: skip
        since_us = await asyncio.to_thread(filled, settings, exchange, database_url)
        stop = asyncio.Event()
        tasks: list[asyncio.Task[None]] = []
        async with AsyncExitStack() as stack:
            streamer = await stack.enter_async_context(streaming(settings, *SYMBOLS))
            await until(lambda: bool(streamer.telemetry.api_url), tasks)
            places = [(streamer.telemetry.grpc_address, streamer.telemetry.api_url)]
            for source in (streamer.telemetry.grpc_address, OVER_NATS):
                serving = served(settings, source, stop, tasks)
                places.append(await stack.enter_async_context(serving))
            ways = [await stack.enter_async_context(subscribers(*one, tasks)) for one in places]
            received = [one for way in ways for one in way[:2]]
            await until(lambda: all(closed_minutes(one) >= STREAMED for one in received), tasks)

            async with httpx.AsyncClient(base_url=exchange.control_url) as client:
                assert (await client.post("/sim/stall")).json()["stalled"] > 0
            await all_equal(received, ways, database_url, since_us)
            stop.set()
            compare_with_the_exchange(exchange, received[0], database_url, since_us)


def closed_minutes(received: LatestBars) -> int:
    """Closed minutes of the first symbol that have been received."""
    return sum(key[:2] == (SYMBOLS[0], "1m") for key in received.bars) - 1


async def all_equal(received: list[LatestBars], ways: Any, url: str, since_us: int) -> None:
    """Wait until all interfaces agree; show the differences if they do not."""
    differs: dict[str, Any] = {}
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(30):
            while True:
                differs = await differences(received, ways, url, since_us)
                if not differs:
                    return
                await asyncio.sleep(0.25)
    raise AssertionError(f"the interfaces do not agree: {differs}")


async def differences(
    received: list[LatestBars], ways: Any, url: str, since_us: int
) -> dict[str, Any]:
    """For each interface: a bar that differs from SQL, both values, and how many differ."""
    right = await asyncio.to_thread(listed_by_sql, url, since_us)
    assert {key[:2] for key in right} == {(one, frame) for one in SYMBOLS for frame in FRAMES}
    found: dict[str, Any] = {}

    def compare(way: str, bars: Bars, wanted: Bars) -> None:
        wrong = [
            key for key in sorted(bars.keys() | wanted.keys()) if bars.get(key) != wanted.get(key)
        ]
        if wrong:
            key = wrong[-1]
            found[way] = (key, bars.get(key), wanted.get(key), len(wrong))

    for place, (_, _, stub, client) in enumerate(ways):
        compare(f"ListCandles {place}", await listed_by_grpc(stub, since_us), right)
        compare(f"REST {place}", await listed_by_rest(client, since_us), right)
        compare(f"UDF {place}", await listed_by_udf(client, since_us), five_of(right))
    for number, one in enumerate(received):
        # Subscribers receive the newest bars and those before them.
        compare(f"subscriber {number}", one.bars, {key: right.get(key, ()) for key in one.bars})
        newest = {max(key for key in right if key[:2] == kind) for kind in {k[:2] for k in right}}
        assert newest <= one.bars.keys() or found
    return found


def compare_with_the_exchange(
    exchange: Exchange, received: LatestBars, url: str, since_us: int
) -> None:
    """Closed bars, and on spot the running ones, equal the exchange's klines."""
    right = listed_by_sql(url, since_us)
    compared = running = 0
    for symbol in SYMBOLS:
        market = exchange.markets[market_of(symbol).value]
        name = exchange_symbol_of(symbol)
        newest = max(key for key in received.last_ids if key[:2] == (symbol, "1m"))
        view_us = moment_of_trade(
            market, name, received.last_ids[newest], newest[2] - MINUTE_US, newest[2] + MINUTE_US
        )
        open_us = min(unverified(url, symbol), default=newest[2])
        for frame, timeframe in ((one, TIMEFRAMES[one]) for one in FRAMES):
            theirs = klines(market, name, frame, since_us, view_us)
            for (_, _, at_us), values in theirs.items():
                is_over = timeframe.next_open_us(at_us) <= open_us
                if not is_over and symbol != SYMBOLS[0]:
                    continue  # on USD-M, klines count trades that are not streamed
                assert right[symbol, frame, at_us] == values[:9], (symbol, frame, from_us(at_us))
                compared += 1
                running += not is_over
    assert compared > 2 * HISTORY_US // MINUTE_US
    assert running >= len(FRAMES)


def unverified(url: str, symbol: str) -> list[int]:
    """Minutes that are not verified yet."""
    with psycopg.connect(url) as connection:
        found = connection.execute(
            "SELECT open_time FROM market.candles_1m_live"
            " WHERE symbol = %s AND status <> 'verified'",
            (symbol,),
        )
        return [to_us(moment) for (moment,) in found]
