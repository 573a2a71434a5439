"""Counts are added; times and symbols are read as people type them."""

from __future__ import annotations

import itertools
from datetime import UTC, date, datetime, timedelta, timezone

import pytest
from hypothesis import given
from hypothesis import strategies as st

from include.domain.timeframes import MINUTE_US, to_us
from include.errors import PermanentError
from include.jobs.klines.pieces import (
    LoadCounts,
    first_minute,
    gaps_in,
    label_of,
    market_from,
    minutes_in,
    moment_us,
    ranges_of,
    summarise,
    symbols_of,
)
from include.store.candles.minutes import MergeCounts

NOON = to_us(datetime(2024, 2, 29, 12, tzinfo=UTC))


@pytest.mark.parametrize(
    "value",
    [
        "2024-02-29T12:00",
        "2024-02-29 12:00:00Z",
        "2024-02-29T14:00+02:00",
        datetime(2024, 2, 29, 12, tzinfo=UTC),
        datetime(2024, 2, 29, 13, tzinfo=timezone(timedelta(hours=1))),
        NOON,
    ],
)
def test_time_is_parsed_in_all_forms(value: datetime | str | int) -> None:
    assert moment_us(value, name="start") == NOON


def test_date_is_its_midnight_in_utc() -> None:
    assert moment_us(date(2024, 2, 29), name="x") == moment_us("2024-02-29", name="x")


def test_time_within_a_minute_is_rounded_up() -> None:
    assert first_minute("2024-02-29T11:59:00.000001Z", name="x") == NOON
    assert first_minute("2024-02-29T12:00", name="x") == NOON


def test_times_that_cannot_be_read_are_named() -> None:
    with pytest.raises(PermanentError, match="start 'yesterday' is no time"):
        moment_us("yesterday", name="start")
    with pytest.raises(PermanentError, match="no time zone"):
        moment_us(datetime(2024, 2, 29), name="start")  # noqa: DTZ001 - the point of the test


def test_symbols_are_split_and_get_the_suffix_of_their_market() -> None:
    assert symbols_of(" btcusdt, ETHUSDT.P  BTCUSDT", "spot") == ["BTCUSDT", "ETHUSDT.P"]
    assert symbols_of(["BTCUSDT", "ETHUSDT.P"], "um") == ["BTCUSDT.P", "ETHUSDT.P"]
    assert symbols_of("btc/usdt ETH-USDT,ETH/USDT:USDT", "spot") == [
        "BTCUSDT", "ETHUSDT", "ETHUSDT.P",
    ]  # fmt: skip
    assert symbols_of("BTC/USDT", "um") == ["BTCUSDT.P"]
    assert symbols_of("BTC/USD:BTC,ethusd_260327", "spot") == ["BTCUSD_PERP", "ETHUSD_260327"]
    assert symbols_of("BTCUSD_PERP, BTCUSDT_260327", "um") == ["BTCUSD_PERP", "BTCUSDT_260327.P"]
    with pytest.raises(PermanentError, match="should be one such as BTCUSD_PERP or BTCUSD_260327"):
        symbols_of("BTCUSD", "cm")
    with pytest.raises(PermanentError, match="no symbols"):
        symbols_of(" , ", "spot")


def test_unknown_market_is_refused() -> None:
    with pytest.raises(PermanentError, match="should be spot or um"):
        market_from("futures")


def test_counts_are_added() -> None:
    merged = MergeCounts(offered=3, inserted=2, unchanged=1)
    total = summarise(counts=[LoadCounts.of(merged, dumps=1), LoadCounts(offered=4, rejected=2)])
    assert total == LoadCounts(offered=7, inserted=2, unchanged=1, dumps=1, rejected=2)
    assert summarise(counts=[]) == LoadCounts()


def test_labels_have_symbol_and_time() -> None:
    assert label_of("X", NOON, NOON + 90 * MINUTE_US) == "X 2024-02-29 12:00..13:30"
    assert label_of("X", NOON, NOON + 1440 * MINUTE_US) == "X 2024-02-29 12:00..2024-03-01 12:00"


@given(st.sets(st.integers(0, 60)), st.integers(0, 60), st.integers(0, 60))
def test_ranges_and_their_gaps_cover_all_minutes(
    minutes: set[int], start: int, length: int
) -> None:
    ranges = ranges_of(minute * MINUTE_US for minute in sorted(minutes))
    assert minutes_in(ranges) == len(minutes)
    end = start + length
    gaps = gaps_in(ranges, start * MINUTE_US, end * MINUTE_US)
    found = {at // MINUTE_US for begin, stop in gaps for at in range(begin, stop, MINUTE_US)}
    assert found == set(range(start, end)) - minutes
    assert all(a[1] < b[0] for a, b in itertools.pairwise(gaps))
