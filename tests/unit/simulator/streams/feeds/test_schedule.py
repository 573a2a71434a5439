"""Due times of frames."""

from datetime import UTC, datetime
from itertools import pairwise
from typing import Any

import numpy as np
import pytest

from simulator.clock import DAY_US, MINUTE_US, SECOND_US, to_us
from simulator.market.instruments import DEFAULT_SPOT, DEFAULT_UM, select_instruments
from simulator.market.market import SimulatedMarket
from simulator.streams.feeds.schedule import (
    KlineClose,
    KlineUpdate,
    agg_trades_due,
    kline_events,
    kline_period_us,
    trades_due,
)

START_US = to_us(datetime(2026, 3, 1, tzinfo=UTC))
FIRST = START_US // MINUTE_US + 600


def _market(name: Any) -> SimulatedMarket:
    symbols = DEFAULT_SPOT if name == "spot" else DEFAULT_UM
    return SimulatedMarket(select_instruments(name, symbols, seed=1), seed=1, start_us=START_US)


def test_spot_aggregates_follow_within_milliseconds_in_order() -> None:
    trades = _market("spot").history("BTCUSDT").trades(FIRST, FIRST + 120)
    delay = agg_trades_due("spot", trades) - trades.time_us
    assert delay.min() >= 1_000
    assert delay.max() < 90_000
    assert np.median(delay) < 10_000
    assert (delay > 15_000).any()
    assert (np.diff(agg_trades_due("spot", trades)) >= 0).all()


def test_futures_aggregates_come_in_bundles_150_ms_late() -> None:
    trades = _market("um").history("BTCUSDT").trades(FIRST, FIRST + 120)
    due = agg_trades_due("um", trades)
    delay = due - trades.time_us
    assert (due % 100_000 == 0).all()
    assert delay.min() > 100_000
    assert delay.max() <= 200_000
    assert 140_000 < delay.mean() < 160_000


def test_trades_are_sent_before_their_agg_trade() -> None:
    trades = _market("spot").history("ETHUSDT").trades(FIRST, FIRST + 60)
    assert (trades_due(trades) > trades.time_us).all()
    assert (trades_due(trades) <= agg_trades_due("spot", trades)).all()


@pytest.mark.parametrize(
    ("name", "symbol", "interval"),
    [("spot", "BTCUSDT", "1m"), ("spot", "BTCUSDT", "1s"), ("um", "BTCUSDT", "1m"),
     ("spot", "COSUSDT", "1m"), ("um", "KEEPUSDT", "5m")],
)  # fmt: skip
def test_kline_updates_follow_trades_at_least_a_period_apart(
    name: Any, symbol: str, interval: str
) -> None:
    history = _market(name).history(symbol)
    period = kline_period_us(name, interval)
    updates = 0
    for minute in range(FIRST, FIRST + 30):
        trades = history.minute(minute)
        events = list(kline_events(history, minute, interval=interval, seed=1))
        assert all(a.due_us <= b.due_us for a, b in pairwise(events))
        times = []
        for event in events:
            if isinstance(event, KlineUpdate):
                assert 0 <= event.unsent_fills < trades.fills[event.row]
                times.append(int(trades.time_us[event.row]))
                assert event.due_us - times[-1] == 1_000
        if interval != "1s":
            assert all(b - a >= period for a, b in pairwise(times))
        updates += len(times)
    assert updates > 0


def test_minute_closes_with_the_next_trade_or_after_two_seconds() -> None:
    market = _market("spot")
    waited: dict[str, list[int]] = {"BTCUSDT": [], "BIFIUSDT": []}
    for symbol, delays in waited.items():
        history = market.history(symbol)
        for minute in range(FIRST, FIRST + 60):
            close = next(
                e
                for e in kline_events(history, minute, interval="1m", seed=1)
                if isinstance(e, KlineClose)
            )
            assert close.end_us == minute * MINUTE_US
            trades = history.minute(minute)
            delays.append(close.due_us - close.end_us)
            if len(trades) and trades.time_us[0] < close.end_us + 2 * SECOND_US:
                assert close.due_us - int(trades.time_us[0]) == 400
    assert min(waited["BTCUSDT"]) < SECOND_US
    assert all(2 * SECOND_US <= delay < 2 * SECOND_US + 16_000 for delay in waited["BIFIUSDT"])


def test_some_updates_end_inside_an_order_of_several_fills() -> None:
    history = _market("spot").history("BTCUSDT")
    events = [
        event
        for minute in range(FIRST, FIRST + 60)
        for event in kline_events(history, minute, interval="1m", seed=1)
        if isinstance(event, KlineUpdate)
    ]
    inside = sum(event.unsent_fills > 0 for event in events)
    assert 0.02 < inside / len(events) < 0.4


def test_schedule_does_not_depend_on_listeners() -> None:
    first = list(kline_events(_market("um").history("ETHUSDT"), FIRST + 7, interval="1m", seed=1))
    history = _market("um").history("ETHUSDT")
    for minute in range(FIRST, FIRST + 8):
        again = list(kline_events(history, minute, interval="1m", seed=1))
    assert again == first
    assert len(first) > 20


def test_day_has_all_kline_closes() -> None:
    history = _market("spot").history("COSUSDT")
    ends = [
        event.end_us
        for minute in range(START_US // MINUTE_US + 1, (START_US + DAY_US) // MINUTE_US + 1)
        for event in kline_events(history, minute, interval="1m", seed=1)
        if isinstance(event, KlineClose)
    ]
    assert ends == list(range(START_US + MINUTE_US, START_US + DAY_US + 1, MINUTE_US))
