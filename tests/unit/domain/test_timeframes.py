from __future__ import annotations

from datetime import UTC, datetime, timedelta, timezone

import pytest
from hypothesis import given
from hypothesis import strategies as st

from include.domain.timeframes import (
    MINUTE_US,
    TIMEFRAMES,
    from_us,
    from_us_text,
    minute_of,
    timeframe,
    to_us,
)

MOMENTS = st.integers(
    to_us(datetime(2017, 7, 1, tzinfo=UTC)), to_us(datetime(2040, 1, 1, tzinfo=UTC))
)


@given(MOMENTS, st.sampled_from(list(TIMEFRAMES)))
def test_every_moment_lies_in_its_bar(moment: int, name: str) -> None:
    frame = TIMEFRAMES[name]
    opened = frame.open_time_us(moment)
    assert opened <= moment < frame.next_open_us(opened)
    assert frame.open_time_us(opened) == opened


@given(MOMENTS)
def test_bar_starts_with_a_bar_of_its_parent(moment: int) -> None:
    for frame in TIMEFRAMES.values():
        if frame.parent is not None:
            opened = frame.open_time_us(moment)
            assert TIMEFRAMES[frame.parent].open_time_us(opened) == opened


@pytest.mark.parametrize(
    ("name", "moment", "opened"),
    [
        ("1w", "2024-08-08T12:00", "2024-08-05T00:00"),
        ("1M", "2024-02-29T23:59", "2024-02-01T00:00"),
        ("1M", "2024-12-31T23:59", "2024-12-01T00:00"),
        ("1d", "2024-08-08T23:59", "2024-08-08T00:00"),
        ("4h", "2023-03-24T13:14", "2023-03-24T12:00"),
    ],
)
def test_bars_open_in_utc(name: str, moment: str, opened: str) -> None:
    at = to_us(datetime.fromisoformat(moment + "+00:00"))
    assert from_us(timeframe(name).open_time_us(at)) == datetime.fromisoformat(opened + "+00:00")


def test_months_follow_each_other_over_the_new_year() -> None:
    december = to_us(datetime(2024, 12, 1, tzinfo=UTC))
    assert from_us(timeframe("1M").next_open_us(december)) == datetime(2025, 1, 1, tzinfo=UTC)


@given(st.datetimes(datetime(1971, 1, 1), datetime(2100, 1, 1)))  # noqa: DTZ001 - zone added below
def test_microseconds_round_trip_through_datetime(moment: datetime) -> None:
    aware = moment.replace(tzinfo=timezone(timedelta(hours=5, minutes=30)))
    assert from_us(to_us(aware)) == aware


def test_naive_time_is_refused() -> None:
    with pytest.raises(ValueError, match="no time zone"):
        to_us(datetime(2024, 1, 1))  # noqa: DTZ001


def test_unknown_timeframe_names_the_known_ones() -> None:
    with pytest.raises(ValueError, match=r"'7m'.*1m, 3m, 5m"):
        timeframe("7m")


def test_minute_of_truncates_seconds() -> None:
    assert minute_of(MINUTE_US * 7 + 59_999_999) == MINUTE_US * 7


def test_time_text_is_utc_with_microseconds() -> None:
    assert from_us_text(1_700_000_000_000_000) == "2023-11-14T22:13:20+00:00"
    assert from_us_text(1_700_000_000_000_001) == "2023-11-14T22:13:20.000001+00:00"
