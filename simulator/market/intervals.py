"""Kline intervals: where a kline starts and ends.

Weeks start on Monday; 3-day klines count from 2001-01-01 (all recorded 3d klines of the exchange
fit); months follow the calendar. All times are int µs since the epoch, UTC.
"""

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta, timezone

import numpy as np

from simulator.clock import DAY_US, MINUTE_US, SECOND_US, from_us, to_us
from simulator.market.noise import IntArray

_HOUR_US = 60 * MINUTE_US
_ORIGIN_US = to_us(datetime(2001, 1, 1, tzinfo=UTC))  # a Monday
_MONTH = "1M"

_STEPS_US = {
    "1s": SECOND_US,
    "1m": MINUTE_US,
    "3m": 3 * MINUTE_US,
    "5m": 5 * MINUTE_US,
    "15m": 15 * MINUTE_US,
    "30m": 30 * MINUTE_US,
    "1h": _HOUR_US,
    "2h": 2 * _HOUR_US,
    "4h": 4 * _HOUR_US,
    "6h": 6 * _HOUR_US,
    "8h": 8 * _HOUR_US,
    "12h": 12 * _HOUR_US,
    "1d": DAY_US,
    "3d": 3 * DAY_US,
    "1w": 7 * DAY_US,
}


@dataclass(frozen=True, slots=True)
class Interval:
    """One kline interval; `offset_us` shifts midnight (REST `timeZone`, stream `@+08:00`)."""

    name: str
    offset_us: int = 0

    @property
    def step_us(self) -> int | None:
        """Length of a kline in µs; None for calendar months."""
        return _STEPS_US.get(self.name)

    def open_of(self, time_us: int) -> int:
        """Return the open time of the kline that contains `time_us`."""
        step = self.step_us
        local = time_us + self.offset_us
        if step is not None:
            return (local - _ORIGIN_US) // step * step + _ORIGIN_US - self.offset_us
        moment = from_us(local)
        return to_us(datetime(moment.year, moment.month, 1, tzinfo=UTC)) - self.offset_us

    def next_open(self, open_us: int) -> int:
        """Return the open time of the kline after the one that opens at `open_us`."""
        step = self.step_us
        if step is not None:
            return open_us + step
        moment = from_us(open_us + self.offset_us)
        years, month = divmod(moment.month, 12)
        return to_us(datetime(moment.year + years, month + 1, 1, tzinfo=UTC)) - self.offset_us

    def previous_open(self, open_us: int) -> int:
        """Return the open time of the kline before the one that opens at `open_us`."""
        return self.open_of(open_us - 1)

    def first_open_from(self, time_us: int) -> int:
        """Return the first open time at or after `time_us`."""
        open_us = self.open_of(time_us)
        return open_us if open_us == time_us else self.next_open(open_us)

    def opens_of(self, times_us: IntArray) -> IntArray:
        """Vectorised `open_of`."""
        step = self.step_us
        if step is not None:
            shift = _ORIGIN_US - self.offset_us
            result: IntArray = (times_us - shift) // step * step + shift
            return result
        local = (times_us + self.offset_us).astype("datetime64[us]")
        months = local.astype("datetime64[M]").astype("datetime64[us]").astype(np.int64)
        return months - self.offset_us


SPOT_INTERVALS = (*_STEPS_US, _MONTH)
UM_INTERVALS = tuple(name for name in SPOT_INTERVALS if name != "1s")


def parse_interval(name: str, *, time_zone: str = "0") -> Interval:
    """Return an interval by name, e.g. `1m`. Raises ValueError for an unknown name or time zone."""
    if name not in SPOT_INTERVALS:
        raise ValueError(f"no kline interval {name!r}; there are {' '.join(SPOT_INTERVALS)}")
    return Interval(name, parse_time_zone(time_zone))


def parse_time_zone(text: str) -> int:
    """Return the offset in µs of `8`, `+08:00`, `-5:45` …, or raise ValueError."""
    sign = -1 if text.startswith("-") else 1
    hours, _, minutes = text.removeprefix("-").removeprefix("+").partition(":")
    if not (hours.isascii() and hours.isdigit() and len(hours) <= 2):
        raise ValueError(f"time zone {text!r} is not of the form [+-]H[H][:MM]")
    if minutes and not (minutes.isascii() and minutes.isdigit() and len(minutes) == 2):
        raise ValueError(f"time zone {text!r} is not of the form [+-]H[H][:MM]")
    total = sign * (int(hours) * 60 + int(minutes or 0))
    if int(minutes or 0) > 59 or not -12 * 60 <= total <= 14 * 60:
        raise ValueError(f"time zone {text!r} is outside -12:00 to +14:00")
    return timezone(timedelta(minutes=total)).utcoffset(None) // timedelta(microseconds=1)
