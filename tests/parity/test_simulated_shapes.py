"""Recorded frames and simulated ones have the same fields, in the same order, of the same types.

A shape is what is left of frames when their values are taken away: each field's path, what kind
of value it had, and the order of the fields of each object. Up to 500 recorded frames of each
stream are read, evenly over the recording; the simulator's come from its sockets, from a combined
connection as the recordings'.
"""

from __future__ import annotations

import asyncio
import functools
import gzip
import json
import re
from collections import defaultdict
from collections.abc import AsyncIterator, Iterable, Iterator
from datetime import UTC, datetime
from itertools import pairwise
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

import polars as pl
import pytest
from websockets.asyncio.client import connect

from simulator.config import SimulatorConfig
from simulator.server import Exchange
from tests.parity.shapes import kind_of

pytestmark = pytest.mark.recorded

STREAM_NAME = re.compile(r'{"stream":"([^"]+)"')
TIMES = re.compile(r"(\A|\.)(E|T|k\.t)\Z")
TEXT_FIELDS = ("e", "k.i", "k.B")
"""Texts that are part of the shape."""

LATER_FIELDS = {
    "um aggTrade": {"nq": "quantity without RPI orders, added after 2021"},
}
"""Fields of today's exchange, and of the simulator, that recordings of 2021 cannot have."""


Item = TypeVar("Item")


class Shape(NamedTuple):
    """Kinds of value by path, and the orders of fields by the path of their object."""

    kinds: dict[str, set[str]]
    orders: dict[str, set[tuple[str, ...]]]


class Stream(NamedTuple):
    """One kind of stream in one recording.

    Attributes:
        market: spot, um or cm. kind: what follows the symbol in the stream's name.
        symbol: the only one that was recorded; None if there were several, with different decimals.
        simulated: the simulator's stream.
    """

    folder: str
    file: str
    market: str
    kind: str
    symbol: str | None
    simulated: str


SPOT_2024 = ("ws-spot-20240808", "btcusdt_20240808.gz", "spot")
UM_2024 = ("ws-usdm-vs-klines-20240808", "btcusdt_20240808.gz", "um")
SPOT_2021 = ("ws-cryptofeed-2021", "BINANCE-ee25be.0.8980a803.gz", "spot")
SPOT_2021_LATER = ("ws-cryptofeed-2021", "BINANCE.jsonl.zst", "spot")
UM_2021 = ("ws-cryptofeed-2021", "BINANCE_FUTURES.ws.1.0.79508fc5.gz", "um")
CM_2024 = ("ws-coinm-20240808", "btcusd_perp_20240808.gz", "cm")
CM_2021 = ("ws-coinm-cryptofeed-2021", "BINANCE_DELIVERY.ws.7.0.ef8dbb46.gz", "cm")
CM_2021_LATER = ("ws-coinm-cryptofeed-2021", "BINANCE_DELIVERY.jsonl.zst", "cm")
FORCE_ORDERS = ("forceorder-frames", "frames.jsonl", "um")
STREAMS = [
    *(
        Stream(*SPOT_2024, k, "btcusdt", f"btcusdt@{k}")
        for k in ("trade", "bookTicker", "depth@100ms")
    ),
    *(Stream(*UM_2024, k, "btcusdt", f"btcusdt@{k}") for k in ("trade", "bookTicker", "depth@0ms")),
    *(Stream(*SPOT_2021, k, None, f"btcusdt@{k}") for k in ("aggTrade", "kline_1m", "depth@100ms")),
    *(
        Stream(*SPOT_2021_LATER, k, None, f"btcusdt@{k}")
        for k in ("aggTrade", "kline_1m", "depth@100ms", "bookTicker")
    ),
    *(
        Stream(*UM_2021, k, None, f"btcusdt@{k}")
        for k in ("aggTrade", "kline_1m", "depth@100ms", "bookTicker")
    ),
    Stream(*FORCE_ORDERS, "arr", None, "!forceOrder@arr"),
    *(
        Stream(*CM_2024, k, "btcusd_perp", f"btcusd_perp@{k}")
        for k in ("trade", "bookTicker", "depth@0ms")
    ),
    *(
        Stream(*CM_2021, k, None, f"btcusd_perp@{k}")
        for k in ("aggTrade", "depth@100ms", "bookTicker")
    ),
    Stream(*CM_2021_LATER, "kline_1m", None, "btcusd_perp@kline_1m"),
]  # fmt: skip


MAX_FRAMES = 500
ALL_FRAMES = 1_000_000


# --- shapes


def walk(path: str, value: Any) -> Iterator[tuple[str, Any]]:
    """All values that hold no others, by path; rows of arrays by their column."""
    if isinstance(value, dict):
        for name, inner in value.items():
            yield from walk(f"{path}.{name}" if path else name, inner)
    elif isinstance(value, list):
        for row in value:
            cells = enumerate(row) if isinstance(row, list) else [("", row)]
            for column, cell in cells:
                yield from walk(f"{path}[].{column}", cell)
    else:
        yield path, value


def objects(path: str, value: Any) -> Iterator[tuple[str, tuple[str, ...]]]:
    """The order of fields of each object."""
    if isinstance(value, dict):
        yield path, tuple(value)
        for name, inner in value.items():
            yield from objects(f"{path}.{name}" if path else name, inner)


def shape_of(frames: Iterable[Any], *, with_decimals: bool) -> Shape:
    """The shape of all frames together."""
    kinds: dict[str, set[str]] = defaultdict(set)
    orders: dict[str, set[tuple[str, ...]]] = defaultdict(set)
    for frame in frames:
        for path, order in objects("", frame):
            orders[path].add(order)
        for path, value in walk("", frame):
            is_time = TIMES.search(path) is not None
            kind = kind_of(value, is_time=is_time, with_decimals=with_decimals)
            is_told = kind == "text" and path in TEXT_FIELDS
            kinds[path].add(f"text {value!r}" if is_told else kind)
    return Shape(dict(kinds), dict(orders))


# --- frames


def lines_of(file: Path) -> Iterator[str]:
    if file.suffix == ".zst":
        for (line,) in pl.read_csv(
            file, separator="\x01", has_header=False, quote_char=None
        ).rows():
            entry = json.loads(line)
            if entry["t"] == "recv":
                yield entry["data"]
    elif file.suffix == ".gz":
        with gzip.open(file, "rt") as lines:
            yield from lines
    else:
        yield from file.read_text().splitlines()


@functools.cache
def recorded_texts(file: Path) -> dict[str, list[str]]:
    """The frames of a recording, unread, by what follows the symbol in the stream's name."""
    found: dict[str, list[str]] = defaultdict(list)
    for line in lines_of(file):
        name = STREAM_NAME.search(line)
        if name is not None:
            found[name[1].partition("@")[2]].append(line[name.start() :])
    return found


def recorded_payloads(folder: Path, stream: Stream, most: int) -> list[Any]:
    """At most about `most` payloads of a stream, evenly chosen."""
    texts = recorded_texts(folder / stream.folder / stream.file)[stream.kind]
    return [json.loads(text)["data"] for text in thinned(texts, most)]


@pytest.fixture
async def exchange() -> AsyncIterator[Exchange]:
    """Ten minutes in a second."""
    noon = datetime(2026, 2, 3, 14, 0, 30, tzinfo=UTC)
    async with Exchange(SimulatorConfig(clock_start=noon, speed=600)) as running:
        yield running


def thinned(frames: list[Item], most: int) -> list[Item]:
    """At most about `most` frames, evenly chosen."""
    return frames[:: -(-len(frames) // most)]


async def simulated_frames(exchange: Exchange, market: str, stream: str, count: int) -> list[Any]:
    """The payloads of a stream from a combined connection, checked for its wrapper."""
    base = exchange.cm_ws_url if market == "cm" else exchange.spot_ws_url
    if market == "um":
        is_public = stream.endswith("@trade") or "@depth" in stream or "bookTicker" in stream
        base = f"{exchange.um_ws_url}/{'public' if is_public else 'market'}"
    url = f"{base}/stream?streams={stream}"
    frames = []
    async with connect(url, close_timeout=0.1) as ws, asyncio.timeout(30):
        while len(frames) < count:
            frame = json.loads(await ws.recv())
            assert tuple(frame) == ("stream", "data")
            assert frame["stream"] == stream
            if frame["data"].get("X") != "NA":  # void trades, which no recording contains
                frames.append(frame["data"])
    return frames


@pytest.mark.parametrize("stream", STREAMS, ids=lambda s: f"{s.file[:16]}-{s.market}-{s.kind}")
async def test_simulated_frames_have_the_recorded_shape(
    recorded_data: Path, exchange: Exchange, stream: Stream
) -> None:
    payloads = recorded_payloads(recorded_data, stream, MAX_FRAMES)
    if stream.kind == "arr":
        payloads = [payload for payload in payloads if "ps" in payload["o"]]  # those of 2026
    assert len(payloads) >= 2
    # USD-M prints as many decimals as each symbol has, so they are compared for one symbol alone.
    with_decimals = stream.market == "spot" or stream.symbol is not None
    wanted = shape_of(payloads, with_decimals=with_decimals)
    count = 40 if stream.kind == "arr" else 200
    simulated = await simulated_frames(exchange, stream.market, stream.simulated, count)
    later = LATER_FIELDS.get(f"{stream.market} {stream.kind}", {})
    assert all(name in frame for frame in simulated for name in later)
    present = [{k: v for k, v in frame.items() if k not in later} for frame in simulated]
    assert shape_of(present, with_decimals=with_decimals) == wanted


# --- what holds between the fields, in recordings and simulation alike


def check_spot_depth(frames: list[Any]) -> None:
    assert all(a["u"] + 1 == b["U"] <= b["u"] for a, b in pairwise(frames))
    assert any(quantity == "0.00000000" for f in frames for _, quantity in f["b"] + f["a"])
    for frame in thinned(frames, MAX_FRAMES):
        bids, asks = ([float(price) for price, _ in frame[side]] for side in "ba")
        assert bids == sorted(bids, reverse=True)
        assert asks == sorted(asks)


def check_um_depth(frames: list[Any]) -> None:
    assert all(a["u"] == b["pu"] < b["U"] for a, b in pairwise(frames))
    assert any(b["U"] > b["pu"] + 1 for b in frames)
    assert all(frame["U"] <= frame["u"] and frame["T"] <= frame["E"] for frame in frames)
    for frame in thinned(frames, MAX_FRAMES):
        for side in "ba":
            prices = [float(price) for price, _ in frame[side]]
            assert prices == sorted(prices)


def check_book_ticker(frames: list[Any]) -> None:
    assert all(a["u"] < b["u"] for a, b in pairwise(frames))
    assert all(float(f["b"]) < float(f["a"]) for f in frames)
    assert all(float(f["B"]) > 0 and float(f["A"]) > 0 for f in frames)
    assert all(f.get("T", 0) <= f.get("E", 0) for f in frames)


def check_trades(frames: list[Any]) -> None:
    assert all(a["t"] < b["t"] and a["T"] <= b["T"] for a, b in pairwise(frames))
    assert all(f["T"] <= f["E"] for f in frames)
    assert {f["m"] for f in frames} == {True, False}


CHECKS = {
    ("spot", "depth@100ms"): check_spot_depth,
    ("spot", "bookTicker"): check_book_ticker,
    ("spot", "trade"): check_trades,
    ("um", "depth@0ms"): check_um_depth,
    ("um", "bookTicker"): check_book_ticker,
    ("um", "trade"): check_trades,
    ("cm", "depth@0ms"): check_um_depth,
    ("cm", "bookTicker"): check_book_ticker,
    ("cm", "trade"): check_trades,
}
CHECKED = [
    stream
    for stream in STREAMS
    if stream.folder.endswith("20240808") and (stream.market, stream.kind) in CHECKS
]


@pytest.mark.parametrize("stream", CHECKED, ids=lambda s: f"{s.market}-{s.kind}")
async def test_simulated_frames_pass_the_checks_of_recorded_ones(
    recorded_data: Path, exchange: Exchange, stream: Stream
) -> None:
    check = CHECKS[stream.market, stream.kind]
    check(recorded_payloads(recorded_data, stream, ALL_FRAMES))
    check(await simulated_frames(exchange, stream.market, stream.simulated, 400))


async def test_liquidation_has_the_same_shape_on_a_raw_connection(
    recorded_data: Path, exchange: Exchange
) -> None:
    lines = (recorded_data / "forceorder-frames" / "frames.jsonl").read_text().splitlines()
    frames = [json.loads(line) for line in lines]
    raw = [frame for frame in frames if "stream" not in frame and "ps" in frame["o"]]
    url = f"{exchange.um_ws_url}/market/ws/btcusdt@forceOrder"
    async with connect(url, close_timeout=0.1) as ws:
        async with asyncio.timeout(30):
            simulated = [json.loads(await ws.recv()) for _ in range(5)]
    assert shape_of(simulated, with_decimals=False) == shape_of(raw, with_decimals=False)
    for order in (frame["o"] for frame in [*raw, *simulated]):
        assert order["T"] <= next(f["E"] for f in [*raw, *simulated] if f["o"] is order)
        assert order["S"] in ("BUY", "SELL")
        assert (order["o"], order["f"], order["X"]) == ("LIMIT", "IOC", "FILLED")
        assert order["z"] == order["q"]
        assert (float(order["p"]) < float(order["ap"])) == (order["S"] == "SELL")
