"""A scanned recording: its trades as columns, and prepared blocks."""

from __future__ import annotations

import functools
from array import array
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import msgspec
import numpy as np

from simulator.clock import MINUTE_US
from simulator.market.instruments import (
    SPOT_DECIMALS,
    Instrument,
    MarketName,
    recorded_instrument,
)
from simulator.market.noise import IntArray
from simulator.market.trades.columns import FillKind, TradeColumns
from simulator.replay.blocks import Block, BlockBuilder
from simulator.replay.recorded_frames import RecordedFrame, as_us, event_time_us, merge_frames
from simulator.replay.recorded_klines import RecordedKlines, add_kline


class _Event(msgspec.Struct):
    """Fields of `trade`, `aggTrade` and other events; ids are those of the event's kind."""

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


_MARKET = "MARKET"
_read_event = msgspec.json.Decoder(_Event)


@dataclass(slots=True)
class _Columns:
    """Trades of one symbol while they are read; prices and quantities in 1e-8."""

    ids: array[int] = field(default_factory=lambda: array("q"))
    last_ids: array[int] = field(default_factory=lambda: array("q"))
    agg_ids: array[int] = field(default_factory=lambda: array("q"))
    times_us: array[int] = field(default_factory=lambda: array("q"))
    prices: array[int] = field(default_factory=lambda: array("q"))
    quantities: array[int] = field(default_factory=lambda: array("q"))
    makers: array[int] = field(default_factory=lambda: array("b"))
    price_decimals: int = 0
    quantity_decimals: int = 0

    def add(self, event: _Event, market: MarketName) -> None:
        price, price_decimals = _scaled(event.p, keeps_zeros=market != "spot")
        quantity, quantity_decimals = _scaled(event.q, keeps_zeros=market != "spot")
        if quantity == 0 or price == 0 or event.X != _MARKET:
            return  # a void trade, or one of the insurance fund or ADL: in no kline
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


@functools.lru_cache(maxsize=1 << 16)  # most prices and many quantities repeat
def _scaled(text: str, *, keeps_zeros: bool) -> tuple[int, int]:
    """Return a decimal in units of 1e-8, and its number of decimals."""
    whole, _, fraction = text.partition(".")
    if len(fraction) > SPOT_DECIMALS or not (whole + fraction).isdigit():
        raise ValueError(f"{text!r} is not a decimal with at most {SPOT_DECIMALS} places")
    shown = fraction if keeps_zeros else fraction.rstrip("0")
    return int(whole + fraction.ljust(SPOT_DECIMALS, "0")), len(shown)


@dataclass(frozen=True, slots=True)
class RecordedTrades:
    """All trades of one symbol in a recording.

    Attributes:
        columns: one row per `trade` frame, or per `aggTrade` without `trade` frames; in the first
            case aggregate ids are trade ids.
        is_aggregated: the rows are aggTrades.
    """

    instrument: Instrument
    columns: TradeColumns
    is_aggregated: bool


@dataclass(frozen=True, slots=True)
class Recording:
    """A recording's trades, times and prepared frames.

    Attributes:
        klines: of the symbols without recorded trades.
        first_event_us, last_event_us: event times of its first and last frame that has one.
        frame_count: frames in all files.
        streams: names of all streams; a position is the stream's number in blocks.
        prepared: its first frames, encoded, as far as memory allowed.
    """

    market: MarketName
    paths: tuple[Path, ...]
    trades: dict[str, RecordedTrades]
    klines: dict[str, RecordedKlines]
    first_event_us: int
    last_event_us: int
    frame_count: int
    streams: tuple[str, ...]
    prepared: tuple[Block, ...]

    @property
    def prepared_count(self) -> int:
        """Frames in the prepared blocks."""
        return sum(map(len, self.prepared))

    def complete_minutes(self, until_us: int) -> tuple[int, int]:
        """Return the first completely recorded minute, and one past the last.

        Args:
            until_us: minutes that end later do not count.
        """
        first = -(-self.first_event_us // MINUTE_US)
        return first, max(first, min(self.last_event_us, until_us) // MINUTE_US)


class _Prepared:
    """The first blocks of a recording, as far as memory allows."""

    def __init__(self, memory_bytes: int) -> None:
        self.numbers: dict[str, int] = {}
        self.blocks: list[Block] = []
        self._maker = BlockBuilder(self.numbers)
        self._left_bytes = memory_bytes

    def add(self, frame: RecordedFrame, event_us: int) -> None:
        if self._left_bytes <= 0:
            self.numbers.setdefault(frame.stream, len(self.numbers))
            return
        self._maker.add(frame, event_us)
        if self._maker.is_full:
            self._take()

    def finish(self) -> tuple[Block, ...]:
        if self._left_bytes > 0 and not self._maker.is_empty:
            self._take()
        return tuple(self.blocks)

    def _take(self) -> None:
        block = self._maker.take()
        self._left_bytes -= block.memory_bytes
        if self._left_bytes >= 0:
            self.blocks.append(block)


def scan_recording(
    paths: Sequence[Path], market: MarketName, *, memory_bytes: int = 0
) -> Recording:
    """Read all files once for their trades, and prepare frames for sending.

    Args:
        memory_bytes: memory limit of prepared blocks.

    Raises:
        FileNotFoundError: a file is missing.
        ValueError: no file has a frame with an event time, or a line is malformed.
    """
    trades: dict[str, _Columns] = {}
    aggregates: dict[str, _Columns] = {}
    klines: dict[str, RecordedKlines] = {}
    prepared = _Prepared(memory_bytes)
    first_us = last_us = count = 0
    for frame in merge_frames(paths):
        count += 1
        kind = frame.stream.partition("@")[2]
        try:
            if kind in ("trade", "aggTrade"):
                event = _read_event.decode(frame.payload)
                columns = trades if kind == "trade" else aggregates
                if event.s not in columns:
                    columns[event.s] = _Columns()
                columns[event.s].add(event, market)
                event_us = as_us(event.E)
            elif kind.startswith("kline_"):
                event_us = add_kline(frame.payload, market, klines)
            else:
                event_us = event_time_us(frame)
        except (ValueError, msgspec.DecodeError) as error:
            raise ValueError(
                f"{', '.join(map(str, paths))}: the frame of {frame.stream} received at "
                f"{frame.received_ns} ns: {error}"
            ) from error
        prepared.add(frame, event_us)
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
    return Recording(
        market=market,
        paths=tuple(paths),
        trades=found,
        klines={symbol: of for symbol, of in klines.items() if symbol not in found},
        first_event_us=first_us,
        last_event_us=last_us,
        frame_count=count,
        prepared=prepared.finish(),
        streams=tuple(prepared.numbers),
    )


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
    tick, step = int(np.gcd.reduce(prices)), int(np.gcd.reduce(quantities))
    instrument = recorded_instrument(
        market,
        symbol,
        price_decimals=columns.price_decimals,
        quantity_decimals=columns.quantity_decimals,
        tick=tick,
        step=step,
        amounts_like=(int(prices.min()), int(quantities.max()), len(ids)),
    )
    fills = column(columns.last_ids)[order] - ids + 1
    quotes = instrument.quote_amounts(prices, quantities)
    rows = np.arange(len(ids), dtype=np.int64)
    recorded = TradeColumns(
        instrument=instrument,
        time_us=times,
        agg_id=column(columns.agg_ids)[order],
        first_id=ids,
        slots=fills,
        fills=fills,
        tail_kind=np.full(len(ids), FillKind.MARKET, dtype=np.int64),
        price=prices,
        buyer_is_maker=column(columns.makers)[order].astype(np.bool_),
        quantity=quantities,
        quote=quotes,
        slot_start=rows,
        slot_quantity=quantities,
        slot_quote=quotes,
    )
    return RecordedTrades(instrument, recorded, is_aggregated)
