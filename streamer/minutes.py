"""What an aggregator knows of a minute, and how long it waits for more."""

from __future__ import annotations

from dataclasses import dataclass

from include.binance.frames import Kline
from include.domain.fold import CandleBuilder


@dataclass(slots=True)
class Minute:
    """What is known of one minute."""

    open_time_us: int
    builder: CandleBuilder | None = None
    is_whole: bool = False
    frame: Kline | None = None
    """The latest kline frame while the exchange's candle was open."""
    kline: Kline | None = None
    """The closed kline, once it came."""
    is_closed: bool = False
    is_settled: bool = False


@dataclass(frozen=True, slots=True)
class Timing:
    """Waits in microseconds of the exchange's clock, and what the streams can be held to."""

    grace_us: int
    kline_timeout_us: int
    expects_klines: bool = True
    has_contiguous_ids: bool = True
    """False for raw USD-M trades, whose ids skip by design."""
