"""Mark prices, funding and liquidations."""

from datetime import UTC, datetime
from itertools import pairwise

from simulator.clock import MINUTE_US, SECOND_US, to_us
from simulator.market.derivatives import (
    FUNDING_PERIOD_US,
    MARK_DECIMALS,
    Liquidation,
    liquidations,
    mark_price,
)
from simulator.market.history import History
from simulator.market.instruments import select_instruments
from simulator.market.market import SimulatedMarket
from simulator.market.rolling import last_trade

START = to_us(datetime(2026, 2, 1, tzinfo=UTC))
NOON = to_us(datetime(2026, 2, 3, 12, 0, 3, tzinfo=UTC))


def history_of(symbol: str) -> History:
    listed = select_instruments("um", [symbol], seed=1)
    return SimulatedMarket(listed, seed=1, start_us=START).history(symbol)


def test_mark_prices_stay_near_the_trades_and_move_slowly() -> None:
    history = history_of("BTCUSDT")
    units = 10 ** (MARK_DECIMALS - history.instrument.price_decimals)
    marks = [mark_price(history, NOON + n * 3 * SECOND_US, seed=1) for n in range(400)]
    for mark in marks:
        traded = last_trade(history, mark.time_us).price * units
        assert abs(mark.mark - mark.index_price) * 2_000 <= mark.index_price
        assert abs(mark.index_price - traded) * 200 < traded
    assert all(abs(a.mark - b.mark) * 1_000 < a.mark for a, b in pairwise(marks))
    assert len({mark.mark for mark in marks}) > 300
    by_time = {mark.time_us: mark.mark for mark in marks}
    for mark in marks[10:]:
        near = [by_time[mark.time_us - ago * 3 * SECOND_US] for ago in range(11)]
        assert min(near) <= mark.average <= max(near)


def test_funding_is_every_eight_hours_with_a_constant_rate_between() -> None:
    history = history_of("BTCUSDT")
    marks = [mark_price(history, NOON + n * 60 * MINUTE_US, seed=1) for n in range(72)]
    assert all(mark.next_funding_us % FUNDING_PERIOD_US == 0 for mark in marks)
    assert all(0 < mark.next_funding_us - mark.time_us <= FUNDING_PERIOD_US for mark in marks)
    rates = {mark.next_funding_us: mark.funding_rate for mark in marks}
    assert all(rates[mark.next_funding_us] == mark.funding_rate for mark in marks)
    assert len(set(rates.values())) > 1
    assert all(abs(rate) <= 30_000 for rate in rates.values())
    on_time = mark_price(history, NOON // FUNDING_PERIOD_US * FUNDING_PERIOD_US, seed=1)
    assert on_time.next_funding_us == on_time.time_us + FUNDING_PERIOD_US


def test_liquidations_are_orders_and_at_most_one_per_second() -> None:
    history = history_of("BTCUSDT")
    found: list[Liquidation] = []
    for minute in range(NOON // MINUTE_US, NOON // MINUTE_US + 60):
        of_minute = liquidations(history, minute, seed=1)
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
