"""Prices of the last 24 hours of one symbol, from its minutes.

Values are stored as integers in units of the smallest decimal seen: a few dozen kilobytes per
symbol, where a day of ``Candle`` would take a megabyte.
"""

from __future__ import annotations

from array import array
from dataclasses import dataclass
from decimal import Decimal

from include.domain.candles import Candle
from include.domain.exact import EXACT
from include.domain.ranges import Ranges, ranges_of
from include.domain.timeframes import DAY_US, MINUTE_US

MINUTES = DAY_US // MINUTE_US
_ABSENT = -(1 << 62)
"""Marks minutes without a value; below any value, so that a maximum ignores it."""
_NEVER = -1
_UNKNOWN = -1
"""Trade count of an unknown minute."""
_ALL_ABSENT = array("q", [_ABSENT]) * MINUTES
_ALL_UNKNOWN = array("q", [_UNKNOWN]) * MINUTES
_ALL_ZERO = array("q", [0]) * MINUTES
"""Template; copying is faster than building."""


@dataclass(frozen=True, slots=True)
class DayPrices:
    """Figures of the 24 hours up to the end of the newest minute.

    Prices in quote asset, ``volume`` in base asset, ``quote_volume`` in quote asset.

    Attributes:
        start_us: open time of the first known minute.
        change: last price minus the first.
        quote_volume: None while that of a minute is not known.
        change_percent: in percent of the first price, to four decimals.
        minute_count: number of known minutes.
    """

    symbol: str
    start_us: int
    newest_us: int
    open: Decimal
    high: Decimal
    low: Decimal
    last: Decimal
    volume: Decimal
    quote_volume: Decimal | None
    trade_count: int
    change: Decimal
    change_percent: Decimal
    minute_count: int


class _Column:
    """One exact value for each minute; the number of decimals grows as needed."""

    def __init__(self, blank: array[int]) -> None:
        self.absent = blank[0]
        self.decimals: int | None = None
        """Cached maximum; None before the first value."""
        self.values: array[int] | list[int] = blank[:]

    def put(self, slot: int, value: Decimal) -> None:
        decimals = _decimals_in(value)
        if self.decimals is None:
            self.decimals = decimals
        elif decimals > self.decimals:
            self._refine(decimals - self.decimals)
        self._set(slot, int(value.scaleb(self.decimals, EXACT)))

    def clear(self, slot: int) -> None:
        self.values[slot] = self.absent

    def decimal(self, number: int) -> Decimal:
        return Decimal(number).scaleb(-(self.decimals or 0), EXACT)

    def _refine(self, by_decimals: int) -> None:
        factor = 10**by_decimals
        refined = [one if one == self.absent else one * factor for one in self.values]
        self.decimals = (self.decimals or 0) + by_decimals
        try:
            self.values = array("q", refined)
        except OverflowError:
            self.values = refined

    def _set(self, slot: int, number: int) -> None:
        try:
            self.values[slot] = number
        except OverflowError:
            self.values = list(self.values)
            self.values[slot] = number


class DayOfMinutes:
    """The minutes of 24 hours of one symbol, as a ring buffer."""

    def __init__(self, symbol: str) -> None:
        self.symbol = symbol
        self.newest_us = _NEVER
        self._last = Decimal(0)
        self._open = _Column(_ALL_ZERO)
        self._high, self._fall = _Column(_ALL_ABSENT), _Column(_ALL_ABSENT)
        """Highest price, and negated lowest price, of minutes with trades."""
        self._volume, self._quote_volume = _Column(_ALL_ZERO), _Column(_ALL_ZERO)
        self._trades = _ALL_UNKNOWN[:]
        self._without_quotes: set[int] = set()
        """Slots of minutes whose quote volume is not known."""

    def has(self, open_time_us: int) -> bool:
        """Whether the minute is known."""
        is_within = self.newest_us - DAY_US < open_time_us <= self.newest_us
        return is_within and self._trades[open_time_us // MINUTE_US % MINUTES] != _UNKNOWN

    def unknown(self) -> Ranges:
        """Return the minutes of the 24 hours that are not known, as half-open ranges (µs)."""
        if self.newest_us == _NEVER or _UNKNOWN not in self._trades:
            return []
        window = range(self.newest_us - DAY_US + MINUTE_US, self.newest_us + 1, MINUTE_US)
        return ranges_of(one for one in window if not self.has(one))

    def put(self, candle: Candle, *, has_quotes: bool = True) -> bool:
        """Add or replace a minute; False if it is older than 24 hours.

        Args:
            has_quotes: False if its quote volume is not known yet.
        """
        open_time_us = candle.open_time_us
        if open_time_us <= self.newest_us - DAY_US:
            return False
        if open_time_us > self.newest_us:
            self._advance(open_time_us)
        if open_time_us == self.newest_us:
            self._last = candle.close
        slot = open_time_us // MINUTE_US % MINUTES
        self._open.put(slot, candle.open)
        if candle.trade_count:
            self._high.put(slot, candle.high)
            self._fall.put(slot, -candle.low)
        else:
            self._high.clear(slot)
            self._fall.clear(slot)
        self._volume.put(slot, candle.volume)
        if has_quotes or not candle.trade_count:
            self._quote_volume.put(slot, candle.quote_volume)
            self._without_quotes.discard(slot)
        else:
            self._quote_volume.clear(slot)
            self._without_quotes.add(slot)
        self._trades[slot] = candle.trade_count
        return True

    def prices(self) -> DayPrices | None:
        """Return the 24 hours up to the newest minute; None if no minute is known."""
        if self.newest_us == _NEVER:
            return None
        start_us = next(
            one
            for one in range(self.newest_us - DAY_US + MINUTE_US, self.newest_us + 1, MINUTE_US)
            if self._trades[one // MINUTE_US % MINUTES] != _UNKNOWN
        )
        unknown_count = self._trades.count(_UNKNOWN)
        price = self._last
        opened = self._open.decimal(self._open.values[start_us // MINUTE_US % MINUTES])
        high, fall = max(self._high.values), max(self._fall.values)
        change = EXACT.subtract(price, opened)
        return DayPrices(
            symbol=self.symbol,
            start_us=start_us,
            newest_us=self.newest_us,
            open=opened,
            high=price if high == _ABSENT else self._high.decimal(high),
            low=price if fall == _ABSENT else -self._fall.decimal(fall),
            last=price,
            volume=self._volume.decimal(sum(self._volume.values)),
            quote_volume=None
            if self._without_quotes
            else self._quote_volume.decimal(sum(self._quote_volume.values)),
            trade_count=sum(self._trades) - unknown_count * _UNKNOWN,
            change=change,
            change_percent=(change * 100 / opened).quantize(Decimal("0.0001"))
            if opened
            else Decimal(0),
            minute_count=MINUTES - unknown_count,
        )

    def _advance(self, newest_us: int) -> None:
        """Clear minutes that are a day older than a new newest minute."""
        if self.newest_us != _NEVER:
            skipped = min((newest_us - self.newest_us) // MINUTE_US, MINUTES)
            for index in range(skipped):
                self._forget((newest_us // MINUTE_US - index) % MINUTES)
        self.newest_us = newest_us

    def _forget(self, slot: int) -> None:
        for column in (self._open, self._high, self._fall, self._volume, self._quote_volume):
            column.clear(slot)
        self._trades[slot] = _UNKNOWN
        self._without_quotes.discard(slot)


def _decimals_in(value: Decimal) -> int:
    exponent = value.as_tuple().exponent
    return -exponent if isinstance(exponent, int) else 0  # scaling rejects non-numbers
