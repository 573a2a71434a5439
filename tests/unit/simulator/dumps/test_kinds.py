"""Kinds of dump files, and the symbols behind their folders."""

from datetime import UTC, datetime

import pytest

from simulator.clock import DAY_US, to_us
from simulator.dumps.kinds import KINDS, folder_names, kinds_of, symbol_of
from simulator.market.instruments import MarketName, select_instruments
from simulator.market.market import SimulatedMarket

START = to_us(datetime(2026, 2, 1, tzinfo=UTC))


def market_of(name: MarketName, symbol: str) -> SimulatedMarket:
    return SimulatedMarket(select_instruments(name, (symbol,), seed=1), seed=1, start_us=START)


def test_spot_has_no_series() -> None:
    for cadence in ("daily", "monthly"):
        assert kinds_of("spot", cadence) == ["aggTrades", "klines", "trades"]
    assert "metrics" in kinds_of("um", "daily")
    assert "metrics" not in kinds_of("um", "monthly")
    assert "fundingRate" in kinds_of("cm", "monthly")
    assert "fundingRate" not in kinds_of("cm", "daily")


@pytest.mark.parametrize("kind", KINDS.values(), ids=lambda kind: kind.name)
def test_each_folder_belongs_to_a_symbol(kind: object) -> None:
    for name, symbol in (("um", "BTCUSDT"), ("cm", "BTCUSD_PERP")):
        market = market_of(name, symbol)  # type: ignore[arg-type]
        folders = folder_names(market, kind, START + DAY_US)  # type: ignore[arg-type]
        assert [symbol_of(market, kind, folder) for folder in folders] == [symbol]  # type: ignore[arg-type]
        assert symbol_of(market, kind, "NOSUCH") is None  # type: ignore[arg-type]


def test_index_klines_of_coin_m_are_those_of_a_pair() -> None:
    market = market_of("cm", "BTCUSD_PERP")
    kind = KINDS["indexPriceKlines"]
    assert folder_names(market, kind, START + DAY_US) == ["BTCUSD"]
    assert symbol_of(market, kind, "BTCUSD_PERP") is None
