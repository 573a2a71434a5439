"""Continuous contracts: one series of klines over the contracts of a pair."""

from datetime import UTC, datetime

from simulator.clock import DAY_US, MINUTE_US, to_us
from simulator.market.continuous import continuous_klines, contract_periods
from simulator.market.instruments import select_instruments
from simulator.market.intervals import parse_interval
from simulator.market.market import SimulatedMarket

DELIVERY = to_us(datetime(2026, 3, 27, 8, tzinfo=UTC))
HOUR_US = 60 * MINUTE_US


def _market() -> SimulatedMarket:
    start_us = DELIVERY - 2 * DAY_US
    listed = select_instruments(
        "cm",
        ("BTCUSD_PERP", "BTCUSD_QUARTER"),
        seed=1,
        period_us=(start_us, DELIVERY + DAY_US),
    )
    return SimulatedMarket(listed, seed=1, start_us=start_us)


def test_periods_change_at_the_delivery() -> None:
    market = _market()
    current = contract_periods(market, "BTCUSD", "CURRENT_QUARTER")
    following = contract_periods(market, "BTCUSD", "NEXT_QUARTER")
    assert [one.symbol for one in current][:2] == ["BTCUSD_260327", "BTCUSD_260626"]
    assert current[0].until_us == current[1].from_us == DELIVERY
    assert [one.symbol for one in following][:2] == ["BTCUSD_260626", "BTCUSD_260925"]
    assert [one.symbol for one in contract_periods(market, "BTCUSD", "PERPETUAL")] == [
        "BTCUSD_PERP"
    ]
    assert contract_periods(market, "ETHUSD", "PERPETUAL") == []


def test_series_has_the_klines_of_each_contract_in_its_time() -> None:
    market = _market()
    view_us = DELIVERY + 3 * HOUR_US - 1
    periods = contract_periods(market, "BTCUSD", "CURRENT_QUARTER")
    rows = continuous_klines(market, periods, parse_interval("1h"), view_us=view_us, limit=6)
    before = market.klines("BTCUSD_260327", "1h", view_us=DELIVERY - 1, limit=3)
    after = market.klines("BTCUSD_260626", "1h", view_us=view_us, limit=3)
    assert rows == [*before, *after]
    assert rows[3].open_time_us == DELIVERY
    # a kline across the delivery has the trades of both
    (half_day,) = continuous_klines(
        market, periods, parse_interval("12h"), view_us=DELIVERY + 4 * HOUR_US - 1, limit=1
    )
    volumes = [
        market.klines(symbol, "1h", DELIVERY - 8 * HOUR_US, view_us=DELIVERY + 4 * HOUR_US - 1)
        for symbol in ("BTCUSD_260327", "BTCUSD_260626")
    ]
    inside = [row for row in volumes[0] if row.open_time_us < DELIVERY]
    inside += [row for row in volumes[1] if row.open_time_us >= DELIVERY]
    assert half_day.volume == sum(row.volume for row in inside)
