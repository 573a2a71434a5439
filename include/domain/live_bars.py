"""Live bars of every timeframe, updated minute by minute.

A bar is joined from days, hours and minutes: minutes for this hour and the one before, hours for
the rest of today and yesterday, days for earlier times. So memory per symbol is bounded, and the
cost of a bar of a month is bounded by its number of parts.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from include.domain.candles import Candle
from include.domain.instruments import REUSED_AFTER_US
from include.domain.rollup import join_bars
from include.domain.timeframes import DAY_US, HOUR_US, MINUTE_US, TIMEFRAMES, Timeframe

HOUR = TIMEFRAMES["1h"]
DAY = TIMEFRAMES["1d"]
MAX_SWAPPED = 64
"""Maximum ids in wrong order at the end of a minute, due to clock corrections."""


@dataclass(frozen=True, slots=True)
class Bar:
    """A candle of any timeframe.

    Attributes:
        minute_count: number of known minutes in it.
        is_closed: whether its last minute has ended.
    """

    candle: Candle
    minute_count: int
    is_closed: bool


@dataclass(frozen=True, slots=True)
class BarPart:
    """Joined minutes of a bar."""

    candle: Candle
    minute_count: int


@dataclass(frozen=True, slots=True)
class Reach:
    """Start times of the minutes, hours and days from which the newest bars are joined.

    Attributes:
        minutes_from_us: start of the minutes; also the start of an hour.
        hours_from_us: start of the hours, which end at ``minutes_from_us``; also the start of a
            day.
        days_from_us: start of the days, which end at ``hours_from_us``.
    """

    minutes_from_us: int
    hours_from_us: int
    days_from_us: int


def reach_of(newest_us: int) -> Reach:
    """Return the times needed for the bars that contain this minute and the bars before them.

    Args:
        newest_us: open time of the newest minute.
    """
    return Reach(
        minutes_from_us=_previous_open(HOUR, newest_us),
        hours_from_us=_previous_open(DAY, newest_us),
        days_from_us=min(
            _previous_open(timeframe, newest_us)
            for timeframe in TIMEFRAMES.values()
            if timeframe.width_us is None or timeframe.width_us >= (DAY.width_us or 0)
        ),
    )


def is_of_another(before: Candle, after: Candle) -> bool:
    """Whether a minute belongs to another instrument than an earlier one with the same ticker.

    Trades of one instrument have ascending ids. If all ids of the later minute are smaller than the
    ids of the earlier one, another instrument has taken over the ticker.
    """
    if before.first_trade_id is None or after.last_trade_id is None:
        return False
    is_later = after.open_time_us >= before.open_time_us + REUSED_AFTER_US
    return is_later and after.last_trade_id < before.first_trade_id - MAX_SWAPPED


class SymbolBars:
    """The newest bars of each timeframe of one symbol: at least two.

    Args:
        newest_us: open time of the newest minute.
        minutes, hours, days: known parts within ``reach_of(newest_us)``; parts outside are ignored.
            The minutes must be closed.
    """

    def __init__(
        self,
        newest_us: int,
        minutes: Iterable[Candle] = (),
        hours: Iterable[BarPart] = (),
        days: Iterable[BarPart] = (),
    ) -> None:
        self.newest_us = newest_us
        self._reach = reach_of(newest_us)
        self._is_newest_closed = False
        reach = self._reach
        self._minutes = {
            one.open_time_us: one for one in minutes if one.open_time_us >= reach.minutes_from_us
        }
        self._hours = _between(hours, reach.hours_from_us, reach.minutes_from_us)
        self._days = _between(days, reach.days_from_us, reach.hours_from_us)
        self._joined_hours: dict[int, BarPart | None] = {}
        self._earlier: dict[tuple[str, int], BarPart | None] = {}
        """Parts of the bars before the newest minute."""

    def put(self, candle: Candle, *, is_closed: bool) -> bool:
        """Update a minute.

        Returns:
            False if the minute is older than those in memory; its bars must then be read again from
            storage.
        """
        open_time_us = candle.open_time_us
        if open_time_us < self._reach.minutes_from_us:
            return False
        if open_time_us > self.newest_us:
            self._advance(open_time_us)
        elif open_time_us < self.newest_us:
            self._earlier.clear()
            self._joined_hours.pop(HOUR.open_time_us(open_time_us), None)
        if open_time_us == self.newest_us:
            self._is_newest_closed = is_closed
        self._minutes[open_time_us] = candle
        return True

    def bar(self, timeframe: Timeframe, moment_us: int | None = None) -> Bar | None:
        """Return the bar that contains a time; None if no part of it is known.

        Args:
            moment_us: by default the newest minute. The earliest allowed is in the previous bar, or
                in the first bar with all parts known.

        Raises:
            ValueError: the bar is older than those in memory.
        """
        open_time_us = timeframe.open_time_us(self.newest_us if moment_us is None else moment_us)
        if open_time_us < self._first_open_us(timeframe):
            raise ValueError(f"the {timeframe.name} bar of {open_time_us} is no longer in memory")
        end_us = timeframe.next_open_us(open_time_us)
        part = self._earlier_part(timeframe, open_time_us, end_us)
        newest = self._minutes.get(self.newest_us)
        if newest is not None and open_time_us <= self.newest_us < end_us:
            part = _join([*([] if part is None else [part]), BarPart(newest, 1)], open_time_us)
        if part is None:
            return None
        last_us = end_us - MINUTE_US
        is_closed = last_us < self.newest_us or (
            last_us == self.newest_us and self._is_newest_closed
        )
        return Bar(part.candle, part.minute_count, is_closed)

    # --- inside

    def _first_open_us(self, timeframe: Timeframe) -> int:
        """Return the open time of the earliest bar whose parts are all in memory."""
        width_us = timeframe.width_us or DAY_US
        if width_us < HOUR_US:
            return self._reach.minutes_from_us
        return self._reach.hours_from_us if width_us < DAY_US else self._reach.days_from_us

    def _advance(self, newest_us: int) -> None:
        """Advance to a newer minute; join minutes to hours, and hours to days, that leave the
        reach."""
        before, reach = self._reach, reach_of(newest_us)
        self._earlier.clear()
        self._joined_hours.pop(HOUR.open_time_us(self.newest_us), None)
        if reach != before:
            for hour_us in sorted({HOUR.open_time_us(one) for one in self._minutes}):
                if hour_us < reach.minutes_from_us and (part := self._hour(hour_us)) is not None:
                    self._hours[hour_us] = part
            self._minutes = {
                one: candle for one, candle in self._minutes.items() if one >= reach.minutes_from_us
            }
            self._joined_hours = {
                one: part
                for one, part in self._joined_hours.items()
                if one >= reach.minutes_from_us
            }
            for day_us in sorted({DAY.open_time_us(one) for one in self._hours}):
                if day_us < reach.hours_from_us:
                    hours = [
                        self._hours[one]
                        for one in sorted(self._hours)
                        if day_us <= one < DAY.next_open_us(day_us)
                    ]
                    self._days[day_us] = _join(hours, day_us)
            self._hours = {
                one: part for one, part in self._hours.items() if one >= reach.hours_from_us
            }
            self._days = {
                one: part for one, part in self._days.items() if one >= reach.days_from_us
            }
            self._reach = reach
        self.newest_us = newest_us
        self._is_newest_closed = False

    def _earlier_part(self, timeframe: Timeframe, open_time_us: int, end_us: int) -> BarPart | None:
        """Return the part of a bar before the newest minute."""
        key = (timeframe.name, open_time_us)
        if key not in self._earlier:
            parts = list(self._parts(open_time_us, min(end_us, self.newest_us)))
            self._earlier[key] = _join(parts, open_time_us) if parts else None
        return self._earlier[key]

    def _parts(self, start_us: int, end_us: int) -> Iterator[BarPart]:
        """Return the parts between two moments in order, each as large as available."""
        reach = self._reach
        for day_us in sorted(self._days):
            if start_us <= day_us < end_us:
                yield self._days[day_us]
        for hour_us in sorted(self._hours):
            if start_us <= hour_us < end_us:
                yield self._hours[hour_us]
        moment_us = max(start_us, reach.minutes_from_us)
        while moment_us < end_us:
            next_us = HOUR.next_open_us(moment_us)
            if moment_us == HOUR.open_time_us(moment_us) and next_us <= end_us:
                if (part := self._hour(moment_us)) is not None:
                    yield part
                moment_us = next_us
                continue
            if (minute := self._minutes.get(moment_us)) is not None:
                yield BarPart(minute, 1)
            moment_us += MINUTE_US

    def _hour(self, hour_us: int) -> BarPart | None:
        """Return an hour, joined from its minutes."""
        if hour_us not in self._joined_hours:
            minutes = [
                BarPart(candle, 1)
                for one in range(hour_us, HOUR.next_open_us(hour_us), MINUTE_US)
                if (candle := self._minutes.get(one)) is not None
            ]
            self._joined_hours[hour_us] = _join(minutes, hour_us) if minutes else None
        return self._joined_hours[hour_us]


def _previous_open(timeframe: Timeframe, moment_us: int) -> int:
    """Return the open time of the bar before the one that contains a time."""
    return timeframe.open_time_us(timeframe.open_time_us(moment_us) - 1)


def _between(parts: Iterable[BarPart], start_us: int, end_us: int) -> dict[int, BarPart]:
    return {
        part.candle.open_time_us: part
        for part in parts
        if start_us <= part.candle.open_time_us < end_us
    }


def _join(parts: list[BarPart], open_time_us: int) -> BarPart:
    """Join parts, at least one, in order."""
    return BarPart(
        join_bars([part.candle for part in parts], open_time_us),
        sum(part.minute_count for part in parts),
    )
