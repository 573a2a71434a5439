"""Four hours of a small, correct market, made by SQL, in which faults are planted.

Every fifth minute is silent; the others have four trades, two of them buys. Ids of USD-M trades
skip. The newest minutes are partly unconfirmed, all others are the exchange's own klines.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

import psycopg

from include.quality.report import QualityReport

START = datetime(2025, 3, 1, 8, 0, tzinfo=UTC)
MINUTES = 240
END = START + timedelta(minutes=MINUTES)
AT = START + timedelta(minutes=32)
"""A minute with trades, between minutes with trades."""
SILENT = START + timedelta(minutes=30)
MINUTE = timedelta(minutes=1)

NOBODY_TRADED = (
    "open = 100, high = 100, low = 100, close = 100, volume = 0, quote_volume = 0, trade_count = 0,"
    " taker_buy_volume = 0, taker_buy_quote_volume = 0, first_trade_id = NULL, last_trade_id = NULL"
)

_CANDLES = """
INSERT INTO market.candles_1m (
    symbol, open_time, open, high, low, close, volume, quote_volume, trade_count,
    taker_buy_volume, taker_buy_quote_volume, first_trade_id, last_trade_id, status, source,
    source_rank, evidence_at, updated_at
)
SELECT
    symbol, open_time, 100,
    CASE WHEN traded THEN 101.5 ELSE 100 END, CASE WHEN traded THEN 99 ELSE 100 END, 100,
    CASE WHEN traded THEN 2 ELSE 0 END, CASE WHEN traded THEN 200.25 ELSE 0 END,
    CASE WHEN traded THEN 4 ELSE 0 END, CASE WHEN traded THEN 1 ELSE 0 END,
    CASE WHEN traded THEN 100.75 ELSE 0 END,
    CASE WHEN traded THEN first_id END, CASE WHEN traded THEN first_id + 3 END,
    CASE WHEN sure THEN 'verified' ELSE 'unconfirmed' END,
    CASE WHEN sure THEN 'kline' ELSE 'stream' END,
    CASE WHEN sure THEN 50 ELSE 40 END,
    CASE WHEN sure THEN open_time + interval '60 seconds' END,
    open_time + interval '60 seconds'
FROM (
    SELECT
        symbol,
        %(start)s + n * interval '1 minute' AS open_time,
        n %% 5 <> 0 AS traded,
        n < %(minutes)s - 50 OR n %% 7 <> 0 AS sure,
        (n - n / 5 - 1) * CASE market.market_of(symbol) WHEN 'um' THEN 8 ELSE 4 END AS first_id
    FROM unnest(%(symbols)s::text[]) AS symbols (symbol), generate_series(0, %(minutes)s - 1) AS n
) AS minutes
"""

_LISTINGS = """
INSERT INTO market.instruments (
    symbol, listed_from, market, exchange_symbol, base_asset, quote_asset, status, tick_size,
    step_size, filters, quote_volume_is_exact, seen_at
)
SELECT
    symbol, '1970-01-01 00:00Z', market.market_of(symbol), replace(symbol, '.P', ''),
    replace(replace(symbol, '.P', ''), 'USDT', ''), 'USDT', 'TRADING', 0.01, 0.0001,
    '{"PRICE_FILTER": {"tickSize": "0.01000000", "minPrice": "0.01", "maxPrice": "1000000"},
      "LOT_SIZE": {"stepSize": "0.00010000", "minQty": "0.0001", "maxQty": "9000"}}',
    true, %(end)s
FROM unnest(%(symbols)s::text[]) AS symbols (symbol)
"""

_TRADES = """
INSERT INTO market.trades (
    symbol, day, trade_id, price, quantity, trade_time, is_buyer_maker
)
SELECT
    candle.symbol, (candle.open_time AT TIME ZONE 'UTC')::date, candle.first_trade_id + fill.n,
    fill.price, 0.5, candle.open_time + (10 + fill.n) * interval '1 second', fill.sells
FROM market.candles_1m AS candle,
(VALUES (0, 100, false), (1, 101.5, false), (2, 99, true), (3, 100, true)) AS fill (n, price, sells)
WHERE candle.symbol = ANY (%(symbols)s) AND candle.trade_count > 0
"""

_AGGREGATES = """
INSERT INTO market.agg_trades (
    symbol, day, agg_trade_id, price, quantity, first_trade_id, last_trade_id, trade_time,
    is_buyer_maker
)
SELECT
    symbol, day, row_number() OVER (PARTITION BY symbol ORDER BY trade_id), price, quantity,
    trade_id, trade_id, trade_time, is_buyer_maker
FROM market.trades WHERE symbol = ANY (%(symbols)s)
"""


def fill(
    connection: psycopg.Connection[Any], symbols: Sequence[str], *, with_trades: Sequence[str] = ()
) -> None:
    """Candles and listings of these symbols, and the trades of some."""
    arguments = {"start": START, "end": END, "minutes": MINUTES, "symbols": list(symbols)}
    for relation in ("candles_1m", "agg_trades", "trades"):
        connection.execute(
            "SELECT ops.ensure_partition(%s::regclass, %s)", (f"market.{relation}", START)
        )
    connection.execute(_CANDLES, arguments)
    connection.execute(_LISTINGS, arguments)
    kept = {"symbols": list(with_trades)}
    connection.execute(_TRADES, kept)
    connection.execute(_AGGREGATES, kept)


def broken(
    report: QualityReport, symbol: str | None = None
) -> dict[str, list[tuple[str | None, datetime | None]]]:
    """Failing rows by rule, errors and warnings, of one symbol or of all.

    Args:
        symbol: empty: rows of no symbol alone.
    """
    found: dict[str, list[tuple[str | None, datetime | None]]] = {}
    for result in (*report.failures, *report.warnings):
        rows = sorted(
            (row.symbol, row.minute)
            for row in result.failing_rows
            if symbol is None or (row.symbol or "") == symbol
        )
        if rows:
            found[result.name] = rows
    return found
