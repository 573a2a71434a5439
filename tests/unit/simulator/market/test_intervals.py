"""Where klines start and end."""

from datetime import UTC, datetime

import numpy as np
import pytest

from simulator.clock import MINUTE_US, to_us
from simulator.market.intervals import SPOT_INTERVALS, UM_INTERVALS, Interval, parse_interval


def _us(*parts: int) -> int:
    return to_us(datetime(*parts, tzinfo=UTC))  # type: ignore[arg-type, misc]


@pytest.mark.parametrize(
    ("name", "moment", "opens"),
    [
        ("1s", (2026, 4, 1, 10, 7, 9), (2026, 4, 1, 10, 7, 9)),
        ("1m", (2026, 4, 1, 10, 7, 9), (2026, 4, 1, 10, 7)),
        ("3m", (2026, 4, 1, 10, 8, 59), (2026, 4, 1, 10, 6)),
        ("8h", (2026, 4, 1, 15, 59), (2026, 4, 1, 8)),
        ("1d", (2026, 4, 1, 23, 59), (2026, 4, 1)),
        ("3d", (2020, 1, 3, 23), (2020, 1, 1)),  # 2001-01-01 + 3 × 2313 days
        ("1w", (2026, 4, 1), (2026, 3, 30)),  # a Wednesday and its Monday
        ("1w", (1999, 5, 2, 23), (1999, 4, 26)),  # before the origin
        ("1M", (2024, 2, 29, 23, 59), (2024, 2, 1)),
    ],
)
def test_kline_opens_where_the_exchange_opens_it(
    name: str, moment: tuple[int, ...], opens: tuple[int, ...]
) -> None:
    assert parse_interval(name).open_of(_us(*moment)) == _us(*opens)


@pytest.mark.parametrize("name", SPOT_INTERVALS)
def test_klines_have_no_gap_or_overlap(name: str) -> None:
    interval = parse_interval(name)
    open_us = interval.open_of(_us(2023, 11, 29, 23, 59, 30))
    for _ in range(40):
        next_us = interval.next_open(open_us)
        assert interval.open_of(next_us) == next_us
        assert interval.open_of(next_us - 1) == open_us
        assert interval.previous_open(next_us) == open_us
        assert interval.first_open_from(open_us) == open_us
        assert interval.first_open_from(open_us + 1) == next_us
        open_us = next_us


@pytest.mark.parametrize("name", SPOT_INTERVALS)
@pytest.mark.parametrize("zone", ["0", "8", "-5:45"])
def test_vectorised_opens_equal_single_ones(name: str, zone: str) -> None:
    interval = parse_interval(name, time_zone=zone)
    times = _us(2024, 2, 27) + np.arange(0, 4_000, dtype=np.int64) * 7 * MINUTE_US
    assert interval.opens_of(times).tolist() == [interval.open_of(t) for t in times.tolist()]


def test_day_of_another_zone_opens_at_its_midnight() -> None:
    assert parse_interval("1d", time_zone="+08:00").open_of(_us(2026, 4, 1, 17)) == _us(
        2026, 4, 1, 16
    )


def test_futures_have_no_seconds() -> None:
    assert "1s" in SPOT_INTERVALS
    assert "1s" not in UM_INTERVALS
    assert len(SPOT_INTERVALS) == 16


@pytest.mark.parametrize("zone", ["", "x", "14:01", "-12:30", "8:5", "1:60", "+-3"])
def test_impossible_time_zones_are_refused(zone: str) -> None:
    with pytest.raises(ValueError, match="time zone"):
        parse_interval("1d", time_zone=zone)


def test_unknown_intervals_are_refused() -> None:
    with pytest.raises(ValueError, match="7m"):
        parse_interval("7m")


def test_months_have_no_fixed_length() -> None:
    assert Interval("1M").step_us is None
