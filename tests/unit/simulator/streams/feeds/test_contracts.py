"""Streams about contracts: continuous klines over a delivery, and `!contractInfo`."""

import itertools
import json
from datetime import UTC, datetime
from typing import Any

import pytest

from simulator.clock import DAY_US, MINUTE_US, SECOND_US, to_us
from simulator.market.instruments import MarketName, select_instruments
from simulator.market.market import SimulatedMarket
from simulator.streams.feeds.catalogue import open_feed

DELIVERY = to_us(datetime(2026, 3, 27, 8, tzinfo=UTC))
PAIRS: dict[MarketName, str] = {"um": "BTCUSDT", "cm": "BTCUSD"}
MARKETS: list[MarketName] = ["um", "cm"]


def _market(name: MarketName) -> SimulatedMarket:
    start_us = DELIVERY - DAY_US
    perpetual = PAIRS[name] + ("_PERP" if name == "cm" else "")
    listed = select_instruments(
        name,
        (perpetual, f"{PAIRS[name]}_QUARTER"),
        seed=1,
        period_us=(start_us, DELIVERY + 100 * DAY_US),
    )
    return SimulatedMarket(listed, seed=1, start_us=start_us)


def _frames(market: SimulatedMarket, stream: str, from_us: int, until_us: int) -> list[Any]:
    feed = open_feed(market, stream, from_us, seed=1)
    assert feed is not None
    due = itertools.takewhile(lambda frame: frame[0] < until_us, feed)
    return [json.loads(text) for _, render in due for text in render(1_000)]


@pytest.mark.parametrize("name", MARKETS)
def test_continuous_klines_go_from_the_delivered_contract_to_the_next(name: MarketName) -> None:
    market, pair = _market(name), PAIRS[name]
    stream = f"{pair.lower()}_current_quarter@continuousKline_1m"
    frames = _frames(market, stream, DELIVERY - 2 * MINUTE_US, DELIVERY + 3 * MINUTE_US)
    assert {(one["e"], one["ps"], one["ct"]) for one in frames} == {
        ("continuous_kline", pair, "CURRENT_QUARTER")
    }
    assert "s" not in frames[0]["k"]
    closed = {one["k"]["t"] * 1_000: one["k"] for one in frames if one["k"]["x"]}
    assert sorted(closed) == [DELIVERY + n * MINUTE_US for n in (-3, -2, -1, 0, 1)]
    for open_us, found in closed.items():
        symbol = f"{pair}_260327" if open_us < DELIVERY else f"{pair}_260626"
        (row,) = market.klines(symbol, "1m", open_us, open_us, view_us=open_us + MINUTE_US - 1)
        assert (found["f"], found["n"]) == (row.first_id, row.trade_count)


def test_continuous_klines_of_a_perpetual_contract_are_its_klines() -> None:
    market = _market("cm")
    ends = (DELIVERY, DELIVERY + 30 * SECOND_US)
    series = _frames(market, "btcusd_perpetual@continuousKline_1m", *ends)
    own = _frames(market, "btcusd_perp@kline_1m", *ends)
    assert len(series) == len(own) > 5
    for one, other in zip(series, own, strict=True):
        assert one["E"] == other["E"]
        assert one["k"] == {name: value for name, value in other["k"].items() if name != "s"}


@pytest.mark.parametrize(
    "stream",
    ["btcusd_month@continuousKline_1m", "ethusd_perpetual@continuousKline_1m",
     "btcusd_perpetual@continuousKline_1s", "BTCUSD_perpetual@continuousKline_1m"],
)  # fmt: skip
def test_unknown_continuous_klines_have_no_feed(stream: str) -> None:
    assert open_feed(_market("cm"), stream, DELIVERY, seed=1) is None


@pytest.mark.parametrize("name", MARKETS)
def test_contract_info_tells_delivery_change_of_type_and_listing(name: MarketName) -> None:
    market, pair = _market(name), PAIRS[name]
    frames = _frames(market, "!contractInfo", DELIVERY - 3_600 * SECOND_US, DELIVERY + DAY_US)
    found = [
        ((one["E"] * 1_000 - DELIVERY) // MINUTE_US, one["s"], one["ct"], one["cs"])
        for one in frames
    ]
    assert found == [
        (-10, f"{pair}_260327", "CURRENT_QUARTER", "PRE_DELIVERING"),
        (0, f"{pair}_260327", "CURRENT_QUARTER DELIVERING", "DELIVERING"),
        (0, f"{pair}_260626", "CURRENT_QUARTER", "TRADING"),
        (0, f"{pair}_260925", "NEXT_QUARTER", "TRADING"),
        (10, f"{pair}_260327", "CURRENT_QUARTER DELIVERING", "DELIVERED"),
    ]
    assert frames[3]["ot"] * 1_000 == DELIVERY
    assert list(frames[0]) == ["e", "E", "s", "ps", "ct", "dt", "ot", "cs"]
