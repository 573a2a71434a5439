"""Gaps of derivative series: what the exchange lacks, and what was not loaded."""

from __future__ import annotations

import random
from datetime import UTC, datetime, timedelta
from typing import Any

import psycopg
import pytest

from include.domain.series.funding import FundingTime, missing_settlements
from include.domain.series.kinds import Series
from include.domain.timeframes import HOUR_US, MINUTE_US, to_us
from include.store.series.coverage import (
    LACKED,
    NOT_LOADED,
    add_series_coverage,
    covered_series,
    read_series_coverage,
    series_gaps,
)
from include.store.series.merging import merge_series

Connection = psycopg.Connection[Any]

T0 = datetime(2026, 11, 1, tzinfo=UTC)
START_US = to_us(T0)
SYMBOL = "BTCUSDT.P"
DAY_US = 24 * HOUR_US


def store_open_interest(connection: Connection, *steps: int) -> None:
    merge_series(
        connection,
        Series.OPEN_INTEREST,
        [
            (SYMBOL, T0 + timedelta(minutes=5 * step), "1", "2", "verified", "dump_daily", T0)
            for step in steps
        ],
    )


def store_settlements(connection: Connection, times: list[FundingTime]) -> None:
    rows = []
    for one in times:
        when = T0 + timedelta(microseconds=one.settles_at_us - START_US)
        rows.append(
            (SYMBOL, when, "0.0001", when, None, one.interval_hours, "verified", "rest", T0)
        )
    merge_series(connection, Series.FUNDING, rows)


def test_missing_steps_are_divided_by_what_was_asked(connection: Connection) -> None:
    store_open_interest(connection, 0, 1, 4, 9)
    asked_until_us = START_US + 5 * 5 * MINUTE_US
    add_series_coverage(
        connection, Series.OPEN_INTEREST, SYMBOL, "dump_daily", [(START_US, asked_until_us)]
    )

    gaps = series_gaps(connection, Series.OPEN_INTEREST, SYMBOL, START_US, START_US + DAY_US)

    step_us = 5 * MINUTE_US
    assert [((one.start_us - START_US) // step_us, one.missing, one.reason) for one in gaps] == [
        (2, 2, LACKED),
        (5, 4, NOT_LOADED),
    ]


def test_a_day_without_rows_shows_once_it_was_asked_for(connection: Connection) -> None:
    store_open_interest(connection, *range(288))
    span = (START_US, START_US + 2 * DAY_US)
    assert series_gaps(connection, Series.OPEN_INTEREST, SYMBOL, *span) == []

    add_series_coverage(connection, Series.OPEN_INTEREST, SYMBOL, "dump_daily", [span])

    (gap,) = series_gaps(connection, Series.OPEN_INTEREST, SYMBOL, *span)
    assert (gap.start_us, gap.missing, gap.reason) == (START_US + DAY_US, 288, LACKED)


def test_a_hole_at_the_beginning_of_the_asked_time_is_a_gap(connection: Connection) -> None:
    store_open_interest(connection, 0, 10)
    (gap,) = series_gaps(
        connection, Series.OPEN_INTEREST, SYMBOL, START_US + 10 * MINUTE_US, START_US + DAY_US
    )
    assert gap.missing == 8


def test_coverage_of_all_sources_is_united(connection: Connection) -> None:
    for source, start, end in (("rest", 0, 2), ("dump_daily", 1, 3), ("rest", 5, 6)):
        add_series_coverage(
            connection,
            Series.MARK,
            SYMBOL,
            source,
            [(START_US + start * HOUR_US, START_US + end * HOUR_US)],
        )
    found = read_series_coverage(connection, Series.MARK, SYMBOL, START_US, START_US + DAY_US)
    assert [((a - START_US) // HOUR_US, (b - START_US) // HOUR_US) for a, b in found] == [
        (0, 3),
        (5, 6),
    ]
    assert covered_series(connection) == [(SYMBOL, Series.MARK)]


@pytest.mark.parametrize("seed", range(6))
def test_gaps_of_funding_follow_the_rule_in_python(connection: Connection, seed: int) -> None:
    dice = random.Random(seed)
    hour, times = 0, []
    for _ in range(40):
        if dice.random() < 0.1 or not times:
            interval = dice.choice([1, 4, 8])
        hour = (hour // interval + 1) * interval
        if dice.random() < 0.85:
            known = interval if dice.random() < 0.4 else None
            times.append(FundingTime(START_US + hour * HOUR_US, known))
    store_settlements(connection, times)

    gaps = series_gaps(connection, Series.FUNDING, SYMBOL, START_US, START_US + 40 * DAY_US)

    assert [(one.start_us, one.end_us, one.missing) for one in gaps] == [
        (one.from_us, one.to_us, one.count) for one in missing_settlements(times)
    ]
