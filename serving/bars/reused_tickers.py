"""Detects tickers that were given to another instrument, by the trade ids of minutes."""

from __future__ import annotations

from collections.abc import Sequence

import structlog

from include.domain.candles import Candle
from include.domain.live_bars import DAY, HOUR, BarPart, SymbolBars, is_of_another
from include.domain.timeframes import from_us_text

log = structlog.get_logger(__name__)

MAX_REMEMBERED = 10_000
"""Remembered symbols, three times an exchange's; beyond this the oldest is forgotten."""


class ReusedTickers:
    """Where each symbol's present instrument began, as far as this process has seen.

    Dropped symbols stay remembered: only trade ids show whether a ticker that returns belongs to
    the
    same instrument.
    """

    def __init__(self) -> None:
        self._traded: dict[str, Candle] = {}
        """The newest minute with trades, by symbol."""
        self._since_us: dict[str, int] = {}

    def since_us(self, symbol: str) -> int:
        """Open time of the present instrument's first minute; 0 if it began before this process."""
        return self._since_us.get(symbol, 0)

    def note(self, candle: Candle) -> bool:
        """Add a minute; returns whether another instrument begins with it."""
        symbol = candle.symbol
        before = self._traded.get(symbol)
        if candle.first_trade_id is None or (
            before is not None and candle.open_time_us < before.open_time_us
        ):
            return False
        self._traded[symbol] = candle
        if len(self._traded) > MAX_REMEMBERED:
            oldest = min(self._traded, key=lambda one: self._traded[one].open_time_us)
            del self._traded[oldest]
            self._since_us.pop(oldest, None)
        if before is None or not is_of_another(before, candle):
            return False
        self._since_us[symbol] = candle.open_time_us
        log.info("ticker_reused", symbol=symbol, since=from_us_text(candle.open_time_us))
        return True

    def bars(
        self,
        symbol: str,
        newest_us: int,
        minutes: Sequence[Candle],
        hours: Sequence[BarPart],
        days: Sequence[BarPart],
    ) -> SymbolBars:
        """Build bars of the present instrument only, from the table's rows of its ticker."""
        since_us = self.since_us(symbol)
        return SymbolBars(
            max(newest_us, since_us),
            [one for one in minutes if one.open_time_us >= since_us],
            [one for one in hours if one.candle.open_time_us >= HOUR.open_time_us(since_us)],
            [one for one in days if one.candle.open_time_us >= DAY.open_time_us(since_us)],
        )
