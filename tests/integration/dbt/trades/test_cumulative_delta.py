"""The cumulative delta of every timeframe ends at the same instant if trades are missing."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import datetime, timedelta
from decimal import Decimal
from functools import cache
from typing import Any

import psycopg
import pytest

from tests.integration.dbt.conftest import BARS
from tests.integration.dbt.trades.simulated import SESSION, START, Trade, store_trades

MINUTE = timedelta(minutes=1)
MINUTES = 300  # of the session
MISSING = range(150, 180)  # inside an hour, aligned to narrower bars
WIDTHS = {"1m": 1, "3m": 3, "5m": 5, "15m": 15, "30m": 30, "1h": 60, "4h": 240}
WMISSING, NOT_STORED, LOST, OUTAGE, AHEAD, EDGE = (
    f"{name}USDT" for name in ("AAA", "BBB", "CCC", "DDD", "EEE", "FFF")
)


@cache
def trades_of(symbol: str) -> list[Trade]:
    """Three a minute; takers buy more than they sell."""
    return [
        Trade(
            symbol, n, Decimal(1000), Decimal(1 + n % 5), n, n,
            START + n * timedelta(seconds=20), n % 3 == 0,
        )
        for n in range(3 * MINUTES)
    ]  # fmt: skip


def place(trade: Trade) -> int:
    return (trade.at - START) // MINUTE


def store_candles(connection: psycopg.Connection[Any], trades: Iterable[Trade]) -> None:
    minutes: dict[tuple[str, datetime], list[Trade]] = {}
    for trade in trades:
        minutes.setdefault((trade.symbol, trade.minute), []).append(trade)
    connection.execute("SELECT ops.ensure_partition('market.candles_1m'::regclass, %s)", (START,))
    with connection.cursor() as cursor:
        cursor.executemany(
            "INSERT INTO market.candles_1m (symbol, open_time, open, high, low, close, volume,"
            " quote_volume, trade_count, taker_buy_volume, taker_buy_quote_volume, status, source,"
            " source_rank, evidence_at) VALUES (%s, %s, 1000, 1000, 1000, 1000, %s, %s, %s, %s, %s,"
            " 'verified', 'rest', 80, '2026-11-20')",
            [
                (*key, volume, 1000 * volume, len(held), bought, 1000 * bought)
                for key, held in minutes.items()
                for volume in [sum(one.quantity for one in held)]
                for bought in [sum(one.quantity for one in held if not one.is_buyer_maker)]
            ],
        )


@pytest.fixture(scope="module")
def built(shared_market: Any, shared_dbt: Any) -> psycopg.Connection[Any]:
    """A session of six symbols, each with different missing data."""
    connection: psycopg.Connection[Any] = shared_market.connection
    kept, candles = [], []
    for symbol in (WMISSING, NOT_STORED, LOST, OUTAGE, AHEAD, EDGE):
        for trade in trades_of(symbol):
            is_missing = place(trade) in MISSING
            if not (is_missing and symbol in (NOT_STORED, LOST, OUTAGE)):
                kept.append(trade)
            if not (is_missing and symbol in (LOST, OUTAGE)) and not (
                symbol == AHEAD and place(trade) >= MINUTES - 10
            ):
                candles.append(trade)
    # The exchange counts one trade of EDGE in the next minute.
    moved = next(one for one in candles if one.symbol == EDGE and place(one) == 100)
    candles.remove(moved)
    candles.append(Trade(**{**vars(moved), "at": moved.at + MINUTE}))
    store_trades(connection, kept)
    store_candles(connection, candles)
    begin, end = (START + minute * MINUTE for minute in (MISSING.start, MISSING.stop))
    shared_market.declare_outage(OUTAGE, begin, end)
    shared_dbt(
        "run", "--select", BARS, "path:models/intermediate/trades", "path:models/marts/trades"
    )
    return connection


def sum_until(symbol: str, minute: int) -> Decimal | None:
    """The sum at the end of a minute, from the stored trades."""
    held = [one for one in trades_of(symbol) if place(one) <= minute]
    if symbol in (NOT_STORED, LOST) and minute >= MISSING.start:
        return None
    if symbol == OUTAGE:
        held = [one for one in held if place(one) not in MISSING]
    if symbol == EDGE and minute == 100:
        return None
    return sum((-one.quantity if one.is_buyer_maker else one.quantity for one in held), Decimal(0))


@pytest.mark.parametrize("symbol", [WMISSING, NOT_STORED, LOST, OUTAGE, AHEAD, EDGE])
def test_every_timeframe_agrees_about_an_instant(built: Any, symbol: str) -> None:
    for timeframe, width in WIDTHS.items():
        rows = built.execute(
            "SELECT open_time, cumulative_delta FROM marts.cumulative_delta(%s, %s, %s, %s)",
            (symbol, timeframe, START, START + timedelta(days=1)),
        ).fetchall()
        without = MISSING if symbol in (LOST, OUTAGE) else ()
        assert rows == [
            (START + first * MINUTE, sum_until(symbol, min(first + width, MINUTES) - 1))
            for first in range(0, MINUTES, width)
            if not set(range(first, first + width)) <= set(without)
        ], timeframe
    view = built.execute(
        "SELECT open_time, cumulative_delta FROM marts.cumulative_delta_1m"
        " WHERE (symbol, session) = (%s, %s) ORDER BY 1",
        (symbol, SESSION),
    ).fetchall()
    assert view == [
        (START + n * MINUTE, sum_until(symbol, n)) for n in range(MINUTES) if n not in without
    ]


def test_no_sum_over_missing_trades_is_complete(built: Any) -> None:
    known = dict(
        built.execute(
            "SELECT symbol, count(*) FROM marts.cumulative_delta_1m WHERE is_complete GROUP BY 1"
        ).fetchall()
    )
    assert known == {
        WMISSING: MINUTES,
        NOT_STORED: MISSING.start,
        LOST: MISSING.start,
        OUTAGE: MINUTES - len(MISSING),
        AHEAD: MINUTES - 10,
        EDGE: MINUTES - 2,
    }
    bars = built.execute(
        "SELECT kept, cumulative_delta IS NULL FROM marts.cumulative_delta(%s, '1h', %s, %s)",
        (NOT_STORED, START, START + timedelta(days=1)),
    ).fetchall()
    assert bars == [
        ("whole", False), ("whole", False), ("partial", True), ("whole", True), ("whole", True)
    ]  # fmt: skip
