"""Aggregate trades, as scaled integers, block by block into 1-minute candles.

A part is the contribution of one block of trades to one minute. Parts of a minute are joined in the
order of their trades, so a file of any length needs the memory of one block. The row-by-row
equivalent is ``candle_builder.CandleBuilder``; tests compare the two.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import polars as pl

from include.domain.columns.scaled import (
    check_products_fit,
    check_sums_fit,
    rescaled,
    to_text,
    trimmed,
)

_PRICES = ("open", "high", "low", "close")
_QUANTITIES = ("volume", "taker_buy_volume")
_QUOTES = ("quote_volume", "taker_buy_quote_volume")


@dataclass(frozen=True, slots=True)
class Scales:
    """Decimals of the scaled integers in a frame of trades or candles."""

    price: int
    quantity: int
    quote: int

    def of(self, column: str) -> int:
        """Return the decimals of a candle's column."""
        if column in _PRICES:
            return self.price
        return self.quantity if column in _QUANTITIES else self.quote


@dataclass(frozen=True, slots=True)
class MinuteParts:
    """Parts of minutes: one row per minute, ordered by first trade.

    Attributes:
        frame: ``minute`` (µs), the nine values as scaled Int128 (``trade_count`` Int64) and the
            first and last trade id.
        scales: of the values.
    """

    frame: pl.DataFrame
    scales: Scales


def parts_of(
    trades: pl.DataFrame, *, price_decimals: int, quantity_decimals: int, quote_decimals: int | None
) -> MinuteParts:
    """Aggregate trades of one symbol, ordered by id, without duplicates and void trades.

    Args:
        trades: ``minute`` (open time in µs), ``price`` and ``quantity`` (scaled Int128),
            ``is_buyer_maker``, ``first_trade_id``, ``last_trade_id``.
        quote_decimals: of the column ``quote_quantity``, the amounts as the exchange rounded them;
            None
            if that column is absent: price × quantity is used.

    Raises:
        OverflowError: a sum needs more than 128 bits.
    """
    if quote_decimals is None:
        check_products_fit(trades, "price", "quantity")
        trades = trades.with_columns(quote_quantity=pl.col("price") * pl.col("quantity"))
    check_sums_fit(trades, ["quantity", "quote_quantity"])
    if trades["minute"].is_sorted():
        # Lets polars group without hashing.
        trades = trades.with_columns(pl.col("minute").set_sorted())
    is_taker_buy = ~pl.col("is_buyer_maker")
    zero = pl.lit(0, dtype=pl.Int128)
    frame = (
        # A product with a mask is far cheaper than a filter in each group.
        trades.with_columns(
            bought=pl.when(is_taker_buy).then("quantity").otherwise(zero),
            bought_quote=pl.when(is_taker_buy).then("quote_quantity").otherwise(zero),
        )
        .group_by("minute", maintain_order=True)
        .agg(
            open=pl.col("price").first(),
            high=pl.col("price").max(),
            low=pl.col("price").min(),
            close=pl.col("price").last(),
            volume=pl.col("quantity").sum(),
            quote_volume=pl.col("quote_quantity").sum(),
            trade_count=(pl.col("last_trade_id") - pl.col("first_trade_id") + 1).sum(),
            taker_buy_volume=pl.col("bought").sum(),
            taker_buy_quote_volume=pl.col("bought_quote").sum(),
            first_trade_id=pl.col("first_trade_id").first(),
            last_trade_id=pl.col("last_trade_id").last(),
        )
    )
    if quote_decimals is None:
        quote_decimals = price_decimals + quantity_decimals
    return MinuteParts(frame, Scales(price_decimals, quantity_decimals, quote_decimals))


def join_parts(parts: Sequence[MinuteParts]) -> MinuteParts:
    """Join parts to whole minutes, by open time.

    Args:
        parts: at least one, in the order of their trades.

    Raises:
        OverflowError: a sum needs more than 128 bits.
    """
    scales = Scales(
        max(one.scales.price for one in parts),
        max(one.scales.quantity for one in parts),
        max(one.scales.quote for one in parts),
    )
    frame = pl.concat(_at(one, scales) for one in parts)
    check_sums_fit(frame, (*_QUANTITIES, *_QUOTES))
    joined = (
        frame.group_by("minute", maintain_order=True)
        .agg(
            open=pl.col("open").first(),
            high=pl.col("high").max(),
            low=pl.col("low").min(),
            close=pl.col("close").last(),
            **{name: pl.col(name).sum() for name in (*_QUANTITIES, *_QUOTES, "trade_count")},
            first_trade_id=pl.col("first_trade_id").first(),
            last_trade_id=pl.col("last_trade_id").last(),
        )
        .sort("minute")
    )
    return MinuteParts(joined, scales)


def as_texts(minutes: MinuteParts) -> pl.DataFrame:
    """Return the frame with prices and volumes as plain decimal text without trailing zeros."""
    frame = minutes.frame
    for names in (_PRICES, _QUANTITIES, _QUOTES):
        frame = _as_text(frame, names, minutes.scales.of(names[0]))
    return frame


def _as_text(frame: pl.DataFrame, names: Iterable[str], decimals: int) -> pl.DataFrame:
    shorter = trimmed(frame, names, decimals)
    unit = pl.lit(10 ** (decimals - shorter), dtype=pl.Int128)
    return frame.with_columns(pl.col(name) // unit for name in names).with_columns(
        to_text(name, shorter) for name in names
    )


def _at(part: MinuteParts, scales: Scales) -> pl.DataFrame:
    names = (*_PRICES, *_QUANTITIES, *_QUOTES)
    return rescaled(part.frame, {name: scales.of(name) - part.scales.of(name) for name in names})
