"""Funding times, intervals and rates."""

from datetime import UTC, datetime
from itertools import pairwise

import pytest

from simulator.clock import DAY_US, MINUTE_US, to_us
from simulator.market.derivatives.funding import (
    HOUR_US,
    INTERVALS_HOURS,
    FundingSchedule,
    IntervalChange,
)
from simulator.market.instruments import Instrument, invented, select_instruments

START = to_us(datetime(2026, 2, 1, tzinfo=UTC))
(BTC,) = select_instruments("um", ["BTCUSDT"], seed=1)


def contracts(count: int = 60) -> list[Instrument]:
    return [invented("um", f"C{number}USDT", seed=1) for number in range(count)]


def times(schedule: FundingSchedule, days: int, from_us: int = START) -> list[int]:
    return [one.funding_us for one in schedule.settlements(from_us, from_us + days * DAY_US)]


def test_busy_contract_settles_every_eight_hours() -> None:
    assert times(FundingSchedule(BTC, 1), 10) == list(
        range(START, START + 10 * DAY_US, 8 * HOUR_US)
    )


def test_contracts_have_all_intervals_and_some_change_them() -> None:
    firsts, changing = set(), 0
    for contract in contracts():
        found = times(FundingSchedule(contract, 1), 200)
        steps = {(b - a) // HOUR_US for a, b in pairwise(found)}
        assert steps <= set(INTERVALS_HOURS)
        firsts.add((found[1] - found[0]) // HOUR_US)
        changing += len(steps) > 1
    assert firsts == set(INTERVALS_HOURS)
    assert 5 < changing < 30


def test_recorded_time_is_at_most_eleven_milliseconds_late() -> None:
    delays = [
        one.time_us - one.funding_us
        for one in FundingSchedule(BTC, 1).settlements(START, START + 100 * DAY_US)
    ]
    assert set(delays) == {1_000 * late for late in range(12)}
    assert delays.count(0) > len(delays) // 5


def test_rates_stay_within_the_cap_and_some_reach_it() -> None:
    reached = 0
    for contract in contracts():
        schedule = FundingSchedule(contract, 1)
        rates = [one.rate for one in schedule.settlements(START, START + 100 * DAY_US)]
        assert all(abs(rate) <= schedule.cap for rate in rates)
        reached += schedule.cap in rates or -schedule.cap in rates
        assert rates.count(10_000) > len(rates) // 3
    assert reached > 20
    busy = FundingSchedule(BTC, 1).settlements(START, START + 300 * DAY_US)
    assert all(abs(one.rate) <= 30_000 for one in busy)


def test_interval_names_the_hours_that_ended_with_the_settlement() -> None:
    schedule = FundingSchedule(BTC, 1, changes=(IntervalChange(START + 5 * HOUR_US, 2),))
    found = list(schedule.settlements(START, START + 12 * HOUR_US))
    hours = [((one.funding_us - START) // HOUR_US, one.interval_hours) for one in found]
    assert hours == [(0, 8), (6, 2), (8, 2), (10, 2)]


@pytest.mark.parametrize(("at_hour", "hours", "expected"), [
    (8, 4, [0, 8, 12, 16, 20]),
    (9, 1, [0, 8, 9, 10, 11, 12, 13, 14, 15, 16, 17, 18, 19, 20, 21, 22, 23]),
    (9, 8, [0, 8, 16]),
])  # fmt: skip
def test_changed_interval_holds_from_its_time(
    at_hour: int, hours: int, expected: list[int]
) -> None:
    change = IntervalChange(START + at_hour * HOUR_US, hours)
    found = times(FundingSchedule(BTC, 1, changes=(change,)), 1)
    assert [(time_us - START) // HOUR_US for time_us in found] == expected


def test_a_fault_replaces_the_changes_of_the_seed() -> None:
    contract = next(
        one for one in contracts()
        if len({b - a for a, b in pairwise(times(FundingSchedule(one, 1), 200))}) > 1
    )  # fmt: skip
    change = IntervalChange(START + DAY_US, 4)
    found = times(FundingSchedule(contract, 1, changes=(change,)), 200, START + DAY_US)
    assert {b - a for a, b in pairwise(found)} == {4 * HOUR_US}
    before = FundingSchedule(contract, 1)
    assert times(before, 1) == times(FundingSchedule(contract, 1, changes=(change,)), 1)


def test_settlements_do_not_depend_on_the_range_asked() -> None:
    for contract in contracts(10):
        schedule = FundingSchedule(contract, 1)
        whole = list(schedule.settlements(START, START + 90 * DAY_US))
        parts = [
            one
            for day in range(90)
            for one in schedule.settlements(START + day * DAY_US, START + (day + 1) * DAY_US)
        ]
        assert whole == parts


def test_predicted_rate_nears_the_settled_one() -> None:
    schedule = FundingSchedule(BTC, 1)
    (settled,) = schedule.settlements(START + 8 * HOUR_US, START + 8 * HOUR_US + 1)
    predicted = [
        schedule.predicted_rate(settled.funding_us - ago * MINUTE_US) for ago in range(480)
    ]
    assert predicted[0] == settled.rate
    assert all(
        abs(rate - settled.rate) <= 5_000 * ago // 480 + 1 for ago, rate in enumerate(predicted)
    )
    assert len(set(predicted)) > 100
