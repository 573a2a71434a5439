"""An application before a database with a few minutes, and a client that asks it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from decimal import Decimal
from typing import Any

import httpx
from fastapi import FastAPI

from include.domain.candles import Candle, CandleCandidate, Source, Status
from include.domain.instruments import Instrument, Market
from include.domain.timeframes import MINUTE_US
from include.store.candles.minutes import merge_candidates
from include.store.instruments import write_instruments
from include.store.postgres.pools import connect
from serving.app import create_app
from serving.bars.day_prices import DayPriceCache
from serving.bars.live_bars import LiveBars
from serving.read_pool import ReadPool
from streamer.hub.subscription import Batch, CandleUpdate

T0 = 1_700_000_040_000_000
ROWS = 6
NOW_US = T0 + 600 * MINUTE_US
SYMBOLS = ("BTCUSDT", "ETHUSDT.P")


def candle(symbol: str, index: int) -> Candle:
    price = Decimal(f"{index + 1}.10")
    return Candle(
        symbol, T0 + index * MINUTE_US, price, price + 1, price, price, Decimal("1E-8"),
        Decimal("0.10"), 1, Decimal(0), Decimal(0), index, index,
    )  # fmt: skip


class Live:
    """One open minute of one symbol."""

    def __init__(self) -> None:
        self.told = False

    async def receive(self) -> Batch | None:
        if self.told:
            await asyncio.Event().wait()
        self.told = True
        return Batch([CandleUpdate(candle("BTCUSDT", ROWS), is_closed=False)], {})

    def unsubscribe(self) -> None:
        pass


@asynccontextmanager
async def application(url: str, **options: Any) -> AsyncIterator[FastAPI]:
    history = ReadPool(url)
    history.open()
    live_bars = LiveBars(Live, lambda _symbol, _newest: ((), (), ()), is_always_on=True)
    prices = DayPriceCache(
        history, streamed=lambda: ["BTCUSDT"], newest=live_bars.newest, now_us=lambda: NOW_US
    )
    listening = asyncio.create_task(live_bars.run())
    reading = asyncio.create_task(prices.run())
    app = create_app(
        live_bars,
        history,
        streamed=lambda: ["BTCUSDT"],
        newest=live_bars.newest,
        prices=prices,
        **{
            "requests_per_minute": 100_000,
            "condition": lambda: {"status": "well"},
            "now_us": lambda: NOW_US,
        }
        | options,
    )
    try:
        yield app
    finally:
        for task in (listening, reading):
            task.cancel()
        await asyncio.wait([listening, reading])
        history.close()


@asynccontextmanager
async def api_client(url: str, **options: Any) -> AsyncIterator[httpx.AsyncClient]:
    async with application(url, **options) as app, api_client_of(app) as client:
        yield client


@asynccontextmanager
async def api_client_of(app: FastAPI) -> AsyncIterator[httpx.AsyncClient]:
    transport = httpx.ASGITransport(app, raise_app_exceptions=False)
    async with httpx.AsyncClient(transport=transport, base_url="http://here") as client:
        yield client


def fill(database_url: str) -> None:
    """A few minutes of two symbols."""
    instruments = [
        Instrument(
            "BTCUSDT", Market.SPOT, "BTC", "USDT", "TRADING", Decimal("0.01"), Decimal("0.00001")
        ),
        Instrument(
            "ETHUSDT.P", Market.UM, "ETH", "USDT", "TRADING", Decimal("0.01"), Decimal("0.001"),
            listed_at_us=T0 - 10 * MINUTE_US,
        ),
    ]  # fmt: skip
    with connect(database_url, application_name="test") as connection:
        write_instruments(connection, instruments, T0)
        merge_candidates(
            connection,
            [
                CandleCandidate(
                    candle(symbol, index), Status.VERIFIED, Source.REST, evidence_at_us=NOW_US
                )
                for symbol in SYMBOLS
                for index in range(ROWS)
            ],
        )
