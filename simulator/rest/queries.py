"""Queries of REST to a market."""

from dataclasses import dataclass

from simulator.market.intervals import Interval


@dataclass(frozen=True, slots=True, kw_only=True)
class KlineQuery:
    """Klines of a symbol.

    Args:
        start_us: first open time; None for the latest klines.
        end_us: last open time, inclusive; None for no bound.
        limit: maximum number, counted from the start if there is one; None for all.
        is_oracle: true klines, without the lag of REST.
    """

    symbol: str
    interval: Interval
    start_us: int | None = None
    end_us: int | None = None
    limit: int | None = None
    is_oracle: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class AggTradeQuery:
    """aggTrades of a symbol: from an id on, or within inclusive times, or the latest.

    Args:
        limit: maximum number.
    """

    symbol: str
    from_id: int | None = None
    start_us: int | None = None
    end_us: int | None = None
    limit: int
