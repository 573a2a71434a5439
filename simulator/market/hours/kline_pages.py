"""Pages of klines across pauses: pauses have no klines and do not count towards a page's limit."""

import numpy as np

from simulator.market.hours.calendar import TradingCalendar
from simulator.market.intervals import Interval


def window_over_pauses(
    interval: Interval,
    calendar: TradingCalendar,
    *,
    lowest_us: int,
    highest_us: int,
    limit: int,
    is_latest: bool,
) -> tuple[int, int] | None:
    """Return open times of the first and last kline of a page; None if there is none.

    Args:
        lowest_us, highest_us: open times that bound the request.
        limit: number of klines, not counting those within a pause.
        is_latest: the page ends with the latest kline; otherwise it starts with the first.
    """
    if is_latest:
        return _latest(interval, calendar, lowest_us, highest_us, limit)
    return _first(interval, calendar, lowest_us, highest_us, limit)


def _first(
    interval: Interval, calendar: TradingCalendar, lowest_us: int, highest_us: int, limit: int
) -> tuple[int, int] | None:
    first_us: int | None = None
    cursor_us = lowest_us
    while limit > 0 and cursor_us <= highest_us:
        opens_us = calendar.next_open(cursor_us)
        if opens_us is None:
            break
        cursor_us = max(cursor_us, interval.open_of(opens_us))
        if cursor_us > highest_us:
            break
        first_us = cursor_us if first_us is None else first_us
        opens = _opens_from(interval, cursor_us, limit, highest_us)
        limit -= _existing(interval, calendar, opens)
        last_us = opens[-1]
        cursor_us = interval.next_open(last_us)
    return None if first_us is None else (first_us, last_us)


def _latest(
    interval: Interval, calendar: TradingCalendar, lowest_us: int, highest_us: int, limit: int
) -> tuple[int, int] | None:
    last_us: int | None = None
    cursor_us = highest_us
    while limit > 0 and cursor_us >= lowest_us:
        open_us = calendar.last_open(interval.next_open(cursor_us) - 1)
        if open_us is None:
            break
        cursor_us = min(cursor_us, interval.open_of(open_us))
        if cursor_us < lowest_us:
            break
        last_us = cursor_us if last_us is None else last_us
        opens = _opens_until(interval, cursor_us, limit, lowest_us)
        limit -= _existing(interval, calendar, opens)
        first_us = opens[0]
        cursor_us = interval.previous_open(first_us)
    return None if last_us is None else (first_us, last_us)


def _opens_from(interval: Interval, open_us: int, count: int, highest_us: int) -> list[int]:
    """Return at least one open time."""
    if interval.step_us is not None:
        stop_us = min(open_us + count * interval.step_us, highest_us + 1)
        return list(range(open_us, max(stop_us, open_us + 1), interval.step_us))
    opens = [open_us]
    while len(opens) < count and (following := interval.next_open(opens[-1])) <= highest_us:
        opens.append(following)
    return opens


def _opens_until(interval: Interval, open_us: int, count: int, lowest_us: int) -> list[int]:
    if interval.step_us is not None:
        begin_us = open_us - (count - 1) * interval.step_us
        if begin_us < lowest_us:
            begin_us = open_us - (open_us - lowest_us) // interval.step_us * interval.step_us
        return list(range(begin_us, open_us + 1, interval.step_us))
    opens = [open_us]
    while len(opens) < count and (before := interval.previous_open(opens[0])) >= lowest_us:
        opens.insert(0, before)
    return opens


def _existing(interval: Interval, calendar: TradingCalendar, opens: list[int]) -> int:
    if interval.step_us is not None:
        times = np.array(opens, dtype=np.int64)
        return int(calendar.overlap_mask(times, interval.step_us).sum())
    return sum(calendar.overlaps(open_us, interval.next_open(open_us)) for open_us in opens)
