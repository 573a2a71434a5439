"""The candle, its status and its source."""

from __future__ import annotations

from dataclasses import dataclass, replace
from decimal import Decimal
from enum import StrEnum

from include.domain.exact import ZERO
from include.domain.timeframes import MINUTE_US


class Status(StrEnum):
    """How far a stored row is proven."""

    VERIFIED = "verified"
    """Equal to the exchange's own candle, or taken from it."""
    UNCONFIRMED = "unconfirmed"
    """Aggregated from contiguous trades; no kline has confirmed it yet."""
    PARTIAL = "partial"
    """Trades are known to be missing."""


class Source(StrEnum):
    """Origin of a row."""

    STREAM = "stream"
    KLINE = "kline"
    REST = "rest"
    DUMP_DAILY = "dump_daily"
    DUMP_MONTHLY = "dump_monthly"
    TRADES = "trades"
    FILE = "file"
    FOREIGN = "foreign"
    """A user's file with columns of others."""


EXCHANGE_SOURCES = frozenset({Source.REST, Source.DUMP_DAILY, Source.DUMP_MONTHLY, Source.KLINE})
"""Sources whose rows are the exchange's own klines."""

SOURCE_RANK: dict[Source, int] = {
    Source.REST: 80,
    Source.DUMP_DAILY: 70,
    Source.DUMP_MONTHLY: 60,
    Source.KLINE: 50,
    Source.STREAM: 40,
    Source.TRADES: 30,
    Source.FILE: 20,
    Source.FOREIGN: 5,
}
"""Rank of each source: in a minute, the candidate with the higher rank wins."""

PARTIAL_RANK = 10
"""Rank of any row with missing trades. Only foreign rows, of no known source, rank lower."""


@dataclass(frozen=True, slots=True)
class Candle:
    """One candle of one symbol: nine values and the ids of its first and last trade.

    Prices are in quote asset, ``volume`` and ``taker_buy_volume`` in base asset, quote volumes in
    quote asset. Ids are None if the source has none or the minute had no trade. Quote volumes are
    exact sums; for symbols whose fills the exchange rounds, only the exchange's own values are
    right.
    """

    symbol: str
    open_time_us: int
    open: Decimal
    high: Decimal
    low: Decimal
    close: Decimal
    volume: Decimal
    quote_volume: Decimal
    trade_count: int
    taker_buy_volume: Decimal
    taker_buy_quote_volume: Decimal
    first_trade_id: int | None = None
    last_trade_id: int | None = None

    @property
    def values(self) -> tuple[Decimal | int, ...]:
        """The nine values that must equal the exchange's."""
        return (
            self.open,
            self.high,
            self.low,
            self.close,
            self.volume,
            self.quote_volume,
            self.trade_count,
            self.taker_buy_volume,
            self.taker_buy_quote_volume,
        )

    def with_quotes_of(self, other: Candle) -> Candle:
        """Return this candle with the quote volumes of another, for symbols whose fills the
        exchange rounds."""
        return replace(
            self,
            quote_volume=other.quote_volume,
            taker_buy_quote_volume=other.taker_buy_quote_volume,
        )

    @property
    def is_silent(self) -> bool:
        """Whether the minute had no trade."""
        return self.trade_count == 0


VALUE_NAMES = (
    "open",
    "high",
    "low",
    "close",
    "volume",
    "quote_volume",
    "trade_count",
    "taker_buy_volume",
    "taker_buy_quote_volume",
)
"""Names of ``Candle.values``, in order."""


def silent_candle(symbol: str, open_time_us: int, price: Decimal) -> Candle:
    """Return the candle of a minute without trades, flat at the previous close."""
    return Candle(symbol, open_time_us, price, price, price, price, ZERO, ZERO, 0, ZERO, ZERO)


def differing_values(left: Candle, right: Candle) -> list[str]:
    """Return the names of the values in which two candles differ."""
    return [
        name for name, a, b in zip(VALUE_NAMES, left.values, right.values, strict=True) if a != b
    ]


def differing_ids(left: Candle, right: Candle) -> list[str]:
    """Return the names of the trade ids in which two candles differ; missing ids match any."""
    return [
        name
        for name in ("first_trade_id", "last_trade_id")
        if (a := getattr(left, name)) is not None
        and (b := getattr(right, name)) is not None
        and a != b
    ]


@dataclass(frozen=True, slots=True)
class CandleCandidate:
    """A candle offered to the merge, with its provenance.

    Attributes:
        evidence_at_us: when the exchange published the values, never the time of writing: a file's
            publication (also for candles aggregated from its trades), a REST answer's server time,
            a kline frame's event time. None for candles aggregated from the stream and for files of
            users.
    """

    candle: Candle
    status: Status
    source: Source
    evidence_at_us: int | None = None

    def __post_init__(self) -> None:
        is_exchange = self.source in EXCHANGE_SOURCES
        if is_exchange and self.evidence_at_us is None:
            raise ValueError(f"a row from {self.source} needs the time of its evidence")
        if is_exchange != (self.status is Status.VERIFIED):
            raise ValueError(f"a row from {self.source} cannot be {self.status}")
        if self.candle.open_time_us % MINUTE_US:
            raise ValueError(f"open time {self.candle.open_time_us} is not a full minute")

    @property
    def rank(self) -> int:
        """Rank of the evidence; see ``SOURCE_RANK``."""
        return PARTIAL_RANK if self.status is Status.PARTIAL else SOURCE_RANK[self.source]
