"""REST returns what the marts contain: bars, levels, indicators, coverage, gaps."""

from __future__ import annotations

import asyncio
import io
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any

import httpx
import polars as pl
import pytest
from fastapi import FastAPI

from include.domain.instruments import Instrument, Market
from include.domain.timeframes import TIMEFRAMES, to_us
from include.store.candles.bars import read_bars
from include.store.instruments import write_instruments
from include.store.postgres.pools import connect
from serving.app import create_app
from serving.bars.day_prices import DayPriceCache
from serving.bars.live_bars import LiveBars
from serving.read_pool import ReadPool
from streamer.hub.subscription import Batch
from tests.integration.serving.http.described import OF_MARTS, ask_all, on_a_socket

START = datetime(2026, 3, 30, tzinfo=UTC)
MINUTES = 3 * 1440 + 90
NOW = START + timedelta(minutes=MINUTES)


class Silent:
    """A stream without changes."""

    async def receive(self) -> Batch | None:
        await asyncio.Event().wait()
        return None

    def unsubscribe(self) -> None:
        pass


@asynccontextmanager
async def application(url: str) -> AsyncIterator[FastAPI]:
    history = ReadPool(url)
    history.open()
    live_bars = LiveBars(Silent, lambda _symbol, _newest: ((), (), ()))
    app = create_app(
        live_bars,
        history,
        streamed=list,
        now_us=lambda: to_us(NOW),
        newest=live_bars.newest,
        condition=lambda: {"status": "well"},
        prices=DayPriceCache(
            history, streamed=list, newest=live_bars.newest, now_us=lambda: to_us(NOW)
        ),
        requests_per_minute=10_000,
    )
    try:
        yield app
    finally:
        history.close()


@asynccontextmanager
async def api_client(url: str) -> AsyncIterator[httpx.AsyncClient]:
    async with application(url) as app:
        transport = httpx.ASGITransport(app, raise_app_exceptions=False)
        async with httpx.AsyncClient(transport=transport, base_url="http://here") as client:
            yield client


TRADES = [(1, "1000.00", "1.5", False), (2, "1000.10", "2", True), (3, "1009.00", "4", False)]


def store_trades(url: str) -> None:
    """Store the aggTrades of ``TRADES``: id, price, quantity, whether the buyer is the maker."""
    with connect(url, application_name="test") as connection:
        connection.execute(
            "SELECT ops.ensure_partition('market.agg_trades'::regclass, %s)", (START,)
        )
        for number, price, quantity, is_buyer_maker in TRADES:
            moment = START + timedelta(hours=1, seconds=number)
            connection.execute(
                "INSERT INTO market.agg_trades (symbol, day, agg_trade_id, trade_time, price,"
                " quantity, first_trade_id, last_trade_id, is_buyer_maker)"
                " VALUES ('BTCUSDT', %s, %s, %s, %s, %s, %s, %s, %s)",
                (
                    moment.date(), number, moment, Decimal(price), Decimal(quantity), number,
                    number, is_buyer_maker,
                ),
            )  # fmt: skip


@pytest.fixture(scope="module")
def built(shared_market: Any, shared_dbt: Any) -> Any:
    """Three and a half days of one symbol with all marts, and ten unbuilt minutes."""
    with connect(shared_market.url, application_name="test") as connection:
        write_instruments(
            connection,
            [
                Instrument(
                    "BTCUSDT", Market.SPOT, "BTC", "USDT", "TRADING", Decimal("0.01"),
                    Decimal("0.00001"),
                )
            ],
            to_us(START),
        )  # fmt: skip
    shared_market.write("BTCUSDT", START, MINUTES - 10)
    store_trades(shared_market.url)
    shared_dbt("run")
    shared_market.write("BTCUSDT", START + timedelta(minutes=MINUTES - 10), 10)
    return shared_market


async def get(client: httpx.AsyncClient, path: str, **asked: Any) -> Any:
    answer = await client.get(f"/api/v1/{path}", params=asked)
    assert answer.status_code == 200, answer.text
    return answer.json()


async def test_bars_equal_the_live_views(built: Any) -> None:
    async with api_client(built.url) as client:
        for timeframe in TIMEFRAMES.values():
            if timeframe.parent is None:
                continue
            answer = await get(
                client, "candles", symbol="BTCUSDT", timeframe=timeframe.name, limit=10_000
            )
            expected = built.expected(timeframe)
            assert len(answer["candles"]) == len(expected)
            for one in answer["candles"]:
                key = ("BTCUSDT", datetime.fromisoformat(one["open_time"]))
                values = expected[key][1:10]
                assert (
                    Decimal(one["open"]), Decimal(one["high"]), Decimal(one["low"]),
                    Decimal(one["close"]), Decimal(one["volume"]), Decimal(one["quote_volume"]),
                    one["trade_count"], Decimal(one["taker_buy_volume"]),
                    Decimal(one["taker_buy_quote_volume"]),
                ) == values  # fmt: skip
            with connect(built.url, application_name="test") as connection:
                newest = read_bars(connection, "BTCUSDT", timeframe, 0, None, limit=1, newest=True)
            assert newest[0].minute_count == answer["candles"][-1]["minute_count"]


async def test_levels_equal_the_mart(built: Any) -> None:
    async with api_client(built.url) as client:
        (row,) = (await get(client, "symbols/BTCUSDT/levels"))["levels"]
        names = list(row)
        stored = built.connection.execute("SELECT * FROM marts.levels").fetchone()
        assert len(names) == len(stored)
        assert (Decimal(row["all_time_high"]), Decimal(row["fibonacci_61_8"])) == (
            stored[names.index("all_time_high")],
            stored[names.index("fibonacci_61_8")],
        )


async def test_indicators_equal_the_function_oldest_first(built: Any) -> None:
    async with api_client(built.url) as client:
        answer = await get(client, "symbols/BTCUSDT/indicators", timeframe="1h", limit=30)
        rows = answer["indicators"]
        assert len(rows) == 30
        assert [one["open_time"] for one in rows] == sorted(one["open_time"] for one in rows)
        newest = built.connection.execute(
            "SELECT open_time, close, ema_20, rsi_14 FROM marts.indicators('BTCUSDT', '1h', %s, %s)"
            " ORDER BY open_time DESC LIMIT 1",
            (START, NOW),
        ).fetchone()
        assert (
            datetime.fromisoformat(rows[-1]["open_time"]), float(rows[-1]["close"]),
            rows[-1]["ema_20"], rows[-1]["rsi_14"],
        ) == (newest[0], float(newest[1]), newest[2], newest[3])  # fmt: skip
        bulk = await client.get(
            "/api/v1/symbols/BTCUSDT/indicators",
            params={"timeframe": "1h", "limit": 30},
            headers={"accept": "application/vnd.apache.parquet"},
        )
        frame = pl.read_parquet(io.BytesIO(bulk.content))
        assert frame.height == 30
        assert frame.schema["ema_20"] == pl.Float64
        assert frame.schema["open_time"] == pl.Datetime("us", "UTC")


async def test_coverage_and_gaps_equal_the_marts(built: Any) -> None:
    built.connection.execute(
        "INSERT INTO ops.gaps (symbol, dataset, from_time, to_time, cause)"
        " VALUES ('BTCUSDT', 'candles_1m', %s, %s, 'cut')",
        (NOW - timedelta(minutes=5), NOW - timedelta(minutes=4)),
    )
    async with api_client(built.url) as client:
        days = (await get(client, "symbols/BTCUSDT/coverage"))["coverage"]
        assert [one["day"] for one in days] == sorted(one["day"] for one in days)
        assert {one["symbol"] for one in days} == {"BTCUSDT"}
        assert len(days) >= 3
        (gap,) = (await get(client, "symbols/BTCUSDT/gaps"))["gaps"]
        assert (gap["cause"], gap["is_open"]) == ("cut", True)
        later = (NOW + timedelta(days=1)).isoformat()
        assert (await get(client, "symbols/BTCUSDT/gaps", **{"from": later, "to": later}))[
            "gaps"
        ] == []


async def test_profile_and_footprint_equal_the_stored_trades(built: Any) -> None:
    async with api_client(built.url) as client:
        day = START.date().isoformat()
        answer = await get(client, "symbols/BTCUSDT/volume-profile", session=day)
        rows = answer["volume_profile"]
        assert sum(Decimal(one["volume"]) for one in rows) == Decimal("7.5")
        assert sum(Decimal(one["bid_volume"]) for one in rows) == Decimal(2)
        assert [Decimal(one["price_low"]) for one in rows] == sorted(
            Decimal(one["price_low"]) for one in rows
        )
        assert Decimal(answer["session"]["volume"]) == Decimal("7.5")
        assert answer["session"]["kept"] == "partial"  # the candles have more trades
        newest = await get(client, "symbols/BTCUSDT/volume-profile")
        assert newest == answer
        nothing = await get(client, "symbols/BTCUSDT/volume-profile", session="2020-01-01")
        assert nothing == {"volume_profile": [], "session": None}
        asked = {
            "timeframe": "1h",
            "from": (START + timedelta(hours=1)).isoformat(),
            "to": (START + timedelta(hours=3)).isoformat(),
        }
        bars = (await get(client, "symbols/BTCUSDT/footprint", **asked))["footprint"]
        kept = [one for one in bars if one["kept"] != "none"]
        assert sum(Decimal(one["ask_volume"]) for one in kept) == Decimal("5.5")
        assert sum(Decimal(one["bid_volume"]) for one in kept) == Decimal(2)
        assert {one["open_time"] for one in bars if one["kept"] == "none"} == {
            (START + timedelta(hours=2)).isoformat().replace("+00:00", "Z")
        }


async def test_invalid_requests_are_problems(built: Any) -> None:
    async with api_client(built.url) as client:
        for path, status in (
            ("symbols/NONE/levels", 404),
            ("symbols/BTCUSDT/indicators?timeframe=7m", 400),
            ("symbols/BTCUSDT/indicators?limit=5001", 400),
            ("symbols/BTCUSDT/coverage?from=never", 400),
            ("symbols/BTCUSDT/volume-profile?session=today", 400),
            ("symbols/BTCUSDT/footprint?from=2026-01-01&to=2026-02-01", 400),
        ):
            answer = await client.get(f"/api/v1/{path}")
            assert answer.status_code == status, path
            assert answer.headers["content-type"] == "application/problem+json"


@pytest.mark.long
def test_no_request_causes_a_server_error(built: Any) -> None:
    with on_a_socket(lambda: application(built.url)) as url:
        assert ask_all(url, symbols=["BTCUSDT"], only=OF_MARTS) > 100
