"""Candles from streamers over a real NATS server to readers of other processes."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

import grpc
import httpx
import pytest
from websockets.asyncio.client import connect

from include.domain.timeframes import MINUTE_US, from_us
from serving.process import serve
from serving.protobuf.bars import microseconds_of
from serving.protobuf.generated.candelabra.v1 import market_data_pb2 as pb
from serving.protobuf.generated.candelabra.v1 import market_data_pb2_grpc as services
from serving.sources.nats import connection as nats
from simulator.config import SimulatorConfig
from simulator.server import Exchange
from streamer.hub import hub
from tests.integration.serving.grpc.test_market_data import nine, oracle
from tests.integration.streamer.harness import (
    assert_equal_to_the_exchange,
    rows_of,
    settings_for,
    streaming,
    wait_for_rows,
)
from tests.nats_server import nats_server
from tests.ports import steady_port

SYMBOLS = ["BTCUSDT", "ETHUSDT.P"]
FAST = SimulatorConfig(speed=60)
AWAY_MINUTES = 8
REMEMBERED_MINUTES = 5
"""By streamers: what is older can come from the table alone."""


@pytest.fixture(autouse=True)
def _quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(nats, "BACKOFF", nats.Backoff(first_s=0.1, max_s=0.5, min_s=0.05))
    monkeypatch.setattr(nats, "CONNECT_TIMEOUT_S", 1)
    monkeypatch.setattr(nats, "ANSWER_TIMEOUT_S", 2)
    monkeypatch.setattr(hub, "CLOSED_MINUTES", REMEMBERED_MINUTES)


@dataclass
class Reader:
    """One reader of a server, and the minutes it received."""

    api: str
    told: dict[tuple[str, int], pb.Candle] = field(default_factory=dict)
    missed: list[pb.Missed] = field(default_factory=list)

    def take(self, message: pb.StreamCandlesResponse) -> None:
        self.missed += message.missed
        for update in message.updates:
            one = update.candle
            key = (one.symbol, microseconds_of(one.open_time))
            before = self.told.get(key)
            if before is not None and before.status and one.status and nine(before) != nine(one):
                assert update.is_revision, (before, one)
            self.told[key] = one

    def closed(self, symbol: str) -> list[int]:
        return sorted(us for (name, us), one in self.told.items() if name == symbol and one.status)

    def has(self, symbols: list[str], minutes: int, since_us: int = 0) -> bool:
        return all(
            len([one for one in self.closed(symbol) if one >= since_us]) >= minutes
            for symbol in symbols
        )

    async def details(self) -> dict[str, Any]:
        async with httpx.AsyncClient(timeout=30) as client:
            answer = await client.get(f"http://{self.api}/api/v1/health/details")
            return dict(answer.raise_for_status().json()["components"]["market"])


@asynccontextmanager
async def reading(exchange: Exchange, database_url: str, nats_url: str) -> AsyncIterator[Reader]:
    """A separate server on NATS, and a reader of it."""
    ports = {"grpc_port": steady_port(), "api_port": steady_port()}
    ours = settings_for(exchange, database_url, nats_url=nats_url, **ports)
    stop = asyncio.Event()
    serving = asyncio.create_task(serve(ours, "", stop))
    reader = Reader(f"127.0.0.1:{ours.api_port}")
    channel = grpc.aio.insecure_channel(f"127.0.0.1:{ours.grpc_port}")

    async def read() -> None:
        request = pb.StreamCandlesRequest()
        async for message in services.MarketDataStub(channel).StreamCandles(
            request, wait_for_ready=True
        ):
            reader.take(message)

    task = asyncio.create_task(read())
    try:
        yield reader
        assert not task.done()
    finally:
        task.cancel()
        await asyncio.wait([task], timeout=5)
        await channel.close()
        stop.set()
        await asyncio.wait_for(serving, 10)


async def until(
    condition: Callable[[], bool], *, timeout_s: float = 90, shown: Callable[[], object] = dict
) -> None:
    try:
        async with asyncio.timeout(timeout_s):
            while not condition():
                await asyncio.sleep(0.05)
    except TimeoutError:
        raise AssertionError(f"not within {timeout_s} s: {shown()}") from None


def shown(*readers: Reader) -> Callable[[], object]:
    return lambda: [
        [f"{s} {from_us(us):%H:%M} {one.status}" for (s, us), one in sorted(reader.told.items())]
        for reader in readers
    ]


async def assert_nothing_is_lost(exchange: Exchange, reader: Reader, symbols: list[str]) -> None:
    """The reader received every minute up to the newest closed one, with the exchange's values."""
    assert not reader.missed
    for symbol in symbols:
        minutes = reader.closed(symbol)
        told = {minute: reader.told[symbol, minute] for minute in minutes}
        theirs = await oracle(exchange, symbol, "1m")  # which goes on, and has all of these
        assert minutes == list(range(minutes[0], minutes[-1] + 1, MINUTE_US)), symbol
        for minute, one in told.items():
            if one.status == pb.STATUS_VERIFIED:  # others may still change
                assert nine(one) == theirs[minute], (symbol, from_us(minute))
        assert any(one.status == pb.STATUS_VERIFIED for one in told.values()), symbol


@pytest.mark.long
async def test_servers_lose_nothing_when_nats_and_a_streamer_restart(
    database_url: str,
) -> None:
    async with Exchange(FAST) as exchange, nats_server() as nats:
        settings = settings_for(
            exchange, database_url, grpc=False, api=False, nats_url=nats.url, streamer_http_port=0
        )
        async with (
            reading(exchange, database_url, nats.url) as early,
            streaming(settings, "BTCUSDT"),
        ):
            async with streaming(settings, "ETHUSDT.P"):
                await until(lambda: early.has(SYMBOLS, 2), shown=shown(early))
                async with reading(exchange, database_url, nats.url) as late:
                    await until(lambda: late.has(SYMBOLS, 2), shown=shown(late))
                    for symbol in SYMBOLS:  # it received what came before it
                        assert late.closed(symbol)[0] == early.closed(symbol)[0]
                    nats.kill()
                    before_us = max(us for _, us in early.told)
                    away_us = before_us + AWAY_MINUTES * MINUTE_US
                    await wait_for_rows(  # minutes published while disconnected
                        database_url, lambda rows: all((one, away_us) in rows for one in SYMBOLS)
                    )
                    assert (await early.details())["status"] == "ailing"
                    await nats.start()
                    since_us = away_us + MINUTE_US
                    await until(
                        lambda: early.has(SYMBOLS, 1, since_us) and late.has(SYMBOLS, 1, since_us),
                        shown=shown(early, late),
                    )
                    assert (await early.details())["disconnects"] >= 1
                    for reader in (early, late):
                        await until_whole(reader, SYMBOLS)
                        await assert_nothing_is_lost(exchange, reader, SYMBOLS)
            # One streamer is away for some minutes, and fills them when it is back.
            since_us = max(us for _, us in early.told) + 2 * MINUTE_US
            await until(lambda: early.has(["BTCUSDT"], 1, since_us), shown=shown(early))
            async with streaming(settings, "ETHUSDT.P"):
                since_us += 2 * MINUTE_US
                await until(lambda: early.has(SYMBOLS, 1, since_us), shown=shown(early))
                await until_whole(early, SYMBOLS)
                await assert_nothing_is_lost(exchange, early, SYMBOLS)
                assert await newest_by_websocket(early) == set(SYMBOLS)


async def until_whole(reader: Reader, symbols: list[str]) -> None:
    """What the table is read for comes a little later."""
    await until(
        lambda: all(
            (found := reader.closed(symbol)) == list(range(found[0], found[-1] + 1, MINUTE_US))
            for symbol in symbols
        ),
        shown=shown(reader),
    )


async def newest_by_websocket(reader: Reader) -> set[str]:
    """Symbols of which a WebSocket reader receives a five-minute bar."""
    found: set[str] = set()
    async with connect(f"ws://{reader.api}/api/v1/ws") as socket, asyncio.timeout(30):
        await socket.send(
            json.dumps({"type": "subscribe", "channel": "candles", "timeframe": "5m"})
        )
        while found != set(SYMBOLS):
            message = json.loads(await socket.recv())
            if message["type"] == "candles":
                found |= {one["symbol"] for one in message["data"]}
    return found


async def test_streamer_stores_candles_while_nats_is_down_or_hangs(database_url: str) -> None:
    async with Exchange(FAST) as exchange, nats_server() as nats:
        nats.kill()
        settings = settings_for(
            exchange, database_url, grpc=False, api=False, nats_url=nats.url, streamer_http_port=0
        )
        async with streaming(settings, *SYMBOLS) as streamer:
            await wait_for_rows(
                database_url, lambda rows: all(len(of(rows, one)) >= 2 for one in SYMBOLS)
            )
            bus = streamer.telemetry.publisher
            assert bus is not None
            assert bus.condition()["status"] == "ailing"
            await nats.start()
            async with reading(exchange, database_url, nats.url) as reader:
                await until(lambda: reader.has(SYMBOLS, 1), shown=shown(reader))
                assert bus.condition()["status"] == "well"
                nats.hold()
                before_us = max(us for _, us in reader.told)
                rows = await wait_for_rows(
                    database_url,
                    lambda rows: all((one, before_us + 3 * MINUTE_US) in rows for one in SYMBOLS),
                )
                await until(lambda: bus.disconnects >= 1)
                nats.let_go()
                await until(lambda: reader.has(SYMBOLS, 1, before_us + 4 * MINUTE_US))
                await until_whole(reader, SYMBOLS)
                await assert_nothing_is_lost(exchange, reader, SYMBOLS)
        rows = await rows_of(database_url)
        await assert_equal_to_the_exchange(exchange, rows, SYMBOLS)


def of(rows: dict[tuple[str, int], Any], symbol: str) -> list[int]:
    return [us for name, us in rows if name == symbol]
