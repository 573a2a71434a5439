"""Prices at any times equal those at each time alone."""

from datetime import UTC, datetime

import numpy as np
import pytest

from simulator.clock import DAY_US, SECOND_US, to_us
from simulator.market.derivatives.prices import index_prices, mark_prices, premium_indexes
from simulator.market.history import History
from simulator.market.instruments import DEFAULT_UM, select_instruments
from simulator.market.market import SimulatedMarket

START = to_us(datetime(2026, 2, 1, tzinfo=UTC))
TIMES = START + np.arange(0, DAY_US, 7_777 * 1_000_000 + 13, dtype=np.int64)


def history_of(symbol: str) -> History:
    listed = select_instruments("um", [symbol], seed=1)
    return SimulatedMarket(listed, seed=1, start_us=START).history(symbol)


@pytest.mark.parametrize("symbol", DEFAULT_UM)
@pytest.mark.parametrize("prices", [index_prices, mark_prices, premium_indexes])
def test_prices_do_not_depend_on_the_other_times(prices, symbol: str) -> None:  # type: ignore[no-untyped-def]
    history = history_of(symbol)
    alone = [int(prices(history, np.array([time_us]), seed=1)[0]) for time_us in TIMES.tolist()]
    assert prices(history, TIMES, seed=1).tolist() == alone
    assert alone != prices(history, TIMES, seed=2).tolist()


def test_prices_of_a_reused_name_are_those_of_its_instrument() -> None:
    history = history_of("BTCUSDT")
    before = mark_prices(history, TIMES, seed=1)
    calendar = history.calendar.delisted(START + DAY_US // 2).relisted(START + DAY_US * 3 // 4)
    history.change(calendar, from_us=START + DAY_US // 2)
    after = mark_prices(history, TIMES, seed=1)
    is_old = TIMES < START + DAY_US // 2
    is_new = TIMES >= START + DAY_US * 3 // 4
    assert (after[is_old] == before[is_old]).all()
    assert (after[is_new] * 10 < before[is_new] * 9).all()


def test_premium_index_changes_every_five_seconds() -> None:
    history = history_of("BTCUSDT")
    times = START + np.arange(60, dtype=np.int64) * SECOND_US
    values = premium_indexes(history, times, seed=1)
    assert (values.reshape(12, 5) == values[::5, None]).all()
    assert len(set(values.tolist())) > 10
