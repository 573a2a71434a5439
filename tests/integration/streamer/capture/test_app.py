"""Raw capture from socket to table: stored rows equal what the exchange serves."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from decimal import Decimal
from pathlib import Path
from typing import Any

import httpx
import psycopg
import pytest
from psycopg import sql
from websockets.asyncio.client import connect

from include.domain.timeframes import to_us
from simulator.config import SimulatorConfig
from simulator.server import Exchange
from tests.integration.streamer.capture.queries import (
    AGG_TRADES,
    BOOK_TICKER_IDS,
    BOOK_TICKERS,
    TRADES,
    Row,
    wait_until,
)
from tests.integration.streamer.harness import settings_for, streaming


async def served(
    exchange: Exchange, method: str, symbol: str, first_id: int, last_id: int
) -> list[dict[str, Any]]:
    """The exchange's rows with these ids, by REST."""
    found: list[dict[str, Any]] = []
    key = "a" if method == "aggTrades" else "id"
    base, path = exchange.spot_rest_url, "/api/v3"
    if symbol.endswith(".P"):
        base, path = exchange.um_rest_url, "/fapi/v1"
    headers = {"X-MBX-TIME-UNIT": "MICROSECOND", "X-MBX-APIKEY": "any"}
    async with httpx.AsyncClient(base_url=base, headers=headers, timeout=60) as client:
        while not found or found[-1][key] < last_id:
            asked = {
                "symbol": symbol.removesuffix(".P"),
                "fromId": found[-1][key] + 1 if found else first_id,
                "limit": 500,
            }
            answer = await client.get(f"{path}/{method}", params=asked)
            answer.raise_for_status()
            found += answer.json()
    return [row for row in found if row[key] <= last_id]


@asynccontextmanager
async def witnessed(
    exchange: Exchange, symbols: Sequence[str]
) -> AsyncIterator[dict[str, list[dict[str, Any]]]]:
    """Book tickers as another client receives them, by symbol."""
    seen: dict[str, list[dict[str, Any]]] = {symbol: [] for symbol in symbols}

    async def listen(symbol: str) -> None:
        stream = f"{symbol.removesuffix('.P').lower()}@bookTicker"
        base = f"{exchange.um_ws_url}/public" if symbol.endswith(".P") else exchange.spot_ws_url
        async with connect(f"{base}/ws/{stream}") as socket:
            async for text in socket:
                if "u" in (quote := json.loads(text)):
                    seen[symbol].append(quote)

    tasks = [asyncio.create_task(listen(symbol)) for symbol in symbols]
    try:
        yield seen
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.wait(tasks)


def in_us(moment: int) -> int:
    return moment if moment > 10**15 else moment * 1000


def assert_agg_trades_equal(rows: list[Row], theirs: list[dict[str, Any]]) -> None:
    assert [(*row[:5], to_us(row[5]), row[6]) for row in rows] == [
        (
            one["a"], Decimal(one["p"]), Decimal(one["q"]), one["f"], one["l"], in_us(one["T"]),
            one["m"],
        )
        for one in theirs
    ]  # fmt: skip


async def test_captured_rows_equal_those_of_the_exchange(
    database_url: str, rows_of: Callable[..., Any], tmp_path: Path
) -> None:
    async with Exchange(SimulatorConfig(speed=20)) as exchange:
        settings = settings_for(exchange, database_url, candelabra_home=tmp_path)
        datasets = ("agg_trades", "trades", "book_tickers")
        symbols = ("BTCUSDT", "ETHBTC", "BTCUSDT.P")

        async def enough() -> bool:
            # Of each table and symbol: a market that hardly trades has quotes all the same.
            return all(
                [
                    len(await rows_of(query, symbol)) >= least
                    for symbol in symbols
                    for query, least in ((AGG_TRADES, 3), (TRADES, 3), (BOOK_TICKERS, 100))
                ]
            )

        async with (
            witnessed(exchange, symbols) as witness,
            streaming(settings, *symbols, capture=datasets) as streamer,
        ):
            await wait_until(enough)

            async def nothing_missing() -> bool:
                return streamer._capture.missing_ranges.waiting_ids == 0

            await wait_until(nothing_missing)  # a busy machine may have cost a connection
        for symbol in symbols:
            rows = await rows_of(AGG_TRADES, symbol)
            ids = [row[0] for row in rows]
            assert ids == list(range(ids[0], ids[-1] + 1))
            theirs = await served(exchange, "aggTrades", symbol, ids[0], ids[-1])
            assert_agg_trades_equal(rows, theirs)

            trades = await rows_of(TRADES, symbol)
            first_id, last_id = trades[0][0], trades[-1][0]
            theirs = await served(exchange, "historicalTrades", symbol, first_id, last_id)
            if symbol.endswith(".P"):
                # The stream has fills of the insurance fund, which REST leaves out.
                trades = [row for row in trades if row[5] == "MARKET"]
            else:
                assert {row[5] for row in trades} == {None}
            assert [(*row[:3], to_us(row[3]), row[4]) for row in trades] == [
                (
                    one["id"], Decimal(one["price"]), Decimal(one["qty"]), in_us(one["time"]),
                    one["isBuyerMaker"],
                )
                for one in theirs
            ]  # fmt: skip

            quotes = await rows_of(
                "SELECT update_id, bid_price, bid_quantity, ask_price, ask_quantity, "
                "event_time IS NULL FROM market.book_tickers WHERE symbol = %s "
                "ORDER BY update_id",
                symbol,
            )
            assert len(quotes) > 20
            assert {row[5] for row in quotes} == {not symbol.endswith(".P")}
            theirs = {one["u"]: one for one in witness[symbol]}
            both = [row for row in quotes if row[0] in theirs]
            assert len(both) > 20
            assert [row[:5] for row in both] == [
                (one["u"], *(Decimal(one[key]) for key in "bBaA"))
                for one in (theirs[row[0]] for row in both)
            ]
            span = range(both[0][0], both[-1][0] + 1)
            assert {row[0] for row in both} == {number for number in theirs if number in span}


async def test_captured_spot_trades_aggregate_to_the_candles(
    database_url: str, rows_of: Callable[..., Any], tmp_path: Path
) -> None:
    async with Exchange(SimulatorConfig(speed=20)) as exchange:
        settings = settings_for(exchange, database_url, candelabra_home=tmp_path)
        aggregated = """
            WITH minutes AS (
                SELECT
                    symbol,
                    date_trunc('minute', trade_time) AS open_time,
                    (array_agg(price ORDER BY agg_trade_id))[1] AS open,
                    max(price) AS high,
                    min(price) AS low,
                    (array_agg(price ORDER BY agg_trade_id DESC))[1] AS close,
                    sum(quantity) AS volume,
                    sum(price * quantity) AS quote_volume,
                    sum(last_trade_id - first_trade_id + 1) AS trade_count,
                    coalesce(sum(quantity) FILTER (WHERE NOT is_buyer_maker), 0) AS buys,
                    min(first_trade_id) AS first_trade_id
                FROM market.agg_trades GROUP BY 1, 2
            )
            SELECT
                (c.open, c.high, c.low, c.close, c.volume, c.quote_volume, c.trade_count,
                 c.taker_buy_volume)
                = (m.open, m.high, m.low, m.close, m.volume, m.quote_volume, m.trade_count, m.buys),
                c.symbol, c.open_time, c.source, c.trade_count, m.trade_count, c.last_trade_id
            FROM minutes AS m INNER JOIN market.candles_1m AS c USING (symbol, open_time)
            WHERE c.first_trade_id = m.first_trade_id AND c.status = 'verified'
        """

        async def enough() -> bool:
            return len(await rows_of(aggregated)) >= 6

        symbols = ("BTCUSDT", "PEPEUSDT")
        async with streaming(settings, *symbols, capture=("agg_trades",)) as streamer:
            await wait_until(enough)

            async def nothing_missing() -> bool:
                return streamer._capture.missing_ranges.waiting_ids == 0

            await wait_until(nothing_missing)  # a busy machine may have cost a connection
        assert [row for row in await rows_of(aggregated) if not row[0]] == []


async def test_trades_missed_in_a_disconnect_are_fetched_by_id(
    database_url: str, rows_of: Callable[..., Any], tmp_path: Path
) -> None:
    async with Exchange(SimulatorConfig(speed=20)) as exchange:
        settings = settings_for(exchange, database_url, candelabra_home=tmp_path)
        symbols = ("BTCUSDT", "BTCUSDT.P")
        datasets = ("agg_trades", "trades")
        async with streaming(settings, *symbols, capture=datasets) as streamer:

            async def filled() -> bool:
                return streamer._capture.missing_ranges.filled_rows > 5

            async def seen() -> bool:
                return bool(await rows_of(AGG_TRADES, "BTCUSDT.P"))

            await wait_until(seen)
            for endpoint in exchange.stream_servers.values():
                endpoint.cut()
            await asyncio.sleep(2)  # during the disconnect simulated time passes
            await wait_until(filled)

            async def nothing_missing() -> bool:
                return streamer._capture.missing_ranges.waiting_ids == 0

            await wait_until(nothing_missing)
        for symbol in symbols:
            ids = [row[0] for row in await rows_of(AGG_TRADES, symbol)]
            assert ids == list(range(ids[0], ids[-1] + 1))
        ids = [row[0] for row in await rows_of(TRADES, "BTCUSDT")]
        assert ids == list(range(ids[0], ids[-1] + 1))
        lost = await rows_of(
            "SELECT DISTINCT symbol, dataset, cause FROM ops.gaps "
            "WHERE dataset <> 'candles_1m' ORDER BY 1"
        )
        assert lost == [("BTCUSDT.P", "trades", "the connection was cut")]


async def test_announced_shutdown_loses_no_row(
    database_url: str, rows_of: Callable[..., Any], tmp_path: Path
) -> None:
    async with Exchange(SimulatorConfig(speed=20)) as exchange:
        settings = settings_for(exchange, database_url, candelabra_home=tmp_path)
        datasets = ("agg_trades", "trades", "book_tickers")
        async with (
            witnessed(exchange, ["BTCUSDT"]) as witness,
            streaming(settings, "BTCUSDT", capture=datasets) as streamer,
        ):

            async def seen() -> bool:
                counts = await rows_of("SELECT count(*) FROM market.book_tickers")
                return bool(counts[0][0] > 20)

            await wait_until(seen)
            exchange.stream_servers["spot"].announce_shutdown(200)
            (feed,) = streamer._capture._feeds.feeds

            async def rotated() -> bool:
                return feed.connection.rotations == 1

            await wait_until(rotated)
            until = len(witness["BTCUSDT"]) + 50

            async def went_on() -> bool:
                return len(witness["BTCUSDT"]) > until

            await wait_until(went_on)
        assert feed.connection.reconnects == 0
        for query in (AGG_TRADES, TRADES):
            ids = [row[0] for row in await rows_of(query, "BTCUSDT")]
            assert ids == list(range(ids[0], ids[-1] + 1))
        assert streamer._capture.missing_ranges.filled_rows == 0
        quotes = [row[0] for row in await rows_of(BOOK_TICKER_IDS)]
        theirs = {one["u"] for one in witness["BTCUSDT"]}
        both = sorted(theirs & set(quotes))
        assert [n for n in quotes if both[0] <= n <= both[-1]] == [
            n for n in sorted(theirs) if both[0] <= n <= both[-1]
        ]
        assert await rows_of("SELECT * FROM ops.gaps WHERE dataset <> 'candles_1m'") == []


@pytest.mark.long
async def test_new_listings_are_captured(
    database_url: str, rows_of: Callable[..., Any], tmp_path: Path
) -> None:
    async with Exchange(SimulatorConfig(speed=20, spot_symbols=("BTCUSDT",))) as exchange:
        settings = settings_for(
            exchange, database_url, candelabra_home=tmp_path, symbols_refresh_s=0.2
        )
        async with streaming(settings, "*USDT", capture=("agg_trades", "trades", "book_tickers")):
            exchange.faults.add(
                {"kind": "new_listing", "market": "spot", "symbols": "NEWUSDT", "at": "+10s"}
            )

            async def captured() -> bool:
                counts = [
                    await rows_of(query, "NEWUSDT") for query in (AGG_TRADES, TRADES, BOOK_TICKERS)
                ]
                return min(map(len, counts)) > 10

            await wait_until(captured)
        for query in (AGG_TRADES, TRADES):
            ids = [row[0] for row in await rows_of(query, "NEWUSDT")]
            assert ids == list(range(ids[0], ids[-1] + 1))


async def test_ids_missed_between_two_starts_are_fetched(
    database_url: str, rows_of: Callable[..., Any], tmp_path: Path
) -> None:
    async with Exchange(SimulatorConfig(speed=20)) as exchange:
        settings = settings_for(exchange, database_url, candelabra_home=tmp_path)
        count = sql.SQL("SELECT count(*) FROM market.agg_trades")

        async def some() -> bool:
            return bool((await rows_of(count))[0][0] > 100)

        async with streaming(settings, "BTCUSDT", capture=("agg_trades",)):
            await wait_until(some)
        before = await rows_of(AGG_TRADES, "BTCUSDT")
        async with await psycopg.AsyncConnection.connect(database_url) as connection:
            # as a kill leaves it: rows of the middle were on their way
            middle = before[len(before) // 2][0]
            await connection.execute(
                "DELETE FROM market.agg_trades WHERE agg_trade_id BETWEEN %s AND %s",
                (middle, middle + 9),
            )
        async with streaming(settings, "BTCUSDT", capture=("agg_trades",)) as streamer:

            async def is_complete() -> bool:
                ids = [row[0] for row in await rows_of(AGG_TRADES, "BTCUSDT")]
                is_whole = ids == list(range(before[0][0], ids[-1] + 1))
                return is_whole and ids[-1] > before[-1][0] + 50

            await wait_until(is_complete)
            assert streamer._capture.missing_ranges.filled_rows >= 10
        rows = await rows_of(AGG_TRADES, "BTCUSDT")
        theirs = await served(exchange, "aggTrades", "BTCUSDT", rows[0][0], rows[-1][0])
        assert_agg_trades_equal(rows, theirs)


async def test_added_symbol_continues_from_stored_rows(
    database_url: str, rows_of: Callable[..., Any], tmp_path: Path
) -> None:
    async with Exchange(SimulatorConfig(speed=20)) as exchange:
        settings = settings_for(exchange, database_url, candelabra_home=tmp_path)
        datasets = ("trades", "book_tickers")

        async def grown(by: int) -> bool:
            return len(await rows_of(TRADES, "BTCUSDT")) >= by

        async with streaming(settings, "BTCUSDT", capture=datasets):
            await wait_until(lambda: grown(50))
        before = await rows_of(TRADES, "BTCUSDT")
        async with streaming(settings, "ETHBTC", capture=datasets) as streamer:

            async def started() -> bool:
                return bool(await rows_of(BOOK_TICKERS, "ETHBTC"))

            await wait_until(started)
            streamer._capture.add(["BTCUSDT"])

            async def went_on() -> bool:
                rows = await rows_of(TRADES, "BTCUSDT")
                ids = [row[0] for row in rows]
                is_whole = ids == list(range(before[0][0], ids[-1] + 1))
                return is_whole and len(ids) > len(before) + 50

            await wait_until(went_on)

            async def is_recorded() -> bool:
                gaps = await rows_of(
                    "SELECT symbol, cause FROM ops.gaps "
                    "WHERE dataset = 'book_tickers' AND symbol = 'BTCUSDT'"
                )
                return gaps == [("BTCUSDT", "nobody captured")]

            await wait_until(is_recorded)
