"""Taker volumes and last prices at times, from the trades themselves."""

from datetime import UTC, datetime

import numpy as np
import pytest

from simulator.clock import MINUTE_US, to_us
from simulator.market.instruments import select_instruments
from simulator.market.market import SimulatedMarket
from simulator.market.statistics import closes, taker_volumes

START = to_us(datetime(2026, 2, 1, 0, 3, tzinfo=UTC))
STEP = 5 * MINUTE_US


@pytest.fixture(scope="module")
def market() -> SimulatedMarket:
    return SimulatedMarket(
        select_instruments("um", ("BTCUSDT", "KEEPUSDT"), seed=1), seed=1, start_us=START
    )


@pytest.mark.parametrize("symbol", ["BTCUSDT", "KEEPUSDT"])
def test_taker_volumes_are_sums_over_the_period_that_ends(
    market: SimulatedMarket, symbol: str
) -> None:
    first = -(-START // STEP) * STEP
    times = np.arange(first, first + 6 * STEP, STEP, dtype=np.int64)
    for end_us, found in zip(
        times.tolist(), taker_volumes(market, symbol, times, STEP), strict=True
    ):
        begin = max(START, end_us - STEP)
        trades = market.history(symbol).trades(begin // MINUTE_US, end_us // MINUTE_US)
        bought = ~trades.buyer_is_maker
        assert found.buy == int(trades.quantity[bought].sum())
        assert found.sell == int(trades.quantity[~bought].sum())
        assert found.quote_buy == int(trades.quote[bought].sum())
        assert found.quote_sell == int(trades.quote[~bought].sum())


def test_closes_are_the_last_prices_before_the_times(market: SimulatedMarket) -> None:
    times = np.arange(START + 57 * MINUTE_US, START + 117 * MINUTE_US, STEP, dtype=np.int64)
    history = market.history("KEEPUSDT")
    wanted = [history.close_before(time_us // MINUTE_US) for time_us in times.tolist()]
    assert closes(market, "KEEPUSDT", times) == wanted
