"""What data messages of ``/api/v1/ws`` are made of: encoded once a change, for all who are told.

A change of a bar is one fragment. A message is the frame's head, what its kind begins with, and
the fragments that wait for a reader: nothing else is made for each of them.
"""

from __future__ import annotations

import struct
import zlib
from collections.abc import Sequence

import msgspec

from include.domain.timeframes import SECOND_US
from serving.bars.subscription import BarUpdate
from serving.protobuf.bars import plain

MAX_BARS = 200
"""Of one JSON message."""
MAX_ITEMS = 50
"""Of one binary message."""
TEXT, BINARY = 0x81, 0x82
"""First bytes of frames that are whole messages (RFC 6455, 5.2)."""
_SMALL, _MIDDLE, _LARGE = struct.Struct(">BB"), struct.Struct(">BBH"), struct.Struct(">BBQ")
_ID = struct.Struct("<H")
_VALUES = struct.Struct("<dd")
_encode = msgspec.json.encode


def candle_of(one: BarUpdate) -> bytes:
    """A bar as JSON; decimals as text, times in milliseconds since 1970."""
    candle = one.candle
    return _encode(
        {
            "symbol": candle.symbol,
            "timeframe": one.timeframe,
            "open_time": candle.open_time_us // 1_000,
            "open": plain(candle.open),
            "high": plain(candle.high),
            "low": plain(candle.low),
            "close": plain(candle.close),
            "volume": plain(candle.volume),
            "quote_volume": plain(candle.quote_volume) if one.has_quotes else None,
            "trade_count": candle.trade_count,
            "taker_buy_volume": plain(candle.taker_buy_volume),
            "taker_buy_quote_volume": (
                plain(candle.taker_buy_quote_volume) if one.has_quotes else None
            ),
            "is_closed": one.is_closed,
            "status": None if one.status is None else one.status.value,
            "is_revision": one.is_revision,
        }
    )


def price_of(one: BarUpdate) -> bytes:
    """A last price with the volume of the running minute, as JSON."""
    return _encode(
        {
            "symbol": one.candle.symbol,
            "price": plain(one.candle.close),
            "volume": plain(one.candle.volume),
            "minute": one.candle.open_time_us // SECOND_US,
        }
    )


def values_of(one: BarUpdate) -> bytes:
    """The same as ``[price f64][volume f64]``: for pictures, not for sums."""
    return _VALUES.pack(float(one.candle.close), float(one.candle.volume))


def id_of(number: int) -> bytes:
    """What stands for a symbol before its values: ``[symbol_id u16]``."""
    return _ID.pack(number)


def candles(fragments: Sequence[bytes]) -> bytes:
    """Frames of bars."""
    return _texts(b'{"type":"candles","data":[', fragments)


def prices(fragments: Sequence[bytes]) -> bytes:
    """Frames of prices."""
    return _texts(b'{"type":"price","data":[', fragments)


def binary_prices(items: Sequence[bytes]) -> bytes:
    """Frames of items, 50 a frame at most."""
    return b"".join(
        framed(BINARY, binary_message(items[start : start + MAX_ITEMS]))
        for start in range(0, len(items), MAX_ITEMS)
    )


def binary_message(items: Sequence[bytes]) -> bytes:
    """``[crc32 u32][count u16]`` and items, little-endian; the checksum is of what follows it."""
    rest = _ID.pack(len(items)) + b"".join(items)
    return zlib.crc32(rest).to_bytes(4, "little") + rest


def framed(kind: int, payload: bytes) -> bytes:
    """A message as a frame of a server: no mask, no extension."""
    size = len(payload)
    if size < 126:
        return _SMALL.pack(kind, size) + payload
    if size < 1 << 16:
        return _MIDDLE.pack(kind, 126, size) + payload
    return _LARGE.pack(kind, 127, size) + payload


# --- inside


def _texts(head: bytes, fragments: Sequence[bytes]) -> bytes:
    if len(fragments) <= MAX_BARS:
        return framed(TEXT, b"".join((head, b",".join(fragments), b"]}")))
    return b"".join(
        framed(TEXT, b"".join((head, b",".join(fragments[start : start + MAX_BARS]), b"]}")))
        for start in range(0, len(fragments), MAX_BARS)
    )
