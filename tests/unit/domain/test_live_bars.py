"""Bars that are joined while their minutes come in equal the roll-up of all minutes."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Iterable
from dataclasses import replace
from datetime import UTC, datetime
from decimal import Decimal

import pytest

from include.domain.candles import Candle, silent_candle
from include.domain.live_bars import (
    DAY,
    HOUR,
    MAX_SWAPPED,
    Bar,
    BarPart,
    SymbolBars,
    is_of_another,
    reach_of,
)
from include.domain.rollup import join_bars, roll_up
from include.domain.timeframes import DAY_US, HOUR_US, MINUTE_US, TIMEFRAMES, Timeframe, to_us

SYMBOL = "BTCUSDT"
NEW_YEAR = to_us(datetime(2026, 1, 1, tzinfo=UTC))


def minute(open_time_us: int, rng: random.Random) -> Candle:
    """A minute with a few trades, or a silent one."""
    if rng.random() < 0.2:
        return silent_candle(SYMBOL, open_time_us, Decimal(100))
    prices = [Decimal(rng.randint(9_000, 11_000)) / 100 for _ in range(4)]
    volume = Decimal(rng.randint(1, 10**9)) / 10**8
    return Candle(
        SYMBOL, open_time_us, prices[0], max(prices), min(prices), prices[-1], volume,
        volume * prices[0], rng.randint(1, 50), volume / 2, volume * prices[0] / 2,
        open_time_us, open_time_us + 5,
    )  # fmt: skip


def bars_of(
    minutes: dict[int, Candle], timeframe: Timeframe, *, newest_us: int, is_closed: bool
) -> dict[int, Bar]:
    """All bars, by the roll-up of all minutes."""
    counts = Counter(timeframe.open_time_us(one) for one in minutes)
    found = {}
    for candle in roll_up([minutes[one] for one in sorted(minutes)], timeframe):
        end_us = timeframe.next_open_us(candle.open_time_us)
        found[candle.open_time_us] = Bar(
            candle,
            counts[candle.open_time_us],
            is_closed=newest_us >= end_us or (newest_us == end_us - MINUTE_US and is_closed),
        )
    return found


def check(live: SymbolBars, minutes: dict[int, Candle], *, is_closed: bool) -> None:
    """Every bar of each timeframe that is in memory: the newest two at least."""
    reach = reach_of(live.newest_us)
    for timeframe in TIMEFRAMES.values():
        expected = bars_of(minutes, timeframe, newest_us=live.newest_us, is_closed=is_closed)
        newest = timeframe.open_time_us(live.newest_us)
        width_us = timeframe.width_us or 28 * DAY_US
        first = (
            reach.minutes_from_us
            if width_us < HOUR_US
            else reach.hours_from_us
            if width_us < DAY_US
            else reach.days_from_us
        )
        in_memory = [one for one in expected if one >= first]
        for open_time_us in {newest, timeframe.open_time_us(newest - 1), *in_memory}:
            assert live.bar(timeframe, open_time_us) == expected.get(open_time_us), timeframe.name


def parts(minutes: Iterable[Candle], timeframe: Timeframe) -> list[BarPart]:
    """Closed bars, as a table has them."""
    rows = list(minutes)
    counts = Counter(timeframe.open_time_us(row.open_time_us) for row in rows)
    return [BarPart(one, counts[one.open_time_us]) for one in roll_up(rows, timeframe)]


@pytest.mark.parametrize("seed", range(4))
def test_newest_bars_equal_the_roll_up_of_new_and_revised_minutes(seed: int) -> None:
    rng = random.Random(seed)
    start = NEW_YEAR + rng.randrange(40) * DAY_US + rng.randrange(1440) * MINUTE_US
    minutes: dict[int, Candle] = {}
    live = SymbolBars(start)
    newest = start
    for step in range(240):
        jump = rng.choices([0, 1, 7, 61, 700], [3, 12, 2, 1, 0.3])[0]
        newest += jump * MINUTE_US
        late = rng.random() < 0.3
        open_time_us = newest - rng.randrange(70) * MINUTE_US if late else newest
        candle = minute(open_time_us, rng)
        is_closed = rng.random() < 0.5
        if live.put(candle, is_closed=is_closed):
            minutes[open_time_us] = candle
        else:
            assert open_time_us < HOUR.open_time_us(newest) - HOUR_US
        if step % 20 == 0 and newest in minutes:
            live.put(minutes[newest], is_closed=True)
            check(live, minutes, is_closed=True)


def test_bars_continue_from_stored_days_hours_and_minutes() -> None:
    rng = random.Random(1)
    newest = NEW_YEAR + 33 * DAY_US + 5 * HOUR_US + 17 * MINUTE_US
    every = {
        one: minute(one, rng)
        for one in range(NEW_YEAR - 9 * DAY_US, newest + MINUTE_US, MINUTE_US)
        if rng.random() < 0.5
    } | {newest: minute(newest, rng)}
    reach = reach_of(newest)
    assert reach.days_from_us == NEW_YEAR
    known = [one for time_us, one in sorted(every.items()) if time_us >= reach.days_from_us]
    # whatever lies outside of the reach is left to the coarser part
    live = SymbolBars(newest, known, parts(known, HOUR), parts(known, DAY))
    live.put(every[newest], is_closed=False)
    check(live, {one.open_time_us: one for one in known}, is_closed=False)


def test_minute_before_those_in_memory_is_refused_and_changes_nothing() -> None:
    rng = random.Random(2)
    newest = NEW_YEAR + 3 * HOUR_US
    live = SymbolBars(newest)
    live.put(minute(newest, rng), is_closed=False)
    before = live.bar(TIMEFRAMES["1d"])
    assert not live.put(minute(newest - HOUR_US - MINUTE_US, rng), is_closed=True)
    assert live.bar(TIMEFRAMES["1d"]) == before


def test_bar_without_minutes_is_none_and_one_before_memory_an_error() -> None:
    live = SymbolBars(NEW_YEAR)
    assert live.bar(TIMEFRAMES["1h"]) is None
    with pytest.raises(ValueError, match=r"the 5m bar of .* is no longer in memory"):
        live.bar(TIMEFRAMES["5m"], NEW_YEAR - HOUR_US - MINUTE_US)
    with pytest.raises(ValueError, match=r"the 4h bar of .* is no longer in memory"):
        live.bar(TIMEFRAMES["4h"], NEW_YEAR - DAY_US - MINUTE_US)


def test_bar_is_closed_with_its_last_minute_or_by_a_later_one() -> None:
    rng = random.Random(3)
    live = SymbolBars(NEW_YEAR)
    five = TIMEFRAMES["5m"]
    for index in range(5):
        live.put(minute(NEW_YEAR + index * MINUTE_US, rng), is_closed=False)
        bar = live.bar(five, NEW_YEAR)
        assert bar is not None
        assert (bar.minute_count, bar.is_closed) == (index + 1, False)
    live.put(minute(NEW_YEAR + 4 * MINUTE_US, rng), is_closed=True)
    bar = live.bar(five, NEW_YEAR)
    assert bar is not None
    assert bar.is_closed
    live.put(minute(NEW_YEAR + 10 * MINUTE_US, rng), is_closed=False)
    bar = live.bar(five, NEW_YEAR + 5 * MINUTE_US)
    assert bar is None  # an outage has no bar


def test_memory_is_bounded() -> None:
    rng = random.Random(4)
    live = SymbolBars(NEW_YEAR)
    for index in range(0, 70 * 1440, 37):
        live.put(minute(NEW_YEAR + index * MINUTE_US, rng), is_closed=True)
    assert len(live._minutes) <= 120
    assert len(live._hours) <= 47
    assert len(live._days) <= 62
    assert join_bars([live._minutes[one] for one in sorted(live._minutes)], 0).trade_count > 0


def test_minute_with_much_lower_ids_is_of_another_instrument() -> None:
    rng = random.Random(1)
    while (one := minute(NEW_YEAR, rng)).first_trade_id is None:
        pass
    before = replace(one, first_trade_id=1_000, last_trade_id=1_010)
    after = replace(one, open_time_us=NEW_YEAR + MINUTE_US)
    assert is_of_another(before, replace(after, first_trade_id=1, last_trade_id=9))
    # what was counted first came last: clocks were set
    swapped = 1_000 - MAX_SWAPPED
    assert not is_of_another(before, replace(after, first_trade_id=990, last_trade_id=swapped))
    assert not is_of_another(before, replace(after, first_trade_id=1_011, last_trade_id=1_020))
    # the first minute of the other one may hold trades of both
    assert is_of_another(before, replace(after, first_trade_id=1_011, last_trade_id=3))
    assert not is_of_another(before, replace(one, first_trade_id=1, last_trade_id=9))
    silent = silent_candle(SYMBOL, NEW_YEAR + MINUTE_US, Decimal(1))
    assert not is_of_another(before, silent)
    assert not is_of_another(silent, replace(after, open_time_us=NEW_YEAR + 2 * MINUTE_US))
