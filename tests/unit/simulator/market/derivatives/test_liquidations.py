"""Liquidations: the last one of each second."""

from datetime import UTC, datetime

from simulator.clock import MINUTE_US, SECOND_US, to_us
from simulator.market.derivatives.liquidations import Liquidation
from simulator.market.derivatives.series import DerivativeSeries
from simulator.market.instruments import select_instruments
from simulator.market.market import SimulatedMarket

START = to_us(datetime(2026, 2, 1, tzinfo=UTC))
NOON = to_us(datetime(2026, 2, 3, 12, 0, 3, tzinfo=UTC))


def series_of(symbol: str) -> DerivativeSeries:
    listed = select_instruments("um", [symbol], seed=1)
    return SimulatedMarket(listed, seed=1, start_us=START).derivatives(symbol)


def test_liquidations_are_orders_and_at_most_one_per_second() -> None:
    series = series_of("BTCUSDT")
    history = series.history
    found: list[Liquidation] = []
    for minute in range(NOON // MINUTE_US, NOON // MINUTE_US + 60):
        of_minute = series.liquidations(minute)
        trades = history.minute(minute)
        orders = set(
            zip(
                trades.time_us.tolist(),
                trades.price.tolist(),
                trades.quantity.tolist(),
                strict=True,
            )
        )
        for one in of_minute:
            assert (one.time_us, one.average_price, one.quantity) in orders
            assert 0 < one.last_quantity <= one.quantity
            assert one.bankruptcy_price % history.instrument.tick == 0
            assert one.is_sell == (one.bankruptcy_price < one.average_price)
        found += of_minute
    seconds = [one.time_us // SECOND_US for one in found]
    assert seconds == sorted(set(seconds))
    assert len(found) > 10
    assert {one.is_sell for one in found} == {True, False}


def test_injected_liquidation_is_the_last_of_its_second() -> None:
    series = series_of("BTCUSDT")
    minute = NOON // MINUTE_US
    known = next(
        (later, found)
        for later in range(minute, minute + 60)
        if (found := series.liquidations(later))
    )
    (minute, before) = known
    added = series.make_liquidation(before[0].time_us // SECOND_US * SECOND_US + 999_000,
                                    is_sell=True, quantity=7)  # fmt: skip
    other = series.make_liquidation((minute + 1) * MINUTE_US, is_sell=False, quantity=3)
    series.injected = (added, other)
    assert series.liquidations(minute) == [added, *before[1:]]
    assert other in series.liquidations(minute + 1)
    assert added.bankruptcy_price < added.average_price
    assert other.bankruptcy_price > other.average_price
    assert added.average_price % series.history.instrument.tick == 0
