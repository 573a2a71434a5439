"""Mark prices, settlements and liquidations of one contract."""

from datetime import UTC, datetime
from itertools import pairwise

import numpy as np

from simulator.clock import DAY_US, MINUTE_US, SECOND_US, to_us
from simulator.market.derivatives.funding import IntervalChange
from simulator.market.derivatives.prices import MARK_DECIMALS
from simulator.market.derivatives.series import DerivativeSeries
from simulator.market.instruments import select_instruments
from simulator.market.market import SimulatedMarket
from simulator.market.rolling import last_trade

START = to_us(datetime(2026, 2, 1, tzinfo=UTC))
NOON = to_us(datetime(2026, 2, 3, 12, 0, 3, tzinfo=UTC))
HOUR = 60 * MINUTE_US


def series_of(symbol: str) -> DerivativeSeries:
    listed = select_instruments("um", [symbol], seed=1)
    return SimulatedMarket(listed, seed=1, start_us=START).derivatives(symbol)


def test_mark_prices_stay_near_the_trades_and_move_slowly() -> None:
    series = series_of("BTCUSDT")
    units = 10 ** (MARK_DECIMALS - series.history.instrument.price_decimals)
    marks = [series.mark_price(NOON + n * SECOND_US) for n in range(400)]
    for mark in marks:
        traded = last_trade(series.history, mark.time_us).price * units
        assert abs(mark.mark - mark.index_price) * 2_000 <= mark.index_price
        assert abs(mark.index_price - traded) * 200 < traded
    assert all(abs(a.mark - b.mark) * 1_000 < a.mark for a, b in pairwise(marks))
    assert len({mark.mark for mark in marks}) > 300
    for number, mark in enumerate(marks[30:], start=30):
        near = [marks[number - ago].mark for ago in (0, 10, 20, 30)]
        assert mark.average == sum(near) // 4


def test_mark_price_is_constant_within_a_second() -> None:
    series = series_of("BTCUSDT")
    first = series.mark_price(NOON)
    for offset_us in (1, 500_000, SECOND_US - 1):
        later = series.mark_price(NOON + offset_us)
        assert (later.mark, later.index_price) == (first.mark, first.index_price)
    assert series.mark_price(NOON + SECOND_US).mark != first.mark


def test_funding_time_belongs_to_its_settlement() -> None:
    series = series_of("BTCUSDT")
    funding_us = START + DAY_US
    at = series.mark_price(funding_us)
    after = series.mark_price(funding_us + 1)
    (settled,) = series.settlements(funding_us, funding_us + 1)
    assert (at.next_funding_us, at.funding_rate) == (funding_us, settled.rate)
    assert after.next_funding_us == funding_us + 8 * HOUR
    last = series.mark_price(funding_us - MINUTE_US + 1)
    assert last.funding_rate == settled.rate


def test_latest_settlements_end_with_the_last_one() -> None:
    series = series_of("BTCUSDT")
    until_us = START + 2 * DAY_US + 1
    everything = series.settlements(0, until_us)
    assert [one.funding_us for one in everything] == list(range(START, until_us, 8 * HOUR))
    assert series.latest_settlements(until_us, 3) == everything[-3:]
    assert series.latest_settlements(until_us, 1_000) == everything


def test_settlements_end_with_the_listing_and_go_on_in_a_halt() -> None:
    series = series_of("BTCUSDT")
    calendar = series.history.calendar.halted(START + 7 * HOUR, START + 9 * HOUR)
    series.history.change(calendar.delisted(START + 16 * HOUR), from_us=START + 7 * HOUR)
    found = [one.funding_us for one in series.settlements(START, START + 2 * DAY_US)]
    assert found == [START, START + 8 * HOUR]


def test_missing_settlements_are_not_recorded_and_change_no_other() -> None:
    series = series_of("BTCUSDT")
    before = series.settlements(START, START + DAY_US)
    series.set_missing(((START + 8 * HOUR, START + 8 * HOUR + 1),))
    assert series.settlements(START, START + DAY_US) == [before[0], before[2]]
    assert series.mark_price(START + 7 * HOUR).next_funding_us == START + 8 * HOUR


def test_funding_info_tells_the_interval_and_since_when() -> None:
    series = series_of("BTCUSDT")
    info = series.funding_info(NOON)
    assert info is not None
    assert info.is_default
    series.set_intervals((IntervalChange(START + DAY_US, 4),))
    later = series.funding_info(NOON)
    assert later is not None
    assert (later.interval_hours, later.updated_us, later.is_default) == (
        4,
        START + DAY_US,
        False,
    )
    assert series.funding_info(START + HOUR) == info


def test_open_interest_is_served_negative_during_a_fault() -> None:
    series = series_of("BTCUSDT")
    times = np.arange(NOON // HOUR * HOUR, NOON + 2 * HOUR, HOUR, dtype=np.int64)
    true = series.open_interest(times)
    assert all(amount > 0 for amount in true)
    assert series.served_open_interest(times) == true
    series.negative = ((int(times[1]), int(times[2])),)
    assert series.served_open_interest(times) == [true[0], -true[1], true[2]]
    assert series.open_interest(times) == true


def test_injected_liquidation_is_found_in_a_minute_without_trades() -> None:
    series = series_of("KEEPUSDT")
    quiet = next(
        minute
        for minute in range(NOON // MINUTE_US, NOON // MINUTE_US + 1_000)
        if len(series.history.minute(minute)) == 0
    )
    assert series.next_liquidation_minute(quiet) != quiet
    added = series.make_liquidation(quiet * MINUTE_US + 5, is_sell=True, quantity=1)
    series.injected = (added,)
    assert series.next_liquidation_minute(quiet) == quiet
    assert series.liquidations(quiet) == [added]
