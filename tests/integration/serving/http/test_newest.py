"""REST from memory: newest bars, book tickers, statistics."""

from __future__ import annotations

import time
from typing import Any

import httpx
import pytest

from include.domain.candles import CandleCandidate, Source, Status
from include.domain.timeframes import MINUTE_US
from include.errors import TransientError
from include.store.candles.minutes import merge_candidates
from include.store.postgres.pools import connect
from serving.http.routes import symbols as symbols_module
from streamer.hub.ticks import BookTickerUpdate
from streamer.hub.trade_hub import BookTickerHub, TickHubs
from tests.integration.serving.http.api_client import (
    NOW_US,
    ROWS,
    T0,
    api_client,
    api_client_of,
    application,
    candle,
)

SOON_US = T0 + (ROWS + 2) * MINUTE_US
"""The newest minute in memory has just ended."""
UNAVAILABLE_STREAM: list[dict[str, Any]] = [
    {"now_us": lambda: NOW_US},
    {"now_us": lambda: SOON_US, "is_remote": True, "condition": lambda: {"status": "ailing"}},
]


async def price_of(client: httpx.AsyncClient, symbol: str) -> tuple[str, bool]:
    told = (await client.get(f"/api/v1/symbols/{symbol}/price")).raise_for_status().json()
    return told["price"], told["is_live"]


async def test_newest_bars_come_from_memory_or_the_table(stored_url: str) -> None:
    async with api_client(stored_url, now_us=lambda: SOON_US) as client:
        asked = {"symbol": "ETHUSDT.P,BTCUSDT"}
        told = (await client.get("/api/v1/candles/latest", params=asked)).json()["candles"]
        assert [(one["symbol"], one["close"], one["is_closed"]) for one in told] == [
            ("ETHUSDT.P", f"{ROWS}.10", True),
            ("BTCUSDT", f"{ROWS + 1}.10", False),
        ]
        hours = asked | {"timeframe": "1h"}
        for _ in range(2):
            told = (await client.get("/api/v1/candles/latest", params=hours)).json()["candles"]
            assert [(one["symbol"], one["timeframe"]) for one in told] == [
                ("ETHUSDT.P", "1h"), ("BTCUSDT", "1h"),
            ]  # fmt: skip
            assert told[1]["close"] == f"{ROWS + 1}.10"
        lines = (
            await client.get("/api/v1/candles/latest", params=asked, headers={"accept": "text/csv"})
        ).text.splitlines()
        assert len(lines) == 3
        for wrong, status in (
            ({"symbol": "NONE"}, 404),
            ({}, 400),
            (asked | {"timeframe": "7m"}, 400),
        ):
            answer = await client.get("/api/v1/candles/latest", params=wrong)
            assert answer.status_code == status


async def test_only_the_newest_candle_comes_from_memory(stored_url: str) -> None:
    async with api_client(stored_url, now_us=lambda: SOON_US) as client:
        asked = {"symbol": "ETHUSDT.P,BTCUSDT", "limit": "1"}
        told = (await client.get("/api/v1/candles", params=asked)).raise_for_status().json()
        assert [(one["close"], one["is_closed"]) for one in told["candles"]] == [
            (f"{ROWS}.10", True),
            (f"{ROWS + 1}.10", False),  # in no table
        ]
        assert told["next_cursor"] is None
        of_table = asked | {"from": str(T0 // 1_000), "symbol": "BTCUSDT"}
        told = (await client.get("/api/v1/candles", params=of_table)).raise_for_status().json()
        assert [one["close"] for one in told["candles"]] == ["1.10"]


@pytest.mark.parametrize("options", UNAVAILABLE_STREAM)
async def test_stale_memory_is_bypassed_for_the_table(
    stored_url: str, options: dict[str, Any]
) -> None:
    """A streamer that dropped the symbol, or is unreachable, does not know what others write."""
    async with api_client(stored_url, **options) as client:
        for path, asked in (
            ("/api/v1/candles", {"symbol": "BTCUSDT", "limit": "1"}),
            ("/api/v1/candles/latest", {"symbol": "BTCUSDT"}),
        ):
            told = (await client.get(path, params=asked)).raise_for_status().json()["candles"]
            assert [(one["close"], one["is_closed"]) for one in told] == [(f"{ROWS}.10", True)]


async def test_price_comes_from_the_stream_or_the_table(stored_url: str) -> None:
    async with api_client(stored_url, now_us=lambda: SOON_US) as client:
        assert await price_of(client, "BTCUSDT") == (f"{ROWS + 1}.10", True)
        assert await price_of(client, "ETHUSDT.P") == (f"{ROWS}.10", False)


@pytest.mark.parametrize("options", UNAVAILABLE_STREAM)
async def test_price_of_an_unavailable_stream_is_the_newest_known(
    stored_url: str, options: dict[str, Any]
) -> None:
    async with api_client(stored_url, **options) as client:
        assert await price_of(client, "BTCUSDT") == (f"{ROWS + 1}.10", False)
        with connect(stored_url, application_name="test") as connection:  # what others write
            stored = candle("BTCUSDT", ROWS + 1)
            merge_candidates(
                connection,
                [CandleCandidate(stored, Status.VERIFIED, Source.REST, evidence_at_us=NOW_US)],
            )
        assert await price_of(client, "BTCUSDT") == (f"{ROWS + 2}.10", False)


async def test_price_comes_from_memory_while_the_table_is_unavailable(
    stored_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def away(_: Any) -> None:
        raise TransientError("PostgreSQL is away")

    async with (
        application(stored_url, **UNAVAILABLE_STREAM[0]) as app,
        api_client_of(app) as client,
    ):
        await client.get("/api/v1/symbols")
        monkeypatch.setattr(app.state.context.history, "call", away)
        assert await price_of(client, "BTCUSDT") == (f"{ROWS + 1}.10", False)
        answer = await client.get("/api/v1/symbols/ETHUSDT.P/price")
        assert answer.status_code == 503


async def test_statistics_cover_the_market_and_its_readers(stored_url: str) -> None:
    hubs = TickHubs()
    async with api_client(stored_url, ticks=hubs, statistics=lambda: {"disconnects": 3}) as client:
        with hubs.trades.subscribe(["BTCUSDT"]):
            told = (await client.get("/api/v1/statistics")).json()
        assert told["symbols"] == 1
        assert told["market"] == {"disconnects": 3}
        assert told["exchange_time"].startswith("2023-11-15T")
        assert told["readers"] == {
            "websockets": 0,
            "websockets_accepted": 0,
            "subscriptions": 0,
            "websocket_bars_conflated": 0,
            "bars_conflated": 0,
            "trade_readers": 1,
            "trade_symbols": 1,
            "book_readers": 0,
            "book_symbols": 0,
        }


async def test_book_ticker_is_served_once_received(
    stored_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(symbols_module, "BOOK_TIMEOUT_S", 0.1)
    hubs = TickHubs(book_tickers=BookTickerHub(max_symbols=1, linger_s=100))
    async with api_client(stored_url, ticks=hubs) as client:
        answer = await client.get("/api/v1/symbols/BTCUSDT/book")
        assert (answer.status_code, answer.headers["retry-after"]) == (503, "1")
        assert "subscribed now: try again" in answer.json()["detail"]
        hubs.book_tickers.publish(
            BookTickerUpdate("BTCUSDT", 7, "1.10", "2", "1.20", "3", None, T0)
        )
        assert (await client.get("/api/v1/symbols/BTCUSDT/book")).json() == {
            "symbol": "BTCUSDT",
            "update_id": 7,
            "bid_price": "1.10",
            "bid_quantity": "2",
            "ask_price": "1.20",
            "ask_quantity": "3",
            "event_time": None,
            "received_time": "2023-11-14T22:14:00Z",
        }
        assert (await client.get("/api/v1/symbols/ETHUSDT.P/book")).status_code == 404
        assert (await client.get("/api/v1/symbols/NONE/book")).status_code == 404
    async with api_client(stored_url) as client:
        assert (await client.get("/api/v1/symbols/BTCUSDT/book")).status_code == 503


MART = """
SELECT
    symbol, open_time, open, high, low, close, volume, quote_volume, trade_count,
    taker_buy_volume, taker_buy_quote_volume, first_trade_id, last_trade_id,
    1 AS minute_count, true AS is_closed
FROM market.candles_1m
"""


@pytest.mark.parametrize("obstacle", ["a lock", "a roll-up of all history"])
async def test_newest_bars_answer_while_a_load_holds_their_mart(
    stored_url: str, obstacle: str
) -> None:
    """During a load the live view would roll up every stale bar to find the newest."""
    is_locked = obstacle == "a lock"
    with (
        connect(stored_url, application_name="test") as connection,
        connect(stored_url, application_name="load", autocommit=False) as load,
    ):
        connection.execute("CREATE SCHEMA IF NOT EXISTS marts")
        kind, where = ("TABLE", "") if is_locked else ("VIEW", "CROSS JOIN pg_sleep(60)")
        connection.execute(f"CREATE {kind} marts.candles_1h_live AS {MART} {where}")  # type: ignore[arg-type]
        if is_locked:
            load.execute("LOCK TABLE marts.candles_1h_live IN ACCESS EXCLUSIVE MODE")
        async with api_client(stored_url) as client:
            asked = {"symbol": "BTCUSDT", "timeframe": "1h", "limit": "500"}
            began_s = time.monotonic()
            told = (await client.get("/api/v1/candles", params=asked)).raise_for_status().json()
            assert sum(one["minute_count"] for one in told["candles"]) == ROWS
            assert told["candles"][-1]["close"] == f"{ROWS}.10"
            before = asked | {"to": str((T0 + (ROWS + 60) * MINUTE_US) // 1_000)}
            older = (await client.get("/api/v1/candles", params=before)).raise_for_status().json()
            assert older == told
            assert time.monotonic() - began_s < 10
        load.rollback()
