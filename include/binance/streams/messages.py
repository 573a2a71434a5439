"""Decode stream frames to typed values; code above this package sees no JSON.

The structures follow the exchange's documentation and recorded frames. Unknown fields are ignored
(the exchange adds some every year); a missing required field is an error. Times become
microseconds, whatever the connection's unit.
"""

from __future__ import annotations

from collections.abc import Sequence
from decimal import Decimal, InvalidOperation
from typing import Annotated, Any

import msgspec

from include.domain.candles import Candle
from include.domain.exact import ZERO
from include.errors import PermanentError

ABSURD = Decimal(10) ** 24
"""Bound for prices, quantities and volumes; the exchange sends nothing near it."""
_LEAST = -ABSURD

FIRST_US = 100_000_000_000_000
"""Smallest time read as microseconds. Milliseconds have 13 digits until the year 5138, microseconds
15 and more since 1973."""

MARKET_TRADE = "MARKET"
"""``trade_type`` of fills that candles count; others are ``INSURANCE_FUND``, ``ADL`` and ``NA``."""

Moment = Annotated[int, msgspec.Meta(gt=10**12, lt=10**16)]
"""Valid event times, from 2001 in milliseconds to 2286 in microseconds."""


def microseconds(moment: int) -> int:
    """Convert a time of the exchange, in milliseconds or microseconds, to microseconds."""
    return moment if moment >= FIRST_US else moment * 1000


class AggTrade(msgspec.Struct, frozen=True, gc=False, tag_field="e", tag="aggTrade"):
    """``<symbol>@aggTrade``: fills of one taker order at one price."""

    event_time: Moment = msgspec.field(name="E")  # ms or µs, by connection
    symbol: str = msgspec.field(name="s")
    id: int = msgspec.field(name="a")  # contiguous for each symbol, on USD-M too
    price: Decimal = msgspec.field(name="p")
    quantity: Decimal = msgspec.field(name="q")
    first_trade_id: int = msgspec.field(name="f")
    last_trade_id: int = msgspec.field(name="l")
    trade_time: Moment = msgspec.field(name="T")  # decides the minute
    is_buyer_maker: bool = msgspec.field(name="m")  # True: the taker sold


class Trade(msgspec.Struct, frozen=True, gc=False, tag_field="e", tag="trade"):
    """``<symbol>@trade``: one fill. On USD-M the ids skip by design.

    USD-M also sends fills that are not trades of the market, such as takeovers by the insurance
    fund at prices far from the market's. The exchange's klines leave them out.
    """

    event_time: Moment = msgspec.field(name="E")
    symbol: str = msgspec.field(name="s")
    id: int = msgspec.field(name="t")
    price: Decimal = msgspec.field(name="p")
    quantity: Decimal = msgspec.field(name="q")
    trade_time: Moment = msgspec.field(name="T")
    is_buyer_maker: bool = msgspec.field(name="m")
    trade_type: str | None = msgspec.field(name="X", default=None)  # None on spot

    @property
    def is_market(self) -> bool:
        """Whether candles count it."""
        return self.trade_type is None or self.trade_type == MARKET_TRADE

    @property
    def first_trade_id(self) -> int:
        """The trade's own id."""
        return self.id

    @property
    def last_trade_id(self) -> int:
        """The trade's own id."""
        return self.id


class KlineBody(msgspec.Struct, frozen=True, gc=False):
    """The candle inside a kline frame."""

    open_time: Moment = msgspec.field(name="t")
    interval: str = msgspec.field(name="i")
    first_trade_id: int = msgspec.field(name="f")  # −1 without trades
    last_trade_id: int = msgspec.field(name="L")  # −1 without trades
    open: Decimal = msgspec.field(name="o")
    close: Decimal = msgspec.field(name="c")
    high: Decimal = msgspec.field(name="h")
    low: Decimal = msgspec.field(name="l")
    volume: Decimal = msgspec.field(name="v")  # base asset
    trade_count: int = msgspec.field(name="n")
    is_closed: bool = msgspec.field(name="x")
    quote_volume: Decimal = msgspec.field(name="q")
    taker_buy_volume: Decimal = msgspec.field(name="V")
    taker_buy_quote_volume: Decimal = msgspec.field(name="Q")

    @property
    def numbers(self) -> tuple[Decimal, ...]:
        """Its prices and volumes."""
        return (
            self.open, self.high, self.low, self.close, self.volume, self.quote_volume,
            self.taker_buy_volume, self.taker_buy_quote_volume,
        )  # fmt: skip


class Kline(msgspec.Struct, frozen=True, tag_field="e", tag="kline"):
    """``<symbol>@kline_<interval>``: the exchange's own candle at its event time."""

    event_time: Moment = msgspec.field(name="E")
    symbol: str = msgspec.field(name="s")
    body: KlineBody = msgspec.field(name="k")

    def candle(self, symbol: str) -> Candle:
        """Return the candle with the given platform symbol."""
        body = self.body
        has_trades = body.trade_count > 0
        return Candle(
            symbol,
            microseconds(body.open_time),
            body.open,
            body.high,
            body.low,
            body.close,
            body.volume,
            body.quote_volume,
            body.trade_count,
            body.taker_buy_volume,
            body.taker_buy_quote_volume,
            body.first_trade_id if has_trades else None,
            body.last_trade_id if has_trades else None,
        )


class ServerShutdown(msgspec.Struct, frozen=True, tag_field="e", tag="serverShutdown"):
    """The exchange is about to close the connection: reconnect immediately."""

    event_time: int = msgspec.field(name="E")


MarketFrame = AggTrade | Trade | Kline | ServerShutdown


class Combined(msgspec.Struct, frozen=True, gc=False):
    """Envelope of the combined streams."""

    stream: str
    data: MarketFrame


class ControlAnswer(msgspec.Struct, frozen=True):
    """Answer to a control message; ``error_code`` is None if it was accepted.

    An acknowledgement proves nothing: the exchange also acknowledges names that do not exist.
    """

    request_id: int | str | None
    result: Any = None
    error_code: int | None = None
    error_message: str = ""


class UnknownFrame(msgspec.Struct, frozen=True):
    """A well-formed frame of an unknown kind; ``kind`` is its event or stream name."""

    kind: str


Frame = MarketFrame | ControlAnswer | UnknownFrame

_decode_combined = msgspec.json.Decoder(Combined).decode
_decode_list = msgspec.json.Decoder(list[Combined]).decode
_decode_raw = msgspec.json.Decoder(MarketFrame).decode
_SHOWN_BYTES = 200
_SHOWN_KIND = 64
_KNOWN = frozenset({"aggTrade", "trade", "kline", "serverShutdown"})
_UNREADABLE = (msgspec.DecodeError, UnicodeDecodeError, RecursionError)
"""Errors of decoding: not JSON, not UTF-8, nested too deeply."""


def decode(text: bytes | memoryview | str) -> Frame:
    """Decode one text frame of a raw or combined connection.

    Raises:
        PermanentError: not JSON, or a known event lacks a field or has one of a wrong type; the
            message shows the frame's beginning.
    """
    try:
        data = _decode_combined(text).data
    except msgspec.ValidationError as error:
        return _decode_other(text, error)
    except _UNREADABLE as error:
        raise PermanentError(f"frame is not JSON ({error}): {_beginning(text)}") from None
    return _checked(data, text)


def decode_all(texts: Sequence[bytes]) -> list[Frame | PermanentError]:
    """Decode text frames, in order; a frame that ``decode`` refuses is replaced by its error.

    Frames are parsed as one list, which costs a third less; lists of a hundred are long enough. If
    that fails for any frame, each is parsed separately.
    """
    try:
        envelopes = _decode_list(b"[" + b",".join(texts) + b"]")
        if len(envelopes) == len(texts):
            return [
                # The checks of ``_checked``, inline: nearly all frames pass here.
                data
                if type(data := one.data) is AggTrade
                and ZERO < data.price < ABSURD
                and ZERO < data.quantity < ABSURD
                else _checked(data, text)
                for one, text in zip(envelopes, texts, strict=True)
            ]
    except (*_UNREADABLE, InvalidOperation, PermanentError):
        pass  # the loop below finds which frame, and why
    return [_decoded(text) for text in texts]


def _decoded(text: bytes) -> Frame | PermanentError:
    try:
        return decode(text)
    except PermanentError as error:
        return error


def _checked(data: MarketFrame, text: bytes | memoryview | str) -> MarketFrame:
    """Refuse values that parse but that no exchange sends: NaN, Infinity, absurd magnitudes.

    Raises:
        PermanentError: a number is not plain and finite; the message shows the frame.
    """
    numbers: tuple[Decimal, ...]
    if isinstance(data, AggTrade | Trade):
        numbers = (data.price, data.quantity)
    elif isinstance(data, Kline):
        numbers = data.body.numbers
    else:
        return data
    try:
        is_sound = all(_LEAST < number < ABSURD for number in numbers)
    except InvalidOperation:
        is_sound = False  # comparing NaN raises
    if not is_sound:
        raise PermanentError(f"frame has an invalid number: {_beginning(text)}")
    if isinstance(data, Trade) and not data.is_market and not _is_name(data.trade_type):
        raise PermanentError(f"X of a trade should be one word: {_beginning(text)}")
    return data


def _is_name(text: str | None) -> bool:
    """Whether a text is a plain word, which needs no escaping in a line of COPY."""
    return text is not None and text.isascii() and text.isidentifier() and len(text) < _SHOWN_KIND


def _decode_other(text: bytes | memoryview | str, combined_error: Exception) -> Frame:
    try:
        frame = msgspec.json.decode(text)
    except _UNREADABLE as error:
        raise PermanentError(f"frame is not JSON ({error}): {_beginning(text)}") from None
    if not isinstance(frame, dict):
        raise PermanentError(f"frame is not an object: {_beginning(text)}")
    if "stream" not in frame:
        answer = _control_answer(frame)
        if answer is not None:
            return answer
    payload = frame.get("data") if "stream" in frame else frame
    kind = payload.get("e") if isinstance(payload, dict) else None
    if isinstance(kind, str) and kind in _KNOWN:
        if "stream" in frame:
            raise PermanentError(f"frame {kind}: {combined_error}: {_beginning(text)}")
        try:
            raw: MarketFrame = _decode_raw(text)
        except msgspec.ValidationError as error:
            raise PermanentError(f"frame {kind}: {error}: {_beginning(text)}") from None
        return _checked(raw, text)
    return UnknownFrame(str(kind or frame.get("stream") or "no event type")[:_SHOWN_KIND])


def _control_answer(frame: dict[str, Any]) -> ControlAnswer | None:
    error = frame.get("error")
    if isinstance(error, dict):
        code = error.get("code")
        return ControlAnswer(
            frame.get("id"),
            error_code=code if isinstance(code, int) else -1,
            error_message=str(error.get("msg", "")),
        )
    if "result" in frame:
        return ControlAnswer(frame.get("id"), result=frame["result"])
    return None


def _beginning(text: bytes | memoryview | str) -> str:
    start = bytes(text[:_SHOWN_BYTES]) if not isinstance(text, str) else text[:_SHOWN_BYTES]
    return repr(start)
