"""Queries and changes of a trading calendar."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from simulator.clock import MINUTE_US
from simulator.market.hours.calendar import CalendarError, TradingCalendar, TradingSession

START = 29_000_000 * MINUTE_US
PLAIN = TradingCalendar.open_from(START + 5)


def _at(minutes: float) -> int:
    return START + round(minutes * MINUTE_US)


def test_listing_starts_on_its_minute_without_end() -> None:
    assert PLAIN.sessions == (TradingSession(START),)
    assert PLAIN.is_plain
    states = [PLAIN.state(time_us) for time_us in (START - 1, START, _at(1e6))]
    assert states == ["unlisted", "trading", "trading"]


def test_halt_has_state_and_end() -> None:
    calendar = PLAIN.halted(_at(10.5), _at(20.25))
    assert [calendar.state(_at(m)) for m in (10.4, 10.5, 20.2, 20.25)] == [
        "trading", "halted", "halted", "trading",
    ]  # fmt: skip
    assert calendar.partial_minutes() == {START // MINUTE_US + 10, START // MINUTE_US + 20}
    assert calendar.next_open(_at(11)) == _at(20.25)
    assert calendar.last_open(_at(11)) == _at(10.5) - 1
    assert not calendar.overlaps(_at(10.5), _at(20.25))
    assert calendar.overlaps(_at(10.5) - 1, _at(11))
    assert [one.generation for one in calendar.listings()] == [0]


def test_halts_can_overlap_and_be_permanent() -> None:
    calendar = PLAIN.halted(_at(10), _at(20)).halted(_at(15), _at(30)).halted(_at(40), None)
    assert calendar.sessions == (
        TradingSession(START, _at(10)), TradingSession(_at(30), _at(40)),
    )  # fmt: skip
    assert calendar.next_open(_at(41)) is None
    assert calendar.state(_at(99)) == "halted"


def test_delisted_name_can_be_listed_for_another_instrument() -> None:
    calendar = PLAIN.delisted(_at(10.5)).relisted(_at(12.1))
    assert [calendar.state(_at(m)) for m in (10, 10.5, 12.9, 13)] == [
        "trading", "delisted", "delisted", "trading",
    ]  # fmt: skip
    assert [calendar.generation(_at(m)) for m in (10, 12.9, 13)] == [0, 0, 1]
    assert [one.start_us for one in calendar.listings()] == [START, _at(13)]
    again = calendar.delisted(_at(60)).relisted(_at(61))
    assert again.generation(_at(61)) == 2
    assert again.delisted(_at(70)).state(_at(70)) == "delisted"


def test_halt_in_a_later_generation_keeps_its_delisting() -> None:
    calendar = PLAIN.delisted(_at(10)).relisted(_at(20)).halted(_at(5), _at(8))
    assert [calendar.state(_at(m)) for m in (6, 9, 11, 20)] == [
        "halted", "trading", "delisted", "trading",
    ]  # fmt: skip
    during = PLAIN.halted(_at(5), _at(30)).delisted(_at(10))
    assert during.state(_at(6)) == "delisted", "the last session's end is the delisting's"
    assert during.next_open(_at(6)) is None


def test_impossible_changes_are_refused() -> None:
    with pytest.raises(CalendarError, match="must end after"):
        PLAIN.halted(_at(5), _at(5))
    with pytest.raises(CalendarError, match="no trading to halt"):
        PLAIN.delisted(_at(5)).halted(_at(6), _at(7))
    with pytest.raises(CalendarError, match="not listed"):
        PLAIN.delisted(_at(5)).delisted(_at(6))
    with pytest.raises(CalendarError, match="not listed"):
        PLAIN.delisted(START - 1)
    with pytest.raises(CalendarError, match="only after its delisting"):
        PLAIN.relisted(_at(5))
    with pytest.raises(CalendarError, match="only after its delisting"):
        PLAIN.halted(_at(4), None).relisted(_at(5))


@given(st.lists(st.tuples(st.integers(1, 5_000), st.integers(1, 900)), max_size=6))
def test_masks_equal_single_queries(halts: list[tuple[int, int]]) -> None:
    second = 1_000_000
    calendar = PLAIN
    for begin, length in halts:
        from_us = START + begin * second
        if calendar.overlaps(from_us, from_us + length * second):
            calendar = calendar.halted(from_us, from_us + length * second)
    halted = {s for begin, length in halts for s in range(begin, begin + length)}
    edges = {s + d for begin, length in halts for s in (begin, begin + length) for d in (-1, 0, 1)}
    seconds = np.array(sorted(edges | set(range(0, 6_000, 60))), dtype=np.int64)
    times = START + seconds * second
    expected = [s not in halted for s in seconds.tolist()]
    assert calendar.trading_mask(times).tolist() == expected
    assert [calendar.is_trading(t) for t in times.tolist()] == expected
    minutes = START + np.arange(0, 6_000, 60, dtype=np.int64) * second
    assert calendar.overlap_mask(minutes, MINUTE_US).tolist() == [
        any(s not in halted for s in range(begin, begin + 60)) for begin in range(0, 6_000, 60)
    ]
