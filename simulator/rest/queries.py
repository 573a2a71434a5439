"""What REST is asked of a market."""

from dataclasses import dataclass

from simulator.market.intervals import Interval


@dataclass(frozen=True, slots=True, kw_only=True)
class KlineQuery:
    """Klines of a symbol.

    Args:
        start_us: the first open time; None for the latest klines.
        end_us: the last open time, inclusive; None for no bound.
        limit: at most so many, the first ones if there is a start; None for all.
        is_oracle: true candles, without the lag of REST.
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
        limit: at most so many.
    """

    symbol: str
    from_id: int | None = None
    start_us: int | None = None
    end_us: int | None = None
    limit: int
