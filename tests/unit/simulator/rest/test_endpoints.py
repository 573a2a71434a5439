"""Each endpoint has a weight, and a row in the documentation."""

import re
from pathlib import Path
from typing import Any

import pytest

from simulator.clock import SimulatedClock
from simulator.market.instruments import select_instruments
from simulator.market.market import SimulatedMarket
from simulator.rest.endpoints import RestEndpoints
from simulator.rest.limits import WEIGHTS
from simulator.rest.venue import MarketVenue

DOCUMENTED = Path(__file__).parents[4] / "docs/simulator.md"


def _names(market: Any) -> list[str]:
    clock = SimulatedClock(start_us=20_000 * 86_400_000_000, speed=0)
    symbols = select_instruments(market, ("BTCUSD_PERP" if market == "cm" else "BTCUSDT",), seed=1)
    venue = MarketVenue(
        market,
        SimulatedMarket(symbols, seed=1, start_us=clock.now_us() - 60_000_000),
        clock,
        kline_lag_us=0,
        trade_lag_us=0,
    )
    return [one.name for one in RestEndpoints(venue, clock, weight_limit=10).table()]


@pytest.mark.parametrize("market", ["spot", "um", "cm"])
def test_each_endpoint_has_a_weight_and_each_weight_an_endpoint(market: Any) -> None:
    names = _names(market)
    assert len(set(names)) == len(names)
    assert set(names) == set(WEIGHTS[market])


def test_each_endpoint_is_documented_for_its_markets() -> None:
    section = DOCUMENTED.read_text().partition("\n## REST\n")[2].partition("\n## ")[0]
    documented: dict[str, set[str]] = {"spot": set(), "um": set(), "cm": set()}
    for line in section.splitlines():
        cells = [cell.strip() for cell in line.split("|")]
        if len(cells) < 6 or not cells[1].startswith("`"):
            continue
        for name in re.findall(r"`([^`]+)`", cells[1]):
            documented["spot"] |= {name} if cells[2] != "–" else set()
            documented["um"] |= {name} if cells[3] != "–" else set()
            documented["cm"] |= {name} if cells[4] != "–" else set()
    assert documented == {market: set(_names(market)) for market in documented}
