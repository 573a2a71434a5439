"""Candles as polars frames: aggregation and roll-up, exact and in bulk.

The row-by-row equivalents are ``candle_builder.CandleBuilder`` and ``rollup.roll_up``; tests
compare them. Prices and volumes are text in plain decimal notation, as the exchange prints them:
PostgreSQL reads it exactly, without a float or fixed scale in between.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime
from decimal import Decimal

import polars as pl

from include.domain.candles import (
    PARTIAL_RANK,
    SOURCE_RANK,
    Candle,
    CandleCandidate,
    Source,
    Status,
)
from include.domain.columns.minute_parts import MinuteParts, as_texts, join_parts, parts_of
from include.domain.columns.scaled import check_sums_fit, decimals_needed, to_scaled, to_text
from include.domain.exact import EXACT
from include.domain.ranges import Ranges
from include.domain.timeframes import MINUTE_US, Timeframe, from_us, to_us

TIME = pl.Datetime("us", "UTC")
PRICES = ("open", "high", "low", "close")
VOLUMES = ("volume", "quote_volume", "taker_buy_volume", "taker_buy_quote_volume")
ORIGIN = datetime(2001, 1, 1, tzinfo=UTC)

CANDLE_SCHEMA = pl.Schema(
    {
        "symbol": pl.String(),
        "open_time": TIME,
        "open": pl.String(),
        "high": pl.String(),
        "low": pl.String(),
        "close": pl.String(),
        "volume": pl.String(),
        "quote_volume": pl.String(),
        "trade_count": pl.Int64(),
        "taker_buy_volume": pl.String(),
        "taker_buy_quote_volume": pl.String(),
        "first_trade_id": pl.Int64(),
        "last_trade_id": pl.Int64(),
    }
)
"""Columns of a candle frame: the fields of ``Candle``."""

OFFER_SCHEMA = pl.Schema(
    {
        **CANDLE_SCHEMA,
        "status": pl.String(),
        "source": pl.String(),
        "source_rank": pl.Int16(),
        "evidence_at": TIME,
    }
)
"""Columns of a candidate frame, in the order of ``ops.candle_candidates``."""

TRADE_SCHEMA = pl.Schema(
    {
        "trade_time": TIME,
        "price": pl.String(),
        "quantity": pl.String(),
        "is_buyer_maker": pl.Boolean(),
        "first_trade_id": pl.Int64(),
        "last_trade_id": pl.Int64(),
    }
)
"""Columns of a frame of trades or aggTrades of one symbol. Optional: ``quote_quantity`` (text), the
quote amount of each fill as the exchange rounded it."""


def aggregate_trades(trades: pl.DataFrame, *, symbol: str) -> pl.DataFrame:
    """Aggregate trades of one symbol into 1-minute candles, exactly.

    Args:
        trades: ``TRADE_SCHEMA``, with or without ``quote_quantity``; each trade once, none void.

    Returns:
        A frame of ``CANDLE_SCHEMA`` by open time, a row for each minute with trades.

    Raises:
        OverflowError: a sum needs more than 128 bits.
    """
    if trades.is_empty():
        return CANDLE_SCHEMA.to_frame()
    price_decimals = decimals_needed(trades, ["price"])
    quantity_decimals = decimals_needed(trades, ["quantity"])
    quote_decimals = None
    expressions = [to_scaled("price", price_decimals), to_scaled("quantity", quantity_decimals)]
    if "quote_quantity" in trades.columns:
        quote_decimals = decimals_needed(trades, ["quote_quantity"])
        expressions.append(to_scaled("quote_quantity", quote_decimals))
    scaled = trades.with_columns(expressions).sort("last_trade_id")
    parts = parts_of(
        scaled.with_columns(minute=pl.col("trade_time").dt.truncate("1m").dt.epoch("us")),
        price_decimals=price_decimals,
        quantity_decimals=quantity_decimals,
        quote_decimals=quote_decimals,
    )
    return candles_of([parts], symbol=symbol)


def candles_of(parts: Sequence[MinuteParts], *, symbol: str) -> pl.DataFrame:
    """Join parts of minutes, in the order of their trades, to a frame of ``CANDLE_SCHEMA``.

    Raises:
        OverflowError: a sum needs more than 128 bits.
    """
    if not parts:
        return CANDLE_SCHEMA.to_frame()
    texts = as_texts(join_parts(parts)).with_columns(
        symbol=pl.lit(symbol), open_time=pl.col("minute").cast(TIME)
    )
    return texts.select(pl.col(name).cast(kind) for name, kind in CANDLE_SCHEMA.items())


def roll_up(candles: pl.DataFrame, timeframe: Timeframe) -> pl.DataFrame:
    """Roll 1-minute candles (or any finer bars) up to ``timeframe``, exactly.

    Bars without trades do not set prices; see ``rollup.join_bars``. Bars may be incomplete: they
    contain the given minutes.

    Args:
        candles: ``CANDLE_SCHEMA`` (further columns are dropped), any number of symbols, any order.

    Raises:
        OverflowError: a sum needs more than 128 bits.
    """
    if candles.is_empty():
        return CANDLE_SCHEMA.to_frame()
    price_decimals = decimals_needed(candles, PRICES)
    volume_decimals = decimals_needed(candles, VOLUMES)
    scales = {name: price_decimals for name in PRICES}
    scales |= {name: volume_decimals for name in VOLUMES}
    scaled = candles.with_columns(to_scaled(name, scale) for name, scale in scales.items())
    check_sums_fit(scaled, VOLUMES)

    has_trades = pl.col("trade_count") > 0
    flat = pl.col("close").last()

    def traded(name: str) -> pl.Expr:
        return pl.col(name).filter(has_trades)

    bars = (
        scaled.sort("symbol", "open_time")
        .group_by("symbol", bar_time=bar_time(timeframe), maintain_order=True)
        .agg(
            open=traded("open").first().fill_null(flat),
            high=traded("high").max().fill_null(flat),
            low=traded("low").min().fill_null(flat),
            close=traded("close").last().fill_null(flat),
            **{name: pl.col(name).sum() for name in VOLUMES},
            trade_count=pl.col("trade_count").sum(),
            first_trade_id=traded("first_trade_id").first(),
            last_trade_id=traded("last_trade_id").last(),
        )
        .rename({"bar_time": "open_time"})
    )
    return _as_candles(bars, scales)


def bar_time(timeframe: Timeframe) -> pl.Expr:
    """Return the expression for the open time of the bar with ``open_time``, as ``date_bin`` in
    UTC."""
    moment = pl.col("open_time")
    if timeframe.width_us is None:
        return moment.dt.truncate("1mo")
    origin_us = to_us(ORIGIN)
    offset = (moment.dt.epoch("us") - origin_us) % timeframe.width_us
    return (moment.dt.epoch("us") - offset).cast(TIME)


def ranges_in(open_times: pl.Series) -> Ranges:
    """Join open times of minutes (``TIME``, ascending) to half-open ranges; bulk ``ranges_of``."""
    opens = open_times.dt.epoch("us")
    is_first = (opens.diff() != MINUTE_US).fill_null(value=True)
    is_last = is_first.shift(-1, fill_value=True)
    ends = opens.filter(is_last) + MINUTE_US
    return list(zip(opens.filter(is_first), ends, strict=True))


def as_candidates(
    candles: pl.DataFrame, *, status: Status, source: Source, evidence_at_us: int | None = None
) -> pl.DataFrame:
    """Return candles as a candidate frame, all with the same provenance.

    Raises:
        ValueError: source, status and evidence do not fit; see ``CandleCandidate``.
    """
    if not candles.is_empty():
        # Constructing one candidate checks the provenance that all rows share.
        CandleCandidate(to_candles(candles.head(1))[0], status, source, evidence_at_us)
    rank = PARTIAL_RANK if status is Status.PARTIAL else SOURCE_RANK[source]
    evidence = None if evidence_at_us is None else from_us(evidence_at_us)
    return candles.select(
        *CANDLE_SCHEMA,
        status=pl.lit(status.value),
        source=pl.lit(source.value),
        source_rank=pl.lit(rank, dtype=pl.Int16),
        evidence_at=pl.lit(evidence, dtype=TIME),
    )


def to_candles(frame: pl.DataFrame) -> list[Candle]:
    """Convert the rows of a candle or candidate frame to ``Candle`` values."""
    names = list(CANDLE_SCHEMA)
    decimals = [index for index, name in enumerate(names) if name in (*PRICES, *VOLUMES)]
    candles = []
    for values in frame.select(names).iter_rows():
        row = list(values)
        row[1] = to_us(row[1])
        for index in decimals:
            row[index] = EXACT.create_decimal(row[index])
        candles.append(Candle(*row))
    return candles


def from_candles(candles: Sequence[Candle]) -> pl.DataFrame:
    """Convert ``Candle`` values to a frame of ``CANDLE_SCHEMA``."""
    rows = [
        (
            one.symbol,
            from_us(one.open_time_us),
            *(_plain(v) if isinstance(v, Decimal) else v for v in one.values),
            one.first_trade_id,
            one.last_trade_id,
        )
        for one in candles
    ]
    return pl.DataFrame(rows, schema=CANDLE_SCHEMA, orient="row")


def _plain(value: Decimal) -> str:
    return format(value, "f")


def _as_candles(bars: pl.DataFrame, scales: dict[str, int]) -> pl.DataFrame:
    texts = [to_text(name, scale) for name, scale in scales.items()]
    return bars.with_columns(texts).select(
        pl.col(name).cast(kind) for name, kind in CANDLE_SCHEMA.items()
    )
