"""Open interest and shares of long accounts."""

from datetime import UTC, datetime

import numpy as np

from simulator.clock import DAY_US, MINUTE_US, to_us
from simulator.market.derivatives.open_interest import (
    STATISTICS_STEP_US,
    long_shares,
    open_interest,
    statistics_times,
)
from simulator.market.instruments import invented, select_instruments

START = to_us(datetime(2026, 2, 1, tzinfo=UTC))
(BTC,) = select_instruments("um", ["BTCUSDT"], seed=1)
TIMES = statistics_times(START, START + 30 * DAY_US)


def test_open_interest_moves_slowly_around_its_level() -> None:
    found = open_interest(BTC, TIMES, seed=1)
    assert found.min() * 3 > found.max()
    assert (np.abs(np.diff(found)) * 50 < found[1:]).all()
    assert len(np.unique(found)) > len(found) // 2
    assert (found > 0).all()


def test_open_interest_is_constant_within_five_minutes_whatever_is_asked() -> None:
    within = TIMES[:10] + STATISTICS_STEP_US - 1
    assert (
        open_interest(BTC, within, seed=1).tolist()
        == open_interest(BTC, TIMES[:10], seed=1).tolist()
    )
    assert open_interest(BTC, TIMES[5:6], seed=1)[0] == open_interest(BTC, TIMES, seed=1)[5]


def test_quiet_contracts_have_open_interest_too() -> None:
    for number in range(50):
        contract = invented("um", f"C{number}USDT", seed=1)
        found = open_interest(contract, TIMES[:100], seed=1)
        assert (found > 0).all()
        assert (found % contract.step == 0).all()


def test_shares_of_long_accounts_differ_by_kind() -> None:
    shares = [
        long_shares(BTC, name, TIMES, seed=1)
        for name in ("top accounts", "top positions", "all accounts")
    ]
    for one in shares:
        assert 2_900 < one.min() < one.max() < 7_100
    assert (shares[0] != shares[1]).any()
    assert (shares[1] != shares[2]).any()


def test_statistics_have_times_at_multiples_of_the_period() -> None:
    assert statistics_times(START + 1, START + 11 * MINUTE_US).tolist() == [
        START + 5 * MINUTE_US,
        START + 10 * MINUTE_US,
    ]
    assert statistics_times(START, START).tolist() == [START]
