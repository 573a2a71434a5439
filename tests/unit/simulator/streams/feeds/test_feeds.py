"""Every stream by name: which exist, and the order and period of their frames."""

import itertools
import json
import re
from collections.abc import Iterator
from datetime import UTC, datetime
from itertools import pairwise
from typing import Any

import pytest

from simulator.clock import SECOND_US, to_us
from simulator.market.instruments import DEFAULT_SPOT, DEFAULT_UM, MarketName, select_instruments
from simulator.market.market import SimulatedMarket
from simulator.streams.feeds.catalogue import open_feed

Frame = dict[str, Any]
START = to_us(datetime(2026, 2, 1, tzinfo=UTC))
NOON = to_us(datetime(2026, 2, 3, 12, 0, 3, 456_000, tzinfo=UTC))
SPOT_KINDS = (
    "aggTrade", "trade", "kline_1m", "kline_1s", "kline_1h@+08:00", "bookTicker", "miniTicker",
    "ticker", "ticker_1h", "ticker_4h", "ticker_1d", "avgPrice", "depth", "depth@100ms",
    "depth@1000ms", "depth5", "depth10@100ms", "depth20@1000ms",
)  # fmt: skip
UM_KINDS = (
    "aggTrade", "trade", "kline_1m", "bookTicker", "miniTicker", "ticker", "depth", "depth@0ms",
    "depth@100ms", "depth@250ms", "depth@500ms", "depth5", "depth10@100ms", "depth20@500ms",
    "markPrice", "markPrice@1s", "forceOrder",
)  # fmt: skip
SPOT_ALL = ("!miniTicker@arr", "!ticker_1h@arr", "!ticker_4h@arr", "!ticker_1d@arr")
UM_ALL = (
    "!miniTicker@arr", "!ticker@arr", "!bookTicker", "!forceOrder@arr", "!markPrice@arr",
    "!markPrice@arr@1s",
)  # fmt: skip
EVERY_STREAM: list[tuple[MarketName, str]] = [
    *(("spot", f"btcusdt@{kind}") for kind in SPOT_KINDS),
    *(("spot", f"cosusdt@{kind}") for kind in SPOT_KINDS),
    *(("um", f"btcusdt@{kind}") for kind in UM_KINDS),
    *(("spot", name) for name in SPOT_ALL),
    *(("um", name) for name in UM_ALL),
]
NO_STREAMS: list[tuple[MarketName, str]] = [
    ("spot", "nosuch@depth"), ("spot", "BTCUSDT@depth"), ("spot", "btcusdt"),
    ("spot", "btcusdt@depth7"), ("spot", "btcusdt@depth@250ms"), ("spot", "btcusdt@depth5@0ms"),
    ("spot", "btcusdt@depth@100"), ("spot", "btcusdt@bookTicker@100ms"),
    ("spot", "btcusdt@ticker_2h"), ("spot", "btcusdt@markPrice"), ("spot", "btcusdt@forceOrder"),
    ("spot", "!ticker@arr"), ("spot", "!bookTicker"), ("spot", "!markPrice@arr"),
    ("spot", "!ticker_1h"), ("spot", "!nothing"), ("um", "btcusdt@avgPrice"),
    ("um", "btcusdt@ticker_1h"), ("um", "btcusdt@kline_1s"), ("um", "btcusdt@depth@1000ms"),
    ("um", "btcusdt@markPrice@3s"), ("um", "!ticker_1h@arr"), ("um", "!markPrice"),
]  # fmt: skip


@pytest.fixture(scope="module")
def markets() -> dict[MarketName, SimulatedMarket]:
    names: dict[MarketName, tuple[str, ...]] = {"spot": DEFAULT_SPOT, "um": DEFAULT_UM}
    return {
        name: SimulatedMarket(select_instruments(name, symbols, seed=1), seed=1, start_us=START)
        for name, symbols in names.items()
    }


def frames(
    market: SimulatedMarket, name: str, count: int, *, from_us: int = NOON, unit_us: int = 1_000
) -> list[tuple[int, Any]]:
    """Return due time and content of the first frames of a stream."""
    feed = open_feed(market, name, from_us, seed=1)
    assert feed is not None
    found = (
        (due_us, json.loads(text))
        for due_us, render in itertools.islice(feed, count)
        for text in render(unit_us)
    )
    return list(itertools.islice(found, count))


def symbols_of(content: Any) -> Iterator[Frame]:
    yield from content if isinstance(content, list) else [content]


@pytest.mark.parametrize(("market", "name"), EVERY_STREAM)
def test_frames_are_due_in_order_and_after_their_events(
    markets: dict[MarketName, SimulatedMarket], market: MarketName, name: str
) -> None:
    count = 3 if name.startswith("!ticker") else 12
    found = frames(markets[market], name, count)
    assert len(found) == count
    dues = [due_us for due_us, _ in found]
    assert dues == sorted(dues)
    assert dues[0] >= NOON
    for due_us, content in found:
        for frame in symbols_of(content):
            if "E" in frame:
                assert frame["E"] == due_us // 1_000
                assert frame.get("T", 0) <= frame["E"] or name.startswith(
                    ("btcusdt@markPrice", "!markPrice")
                )
            if name[0] != "!":
                assert frame.get("s", "BTCUSDT").lower() in (name.partition("@")[0], "btcusdt")


@pytest.mark.parametrize(("market", "name"), EVERY_STREAM)
def test_later_subscribers_get_the_same_frames(
    markets: dict[MarketName, SimulatedMarket], market: MarketName, name: str
) -> None:
    """Window ticker arrays are excluded because they are slow."""
    count = 2 if name.startswith("!ticker") else 8
    early = frames(markets[market], name, count)
    later = frames(markets[market], name, count, from_us=early[-1][0])
    assert later[0] in early


@pytest.mark.parametrize(("market", "name"), NO_STREAMS)
def test_unknown_streams_have_no_feed(
    markets: dict[MarketName, SimulatedMarket], market: MarketName, name: str
) -> None:
    assert open_feed(markets[market], name, NOON, seed=1) is None


@pytest.mark.parametrize(
    ("name", "period_us"),
    [
        ("btcusdt@depth@0ms", 50_000), ("btcusdt@depth@100ms", 100_000),
        ("btcusdt@depth", 250_000), ("btcusdt@depth@500ms", 500_000),
        ("btcusdt@depth5", 250_000), ("btcusdt@depth20@100ms", 100_000),
    ],
)  # fmt: skip
def test_streams_of_a_period_keep_it(
    markets: dict[MarketName, SimulatedMarket], name: str, period_us: int
) -> None:
    dues = [due_us for due_us, _ in frames(markets["um"], name, 20)]
    assert {later - earlier for earlier, later in pairwise(dues)} == {period_us}


@pytest.mark.parametrize("name", ["btcusdt@depth", "btcusdt@depth@100ms", "cosusdt@depth@100ms"])
def test_spot_depth_frames_follow_one_another_by_id(
    markets: dict[MarketName, SimulatedMarket], name: str
) -> None:
    found = [frame for _, frame in frames(markets["spot"], name, 20)]
    assert all(later["U"] == earlier["u"] + 1 for earlier, later in pairwise(found))


@pytest.mark.parametrize("name", ["btcusdt@depth@0ms", "btcusdt@depth", "keepusdt@depth@500ms"])
def test_futures_depth_frames_have_the_previous_id(
    markets: dict[MarketName, SimulatedMarket], name: str
) -> None:
    found = [frame for _, frame in frames(markets["um"], name, 20)]
    assert all(later["pu"] == earlier["u"] < later["U"] for earlier, later in pairwise(found))


@pytest.mark.parametrize(("market", "name"), [("spot", "depth@100ms"), ("um", "depth@0ms")])
def test_book_tickers_agree_with_depth_frames_and_the_book(
    markets: dict[MarketName, SimulatedMarket], market: MarketName, name: str
) -> None:
    """A client with a local book and one with bookTicker see the same."""
    exchange = markets[market]
    book = exchange.book("BTCUSDT")
    changes = [frame for _, frame in frames(exchange, f"btcusdt@{name}", 60)]
    tickers = [frame for _, frame in frames(exchange, "btcusdt@bookTicker", 400)]
    begin = book.state(book.step_of(changes[0]["u"]))
    text = book.instrument.format_price, book.instrument.format_quantity
    bids = {text[0](price): text[1](amount) for price, amount in begin.bids.tolist()}
    asks = {text[0](price): text[1](amount) for price, amount in begin.asks.tolist()}
    agreed = 0
    for change in changes[1:]:
        for side, rows in ((bids, change["b"]), (asks, change["a"])):
            for price, quantity in rows:
                if float(quantity):
                    side[price] = quantity
                else:
                    del side[price]
        best = [t for t in tickers if t["u"] == change["u"]]
        if best:
            bid, ask = max(bids, key=float), min(asks, key=float)
            assert (best[0]["b"], best[0]["B"]) == (bid, bids[bid])
            assert (best[0]["a"], best[0]["A"]) == (ask, asks[ask])
            agreed += 1
    assert agreed > 40


def test_partial_depth_equals_the_top_of_the_whole_book(
    markets: dict[MarketName, SimulatedMarket],
) -> None:
    exchange = markets["spot"]
    book = exchange.book("BTCUSDT")
    for _, frame in frames(exchange, "btcusdt@depth5@100ms", 5):
        state = book.state(book.step_of(frame["lastUpdateId"]))
        price, quantity = book.instrument.format_price, book.instrument.format_quantity
        for side, levels in ((frame["bids"], state.bids), (frame["asks"], state.asks)):
            assert side == [[price(cost), quantity(amount)] for cost, amount in levels[:5].tolist()]


def test_arrays_equal_the_streams_of_changed_symbols(
    markets: dict[MarketName, SimulatedMarket],
) -> None:
    exchange = markets["spot"]
    sizes = set()
    for due_us, array in frames(exchange, "!miniTicker@arr", 6):
        traded = {
            symbol
            for symbol in exchange
            if exchange.history(symbol).has_order(due_us - SECOND_US + 1, due_us)
        }
        assert {entry["s"] for entry in array} == traded
        sizes.add(len(array))
    assert max(sizes) < len(exchange.instruments)


def test_mark_price_arrays_are_one_frame_or_two_every_second(
    markets: dict[MarketName, SimulatedMarket],
) -> None:
    slow = frames(markets["um"], "!markPrice@arr", 2)
    assert [entry["s"] for entry in slow[0][1]] == list(DEFAULT_UM)
    assert slow[1][0] // SECOND_US - slow[0][0] // SECOND_US == 3
    fast = frames(markets["um"], "!markPrice@arr@1s", 4)
    assert fast[0][0] == fast[1][0]
    assert fast[0][0] // SECOND_US == fast[2][0] // SECOND_US - 1
    both = [entry["s"] for _, array in fast[:2] for entry in array]
    assert both == list(DEFAULT_UM)


def test_microseconds_reach_every_time_of_a_spot_frame(
    markets: dict[MarketName, SimulatedMarket],
) -> None:
    for kind in ("ticker", "ticker_1h", "miniTicker", "avgPrice", "depth@100ms"):
        ((due_us, frame),) = frames(markets["spot"], f"btcusdt@{kind}", 1, unit_us=1)
        assert frame["E"] == due_us
        for field in ("T", "O", "C"):
            assert re.fullmatch(r"\d{16}", str(frame.get(field, due_us)))


def test_rolling_statistics_cover_exactly_their_window(
    markets: dict[MarketName, SimulatedMarket],
) -> None:
    for name in ("spot", "um"):
        for due_us, frame in frames(markets[name], "btcusdt@ticker", 3):  # type: ignore[index]
            assert frame["C"] - frame["O"] == 86_400_000
            assert frame["C"] == due_us // 1_000
            assert frame["n"] <= frame["L"] - frame["F"] + 1
    for _, frame in frames(markets["spot"], "btcusdt@ticker_4h", 3):
        assert frame["e"] == "4hTicker"
        assert frame["O"] % 60_000 == 0
        assert 0 <= frame["C"] - frame["O"] - 4 * 3_600_000 < 60_000
