"""Faults of derivative series change the future, and end."""

from datetime import UTC, datetime
from typing import Any

import numpy as np
import pytest

from simulator.clock import DAY_US, MINUTE_US, SECOND_US, SimulatedClock, to_us
from simulator.dumps.faults import DumpFaults, EmptyCells
from simulator.faults.engine import FaultEngine
from simulator.faults.plan import PlanError
from simulator.faults.series import SeriesFaults
from simulator.market.derivatives.series import DerivativeSeries
from simulator.market.instruments import MarketName, select_instruments
from simulator.market.market import SimulatedMarket
from simulator.rest.faults import LoseRows, RestFaults

START = to_us(datetime(2026, 2, 1, tzinfo=UTC))
NOW = START + DAY_US + 30 * SECOND_US
HOUR = 60 * MINUTE_US


class Setup:
    """A stopped exchange with a fault engine."""

    def __init__(self) -> None:
        listed = select_instruments("um", ("BTCUSDT", "KEEPUSDT"), seed=1)
        market = SimulatedMarket(listed, seed=1, start_us=START)
        self.series: DerivativeSeries = market.derivatives("BTCUSDT")
        self.other = market.derivatives("KEEPUSDT")
        self.rest, self.dump = RestFaults(), DumpFaults()
        self.rescheduled: list[int] = []
        clock = SimulatedClock(start_us=NOW, speed=0)
        markets: dict[MarketName, SimulatedMarket] = {"um": market}
        actor = SeriesFaults(
            markets,
            clock,
            reschedule={"um": self.rescheduled.append},
            rest_faults=self.rest,
            dump_faults=self.dump,
        )
        self.engine = FaultEngine(clock, {"series": actor})

    def add(self, kind: str, **fields: Any) -> str:
        entry = {"kind": kind, "market": "um", "symbols": ["BTCUSDT"]} | fields
        return self.engine.add(entry)[0]


@pytest.fixture
def setup() -> Setup:
    return Setup()


def times(series: DerivativeSeries) -> list[int]:
    found = series.settlements(NOW, NOW + DAY_US)
    return [(one.funding_us - START - DAY_US) // HOUR for one in found]


def test_interval_changes_for_the_named_contracts_alone(setup: Setup) -> None:
    other = times(setup.other)
    setup.add("funding_interval", at="+1h", hours=4)
    assert times(setup.series) == [4, 8, 12, 16, 20, 24]
    assert times(setup.other) == other
    assert setup.rescheduled


def test_removed_interval_never_began(setup: Setup) -> None:
    identity = setup.add("funding_interval", at="+1h", hours=1)
    setup.engine.remove(identity)
    assert times(setup.series) == [8, 16, 24]


def test_settlements_are_missing_within_the_duration(setup: Setup) -> None:
    setup.add("missing_settlement", at="+7h", duration_s=7_200)
    assert times(setup.series) == [16, 24]


def test_removed_fault_ends_now(setup: Setup) -> None:
    identity = setup.add("missing_settlement")
    assert times(setup.series) == []
    setup.engine.remove(identity)
    assert times(setup.series) == [8, 16, 24]


def test_open_interest_is_negative_within_the_duration(setup: Setup) -> None:
    setup.add("negative_open_interest", duration_s=3_600)
    moments = np.array([NOW - 1, NOW + 1, NOW + HOUR + 1], dtype=np.int64)
    signs = [amount > 0 for amount in setup.series.served_open_interest(moments)]
    assert signs == [True, False, True]


def test_liquidation_is_added(setup: Setup) -> None:
    setup.add("liquidation", at="+10s", side="BUY", quantity=0.5)
    (added,) = setup.series.injected
    assert (added.time_us, added.is_sell, added.quantity) == (NOW + 10 * SECOND_US, False, 500)
    assert added in setup.series.liquidations(added.time_us // MINUTE_US)
    setup.add("liquidation", at="+20s")
    assert len(setup.series.injected) == 2


def test_rows_are_changed_by_rules_of_both_servers(setup: Setup) -> None:
    identity = setup.add("missing_rows", rows=5)
    effects = setup.rest.effects("um", "futures/data/openInterestHist", "BTCUSDT")
    assert effects == [LoseRows(rows=5)]
    assert setup.rest.effects("um", "klines", "BTCUSDT") == []
    path = "data/futures/um/daily/metrics/BTCUSDT/BTCUSDT-metrics-2026-02-01.zip"
    assert setup.dump.contents(path)
    (listed,) = setup.engine.listed()
    assert listed["hits"] == 2
    setup.engine.remove(identity)
    assert setup.dump.contents(path) == ()
    setup.add("empty_cells")
    assert setup.dump.contents(path) == (EmptyCells(rows=3),)


def test_lag_concerns_series_alone(setup: Setup) -> None:
    setup.add("series_lag", lag_s=7_200)
    assert setup.rest.series_lag_us("um", "fundingRate", "BTCUSDT") == 2 * HOUR
    assert setup.rest.series_lag_us("um", "fundingRate", "KEEPUSDT") == 0
    assert setup.rest.kline_lag_us("um", "BTCUSDT", 5) == 5


@pytest.mark.parametrize(("fields", "words"), [
    ({"market": "spot"}, "it must be 'um' or 'cm'"),
    ({"symbols": ["NOSUCH*"]}, "no contract of um matches NOSUCH"),
    ({"at": "2026-01-01T00:00:00Z"}, "in the exchange's past"),
])  # fmt: skip
def test_wrong_entries_are_refused(setup: Setup, fields: dict[str, Any], words: str) -> None:
    with pytest.raises(PlanError, match="funding_interval") as caught:
        setup.add("funding_interval", **fields)
    assert words in str(caught.value)
    assert times(setup.series) == [8, 16, 24]
