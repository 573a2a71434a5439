"""Streams of mark prices and liquidations."""

import itertools
import json
from datetime import UTC, datetime
from itertools import pairwise
from typing import Any

import pytest

from simulator.clock import DAY_US, SECOND_US, to_us
from simulator.market.derivatives.price_klines import PriceKline
from simulator.market.instruments import DEFAULT_UM, select_instruments
from simulator.market.intervals import parse_interval
from simulator.market.market import SimulatedMarket
from simulator.streams.feeds.catalogue import open_feed
from simulator.wire.derivatives import price_kline_row

START = to_us(datetime(2026, 2, 1, tzinfo=UTC))
FUNDING = START + DAY_US


@pytest.fixture(scope="module")
def market() -> SimulatedMarket:
    listed = select_instruments("um", DEFAULT_UM, seed=1)
    return SimulatedMarket(listed, seed=1, start_us=START)


def frames(market: SimulatedMarket, name: str, from_us: int, count: int) -> list[tuple[int, Any]]:
    feed = open_feed(market, name, from_us, seed=1)
    assert feed is not None
    return [
        (due_us, json.loads(text))
        for due_us, render in itertools.islice(feed, count)
        for text in render(1_000)
    ]


@pytest.mark.parametrize(("name", "seconds"), [("markPrice", 3), ("markPrice@1s", 1)])
def test_mark_price_frames_come_just_after_whole_periods(
    market: SimulatedMarket, name: str, seconds: int
) -> None:
    found = frames(market, f"btcusdt@{name}", FUNDING, 200)
    delays = [due_us % SECOND_US for due_us, _ in found]
    assert set(delays) == {1_000 * late for late in range(14)}
    assert delays.count(0) > 40
    starts = [due_us // SECOND_US for due_us, _ in found]
    assert {later - earlier for earlier, later in pairwise(starts)} == {seconds}
    assert all(start % seconds == 0 for start in starts)
    assert all(frame["E"] * 1_000 == due_us for due_us, frame in found)


def test_one_frame_at_a_funding_time_names_the_time_that_passed(market: SimulatedMarket) -> None:
    found = [frame for _, frame in frames(market, "btcusdt@markPrice@1s", FUNDING - SECOND_US, 4)]
    (settled,) = market.derivatives("BTCUSDT").settlements(FUNDING, FUNDING + 1)
    late = [frame for frame in found if frame["E"] >= FUNDING // 1_000]
    assert [frame["T"] for frame in late[:2]] == [
        FUNDING // 1_000, FUNDING // 1_000 + 8 * 3_600_000,
    ]  # fmt: skip
    assert float(late[0]["r"]) == settled.rate / 1e8


def test_frames_aggregated_by_event_time_are_the_exchanges_klines(market: SimulatedMarket) -> None:
    found = [frame for _, frame in frames(market, "ethusdt@markPrice@1s", FUNDING, 181)]
    minutes: dict[int, list[Any]] = {}
    for frame in found:
        minutes.setdefault(frame["E"] // 60_000, []).append(frame)
    series = market.derivatives("ETHUSDT")
    for name, field in (("mark", "p"), ("index", "i")):
        klines: list[PriceKline] = series.klines(
            name,  # type: ignore[arg-type]
            parse_interval("1m"), FUNDING, FUNDING + 2 * 60 * SECOND_US, view_us=1 << 60,
        )  # fmt: skip
        for kline in klines:
            row = price_kline_row(kline)
            prices = [one[field] for one in minutes[int(row[0]) // 60_000]]
            assert len(prices) == row[8] == 60
            assert (prices[0], prices[-1]) == (row[1], row[4])
            assert (max(prices, key=float), min(prices, key=float)) == (row[2], row[3])


def test_array_has_the_same_values_as_the_streams_of_symbols(market: SimulatedMarket) -> None:
    arrays = [
        entry for _, array in frames(market, "!markPrice@arr@1s", FUNDING, 5) for entry in array
    ]
    for symbol in DEFAULT_UM:
        alone = [frame for _, frame in frames(market, f"{symbol.lower()}@markPrice@1s", FUNDING, 5)]
        assert [entry for entry in arrays if entry["s"] == symbol] == alone


def test_each_liquidation_is_equal_on_both_streams_and_once_a_second() -> None:
    listed = select_instruments("um", DEFAULT_UM, seed=1)
    market = SimulatedMarket(listed, seed=1, start_us=START)
    series = market.derivatives("KEEPUSDT")
    added = series.make_liquidation(FUNDING + 5 * SECOND_US + 1_000, is_sell=True, quantity=5)
    series.injected = (added,)
    until_us = FUNDING + 600 * SECOND_US
    everything = frames(market, "!forceOrder@arr", FUNDING, 400)
    assert everything[-1][0] > until_us
    of_all = [frame for due_us, frame in everything if due_us < until_us]
    for symbol in DEFAULT_UM:
        alone = frames(market, f"{symbol.lower()}@forceOrder", FUNDING, 400)
        of_one = [frame for due_us, frame in alone if due_us < until_us]
        assert [frame for frame in of_all if frame["o"]["s"] == symbol] == of_one
        seconds = [frame["o"]["T"] // 1_000 for frame in of_one]
        assert seconds == sorted(set(seconds))
    assert next(frame["o"]["T"] for frame in of_all if frame["o"]["s"] == "KEEPUSDT") == (
        added.time_us // 1_000
    )
