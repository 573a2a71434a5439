from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from decimal import Decimal
from typing import Any

import httpx
import psycopg

from include.config import Settings, load_settings
from include.domain.instruments import exchange_symbol_of, market_of
from include.domain.timeframes import MINUTE_US, from_us, minute_of, to_us
from serving.beside_streamer import BESIDE_STREAMER
from simulator.server import Exchange
from streamer.app import Streamer
from streamer.symbols.startup import StreamOptions

Row = dict[str, Any]
Rows = dict[tuple[str, int], Row]
UNSURE = "status = 'unconfirmed', source = 'stream', source_rank = 40"


def settings_for(exchange: Exchange, database_url: str, **overrides: object) -> Settings:
    return load_settings(
        database_url=database_url,
        binance_ws_url=exchange.spot_ws_url,
        binance_rest_url=exchange.spot_rest_url,
        binance_um_ws_url=exchange.um_ws_url,
        binance_cm_ws_url=exchange.cm_ws_url,
        binance_um_rest_url=exchange.um_rest_url,
        binance_cm_rest_url=exchange.cm_rest_url,
        binance_dump_url=exchange.dump_url,
        **overrides,
    )


@asynccontextmanager
async def streaming(settings: Settings, *symbols: str, **options: Any) -> AsyncIterator[Streamer]:
    """A streamer at work; stopped cleanly at the end."""
    streamer = Streamer(settings, StreamOptions(symbols=symbols, **options), BESIDE_STREAMER)
    task = asyncio.create_task(streamer.run())
    try:
        yield streamer
        if task.done():
            task.result()
        streamer.stop()
        await asyncio.wait_for(task, 10)
    finally:
        if not task.done():
            task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await task


async def rows_of(database_url: str) -> dict[tuple[str, int], Row]:
    """All rows of candles_1m by symbol and open time in µs."""
    async with await psycopg.AsyncConnection.connect(
        database_url, row_factory=psycopg.rows.dict_row
    ) as connection:
        cursor = await connection.execute("SELECT * FROM market.candles_1m")
        return {(row["symbol"], to_us(row["open_time"])): row for row in await cursor.fetchall()}


async def wait_for_rows(
    database_url: str,
    enough: Callable[[dict[tuple[str, int], Row]], bool],
    *,
    timeout_s: float = 60,
) -> dict[tuple[str, int], Row]:
    rows: dict[tuple[str, int], Row] = {}
    try:
        async with asyncio.timeout(timeout_s):
            while not enough(rows := await rows_of(database_url)):
                await asyncio.sleep(0.1)
    except TimeoutError:
        shown = [(s, f"{from_us(t):%H:%M}", r["status"], r["source"]) for (s, t), r in rows.items()]
        raise AssertionError(f"not enough rows in {timeout_s} s: {sorted(shown)}") from None
    return rows


def minutes_of(rows: dict[tuple[str, int], Row], symbol: str) -> list[int]:
    return sorted(minute for name, minute in rows if name == symbol)


def rows_to(rows: Rows, last_us: int) -> Rows:
    """Rows up to this minute: newer ones may still change."""
    return {key: row for key, row in rows.items() if key[1] <= last_us}


def verified_to(rows: Rows, last_us: int, symbols: list[str]) -> bool:
    """Whether every symbol has all minutes from its first to this one, each of them verified.

    Newer minutes do not count: on a busy machine the newest one is never verified yet.
    """
    for symbol in symbols:
        minutes = minutes_of(rows_to(rows, last_us), symbol)
        if not minutes or minutes != list(range(minutes[0], last_us + 1, MINUTE_US)):
            return False
        if not is_verified(rows, symbol, *minutes):
            return False
    return True


def damage(database_url: str, symbol: str, lost_us: int, unsure_us: int) -> None:
    """Leave a table as a streamer that was killed may: a row is missing, another not confirmed."""
    row = "WHERE symbol = %s AND open_time = %s"
    with psycopg.connect(database_url) as connection:
        for statement, at_us in (
            (f"DELETE FROM market.candles_1m {row}", lost_us),  # noqa: S608 - constants
            (f"UPDATE market.candles_1m SET {UNSURE} {row}", unsure_us),  # noqa: S608
        ):
            assert connection.execute(statement, (symbol, from_us(at_us))).rowcount == 1


def is_verified(rows: dict[tuple[str, int], Row], symbol: str, *minutes_us: int) -> bool:
    """Whether there is a row of each minute, and the exchange has confirmed it."""
    found = [rows.get((symbol, at_us)) for at_us in minutes_us]
    return all(row is not None and row["status"] == "verified" for row in found)


def open_gaps(database_url: str, symbol: str) -> int:
    """The number of open gaps of a symbol."""
    with psycopg.connect(database_url) as connection:
        row = connection.execute(
            "SELECT count(*) FROM ops.gaps WHERE symbol = %s AND repaired_at IS NULL", (symbol,)
        ).fetchone()
    assert row is not None
    return int(row[0])


async def assert_equal_to_the_exchange(
    exchange: Exchange, rows: dict[tuple[str, int], Row], symbols: list[str]
) -> None:
    """No minute is missing between first and last, and all nine values are the oracle's."""
    async with httpx.AsyncClient(base_url=exchange.control_url, timeout=30) as client:
        for symbol in symbols:
            minutes = minutes_of(rows, symbol)
            assert minutes == list(range(minutes[0], minutes[-1] + 1, MINUTE_US)), symbol
            answer = await client.get(
                "/sim/klines",
                params={
                    "market": market_of(symbol).value,
                    "symbol": exchange_symbol_of(symbol),
                    "interval": "1m",
                    "startTime": minutes[0] // 1000,
                    "endTime": minutes[-1] // 1000,
                },
            )
            theirs = {row[0] * 1000: row for row in answer.json()}
            for minute in minutes:
                row = rows[symbol, minute]
                names = ("open", "high", "low", "close", "volume")
                ours = (
                    *(row[name] for name in names),
                    row["quote_volume"],
                    row["trade_count"],
                    row["taker_buy_volume"],
                    row["taker_buy_quote_volume"],
                )
                expected = tuple(Decimal(theirs[minute][i]) for i in (1, 2, 3, 4, 5, 7, 8, 9, 10))
                assert ours == expected, (symbol, from_us(minute), row["source"])


async def minutes_continue(
    exchange: Exchange, database_url: str, symbols: list[str], *, minutes: int = 2
) -> None:
    """Wait until this many more minutes are verified and equal to the exchange's."""
    goal_us = minute_of(exchange.clock.now_us()) + (minutes - 1) * MINUTE_US
    rows = await wait_for_rows(database_url, lambda rows: verified_to(rows, goal_us, symbols))
    await assert_equal_to_the_exchange(exchange, rows_to(rows, goal_us), symbols)


async def passed(exchange: Exchange, moment_us: int) -> None:
    async with asyncio.timeout(60):
        while exchange.clock.now_us() < moment_us:
            await asyncio.sleep(0.005)
