"""Aggregate a file of trades while reading it, and prove which minutes are complete.

A minute is complete only if its trades prove it: ids are contiguous from the trade before its first
to the trade after its last, and no row is bad. Only the newest minutes are in memory, so memory
does not grow with the file. A minute without trades yields no row: trades cannot distinguish
silence from a halt.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import polars as pl

from include.domain.columns.candles import CANDLE_SCHEMA, TIME, candles_of
from include.domain.columns.minute_parts import MinuteParts, parts_of
from include.domain.timeframes import MINUTE_US

HELD_MINUTES = 2
"""Minutes held back: a block read later may still contain a trade of the previous minute."""


@dataclass(frozen=True, slots=True)
class TradeRows:
    """Rows of trades or aggTrades of one symbol, ordered by id, each id once.

    Attributes:
        frame: ``id`` (of the aggregate or the trade), ``trade_time`` (µs), ``scaled_price`` and
            ``scaled_quantity`` (Int128), ``is_buyer_maker``, ``first_trade_id``, ``last_trade_id``,
            and ``scaled_quote_quantity`` if the source has amounts. ``is_void`` marks rows that are
            not trades but use up an id; ``is_bad`` marks unreadable trades.
        price_decimals, quantity_decimals: of the scaled columns.
        quote_decimals: likewise; None if the source has no amounts.
    """

    frame: pl.DataFrame
    price_decimals: int
    quantity_decimals: int
    quote_decimals: int | None = None


class AggregatedMinutes(NamedTuple):
    """Candles (``CANDLE_SCHEMA``) that are proven complete, and candles that are not."""

    whole: pl.DataFrame
    partial: pl.DataFrame


class TradeAggregator:
    """Aggregates rows block by block; yields each minute once, when it has ended.

    Args:
        symbol: platform symbol.
        ids_follow: whether ids are contiguous by design. Ids that skip (single trades of USD-M)
            prove
            nothing: then all minutes but the first and last count as complete.
        after_id: id of the row before the file's first, which proves that its first minute is
            complete at the start; None if unknown.
    """

    def __init__(self, symbol: str, *, ids_follow: bool, after_id: int | None = None) -> None:
        self._symbol = symbol
        self._ids_follow = ids_follow
        self._after_id = after_id
        self._parts: list[MinuteParts] = []
        self._unproven: set[int] = set()
        self.first_id: int | None = None
        self.last_id = -1
        self.first_minute_us = 0
        self.last_minute_us = 0
        self.aggregated_until_us = 0
        """Start of the minutes not returned yet; earlier trades are too late."""
        self.edge_minutes: set[int] = set()
        """Minutes (µs) at an end of the file that lack only the proof of a neighbouring file."""

    def add(self, rows: TradeRows) -> AggregatedMinutes:
        """Aggregate rows with larger ids than all before; return the minutes that have ended."""
        if rows.frame.is_empty():
            return self._pop_minutes(until_us=0)
        frame = rows.frame.with_columns(
            minute=pl.col("trade_time") - pl.col("trade_time") % MINUTE_US
        )
        self._prove(frame)
        trades = frame
        if "is_void" in frame.columns:
            bad = frame.filter("is_bad")["minute"].unique()
            self._unproven.update(bad.to_list())
            trades = frame.filter(~pl.col("is_void") & ~pl.col("is_bad"))
        if trades.height:
            names = ["price", "quantity"]
            if rows.quote_decimals is not None:
                names.append("quote_quantity")
            self._parts.append(
                parts_of(
                    trades.select(
                        "minute",
                        "is_buyer_maker",
                        "first_trade_id",
                        "last_trade_id",
                        *(pl.col(f"scaled_{name}").alias(name) for name in names),
                    ),
                    price_decimals=rows.price_decimals,
                    quantity_decimals=rows.quantity_decimals,
                    quote_decimals=rows.quote_decimals,
                )
            )
        newest_us = int(frame["minute"].max())  # type: ignore[arg-type]
        return self._pop_minutes(until_us=newest_us - (HELD_MINUTES - 1) * MINUTE_US)

    def finish(self, *, before_id: int | None = None) -> AggregatedMinutes:
        """Return the remaining minutes.

        Args:
            before_id: id of the row after the file's last, which proves that its last minute is
                complete; None if unknown.
        """
        if self.first_id is not None and not self._follows(self.last_id, before_id):
            self._mark_edge(self.last_minute_us, is_known=before_id is not None)
        return self._pop_minutes(until_us=self.last_minute_us + HELD_MINUTES * MINUTE_US)

    # --- inside

    def _prove(self, frame: pl.DataFrame) -> None:
        """Find missing ids; each makes the minutes on both sides incomplete."""
        ids, minutes = frame["id"], frame["minute"]
        first, last = int(ids[0]), int(ids[-1])
        if self.first_id is None:
            self.first_id, self.first_minute_us = first, int(minutes[0])
            if not self._follows(self._after_id, first):
                self._mark_edge(int(minutes[0]), is_known=self._after_id is not None)
        elif self._ids_follow and first != self.last_id + 1:
            self._unproven |= {self.last_minute_us, int(minutes[0])}
        if self._ids_follow and last - first + 1 != frame.height:
            behind = frame.select("minute", before=pl.col("minute").shift(1)).filter(
                ids != ids.shift(1) + 1
            )
            self._unproven.update(behind["minute"].to_list(), behind["before"].to_list())
        self.last_id, self.last_minute_us = last, int(minutes[-1])

    def _follows(self, before: int | None, behind: int | None) -> bool:
        return self._ids_follow and before is not None and behind == before + 1

    def _mark_edge(self, minute_us: int, *, is_known: bool) -> None:
        """Mark a minute at an end of the file, unless the neighbouring id proves it complete."""
        (self._unproven if is_known and self._ids_follow else self.edge_minutes).add(minute_us)

    def _pop_minutes(self, *, until_us: int) -> AggregatedMinutes:
        """Remove and return the candles of minutes before a time."""
        none = CANDLE_SCHEMA.to_frame()
        over: list[MinuteParts] = []
        held: list[MinuteParts] = []
        for part in self._parts:
            is_over = pl.col("minute") < until_us
            for frame, place in (
                (part.frame.filter(is_over), over),
                (part.frame.filter(~is_over), held),
            ):
                if frame.height:
                    place.append(MinuteParts(frame, part.scales))
        if not over:
            return AggregatedMinutes(none, none)
        self._parts = held
        self.aggregated_until_us = max(self.aggregated_until_us, until_us)
        candles = candles_of(over, symbol=self._symbol)
        self.edge_minutes -= self._unproven
        doubtful = pl.Series(sorted(self._unproven | self.edge_minutes), dtype=pl.Int64).cast(TIME)
        self._unproven = {minute for minute in self._unproven if minute >= until_us}
        is_doubtful = pl.col("open_time").is_in(doubtful.implode())
        return AggregatedMinutes(candles.filter(~is_doubtful), candles.filter(is_doubtful))
