"""Closed klines of a recording, for symbols whose trades were not recorded."""

from __future__ import annotations

from dataclasses import dataclass, field

import msgspec

from simulator.market.instruments import (
    SPOT_DECIMALS,
    Instrument,
    MarketName,
    recorded_instrument,
)
from simulator.replay.recorded_frames import as_us


class _Body(msgspec.Struct):
    """The fields of a kline; numbers stay text, so that they are served as recorded."""

    t: int
    T: int
    i: str
    o: str
    h: str
    l: str  # noqa: E741 - the exchange's name
    c: str
    v: str
    n: int
    x: bool
    q: str
    V: str
    Q: str


class _Event(msgspec.Struct):
    E: int
    s: str
    k: _Body


_read_event = msgspec.json.Decoder(_Event)


@dataclass(frozen=True, slots=True)
class RecordedKline:
    """A closed kline: when it was sent, when it opened (both µs), and its values."""

    sent_us: int
    open_us: int
    body: _Body

    def row(self, *, unit_us: int) -> list[int | str]:
        """Return the twelve elements of a REST kline."""
        body = self.body
        # A close time in ms stands for the last microsecond before the next kline.
        close_us = as_us(body.T) if as_us(body.T) == body.T else as_us(body.T) + 999
        return [
            self.open_us // unit_us, body.o, body.h, body.l, body.c, body.v, close_us // unit_us,
            body.q, body.n, body.V, body.Q, "0",
        ]  # fmt: skip


@dataclass(slots=True)
class RecordedKlines:
    """The closed klines of one symbol by interval and open time; the last one sent counts."""

    by_interval: dict[str, dict[int, RecordedKline]] = field(default_factory=dict)
    first_us: int = 0
    price_decimals: int = 0
    quantity_decimals: int = 0

    def instrument(self, symbol: str, market: MarketName) -> Instrument:
        """Return an instrument with the decimals seen in the klines."""
        return recorded_instrument(
            market,
            symbol,
            price_decimals=self.price_decimals,
            quantity_decimals=self.quantity_decimals,
        )


def add_kline(payload: bytes, market: MarketName, into: dict[str, RecordedKlines]) -> int:
    """Read a kline frame, keep it if it is closed, and return its event time in µs.

    Raises:
        msgspec.DecodeError: it is not a kline.
    """
    event = _read_event.decode(payload)
    sent_us, open_us = as_us(event.E), as_us(event.k.t)
    klines = into.setdefault(event.s, RecordedKlines(first_us=open_us))
    klines.first_us = min(klines.first_us, open_us)
    for price in (event.k.o, event.k.h, event.k.l, event.k.c):
        klines.price_decimals = max(klines.price_decimals, _decimals(price, market))
    klines.quantity_decimals = max(klines.quantity_decimals, _decimals(event.k.v, market))
    if event.k.x:
        kline = RecordedKline(sent_us, open_us, event.k)
        klines.by_interval.setdefault(event.k.i, {})[open_us] = kline
    return sent_us


def _decimals(text: str, market: MarketName) -> int:
    """Return the decimals of a number. Spot pads all to eight; those zeros say nothing."""
    fraction = text.partition(".")[2]
    shown = fraction if market != "spot" else fraction.rstrip("0")
    return min(SPOT_DECIMALS, len(shown))
