"""Klines of mark, index and premium prices."""

from datetime import UTC, datetime

import numpy as np
import pytest

from simulator.clock import DAY_US, MINUTE_US, SECOND_US, to_us
from simulator.market.derivatives.price_klines import PRICE_NAMES, PriceKline, PriceName
from simulator.market.derivatives.prices import premium_indexes
from simulator.market.derivatives.series import DerivativeSeries
from simulator.market.instruments import select_instruments
from simulator.market.intervals import UM_INTERVALS, parse_interval
from simulator.market.market import SimulatedMarket

START = to_us(datetime(2026, 1, 30, 0, 7, tzinfo=UTC))
NOW = START + 40 * DAY_US + 30 * SECOND_US
MINUTE = parse_interval("1m")


@pytest.fixture
def series() -> DerivativeSeries:
    listed = select_instruments("um", ["BTCUSDT"], seed=1)
    return SimulatedMarket(listed, seed=1, start_us=START).derivatives("BTCUSDT")


def of_frames(series: DerivativeSeries, name: PriceName, open_us: int) -> PriceKline:
    """Aggregate what a client receives on `markPrice@1s` in a minute."""
    marks = [series.mark_price(open_us + second * SECOND_US) for second in range(60)]
    values = [mark.mark if name == "mark" else mark.index_price for mark in marks]
    return PriceKline(
        open_us, open_us + MINUTE_US - 1, values[0], max(values), min(values), values[-1], 60
    )


@pytest.mark.parametrize("name", ["mark", "index"])
def test_klines_equal_the_frames_of_each_second(series: DerivativeSeries, name: PriceName) -> None:
    first_us = START + 3 * DAY_US
    found = series.klines(name, MINUTE, first_us, first_us + 4 * MINUTE_US, view_us=NOW)
    assert found == [of_frames(series, name, first_us + n * MINUTE_US) for n in range(5)]
    assert any(kline.low < min(kline.open, kline.close) for kline in found)
    assert any(kline.high > max(kline.open, kline.close) for kline in found)


def test_premium_index_has_a_value_every_five_seconds(series: DerivativeSeries) -> None:
    (kline,) = series.klines("premium", MINUTE, START, START, view_us=NOW)
    times = START + np.arange(12, dtype=np.int64) * 5 * SECOND_US
    values = premium_indexes(series.history, times, seed=1).tolist()
    assert (kline.open, kline.high, kline.low, kline.close, kline.value_count) == (
        values[0], max(values), min(values), values[-1], 12,
    )  # fmt: skip
    assert min(values) < max(values)
    assert all(abs(value) <= 70_000 for value in values)


@pytest.mark.parametrize("interval", UM_INTERVALS)
@pytest.mark.parametrize("name", PRICE_NAMES)
def test_longer_klines_are_rolled_up_minutes(
    series: DerivativeSeries, name: PriceName, interval: str
) -> None:
    spec = parse_interval(interval)
    days = 1 if (spec.step_us or DAY_US) < DAY_US else 35
    last_us = START + days * DAY_US
    found = series.klines(name, spec, START, last_us, view_us=last_us + 5 * SECOND_US)
    minutes = series.klines(name, MINUTE, START, last_us, view_us=last_us + 5 * SECOND_US)
    wanted: dict[int, list[PriceKline]] = {}
    for minute in minutes:
        wanted.setdefault(spec.open_of(minute.open_time_us), []).append(minute)
    assert found == [
        PriceKline(
            open_us, spec.next_open(open_us) - 1, part[0].open, max(one.high for one in part),
            min(one.low for one in part), part[-1].close, sum(one.value_count for one in part),
        )
        for open_us, part in wanted.items()
    ]  # fmt: skip


def test_open_kline_has_only_the_seconds_that_passed(series: DerivativeSeries) -> None:
    open_us = START + DAY_US
    for seconds in (0, 1, 59):
        view_us = open_us + seconds * SECOND_US + 1
        (kline,) = series.klines("mark", MINUTE, open_us, open_us, view_us=view_us)
        assert kline.value_count == seconds + 1
    assert series.klines("mark", MINUTE, open_us, open_us, view_us=open_us - 1) == []


def test_values_begin_with_the_listing_and_end_with_the_delisting(
    series: DerivativeSeries,
) -> None:
    history = series.history
    calendar = history.calendar.halted(START + 2 * MINUTE_US, START + 4 * MINUTE_US)
    history.change(calendar.delisted(START + 6 * MINUTE_US), from_us=START + 2 * MINUTE_US)
    found = series.klines("mark", MINUTE, START - DAY_US, START + DAY_US, view_us=NOW)
    opens = [(kline.open_time_us - START) // MINUTE_US for kline in found]
    assert opens == [0, 1, 2, 3, 4, 5]
