"""``<symbol>@bookTicker``: the best bid and ask, typed. Spot frames have no event type."""

from __future__ import annotations

from decimal import Decimal, InvalidOperation

import msgspec

from include.binance.frames import ABSURD, Frame, decode
from include.errors import PermanentError

_MARK = b"@bookTicker"
_MARK_WITHIN = 96
"""A combined frame names its stream first; names are shorter than this."""
_SHOWN_BYTES = 200


class BookTicker(msgspec.Struct, frozen=True, gc=False):
    """A change of the best bid or ask."""

    update_id: int = msgspec.field(name="u")  # ascends for each symbol
    symbol: str = msgspec.field(name="s")
    bid_price: Decimal = msgspec.field(name="b")
    bid_quantity: Decimal = msgspec.field(name="B")
    ask_price: Decimal = msgspec.field(name="a")
    ask_quantity: Decimal = msgspec.field(name="A")
    event_time: int = msgspec.field(name="E", default=0)  # ms or µs; 0: not told (spot)


class _Combined(msgspec.Struct, frozen=True, gc=False):
    stream: str
    data: BookTicker


_decode = msgspec.json.Decoder(_Combined).decode


def decode_captured(text: bytes | memoryview) -> Frame | BookTicker:
    """Type one text frame of a combined connection that may carry quotes.

    Raises:
        PermanentError: as ``frames.decode``; or a quote lacks a field, or holds no number.
    """
    if _MARK not in bytes(text[:_MARK_WITHIN]):
        return decode(text)
    try:
        quote = _decode(text).data
        numbers = (quote.bid_price, quote.bid_quantity, quote.ask_price, quote.ask_quantity)
        is_sound = all(-ABSURD < number < ABSURD for number in numbers)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise PermanentError(f"frame bookTicker: {error}: {_beginning(text)}") from None
    except InvalidOperation:
        is_sound = False  # NaN has no order
    if not is_sound:
        raise PermanentError(f"frame holds a number that is none: {_beginning(text)}")
    return quote


def _beginning(text: bytes | memoryview) -> str:
    return repr(bytes(text[:_SHOWN_BYTES]))
