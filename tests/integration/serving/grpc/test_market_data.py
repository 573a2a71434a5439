"""Candles by gRPC, from a streamer and from a process that stands before it."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from decimal import Decimal
from typing import Any

import grpc
import httpx
import pytest

from include.config import Settings
from include.domain.instruments import exchange_symbol_of, market_of
from include.domain.timeframes import DAY_US, MINUTE_US, TIMEFRAMES, minute_of
from include.jobs.klines.repairs import Repairs
from serving.process import serve
from serving.protobuf.bars import microseconds_of
from serving.protobuf.generated.candelabra.v1 import market_data_pb2 as pb
from serving.protobuf.generated.candelabra.v1 import market_data_pb2_grpc as services
from simulator.config import SimulatorConfig
from simulator.server import Exchange
from streamer.app import Streamer
from tests.integration.streamer.harness import settings_for, streaming

SYMBOLS = ("BTCUSDT", "ETHUSDT.P")
EVERY = list(TIMEFRAMES)


@asynccontextmanager
async def channel_to(address: str) -> AsyncIterator[grpc.aio.Channel]:
    async with grpc.aio.insecure_channel(address) as channel:
        yield channel


async def oracle(exchange: Exchange, symbol: str, interval: str) -> dict[int, tuple[Any, ...]]:
    """All klines of the exchange by open time in µs, as nine values."""
    found: dict[int, tuple[Any, ...]] = {}
    start_ms = 0
    async with httpx.AsyncClient(base_url=exchange.control_url, timeout=30) as client:
        while True:
            answer = await client.get(
                "/sim/klines",
                params={
                    "market": market_of(symbol).value,
                    "symbol": exchange_symbol_of(symbol),
                    "interval": interval,
                    "startTime": start_ms,
                },
            )
            rows = answer.raise_for_status().json()
            fresh = [row for row in rows if row[0] * 1000 not in found]
            if not fresh:
                return found
            for row in fresh:
                found[row[0] * 1000] = tuple(
                    row[i] if i == 8 else Decimal(row[i]) for i in (1, 2, 3, 4, 5, 7, 8, 9, 10)
                )
            start_ms = fresh[-1][0] + 1


def nine(candle: pb.Candle) -> tuple[Any, ...]:
    prices = (candle.open, candle.high, candle.low, candle.close, candle.volume)
    return (
        *map(Decimal, prices),
        Decimal(candle.quote_volume),
        candle.trade_count,
        Decimal(candle.taker_buy_volume),
        Decimal(candle.taker_buy_quote_volume),
    )


async def filled(settings: Settings, exchange: Exchange, database_url: str) -> None:
    """All of the history, by REST."""
    start_us = exchange.clock.now_us() // DAY_US * DAY_US - 3 * DAY_US
    repairs = Repairs(settings, database_url)
    for symbol in SYMBOLS:
        now_us = exchange.clock.now_us()
        await asyncio.to_thread(repairs.repair, symbol, start_us, minute_of(now_us) - 3 * MINUTE_US)
    repairs.close()


@pytest.mark.long
async def test_bars_of_every_timeframe_equal_the_exchange(database_url: str) -> None:
    async with Exchange(SimulatorConfig(speed=60)) as exchange:
        settings = settings_for(exchange, database_url, grpc_port=0)
        await filled(settings, exchange, database_url)
        async with streaming(settings, *SYMBOLS) as streamer:
            address = await grpc_address(streamer)
            async with channel_to(address) as channel:
                stub = services.MarketDataStub(channel)
                told: dict[tuple[str, str], dict[int, pb.Candle]] = {}
                call = stub.StreamCandles(
                    pb.StreamCandlesRequest(symbols=SYMBOLS, timeframes=EVERY), timeout=60
                )
                has_snapshot = False
                async for message in call:
                    assert not message.missed
                    has_snapshot |= message.is_snapshot_end
                    for update in message.updates:
                        one = update.candle
                        bars = told.setdefault((one.symbol, one.timeframe), {})
                        bars[microseconds_of(one.open_time)] = one
                    closed = [
                        one for one in told.get(("BTCUSDT", "5m"), {}).values() if one.is_closed
                    ]
                    if len(closed) >= 4 and has_snapshot:
                        break
                call.cancel()
                listed = await stub.ListCandles(
                    pb.ListCandlesRequest(symbol="BTCUSDT", page_size=500)
                )
        assert set(told) == {(symbol, name) for symbol in SYMBOLS for name in EVERY}
        compared = 0
        for (symbol, name), bars in told.items():
            theirs = await oracle(exchange, symbol, name)
            for open_time_us, one in bars.items():
                if one.is_closed:
                    assert nine(one) == theirs[open_time_us], (symbol, name, one)
                    compared += 1
        assert compared > 50
        minutes = await oracle(exchange, "BTCUSDT", "1m")
        assert len(listed.candles) == 500
        for one in listed.candles:
            assert nine(one) == minutes[microseconds_of(one.open_time)]


@pytest.mark.long
async def test_server_process_loses_no_minute_when_the_streamer_restarts(
    database_url: str,
) -> None:
    """Its reader receives every closed minute, including those of the restart."""
    async with Exchange(SimulatorConfig(speed=30)) as exchange:
        settings = settings_for(exchange, database_url, grpc_port=0)
        stop = asyncio.Event()
        told: dict[int, pb.Candle] = {}
        async with streaming(settings, *SYMBOLS) as streamer:
            address = await grpc_address(streamer)
            ours = settings_for(exchange, database_url, grpc_port=free_port())
            serving = asyncio.create_task(serve(ours, address, stop))
            async with channel_to(f"127.0.0.1:{ours.grpc_port}") as channel:
                stub = services.MarketDataStub(channel)
                call = stub.StreamCandles(
                    pb.StreamCandlesRequest(closed_only=True), wait_for_ready=True, timeout=100
                )
                reading = asyncio.create_task(read_minutes(call, told))
                await until(lambda: len(told) >= 2, serving, reading)
        last_before = max(told)
        await asyncio.sleep(3)  # of our clock; a minute and a half of the exchange's
        again = settings_for(exchange, database_url, grpc_port=int(address.rpartition(":")[2]))
        async with streaming(again, *SYMBOLS) as streamer:
            assert await grpc_address(streamer) == address
            async with channel_to(f"127.0.0.1:{ours.grpc_port}") as channel:
                stub = services.MarketDataStub(channel)
                call = stub.StreamCandles(pb.StreamCandlesRequest(closed_only=True), timeout=100)
                reading = asyncio.create_task(read_minutes(call, told))
                goal_us = last_before + 6 * MINUTE_US
                await until(lambda: max(told) >= goal_us, serving, reading)
                call.cancel()
            stop.set()
            await asyncio.wait_for(serving, 10)
        minutes = sorted(told)
        assert minutes == list(range(minutes[0], minutes[-1] + 1, MINUTE_US))
        theirs = await oracle(exchange, "BTCUSDT", "1m")
        for open_time_us, one in told.items():
            if one.status == pb.STATUS_VERIFIED:
                assert nine(one) == theirs[open_time_us]


async def read_minutes(call: Any, told: dict[int, pb.Candle]) -> None:
    async for message in call:
        for update in message.updates:
            if update.candle.symbol == "BTCUSDT":
                told[microseconds_of(update.candle.open_time)] = update.candle


async def until(holds: Callable[[], bool], *tasks: asyncio.Task[Any]) -> None:
    async with asyncio.timeout(60):
        while not holds():
            for task in tasks:
                if task.done():
                    task.result()
            await asyncio.sleep(0.02)


def free_port() -> int:
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        port: int = one.getsockname()[1]
        return port


async def grpc_address(streamer: Streamer) -> str:
    async with asyncio.timeout(30):
        while not streamer.telemetry.grpc_address:
            await asyncio.sleep(0.02)
    return streamer.telemetry.grpc_address
