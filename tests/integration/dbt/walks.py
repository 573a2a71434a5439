"""Minutes of random walks and of the simulator, as input of indicators.

A bar needs only one minute, so a walk of 3,000 hours has 3,000 rows.
"""

from __future__ import annotations

import random
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any

import psycopg

from include.domain.timeframes import from_us
from simulator.market.instruments import select_instruments
from simulator.market.market import SimulatedMarket

Row = tuple[Any, ...]
"""Symbol, open time, open, high, low, close, volume, quote volume, trade count."""

START = datetime(2024, 1, 1, tzinfo=UTC)


def walk(
    symbol: str,
    count: int,
    step: timedelta,
    *,
    start: datetime = START,
    price: float = 100.0,
    decimals: int = 8,
    seed: int = 1,
    silent: range = range(0),
) -> list[Row]:
    """Minutes of a random walk, ``step`` apart; those in ``silent`` have no trades."""
    steps = random.Random(seed)
    rows: list[Row] = []
    for number in range(count):
        open_ = price
        if number not in silent:
            price = round(price * (1 + steps.gauss(0, 0.01)), decimals)
        wicks = 0 if number in silent else 1
        high = max(open_, price) * (1 + wicks * abs(steps.gauss(0, 0.003)))
        low = min(open_, price) * (1 - wicks * abs(steps.gauss(0, 0.003)))
        volume = 0 if number in silent else round(steps.uniform(0.1, 20), 5)
        values = [Decimal(f"{value:.{decimals}f}") for value in (open_, high, low, price)]
        values[1] = max(values)
        values[2] = min(values)
        amount = Decimal(str(volume))
        rows.append(
            (
                symbol,
                start + number * step,
                *values,
                amount,
                amount * (values[1] + values[2]) / 2,
                0 if number in silent else 7,
            )
        )
    return rows


def simulated(symbol: str, minutes: int) -> list[Row]:
    """Consecutive minutes of the simulator's market."""
    start_us = int(START.timestamp()) * 1_000_000
    market = SimulatedMarket(
        select_instruments("spot", (symbol,), seed=3), seed=3, start_us=start_us
    )
    history = market.history(symbol)
    first = start_us // 60_000_000
    bars = history.kline_columns(first, first + minutes)
    instrument = history.instrument
    return [
        (
            symbol,
            from_us(int(time)),
            *(Decimal(int(price)).scaleb(-instrument.price_decimals) for price in prices),
            Decimal(int(volume)).scaleb(-instrument.quantity_decimals),
            Decimal(int(quote)).scaleb(-instrument.quote_decimals),
            int(count),
        )
        for time, *prices, volume, quote, count in zip(
            bars.open_time_us,
            bars.open,
            bars.high,
            bars.low,
            bars.close,
            bars.volume,
            bars.quote_volume,
            bars.trade_count,
            strict=True,
        )
    ]


def write(connection: psycopg.Connection[Any], rows: list[Row]) -> None:
    """Upsert minutes; takers buy half of each."""
    columns = (
        "symbol, open_time, open, high, low, close, volume, quote_volume, trade_count,"
        " taker_buy_volume, taker_buy_quote_volume, status, source, source_rank, evidence_at"
    )
    with connection.transaction(), connection.cursor() as cursor:
        for month in {row[1].replace(day=1, hour=0, minute=0) for row in rows}:
            cursor.execute(
                "SELECT ops.ensure_partition('market.candles_1m'::regclass, %s)", (month,)
            )
        cursor.execute(
            "CREATE TEMPORARY TABLE rows_to_write ON COMMIT DROP AS"
            " SELECT symbol, open_time, open, high, low, close, volume, quote_volume, trade_count"
            " FROM market.candles_1m WITH NO DATA"
        )
        with cursor.copy("COPY rows_to_write FROM STDIN") as copy:
            for row in rows:
                copy.write_row(row)
        cursor.execute(
            f"INSERT INTO market.candles_1m ({columns})"  # noqa: S608
            " SELECT *, volume / 2, quote_volume / 2, 'verified', 'rest', 80, '2026-01-01'"
            " FROM rows_to_write"
            " ON CONFLICT (symbol, open_time) DO UPDATE SET open = excluded.open,"
            " high = excluded.high, low = excluded.low, close = excluded.close,"
            " volume = excluded.volume, quote_volume = excluded.quote_volume,"
            " trade_count = excluded.trade_count, taker_buy_volume = excluded.taker_buy_volume,"
            " taker_buy_quote_volume = excluded.taker_buy_quote_volume"
        )
