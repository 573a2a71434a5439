"""Streams of COIN-M about prices: of pairs, and klines of mark and index price."""

import itertools
import json
from datetime import UTC, datetime
from typing import Any

import pytest

from simulator.clock import DAY_US, MINUTE_US, SECOND_US, to_us
from simulator.market.derivatives.price_klines import PriceName
from simulator.market.instruments import MarketName, select_instruments
from simulator.market.intervals import parse_interval
from simulator.market.market import SimulatedMarket
from simulator.streams.feeds.catalogue import open_feed
from simulator.wire.derivatives import price_kline_row, price_text

START = to_us(datetime(2026, 3, 2, tzinfo=UTC))
DELIVERY = to_us(datetime(2026, 3, 27, 8, tzinfo=UTC))
NAMES = ("BTCUSD_PERP", "BTCUSD_260327", "BTCUSD_260626", "ETHUSD_PERP")
NOT_STREAMS = (
    "xusd@indexPrice", "btcusd@indexPriceKline_1s", "btcusd@markPriceKline_1m",
    "btcusd_perp@indexPriceKline_1m", "btcusd_perp@indexPrice", "btcusd@indexPrice@3s",
)  # fmt: skip


def _market(name: MarketName, symbols: tuple[str, ...]) -> SimulatedMarket:
    listed = select_instruments(name, symbols, seed=1, period_us=(START, START + 60 * DAY_US))
    return SimulatedMarket(listed, seed=1, start_us=START)


@pytest.fixture(scope="module")
def market() -> SimulatedMarket:
    return _market("cm", NAMES)


def _frames(market: SimulatedMarket, stream: str, from_us: int, until_us: int) -> list[Any]:
    feed = open_feed(market, stream, from_us, seed=1)
    assert feed is not None
    due = itertools.takewhile(lambda frame: frame[0] < until_us, feed)
    return [
        json.loads(text) | {"due": due_us} if text.startswith("{") else json.loads(text)
        for due_us, render in due
        for text in render(1_000)
    ]


@pytest.mark.parametrize(
    ("stream", "price", "symbol"),
    [
        ("btcusd_perp@markPriceKline_1m", "mark", "BTCUSD_PERP"),
        ("btcusd_260327@markPriceKline_5m", "mark", "BTCUSD_260327"),
        ("btcusd@indexPriceKline_1m", "index", "BTCUSD_PERP"),
    ],
)
def test_kline_frames_have_the_values_so_far_and_end_closed(
    market: SimulatedMarket, stream: str, price: PriceName, symbol: str
) -> None:
    begin = START + DAY_US + 20_500_000
    name = stream.rpartition("_")[2]
    found = _frames(market, stream, begin, begin + 10 * MINUTE_US)
    series, interval = market.derivatives(symbol), parse_interval(name)
    for frame in found:
        kline = frame["k"]
        second_us = frame["due"] // SECOND_US * SECOND_US
        view_us = kline["T"] * 1_000 if kline["x"] else second_us
        (true,) = series.klines(
            price, interval, kline["t"] * 1_000, kline["t"] * 1_000, view_us=view_us
        )
        shown = [kline[key] for key in ("t", "o", "h", "l", "c", "v", "T", "q", "n")]
        assert shown == price_kline_row(true)[:9]
        assert (frame["e"], frame["ps"], frame["E"]) == (
            f"{price}Price_kline", "BTCUSD", frame["due"] // 1_000,
        )  # fmt: skip
        assert (kline["s"], kline["i"]) == (symbol if price == "mark" else "0", name)
    closed = [frame["k"]["t"] for frame in found if frame["k"]["x"]]
    assert len(closed) == (10 if name == "1m" else 2)
    assert len(found) == 600 + len(closed)


def test_index_price_frames_have_the_index_of_their_second(market: SimulatedMarket) -> None:
    begin = START + DAY_US + 1
    for stream, seconds in (("btcusd@indexPrice", 3), ("btcusd@indexPrice@1s", 1)):
        found = _frames(market, stream, begin, begin + MINUTE_US)
        assert len(found) == 60 // seconds
        for frame in found:
            mark = market.derivatives("BTCUSD_PERP").mark_price(
                frame["due"] // SECOND_US * SECOND_US
            )
            assert frame == {
                "e": "indexPriceUpdate", "E": frame["due"] // 1_000, "i": "BTCUSD",
                "p": price_text(mark.index_price), "due": frame["due"],
            }  # fmt: skip


def test_mark_prices_of_a_pair_are_one_array_of_its_contracts(market: SimulatedMarket) -> None:
    before, after = (
        _frames(market, "btcusd@markPrice@1s", at_us, at_us + SECOND_US)
        for at_us in (DELIVERY - 5 * SECOND_US, DELIVERY + 5 * SECOND_US)
    )
    assert [[one["s"] for one in frame] for frame in (before[0], after[0])] == [
        list(NAMES[:3]), [NAMES[0], NAMES[2]],
    ]  # fmt: skip
    (one,) = _frames(market, "btcusd_perp@markPrice@1s", DELIVERY - 5 * SECOND_US,
                     DELIVERY - 4 * SECOND_US)  # fmt: skip
    del one["due"]
    assert before[0][0] == one


def test_streams_of_pairs_are_coin_m_s_alone(market: SimulatedMarket) -> None:
    for stream in NOT_STREAMS:
        assert open_feed(market, stream, START + DAY_US, seed=1) is None, stream
    linear = _market("um", ("BTCUSDT",))
    for stream in ("btcusdt@indexPrice", "btcusdt@markPriceKline_1m"):
        assert open_feed(linear, stream, START + DAY_US, seed=1) is None, stream
