"""Aggregate the frames of ``markPrice@1s`` into minutes of mark and index price."""

from __future__ import annotations

from dataclasses import dataclass, field
from decimal import Decimal

from include.domain.timeframes import MINUTE_US, SECOND_US, minute_of

SECONDS = MINUTE_US // SECOND_US


@dataclass(slots=True)
class PriceMinute:
    """Open, high, low and close of one price, with the seconds that it covers.

    Attributes:
        seconds: seconds of the minute with a value; 60 if none is missing.
        event_us: event time of the last value.
    """

    open_time_us: int
    open: Decimal
    high: Decimal
    low: Decimal
    close: Decimal
    event_us: int
    seconds: set[int] = field(default_factory=set)

    @property
    def is_whole(self) -> bool:
        """Whether each second of the minute had a value."""
        return len(self.seconds) == SECONDS


class MinuteFold:
    """Aggregates the values of one price of one symbol by their event time.

    Values must arrive in the order of their event times, as on one connection; an older value than
    the last is counted in ``late`` and ignored.
    """

    def __init__(self) -> None:
        self._minute: PriceMinute | None = None
        self.late = 0

    @property
    def open_minute(self) -> PriceMinute | None:
        """The minute that is being aggregated."""
        return self._minute

    def add(self, event_us: int, price: Decimal) -> PriceMinute | None:
        """Add a value; return the minute before if this value begins a new one."""
        minute, open_us = self._minute, minute_of(event_us)
        second = (event_us - open_us) // SECOND_US
        if minute is not None and event_us <= minute.event_us:
            self.late += 1
            return None
        if minute is None or open_us > minute.open_time_us:
            self._minute = PriceMinute(open_us, price, price, price, price, event_us, {second})
            return minute
        minute.high, minute.low = max(minute.high, price), min(minute.low, price)
        minute.close, minute.event_us = price, event_us
        minute.seconds.add(second)
        return None

    def close(self) -> PriceMinute | None:
        """Return the open minute and start anew, as after a disconnect."""
        minute, self._minute = self._minute, None
        return minute
