"""Recorded frames: the files' lines, and the trades in them as a tape.

Two formats, plain or gzipped, one frame a line: `<ns> <frame>` and `<seconds>: <frame>`, where a
frame is a combined-stream frame. Other lines (URLs, HTTP answers) are no frames and left out.
"""

from __future__ import annotations

import gzip
import heapq
import re
from array import array
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any, cast

import msgspec
import numpy as np

from simulator.clock import MINUTE_US
from simulator.market.instruments import SPOT_DECIMALS, Instrument, MarketName
from simulator.market.noise import IntArray
from simulator.market.tape import FillKind, Tape
from simulator.rest.parameters import MICROSECONDS_FROM
from simulator.wire.frames import US_PER_MS

_NANOSECONDS = re.compile(rb"(\d{15,20}) (?=\{)")
_SECONDS = re.compile(rb"(\d{9,11})(?:\.(\d{1,9})\d*)?: (?=\{)")


@dataclass(frozen=True, slots=True)
class RecordedFrame:
    """One line: when it was received, its stream, its payload and the whole combined frame."""

    received_ns: int
    stream: str
    payload: bytes
    frame: bytes


class _Wrapper(msgspec.Struct):
    stream: str
    data: msgspec.Raw


class _Event(msgspec.Struct):
    """Fields of `trade`, `aggTrade` and others; ids are those of the event's own kind."""

    e: str = ""
    E: int = 0
    s: str = ""
    t: int = -1
    a: Any = -1  # aggregate id; a list in depth frames
    p: str = ""
    q: str = ""
    f: int = -1
    l: int = -1  # noqa: E741 - the exchange's name
    T: int = 0
    m: bool = False
    X: str = "MARKET"


class _Timed(msgspec.Struct):
    E: int = 0


_read_wrapper = msgspec.json.Decoder(_Wrapper)
_read_event = msgspec.json.Decoder(_Event)
_read_time = msgspec.json.Decoder(_Timed)


def read_frames(path: Path) -> Iterator[RecordedFrame]:
    """The frames of one file, in its order.

    Raises:
        ValueError: a line looks like a frame and is none; it names file and line.
    """
    with _open(path) as lines:
        for number, line in enumerate(lines, start=1):
            head = _NANOSECONDS.match(line)
            if head is not None:
                received_ns = int(head[1])
            else:
                head = _SECONDS.match(line)
                if head is None:
                    continue
                received_ns = int(head[1]) * 10**9 + int((head[2] or b"").ljust(9, b"0"))
            frame = line[head.end() :].rstrip()
            if not frame.startswith(b'{"stream"'):
                continue  # an HTTP answer
            try:
                wrapper = _read_wrapper.decode(frame)
            except msgspec.DecodeError as error:
                raise ValueError(f"{path}, line {number}: no frame: {error}") from error
            yield RecordedFrame(received_ns, wrapper.stream, bytes(wrapper.data), frame)


def _open(path: Path) -> IO[bytes]:
    if path.suffix == ".gz":
        return cast(IO[bytes], gzip.open(path, "rb"))
    return path.open("rb")


def merge_frames(paths: Sequence[Path]) -> Iterator[RecordedFrame]:
    """The frames of several files in order of their receipt."""
    return heapq.merge(*map(read_frames, paths), key=lambda frame: frame.received_ns)


def event_time_us(frame: RecordedFrame) -> int:
    """The event time of a frame in µs; 0 where it has none (spot bookTicker)."""
    return as_us(_read_time.decode(frame.payload).E)


def as_us(time: int) -> int:
    """A time in ms or µs as µs."""
    return time if time >= MICROSECONDS_FROM else time * US_PER_MS


@dataclass(slots=True)
class _Columns:
    """Trades of one symbol while they are read: ids, time, price and quantity in 1e-8."""

    ids: array[int] = field(default_factory=lambda: array("q"))
    last_ids: array[int] = field(default_factory=lambda: array("q"))
    agg_ids: array[int] = field(default_factory=lambda: array("q"))
    times_us: array[int] = field(default_factory=lambda: array("q"))
    prices: array[int] = field(default_factory=lambda: array("q"))
    quantities: array[int] = field(default_factory=lambda: array("q"))
    makers: array[int] = field(default_factory=lambda: array("b"))
    kinds: array[int] = field(default_factory=lambda: array("b"))
    price_decimals: int = 0
    quantity_decimals: int = 0

    def add(self, event: _Event, market: MarketName) -> None:
        price, price_decimals = _scaled(event.p, keeps_zeros=market == "um")
        quantity, quantity_decimals = _scaled(event.q, keeps_zeros=market == "um")
        if quantity == 0 or price == 0:
            return  # a void trade, in no candle
        self.price_decimals = max(self.price_decimals, price_decimals)
        self.quantity_decimals = max(self.quantity_decimals, quantity_decimals)
        is_aggregate = event.e == "aggTrade"
        self.ids.append(event.f if is_aggregate else event.t)
        self.last_ids.append(event.l if is_aggregate else event.t)
        self.agg_ids.append(event.a if is_aggregate else event.t)
        self.times_us.append(as_us(event.T))
        self.prices.append(price)
        self.quantities.append(quantity)
        self.makers.append(event.m)
        self.kinds.append(FillKind[event.X] if event.X in FillKind.__members__ else 0)


def _scaled(text: str, *, keeps_zeros: bool) -> tuple[int, int]:
    """A decimal in units of 1e-8, and how many decimals it has."""
    whole, _, fraction = text.partition(".")
    if len(fraction) > SPOT_DECIMALS or not (whole + fraction).isdigit():
        raise ValueError(f"{text!r} is no decimal with at most {SPOT_DECIMALS} places")
    shown = fraction if keeps_zeros else fraction.rstrip("0")
    return int(whole + fraction.ljust(SPOT_DECIMALS, "0")), len(shown)


@dataclass(frozen=True, slots=True)
class RecordedTrades:
    """All trades of one symbol in a recording.

    Attributes:
        tape: one row a `trade` frame, or an `aggTrade` where there are no `trade` frames;
            aggregate ids are the trade ids in the first case.
        is_aggregated: whether the rows are aggTrades.
    """

    instrument: Instrument
    tape: Tape
    is_aggregated: bool


@dataclass(frozen=True, slots=True)
class Recording:
    """What a recording holds besides its frames.

    Attributes:
        first_event_us, last_event_us: event times of its first and last frame that has one.
        frame_count: frames in all files.
    """

    market: MarketName
    paths: tuple[Path, ...]
    trades: dict[str, RecordedTrades]
    first_event_us: int
    last_event_us: int
    frame_count: int

    def complete_minutes(self, until_us: int) -> tuple[int, int]:
        """The minutes recorded from their first to their last moment: first, and one past the last.

        Args:
            until_us: minutes that end later do not count.
        """
        first = -(-self.first_event_us // MINUTE_US)
        return first, max(first, min(self.last_event_us, until_us) // MINUTE_US)


def scan_recording(paths: Sequence[Path], market: MarketName) -> Recording:
    """Reads all files once for the trades in them.

    Raises:
        FileNotFoundError: a file is missing.
        ValueError: no file holds a frame with an event time, or a line is malformed.
    """
    trades: dict[str, _Columns] = {}
    aggregates: dict[str, _Columns] = {}
    first_us = last_us = count = 0
    for frame in merge_frames(paths):
        count += 1
        kind = frame.stream.partition("@")[2]
        if kind in ("trade", "aggTrade"):
            event = _read_event.decode(frame.payload)
            columns = trades if kind == "trade" else aggregates
            columns.setdefault(event.s, _Columns()).add(event, market)
            event_us = as_us(event.E)
        else:
            event_us = event_time_us(frame)
        first_us = first_us or event_us
        last_us = max(last_us, event_us)
    if first_us == 0:
        names = ", ".join(map(str, paths))
        raise ValueError(f"no frame with an event time in {names}; is it a recording of frames?")
    found = {
        symbol: _build(symbol, market, columns, is_aggregated=symbol not in trades)
        for symbol, columns in (aggregates | trades).items()
        if len(columns.ids)
    }
    return Recording(market, tuple(paths), found, first_us, last_us, count)


def _build(
    symbol: str, market: MarketName, columns: _Columns, *, is_aggregated: bool
) -> RecordedTrades:
    def column(values: array[int]) -> IntArray:
        return np.array(values, dtype=np.int64)

    ids, order = np.unique(column(columns.ids), return_index=True)
    times = column(columns.times_us)[order]
    if np.any(times[1:] < times[:-1]):
        by_time = np.lexsort((ids, times))
        ids, order, times = ids[by_time], order[by_time], times[by_time]
    price_unit = 10 ** (SPOT_DECIMALS - columns.price_decimals)
    quantity_unit = 10 ** (SPOT_DECIMALS - columns.quantity_decimals)
    prices = column(columns.prices)[order] // price_unit
    quantities = column(columns.quantities)[order] // quantity_unit
    quote_asset = next(
        (asset for asset in ("USDT", "USDC", "BUSD", "FDUSD", "BTC", "ETH", "BNB")
         if symbol.endswith(asset) and symbol != asset),
        "",
    )  # fmt: skip
    tick, step = int(np.gcd.reduce(prices)), int(np.gcd.reduce(quantities))
    instrument = Instrument(
        symbol=symbol,
        market=market,
        base_asset=symbol.removesuffix(quote_asset),
        quote_asset=quote_asset,
        price_decimals=columns.price_decimals,
        quantity_decimals=columns.quantity_decimals,
        typical_price=1,  # nothing is generated from a recording
        largest_fill=1,
        orders_per_day=0,
        tick=tick,
        step=step,
    )
    fills = column(columns.last_ids)[order] - ids + 1
    quotes = prices * quantities
    if instrument.rounds_quote:
        quotes = (quotes + instrument.quote_divisor // 2) // instrument.quote_divisor
    rows = np.arange(len(ids), dtype=np.int64)
    tape = Tape(
        instrument=instrument,
        time_us=times,
        agg_id=column(columns.agg_ids)[order],
        first_id=ids,
        slots=fills,
        fills=fills,
        tail_kind=column(columns.kinds)[order],
        price=prices,
        buyer_is_maker=column(columns.makers)[order].astype(np.bool_),
        quantity=quantities,
        volume=quantities,
        quote=quotes,
        counted=fills,
        last_counted_id=ids + fills - 1,
        slot_start=rows,
        slot_quantity=quantities,
        slot_quote=quotes,
    )
    return RecordedTrades(instrument, tape, is_aggregated)
