"""Messages of ``/api/v1/ws``: control in JSON, data in JSON or binary."""

from __future__ import annotations

import struct
import zlib
from collections.abc import Iterable, Sequence
from typing import Literal

import msgspec

from include.counts import counted
from include.domain.timeframes import SECOND_US
from include.store.trades.liquidations import Liquidation
from serving.bars.subscription import BarUpdate, MissedBars
from serving.http.formats import book_ticker_fields, liquidation_fields
from serving.protobuf.bars import plain
from streamer.hub.ticks import BookTickerUpdate, MissedLiquidations, MissedTrades, TradeTick

MAX_BYTES = 64 << 10
"""Limit of a message from a client."""
MAX_SYMBOLS = 1_000
"""Limit of one connection, over all channels."""
MAX_NAME = 64

MAX_BARS = 200
"""Limit of one JSON message."""
TEXT, BINARY = 0x81, 0x82
"""First bytes of unfragmented frames (RFC 6455, 5.2)."""
_SMALL, _MIDDLE, _LARGE = struct.Struct(">BB"), struct.Struct(">BBH"), struct.Struct(">BBQ")
_ID = struct.Struct("<H")
_VALUES = struct.Struct("<dd")
_encode = msgspec.json.encode

HEADER = struct.Struct("<IH")
ITEM = struct.Struct("<Hdd")
MAX_ITEMS = 50
"""Limit of one binary message."""

ErrorCode = Literal[
    "not_json", "unknown_type", "wrong_field", "unknown_symbol", "unknown_timeframe",
    "too_many_symbols", "too_fast", "not_served", "not_yet",
]  # fmt: skip


Channel = Literal["candles", "price", "trades", "book", "liquidations"]


class ClientMessage(
    msgspec.Struct, tag_field="type", forbid_unknown_fields=True, omit_defaults=True
):
    """A message from a client; the reply repeats its ``id``."""

    id: str | int | None = None


class Subscribe(ClientMessage, tag="subscribe"):
    """Subscribe to symbols.

    Attributes:
        channel: ``candles`` (bars of ``timeframe``), ``price``, ``trades``, ``book`` or
            ``liquidations``.
        symbol, symbols: one, or several; without any, all that are streamed.
        format: of ``price``: ``json`` or ``binary``.
    """

    channel: Channel = "candles"
    symbol: str | None = None
    symbols: list[str] | None = None
    timeframe: str = "1m"
    format: Literal["json", "binary"] = "json"


class Unsubscribe(ClientMessage, tag="unsubscribe"):
    """Unsubscribe from symbols; without any, from all of the channel."""

    channel: Channel = "candles"
    symbol: str | None = None
    symbols: list[str] | None = None
    timeframe: str = "1m"


class Ping(ClientMessage, tag="ping"):
    """Answered immediately."""


Message = Subscribe | Unsubscribe | Ping
_DECODER: msgspec.json.Decoder[Message] = msgspec.json.Decoder(Message)


class RefusedMessage(Exception):
    """A refused message and the reason; the connection continues."""

    def __init__(self, code: ErrorCode, text: str, id_: str | int | None = None) -> None:
        super().__init__(text)
        self.code = code
        self.text = text
        self.id = id_


def decoded(text: str | bytes) -> Message:
    """Decode a message from a client.

    Raises:
        RefusedMessage: it is invalid; the text says what would be right.
    """
    try:
        return _DECODER.decode(text)
    except msgspec.ValidationError as error:
        said = str(error)
        if "Invalid value" in said and "$.type" in said:
            raise RefusedMessage(
                "unknown_type", f"{said}; type should be subscribe, unsubscribe or ping"
            ) from None
        if "missing required field `type`" in said:
            raise RefusedMessage(
                "unknown_type", "no type; should be subscribe, unsubscribe or ping"
            ) from None
        raise RefusedMessage("wrong_field", said[:300]) from None
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        raise RefusedMessage(
            "not_json", 'not JSON; should be such as {"type": "subscribe", "symbol": "BTCUSDT"}'
        ) from None


def names_of(message: Subscribe, streamed: Iterable[str]) -> list[str]:
    """The symbols that a message names; all streamed ones if it names none.

    Raises:
        RefusedMessage: one is not streamed, or nothing is streamed yet.
    """
    known = frozenset(streamed)
    if not known:
        raise RefusedMessage("not_yet", "no symbol is streamed here yet; try again", message.id)
    if (named := _named(message)) is None:
        return sorted(known)
    for name in named:
        if name not in known:
            shown = name if len(name) <= MAX_NAME else f"{name[:MAX_NAME]}…"
            raise RefusedMessage("unknown_symbol", f"{shown!r} is not streamed", message.id)
    return named


def names_left(message: Unsubscribe, subscribed: Iterable[str]) -> list[str]:
    """The symbols that a message names; all subscribed ones if it names none.

    Symbols that were dropped since can be unsubscribed too.
    """
    named = _named(message)
    return sorted(subscribed) if named is None else named


def _named(message: Subscribe | Unsubscribe) -> list[str] | None:
    """Each name once; None if the message has none."""
    if message.symbol is None and message.symbols is None:
        return None
    first = [] if message.symbol is None else [message.symbol]
    return list(dict.fromkeys([*first, *(message.symbols or [])]))


# --- from us


def _json(message: dict[str, object]) -> str:
    return msgspec.json.encode(message).decode()


def control_message(kind: str, **fields: object) -> str:
    """Encode a control message."""
    return _json({"type": kind, **{k: v for k, v in fields.items() if v is not None}})


def missed_of(missed: Sequence[MissedBars]) -> str:
    """Encode ranges of evicted bars; the reader reads them by REST."""
    return _json(
        {
            "type": "missed",
            "data": [
                {
                    "symbol": one.symbol,
                    "timeframe": one.timeframe,
                    "from": one.start_us // 1_000,
                    "to": one.end_us // 1_000,
                }
                for one in missed
            ],
        }
    )


def trades_of(trades: Sequence[TradeTick]) -> str:
    """Encode trades, in the order in which they came."""
    return _json(
        {
            "type": "trades",
            "data": [
                {
                    "symbol": one.symbol,
                    "id": one.id,
                    "price": plain(one.price),
                    "quantity": plain(one.quantity),
                    "time": one.time_us // 1_000,
                    "is_buyer_maker": one.is_buyer_maker,
                    "first_trade_id": one.first_trade_id,
                    "last_trade_id": one.last_trade_id,
                }
                for one in trades
            ],
        }
    )


def missed_trades_of(missed: Sequence[MissedTrades]) -> str:
    """Encode ranges of missed trades; both ends are included."""
    return _json(
        {
            "type": "missed",
            "data": [
                {
                    "symbol": one.symbol,
                    "channel": "trades",
                    "first_id": one.first_id,
                    "last_id": one.last_id,
                    "from": one.from_us // 1_000,
                    "to": one.to_us // 1_000,
                }
                for one in missed
            ],
        }
    )


def book_tickers_of(book_tickers: Sequence[BookTickerUpdate]) -> str:
    """Encode the newest book tickers."""
    return _json({"type": "book", "data": [book_ticker_fields(one) for one in book_tickers]})


def liquidations_of(liquidations: Sequence[Liquidation]) -> str:
    """Encode liquidations, in the order in which they came."""
    return _json(
        {
            "type": "liquidations",
            "is_sample": True,
            "data": [liquidation_fields(one) for one in liquidations],
        }
    )


def missed_liquidations_of(missed: Sequence[MissedLiquidations]) -> str:
    """Encode times of missed liquidations; both ends are included."""
    return _json(
        {
            "type": "missed",
            "data": [
                {
                    "symbol": one.symbol,
                    "channel": "liquidations",
                    "count": one.count,
                    "from": one.from_us // 1_000,
                    "to": one.to_us // 1_000,
                }
                for one in missed
            ],
        }
    )


def from_binary(message: bytes) -> list[tuple[int, float, float]]:
    """Decode a binary message to symbol ids, prices and volumes: the reference decoder.

    Raises:
        ValueError: it is damaged or no such message.
    """
    if len(message) < HEADER.size:
        raise ValueError(f"{counted(len(message), 'byte')}; a message has {HEADER.size} at least")
    checksum, count = HEADER.unpack_from(message)
    if zlib.crc32(message[4:]) != checksum:
        raise ValueError("the checksum differs")
    if len(message) != HEADER.size + count * ITEM.size:
        raise ValueError(f"{counted(len(message), 'byte')} for {counted(count, 'item')}")
    return list(ITEM.iter_unpack(message[HEADER.size :]))


# --- data messages: encoded once for each change, joined for each reader


def candle_of(one: BarUpdate) -> bytes:
    """Encode a bar as JSON; decimals as text, times in ms since 1970."""
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
    """Encode a last price with the volume of the open minute, as JSON."""
    return _encode(
        {
            "symbol": one.candle.symbol,
            "price": plain(one.candle.close),
            "volume": plain(one.candle.volume),
            "minute": one.candle.open_time_us // SECOND_US,
        }
    )


def values_of(one: BarUpdate) -> bytes:
    """Encode the same as ``[price f64][volume f64]``: for charts, not for sums."""
    return _VALUES.pack(float(one.candle.close), float(one.candle.volume))


def id_of(number: int) -> bytes:
    """Encode a symbol's id, which precedes its values: ``[symbol_id u16]``."""
    return _ID.pack(number)


def candles(fragments: Sequence[bytes]) -> bytes:
    """Join bars to frames."""
    return _texts(b'{"type":"candles","data":[', fragments)


def prices(fragments: Sequence[bytes]) -> bytes:
    """Join prices to frames."""
    return _texts(b'{"type":"price","data":[', fragments)


def binary_prices(items: Sequence[bytes]) -> bytes:
    """Join items to frames of at most 50."""
    return b"".join(
        framed(BINARY, binary_message(items[start : start + MAX_ITEMS]))
        for start in range(0, len(items), MAX_ITEMS)
    )


def binary_message(items: Sequence[bytes]) -> bytes:
    """Join ``[crc32 u32][count u16]`` and items, little-endian; the checksum covers what follows
    it."""
    rest = _ID.pack(len(items)) + b"".join(items)
    return zlib.crc32(rest).to_bytes(4, "little") + rest


def framed(kind: int, payload: bytes) -> bytes:
    """A message as a server's frame: no mask, no extension."""
    size = len(payload)
    if size < 126:
        return _SMALL.pack(kind, size) + payload
    if size < 1 << 16:
        return _MIDDLE.pack(kind, 126, size) + payload
    return _LARGE.pack(kind, 127, size) + payload


def _texts(head: bytes, fragments: Sequence[bytes]) -> bytes:
    if len(fragments) <= MAX_BARS:
        return framed(TEXT, b"".join((head, b",".join(fragments), b"]}")))
    return b"".join(
        framed(TEXT, b"".join((head, b",".join(fragments[start : start + MAX_BARS]), b"]}")))
        for start in range(0, len(fragments), MAX_BARS)
    )
